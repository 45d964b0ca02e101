/* What `mpbench run` says: progress to stderr, the result to stdout, JSON for programs. */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "harness/report.h"
#include "harness/run.h"
#include "results/query.h"

/* ---- numbers -------------------------------------------------------------------------------- */

typedef struct mp_number_text {
    char text[32];
} mp_number_text;

static mp_number_text number(double value, const char *format)
{
    mp_number_text n = {"-"};

    if (isfinite(value))
        snprintf(n.text, sizeof n.text, format, value);
    else if (!isnan(value))
        snprintf(n.text, sizeof n.text, value < 0 ? "-inf" : "inf");
    return n;
}

static mp_number_text summary(const mp_cell_report *c, const char *name, const char *format)
{
    return number(mp_metrics_summary(&c->metrics, name), format);
}

/* "ok", "error (expected)", "error!", "ok, over budget" */
static const char *status_text(const mp_cell_report *c, char *room, size_t size)
{
    const mp_cell_result *r = &c->result;
    const bool ok = !strcmp(r->status, "ok");
    const char *mark = !strcmp(r->status, "interrupted") ? ""
                       : !r->as_expected                 ? ok ? " (unexpected: see below)" : "!"
                       : !ok || r->expected              ? " (expected)"
                                                         : "";

    snprintf(room, size, "%s%s%s%s", r->status, mark, r->budget ? ", over budget" : "",
             c->recorded ? ", from before" : "");
    return room;
}

static double count_of(const mp_cell_result *r, const char *kinds)
{
    double n = 0;

    for (int64_t i = 0; i < r->action_count; i++)
        if (!strncmp(r->actions[i].kind, kinds, strlen(kinds)))
            n += (double)r->actions[i].count;
    return n;
}

mp_actions_text mp_report_actions(const mp_cell_result *r)
{
    const double casts = count_of(r, "cast_"), redone = count_of(r, "redo_");
    mp_actions_text t = {""};
    int n = 0;

    if (casts > 0)
        n = snprintf(t.text, sizeof t.text, ", %.0f cast%s", casts, casts > 1 ? "s" : "");
    if (redone > 0)
        snprintf(t.text + n, sizeof t.text - (size_t)n, ", %.0f redone in fp32", redone);
    return t;
}

/* ---- stderr --------------------------------------------------------------------------------- */

void mp_report_begin(const mp_cell *cell, int number, int count)
{
    fprintf(stderr, "[%d/%d] ", number, count);
    mp_print_plain(stderr, cell->key, -1);
    fputs("\n      ", stderr);
    mp_print_plain(stderr, cell->repro, -1);
    fputc('\n', stderr);
}

void mp_report_progress(const mp_cell_report *c)
{
    char status[96];

    fprintf(stderr, "      %s", status_text(c, status, sizeof status));
    if (!strcmp(c->result.status, "ok"))
        fprintf(stderr, ", %s s, latents %s, picture %s, %s MiB",
                summary(c, "seconds", "%.3f").text, summary(c, "latent_rel_l2", "%.3g").text,
                summary(c, "image_rel_l2", "%.3g").text, summary(c, "peak_mib", "%.0f").text);
    fputs(mp_report_actions(&c->result).text, stderr);
    fputs(isatty(STDERR_FILENO) ? "          \n" : "\n", stderr); /* over a progress line */
    if (c->result.error) {
        fputs("      ", stderr);
        mp_print_plain(stderr, c->result.error, 6);
        fputc('\n', stderr);
    }
}

/* ---- text ----------------------------------------------------------------------------------- */

static void add_row(mp_table *t, const mp_cell_report *c, bool rounds)
{
    char status[96];

    if (rounds)
        mp_table_add(t, "%d", c->round);
    mp_table_add(t, "%" PRId64, c->id);
    mp_table_add(t, "%s", c->cell->id);
    mp_table_add(t, "%s", status_text(c, status, sizeof status));
    mp_table_add(t, "%s", summary(c, "latent_rel_l2", "%.3g").text);
    mp_table_add(t, "%s", summary(c, "image_rel_l2", "%.3g").text);
    mp_table_add(t, "%s", summary(c, "psnr_db", "%.1f").text);
    mp_table_add(t, "%s", summary(c, "ssim", "%.4f").text);
    mp_table_add(t, "%s", summary(c, "seam", "%.2f").text);
    mp_table_add(t, "%s", summary(c, "seconds", "%.3f").text);
    mp_table_add(t, "%s", summary(c, "peak_mib", "%.0f").text);
}

