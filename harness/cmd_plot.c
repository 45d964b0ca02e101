#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/commands.h"
#include "harness/folders.h"
#include "harness/options.h"
#include "harness/process.h"
#include "kernels/core/memory.h"
#include "pipelines/common/file.h"
#include "plots/plot.h"
#include "plots/templates.h"
#include "results/metrics.h"

enum { PICTURE_LIMIT = 1 << 28, SIDE_MIN = 200, SIDE_MAX = 10000 };

typedef struct job {
    mp_arena *arena;
    const char *kind, *out, *keep, *size, *print; /* NULL: not given */
    mp_words cells;
    mp_plot_options options;
    mp_plot_data data;
    int drawn;
    mp_error err;
} job;

/* ---- the command line ----------------------------------------------------------------------- */

static bool is_ended(const char *text, const char *ending)
{
    const size_t n = strlen(text), k = strlen(ending);

    return n > k && !strcmp(text + n - k, ending);
}

static mp_code check_kind(job *j)
{
    mp_text names = {0};

    if (!j->kind || mp_plot_kind_of(j->kind))
        return MP_OK;
    for (const mp_plot_kind *k = mp_plot_kinds; k->name; k++)
        mp_text_printf(&names, "%s%s", k > mp_plot_kinds ? ", " : "", k->name);
    mp_error_set(&j->err, MP_EUSAGE, "'%s' is no kind of plot, expected one of %s",
                 mp_plain(j->kind).text, names.data);
    mp_text_free(&names);
    return j->err.code;
}

static mp_code check_out(job *j)
{
    if (j->kind && j->options.run && !strcmp(j->kind, "series"))
        return mp_error_set(&j->err, MP_EUSAGE, "--run: series go over all runs; leave it out");
    if (!j->kind) {
        j->out = j->out ? j->out : "plots";
        return is_ended(j->out, ".svg") || is_ended(j->out, ".png")
                   ? mp_error_set(
                         &j->err, MP_EUSAGE,
                         "--out %s: is one file, and there are several plots; name a kind, "
                         "or a folder",
                         j->out)
                   : MP_OK;
    }
    j->out = j->out ? j->out : mp_arena_printf(j->arena, "%s.svg", j->kind);
    j->options.png = is_ended(j->out, ".png");
    return j->options.png || is_ended(j->out, ".svg")
               ? MP_OK
               : mp_error_set(&j->err, MP_EUSAGE,
                              "--out %s: expected a file that ends in .svg or .png", j->out);
}

static mp_code parse_size(job *j)
{
    mp_plot_options *o = &j->options;
    char rest;

    if (!j->size ||
        (sscanf(j->size, "%5dx%5d%c", &o->width, &o->height, &rest) == 2 && o->width >= SIDE_MIN &&
         o->height >= SIDE_MIN && o->width <= SIDE_MAX && o->height <= SIDE_MAX))
        return MP_OK;
    return mp_error_set(
        &j->err, MP_EUSAGE,
        "--size %s: expected WIDTHxHEIGHT in pixels, %d to %d each, such as 900x560", j->size,
        (int)SIDE_MIN, (int)SIDE_MAX);
}

static mp_code parse_cells(job *j)
{
    int64_t *ids = mp_arena_alloc(j->arena, (size_t)j->cells.count, sizeof *ids);

    for (int i = 0; i < j->cells.count; i++)
        if (!mp_parse_id(j->cells.items[i], &ids[i]))
            return mp_error_set(&j->err, MP_EUSAGE,
                                "--cell %.60s: is no cell id, expected a number; `mpbench list` "
                                "shows the ids",
                                j->cells.items[i]);
    j->options.cells = ids;
    j->options.cell_count = j->cells.count;
    return MP_OK;
}

static mp_code check_templates(job *j)
{
    const char *folder = j->options.templates;

    return !folder || !access(folder, R_OK | X_OK)
               ? MP_OK
               : mp_error_set(&j->err, MP_EUSAGE, "--templates %s: cannot be read: %s", folder,
                              strerror(errno));
}

static mp_code print_template(job *j)
{
    const char *text = mp_template_text(mp_arena_printf(j->arena, "%s.gp", j->print));

    if (!text)
        return mp_error_set(&j->err, MP_EUSAGE,
                            "--print-template %s: there is none; expected a kind of plot, or style",
                            mp_plain(j->print).text);
    fputs(text, stdout);
    return MP_OK;
}

/* ---- one plot ------------------------------------------------------------------------------- */

static mp_code make_folder(job *j, const char *name)
{
    const char *base = getenv("TMPDIR");
    char *folder;

    if (j->keep) {
        j->options.folder = mp_arena_printf(j->arena, "%s/%s", j->keep, name);
        return mp_make_folders(j->options.folder, &j->err);
    }
    folder = mp_arena_printf(j->arena, "%s/mpbench-plot-XXXXXX", base && *base ? base : "/tmp");
    j->options.folder = mkdtemp(folder);
    return j->options.folder ? MP_OK
                             : mp_error_set(&j->err, MP_EIO,
                                            "%s: a folder for gnuplot cannot be made: %s; name "
                                            "another place with TMPDIR",
                                            folder, strerror(errno));
}

/* The finished picture to where the user wants it, in one step. */
static mp_code deliver(job *j, const char *kind, const char *out)
{
    const char *from = mp_arena_printf(j->arena, "%s/%s.%s", j->options.folder, kind,
                                       j->options.png ? "png" : "svg");
    char *bytes = NULL;
    size_t size;
    mp_replace r = {0};

    if (!mp_file_read(from, PICTURE_LIMIT, &bytes, &size, &j->err) &&
        !mp_replace_begin(&r, out, &j->err)) {
        mp_replace_write(&r, bytes, size, &j->err);
        mp_replace_commit(&r, &j->err);
    }
    mp_free(bytes);
    return j->err.code;
}

