/* One metric of one pool of pairs: better, worse, or not to be told. */
#ifndef MP_RESULTS_COMPARE_JUDGE_H
#define MP_RESULTS_COMPARE_JUDGE_H

#include "results/compare_measure.h"
#include "results/metric_kind.h"

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

/* What one side has of a metric. */
typedef struct mp_centre {
    double typical;   /* the median of its values */
    double worst;     /* of drift */
    double low, high; /* of time and memory: where the median lies with 95 %; NaN: not to be told */
    int64_t n;
} mp_centre;

typedef struct mp_judgement {
    char metric[64], unit[16];
    mp_metric_kind kind;
    mp_centre a, b;
    int64_t pairs, better, worse; /* of the pairs, where drift is judged pair by pair */
    bool same_bits;               /* all outputs of all pairs */
    bool outlier;                 /* a pair of b is far worse than all of a */
    mp_verdict verdict;
    char why[160];    /* "p=0.008, n=5+5" */
    double p;         /* of a test that could prove something, else NaN */
    double q;         /* p after control of false discoveries, once settled */
    double direction; /* of the test: above 0 is worse */
    double least;     /* a smaller relative change is none, for the direction it has */
    double log_sum;   /* of b / a where that says something: of each pair's drift, of the medians */
    int64_t ratios;
} mp_judgement;

typedef struct mp_judgements {
    mp_judgement *items;
    int count;
    mp_ending a, b;
    int newly_failing, fixed, failing_both, good; /* pairs */
} mp_judgements;

/* b / a, where that says something; else NaN. */
double mp_ratio(double a, double b);
/* Bits differ with the native engine's instruction set alone.  (What a worker's library chooses is
 * its own.) */
bool mp_same_isa(const mp_compare_run *a, const mp_compare_run *b);

mp_code mp_judge_pool(mp_measurer *m, const mp_selection *s, const mp_pool *pool,
                      mp_judgements *out, mp_error *err);
/* The verdict of a judgement with a p, once its q is known, among so many tests. */
void mp_judge_settle(mp_judgement *j, int64_t tests);
/* By metric and unit. */
int mp_judgement_order(const mp_judgement *x, const mp_judgement *y);
void mp_judgements_free(mp_judgements *j);

#endif
