/* Attention against float64 with torch's rounding points (make_kernels_product.py, which holds them
 * against torch's own kernels), on every instruction set. */
#include "tests/kernels/product.h"

#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))

typedef enum mask_kind { NONE, PADDING, NOTHING, HEAD, RANDOM, LOWEST } mask_kind;

typedef struct softmax_case {
    int64_t b, sq, sk;
    int heads, kv, d;
    mask_kind mask;
    bool causal;
    int window;
    float scale, softcap;
} softmax_case;

/* SDPA and EAGER of the script. */
static const softmax_case sdpas[] = {
    {2, 5, 7, 3, 3, 8, .mask = NONE},
    {2, 4, 9, 2, 2, 17, .mask = PADDING},
    {2, 3, 8, 2, 2, 4, .mask = NOTHING},
    {2, 3, 11, 1, 1, 5, .mask = HEAD},
    {1, 4, 6, 2, 2, 3, .mask = RANDOM, .scale = 0.3f},
    {1, 9, 9, 2, 2, 16, .causal = true},
    {1, 9, 9, 2, 2, 6, .mask = PADDING, .causal = true, .window = 3},
    {2, 3, 5, 4, 2, 6, .mask = PADDING},
    {1, 3, 1100, 2, 1, 4, .mask = NONE},
    {1, 2, 1100, 1, 1, 4, .mask = HEAD},
    {1, 260, 5, 1, 1, 2, .mask = NONE},
    {1, 515, 515, 1, 1, 1, .causal = true},
};
static const softmax_case eagers[] = {
    {2, 5, 7, 3, 3, 8, .mask = NONE},
    {2, 9, 9, 4, 2, 16, .mask = LOWEST, .causal = true, .softcap = 50},
    {1, 9, 9, 2, 1, 6, .causal = true, .window = 4, .scale = 0.25f, .softcap = 2},
    {1, 3, 600, 2, 2, 4, .mask = RANDOM},
    {1, 131, 6, 1, 1, 2, .mask = NONE},
    {1, 7, 6, 2, 2, 8, .mask = NONE, .softcap = 3},
};

/* The script's mask_of. */
static mp_tensor mask_of(mp_ctx *c, const mp_safetensors *g, const softmax_case *a, mp_dtype d)
{
    float values[2 * 1100] = {0};

    if (a->mask == NONE)
        return MP_NONE;
    if (a->mask == RANDOM)
        return product_take(c, g, 4000, product_as(d), 2, MP_DIMS(a->b, a->sk));
    for (int64_t i = 0; i < a->b * a->sk; i++) {
        const int64_t b = i / a->sk, j = i % a->sk;
        if (a->mask == PADDING)
            values[i] = j >= a->sk - 3 ? -10000.0f : 0.0f;
        else if (a->mask == NOTHING)
            values[i] = b >= 1 ? -INFINITY : 0.0f;
        else if (a->mask == HEAD)
            values[i] = j < a->sk / 2 + 1 ? -INFINITY : 0.0f;
        else
            values[i] = b >= 1 || j < 2 ? -(float)mp_dtype_max(d) : 0.0f;
    }
    return mp_test_floats(c, d, 2, MP_DIMS(a->b, a->sk), values);
}

static mp_tensor run_softmax(mp_ctx *c, const mp_safetensors *g, const softmax_case *a, int i,
                             mp_dtype d, mp_tensor mask, mp_attn_rounding rounding)
{
    const product_mode m = product_as(d);
    const int64_t wide = (int64_t)a->heads * a->d, narrow = (int64_t)a->kv * a->d;
    const mp_attn_opts o = {.heads = a->heads,
                            .kv_heads = a->kv == a->heads ? 0 : a->kv,
                            .scale = a->scale,
                            .softcap = a->softcap,
                            .causal = a->causal,
                            .window = a->window,
                            .mask = mask,
                            .rounding = rounding};

    return mp_attn_softmax(c, product_take(c, g, 19 * i, m, 3, MP_DIMS(a->b, a->sq, wide)),
                           product_take(c, g, 1500 + i, m, 3, MP_DIMS(a->b, a->sk, narrow)),
                           product_take(c, g, 2500 + i, m, 3, MP_DIMS(a->b, a->sk, narrow)), o);
}

