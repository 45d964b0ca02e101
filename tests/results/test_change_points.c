/* Change points: Otava's own (tests/results/parity_otava.py made the golden file; another one may
 * be given as the argument), and the default mode on series whose truth is known. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <gsl/gsl_cdf.h>
#include <jansson.h>

#include "kernels/core/memory.h"
#include "results/change_points_parts.h"

enum { MOST = 400 };

static const char *golden = MP_FIXTURES "/results/change_points.json";
static const mp_change_options usual = {.min_segment = 3, .p = 0.001};

/* ---- Series --------------------------------------------------------------------------------- */

static uint64_t seed;

static double uniform(void) /* in (0, 1); splitmix64 */
{
    uint64_t z = seed += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return ((double)((z ^ (z >> 31)) >> 11) + 0.5) * 0x1p-53;
}

/* Of deviation 1, nearly Gaussian, and the same bits with every libm. */
static double noise(void)
{
    double all = -6;
    for (int i = 0; i < 12; i++)
        all += uniform();
    return all;
}

/* Noise of this deviation about 100, with `step` more from `at` on. */
static void make(double *x, int64_t n, double deviation, int64_t at, double step, uint64_t with)
{
    seed = with;
    for (int64_t i = 0; i < n; i++)
        x[i] = 100 + deviation * noise() + (i >= at ? step : 0);
}

/* The change points of x in a buffer of the test's own. */
static int find(const double *x, int64_t n, const mp_change_options *o, mp_change_point *out)
{
    mp_change_point *found;
    mp_error err = {0};
    int count;

    if (mp_change_points(x, n, o, &found, &count, &err))
        fail_msg("%s", err.text);
    assert_true(count <= MOST);
    memcpy(out, found, (size_t)count * sizeof *found);
    mp_free(found);
    return count;
}

static int count_of(const double *x, int64_t n, const mp_change_options *o)
{
    mp_change_point out[MOST];
    return find(x, n, o, out);
}

/* ---- Otava ---------------------------------------------------------------------------------- */

static double number(const json_t *list, size_t i)
{
    return json_number_value(json_array_get(list, i));
}

/* The file has 13 digits.  p falls as exp(-e) with e up to 700, so its relative error is some e
 * ulp of what is under the exponent, and more where p itself is denormal. */
static void assert_near(double got, double want, double relative, const char *what, int at)
{
    if (!(fabs(got - want) <= relative * fabs(want) + 1e-307))
        fail_msg("series %d: %s is %.17g, expected %.17g", at, what, got, want);
}

static void compare(const double *x, int64_t n, const json_t *set, int at)
{
    const mp_otava_options o = {
        .window = (int)json_integer_value(json_object_get(set, "window")),
        .p = json_number_value(json_object_get(set, "p")),
        .magnitude = json_number_value(json_object_get(set, "magnitude")),
    };
    const json_t *points = json_object_get(set, "points");
    mp_change_point *c;
    mp_error err = {0};
    int count;

    assert_int_equal(mp_change_points_otava(x, n, &o, &c, &count, &err), MP_OK);
    if (count != (int)json_array_size(points))
        fail_msg("series %d, window %d, p %g, magnitude %g: %d change points, expected %d", at,
                 o.window, o.p, o.magnitude, count, (int)json_array_size(points));
    for (int i = 0; i < count; i++) {
        const json_t *want = json_array_get(points, (size_t)i);
        if (c[i].index != (int64_t)number(want, 0))
            fail_msg("series %d, window %d, p %g: change point at %d, expected at %d", at, o.window,
                     o.p, (int)c[i].index, (int)number(want, 0));
        assert_near(c[i].p, number(want, 1), 1e-12, "p", at);
        assert_near(c[i].centre_before, number(want, 2), 1e-12, "mean before", at);
        assert_near(c[i].centre_after, number(want, 3), 1e-12, "mean after", at);
        assert_true(isnan(c[i].low) && isnan(c[i].high) && !c[i].trend);
    }
    mp_free(c);
}

