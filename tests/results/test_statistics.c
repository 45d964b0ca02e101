/* Order statistics against scipy (tests/fixtures/make_metrics.py). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/core/memory.h"
#include "results/statistics.h"

static const struct sample_pair {
    const char *name;
    int n_a, n_b;
    double a[30], b[30], p;
} pairs[] = {
#include "tests/fixtures/metrics/mann_whitney.inc"
};

enum { PAIRS = sizeof pairs / sizeof *pairs };

static const struct differences {
    const char *name;
    int n;
    double d[80], p;
} signed_ranks[] = {
#include "tests/fixtures/metrics/wilcoxon.inc"
};

enum { SIGNED_RANKS = sizeof signed_ranks / sizeof *signed_ranks };

/* Exact p are ratios of whole numbers below 2^53: an ulp or two.  In the normal ones scipy and GSL
 * evaluate the tail each in its own way, some 10 ulp; far out, the rounding of z = 6.6 is magnified
 * by z^2 = 44 as well. */
static const double RELATIVE = 2e-14;

static void assert_near(double got, double want, const char *name)
{
    if (!(fabs(got - want) <= RELATIVE * fabs(want)))
        fail_msg("%s: got %.17g, expected %.17g", name, got, want);
}

static void test_mann_whitney__gives_the_p_of_scipy(void **state)
{
    (void)state;
    for (int i = 0; i < PAIRS; i++) {
        const struct sample_pair *s = &pairs[i];
        assert_near(mp_mann_whitney(s->a, s->n_a, s->b, s->n_b), s->p, s->name);
    }
}

static void test_mann_whitney__does_not_mind_which_sample_is_first(void **state)
{
    (void)state;
    for (int i = 0; i < PAIRS; i++) {
        const struct sample_pair *s = &pairs[i];
        assert_near(mp_mann_whitney(s->b, s->n_b, s->a, s->n_a), s->p, s->name);
    }
}

static void test_mann_whitney__leaves_the_samples_as_they_were(void **state)
{
    (void)state;
    double a[] = {3, 1, 2}, b[] = {9, 7, 8};
    mp_mann_whitney(a, 3, b, 3);
    assert_memory_equal(a, ((double[]){3, 1, 2}), sizeof a);
    assert_memory_equal(b, ((double[]){9, 7, 8}), sizeof b);
}

static void test_mann_whitney__cannot_tell_without_samples_or_differences(void **state)
{
    (void)state;
    static const double x[30] = {1, 2, 3}, same[30] = {0};
    assert_true(mp_mann_whitney(x, 0, x, 3) == 1);
    assert_true(mp_mann_whitney(x, 3, x, 0) == 1);
    assert_true(mp_mann_whitney(x, 1, x, 1) == 1);
    assert_true(mp_mann_whitney(same, 5, same, 5) == 1);   /* counted */
    assert_true(mp_mann_whitney(same, 30, same, 30) == 1); /* variance 0 */
    assert_true(mp_mann_whitney(x, 30, x, 30) == 1);       /* U in the middle: z < 0 */
}

static void test_mann_whitney__ranks_infinities_and_refuses_nan(void **state)
{
    (void)state;
    const double a[] = {1, 2, -INFINITY}, b[] = {5, INFINITY, INFINITY};
    assert_near(mp_mann_whitney(a, 3, b, 3), 0.1, "infinities");
    const double broken[] = {1, NAN, 3};
    assert_true(isnan(mp_mann_whitney(broken, 3, a, 3)));
    assert_true(isnan(mp_mann_whitney(a, 3, broken, 3)));
}

/* 2 / C(n_a + n_b, n_a), not above 1. */
static void test_floor__is_two_over_the_number_of_choices(void **state)
{
    (void)state;
    assert_near(mp_mann_whitney_floor(1, 1), 1, "1x1");
    assert_near(mp_mann_whitney_floor(1, 2), 2.0 / 3, "1x2");
    assert_near(mp_mann_whitney_floor(3, 3), 2.0 / 20, "3x3");
    assert_near(mp_mann_whitney_floor(5, 5), 2.0 / 252, "5x5");
    assert_near(mp_mann_whitney_floor(4, 7), 2.0 / 330, "4x7");
    assert_near(mp_mann_whitney_floor(7, 4), 2.0 / 330, "7x4");
    assert_near(mp_mann_whitney_floor(1, 400), 2.0 / 401, "1x400");
    assert_near(mp_mann_whitney_floor(20, 20), 2.0 / 137846528820.0, "20x20");
    assert_true(mp_mann_whitney_floor(0, 5) == 1);
    assert_true(mp_mann_whitney_floor(5, 0) == 1);
}

