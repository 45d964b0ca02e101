/* SD3Transformer2DModel.  Goldens: tests/fixtures/sd3_transformer.py (Diffusers 0.42.1, torch 2.15,
 * CPU). */
#include "tests/pipelines/scratch.h"

#include "kernels/device.h"
#include "kernels/ops.h"
#include "pipelines/sd3/transformer.h"
#include "tests/support/mp_blocks.h"

#define TINY    "checkpoints/sd3-tiny/transformer"
#define GOLDENS "goldens/sd3/transformer/"

static mp_code open_in(const char *dir, mp_dtype dtype, mp_dtype storage, mp_sd3_transformer **m,
                       mp_error *err)
{
    const mp_weights_options o = {.component = "transformer",
                                  .stem = "diffusion_pytorch_model",
                                  .dtype = dtype,
                                  .storage = storage,
                                  .storage_skip = mp_sd3_storage_skip};

    return mp_sd3_transformer_open(dir, &o, m, err);
}

static mp_sd3_transformer *open_transformer(const char *folder, mp_dtype dtype)
{
    char dir[512];
    mp_error err = {0};
    mp_sd3_transformer *m = NULL;

    snprintf(dir, sizeof dir, "%s/%s", MP_FIXTURES, folder);
    if (open_in(dir, dtype, MP_DTYPE_COUNT, &m, &err))
        fail_msg("%s", err.text);
    return m;
}

/* The forward of a golden's inputs, rounded to the model's dtype; names begin with `prefix`. */
static mp_tensor forward(mp_blocks *b, const mp_sd3_transformer *m, const char *prefix,
                         const int *skip, int skips)
{
    static const char *const names[] = {"hidden_states", "encoder_hidden_states",
                                        "pooled_projections", "timestep"};
    const mp_dtype dtype = mp_weights_dtype(mp_sd3_transformer_weights(m));
    mp_tensor x[4];
    char name[64];

    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "%sinput.%s", prefix, names[i]);
        x[i] = i ? mp_blocks_tensor(b, name) : mp_blocks_picture(b, name);
    }
    const mp_sd3_inputs in = {.hidden_states = mp_cast(b->ctx, x[0], dtype),
                              .encoder_hidden_states = mp_cast(b->ctx, x[1], dtype),
                              .pooled_projections = mp_cast(b->ctx, x[2], dtype),
                              .timestep = x[3].data,
                              .skip_layers = skip,
                              .skip_count = skips};
    return mp_sd3_transformer_forward(b->ctx, m, &in);
}

/* ---- module by module ----------------------------------------------------------------------- */

/* The last output at a block's own level that has as many tokens as the context: what the block
 * makes of the context.  (Of the picture's tokens mp_blocks keeps the last output.) */
typedef struct contexts {
    int64_t tokens;
    float values[3][2 * 5 * 16];
    int count[3];
} contexts;

static void keep_context(void *user, const mp_op_event *e)
{
    contexts *const k = user;
    char module[64];

    for (int i = 0; i < 3; i++) {
        snprintf(module, sizeof module, "transformer.transformer_blocks.%d", i);
        if (strcmp(e->module, module) || e->y->rank != 3 || e->y->dim[1] != k->tokens)
            continue;
        assert_int_equal(mp_numel(*e->y), 2 * 5 * 16);
        mp_widen(e->y->store, e->y->data, k->values[i], 2 * 5 * 16);
        k->count[i]++;
    }
}

/* The distance between two goldens of one module: what the dtype itself costs real Diffusers. */
static double own_distance(const mp_safetensors *half, const mp_safetensors *full, const char *name)
{
    const mp_tensor a = mp_test_golden(half, "%s", name), b = mp_test_golden(full, "%s", name);
    const int64_t n = mp_numel(b);
    float *const values = mp_alloc((size_t)n, sizeof *values);

    assert_non_null(values);
    assert_int_equal(mp_numel(a), n);
    mp_widen(a.store, a.data, values, n);
    const double d = mp_rel_l2(values, b.data, n);
    mp_free(values);
    return d;
}

