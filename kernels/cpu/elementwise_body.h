/* Elementwise kernels: registers of the operands widen, are computed on in fp32, and round where
 * the torch op would.  Included by kernels/cpu/isa.c only. */

REG reg reg_read(mp_dtype common, mp_tensor t, int64_t at, int64_t n)
{
    return reg_load(reg_own(common, t.store), t.data, at, n);
}

REG void reg_write(mp_dtype common, mp_e4m3_overflow mode, reg v, mp_tensor y, int64_t at,
                   int64_t n)
{
    reg_store(reg_own(common, y.store), mode, v, y.data, at, n);
}

/* The tensor from its at-th value on. */
static inline mp_tensor reg_from(mp_tensor t, int64_t at)
{
    t.data = (char *)t.data + (size_t)at * mp_dtype_size(t.store);
    return t;
}

/* x / 2 (1 + erf(x / sqrt 2)), erf = 1 - e with x's sign, e = erfc(|x| / sqrt 2): its logarithm is
 * a polynomial of |x|, minimax for e, so that erf is off by 1.6e-8 and what rounding adds. */
REG void gelu(int k, reg *x)
{
    static const float c[] = {-1.971306801e-6f, 2.736927672e-5f, -1.294023095e-4f,
                              -9.407396283e-5f, 4.894896410e-3f, -3.638682514e-2f,
                              -3.182991147e-1f, -7.978852987e-1f};
    const reg one = reg_fill(1.0f), half = reg_fill(0.5f);
    reg a[REG_MOST], e[REG_MOST];

    REG_EACH(i, k)
    a[i] = reg_abs(x[i]);
    reg_polynomial(k, c, 8, a, e);
    REG_EACH(i, k)
    e[i] = e[i] * a[i];
    reg_exp(k, e);
    REG_EACH(i, k)
    x[i] = x[i] * half * (one + reg_signed(one - e[i], x[i]));
}

REG void gelu_tanh(int k, reg *x)
{
    const reg half = reg_fill(0.5f), one = reg_fill(1.0f);
    reg t[REG_MOST];

    REG_EACH(i, k)
    t[i] = reg_fill(0.79788456080286535f) * reg_fma(reg_fill(0.044715f), x[i] * x[i] * x[i], x[i]);
    reg_tanh(k, t);
    REG_EACH(i, k)
    x[i] = half * x[i] * (one + t[i]);
}

REG void silu(int k, reg *x)
{
    reg e[REG_MOST];

    REG_EACH(i, k)
    e[i] = -x[i];
    reg_exp(k, e);
    REG_EACH(i, k)
    x[i] = reg_divide(x[i], reg_fill(1.0f) + e[i]);
}

/* x tanh(log(1 + e)) = x (e^2 + 2 e) / (e^2 + 2 e + 2), e = exp(x); beyond 20 it is x. */
REG void mish(int k, reg *x)
{
    const reg two = reg_fill(2.0f);
    reg e[REG_MOST];

    REG_EACH(i, k)
    e[i] = reg_min(reg_fill(20.0f), x[i]);
    reg_exp(k, e);
    REG_EACH(i, k)
    {
        const reg n = e[i] * (e[i] + two);
        x[i] = x[i] * reg_divide(n, n + two);
    }
}

REG void round_all(int k, mp_dtype d, mp_e4m3_overflow mode, reg *x)
{
    REG_EACH(i, k)
    x[i] = reg_round(d, mode, x[i]);
}

/* transformers' NewGELUActivation, every op of which rounds.  torch's x**3 of fp16 rounds once, of
 * bf16 after each product. */
REG void gelu_new(int k, mp_dtype d, mp_e4m3_overflow mode, reg *x)
{
    reg t[REG_MOST];

    REG_EACH(i, k)
    {
        const reg square = x[i] * x[i];
        t[i] = reg_round(d, mode, (d == MP_BF16 ? reg_round(d, mode, square) : square) * x[i]);
        t[i] = reg_round(d, mode, t[i] * reg_fill(0.044715f));
        t[i] = reg_round(d, mode, x[i] + t[i]);
        t[i] = reg_round(d, mode, t[i] * reg_fill(0.79788456080286535f));
    }
    reg_tanh(k, t);
    REG_EACH(i, k)
    {
        t[i] = reg_round(d, mode, reg_fill(1.0f) + reg_round(d, mode, t[i]));
        x[i] = reg_round(d, mode, reg_fill(0.5f) * x[i]) * t[i];
    }
}