static void test_floor__is_reached_by_samples_that_lie_apart(void **state)
{
    (void)state;
    static const int sizes[][2] = {{1, 1}, {3, 3}, {5, 5}, {2, 9}, {20, 20}, {20, 21}, {30, 30}};
    double low[30], high[30];
    for (int i = 0; i < 30; i++)
        low[i] = i, high[i] = 100 + i;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const int n_a = sizes[i][0], n_b = sizes[i][1];
        assert_near(mp_mann_whitney(low, n_a, high, n_b), mp_mann_whitney_floor(n_a, n_b), "floor");
    }
}

static void test_median__is_the_middle_or_the_mean_of_the_two(void **state)
{
    (void)state;
    double x[] = {5, -1, 3, 2};
    assert_true(mp_median(x, 1) == 5);
    assert_true(mp_median(x, 2) == 2);
    assert_true(mp_median(x, 3) == 3);
    assert_true(mp_median(x, 4) == 2.5);
    assert_memory_equal(x, ((double[]){5, -1, 3, 2}), sizeof x);
    assert_true(mp_median((double[]){-INFINITY, INFINITY, INFINITY}, 3) == INFINITY);
    assert_true(mp_median((double[]){1.5e308, 1.7e308}, 2) == 1.6e308); /* their sum overflows */
}

static void test_median__of_nothing_or_of_nan_is_nan(void **state)
{
    (void)state;
    assert_true(isnan(mp_median(NULL, 0)));
    assert_true(isnan(mp_median((double[]){1, NAN, 3}, 3)));
}

/* The ranks are scipy's binom: the largest k with 2 P(X < k) <= 0.05 of n fair coins. */
static void test_interval__takes_the_ranks_of_the_binomial_distribution(void **state)
{
    (void)state;
    static const int ranks[][2] = {{6, 1},  {8, 1},  {9, 2},   {11, 2},
                                   {12, 3}, {20, 6}, {50, 18}, {100, 40}};
    double x[100];

    for (size_t i = 0; i < sizeof ranks / sizeof *ranks; i++) {
        const int n = ranks[i][0];
        for (int k = 0; k < n; k++)
            x[k] = k % 2 ? n - k / 2 : 1 + k / 2; /* 1 .. n in no order */
        const mp_interval got = mp_median_interval(x, n);
        assert_true(got.low == ranks[i][1]);
        assert_true(got.high == n + 1 - ranks[i][1]);
    }
}

static void test_interval__is_nan_where_there_is_none(void **state)
{
    (void)state;
    const double x[] = {1, 2, 3, 4, 5, NAN};

    for (int n = 0; n <= 6; n++)
        assert_true(isnan(mp_median_interval(x, n).low) && isnan(mp_median_interval(x, n).high));
}

static void test_wilcoxon__gives_the_p_of_scipy(void **state)
{
    (void)state;
    for (int i = 0; i < SIGNED_RANKS; i++) {
        const struct differences *s = &signed_ranks[i];
        double mirrored[80], balance, other;
        assert_near(mp_wilcoxon(s->d, s->n, &balance), s->p, s->name);
        for (int k = 0; k < s->n; k++)
            mirrored[k] = -s->d[k];
        assert_near(mp_wilcoxon(mirrored, s->n, &other), s->p, s->name);
        assert_true(balance == -other);
    }
}

static void test_wilcoxon__balance_says_which_sign_outweighs(void **state)
{
    (void)state;
    double balance;

    mp_wilcoxon((double[]){1, 2, INFINITY}, 3, &balance);
    assert_true(balance == 1);
    mp_wilcoxon((double[]){0, -1, -2}, 3, &balance);
    assert_true(balance == -1);
    mp_wilcoxon((double[]){1, -2, 3, -4}, 4, &balance); /* ranks 4 against 6 */
    assert_near(balance, -0.2, "balance");
    mp_wilcoxon((double[]){0, 1, -2}, 3, &balance); /* Pratt: ranks 2 and 3, not 1 and 2 */
    assert_near(balance, -0.2, "balance beside a zero");
}