typedef struct limits {
    double absolute; /* of each module, or 0 */
    double share;    /* of the golden's own distance from its fp32 golden */
    int modules;
} limits;

static double limit_of(const limits *l, const mp_blocks *b, const mp_safetensors *full,
                       const char *name)
{
    return l->absolute ? l->absolute : l->share * own_distance(b->file, full, name);
}

static void check_contexts(const mp_blocks *b, const contexts *k, const limits *l,
                           const mp_safetensors *full)
{
    char name[64];
    float golden[2 * 5 * 16];

    for (int i = 0; i < 2; i++) {
        assert_int_equal(k->count[i], 3); /* after the attention, its modulated norm, at the end */
        snprintf(name, sizeof name, "transformer_blocks.%d@context", i);
        const mp_tensor t = mp_test_golden(b->file, "%s", name);
        mp_widen(t.store, t.data, golden, 2 * 5 * 16);
        const double d = mp_rel_l2(k->values[i], golden, 2 * 5 * 16);
        const double limit = limit_of(l, b, full, name);
        print_message("%s: relative L2 %.3g of %.3g\n", name, d, limit);
        assert_true(d <= limit);
    }
    assert_int_equal(k->count[2], 0); /* context_pre_only */
}

static void check_modules(mp_blocks *b, const limits *l, const mp_safetensors *full)
{
    if (l->absolute) {
        mp_blocks_check(b, l->absolute, l->modules);
        return;
    }
    assert_true(b->count >= l->modules);
    for (int64_t i = 0; i < b->count; i++) {
        const char *const name = b->records[i].golden.name;
        mp_blocks_check_one(b, name, limit_of(l, b, full, name));
    }
}

/* Where a module's golden must be met more closely than the others'. */
typedef struct strict {
    const char *path; /* NULL: the end */
    double limit;
} strict;

static void compare(const char *name, mp_dtype dtype, limits l, const strict *closer)
{
    char golden[128];
    mp_ctx *const c = mp_blocks_ctx();
    mp_sd3_transformer *const m = open_transformer(TINY, dtype);
    mp_safetensors *const full = mp_test_goldens(GOLDENS "blocks.fp32.safetensors");
    contexts k = {.tokens = 5};
    mp_blocks b;

    snprintf(golden, sizeof golden, GOLDENS "blocks.%s.safetensors", name);
    mp_blocks_open(&b, c, golden, "transformer");
    assert_true(mp_observe(c, (mp_observer){.output = keep_context, .user = &k}));
    const mp_tensor y = forward(&b, m, "", NULL, 0);
    mp_test_ok(c);
    check_modules(&b, &l, full);
    for (; closer && closer->path; closer++)
        mp_blocks_check_one(&b, closer->path, closer->limit);
    check_contexts(&b, &k, &l, full);
    const double d = mp_blocks_distance(&b, y, "output"), limit = limit_of(&l, &b, full, "output");
    print_message("%s output: relative L2 %.3g of %.3g\n", name, d, limit);
    assert_true(d <= limit);
    mp_unobserve(c, (mp_observer){.output = keep_context, .user = &k});
    mp_blocks_close(&b);
    mp_safetensors_close(full);
    mp_sd3_transformer_close(m);
    mp_device_close(c);
}

/* Sums in another order move a value by a few 2^-24 of its size, and there are 20 such ops in a row
 * to the end; torch's exp of the time embedding's frequencies adds up to 3e-5 in one of the 256
 * sinusoids.  Measured: at most 2.2e-6 of any module, 9e-7 of the output. */
static void test_sd3_transformer__equals_diffusers_module_by_module_in_fp32(void **state)
{
    (void)state;
    compare("fp32", MP_F32, (limits){.absolute = 4e-6, .modules = 60}, NULL);
}

