#include "results/history.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "results/db.h"
#include "results/metrics.h"
#include "results/statistics.h"
#include "results/table.h"

/* A cell before it has its place among the observations. */
typedef struct found {
    mp_observation seen;
    mp_subject subject; /* key only */
} found;

/* A series while it grows, and those of a subject, in order. */
typedef struct growing {
    const char *metric, *stage, *module, *unit;
    int step;
    int64_t count, room;
    int32_t *observation;
    double *value;
} growing;

typedef struct shelf {
    growing *items;
    int count, room;
} shelf;

typedef struct run_key {
    const char *engine, *device, *fingerprint;
} run_key;

typedef struct loader {
    mp_store *s;
    const mp_history_filter *filter;
    mp_history *h;
    run_key *run_keys; /* of each run */
    int *runs_by_id;   /* indices */
    found *found;
    int found_count, found_room;
    shelf *shelves;     /* of each subject */
    int at_cell;        /* place in by_cell: queries come in order of cells, too */
    int64_t at_cell_id; /* the cell whose rows are being read */
    int at_series;      /* place on its subject's shelf */
    mp_error *err;
} loader;

static void no_memory(loader *l)
{
    if (!l->err->code)
        mp_error_set(l->err, MP_ENOMEM, "no memory for the history of %s", mp_store_path(l->s));
}

/* Room for one more item in an array that doubles. */
static bool make_room(loader *l, void *items, int64_t count, int64_t *room, size_t size)
{
    if (count < *room)
        return true;
    const int64_t wanted = *room ? 2 * *room : 16;
    void *grown = mp_realloc(*(void **)items, (size_t)wanted, size);
    if (!grown) {
        no_memory(l);
        return false;
    }
    *(void **)items = grown;
    *room = wanted;
    return true;
}

static const char *keep(loader *l, const char *text)
{
    const char *kept = mp_texts_keep(l->h->texts, text);

    if (!kept)
        no_memory(l);
    return kept ? kept : "";
}

static const char *keep_column(loader *l, sqlite3_stmt *q, int column)
{
    return keep(l, mp_db_text(q, column));
}

/* ---- runs ----------------------------------------------------------------------------------- */

/* The native engine's build is known by the content of its program, a library's by its versions. */
static const char runs_sql[] =
    "SELECT id, uuid, label, started, engine, device, fingerprint, " MP_DB_REVISION
    ", CASE engine WHEN 'native' THEN coalesce(" MP_DB_TOLD "'program'), " MP_DB_TOLD
    "'program_sha256')) ELSE " MP_DB_LIBRARY " END, ended < started FROM run ORDER BY started, id";

static int by_run_id(const void *a, const void *b, void *runs)
{
    const mp_history_run *r = runs;
    const int64_t x = r[*(const int *)a].id, y = r[*(const int *)b].id;

    return (x > y) - (x < y);
}

/* Runs are in order of their start.  One that came on record after another of its machine, and
 * says that it started before, had a wrong clock (or came late, by merge). */
static void find_backward_clocks(loader *l)
{
    mp_history *h = l->h;

    for (int i = 1; i < h->run_count; i++)
        for (int k = i - 1; k >= 0; k--)
            if (l->run_keys[k].fingerprint == l->run_keys[i].fingerprint &&
                l->run_keys[k].engine == l->run_keys[i].engine) {
                h->runs[k].clock_backwards |= h->runs[k].id > h->runs[i].id;
                break;
            }
}

static void add_run(loader *l, sqlite3_stmt *q, int64_t *room, int64_t *key_room)
{
    mp_history *h = l->h;

    if (!make_room(l, &h->runs, h->run_count, room, sizeof *h->runs) ||
        !make_room(l, &l->run_keys, h->run_count, key_room, sizeof *l->run_keys))
        return;
    l->run_keys[h->run_count] =
        (run_key){keep_column(l, q, 4), keep_column(l, q, 5), keep_column(l, q, 6)};
    h->runs[h->run_count++] = (mp_history_run){.id = sqlite3_column_int64(q, 0),
                                               .uuid = keep_column(l, q, 1),
                                               .label = keep_column(l, q, 2),
                                               .started = keep_column(l, q, 3),
                                               .revision = keep_column(l, q, 7),
                                               .build = keep_column(l, q, 8),
                                               .clock_backwards = sqlite3_column_int(q, 9)};
}

