#include "plots/plot.h"

#include <string.h>

#include "kernels/core/memory.h"
#include "plots/draw.h"

const mp_plot_kind mp_plot_kinds[] = {
    {"series", "metrics over the runs, with what changed", mp_draw_series},
    {"drift", "distance from the reference by denoising step", mp_draw_drift},
    {"pareto", "drift against time and against memory", mp_draw_pareto},
    {"stages", "where the time goes, by stage", mp_draw_stages},
    {"pictures", "reference, output and their difference", mp_draw_pictures},
    {0},
};

const mp_plot_kind *mp_plot_kind_of(const char *name)
{
    const mp_plot_kind *k = mp_plot_kinds;

    while (k->name && strcmp(k->name, name))
        k++;
    return k->name ? k : NULL;
}

mp_code mp_plot_data_load(mp_store *s, const char *scenario, mp_plot_data *out, mp_error *err)
{
    *out = (mp_plot_data){.store = s};
    return mp_history_load(s, &(mp_history_filter){.scenario = scenario}, &out->history, err);
}

void mp_plot_data_free(mp_plot_data *d)
{
    mp_history_free(d->history);
    mp_findings_free(&d->findings);
    *d = (mp_plot_data){0};
}

mp_code mp_plot_draw(const mp_plot_kind *kind, mp_plot_data *d, const mp_plot_options *o,
                     mp_plot_note *note, mp_error *err)
{
    mp_plot p = {.data = d,
                 .h = d->history,
                 .options = o,
                 .g = {.folder = o->folder,
                       .templates = o->templates,
                       .png = o->png,
                       .width = o->width,
                       .height = o->height,
                       .stopped = o->stopped,
                       .err = err},
                 .scenario = o->scenario,
                 .note = note,
                 .err = err};

    *note = (mp_plot_note){0};
    kind->draw(&p);
    if (!err->code)
        mp_gnuplot_draw(&p.g, kind->name);
    mp_gnuplot_end(&p.g);
    mp_free(p.cells);
    return err->code;
}
