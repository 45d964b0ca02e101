/* A tensor is a view by value: it owns nothing and is always contiguous.
 *
 * Owners are three: mp_weights (mmapped files), the pool of an mp_ctx (activations), the caller.
 * Layouts, everywhere in the project: sequences are [B, N, D]; pictures, videos and their
 * activations are channels-last, [B, H, W, C] and [B, T, H, W, C], although Diffusers says
 * [B, C, H, W] and [B, C, T, H, W]: a 1x1 convolution is then a linear layer and a norm over
 * channels is a norm over rows.  Convolution weights stay as the file has them, [O, C/groups, kh,
 * kw] or [O, C/groups, kt, kh, kw].
 *
 * `dtype` is what torch would say of the tensor.  `store` is what lies in memory.  They differ only
 * in weights whose memory format widens exactly to dtype: an fp16 file in an fp32 run, or fp8
 * storage under a bf16 module.  Kernels read `store`, rules read `dtype`. */
#ifndef MP_KERNELS_CORE_TENSOR_H
#define MP_KERNELS_CORE_TENSOR_H

#include "kernels/core/dtype.h"

enum { MP_MAX_RANK = 5 };

typedef struct mp_tensor {
    void *data;
    int64_t dim[MP_MAX_RANK];
    int rank; /* 0 is a scalar tensor */
    mp_dtype dtype;
    mp_dtype store;
    const char *name; /* weights: "transformer.proj_out.weight", lives as long as data; else NULL */
} mp_tensor;

/* "No tensor": the optional bias that is not there. */
static const mp_tensor MP_NONE = {.dtype = MP_DTYPE_COUNT, .store = MP_DTYPE_COUNT};
static inline bool mp_given(mp_tensor t)
{
    return t.data != NULL;
}

/* Size of dimension i; negative i counts from the end, as in torch. */
static inline int64_t mp_dim(mp_tensor t, int i)
{
    return t.dim[i < 0 ? t.rank + i : i];
}
int64_t mp_numel(mp_tensor t);
size_t mp_nbytes(mp_tensor t); /* by store */
int64_t mp_rows(mp_tensor t);  /* numel over the last dimension */
bool mp_same_shape(mp_tensor a, mp_tensor b);

/* A view of caller-owned memory.  dims are the first `rank` entries. */
mp_tensor mp_view(void *data, mp_dtype dtype, int rank, const int64_t *dims);
/* The same elements under another shape; the product must be the same (asserted). */
mp_tensor mp_reshape(mp_tensor t, int rank, const int64_t *dims);
#define MP_DIMS(...) ((const int64_t[]){__VA_ARGS__})
/* Entries [first, first + n) of the leading dimension, as a view. */
mp_tensor mp_batch(mp_tensor t, int64_t first, int64_t n);
/* "[2, 77, 2240]" into text; returns text. */
const char *mp_shape_text(mp_tensor t, char *text, size_t size);

#endif
