/* Attention.  Included by kernels/cpu/isa.c only.
 *
 * Softmax attention: a task is some queries of one head.  Keys and values pass by in blocks, packed
 * once each; few queries at a time meet them, so that their scores stay in the second cache.
 * Linear attention keeps one [d+1, d] state per head. */

/* Keys of a block and queries that meet it at a time; what lies between rows of scores that tiles
 * write, whose lines would fall into few sets of the cache else; queries of a task, fewer where
 * there would be less than so many tasks; queries and scores of an eager task. */
enum {
    ATTN_KV = 512,
    ATTN_Q = 96,
    ATTN_PAD = 16,
    ATTN_TASK_Q = 1024,
    ATTN_TASKS = 16,
    ATTN_EAGER_Q = 192,
    ATTN_SCORES = 1 << 18,
    ATTN_N = 256,       /* tokens at a time of linear attention */
    ATTN_TOGETHER = 256 /* values of a token in neighbouring heads, about as many */
};

#if defined(__AVX512BF16__)

static inline void attn_store_bf16(panel_half *to, reg v)
{
    _mm256_storeu_si256((void *)to, (__m256i)_mm512_cvtneps_pbh(v));
}

#else

static inline void attn_store_bf16(panel_half *to, reg v)
{
    (void)to, (void)v; /* no panels of pairs */
}

#endif

/* exp of x <= 0: x = n ln 2 + r with |r| <= ln 2 / 2, a minimax polynomial on r (3e-9 of the
 * value), times 2^n, which n + 127 in the lowest bits of `shifted` becomes as a float's exponent: 0
 * for n = -127, the least.  Within 2 ulp of the true value down to 2^-126; a NaN stays. */
static inline reg attn_exp(reg x)
{
    const reg to_int = reg_fill(12582912.0f + 127.0f), one = reg_fill(1.0f);

    x = reg_max(reg_fill(-88.0f), x);
    const reg shifted = reg_fma(x, reg_fill(1.44269504088896341f), to_int);
    const reg n = shifted - to_int;
    reg r = reg_fma(n, reg_fill(-0.693359375f), x);
    r = reg_fma(n, reg_fill(2.12194440e-4f), r);
    reg p = reg_fma(reg_fill(1.3814547565e-3f), r, reg_fill(8.3687482402e-3f));
    p = reg_fma(p, r, reg_fill(4.1668392718e-2f));
    p = reg_fma(p, r, reg_fill(1.6666519642e-1f));
    p = reg_fma(p, r, reg_fill(4.9999994040e-1f));
    p = reg_fma(p, r, one);
    p = reg_fma(p, r, one);
    return p * (reg)((reg_bits)shifted << 23);
}

/* The largest of each of REG_LANES rows of lanes. */
static inline reg attn_largest(const float *lanes)
{
    float turned[REG_LANES * REG_LANES];

    for (int i = 0; i < REG_LANES; i += PANEL_TURN)
        for (int j = 0; j < REG_LANES; j += PANEL_TURN)
            panel_turn(lanes + i * REG_LANES + j, REG_LANES, turned + j * REG_LANES + i, REG_LANES);
    reg top = reg_floats(turned);
    for (int l = 1; l < REG_LANES; l++)
        top = reg_max(reg_floats(turned + l * REG_LANES), top);
    return top;
}

/* bf16 that stays a float; a NaN may become a number, which whoever adds up what was not rounded
 * does not mind. */
static inline reg attn_round_bf16(reg v)
{
    const reg_bits u = (reg_bits)v;

    return (reg)((u + 0x7fff + (u >> 16 & 1)) & 0xffff0000);
}

typedef struct softmax_args {
    mp_ctx *c;
    const mp_attn_opts *o;
    mp_tensor q, k, v, y;
    int64_t sq, sk, d, heads, kv_heads, block, blocks, ld; /* ld: of a block of scores */
    bool pairs;                                            /* panels of bf16 */
    float scale, lowest; /* lowest: the dtype's most negative value, transformers' mask */
} softmax_args;

/* The first value of a head in a row of t. */
static const char *head_at(mp_tensor t, int64_t row, int64_t heads, int64_t head, int64_t d)
{
    return (const char *)t.data + (size_t)((row * heads + head) * d) * mp_dtype_size(t.store);
}

/* m queries of one head as the rows of a panel. */
static void load_queries(const softmax_args *p, int64_t row, int64_t m, int64_t head, float *to,
                         int64_t ld)
{
    for (int64_t i = 0; i < m; i++)
        panel_read(p->pairs, p->q.store, head_at(p->q, row + i, p->heads, head, p->d), to + i * ld,
                   0, p->d);
    panel_fill_up(p->pairs, to, ld, m, p->d, panel_k(p->pairs, p->d));
}

