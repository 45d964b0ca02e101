/* The pictures that Sana was trained on, by aspect ratio (ASPECT_RATIO_512_BIN ..
 * ASPECT_RATIO_4096_BIN of Diffusers' PixArt and Sana pipelines), and the way back to the size that
 * was asked for (PixArtImageProcessor). */
#ifndef MP_PIPELINES_SANA_RESOLUTION_BINS_H
#define MP_PIPELINES_SANA_RESOLUTION_BINS_H

#include "kernels/core/ctx.h"

/* classify_height_width_bin: the bin whose ratio is nearest to height / width.  sample_size is the
 * transformer's: 16, 32, 64 or 128; false for any other. */
bool mp_sana_bin(int64_t sample_size, int64_t *height, int64_t *width);

/* resize_and_crop_tensor: bilinear to cover height x width, then the middle of it.
 * x [B, H, W, C] -> [B, height, width, C] */
mp_tensor mp_sana_resize_and_crop(mp_ctx *c, mp_tensor x, int64_t height, int64_t width);

#endif
