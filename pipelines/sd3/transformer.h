/* SD3Transformer2DModel (diffusers/models/transformers/transformer_sd3.py; arXiv 2403.03206):
 * Stable Diffusion 3, and 3.5 with its norm of queries and keys and its second attention. */
#ifndef MP_PIPELINES_SD3_TRANSFORMER_H
#define MP_PIPELINES_SD3_TRANSFORMER_H

#include "kernels/core/ctx.h"
#include "pipelines/common/weights.h"

enum { MP_SD3_MAX_LAYERS = 256 };

typedef struct mp_sd3_config {
    int64_t sample_size, patch_size, in_channels, out_channels, layers, heads, head_dim,
        joint_attention_dim, pooled_projection_dim, pos_embed_max_size;
    bool qk_norm; /* rms_norm of each head's queries and keys */
    bool dual[MP_SD3_MAX_LAYERS];
} mp_sd3_config;

typedef struct mp_sd3_transformer mp_sd3_transformer;

/* _skip_layerwise_casting_patterns, for mp_weights_options.storage_skip.  The model keeps nothing
 * in fp32; its table of positions is a stored buffer and is cast as the parameters are. */
extern const char *const mp_sd3_storage_skip[];

/* dir/config.json into *out, without opening the weights. */
mp_code mp_sd3_config_read(const char *dir, mp_sd3_config *out, mp_error *err);
mp_code mp_sd3_transformer_open(const char *dir, const mp_weights_options *o,
                                mp_sd3_transformer **out, mp_error *err);
void mp_sd3_transformer_close(mp_sd3_transformer *m); /* NULL is fine */
const mp_sd3_config *mp_sd3_transformer_config(const mp_sd3_transformer *m);
mp_weights *mp_sd3_transformer_weights(const mp_sd3_transformer *m);

typedef struct mp_sd3_inputs {
    mp_tensor hidden_states;         /* [B, H, W, C] */
    mp_tensor encoder_hidden_states; /* [B, S, joint_attention_dim] */
    mp_tensor pooled_projections;    /* [B, pooled_projection_dim] */
    const float *timestep;           /* [B] */
    const int *skip_layers;          /* blocks left out (skip-layer guidance), or NULL */
    int skip_count;
} mp_sd3_inputs;
/* The tensors are of the model's dtype.  -> [B, H', W', out], H' and W' being H and W without what
 * is left of a patch.  A grid of patches larger than pos_embed_max_size is MP_ESHAPE. */
mp_tensor mp_sd3_transformer_forward(mp_ctx *c, const mp_sd3_transformer *m,
                                     const mp_sd3_inputs *in);

#endif
