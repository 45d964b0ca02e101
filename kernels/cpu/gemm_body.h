/* y = x W^T + bias.  Included by kernels/cpu/isa.c only.
 *
 * The smaller of x and W is packed, a slab of its rows at a time, into strips that all workers
 * share.  The other one is read where it lies; only where it must be converted, a chunk of k is, in
 * a worker's own scratch.  A task is a block of rows of the one and some strips of the other.  Its
 * sums are fp32 and stay in scratch until all of k is in them; then the bias is added and y is
 * rounded once.  All this follows from the sizes alone, so that no bit depends on the number of
 * threads. */

enum {
    GEMM_K = 256,         /* words of k in a chunk */
    GEMM_ROWS = 256,      /* rows in a task, and */
    GEMM_COLUMNS = 512,   /* columns of strips, at most */
    GEMM_TASKS = 16,      /* smaller tasks where there would be fewer */
    GEMM_SLAB = 1 << 20,  /* words of a slab */
    GEMM_ALONE = 1 << 18, /* products below which no other thread is woken */
    GEMM_PACKED = 32      /* products that packing a word is worth */
};

/* x or W: rows of k values, or what can be read as such. */
typedef struct gemm_operand {
    mp_tensor t;
    int64_t stride, group; /* values from row to row, and from group to group */
    int64_t rows;          /* of a group */
    /* Values [from, from + n) of a row as words; NULL: they lie there. */
    void (*read)(const void *source, bool pairs, int64_t group, int64_t row, int64_t from,
                 int64_t n, float *to);
    const void *source;
} gemm_operand;

/* PANEL_N neighbouring columns of the slab: rows row .. row + count - 1 of the packed operand. */
typedef struct gemm_strip {
    const float *at;
    int64_t row, count;
} gemm_strip;

/* A chunk of k: values [from, from + k) of the other operand's rows, `at` words into a strip. */
typedef struct gemm_chunk {
    int64_t from, k, at;
} gemm_chunk;

typedef struct gemm_args {
    mp_ctx *c;
    mp_tensor bias, y; /* y: rows of y_stride values, group g from column g * n on */
    int64_t n, k, groups, y_stride;
    bool pairs;               /* words of two bf16 */
    gemm_operand left, right; /* the one that is not packed, and the packed one */
    bool turned;              /* left is W: its rows are y's columns */
    float *slab;
    int64_t words;                                              /* of k, packed */
    int64_t row, end;                                           /* of right, in the slab */
    int64_t strips;                                             /* of a group in the slab */
    int64_t chunks, chunk_k;                                    /* and the most values in one */
    int64_t task_rows, task_strips, blocks_rows, blocks_strips; /* of a task; tasks of a group */
} gemm_args;

static int64_t gemm_tiles(int64_t extent, int64_t limit)
{
    return (extent + limit - 1) / limit;
}

/* Parts of nearly equal size, none larger than the limit: 260 rows become 2 x 130, not 256 + 4. */
static int64_t gemm_even(int64_t extent, int64_t limit)
{
    const int64_t tiles = gemm_tiles(extent, limit);

    return tiles ? gemm_tiles(extent, tiles) : 1;
}

/* Rows of a panel are a cache line longer than a chunk, so that they do not all fall into the same
 * sets of the cache. */
static int64_t gemm_ld(int64_t k)
{
    return panel_up(k, 16) + 16;
}

/* What a worker needs: rows of a chunk, the sums, rows of y and the bias. */
typedef struct gemm_room {
    float *left, *sums, *turned, *bias; /* [rows, ld], [strips][rows][PANEL_N], [PANEL_TURN, rows],
                                         * the longer of rows and columns */
    int64_t rows, ld;                   /* rows: of a task, filled up */
} gemm_room;

