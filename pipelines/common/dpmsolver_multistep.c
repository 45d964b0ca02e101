#include "pipelines/common/dpmsolver_multistep.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "pipelines/common/config.h"
#include "pipelines/common/dpmsolver_schedule.h"
#include "pipelines/common/file.h"

enum { MAX_ORDER = 3, MAX_STEPS = 1000000 };

typedef enum algorithm { DPMSOLVER, DPMSOLVER_PP, SDE_DPMSOLVER, SDE_DPMSOLVER_PP } algorithm;
typedef enum prediction { EPSILON, SAMPLE, V_PREDICTION, FLOW_PREDICTION } prediction;

struct mp_dpmsolver {
    char *path;
    mp_dpmsolver_schedule_options schedule;
    algorithm algorithm;
    prediction prediction;
    int order;
    bool flow; /* alpha = 1 - sigma; also under other sigmas than flow matching's */
    bool heun, lower_order_final, euler_at_final, thresholding;
    double threshold_ratio, sample_max;
    int64_t batch;

    int count;         /* steps */
    int first;         /* sigma index of step 0 */
    int next;          /* the step that must come */
    int outputs;       /* steps in the history, at most order */
    float *sigmas;     /* [count + 1] */
    int64_t *timestep; /* [count] */
    int64_t numel;
    float *history[MAX_ORDER]; /* converted outputs, the newest first */
    float *noise;              /* sde-*; also the sorted values of thresholding */
};

/* ---- configuration ---- */

typedef struct choice {
    const char *name;
    int value;
} choice;

static int choose(mp_config *c, const char *key, const char *fallback, const choice *choices,
                  mp_error *err)
{
    const char *name = mp_config_string(c, key, fallback, err);

    char names[160];
    size_t at = 0;

    for (const choice *i = choices; i->name; i++) {
        if (!strcmp(i->name, name))
            return i->value;
        at += (size_t)snprintf(names + at, sizeof names - at, "%s%s", at ? ", " : "", i->name);
        assert(at < sizeof names);
    }
    mp_error_set(err, MP_EUNSUPPORTED, "%s: \"%s\": found \"%s\", supported are: %s",
                 mp_config_path(c), key, mp_plain(name).text, names);
    return choices[0].value;
}

static mp_sigma_kind sigma_kind(mp_config *c, bool flow, mp_error *err)
{
    const bool karras = mp_config_bool(c, "use_karras_sigmas", false, err);
    const bool exponential = mp_config_bool(c, "use_exponential_sigmas", false, err);
    const bool beta = mp_config_bool(c, "use_beta_sigmas", false, err);
    const bool lu = mp_config_bool(c, "use_lu_lambdas", false, err);

    if (karras + exponential + beta > 1)
        mp_error_set(err, MP_EFORMAT,
                     "%s: only one of use_karras_sigmas, use_exponential_sigmas and "
                     "use_beta_sigmas can be true",
                     mp_config_path(c));
    if (beta)
        mp_error_set(err, MP_EUNSUPPORTED, "%s: \"use_beta_sigmas\" is not supported",
                     mp_config_path(c));
    return karras        ? MP_SIGMA_KARRAS
           : lu          ? MP_SIGMA_LU
           : exponential ? MP_SIGMA_EXPONENTIAL
           : flow        ? MP_SIGMA_FLOW
                         : MP_SIGMA_TRAINED;
}

