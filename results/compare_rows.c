#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "results/compare_report.h"

/* ---- rows ----------------------------------------------------------------------------------- */

/* Whether the pool is of the row's cells of A, so that one value stands for both. */
static bool same_cells(const mp_compare_report *r, const mp_compare_row *row, const mp_selection *s,
                       const mp_pool *pool)
{
    const int n = pool->end - pool->first;

    for (int i = 0; i < r->count; i++) {
        if (row->pool[i] < 0)
            continue;
        const mp_selection *other = &r->items[i].selection;
        const mp_pool *p = &other->pools[row->pool[i]];
        if (p->end - p->first != n)
            return false;
        for (int k = 0; k < n; k++)
            if (other->pairs[p->first + k].a != s->pairs[pool->first + k].a)
                return false;
        return true;
    }
    return false;
}

static int by_scenario(const void *x, const void *y)
{
    const mp_compare_row *a = x, *b = y;

    const int order = strcmp(a->first->a->scenario, b->first->a->scenario);

    return order ? order : a->order - b->order;
}

/* Rows of the comparisons before `number` are there: those of the same cells are found, from the
 * last one found on, since the pools of all are in one order. */
static int find_row(const mp_compare_report *r, const mp_compare_row *rows, int count, int start,
                    int number, const mp_pool *pool)
{
    for (int i = 0; i < count; i++) {
        const mp_compare_row *row = &rows[(start + i) % count];
        if (row->pool[number] < 0 && same_cells(r, row, &r->items[number].selection, pool))
            return (start + i) % count;
    }
    return count;
}

static void add_comparison(const mp_compare_report *r, int number, mp_compare_row *rows, int *count)
{
    const mp_selection *s = &r->items[number].selection;
    const int before = *count;

    for (int k = 0, start = 0; k < s->pool_count; k++) {
        int at = find_row(r, rows, before, start, number, &s->pools[k]);
        if (at == before) {
            at = (*count)++;
            rows[at].order = at;
            rows[at].first = &s->pairs[s->pools[k].first];
            for (int i = 0; i < MP_COMPARE_MOST; i++)
                rows[at].pool[i] = -1;
        } else {
            start = at + 1;
        }
        rows[at].pool[number] = k;
    }
}

mp_code mp_compare_rows(const mp_compare_report *r, mp_compare_row **out, int *count, mp_error *err)
{
    size_t most = 0;

    for (int i = 0; i < r->count; i++)
        most += (size_t)r->items[i].selection.pool_count;
    *count = 0;
    *out = mp_alloc(most, sizeof **out);
    if (!*out)
        return mp_compare_no_memory(err);
    for (int i = 0; i < r->count; i++)
        add_comparison(r, i, *out, count);
    if (*count)
        qsort(*out, (size_t)*count, sizeof **out, by_scenario);
    return MP_OK;
}

static bool same_scenario(const mp_compare_row *x, const mp_compare_row *y)
{
    return !strcmp(x->first->a->scenario, y->first->a->scenario);
}

/* ---- keys ----------------------------------------------------------------------------------- */

static bool selected(const mp_compare_report *r, const char *key)
{
    for (int i = 0; i < r->count; i++)
        if (mp_selection_has_key(&r->items[i].selection, key))
            return true;
    return false;
}

static void add_key(const mp_compare_report *r, mp_compare_group *g, const char *key)
{
    if (mp_pooled_key(key) || selected(r, key) || g->key_count == MP_ROW_KEYS)
        return;
    for (int i = 0; i < g->key_count; i++)
        if (!strcmp(g->keys[i], key))
            return;
    g->keys[g->key_count++] = key;
}

/* What keeps two rows apart that is no setting: the key that stands for it. */
static void add_differing_facts(const mp_compare_report *r, mp_compare_group *g,
                                const mp_compare_row *x, const mp_compare_row *y)
{
    static const char *const keys[] = {"engine", "device", "machine", "checkpoint_hash"};
    char of_x[MP_NAME], of_y[MP_NAME];

    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(mp_row_value(x, keys[i], of_x), mp_row_value(y, keys[i], of_y)))
            add_key(r, g, keys[i]);
}

