/* Conversions and transcendental functions on short runs of floats, per instruction set.  Included
 * by kernels/cpu/isa.c only.
 *
 * Every variant gives the same bits as kernels/core/convert.h (NaN payloads excepted): what the
 * intrinsics do not cover, the tail above all, is done by the scalar functions. */

#include <math.h>
#include <string.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "kernels/core/convert.h"

/* Elements that a kernel widens at a time: three operands and a result stay in the first cache. */
enum { VEC_CHUNK = 512 };

#if defined(__AVX2__)

/* Sixteen values: e5m2 is the upper byte of fp16. */
static inline __m256i e5m2_as_f16(const uint8_t *src)
{
    return _mm256_slli_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)src)), 8);
}

/* e4m3 under fp16's wider exponent is the value / 256, denormals included; its one NaN becomes
 * fp16's. */
static inline __m256i e4m3_as_f16(const uint8_t *src)
{
    const __m256i q = _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)src));
    const __m256i sign = _mm256_slli_epi16(_mm256_and_si256(q, _mm256_set1_epi16(0x80)), 8);
    const __m256i magnitude = _mm256_and_si256(q, _mm256_set1_epi16(0x7f));
    const __m256i nan = _mm256_cmpeq_epi16(magnitude, _mm256_set1_epi16(0x7f));
    const __m256i h = _mm256_or_si256(sign, _mm256_slli_epi16(magnitude, 7));
    return _mm256_blendv_epi8(h, _mm256_set1_epi16(0x7e00), nan);
}

#endif

#if defined(__AVX512F__) && defined(__AVX512BW__)

static inline int64_t widen_f16_simd(const uint16_t *src, float *dst, int64_t n)
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(dst + i, _mm512_cvtph_ps(_mm256_loadu_si256((const void *)(src + i))));
    return i;
}

static inline int64_t widen_bf16_simd(const uint16_t *src, float *dst, int64_t n)
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        const __m512i u = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(src + i)));
        _mm512_storeu_si512(dst + i, _mm512_slli_epi32(u, 16));
    }
    return i;
}

static inline int64_t widen_e4m3_simd(const uint8_t *src, float *dst, int64_t n)
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(
            dst + i, _mm512_mul_ps(_mm512_cvtph_ps(e4m3_as_f16(src + i)), _mm512_set1_ps(256.0f)));
    return i;
}

static inline int64_t widen_e5m2_simd(const uint8_t *src, float *dst, int64_t n)
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(dst + i, _mm512_cvtph_ps(e5m2_as_f16(src + i)));
    return i;
}

static inline int64_t narrow_f16_simd(const float *src, uint16_t *dst, int64_t n)
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm256_storeu_si256((void *)(dst + i),
                            _mm512_cvtps_ph(_mm512_loadu_ps(src + i), _MM_FROUND_TO_NEAREST_INT));
    return i;
}

static inline __m512i bf16_bits(__m512i u)
{
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    const __m512i r = _mm512_srli_epi32(
        _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
    const __mmask16 nan = _mm512_cmpgt_epi32_mask(
        _mm512_and_si512(u, _mm512_set1_epi32(0x7fffffff)), _mm512_set1_epi32(0x7f800000));
    return _mm512_mask_mov_epi32(r, nan, _mm512_set1_epi32(0x7fc0));
}

static inline int64_t narrow_bf16_simd(const float *src, uint16_t *dst, int64_t n)
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm256_storeu_si256((void *)(dst + i),
                            _mm512_cvtepi32_epi16(bf16_bits(_mm512_loadu_si512(src + i))));
    return i;
}

#elif defined(__AVX2__)

static inline int64_t widen_f16_simd(const uint16_t *src, float *dst, int64_t n)
{
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(_mm_loadu_si128((const void *)(src + i))));
    return i;
}

static inline int64_t widen_bf16_simd(const uint16_t *src, float *dst, int64_t n)
{
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256i u = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)(src + i)));
        _mm256_storeu_si256((void *)(dst + i), _mm256_slli_epi32(u, 16));
    }
    return i;
}

/* Two halves of sixteen fp16 values, times `scale`. */
static inline void widen_two_f16(__m256i h, float scale, float *dst)
{
    const __m256 by = _mm256_set1_ps(scale);

    _mm256_storeu_ps(dst, _mm256_mul_ps(_mm256_cvtph_ps(_mm256_castsi256_si128(h)), by));
    _mm256_storeu_ps(dst + 8, _mm256_mul_ps(_mm256_cvtph_ps(_mm256_extracti128_si256(h, 1)), by));
}

static inline int64_t widen_e4m3_simd(const uint8_t *src, float *dst, int64_t n)
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        widen_two_f16(e4m3_as_f16(src + i), 256.0f, dst + i);
    return i;
}