/* Of what the dtype itself costs Diffusers, half in bf16 and four fifths in fp16; measured over all
 * cases are 0 to 0.3 and 0 to 0.55.  Nothing differs but flips after softmax: torch's attention has
 * an exp of 20 ulp, so that one probability in eight of fp16 and one in a hundred of bf16 rounds
 * apart (see the test with a right exp below). */
static const double bf16_share = 0.5, fp16_share = 0.8;

/* A rounding point too many or too few hides in that, but not in the first block.  Up to the first
 * softmax only the order of sums differs, which moves a value in a thousand by 2^-8: 3e-4
 * (measured: 0).  After it, 1.3e-3 (measured: 7e-4 of to_out.0, 0 of the others), while a fused
 * bias in to_out.0 or to_add_out gives 2.6e-3. */
static void test_sd3_transformer__rounds_where_diffusers_rounds_in_bf16(void **state)
{
#define BLOCK "transformer_blocks.0."
    static const strict closer[] = {{"pos_embed", 3e-4},
                                    {"context_embedder", 3e-4},
                                    {"time_text_embed", 3e-4},
                                    {BLOCK "norm1", 3e-4},
                                    {BLOCK "norm1_context", 3e-4},
                                    {BLOCK "attn2.norm_q", 3e-4},
                                    {BLOCK "attn2.norm_k", 3e-4},
                                    {BLOCK "attn.norm_q", 3e-4},
                                    {BLOCK "attn.norm_added_k", 3e-4},
                                    {BLOCK "attn.add_v_proj", 3e-4},
                                    {BLOCK "attn2.to_out.0", 1.3e-3},
                                    {BLOCK "attn.to_out.0", 1.3e-3},
                                    {BLOCK "attn.to_add_out", 1.3e-3},
                                    {NULL, 0}};
#undef BLOCK
    (void)state;
    compare("bf16", MP_BF16, (limits){.share = bf16_share, .modules = 60}, closer);
}

static void test_sd3_transformer__rounds_where_diffusers_rounds_in_fp16(void **state)
{
    static const strict closer[] = {
        {"pos_embed", 4e-5}, {"context_embedder", 4e-5}, {"time_text_embed", 4e-5}, {NULL, 0}};
    (void)state;
    compare("fp16", MP_F16, (limits){.share = fp16_share, .modules = 15}, closer);
}

/* ---- other sizes and configurations --------------------------------------------------------- */

typedef struct variant {
    const char *folder, *golden, *name;
    int skip[3], skips;
} variant;

static const variant variants[] = {
    {TINY, GOLDENS "cases.safetensors", "square", {0}, 0},
    {TINY, GOLDENS "cases.safetensors", "tall", {0}, 0},
    {TINY, GOLDENS "cases.safetensors", "uneven", {0}, 0}, /* half a patch is left out */
    {TINY, GOLDENS "cases.safetensors", "skip_1", {1}, 1},
    {TINY, GOLDENS "cases.safetensors", "skip_0_2", {0, 2, 9}, 3},
    /* no dual attention, no norm of queries and keys */
    {GOLDENS "plain", GOLDENS "plain/golden.safetensors", "square", {0}, 0},
    {GOLDENS "plain", GOLDENS "plain/golden.safetensors", "widest", {0}, 0},
    /* dual attention in the last block, patches of one pixel, three output channels */
    {GOLDENS "dual_last", GOLDENS "dual_last/golden.safetensors", "square", {0}, 0},
    {GOLDENS "dual_last", GOLDENS "dual_last/golden.safetensors", "widest", {0}, 0},
};

/* The reasons of the limits above.  In fp32 a component only 8 wide has fewer values among which
 * the sinusoids' error is lost: 6e-6 (measured: 3.1e-6). */
