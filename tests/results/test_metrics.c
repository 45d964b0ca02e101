/* Drift, PSNR, SSIM and seams against numpy and scikit-image (tests/fixtures/make_metrics.py). */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/core/memory.h"
#include "results/metrics.h"
#include "tests/fixtures/metrics/metrics.inc"

/* Sums of 12288 squares in another order: 12288 * 2^-53 = 1.4e-12 at worst. */
static const double SUMS = 2e-12;
/* 121 terms up to 1 in another order: 1.4e-14 of a moment at worst, of which a window's SSIM feels
 * at most 1 / c2 = 1 / 9e-4 where both variances vanish. */
static const double WINDOWS = 2e-11;

static void assert_near(double got, double want, double limit)
{
    if (!(fabs(got - want) <= limit))
        fail_msg("got %.17g, expected %.17g within %g", got, want, limit);
}

static uint32_t mix(uint32_t x)
{
    x ^= x >> 16;
    x *= 0x85EBCA6B;
    x ^= x >> 13;
    x *= 0xC2B2AE35;
    return x ^ x >> 16;
}

/* Room for [3, 64, 64], and the pictures of the script in it. */
enum { ROOM = 3 * 64 * 64 };

static void picture(float *out, int c, int h, int w)
{
    for (int k = 0, at = 0; k < c; k++)
        for (int i = 0; i < h; i++)
            for (int j = 0; j < w; j++, at++) {
                const int ramp = (96 * i + 56 * j + 512 * k) % 3584;
                out[at] = (float)(ramp + (int)(mix((uint32_t)at) % 512)) / 4096;
            }
}

static void noisy(float *out, const float *ref, int n, int strength)
{
    for (int i = 0; i < n; i++) {
        const int noise = (int)(mix((uint32_t)(n + i)) % (uint32_t)(2 * strength + 1)) - strength;
        out[i] = ref[i] + (float)noise / 4096;
    }
}

static void tiled(float *out, const float *ref, const int dims[3], int stride_h, int stride_w)
{
    noisy(out, ref, dims[0] * dims[1] * dims[2], 16);
    for (int k = 0, at = 0; k < dims[0]; k++)
        for (int i = 0; i < dims[1]; i++)
            for (int j = 0; j < dims[2]; j++, at++)
                out[at] += (float)((i / stride_h + j / stride_w) * 64) / 4096;
}

static void test_drift__agrees_with_numpy(void **state)
{
    (void)state;
    float ref[ROOM], x[ROOM];
    picture(ref, 3, 64, 64);
    noisy(x, ref, ROOM, 200);
    const mp_drift d = mp_drift_between(x, ref, ROOM, MP_F16);
    assert_near(d.rel_l2, DRIFT_REL_L2, SUMS * DRIFT_REL_L2);
    assert_near(d.cosine, DRIFT_COSINE, SUMS);
    assert_true(d.max_abs == DRIFT_MAX_ABS); /* exact: the values are multiples of 2^-12 */
    assert_true(d.max_value == DRIFT_MAX_VALUE);
    assert_near(d.headroom_bits, DRIFT_HEADROOM_FP16, 1e-14); /* log2: an ulp of 16 is 4e-15 */
    assert_int_equal(d.count, ROOM);
    assert_int_equal(d.nonfinite, 0);
    assert_int_equal(d.saturated, 0);
}

static void test_drift__of_equal_arrays_is_exactly_nothing(void **state)
{
    (void)state;
    float x[ROOM];
    picture(x, 3, 64, 64);
    const mp_drift d = mp_drift_between(x, x, ROOM, MP_BF16);
    assert_true(d.rel_l2 == 0 && d.max_abs == 0 && d.cosine == 1);
}

static void test_drift__survives_the_ends_of_fp32(void **state)
{
    (void)state;
    const float large[] = {FLT_MAX, -FLT_MAX}, tiny[] = {0x1p-149f, 0x1p-149f};
    mp_drift d = mp_drift_between(large, large, 2, MP_F32);
    assert_true(d.rel_l2 == 0 && d.cosine == 1 && d.headroom_bits == 0);
    assert_int_equal(d.saturated, 2);
    d = mp_drift_between((float[]){-FLT_MAX, FLT_MAX}, large, 2, MP_F32);
    assert_true(d.rel_l2 == 2 && d.cosine == -1 && d.max_abs == 2.0 * FLT_MAX);
    d = mp_drift_between((float[]){0x1p-149f, 0}, tiny, 2, MP_F32);
    assert_near(d.rel_l2, sqrt(0.5), 1e-15); /* a division and a root: an ulp each */
    assert_near(d.cosine, sqrt(0.5), 1e-15);
}

