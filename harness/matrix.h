/* The matrix of a scenario file: every combination of its values, with include and exclude as
 * GitHub Actions define them.
 *
 * `exclude` drops the combinations that match all of an entry.  Then each entry of `include` is
 * added to every combination of which it changes no value that an axis gave (what another entry
 * added, it may change); one that fits none becomes a combination of its own. */
#ifndef MP_HARNESS_MATRIX_H
#define MP_HARNESS_MATRIX_H

#include "harness/yaml_node.h"

/* One combination: dotted keys and values, in the matrix's order. */
typedef struct mp_combination {
    const mp_yaml **keys;
    mp_yaml **values;
    int count;
} mp_combination;

typedef struct mp_matrix {
    mp_combination *items;
    int count, axes;
    const mp_yaml *exclude, *include; /* lists of maps, or NULL */
} mp_matrix;

/* root: the scenario's map, whose matrix gets its keys' one name (mp_scenario_key).  The product of
 * the axes, with exclude and include checked and left to the caller.  Without a matrix there is one
 * combination without keys. */
mp_code mp_matrix_product(mp_arena *a, const mp_yaml *root, mp_matrix *out, mp_error *err);
/* Whether the combination has each of the entry's values, as written. */
bool mp_matrix_equals(const mp_combination *c, const mp_yaml *entry);
/* Adds the entries of include, once those that exclude matches are gone. */
void mp_matrix_include(mp_arena *a, mp_matrix *m);

#endif
