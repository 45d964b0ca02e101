/* What the machine says of itself. */
#ifndef MP_KERNELS_CPU_CPU_INFO_H
#define MP_KERNELS_CPU_CPU_INFO_H

#include "kernels/device.h"

/* Fills cpu, blas, threads (one per core allowed), cores and memory. */
void mp_cpu_describe(mp_device_info *out);
/* OpenBLAS on one thread: ours cut the work and call it on tiles. */
void mp_cpu_single_blas(void);

#endif
