/* Elementwise kernels: widen a chunk, compute in fp32, round where the torch op would.  Included by
 * kernels/cpu/isa.c only. */

/* At most VEC_CHUNK values; y may be x.  torch's x**3 of fp16 rounds once, of bf16 after each
 * product. */
static inline void gelu_new_run(mp_dtype d, mp_e4m3_overflow mode, const float *x, float *y,
                                int64_t n)
{
    float t[VEC_CHUNK], half[VEC_CHUNK];

    for (int64_t i = 0; i < n; i++)
        t[i] = x[i] * x[i];
    if (d == MP_BF16)
        vec_round(d, mode, t, n);
    for (int64_t i = 0; i < n; i++)
        t[i] = t[i] * x[i];
    vec_round(d, mode, t, n);
    for (int64_t i = 0; i < n; i++)
        t[i] = t[i] * 0.044715f;
    vec_round(d, mode, t, n);
    for (int64_t i = 0; i < n; i++)
        t[i] = x[i] + t[i];
    vec_round(d, mode, t, n);
    for (int64_t i = 0; i < n; i++)
        t[i] = t[i] * 0.79788456080286535f;
    vec_round(d, mode, t, n);
    for (int64_t i = 0; i < n; i++)
        t[i] = vec_tanh(t[i]);
    vec_round(d, mode, t, n);
    for (int64_t i = 0; i < n; i++) {
        t[i] = 1.0f + t[i];
        half[i] = 0.5f * x[i];
    }
    vec_round(d, mode, t, n);
    vec_round(d, mode, half, n);
    for (int64_t i = 0; i < n; i++)
        y[i] = half[i] * t[i];
}

/* x * sigmoid(1.702 * x) of at most VEC_CHUNK values; what is inside rounds to the dtype twice. The
 * number stays fp32, as torch keeps it for a Python one.  y may be x. */
static inline void quick_gelu_run(mp_dtype dtype, mp_e4m3_overflow mode, const float *x, float *y,
                                  int64_t n)
{
    float t[VEC_CHUNK];

    for (int64_t i = 0; i < n; i++)
        t[i] = 1.702f * x[i];
    vec_round(dtype, mode, t, n);
    for (int64_t i = 0; i < n; i++)
        t[i] = vec_sigmoid(t[i]);
    vec_round(dtype, mode, t, n);
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] * t[i];
}

/* At most VEC_CHUNK values, in place or not; the caller rounds y.  d: the dtype that x had and y
 * will have, for what rounds on the way. */
static inline void act_run(mp_act act, mp_dtype d, mp_e4m3_overflow mode, const float *x, float *y,
                           int64_t n)
{
    switch (act) {
    case MP_ACT_NONE:
        memmove(y, x, (size_t)n * sizeof *y);
        return;
    case MP_ACT_SILU:
        for (int64_t i = 0; i < n; i++)
            y[i] = x[i] / (1.0f + vec_exp(-x[i]));
        return;
    case MP_ACT_RELU: /* a NaN stays */
        for (int64_t i = 0; i < n; i++)
            y[i] = x[i] < 0.0f ? 0.0f : x[i];
        return;
    case MP_ACT_RELU6:
        for (int64_t i = 0; i < n; i++)
            y[i] = x[i] < 0.0f ? 0.0f : x[i] > 6.0f ? 6.0f : x[i];
        return;
    case MP_ACT_GELU:
        for (int64_t i = 0; i < n; i++)
            y[i] = x[i] * 0.5f * (1.0f + vec_erf(x[i] * 0.70710678118654752f));
        return;
    case MP_ACT_GELU_TANH:
        for (int64_t i = 0; i < n; i++) {
            const float u = 0.79788456080286535f * (x[i] + 0.044715f * (x[i] * x[i] * x[i]));
            y[i] = 0.5f * x[i] * (1.0f + vec_tanh(u));
        }
        return;
    case MP_ACT_QUICK_GELU:
        quick_gelu_run(d, mode, x, y, n);
        return;
    case MP_ACT_TANH:
        for (int64_t i = 0; i < n; i++)
            y[i] = vec_tanh(x[i]);
        return;
    case MP_ACT_SIGMOID:
        for (int64_t i = 0; i < n; i++)
            y[i] = vec_sigmoid(x[i]);
        return;
    case MP_ACT_MISH: /* x tanh(log(1 + e^x)) */
        for (int64_t i = 0; i < n; i++)
            y[i] = x[i] * vec_tanh(log1pf(vec_exp(x[i])));
        return;
    case MP_ACT_GELU_NEW:
        gelu_new_run(d, mode, x, y, n);
        return;
    }
}

