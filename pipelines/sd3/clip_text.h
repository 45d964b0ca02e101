/* CLIPTextModelWithProjection (transformers/models/clip/modeling_clip.py): both CLIP text encoders
 * of Stable Diffusion 3.  Token ids to the hidden states of a layer and to the projected state of
 * the end of the text.  Attention is causal scaled_dot_product_attention, transformers' default. */
#ifndef MP_PIPELINES_SD3_CLIP_TEXT_H
#define MP_PIPELINES_SD3_CLIP_TEXT_H

#include "kernels/core/ctx.h"
#include "pipelines/common/weights.h"

typedef struct mp_clip_text mp_clip_text;

/* o->component ("text_encoder", "text_encoder_2") is the root of the module paths. */
mp_code mp_clip_text_open(const char *dir, const mp_weights_options *o, mp_clip_text **out,
                          mp_error *err);
void mp_clip_text_close(mp_clip_text *m); /* NULL is fine */
mp_weights *mp_clip_text_weights(const mp_clip_text *m);

typedef struct mp_clip_text_sizes {
    int64_t vocab, positions, layers;
    int64_t hidden;     /* D */
    int64_t projection; /* P */
} mp_clip_text_sizes;
mp_clip_text_sizes mp_clip_text_get_sizes(const mp_clip_text *m);

typedef struct mp_clip_text_output {
    mp_tensor hidden_states; /* hidden_states[-(clip_skip + 2)] [1, n, D]; no norm after it */
    mp_tensor text_embeds;   /* [1, P] */
} mp_clip_text_output;
/* ids [n], n at most the positions, padding and all: SD3 gives no mask.  clip_skip as
 * StableDiffusion3Pipeline's, 0 for None: in 0..layers - 1, else MP_ESHAPE. */
mp_clip_text_output mp_clip_text_forward(mp_ctx *c, const mp_clip_text *m, const int32_t *ids,
                                         int64_t n, int64_t clip_skip);

#endif
