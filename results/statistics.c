#include "results/statistics.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <gsl/gsl_cdf.h>

#include "kernels/core/memory.h"

/* Up to so many differences, all ways to give them signs are counted: 2^50 is an exact double. */
enum { EXACT_SIGNS = 50 };

/* Up to this n_a * n_b the null distribution is counted: 20 against 20 is C(40, 20) = 1.4e11
 * samples, so every count is an exact double. */
enum { EXACT_PAIRS = 400 };

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static bool has_nan(const double *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (isnan(x[i]))
            return true;
    return false;
}

void mp_sort(double *x, int64_t n)
{
    if (n)
        qsort(x, (size_t)n, sizeof *x, by_value);
}

double mp_median(const double *x, int64_t n)
{
    if (n <= 0 || has_nan(x, n))
        return NAN;
    double *sorted = mp_alloc((size_t)n, sizeof *sorted);
    if (!sorted)
        return NAN;
    memcpy(sorted, x, (size_t)n * sizeof *sorted);
    mp_sort(sorted, n);
    const double low = sorted[(n - 1) / 2], high = sorted[n / 2];
    mp_free(sorted);
    return low == high ? low : low / 2 + high / 2; /* two infinities, or a sum beyond the largest */
}

/* One value of the pooled sample.  Ranks are doubled, so that the mean rank of a tie is whole. */
typedef struct ranked {
    double value;
    int64_t rank2;
    bool first; /* of the first sample */
} ranked;

static int by_ranked_value(const void *a, const void *b)
{
    return by_value(&((const ranked *)a)->value, &((const ranked *)b)->value);
}

/* Sorts, ranks, and returns the sum of t^3 - t over groups of t equal values. */
static double rank_pool(ranked *pool, int64_t n)
{
    double ties = 0;
    qsort(pool, (size_t)n, sizeof *pool, by_ranked_value);
    for (int64_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && pool[end].value == pool[i].value;)
            end++;
        const double t = (double)(end - i);
        ties += t * t * t - t;
        for (int64_t k = i; k < end; k++)
            pool[k].rank2 = i + 1 + end; /* twice the mean of ranks i + 1 .. end */
    }
    return ties;
}

/* counts[k * width + s]: choices of k pooled values whose doubled ranks sum to s. */
static void count_choices(double *counts, int64_t width, const ranked *pool, int64_t n, int64_t m)
{
    counts[0] = 1;
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = i + 1 < m ? i + 1 : m; k > 0; k--) { /* downwards: each value once */
            const double *from = counts + (k - 1) * width;
            double *to = counts + k * width;
            for (int64_t s = pool[i].rank2; s < width; s++)
                to[s] += from[s - pool[i].rank2];
        }
}

/* Twice the smaller tail of all ways to choose m of the n pooled values: the permutation test of
 * the rank sum.  With ties it is not symmetric, hence the minimum. */
static double exact_p(const ranked *pool, int64_t n, int64_t m, int64_t observed)
{
    const int64_t width = 2 * n * m + 1; /* no rank exceeds n */
    double *counts = mp_alloc((size_t)((m + 1) * width), sizeof *counts);
    if (!counts)
        return NAN;
    count_choices(counts, width, pool, n, m);
    const double *last = counts + m * width;
    double all = 0, below = 0, above = 0;
    for (int64_t s = 0; s < width; s++) {
        all += last[s];
        below += s <= observed ? last[s] : 0;
        above += s >= observed ? last[s] : 0;
    }
    mp_free(counts);
    return fmin(1, 2 * fmin(below, above) / all);
}

/* distance: |U - n_a n_b / 2|; ties as rank_pool gives them. */
static double normal_p(double distance, double n_a, double n_b, double ties)
{
    const double n = n_a + n_b;
    const double variance = n_a * n_b / 12 * (n + 1 - ties / (n * (n - 1)));
    if (!(variance > 0))
        return 1;                                       /* all values are equal */
    const double z = (distance - 0.5) / sqrt(variance); /* U moves in steps of one: continuity */
    return fmin(1, 2 * gsl_cdf_ugaussian_Q(z));
}

static bool small_enough(int64_t n_a, int64_t n_b)
{
    return n_a <= EXACT_PAIRS / n_b;
}

static double pooled_p(ranked *pool, int64_t n_a, int64_t n_b)
{
    const int64_t n = n_a + n_b;
    const double ties = rank_pool(pool, n);
    int64_t sum_a = 0, sum_b = 0;
    for (int64_t i = 0; i < n; i++)
        *(pool[i].first ? &sum_a : &sum_b) += pool[i].rank2;
    if (small_enough(n_a, n_b)) /* the smaller sample: a smaller table, the same p */
        return n_a <= n_b ? exact_p(pool, n, n_a, sum_a) : exact_p(pool, n, n_b, sum_b);
    const double a = (double)n_a, b = (double)n_b;
    const double u = (double)sum_a / 2 - a * (a + 1) / 2;
    return normal_p(fabs(u - a * b / 2), a, b, ties);
}

double mp_mann_whitney(const double *a, int64_t n_a, const double *b, int64_t n_b)
{
    if (n_a <= 0 || n_b <= 0)
        return 1;
    if (has_nan(a, n_a) || has_nan(b, n_b))
        return NAN;
    ranked *pool = mp_alloc((size_t)n_a + (size_t)n_b, sizeof *pool);
    if (!pool)
        return NAN;
    for (int64_t i = 0; i < n_a; i++)
        pool[i] = (ranked){.value = a[i], .first = true};
    for (int64_t i = 0; i < n_b; i++)
        pool[n_a + i] = (ranked){.value = b[i]};
    const double p = pooled_p(pool, n_a, n_b);
    mp_free(pool);
    return p;
}

