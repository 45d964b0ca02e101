/* Gemma2Model as Sana's text encoder (transformers/models/gemma2/modeling_gemma2.py): token ids to
 * the last hidden state.  Attention is the eager form: Gemma-2's softcap forbids SDPA. */
#ifndef MP_PIPELINES_SANA_GEMMA2_H
#define MP_PIPELINES_SANA_GEMMA2_H

#include "kernels/core/ctx.h"
#include "pipelines/common/weights.h"

typedef struct mp_gemma2 mp_gemma2;

mp_code mp_gemma2_open(const char *dir, const mp_weights_options *o, mp_gemma2 **out,
                       mp_error *err);
void mp_gemma2_close(mp_gemma2 *m);
mp_weights *mp_gemma2_weights(const mp_gemma2 *m);
/* ids and mask [n] (1 token, 0 padding at the right) -> last_hidden_state [1, n, hidden] */
mp_tensor mp_gemma2_forward(mp_ctx *c, const mp_gemma2 *m, const int32_t *ids, const uint8_t *mask,
                            int64_t n);

#endif
