/* The building blocks of AutoencoderDC: residual block, EfficientViT block with multi-scale linear
 * attention, up- and down-sampling with shortcuts
 * (diffusers/models/autoencoders/autoencoder_dc.py, SanaMultiscaleLinearAttention in
 * attention_processor.py).  Activations are [B, H, W, C]. */
#ifndef MP_PIPELINES_COMMON_AUTOENCODER_DC_BLOCKS_H
#define MP_PIPELINES_COMMON_AUTOENCODER_DC_BLOCKS_H

#include "kernels/ops.h"
#include "pipelines/common/glumbconv.h"
#include "pipelines/common/weights.h"

enum { MP_DC_SCALES = 4, MP_DC_PATH = 96 };

typedef enum mp_dc_norm_type { MP_DC_RMS_NORM, MP_DC_BATCH_NORM } mp_dc_norm_type;

typedef struct mp_dc_norm {
    mp_dc_norm_type type;
    mp_tensor weight, bias, mean, var; /* [C]; mean and var of batch_norm only */
} mp_dc_norm;

typedef struct mp_dc_attention {
    mp_affine to_q, to_k, to_v, to_out;
    mp_affine proj_in[MP_DC_SCALES], proj_out[MP_DC_SCALES]; /* to_qkv_multiscale */
    int scales, heads, head_dim;
    bool no_cast_back; /* scores of the quadratic branch stay fp32 */
    mp_dc_norm norm_out;
} mp_dc_attention;

/* ResBlock, or EfficientViTBlock where `vit`. */
typedef struct mp_dc_block {
    bool vit;
    mp_act act;
    mp_affine conv1, conv2;
    mp_dc_norm norm;
    mp_dc_attention attn;
    mp_glumbconv conv_out;
} mp_dc_block;

typedef struct mp_dc_block_config {
    bool vit;
    int64_t channels, head_dim;
    mp_dc_norm_type norm;
    mp_act act;
    int scales;
    const int64_t *kernel_sizes; /* [scales] */
    bool no_cast_back;
} mp_dc_block_config;

/* DCDownBlock2d and DCUpBlock2d.  resample: pixel_unshuffle after the convolution (down), nearest
 * interpolation before it (up); otherwise a stride of 2 (down), pixel_shuffle after it (up). */
typedef struct mp_dc_resample {
    mp_affine conv;
    bool resample, shortcut;
    int64_t in, out; /* channels of the block's input and output */
} mp_dc_resample;

/* Parameters under `path` ("decoder.up_blocks.2.1"). */
void mp_dc_block_bind(mp_weights *w, mp_dc_block *p, const mp_dc_block_config *o, const char *path);
void mp_dc_down_bind(mp_weights *w, mp_dc_resample *p, const char *path);
void mp_dc_up_bind(mp_weights *w, mp_dc_resample *p, const char *path);

mp_tensor mp_dc_block_forward(mp_ctx *c, const mp_dc_block *p, mp_tensor x);
mp_tensor mp_dc_down_forward(mp_ctx *c, const mp_dc_resample *p, mp_tensor x);
mp_tensor mp_dc_up_forward(mp_ctx *c, const mp_dc_resample *p, mp_tensor x);

#endif
