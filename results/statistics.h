/* Order statistics for samples of time and memory; distributions come from GSL.  Without memory, or
 * with a NaN among the samples, they are NaN. */
#ifndef MP_RESULTS_STATISTICS_H
#define MP_RESULTS_STATISTICS_H

#include <stdint.h>

double mp_median(const double *x, int64_t n); /* NaN for none; x is not changed */

/* Two-sided Mann-Whitney U: exact by counting (ties by permutation of the pooled ranks) for
 * n_a * n_b up to 400, else the normal approximation with tie and continuity corrections.  Twice
 * the smaller tail.  p = 1 when it cannot tell: an empty sample, all values equal. */
double mp_mann_whitney(const double *a, int64_t n_a, const double *b, int64_t n_b);

/* The smallest two-sided p that sizes n_a and n_b can give: tells "noise" from "too few samples".
 */
double mp_mann_whitney_floor(int64_t n_a, int64_t n_b);

/* Benjamini and Hochberg, 1995: q[i] is the smallest share of false discoveries at which p[i] is
 * one of them.  A NaN is no test, and stays one.  q may be p.  Without memory all q are NaN. */
void mp_benjamini_hochberg(const double *p, int64_t n, double *q);

#endif
