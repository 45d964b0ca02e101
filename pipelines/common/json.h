/* JSON from files that are hostile until checked: one way to load, one way to complain. */
#ifndef MP_PIPELINES_COMMON_JSON_H
#define MP_PIPELINES_COMMON_JSON_H

#include <stddef.h>

#include <jansson.h>

#include "kernels/core/status.h"

/* n bytes of text, which must be one JSON object without duplicate keys.  path and place ("header",
 * or NULL) name it in messages, with line and column.  *out is released by json_decref. */
mp_code mp_json_parse(const char *path, const char *place, const char *text, size_t n, json_t **out,
                      mp_error *err);
/* The same of a whole file of at most 256 MB.  Python's bare NaN, Infinity and -Infinity become
 * strings of these names. */
mp_code mp_json_load(const char *path, json_t **out, mp_error *err);
/* What a value is, for "found %s": "abc" in quotes, 12, true, a list, an object. */
const char *mp_json_describe(const json_t *value, char *text, size_t size);

#endif
