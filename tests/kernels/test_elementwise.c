/* Elementwise ops against torch (tests/fixtures/make_kernels_vector.py), on every instruction set:
 * transcendental ones within derived bounds, everything else bit for bit. */
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

static const char *const dtypes[] = {"fp32", "fp16", "bf16"};

/* Lengths about the widths of vectors and chunks. */
static const int64_t lengths[] = {1, 7, 8, 15, 16, 17, 511, 512, 513, 1024};

enum { DTYPES = 3, LENGTHS = sizeof lengths / sizeof *lengths };

/* Opens the goldens and runs a test on every instruction set. */
static void each_isa(void (*test)(mp_ctx *, const mp_safetensors *))
{
    mp_safetensors *g = mp_test_goldens("kernels/elementwise.safetensors");

    for (const char *const *isa = mp_test_isas(); *isa; isa++) {
        mp_ctx *c = mp_test_ctx(*isa, 2);
        test(c, g);
        mp_test_ok(c);
        mp_device_close(c);
    }
    mp_safetensors_close(g);
}

static mp_tensor prefix(mp_tensor x, int64_t n)
{
    assert_int_equal(x.rank, 1);
    assert_true(n <= x.dim[0]);
    x.dim[0] = n;
    return x;
}

/* y = op(x) is `golden` within t, and a shorter x gives the same bits as far as it goes. */
static void check_prefixes(mp_ctx *c, mp_tensor (*op)(mp_ctx *, mp_tensor, const void *),
                           const void *arg, mp_tensor x, mp_tensor golden, mp_tolerance t)
{
    const mp_mark mark = mp_open(c);
    const mp_tensor y = op(c, prefix(x, golden.dim[0]), arg);

    mp_test_close(y, golden, t);
    for (int i = 0; i < LENGTHS && lengths[i] <= golden.dim[0]; i++) {
        const mp_mark inner = mp_open(c);
        mp_test_same(op(c, prefix(x, lengths[i]), arg), prefix(y, lengths[i]));
        mp_drop(c, inner);
    }
    mp_drop(c, mark);
}

/* Bounds in fp32.  Our exp and tanh are within 2 ulp and torch's (SLEEF's) within 1; each further
 * operation adds half an ulp on either side.  abs covers cancellation:
 *   gelu       torch's erf is off by up to 3.6e-7, times x / 2 where 1 + erf vanishes (|x| < 5)
 *   gelu_tanh  2 ulp of 1 (2.4e-7) in 1 + tanh, times x / 2 for |x| < 6
 *   quick_gelu  torch flushes the denormals of sigmoid to 0; times |x| < 61
 *   mish       torch flushes the denormals of exp to 0; times |x| < 104
 * A half then differs where a bound straddles a tie: by one ulp, for about 4 / 2^13 of fp16. */
static const struct bound {
    const char *name;
    mp_tolerance fp32;
} bounds[] = {
    {"silu", {"exp, + and /", .ulps = 4}},
    {"relu", {"exact", .ulps = 0}},
    {"relu6", {"exact", .ulps = 0}},
    {"gelu", {"torch's erf", .ulps = 3, .abs = 9e-7}},
    {"gelu_tanh", {"tanh and a cancellation", .ulps = 3, .abs = 7.2e-7}},
    {"quick_gelu", {"sigmoid and *", .ulps = 5, .abs = 1.2e-36}},
    {"tanh", {"tanh on either side", .ulps = 3}},
    {"sigmoid", {"exp, + and /", .ulps = 4}},
    {"mish", {"exp, log1p, tanh and *", .ulps = 6, .abs = 1.2e-36}},
    {"exp", {"exp on either side", .ulps = 3}},
};

static mp_tensor by_name(mp_ctx *c, mp_tensor x, const void *name)
{
    mp_act act;

    if (!strcmp(name, "exp"))
        return mp_exp(c, x);
    assert_true(mp_act_parse(name, &act));
    return mp_activate(c, x, act);
}

static mp_tolerance of_dtype(mp_tolerance fp32, int dtype)
{
    if (!dtype || (!fp32.ulps && fp32.abs == 0))
        return fp32;
    /* The two approximations that cancel leave more than ties: up to 9e-7 of values that small. */
    return (mp_tolerance){fp32.name, .ulps = 1, .abs = fp32.abs,
                          .share = fp32.abs > 1e-9 ? 0.03 : 0.002};
}