static void test_otava__is_equal_index_for_index(void **state)
{
    (void)state;
    json_error_t error;
    json_t *all = json_load_file(golden, 0, &error);

    if (!all)
        fail_msg("%s:%d: %s", golden, error.line, error.text);
    assert_true(json_array_size(all) >= 100);
    for (size_t s = 0; s < json_array_size(all); s++) {
        const json_t *one = json_array_get(all, s), *values = json_object_get(one, "x");
        const json_t *sets = json_object_get(one, "sets");
        const size_t n = json_array_size(values);
        double *x = mp_alloc(n, sizeof *x);
        for (size_t i = 0; i < n; i++)
            x[i] = number(values, i);
        assert_true(json_array_size(sets) >= 3);
        for (size_t i = 0; i < json_array_size(sets); i++)
            compare(x, (int64_t)n, json_array_get(sets, i), (int)s);
        mp_free(x);
    }
    json_decref(all);
}

static void test_otava__finds_nothing_in_no_points(void **state)
{
    (void)state;
    const mp_otava_options o = {.window = 50, .p = 0.001};
    mp_change_point *c;
    mp_error err = {0};

    for (int64_t n = 0; n < 2; n++) {
        int count = -1;
        assert_int_equal(mp_change_points_otava(&(double){3}, n, &o, &c, &count, &err), MP_OK);
        assert_int_equal(count, 0);
        mp_free(c);
    }
}

static void test_otava__refuses_what_it_cannot_split(void **state)
{
    (void)state;
    const double x[] = {1, 2, NAN, 4}, good[] = {1, 2, 3};
    mp_change_point *c;
    mp_error err = {0};
    int count;

    assert_int_equal(mp_change_points_otava(x, 4, &(mp_otava_options){.window = 50, .p = 0.001}, &c,
                                            &count, &err),
                     MP_ENUMERIC);
    assert_non_null(strstr(err.text, "point 3 of 4 is nan"));
    err = (mp_error){0};
    assert_int_equal(mp_change_points_otava(good, 3, &(mp_otava_options){.window = 1, .p = 0.001},
                                            &c, &count, &err),
                     MP_EUSAGE);
    assert_non_null(strstr(err.text, "a window of 1"));
}

/* ---- Default mode: steps -------------------------------------------------------------------- */

static void test_default__finds_a_step_where_it_is(void **state)
{
    (void)state;
    double x[90];
    mp_change_point c[MOST];

    for (uint64_t k = 0; k < 50; k++) {
        make(x, 90, 1, 60, k % 2 ? 6 : -6, k);
        assert_int_equal(find(x, 90, &usual, c), 1);
        assert_int_equal(c[0].index, 60);
        assert_int_equal(c[0].before, 0);
        assert_true(c[0].p < 1e-12 && !c[0].trend);
        assert_true((c[0].centre_after > c[0].centre_before) == (k % 2));
    }
}

static void test_default__finds_nothing_in_noise(void **state)
{
    (void)state;
    double x[200];
    int found = 0;

    for (uint64_t k = 0; k < 200; k++) {
        make(x, 200, 1, 200, 0, k);
        found += count_of(x, 200, &usual);
    }
    assert_true(found <= 1); /* 0.2 are expected at p = 0.001 */
}

static void test_default__sees_a_regime_between_two_others(void **state)
{
    (void)state;
    double x[120];
    mp_change_point c[MOST];

    make(x, 120, 1, 120, 0, 1);
    for (int i = 60; i < 68; i++)
        x[i] += 6;
    assert_int_equal(find(x, 120, &usual, c), 2);
    assert_int_equal(c[0].index, 60);
    assert_int_equal(c[1].index, 68);
    assert_int_equal(c[1].before, 60);
}