void mp_report_line(const char *name, const char *text)
{
    if (!text)
        return;
    printf("      %-8s ", name);
    mp_print_plain(stdout, text, 15);
    putchar('\n');
}

/* "RuntimeError at diffusers/models/attention.py:120 in forward", until the next call. */
static const char *raised(const mp_cell_report *c)
{
    static char text[512];
    const mp_cell_result *r = &c->result;

    snprintf(text, sizeof text, "%s%s%s", r->exception, r->frame ? " at " : "",
             r->frame ? r->frame : "");
    return text;
}

/* "fallback, 12 redone in fp32; `mpbench show 7` lists them"; NULL: nothing was done. */
static const char *policy_line(mp_arena *a, const mp_cell_report *c)
{
    if (!c->result.action_count)
        return NULL;
    return mp_arena_printf(a, "%s%s; `mpbench show %" PRId64 "` lists them",
                           mp_policy_name(c->cell->scenario.request.precision.policy),
                           mp_report_actions(&c->result).text, c->id);
}

static bool equal(const char *a, const char *b)
{
    return a == b || (a && b && !strcmp(a, b));
}

/* Whether the round before said the same of the cell. */
static bool said_before(const mp_run *r, int i)
{
    const mp_cell_report *c = &r->reports[i], *last = c - 1;

    return i && last->cell == c->cell && equal(last->result.status, c->result.status) &&
           equal(last->result.error, c->result.error) &&
           equal(last->result.budget, c->result.budget) &&
           last->result.as_expected == c->result.as_expected;
}

/* What a reader must know beyond the table: errors, broken budgets and what the policy did. */
static void print_details(mp_arena *a, const mp_cell_report *c)
{
    const mp_cell_result *r = &c->result;
    const bool wrong = !r->as_expected && strcmp(r->status, "interrupted");

    if (!r->error && !wrong && !r->budget && !r->action_count)
        return;
    printf("  %" PRId64 "  ", c->id);
    mp_print_plain(stdout, c->cell->id, -1);
    putchar('\n');
    mp_report_line("error", r->error);
    mp_report_line("module", r->module);
    mp_report_line("op", r->op);
    mp_report_line("raised", r->exception ? raised(c) : NULL);
    if (wrong)
        mp_report_line("expected", r->expected ? r->expected : "success");
    mp_report_line("policy", policy_line(a, c));
    mp_report_line("budget", r->budget);
    if (wrong || r->budget)
        mp_report_line("repro", c->cell->repro);
}

/* Where the line stands first in the text; NULL: nowhere. */
static const char *find_line(const char *text, const char *line, size_t n)
{
    for (const char *s = text; s && *s; s += strcspn(s, "\n"), s += *s == '\n')
        if (strcspn(s, "\n") == n && !strncmp(s, line, n))
            return s;
    return NULL;
}

/* A line that cell `index` warns of first, and how many cells of the scenario do. */
static void print_warning(const mp_run *r, int first, int end, int index, const char *line,
                          size_t n)
{
    char *text;
    int cells = 0;

    for (int i = first; i < end; i++) {
        const bool has = find_line(r->reports[i].result.warnings, line, n) != NULL;
        if (has && i < index)
            return;
        cells += has;
    }
    text = mp_arena_strndup(r->arena, line, n);
    printf("  warning of %d cell%s, the first %" PRId64 ": ", cells, cells == 1 ? "" : "s",
           r->reports[index].id);
    mp_print_plain(stdout, text, 6);
    putchar('\n');
}

/* A library warns of the same in each cell: each line once. */
static void print_warnings(const mp_run *r, int first, int end)
{
    for (int i = first; i < end; i++) {
        const char *const text = r->reports[i].result.warnings;
        for (const char *s = text; s && *s;) {
            const size_t n = strcspn(s, "\n");
            if (find_line(text, s, n) == s)
                print_warning(r, first, end, i, s, n);
            s += n + (s[n] == '\n');
        }
    }
}