/* fp32: scores up to 8 are off by the roundings of d products, sqrt(17) 2^-24 8 = 2e-6, the weights
 * by as much of their size, and values are up to 4.
 * Halves: a weight within 2e-6 of a tie rounds the other way, as one in 200 of fp16 does, and is
 * off by 2^-11 of it (bf16: 2^-8), times a value up to 4.  Of few keys that is within an ulp of the
 * result; of many, where results cancel, one weight is at most a 50th of all. */
static mp_tolerance bound_of(mp_tensor golden)
{
    if (golden.dtype == MP_F32)
        return (mp_tolerance){"scores to 2e-6", .ulps = 1, .abs = 1e-5};
    return (mp_tolerance){"a tie", .ulps = 1,
                          .abs = ldexp(4.0 / 50, -mp_dtype_mantissa(golden.dtype) - 1),
                          .share = 0.02 + 1 / (double)mp_numel(golden)};
}

static void check_softmax(mp_ctx *c, const mp_safetensors *g, const char *name,
                          const softmax_case *a, int i, mp_dtype d, mp_attn_rounding rounding)
{
    const mp_mark mark = mp_open(c);
    const mp_tensor golden = mp_test_golden(g, "%s.%d.%s", name, i, mp_dtype_name(d));
    const mp_tensor y = run_softmax(c, g, a, i, d, mask_of(c, g, a, d), rounding);

    mp_test_ok(c);
    mp_test_close(y, golden, bound_of(golden));
    mp_drop(c, mark);
}

static void test_attention__sdpa_rounds_where_torchs_kernel_does(void **state)
{
    mp_safetensors *g = mp_test_goldens("kernels/product_attention.safetensors");

    (void)state;
    for (const char *const *isa = mp_test_isas(); *isa; isa++) {
        mp_ctx *c = mp_test_ctx(*isa, 2);
        for (int i = 0; i < COUNT(sdpas); i++)
            for (int d = MP_F32; d <= MP_BF16; d++)
                check_softmax(c, g, "sdpa", &sdpas[i], i, (mp_dtype)d, MP_ATTN_SDPA);
        mp_device_close(c);
    }
    mp_safetensors_close(g);
}

static void test_attention__eager_rounds_where_transformers_does(void **state)
{
    mp_safetensors *g = mp_test_goldens("kernels/product_attention.safetensors");

    (void)state;
    for (const char *const *isa = mp_test_isas(); *isa; isa++) {
        mp_ctx *c = mp_test_ctx(*isa, 2);
        for (int i = 0; i < COUNT(eagers); i++)
            for (int d = MP_F32; d <= MP_BF16; d++)
                check_softmax(c, g, "eager", &eagers[i], i, (mp_dtype)d, MP_ATTN_EAGER);
        mp_device_close(c);
    }
    mp_safetensors_close(g);
}

/* ATTENTION and LONG of make_t5.py: b, S_q, S_k, heads, d, masked. */
static const int biased[][6] = {
    {2, 5, 7, 3, 8, 0}, {1, 9, 4, 2, 5, 1}, {1, 1, 1, 1, 3, 0}, {1, 131, 520, 1, 2, 1}};

static mp_tensor biased_operand(mp_ctx *c, const mp_safetensors *g, int i, const char *name,
                                mp_dtype d)
{
    return mp_cast(c, mp_test_tensor(c, g, "attn.%d.%s", i, name), d);
}

