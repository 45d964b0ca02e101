/* The distance from the reference by denoising step: where it begins, how fast it grows. */
#include <string.h>

#include "plots/draw.h"
#include "results/steps.h"

static bool read_steps(mp_plot *p, const char *metric, int cell, mp_steps *out)
{
    return !mp_steps_of(p->data->store, p->cells[cell].id, metric, "latents", out, p->err);
}

static mp_plot_axis axis_of(mp_plot *p, const char *metric, mp_steps *s)
{
    mp_plot_extent e = {0};

    for (int i = 0; i < p->count && read_steps(p, metric, i, s); i++)
        for (int k = 0; k < s->count; k++)
            mp_plot_extend(&e, s->value[k]);
    return mp_plot_axis_of(&e, true);
}

static void write_lines(mp_plot *p, const char *metric, mp_steps *s)
{
    const mp_plot_axis axis = axis_of(p, metric, s);
    int steps = 0;

    mp_plot_set_axis(p, "y", &axis);
    mp_gnuplot_data(&p->g, "drift.tsv");
    for (int i = 0; i < p->count && read_steps(p, metric, i, s); i++) {
        mp_gnuplot_row(&p->g, "tt", "step", p->cells[i].label);
        for (int k = 0; k < s->count; k++)
            mp_gnuplot_row(&p->g, "nnn", s->step[k] + 1.0, mp_plot_place(&axis, s->value[k]),
                           s->value[k]);
        if (s->count && steps <= s->step[s->count - 1])
            steps = s->step[s->count - 1] + 1;
        mp_gnuplot_end_block(&p->g);
    }
    mp_gnuplot_set_number(&p->g, "steps", steps);
}

static void draw(mp_plot *p, const char *metric, mp_steps *s)
{
    for (int i = 0; i < p->count && read_steps(p, metric, i, s); i++)
        p->cells[i].shown = s->count > 0;
    if (p->err->code ||
        !mp_plot_keep_cells(p, "no cell has this metric of its latents by step: it had no "
                               "reference, or ended before; name another --run, --cell or "
                               "--metric"))
        return;
    mp_plot_set_heading(p);
    mp_plot_set_subheading(p);
    mp_gnuplot_set_text(&p->g, "metric", metric);
    write_lines(p, metric, s);
    mp_plot_set_size_with_key(p, 900, 520);
    mp_plot_take_note(p, "drift by step");
}

void mp_draw_drift(mp_plot *p)
{
    mp_steps s = {0};

    if (mp_plot_choose_cells(p))
        draw(p, p->options->metric ? p->options->metric : "rel_l2", &s);
    mp_steps_free(&s);
}
