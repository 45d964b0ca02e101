#include "results/compare_select.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "results/table.h"

/* ---- what must be equal --------------------------------------------------------------------- */

bool mp_selection_has_key(const mp_selection *s, const char *key)
{
    return mp_selector_names(&s->a->selector, key) || mp_selector_names(&s->b->selector, key);
}

static bool names_a_run(const mp_selection *s)
{
    return mp_selection_has_key(s, "label") || mp_selection_has_key(s, "run") ||
           mp_selection_has_key(s, "uuid") || mp_selection_has_key(s, "rounds");
}

/* strict: only what both selectors name may differ. */
static bool may_differ(const mp_selection *s, const char *key, bool strict)
{
    return strict
               ? mp_selector_names(&s->a->selector, key) && mp_selector_names(&s->b->selector, key)
               : mp_selection_has_key(s, key);
}

/* Of what is no setting: the key that names it, and its value. */
enum { FACTS = 4 };
static void facts_of(const mp_candidate *c, mp_pair out[FACTS])
{
    out[0] = (mp_pair){"scenario", c->scenario};
    out[1] = (mp_pair){"engine", c->run->engine};
    out[2] = (mp_pair){"device", c->run->device};
    out[3] = (mp_pair){"checkpoint", c->checkpoint_hash};
}

static bool fact_may_differ(const mp_selection *s, int fact, const char *key, bool strict)
{
    return (fact > 0 && names_a_run(s)) || may_differ(s, key, strict);
}

/* A cell with everything that must be equal in its partner, as one text. */
typedef struct signed_cell {
    char *signature;
    const mp_candidate *cell;
    bool paired;
} signed_cell;

static mp_code sign(const mp_selection *s, signed_cell *x, bool strict, mp_error *err)
{
    const mp_candidate *c = x->cell;
    mp_pair facts[FACTS];
    size_t n = 1;

    facts_of(c, facts);
    for (int i = 0; i < FACTS; i++)
        n += strlen(facts[i].value) + 1;
    for (int i = 0; i < c->setting_count; i++)
        n += strlen(c->settings[i].key) + strlen(c->settings[i].value) + 2;
    mp_free(x->signature);
    char *t = x->signature = mp_alloc(n, 1);
    if (!t)
        return mp_compare_no_memory(err);
    for (int i = 0; i < FACTS; i++)
        if (!fact_may_differ(s, i, facts[i].key, strict))
            t += sprintf(t, "%s\n", facts[i].value);
    for (int i = 0; i < c->setting_count; i++)
        if (!may_differ(s, c->settings[i].key, strict))
            t += sprintf(t, "%s=%s\n", c->settings[i].key, c->settings[i].value);
    return MP_OK;
}

static signed_cell *unsigned_cells(const mp_side *side, mp_error *err)
{
    signed_cell *list = mp_alloc((size_t)side->count, sizeof *list);

    if (!list)
        mp_compare_no_memory(err);
    for (int i = 0; list && i < side->count; i++)
        list[i].cell = &side->cells[i];
    return list;
}

static void free_signed(signed_cell *list, int n)
{
    for (int i = 0; list && i < n; i++)
        mp_free(list[i].signature);
    mp_free(list);
}

/* ---- pairs ---------------------------------------------------------------------------------- */

/* By signature; of equal ones the newest first. */
static int by_signature(const void *x, const void *y)
{
    const signed_cell *a = x, *b = y;
    const int order = strcmp(a->signature, b->signature);

    return order ? order : mp_candidate_order(a->cell, b->cell);
}

static mp_code sign_all(const mp_selection *s, signed_cell *list, int n, bool strict, mp_error *err)
{
    for (int i = 0; i < n; i++)
        if (sign(s, &list[i], strict, err))
            return err->code;
    qsort(list, (size_t)n, sizeof *list, by_signature);
    return MP_OK;
}

/* Whether they are the same cell, if with another content, in order. */
static int same_cell(const mp_candidate *a, const mp_candidate *b)
{
    int order = strcmp(a->scenario, b->scenario);

    if (!order)
        order = strcmp(a->key, b->key);
    if (!order)
        order = strcmp(a->run->engine, b->run->engine);
    return order ? order : strcmp(a->run->device, b->run->device);
}

static int same_cells(const mp_cell_pair *p, const mp_cell_pair *q)
{
    const int order = same_cell(p->a, q->a);

    return order ? order : same_cell(p->b, q->b);
}

/* By scenario and cell; of several pairs of one cell the newest first. */
static int by_cell(const void *x, const void *y)
{
    const mp_cell_pair *p = x, *q = y;
    const int order = same_cells(p, q);

    return order ? order : mp_candidate_order(p->a, q->a);
}

