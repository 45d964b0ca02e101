/* Runs one job in a child process and gathers what it tells. */
#ifndef MP_HARNESS_EXECUTE_H
#define MP_HARNESS_EXECUTE_H

#include "harness/job.h"
#include "harness/process.h"
#include "harness/record.h"

typedef struct mp_execution {
    mp_record record;
    mp_process_end end;
    mp_progress last; /* where the process was when it ended */
} mp_execution;

/* job->progress is filled in here.  Fails only when no process can be started: whatever happens
 * inside it is in *out.  With `show` the steps go to a terminal while they happen. */
mp_code mp_execute(mp_arena *a, const mp_job *job, double timeout, bool show, mp_execution *out,
                   mp_error *err);
void mp_execution_free(mp_execution *e);

#endif
