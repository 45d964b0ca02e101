#include <stdio.h>

#include "kernels/backend.h"
#include "kernels/core/ctx_internal.h"
#include "kernels/ops.h"
#include "kernels/rules.h"

enum { PICTURE = 4, VIDEO = 5 }; /* ranks of x, w and y */

static const char *name_of(int rank)
{
    return rank == VIDEO ? "conv3d" : "conv2d";
}

/* torch's plain product, where the kernel is one tap, has a text of its own. */
static mp_rule video_rule(mp_tensor w, mp_conv3d_opts o, bool bias)
{
    const bool one_tap = w.rank == VIDEO && w.dim[2] * w.dim[3] * w.dim[4] == 1;

    if (one_tap && o.time_stride == 1 && o.stride == 1 && !o.time_padding && !o.padding &&
        o.groups == 1)
        return bias ? MP_RULE_CONV3D_1X1X1_BIAS : MP_RULE_CONV3D_1X1X1;
    return bias ? MP_RULE_CONV3D_BIAS : MP_RULE_CONV3D;
}

/* The result's dtype; torch compares the bias with the input before it looks at the weight. */
static mp_dtype result_dtype(mp_ctx *c, int rank, mp_tensor x, mp_tensor w, mp_tensor b,
                             mp_conv3d_opts o)
{
    const bool video = rank == VIDEO;
    const mp_dtype dtype =
        mp_given(b) ? mp_rule_check(c, video ? video_rule(w, o, true) : MP_RULE_CONV2D_BIAS, x, b)
                    : MP_DTYPE_COUNT;
    const mp_dtype product =
        mp_rule_check(c, video ? video_rule(w, o, false) : MP_RULE_CONV2D, x, w);

    return mp_given(b) ? dtype : product;
}

/* A picture as a video of one frame, its kernel as one of one tap in time: 1 becomes their
 * dimension `axis`. */
static mp_tensor as_video(mp_tensor t, int axis)
{
    int64_t dims[VIDEO];

    if (t.rank == VIDEO)
        return t;
    for (int i = 0; i < VIDEO; i++)
        dims[i] = i == axis ? 1 : t.dim[i > axis ? i - 1 : i];
    return mp_reshape(t, VIDEO, dims);
}

/* Places of a kernel along one dimension; 0 where it does not fit. */
static int64_t places(int64_t extent, int64_t kernel, int stride, int padding)
{
    const int64_t room = extent + 2 * (int64_t)padding - kernel;

    return room < 0 ? 0 : room / stride + 1;
}

/* y's dimensions [VIDEO]; false where x and w do not fit. */
static bool fit(mp_tensor x, mp_tensor w, mp_conv3d_opts o, int64_t *dims)
{
    if (o.groups < 1 || o.time_stride < 1 || o.stride < 1 || o.time_padding < 0 || o.padding < 0)
        return false;
    if (x.dim[4] != w.dim[1] * o.groups || w.dim[0] % o.groups)
        return false;
    dims[0] = x.dim[0];
    dims[1] = places(x.dim[1], w.dim[2], o.time_stride, o.time_padding);
    dims[2] = places(x.dim[2], w.dim[3], o.stride, o.padding);
    dims[3] = places(x.dim[3], w.dim[4], o.stride, o.padding);
    dims[4] = w.dim[0];
    return dims[1] && dims[2] && dims[3];
}

static mp_tensor refuse(mp_ctx *c, int rank, mp_tensor x, mp_tensor w, mp_conv3d_opts o)
{
    char xs[96], ws[96], os[96];

    if (rank == PICTURE)
        snprintf(os, sizeof os, "stride %d, padding %d", o.stride, o.padding);
    else
        snprintf(os, sizeof os, "strides %d and %d, padding %d and %d in time and space",
                 o.time_stride, o.stride, o.time_padding, o.padding);
    return mp_fail(c, MP_ESHAPE, &w,
                   "%s: input %s (channels last) does not fit weight %s with %s, %d groups",
                   name_of(rank), mp_shape_text(x, xs, sizeof xs), mp_shape_text(w, ws, sizeof ws),
                   os, o.groups);
}

static mp_tensor conv(mp_ctx *c, int rank, mp_tensor x, mp_tensor w, mp_tensor b, mp_conv3d_opts o)
{
    char bs[96], ws[96];
    int64_t dims[VIDEO];

    o.time_stride = o.time_stride ? o.time_stride : 1;
    o.stride = o.stride ? o.stride : 1;
    o.groups = o.groups ? o.groups : 1;
    const mp_dtype dtype = result_dtype(c, rank, x, w, b, o);
    if (mp_failed(c))
        return MP_NONE;
    if (x.rank != rank || w.rank != rank)
        return refuse(c, rank, x, w, o);
    const mp_tensor video = as_video(x, 1), kernel = as_video(w, 2);
    if (!fit(video, kernel, o, dims))
        return refuse(c, rank, x, w, o);
    if (mp_given(b) && (b.rank != 1 || b.dim[0] != w.dim[0]))
        return mp_fail(c, MP_ESHAPE, &b, "%s: bias %s does not fit weight %s", name_of(rank),
                       mp_shape_text(b, bs, sizeof bs), mp_shape_text(w, ws, sizeof ws));
    const mp_tensor y = mp_new(c, dtype, VIDEO, dims);
    c->work.flops = 2 * (uint64_t)mp_numel(y) *
                    (uint64_t)(kernel.dim[1] * kernel.dim[2] * kernel.dim[3] * kernel.dim[4]);
    if (mp_failed(c))
        return MP_NONE;
    c->backend->product.conv(c, video, kernel, b, o, y);
    return rank == VIDEO ? y : mp_reshape(y, PICTURE, MP_DIMS(dims[0], dims[2], dims[3], dims[4]));
}

mp_tensor mp_conv2d(mp_ctx *c, mp_tensor x, mp_tensor w, mp_tensor b, mp_conv2d_opts o)
{
    const mp_conv3d_opts opts = {.stride = o.stride, .padding = o.padding, .groups = o.groups};
    mp_op op = mp_op_open(name_of(PICTURE), &w, MP_OPERANDS(&x, &w, &b));
    mp_tensor y = MP_NONE;

    while (mp_op_run(c, &op, &y))
        y = conv(c, PICTURE, x, w, b, opts);
    return y;
}

mp_tensor mp_conv3d(mp_ctx *c, mp_tensor x, mp_tensor w, mp_tensor b, mp_conv3d_opts o)
{
    mp_op op = mp_op_open(name_of(VIDEO), &w, MP_OPERANDS(&x, &w, &b));
    mp_tensor y = MP_NONE;

    while (mp_op_run(c, &op, &y))
        y = conv(c, VIDEO, x, w, b, o);
    return y;
}