static void check_activations(mp_ctx *c, const mp_safetensors *g)
{
    for (int d = 0; d < DTYPES; d++) {
        const mp_tensor x = mp_test_tensor(c, g, "x.%s", dtypes[d]);
        for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++)
            check_prefixes(c, by_name, bounds[i].name, x,
                           mp_test_golden(g, "%s.%s", bounds[i].name, dtypes[d]),
                           of_dtype(bounds[i].fp32, d));
    }
}

static void test_elementwise__activations_are_torchs_within_their_bounds(void **state)
{
    (void)state;
    each_isa(check_activations);
}

/* gelu_new is torch's ops one by one (make_t5.py), so that halves are torch's bits but where tanh,
 * off by 2e-7, meets a tie: one in 4000 of fp16.  In fp32 1 + tanh cancels, as gelu_tanh's does.
 * Below -3 a step of 1 + tanh, 2^-11 of fp16 and 2^-8 of bf16, times x / 2 is what a tie moves. */
static void check_gelu_new(mp_ctx *c, const mp_safetensors *g)
{
    static const char *const names[] = {"fp32", "fp16", "bf16"};
    static const mp_tolerance fp32 = {"tanh and a cancellation", .ulps = 3, .abs = 7.2e-7};
    static const mp_tolerance halves[] = {
        {"a tie of fp16's tanh", .ulps = 1, .abs = 4.5 / 2048, .share = 0.02},
        {"a tie of bf16's tanh", .ulps = 1, .abs = 4.5 / 256, .share = 0.02}};

    (void)g;
    mp_safetensors *t5 = mp_test_goldens("kernels/t5.safetensors");
    for (int d = MP_F32; d <= MP_BF16; d++) {
        const mp_tensor x = mp_cast(c, mp_test_tensor(c, t5, "gelu_new.x"), (mp_dtype)d);
        const mp_tensor y = mp_activate(c, x, MP_ACT_GELU_NEW);
        mp_test_ok(c);
        mp_test_close(y, mp_test_golden(t5, "gelu_new.%s", names[d]), d ? halves[d - 1] : fp32);
        mp_test_same(mp_gate(c, x, x, MP_ACT_GELU_NEW), mp_mul(c, y, x));
    }
    mp_safetensors_close(t5);
}

static void test_elementwise__gelu_new_rounds_after_each_of_its_ops(void **state)
{
    (void)state;
    each_isa(check_gelu_new);
}

/* torch.clamp of T5Block: 64504 becomes fp16's 64512; without an infinity, nothing happens. */
static void test_elementwise__infinities_of_fp16_are_clipped_as_t5_does(void **state)
{
    static const float in[] = {1.0f, INFINITY, -INFINITY, 65504.0f, 64480.0f, NAN};
    static const float out[] = {1.0f, 64512.0f, -64512.0f, 64512.0f, 64480.0f, NAN};
    mp_ctx *c = mp_test_ctx(NULL, 1);

    (void)state;
    for (int d = MP_F32; d <= MP_BF16; d++) {
        const mp_tensor x = mp_test_floats(c, (mp_dtype)d, 1, MP_DIMS(6), in);
        const mp_tensor y = mp_clip_infinite(c, x);
        mp_test_same(y, mp_test_floats(c, (mp_dtype)d, 1, MP_DIMS(6), d == MP_F16 ? out : in));
        assert_true((y.data == x.data) == (d != MP_F16));
    }
    const mp_tensor finite = mp_test_floats(c, MP_F16, 1, MP_DIMS(3), in + 3);
    assert_ptr_equal(mp_clip_infinite(c, finite).data, finite.data);
    mp_test_ok(c);
    mp_fail(c, MP_ESHAPE, NULL, "x");
    assert_false(mp_given(mp_clip_infinite(c, finite)));
    mp_device_close(c);
}

