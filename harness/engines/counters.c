#include "harness/engines/counters.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <math.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

const char *const mp_counter_names[MP_COUNTERS] = {"cycles", "instructions", "cache_misses"};

const mp_counter_kind mp_counters_hardware[MP_COUNTERS] = {
    {PERF_TYPE_HARDWARE, PERF_COUNT_HW_CPU_CYCLES},
    {PERF_TYPE_HARDWARE, PERF_COUNT_HW_INSTRUCTIONS},
    {PERF_TYPE_HARDWARE, PERF_COUNT_HW_CACHE_MISSES}};

const mp_counter_kind mp_counters_software[MP_COUNTERS] = {
    {PERF_TYPE_SOFTWARE, PERF_COUNT_SW_TASK_CLOCK},
    {PERF_TYPE_SOFTWARE, PERF_COUNT_SW_PAGE_FAULTS},
    {PERF_TYPE_SOFTWARE, PERF_COUNT_SW_CONTEXT_SWITCHES}};

/* Without a group: the kernel does not read groups that threads inherit. */
static int open_one(mp_counter_kind kind)
{
    struct perf_event_attr attr = {.type = kind.type,
                                   .size = sizeof attr,
                                   .config = kind.config,
                                   .read_format = PERF_FORMAT_TOTAL_TIME_ENABLED |
                                                  PERF_FORMAT_TOTAL_TIME_RUNNING,
                                   .disabled = 1,
                                   .inherit = 1,
                                   .exclude_kernel = 1,
                                   .exclude_hv = 1};

    return (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
}

int mp_counters_open(mp_counters *k, const mp_counter_kind kinds[MP_COUNTERS])
{
    int trouble = 0;

    *k = (mp_counters){0};
    for (int i = 0; i < MP_COUNTERS; i++)
        if ((k->fd[i] = open_one(kinds[i])) < 0)
            trouble = errno;
    return trouble;
}

void mp_counters_close(mp_counters *k)
{
    for (int i = 0; i < MP_COUNTERS; i++)
        if (k->fd[i] > 0)
            close(k->fd[i]);
    *k = (mp_counters){0};
}

static void all(const mp_counters *k, unsigned long request)
{
    for (int i = 0; i < MP_COUNTERS; i++)
        if (k->fd[i] > 0)
            ioctl(k->fd[i], request, 0);
}

void mp_counters_pause(const mp_counters *k)
{
    all(k, PERF_EVENT_IOC_DISABLE);
}

void mp_counters_resume(const mp_counters *k)
{
    all(k, PERF_EVENT_IOC_ENABLE);
}

/* The threads that it has been inherited by are in it. */
static mp_count read_one(const mp_counters *k, int i)
{
    mp_count c = {0};

    if (k->fd[i] <= 0 || read(k->fd[i], &c, sizeof c) != (ssize_t)sizeof c)
        return (mp_count){0};
    return c;
}

void mp_counters_start(mp_counters *k)
{
    for (int i = 0; i < MP_COUNTERS; i++)
        k->start[i] = read_one(k, i);
    mp_counters_resume(k);
}

void mp_counters_stop(const mp_counters *k, double out[MP_COUNTERS])
{
    mp_counters_pause(k);
    for (int i = 0; i < MP_COUNTERS; i++) {
        const mp_count end = read_one(k, i), *start = &k->start[i];
        const double running = (double)(end.running - start->running);
        out[i] = NAN;
        if (end.running > start->running)
            out[i] = (double)(end.value - start->value) *
                     ((double)(end.enabled - start->enabled) / running);
    }
}
