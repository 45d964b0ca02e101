/* The values of a synthetic parameter: seeded, and of a scale that keeps a model sane.
 *
 * A parameter's distribution is normal, with a mean and a deviation that its name and shape give
 * (mp_synth_distribution).  Value i is one of the 65536 equally likely quantiles of it, chosen by
 * 16 random bits: the (i mod 4)-th sixteen of block i / 4, where block b of the parameter is
 *
 *     mix(key + (b + 1) * 0x9e3779b97f4a7c15)        splitmix64 (Steele, Lea, Flood 2014)
 *
 * and key comes from the name and the seed.  So a value depends on name, shape, seed and dtype
 * alone, in whatever order and by however many threads a file is written; and a value costs one
 * look-up in a table that has the quantiles in the parameter's dtype already. */
#ifndef MP_HARNESS_SYNTH_VALUES_H
#define MP_HARNESS_SYNTH_VALUES_H

#include "kernels/core/tensor.h"

enum { MP_SYNTH_QUANTILES = 1 << 16 };

/* Of the standard normal distribution: quantile[k] is that of (k + 0.5) / 65536. */
void mp_synth_quantiles(float quantile[MP_SYNTH_QUANTILES]);

typedef struct mp_synth_distribution {
    double mean, deviation;
} mp_synth_distribution;
/* name: "transformer.proj_out.weight" */
mp_synth_distribution mp_synth_distribution_of(const char *name, mp_tensor p);

/* 256 KiB: one for each thread. */
typedef struct mp_synth_values {
    uint64_t key;
    size_t size; /* bytes of a value */
    union {
        uint8_t of_1[MP_SYNTH_QUANTILES];
        uint16_t of_2[MP_SYNTH_QUANTILES];
        float of_4[MP_SYNTH_QUANTILES];
    } table;
} mp_synth_values;

/* The values of p, in the dtype p.store. */
void mp_synth_values_open(mp_synth_values *v, const float quantile[MP_SYNTH_QUANTILES],
                          const char *name, mp_tensor p, uint64_t seed);
/* Values first .. first + n; first is a multiple of 4. */
void mp_synth_values_fill(const mp_synth_values *v, int64_t first, int64_t n, void *out);

#endif
