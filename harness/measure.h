/* The metrics of a cell: distances from its reference, pictures, seams, memory.
 *
 * Summaries carry the names of budgets (latent_rel_l2, image_rel_l2, psnr_db, ssim, seam, peak_mib,
 * seconds), stage "run" and step -1; the rest is by stage and step. */
#ifndef MP_HARNESS_MEASURE_H
#define MP_HARNESS_MEASURE_H

#include "harness/execution.h"
#include "harness/outputs.h"

typedef struct mp_metrics {
    mp_arena *arena;
    mp_metric_row *rows;
    int64_t count, room;
} mp_metrics;

/* The summary of that name, NaN when there is none. */
double mp_metrics_summary(const mp_metrics *m, const char *name);

/* Drift of everything that both have, by stage and step, and the pictures.  A tensor that both have
 * in different shapes is the trouble: NULL, or a text in m's arena. */
const char *mp_measure_drift(mp_metrics *m, const mp_execution *e, const mp_outputs *x,
                             const mp_outputs *reference);
/* How visible the tiles' borders are, against the untiled picture. */
void mp_measure_seam(mp_metrics *m, const mp_outputs *x, const mp_outputs *untiled,
                     const mp_tiling *tiling);
/* What the reference itself is good for: its own drift under one ulp of initial noise. */
void mp_measure_floor(mp_metrics *m, double latents, double image);
/* Time and memory of the process, and what its policy did. */
void mp_measure_process(mp_metrics *m, const mp_execution *e);

/* An exact count in the place of the CPU's; unit says who counted. */
void mp_measure_instructions(mp_metrics *m, double count, const char *unit);

/* rel_l2 of the last latents and of the picture; NaN where one of them lacks it. */
typedef struct mp_distance {
    double latents, image;
} mp_distance;
mp_distance mp_measure_distance(const mp_outputs *x, const mp_outputs *reference);
/* Whether all is finite; whether the picture has one value only. */
bool mp_measure_finite(const mp_outputs *x);
bool mp_measure_constant(const mp_outputs *x, float *value);

#endif
