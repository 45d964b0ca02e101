/* Small pictures for people. */
#include "tests/pipelines/scratch.h"

#include <math.h>

#include "pipelines/common/image.h"
#include "pipelines/common/preview.h"

/* What the preview of planes [3, height, width] shows, read back by the reader of files. */
static float *preview(float *planes, int64_t height, int64_t width, int64_t *h, int64_t *w)
{
    mp_error err = {0};
    mp_preview p;
    float *data;

    mp_preview_make(mp_view(planes, MP_F32, 4, MP_DIMS(1, 3, height, width)), &p, &err);
    assert_ok(&err);
    assert_non_null(p.png);
    mp_image_read_png(scratch_write("p.png", p.png, p.size), &data, h, w, &err);
    assert_ok(&err);
    assert_int_equal(*h, p.height);
    assert_int_equal(*w, p.width);
    mp_free(p.png);
    return data;
}

static float *planes_of(int64_t n)
{
    float *planes = calloc((size_t)n, 3 * sizeof *planes);

    assert_non_null(planes);
    return planes;
}

static void test_preview__a_small_picture_is_kept_as_it_is(void **state)
{
    enum { H = 192, W = 7, N = H * W };
    float *planes = planes_of(N);
    int64_t h, w;

    (void)state;
    for (int i = 0; i < 3 * N; i++)
        planes[i] = (float)(i * 31 % 256) / 255;
    float *data = preview(planes, H, W, &h, &w);
    assert_int_equal(h, H);
    assert_int_equal(w, W);
    assert_memory_equal(data, planes, 3 * N * sizeof *planes);
    mp_free(data);
    free(planes);
}

/* Boxes of 5 and 6 columns and rows: 1000 pixels become 192. */
static void test_preview__a_pixel_is_the_mean_of_those_that_it_stands_for(void **state)
{
    enum { H = 500, W = 1000, SMALL_H = 96, SMALL_W = 192 };
    float *planes = planes_of(H * W);
    int64_t h, w;

    (void)state;
    for (int c = 0; c < 3; c++)
        for (int y = 0; y < H; y++)
            for (int x = 0; x < W; x++)
                planes[(c * H + y) * W + x] =
                    0.5f + 0.2f * sinf((float)x / 40 + (float)c) + 0.3f * cosf((float)y / 30);
    float *data = preview(planes, H, W, &h, &w);
    assert_int_equal(h, SMALL_H);
    assert_int_equal(w, SMALL_W);
    for (int c = 0; c < 3; c++)
        for (int i = 0; i < SMALL_H; i++)
            for (int k = 0; k < SMALL_W; k++) {
                const int top = i * H / SMALL_H, bottom = (i + 1) * H / SMALL_H;
                const int left = k * W / SMALL_W, right = (k + 1) * W / SMALL_W;
                double sum = 0;
                for (int y = top; y < bottom; y++)
                    for (int x = left; x < right; x++)
                        sum += (double)planes[(c * H + y) * W + x];
                const double mean = fmin(fmax(sum / ((bottom - top) * (right - left)), 0), 1);
                /* half a step of 8 bits, and fp32's sums */
                assert_true(fabs(mean - (double)data[(c * SMALL_H + i) * SMALL_W + k]) <=
                            0.5001 / 255);
            }
    mp_free(data);
    free(planes);
}

static void test_preview__the_shorter_side_never_vanishes(void **state)
{
    float *planes = planes_of(2000);
    int64_t h, w;

    (void)state;
    float *data = preview(planes, 2000, 1, &h, &w);
    assert_int_equal(h, 192);
    assert_int_equal(w, 1);
    mp_free(data);
    free(planes);
}

static void test_preview__there_is_none_of_what_is_not_finite(void **state)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    float planes[3 * 4 * 4] = {0};
    const mp_tensor image = mp_view(planes, MP_F32, 3, MP_DIMS(3, 4, 4));

    (void)state;
    for (int i = 0; i < 3; i++)
        for (int at = 0; at < 48; at += 47) {
            mp_error err = {0};
            mp_preview p;
            planes[at] = bad[i];
            mp_preview_make(image, &p, &err);
            assert_ok(&err);
            assert_null(p.png);
            planes[at] = 0;
        }
}

static void test_preview__short_memory_is_an_error_and_no_leak(void **state)
{
    float *planes = planes_of(300 * 300);
    const mp_tensor image = mp_view(planes, MP_F32, 3, MP_DIMS(3, 300, 300));
    uint64_t n = 1;
    mp_error err;
    mp_preview p;

    (void)state;
    for (int i = 0; i < 3 * 300 * 300; i++)
        planes[i] = (float)(i * 7919 % 256) / 255; /* does not compress: the buffer must grow */
    do {
        err = (mp_error){0};
        mp_memory_fail_at(n++);
        mp_preview_make(image, &p, &err);
        mp_memory_fail_at(0);
        assert_true(!err.code == (p.png != NULL));
        if (err.code)
            assert_error(&err, MP_ENOMEM, "no memory");
    } while (err.code);
    assert_true(n > 5);
    mp_free(p.png);
    free(planes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_preview__a_small_picture_is_kept_as_it_is),
        cmocka_unit_test(test_preview__a_pixel_is_the_mean_of_those_that_it_stands_for),
        cmocka_unit_test(test_preview__the_shorter_side_never_vanishes),
        cmocka_unit_test(test_preview__there_is_none_of_what_is_not_finite),
        cmocka_unit_test(test_preview__short_memory_is_an_error_and_no_leak),
    };

    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
