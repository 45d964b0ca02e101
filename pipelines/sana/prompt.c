#include "pipelines/sana/prompt.h"

#include <string.h>

#include "kernels/core/memory.h"
#include "kernels/ops.h"
#include "pipelines/common/python_text.h"

/* Part of the model: it was trained on captions that answer exactly this text. */
const char *const mp_sana_instruction[] = {
    "Given a user prompt, generate an 'Enhanced prompt' that provides detailed visual "
    "descriptions suitable for image generation. Evaluate the level of detail in the "
    "user prompt:",
    "- If the prompt is simple, focus on adding specifics about colors, shapes, sizes, "
    "textures, and spatial relationships to create vivid and concrete scenes.",
    "- If the prompt is already detailed, refine and enhance the existing details "
    "slightly without overcomplicating.",
    "Here are examples of how to transform or refine prompts:",
    "- User Prompt: A cat sleeping -> Enhanced: A small, fluffy white cat curled up in a "
    "round shape, sleeping peacefully on a warm sunny windowsill, surrounded by pots of "
    "blooming red flowers.",
    "- User Prompt: A busy city street -> Enhanced: A bustling city street scene at "
    "dusk, featuring glowing street lamps, a diverse crowd of people in colorful "
    "clothing, and a double-decker bus passing by towering glass skyscrapers.",
    "Please generate only the enhanced description for the prompt below and avoid "
    "including any additional commentary or evaluations:",
    "User Prompt: ",
    NULL,
};

char *mp_sana_join(const char *const *lines)
{
    size_t size = 1;

    for (int i = 0; lines[i]; i++)
        size += strlen(lines[i]) + 1;
    char *const text = mp_alloc(size, 1);
    for (int i = 0; text && lines[i]; i++) {
        if (i)
            strcat(text, "\n");
        strcat(text, lines[i]);
    }
    return text;
}

static mp_code no_memory(mp_error *err)
{
    return mp_error_set(err, MP_ENOMEM, "no memory for the prompt");
}

/* Tokens of the padded prompt: the instruction's, plus max_length less its own two specials. */
static mp_code padded_count(const mp_tokenizer *t, const char *instruction, int64_t max_length,
                            int64_t *out, mp_error *err)
{
    int32_t *ids = NULL;
    int64_t n = 0;

    *out = max_length;
    if (!instruction)
        return MP_OK;
    const mp_code code =
        mp_tokenizer_encode(t, instruction, strlen(instruction), true, &ids, &n, err);
    mp_free(ids);
    *out = n + max_length - 2;
    if (!code && *out < max_length - 1)
        return mp_error_set(err, MP_EUSAGE,
                            "complex_human_instruction: %lld tokens are too few for the pipeline, "
                            "which takes two of them for special ones; use a longer text or []",
                            (long long)n);
    return code;
}

/* instruction + lower case of the prompt, as a new string */
static char *full_text(const char *prompt, const char *instruction)
{
    char *const lower = mp_python_lower_strip(prompt);
    const size_t before = instruction ? strlen(instruction) : 0;
    char *const text = lower ? mp_alloc(before + strlen(lower) + 1, 1) : NULL;

    if (text && instruction)
        memcpy(text, instruction, before);
    if (text)
        strcpy(text + before, lower);
    mp_free(lower);
    return text;
}

mp_code mp_sana_prompt_encode(const mp_tokenizer *t, const char *prompt, const char *instruction,
                              int64_t max_length, mp_sana_prompt *out, mp_error *err)
{
    *out = (mp_sana_prompt){0};
    if (padded_count(t, instruction, max_length, &out->count, err))
        return err->code;
    char *const text = full_text(prompt, instruction);
    out->ids = mp_alloc((size_t)out->count, sizeof *out->ids);
    out->mask = mp_alloc((size_t)out->count, sizeof *out->mask);
    out->length = max_length;
    if (!text || !out->ids || !out->mask)
        no_memory(err);
    else
        mp_tokenizer_encode_padded(t, text, out->count, out->ids, out->mask, &out->truncated, err);
    mp_free(text);
    if (err->code)
        mp_sana_prompt_free(out);
    return err->code;
}

void mp_sana_prompt_free(mp_sana_prompt *p)
{
    mp_free(p->ids);
    mp_free(p->mask);
    *p = (mp_sana_prompt){0};
}

mp_tensor mp_sana_prompt_embed(mp_ctx *c, const mp_gemma2 *m, const mp_sana_prompt *p,
                               uint8_t *mask)
{
    const int64_t tail = p->length - 1, from = p->count - tail;
    const mp_mark mark = mp_open(c);
    mp_tensor x = mp_gemma2_forward(c, m, p->ids, p->mask, p->count);

    x = mp_cast(c, x, mp_weights_dtype(mp_gemma2_weights(m)));
    mask[0] = p->mask[0];
    memcpy(mask + 1, p->mask + from, (size_t)tail);
    if (p->count == p->length)
        return mp_keep(c, mark, x);
    const mp_tensor first = mp_narrow_axis(c, x, 1, 0, 1);
    if (!tail)
        return mp_keep(c, mark, first);
    const mp_tensor parts[] = {first, mp_narrow_axis(c, x, 1, from, tail)};
    return mp_keep(c, mark, mp_cat(c, 2, parts, 1));
}
