/* Convolution on channels-last pictures.  Included by kernels/cpu/isa.c only.
 *
 * The general form is the tiled product of gemm_body.h whose left operand is gathered: a chunk of
 * patches at a time, never all of them.  A depthwise convolution is a kernel of its own, a band of
 * rows and a few channels at a time. */

typedef struct conv_geometry {
    mp_tensor x;
    int64_t h, w, c, out_h, out_w, kh, kw, per_group; /* per_group: input channels of a group */
    int stride, padding;
} conv_geometry;

/* An output pixel, and the next one in memory. */
typedef struct conv_at {
    int64_t n, y, x;
} conv_at;

static inline conv_at conv_pixel(const conv_geometry *v, int64_t m)
{
    return (conv_at){m / (v->out_w * v->out_h), m / v->out_w % v->out_h, m % v->out_w};
}

static inline void conv_next(const conv_geometry *v, conv_at *at)
{
    if (++at->x < v->out_w)
        return;
    at->x = 0;
    if (++at->y < v->out_h)
        return;
    at->y = 0;
    at->n++;
}

/* The index of the input pixel of that output under tap (i, j), -1 in the padding. */
static inline int64_t conv_input(const conv_geometry *v, const conv_at *at, int64_t i, int64_t j)
{
    const int64_t y = at->y * v->stride + i - v->padding, x = at->x * v->stride + j - v->padding;

    if (y < 0 || y >= v->h || x < 0 || x >= v->w)
        return -1;
    return (at->n * v->h + y) * v->w + x;
}

/* Columns of a patch are ordered tap by tap, each tap the channels of its group. */
static void load_patches(const gemm_args *p, int64_t g, int64_t m0, int64_t m, int64_t k0,
                         int64_t k, float *panel, int64_t lda)
{
    const conv_geometry *v = p->a;
    const size_t size = mp_dtype_size(v->x.store);
    const size_t width = p->pairs ? sizeof(uint16_t) : sizeof(float);

    for (int64_t at = k0; at < k0 + k;) {
        const int64_t tap = at / v->per_group, first = at % v->per_group;
        const int64_t n = vec_min(v->per_group - first, k0 + k - at);
        conv_at pixel = conv_pixel(v, m0);
        for (int64_t r = 0; r < m; r++, conv_next(v, &pixel)) {
            float *row = panel + r * lda;
            const int64_t input = conv_input(v, &pixel, tap / v->kw, tap % v->kw);
            const int64_t from = input * v->c + g * v->per_group + first;
            if (input < 0)
                memset((char *)row + (size_t)(at - k0) * width, 0, (size_t)n * width);
            else
                panel_read(p->pairs, v->x.store, (const char *)v->x.data + (size_t)from * size, row,
                           at - k0, n);
        }
        at += n;
    }
}

/* [O, C, kh, kw] -> [O, kh*kw, C] in the format it is stored in. */
static mp_tensor pack_weights(mp_ctx *c, mp_tensor w)
{
    const int64_t o = w.dim[0], ch = w.dim[1], taps = w.dim[2] * w.dim[3];
    mp_tensor packed = mp_new(c, w.store, 3, MP_DIMS(o, taps, ch));
    const mp_strided s = {3, {o, taps, ch}, {taps * ch, ch, 1}, {ch * taps, 1, taps}};

    if (taps == 1)
        return w;
    if (!mp_failed(c))
        move(c, &s, packed.data, w.data, mp_dtype_size(w.store));
    return packed;
}

static void conv_general(mp_ctx *c, const conv_geometry *v, mp_tensor w, mp_tensor b, int groups,
                         mp_tensor y)
{
    gemm_args p = {.c = c,
                   .load_a = load_patches,
                   .a = v,
                   .store = v->x.store,
                   .bias = b,
                   .y = y,
                   .groups = groups};

    p.b = pack_weights(c, w);
    p.m = mp_rows(y);
    p.n = w.dim[0] / groups;
    p.k = v->kh * v->kw * v->per_group;
    p.y_stride = w.dim[0];
    if (!mp_failed(c))
        gemm(&p);
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
    int64_t batch, band, bands, slices;
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
    depthwise_args p = {.c = c, .v = v, .w = w, .b = b, .y = y, .batch = v->x.dim[0]};
    const int64_t row_bytes = (v->w + 2 * v->padding) * DEPTHWISE_C * (int64_t)sizeof(float);

    p.band = (DEPTHWISE_BYTES / row_bytes - v->kh) / v->stride + 1;
    p.band = vec_min(p.band < 1 ? 1 : p.band, 16);
    p.bands = (v->out_h + p.band - 1) / p.band;
    p.slices = (v->c + DEPTHWISE_C - 1) / DEPTHWISE_C;
    const size_t bytes = (size_t)((v->kh * v->kw + 1) * DEPTHWISE_C) * sizeof(float) +
                         (size_t)(depthwise_rows(v, p.band) * row_bytes);
    if (mp_scratch_reserve(c, bytes))
        mp_parallel(c, p.batch * p.bands * p.slices, depthwise_task, &p);
}

static void conv2d(mp_ctx *c, mp_tensor x, mp_tensor w, mp_tensor b, mp_conv2d_opts o, mp_tensor y)
{
    const mp_mark mark = mp_open(c);
    const conv_geometry v = {x,        x.dim[1], x.dim[2], x.dim[3], y.dim[1], y.dim[2],
                             w.dim[2], w.dim[3], w.dim[1], o.stride, o.padding};

    if (mp_numel(y) == 0)
        return;
    if (o.groups == x.dim[3] && w.dim[0] == x.dim[3] && w.dim[2] * w.dim[3] <= DEPTHWISE_TAPS)
        depthwise(c, &v, w, b, y);
    else if (o.groups == 1 && w.dim[2] * w.dim[3] == 1 && o.stride == 1 && o.padding == 0)
        linear(c, x, mp_reshape(w, 2, MP_DIMS(w.dim[0], w.dim[1])), b, y);
    else
        conv_general(c, &v, w, b, o.groups, y);
    mp_drop(c, mark);
}