static void check_biased(mp_ctx *c, const mp_safetensors *g, int i, mp_dtype d,
                         mp_attn_rounding rounding)
{
    const int *a = biased[i];
    const mp_mark mark = mp_open(c);
    float lowest[520] = {0};
    mp_attn_opts o = {.heads = a[3], .scale = 1.0f, .rounding = rounding};

    for (int j = a[2] * 2 / 3; j < a[2]; j++)
        lowest[j] = -(float)mp_dtype_max(d);
    o.bias = biased_operand(c, g, i, "bias", d);
    if (a[5])
        o.mask = mp_test_floats(c, d, 2, MP_DIMS(1, a[2]), lowest);
    const mp_tensor q = biased_operand(c, g, i, "q", d), k = biased_operand(c, g, i, "k", d);
    const mp_tensor y = mp_attn_softmax(c, q, k, biased_operand(c, g, i, "v", d), o);
    const mp_tensor golden =
        mp_test_golden(g, "attn.%d.%s.%s", i, rounding == MP_ATTN_SDPA ? "sdpa" : "eager",
                       d == MP_F32   ? "fp32"
                       : d == MP_F16 ? "fp16"
                                     : "bf16");
    mp_test_ok(c);
    mp_test_close(y, golden, bound_of(golden));
    mp_drop(c, mark);
}

static void test_attention__adds_a_bias_of_distances_as_torch_and_transformers_do(void **state)
{
    mp_safetensors *g = mp_test_goldens("kernels/t5.safetensors");

    (void)state;
    for (const char *const *isa = mp_test_isas(); *isa; isa++) {
        mp_ctx *c = mp_test_ctx(*isa, 2);
        for (int i = 0; i < COUNT(biased); i++)
            for (int d = MP_F32; d <= MP_BF16; d++) {
                check_biased(c, g, i, (mp_dtype)d, MP_ATTN_SDPA);
                check_biased(c, g, i, (mp_dtype)d, MP_ATTN_EAGER);
            }
        mp_device_close(c);
    }
    mp_safetensors_close(g);
}

static void test_attention__refuses_a_bias_that_does_not_fit(void **state)
{
    mp_ctx *c = mp_test_ctx(NULL, 1);
    const mp_tensor q = product_integers(c, product_as(MP_BF16), 1, 3, MP_DIMS(1, 3, 4));
    const mp_tensor k = product_integers(c, product_as(MP_BF16), 2, 3, MP_DIMS(1, 5, 4));
    mp_attn_opts o = {.heads = 2};

    (void)state;
    o.bias = product_integers(c, product_as(MP_BF16), 3, 2, MP_DIMS(2, 8));
    mp_attn_softmax(c, q, k, k, o);
    mp_test_fails(c, MP_ESHAPE, "bias [2, 8] does not fit 2 heads, q [1, 3, 4] and k [1, 5, 4]");
    o.bias = product_integers(c, product_as(MP_BF16), 3, 2, MP_DIMS(1, 7));
    mp_attn_softmax(c, q, k, k, o);
    mp_test_fails(c, MP_ESHAPE, "bias [1, 7] does not fit 2 heads");
    o.bias = product_integers(c, product_as(MP_F16), 3, 2, MP_DIMS(2, 7));
    mp_attn_softmax(c, q, k, k, o);
    mp_test_fails(c, MP_EDTYPE, "attn_mask.dtype: c10::Half");
    o.bias = product_integers(c, product_as(MP_F32), 3, 2, MP_DIMS(2, 7));
    mp_attn_softmax(c, q, k, k, o);
    mp_test_ok(c); /* SDPA takes it, eager does not */
    o.rounding = MP_ATTN_EAGER;
    mp_attn_softmax(c, q, k, k, o);
    mp_test_fails(c, MP_EDTYPE, "eager attention adds a mask");
    mp_device_close(c);
}

static void test_attention__sdpa_adds_a_mask_in_fp32_as_it_is(void **state)
{
    mp_safetensors *g = mp_test_goldens("kernels/product_attention.safetensors");
    mp_ctx *c = mp_test_ctx(NULL, 1);

    (void)state;
    for (int d = MP_F16; d <= MP_BF16; d++) {
        const mp_tensor golden = mp_test_golden(g, "sdpa_mask.%s", mp_dtype_name((mp_dtype)d));
        const mp_tensor mask = mask_of(c, g, &sdpas[4], MP_F32);
        const mp_tensor y = run_softmax(c, g, &sdpas[4], 4, (mp_dtype)d, mask, MP_ATTN_SDPA);
        mp_test_ok(c);
        mp_test_close(y, golden, bound_of(golden));
    }
    mp_device_close(c);
    mp_safetensors_close(g);
}

