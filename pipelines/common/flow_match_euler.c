#include "pipelines/common/flow_match_euler.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "kernels/ops.h"
#include "pipelines/common/config.h"
#include "pipelines/common/file.h"

enum { MAX_STEPS = 1000000 };

typedef enum sigma_kind { SHIFTED, KARRAS, EXPONENTIAL, BETA } sigma_kind;

struct mp_flow_match_euler {
    char *path;
    int64_t train_steps;
    double shift;
    bool dynamic, linear; /* use_dynamic_shifting, time_shift_type */
    double base_shift, max_shift;
    int64_t base_length, max_length;
    double terminal; /* shift_terminal; 0: none */
    sigma_kind kind;
    bool invert, stochastic;
    double sigma_min, sigma_max; /* trained; values of fp32 */

    int count;       /* steps */
    int first;       /* sigma index of step 0 */
    int next;        /* the step that must come */
    float *sigmas;   /* [count + 1] */
    float *timestep; /* [count] */
};

/* ---- configuration ---- */

static sigma_kind read_kind(mp_config *c, mp_error *err)
{
    const bool karras = mp_config_bool(c, "use_karras_sigmas", false, err);
    const bool exponential = mp_config_bool(c, "use_exponential_sigmas", false, err);
    const bool beta = mp_config_bool(c, "use_beta_sigmas", false, err);

    if (karras + exponential + beta > 1)
        mp_error_set(err, MP_EFORMAT,
                     "%s: only one of use_karras_sigmas, use_exponential_sigmas and "
                     "use_beta_sigmas can be true",
                     mp_config_path(c));
    return karras ? KARRAS : exponential ? EXPONENTIAL : beta ? BETA : SHIFTED;
}

static void read_dynamic(mp_config *c, mp_flow_match_euler *s, mp_error *err)
{
    const char *const type = mp_config_string(c, "time_shift_type", "exponential", err);

    s->dynamic = mp_config_bool(c, "use_dynamic_shifting", false, err);
    s->linear = !strcmp(type, "linear");
    s->base_shift = mp_config_number(c, "base_shift", 0.5, err);
    s->max_shift = mp_config_number(c, "max_shift", 1.15, err);
    s->base_length = mp_config_int(c, "base_image_seq_len", 256, 0, 1 << 30, err);
    s->max_length = mp_config_int(c, "max_image_seq_len", 4096, 0, 1 << 30, err);
    if (!s->linear && strcmp(type, "exponential"))
        mp_error_set(err, MP_EFORMAT,
                     "%s: \"time_shift_type\": found \"%s\", expected exponential or linear",
                     mp_config_path(c), mp_plain(type).text);
    if (s->base_length == s->max_length)
        mp_error_set(
            err, MP_EFORMAT,
            "%s: \"base_image_seq_len\" and \"max_image_seq_len\" are both %lld; the shift "
            "grows from one to the other",
            mp_config_path(c), (long long)s->base_length);
}

static void check_class(mp_config *c, mp_error *err)
{
    static const char wanted[] = "FlowMatchEulerDiscreteScheduler";
    const char *const name = mp_config_string(c, "_class_name", wanted, err);

    if (strcmp(name, wanted))
        mp_error_set(err, MP_EUNSUPPORTED, "%s: \"_class_name\": found \"%s\", expected \"%s\"",
                     mp_config_path(c), mp_plain(name).text, wanted);
}

static void check_config(mp_config *c, const mp_flow_match_euler *s, mp_error *err)
{
    char unknown[400];

    if (!(s->shift > 0 && s->shift <= 1e9))
        mp_error_set(err, MP_EFORMAT, "%s: \"shift\": expected a number in (0, 1e9], found %g",
                     mp_config_path(c), s->shift);
    if (!(s->terminal >= 0 && s->terminal < 1))
        mp_error_set(err, MP_EFORMAT,
                     "%s: \"shift_terminal\": expected a number in [0, 1), found %g",
                     mp_config_path(c), s->terminal);
    if (mp_config_unknown(c, unknown, sizeof unknown))
        mp_error_set(err, MP_EUNSUPPORTED,
                     "%s: unknown keys: %s; this build knows FlowMatchEulerDiscreteScheduler of "
                     "Diffusers 0.42",
                     mp_config_path(c), unknown);
}

/* A trained sigma as the constructor makes it: every operation of fp32 rounds. */
static double trained_sigma(const mp_flow_match_euler *s, int64_t t)
{
    const float sigma = (float)t / (float)s->train_steps;

    if (s->dynamic)
        return sigma;
    return (float)s->shift * sigma / (1 + (float)(s->shift - 1) * sigma);
}

static void read_config(mp_config *c, mp_flow_match_euler *s, mp_error *err)
{
    check_class(c, err);
    s->train_steps = mp_config_int(c, "num_train_timesteps", 1000, 1, 1000000, err);
    s->shift = mp_config_number(c, "shift", 1, err);
    s->terminal = mp_config_number(c, "shift_terminal", 0, err);
    s->kind = read_kind(c, err);
    s->invert = mp_config_bool(c, "invert_sigmas", false, err);
    s->stochastic = mp_config_bool(c, "stochastic_sampling", false, err);
    read_dynamic(c, s, err);
    if (!err->code)
        check_config(c, s, err);
    s->sigma_min = trained_sigma(s, 1);
    s->sigma_max = trained_sigma(s, s->train_steps);
}