typedef struct flat_args {
    mp_ctx *c;
    int op; /* mp_act or mp_scalar_op */
    mp_tensor x, y;
    float a, b;
    int64_t n;
} flat_args;

static void activate_task(void *arg, int64_t task, int worker)
{
    const flat_args *f = arg;
    float in[VEC_CHUNK], out[VEC_CHUNK];
    const int64_t end = vec_min(f->n, (task + 1) * VEC_TASK);

    (void)worker;
    for (int64_t i = task * VEC_TASK; i < end; i += VEC_CHUNK) {
        const int64_t n = vec_min(VEC_CHUNK, end - i);
        float *y = vec_slot(f->y, i, out);
        act_run((mp_act)f->op, f->x.dtype, f->c->e4m3, vec_read(f->x, i, n, in), y, n);
        vec_commit(f->c->e4m3, f->y, i, y, n);
    }
}

static void activate(mp_ctx *c, mp_act act, mp_tensor x, mp_tensor y)
{
    flat_args f = {.c = c, .op = act, .x = x, .y = y, .n = mp_numel(x)};

    mp_parallel(c, vec_tasks(f.n, VEC_TASK), activate_task, &f);
}

static inline void scalar_run(mp_scalar_op op, const float *x, float a, float b, float *y,
                              int64_t n)
{
    switch (op) {
    case MP_SCALAR_CAST:
        memmove(y, x, (size_t)n * sizeof *y);
        return;
    case MP_SCALAR_ADD:
        for (int64_t i = 0; i < n; i++)
            y[i] = x[i] + a;
        return;
    case MP_SCALAR_MUL:
        for (int64_t i = 0; i < n; i++)
            y[i] = x[i] * a;
        return;
    case MP_SCALAR_DIV:
        for (int64_t i = 0; i < n; i++)
            y[i] = x[i] / a;
        return;
    case MP_SCALAR_CLIP: /* a NaN stays */
        for (int64_t i = 0; i < n; i++)
            y[i] = x[i] < a ? a : x[i] > b ? b : x[i];
        return;
    case MP_SCALAR_EXP:
        for (int64_t i = 0; i < n; i++)
            y[i] = vec_exp(x[i]);
        return;
    }
}

static void scalar_task(void *arg, int64_t task, int worker)
{
    const flat_args *f = arg;
    float in[VEC_CHUNK], out[VEC_CHUNK];
    const int64_t end = vec_min(f->n, (task + 1) * VEC_TASK);

    (void)worker;
    for (int64_t i = task * VEC_TASK; i < end; i += VEC_CHUNK) {
        const int64_t n = vec_min(VEC_CHUNK, end - i);
        float *y = vec_slot(f->y, i, out);
        scalar_run((mp_scalar_op)f->op, vec_read(f->x, i, n, in), f->a, f->b, y, n);
        vec_commit(f->c->e4m3, f->y, i, y, n);
    }
}

static void scalar(mp_ctx *c, mp_scalar_op op, mp_tensor x, float a, float b, mp_tensor y)
{
    flat_args f = {.c = c, .op = op, .x = x, .y = y, .a = a, .b = b, .n = mp_numel(x)};

    mp_parallel(c, vec_tasks(f.n, VEC_TASK), scalar_task, &f);
}

/* Offsets of the operands in row `row` of a strided shape (all but the last dimension). */
static inline void strided_row(const mp_strided *s, int64_t row, int64_t *a_at, int64_t *b_at)
{
    *a_at = *b_at = 0;
    for (int d = s->rank - 2; d >= 0; d--) {
        const int64_t i = row % s->dim[d];
        row /= s->dim[d];
        *a_at += i * s->a[d];
        *b_at += i * s->b[d];
    }
}

/* A strided shape cut into tasks: some rows each, or a piece of a long row. */
typedef struct strided_cut {
    int64_t rows, row, rows_per_task, pieces; /* pieces of a row; rows_per_task is 1 beside them */
} strided_cut;

static strided_cut cut_strided(const mp_strided *s)
{
    strided_cut cut = {.rows = 1, .row = s->dim[s->rank - 1]};

    for (int d = 0; d + 1 < s->rank; d++)
        cut.rows *= s->dim[d];
    cut.rows_per_task = vec_task_rows(cut.row);
    cut.pieces = cut.row > VEC_TASK ? vec_tasks(cut.row, VEC_TASK) : 1;
    return cut;
}

