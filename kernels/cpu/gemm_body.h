/* y = A B^T + bias in tiles.  Included by kernels/cpu/isa.c only.
 *
 * A tile of y is one task: its operands arrive in chunks of k as panels (panel_body.h), widened on
 * the way where they are narrower; the tile itself is fp32, and the epilogue adds the bias and
 * rounds once.  The tiling follows from the sizes alone, so that no bit depends on the number of
 * threads. */

enum { GEMM_M = 256, GEMM_TALL_M = 512, GEMM_N = 256, GEMM_K = 256, GEMM_TASKS = 8 };

typedef struct gemm_args gemm_args;

struct gemm_args {
    mp_ctx *c;
    int64_t m, n, k; /* of one group */
    int64_t groups;
    /* Rows [m0, m0+m) of A, columns [k0, k0+k), of group g, into rows of the panel. */
    void (*load_a)(const gemm_args *p, int64_t g, int64_t m0, int64_t m, int64_t k0, int64_t k,
                   float *panel, int64_t lda);
    const void *a;     /* the loader's own data */
    mp_dtype store;    /* of A */
    mp_tensor b;       /* [groups*n, k] row after row */
    mp_tensor bias, y; /* y: rows of y_stride, group g at column g*n */
    int64_t y_stride;
    bool pairs;                                      /* panels of bf16 */
    int64_t tile_m, tile_n, tiles_m, tiles_n, chunk; /* chunk: of k */
};

/* Where a worker's panels lie.  Rows are a cache line longer than a chunk, so that they do not all
 * fall into the same sets of the cache. */
typedef struct gemm_panels {
    float *a, *rows, *b, *tile, *bias; /* [tile_m, ld], [PANEL_N, ld], packed, [tile_m, n], [n] */
    int64_t ld;
} gemm_panels;

static int64_t gemm_ld(int64_t k)
{
    return panel_up(k, 16) + 16;
}

static gemm_panels gemm_place(const gemm_args *p, float *at)
{
    const int64_t k = panel_k(p->pairs, p->chunk);
    gemm_panels s = {.a = at, .ld = gemm_ld(k)};

    s.rows = s.a + p->tile_m * s.ld;
    s.b = s.rows + PANEL_N * s.ld;
    s.tile = s.b + p->tile_n * k;
    s.bias = s.tile + p->tile_m * p->tile_n;
    return s;
}

static size_t gemm_scratch(const gemm_args *p)
{
    const int64_t k = panel_k(p->pairs, p->chunk), ld = gemm_ld(k);

    return (size_t)((p->tile_m + PANEL_N) * ld + p->tile_n * k + (p->tile_m + 1) * p->tile_n) *
           sizeof(float);
}

/* Adds the bias to a finished tile and rounds it into y. */
static void gemm_store(const gemm_args *p, const gemm_panels *s, int64_t m0, int64_t m,
                       int64_t column, int64_t n)
{
    const float *bias = mp_given(p->bias) ? vec_read(p->bias, column, n, s->bias) : NULL;
    const size_t size = mp_dtype_size(p->y.store);

    for (int64_t i = 0; i < m; i++) {
        float *row = s->tile + i * panel_n(n);
        if (bias)
            for (int64_t j = 0; j < n; j++)
                row[j] += bias[j];
        vec_narrow(p->y.store, p->c->e4m3, row,
                   (char *)p->y.data + (size_t)((m0 + i) * p->y_stride + column) * size, n);
    }
}

static void gemm_task(void *arg, int64_t task, int worker)
{
    const gemm_args *p = arg;
    const int64_t per_group = p->tiles_m * p->tiles_n;
    const int64_t g = task / per_group, within = task % per_group;
    const int64_t m0 = within / p->tiles_n * p->tile_m, n0 = within % p->tiles_n * p->tile_n;
    const int64_t m = vec_min(p->tile_m, p->m - m0), n = vec_min(p->tile_n, p->n - n0);
    const int64_t column = g * p->n + n0;
    const gemm_panels s = gemm_place(p, mp_scratch(p->c, worker));
    const size_t size = mp_dtype_size(p->b.store);
    const char *b = (const char *)p->b.data + (size_t)(column * p->k) * size;

    for (int64_t k0 = 0; k0 < p->k; k0 += p->chunk) {
        const int64_t k = vec_min(p->chunk, p->k - k0), words = panel_k(p->pairs, k);
        p->load_a(p, g, m0, m, k0, k, s.a, s.ld);
        panel_fill_up(p->pairs, s.a, s.ld, m, k, words);
        panel_pack_columns(p->pairs, p->b.store, b + (size_t)k0 * size, p->k, n, k, s.rows, s.ld,
                           s.b);
        panel_product(p->pairs, s.a, s.ld, s.b, panel_m(p->pairs, m), panel_n(n), words, k0 > 0,
                      s.tile, panel_n(n));
    }
    gemm_store(p, &s, m0, m, column, n);
}

