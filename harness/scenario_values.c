#include "harness/scenario_values.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/scenario_schema.h"

/* ---- text ----------------------------------------------------------------------------------- */

/* A non-negative number followed by a unit; returns the unit's start, NULL when there is none. */
static const char *leading_number(const char *text, double *out)
{
    char *end;

    if (!*text || !strchr("0123456789.", *text))
        return NULL;
    *out = strtod(text, &end);
    if (end == text || !isfinite(*out) || memchr(text, 'x', (size_t)(end - text)))
        return NULL;
    return end;
}

bool mp_parse_duration(const char *text, double *out)
{
    static const struct {
        const char *unit;
        double seconds;
    } units[] = {{"", 1},     {"s", 1},     {"m", 60},   {"min", 60},
                 {"h", 3600}, {"d", 86400}, {"ms", 1e-3}};
    double value;
    const char *unit = leading_number(text, &value);

    for (size_t i = 0; unit && i < sizeof units / sizeof *units; i++)
        if (!strcmp(unit, units[i].unit) && value > 0 && value * units[i].seconds <= 1e9) {
            *out = value * units[i].seconds;
            return true;
        }
    return false;
}

bool mp_parse_size(const char *text, size_t *out)
{
    static const struct {
        const char *unit;
        double bytes;
    } units[] = {{"", 1},
                 {"B", 1},
                 {"kB", 1e3},
                 {"KB", 1e3},
                 {"MB", 1e6},
                 {"GB", 1e9},
                 {"TB", 1e12},
                 {"KiB", 1024.0},
                 {"MiB", 1048576.0},
                 {"GiB", 1073741824.0},
                 {"TiB", 1099511627776.0}};
    double value;
    const char *unit = leading_number(text, &value);

    for (size_t i = 0; unit && i < sizeof units / sizeof *units; i++)
        if (!strcmp(unit, units[i].unit) && value * units[i].bytes >= 1 &&
            value * units[i].bytes < (double)INT64_MAX / 2) {
            *out = (size_t)(value * units[i].bytes);
            return true;
        }
    return false;
}

bool mp_yaml_off(const mp_yaml *node)
{
    static const char *const words[] = {"off", "Off", "OFF", "none", "None", "no", "No", "false"};

    if (mp_yaml_is_null(node))
        return true;
    for (size_t i = 0; node->kind == MP_YAML_SCALAR && i < sizeof words / sizeof *words; i++)
        if (!strcmp(node->text, words[i]))
            return true;
    return false;
}

/* ---- sections ------------------------------------------------------------------------------- */

mp_section mp_section_open(mp_arena *a, const mp_yaml *root, const char *name, mp_error *err)
{
    mp_section s = {.arena = a, .name = name, .err = err};
    const mp_yaml *map = *name ? mp_yaml_get(root, name) : root;

    if (mp_yaml_is_null(map) || err->code)
        return s;
    if (map->kind != MP_YAML_MAP) {
        mp_schema_wrong(a, root, "", name, err);
        return s;
    }
    s.map = map;
    mp_schema_check(map, name, err);
    return s;
}

static const mp_yaml *value_of(const mp_section *s, const char *name)
{
    const mp_yaml *v = s->map && !s->err->code ? mp_yaml_get(s->map, name) : NULL;
    return mp_yaml_is_null(v) ? NULL : v;
}

static void wrong(const mp_section *s, const char *name)
{
    mp_schema_wrong(s->arena, s->map, s->name, name, s->err);
}

const char *mp_section_text(const mp_section *s, const char *name, const char *fallback)
{
    const mp_yaml *v = value_of(s, name);

    if (!v)
        return fallback;
    if (v->kind == MP_YAML_SCALAR)
        return v->text;
    wrong(s, name);
    return fallback;
}

int mp_section_int(const mp_section *s, const char *name, int fallback, int min, int max)
{
    const mp_yaml *v = value_of(s, name);
    double value;

    if (!v)
        return fallback;
    if (mp_yaml_number(v, &value) && value == floor(value) && value >= min && value <= max)
        return (int)value;
    wrong(s, name);
    return fallback;
}

mp_dtype mp_section_dtype(const mp_section *s, const char *name, mp_dtype fallback)
{
    const mp_yaml *v = value_of(s, name);
    mp_dtype d = fallback;

    if (v && (v->kind != MP_YAML_SCALAR || !mp_dtype_parse(v->text, &d)))
        wrong(s, name);
    return d;
}

