#include "pipelines/common/image.h"

#include <math.h>
#include <string.h>

#include <png.h>

#include "kernels/core/memory.h"
#include "pipelines/common/file.h"

enum {
    SIDE_LIMIT = 65536,    /* pixels; a picture of 4K has 4096 */
    PIXEL_LIMIT = 1 << 28, /* 16384 x 16384 */
    FILE_LIMIT = 1 << 30,  /* bytes */
    CHANNELS = 3,
};

/* One PNG on its way in or out.  Everything that must survive a longjmp lives here, not in locals
 * of the function that called setjmp. */
typedef struct job {
    const char *path;
    mp_error *err;
    mp_code code;
    png_structp png;
    png_infop info;
    uint8_t *pixels; /* [height, width, 3] */
    png_bytep *rows;
    const uint8_t *rgb; /* out: the pixels */
    int64_t height, width;
    bool in_memory;  /* out: to bytes, and fast rather than small */
    mp_replace file; /* out, else */
    char *bytes;     /* in; out */
    size_t size, at; /* out: the room, and what is filled of it */
} job;

static mp_code no_memory(job *j)
{
    return j->code = mp_error_set(j->err, MP_ENOMEM, "%s: no memory for %lld x %lld pixels",
                                  j->path, (long long)j->width, (long long)j->height);
}

static void png_failed(png_structp png, png_const_charp text)
{
    job *j = png_get_error_ptr(png);

    if (!j->code)
        j->code = mp_error_set(j->err, MP_EFORMAT, "%s: %s; expected a PNG", j->path,
                               mp_plain(text).text);
    png_longjmp(png, 1);
}

static void png_warned(png_structp png, png_const_charp text)
{
    (void)png;
    (void)text;
}

static void give_bytes(png_structp png, png_bytep to, size_t n)
{
    job *j = png_get_io_ptr(png);

    if (n > j->size - j->at)
        png_error(png, "the file is truncated");
    memcpy(to, j->bytes + j->at, n);
    j->at += n;
}

static void take_bytes(png_structp png, png_bytep from, size_t n)
{
    job *j = png_get_io_ptr(png);

    j->code = mp_replace_write(&j->file, from, n, j->err);
    if (j->code)
        png_error(png, "cannot be written");
}

static void keep_bytes(png_structp png, png_bytep from, size_t n)
{
    job *j = png_get_io_ptr(png);

    if (n > j->size - j->at) {
        const size_t room = 2 * (j->at + n);
        char *bytes = mp_realloc(j->bytes, room, 1);
        if (!bytes) {
            no_memory(j);
            png_error(png, "no memory");
        }
        j->bytes = bytes;
        j->size = room;
    }
    memcpy(j->bytes + j->at, from, n);
    j->at += n;
}

static void flush_bytes(png_structp png)
{
    (void)png;
}

static mp_code allocate_rows(job *j)
{
    const size_t stride = (size_t)j->width * CHANNELS;

    j->pixels = mp_alloc((size_t)j->height, stride);
    j->rows = mp_alloc((size_t)j->height, sizeof *j->rows);
    if (!j->pixels || !j->rows)
        return no_memory(j);
    for (int64_t y = 0; y < j->height; y++)
        j->rows[y] = j->pixels + (size_t)y * stride;
    return MP_OK;
}

static void free_rows(job *j)
{
    mp_free(j->pixels);
    mp_free(j->rows);
    mp_free(j->bytes);
}

/* numpy_to_pil: (x * 255).round(), ties to even. */
static uint8_t to_byte(float x)
{
    return isfinite(x) ? (uint8_t)rintf(fminf(fmaxf(x, 0), 1) * 255) : 0;
}

static void interleave(job *j, const float *planes)
{
    const int64_t n = j->height * j->width;

    for (int c = 0; c < CHANNELS; c++)
        for (int64_t i = 0; i < n; i++)
            j->pixels[i * CHANNELS + c] = to_byte(planes[c * n + i]);
}