static mp_code draw(job *j, const mp_plot_kind *kind, const char *name, const char *out)
{
    mp_plot_note note;

    if (make_folder(j, name))
        return j->err.code;
    if (!mp_plot_draw(kind, &j->data, &j->options, &note, &j->err) &&
        !deliver(j, kind->name, out)) {
        printf("%s: %s\n", out, note.text);
        j->drawn++;
    }
    if (!j->keep)
        mp_remove_folder(j->options.folder);
    return j->err.code;
}

/* ---- all of them ---------------------------------------------------------------------------- */

/* A scenario's name as that of a file; where it is not one, its hash keeps it apart. */
static const char *file_name(mp_arena *a, const char *scenario)
{
    static const char fine[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    enum { LENGTH = 80 };
    char *name = mp_arena_strndup(a, scenario, LENGTH), hash[65];

    for (char *s = name; *s; s++)
        if (!strchr(fine, *s) || (s == name && *s == '.'))
            *s = '_';
    if (!strcmp(name, scenario))
        return name;
    mp_sha256_hex(scenario, strlen(scenario), hash);
    return mp_arena_printf(a, "%s-%.8s", name, hash);
}

/* Those for which the scenario has data. */
static mp_code draw_scenario(job *j, const char *scenario)
{
    const char *name = file_name(j->arena, scenario);

    j->options.scenario = scenario;
    for (const mp_plot_kind *k = mp_plot_kinds; k->name && !j->err.code && !mp_interrupted(); k++) {
        const char *plot = mp_arena_printf(j->arena, "%s-%s", name, k->name);
        draw(j, k, plot, mp_arena_printf(j->arena, "%s/%s.svg", j->out, plot));
        if (j->err.code == MP_EMISSING)
            j->err = (mp_error){0};
    }
    return j->err.code;
}

static mp_code draw_all(job *j)
{
    const mp_history *h = j->data.history;

    if (mp_make_folders(j->out, &j->err))
        return j->err.code;
    for (int i = 0; i < h->subject_count && !j->err.code; i++)
        if (!i || strcmp(h->subjects[i].scenario, h->subjects[i - 1].scenario) != 0)
            draw_scenario(j, h->subjects[i].scenario);
    if (!j->drawn && !j->err.code && !mp_interrupted())
        mp_error_set(&j->err, MP_EMISSING, "nothing that the database holds can be plotted");
    return j->err.code;
}

static mp_code plot(job *j, const char *db)
{
    mp_store *s = NULL;

    if (!check_kind(j) && !check_out(j) && !parse_size(j) && !parse_cells(j) &&
        !check_templates(j) && !mp_store_open(db, MP_STORE_READ, &s, &j->err) &&
        !mp_plot_data_load(s, j->options.scenario, &j->data, &j->err)) {
        mp_interrupt_catch(); /* from now on there is a folder to be removed */
        if (j->kind)
            draw(j, mp_plot_kind_of(j->kind), "", j->out);
        else
            draw_all(j);
    }
    if (mp_interrupted())
        mp_error_set(&j->err, MP_EIO, "interrupted");
    mp_plot_data_free(&j->data);
    mp_store_close(s);
    return j->err.code;
}

int mp_cmd_plot(int argc, char **argv)
{
    job j = {.arena = mp_arena_create(), .options = {.stopped = mp_interrupted}};
    const char *db = NULL;
    const mp_option options[] = {
        MP_OPTION_DATABASE(&db),
        MP_OPTION("out", TEXT, &j.out, "FILE",
                  "picture, .svg or .png (default: KIND.svg); without KIND a folder (plots)"),
        MP_OPTION("scenario", TEXT, &j.options.scenario, "S", "this scenario"),
        MP_OPTION("metric", TEXT, &j.options.metric, "M", "this metric, such as psnr_db"),
        MP_OPTION("run", TEXT, &j.options.run, "R", "id, UUID or label (default: the newest run)"),
        MP_OPTION("cell", LIST, &j.cells, "ID",
                  "this cell, of any run; may be given several times"),
        MP_OPTION("size", TEXT, &j.size, "WxH", "pixels (default: by what is drawn)"),
        MP_OPTION("templates", TEXT, &j.options.templates, "DIR",
                  "gnuplot scripts that go before the built-in ones"),
        MP_OPTION("keep", TEXT, &j.keep, "DIR", "keep data and scripts there, to be run again"),
        MP_OPTION("print-template", TEXT, &j.print, "KIND",
                  "print the gnuplot script of a kind (or style) and draw nothing"),
    };
    const mp_usage usage = {
        .command = "plot",
        .operands = "[KIND]",
        .summary = "Draws what the database holds, by gnuplot. KIND is series (metrics over the "
                   "runs, with\nwhat changed), drift (by denoising step), pareto (drift against "
                   "time and memory), stages\n(seconds by stage) or pictures (reference, output, "
                   "difference); without it, all of them\nfor each scenario.",
        .options = options,
        .option_count = sizeof options / sizeof *options,
        .max_operands = 1};
    mp_words operands;
    int status;

    if (mp_options_parse(j.arena, &usage, argc, argv, &operands, &status)) {
        j.kind = operands.count ? operands.items[0] : NULL;
        status = MP_EXIT_OK;
        if (j.print ? print_template(&j) : plot(&j, mp_database_path(db))) {
            status = mp_complain("plot", &j.err);
        }
    }
    mp_arena_free(j.arena);
    return status;
}
