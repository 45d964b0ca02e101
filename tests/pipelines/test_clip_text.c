/* Both CLIP text encoders of sd3-tiny against transformers 5.23 and torch 2.15 on the CPU
 * (goldens/sd3/clip, tests/fixtures/make_sd3_clip.py), and what is said of checkpoints and calls
 * that cannot work. */
#include "tests/pipelines/scratch.h"

#include <jansson.h>

#include "kernels/device.h"
#include "pipelines/common/file.h"
#include "pipelines/sd3/clip_text.h"
#include "tests/support/mp_blocks.h"

#define CHECKPOINT MP_FIXTURES "/checkpoints/sd3-tiny/"
#define GOLDENS    "goldens/sd3/clip/"

enum { BLOCK_TOKENS = 8, TOKENS = 77, LAYERS = 3, MODULES = 3 * 7 + 3 };

static const char *const encoders[] = {"text_encoder", "text_encoder_2"};

static mp_weights_options options(const char *component, mp_dtype dtype)
{
    return (mp_weights_options){
        .component = component, .stem = "model", .dtype = dtype, .storage = MP_DTYPE_COUNT};
}

static mp_clip_text *open_with(const char *dir, const mp_weights_options *o)
{
    mp_clip_text *m = NULL;
    mp_error err = {0};

    mp_clip_text_open(dir, o, &m, &err);
    assert_ok(&err);
    return m;
}

static mp_clip_text *open_tiny(const char *component, mp_dtype dtype)
{
    const mp_weights_options o = options(component, dtype);
    char dir[512];

    snprintf(dir, sizeof dir, CHECKPOINT "%s", component);
    return open_with(dir, &o);
}

static const char *golden_path(const char *component, const char *dtype)
{
    static char path[2][128];
    static int next;
    char *const p = path[next++ % 2];

    snprintf(p, sizeof path[0], GOLDENS "%s.%s.safetensors", component, dtype);
    return p;
}

static void read_ids(const mp_blocks *b, const char *name, int32_t *ids, int n)
{
    for (int i = 0; i < n; i++)
        ids[i] = (int32_t)mp_blocks_int(b, name, i);
}

/* ||a - b|| / ||b|| */
static double distance(mp_tensor a, mp_tensor b)
{
    const int64_t n = mp_numel(b);
    float *const x = mp_alloc((size_t)n, sizeof *x), *const y = mp_alloc((size_t)n, sizeof *y);

    assert_non_null(x);
    assert_non_null(y);
    assert_int_equal(mp_numel(a), n);
    mp_widen(a.store, a.data, x, n);
    mp_widen(b.store, b.data, y, n);
    const double d = mp_rel_l2(x, y, n);
    mp_free(x);
    mp_free(y);
    return d;
}

/* A comparison in progress.  Of a half, distances are in units of the golden's own distance from
 * the golden in fp32. */
typedef struct comparison {
    mp_blocks b;
    mp_safetensors *exact; /* NULL: fp32 */
    double first, limit;   /* of layer 0, and of all that comes after it */
    double worst_first, worst;
} comparison;

static void check(comparison *k, const char *name, mp_tensor y)
{
    const mp_tensor golden = mp_test_golden(k->b.file, "%s", name);
    const bool first = strstr(name, "layers.0") || strstr(name, "embeddings");
    const double limit = first ? k->first : k->limit;
    const double unit = k->exact ? distance(golden, mp_test_golden(k->exact, "%s", name)) : 1.0;
    const double d = distance(y, golden) / unit;
    double *const worst = first ? &k->worst_first : &k->worst;

    if (!(d <= limit))
        fail_msg("%s, %s: relative L2 is %.3g, over %.3g%s", mp_safetensors_path(k->b.file), name,
                 d, limit, k->exact ? " of the golden's own from fp32" : "");
    *worst = d > *worst ? d : *worst;
}

