/* Child processes with limits, whose lines are read while they run.  The caller always survives. */
#ifndef MP_HARNESS_PROCESS_H
#define MP_HARNESS_PROCESS_H

#include <stddef.h>
#include <sys/types.h>

#include "harness/arena.h"
#include "kernels/core/status.h"

typedef struct mp_process {
    int (*main)(void *user, int fd); /* in the child, its lines to fd; its exit status */
    void *user;
    bool listens;  /* its standard input is what mp_child_tell sends; else it is empty */
    size_t memory; /* writable private bytes beyond what the parent has; 0: what the machine has */
} mp_process;

typedef struct mp_process_end {
    bool timed_out, interrupted, out_of_memory;
    bool lingered; /* it had closed its pipe and lived on: mpbench ended it */
    int status;    /* exit status, -1 after a signal */
    int signal;    /* 0: none */
    double seconds;
    size_t peak_rss; /* bytes */
} mp_process_end;

/* Who hears a child's lines, in the parent. */
typedef struct mp_listener {
    void (*line)(void *user, const char *line, size_t n);
    bool (*finished)(const void *user); /* NULL: it listens until the child closes its pipe */
    void *user;
    double timeout; /* seconds; 0: none */
} mp_listener;

typedef struct mp_child {
    pid_t pid;        /* 0: there is none */
    int fd, input;    /* its lines, and its standard input (-1: none) */
    mp_text pending;  /* a line of which the end is still to come */
    mp_text outgoing; /* what it has not taken yet */
} mp_child;

mp_code mp_child_start(const mp_process *p, mp_child *out, mp_error *err);
/* Text for its standard input; it goes out while mp_child_listen listens. */
void mp_child_tell(mp_child *c, const char *text);
/* Alive, and with nothing to say: what it says next is an answer to what it is told next. */
bool mp_child_is_idle(const mp_child *c);
/* Hears lines until `finished` says so (true: the child lives and waits), or until it has ended or
 * closed its pipe, by itself or at the timeout or an interrupt (false: mp_child_reap is next).
 * Fills timed_out, interrupted and seconds; the rest is mp_child_reap's. */
bool mp_child_listen(mp_child *c, const mp_listener *l, mp_process_end *out);
/* Waits for its end, some seconds without a signal or until an interrupt, then with SIGKILL to its
 * group. */
void mp_child_reap(mp_child *c, mp_process_end *out);

/* Start, listen, reap: a child that has one thing to say. */
mp_code mp_process_run(const mp_process *p, const mp_listener *l, mp_process_end *out,
                       mp_error *err);

/* SIGINT, SIGTERM and SIGHUP from now on only set the flag, and end a running child. */
void mp_interrupt_catch(void);
bool mp_interrupted(void);

#endif
