/* The CPU's counters, tried with what every kernel counts: where the machine has no others, the
 * code is the same. */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <cmocka.h>

#include "harness/engines/counters.h"

enum { TIME, FAULTS }; /* of mp_counters_software */

/* CPU time of this thread, not of the clock: a busy machine makes no difference. */
static double own_time(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return 1e9 * (double)t.tv_sec + (double)t.tv_nsec;
}

static void *spin(void *nanoseconds)
{
    const double end = own_time() + *(double *)nanoseconds;

    while (own_time() < end)
        ;
    return NULL;
}

static void touch(size_t pages)
{
    char *x = mmap(NULL, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    assert_true(x != MAP_FAILED);
    madvise(x, pages * 4096, MADV_NOHUGEPAGE);
    for (size_t i = 0; i < pages; i++)
        x[i * 4096] = 1;
    munmap(x, pages * 4096);
}

static void open_counters(mp_counters *k)
{
    if (mp_counters_open(k, mp_counters_software)) {
        mp_counters_close(k);
        skip(); /* a kernel that lends not even these: perf_event_paranoid of 3 */
    }
}

static void test_counters__count_what_happens_between_start_and_stop(void **state)
{
    double counts[MP_COUNTERS];
    mp_counters k;

    (void)state;
    open_counters(&k);
    touch(1000);
    mp_counters_start(&k);
    touch(100);
    mp_counters_stop(&k, counts);
    assert_true(counts[FAULTS] >= 100 && counts[FAULTS] < 500);
    mp_counters_start(&k); /* the next generation */
    touch(200);
    mp_counters_stop(&k, counts);
    assert_true(counts[FAULTS] >= 200 && counts[FAULTS] < 600);
    mp_counters_close(&k);
}

static void test_counters__leave_out_what_happens_in_a_pause(void **state)
{
    double counts[MP_COUNTERS];
    mp_counters k;

    (void)state;
    open_counters(&k);
    mp_counters_start(&k);
    touch(100);
    mp_counters_pause(&k);
    touch(2000);
    mp_counters_resume(&k);
    touch(100);
    mp_counters_stop(&k, counts);
    assert_true(counts[FAULTS] >= 200 && counts[FAULTS] < 1000);
    mp_counters_close(&k);
}

static void test_counters__count_the_threads_that_are_started_later(void **state)
{
    double counts[MP_COUNTERS], share = 20e6; /* 20 ms of each thread */
    mp_counters k;
    pthread_t thread;

    (void)state;
    open_counters(&k);
    mp_counters_start(&k);
    assert_int_equal(pthread_create(&thread, NULL, spin, &share), 0);
    spin(&share);
    pthread_join(thread, NULL);
    mp_counters_stop(&k, counts);
    assert_true(counts[TIME] >= 1.9 * share);
    mp_counters_close(&k);
}

static void test_counters__that_are_closed_or_refused_count_nothing(void **state)
{
    static const mp_counter_kind none[MP_COUNTERS] = {
        {UINT32_MAX, 0}, {UINT32_MAX, 0}, {UINT32_MAX, 0}};
    double counts[MP_COUNTERS];
    mp_counters k = {0};

    (void)state;
    for (int i = 0; i < 2; i++) {
        mp_counters_start(&k);
        mp_counters_pause(&k);
        mp_counters_resume(&k);
        mp_counters_stop(&k, counts);
        for (int c = 0; c < MP_COUNTERS; c++)
            assert_true(isnan(counts[c]));
        mp_counters_close(&k);
        assert_true(mp_counters_open(&k, none) != 0);
    }
    mp_counters_close(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counters__count_what_happens_between_start_and_stop),
        cmocka_unit_test(test_counters__leave_out_what_happens_in_a_pause),
        cmocka_unit_test(test_counters__count_the_threads_that_are_started_later),
        cmocka_unit_test(test_counters__that_are_closed_or_refused_count_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
