/* What is on record of findings: their ids, their life, their acknowledgements. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "results/db.h"
#include "results/metrics.h"
#include "results/regressions_internal.h"

#define NEWEST_EVENT                                                                           \
    "(SELECT e.id FROM finding_event e WHERE e.finding = finding.id ORDER BY e.at DESC, e.id " \
    "DESC LIMIT 1)"
/* By time, since older events come by merge; so none may say that it was before those on record. */
#define LATEST \
    "max(" MP_DB_NOW ", coalesce((SELECT max(at) FROM finding_event WHERE finding = ?1), ''))"

typedef struct recall {
    mp_store *s;
    const mp_history *h;
    const mp_regression_options *o;
    mp_findings *f;
    mp_finding_state *on_record; /* of each finding that has an id */
    mp_error *err;
} recall;

static mp_code no_memory(mp_error *err)
{
    return mp_error_set(err, MP_ENOMEM, "no memory for the findings");
}

/* ---- finding again -------------------------------------------------------------------------- */

/* A finding as the database has it. */
typedef struct recorded {
    int64_t id;
    mp_finding_kind kind;
    mp_finding_state state;
    int after; /* observation */
    const char *metric, *stage, *module;
    int step;
    const char *why;
} recorded;

static bool by_statistics(mp_finding_kind k)
{
    return k == MP_FINDING_STEP || k == MP_FINDING_TREND;
}

static bool same_series(const mp_series *s, const recorded *d)
{
    return !strcmp(s->metric, d->metric) && !strcmp(s->stage, d->stage) && s->step == d->step &&
           !strcmp(s->module, d->module);
}

static bool is_same(const recall *r, const mp_finding *x, const recorded *d)
{
    if (x->id || by_statistics(x->kind) != by_statistics(d->kind))
        return false;
    if (!by_statistics(d->kind))
        return x->kind == d->kind && x->after == d->after;
    return abs(x->after - d->after) < r->o->min_segment && same_series(&r->h->series[x->series], d);
}

