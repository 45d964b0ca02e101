/* Convolution on channels-last videos; a picture is one of one frame.  Included by
 * kernels/cpu/isa.c only.
 *
 * Three forms.  Most are a product whose rows are the frame's own pixels: rows of some frames are
 * copied, with their padding, into a slab of words that all workers share, in which the channels
 * under a row of taps lie together and the same under the next output pixel a little further on, so
 * no patch is gathered; the weights are packed as the other operand.  The slab holds a band of rows
 * of the frames that the kernel covers, each in a slot of its own; as the kernel goes on in time, a
 * new frame takes the slot of one that it left.  So each frame is copied once a band, whatever the
 * kernel's extent in time.  Where groups or few channels forbid that, patches are gathered into the
 * slab of gemm_body.h.  A depthwise convolution is a kernel of its own, a band of rows and a few
 * channels at a time. */

typedef struct conv_geometry {
    mp_tensor x;
    int64_t batch, t, h, w, c, out_t, out_h, out_w, kt, kh, kw;
    int64_t per_group; /* input channels of a group */
    int time_stride, stride, time_padding, padding;
} conv_geometry;

/* A pixel of the output, or a tap. */
typedef struct conv_at {
    int64_t n, t, y, x;
} conv_at;

static inline conv_at conv_pixel(const conv_geometry *v, int64_t m)
{
    const int64_t row = m / v->out_w, frame = row / v->out_h;

    return (conv_at){frame / v->out_t, frame % v->out_t, row % v->out_h, m % v->out_w};
}

static inline conv_at conv_tap(const conv_geometry *v, int64_t index)
{
    const int64_t row = index / v->kw;

    return (conv_at){.t = row / v->kh, .y = row % v->kh, .x = index % v->kw};
}

/* Passes over some taps, at most to the next row of them. */
static inline void conv_pass(const conv_geometry *v, conv_at *tap, int64_t taps)
{
    tap->x += taps;
    if (tap->x < v->kw)
        return;
    tap->x = 0;
    if (++tap->y < v->kh)
        return;
    tap->y = 0;
    tap->t++;
}

/* n values of the picture from `from` on become the words of a patch from its at-th value on;
 * outside the picture (NULL) they are zero. */
static void patch_run(const conv_geometry *v, bool pairs, const char *from, int64_t n, float *patch,
                      int64_t at)
{
    const size_t width = pairs ? sizeof(uint16_t) : sizeof(float);

    if (n <= 0)
        return;
    if (from)
        panel_read(pairs, v->x.store, from, patch, at, n);
    else
        memset((char *)patch + (size_t)at * width, 0, (size_t)n * width);
}

/* Values [from, end) of one row of taps, the first of which is the picture's value-th, at column x:
 * in the middle those of pixels that exist. */
static void patch_row(const conv_geometry *v, bool pairs, int64_t value, int64_t x, int64_t from,
                      int64_t end, float *patch, int64_t at)
{
    const int64_t c = v->per_group, left = -x * c, right = (v->w - x) * c;
    const int64_t a = left < from ? from : vec_min(left, end);
    const int64_t b = right < a ? a : vec_min(right, end);

    patch_run(v, pairs, NULL, a - from, patch, at);
    if (a < b)
        patch_run(v, pairs,
                  (const char *)v->x.data + (size_t)(value + a) * mp_dtype_size(v->x.store), b - a,
                  patch, at + a - from);
    patch_run(v, pairs, NULL, end - b, patch, at + b - from);
}

/* Values [from, from + n) of the patch of one output pixel, whose columns are ordered tap by tap,
 * each tap the channels of its group.  Without groups a row of taps lies together in the picture.
 */
