/* The tables of the report page. */
#include "plots/html.h"
#include "plots/report_parts.h"

#include <math.h>
#include <string.h>

#include "kernels/core/memory.h"

/* ---- frame ---------------------------------------------------------------------------------- */

/* What a column is, by the last character of its head: '>' numbers, '|' few different texts, which
 * are a choice to filter by. */
static void put_heading(FILE *to, const char *head)
{
    const size_t n = strlen(head);
    const char kind = head[n - 1];

    fputs("<th scope=\"col\"", to);
    fputs(kind == '>' ? " class=\"n\" data-sort=\"n\"" : " data-sort=\"t\"", to);
    fputs(kind == '|' ? " data-choice>" : ">", to);
    fwrite(head, 1, n - (kind == '>' || kind == '|'), to);
    fputs("</th>", to);
}

/* heads end with NULL; "" is left out, for a column that is not always there. */
static void begin_table(mp_page *p, const char *id, const char *caption, const char *const *heads)
{
    mp_html(
        p->to,
        "<div class=\"wide\" role=\"region\" tabindex=\"0\" aria-labelledby=\"%s-caption\">\n"
        "<table id=\"%s-table\" data-tools><caption id=\"%s-caption\"><span>%s</span></caption>\n"
        "<thead><tr>",
        id, id, id, caption);
    for (; *heads; heads++)
        if (**heads)
            put_heading(p->to, *heads);
    fputs("</tr></thead>\n<tbody>\n", p->to);
}

static void end_table(mp_page *p)
{
    fputs("</tbody></table></div>\n", p->to);
}

static void put_none(mp_page *p, const char *text)
{
    mp_html(p->to, "<p class=\"empty\">%s</p>\n", text);
}

/* ---- cells of tables ------------------------------------------------------------------------ */

static void put_number(FILE *to, bool known, double value, const char *format)
{
    char shown[40], exact[40];

    if (!known) {
        fputs("<td class=\"n\">-</td>", to);
        return;
    }
    snprintf(exact, sizeof exact, "%.9g", isnan(value) ? NAN : value);
    if (isfinite(value))
        snprintf(shown, sizeof shown, format, value);
    else
        snprintf(shown, sizeof shown, "%s", exact);
    mp_html(to, "<td class=\"n\" data-v=\"%s\">%s</td>", exact, shown);
}

static void put_metric(FILE *to, const json_t *cell, const char *name, const char *format)
{
    double value;
    const bool known = mp_page_metric(cell, name, &value);

    put_number(to, known, value, format);
}

/* A machine is told by the first digits of its fingerprint, and only where there are several. */
static void put_machine(const mp_page *p, const char *fingerprint)
{
    char machine[9];

    snprintf(machine, sizeof machine, "%s", fingerprint);
    if (p->machines)
        mp_html(p->to, "<td><code>%s</code></td>", machine);
}

static void put_badge(FILE *to, const char *class, const char *text)
{
    mp_html(to, "<span class=\"badge %s\">%s</span>", class, text);
}

static void put_count(FILE *to, const char *class, int count, const char *what)
{
    char text[48];

    snprintf(text, sizeof text, "%d %s", count, what);
    if (count)
        put_badge(to, class, text);
}

static const char *state_class(const json_t *cell)
{
    static const char *const classes[] = {[MP_PAGE_OK] = "good",
                                          [MP_PAGE_UNEXPECTED] = "bad",
                                          [MP_PAGE_OVER_BUDGET] = "warn",
                                          [MP_PAGE_UNFINISHED] = "open"};

    return classes[mp_page_state_of(cell)];
}

/* "ok", "error, expected", "ok, over budget" */
static void put_status(FILE *to, const json_t *cell)
{
    const char *status = mp_page_text(cell, "status");
    const mp_page_state state = mp_page_state_of(cell);
    const bool remarkable = strcmp(status, "ok") != 0 || *mp_page_text(cell, "expected");
    char text[64];

    snprintf(text, sizeof text, "%.30s%s%s", status,
             state == MP_PAGE_UNEXPECTED                 ? ", unexpected"
             : remarkable && state != MP_PAGE_UNFINISHED ? ", expected"
                                                         : "",
             *mp_page_text(cell, "budget") ? ", over budget" : "");
    put_badge(to, state_class(cell), text);
}

static void put_engine(FILE *to, const char *engine, const char *device)
{
    mp_html(to, "<td>%s/%s</td>", engine, device);
}

/* A command, to which the script adds a button that copies it. */
static void put_command(FILE *to, const char *command)
{
    mp_html(to, "<div class=\"command\"><code>%s</code></div>", command);
}

