/* Whole generations give the same bits with any number of threads and on repeat, for each
 * instruction set and dtype.  The ops alone: *_thread_counts_give_the_same_bits in tests/kernels.
 */
#include "tests/pipelines/pipeline_run.h"

#define TINY_SD3 MP_FIXTURES "/checkpoints/sd3-tiny"

/* How the weights of the denoiser lie in memory, and what everything computes in. */
typedef struct mode {
    const char *name;
    mp_dtype dtype, storage;
} mode;

static const mode modes[] = {
    {"fp32", MP_F32, MP_DTYPE_COUNT},         {"fp16", MP_F16, MP_DTYPE_COUNT},
    {"bf16", MP_BF16, MP_DTYPE_COUNT},        {"fp8_e4m3 in bf16", MP_BF16, MP_F8_E4M3},
    {"fp8_e5m2 in fp16", MP_F16, MP_F8_E5M2},
};

/* Two steps of a picture in tiles, the last ones of which are smaller. */
static void init(cell *k, const char *pipeline, const char *checkpoint)
{
    const mp_pipeline_def *const p = mp_pipeline_find(pipeline);

    assert_non_null(p);
    cell_defaults(k, p, checkpoint);
    cell_text(k, "prompt", "a photo of a red fox");
    cell_number(k, "height", 64);
    cell_number(k, "width", 96);
    cell_number(k, "num_inference_steps", 2);
    cell_number(k, "max_sequence_length", 20);
    cell_number(k, "seed", 7);
    cell_tiles(k, true);
    k->request.offload = true; /* a repeat makes its weights anew */
}

/* Opens once, with weights that leave memory after their stage, and generates `times` times. */
static void run(const cell *k, const char *isa, int threads, int times, trace out[])
{
    const mp_pipeline_def *const p = k->pipeline;
    mp_ctx *const c = mp_test_ctx(isa, threads);
    mp_error err = {0};
    void *pipeline = NULL;

    p->open(c, &k->request, NULL, &pipeline, &err);
    assert_ok(&err);
    for (int i = 0; i < times; i++) {
        out[i] = (trace){0};
        const mp_sink sink = trace_sink(&out[i]);
        p->generate(c, pipeline, &sink, &err);
        assert_ok(&err);
    }
    p->close(pipeline);
    mp_device_close(c);
}

static void check_threads(const cell *k, const char *isa, const char *name)
{
    trace one[2], many;
    char what[96];

    run(k, isa, 1, 2, one);
    snprintf(what, sizeof what, "%s on %s, repeated", name, isa);
    trace_same(&one[1], &one[0], what);
    for (int threads = 2; threads <= 3; threads++) {
        run(k, isa, threads, 1, &many);
        snprintf(what, sizeof what, "%s on %s, %d threads", name, isa, threads);
        trace_same(&many, &one[0], what);
        trace_free(&many);
    }
    trace_free(&one[0]);
    trace_free(&one[1]);
}

static void check_all(cell *k)
{
    for (const char *const *isa = mp_test_isas(); *isa; isa++)
        for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
            const mp_component_dtype storage = {"transformer", modes[i].storage};
            cell_dtype(k, modes[i].dtype);
            k->request.precision.storage = &storage;
            k->request.precision.storage_count = modes[i].storage != MP_DTYPE_COUNT;
            check_threads(k, *isa, modes[i].name);
        }
}

static void test_determinism__sana_has_the_same_bits_with_any_number_of_threads(void **state)
{
    cell k;
    (void)state;

    init(&k, "sana", TINY);
    cell_number(&k, "use_resolution_binning", 0);
    cell_input(&k, "complex_human_instruction")->list = NULL;
    check_all(&k);
}

/* Weights that stay, and weights that leave after their stage and are made anew. */
static void test_determinism__offload_changes_no_bit_and_keeps_nothing(void **state)
{
    const mp_pipeline_def *const p = mp_pipeline_find("sd3");
    mp_error err = {0};
    void *pipeline = NULL;
    trace stay, left[2];
    cell k;
    (void)state;

    init(&k, "sd3", TINY_SD3);
    k.request.tiling = (mp_tiling){0};
    cell_dtype(&k, MP_BF16);
    k.request.offload = false;
    run(&k, NULL, 1, 1, &stay);
    k.request.offload = true;
    run(&k, NULL, 1, 2, left);
    for (int i = 0; i < 2; i++) {
        trace_same(&left[i], &stay, "offload");
        /* All is converted here, before the stage that uses it. */
        assert_string_equal(left[i].stages, "+load -load +text_encode -text_encode +load -load "
                                            "+denoise -denoise +load -load +decode -decode");
        trace_free(&left[i]);
    }
    trace_free(&stay);

    mp_ctx *const c = mp_test_ctx(NULL, 1);
    p->open(c, &k.request, NULL, &pipeline, &err);
    p->generate(c, pipeline, NULL, &err);
    assert_ok(&err);
    for (int i = 0; p->components[i]; i++) {
        const mp_weights *const w = p->weights(pipeline, i);
        assert_true(mp_weights_need_load(w));
        assert_int_equal(mp_weights_resident(w), 0);
    }
    p->close(pipeline);
    mp_device_close(c);
}

static void test_determinism__sd3_has_the_same_bits_with_any_number_of_threads(void **state)
{
    cell k;
    (void)state;

    init(&k, "sd3", TINY_SD3);
    k.request.tiling = (mp_tiling){true, 32, 32, 24, 24};
    check_all(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_determinism__offload_changes_no_bit_and_keeps_nothing),
        cmocka_unit_test(test_determinism__sana_has_the_same_bits_with_any_number_of_threads),
        cmocka_unit_test(test_determinism__sd3_has_the_same_bits_with_any_number_of_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
