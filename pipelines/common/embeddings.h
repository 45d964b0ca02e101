/* Sinusoidal tables that several models share (diffusers/models/embeddings.py). */
#ifndef MP_PIPELINES_COMMON_EMBEDDINGS_H
#define MP_PIPELINES_COMMON_EMBEDDINGS_H

#include <stdint.h>

/* get_timestep_embedding with flip_sin_to_cos=True, downscale_freq_shift=0, scale=1: out [dim]
 * holds cos(t f_i) and then sin(t f_i) of dim/2 frequencies f_i = 10000 ** (-i / (dim/2)), all in
 * fp32 as torch does it. */
void mp_timestep_embedding(float t, int64_t dim, float *out);

/* get_2d_sincos_pos_embed: out [height*width, dim], dim a multiple of 4.  The first half of a row
 * belongs to the column, the second to the row; each is sin, then cos.  fp32 positions, fp64
 * angles. */
void mp_sincos_2d(int64_t dim, int64_t height, int64_t width, int64_t base_size,
                  double interpolation_scale, float *out);

#endif
