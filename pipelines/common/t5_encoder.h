/* The encoder of T5 and UMT5: transformers' T5EncoderModel and UMT5EncoderModel 5.23.
 *
 * What transformers 5.23 does, and its older releases did not: attention goes through
 * scaled_dot_product_attention, with the position bias as its mask.  The weights named "wo" stay in
 * fp32 under fp16, and only there, so that from the first feed-forward on the sum of the blocks is
 * fp32 in an fp16 encoder. */
#ifndef MP_PIPELINES_COMMON_T5_ENCODER_H
#define MP_PIPELINES_COMMON_T5_ENCODER_H

#include "kernels/core/ctx.h"
#include "pipelines/common/weights.h"

typedef struct mp_t5_encoder mp_t5_encoder;

/* dir: config.json and the weights; of a whole T5 the decoder is left out.  The options need live
 * during the call only. */
mp_code mp_t5_encoder_open(const char *dir, const mp_weights_options *o, mp_t5_encoder **out,
                           mp_error *err);
void mp_t5_encoder_close(mp_t5_encoder *m); /* NULL is fine */
mp_weights *mp_t5_encoder_weights(const mp_t5_encoder *m);
int64_t mp_t5_encoder_width(const mp_t5_encoder *m); /* d_model */

/* last_hidden_state of ids [n], n >= 1: [1, n, d_model].  mask [n]: 0 for tokens that are not
 * attended to; NULL: all are, padding too, which is how StableDiffusion3Pipeline calls its T5. */
mp_tensor mp_t5_encoder_forward(mp_ctx *c, const mp_t5_encoder *m, const int32_t *ids,
                                const uint8_t *mask, int64_t n);

#endif