/* A key that no query may see has no influence, and a query that sees none gets zeros. */
static void test_attention__sdpa_without_a_visible_key_is_zero(void **state)
{
    mp_safetensors *g = mp_test_goldens("kernels/product_attention.safetensors");
    mp_ctx *c = mp_test_ctx(NULL, 1);
    const softmax_case *a = &sdpas[2];

    (void)state;
    for (int d = MP_F32; d <= MP_BF16; d++) {
        const mp_tensor y =
            run_softmax(c, g, a, 2, (mp_dtype)d, mask_of(c, g, a, (mp_dtype)d), MP_ATTN_SDPA);
        mp_test_ok(c);
        for (int64_t i = mp_numel(y) / 2; i < mp_numel(y); i++)
            assert_float_equal(product_at(y, i), 0, 0);
    }
    mp_device_close(c);
    mp_safetensors_close(g);
}

/* A NaN in a query or in all keys is never lost: the row is NaN, others are not. */
static void test_attention__a_nan_query_gives_a_nan_row(void **state)
{
    static const mp_attn_rounding roundings[] = {MP_ATTN_SDPA, MP_ATTN_EAGER};

    (void)state;
    for (const char *const *isa = mp_test_isas(); *isa; isa++) {
        mp_ctx *c = mp_test_ctx(*isa, 1);
        for (int r = 0; r < 2; r++)
            for (int64_t keys = 3; keys <= 600; keys += 597) {
                const mp_tensor q = product_integers(c, product_modes[0], 1, 3, MP_DIMS(1, 3, 4));
                const mp_tensor k =
                    product_integers(c, product_modes[0], 2, 3, MP_DIMS(1, keys, 4));
                ((float *)q.data)[5] = NAN;
                const mp_tensor y = mp_attn_softmax(
                    c, q, k, k, (mp_attn_opts){.heads = 1, .rounding = roundings[r]});
                mp_test_ok(c);
                for (int64_t i = 0; i < 12; i++)
                    assert_true(isnan(product_at(y, i)) == (i / 4 == 1));
            }
        mp_device_close(c);
    }
}

/* Eager attention of five tokens, the last two of them masked: y. */
static mp_tensor masked_of(mp_ctx *c, mp_dtype d, float last)
{
    const float lowest = -(float)mp_dtype_max(d), mask[] = {0, 0, 0, lowest, lowest};
    const mp_tensor q = product_integers(c, product_as(d), 1, 3, MP_DIMS(1, 5, 4));
    const mp_tensor v = product_integers(c, product_as(d), 3, 3, MP_DIMS(1, 5, 4));
    float keys[20];

    for (int i = 0; i < 20; i++)
        keys[i] = i < 16 ? product_integer(i, 2) : last;
    return mp_attn_softmax(c, q, mp_test_floats(c, d, 3, MP_DIMS(1, 5, 4), keys), v,
                           (mp_attn_opts){.heads = 1,
                                          .scale = 1,
                                          .softcap = 50,
                                          .causal = true,
                                          .mask = mp_test_floats(c, d, 2, MP_DIMS(1, 5), mask),
                                          .rounding = MP_ATTN_EAGER});
}

/* Keys behind the mask are only left out where that shows in nothing: large scores there have no
 * weight either, the long way, and a NaN reaches every row. */
static void test_attention__eager_leaves_out_no_nan_behind_the_mask(void **state)
{
    (void)state;
    for (const char *const *isa = mp_test_isas(); *isa; isa++) {
        mp_ctx *c = mp_test_ctx(*isa, 1);
        for (int d = MP_F32; d <= MP_BF16; d++) {
            const mp_tensor usual = masked_of(c, (mp_dtype)d, 1);
            const mp_tensor large = masked_of(c, (mp_dtype)d, 3000);
            const mp_tensor nan = masked_of(c, (mp_dtype)d, NAN);
            mp_test_ok(c);
            mp_test_same(large, usual);
            for (int64_t i = 0; i < mp_numel(nan); i++)
                assert_true(isnan(product_at(nan, i)) && isfinite(product_at(usual, i)));
        }
        mp_device_close(c);
    }
}

