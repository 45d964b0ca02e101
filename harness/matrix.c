#include "harness/matrix.h"

#include <stdint.h>
#include <string.h>

#include "harness/scenario.h"
#include "harness/scenario_schema.h"

enum { MAX_CELLS = 10000 };

/* A key under its one name, so that inputs.steps and inputs.num_inference_steps are the same. */
static void rename_key(mp_arena *a, const mp_yaml *root, mp_yaml *key)
{
    key->text = mp_scenario_key(a, root, key->text);
}

/* Of tiling and tiling.tile the order would decide; and the same key twice means nothing. */
static bool overlap(const char *x, const char *y)
{
    const size_t n = strlen(x), m = strlen(y), shorter = n < m ? n : m;

    return !strncmp(x, y, shorter) && (n == m || (n < m ? y[n] : x[m]) == '.');
}

static mp_code check_axis(mp_arena *a, const mp_yaml *key, const mp_yaml *values, mp_error *err)
{
    if (mp_schema_check_dotted(key->text, false, key, err))
        return err->code;
    if (values->kind != MP_YAML_LIST || !values->count)
        return mp_yaml_fail(err, key, "matrix.%s: found %s, expected a list of values", key->text,
                            mp_yaml_describe(a, values));
    if (!mp_schema_result(key->text))
        return mp_yaml_fail(err, key,
                            "matrix.%s: this key changes nothing in what is computed, so its cells "
                            "would be one and the same; give it once, outside of the matrix",
                            key->text);
    return MP_OK;
}

static mp_code fail_overlap(const mp_yaml *key, const mp_yaml *other, mp_error *err)
{
    return mp_yaml_fail(err, key, "matrix: '%s' and '%s' (line %d) set the same; keep one",
                        key->text, other->text, other->line);
}

/* The keys of a map, and the axes where the map is an entry of include; equal names are fine
 * between an entry and an axis, for those compare. */
static mp_code check_overlap(const mp_yaml *map, const mp_yaml *axes, mp_error *err)
{
    for (int i = 0; i < map->count && !err->code; i++) {
        const mp_yaml *key = map->keys[i];
        for (int k = 0; k < i; k++)
            if (overlap(key->text, map->keys[k]->text))
                return fail_overlap(key, map->keys[k], err);
        for (int k = 0; axes && k < axes->count; k++)
            if (overlap(key->text, axes->keys[k]->text) && strcmp(key->text, axes->keys[k]->text))
                return fail_overlap(key, axes->keys[k], err);
    }
    return err->code;
}

static mp_code check_entries(mp_arena *a, const mp_yaml *root, const char *name, mp_error *err)
{
    const mp_yaml *matrix = mp_yaml_get(root, "matrix"), *list = mp_yaml_get(matrix, name);
    const bool add = !strcmp(name, "include"); /* exclude chooses by what is computed */

    if (!list || mp_yaml_is_null(list))
        return MP_OK;
    if (list->kind != MP_YAML_LIST)
        return mp_yaml_fail(err, mp_yaml_key(matrix, name),
                            "matrix.%s: found %s, expected a list of maps", name,
                            mp_yaml_describe(a, list));
    for (int i = 0; i < list->count; i++) {
        const mp_yaml *entry = list->items[i];
        if (entry->kind != MP_YAML_MAP || !entry->count)
            return mp_yaml_fail(err, entry, "matrix.%s: found %s, expected a map of dotted keys",
                                name, mp_yaml_describe(a, entry));
        for (int k = 0; k < entry->count; k++) {
            if (mp_schema_check_dotted(entry->keys[k]->text, !add, entry->keys[k], err))
                return err->code;
            rename_key(a, root, entry->keys[k]);
        }
        if (check_overlap(entry, add ? matrix : NULL, err))
            return err->code;
    }
    return MP_OK;
}

static bool special(const mp_yaml *key)
{
    return !strcmp(key->text, "include") || !strcmp(key->text, "exclude");
}

/* Numbers by value, maps in any order, anything else by its text. */
static bool equal(const mp_yaml *x, const mp_yaml *y)
{
    double p, q;

    if (x->kind != y->kind || x->count != y->count)
        return false;
    if (x->kind == MP_YAML_SCALAR)
        return !strcmp(x->text, y->text) ||
               (mp_yaml_number(x, &p) && mp_yaml_number(y, &q) && p == q);
    for (int i = 0; i < x->count; i++) {
        const mp_yaml *other =
            x->kind == MP_YAML_MAP ? mp_yaml_get(y, x->keys[i]->text) : y->items[i];
        if (!other || !equal(x->items[i], other))
            return false;
    }
    return true;
}

static int index_of(const mp_combination *c, const char *key)
{
    for (int i = 0; i < c->count; i++)
        if (!strcmp(c->keys[i]->text, key))
            return i;
    return -1;
}

