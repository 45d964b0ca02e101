/* What the pipeline says of checkpoints and calls that cannot work, and of memory that runs out. */
#include "tests/pipelines/pipeline_run.h"

#define VARIANTS    MP_FIXTURES "/goldens/sana/variants/"
#define SHARDED     MP_FIXTURES "/checkpoints/sana-sharded/transformer"
#define WEIGHTS     "diffusion_pytorch_model.safetensors"
#define SHARD(n)    "diffusion_pytorch_model-0000" #n "-of-00003.safetensors"
#define SHARD_INDEX "diffusion_pytorch_model.safetensors.index.json"

static mp_ctx *ctx;

static int setup(void **state)
{
    ctx = mp_test_ctx(NULL, 1);
    return scratch_setup(state);
}

static int teardown(void **state)
{
    mp_device_close(ctx);
    return scratch_teardown(state);
}

/* ---- checkpoints ----------------------------------------------------------------------------- */

enum { LATE, EARLY }; /* seen by open only; by check as well, before a run is planned */

static void refused(const cell *k, int when, mp_code code, const char *const *parts)
{
    const mp_pipeline_def *const p = sana();
    void *pipeline = NULL;
    mp_error err = {0}, early = {0};

    p->check(&k->request, &early);
    if (when == EARLY)
        assert_failure(&early, code, parts);
    else
        assert_ok(&early);
    p->open(ctx, &k->request, NULL, &pipeline, &err);
    assert_failure(&err, code, parts);
    assert_null(pipeline);
    assert_int_equal(mp_pool_get(ctx).live, 0);
    assert_false(mp_failed(ctx));
}
#define assert_refused(k, when, code, ...) \
    refused(k, when, code, (const char *const[]){__VA_ARGS__, NULL})

/* As checkpoint_make, and a cell for it. */
static const char *broken(cell *k, const char *name)
{
    const char *const dir = checkpoint_make(name);
    static char kept[512]; /* scratch's own buffer is soon another path */

    snprintf(kept, sizeof kept, "%s", dir);
    cell_init(k, kept);
    return kept;
}

static void test_sana_failures__a_folder_that_is_not_there(void **state)
{
    cell k;
    (void)state;

    cell_init(&k, scratch("nowhere"));
    assert_refused(&k, EARLY, MP_EMISSING, "nowhere", "no such folder");
}

static void test_sana_failures__a_folder_that_is_no_checkpoint(void **state)
{
    cell k;
    (void)state;

    const char *const dir = broken(&k, "no-index");
    checkpoint_remove(dir, "model_index.json");
    assert_refused(&k, EARLY, MP_EMISSING, "no-index/model_index.json");
}

static void test_sana_failures__a_checkpoint_of_another_pipeline(void **state)
{
    cell k;
    (void)state;

    const char *const dir = broken(&k, "other");
    checkpoint_remove(dir, "model_index.json");
    checkpoint_edit(dir, "model_index.json", TINY "/model_index.json", "\"SanaPipeline\"",
                    "\"FluxPipeline\"");
    assert_refused(&k, EARLY, MP_EUNSUPPORTED, "other/model_index.json", "\"FluxPipeline\"",
                   "SanaPipeline");
}

static void test_sana_failures__an_autoencoder_of_another_class(void **state)
{
    cell k;
    (void)state;

    const char *const dir = broken(&k, "kl");
    checkpoint_remove(dir, "model_index.json");
    checkpoint_edit(dir, "model_index.json", TINY "/model_index.json", "\"AutoencoderDC\"",
                    "\"AutoencoderKL\"");
    assert_refused(&k, EARLY, MP_EUNSUPPORTED, "kl/model_index.json", "\"vae\"", "AutoencoderKL",
                   "AutoencoderDC");
}