/* n keys of one head as the columns of a packed panel. */
static void pack_keys(const softmax_args *p, int64_t row, int64_t n, int64_t head, float *rows,
                      float *to)
{
    panel_pack_columns(p->pairs, p->k.store, head_at(p->k, row, p->kv_heads, head, p->d),
                       p->kv_heads * p->d, n, p->d, rows, panel_k(p->pairs, p->d), to);
}

/* n values of one head as the rows of a packed panel. */
static void pack_values(const softmax_args *p, int64_t row, int64_t n, int64_t head, float *rows,
                        float *to)
{
    panel_pack_rows(p->pairs, p->v.store, head_at(p->v, row, p->kv_heads, head, p->d),
                    p->kv_heads * p->d, n, p->d, rows, to);
}

static void store_head(const softmax_args *p, const float *from, int64_t row, int64_t n,
                       int64_t head)
{
    for (int64_t i = 0; i < n; i++) {
        const int64_t at = ((row + i) * p->heads + head) * p->d;
        vec_narrow(p->y.store, p->c->e4m3, from + i * panel_n(p->d),
                   (char *)p->y.data + (size_t)at * mp_dtype_size(p->y.store), p->d);
    }
}

/* The keys that queries [first, last] see, or some of them. */
static inline int64_t keys_begin(const softmax_args *p, int64_t first)
{
    const int64_t begin = first - p->o->window + 1;

    return p->o->causal && p->o->window && begin > 0 ? begin : 0;
}

static inline int64_t keys_end(const softmax_args *p, int64_t last)
{
    return p->o->causal ? vec_min(p->sk, last + 1) : p->sk;
}

/* One block of keys and values, and the queries of a task. */
typedef struct flash_state {
    float *q, *k, *v, *rows; /* [block, d], packed [d, KV] and [KV, d], room to pack them */
    float *s, *p, *out;      /* [Q, KV], the same as pairs, [block, d] */
    float *top, *sum, *mask; /* [block], [block, LANES], [KV] */
    float *bias;             /* [Q + KV] */
    int64_t b, head, q0;     /* of the task */
    int64_t k0, n;           /* n keys from k0 on */
} flash_state;

static flash_state flash_place(const softmax_args *p, float *at)
{
    const int64_t d = panel_k(p->pairs, p->d), wide = panel_n(p->d);
    flash_state f = {.q = at};

    f.k = f.q + p->block * d;
    f.v = f.k + d * ATTN_KV;
    f.rows = f.v + wide * ATTN_KV;
    f.s = f.rows + PANEL_N * d;
    f.p = f.s + ATTN_Q * p->ld;
    f.out = f.p + ATTN_Q * p->ld / 2;
    f.sum = f.out + p->block * wide;
    f.top = f.sum + p->block * REG_LANES;
    f.mask = f.top + p->block;
    f.bias = f.mask + ATTN_KV;
    return f;
}

static size_t flash_floats(const softmax_args *p)
{
    const int64_t d = panel_k(p->pairs, p->d), wide = panel_n(p->d);

    return (size_t)((p->block + ATTN_KV + PANEL_N) * d + (p->block + ATTN_KV) * wide +
                    ATTN_Q * p->ld * 3 / 2 + p->block * (REG_LANES + 1) + ATTN_Q + 2 * ATTN_KV);
}

/* What distances add to the scores of m queries from q0 on and n keys from k0 on: m + n - 1 values
 * at `to`, of which the i-th query takes n from m - 1 - i on. */
static void load_bias(const softmax_args *p, int64_t head, int64_t q0, int64_t m, int64_t k0,
                      int64_t n, float *to)
{
    const mp_tensor t = p->o->bias;
    const int64_t at = head * t.dim[1] + k0 - (q0 + m - 1) + p->sq - 1;

    vec_widen(t.store, (const char *)t.data + (size_t)at * mp_dtype_size(t.store), to, m + n - 1);
}

/* Scales, biases and masks the scores of a query; the largest of them is one of the REG_LANES in
 * lanes.  Scores that are scaled alone stay as they are; bias and mask may be NULL.  n: a multiple
 * of REG_LANES. */