static inline int64_t widen_e5m2_simd(const uint8_t *src, float *dst, int64_t n)
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        widen_two_f16(e5m2_as_f16(src + i), 1.0f, dst + i);
    return i;
}

static inline int64_t narrow_f16_simd(const float *src, uint16_t *dst, int64_t n)
{
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((void *)(dst + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(src + i), _MM_FROUND_TO_NEAREST_INT));
    return i;
}

static inline int64_t narrow_bf16_simd(const float *src, uint16_t *dst, int64_t n)
{
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256i u = _mm256_loadu_si256((const void *)(src + i));
        const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
        __m256i r = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
        const __m256i nan = _mm256_cmpgt_epi32(_mm256_and_si256(u, _mm256_set1_epi32(0x7fffffff)),
                                               _mm256_set1_epi32(0x7f800000));
        r = _mm256_blendv_epi8(_mm256_srli_epi32(r, 16), _mm256_set1_epi32(0x7fc0), nan);
        const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(r, r), 0xd8);
        _mm_storeu_si128((void *)(dst + i), _mm256_castsi256_si128(packed));
    }
    return i;
}

#else

static inline int64_t widen_f16_simd(const uint16_t *src, float *dst, int64_t n)
{
    (void)src, (void)dst, (void)n;
    return 0;
}

static inline int64_t widen_bf16_simd(const uint16_t *src, float *dst, int64_t n)
{
    (void)src, (void)dst, (void)n;
    return 0;
}

static inline int64_t widen_e4m3_simd(const uint8_t *src, float *dst, int64_t n)
{
    (void)src, (void)dst, (void)n;
    return 0;
}

static inline int64_t widen_e5m2_simd(const uint8_t *src, float *dst, int64_t n)
{
    (void)src, (void)dst, (void)n;
    return 0;
}

static inline int64_t narrow_f16_simd(const float *src, uint16_t *dst, int64_t n)
{
    (void)src, (void)dst, (void)n;
    return 0;
}

static inline int64_t narrow_bf16_simd(const float *src, uint16_t *dst, int64_t n)
{
    (void)src, (void)dst, (void)n;
    return 0;
}

#endif

static inline void vec_widen(mp_dtype from, const void *src, float *dst, int64_t n)
{
    int64_t done = 0;

    if (from == MP_F16)
        done = widen_f16_simd(src, dst, n);
    else if (from == MP_BF16)
        done = widen_bf16_simd(src, dst, n);
    else if (from == MP_F8_E4M3)
        done = widen_e4m3_simd(src, dst, n);
    else if (from == MP_F8_E5M2)
        done = widen_e5m2_simd(src, dst, n);
    if (done < n)
        mp_widen(from, (const char *)src + (size_t)done * mp_dtype_size(from), dst + done,
                 n - done);
}

static inline void vec_narrow(mp_dtype to, mp_e4m3_overflow mode, const float *src, void *dst,
                              int64_t n)
{
    int64_t done = 0;

    if (to == MP_F16)
        done = narrow_f16_simd(src, dst, n);
    else if (to == MP_BF16)
        done = narrow_bf16_simd(src, dst, n);
    if (done < n)
        mp_narrow(to, mode, src + done, (char *)dst + (size_t)done * mp_dtype_size(to), n - done);
}