static void test_sana_failures__a_component_that_is_not_there(void **state)
{
    static const struct {
        const char *name, *part;
        int when;
    } cases[] = {{"no-transformer", "transformer", EARLY},
                 {"no-vae", "vae", EARLY},
                 {"no-text", "text_encoder", EARLY},
                 {"no-scheduler", "scheduler", EARLY},
                 {"no-tokenizer", "tokenizer", LATE}};
    char expected[64];
    cell k;
    (void)state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        checkpoint_remove(broken(&k, cases[i].name), cases[i].part);
        snprintf(expected, sizeof expected, "%s/%s", cases[i].name, cases[i].part);
        assert_refused(&k, cases[i].when, MP_EMISSING, expected);
    }
}

/* Three layers are said, the file has two: each missing parameter is listed. */
static void test_sana_failures__a_configuration_that_does_not_fit_the_weights(void **state)
{
    static const char *const files[] = {WEIGHTS, NULL};
    cell k;
    (void)state;

    const char *const dir = broken(&k, "misfit");
    checkpoint_own(dir, "transformer", TINY "/transformer", files);
    checkpoint_edit(dir, "transformer/config.json", TINY "/transformer/config.json",
                    "\"num_layers\": 2", "\"num_layers\": 3");
    assert_refused(&k, LATE, MP_EMISSING, "misfit/transformer", "transformer_blocks.2.attn1.to_q");
}

static void test_sana_failures__a_configuration_that_is_no_json(void **state)
{
    static const char *const files[] = {WEIGHTS, NULL};
    cell k;
    (void)state;

    const char *const dir = broken(&k, "cut-json");
    checkpoint_own(dir, "vae", TINY "/vae", files);
    checkpoint_cut(dir, "vae/config.json", TINY "/vae/config.json", 100);
    assert_refused(&k, EARLY, MP_EFORMAT, "cut-json/vae/config.json", "line");
}

/* Cut in the data, in the header, and to nothing. */
static void test_sana_failures__a_file_that_is_cut(void **state)
{
    static const char *const files[] = {"config.json", NULL};
    static const struct {
        const char *name;
        long length;
    } cases[] = {{"cut-data", 150000}, {"cut-header", 500}, {"cut-all", 0}};
    cell k;
    (void)state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *const dir = broken(&k, cases[i].name);
        checkpoint_own(dir, "vae", TINY "/vae", files);
        checkpoint_cut(dir, "vae/" WEIGHTS, TINY "/vae/" WEIGHTS, cases[i].length);
        assert_refused(&k, EARLY, MP_EFORMAT, "/vae/" WEIGHTS, cases[i].name, "fetch it again");
    }
}

static void test_sana_failures__a_shard_that_is_cut(void **state)
{
    static const char *const files[] = {"config.json", SHARD(1), SHARD(3), SHARD_INDEX, NULL};
    cell k;
    (void)state;

    const char *const dir = broken(&k, "cut-shard");
    checkpoint_own(dir, "transformer", SHARDED, files);
    checkpoint_cut(dir, "transformer/" SHARD(2), SHARDED "/" SHARD(2), 100000);
    assert_refused(&k, EARLY, MP_EFORMAT, "cut-shard/transformer/" SHARD(2), "fetch it again");
}

static void test_sana_failures__a_shard_that_is_not_there(void **state)
{
    static const char *const files[] = {"config.json", SHARD(1), SHARD(3), SHARD_INDEX, NULL};
    cell k;
    (void)state;

    const char *const dir = broken(&k, "lost-shard");
    checkpoint_own(dir, "transformer", SHARDED, files);
    assert_refused(&k, EARLY, MP_EMISSING, "lost-shard/transformer/" SHARD_INDEX, SHARD(2),
                   "1 of its 3 files", "fetch");
}

static void test_sana_failures__a_variant_that_no_component_has(void **state)
{
    cell k;
    (void)state;

    cell_init(&k, TINY);
    k.request.variant = "bf16";
    assert_refused(&k, EARLY, MP_EMISSING, "variant \"bf16\"", "text_encoder");
}