static void check_in_place(mp_ctx *c, const mp_safetensors *g)
{
    for (int d = 0; d < DTYPES; d++)
        for (int act = MP_ACT_NONE; act <= MP_ACT_GELU_NEW; act++) {
            const mp_tensor x = mp_test_tensor(c, g, "x.%s", dtypes[d]);
            const mp_tensor y = mp_activate(c, x, (mp_act)act);
            const mp_tensor same = mp_activate_(c, x, (mp_act)act);
            assert_ptr_equal(same.data, x.data);
            mp_test_same(same, y);
        }
}

static void test_elementwise__activating_in_place_gives_the_same_bits(void **state)
{
    (void)state;
    each_isa(check_in_place);
}

static mp_tensor with_number(mp_ctx *c, mp_tensor x, const void *name)
{
    if (!strcmp(name, "add_scalar"))
        return mp_add_scalar(c, x, 0.3f);
    if (!strcmp(name, "mul_scalar"))
        return mp_mul_scalar(c, x, 0.3f);
    if (!strcmp(name, "div_scalar"))
        return mp_div_scalar(c, x, 0.3f);
    return mp_clip(c, x, -0.7f, 5.1f);
}

static void check_numbers(mp_ctx *c, const mp_safetensors *g)
{
    static const char *const names[] = {"add_scalar", "mul_scalar", "div_scalar", "clip"};

    for (int d = 0; d < DTYPES; d++)
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
            check_prefixes(c, with_number, names[i], mp_test_tensor(c, g, "x.%s", dtypes[d]),
                           mp_test_golden(g, "%s.%s", names[i], dtypes[d]),
                           (mp_tolerance){"one rounding", .ulps = 0});
}

static void test_elementwise__numbers_round_first_in_sums_and_stay_fp32_in_products(void **state)
{
    (void)state;
    each_isa(check_numbers);
}

/* Broadcasts, promotion, and operands without dimensions: see BINARY in the script. */
static void check_binary(mp_ctx *c, const mp_safetensors *g)
{
    enum { PRODUCTS = 17, SUMS = 15 };
    int sums = 0;

    for (int i = 0; i < PRODUCTS; i++) {
        const mp_tensor a = mp_test_tensor(c, g, "binary.%d.a", i);
        const mp_tensor b = mp_test_tensor(c, g, "binary.%d.b", i);
        mp_test_same(mp_mul(c, a, b), mp_test_golden(g, "mul.%d", i));
        if (a.dtype == MP_F8_E4M3 || a.dtype == MP_F8_E5M2)
            continue; /* torch has no sum of fp8 */
        mp_test_same(mp_add(c, a, b), mp_test_golden(g, "add.%d", i));
        sums++;
    }
    assert_int_equal(sums, SUMS);
}

static void test_elementwise__sums_and_products_broadcast_and_promote_as_torch(void **state)
{
    (void)state;
    each_isa(check_binary);
}

static void check_composites(mp_ctx *c, const mp_safetensors *g)
{
    const uint8_t *mask = mp_test_golden(g, "mask").data;

    for (int i = 0; i < 5; i++) {
        const mp_tensor x = mp_test_tensor(c, g, "mod.%d.x", i);
        const mp_tensor v = mp_test_tensor(c, g, "mod.%d.v", i);
        const mp_tensor shift = mp_test_tensor(c, g, "mod.%d.shift", i);
        const mp_tensor scale = mp_test_tensor(c, g, "mod.%d.scale", i);
        const mp_tensor u = mp_test_tensor(c, g, "gate.%d.u", i);
        mp_test_same(mp_modulate(c, x, shift, scale), mp_test_golden(g, "modulate.%d", i));
        mp_test_same(mp_add_gated(c, x, scale, v), mp_test_golden(g, "add_gated.%d", i));
        mp_test_same(mp_where(c, mask, x, u), mp_test_golden(g, "where.%d", i));
        /* gelu_tanh's bound in fp32, times |u| < 4; a rounding of the gate before the product. */
        mp_test_close(mp_gate(c, x, u, MP_ACT_GELU_TANH), mp_test_golden(g, "gate.%d", i),
                      i ? (mp_tolerance){"a tie of the gate", .ulps = 2, .share = 0.002}
                        : (mp_tolerance){"gelu_tanh * u", .ulps = 4, .abs = 2.9e-6});
    }
}

