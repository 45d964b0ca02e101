#include "plots/report.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/core/memory.h"
#include "plots/html.h"
#include "plots/report_parts.h"
#include "plots/templates.h"
#include "results/query.h"

/* ---- rows ----------------------------------------------------------------------------------- */

const char *mp_page_text(const json_t *row, const char *key)
{
    const char *text = json_string_value(json_object_get(row, key));

    return text ? text : "";
}

intmax_t mp_page_id(const json_t *row, const char *key)
{
    return (intmax_t)json_integer_value(json_object_get(row, key));
}

bool mp_page_metric(const json_t *cell, const char *name, double *out)
{
    const json_t *value = json_object_get(json_object_get(cell, "metrics"), name);

    if (json_is_string(value))
        *out = strtod(json_string_value(value), NULL); /* reads inf and nan, too */
    else
        *out = json_number_value(value);
    return value && !json_is_null(value);
}

mp_page_state mp_page_state_of(const json_t *cell)
{
    const char *status = mp_page_text(cell, "status");

    if (!strcmp(status, "running") || !strcmp(status, "interrupted"))
        return MP_PAGE_UNFINISHED;
    if (!mp_page_id(cell, "as_expected"))
        return MP_PAGE_UNEXPECTED;
    return *mp_page_text(cell, "budget") ? MP_PAGE_OVER_BUDGET : MP_PAGE_OK;
}

const char *mp_page_cell_name(const json_t *cell)
{
    const char *key = mp_page_text(cell, "key"), *scenario = mp_page_text(cell, "scenario");
    const size_t n = strlen(scenario);

    return !strncmp(key, scenario, n) && key[n] == '/' ? key + n + 1 : key;
}

bool mp_page_is_subject(const mp_subject *x, const json_t *cell)
{
    return !strcmp(x->key, mp_page_text(cell, "key")) &&
           !strcmp(x->engine, mp_page_text(cell, "engine")) &&
           !strcmp(x->device, mp_page_text(cell, "device")) &&
           !strcmp(x->fingerprint, mp_page_text(cell, "fingerprint")) &&
           !strcmp(x->inputs, mp_page_text(cell, "inputs"));
}

const json_t *mp_page_cell_of(const mp_page *p, const mp_subject *x)
{
    for (size_t i = 0; i < json_array_size(p->cells); i++)
        if (mp_page_is_subject(x, json_array_get(p->cells, i)))
            return json_array_get(p->cells, i);
    return NULL;
}

void mp_page_note(mp_page *p, const char *format, ...)
{
    char text[1024];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    json_array_append_new(p->notes, mp_json_text(text));
}

/* ---- reading -------------------------------------------------------------------------------- */

static bool same_group(const json_t *a, const json_t *b)
{
    static const char *const keys[] = {"scenario", "engine", "device", "fingerprint"};

    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(mp_page_text(a, keys[i]), mp_page_text(b, keys[i])))
            return false;
    return true;
}

static void tally_cell(mp_page_result *t, const json_t *cell)
{
    const mp_page_state state = mp_page_state_of(cell);

    t->cells++;
    t->ok += state == MP_PAGE_OK;
    t->unexpected += state == MP_PAGE_UNEXPECTED;
    t->over_budget += *mp_page_text(cell, "budget") != '\0';
    t->unfinished += state == MP_PAGE_UNFINISHED;
}

static mp_code group_cells(mp_page *p)
{
    const size_t n = json_array_size(p->cells);

    p->groups = mp_alloc(n, sizeof *p->groups);
    if (!p->groups)
        return mp_error_set(p->err, MP_ENOMEM, "no memory for the report of %zu cells", n);
    for (size_t i = 0; i < n; i++) {
        const json_t *cell = json_array_get(p->cells, i);
        if (!i || !same_group(cell, json_array_get(p->cells, i - 1)))
            p->groups[p->group_count++].first = i;
        mp_page_group *g = &p->groups[p->group_count - 1];
        g->count++;
        tally_cell(&g->tally, cell);
        tally_cell(&p->tally, cell);
        p->machines |= strcmp(mp_page_text(cell, "fingerprint"),
                              mp_page_text(json_array_get(p->cells, 0), "fingerprint")) != 0;
    }
    return MP_OK;
}

