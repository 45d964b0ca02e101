#include "tests/support/mp_test.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/device.h"

enum { ISAS = 8, NAME = 128 };

mp_ctx *mp_test_ctx(const char *isa, int threads)
{
    const mp_device_options o = {.isa = isa, .threads = threads};
    mp_error err = {0};
    mp_ctx *c = NULL;

    if (mp_device_open(&o, &c, &err))
        fail_msg("mp_device_open: %s", err.text);
    return c;
}

const char *const *mp_test_isas(void)
{
    static mp_device_info info;
    static const char *isas[ISAS + 1];
    mp_error err = {0};
    char *rest = NULL;
    int n = 0;

    if (isas[0])
        return isas;
    if (mp_device_probe(NULL, &info, &err))
        fail_msg("mp_device_probe: %s", err.text);
    for (char *isa = strtok_r(info.isas, " ", &rest); isa; isa = strtok_r(NULL, " ", &rest)) {
        assert_true(n < ISAS);
        isas[n++] = isa;
    }
    assert_true(n > 0);
    assert_string_equal(isas[n - 1], "base");
    return isas;
}

mp_safetensors *mp_test_goldens(const char *path)
{
    char full[512];
    mp_error err = {0};
    mp_safetensors *g = NULL;

    snprintf(full, sizeof full, "%s/%s", MP_FIXTURES, path);
    if (mp_safetensors_open(full, &g, &err))
        fail_msg("%s", err.text);
    return g;
}

static mp_tensor find(const mp_safetensors *g, const char *format, va_list args)
{
    char name[NAME];
    mp_tensor t = MP_NONE;

    vsnprintf(name, sizeof name, format, args);
    if (!mp_safetensors_find(g, name, &t))
        fail_msg("%s has no %s", mp_safetensors_path(g), name);
    return t;
}

mp_tensor mp_test_golden(const mp_safetensors *g, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    const mp_tensor t = find(g, format, args);
    va_end(args);
    return t;
}

mp_tensor mp_test_tensor(mp_ctx *c, const mp_safetensors *g, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    const mp_tensor t = find(g, format, args);
    va_end(args);
    const mp_tensor y = mp_like(c, t);
    mp_test_ok(c);
    if (mp_numel(t))
        memcpy(y.data, t.data, mp_nbytes(t));
    return y;
}

mp_tensor mp_test_floats(mp_ctx *c, mp_dtype d, int rank, const int64_t *dims, const float *values)
{
    const mp_tensor y = mp_new(c, d, rank, dims);

    mp_test_ok(c);
    mp_narrow(d, MP_E4M3_SATURATE, values, y.data, mp_numel(y));
    return y;
}

void mp_test_ok(const mp_ctx *c)
{
    const mp_error *err = mp_ctx_error(c);

    if (mp_failed(c))
        fail_msg("%s %s: %s", err->module, err->op, err->text);
}

void mp_test_fails(mp_ctx *c, mp_code code, const char *part)
{
    const mp_error *err = mp_ctx_error(c);

    if (err->code != code)
        fail_msg("the context says %s (%s), not %s (%s)", mp_code_name(err->code), err->text,
                 mp_code_name(code), part);
    if (!strstr(err->text, part))
        fail_msg("\"%s\" does not contain \"%s\"", err->text, part);
    mp_ctx_clear(c);
}

/* The codes of a dtype in the order of their values, 0 for both zeros. */
static int64_t rank_of(mp_dtype d, float x)
{
    uint32_t code = 0;

    mp_narrow(d, MP_E4M3_SATURATE, &x, &code, 1);
    const int sign_bit = (int)mp_dtype_size(d) * 8 - 1;
    const int64_t magnitude = code & ((1u << sign_bit) - 1);
    return code >> sign_bit ? -magnitude : magnitude;
}

int64_t mp_test_ulps(mp_dtype d, float a, float b)
{
    if (isnan(a) || isnan(b))
        return isnan(a) && isnan(b) ? 0 : INT64_MAX;
    const int64_t steps = rank_of(d, a) - rank_of(d, b);
    return steps < 0 ? -steps : steps;
}

static float value_at(mp_tensor t, int64_t i)
{
    float x;

    mp_widen(t.store, (const char *)t.data + (size_t)i * mp_dtype_size(t.store), &x, 1);
    return x;
}

/* "[1, 0, 3]" of element i. */
static const char *place(mp_tensor t, int64_t i, char *text, size_t size)
{
    mp_tensor at = t;

    for (int d = t.rank - 1; d >= 0; d--) {
        at.dim[d] = i % t.dim[d];
        i /= t.dim[d];
    }
    return mp_shape_text(at, text, size);
}

