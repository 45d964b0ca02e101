#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "plots/draw.h"

/* The first series of a subject, by bisection: they are in order. */
static int first_of(const mp_history *h, int subject)
{
    int low = 0, high = h->series_count;

    while (low < high) {
        const int middle = low + (high - low) / 2;
        if (h->series[middle].subject < subject)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

mp_plot_range mp_plot_series_of(const mp_plot *p, const mp_plot_cell *c)
{
    return (mp_plot_range){first_of(p->h, c->subject), first_of(p->h, c->subject + 1)};
}

bool mp_plot_point(const mp_series *s, const mp_plot_cell *c, double *out)
{
    for (int64_t k = 0; k < s->count; k++)
        if (s->observation[k] == c->observation) {
            *out = s->value[k];
            return true;
        }
    return false;
}

bool mp_plot_value(const mp_plot *p, const mp_plot_cell *c, const char *metric, const char *stage,
                   double *out)
{
    const mp_plot_range r = mp_plot_series_of(p, c);

    for (int i = r.first; i < r.end; i++) {
        const mp_series *s = &p->h->series[i];
        if (s->step == -1 && !*s->module && !strcmp(s->metric, metric) && !strcmp(s->stage, stage))
            return mp_plot_point(s, c, out);
    }
    return false;
}

const char *mp_plot_unit(const mp_plot *p, const char *metric)
{
    for (int i = 0; i < p->h->series_count; i++)
        if (!strcmp(p->h->series[i].metric, metric))
            return p->h->series[i].unit;
    return "";
}

void mp_plot_set_size(mp_plot *p, int width, int height)
{
    if (!p->options->width) {
        p->g.width = width;
        p->g.height = height;
    }
}

void mp_plot_set_size_with_key(mp_plot *p, int width, int height)
{
    enum { LETTER = 9, SAMPLE = 105, ROW = 18 }; /* pixels */
    int longest = 0;

    for (int i = 0; i < p->count; i++) {
        const int n = (int)strlen(p->cells[i].label);
        longest = longest > n ? longest : n;
    }
    const int fit = width / (LETTER * longest + SAMPLE);
    const int columns = fit < 1 ? 1 : fit < p->count ? fit : p->count;
    const int rows = (p->count + columns - 1) / columns;
    mp_plot_set_size(p, width, height + ROW * rows);
    mp_gnuplot_set_number(&p->g, "key_columns", columns);
    mp_gnuplot_set_number(&p->g, "key_rows", rows);
}

static const mp_history_run *run_of(const mp_plot *p, int cell)
{
    return &p->h->runs[p->h->observations[p->cells[cell].observation].run];
}

/* "run 12 of 2026-11-27 04:30, before, 3e64931, native, cpu" */
static void describe_run(const mp_plot *p, char *text, size_t room)
{
    const mp_history_run *r = run_of(p, 0);
    const mp_subject *s = &p->h->subjects[p->cells[0].subject];
    char revision[MP_REVISION_TEXT];

    mp_revision_text(r->revision, revision);
    snprintf(text, room, "run %" PRId64 " of %.10s%s%.5s%s%.40s%s%.20s, %.20s, %.10s", r->id,
             r->started, strlen(r->started) > 11 ? " " : "",
             strlen(r->started) > 11 ? r->started + 11 : "", *r->label ? ", " : "", r->label,
             *r->revision ? ", " : "", revision, s->engine, s->device);
}

void mp_plot_set_heading(mp_plot *p)
{
    const char *first = p->h->subjects[p->cells[0].subject].scenario;
    bool one = true;

    for (int i = 1; i < p->count; i++)
        one = one && !strcmp(p->h->subjects[p->cells[i].subject].scenario, first);
    mp_gnuplot_set_text(&p->g, "heading", one ? first : "cells of several scenarios");
    mp_gnuplot_set_number(&p->g, "cells", p->count);
}

void mp_plot_set_subheading(mp_plot *p)
{
    char text[200] = "cells of several runs";
    bool one = true;

    for (int i = 1; i < p->count; i++)
        one = one && run_of(p, i) == run_of(p, 0);
    if (one)
        describe_run(p, text, sizeof text);
    mp_gnuplot_set_text(&p->g, "subheading", text);
}

void mp_plot_note_more(mp_plot *p, const char *format, ...)
{
    const size_t length = strlen(p->note->text);
    va_list args;

    va_start(args, format);
    vsnprintf(p->note->text + length, sizeof p->note->text - length, format, args);
    va_end(args);
}

void mp_plot_take_note(mp_plot *p, const char *what)
{
    mp_plot_note_more(p, "%d cell%s", p->count, p->count == 1 ? "" : "s");
    if (p->lacking)
        mp_plot_note_more(p, ", %d without %s", p->lacking, what);
    if (p->left_out)
        mp_plot_note_more(p, ", %d more: name those to see with --cell", p->left_out);
}
