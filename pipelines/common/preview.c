#include "pipelines/common/preview.h"

#include <math.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "pipelines/common/image.h"

enum { CHANNELS = 3 };

/* One row of means, one channel of it, from the sums of the columns; false: one is not finite. */
static bool average(const float *sums, int64_t rows, int64_t width, int64_t small, uint8_t *out)
{
    for (int64_t i = 0; i < small; i++) {
        const int64_t first = i * width / small, end = (i + 1) * width / small;
        float sum = 0;
        for (int64_t k = first; k < end; k++)
            sum += sums[k];
        if (!isfinite(sum))
            return false;
        const float mean = sum / (float)(rows * (end - first));
        out[i * CHANNELS] = (uint8_t)rintf(fminf(fmaxf(mean, 0), 1) * 255);
    }
    return true;
}

/* Row y of the small picture. */
static bool shrink_row(mp_tensor image, int64_t y, const mp_preview *p, float *sums, uint8_t *out)
{
    const int64_t height = mp_dim(image, -2), width = mp_dim(image, -1);
    const int64_t first = y * height / p->height, end = (y + 1) * height / p->height;

    for (int c = 0; c < CHANNELS; c++) {
        const float *row = (const float *)image.data + (c * height + first) * width;
        memset(sums, 0, (size_t)width * sizeof *sums);
        for (int64_t k = first; k < end; k++, row += width)
            for (int64_t i = 0; i < width; i++)
                sums[i] += row[i];
        if (!average(sums, end - first, width, p->width, out + c))
            return false;
    }
    return true;
}

static int64_t scaled(int64_t side, int64_t longer)
{
    const int64_t n = (side * MP_PREVIEW_SIDE + longer / 2) / longer;

    return longer <= MP_PREVIEW_SIDE ? side : n > 0 ? n : 1;
}

mp_code mp_preview_make(mp_tensor image, mp_preview *out, mp_error *err)
{
    const int64_t height = mp_dim(image, -2), width = mp_dim(image, -1);
    const int64_t longer = height > width ? height : width;
    bool finite = true;

    *out = (mp_preview){.width = scaled(width, longer), .height = scaled(height, longer)};
    float *sums = mp_alloc((size_t)width, sizeof *sums);
    uint8_t *rgb = mp_alloc((size_t)(out->width * out->height), CHANNELS);
    if (!sums || !rgb)
        mp_error_set(err, MP_ENOMEM, "no memory for a small picture");
    for (int64_t y = 0; y < out->height && !err->code && finite; y++)
        finite = shrink_row(image, y, out, sums, rgb + y * out->width * CHANNELS);
    if (!err->code && finite)
        mp_image_encode_png(rgb, out->height, out->width, &out->png, &out->size, err);
    mp_free(sums);
    mp_free(rgb);
    return err->code;
}
