#include "pipelines/common/embeddings.h"

#include <math.h>

void mp_timestep_embedding(float t, int64_t dim, float *out)
{
    const int64_t half = dim / 2;
    const float log_period = (float)-9.210340371976184; /* -ln(10000) */

    for (int64_t i = 0; i < half; i++) {
        /* torch rounds the product, the quotient, exp and the angle to fp32 one after another. */
        const float exponent = log_period * (float)i / (float)half;
        const float angle = t * (float)exp((double)exponent);
        out[i] = (float)cos((double)angle);
        out[half + i] = (float)sin((double)angle);
    }
}

/* Position i of n in fp32: both divisions round. */
static double position(int64_t i, int64_t n, int64_t base_size, double scale)
{
    const float step = (float)((double)n / (double)base_size);

    return (double)((float)i / step / (float)scale);
}

/* sin, then cos, of one coordinate: [dim] */
static void sincos_1d(double pos, int64_t dim, float *out)
{
    const int64_t half = dim / 2;

    for (int64_t i = 0; i < half; i++) {
        const double angle = pos * (1.0 / pow(10000.0, (double)i / (double)half));
        out[i] = (float)sin(angle);
        out[half + i] = (float)cos(angle);
    }
}

void mp_sincos_2d(int64_t dim, int64_t height, int64_t width, int64_t base_size,
                  double interpolation_scale, float *out)
{
    for (int64_t y = 0; y < height; y++)
        for (int64_t x = 0; x < width; x++, out += dim) {
            sincos_1d(position(x, width, base_size, interpolation_scale), dim / 2, out);
            sincos_1d(position(y, height, base_size, interpolation_scale), dim / 2, out + dim / 2);
        }
}
