/* GLUMBConv, the gated inverted bottleneck of Sana and DC-AE (GLUMBConv in
 * diffusers/models/transformers/sana_transformer.py; arXiv 2410.10629, Mix-FFN). */
#ifndef MP_PIPELINES_COMMON_GLUMBCONV_H
#define MP_PIPELINES_COMMON_GLUMBCONV_H

#include "kernels/core/ctx.h"
#include "pipelines/common/weights.h"

typedef struct mp_glumbconv {
    mp_affine inverted; /* 1x1, [2*hidden, C] */
    mp_affine depth;    /* 3x3 depthwise, [2*hidden, 1, 3, 3] */
    mp_affine point;    /* 1x1 without bias, [O, hidden] */
    mp_affine norm;     /* rms_norm [O] with bias, or nothing */
} mp_glumbconv;

/* Parameters under `path` ("transformer_blocks.0.ff"). */
void mp_glumbconv_bind(mp_weights *w, mp_glumbconv *p, int64_t channels, int64_t hidden, bool norm,
                       const char *path);
/* x [B, H, W, C] -> [B, H, W, C].  The residual connection is the caller's equation. */
mp_tensor mp_glumbconv_forward(mp_ctx *c, const mp_glumbconv *p, mp_tensor x);

#endif
