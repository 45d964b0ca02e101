/* The matrix of a scenario file: every combination of its values, with include and exclude as CI
 * services have them.
 *
 * An entry of `include` whose values contradict no combination's is added to those that it fits;
 * one that fits none becomes a combination of its own.  `exclude` drops what matches all of an
 * entry. */
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
    int count;
    const mp_yaml *exclude; /* list of maps, or NULL: judged on the finished scenarios */
} mp_matrix;

/* root: the scenario's map.  Without a matrix there is one combination without keys. */
mp_code mp_matrix_expand(mp_arena *a, const mp_yaml *root, mp_matrix *out, mp_error *err);

#endif