/* SANA and MULTISCALE of the script. */
static const int64_t linears[][4] = {{2, 7, 3, 5}, {1, 300, 2, 3}, {1, 1, 1, 32}, {1, 513, 1, 3}};
static const int64_t multiscales[][5] = {
    {1, 3, 4, 2, 16}, {2, 5, 4, 2, 20}, {1, 1, 1, 1, 8}, {2, 9, 31, 1, 2}};

/* Numerator and denominator are sums of n terms of one sign (relu) times values up to 4, each off
 * by sqrt(n) roundings of its size, then d more: 4 deviations of (sqrt(n) + sqrt(d)) 2^-24 times 4.
 */
static mp_tolerance linear_bound(mp_tensor golden, int64_t n, int64_t d)
{
    const double bound = 16 * (sqrt((double)n) + sqrt((double)d) + 2) * ldexp(1, -24);

    if (golden.dtype == MP_F32)
        return (mp_tolerance){"two sums and a quotient", .ulps = 1, .abs = bound};
    return (mp_tolerance){"a tie, or a cancelled sum", .ulps = 1, .abs = bound,
                          .share = 0.02 + 1 / (double)mp_numel(golden)};
}

static void check_linear(mp_ctx *c, const mp_safetensors *g, int i, mp_dtype d)
{
    const int64_t *s = linears[i], *dims = MP_DIMS(s[0], s[1], s[2] * s[3]);
    const mp_mark mark = mp_open(c);
    const mp_tensor golden = mp_test_golden(g, "attn_linear.%d.%s", i, mp_dtype_name(d));
    const mp_tensor y =
        mp_attn_linear(c, product_take(c, g, 100 + i, product_as(d), 3, dims),
                       product_take(c, g, 1100 + i, product_as(d), 3, dims),
                       product_take(c, g, 2100 + i, product_as(d), 3, dims), (int)s[2], 1e-15f);

    mp_test_ok(c);
    mp_test_close(y, golden, linear_bound(golden, s[1], s[3]));
    mp_drop(c, mark);
}

static void check_multiscale(mp_ctx *c, const mp_safetensors *g, int i, mp_dtype d)
{
    const int64_t *s = multiscales[i];
    const mp_mark mark = mp_open(c);
    const mp_tensor x =
        product_take(c, g, 23 * i, product_as(d), 4, MP_DIMS(s[0], s[1], s[2], s[3] * 3 * s[4]));
    mp_tensor golden = mp_test_golden(g, "multiscale_linear.%d.%s", i, mp_dtype_name(d));

    mp_test_close(mp_attn_multiscale_linear(c, x, (int)s[4], 1e-15f), golden,
                  linear_bound(golden, s[1] * s[2], s[4]));
    if (s[1] * s[2] <= s[4]) {
        golden = mp_test_golden(g, "multiscale_quadratic.%d.%s", i, mp_dtype_name(d));
        mp_test_close(mp_attn_multiscale_quadratic(c, x, (int)s[4], 1e-15f, false), golden,
                      linear_bound(golden, s[1] * s[2], s[4]));
    }
    mp_test_ok(c);
    mp_drop(c, mark);
}

static void test_attention__linear_and_multiscale_forms_are_float64s_rounded(void **state)
{
    mp_safetensors *g = mp_test_goldens("kernels/product_attention.safetensors");

    (void)state;
    for (const char *const *isa = mp_test_isas(); *isa; isa++) {
        mp_ctx *c = mp_test_ctx(*isa, 2);
        for (int d = MP_F32; d <= MP_BF16; d++) {
            for (int i = 0; i < COUNT(linears); i++)
                check_linear(c, g, i, (mp_dtype)d);
            for (int i = 0; i < COUNT(multiscales); i++)
                check_multiscale(c, g, i, (mp_dtype)d);
        }
        mp_device_close(c);
    }
    mp_safetensors_close(g);
}

