/* Norms and softmax against torch, diffusers and transformers (make_kernels_vector.py), on every
 * instruction set. */
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

/* Row lengths and dtypes of (x, parameters) in the file: WIDTHS and NORM_PAIRS of the script. */
static const int widths[] = {1, 7, 16, 17, 511, 519};
static const char *const dtypes[] = {"fp32", "fp16", "bf16"};

enum { WIDTHS = sizeof widths / sizeof *widths, PAIRS = 5, SAME_PAIRS = 3, DTYPES = 3 };

typedef struct operands {
    mp_ctx *c;
    mp_tensor x, w, b, v; /* v: variances */
} operands;

static mp_tensor layer_norm(const operands *o)
{
    return mp_layer_norm(o->c, o->x, o->w, o->b, 1e-5f);
}

static mp_tensor layer_norm_plain(const operands *o)
{
    return mp_layer_norm(o->c, o->x, MP_NONE, MP_NONE, 1e-5f);
}

static mp_tensor rms_torch(const operands *o)
{
    return mp_rms_norm(o->c, o->x, o->w, MP_NONE, 1e-6f, MP_RMS_TORCH);
}

static mp_tensor rms_diffusers(const operands *o)
{
    return mp_rms_norm(o->c, o->x, o->w, o->b, 1e-6f, MP_RMS_DIFFUSERS);
}

static mp_tensor rms_diffusers_plain(const operands *o)
{
    return mp_rms_norm(o->c, o->x, MP_NONE, MP_NONE, 1e-6f, MP_RMS_DIFFUSERS);
}

static mp_tensor rms_gemma(const operands *o)
{
    return mp_rms_norm(o->c, o->x, o->w, MP_NONE, 1e-6f, MP_RMS_GEMMA);
}

static mp_tensor batch_norm(const operands *o)
{
    return mp_batch_norm(o->c, o->x, o->b, o->v, o->w, o->b, 1e-5f);
}

static mp_tensor softmax(const operands *o)
{
    return mp_softmax(o->c, o->x);
}

/* Bounds in fp32.  A row's mean and its mean square are sums of up to 519 terms in another order:
 * here in 32 lanes, in torch in 16 or more, each sum rounds at most 519 / 16 + 4 times on either
 * side, sqrt(72) = 9 half ulps as a random walk, so the factor 1 / sqrt(.) is within about 3 ulp
 * (its error is half the sum's) and the result within 8 with the products.  abs: the same 8 ulp (8
 * * 2^-24 of values up to 4) where a subtraction of the mean or an added bias cancels. In a half
 * this straddles a tie of fp16 in 8 / 2^13 of cases. */
static const struct norm {
    const char *name;
    mp_tensor (*run)(const operands *o);
    mp_tolerance fp32, half;
    int pairs;
} norms[] = {
    {"layer_norm",
     layer_norm,
     {"order of sums", .ulps = 8, .abs = 2e-6},
     {"a tie", .ulps = 1, .share = 0.01},
     PAIRS},
    {"layer_norm_plain",
     layer_norm_plain,
     {"order of sums", .ulps = 8, .abs = 2e-6},
     {"a tie", .ulps = 1, .share = 0.01},
     SAME_PAIRS},
    {"rms_torch",
     rms_torch,
     {"order of the sum", .ulps = 8, .abs = 0},
     {"a tie", .ulps = 1, .share = 0.01},
     PAIRS},
    {"rms_diffusers",
     rms_diffusers,
     {"order of the sum", .ulps = 8, .abs = 2e-6},
     {"a tie in one of three roundings", .ulps = 2, .abs = 0.004, .share = 0.01},
     PAIRS},
    {"rms_diffusers_plain",
     rms_diffusers_plain,
     {"order of the sum", .ulps = 8, .abs = 0},
     {"a tie", .ulps = 1, .share = 0.01},
     SAME_PAIRS},
    {"rms_gemma",
     rms_gemma,
     {"order of the sum", .ulps = 8, .abs = 0},
     {"a tie", .ulps = 1, .share = 0.01},
     PAIRS},
    {"batch_norm", batch_norm, {"exact", .ulps = 0}, {"exact", .ulps = 0}, PAIRS},
    /* exp within 2 ulp and 1; 40 roundings of the sum; a division. */
    {"softmax",
     softmax,
     {"exp and the order of the sum", .ulps = 8, .abs = 0},
     {"a tie", .ulps = 1, .share = 0.01},
     SAME_PAIRS},
};