static void test_default__takes_another_level_of_a_constant_for_a_change(void **state)
{
    (void)state;
    double x[23];
    mp_change_point c[MOST];

    for (int other = 0; other <= 3; other++) {
        for (int i = 0; i < 20 + other; i++)
            x[i] = i < 20 ? 0.1 : 0.7;
        assert_int_equal(find(x, 20 + other, &usual, c), other == 3);
    }
    assert_int_equal(c[0].index, 20);
    assert_true(c[0].p == 0 && c[0].centre_before == 0.1 && c[0].centre_after == 0.7);
    assert_true(c[0].low == 0.7 - 0.1 && c[0].high == 0.7 - 0.1);
    assert_int_equal(count_of(x + 15, 8, &usual), 1); /* 5 before, 3 behind */
    assert_int_equal(count_of(x + 16, 7, &usual), 0); /* 4 and 3: 2 / C(7, 3) is more than 5 % */
}

static void test_default__takes_no_spike_for_a_change(void **state)
{
    (void)state;
    double x[60];

    for (int at = 0; at < 60; at++)
        for (int width = 1; width <= 2 && at + width <= 60; width++) {
            make(x, 60, 1, 60, 0, 3);
            for (int i = at; i < at + width; i++)
                x[i] += 40;
            assert_int_equal(count_of(x, 60, &usual), 0);
            for (int i = 0; i < 60; i++)
                x[i] = i >= at && i < at + width ? 9 : 0.1;
            assert_int_equal(count_of(x, 60, &usual), 0);
        }
}

static void test_default__waits_for_min_segment_points(void **state)
{
    (void)state;
    double x[60];

    for (int shortest = 2; shortest <= 7; shortest++)
        for (int behind = 1; behind <= 8; behind++) {
            const mp_change_options o = {.min_segment = shortest, .p = 0.001};
            make(x, 50 + behind, 1, 50, 15, 4);
            assert_int_equal(count_of(x, 50 + behind, &o), behind >= shortest);
        }
}

static void test_default__needs_both_the_relative_and_the_absolute_effect(void **state)
{
    (void)state;
    double x[80];
    mp_change_options o = usual;

    make(x, 80, 0.1, 50, 2, 5); /* 2 % */
    o.effect = 0.01, o.floor = 1;
    assert_int_equal(count_of(x, 80, &o), 1);
    o.effect = 0.03, o.floor = 1;
    assert_int_equal(count_of(x, 80, &o), 0);
    o.effect = 0.01, o.floor = 3;
    assert_int_equal(count_of(x, 80, &o), 0);
}

/* One night in eight is far off, to either side: the deviation of all is 50 times that of most. */
static void test_default__sees_a_step_among_wild_spikes(void **state)
{
    (void)state;
    double x[90];
    mp_change_point c[MOST];

    for (uint64_t k = 0; k < 20; k++) {
        make(x, 90, 1, 60, 6, k);
        for (int i = 4; i < 90; i += 8)
            x[i] += uniform() < 0.5 ? 150 : -150;
        assert_int_equal(find(x, 90, &usual, c), 1);
        assert_in_range(c[0].index, 59, 61);
    }
}

/* How many of the seven steps between eight levels of 25 points are found within 3 points, over 100
 * series.  rare: instead of the noise, one point in ten is 1 higher. */
static int found_of_700(double step, bool rare)
{
    double x[200];
    mp_change_point c[MOST];
    int found = 0;

    for (uint64_t k = 0; k < 100; k++) {
        make(x, 200, rare ? 0 : 1, 200, 0, k);
        for (int i = 0; i < 200; i++)
            x[i] += (rare && uniform() < 0.1 ? 1 : 0) + (i / 25 % 2 ? step : 0);
        const int count = find(x, 200, &usual, c);
        for (int at = 25, i = 0; at < 200; at += 25) {
            while (i < count && c[i].index < at - 3)
                i++;
            found += i < count && c[i].index <= at + 3;
        }
    }
    return found;
}