static gemm_room gemm_place(const gemm_args *p, float *at)
{
    gemm_room r = {.left = at, .rows = panel_up(p->task_rows, 16)};

    r.ld = gemm_ld(panel_k(p->pairs, p->chunk_k));
    r.sums = r.left + r.rows * r.ld;
    r.turned = r.sums + p->task_strips * r.rows * PANEL_N;
    r.bias = r.turned + PANEL_TURN * r.rows;
    return r;
}

static size_t gemm_bytes(const gemm_args *p)
{
    const int64_t rows = panel_up(p->task_rows, 16), columns = p->task_strips * PANEL_N;
    const int64_t ld = gemm_ld(panel_k(p->pairs, p->chunk_k));

    return (size_t)(rows * (ld + columns + PANEL_TURN + 1) + columns) * sizeof(float);
}

static const char *gemm_at(const gemm_operand *o, int64_t group, int64_t row, int64_t from)
{
    return (const char *)o->t.data +
           (size_t)(group * o->group + row * o->stride + from) * mp_dtype_size(o->t.store);
}

/* A chunk of n rows as words, ld apart. */
static void gemm_read(const gemm_args *p, const gemm_operand *o, int64_t group, int64_t row,
                      int64_t n, const gemm_chunk *c, float *to, int64_t ld)
{
    for (int64_t i = 0; i < n; i++)
        if (o->read)
            o->read(o->source, p->pairs, group, row + i, c->from, c->k, to + i * ld);
        else
            panel_read(p->pairs, o->t.store, gemm_at(o, group, row + i, c->from), to + i * ld, 0,
                       c->k);
    panel_fill_up(p->pairs, to, ld, n, c->k, panel_k(p->pairs, c->k));
}

/* The same of the left operand, *ld apart: in place or in `room`.  Rows a multiple of a page apart
 * would share too few sets of the cache. */
static const float *gemm_left(const gemm_args *p, const gemm_room *r, int64_t group, int64_t row,
                              int64_t n, const gemm_chunk *c, int64_t *ld)
{
    const gemm_operand *o = &p->left;
    const char *at = gemm_at(o, group, row, c->from);

    if (!o->read && panel_in_place(p->pairs, o->t.store, at, o->stride, c->k) &&
        n == panel_m(p->pairs, n) && (size_t)o->stride * mp_dtype_size(o->t.store) % 4096) {
        *ld = p->pairs ? o->stride / 2 : o->stride;
        return (const float *)at;
    }
    gemm_read(p, o, group, row, n, c, r->left, r->ld);
    *ld = r->ld;
    return r->left;
}

static gemm_strip gemm_strip_at(const gemm_args *p, int64_t group, int64_t index)
{
    const int64_t row = p->row + index * PANEL_N;

    return (gemm_strip){.at = p->slab + (group * p->strips + index) * p->words * PANEL_N,
                        .row = row,
                        .count = vec_min(PANEL_N, p->end - row)};
}

static gemm_chunk gemm_chunk_at(const gemm_args *p, int64_t index)
{
    const int64_t from = index * p->chunk_k;

    return (gemm_chunk){.from = from,
                        .k = vec_min(p->chunk_k, p->k - from),
                        .at = panel_k(p->pairs, from) * PANEL_N};
}

static int64_t gemm_columns(int64_t count)
{
    return count > PANEL_HALF ? PANEL_N : PANEL_HALF;
}

/* Adds the bias to n sums and rounds them into y from its at-th value on. */
static void gemm_commit(const mp_ctx *c, mp_tensor y, float *sums, const float *bias, int64_t at,
                        int64_t n)
{
    if (bias)
        for (int64_t j = 0; j < n; j++)
            sums[j] += bias[j];
    vec_narrow(y.store, c->e4m3, sums, (char *)y.data + (size_t)at * mp_dtype_size(y.store), n);
}

/* The bias of n columns, or NULL. */
static const float *gemm_bias(const gemm_args *p, const gemm_room *r, int64_t column, int64_t n)
{
    return mp_given(p->bias) ? vec_read(p->bias, column, n, r->bias) : NULL;
}

