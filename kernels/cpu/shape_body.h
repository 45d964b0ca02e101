/* Movement, gathering and resampling.  Included by kernels/cpu/isa.c only. */

typedef struct move_args {
    const mp_strided *s;
    char *dst;
    const char *src;
    size_t size;
    strided_cut cut;
} move_args;

static void move_run(const void *arg, int64_t row, int64_t from, int64_t to)
{
    const move_args *m = arg;
    const int last = m->s->rank - 1;
    const int64_t n = to - from, sd = m->s->a[last], ss = m->s->b[last];
    int64_t dst_at, src_at;

    strided_row(m->s, row, &dst_at, &src_at);
    char *dst = m->dst + (size_t)(dst_at + from * sd) * m->size;
    const char *src = m->src + (size_t)(src_at + from * ss) * m->size;
    if (sd == 1 && ss == 1) {
        memcpy(dst, src, (size_t)n * m->size);
    } else if (m->size == 4) {
        for (int64_t i = 0; i < n; i++)
            ((uint32_t *)dst)[i * sd] = ((const uint32_t *)src)[i * ss];
    } else if (m->size == 2) {
        for (int64_t i = 0; i < n; i++)
            ((uint16_t *)dst)[i * sd] = ((const uint16_t *)src)[i * ss];
    } else {
        for (int64_t i = 0; i < n; i++)
            dst[i * sd] = src[i * ss];
    }
}

static void move_task(void *arg, int64_t task, int worker)
{
    const move_args *m = arg;

    (void)worker;
    each_cut_run(&m->cut, task, m, move_run);
}

/* Elements at each side of a tile that turns within the first cache. */
enum { MOVE_TILE = 32 };

typedef uint8_t turn_bytes __attribute__((vector_size(16)));
typedef uint16_t turn_halves __attribute__((vector_size(16)));
typedef uint32_t turn_words __attribute__((vector_size(16)));

/* The lower or the upper halves of a and b, element by element in turns. */
REG turn_bytes turn_zip(size_t size, bool upper, turn_bytes a, turn_bytes b)
{
    static const turn_words words[] = {{0, 4, 1, 5}, {2, 6, 3, 7}};
    static const turn_halves halves[] = {{0, 8, 1, 9, 2, 10, 3, 11}, {4, 12, 5, 13, 6, 14, 7, 15}};
    static const turn_bytes bytes[] = {
        {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23},
        {8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31}};

    if (size == 4)
        return (turn_bytes)__builtin_shuffle((turn_words)a, (turn_words)b, words[upper]);
    if (size == 2)
        return (turn_bytes)__builtin_shuffle((turn_halves)a, (turn_halves)b, halves[upper]);
    return __builtin_shuffle(a, b, bytes[upper]);
}

/* A square of n = 16 / size elements a side, dst[i][j] = src[j][i], rows `to` and `from` elements
 * apart.  Zipping row k with row k + n/2 turns the bits of (row, column) by one: log2 n times make
 * the one the other. */
REG void turn_square(char *dst, int64_t to, const char *src, int64_t from, size_t size)
{
    const int n = (int)(16 / size);
    turn_bytes row[16], zipped[16];

#pragma GCC unroll 16
    for (int k = 0; k < n; k++)
        memcpy(&row[k], src + (size_t)(k * from) * size, sizeof row[k]);
#pragma GCC unroll 4
    for (int turns = 1; turns < n; turns *= 2) {
#pragma GCC unroll 8
        for (int k = 0; k < n / 2; k++) {
            zipped[2 * k] = turn_zip(size, false, row[k], row[k + n / 2]);
            zipped[2 * k + 1] = turn_zip(size, true, row[k], row[k + n / 2]);
        }
#pragma GCC unroll 16
        for (int k = 0; k < n; k++)
            row[k] = zipped[k];
    }
#pragma GCC unroll 16
    for (int k = 0; k < n; k++)
        memcpy(dst + (size_t)(k * to) * size, &row[k], sizeof row[k]);
}

