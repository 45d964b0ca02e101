/* SanaTransformer2DModel (diffusers/models/transformers/sana_transformer.py; arXiv 2410.10629). */
#ifndef MP_PIPELINES_SANA_TRANSFORMER_H
#define MP_PIPELINES_SANA_TRANSFORMER_H

#include "kernels/core/ctx.h"
#include "pipelines/common/weights.h"

/* Of queries and keys, over all heads at once; the other names that Diffusers' Attention knows norm
 * each head and do not fit Sana's processors, which norm before they split into heads. */
typedef enum mp_sana_qk_norm { MP_SANA_QK_NONE, MP_SANA_QK_RMS, MP_SANA_QK_LAYER } mp_sana_qk_norm;

typedef struct mp_sana_config {
    int64_t in_channels, out_channels, heads, head_dim, layers, cross_heads, cross_head_dim,
        cross_dim, caption_channels, sample_size, patch_size;
    double mlp_ratio, norm_eps, timestep_scale, guidance_embeds_scale;
    double interpolation_scale; /* 0: no positional embedding */
    bool attention_bias, norm_elementwise_affine, guidance_embeds;
    mp_sana_qk_norm qk_norm;
} mp_sana_config;

typedef struct mp_sana_transformer mp_sana_transformer;

/* dir/config.json into *out, without opening the weights. */
mp_code mp_sana_config_read(const char *dir, mp_sana_config *out, mp_error *err);
mp_code mp_sana_transformer_open(const char *dir, const mp_weights_options *o,
                                 mp_sana_transformer **out, mp_error *err);
void mp_sana_transformer_close(mp_sana_transformer *m);
const mp_sana_config *mp_sana_transformer_config(const mp_sana_transformer *m);
mp_weights *mp_sana_transformer_weights(const mp_sana_transformer *m);
/* latents [B, H, W, C] and text [B, S, caption_channels] in the model's dtype; mask [B, S] of 0 and
 * 1; timestep and guidance [B] fp32 (guidance NULL without guidance embeddings) -> [B, H, W, out].
 */
mp_tensor mp_sana_transformer_forward(mp_ctx *c, const mp_sana_transformer *m, mp_tensor latents,
                                      mp_tensor text, const uint8_t *mask, const float *timestep,
                                      const float *guidance);

#endif