static void test_elementwise__composites_round_where_torchs_ops_do(void **state)
{
    (void)state;
    each_isa(check_composites);
}

static void check_glu_and_rope(mp_ctx *c, const mp_safetensors *g)
{
    for (int d = 0; d < DTYPES; d++) {
        const mp_tensor x = mp_test_tensor(c, g, "glu.%s.x", dtypes[d]);
        mp_test_close(mp_glu(c, x, MP_ACT_SILU), mp_test_golden(g, "glu.%s", dtypes[d]),
                      d ? (mp_tolerance){"a tie of silu", .ulps = 2, .share = 0.002}
                        : (mp_tolerance){"silu within 4 ulp, *", .ulps = 5});
        mp_test_same(mp_rope_half(c, mp_test_tensor(c, g, "rope.%s.x", dtypes[d]),
                                  mp_test_tensor(c, g, "rope.%s.cos", dtypes[d]),
                                  mp_test_tensor(c, g, "rope.%s.sin", dtypes[d]), 4),
                     mp_test_golden(g, "rope.%s", dtypes[d]));
    }
}

static void test_elementwise__glu_gates_with_its_second_half_and_rope_rounds_thrice(void **state)
{
    (void)state;
    each_isa(check_glu_and_rope);
}

/* nan_to_num(1, 2, 3) and clip(-9, 9), as the script prepares the sums' operands. */
static void tame(mp_tensor x)
{
    for (int64_t i = 0; i < mp_numel(x); i++) {
        char *p = (char *)x.data + (size_t)i * mp_dtype_size(x.dtype);
        float v;
        mp_widen(x.dtype, p, &v, 1);
        v = isnan(v) ? 1.0f : isinf(v) ? (v > 0 ? 2.0f : 3.0f) : fminf(fmaxf(v, -9.0f), 9.0f);
        mp_narrow(x.dtype, MP_E4M3_SATURATE, &v, p, 1);
    }
}

/* fp32 sums in another order: n roundings of partial sums below 9 * sqrt(n) or so, at most
 * n / 32 * 2^-24 * (sum of magnitudes) in 32 lanes; far less for mixed signs. */
static void check_sums(mp_ctx *c, const mp_safetensors *g)
{
    static const int sizes[] = {1, 7, 16, 511, 513, 1543};

    for (int d = 0; d < DTYPES; d++) {
        const mp_tensor x = mp_test_tensor(c, g, "x.%s", dtypes[d]);
        tame(x);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            mp_test_close(mp_sum(c, prefix(x, sizes[i])),
                          mp_test_golden(g, "sum.%s.%d", dtypes[d], sizes[i]),
                          (mp_tolerance){"the order of the sum", .ulps = d ? 1 : 0,
                                         .abs = d ? 0 : sizes[i] * 9.0 * ldexp(1, -24)});
    }
}

static void test_elementwise__sums_all_elements_to_a_tensor_without_dimensions(void **state)
{
    (void)state;
    each_isa(check_sums);
}

static mp_tensor silu(mp_ctx *c, mp_tensor x)
{
    return mp_activate(c, x, MP_ACT_SILU);
}

static mp_tensor gelu(mp_ctx *c, mp_tensor x)
{
    return mp_activate(c, x, MP_ACT_GELU);
}

static mp_tensor gelu_tanh(mp_ctx *c, mp_tensor x)
{
    return mp_activate(c, x, MP_ACT_GELU_TANH);
}

static mp_tensor quick_gelu(mp_ctx *c, mp_tensor x)
{
    return mp_activate(c, x, MP_ACT_QUICK_GELU);
}

static mp_tensor mish(mp_ctx *c, mp_tensor x)
{
    return mp_activate(c, x, MP_ACT_MISH);
}

static mp_tensor sigmoid(mp_ctx *c, mp_tensor x)
{
    return mp_activate(c, x, MP_ACT_SIGMOID);
}

static mp_tensor divided(mp_ctx *c, mp_tensor x)
{
    return mp_div_scalar(c, mp_add_scalar(c, x, 0.1f), 0.7f);
}

