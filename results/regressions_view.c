/* `mpbench regressions` for people and programs: findings by the two runs between which they lie,
 * since one commit is one cause. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "results/db.h"
#include "results/markdown.h"
#include "results/query.h"
#include "results/regressions.h"

enum {
    SHOWN = 10,  /* findings of a group */
    RECENT = 10, /* runs for which also what is no alarm is shown */
    NOTES = 2000 /* bytes of a comment for what stands around the groups */
};

typedef struct view {
    mp_store *s;
    const mp_regressions_view *options;
    const mp_history *h;
    const mp_findings *f;
    int *group; /* of each finding: the first finding between the same runs */
    mp_error *err;
} view;

/* ---- words ---------------------------------------------------------------------------------- */

static const mp_history_run *run_at(const view *v, int observation)
{
    return &v->h->runs[v->h->observations[observation].run];
}

static void words(const view *v, const char *text, FILE *to)
{
    if (v->options->format == MP_MARKDOWN)
        mp_print_markdown(to, text);
    else
        mp_print_plain(to, text, -1);
}

static void revision(const view *v, const mp_history_run *r, FILE *to)
{
    char text[MP_REVISION_TEXT];

    mp_revision_text(r->revision, text);
    words(v, *text ? text : "?", to);
}

static bool between_same_runs(const view *v, const mp_finding *x, const mp_finding *y)
{
    return run_at(v, x->before) == run_at(v, y->before) &&
           run_at(v, x->after) == run_at(v, y->after);
}

typedef struct boundary {
    int before, after; /* runs */
    int finding;
} boundary;

static int by_boundary(const void *a, const void *b)
{
    const boundary *x = a, *y = b;

    if (x->before != y->before)
        return x->before - y->before;
    return x->after != y->after ? x->after - y->after : x->finding - y->finding;
}

/* Findings are in order of weight; a group stands where its worst one does. */
static mp_code find_groups(view *v)
{
    const int n = v->f->count;
    boundary *all = mp_alloc((size_t)n, sizeof *all);

    v->group = mp_alloc((size_t)n, sizeof *v->group);
    if (!all || !v->group) {
        mp_free(all);
        return mp_error_set(v->err, MP_ENOMEM, "no memory for the findings");
    }
    for (int i = 0; i < n; i++) {
        const mp_finding *x = &v->f->items[i];
        all[i] = (boundary){v->h->observations[x->before].run, v->h->observations[x->after].run, i};
    }
    if (n)
        qsort(all, (size_t)n, sizeof *all, by_boundary);
    for (int i = 0, first = 0; i < n; i++) {
        if (i &&
            !between_same_runs(v, &v->f->items[all[i - 1].finding], &v->f->items[all[i].finding]))
            first = i;
        v->group[all[i].finding] = all[first].finding;
    }
    mp_free(all);
    return MP_OK;
}

/* ---- what else changed ---------------------------------------------------------------------- */

static sqlite3_stmt *changes_between(const view *v, const mp_finding *x)
{
    static const char sql[] =
        "SELECT key, old, new FROM (SELECT key, max(CASE run WHEN ?1 THEN value END) AS old, "
        "max(CASE run WHEN ?2 THEN value END) AS new FROM run_environment WHERE run IN (?1, ?2) "
        "AND key NOT IN ('git_commit', 'program', 'program_sha256') GROUP BY key) WHERE old IS NOT "
        "new ORDER BY key";
    sqlite3_stmt *q = NULL;

    if (!mp_db_prepare(v->s, sql, &q, v->err))
        mp_db_bind(v->s, q, v->err, "ii", run_at(v, x->before)->id, run_at(v, x->after)->id);
    return q;
}

static void print_changes(const view *v, const mp_finding *x, FILE *to)
{
    sqlite3_stmt *q = changes_between(v, x);
    bool row = true;

    while (!v->err->code && !mp_db_step(v->s, q, &row, v->err) && row) {
        fputs(v->options->format == MP_MARKDOWN ? "- changed too: " : "  changed too: ", to);
        for (int i = 0; i < 3; i++) {
            fputs(i == 1 ? ": " : i == 2 ? " -> " : "", to);
            words(v, *mp_db_text(q, i) ? mp_db_text(q, i) : "-", to);
        }
        fputc('\n', to);
    }
    sqlite3_finalize(q);
}