/* Findings still are in order of their subjects. */
static int first_of_subject(const recall *r, int subject)
{
    int low = 0, high = r->f->count;

    while (low < high) {
        const int middle = low + (high - low) / 2;
        if (r->f->items[middle].subject < subject)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static mp_finding *nearest(const recall *r, int subject, const recorded *d)
{
    mp_finding *best = NULL;

    for (int i = first_of_subject(r, subject); i < r->f->count && r->f->items[i].subject == subject;
         i++) {
        mp_finding *x = &r->f->items[i];
        if (is_same(r, x, d) && (!best || abs(x->after - d->after) < abs(best->after - d->after)))
            best = x;
    }
    return best;
}

/* Whether what it was found in was looked at this time. */
static bool was_looked_at(const recall *r, int subject, const recorded *d)
{
    if (!by_statistics(d->kind))
        return true;
    for (int i = 0; i < r->h->series_count; i++)
        if (r->h->series[i].subject == subject && same_series(&r->h->series[i], d))
            return true;
    return false;
}

static mp_code add_withdrawn(recall *r, int64_t id)
{
    mp_findings *f = r->f;

    if (f->withdrawn_count == f->withdrawn_room) {
        const int room = f->withdrawn_room ? 2 * f->withdrawn_room : 16;
        int64_t *grown = mp_realloc(f->withdrawn, (size_t)room, sizeof *grown);
        if (!grown)
            return no_memory(r->err);
        f->withdrawn = grown;
        f->withdrawn_room = room;
    }
    f->withdrawn[f->withdrawn_count++] = id;
    return MP_OK;
}

static void recall_one(recall *r, const recorded *d)
{
    const int subject = r->h->observations[d->after].subject;
    mp_finding *x = nearest(r, subject, d);

    if (!x) {
        if (d->state != MP_FINDING_WITHDRAWN && d->state != MP_FINDING_FIXED &&
            was_looked_at(r, subject, d))
            add_withdrawn(r, d->id);
        return;
    }
    x->id = d->id;
    r->on_record[x - r->f->items] = d->state;
    if (d->state == MP_FINDING_ACKNOWLEDGED && x->state != MP_FINDING_FIXED) {
        x->state = MP_FINDING_ACKNOWLEDGED;
        x->why = mp_strdup(d->why);
        if (!x->why)
            no_memory(r->err);
    }
}

static int among(const char *const *names, const char *name)
{
    int i = 0;

    while (names[i] && strcmp(names[i], name))
        i++;
    return names[i] ? i : -1;
}

static mp_code recall_all(recall *r)
{
    static const char sql[] =
        "SELECT finding.id, kind, after_cell, metric, stage, step, module, e.state, e.why FROM "
        "finding JOIN finding_event e ON e.id = " NEWEST_EVENT " ORDER BY finding.id";
    sqlite3_stmt *q = NULL;
    bool row = true;

    mp_db_prepare(r->s, sql, &q, r->err);
    while (!r->err->code && !mp_db_step(r->s, q, &row, r->err) && row) {
        const int kind = among(mp_finding_kind_names, mp_db_text(q, 1));
        const int state = among(mp_finding_state_names, mp_db_text(q, 7));
        const recorded d = {.id = sqlite3_column_int64(q, 0),
                            .kind = (mp_finding_kind)kind,
                            .state = (mp_finding_state)state,
                            .after = mp_history_find(r->h, sqlite3_column_int64(q, 2)),
                            .metric = mp_db_text(q, 3),
                            .stage = mp_db_text(q, 4),
                            .module = mp_db_text(q, 6),
                            .step = sqlite3_column_int(q, 5),
                            .why = mp_db_text(q, 8)};
        if (kind >= 0 && state >= 0 && d.after >= 0)
            recall_one(r, &d);
    }
    sqlite3_finalize(q);
    return r->err->code;
}

/* ---- recording ------------------------------------------------------------------------------ */

static void hash_text(mp_sha256 *hash, const char *text)
{
    mp_sha256_update(hash, text, strlen(text) + 1);
}

/* The same finding in another database, of other ids, has the same key. */
static void key_of(const recall *r, const mp_finding *x, char key[65])
{
    const mp_subject *s = &r->h->subjects[x->subject];
    const mp_series *m = x->series >= 0 ? &r->h->series[x->series] : NULL;
    mp_sha256 hash;
    char step[16];

    snprintf(step, sizeof step, "%d", m ? m->step : -1);
    const char *const parts[] = {by_statistics(x->kind) ? "step" : mp_finding_kind_names[x->kind],
                                 s->key,
                                 s->inputs,
                                 s->engine,
                                 s->device,
                                 s->fingerprint,
                                 x->metric,
                                 m ? m->stage : "run",
                                 m ? m->module : "",
                                 step,
                                 r->h->runs[r->h->observations[x->after].run].uuid};
    mp_sha256_init(&hash);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        hash_text(&hash, parts[i]);
    mp_sha256_final(&hash, key);
}

static mp_code id_of_key(recall *r, const char *key, int64_t *id)
{
    sqlite3_stmt *q = NULL;
    bool row = false;

    if (!mp_db_prepare(r->s, "SELECT id FROM finding WHERE key = ?", &q, r->err) &&
        !mp_db_bind(r->s, q, r->err, "t", key) && !mp_db_step(r->s, q, &row, r->err) && row)
        *id = sqlite3_column_int64(q, 0);
    sqlite3_finalize(q);
    return r->err->code;
}

static mp_code put_finding(recall *r, sqlite3_stmt *q, mp_finding *x)
{
    const mp_subject *s = &r->h->subjects[x->subject];
    const mp_series *m = x->series >= 0 ? &r->h->series[x->series] : NULL;
    char key[65];

    key_of(r, x, key);
    if (mp_db_bind(r->s, q, r->err, "tttttttttitii", key, mp_finding_kind_names[x->kind], s->key,
                   s->scenario, s->engine, s->device, s->fingerprint, x->metric,
                   m ? m->stage : "run", (int64_t)(m ? m->step : -1), m ? m->module : "",
                   r->h->observations[x->before].cell, r->h->observations[x->after].cell) ||
        mp_db_put(r->s, q, r->err))
        return r->err->code;
    return id_of_key(r, key, &x->id);
}

static mp_code put_event(recall *r, sqlite3_stmt *q, int64_t id, mp_finding_state state,
                         const mp_finding *x)
{
    const char *why = state == MP_FINDING_ACKNOWLEDGED && x ? x->why : NULL;

    if (!mp_db_bind(r->s, q, r->err, "ittddd", id, mp_finding_state_names[state], why,
                    x ? x->value_before : NAN, x ? x->value_after : NAN, x ? x->p : NAN))
        mp_db_put(r->s, q, r->err);
    return r->err->code;
}

static mp_code record(recall *r)
{
    static const char finding_sql[] =
        "INSERT OR IGNORE INTO finding (key, kind, cell_key, scenario, engine, device, "
        "fingerprint, metric, stage, step, module, before_cell, after_cell) VALUES (?, ?, ?, ?, ?, "
        "?, ?, ?, ?, ?, ?, ?, ?)";
    static const char event_sql[] =
        "INSERT INTO finding_event (finding, at, state, why, before, after, p) VALUES (?1, " LATEST
        ", ?, ?, ?, ?, ?)";
    sqlite3_stmt *finding = NULL, *event = NULL;

    if (!mp_db_prepare(r->s, finding_sql, &finding, r->err))
        mp_db_prepare(r->s, event_sql, &event, r->err);
    for (int i = 0; i < r->f->count && !r->err->code; i++) {
        mp_finding *x = &r->f->items[i];
        if (x->id && r->on_record[i] == x->state)
            continue;
        if (x->id || !put_finding(r, finding, x))
            put_event(r, event, x->id, x->state, x);
    }
    for (int i = 0; i < r->f->withdrawn_count && !r->err->code; i++)
        put_event(r, event, r->f->withdrawn[i], MP_FINDING_WITHDRAWN, NULL);
    sqlite3_finalize(finding);
    sqlite3_finalize(event);
    return r->err->code;
}

static mp_code recall_and_record(recall *r)
{
    if (!r->o->record)
        return recall_all(r);
    if (mp_db_begin_writing(r->s, r->err))
        return r->err->code;
    if (!recall_all(r))
        record(r);
    return mp_db_end_writing(r->s, r->err);
}

mp_code mp_findings_recall(mp_store *s, const mp_history *h, const mp_regression_options *o,
                           mp_findings *f, mp_error *err)
{
    recall r = {.s = s, .h = h, .o = o, .f = f, .err = err};

    if (s->version < MP_DB_SINCE_FINDINGS) /* an older database, only read */
        return MP_OK;
    r.on_record = mp_alloc((size_t)f->count, sizeof *r.on_record);
    if (!r.on_record)
        no_memory(err);
    else
        recall_and_record(&r);
    mp_free(r.on_record);
    return err->code;
}

/* ---- acknowledging -------------------------------------------------------------------------- */

/* Those that changed between the same two runs, and are not over, count as siblings. */
static const char ids_sql[] =
    "SELECT finding.id, e.state, e.id > ?3 FROM finding JOIN finding_event e ON e.id = " NEWEST_EVENT
    " WHERE finding.id = ?1 OR (?2 AND e.state IN ('detected', 'confirmed') AND EXISTS (SELECT 1 "
    "FROM finding one JOIN cell a ON a.id = one.before_cell JOIN cell b ON b.id = one.after_cell "
    "JOIN cell c ON c.id = finding.before_cell JOIN cell d ON d.id = finding.after_cell WHERE "
    "one.id = ?1 AND a.run = c.run AND b.run = d.run))";

/* last: the newest event before this call; what has a newer one was acknowledged by it already. */
static mp_code acknowledge(mp_store *s, int64_t id, int64_t last, bool siblings, const char *why,
                           int *count, mp_error *err)
{
    sqlite3_stmt *q = NULL, *put_q = NULL;
    bool row = true, found = false;

    if (!mp_db_prepare(s,
                       "INSERT INTO finding_event (finding, at, state, why) VALUES (?1, " LATEST
                       ", 'acknowledged', ?)",
                       &put_q, err) &&
        !mp_db_prepare(s, ids_sql, &q, err))
        mp_db_bind(s, q, err, "iii", id, (int64_t)siblings, last);
    while (!err->code && !mp_db_step(s, q, &row, err) && row) {
        const int64_t one = sqlite3_column_int64(q, 0);
        const char *state = mp_db_text(q, 1);
        bool ignored;
        found |= one == id;
        if (sqlite3_column_int(q, 2))
            continue;
        if (!strcmp(state, "fixed") || !strcmp(state, "withdrawn"))
            mp_error_set(err, MP_EUSAGE,
                         "finding %lld is %s: there is nothing to acknowledge; `mpbench "
                         "regressions` shows the open ones",
                         (long long)one, state);
        else if (!mp_db_bind(s, put_q, err, "it", one, why) && !mp_db_step(s, put_q, &ignored, err))
            ++*count;
        sqlite3_reset(put_q);
    }
    sqlite3_finalize(q);
    sqlite3_finalize(put_q);
    if (!err->code && !found)
        mp_error_set(err, MP_EMISSING,
                     "%s: there is no finding %lld; `mpbench regressions` shows their ids", s->path,
                     (long long)id);
    return err->code;
}

mp_code mp_findings_acknowledge(mp_store *s, const int64_t *ids, int n, bool siblings,
                                const char *why, int *count, mp_error *err)
{
    sqlite3_stmt *q = NULL;
    int64_t last = 0;
    bool row = false;

    *count = 0;
    if (mp_db_begin_writing(s, err))
        return err->code;
    if (!mp_db_prepare(s, "SELECT max(id) FROM finding_event", &q, err) &&
        !mp_db_step(s, q, &row, err) && row)
        last = sqlite3_column_int64(q, 0);
    sqlite3_finalize(q);
    for (int i = 0; i < n && !err->code; i++)
        acknowledge(s, ids[i], last, siblings, why, count, err);
    return mp_db_end_writing(s, err);
}
