/* Conversions against torch, bit for bit: every code of every format, every tie and its neighbours,
 * a million random floats; by the scalar functions and by the casts of every instruction set.
 * Inputs follow the formulas of tests/fixtures/make_convert.py, whose file holds the results, long
 * ones as one CRC a block. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/core/memory.h"
#include "kernels/device.h"
#include "kernels/ops.h"
#include "tests/support/mp_test.h"

enum { TIE_INPUTS = 8, RANDOM = 1 << 20 };

static const struct format {
    mp_dtype dtype;
    uint32_t largest, nan; /* codes */
} formats[] = {
    {MP_F16, 0x7bff, 0x7e00},
    {MP_BF16, 0x7f7f, 0x7fc0},
    {MP_F8_E4M3, 0x7e, 0x7f},
    {MP_F8_E5M2, 0x7b, 0x7f},
};

enum { FORMATS = sizeof formats / sizeof *formats };

/* Who converts: the scalar functions (isa NULL) or the casts of a context. */
typedef struct converter {
    const char *isa;
    mp_ctx *c;
} converter;

static void widen(const converter *by, mp_dtype d, void *codes, float *out, int64_t n)
{
    if (!by->isa) {
        mp_widen(d, codes, out, n);
        return;
    }
    const mp_mark mark = mp_open(by->c);
    const mp_tensor y = mp_cast(by->c, mp_view(codes, d, 1, &n), MP_F32);
    mp_test_ok(by->c);
    memcpy(out, y.data, (size_t)n * sizeof *out);
    mp_drop(by->c, mark);
}

static void narrow(const converter *by, mp_dtype d, float *values, void *out, int64_t n)
{
    if (!by->isa) {
        mp_narrow(d, MP_E4M3_SATURATE, values, out, n);
        return;
    }
    const mp_mark mark = mp_open(by->c);
    const mp_tensor y = mp_cast(by->c, mp_view(values, MP_F32, 1, &n), d);
    mp_test_ok(by->c);
    memcpy(out, y.data, mp_nbytes(y));
    mp_drop(by->c, mark);
}

/* Runs a test of one converter for the scalar functions and for all contexts. */
static void each_converter(void (*test)(const converter *, mp_safetensors *, const struct format *))
{
    mp_safetensors *g = mp_test_goldens("convert/convert.safetensors");
    const char *const *isa = mp_test_isas();

    for (converter by = {NULL, NULL};; by.isa = *isa++) {
        by.c = by.isa ? mp_test_ctx(by.isa, 2) : NULL;
        for (int i = 0; i < FORMATS; i++)
            test(&by, g, &formats[i]);
        mp_device_close(by.c);
        if (!*isa)
            break;
    }
    mp_safetensors_close(g);
}

static uint32_t code_at(mp_dtype d, const void *codes, int64_t i)
{
    return mp_dtype_size(d) == 1 ? ((const uint8_t *)codes)[i] : ((const uint16_t *)codes)[i];
}

static void put_code(mp_dtype d, void *codes, int64_t i, uint32_t code)
{
    if (mp_dtype_size(d) == 1)
        ((uint8_t *)codes)[i] = (uint8_t)code;
    else
        ((uint16_t *)codes)[i] = (uint16_t)code;
}

/* All NaN become one code, after a check that a NaN came of a NaN and of nothing else. */
static void canonical(const struct format *f, const float *values, void *codes, int64_t n)
{
    const uint32_t magnitude = mp_dtype_size(f->dtype) == 1 ? 0x7f : 0x7fff;
    const uint32_t infinity = f->dtype == MP_F8_E4M3 ? f->largest : f->largest + 1;

    for (int64_t i = 0; i < n; i++) {
        const bool nan = (code_at(f->dtype, codes, i) & magnitude) > infinity;
        if (nan != (bool)isnan(values[i]))
            fail_msg("%s: %a became the code %#x", mp_dtype_name(f->dtype), (double)values[i],
                     code_at(f->dtype, codes, i));
        if (nan)
            put_code(f->dtype, codes, i, f->nan);
    }
}

/* zlib's CRC-32, bit by bit. */
static uint32_t crc_of(const void *data, size_t n)
{
    static uint32_t table[256];
    const uint8_t *p = data;
    uint32_t crc = 0xffffffff;

    for (uint32_t i = 0; !table[255] && i < 256; i++) {
        table[i] = i;
        for (int bit = 0; bit < 8; bit++)
            table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0xedb88320 : 0);
    }
    for (size_t i = 0; i < n; i++)
        crc = crc >> 8 ^ table[(crc ^ p[i]) & 0xff];
    return ~crc;
}

