#include "kernels/backend.h"
#include "kernels/core/ctx_internal.h"
#include "kernels/ops.h"
#include "kernels/rules.h"

static bool fits(mp_tensor x, mp_tensor w, mp_conv2d_opts o)
{
    const int64_t border = 2 * (int64_t)o.padding;

    if (x.rank != 4 || w.rank != 4 || o.groups < 1 || o.stride < 1 || o.padding < 0)
        return false;
    if (x.dim[3] != w.dim[1] * o.groups || w.dim[0] % o.groups)
        return false;
    return x.dim[1] + border >= w.dim[2] && x.dim[2] + border >= w.dim[3];
}

static mp_tensor conv2d(mp_ctx *c, mp_tensor x, mp_tensor w, mp_tensor b, mp_conv2d_opts o)
{
    char xs[96], ws[96];

    o.stride = o.stride ? o.stride : 1;
    o.groups = o.groups ? o.groups : 1;
    const mp_dtype dtype =
        mp_given(b) ? mp_rule_check(c, MP_RULE_CONV2D_BIAS, x, b) : MP_DTYPE_COUNT;
    const mp_dtype product = mp_rule_check(c, MP_RULE_CONV2D, x, w);
    if (mp_failed(c))
        return MP_NONE;
    if (!fits(x, w, o))
        return mp_fail(c, MP_ESHAPE, &w,
                       "conv2d: input %s (channels last) does not fit weight %s with stride %d, "
                       "padding %d, %d groups",
                       mp_shape_text(x, xs, sizeof xs), mp_shape_text(w, ws, sizeof ws), o.stride,
                       o.padding, o.groups);
    if (mp_given(b) && (b.rank != 1 || b.dim[0] != w.dim[0]))
        return mp_fail(c, MP_ESHAPE, &b, "conv2d: bias %s does not fit weight %s",
                       mp_shape_text(b, xs, sizeof xs), mp_shape_text(w, ws, sizeof ws));
    const int64_t border = 2 * (int64_t)o.padding;
    const int64_t h = (x.dim[1] + border - w.dim[2]) / o.stride + 1;
    const int64_t width = (x.dim[2] + border - w.dim[3]) / o.stride + 1;
    const mp_tensor y =
        mp_new(c, mp_given(b) ? dtype : product, 4, MP_DIMS(x.dim[0], h, width, w.dim[0]));
    c->work.flops = 2 * (uint64_t)mp_numel(y) * (uint64_t)(w.dim[1] * w.dim[2] * w.dim[3]);
    if (!mp_failed(c))
        c->backend->product.conv2d(c, x, w, b, o, y);
    return y;
}

mp_tensor mp_conv2d(mp_ctx *c, mp_tensor x, mp_tensor w, mp_tensor b, mp_conv2d_opts o)
{
    mp_op op = mp_op_open("conv2d", &w, MP_OPERANDS(&x, &w, &b));
    mp_tensor y = MP_NONE;

    while (mp_op_run(c, &op, &y))
        y = conv2d(c, x, w, b, o);
    return y;
}