static char *repro_of(const view *v, int observation)
{
    sqlite3_stmt *q = NULL;
    char *text = NULL;
    bool row = false;

    if (!mp_db_prepare(v->s, "SELECT repro FROM cell WHERE id = ?", &q, v->err) &&
        !mp_db_bind(v->s, q, v->err, "i", v->h->observations[observation].cell) &&
        !mp_db_step(v->s, q, &row, v->err))
        text = mp_strdup(row ? mp_db_text(q, 0) : "");
    sqlite3_finalize(q);
    if (!text && !v->err->code)
        mp_error_set(v->err, MP_ENOMEM, "no memory for a repro line");
    return text;
}

/* Both ends of the worst finding: the same command, at two revisions. */
static void print_repro(const view *v, const mp_finding *x, FILE *to)
{
    const bool markdown = v->options->format == MP_MARKDOWN;
    const int ends[] = {x->before, x->after};

    for (int i = 0; i < 2; i++) {
        char *repro = repro_of(v, ends[i]);
        if (!repro)
            return;
        fprintf(to, "%s%s at ", markdown ? "- " : "  ", i ? "after " : "before");
        revision(v, run_at(v, ends[i]), to);
        fprintf(to, " (cell %lld): ", (long long)v->h->observations[ends[i]].cell);
        words(v, repro, to);
        fputc('\n', to);
        mp_free(repro);
    }
}

/* ---- groups --------------------------------------------------------------------------------- */

static const char *better_or_worse(const mp_finding *x)
{
    return x->direction > 0 ? "better" : x->direction < 0 ? "worse" : "other";
}

/* "+4.1 to +5.9 %, q=0.0012": the change with 95 % confidence, of the old level. */
static void evidence(const mp_finding *x, char *out, size_t size)
{
    const double scale = 100 / fabs(x->value_before);
    int n = 0;

    snprintf(out, size, "-");
    if (isfinite(x->low * scale) && isfinite(x->high * scale))
        n = snprintf(out, size, "%+.1f to %+.1f %%", x->low * scale, x->high * scale);
    if (!isnan(x->q))
        snprintf(out + n, size - (size_t)n, "%sq=%.2g", n ? ", " : "", x->q);
}

/* "open, worse", "better", "fixed". */
static void standing(const mp_finding *x, char *out, size_t size)
{
    const bool better = x->state == MP_FINDING_CONFIRMED && !x->open;

    snprintf(out, size, "%s%s", x->open ? "open, " : "",
             x->open || better ? better_or_worse(x) : mp_finding_state_names[x->state]);
}

static void add_finding(const view *v, mp_table *t, const mp_finding *x)
{
    char text[80];

    if (x->id)
        mp_table_add(t, "%lld", (long long)x->id);
    else
        mp_table_add(t, "-");
    standing(x, text, sizeof text);
    mp_table_add(t, "%s", text);
    mp_table_add(t, "%s", mp_finding_kind_names[x->kind]);
    mp_table_add(t, "%s", v->h->subjects[x->subject].key);
    mp_table_add(t, "%s", x->what);
    evidence(x, text, sizeof text);
    mp_table_add(t, "%s%s", x->why ? "because " : "", x->why ? x->why : text);
}

static void print_heading(const view *v, const mp_finding *x, int findings, int open, FILE *to)
{
    const mp_history_run *a = run_at(v, x->before), *b = run_at(v, x->after);
    const mp_subject *subject = &v->h->subjects[x->subject];
    char machine[12];

    fputs(v->options->format == MP_MARKDOWN ? "\n### near " : "\nnear ", to);
    revision(v, a, to);
    if (strcmp(a->revision, b->revision)) {
        fputs("..", to);
        revision(v, b, to);
    }
    fprintf(to, " (runs %lld and %lld, ", (long long)a->id, (long long)b->id);
    words(v, a->started, to);
    fputs(" and ", to);
    words(v, b->started, to);
    fputs("; ", to);
    words(v, subject->engine, to);
    snprintf(machine, sizeof machine, "%.8s", subject->fingerprint);
    fputs(" on machine ", to);
    words(v, machine, to);
    fprintf(to, "): %d finding%s, %d open\n", findings, findings == 1 ? "" : "s", open);
    if (v->options->format == MP_MARKDOWN)
        fputc('\n', to);
}