/* The number stays fp32, as torch keeps it for a Python one. */
REG void quick_gelu(int k, mp_dtype d, mp_e4m3_overflow mode, reg *x)
{
    reg t[REG_MOST];

    REG_EACH(i, k)
    t[i] = reg_round(d, mode, reg_fill(1.702f) * x[i]);
    reg_sigmoid(k, t);
    REG_EACH(i, k)
    x[i] = x[i] * reg_round(d, mode, t[i]);
}

/* d: the dtype that x had and the result will have, for what rounds on the way; the caller rounds
 * the result. */
REG void act_values(mp_act act, mp_dtype d, mp_e4m3_overflow mode, int k, reg *x)
{
    const reg zero = reg_fill(0.0f);

    switch (act) {
    case MP_ACT_NONE:
        return;
    case MP_ACT_SILU:
        silu(k, x);
        return;
    case MP_ACT_RELU: /* a NaN stays */
        REG_EACH(i, k)
        x[i] = reg_max(zero, x[i]);
        return;
    case MP_ACT_RELU6:
        REG_EACH(i, k)
        x[i] = reg_min(reg_fill(6.0f), reg_max(zero, x[i]));
        return;
    case MP_ACT_GELU:
        gelu(k, x);
        return;
    case MP_ACT_GELU_TANH:
        gelu_tanh(k, x);
        return;
    case MP_ACT_QUICK_GELU:
        quick_gelu(k, d, mode, x);
        return;
    case MP_ACT_TANH:
        reg_tanh(k, x);
        return;
    case MP_ACT_SIGMOID:
        reg_sigmoid(k, x);
        return;
    case MP_ACT_MISH:
        mish(k, x);
        return;
    case MP_ACT_GELU_NEW:
        gelu_new(k, d, mode, x);
        return;
    }
}

typedef struct act_args {
    mp_e4m3_overflow mode;
    mp_tensor x, u, y; /* u: only of a gate */
} act_args;

/* y = act(x): as many registers as n fills.  Of a gate act rounds to x's dtype and the product with
 * u to y's. */
REG void act_step(const act_args *p, mp_act act, bool gated, mp_dtype d, int64_t at, int64_t n)
{
    const mp_dtype own = reg_own(d, p->x.dtype);
    const int k = n > REG_LANES ? REG_MOST : 1;
    const int64_t each = n > REG_LANES ? REG_LANES : n;
    reg x[REG_MOST];

    REG_EACH(i, k)
    x[i] = reg_read(d, p->x, at + i * REG_LANES, each);
    act_values(act, own, p->mode, k, x);
    REG_EACH(i, k)
    {
        if (gated)
            x[i] = reg_round(own, p->mode, x[i]) * reg_read(d, p->u, at + i * REG_LANES, each);
        reg_write(d, p->mode, x[i], p->y, at + i * REG_LANES, each);
    }
}

REG void activate_step(const void *args, int act, mp_dtype d, int64_t at, int64_t n)
{
    act_step(args, (mp_act)act, false, d, at, n);
}

REG void gate_step(const void *args, int act, mp_dtype d, int64_t at, int64_t n)
{
    act_step(args, (mp_act)act, true, d, at, n);
}

/* The steps of values [0, n): loops of their own for the activations that models have there, one
 * for each dtype; for others the dtype is looked up at each step. */
#define ACT(id, d)                                           \
    case id:                                                 \
        reg_run(step, &p, id, d, REG_MOST *REG_LANES, 0, n); \
        return;

REG void act_steps(reg_step *step, act_args p, mp_act act, mp_dtype d, int64_t n)
{
    switch (act) {
        ACT(MP_ACT_NONE, MP_DTYPE_COUNT)
        ACT(MP_ACT_SILU, d)
        ACT(MP_ACT_RELU, d)
        ACT(MP_ACT_RELU6, d)
        ACT(MP_ACT_GELU, d)
        ACT(MP_ACT_GELU_TANH, d)
        ACT(MP_ACT_QUICK_GELU, d)
        ACT(MP_ACT_TANH, d)
        ACT(MP_ACT_SIGMOID, MP_DTYPE_COUNT)
        ACT(MP_ACT_MISH, MP_DTYPE_COUNT)
        ACT(MP_ACT_GELU_NEW, d)
    }
}

