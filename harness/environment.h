/* What a run ran on: recorded with every run, and its stable part hashed to a fingerprint. */
#ifndef MP_HARNESS_ENVIRONMENT_H
#define MP_HARNESS_ENVIRONMENT_H

#include "harness/arena.h"
#include "kernels/device.h"
#include "results/store.h"

typedef struct mp_environment {
    mp_device_info device;
    mp_pair *pairs;
    int count;
    const char *isa; /* MPBENCH_ISA, or NULL */
    char fingerprint[65];
    char program[65]; /* SHA-256 of this program */
} mp_environment;

/* threads 0: one for each logical CPU. */
mp_code mp_environment_read(mp_arena *a, int threads, mp_environment *out, mp_error *err);

#endif
