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

/* Rows [row, row+n) of B, columns [k0, k0+k), packed. */
static void gemm_load_b(const gemm_args *p, int64_t row, int64_t n, int64_t k0, int64_t k,
                        const gemm_panels *s)
{
    const size_t size = mp_dtype_size(p->b.store);
    const int64_t words = panel_k(p->pairs, k);

    for (int64_t j = 0; j < n; j += PANEL_N) {
        const int64_t rows = vec_min(PANEL_N, n - j);
        for (int64_t i = 0; i < rows; i++)
            panel_read(p->pairs, p->b.store,
                       (const char *)p->b.data + (size_t)((row + j + i) * p->k + k0) * size,
                       s->rows + i * s->ld, 0, k);
        panel_fill_up(p->pairs, s->rows, s->ld, rows, k, words);
        panel_pack(s->rows, s->ld, words, s->b + j * words);
    }
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

    for (int64_t k0 = 0; k0 < p->k; k0 += p->chunk) {
        const int64_t k = vec_min(p->chunk, p->k - k0), words = panel_k(p->pairs, k);
        p->load_a(p, g, m0, m, k0, k, s.a, s.ld);
        panel_fill_up(p->pairs, s.a, s.ld, m, k, words);
        gemm_load_b(p, column, n, k0, k, &s);
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

    p->pairs = PANEL_PAIRS && panel_is_bf16(p->store) && panel_is_bf16(p->b.store);
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
    int64_t m, n, k, tile_m, tile_n, tiles_m, tiles_n;
} matmul_args;

/* Rows x columns of t from element `at`, rows `stride` apart, as fp32: in place, or in panel. */
static const float *matmul_load(mp_tensor t, int64_t at, int64_t stride, int64_t rows,
                                int64_t columns, float *panel, int64_t *ld)
{
    if (t.store == MP_F32) {
        *ld = stride;
        return (const float *)t.data + at;
    }
    for (int64_t i = 0; i < rows; i++)
        vec_read(t, at + i * stride, columns, panel + i * columns);
    *ld = columns;
    return panel;
}

/* Batched a [M, K] b [K, N]: the second operand comes as it lies, k rows of n. */
static void matmul_task(void *arg, int64_t task, int worker)
{
    const matmul_args *p = arg;
    const int64_t tiles = p->tiles_m * p->tiles_n, batch = task / tiles;
    const int64_t m0 = task % tiles / p->tiles_n * p->tile_m, n0 = task % p->tiles_n * p->tile_n;
    const int64_t m = vec_min(p->tile_m, p->m - m0), n = vec_min(p->tile_n, p->n - n0);
    const int64_t kc = vec_min(p->k, GEMM_K), at = (batch * p->m + m0) * p->n + n0;
    float *a_panel = mp_scratch(p->c, worker), *b_panel = a_panel + p->tile_m * kc;
    const bool direct = p->y.store == MP_F32;
    float *tile = direct ? (float *)p->y.data + at : b_panel + kc * p->tile_n;
    const int64_t ld = direct ? p->n : n;

    for (int64_t k0 = 0; k0 < p->k; k0 += GEMM_K) {
        const int64_t k = vec_min(GEMM_K, p->k - k0);
        int64_t lda, ldb;
        const float *a =
            matmul_load(p->a, (batch * p->m + m0) * p->k + k0, p->k, m, k, a_panel, &lda);
        const float *b =
            matmul_load(p->b, (batch * p->k + k0) * p->n + n0, p->n, k, n, b_panel, &ldb);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)m, (int)n, (int)k, 1.0f, a,
                    (int)lda, b, (int)ldb, k0 ? 1.0f : 0.0f, tile, (int)ld);
    }
    for (int64_t i = 0; i < m; i++)
        vec_commit(p->c->e4m3, p->y, at + i * p->n, tile + i * ld, n);
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
    p.tile_m = gemm_even(p.m, GEMM_M);
    p.tile_n = gemm_even(p.n, GEMM_N);
    p.tiles_m = gemm_tiles(p.m, p.tile_m);
    p.tiles_n = gemm_tiles(p.n, p.tile_n);
    const int64_t kc = vec_min(p.k, GEMM_K), batch = mp_numel(y) / (p.m * p.n);
    const int64_t floats = p.tile_m * kc + kc * p.tile_n + p.tile_m * p.tile_n;
    if (mp_scratch_reserve(c, (size_t)floats * sizeof(float)))
        mp_parallel(c, batch * p.tiles_m * p.tiles_n, matmul_task, &p);
}