/* The failure of diffusers before #10590 is fixed, with its text, where it happens. */
static void test_attention__without_the_cast_back_v_meets_fp32_scores(void **state)
{
    mp_ctx *c = mp_test_ctx(NULL, 1);

    (void)state;
    for (int d = MP_F32; d <= MP_BF16; d++) {
        const mp_tensor x =
            product_integers(c, product_as((mp_dtype)d), 1, 4, MP_DIMS(1, 2, 2, 24));
        mp_push(c, "vae.%s", "decoder.up_blocks.0.0.attn");
        const mp_tensor y = mp_attn_multiscale_quadratic(c, x, 8, 1e-15f, true);
        if (d == MP_F32) {
            mp_test_ok(c);
            mp_test_same(mp_attn_multiscale_quadratic(c, x, 8, 1e-15f, false), y);
            mp_pop(c);
            continue;
        }
        assert_string_equal(mp_ctx_error(c)->op, "attn_multiscale_quadratic");
        assert_string_equal(mp_ctx_error(c)->module, "vae.decoder.up_blocks.0.0.attn");
        mp_test_fails(c, MP_EDTYPE,
                      d == MP_BF16 ? "expected scalar type BFloat16 but found Float"
                                   : "expected scalar type Half but found Float");
    }
    mp_device_close(c);
}

typedef struct agree_arg {
    const mp_safetensors *g;
    mp_dtype d;
    int which;
} agree_arg;

static mp_tensor agree_run(mp_ctx *c, const void *arg)
{
    const agree_arg *a = arg;
    const softmax_case s = {.b = 2, .sq = 300, .sk = 600, .heads = 2, .kv = 1, .d = 20};
    const mp_tensor x = product_take(c, a->g, 9, product_as(a->d), 4, MP_DIMS(2, 15, 20, 120));
    const mp_tensor q = product_take(c, a->g, 9, product_as(a->d), 3, MP_DIMS(2, 300, 40));

    switch (a->which) {
    case 0:
        return run_softmax(c, a->g, &s, 1, a->d, MP_NONE, MP_ATTN_SDPA);
    case 1:
        return run_softmax(c, a->g, &s, 1, a->d, MP_NONE, MP_ATTN_EAGER);
    case 2:
        return mp_attn_linear(c, q, q, q, 4, 1e-15f);
    case 3:
        return mp_attn_multiscale_linear(c, x, 20, 1e-15f);
    default:
        return mp_attn_multiscale_quadratic(c, x, 10, 1e-15f, false);
    }
}

static void test_attention__thread_counts_give_the_same_bits(void **state)
{
    mp_safetensors *g = mp_test_goldens("kernels/product_attention.safetensors");

    (void)state;
    for (int d = MP_F32; d <= MP_BF16; d++)
        for (int which = 0; which < 5; which++)
            product_threads_agree(agree_run, &(agree_arg){g, (mp_dtype)d, which});
    mp_safetensors_close(g);
}

typedef struct extra_arg {
    mp_tensor q, k;
} extra_arg;

static mp_tensor extra_run(mp_ctx *c, const void *arg)
{
    const extra_arg *a = arg;

    return mp_attn_softmax(c, a->q, a->k, a->k, (mp_attn_opts){.heads = 4});
}

/* 2048 x 2048 scores of 4 heads would be 64 MiB.  576 queries of a task meet 512 keys, 96 at a
 * time: in floats 192 KiB of scores and 96 KiB for them as pairs, 2 x 128 KiB of keys and values, 2
 * x 144 KiB of queries and results. */
static void test_attention__scores_never_exist_as_a_whole(void **state)
{
    mp_ctx *c = mp_test_ctx(NULL, 1);
    const mp_tensor q = mp_new(c, MP_BF16, 3, MP_DIMS(1, 2048, 256));

    (void)state;
    memset(q.data, 0, mp_nbytes(q));
    const mp_tensor few =
        mp_reshape(mp_batch(mp_reshape(q, 2, MP_DIMS(2048, 256)), 0, 1), 3, MP_DIMS(1, 1, 256));
    assert_in_range(product_extra(c, extra_run, &(extra_arg){few, few}, &(extra_arg){q, q}), 0,
                    (192 + 96 + 2 * 128 + 2 * 144 + 64) << 10);
    mp_device_close(c);
}

