/* DPMSolverMultistepScheduler.  Goldens: tests/fixtures/sana_scheduler.py (Diffusers 0.42.1). */
#include "tests/pipelines/scratch.h"

#include <math.h>

#include <jansson.h>

#include "pipelines/common/dpmsolver_multistep.h"
#include "pipelines/common/safetensors.h"

#define GOLDENS MP_FIXTURES "/goldens/scheduler/"

static mp_safetensors *goldens;
static json_t *cases;

static int setup(void **state)
{
    mp_error err = {0};

    cases = json_load_file(GOLDENS "dpmsolver.json", 0, NULL);
    if (!cases || mp_safetensors_open(GOLDENS "dpmsolver.safetensors", &goldens, &err))
        return -1;
    return scratch_setup(state);
}

static int teardown(void **state)
{
    json_decref(cases);
    mp_safetensors_close(goldens);
    return scratch_teardown(state);
}

static mp_tensor golden(const char *name, const char *what)
{
    char key[128];
    mp_tensor t;

    snprintf(key, sizeof key, "%s%s%s", name, what[0] ? "." : "", what);
    if (!mp_safetensors_find(goldens, key, &t))
        fail_msg("no golden %s", key);
    return t;
}

/* The scheduler of a case, started; the goldens' samples are two pictures. */
static mp_dpmsolver *start(const char *name, int steps)
{
    char dir[512];
    mp_error err = {0};
    mp_dpmsolver *s;

    snprintf(dir, sizeof dir, GOLDENS "dpmsolver/%s", name);
    mp_dpmsolver_open(dir, &s, &err);
    assert_ok(&err);
    mp_dpmsolver_batch(s, 2);
    mp_dpmsolver_start(s, steps, mp_numel(golden("sample", "")), &err);
    assert_ok(&err);
    return s;
}

#define FOR_EACH_CASE(item, name, steps)                                                  \
    for (size_t item = 0; item < json_array_size(cases); item++)                          \
        for (const char *name =                                                           \
                 json_string_value(json_object_get(json_array_get(cases, item), "name")); \
             name; name = NULL)                                                           \
            for (int steps = (int)json_integer_value(                                     \
                     json_object_get(json_array_get(cases, item), "steps"));              \
                 steps; steps = 0)

static bool is_flow(const char *name)
{
    return !strncmp(name, "sana", 4) || !strncmp(name, "flow", 4);
}

static void test_dpmsolver__timesteps_are_diffusers(void **state)
{
    (void)state;
    FOR_EACH_CASE(i, name, steps)
    {
        const mp_tensor t = golden(name, "timesteps");
        mp_dpmsolver *s = start(name, steps);
        assert_int_equal(mp_dpmsolver_count(s), t.dim[0]);
        for (int k = 0; k < mp_dpmsolver_count(s); k++)
            if (mp_dpmsolver_timestep(s, k) != (double)((int64_t *)t.data)[k])
                fail_msg("%s: timestep %d is %g", name, k, mp_dpmsolver_timestep(s, k));
        mp_dpmsolver_close(s);
    }
    assert_in_range(json_array_size(cases), 40, 100);
}

/* Flow sigmas are computed in double and rounded once: equal.  The others pass through torch's
 * fp32 sqrt, which is wrong in the last bit for one value in seven: 2 ulp of 1.2e-7, and twice that
 * where zero_snr takes two roots. */
static void test_dpmsolver__sigmas_are_diffusers(void **state)
{
    (void)state;
    FOR_EACH_CASE(i, name, steps)
    {
        const mp_tensor t = golden(name, "sigmas");
        mp_dpmsolver *s = start(name, steps);
        assert_int_equal(mp_dpmsolver_count(s) + 1, t.dim[0]);
        for (int k = 0; k <= mp_dpmsolver_count(s); k++) {
            const float want = ((float *)t.data)[k], got = mp_dpmsolver_sigma(s, k);
            const double room = is_flow(name) && !strstr(name, "sigma_min") ? 0
                                : strstr(name, "zero_snr")                  ? 5e-7
                                                                            : 2.5e-7;
            if (fabs((double)got - want) > room * want)
                fail_msg("%s: sigma %d is %.9g, expected %.9g", name, k, got, want);
        }
        mp_dpmsolver_close(s);
    }
}

/* |a - b| against 1 + |b|: samples of these cases are around 1 with flow, up to 1e4 without. */
static double distance(const float *a, const float *b, int64_t n)
{
    double worst = 0;

    for (int64_t i = 0; i < n; i++)
        worst = fmax(worst, fabs((double)a[i] - b[i]) / (1 + fabs((double)b[i])));
    return worst;
}

/* The elementwise part rounds as torch does.  Its scalars come from log and exp, where torch's are
 * off by an ulp in one value of fifteen: with lambda up to 7, h = a difference of two is off by up
 * to 1e-6, of its own size 0.1 to 1, so that a step moves the sample by up to 1e-5.  Where no
 * logarithm is off, all bits are equal: the first five of the flow cases are such. */