static mp_combination grown(mp_arena *a, const mp_combination *c, int more)
{
    const size_t room = (size_t)(c->count + more);
    mp_combination out = {mp_arena_alloc(a, room, sizeof *out.keys),
                          mp_arena_alloc(a, room, sizeof *out.values), c->count};

    for (int i = 0; i < c->count; i++) {
        out.keys[i] = c->keys[i];
        out.values[i] = c->values[i];
    }
    return out;
}

static void append(mp_combination *c, const mp_yaml *key, mp_yaml *value)
{
    c->keys[c->count] = key;
    c->values[c->count++] = value;
}

/* Every combination so far, once for each value of the next axis. */
static mp_code multiply(mp_arena *a, mp_matrix *m, const mp_yaml *key, const mp_yaml *values,
                        mp_error *err)
{
    const int64_t n = (int64_t)m->count * values->count;
    mp_combination *all;
    int at = 0;

    if (n > MAX_CELLS)
        return mp_yaml_fail(err, key, "the matrix has more than %d cells; split the file",
                            (int)MAX_CELLS);
    all = mp_arena_alloc(a, (size_t)n, sizeof *all);
    for (int i = 0; i < m->count; i++)
        for (int k = 0; k < values->count; k++) {
            all[at] = grown(a, &m->items[i], 1);
            append(&all[at++], key, values->items[k]);
        }
    m->items = all;
    m->count = at;
    return MP_OK;
}

/* Whether the entry changes none of the axes' own values: then its other keys may be added. */
static bool fits(const mp_combination *c, const mp_yaml *entry, int axes)
{
    for (int i = 0; i < entry->count; i++) {
        const int at = index_of(c, entry->keys[i]->text);
        if (at >= 0 && at < axes && !equal(c->values[at], entry->items[i]))
            return false;
    }
    return true;
}

static mp_combination merged(mp_arena *a, const mp_combination *c, const mp_yaml *entry)
{
    mp_combination out = grown(a, c, entry->count);

    for (int i = 0; i < entry->count; i++) {
        const int at = index_of(&out, entry->keys[i]->text);
        if (at >= 0)
            out.values[at] = entry->items[i];
        else
            append(&out, entry->keys[i], entry->items[i]);
    }
    return out;
}

void mp_matrix_include(mp_arena *a, mp_matrix *m)
{
    const int product = m->axes ? m->count : 0;
    mp_combination *all;

    if (!m->include || !m->include->count)
        return;
    all = mp_arena_alloc(a, (size_t)m->count + (size_t)m->include->count, sizeof *all);
    memcpy(all, m->items, (size_t)product * sizeof *all);
    m->items = all;
    m->count = product;
    for (int i = 0; i < m->include->count; i++) {
        const mp_yaml *entry = m->include->items[i];
        bool found = false;
        for (int k = 0; k < product; k++)
            if (fits(&all[k], entry, m->axes)) {
                all[k] = merged(a, &all[k], entry);
                found = true;
            }
        if (!found)
            all[m->count++] = merged(a, &(mp_combination){0}, entry);
    }
}

bool mp_matrix_equals(const mp_combination *c, const mp_yaml *entry)
{
    for (int i = 0; i < entry->count; i++) {
        const int at = index_of(c, entry->keys[i]->text);
        if (at < 0 || !equal(c->values[at], entry->items[i]))
            return false;
    }
    return true;
}

static const mp_yaml *list_of(const mp_yaml *matrix, const char *name)
{
    const mp_yaml *list = mp_yaml_get(matrix, name);

    return list && list->kind == MP_YAML_LIST ? list : NULL;
}

mp_code mp_matrix_product(mp_arena *a, const mp_yaml *root, mp_matrix *out, mp_error *err)
{
    const mp_yaml *matrix = mp_yaml_get(root, "matrix");

    *out = (mp_matrix){.items = mp_arena_alloc(a, 1, sizeof *out->items), .count = 1};
    if (!matrix || mp_yaml_is_null(matrix))
        return MP_OK;
    if (matrix->kind != MP_YAML_MAP)
        return mp_yaml_fail(err, mp_yaml_key(root, "matrix"),
                            "matrix: found %s, expected a map from dotted keys to lists",
                            mp_yaml_describe(a, matrix));
    for (int i = 0; i < matrix->count; i++) {
        mp_yaml *key = matrix->keys[i];
        if (special(key))
            continue;
        if (check_axis(a, key, matrix->items[i], err))
            return err->code;
        rename_key(a, root, key);
        if (multiply(a, out, key, matrix->items[i], err))
            return err->code;
        out->axes++;
    }
    if (check_overlap(matrix, NULL, err) || check_entries(a, root, "include", err) ||
        check_entries(a, root, "exclude", err))
        return err->code;
    out->include = list_of(matrix, "include");
    out->exclude = list_of(matrix, "exclude");
    return MP_OK;
}
