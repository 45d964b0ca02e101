/* The workers of a context: every task once, the same threads from op to op, pinned to the CPUs of
 * this process, scratch of their own. */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/cpu/threads.h"
#include "kernels/device.h"
#include "kernels/ops.h"
#include "tests/support/mp_test.h"

enum { WORKERS = 8, TASKS = 5000 };

typedef struct tally {
    _Atomic int runs[TASKS];
    _Atomic int strangers; /* tasks run by a worker whose number is out of range */
    int threads;
} tally;

static void count_task(void *arg, int64_t task, int worker)
{
    tally *t = arg;

    atomic_fetch_add(&t->runs[task], 1);
    if (worker < 0 || worker >= t->threads)
        atomic_fetch_add(&t->strangers, 1);
}

static void test_threads__every_task_runs_exactly_once(void **state)
{
    static const int threads[] = {1, 2, 3, 5, WORKERS}, tasks[] = {0, 1, 2, 7, 64, TASKS};
    static tally t;

    (void)state;
    for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) {
        mp_ctx *c = mp_test_ctx(NULL, threads[i]);
        for (size_t j = 0; j < sizeof tasks / sizeof *tasks; j++) {
            memset(&t, 0, sizeof t);
            t.threads = threads[i];
            mp_parallel(c, tasks[j], count_task, &t);
            for (int task = 0; task < TASKS; task++)
                assert_int_equal(t.runs[task], task < tasks[j]);
            assert_int_equal(t.strangers, 0);
        }
        mp_device_close(c);
    }
}

/* What each worker says of itself; every worker gets its turn because none leaves before all are
 * there. */
typedef struct roll_call {
    pthread_barrier_t all;
    pthread_t thread[WORKERS];
    pid_t tid[WORKERS];
    cpu_set_t cpus[WORKERS];
} roll_call;

static void answer(void *arg, int64_t task, int worker)
{
    roll_call *r = arg;

    (void)task;
    pthread_barrier_wait(&r->all);
    r->thread[worker] = pthread_self();
    r->tid[worker] = gettid();
    sched_getaffinity(0, sizeof r->cpus[worker], &r->cpus[worker]);
}

static void call_roll(mp_ctx *c, roll_call *r, int threads)
{
    memset(r, 0, sizeof *r);
    pthread_barrier_init(&r->all, NULL, (unsigned)threads);
    mp_parallel(c, threads, answer, r);
    pthread_barrier_destroy(&r->all);
}

static void test_threads__the_same_threads_serve_every_op_even_after_sleeping(void **state)
{
    roll_call first, again;
    mp_ctx *c = mp_test_ctx(NULL, 4);

    (void)state;
    call_roll(c, &first, 4);
    assert_true(pthread_equal(first.thread[0], pthread_self()));
    for (int i = 0; i < 3; i++) {
        usleep(i * 20000); /* long enough for workers to stop spinning */
        call_roll(c, &again, 4);
        assert_memory_equal(again.tid, first.tid, sizeof first.tid);
    }
    for (int i = 1; i < 4; i++)
        assert_int_not_equal(first.tid[i], first.tid[i - 1]);
    mp_device_close(c);
}

static void test_threads__workers_are_pinned_to_cpus_of_this_process_alone(void **state)
{
    cpu_set_t all, one;
    roll_call r;
    int last = 0;

    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        last = CPU_ISSET(cpu, &all) ? cpu : last;
    CPU_ZERO(&one);
    CPU_SET(last, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    mp_ctx *c = mp_test_ctx(NULL, 3);
    mp_device_info info;
    mp_device_describe(c, &info);
    call_roll(c, &r, 3);
    mp_device_close(c);
    assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
    for (int i = 1; i < 3; i++)
        assert_true(CPU_EQUAL(&r.cpus[i], &one));
    assert_int_equal(info.cores, 1);
}

static void test_threads__zero_is_one_thread_on_each_cpu_of_this_process(void **state)
{
    cpu_set_t all;
    mp_ctx *c = mp_test_ctx(NULL, 0);
    mp_device_info info;

    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    mp_device_describe(c, &info);
    assert_int_equal(info.threads, CPU_COUNT(&all));
    mp_device_close(c);
}

static void test_threads__impossible_numbers_are_refused_with_the_range(void **state)
{
    static const int numbers[] = {-1, 257, INT32_MAX, INT32_MIN};

    (void)state;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        const mp_device_options o = {.threads = numbers[i]};
        mp_error err = {0};
        mp_ctx *c = NULL;
        assert_int_equal(mp_device_open(&o, &c, &err), MP_EDEVICE);
        assert_null(c);
        assert_non_null(strstr(err.text, "choose 1 to 256 with --threads"));
    }
    mp_ctx *c = mp_test_ctx(NULL, 256);
    static tally t;
    t.threads = 256;
    mp_parallel(c, TASKS, count_task, &t);
    for (int task = 0; task < TASKS; task++)
        assert_int_equal(t.runs[task], 1);
    mp_device_close(c);
}

