/* Registers of floats per instruction set: conversions, transcendental functions, and the loop that
 * every elementwise kernel is; then runs of floats.  Included by kernels/cpu/isa.c only.
 *
 * Conversions give the bits of kernels/core/convert.h, NaN payloads excepted. */

#include <math.h>
#include <string.h>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "kernels/core/convert.h"

/* Elements that a kernel widens at a time: three operands and a result stay in the first cache. */
enum { VEC_CHUNK = 512 };

/* A register of floats; what goes on within one is always inlined. */
#define REG static inline __attribute__((always_inline))

#if defined(__AVX512F__)
typedef __m512 reg;
enum { REG_LANES = 16 };
#elif defined(__AVX2__)
typedef __m256 reg;
enum { REG_LANES = 8 };
#else
enum { REG_LANES = 4 };
typedef float reg __attribute__((vector_size(4 * REG_LANES)));
#endif

typedef uint32_t reg_bits __attribute__((vector_size(4 * REG_LANES)));
typedef uint16_t reg_halves __attribute__((vector_size(2 * REG_LANES)));

REG reg reg_floats(const void *from)
{
    reg v;
    memcpy(&v, from, sizeof v);
    return v;
}

REG void reg_put(void *to, reg v)
{
    memcpy(to, &v, sizeof v);
}

/* bf16 in the upper halves of floats, whatever the lower halves hold. */
REG reg_bits reg_above_bf16(reg v);

#if defined(__AVX512F__)

REG reg reg_fill(float x)
{
    return _mm512_set1_ps(x);
}

REG reg reg_fma(reg a, reg b, reg c)
{
    return _mm512_fmadd_ps(a, b, c);
}

/* The larger one, b where they are equal or one is a NaN; and the smaller one. */
REG reg reg_max(reg a, reg b)
{
    return _mm512_max_ps(a, b);
}

REG reg reg_min(reg a, reg b)
{
    return _mm512_min_ps(a, b);
}

/* a < b ? x : y */
REG reg reg_if_less(reg a, reg b, reg x, reg y)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}

/* Two halves: dividing all at once takes longer than both. */
REG reg reg_divide(reg a, reg b)
{
    const __m256 low = _mm512_castps512_ps256(a) / _mm512_castps512_ps256(b);
    const __m256 high = _mm512_extractf32x8_ps(a, 1) / _mm512_extractf32x8_ps(b, 1);

    return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
}

/* p * 2^n, rounded once: p about 1, n whole. */
REG reg reg_scale(reg p, reg n)
{
    return _mm512_scalef_ps(p, n);
}

REG reg reg_of_f16(reg_halves h)
{
    return _mm512_cvtph_ps((__m256i)h);
}

REG reg_halves reg_to_f16(reg v)
{
    return (reg_halves)_mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT);
}

REG reg reg_of_bf16(reg_halves h)
{
    return (reg)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)h), 16);
}

/* To nearest, ties to even: half a step is added, less the least bit where the result is even. */
REG reg_bits reg_above_bf16(reg v)
{
    const __m512i u = (__m512i)v, half = _mm512_add_epi32(u, _mm512_set1_epi32(0x7fff));
    const __mmask16 odd = _mm512_test_epi32_mask(u, _mm512_set1_epi32(0x10000));
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    const __m512i r = _mm512_mask_add_epi32(half, odd, u, _mm512_set1_epi32(0x8000));

    return (reg_bits)_mm512_mask_mov_epi32(r, nan, _mm512_set1_epi32(0x7fc00000));
}

REG reg_halves reg_to_bf16(reg v)
{
    return (reg_halves)_mm512_cvtepi32_epi16((__m512i)(reg_above_bf16(v) >> 16));
}

REG reg_halves reg_bytes(const void *from)
{
    return (reg_halves)_mm256_cvtepu8_epi16(_mm_loadu_si128(from));
}

#elif defined(__AVX2__)

REG reg reg_fill(float x)
{
    return _mm256_set1_ps(x);
}

REG reg reg_fma(reg a, reg b, reg c)
{
    return _mm256_fmadd_ps(a, b, c);
}

REG reg reg_max(reg a, reg b)
{
    return _mm256_max_ps(a, b);
}

REG reg reg_min(reg a, reg b)
{
    return _mm256_min_ps(a, b);
}

