/* Policies: which casts negotiate makes, which ops fallback does again, what goes on record, and
 * the device "meta", on which the same happens without arithmetic. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/device.h"
#include "kernels/ops.h"
#include "tests/support/mp_test.h"

enum { ROWS = 6, WIDTH = 32 };

static mp_ctx *open_policy(const char *device, const char *isa, mp_policy policy)
{
    const mp_device_options o = {.device = device, .isa = isa, .threads = 2, .policy = policy};
    mp_error err = {0};
    mp_ctx *c = NULL;

    if (mp_device_open(&o, &c, &err))
        fail_msg("%s", err.text);
    return c;
}

/* Values of both signs around `scale`, no two neighbours alike. */
static mp_tensor values(mp_ctx *c, mp_dtype d, int rank, const int64_t *dims, float scale)
{
    float x[4096];
    int64_t n = 1;

    for (int i = 0; i < rank; i++)
        n *= dims[i];
    assert_true(n <= 4096);
    for (int64_t i = 0; i < n; i++)
        x[i] = scale * (float)((i * 37) % 101 - 50) / 50.0f;
    return mp_test_floats(c, d, rank, dims, x);
}

static mp_tensor named(mp_tensor t, const char *name)
{
    t.name = name;
    return t;
}

static void check_action(const mp_ctx *c, int i, mp_action_kind kind, const char *module,
                         const char *op, mp_dtype from, mp_dtype to, uint64_t count,
                         uint64_t elements)
{
    assert_true(i < mp_action_count(c));
    const mp_action *a = mp_action_at(c, i);
    assert_string_equal(mp_action_name(a->kind), mp_action_name(kind));
    assert_string_equal(a->module, module);
    assert_string_equal(a->op, op);
    assert_string_equal(mp_dtype_name(a->from), mp_dtype_name(from));
    assert_string_equal(mp_dtype_name(a->to), mp_dtype_name(to));
    assert_int_equal(a->count, count);
    assert_int_equal(a->elements, elements);
}

/* ---- names ----------------------------------------------------------------------------------- */

static void test_policy__names_go_both_ways(void **state)
{
    mp_policy p;

    (void)state;
    for (int i = 0; i < MP_POLICY_COUNT; i++) {
        assert_true(mp_policy_parse(mp_policy_name((mp_policy)i), &p));
        assert_int_equal(p, i);
    }
    assert_false(mp_policy_parse("Strict", &p));
    assert_false(mp_policy_parse("", &p));
}

static void test_policy__a_glob_matches_a_path_or_a_parent_of_it(void **state)
{
    (void)state;
    assert_true(mp_path_matches("vae", "vae"));
    assert_true(mp_path_matches("vae", "vae.decoder.conv_in"));
    assert_true(mp_path_matches("transformer.*.attn", "transformer.blocks.0.attn.to_q"));
    assert_true(mp_path_matches("*.norm_q", "transformer.blocks.0.attn.norm_q"));
    assert_false(mp_path_matches("vae", "vae2.decoder"));
    assert_false(mp_path_matches("vae.decoder", "vae"));
    assert_false(mp_path_matches("attn", "transformer.attn"));
}

/* ---- negotiate ------------------------------------------------------------------------------- */

static const mp_dtype_override declared[] = {
    {"net", MP_BF16}, {"net.proj", MP_F16}, {"net.wide", MP_F32}, {"net.wide.inner", MP_BF16}};

static mp_ctx *open_declared(const char *device, mp_policy policy)
{
    mp_ctx *const c = open_policy(device, NULL, policy);

    mp_declare(c, declared, sizeof declared / sizeof *declared);
    return c;
}