/* ---- overview ------------------------------------------------------------------------------- */

/* Of a group: the worst, the sum or the largest of a metric.  NaN is worse than any number. */
typedef enum fold { WORST_HIGH, WORST_LOW, SUM } fold;

static bool fold_metric(const mp_page *p, const mp_page_group *g, const char *name, fold how,
                        double *out)
{
    bool known = false;

    for (size_t i = g->first; i < g->first + g->count; i++) {
        double x;
        if (!mp_page_metric(json_array_get(p->cells, i), name, &x))
            continue;
        if (!known)
            *out = x;
        else if (how == SUM)
            *out += x;
        else if (isnan(x) || (how == WORST_HIGH ? x > *out : x < *out))
            *out = x;
        known = true;
    }
    return known;
}

static void put_fold(const mp_page *p, const mp_page_group *g, const char *name, fold how,
                     const char *format)
{
    double value = 0;
    const bool known = fold_metric(p, g, name, how, &value);

    put_number(p->to, known, value, format);
}

static bool has_problem(const mp_page_group *g)
{
    return g->tally.ok < g->tally.cells || g->tally.open_findings;
}

static void put_group(mp_page *p, const mp_page_group *g)
{
    const json_t *cell = json_array_get(p->cells, g->first);
    const mp_page_result *t = &g->tally;

    mp_html(p->to, "<tr><th scope=\"row\"><a href=\"#cell-%jd\">%s</a></th><td>",
            mp_page_id(cell, "id"), mp_page_text(cell, "scenario"));
    put_count(p->to, "bad", t->unexpected, "unexpected");
    put_count(p->to, "warn", t->over_budget, "over budget");
    put_count(p->to, "open", t->unfinished, "unfinished");
    put_count(p->to, "bad", t->open_findings, t->open_findings == 1 ? "finding" : "findings");
    if (!has_problem(g))
        put_badge(p->to, "good", "as expected");
    fputs("</td>", p->to);
    put_engine(p->to, mp_page_text(cell, "engine"), mp_page_text(cell, "device"));
    put_machine(p, mp_page_text(cell, "fingerprint"));
    put_number(p->to, true, t->cells, "%.0f");
    put_fold(p, g, "latent_rel_l2", WORST_HIGH, "%.3g");
    put_fold(p, g, "psnr_db", WORST_LOW, "%.1f");
    put_fold(p, g, "seconds", SUM, "%.3f");
    put_fold(p, g, "peak_mib", WORST_HIGH, "%.0f");
    mp_html(p->to, "<td class=\"n\" data-v=\"%jd\">%jd</td><td class=\"date\" data-v=\"%s\">",
            mp_page_id(cell, "run"), mp_page_id(cell, "run"), mp_page_text(cell, "started"));
    mp_page_put_time(p->to, mp_page_text(cell, "started"));
    fputs("</td></tr>\n", p->to);
}

void mp_page_overview(mp_page *p)
{
    const char *const heads[] = {"Scenario",       "Status",
                                 "Engine|",        p->machines ? "Machine|" : "",
                                 "Cells>",         "Worst latents drift>",
                                 "Worst PSNR dB>", "Time s>",
                                 "Peak MiB>",      "Run>",
                                 "Started (UTC)",  NULL};

    if (!p->group_count)
        return put_none(p, "No scenario has run.");
    begin_table(p, "overview",
                "Scenarios in their newest runs, those that need a look first. Drift is the "
                "relative L2 distance of the latents from the reference.",
                heads);
    for (int problem = 1; problem >= 0; problem--)
        for (int i = 0; i < p->group_count; i++)
            if (has_problem(&p->groups[i]) == problem)
                put_group(p, &p->groups[i]);
    end_table(p);
}

/* ---- findings ------------------------------------------------------------------------------- */

enum { FINDINGS = 300 }; /* rows: an old database has many that are fixed by now */

static void put_commits(const mp_page *p, const mp_finding *f)
{
    const mp_history *h = p->history;
    const mp_history_run *before = &h->runs[h->observations[f->before].run];
    const mp_history_run *after = &h->runs[h->observations[f->after].run];

    mp_html(p->to, "<td class=\"date\" data-v=\"%s\">", after->started);
    mp_page_put_commit(p->to, before->revision);
    fputs(" to ", p->to);
    mp_page_put_commit(p->to, after->revision);
    mp_html(p->to, "<small>run %jd, ", (intmax_t)before->id);
    mp_page_put_time(p->to, before->started);
    mp_html(p->to, "<br>run %jd, ", (intmax_t)after->id);
    mp_page_put_time(p->to, after->started);
    fputs("</small></td>", p->to);
}

