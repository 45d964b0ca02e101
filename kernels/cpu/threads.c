#include "kernels/cpu/threads.h"

#include <assert.h>
#include <hwloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/core/ctx_internal.h"
#include "kernels/core/memory.h"
#include "kernels/cpu/cpu_info.h"

/* Turns of the waiting loop before a thread sleeps: 50 to 150 microseconds, the gap between ops. */
enum { SPINS = 4000, MAX_THREADS = 256 };

/* One word says all of a round: its number, whether workers may still join, how many are in.  A
 * round is over when its tasks are done and the workers that joined have left; one that the system
 * has not woken in time is not waited for, so a busy machine costs its share and no more. */
static const uint64_t IN_MASK = 0x7fff, OPEN = 0x8000, NUMBER_ONE = 0x10000;

typedef struct area {
    void *at;
    size_t size;
} area;

typedef struct worker {
    struct mp_threads *pool;
    pthread_t thread; /* of the first one: the thread that started them all */
    int index;
    area scratch;
} worker;

struct mp_threads {
    worker workers[MAX_THREADS];
    int count;
    cpu_set_t allowed; /* to the first thread, before it was pinned */
    bool alone;
    area shared[MP_SHARED_COUNT];
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    _Atomic uint64_t round;
    _Atomic int64_t next; /* first task that nobody has taken */
    _Atomic bool stop;
    int64_t tasks; /* this and below: written while no worker is in */
    mp_task_fn *fn;
    void *arg;
};

static void run_tasks(mp_threads *t, int index)
{
    for (;;) {
        const int64_t task = atomic_fetch_add_explicit(&t->next, 1, memory_order_relaxed);
        if (task >= t->tasks)
            return;
        t->fn(t->arg, task, index);
    }
}

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* True when there is a round to join other than the one joined last. */
static bool round_waits(mp_threads *t, uint64_t joined)
{
    const uint64_t now = atomic_load_explicit(&t->round, memory_order_relaxed);

    return (now & OPEN) && now / NUMBER_ONE != joined;
}

/* First awake, since the next op is usually near, then asleep.  False: stop. */
static bool wait_for_round(mp_threads *t, uint64_t joined)
{
    for (int i = 0; i < SPINS; i++) {
        if (round_waits(t, joined))
            return !atomic_load(&t->stop);
        relax();
    }
    pthread_mutex_lock(&t->lock);
    while (!round_waits(t, joined) && !atomic_load(&t->stop))
        pthread_cond_wait(&t->wake, &t->lock);
    pthread_mutex_unlock(&t->lock);
    return !atomic_load(&t->stop);
}

/* False: it was closed meanwhile. */
static bool join(mp_threads *t, uint64_t *joined)
{
    uint64_t now = atomic_load_explicit(&t->round, memory_order_relaxed);

    while (now & OPEN)
        if (atomic_compare_exchange_weak_explicit(&t->round, &now, now + 1, memory_order_acquire,
                                                  memory_order_relaxed)) {
            *joined = now / NUMBER_ONE;
            return true;
        }
    return false;
}

/* The last one out of a closed round wakes the caller. */
static void leave(mp_threads *t)
{
    const uint64_t before = atomic_fetch_sub_explicit(&t->round, 1, memory_order_acq_rel);

    if (!(before & OPEN) && (before & IN_MASK) == 1) {
        pthread_mutex_lock(&t->lock);
        pthread_cond_signal(&t->done);
        pthread_mutex_unlock(&t->lock);
    }
}

static void *work(void *arg)
{
    worker *w = arg;
    mp_threads *t = w->pool;
    uint64_t joined = 0;

    while (wait_for_round(t, joined))
        if (join(t, &joined)) {
            run_tasks(t, w->index);
            leave(t);
        }
    return NULL;
}

static void open_round(mp_threads *t)
{
    const uint64_t number = atomic_load_explicit(&t->round, memory_order_relaxed) / NUMBER_ONE + 1;

    pthread_mutex_lock(&t->lock);
    atomic_store_explicit(&t->round, number * NUMBER_ONE + OPEN, memory_order_release);
    pthread_cond_broadcast(&t->wake);
    pthread_mutex_unlock(&t->lock);
}

static bool someone_in(mp_threads *t)
{
    return atomic_load_explicit(&t->round, memory_order_acquire) & IN_MASK;
}

static void close_round(mp_threads *t)
{
    atomic_fetch_and_explicit(&t->round, ~OPEN, memory_order_acq_rel);
    for (int i = 0; i < SPINS; i++) {
        if (!someone_in(t))
            return;
        relax();
    }
    pthread_mutex_lock(&t->lock);
    while (someone_in(t))
        pthread_cond_wait(&t->done, &t->lock);
    pthread_mutex_unlock(&t->lock);
}

void mp_parallel(mp_ctx *c, int64_t tasks, mp_task_fn *fn, void *arg)
{
    mp_threads *t = c->device;

    if (tasks <= 1 || t->count == 1) {
        for (int64_t i = 0; i < tasks; i++)
            fn(arg, i, 0);
        return;
    }
    t->tasks = tasks;
    t->fn = fn;
    t->arg = arg;
    atomic_store_explicit(&t->next, 0, memory_order_relaxed);
    open_round(t);
    run_tasks(t, 0);
    close_round(t);
}