/* dst[i][j] = src[j][i]: rows of n elements, `to` elements apart, from n rows `from` apart. */
REG void turn_tile(char *dst, int64_t to, const char *src, int64_t from, int64_t rows, int64_t n,
                   size_t size)
{
    const int64_t side = (int64_t)(16 / size), i_end = rows / side * side, j_end = n / side * side;

    for (int64_t i = 0; i < i_end; i += side)
        for (int64_t j = 0; j < j_end; j += side)
            turn_square(dst + (size_t)(i * to + j) * size, to, src + (size_t)(j * from + i) * size,
                        from, size);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = i < i_end ? j_end : 0; j < n; j++)
            memcpy(dst + (size_t)(i * to + j) * size, src + (size_t)(j * from + i) * size, size);
}

/* Bytes of a result from which on it goes around the caches: its columns would fall into few sets
 * of them, be read before they are written, and be gone before anybody reads them. */
enum { MOVE_FAR = 1 << 20, MOVE_LINE = 64 };

#if defined(__SSE2__)

static inline void turn_stream(char *dst, const char *line)
{
    for (int i = 0; i < MOVE_LINE; i += 16)
        _mm_stream_si128((void *)(dst + i), _mm_load_si128((const void *)(line + i)));
}

/* What went around the caches is there for every thread. */
static inline void turn_flush(void)
{
    _mm_sfence();
}

#else

static inline void turn_stream(char *dst, const char *line)
{
    memcpy(dst, line, MOVE_LINE);
}

static inline void turn_flush(void)
{
}

#endif

/* As turn_tile, where rows of dst are whole lines of the cache. */
REG void turn_lines(char *dst, int64_t to, const char *src, int64_t from, int64_t rows, size_t size)
{
    const int64_t side = (int64_t)(16 / size), line = (int64_t)(MOVE_LINE / size);
    _Alignas(MOVE_LINE) char lines[16 * MOVE_LINE];

    for (int64_t i = 0; i < rows; i += side) {
        for (int64_t j = 0; j < line; j += side)
            turn_square(lines + (size_t)j * size, line, src + (size_t)(j * from + i) * size, from,
                        size);
        for (int64_t k = 0; k < side; k++)
            turn_stream(dst + (size_t)((i + k) * to) * size, lines + k * MOVE_LINE);
    }
}

/* rows rows of dst, n elements each. */
REG void turn_rows(char *dst, int64_t to, const char *src, int64_t from, int64_t rows, int64_t n,
                   bool far, size_t size)
{
    const int64_t line = (int64_t)(MOVE_LINE / size);
    const bool whole = far && rows % (int64_t)(16 / size) == 0 && to % line == 0 &&
                       (uintptr_t)dst % MOVE_LINE == 0;
    int64_t j = 0;

    for (; whole && j + line <= n; j += line)
        turn_lines(dst + (size_t)j * size, to, src + (size_t)(j * from) * size, from, rows, size);
    for (; j < n; j += MOVE_TILE)
        turn_tile(dst + (size_t)j * size, to, src + (size_t)(j * from) * size, from, rows,
                  vec_min(MOVE_TILE, n - j), size);
    if (whole)
        turn_flush();
}

/* MOVE_TILE rows of dst out of a plane of the last two dimensions, the first of which is the
 * innermost of src. */
static void turn_task(void *arg, int64_t task, int worker)
{
    const move_args *m = arg;
    const mp_strided *s = m->s;
    const int last = s->rank - 1;
    const int64_t height = s->dim[last - 1], bands = vec_tasks(height, MOVE_TILE);
    const int64_t first = task % bands * MOVE_TILE, rows = vec_min(MOVE_TILE, height - first);
    const int64_t to = s->a[last - 1], from = s->b[last];
    int64_t dst_at, src_at;

    (void)worker;
    strided_row(s, task / bands * height + first, &dst_at, &src_at);
    char *dst = m->dst + (size_t)dst_at * m->size;
    const char *src = m->src + (size_t)src_at * m->size;
    const bool far = m->cut.rows * m->cut.row * (int64_t)m->size >= MOVE_FAR;
    if (m->size == 4)
        turn_rows(dst, to, src, from, rows, s->dim[last], far, 4);
    else if (m->size == 2)
        turn_rows(dst, to, src, from, rows, s->dim[last], far, 2);
    else
        turn_rows(dst, to, src, from, rows, s->dim[last], far, 1);
}

