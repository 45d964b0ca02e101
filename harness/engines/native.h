/* The native engine's two halves: native.c in the harness, native_cell.c in the process of a cell
 * or, where its request says so, of a rehearsal. */
#ifndef MP_HARNESS_ENGINES_NATIVE_H
#define MP_HARNESS_ENGINES_NATIVE_H

#include "harness/execution.h"

typedef struct mp_native_cell {
    const mp_job *job;
    const char *isa; /* NULL: the best one */
    int threads;
    mp_progress *progress; /* shared memory: readable after the process is gone */
} mp_native_cell;

/* Runs it in a process of its own; fails only when none can be started.  With `show` the steps go
 * to a terminal.  progress is this function's. */
mp_code mp_native_execute(mp_arena *a, const mp_native_cell *cell, bool show, mp_execution *out,
                          mp_error *err);

/* Runs in the child and writes events to fd; the child's exit status. */
int mp_native_run(const mp_native_cell *cell, int fd);
/* The same for what the machine can do, with the isa and threads of the cell: one event. */
int mp_native_roofline(const mp_native_cell *cell, int fd);

#endif