static void print_scenario(const mp_run *r, int first, int end)
{
    static const char *const heads[] = {"round>",   "id>",      "cell",     "status",
                                        "latents>", "picture>", "PSNR>",    "SSIM>",
                                        "seam>",    "time s>",  "peak MiB>"};
    const bool rounds = r->options->rounds > 1;
    const int columns = (int)(sizeof heads / sizeof *heads);
    mp_table *t = mp_table_create(columns - !rounds, heads + !rounds);

    for (int i = first; i < end; i++)
        add_row(t, &r->reports[i], rounds);
    printf("%s\n", r->reports[first].cell->scenario.name);
    mp_table_print(t, MP_TEXT, 2, stdout);
    mp_table_free(t);
    for (int i = first; i < end; i++)
        if (!said_before(r, i))
            print_details(r->arena, &r->reports[i]);
    print_warnings(r, first, end);
    putchar('\n');
}

typedef struct tally {
    int cells, unexpected, budgets, interrupted, missing;
} tally;

static tally count(const mp_run *r)
{
    tally t = {.cells = r->report_count,
               .missing = r->plan.count * r->options->rounds - r->report_count};

    for (int i = 0; i < r->report_count; i++) {
        const mp_cell_result *res = &r->reports[i].result;
        if (!strcmp(res->status, "interrupted"))
            t.interrupted++;
        else
            t.unexpected += !res->as_expected;
        t.budgets += res->budget != NULL;
    }
    return t;
}

static const char *verdict_word(const mp_run *r)
{
    if (r->trouble)
        return mp_interrupted() ? "INTERRUPTED" : "INCOMPLETE";
    switch (r->exit_status) {
    case MP_EXIT_OK:
        return "OK";
    case MP_EXIT_REGRESSION:
        return "REGRESSION";
    case MP_EXIT_USAGE:
        return "BAD INPUT";
    case MP_EXIT_FAILED:
        return "UNEXPECTED";
    default:
        return "INCONCLUSIVE";
    }
}

static const char *verdict(const mp_run *r)
{
    const tally t = count(r);
    mp_text text = {0};

    mp_text_printf(&text, "%s exit=%d (%d cell%s", verdict_word(r), r->exit_status, t.cells,
                   t.cells == 1 ? "" : "s");
    if (r->options->rounds > 1)
        mp_text_printf(&text, " in %d rounds", r->options->rounds);
    mp_text_add(&text, ": ");
    if (!t.unexpected && !t.budgets && !t.interrupted)
        mp_text_add(&text, "all as expected");
    else
        mp_text_printf(&text, "%d not as expected, %d over budget, %d interrupted", t.unexpected,
                       t.budgets, t.interrupted);
    if (t.missing)
        mp_text_printf(&text, "; %d not run", t.missing);
    if (r->options->rounds > 1)
        mp_text_printf(&text, "; label %s", r->label);
    else
        mp_text_printf(&text, "; run %" PRId64, r->id);
    mp_text_printf(&text, "%s%s)", r->comparison ? "; " : "", r->comparison ? r->compared : "");
    return mp_text_take(&text, r->arena);
}

void mp_report_verdict(const mp_run *r)
{
    fputs("verdict: ", stdout);
    mp_print_plain(stdout, verdict(r), -1);
    putchar('\n');
}

void mp_report_text(const mp_run *r)
{
    for (int i = 0; i < r->report_count;) {
        int end = i;
        while (end < r->report_count &&
               !strcmp(r->reports[end].cell->scenario.name, r->reports[i].cell->scenario.name))
            end++;
        print_scenario(r, i, end);
        i = end;
    }
    if (r->comparison) {
        fputs("against ", stdout);
        mp_print_plain(stdout, r->options->against, -1);
        printf(", run %" PRId64 "\n%s\n", r->against, r->comparison);
    }
    mp_report_verdict(r);
}

/* ---- JSON ----------------------------------------------------------------------------------- */

json_t *mp_report_text_json(const char *text)
{
    return text ? mp_json_text(text) : json_null();
}

