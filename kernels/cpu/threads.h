/* The workers of a CPU context: started once, pinned, alive between ops.
 *
 * A kernel cuts its work into tasks by the sizes alone, never by the number of threads, and no task
 * depends on who runs it: so the bits of a result are the same for any thread count.
 *
 *     static void body(void *arg, int64_t task, int worker) { ... }
 *     mp_parallel(c, rows, body, &args);
 */
#ifndef MP_KERNELS_CPU_THREADS_H
#define MP_KERNELS_CPU_THREADS_H

#include "kernels/core/ctx.h"

typedef struct mp_threads mp_threads;

typedef void mp_task_fn(void *arg, int64_t task, int worker);

/* threads: 1 to 256; 0 is one on each logical CPU that this process may use.  The calling thread is
 * worker 0; alone: it is pinned, too, until the others stop.  MP_EDEVICE for another number, or
 * when the system starts no more. */
mp_code mp_threads_start(int threads, bool alone, mp_threads **out, mp_error *err);
void mp_threads_stop(mp_threads *t); /* joins, from the thread that started them; NULL is fine */
int mp_threads_count(const mp_threads *t);
size_t mp_threads_scratch(const mp_threads *t); /* bytes, of all workers together */

/* Runs fn for task 0..tasks-1 on all workers of the context and returns when all are done. */
void mp_parallel(mp_ctx *c, int64_t tasks, mp_task_fn *fn, void *arg);

/* Gives each worker `bytes` of scratch, 64-byte aligned, content undefined; it grows and stays.
 * False when memory is short: the context has failed.  Called by a kernel before mp_parallel. */
bool mp_scratch_reserve(mp_ctx *c, size_t bytes);
void *mp_scratch(mp_ctx *c, int worker);
/* What all workers share while one op runs. */
typedef enum mp_shared { MP_SHARED_SLAB, MP_SHARED_WEIGHTS, MP_SHARED_COUNT } mp_shared;

/* An area of at least `bytes`, 64-byte aligned, content undefined; it grows and stays, and the next
 * op takes it again.  NULL when memory is short: the context has failed. */
void *mp_scratch_shared(mp_ctx *c, mp_shared which, size_t bytes);

#endif
