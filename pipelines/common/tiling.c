#include "pipelines/common/tiling.h"

#include <string.h>

#include "kernels/ops.h"

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

mp_code mp_tiling_check(const mp_tiling *t, int64_t factor, mp_error *err)
{
    const struct {
        const char *axis;
        int64_t tile, stride;
    } axes[] = {{"height", t->tile_height, t->stride_height},
                {"width", t->tile_width, t->stride_width}};

    for (int i = 0; t->on && i < 2; i++) {
        const long long tile = axes[i].tile, stride = axes[i].stride, f = factor;
        if (tile < f)
            return mp_error_set(err, MP_EUSAGE,
                                "tiling: a tile %s of %lld pixels is smaller than one latent pixel "
                                "(%lld); use a multiple of %lld",
                                axes[i].axis, tile, f, f);
        if (stride < f)
            return mp_error_set(err, MP_EUSAGE,
                                "tiling: a stride of %lld pixels in %s moves by no latent pixel "
                                "(%lld); use a multiple of %lld, at most the tile's %lld",
                                stride, axes[i].axis, f, f, tile);
        if (stride > tile)
            return mp_error_set(err, MP_EUSAGE,
                                "tiling: a stride of %lld pixels in %s leaves gaps between tiles "
                                "of %lld; use a stride of at most the tile's size",
                                stride, axes[i].axis, tile);
    }
    return MP_OK;
}

mp_tile_plan mp_tile_plan_decode(const mp_tiling *t, int64_t factor)
{
    return (mp_tile_plan){
        .height = {t->tile_height / factor, t->stride_height / factor,
                   t->tile_height - t->stride_height, t->stride_height, INT64_MAX},
        .width = {t->tile_width / factor, t->stride_width / factor, t->tile_width - t->stride_width,
                  t->stride_width, INT64_MAX},
        .mul = factor,
        .div = 1,
    };
}

mp_tile_plan mp_tile_plan_encode(const mp_tiling *t, int64_t factor, int64_t height, int64_t width)
{
    const int64_t th = t->tile_height / factor, tw = t->tile_width / factor;
    const int64_t sh = t->stride_height / factor, sw = t->stride_width / factor;

    return (mp_tile_plan){
        .height = {t->tile_height, t->stride_height, th - sh, sh, height / factor},
        .width = {t->tile_width, t->stride_width, tw - sw, sw, width / factor},
        .multiple = factor,
        .mul = 1,
        .div = factor,
    };
}

enum { CHUNK = 256 };

/* n neighbouring values, of which each `per` share a line; the first lies on line y of extent. */
static void blend_run(mp_dtype d, const char *a, char *b, int64_t n, int64_t per, int64_t y,
                      int64_t extent)
{
    float fa[CHUNK], fb[CHUNK];
    const size_t size = mp_dtype_size(d);

    for (int64_t at = 0; at < n; at += CHUNK) {
        const int64_t m = min64(CHUNK, n - at);
        char *const out = b + (size_t)at * size;
        mp_widen(d, a + (size_t)at * size, fa, m);
        mp_widen(d, out, fb, m);
        for (int64_t i = 0; i < m; i++) {
            const double t = (double)(y + (at + i) / per) / (double)extent;
            const float faded = mp_round_to(d, fa[i] * (float)(1.0 - t));
            fb[i] = faded + mp_round_to(d, fb[i] * (float)t);
        }
        mp_narrow(d, MP_E4M3_SATURATE, fb, out, m);
    }
}

