#include "results/compare_measure.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "results/metric_kind.h"

static mp_code push(mp_numbers *list, double value, mp_error *err)
{
    if (list->n == list->room) {
        const int64_t room = list->room ? 2 * list->room : 8;
        double *grown = mp_realloc(list->x, (size_t)room, sizeof *grown);
        if (!grown)
            return mp_compare_no_memory(err);
        list->x = grown;
        list->room = room;
    }
    list->x[list->n++] = value;
    return MP_OK;
}

/* ---- statements ----------------------------------------------------------------------------- */

enum { ENDING, METRICS, SAMPLES, SAME_BITS, LIMIT, STATEMENTS };

static const char *const statements[STATEMENTS] = {
    [ENDING] = "SELECT status, error, reference FROM cell WHERE id = ?",
    [METRICS] = "SELECT name, unit, value, nonfinite FROM metric WHERE cell = ? AND stage = 'run' "
                "AND step = -1 AND module = '' ORDER BY name",
    [SAMPLES] = "SELECT seconds FROM sample WHERE cell = ? AND stage = 'total' AND repeat >= 0 "
                "ORDER BY repeat",
    [SAME_BITS] =
        "SELECT EXISTS (SELECT 1 FROM output WHERE cell = ?1) AND NOT EXISTS (SELECT "
        "name, dtype, sha256 FROM output WHERE cell = ?1 EXCEPT SELECT name, dtype, sha256 "
        "FROM output WHERE cell = ?2) AND NOT EXISTS (SELECT name, dtype, sha256 FROM "
        "output WHERE cell = ?2 EXCEPT SELECT name, dtype, sha256 FROM output WHERE cell = "
        "?1)",
    [LIMIT] = "SELECT value FROM cell_limit WHERE cell = ? AND metric = ? AND kind = 'relative'",
};

struct mp_measurer {
    mp_store *store;
    const char *metric;
    sqlite3_stmt *q[STATEMENTS];
};

mp_measurer *mp_measurer_create(mp_store *s, const char *metric, mp_error *err)
{
    mp_measurer *m = mp_alloc(1, sizeof *m);

    if (!m) {
        mp_compare_no_memory(err);
        return NULL;
    }
    *m = (mp_measurer){.store = s, .metric = metric};
    for (int i = 0; i < STATEMENTS && !err->code; i++)
        if (i != LIMIT || s->version >= MP_DB_SINCE_FINDINGS)
            mp_db_prepare(s, statements[i], &m->q[i], err);
    if (!err->code)
        return m;
    mp_measurer_free(m);
    return NULL;
}

void mp_measurer_free(mp_measurer *m)
{
    if (!m)
        return;
    for (int i = 0; i < STATEMENTS; i++)
        sqlite3_finalize(m->q[i]);
    mp_free(m);
}

/* ---- how cells ended ------------------------------------------------------------------------ */

enum { REFERENCE = 80, KINDS = 8 };

/* The cells of one side over a pool, counted by status. */
typedef struct endings {
    mp_ending *out;
    struct {
        char status[16];
        int count;
    } kinds[KINDS]; /* the schema has fewer statuses of finished cells */
    int kind_count;
} endings;

static void count_status(endings *e, const char *status)
{
    int i = 0;

    while (i < e->kind_count && strcmp(e->kinds[i].status, status))
        i++;
    if (i == KINDS)
        return;
    if (i == e->kind_count)
        snprintf(e->kinds[e->kind_count++].status, sizeof e->kinds[i].status, "%s", status);
    e->kinds[i].count++;
}

/* One side of a pair: its newest good cell, 0 for none, and whether a cell failed. */
typedef struct side_state {
    int64_t good;
    bool failed;
    char reference[REFERENCE]; /* of the good cell */
} side_state;

static mp_code note_ending(mp_measurer *m, int64_t cell, endings *e, side_state *out, mp_error *err)
{
    sqlite3_stmt *q = m->q[ENDING];
    bool row = false;

    sqlite3_reset(q);
    if (mp_db_bind(m->store, q, err, "i", cell) || mp_db_step(m->store, q, &row, err) || !row)
        return err->code;
    const bool ok = !strcmp(mp_db_text(q, 0), "ok");
    count_status(e, mp_db_text(q, 0));
    e->out->cells++;
    if (ok && !out->good) {
        out->good = cell;
        snprintf(out->reference, REFERENCE, "%s", mp_db_text(q, 2));
    }
    if (ok)
        return MP_OK;
    out->failed = true;
    e->out->failed++;
    if (!e->out->error && !(e->out->error = mp_strdup(mp_db_text(q, 1))))
        return mp_compare_no_memory(err);
    return MP_OK;
}

static mp_code note_side(mp_measurer *m, const mp_candidate *c, endings *e, side_state *out,
                         mp_error *err)
{
    *out = (side_state){0};
    for (int i = 0; i < c->id_count; i++)
        if (note_ending(m, c->ids[i], e, out, err))
            return err->code;
    return MP_OK;
}