/* The bounds are just below what is found: a level that was cut in two must be put together again,
 * not dropped, and values that are nearly constant have noise, too. */
static void test_default__finds_each_of_many_steps(void **state)
{
    (void)state;
    assert_in_range(found_of_700(2.25, false), 677, 700);
    assert_in_range(found_of_700(4.5, true), 698, 700);
}

/* Every tenth night is slow: three of them in a row are nothing new, although they are 5 standard
 * errors off. */
static void test_default__takes_a_rare_mode_for_no_level(void **state)
{
    (void)state;
    double x[63];

    make(x, 63, 0.01, 63, 0, 6);
    for (int i = 0; i < 63; i++)
        x[i] += i % 10 == 7 || i >= 60 ? 1 : 0;
    const mp_regimes r = {x, x + 60, 60, 3, 0};
    assert_true(mp_change_points__surprise(&r, 3) < 0.001);
    assert_int_equal(count_of(x, 63, &usual), 0);
}

static void correlated(double *x, int64_t n, double rho, uint64_t with)
{
    seed = with;
    for (int64_t i = 0; i < n; i++)
        x[i] = (i ? rho * x[i - 1] : 0) + noise();
}

static void test_default__is_not_misled_by_correlated_noise(void **state)
{
    (void)state;
    double x[200];
    int found = 0;

    for (uint64_t k = 0; k < 100; k++) {
        correlated(x, 200, 0.6, k);
        found += count_of(x, 200, &usual);
    }
    assert_true(found <= 5); /* 2; without the correction there are hundreds */
}

static void test_default__is_the_same_for_every_power_of_two(void **state)
{
    (void)state;
    static const int powers[] = {-1000, -1, 1, 40, 1000};
    double x[150], scaled[150];
    mp_change_point c[MOST], d[MOST];

    make(x, 150, 1, 60, -4, 7);
    for (int i = 90; i < 150; i++)
        x[i] += 0.2 * (i - 90); /* a ramp, too */
    const int count = find(x, 150, &usual, c);
    assert_true(count >= 2 && c[count - 1].trend);
    for (size_t k = 0; k < sizeof powers / sizeof *powers; k++) {
        for (int i = 0; i < 150; i++)
            scaled[i] = ldexp(x[i], powers[k]);
        assert_int_equal(find(scaled, 150, &usual, d), count);
        for (int i = 0; i < count; i++) {
            assert_int_equal(d[i].index, c[i].index);
            assert_true(d[i].p == c[i].p && d[i].trend == c[i].trend);
            assert_true(d[i].centre_before == ldexp(c[i].centre_before, powers[k]));
            assert_true(d[i].centre_after == ldexp(c[i].centre_after, powers[k]));
            assert_true(d[i].low == ldexp(c[i].low, powers[k]));
            assert_true(d[i].high == ldexp(c[i].high, powers[k]));
        }
    }
}

static void test_default__stands_the_largest_numbers(void **state)
{
    (void)state;
    double x[20];

    for (int i = 0; i < 20; i++)
        x[i] = i < 10 ? -1.7e308 : 1.7e308;
    assert_int_equal(count_of(x, 20, &usual), 1);
}

static void test_default__sees_a_step_behind_a_number_that_dwarfs_it(void **state)
{
    (void)state;
    double x[60];
    mp_change_point c[MOST];

    make(x, 60, 1, 40, 9, 8);
    x[0] = 1e17;
    assert_int_equal(find(x, 60, &usual, c), 1);
    assert_int_equal(c[0].index, 40);
}

static void test_default__does_not_mind_the_sign(void **state)
{
    (void)state;
    double x[100], negative[100];
    mp_change_point c[MOST], d[MOST];

    make(x, 100, 1, 70, 4, 8);
    for (int i = 0; i < 100; i++)
        negative[i] = -x[i];
    assert_int_equal(find(x, 100, &usual, c), 1);
    assert_int_equal(find(negative, 100, &usual, d), 1);
    assert_int_equal(d[0].index, c[0].index);
    assert_true(d[0].p == c[0].p && d[0].centre_after == -c[0].centre_after);
    assert_true(d[0].low == -c[0].high && d[0].high == -c[0].low);
}

