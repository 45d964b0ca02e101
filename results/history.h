/* The history of a database: every metric of every cell over the runs, as columns of numbers.
 *
 *     mp_history *h;
 *     mp_history_load(s, &(mp_history_filter){.scenario = "sana-tiled"}, &h, &err);
 *     for (int i = 0; i < h->series_count; i++) {
 *         const mp_series *x = &h->series[i];
 *         const mp_subject *what = &h->subjects[x->subject];
 *         for (int64_t k = 0; k < x->count; k++)
 *             plot(h->runs[h->observations[x->observation[k]].run].started, x->value[k]);
 *     }
 *     mp_history_free(h);
 *
 * Texts belong to the history.  Runs are in order of their start, then of their ids; so are the
 * observations of a subject and the points of a series. */
#ifndef MP_RESULTS_HISTORY_H
#define MP_RESULTS_HISTORY_H

#include "results/store.h"
#include "results/texts.h"

typedef struct mp_history_run {
    int64_t id;
    const char *uuid, *label; /* label "": none */
    const char *started;
    const char *revision; /* the git commit of what ran, or its version; "": not recorded */
    const char *build;    /* hash of the program, versions of a library; "": not recorded */
    /* It says that it started before a run of its machine that was there already, or that it ended
     * before it started. */
    bool clock_backwards;
} mp_history_run;

/* What was run, on what: the key of a series besides its metric. */
typedef struct mp_subject {
    const char *key, *scenario; /* of the cell */
    const char *inputs;         /* hashes of settings and checkpoint: others are another subject */
    const char *engine, *device, *fingerprint;
    int first, count; /* its observations */
} mp_subject;

/* One cell of one run: the newest, where --resume left several. */
typedef struct mp_observation {
    int64_t cell;
    int run, subject;             /* indices */
    bool as_expected;             /* status is the one that the scenario expects */
    const char *status, *outcome; /* outcome "": none */
    const char *outputs; /* SHA-256 over the hashes of all outputs by name; "": none on record */
} mp_observation;

typedef struct mp_series {
    int subject;
    const char *metric, *stage, *module, *unit;
    int step;
    int64_t count;
    const int32_t *observation; /* of each point: index */
    const double *value;        /* may be inf, -inf or NaN */
} mp_series;

typedef struct mp_history {
    mp_history_run *runs;
    mp_subject *subjects; /* by scenario, key, engine, device, fingerprint; then inputs */
    mp_observation *observations;
    int32_t *by_cell;  /* observations in order of their cells' ids */
    mp_series *series; /* by subject, metric, stage, step, module */
    int run_count, subject_count, observation_count, series_count;
    mp_texts *texts;
} mp_history;

typedef struct mp_history_filter {
    const char *scenario, *metric; /* NULL: all */
    bool every_row; /* also by step and module; else the summaries and the seconds of each stage */
} mp_history_filter;

/* Cells that ended; MP_EMISSING when the filter leaves nothing, and the text says what there is.
 * Seconds of a stage are the median over the cell's repeats. */
mp_code mp_history_load(mp_store *s, const mp_history_filter *f, mp_history **out, mp_error *err);
enum { MP_REVISION_TEXT = 64 };
/* A commit as people write it, with what stands behind it; a version as it is. */
void mp_revision_text(const char *revision, char out[MP_REVISION_TEXT]);
void mp_history_free(mp_history *h); /* NULL is fine */
/* The observation of a cell; -1: it is none of this history's. */
int mp_history_find(const mp_history *h, int64_t cell);

#endif
