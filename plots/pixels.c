#include "plots/pixels.h"

#include <png.h>

#include "kernels/core/memory.h"

enum { CHANNELS = 3 };

static mp_code refuse(const char *why, mp_error *err)
{
    return mp_error_set(err, MP_EFORMAT, "a picture in the database cannot be read: %s", why);
}

mp_code mp_pixels_decode(const mp_picture *picture, mp_pixels *out, mp_error *err)
{
    png_image image = {.version = PNG_IMAGE_VERSION};

    *out = (mp_pixels){0};
    if (!png_image_begin_read_from_memory(&image, picture->png, picture->size))
        return refuse(image.message, err);
    image.format = PNG_FORMAT_RGB;
    if (image.width > MP_PIXELS_SIDE || image.height > MP_PIXELS_SIDE) {
        png_image_free(&image);
        return refuse("it is too large", err);
    }
    out->width = (int)image.width;
    out->height = (int)image.height;
    out->rgb = mp_alloc((size_t)image.width * image.height, CHANNELS);
    if (!out->rgb) {
        png_image_free(&image);
        return mp_error_set(err, MP_ENOMEM, "no memory for a picture");
    }
    if (png_image_finish_read(&image, &(png_color){255, 255, 255}, out->rgb, 0, NULL))
        return MP_OK;
    mp_pixels_free(out);
    return refuse(image.message, err);
}

void mp_pixels_free(mp_pixels *p)
{
    mp_free(p->rgb);
    *p = (mp_pixels){0};
}
