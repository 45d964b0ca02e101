#include "pipelines/common/generator.h"

#include <math.h>
#include <string.h>

enum { WORDS = 624, SHIFT = 397, BLOCK = 16 };

static const double two_pi = 6.283185307179586476925;

/* torch takes 64 bits and keeps the lower 32. */
void mp_generator_seed(mp_generator *g, uint64_t seed)
{
    g->state[0] = (uint32_t)seed;
    for (uint32_t i = 1; i < WORDS; i++)
        g->state[i] = 1812433253u * (g->state[i - 1] ^ g->state[i - 1] >> 30) + i;
    g->next = WORDS;
    g->has_cached = false;
}

static void refill(mp_generator *g)
{
    uint32_t *s = g->state;

    for (int i = 0; i < WORDS; i++) {
        const uint32_t y = (s[i] & 0x80000000u) | (s[(i + 1) % WORDS] & 0x7fffffffu);
        s[i] = s[(i + SHIFT) % WORDS] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
    }
    g->next = 0;
}

static uint32_t random32(mp_generator *g)
{
    if (g->next == WORDS)
        refill(g);
    uint32_t y = g->state[g->next++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

/* 24 bits in [0, 1). */
static float uniform(mp_generator *g)
{
    return (float)(random32(g) & 0xffffff) * 0x1p-24f;
}

/* 53 bits in [0, 1); the first word is the upper one. */
static double uniform_double(mp_generator *g)
{
    const uint64_t high = random32(g);
    const uint64_t bits = high << 32 | random32(g);

    return (double)(bits & ((1ull << 53) - 1)) * 0x1p-53;
}

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

/* torch's AVX2 path takes logarithm, sine and cosine from the single-precision polynomials of
 * Cephes, contracted to fma by its compiler.  The fmaf here stand where that compiler put them, so
 * that the values are torch's bit for bit; a correctly rounded log differs in one value of seven.
 */

/* ln x for normal x > 0. */
static float cephes_log(float x)
{
    static const float p[] = {-1.1514610310e-1f, 1.1676998740e-1f,  -1.2420140846e-1f,
                              1.4249322787e-1f,  -1.6668057665e-1f, 2.0000714765e-1f,
                              -2.4999993993e-1f, 3.3333331174e-1f};
    const uint32_t u = bits_of(x);
    float e = (float)((int)(u >> 23) - 126);

    x = float_of((u & 0x7fffff) | 0x3f000000); /* mantissa in [0.5, 1) */
    if (x < 0.707106781186547524f) {
        e -= 1;
        x = x - 1 + x;
    } else
        x -= 1;
    const float z = x * x;
    float y = 7.0376836292e-2f;
    for (int i = 0; i < 8; i++)
        y = fmaf(y, x, p[i]);
    y = fmaf(y * x, z, e * -2.12194440e-4f);
    y -= z * 0.5f;
    return x + y + e * 0.693359375f;
}

/* For 0 <= x < 2 pi. */
static void cephes_sincos(float x, float *sine, float *cosine)
{
    const int octant = ((int)(x * 1.27323954473516f) + 1) & ~1;
    const float k = (float)octant;

    x += k * -0.78515625f;
    x += k * -2.4187564849853515625e-4f;
    x += k * -3.77489497744594108e-8f;
    const float z = x * x;

    float c = fmaf(2.443315711809948e-5f, z, -1.388731625493765e-3f);
    c = fmaf(c, z, 4.166664568298827e-2f) * z;
    c = fmaf(c, z, -(z * 0.5f)) + 1;
    float s = fmaf(-1.9515295891e-4f, z, 8.3321608736e-3f);
    s = fmaf(s, z, -1.6666654611e-1f) * z;
    s = fmaf(s, x, x);

    *sine = octant & 2 ? c : s;
    *cosine = octant & 2 ? s : c;
    if (octant & 4)
        *sine = -*sine;
    if (!((octant - 2) & 4))
        *cosine = -*cosine;
}

/* Box-Muller on 16 uniforms in place: the pairs are (i, i + 8). */
static void normal_block(float *v)
{
    for (int i = 0; i < BLOCK / 2; i++) {
        const float r = sqrtf(-2 * cephes_log(1 - v[i]));
        float s, c;
        cephes_sincos((float)two_pi * v[i + 8], &s, &c);
        v[i] = r * c;
        v[i + 8] = r * s;
    }
}

static void fill_block(mp_generator *g, float *v)
{
    for (int i = 0; i < BLOCK; i++)
        v[i] = uniform(g);
    normal_block(v);
}

static float normal_scalar(mp_generator *g)
{
    if (g->has_cached) {
        g->has_cached = false;
        return (float)g->cached;
    }
    const double theta = two_pi * uniform_double(g);
    const double r = sqrt(-2 * log1p(-uniform_double(g)));
    g->cached = r * sin(theta);
    g->has_cached = true;
    return (float)(r * cos(theta));
}

/* The uniforms of all blocks are drawn in order, so block by block is the same; a rest overwrites
 * the last 16 values with fresh draws, after the uniforms of the rest itself were drawn. */
void mp_generator_normal(mp_generator *g, float *out, int64_t n)
{
    if (n < BLOCK) {
        for (int64_t i = 0; i < n; i++)
            out[i] = normal_scalar(g);
        return;
    }
    for (int64_t i = 0; i + BLOCK <= n; i += BLOCK)
        fill_block(g, out + i);
    if (n % BLOCK == 0)
        return;
    for (int64_t i = 0; i < n % BLOCK; i++)
        uniform(g);
    fill_block(g, out + n - BLOCK);
}
