#include "pipelines/common/dpmsolver_schedule.h"

#include <math.h>

#include "kernels/core/memory.h"

/* torch.linspace in fp32: from both ends, which meet in the middle, with one rounding a value. */
static void torch_linspace(float start, float end, int64_t n, float *out)
{
    const float step = n > 1 ? (end - start) / (float)(n - 1) : 0;

    for (int64_t i = 0; i < n; i++)
        out[i] = i < n / 2 ? fmaf(step, (float)i, start) : fmaf(-step, (float)(n - 1 - i), end);
}

/* numpy.linspace: the last value is exact. */
static double numpy_linspace(double start, double end, int64_t n, int64_t i)
{
    if (n > 1 && i == n - 1)
        return end;
    return n > 1 ? (double)i * ((end - start) / (double)(n - 1)) + start : start;
}

/* Truncated as .astype(int64) does; what an absurd configuration makes of a timestep is 0. */
static int64_t whole(double x)
{
    return fabs(x) < 0x1p53 ? (int64_t)x : 0;
}

/* betas_for_alpha_bar, the cosine form */
static double alpha_bar(double t)
{
    const double c = cos((t + 0.008) / 1.008 * M_PI / 2);
    return c * c;
}

static void make_betas(const mp_dpmsolver_schedule_options *o, float *betas)
{
    const int64_t n = o->train_steps;

    switch (o->betas) {
    case MP_BETA_LINEAR:
        torch_linspace((float)o->beta_start, (float)o->beta_end, n, betas);
        break;
    case MP_BETA_SCALED_LINEAR:
        torch_linspace((float)sqrt(o->beta_start), (float)sqrt(o->beta_end), n, betas);
        for (int64_t i = 0; i < n; i++)
            betas[i] *= betas[i];
        break;
    case MP_BETA_COSINE:
        for (int64_t i = 0; i < n; i++) {
            const double a = alpha_bar((double)i / (double)n);
            const double b = alpha_bar((double)(i + 1) / (double)n);
            betas[i] = (float)fmin(1 - b / a, 0.999);
        }
    }
}

/* torch.cumprod keeps its running product in double and rounds each result. */
static void cumprod(float *values, int64_t n)
{
    double product = 1;

    for (int64_t i = 0; i < n; i++) {
        product *= values[i];
        values[i] = (float)product;
    }
}

/* rescale_zero_terminal_snr (arXiv 2305.08891, algorithm 1), in and out: betas. */
static void rescale_zero_snr(float *v, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        v[i] = 1 - v[i];
    cumprod(v, n);
    const float first = sqrtf(v[0]), last = sqrtf(v[n - 1]);
    const float scale = first / (first - last);
    for (int64_t i = 0; i < n; i++) {
        const float root = (sqrtf(v[i]) - last) * scale;
        v[i] = root * root;
    }
    for (int64_t i = n - 1; i > 0; i--)
        v[i] = 1 - v[i] / v[i - 1];
    v[0] = 1 - v[0];
}

/* alphas_cumprod [train_steps] */
static void make_alphas(const mp_dpmsolver_schedule_options *o, float *alphas)
{
    make_betas(o, alphas);
    if (o->zero_snr)
        rescale_zero_snr(alphas, o->train_steps);
    for (int64_t i = 0; i < o->train_steps; i++)
        alphas[i] = 1 - alphas[i];
    cumprod(alphas, o->train_steps);
    if (o->zero_snr)
        alphas[o->train_steps - 1] = 0x1p-24f; /* so that the first sigma is finite */
}

static float sigma_of(float alpha)
{
    return sqrtf((1 - alpha) / alpha);
}

/* Number of training steps whose lambda = log(alpha / sigma) is not below the clip. */
static int64_t last_timestep(const mp_dpmsolver_schedule_options *o, const float *alphas)
{
    int64_t clipped = 0;

    while (clipped < o->train_steps) {
        const float a = alphas[o->train_steps - 1 - clipped];
        const float lambda = logf(sqrtf(a)) - logf(sqrtf(1 - a));
        if (!(lambda < (float)o->lambda_min))
            break;
        clipped++;
    }
    return o->train_steps - clipped;
}

static void space_timesteps(const mp_dpmsolver_schedule_options *o, int64_t last, int steps,
                            int64_t *timesteps, int *count)
{
    const double ratio = (double)o->train_steps / steps;

    *count = steps;
    switch (o->spacing) {
    case MP_SPACING_LINSPACE:
        for (int i = 0; i < steps; i++)
            timesteps[i] =
                whole(nearbyint(numpy_linspace(0, (double)(last - 1), steps + 1, steps - i)));
        break;
    case MP_SPACING_LEADING:
        for (int i = 0; i < steps; i++)
            timesteps[i] = (steps - i) * (last / (steps + 1)) + o->steps_offset;
        break;
    case MP_SPACING_TRAILING:
        /* ceil can give one more than steps where the division rounds up. */
        *count = (int)ceil((double)last / ratio);
        if (*count > steps + 1)
            *count = steps + 1;
        /* numpy.arange takes the difference of its first two values as the step. */
        for (int i = 0; i < *count; i++)
            timesteps[i] =
                whole(nearbyint((double)last + i * (((double)last - ratio) - (double)last))) - 1;
    }
}

