/* A metric of one cell by denoising step. */
#ifndef MP_RESULTS_STEPS_H
#define MP_RESULTS_STEPS_H

#include "results/store.h"

typedef struct mp_steps {
    int *step;
    double *value; /* may be inf, -inf or NaN */
    int count, room;
} mp_steps;

/* In order of the steps; count 0: none on record.  An mp_steps that holds those of another cell is
 * used again. */
mp_code mp_steps_of(mp_store *s, int64_t cell, const char *metric, const char *stage, mp_steps *out,
                    mp_error *err);
void mp_steps_free(mp_steps *s);

#endif