static void read_schedule(mp_config *c, bool flow, mp_dpmsolver_schedule_options *o, mp_error *err)
{
    static const choice betas[] = {{"linear", MP_BETA_LINEAR},
                                   {"scaled_linear", MP_BETA_SCALED_LINEAR},
                                   {"squaredcos_cap_v2", MP_BETA_COSINE},
                                   {NULL, 0}};
    static const choice spacings[] = {{"linspace", MP_SPACING_LINSPACE},
                                      {"leading", MP_SPACING_LEADING},
                                      {"trailing", MP_SPACING_TRAILING},
                                      {NULL, 0}};
    static const choice finals[] = {{"zero", false}, {"sigma_min", true}, {NULL, 0}};

    o->train_steps = mp_config_int(c, "num_train_timesteps", 1000, 2, 1000000, err);
    o->beta_start = mp_config_number(c, "beta_start", 0.0001, err);
    o->beta_end = mp_config_number(c, "beta_end", 0.02, err);
    o->betas = (mp_beta_schedule)choose(c, "beta_schedule", "linear", betas, err);
    o->zero_snr = mp_config_bool(c, "rescale_betas_zero_snr", false, err);
    o->spacing = (mp_spacing)choose(c, "timestep_spacing", "linspace", spacings, err);
    o->steps_offset = mp_config_int(c, "steps_offset", 0, 0, 1000000, err);
    o->lambda_min = mp_config_number(c, "lambda_min_clipped", -INFINITY, err);
    o->sigmas = sigma_kind(c, flow, err);
    o->flow_shift = mp_config_number(c, "flow_shift", 1, err);
    o->final_sigma_min = choose(c, "final_sigmas_type", "zero", finals, err);
    if (!(o->beta_start > 0 && o->beta_start <= o->beta_end && o->beta_end < 1))
        mp_error_set(err, MP_EFORMAT,
                     "%s: \"beta_start\" %g and \"beta_end\" %g, expected 0 < start <= end < 1",
                     mp_config_path(c), o->beta_start, o->beta_end);
    if (!(o->flow_shift > 0 && isfinite(o->flow_shift)))
        mp_error_set(err, MP_EFORMAT, "%s: \"flow_shift\": expected a number above 0, found %g",
                     mp_config_path(c), o->flow_shift);
}

/* What Diffusers itself refuses, or ends in an exception at the first step. */
static void check_combination(const mp_config *c, const mp_dpmsolver *s, mp_error *err)
{
    const bool plus = s->algorithm == DPMSOLVER_PP || s->algorithm == SDE_DPMSOLVER_PP;

    if (!plus && !s->schedule.final_sigma_min)
        mp_error_set(err, MP_EFORMAT,
                     "%s: \"final_sigmas_type\": \"zero\" does not go with \"algorithm_type\" "
                     "without ++, expected \"sigma_min\"",
                     mp_config_path(c));
    if (!plus && s->prediction == FLOW_PREDICTION)
        mp_error_set(err, MP_EFORMAT,
                     "%s: \"prediction_type\": \"flow_prediction\" needs an \"algorithm_type\" "
                     "with ++",
                     mp_config_path(c));
    if (s->algorithm == SDE_DPMSOLVER && s->order == 3)
        mp_error_set(err, MP_EUNSUPPORTED,
                     "%s: \"solver_order\": 3 is not defined for \"sde-dpmsolver\"",
                     mp_config_path(c));
}

static void refuse_unsupported(mp_config *c, mp_error *err)
{
    static const char *const keys[] = {"trained_betas", "variance_type"};

    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (mp_config_has(c, keys[i]))
            mp_error_set(err, MP_EUNSUPPORTED, "%s: \"%s\" is not supported, expected null",
                         mp_config_path(c), keys[i]);
}

/* Keys that the scheduler's class does not know are ignored, as Diffusers does: a configuration is
 * often saved by another scheduler. */