/* Whether s turns large planes: the innermost dimension of dst is not that of src.  The latter then
 * moves beside the former in `turned`: dimensions may be walked through in any order. */
static bool turns_planes(const mp_strided *s, mp_strided *turned)
{
    const int last = s->rank - 1;
    int inner = last - 1;

    while (inner >= 0 && (s->b[inner] != 1 || s->dim[inner] < MOVE_TILE))
        inner--;
    if (inner < 0 || s->a[last] != 1 || s->b[last] == 1 || s->dim[last] < MOVE_TILE)
        return false;
    *turned = *s;
    for (int d = inner; d < last; d++) {
        const int from = d + 1 < last ? d + 1 : inner;
        turned->dim[d] = s->dim[from];
        turned->a[d] = s->a[from];
        turned->b[d] = s->b[from];
    }
    return true;
}

static void move(mp_ctx *c, const mp_strided *s, void *dst, const void *src, size_t size)
{
    move_args m = {s, dst, src, size, cut_strided(s)};
    mp_strided turned;

    if (turns_planes(s, &turned)) {
        const int64_t height = turned.dim[s->rank - 2];
        m.s = &turned;
        mp_parallel(c, m.cut.rows / height * vec_tasks(height, MOVE_TILE), turn_task, &m);
    } else {
        mp_parallel(c, cut_tasks(&m.cut), move_task, &m);
    }
}

/* Rows in w's own format are copied; a table that is stored narrower widens, exactly. */
static void embedding(mp_ctx *c, const int32_t *ids, int64_t n, mp_tensor w, mp_tensor y)
{
    const int64_t d = w.dim[1];
    const size_t row = (size_t)d * mp_dtype_size(w.store);
    float chunk[VEC_CHUNK];

    for (int64_t r = 0; r < n && w.store == y.store; r++)
        memcpy((char *)y.data + (size_t)r * row, (const char *)w.data + (size_t)ids[r] * row, row);
    for (int64_t r = 0; r < n && w.store != y.store; r++)
        for (int64_t i = 0; i < d; i += VEC_CHUNK) {
            const int64_t m = vec_min(VEC_CHUNK, d - i);
            vec_widen(w.store,
                      (const char *)w.data + (size_t)(ids[r] * d + i) * mp_dtype_size(w.store),
                      chunk, m);
            vec_narrow(y.store, c->e4m3, chunk,
                       (char *)y.data + (size_t)(r * d + i) * mp_dtype_size(y.store), m);
        }
}

typedef struct mean_args {
    mp_ctx *c;
    mp_tensor x, y;
    int group;
    int64_t n; /* of y */
} mean_args;

static void mean_task(void *arg, int64_t task, int worker)
{
    const mean_args *p = arg;
    float *in = mp_scratch(p->c, worker), out[VEC_CHUNK];
    const int64_t end = vec_min(p->n, (task + 1) * VEC_TASK);

    for (int64_t i = task * VEC_TASK; i < end; i += VEC_CHUNK) {
        const int64_t n = vec_min(VEC_CHUNK, end - i);
        const float *x = vec_read(p->x, i * p->group, n * p->group, in);
        float *y = vec_slot(p->y, i, out);
        for (int64_t j = 0; j < n; j++) {
            float s = 0.0f;
            for (int g = 0; g < p->group; g++)
                s += x[j * p->group + g];
            y[j] = s / (float)p->group;
        }
        vec_commit(p->c->e4m3, p->y, i, y, n);
    }
}

static void mean_channels(mp_ctx *c, mp_tensor x, int group, mp_tensor y)
{
    mean_args p = {c, x, y, group, mp_numel(y)};

    if (mp_scratch_reserve(c, (size_t)VEC_CHUNK * (size_t)group * sizeof(float)))
        mp_parallel(c, vec_tasks(p.n, VEC_TASK), mean_task, &p);
}