static inline void flash_scores(float *s, float scale, const float *bias, const float *mask,
                                int64_t n, float *lanes)
{
    reg top = reg_fill(-INFINITY);

    for (int64_t j = 0; j < n; j += REG_LANES) {
        reg v = reg_floats(s + j) * reg_fill(scale);
        if (bias)
            v = v + reg_floats(bias + j);
        if (mask)
            v = v + reg_floats(mask + j);
        if (bias || mask)
            reg_put(s + j, v);
        top = reg_max(v, top);
    }
    reg_put(lanes, top);
}

/* exp(s * scale - base), rounded to the dtype in place or, if there are any, as pairs; adds what is
 * not rounded to `sum`, lane by lane. */
static inline void flash_weights(mp_dtype dtype, float *s, panel_half *pairs, float scale,
                                 float base, int64_t n, float *sum)
{
    reg total = reg_floats(sum);

    for (int64_t j = 0; j < n; j += REG_LANES) {
        const reg e = attn_exp(reg_fma(reg_floats(s + j), reg_fill(scale), reg_fill(-base)));
        total = total + e;
        if (pairs)
            attn_store_bf16(pairs + j, e);
        else
            reg_put(s + j, dtype == MP_BF16  ? attn_round_bf16(e)
                           : dtype == MP_F16 ? reg_of_f16(reg_to_f16(e))
                                             : e);
    }
    reg_put(sum, total);
}

static void fill(float *x, int64_t from, int64_t to, float value)
{
    for (int64_t j = from; j < to; j++)
        x[j] = value;
}

/* The i-th query sees keys [begin, end) of the block, maybe none: what it does not see becomes
 * -infinity when scaled. */
static void flash_hide(const softmax_args *p, const flash_state *f, int64_t i, float *s, int64_t n)
{
    const float hidden = p->scale < 0.0f ? INFINITY : -INFINITY;
    const int64_t begin = keys_begin(p, f->q0 + i) - f->k0, end = keys_end(p, f->q0 + i) - f->k0;

    fill(s, 0, vec_min(begin, n), hidden);
    fill(s, end < 0 ? 0 : vec_min(end, n), panel_n(n), hidden);
}

/* Online softmax of `rows` queries from the i-th on, at most REG_LANES, their scores in s: they
 * become weights relative to the largest score so far; what was summed and multiplied before
 * shrinks when that grows.  A row with nothing to attend to stays zero; a NaN, which no maximum
 * shows, goes on through the sum. */
static void flash_rows(const softmax_args *p, const flash_state *f, int64_t i, int64_t rows,
                       const float *bias, float *s, panel_half *pairs, int64_t n)
{
    const float *mask = mp_given(p->o->mask) ? f->mask : NULL;
    const float scale = bias || mask ? 1.0f : p->scale; /* what is left to do */
    float lanes[REG_LANES * REG_LANES] = {0}, base[REG_LANES], shrink[REG_LANES];

    for (int64_t r = 0; r < rows; r++) {
        flash_hide(p, f, i + r, s + r * p->ld, n);
        flash_scores(s + r * p->ld, p->scale, bias ? bias - r : NULL, mask, panel_n(n),
                     lanes + r * REG_LANES);
    }
    const reg before = reg_floats(f->top + i);
    const reg top = reg_max(attn_largest(lanes), before);
    reg_put(f->top + i, top);
    reg_put(base, reg_max(top, reg_fill(-FLT_MAX))); /* no infinity less another */
    reg_put(shrink, attn_exp(before - reg_floats(base)));
    for (int64_t r = 0; r < rows; r++) {
        float *sum = f->sum + (i + r) * REG_LANES, *out = f->out + (i + r) * panel_n(p->d);
        for (int l = 0; l < REG_LANES; l++)
            sum[l] *= shrink[r];
        for (int64_t j = 0; j < p->d && shrink[r] != 1.0f; j++)
            out[j] *= shrink[r];
        flash_weights(p->q.dtype, s + r * p->ld, pairs ? pairs + r * p->ld : NULL, scale, base[r],
                      panel_n(n), sum);
    }
}

/* y [m, n] = a b, or is added to y; the columns of b's strips are `apart` and its rows ldb floats
 * apart; of the last strip no more is computed than n needs. */
static void attn_floats(const float *a, int64_t lda, const float *b, int64_t apart, int64_t ldb,
                        int64_t m, int64_t n, int64_t k, bool add, float *y, int64_t ldy)
{
    for (int64_t j = 0; j < n; j += PANEL_N)
        panel_strip(false, a, lda, b + j / PANEL_N * apart, ldb, m,
                    n - j > PANEL_HALF ? PANEL_N : PANEL_HALF, k, add, y + j, ldy,
                    &(panel_ahead){0});
}