static void check_form(mp_tensor y, mp_tensor golden)
{
    char ys[96], gs[96];

    if (!mp_given(y))
        fail_msg("no result where %s %s is expected", mp_dtype_name(golden.dtype),
                 mp_shape_text(golden, gs, sizeof gs));
    if (y.dtype != golden.dtype || !mp_same_shape(y, golden))
        fail_msg("result is %s %s, expected %s %s", mp_dtype_name(y.dtype),
                 mp_shape_text(y, ys, sizeof ys), mp_dtype_name(golden.dtype),
                 mp_shape_text(golden, gs, sizeof gs));
}

void mp_test_close(mp_tensor y, mp_tensor golden, mp_tolerance t)
{
    const int64_t n = mp_numel(golden);
    int64_t differ = 0;
    char at[96];

    check_form(y, golden);
    for (int64_t i = 0; i < n; i++) {
        const float is = value_at(y, i), expected = value_at(golden, i);
        const int64_t ulps = mp_test_ulps(golden.dtype, is, expected);
        differ += ulps != 0;
        if (ulps <= t.ulps || fabs((double)is - (double)expected) <= t.abs)
            continue;
        fail_msg("%s: %s%s is %.9g, expected %.9g: %lld ulp and %.3g apart; allowed are %lld ulp "
                 "or %.3g (%s)",
                 golden.name ? golden.name : "result", mp_dtype_name(golden.dtype),
                 place(golden, i, at, sizeof at), (double)is, (double)expected, (long long)ulps,
                 fabs((double)is - (double)expected), (long long)t.ulps, t.abs, t.name);
    }
    if (t.share > 0 && (double)differ > t.share * (double)n)
        fail_msg("%s: %lld of %lld values differ, allowed are %.3g%% (%s)",
                 golden.name ? golden.name : "result", (long long)differ, (long long)n,
                 100 * t.share, t.name);
}

void mp_test_same(mp_tensor y, mp_tensor golden)
{
    const int64_t n = mp_numel(golden);
    char at[96];

    check_form(y, golden);
    for (int64_t i = 0; i < n; i++) {
        const float is = value_at(y, i), expected = value_at(golden, i);
        if (memcmp(&is, &expected, sizeof is) && !(isnan(is) && isnan(expected)))
            fail_msg("%s: %s%s is %.9g (%a), expected the bits of %.9g (%a)",
                     golden.name ? golden.name : "result", mp_dtype_name(golden.dtype),
                     place(golden, i, at, sizeof at), (double)is, (double)is, (double)expected,
                     (double)expected);
    }
}

static mp_tensor copy_of(mp_ctx *c, mp_tensor x)
{
    const mp_tensor y = mp_like(c, x);

    mp_test_ok(c);
    memcpy(y.data, x.data, mp_nbytes(x));
    return y;
}

static void same_as(const mp_test_case *k, mp_ctx *c, mp_ctx *reference, mp_tensor x,
                    const mp_tolerance *t)
{
    char name[NAME];
    const mp_mark mark = mp_open(c), base = mp_open(reference);
    const mp_tensor y = k->run(c, copy_of(c, x));
    mp_tensor golden = k->run(reference, copy_of(reference, x));
    mp_device_info info;

    mp_test_ok(c);
    mp_test_ok(reference);
    mp_device_describe(c, &info);
    snprintf(name, sizeof name, "%s by %s with %d threads", k->name, info.isa, info.threads);
    golden.name = name;
    if (t)
        mp_test_close(y, golden, *t);
    else
        mp_test_same(y, golden);
    mp_drop(c, mark);
    mp_drop(reference, base);
}

/* fused: of another instruction set than base's, or the same. */
static void agree(const mp_test_case *cases, int n, mp_tensor x, mp_ctx *base, mp_ctx *fused)
{
    static const int threads[] = {1, 2, 3, 5};

    for (const char *const *isa = mp_test_isas(); *isa; isa++)
        for (size_t t = 0; t < sizeof threads / sizeof *threads; t++) {
            mp_ctx *c = mp_test_ctx(*isa, threads[t]);
            for (int i = 0; i < n; i++)
                same_as(&cases[i], c, strcmp(*isa, "base") ? fused : base, x, NULL);
            mp_device_close(c);
        }
}

void mp_test_agree(const mp_test_case *cases, int n, mp_tensor x)
{
    mp_ctx *base = mp_test_ctx("base", 1);

    agree(cases, n, x, base, base);
    mp_device_close(base);
}

void mp_test_agree_fused(const mp_test_case *k, mp_tensor x, mp_tolerance t)
{
    mp_ctx *base = mp_test_ctx("base", 1), *fused = mp_test_ctx(NULL, 1);

    agree(k, 1, x, base, fused);
    same_as(k, base, fused, x, &t);
    mp_device_close(base);
    mp_device_close(fused);
}

double mp_rel_l2(const float *a, const float *b, int64_t n)
{
    double difference = 0, norm = 0;

    for (int64_t i = 0; i < n; i++) {
        const double d = (double)a[i] - (double)b[i];
        difference += d * d;
        norm += (double)b[i] * (double)b[i];
    }
    return difference == 0 ? 0 : sqrt(difference / norm);
}