static void test_dpmsolver__every_step_is_diffusers(void **state)
{
    const mp_tensor sample = golden("sample", ""), outputs = golden("model_outputs", "");
    const int64_t n = mp_numel(sample);
    float x[64];

    (void)state;
    assert_in_range(n, 1, 64);
    FOR_EACH_CASE(i, name, steps)
    {
        mp_dpmsolver *s;
        mp_generator g;
        mp_error err = {0};
        if (json_object_get(json_array_get(cases, i), "error"))
            continue;
        const mp_tensor want = golden(name, "samples");
        const bool exact = !strcmp(name, "sana_1") || !strcmp(name, "sana_2") ||
                           !strcmp(name, "sana_4") || !strcmp(name, "sana_6");
        s = start(name, steps);
        mp_generator_seed(&g, 11);
        memcpy(x, sample.data, (size_t)n * sizeof *x);
        for (int k = 0; k < mp_dpmsolver_count(s); k++) {
            mp_dpmsolver_step(s, k, (float *)outputs.data + k * n, x, &g, &err);
            assert_ok(&err);
            const double d = distance(x, (float *)want.data + k * n, n);
            if (!(d <= (exact ? 0 : 1e-5)))
                fail_msg("%s: %g away after step %d", name, d, k);
        }
        mp_dpmsolver_close(s);
    }
}

static void test_dpmsolver__a_repeated_timestep_fails_as_in_diffusers(void **state)
{
    const mp_tensor sample = golden("sample", "");
    float x[64] = {0};
    int failed = 0;

    (void)state;
    FOR_EACH_CASE(i, name, steps)
    {
        mp_error err = {0};
        if (!json_object_get(json_array_get(cases, i), "error"))
            continue;
        mp_dpmsolver *s = start(name, steps);
        for (int k = 0; k < mp_dpmsolver_count(s); k++)
            mp_dpmsolver_step(s, k, sample.data, x, NULL, &err);
        assert_error(&err, MP_EUNSUPPORTED, "steps repeat the timestep", "use fewer steps");
        mp_dpmsolver_close(s);
        failed++;
    }
    assert_in_range(failed, 1, 5);
}

static void test_dpmsolver__starting_again_forgets_the_history(void **state)
{
    const mp_tensor sample = golden("sample", ""), outputs = golden("model_outputs", "");
    const int64_t n = mp_numel(sample);
    mp_dpmsolver *s = start("sana_6", 6);
    mp_error err = {0};
    float first[64], second[64];

    (void)state;
    memcpy(first, sample.data, (size_t)n * sizeof *first);
    memcpy(second, sample.data, (size_t)n * sizeof *second);
    for (int k = 0; k < 3; k++)
        mp_dpmsolver_step(s, k, (float *)outputs.data + k * n, first, NULL, &err);
    mp_dpmsolver_start(s, 6, n, &err);
    for (int k = 0; k < 3; k++)
        mp_dpmsolver_step(s, k, (float *)outputs.data + k * n, second, NULL, &err);
    assert_ok(&err);
    assert_memory_equal(first, second, (size_t)n * sizeof *first);
    mp_dpmsolver_close(s);
}

static const struct {
    const char *config;
    mp_code code;
    const char *says;
} refused[] = {
    {"{\"_class_name\": \"EulerDiscreteScheduler\"}", MP_EUNSUPPORTED,
     "\"_class_name\": found \"EulerDiscreteScheduler\", supported are: DPMSolverMultistep"},
    {"{\"solver_order\": 4}", MP_EFORMAT, "\"solver_order\": expected an integer in 1..3, found 4"},
    {"{\"algorithm_type\": \"ddim\"}", MP_EUNSUPPORTED,
     "found \"ddim\", supported are: dpmsolver++, dpmsolver, sde-dpmsolver++, sde-dpmsolver, deis"},
    {"{\"solver_type\": \"x\"}", MP_EUNSUPPORTED, "supported are: midpoint, heun"},
    {"{\"prediction_type\": \"x\"}", MP_EUNSUPPORTED, "\"prediction_type\": found \"x\""},
    {"{\"beta_schedule\": \"sigmoid\"}", MP_EUNSUPPORTED, "\"beta_schedule\": found \"sigmoid\""},
    {"{\"timestep_spacing\": \"x\"}", MP_EUNSUPPORTED, "linspace, leading, trailing"},
    {"{\"final_sigmas_type\": \"x\"}", MP_EUNSUPPORTED, "supported are: zero, sigma_min"},
    {"{\"use_beta_sigmas\": true}", MP_EUNSUPPORTED, "\"use_beta_sigmas\" is not supported"},
    {"{\"use_karras_sigmas\": true, \"use_exponential_sigmas\": true}", MP_EFORMAT, "only one of"},
    {"{\"trained_betas\": [0.1]}", MP_EUNSUPPORTED, "\"trained_betas\" is not supported"},
    {"{\"variance_type\": \"learned\"}", MP_EUNSUPPORTED, "\"variance_type\" is not supported"},
    {"{\"algorithm_type\": \"dpmsolver\"}", MP_EFORMAT, "expected \"sigma_min\""},
    {"{\"algorithm_type\": \"dpmsolver\", \"final_sigmas_type\": \"sigma_min\","
     " \"prediction_type\": \"flow_prediction\"}",
     MP_EFORMAT, "needs an \"algorithm_type\" with ++"},
    {"{\"algorithm_type\": \"sde-dpmsolver\", \"final_sigmas_type\": \"sigma_min\","
     " \"solver_order\": 3}",
     MP_EUNSUPPORTED, "is not defined for \"sde-dpmsolver\""},
    {"{\"flow_shift\": 0}", MP_EFORMAT, "\"flow_shift\": expected a number above 0, found 0"},
    {"{\"beta_start\": NaN}", MP_EFORMAT, "expected 0 < start <= end < 1"},
    {"{\"num_train_timesteps\": 1}", MP_EFORMAT, "an integer in 2..1000000, found 1"},
    {"{\"dynamic_thresholding_ratio\": 2}", MP_EFORMAT, "expected 0..1, found 2"},
};

