/* The values of synthetic parameters: their distribution, and what they depend on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "harness/synth_values.h"
#include "kernels/core/convert.h"

static float quantile[MP_SYNTH_QUANTILES];
static mp_synth_values values;

static int setup(void **state)
{
    (void)state;
    mp_synth_quantiles(quantile);
    return 0;
}

static mp_tensor shape(mp_dtype dtype, int rank, const int64_t *dims)
{
    return mp_view(NULL, dtype, rank, dims);
}

/* Tabulated values of the inverse normal distribution, between two quantiles by a line: at 3.09
 * they are 0.0045 apart, and the line's error is x * 0.0045^2 / 8 = 8e-6. */
static void test_quantiles__are_those_of_the_normal_distribution(void **state)
{
    static const struct {
        double p, x;
    } table[] = {
        {0.5, 0},
        {0.6, 0.2533471031357997},
        {0.84134474606854293, 1},
        {0.975, 1.9599639845400545},
        {0.999, 3.0902323061678132},
    };

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const double at = table[i].p * MP_SYNTH_QUANTILES - 0.5, k = floor(at);
        const double low = (double)quantile[(int)k], high = (double)quantile[(int)k + 1];
        const double x = low + (at - k) * (high - low);
        assert_true(fabs(x - table[i].x) < 1e-5);
    }
    for (int k = 0; k < MP_SYNTH_QUANTILES; k++) {
        assert_true(quantile[k] == -quantile[MP_SYNTH_QUANTILES - 1 - k]);
        assert_true(!k || quantile[k] > quantile[k - 1]);
    }
}

static void draw(const char *name, mp_tensor p, uint64_t seed, int64_t first, int64_t n, void *out)
{
    mp_synth_values_open(&values, quantile, name, p, seed);
    mp_synth_values_fill(&values, first, n, out);
}

/* 65536 draws: the mean's own deviation is 1 / 256, that of the variance sqrt(2) / 256, that of a
 * correlation 1 / 256; five of them are never met by chance. */
static void test_values__are_normal_and_independent(void **state)
{
    enum { N = 1 << 16 };
    static float a[N], b[N];
    const mp_tensor p = shape(MP_F32, 2, MP_DIMS(256, 256)); /* deviation 1 / 16 */
    double mean = 0, square = 0, next = 0, other = 0;

    (void)state;
    draw("vae.x.weight", p, 0, 0, N, a);
    draw("vae.y.weight", p, 0, 0, N, b);
    for (int i = 0; i < N; i++) {
        const double x = 16 * (double)a[i];
        mean += x / N;
        square += x * x / N;
        next += x * 16 * (double)a[(i + 1) % N] / N;
        other += x * 16 * (double)b[i] / N;
    }
    assert_true(fabs(mean) < 5.0 / 256);
    assert_true(fabs(square - 1) < 5 * 1.42 / 256);
    assert_true(fabs(next) < 5.0 / 256);
    assert_true(fabs(other) < 5.0 / 256);
}

static void test_values__depend_on_name_seed_and_place_alone(void **state)
{
    enum { N = 1001 };
    uint16_t whole[N], pieces[N], other[N];
    const mp_tensor p = shape(MP_BF16, 2, MP_DIMS(40, 40));

    (void)state;
    draw("vae.x.weight", p, 7, 0, N, whole);
    for (int first = 0; first < N; first += 36)
        draw("vae.x.weight", p, 7, first, N - first < 36 ? N - first : 36, pieces + first);
    assert_memory_equal(whole, pieces, sizeof whole);
    draw("vae.x.weight", p, 8, 0, N, other);
    assert_memory_not_equal(whole, other, sizeof whole);
    draw("vae.y.weight", p, 7, 0, N, other);
    assert_memory_not_equal(whole, other, sizeof whole);
}

/* Each dtype rounds the same value once. */
static void test_values__of_each_dtype_are_those_of_fp32_rounded(void **state)
{
    static const mp_dtype dtypes[] = {MP_F16, MP_BF16, MP_F8_E4M3, MP_F8_E5M2};
    enum { N = 4096 };
    float fp32[N], widened[N];
    uint16_t narrow[N];

    (void)state;
    draw("vae.x.weight", shape(MP_F32, 2, MP_DIMS(64, 64)), 3, 0, N, fp32);
    for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++) {
        draw("vae.x.weight", shape(dtypes[d], 2, MP_DIMS(64, 64)), 3, 0, N, narrow);
        mp_widen(dtypes[d], narrow, widened, N);
        for (int i = 0; i < N; i++)
            assert_true(widened[i] == mp_round_to(dtypes[d], fp32[i]));
    }
}

/* A checkpoint that is named in a report can be made again by another build. */
static void test_values__are_these(void **state)
{
    static const float expected[] = {0x1.5d908cp-7f, -0x1.466268p-7f, -0x1.72a9dap-6f,
                                     0x1.a9600cp-7f, -0x1.c57546p-7f, -0x1.2b9356p-7f};
    enum { N = sizeof expected / sizeof *expected };
    float x[N];

    (void)state;
    draw("transformer.proj_out.weight", shape(MP_F32, 2, MP_DIMS(32, 2240)), 0, 0, N, x);
    assert_memory_equal(x, expected, sizeof x);
}

static void assert_distribution(const char *name, mp_tensor p, double mean, double deviation)
{
    const mp_synth_distribution d = mp_synth_distribution_of(name, p);

    assert_true(d.mean == mean);
    assert_true(fabs(d.deviation / deviation - 1) < 1e-12);
}

static void test_distribution__keeps_the_variance_and_damps_branches(void **state)
{
    const mp_tensor linear = shape(MP_F32, 2, MP_DIMS(64, 100));
    const mp_tensor conv = shape(MP_F32, 4, MP_DIMS(64, 16, 5, 5));
    const mp_tensor depthwise = shape(MP_F32, 4, MP_DIMS(64, 1, 3, 3));
    const mp_tensor vector = shape(MP_F32, 1, MP_DIMS(64));

    (void)state;
    assert_distribution("transformer.proj_out.weight", linear, 0, 0.1);
    assert_distribution("transformer.scale_shift_table", linear, 0, 0.1);
    assert_distribution("vae.decoder.conv_in.weight", conv, 0, 0.05);
    assert_distribution("transformer.transformer_blocks.0.ff.conv_depth.weight", depthwise, 0,
                        1.0 / 3);
    assert_distribution("transformer.transformer_blocks.3.attn1.to_out.0.weight", linear, 0, 0.02);
    assert_distribution("text_encoder_3.encoder.block.0.layer.0.SelfAttention.q.weight", linear, 0,
                        0.0125);
    assert_distribution("transformer.proj_out.bias", vector, 0, 0.02);
    assert_distribution("text_encoder.text_model.final_layer_norm.weight", vector, 1, 0.1);
    assert_distribution("text_encoder.layers.0.input_layernorm.weight", vector, 0, 0.1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantiles__are_those_of_the_normal_distribution),
        cmocka_unit_test(test_values__are_normal_and_independent),
        cmocka_unit_test(test_values__depend_on_name_seed_and_place_alone),
        cmocka_unit_test(test_values__of_each_dtype_are_those_of_fp32_rounded),
        cmocka_unit_test(test_values__are_these),
        cmocka_unit_test(test_distribution__keeps_the_variance_and_damps_branches),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