static inline float vec_from_bits(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static inline uint32_t vec_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

/* when ? a : b without a branch, which would keep a loop from being vectorized. */
static inline float vec_select(bool when, float a, float b)
{
    const uint32_t mask = -(uint32_t)when;

    return vec_from_bits((vec_bits(a) & mask) | (vec_bits(b) & ~mask));
}

/* bf16 that stays a float. */
static inline float vec_round_bf16(float x)
{
    const uint32_t u = vec_bits(x), r = (u + 0x7fff + (u >> 16 & 1)) & 0xffff0000;

    return vec_select(x == x, vec_from_bits(r), NAN);
}

/* To the dtype and back, in place: a rounding point inside a fused kernel. */
static inline void vec_round(mp_dtype to, mp_e4m3_overflow mode, float *x, int64_t n)
{
    uint16_t half[VEC_CHUNK];

    if (to == MP_F32)
        return;
    if (to == MP_BF16) {
        for (int64_t i = 0; i < n; i++)
            x[i] = vec_round_bf16(x[i]);
        return;
    }
    for (int64_t i = 0; i < n; i += VEC_CHUNK) {
        const int64_t m = n - i < VEC_CHUNK ? n - i : VEC_CHUNK;
        vec_narrow(to, mode, x + i, half, m);
        vec_widen(to, half, x + i, m);
    }
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

/* exp: x = n ln 2 + r with |r| <= ln 2 / 2, a polynomial of degree 6 on r (Cephes' expf), which
 * this gives, and 2^n.  Within 2 ulp of the true value.  These and what follows are always inlined:
 * a loop that calls a function is not vectorised. */
static inline __attribute__((always_inline)) float vec_exp_parts(float x, int32_t *n)
{
    const float to_int = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    const float shifted = x * 1.44269504088896341f + to_int;
    const float k = shifted - to_int;
    const float r = (x - k * 0.693359375f) - k * -2.12194440e-4f; /* the first product is exact */
    float p = 1.9875691500e-4f;

    *n = (int32_t)(vec_bits(shifted) - vec_bits(to_int));
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return p * r * r + r + 1.0f;
}

/* Two factors of 2^(n/2), so that denormal results round once. */
static inline __attribute__((always_inline)) float vec_exp(float x)
{
    int32_t n;

    x = vec_select(x > 89.0f, 89.0f, x);
    x = vec_select(x < -104.0f, -104.0f, x);
    const float p = vec_exp_parts(x, &n);
    const int32_t half = n >> 1;
    const float low = vec_from_bits((uint32_t)(half + 127) << 23);
    const float high = vec_from_bits((uint32_t)(n - half + 127) << 23);
    return p * low * high;
}

/* exp of |x| < 87, where neither factor nor result is denormal. */
static inline __attribute__((always_inline)) float vec_exp_near(float x)
{
    int32_t n;
    const float p = vec_exp_parts(x, &n);

    return p * vec_from_bits((uint32_t)(n + 127) << 23);
}

/* tanh: Cephes' tanhf polynomial near 0, 1 - 2 / (exp(2|x|) + 1) elsewhere.  Within 2 ulp. */
static inline __attribute__((always_inline)) float vec_tanh(float x)
{
    const float a = fabsf(x), z = x * x;
    float p = -5.70498872745e-3f;

    p = p * z + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    const float near = p * z * x + x;
    const float far = 1.0f - 2.0f / (vec_exp_near(vec_select(a > 40.0f, 80.0f, 2.0f * a)) + 1.0f);
    return vec_select(a < 0.625f, near, copysignf(far, x));
}

/* erf: x + x times a polynomial of x^2 near 0, 1 - exp of a polynomial elsewhere (N. Juffa's
 * coefficients).  Within 2 ulp. */
static inline __attribute__((always_inline)) float vec_erf(float x)
{
    const float z = x * x, size = fabsf(x), a = vec_select(size > 4.0f, 4.0f, size), s = a * a;
    float p = -5.96761703e-4f;

    p = p * z + 4.99119423e-3f;
    p = p * z - 2.67681349e-2f;
    p = p * z + 1.12819925e-1f;
    p = p * z - 3.76125336e-1f;
    p = p * z + 1.28379166e-1f;
    float q = (-1.72853470e-5f * a + 3.83197126e-4f) * s + (-3.88396438e-3f * a + 2.42546219e-2f);
    q = q * a - 1.06777877e-1f;
    q = q * a - 6.34846687e-1f;
    q = q * a - 1.28717512e-1f;
    q = q * a - a;
    const float far = 1.0f - vec_exp_near(q);
    return vec_select(size > 0.927734375f, copysignf(far, x), p * x + x);
}

static inline __attribute__((always_inline)) float vec_sigmoid(float x)
{
    return 1.0f / (1.0f + vec_exp(-x));
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

static inline float vec_sum(const float *x, int64_t n)
{
    float lane[VEC_LANES] = {0};
    int64_t j = 0;

    for (; j + VEC_LANES <= n; j += VEC_LANES)
        for (int l = 0; l < VEC_LANES; l++)
            lane[l] += x[j + l];
    for (int l = 0; j < n; j++, l++)
        lane[l] += x[j];
    return vec_lane_sum(lane);
}

/* Sum of (x - mean)^2; mean 0 gives the sum of squares. */
static inline float vec_sum_squares(const float *x, float mean, int64_t n)
{
    float lane[VEC_LANES] = {0};
    int64_t j = 0;

    for (; j + VEC_LANES <= n; j += VEC_LANES)
        for (int l = 0; l < VEC_LANES; l++)
            lane[l] += (x[j + l] - mean) * (x[j + l] - mean);
    for (int l = 0; j < n; j++, l++)
        lane[l] += (x[j] - mean) * (x[j] - mean);
    return vec_lane_sum(lane);
}

static inline float vec_max(const float *x, int64_t n)
{
    float lane[VEC_LANES];
    int64_t j = 0;

    for (int l = 0; l < VEC_LANES; l++)
        lane[l] = -INFINITY;
    for (; j + VEC_LANES <= n; j += VEC_LANES)
        for (int l = 0; l < VEC_LANES; l++)
            lane[l] = x[j + l] > lane[l] ? x[j + l] : lane[l];
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