/* ---- Default mode: its parts ---------------------------------------------------------------- */

/* scipy.stats.ttest_ind([1, 2, 3, 4], [5, 6, 7, 9, 8]): p = 0.0025176...; with both sizes 4 + 5
 * and shortest regimes of 3 there are 4 places. */
static void test_surprise__is_that_of_student_times_the_places(void **state)
{
    (void)state;
    const double x[] = {1, 2, 3, 4, 5, 6, 7, 9, 8};
    const mp_regimes r = {x, x + 4, 4, 5, 0};
    const double t = 4.5 / sqrt((5.0 + 10.0) / 7 * (1.0 / 4 + 1.0 / 5)); /* squares: 5 and 10 */
    assert_near(mp_change_points__surprise(&r, 3), 4 * 2 * gsl_cdf_tdist_Q(t, 7), 1e-12, "p", 0);
}

/* The variance of the difference of the means, summed over all pairs of points. */
static void test_surprise__knows_what_correlation_costs(void **state)
{
    (void)state;
    const double x[] = {1, 2, 3, 4, 5, 6, 7, 9, 8}, rho = 0.4;
    const mp_regimes r = {x, x + 4, 4, 5, rho};
    double factor = 0;

    for (int i = 0; i < 9; i++)
        for (int k = 0; k < 9; k++)
            factor +=
                (i < 4 ? -1.0 / 4 : 1.0 / 5) * (k < 4 ? -1.0 / 4 : 1.0 / 5) * pow(rho, abs(i - k));
    const double t = 4.5 / sqrt(15.0 / 7 * factor);
    const double freedom = 9 * (1 - rho * rho) / (1 + rho * rho) - 2;
    assert_near(mp_change_points__surprise(&r, 3), 4 * 2 * gsl_cdf_tdist_Q(t, freedom), 1e-12, "p",
                0);
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Against the sorted list of all differences, in series with ties. */
static void test_interval__is_of_hodges_and_lehmann(void **state)
{
    (void)state;
    double x[40], all[400], low, high;

    for (uint64_t k = 0; k < 200; k++) {
        const int n_a = 5 + (int)(k % 16), n_b = 3 + (int)(k % 7);
        make(x, n_a + n_b, 3, n_a, 5, k);
        for (int i = 0; i < n_a + n_b; i++)
            x[i] = k % 3 ? x[i] : rint(x[i]);
        for (int i = 0; i < n_a * n_b; i++)
            all[i] = x[n_a + i / n_a] - x[i % n_a];
        qsort(all, (size_t)(n_a * n_b), sizeof *all, by_value);
        /* 1.96 deviations of the rank sum about its middle */
        const double half = 1.96 * sqrt(n_a * n_b * (n_a + n_b + 1) / 12.0);
        const int at = (int)fmax(0, floor(n_a * n_b / 2.0 - half));
        const mp_regimes r = {x, x + n_a, n_a, n_b, 0};
        assert_int_equal(mp_change_points__interval(&r, &low, &high), MP_OK);
        assert_true(low == all[at] && high == all[n_a * n_b - 1 - at]);
    }
}

/* 95 % of 400 with a deviation of 1.1 %. */
static void test_default__gives_an_interval_that_holds_the_step(void **state)
{
    (void)state;
    double x[100];
    mp_change_point c[MOST];
    int held = 0;

    for (uint64_t k = 0; k < 400; k++) {
        make(x, 100, 1, 60, 10, k);
        assert_true(find(x, 100, &usual, c) >= 1);
        if (c[0].index != 60)
            continue; /* p = 0.001: one of 400 finds another one, too */
        const double shift = c[0].centre_after - c[0].centre_before;
        assert_true(c[0].low <= shift && shift <= c[0].high);
        held += c[0].low <= 10 && 10 <= c[0].high;
    }
    assert_true(held >= 364 && held <= 396); /* 91 .. 99 %: 2.7 deviations and those others */
}

/* ---- Default mode: ramps -------------------------------------------------------------------- */

static void test_trend__is_one_change_with_the_line_s_ends(void **state)
{
    (void)state;
    double x[130];
    mp_change_point c[MOST];

    for (uint64_t k = 0; k < 20; k++) {
        const double rise = k % 2 ? 12 : -12;
        make(x, 130, 1, 130, 0, k);
        for (int i = 60; i < 130; i++)
            x[i] += rise * fmin(1, (i - 59) / 40.0);
        assert_int_equal(find(x, 130, &usual, c), 1);
        assert_true(c[0].trend && c[0].before == 0 && c[0].p < 1e-6);
        assert_in_range(c[0].index, 50, 70);
        /* about 50 points on either side: 0.15 each, and what the place of the ends adds */
        assert_true(fabs(c[0].centre_before - 100) < 0.7);
        assert_true(fabs(c[0].centre_after - 100 - rise) < 0.7);
        assert_true(c[0].low < c[0].centre_after - c[0].centre_before);
        assert_true(c[0].high > c[0].centre_after - c[0].centre_before);
        assert_true(c[0].high - c[0].low < 2);
    }
}

static void test_trend__is_found_from_the_first_point_to_the_last(void **state)
{
    (void)state;
    double x[90];
    mp_change_point c[MOST];

    for (int i = 0; i < 90; i++)
        x[i] = i; /* without noise */
    assert_int_equal(find(x, 90, &usual, c), 1);
    assert_true(c[0].trend);
    assert_int_equal(c[0].index, 1);
    assert_true(fabs(c[0].centre_after - 89) < 1e-9);
}

static void test_trend__is_no_step_and_no_stair(void **state)
{
    (void)state;
    double x[150];
    mp_change_point c[MOST];

    for (uint64_t k = 0; k < 50; k++) {
        make(x, 150, 1, 50, 4, k);
        for (int i = 100; i < 150; i++)
            x[i] += 4;
        const int count = find(x, 150, &usual, c);
        assert_in_range(count, 2, 3); /* p = 0.001: one more in one of 50 */
        for (int i = 0; i < count; i++)
            assert_false(c[i].trend);
        assert_in_range(c[count - 1].index, 98, 102);
        make(x, 53, 1, 50, 6, k); /* one step, only just there */
        assert_true(find(x, 53, &usual, c) <= 1 && !c[0].trend);
    }
}

/* ---- Default mode: refusals ----------------------------------------------------------------- */

static void refuses(const double *x, int64_t n, mp_change_options o, mp_code code, const char *part)
{
    mp_change_point *c;
    mp_error err = {0};
    int count;

    assert_int_equal(mp_change_points(x, n, &o, &c, &count, &err), code);
    if (!strstr(err.text, part))
        fail_msg("\"%s\" does not say \"%s\"", err.text, part);
}

static void test_default__refuses_what_means_nothing(void **state)
{
    (void)state;
    const double x[] = {1, 2, 3}, infinite[] = {1, -INFINITY, 3}, none[] = {NAN};

    refuses(infinite, 3, usual, MP_ENUMERIC, "point 2 of 3 is -inf");
    refuses(none, 1, usual, MP_ENUMERIC, "point 1 of 1 is nan");
    refuses(x, -1, usual, MP_EUSAGE, "-1 points");
    refuses(x, 3, (mp_change_options){.min_segment = 0, .p = 0.001}, MP_EUSAGE, "0 points");
    refuses(x, 3, (mp_change_options){.min_segment = 3, .p = 0}, MP_EUSAGE, "p is 0");
    refuses(x, 3, (mp_change_options){.min_segment = 3, .p = NAN}, MP_EUSAGE, "p is nan");
    refuses(x, 3, (mp_change_options){.min_segment = 3, .p = 0.1, .effect = -1}, MP_EUSAGE,
            "effect is -1");
    refuses(x, 3, (mp_change_options){.min_segment = 3, .p = 0.1, .floor = NAN}, MP_EUSAGE,
            "floor nan");
}

static void test_default__finds_nothing_in_a_few_points(void **state)
{
    (void)state;
    static const double x[] = {1, 1, 1, 9, 9, 9};

    for (int64_t n = 0; n <= 6; n++)
        assert_int_equal(count_of(x, n, &usual), 0);
}

static void test_change_points__say_that_memory_is_short(void **state)
{
    (void)state;
    double x[100];
    mp_change_point *c;
    int count;
    mp_code code[2] = {MP_ENOMEM, MP_ENOMEM};

    make(x, 100, 0, 60, 5, 9); /* without noise both modes find the one */
    for (int mode = 0; mode < 2; mode++) {
        uint64_t at = 0;
        while (code[mode]) {
            mp_error err = {0};
            mp_memory_fail_at(++at);
            code[mode] =
                mode ? mp_change_points(x, 100, &usual, &c, &count, &err)
                     : mp_change_points_otava(x, 100, &(mp_otava_options){.window = 50, .p = 0.001},
                                              &c, &count, &err);
            assert_true(code[mode] == err.code);
            assert_true(!code[mode] || (code[mode] == MP_ENOMEM && strstr(err.text, "no memory")));
        }
        mp_memory_fail_at(0);
        assert_true(at > 4); /* each of the requests failed once */
        assert_int_equal(count, 1);
        mp_free(c);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_otava__is_equal_index_for_index),
        cmocka_unit_test(test_otava__finds_nothing_in_no_points),
        cmocka_unit_test(test_otava__refuses_what_it_cannot_split),
        cmocka_unit_test(test_default__finds_a_step_where_it_is),
        cmocka_unit_test(test_default__finds_nothing_in_noise),
        cmocka_unit_test(test_default__sees_a_regime_between_two_others),
        cmocka_unit_test(test_default__takes_another_level_of_a_constant_for_a_change),
        cmocka_unit_test(test_default__takes_no_spike_for_a_change),
        cmocka_unit_test(test_default__waits_for_min_segment_points),
        cmocka_unit_test(test_default__needs_both_the_relative_and_the_absolute_effect),
        cmocka_unit_test(test_default__sees_a_step_among_wild_spikes),
        cmocka_unit_test(test_default__finds_each_of_many_steps),
        cmocka_unit_test(test_default__takes_a_rare_mode_for_no_level),
        cmocka_unit_test(test_default__is_not_misled_by_correlated_noise),
        cmocka_unit_test(test_default__is_the_same_for_every_power_of_two),
        cmocka_unit_test(test_default__stands_the_largest_numbers),
        cmocka_unit_test(test_default__sees_a_step_behind_a_number_that_dwarfs_it),
        cmocka_unit_test(test_default__does_not_mind_the_sign),
        cmocka_unit_test(test_surprise__is_that_of_student_times_the_places),
        cmocka_unit_test(test_surprise__knows_what_correlation_costs),
        cmocka_unit_test(test_interval__is_of_hodges_and_lehmann),
        cmocka_unit_test(test_default__gives_an_interval_that_holds_the_step),
        cmocka_unit_test(test_trend__is_one_change_with_the_line_s_ends),
        cmocka_unit_test(test_trend__is_found_from_the_first_point_to_the_last),
        cmocka_unit_test(test_trend__is_no_step_and_no_stair),
        cmocka_unit_test(test_default__refuses_what_means_nothing),
        cmocka_unit_test(test_default__finds_nothing_in_a_few_points),
        cmocka_unit_test(test_change_points__say_that_memory_is_short),
    };
    if (argc > 1)
        golden = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
