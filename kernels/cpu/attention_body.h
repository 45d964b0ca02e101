/* Attention.  Included by kernels/cpu/isa.c only.
 *
 * Softmax attention works on a block of queries of one head at a time; keys and values pass by in
 * blocks, widened to fp32.  Linear attention keeps one [d+1, d] state per head. */

/* ATTN_Q and ATTN_KV are multiples of all that panels ask for. */
enum { ATTN_Q = 192, ATTN_KV = 512, ATTN_SCORES = 1 << 18, ATTN_N = 256 };

typedef struct softmax_args {
    mp_ctx *c;
    const mp_attn_opts *o;
    mp_tensor q, k, v, y;
    int64_t sq, sk, d, heads, kv_heads, block, blocks;
    bool pairs;          /* panels of bf16 */
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

static inline bool attends(const softmax_args *p, int64_t query, int64_t key)
{
    if (!p->o->causal)
        return true;
    return key <= query && (!p->o->window || key > query - p->o->window);
}

typedef struct flash_state {
    float *q, *k, *v, *rows; /* [block, d], packed [d, KV] and [KV, d], room to pack them */
    float *s, *p, *out;      /* [block, KV], the same as pairs, [block, d] */
    float *top, *sum, *mask; /* [block], [block], [KV] */
    float *bias;             /* [block + KV], if there is one */
} flash_state;

static flash_state flash_place(const softmax_args *p, float *at)
{
    const int64_t d = panel_k(p->pairs, p->d), wide = panel_n(p->d);
    flash_state f = {.q = at};

    f.k = f.q + p->block * d;
    f.v = f.k + d * ATTN_KV;
    f.rows = f.v + wide * ATTN_KV;
    f.s = f.rows + PANEL_N * d;
    f.p = f.s + p->block * ATTN_KV;
    f.out = f.p + p->block * ATTN_KV / 2;
    f.top = f.out + p->block * wide;
    f.sum = f.top + p->block;
    f.mask = f.sum + p->block;
    f.bias = f.mask + ATTN_KV;
    return f;
}

static size_t flash_floats(const softmax_args *p)
{
    const int64_t d = panel_k(p->pairs, p->d), wide = panel_n(p->d);

    return (size_t)((p->block + ATTN_KV + PANEL_N) * d + (p->block + ATTN_KV) * wide +
                    p->block * ATTN_KV * 3 / 2 + 3 * p->block + 2 * ATTN_KV);
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

/* Scaled, biased and masked scores of one query against a block of keys, fp32. */
static void flash_scores(const softmax_args *p, const flash_state *f, float *s, int64_t bias_at,
                         int64_t query, int64_t k0, int64_t n)
{
    for (int64_t j = 0; j < n; j++)
        s[j] = s[j] * p->scale;
    if (mp_given(p->o->bias))
        for (int64_t j = 0; j < n; j++)
            s[j] = s[j] + f->bias[bias_at + j];
    if (mp_given(p->o->mask))
        for (int64_t j = 0; j < n; j++)
            s[j] = s[j] + f->mask[j];
    if (p->o->causal)
        for (int64_t j = 0; j < n; j++)
            s[j] = attends(p, query, k0 + j) ? s[j] : -INFINITY;
}

/* Online softmax of one row: s becomes exp(s - top), rounded to the dtype; what was summed and
 * multiplied before shrinks when the maximum grows.  A row with nothing to attend to stays zero; a
 * NaN, which no maximum shows, goes on through the sum. */
static void flash_row(const softmax_args *p, const flash_state *f, int64_t i, int64_t n)
{
    float *s = f->s + i * ATTN_KV, *out = f->out + i * panel_n(p->d);
    const float seen = vec_max(s, n), top = seen > f->top[i] ? seen : f->top[i];
    const float base = top == -INFINITY ? 0.0f : top;
    const float shrink = vec_exp(f->top[i] - base);

    for (int64_t j = 0; j < n; j++)
        s[j] = vec_exp(s[j] - base);
    f->sum[i] = f->sum[i] * shrink + vec_sum(s, n);
    if (p->pairs)
        vec_narrow(MP_BF16, p->c->e4m3, s, f->p + i * ATTN_KV / 2, n);
    else
        vec_round(p->q.dtype, p->c->e4m3, s, n);
    if (shrink != 1.0f)
        for (int64_t j = 0; j < p->d; j++)
            out[j] *= shrink;
    f->top[i] = top;
}

static void flash_block(const softmax_args *p, const flash_state *f, int64_t b, int64_t head,
                        int64_t q0, int64_t m, int64_t k0)
{
    const int64_t n = vec_min(ATTN_KV, p->sk - k0), kv = head / (p->heads / p->kv_heads);

    const int64_t d = panel_k(p->pairs, p->d), wide = panel_n(p->d), rows = panel_m(p->pairs, m);
    const int64_t keys = panel_k(p->pairs, n);

    pack_keys(p, b * p->sk + k0, n, kv, f->rows, f->k);
    pack_values(p, b * p->sk + k0, n, kv, f->rows, f->v);
    if (mp_given(p->o->mask))
        vec_widen(p->o->mask.store,
                  (const char *)p->o->mask.data +
                      (size_t)(b * p->sk + k0) * mp_dtype_size(p->o->mask.store),
                  f->mask, n);
    if (mp_given(p->o->bias))
        load_bias(p, head, q0, m, k0, n, f->bias);
    panel_product(p->pairs, f->q, d, f->k, rows, panel_n(n), d, false, f->s, ATTN_KV);
    for (int64_t i = 0; i < m; i++) {
        flash_scores(p, f, f->s + i * ATTN_KV, m - 1 - i, q0 + i, k0, n);
        flash_row(p, f, i, n);
    }
    if (p->pairs)
        panel_fill_up(true, f->p, ATTN_KV / 2, m, n, keys);
    panel_product(p->pairs, p->pairs ? f->p : f->s, p->pairs ? ATTN_KV / 2 : ATTN_KV, f->v, rows,
                  wide, keys, true, f->out, wide);
}

static void flash_task(void *arg, int64_t task, int worker)
{
    const softmax_args *p = arg;
    const int64_t q0 = task % p->blocks * p->block, m = vec_min(p->block, p->sq - q0);
    const int64_t head = task / p->blocks % p->heads, b = task / (p->blocks * p->heads);
    const int64_t wide = panel_n(p->d);
    const flash_state f = flash_place(p, mp_scratch(p->c, worker));

    load_queries(p, b * p->sq + q0, m, head, f.q, panel_k(p->pairs, p->d));
    memset(f.out, 0, (size_t)(p->block * wide) * sizeof *f.out);
    for (int64_t i = 0; i < m; i++) {
        f.top[i] = -INFINITY;
        f.sum[i] = 0.0f;
    }
    for (int64_t k0 = 0; k0 < p->sk; k0 += ATTN_KV)
        flash_block(p, &f, b, head, q0, m, k0);
    for (int64_t i = 0; i < m; i++) {
        const float r = f.sum[i] == 0.0f ? 0.0f : 1.0f / f.sum[i];
        for (int64_t j = 0; j < p->d; j++)
            f.out[i * wide + j] *= r;
    }
    store_head(p, f.out, b * p->sq + q0, m, head);
}

/* transformers' eager form: whole rows of scores, rounded after each step. */
static void eager_row(const softmax_args *p, float *s, const float *bias, const float *mask,
                      int64_t query)
{
    const mp_e4m3_overflow mode = p->c->e4m3;
    const mp_dtype d = p->q.dtype;
    const float cap = p->o->softcap;

    vec_round(d, mode, s, p->sk);
    for (int64_t j = 0; j < p->sk; j++)
        s[j] = s[j] * p->scale;
    vec_round(d, mode, s, p->sk);
    if (cap > 0.0f) {
        for (int64_t j = 0; j < p->sk; j++)
            s[j] = s[j] / cap;
        vec_round(d, mode, s, p->sk);
        for (int64_t j = 0; j < p->sk; j++)
            s[j] = vec_tanh(s[j]);
        vec_round(d, mode, s, p->sk);
        for (int64_t j = 0; j < p->sk; j++)
            s[j] = s[j] * cap;
        vec_round(d, mode, s, p->sk);
    }
    if (bias) {
        for (int64_t j = 0; j < p->sk; j++)
            s[j] = s[j] + bias[j];
        vec_round(d, mode, s, p->sk);
    }
    if (mask || p->o->causal) {
        for (int64_t j = 0; j < p->sk; j++)
            s[j] = s[j] + (attends(p, query, j) ? (mask ? mask[j] : 0.0f) : p->lowest);
        vec_round(d, mode, s, p->sk);
    }
    const float top = vec_max(s, p->sk);
    for (int64_t j = 0; j < p->sk; j++)
        s[j] = vec_exp(s[j] - top);
    const float sum_ = vec_sum(s, p->sk);
    for (int64_t j = 0; j < p->sk; j++)
        s[j] = s[j] / sum_;
    vec_round(d, mode, s, p->sk);
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
    p.lowest = -(float)mp_dtype_max(q.dtype);
    p.block = ATTN_Q;
    if (eager) /* whole rows, but few of them at a time */
        p.block = vec_min(ATTN_Q, ATTN_SCORES / (p.sk ? p.sk : 1) + 1);
    p.blocks = (p.sq + p.block - 1) / p.block;
    const size_t floats = eager ? eager_floats(&p) : flash_floats(&p);
    if (mp_scratch_reserve(c, floats * sizeof(float)))
        mp_parallel(c, q.dim[0] * p.heads * p.blocks, eager ? eager_task : flash_task, &p);
}

/* Tokens [n0, n0+n) of one head as fp32 rows `ld` apart, optionally rectified. */
static void load_tokens(const mp_heads *h, int64_t batch, int64_t tokens, int64_t head, int64_t n0,
                        int64_t n, int64_t d, bool relu, float *to, int64_t ld)
{
    const size_t size = mp_dtype_size(h->t.store);

    for (int64_t i = 0; i < n; i++) {
        const int64_t at = h->at + (batch * tokens + n0 + i) * h->token + head * h->head;
        float *row = to + i * ld;
        vec_widen(h->t.store, (const char *)h->t.data + (size_t)at * size, row, d);
        if (relu)
            act_run(MP_ACT_RELU, h->t.dtype, MP_E4M3_SATURATE, row, row, d);
    }
}

/* Scratch of linear attention, e = d + 1: tokens [N, d] as they come, packed [N, e], turned [e, N];
 * the state [e, d] and packed [d, e]; the result [N, e]. */
typedef struct linear_state {
    float *rows, *packed, *turned, *state, *packed_state, *out;
    int64_t wide; /* e filled up */
} linear_state;

static linear_state linear_place(int64_t d, float *at)
{
    linear_state s = {.rows = at, .wide = panel_n(d + 1)};
    const int64_t rows = panel_m(false, d + 1);

    s.packed = s.rows + panel_m(false, ATTN_N) * d;
    s.turned = s.packed + ATTN_N * s.wide;
    s.state = s.turned + rows * ATTN_N;
    s.packed_state = s.state + panel_up(rows, PANEL_N) * s.wide;
    s.out = s.packed_state + d * s.wide;
    return s;
}

static size_t attn_linear_floats(int64_t d)
{
    const int64_t wide = panel_n(d + 1), rows = panel_m(false, d + 1);
    const int64_t tokens = panel_m(false, ATTN_N);

    return (size_t)(tokens * (d + wide) + ATTN_N * (wide + rows) +
                    (panel_up(rows, PANEL_N) + d) * wide);
}

/* state = sum over tokens of [v; 1] relu(k)^T, block after block. */
static void attn_linear_state(const mp_attn_linear_args *a, int64_t b, int64_t head,
                              const linear_state *s)
{
    const int64_t d = a->d;

    for (int64_t n0 = 0; n0 < a->tokens; n0 += ATTN_N) {
        const int64_t n = vec_min(ATTN_N, a->tokens - n0);
        load_tokens(&a->v, b, a->tokens, head, n0, n, d, false, s->rows, d);
        panel_transpose(s->rows, d, panel_up(n, PANEL_TURN), d, s->turned, ATTN_N);
        for (int64_t i = 0; i < n; i++)
            s->turned[d * ATTN_N + i] = 1.0f;
        load_tokens(&a->k, b, a->tokens, head, n0, n, d, true, s->rows, d);
        panel_pack_rows(false, MP_F32, s->rows, d, n, d, NULL, s->packed);
        panel_product(false, s->turned, ATTN_N, s->packed, panel_m(false, d + 1), panel_n(d), n,
                      n0 > 0, s->state, s->wide);
    }
}

typedef struct attn_linear_job {
    mp_ctx *c;
    const mp_attn_linear_args *a;
} attn_linear_job;

static void attn_linear_store(const attn_linear_job *j, int64_t b, int64_t head, int64_t token,
                              const float *row)
{
    const mp_heads *y = &j->a->y;
    const int64_t at = y->at + (b * j->a->tokens + token) * y->token + head * y->head;

    vec_narrow(y->t.store, j->c->e4m3, row,
               (char *)y->t.data + (size_t)at * mp_dtype_size(y->t.store), j->a->d);
}

static void attn_linear_task(void *arg, int64_t task, int worker)
{
    const attn_linear_job *j = arg;
    const mp_attn_linear_args *a = j->a;
    const int64_t d = a->d, e = d + 1, head = task % a->heads, b = task / a->heads;
    const linear_state s = linear_place(d, mp_scratch(j->c, worker));

    attn_linear_state(a, b, head, &s);
    panel_pack_columns(false, MP_F32, s.state, s.wide, e, d, s.rows, d, s.packed_state);
    for (int64_t n0 = 0; n0 < a->tokens; n0 += ATTN_N) {
        const int64_t n = vec_min(ATTN_N, a->tokens - n0);
        load_tokens(&a->q, b, a->tokens, head, n0, n, d, true, s.rows, d);
        panel_product(false, s.rows, d, s.packed_state, panel_m(false, n), s.wide, d, false, s.out,
                      s.wide);
        for (int64_t i = 0; i < n; i++) {
            float *row = s.out + i * s.wide;
            const float norm = row[d] + a->eps;
            for (int64_t k = 0; k < d; k++)
                row[k] = row[k] / norm;
            attn_linear_store(j, b, head, n0 + i, row);
        }
    }
}

static void attn_linear(mp_ctx *c, const mp_attn_linear_args *a)
{
    attn_linear_job j = {c, a};

    if (mp_numel(a->y.t) == 0)
        return;
    if (mp_scratch_reserve(c, attn_linear_floats(a->d) * sizeof(float)))
        mp_parallel(c, a->batch * a->heads, attn_linear_task, &j);
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

    load_tokens(&a->q, b, n, head, 0, n, d, true, q, d);
    load_tokens(&a->k, b, n, head, 0, n, d, true, k, d);
    load_tokens(&a->v, b, n, head, 0, n, d, false, v, d);
    for (int64_t i = 0; i < n; i++) {
        quadratic_scores(j, q + i * d, k, s);
        memset(row, 0, (size_t)d * sizeof *row);
        for (int64_t t = 0; t < n; t++)
            for (int64_t x = 0; x < d; x++)
                row[x] += v[t * d + x] * s[t];
        attn_linear_store(j, b, head, i, row);
    }
}

static void attn_quadratic(mp_ctx *c, const mp_attn_linear_args *a)
{
    attn_linear_job j = {c, a};

    if (mp_numel(a->y.t) == 0)
        return;
    if (mp_scratch_reserve(c, (size_t)(3 * a->tokens * a->d + a->tokens + a->d) * sizeof(float)))
        mp_parallel(c, a->batch * a->heads, attn_quadratic_task, &j);
}