static void print_group(const view *v, int first, FILE *to)
{
    static const char *const heads[] = {"id>", "state", "kind", "cell", "what", "evidence"};
    mp_table *t = mp_table_create(sizeof heads / sizeof *heads, heads);
    int findings = 0, open = 0;

    for (int i = first; i < v->f->count; i++) {
        if (v->group[i] != first)
            continue;
        if (findings++ < SHOWN)
            add_finding(v, t, &v->f->items[i]);
        open += v->f->items[i].open;
    }
    print_heading(v, &v->f->items[first], findings, open, to);
    mp_table_print(t, v->options->format, 2, to);
    mp_table_free(t);
    if (v->options->format == MP_MARKDOWN)
        fputc('\n', to);
    if (findings > SHOWN)
        fprintf(to, "  and %d more, which --format json shows\n", findings - SHOWN);
    if (v->f->items[first].state == MP_FINDING_DETECTED)
        fputs("  too new to be sure: further runs of the line after \"after\" confirm it, or not\n",
              to);
    print_changes(v, &v->f->items[first], to);
    print_repro(v, &v->f->items[first], to);
}

/* An alarm, or one that may become one, or news. */
static bool is_worth_showing(const view *v, int first)
{
    const mp_finding *worst = &v->f->items[first]; /* of its group: they are in that order */

    return v->options->settled || worst->open || worst->state == MP_FINDING_DETECTED ||
           v->h->observations[worst->after].run >= v->h->run_count - RECENT;
}

static void print_groups(const view *v, FILE *to)
{
    mp_markdown *m = NULL;
    int settled = 0;

    if (v->options->format == MP_MARKDOWN) {
        m = mp_markdown_create(to, MP_MARKDOWN_COMMENT - NOTES);
        if (!m) {
            mp_error_set(v->err, MP_ENOMEM, "no memory for the findings");
            return;
        }
    }
    for (int i = 0; i < v->f->count && !v->err->code; i++)
        if (!is_worth_showing(v, v->group[i]))
            settled++;
        else if (v->group[i] == i)
            print_group(v, i, m ? mp_markdown_row(m) : to);
    if (m)
        mp_markdown_close(m, "ranges of commits", v->err);
    if (settled)
        fprintf(to,
                "\n%d older finding%s that %s no alarm (better, acknowledged, fixed): --all shows "
                "them\n",
                settled, settled == 1 ? "" : "s", settled == 1 ? "is" : "are");
}

/* ---- the whole ------------------------------------------------------------------------------ */

static int count_state(const view *v, mp_finding_state state)
{
    int n = 0;

    for (int i = 0; i < v->f->count; i++)
        n += v->f->items[i].state == state && !v->f->items[i].open;
    return n;
}

static void verdict_text(const view *v, char *out, size_t size)
{
    const int open = v->f->open;

    snprintf(out, size,
             "%s exit=%d (%d open finding%s; %d too new to be sure, %d better, %d acknowledged, %d "
             "fixed, %d withdrawn; %d series judged, %d too short)",
             open ? "REGRESSION" : "OK", open ? 1 : 0, open, open == 1 ? "" : "s",
             count_state(v, MP_FINDING_DETECTED), count_state(v, MP_FINDING_CONFIRMED),
             count_state(v, MP_FINDING_ACKNOWLEDGED), count_state(v, MP_FINDING_FIXED),
             v->f->withdrawn_count, v->f->judged, v->f->too_short);
}

static void print_notes(const view *v, FILE *to)
{
    int backwards = 0;

    for (int i = 0; i < v->h->run_count; i++)
        backwards += v->h->runs[i].clock_backwards;
    if (v->f->too_short) {
        const mp_series *s = &v->h->series[v->f->shortest];
        fprintf(to,
                "\ntoo short for statistics, which need %d runs of a machine: %d series, such as ",
                v->f->least, v->f->too_short);
        words(v, s->metric, to);
        fputs(" of ", to);
        words(v, v->h->subjects[s->subject].key, to);
        fputc('\n', to);
    }
    if (backwards)
        fprintf(to,
                "\n%d run%s on record after one that started later: a clock went backwards, or the "
                "run came by merge; the order is that of the starts\n",
                backwards, backwards == 1 ? " is" : "s are");
    for (int i = 0; i < v->f->withdrawn_count; i++)
        fprintf(to, "%swithdrawn, with more data it is none: finding %lld\n", i ? "" : "\n",
                (long long)v->f->withdrawn[i]);
}

