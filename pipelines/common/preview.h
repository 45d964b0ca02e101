/* Small pictures for people. */
#ifndef MP_PIPELINES_COMMON_PREVIEW_H
#define MP_PIPELINES_COMMON_PREVIEW_H

#include "kernels/core/status.h"
#include "kernels/core/tensor.h"

enum { MP_PREVIEW_SIDE = 192 }; /* pixels, the longer side at most */

typedef struct mp_preview {
    int64_t width, height;
    char *png; /* NULL: there is none, since a value is not finite; mp_free */
    size_t size;
} mp_preview;

/* image [3, H, W] or [1, 3, H, W] fp32 in 0..1.  A pixel is the mean of those that it stands for,
 * as they are, rounded once; a picture that is small enough is kept.  Some milliseconds. */
mp_code mp_preview_make(mp_tensor image, mp_preview *out, mp_error *err);

#endif
