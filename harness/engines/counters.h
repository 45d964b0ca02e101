/* The CPU's own counts of what a process does, by perf_event_open(2): of this thread and of all
 * that it starts afterwards, in user mode.  Machines without counters (most virtual ones), and
 * kernels that do not lend them, count nothing.
 *
 *     mp_counters_open(&k, mp_counters_hardware);   // before the threads are started
 *     mp_counters_start(&k);
 *     ...                                           // mp_counters_pause and _resume around others
 *     mp_counters_stop(&k, counts);
 */
#ifndef MP_HARNESS_ENGINES_COUNTERS_H
#define MP_HARNESS_ENGINES_COUNTERS_H

#include <stdint.h>

enum { MP_COUNTERS = 3 };
extern const char *const mp_counter_names[MP_COUNTERS]; /* cycles, instructions, cache_misses */

/* type and config of perf_event_open. */
typedef struct mp_counter_kind {
    uint32_t type;
    uint64_t config;
} mp_counter_kind;
/* What the names say; and, to try the code on a machine that lacks these, what every kernel counts:
 * nanoseconds on a CPU, page faults, context switches. */
extern const mp_counter_kind mp_counters_hardware[MP_COUNTERS], mp_counters_software[MP_COUNTERS];

typedef struct mp_count {
    uint64_t value, enabled, running; /* nanoseconds; fewer running: it shared a counter */
} mp_count;

typedef struct mp_counters {
    int fd[MP_COUNTERS]; /* 0 or -1: not counted; 0 itself is the process's standard input */
    mp_count start[MP_COUNTERS];
} mp_counters;

/* All zero is closed: the functions below then do nothing.  0, or errno of a count that is not to
 * be had. */
int mp_counters_open(mp_counters *k, const mp_counter_kind kinds[MP_COUNTERS]);
void mp_counters_close(mp_counters *k);
void mp_counters_start(mp_counters *k);
void mp_counters_pause(const mp_counters *k);
void mp_counters_resume(const mp_counters *k);
/* What was counted since the start, without the pauses; NaN where nothing was. */
void mp_counters_stop(const mp_counters *k, double out[MP_COUNTERS]);

#endif