/* One value is its own mean: what torch leaves of x - mean is rounding noise of mean / sqrt(eps),
 * |mean| < 200 here, where we have 0. */
static mp_tolerance single_value(const struct norm *n, mp_tolerance t)
{
    if (strncmp(n->name, "layer_norm", 10))
        return t;
    return (mp_tolerance){"noise of one value", .ulps = 1, .abs = 200 / sqrt(1e-5) * ldexp(1, -24)};
}

static void check_norm(mp_ctx *c, const mp_safetensors *g, const struct norm *n, int pair, int d)
{
    const mp_mark mark = mp_open(c);
    const operands o = {
        c, mp_test_tensor(c, g, "x.%d.%d", pair, d), mp_test_tensor(c, g, "w.%d.%d", pair, d),
        mp_test_tensor(c, g, "b.%d.%d", pair, d), mp_test_tensor(c, g, "v.%d.%d", pair, d)};
    const mp_tensor golden = mp_test_golden(g, "%s.%d.%d", n->name, pair, d);
    const mp_tolerance t = golden.dtype == MP_F32 ? n->fp32 : n->half;

    mp_test_close(n->run(&o), golden, d == 1 ? single_value(n, t) : t);
    mp_drop(c, mark);
}

static void test_norm__every_norm_is_torchs_within_its_bound_at_every_width(void **state)
{
    mp_safetensors *g = mp_test_goldens("kernels/norm.safetensors");

    (void)state;
    for (const char *const *isa = mp_test_isas(); *isa; isa++) {
        mp_ctx *c = mp_test_ctx(*isa, 2);
        for (size_t i = 0; i < sizeof norms / sizeof *norms; i++)
            for (int pair = 0; pair < norms[i].pairs; pair++)
                for (int w = 0; w < WIDTHS; w++)
                    check_norm(c, g, &norms[i], pair, widths[w]);
        mp_device_close(c);
    }
    mp_safetensors_close(g);
}

/* Rows with masked keys, all keys masked, an infinity, a NaN. */
static void test_norm__rows_that_are_not_finite_are_torchs(void **state)
{
    mp_safetensors *g = mp_test_goldens("kernels/norm.safetensors");

    (void)state;
    for (const char *const *isa = mp_test_isas(); *isa; isa++) {
        mp_ctx *c = mp_test_ctx(*isa, 1);
        for (int d = 0; d < DTYPES; d++) {
            const mp_tensor x = mp_test_tensor(c, g, "masked.%s", dtypes[d]);
            mp_test_close(mp_softmax(c, x), mp_test_golden(g, "softmax_masked.%s", dtypes[d]),
                          (mp_tolerance){"exp and the order of the sum", .ulps = d ? 1 : 8});
            mp_test_close(mp_layer_norm(c, x, MP_NONE, MP_NONE, 1e-5f),
                          mp_test_golden(g, "layer_norm_masked.%s", dtypes[d]),
                          (mp_tolerance){"order of sums", .ulps = d ? 1 : 8, .abs = 2e-6});
        }
        mp_device_close(c);
    }
    mp_safetensors_close(g);
}

/* Groups of each shape in the file: GROUPS of the script.  The last has one value a group. */
static const int groups[] = {3, 8, 1, 4, 2, 5};

enum { GROUPS = sizeof groups / sizeof *groups };

/* In fp32 torch sums up to 120 values in another order, and rounds: mean and factor are within 3
 * ulp as above.  The result is a sum of two terms of up to 10 (the mean is 3 beside a spread of 2)
 * that may cancel: 3 ulp of 10 are 3e-6.  In a half: a tie. */
static mp_tolerance group_tolerance(mp_dtype d)
{
    if (d == MP_F32)
        return (mp_tolerance){"order of sums", .ulps = 8, .abs = 3e-6};
    return (mp_tolerance){"a tie", .ulps = 1, .abs = 3e-6, .share = 0.01};
}

/* NORM_PAIRS */
static const char *const pairs[PAIRS][2] = {
    {"fp32", "fp32"}, {"fp16", "fp16"}, {"bf16", "bf16"}, {"bf16", "fp32"}, {"fp16", "fp32"}};