/* "ok"; of several cells "11 ok, 1 error", the good ones first. */
static mp_code tell(endings *e, mp_error *err)
{
    mp_ending *out = e->out;
    size_t n = 0;

    if (!out->error && !(out->error = mp_strdup("")))
        return mp_compare_no_memory(err);
    if (out->cells == 1)
        snprintf(out->status, sizeof out->status, "%s", e->kinds[0].status);
    for (int good = 1; out->cells > 1 && good >= 0; good--)
        for (int i = 0; i < e->kind_count && n < sizeof out->status; i++)
            if ((strcmp(e->kinds[i].status, "ok") == 0) == good)
                n += (size_t)snprintf(out->status + n, sizeof out->status - n, "%s%d %s",
                                      n ? ", " : "", e->kinds[i].count, e->kinds[i].status);
    return MP_OK;
}

/* ---- numbers -------------------------------------------------------------------------------- */

typedef struct summary {
    char metric[64], unit[16];
    double value;
} summary;

/* The summaries of one cell. */
typedef struct summaries {
    summary *items;
    int count, room;
} summaries;

static mp_code load_summaries(mp_measurer *m, int64_t cell, summaries *out, mp_error *err)
{
    sqlite3_stmt *q = m->q[METRICS];
    bool row = true;

    out->count = 0;
    sqlite3_reset(q);
    if (mp_db_bind(m->store, q, err, "i", cell))
        return err->code;
    while (!mp_db_step(m->store, q, &row, err) && row) {
        if (out->count == out->room) {
            const int room = out->room ? 2 * out->room : 32;
            summary *grown = mp_realloc(out->items, (size_t)room, sizeof *grown);
            if (!grown)
                return mp_compare_no_memory(err);
            out->items = grown;
            out->room = room;
        }
        summary *s = &out->items[out->count++];
        snprintf(s->metric, sizeof s->metric, "%s", mp_db_text(q, 0));
        snprintf(s->unit, sizeof s->unit, "%s", mp_db_text(q, 1));
        s->value = mp_db_number(q, 2, 3);
    }
    return err->code;
}

static const summary *find(const summaries *s, const char *metric, const char *unit)
{
    for (int i = 0; i < s->count; i++)
        if (!strcmp(s->items[i].metric, metric) && (!unit || !strcmp(s->items[i].unit, unit)))
            return &s->items[i];
    return NULL;
}

/* What the reference itself is good for, where it is known: 0 is no noise. */
static double noise_of(const summaries *s, const char *metric)
{
    char name[80];

    if (strcmp(metric, "latent_rel_l2") && strcmp(metric, "image_rel_l2"))
        return 0;
    snprintf(name, sizeof name, "floor_%s", metric);
    const summary *floor = find(s, name, NULL);
    return floor && !isnan(floor->value) ? floor->value : 0;
}

static mp_measure *measure_of(mp_measures *out, const summary *s, mp_error *err)
{
    int i = 0;

    while (i < out->count &&
           (strcmp(out->items[i].metric, s->metric) || strcmp(out->items[i].unit, s->unit)))
        i++;
    if (i < out->count)
        return &out->items[i];
    mp_measure *grown = mp_realloc(out->items, (size_t)out->count + 1, sizeof *grown);
    if (!grown) {
        mp_compare_no_memory(err);
        return NULL;
    }
    out->items = grown;
    mp_measure *m = &grown[out->count++];
    *m = (mp_measure){.limit = NAN};
    memcpy(m->metric, s->metric, sizeof m->metric);
    memcpy(m->unit, s->unit, sizeof m->unit);
    return m;
}

static bool wanted(const mp_measurer *m, const summary *s)
{
    return m->metric ? !strcmp(s->metric, m->metric)
                     : mp_metric_kind_of(s->metric, s->unit, "").class != MP_METRIC_CONTEXT;
}

/* What both newest good cells of pair number `pair` have. */
static mp_code join(mp_measurer *m, const summaries *a, const summaries *b, int pair,
                    mp_measures *out, mp_error *err)
{
    for (int i = 0; i < a->count; i++) {
        const summary *x = &a->items[i], *y = find(b, x->metric, x->unit);
        if (!y || !wanted(m, x))
            continue;
        mp_measure *to = measure_of(out, x, err);
        const double noise = fmax(noise_of(a, x->metric), noise_of(b, x->metric));
        if (!to || push(&to->a, x->value, err) || push(&to->b, y->value, err) ||
            push(&to->noise, noise, err) || push(&to->pair, pair, err))
            return err->code;
    }
    return MP_OK;
}

static mp_code load_seconds(mp_measurer *m, int64_t cell, mp_numbers *out, mp_error *err)
{
    sqlite3_stmt *q = m->q[SAMPLES];
    bool row = true;

    sqlite3_reset(q);
    if (mp_db_bind(m->store, q, err, "i", cell))
        return err->code;
    while (!mp_db_step(m->store, q, &row, err) && row)
        if (push(out, sqlite3_column_double(q, 0), err))
            break;
    return err->code;
}