/* m queries from the i-th of the task on meet the block. */
static void flash_queries(const softmax_args *p, const flash_state *f, int64_t i, int64_t m)
{
    const int64_t first = f->q0 + i, d = panel_k(p->pairs, p->d), wide = panel_n(p->d);
    const int64_t n = vec_min(f->n, keys_end(p, first + m - 1) - f->k0);
    const int64_t rows = panel_m(p->pairs, m), keys = panel_k(p->pairs, f->n);

    if (n <= 0 || f->k0 + n <= keys_begin(p, first))
        return;
    if (mp_given(p->o->bias)) {
        load_bias(p, f->head, first, m, f->k0, n, f->bias);
        fill(f->bias, m + n - 1, m - 1 + panel_n(n), 0.0f);
    }
    if (p->pairs)
        panel_product(true, f->q + i * d, d, f->k, rows, panel_n(n), d, false, f->s, p->ld);
    else
        attn_floats(f->q + i * d, d, f->k, PANEL_N * d, PANEL_N, rows, n, d, false, f->s, p->ld);
    for (int64_t r = 0; r < m; r += REG_LANES)
        flash_rows(p, f, i + r, vec_min(REG_LANES, m - r),
                   mp_given(p->o->bias) ? f->bias + (m - 1 - r) : NULL, f->s + r * p->ld,
                   p->pairs ? (panel_half *)f->p + r * p->ld : NULL, n);
    if (!p->pairs) { /* strips are as long as all keys of the block */
        attn_floats(f->s, p->ld, f->v, PANEL_N * keys, PANEL_N, rows, p->d, n, true,
                    f->out + i * wide, wide);
        return;
    }
    for (int64_t j = 0; j < wide; j += PANEL_N)
        panel_product(true, f->p, p->ld / 2, f->v + j * keys, rows, PANEL_N, panel_k(true, n), true,
                      f->out + i * wide + j, wide);
}

static void flash_load_block(const softmax_args *p, const flash_state *f)
{
    const int64_t row = f->b * p->sk + f->k0, kv = f->head / (p->heads / p->kv_heads);
    const mp_tensor mask = p->o->mask;

    pack_keys(p, row, f->n, kv, f->rows, f->k);
    pack_values(p, row, f->n, kv, f->rows, f->v);
    if (mp_given(mask)) {
        vec_widen(mask.store, (const char *)mask.data + (size_t)row * mp_dtype_size(mask.store),
                  f->mask, f->n);
        fill(f->mask, f->n, panel_n(f->n), 0.0f);
    }
}

static void flash_task(void *arg, int64_t task, int worker)
{
    const softmax_args *p = arg;
    const int64_t q0 = task % p->blocks * p->block, m = vec_min(p->block, p->sq - q0);
    const int64_t wide = panel_n(p->d), end = keys_end(p, q0 + m - 1);
    flash_state f = flash_place(p, mp_scratch(p->c, worker));

    f.q0 = q0;
    f.head = task / p->blocks % p->heads;
    f.b = task / (p->blocks * p->heads);
    load_queries(p, f.b * p->sq + q0, m, f.head, f.q, panel_k(p->pairs, p->d));
    fill(f.out, 0, m * wide, 0.0f);
    fill(f.sum, 0, m * REG_LANES, 0.0f);
    fill(f.top, 0, m, -INFINITY);
    for (f.k0 = keys_begin(p, q0) / ATTN_KV * ATTN_KV; f.k0 < end; f.k0 += ATTN_KV) {
        f.n = vec_min(ATTN_KV, p->sk - f.k0);
        flash_load_block(p, &f);
        for (int64_t i = 0; i < m; i += ATTN_Q)
            flash_queries(p, &f, i, vec_min(ATTN_Q, m - i));
    }
    for (int64_t i = 0; i < m; i++) {
        const float sum = vec_sum(f.sum + i * REG_LANES, REG_LANES);
        const float r = sum == 0.0f ? 0.0f : 1.0f / sum;
        for (int64_t j = 0; j < p->d; j++)
            f.out[i * wide + j] *= r;
    }
    store_head(p, f.out, f.b * p->sq + q0, m, f.head);
}

/* Beyond so much, a score is not taken to be harmless: fp16's lowest value, which masks, is 65
 * times as far. */
static const float eager_far = 1000.0f;

/* How many keys of a row have weight.  Behind the last one that a query attends to, a mask leaves
 * scores whose exp is exactly 0 beside that key's, unless there are NaN or enormous ones. */
