/* A job as a request of PROTOCOL.md. */
#ifndef MP_HARNESS_ENGINES_WORKER_REQUEST_H
#define MP_HARNESS_ENGINES_WORKER_REQUEST_H

#include "harness/execution.h"

/* One line with its newline, into the arena. */
const char *mp_worker_request(mp_arena *a, const mp_job *job, const char *device, int threads);

#endif
