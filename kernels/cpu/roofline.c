#include "kernels/roofline.h"

#include <string.h>
#include <sys/mman.h>

#include "kernels/backend.h"
#include "kernels/core/ctx_internal.h"
#include "kernels/cpu/threads.h"

/* Many short runs, of which the fastest counts: one of them is not disturbed by the machine's other
 * work.  A thread's share of a run is TASK_NS. */
enum { RUNS = 8, TASK_NS = 30000, WARM_NS = 300000, COPIES = 3 };
/* What a thread copies: with the copy, more than its core's own cache holds. */
static const size_t half = (size_t)2 << 20;

typedef struct work {
    int64_t (*loop)(int64_t turns);
    int64_t turns;
    char *memory; /* 2 * half for each thread */
} work;

static void multiply(void *arg, int64_t task, int worker)
{
    const work *w = arg;

    (void)task;
    (void)worker;
    w->loop(w->turns);
}

static void fill(void *arg, int64_t task, int worker)
{
    (void)worker;
    memset(((const work *)arg)->memory + 2 * half * (size_t)task, 1, 2 * half);
}

static void copy(void *arg, int64_t task, int worker)
{
    char *const to = ((const work *)arg)->memory + 2 * half * (size_t)task;

    (void)worker;
    memcpy(to, to + half, half);
}

static uint64_t time_of(mp_ctx *c, int64_t tasks, mp_task_fn *fn, work *w)
{
    const uint64_t start = mp_now_ns();

    mp_parallel(c, tasks, fn, w);
    return mp_now_ns() - start + 1;
}

static double fastest(mp_ctx *c, int runs, int64_t tasks, mp_task_fn *fn, work *w)
{
    uint64_t best = UINT64_MAX;

    for (int i = 0; i < runs; i++) {
        const uint64_t ns = time_of(c, tasks, fn, w);
        best = ns < best ? ns : best;
    }
    return 1e-9 * (double)best;
}

/* A core opens its widest units only when they are used, and takes a while to. */
static void warm_up(mp_ctx *c, int threads, work *w)
{
    const uint64_t start = mp_now_ns();

    while (mp_now_ns() - start < WARM_NS)
        mp_parallel(c, threads, multiply, w);
}

/* FLOPs a second of all threads. */
static double peak(mp_ctx *c, int64_t (*loop)(int64_t turns), int threads)
{
    work w = {.loop = loop, .turns = 1000};

    if (!loop)
        return 0;
    warm_up(c, threads, &w);
    while (fastest(c, 3, 1, multiply, &w) < 1e-9 * TASK_NS)
        w.turns *= 2;
    return (double)(loop(w.turns) * threads) / fastest(c, RUNS, threads, multiply, &w);
}

static double bandwidth(mp_ctx *c, int threads)
{
    const size_t size = 2 * half * (size_t)threads;
    work w = {.memory =
                  mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)};

    if (w.memory == MAP_FAILED)
        return 0;
    madvise(w.memory, size, MADV_HUGEPAGE); /* fewer faults; without them it takes longer */
    mp_parallel(c, threads, fill, &w);
    const double rate = (double)size / fastest(c, COPIES, threads, copy, &w);
    munmap(w.memory, size);
    return rate;
}

void mp_roofline_measure(mp_ctx *c, mp_roofline *out)
{
    *out = (mp_roofline){0};
    if (!c->device)
        return;
    const int threads = mp_threads_count(c->device);
    out->flops = peak(c, c->backend->peak.fma, threads);
    out->pairs = peak(c, c->backend->peak.pairs, threads);
    out->copy = bandwidth(c, threads);
}
