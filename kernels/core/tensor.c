#include "kernels/core/tensor.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

int64_t mp_numel(mp_tensor t)
{
    int64_t n = 1;

    for (int i = 0; i < t.rank; i++)
        n *= t.dim[i];
    return n;
}

size_t mp_nbytes(mp_tensor t)
{
    return (size_t)mp_numel(t) * mp_dtype_size(t.store);
}

int64_t mp_rows(mp_tensor t)
{
    int64_t n = 1;

    for (int i = 0; i + 1 < t.rank; i++)
        n *= t.dim[i];
    return n;
}

bool mp_same_shape(mp_tensor a, mp_tensor b)
{
    return a.rank == b.rank && !memcmp(a.dim, b.dim, (size_t)a.rank * sizeof *a.dim);
}

mp_tensor mp_view(void *data, mp_dtype dtype, int rank, const int64_t *dims)
{
    mp_tensor t = {.data = data, .rank = rank, .dtype = dtype, .store = dtype};

    assert(rank >= 0 && rank <= MP_MAX_RANK);
    for (int i = 0; i < rank; i++)
        t.dim[i] = dims[i];
    return t;
}

mp_tensor mp_reshape(mp_tensor t, int rank, const int64_t *dims)
{
    mp_tensor y = mp_view(t.data, t.dtype, rank, dims);

    /* An op that failed gave MP_NONE: its reshapes stay empty until the caller asks mp_failed. */
    if (!t.data)
        return MP_NONE;
    assert(mp_numel(y) == mp_numel(t));
    y.store = t.store;
    y.name = t.name;
    return y;
}

mp_tensor mp_batch(mp_tensor t, int64_t first, int64_t n)
{
    if (!t.data)
        return MP_NONE;
    assert(t.rank > 0 && first >= 0 && n >= 0 && first + n <= t.dim[0]);

    const size_t entry = t.dim[0] ? mp_nbytes(t) / (size_t)t.dim[0] : 0;
    t.data = (char *)t.data + (size_t)first * entry;
    t.dim[0] = n;
    return t;
}

const char *mp_shape_text(mp_tensor t, char *text, size_t size)
{
    size_t at = (size_t)snprintf(text, size, "[");

    for (int i = 0; i < t.rank && at < size; i++)
        at += (size_t)snprintf(text + at, size - at, "%s%lld", i ? ", " : "", (long long)t.dim[i]);
    if (at < size)
        snprintf(text + at, size - at, "]");
    return text;
}
