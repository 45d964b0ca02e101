#include "kernels/core/convert.h"

#include <assert.h>
#include <math.h>
#include <string.h>

static uint32_t bits_of(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static float float_of(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* A format of `exponent` and `mantissa` bits with the usual subnormals, as fp32.  The caller has
 * dealt with the codes that are not numbers. */
static float expand(uint32_t code, int exponent, int mantissa)
{
    const uint32_t sign = code >> (exponent + mantissa) << 31;
    const uint32_t e = code >> mantissa & ((1u << exponent) - 1);
    const uint32_t m = code & ((1u << mantissa) - 1);
    const int bias = (1 << (exponent - 1)) - 1;

    if (e)
        return float_of(sign | (e + 127 - (uint32_t)bias) << 23 | m << (23 - mantissa));
    const float tiny =
        ldexpf((float)m, 1 - bias - mantissa); /* exact: a few bits, well above 2^-126 */
    return sign ? -tiny : tiny;
}

/* |x| to the nearest code, ties to even, no limit at the top: the caller compares with its largest
 * code.  Works on the bits, so that rounding carries into the exponent by itself. */
static uint32_t shrink(uint32_t magnitude, int exponent, int mantissa)
{
    const int bias = (1 << (exponent - 1)) - 1;
    const uint32_t smallest_normal = (uint32_t)(127 + 1 - bias) << 23;

    if (magnitude < smallest_normal) {
        /* Adding a power of two whose last bit is the subnormal's makes the adder round for us. */
        const float magic = float_of((uint32_t)(127 + 1 - bias + 23 - mantissa) << 23);
        return bits_of(float_of(magnitude) + magic) - bits_of(magic);
    }
    const int drop = 23 - mantissa;
    const uint32_t odd = magnitude >> drop & 1;
    const uint32_t rounded = magnitude + (1u << (drop - 1)) - 1 + odd;
    return (rounded >> drop) - ((uint32_t)(127 - bias) << mantissa);
}

float mp_f16_to_f32(uint16_t h)
{
    if ((h & 0x7c00) == 0x7c00)
        return float_of((uint32_t)(h & 0x8000) << 16 | 0x7f800000 | (uint32_t)(h & 0x3ff) << 13);
    return expand(h, 5, 10);
}

float mp_bf16_to_f32(uint16_t h)
{
    return float_of((uint32_t)h << 16);
}

float mp_e4m3_to_f32(uint8_t q)
{
    if ((q & 0x7f) == 0x7f)
        return float_of((uint32_t)(q & 0x80) << 24 | 0x7fc00000);
    return expand(q, 4, 3);
}

float mp_e5m2_to_f32(uint8_t q)
{
    return mp_f16_to_f32((uint16_t)(q << 8));
}

uint16_t mp_f32_to_f16(float x)
{
    const uint32_t u = bits_of(x), magnitude = u & 0x7fffffff;
    const uint16_t sign = (uint16_t)(u >> 16 & 0x8000);

    if (magnitude > 0x7f800000)
        return sign | 0x7e00;
    if (magnitude >= 0x477ff000) /* 65520, half-way to the next power of two */
        return sign | 0x7c00;
    return (uint16_t)(sign | shrink(magnitude, 5, 10));
}

uint16_t mp_f32_to_bf16(float x)
{
    const uint32_t u = bits_of(x);

    if ((u & 0x7fffffff) > 0x7f800000)
        return 0x7fc0;
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

uint8_t mp_f32_to_e4m3(float x, mp_e4m3_overflow mode)
{
    const uint32_t u = bits_of(x), magnitude = u & 0x7fffffff;
    const uint8_t sign = (uint8_t)(u >> 24 & 0x80);

    if (magnitude > 0x7f800000)
        return sign | 0x7f;
    if (mode == MP_E4M3_SATURATE && magnitude > 0x43e00000) /* 448 */
        return sign | 0x7e;
    if (magnitude >= 0x43f00000) /* 480 is the first value past every rounding into 448's binade */
        return sign | 0x7f;
    return (uint8_t)(sign | shrink(magnitude, 4, 3));
}

uint8_t mp_f32_to_e5m2(float x)
{
    const uint32_t u = bits_of(x), magnitude = u & 0x7fffffff;
    const uint8_t sign = (uint8_t)(u >> 24 & 0x80);

    if (magnitude > 0x7f800000)
        return sign | 0x7f;
    if (magnitude >= 0x47700000) /* 61440, half-way to the next power of two */
        return sign | 0x7c;
    return (uint8_t)(sign | shrink(magnitude, 5, 2));
}

void mp_widen(mp_dtype from, const void *src, float *dst, int64_t n)
{
    const uint16_t *h = src;
    const uint8_t *q = src;

    switch (from) {
    case MP_F32:
        if (n > 0)
            memcpy(dst, src, (size_t)n * sizeof *dst);
        return;
    case MP_F16:
        for (int64_t i = 0; i < n; i++)
            dst[i] = mp_f16_to_f32(h[i]);
        return;
    case MP_BF16:
        for (int64_t i = 0; i < n; i++)
            dst[i] = mp_bf16_to_f32(h[i]);
        return;
    case MP_F8_E4M3:
        for (int64_t i = 0; i < n; i++)
            dst[i] = mp_e4m3_to_f32(q[i]);
        return;
    case MP_F8_E5M2:
        for (int64_t i = 0; i < n; i++)
            dst[i] = mp_e5m2_to_f32(q[i]);
        return;
    case MP_DTYPE_COUNT:
        break;
    }
    assert(!"no such dtype");
}

void mp_narrow(mp_dtype to, mp_e4m3_overflow mode, const float *src, void *dst, int64_t n)
{
    uint16_t *h = dst;
    uint8_t *q = dst;

    switch (to) {
    case MP_F32:
        if (n > 0)
            memcpy(dst, src, (size_t)n * sizeof *src);
        return;
    case MP_F16:
        for (int64_t i = 0; i < n; i++)
            h[i] = mp_f32_to_f16(src[i]);
        return;
    case MP_BF16:
        for (int64_t i = 0; i < n; i++)
            h[i] = mp_f32_to_bf16(src[i]);
        return;
    case MP_F8_E4M3:
        for (int64_t i = 0; i < n; i++)
            q[i] = mp_f32_to_e4m3(src[i], mode);
        return;
    case MP_F8_E5M2:
        for (int64_t i = 0; i < n; i++)
            q[i] = mp_f32_to_e5m2(src[i]);
        return;
    case MP_DTYPE_COUNT:
        break;
    }
    assert(!"no such dtype");
}

float mp_round_to(mp_dtype d, float x)
{
    uint32_t slot = 0;
    float y;

    mp_narrow(d, MP_E4M3_SATURATE, &x, &slot, 1);
    mp_widen(d, &slot, &y, 1);
    return y;
}
