/* Attention.  Included by kernels/cpu/isa.c only.
 *
 * Softmax attention works on a block of queries of one head at a time; keys and values pass by in
 * blocks, widened to fp32.  Linear attention keeps one [d+1, d] state per head. */

enum { ATTN_Q = 128, ATTN_KV = 512, ATTN_SCORES = 1 << 18, ATTN_N = 256 };

typedef struct softmax_args {
    mp_ctx *c;
    const mp_attn_opts *o;
    mp_tensor q, k, v, y;
    int64_t sq, sk, d, heads, kv_heads, block, blocks;
    float scale, lowest; /* lowest: the dtype's most negative value, transformers' mask */
} softmax_args;

/* Rows of one head as a dense fp32 block [n, d]. */
static void load_head(mp_tensor t, int64_t row, int64_t n, int64_t heads, int64_t head, int64_t d,
                      float *to)
{
    const size_t size = mp_dtype_size(t.store);

    for (int64_t i = 0; i < n; i++) {
        const int64_t at = ((row + i) * heads + head) * d;
        vec_widen(t.store, (const char *)t.data + (size_t)at * size, to + i * d, d);
    }
}

static void store_head(const softmax_args *p, const float *from, int64_t row, int64_t n,
                       int64_t head)
{
    for (int64_t i = 0; i < n; i++) {
        const int64_t at = ((row + i) * p->heads + head) * p->d;
        vec_narrow(p->y.store, p->c->e4m3, from + i * p->d,
                   (char *)p->y.data + (size_t)at * mp_dtype_size(p->y.store), p->d);
    }
}

static inline bool attends(const softmax_args *p, int64_t query, int64_t key)
{
    if (!p->o->causal)
        return true;
    return key <= query && (!p->o->window || key > query - p->o->window);
}

/* s = q k^T for m queries and n keys. */
static void score_block(const float *q, const float *k, int64_t m, int64_t n, int64_t d, float *s,
                        int64_t ld)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)m, (int)n, (int)d, 1.0f, q, (int)d, k,
                (int)d, 0.0f, s, (int)ld);
}

typedef struct flash_state {
    float *q, *k, *v, *s, *out; /* [block, d], [KV, d], [KV, d], [block, KV], [block, d] */
    float *top, *sum, *mask;    /* [block], [block], [KV] */
    float *bias;                /* [block + KV], if there is one */
} flash_state;

static flash_state flash_scratch(const softmax_args *p, float *at)
{
    flash_state f;

    f.q = at;
    f.k = f.q + p->block * p->d;
    f.v = f.k + ATTN_KV * p->d;
    f.s = f.v + ATTN_KV * p->d;
    f.out = f.s + p->block * ATTN_KV;
    f.top = f.out + p->block * p->d;
    f.sum = f.top + p->block;
    f.mask = f.sum + p->block;
    f.bias = f.mask + ATTN_KV;
    return f;
}

static size_t flash_floats(const softmax_args *p)
{
    return (size_t)(2 * p->block * p->d + 2 * ATTN_KV * p->d + p->block * ATTN_KV + 2 * p->block +
                    ATTN_KV + (mp_given(p->o->bias) ? p->block + ATTN_KV : 0));
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
    float *s = f->s + i * ATTN_KV, *out = f->out + i * p->d;
    const float seen = vec_max(s, n), top = seen > f->top[i] ? seen : f->top[i];
    const float base = top == -INFINITY ? 0.0f : top;
    const float shrink = vec_exp(f->top[i] - base);

    for (int64_t j = 0; j < n; j++)
        s[j] = vec_exp(s[j] - base);
    f->sum[i] = f->sum[i] * shrink + vec_sum(s, n);
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

    load_head(p->k, b * p->sk + k0, n, p->kv_heads, kv, p->d, f->k);
    load_head(p->v, b * p->sk + k0, n, p->kv_heads, kv, p->d, f->v);
    if (mp_given(p->o->mask))
        vec_widen(p->o->mask.store,
                  (const char *)p->o->mask.data +
                      (size_t)(b * p->sk + k0) * mp_dtype_size(p->o->mask.store),
                  f->mask, n);
    if (mp_given(p->o->bias))
        load_bias(p, head, q0, m, k0, n, f->bias);
    score_block(f->q, f->k, m, n, p->d, f->s, ATTN_KV);
    for (int64_t i = 0; i < m; i++) {
        flash_scores(p, f, f->s + i * ATTN_KV, m - 1 - i, q0 + i, k0, n);
        flash_row(p, f, i, n);
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)m, (int)p->d, (int)n, 1.0f, f->s,
                ATTN_KV, f->v, (int)p->d, 1.0f, f->out, (int)p->d);
}

