/* Metrics over the runs: a panel for each metric, in it a line for each cell, and where something
 * changed. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "plots/draw.h"
#include "results/metric_kind.h"

enum { PANELS = 8, FOUND = 64, TICKS = 5, ROWS = 3 };

typedef struct panel {
    const char *metric, *stage, *unit;
    int changes; /* findings that it shows */
    bool varies;
} panel;

/* What changed between two runs, in all cells of a panel. */
typedef struct mark {
    int run; /* the first with the change; index */
    int direction, count;
    double change;    /* relative, the largest one; NaN: no number */
    const char *word; /* instead of a number: how the cell ended, or "back"; NULL */
} mark;

typedef struct series {
    mp_plot *p;
    panel panels[FOUND];
    int panel_count;
    int *place; /* of each run on the axis, from 1; 0: it has none of the cells */
    int runs;
    mark *marks;
} series;

/* ---- panels --------------------------------------------------------------------------------- */

static bool is_wanted(const mp_plot *p, const mp_series *s)
{
    if (s->step != -1 || *s->module)
        return false;
    if (p->options->metric)
        return !strcmp(s->metric, p->options->metric);
    return !strcmp(s->stage, "run") &&
           mp_metric_kind_of(s->metric, s->unit, "").class != MP_METRIC_CONTEXT;
}

static bool is_of_panel(const mp_series *s, const panel *x)
{
    return s->step == -1 && !*s->module && !strcmp(s->metric, x->metric) &&
           !strcmp(s->stage, x->stage);
}

static bool is_varying(const mp_series *s)
{
    for (int64_t k = 1; k < s->count; k++)
        if (s->value[k] != s->value[0])
            return true;
    return false;
}

static void add_series(series *f, const mp_series *s)
{
    int i = 0;

    while (i < f->panel_count && !is_of_panel(s, &f->panels[i]))
        i++;
    if (i == FOUND)
        return;
    if (i == f->panel_count)
        f->panels[f->panel_count++] =
            (panel){.metric = s->metric, .stage = s->stage, .unit = s->unit};
    f->panels[i].varies |= is_varying(s);
}

static void find_panels(series *f)
{
    mp_plot *p = f->p;

    for (int i = 0; i < p->count; i++) {
        const mp_plot_range r = mp_plot_series_of(p, &p->cells[i]);
        p->cells[i].shown = false;
        for (int k = r.first; k < r.end; k++)
            if (is_wanted(p, &p->h->series[k])) {
                add_series(f, &p->h->series[k]);
                p->cells[i].shown = true;
            }
    }
}

/* What changed comes first, then what varies at all. */
static int by_interest(const void *a, const void *b)
{
    const panel *x = a, *y = b;

    if ((x->changes > 0) != (y->changes > 0))
        return x->changes > 0 ? -1 : 1;
    if (x->varies != y->varies)
        return x->varies ? -1 : 1;
    return strcmp(x->metric, y->metric) ? strcmp(x->metric, y->metric) : strcmp(x->stage, y->stage);
}

/* ---- runs ----------------------------------------------------------------------------------- */

/* Those that hold one of the cells, in order. */
static bool place_runs(series *f)
{
    const mp_history *h = f->p->h;

    f->place = mp_alloc((size_t)h->run_count, sizeof *f->place);
    if (!f->place) {
        mp_error_set(f->p->err, MP_ENOMEM, "no memory for a plot of series");
        return false;
    }
    for (int i = 0; i < f->p->count; i++) {
        const mp_subject *s = &h->subjects[f->p->cells[i].subject];
        for (int k = s->first; k < s->first + s->count; k++)
            f->place[h->observations[k].run] = 1;
    }
    for (int i = 0; i < h->run_count; i++)
        f->place[i] = f->place[i] ? ++f->runs : 0;
    if (f->runs < 2)
        mp_error_set(f->p->err, MP_EMISSING,
                     "%s: there is one run of this scenario, and a series needs two; run it again",
                     mp_store_path(f->p->data->store));
    return f->runs >= 2;
}

static int run_at(const series *f, int place)
{
    int run = 0;

    while (f->place[run] != place)
        run++;
    return run;
}

/* The part of "2026-11-27T04:30:00.000Z" that tells the runs apart: of one day the time, of one
 * year the day. */
static void write_time(const series *f, const char *started, char text[24])
{
    const char *first = f->p->h->runs[run_at(f, 1)].started;
    const char *last = f->p->h->runs[run_at(f, f->runs)].started;

    if (strlen(started) < 16)
        snprintf(text, 24, "%.16s", started);
    else if (!strncmp(first, last, 10))
        snprintf(text, 24, "%.5s", started + 11);
    else
        snprintf(text, 24, "%.*s", strncmp(first, last, 4) ? 10 : 5,
                 strncmp(first, last, 4) ? started : started + 5);
}

