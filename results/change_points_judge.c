/* Is it a step, and how large is it?  Two witnesses must agree.  Student's t (of noise that may be
 * correlated) says how surprising the difference of the means is; it is misled by heavy tails and
 * by rare modes.  Ranks are not, but few points give them little to say: so they only must not
 * object. */
#include <math.h>
#include <stdlib.h>
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

/* Variance of the mean of n points over that of a point, where one carries rho on to the next. */
static double of_mean(double n, double rho)
{
    const double r = 1 - rho;
    return ((1 + rho) / r - 2 * rho * (1 - pow(rho, n)) / (n * r * r)) / n;
}

/* The same for the difference of the means of a and of b, which follow one another. */
static double of_difference(double n_a, double n_b, double rho)
{
    const double r = 1 - rho;
    const double shared = rho * (1 - pow(rho, n_a)) * (1 - pow(rho, n_b)) / (r * r * n_a * n_b);
    return of_mean(n_a, rho) + of_mean(n_b, rho) - 2 * shared;
}

static double t_test(const double *a, int64_t n_a, const double *b, int64_t n_b, double rho)
{
    const double mean_a = mean(a, n_a), mean_b = mean(b, n_b), n = (double)(n_a + n_b);
    const double variance = (squares(a, n_a, mean_a) + squares(b, n_b, mean_b)) / (n - 2);
    const double t =
        (mean_b - mean_a) / sqrt(variance * of_difference((double)n_a, (double)n_b, rho));
    /* Correlated points say less about the variance, too. */
    const double freedom = fmax(1, n * (1 - rho * rho) / (1 + rho * rho) - 2);

    return isnan(t) ? 1 : gsl_cdf_beta_P(freedom / (freedom + t * t), freedom / 2, 0.5);
}

static bool apart(const double *a, int64_t n_a, const double *b, int64_t n_b)
{
    double least_a = a[0], most_a = a[0], least_b = b[0], most_b = b[0];
    for (int64_t i = 1; i < n_a; i++)
        least_a = fmin(least_a, a[i]), most_a = fmax(most_a, a[i]);
    for (int64_t i = 1; i < n_b; i++)
        least_b = fmin(least_b, b[i]), most_b = fmax(most_b, b[i]);
    return most_a < least_b || most_b < least_a;
}

/* Where no value of one side reaches the other, 5 % of all orders of so few points are enough. */
static bool ranks_agree(const double *a, int64_t n_a, const double *b, int64_t n_b, double p)
{
    if (apart(a, n_a, b, n_b))
        return mp_mann_whitney_floor(n_a, n_b) <= 0.05;
    return mp_mann_whitney(a, n_a, b, n_b) <= p;
}

mp_step mp_change_points__judge(const double *a, int64_t n_a, const double *b, int64_t n_b,
                                double rho, int min_segment, double p_rank)
{
    const double places = (double)(n_a + n_b - 2 * min_segment + 1);
    mp_step s = {.centre_a = mp_median(a, n_a), .centre_b = mp_median(b, n_b), .p = NAN};

    if (isnan(s.centre_a) || isnan(s.centre_b))
        return s;
    s.p = fmin(1, places * t_test(a, n_a, b, n_b, rho));
    if (s.p <= p_rank && !ranks_agree(a, n_a, b, n_b, p_rank))
        s.p = 1;
    return s;
}

