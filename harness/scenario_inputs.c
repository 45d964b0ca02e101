#include "harness/scenario_inputs.h"

#include <glob.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipelines/common/file.h"

const char *mp_input_name(const mp_input_field *field)
{
    return field->alias ? field->alias : field->name;
}

const char *mp_path_beside(mp_arena *a, const char *file, const char *path)
{
    const char *slash = strrchr(file, '/');

    if (path[0] == '/' || !slash)
        return mp_arena_strdup(a, path);
    return mp_arena_printf(a, "%.*s/%s", (int)(slash - file), file, path);
}

static const char *expected(mp_arena *a, const mp_input_field *f)
{
    const bool bounded = f->min < f->max;

    switch (f->type) {
    case MP_INPUT_INT:
        return bounded ? mp_arena_printf(a, "an integer from %.0f to %.0f", f->min, f->max)
                       : "an integer";
    case MP_INPUT_NUMBER:
        return bounded ? mp_arena_printf(a, "a number from %g to %g", f->min, f->max) : "a number";
    case MP_INPUT_BOOL:
        return "true or false";
    case MP_INPUT_STRING:
        return "a text";
    case MP_INPUT_STRINGS:
        return "a list of texts, [] to switch it off, or default";
    case MP_INPUT_INTS:
        return mp_arena_printf(a, "a list of integers from %.0f to %.0f", f->min, f->max);
    case MP_INPUT_FILE:
        return "the name of a file";
    case MP_INPUT_FILES:
        return "a file that is there, a glob that finds some (frames/*.png), or a list of them";
    }
    return "something else";
}

static bool read_list(mp_arena *a, const mp_yaml *node, mp_input *out)
{
    const size_t n = node->kind == MP_YAML_LIST ? (size_t)node->count : 0;
    const char **list = mp_arena_alloc(a, n + 1, sizeof *list);

    if (node->kind == MP_YAML_SCALAR && !node->quoted && !strcmp(node->text, "default"))
        return out->list != NULL; /* as the settings of a cell spell it */
    if (node->kind != MP_YAML_LIST && node->kind != MP_YAML_NULL)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (node->items[i]->kind != MP_YAML_SCALAR)
            return false;
        list[i] = node->items[i]->text;
    }
    out->list = list;
    return true;
}

/* The files of one name or glob, appended to *list. */
static bool find_files(mp_arena *a, const mp_yaml *node, const char ***list, size_t *count)
{
    glob_t found = {0};
    const bool good = node->kind == MP_YAML_SCALAR && *node->text &&
                      !glob(mp_path_beside(a, node->file, node->text), 0, NULL, &found);
    const char **grown = mp_arena_alloc(a, *count + found.gl_pathc + 1, sizeof *grown);

    if (*count)
        memcpy(grown, *list, *count * sizeof *grown);
    for (size_t i = 0; good && i < found.gl_pathc; i++)
        grown[(*count)++] = mp_arena_strdup(a, found.gl_pathv[i]);
    *list = grown;
    globfree(&found);
    return good;
}

static const char *list_text(mp_arena *a, const char *const *list);

static bool read_files(mp_arena *a, const mp_yaml *node, mp_input *out)
{
    const bool many = node->kind == MP_YAML_LIST;
    const size_t n = many ? (size_t)node->count : node->kind == MP_YAML_NULL ? 0 : 1;
    const char **given = mp_arena_alloc(a, n + 1, sizeof *given), **list = NULL;
    size_t count = 0;

    for (size_t i = 0; i < n; i++) {
        const mp_yaml *item = many ? node->items[i] : node;
        if (!find_files(a, item, &list, &count))
            return false;
        given[i] = item->text;
    }
    out->list = list;
    out->text = list_text(a, given);
    return true;
}

static bool read_number(const mp_yaml *node, mp_input *out);

static bool read_ints(mp_arena *a, const mp_yaml *node, mp_input *out)
{
    const mp_input_field as_int = {
        .type = MP_INPUT_INT, .min = out->field->min, .max = out->field->max};

    if (node->kind != MP_YAML_LIST && node->kind != MP_YAML_NULL)
        return false;
    for (int i = 0; node->kind == MP_YAML_LIST && i < node->count; i++) {
        mp_input one = {.field = &as_int};
        if (!read_number(node->items[i], &one))
            return false;
    }
    return read_list(a, node, out);
}

static bool read_number(const mp_yaml *node, mp_input *out)
{
    const mp_input_field *f = out->field;
    double value;

    if (!mp_yaml_number(node, &value))
        return false;
    if (f->min < f->max && (value < f->min || value > f->max))
        return false;
    if (f->type == MP_INPUT_INT && (value != floor(value) || fabs(value) > 9007199254740992.0))
        return false;
    out->number = value;
    return true;
}

static bool read_value(mp_arena *a, const mp_yaml *node, mp_input *out)
{
    bool yes = false;

    switch (out->field->type) {
    case MP_INPUT_INT:
    case MP_INPUT_NUMBER:
        return read_number(node, out);
    case MP_INPUT_BOOL:
        if (!mp_yaml_bool(node, &yes))
            return false;
        out->number = yes;
        return true;
    case MP_INPUT_STRINGS:
        return read_list(a, node, out);
    case MP_INPUT_INTS:
        return read_ints(a, node, out);
    case MP_INPUT_FILES:
        return read_files(a, node, out);
    case MP_INPUT_STRING:
    case MP_INPUT_FILE:
        if (node->kind != MP_YAML_SCALAR)
            return false;
        out->text = out->field->type == MP_INPUT_FILE && *node->text
                        ? mp_path_beside(a, node->file, node->text)
                        : node->text;
        return true;
    }
    return false;
}