static void put_subject(const mp_page *p, const mp_subject *x)
{
    const json_t *cell = mp_page_cell_of(p, x);

    if (cell)
        mp_html(p->to, "<th scope=\"row\"><a href=\"#series-%jd\">%s</a><small>%s</small></th>",
                mp_page_id(cell, "id"), x->scenario, mp_page_cell_name(cell));
    else
        mp_html(p->to, "<th scope=\"row\">%s<small>%s, no longer run</small></th>", x->scenario,
                x->key);
}

/* What changed, its size, how sure that is, and the command that shows it. */
static void put_what(const mp_page *p, const mp_finding *f)
{
    const double scale = 100 / fabs(f->value_before);
    char text[96] = "", cell[24];

    snprintf(cell, sizeof cell, "%jd", (intmax_t)p->history->observations[f->after].cell);
    if (isfinite(f->low * scale) && isfinite(f->high * scale))
        snprintf(text, sizeof text, "95 %% interval %+.1f to %+.1f %%, q = %.2g", f->low * scale,
                 f->high * scale, f->q);
    mp_html(p->to, "<td class=\"text\">%s<small>%s</small>", f->what, text);
    if (f->why)
        mp_html(p->to, "<small>Acknowledged: %s</small>", f->why);
    put_command(p->to, mp_page_text(p->repros, cell));
    fputs("</td>", p->to);
}

static void put_finding(mp_page *p, const mp_finding *f)
{
    static const char *const directions[] = {"worse", "other", "better"};
    const mp_subject *x = &p->history->subjects[f->subject];

    fputs("<tr>", p->to);
    put_subject(p, x);
    fputs("<td>", p->to);
    put_badge(p->to, f->open ? "bad" : "plain",
              f->open ? "open" : mp_finding_state_names[f->state]);
    if (f->id)
        mp_html(p->to, "<small>finding %jd</small>", (intmax_t)f->id);
    mp_html(p->to, "</td><td>%s</td><td>%s</td>", mp_finding_kind_names[f->kind],
            directions[f->direction + 1]);
    put_engine(p->to, x->engine, x->device);
    put_machine(p, x->fingerprint);
    put_what(p, f);
    put_commits(p, f);
    fputs("</tr>\n", p->to);
}

void mp_page_findings(mp_page *p)
{
    const char *const heads[] = {"Cell",       "State|",  "Kind|",
                                 "Direction|", "Engine|", p->machines ? "Machine|" : "",
                                 "What",       "Between", NULL};
    const int shown = p->findings.count < FINDINGS ? p->findings.count : FINDINGS;

    if (!shown)
        return put_none(p, "Nothing has changed over the runs.");
    begin_table(p, "findings",
                "What changed over the runs, open findings first, the worst of them on top.",
                heads);
    for (int i = 0; i < shown; i++)
        put_finding(p, &p->findings.items[i]);
    end_table(p);
    if (shown < p->findings.count)
        mp_html(p->to,
                "<p class=\"empty\">%d more are left out here; <code>mpbench regressions "
                "--format csv</code> shows them all.</p>\n",
                p->findings.count - shown);
}

/* ---- incidents ------------------------------------------------------------------------------ */

static bool is_incident(const json_t *cell)
{
    return strcmp(mp_page_text(cell, "status"), "ok") != 0 || *mp_page_text(cell, "budget") ||
           mp_page_state_of(cell) != MP_PAGE_OK;
}

static void put_cell_link(const mp_page *p, const json_t *cell)
{
    mp_html(p->to, "<th scope=\"row\"><a href=\"#cell-%jd\">%s</a><small>%s</small></th>",
            mp_page_id(cell, "id"), mp_page_text(cell, "scenario"), mp_page_cell_name(cell));
}

/* One of several facts under each other, where it is known. */
static void put_fact(FILE *to, const char *name, const char *text)
{
    if (*text)
        mp_html(to, "<div><dt>%s</dt><dd>%s</dd></div>", name, text);
}

static void put_error(FILE *to, const json_t *cell)
{
    fputs("<td class=\"text\">", to);
    if (*mp_page_text(cell, "exception"))
        mp_html(to, "<b>%s</b>", mp_page_text(cell, "exception"));
    if (*mp_page_text(cell, "error"))
        mp_html(to, "<pre>%s</pre>", mp_page_text(cell, "error"));
    fputs("<dl>", to);
    put_fact(to, "want", mp_page_text(cell, "want"));
    put_fact(to, "got", mp_page_text(cell, "got"));
    put_fact(to, "expected", mp_page_text(cell, "expected"));
    put_fact(to, "over budget", mp_page_text(cell, "budget"));
    put_fact(to, "warnings", mp_page_text(cell, "warnings"));
    fputs("</dl>", to);
    put_command(to, mp_page_text(cell, "repro"));
    fputs("</td>", to);
}