static int64_t eager_keys(const softmax_args *p, const float *s, const float *mask, int64_t query)
{
    int64_t n = keys_end(p, query);
    int far = 0;

    while (mask && n && mask[n - 1] <= p->lowest)
        n--;
    if (n <= keys_begin(p, query) || (mask && mask[n - 1] != 0.0f))
        return p->sk;
    for (int64_t j = 0; j < p->sk; j++)
        far |= !(fabsf(s[j] * p->scale) <= eager_far);
    return far ? p->sk : n;
}

/* exp(s - top), but 0 below e^-80, 2e-35, which no sum of fp32 beside 1 shows: quotients, products
 * and sums of denormals would take a hundred times as long. */
static void eager_weights(float *s, float top, int64_t n)
{
    const reg far = reg_fill(-80.0f), none = reg_fill(0.0f);

    for (int64_t j = 0; j < n; j += REG_LANES) {
        const int64_t m = vec_min(REG_LANES, n - j);
        const reg x = reg_load(MP_F32, s, j, m) - reg_fill(top);
        reg e = x;
        reg_exp(1, &e);
        reg_store(MP_F32, MP_E4M3_SATURATE, reg_if_less(x, far, none, e), s, j, m);
    }
}

/* transformers' eager form: whole rows of scores, rounded after each step; bit for bit those of all
 * keys, of which a bias (T5's, which masks nothing) needs all. */
static void eager_row(const softmax_args *p, float *s, const float *bias, const float *mask,
                      int64_t query)
{
    const mp_e4m3_overflow mode = p->c->e4m3;
    const mp_dtype d = p->q.dtype;
    const float cap = p->o->softcap;
    const int64_t begin = keys_begin(p, query), end = keys_end(p, query);
    const int64_t n = bias ? p->sk : eager_keys(p, s, mask, query);

    vec_round(d, mode, s, n);
    for (int64_t j = 0; j < n; j++)
        s[j] = s[j] * p->scale;
    vec_round(d, mode, s, n);
    if (cap > 0.0f) {
        for (int64_t j = 0; j < n; j++)
            s[j] = s[j] / cap;
        vec_round(d, mode, s, n);
        act_run(MP_ACT_TANH, MP_F32, mode, s, s, n);
        vec_round(d, mode, s, n);
        for (int64_t j = 0; j < n; j++)
            s[j] = s[j] * cap;
        vec_round(d, mode, s, n);
    }
    if (bias) {
        for (int64_t j = 0; j < n; j++)
            s[j] = s[j] + bias[j];
        vec_round(d, mode, s, n);
    }
    if (mask || p->o->causal) {
        for (int64_t j = 0; j < n; j++)
            s[j] = s[j] + (j >= begin && j < end ? (mask ? mask[j] : 0.0f) : p->lowest);
        vec_round(d, mode, s, n);
    }
    eager_weights(s, vec_max(s, n), n);
    const float sum_ = vec_sum(s, n);
    for (int64_t j = 0; j < n; j++)
        s[j] = s[j] / sum_;
    vec_round(d, mode, s, n);
    memset(s + n, 0, (size_t)(p->sk - n) * sizeof *s);
}

typedef struct eager_state {
    float *q, *kv, *rows, *s, *out; /* [block, d], a packed block of keys or values, room to pack
                                     * it, [block, keys], [block, d] */
    float *mask, *bias;             /* [sk], [block + sk] */
    int64_t keys;                   /* sk, filled up */
} eager_state;

static eager_state eager_place(const softmax_args *p, float *at)
{
    const int64_t wide = panel_n(p->d), block = panel_m(false, p->block);
    eager_state e = {.q = at, .keys = panel_n(p->sk)};

    e.kv = e.q + block * p->d;
    e.rows = e.kv + ATTN_KV * wide;
    e.s = e.rows + PANEL_N * p->d;
    e.out = e.s + block * e.keys;
    e.mask = e.out + block * wide;
    e.bias = e.mask + p->sk;
    return e;
}

static size_t eager_floats(const softmax_args *p)
{
    const int64_t wide = panel_n(p->d), block = panel_m(false, p->block);

    return (size_t)((block + PANEL_N) * p->d + (block + ATTN_KV) * wide + block * panel_n(p->sk) +
                    block + 2 * p->sk);
}

