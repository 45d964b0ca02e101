/* DPMSolverMultistepScheduler (diffusers/schedulers/scheduling_dpmsolver_multistep.py; arXiv
 * 2206.00927, 2211.01095), all of its deterministic configuration; sde-* needs noise and takes the
 * pipeline's generator. */
#ifndef MP_PIPELINES_COMMON_DPMSOLVER_MULTISTEP_H
#define MP_PIPELINES_COMMON_DPMSOLVER_MULTISTEP_H

#include "kernels/core/status.h"
#include "pipelines/common/generator.h"

typedef struct mp_dpmsolver mp_dpmsolver;

/* Reads dir/scheduler_config.json; an option outside this code is MP_EUNSUPPORTED with its name. */
mp_code mp_dpmsolver_open(const char *dir, mp_dpmsolver **out, mp_error *err);
void mp_dpmsolver_close(mp_dpmsolver *s);
/* The sample is so many pictures, one after another (1 until told): thresholding is per picture. */
void mp_dpmsolver_batch(mp_dpmsolver *s, int64_t samples);
/* set_timesteps(steps).  numel: elements of the sample, for the history. */
mp_code mp_dpmsolver_start(mp_dpmsolver *s, int steps, int64_t numel, mp_error *err);
int mp_dpmsolver_count(const mp_dpmsolver *s);
double mp_dpmsolver_timestep(const mp_dpmsolver *s, int i); /* as the pipeline passes it on */
float mp_dpmsolver_sigma(const mp_dpmsolver *s, int i);     /* i in 0..count */
/* sample <- step(model_output, timestep i, sample), all fp32 [numel], for i = 0, 1, 2, ...
 * g draws the noise of sde-*, else it may be NULL. */
mp_code mp_dpmsolver_step(mp_dpmsolver *s, int i, const float *model_output, float *sample,
                          mp_generator *g, mp_error *err);

#endif