/* Of these two the quotient rounds to 1 + 2^-52, of which an acos would be NaN. */
static void test_drift__has_a_cosine_of_at_most_one(void **state)
{
    (void)state;
    const float ref[] = {.1f, .8f}, x[] = {7 * .1f, 7 * .8f}, opposite[] = {-x[0], -x[1]};
    assert_true(mp_drift_between(x, ref, 2, MP_F32).cosine == 1);
    assert_true(mp_drift_between(opposite, ref, 2, MP_F32).cosine == -1);
}

static void test_drift__of_zeros_is_defined(void **state)
{
    (void)state;
    const float zero[3] = {0, -0.0f, 0}, one[3] = {1, 0, 0};
    mp_drift d = mp_drift_between(zero, zero, 3, MP_F16);
    assert_true(d.rel_l2 == 0 && d.max_abs == 0 && d.cosine == 1);
    assert_true(d.max_value == 0 && d.headroom_bits == INFINITY);
    d = mp_drift_between(one, zero, 3, MP_F16);
    assert_true(d.rel_l2 == INFINITY && d.max_abs == 1 && d.cosine == 0);
    d = mp_drift_between(zero, one, 3, MP_F16);
    assert_true(d.rel_l2 == 1 && d.max_abs == 1 && d.cosine == 0);
    d = mp_drift_between(NULL, NULL, 0, MP_F16);
    assert_true(d.rel_l2 == 0 && d.cosine == 1 && d.count == 0);
}