REG reg reg_if_less(reg a, reg b, reg x, reg y)
{
    return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_LT_OQ));
}

REG reg reg_of_f16(reg_halves h)
{
    return _mm256_cvtph_ps((__m128i)h);
}

REG reg_halves reg_to_f16(reg v)
{
    return (reg_halves)_mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT);
}

REG reg reg_of_bf16(reg_halves h)
{
    return (reg)_mm256_slli_epi32(_mm256_cvtepu16_epi32((__m128i)h), 16);
}

REG reg_halves reg_to_bf16(reg v)
{
    const __m256i u = (__m256i)(reg_above_bf16(v) >> 16);

    return (reg_halves)_mm_packus_epi32(_mm256_castsi256_si128(u), _mm256_extracti128_si256(u, 1));
}

REG reg_halves reg_bytes(const void *from)
{
    return (reg_halves)_mm_cvtepu8_epi16(_mm_loadl_epi64(from));
}

#else

REG reg reg_fill(float x)
{
    return x - (reg){0};
}

REG reg reg_pick(reg_bits when, reg x, reg y)
{
    return (reg)(((reg_bits)x & when) | ((reg_bits)y & ~when));
}

/* Fused everywhere, where that is slow, too: for bits that torch has so. */
REG reg reg_fmadd(reg a, reg b, reg c)
{
    for (int l = 0; l < REG_LANES; l++)
        a[l] = fmaf(a[l], b[l], c[l]);
    return a;
}

/* Not fused: here alone the last bits may differ from the other instruction sets'. */
REG reg reg_fma(reg a, reg b, reg c)
{
    return a * b + c;
}

REG reg reg_max(reg a, reg b)
{
    return reg_pick((reg_bits)(a > b), a, b);
}

REG reg reg_min(reg a, reg b)
{
    return reg_pick((reg_bits)(a < b), a, b);
}

REG reg reg_if_less(reg a, reg b, reg x, reg y)
{
    return reg_pick((reg_bits)(a < b), x, y);
}

REG reg reg_of_f16(reg_halves h)
{
    reg v;

    for (int l = 0; l < REG_LANES; l++)
        v[l] = mp_f16_to_f32(h[l]);
    return v;
}

REG reg_halves reg_to_f16(reg v)
{
    reg_halves h;

    for (int l = 0; l < REG_LANES; l++)
        h[l] = mp_f32_to_f16(v[l]);
    return h;
}

REG reg reg_of_bf16(reg_halves h)
{
    return (reg)(__builtin_convertvector(h, reg_bits) << 16);
}

REG reg_halves reg_to_bf16(reg v)
{
    return __builtin_convertvector(reg_above_bf16(v) >> 16, reg_halves);
}

REG reg_halves reg_bytes(const void *from)
{
    uint8_t byte[REG_LANES];
    reg_halves h;

    memcpy(byte, from, sizeof byte);
    for (int l = 0; l < REG_LANES; l++)
        h[l] = byte[l];
    return h;
}

#endif

#if defined(__AVX2__)

REG reg reg_fmadd(reg a, reg b, reg c)
{
    return reg_fma(a, b, c);
}

#endif

#if !defined(__AVX512F__)

REG reg reg_divide(reg a, reg b)
{
    return a / b;
}

/* Two factors of about 2^(n/2), so that a denormal result rounds once.  Adding 1.5 * 2^23 leaves n
 * in the lowest bits. */
REG reg reg_scale(reg p, reg n)
{
    typedef int32_t whole __attribute__((vector_size(4 * REG_LANES)));
    const reg to_int = reg_fill(12582912.0f);
    const whole k = (whole)(n + to_int) - (whole)to_int, half = k >> 1;

    return p * (reg)((half + 127) << 23) * (reg)((k - half + 127) << 23);
}

REG reg_bits reg_above_bf16(reg v)
{
    const reg_bits u = (reg_bits)v, r = u + 0x7fff + (u >> 16 & 1), number = (reg_bits)(v == v);

    return (r & number) | (0x7fc00000 & ~number);
}

#endif

REG reg reg_of_e5m2(reg_halves q)
{
    return reg_of_f16(q << 8); /* e5m2 is the upper byte of fp16 */
}

/* e4m3 under fp16's wider exponent is the value / 256, denormals included; its one NaN becomes
 * fp16's. */