REG void gate_steps(reg_step *step, act_args p, mp_act act, mp_dtype d, int64_t n)
{
    switch (act) {
        ACT(MP_ACT_NONE, MP_DTYPE_COUNT)
        ACT(MP_ACT_SILU, d)
        ACT(MP_ACT_RELU, MP_DTYPE_COUNT)
        ACT(MP_ACT_RELU6, MP_DTYPE_COUNT)
        ACT(MP_ACT_GELU, d)
        ACT(MP_ACT_GELU_TANH, d)
        ACT(MP_ACT_QUICK_GELU, MP_DTYPE_COUNT)
        ACT(MP_ACT_TANH, MP_DTYPE_COUNT)
        ACT(MP_ACT_SIGMOID, MP_DTYPE_COUNT)
        ACT(MP_ACT_MISH, MP_DTYPE_COUNT)
        ACT(MP_ACT_GELU_NEW, d)
    }
}

#undef ACT

static void activate_values(act_args p, mp_act act, mp_dtype d, int64_t n)
{
    act_steps(activate_step, p, act, d, n);
}

static void gate_values(act_args p, mp_act act, mp_dtype d, int64_t n)
{
    gate_steps(gate_step, p, act, d, n);
}

/* Floats, in place or not; the caller rounds y.  d: the dtype that x had and y will have. */
static void act_run(mp_act act, mp_dtype d, mp_e4m3_overflow mode, const float *x, float *y,
                    int64_t n)
{
    const act_args p = {.mode = mode,
                        .x = {.data = (void *)x, .store = MP_F32, .dtype = d},
                        .y = {.data = y, .store = MP_F32, .dtype = d}};

    activate_values(p, act, reg_common(MP_F32, p.x), n);
}

typedef struct flat_args {
    mp_ctx *c;
    int op; /* mp_act or mp_scalar_op */
    mp_dtype common;
    mp_tensor x, y;
    float a, b;
    int64_t n;
} flat_args;

static flat_args flat_args_of(mp_ctx *c, int op, mp_tensor x, mp_tensor y)
{
    return (flat_args){.c = c,
                       .op = op,
                       .common = reg_common(reg_common(x.store, x), y),
                       .x = x,
                       .y = y,
                       .n = mp_numel(x)};
}

static void activate_task(void *arg, int64_t task, int worker)
{
    const flat_args *f = arg;
    const int64_t at = task * VEC_TASK;

    (void)worker;
    activate_values((act_args){f->c->e4m3, reg_from(f->x, at), MP_NONE, reg_from(f->y, at)},
                    (mp_act)f->op, f->common, vec_min(VEC_TASK, f->n - at));
}

static void activate(mp_ctx *c, mp_act act, mp_tensor x, mp_tensor y)
{
    flat_args f = flat_args_of(c, act, x, y);

    mp_parallel(c, vec_tasks(f.n, VEC_TASK), activate_task, &f);
}

REG reg scalar_value(mp_scalar_op op, reg x, reg a, reg b)
{
    switch (op) {
    case MP_SCALAR_CAST:
        break;
    case MP_SCALAR_ADD:
        return x + a;
    case MP_SCALAR_MUL:
        return x * a;
    case MP_SCALAR_DIV:
        return reg_divide(x, a);
    case MP_SCALAR_CLIP: /* a NaN stays */
        return reg_min(b, reg_max(a, x));
    case MP_SCALAR_EXP:
        reg_exp(1, &x);
        break;
    }
    return x;
}

REG void scalar_step(const void *args, int op, mp_dtype d, int64_t at, int64_t n)
{
    const flat_args *f = args;
    const reg x = reg_read(d, f->x, at, n);

    reg_write(d, f->c->e4m3, scalar_value((mp_scalar_op)op, x, reg_fill(f->a), reg_fill(f->b)),
              f->y, at, n);
}

static void cast_values(flat_args f, int64_t from, int64_t n)
{
    const mp_tensor x = reg_from(f.x, from), y = reg_from(f.y, from);

    if (x.store == MP_F32)
        vec_narrow(y.store, f.c->e4m3, x.data, y.data, n);
    else if (y.store == MP_F32)
        vec_widen(x.store, x.data, y.data, n);
    else
        reg_run(scalar_step, &f, MP_SCALAR_CAST, MP_DTYPE_COUNT, REG_LANES, from, from + n);
}

