#include <assert.h>
#include <string.h>

#include "kernels/backend.h"
#include "kernels/core/ctx_internal.h"
#include "kernels/ops.h"
#include "kernels/rules.h"

static mp_tensor misfit(mp_ctx *c, const char *name, mp_tensor x, int64_t number)
{
    char xs[96];

    return mp_fail(c, MP_ESHAPE, NULL, "%s: %s does not go with %lld", name,
                   mp_shape_text(x, xs, sizeof xs), (long long)number);
}

static mp_tensor embedding(mp_ctx *c, const int32_t *ids, int64_t n, mp_tensor w)
{
    const mp_dtype dtype = mp_rule_check(c, MP_RULE_EMBEDDING, w, w);
    if (mp_failed(c))
        return MP_NONE;
    if (w.rank != 2)
        return misfit(c, c->op, w, n);
    for (int64_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= w.dim[0])
            return mp_fail(c, MP_ESHAPE, &w,
                           "embedding: token id %d at position %lld is outside the table of %lld; "
                           "tokenizer and text encoder do not belong together",
                           ids[i], (long long)i, (long long)w.dim[0]);
    const mp_tensor y = mp_new(c, dtype, 2, MP_DIMS(n, w.dim[1]));
    c->work.read = (uint64_t)mp_numel(y) * mp_dtype_size(w.store); /* of the table, these rows */
    if (!mp_failed(c))
        c->backend->vector.embedding(c, ids, n, w, y);
    return y;
}

mp_tensor mp_embedding(mp_ctx *c, const int32_t *ids, int64_t n, mp_tensor w)
{
    mp_op op = mp_op_open("embedding", &w, MP_OPERANDS(&w));
    mp_tensor y = MP_NONE;

    while (mp_op_run(c, &op, &y))
        y = embedding(c, ids, n, w);
    return y;
}

/* A result that x's elements are moved into as they lie in memory: a weight that is stored narrower
 * stays so. */
static mp_tensor moved(mp_ctx *c, mp_tensor x, int rank, const int64_t *dims)
{
    mp_tensor y = mp_new(c, x.store, rank, dims);

    if (mp_given(y))
        y.dtype = x.dtype;
    return y;
}

/* Product of dims [from, to). */
static int64_t extent(const int64_t *dims, int from, int to)
{
    int64_t n = 1;

    for (int i = from; i < to; i++)
        n *= dims[i];
    return n;
}

/* A block of `n` of `whole` entries of axis, seen as [outer, n * inner]. */
static void move_block(mp_ctx *c, mp_tensor dst, int64_t dst_at, mp_tensor src, int64_t src_at,
                       int axis, int64_t n)
{
    const int64_t outer = extent(src.dim, 0, axis), inner = extent(src.dim, axis + 1, src.rank);
    const size_t size = mp_dtype_size(dst.store);
    const mp_strided s = {
        2, {outer, n * inner}, {dst.dim[axis] * inner, 1}, {src.dim[axis] * inner, 1}};

    c->backend->vector.move(c, &s, (char *)dst.data + (size_t)(dst_at * inner) * size,
                            (const char *)src.data + (size_t)(src_at * inner) * size, size);
}

static bool same_but_axis(mp_tensor a, mp_tensor b, int axis)
{
    for (int i = 0; i < a.rank; i++)
        if (i != axis && a.dim[i] != b.dim[i])
            return false;
    return a.rank == b.rank;
}

static mp_dtype cat_dtype(mp_ctx *c, int n, const mp_tensor *xs)
{
    mp_tensor all = {.dtype = xs[0].dtype};

    for (int i = 1; i < n && !mp_failed(c); i++)
        all.dtype = mp_rule_check(c, MP_RULE_CAT, all, xs[i]);
    return all.dtype;
}

/* x as dtype d in memory: itself, or a copy that is no op of its own. */
static mp_tensor stored(mp_ctx *c, mp_tensor x, mp_dtype d)
{
    return x.store == d ? x : mp_converted(c, x, d);
}