static void check_modules(comparison *k, const mp_clip_text *m)
{
    int32_t ids[BLOCK_TOKENS];
    int compared = 0;

    read_ids(&k->b, "input.input_ids", ids, BLOCK_TOKENS);
    mp_clip_text_forward(k->b.ctx, m, ids, BLOCK_TOKENS, 0);
    mp_test_ok(k->b.ctx);
    for (int64_t i = 0; i < k->b.count; i++) {
        const mp_block_record *const r = &k->b.records[i];
        if (!r->values)
            fail_msg("%s: no op belongs to it", r->golden.name);
        const mp_tensor y = mp_view(r->values, MP_F32, r->shape.rank, r->shape.dim);
        check(k, r->golden.name, y);
        compared++;
    }
    assert_int_equal(compared, MODULES);
}

static void check_results(comparison *k, const mp_clip_text *m)
{
    const mp_clip_text_sizes s = mp_clip_text_get_sizes(m);
    int32_t ids[TOKENS];
    char name[64];

    read_ids(&k->b, "input.ids", ids, TOKENS);
    for (int skip = 0; skip < LAYERS; skip++) {
        const mp_mark mark = mp_open(k->b.ctx);
        const size_t live = mp_pool_get(k->b.ctx).live;
        const mp_clip_text_output y = mp_clip_text_forward(k->b.ctx, m, ids, TOKENS, skip);
        mp_test_ok(k->b.ctx);
        assert_true(mp_pool_get(k->b.ctx).live - live < 16384); /* both results and no more */
        assert_int_equal(y.hidden_states.rank, 3);
        assert_int_equal(mp_dim(y.hidden_states, 1), TOKENS);
        assert_int_equal(mp_dim(y.hidden_states, 2), s.hidden);
        assert_int_equal(y.text_embeds.rank, 2);
        assert_int_equal(mp_dim(y.text_embeds, 1), s.projection);
        snprintf(name, sizeof name, "input.hidden_states.%d", skip + 2);
        if (skip < LAYERS - 1) /* else the embeddings, which have a golden of their own */
            check(k, name, y.hidden_states);
        check(k, "input.text_embeds", y.text_embeds);
        mp_drop(k->b.ctx, mark);
    }
}

static void compare_on(const char *isa, const char *component, const char *name, mp_dtype dtype,
                       double first, double limit)
{
    mp_ctx *const c = mp_test_ctx(isa, 0);
    mp_clip_text *const m = open_tiny(component, dtype);
    comparison k = {.first = first, .limit = limit};

    if (dtype != MP_F32)
        k.exact = mp_test_goldens(golden_path(component, "fp32"));
    mp_blocks_open(&k.b, c, golden_path(component, name), component);
    check_modules(&k, m);
    check_results(&k, m);
    print_message("%s, %s %s: worst %.3g in layer 0, %.3g after\n", isa, component, name,
                  k.worst_first, k.worst);
    mp_blocks_close(&k.b);
    mp_safetensors_close(k.exact);
    mp_clip_text_close(m);
    mp_device_close(c);
}

static void compare(const char *component, const char *name, mp_dtype dtype, double first,
                    double limit)
{
    for (const char *const *isa = mp_test_isas(); *isa; isa++)
        compare_on(*isa, component, name, dtype, first, limit);
}

/* fp32 differs in the order of sums and by an ulp or two of exp.  Some eight ops a layer each err
 * by 2^-24 on either side: 8 * 2^-23 = 1e-6 after one layer, 3e-6 after three. */
static void test_clip_text__equals_transformers_module_by_module_in_fp32(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++)
        compare(encoders[i], "fp32", MP_F32, 1e-6, 3e-6);
}

/* The points of rounding are the same, so layer 0 is nearly bit for bit: what differs starts in
 * attention, where a softmax's exp falls on the other side of a tie.  Of torch's own outputs this
 * model of its kernel gives 94 % in bf16 and 76 % in fp16 at 77 tokens, every other that was tried
 * less than 72 % and 65 %.  In bf16 a point left out of layer 0 moves it by 0.27 units (inside
 * quick_gelu) to 0.64 (eager attention); in fp16 torch's own ties hide that.  After it two right
 * runs may differ as independent roundings do: by sqrt(2) units. */
static void test_clip_text__rounds_where_transformers_rounds_in_halves(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        compare(encoders[i], "fp16", MP_F16, 0.7, 1.5);
        compare(encoders[i], "bf16", MP_BF16, 0.15, 1.5);
    }
}

/* ---- other configs, checkpoints and calls -----------------------------------------------------
 */

