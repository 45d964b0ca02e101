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
}

/* Opens once and generates `times` times. */
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
        cmocka_unit_test(test_determinism__sana_has_the_same_bits_with_any_number_of_threads),
        cmocka_unit_test(test_determinism__sd3_has_the_same_bits_with_any_number_of_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
