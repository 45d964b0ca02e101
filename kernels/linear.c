#include "kernels/backend.h"
#include "kernels/core/ctx_internal.h"
#include "kernels/ops.h"
#include "kernels/rules.h"

/* torch's addmm serves a bias, mm its absence: each has its own text for two dtypes. */
static mp_rule linear_rule(mp_tensor x, mp_tensor b)
{
    if (!mp_given(b))
        return MP_RULE_LINEAR;
    return x.rank > 2 ? MP_RULE_LINEAR3D_BIAS : MP_RULE_LINEAR_BIAS;
}

/* addmm compares the bias with the weight before it looks at the input. */
static void check_bias(mp_ctx *c, mp_tensor w, mp_tensor b)
{
    if (mp_given(b) && b.dtype != w.dtype)
        mp_fail(c, MP_EDTYPE, &w, "self and mat2 must have the same dtype, but got %s and %s",
                mp_dtype_scalar(b.dtype), mp_dtype_scalar(w.dtype));
}

static mp_tensor linear(mp_ctx *c, mp_tensor x, mp_tensor w, mp_tensor b)
{
    char xs[96], ws[96];
    int64_t dims[MP_MAX_RANK];

    check_bias(c, w, b);
    const mp_dtype dtype = mp_rule_check(c, linear_rule(x, b), x, w);
    if (mp_failed(c))
        return MP_NONE;
    if (x.rank < 1 || w.rank != 2 || mp_dim(x, -1) != w.dim[1])
        return mp_fail(c, MP_ESHAPE, &w, "linear: input %s does not fit weight %s",
                       mp_shape_text(x, xs, sizeof xs), mp_shape_text(w, ws, sizeof ws));
    if (mp_given(b) && (b.rank != 1 || b.dim[0] != w.dim[0]))
        return mp_fail(c, MP_ESHAPE, &b, "linear: bias %s does not fit weight %s",
                       mp_shape_text(b, xs, sizeof xs), mp_shape_text(w, ws, sizeof ws));
    for (int i = 0; i < x.rank; i++)
        dims[i] = x.dim[i];
    dims[x.rank - 1] = w.dim[0];
    const mp_tensor y = mp_new(c, dtype, x.rank, dims);
    c->work.flops = 2 * (uint64_t)mp_numel(y) * (uint64_t)w.dim[1];
    if (!mp_failed(c))
        c->backend->product.linear(c, x, w, b, y);
    return y;
}

mp_tensor mp_linear(mp_ctx *c, mp_tensor x, mp_tensor w, mp_tensor b)
{
    mp_op op = mp_op_open("linear", &w, MP_OPERANDS(&x, &w, &b));
    mp_tensor y = MP_NONE;

    while (mp_op_run(c, &op, &y))
        y = linear(c, x, w, b);
    return y;
}

static bool same_batch(mp_tensor a, mp_tensor b)
{
    for (int i = 0; i + 2 < a.rank; i++)
        if (a.dim[i] != b.dim[i])
            return false;
    return true;
}

static mp_tensor matmul(mp_ctx *c, mp_tensor a, mp_tensor b)
{
    char as[96], bs[96];
    int64_t dims[MP_MAX_RANK];

    const mp_dtype dtype = mp_rule_check(c, a.rank > 2 ? MP_RULE_MATMUL4D : MP_RULE_MATMUL2D, a, b);
    if (mp_failed(c))
        return MP_NONE;
    if (a.rank < 2 || a.rank != b.rank || mp_dim(a, -1) != mp_dim(b, -2) || !same_batch(a, b))
        return mp_fail(c, MP_ESHAPE, NULL, "matmul: %s times %s", mp_shape_text(a, as, sizeof as),
                       mp_shape_text(b, bs, sizeof bs));
    for (int i = 0; i < a.rank; i++)
        dims[i] = a.dim[i];
    dims[a.rank - 1] = mp_dim(b, -1);
    const mp_tensor y = mp_new(c, dtype, a.rank, dims);
    c->work.flops = 2 * (uint64_t)mp_numel(y) * (uint64_t)mp_dim(a, -1);
    if (!mp_failed(c))
        c->backend->product.matmul(c, a, b, y);
    return y;
}

mp_tensor mp_matmul(mp_ctx *c, mp_tensor a, mp_tensor b)
{
    mp_op op = mp_op_open("matmul", NULL, MP_OPERANDS(&a, &b));
    mp_tensor y = MP_NONE;

    while (mp_op_run(c, &op, &y))
        y = matmul(c, a, b);
    return y;
}
