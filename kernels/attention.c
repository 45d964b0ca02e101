#include <math.h>

#include "kernels/backend.h"
#include "kernels/core/ctx_internal.h"
#include "kernels/ops.h"
#include "kernels/rules.h"

/* transformers multiplies by hand, so it meets matmul's rule; everything else is torch's SDPA,
 * whose text names all three. */
static void check_dtypes(mp_ctx *c, mp_tensor q, mp_tensor k, mp_tensor v,
                         mp_attn_rounding rounding)
{
    if (rounding == MP_ATTN_EAGER) {
        mp_rule_check(c, MP_RULE_MATMUL4D, q, k);
        mp_rule_check(c, MP_RULE_MATMUL4D, q, v);
    } else if (k.dtype == v.dtype) {
        mp_rule_check(c, MP_RULE_SDPA, q, k);
    } else {
        mp_fail(c, MP_EDTYPE, NULL,
                "Expected query, key, and value to have the same dtype, but got query.dtype: %s "
                "key.dtype: %s and value.dtype: %s instead.",
                mp_dtype_c10(q.dtype), mp_dtype_c10(k.dtype), mp_dtype_c10(v.dtype));
    }
}

/* SDPA adds a mask in fp32 to its fp32 scores; beside eager's rounded scores such a mask would make
 * them fp32, which no model does. */
static void check_mask_dtype(mp_ctx *c, mp_tensor q, mp_tensor mask, mp_attn_rounding rounding)
{
    if (!mp_given(mask) || mask.dtype == q.dtype)
        return;
    if (rounding == MP_ATTN_EAGER)
        mp_fail(c, MP_EDTYPE, NULL,
                "eager attention adds a mask of the dtype of its scores, but got %s and %s",
                mp_dtype_c10(q.dtype), mp_dtype_c10(mask.dtype));
    else if (mask.dtype != MP_F32)
        mp_fail(c, MP_EDTYPE, NULL,
                "Expected attn_mask dtype to be bool or float or to match query dtype, but got "
                "attn_mask.dtype: %s and  query.dtype: %s instead.",
                mp_dtype_c10(mask.dtype), mp_dtype_c10(q.dtype));
}

static bool fits(mp_tensor q, mp_tensor k, mp_tensor v, const mp_attn_opts *o)
{
    if (q.rank != 3 || k.rank != 3 || !mp_same_shape(k, v) || q.dim[0] != k.dim[0])
        return false;
    if (o->heads < 1 || o->kv_heads < 1 || o->heads % o->kv_heads || q.dim[2] % o->heads)
        return false;
    return k.dim[2] * o->heads == q.dim[2] * o->kv_heads;
}

static void check_shapes(mp_ctx *c, mp_tensor q, mp_tensor k, mp_tensor v, const mp_attn_opts *o)
{
    const mp_tensor m = o->mask, bias = o->bias;
    char qs[96], ks[96], vs[96];

    mp_shape_text(k, ks, sizeof ks);
    if (!fits(q, k, v, o))
        mp_fail(c, MP_ESHAPE, NULL,
                "attention: q %s, k %s and v %s with %d and %d heads do not fit",
                mp_shape_text(q, qs, sizeof qs), ks, mp_shape_text(v, vs, sizeof vs), o->heads,
                o->kv_heads);
    else if (mp_given(m) && (m.rank != 2 || m.dim[0] != k.dim[0] || m.dim[1] != k.dim[1]))
        mp_fail(c, MP_ESHAPE, NULL, "attention: mask %s does not fit k %s",
                mp_shape_text(m, qs, sizeof qs), ks);
    else if (mp_given(bias) &&
             (bias.rank != 2 || bias.dim[0] != o->heads || bias.dim[1] != q.dim[1] + k.dim[1] - 1))
        mp_fail(c, MP_ESHAPE, NULL, "attention: bias %s does not fit %d heads, q %s and k %s",
                mp_shape_text(bias, vs, sizeof vs), o->heads, mp_shape_text(q, qs, sizeof qs), ks);
}