/* A block of rows of left and some strips. */
typedef struct gemm_tile {
    int64_t group, row, n, m; /* m: n filled up */
    int64_t strip, strips;
} gemm_tile;

static gemm_tile gemm_tile_of(const gemm_args *p, int64_t task)
{
    const int64_t blocks = p->blocks_rows * p->blocks_strips;
    gemm_tile t = {.group = task / blocks,
                   .row = task % blocks / p->blocks_strips * p->task_rows,
                   .strip = task % p->blocks_strips * p->task_strips};

    t.n = vec_min(p->task_rows, p->left.rows - t.row);
    t.m = panel_m(p->pairs, t.n);
    t.strips = vec_min(p->task_strips, p->strips - t.strip);
    return t;
}

/* What is multiplied after the s-th strip met chunk i. */
static panel_ahead gemm_ask(const gemm_args *p, const gemm_tile *t, int64_t s, int64_t i)
{
    const bool more = s + 1 < t->strips;
    const gemm_chunk c = gemm_chunk_at(p, more ? i : i + 1);
    const gemm_strip strip = gemm_strip_at(p, t->group, t->strip + (more ? s + 1 : 0));

    return more || i + 1 < p->chunks
               ? panel_ask(p->pairs, strip.at + c.at, t->m, panel_k(p->pairs, c.k))
               : (panel_ahead){0};
}

/* A strip of sums is a few whole columns of y's rows: n rows of x. */
static void gemm_store(const gemm_args *p, const gemm_room *r, const gemm_tile *t)
{
    const gemm_strip first = gemm_strip_at(p, t->group, t->strip),
                     last = gemm_strip_at(p, t->group, t->strip + t->strips - 1);
    const int64_t column = t->group * p->n + first.row, columns = last.row + last.count - first.row;
    const float *bias = gemm_bias(p, r, column, columns);

    for (int64_t i = 0; i < t->n; i++)
        for (int64_t j = 0; j < columns; j += PANEL_N)
            gemm_commit(p->c, p->y, r->sums + (j / PANEL_N * r->rows + i) * PANEL_N,
                        bias ? bias + j : NULL, (t->row + i) * p->y_stride + column + j,
                        vec_min(PANEL_N, columns - j));
}

/* A strip of sums is PANEL_N rows of y, turned; its columns are n rows of W. */
static void gemm_store_turned(const gemm_args *p, const gemm_room *r, const gemm_tile *t)
{
    const int64_t column = t->group * p->n + t->row;
    const float *bias = gemm_bias(p, r, column, t->n);

    for (int64_t s = 0; s < t->strips; s++) {
        const gemm_strip strip = gemm_strip_at(p, t->group, t->strip + s);
        for (int64_t i = 0; i < strip.count; i++) {
            if (i % PANEL_TURN == 0)
                panel_transpose(r->sums + s * r->rows * PANEL_N + i, PANEL_N,
                                panel_up(t->n, PANEL_TURN), PANEL_TURN, r->turned, r->rows);
            gemm_commit(p->c, p->y, r->turned + i % PANEL_TURN * r->rows, bias,
                        (strip.row + i) * p->y_stride + column, t->n);
        }
    }
}

static void gemm_task(void *arg, int64_t task, int worker)
{
    const gemm_args *p = arg;
    const gemm_tile t = gemm_tile_of(p, task);
    const gemm_room r = gemm_place(p, mp_scratch(p->c, worker));

    if (p->pairs)
        panel_open();
    for (int64_t i = 0; i < p->chunks; i++) {
        const gemm_chunk c = gemm_chunk_at(p, i);
        int64_t ld;
        const float *left = gemm_left(p, &r, t.group, t.row, t.n, &c, &ld);
        for (int64_t s = 0; s < t.strips; s++) {
            const gemm_strip strip = gemm_strip_at(p, t.group, t.strip + s);
            panel_ahead ahead = gemm_ask(p, &t, s, i);
            panel_strip(p->pairs, left, ld, strip.at + c.at, PANEL_N, t.m,
                        gemm_columns(strip.count), panel_k(p->pairs, c.k), i > 0,
                        r.sums + s * r.rows * PANEL_N, PANEL_N, &ahead);
        }
    }
    if (p->pairs)
        panel_close();
    (p->turned ? gemm_store_turned : gemm_store)(p, &r, &t);
}

