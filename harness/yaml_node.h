/* A YAML file as a tree of our own, every node with its line and column.
 *
 * Stricter than YAML: one document, keys are scalars and occur once, no merge keys.  Aliases are
 * expanded, with a limit on the nodes that come of it, so that a small file cannot become a huge
 * tree.  Tags are refused.  ${VAR} and ${VAR:-default} are replaced in values; $${ stands for a
 * plain ${. */
#ifndef MP_HARNESS_YAML_NODE_H
#define MP_HARNESS_YAML_NODE_H

#include "harness/arena.h"
#include "kernels/core/status.h"

typedef enum mp_yaml_kind { MP_YAML_NULL, MP_YAML_SCALAR, MP_YAML_LIST, MP_YAML_MAP } mp_yaml_kind;

typedef struct mp_yaml mp_yaml;
struct mp_yaml {
    mp_yaml_kind kind;
    const char *file; /* as given on the command line, or "--set" */
    int line, column; /* from 1; of the node itself */
    bool quoted;      /* scalar: was in quotes, so it is text even when it reads as a number */
    const char *text; /* scalar */
    mp_yaml **keys;   /* map: scalars, in the file's order */
    mp_yaml **items;  /* map, list */
    int count;
};

mp_code mp_yaml_read(mp_arena *a, const char *path, mp_yaml **out, mp_error *err);
/* name is what messages call it. */
mp_code mp_yaml_parse(mp_arena *a, const char *name, const char *text, size_t length, mp_yaml **out,
                      mp_error *err);

/* NULL: no such key (or not a map).  mp_yaml_key gives the key's own node. */
mp_yaml *mp_yaml_get(const mp_yaml *map, const char *key);
const mp_yaml *mp_yaml_key(const mp_yaml *map, const char *key);
mp_yaml *mp_yaml_copy(mp_arena *a, const mp_yaml *node);
/* Puts value at a dotted key, making maps on the way; a key that is there is replaced.  False when
 * the way leads through something that is no map; *found is that. */
bool mp_yaml_put(mp_arena *a, mp_yaml *map, const char *dotted, mp_yaml *value,
                 const mp_yaml **found);
void mp_yaml_remove(mp_yaml *map, const char *key);
/* The node of a dotted key, or NULL. */
mp_yaml *mp_yaml_at(mp_yaml *map, const char *dotted);

/* In flow style on one line: "{tile: [32, 32], stride: [28, 28]}". */
void mp_yaml_write(mp_text *t, const mp_yaml *node);
/* "a list of 3", "\"fox\"", "nothing": what a message says was found, fit for a terminal. */
const char *mp_yaml_describe(mp_arena *a, const mp_yaml *node);

/* Sets err to "FILE:LINE:COLUMN: text". */
mp_code mp_yaml_fail(mp_error *err, const mp_yaml *at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Typed scalars as YAML 1.2's core schema reads them, numbers decimal and finite only; false when
 * it is something else. */
bool mp_yaml_number(const mp_yaml *node, double *out);
bool mp_yaml_bool(const mp_yaml *node, bool *out);
bool mp_yaml_is_null(const mp_yaml *node);

/* The nearest of n names to text, NULL when none is near enough to be a slip of the finger. */
const char *mp_nearest(const char *text, const char *const *names, int n);

#endif
