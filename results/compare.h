/* `mpbench compare A B`: which is better, by how much, and is it more than noise. */
#ifndef MP_RESULTS_COMPARE_H
#define MP_RESULTS_COMPARE_H

#include <stdio.h>

#include "results/query.h"

enum { MP_COMPARE_MOST = 8 }; /* operands: more columns fit no screen */
enum { MP_COMPARE_SUMMARY = 300 };

typedef struct mp_compare_options {
    const char *a, *b;       /* a dtype, a label, a run id or uuid, or KEY=VAL[,KEY=VAL] */
    const char *const *more; /* further ones, each judged against a */
    int more_count;
    const char *metric; /* only this one; NULL: the usual set */
    bool fail_on_worse;
    bool pareto; /* with a table of drift, time, memory and failures: who is dominated by whom */
    mp_format format;
    char *summary; /* MP_COMPARE_SUMMARY bytes that take "B against A: 2 better ...": the caller has
                      a last line of its own.  NULL: the verdict is printed */
} mp_compare_options;

/* Prints values, ratio and verdict for each scenario and pool of cells that differ in nothing but
 * the selected keys.  Drift is paired by prompt and seed: exact where no pair contradicts another
 * one, else by signed ranks; time and memory go by a rank test over all samples.
 * *exit_status is 0, or with fail_on_worse 1 (something is worse than a) or 4 (nothing is, but
 * something cannot be told).  MP_EUSAGE and MP_EMISSING: a selector is wrong or matches nothing,
 * and the text says what there is. */
mp_code mp_compare(mp_store *s, const mp_compare_options *o, FILE *to, int *exit_status,
                   mp_error *err);

#endif