void mp_tile_blend(mp_ctx *c, mp_tensor a, mp_tensor b, int axis, int64_t extent)
{
    if (mp_failed(c))
        return;
    extent = min64(extent, min64(a.dim[axis], b.dim[axis]));
    const size_t size = mp_dtype_size(b.dtype);
    const int64_t channels = b.dim[3], row = b.dim[2] * channels, a_row = a.dim[2] * channels;
    const int64_t rows = axis == 1 ? extent : b.dim[1];
    const int64_t skip = axis == 1 ? (a.dim[1] - extent) * a_row : (a.dim[2] - extent) * channels;

    for (int64_t n = 0; n < b.dim[0]; n++)
        for (int64_t y = 0; y < rows; y++) {
            const char *pa =
                (const char *)a.data + (size_t)((n * a.dim[1] + y) * a_row + skip) * size;
            char *pb = (char *)b.data + (size_t)((n * b.dim[1] + y) * row) * size;
            if (axis == 1)
                blend_run(b.dtype, pa, pb, row, row, y, extent);
            else
                blend_run(b.dtype, pa, pb, extent * channels, channels, 0, extent);
        }
}

/* Copies the rectangle of src at (sy, sx) onto dst at (dy, dx), h x w pixels. */
static void paste(mp_tensor dst, int64_t dy, int64_t dx, mp_tensor src, int64_t sy, int64_t sx,
                  int64_t h, int64_t w)
{
    const size_t pixel = (size_t)dst.dim[3] * mp_dtype_size(dst.dtype);

    for (int64_t n = 0; n < dst.dim[0]; n++)
        for (int64_t y = 0; y < h; y++) {
            const int64_t to = (n * dst.dim[1] + dy + y) * dst.dim[2] + dx;
            const int64_t from = (n * src.dim[1] + sy + y) * src.dim[2] + sx;
            memcpy((char *)dst.data + (size_t)to * pixel,
                   (const char *)src.data + (size_t)from * pixel, (size_t)w * pixel);
        }
}

/* Where tile i lies along one axis. */
typedef struct span {
    int64_t from, size; /* of the input */
    int64_t out;        /* extent of the evaluated tile */
    int64_t at, piece;  /* where its piece begins in the result, and how much of it is taken */
} span;

static int64_t out_extent(const mp_tile_plan *p, int64_t in)
{
    if (p->multiple > 1)
        in = (in + p->multiple - 1) / p->multiple * p->multiple;
    return in * p->mul / p->div;
}

static span span_at(const mp_tile_plan *p, const mp_tile_axis *a, int64_t extent, int64_t i)
{
    span s = {.from = i * a->step, .at = i * a->stride};

    s.size = min64(a->tile, extent - s.from);
    s.out = out_extent(p, s.size);
    s.piece = min64(s.out, a->stride);
    if (s.at + s.piece > a->limit)
        s.piece = s.at < a->limit ? a->limit - s.at : 0;
    return s;
}

static int64_t tile_count(const mp_tile_axis *a, int64_t extent)
{
    return (extent + a->step - 1) / a->step;
}

/* Extent of the result.  Every tile but the last ones is at least a stride long, so that piece i
 * begins at i * stride. */
static int64_t total_extent(const mp_tile_plan *p, const mp_tile_axis *a, int64_t extent)
{
    const span last = span_at(p, a, extent, tile_count(a, extent) - 1);

    return last.at + last.piece < a->limit ? last.at + last.piece : a->limit;
}

typedef struct mosaic {
    const mp_tile_plan *plan;
    mp_tensor out;
    mp_tensor edges; /* one block: strips of the row above, then the strip of the tile before */
    int64_t batch, channels, max_height, max_width;
} mosaic;

/* A strip of the edge block: `index` counts the columns; the left strip comes after the last. */
static mp_tensor edge_view(const mosaic *m, int64_t index, int64_t rows, int64_t cols)
{
    const size_t strip = (size_t)(m->batch * m->plan->height.blend * m->max_width * m->channels);
    char *const at = (char *)m->edges.data + (size_t)index * strip * mp_dtype_size(m->out.dtype);

    return mp_view(at, m->out.dtype, 4, MP_DIMS(m->batch, rows, cols, m->channels));
}