static mp_tensor twice_and_rows(mp_ctx *c, mp_tensor x)
{
    const mp_tensor table = mp_reshape(x, 2, MP_DIMS(7, mp_numel(x) / 7));
    const mp_tensor row = mp_reshape(mp_batch(table, 3, 1), 1, MP_DIMS(table.dim[1]));

    return mp_add(c, mp_mul(c, table, table), row);
}

static mp_tensor halves(mp_ctx *c, mp_tensor x)
{
    return mp_glu(c, mp_reshape(x, 2, MP_DIMS(mp_numel(x) / 14, 14)), MP_ACT_SILU);
}

static mp_tensor modulated(mp_ctx *c, mp_tensor x)
{
    const mp_tensor rows = mp_reshape(x, 3, MP_DIMS(1, 7, mp_numel(x) / 7));
    const mp_tensor row =
        mp_reshape(mp_batch(mp_reshape(x, 2, rows.dim + 1), 2, 1), 3, MP_DIMS(1, 1, rows.dim[2]));

    return mp_add_gated(c, mp_modulate(c, rows, row, row), row, rows);
}

static mp_tensor bytes_and_back(mp_ctx *c, mp_tensor x)
{
    return mp_cast(c, mp_cast(c, mp_cast(c, x, MP_F8_E5M2), MP_BF16), MP_F16);
}

/* What is computed in several tasks is what its parts give alone. */
static void check_parts(mp_ctx *c, mp_tensor (*op)(mp_ctx *, mp_tensor), mp_tensor x)
{
    enum { PART = 1999 };
    const mp_tensor y = op(c, x);

    for (int64_t i = 0; i < x.dim[0]; i += PART) {
        const mp_mark mark = mp_open(c);
        const int64_t n = x.dim[0] - i < PART ? x.dim[0] - i : PART;
        mp_test_same(mp_batch(y, i, n), op(c, mp_batch(x, i, n)));
        mp_drop(c, mark);
    }
}

static mp_tensor doubled(mp_ctx *c, mp_tensor x)
{
    return mp_add(c, x, x);
}

static mp_tensor squared(mp_ctx *c, mp_tensor x)
{
    return mp_mul(c, x, x);
}

static mp_tensor chosen(mp_ctx *c, mp_tensor x)
{
    static uint8_t mask[98014]; /* all zero: the second operand */

    return mp_where(c, mask, squared(c, x), x);
}

static void test_elementwise__long_rows_are_computed_to_their_end(void **state)
{
    enum { N = 98014 };
    static float values[N];

    (void)state;
    for (int i = 0; i < N; i++)
        values[i] = (float)(i + 1) / 1024;
    for (const char *const *isa = mp_test_isas(); *isa; isa++)
        for (int d = MP_F32; d <= MP_BF16; d++) {
            mp_ctx *c = mp_test_ctx(*isa, 3);
            const mp_tensor x = mp_test_floats(c, (mp_dtype)d, 1, MP_DIMS(N), values);
            check_parts(c, doubled, x);
            check_parts(c, squared, x);
            check_parts(c, silu, x);
            check_parts(c, divided, x);
            mp_test_same(chosen(c, x), x);
            mp_device_close(c);
        }
}

/* "base" beside the others in fp32: exp is within 2 ulp on either side, and each further operation
 * adds half an ulp on either.  abs covers cancellation:
 *   gelu       erf is off by 1.2e-7 on either side, times x / 2 where 1 + erf vanishes (|x| < 6)
 *   gelu_tanh  tanh is off by 1.3e-7 on either side and 1 + tanh rounds, times x / 2 for |x| < 6
 * Halves are what of_dtype says. */
static const struct {
    mp_test_case op;
    mp_tolerance base;
} fused[] = {
    {{"silu", silu}, {"exp, + and / on either side", .ulps = 6}},
    {{"gelu", gelu}, {"erf on either side", .ulps = 4, .abs = 7.2e-7}},
    {{"gelu_tanh", gelu_tanh}, {"tanh on either side", .ulps = 5, .abs = 1.2e-6}},
    {{"quick_gelu", quick_gelu}, {"sigmoid and * on either side", .ulps = 7}},
    {{"mish", mish}, {"exp, five operations on either side", .ulps = 9}},
    {{"sigmoid", sigmoid}, {"exp, + and / on either side", .ulps = 6}},
    {{"exp", mp_exp}, {"exp on either side", .ulps = 4}},
    {{"glu", halves}, {"silu and * on either side", .ulps = 7}},
};

