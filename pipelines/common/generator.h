/* torch's CPU generator: mt19937 and the normal sampling of torch.randn, so that seed 7 is the same
 * picture, bit for bit as torch draws it with AVX2 (without, it differs in the last bit).
 * Source: aten/src/ATen/core/MT19937RNGEngine.h and native/cpu/DistributionTemplates.h.
 */
#ifndef MP_PIPELINES_COMMON_GENERATOR_H
#define MP_PIPELINES_COMMON_GENERATOR_H

#include <stdbool.h>
#include <stdint.h>

typedef struct mp_generator {
    uint32_t state[624];
    int next;      /* index of the next word; 624: refill */
    double cached; /* second normal of a pair, for fewer than 16 values */
    bool has_cached;
} mp_generator;

void mp_generator_seed(mp_generator *g, uint64_t seed); /* torch.Generator().manual_seed(seed) */
void mp_generator_normal(mp_generator *g, float *out, int64_t n); /* torch.randn, fp32 */

#endif
