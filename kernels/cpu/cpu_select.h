/* Which of the CPU's tables this machine can run. */
#ifndef MP_KERNELS_CPU_CPU_SELECT_H
#define MP_KERNELS_CPU_CPU_SELECT_H

#include "kernels/backend.h"

extern const mp_backend mp_cpu_base, mp_cpu_avx2, mp_cpu_avx512, mp_cpu_avx512bf16, mp_cpu_amx;

/* The table of that name, the best one for NULL.  MP_EDEVICE for a name that is unknown or beyond
 * this machine, with those that it can run. */
mp_code mp_cpu_select(const char *isa, const mp_backend **out, mp_error *err);
/* All that this machine can run, best first, separated by spaces. */
void mp_cpu_list(char *text, size_t size);

#endif
