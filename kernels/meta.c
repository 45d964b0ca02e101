/* The device "meta": the front ends check, allocate and name everything, and no kernel computes.
 * What torch.device("meta") is to torch; a rehearsal (mpbench run --dry-run) runs on it. */
#include "kernels/meta.h"

/* The tables say what each kernel takes. */
#pragma GCC diagnostic ignored "-Wunused-parameter"

static void activate(mp_ctx *c, mp_act act, mp_tensor x, mp_tensor y)
{
}

static void scalar(mp_ctx *c, mp_scalar_op op, mp_tensor x, float a, float b, mp_tensor y)
{
}

static void binary(mp_ctx *c, mp_binary_op op, const mp_strided *s, mp_tensor a, mp_tensor b,
                   mp_tensor y)
{
}

static void where(mp_ctx *c, const uint8_t *mask, mp_tensor a, mp_tensor b, mp_tensor y)
{
}

static void gate(mp_ctx *c, mp_act act, mp_tensor g, int64_t g_at, mp_tensor u, int64_t u_at,
                 int64_t stride, mp_tensor y)
{
}

static void modulate(mp_ctx *c, mp_tensor x, mp_tensor shift, mp_tensor scale, mp_tensor y)
{
}

static void add_gated(mp_ctx *c, mp_tensor x, mp_tensor gate, mp_tensor v, mp_tensor y)
{
}

static void layer_norm(mp_ctx *c, mp_tensor x, mp_tensor w, mp_tensor b, float eps, mp_tensor y)
{
}

static void rms_norm(mp_ctx *c, mp_tensor x, mp_tensor w, mp_tensor b, float eps,
                     mp_rms_style style, mp_tensor y)
{
}

static void batch_norm(mp_ctx *c, mp_tensor x, mp_tensor mean, mp_tensor var, mp_tensor w,
                       mp_tensor b, float eps, mp_tensor y)
{
}

static void group_norm(mp_ctx *c, mp_tensor x, int groups, mp_tensor w, mp_tensor b, float eps,
                       mp_tensor y)
{
}

static void softmax(mp_ctx *c, mp_tensor x, mp_tensor y)
{
}

static void sum(mp_ctx *c, mp_tensor x, mp_tensor y)
{
}

static void mean_channels(mp_ctx *c, mp_tensor x, int group, mp_tensor y)
{
}

static void embedding(mp_ctx *c, const int32_t *ids, int64_t n, mp_tensor w, mp_tensor y)
{
}

static void move(mp_ctx *c, const mp_strided *s, void *dst, const void *src, size_t size)
{
}

static void resize_bilinear(mp_ctx *c, mp_tensor x, mp_tensor y)
{
}

static void measure(mp_ctx *c, mp_tensor x, mp_range *out)
{
    *out = (mp_range){0};
}

static void rope_half(mp_ctx *c, mp_tensor x, mp_tensor cos, mp_tensor sin, int heads, mp_tensor y)
{
}

static void linear(mp_ctx *c, mp_tensor x, mp_tensor w, mp_tensor b, mp_tensor y)
{
}

static void conv(mp_ctx *c, mp_tensor x, mp_tensor w, mp_tensor b, mp_conv3d_opts o, mp_tensor y)
{
}

static void matmul(mp_ctx *c, mp_tensor a, mp_tensor b, mp_tensor y)
{
}

static void attn_softmax(mp_ctx *c, mp_tensor q, mp_tensor k, mp_tensor v, const mp_attn_opts *o,
                         mp_tensor y)
{
}

static void attn_linear(mp_ctx *c, const mp_attn_linear_args *a)
{
}

static void attn_quadratic(mp_ctx *c, const mp_attn_linear_args *a)
{
}

const mp_backend mp_meta_backend = {
    .name = "meta",
    .vector = {.activate = activate,
               .scalar = scalar,
               .binary = binary,
               .where = where,
               .gate = gate,
               .modulate = modulate,
               .add_gated = add_gated,
               .layer_norm = layer_norm,
               .rms_norm = rms_norm,
               .batch_norm = batch_norm,
               .group_norm = group_norm,
               .softmax = softmax,
               .sum = sum,
               .mean_channels = mean_channels,
               .embedding = embedding,
               .move = move,
               .resize_bilinear = resize_bilinear,
               .measure = measure,
               .rope_half = rope_half},
    .product = {.linear = linear,
                .conv = conv,
                .matmul = matmul,
                .attn_softmax = attn_softmax,
                .attn_linear = attn_linear,
                .attn_quadratic = attn_quadratic},
};