static int64_t cut_tasks(const strided_cut *cut)
{
    return vec_tasks(cut->rows, cut->rows_per_task) * cut->pieces;
}

/* Calls run with row, first and last element for every run of a task. */
static inline void each_cut_run(const strided_cut *cut, int64_t task, const void *args,
                                void (*run)(const void *, int64_t, int64_t, int64_t))
{
    const int64_t first = task / cut->pieces * cut->rows_per_task;
    const int64_t from = task % cut->pieces * VEC_TASK;
    const int64_t to = cut->pieces > 1 ? vec_min(cut->row, from + VEC_TASK) : cut->row;

    for (int64_t r = first; r < vec_min(cut->rows, first + cut->rows_per_task); r++)
        run(args, r, from, to);
}

typedef struct binary_args {
    mp_ctx *c;
    mp_binary_op op;
    const mp_strided *s;
    mp_tensor a, b, y;
    strided_cut cut;
} binary_args;

/* One side of a row: consecutive values, or one value for all of them. */
static inline const float *binary_side(mp_tensor t, int64_t at, int64_t stride, int64_t n,
                                       float *buffer)
{
    if (stride)
        return vec_read(t, at, n, buffer);
    const float value = *vec_read(t, at, 1, buffer);
    for (int64_t i = 0; i < n; i++)
        buffer[i] = value;
    return buffer;
}

static void binary_run(const void *arg, int64_t row, int64_t from, int64_t to)
{
    const binary_args *p = arg;
    float a_chunk[VEC_CHUNK], b_chunk[VEC_CHUNK], out[VEC_CHUNK];
    const int last = p->s->rank - 1;
    const int64_t sa = p->s->a[last], sb = p->s->b[last], y_at = row * p->cut.row;
    int64_t a_at, b_at;

    strided_row(p->s, row, &a_at, &b_at);
    for (int64_t i = from; i < to; i += VEC_CHUNK) {
        const int64_t n = vec_min(VEC_CHUNK, to - i);
        const float *a = binary_side(p->a, a_at + i * sa, sa, n, a_chunk);
        const float *b = binary_side(p->b, b_at + i * sb, sb, n, b_chunk);
        float *y = vec_slot(p->y, y_at + i, out);
        if (p->op == MP_BINARY_ADD)
            for (int64_t j = 0; j < n; j++)
                y[j] = a[j] + b[j];
        else
            for (int64_t j = 0; j < n; j++)
                y[j] = a[j] * b[j];
        vec_commit(p->c->e4m3, p->y, y_at + i, y, n);
    }
}

static void binary_task(void *arg, int64_t task, int worker)
{
    const binary_args *p = arg;

    (void)worker;
    each_cut_run(&p->cut, task, p, binary_run);
}

static void binary(mp_ctx *c, mp_binary_op op, const mp_strided *s, mp_tensor a, mp_tensor b,
                   mp_tensor y)
{
    binary_args p = {c, op, s, a, b, y, cut_strided(s)};

    mp_parallel(c, cut_tasks(&p.cut), binary_task, &p);
}

typedef struct where_args {
    mp_ctx *c;
    const uint8_t *mask;
    mp_tensor a, b, y;
    int64_t n;
} where_args;

static void where_task(void *arg, int64_t task, int worker)
{
    const where_args *w = arg;
    float a_chunk[VEC_CHUNK], b_chunk[VEC_CHUNK], out[VEC_CHUNK];
    const int64_t end = vec_min(w->n, (task + 1) * VEC_TASK);

    (void)worker;
    for (int64_t i = task * VEC_TASK; i < end; i += VEC_CHUNK) {
        const int64_t n = vec_min(VEC_CHUNK, end - i);
        const float *a = vec_read(w->a, i, n, a_chunk), *b = vec_read(w->b, i, n, b_chunk);
        float *y = vec_slot(w->y, i, out);
        for (int64_t j = 0; j < n; j++)
            y[j] = w->mask[i + j] ? a[j] : b[j];
        vec_commit(w->c->e4m3, w->y, i, y, n);
    }
}

static void where(mp_ctx *c, const uint8_t *mask, mp_tensor a, mp_tensor b, mp_tensor y)
{
    where_args w = {c, mask, a, b, y, mp_numel(y)};

    mp_parallel(c, vec_tasks(w.n, VEC_TASK), where_task, &w);
}

