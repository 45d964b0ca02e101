/* What the process of a native cell adds to the run's trace (harness/trace.h): generations, stages,
 * steps, and by an observer modules, ops and memory. */
#ifndef MP_HARNESS_ENGINES_CELL_TRACE_H
#define MP_HARNESS_ENGINES_CELL_TRACE_H

#include "harness/trace.h"

typedef struct mp_cell_trace {
    mp_trace *to; /* NULL: none, and the functions below do nothing */
    mp_ctx *c;
    uint64_t step;  /* when the step began */
    uint64_t spent; /* nanoseconds on all this, since they were taken */
} mp_cell_trace;

void mp_cell_trace_open(mp_cell_trace *t, mp_trace *to, mp_ctx *c);
void mp_cell_trace_generation(mp_cell_trace *t, int repeat); /* one that begins */
void mp_cell_trace_stage(mp_cell_trace *t, const char *stage);
void mp_cell_trace_step(mp_cell_trace *t, int step); /* one that is over */
void mp_cell_trace_stage_end(mp_cell_trace *t);
void mp_cell_trace_generation_end(mp_cell_trace *t); /* also of what a failure left open */
/* Seconds that the trace has cost since this was asked: no part of what is measured. */
double mp_cell_trace_take_spent(mp_cell_trace *t);
/* No more of the cell; errno of the first write that failed, or 0. */
int mp_cell_trace_close(mp_cell_trace *t);

#endif
