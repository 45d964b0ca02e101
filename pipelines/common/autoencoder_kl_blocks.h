/* The building blocks of AutoencoderKL: residual block, attention of one head, down- and
 * up-sampling blocks, middle block (diffusers/models/resnet.py, attention_processor.py,
 * downsampling.py, upsampling.py, unets/unet_2d_blocks.py).  Activations are [B, H, W, C]. */
#ifndef MP_PIPELINES_COMMON_AUTOENCODER_KL_BLOCKS_H
#define MP_PIPELINES_COMMON_AUTOENCODER_KL_BLOCKS_H

#include "kernels/ops.h"
#include "pipelines/common/weights.h"

enum { MP_KL_PATH = 64 };

/* What all blocks of a model share. */
typedef struct mp_kl_config {
    int groups; /* of every norm */
    mp_act act; /* of the residual blocks */
} mp_kl_config;

/* ResnetBlock2D without time embedding. */
typedef struct mp_kl_resnet {
    mp_affine norm1, conv1, norm2, conv2;
    mp_affine conv_shortcut; /* where the channels change */
} mp_kl_resnet;

/* Attention with AttnProcessor2_0, Diffusers' default. */
typedef struct mp_kl_attention {
    mp_affine group_norm, to_q, to_k, to_v, to_out;
} mp_kl_attention;

/* DownEncoderBlock2D and UpDecoderBlock2D. */
typedef struct mp_kl_block {
    int64_t layers;
    mp_kl_resnet *resnets; /* [layers] */
    bool resample;
    mp_affine conv; /* downsamplers.0.conv, upsamplers.0.conv */
} mp_kl_block;

/* UNetMidBlock2D */
typedef struct mp_kl_mid {
    mp_kl_resnet resnets[2];
    bool attention;
    mp_kl_attention attn;
} mp_kl_mid;

/* A norm over all channels. */
void mp_kl_norm_bind(mp_weights *w, mp_affine *p, int64_t channels, const char *path,
                     const char *name);
mp_tensor mp_kl_norm_forward(mp_ctx *c, const mp_kl_config *o, const mp_affine *p, mp_tensor x);

/* Parameters under `path` ("decoder.up_blocks.2"); p->layers and p->resample are set, p->resnets is
 * allocated here (mp_free). */
mp_code mp_kl_down_bind(mp_weights *w, mp_kl_block *p, int64_t in, int64_t out, const char *path,
                        mp_error *err);
mp_code mp_kl_up_bind(mp_weights *w, mp_kl_block *p, int64_t in, int64_t out, const char *path,
                      mp_error *err);
void mp_kl_mid_bind(mp_weights *w, mp_kl_mid *p, int64_t channels, const char *path);

/* Within the scope of the block's own path. */
mp_tensor mp_kl_down_forward(mp_ctx *c, const mp_kl_config *o, const mp_kl_block *p, mp_tensor x);
mp_tensor mp_kl_up_forward(mp_ctx *c, const mp_kl_config *o, const mp_kl_block *p, mp_tensor x);
mp_tensor mp_kl_mid_forward(mp_ctx *c, const mp_kl_config *o, const mp_kl_mid *p, mp_tensor x);

#endif
