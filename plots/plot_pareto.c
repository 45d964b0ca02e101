/* What drift costs: drift against seconds and against memory, and which cells no other one beats.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plots/draw.h"
#include "results/metric_kind.h"

enum { PANELS = 2 };

static const char *const costs[PANELS] = {"seconds", "peak_mib"};

typedef struct spot {
    double drift, cost[PANELS]; /* as measured; NaN: has none */
    bool beaten[PANELS];        /* another one is not worse in either, and better in one */
    int corner[PANELS];         /* of the point where its number stands, from 1 */
} spot;

typedef struct pareto {
    const char *metric;
    bool higher_is_better;
    spot spots[MP_PLOT_CELLS];
} pareto;

static double value_of(const mp_plot *p, int cell, const char *metric)
{
    double value;

    return mp_plot_value(p, &p->cells[cell], metric, "run", &value) ? value : NAN;
}

/* Smaller is better; what is no number is the worst. */
static double badness(const pareto *f, const spot *s)
{
    const double d = f->higher_is_better ? -s->drift : s->drift;

    return isnan(d) ? INFINITY : d;
}

static bool beats(const pareto *f, const spot *a, const spot *b, int panel)
{
    const double x = badness(f, a), y = badness(f, b);

    return x <= y && a->cost[panel] <= b->cost[panel] && (x < y || a->cost[panel] < b->cost[panel]);
}

static void judge(const mp_plot *p, pareto *f)
{
    for (int i = 0; i < p->count; i++) {
        spot *s = &f->spots[i];
        s->drift = value_of(p, i, f->metric);
        for (int c = 0; c < PANELS; c++)
            s->cost[c] = value_of(p, i, costs[c]);
    }
    for (int i = 0; i < p->count; i++)
        for (int k = 0; k < p->count; k++)
            for (int c = 0; c < PANELS; c++)
                f->spots[i].beaten[c] |= beats(f, &f->spots[k], &f->spots[i], c);
}

/* The centre of a number, in shares of the panel, that stands at a corner of its point. */
static void centre(const spot *s, const mp_plot_axis *x, const mp_plot_axis *y, int panel,
                   int corner, double at[2])
{
    at[0] = mp_plot_share(x, s->cost[panel]) + (corner % 2 ? 0.035 : -0.035);
    at[1] = mp_plot_share(y, mp_plot_place(y, s->drift)) + (corner <= 2 ? 0.025 : -0.025);
}

/* Whether the number of a point would stand clear of those before it. */
static bool is_clear(const pareto *f, int cell, const mp_plot_axis *x, const mp_plot_axis *y,
                     int panel, int corner)
{
    double own[2], other[2];

    centre(&f->spots[cell], x, y, panel, corner, own);
    for (int i = 0; i < cell; i++) {
        centre(&f->spots[i], x, y, panel, f->spots[i].corner[panel], other);
        if (fabs(own[0] - other[0]) < 0.055 && fabs(own[1] - other[1]) < 0.04)
            return false;
    }
    return true;
}

/* Of points that lie close together, at different corners, as far as there are any. */
static void place_numbers(pareto *f, int count, const mp_plot_axis *x, const mp_plot_axis *y,
                          int panel)
{
    enum { CORNERS = 4 };

    for (int i = 0; i < count; i++) {
        int corner = 1;
        while (corner < CORNERS && !is_clear(f, i, x, y, panel, corner))
            corner++;
        f->spots[i].corner[panel] = corner;
    }
}

/* A block for each cell: its number, its place on the axis of drift, for each panel the cost and
 * whether it is beaten, and the corners for its number. */
static void write_spots(mp_plot *p, const pareto *f, const mp_plot_axis *y)
{
    mp_gnuplot_data(&p->g, "pareto.tsv");
    for (int i = 0; i < p->count; i++) {
        const spot *s = &f->spots[i];
        char title[80];
        snprintf(title, sizeof title, "%d  %s", i + 1, p->cells[i].label);
        mp_gnuplot_row(&p->g, "tt", "number", title);
        mp_gnuplot_row(&p->g, "nnnnnnnn", (double)i + 1, mp_plot_place(y, s->drift), s->cost[0],
                       (double)s->beaten[0], s->cost[1], (double)s->beaten[1], (double)s->corner[0],
                       (double)s->corner[1]);
        mp_gnuplot_end_block(&p->g);
    }
}

/* The unbeaten ones of a panel in order of cost: the line that others would have to cross. */
static void write_front(mp_plot *p, const pareto *f, const mp_plot_axis *y, int panel)
{
    bool done[MP_PLOT_CELLS] = {0};

    for (;;) {
        int next = -1;
        for (int i = 0; i < p->count; i++)
            if (!done[i] && !f->spots[i].beaten[panel] && isfinite(f->spots[i].cost[panel]) &&
                (next < 0 || f->spots[i].cost[panel] < f->spots[next].cost[panel]))
                next = i;
        if (next < 0)
            break;
        done[next] = true;
        mp_gnuplot_row(&p->g, "nn", f->spots[next].cost[panel],
                       mp_plot_place(y, f->spots[next].drift));
    }
    mp_gnuplot_end_block(&p->g);
}

static void write_panels(mp_plot *p, pareto *f)
{
    mp_plot_extent drift = {0}, cost[PANELS] = {{0}};

    for (int i = 0; i < p->count; i++) {
        mp_plot_extend(&drift, f->spots[i].drift);
        for (int c = 0; c < PANELS; c++)
            mp_plot_extend(&cost[c], f->spots[i].cost[c]);
    }
    const mp_plot_axis y = mp_plot_axis_of(&drift, !f->higher_is_better);
    const mp_plot_axis x[PANELS] = {mp_plot_axis_of(&cost[0], false),
                                    mp_plot_axis_of(&cost[1], false)};
    mp_plot_set_axis(p, "y", &y);
    mp_plot_set_axis(p, "x1", &x[0]);
    mp_plot_set_axis(p, "x2", &x[1]);
    for (int c = 0; c < PANELS; c++)
        place_numbers(f, p->count, &x[c], &y, c);
    write_spots(p, f, &y);
    mp_gnuplot_data(&p->g, "front.tsv");
    for (int c = 0; c < PANELS; c++)
        write_front(p, f, &y, c);
}

void mp_draw_pareto(mp_plot *p)
{
    pareto f = {.metric = p->options->metric ? p->options->metric : "latent_rel_l2"};
    double value;

    if (!mp_plot_choose_cells(p))
        return;
    for (int i = 0; i < p->count; i++)
        p->cells[i].shown = mp_plot_value(p, &p->cells[i], f.metric, "run", &value) &&
                            mp_plot_value(p, &p->cells[i], "seconds", "run", &value);
    if (!mp_plot_keep_cells(p, "no cell has this metric and seconds: it had no reference, or ended "
                               "before; name another --run, --cell or --metric"))
        return;
    f.higher_is_better =
        mp_metric_kind_of(f.metric, mp_plot_unit(p, f.metric), "native").higher_is_better;
    judge(p, &f);
    mp_plot_set_heading(p);
    mp_plot_set_subheading(p);
    mp_gnuplot_set_text(&p->g, "metric", f.metric);
    mp_gnuplot_set_text(&p->g, "unit", mp_plot_unit(p, f.metric));
    mp_gnuplot_set_text(&p->g, "better", f.higher_is_better ? "higher" : "lower");
    write_panels(p, &f);
    mp_plot_set_size(p, 1340, p->count > 18 ? 620 : 520);
    mp_plot_take_note(p, "drift and seconds");
}
