/* `mpbench plot`: pictures of what the database holds, each by one gnuplot template. */
#ifndef MP_PLOTS_PLOT_H
#define MP_PLOTS_PLOT_H

#include "results/regressions.h"

/* What plots are made of: read once for as many as are wanted. */
typedef struct mp_plot_data {
    mp_store *store;
    mp_history *history;
    mp_findings findings;
    bool has_findings; /* they are looked for when a plot wants them */
} mp_plot_data;

/* scenario NULL: all.  MP_EMISSING: there is no finished cell. */
mp_code mp_plot_data_load(mp_store *s, const char *scenario, mp_plot_data *out, mp_error *err);
void mp_plot_data_free(mp_plot_data *d);

typedef struct mp_plot_options {
    const char *scenario; /* NULL: the only one there is */
    const char *metric;   /* NULL: the kind's own */
    const char *run;      /* id, UUID or label; NULL: the newest */
    const int64_t *cells; /* ids, instead of all of a run */
    int cell_count;
    const char *folder;    /* for data and scripts: is there, and empty or this plot's own */
    const char *templates; /* a folder whose files go before the built-in templates; NULL */
    bool png;
    int width, height;     /* pixels; 0: as what is drawn needs */
    bool (*stopped)(void); /* true: end gnuplot; NULL: never */
} mp_plot_options;

typedef struct mp_plot mp_plot;

typedef struct mp_plot_kind {
    const char *name; /* of its template, too: "series" is drawn by series.gp */
    const char *summary;
    void (*draw)(mp_plot *p);
} mp_plot_kind;

/* Ends with {0}. */
extern const mp_plot_kind mp_plot_kinds[];
const mp_plot_kind *mp_plot_kind_of(const char *name); /* NULL: no such kind */

typedef struct mp_plot_note {
    char text[300]; /* what the picture shows, in one line fit for a terminal */
} mp_plot_note;

/* Draws FOLDER/KIND.svg or .png.  MP_EMISSING: the database has nothing for it, and the text says
 * what is missing; MP_EUSAGE: a scenario must be named; MP_EENGINE: gnuplot. */
mp_code mp_plot_draw(const mp_plot_kind *kind, mp_plot_data *d, const mp_plot_options *o,
                     mp_plot_note *note, mp_error *err);

#endif
