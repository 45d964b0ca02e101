/* Between the files of results/change_points*.c. */
#ifndef MP_RESULTS_CHANGE_POINTS_PARTS_H
#define MP_RESULTS_CHANGE_POINTS_PARTS_H

#include "results/change_points.h"

/* MP_ENUMERIC for a value that is no number, MP_EUSAGE for a negative n. */
mp_code mp_change_points__check(const double *x, int64_t n, mp_error *err);

/* How surprising the step from a[n_a] to b[n_b] is, and how large it may be.  rho: correlation of
 * a point with the next one.  NaN without memory. */
typedef struct mp_step {
    double centre_a, centre_b; /* medians */
    double p;                  /* adjusted for the choice of the place; 1: no step */
} mp_step;

/* min_segment as in mp_change_options; p_rank: what the ranks must show. */
mp_step mp_change_points__judge(const double *a, int64_t n_a, const double *b, int64_t n_b,
                                double rho, int min_segment, double p_rank);

/* 95 % interval of the shift from a to b by Hodges and Lehmann; NaN without memory. */
void mp_change_points__interval(const double *a, int64_t n_a, const double *b, int64_t n_b,
                                double rho, double *low, double *high);

#endif