/* Results against a golden: either the results themselves or a CRC for each block of them. */
static void check(const converter *by, const mp_safetensors *g, const char *kind, mp_dtype d,
                  const void *results, size_t size, int64_t n, int64_t block)
{
    const mp_tensor golden = mp_test_golden(g, "%s.%s", kind, mp_dtype_name(d));
    const char *name = by->isa ? by->isa : "scalar", *bytes = results;

    if (!block) {
        assert_int_equal(mp_numel(golden), n);
        for (int64_t i = 0; i < n; i++)
            if (memcmp(bytes + (size_t)i * size, (char *)golden.data + (size_t)i * size, size))
                fail_msg("%s of %s by %s: result %lld differs", kind, mp_dtype_name(d), name,
                         (long long)i);
        return;
    }
    assert_int_equal(mp_numel(golden), (n + block - 1) / block);
    for (int64_t i = 0; i < n; i += block) {
        const int64_t m = n - i < block ? n - i : block;
        int64_t crc;
        memcpy(&crc, (char *)golden.data + i / block * 8, sizeof crc);
        if (crc != crc_of(bytes + (size_t)i * size, (size_t)m * size))
            fail_msg("%s of %s by %s: results %lld to %lld are not all torch's", kind,
                     mp_dtype_name(d), name, (long long)i, (long long)(i + m - 1));
    }
}

static void check_widen(const converter *by, mp_safetensors *g, const struct format *f)
{
    const size_t size = mp_dtype_size(f->dtype);
    const int64_t n = 1 << (8 * size);
    uint16_t *codes = mp_alloc((size_t)n, sizeof *codes);
    float *values = mp_alloc((size_t)n, sizeof *values);
    const uint32_t nan = 0x7fc00000;

    for (int64_t i = 0; i < n; i++)
        put_code(f->dtype, codes, i, (uint32_t)i);
    widen(by, f->dtype, codes, values, n);
    for (int64_t i = 0; i < n; i++)
        if (isnan(values[i]))
            memcpy(&values[i], &nan, sizeof nan);
    check(by, g, "widen", f->dtype, values, sizeof *values, n, size == 1 ? 0 : 256);
    mp_free(values);
    mp_free(codes);
}

static void test_convert__widens_every_code_as_torch(void **state)
{
    (void)state;
    each_converter(check_widen);
}

static float of_code(mp_dtype d, uint32_t code)
{
    uint16_t h = 0;
    float x;

    put_code(d, &h, 0, code);
    mp_widen(d, &h, &x, 1);
    return x;
}

/* The inputs of make_convert.py's tie_inputs for one code. */
static void tie_inputs(const struct format *f, uint32_t code, float *out)
{
    const double v = (double)of_code(f->dtype, code);
    const double below = code ? (double)of_code(f->dtype, code - 1) : 0;
    const double above = code < f->largest ? (double)of_code(f->dtype, code + 1) : 2 * v - below;

    out[0] = (float)v;
    out[2] = (float)((v + above) / 2);
    out[1] = nextafterf(out[2], 0.0f);
    out[3] = nextafterf(out[2], INFINITY);
    for (int i = 0; i < 4; i++)
        out[4 + i] = -out[i];
}

static void check_ties(const converter *by, mp_safetensors *g, const struct format *f)
{
    const int64_t n = (int64_t)(f->largest + 1) * TIE_INPUTS;
    float *values = mp_alloc((size_t)n, sizeof *values);
    uint16_t *codes = mp_alloc((size_t)n, sizeof *codes);

    for (uint32_t code = 0; code <= f->largest; code++)
        tie_inputs(f, code, values + code * TIE_INPUTS);
    narrow(by, f->dtype, values, codes, n);
    canonical(f, values, codes, n);
    check(by, g, "ties", f->dtype, codes, mp_dtype_size(f->dtype), n,
          mp_dtype_size(f->dtype) == 1 ? 0 : 1024);
    mp_free(codes);
    mp_free(values);
}

static void test_convert__narrows_every_value_tie_and_neighbour_as_torch(void **state)
{
    (void)state;
    each_converter(check_ties);
}

/* The finaliser of MurmurHash3. */
static uint32_t mix(uint32_t x)
{
    x = (x ^ x >> 16) * 0x85ebca6b;
    x = (x ^ x >> 13) * 0xc2b2ae35;
    return x ^ x >> 16;
}

static void check_random(const converter *by, mp_safetensors *g, const struct format *f)
{
    float *values = mp_alloc(RANDOM, sizeof *values);
    uint16_t *codes = mp_alloc(RANDOM, sizeof *codes);

    for (uint32_t i = 0; i < RANDOM; i++) {
        const uint32_t bits = mix(i);
        memcpy(&values[i], &bits, sizeof bits);
    }
    narrow(by, f->dtype, values, codes, RANDOM);
    canonical(f, values, codes, RANDOM);
    check(by, g, "random", f->dtype, codes, mp_dtype_size(f->dtype), RANDOM, 4096);
    mp_free(codes);
    mp_free(values);
}

static void test_convert__narrows_a_million_random_floats_as_torch(void **state)
{
    (void)state;
    each_converter(check_random);
}

/* Each case alone and at the end of runs of other lengths, so that vectors and tails both see it.
 */