/* A few runs with their time, and their commit or else their number. */
static void write_ticks(series *f)
{
    const int step = (f->runs + TICKS - 1) / TICKS;

    mp_gnuplot_data(&f->p->g, "runs.tsv");
    for (int i = 1; i <= f->runs; i += step) {
        const mp_history_run *r = &f->p->h->runs[run_at(f, i)];
        char time[24], revision[24];
        write_time(f, r->started, time);
        if (*r->revision)
            snprintf(revision, sizeof revision, "%.7s", r->revision);
        else
            snprintf(revision, sizeof revision, "run %" PRId64, r->id);
        mp_gnuplot_row(&f->p->g, "ntt", (double)i, time, revision);
    }
}

/* ---- what changed --------------------------------------------------------------------------- */

static int cell_of(const mp_plot *p, int subject)
{
    for (int i = 0; i < p->count; i++)
        if (p->cells[i].subject == subject)
            return i;
    return -1;
}

static bool value_at(const mp_plot *p, int subject, const panel *x, int observation, double *out)
{
    const mp_plot_cell c = {.subject = subject, .observation = observation};

    return mp_plot_value(p, &c, x->metric, x->stage, out);
}

static double relative(double before, double after)
{
    return isfinite(before) && isfinite(after) && before != 0 ? after / before - 1 : NAN;
}

/* Whether the panel shows the finding, and as how large a change. */
static bool concerns(const mp_plot *p, const panel *x, const mp_finding *g, mark *m)
{
    double before, after;

    *m = (mark){.run = p->h->observations[g->after].run, .direction = g->direction, .count = 1};
    if (cell_of(p, g->subject) < 0)
        return false;
    if (g->kind == MP_FINDING_OUTCOME) {
        m->word = p->h->observations[g->after].status;
        return true;
    }
    if (g->series >= 0) {
        m->change = relative(g->value_before, g->value_after);
        return is_of_panel(&p->h->series[g->series], x);
    }
    if (!value_at(p, g->subject, x, g->before, &before) ||
        !value_at(p, g->subject, x, g->after, &after) || before == after ||
        mp_metric_kind_of(x->metric, x->unit, "").class != MP_METRIC_EXACT)
        return false;
    m->change = relative(before, after);
    return true;
}

/* Changes of several cells between the same runs are one mark. */
static void add_mark(mark *marks, int *count, const mark *m)
{
    int i = 0;

    while (i < *count && (marks[i].run != m->run || marks[i].direction != m->direction ||
                          !marks[i].word != !m->word))
        i++;
    if (i == *count) {
        marks[(*count)++] = *m;
        return;
    }
    marks[i].count++;
    if (!(fabs(marks[i].change) >= fabs(m->change)))
        marks[i].change = m->change;
}

static int by_run(const void *a, const void *b)
{
    const mark *x = a, *y = b;

    return x->run - y->run;
}

static int find_marks(series *f, const panel *x)
{
    const mp_findings *all = &f->p->data->findings;
    int count = 0;
    mark m;

    for (int i = 0; i < all->count; i++) {
        const mp_finding *g = &all->items[i];
        if (!concerns(f->p, x, g, &m))
            continue;
        add_mark(f->marks, &count, &m);
        if (g->fixed >= 0)
            add_mark(f->marks, &count,
                     &(mark){.run = f->p->h->observations[g->fixed].run,
                             .direction = -g->direction,
                             .count = 1,
                             .word = "back"});
    }
    qsort(f->marks, (size_t)count, sizeof *f->marks, by_run);
    return count;
}

static bool look_for_changes(series *f)
{
    mp_plot_data *d = f->p->data;

    if (!d->has_findings &&
        mp_findings_of(d->store, d->history, &(mp_regression_options){0}, &d->findings, f->p->err))
        return false;
    d->has_findings = true;
    f->marks = mp_alloc(2 * (size_t)d->findings.count, sizeof *f->marks);
    if (!f->marks) {
        mp_error_set(f->p->err, MP_ENOMEM, "no memory for a plot of series");
        return false;
    }
    for (int i = 0; i < f->panel_count; i++)
        f->panels[i].changes = find_marks(f, &f->panels[i]);
    return true;
}

/* "worse: +4.9 % (3 cells)" */
static void write_change(const mark *m, char text[60])
{
    const char *word = m->direction < 0 ? "worse: " : m->direction > 0 ? "better: " : "";
    char cells[24] = "";

    if (m->count > 1)
        snprintf(cells, sizeof cells, " (%d cells)", m->count);
    if (m->word)
        snprintf(text, 60, "%.20s%s", m->word, cells);
    else if (isfinite(m->change))
        snprintf(text, 60, "%s%+.3g %%%s", word, 100 * m->change, cells);
    else
        snprintf(text, 60, "%schanged%s", word, cells);
}

/* ---- files ---------------------------------------------------------------------------------- */

static const mp_series *series_in(const mp_plot *p, int cell, const panel *x)
{
    const mp_plot_range r = mp_plot_series_of(p, &p->cells[cell]);

    for (int i = r.first; i < r.end; i++)
        if (is_of_panel(&p->h->series[i], x))
            return &p->h->series[i];
    return NULL;
}