/* Parts that are sound each by itself, and do not belong together. */
static void test_sana_failures__parts_of_different_models(void **state)
{
    static const struct {
        const char *name, *part, *variant;
        mp_code code;
        const char *says, *and;
    } cases[] = {
        {"sprint", "transformer", "transformer_guidance", MP_EUNSUPPORTED, "\"guidance_embeds\"",
         "Sana Sprint"},
        {"captions", "transformer", "transformer_positions", MP_EFORMAT,
         "captions of 12 channels (caption_channels)", "40 (hidden_size)"},
        {"latents", "vae", "vae_plain", MP_EFORMAT, "latents of 8 channels (in_channels)",
         "4 (latent_channels)"},
    };
    char from[512];
    cell k;
    (void)state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(from, sizeof from, VARIANTS "%s", cases[i].variant);
        checkpoint_link(broken(&k, cases[i].name), cases[i].part, from);
        assert_refused(&k, EARLY, cases[i].code, cases[i].name, cases[i].says, cases[i].and);
    }
}

/* ---- calls ----------------------------------------------------------------------------------- */

static void test_sana_failures__a_size_that_diffusers_refuses(void **state)
{
    cell k;
    (void)state;

    cell_init(&k, TINY);
    cell_number(&k, "height", 65);
    /* check_inputs' own words, and the next size that works */
    assert_refused(&k, EARLY, MP_EUSAGE,
                   "`height` and `width` have to be divisible by 32 but are 65 and 64.",
                   "Use 96 and 64");
}

static void test_sana_failures__bins_that_the_model_has_not(void **state)
{
    static const char *const files[] = {WEIGHTS, NULL};
    cell k;
    (void)state;

    const char *const dir = broken(&k, "no-bins");
    checkpoint_own(dir, "transformer", TINY "/transformer", files);
    checkpoint_edit(dir, "transformer/config.json", TINY "/transformer/config.json",
                    "\"sample_size\": 32", "\"sample_size\": 48");
    cell_number(&k, "use_resolution_binning", 1);
    assert_refused(&k, EARLY, MP_EUSAGE, "sample_size 48", "use_resolution_binning: false");
}

static void test_sana_failures__what_the_engine_does_not_do(void **state)
{
    static const char *const quirks[] = {"sana-cubic", NULL};
    cell k;
    (void)state;

    cell_init(&k, TINY);
    cell_number(&k, "clean_caption", 1);
    assert_refused(&k, EARLY, MP_EUNSUPPORTED, "clean_caption", "clean the prompt beforehand");
    cell_init(&k, TINY);
    k.request.quirks = quirks;
    assert_refused(&k, EARLY, MP_EUSAGE, "\"sana-cubic\"", "sana-quadratic-no-upcast");
}

static void test_sana_failures__tiles_that_cannot_be(void **state)
{
    static const mp_tiling cases[] = {
        {true, 2, 32, 2, 28}, /* smaller than a latent pixel */
        {true, 32, 32, 28, 36} /* leaving gaps */,
        {true, 32, 32, 2, 28}, /* advancing by less than a latent pixel */
    };
    cell k;
    (void)state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cell_init(&k, TINY);
        k.request.tiling = cases[i];
        assert_refused(&k, EARLY, MP_EUSAGE, "tiling");
    }
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* The shortest call that passes through everything: guidance, an instruction, tiles, a warning. */
static void short_call(cell *k)
{
    static const char *const instruction[] = {"a photo of a red fox", NULL};

    cell_init(k, TINY);
    cell_dtype(k, MP_BF16);
    cell_tiles(k, true);
    cell_input(k, "complex_human_instruction")->list = instruction;
    cell_text(k, "prompt", "");
    cell_number(k, "max_sequence_length", 4);
    cell_number(k, "num_inference_steps", 2);
    cell_number(k, "height", 32);
}

/* Whatever request for memory fails, it is said, or the result is right all the same (a buffer
 * reserved for a case that did not come).  Nothing leaks (AddressSanitizer) or stays in the pool.
 */