/* Of a run alone, what became of other cells is of no interest. */
static void drop_other_findings(mp_page *p)
{
    mp_findings *all = &p->findings;
    int kept = 0;

    for (int i = 0; i < all->count; i++) {
        const mp_finding x = all->items[i];
        if (mp_page_cell_of(p, &p->history->subjects[x.subject])) {
            all->items[kept++] = x;
        } else {
            mp_free(x.what);
            mp_free(x.why);
        }
    }
    all->count = kept;
}

static void tally_findings(mp_page *p)
{
    for (int i = 0; i < p->findings.count; i++) {
        const mp_finding *f = &p->findings.items[i];
        const mp_subject *x = &p->history->subjects[f->subject];
        p->tally.open_findings += f->open;
        for (int g = 0; g < p->group_count; g++) {
            const json_t *cell = json_array_get(p->cells, p->groups[g].first);
            if (!strcmp(x->scenario, mp_page_text(cell, "scenario")) &&
                !strcmp(x->engine, mp_page_text(cell, "engine")) &&
                !strcmp(x->device, mp_page_text(cell, "device")) &&
                !strcmp(x->fingerprint, mp_page_text(cell, "fingerprint")))
                p->groups[g].tally.open_findings += f->open;
        }
    }
}

static mp_code read_repros(mp_page *p)
{
    json_t *ids = json_array();

    for (int i = 0; i < p->findings.count; i++) {
        const mp_finding *f = &p->findings.items[i];
        json_array_append_new(ids, json_integer(p->history->observations[f->after].cell));
    }
    mp_report_repros(p->store, ids, &p->repros, p->err);
    json_decref(ids);
    return p->err->code;
}

/* A database whose cells have not ended yet has no history; that is no failure. */
static mp_code read_history(mp_page *p)
{
    const mp_history_filter filter = {.scenario = p->filter->scenario};
    mp_error none = {0};

    if (mp_history_load(p->store, &filter, &p->history, &none) == MP_EMISSING)
        return MP_OK;
    if (none.code)
        return mp_error_set(p->err, none.code, "%s", none.text);
    if (mp_findings_of(p->store, p->history, &(mp_regression_options){0}, &p->findings, p->err))
        return p->err->code;
    if (p->filter->run)
        drop_other_findings(p);
    tally_findings(p);
    return read_repros(p);
}

static void note_run_states(mp_page *p)
{
    int backwards = 0;

    for (int i = 0; p->history && i < p->history->run_count; i++)
        backwards += p->history->runs[i].clock_backwards;
    if (backwards)
        mp_page_note(p,
                     "%d run%s recorded after a run that says it started later: a clock ran "
                     "backwards. Series follow the times on record.",
                     backwards, backwards == 1 ? " was" : "s were");
    if (p->machines)
        mp_page_note(p, "The cells are of more than one machine. Series and findings keep machines "
                        "apart; times and memory of different rows do not compare.");
    if (p->tally.unfinished)
        mp_page_note(
            p,
            "%d cell%s not end: the run was killed or is still going on. mpbench run --resume "
            "goes on from there.",
            p->tally.unfinished, p->tally.unfinished == 1 ? " did" : "s did");
    if (p->findings.too_short)
        mp_page_note(p, "%d series are too short for statistics: they need %d runs of a machine.",
                     p->findings.too_short, p->findings.least);
}

static mp_code read_page(mp_page *p)
{
    p->notes = json_array();
    if (mp_report_cells(p->store, p->filter, &p->cells, p->err) || group_cells(p) ||
        mp_report_environment(p->store, p->cells, &p->environment, p->err) || read_history(p) ||
        mp_page_read_pictures(p))
        return p->err->code;
    mp_page_read_series(p);
    note_run_states(p);
    return p->err->code;
}

/* ---- writing -------------------------------------------------------------------------------- */

