/* An operand of a comparison: a selector, and the cells that it selects. */
#ifndef MP_RESULTS_COMPARE_SIDE_H
#define MP_RESULTS_COMPARE_SIDE_H

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
    char *label, *engine, *device, *fingerprint, *started;
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

/* All cells that an operand selects: the newest of each key and content (MP_DB_NEWEST). */
typedef struct mp_side {
    mp_selector selector;
    mp_candidate *cells;
    int count;
    mp_compare_run **runs;
    int run_count;
} mp_side;

/* text: a dtype, a run's number or UUID, KEY=VAL[,KEY=VAL], or else a label; it must outlive out.
 * MP_EUSAGE: it is none.  MP_EMISSING when it selects nothing; the text says what there is. */
mp_code mp_side_load(mp_store *s, const char *text, mp_side *out, mp_error *err);
mp_code mp_side_load_selected(mp_store *s, const mp_selector *which, mp_side *out, mp_error *err);
void mp_side_free(mp_side *side);

/* The error of all files of the comparison. */
mp_code mp_compare_no_memory(mp_error *err);

/* Whether it speaks of this key, or of one below it. */
bool mp_selector_names(const mp_selector *s, const char *key);
/* In that order, the newer one first. */
int mp_candidate_order(const mp_candidate *a, const mp_candidate *b);
/* NULL: the cell has no such setting. */
const char *mp_candidate_setting(const mp_candidate *c, const char *key);

#endif