static void release(area *a)
{
    if (a->at)
        munmap(a->at, a->size);
}

static bool grow(area *a, size_t bytes)
{
    const size_t size = (bytes + ((size_t)1 << 16) - 1) >> 16 << 16;

    if (bytes <= a->size)
        return true;
    void *grown = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (grown == MAP_FAILED)
        return false;
    release(a);
    *a = (area){grown, size};
    return true;
}

bool mp_scratch_reserve(mp_ctx *c, size_t bytes)
{
    mp_threads *t = c->device;

    for (int i = 0; i < t->count; i++)
        if (!grow(&t->workers[i].scratch, bytes)) {
            mp_fail(c, MP_ENOMEM, NULL, "no memory for %.1f MiB of scratch in each of %d threads",
                    (double)bytes / 1048576, t->count);
            return false;
        }
    return true;
}

void *mp_scratch(mp_ctx *c, int index)
{
    const mp_threads *t = c->device;

    assert(index >= 0 && index < t->count);
    return t->workers[index].scratch.at;
}

void *mp_scratch_shared(mp_ctx *c, mp_shared which, size_t bytes)
{
    mp_threads *t = c->device;

    if (grow(&t->shared[which], bytes))
        return t->shared[which].at;
    mp_fail(c, MP_ENOMEM, NULL, "no memory for %.1f MiB of scratch", (double)bytes / 1048576);
    return NULL;
}

/* One worker to a core, in hwloc's order, where there is one for each core that this process may
 * use; where there are fewer, as beside other cells, the system places them.  The calling thread
 * stays as it is unless it is the context's alone: else it may find itself on the same core as
 * another one until the system moves it, milliseconds later. */
static void pin_workers(mp_threads *t, bool alone)
{
    hwloc_topology_t topology;

    if (t->count == 1 || sched_getaffinity(0, sizeof t->allowed, &t->allowed) ||
        !mp_cpu_topology(&topology))
        return;
    const int cores = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE);
    for (int i = alone ? 0 : 1; i < t->count && cores > 0 && cores <= t->count; i++) {
        hwloc_obj_t core = hwloc_get_obj_by_type(topology, HWLOC_OBJ_CORE, (unsigned)(i % cores));
        if (!core || !core->cpuset)
            continue;
        hwloc_set_thread_cpubind(topology, t->workers[i].thread, core->cpuset, 0);
    }
    hwloc_topology_destroy(topology);
    t->alone = alone;
}

static int default_count(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof set, &set) || CPU_COUNT(&set) < 1)
        return 1;
    return CPU_COUNT(&set) < MAX_THREADS ? CPU_COUNT(&set) : MAX_THREADS;
}

mp_code mp_threads_start(int threads, bool alone, mp_threads **out, mp_error *err)
{
    mp_threads *t;

    if (threads < 0 || threads > MAX_THREADS)
        return mp_error_set(
            err, MP_EDEVICE,
            "%d threads were asked for; choose 1 to %d with --threads, or 0 for one "
            "on each CPU",
            threads, MAX_THREADS);
    if (!(t = mp_alloc(1, sizeof *t)))
        return mp_error_set(err, MP_ENOMEM, "no memory for the worker threads");
    if (!threads)
        threads = default_count();
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->wake, NULL);
    pthread_cond_init(&t->done, NULL);
    t->count = 1;
    t->workers[0].thread = pthread_self();
    for (int i = 1; i < threads; i++) {
        worker *w = &t->workers[i];
        w->pool = t;
        w->index = i;
        if (pthread_create(&w->thread, NULL, work, w)) {
            mp_threads_stop(t);
            return mp_error_set(err, MP_EDEVICE,
                                "cannot start worker thread %d of %d; ask for fewer with --threads",
                                i + 1, threads);
        }
        t->count++;
    }
    pin_workers(t, alone);
    *out = t;
    return MP_OK;
}

void mp_threads_stop(mp_threads *t)
{
    if (!t)
        return;
    pthread_mutex_lock(&t->lock);
    atomic_store(&t->stop, true);
    pthread_cond_broadcast(&t->wake);
    pthread_mutex_unlock(&t->lock);
    for (int i = 1; i < t->count; i++)
        pthread_join(t->workers[i].thread, NULL);
    if (t->alone)
        pthread_setaffinity_np(t->workers[0].thread, sizeof t->allowed, &t->allowed);
    for (int i = 0; i < t->count; i++)
        release(&t->workers[i].scratch);
    for (int i = 0; i < MP_SHARED_COUNT; i++)
        release(&t->shared[i]);
    pthread_cond_destroy(&t->done);
    pthread_cond_destroy(&t->wake);
    pthread_mutex_destroy(&t->lock);
    mp_free(t);
}

int mp_threads_count(const mp_threads *t)
{
    return t->count;
}

size_t mp_threads_scratch(const mp_threads *t)
{
    size_t bytes = 0;

    for (int i = 0; i < t->count; i++)
        bytes += t->workers[i].scratch.size;
    for (int i = 0; i < MP_SHARED_COUNT; i++)
        bytes += t->shared[i].size;
    return bytes;
}