static mp_code load_runs(loader *l)
{
    int64_t room = 0, key_room = 0;
    sqlite3_stmt *q = NULL;
    bool row = true;

    if (!mp_db_prepare(l->s, runs_sql, &q, l->err))
        while (!l->err->code && !mp_db_step(l->s, q, &row, l->err) && row)
            add_run(l, q, &room, &key_room);
    sqlite3_finalize(q);
    if (l->err->code)
        return l->err->code;
    l->runs_by_id = mp_alloc((size_t)l->h->run_count + 1, sizeof *l->runs_by_id);
    if (!l->runs_by_id) {
        no_memory(l);
        return MP_ENOMEM;
    }
    for (int i = 0; i < l->h->run_count; i++)
        l->runs_by_id[i] = i;
    qsort_r(l->runs_by_id, (size_t)l->h->run_count, sizeof *l->runs_by_id, by_run_id, l->h->runs);
    find_backward_clocks(l);
    return MP_OK;
}

/* -1: a cell of no run, which only a damaged database has. */
static int run_of(const loader *l, int64_t id)
{
    int low = 0, high = l->h->run_count;

    while (low < high) {
        const int middle = low + (high - low) / 2;
        if (l->h->runs[l->runs_by_id[middle]].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < l->h->run_count && l->h->runs[l->runs_by_id[low]].id == id ? l->runs_by_id[low]
                                                                            : -1;
}

/* ---- cells ---------------------------------------------------------------------------------- */

/* Of a cell that a run holds more than once, after --resume, the newest. */
static const char cells_sql[] =
    "SELECT id, run, key, scenario, scenario_hash || ' ' || checkpoint_hash, status, outcome, "
    "as_expected FROM cell WHERE id IN (SELECT max(id) FROM cell WHERE " MP_DB_FINISHED
    " GROUP BY key, run) AND (?1 IS NULL OR scenario = ?1)";

static void add_cell(loader *l, sqlite3_stmt *q)
{
    const int run = run_of(l, sqlite3_column_int64(q, 1));
    int64_t room = l->found_room;

    if (run < 0 || !make_room(l, &l->found, l->found_count, &room, sizeof *l->found))
        return;
    l->found_room = (int)room;
    l->found[l->found_count++] = (found){.seen = {.cell = sqlite3_column_int64(q, 0),
                                                  .run = run,
                                                  .status = keep_column(l, q, 5),
                                                  .outcome = keep_column(l, q, 6),
                                                  .as_expected = sqlite3_column_int(q, 7),
                                                  .outputs = ""},
                                         .subject = {.key = keep_column(l, q, 2),
                                                     .scenario = keep_column(l, q, 3),
                                                     .inputs = keep_column(l, q, 4),
                                                     .engine = l->run_keys[run].engine,
                                                     .device = l->run_keys[run].device,
                                                     .fingerprint = l->run_keys[run].fingerprint}};
}

static int by_text(const char *a, const char *b)
{
    return a == b ? 0 : strcmp(a, b);
}

static int by_subject(const mp_subject *a, const mp_subject *b)
{
    int order = by_text(a->scenario, b->scenario);

    order = order ? order : by_text(a->key, b->key);
    order = order ? order : by_text(a->engine, b->engine);
    order = order ? order : by_text(a->device, b->device);
    order = order ? order : by_text(a->fingerprint, b->fingerprint);
    return order ? order : by_text(a->inputs, b->inputs);
}

static int by_place(const void *a, const void *b)
{
    const found *x = a, *y = b;
    const int order = by_subject(&x->subject, &y->subject);

    if (order)
        return order;
    if (x->seen.run != y->seen.run)
        return x->seen.run < y->seen.run ? -1 : 1;
    return (x->seen.cell > y->seen.cell) - (x->seen.cell < y->seen.cell);
}

static int by_cell_id(const void *a, const void *b, void *observations)
{
    const mp_observation *o = observations;
    const int64_t x = o[*(const int32_t *)a].cell, y = o[*(const int32_t *)b].cell;

    return (x > y) - (x < y);
}

/* Sorted cells become subjects and their observations. */
static mp_code place_cells(loader *l)
{
    mp_history *h = l->h;
    const size_t n = (size_t)l->found_count;

    qsort(l->found, n, sizeof *l->found, by_place);
    h->subjects = mp_alloc(n, sizeof *h->subjects);
    h->observations = mp_alloc(n, sizeof *h->observations);
    h->by_cell = mp_alloc(n, sizeof *h->by_cell);
    if (!h->subjects || !h->observations || !h->by_cell) {
        no_memory(l);
        return MP_ENOMEM;
    }
    for (int i = 0; i < l->found_count; i++) {
        if (!i || by_subject(&l->found[i - 1].subject, &l->found[i].subject)) {
            h->subjects[h->subject_count] = l->found[i].subject;
            h->subjects[h->subject_count++].first = i;
        }
        h->subjects[h->subject_count - 1].count++;
        h->observations[i] = l->found[i].seen;
        h->observations[i].subject = h->subject_count - 1;
        h->by_cell[i] = i;
    }
    h->observation_count = l->found_count;
    qsort_r(h->by_cell, n, sizeof *h->by_cell, by_cell_id, h->observations);
    l->shelves = mp_alloc((size_t)h->subject_count, sizeof *l->shelves);
    if (!l->shelves)
        no_memory(l);
    return l->err->code;
}

static mp_code nothing_found(loader *l)
{
    const char *scenario = l->filter->scenario;
    char *plain = scenario ? mp_plain_text(scenario) : NULL;

    if (scenario)
        mp_error_set(
            l->err, MP_EMISSING,
            "%s: no finished cell of a scenario '%.80s'; `mpbench list` shows what there is",
            mp_store_path(l->s), plain ? plain : "");
    else
        mp_error_set(l->err, MP_EMISSING,
                     "%s: no finished cell; record something with `mpbench run` first",
                     mp_store_path(l->s));
    mp_free(plain);
    return l->err->code;
}

static mp_code load_cells(loader *l)
{
    sqlite3_stmt *q = NULL;
    bool row = true;

    if (!mp_db_prepare(l->s, cells_sql, &q, l->err) &&
        !mp_db_bind(l->s, q, l->err, "t", l->filter->scenario))
        while (!l->err->code && !mp_db_step(l->s, q, &row, l->err) && row)
            add_cell(l, q);
    sqlite3_finalize(q);
    if (l->err->code)
        return l->err->code;
    return l->found_count ? place_cells(l) : nothing_found(l);
}

/* The observation of a row's cell, -1 for a cell that does not count.  Rows come in order of their
 * cells, so this walks along. */
static int32_t observation_of(loader *l, int64_t cell)
{
    const mp_history *h = l->h;

    while (l->at_cell < h->observation_count && h->observations[h->by_cell[l->at_cell]].cell < cell)
        l->at_cell++;
    if (l->at_cell == h->observation_count || h->observations[h->by_cell[l->at_cell]].cell != cell)
        return -1;
    if (l->at_cell_id != cell)
        l->at_series = 0;
    l->at_cell_id = cell;
    return h->by_cell[l->at_cell];
}

static void begin_rows(loader *l)
{
    l->at_cell = 0;
    l->at_cell_id = INT64_MIN;
}

/* ---- outputs -------------------------------------------------------------------------------- */

static mp_code load_outputs(loader *l)
{
    sqlite3_stmt *q = NULL;
    mp_sha256 hash;
    char hex[65];
    int32_t at = -1, next = -1;
    bool row = true;

    begin_rows(l);
    mp_db_prepare(l->s, "SELECT cell, name, sha256 FROM output ORDER BY cell, name", &q, l->err);
    while (!l->err->code && row && !mp_db_step(l->s, q, &row, l->err)) {
        next = row ? observation_of(l, sqlite3_column_int64(q, 0)) : -1;
        if (next != at && at >= 0) {
            mp_sha256_final(&hash, hex);
            l->h->observations[at].outputs = keep(l, hex);
        }
        if (next != at)
            mp_sha256_init(&hash);
        at = next;
        for (int i = 1; row && at >= 0 && i < 3; i++)
            mp_sha256_update(&hash, mp_db_text(q, i), strlen(mp_db_text(q, i)) + 1);
    }
    sqlite3_finalize(q);
    return l->err->code;
}

/* ---- series --------------------------------------------------------------------------------- */

typedef struct row_key {
    const char *metric, *stage, *module, *unit;
    int step;
} row_key;

static int by_row_key(const row_key *r, const growing *g)
{
    int order = strcmp(r->metric, g->metric);

    order = order ? order : strcmp(r->stage, g->stage);
    order = order ? order : (r->step > g->step) - (r->step < g->step);
    return order ? order : strcmp(r->module, g->module);
}

/* The series of a row: rows of a cell come in order, and so do the series on the shelf. */
static growing *series_of(loader *l, shelf *s, const row_key *r)
{
    int order = 1;
    int64_t room = s->room;

    while (l->at_series < s->count && (order = by_row_key(r, &s->items[l->at_series])) > 0)
        l->at_series++;
    if (l->at_series < s->count && order == 0)
        return &s->items[l->at_series];
    if (!make_room(l, &s->items, s->count, &room, sizeof *s->items))
        return NULL;
    s->room = (int)room;
    growing *g = &s->items[l->at_series];
    memmove(g + 1, g, (size_t)(s->count - l->at_series) * sizeof *g);
    s->count++;
    *g = (growing){.metric = keep(l, r->metric),
                   .stage = keep(l, r->stage),
                   .module = keep(l, r->module),
                   .unit = keep(l, r->unit),
                   .step = r->step};
    return g;
}

static void add_point(loader *l, int32_t observation, const row_key *r, double value)
{
    growing *g = series_of(l, &l->shelves[l->h->observations[observation].subject], r);

    if (!g)
        return;
    if (g->count == g->room) {
        int64_t room = g->room;
        if (!make_room(l, &g->observation, g->count, &room, sizeof *g->observation))
            return;
        room = g->room;
        if (!make_room(l, &g->value, g->count, &room, sizeof *g->value))
            return;
        g->room = room;
    }
    g->observation[g->count] = observation;
    g->value[g->count++] = value;
}

static mp_code load_metrics(loader *l)
{
    static const char summaries[] =
        "SELECT cell, name, stage, step, module, value, nonfinite, unit FROM metric WHERE stage = "
        "'run' AND step = -1 AND module = '' AND (?1 IS NULL OR name = ?1) ORDER BY cell, name, "
        "stage, step, module";
    static const char every_row[] =
        "SELECT cell, name, stage, step, module, value, nonfinite, unit FROM metric WHERE (?1 IS "
        "NULL OR name = ?1) ORDER BY cell, name, stage, step, module";
    sqlite3_stmt *q = NULL;
    bool row = true;

    begin_rows(l);
    if (!mp_db_prepare(l->s, l->filter->every_row ? every_row : summaries, &q, l->err))
        mp_db_bind(l->s, q, l->err, "t", l->filter->metric);
    while (!l->err->code && !mp_db_step(l->s, q, &row, l->err) && row) {
        const int32_t at = observation_of(l, sqlite3_column_int64(q, 0));
        if (at >= 0)
            add_point(l, at,
                      &(row_key){mp_db_text(q, 1), mp_db_text(q, 2), mp_db_text(q, 4),
                                 mp_db_text(q, 7), sqlite3_column_int(q, 3)},
                      mp_db_number(q, 5, 6));
    }
    sqlite3_finalize(q);
    return l->err->code;
}

enum { MAX_REPEATS = 10000 }; /* of `mpbench run --repeat` */

typedef struct stage_samples {
    char stage[64];
    double *seconds;
    int count;
} stage_samples;

static void add_stage(loader *l, int32_t at, stage_samples *s)
{
    if (at >= 0 && s->count)
        add_point(l, at, &(row_key){"seconds", s->stage, "", "s", -1},
                  mp_median(s->seconds, s->count));
    s->count = 0;
}

/* The whole generation's seconds are a metric already. */
static mp_code load_samples(loader *l)
{
    stage_samples s = {.seconds = mp_alloc(MAX_REPEATS, sizeof *s.seconds)};
    sqlite3_stmt *q = NULL;
    int32_t at = -1;
    bool row = true;

    begin_rows(l);
    if (!s.seconds)
        no_memory(l);
    else
        mp_db_prepare(l->s,
                      "SELECT cell, stage, seconds FROM sample WHERE repeat >= 0 AND stage <> "
                      "'total' ORDER BY cell, stage, repeat",
                      &q, l->err);
    while (!l->err->code && row && !mp_db_step(l->s, q, &row, l->err)) {
        const char *stage = row ? mp_db_text(q, 1) : "";
        const bool same_cell =
            row && at >= 0 && l->h->observations[at].cell == sqlite3_column_int64(q, 0);
        if (!same_cell || strncmp(stage, s.stage, sizeof s.stage - 1))
            add_stage(l, at, &s); /* before the walk goes on to the next cell */
        if (!same_cell)
            at = row ? observation_of(l, sqlite3_column_int64(q, 0)) : -1;
        snprintf(s.stage, sizeof s.stage, "%s", stage);
        if (at >= 0 && s.count < MAX_REPEATS)
            s.seconds[s.count++] = sqlite3_column_double(q, 2);
    }
    sqlite3_finalize(q);
    mp_free(s.seconds);
    return l->err->code;
}

/* ---- the whole ------------------------------------------------------------------------------ */

typedef struct point {
    int32_t observation;
    double value;
} point;

static int by_observation(const void *a, const void *b)
{
    const point *x = a, *y = b;

    return (x->observation > y->observation) - (x->observation < y->observation);
}

/* Points came in order of cell ids, which is that of the runs unless a clock was wrong. */
static void sort_points(loader *l, growing *g)
{
    int64_t i = 1;

    while (i < g->count && g->observation[i - 1] < g->observation[i])
        i++;
    if (i >= g->count)
        return;
    point *p = mp_alloc((size_t)g->count, sizeof *p);
    if (!p) {
        no_memory(l);
        return;
    }
    for (i = 0; i < g->count; i++)
        p[i] = (point){g->observation[i], g->value[i]};
    qsort(p, (size_t)g->count, sizeof *p, by_observation);
    for (i = 0; i < g->count; i++) {
        g->observation[i] = p[i].observation;
        g->value[i] = p[i].value;
    }
    mp_free(p);
}

static mp_code place_series(loader *l)
{
    mp_history *h = l->h;
    size_t n = 0;

    for (int i = 0; i < h->subject_count; i++)
        n += (size_t)l->shelves[i].count;
    h->series = mp_alloc(n, sizeof *h->series);
    if (!h->series) {
        no_memory(l);
        return MP_ENOMEM;
    }
    for (int i = 0; i < h->subject_count; i++)
        for (int k = 0; k < l->shelves[i].count; k++) {
            growing *g = &l->shelves[i].items[k];
            sort_points(l, g);
            h->series[h->series_count++] = (mp_series){.subject = i,
                                                       .metric = g->metric,
                                                       .stage = g->stage,
                                                       .module = g->module,
                                                       .unit = g->unit,
                                                       .step = g->step,
                                                       .count = g->count,
                                                       .observation = g->observation,
                                                       .value = g->value};
            g->observation = NULL; /* the history's now */
            g->value = NULL;
        }
    return l->err->code;
}

static void free_loader(loader *l)
{
    for (int i = 0; l->shelves && i < l->h->subject_count; i++) {
        for (int k = 0; k < l->shelves[i].count; k++) {
            mp_free(l->shelves[i].items[k].observation);
            mp_free(l->shelves[i].items[k].value);
        }
        mp_free(l->shelves[i].items);
    }
    mp_free(l->shelves);
    mp_free(l->run_keys);
    mp_free(l->runs_by_id);
    mp_free(l->found);
}

static bool wants_stages(const mp_history_filter *f)
{
    return !f->metric || !strcmp(f->metric, "seconds");
}

/* A name that no cell knows would make a gate that always passes.  The kinds exact and outcome of
 * regressions need no metric; these are the names of their findings. */
static mp_code check_metric(loader *l)
{
    const char *metric = l->filter->metric, *scenario = l->filter->scenario;
    char names[1000];

    if (!metric || l->h->series_count || !strcmp(metric, "outputs") || !strcmp(metric, "outcome"))
        return MP_OK;
    char *plain = mp_plain_text(metric), *of = scenario ? mp_plain_text(scenario) : NULL;
    mp_db_list(l->s,
               "SELECT DISTINCT name FROM metric WHERE stage = 'run' AND step = -1 AND module = '' "
               "ORDER BY name",
               NULL, names, sizeof names);
    mp_error_set(l->err, MP_EMISSING,
                 "%s: no finished cell%s%.80s has the metric '%.60s'%s; there are: %s",
                 mp_store_path(l->s), of ? " of " : "", of ? of : "", plain ? plain : "",
                 l->filter->every_row ? "" : " of its whole run", *names ? names : "none");
    mp_free(of);
    mp_free(plain);
    return l->err->code;
}

mp_code mp_history_load(mp_store *s, const mp_history_filter *f, mp_history **out, mp_error *err)
{
    loader l = {.s = s, .filter = f, .err = err};

    *out = NULL;
    l.h = mp_alloc(1, sizeof *l.h);
    if (!l.h || !(l.h->texts = mp_texts_create())) {
        no_memory(&l);
        mp_history_free(l.h);
        return err->code;
    }
    if (!mp_db_begin_reading(s, err)) {
        if (!load_runs(&l) && !load_cells(&l) && !load_outputs(&l) && !load_metrics(&l) &&
            (!wants_stages(f) || !load_samples(&l)) && !place_series(&l))
            check_metric(&l);
        mp_db_end_reading(s);
    }
    free_loader(&l);
    if (err->code)
        mp_history_free(l.h);
    else
        *out = l.h;
    return err->code;
}

void mp_history_free(mp_history *h)
{
    if (!h)
        return;
    for (int i = 0; i < h->series_count; i++) {
        mp_free((void *)h->series[i].observation);
        mp_free((void *)h->series[i].value);
    }
    mp_free(h->series);
    mp_free(h->by_cell);
    mp_free(h->observations);
    mp_free(h->subjects);
    mp_free(h->runs);
    mp_texts_free(h->texts);
    mp_free(h);
}

int mp_history_find(const mp_history *h, int64_t cell)
{
    int low = 0, high = h->observation_count;

    while (low < high) {
        const int middle = low + (high - low) / 2;
        if (h->observations[h->by_cell[middle]].cell < cell)
            low = middle + 1;
        else
            high = middle;
    }
    return low < h->observation_count && h->observations[h->by_cell[low]].cell == cell
               ? h->by_cell[low]
               : -1;
}

void mp_revision_text(const char *revision, char out[MP_REVISION_TEXT])
{
    enum { COMMIT = 40, SHORT = 10 };
    const bool commit = strspn(revision, "0123456789abcdef") >= COMMIT;

    if (commit)
        snprintf(out, MP_REVISION_TEXT, "%.*s%.20s", SHORT, revision, revision + COMMIT);
    else
        snprintf(out, MP_REVISION_TEXT, "%.40s", revision);
}
