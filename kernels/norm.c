#include "kernels/backend.h"
#include "kernels/core/ctx_internal.h"
#include "kernels/ops.h"
#include "kernels/rules.h"

static bool is_row(mp_tensor p, mp_tensor x)
{
    return !mp_given(p) || (p.rank == 1 && p.dim[0] == mp_dim(x, -1));
}

static mp_tensor misfit(mp_ctx *c, const char *name, mp_tensor x, mp_tensor w)
{
    char xs[96], ws[96];

    return mp_fail(c, MP_ESHAPE, &w, "%s: parameters %s over input %s", name,
                   mp_shape_text(w, ws, sizeof ws), mp_shape_text(x, xs, sizeof xs));
}

mp_tensor mp_layer_norm(mp_ctx *c, mp_tensor x, mp_tensor w, mp_tensor b, float eps)
{
    if (mp_failed(c))
        return MP_NONE;
    const mp_op op = mp_op_begin(c, "layer_norm", mp_given(w) ? &w : NULL);
    const mp_dtype dtype = mp_rule_check(c, MP_RULE_LAYER_NORM, x, mp_given(w) ? w : x);
    if (mp_failed(c))
        return MP_NONE;
    if (x.rank < 1 || !is_row(w, x) || !is_row(b, x))
        return misfit(c, op.name, x, w);
    const mp_tensor y = mp_like_as(c, x, dtype);
    if (!mp_failed(c))
        c->backend->vector.layer_norm(c, x, w, b, eps, y);
    return mp_op_end(c, &op, y);
}

/* Diffusers' RMSNorm is written out in torch's elementwise ops: x (fp32 after the norm) goes to a
 * half weight's dtype, or stays fp32 beside an fp32 one.  The other two are one op each. */
static mp_dtype rms_dtype(mp_ctx *c, mp_tensor x, mp_tensor w, mp_rms_style style)
{
    if (style == MP_RMS_DIFFUSERS && mp_given(w)) {
        const mp_tensor wide = {.dtype =
                                    w.dtype == MP_F16 || w.dtype == MP_BF16 ? w.dtype : MP_F32};
        return mp_rule_check(c, MP_RULE_MUL, wide, w);
    }
    if (style == MP_RMS_TORCH)
        return mp_rule_check(c, MP_RULE_RMS_NORM, x, mp_given(w) ? w : x);
    return x.dtype;
}

mp_tensor mp_rms_norm(mp_ctx *c, mp_tensor x, mp_tensor w, mp_tensor b, float eps,
                      mp_rms_style style)
{
    if (mp_failed(c))
        return MP_NONE;
    const mp_op op = mp_op_begin(c, "rms_norm", mp_given(w) ? &w : NULL);
    const mp_dtype dtype = rms_dtype(c, x, w, style);
    if (mp_failed(c))
        return MP_NONE;
    if (x.rank < 1 || !is_row(w, x) || !is_row(b, x) || (style == MP_RMS_GEMMA && !mp_given(w)))
        return misfit(c, op.name, x, w);
    const mp_tensor y = mp_like_as(c, x, dtype);
    if (!mp_failed(c))
        c->backend->vector.rms_norm(c, x, w, b, eps, style, y);
    return mp_op_end(c, &op, y);
}

mp_tensor mp_batch_norm(mp_ctx *c, mp_tensor x, mp_tensor mean, mp_tensor var, mp_tensor w,
                        mp_tensor b, float eps)
{
    if (mp_failed(c))
        return MP_NONE;
    const mp_op op = mp_op_begin(c, "batch_norm", mp_given(w) ? &w : &mean);
    const mp_dtype dtype = mp_rule_check(c, MP_RULE_GROUP_NORM, x, mp_given(w) ? w : mean);
    if (mp_failed(c))
        return MP_NONE;
    if (x.rank < 1 || !mp_given(mean) || !mp_given(var) || !is_row(mean, x) || !is_row(var, x) ||
        !is_row(w, x) || !is_row(b, x))
        return misfit(c, op.name, x, mean);
    const mp_tensor y = mp_like_as(c, x, dtype);
    if (!mp_failed(c))
        c->backend->vector.batch_norm(c, x, mean, var, w, b, eps, y);
    return mp_op_end(c, &op, y);
}

mp_tensor mp_softmax(mp_ctx *c, mp_tensor x)
{
    if (mp_failed(c))
        return MP_NONE;
    const mp_op op = mp_op_begin(c, "softmax", NULL);
    const mp_dtype dtype = mp_rule_check(c, MP_RULE_SOFTMAX, x, x);
    if (mp_failed(c))
        return MP_NONE;
    if (x.rank < 1)
        return mp_fail(c, MP_ESHAPE, NULL, "softmax: a scalar has no last dimension");
    const mp_tensor y = mp_like_as(c, x, dtype);
    if (!mp_failed(c))
        c->backend->vector.softmax(c, x, y);
    return mp_op_end(c, &op, y);
}