static void encode(job *j)
{
    if (setjmp(png_jmpbuf(j->png)))
        return;
    png_set_write_fn(j->png, j, j->in_memory ? keep_bytes : take_bytes, flush_bytes);
    if (j->in_memory) {
        png_set_filter(j->png, PNG_FILTER_TYPE_BASE, PNG_FILTER_SUB);
        png_set_compression_level(j->png, 2);
    }
    png_set_user_limits(j->png, SIDE_LIMIT, SIDE_LIMIT);
    png_set_IHDR(j->png, j->info, (png_uint_32)j->width, (png_uint_32)j->height, 8,
                 PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    png_write_info(j->png, j->info);
    for (int64_t y = 0; y < j->height; y++)
        png_write_row(j->png, j->rgb + y * j->width * CHANNELS);
    png_write_end(j->png, j->info);
}

static mp_code write_png(job *j)
{
    j->png = png_create_write_struct(PNG_LIBPNG_VER_STRING, j, png_failed, png_warned);
    j->info = j->png ? png_create_info_struct(j->png) : NULL;
    if (j->info)
        encode(j);
    else
        no_memory(j);
    png_destroy_write_struct(&j->png, &j->info);
    return j->code;
}

static mp_code check_shape(job *j, mp_tensor image)
{
    char shape[120];
    const bool batch = image.rank == 4 && image.dim[0] == 1;

    if (image.store != MP_F32 || (image.rank != 3 && !batch) || mp_dim(image, -3) != CHANNELS)
        return mp_error_set(j->err, MP_ESHAPE, "%s: picture is %s, expected fp32 [3, H, W]",
                            j->path, mp_shape_text(image, shape, sizeof shape));
    j->height = mp_dim(image, -2);
    j->width = mp_dim(image, -1);
    if (j->height < 1 || j->width < 1 || j->height > SIDE_LIMIT || j->width > SIDE_LIMIT)
        return mp_error_set(j->err, MP_ESHAPE, "%s: picture is %s, expected sides of 1..%d",
                            j->path, mp_shape_text(image, shape, sizeof shape), SIDE_LIMIT);
    return MP_OK;
}

static mp_code write_file(job *j)
{
    mp_code code = mp_replace_begin(&j->file, j->path, j->err);

    if (code)
        return code;
    if (!write_png(j))
        j->code = mp_replace_commit(&j->file, j->err);
    if (j->code)
        mp_replace_abort(&j->file);
    return j->code;
}

mp_code mp_image_write_png(const char *path, mp_tensor image, mp_error *err)
{
    job j = {.path = path, .err = err};
    mp_code code = check_shape(&j, image);

    if (!code)
        code = allocate_rows(&j);
    if (!code) {
        interleave(&j, image.data);
        j.rgb = j.pixels;
        code = write_file(&j);
    }
    free_rows(&j);
    return code;
}

mp_code mp_image_encode_png(const uint8_t *rgb, int64_t height, int64_t width, char **png,
                            size_t *size, mp_error *err)
{
    job j = {.path = "a picture in memory",
             .err = err,
             .rgb = rgb,
             .height = height,
             .width = width,
             .in_memory = true};

    *png = NULL;
    if (write_png(&j)) {
        mp_free(j.bytes);
        return j.code;
    }
    *png = j.bytes;
    *size = j.at;
    return MP_OK;
}

/* Whatever the colour type, 8-bit RGB; transparency is dropped, as Image.convert("RGB") does. */
static void decode(job *j)
{
    if (setjmp(png_jmpbuf(j->png)))
        return;
    png_set_read_fn(j->png, j, give_bytes);
    png_set_user_limits(j->png, SIDE_LIMIT, SIDE_LIMIT);
    png_read_info(j->png, j->info);
    j->width = png_get_image_width(j->png, j->info);
    j->height = png_get_image_height(j->png, j->info);
    if (j->width * j->height > PIXEL_LIMIT)
        png_error(j->png, "larger than 2^28 pixels");
    if (png_get_bit_depth(j->png, j->info) > 8)
        png_error(j->png, "16 bits a channel, expected at most 8");
    png_set_expand(j->png);
    png_set_gray_to_rgb(j->png);
    png_set_strip_alpha(j->png);
    png_set_interlace_handling(j->png);
    png_read_update_info(j->png, j->info);
    if (png_get_rowbytes(j->png, j->info) != (size_t)j->width * CHANNELS)
        png_error(j->png, "a colour type that does not become RGB");
    if (allocate_rows(j))
        png_error(j->png, "no memory");
    png_read_image(j->png, j->rows);
    png_read_end(j->png, NULL);
}

static mp_code read_file(job *j)
{
    mp_code code = mp_file_read(j->path, FILE_LIMIT, &j->bytes, &j->size, j->err);

    if (code)
        return code;
    j->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, j, png_failed, png_warned);
    j->info = j->png ? png_create_info_struct(j->png) : NULL;
    if (j->info)
        decode(j);
    else
        no_memory(j);
    png_destroy_read_struct(&j->png, &j->info, NULL);
    return j->code;
}

mp_code mp_image_read_png(const char *path, float **data, int64_t *height, int64_t *width,
                          mp_error *err)
{
    job j = {.path = path, .err = err};
    mp_code code = read_file(&j);

    *data = NULL;
    if (!code) {
        const int64_t n = j.height * j.width;
        *data = mp_alloc((size_t)n, CHANNELS * sizeof **data);
        if (!*data)
            code = no_memory(&j);
        for (int64_t i = 0; !code && i < n; i++)
            for (int c = 0; c < CHANNELS; c++)
                (*data)[c * n + i] = (float)j.pixels[i * CHANNELS + c] / 255;
        *height = j.height;
        *width = j.width;
    }
    free_rows(&j);
    return code;
}