mp_code mp_flow_match_euler_open(const char *dir, mp_flow_match_euler **out, mp_error *err)
{
    mp_config *c = NULL;
    mp_error first = {0};
    mp_flow_match_euler *s = mp_alloc(1, sizeof *s);

    *out = NULL;
    if (!s)
        return mp_error_set(err, MP_ENOMEM, "%s: no memory for a scheduler", dir);
    if (!mp_config_open(dir, "scheduler_config.json", &c, &first)) {
        read_config(c, s, &first);
        s->path = mp_strdup(mp_config_path(c));
        if (!s->path)
            mp_error_set(&first, MP_ENOMEM, "%s: no memory for a scheduler", dir);
    }
    mp_config_close(c);
    if (!first.code) {
        *out = s;
        return MP_OK;
    }
    mp_flow_match_euler_close(s);
    return mp_error_set(err, first.code, "%s", first.text);
}

static void forget(mp_flow_match_euler *s)
{
    mp_free(s->sigmas);
    mp_free(s->timestep);
    s->sigmas = s->timestep = NULL;
    s->count = s->next = s->first = 0;
}

void mp_flow_match_euler_close(mp_flow_match_euler *s)
{
    if (!s)
        return;
    forget(s);
    mp_free(s->path);
    mp_free(s);
}

bool mp_flow_match_euler_is_dynamic(const mp_flow_match_euler *s)
{
    return s->dynamic;
}

double mp_flow_match_euler_mu(const mp_flow_match_euler *s, int64_t image_seq_len)
{
    const double m = (s->max_shift - s->base_shift) / (double)(s->max_length - s->base_length);
    const double b = s->base_shift - m * (double)s->base_length;

    return (double)image_seq_len * m + b;
}

/* ---- set_timesteps ----
 * numpy does it in double; each sigma is rounded to fp32 once, at the end. */

/* numpy.linspace: the last value is exact. */
static double linspace(double start, double end, int n, int i)
{
    if (n > 1 && i == n - 1)
        return end;
    return n > 1 ? (double)i * ((end - start) / (n - 1)) + start : start;
}

/* Sigma i of n after shifting. */
static double shifted(const mp_flow_match_euler *s, int n, int i, double mu)
{
    const double train = (double)s->train_steps;
    const double t = linspace(s->sigma_max * train, s->sigma_min * train, n, i) / train;

    if (!s->dynamic)
        return s->shift * t / (1 + (s->shift - 1) * t);
    const double scale = s->linear ? mu : exp(mu);
    return scale / (scale + (1 / t - 1));
}

/* shifted, stretched so that the last sigma is shift_terminal. */
static double stretched(const mp_flow_match_euler *s, int n, int i, double mu)
{
    const double sigma = shifted(s, n, i, mu);

    if (s->terminal == 0)
        return sigma;
    return 1 - (1 - sigma) / ((1 - shifted(s, n, n - 1, mu)) / (1 - s->terminal));
}

/* The quantile p <= 1/2 of the beta distribution with both parameters 0.6.  Its distribution is
 *     F(x) = y / (a B(a, a)) sum_k (1 - a)_k / k! a / (a + k) x^k,   y = x^a,
 * nearly straight in y, so that Newton's steps in y from a straight line's root end within a few.
 */
static double beta_quantile(double p)
{
    const double a = 0.6, area = a * tgamma(a) * tgamma(a) / tgamma(2 * a);
    double y = p * area;

    for (int step = 0; step < 8; step++) {
        const double x = pow(y, 1 / a);
        double sum = 1, power = 1;
        for (int k = 1; k < 64 && power > 0x1p-60; k++) {
            power *= x * (k - a) / k;
            sum += power * a / (a + k);
        }
        y -= (y * sum / area - p) / (pow(1 - x, a - 1) / area);
    }
    return pow(y, 1 / a);
}

/* Sigma i of n between `first` and `last`, for the kinds that have their own. */
static double own_sigma(sigma_kind kind, int n, int i, double first, double last)
{
    const double rho = 7, ramp = linspace(0, 1, n, i);

    if (kind == KARRAS) {
        const double from = pow(first, 1 / rho), to = pow(last, 1 / rho);
        return pow(from + ramp * (to - from), rho);
    }
    if (kind == EXPONENTIAL)
        return exp(linspace(log(first), log(last), n, i));
    /* The distribution is symmetric. */
    const double p = 1 - ramp, x = p > 0.5 ? 1 - beta_quantile(ramp) : beta_quantile(p);
    return last + x * (first - last);
}

static double sigma_at(const mp_flow_match_euler *s, int n, int i, double mu)
{
    if (s->kind == SHIFTED)
        return stretched(s, n, i, mu);
    return own_sigma(s->kind, n, i, stretched(s, n, 0, mu), stretched(s, n, n - 1, mu));
}

