/* The noise schedule of DPMSolverMultistepScheduler: set_timesteps as numbers, without state.
 * Source: diffusers/schedulers/scheduling_dpmsolver_multistep.py. */
#ifndef MP_PIPELINES_COMMON_DPMSOLVER_SCHEDULE_H
#define MP_PIPELINES_COMMON_DPMSOLVER_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/core/status.h"

typedef enum mp_beta_schedule {
    MP_BETA_LINEAR,
    MP_BETA_SCALED_LINEAR,
    MP_BETA_COSINE
} mp_beta_schedule;
typedef enum mp_spacing { MP_SPACING_LINSPACE, MP_SPACING_LEADING, MP_SPACING_TRAILING } mp_spacing;
typedef enum mp_sigma_kind {
    MP_SIGMA_TRAINED, /* those of the timesteps */
    MP_SIGMA_KARRAS,
    MP_SIGMA_LU,
    MP_SIGMA_EXPONENTIAL,
    MP_SIGMA_FLOW,
} mp_sigma_kind;

typedef struct mp_dpmsolver_schedule_options {
    int64_t train_steps;
    double beta_start, beta_end;
    mp_beta_schedule betas;
    bool zero_snr; /* rescale_betas_zero_snr */
    mp_spacing spacing;
    int64_t steps_offset;
    double lambda_min;
    mp_sigma_kind sigmas;
    double flow_shift;
    bool final_sigma_min; /* final_sigmas_type: sigma_min, else zero */
} mp_dpmsolver_schedule_options;

/* Into sigmas, with room for steps + 2, and timesteps, with room for steps + 1: *count timesteps
 * (trailing spacing can make one more or fewer than steps) and *count + 1 sigmas. */
mp_code mp_dpmsolver_schedule(const mp_dpmsolver_schedule_options *o, int steps, float *sigmas,
                              int64_t *timesteps, int *count, mp_error *err);

#endif
