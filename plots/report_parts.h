/* The parts of the report page, for plots/report*.c only. */
#ifndef MP_PLOTS_REPORT_PARTS_H
#define MP_PLOTS_REPORT_PARTS_H

#include <jansson.h>
#include <stdio.h>

#include "plots/report.h"
#include "results/regressions.h"

/* Cells of one scenario, engine, device and machine: a row of the overview. */
typedef struct mp_page_group {
    size_t first, count; /* into cells, which are in this order */
    mp_page_result tally;
} mp_page_group;

typedef struct mp_page {
    FILE *to;
    mp_store *store;
    const char *database;
    const mp_report_filter *filter;
    json_t *cells, *environment, *repros; /* results/report_data.h */
    mp_history *history;                  /* NULL: nothing has ended yet */
    mp_findings findings;
    mp_page_group *groups;
    int group_count;
    bool machines;             /* more than one: they are told apart */
    json_t *pictures, *series; /* of the JSON block */
    json_t *notes;             /* what a reader must know: texts */
    mp_page_result tally;
    mp_error *err;
} mp_page;

/* "" for what is no text. */
const char *mp_page_text(const json_t *row, const char *key);
intmax_t mp_page_id(const json_t *row, const char *key);
/* A summary metric: of a number, or of "inf", "-inf", "nan"; false: there is none. */
bool mp_page_metric(const json_t *cell, const char *name, double *out);

typedef enum mp_page_state {
    MP_PAGE_OK, /* ended as the scenario expects */
    MP_PAGE_UNEXPECTED,
    MP_PAGE_OVER_BUDGET,
    MP_PAGE_UNFINISHED,
} mp_page_state;
mp_page_state mp_page_state_of(const json_t *cell);
/* The cell's key without the scenario before it. */
const char *mp_page_cell_name(const json_t *cell);
/* Whether a subject of the history is this cell. */
bool mp_page_is_subject(const mp_subject *x, const json_t *cell);
/* NULL: the page does not show the subject's cell. */
const json_t *mp_page_cell_of(const mp_page *p, const mp_subject *x);

/* A time on record as people read it, and a commit as they write it; the whole text is a title. */
void mp_page_put_time(FILE *to, const char *time);
void mp_page_put_commit(FILE *to, const char *commit);

/* A sentence for the top of the page. */
void mp_page_note(mp_page *p, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* HTML: plots/report_head.c, plots/report_tables.c, plots/report_matrix.c. */
const char *mp_page_verdict(const mp_page *p);
void mp_page_title(mp_page *p);
void mp_page_head(mp_page *p);
void mp_page_overview(mp_page *p);
void mp_page_findings(mp_page *p);
void mp_page_incidents(mp_page *p);
void mp_page_matrix(mp_page *p);
void mp_page_cells(mp_page *p);
void mp_page_environment(mp_page *p);

/* JSON: plots/report_json.c.  They also leave notes, so they come before the head is written. */
void mp_page_read_series(mp_page *p);
mp_code mp_page_read_pictures(mp_page *p);
void mp_page_json(mp_page *p);

#endif