static mp_code fill(mp_flow_match_euler *s, int steps, double mu, mp_error *err)
{
    for (int i = 0; i < steps; i++) {
        float sigma = (float)sigma_at(s, steps, i, mu);
        if (!isfinite(sigma))
            return mp_error_set(
                err, MP_EUSAGE,
                "%s: sigma %d of %d steps is %g%s; use more steps, or another shift", s->path, i,
                steps, (double)sigma, s->terminal != 0 ? ", stretched to \"shift_terminal\"" : "");
        if (s->invert)
            sigma = 1 - sigma;
        s->sigmas[i] = sigma;
        s->timestep[i] = sigma * (float)s->train_steps;
    }
    s->sigmas[steps] = s->invert ? 1 : 0;
    return MP_OK;
}

/* Diffusers looks the first timestep up in the list and, where it repeats, takes its second place.
 */
static int first_index(const mp_flow_match_euler *s)
{
    for (int i = 1; i < s->count; i++)
        if (s->timestep[i] == s->timestep[0])
            return i;
    return 0;
}

mp_code mp_flow_match_euler_start(mp_flow_match_euler *s, int steps, const double *mu,
                                  mp_error *err)
{
    forget(s);
    if (steps < 1 || steps > MAX_STEPS)
        return mp_error_set(err, MP_EUSAGE, "%s: %d steps, expected 1..%d", s->path, steps,
                            MAX_STEPS);
    if (s->dynamic && !mu)
        return mp_error_set(err, MP_EUSAGE,
                            "%s: `mu` must be passed when `use_dynamic_shifting` is set to be "
                            "`True`",
                            s->path);
    s->sigmas = mp_alloc((size_t)steps + 1, sizeof *s->sigmas);
    s->timestep = mp_alloc((size_t)steps, sizeof *s->timestep);
    if (!s->sigmas || !s->timestep)
        mp_error_set(err, MP_ENOMEM, "%s: no memory for %d steps", s->path, steps);
    else if (!fill(s, steps, mu ? *mu : 0, err)) {
        s->count = steps;
        s->first = first_index(s);
        return MP_OK;
    }
    forget(s);
    return err->code;
}

int mp_flow_match_euler_count(const mp_flow_match_euler *s)
{
    return s->count;
}

float mp_flow_match_euler_timestep(const mp_flow_match_euler *s, int i)
{
    assert(i >= 0 && i < s->count);
    return s->timestep[i];
}

float mp_flow_match_euler_sigma(const mp_flow_match_euler *s, int i)
{
    assert(i >= 0 && i <= s->count);
    return s->sigmas[i];
}

/* ---- step ---- */

/* value * x, the value being a fp32 tensor without dimensions on the left of the product: it rounds
 * to x's dtype, then the product does. */
static mp_tensor scaled(mp_ctx *c, float value, mp_tensor x)
{
    const mp_tensor number = mp_new(c, MP_F32, 0, MP_DIMS(1));

    if (mp_failed(c))
        return MP_NONE;
    *(float *)number.data = value;
    return mp_mul(c, number, x);
}

/* x + (s' - s) v, x widened to fp32 */
static mp_tensor euler(mp_ctx *c, float sigma, float next, mp_tensor v, mp_tensor x)
{
    return mp_add(c, x, scaled(c, next - sigma, v));
}

/* (1 - s') (x - s v) + s' noise */
static mp_tensor stochastic(mp_ctx *c, float sigma, float next, mp_tensor v, mp_tensor x,
                            mp_generator *g)
{
    assert(g);
    const mp_tensor x0 = mp_add(c, x, scaled(c, -sigma, v)); /* a negative factor rounds alike */
    const mp_tensor noise = mp_like(c, x0);

    if (mp_failed(c))
        return MP_NONE;
    mp_generator_normal(g, noise.data, mp_numel(noise));
    return mp_add(c, scaled(c, 1 - next, x0), scaled(c, next, noise));
}

mp_tensor mp_flow_match_euler_step(mp_ctx *c, mp_flow_match_euler *s, int i, mp_tensor model_output,
                                   mp_tensor sample, mp_generator *g)
{
    const mp_mark mark = mp_open(c);
    const int k = s->first + i;

    if (mp_failed(c))
        return MP_NONE;
    assert(s->count > 0 && i == s->next && i < s->count);
    if (!mp_same_shape(model_output, sample))
        return mp_fail(c, MP_ESHAPE, NULL, "the model's output and the sample differ in shape");
    if (k >= s->count)
        return mp_fail(c, MP_EUNSUPPORTED, NULL,
                       "%s: %d steps repeat the timestep %g, so that the schedule begins at its "
                       "second place and ends too early (as in Diffusers, with an IndexError); use "
                       "fewer steps",
                       s->path, s->count, (double)s->timestep[0]);
    s->next++;
    const float sigma = s->sigmas[k], next = s->sigmas[k + 1];
    mp_tensor x = mp_cast(c, sample, MP_F32);
    x = s->stochastic ? stochastic(c, sigma, next, model_output, x, g)
                      : euler(c, sigma, next, model_output, x);
    return mp_keep(c, mark, mp_cast(c, x, model_output.dtype));
}