static void patch_read(const void *source, bool pairs, int64_t group, int64_t row, int64_t from,
                       int64_t n, float *to)
{
    const conv_geometry *v = source;
    const conv_at pixel = conv_pixel(v, row);
    const int64_t taps = v->per_group == v->c ? v->kw : 1, run = taps * v->per_group;
    int64_t first = from % run;
    conv_at tap = conv_tap(v, from / run * taps);

    for (int64_t at = 0; at < n; first = 0) {
        const int64_t end = vec_min(run, first + n - at);
        const int64_t t = pixel.t * v->time_stride + tap.t - v->time_padding;
        const int64_t y = pixel.y * v->stride + tap.y - v->padding;
        const int64_t x = pixel.x * v->stride + tap.x - v->padding;
        const int64_t frame = pixel.n * v->t + t;
        if (t < 0 || t >= v->t || y < 0 || y >= v->h)
            patch_run(v, pairs, NULL, end - first, to, at);
        else
            patch_row(v, pairs, ((frame * v->h + y) * v->w + x) * v->c + group * v->per_group, x,
                      first, end, to, at);
        at += end - first;
        conv_pass(v, &tap, taps);
    }
}

/* [O, C, kt, kh, kw] -> [O, kt*kh*kw, C] in the format it is stored in; fails without memory. */
static mp_tensor pack_weights(mp_ctx *c, mp_tensor w)
{
    const int64_t o = w.dim[0], ch = w.dim[1], taps = w.dim[2] * w.dim[3] * w.dim[4];
    const mp_strided s = {3, {o, taps, ch}, {taps * ch, ch, 1}, {ch * taps, 1, taps}};
    mp_tensor packed = w;

    if (taps == 1)
        return w;
    packed.data = mp_scratch_shared(c, MP_SHARED_WEIGHTS, mp_nbytes(w));
    if (packed.data)
        move(c, &s, packed.data, w.data, mp_dtype_size(w.store));
    return packed;
}

static gemm_args conv_args(mp_ctx *c, const conv_geometry *v, mp_tensor w, mp_tensor b, int groups,
                           mp_tensor y)
{
    return (gemm_args){.c = c,
                       .bias = b,
                       .y = y,
                       .n = w.dim[0] / groups,
                       .k = v->kt * v->kh * v->kw * v->per_group,
                       .groups = groups,
                       .y_stride = w.dim[0],
                       .pairs = gemm_pairs(v->x, w, y)};
}

/* w: in the order of patches. */
static gemm_operand conv_weights(const gemm_args *p, mp_tensor w)
{
    return (gemm_operand){.t = w, .stride = p->k, .group = p->n * p->k, .rows = p->n};
}

/* Whether each pixel goes with one of the output's, and with no other. */
static bool conv_is_pointwise(const conv_geometry *v)
{
    return v->kt * v->kh * v->kw == 1 && v->time_stride == 1 && v->stride == 1 &&
           v->time_padding == 0 && v->padding == 0;
}

static void conv_patches(mp_ctx *c, const conv_geometry *v, mp_tensor w, mp_tensor b, int groups,
                         mp_tensor y)
{
    const gemm_args p = conv_args(c, v, w, b, groups, y);
    gemm_operand x = {.t = v->x, .rows = mp_rows(y), .read = patch_read, .source = v};

    if (conv_is_pointwise(v))
        x = (gemm_operand){.t = v->x, .stride = v->c, .group = v->per_group, .rows = x.rows};
    if (p.k == 0)
        gemm_empty_sum(&p);
    else
        gemm(p, x, conv_weights(&p, w));
}

/* Words of packed weights that are held at a time: as many strips of output channels as fit, or
 * one.  Channels whose taps are put in order at a time. */
enum { CONV_WEIGHTS = 1 << 22, CONV_BLOCK = 64 };

typedef struct conv_job {
    mp_ctx *c;
    const conv_geometry *v;
    mp_tensor w, b, y;
    bool pairs;
    int64_t words, pixel; /* of a pixel's channels, and from pixel to pixel in the slab */
    int64_t taps, run;    /* that lie together in the slab, and their words */
    int64_t chunk, parts; /* most words multiplied at a time; chunks of a run */
    float *slab, *weights;
    int64_t row;                 /* words of a row of the slab */
    int64_t slots, slot;         /* for frames, and the words of one */
    int64_t image, t, y0, rows;  /* output rows that the slab serves */
    int64_t copied, fresh;       /* the frame after those in the slab; how many are to follow */
    int64_t strip0, strips;      /* strips of output channels whose weights are packed */
    int64_t high, wide, columns; /* of a task: output rows, pixels of each, strips */
    int64_t down, across, sides; /* tasks: in rows, pixels and strips */
} conv_job;