static int64_t gemm_tiles(int64_t extent, int64_t limit)
{
    return (extent + limit - 1) / limit;
}

/* Tiles of nearly equal size, none larger than the limit: 260 rows become 2 x 130, not 256 + 4. */
static int64_t gemm_even(int64_t extent, int64_t limit)
{
    const int64_t tiles = gemm_tiles(extent, limit);

    return tiles ? gemm_tiles(extent, tiles) : 1;
}

/* B is packed anew for each tile: tall ones are better where enough of them are left to share out.
 */
static void gemm_tile(gemm_args *p)
{
    const int64_t tall = gemm_tiles(p->m, GEMM_TALL_M) * gemm_tiles(p->n, GEMM_N) * p->groups;

    /* bf16 operands that only a second attempt calls fp32 (policy.h) are multiplied as fp32. */
    p->pairs = PANEL_PAIRS && p->y.dtype == MP_BF16 && panel_is_bf16(p->store) &&
               panel_is_bf16(p->b.store);
    p->tile_m = panel_m(p->pairs, gemm_even(p->m, tall >= GEMM_TASKS ? GEMM_TALL_M : GEMM_M));
    p->tile_n = panel_n(gemm_even(p->n, GEMM_N));
    p->chunk = gemm_even(p->k, p->pairs ? 2 * GEMM_K : GEMM_K);
    if (p->pairs)
        p->chunk = panel_up(p->chunk, 2 * PANEL_PAIR_DEPTH);
    p->tiles_m = gemm_tiles(p->m, p->tile_m);
    p->tiles_n = gemm_tiles(p->n, p->tile_n);
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

static void gemm(gemm_args *p)
{
    if (p->m == 0 || p->n == 0)
        return;
    if (p->k == 0) {
        gemm_empty_sum(p);
        return;
    }
    gemm_tile(p);
    if (mp_scratch_reserve(p->c, gemm_scratch(p)))
        mp_parallel(p->c, p->groups * p->tiles_m * p->tiles_n, gemm_task, p);
}

/* Rows of a plain matrix. */
static void load_matrix(const gemm_args *p, int64_t g, int64_t m0, int64_t m, int64_t k0, int64_t k,
                        float *panel, int64_t lda)
{
    const mp_tensor *x = p->a;
    const size_t size = mp_dtype_size(x->store);

    (void)g;
    for (int64_t i = 0; i < m; i++)
        panel_read(p->pairs, x->store,
                   (const char *)x->data + (size_t)((m0 + i) * p->k + k0) * size, panel + i * lda,
                   0, k);
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

static inline void gemv_lanes(const float *w, const float *x, int64_t n, float *lane)
{
    int64_t j = 0;

    for (; j + VEC_LANES <= n; j += VEC_LANES)
        for (int l = 0; l < VEC_LANES; l++)
            lane[l] += w[j + l] * x[j + l];
    for (int l = 0; j < n; j++, l++)
        lane[l] += w[j] * x[j];
}

static void gemv_task(void *arg, int64_t task, int worker)
{
    const gemv_args *p = arg;
    float chunk[VEC_CHUNK], bias;
    const int64_t end = vec_min(p->n, (task + 1) * GEMV_TASK);

    (void)worker;
    for (int64_t o = task * GEMV_TASK; o < end; o++) {
        float lane[GEMV_ROWS][VEC_LANES] = {{0}};
        for (int64_t k0 = 0; k0 < p->k; k0 += VEC_CHUNK) {
            const int64_t n = vec_min(VEC_CHUNK, p->k - k0);
            const float *w = vec_read(p->w, o * p->k + k0, n, chunk);
            for (int64_t r = 0; r < p->rows; r++)
                gemv_lanes(w, p->x + r * p->k + k0, n, lane[r]);
        }
        for (int64_t r = 0; r < p->rows; r++) {
            float s = vec_lane_sum(lane[r]);
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
    gemm_args p = {.c = c,
                   .load_a = load_matrix,
                   .a = &x,
                   .store = x.store,
                   .b = w,
                   .bias = b,
                   .y = y,
                   .groups = 1};

    p.m = mp_rows(x);
    p.k = mp_dim(x, -1);
    p.n = w.dim[0];
    p.y_stride = p.n;
    if (p.m <= GEMV_ROWS && p.k > 0)
        gemv(c, x, w, b, y);
    else
        gemm(&p);
}

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
    p.tile_m = panel_m(false, gemm_even(p.m, GEMM_M));
    p.tile_n = panel_n(gemm_even(p.n, GEMM_N));
    p.chunk = gemm_even(p.k, GEMM_K);
    p.tiles_m = gemm_tiles(p.m, p.tile_m);
    p.tiles_n = gemm_tiles(p.n, p.tile_n);
    const int64_t batch = mp_numel(y) / (p.m * p.n);
    if (mp_scratch_reserve(c, matmul_scratch(&p)))
        mp_parallel(c, batch * p.tiles_m * p.tiles_n, matmul_task, &p);
}
