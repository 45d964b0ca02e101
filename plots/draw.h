/* What the kinds of plots share: the cells they show, their labels, axes that also place zeros and
 * what is not finite. */
#ifndef MP_PLOTS_DRAW_H
#define MP_PLOTS_DRAW_H

#include "plots/gnuplot.h"
#include "plots/plot.h"

typedef struct mp_plot_cell {
    int observation, subject;
    int64_t id;
    const char *label; /* what tells it from the other ones: "bf16, tiling=off" */
    bool shown;        /* it has what is to be shown: set by the kind */
} mp_plot_cell;

struct mp_plot {
    mp_plot_data *data;
    const mp_history *h; /* of data */
    const mp_plot_options *options;
    mp_gnuplot g;
    const char *scenario; /* NULL: cells are named, of whatever scenario */
    mp_plot_cell *cells;  /* in order of their ids; a subject's, for a series, has its last one */
    int count, lacking, left_out; /* shown; without what is to be shown; too many */
    bool over_runs;               /* a cell stands for all of its subject */
    mp_plot_note *note;
    mp_error *err; /* after a failure, nothing more is done */
};

enum { MP_PLOT_CELLS = 24 }; /* more than that nobody can tell apart */

void mp_draw_series(mp_plot *p);
void mp_draw_drift(mp_plot *p);
void mp_draw_pareto(mp_plot *p);
void mp_draw_stages(mp_plot *p);
void mp_draw_pictures(mp_plot *p);

/* The cells of the run and the scenario, or those that are named. */
bool mp_plot_choose_cells(mp_plot *p);
/* The newest cell of each subject of the scenario, or of those whose cells are named. */
bool mp_plot_choose_subjects(mp_plot *p);
/* Keeps those that are to be shown, the first MP_PLOT_CELLS of them, and gives them labels.  With
 * none, MP_EMISSING with that text. */
bool mp_plot_keep_cells(mp_plot *p, const char *missing);
void mp_plot_name_cells(mp_plot *p);
/* heading for the script, the scenario, and cells, their number; subheading, of which run it is. */
void mp_plot_set_heading(mp_plot *p);
void mp_plot_set_subheading(mp_plot *p);
/* The size of a plot with a key of its cells below, unless the user has chosen one; and for the
 * script, key_columns and key_rows. */
void mp_plot_set_size_with_key(mp_plot *p, int width, int height);
void mp_plot_set_size(mp_plot *p, int width, int height);
/* "3 cells, 1 without WHAT, 2 more: name those to see with --cell" */
void mp_plot_take_note(mp_plot *p, const char *what);
void mp_plot_note_more(mp_plot *p, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* What the history has of the cell's subject: a range of its series. */
typedef struct mp_plot_range {
    int first, end;
} mp_plot_range;
mp_plot_range mp_plot_series_of(const mp_plot *p, const mp_plot_cell *c);
/* The cell's point in a series; false: it has none. */
bool mp_plot_point(const mp_series *s, const mp_plot_cell *c, double *out);
/* The same in the series of that name and stage ("run", but for seconds of a stage). */
bool mp_plot_value(const mp_plot *p, const mp_plot_cell *c, const char *metric, const char *stage,
                   double *out);
const char *mp_plot_unit(const mp_plot *p, const char *metric);

/* What an axis must show. */
typedef struct mp_plot_extent {
    double low, high, positive; /* of the finite values; the least above 0, if there is one */
    bool any, zero, nonfinite;
} mp_plot_extent;
void mp_plot_extend(mp_plot_extent *e, double value); /* begins as {0} */

/* The range of an axis: logarithmic where the values span much or are of a kind that does, and none
 * is negative, then with a place for zeros below; and one above for what is not finite. */
typedef struct mp_plot_axis {
    bool log;
    double low, high;
    double zero, above;       /* NaN: there are none */
    double first, step, last; /* tics of one that is not logarithmic, below what is above */
} mp_plot_axis;
mp_plot_axis mp_plot_axis_of(const mp_plot_extent *e, bool spans_much);
double mp_plot_place(const mp_plot_axis *a, double value);
double mp_plot_share(const mp_plot_axis *a, double place); /* of the way from low to high */
/* NAME_log, NAME_low and so on, for the script. */
void mp_plot_set_axis(mp_plot *p, const char *name, const mp_plot_axis *a);

#endif