/* 98,014 values are three tasks of whole chunks and a remainder. */
static void test_elementwise__instruction_sets_and_thread_counts_give_the_same_bits(void **state)
{
    static const mp_test_case exact[] = {
        {"numbers", divided},    {"binary", twice_and_rows},
        {"modulate", modulated}, {"casts", bytes_and_back},
        {"sum", mp_sum},
    };
    enum { N = 98014 };
    static float values[N];
    mp_ctx *c = mp_test_ctx("base", 1);

    (void)state;
    for (int i = 0; i < N; i++) {
        const uint32_t mixed = (uint32_t)i * 2654435761u;
        values[i] = ldexpf((float)(int32_t)mixed, -31 + (int)(mixed % 11) - 5);
    }
    values[500] = NAN, values[40000] = INFINITY;
    for (int d = MP_F32; d <= MP_BF16; d++) {
        const mp_tensor x = mp_test_floats(c, (mp_dtype)d, 1, MP_DIMS(N), values);
        mp_test_agree(exact, sizeof exact / sizeof *exact, x);
        for (size_t i = 0; i < sizeof fused / sizeof *fused; i++)
            mp_test_agree_fused(&fused[i].op, x, of_dtype(fused[i].base, d));
    }
    mp_device_close(c);
}

static void test_elementwise__operands_that_do_not_fit_are_refused_with_their_shapes(void **state)
{
    (void)state;
    mp_ctx *c = mp_test_ctx(NULL, 1);
    const mp_tensor x = mp_new(c, MP_F32, 3, MP_DIMS(2, 3, 5));
    const mp_tensor row = mp_new(c, MP_F32, 3, MP_DIMS(3, 1, 5));

    memset(x.data, 0, mp_nbytes(x));
    memset(row.data, 0, mp_nbytes(row));
    mp_add(c, x, row);
    assert_string_equal(mp_ctx_error(c)->op, "add");
    mp_test_fails(c, MP_ESHAPE, "[2, 3, 5] and [3, 1, 5]");
    mp_glu(c, x, MP_ACT_SILU);
    mp_test_fails(c, MP_ESHAPE, "[2, 3, 5]");
    mp_gate(c, x, row, MP_ACT_SILU);
    mp_test_fails(c, MP_ESHAPE, "[3, 1, 5]");
    mp_where(c, NULL, x, row);
    mp_test_fails(c, MP_ESHAPE, "[3, 1, 5]");
    mp_modulate(c, x, row, row);
    mp_test_fails(c, MP_ESHAPE, "[2, 3, 5]");
    mp_add_gated(c, x, row, x);
    mp_test_fails(c, MP_ESHAPE, "[2, 3, 5]");
    mp_device_close(c);
}

static void test_elementwise__empty_tensors_stay_empty(void **state)
{
    (void)state;
    mp_ctx *c = mp_test_ctx(NULL, 2);
    const mp_tensor x = mp_new(c, MP_BF16, 2, MP_DIMS(0, 4));

    assert_int_equal(mp_numel(mp_add(c, x, x)), 0);
    assert_int_equal(mp_numel(mp_activate(c, x, MP_ACT_SILU)), 0);
    assert_int_equal(mp_numel(mp_glu(c, x, MP_ACT_SILU)), 0);
    assert_int_equal(mp_numel(mp_cast(c, x, MP_F32)), 0);
    const mp_tensor sum = mp_sum(c, x);
    mp_test_ok(c);
    assert_int_equal(*(uint16_t *)sum.data, 0);
    mp_device_close(c);
}