static void make_mosaic(mp_ctx *c, mosaic *m, mp_tensor x, mp_tensor tile)
{
    const mp_tile_plan *p = m->plan;
    const int64_t columns = tile_count(&p->width, x.dim[2]);

    if (mp_failed(c))
        return;
    m->batch = tile.dim[0];
    m->channels = tile.dim[3];
    m->max_height = tile.dim[1]; /* the first tile is the largest */
    m->max_width = tile.dim[2];
    m->out = mp_new(c, tile.dtype, 4,
                    MP_DIMS(m->batch, total_extent(p, &p->height, x.dim[1]),
                            total_extent(p, &p->width, x.dim[2]), m->channels));
    const int64_t strips = columns * p->height.blend * m->max_width;
    const int64_t left = m->max_height * p->width.blend;
    m->edges = mp_new(c, tile.dtype, 1, MP_DIMS((strips + left) * m->batch * m->channels + 1));
}

/* Blends a tile with its neighbours, writes its piece, and keeps the edges that others will meet.
 */
static void place(mp_ctx *c, const mosaic *m, mp_tensor x, mp_tensor tile, int64_t i, int64_t j)
{
    if (mp_failed(c))
        return;
    const mp_tile_plan *p = m->plan;
    const int64_t columns = tile_count(&p->width, x.dim[2]);
    const span row = span_at(p, &p->height, x.dim[1], i);
    const span col = span_at(p, &p->width, x.dim[2], j);
    const int64_t h = tile.dim[1], w = tile.dim[2];

    if (i > 0) {
        const int64_t above = span_at(p, &p->height, x.dim[1], i - 1).out;
        const int64_t rows = min64(above, p->height.blend);
        mp_tile_blend(c, edge_view(m, j, rows, w), tile, 1, p->height.blend);
    }
    if (j > 0) {
        const int64_t before = span_at(p, &p->width, x.dim[2], j - 1).out;
        const int64_t cols = min64(before, p->width.blend);
        mp_tile_blend(c, edge_view(m, columns, h, cols), tile, 2, p->width.blend);
    }
    paste(m->out, row.at, col.at, tile, 0, 0, row.piece, col.piece);

    const int64_t rows = min64(h, p->height.blend), cols = min64(w, p->width.blend);
    paste(edge_view(m, j, rows, w), 0, 0, tile, h - rows, 0, rows, w);
    paste(edge_view(m, columns, h, cols), 0, 0, tile, 0, w - cols, h, cols);
}

static mp_tensor one_tile(mp_ctx *c, const mp_tile_plan *p, mp_tensor x, mp_tile_fn *fn,
                          const void *model, int64_t i, int64_t j)
{
    const span row = span_at(p, &p->height, x.dim[1], i);
    const span col = span_at(p, &p->width, x.dim[2], j);
    const mp_mark mark = mp_open(c);
    mp_tensor tile = mp_narrow_axis(c, x, 1, row.from, row.size);

    tile = mp_keep(c, mark, mp_narrow_axis(c, tile, 2, col.from, col.size));
    if (p->multiple > 1 && (row.size % p->multiple || col.size % p->multiple))
        tile = mp_keep(c, mark,
                       mp_pad_hw(c, tile, (p->multiple - row.size % p->multiple) % p->multiple,
                                 (p->multiple - col.size % p->multiple) % p->multiple));
    return mp_keep(c, mark, fn(c, model, tile));
}

mp_tensor mp_tiled_forward(mp_ctx *c, const mp_tile_plan *plan, mp_tensor x, mp_tile_fn *fn,
                           const void *model)
{
    if (mp_failed(c))
        return MP_NONE;
    mosaic m = {.plan = plan, .out = MP_NONE, .edges = MP_NONE};
    const int64_t rows = tile_count(&plan->height, x.dim[1]);
    const int64_t columns = tile_count(&plan->width, x.dim[2]);
    const mp_mark start = mp_open(c);

    for (int64_t i = 0; i < rows && !mp_failed(c); i++)
        for (int64_t j = 0; j < columns && !mp_failed(c); j++) {
            mp_tensor tile = one_tile(c, plan, x, fn, model, i, j);
            if (!mp_given(m.out))
                make_mosaic(c, &m, x, tile);
            place(c, &m, x, tile, i, j);
            mp_keep_all(c, start, 2, (mp_tensor[]){m.out, m.edges});
        }
    return mp_keep(c, start, m.out);
}