static void check_groups(mp_ctx *c, const mp_safetensors *g, int k)
{
    for (int pair = 0; pair < PAIRS; pair++) {
        const mp_mark mark = mp_open(c);
        const char *const dx = pairs[pair][0], *const dp = pairs[pair][1];
        const mp_tensor x = mp_test_tensor(c, g, "x.%s.%d", dx, k);
        const mp_tensor w = mp_test_tensor(c, g, "w.%s.%d", dp, k);
        const mp_tensor b = mp_test_tensor(c, g, "b.%s.%d", dp, k);
        mp_tolerance t = group_tolerance(x.dtype);
        if (k == GROUPS - 1) /* noise of one value, as above: |mean| < 10, eps 1e-6 */
            t = (mp_tolerance){"noise of one value", .ulps = 1,
                               .abs = 10 / sqrt(1e-6) * ldexp(1, -24)};
        mp_test_close(mp_group_norm(c, x, groups[k], w, b, 1e-6f),
                      mp_test_golden(g, "group_norm.%d.%d", pair, k), t);
        if (pair == 0) {
            mp_test_close(mp_group_norm(c, x, groups[k], w, MP_NONE, 1e-6f),
                          mp_test_golden(g, "group_norm_weight.%d", k), t);
            mp_test_close(mp_group_norm(c, x, groups[k], MP_NONE, MP_NONE, 1e-6f),
                          mp_test_golden(g, "group_norm_plain.%d", k), t);
        }
        mp_drop(c, mark);
    }
}

static void test_norm__group_norm_is_torchs_for_every_grouping_and_dtype(void **state)
{
    mp_safetensors *g = mp_test_goldens("kernels/group_norm.safetensors");

    (void)state;
    for (const char *const *isa = mp_test_isas(); *isa; isa++) {
        mp_ctx *c = mp_test_ctx(*isa, 2);
        for (int k = 0; k < GROUPS; k++)
            check_groups(c, g, k);
        for (int d = 0; d < DTYPES; d++) /* an infinity, a NaN, equal values */
            mp_test_close(mp_group_norm(c, mp_test_tensor(c, g, "infinite.%s", dtypes[d]), 2,
                                        MP_NONE, MP_NONE, 1e-6f),
                          mp_test_golden(g, "group_norm_infinite.%s", dtypes[d]),
                          group_tolerance(d));
        mp_device_close(c);
    }
    mp_safetensors_close(g);
}

/* A million values a group with a mean of 1000 beside a spread of 1: sums in fp32 would be wrong in
 * the third digit.  Against fp64 throughout: half an ulp of mean, factor and sum, where the terms
 * are near 2000 and differ by 1 (3 * 2^-24 * 2000 = 3.6e-4). */
static void test_norm__group_norm_of_a_large_picture_is_exact(void **state)
{
    enum { SIDE = 512, CHANNELS = 8, PER = 4 };
    mp_ctx *c = mp_test_ctx(NULL, 0);
    const mp_tensor x = mp_new(c, MP_F32, 4, MP_DIMS(1, SIDE, SIDE, CHANNELS));
    float *v = x.data;
    double sum = 0, square = 0;

    (void)state;
    for (uint32_t i = 0; i < SIDE * SIDE * CHANNELS; i++) {
        v[i] = 1000.0f + ldexpf((float)(int32_t)(i * 2654435761u), -31);
        if (i % CHANNELS < PER)
            sum += v[i];
    }
    const double n = (double)SIDE * SIDE * PER, mean = sum / n;
    for (int64_t i = 0; i < mp_numel(x); i++)
        square += i % CHANNELS < PER ? (v[i] - mean) * (v[i] - mean) : 0;
    const float *y = mp_group_norm(c, x, CHANNELS / PER, MP_NONE, MP_NONE, 1e-6f).data;
    mp_test_ok(c);
    double worst = 0;
    for (int64_t i = 0; i < mp_numel(x); i++)
        if (i % CHANNELS < PER)
            worst = fmax(worst, fabs(y[i] - (v[i] - mean) / sqrt(square / n + 1e-6)));
    assert_true(worst < 3.6e-4);
    mp_device_close(c);
}

/* [8, 4099]: two tasks of rows; 4099 is no multiple of any vector. */
enum { ROWS = 9, WIDTH = 4099 };

static mp_tensor row_of(mp_tensor x, int64_t i)
{
    return mp_reshape(mp_batch(x, i, 1), 1, MP_DIMS(WIDTH));
}

static mp_tensor agree_layer_norm(mp_ctx *c, mp_tensor x)
{
    return mp_layer_norm(c, x, row_of(x, 1), row_of(x, 2), 1e-5f);
}