static int64_t conv_taps(const conv_geometry *v)
{
    return v->kt * v->kh * v->kw;
}

static int64_t conv_strip_words(const conv_job *p)
{
    return conv_taps(p->v) / p->taps * p->run * PANEL_N;
}

/* The input's frame under the first tap, which the padding may stand for. */
static int64_t conv_frame(const conv_job *p)
{
    return p->t * p->v->time_stride - p->v->time_padding;
}

/* The input's frames under the taps: [first, end), without those that the padding stands for. */
static int64_t conv_first(const conv_job *p)
{
    const int64_t first = conv_frame(p);

    return first < 0 ? 0 : first;
}

static int64_t conv_end(const conv_job *p)
{
    return vec_min(conv_frame(p) + p->v->kt, p->v->t);
}

/* Pixels lie next to each other where that keeps a row of taps together: where pairs fill their
 * chunks, and where neighbours are not so far apart that they share few sets of the cache. */
static void conv_lay_out(conv_job *p)
{
    const conv_geometry *v = p->v;
    const int64_t depth = p->pairs ? 2 * PANEL_PAIR_DEPTH : 1, near = 512;

    p->words = panel_k(p->pairs, v->c);
    p->taps = PANEL_OVERLAP && v->c % depth == 0 && p->words % near ? v->kw : 1;
    p->pixel = p->taps > 1 || p->words % near ? p->words : gemm_ld(p->words);
    p->run = p->taps * p->words;
    p->chunk = panel_up(gemm_even(p->run, GEMM_K), p->pairs ? PANEL_PAIR_DEPTH : 1);
    p->parts = gemm_tiles(p->run, p->chunk);
    p->row = (v->w + 2 * v->padding) * p->pixel;
}

/* Channels [c0, c0 + n) of an output channel's weights, [channels, taps] in memory, become the
 * words of a row, [taps][words]. */
static void conv_order_taps(const conv_job *p, int64_t o, int64_t c0, int64_t n, int64_t words,
                            float *room, float *row)
{
    const int64_t taps = conv_taps(p->v), at = (o * p->v->c + c0) * taps;

    panel_read(p->pairs, p->w.store,
               (const char *)p->w.data + (size_t)at * mp_dtype_size(p->w.store), room, 0, n * taps);
    for (int64_t t = 0; t < taps; t++, row += words) {
        const panel_half *half = (const panel_half *)room + t;
        panel_half *to = (panel_half *)row;
        if (p->pairs)
            for (int64_t i = 0; i < n; i++)
                to[i] = half[i * taps];
        else
            for (int64_t i = 0; i < n; i++)
                row[i] = room[i * taps + t];
        panel_fill_up(p->pairs, row, words, 1, n, words);
    }
}

/* One strip of weights: [runs of taps][words][PANEL_N]. */
static void conv_pack_task(void *arg, int64_t task, int worker)
{
    const conv_job *p = arg;
    const int64_t taps = conv_taps(p->v), first = (p->strip0 + task) * PANEL_N;
    const int64_t count = vec_min(PANEL_N, p->w.dim[0] - first);
    float *rows = mp_scratch(p->c, worker), *strip = p->weights + task * conv_strip_words(p);

    for (int64_t c0 = 0; c0 < p->v->c; c0 += CONV_BLOCK) {
        const int64_t n = vec_min(CONV_BLOCK, p->v->c - c0), words = panel_k(p->pairs, n);
        const int64_t ld = gemm_ld(taps * words), at = panel_k(p->pairs, c0);
        for (int64_t i = 0; i < count; i++)
            conv_order_taps(p, first + i, c0, n, words, rows + PANEL_N * ld, rows + i * ld);
        panel_clear(rows, ld, count, PANEL_N, taps * words);
        for (int64_t t = 0; t < taps; t++)
            panel_transpose(rows + t * words, ld, PANEL_N, words,
                            strip + (t * p->words + at) * PANEL_N, PANEL_N);
    }
}