/* Whole rows are in floats throughout: what is rounded between the steps is exact in them. */
static void eager_task(void *arg, int64_t task, int worker)
{
    const softmax_args *p = arg;
    const int64_t q0 = task % p->blocks * p->block, m = vec_min(p->block, p->sq - q0);
    const int64_t head = task / p->blocks % p->heads, b = task / (p->blocks * p->heads);
    const int64_t kv = head / (p->heads / p->kv_heads), wide = panel_n(p->d);
    const bool biased = mp_given(p->o->bias) && p->sk;
    const eager_state e = eager_place(p, mp_scratch(p->c, worker));
    const float *mask =
        mp_given(p->o->mask) ? vec_read(p->o->mask, b * p->sk, p->sk, e.mask) : NULL;
    load_queries(p, b * p->sq + q0, m, head, e.q, p->d);
    for (int64_t k0 = 0; k0 < p->sk; k0 += ATTN_KV) {
        const int64_t n = vec_min(ATTN_KV, p->sk - k0);
        pack_keys(p, b * p->sk + k0, n, kv, e.rows, e.kv);
        panel_product(false, e.q, p->d, e.kv, panel_m(false, m), panel_n(n), p->d, false, e.s + k0,
                      e.keys);
    }
    if (biased)
        load_bias(p, head, q0, m, 0, p->sk, e.bias);
    for (int64_t i = 0; i < m; i++)
        eager_row(p, e.s + i * e.keys, biased ? e.bias + (m - 1 - i) : NULL, mask, q0 + i);
    memset(e.out, 0, (size_t)(m * wide) * sizeof *e.out);
    for (int64_t k0 = 0; k0 < p->sk; k0 += ATTN_KV) {
        const int64_t n = vec_min(ATTN_KV, p->sk - k0);
        pack_values(p, b * p->sk + k0, n, kv, e.rows, e.kv);
        panel_product(false, e.s + k0, e.keys, e.kv, panel_m(false, m), wide, n, true, e.out, wide);
    }
    store_head(p, e.out, b * p->sq + q0, m, head);
}

/* Queries of a task: many, so that keys and values are packed a few times only, as long as there
 * are tasks enough. */
static int64_t flash_block(const softmax_args *p, int64_t batch)
{
    const int64_t heads = batch * p->heads, most = vec_tasks(p->sq, ATTN_TASK_Q);
    const int64_t wanted = vec_min(vec_tasks(ATTN_TASKS, heads), vec_tasks(p->sq, ATTN_Q));

    return panel_up(vec_tasks(p->sq, wanted > most ? wanted : most), ATTN_Q);
}

/* Whole rows, but few of them at a time. */
static int64_t eager_block(const softmax_args *p)
{
    return vec_min(ATTN_EAGER_Q, ATTN_SCORES / (p->sk ? p->sk : 1) + 1);
}

static void attn_softmax(mp_ctx *c, mp_tensor q, mp_tensor k, mp_tensor v, const mp_attn_opts *o,
                         mp_tensor y)
{
    softmax_args p = {.c = c, .o = o, .q = q, .k = k, .v = v, .y = y, .scale = o->scale};
    const bool eager = o->rounding == MP_ATTN_EAGER;

    if (mp_numel(y) == 0)
        return;
    p.sq = q.dim[1];
    p.sk = k.dim[1];
    p.heads = o->heads;
    p.kv_heads = o->kv_heads;
    p.d = q.dim[2] / p.heads;
    p.pairs = PANEL_PAIRS && !eager && q.dtype == MP_BF16 && panel_is_bf16(q.store) &&
              panel_is_bf16(k.store) && panel_is_bf16(v.store);
    p.ld = ATTN_KV + (p.pairs ? ATTN_PAD : 0);
    p.lowest = -(float)mp_dtype_max(q.dtype);
    p.block = eager ? eager_block(&p) : flash_block(&p, q.dim[0]);
    p.blocks = (p.sq + p.block - 1) / p.block;
    const size_t floats = eager ? eager_floats(&p) : flash_floats(&p);
    if (mp_scratch_reserve(c, floats * sizeof(float)))
        mp_parallel(c, q.dim[0] * p.heads * p.blocks, eager ? eager_task : flash_task, &p);
}

/* Tokens [n0, n0+n) of `heads` neighbouring heads as fp32 rows `ld` apart, optionally rectified. */
static void load_tokens(const mp_heads *h, int64_t batch, int64_t tokens, int64_t head,
                        int64_t heads, int64_t n0, int64_t n, int64_t d, bool relu, float *to,
                        int64_t ld)
{
    const size_t size = mp_dtype_size(h->t.store);
    const bool together = h->head == d;

    for (int64_t i = 0; i < n; i++) {
        const int64_t at = h->at + (batch * tokens + n0 + i) * h->token + head * h->head;
        const char *from = (const char *)h->t.data + (size_t)at * size;
        float *row = to + i * ld;
        for (int64_t g = 0; g < (together ? 1 : heads); g++)
            vec_widen(h->t.store, from + (size_t)(g * h->head) * size, row + g * d,
                      together ? heads * d : d);
        if (relu)
            act_run(MP_ACT_RELU, MP_F32, MP_E4M3_SATURATE, row, row, heads * d);
    }
}