static mp_tensor agree_rms_torch(mp_ctx *c, mp_tensor x)
{
    return mp_rms_norm(c, x, row_of(x, 1), MP_NONE, 1e-5f, MP_RMS_TORCH);
}

static mp_tensor agree_rms_diffusers(mp_ctx *c, mp_tensor x)
{
    return mp_rms_norm(c, x, row_of(x, 1), row_of(x, 2), 1e-5f, MP_RMS_DIFFUSERS);
}

static mp_tensor agree_rms_gemma(mp_ctx *c, mp_tensor x)
{
    return mp_rms_norm(c, x, row_of(x, 1), MP_NONE, 1e-5f, MP_RMS_GEMMA);
}

static mp_tensor agree_batch_norm(mp_ctx *c, mp_tensor x)
{
    const mp_tensor v = mp_mul(c, row_of(x, 3), row_of(x, 3));

    return mp_batch_norm(c, x, row_of(x, 0), v, row_of(x, 1), MP_NONE, 1e-5f);
}

/* A sample of more bands of pixels than one: 9 * 4099 values as two samples of 24 channels. */
static mp_tensor agree_group_norm(mp_ctx *c, mp_tensor x)
{
    const mp_tensor picture = mp_reshape(mp_narrow_axis(c, x, 1, 0, 4096), 3, MP_DIMS(1, 1536, 24));
    const mp_tensor row = mp_reshape(mp_narrow_axis(c, row_of(x, 1), 0, 0, 24), 1, MP_DIMS(24));

    return mp_group_norm(c, picture, 6, row, row, 1e-5f);
}

static mp_tensor agree_group_norm_plain(mp_ctx *c, mp_tensor x)
{
    return mp_group_norm(c, mp_reshape(x, 3, MP_DIMS(1, ROWS * WIDTH, 1)), 1, MP_NONE, MP_NONE,
                         1e-5f);
}

static void test_norm__instruction_sets_and_thread_counts_give_the_same_bits(void **state)
{
    static const mp_test_case cases[] = {
        {"layer_norm", agree_layer_norm},
        {"rms_torch", agree_rms_torch},
        {"rms_diffusers", agree_rms_diffusers},
        {"rms_gemma", agree_rms_gemma},
        {"batch_norm", agree_batch_norm},
        {"group_norm", agree_group_norm},
        {"group_norm_plain", agree_group_norm_plain},
    };
    /* exp within 2 ulp on either side; of the sum the 128 roundings of a lane, 3 ulp if they are
     * as good as random, and of the quotient one. */
    static const mp_test_case exp_and_sum = {"softmax", mp_softmax};
    static const mp_tolerance base[] = {{"exp and its sum", .ulps = 8},
                                        {"a tie of softmax", .ulps = 1, .share = 0.01},
                                        {"a tie of softmax", .ulps = 1, .share = 0.01}};
    static float values[ROWS * WIDTH];
    mp_ctx *c = mp_test_ctx("base", 1);

    (void)state;
    for (uint32_t i = 0; i < ROWS * WIDTH; i++)
        values[i] = ldexpf((float)(int32_t)(i * 2654435761u), -29);
    for (int d = MP_F32; d <= MP_BF16; d++) {
        const mp_tensor x = mp_test_floats(c, (mp_dtype)d, 2, MP_DIMS(ROWS, WIDTH), values);
        mp_test_agree(cases, sizeof cases / sizeof *cases, x);
        mp_test_agree_fused(&exp_and_sum, x, base[d]);
    }
    mp_device_close(c);
}