/* The rows of the picture that `rows` rows of the output need. */
static int64_t conv_rows_in(const conv_geometry *v, int64_t rows)
{
    return (rows - 1) * v->stride + v->kh;
}

/* One row of a frame, zero where there is no pixel. */
static void conv_copy_task(void *arg, int64_t task, int worker)
{
    const conv_job *p = arg;
    const conv_geometry *v = p->v;
    const int64_t rows = conv_rows_in(v, p->rows), frame = p->copied + task / rows;
    const int64_t y = p->y0 * v->stride + task % rows - v->padding;
    const size_t size = mp_dtype_size(v->x.store), side = (size_t)(v->padding * p->pixel);
    const char *from = (const char *)v->x.data +
                       (size_t)(((p->image * v->t + frame) * v->h + y) * v->w * v->c) * size;
    float *row = p->slab + frame % p->slots * p->slot + task % rows * p->row, *to = row + side;

    (void)worker;
    if (y < 0 || y >= v->h) {
        memset(row, 0, (size_t)p->row * sizeof *row);
        return;
    }
    memset(row, 0, side * sizeof *row);
    memset(to + v->w * p->pixel, 0, side * sizeof *row);
    if (p->pixel * (p->pairs ? 2 : 1) == v->c) {
        panel_read(p->pairs, v->x.store, from, to, 0, v->w * v->c);
        return;
    }
    for (int64_t x = 0; x < v->w; x++)
        panel_read(p->pairs, v->x.store, from + (size_t)(x * v->c) * size, to + x * p->pixel, 0,
                   v->c);
    panel_fill_up(p->pairs, to, p->pixel, v->w, v->c, p->pixel);
}

/* Words of a worker's scratch: sums [strips][high][wide][PANEL_N] and the bias. */
static int64_t conv_sum_rows(const conv_job *p)
{
    return p->high * panel_m(p->pairs, p->wide);
}

static size_t conv_bytes(const conv_job *p)
{
    return (size_t)(p->columns * PANEL_N * (conv_sum_rows(p) + 1)) * sizeof(float);
}

typedef struct conv_tile {
    int64_t y, x, strip;           /* y in the slab's output rows, strip in the packed ones */
    int64_t high, wide, strips, m; /* m: wide, filled up */
    float *sums;
} conv_tile;

static conv_tile conv_tile_of(const conv_job *p, int64_t task, float *sums)
{
    conv_tile t = {.strip = task % p->sides * p->columns,
                   .x = task / p->sides % p->across * p->wide,
                   .y = task / p->sides / p->across * p->high,
                   .sums = sums};

    t.strips = vec_min(p->columns, p->strips - t.strip);
    t.wide = vec_min(p->wide, p->v->out_w - t.x);
    t.high = vec_min(p->high, p->rows - t.y);
    t.m = panel_m(p->pairs, t.wide);
    return t;
}

/* One strip of sums, and the chunk of k that begins `part` chunks into a run of taps.  next: what
 * is multiplied after it. */
static void conv_multiply(const conv_job *p, const conv_tile *t, int64_t strip, int64_t run,
                          int64_t part, const float *b, const float *next, bool add)
{
    const conv_geometry *v = p->v;
    const int64_t k = vec_min(p->chunk, p->run - part * p->chunk);
    const conv_at tap = conv_tap(v, run * p->taps);
    const int64_t columns = gemm_columns(p->w.dim[0] - (p->strip0 + t->strip + strip) * PANEL_N);
    const float *a = p->slab + (conv_frame(p) + tap.t) % p->slots * p->slot +
                     (t->y * v->stride + tap.y) * p->row + (t->x * v->stride + tap.x) * p->pixel +
                     part * p->chunk;
    float *sums = t->sums + strip * t->high * t->m * PANEL_N;
    panel_ahead ahead = panel_ask(p->pairs, next, t->high * t->m, k);

    for (int64_t y = 0; y < t->high; y++, a += v->stride * p->row, sums += t->m * PANEL_N)
        panel_strip(p->pairs, a, v->stride * p->pixel, b, PANEL_N, t->m, columns, k, add, sums,
                    PANEL_N, &ahead);
}

