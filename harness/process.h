/* A child process with limits, whose lines are read while it runs.  The caller always survives. */
#ifndef MP_HARNESS_PROCESS_H
#define MP_HARNESS_PROCESS_H

#include <stddef.h>

#include "kernels/core/status.h"

typedef struct mp_process {
    int (*main)(void *user, int fd); /* in the child; its exit status */
    void *user;
    void (*line)(void *listener, const char *line, size_t n); /* in the parent */
    void *listener;
    double timeout; /* seconds; 0: none */
    size_t memory;  /* writable private bytes beyond what the parent has; 0: what the machine has */
} mp_process;

typedef struct mp_process_end {
    bool timed_out, interrupted, out_of_memory;
    int status; /* exit status, -1 after a signal */
    int signal; /* 0: none */
    double seconds;
    size_t peak_rss; /* bytes */
} mp_process_end;

mp_code mp_process_run(const mp_process *p, mp_process_end *out, mp_error *err);

/* SIGINT and SIGTERM from now on only set the flag, and end a running child. */
void mp_interrupt_catch(void);
bool mp_interrupted(void);

#endif