/* Keys that only one of them has, or with another value. */
static void add_differing(const mp_compare_report *r, mp_compare_group *g,
                          const mp_compare_row *first, const mp_compare_row *row)
{
    const mp_candidate *x = first->first->a, *y = row->first->a;
    int i = 0, k = 0;

    add_differing_facts(r, g, first, row);
    while (i < x->setting_count || k < y->setting_count) {
        const int order = i == x->setting_count   ? 1
                          : k == y->setting_count ? -1
                                                  : strcmp(x->settings[i].key, y->settings[k].key);
        if (order || strcmp(x->settings[i].value, y->settings[k].value))
            add_key(r, g, order > 0 ? y->settings[k].key : x->settings[i].key);
        i += order <= 0;
        k += order >= 0;
    }
}

/* Whether two rows are told apart by nothing but their runs. */
static bool only_runs_differ(const mp_compare_group *g, const mp_compare_row *x,
                             const mp_compare_row *y)
{
    char of_x[MP_NAME], of_y[MP_NAME];

    mp_row_name(g, x, of_x);
    mp_row_name(g, y, of_y);
    return !strcmp(of_x, of_y) &&
           strcmp(mp_row_value(x, "run", of_x), mp_row_value(y, "run", of_y));
}

mp_compare_group mp_compare_group_at(const mp_compare_report *r, const mp_compare_row *rows,
                                     int count, int first)
{
    mp_compare_group g = {.first = first, .end = first};

    for (; g.end < count && same_scenario(&rows[first], &rows[g.end]); g.end++)
        add_differing(r, &g, &rows[first], &rows[g.end]);
    for (int i = first + 1; i < g.end; i++)
        if (only_runs_differ(&g, &rows[i - 1], &rows[i])) {
            add_key(r, &g, "run");
            break;
        }
    return g;
}

static const char *of_both(const char *a, const char *b, char room[MP_NAME])
{
    snprintf(room, MP_NAME, strcmp(a, b) ? "%.8s:%.8s" : "%.8s", a, b);
    return room;
}

const char *mp_row_value(const mp_compare_row *row, const char *key, char room[MP_NAME])
{
    const mp_candidate *a = row->first->a, *b = row->first->b;

    if (!strcmp(key, "engine"))
        return a->run->engine;
    if (!strcmp(key, "device"))
        return a->run->device;
    if (!strcmp(key, "machine"))
        return of_both(a->run->fingerprint, b->run->fingerprint, room);
    if (!strcmp(key, "checkpoint_hash"))
        return of_both(a->checkpoint_hash, b->checkpoint_hash, room);
    if (!strcmp(key, "run")) {
        snprintf(room, MP_NAME, "%lld:%lld", (long long)a->run->id, (long long)b->run->id);
        return room;
    }
    return mp_candidate_setting(a, key);
}

void mp_row_name(const mp_compare_group *g, const mp_compare_row *row, char out[MP_NAME])
{
    char room[MP_NAME];
    size_t n = 0;

    snprintf(out, MP_NAME, "-");
    for (int k = 0; k < g->key_count && n < MP_NAME; k++) {
        const char *value = mp_row_value(row, g->keys[k], room);
        if (value)
            n += (size_t)snprintf(out + n, MP_NAME - n, "%s%s=%s", n ? "," : "", g->keys[k], value);
    }
}

void mp_row_title(const mp_compare_report *r, const mp_compare_row *row, char out[MP_NAME])
{
    const char *a = row->first->a->scenario, *b = row->first->b->scenario;
    const bool same = r->count > 1 || !strcmp(a, b);

    snprintf(out, MP_NAME, "%s%s%s", a, same ? "" : " against ", same ? "" : b);
}