static void test_attention__nothing_to_attend_to_is_fine(void **state)
{
    static const mp_attn_rounding roundings[] = {MP_ATTN_SDPA, MP_ATTN_EAGER};
    mp_ctx *c = mp_test_ctx(NULL, 2);

    (void)state;
    for (int r = 0; r < 2; r++) {
        const mp_attn_opts o = {.heads = 2, .rounding = roundings[r]};
        const mp_tensor none = mp_new(c, MP_BF16, 3, MP_DIMS(1, 0, 8));
        const mp_tensor three = product_integers(c, product_modes[2], 1, 3, MP_DIMS(1, 3, 8));
        const mp_tensor flat = mp_new(c, MP_BF16, 3, MP_DIMS(1, 3, 0));
        mp_attn_softmax(c, none, three, three, o);
        mp_attn_softmax(c, flat, flat, flat, o);
        const mp_tensor y = mp_attn_softmax(c, three, none, none, o);
        mp_attn_linear(c, none, none, none, 2, 1e-15f);
        mp_attn_linear(c, flat, flat, flat, 2, 1e-15f);
        mp_test_ok(c);
        for (int64_t i = 0; i < mp_numel(y); i++)
            assert_float_equal(product_at(y, i), 0, 0);
    }
    mp_device_close(c);
}

static void test_attention__dtypes_are_refused_with_torchs_text(void **state)
{
    mp_ctx *c = mp_test_ctx(NULL, 1);
    const mp_tensor h = mp_new(c, MP_F16, 3, MP_DIMS(1, 3, 8)), b = mp_new(c, MP_BF16, 3, h.dim);
    const mp_tensor f = mp_new(c, MP_F32, 3, h.dim), q8 = mp_new(c, MP_F8_E4M3, 3, h.dim);
    const mp_tensor mask = mp_new(c, MP_BF16, 2, MP_DIMS(1, 3));
    const mp_tensor mask32 = mp_new(c, MP_F32, 2, MP_DIMS(1, 3));
    const mp_attn_opts sdpa = {.heads = 2}, eager = {.heads = 2, .rounding = MP_ATTN_EAGER};
    mp_attn_opts masked = sdpa;

    (void)state;
    mp_attn_softmax(c, h, b, b, sdpa);
    assert_string_equal(mp_ctx_error(c)->op, "attn_softmax");
    mp_test_fails(c, MP_EDTYPE,
                  "Expected query, key, and value to have the same dtype, but got query.dtype: "
                  "c10::Half key.dtype: c10::BFloat16 and value.dtype: c10::BFloat16 instead.");
    mp_attn_softmax(c, h, h, f, sdpa);
    mp_test_fails(c, MP_EDTYPE, "key.dtype: c10::Half and value.dtype: float instead.");
    mp_attn_softmax(c, h, f, f, eager);
    mp_test_fails(c, MP_EDTYPE, "expected scalar type Half but found Float");
    mp_attn_softmax(c, b, b, h, eager);
    mp_test_fails(c, MP_EDTYPE, "expected scalar type BFloat16 but found Half");
    mp_attn_softmax(c, q8, q8, q8, sdpa);
    mp_test_fails(c, MP_EDTYPE, "\"mul_cpu_reduced_float\" not implemented for 'Float8_e4m3fn'");
    masked.mask = mask;
    mp_attn_softmax(c, h, h, h, masked);
    mp_test_fails(c, MP_EDTYPE,
                  "Expected attn_mask dtype to be bool or float or to match query dtype, but got "
                  "attn_mask.dtype: c10::BFloat16 and  query.dtype: c10::Half instead.");
    masked = eager;
    masked.mask = mask32;
    mp_attn_softmax(c, h, h, h, masked);
    mp_test_fails(c, MP_EDTYPE, "c10::Half and float");
    mp_attn_linear(c, q8, q8, q8, 2, 1e-15f);
    mp_test_fails(c, MP_EDTYPE, "\"clamp_min_scalar_cpu\" not implemented for 'Float8_e4m3fn'");
    mp_rope_half(c, h, mp_reshape(f, 2, MP_DIMS(3, 8)), mp_reshape(h, 2, MP_DIMS(3, 8)), 1);
    mp_test_fails(c, MP_EDTYPE, "cos is float32 and sin is float16");
    mp_device_close(c);
}