/* Large enough to use each chunk well, and enough of them to share out. */
static void gemm_cut(gemm_args *p)
{
    p->task_strips = gemm_even(p->strips, GEMM_COLUMNS / PANEL_N);
    p->blocks_strips = gemm_tiles(p->strips, p->task_strips);
    p->task_rows = GEMM_ROWS;
    while (p->task_rows > GEMM_ROWS / 4 &&
           p->groups * p->blocks_strips * gemm_tiles(p->left.rows, p->task_rows) < GEMM_TASKS)
        p->task_rows /= 2;
    p->task_rows = panel_up(gemm_even(p->left.rows, p->task_rows), panel_full_m(p->pairs));
    p->blocks_rows = gemm_tiles(p->left.rows, p->task_rows);
}

static void gemm_share(mp_ctx *c, int64_t products, int64_t tasks, mp_task_fn *fn, void *arg)
{
    if (products > GEMM_ALONE)
        mp_parallel(c, tasks, fn, arg);
    else
        for (int64_t i = 0; i < tasks; i++)
            fn(arg, i, 0);
}

/* Multiplies the slab. */
static void gemm_slab(gemm_args *p)
{
    gemm_cut(p);
    if (mp_scratch_reserve(p->c, gemm_bytes(p)))
        gemm_share(p->c, p->groups * p->strips * PANEL_N * p->left.rows * p->k,
                   p->groups * p->blocks_rows * p->blocks_strips, gemm_task, p);
}

/* bf16 operands that only a second attempt calls fp32 (policy.h) are multiplied as fp32. */
static bool gemm_pairs(mp_tensor x, mp_tensor w, mp_tensor y)
{
    return PANEL_PAIRS && y.dtype == MP_BF16 && panel_is_bf16(x.store) && panel_is_bf16(w.store);
}

/* k = 0 is an empty sum: y is the bias. */
static void gemm_empty_sum(const gemm_args *p)
{
    float zero[VEC_CHUNK] = {0};

    for (int64_t i = 0; i < mp_numel(p->y); i++) {
        const int64_t column = i % p->y_stride;
        float bias = 0.0f;
        const float *v = mp_given(p->bias) ? vec_read(p->bias, column, 1, &bias) : zero;
        vec_narrow(p->y.store, p->c->e4m3, v,
                   (char *)p->y.data + (size_t)i * mp_dtype_size(p->y.store), 1);
    }
}

static void gemm_pack_task(void *arg, int64_t task, int worker)
{
    const gemm_args *p = arg;
    const gemm_operand *o = &p->right;
    const int64_t group = task / p->strips, index = task % p->strips;
    const gemm_strip s = gemm_strip_at(p, group, index);
    const int64_t ld = gemm_ld(panel_k(p->pairs, p->chunk_k));
    float *rows = mp_scratch(p->c, worker), *to = p->slab + task * p->words * PANEL_N;

    for (int64_t i = 0; i < p->chunks; i++) {
        const gemm_chunk c = gemm_chunk_at(p, i);
        const int64_t words = panel_k(p->pairs, c.k);
        if (!o->read) {
            panel_turn_rows(p->pairs, o->t.store, gemm_at(o, group, s.row, c.from), o->stride,
                            s.count, PANEL_N, c.k, rows, ld, to + c.at, PANEL_N);
            continue;
        }
        gemm_read(p, o, group, s.row, s.count, &c, rows, ld);
        panel_clear(rows, ld, s.count, PANEL_N, words);
        panel_transpose(rows, ld, PANEL_N, words, to + c.at, PANEL_N);
    }
}

