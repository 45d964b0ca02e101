/* FlowMatchEulerDiscreteScheduler.  Goldens: tests/fixtures/flow_match_euler.py (Diffusers 0.42.1).
 */
#include "tests/pipelines/scratch.h"

#include <math.h>

#include <jansson.h>

#include "kernels/device.h"
#include "kernels/ops.h"
#include "pipelines/common/flow_match_euler.h"
#include "tests/support/mp_test.h"

#define GOLDENS "goldens/flow_match_euler/"

static mp_safetensors *goldens;
static json_t *cases;

static int setup(void **state)
{
    cases = json_load_file(MP_FIXTURES "/" GOLDENS "cases.json", 0, NULL);
    if (!cases)
        return -1;
    goldens = mp_test_goldens(GOLDENS "goldens.safetensors");
    return scratch_setup(state);
}

static int teardown(void **state)
{
    json_decref(cases);
    mp_safetensors_close(goldens);
    return scratch_teardown(state);
}

static const json_t *case_of(const char *name, int steps)
{
    size_t i;
    json_t *item;

    json_array_foreach (cases, i, item)
        if (!strcmp(json_string_value(json_object_get(item, "name")), name) &&
            json_integer_value(json_object_get(item, "steps")) == steps)
            return item;
    fail_msg("no case %s with %d steps", name, steps);
    return NULL;
}

static mp_flow_match_euler *open_case(const char *name)
{
    char dir[512];
    mp_error err = {0};
    mp_flow_match_euler *s;

    snprintf(dir, sizeof dir, MP_FIXTURES "/" GOLDENS "%s", name);
    mp_flow_match_euler_open(dir, &s, &err);
    assert_ok(&err);
    return s;
}

static mp_flow_match_euler *start(const char *name, int steps)
{
    const json_t *const mu = json_object_get(case_of(name, steps), "mu");
    const double value = json_number_value(mu);
    mp_error err = {0};
    mp_flow_match_euler *const s = open_case(name);

    mp_flow_match_euler_start(s, steps, json_is_null(mu) ? NULL : &value, &err);
    assert_ok(&err);
    return s;
}

/* Computed in double and rounded once, as Diffusers does: equal bits.  Where pow, exp or scipy's
 * quantile come in, another libm may be an ulp of double away, which shows in fp32 once in 2^28. */
static void test_flow_match_euler__tables_are_diffusers_to_the_bit(void **state)
{
    size_t i;
    json_t *item;
    int compared = 0;

    (void)state;
    json_array_foreach (cases, i, item) {
        const char *const name = json_string_value(json_object_get(item, "name"));
        const int steps = (int)json_integer_value(json_object_get(item, "steps"));
        const mp_tensor sigmas = mp_test_golden(goldens, "%s.%d.sigmas", name, steps);
        const mp_tensor timesteps = mp_test_golden(goldens, "%s.%d.timesteps", name, steps);
        mp_flow_match_euler *const s = start(name, steps);
        assert_int_equal(mp_flow_match_euler_count(s), timesteps.dim[0]);
        assert_int_equal(mp_flow_match_euler_count(s) + 1, sigmas.dim[0]);
        for (int k = 0; k <= steps; k++, compared++) {
            const float sigma = ((float *)sigmas.data)[k], got = mp_flow_match_euler_sigma(s, k);
            if (got != sigma)
                fail_msg("%s: sigma %d of %d is %.9g, expected %.9g", name, k, steps, got, sigma);
            const float t = k < steps ? ((float *)timesteps.data)[k] : 0;
            if (k < steps && mp_flow_match_euler_timestep(s, k) != t)
                fail_msg("%s: timestep %d of %d is %.9g, expected %.9g", name, k, steps,
                         mp_flow_match_euler_timestep(s, k), t);
        }
        mp_flow_match_euler_close(s);
    }
    assert_in_range(compared, 700, 5000);
}

static const struct {
    const char *name;
    int steps;
} stepped[] = {{"sd3", 1},     {"sd3", 4},      {"sd3", 7},
               {"dynamic", 6}, {"inverted", 6}, {"stochastic", 4}};

static const struct {
    const char *name;
    mp_dtype dtype;
} dtypes[] = {{"fp32", MP_F32}, {"fp16", MP_F16}, {"bf16", MP_BF16}};

/* Every operation rounds where torch's does, and the noise of "stochastic" is torch's: equal bits.
 */