typedef struct attn_linear_job {
    mp_ctx *c;
    const mp_attn_linear_args *a;
    int64_t group, groups; /* heads of a task, tasks of a batch entry */
} attn_linear_job;

/* The same from rows to y. */
static void store_tokens(const attn_linear_job *j, int64_t batch, int64_t head, int64_t heads,
                         int64_t n0, int64_t n, const float *from, int64_t ld)
{
    const mp_heads *y = &j->a->y;
    const size_t size = mp_dtype_size(y->t.store);
    const int64_t d = j->a->d;
    const bool together = y->head == d;

    for (int64_t i = 0; i < n; i++) {
        const int64_t at = y->at + (batch * j->a->tokens + n0 + i) * y->token + head * y->head;
        char *to = (char *)y->t.data + (size_t)at * size;
        for (int64_t g = 0; g < (together ? 1 : heads); g++)
            vec_narrow(y->t.store, j->c->e4m3, from + i * ld + g * d,
                       to + (size_t)(g * y->head) * size, together ? heads * d : d);
    }
}

/* Scratch of linear attention, e = d + 1: values, keys (or queries) and results [N, ld] as
 * they come; values of a head, turned [e, N]; of each head the state [e, d] and packed [d, e]; the
 * result of a head [N, e]. */
typedef struct linear_state {
    float *v, *k, *turned, *state, *packed, *room, *out;
    int64_t ld, wide; /* of tokens; e filled up */
    int64_t rows;     /* of a state, filled up to what packing reads */
} linear_state;

/* A strip of keys is read where it lies, so a row is as long as one. */
static int64_t linear_ld(const attn_linear_job *j)
{
    return j->group * j->a->d > PANEL_N ? j->group * j->a->d : PANEL_N;
}

static linear_state linear_place(const attn_linear_job *j, float *at)
{
    const int64_t d = j->a->d;
    linear_state s = {.v = at, .ld = linear_ld(j), .wide = panel_n(d + 1)};

    s.rows = panel_up(panel_m(false, d + 1), PANEL_N);
    s.k = s.v + ATTN_N * s.ld;
    s.turned = s.k + ATTN_N * s.ld + PANEL_N; /* the last strip reads beyond its head */
    s.state = s.turned + s.rows * ATTN_N;
    s.packed = s.state + j->group * s.rows * s.wide;
    s.room = s.packed + j->group * d * s.wide;
    s.out = s.room + PANEL_N * d;
    return s;
}

static size_t linear_floats(const attn_linear_job *j)
{
    const int64_t d = j->a->d, wide = panel_n(d + 1);
    const int64_t rows = panel_up(panel_m(false, d + 1), PANEL_N);

    return (size_t)(ATTN_N * (2 * linear_ld(j) + rows + wide) + j->group * (rows + d) * wide +
                    PANEL_N * (d + 1));
}

/* state = sum over tokens of [v; 1] relu(k)^T, block after block, of `heads` heads. */
static void attn_linear_state(const mp_attn_linear_args *a, int64_t b, int64_t head, int64_t heads,
                              const linear_state *s)
{
    const int64_t d = a->d;

    fill(s->k, ATTN_N * s->ld, ATTN_N * s->ld + PANEL_N, 0.0f);
    for (int64_t i = 0; i < ATTN_N; i++)
        s->turned[d * ATTN_N + i] = 1.0f;
    for (int64_t n0 = 0; n0 < a->tokens; n0 += ATTN_N) {
        const int64_t n = vec_min(ATTN_N, a->tokens - n0);
        load_tokens(&a->v, b, a->tokens, head, heads, n0, n, d, false, s->v, s->ld);
        load_tokens(&a->k, b, a->tokens, head, heads, n0, n, d, true, s->k, s->ld);
        for (int64_t h = 0; h < heads; h++) {
            panel_transpose(s->v + h * d, s->ld, panel_up(n, PANEL_TURN), d, s->turned, ATTN_N);
            attn_floats(s->turned, ATTN_N, s->k + h * d, PANEL_N, s->ld, panel_m(false, d + 1), d,
                        n, n0 > 0, s->state + h * s->rows * s->wide, s->wide);
        }
    }
}