static void read_config(mp_config *c, mp_dpmsolver *s, mp_error *err)
{
    static const choice classes[] = {{"DPMSolverMultistepScheduler", 0}, {NULL, 0}};
    static const choice algorithms[] = {{"dpmsolver++", DPMSOLVER_PP},
                                        {"dpmsolver", DPMSOLVER},
                                        {"sde-dpmsolver++", SDE_DPMSOLVER_PP},
                                        {"sde-dpmsolver", SDE_DPMSOLVER},
                                        {"deis", DPMSOLVER_PP},
                                        {NULL, 0}};
    static const choice predictions[] = {{"epsilon", EPSILON},
                                         {"sample", SAMPLE},
                                         {"v_prediction", V_PREDICTION},
                                         {"flow_prediction", FLOW_PREDICTION},
                                         {NULL, 0}};
    static const choice solvers[] = {{"midpoint", false}, {"heun", true}, {"logrho", false},
                                     {"bh1", false},      {"bh2", false}, {NULL, 0}};

    choose(c, "_class_name", classes[0].name, classes, err);
    refuse_unsupported(c, err);
    s->flow = mp_config_bool(c, "use_flow_sigmas", false, err);
    read_schedule(c, s->flow, &s->schedule, err);
    s->algorithm = (algorithm)choose(c, "algorithm_type", "dpmsolver++", algorithms, err);
    s->prediction = (prediction)choose(c, "prediction_type", "epsilon", predictions, err);
    s->heun = choose(c, "solver_type", "midpoint", solvers, err);
    s->order = (int)mp_config_int(c, "solver_order", 2, 1, MAX_ORDER, err);
    s->lower_order_final = mp_config_bool(c, "lower_order_final", true, err);
    s->euler_at_final = mp_config_bool(c, "euler_at_final", false, err);
    s->thresholding = mp_config_bool(c, "thresholding", false, err);
    s->threshold_ratio = mp_config_number(c, "dynamic_thresholding_ratio", 0.995, err);
    s->sample_max = mp_config_number(c, "sample_max_value", 1, err);
    if (!(s->threshold_ratio >= 0 && s->threshold_ratio <= 1))
        mp_error_set(err, MP_EFORMAT, "%s: \"dynamic_thresholding_ratio\": expected 0..1, found %g",
                     mp_config_path(c), s->threshold_ratio);
    check_combination(c, s, err);
}

mp_code mp_dpmsolver_open(const char *dir, mp_dpmsolver **out, mp_error *err)
{
    mp_config *c = NULL;
    mp_error first = {0};
    mp_dpmsolver *s = mp_alloc(1, sizeof *s);

    *out = NULL;
    if (!s)
        return mp_error_set(err, MP_ENOMEM, "%s: no memory for a scheduler", dir);
    s->batch = 1;
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
    mp_dpmsolver_close(s);
    return mp_error_set(err, first.code, "%s", first.text);
}

/* ---- set_timesteps ---- */

static void forget(mp_dpmsolver *s)
{
    mp_free(s->sigmas);
    mp_free(s->timestep);
    mp_free(s->noise);
    s->sigmas = s->noise = NULL;
    s->timestep = NULL;
    for (int i = 0; i < MAX_ORDER; i++) {
        mp_free(s->history[i]);
        s->history[i] = NULL;
    }
    s->count = s->next = s->first = s->outputs = 0;
}

void mp_dpmsolver_close(mp_dpmsolver *s)
{
    if (!s)
        return;
    forget(s);
    mp_free(s->path);
    mp_free(s);
}

static bool is_stochastic(const mp_dpmsolver *s)
{
    return s->algorithm == SDE_DPMSOLVER || s->algorithm == SDE_DPMSOLVER_PP;
}

static bool allocate(mp_dpmsolver *s, int steps, int64_t numel)
{
    const bool scratch = is_stochastic(s) || s->thresholding;
    bool all;

    s->sigmas = mp_alloc((size_t)steps + 2, sizeof *s->sigmas);
    s->timestep = mp_alloc((size_t)steps + 1, sizeof *s->timestep);
    all = s->sigmas && s->timestep;
    for (int i = 0; i < s->order; i++)
        all &= (s->history[i] = mp_alloc((size_t)numel, sizeof *s->history[i])) != NULL;
    return all && (!scratch || (s->noise = mp_alloc((size_t)numel, sizeof *s->noise)));
}

/* Diffusers looks the first timestep up in the list and, where a value repeats, takes its second
 * place: such a schedule begins at sigma 1. */
static int first_index(const mp_dpmsolver *s)
{
    for (int i = 1; i < s->count; i++)
        if (s->timestep[i] == s->timestep[0])
            return i;
    return 0;
}

