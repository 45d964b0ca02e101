#include "pipelines/common/config.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "pipelines/common/file.h"
#include "pipelines/common/json.h"

struct mp_config {
    char *path;
    char *prefix;   /* "" or "rope_scaling." in front of the keys of a nested object */
    json_t *object; /* the root owns its own, a nested one borrows */
    json_t *asked;  /* the keys that somebody asked for */
    mp_config *children, *next;
};

static mp_code no_memory(const char *path, mp_error *err)
{
    return mp_error_set(err, MP_ENOMEM, "%s: no memory to read it", path);
}

static mp_config *config_new(const char *path, const char *prefix)
{
    mp_config *c = mp_alloc(1, sizeof *c);

    if (!c)
        return NULL;
    c->path = mp_strdup(path);
    c->prefix = mp_strdup(prefix);
    c->asked = json_object();
    if (c->path && c->prefix && c->asked)
        return c;
    mp_config_close(c);
    return NULL;
}

mp_code mp_config_open(const char *dir, const char *file, mp_config **out, mp_error *err)
{
    char *path = mp_file_join(dir, file);
    mp_config *c = path ? config_new(path, "") : NULL;
    mp_code code;

    *out = NULL;
    mp_free(path);
    if (!c)
        return no_memory(dir, err);
    code = mp_json_load(c->path, &c->object, err);
    if (code)
        mp_config_close(c);
    else
        *out = c;
    return code;
}

void mp_config_close(mp_config *c)
{
    if (!c)
        return;
    for (mp_config *child = c->children, *next; child; child = next) {
        next = child->next;
        mp_config_close(child);
    }
    json_decref(c->object);
    json_decref(c->asked);
    mp_free(c->prefix);
    mp_free(c->path);
    mp_free(c);
}

const char *mp_config_path(const mp_config *c)
{
    return c->path;
}

bool mp_config_has(const mp_config *c, const char *key)
{
    const json_t *value = json_object_get(c->object, key);
    return value && !json_is_null(value);
}

bool mp_config_is_null(const mp_config *c, const char *key)
{
    return json_is_null(json_object_get(c->object, key));
}

/* The value under key, NULL when absent, null, or when something failed before. */
static json_t *ask(mp_config *c, const char *key, const mp_error *err)
{
    json_t *value = json_object_get(c->object, key);

    json_object_set_new(c->asked, key, json_true());
    if (json_is_null(value) || (err && err->code))
        return NULL;
    return value;
}

static mp_code wrong(const mp_config *c, const char *key, const char *expected, const json_t *value,
                     mp_error *err)
{
    char found[200];

    return mp_error_set(err, MP_EFORMAT, "%s: \"%s%s\": expected %s, found %s", c->path, c->prefix,
                        key, expected, mp_json_describe(value, found, sizeof found));
}

/* An integer of a list or a field: "" or " (item 3)" tells which. */
static bool take_int(const mp_config *c, const char *key, const json_t *value, int64_t min,
                     int64_t max, int64_t *out, mp_error *err)
{
    char expected[96];

    if (json_is_integer(value) && json_integer_value(value) >= min &&
        json_integer_value(value) <= max) {
        *out = json_integer_value(value);
        return true;
    }
    snprintf(expected, sizeof expected, "an integer in %lld..%lld", (long long)min, (long long)max);
    wrong(c, key, expected, value, err);
    return false;
}

int64_t mp_config_int(mp_config *c, const char *key, int64_t fallback, int64_t min, int64_t max,
                      mp_error *err)
{
    const json_t *value = ask(c, key, err);
    int64_t found;

    return value && take_int(c, key, value, min, max, &found, err) ? found : fallback;
}

mp_code mp_config_int_of(const char *checkpoint, const char *component, const char *key,
                         int64_t fallback, int64_t *out, mp_error *err)
{
    mp_config *c = NULL;
    char *const dir = mp_file_join(checkpoint, component);

    if (!dir)
        return no_memory(checkpoint, err);
    if (!mp_config_open(dir, "config.json", &c, err))
        *out = mp_config_int(c, key, fallback, 1, 1 << 20, err);
    mp_config_close(c);
    mp_free(dir);
    return err->code;
}

/* Python writes infinities bare; mp_json_load hands them on as text. */
static bool is_special(const json_t *value, double *out)
{
    const char *text = json_string_value(value);

    if (!text)
        return false;
    *out = !strcmp(text, "Infinity") ? INFINITY : !strcmp(text, "-Infinity") ? -INFINITY : NAN;
    return !isnan(*out) || !strcmp(text, "NaN");
}