/* All good cells of one side of a pair: of several runs where a label pools them. */
static mp_code add_rounds(mp_measurer *m, const mp_candidate *c, bool is_a, summaries *room,
                          mp_measures *out, mp_error *err)
{
    bool row;

    for (int i = 0; i < c->id_count; i++) {
        sqlite3_stmt *q = m->q[ENDING];
        sqlite3_reset(q);
        if (mp_db_bind(m->store, q, err, "i", c->ids[i]) || mp_db_step(m->store, q, &row, err))
            return err->code;
        if (!row || strcmp(mp_db_text(q, 0), "ok"))
            continue;
        if (load_summaries(m, c->ids[i], room, err) ||
            load_seconds(m, c->ids[i], is_a ? &out->seconds_a : &out->seconds_b, err))
            return err->code;
        for (int k = 0; k < out->count; k++) {
            mp_measure *to = &out->items[k];
            const summary *s = find(room, to->metric, to->unit);
            if (s && push(is_a ? &to->all_a : &to->all_b, s->value, err))
                return err->code;
        }
    }
    return MP_OK;
}

/* ---- pairs ---------------------------------------------------------------------------------- */

static mp_code compare_bits(mp_measurer *m, int64_t a, int64_t b, bool *out, mp_error *err)
{
    sqlite3_stmt *q = m->q[SAME_BITS];
    bool row = false;

    sqlite3_reset(q);
    if (!mp_db_bind(m->store, q, err, "ii", a, b) && !mp_db_step(m->store, q, &row, err) && row)
        *out = sqlite3_column_int(q, 0);
    return err->code;
}

static void note_failures(const side_state *a, const side_state *b, mp_measures *out)
{
    out->newly_failing += !a->failed && b->failed;
    out->fixed += a->failed && !b->failed;
    out->failing_both += a->failed && b->failed;
}

/* What a broken run measured is no quality of it: only good cells count. */
static mp_code measure_pair(mp_measurer *m, const mp_cell_pair *pair, int number, endings e[2],
                            summaries room[2], mp_measures *out, mp_error *err)
{
    side_state a, b;

    if (note_side(m, pair->a, &e[0], &a, err) || note_side(m, pair->b, &e[1], &b, err))
        return err->code;
    note_failures(&a, &b, out);
    if (!a.good || !b.good)
        return MP_OK;
    out->good++;
    out->same_reference[number] = !strcmp(a.reference, b.reference);
    if (compare_bits(m, a.good, b.good, &out->same_bits[number], err) ||
        load_summaries(m, a.good, &room[0], err) || load_summaries(m, b.good, &room[1], err) ||
        join(m, &room[0], &room[1], number, out, err) ||
        add_rounds(m, pair->a, true, &room[0], out, err))
        return err->code;
    return add_rounds(m, pair->b, false, &room[1], out, err);
}

/* What the scenario of b allows; all pairs of a pool are of one. */
static mp_code load_limits(mp_measurer *m, int64_t cell, mp_measures *out, mp_error *err)
{
    sqlite3_stmt *q = m->q[LIMIT];
    bool row = false;

    for (int i = 0; q && i < out->count; i++) {
        sqlite3_reset(q);
        if (mp_db_bind(m->store, q, err, "it", cell, out->items[i].metric) ||
            mp_db_step(m->store, q, &row, err))
            return err->code;
        if (row)
            out->items[i].limit = sqlite3_column_double(q, 0);
    }
    return MP_OK;
}

static int by_metric(const void *x, const void *y)
{
    const mp_measure *a = x, *b = y;
    const int order = strcmp(a->metric, b->metric);

    return order ? order : strcmp(a->unit, b->unit);
}

mp_code mp_measure_pool(mp_measurer *m, const mp_selection *s, const mp_pool *pool,
                        mp_measures *out, mp_error *err)
{
    const int n = pool->end - pool->first;
    endings e[2] = {{.out = &out->a}, {.out = &out->b}};
    summaries room[2] = {{0}};

    *out = (mp_measures){.same_reference = mp_alloc((size_t)n, sizeof(bool)),
                         .same_bits = mp_alloc((size_t)n, sizeof(bool))};
    if (!out->same_reference || !out->same_bits)
        mp_compare_no_memory(err);
    for (int i = 0; i < n && !err->code; i++)
        measure_pair(m, &s->pairs[pool->first + i], i, e, room, out, err);
    if (!err->code && !tell(&e[0], err) && !tell(&e[1], err))
        load_limits(m, s->pairs[pool->first].b->ids[0], out, err);
    if (out->count)
        qsort(out->items, (size_t)out->count, sizeof *out->items, by_metric);
    mp_free(room[0].items);
    mp_free(room[1].items);
    return err->code;
}

void mp_measures_free(mp_measures *m)
{
    for (int i = 0; i < m->count; i++) {
        mp_measure *x = &m->items[i];
        mp_numbers *const all[] = {&x->a, &x->b, &x->noise, &x->pair, &x->all_a, &x->all_b};
        for (size_t k = 0; k < sizeof all / sizeof *all; k++)
            mp_free(all[k]->x);
    }
    mp_free(m->items);
    mp_free(m->seconds_a.x);
    mp_free(m->seconds_b.x);
    mp_free(m->same_reference);
    mp_free(m->same_bits);
    mp_free(m->a.error);
    mp_free(m->b.error);
}