static void drop_older_pairs(mp_selection *s)
{
    int kept = 0;

    for (int i = 0; i < s->pair_count; i++)
        if (!kept || same_cells(&s->pairs[kept - 1], &s->pairs[i]))
            s->pairs[kept++] = s->pairs[i];
    s->pair_count = kept;
}

static int by_name(const void *x, const void *y)
{
    return same_cell(((const signed_cell *)x)->cell, ((const signed_cell *)y)->cell);
}

/* Cells of which no content is paired. */
static int count_lone(signed_cell *list, int n)
{
    int lone = 0;

    qsort(list, (size_t)n, sizeof *list, by_name);
    for (int i = 0, end; i < n; i = end) {
        bool paired = false;
        for (end = i; end < n && !same_cell(list[i].cell, list[end].cell); end++)
            paired |= list[end].paired;
        lone += !paired;
    }
    return lone;
}

/* Both lists in order of their signatures, like merging: each cell has one partner at most. */
static void match(mp_selection *s, signed_cell *a, signed_cell *b)
{
    int i = 0, k = 0;

    while (i < s->a->count && k < s->b->count) {
        const int order = strcmp(a[i].signature, b[k].signature);
        if (!order && a[i].cell->ids[0] != b[k].cell->ids[0]) {
            s->pairs[s->pair_count++] = (mp_cell_pair){a[i].cell, b[k].cell};
            a[i].paired = b[k].paired = true;
        }
        i += order <= 0;
        k += order >= 0;
    }
}

static mp_code join(mp_selection *s, mp_error *err)
{
    const int n = s->a->count, m = s->b->count;
    signed_cell *a = unsigned_cells(s->a, err), *b = unsigned_cells(s->b, err);

    s->pairs = mp_alloc((size_t)(n < m ? n : m), sizeof *s->pairs);
    if (!s->pairs)
        mp_compare_no_memory(err);
    for (int strict = 1; !err->code && strict >= 0 && !s->pair_count; strict--)
        if (!sign_all(s, a, n, strict, err) && !sign_all(s, b, m, strict, err))
            match(s, a, b);
    if (!err->code) {
        qsort(s->pairs, (size_t)s->pair_count, sizeof *s->pairs, by_cell);
        drop_older_pairs(s);
        s->lone_a = count_lone(a, n);
        s->lone_b = count_lone(b, m);
    }
    free_signed(a, n);
    free_signed(b, m);
    return err->code;
}

/* ---- pools ---------------------------------------------------------------------------------- */

bool mp_pooled_key(const char *key)
{
    return !strcmp(key, "inputs.seed") || !strncmp(key, "inputs.prompt", 13) ||
           !strncmp(key, "inputs.negative_prompt", 22);
}

/* Two cells in order of all but prompt, seed and run: equal ones are samples of one thing. */
static int alike(const mp_candidate *x, const mp_candidate *y)
{
    int order = strcmp(x->scenario, y->scenario), i = 0, k = 0;

    if (!order)
        order = strcmp(x->run->engine, y->run->engine);
    if (!order)
        order = strcmp(x->run->device, y->run->device);
    if (!order)
        order = strcmp(x->run->fingerprint, y->run->fingerprint);
    if (!order && x->run != y->run)
        order = strcmp(x->run->environment, y->run->environment);
    if (!order)
        order = strcmp(x->checkpoint_hash, y->checkpoint_hash);
    while (!order) {
        while (i < x->setting_count && mp_pooled_key(x->settings[i].key))
            i++;
        while (k < y->setting_count && mp_pooled_key(y->settings[k].key))
            k++;
        if (i == x->setting_count || k == y->setting_count)
            return (i < x->setting_count) - (k < y->setting_count);
        order = strcmp(x->settings[i].key, y->settings[k].key);
        if (!order)
            order = strcmp(x->settings[i++].value, y->settings[k++].value);
    }
    return order;
}

/* A pair, its place among all, and that of the first of its pool. */
typedef struct placed_pair {
    mp_cell_pair pair;
    int place, leader;
} placed_pair;

static int same_pool(const placed_pair *p, const placed_pair *q)
{
    const int order = alike(p->pair.a, q->pair.a);

    return order ? order : alike(p->pair.b, q->pair.b);
}

static int by_pool(const void *x, const void *y)
{
    const placed_pair *p = x, *q = y;
    const int order = same_pool(p, q);

    return order ? order : p->place - q->place;
}

static int by_leader(const void *x, const void *y)
{
    const placed_pair *p = x, *q = y;

    return p->leader != q->leader ? p->leader - q->leader : p->place - q->place;
}