static void test_policy__a_declared_layer_gets_its_dtype_and_gives_back_that_around(void **state)
{
    mp_ctx *const c = open_declared("cpu", MP_NEGOTIATE);
    const mp_tensor x = values(c, MP_BF16, 2, MP_DIMS(ROWS, WIDTH), 1.0f);
    const mp_tensor w = named(values(c, MP_F16, 2, MP_DIMS(8, WIDTH), 0.5f), "net.proj.weight");

    (void)state;
    const mp_tensor want =
        mp_cast(c, mp_linear(c, mp_cast(c, x, MP_F16), named(w, NULL), MP_NONE), MP_BF16);
    assert_int_equal(mp_action_count(c), 0);
    mp_push(c, "net");
    for (int i = 0; i < 2; i++)
        mp_test_same(mp_linear(c, x, w, MP_NONE), want);
    mp_pop(c);
    mp_test_ok(c);
    assert_int_equal(mp_action_count(c), 2);
    check_action(c, 0, MP_CAST_IN, "net.proj", "", MP_BF16, MP_F16, 2, 2 * ROWS * WIDTH);
    check_action(c, 1, MP_CAST_OUT, "net.proj", "", MP_F16, MP_BF16, 2, 2 * ROWS * 8);
    mp_action_clear(c);
    assert_int_equal(mp_action_count(c), 0);
    mp_device_close(c);
}

static void test_policy__modules_take_and_give_at_their_boundaries_only(void **state)
{
    mp_ctx *const c = open_declared("cpu", MP_NEGOTIATE);
    mp_tensor x = values(c, MP_F32, 2, MP_DIMS(ROWS, WIDTH), 1.0f);

    (void)state;
    x = mp_enter(c, x, "net"); /* a component: fp32 comes in */
    assert_int_equal(x.dtype, MP_BF16);
    x = mp_enter(c, x, "plain");
    x = mp_leave(c, x);
    assert_int_equal(mp_action_count(c), 1);
    x = mp_enter(c, x, "wide");
    assert_int_equal(x.dtype, MP_F32);
    x = mp_enter(c, x, "inner");
    assert_int_equal(x.dtype, MP_BF16);
    x = mp_leave(c, x);
    assert_int_equal(x.dtype, MP_F32);
    x = mp_leave(c, x);
    assert_int_equal(x.dtype, MP_BF16);
    x = mp_leave(c, x); /* and what goes out stays */
    assert_int_equal(x.dtype, MP_BF16);
    mp_test_ok(c);
    assert_int_equal(mp_action_count(c), 5);
    check_action(c, 0, MP_CAST_IN, "net", "", MP_F32, MP_BF16, 1, ROWS * WIDTH);
    check_action(c, 2, MP_CAST_IN, "net.wide.inner", "", MP_F32, MP_BF16, 1, ROWS * WIDTH);
    check_action(c, 4, MP_CAST_OUT, "net.wide", "", MP_F32, MP_BF16, 1, ROWS * WIDTH);
    mp_device_close(c);
}

static void test_policy__what_no_declaration_explains_is_still_refused(void **state)
{
    mp_ctx *const c = open_declared("cpu", MP_NEGOTIATE);
    const mp_tensor x = values(c, MP_BF16, 2, MP_DIMS(ROWS, WIDTH), 1.0f);
    const mp_tensor w = named(values(c, MP_F16, 2, MP_DIMS(8, WIDTH), 1.0f), "net.other.weight");

    (void)state;
    mp_push(c, "net");
    mp_linear(c, x, w, MP_NONE);
    mp_test_fails(c, MP_EDTYPE, "expected m1 and m2 to have the same dtype");
    assert_int_equal(mp_action_count(c), 0);
    mp_device_close(c);
}

static void test_policy__strict_casts_nothing(void **state)
{
    mp_ctx *const c = open_declared("cpu", MP_STRICT);
    const mp_tensor x = values(c, MP_BF16, 2, MP_DIMS(ROWS, WIDTH), 1.0f);
    const mp_tensor w = named(values(c, MP_F16, 2, MP_DIMS(8, WIDTH), 1.0f), "net.proj.weight");

    (void)state;
    assert_ptr_equal(mp_enter(c, x, "net").data, x.data);
    assert_ptr_equal(mp_enter(c, x, "wide").data, x.data);
    assert_ptr_equal(mp_leave(c, x).data, x.data);
    mp_linear(c, x, w, MP_NONE);
    mp_test_fails(c, MP_EDTYPE, "expected m1 and m2 to have the same dtype");
    assert_int_equal(mp_action_count(c), 0);
    mp_device_close(c);
}

