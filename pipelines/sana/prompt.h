/* Prompts as SanaPipeline gives them to its text encoder
 * (diffusers/pipelines/sana/pipeline_sana.py: _text_preprocessing, _get_gemma_prompt_embeds). */
#ifndef MP_PIPELINES_SANA_PROMPT_H
#define MP_PIPELINES_SANA_PROMPT_H

#include "kernels/core/ctx.h"
#include "pipelines/common/tokenizer.h"
#include "pipelines/sana/gemma2.h"

/* The pipeline's default complex_human_instruction, NULL-terminated. */
extern const char *const mp_sana_instruction[];

/* "\n".join(lines) as a new string (mp_free). */
char *mp_sana_join(const char *const *lines);

typedef struct mp_sana_prompt {
    int32_t *ids;      /* [count], mp_sana_prompt_free */
    uint8_t *mask;     /* [count]: 1 for tokens, 0 for padding */
    int64_t count;     /* of what the text encoder reads: the instruction's tokens among them */
    int64_t length;    /* of what the transformer reads: the first, and the last length - 1 */
    int64_t truncated; /* tokens cut off */
} mp_sana_prompt;

/* Lower case, the instruction (NULL: none) in front, padded or cut to the tokens of the instruction
 * plus max_length - 2, or to max_length without one. */
mp_code mp_sana_prompt_encode(const mp_tokenizer *t, const char *prompt, const char *instruction,
                              int64_t max_length, mp_sana_prompt *out, mp_error *err);
void mp_sana_prompt_free(mp_sana_prompt *p);

/* The text encoder's states of the tokens that the transformer reads -> [1, length, hidden]; their
 * mask into mask[length]. */
mp_tensor mp_sana_prompt_embed(mp_ctx *c, const mp_gemma2 *m, const mp_sana_prompt *p,
                               uint8_t *mask);

#endif
