/* What a pipeline reads of a request, and the list of pipelines. */
#include "tests/pipelines/scratch.h"

#include <sys/stat.h>

#include "pipelines/common/pipeline.h"

static const mp_component_dtype components[] = {{"vae", MP_F32}, {"text_encoder", MP_F16}};
static const mp_component_dtype storage[] = {{"transformer", MP_F8_E4M3}};
static const char *const quirks[] = {"a-quirk", NULL};

static mp_request request(void)
{
    return (mp_request){.checkpoint = scratch_dir,
                        .precision = {.dtype = MP_BF16,
                                      .components = components,
                                      .component_count = 2,
                                      .storage = storage,
                                      .storage_count = 1,
                                      .load_to = true},
                        .quirks = quirks};
}

static void test_request__component_dtypes_win_over_the_default(void **state)
{
    const mp_request r = request();

    (void)state;
    assert_int_equal(mp_request_dtype(&r, "vae"), MP_F32);
    assert_int_equal(mp_request_dtype(&r, "transformer"), MP_BF16);
}

static void test_request__fills_the_options_of_weights(void **state)
{
    const mp_request r = request();
    const mp_weights_options t = mp_request_weights(&r, "transformer", "diffusion_pytorch_model");
    const mp_weights_options v = mp_request_weights(&r, "vae", "diffusion_pytorch_model");

    (void)state;
    assert_string_equal(t.component, "transformer");
    assert_string_equal(t.stem, "diffusion_pytorch_model");
    assert_int_equal(t.dtype, MP_BF16);
    assert_int_equal(t.storage, MP_F8_E4M3);
    assert_true(t.round_trip_fp32);
    assert_int_equal(v.dtype, MP_F32);
    assert_int_equal(v.storage, MP_DTYPE_COUNT);
}

static void test_request__finds_inputs_and_quirks_by_name(void **state)
{
    static const mp_input_field fields[] = {{.name = "seed"}, {.name = "height"}};
    const mp_input inputs[] = {{.field = &fields[0], .number = 7}, {.field = &fields[1]}};
    mp_request r = request();

    (void)state;
    r.inputs = inputs;
    r.input_count = 2;
    assert_true(mp_request_input(&r, "seed")->number == 7);
    assert_ptr_equal(mp_request_input(&r, "height"), &inputs[1]);
    assert_true(mp_request_quirk(&r, "a-quirk"));
    assert_false(mp_request_quirk(&r, "a-quir"));
    r.quirks = NULL;
    assert_false(mp_request_quirk(&r, "a-quirk"));
}

/* As Diffusers does: a component without the variant loads its plain weights, unless none has it.
 */
static void test_request__a_component_may_lack_the_variant_of_the_others(void **state)
{
    mp_request r = request();

    (void)state;
    r.variant = "fp16";
    assert_int_equal(mkdir(scratch("vae"), 0700), 0);
    assert_int_equal(mkdir(scratch("transformer"), 0700), 0);
    scratch_text("vae/model.safetensors", "");
    scratch_text("transformer/model.bf16.safetensors", "");
    assert_string_equal(mp_request_weights(&r, "vae", "model").variant, "fp16");
    scratch_text("transformer/model.fp16.safetensors", "");
    assert_null(mp_request_weights(&r, "vae", "model").variant);
    assert_string_equal(mp_request_weights(&r, "transformer", "model").variant, "fp16");
    r.variant = NULL;
    assert_null(mp_request_weights(&r, "transformer", "model").variant);
}

static void test_pipelines__are_found_by_name(void **state)
{
    int n = 0;

    (void)state;
    for (const mp_pipeline_def *const *p = mp_pipelines(); *p; p++, n++) {
        assert_ptr_equal(mp_pipeline_find((*p)->name), *p);
        assert_non_null((*p)->check);
        if ((*p)->open)
            assert_true((*p)->generate && (*p)->weights && (*p)->close);
    }
    assert_in_range(n, 1, 100);
    assert_non_null(mp_pipeline_find("sana"));
    assert_null(mp_pipeline_find("san"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_request__component_dtypes_win_over_the_default),
        cmocka_unit_test(test_request__fills_the_options_of_weights),
        cmocka_unit_test(test_request__finds_inputs_and_quirks_by_name),
        cmocka_unit_test(test_request__a_component_may_lack_the_variant_of_the_others),
        cmocka_unit_test(test_pipelines__are_found_by_name),
    };

    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