static mp_tensor attn_softmax(mp_ctx *c, mp_tensor q, mp_tensor k, mp_tensor v, mp_attn_opts o)
{
    o.kv_heads = o.kv_heads ? o.kv_heads : o.heads;
    check_dtypes(c, q, k, v, o.rounding);
    check_mask_dtype(c, q, o.mask, o.rounding);
    check_mask_dtype(c, q, o.bias, o.rounding);
    check_shapes(c, q, k, v, &o);
    if (mp_failed(c))
        return MP_NONE;
    if (o.scale == 0.0f)
        o.scale = (float)(1.0 / sqrt((double)(q.dim[2] / o.heads)));
    const mp_tensor y = mp_like(c, q);
    c->work.flops = 4 * (uint64_t)mp_numel(y) * (uint64_t)k.dim[1];
    if (!mp_failed(c))
        c->backend->product.attn_softmax(c, q, k, v, &o, y);
    return y;
}

mp_tensor mp_attn_softmax(mp_ctx *c, mp_tensor q, mp_tensor k, mp_tensor v, mp_attn_opts o)
{
    mp_op op = mp_op_open("attn_softmax", NULL, MP_OPERANDS(&q, &k, &v, &o.mask, &o.bias));
    mp_tensor y = MP_NONE;

    while (mp_op_run(c, &op, &y))
        y = attn_softmax(c, q, k, v, o);
    return y;
}

/* A product of keys with values, to which a row of ones is added, and one with queries. */
static uint64_t linear_flops(const mp_attn_linear_args *a)
{
    return 4 * (uint64_t)(a->batch * a->tokens * a->heads) * (uint64_t)(a->d * (a->d + 1));
}

static mp_heads separate_heads(mp_tensor t, int64_t d)
{
    return (mp_heads){t, 0, mp_dim(t, -1), d};
}

static mp_tensor attn_linear(mp_ctx *c, mp_tensor q, mp_tensor k, mp_tensor v, int heads, float eps)
{
    char qs[96], ks[96], vs[96];

    mp_rule_check(c, MP_RULE_RELU, q, q);
    mp_rule_check(c, MP_RULE_RELU, k, k);
    if (mp_failed(c))
        return MP_NONE;
    if (q.rank != 3 || !mp_same_shape(q, k) || !mp_same_shape(q, v) || heads < 1 ||
        q.dim[2] % heads)
        return mp_fail(c, MP_ESHAPE, NULL,
                       "linear attention: q %s, k %s and v %s with %d heads do not fit",
                       mp_shape_text(q, qs, sizeof qs), mp_shape_text(k, ks, sizeof ks),
                       mp_shape_text(v, vs, sizeof vs), heads);
    const int64_t d = q.dim[2] / heads;
    const mp_tensor y = mp_like(c, q);
    const mp_attn_linear_args a = {separate_heads(q, d),
                                   separate_heads(k, d),
                                   separate_heads(v, d),
                                   separate_heads(y, d),
                                   q.dim[0],
                                   q.dim[1],
                                   heads,
                                   d,
                                   eps};
    c->work.flops = linear_flops(&a);
    if (!mp_failed(c))
        c->backend->product.attn_linear(c, &a);
    return y;
}

mp_tensor mp_attn_linear(mp_ctx *c, mp_tensor q, mp_tensor k, mp_tensor v, int heads, float eps)
{
    mp_op op = mp_op_open("attn_linear", NULL, MP_OPERANDS(&q, &k, &v));
    mp_tensor y = MP_NONE;

    while (mp_op_run(c, &op, &y))
        y = attn_linear(c, q, k, v, heads, eps);
    return y;
}

/* x [B, H, W, G*3*d]: q, k, v of group g lie at channels g*3d, +d, +2d. */
static mp_attn_linear_args multiscale_args(mp_tensor x, mp_tensor y, int64_t d, float eps)
{
    const int64_t groups = x.dim[3] / (3 * d);
    const mp_heads in = {x, 0, x.dim[3], 3 * d}, out = {y, 0, y.dim[3], d};
    mp_attn_linear_args a = {in, in, in, out, x.dim[0], x.dim[1] * x.dim[2], groups, d, eps};

    a.k.at = d;
    a.v.at = 2 * d;
    return a;
}