mp_code mp_dpmsolver_start(mp_dpmsolver *s, int steps, int64_t numel, mp_error *err)
{
    mp_code code;

    forget(s);
    assert(numel > 0 && numel % s->batch == 0);
    if (steps < 1 || steps > MAX_STEPS)
        return mp_error_set(err, MP_EUSAGE, "%s: %d steps, expected 1..%d", s->path, steps,
                            MAX_STEPS);
    if (!allocate(s, steps, numel)) {
        forget(s);
        return mp_error_set(err, MP_ENOMEM, "%s: no memory for %d steps of %lld values", s->path,
                            steps, (long long)numel);
    }
    code = mp_dpmsolver_schedule(&s->schedule, steps, s->sigmas, s->timestep, &s->count, err);
    if (!code && s->count < 1)
        code =
            mp_error_set(err, MP_EFORMAT, "%s: \"lambda_min_clipped\" leaves no timestep", s->path);
    if (code) {
        forget(s);
        return code;
    }
    s->numel = numel;
    s->first = first_index(s);
    return MP_OK;
}

void mp_dpmsolver_batch(mp_dpmsolver *s, int64_t samples)
{
    assert(samples > 0);
    s->batch = samples;
}

int mp_dpmsolver_count(const mp_dpmsolver *s)
{
    return s->count;
}

double mp_dpmsolver_timestep(const mp_dpmsolver *s, int i)
{
    assert(i >= 0 && i < s->count);
    return (double)s->timestep[i];
}

float mp_dpmsolver_sigma(const mp_dpmsolver *s, int i)
{
    assert(i >= 0 && i <= s->count);
    return s->sigmas[i];
}

/* ---- step ----
 * torch does the scalar part with 0-dim fp32 tensors, one rounding an operation: so does the code
 * below, in float.  Formulas: arXiv 2206.00927 and 2211.01095, as Diffusers writes them. */

typedef struct level {
    float alpha, sigma, lambda;
} level;

static level level_of(const mp_dpmsolver *s, int i)
{
    level l = {.sigma = s->sigmas[i]};

    if (s->flow)
        l.alpha = 1 - l.sigma;
    else {
        l.alpha = 1 / sqrtf(l.sigma * l.sigma + 1);
        l.sigma *= l.alpha;
    }
    l.lambda = logf(l.alpha) - logf(l.sigma);
    return l;
}

/* y = (a x + b z) / c, each operation rounded; c = 1 changes nothing. */
static void mix(float *y, const float *x, float a, const float *z, float b, float c, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = (a * x[i] + b * z[i]) / c;
}

