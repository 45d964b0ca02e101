/* FlowMatchEulerDiscreteScheduler (diffusers/schedulers/scheduling_flow_match_euler_discrete.py),
 * all of its configuration.  Not here: the arguments sigmas and timesteps of set_timesteps, s_churn
 * and its kin (which Diffusers ignores), and per_token_timesteps, which no pipeline of pictures
 * passes. */
#ifndef MP_PIPELINES_COMMON_FLOW_MATCH_EULER_H
#define MP_PIPELINES_COMMON_FLOW_MATCH_EULER_H

#include "kernels/core/ctx.h"
#include "pipelines/common/generator.h"

typedef struct mp_flow_match_euler mp_flow_match_euler;

/* Reads dir/scheduler_config.json; an option outside this code is MP_EUNSUPPORTED with its name. */
mp_code mp_flow_match_euler_open(const char *dir, mp_flow_match_euler **out, mp_error *err);
void mp_flow_match_euler_close(mp_flow_match_euler *s); /* NULL is fine */
/* use_dynamic_shifting: mp_flow_match_euler_start then needs mu. */
bool mp_flow_match_euler_is_dynamic(const mp_flow_match_euler *s);
/* calculate_shift of the pipelines: the mu of a picture of so many patches. */
double mp_flow_match_euler_mu(const mp_flow_match_euler *s, int64_t image_seq_len);
/* set_timesteps(steps, mu=*mu).  mu NULL: none; without dynamic shifting it is not read. */
mp_code mp_flow_match_euler_start(mp_flow_match_euler *s, int steps, const double *mu,
                                  mp_error *err);
int mp_flow_match_euler_count(const mp_flow_match_euler *s);
float mp_flow_match_euler_timestep(const mp_flow_match_euler *s, int i);
float mp_flow_match_euler_sigma(const mp_flow_match_euler *s, int i); /* i in 0..count */
/* step(model_output, timestep i, sample) for i = 0, 1, 2, ... -> the next sample, in the dtype of
 * model_output, whatever sample's is.  g draws the noise of stochastic_sampling, else it may be
 * NULL; noise is drawn in the order of the sample's memory, so that torch's picture needs a sample
 * of [B, C, H, W]. */
mp_tensor mp_flow_match_euler_step(mp_ctx *c, mp_flow_match_euler *s, int i, mp_tensor model_output,
                                   mp_tensor sample, mp_generator *g);

#endif
