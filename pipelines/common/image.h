/* Pictures as files. */
#ifndef MP_PIPELINES_COMMON_IMAGE_H
#define MP_PIPELINES_COMMON_IMAGE_H

#include "kernels/core/status.h"
#include "kernels/core/tensor.h"

/* image [3, H, W] or [1, 3, H, W] fp32 in 0..1 -> 8-bit RGB PNG, (x * 255).round() as Diffusers'
 * numpy_to_pil does; non-finite values become 0.  Through a temporary file and a rename. */
mp_code mp_image_write_png(const char *path, mp_tensor image, mp_error *err);
/* rgb [height, width, 3], sides of 1..65536, as an RGB PNG in memory: *png (mp_free).  Quickly: a
 * file that mp_image_write_png makes is a tenth smaller. */
mp_code mp_image_encode_png(const uint8_t *rgb, int64_t height, int64_t width, char **png,
                            size_t *size, mp_error *err);
/* 8-bit PNG (any colour type) -> fp32 [3, H, W] in 0..1 into *data (mp_free). */
mp_code mp_image_read_png(const char *path, float **data, int64_t *height, int64_t *width,
                          mp_error *err);

#endif