static void put_number_fact(FILE *to, const char *name, const json_t *cell, int least)
{
    const json_t *value = json_object_get(cell, name);

    if (json_is_integer(value) && json_integer_value(value) >= least)
        mp_html(to, "<div><dt>%s</dt><dd>%jd</dd></div>", name, mp_page_id(cell, name));
}

static void put_place(FILE *to, const json_t *cell)
{
    mp_html(to, "<td data-v=\"%s\" class=\"place\"><code>%s</code><dl>",
            mp_page_text(cell, "module"), mp_page_text(cell, "module"));
    put_fact(to, "op", mp_page_text(cell, "op"));
    put_fact(to, "stage", mp_page_text(cell, "stage"));
    put_number_fact(to, "step", cell, 0);
    put_fact(to, "frame", mp_page_text(cell, "frame"));
    put_number_fact(to, "signal", cell, 1);
    fputs("</dl></td>", to);
}

static void put_incident(mp_page *p, const json_t *cell)
{
    const char *outcome = mp_page_text(cell, "outcome");
    const mp_page_state state = mp_page_state_of(cell);

    fputs("<tr>", p->to);
    put_cell_link(p, cell);
    put_engine(p->to, mp_page_text(cell, "engine"), mp_page_text(cell, "device"));
    put_machine(p, mp_page_text(cell, "fingerprint"));
    fputs("<td>", p->to);
    put_badge(p->to, state_class(cell),
              state == MP_PAGE_UNEXPECTED    ? "unexpected"
              : state == MP_PAGE_UNFINISHED  ? "unfinished"
              : state == MP_PAGE_OVER_BUDGET ? "over budget"
                                             : "expected");
    mp_html(p->to, "</td><td>%s%s%s</td>", mp_page_text(cell, "status"), *outcome ? ": " : "",
            outcome);
    put_error(p->to, cell);
    put_place(p->to, cell);
    fputs("</tr>\n", p->to);
}

void mp_page_incidents(mp_page *p)
{
    const char *const heads[] = {"Cell",     "Engine|",  p->machines ? "Machine|" : "",
                                 "Verdict|", "Outcome|", "Error and how to see it again",
                                 "Module",   NULL};
    static const mp_page_state order[] = {MP_PAGE_UNEXPECTED, MP_PAGE_OVER_BUDGET,
                                          MP_PAGE_UNFINISHED, MP_PAGE_OK};
    const json_t *cell;
    bool begun = false;
    size_t k;

    for (size_t i = 0; i < sizeof order / sizeof *order; i++)
        json_array_foreach (p->cells, k, cell)
            if (mp_page_state_of(cell) == order[i] && is_incident(cell)) {
                if (!begun)
                    begin_table(p, "incidents",
                                "Cells that ended in an error, otherwise than expected, or over a "
                                "budget; the unexpected ones first.",
                                heads);
                begun = true;
                put_incident(p, cell);
            }
    if (begun)
        end_table(p);
    else
        put_none(p, "No cell ended in an error or otherwise than expected.");
}

/* ---- cells ---------------------------------------------------------------------------------- */

static void put_cell(mp_page *p, const json_t *cell)
{
    const intmax_t id = mp_page_id(cell, "id");

    mp_html(p->to, "<tr id=\"cell-%jd\"><td class=\"n\" data-v=\"%jd\">%jd</td><td>%s</td>", id, id,
            id, mp_page_text(cell, "scenario"));
    mp_html(p->to, "<th scope=\"row\">%s</th>", mp_page_cell_name(cell));
    put_engine(p->to, mp_page_text(cell, "engine"), mp_page_text(cell, "device"));
    put_machine(p, mp_page_text(cell, "fingerprint"));
    fputs("<td>", p->to);
    put_status(p->to, cell);
    fputs("</td>", p->to);
    put_metric(p->to, cell, "latent_rel_l2", "%.3g");
    put_metric(p->to, cell, "image_rel_l2", "%.3g");
    put_metric(p->to, cell, "psnr_db", "%.1f");
    put_metric(p->to, cell, "ssim", "%.4f");
    put_metric(p->to, cell, "seam", "%.2f");
    put_metric(p->to, cell, "seconds", "%.3f");
    put_metric(p->to, cell, "peak_mib", "%.0f");
    mp_html(p->to, "<td class=\"n\" data-v=\"%jd\">%jd</td></tr>\n", mp_page_id(cell, "run"),
            mp_page_id(cell, "run"));
}

