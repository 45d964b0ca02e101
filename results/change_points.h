/* Change points of a series of numbers.
 *
 * Two modes.  The first equals Apache Otava 0.8 (Hunter, arXiv 2301.03034) index for index, for
 * those who compare with it: E-divisive means (arXiv 1306.4933) over windows, weak change points by
 * Student's t, and a merge step.  The second is what `mpbench regressions` uses; CHANGE_POINTS.md
 * says how it works and how the two compare. */
#ifndef MP_RESULTS_CHANGE_POINTS_H
#define MP_RESULTS_CHANGE_POINTS_H

#include <stdint.h>

#include "kernels/core/status.h"

typedef struct mp_change_point {
    int64_t index;  /* first point of the new regime */
    int64_t before; /* first point of the old regime; the new one ends at the next change point */
    double centre_before, centre_after; /* Otava: means; default mode: medians, or a ramp's ends */
    double low, high; /* 95 % interval of centre_after - centre_before; NaN: not known (Otava) */
    double p;         /* default mode: adjusted for the choice of the place; 0: without noise */
    bool trend;       /* a ramp rather than a step; its place is taken for known by the interval */
} mp_change_point;

typedef struct mp_otava_options {
    int window;       /* points; 50 */
    double p;         /* 0.001 */
    double magnitude; /* relative; 0 */
} mp_otava_options;

/* x[n], finite.  *out [*count] in order of index (mp_free). */
mp_code mp_change_points_otava(const double *x, int64_t n, const mp_otava_options *o,
                               mp_change_point **out, int *count, mp_error *err);

typedef struct mp_change_options {
    int min_segment; /* points that a regime must have, none of them a spike; 3 */
    double p;        /* of a change point; 0.001 */
    double effect;   /* a smaller relative change matters to nobody */
    double floor;    /* nor does a smaller absolute one */
} mp_change_options;

/* The same, whatever power of two x is multiplied by.  O(n^2): 0.1 ms for a year of noise. */
mp_code mp_change_points(const double *x, int64_t n, const mp_change_options *o,
                         mp_change_point **out, int *count, mp_error *err);

#endif
