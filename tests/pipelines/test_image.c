/* PNG files.  Goldens: tests/fixtures/make_image.py (Pillow). */
#include "tests/pipelines/scratch.h"

#include <math.h>

#include "pipelines/common/image.h"
#include "pipelines/common/safetensors.h"

#define FOLDER MP_FIXTURES "/image/"

/* Equal bits: a byte over 255 in fp32 is one correctly rounded division on both sides. */
static void test_image__reads_every_colour_type_as_pillow_does(void **state)
{
    mp_error err = {0};
    mp_safetensors *s;

    (void)state;
    mp_safetensors_open(FOLDER "expected.safetensors", &s, &err);
    assert_ok(&err);
    assert_int_equal(mp_safetensors_count(s), 6);
    for (int64_t i = 0; i < mp_safetensors_count(s); i++) {
        const mp_tensor golden = mp_safetensors_at(s, i);
        char path[512];
        float *data;
        int64_t height, width;
        snprintf(path, sizeof path, FOLDER "%s.png", golden.name);
        mp_image_read_png(path, &data, &height, &width, &err);
        assert_ok(&err);
        assert_int_equal(height, golden.dim[1]);
        assert_int_equal(width, golden.dim[2]);
        assert_memory_equal(data, golden.data, mp_nbytes(golden));
        mp_free(data);
    }
    mp_safetensors_close(s);
}

static void test_image__writes_what_it_reads_back(void **state)
{
    enum { H = 3, W = 5, N = 3 * H * W };
    float pixels[N], *data;
    int64_t height, width;
    mp_error err = {0};

    (void)state;
    for (int i = 0; i < N; i++)
        pixels[i] = (float)(i * 5) / 255;
    mp_image_write_png(scratch("a.png"), mp_view(pixels, MP_F32, 4, MP_DIMS(1, 3, H, W)), &err);
    assert_ok(&err);
    mp_image_read_png(scratch("a.png"), &data, &height, &width, &err);
    assert_ok(&err);
    assert_int_equal(height, H);
    assert_int_equal(width, W);
    assert_memory_equal(data, pixels, sizeof pixels);
    mp_free(data);
}

/* (x * 255).round() of numpy: ties go to even, and what is no number becomes 0. */
static void test_image__rounds_to_even_and_clamps(void **state)
{
    float pixels[] = {0.5f / 255, 1.5f / 255, -1, 2, NAN, INFINITY};
    static const float expected[] = {0, 2, 0, 255, 0, 0};
    float *data;
    int64_t height, width;
    mp_error err = {0};

    (void)state;
    mp_image_write_png(scratch("b.png"), mp_view(pixels, MP_F32, 3, MP_DIMS(3, 1, 2)), &err);
    assert_ok(&err);
    mp_image_read_png(scratch("b.png"), &data, &height, &width, &err);
    assert_ok(&err);
    for (int i = 0; i < 6; i++)
        assert_true(data[i] * 255 == expected[i]);
    mp_free(data);
}

static void test_image__refuses_what_is_no_picture(void **state)
{
    static float pixels[12];
    mp_error err = {0};

    (void)state;
    mp_image_write_png(scratch("c.png"), mp_view(pixels, MP_F32, 3, MP_DIMS(4, 1, 3)), &err);
    assert_error(&err, MP_ESHAPE, "c.png: picture is [4, 1, 3], expected fp32 [3, H, W]");
    err = (mp_error){0};
    mp_image_write_png(scratch("c.png"), mp_view(pixels, MP_F32, 3, MP_DIMS(3, 0, 3)), &err);
    assert_error(&err, MP_ESHAPE, "[3, 0, 3], expected sides of 1..65536");
    err = (mp_error){0};
    mp_image_write_png(scratch("c.png"), mp_view(pixels, MP_F16, 3, MP_DIMS(3, 1, 3)), &err);
    assert_error(&err, MP_ESHAPE, "expected fp32");
    err = (mp_error){0};
    mp_image_write_png(scratch("no/c.png"), mp_view(pixels, MP_F32, 3, MP_DIMS(3, 1, 3)), &err);
    assert_error(&err, MP_EIO, "no/c.png: cannot be created");
}

