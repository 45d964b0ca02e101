/* What a database has of a pool of pairs: how its cells ended, and their numbers by metric. */
#ifndef MP_RESULTS_COMPARE_MEASURE_H
#define MP_RESULTS_COMPARE_MEASURE_H

#include "results/compare_select.h"

typedef struct mp_numbers {
    double *x;
    int64_t n, room;
} mp_numbers;

/* A metric of both sides. */
typedef struct mp_measure {
    char metric[64], unit[16];
    /* Of each pair that has it: the newest good cell of either side, the noise of their reference
     * (0: none, or not known), and which pair it is, counted from the pool's first. */
    mp_numbers a, b, noise, pair;
    mp_numbers all_a, all_b; /* of all good cells */
    double limit;            /* how much worse b may be, relatively; NaN: nothing is said */
} mp_measure;

/* How the cells of one side ended. */
typedef struct mp_ending {
    int cells, failed;
    char status[80]; /* "ok"; of several cells "11 ok, 1 error" */
    char *error;     /* of the first that failed, "" for none */
} mp_ending;

typedef struct mp_measures {
    mp_ending a, b;
    int newly_failing, fixed, failing_both; /* pairs; a side fails where one of its cells does */
    int good;                               /* pairs with a good cell on both sides */
    bool *same_reference, *same_bits;       /* of each pair */
    mp_measure *items;                      /* by name */
    int count;
    mp_numbers seconds_a, seconds_b; /* of all repeats of all good cells */
} mp_measures;

typedef struct mp_measurer mp_measurer;

/* NULL: an error.  metric: that one alone; NULL: all that are no context (results/metric_kind.h).
 */
mp_measurer *mp_measurer_create(mp_store *s, const char *metric, mp_error *err);
void mp_measurer_free(mp_measurer *m); /* NULL is fine */
mp_code mp_measure_pool(mp_measurer *m, const mp_selection *s, const mp_pool *pool,
                        mp_measures *out, mp_error *err);
void mp_measures_free(mp_measures *m);

#endif