static void test_attention__shapes_that_do_not_fit_are_refused(void **state)
{
    mp_ctx *c = mp_test_ctx(NULL, 1);
    const mp_tensor q = mp_new(c, MP_F32, 3, MP_DIMS(1, 3, 8)),
                    k = mp_new(c, MP_F32, 3, MP_DIMS(1, 5, 8));
    const mp_tensor x = mp_new(c, MP_F32, 4, MP_DIMS(1, 2, 2, 12));
    const mp_tensor cos = mp_new(c, MP_F32, 2, MP_DIMS(3, 4));

    (void)state;
    mp_attn_softmax(c, q, k, q, (mp_attn_opts){.heads = 2});
    mp_test_fails(c, MP_ESHAPE, "q [1, 3, 8], k [1, 5, 8] and v [1, 3, 8] with 2 and 2 heads");
    mp_attn_softmax(c, q, k, k, (mp_attn_opts){.heads = 3});
    mp_test_fails(c, MP_ESHAPE, "3 and 3 heads");
    mp_attn_softmax(c, q, k, k, (mp_attn_opts){.heads = 4, .kv_heads = 2});
    mp_test_fails(c, MP_ESHAPE, "4 and 2 heads");
    mp_attn_softmax(c, q, k, k, (mp_attn_opts){.heads = 0});
    mp_test_fails(c, MP_ESHAPE, "0 and 0 heads");
    mp_attn_softmax(c, q, k, k, (mp_attn_opts){.heads = 2, .mask = cos});
    mp_test_fails(c, MP_ESHAPE, "mask [3, 4] does not fit k [1, 5, 8]");
    mp_attn_linear(c, q, k, k, 2, 1e-15f);
    mp_test_fails(c, MP_ESHAPE, "q [1, 3, 8], k [1, 5, 8]");
    mp_attn_multiscale_linear(c, x, 3, 1e-15f);
    mp_test_fails(c, MP_ESHAPE, "[1, 2, 2, 12] with head dimension 3");
    mp_attn_multiscale_quadratic(c, q, 3, 1e-15f, false);
    mp_test_fails(c, MP_ESHAPE, "[1, 3, 8] with head dimension 3");
    mp_rope_half(c, k, cos, cos, 2);
    mp_test_fails(c, MP_ESHAPE, "[1, 5, 8] with 2 heads and cos, sin [3, 4]");
    mp_device_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention__sdpa_rounds_where_torchs_kernel_does),
        cmocka_unit_test(test_attention__eager_rounds_where_transformers_does),
        cmocka_unit_test(test_attention__adds_a_bias_of_distances_as_torch_and_transformers_do),
        cmocka_unit_test(test_attention__refuses_a_bias_that_does_not_fit),
        cmocka_unit_test(test_attention__sdpa_adds_a_mask_in_fp32_as_it_is),
        cmocka_unit_test(test_attention__sdpa_without_a_visible_key_is_zero),
        cmocka_unit_test(test_attention__a_nan_query_gives_a_nan_row),
        cmocka_unit_test(test_attention__eager_leaves_out_no_nan_behind_the_mask),
        cmocka_unit_test(test_attention__linear_and_multiscale_forms_are_float64s_rounded),
        cmocka_unit_test(test_attention__without_the_cast_back_v_meets_fp32_scores),
        cmocka_unit_test(test_attention__thread_counts_give_the_same_bits),
        cmocka_unit_test(test_attention__scores_never_exist_as_a_whole),
        cmocka_unit_test(test_attention__nothing_to_attend_to_is_fine),
        cmocka_unit_test(test_attention__dtypes_are_refused_with_torchs_text),
        cmocka_unit_test(test_attention__shapes_that_do_not_fit_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
