/* Convolution on channels-last videos; a picture is one of one frame.  Included by
 * kernels/cpu/isa.c only.
 *
 * Three forms.  Most are the product of gemm_body.h on a slab of rows of some frames, packed with
 * their padding: under each tap the same strip lies a little further on, so no patch is gathered.
 * The slab holds a band of rows of the frames that the kernel covers, each in a slot of its own;
 * as the kernel goes on in time, a new frame takes the slot of one that it left.  So each frame is
 * packed once a band, whatever the kernel's extent in time.  Where strides, groups or few channels
 * and pixels forbid that, the slab is one of patches.  A depthwise convolution is a kernel of its
 * own, a band of rows and a few channels at a time. */

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

typedef struct conv_band {
    gemm_args p;
    const conv_geometry *v;
    int64_t image, t, y, rows; /* the output's rows whose input is in the slab */
    int64_t slots, slot;       /* for frames, and the words of one: [rows + kh - 1][words][ld] */
    int64_t packed, fresh;     /* the frame after those in the slab; how many are to follow */
    int64_t across;            /* strips in a row */
    int64_t words;             /* of a pixel's channels */
    int64_t parts;             /* chunks of them */
} conv_band;

/* Columns of strips in an output row. */
static int64_t conv_row_columns(int64_t width)
{
    const int64_t last = width % PANEL_N;

    return width - last + (last ? gemm_columns(last) : 0);
}

/* The input's frames under the taps: [first, end), without those that the padding stands for. */
static int64_t band_first(const conv_band *m)
{
    const int64_t first = m->t * m->v->time_stride - m->v->time_padding;

    return first < 0 ? 0 : first;
}

static int64_t band_end(const conv_band *m)
{
    return vec_min(m->t * m->v->time_stride - m->v->time_padding + m->v->kt, m->v->t);
}

static gemm_strip band_strip(const gemm_args *p, int64_t group, int64_t index)
{
    const conv_band *m = p->form;
    const conv_geometry *v = m->v;
    const int64_t r = index / m->across, x = index % m->across * PANEL_N;
    const int64_t frame = m->image * v->out_t + m->t;

    (void)group;
    return (gemm_strip){.at = p->slab + r * m->words * p->ld + x,
                        .row = (frame * v->out_h + m->y + r) * v->out_w + x,
                        .count = vec_min(PANEL_N, v->out_w - x)};
}

/* Taps on frames that do not exist are passed over. */
static gemm_chunk band_chunk(const gemm_args *p, int64_t index)
{
    const conv_band *m = p->form;
    const conv_geometry *v = m->v;
    const int64_t first = index % m->parts * p->chunk_k;
    const conv_at tap = conv_tap(v, index / m->parts);
    const int64_t frame = band_first(m) + tap.t;
    const int64_t time = frame - (m->t * v->time_stride - v->time_padding);
    const int64_t below = tap.y * m->words + panel_k(p->pairs, first);

    return (gemm_chunk){.from = ((time * v->kh + tap.y) * v->kw + tap.x) * v->c + first,
                        .k = vec_min(p->chunk_k, v->c - first),
                        .at = frame % m->slots * m->slot + below * p->ld + tap.x};
}

/* Channels [first, first + k) of n pixels, `ld` words apart at `to`. */
static void band_turn(const conv_band *m, int64_t pixel, int64_t n, int64_t first, int64_t k,
                      float *rows, float *to)
{
    const gemm_args *p = &m->p;
    const mp_tensor *x = &m->v->x;
    const int64_t at = pixel * m->v->c + first;

    panel_turn_rows(
        p->pairs, x->store, (const char *)x->data + (size_t)at * mp_dtype_size(x->store), m->v->c,
        n, panel_up(n, PANEL_TURN), k, rows, gemm_ld(panel_k(p->pairs, p->chunk_k)), to, p->ld);
}

/* One row of a frame, [words, ld], zero where there is no pixel. */
static void band_pack_task(void *arg, int64_t task, int worker)
{
    const conv_band *m = arg;
    const gemm_args *p = &m->p;
    const conv_geometry *v = m->v;
    const int64_t rows = m->rows + v->kh - 1, frame = m->packed + task / rows;
    const int64_t y = m->y + task % rows - v->padding, end = v->padding + v->w;
    float *row = p->slab + frame % m->slots * m->slot + task % rows * m->words * p->ld;

    if (y < 0 || y >= v->h) {
        memset(row, 0, (size_t)(m->words * p->ld) * sizeof *row);
        return;
    }
    for (int64_t x = 0; x < v->w; x += PANEL_N)
        for (int64_t first = 0; first < v->c; first += p->chunk_k)
            band_turn(m, ((m->image * v->t + frame) * v->h + y) * v->w + x,
                      vec_min(PANEL_N, v->w - x), first, vec_min(p->chunk_k, v->c - first),
                      mp_scratch(p->c, worker),
                      row + panel_k(p->pairs, first) * p->ld + v->padding + x);
    for (int64_t c = 0; c < m->words; c++) {
        memset(row + c * p->ld, 0, (size_t)v->padding * sizeof *row);
        memset(row + c * p->ld + end, 0, (size_t)(p->ld - end) * sizeof *row);
    }
}

