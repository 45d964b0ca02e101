/* What is run for a worker: the program, its environment, and all of it that may change its bits.
 */
#ifndef MP_HARNESS_ENGINES_WORKER_COMMAND_H
#define MP_HARNESS_ENGINES_WORKER_COMMAND_H

#include "harness/engines/engine.h"

typedef struct mp_worker_command {
    const char **argv, **envp; /* NULL-terminated */
    const char *by_hand;       /* a line for a shell that starts it, to see what is wrong */
    const char *code;          /* the worker's own code and the variables that libraries go by */
} mp_worker_command;

/* Interpreter, file, PYTHONPATH and the variables of PROTOCOL.md; writes the workers that come with
 * this program into the cache. */
mp_code mp_worker_command_build(mp_arena *a, const mp_engine_options *o, mp_worker_command *out,
                                mp_error *err);

#endif
