/* Which cells a comparison is about: selectors, and pairs that differ in nothing else. */
#ifndef MP_RESULTS_COMPARE_SELECT_H
#define MP_RESULTS_COMPARE_SELECT_H

#include "results/db.h"

enum { MP_CONDITIONS = 16 };

typedef struct mp_condition {
    char key[96];
    char value[1024];
} mp_condition;

typedef struct mp_selector {
    const char *text; /* as given */
    mp_condition conditions[MP_CONDITIONS];
    int count;
} mp_selector;

typedef struct mp_candidate {
    int64_t id;
    char *key, *scenario, *engine, *device, *checkpoint_hash, *fingerprint;
    char *isa; /* instruction set that the native engine chose on that machine; "": not recorded */
    mp_pair *settings; /* owned texts, in order of key */
    int setting_count, setting_room;
    char *signature; /* what must be equal in a pair */
    bool paired;
} mp_candidate;

typedef struct mp_cell_pair {
    const mp_candidate *a, *b;
} mp_cell_pair;

typedef struct mp_selection {
    mp_selector a, b;
    mp_candidate *from_a, *from_b;
    int count_a, count_b;
    mp_cell_pair *pairs; /* by scenario and key of a */
    int pair_count;
    int lone_a, lone_b; /* cells without a partner */
} mp_selection;

/* MP_EMISSING when a selector matches nothing or no two cells pair; the text says what there is.
 *
 * A key that both selectors name may differ within a pair.  One that only one of them names may
 * differ only when nothing pairs otherwise: "fp16,inputs.seed=1" as A and "bf16" as B pair seed 1
 * with seed 1, and "precision.components=none" finds "precision.components.vae=bf16".  Engine,
 * device and the checkpoint's content are equal, unless a selector names them or a whole run. */
mp_code mp_select_pairs(mp_store *s, const char *a, const char *b, mp_selection *out,
                        mp_error *err);
void mp_selection_free(mp_selection *s);
/* Whether a selector speaks of this key, or of one below it. */
bool mp_selection_has_key(const mp_selection *s, const char *key);

#endif
