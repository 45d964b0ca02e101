/* Is it a step, and how large is it?  Two witnesses must agree.  Student's t, of noise that may be
 * correlated, says how surprising the difference of the means is; spikes and rare modes mislead it.
 * Medians and ranks are not misled, but a few points give them little to say: so they only must not
 * object. */
#include <math.h>
#include <string.h>

#include <gsl/gsl_cdf.h>

#include "kernels/core/memory.h"
#include "results/change_points_parts.h"
#include "results/statistics.h"

static double mean(const double *x, int64_t n)
{
    double all = 0;
    for (int64_t i = 0; i < n; i++)
        all += x[i];
    return all / (double)n;
}

static double squares(const double *x, int64_t n, double centre)
{
    double all = 0;
    for (int64_t i = 0; i < n; i++)
        all += (x[i] - centre) * (x[i] - centre);
    return all;
}

/* Variance of the mean of n points, in variances of a point. */
static double of_mean(double n, double rho)
{
    const double r = 1 - rho;
    return ((1 + rho) / r - 2 * rho * (1 - pow(rho, n)) / (n * r * r)) / n;
}

/* The same of the difference of the means, which share what the last of a carries on to b. */
static double of_difference(double n_a, double n_b, double rho)
{
    const double r = 1 - rho;
    const double shared = rho * (1 - pow(rho, n_a)) * (1 - pow(rho, n_b)) / (r * r * n_a * n_b);
    return of_mean(n_a, rho) + of_mean(n_b, rho) - 2 * shared;
}

double mp_change_points__surprise(const mp_regimes *r, int min_segment)
{
    const double mean_a = mean(r->a, r->n_a), mean_b = mean(r->b, r->n_b);
    const double n_a = (double)r->n_a, n_b = (double)r->n_b, n = n_a + n_b, rho = r->rho;
    const double variance =
        (squares(r->a, r->n_a, mean_a) + squares(r->b, r->n_b, mean_b)) / (n - 2);
    const double t = (mean_b - mean_a) / sqrt(variance * of_difference(n_a, n_b, rho));
    /* Correlated points say less about the variance, too. */
    const double freedom = fmax(1, n * (1 - rho * rho) / (1 + rho * rho) - 2);
    const double places = n - 2 * min_segment + 1;

    if (isnan(t)) /* no difference and no noise */
        return 1;
    return fmin(1, places * gsl_cdf_beta_P(freedom / (freedom + t * t), freedom / 2, 0.5));
}

/* Points nearer to their own centre than to the other. */
static int64_t loyal(const double *x, int64_t n, double own, double other)
{
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++)
        count += fabs(x[i] - own) < fabs(x[i] - other);
    return count;
}

/* No value of one regime reaches the other. */
static bool apart(const mp_regimes *r)
{
    double least_a = r->a[0], most_a = r->a[0], least_b = r->b[0], most_b = r->b[0];

    for (int64_t i = 1; i < r->n_a; i++) {
        least_a = fmin(least_a, r->a[i]);
        most_a = fmax(most_a, r->a[i]);
    }
    for (int64_t i = 1; i < r->n_b; i++) {
        least_b = fmin(least_b, r->b[i]);
        most_b = fmax(most_b, r->b[i]);
    }
    return most_a < least_b || most_b < least_a;
}

/* Of regimes that lie apart ranks cannot say more: then 5 % of all orders is little enough, which
 * 3 points behind 5 are.  *yes is set. */
static mp_code ranks_agree(const mp_regimes *r, double p, bool *yes)
{
    const double ranks = apart(r) ? mp_mann_whitney_floor(r->n_a, r->n_b) / 0.05 * p
                                  : mp_mann_whitney(r->a, r->n_a, r->b, r->n_b);
    *yes = ranks <= p;
    return isnan(ranks) ? MP_ENOMEM : MP_OK;
}

mp_code mp_change_points__confirm(const mp_regimes *r, int min_segment, double least, double p,
                                  bool *yes)
{
    const double a = mp_median(r->a, r->n_a), b = mp_median(r->b, r->n_b);

    *yes = false;
    if (isnan(a) || isnan(b))
        return MP_ENOMEM;
    if (!(fabs(b - a) > least) || loyal(r->a, r->n_a, a, b) < min_segment ||
        loyal(r->b, r->n_b, b, a) < min_segment)
        return MP_OK;
    return ranks_agree(r, p, yes);
}

/* How many of all differences b - a are less than d; a and b are sorted. */
static int64_t less_than(const double *a, int64_t n_a, const double *b, int64_t n_b, double d)
{
    int64_t count = 0;
    for (int64_t i = 0, k = 0; k < n_b; k++) {
        while (i < n_a && b[k] - a[i] >= d)
            i++;
        count += n_a - i;
    }
    return count;
}

/* The k-th smallest (from 0) of all differences b - a, by bisection to the last bit. */
static double difference_at(const double *a, int64_t n_a, const double *b, int64_t n_b, int64_t k)
{
    double low = b[0] - a[n_a - 1], high = b[n_b - 1] - a[0]; /* low <= the one sought <= high */
    for (;;) {
        const double middle = low + (high - low) / 2;
        if (middle <= low || middle >= high) /* neighbours */
            return less_than(a, n_a, b, n_b, high) <= k ? high : low;
        if (less_than(a, n_a, b, n_b, middle) <= k)
            low = middle;
        else
            high = middle;
    }
}

mp_code mp_change_points__interval(const mp_regimes *r, double *low, double *high)
{
    const double n_a = (double)r->n_a, n_b = (double)r->n_b, n = n_a + n_b;
    /* Of the rank sum, by how much correlation widens the mean's. */
    const double wider = of_difference(n_a, n_b, r->rho) / of_difference(n_a, n_b, 0);
    const double half = 1.96 * sqrt(wider * n_a * n_b * (n + 1) / 12);
    const int64_t k = (int64_t)fmax(0, floor(n_a * n_b / 2 - half));
    double *a = mp_alloc((size_t)r->n_a + (size_t)r->n_b, sizeof *a), *b = a + r->n_a;

    if (!a)
        return MP_ENOMEM;
    memcpy(a, r->a, (size_t)r->n_a * sizeof *a);
    memcpy(b, r->b, (size_t)r->n_b * sizeof *b);
    mp_sort(a, r->n_a);
    mp_sort(b, r->n_b);
    *low = difference_at(a, r->n_a, b, r->n_b, k);
    *high = difference_at(a, r->n_a, b, r->n_b, r->n_a * r->n_b - 1 - k);
    mp_free(a);
    return MP_OK;
}