/* ---- fallback -------------------------------------------------------------------------------- */

/* A computation of up to four operands, which it takes in fp32 as well. */
typedef struct computation {
    const char *name;
    mp_tensor (*run)(mp_ctx *c, const mp_tensor *t);
    int n;
    mp_tensor shape[4]; /* rank and dims */
} computation;

static mp_tensor run_linear(mp_ctx *c, const mp_tensor *t)
{
    return mp_linear(c, t[0], t[1], t[2]);
}

static mp_tensor run_matmul(mp_ctx *c, const mp_tensor *t)
{
    return mp_matmul(c, t[0], t[1]);
}

static mp_tensor run_conv3(mp_ctx *c, const mp_tensor *t)
{
    return mp_conv2d(c, t[0], t[1], t[2], (mp_conv2d_opts){.padding = 1});
}

static mp_tensor run_conv3d(mp_ctx *c, const mp_tensor *t)
{
    return mp_conv3d(c, t[0], t[1], t[2], (mp_conv3d_opts){.time_padding = 1, .padding = 1});
}

static mp_tensor run_time_conv(mp_ctx *c, const mp_tensor *t)
{
    return mp_conv3d(c, t[0], t[1], t[2], (mp_conv3d_opts){.time_stride = 2});
}

static mp_tensor run_depthwise(mp_ctx *c, const mp_tensor *t)
{
    return mp_conv2d(c, t[0], t[1], MP_NONE, (mp_conv2d_opts){.padding = 1, .groups = 8});
}

static mp_tensor run_sdpa(mp_ctx *c, const mp_tensor *t)
{
    return mp_attn_softmax(c, t[0], t[1], t[2],
                           (mp_attn_opts){.heads = 4, .mask = t[3], .rounding = MP_ATTN_SDPA});
}

static mp_tensor run_eager(mp_ctx *c, const mp_tensor *t)
{
    return mp_attn_softmax(
        c, t[0], t[1], t[2],
        (mp_attn_opts){.heads = 4, .mask = t[3], .softcap = 50.0f, .rounding = MP_ATTN_EAGER});
}

static mp_tensor run_attn_linear(mp_ctx *c, const mp_tensor *t)
{
    return mp_attn_linear(c, t[0], t[1], t[2], 4, 1e-15f);
}

static mp_tensor run_multiscale(mp_ctx *c, const mp_tensor *t)
{
    return mp_attn_multiscale_linear(c, t[0], 4, 1e-15f);
}

static mp_tensor run_quadratic(mp_ctx *c, const mp_tensor *t)
{
    return mp_attn_multiscale_quadratic(c, t[0], 4, 1e-15f, false);
}

static mp_tensor run_rope(mp_ctx *c, const mp_tensor *t)
{
    return mp_rope_half(c, t[0], t[1], t[2], 4);
}

static mp_tensor run_layer_norm(mp_ctx *c, const mp_tensor *t)
{
    return mp_layer_norm(c, t[0], t[1], t[2], 1e-5f);
}

static mp_tensor run_rms_torch(mp_ctx *c, const mp_tensor *t)
{
    return mp_rms_norm(c, t[0], t[1], MP_NONE, 1e-5f, MP_RMS_TORCH);
}

static mp_tensor run_rms_diffusers(mp_ctx *c, const mp_tensor *t)
{
    return mp_rms_norm(c, t[0], t[1], t[2], 1e-5f, MP_RMS_DIFFUSERS);
}

static mp_tensor run_rms_gemma(mp_ctx *c, const mp_tensor *t)
{
    return mp_rms_norm(c, t[0], t[1], MP_NONE, 1e-5f, MP_RMS_GEMMA);
}

static mp_tensor run_group_norm(mp_ctx *c, const mp_tensor *t)
{
    return mp_group_norm(c, t[0], 4, t[1], t[2], 1e-5f);
}

