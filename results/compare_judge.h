/* One metric of one pair of cells: better, worse, or not to be told. */
#ifndef MP_RESULTS_COMPARE_JUDGE_H
#define MP_RESULTS_COMPARE_JUDGE_H

#include "results/compare_select.h"

typedef enum mp_verdict {
    MP_SAME,
    MP_BETTER, /* b than a */
    MP_WORSE,
    MP_NOISE,        /* a difference that the samples, or two machines, do not prove */
    MP_TOO_FEW,      /* so few samples that nothing could be proved */
    MP_INCOMPARABLE, /* time and memory of other machines, or a NaN against a number */
    MP_VERDICTS
} mp_verdict;
extern const char *const mp_verdict_names[MP_VERDICTS]; /* "same", "better" ... of b */

typedef struct mp_judgement {
    char metric[64];
    char unit[16];
    double a, b;
    mp_verdict verdict;
    char why[120]; /* "p=0.008, n=5+5" */
    double p;      /* of a rank test, else NaN */
} mp_judgement;

typedef struct mp_judgements {
    mp_judgement *items;
    int count, room;
    char status_a[16], status_b[16];
    char *error_a, *error_b; /* "" for none */
    mp_verdict outcome;      /* of the statuses: MP_WORSE is newly failing, MP_BETTER fixed */
} mp_judgements;

/* metric: that one alone; NULL: every summary that both cells have. */
mp_code mp_judge_pair(mp_store *s, const mp_cell_pair *pair, const char *metric, mp_judgements *out,
                      mp_error *err);
void mp_judgements_free(mp_judgements *j);

#endif