/* A copy of text_encoder whose config has this value under key; value is taken, NULL: no change. */
static const char *make_checkpoint(const char *key, json_t *value)
{
    json_t *config = json_load_file(CHECKPOINT "text_encoder/config.json", 0, NULL);
    const char *const weights = scratch("model.safetensors");

    assert_non_null(config);
    if (value)
        assert_int_equal(json_object_set_new(config, key, value), 0);
    char *const text = json_dumps(config, 0);
    scratch_text("config.json", text);
    free(text);
    json_decref(config);
    unlink(weights);
    assert_int_equal(symlink(CHECKPOINT "text_encoder/model.safetensors", weights), 0);
    return scratch_dir;
}

/* Without <|endoftext|>, where 601, the highest id, stands at 3 and 6. */
static void check_end(int eos, const char *golden)
{
    mp_ctx *const c = mp_blocks_ctx();
    const mp_weights_options o = options("text_encoder", MP_F32);
    mp_clip_text *const m = open_with(make_checkpoint("eos_token_id", json_integer(eos)), &o);
    int32_t ids[BLOCK_TOKENS];
    mp_blocks b;

    mp_blocks_open(&b, c, golden_path("text_encoder", "fp32"), NULL);
    read_ids(&b, "input.odd", ids, BLOCK_TOKENS);
    const mp_clip_text_output y = mp_clip_text_forward(c, m, ids, BLOCK_TOKENS, 0);
    mp_test_ok(c);
    assert_true(mp_blocks_distance(&b, y.text_embeds, golden) < 3e-6);
    mp_blocks_close(&b);
    mp_clip_text_close(m);
    mp_device_close(c);
}

static void test_clip_text__finds_the_end_of_a_text_in_both_ways(void **state)
{
    (void)state;
    check_end(2, "input.odd.legacy");
    check_end(603, "input.odd.first");
}

static void refused(mp_code code, const char *const *parts)
{
    const mp_weights_options o = options("text_encoder", MP_F32);
    mp_clip_text *m = NULL;
    mp_error err = {0};

    mp_clip_text_open(scratch_dir, &o, &m, &err);
    assert_failure(&err, code, parts);
    assert_null(m);
}

