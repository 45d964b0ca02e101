#include "pipelines/sana/resolution_bins.h"

#include <math.h>

#include "kernels/ops.h"

/* In units of 1/16 of the base size.  The two smaller bases leave some ratios out. */
static const struct {
    double ratio;
    int8_t height, width;
    bool large_only;
} bins[] = {
    {0.25, 8, 32, false},  {0.26, 8, 31, true},   {0.27, 8, 30, true},   {0.28, 8, 29, false},
    {0.32, 9, 28, false},  {0.33, 9, 27, false},  {0.35, 9, 26, false},  {0.4, 10, 25, false},
    {0.42, 10, 24, false}, {0.48, 11, 23, false}, {0.5, 11, 22, false},  {0.52, 11, 21, false},
    {0.57, 12, 21, false}, {0.6, 12, 20, false},  {0.68, 13, 19, false}, {0.72, 13, 18, false},
    {0.78, 14, 18, false}, {0.82, 14, 17, false}, {0.88, 15, 17, false}, {0.94, 15, 16, false},
    {1.0, 16, 16, false},  {1.07, 16, 15, false}, {1.13, 17, 15, false}, {1.21, 17, 14, false},
    {1.29, 18, 14, false}, {1.38, 18, 13, false}, {1.46, 19, 13, false}, {1.67, 20, 12, false},
    {1.75, 21, 12, false}, {2.0, 22, 11, false},  {2.09, 23, 11, false}, {2.4, 24, 10, false},
    {2.5, 25, 10, false},  {2.89, 26, 9, true},   {3.0, 27, 9, false},   {3.11, 28, 9, true},
    {3.62, 29, 8, true},   {3.75, 30, 8, true},   {3.88, 31, 8, true},   {4.0, 32, 8, false},
};

bool mp_sana_bin(int64_t sample_size, int64_t *height, int64_t *width)
{
    const double ratio = (double)*height / (double)*width;
    const bool large = sample_size >= 64;
    int best = 0;

    if (sample_size != 16 && sample_size != 32 && sample_size != 64 && sample_size != 128)
        return false;
    for (int i = 1; i < (int)(sizeof bins / sizeof *bins); i++)
        if ((large || !bins[i].large_only) &&
            fabs(bins[i].ratio - ratio) < fabs(bins[best].ratio - ratio))
            best = i;
    /* A latent pixel is 32 picture pixels: the base size is sample_size * 32. */
    *height = bins[best].height * sample_size * 2;
    *width = bins[best].width * sample_size * 2;
    return true;
}

/* x[start:start + size] along an axis, (extent - size) // 2 being the start.  Where the resized
 * picture is one pixel short (its extent was truncated), the start is -1 and Python's slice takes
 * the last line alone: so does Diffusers, and so does this. */
static mp_tensor crop(mp_ctx *c, mp_tensor x, int axis, int64_t size)
{
    if (mp_failed(c))
        return MP_NONE;
    const int64_t extent = x.dim[axis];
    const int64_t start = extent < size ? extent - 1 : (extent - size) / 2;

    return mp_narrow_axis(c, x, axis, start, extent < size ? 1 : size);
}

mp_tensor mp_sana_resize_and_crop(mp_ctx *c, mp_tensor x, int64_t height, int64_t width)
{
    const mp_mark mark = mp_open(c);

    if (mp_failed(c) || (x.dim[1] == height && x.dim[2] == width))
        return x;
    const double by_height = (double)height / (double)x.dim[1];
    const double by_width = (double)width / (double)x.dim[2];
    const double ratio = by_height > by_width ? by_height : by_width;
    const int64_t w = (int64_t)((double)x.dim[2] * ratio);
    const int64_t h = (int64_t)((double)x.dim[1] * ratio);

    x = mp_keep(c, mark, mp_resize_bilinear(c, x, h, w));
    x = mp_keep(c, mark, crop(c, x, 1, height));
    return mp_keep(c, mark, crop(c, x, 2, width));
}