static void test_flow_match_euler__every_step_is_diffusers_to_the_bit(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof stepped / sizeof *stepped; i++)
        for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++) {
            const mp_tensor want = mp_test_golden(goldens, "%s.%d.%s", stepped[i].name,
                                                  stepped[i].steps, dtypes[d].name);
            mp_ctx *const c = mp_test_ctx(NULL, 2);
            const mp_dtype dtype = dtypes[d].dtype;
            mp_tensor x = mp_cast(c, mp_test_tensor(c, goldens, "sample"), dtype);
            const mp_tensor outputs = mp_cast(c, mp_test_tensor(c, goldens, "outputs"), dtype);
            mp_flow_match_euler *const s = start(stepped[i].name, stepped[i].steps);
            mp_generator g;
            mp_generator_seed(&g, 11);
            for (int k = 0; k < stepped[i].steps; k++) {
                const mp_tensor v = mp_reshape(mp_batch(outputs, k, 1), 4, x.dim);
                x = mp_flow_match_euler_step(c, s, k, v, x, &g);
                mp_test_ok(c);
                mp_test_same(x, mp_reshape(mp_batch(want, k, 1), 4, x.dim));
            }
            mp_flow_match_euler_close(s);
            mp_device_close(c);
        }
}

static void test_flow_match_euler__a_step_returns_the_dtype_of_the_models_output(void **state)
{
    static const struct {
        mp_dtype sample, output;
        const char *name;
    } pairs[] = {{MP_F32, MP_BF16, "mixed.fp32.bf16"},
                 {MP_BF16, MP_F32, "mixed.bf16.fp32"},
                 {MP_F16, MP_BF16, "mixed.fp16.bf16"}};

    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        mp_ctx *const c = mp_test_ctx(NULL, 1);
        mp_flow_match_euler *const s = start("sd3", 4);
        const mp_tensor x = mp_cast(c, mp_test_tensor(c, goldens, "sample"), pairs[i].sample);
        const mp_tensor outputs =
            mp_cast(c, mp_test_tensor(c, goldens, "outputs"), pairs[i].output);
        const mp_tensor v = mp_reshape(mp_batch(outputs, 0, 1), 4, x.dim);
        const mp_tensor y = mp_flow_match_euler_step(c, s, 0, v, x, NULL);
        mp_test_ok(c);
        mp_test_same(y, mp_test_golden(goldens, "%s", pairs[i].name));
        mp_flow_match_euler_close(s);
        mp_device_close(c);
    }
}

static void test_flow_match_euler__a_repeated_timestep_fails_as_in_diffusers(void **state)
{
    mp_ctx *const c = mp_test_ctx(NULL, 1);
    mp_flow_match_euler *const s = start("repeated", 7);
    mp_tensor x = mp_test_tensor(c, goldens, "sample");

    (void)state;
    for (int k = 0; k < 7; k++)
        x = mp_flow_match_euler_step(c, s, k, x, x, NULL);
    mp_test_fails(c, MP_EUNSUPPORTED, "steps repeat the timestep 1000");
    mp_flow_match_euler_close(s);
    mp_device_close(c);
}

static void test_flow_match_euler__refuses_a_sample_of_another_shape(void **state)
{
    mp_ctx *const c = mp_test_ctx(NULL, 1);
    mp_flow_match_euler *const s = start("sd3", 4);
    const mp_tensor x = mp_test_tensor(c, goldens, "sample");

    (void)state;
    mp_flow_match_euler_step(c, s, 0, mp_batch(x, 0, 1), x, NULL);
    mp_test_fails(c, MP_ESHAPE, "differ in shape");
    mp_flow_match_euler_close(s);
    mp_device_close(c);
}

/* calculate_shift in Python: mu(256) = 0.5, mu(4096) = 1.15, mu(1024) = 0.63. */
static void test_flow_match_euler__mu_grows_with_the_picture(void **state)
{
    mp_error err = {0};
    mp_flow_match_euler *const s = open_case("dynamic"), *const fixed = open_case("sd3");

    (void)state;
    assert_true(mp_flow_match_euler_is_dynamic(s));
    assert_false(mp_flow_match_euler_is_dynamic(fixed));
    assert_true(fabs(mp_flow_match_euler_mu(s, 256) - 0.5) < 1e-15);
    assert_true(fabs(mp_flow_match_euler_mu(s, 4096) - 1.15) < 1e-15);
    assert_true(fabs(mp_flow_match_euler_mu(s, 1024) - 0.63) < 1e-15);
    mp_flow_match_euler_start(s, 4, NULL, &err);
    assert_error(&err, MP_EUSAGE, "`mu` must be passed", "scheduler_config.json");
    mp_flow_match_euler_close(s);
    mp_flow_match_euler_close(fixed);
}

static const struct {
    const char *config;
    mp_code code;
    const char *says;
} refused[] = {
    {"{\"_class_name\": \"EulerDiscreteScheduler\"}", MP_EUNSUPPORTED,
     "\"_class_name\": found \"EulerDiscreteScheduler\", expected \"FlowMatchEuler"},
    {"{\"new_thing\": 1}", MP_EUNSUPPORTED, "unknown keys: new_thing"},
    {"{\"shift\": 0}", MP_EFORMAT, "\"shift\": expected a number in (0, 1e9], found 0"},
    {"{\"shift\": NaN}", MP_EFORMAT, "\"shift\""},
    {"{\"shift\": \"3\"}", MP_EFORMAT, "\"shift\""},
    {"{\"shift_terminal\": 1}", MP_EFORMAT, "\"shift_terminal\": expected a number in [0, 1)"},
    {"{\"shift_terminal\": -0.1}", MP_EFORMAT, "\"shift_terminal\""},
    {"{\"num_train_timesteps\": 0}", MP_EFORMAT, "an integer in 1..1000000, found 0"},
    {"{\"time_shift_type\": \"x\"}", MP_EFORMAT, "found \"x\", expected exponential or linear"},
    {"{\"use_karras_sigmas\": true, \"use_beta_sigmas\": true}", MP_EFORMAT, "only one of"},
    {"{\"base_image_seq_len\": 4096}", MP_EFORMAT, "are both 4096"},
};