REG reg reg_of_e4m3(reg_halves q)
{
    const reg_halves magnitude = q & 0x7f, nan = (reg_halves)(magnitude == 0x7f);
    const reg_halves h = (q & 0x80) << 8 | magnitude << 7;

    return reg_of_f16((h & ~nan) | (0x7e00 & nan)) * 256.0f;
}

REG size_t reg_size(mp_dtype d)
{
    return d == MP_F32 ? 4 : d == MP_F16 || d == MP_BF16 ? 2 : 1;
}

/* A dtype or a number of values that only the run knows is a call: the loops that matter know. */
#define REG_KNOWN(d, n) (__builtin_constant_p(d) && __builtin_constant_p(n))

REG reg reg_load_known(mp_dtype d, const void *from, int64_t at, int64_t n)
{
    const char *p = (const char *)from + (size_t)at * reg_size(d);
    char some[sizeof(reg)] = {0};
    reg_halves h = {0};

    if (n < REG_LANES)
        p = memcpy(some, p, (size_t)n * reg_size(d));
    if (d == MP_F32)
        return reg_floats(p);
    if (d == MP_F8_E4M3)
        return reg_of_e4m3(reg_bytes(p));
    if (d == MP_F8_E5M2)
        return reg_of_e5m2(reg_bytes(p));
    memcpy(&h, p, sizeof h);
    return d == MP_F16 ? reg_of_f16(h) : reg_of_bf16(h);
}

static __attribute__((noinline)) reg reg_load_any(mp_dtype d, const void *from, int64_t at,
                                                  int64_t n)
{
    return reg_load_known(d, from, at, n);
}

/* n values from the at-th of `from` on, stored as d: REG_LANES of them or fewer, and zeros. */
REG reg reg_load(mp_dtype d, const void *from, int64_t at, int64_t n)
{
    return REG_KNOWN(d, n) ? reg_load_known(d, from, at, n) : reg_load_any(d, from, at, n);
}

REG void reg_store_known(mp_dtype d, mp_e4m3_overflow mode, reg v, void *to, int64_t at, int64_t n)
{
    char *p = (char *)to + (size_t)at * reg_size(d), some[sizeof v];
    char *const full = n < REG_LANES ? some : p;

    if (d == MP_F32) {
        reg_put(full, v);
    } else if (d == MP_F16 || d == MP_BF16) {
        const reg_halves h = d == MP_F16 ? reg_to_f16(v) : reg_to_bf16(v);
        memcpy(full, &h, sizeof h);
    } else {
        float lane[REG_LANES];
        memcpy(lane, &v, sizeof lane);
        mp_narrow(d, mode, lane, full, REG_LANES);
    }
    if (n < REG_LANES)
        memcpy(p, some, (size_t)n * reg_size(d));
}

static __attribute__((noinline)) void reg_store_any(mp_dtype d, mp_e4m3_overflow mode, reg v,
                                                    void *to, int64_t at, int64_t n)
{
    reg_store_known(d, mode, v, to, at, n);
}

REG void reg_store(mp_dtype d, mp_e4m3_overflow mode, reg v, void *to, int64_t at, int64_t n)
{
    if (REG_KNOWN(d, n))
        reg_store_known(d, mode, v, to, at, n);
    else
        reg_store_any(d, mode, v, to, at, n);
}

/* To d and back: a rounding point inside a fused kernel. */
REG reg reg_round(mp_dtype d, mp_e4m3_overflow mode, reg v)
{
    char some[sizeof v];

    if (d == MP_F32)
        return v;
    if (d == MP_F16)
        return reg_of_f16(reg_to_f16(v));
    if (d == MP_BF16)
        return (reg)(reg_above_bf16(v) & 0xffff0000);
    reg_store(d, mode, v, some, 0, REG_LANES);
    return reg_load(d, some, 0, REG_LANES);
}

/* A few registers' worth of an operation: n values from the at-th on.  d: what all operands are
 * stored as, or MP_DTYPE_COUNT where each has its own; op: whatever args mean by it. */
typedef void reg_step(const void *args, int op, mp_dtype d, int64_t at, int64_t n);

/* Steps of `most` values each; what is left, of REG_LANES or fewer. */
REG void reg_steps(reg_step *step, const void *args, int op, mp_dtype d, int64_t most, int64_t from,
                   int64_t to)
{
    for (; from + most <= to; from += most)
        step(args, op, d, from, most);
    for (; from < to; from += REG_LANES)
        step(args, op, d, from, to - from < REG_LANES ? to - from : REG_LANES);
}

