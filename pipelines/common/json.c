#include "pipelines/common/json.h"

#include <stdio.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "pipelines/common/file.h"

enum { FILE_LIMIT = 256 << 20 };

mp_code mp_json_parse(const char *path, const char *place, const char *text, size_t n, json_t **out,
                      mp_error *err)
{
    json_error_t why;
    const char *comma = place ? ", " : "";

    place = place ? place : "";
    *out = json_loadb(text, n, JSON_REJECT_DUPLICATES, &why);
    if (!*out && json_error_code(&why) == json_error_out_of_memory)
        return mp_error_set(err, MP_ENOMEM, "%s: no memory for its JSON", path);
    if (!*out)
        return mp_error_set(err, MP_EFORMAT, "%s: %s%sline %d, column %d: %s; expected valid JSON",
                            path, place, comma, why.line, why.column, mp_plain(why.text).text);
    if (!json_is_object(*out)) {
        char found[200];
        mp_json_describe(*out, found, sizeof found);
        json_decref(*out);
        *out = NULL;
        return mp_error_set(err, MP_EFORMAT, "%s: %s%sfound %s, expected an object at the top",
                            path, place, comma, found);
    }
    return MP_OK;
}

/* Python's json writes bare NaN, Infinity and -Infinity, which are no JSON.  Each becomes a string
 * of the same name; the copy, of at most 5/3 of n bytes, is returned (mp_free), NULL without
 * memory. */
static char *quote_specials(const char *text, size_t *n)
{
    static const char *const specials[] = {"-Infinity", "Infinity", "NaN"};
    char *out = mp_alloc(*n + *n / 3 * 2 + 4, 1);
    size_t at = 0;
    bool inside = false; /* a string */

    for (size_t i = 0; out && i < *n;) {
        size_t length = 0;
        for (size_t k = 0; !inside && !length && k < sizeof specials / sizeof *specials; k++)
            if (!strncmp(text + i, specials[k], strlen(specials[k])))
                length = strlen(specials[k]);
        if (length) {
            out[at++] = '"';
            memcpy(out + at, text + i, length);
            at += length;
            out[at++] = '"';
            i += length;
            continue;
        }
        if (text[i] == '"')
            inside = !inside;
        else if (inside && text[i] == '\\' && i + 1 < *n)
            out[at++] = text[i++];
        out[at++] = text[i++];
    }
    *n = at;
    return out;
}

mp_code mp_json_load(const char *path, json_t **out, mp_error *err)
{
    char *text, *quoted = NULL;
    size_t n;
    mp_code code = mp_file_read(path, FILE_LIMIT, &text, &n, err);

    *out = NULL;
    if (!code && !(quoted = quote_specials(text, &n)))
        code = mp_error_set(err, MP_ENOMEM, "%s: no memory to read it", path);
    if (!code)
        code = mp_json_parse(path, NULL, quoted, n, out, err);
    mp_free(quoted);
    mp_free(text);
    return code;
}

const char *mp_json_describe(const json_t *value, char *text, size_t size)
{
    switch (value ? json_typeof(value) : JSON_NULL) {
    case JSON_STRING:
        snprintf(text, size, "\"%s\"", mp_plain(json_string_value(value)).text);
        break;
    case JSON_INTEGER:
        snprintf(text, size, "%lld", (long long)json_integer_value(value));
        break;
    case JSON_REAL:
        snprintf(text, size, "%.17g", json_real_value(value));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        snprintf(text, size, "%s", json_is_true(value) ? "true" : "false");
        break;
    case JSON_ARRAY:
        snprintf(text, size, "a list of %zu", json_array_size(value));
        break;
    case JSON_OBJECT:
        snprintf(text, size, "an object");
        break;
    default:
        snprintf(text, size, "null");
    }
    return text;
}
