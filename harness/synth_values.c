#include "harness/synth_values.h"

#include <assert.h>
#include <fnmatch.h>
#include <math.h>
#include <string.h>

#include "kernels/core/convert.h"

enum { PER_BLOCK = 4 }; /* values of 16 bits in one of 64 */

/* ---- the normal distribution ---- */

/* Newton on the upper tail, each quantile from the one before: the tail is convex, so that the
 * steps approach from below.  A step of 1e-9 leaves an error of its square. */
void mp_synth_quantiles(float quantile[MP_SYNTH_QUANTILES])
{
    enum { HALF = MP_SYNTH_QUANTILES / 2 };
    const double sqrt_2 = 1.41421356237309505, sqrt_2_pi = 2.50662827463100050;
    double x = 0, step;

    for (int k = HALF; k < MP_SYNTH_QUANTILES; k++) {
        const double tail = 1 - (k + 0.5) / MP_SYNTH_QUANTILES;
        do {
            step = (0.5 * erfc(x / sqrt_2) - tail) * sqrt_2_pi * exp(0.5 * x * x);
            x += step;
        } while (fabs(step) > 1e-9);
        quantile[k] = (float)x;
        quantile[MP_SYNTH_QUANTILES - 1 - k] = (float)-x;
    }
}

/* ---- scale ---- */

/* What a weight is multiplied with beyond 1 / sqrt(fan_in), which keeps the variance of its input.
 * First match wins.  Branches that end on a residual stream are damped, so that the stream of a
 * model of 12 to 40 blocks stays near its own size: 1 / sqrt(2 * depth). */
static const struct {
    const char *pattern;
    double gain;
} gains[] = {
    {"*.to_out.0.weight", 0.2}, /* attention of Sana, Stable Diffusion 3, the autoencoders */
    {"*.to_add_out.weight", 0.2},
    {"*.ff.net.2.weight", 0.2}, /* feed-forward of Stable Diffusion 3 */
    {"*.ff_context.net.2.weight", 0.2},
    {"*.ff.conv_point.weight", 0.2},      /* of Sana */
    {"*.resnets.*.conv2.weight", 0.2},    /* AutoencoderKL */
    {"*.self_attn.out_proj.weight", 0.2}, /* CLIP */
    {"*.mlp.fc2.weight", 0.2},
    {"*.SelfAttention.o.weight", 0.2}, /* T5 */
    {"*.DenseReluDense.wo.weight", 0.2},
    {"*.SelfAttention.q.weight", 0.125}, /* T5 does not divide its scores by sqrt(64) */
};

static double gain_of(const char *name)
{
    for (size_t i = 0; i < sizeof gains / sizeof *gains; i++)
        if (!fnmatch(gains[i].pattern, name, 0))
            return gains[i].gain;
    return 1;
}

static bool matches(const char *name, const char *pattern)
{
    return !fnmatch(pattern, name, 0);
}

/* Norms and biases of a trained model are not quite 1 and 0, and round. */
static mp_synth_distribution of_vector(const char *name)
{
    const mp_synth_distribution one = {1, 0.1}, zero = {0, 0.1}, bias = {0, 0.02};

    if (matches(name, "*.bias") || matches(name, "*.running_mean"))
        return bias;
    /* Gemma's norms multiply with 1 + weight. */
    return matches(name, "*_layernorm.weight") || matches(name, "text_encoder.norm.weight") ? zero
                                                                                            : one;
}

mp_synth_distribution mp_synth_distribution_of(const char *name, mp_tensor p)
{
    const mp_synth_distribution positions = {0, 0.7}; /* in place of sines */

    if (p.rank < 2)
        return of_vector(name);
    if (matches(name, "*.pos_embed.pos_embed"))
        return positions;
    const double fan_in = (double)mp_numel(p) / (double)p.dim[0];
    return (mp_synth_distribution){0, gain_of(name) / sqrt(fan_in)};
}

/* ---- values ---- */

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint64_t block_of(uint64_t key, uint64_t block)
{
    return mix(key + (block + 1) * 0x9e3779b97f4a7c15u);
}

/* FNV-1a of the name, stirred with the seed. */
static uint64_t key_of(const char *name, uint64_t seed)
{
    uint64_t hash = 0xcbf29ce484222325u;

    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 0x100000001b3u;
    return mix(hash ^ block_of(seed, 0));
}

void mp_synth_values_open(mp_synth_values *v, const float quantile[MP_SYNTH_QUANTILES],
                          const char *name, mp_tensor p, uint64_t seed)
{
    enum { CHUNK = 1024 };
    const mp_synth_distribution d = mp_synth_distribution_of(name, p);
    float values[CHUNK];

    v->key = key_of(name, seed);
    v->size = mp_dtype_size(p.store);
    for (int k = 0; k < MP_SYNTH_QUANTILES; k += CHUNK) {
        for (int i = 0; i < CHUNK; i++)
            values[i] = (float)(d.mean + d.deviation * (double)quantile[k + i]);
        mp_narrow(p.store, MP_E4M3_SATURATE, values, v->table.of_1 + (size_t)k * v->size, CHUNK);
    }
}

/* The loop of one size of values: four from each block, of the last one as many as are asked for.
 */
#define FILL(type, table)                                                      \
    do {                                                                       \
        type *const to = out;                                                  \
        int64_t i = 0;                                                         \
        for (; i + PER_BLOCK <= n; i += PER_BLOCK, block++) {                  \
            const uint64_t bits = block_of(v->key, block);                     \
            to[i] = (table)[bits & 0xffff];                                    \
            to[i + 1] = (table)[bits >> 16 & 0xffff];                          \
            to[i + 2] = (table)[bits >> 32 & 0xffff];                          \
            to[i + 3] = (table)[bits >> 48];                                   \
        }                                                                      \
        for (uint64_t bits = block_of(v->key, block); i < n; i++, bits >>= 16) \
            to[i] = (table)[bits & 0xffff];                                    \
    } while (0)

void mp_synth_values_fill(const mp_synth_values *v, int64_t first, int64_t n, void *out)
{
    uint64_t block = (uint64_t)first / PER_BLOCK;

    assert(first % PER_BLOCK == 0);
    switch (v->size) {
    case 1:
        FILL(uint8_t, v->table.of_1);
        break;
    case 2:
        FILL(uint16_t, v->table.of_2);
        break;
    default:
        FILL(float, v->table.of_4);
    }
}