/* Chunks of k, a multiple of what pairs go by, but for the last. */
static void gemm_cut_k(gemm_args *p)
{
    p->chunk_k = gemm_even(p->k, p->pairs ? 2 * GEMM_K : GEMM_K);
    if (p->pairs)
        p->chunk_k = panel_up(p->chunk_k, 2 * PANEL_PAIR_DEPTH);
    p->chunks = gemm_tiles(p->k, p->chunk_k);
}

/* Packing reads and writes each word; turned sums are read and written once more. */
static bool gemm_packs_x(int64_t m, int64_t n, int64_t k)
{
    return m * (k + n) < n * k;
}

/* y and the rest of p are set; x and w become left and right. */
static void gemm(gemm_args p, gemm_operand x, gemm_operand w)
{
    p.turned = gemm_packs_x(x.rows, w.rows, p.k);
    p.left = p.turned ? w : x;
    p.right = p.turned ? x : w;
    p.words = panel_k(p.pairs, p.k);
    gemm_cut_k(&p);

    const int64_t row_words = p.groups * p.words, fit = GEMM_SLAB / row_words;
    const int64_t slab =
        panel_up(gemm_even(p.right.rows, fit < GEMM_ROWS ? GEMM_ROWS : fit), PANEL_N);
    p.slab = mp_scratch_shared(p.c, MP_SHARED_SLAB, (size_t)(slab * row_words) * sizeof(float));
    if (!p.slab ||
        !mp_scratch_reserve(p.c, (size_t)(PANEL_N * gemm_ld(panel_k(p.pairs, p.chunk_k))) *
                                     sizeof(float)))
        return;
    for (; p.row < p.right.rows && !mp_failed(p.c); p.row = p.end) {
        p.end = vec_min(p.right.rows, p.row + slab);
        p.strips = gemm_tiles(p.end - p.row, PANEL_N);
        gemm_share(p.c, p.strips * PANEL_N * row_words * GEMM_PACKED, p.groups * p.strips,
                   gemm_pack_task, &p);
        gemm_slab(&p);
    }
}

/* A handful of rows is no matrix product but a stream over the weights: each weight is widened once
 * and meets all rows. */
enum { GEMV_ROWS = 4, GEMV_TASK = 32 };

typedef struct gemv_args {
    mp_ctx *c;
    const float *x; /* [rows, k] */
    mp_tensor w, b, y;
    int64_t rows, n, k;
} gemv_args;

/* A register's worth of the VEC_LANES sums that vec_lane_sum adds up. */
#if defined(__AVX512F__)
enum { GEMV_WIDTH = 16 };
#elif defined(__AVX2__)
enum { GEMV_WIDTH = 8 };
#else
enum { GEMV_WIDTH = 4 };
#endif
enum { GEMV_PARTS = VEC_LANES / GEMV_WIDTH };
typedef float gemv_vec __attribute__((vector_size(GEMV_WIDTH * sizeof(float)), aligned(4)));

typedef union gemv_lanes {
    gemv_vec part[GEMV_PARTS];
    float at[VEC_LANES];
} gemv_lanes;

/* n weights meet `rows` rows of x, k values apart; rows is a constant, so that the sums stay in
 * registers. */
static inline __attribute__((always_inline)) void gemv_add(int rows, const float *w, const float *x,
                                                           int64_t k, int64_t n, gemv_lanes *lane)
{
    gemv_lanes sum[GEMV_ROWS];
    int64_t j = 0;

    for (int r = 0; r < rows; r++)
        sum[r] = lane[r];
    for (; j + VEC_LANES <= n; j += VEC_LANES)
#pragma GCC unroll 4
        for (int i = 0; i < GEMV_PARTS; i++) {
            const gemv_vec v = *(const gemv_vec *)(w + j + i * GEMV_WIDTH);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++)
                sum[r].part[i] += v * *(const gemv_vec *)(x + r * k + j + i * GEMV_WIDTH);
        }
    for (int r = 0; r < rows; r++)
        lane[r] = sum[r];
    for (int l = 0; j < n; j++, l++)
        for (int r = 0; r < rows; r++)
            lane[r].at[l] += w[j] * x[r * k + j];
}