/* A weight whose memory is narrower than its dtype counts as its dtype. */
static void test_elementwise__weights_stored_narrower_compute_in_their_dtype(void **state)
{
    (void)state;
    mp_ctx *c = mp_test_ctx(NULL, 1);
    const float values[] = {1.5f, -2.0f, 0.25f, 448.0f};
    const mp_tensor wide = mp_test_floats(c, MP_BF16, 1, MP_DIMS(4), values);
    mp_tensor narrow = mp_test_floats(c, MP_F8_E4M3, 1, MP_DIMS(4), values);

    narrow.dtype = MP_BF16;
    mp_test_same(mp_add(c, narrow, wide), mp_add(c, wide, wide));
    mp_test_same(mp_activate(c, narrow, MP_ACT_SILU), mp_activate(c, wide, MP_ACT_SILU));
    mp_test_same(mp_mul_scalar(c, narrow, 0.3f), mp_mul_scalar(c, wide, 0.3f));
    mp_device_close(c);
}

static void test_elementwise__measure_counts_what_is_not_finite(void **state)
{
    enum { N = 1300 };
    float values[N] = {0};
    (void)state;

    values[3] = -7.5f, values[600] = NAN, values[601] = -INFINITY, values[N - 1] = INFINITY;
    for (const char *const *isa = mp_test_isas(); *isa; isa++) {
        mp_ctx *c = mp_test_ctx(*isa, 2);
        for (int d = MP_F32; d <= MP_BF16; d++) {
            const mp_tensor x = mp_test_floats(c, (mp_dtype)d, 2, MP_DIMS(2, N / 2), values);
            const mp_range r = mp_measure(c, x);
            assert_int_equal(r.nan, 1);
            assert_int_equal(r.inf, 2);
            assert_true(r.max_abs == 7.5f);
        }
        assert_true(mp_measure(c, MP_NONE).max_abs == 0.0f);
        mp_device_close(c);
    }
}

static void test_elementwise__names_of_activations_parse(void **state)
{
    static const struct {
        const char *name;
        mp_act act;
    } names[] = {{"silu", MP_ACT_SILU},           {"swish", MP_ACT_SILU},
                 {"relu", MP_ACT_RELU},           {"relu6", MP_ACT_RELU6},
                 {"gelu", MP_ACT_GELU},           {"gelu_pytorch_tanh", MP_ACT_GELU_TANH},
                 {"gelu_tanh", MP_ACT_GELU_TANH}, {"tanh", MP_ACT_TANH},
                 {"sigmoid", MP_ACT_SIGMOID},     {"mish", MP_ACT_MISH},
                 {"gelu_new", MP_ACT_GELU_NEW},   {"quick_gelu", MP_ACT_QUICK_GELU}};
    mp_act act = MP_ACT_NONE;

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_true(mp_act_parse(names[i].name, &act));
        assert_int_equal(act, names[i].act);
    }
    assert_false(mp_act_parse("identity", &act));
    assert_false(mp_act_parse("gelu_fast", &act));
    assert_int_equal(act, MP_ACT_QUICK_GELU);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_elementwise__activations_are_torchs_within_their_bounds),
        cmocka_unit_test(test_elementwise__gelu_new_rounds_after_each_of_its_ops),
        cmocka_unit_test(test_elementwise__infinities_of_fp16_are_clipped_as_t5_does),
        cmocka_unit_test(test_elementwise__activating_in_place_gives_the_same_bits),
        cmocka_unit_test(test_elementwise__numbers_round_first_in_sums_and_stay_fp32_in_products),
        cmocka_unit_test(test_elementwise__sums_and_products_broadcast_and_promote_as_torch),
        cmocka_unit_test(test_elementwise__composites_round_where_torchs_ops_do),
        cmocka_unit_test(test_elementwise__glu_gates_with_its_second_half_and_rope_rounds_thrice),
        cmocka_unit_test(test_elementwise__sums_all_elements_to_a_tensor_without_dimensions),
        cmocka_unit_test(test_elementwise__long_rows_are_computed_to_their_end),
        cmocka_unit_test(test_elementwise__instruction_sets_and_thread_counts_give_the_same_bits),
        cmocka_unit_test(test_elementwise__operands_that_do_not_fit_are_refused_with_their_shapes),
        cmocka_unit_test(test_elementwise__empty_tensors_stay_empty),
        cmocka_unit_test(test_elementwise__weights_stored_narrower_compute_in_their_dtype),
        cmocka_unit_test(test_elementwise__measure_counts_what_is_not_finite),
        cmocka_unit_test(test_elementwise__names_of_activations_parse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
