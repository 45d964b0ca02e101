#include "kernels/backend.h"
#include "kernels/core/ctx_internal.h"
#include "kernels/ops.h"
#include "kernels/rules.h"

/* x has rows at all. */
static bool has_rows(mp_ctx *c, mp_tensor x)
{
    if (x.rank < 1)
        mp_fail(c, MP_ESHAPE, NULL, "%s: a scalar has no last dimension", c->op);
    return x.rank > 0;
}

/* The parameter is as long as a row of x, or absent where it may be. */
static bool fits(mp_ctx *c, mp_tensor x, const char *what, mp_tensor p, bool needed)
{
    char xs[96], ps[96];

    if (!has_rows(c, x))
        return false;
    if (mp_given(p) ? p.rank == 1 && p.dim[0] == mp_dim(x, -1) : !needed)
        return true;
    mp_fail(c, MP_ESHAPE, &p, "%s: %s %s over input %s", c->op, what,
            mp_given(p) ? mp_shape_text(p, ps, sizeof ps) : "is missing",
            mp_shape_text(x, xs, sizeof xs));
    return false;
}

static mp_tensor layer_norm(mp_ctx *c, mp_tensor x, mp_tensor w, mp_tensor b, float eps)
{
    const mp_dtype dtype = mp_rule_check(c, MP_RULE_LAYER_NORM, x, mp_given(w) ? w : x);
    if (mp_failed(c))
        return MP_NONE;
    if (!fits(c, x, "weight", w, false) || !fits(c, x, "bias", b, false))
        return MP_NONE;
    const mp_tensor y = mp_like_as(c, x, dtype);
    if (!mp_failed(c))
        c->backend->vector.layer_norm(c, x, w, b, eps, y);
    return y;
}

mp_tensor mp_layer_norm(mp_ctx *c, mp_tensor x, mp_tensor w, mp_tensor b, float eps)
{
    mp_op op = mp_op_open("layer_norm", mp_given(w) ? &w : NULL, MP_OPERANDS(&x, &w, &b));
    mp_tensor y = MP_NONE;

    while (mp_op_run(c, &op, &y))
        y = layer_norm(c, x, w, b, eps);
    return y;
}

/* Diffusers' RMSNorm is written out in torch's elementwise ops: x times an fp32 factor, whose
 * result goes to a half weight's dtype, or stays fp32 beside an fp32 one.  torch's is one op;
 * Gemma's widens x first, so it takes every dtype. */
static mp_dtype rms_dtype(mp_ctx *c, mp_tensor x, mp_tensor w, mp_rms_style style)
{
    mp_tensor t = {.dtype = MP_F32};

    if (style == MP_RMS_TORCH)
        return mp_rule_check(c, MP_RULE_RMS_NORM, x, mp_given(w) ? w : x);
    if (style == MP_RMS_GEMMA)
        return x.dtype;
    mp_rule_check(c, MP_RULE_MUL, x, t);
    if (!mp_given(w))
        return x.dtype;
    t.dtype = w.dtype == MP_F16 || w.dtype == MP_BF16 ? w.dtype : MP_F32;
    return mp_rule_check(c, MP_RULE_MUL, t, w);
}

static mp_tensor rms_norm(mp_ctx *c, mp_tensor x, mp_tensor w, mp_tensor b, float eps,
                          mp_rms_style style)
{
    const mp_dtype dtype = rms_dtype(c, x, w, style);
    if (mp_failed(c))
        return MP_NONE;
    if (!fits(c, x, "weight", w, style == MP_RMS_GEMMA) || !fits(c, x, "bias", b, false))
        return MP_NONE;
    const mp_tensor y = mp_like_as(c, x, dtype);
    if (!mp_failed(c))
        c->backend->vector.rms_norm(c, x, w, b, eps, style, y);
    return y;
}

mp_tensor mp_rms_norm(mp_ctx *c, mp_tensor x, mp_tensor w, mp_tensor b, float eps,
                      mp_rms_style style)
{
    mp_op op = mp_op_open("rms_norm", mp_given(w) ? &w : NULL, MP_OPERANDS(&x, &w, &b));
    mp_tensor y = MP_NONE;

    while (mp_op_run(c, &op, &y))
        y = rms_norm(c, x, w, b, eps, style);
    return y;
}

