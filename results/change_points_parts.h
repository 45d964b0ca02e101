/* Between the files of results/change_points*.c.
 *
 * The default mode works on the series less its median, times a power of two: all its numbers are
 * of the order of 1. */
#ifndef MP_RESULTS_CHANGE_POINTS_PARTS_H
#define MP_RESULTS_CHANGE_POINTS_PARTS_H

#include "results/change_points.h"

/* MP_ENUMERIC for a value that is not finite, MP_EUSAGE for a negative n. */
mp_code mp_change_points__check(const double *x, int64_t n, mp_error *err);

/* Two neighbouring regimes: a[n_a], and b[n_b] behind it. */
typedef struct mp_regimes {
    const double *a, *b;
    int64_t n_a, n_b;
    double rho; /* correlation of the noise from one point to the next, 0 .. 0.9 */
} mp_regimes;

/* p of the difference of the levels, adjusted for the choice of the place among all that
 * min_segment allows. */
double mp_change_points__surprise(const mp_regimes *r, int min_segment);

/* Whether what outliers cannot feign agrees: both regimes have min_segment points that are nearer
 * to their own median than to the other, the medians are more than `least` apart, and ranks tell
 * the regimes apart at p.  MP_ENOMEM without memory. */
mp_code mp_change_points__confirm(const mp_regimes *r, int min_segment, double least, double p,
                                  bool *yes);

/* 95 % interval of the shift from a to b, by Hodges and Lehmann. */
mp_code mp_change_points__interval(const mp_regimes *r, double *low, double *high);

/* Steps of one direction that a ramp explains better become one change with trend set, in place;
 * their new count.  Centres and interval of a ramp are in the units of y, those of steps are not
 * touched.  scratch: 2 (n + 1). */
int mp_change_points__trends(const double *y, int64_t n, int min_segment, double rho,
                             mp_change_point *c, int count, double *scratch);

#endif