/* A band is as high as the slab has room for, but for the least rows that are worth their packing:
 * kh - 1 more are packed each time. */
static void band_cut(conv_band *m)
{
    gemm_args *p = &m->p;
    const conv_geometry *v = m->v;
    const int64_t columns = conv_row_columns(v->out_w) + v->kw - 1;

    gemm_cut_k(p, v->c);
    m->parts = gemm_tiles(v->c, p->chunk_k);
    m->words = panel_k(p->pairs, v->c);
    m->across = gemm_tiles(v->out_w, PANEL_N);
    p->strip = band_strip;
    p->chunk = band_chunk;
    p->form = m;
    p->ld = gemm_ld(columns > v->padding + panel_up(v->w, PANEL_TURN)
                        ? columns
                        : v->padding + panel_up(v->w, PANEL_TURN));
    m->slots = vec_min(v->kt, v->t);
    const int64_t fit = GEMM_SLAB / (m->slots * m->words * p->ld) - v->kh + 1;
    m->rows = gemm_even(v->out_h, fit < 4 ? 4 : fit);
    m->slot = (m->rows + v->kh - 1) * m->words * p->ld;
}

/* One frame of the output's band. */
static void band_slab(conv_band *m)
{
    const conv_geometry *v = m->v;
    const int64_t rows = m->rows + v->kh - 1, first = band_first(m), end = band_end(m);

    m->packed = m->packed < first ? first : m->packed;
    m->fresh = end - m->packed;
    m->p.strips = m->rows * m->across;
    m->p.chunks = (end - first) * v->kh * v->kw * m->parts;
    gemm_share(m->p.c, m->fresh * rows * m->words * m->p.ld * GEMM_PACKED, m->fresh * rows,
               band_pack_task, m);
    m->packed = end;
    gemm_slab(&m->p);
}

static void conv_bands(mp_ctx *c, const conv_geometry *v, mp_tensor w, mp_tensor b, mp_tensor y)
{
    conv_band m = {.p = conv_args(c, v, w, b, 1, y), .v = v};

    m.p.left = conv_weights(&m.p, w);
    m.p.turned = true;
    band_cut(&m);
    const int64_t rows = m.rows, room = PANEL_N * gemm_ld(panel_k(m.p.pairs, m.p.chunk_k));
    m.p.slab = mp_scratch_shared(c, MP_SHARED_SLAB, (size_t)(m.slots * m.slot) * sizeof(float));
    if (!m.p.slab || !mp_scratch_reserve(c, (size_t)room * sizeof(float)))
        return;
    for (m.image = 0; m.image < v->batch; m.image++)
        for (m.y = 0; m.y < v->out_h; m.y += rows) {
            m.rows = vec_min(rows, v->out_h - m.y);
            m.packed = 0;
            for (m.t = 0; m.t < v->out_t; m.t++)
                band_slab(&m);
        }
}

/* Bands serve where rows fill their strips, a tap has enough channels, and each frame of the output
 * has one of the input under its taps. */
static bool conv_by_bands(const conv_geometry *v, int groups)
{
    return groups == 1 && v->stride == 1 && v->c >= 32 && v->time_padding < v->kt && v->t > 0 &&
           4 * conv_row_columns(v->out_w) <= 5 * v->out_w;
}

/* Where all taps are on the same pixel, rows may end anywhere: they get whole strips, if any length
 * does that. */
static void conv_cut_rows(conv_geometry *v)
{
    const int64_t pixels = v->h * v->w;

    if (v->kh * v->kw != 1 || v->stride != 1 || v->padding != 0)
        return;
    for (int64_t width = GEMM_COLUMNS; width > 0; width -= PANEL_N)
        if (pixels % width == 0) {
            v->w = v->out_w = width;
            v->h = v->out_h = pixels / width;
            return;
        }
}

static void conv_general(mp_ctx *c, conv_geometry v, mp_tensor w, mp_tensor b, int groups,
                         mp_tensor y)
{
    const mp_tensor packed = pack_weights(c, w);

    if (mp_failed(c))
        return;
    conv_cut_rows(&v);
    if (conv_by_bands(&v, groups))
        conv_bands(c, &v, packed, b, y);
    else
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