static int compare_floats(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* torch.quantile, linear interpolation, of n sorted values. */
static float quantile(const float *sorted, int64_t n, double ratio)
{
    const float rank = (float)ratio * (float)(n - 1);
    const int64_t below = (int64_t)rank, above = (int64_t)ceilf(rank);
    const float w = rank - (float)below, a = sorted[below], b = sorted[above];

    return w < 0.5f ? a + w * (b - a) : b - (b - a) * (1 - w);
}

/* Dynamic thresholding (arXiv 2205.11487) of each sample of the batch. */
static void threshold(mp_dpmsolver *s, float *x0)
{
    const int64_t n = s->numel / s->batch;

    for (int64_t b = 0; b < s->batch; b++, x0 += n) {
        for (int64_t i = 0; i < n; i++)
            s->noise[i] = fabsf(x0[i]);
        qsort(s->noise, (size_t)n, sizeof *s->noise, compare_floats);
        const float q = quantile(s->noise, n, s->threshold_ratio);
        const float limit = fminf(fmaxf(q, 1), (float)s->sample_max);
        for (int64_t i = 0; i < n; i++)
            x0[i] = fminf(fmaxf(x0[i], -limit), limit) / limit;
    }
}

/* ++: the prediction of x0. */
static void convert_to_x0(mp_dpmsolver *s, level l, float sigma, const float *output,
                          const float *sample, float *x0)
{
    const int64_t n = s->numel;

    switch (s->prediction) {
    case EPSILON:
        mix(x0, sample, 1, output, -l.sigma, l.alpha, n);
        break;
    case SAMPLE:
        memcpy(x0, output, (size_t)n * sizeof *x0);
        break;
    case V_PREDICTION:
        mix(x0, sample, l.alpha, output, -l.sigma, 1, n);
        break;
    case FLOW_PREDICTION:
        mix(x0, sample, 1, output, -sigma, 1, n);
    }
    if (s->thresholding)
        threshold(s, x0);
}

/* Without ++: the prediction of the noise. */
static void convert_to_noise(mp_dpmsolver *s, level l, const float *output, const float *sample,
                             float *noise)
{
    const int64_t n = s->numel;

    if (s->prediction == EPSILON)
        memcpy(noise, output, (size_t)n * sizeof *noise);
    else if (s->prediction == SAMPLE)
        mix(noise, sample, 1, output, -l.alpha, l.sigma, n);
    else
        mix(noise, output, l.alpha, sample, l.sigma, 1, n);
    if (!s->thresholding)
        return;
    mix(noise, sample, 1, noise, -l.sigma, l.alpha, n);
    threshold(s, noise);
    mix(noise, sample, 1, noise, -l.alpha, l.sigma, n);
}

/* x' = x c.sample + D0 c.d[0] + D1 c.d[1] + D2 c.d[2] + noise c.noise */
typedef struct coefficients {
    float sample, d[MAX_ORDER], noise;
} coefficients;

/* One step from level `from` to t; the order tells which of the factors are used. */
static coefficients solve(const mp_dpmsolver *s, level t, level from, int order)
{
    const bool midpoint = order == 2 && !s->heun;
    const float h = t.lambda - from.lambda;
    coefficients c = {0};

    switch (s->algorithm) {
    case DPMSOLVER_PP: {
        const float e = expf(-h) - 1;
        c.sample = t.sigma / from.sigma;
        c.d[0] = -(t.alpha * e);
        c.d[1] = midpoint ? -(0.5f * (t.alpha * e)) : t.alpha * (e / h + 1);
        c.d[2] = -(t.alpha * ((e + h) / (h * h) - 0.5f));
        break;
    }
    case DPMSOLVER: {
        const float e = expf(h) - 1;
        c.sample = t.alpha / from.alpha;
        c.d[0] = -(t.sigma * e);
        c.d[1] = midpoint ? -(0.5f * (t.sigma * e)) : -(t.sigma * (e / h - 1));
        c.d[2] = -(t.sigma * ((e - h) / (h * h) - 0.5f));
        break;
    }
    case SDE_DPMSOLVER_PP: {
        const float e = 1 - expf(-2 * h);
        c.sample = t.sigma / from.sigma * expf(-h);
        c.d[0] = t.alpha * e;
        c.d[1] = midpoint ? 0.5f * (t.alpha * e) : t.alpha * (e / (-2 * h) + 1);
        c.d[2] = t.alpha * ((e - 2 * h) / (2 * h * (2 * h)) - 0.5f);
        c.noise = t.sigma * sqrtf(e);
        break;
    }
    case SDE_DPMSOLVER: {
        const float e = expf(h) - 1;
        c.sample = t.alpha / from.alpha;
        c.d[0] = -(2 * (t.sigma * e));
        c.d[1] = midpoint ? -(t.sigma * e) : -(2 * (t.sigma * (e / h - 1)));
        c.noise = t.sigma * sqrtf(expf(2 * h) - 1);
    }
    }
    return c;
}

static void update_first(const mp_dpmsolver *s, coefficients c, float *x)
{
    const float *m0 = s->history[0];

    for (int64_t i = 0; i < s->numel; i++)
        x[i] = c.sample * x[i] + c.d[0] * m0[i];
}

/* D1 = (m0 - m1) / r0 */
static void update_second(const mp_dpmsolver *s, coefficients c, float r0, float *x)
{
    const float *m0 = s->history[0], *m1 = s->history[1];
    const float inverse = 1 / r0;

    for (int64_t i = 0; i < s->numel; i++) {
        const float d1 = inverse * (m0[i] - m1[i]);
        x[i] = c.sample * x[i] + c.d[0] * m0[i] + c.d[1] * d1;
    }
}

static void update_third(const mp_dpmsolver *s, coefficients c, float r0, float r1, float *x)
{
    const float *m0 = s->history[0], *m1 = s->history[1], *m2 = s->history[2];
    const float inverse0 = 1 / r0, inverse1 = 1 / r1;
    const float share = r0 / (r0 + r1), inverse = 1 / (r0 + r1);

    for (int64_t i = 0; i < s->numel; i++) {
        const float d10 = inverse0 * (m0[i] - m1[i]), d11 = inverse1 * (m1[i] - m2[i]);
        const float d1 = d10 + share * (d10 - d11), d2 = inverse * (d10 - d11);
        x[i] = c.sample * x[i] + c.d[0] * m0[i] + c.d[1] * d1 + c.d[2] * d2;
    }
}

/* How many outputs the step at sigma k uses. */
static int step_order(const mp_dpmsolver *s, int k)
{
    const bool few = s->lower_order_final && s->count < 15;
    const bool last = k == s->count - 1;

    if (s->order == 1 || s->outputs <= 1 ||
        (last && (s->euler_at_final || few || !s->schedule.final_sigma_min)))
        return 1;
    if (s->order == 2 || s->outputs <= 2 || (k == s->count - 2 && few))
        return 2;
    return 3;
}

static void update(const mp_dpmsolver *s, int k, float *x)
{
    const int order = step_order(s, k);
    const level t = level_of(s, k + 1), from = level_of(s, k);
    const coefficients c = solve(s, t, from, order);
    const float h = t.lambda - from.lambda;
    const float r0 = order > 1 ? (from.lambda - level_of(s, k - 1).lambda) / h : 0;
    const float r1 = order > 2 ? (level_of(s, k - 1).lambda - level_of(s, k - 2).lambda) / h : 0;

    if (order == 1)
        update_first(s, c, x);
    else if (order == 2)
        update_second(s, c, r0, x);
    else
        update_third(s, c, r0, r1, x);
    for (int64_t i = 0; is_stochastic(s) && i < s->numel; i++)
        x[i] += c.noise * s->noise[i];
}

static void push_history(mp_dpmsolver *s)
{
    float *oldest = s->history[s->order - 1];

    for (int i = s->order - 1; i > 0; i--)
        s->history[i] = s->history[i - 1];
    s->history[0] = oldest;
    if (s->outputs < s->order)
        s->outputs++;
}

mp_code mp_dpmsolver_step(mp_dpmsolver *s, int i, const float *model_output, float *sample,
                          mp_generator *g, mp_error *err)
{
    const int k = s->first + i;

    assert(s->count > 0 && i == s->next && i < s->count);
    if (k >= s->count)
        return mp_error_set(err, MP_EUNSUPPORTED,
                            "%s: %d steps repeat the timestep %lld, so that the schedule begins "
                            "at its second place and ends too early (as in Diffusers, with an "
                            "IndexError); use fewer steps",
                            s->path, s->count, (long long)s->timestep[0]);
    s->next++;
    push_history(s);
    const level l = level_of(s, k);
    if (s->algorithm == DPMSOLVER_PP || s->algorithm == SDE_DPMSOLVER_PP)
        convert_to_x0(s, l, s->sigmas[k], model_output, sample, s->history[0]);
    else
        convert_to_noise(s, l, model_output, sample, s->history[0]);
    if (is_stochastic(s)) {
        assert(g);
        mp_generator_normal(g, s->noise, s->numel);
    }
    update(s, k, sample);
    return MP_OK;
}