mp_tensor mp_cat(mp_ctx *c, int n, const mp_tensor *xs, int axis)
{
    int64_t dims[MP_MAX_RANK], at = 0;

    if (mp_failed(c))
        return MP_NONE;
    assert(n > 0);
    const mp_op op = mp_op_begin(c, "cat", NULL);
    const mp_dtype dtype = cat_dtype(c, n, xs);
    if (mp_failed(c))
        return MP_NONE;
    axis = axis < 0 ? xs[0].rank + axis : axis;
    if (axis < 0 || axis >= xs[0].rank)
        return misfit(c, op.name, xs[0], axis);
    memcpy(dims, xs[0].dim, sizeof dims);
    for (int i = 1; i < n; i++) {
        if (!same_but_axis(xs[0], xs[i], axis))
            return misfit(c, op.name, xs[i], axis);
        dims[axis] += xs[i].dim[axis];
    }
    const mp_tensor y = mp_new(c, dtype, xs[0].rank, dims);
    for (int i = 0; i < n && !mp_failed(c); i++) {
        const mp_mark mark = mp_open(c);
        const mp_tensor x = stored(c, xs[i], dtype);
        if (!mp_failed(c))
            move_block(c, y, at, x, 0, axis, x.dim[axis]);
        at += xs[i].dim[axis];
        c->work.read += mp_nbytes(xs[i]);
        mp_drop(c, mark);
    }
    return mp_op_end(c, &op, y);
}

mp_tensor mp_narrow_axis(mp_ctx *c, mp_tensor x, int axis, int64_t start, int64_t length)
{
    int64_t dims[MP_MAX_RANK];

    if (mp_failed(c))
        return MP_NONE;
    const mp_op op = mp_op_begin(c, "narrow", NULL);
    axis = axis < 0 ? x.rank + axis : axis;
    if (axis < 0 || axis >= x.rank || start < 0 || length < 0 || start > x.dim[axis] - length)
        return misfit(c, op.name, x, start);
    memcpy(dims, x.dim, sizeof dims);
    dims[axis] = length;
    const mp_tensor y = moved(c, x, x.rank, dims);
    if (mp_failed(c))
        return MP_NONE;
    c->work.read = mp_nbytes(y);
    move_block(c, y, 0, x, start, axis, length);
    return mp_op_end(c, &op, y);
}

/* Row-major strides of a shape. */
static void dense_strides(int rank, const int64_t *dims, int64_t *strides)
{
    int64_t step = 1;

    for (int i = rank - 1; i >= 0; i--) {
        strides[i] = step;
        step *= dims[i];
    }
}

/* y [dims] = x walked with the strides s->b: the common end of every permutation and repetition. */
static mp_tensor gather(mp_ctx *c, const mp_op *op, mp_tensor x, mp_strided *s, int rank,
                        const int64_t *dims)
{
    const mp_tensor y = moved(c, x, rank, dims);

    dense_strides(s->rank, s->dim, s->a);
    c->work.read = mp_nbytes(x);
    if (!mp_failed(c))
        c->backend->vector.move(c, s, y.data, x.data, mp_dtype_size(x.store));
    return mp_op_end(c, op, y);
}

mp_tensor mp_permute(mp_ctx *c, mp_tensor x, const int *axes)
{
    int64_t strides[MP_MAX_RANK];
    mp_strided s = {.rank = x.rank ? x.rank : 1, .dim = {1}};

    if (mp_failed(c))
        return MP_NONE;
    const mp_op op = mp_op_begin(c, "permute", NULL);
    dense_strides(x.rank, x.dim, strides);
    for (int i = 0; i < x.rank; i++) {
        assert(axes[i] >= 0 && axes[i] < x.rank);
        s.dim[i] = x.dim[axes[i]];
        s.b[i] = strides[axes[i]];
    }
    return gather(c, &op, x, &s, x.rank, s.dim);
}

mp_tensor mp_pad_hw(mp_ctx *c, mp_tensor x, int64_t h, int64_t w)
{
    if (mp_failed(c))
        return MP_NONE;
    const mp_op op = mp_op_begin(c, "pad", NULL);
    if (x.rank != 4 || h < 0 || w < 0)
        return misfit(c, op.name, x, h);
    const mp_tensor y = moved(c, x, 4, MP_DIMS(x.dim[0], x.dim[1] + h, x.dim[2] + w, x.dim[3]));
    if (mp_failed(c))
        return MP_NONE;
    const size_t size = mp_dtype_size(x.store);
    const int64_t row = x.dim[2] * x.dim[3], wide = y.dim[2] * x.dim[3];
    const mp_strided s = {
        3, {x.dim[0], x.dim[1], row}, {y.dim[1] * wide, wide, 1}, {x.dim[1] * row, row, 1}};
    c->work.read = mp_nbytes(x);
    memset(y.data, 0, mp_nbytes(y)); /* zero has the bits 0 in every dtype */
    c->backend->vector.move(c, &s, y.data, x.data, size);
    return mp_op_end(c, &op, y);
}