static mp_tensor run_softmax(mp_ctx *c, const mp_tensor *t)
{
    return mp_softmax(c, t[0]);
}

static mp_tensor run_add(mp_ctx *c, const mp_tensor *t)
{
    return mp_add(c, t[0], t[1]);
}

static mp_tensor run_mul(mp_ctx *c, const mp_tensor *t)
{
    return mp_mul(c, t[0], t[1]);
}

static mp_tensor run_add_scalar(mp_ctx *c, const mp_tensor *t)
{
    return mp_add_scalar(c, t[0], 0.1f);
}

static mp_tensor run_exp(mp_ctx *c, const mp_tensor *t)
{
    return mp_exp(c, t[0]);
}

static mp_tensor run_silu(mp_ctx *c, const mp_tensor *t)
{
    return mp_activate(c, t[0], MP_ACT_SILU);
}

static mp_tensor run_gelu_new(mp_ctx *c, const mp_tensor *t)
{
    return mp_activate(c, t[0], MP_ACT_GELU_NEW);
}

static mp_tensor run_quick_gelu(mp_ctx *c, const mp_tensor *t)
{
    return mp_activate(c, t[0], MP_ACT_QUICK_GELU);
}

static mp_tensor run_sum(mp_ctx *c, const mp_tensor *t)
{
    return mp_sum(c, t[0]);
}

static mp_tensor run_glu(mp_ctx *c, const mp_tensor *t)
{
    return mp_glu(c, t[0], MP_ACT_SILU);
}

static mp_tensor run_gate(mp_ctx *c, const mp_tensor *t)
{
    return mp_gate(c, t[0], t[1], MP_ACT_GELU_TANH);
}

static mp_tensor run_modulate(mp_ctx *c, const mp_tensor *t)
{
    return mp_modulate(c, t[0], t[1], t[2]);
}

static mp_tensor run_add_gated(mp_ctx *c, const mp_tensor *t)
{
    return mp_add_gated(c, t[0], t[1], t[2]);
}

static mp_tensor run_embedding(mp_ctx *c, const mp_tensor *t)
{
    return mp_embedding(c, (const int32_t[]){2, 0, 5}, 3, t[0]);
}

#define S1(a)                   \
    {                           \
        .rank = 1, .dim = { a } \
    }
#define S2(a, b)                   \
    {                              \
        .rank = 2, .dim = { a, b } \
    }
#define S3(a, b, c)                   \
    {                                 \
        .rank = 3, .dim = { a, b, c } \
    }
#define S4(a, b, c, d)                   \
    {                                    \
        .rank = 4, .dim = { a, b, c, d } \
    }
#define S5(a, b, c, d, e)                   \
    {                                       \
        .rank = 5, .dim = { a, b, c, d, e } \
    }

