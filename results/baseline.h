/* Runs that others are held against, by name.  Of a name, the newest row counts; the older ones are
 * its history. */
#ifndef MP_RESULTS_BASELINE_H
#define MP_RESULTS_BASELINE_H

#include <stdio.h>

#include "results/store.h"
#include "results/table.h"

typedef struct mp_baseline_info {
    const char *uuid; /* of the new row */
    const char *name;
    const char *run; /* id, UUID, or a label: its newest finished run; NULL: the newest of all */
    const char *why; /* NULL: nothing to say */
} mp_baseline_info;

/* *run: what the name stands for from now on.  MP_EUSAGE: an empty name.  MP_EMISSING: no such run,
 * or it has not finished; the text says what there is. */
mp_code mp_baseline_set(mp_store *s, const mp_baseline_info *b, int64_t *run, mp_error *err);
/* All of them, by name, the newest first. */
mp_code mp_baseline_list(mp_store *s, mp_format format, FILE *to, mp_error *err);

/* What a run is held against. */
typedef struct mp_against {
    int64_t run;
    char selector[200]; /* for mp_compare: that run, or all rounds that it is one of */
} mp_against;

/* name: a baseline, or else a run as above. */
mp_code mp_against_find(mp_store *s, const char *name, mp_against *out, mp_error *err);
/* A finished run by its id alone, whatever baselines are called. */
mp_code mp_against_run(mp_store *s, int64_t run, mp_against *out, mp_error *err);
/* Whether it ran a cell that a comparison can pair with this one. */
mp_code mp_against_has(mp_store *s, const mp_against *a, const char *scenario,
                       const char *scenario_hash, bool *out, mp_error *err);

#endif