/* The (fractional) timestep of a sigma; logs[n] rises. */
static double timestep_of(double sigma, const float *logs, int64_t n)
{
    const double log_sigma = log(fmax(sigma, 1e-10));
    int64_t low = 0;

    for (int64_t i = 0; i < n; i++)
        if (log_sigma - (double)logs[i] >= 0)
            low = i;
    if (low > n - 2)
        low = n - 2;
    const float width = logs[low] - logs[low + 1];
    const double w = fmin(fmax(((double)logs[low] - log_sigma) / (double)width, 0), 1);
    return (1 - w) * (double)low + w * (double)(low + 1);
}

/* sigma i of `steps` in falling order, for the kinds that have their own sigmas; first and last are
 * the largest and smallest trained sigma. */
static double own_sigma(const mp_dpmsolver_schedule_options *o, int steps, int i, double first,
                        double last)
{
    const double rho = 7, ramp = numpy_linspace(0, 1, steps, i);

    switch (o->sigmas) {
    case MP_SIGMA_KARRAS: {
        const double from = pow(first, 1 / rho), to = pow(last, 1 / rho);
        return pow(from + ramp * (to - from), rho);
    }
    case MP_SIGMA_LU: {
        const double from = logf((float)first), to = logf((float)last);
        return exp(from + ramp * (to - from));
    }
    default:
        return exp(numpy_linspace(log(first), log(last), steps, i));
    }
}

/* Flow matching: sigma = shift * s / (1 + (shift - 1) s), s falling from 1 - 1/n, without 0. */
static void flow_schedule(const mp_dpmsolver_schedule_options *o, int steps, float *sigmas,
                          int64_t *timesteps)
{
    for (int i = 0; i < steps; i++) {
        const double s =
            1 - numpy_linspace(1, 1 / (double)o->train_steps, (int64_t)steps + 1, steps - i);
        const double sigma = o->flow_shift * s / (1 + (o->flow_shift - 1) * s);
        sigmas[i] = (float)sigma;
        timesteps[i] = whole(sigma * (double)o->train_steps);
    }
}

static mp_code own_schedule(const mp_dpmsolver_schedule_options *o, const float *alphas, int steps,
                            float *sigmas, int64_t *timesteps, mp_error *err)
{
    const int64_t n = o->train_steps;
    const double first = sigma_of(alphas[n - 1]), last = sigma_of(alphas[0]);
    const bool rounded = o->sigmas != MP_SIGMA_EXPONENTIAL && o->betas != MP_BETA_COSINE;
    float *logs = mp_alloc((size_t)n, sizeof *logs);

    if (!logs)
        return mp_error_set(err, MP_ENOMEM, "no memory for a schedule of %lld steps", (long long)n);
    for (int64_t i = 0; i < n; i++)
        logs[i] = logf(sigma_of(alphas[i]));
    for (int i = 0; i < steps; i++) {
        const double sigma = own_sigma(o, steps, i, first, last);
        const double t = timestep_of(sigma, logs, n);
        sigmas[i] = (float)sigma;
        timesteps[i] = whole(rounded ? nearbyint(t) : t);
    }
    mp_free(logs);
    return MP_OK;
}

/* numpy.interp at whole numbers: a look-up that clamps. */
static void trained_sigmas(const mp_dpmsolver_schedule_options *o, const float *alphas, int count,
                           const int64_t *timesteps, float *sigmas)
{
    for (int i = 0; i < count; i++) {
        const int64_t t = timesteps[i] < 0 ? 0 : timesteps[i];
        sigmas[i] = sigma_of(alphas[t < o->train_steps ? t : o->train_steps - 1]);
    }
}

mp_code mp_dpmsolver_schedule(const mp_dpmsolver_schedule_options *o, int steps, float *sigmas,
                              int64_t *timesteps, int *count, mp_error *err)
{
    float *alphas = mp_alloc((size_t)o->train_steps, sizeof *alphas);
    mp_code code = MP_OK;

    if (!alphas)
        return mp_error_set(err, MP_ENOMEM, "no memory for a schedule of %lld steps",
                            (long long)o->train_steps);
    make_alphas(o, alphas);
    space_timesteps(o, last_timestep(o, alphas), steps, timesteps, count);
    if (o->sigmas == MP_SIGMA_TRAINED)
        trained_sigmas(o, alphas, *count, timesteps, sigmas);
    else {
        *count = steps;
        if (o->sigmas == MP_SIGMA_FLOW)
            flow_schedule(o, steps, sigmas, timesteps);
        else
            code = own_schedule(o, alphas, steps, sigmas, timesteps, err);
    }
    sigmas[*count] = o->final_sigma_min ? sigma_of(alphas[0]) : 0;
    mp_free(alphas);
    return code;
}