void mp_page_cells(mp_page *p)
{
    const char *const heads[] = {
        "Id>",     "Scenario|", "Cell",      "Engine|",  p->machines ? "Machine|" : "",
        "Status|", "Latents>",  "Picture>",  "PSNR dB>", "SSIM>",
        "Seam>",   "Time s>",   "Peak MiB>", "Run>",     NULL};
    const json_t *cell;
    size_t i;

    if (!json_array_size(p->cells))
        return put_none(p, "There are no cells.");
    begin_table(p, "cells",
                "Every cell in its newest run. Latents and picture are relative L2 distances from "
                "the reference; mpbench show ID tells the rest.",
                heads);
    json_array_foreach (p->cells, i, cell)
        put_cell(p, cell);
    end_table(p);
}

/* ---- environment ---------------------------------------------------------------------------- */

/* Rows come by key; the columns are runs, in the order in which they are first met. */
typedef struct columns {
    intmax_t *runs;
    int count;
} columns;

static int column_of(columns *c, intmax_t run)
{
    int i = 0;

    while (i < c->count && c->runs[i] != run)
        i++;
    if (i == c->count)
        c->runs[c->count++] = run;
    return i;
}

static void put_columns(mp_page *p, columns *c)
{
    const json_t *row;
    size_t i;

    fputs("<thead><tr><th scope=\"col\">Key</th><th scope=\"col\">Differs</th>", p->to);
    json_array_foreach (p->environment, i, row) {
        const int before = c->count;
        char machine[9];
        if (column_of(c, mp_page_id(row, "run")) < before)
            continue;
        snprintf(machine, sizeof machine, "%s", mp_page_text(row, "fingerprint"));
        mp_html(p->to, "<th scope=\"col\">%s/%s on <code>%s</code><small>run %jd %s</small></th>",
                mp_page_text(row, "engine"), mp_page_text(row, "device"), machine,
                mp_page_id(row, "run"), mp_page_text(row, "label"));
    }
    fputs("</tr></thead>\n<tbody>\n", p->to);
}

/* Of a run, among the rows of one key; "-": it has none. */
static const char *value_of(const mp_page *p, intmax_t run, size_t first, size_t end)
{
    for (size_t i = first; i < end; i++) {
        const json_t *row = json_array_get(p->environment, i);
        if (mp_page_id(row, "run") == run && *mp_page_text(row, "value"))
            return mp_page_text(row, "value");
    }
    return "-";
}

/* The rows of one key from `first` on; returns the first of the next key. */
static size_t put_key(mp_page *p, columns *c, size_t first)
{
    const json_t *row = json_array_get(p->environment, first);
    const char *key = mp_page_text(row, "key");
    size_t end = first;
    bool differs = false;

    while (end < json_array_size(p->environment) &&
           !strcmp(mp_page_text(json_array_get(p->environment, end), "key"), key))
        end++;
    if (!*key) /* a run without an environment has only its column */
        return end;
    mp_html(p->to, "<tr><th scope=\"row\">%s</th>", key);
    for (int k = 1; k < c->count; k++)
        differs |=
            strcmp(value_of(p, c->runs[k], first, end), value_of(p, c->runs[0], first, end)) != 0;
    fputs(differs ? "<td><span class=\"badge warn\">differs</span></td>" : "<td></td>", p->to);
    for (int k = 0; k < c->count; k++)
        mp_html(p->to, "<td>%s</td>", value_of(p, c->runs[k], first, end));
    fputs("</tr>\n", p->to);
    return end;
}

void mp_page_environment(mp_page *p)
{
    const size_t n = json_array_size(p->environment);
    columns c = {.runs = mp_alloc(n, sizeof *c.runs)};

    if (!c.runs)
        mp_error_set(p->err, MP_ENOMEM, "no memory for the report's environments");
    if (!n || !c.runs) {
        put_none(p, "No run is on record.");
        mp_free(c.runs);
        return;
    }
    fputs("<div class=\"wide\" role=\"region\" tabindex=\"0\" "
          "aria-labelledby=\"environment-caption\">\n<table id=\"environment-table\"><caption "
          "id=\"environment-caption\"><span>The newest run of each machine, engine and "
          "device.</span></caption>",
          p->to);
    put_columns(p, &c);
    for (size_t i = 0; i < n;)
        i = put_key(p, &c, i);
    end_table(p);
    mp_free(c.runs);
}
