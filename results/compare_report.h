/* A whole comparison, judged: what compare_print.c, compare_json.c and compare_pareto.c show. */
#ifndef MP_RESULTS_COMPARE_REPORT_H
#define MP_RESULTS_COMPARE_REPORT_H

#include "results/compare.h"
#include "results/compare_judge.h"

/* A metric over all pools of one comparison. */
typedef struct mp_overall {
    char metric[64];
    double log_sum; /* of b / a, over `ratios` of them */
    int64_t ratios, pairs;
    int count[MP_VERDICTS];
} mp_overall;

/* One operand against the first. */
typedef struct mp_comparison {
    int operand; /* index */
    mp_selection selection;
    mp_judgements *judged; /* one for each pool */
    mp_overall *metrics;
    int metric_count;
} mp_comparison;

enum { MP_PARETO_MOST = 16 };

typedef struct mp_compare_report {
    mp_store *store;
    const mp_compare_options *options;
    mp_side sides[MP_PARETO_MOST]; /* of each operand */
    int side_count, operand_count; /* beyond the operands: what --pareto has besides */
    mp_comparison items[MP_PARETO_MOST];
    int count;              /* of those of operands */
    int pareto_count;       /* and with the others */
    int total[MP_VERDICTS]; /* over everything, failures, too */
    int newly_failing, fixed, failing_both;
} mp_compare_report;

/* 'A' for the first operand. */
char mp_operand_letter(int operand);
/* The status of the gate: 0, or with fail_on_worse 1 or 4. */
int mp_compare_exit(const mp_compare_report *r);
/* "WORSE exit=0 (...)" */
void mp_compare_verdict(const mp_compare_report *r, char *out, size_t size);
double mp_overall_ratio(const mp_overall *o); /* the geometric mean; NaN: there is none */

/* ---- rows and names (compare_rows.c) -------------------------------------------------------- */

enum { MP_ROW_KEYS = 32, MP_NAME = 400 };

/* One pool of cells of A, and the pools of the others that are held against the same cells. */
typedef struct mp_compare_row {
    const mp_cell_pair *first;
    int pool[MP_COMPARE_MOST]; /* of each comparison; -1: none */
    int order;
} mp_compare_row;

/* Rows of one scenario, and the keys by which they are told apart. */
typedef struct mp_compare_group {
    int first, end;
    const char *keys[MP_ROW_KEYS];
    int key_count;
} mp_compare_group;

/* In order of their scenarios; mp_free. */
mp_code mp_compare_rows(const mp_compare_report *r, mp_compare_row **out, int *count,
                        mp_error *err);
mp_compare_group mp_compare_group_at(const mp_compare_report *r, const mp_compare_row *rows,
                                     int count, int first);
/* The value of a key in a row, NULL for none; room is for values that are put together. */
const char *mp_row_value(const mp_compare_row *row, const char *key, char room[MP_NAME]);
/* "tiling=off", "-" where there is nothing to tell apart. */
void mp_row_name(const mp_compare_group *g, const mp_compare_row *row, char out[MP_NAME]);
/* "sana-tiled", or "sana-tiled against sana-plain" where that is the question. */
void mp_row_title(const mp_compare_report *r, const mp_compare_row *row, char out[MP_NAME]);

/* ---- forms ---------------------------------------------------------------------------------- */

mp_code mp_compare_people(const mp_compare_report *r, FILE *to, mp_error *err);
mp_code mp_compare_csv(const mp_compare_report *r, FILE *to, mp_error *err);
mp_code mp_compare_json(const mp_compare_report *r, FILE *to, mp_error *err);

/* ---- --pareto (compare_pareto.c) ------------------------------------------------------------ */

typedef struct mp_pareto_point {
    const char *name;
    double latents, picture, seconds, peak_mib; /* geometric means; NaN: not comparable */
    int failures;                               /* cells */
    unsigned dominated_by;                      /* bit i: by point i */
} mp_pareto_point;

typedef struct mp_pareto {
    mp_pareto_point points[MP_PARETO_MOST];
    int count;
    int cells;           /* of which the means are: those that all points have */
    bool other_machines; /* so time and memory are left out */
} mp_pareto;

/* Loads the other values of the key in which two operands differ, if it is one. */
mp_code mp_compare_load_others(mp_compare_report *r, mp_error *err);
void mp_pareto_of(const mp_compare_report *r, mp_pareto *out);
void mp_pareto_print(const mp_compare_report *r, FILE *to);

#endif