static void test_dpmsolver__refuses_what_it_does_not_do_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        mp_error err = {0};
        mp_dpmsolver *s;
        scratch_text("scheduler_config.json", refused[i].config);
        mp_dpmsolver_open(scratch_dir, &s, &err);
        assert_null(s);
        assert_error(&err, refused[i].code, "scheduler_config.json: ", refused[i].says);
    }
}

static void test_dpmsolver__takes_any_number_of_steps(void **state)
{
    static const int counts[] = {1, 2, 3, 13, 14, 15, 16, 333, 1000};
    static const char *const configs[] = {
        "{\"use_flow_sigmas\": true, \"prediction_type\": \"flow_prediction\"}",
        "{\"timestep_spacing\": \"trailing\"}",
        "{\"timestep_spacing\": \"leading\", \"steps_offset\": 1}", "{\"lambda_min_clipped\": 100}",
        "{\"use_lu_lambdas\": true, \"num_train_timesteps\": 2}"};
    float x[1] = {1}, output[1] = {0.5f};

    (void)state;
    for (size_t c = 0; c < sizeof configs / sizeof *configs; c++) {
        mp_error err = {0};
        mp_dpmsolver *s;
        scratch_text("scheduler_config.json", configs[c]);
        mp_dpmsolver_open(scratch_dir, &s, &err);
        assert_ok(&err);
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            mp_dpmsolver_start(s, counts[i], 1, &err);
            assert_ok(&err);
            assert_in_range(mp_dpmsolver_count(s), 1, counts[i] + 1);
            mp_error repeated = {0};
            for (int k = 0; !repeated.code && k < mp_dpmsolver_count(s); k++)
                mp_dpmsolver_step(s, k, output, x, NULL, &repeated);
        }
        mp_dpmsolver_start(s, 0, 1, &err);
        assert_error(&err, MP_EUSAGE, "0 steps, expected 1..1000000");
        mp_dpmsolver_close(s);
    }
}

static void test_dpmsolver__says_when_no_timestep_is_left(void **state)
{
    mp_error err = {0};
    mp_dpmsolver *s;

    (void)state;
    scratch_text("scheduler_config.json",
                 "{\"timestep_spacing\": \"trailing\", \"lambda_min_clipped\": 100}");
    mp_dpmsolver_open(scratch_dir, &s, &err);
    assert_ok(&err);
    mp_dpmsolver_start(s, 4, 1, &err);
    assert_error(&err, MP_EFORMAT, "\"lambda_min_clipped\" leaves no timestep");
    mp_dpmsolver_close(s);
}

static void test_dpmsolver__reports_short_memory_at_every_request(void **state)
{
    int failures = 0;

    (void)state;
    scratch_text("scheduler_config.json", "{\"use_karras_sigmas\": true, \"thresholding\": true}");
    for (uint64_t n = 1;; n++) {
        mp_error err = {0};
        mp_dpmsolver *s = NULL;
        mp_memory_fail_at(n);
        if (!mp_dpmsolver_open(scratch_dir, &s, &err))
            mp_dpmsolver_start(s, 4, 8, &err);
        mp_memory_fail_at(0);
        mp_dpmsolver_close(s);
        if (!err.code)
            break;
        assert_error(&err, MP_ENOMEM, "memory");
        failures++;
    }
    assert_in_range(failures, 8, 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dpmsolver__timesteps_are_diffusers),
        cmocka_unit_test(test_dpmsolver__sigmas_are_diffusers),
        cmocka_unit_test(test_dpmsolver__every_step_is_diffusers),
        cmocka_unit_test(test_dpmsolver__a_repeated_timestep_fails_as_in_diffusers),
        cmocka_unit_test(test_dpmsolver__starting_again_forgets_the_history),
        cmocka_unit_test(test_dpmsolver__refuses_what_it_does_not_do_by_name),
        cmocka_unit_test(test_dpmsolver__takes_any_number_of_steps),
        cmocka_unit_test(test_dpmsolver__says_when_no_timestep_is_left),
        cmocka_unit_test(test_dpmsolver__reports_short_memory_at_every_request),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
