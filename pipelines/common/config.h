/* Typed reading of a config.json (or any JSON object), with defaults as the Python class has them.
 *
 * Sticky like the context: the first wrong value fills err and the rest return their defaults, so a
 * config parser is one line a field.  Keys never asked for are listed by mp_config_unknown, because
 * a config of a newer Diffusers may say something that this code must not ignore silently. */
#ifndef MP_PIPELINES_COMMON_CONFIG_H
#define MP_PIPELINES_COMMON_CONFIG_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/core/status.h"

typedef struct mp_config mp_config;

/* Reads dir/file; duplicate keys, trailing text and anything but an object at the top are errors
 * with line and column. */
mp_code mp_config_open(const char *dir, const char *file, mp_config **out, mp_error *err);
void mp_config_close(mp_config *c); /* NULL is fine; the strings it gave die */
const char *mp_config_path(const mp_config *c);
bool mp_config_has(const mp_config *c, const char *key);     /* present and not null */
bool mp_config_is_null(const mp_config *c, const char *key); /* present and null, not absent */

/* null and absent give the default. */
int64_t mp_config_int(mp_config *c, const char *key, int64_t fallback, int64_t min, int64_t max,
                      mp_error *err);
double mp_config_number(mp_config *c, const char *key, double fallback, mp_error *err);
bool mp_config_bool(mp_config *c, const char *key, bool fallback, mp_error *err);
const char *mp_config_string(mp_config *c, const char *key, const char *fallback, mp_error *err);
/* Array of integers into out (at most cap); returns its length, or -1 when absent or null. */
int mp_config_ints(mp_config *c, const char *key, int64_t *out, int cap, int64_t min, int64_t max,
                   mp_error *err);
/* Array of strings, or one string for all: fills out[0..n) either way (Diffusers' `str | tuple`).
 */
mp_code mp_config_strings(mp_config *c, const char *key, const char **out, int n,
                          const char *fallback, mp_error *err);
/* Array of arrays of integers: row i into out + i*cap, its length into lens[i]; returns the number
 * of rows or -1 when absent. */
int mp_config_int_lists(mp_config *c, const char *key, int64_t *out, int *lens, int rows, int cap,
                        mp_error *err);
/* One integer, 1 .. 2^20, of checkpoint/component/config.json. */
mp_code mp_config_int_of(const char *checkpoint, const char *component, const char *key,
                         int64_t fallback, int64_t *out, mp_error *err);
/* The nested object under key (owned by c), NULL when absent. */
mp_config *mp_config_object(mp_config *c, const char *key, mp_error *err);

/* Keys that were never asked for and do not begin with "_", also those of nested objects that were
 * asked for: names joined by ", " into text (cut at size), their number returned. */
size_t mp_config_unknown(const mp_config *c, char *text, size_t size);

#endif
