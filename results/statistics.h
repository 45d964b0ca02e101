/* Order statistics for samples of time, memory and drift; distributions come from GSL.  Without
 * memory, or with a NaN among the samples, they are NaN. */
#ifndef MP_RESULTS_STATISTICS_H
#define MP_RESULTS_STATISTICS_H

#include <stdint.h>

void mp_sort(double *x, int64_t n);           /* ascending; no NaN among them */
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

/* Where the median of what x is a sample of lies with 95 % or more: between two values of x, by the
 * binomial distribution.  NaN below 6 values, where no two are far enough apart. */
typedef struct mp_interval {
    double low, high;
} mp_interval;
mp_interval mp_median_interval(const double *x, int64_t n);

/* Two-sided Wilcoxon signed-rank test of paired differences.  Zeros are ranked and then left out
 * (Pratt), so that differences which all grow cannot become less significant, as they can where
 * zeros are dropped first.  Up to 50 other ones all signs are counted, whatever the ties, else the
 * normal approximation with tie and continuity corrections.  *balance is the rank-biserial
 * correlation: 1 if all differences are positive, -1 if all are negative.  p = 1 for nothing but
 * zeros. */
double mp_wilcoxon(const double *d, int64_t n, double *balance);
/* The smallest p that n differences other than 0 can give. */
double mp_wilcoxon_floor(int64_t n);

#endif