static void test_sana_failures__says_so_wherever_memory_runs_out(void **state)
{
    cell k;
    trace right, t;
    uint64_t n = 0, said = 0;
    bool done = false;
    (void)state;

    short_call(&k);
    assert_ok(cell_run(&k, ctx, &right));
    while (!done) {
        const uint64_t before = mp_memory_requests();
        mp_memory_fail_at(++n);
        cell_run(&k, ctx, &t);
        mp_memory_fail_at(0);
        done = mp_memory_requests() - before < n;
        said += t.err.code != MP_OK;
        if (!t.err.code)
            trace_same(&t, &right, "a request for memory failed and nothing was said");
        else if (t.err.code != MP_ENOMEM)
            fail_msg("request %llu: %s", (unsigned long long)n, t.err.text);
        mp_ctx_clear(ctx);
        assert_int_equal(mp_pool_get(ctx).live, 0);
        trace_free(&t);
    }
    print_message("%llu of %llu failed requests are said\n", (unsigned long long)said,
                  (unsigned long long)n - 1);
    assert_true(said > 100 && said + n / 100 > n - 1); /* all but a few */
    trace_free(&right);
}

/* The limit of activations: refused with the module that asked for too much, until it suffices. */
static void test_sana_failures__says_which_module_exceeds_the_memory_limit(void **state)
{
    cell k;
    trace t;
    int refusals = 0, modules = 0;
    (void)state;

    short_call(&k);
    for (size_t limit = 1 << 12;; limit *= 2) {
        const mp_device_options o = {.threads = 1, .memory_limit = limit};
        mp_error err = {0};
        mp_ctx *c = NULL;
        assert_int_equal(mp_device_open(&o, &c, &err), MP_OK);
        cell_run(&k, c, &t);
        const size_t peak = mp_pool_get(c).peak;
        mp_device_close(c);
        trace_free(&t);
        assert_true(peak <= limit);
        if (!t.err.code)
            break;
        assert_int_equal(t.err.code, MP_ENOMEM);
        assert_non_null(strstr(t.err.text, "no memory for"));
        assert_true(t.err.op[0]);
        modules += t.err.module[0] != '\0'; /* the pipeline's own few ops belong to none */
        refusals++;
        assert_true(limit < 1 << 28);
    }
    assert_true(refusals > 3 && modules > 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sana_failures__a_folder_that_is_not_there),
        cmocka_unit_test(test_sana_failures__a_folder_that_is_no_checkpoint),
        cmocka_unit_test(test_sana_failures__a_checkpoint_of_another_pipeline),
        cmocka_unit_test(test_sana_failures__an_autoencoder_of_another_class),
        cmocka_unit_test(test_sana_failures__a_component_that_is_not_there),
        cmocka_unit_test(test_sana_failures__a_configuration_that_does_not_fit_the_weights),
        cmocka_unit_test(test_sana_failures__a_configuration_that_is_no_json),
        cmocka_unit_test(test_sana_failures__a_file_that_is_cut),
        cmocka_unit_test(test_sana_failures__a_shard_that_is_cut),
        cmocka_unit_test(test_sana_failures__a_shard_that_is_not_there),
        cmocka_unit_test(test_sana_failures__a_variant_that_no_component_has),
        cmocka_unit_test(test_sana_failures__parts_of_different_models),
        cmocka_unit_test(test_sana_failures__a_size_that_diffusers_refuses),
        cmocka_unit_test(test_sana_failures__bins_that_the_model_has_not),
        cmocka_unit_test(test_sana_failures__what_the_engine_does_not_do),
        cmocka_unit_test(test_sana_failures__tiles_that_cannot_be),
        cmocka_unit_test(test_sana_failures__says_so_wherever_memory_runs_out),
        cmocka_unit_test(test_sana_failures__says_which_module_exceeds_the_memory_limit),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