json_t *mp_report_settings_json(const mp_scenario *s)
{
    json_t *map = json_object();

    for (int i = 0; i < s->setting_count; i++)
        json_object_set_new(map, s->settings[i].key, mp_report_text_json(s->settings[i].value));
    return map;
}

json_t *mp_report_actions_json(const mp_cell_result *r, bool timed)
{
    json_t *list = json_array();

    for (int64_t i = 0; i < r->action_count; i++) {
        const mp_action_row *a = &r->actions[i];
        json_t *row = json_pack("{ss ss ss ss ss ss sI sI}", "stage", a->stage, "module", a->module,
                                "op", a->op, "kind", a->kind, "from", a->from, "to", a->to, "count",
                                (json_int_t)a->count, "elements", (json_int_t)a->elements);
        if (timed)
            json_object_set_new(row, "seconds", json_real(a->seconds));
        json_array_append_new(list, row);
    }
    return list;
}

/* JSON has no infinities: they are strings, as in the database. */
static json_t *number_json(double value)
{
    return isfinite(value) ? json_real(value)
                           : json_string(isnan(value) ? "nan"
                                         : value < 0  ? "-inf"
                                                      : "inf");
}

static json_t *metrics_json(const mp_metrics *m)
{
    json_t *list = json_array();

    for (int64_t i = 0; i < m->count; i++) {
        const mp_metric_row *row = &m->rows[i];
        json_array_append_new(list, json_pack("{ss ss si ss so ss}", "name", row->name, "stage",
                                              row->stage, "step", row->step, "module", row->module,
                                              "value", number_json(row->value), "unit", row->unit));
    }
    return list;
}

static json_t *samples_json(const mp_cell_result *r)
{
    json_t *list = json_array();

    for (int64_t i = 0; i < r->sample_count; i++)
        json_array_append_new(list,
                              json_pack("{si ss sf}", "repeat", r->samples[i].repeat, "stage",
                                        r->samples[i].stage, "seconds", r->samples[i].seconds));
    return list;
}

static json_t *cell_json(const mp_cell_report *c)
{
    const mp_cell_result *r = &c->result;

    return json_pack("{sI sI ss ss ss so ss so sb so so so so so so so so so so so so so}", "run",
                     (json_int_t)c->run, "id", (json_int_t)c->id, "key", c->cell->key, "scenario",
                     c->cell->scenario.name, "cell", c->cell->id, "settings",
                     mp_report_settings_json(&c->cell->scenario), "status", r->status, "outcome",
                     mp_report_text_json(r->outcome), "as_expected", (int)r->as_expected,
                     "expected", mp_report_text_json(r->expected), "error",
                     mp_report_text_json(r->error), "module", mp_report_text_json(r->module), "op",
                     mp_report_text_json(r->op), "want", mp_report_text_json(r->want), "got",
                     mp_report_text_json(r->got), "stage", mp_report_text_json(r->stage), "budget",
                     mp_report_text_json(r->budget), "repro", mp_json_text(c->cell->repro),
                     "warnings", mp_report_text_json(r->warnings), "metrics",
                     metrics_json(&c->metrics), "samples", samples_json(r), "actions",
                     mp_report_actions_json(r, true));
}

static json_t *against_json(const mp_run *r)
{
    if (!r->comparison)
        return json_null();
    return json_pack("{so sI so}", "name", mp_json_text(r->options->against), "run",
                     (json_int_t)r->against, "comparison", json_loads(r->comparison, 0, NULL));
}

void mp_report_json(const mp_run *r)
{
    json_t *cells = json_array(), *all;

    for (int i = 0; i < r->report_count; i++)
        json_array_append_new(cells, cell_json(&r->reports[i]));
    all =
        json_pack("{si ss sI ss so so ss si so so so}", "version", 1, "kind", "mpbench run", "run",
                  (json_int_t)r->id, "uuid", r->uuid, "label", mp_report_text_json(r->label),
                  "database", mp_json_text(mp_store_path(r->store)), "fingerprint",
                  r->environment.fingerprint, "exit_status", r->exit_status, "verdict",
                  mp_json_text(verdict(r)), "cells", cells, "against", against_json(r));
    json_dumpf(all, stdout, JSON_INDENT(1) | JSON_ENSURE_ASCII);
    putchar('\n');
    json_decref(all);
}
