/* `mpbench compare A B`: which is better, by how much, and is it more than noise. */
#ifndef MP_RESULTS_COMPARE_H
#define MP_RESULTS_COMPARE_H

#include <stdio.h>

#include "results/query.h"

typedef struct mp_compare_options {
    const char *a, *b;  /* a dtype, a label, a run id or uuid, or KEY=VAL[,KEY=VAL] */
    const char *metric; /* only this one; NULL: the usual set */
    bool fail_on_worse;
    bool color;
    mp_format format;
} mp_compare_options;

/* Prints both columns, ratio and verdict for each scenario and pair of cells that differ in nothing
 * but the selected keys; drift is exact, time goes through a rank test over the samples.
 * *exit_status is DESIGN's: 0; with fail_on_worse 1 (worse) or 4 (inconclusive); 2 when a selector
 * matches nothing (err says which and what there is); 3 when the database fails. */
mp_code mp_compare(mp_store *s, const mp_compare_options *o, FILE *to, int *exit_status,
                   mp_error *err);

#endif