static const char style[] = "report.css", script[] = "report.js";

static void put_hash(const mp_page *p, const char *name)
{
    char *hash = mp_html_hash(mp_template_text(name));

    if (hash)
        fputs(hash, p->to);
    else
        mp_error_set(p->err, MP_ENOMEM, "no memory for the report's page");
    mp_free(hash);
}

static void put_style_hash(mp_page *p)
{
    put_hash(p, style);
}

static void put_script_hash(mp_page *p)
{
    put_hash(p, script);
}

static void put_style(mp_page *p)
{
    fputs(mp_template_text(style), p->to);
}

static void put_script(mp_page *p)
{
    fputs(mp_template_text(script), p->to);
}

/* What stands in the template as {{name}}. */
static void put_part(mp_page *p, const char *name, size_t n)
{
    static const struct {
        const char *name;
        void (*put)(mp_page *p);
    } parts[] = {
        {"style-hash", put_style_hash},
        {"script-hash", put_script_hash},
        {"style", put_style},
        {"script", put_script},
        {"title", mp_page_title},
        {"head", mp_page_head},
        {"overview", mp_page_overview},
        {"findings", mp_page_findings},
        {"incidents", mp_page_incidents},
        {"matrix", mp_page_matrix},
        {"cells", mp_page_cells},
        {"environment", mp_page_environment},
        {"data", mp_page_json},
    };

    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strlen(parts[i].name) == n && !strncmp(name, parts[i].name, n))
            parts[i].put(p);
}

static void write_page(mp_page *p)
{
    const char *text = mp_template_text("report.html"), *open;

    while ((open = strstr(text, "{{"))) {
        const char *close = strstr(open, "}}");
        fwrite(text, 1, (size_t)(open - text), p->to);
        put_part(p, open + 2, (size_t)(close - open - 2));
        text = close + 2;
    }
    fputs(text, p->to);
}

static mp_code cannot_write(const char *path, mp_error *err)
{
    return mp_error_set(err, MP_EIO,
                        "%s: cannot write the page: %s; make the folder writable and make room, or "
                        "name another one with --out",
                        path, strerror(errno));
}

/* Into a file beside it, then renamed: whoever reads meanwhile has the old page or the new one. */
static mp_code write_file(mp_page *p, const char *folder, mp_page_result *out)
{
    char path[4096], beside[4096];

    if (snprintf(path, sizeof path, "%s/index.html", folder) >= (int)sizeof path ||
        snprintf(beside, sizeof beside, "%s/.index.html-XXXXXX", folder) >= (int)sizeof beside)
        return mp_error_set(p->err, MP_EIO, "%.80s...: the folder's name is too long", folder);
    const int fd = mkstemp(beside);
    p->to = fd < 0 ? NULL : fdopen(fd, "w");
    if (!p->to) {
        cannot_write(path, p->err);
        if (fd >= 0) {
            close(fd);
            unlink(beside);
        }
        return p->err->code;
    }
    write_page(p);
    out->bytes = ftell(p->to);
    bool failed = fchmod(fd, 0644) != 0 || ferror(p->to);
    failed |= fclose(p->to) != 0;
    if (!p->err->code && (failed || rename(beside, path)))
        cannot_write(path, p->err);
    if (p->err->code)
        unlink(beside);
    return p->err->code;
}

static void free_page(mp_page *p)
{
    json_decref(p->cells);
    json_decref(p->environment);
    json_decref(p->repros);
    json_decref(p->pictures);
    json_decref(p->series);
    json_decref(p->notes);
    mp_findings_free(&p->findings);
    mp_history_free(p->history);
    mp_free(p->groups);
}

mp_code mp_report_page(mp_store *s, const mp_report_filter *f, const char *folder,
                       mp_page_result *out, mp_error *err)
{
    mp_page p = {.store = s, .database = mp_store_path(s), .filter = f, .err = err};

    if (!read_page(&p)) {
        *out = p.tally;
        write_file(&p, folder, out);
    }
    free_page(&p);
    return err->code;
}