static mp_tensor multiscale_result(mp_ctx *c, mp_tensor x, int head_dim)
{
    char xs[96];

    if (x.rank != 4 || head_dim < 1 || x.dim[3] % (3 * (int64_t)head_dim))
        return mp_fail(c, MP_ESHAPE, NULL, "multi-scale attention: %s with head dimension %d",
                       mp_shape_text(x, xs, sizeof xs), head_dim);
    return mp_new(c, x.dtype, 4, MP_DIMS(x.dim[0], x.dim[1], x.dim[2], x.dim[3] / 3));
}

static mp_tensor multiscale_linear(mp_ctx *c, mp_tensor x, int head_dim, float eps)
{
    const mp_tensor y = multiscale_result(c, x, head_dim);
    if (mp_failed(c))
        return MP_NONE;
    const mp_attn_linear_args a = multiscale_args(x, y, head_dim, eps);
    c->work.flops = linear_flops(&a);
    c->backend->product.attn_linear(c, &a);
    return y;
}

mp_tensor mp_attn_multiscale_linear(mp_ctx *c, mp_tensor x, int head_dim, float eps)
{
    mp_op op = mp_op_open("attn_multiscale_linear", NULL, MP_OPERANDS(&x));
    mp_tensor y = MP_NONE;

    while (mp_op_run(c, &op, &y))
        y = multiscale_linear(c, x, head_dim, eps);
    return y;
}

static mp_tensor multiscale_quadratic(mp_ctx *c, mp_tensor x, int head_dim, float eps,
                                      bool no_cast_back)
{
    const mp_tensor y = multiscale_result(c, x, head_dim);
    const mp_tensor scores = {.dtype = no_cast_back ? MP_F32 : x.dtype};
    mp_rule_check(c, MP_RULE_RELU, x, x);
    mp_rule_check(c, MP_RULE_MATMUL4D, x, scores); /* v times scores */
    if (mp_failed(c))
        return MP_NONE;
    const mp_attn_linear_args a = multiscale_args(x, y, head_dim, eps);
    c->work.flops = 4 * (uint64_t)mp_numel(y) * (uint64_t)a.tokens;
    c->backend->product.attn_quadratic(c, &a);
    return y;
}

mp_tensor mp_attn_multiscale_quadratic(mp_ctx *c, mp_tensor x, int head_dim, float eps,
                                       bool no_cast_back)
{
    mp_op op = mp_op_open("attn_multiscale_quadratic", NULL, MP_OPERANDS(&x));
    mp_tensor y = MP_NONE;

    while (mp_op_run(c, &op, &y))
        y = multiscale_quadratic(c, x, head_dim, eps, no_cast_back);
    return y;
}

static mp_tensor rope_half(mp_ctx *c, mp_tensor x, mp_tensor cos, mp_tensor sin, int heads)
{
    char xs[96], cs[96];

    const mp_dtype dtype = mp_rule_check(c, MP_RULE_MUL, x, cos);
    if (mp_failed(c))
        return MP_NONE;
    if (sin.dtype != cos.dtype)
        return mp_fail(c, MP_EDTYPE, NULL, "rotary embedding: cos is %s and sin is %s",
                       mp_dtype_torch(cos.dtype), mp_dtype_torch(sin.dtype));
    if (x.rank != 3 || heads < 1 || x.dim[2] % (2 * heads) || cos.rank != 2 ||
        !mp_same_shape(cos, sin) || cos.dim[0] != x.dim[1] || cos.dim[1] * heads != x.dim[2])
        return mp_fail(c, MP_ESHAPE, NULL, "rotary embedding: %s with %d heads and cos, sin %s",
                       mp_shape_text(x, xs, sizeof xs), heads, mp_shape_text(cos, cs, sizeof cs));
    const mp_tensor y = mp_like_as(c, x, dtype);
    if (!mp_failed(c))
        c->backend->vector.rope_half(c, x, cos, sin, heads, y);
    return y;
}

mp_tensor mp_rope_half(mp_ctx *c, mp_tensor x, mp_tensor cos, mp_tensor sin, int heads)
{
    mp_op op = mp_op_open("rope_half", NULL, MP_OPERANDS(&x, &cos, &sin));
    mp_tensor y = MP_NONE;

    while (mp_op_run(c, &op, &y))
        y = rope_half(c, x, cos, sin, heads);
    return y;
}
