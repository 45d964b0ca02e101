/* `mpbench compare A B`: which is better, by how much, and is it more than noise. */
#ifndef MP_RESULTS_COMPARE_H
#define MP_RESULTS_COMPARE_H

#include <stdio.h>

#include "results/query.h"

typedef struct mp_compare_options {
    const char *a, *b;  /* a dtype, a label, a run id or uuid, or KEY=VAL[,KEY=VAL] */
    const char *metric; /* only this one; NULL: the usual set */
    bool fail_on_worse;
    mp_format format;
} mp_compare_options;

/* Prints both columns, ratio and verdict for each scenario and pair of cells that differ in nothing
 * but the selected keys; drift is exact, time goes through a rank test over the samples.
 * *exit_status is 0, or with fail_on_worse 1 (something of B is worse) or 4 (nothing is, but
 * something cannot be told).  MP_EUSAGE and MP_EMISSING: a selector is wrong or matches nothing,
 * and the text says what there is. */
mp_code mp_compare(mp_store *s, const mp_compare_options *o, FILE *to, int *exit_status,
                   mp_error *err);

#endif