/* All steps of a run, once for each dtype that all operands may have. */
REG void reg_run(reg_step *step, const void *args, int op, mp_dtype d, int64_t most, int64_t from,
                 int64_t to)
{
    if (d == MP_F32)
        reg_steps(step, args, op, MP_F32, most, from, to);
    else if (d == MP_F16)
        reg_steps(step, args, op, MP_F16, most, from, to);
    else if (d == MP_BF16)
        reg_steps(step, args, op, MP_BF16, most, from, to);
    else
        reg_steps(step, args, op, MP_DTYPE_COUNT, REG_LANES, from, to);
}

/* What two or more tensors are stored as and compute in, MP_DTYPE_COUNT if that is not one dtype.
 */
static inline mp_dtype reg_common(mp_dtype d, mp_tensor t)
{
    return t.store == d && t.dtype == d ? d : MP_DTYPE_COUNT;
}

/* That, or where there is none, the operand's own. */
REG mp_dtype reg_own(mp_dtype common, mp_dtype own)
{
    return common == MP_DTYPE_COUNT ? own : common;
}

typedef struct vec_convert {
    mp_e4m3_overflow mode;
    const void *from;
    void *to;
} vec_convert;

REG void widen_step(const void *args, int from, mp_dtype d, int64_t at, int64_t n)
{
    const vec_convert *v = args;

    (void)d;
    reg_store(MP_F32, v->mode, reg_load((mp_dtype)from, v->from, at, n), v->to, at, n);
}

REG void narrow_step(const void *args, int to, mp_dtype d, int64_t at, int64_t n)
{
    const vec_convert *v = args;

    (void)d;
    reg_store((mp_dtype)to, v->mode, reg_load(MP_F32, v->from, at, n), v->to, at, n);
}

REG void vec_steps(reg_step *step, vec_convert v, mp_dtype d, int64_t n)
{
    switch (d) {
    case MP_F32:
        memcpy(v.to, v.from, (size_t)n * sizeof(float));
        return;
    case MP_F16:
        reg_steps(step, &v, MP_F16, MP_DTYPE_COUNT, REG_LANES, 0, n);
        return;
    case MP_BF16:
        reg_steps(step, &v, MP_BF16, MP_DTYPE_COUNT, REG_LANES, 0, n);
        return;
    case MP_F8_E4M3:
        reg_steps(step, &v, MP_F8_E4M3, MP_DTYPE_COUNT, REG_LANES, 0, n);
        return;
    default:
        reg_steps(step, &v, MP_F8_E5M2, MP_DTYPE_COUNT, REG_LANES, 0, n);
    }
}

static void vec_widen(mp_dtype from, const void *src, float *dst, int64_t n)
{
    vec_steps(widen_step, (vec_convert){MP_E4M3_SATURATE, src, dst}, from, n);
}

static void vec_narrow(mp_dtype to, mp_e4m3_overflow mode, const float *src, void *dst, int64_t n)
{
    vec_steps(narrow_step, (vec_convert){mode, src, dst}, to, n);
}

static inline uint32_t vec_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

REG void round_step(const void *args, int op, mp_dtype d, int64_t at, int64_t n)
{
    const vec_convert *v = args;
    const mp_dtype to = reg_own(d, (mp_dtype)op);

    reg_store(MP_F32, v->mode, reg_round(to, v->mode, reg_load(MP_F32, v->from, at, n)), v->to, at,
              n);
}

/* To the dtype and back, in place. */
static void vec_round(mp_dtype to, mp_e4m3_overflow mode, float *x, int64_t n)
{
    const vec_convert v = {mode, x, x};

    if (to != MP_F32)
        reg_run(round_step, &v, to, to, REG_LANES, 0, n);
}

/* A run of a tensor as floats: in place when it is fp32, else widened into buffer. */
static inline const float *vec_read(mp_tensor t, int64_t at, int64_t n, float *buffer)
{
    if (t.store == MP_F32)
        return (const float *)t.data + at;
    vec_widen(t.store, (const char *)t.data + (size_t)at * mp_dtype_size(t.store), buffer, n);
    return buffer;
}