static size_t read_bytes(const char *path, unsigned char *bytes, size_t size)
{
    FILE *f = fopen(path, "rb");

    assert_non_null(f);
    const size_t n = fread(bytes, 1, size, f);
    fclose(f);
    return n;
}

static void test_image__refuses_broken_files(void **state)
{
    unsigned char bytes[1024];
    float *data;
    int64_t h, w;
    mp_error err = {0};
    const size_t n = read_bytes(FOLDER "rgb.png", bytes, sizeof bytes);

    (void)state;
    assert_in_range(n, 100, sizeof bytes - 1);
    for (size_t cut = 0; cut < n; cut++) {
        err = (mp_error){0};
        mp_image_read_png(scratch_write("cut.png", bytes, cut), &data, &h, &w, &err);
        assert_null(data);
        assert_error(&err, MP_EFORMAT, "cut.png: ", "expected a PNG");
    }
    bytes[60] ^= 0x55; /* within the compressed pixels */
    err = (mp_error){0};
    mp_image_read_png(scratch_write("bad.png", bytes, n), &data, &h, &w, &err);
    assert_error(&err, MP_EFORMAT, "bad.png: ");
    err = (mp_error){0};
    mp_image_read_png(FOLDER "gray16.png", &data, &h, &w, &err);
    assert_error(&err, MP_EFORMAT, "16 bits a channel, expected at most 8");
    err = (mp_error){0};
    mp_image_read_png(scratch("absent.png"), &data, &h, &w, &err);
    assert_error(&err, MP_EMISSING, "absent.png: cannot be opened");
}

/* A header that claims 65536 x 65536 pixels asks for no memory. */
static void test_image__refuses_a_huge_claim_before_it_allocates(void **state)
{
    static const unsigned char huge[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n', 0,   0, 0, 13,
                                         'I',  'H', 'D', 'R', 0,    1,    0,    0,    0,   1, 0, 0,
                                         8,    2,   0,   0,   0,    0x22, 0xf8, 0x5a, 0x2e};
    float *data;
    int64_t h, w;
    mp_error err = {0};

    (void)state;
    const uint64_t before = mp_memory_requests();
    mp_image_read_png(scratch_write("huge.png", huge, sizeof huge), &data, &h, &w, &err);
    assert_int_equal(err.code, MP_EFORMAT);
    assert_int_equal(mp_memory_requests() - before, 1); /* the file's own bytes */
}

static void test_image__reports_short_memory_at_every_request(void **state)
{
    static float pixels[12];
    int failures = 0;

    (void)state;
    for (uint64_t n = 1;; n++) {
        mp_error err = {0};
        float *data = NULL;
        int64_t h, w;
        mp_memory_fail_at(n);
        mp_image_write_png(scratch("m.png"), mp_view(pixels, MP_F32, 3, MP_DIMS(3, 2, 2)), &err);
        if (!err.code)
            mp_image_read_png(scratch("m.png"), &data, &h, &w, &err);
        mp_memory_fail_at(0);
        mp_free(data);
        if (!err.code)
            break;
        assert_error(&err, MP_ENOMEM, "memory");
        failures++;
    }
    assert_in_range(failures, 6, 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_image__reads_every_colour_type_as_pillow_does),
        cmocka_unit_test(test_image__writes_what_it_reads_back),
        cmocka_unit_test(test_image__rounds_to_even_and_clamps),
        cmocka_unit_test(test_image__refuses_what_is_no_picture),
        cmocka_unit_test(test_image__refuses_broken_files),
        cmocka_unit_test(test_image__refuses_a_huge_claim_before_it_allocates),
        cmocka_unit_test(test_image__reports_short_memory_at_every_request),
    };

    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
