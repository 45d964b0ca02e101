/* The pixels of a small picture. */
#ifndef MP_PLOTS_PIXELS_H
#define MP_PLOTS_PIXELS_H

#include <stdint.h>

#include "results/pictures.h"

enum { MP_PIXELS_SIDE = 192 }; /* at most; so large are the pictures that runs record */

typedef struct mp_pixels {
    int width, height;
    uint8_t *rgb; /* [height, width, 3]; NULL: none */
} mp_pixels;

/* MP_EFORMAT: no PNG that can be read, or too large for a small picture. */
mp_code mp_pixels_decode(const mp_picture *picture, mp_pixels *out, mp_error *err);
void mp_pixels_free(mp_pixels *p);

#endif
