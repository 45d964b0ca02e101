/* What the machine can do at most, measured: the two ceilings that Williams et al. (2009) draw over
 * the operations per byte of a kernel.
 *
 *     mp_roofline r;
 *     mp_roofline_measure(c, &r);     // a few milliseconds, all threads of the context
 */
#ifndef MP_KERNELS_ROOFLINE_H
#define MP_KERNELS_ROOFLINE_H

#include "kernels/core/ctx.h"

typedef struct mp_roofline {
    double flops; /* fp32 multiplications and additions a second; 0: nothing was measured */
    double pairs; /* the same of bf16, where the instruction set multiplies pairs of it; else 0 */
    double copy;  /* bytes read and written a second by a copy that no core's own cache holds */
} mp_roofline;

/* Of a CPU context, with its threads and instruction set; all zero on the device "meta", and where
 * there is no memory for the copy. */
void mp_roofline_measure(mp_ctx *c, mp_roofline *out);

#endif
