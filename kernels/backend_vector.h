/* The part of a device's table that is memory-bound: elementwise work, norms, movement.
 *
 * Tensors are checked and allocated.  `y` is the result.  Rounding points are those of
 * kernels/ops.h; where operands have several dtypes, each hidden torch op rounds to what torch
 * promotes to. */
#ifndef MP_KERNELS_BACKEND_VECTOR_H
#define MP_KERNELS_BACKEND_VECTOR_H

#include "kernels/ops.h"

typedef enum mp_scalar_op {
    MP_SCALAR_CAST, /* y = x */
    MP_SCALAR_ADD,  /* x + a, with a already rounded */
    MP_SCALAR_MUL,
    MP_SCALAR_DIV,
    MP_SCALAR_CLIP, /* a..b */
    MP_SCALAR_EXP,
} mp_scalar_op;

typedef enum mp_binary_op { MP_BINARY_ADD, MP_BINARY_MUL } mp_binary_op;

enum { MP_MOVE_RANK = 8 };

/* Element strides over a common shape: where each operand of a broadcast or a movement lies.  The
 * innermost dimension is last. */
typedef struct mp_strided {
    int rank;
    int64_t dim[MP_MOVE_RANK];
    int64_t a[MP_MOVE_RANK], b[MP_MOVE_RANK];
} mp_strided;

typedef struct mp_backend_vector {
    void (*activate)(mp_ctx *c, mp_act act, mp_tensor x, mp_tensor y);
    void (*scalar)(mp_ctx *c, mp_scalar_op op, mp_tensor x, float a, float b, mp_tensor y);
    /* y is contiguous in the shape of s. */
    void (*binary)(mp_ctx *c, mp_binary_op op, const mp_strided *s, mp_tensor a, mp_tensor b,
                   mp_tensor y);
    void (*where)(mp_ctx *c, const uint8_t *mask, mp_tensor a, mp_tensor b, mp_tensor y);
    /* y [rows, n] = act(g) * u, rows of g and u `stride` apart, beginning at g_at and u_at. */
    void (*gate)(mp_ctx *c, mp_act act, mp_tensor g, int64_t g_at, mp_tensor u, int64_t u_at,
                 int64_t stride, mp_tensor y);
    void (*modulate)(mp_ctx *c, mp_tensor x, mp_tensor shift, mp_tensor scale, mp_tensor y);
    void (*add_gated)(mp_ctx *c, mp_tensor x, mp_tensor gate, mp_tensor v, mp_tensor y);
    void (*layer_norm)(mp_ctx *c, mp_tensor x, mp_tensor w, mp_tensor b, float eps, mp_tensor y);
    void (*rms_norm)(mp_ctx *c, mp_tensor x, mp_tensor w, mp_tensor b, float eps,
                     mp_rms_style style, mp_tensor y);
    void (*batch_norm)(mp_ctx *c, mp_tensor x, mp_tensor mean, mp_tensor var, mp_tensor w,
                       mp_tensor b, float eps, mp_tensor y);
    /* x [B, .., C]; the channels are a multiple of groups. */
    void (*group_norm)(mp_ctx *c, mp_tensor x, int groups, mp_tensor w, mp_tensor b, float eps,
                       mp_tensor y);
    void (*softmax)(mp_ctx *c, mp_tensor x, mp_tensor y);
    void (*sum)(mp_ctx *c, mp_tensor x, mp_tensor y);
    void (*mean_channels)(mp_ctx *c, mp_tensor x, int group, mp_tensor y);
    void (*embedding)(mp_ctx *c, const int32_t *ids, int64_t n, mp_tensor w, mp_tensor y);
    /* dst (strides s->a) = src (strides s->b), elements of `size` bytes. */
    void (*move)(mp_ctx *c, const mp_strided *s, void *dst, const void *src, size_t size);
    void (*resize_bilinear)(mp_ctx *c, mp_tensor x, mp_tensor y);
    void (*measure)(mp_ctx *c, mp_tensor x, mp_range *out);
    /* In place: x [B, S, heads*d] turned by cos and sin [S, d]; y is the result. */
    void (*rope_half)(mp_ctx *c, mp_tensor x, mp_tensor cos, mp_tensor sin, int heads, mp_tensor y);
} mp_backend_vector;

#endif