static void check_variant(const variant *v, const char *dtype_name, mp_dtype dtype)
{
    char prefix[64], name[64], full[64];
    mp_ctx *const c = mp_blocks_ctx();
    mp_sd3_transformer *const m = open_transformer(v->folder, dtype);
    mp_blocks b;

    mp_blocks_open(&b, c, v->golden, NULL);
    snprintf(prefix, sizeof prefix, "%s.", v->name);
    snprintf(name, sizeof name, "%s.%s.output", v->name, dtype_name);
    snprintf(full, sizeof full, "%s.fp32.output", v->name);
    const mp_tensor y = forward(&b, m, prefix, v->skip, v->skips);
    const double d = mp_blocks_distance(&b, y, name);
    double limit = 6e-6;
    if (dtype != MP_F32) {
        float golden[2 * 16 * 4 * 6];
        const mp_tensor t = mp_test_golden(b.file, "%s", name);
        assert_in_range(mp_numel(t), 1, sizeof golden / sizeof *golden);
        mp_widen(t.store, t.data, golden, mp_numel(t));
        limit = (dtype == MP_BF16 ? bf16_share : fp16_share) *
                mp_rel_l2(golden, mp_test_golden(b.file, "%s", full).data, mp_numel(t));
    }
    print_message("%s %s: relative L2 %.3g of %.3g\n", v->folder, name, d, limit);
    assert_true(d <= limit);
    mp_blocks_close(&b);
    mp_sd3_transformer_close(m);
    mp_device_close(c);
}

static void test_sd3_transformer__knows_sizes_skips_and_configurations(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        check_variant(&variants[i], "fp32", MP_F32);
        check_variant(&variants[i], "fp16", MP_F16);
        check_variant(&variants[i], "bf16", MP_BF16);
    }
}

/* Diffusers with an exp that is right inside its attention gives our bits (measured: 0 in both).  A
 * product that sums in another order moves a value in a thousand by one step, and what it reaches:
 * a tenth of what the dtype costs, 1e-2 and 1.1e-3. */
static void test_sd3_transformer__differs_from_diffusers_by_its_exp_only(void **state)
{
    static const struct {
        mp_dtype dtype;
        const char *golden;
        double limit;
    } cases[] = {{MP_BF16, "square.bf16.exact_exp", 1e-3},
                 {MP_F16, "square.fp16.exact_exp", 1.1e-4}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mp_ctx *const c = mp_blocks_ctx();
        mp_sd3_transformer *const m = open_transformer(TINY, cases[i].dtype);
        mp_blocks b;
        mp_blocks_open(&b, c, GOLDENS "cases.safetensors", NULL);
        const double d =
            mp_blocks_distance(&b, forward(&b, m, "square.", NULL, 0), cases[i].golden);
        print_message("%s: relative L2 %.3g of %.3g\n", cases[i].golden, d, cases[i].limit);
        assert_true(d <= cases[i].limit);
        mp_blocks_close(&b);
        mp_sd3_transformer_close(m);
        mp_device_close(c);
    }
}

/* float8 moves the output by 2.7e-2.  What is left is bf16's rounding apart, as above: half of the
 * 1e-2 that it costs this input, and a fifth more because float8 turns some flips into larger ones
 * (measured: 3.9e-3). */
static void test_sd3_transformer__stores_in_float8_what_layerwise_casting_does(void **state)
{
    char dir[512];
    mp_error err = {0};
    mp_sd3_transformer *m;
    mp_blocks b;
    mp_ctx *const c = mp_blocks_ctx();

    (void)state;
    snprintf(dir, sizeof dir, "%s/" TINY, MP_FIXTURES);
    open_in(dir, MP_BF16, MP_F8_E4M3, &m, &err);
    assert_ok(&err);
    mp_blocks_open(&b, c, GOLDENS "cases.safetensors", NULL);
    const mp_tensor y = forward(&b, m, "square.", NULL, 0);
    const double d = mp_blocks_distance(&b, y, "square.e4m3.output");
    print_message("float8 storage: relative L2 %.3g; bf16 is %.3g away\n", d,
                  mp_blocks_distance(&b, y, "square.bf16.output"));
    assert_true(d <= 6e-3);
    mp_blocks_close(&b);
    mp_sd3_transformer_close(m);
    mp_device_close(c);
}

