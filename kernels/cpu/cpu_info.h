/* What the machine says of itself. */
#ifndef MP_KERNELS_CPU_CPU_INFO_H
#define MP_KERNELS_CPU_CPU_INFO_H

#include "kernels/device.h"

/* Fills cpu, blas, threads (one on each CPU allowed), cores and memory. */
void mp_cpu_describe(mp_device_info *out);
/* hwloc's topology of the CPUs that the calling thread may use; the caller destroys it. */
struct hwloc_topology;
bool mp_cpu_topology(struct hwloc_topology **out);
/* OpenBLAS, with which `base` multiplies, on one thread: ours cut the work and call it on tiles. */
void mp_cpu_single_blas(void);
/* OpenBLAS starts a thread on each CPU when it is loaded, which turn in sched_yield for a while: it
 * ends them, as before a fork. */
void mp_cpu_quiet_blas(void);

#endif