static const computation computations[] = {
    {"linear", run_linear, 3, {S2(ROWS, WIDTH), S2(8, WIDTH), S1(8)}},
    {"matmul", run_matmul, 2, {S3(2, 5, 7), S3(2, 7, 9)}},
    {"conv2d", run_conv3, 3, {S4(1, 5, 6, 8), S4(16, 8, 3, 3), S1(16)}},
    {"conv3d", run_conv3d, 3, {S5(1, 3, 2, 16, 32), S5(4, 32, 3, 3, 3), S1(4)}},
    {"conv3d in time", run_time_conv, 3, {S5(1, 5, 2, 3, 8), S5(16, 8, 3, 1, 1), S1(16)}},
    {"depthwise", run_depthwise, 2, {S4(1, 5, 6, 8), S4(8, 1, 3, 3)}},
    {"sdpa", run_sdpa, 4, {S3(1, 9, WIDTH), S3(1, 9, WIDTH), S3(1, 9, WIDTH), S2(1, 9)}},
    {"eager", run_eager, 4, {S3(1, 9, WIDTH), S3(1, 9, WIDTH), S3(1, 9, WIDTH), S2(1, 9)}},
    {"attn_linear", run_attn_linear, 3, {S3(1, 9, WIDTH), S3(1, 9, WIDTH), S3(1, 9, WIDTH)}},
    {"multiscale", run_multiscale, 1, {S4(1, 4, 5, 24)}},
    {"quadratic", run_quadratic, 1, {S4(1, 4, 5, 24)}},
    {"rope_half", run_rope, 3, {S3(1, 9, WIDTH), S2(9, 8), S2(9, 8)}},
    {"layer_norm", run_layer_norm, 3, {S2(ROWS, WIDTH), S1(WIDTH), S1(WIDTH)}},
    {"rms_torch", run_rms_torch, 2, {S2(ROWS, WIDTH), S1(WIDTH)}},
    {"rms_diffusers", run_rms_diffusers, 3, {S2(ROWS, WIDTH), S1(WIDTH), S1(WIDTH)}},
    {"rms_gemma", run_rms_gemma, 2, {S2(ROWS, WIDTH), S1(WIDTH)}},
    {"group_norm", run_group_norm, 3, {S4(1, 5, 6, 8), S1(8), S1(8)}},
    {"softmax", run_softmax, 1, {S2(ROWS, WIDTH)}},
    {"add", run_add, 2, {S2(ROWS, WIDTH), S1(WIDTH)}},
    {"mul", run_mul, 2, {S2(ROWS, WIDTH), S2(ROWS, WIDTH)}},
    {"add_scalar", run_add_scalar, 1, {S2(ROWS, WIDTH)}},
    {"exp", run_exp, 1, {S2(ROWS, WIDTH)}},
    {"silu", run_silu, 1, {S2(ROWS, WIDTH)}},
    {"gelu_new", run_gelu_new, 1, {S2(ROWS, WIDTH)}},
    {"quick_gelu", run_quick_gelu, 1, {S2(ROWS, WIDTH)}},
    {"sum", run_sum, 1, {S2(ROWS, WIDTH)}},
    {"glu", run_glu, 1, {S2(ROWS, WIDTH)}},
    {"gate", run_gate, 2, {S2(ROWS, WIDTH), S2(ROWS, WIDTH)}},
    {"modulate", run_modulate, 3, {S3(2, 3, WIDTH), S3(2, 1, WIDTH), S3(2, 1, WIDTH)}},
    {"add_gated", run_add_gated, 3, {S3(2, 3, WIDTH), S3(2, 1, WIDTH), S3(2, 3, WIDTH)}},
    {"embedding", run_embedding, 1, {S2(ROWS, WIDTH)}},
};

enum { COMPUTATIONS = sizeof computations / sizeof *computations };

/* The second attempt tells an op that its operands are fp32 and leaves them in memory as they are:
 * every kernel must go by what is in store, on every instruction set. */
static void test_policy__operands_that_are_called_fp32_compute_as_if_they_were(void **state)
{
    static const mp_dtype stores[] = {MP_BF16, MP_F16, MP_F8_E4M3};

    (void)state;
    for (const char *const *isa = mp_test_isas(); *isa; isa++) {
        mp_ctx *const c = open_policy("cpu", *isa, MP_STRICT);
        for (int k = 0; k < COMPUTATIONS; k++)
            for (int s = 0; s < 3; s++) {
                const computation *const p = &computations[k];
                const mp_mark mark = mp_open(c);
                mp_tensor called[4], wide[4];
                for (int i = 0; i < p->n; i++) {
                    const mp_tensor t = p->shape[i];
                    called[i] = values(c, stores[s], t.rank, t.dim, 0.5f + 0.25f * (float)i);
                    wide[i] = mp_cast(c, called[i], MP_F32);
                    called[i].dtype = MP_F32;
                }
                const mp_tensor y = p->run(c, called);
                if (mp_failed(c))
                    fail_msg("%s: %s", p->name, mp_ctx_error(c)->text);
                mp_test_same(y, p->run(c, wide));
                mp_drop(c, mark);
            }
        mp_device_close(c);
    }
}

