/* A trace of a run in Chrome's JSON trace format, which Perfetto (ui.perfetto.dev) opens: a process
 * for each cell, with generations, stages, steps, modules and ops inside each other, and the memory
 * of activations as a counter.
 *
 * The object form, and the file is complete JSON whenever nobody writes: what is added goes over
 * the closing brackets, which it ends with again.  So a cell that crashes, or mpbench itself, takes
 * no more with it than what was not written yet.
 *
 *     mp_trace_create("run.json", command, &t, &err);
 *     mp_trace_cell(t, id, key);
 *     ... the cell's process, a fork, adds its events through the same t ...
 *     mp_trace_close(t, &err);
 *
 * One process writes at a time: the parent waits for the cell. */
#ifndef MP_HARNESS_TRACE_H
#define MP_HARNESS_TRACE_H

#include "kernels/core/ctx.h"

typedef struct mp_trace mp_trace;

/* Overwrites the file.  command: for its head. */
mp_code mp_trace_create(const char *path, const char *command, mp_trace **out, mp_error *err);
/* All that is added from here on is the cell's: its number is the process, its key the name. */
void mp_trace_cell(mp_trace *t, int64_t cell, const char *key);

/* Times are mp_now_ns's.  kind: "stage", "module" ..; Perfetto can filter by it. */
void mp_trace_begin(mp_trace *t, const char *kind, const char *name, uint64_t start);
void mp_trace_end(mp_trace *t, uint64_t end); /* of the innermost one that has begun */
void mp_trace_end_all(mp_trace *t, uint64_t end);
void mp_trace_span(mp_trace *t, const char *kind, const char *name, uint64_t start, uint64_t end);
void mp_trace_op(mp_trace *t, const mp_op_event *op);
void mp_trace_memory(mp_trace *t, uint64_t at, size_t bytes);

/* Into the file: events wait for company.  A signal handler may call it. */
void mp_trace_flush(mp_trace *t);
/* errno of the first write that failed, after which nothing is added; 0: none. */
int mp_trace_trouble(const mp_trace *t);
/* MP_EIO when something could not be written; the file is complete without it. */
mp_code mp_trace_close(mp_trace *t, mp_error *err); /* NULL is fine */

#endif
