/* What a device brings: one table of kernels over raw memory.  Shapes and dtypes were checked by
 * the front ends (kernels/<op>.c), once for all devices; a kernel cannot fail.  Scratch comes from
 * mp_scratch (kernels/cpu/threads.h).  The CPU fills one table per instruction set
 * (kernels/cpu/isa.c); a CUDA build fills the same type. */
#ifndef MP_KERNELS_BACKEND_H
#define MP_KERNELS_BACKEND_H

#include "kernels/backend_product.h"
#include "kernels/backend_vector.h"

/* For the roofline (kernels/roofline.h): one thread's loops of multiplications and additions alone,
 * which return the FLOPs they did. */
typedef struct mp_backend_peak {
    int64_t (*fma)(int64_t turns);   /* fp32 */
    int64_t (*pairs)(int64_t turns); /* pairs of bf16; NULL: they are widened to fp32 */
} mp_backend_peak;

typedef struct mp_backend {
    const char *name;           /* "avx2" */
    mp_backend_vector vector;   /* elementwise work, norms, shapes, resampling */
    mp_backend_product product; /* linear, convolution, matmul, attention */
    mp_backend_peak peak;       /* NULLs where there is nothing to measure: "meta" */
} mp_backend;

#endif