static void attn_linear_task(void *arg, int64_t task, int worker)
{
    const attn_linear_job *j = arg;
    const mp_attn_linear_args *a = j->a;
    const int64_t d = a->d, e = d + 1, head = task % j->groups * j->group, b = task / j->groups;
    const int64_t heads = vec_min(j->group, a->heads - head);
    const linear_state s = linear_place(j, mp_scratch(j->c, worker));

    attn_linear_state(a, b, head, heads, &s);
    for (int64_t h = 0; h < heads; h++)
        panel_pack_columns(false, MP_F32, s.state + h * s.rows * s.wide, s.wide, e, d, s.room, d,
                           s.packed + h * d * s.wide);
    for (int64_t n0 = 0; n0 < a->tokens; n0 += ATTN_N) {
        const int64_t n = vec_min(ATTN_N, a->tokens - n0);
        load_tokens(&a->q, b, a->tokens, head, heads, n0, n, d, true, s.k, s.ld);
        for (int64_t h = 0; h < heads; h++) {
            attn_floats(s.k + h * d, s.ld, s.packed + h * d * s.wide, PANEL_N * d, PANEL_N, n, e, d,
                        false, s.out, s.wide);
            for (int64_t i = 0; i < n; i++) {
                const float *from = s.out + i * s.wide, norm = from[d] + a->eps;
                float *row = s.v + i * s.ld + h * d;
                for (int64_t k = 0; k < d; k++)
                    row[k] = from[k] / norm;
            }
        }
        store_tokens(j, b, head, heads, n0, n, s.v, s.ld);
    }
}

static void attn_linear(mp_ctx *c, const mp_attn_linear_args *a)
{
    attn_linear_job j = {.c = c, .a = a, .group = 1};

    if (mp_numel(a->y.t) == 0)
        return;
    if (a->d < ATTN_TOGETHER)
        j.group = vec_min(ATTN_TOGETHER / a->d, vec_tasks(a->batch * a->heads, ATTN_TASKS));
    j.group = vec_min(j.group, a->heads);
    j.groups = vec_tasks(a->heads, j.group);
    if (mp_scratch_reserve(c, linear_floats(&j) * sizeof(float)))
        mp_parallel(c, a->batch * j.groups, attn_linear_task, &j);
}

/* One query against all keys: scores round to the dtype, are normalised in fp32, round again. */
static void quadratic_scores(const attn_linear_job *j, const float *q, const float *k, float *s)
{
    const mp_attn_linear_args *a = j->a;
    const mp_dtype dtype = a->q.t.dtype;

    for (int64_t n = 0; n < a->tokens; n++) {
        s[n] = 0.0f;
        for (int64_t i = 0; i < a->d; i++)
            s[n] += k[n * a->d + i] * q[i];
    }
    vec_round(dtype, j->c->e4m3, s, a->tokens);
    const float norm = vec_sum(s, a->tokens) + a->eps;
    for (int64_t n = 0; n < a->tokens; n++)
        s[n] = s[n] / norm;
    vec_round(dtype, j->c->e4m3, s, a->tokens);
}

static void attn_quadratic_task(void *arg, int64_t task, int worker)
{
    const attn_linear_job *j = arg;
    const mp_attn_linear_args *a = j->a;
    const int64_t d = a->d, n = a->tokens, head = task % a->heads, b = task / a->heads;
    float *q = mp_scratch(j->c, worker), *k = q + n * d, *v = k + n * d, *s = v + n * d;
    float *row = s + n;

    load_tokens(&a->q, b, n, head, 1, 0, n, d, true, q, d);
    load_tokens(&a->k, b, n, head, 1, 0, n, d, true, k, d);
    load_tokens(&a->v, b, n, head, 1, 0, n, d, false, v, d);
    for (int64_t i = 0; i < n; i++) {
        quadratic_scores(j, q + i * d, k, s);
        memset(row, 0, (size_t)d * sizeof *row);
        for (int64_t t = 0; t < n; t++)
            for (int64_t x = 0; x < d; x++)
                row[x] += v[t * d + x] * s[t];
        store_tokens(j, b, head, 1, i, 1, row, d);
    }
}

static void attn_quadratic(mp_ctx *c, const mp_attn_linear_args *a)
{
    attn_linear_job j = {.c = c, .a = a};

    if (mp_numel(a->y.t) == 0)
        return;
    if (mp_scratch_reserve(c, (size_t)(3 * a->tokens * a->d + a->tokens + a->d) * sizeof(float)))
        mp_parallel(c, a->batch * a->heads, attn_quadratic_task, &j);
}