/* Every key is an input, under one of its names only. */
static mp_code check_keys(const mp_yaml *map, const mp_pipeline_def *p, mp_error *err)
{
    const char *names[256];
    int n = 0;

    for (int i = 0; i < p->input_count && n < 254; i++) {
        names[n++] = p->inputs[i].name;
        if (p->inputs[i].alias)
            names[n++] = p->inputs[i].alias;
    }
    for (int k = 0; k < map->count; k++) {
        bool known = false;
        for (int i = 0; i < n && !known; i++)
            known = !strcmp(names[i], map->keys[k]->text);
        if (known)
            continue;
        const char *near = mp_nearest(map->keys[k]->text, names, n);
        mp_text list = {0};
        for (int i = 0; i < p->input_count; i++)
            mp_text_printf(&list, "%s%s", i ? ", " : "", mp_input_name(&p->inputs[i]));
        mp_yaml_fail(err, map->keys[k],
                     "unknown key '%s' in inputs%s%s%s; the pipeline %s takes: %s",
                     mp_plain(map->keys[k]->text).text, near ? "; did you mean '" : "",
                     near ? near : "", near ? "'?" : "", p->name, list.data);
        mp_text_free(&list);
        return err->code;
    }
    return err->code;
}

static mp_code read_one(mp_arena *a, const mp_yaml *map, const mp_yaml *at, mp_input *out,
                        mp_error *err)
{
    const mp_input_field *f = out->field;
    const mp_yaml *by_name = map ? mp_yaml_get(map, f->name) : NULL;
    const mp_yaml *by_alias = map && f->alias ? mp_yaml_get(map, f->alias) : NULL;
    const mp_yaml *node = by_alias ? by_alias : by_name;

    out->number = f->fallback;
    out->text = f->fallback_text;
    out->list = f->fallback_list;
    out->given = node != NULL;
    if (by_name && by_alias)
        return mp_yaml_fail(err, mp_yaml_key(map, f->name),
                            "'%s' and '%s' are the same input; keep one", f->name, f->alias);
    if (!node || (node->kind == MP_YAML_NULL && f->type != MP_INPUT_STRINGS)) {
        if ((f->type == MP_INPUT_STRING || f->type == MP_INPUT_FILE) && !f->fallback_text)
            return mp_yaml_fail(err, map && map->line ? map : at,
                                "inputs: '%s' is missing, expected %s", f->name, expected(a, f));
        return err->code;
    }
    if (!read_value(a, node, out))
        return mp_yaml_fail(err, mp_yaml_key(map, by_alias ? f->alias : f->name),
                            "key 'inputs.%s': found %s, expected %s", by_alias ? f->alias : f->name,
                            mp_yaml_describe(a, node), expected(a, f));
    return err->code;
}

mp_code mp_scenario_inputs(mp_arena *a, const mp_yaml *map, const mp_yaml *at,
                           const mp_pipeline_def *pipeline, mp_input **out, mp_error *err)
{
    mp_input *inputs = mp_arena_alloc(a, (size_t)pipeline->input_count, sizeof *inputs);

    *out = inputs;
    if (map && map->kind == MP_YAML_NULL)
        map = NULL;
    if (map && check_keys(map, pipeline, err))
        return err->code;
    for (int i = 0; i < pipeline->input_count && !err->code; i++) {
        inputs[i].field = &pipeline->inputs[i];
        read_one(a, map, at, &inputs[i], err);
    }
    return err->code;
}

/* The shortest text that reads back as the same number. */
static const char *number_text(mp_arena *a, double value)
{
    char text[32];

    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    return mp_arena_strdup(a, text);
}

static const char *list_text(mp_arena *a, const char *const *list)
{
    mp_text t = {0};

    mp_text_add(&t, "[");
    for (int i = 0; list && list[i]; i++) {
        mp_yaml item = {.kind = MP_YAML_SCALAR, .text = list[i], .quoted = true};
        mp_text_add(&t, i ? ", " : "");
        mp_yaml_write(&t, &item);
    }
    mp_text_add(&t, "]");
    return mp_text_take(&t, a);
}

/* Numbers stay numbers when the text is read back. */
static const char *ints_text(mp_arena *a, const char *const *list)
{
    mp_text t = {0};

    mp_text_add(&t, "[");
    for (int i = 0; list && list[i]; i++)
        mp_text_printf(&t, "%s%s", i ? ", " : "", list[i]);
    mp_text_add(&t, "]");
    return mp_text_take(&t, a);
}

const char *mp_input_text(mp_arena *a, const mp_input *input)
{
    switch (input->field->type) {
    case MP_INPUT_INT:
        return mp_arena_printf(a, "%.0f", input->number);
    case MP_INPUT_NUMBER:
        return number_text(a, input->number);
    case MP_INPUT_BOOL:
        return input->number ? "true" : "false";
    case MP_INPUT_STRINGS:
        if (input->list && input->list == input->field->fallback_list)
            return "default";
        return list_text(a, input->list);
    case MP_INPUT_INTS:
        return ints_text(a, input->list);
    case MP_INPUT_FILES:
        return input->text ? input->text : "[]";
    case MP_INPUT_STRING:
    case MP_INPUT_FILE:
        break;
    }
    return input->text ? input->text : "";
}