static void scalar_task(void *arg, int64_t task, int worker)
{
    const flat_args f = *(const flat_args *)arg;
    const int64_t from = task * VEC_TASK, to = vec_min(f.n, from + VEC_TASK);

    (void)worker;
    switch ((mp_scalar_op)f.op) {
    case MP_SCALAR_CAST:
        cast_values(f, from, to - from);
        return;
    case MP_SCALAR_ADD:
        reg_run(scalar_step, &f, MP_SCALAR_ADD, f.common, REG_LANES, from, to);
        return;
    case MP_SCALAR_MUL:
        reg_run(scalar_step, &f, MP_SCALAR_MUL, f.common, REG_LANES, from, to);
        return;
    case MP_SCALAR_DIV:
        reg_run(scalar_step, &f, MP_SCALAR_DIV, f.common, REG_LANES, from, to);
        return;
    case MP_SCALAR_CLIP:
        reg_run(scalar_step, &f, MP_SCALAR_CLIP, f.common, REG_LANES, from, to);
        return;
    case MP_SCALAR_EXP:
        reg_run(scalar_step, &f, MP_SCALAR_EXP, f.common, REG_LANES, from, to);
        return;
    }
}

static void scalar(mp_ctx *c, mp_scalar_op op, mp_tensor x, float a, float b, mp_tensor y)
{
    flat_args f = flat_args_of(c, op, x, y);

    f.a = a;
    f.b = b;
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
    mp_dtype common;
    strided_cut cut;
} binary_args;

/* One side of a row: consecutive values, or one value for all of them. */
typedef struct binary_side {
    mp_tensor t;
    bool one;
    float value;
} binary_side;

static inline binary_side binary_side_at(mp_tensor t, int64_t at, int64_t stride)
{
    binary_side side = {.t = reg_from(t, at), .one = stride == 0};

    if (side.one)
        vec_widen(t.store, side.t.data, &side.value, 1);
    return side;
}

REG reg binary_read(mp_dtype d, const binary_side *side, int64_t at, int64_t n)
{
    return side->one ? reg_fill(side->value) : reg_read(d, side->t, at, n);
}

typedef struct binary_row {
    mp_e4m3_overflow mode;
    binary_side a, b;
    mp_tensor y;
} binary_row;

REG void binary_step(const void *args, int op, mp_dtype d, int64_t at, int64_t n)
{
    const binary_row *p = args;
    const reg a = binary_read(d, &p->a, at, n), b = binary_read(d, &p->b, at, n);

    reg_write(d, p->mode, op == MP_BINARY_ADD ? a + b : a * b, p->y, at, n);
}

static void binary_run(const void *arg, int64_t row, int64_t from, int64_t to)
{
    const binary_args *p = arg;
    const int last = p->s->rank - 1;
    int64_t a_at, b_at;

    strided_row(p->s, row, &a_at, &b_at);
    const binary_row r = {p->c->e4m3, binary_side_at(p->a, a_at, p->s->a[last]),
                          binary_side_at(p->b, b_at, p->s->b[last]),
                          reg_from(p->y, row * p->cut.row)};
    if (p->op == MP_BINARY_ADD)
        reg_run(binary_step, &r, MP_BINARY_ADD, p->common, REG_LANES, from, to);
    else
        reg_run(binary_step, &r, MP_BINARY_MUL, p->common, REG_LANES, from, to);
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
    binary_args p = {c, op, s, a, b, y, reg_common(reg_common(y.store, a), b), cut_strided(s)};

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
    mp_dtype common;
    mp_tensor g, u, y;
    int64_t stride, rows, n, rows_per_task;
} gate_args;

static void gate_task(void *arg, int64_t task, int worker)
{
    const gate_args *p = arg;
    const int64_t end = vec_min(p->rows, (task + 1) * p->rows_per_task);

    (void)worker;
    for (int64_t r = task * p->rows_per_task; r < end; r++)
        gate_values((act_args){p->c->e4m3, reg_from(p->g, r * p->stride),
                               reg_from(p->u, r * p->stride), reg_from(p->y, r * p->n)},
                    p->act, p->common, p->n);
}