int mp_section_word(const mp_section *s, const char *name, const char *const *words, int n,
                    int fallback)
{
    const mp_yaml *v = value_of(s, name);

    if (!v)
        return fallback;
    for (int i = 0; v->kind == MP_YAML_SCALAR && i < n; i++)
        if (!strcmp(v->text, words[i]))
            return i;
    wrong(s, name);
    return fallback;
}

double mp_section_duration(const mp_section *s, const char *name, double fallback)
{
    const mp_yaml *v = value_of(s, name);
    double seconds = fallback;

    if (v && (v->kind != MP_YAML_SCALAR || !mp_parse_duration(v->text, &seconds)))
        wrong(s, name);
    return seconds;
}

size_t mp_section_size(const mp_section *s, const char *name)
{
    const mp_yaml *v = value_of(s, name);
    size_t bytes = 0;

    if (v && !mp_yaml_off(v) && (v->kind != MP_YAML_SCALAR || !mp_parse_size(v->text, &bytes)))
        wrong(s, name);
    return bytes;
}

/* ---- single values -------------------------------------------------------------------------- */

mp_code mp_value_dtype(mp_arena *a, const mp_yaml *node, const mp_yaml *at, const char *key,
                       mp_dtype *out, mp_error *err)
{
    mp_text list = {0};

    if (node && node->kind == MP_YAML_SCALAR && mp_dtype_parse(node->text, out))
        return MP_OK;
    for (int d = 0; d < MP_DTYPE_COUNT; d++)
        mp_text_printf(&list, "%s%s", d ? ", " : "", mp_dtype_name((mp_dtype)d));
    mp_yaml_fail(err, at, "key '%s': found %s, expected a dtype: %s", key,
                 mp_yaml_describe(a, node), list.data);
    mp_text_free(&list);
    return err->code;
}

static bool read_pair(const mp_yaml *node, int64_t *height, int64_t *width)
{
    double v[2];

    if (!node || node->kind != MP_YAML_LIST || node->count != 2)
        return false;
    for (int i = 0; i < 2; i++)
        if (!mp_yaml_number(node->items[i], &v[i]) || v[i] != floor(v[i]) || v[i] < 1 ||
            v[i] > 65536)
            return false;
    *height = (int64_t)v[0];
    *width = (int64_t)v[1];
    return true;
}

static bool read_short_form(const char *text, mp_tiling *out)
{
    long long v[4];
    int end = 0;

    if (strspn(text, "0123456789x+") != strlen(text) || strstr(text, "++") ||
        sscanf(text, "%5lldx%5lld+%5lldx%5lld%n", &v[0], &v[1], &v[2], &v[3], &end) != 4 ||
        text[end])
        return false;
    for (int i = 0; i < 4; i++)
        if (v[i] < 1 || v[i] > 65536)
            return false;
    *out = (mp_tiling){true, v[0], v[1], v[2], v[3]};
    return true;
}

mp_code mp_value_tiling(mp_arena *a, const mp_yaml *root, mp_tiling *out, mp_error *err)
{
    const mp_yaml *node = mp_yaml_get(root, "tiling");

    *out = (mp_tiling){0};
    if (mp_yaml_off(node) || err->code)
        return err->code;
    if (node->kind == MP_YAML_SCALAR && read_short_form(node->text, out))
        return MP_OK;
    if (node->kind != MP_YAML_MAP)
        return mp_schema_wrong(a, root, "", "tiling", err);
    if (mp_schema_check(node, "tiling", err))
        return err->code;
    if (!read_pair(mp_yaml_get(node, "tile"), &out->tile_height, &out->tile_width))
        return mp_schema_wrong(a, node, "tiling", "tile", err);
    if (!read_pair(mp_yaml_get(node, "stride"), &out->stride_height, &out->stride_width))
        return mp_schema_wrong(a, node, "tiling", "stride", err);
    out->on = true;
    return MP_OK;
}

const char *mp_tiling_text(mp_arena *a, const mp_tiling *t)
{
    if (!t->on)
        return "off";
    return mp_arena_printf(a, "%lldx%lld+%lldx%lld", (long long)t->tile_height,
                           (long long)t->tile_width, (long long)t->stride_height,
                           (long long)t->stride_width);
}