static void test_clip_text__refuses_configs_that_cannot_be(void **state)
{
    const struct {
        const char *key;
        json_t *value;
        mp_code code;
        const char *parts[3];
    } cases[] = {
        {"hidden_act", json_string("gelu_fast"), MP_EUNSUPPORTED, {"hidden_act", "gelu_fast"}},
        {"num_attention_heads", json_integer(3), MP_EFORMAT, {"hidden_size", "multiple of the 3"}},
        {"num_attention_heads", json_integer(0), MP_EFORMAT, {"num_attention_heads"}},
        {"hidden_size", json_integer(1 << 21), MP_EFORMAT, {"hidden_size"}},
        {"num_hidden_layers", json_integer(100000), MP_EFORMAT, {"num_hidden_layers"}},
        {"max_position_embeddings", json_integer(-1), MP_EFORMAT, {"max_position_embeddings"}},
        {"vocab_size", json_string("604"), MP_EFORMAT, {"vocab_size", "604"}},
        {"eos_token_id", json_pack("[ii]", 2, 3), MP_EFORMAT, {"eos_token_id", "list"}},
        {"layer_norm_eps", json_real(-1), MP_EFORMAT, {"layer_norm_eps", "1e-05"}},
        {"quantization_config", json_object(), MP_EUNSUPPORTED, {"quantization_config", "fp32"}},
        /* parameters that the file has otherwise, or not at all */
        {"hidden_size", json_integer(24), MP_EFORMAT, {"token_embedding.weight", "[604, 24]"}},
        {"projection_dim", json_integer(8), MP_EFORMAT, {"text_projection.weight", "[8, 16]"}},
        {"vocab_size", json_integer(605), MP_EFORMAT, {"token_embedding.weight", "[605, 16]"}},
        {"num_hidden_layers", json_integer(4), MP_EMISSING, {"layers.3.layer_norm1.weight"}},
        {"num_hidden_layers", json_integer(2), MP_EFORMAT, {"layers.2."}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        make_checkpoint(cases[i].key, cases[i].value);
        refused(cases[i].code, (const char *const[]){cases[i].parts[0], cases[i].parts[1],
                                                     cases[i].parts[2], NULL});
    }
}

static void expect_failure(mp_ctx *c, mp_code code, const char *module, const char *text)
{
    const mp_error *const err = mp_ctx_error(c);

    assert_int_equal(err->code, code);
    assert_string_equal(err->module, module);
    if (!strstr(err->text, text))
        fail_msg("\"%s\" is not in: %s", text, err->text);
    mp_ctx_clear(c);
    assert_int_equal(mp_pool_get(c).live, 0);
}

static void test_clip_text__refuses_calls_that_cannot_be(void **state)
{
    mp_ctx *const c = mp_test_ctx(NULL, 1);
    mp_clip_text *const m = open_tiny("text_encoder", MP_F32);
    const int32_t ids[TOKENS + 1] = {602, 604};
    const mp_clip_text_output none = mp_clip_text_forward(c, m, ids, TOKENS + 1, 0);

    (void)state;
    assert_false(mp_given(none.hidden_states));
    expect_failure(c, MP_ESHAPE, "text_encoder", "`sequence length`: 78");
    mp_clip_text_forward(c, m, ids, TOKENS, LAYERS);
    expect_failure(c, MP_ESHAPE, "text_encoder", "clip_skip: found 3, expected 0 to 2");
    mp_clip_text_forward(c, m, ids, TOKENS, -1);
    expect_failure(c, MP_ESHAPE, "text_encoder", "clip_skip: found -1");
    mp_clip_text_forward(c, m, ids, 2, 0);
    expect_failure(c, MP_ESHAPE, "text_encoder.text_model.embeddings.token_embedding", "604");
    mp_clip_text_close(m);
    mp_device_close(c);
}

static void test_clip_text__a_projection_of_another_dtype_is_torchs_error(void **state)
{
    static const mp_dtype_override override = {"text_encoder.text_projection", MP_F16};
    mp_ctx *const c = mp_test_ctx(NULL, 1);
    mp_weights_options o = options("text_encoder", MP_BF16);
    json_t *const golden = json_load_file(MP_FIXTURES "/" GOLDENS "mixed.json", 0, NULL);
    const int32_t ids[] = {602, 603};

    (void)state;
    assert_non_null(golden);
    o.overrides = &override;
    o.override_count = 1;
    mp_clip_text *const m = open_with(CHECKPOINT "text_encoder", &o);
    mp_clip_text_forward(c, m, ids, 2, 0);
    assert_string_equal(mp_ctx_error(c)->text,
                        json_string_value(json_object_get(golden, "bf16 * fp16")));
    assert_string_equal(mp_ctx_error(c)->op, "linear");
    expect_failure(c, MP_EDTYPE, "text_encoder.text_projection", "m1 and m2");
    json_decref(golden);
    mp_clip_text_close(m);
    mp_device_close(c);
}

static void test_clip_text__frees_all_when_any_allocation_fails(void **state)
{
    const mp_weights_options o = options("text_encoder_2", MP_BF16);
    bool failed = true;
    uint64_t n = 1;

    (void)state;
    for (; failed; n++) {
        mp_clip_text *m = NULL;
        mp_error err = {0};
        mp_memory_fail_at(n);
        failed = mp_clip_text_open(CHECKPOINT "text_encoder_2", &o, &m, &err);
        mp_memory_fail_at(0);
        if (failed && err.code != MP_ENOMEM)
            fail_msg("request %llu: %s", (unsigned long long)n, err.text);
        assert_true(failed == !m);
        mp_clip_text_close(m);
    }
    assert_true(n > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clip_text__equals_transformers_module_by_module_in_fp32),
        cmocka_unit_test(test_clip_text__rounds_where_transformers_rounds_in_halves),
        cmocka_unit_test(test_clip_text__finds_the_end_of_a_text_in_both_ways),
        cmocka_unit_test(test_clip_text__refuses_configs_that_cannot_be),
        cmocka_unit_test(test_clip_text__refuses_calls_that_cannot_be),
        cmocka_unit_test(test_clip_text__a_projection_of_another_dtype_is_torchs_error),
        cmocka_unit_test(test_clip_text__frees_all_when_any_allocation_fails),
    };

    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
