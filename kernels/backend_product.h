/* The part of a device's table that multiplies: linear layers, convolutions, attention.
 * Tensors are checked and allocated; `y` is the result.  fp32 accumulation, one rounding at the
 * end, except where kernels/ops.h lists more. */
#ifndef MP_KERNELS_BACKEND_PRODUCT_H
#define MP_KERNELS_BACKEND_PRODUCT_H

#include "kernels/ops.h"

/* q, k and v of linear attention as they lie in one or three tensors: element offset of the first
 * token and head, and the distances between tokens and between heads. */
typedef struct mp_heads {
    mp_tensor t;
    int64_t at, token, head;
} mp_heads;

typedef struct mp_attn_linear_args {
    mp_heads q, k, v, y;
    int64_t batch, tokens, heads, d;
    float eps;
} mp_attn_linear_args;

typedef struct mp_backend_product {
    /* y [M, N] = x [M, K] w^T [N, K] + b */
    void (*linear)(mp_ctx *c, mp_tensor x, mp_tensor w, mp_tensor b, mp_tensor y);
    /* x [B, T, H, W, C], w [O, C/groups, kt, kh, kw], no 0 in o; of pictures T = kt = 1 */
    void (*conv)(mp_ctx *c, mp_tensor x, mp_tensor w, mp_tensor b, mp_conv3d_opts o, mp_tensor y);
    void (*matmul)(mp_ctx *c, mp_tensor a, mp_tensor b, mp_tensor y);
    void (*attn_softmax)(mp_ctx *c, mp_tensor q, mp_tensor k, mp_tensor v, const mp_attn_opts *o,
                         mp_tensor y);
    void (*attn_linear)(mp_ctx *c, const mp_attn_linear_args *a);
    /* tokens are few: relu(k)^T relu(q), normalised over keys, times v; rounding as in ops.h. */
    void (*attn_quadratic)(mp_ctx *c, const mp_attn_linear_args *a);
} mp_backend_product;

#endif
