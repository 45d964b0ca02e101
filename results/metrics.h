/* Distances between two runs of the same thing, all computed in fp64 from fp32 arrays.
 * NaN means that there is no answer: nothing to measure, a picture that is not finite, or (mp_ssim,
 * the only one that needs memory) no memory. */
#ifndef MP_RESULTS_METRICS_H
#define MP_RESULTS_METRICS_H

#include <stdint.h>

#include "kernels/core/dtype.h"

typedef struct mp_drift {
    double rel_l2;        /* |x - ref| / |ref|; 0 when both are zero, infinite when only ref is */
    double max_abs;       /* largest |x - ref| */
    double cosine;        /* 1 when both are zero, 0 when one is */
    double max_value;     /* largest finite |x| */
    double headroom_bits; /* log2(max of dtype / max_value); infinite for all zeros, NaN when no x
                             is finite */
    int64_t nonfinite;    /* NaN or infinite in x where ref is finite, or the other way round */
    int64_t saturated;    /* |x| equal to the dtype's maximum */
    int64_t count;
} mp_drift;

/* Pairs with a non-finite value are left out of the sums; with any, rel_l2 and max_abs are infinite
 * and cosine is NaN: a broken result is never close, not even to a reference that is broken in the
 * same place (which `nonfinite` does not count). */
mp_drift mp_drift_between(const float *x, const float *ref, int64_t n, mp_dtype dtype);

/* Pictures in 0..1.  PSNR in dB against a peak of 1 (infinite for equal pictures). */
double mp_psnr(const float *x, const float *ref, int64_t n);
/* Mean SSIM (Wang et al. 2004: 11x11 Gaussian, sigma 1.5, K1 .01, K2 .03, population statistics,
 * mean over channels, valid windows), [channels, h, w].  Smaller than the window: one global
 * window. */
double mp_ssim(const float *x, const float *ref, int64_t channels, int64_t h, int64_t w);

/* How visible tile borders are: energy of the jump across the lines where tiles meet, over the
 * energy of the same lines shifted by half a stride, measured on the difference to the untiled
 * picture.  1 is no seam; infinite where only borders jump.  Borders lie at the multiples of the
 * stride (in pixels; below 2: no tiles in that direction), their twins half a stride before them.
 * [channels, h, w]; NaN when no border lies inside. */
double mp_seam(const float *x, const float *untiled, int64_t channels, int64_t h, int64_t w,
               int64_t stride_h, int64_t stride_w);

/* SHA-256 (FIPS 180-4) as 64 hex digits and a NUL: the identity of outputs, files and references.
 */
void mp_sha256_hex(const void *data, size_t n, char out[65]);

typedef struct mp_sha256 {
    uint32_t h[8];
    uint64_t bytes;
    uint8_t block[64];
    bool plain; /* set by init: without the CPU's own instructions, which give the same */
} mp_sha256;
void mp_sha256_init(mp_sha256 *s);
void mp_sha256_update(mp_sha256 *s, const void *data, size_t n);
void mp_sha256_final(mp_sha256 *s, char out[65]);

#endif
