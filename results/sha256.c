/* SHA-256 as FIPS 180-4 writes it; the names a..h, W and K are the standard's. */
#include "results/metrics.h"

#include <stdatomic.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static inline uint32_t rotr(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

static inline uint32_t load_be(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Section 6.2.2, step 1: the message schedule. */
static void schedule(uint32_t W[64], const uint8_t *block)
{
    for (int t = 0; t < 16; t++)
        W[t] = load_be(block + 4 * t);
    for (int t = 16; t < 64; t++) {
        const uint32_t s0 = rotr(W[t - 15], 7) ^ rotr(W[t - 15], 18) ^ W[t - 15] >> 3;
        const uint32_t s1 = rotr(W[t - 2], 17) ^ rotr(W[t - 2], 19) ^ W[t - 2] >> 10;
        W[t] = s1 + W[t - 7] + s0 + W[t - 16];
    }
}

/* Steps 2 to 4. */
static void compress_plain(uint32_t H[8], const uint8_t *block)
{
    uint32_t W[64];
    schedule(W, block);
    uint32_t a = H[0], b = H[1], c = H[2], d = H[3], e = H[4], f = H[5], g = H[6], h = H[7];
    for (int t = 0; t < 64; t++) {
        const uint32_t S1 = rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25);
        const uint32_t T1 = h + S1 + ((e & f) ^ (~e & g)) + K[t] + W[t];
        const uint32_t S0 = rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22);
        const uint32_t T2 = S0 + ((a & b) ^ (a & c) ^ (b & c));
        h = g, g = f, f = e, e = d + T1;
        d = c, c = b, b = a, a = T1 + T2;
    }
    H[0] += a, H[1] += b, H[2] += c, H[3] += d;
    H[4] += e, H[5] += f, H[6] += g, H[7] += h;
}

#if defined(__x86_64__)

/* The same with the CPU's own instructions, five times as fast.  They hold the state as a, b, e, f
 * and c, d, g, h, from the highest lane down, and do two rounds at a time with the two lowest lanes
 * of W + K. */
__attribute__((target("sha,sse4.1"))) static void compress_sha_ni(uint32_t H[8],
                                                                  const uint8_t *block)
{
    const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    const __m128i dcba = _mm_loadu_si128((const __m128i *)H);
    const __m128i hgfe = _mm_loadu_si128((const __m128i *)(H + 4));
    const __m128i cdab = _mm_shuffle_epi32(dcba, 0xb1), efgh = _mm_shuffle_epi32(hgfe, 0x1b);
    const __m128i abef = _mm_alignr_epi8(cdab, efgh, 8), cdgh = _mm_blend_epi16(efgh, cdab, 0xf0);
    __m128i x = abef, y = cdgh, W[4]; /* W[t/4 % 4]: words t .. t+3 */

    for (int t = 0; t < 64; t += 4) {
        __m128i *const w = &W[t / 4 % 4];
        if (t < 16) {
            *w = _mm_loadu_si128((const __m128i *)(block + 4 * t));
            *w = _mm_shuffle_epi8(*w, big_endian);
        } else { /* of the words 16, 12, 8 and 4 before */
            const __m128i before = W[(t / 4 + 3) % 4];
            const __m128i seven = _mm_alignr_epi8(before, W[(t / 4 + 2) % 4], 4);
            *w = _mm_add_epi32(_mm_sha256msg1_epu32(*w, W[(t / 4 + 1) % 4]), seven);
            *w = _mm_sha256msg2_epu32(*w, before);
        }
        const __m128i wk = _mm_add_epi32(*w, _mm_loadu_si128((const __m128i *)(K + t)));
        y = _mm_sha256rnds2_epu32(y, x, wk);
        x = _mm_sha256rnds2_epu32(x, y, _mm_shuffle_epi32(wk, 0x0e));
    }
    x = _mm_add_epi32(x, abef);
    y = _mm_add_epi32(y, cdgh);
    const __m128i feba = _mm_shuffle_epi32(x, 0x1b), dchg = _mm_shuffle_epi32(y, 0xb1);
    _mm_storeu_si128((__m128i *)H, _mm_blend_epi16(feba, dchg, 0xf0));
    _mm_storeu_si128((__m128i *)(H + 4), _mm_alignr_epi8(dchg, feba, 8));
}

static bool ask_for_sha_ni(void)
{
    unsigned a, b, c, d;

    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSE4_1) || !(c & bit_SSSE3))
        return false;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_SHA);
}

/* Asked once: a virtual machine is left for each such question, which takes longer than the hash of
 * some KiB. */
static bool has_sha_ni(void)
{
    enum { UNKNOWN, NO, YES };
    static _Atomic int known;
    int answer = atomic_load_explicit(&known, memory_order_relaxed);

    if (answer == UNKNOWN) {
        answer = ask_for_sha_ni() ? YES : NO;
        atomic_store_explicit(&known, answer, memory_order_relaxed);
    }
    return answer == YES;
}

#else

static bool has_sha_ni(void)
{
    return false;
}

static void compress_sha_ni(uint32_t H[8], const uint8_t *block)
{
    compress_plain(H, block);
}

#endif

static void compress(mp_sha256 *s, const uint8_t *block)
{
    (s->plain ? compress_plain : compress_sha_ni)(s->h, block);
}

void mp_sha256_init(mp_sha256 *s)
{
    static const uint32_t H0[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                   0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memset(s, 0, sizeof *s);
    memcpy(s->h, H0, sizeof H0);
    s->plain = !has_sha_ni();
}

void mp_sha256_update(mp_sha256 *s, const void *data, size_t n)
{
    if (n == 0)
        return; /* data may be NULL, which memcpy must not see */
    const uint8_t *p = data;
    const size_t held = s->bytes % 64;
    s->bytes += n;
    if (held > 0) {
        const size_t take = n < 64 - held ? n : 64 - held;
        memcpy(s->block + held, p, take);
        p += take, n -= take;
        if (held + take < 64)
            return;
        compress(s, s->block);
    }
    for (; n >= 64; p += 64, n -= 64)
        compress(s, p);
    memcpy(s->block, p, n);
}

void mp_sha256_final(mp_sha256 *s, char out[65])
{
    static const char digits[] = "0123456789abcdef";
    const uint64_t bits = s->bytes * 8;
    const size_t held = s->bytes % 64;
    uint8_t tail[128] = {0x80}; /* a one, zeros up to 56 modulo 64, the length in bits */
    const size_t zeros_end = (held < 56 ? 56 : 120) - held;
    for (int i = 0; i < 8; i++)
        tail[zeros_end + (size_t)i] = (uint8_t)(bits >> (56 - 8 * i));
    mp_sha256_update(s, tail, zeros_end + 8);

    for (int i = 0; i < 64; i++)
        out[i] = digits[s->h[i / 8] >> (28 - 4 * (i % 8)) & 15];
    out[64] = '\0';
}

void mp_sha256_hex(const void *data, size_t n, char out[65])
{
    mp_sha256 s;
    mp_sha256_init(&s);
    mp_sha256_update(&s, data, n);
    mp_sha256_final(&s, out);
}