static void flash_task(void *arg, int64_t task, int worker)
{
    const softmax_args *p = arg;
    const flash_state f = flash_scratch(p, mp_scratch(p->c, worker));
    const int64_t q0 = task % p->blocks * p->block, m = vec_min(p->block, p->sq - q0);
    const int64_t head = task / p->blocks % p->heads, b = task / (p->blocks * p->heads);

    load_head(p->q, b * p->sq + q0, m, p->heads, head, p->d, f.q);
    memset(f.out, 0, (size_t)(m * p->d) * sizeof *f.out);
    for (int64_t i = 0; i < m; i++) {
        f.top[i] = -INFINITY;
        f.sum[i] = 0.0f;
    }
    for (int64_t k0 = 0; k0 < p->sk; k0 += ATTN_KV)
        flash_block(p, &f, b, head, q0, m, k0);
    for (int64_t i = 0; i < m; i++) {
        const float r = f.sum[i] == 0.0f ? 0.0f : 1.0f / f.sum[i];
        for (int64_t j = 0; j < p->d; j++)
            f.out[i * p->d + j] *= r;
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

/* Scratch: q and out [block, d], a block of keys or values [KV, d], scores [block, sk], mask [sk],
 * bias [block + sk]. */
static size_t eager_floats(const softmax_args *p)
{
    return (size_t)(2 * p->block * p->d + ATTN_KV * p->d + p->block * p->sk + p->sk +
                    (mp_given(p->o->bias) ? p->block + p->sk : 0));
}

static void eager_task(void *arg, int64_t task, int worker)
{
    const softmax_args *p = arg;
    const int64_t q0 = task % p->blocks * p->block, m = vec_min(p->block, p->sq - q0);
    const int64_t head = task / p->blocks % p->heads, b = task / (p->blocks * p->heads);
    const int64_t kv = head / (p->heads / p->kv_heads), d = p->d;
    float *q = mp_scratch(p->c, worker), *out = q + p->block * d, *block = out + p->block * d;
    float *s = block + ATTN_KV * d, *row = s + p->block * p->sk, *bias = row + p->sk;
    const float *mask = mp_given(p->o->mask) ? vec_read(p->o->mask, b * p->sk, p->sk, row) : NULL;

    load_head(p->q, b * p->sq + q0, m, p->heads, head, d, q);
    for (int64_t k0 = 0; k0 < p->sk; k0 += ATTN_KV) {
        const int64_t n = vec_min(ATTN_KV, p->sk - k0);
        load_head(p->k, b * p->sk + k0, n, p->kv_heads, kv, d, block);
        score_block(q, block, m, n, d, s + k0, p->sk);
    }
    const bool biased = mp_given(p->o->bias) && p->sk;
    if (biased)
        load_bias(p, head, q0, m, 0, p->sk, bias);
    for (int64_t i = 0; i < m; i++)
        eager_row(p, s + i * p->sk, biased ? bias + (m - 1 - i) : NULL, mask, q0 + i);
    memset(out, 0, (size_t)(m * d) * sizeof *out);
    for (int64_t k0 = 0; k0 < p->sk; k0 += ATTN_KV) {
        const int64_t n = vec_min(ATTN_KV, p->sk - k0);
        load_head(p->v, b * p->sk + k0, n, p->kv_heads, kv, d, block);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)m, (int)d, (int)n, 1.0f, s + k0,
                    (int)p->sk, block, (int)d, 1.0f, out, (int)d);
    }
    store_head(p, out, b * p->sq + q0, m, head);
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

/* q or k [N, d], v with a column of ones [N, d+1], state [d+1, d], result [N, d+1]. */
static size_t attn_linear_floats(int64_t d)
{
    return (size_t)(ATTN_N * d + 2 * ATTN_N * (d + 1) + (d + 1) * d);
}

/* state = sum over tokens of [v; 1] relu(k)^T, block after block. */
static void attn_linear_state(const mp_attn_linear_args *a, int64_t b, int64_t head, float *kq,
                              float *v, float *state)
{
    const int64_t d = a->d, e = d + 1;

    memset(state, 0, (size_t)(e * d) * sizeof *state);
    for (int64_t n0 = 0; n0 < a->tokens; n0 += ATTN_N) {
        const int64_t n = vec_min(ATTN_N, a->tokens - n0);
        load_tokens(&a->k, b, a->tokens, head, n0, n, d, true, kq, d);
        load_tokens(&a->v, b, a->tokens, head, n0, n, d, false, v, e);
        for (int64_t i = 0; i < n; i++)
            v[i * e + d] = 1.0f;
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)e, (int)d, (int)n, 1.0f, v,
                    (int)e, kq, (int)d, 1.0f, state, (int)d);
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
    float *kq = mp_scratch(j->c, worker), *v = kq + ATTN_N * d;
    float *out = v + ATTN_N * e, *state = out + ATTN_N * e;

    attn_linear_state(a, b, head, kq, v, state);
    for (int64_t n0 = 0; n0 < a->tokens; n0 += ATTN_N) {
        const int64_t n = vec_min(ATTN_N, a->tokens - n0);
        load_tokens(&a->q, b, a->tokens, head, n0, n, d, true, kq, d);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n, (int)e, (int)d, 1.0f, kq,
                    (int)d, state, (int)d, 0.0f, out, (int)e);
        for (int64_t i = 0; i < n; i++) {
            float *row = out + i * e;
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