/* ---- failures ------------------------------------------------------------------------------- */

static const struct {
    const char *config;
    mp_code code;
    const char *says;
} refused[] = {
    {"{\"qk_norm\": \"layer_norm\"}", MP_EUNSUPPORTED, "\"layer_norm\" is not supported; rms_norm"},
    {"{\"new_thing\": 1}", MP_EUNSUPPORTED, "unknown keys: new_thing"},
    {"{\"caption_projection_dim\": 100}", MP_EFORMAT,
     "\"caption_projection_dim\" is 100, but the blocks are 1152 wide"},
    {"{\"attention_head_dim\": 5, \"num_attention_heads\": 5, \"caption_projection_dim\": 25}",
     MP_EFORMAT, "a width that 4 divides, found 25"},
    {"{\"num_layers\": 100000}", MP_EFORMAT, "\"num_layers\": expected an integer in 1..256"},
    {"{\"num_layers\": 0}", MP_EFORMAT, "\"num_layers\""},
    {"{\"patch_size\": 0}", MP_EFORMAT, "\"patch_size\""},
    {"{\"pos_embed_max_size\": 100000}", MP_EFORMAT, "\"pos_embed_max_size\""},
    {"{\"pos_embed_max_size\": null}", MP_EUNSUPPORTED, "\"pos_embed_max_size\" is null"},
    {"{\"num_attention_heads\": -1}", MP_EFORMAT, "\"num_attention_heads\""},
    {"{\"joint_attention_dim\": 1e9}", MP_EFORMAT, "\"joint_attention_dim\""},
    {"{\"dual_attention_layers\": [0, -1]}", MP_EFORMAT,
     "\"dual_attention_layers\": expected an integer in 0..255, found -1"},
    {"{\"dual_attention_layers\": 3}", MP_EFORMAT, "\"dual_attention_layers\""},
};

static void test_sd3_transformer__names_what_a_configuration_has_wrong(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        mp_error err = {0};
        mp_sd3_config config;
        scratch_text("config.json", refused[i].config);
        mp_sd3_config_read(scratch_dir, &config, &err);
        assert_error(&err, refused[i].code, "config.json: ", refused[i].says);
    }
}

/* sd3-tiny's weights under a configuration that `edit` (of sed) changes. */
static void open_edited(const char *edit, mp_error *err)
{
    mp_sd3_transformer *m;
    char command[1024];

    snprintf(command, sizeof command, "cp %s/" TINY "/* %s && sed -i '%s' %s/config.json",
             MP_FIXTURES, scratch_dir, edit, scratch_dir);
    assert_int_equal(system(command), 0);
    open_in(scratch_dir, MP_F32, MP_DTYPE_COUNT, &m, err);
    assert_null(m);
}

static void test_sd3_transformer__lists_parameters_that_do_not_fit(void **state)
{
    mp_error missing = {0}, misshapen = {0}, surplus = {0};

    (void)state;
    open_edited("s/\"num_layers\": 3/\"num_layers\": 4/", &missing);
    assert_error(&missing, MP_EMISSING, "transformer_blocks.3.norm1.linear.weight",
                 "transformer_blocks.2.attn.to_add_out.weight");
    open_edited("s/\"pos_embed_max_size\": 24/\"pos_embed_max_size\": 12/", &misshapen);
    assert_error(&misshapen, MP_EFORMAT, "pos_embed.pos_embed is [1, 576, 16]",
                 "expected [1, 144, 16]");
    open_edited("s/\"rms_norm\"/null/", &surplus);
    assert_error(&surplus, MP_EFORMAT, "transformer_blocks.0.attn.norm_added_k.weight");
}