/* Pairs of one pool beside each other; pools in order of their first pair. */
static mp_code make_pools(mp_selection *s, mp_error *err)
{
    const int n = s->pair_count;
    placed_pair *list = mp_alloc((size_t)n, sizeof *list);

    s->pools = mp_alloc((size_t)n, sizeof *s->pools);
    if (!list || !s->pools) {
        mp_free(list);
        return mp_compare_no_memory(err);
    }
    for (int i = 0; i < n; i++)
        list[i] = (placed_pair){s->pairs[i], i, i};
    qsort(list, (size_t)n, sizeof *list, by_pool);
    for (int i = 1; i < n; i++)
        if (!same_pool(&list[i - 1], &list[i]))
            list[i].leader = list[i - 1].leader;
    qsort(list, (size_t)n, sizeof *list, by_leader);
    for (int i = 0; i < n; i++) {
        s->pairs[i] = list[i].pair;
        if (!i || list[i].leader != list[i - 1].leader)
            s->pools[s->pool_count++].first = i;
        s->pools[s->pool_count - 1].end = i + 1;
    }
    mp_free(list);
    return MP_OK;
}

/* ---- no pair -------------------------------------------------------------------------------- */

/* In what two candidates differ that should not: how much, and the first few in words. */
static int differences(const mp_selection *s, const mp_candidate *a, const mp_candidate *b,
                       char *out, size_t size)
{
    mp_pair of_a[FACTS], of_b[FACTS];
    int n = 0, i = 0, k = 0;

    out[0] = '\0';
    facts_of(a, of_a);
    facts_of(b, of_b);
    for (int f = 0; f < FACTS; f++)
        if (!fact_may_differ(s, f, of_a[f].key, false) && strcmp(of_a[f].value, of_b[f].value))
            mp_append_plain(out, size, n++ ? ", " : "", of_a[f].key);
    while (i < a->setting_count || k < b->setting_count) {
        const int order = i == a->setting_count   ? 1
                          : k == b->setting_count ? -1
                                                  : strcmp(a->settings[i].key, b->settings[k].key);
        const char *key = order > 0 ? b->settings[k].key : a->settings[i].key;
        if (!mp_selection_has_key(s, key) &&
            (order || strcmp(a->settings[i].value, b->settings[k].value)))
            mp_append_plain(out, size, n++ ? ", " : "", key);
        i += order <= 0;
        k += order >= 0;
    }
    return n;
}

static bool same_sides(const mp_side *a, const mp_side *b)
{
    if (a->count != b->count)
        return false;
    for (int i = 0; i < a->count; i++) /* both are in order of their keys */
        if (a->cells[i].ids[0] != b->cells[i].ids[0])
            return false;
    return true;
}

/* The cells nearest to each other among the first of A and all of B. */
static mp_code no_pair(mp_store *s, const mp_selection *sel, mp_error *err)
{
    const char *text_a = sel->a->selector.text, *text_b = sel->b->selector.text;
    const mp_candidate *a = &sel->a->cells[0], *nearest = NULL;
    char text[600];
    int least = 0;

    for (int i = 0; i < sel->b->count; i++) {
        const mp_candidate *b = &sel->b->cells[i];
        const int n = differences(sel, a, b, text, sizeof text);
        if (b->ids[0] != a->ids[0] && (!nearest || n < least)) {
            nearest = b;
            least = n;
        }
    }
    if (!nearest || same_sides(sel->a, sel->b))
        return mp_error_set(err, MP_EMISSING,
                            "%s: '%.80s' and '%.80s' match the same cells only, such as %lld; see "
                            "`mpbench list`",
                            mp_store_path(s), text_a, text_b, (long long)a->ids[0]);
    differences(sel, a, nearest, text, sizeof text);
    return mp_error_set(err, MP_EMISSING,
                        "%s: no two cells differ in nothing but '%.80s' and '%.80s': of %d and %d "
                        "the nearest, %lld and %lld, differ also in %s; see `mpbench list`",
                        mp_store_path(s), text_a, text_b, sel->a->count, sel->b->count,
                        (long long)a->ids[0], (long long)nearest->ids[0], text);
}

mp_code mp_select_pairs(mp_store *s, const mp_side *a, const mp_side *b, mp_selection *out,
                        mp_error *err)
{
    *out = (mp_selection){.a = a, .b = b};
    if (join(out, err))
        return err->code;
    return out->pair_count ? make_pools(out, err) : no_pair(s, out, err);
}

void mp_selection_free(mp_selection *s)
{
    mp_free(s->pairs);
    mp_free(s->pools);
}