static void print_people(const view *v, FILE *to)
{
    const mp_history *h = v->h;
    char verdict[300];

    fprintf(to, "%d run%s from ", h->run_count, h->run_count == 1 ? "" : "s");
    words(v, h->runs[0].started, to);
    fputs(" to ", to);
    words(v, h->runs[h->run_count - 1].started, to);
    fprintf(to, ", %d cell%s by settings and machine\n", h->subject_count,
            h->subject_count == 1 ? "" : "s");
    print_groups(v, to);
    print_notes(v, to);
    verdict_text(v, verdict, sizeof verdict);
    fprintf(to, "\nverdict: %s\n", verdict);
}

static void print_csv(const view *v, FILE *to)
{
    static const char *const heads[] = {"id",     "state",       "kind",       "open", "direction",
                                        "cell",   "metric",      "stage",      "step", "module",
                                        "before", "after",       "low",        "high", "p",
                                        "q",      "cell_before", "cell_after", "what", "why"};
    mp_table *t = mp_table_create(sizeof heads / sizeof *heads, heads);

    for (int i = 0; i < v->f->count; i++) {
        const mp_finding *x = &v->f->items[i];
        const mp_series *s = x->series >= 0 ? &v->h->series[x->series] : NULL;
        const double numbers[] = {x->value_before, x->value_after, x->low, x->high, x->p, x->q};
        mp_table_add(t, "%lld", (long long)x->id);
        mp_table_add(t, "%s", mp_finding_state_names[x->state]);
        mp_table_add(t, "%s", mp_finding_kind_names[x->kind]);
        mp_table_add(t, "%d", x->open);
        mp_table_add(t, "%s", better_or_worse(x));
        mp_table_add(t, "%s", v->h->subjects[x->subject].key);
        mp_table_add(t, "%s", x->metric);
        mp_table_add(t, "%s", s ? s->stage : "run");
        mp_table_add(t, "%d", s ? s->step : -1);
        mp_table_add(t, "%s", s ? s->module : "");
        for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++)
            mp_table_add(t, isnan(numbers[k]) ? "" : "%.17g", numbers[k]);
        mp_table_add(t, "%lld", (long long)v->h->observations[x->before].cell);
        mp_table_add(t, "%lld", (long long)v->h->observations[x->after].cell);
        mp_table_add(t, "%s", x->what);
        mp_table_add(t, "%s", x->why ? x->why : "");
    }
    mp_table_print(t, MP_CSV, 0, to);
    mp_table_free(t);
}

/* ---- JSON ----------------------------------------------------------------------------------- */

static json_t *end_json(const view *v, int observation, double value)
{
    const mp_history_run *r = run_at(v, observation);
    char *repro = repro_of(v, observation);
    json_t *end = json_pack(
        "{sI sI so so so so so}", "cell", (json_int_t)v->h->observations[observation].cell, "run",
        (json_int_t)r->id, "uuid", mp_json_text(r->uuid), "started", mp_json_text(r->started),
        "revision", mp_json_text(r->revision), "value", mp_json_number_or_null(value), "repro",
        mp_json_text(repro ? repro : ""));

    mp_free(repro);
    return end;
}

static json_t *changes_json(const view *v, const mp_finding *x)
{
    sqlite3_stmt *q = changes_between(v, x);
    json_t *all = json_object();
    bool row = true;

    while (!v->err->code && !mp_db_step(v->s, q, &row, v->err) && row)
        json_object_set_new(
            all, mp_db_text(q, 0),
            json_pack("[oo]", mp_json_text(mp_db_text(q, 1)), mp_json_text(mp_db_text(q, 2))));
    sqlite3_finalize(q);
    return all;
}