/* Where to compute a run of the result: the result itself when it is fp32, else buffer; vec_commit
 * then rounds it into place. */
static inline float *vec_slot(mp_tensor y, int64_t at, float *buffer)
{
    return y.store == MP_F32 ? (float *)y.data + at : buffer;
}

static inline void vec_commit(mp_e4m3_overflow mode, mp_tensor y, int64_t at, const float *from,
                              int64_t n)
{
    if (y.store != MP_F32)
        vec_narrow(y.store, mode, from, (char *)y.data + (size_t)at * mp_dtype_size(y.store), n);
}

static inline int64_t vec_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

REG reg reg_abs(reg x)
{
    return (reg)((reg_bits)x & 0x7fffffff);
}

/* x >= 0 with the sign of y. */
REG reg reg_signed(reg x, reg y)
{
    return (reg)((reg_bits)x | ((reg_bits)y & 0x80000000));
}

/* What takes long chains of operations works on k registers at a time, in place: while one waits
 * for its last step, the others have theirs. */
#define REG_EACH(i, k) _Pragma("GCC unroll 4") for (int i = 0; i < (k); i++)
#if defined(__AVX512F__)
enum { REG_MOST = 3 };
#else
enum { REG_MOST = 2 };
#endif

/* p = c[0] x^(n-1) + c[1] x^(n-2) + .. */
REG void reg_polynomial(int k, const float *c, int n, const reg *x, reg *p)
{
    REG_EACH(i, k)
    p[i] = reg_fma(reg_fill(c[0]), x[i], reg_fill(c[1]));
#pragma GCC unroll 8
    for (int j = 2; j < n; j++)
        REG_EACH(i, k)
    p[i] = reg_fma(p[i], x[i], reg_fill(c[j]));
}

/* x = n ln 2 + r, |r| <= ln 2 / 2: r takes x's place; p = (exp(r) - 1 - r) / r^2, minimax: exp(r)
 * is off by 3e-9 of its value. */