typedef struct gate_args {
    mp_ctx *c;
    mp_act act;
    mp_tensor g, u, y;
    int64_t g_at, u_at, stride, rows, n, rows_per_task;
} gate_args;

/* act rounds to g's dtype, the product to y's. */
static void gate_task(void *arg, int64_t task, int worker)
{
    const gate_args *p = arg;
    const mp_e4m3_overflow mode = p->c->e4m3;
    float g_chunk[VEC_CHUNK], u_chunk[VEC_CHUNK], a[VEC_CHUNK], out[VEC_CHUNK];
    const int64_t end = vec_min(p->rows, (task + 1) * p->rows_per_task);

    (void)worker;
    for (int64_t r = task * p->rows_per_task; r < end; r++)
        for (int64_t i = 0; i < p->n; i += VEC_CHUNK) {
            const int64_t n = vec_min(VEC_CHUNK, p->n - i);
            const int64_t at = r * p->stride + i, y_at = r * p->n + i;
            act_run(p->act, p->g.dtype, mode, vec_read(p->g, p->g_at + at, n, g_chunk), a, n);
            vec_round(p->g.dtype, mode, a, n);
            const float *u = vec_read(p->u, p->u_at + at, n, u_chunk);
            float *y = vec_slot(p->y, y_at, out);
            for (int64_t j = 0; j < n; j++)
                y[j] = a[j] * u[j];
            vec_commit(mode, p->y, y_at, y, n);
        }
}

static void gate(mp_ctx *c, mp_act act, mp_tensor g, int64_t g_at, mp_tensor u, int64_t u_at,
                 int64_t stride, mp_tensor y)
{
    gate_args p = {.c = c, .act = act, .g = g, .u = u, .y = y, .g_at = g_at, .u_at = u_at};

    p.stride = stride;
    p.rows = mp_rows(y);
    p.n = mp_dim(y, -1);
    p.rows_per_task = vec_task_rows(p.n);
    mp_parallel(c, vec_tasks(p.rows, p.rows_per_task), gate_task, &p);
}

typedef struct modulate_args {
    mp_ctx *c;
    mp_tensor x, shift, scale, y; /* add_gated: scale is the gate, shift is v */
    mp_dtype product;             /* what x * (1 + scale) rounds to */
    int64_t rows, rows_per_batch, n, rows_per_task;
} modulate_args;

/* Rows of one batch entry, n values each from `at` on, with parameters from `param` on. */
static void modulate_run(const modulate_args *p, int64_t at, int64_t param, int64_t n, int64_t rows)
{
    const mp_e4m3_overflow mode = p->c->e4m3;
    float x_chunk[VEC_CHUNK], scale[VEC_CHUNK], shift[VEC_CHUNK], t[VEC_CHUNK], out[VEC_CHUNK];
    const float *s = vec_read(p->scale, param, n, scale);
    const float *b = vec_read(p->shift, param, n, shift);

    for (int64_t j = 0; j < n; j++)
        scale[j] = 1.0f + s[j];
    vec_round(p->scale.dtype, mode, scale, n);
    for (int64_t r = 0; r < rows; r++, at += p->n) {
        const float *x = vec_read(p->x, at, n, x_chunk);
        for (int64_t j = 0; j < n; j++)
            t[j] = x[j] * scale[j];
        vec_round(p->product, mode, t, n);
        float *y = vec_slot(p->y, at, out);
        for (int64_t j = 0; j < n; j++)
            y[j] = t[j] + b[j];
        vec_commit(mode, p->y, at, y, n);
    }
}

static void add_gated_run(const modulate_args *p, int64_t at, int64_t param, int64_t n,
                          int64_t rows)
{
    const mp_e4m3_overflow mode = p->c->e4m3;
    float x_chunk[VEC_CHUNK], v_chunk[VEC_CHUNK], gate_[VEC_CHUNK], t[VEC_CHUNK], out[VEC_CHUNK];
    const float *g = vec_read(p->scale, param, n, gate_);

    for (int64_t r = 0; r < rows; r++, at += p->n) {
        const float *v = vec_read(p->shift, at, n, v_chunk);
        for (int64_t j = 0; j < n; j++)
            t[j] = g[j] * v[j];
        vec_round(p->product, mode, t, n);
        const float *x = vec_read(p->x, at, n, x_chunk);
        float *y = vec_slot(p->y, at, out);
        for (int64_t j = 0; j < n; j++)
            y[j] = x[j] + t[j];
        vec_commit(mode, p->y, at, y, n);
    }
}

