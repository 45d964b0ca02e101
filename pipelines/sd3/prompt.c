/* encode_prompt of StableDiffusion3Pipeline: the two CLIPs side by side along the features, padded
 * with zeros to the width of T5, and T5 behind them along the tokens. */
#include <stdio.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "kernels/ops.h"
#include "pipelines/common/file.h"
#include "pipelines/sd3/sd3.h"

enum { CLIP_TOKENS = 77 }; /* tokenizer_max_length */

/* The pipeline's own words, with the start of what was cut off.  (What the pipeline shows of T5's
 * text begins at the 77th token wherever it is cut.) */
static mp_code warn_truncated(const mp_tokenizer *t, const char *text, int64_t limit,
                              const char *reason, const mp_sink *sink, mp_error *err)
{
    enum { SHOWN = sizeof(mp_plain_line) }; /* tokens, of a byte or more */
    int32_t *ids = NULL;
    char *removed = NULL, line[400];
    int64_t n = 0;

    if (!sink || !sink->warn || mp_tokenizer_encode(t, text, strlen(text), true, &ids, &n, err))
        return err->code;
    const int64_t first = limit - 1, cut = n - 1 - first; /* both ends have the last token */
    if (!mp_tokenizer_decode(t, ids + first, cut < SHOWN ? cut : SHOWN, &removed, err)) {
        snprintf(line, sizeof line,
                 "The following part of your input was truncated because %s %lld tokens: ['%s']",
                 reason, (long long)limit, mp_plain(removed).text);
        sink->warn(sink->user, line);
    }
    mp_free(removed);
    mp_free(ids);
    return err->code;
}

static mp_tensor zeros(mp_ctx *c, mp_dtype dtype, int64_t rows, int64_t width)
{
    const mp_tensor x = mp_new(c, dtype, 3, MP_DIMS(1, rows, width));

    if (!mp_failed(c))
        memset(x.data, 0, mp_nbytes(x));
    return x;
}

/* hidden_states [1, 77, D] in the first text encoder's dtype, as the pipeline casts both; *pooled
 * [1, P] stays in its own. */
static mp_tensor encode_clip(mp_ctx *c, const mp_sd3 *s, int which, const char *text, int clip_skip,
                             mp_tensor *pooled, const mp_sink *sink, mp_error *err)
{
    const mp_dtype dtype = mp_weights_dtype(mp_clip_text_weights(s->text_encoder[0]));
    int32_t ids[CLIP_TOKENS];
    uint8_t mask[CLIP_TOKENS];
    int64_t cut = 0;

    if (mp_tokenizer_encode_padded(s->tokenizer[which], text, CLIP_TOKENS, ids, mask, &cut, err) ||
        (cut && warn_truncated(s->tokenizer[which], text, CLIP_TOKENS,
                               "CLIP can only handle sequences up to", sink, err)))
        return MP_NONE;
    const mp_clip_text_output y =
        mp_clip_text_forward(c, s->text_encoder[which], ids, CLIP_TOKENS, clip_skip);
    *pooled = y.text_embeds;
    return mp_cast(c, y.hidden_states, dtype);
}

/* [1, n, joint_attention_dim]; zeros where there is no T5. */
static mp_tensor encode_t5(mp_ctx *c, const mp_sd3 *s, const char *text, const mp_sink *sink,
                           mp_error *err)
{
    const int64_t n = s->call.max_sequence_length;
    int32_t *ids = NULL;
    uint8_t *mask = NULL;
    mp_tensor x = MP_NONE;
    int64_t cut = 0;

    if (!s->text_encoder_3)
        return zeros(c, mp_weights_dtype(mp_clip_text_weights(s->text_encoder[0])), n,
                     mp_sd3_transformer_config(s->transformer)->joint_attention_dim);
    ids = mp_alloc((size_t)n, sizeof *ids);
    mask = mp_alloc((size_t)n, sizeof *mask);
    if (!ids || !mask)
        mp_error_set(err, MP_ENOMEM, "no memory for the prompt's tokens");
    else if (!mp_tokenizer_encode_padded(s->tokenizer_3, text, n, ids, mask, &cut, err) &&
             !(cut && warn_truncated(s->tokenizer_3, text, n, "`max_sequence_length` is set to ",
                                     sink, err))) {
        x = mp_t5_encoder_forward(c, s->text_encoder_3, ids, NULL, n);
        x = mp_cast(c, x, mp_weights_dtype(mp_t5_encoder_weights(s->text_encoder_3)));
    }
    mp_free(ids);
    mp_free(mask);
    return x;
}

/* One sample n times. */
static mp_tensor repeat(mp_ctx *c, mp_tensor x, int64_t n)
{
    const mp_tensor one = x;

    for (int64_t i = 1; i < n && !mp_failed(c); i++)
        x = mp_cat(c, 2, (mp_tensor[]){x, one}, 0);
    return x;
}

mp_sd3_prompt mp_sd3_encode(mp_ctx *c, const mp_sd3 *s, char *const texts[3], int clip_skip,
                            const mp_sink *sink, mp_error *err)
{
    const mp_sd3_prompt none = {MP_NONE, MP_NONE};
    const mp_mark mark = mp_open(c);
    mp_tensor clip[MP_SD3_CLIPS], pooled[MP_SD3_CLIPS];

    for (int i = 0; i < MP_SD3_CLIPS; i++) {
        clip[i] = encode_clip(c, s, i, texts[i], clip_skip, &pooled[i], sink, err);
        if (err->code)
            return none;
    }
    const mp_tensor t5 = encode_t5(c, s, texts[2], sink, err);
    if (err->code || mp_failed(c))
        return none;
    mp_tensor x = mp_cat(c, MP_SD3_CLIPS, clip, -1);
    if (mp_failed(c))
        return none;
    /* F.pad keeps the dtype of what it pads. */
    const int64_t missing = mp_dim(t5, -1) - mp_dim(x, -1);
    if (missing > 0)
        x = mp_cat(c, 2, (mp_tensor[]){x, zeros(c, x.dtype, CLIP_TOKENS, missing)}, -1);
    x = repeat(c, mp_cat(c, 2, (mp_tensor[]){x, t5}, 1), s->call.images);
    const mp_tensor p = repeat(c, mp_cat(c, MP_SD3_CLIPS, pooled, -1), s->call.images);
    mp_keep_all(c, mark, 2, (mp_tensor[]){x, p});
    return (mp_sd3_prompt){x, p};
}
