/* What a worker's events add to the run's trace: stages and steps, at the times when they were
 * heard.  A library does not tell its ops. */
#ifndef MP_HARNESS_ENGINES_WORKER_TRACE_H
#define MP_HARNESS_ENGINES_WORKER_TRACE_H

#include "harness/trace.h"

typedef struct mp_worker_trace {
    mp_trace *to;  /* NULL: none */
    uint64_t step; /* when the step began */
} mp_worker_trace;

/* A line that was heard now. */
void mp_worker_trace_line(mp_worker_trace *t, const char *line, size_t n);
/* The worker says no more of this cell. */
void mp_worker_trace_close(mp_worker_trace *t);

#endif