double mp_config_number(mp_config *c, const char *key, double fallback, mp_error *err)
{
    const json_t *value = ask(c, key, err);
    double special;

    if (!value)
        return fallback;
    if (json_is_number(value))
        return json_number_value(value);
    if (is_special(value, &special))
        return special;
    wrong(c, key, "a number", value, err);
    return fallback;
}

bool mp_config_bool(mp_config *c, const char *key, bool fallback, mp_error *err)
{
    const json_t *value = ask(c, key, err);

    if (!value)
        return fallback;
    if (json_is_boolean(value))
        return json_is_true(value);
    wrong(c, key, "true or false", value, err);
    return fallback;
}

const char *mp_config_string(mp_config *c, const char *key, const char *fallback, mp_error *err)
{
    const json_t *value = ask(c, key, err);

    if (!value)
        return fallback;
    if (json_is_string(value))
        return json_string_value(value);
    wrong(c, key, "a string", value, err);
    return fallback;
}

static bool take_ints(const mp_config *c, const char *key, const json_t *list, int64_t *out,
                      int cap, int64_t min, int64_t max, mp_error *err)
{
    char expected[96];

    snprintf(expected, sizeof expected, "a list of at most %d integers", cap);
    if (!json_is_array(list) || json_array_size(list) > (size_t)cap) {
        wrong(c, key, expected, list, err);
        return false;
    }
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!take_int(c, key, json_array_get(list, i), min, max, &out[i], err))
            return false;
    return true;
}

int mp_config_ints(mp_config *c, const char *key, int64_t *out, int cap, int64_t min, int64_t max,
                   mp_error *err)
{
    const json_t *value = ask(c, key, err);

    if (!value || !take_ints(c, key, value, out, cap, min, max, err))
        return -1;
    return (int)json_array_size(value);
}

mp_code mp_config_strings(mp_config *c, const char *key, const char **out, int n,
                          const char *fallback, mp_error *err)
{
    const json_t *value = ask(c, key, err);
    const bool one = json_is_string(value);
    char expected[96];

    for (int i = 0; i < n; i++)
        out[i] = one ? json_string_value(value) : fallback;
    if (!value || one)
        return err ? err->code : MP_OK;
    snprintf(expected, sizeof expected, "a string or a list of %d strings", n);
    if (!json_is_array(value) || json_array_size(value) != (size_t)n)
        return wrong(c, key, expected, value, err);
    for (int i = 0; i < n; i++) {
        const json_t *item = json_array_get(value, (size_t)i);
        if (!json_is_string(item))
            return wrong(c, key, expected, item, err);
        out[i] = json_string_value(item);
    }
    return MP_OK;
}

int mp_config_int_lists(mp_config *c, const char *key, int64_t *out, int *lens, int rows, int cap,
                        mp_error *err)
{
    const json_t *value = ask(c, key, err);
    char expected[96];

    if (!value)
        return -1;
    if (!json_is_array(value) || json_array_size(value) > (size_t)rows) {
        snprintf(expected, sizeof expected, "a list of at most %d lists", rows);
        wrong(c, key, expected, value, err);
        return -1;
    }
    for (int i = 0; i < (int)json_array_size(value); i++) {
        const json_t *row = json_array_get(value, (size_t)i);
        if (!take_ints(c, key, row, out + (int64_t)i * cap, cap, INT32_MIN, INT32_MAX, err))
            return -1;
        lens[i] = (int)json_array_size(row);
    }
    return (int)json_array_size(value);
}

mp_config *mp_config_object(mp_config *c, const char *key, mp_error *err)
{
    json_t *value = ask(c, key, err);
    char prefix[256];

    if (!value)
        return NULL;
    if (!json_is_object(value)) {
        wrong(c, key, "an object", value, err);
        return NULL;
    }
    snprintf(prefix, sizeof prefix, "%s%s.", c->prefix, key);
    mp_config *child = config_new(c->path, prefix);
    if (!child) {
        no_memory(c->path, err);
        return NULL;
    }
    child->object = json_incref(value);
    child->next = c->children;
    c->children = child;
    return child;
}

static size_t append_unknown(const mp_config *c, char *text, size_t size, size_t *at)
{
    const char *key;
    json_t *value;
    size_t n = 0;

    json_object_foreach (c->object, key, value) {
        if (key[0] == '_' || json_object_get(c->asked, key))
            continue;
        if (*at < size)
            *at += (size_t)snprintf(text + *at, size - *at, "%s%s%s", *at ? ", " : "", c->prefix,
                                    mp_plain(key).text);
        n++;
    }
    for (const mp_config *child = c->children; child; child = child->next)
        n += append_unknown(child, text, size, at);
    return n;
}

size_t mp_config_unknown(const mp_config *c, char *text, size_t size)
{
    size_t at = 0;

    assert(size > 0);
    text[0] = '\0';
    return append_unknown(c, text, size, &at);
}