double mp_mann_whitney_floor(int64_t n_a, int64_t n_b)
{
    if (n_a <= 0 || n_b <= 0)
        return 1;
    const double a = (double)n_a, b = (double)n_b;
    if (!small_enough(n_a, n_b))
        return normal_p(a * b / 2, a, b, 0);
    double choices = 1; /* C(n_a + n_b, n_b): whole after every step */
    for (int64_t k = 1; k <= n_b; k++)
        choices = choices * (a + (double)k) / (double)k;
    return fmin(1, 2 / choices);
}

/* ---- the median's interval ------------------------------------------------------------------ */

mp_interval mp_median_interval(const double *x, int64_t n)
{
    mp_interval out = {NAN, NAN};
    int64_t k = 0; /* the k + 1st smallest and largest */

    /* Fewer than 6 values: even the smallest and the largest are too near. */
    if (n < 1 || n > INT32_MAX || has_nan(x, n) ||
        2 * gsl_cdf_binomial_P(0, 0.5, (unsigned)n) > 0.05)
        return out;
    double *sorted = mp_alloc((size_t)n, sizeof *sorted);
    if (!sorted)
        return out;
    memcpy(sorted, x, (size_t)n * sizeof *sorted);
    mp_sort(sorted, n);
    while (2 * gsl_cdf_binomial_P((unsigned)k + 1, 0.5, (unsigned)n) <= 0.05)
        k++;
    out = (mp_interval){sorted[k], sorted[n - 1 - k]};
    mp_free(sorted);
    return out;
}

/* ---- paired differences --------------------------------------------------------------------- */

/* Ways to give signs to the n ranks such that the positive ones sum to at most `least`, or at least
 * to the rest: twice one tail, since the two are mirror images. */
static double exact_signed_p(const ranked *d, int64_t n, int64_t least)
{
    double *counts = mp_alloc((size_t)least + 1, sizeof *counts); /* by sum of doubled ranks */
    double tail = 0;

    if (!counts)
        return NAN;
    counts[0] = 1;
    for (int64_t i = 0; i < n; i++)
        for (int64_t s = least; s >= d[i].rank2; s--) /* downwards: each rank once */
            counts[s] += counts[s - d[i].rank2];
    for (int64_t s = 0; s <= least; s++)
        tail += counts[s];
    mp_free(counts);
    return fmin(1, 2 * ldexp(tail, -(int)n));
}

/* The ranks' signs are fair coins: the sum's variance is a quarter of the sum of their squares. */
static double normal_signed_p(const ranked *d, int64_t n, int64_t least)
{
    double sum = 0, squares = 0;

    for (int64_t i = 0; i < n; i++) {
        const double rank = (double)d[i].rank2 / 2;
        sum += rank;
        squares += rank * rank;
    }
    const double z = (sum / 2 - (double)least / 2 - 0.5) / sqrt(squares / 4);
    return fmin(1, 2 * gsl_cdf_ugaussian_Q(z));
}

double mp_wilcoxon(const double *d, int64_t n, double *balance)
{
    int64_t zeros = 0, up = 0, down = 0;

    *balance = 0;
    if (n <= 0)
        return 1;
    if (has_nan(d, n))
        return NAN;
    ranked *pool = mp_alloc((size_t)n, sizeof *pool);
    if (!pool)
        return NAN;
    for (int64_t i = 0; i < n; i++) {
        pool[i] = (ranked){.value = fabs(d[i]), .first = d[i] > 0};
        zeros += d[i] == 0;
    }
    rank_pool(pool, n); /* the zeros come first, and are left out from here on */
    for (int64_t i = zeros; i < n; i++)
        *(pool[i].first ? &up : &down) += pool[i].rank2;
    const int64_t least = up < down ? up : down, rest = n - zeros;
    const double p = !rest                 ? 1
                     : rest <= EXACT_SIGNS ? exact_signed_p(pool + zeros, rest, least)
                                           : normal_signed_p(pool + zeros, rest, least);
    if (rest)
        *balance = (double)(up - down) / (double)(up + down);
    mp_free(pool);
    return p;
}

double mp_wilcoxon_floor(int64_t n)
{
    return n <= 0 ? 1 : fmin(1, ldexp(1, (int)(1 - (n < 1000 ? n : 1000))));
}

/* ---- many tests ----------------------------------------------------------------------------- */

typedef struct tested {
    double p;
    int64_t at;
} tested;

static int by_p(const void *a, const void *b)
{
    return by_value(&((const tested *)a)->p, &((const tested *)b)->p);
}

void mp_benjamini_hochberg(const double *p, int64_t n, double *q)
{
    tested *tests = mp_alloc((size_t)n, sizeof *tests);
    int64_t m = 0;
    double least = 1;

    for (int64_t i = 0; i < n; i++) {
        if (tests && !isnan(p[i]))
            tests[m++] = (tested){p[i], i};
        q[i] = NAN;
    }
    if (m)
        qsort(tests, (size_t)m, sizeof *tests, by_p);
    for (int64_t k = m; k > 0; k--) { /* from the largest: q never falls as p grows */
        least = fmin(least, tests[k - 1].p * (double)m / (double)k);
        q[tests[k - 1].at] = least;
    }
    mp_free(tests);
}
