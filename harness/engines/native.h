/* The native engine's two halves: native.c in the harness, native_cell.c in the process of a cell.
 */
#ifndef MP_HARNESS_ENGINES_NATIVE_H
#define MP_HARNESS_ENGINES_NATIVE_H

#include "harness/execution.h"

typedef struct mp_native_cell {
    const mp_job *job;
    const char *isa; /* NULL: the best one */
    int threads;
    mp_progress *progress; /* shared memory: readable after the process is gone */
} mp_native_cell;

/* Runs in the child and writes events to fd; the child's exit status. */
int mp_native_run(const mp_native_cell *cell, int fd);

#endif