static void test_policy__a_refused_op_is_done_in_fp32_and_comes_back(void **state)
{
    mp_ctx *const c = open_policy("cpu", NULL, MP_FALLBACK);
    const mp_tensor x = values(c, MP_BF16, 2, MP_DIMS(ROWS, WIDTH), 1.0f);
    const mp_tensor w = named(values(c, MP_F16, 2, MP_DIMS(8, WIDTH), 1.0f), "net.proj.weight");

    (void)state;
    const mp_tensor y = mp_linear(c, x, w, MP_NONE);
    mp_test_ok(c);
    assert_int_equal(mp_action_count(c), 1);
    check_action(c, 0, MP_REDO_REFUSED, "net.proj", "linear", MP_BF16, MP_BF16, 1, ROWS * 8);
    mp_test_same(y, mp_cast(c, mp_linear(c, mp_cast(c, x, MP_F32), mp_cast(c, w, MP_F32), MP_NONE),
                            MP_BF16));
    assert_int_equal(mp_action_count(c), 1); /* fp32 operands are not redone */
    mp_device_close(c);
}

static void test_policy__what_overflows_stays_fp32_where_it_does_not_fit(void **state)
{
    mp_ctx *const c = open_policy("cpu", NULL, MP_FALLBACK);
    const float big[] = {60000.0f, -1.0f};

    (void)state;
    mp_push(c, "net");
    const mp_tensor x = mp_test_floats(c, MP_F16, 1, MP_DIMS(2), big);
    const mp_tensor y = mp_mul_scalar(c, x, 2.0f);
    mp_pop(c);
    mp_test_ok(c);
    assert_int_equal(y.dtype, MP_F32);
    assert_float_equal(((const float *)y.data)[0], 120000.0f, 0.0f);
    check_action(c, 0, MP_REDO_NONFINITE, "net", "mul", MP_F16, MP_F32, 1, 2);
    mp_device_close(c);
}

/* (1 + scale) x overflows on the way to a sum that fits. */
static void test_policy__what_overflows_on_the_way_comes_back(void **state)
{
    mp_ctx *const c = open_policy("cpu", NULL, MP_FALLBACK);
    const mp_tensor x = mp_test_floats(c, MP_F16, 3, MP_DIMS(1, 1, 1), (float[]){40000.0f});
    const mp_tensor scale = mp_test_floats(c, MP_F16, 3, MP_DIMS(1, 1, 1), (float[]){1.0f});
    const mp_tensor shift = mp_test_floats(c, MP_F16, 3, MP_DIMS(1, 1, 1), (float[]){-40000.0f});

    (void)state;
    const mp_tensor y = mp_modulate(c, x, shift, scale);
    mp_test_ok(c);
    mp_test_same(y, x);
    check_action(c, 0, MP_REDO_NONFINITE, "", "modulate", MP_F16, MP_F16, 1, 1);
    mp_device_close(c);
}

static void test_policy__what_was_not_finite_before_is_left_alone(void **state)
{
    mp_ctx *const c = open_policy("cpu", NULL, MP_FALLBACK);
    const mp_tensor x = mp_test_floats(c, MP_F16, 1, MP_DIMS(2), (float[]){INFINITY, 1.0f});

    (void)state;
    assert_int_equal(mp_mul_scalar(c, x, 2.0f).dtype, MP_F16);
    mp_test_ok(c);
    assert_int_equal(mp_action_count(c), 0);
    mp_device_close(c);
}

static void test_policy__an_op_in_place_keeps_what_a_second_attempt_reads(void **state)
{
    mp_ctx *const fallback = open_policy("cpu", NULL, MP_FALLBACK);
    mp_ctx *const strict = open_policy("cpu", NULL, MP_STRICT);
    const mp_tensor x = values(fallback, MP_F16, 1, MP_DIMS(WIDTH), 1.0f);
    const mp_tensor z = values(strict, MP_F16, 1, MP_DIMS(WIDTH), 1.0f);

    (void)state;
    assert_ptr_not_equal(mp_activate_(fallback, x, MP_ACT_SILU).data, x.data);
    assert_ptr_equal(mp_activate_(strict, z, MP_ACT_SILU).data, z.data);
    mp_device_close(fallback);
    mp_device_close(strict);
}