static void add_up(void *arg, int64_t task, int worker)
{
    (void)worker;
    atomic_fetch_add((_Atomic int64_t *)arg, task + 1);
}

/* Rounds follow each other at once, and now and then after a pause. */
static void test_threads__many_short_rounds_lose_nothing(void **state)
{
    enum { ROUNDS = 3000, EACH = 5 };
    _Atomic int64_t sum = 0;
    mp_ctx *c = mp_test_ctx(NULL, 3);

    (void)state;
    for (int i = 0; i < ROUNDS; i++) {
        mp_parallel(c, EACH, add_up, &sum);
        assert_int_equal(sum, (int64_t)(i + 1) * EACH * (EACH + 1) / 2);
        if (i % 500 == 0)
            usleep(3000);
    }
    mp_device_close(c);
}

static void fill_scratch(void *arg, int64_t task, int worker)
{
    mp_ctx *c = arg;

    (void)task;
    memset(mp_scratch(c, worker), worker + 1, 100000);
}

static void test_threads__each_worker_has_aligned_scratch_that_grows_and_stays(void **state)
{
    enum { THREADS = 3 };
    mp_ctx *c = mp_test_ctx(NULL, THREADS);

    (void)state;
    assert_true(mp_scratch_reserve(c, 100000));
    mp_parallel(c, 100, fill_scratch, c);
    void *where = mp_scratch(c, 0);
    assert_true(mp_scratch_reserve(c, 5000));
    assert_ptr_equal(mp_scratch(c, 0), where);
    assert_true(mp_scratch_reserve(c, 1000000));
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal((uintptr_t)mp_scratch(c, i) % 64, 0);
        memset(mp_scratch(c, i), i, 1000000);
    }
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(((unsigned char *)mp_scratch(c, i))[999999], i);
    mp_device_close(c);
}

static void test_threads__scratch_beyond_the_machine_fails_the_context(void **state)
{
    mp_ctx *c = mp_test_ctx(NULL, 2);

    (void)state;
    assert_false(mp_scratch_reserve(c, SIZE_MAX / 2));
    mp_test_fails(c, MP_ENOMEM, "scratch in each of 2 threads");
    assert_true(mp_scratch_reserve(c, 1000));
    memset(mp_scratch(c, 1), 1, 1000);
    mp_device_close(c);
}

/* Two contexts in two threads, as an engine may hold them. */
static void *own_context(void *arg)
{
    mp_ctx *c = mp_test_ctx(NULL, 2);
    const float values[3] = {1, 2, 3};

    for (int i = 0; i < 200; i++) {
        const mp_mark mark = mp_open(c);
        const mp_tensor x = mp_test_floats(c, MP_F32, 1, MP_DIMS(3), values);
        *(float *)arg = *(float *)mp_sum(c, mp_mul(c, x, x)).data;
        mp_drop(c, mark);
    }
    mp_device_close(c);
    return NULL;
}

static void test_threads__contexts_of_several_threads_do_not_meet(void **state)
{
    pthread_t other;
    float here = 0, there = 0;

    (void)state;
    assert_int_equal(pthread_create(&other, NULL, own_context, &there), 0);
    own_context(&here);
    pthread_join(other, NULL);
    assert_true(here == 14.0f && there == 14.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads__every_task_runs_exactly_once),
        cmocka_unit_test(test_threads__the_same_threads_serve_every_op_even_after_sleeping),
        cmocka_unit_test(test_threads__workers_are_pinned_to_cpus_of_this_process_alone),
        cmocka_unit_test(test_threads__zero_is_one_thread_on_each_cpu_of_this_process),
        cmocka_unit_test(test_threads__impossible_numbers_are_refused_with_the_range),
        cmocka_unit_test(test_threads__many_short_rounds_lose_nothing),
        cmocka_unit_test(test_threads__each_worker_has_aligned_scratch_that_grows_and_stays),
        cmocka_unit_test(test_threads__scratch_beyond_the_machine_fails_the_context),
        cmocka_unit_test(test_threads__contexts_of_several_threads_do_not_meet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
