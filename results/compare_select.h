/* Which cells a comparison is about: selectors, pairs that differ in nothing else, and pools of
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

typedef struct mp_compare_run {
    int64_t id;
    char *label, *engine, *device, *fingerprint;
    char *isa;         /* that the native engine chose on that machine; "": not recorded */
    char *program;     /* for people: git commit or versions; "": not recorded */
    char *code;        /* versions that a worker told of its library */
    char *environment; /* all of it */
} mp_compare_run;

/* One cell of one side. */
typedef struct mp_candidate {
    int64_t *ids; /* newest first: a label pools what it has of runs that differ in nothing */
    int id_count;
    const mp_compare_run *run; /* of ids[0] */
    char *key, *scenario, *scenario_hash, *checkpoint_hash;
    mp_pair *settings; /* owned texts, in order of key */
    int setting_count, setting_room;
} mp_candidate;

/* All cells that an operand selects: the newest of each key and content. */
typedef struct mp_side {
    mp_selector selector;
    mp_candidate *cells;
    int count;
    mp_compare_run **runs;
    int run_count;
} mp_side;

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

/* A dtype, a run's number or UUID, KEY=VAL[,KEY=VAL], or else a label; text must outlive out.
 * MP_EUSAGE: it is none. */
mp_code mp_selector_parse(const char *text, mp_selector *out, mp_error *err);
/* MP_EMISSING when it selects nothing; the text says what there is. */
mp_code mp_side_load(mp_store *s, const char *text, mp_side *out, mp_error *err);
mp_code mp_side_load_selected(mp_store *s, const mp_selector *which, mp_side *out, mp_error *err);
void mp_side_free(mp_side *side);

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
/* NULL: the cell has no such setting. */
const char *mp_candidate_setting(const mp_candidate *c, const char *key);

#endif