/* An error that fp32 does not mend is the error of the second attempt. */
static void test_policy__a_shape_that_does_not_fit_is_an_error_all_the_same(void **state)
{
    mp_ctx *const c = open_policy("cpu", NULL, MP_FALLBACK);
    const mp_tensor x = values(c, MP_BF16, 2, MP_DIMS(ROWS, WIDTH), 1.0f);
    const mp_tensor w = values(c, MP_F16, 2, MP_DIMS(8, WIDTH - 1), 1.0f);

    (void)state;
    mp_linear(c, x, w, MP_NONE);
    mp_test_fails(c, MP_ESHAPE, "does not fit weight");
    assert_int_equal(mp_action_count(c), 0);
    mp_device_close(c);
}

/* ---- meta ------------------------------------------------------------------------------------ */

/* Same shapes, dtypes, memory and actions as the CPU. */
static void test_policy__meta_does_all_but_the_arithmetic(void **state)
{
    mp_ctx *const meta = open_declared("meta", MP_NEGOTIATE);
    mp_ctx *const cpu = open_declared("cpu", MP_NEGOTIATE);
    mp_ctx *const both[] = {meta, cpu};
    mp_tensor y[2];
    mp_device_info info;

    (void)state;
    for (int i = 0; i < 2; i++) {
        mp_ctx *const c = both[i];
        const mp_tensor w = named(values(c, MP_F16, 2, MP_DIMS(8, WIDTH), 1.0f), "net.proj.weight");
        mp_tensor x = values(c, MP_F32, 2, MP_DIMS(ROWS, WIDTH), 1.0f);
        x = mp_enter(c, x, "net");
        y[i] = mp_leave(c, mp_softmax(c, mp_linear(c, x, w, MP_NONE)));
        mp_test_ok(c);
        mp_linear(c, x, named(w, "net.other.weight"), MP_NONE);
        mp_test_fails(c, MP_EDTYPE, "expected m1 and m2 to have the same dtype");
    }
    assert_true(mp_same_shape(y[0], y[1]) && y[0].dtype == y[1].dtype);
    assert_int_equal(mp_pool_get(meta).peak, mp_pool_get(cpu).peak);
    assert_int_equal(mp_action_count(meta), mp_action_count(cpu));
    for (int i = 0; i < mp_action_count(cpu); i++) {
        const mp_action *const a = mp_action_at(cpu, i);
        check_action(meta, i, a->kind, a->module, a->op, a->from, a->to, a->count, a->elements);
    }
    mp_device_describe(meta, &info);
    assert_string_equal(info.isa, "meta");
    assert_int_equal(info.threads, 0);
    mp_device_close(meta);
    mp_device_close(cpu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_policy__names_go_both_ways),
        cmocka_unit_test(test_policy__a_glob_matches_a_path_or_a_parent_of_it),
        cmocka_unit_test(test_policy__a_declared_layer_gets_its_dtype_and_gives_back_that_around),
        cmocka_unit_test(test_policy__modules_take_and_give_at_their_boundaries_only),
        cmocka_unit_test(test_policy__what_no_declaration_explains_is_still_refused),
        cmocka_unit_test(test_policy__strict_casts_nothing),
        cmocka_unit_test(test_policy__operands_that_are_called_fp32_compute_as_if_they_were),
        cmocka_unit_test(test_policy__a_refused_op_is_done_in_fp32_and_comes_back),
        cmocka_unit_test(test_policy__what_overflows_stays_fp32_where_it_does_not_fit),
        cmocka_unit_test(test_policy__what_overflows_on_the_way_comes_back),
        cmocka_unit_test(test_policy__what_was_not_finite_before_is_left_alone),
        cmocka_unit_test(test_policy__an_op_in_place_keeps_what_a_second_attempt_reads),
        cmocka_unit_test(test_policy__a_shape_that_does_not_fit_is_an_error_all_the_same),
        cmocka_unit_test(test_policy__meta_does_all_but_the_arithmetic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