static void conv_store(const conv_job *p, const conv_tile *t, float *bias)
{
    const conv_geometry *v = p->v;
    const int64_t first = (p->strip0 + t->strip) * PANEL_N, all = p->w.dim[0];
    const int64_t count = vec_min(t->strips * PANEL_N, all - first);
    const float *b = mp_given(p->b) ? vec_read(p->b, first, count, bias) : NULL;

    for (int64_t y = 0; y < t->high; y++)
        for (int64_t x = 0; x < t->wide; x++) {
            const int64_t row =
                ((p->image * v->out_t + p->t) * v->out_h + p->y0 + t->y + y) * v->out_w + t->x + x;
            for (int64_t j = 0; j < count; j += PANEL_N)
                gemm_commit(p->c, p->y,
                            t->sums + (j / PANEL_N * t->high * t->m + y * t->m + x) * PANEL_N,
                            b ? b + j : NULL, row * all + first + j, vec_min(PANEL_N, count - j));
        }
}

/* Taps on frames that do not exist are passed over. */
static void conv_task(void *arg, int64_t task, int worker)
{
    const conv_job *p = arg;
    float *room = mp_scratch(p->c, worker);
    const conv_tile t = conv_tile_of(p, task, room);
    const int64_t runs = p->v->kh * p->v->kw / p->taps, strip_words = conv_strip_words(p);
    const int64_t begin = (conv_first(p) - conv_frame(p)) * runs;
    const int64_t end = (conv_end(p) - conv_frame(p)) * runs;
    const float *weights = p->weights + t.strip * strip_words;
    const float *first = weights + begin * p->run * PANEL_N;

    if (p->pairs)
        panel_open();
    for (int64_t part = 0; part < p->parts; part++)
        for (int64_t run = begin; run < end; run++) {
            const float *b = weights + (run * p->run + part * p->chunk) * PANEL_N;
            const float *after = run + 1 < end         ? b + p->run * PANEL_N
                                 : part + 1 < p->parts ? first + (part + 1) * p->chunk * PANEL_N
                                                       : first; /* the next task's */
            for (int64_t s = 0; s < t.strips; s++)
                conv_multiply(p, &t, s, run, part, b + s * strip_words,
                              s + 1 < t.strips ? b + (s + 1) * strip_words : after,
                              part > 0 || run > begin);
        }
    if (p->pairs)
        panel_close();
    conv_store(p, &t, room + p->columns * PANEL_N * conv_sum_rows(p));
}

/* Large enough to use each chunk of weights well, and enough of them to share out. */
static void conv_cut(conv_job *p)
{
    const conv_geometry *v = p->v;
    int64_t pixels = GEMM_ROWS;

    p->columns = gemm_even(p->strips, GEMM_COLUMNS / PANEL_N);
    p->sides = gemm_tiles(p->strips, p->columns);
    while (pixels > GEMM_ROWS / 4 && p->sides * gemm_tiles(p->rows * v->out_w, pixels) < GEMM_TASKS)
        pixels /= 2;
    p->wide = vec_min(panel_up(gemm_even(v->out_w, pixels), panel_full_m(p->pairs)), v->out_w);
    p->across = gemm_tiles(v->out_w, p->wide);
    p->high = gemm_even(p->rows, p->wide < pixels ? pixels / p->wide : 1);
    p->down = gemm_tiles(p->rows, p->high);
}

static void conv_slab(conv_job *p)
{
    const int64_t products = p->rows * p->v->out_w * conv_strip_words(p) * p->strips;
    const int64_t rows = conv_rows_in(p->v, p->rows), first = conv_first(p), end = conv_end(p);

    conv_cut(p);
    if (!mp_scratch_reserve(p->c, conv_bytes(p)))
        return;
    p->copied = p->copied < first ? first : p->copied;
    p->fresh = end - p->copied;
    gemm_share(p->c, p->fresh * rows * p->row, p->fresh * rows, conv_copy_task, p);
    p->copied = end;
    gemm_share(p->c, products, p->down * p->across * p->sides, conv_task, p);
}

