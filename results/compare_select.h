/* Which cells a comparison is about: pairs that differ in nothing else, and pools of
 * pairs that differ from each other in prompt and seed alone.
 *
 *     mp_side a, b;
 *     mp_selection pairs;
 *     if (mp_side_load(s, "fp16", &a, &err) || mp_side_load(s, "bf16", &b, &err) ||
 *         mp_select_pairs(s, &a, &b, &pairs, &err)) ...
 *     mp_selection_free(&pairs);
 *     mp_side_free(&a); ...
 */
#ifndef MP_RESULTS_COMPARE_SELECT_H
#define MP_RESULTS_COMPARE_SELECT_H

#include "results/compare_side.h"

typedef struct mp_cell_pair {
    const mp_candidate *a, *b;
} mp_cell_pair;

typedef struct mp_pool {
    int first, end; /* pairs */
} mp_pool;

typedef struct mp_selection {
    const mp_side *a, *b;
    mp_cell_pair *pairs; /* by scenario and key of a, pool by pool */
    int pair_count;
    mp_pool *pools;
    int pool_count;
    int lone_a, lone_b; /* cells without a partner */
} mp_selection;

/* MP_EMISSING when no two cells pair; the text says what the nearest differ in.
 *
 * A key that both selectors name may differ within a pair.  One that only one of them names may
 * differ only when nothing pairs otherwise: "fp16,inputs.seed=1" as A and "bf16" as B pair seed 1
 * with seed 1, and "precision.components=none" finds "precision.components.vae=bf16".  Engine,
 * device and the checkpoint's content are equal, unless a selector names them or a whole run.
 *
 * Pairs are of one pool when they differ in prompt and seed alone: also their runs' environments
 * are the same. */
mp_code mp_select_pairs(mp_store *s, const mp_side *a, const mp_side *b, mp_selection *out,
                        mp_error *err);
void mp_selection_free(mp_selection *s);
/* Whether a selector speaks of this key, or of one below it. */
bool mp_selection_has_key(const mp_selection *s, const char *key);
/* Whether pairs that differ in this setting are pooled. */
bool mp_pooled_key(const char *key);

#endif
