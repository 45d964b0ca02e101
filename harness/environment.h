/* What a run ran on: recorded with every run, and its stable part hashed to a fingerprint. */
#ifndef MP_HARNESS_ENVIRONMENT_H
#define MP_HARNESS_ENVIRONMENT_H

#include <stdio.h>

#include "harness/arena.h"
#include "kernels/device.h"
#include "results/store.h"

typedef struct mp_environment {
    mp_device_info device;
    mp_pair *pairs;
    int count;
    const char *isa; /* MPBENCH_ISA, or NULL */
    char fingerprint[65];
    char program[65]; /* mp_digest_program */
} mp_environment;

/* threads 0: one for each logical CPU. */
mp_code mp_environment_read(mp_arena *a, int threads, mp_environment *out, mp_error *err);

/* Which commit the folder that the program is run in has, which is the one under test in CI.  Git
 * answers while the caller does something else, then it is heard; NULL: the environment says it. */
FILE *mp_environment_ask_git(void);
void mp_environment_hear_git(mp_arena *a, FILE *git, mp_environment *e);

#endif