static void gate(mp_ctx *c, mp_act act, mp_tensor g, int64_t g_at, mp_tensor u, int64_t u_at,
                 int64_t stride, mp_tensor y)
{
    gate_args p = {.c = c, .act = act, .g = reg_from(g, g_at), .u = reg_from(u, u_at), .y = y};

    p.common = reg_common(reg_common(y.store, g), u);
    p.stride = stride;
    p.rows = mp_rows(y);
    p.n = mp_dim(y, -1);
    p.rows_per_task = vec_task_rows(p.n);
    mp_parallel(c, vec_tasks(p.rows, p.rows_per_task), gate_task, &p);
}

typedef struct modulate_args {
    mp_ctx *c;
    mp_tensor x, shift, scale, v, y; /* add_gated: scale is the gate */
    mp_dtype product, common;        /* what the product rounds to; what x, v and y are stored as */
    int64_t rows, rows_per_batch, n, rows_per_task;
} modulate_args;

/* A row, with its parameters as floats. */
typedef struct modulate_row {
    mp_e4m3_overflow mode;
    mp_dtype product;
    mp_tensor x, v, y;
    const float *scale, *shift;
} modulate_row;

REG void modulate_step(const void *args, int op, mp_dtype d, int64_t at, int64_t n)
{
    const modulate_row *p = args;
    const reg t = reg_read(d, p->x, at, n) * reg_load(MP_F32, p->scale, at, n);

    (void)op;
    reg_write(d, p->mode,
              reg_round(reg_own(d, p->product), p->mode, t) + reg_load(MP_F32, p->shift, at, n),
              p->y, at, n);
}

REG void add_gated_step(const void *args, int op, mp_dtype d, int64_t at, int64_t n)
{
    const modulate_row *p = args;
    const reg t = reg_load(MP_F32, p->scale, at, n) * reg_read(d, p->v, at, n);

    (void)op;
    reg_write(d, p->mode, reg_read(d, p->x, at, n) + reg_round(reg_own(d, p->product), p->mode, t),
              p->y, at, n);
}

static modulate_row modulate_row_at(const modulate_args *p, int64_t row, const float *scale,
                                    const float *shift)
{
    const int64_t at = row * p->n;

    return (modulate_row){.mode = p->c->e4m3,
                          .product = p->product,
                          .x = reg_from(p->x, at),
                          .v = mp_given(p->v) ? reg_from(p->v, at) : MP_NONE,
                          .y = reg_from(p->y, at),
                          .scale = scale,
                          .shift = shift};
}

/* The parameters of a row as floats, read where its batch entry begins or the task does. */
static bool modulate_begins(const modulate_args *p, int64_t task, int64_t row, int64_t *at)
{
    *at = row / p->rows_per_batch * p->n;
    return row == task * p->rows_per_task || row % p->rows_per_batch == 0;
}

static void modulate_task(void *arg, int64_t task, int worker)
{
    const modulate_args *p = arg;
    const int64_t end = vec_min(p->rows, (task + 1) * p->rows_per_task);
    float *scale = mp_scratch(p->c, worker), *shift = scale + p->n;
    int64_t at;

    for (int64_t r = task * p->rows_per_task; r < end; r++) {
        if (modulate_begins(p, task, r, &at)) {
            const mp_tensor s = reg_from(p->scale, at), b = reg_from(p->shift, at);
            vec_widen(s.store, s.data, scale, p->n);
            vec_widen(b.store, b.data, shift, p->n);
            for (int64_t j = 0; j < p->n; j++)
                scale[j] = 1.0f + scale[j];
            vec_round(s.dtype, p->c->e4m3, scale, p->n);
        }
        const modulate_row row = modulate_row_at(p, r, scale, shift);
        reg_run(modulate_step, &row, 0, p->common, REG_LANES, 0, p->n);
    }
}

static void add_gated_task(void *arg, int64_t task, int worker)
{
    const modulate_args *p = arg;
    const int64_t end = vec_min(p->rows, (task + 1) * p->rows_per_task);
    float *gate_ = mp_scratch(p->c, worker);
    int64_t at;

    for (int64_t r = task * p->rows_per_task; r < end; r++) {
        if (modulate_begins(p, task, r, &at))
            vec_widen(p->scale.store, reg_from(p->scale, at).data, gate_, p->n);
        const modulate_row row = modulate_row_at(p, r, gate_, NULL);
        reg_run(add_gated_step, &row, 0, p->common, REG_LANES, 0, p->n);
    }
}