static void test_norm__parameters_that_do_not_fit_are_refused(void **state)
{
    mp_ctx *c = mp_test_ctx(NULL, 1);
    const mp_tensor x = mp_new(c, MP_F32, 2, MP_DIMS(3, 5));
    const mp_tensor w = mp_new(c, MP_F32, 1, MP_DIMS(4)), row = mp_new(c, MP_F32, 1, MP_DIMS(5));
    const mp_tensor number = mp_new(c, MP_F32, 0, NULL);

    (void)state;
    mp_layer_norm(c, x, w, MP_NONE, 1e-5f);
    mp_test_fails(c, MP_ESHAPE, "[4] over input [3, 5]");
    mp_layer_norm(c, x, MP_NONE, w, 1e-5f);
    mp_test_fails(c, MP_ESHAPE, "[4] over input [3, 5]");
    mp_rms_norm(c, x, w, MP_NONE, 1e-5f, MP_RMS_TORCH);
    mp_test_fails(c, MP_ESHAPE, "[4] over input [3, 5]");
    mp_rms_norm(c, x, MP_NONE, MP_NONE, 1e-5f, MP_RMS_GEMMA);
    mp_test_fails(c, MP_ESHAPE, "weight");
    mp_batch_norm(c, x, row, w, row, row, 1e-5f);
    mp_test_fails(c, MP_ESHAPE, "[4] over input [3, 5]");
    mp_batch_norm(c, x, row, MP_NONE, row, row, 1e-5f);
    mp_test_fails(c, MP_ESHAPE, "variance");
    mp_group_norm(c, x, 2, row, row, 1e-5f);
    mp_test_fails(c, MP_ESHAPE, "input [3, 5] cannot be divided into 2 groups");
    mp_group_norm(c, x, 5, w, row, 1e-5f);
    mp_test_fails(c, MP_ESHAPE, "[4] over input [3, 5]");
    mp_group_norm(c, row, 5, row, row, 1e-5f);
    mp_test_fails(c, MP_ESHAPE, "cannot be divided");
    mp_group_norm(c, mp_batch(x, 0, 1), 5, row, row, 1e-5f);
    mp_test_fails(c, MP_ESHAPE, "Expected more than 1 value per channel when training");
    mp_softmax(c, number);
    mp_test_fails(c, MP_ESHAPE, "scalar");
    mp_layer_norm(c, number, MP_NONE, MP_NONE, 1e-5f);
    mp_test_fails(c, MP_ESHAPE, "scalar");
    mp_device_close(c);
}

/* Widened parameters are temporary: the pool holds x, the parameters and y, and nothing else. */
static void test_norm__only_the_result_stays_in_the_pool(void **state)
{
    mp_ctx *c = mp_test_ctx(NULL, 1);
    const mp_tensor x = mp_new(c, MP_BF16, 2, MP_DIMS(4, 32));
    const mp_tensor w = mp_new(c, MP_BF16, 1, MP_DIMS(32));

    (void)state;
    memset(x.data, 0, mp_nbytes(x));
    memset(w.data, 0, mp_nbytes(w));
    const size_t before = mp_pool_get(c).live;
    mp_layer_norm(c, x, w, w, 1e-5f);
    mp_test_ok(c);
    assert_int_equal(mp_pool_get(c).live, before + 4 * 32 * 2);
    mp_batch_norm(c, x, w, w, w, w, 1e-5f);
    mp_test_ok(c);
    assert_int_equal(mp_pool_get(c).live, before + 2 * 4 * 32 * 2);
    mp_group_norm(c, x, 8, w, w, 1e-5f);
    mp_test_ok(c);
    assert_int_equal(mp_pool_get(c).live, before + 3 * 4 * 32 * 2);
    mp_device_close(c);
}

static void test_norm__no_rows_and_no_columns_are_fine(void **state)
{
    mp_ctx *c = mp_test_ctx(NULL, 2);

    (void)state;
    for (int i = 0; i < 2; i++) {
        const mp_tensor x = mp_new(c, MP_BF16, 2, MP_DIMS(i ? 0 : 3, i ? 3 : 0));
        mp_softmax(c, x);
        mp_layer_norm(c, x, MP_NONE, MP_NONE, 1e-5f);
        mp_rms_norm(c, x, MP_NONE, MP_NONE, 1e-5f, MP_RMS_TORCH);
        mp_group_norm(c, x, 1, MP_NONE, MP_NONE, 1e-5f);
        mp_test_ok(c);
    }
    mp_device_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_norm__every_norm_is_torchs_within_its_bound_at_every_width),
        cmocka_unit_test(test_norm__rows_that_are_not_finite_are_torchs),
        cmocka_unit_test(test_norm__group_norm_is_torchs_for_every_grouping_and_dtype),
        cmocka_unit_test(test_norm__group_norm_of_a_large_picture_is_exact),
        cmocka_unit_test(test_norm__instruction_sets_and_thread_counts_give_the_same_bits),
        cmocka_unit_test(test_norm__parameters_that_do_not_fit_are_refused),
        cmocka_unit_test(test_norm__only_the_result_stays_in_the_pool),
        cmocka_unit_test(test_norm__no_rows_and_no_columns_are_fine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
