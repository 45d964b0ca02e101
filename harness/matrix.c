#include "harness/matrix.h"

#include <stdint.h>

#include <string.h>

#include "harness/scenario_schema.h"

enum { MAX_CELLS = 100000 };

static mp_code check_axis(mp_arena *a, const mp_yaml *key, const mp_yaml *values, mp_error *err)
{
    if (mp_schema_check_dotted(key->text, false, key, err))
        return err->code;
    if (values->kind != MP_YAML_LIST || !values->count)
        return mp_yaml_fail(err, key, "matrix.%s: found %s, expected a list of values", key->text,
                            mp_yaml_describe(a, values));
    return MP_OK;
}

static mp_code check_entries(mp_arena *a, const mp_yaml *matrix, const char *name, mp_error *err)
{
    const mp_yaml *list = mp_yaml_get(matrix, name);

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
        for (int k = 0; k < entry->count; k++)
            if (mp_schema_check_dotted(entry->keys[k]->text, false, entry->keys[k], err))
                return err->code;
    }
    return MP_OK;
}

static bool special(const mp_yaml *key)
{
    return !strcmp(key->text, "include") || !strcmp(key->text, "exclude");
}

static bool equal(const mp_yaml *x, const mp_yaml *y)
{
    mp_text s = {0}, t = {0};

    mp_yaml_write(&s, x);
    mp_yaml_write(&t, y);
    const bool same = s.length == t.length && !memcmp(s.data, t.data, s.length);
    mp_text_free(&s);
    mp_text_free(&t);
    return same;
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

static void include(mp_arena *a, mp_matrix *m, const mp_yaml *list, int axes)
{
    const int product = axes ? m->count : 0;
    mp_combination *all = mp_arena_alloc(a, (size_t)m->count + (size_t)list->count, sizeof *all);

    memcpy(all, m->items, (size_t)m->count * sizeof *all);
    m->items = all;
    m->count = product;
    for (int i = 0; i < list->count; i++) {
        bool found = false;
        for (int k = 0; k < product; k++)
            if (fits(&all[k], list->items[i], axes)) {
                all[k] = merged(a, &all[k], list->items[i]);
                found = true;
            }
        if (!found)
            all[m->count++] = merged(a, &(mp_combination){0}, list->items[i]);
    }
}

mp_code mp_matrix_expand(mp_arena *a, const mp_yaml *root, mp_matrix *out, mp_error *err)
{
    const mp_yaml *matrix = mp_yaml_get(root, "matrix");
    int axes = 0;

    *out = (mp_matrix){.items = mp_arena_alloc(a, 1, sizeof *out->items), .count = 1};
    if (!matrix || mp_yaml_is_null(matrix))
        return MP_OK;
    if (matrix->kind != MP_YAML_MAP)
        return mp_yaml_fail(err, mp_yaml_key(root, "matrix"),
                            "matrix: found %s, expected a map from dotted keys to lists",
                            mp_yaml_describe(a, matrix));
    for (int i = 0; i < matrix->count; i++) {
        const mp_yaml *key = matrix->keys[i];
        if (special(key))
            continue;
        if (check_axis(a, key, matrix->items[i], err) ||
            multiply(a, out, key, matrix->items[i], err))
            return err->code;
        axes++;
    }
    if (check_entries(a, matrix, "include", err) || check_entries(a, matrix, "exclude", err))
        return err->code;
    const mp_yaml *list = mp_yaml_get(matrix, "include");
    if (list && list->kind == MP_YAML_LIST)
        include(a, out, list, axes);
    list = mp_yaml_get(matrix, "exclude");
    out->exclude = list && list->kind == MP_YAML_LIST ? list : NULL;
    return MP_OK;
}
