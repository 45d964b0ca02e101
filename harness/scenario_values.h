/* The kinds of value that a scenario has, each read from one node. */
#ifndef MP_HARNESS_SCENARIO_VALUES_H
#define MP_HARNESS_SCENARIO_VALUES_H

#include "harness/yaml_node.h"
#include "pipelines/common/pipeline.h"

/* map[name] of a section, with the section's own message when it is something else. */
typedef struct mp_section {
    mp_arena *arena;
    const mp_yaml *map; /* NULL or a map */
    const char *name;   /* "", "precision" ... */
    mp_error *err;
} mp_section;

/* The map under root[name]; absent and null give an empty section.  Its keys are checked. */
mp_section mp_section_open(mp_arena *a, const mp_yaml *root, const char *name, mp_error *err);
/* Absent and null give the fallback. */
const char *mp_section_text(const mp_section *s, const char *name, const char *fallback);
int mp_section_int(const mp_section *s, const char *name, int fallback, int min, int max);
mp_dtype mp_section_dtype(const mp_section *s, const char *name, mp_dtype fallback);
/* Index of the value among n words. */
int mp_section_word(const mp_section *s, const char *name, const char *const *words, int n,
                    int fallback);
/* A time or a size; see mp_parse_duration and mp_parse_size. */
double mp_section_duration(const mp_section *s, const char *name, double fallback);
size_t mp_section_size(const mp_section *s, const char *name);

/* The words that switch something off: off, none, false, no, and an empty value. */
bool mp_yaml_off(const mp_yaml *node);
/* A dtype, or a message at `at` that lists the dtypes. */
mp_code mp_value_dtype(mp_arena *a, const mp_yaml *node, const mp_yaml *at, const char *key,
                       mp_dtype *out, mp_error *err);
/* `off`, {tile: [H, W], stride: [H, W]}, or the short form 32x32+28x28.  Whether the two fit each
 * other is not asked. */
mp_code mp_value_tiling(mp_arena *a, const mp_yaml *root, mp_tiling *out, mp_error *err);
/* "32x32+28x28" or "off" */
const char *mp_tiling_text(mp_arena *a, const mp_tiling *t);

/* "600s", "10m", "24h", "1.5h" or a bare number of seconds; "8GiB", "512MiB", bytes. */
bool mp_parse_duration(const char *text, double *out);
bool mp_parse_size(const char *text, size_t *out);

#endif