static void check_cases(const converter *by, mp_safetensors *g, const struct format *f)
{
    enum { LONGEST = 40 };
    const mp_tensor in = mp_test_golden(g, "cases.in");
    const mp_tensor golden = mp_test_golden(g, "cases.%s", mp_dtype_name(f->dtype));
    const int64_t cases = mp_numel(in);
    float values[LONGEST];
    uint16_t codes[LONGEST];

    for (int64_t n = 1; n <= LONGEST; n += n < 17 ? 1 : 5)
        for (int64_t first = 0; first + n <= cases; first++) {
            memcpy(values, (char *)in.data + first * 4, (size_t)n * 4);
            narrow(by, f->dtype, values, codes, n);
            canonical(f, values, codes, n);
            for (int64_t i = 0; i < n; i++)
                if (code_at(f->dtype, codes, i) != code_at(f->dtype, golden.data, first + i))
                    fail_msg("%s by %s: %a became %#x, expected %#x", mp_dtype_name(f->dtype),
                             by->isa ? by->isa : "scalar", (double)values[i],
                             code_at(f->dtype, codes, i),
                             code_at(f->dtype, golden.data, first + i));
        }
}

static void test_convert__overflow_denormals_and_nan_are_torchs_in_vectors_and_tails(void **state)
{
    (void)state;
    each_converter(check_cases);
}

/* The older rule differs above 464, the tie between 448 and the 480 that the format lacks, and
 * nowhere else. */
static void test_convert__e4m3_gives_nan_above_464_in_the_older_mode(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < RANDOM; i++) {
        /* Half of the inputs within a factor of 4 of the limit. */
        const uint32_t bits = i % 2 ? mix(i) : 0x43600000 + (mix(i) & 0x80ffffff);
        float x;
        memcpy(&x, &bits, sizeof x);
        const uint8_t now = mp_f32_to_e4m3(x, MP_E4M3_SATURATE);
        const uint8_t older = mp_f32_to_e4m3(x, MP_E4M3_NAN);
        if (fabsf(x) > 464.0f)
            assert_int_equal(older, 0x7f | (signbit(x) ? 0x80 : 0));
        else
            assert_int_equal(older, now);
    }
    assert_int_equal(mp_f32_to_e4m3(464.0f, MP_E4M3_NAN), 0x7e);
    assert_int_equal(mp_f32_to_e4m3(-INFINITY, MP_E4M3_NAN), 0xff);
}

static void test_convert__a_context_casts_in_the_overflow_mode_it_was_opened_with(void **state)
{
    (void)state;
    const float values[] = {448.0f, 465.0f, -1e9f};
    static const uint8_t codes[][3] = {
        [MP_E4M3_SATURATE] = {0x7e, 0x7e, 0xfe}, [MP_E4M3_NAN] = {0x7e, 0x7f, 0xff}};

    for (const char *const *isa = mp_test_isas(); *isa; isa++)
        for (int mode = MP_E4M3_SATURATE; mode <= MP_E4M3_NAN; mode++) {
            const mp_device_options o = {.isa = *isa, .threads = 1, .e4m3 = (mp_e4m3_overflow)mode};
            mp_error err = {0};
            mp_ctx *c;
            assert_int_equal(mp_device_open(&o, &c, &err), MP_OK);
            const mp_tensor x = mp_test_floats(c, MP_F32, 1, MP_DIMS(3), values);
            assert_memory_equal(mp_cast(c, x, MP_F8_E4M3).data, codes[mode], 3);
            mp_device_close(c);
        }
}

/* Between two narrow formats torch goes through fp32: two roundings at most, none hidden. */
static void test_convert__casts_between_narrow_formats_go_through_fp32(void **state)
{
    (void)state;
    mp_ctx *c = mp_test_ctx(NULL, 1);

    for (int from = 0; from < FORMATS; from++)
        for (int to = 0; to < FORMATS; to++) {
            const mp_mark mark = mp_open(c);
            const int64_t n = 1 << (8 * mp_dtype_size(formats[from].dtype));
            const mp_tensor x = mp_new(c, formats[from].dtype, 1, &n);
            for (int64_t i = 0; i < n; i++)
                put_code(x.dtype, x.data, i, (uint32_t)i);
            const mp_tensor direct = mp_cast(c, x, formats[to].dtype);
            const mp_tensor wide = mp_cast(c, mp_cast(c, x, MP_F32), formats[to].dtype);
            mp_test_same(direct, wide);
            mp_drop(c, mark);
        }
    mp_device_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_convert__widens_every_code_as_torch),
        cmocka_unit_test(test_convert__narrows_every_value_tie_and_neighbour_as_torch),
        cmocka_unit_test(test_convert__narrows_a_million_random_floats_as_torch),
        cmocka_unit_test(test_convert__overflow_denormals_and_nan_are_torchs_in_vectors_and_tails),
        cmocka_unit_test(test_convert__e4m3_gives_nan_above_464_in_the_older_mode),
        cmocka_unit_test(test_convert__a_context_casts_in_the_overflow_mode_it_was_opened_with),
        cmocka_unit_test(test_convert__casts_between_narrow_formats_go_through_fp32),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
