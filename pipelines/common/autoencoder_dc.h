/* AutoencoderDC, the deep-compression autoencoder (diffusers/models/autoencoders/autoencoder_dc.py;
 * arXiv 2410.10733): encoder, decoder, tiled forms of both. */
#ifndef MP_PIPELINES_COMMON_AUTOENCODER_DC_H
#define MP_PIPELINES_COMMON_AUTOENCODER_DC_H

#include "kernels/core/ctx.h"
#include "pipelines/common/pipeline.h"
#include "pipelines/common/weights.h"

typedef struct mp_autoencoder_dc mp_autoencoder_dc;

/* quadratic_no_upcast: attention as before the fix of diffusers #10590. */
mp_code mp_autoencoder_dc_open(const char *dir, const mp_weights_options *o,
                               bool quadratic_no_upcast, mp_autoencoder_dc **out, mp_error *err);
void mp_autoencoder_dc_close(mp_autoencoder_dc *m);
mp_weights *mp_autoencoder_dc_weights(const mp_autoencoder_dc *m);
double mp_autoencoder_dc_scaling_factor(const mp_autoencoder_dc *m);
int64_t mp_autoencoder_dc_compression(const mp_autoencoder_dc *m); /* spatial, 32 for Sana */
/* 2 ** (len(encoder_block_out_channels) - 1) of dir/config.json, without opening the weights. */
mp_code mp_autoencoder_dc_compression_of(const char *dir, int64_t *out, mp_error *err);

/* z [B, h, w, latent] -> [B, h*f, w*f, 3], and back.  With tiling on and the picture larger than a
 * tile, as tiled_decode and tiled_encode; memory is given back between tiles. */
mp_tensor mp_autoencoder_dc_decode(mp_ctx *c, const mp_autoencoder_dc *m, mp_tensor z,
                                   const mp_tiling *tiling);
mp_tensor mp_autoencoder_dc_encode(mp_ctx *c, const mp_autoencoder_dc *m, mp_tensor x,
                                   const mp_tiling *tiling);

#endif
