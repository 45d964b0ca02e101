/* Where the time of a generation goes: a bar for each cell, a part of it for each stage. */
#include <stdlib.h>
#include <string.h>

#include "plots/draw.h"

/* In the order in which they run; those of other engines follow, by name. */
static const char *const known[] = {"load", "text_encode", "image_encode", "denoise", "decode"};
enum { KNOWN = sizeof known / sizeof *known, STAGES = 12 };

typedef struct stages {
    const char *names[STAGES];
    int count;
} stages;

static void add_stage(stages *s, const char *name)
{
    for (int i = 0; i < s->count; i++)
        if (!strcmp(s->names[i], name))
            return;
    if (s->count < STAGES)
        s->names[s->count++] = name;
}

static bool is_stage(const mp_series *s)
{
    return !strcmp(s->metric, "seconds") && strcmp(s->stage, "run") != 0 && s->step == -1 &&
           !*s->module;
}

/* Those that the cell went through; false: none. */
static bool find_stages(const mp_plot *p, const mp_plot_cell *c, stages *s)
{
    const mp_plot_range r = mp_plot_series_of(p, c);
    bool found = false;
    double value;

    for (int i = r.first; i < r.end; i++)
        if (is_stage(&p->h->series[i]) && mp_plot_point(&p->h->series[i], c, &value)) {
            add_stage(s, p->h->series[i].stage);
            found = true;
        }
    return found;
}

static int rank(const char *name)
{
    int i = 0;

    while (i < KNOWN && strcmp(name, known[i]))
        i++;
    return i;
}

static int by_rank(const void *a, const void *b)
{
    const char *x = *(const char *const *)a, *y = *(const char *const *)b;

    return rank(x) != rank(y) ? rank(x) - rank(y) : strcmp(x, y);
}

/* A block for each stage: of each cell its place from the top, and from where to where the stage
 * goes in its bar.  ends: where the bars end so far. */
static void write_stages(mp_plot *p, const stages *s, double *ends)
{
    double seconds;

    mp_gnuplot_data(&p->g, "stages.tsv");
    for (int k = 0; k < s->count; k++) {
        mp_gnuplot_row(&p->g, "tt", "row", s->names[k]);
        for (int i = 0; i < p->count; i++) {
            if (!mp_plot_value(p, &p->cells[i], "seconds", s->names[k], &seconds))
                seconds = 0;
            mp_gnuplot_row(&p->g, "nnn", (double)i, ends[i], ends[i] + seconds);
            ends[i] += seconds;
        }
        mp_gnuplot_end_block(&p->g);
    }
    mp_gnuplot_data(&p->g, "cells.tsv");
    for (int i = 0; i < p->count; i++)
        mp_gnuplot_row(&p->g, "nnt", (double)i, ends[i], p->cells[i].label);
}

void mp_draw_stages(mp_plot *p)
{
    double ends[MP_PLOT_CELLS] = {0};
    stages s = {0};

    if (!mp_plot_choose_cells(p))
        return;
    for (int i = 0; i < p->count; i++)
        p->cells[i].shown = find_stages(p, &p->cells[i], &s);
    if (!mp_plot_keep_cells(p, "no cell has seconds by stage: none came to its end; name another "
                               "--run or --cell"))
        return;
    qsort(s.names, (size_t)s.count, sizeof *s.names, by_rank);
    mp_plot_set_heading(p);
    mp_plot_set_subheading(p);
    mp_gnuplot_set_number(&p->g, "stages", s.count);
    write_stages(p, &s, ends);
    mp_plot_set_size(p, 900, 170 + 30 * p->count);
    mp_plot_take_note(p, "times");
}
