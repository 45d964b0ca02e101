/* The keys of a scenario file, in one table: what messages offer, what the reader accepts, and what
 * scenarios/schema.json must list (a test compares the two). */
#ifndef MP_HARNESS_SCENARIO_SCHEMA_H
#define MP_HARNESS_SCENARIO_SCHEMA_H

#include "harness/yaml_node.h"

typedef struct mp_schema_key {
    const char *section; /* "" is the top; "precision", "expect[]" ... */
    const char *name;
    const char *expected; /* "an integer from 1 to 10000": the end of a message */
    bool result; /* part of what is computed: may stand in `when`, --only and the settings */
} mp_schema_key;

/* NULL when the section has no such key. */
const mp_schema_key *mp_schema_find(const char *section, const char *name);
/* Number of keys in all, and the i-th. */
int mp_schema_count(void);
const mp_schema_key *mp_schema_at(int i);
/* Every key of the map is one of the section's; else the error names the nearest. */
mp_code mp_schema_check(const mp_yaml *map, const char *section, mp_error *err);
/* A dotted key of the whole scenario, as --set, --only, `when` and the matrix take it; at is where
 * it was written.  With `result`, keys that change nothing in the computation are refused. */
mp_code mp_schema_check_dotted(const char *dotted, bool result, const mp_yaml *at, mp_error *err);
/* Whether the key that a dotted one begins with is part of what is computed. */
bool mp_schema_result(const char *dotted);
/* "key 'repeat': found "x", expected an integer ..." */
mp_code mp_schema_wrong(mp_arena *a, const mp_yaml *map, const char *section, const char *name,
                        mp_error *err);

#endif