/* What tiles read beyond the last row of the slab. */
static int64_t conv_slack(const conv_job *p)
{
    return panel_m(p->pairs, 1) * p->v->stride * p->pixel;
}

static bool conv_reserve(conv_job *p, int64_t strips)
{
    const int64_t taps = conv_taps(p->v), block = vec_min(CONV_BLOCK, p->v->c);
    const int64_t words = p->slots * p->slot, slack = conv_slack(p);
    const int64_t room = PANEL_N * gemm_ld(taps * panel_k(p->pairs, block)) + taps * block;

    p->slab = mp_scratch_shared(p->c, MP_SHARED_SLAB, (size_t)(words + slack) * sizeof(float));
    p->weights = mp_scratch_shared(p->c, MP_SHARED_WEIGHTS,
                                   (size_t)(strips * conv_strip_words(p)) * sizeof(float));
    if (!p->slab || !p->weights || !mp_scratch_reserve(p->c, (size_t)room * sizeof(float)))
        return false;
    memset(p->slab + words, 0, (size_t)slack * sizeof(float));
    return true;
}

static void conv_rows(mp_ctx *c, const conv_geometry *v, mp_tensor w, mp_tensor b, mp_tensor y)
{
    conv_job p = {.c = c, .v = v, .w = w, .b = b, .y = y, .pairs = gemm_pairs(v->x, w, y)};
    const int64_t all = gemm_tiles(w.dim[0], PANEL_N);

    conv_lay_out(&p);
    const int64_t held = CONV_WEIGHTS / conv_strip_words(&p);
    const int64_t strips = gemm_even(all, held < 1 ? 1 : held);
    p.slots = vec_min(v->kt, v->t);
    const int64_t fit = (GEMM_SLAB / (p.slots * p.row) - v->kh) / v->stride + 1;
    const int64_t rows = gemm_even(v->out_h, fit < 4 ? 4 : fit);
    p.slot = conv_rows_in(v, rows) * p.row;
    if (!conv_reserve(&p, strips))
        return;
    for (; p.strip0 < all && !mp_failed(c); p.strip0 += p.strips) {
        p.strips = vec_min(strips, all - p.strip0);
        gemm_share(c, p.strips * conv_strip_words(&p) * GEMM_PACKED, p.strips, conv_pack_task, &p);
        for (p.image = 0; p.image < v->batch; p.image++)
            for (p.y0 = 0; p.y0 < v->out_h; p.y0 += rows) {
                p.rows = vec_min(rows, v->out_h - p.y0);
                p.copied = 0;
                for (p.t = 0; p.t < v->out_t && !mp_failed(c); p.t++)
                    conv_slab(&p);
            }
    }
}

/* Pixels serve as rows where taps have enough channels (few, where a row of taps makes up for it),
 * rows fill the tiles of pairs, and each frame of the output has one of the input under its taps.
 */
static bool conv_by_rows(const conv_geometry *v, int groups, bool pairs)
{
    const int64_t channels = PANEL_OVERLAP && !pairs && v->kw > 1 ? 3 : 32;

    return groups == 1 && v->c >= channels && v->time_padding < v->kt && v->t > 0 &&
           4 * panel_m(pairs, v->out_w) <= 5 * v->out_w;
}

/* Where all taps are on the same pixel, rows may end anywhere: they get whole blocks, if any length
 * does that. */
static void conv_cut_rows(conv_geometry *v, bool pairs)
{
    const int64_t pixels = v->h * v->w, block = panel_full_m(pairs);

    if (v->kh * v->kw != 1 || v->stride != 1 || v->padding != 0)
        return;
    for (int64_t width = GEMM_ROWS / block * block; width > 0; width -= block)
        if (pixels % width == 0) {
            v->w = v->out_w = width;
            v->h = v->out_h = pixels / width;
            return;
        }
}

static void conv_general(mp_ctx *c, conv_geometry v, mp_tensor w, mp_tensor b, int groups,
                         mp_tensor y)
{
    const bool pairs = gemm_pairs(v.x, w, y);

    conv_cut_rows(&v, pairs);
    if (conv_by_rows(&v, groups, pairs)) {
        conv_rows(c, &v, w, b, y);
        return;
    }
    const mp_tensor packed = pack_weights(c, w);
    if (!mp_failed(c))
        conv_patches(c, &v, packed, b, groups, y);
}