/* Source rows and weight of one output line, align_corners=False (area_pixel_compute_source_index
 * of torch's UpSample.h): (i + 0.5) * in / out - 0.5, clamped at 0.  Fused as torch's compiler
 * does, here and in the sum of the four products below: the results are torch's bits. */
typedef struct resize_tap {
    int64_t low, high;
    float weight; /* of high */
} resize_tap;

static inline resize_tap resize_tap_at(int64_t i, int64_t in, int64_t out)
{
    const float scale = (float)in / (float)out;
    float at = fmaf(scale, (float)i + 0.5f, -0.5f);

    at = at < 0.0f ? 0.0f : at;
    int64_t low = (int64_t)at;
    low = low > in - 1 ? in - 1 : low;
    return (resize_tap){low, low < in - 1 ? low + 1 : low, at - (float)low};
}

typedef struct resize_args {
    mp_ctx *c;
    mp_tensor x, y;
    mp_dtype common;
} resize_args;

/* The channels of one pixel of the result: four pixels with their weights. */
typedef struct resize_pixel {
    mp_e4m3_overflow mode;
    mp_tensor from[4], y; /* top left, top right, bottom left, bottom right */
    float weight[4];
} resize_pixel;

REG void resize_step(const void *args, int op, mp_dtype d, int64_t at, int64_t n)
{
    const resize_pixel *p = args;
    reg sum = reg_fill(p->weight[1]) * reg_read(d, p->from[1], at, n);

    (void)op;
    sum = reg_fmadd(reg_fill(p->weight[0]), reg_read(d, p->from[0], at, n), sum);
    sum = reg_fmadd(reg_fill(p->weight[2]), reg_read(d, p->from[2], at, n), sum);
    sum = reg_fmadd(reg_fill(p->weight[3]), reg_read(d, p->from[3], at, n), sum);
    reg_write(d, p->mode, sum, p->y, at, n);
}

static void resize_row(void *arg, int64_t row, int worker)
{
    const resize_args *p = arg;
    const int64_t ch = p->x.dim[3], w = p->x.dim[2], h = p->x.dim[1];
    const int64_t batch = row / p->y.dim[1];
    const resize_tap v = resize_tap_at(row % p->y.dim[1], h, p->y.dim[1]);
    const int64_t top = (batch * h + v.low) * w, bottom = (batch * h + v.high) * w;

    (void)worker;
    for (int64_t j = 0; j < p->y.dim[2]; j++) {
        const resize_tap u = resize_tap_at(j, w, p->y.dim[2]);
        const resize_pixel pixel = {
            .mode = p->c->e4m3,
            .from = {reg_from(p->x, (top + u.low) * ch), reg_from(p->x, (top + u.high) * ch),
                     reg_from(p->x, (bottom + u.low) * ch), reg_from(p->x, (bottom + u.high) * ch)},
            .weight = {(1.0f - v.weight) * (1.0f - u.weight), (1.0f - v.weight) * u.weight,
                       v.weight * (1.0f - u.weight), v.weight * u.weight},
            .y = reg_from(p->y, (row * p->y.dim[2] + j) * ch)};
        reg_run(resize_step, &pixel, 0, p->common, REG_LANES, 0, ch);
    }
}

static void resize_bilinear(mp_ctx *c, mp_tensor x, mp_tensor y)
{
    resize_args p = {c, x, y, reg_common(reg_common(x.store, x), y)};

    mp_parallel(c, y.dim[0] * y.dim[1], resize_row, &p);
}

static void measure(mp_ctx *c, mp_tensor x, mp_range *out)
{
    const int64_t n = mp_numel(x);
    float chunk[VEC_CHUNK];

    (void)c;
    for (int64_t i = 0; i < n; i += VEC_CHUNK) {
        const int64_t m = vec_min(VEC_CHUNK, n - i);
        const float *v = vec_read(x, i, m, chunk);
        for (int64_t j = 0; j < m; j++) {
            const float a = fabsf(v[j]);
            out->nan += a != a;
            out->inf += a > FLT_MAX;
            if (a <= FLT_MAX && a > out->max_abs)
                out->max_abs = a;
        }
    }
}
