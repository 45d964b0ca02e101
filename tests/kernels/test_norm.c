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
 * in 16 lanes each sum rounds about 519 / 16 + 4 times on either side, sqrt(72) = 9 half ulps as a
 * random walk, so the factor 1 / sqrt(.) is within about 3 ulp (its error is half the sum's) and
 * the result within 8 with the products.  abs: the same 8 ulp (8 * 2^-24 of values up to 4) where a
 * subtraction of the mean or an added bias cancels.
 * In a half this straddles a tie of fp16 in 8 / 2^13 of cases. */
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

static void test_norm__instruction_sets_and_thread_counts_give_the_same_bits(void **state)
{
    static const mp_test_case cases[] = {
        {"layer_norm", agree_layer_norm},       {"rms_torch", agree_rms_torch},
        {"rms_diffusers", agree_rms_diffusers}, {"rms_gemma", agree_rms_gemma},
        {"batch_norm", agree_batch_norm},       {"softmax", mp_softmax},
    };
    static float values[ROWS * WIDTH];
    mp_ctx *c = mp_test_ctx("base", 1);

    (void)state;
    for (uint32_t i = 0; i < ROWS * WIDTH; i++)
        values[i] = ldexpf((float)(int32_t)(i * 2654435761u), -29);
    for (int d = MP_F32; d <= MP_BF16; d++)
        mp_test_agree(cases, sizeof cases / sizeof *cases,
                      mp_test_floats(c, (mp_dtype)d, 2, MP_DIMS(ROWS, WIDTH), values));
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
        mp_test_ok(c);
    }
    mp_device_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_norm__every_norm_is_torchs_within_its_bound_at_every_width),
        cmocka_unit_test(test_norm__rows_that_are_not_finite_are_torchs),
        cmocka_unit_test(test_norm__instruction_sets_and_thread_counts_give_the_same_bits),
        cmocka_unit_test(test_norm__parameters_that_do_not_fit_are_refused),
        cmocka_unit_test(test_norm__only_the_result_stays_in_the_pool),
        cmocka_unit_test(test_norm__no_rows_and_no_columns_are_fine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