static void test_flow_match_euler__refuses_what_it_does_not_do_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        mp_error err = {0};
        mp_flow_match_euler *s;
        scratch_text("scheduler_config.json", refused[i].config);
        mp_flow_match_euler_open(scratch_dir, &s, &err);
        assert_null(s);
        assert_error(&err, refused[i].code, "scheduler_config.json: ", refused[i].says);
    }
}

static void start_with(const char *config, int steps, const double *mu, mp_error *err)
{
    mp_flow_match_euler *s;
    mp_error opened = {0};

    scratch_text("scheduler_config.json", config);
    mp_flow_match_euler_open(scratch_dir, &s, &opened);
    assert_ok(&opened);
    mp_flow_match_euler_start(s, steps, mu, err);
    if (err->code)
        assert_int_equal(mp_flow_match_euler_count(s), 0);
    mp_flow_match_euler_close(s);
}

static void test_flow_match_euler__refuses_schedules_that_are_not_numbers(void **state)
{
    static const char linear[] =
        "{\"use_dynamic_shifting\": true, \"time_shift_type\": \"linear\"}";
    const double zero = 0, huge = 1e4;
    mp_error none = {0}, many = {0}, stretched = {0}, flat = {0}, over = {0};

    (void)state;
    start_with("{}", 0, NULL, &none);
    assert_error(&none, MP_EUSAGE, "0 steps, expected 1..1000000");
    start_with("{}", 1000001, NULL, &many);
    assert_error(&many, MP_EUSAGE, "1000001 steps");
    /* Diffusers goes on with NaN. */
    start_with("{\"shift_terminal\": 0.1}", 1, NULL, &stretched);
    assert_error(&stretched, MP_EUSAGE, "sigma 0 of 1 steps is ", "\"shift_terminal\"");
    start_with(linear, 2, &zero, &flat);
    assert_error(&flat, MP_EUSAGE, "sigma 0 of 2 steps is ");
    start_with("{\"use_dynamic_shifting\": true}", 2, &huge, &over);
    assert_error(&over, MP_EUSAGE, "sigma 0 of 2 steps is ");
}

static void test_flow_match_euler__takes_any_number_of_steps(void **state)
{
    static const char *const configs[] = {
        "{}", "{\"num_train_timesteps\": 1}", "{\"use_beta_sigmas\": true}",
        "{\"use_karras_sigmas\": true, \"shift\": 1e9}", "{\"use_exponential_sigmas\": true}"};
    static const int counts[] = {1, 2, 3, 1000, 1001, 20000};

    (void)state;
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++)
        for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) {
            mp_error err = {0};
            start_with(configs[i], counts[k], NULL, &err);
            assert_ok(&err);
        }
}

static void test_flow_match_euler__reports_short_memory_at_every_request(void **state)
{
    int failures = 0;

    (void)state;
    scratch_text("scheduler_config.json", "{\"shift\": 3.0}");
    for (uint64_t n = 1;; n++) {
        mp_error err = {0};
        mp_flow_match_euler *s = NULL;
        mp_memory_fail_at(n);
        if (!mp_flow_match_euler_open(scratch_dir, &s, &err))
            mp_flow_match_euler_start(s, 4, NULL, &err);
        mp_memory_fail_at(0);
        mp_flow_match_euler_close(s);
        if (!err.code)
            break;
        assert_error(&err, MP_ENOMEM, "memory");
        failures++;
    }
    assert_in_range(failures, 4, 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flow_match_euler__tables_are_diffusers_to_the_bit),
        cmocka_unit_test(test_flow_match_euler__every_step_is_diffusers_to_the_bit),
        cmocka_unit_test(test_flow_match_euler__a_step_returns_the_dtype_of_the_models_output),
        cmocka_unit_test(test_flow_match_euler__a_repeated_timestep_fails_as_in_diffusers),
        cmocka_unit_test(test_flow_match_euler__refuses_a_sample_of_another_shape),
        cmocka_unit_test(test_flow_match_euler__mu_grows_with_the_picture),
        cmocka_unit_test(test_flow_match_euler__refuses_what_it_does_not_do_by_name),
        cmocka_unit_test(test_flow_match_euler__refuses_schedules_that_are_not_numbers),
        cmocka_unit_test(test_flow_match_euler__takes_any_number_of_steps),
        cmocka_unit_test(test_flow_match_euler__reports_short_memory_at_every_request),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