static void test_wilcoxon__cannot_tell_without_differences_and_refuses_nan(void **state)
{
    (void)state;
    const double zeros[60] = {0};
    double balance = 9;

    assert_true(mp_wilcoxon(zeros, 0, &balance) == 1 && balance == 0);
    assert_true(mp_wilcoxon(zeros, 60, &balance) == 1 && balance == 0);
    assert_true(isnan(mp_wilcoxon((double[]){1, NAN}, 2, &balance)));
}

static void test_wilcoxon__floor_is_reached_by_differences_of_one_sign(void **state)
{
    (void)state;
    double d[50], balance;

    assert_true(mp_wilcoxon_floor(0) == 1);
    for (int n = 1; n <= 50; n++) {
        d[n - 1] = n;
        assert_near(mp_wilcoxon(d, n, &balance), mp_wilcoxon_floor(n), "floor");
    }
}

/* Expected: scipy.stats.false_discovery_control. */
static void test_benjamini_hochberg__gives_the_q_of_scipy_and_skips_nan(void **state)
{
    (void)state;
    static const double p[] = {0.01, 0.04, NAN, 0.03, 0.005, 0.8, 0.04, NAN, 0.5, 0.001};
    static const double q[] = {0.026666666666666665,
                               0.05333333333333333,
                               NAN,
                               0.05333333333333333,
                               0.02,
                               0.8,
                               0.05333333333333333,
                               NAN,
                               0.5714285714285714,
                               0.008};
    double got[10];

    mp_benjamini_hochberg(p, 10, got);
    for (int i = 0; i < 10; i++)
        if (isnan(q[i]))
            assert_true(isnan(got[i]));
        else
            assert_near(got[i], q[i], "q");
    mp_benjamini_hochberg(p, 0, got);
    mp_benjamini_hochberg(p + 2, 1, got);
    assert_true(isnan(got[0]));
}

static void test_statistics__are_nan_when_memory_is_short(void **state)
{
    (void)state;
    const double a[] = {1, 2, 3}, b[] = {4, 5, 6};
    mp_memory_fail_at(1);
    assert_true(isnan(mp_median(a, 3)));
    for (uint64_t n = 1; n <= 2; n++) { /* the pool, the table of counts */
        mp_memory_fail_at(n);
        assert_true(isnan(mp_mann_whitney(a, 3, b, 3)));
    }
    const double d[] = {1, 2, 3, 4, 5, 6};
    double balance, q[6];
    for (uint64_t n = 1; n <= 2; n++) {
        mp_memory_fail_at(n);
        assert_true(isnan(mp_wilcoxon(d, 6, &balance)));
    }
    mp_memory_fail_at(1);
    assert_true(isnan(mp_median_interval(d, 6).low));
    mp_memory_fail_at(1);
    mp_benjamini_hochberg(d, 6, q);
    assert_true(isnan(q[0]) && isnan(q[5]));
    mp_memory_fail_at(0);
    assert_near(mp_mann_whitney(a, 3, b, 3), 0.1, "memory is back");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mann_whitney__gives_the_p_of_scipy),
        cmocka_unit_test(test_mann_whitney__does_not_mind_which_sample_is_first),
        cmocka_unit_test(test_mann_whitney__leaves_the_samples_as_they_were),
        cmocka_unit_test(test_mann_whitney__cannot_tell_without_samples_or_differences),
        cmocka_unit_test(test_mann_whitney__ranks_infinities_and_refuses_nan),
        cmocka_unit_test(test_floor__is_two_over_the_number_of_choices),
        cmocka_unit_test(test_floor__is_reached_by_samples_that_lie_apart),
        cmocka_unit_test(test_median__is_the_middle_or_the_mean_of_the_two),
        cmocka_unit_test(test_median__of_nothing_or_of_nan_is_nan),
        cmocka_unit_test(test_interval__takes_the_ranks_of_the_binomial_distribution),
        cmocka_unit_test(test_interval__is_nan_where_there_is_none),
        cmocka_unit_test(test_wilcoxon__gives_the_p_of_scipy),
        cmocka_unit_test(test_wilcoxon__balance_says_which_sign_outweighs),
        cmocka_unit_test(test_wilcoxon__cannot_tell_without_differences_and_refuses_nan),
        cmocka_unit_test(test_wilcoxon__floor_is_reached_by_differences_of_one_sign),
        cmocka_unit_test(test_benjamini_hochberg__gives_the_q_of_scipy_and_skips_nan),
        cmocka_unit_test(test_statistics__are_nan_when_memory_is_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