/* Counted is where only one side is broken; but any broken pair breaks the distances. */
static void test_drift__of_anything_not_finite_is_never_close(void **state)
{
    (void)state;
    static const struct {
        float x, ref;
        int nonfinite;
    } cases[] = {
        {NAN, 1, 1},
        {INFINITY, 1, 1},
        {-INFINITY, 1, 1},
        {1, NAN, 1},
        {1, INFINITY, 1},
        {NAN, NAN, 0},
        {INFINITY, INFINITY, 0},
        {INFINITY, NAN, 0},
        {INFINITY, -INFINITY, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const float x[] = {3, cases[i].x, -2}, ref[] = {3, cases[i].ref, -2};
        const mp_drift d = mp_drift_between(x, ref, 3, MP_F16);
        assert_int_equal(d.nonfinite, cases[i].nonfinite);
        assert_true(d.rel_l2 == INFINITY && d.max_abs == INFINITY && isnan(d.cosine));
        assert_true(d.max_value == 3); /* of the finite ones */
        assert_int_equal(d.saturated, 0);
        assert_int_equal(d.count, 3);
    }
}

static void test_drift__without_a_finite_value_has_no_headroom(void **state)
{
    (void)state;
    const float x[] = {NAN, INFINITY}, ref[] = {1, 2};
    const mp_drift d = mp_drift_between(x, ref, 2, MP_F16);
    assert_true(isnan(d.headroom_bits) && d.max_value == 0);
    assert_int_equal(d.nonfinite, 2);
}

static void test_drift__counts_what_sits_at_the_maximum_of_the_dtype(void **state)
{
    (void)state;
    static const mp_dtype dtypes[] = {MP_F32, MP_F16, MP_BF16, MP_F8_E4M3, MP_F8_E5M2};
    static const float largest[] = {FLT_MAX, 65504, 0x1.FEp127f, 448, 57344};
    for (int i = 0; i < 5; i++) {
        const float x[] = {largest[i], -largest[i], largest[i] / 4, 0};
        const mp_drift d = mp_drift_between(x, x, 4, dtypes[i]);
        assert_int_equal(d.saturated, 2);
        assert_true(d.headroom_bits == 0);
        assert_true(mp_drift_between(x + 2, x + 2, 2, dtypes[i]).headroom_bits == 2);
    }
}

static void test_psnr__agrees_with_scikit_image(void **state)
{
    (void)state;
    float ref[ROOM], x[ROOM];
    picture(ref, 3, 64, 64);
    noisy(x, ref, ROOM, 200);
    assert_near(mp_psnr(x, ref, ROOM), PSNR_64, 1e-11); /* SUMS * 10 / ln 10, and log10's ulp */
}

static void test_psnr__knows_equal_opposite_and_broken_pictures(void **state)
{
    (void)state;
    const float black[2] = {0, 0}, white[2] = {1, 1};
    assert_true(mp_psnr(white, white, 2) == INFINITY);
    assert_true(mp_psnr(white, black, 2) == 0);
    static const float broken[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        const float x[2] = {0, broken[i]};
        assert_true(isnan(mp_psnr(x, black, 2)));
        assert_true(isnan(mp_psnr(black, x, 2)));
        assert_true(isnan(mp_psnr(x, x, 2)));
    }
    assert_true(isnan(mp_psnr(black, black, 0)));
}

static double ssim_noisy(int c, int h, int w, int strength)
{
    float ref[ROOM], x[ROOM];
    picture(ref, c, h, w);
    noisy(x, ref, c * h * w, strength);
    return mp_ssim(x, ref, c, h, w);
}

static void test_ssim__agrees_with_scikit_image(void **state)
{
    (void)state;
    assert_near(ssim_noisy(3, 64, 64, 200), SSIM_64, WINDOWS);
    assert_near(ssim_noisy(2, 11, 11, 400), SSIM_11X11, WINDOWS); /* exactly one window */
    assert_near(ssim_noisy(2, 23, 12, 400), SSIM_23X12, WINDOWS); /* more rows than the ring */

    float ref[ROOM], x[ROOM];
    picture(ref, 3, 64, 64);
    for (int i = 0; i < ROOM; i++)
        x[i] = 1 - ref[i];
    assert_near(mp_ssim(x, ref, 3, 64, 64), SSIM_64_INVERTED, WINDOWS);
}

static void test_ssim__of_less_than_a_window_is_global(void **state)
{
    (void)state;
    assert_near(ssim_noisy(3, 10, 40, 400), SSIM_GLOBAL_10X40, WINDOWS);
    assert_near(ssim_noisy(3, 7, 5, 400), SSIM_GLOBAL_7X5, WINDOWS);
}

static void test_ssim__of_equal_pictures_is_exactly_one(void **state)
{
    (void)state;
    assert_true(ssim_noisy(3, 64, 64, 0) == 1);
    assert_true(ssim_noisy(1, 1, 1, 0) == 1);
}

static void test_ssim__of_broken_or_no_pictures_is_nan(void **state)
{
    (void)state;
    static const float broken[] = {NAN, INFINITY, -INFINITY};
    float ref[2 * 12 * 12], x[2 * 12 * 12];
    picture(ref, 2, 12, 12);
    for (int i = 0; i < 3; i++) {
        noisy(x, ref, 2 * 12 * 12, 10);
        x[2 * 12 * 12 - 1] = broken[i]; /* in the last window of the last channel */
        assert_true(isnan(mp_ssim(x, ref, 2, 12, 12)));
        assert_true(isnan(mp_ssim(ref, x, 2, 12, 12)));
        assert_true(isnan(mp_ssim(x, x, 2, 12, 12)));
        assert_true(isnan(mp_ssim(x, ref, 4, 6, 12))); /* global */
    }
    assert_true(isnan(mp_ssim(ref, ref, 0, 12, 12)));
    assert_true(isnan(mp_ssim(ref, ref, 2, 0, 12)));
}

static void test_ssim__is_nan_when_memory_is_short(void **state)
{
    (void)state;
    mp_memory_fail_at(1);
    const double got = ssim_noisy(1, 12, 12, 10);
    mp_memory_fail_at(0);
    assert_true(isnan(got));
}

static void test_seam__agrees_with_numpy_where_strides_do_not_divide(void **state)
{
    (void)state;
    static const int dims[3] = {3, 50, 70};
    float ref[ROOM], x[ROOM];
    picture(ref, 3, 50, 70);
    noisy(x, ref, 3 * 50 * 70, 16);
    assert_near(mp_seam(x, ref, 3, 50, 70, 16, 24), SEAM_NONE, SUMS);
    tiled(x, ref, dims, 16, 24);
    assert_near(mp_seam(x, ref, 3, 50, 70, 16, 24), SEAM_TILES, SUMS * SEAM_TILES);
    assert_near(mp_seam(x, ref, 3, 50, 70, 12, 12), SEAM_OTHER_STRIDES, SUMS * SEAM_OTHER_STRIDES);
    tiled(x, ref, dims, 7, 9);
    assert_near(mp_seam(x, ref, 3, 50, 70, 7, 9), SEAM_ODD_STRIDES, SUMS * SEAM_ODD_STRIDES);
}

/* A difference that rises by one each pixel across (and not at all down) jumps alike everywhere. */
static void test_seam__is_one_where_borders_are_like_the_rest(void **state)
{
    (void)state;
    float ref[ROOM], x[ROOM];
    picture(ref, 1, 40, 50);
    for (int i = 0; i < 40 * 50; i++)
        x[i] = ref[i] + (float)(i % 50);
    assert_true(mp_seam(x, ref, 1, 40, 50, 8, 7) == 1);
    assert_true(mp_seam(ref, ref, 1, 40, 50, 8, 7) == 1); /* no difference at all */
}

static void test_seam__is_infinite_for_steps_on_an_equal_picture(void **state)
{
    (void)state;
    const float ref[8] = {0}, x[8] = {0, 0, 0, 0, 1, 1, 1, 1};
    assert_true(mp_seam(x, ref, 1, 1, 8, 4, 4) == INFINITY); /* across */
    assert_true(mp_seam(x, ref, 1, 8, 1, 4, 4) == INFINITY); /* down */
    assert_true(mp_seam(x, ref, 1, 1, 8, 4, 3) == 1);        /* the step is on no border */
    assert_true(mp_seam(x, ref, 1, 1, 8, 4, 7) == 0);        /* ... but on the twin of one */
}

static void test_seam__is_nan_without_a_border_inside(void **state)
{
    (void)state;
    float x[64] = {1};
    assert_true(isnan(mp_seam(x, x, 1, 8, 8, 8, 8)));
    assert_true(isnan(mp_seam(x, x, 1, 8, 8, 0, 0)));
    assert_true(isnan(mp_seam(x, x, 1, 8, 8, 1, -4))); /* no line between two borders */
    assert_true(isnan(mp_seam(x, x, 0, 8, 8, 4, 4)));
    assert_true(mp_seam(x, x, 1, 8, 8, 8, 4) == 1); /* one direction is enough */
    assert_true(mp_seam(x, x, 1, 8, 8, 7, 8) == 1);
}

static void test_seam__is_nan_where_a_line_is_broken(void **state)
{
    (void)state;
    static const float broken[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++)
        for (int at = 1; at < 5; at++) { /* either side of the border 4 and of its twin 2 */
            float ref[8] = {0}, x[8] = {0};
            x[at] = broken[i];
            assert_true(isnan(mp_seam(x, ref, 1, 1, 8, 4, 4)));
            assert_true(isnan(mp_seam(ref, x, 1, 1, 8, 4, 4)));
            assert_true(isnan(mp_seam(x, x, 1, 1, 8, 4, 4)));
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_drift__agrees_with_numpy),
        cmocka_unit_test(test_drift__of_equal_arrays_is_exactly_nothing),
        cmocka_unit_test(test_drift__survives_the_ends_of_fp32),
        cmocka_unit_test(test_drift__has_a_cosine_of_at_most_one),
        cmocka_unit_test(test_drift__of_zeros_is_defined),
        cmocka_unit_test(test_drift__of_anything_not_finite_is_never_close),
        cmocka_unit_test(test_drift__without_a_finite_value_has_no_headroom),
        cmocka_unit_test(test_drift__counts_what_sits_at_the_maximum_of_the_dtype),
        cmocka_unit_test(test_psnr__agrees_with_scikit_image),
        cmocka_unit_test(test_psnr__knows_equal_opposite_and_broken_pictures),
        cmocka_unit_test(test_ssim__agrees_with_scikit_image),
        cmocka_unit_test(test_ssim__of_less_than_a_window_is_global),
        cmocka_unit_test(test_ssim__of_equal_pictures_is_exactly_one),
        cmocka_unit_test(test_ssim__of_broken_or_no_pictures_is_nan),
        cmocka_unit_test(test_ssim__is_nan_when_memory_is_short),
        cmocka_unit_test(test_seam__agrees_with_numpy_where_strides_do_not_divide),
        cmocka_unit_test(test_seam__is_one_where_borders_are_like_the_rest),
        cmocka_unit_test(test_seam__is_infinite_for_steps_on_an_equal_picture),
        cmocka_unit_test(test_seam__is_nan_without_a_border_inside),
        cmocka_unit_test(test_seam__is_nan_where_a_line_is_broken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
