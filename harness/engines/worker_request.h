/* A job as a request of PROTOCOL.md. */
#ifndef MP_HARNESS_ENGINES_WORKER_REQUEST_H
#define MP_HARNESS_ENGINES_WORKER_REQUEST_H

#include "harness/execution.h"

/* One line with its newline, into the arena; `id` comes back with its end.  NULL: it cannot be said
 * in UTF-8. */
const char *mp_worker_request(mp_arena *a, const mp_job *job, const char *device, int threads,
                              int64_t id, mp_error *err);

#endif