static json_t *finding_json(const view *v, const mp_finding *x)
{
    const mp_subject *s = &v->h->subjects[x->subject];
    const mp_series *m = x->series >= 0 ? &v->h->series[x->series] : NULL;

    return json_pack("{so ss ss sb ss so so so so so so so si so so so so so so so so so so so}",
                     "id", x->id ? json_integer(x->id) : json_null(), "state",
                     mp_finding_state_names[x->state], "kind", mp_finding_kind_names[x->kind],
                     "open", x->open, "direction", better_or_worse(x), "scenario",
                     mp_json_text(s->scenario), "cell", mp_json_text(s->key), "engine",
                     mp_json_text(s->engine), "device", mp_json_text(s->device), "fingerprint",
                     mp_json_text(s->fingerprint), "metric", mp_json_text(x->metric), "stage",
                     mp_json_text(m ? m->stage : "run"), "step", m ? m->step : -1, "module",
                     mp_json_text(m ? m->module : ""), "unit", mp_json_text(m ? m->unit : ""),
                     "before", end_json(v, x->before, x->value_before), "after",
                     end_json(v, x->after, x->value_after), "low", mp_json_number_or_null(x->low),
                     "high", mp_json_number_or_null(x->high), "p", mp_json_number_or_null(x->p),
                     "q", mp_json_number_or_null(x->q), "what", mp_json_text(x->what), "why",
                     x->why ? mp_json_text(x->why) : json_null(), "changed", changes_json(v, x));
}

static mp_code print_json(const view *v, FILE *to)
{
    json_t *findings = json_array(), *withdrawn = json_array();
    char verdict[300];

    for (int i = 0; i < v->f->count && !v->err->code; i++)
        json_array_append_new(findings, finding_json(v, &v->f->items[i]));
    for (int i = 0; i < v->f->withdrawn_count; i++)
        json_array_append_new(withdrawn, json_integer(v->f->withdrawn[i]));
    verdict_text(v, verdict, sizeof verdict);
    json_t *all = json_pack(
        "{si ss so si si si si so so ss si}", "version", 1, "kind", "mpbench regressions",
        "database", mp_json_text(mp_store_path(v->s)), "runs", v->h->run_count, "subjects",
        v->h->subject_count, "judged", v->f->judged, "too_short", v->f->too_short, "findings",
        findings, "withdrawn", withdrawn, "verdict", verdict, "exit_status", v->f->open ? 1 : 0);
    if (v->err->code) {
        json_decref(all);
        return v->err->code;
    }
    return mp_json_print(all, to, v->err);
}

static mp_code print(view *v, FILE *to)
{
    char *text = NULL;
    size_t n = 0;
    FILE *memory;

    switch (v->options->format) {
    case MP_JSON:
        return print_json(v, to);
    case MP_CSV:
        print_csv(v, to);
        return v->err->code;
    default: /* in memory, so that a failure leaves no half of it, and its size is known */
        if (find_groups(v))
            return v->err->code;
        memory = open_memstream(&text, &n);
        if (!memory)
            return mp_error_set(v->err, MP_ENOMEM, "no memory for the findings");
        print_people(v, memory);
        fclose(memory);
        if (!v->err->code)
            fwrite(text, 1, n, to);
        free(text);
        return v->err->code;
    }
}

/* Of one metric: how cells ended, and bits alone, are not what was asked for, unless by the names
 * of those findings; nor is what another metric showed withdrawn. */
static void keep_the_metric(mp_findings *f, const char *metric)
{
    int kept = 0;

    f->open = f->withdrawn_count = 0;
    for (int i = 0; i < f->count; i++) {
        mp_finding *x = &f->items[i];
        if (strcmp(x->metric, metric) && isnan(x->value_before) && isnan(x->value_after)) {
            mp_free(x->what);
            mp_free(x->why);
        } else {
            f->open += x->open;
            f->items[kept++] = *x;
        }
    }
    f->count = kept;
}

mp_code mp_regressions(mp_store *s, const mp_regressions_view *v, FILE *to, int *exit_status,
                       mp_error *err)
{
    mp_history *h = NULL;
    mp_findings f = {0};

    *exit_status = 0;
    if (!mp_history_load(s, &v->filter, &h, err) && !mp_findings_of(s, h, &v->options, &f, err)) {
        if (v->filter.metric)
            keep_the_metric(&f, v->filter.metric);
        view all = {.s = s, .options = v, .h = h, .f = &f, .err = err};
        *exit_status = f.open ? 1 : 0;
        print(&all, to);
        mp_free(all.group);
    }
    mp_findings_free(&f);
    mp_history_free(h);
    return err->code;
}
