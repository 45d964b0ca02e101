/* A module with a weight and perhaps a bias, applied: what torch's nn.Linear and nn.Conv2d are. */
#ifndef MP_PIPELINES_COMMON_LAYERS_H
#define MP_PIPELINES_COMMON_LAYERS_H

#include "kernels/ops.h"
#include "pipelines/common/weights.h"

/* x [.., in] -> [.., out] */
static inline mp_tensor mp_apply_linear(mp_ctx *c, const mp_affine *p, mp_tensor x)
{
    return mp_linear(c, x, p->weight, p->bias);
}

/* x [B, H, W, C] -> [B, H', W', O] */
static inline mp_tensor mp_apply_conv2d(mp_ctx *c, const mp_affine *p, mp_tensor x,
                                        mp_conv2d_opts o)
{
    return mp_conv2d(c, x, p->weight, p->bias, o);
}

#endif