/* Calls run for the chunks of a task's rows, as many rows at once as share their parameters. */
static inline void each_modulated_chunk(const modulate_args *p, int64_t task,
                                        void (*run)(const modulate_args *, int64_t, int64_t,
                                                    int64_t, int64_t))
{
    const int64_t end = vec_min(p->rows, (task + 1) * p->rows_per_task);

    for (int64_t r = task * p->rows_per_task, next; r < end; r = next) {
        const int64_t batch = r / p->rows_per_batch;
        next = vec_min(end, (batch + 1) * p->rows_per_batch);
        for (int64_t i = 0; i < p->n; i += VEC_CHUNK)
            run(p, r * p->n + i, batch * p->n + i, vec_min(VEC_CHUNK, p->n - i), next - r);
    }
}

static void modulate_task(void *arg, int64_t task, int worker)
{
    (void)worker;
    each_modulated_chunk(arg, task, modulate_run);
}

static void add_gated_task(void *arg, int64_t task, int worker)
{
    (void)worker;
    each_modulated_chunk(arg, task, add_gated_run);
}

static modulate_args modulate_args_of(mp_ctx *c, mp_tensor x, mp_tensor shift, mp_tensor scale,
                                      mp_dtype product, mp_tensor y)
{
    modulate_args p = {.c = c, .x = x, .shift = shift, .scale = scale, .y = y, .product = product};

    p.n = mp_dim(x, -1);
    p.rows = mp_rows(x);
    p.rows_per_batch = x.dim[0] ? p.rows / x.dim[0] : 1;
    p.rows_per_task = vec_task_rows(p.n);
    return p;
}

static void modulate(mp_ctx *c, mp_tensor x, mp_tensor shift, mp_tensor scale, mp_tensor y)
{
    modulate_args p =
        modulate_args_of(c, x, shift, scale, mp_dtype_promote(x.dtype, scale.dtype), y);

    mp_parallel(c, vec_tasks(p.rows, p.rows_per_task), modulate_task, &p);
}

static void add_gated(mp_ctx *c, mp_tensor x, mp_tensor gate_, mp_tensor v, mp_tensor y)
{
    modulate_args p = modulate_args_of(c, x, v, gate_, mp_dtype_promote(gate_.dtype, v.dtype), y);

    mp_parallel(c, vec_tasks(p.rows, p.rows_per_task), add_gated_task, &p);
}

typedef struct rope_args {
    mp_ctx *c;
    mp_tensor x, cos, sin, y;
    int64_t rows, sequence, heads, d;
} rope_args;

/* One head of one token: (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin), every step rounded. */
static void rope_head(const rope_args *p, int64_t at, const float *cs, const float *sn, float *x,
                      float *turned)
{
    const mp_e4m3_overflow mode = p->c->e4m3;
    const int64_t d = p->d, half = d / 2;
    const float *in = vec_read(p->x, at, d, x);

    for (int64_t j = 0; j < half; j++) {
        turned[j] = -in[j + half] * sn[j];
        turned[j + half] = in[j] * sn[j + half];
    }
    vec_round(p->y.dtype, mode, turned, d);
    for (int64_t j = 0; j < d; j++)
        x[j] = in[j] * cs[j];
    vec_round(p->y.dtype, mode, x, d);
    float *y = vec_slot(p->y, at, x);
    for (int64_t j = 0; j < d; j++)
        y[j] = x[j] + turned[j];
    vec_commit(mode, p->y, at, y, d);
}

static void rope_task(void *arg, int64_t row, int worker)
{
    const rope_args *p = arg;
    float *buffer = mp_scratch(p->c, worker);
    const int64_t s = row % p->sequence;
    const float *cs = vec_read(p->cos, s * p->d, p->d, buffer);
    const float *sn = vec_read(p->sin, s * p->d, p->d, buffer + p->d);

    for (int64_t h = 0; h < p->heads; h++)
        rope_head(p, (row * p->heads + h) * p->d, cs, sn, buffer + 2 * p->d, buffer + 3 * p->d);
}

static void rope_half(mp_ctx *c, mp_tensor x, mp_tensor cos_, mp_tensor sin_, int heads,
                      mp_tensor y)
{
    rope_args p = {c, x, cos_, sin_, y, mp_rows(x), x.dim[1], heads, mp_dim(x, -1) / heads};

    if (mp_scratch_reserve(c, (size_t)(4 * p.d) * sizeof(float)))
        mp_parallel(c, p.rows, rope_task, &p);
}