mp_tensor mp_pixel_shuffle(mp_ctx *c, mp_tensor x, int r)
{
    if (mp_failed(c))
        return MP_NONE;
    const mp_op op = mp_op_begin(c, "pixel_shuffle", NULL);
    if (x.rank != 4 || r < 1 || x.dim[3] % ((int64_t)r * r))
        return misfit(c, op.name, x, r);
    const int64_t b = x.dim[0], h = x.dim[1], w = x.dim[2], all = x.dim[3],
                  ch = all / ((int64_t)r * r);
    mp_strided s = {6, {b, h, r, w, r, ch}, {0}, {h * w * all, w * all, r, all, 1, (int64_t)r * r}};

    return gather(c, &op, x, &s, 4, MP_DIMS(b, h * r, w * r, ch));
}

mp_tensor mp_pixel_unshuffle(mp_ctx *c, mp_tensor x, int r)
{
    if (mp_failed(c))
        return MP_NONE;
    const mp_op op = mp_op_begin(c, "pixel_unshuffle", NULL);
    if (x.rank != 4 || r < 1 || x.dim[1] % r || x.dim[2] % r)
        return misfit(c, op.name, x, r);
    const int64_t b = x.dim[0], h = x.dim[1] / r, w = x.dim[2] / r, ch = x.dim[3];
    const int64_t row = x.dim[2] * ch;
    mp_strided s = {6, {b, h, w, ch, r, r}, {0}, {x.dim[1] * row, r * row, r * ch, 1, row, ch}};

    return gather(c, &op, x, &s, 4, MP_DIMS(b, h, w, ch * r * r));
}

mp_tensor mp_repeat_channels(mp_ctx *c, mp_tensor x, int n)
{
    int64_t dims[MP_MAX_RANK];

    if (mp_failed(c))
        return MP_NONE;
    const mp_op op = mp_op_begin(c, "repeat_channels", NULL);
    if (x.rank < 1 || n < 1 || mp_dim(x, -1) > INT64_MAX / n)
        return misfit(c, op.name, x, n);
    memcpy(dims, x.dim, sizeof dims);
    dims[x.rank - 1] *= n;
    mp_strided s = {2, {mp_numel(x), n}, {0}, {1, 0}};
    return gather(c, &op, x, &s, x.rank, dims);
}

mp_tensor mp_upsample_nearest2(mp_ctx *c, mp_tensor x)
{
    if (mp_failed(c))
        return MP_NONE;
    const mp_op op = mp_op_begin(c, "upsample_nearest", NULL);
    mp_rule_check(c, MP_RULE_INTERP_NEAREST, x, x);
    if (mp_failed(c))
        return MP_NONE;
    if (x.rank != 4)
        return misfit(c, op.name, x, 2);
    const int64_t b = x.dim[0], h = x.dim[1], w = x.dim[2], ch = x.dim[3];
    mp_strided s = {5, {b * h, 2, w, 2, ch}, {0}, {w * ch, 0, ch, 0, 1}};
    return gather(c, &op, x, &s, 4, MP_DIMS(b, 2 * h, 2 * w, ch));
}

mp_tensor mp_mean_channels(mp_ctx *c, mp_tensor x, int group)
{
    int64_t dims[MP_MAX_RANK];

    if (mp_failed(c))
        return MP_NONE;
    const mp_op op = mp_op_begin(c, "mean_channels", NULL);
    const mp_dtype dtype = mp_rule_check(c, MP_RULE_SUM, x, x);
    if (mp_failed(c))
        return MP_NONE;
    if (x.rank < 1 || group < 1 || mp_dim(x, -1) % group)
        return misfit(c, op.name, x, group);
    memcpy(dims, x.dim, sizeof dims);
    dims[x.rank - 1] /= group;
    const mp_tensor y = mp_new(c, dtype, x.rank, dims);
    c->work.read = mp_nbytes(x);
    if (!mp_failed(c))
        c->backend->vector.mean_channels(c, x, group, y);
    return mp_op_end(c, &op, y);
}

mp_tensor mp_resize_bilinear(mp_ctx *c, mp_tensor x, int64_t h, int64_t w)
{
    if (mp_failed(c))
        return MP_NONE;
    const mp_op op = mp_op_begin(c, "resize_bilinear", NULL);
    const mp_dtype dtype = mp_rule_check(c, MP_RULE_INTERP_BILINEAR, x, x);
    if (mp_failed(c))
        return MP_NONE;
    if (x.rank != 4 || h < 1 || w < 1 || mp_numel(x) == 0)
        return misfit(c, op.name, x, h);
    const mp_tensor y = mp_new(c, dtype, 4, MP_DIMS(x.dim[0], h, w, x.dim[3]));
    c->work.read = mp_nbytes(x);
    if (!mp_failed(c))
        c->backend->vector.resize_bilinear(c, x, y);
    return mp_op_end(c, &op, y);
}
