#include "harness/engines/faults.h"

#ifdef MPBENCH_FAULTS

#include <fnmatch.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static char kind[16];
static const char *module;
static volatile uintptr_t nowhere = 8;

static void poison(const mp_tensor *y, double value)
{
    if (y->store == MP_F32)
        *(float *)y->data = (float)value;
    else if (y->store == MP_F16)
        *(uint16_t *)y->data = isnan(value) ? 0x7e00 : 0x7c00;
    else if (y->store == MP_BF16)
        *(uint16_t *)y->data = isnan(value) ? 0x7fc0 : 0x7f80;
}

/* Takes memory until the process's limit says no, as a leak would. */
static void exhaust(mp_ctx *c)
{
    enum { CHUNK = 64 << 20, CHUNKS = 1 << 20 };

    for (int i = 0; i < CHUNKS; i++) {
        char *block = mmap(NULL, CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (block == MAP_FAILED) {
            mp_fail(c, MP_ENOMEM, NULL, "the memory limit of the process is reached");
            return;
        }
        for (int k = 0; k < CHUNK; k += 4096)
            block[k] = 1;
    }
}

static int overflow_stack(volatile int depth)
{
    volatile char frame[4096];

    memset((void *)frame, depth, sizeof frame);
    return depth < INT_MAX ? overflow_stack(depth + 1) + frame[depth % 4096] : 0;
}

static void fault(void *user, const mp_op_event *event)
{
    if (fnmatch(module, event->module, 0))
        return;
    if (!strcmp(kind, "segv"))
        *(volatile int *)nowhere = 1;
    else if (!strcmp(kind, "kill"))
        kill(getpid(), SIGKILL);
    else if (!strcmp(kind, "abort"))
        abort();
    else if (!strcmp(kind, "hang"))
        for (;;)
            pause();
    else if (!strcmp(kind, "exit"))
        _exit(7);
    else if (!strcmp(kind, "oom"))
        exhaust(user);
    else if (!strcmp(kind, "nan"))
        poison(event->y, NAN);
    else if (!strcmp(kind, "inf"))
        poison(event->y, INFINITY);
    else if (!strcmp(kind, "stack"))
        overflow_stack(0);
}

void mp_faults_install(mp_ctx *c)
{
    const char *text = getenv("MPBENCH_FAULT"), *at = text ? strchr(text, '@') : NULL;

    if (!at || (size_t)(at - text) >= sizeof kind)
        return;
    snprintf(kind, sizeof kind, "%.*s", (int)(at - text), text);
    module = at + 1;
    mp_observe(c, (mp_observer){.output = fault, .user = c});
}

const mp_counter_kind *mp_faults_counters(void)
{
    const char *text = getenv("MPBENCH_COUNTERS");

    return text && !strcmp(text, "software") ? mp_counters_software : mp_counters_hardware;
}

#else

void mp_faults_install(mp_ctx *c)
{
    (void)c;
}

const mp_counter_kind *mp_faults_counters(void)
{
    return mp_counters_hardware;
}

#endif