static void run_modulate(modulate_args p, mp_task_fn *fn)
{
    p.n = mp_dim(p.x, -1);
    p.rows = mp_rows(p.x);
    p.rows_per_batch = p.x.dim[0] ? p.rows / p.x.dim[0] : 1;
    p.rows_per_task = vec_task_rows(p.n);
    p.common = reg_common(reg_common(p.product, p.x), p.y);
    if (mp_given(p.v))
        p.common = reg_common(p.common, p.v);
    if (mp_scratch_reserve(p.c, (size_t)(2 * p.n) * sizeof(float)))
        mp_parallel(p.c, vec_tasks(p.rows, p.rows_per_task), fn, &p);
}

static void modulate(mp_ctx *c, mp_tensor x, mp_tensor shift, mp_tensor scale, mp_tensor y)
{
    run_modulate((modulate_args){.c = c,
                                 .x = x,
                                 .shift = shift,
                                 .scale = scale,
                                 .v = MP_NONE,
                                 .y = y,
                                 .product = mp_dtype_promote(x.dtype, scale.dtype)},
                 modulate_task);
}

static void add_gated(mp_ctx *c, mp_tensor x, mp_tensor gate_, mp_tensor v, mp_tensor y)
{
    run_modulate((modulate_args){.c = c,
                                 .x = x,
                                 .scale = gate_,
                                 .v = v,
                                 .y = y,
                                 .product = mp_dtype_promote(gate_.dtype, v.dtype)},
                 add_gated_task);
}

typedef struct rope_args {
    mp_ctx *c;
    mp_tensor x, cos, sin, y;
    mp_dtype common;
    int64_t rows, sequence, heads, d;
} rope_args;

/* One head of one token. */
typedef struct rope_head {
    mp_e4m3_overflow mode;
    mp_tensor low, high, y_low, y_high; /* its halves */
    const float *cos, *sin;             /* [2 half] */
    int64_t half;
} rope_head;

/* (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin), every step rounded. */
REG void rope_step(const void *args, int op, mp_dtype d, int64_t at, int64_t n)
{
    const rope_head *p = args;
    const mp_dtype own = reg_own(d, p->y_low.dtype);
    const reg low = reg_read(d, p->low, at, n), high = reg_read(d, p->high, at, n);
    const reg a = low * reg_load(MP_F32, p->cos, at, n);
    const reg b = high * reg_load(MP_F32, p->cos, at + p->half, n);
    const reg minus = -high * reg_load(MP_F32, p->sin, at, n);
    const reg plus = low * reg_load(MP_F32, p->sin, at + p->half, n);

    (void)op;
    reg_write(d, p->mode, reg_round(own, p->mode, a) + reg_round(own, p->mode, minus), p->y_low, at,
              n);
    reg_write(d, p->mode, reg_round(own, p->mode, b) + reg_round(own, p->mode, plus), p->y_high, at,
              n);
}

static void rope_task(void *arg, int64_t row, int worker)
{
    const rope_args *p = arg;
    float *buffer = mp_scratch(p->c, worker);
    const int64_t s = row % p->sequence, half = p->d / 2;
    rope_head head = {.mode = p->c->e4m3, .half = half};

    head.cos = vec_read(p->cos, s * p->d, p->d, buffer);
    head.sin = vec_read(p->sin, s * p->d, p->d, buffer + p->d);
    for (int64_t h = 0; h < p->heads; h++) {
        const int64_t at = (row * p->heads + h) * p->d;
        head.low = reg_from(p->x, at), head.high = reg_from(p->x, at + half);
        head.y_low = reg_from(p->y, at), head.y_high = reg_from(p->y, at + half);
        reg_run(rope_step, &head, 0, p->common, REG_LANES, 0, half);
    }
}

static void rope_half(mp_ctx *c, mp_tensor x, mp_tensor cos_, mp_tensor sin_, int heads,
                      mp_tensor y)
{
    rope_args p = {.c = c, .x = x, .cos = cos_, .sin = sin_, .y = y, .rows = mp_rows(x)};

    p.common = reg_common(reg_common(x.store, x), y);
    p.sequence = x.dim[1];
    p.heads = heads;
    p.d = mp_dim(x, -1) / heads;
    if (mp_scratch_reserve(c, (size_t)(2 * p.d) * sizeof(float)))
        mp_parallel(c, p.rows, rope_task, &p);
}