/* With room at the top for what the marks say. */
static mp_plot_axis axis_of(const mp_plot *p, const panel *x)
{
    const double share = x->changes ? 0.35 : 0;
    mp_plot_extent e = {0};

    for (int i = 0; i < p->count; i++) {
        const mp_series *s = series_in(p, i, x);
        for (int64_t k = 0; s && k < s->count; k++)
            mp_plot_extend(&e, s->value[k]);
    }
    mp_plot_axis a = mp_plot_axis_of(&e, false);
    if (a.log)
        a.high *= pow(a.high / a.low, share);
    else
        a.high += (a.high - a.low) * share;
    return a;
}

/* A block for each cell: place of the run, where the point is drawn, what was measured. */
static void write_lines(series *f, const panel *x, const mp_plot_axis *axis)
{
    mp_plot *p = f->p;

    for (int i = 0; i < p->count; i++) {
        const mp_series *s = series_in(p, i, x);
        mp_gnuplot_row(&p->g, "tt", "run", p->cells[i].label);
        for (int64_t k = 0; s && k < s->count; k++)
            mp_gnuplot_row(&p->g, "nnn",
                           (double)f->place[p->h->observations[s->observation[k]].run],
                           mp_plot_place(axis, s->value[k]), s->value[k]);
        if (!s)
            mp_gnuplot_row(&p->g, "nnn", NAN, NAN, NAN);
        mp_gnuplot_end_block(&p->g);
    }
}

/* Blocks for what is worse, better, and neither; texts of neighbours are below one another. */
static void write_marks(series *f, const panel *x)
{
    static const char *const heads[] = {"worse", "neither", "better"};
    const int n = find_marks(f, x);

    for (int direction = -1; direction <= 1; direction++) {
        mp_gnuplot_row(&f->p->g, "ttt", "run", heads[direction + 1], "text");
        for (int i = 0; i < n; i++) {
            char text[60];
            if (f->marks[i].direction != direction)
                continue;
            write_change(&f->marks[i], text);
            mp_gnuplot_row(&f->p->g, "nnt", f->place[f->marks[i].run] - 0.5,
                           1 - 0.05 - 0.08 * (i % ROWS), text);
        }
        mp_gnuplot_row(&f->p->g, "nnt", NAN, NAN, "");
        mp_gnuplot_end_block(&f->p->g);
    }
}

static void write_panel(series *f, int number, const panel *x)
{
    const mp_plot_axis axis = axis_of(f->p, x);
    const bool of_stage = strcmp(x->stage, "run") != 0;
    char name[40], title[160];

    snprintf(name, sizeof name, "panel%d.tsv", number);
    mp_gnuplot_data(&f->p->g, name);
    write_lines(f, x, &axis);
    snprintf(name, sizeof name, "marks%d.tsv", number);
    mp_gnuplot_data(&f->p->g, name);
    write_marks(f, x);
    snprintf(title, sizeof title, "%.60s%s%.40s%s%.20s", x->metric, of_stage ? " of " : "",
             of_stage ? x->stage : "", strcmp(x->unit, "1") ? ", " : "",
             strcmp(x->unit, "1") ? x->unit : "");
    snprintf(name, sizeof name, "panel%d_title", number);
    mp_gnuplot_set_text(&f->p->g, name, title);
    snprintf(name, sizeof name, "panel%d", number);
    mp_plot_set_axis(f->p, name, &axis);
}

static void write_all(series *f)
{
    enum { WIDTH = 560, HEIGHT = 270 };
    mp_plot *p = f->p;
    const int shown = f->panel_count < PANELS ? f->panel_count : PANELS;
    const int columns = shown > 1 ? 2 : 1, rows = (shown + columns - 1) / columns;

    mp_plot_set_heading(p);
    mp_gnuplot_set_number(&p->g, "runs", f->runs);
    mp_gnuplot_set_number(&p->g, "panels", shown);
    mp_gnuplot_set_number(&p->g, "columns", columns);
    mp_gnuplot_set_number(&p->g, "rows", rows);
    for (int i = 0; i < shown; i++)
        write_panel(f, i + 1, &f->panels[i]);
    write_ticks(f);
    mp_plot_set_size_with_key(p, columns == 1 ? 900 : WIDTH * columns,
                              60 + HEIGHT * rows * (columns == 1 ? 2 : 1));
    mp_plot_take_note(p, "this metric");
    mp_plot_note_more(p, ", %d runs", f->runs);
    if (f->panel_count > shown)
        mp_plot_note_more(p, ", %d more metrics: see each with --metric", f->panel_count - shown);
}

void mp_draw_series(mp_plot *p)
{
    series f = {.p = p};

    if (!mp_plot_choose_subjects(p))
        return;
    find_panels(&f);
    if (mp_plot_keep_cells(p, "no cell has this metric; `mpbench show ID` lists those of a cell") &&
        place_runs(&f) && look_for_changes(&f)) {
        qsort(f.panels, (size_t)f.panel_count, sizeof *f.panels, by_interest);
        write_all(&f);
    }
    mp_free(f.place);
    mp_free(f.marks);
}