/* Depthwise: channels of one task, and about how many bytes of input it holds. */
enum { DEPTHWISE_C = 64, DEPTHWISE_BYTES = 1 << 18, DEPTHWISE_TAPS = 49 };

/* Channels whose sums are in registers at a time, on every instruction set. */
typedef float depthwise_vec __attribute__((vector_size(64)));
enum { DEPTHWISE_LANES = 16 };

static inline __attribute__((always_inline)) void depthwise_read(const float *x, depthwise_vec *v)
{
    memcpy(v, x, sizeof *v);
}

typedef struct depthwise_args {
    mp_ctx *c;
    const conv_geometry *v;
    mp_tensor w, b, y;
    int64_t band, bands, slices;
} depthwise_args;

/* Input rows of a band, zero-padded at all sides, [rows][row width][DEPTHWISE_C]. */
static void depthwise_load(const depthwise_args *p, int64_t n, int64_t y0, int64_t rows, int64_t c0,
                           int64_t cn, float *band)
{
    const conv_geometry *v = p->v;
    const int64_t width = v->w + 2 * v->padding;
    const size_t size = mp_dtype_size(v->x.store), pixel = DEPTHWISE_C * sizeof *band;
    const size_t side = (size_t)v->padding * pixel;

    for (int64_t r = 0; r < rows; r++) {
        const int64_t y = y0 + r;
        float *row = band + r * width * DEPTHWISE_C, *to = row + v->padding * DEPTHWISE_C;
        if (y < 0 || y >= v->h) {
            memset(row, 0, (size_t)width * pixel);
            continue;
        }
        memset(row, 0, side);
        memset(to + v->w * DEPTHWISE_C, 0, side);
        const char *from =
            (const char *)v->x.data + (size_t)((n * v->h + y) * v->w * v->c + c0) * size;
        for (int64_t x = 0; x < v->w; x++)
            vec_widen(v->x.store, from + (size_t)(x * v->c) * size, to + x * DEPTHWISE_C, cn);
    }
}

/* Taps [kh*kw][DEPTHWISE_C] and bias of one slice of channels, fp32. */
static void depthwise_weights(const depthwise_args *p, int64_t c0, int64_t cn, float *taps,
                              float *bias)
{
    const int64_t count = p->v->kh * p->v->kw;
    float one[DEPTHWISE_TAPS];

    memset(taps, 0, (size_t)(count * DEPTHWISE_C) * sizeof *taps);
    memset(bias, 0, DEPTHWISE_C * sizeof *bias);
    for (int64_t ch = 0; ch < cn; ch++) {
        const float *w = vec_read(p->w, (c0 + ch) * count, count, one);
        for (int64_t t = 0; t < count; t++)
            taps[t * DEPTHWISE_C + ch] = w[t];
        if (mp_given(p->b))
            bias[ch] = *vec_read(p->b, c0 + ch, 1, one);
    }
}

static inline __attribute__((always_inline)) void depthwise_pixel(int64_t kh, int64_t kw,
                                                                  int64_t width, const float *at,
                                                                  const float *taps,
                                                                  const float *bias, float *y)
{
    for (int ch = 0; ch < DEPTHWISE_C; ch += DEPTHWISE_LANES) {
        depthwise_vec sum = {0}, x, w;
        for (int64_t i = 0; i < kh; i++)
            for (int64_t j = 0; j < kw; j++) {
                depthwise_read(at + (i * width + j) * DEPTHWISE_C + ch, &x);
                depthwise_read(taps + (i * kw + j) * DEPTHWISE_C + ch, &w);
                sum += x * w;
            }
        depthwise_read(bias + ch, &w);
        sum += w;
        memcpy(y + ch, &sum, sizeof sum);
    }
}

static int64_t depthwise_rows(const conv_geometry *v, int64_t band)
{
    return (band - 1) * v->stride + v->kh;
}