static void gemv_chunk(const gemv_args *p, const float *w, int64_t k0, int64_t n, gemv_lanes *lane)
{
    const float *x = p->x + k0;

    switch (p->rows) {
    case 1:
        gemv_add(1, w, x, p->k, n, lane);
        break;
    case 2:
        gemv_add(2, w, x, p->k, n, lane);
        break;
    case 3:
        gemv_add(3, w, x, p->k, n, lane);
        break;
    default:
        gemv_add(GEMV_ROWS, w, x, p->k, n, lane);
    }
}

/* Asks for the weights that lie a little further on: between reading and multiplying, the CPU's own
 * prefetching falls behind. */
static void gemv_ahead(const gemv_args *p, int64_t at, int64_t n)
{
    enum { AHEAD = 4096, LINE = 64 };
    const size_t size = mp_dtype_size(p->w.store);
    const char *from = (const char *)p->w.data + (size_t)at * size + AHEAD;

    for (size_t i = 0; i < (size_t)n * size; i += LINE)
        __builtin_prefetch(from + i);
}

static void gemv_task(void *arg, int64_t task, int worker)
{
    const gemv_args *p = arg;
    float chunk[VEC_CHUNK], bias;
    const int64_t end = vec_min(p->n, (task + 1) * GEMV_TASK);

    (void)worker;
    for (int64_t o = task * GEMV_TASK; o < end; o++) {
        gemv_lanes lane[GEMV_ROWS] = {{{{0}}}};
        for (int64_t k0 = 0; k0 < p->k; k0 += VEC_CHUNK) {
            const int64_t n = vec_min(VEC_CHUNK, p->k - k0);
            gemv_ahead(p, o * p->k + k0, n);
            const float *w = vec_read(p->w, o * p->k + k0, n, chunk);
            gemv_chunk(p, w, k0, n, lane);
        }
        for (int64_t r = 0; r < p->rows; r++) {
            float s = vec_lane_sum(lane[r].at);
            if (mp_given(p->b))
                s += *vec_read(p->b, o, 1, &bias);
            vec_narrow(p->y.store, p->c->e4m3, &s,
                       (char *)p->y.data + (size_t)(r * p->n + o) * mp_dtype_size(p->y.store), 1);
        }
    }
}

static void gemv(mp_ctx *c, mp_tensor x, mp_tensor w, mp_tensor b, mp_tensor y)
{
    const mp_mark mark = mp_open(c);
    const int64_t k = mp_dim(x, -1), rows = mp_rows(x);
    const mp_tensor wide = x.store == MP_F32 ? x : mp_new(c, MP_F32, 1, MP_DIMS(rows * k));
    gemv_args p = {c, wide.data, w, b, y, rows, w.dim[0], k};

    if (!mp_failed(c)) {
        if (x.store != MP_F32)
            vec_widen(x.store, x.data, wide.data, rows * k);
        mp_parallel(c, vec_tasks(p.n, GEMV_TASK), gemv_task, &p);
    }
    mp_drop(c, mark);
}

static void linear(mp_ctx *c, mp_tensor x, mp_tensor w, mp_tensor b, mp_tensor y)
{
    const int64_t rows = mp_rows(x), k = mp_dim(x, -1), n = w.dim[0];
    const gemm_args p = {.c = c,
                         .bias = b,
                         .y = y,
                         .n = n,
                         .k = k,
                         .groups = 1,
                         .y_stride = n,
                         .pairs = gemm_pairs(x, w, y)};

    if (mp_numel(y) == 0)
        return;
    if (k == 0)
        gemm_empty_sum(&p);
    else if (rows <= GEMV_ROWS)
        gemv(c, x, w, b, y);
    else
        gemm(p, (gemm_operand){.t = x, .stride = k, .rows = rows},
             (gemm_operand){.t = w, .stride = k, .rows = n});
}

