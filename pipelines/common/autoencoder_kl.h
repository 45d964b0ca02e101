/* AutoencoderKL, the variational autoencoder of Stable Diffusion
 * (diffusers/models/autoencoders/autoencoder_kl.py, vae.py; arXiv 2112.10752): encoder, decoder,
 * tiled and sliced forms of both. */
#ifndef MP_PIPELINES_COMMON_AUTOENCODER_KL_H
#define MP_PIPELINES_COMMON_AUTOENCODER_KL_H

#include "kernels/core/ctx.h"
#include "pipelines/common/pipeline.h"
#include "pipelines/common/weights.h"

typedef struct mp_autoencoder_kl mp_autoencoder_kl;

mp_code mp_autoencoder_kl_open(const char *dir, const mp_weights_options *o,
                               mp_autoencoder_kl **out, mp_error *err);
void mp_autoencoder_kl_close(mp_autoencoder_kl *m); /* NULL is fine */
mp_weights *mp_autoencoder_kl_weights(const mp_autoencoder_kl *m);

/* What pipelines ask of the configuration. */
typedef struct mp_autoencoder_kl_facts {
    int64_t in_channels, out_channels, latent_channels;
    int64_t compression;   /* spatial: 2 ** (len(block_out_channels) - 1), 8 */
    double scaling_factor; /* latents of the diffusion model are (z - shift) * scaling */
    double shift_factor;   /* 0 when the configuration has none */
    bool has_shift_factor; /* SD3's pipeline adds it; the older ones know none */
    bool force_upcast;     /* some pipelines then run an fp16 autoencoder in fp32; SD3's does not */
} mp_autoencoder_kl_facts;
mp_autoencoder_kl_facts mp_autoencoder_kl_get_facts(const mp_autoencoder_kl *m);
/* The same of dir/config.json, without opening the weights. */
mp_code mp_autoencoder_kl_facts_of(const char *dir, mp_autoencoder_kl_facts *out, mp_error *err);

/* Whether Diffusers can work in these tiles.  AutoencoderKL has one tile size for both directions
 * and an overlap as a factor, (tile - stride) / tile, from which it computes all extents with
 * int():
 *
 *     vae.enable_tiling(); vae.tile_sample_min_size = tile
 *     vae.tile_latent_min_size = tile // compression
 *     vae.tile_overlap_factor = (tile - stride) / tile
 *
 * Refused are tiles that are not square, sizes that are no multiples of the compression, and the
 * few strides that the factor does not give back, with which Diffusers' pieces do not fit. */
mp_code mp_autoencoder_kl_tiling_check(const mp_tiling *t, int64_t compression, mp_error *err);

/* tiling: NULL, or as above; as in Diffusers it matters for pictures larger than a tile only, and
 * memory is given back between tiles.  slicing: one sample of the batch at a time. */
typedef struct mp_autoencoder_kl_run {
    const mp_tiling *tiling;
    bool slicing;
} mp_autoencoder_kl_run;

/* z [B, h, w, latent] -> [B, h*f, w*f, out] */
mp_tensor mp_autoencoder_kl_decode(mp_ctx *c, const mp_autoencoder_kl *m, mp_tensor z,
                                   mp_autoencoder_kl_run r);
/* x [B, H, W, in] -> moments [B, H/f, W/f, 2*latent], halves rounded down */
mp_tensor mp_autoencoder_kl_encode(mp_ctx *c, const mp_autoencoder_kl *m, mp_tensor x,
                                   mp_autoencoder_kl_run r);

/* DiagonalGaussianDistribution of moments [B, h, w, 2*latent] -> [B, h, w, latent].  The mean is
 * its mode; logvar is clamped to -30..20; std = exp(0.5 * logvar), each rounds;
 * sample = mean + std * noise, each rounds. */
mp_tensor mp_gaussian_mean(mp_ctx *c, mp_tensor moments);
mp_tensor mp_gaussian_logvar(mp_ctx *c, mp_tensor moments);
mp_tensor mp_gaussian_std(mp_ctx *c, mp_tensor moments);
mp_tensor mp_gaussian_sample(mp_ctx *c, mp_tensor moments, mp_tensor noise);

#endif