static void refuse(const mp_sd3_transformer *m, const int64_t *x, const int64_t *text,
                   int64_t pooled, const char *says)
{
    static const float timestep[3] = {1, 2, 3};
    mp_ctx *const c = mp_blocks_ctx();
    const mp_sd3_inputs in = {.hidden_states = mp_new(c, MP_F32, 4, x),
                              .encoder_hidden_states = mp_new(c, MP_F32, 3, text),
                              .pooled_projections = mp_new(c, MP_F32, 2, MP_DIMS(pooled, 40)),
                              .timestep = timestep};

    memset(in.hidden_states.data, 0, mp_nbytes(in.hidden_states));
    memset(in.encoder_hidden_states.data, 0, mp_nbytes(in.encoder_hidden_states));
    memset(in.pooled_projections.data, 0, mp_nbytes(in.pooled_projections));
    mp_sd3_transformer_forward(c, m, &in);
    mp_test_fails(c, MP_ESHAPE, says);
    mp_device_close(c);
}

static void test_sd3_transformer__refuses_inputs_that_do_not_fit(void **state)
{
    mp_sd3_transformer *const m = open_transformer(TINY, MP_F32);

    (void)state;
    refuse(m, MP_DIMS(1, 50, 4, 16), MP_DIMS(1, 5, 48), 1,
           "a grid of 25 x 2 patches cannot be larger than \"pos_embed_max_size\" 24");
    refuse(m, MP_DIMS(1, 4, 50, 16), MP_DIMS(1, 5, 48), 1, "a grid of 2 x 25 patches");
    refuse(m, MP_DIMS(2, 4, 4, 16), MP_DIMS(1, 5, 48), 2, "are batches of 2, 1 and 2");
    refuse(m, MP_DIMS(2, 4, 4, 16), MP_DIMS(2, 5, 48), 3, "are batches of 2, 2 and 3");
    refuse(m, MP_DIMS(1, 4, 4, 8), MP_DIMS(1, 5, 48), 1, "");
    refuse(m, MP_DIMS(1, 4, 4, 16), MP_DIMS(1, 5, 47), 1, "");
    refuse(m, MP_DIMS(1, 1, 4, 16), MP_DIMS(1, 5, 48), 1, "");
    mp_sd3_transformer_close(m);
}

static void test_sd3_transformer__reports_short_memory_at_every_request(void **state)
{
    char dir[512];
    int failures = 0;

    (void)state;
    snprintf(dir, sizeof dir, "%s/" TINY, MP_FIXTURES);
    for (uint64_t n = 1;; n++) {
        mp_error err = {0};
        mp_sd3_transformer *m = NULL;
        mp_memory_fail_at(n);
        open_in(dir, MP_BF16, MP_DTYPE_COUNT, &m, &err);
        mp_memory_fail_at(0);
        mp_sd3_transformer_close(m);
        if (!err.code)
            break;
        assert_error(&err, MP_ENOMEM, "memory");
        failures++;
    }
    assert_in_range(failures, 8, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sd3_transformer__equals_diffusers_module_by_module_in_fp32),
        cmocka_unit_test(test_sd3_transformer__rounds_where_diffusers_rounds_in_bf16),
        cmocka_unit_test(test_sd3_transformer__rounds_where_diffusers_rounds_in_fp16),
        cmocka_unit_test(test_sd3_transformer__knows_sizes_skips_and_configurations),
        cmocka_unit_test(test_sd3_transformer__differs_from_diffusers_by_its_exp_only),
        cmocka_unit_test(test_sd3_transformer__stores_in_float8_what_layerwise_casting_does),
        cmocka_unit_test(test_sd3_transformer__names_what_a_configuration_has_wrong),
        cmocka_unit_test(test_sd3_transformer__lists_parameters_that_do_not_fit),
        cmocka_unit_test(test_sd3_transformer__refuses_inputs_that_do_not_fit),
        cmocka_unit_test(test_sd3_transformer__reports_short_memory_at_every_request),
    };

    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