enum { MATMUL_M = 256, MATMUL_N = 256 };

typedef struct matmul_args {
    mp_ctx *c;
    mp_tensor a, b, y;
    int64_t m, n, k, tile_m, tile_n, tiles_m, tiles_n, chunk;
} matmul_args;

/* Floats of scratch: both panels and the tile. */
static size_t matmul_scratch(const matmul_args *p)
{
    return (size_t)(p->tile_m * p->chunk + p->chunk * p->tile_n + p->tile_m * p->tile_n) *
           sizeof(float);
}

/* Batched a [M, K] b [K, N], always in floats: the second operand comes as it lies, k rows of n. */
static void matmul_task(void *arg, int64_t task, int worker)
{
    const matmul_args *p = arg;
    const int64_t tiles = p->tiles_m * p->tiles_n, batch = task / tiles;
    const int64_t m0 = task % tiles / p->tiles_n * p->tile_m, n0 = task % p->tiles_n * p->tile_n;
    const int64_t m = vec_min(p->tile_m, p->m - m0), n = vec_min(p->tile_n, p->n - n0);
    const int64_t at = (batch * p->m + m0) * p->n + n0;
    const size_t a_size = mp_dtype_size(p->a.store), b_size = mp_dtype_size(p->b.store);
    float *a = mp_scratch(p->c, worker), *b = a + p->tile_m * p->chunk;
    float *tile = b + p->chunk * p->tile_n;

    for (int64_t k0 = 0; k0 < p->k; k0 += p->chunk) {
        const int64_t k = vec_min(p->chunk, p->k - k0);
        const int64_t a_at = (batch * p->m + m0) * p->k + k0;
        const int64_t b_at = (batch * p->k + k0) * p->n + n0;
        for (int64_t i = 0; i < m; i++)
            vec_widen(p->a.store, (const char *)p->a.data + (size_t)(a_at + i * p->k) * a_size,
                      a + i * k, k);
        panel_pack_rows(false, p->b.store, (const char *)p->b.data + (size_t)b_at * b_size, p->n, k,
                        n, NULL, b);
        panel_product(false, a, k, b, panel_m(false, m), panel_n(n), k, k0 > 0, tile, p->tile_n);
    }
    for (int64_t i = 0; i < m; i++)
        vec_narrow(p->y.store, p->c->e4m3, tile + i * p->tile_n,
                   (char *)p->y.data + (size_t)(at + i * p->n) * mp_dtype_size(p->y.store), n);
}

static void matmul(mp_ctx *c, mp_tensor a, mp_tensor b, mp_tensor y)
{
    matmul_args p = {.c = c, .a = a, .b = b, .y = y, .m = mp_dim(a, -2), .n = mp_dim(b, -1)};

    p.k = mp_dim(a, -1);
    if (mp_numel(y) == 0)
        return;
    if (p.k == 0) { /* empty sums; zero has the same bits in every dtype */
        memset(y.data, 0, mp_nbytes(y));
        return;
    }
    p.tile_m = panel_m(false, gemm_even(p.m, MATMUL_M));
    p.tile_n = panel_n(gemm_even(p.n, MATMUL_N));
    p.chunk = gemm_even(p.k, GEMM_K);
    p.tiles_m = gemm_tiles(p.m, p.tile_m);
    p.tiles_n = gemm_tiles(p.n, p.tile_n);
    const int64_t batch = mp_numel(y) / (p.m * p.n);
    if (mp_scratch_reserve(c, matmul_scratch(&p)))
        mp_parallel(c, batch * p.tiles_m * p.tiles_n, matmul_task, &p);
}
