/* Which cells a plot shows, and what it calls them. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "plots/draw.h"
#include "results/table.h"

static void no_memory(mp_plot *p)
{
    mp_error_set(p->err, MP_ENOMEM, "no memory for a plot of %s", mp_store_path(p->data->store));
}

/* ---- the scenario and its run --------------------------------------------------------------- */

static const mp_subject *subject_at(const mp_plot *p, int i)
{
    return &p->h->subjects[i];
}

/* Subjects are in order of their scenarios: whether the i-th begins one. */
static bool begins_scenario(const mp_plot *p, int i)
{
    return !i || strcmp(subject_at(p, i)->scenario, subject_at(p, i - 1)->scenario) != 0;
}

static int list_scenarios(const mp_plot *p, char *names, size_t room)
{
    size_t length = 0;
    int n = 0;

    for (int i = 0; i < p->h->subject_count; i++) {
        if (!begins_scenario(p, i))
            continue;
        char *plain = mp_plain_text(subject_at(p, i)->scenario);
        if (length < room)
            length += (size_t)snprintf(names + length, room - length, "%s%.60s", n ? ", " : "",
                                       plain ? plain : "");
        mp_free(plain);
        n++;
    }
    return n;
}

/* A plot is of one scenario, but for cells that are named. */
static bool choose_scenario(mp_plot *p)
{
    char names[600];
    const int n = list_scenarios(p, names, sizeof names);

    if (!p->scenario && n == 1)
        p->scenario = subject_at(p, 0)->scenario;
    if (!p->scenario && !p->options->cell_count)
        mp_error_set(p->err, MP_EUSAGE, "%s: holds %d scenarios; choose one with --scenario: %s",
                     mp_store_path(p->data->store), n, names);
    return p->err->code == MP_OK;
}

static bool is_of_scenario(const mp_plot *p, int subject)
{
    return !p->scenario || !strcmp(subject_at(p, subject)->scenario, p->scenario);
}

static bool holds_cells(const mp_plot *p, int run)
{
    for (int s = 0; s < p->h->subject_count; s++)
        for (int i = 0; is_of_scenario(p, s) && i < subject_at(p, s)->count; i++)
            if (p->h->observations[subject_at(p, s)->first + i].run == run)
                return true;
    return false;
}

static bool is_named(const mp_history_run *r, const char *name)
{
    char id[24];

    snprintf(id, sizeof id, "%" PRId64, r->id);
    return !strcmp(name, id) || !strcmp(name, r->uuid) || (*r->label && !strcmp(name, r->label));
}

/* The newest run that fits; -1: there is none. */
static int find_run(const mp_plot *p)
{
    const char *name = p->options->run;
    int i = p->h->run_count - 1;

    while (i >= 0 && ((name && !is_named(&p->h->runs[i], name)) || !holds_cells(p, i)))
        i--;
    return i;
}

/* ---- the cells ------------------------------------------------------------------------------ */

static void add_cell(mp_plot *p, int subject, int observation)
{
    p->cells[p->count++] = (mp_plot_cell){
        .observation = observation, .subject = subject, .id = p->h->observations[observation].cell};
}

static bool is_asked_for(const mp_plot *p, int64_t id)
{
    for (int i = 0; i < p->options->cell_count; i++)
        if (p->options->cells[i] == id)
            return true;
    return false;
}

static bool complain_about_cells(mp_plot *p)
{
    for (int i = 0; i < p->options->cell_count; i++) {
        const int64_t id = p->options->cells[i];
        int k = 0;
        while (k < p->count && p->cells[k].id != id)
            k++;
        if (k == p->count)
            mp_error_set(p->err, MP_EMISSING,
                         "%s: no finished cell %" PRId64 "; `mpbench list` shows the ids",
                         mp_store_path(p->data->store), id);
    }
    return p->err->code == MP_OK;
}

static bool complain_about_run(mp_plot *p)
{
    char *plain = mp_plain_text(p->options->run ? p->options->run : "");

    mp_error_set(p->err, MP_EMISSING,
                 "%s: no run of id, UUID or label '%.80s' holds a finished cell of this scenario; "
                 "`mpbench list` shows the runs",
                 mp_store_path(p->data->store), plain ? plain : "");
    mp_free(plain);
    return false;
}

static int by_id(const void *a, const void *b)
{
    const mp_plot_cell *x = a, *y = b;

    return (x->id > y->id) - (x->id < y->id);
}

static bool make_room(mp_plot *p, int n)
{
    p->cells = mp_alloc((size_t)n, sizeof *p->cells);
    if (!p->cells)
        no_memory(p);
    return p->cells != NULL;
}

/* Those of a run, or those that are named. */
static void add_cells(mp_plot *p, int subject, int run)
{
    const mp_subject *s = subject_at(p, subject);

    for (int i = s->first; i < s->first + s->count; i++)
        if (p->options->cell_count ? is_asked_for(p, p->h->observations[i].cell)
                                   : p->h->observations[i].run == run)
            add_cell(p, subject, i);
}

bool mp_plot_choose_cells(mp_plot *p)
{
    if (!choose_scenario(p) || !make_room(p, p->h->observation_count))
        return false;
    const int run = p->options->cell_count ? -1 : find_run(p);
    if (!p->options->cell_count && run < 0)
        return complain_about_run(p);
    for (int s = 0; s < p->h->subject_count; s++)
        if (is_of_scenario(p, s))
            add_cells(p, s, run);
    if (p->options->cell_count && !complain_about_cells(p))
        return false;
    qsort(p->cells, (size_t)p->count, sizeof *p->cells, by_id);
    return true;
}

/* Whether cells are named, and none of them is this subject's. */
static bool is_left_aside(const mp_plot *p, const mp_subject *s)
{
    for (int i = s->first; i < s->first + s->count; i++)
        if (is_asked_for(p, p->h->observations[i].cell))
            return false;
    return p->options->cell_count > 0;
}

bool mp_plot_choose_subjects(mp_plot *p)
{
    if (!choose_scenario(p) || !make_room(p, p->h->subject_count))
        return false;
    for (int s = 0; s < p->h->subject_count; s++)
        if (is_of_scenario(p, s) && !is_left_aside(p, subject_at(p, s)))
            add_cell(p, s, subject_at(p, s)->first + subject_at(p, s)->count - 1);
    p->over_runs = true;
    qsort(p->cells, (size_t)p->count, sizeof *p->cells, by_id);
    return true;
}

bool mp_plot_keep_cells(mp_plot *p, const char *missing)
{
    const int all = p->count;
    int fit = 0;

    p->count = 0;
    for (int i = 0; i < all; i++)
        if (p->cells[i].shown && fit++ < MP_PLOT_CELLS)
            p->cells[p->count++] = p->cells[i];
    p->lacking = all - fit;
    p->left_out = fit - p->count;
    if (!fit)
        mp_error_set(p->err, MP_EMISSING, "%s: %s", mp_store_path(p->data->store), missing);
    else
        mp_plot_name_cells(p);
    return p->err->code == MP_OK;
}
