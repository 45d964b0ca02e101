/* From scenario files to the cells of a run: matrix, --set, --only, ids and repro lines. */
#ifndef MP_HARNESS_PLAN_H
#define MP_HARNESS_PLAN_H

#include "harness/options.h"
#include "harness/scenario.h"
#include "harness/shard.h"

typedef struct mp_cell {
    mp_scenario scenario;
    const char *id;     /* "precision.default=bf16,tiling=off"; "default" without a matrix */
    const char *key;    /* "sana-tiled-fixed/" and the id */
    const char *folder; /* the id, fit for a file name: --dump's */
    const char *repro;  /* the command line that runs it alone */
    char hash[65];      /* SHA-256 over its settings */
    char checkpoint_hash[65];
} mp_cell;

typedef struct mp_plan {
    mp_cell *cells;
    int count;
    char hash[65]; /* over the cells: two runs of one plan have it in common */
} mp_plan;

typedef struct mp_plan_options {
    mp_words paths;     /* files, and folders whose *.yaml and *.yml are taken in order of name */
    mp_words set;       /* KEY=VAL: replaces the file's value and the matrix's axis of that key */
    mp_words only;      /* KEY=VAL[,KEY=VAL]: keeps the cells for which all of it holds */
    int repeat, warmup; /* -1: the scenario's */
    mp_shard shard;     /* of all that are left; it may be empty */
    /* What else can be said against a cell: the engine's check. */
    mp_code (*check)(const mp_scenario *s, mp_error *err);
    const char *engine_flags; /* of repro lines: " --engine diffusers", or "" */
} mp_plan_options;

/* Everything that can be said without running is checked: MP_EUSAGE and the like, with FILE:LINE.
 */
mp_code mp_plan_make(mp_arena *a, const mp_plan_options *o, mp_plan *out, mp_error *err);

#endif