static void depthwise_task(void *arg, int64_t task, int worker)
{
    const depthwise_args *p = arg;
    const conv_geometry *v = p->v;
    const int64_t c0 = task % p->slices * DEPTHWISE_C, cn = vec_min(DEPTHWISE_C, v->c - c0);
    const int64_t y0 = task / p->slices % p->bands * p->band, n = task / (p->slices * p->bands);
    const int64_t rows = vec_min(p->band, v->out_h - y0), width = v->w + 2 * v->padding;
    float *taps = mp_scratch(p->c, worker), *bias = taps + v->kh * v->kw * DEPTHWISE_C;
    float *band = bias + DEPTHWISE_C, acc[DEPTHWISE_C];

    depthwise_weights(p, c0, cn, taps, bias);
    depthwise_load(p, n, y0 * v->stride - v->padding, depthwise_rows(v, rows), c0, cn, band);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t x = 0; x < v->out_w; x++) {
            const float *from = band + (r * v->stride * width + x * v->stride) * DEPTHWISE_C;
            if (v->kh == 3 && v->kw == 3) /* constants unroll it */
                depthwise_pixel(3, 3, width, from, taps, bias, acc);
            else
                depthwise_pixel(v->kh, v->kw, width, from, taps, bias, acc);
            const int64_t at = ((n * v->out_h + y0 + r) * v->out_w + x) * v->c + c0;
            vec_narrow(p->y.store, p->c->e4m3, acc,
                       (char *)p->y.data + (size_t)at * mp_dtype_size(p->y.store), cn);
        }
}

static void depthwise(mp_ctx *c, const conv_geometry *v, mp_tensor w, mp_tensor b, mp_tensor y)
{
    depthwise_args p = {.c = c, .v = v, .w = w, .b = b, .y = y};
    const int64_t row_bytes = (v->w + 2 * v->padding) * DEPTHWISE_C * (int64_t)sizeof(float);

    p.band = (DEPTHWISE_BYTES / row_bytes - v->kh) / v->stride + 1;
    p.band = vec_min(p.band < 1 ? 1 : p.band, 16);
    p.bands = (v->out_h + p.band - 1) / p.band;
    p.slices = (v->c + DEPTHWISE_C - 1) / DEPTHWISE_C;
    const size_t bytes = (size_t)((v->kh * v->kw + 1) * DEPTHWISE_C) * sizeof(float) +
                         (size_t)(depthwise_rows(v, p.band) * row_bytes);
    if (mp_scratch_reserve(c, bytes))
        mp_parallel(c, v->batch * v->t * p.bands * p.slices, depthwise_task, &p);
}

static bool conv_is_depthwise(const conv_geometry *v, int groups, int64_t outputs)
{
    return groups == v->c && outputs == v->c && v->kt == 1 && v->kh * v->kw <= DEPTHWISE_TAPS &&
           v->time_stride == 1 && v->time_padding == 0;
}

static void conv(mp_ctx *c, mp_tensor x, mp_tensor w, mp_tensor b, mp_conv3d_opts o, mp_tensor y)
{
    const mp_mark mark = mp_open(c);
    const conv_geometry v = {.x = x,
                             .batch = x.dim[0],
                             .t = x.dim[1],
                             .h = x.dim[2],
                             .w = x.dim[3],
                             .c = x.dim[4],
                             .out_t = y.dim[1],
                             .out_h = y.dim[2],
                             .out_w = y.dim[3],
                             .kt = w.dim[2],
                             .kh = w.dim[3],
                             .kw = w.dim[4],
                             .per_group = w.dim[1],
                             .time_stride = o.time_stride,
                             .stride = o.stride,
                             .time_padding = o.time_padding,
                             .padding = o.padding};

    if (mp_numel(y) == 0)
        return;
    if (conv_is_depthwise(&v, o.groups, w.dim[0]))
        depthwise(c, &v, w, b, y);
    else if (o.groups == 1 && conv_is_pointwise(&v))
        linear(c, x, mp_reshape(w, 2, MP_DIMS(w.dim[0], w.dim[1])), b, y);
    else
        conv_general(c, v, w, b, o.groups, y);
    mp_drop(c, mark);
}