static mp_tensor batch_norm(mp_ctx *c, mp_tensor x, mp_tensor mean, mp_tensor var, mp_tensor w,
                            mp_tensor b, float eps)
{
    const mp_dtype dtype = mp_rule_check(c, MP_RULE_BATCH_NORM, x, mp_given(w) ? w : mean);
    if (mp_failed(c))
        return MP_NONE;
    if (!fits(c, x, "mean", mean, true) || !fits(c, x, "variance", var, true) ||
        !fits(c, x, "weight", w, false) || !fits(c, x, "bias", b, false))
        return MP_NONE;
    const mp_tensor y = mp_like_as(c, x, dtype);
    if (!mp_failed(c))
        c->backend->vector.batch_norm(c, x, mean, var, w, b, eps, y);
    return y;
}

mp_tensor mp_batch_norm(mp_ctx *c, mp_tensor x, mp_tensor mean, mp_tensor var, mp_tensor w,
                        mp_tensor b, float eps)
{
    mp_op op =
        mp_op_open("batch_norm", mp_given(w) ? &w : &mean, MP_OPERANDS(&x, &mean, &var, &w, &b));
    mp_tensor y = MP_NONE;

    while (mp_op_run(c, &op, &y))
        y = batch_norm(c, x, mean, var, w, b, eps);
    return y;
}

static mp_tensor group_norm(mp_ctx *c, mp_tensor x, int groups, mp_tensor w, mp_tensor b, float eps)
{
    char text[96];

    const mp_dtype dtype = mp_rule_check(c, MP_RULE_GROUP_NORM, x, mp_given(w) ? w : x);
    if (mp_failed(c))
        return MP_NONE;
    if (x.rank < 2 || groups < 1 || mp_dim(x, -1) % groups)
        return mp_fail(c, MP_ESHAPE, mp_given(w) ? &w : NULL,
                       "group_norm: the channels (last) of input %s cannot be divided into %d "
                       "groups",
                       mp_shape_text(x, text, sizeof text), groups);
    if (mp_numel(x) == groups) /* torch.nn.functional.group_norm's own check and text */
        return mp_fail(c, MP_ESHAPE, mp_given(w) ? &w : NULL,
                       "Expected more than 1 value per channel when training, got input size "
                       "%s (channels last)",
                       mp_shape_text(x, text, sizeof text));
    if (!fits(c, x, "weight", w, false) || !fits(c, x, "bias", b, false))
        return MP_NONE;
    const mp_tensor y = mp_like_as(c, x, dtype);
    if (!mp_failed(c))
        c->backend->vector.group_norm(c, x, groups, w, b, eps, y);
    return y;
}

mp_tensor mp_group_norm(mp_ctx *c, mp_tensor x, int groups, mp_tensor w, mp_tensor b, float eps)
{
    mp_op op = mp_op_open("group_norm", mp_given(w) ? &w : NULL, MP_OPERANDS(&x, &w, &b));
    mp_tensor y = MP_NONE;

    while (mp_op_run(c, &op, &y))
        y = group_norm(c, x, groups, w, b, eps);
    return y;
}

static mp_tensor softmax(mp_ctx *c, mp_tensor x)
{
    const mp_dtype dtype = mp_rule_check(c, MP_RULE_SOFTMAX, x, x);
    if (mp_failed(c))
        return MP_NONE;
    if (!has_rows(c, x))
        return MP_NONE;
    const mp_tensor y = mp_like_as(c, x, dtype);
    if (!mp_failed(c))
        c->backend->vector.softmax(c, x, y);
    return y;
}

mp_tensor mp_softmax(mp_ctx *c, mp_tensor x)
{
    mp_op op = mp_op_open("softmax", NULL, MP_OPERANDS(&x));
    mp_tensor y = MP_NONE;

    while (mp_op_run(c, &op, &y))
        y = softmax(c, x);
    return y;
}