REG void reg_exp_parts(int k, reg *x, reg *n, reg *p)
{
    static const float c[] = {1.3814547565e-3f, 8.3687482402e-3f, 4.1668392718e-2f,
                              1.6666519642e-1f, 4.9999994040e-1f};
    const reg to_int = reg_fill(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */

    REG_EACH(i, k)
    n[i] = reg_fma(x[i], reg_fill(1.44269504088896341f), to_int) - to_int;
    REG_EACH(i, k)
    x[i] = reg_fma(n[i], reg_fill(-0.693359375f), x[i]);
    REG_EACH(i, k)
    x[i] = reg_fma(n[i], reg_fill(2.12194440e-4f), x[i]);
    reg_polynomial(k, c, 5, x, p);
}

/* Within 2 ulp of the true value. */
REG void reg_exp(int k, reg *x)
{
    const reg one = reg_fill(1.0f);
    reg n[REG_MOST], p[REG_MOST];

    REG_EACH(i, k)
    x[i] = reg_min(reg_fill(89.0f), reg_max(reg_fill(-104.0f), x[i]));
    reg_exp_parts(k, x, n, p);
    REG_EACH(i, k)
    p[i] = reg_fma(p[i], x[i], one);
    REG_EACH(i, k)
    p[i] = reg_fma(p[i], x[i], one);
    REG_EACH(i, k)
    x[i] = reg_scale(p[i], n[i]);
}

/* q = m / (m + 2), m = exp(2|x|) - 1 = 2^n (exp(r) - 1) + (2^n - 1), less what rounding m + 2 to s
 * adds to it: q (m + 2 - s) / s, where 1 / s = (1 - q) / 2, about.  Within 2.1 ulp. */
REG void reg_tanh(int k, reg *x)
{
    const reg one = reg_fill(1.0f), two = reg_fill(2.0f), half = reg_fill(0.5f);
    reg r[REG_MOST], n[REG_MOST], p[REG_MOST];

    REG_EACH(i, k)
    r[i] = reg_min(reg_fill(20.0f), reg_abs(x[i]) * two);
    reg_exp_parts(k, r, n, p);
    REG_EACH(i, k)
    p[i] = reg_fma(r[i] * r[i], p[i], r[i]);
    REG_EACH(i, k)
    {
        const reg scale = reg_scale(one, n[i]), m = reg_fma(scale, p[i], scale - one);
        const reg s = m + two, q = reg_divide(m, s), lost = m - (s - two);
        const reg by = reg_max(half * reg_fill(0.9998f) - half * q, reg_fill(0.0f));
        x[i] = reg_signed(reg_fma(-(q * lost), by, q), x[i]);
    }
}

REG void reg_sigmoid(int k, reg *x)
{
    const reg one = reg_fill(1.0f);

    REG_EACH(i, k)
    x[i] = -x[i];
    reg_exp(k, x);
    REG_EACH(i, k)
    x[i] = reg_divide(one, one + x[i]);
}

/* y = exp(x - top), in place or not. */
static void vec_exps(const float *x, float top, float *y, int64_t n)
{
    for (int64_t j = 0; j < n; j += REG_LANES) {
        const int64_t m = vec_min(REG_LANES, n - j);
        reg v = reg_load(MP_F32, x, j, m) - reg_fill(top);
        reg_exp(1, &v);
        reg_store(MP_F32, MP_E4M3_SATURATE, v, y, j, m);
    }
}

/* Sums use 32 lanes and this tree on every instruction set, so that all give the same bits: as many
 * vectors as hide how long one addition takes. */
enum { VEC_LANES = 32 };

/* Adds the upper half to the lower until one is left. */
static inline float vec_lane_sum(float *lane)
{
#pragma GCC unroll 8
    for (int half = VEC_LANES / 2; half; half /= 2)
        for (int l = 0; l < half; l++)
            lane[l] += lane[l + half];
    return lane[0];
}

/* What is left of a row after whole VEC_LANES goes to the first lanes. */
enum { VEC_SUMS = VEC_LANES / REG_LANES };

static inline float vec_sum(const float *x, int64_t n)
{
    reg sum[VEC_SUMS] = {0};
    float lane[VEC_LANES];
    int64_t j = 0;

    for (; j + VEC_LANES <= n; j += VEC_LANES)
#pragma GCC unroll 8
        for (int i = 0; i < VEC_SUMS; i++)
            sum[i] += reg_floats(x + j + i * REG_LANES);
    memcpy(lane, sum, sizeof lane);
    for (int l = 0; j < n; j++, l++)
        lane[l] += x[j];
    return vec_lane_sum(lane);
}

/* Sum of (x - mean)^2; mean 0 gives the sum of squares. */
static inline float vec_sum_squares(const float *x, float mean, int64_t n)
{
    reg sum[VEC_SUMS] = {0};
    float lane[VEC_LANES];
    int64_t j = 0;

    for (; j + VEC_LANES <= n; j += VEC_LANES)
#pragma GCC unroll 8
        for (int i = 0; i < VEC_SUMS; i++) {
            const reg apart = reg_floats(x + j + i * REG_LANES) - reg_fill(mean);
            sum[i] += apart * apart;
        }
    memcpy(lane, sum, sizeof lane);
    for (int l = 0; j < n; j++, l++)
        lane[l] += (x[j] - mean) * (x[j] - mean);
    return vec_lane_sum(lane);
}

/* A NaN is passed over. */
static inline float vec_max(const float *x, int64_t n)
{
    reg top[VEC_SUMS];
    float lane[VEC_LANES];
    int64_t j = 0;

    for (int i = 0; i < VEC_SUMS; i++)
        top[i] = reg_fill(-INFINITY);
    for (; j + VEC_LANES <= n; j += VEC_LANES)
#pragma GCC unroll 8
        for (int i = 0; i < VEC_SUMS; i++)
            top[i] = reg_max(reg_floats(x + j + i * REG_LANES), top[i]);
    memcpy(lane, top, sizeof lane);
    for (int l = 0; j < n; j++, l++)
        lane[l] = x[j] > lane[l] ? x[j] : lane[l];
    for (int l = 1; l < VEC_LANES; l++)
        lane[0] = lane[l] > lane[0] ? lane[l] : lane[0];
    return lane[0];
}

/* Elements that one task works on: enough to hide the cost of handing it out. */
enum { VEC_TASK = 32768 };

static inline int64_t vec_tasks(int64_t n, int64_t per_task)
{
    return (n + per_task - 1) / per_task;
}

/* Rows of length d that make a task. */
static inline int64_t vec_task_rows(int64_t d)
{
    return d >= VEC_TASK || d <= 0 ? 1 : VEC_TASK / d;
}
