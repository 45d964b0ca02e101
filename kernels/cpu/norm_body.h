/* Norms over rows of d values.  Included by kernels/cpu/isa.c only. */

typedef struct norm_args {
    mp_ctx *c;
    mp_tensor x, w, b, mean, var, y;
    float eps;
    mp_rms_style style;
    int64_t rows, d, rows_per_task;
    const float *wide_w, *wide_b; /* parameters as floats, shared by all rows */
} norm_args;

/* Space that each worker needs: a row and its result. */
static size_t norm_scratch(int64_t d)
{
    return (size_t)(2 * d + VEC_LANES) * sizeof(float);
}

/* A parameter as floats; memory of the pool when it must be widened. */
static const float *norm_parameter(mp_ctx *c, mp_tensor t)
{
    if (!mp_given(t))
        return NULL;
    if (t.store == MP_F32)
        return t.data;
    const mp_tensor wide = mp_new(c, MP_F32, 1, MP_DIMS(mp_numel(t)));
    if (mp_given(wide))
        vec_widen(t.store, t.data, wide.data, mp_numel(t));
    return wide.data;
}

static inline void scale_and_shift(const norm_args *p, float *y, int64_t d)
{
    if (p->wide_w)
        for (int64_t j = 0; j < d; j++)
            y[j] = y[j] * p->wide_w[j];
    if (p->wide_b)
        for (int64_t j = 0; j < d; j++)
            y[j] = y[j] + p->wide_b[j];
}

/* (x - mean) / sqrt(var + eps) * w + b, variance of the whole population, two passes. */
static void layer_norm_row(const norm_args *p, const float *x, float *y)
{
    const float mean = vec_sum(x, p->d) / (float)p->d;
    const float var = vec_sum_squares(x, mean, p->d) / (float)p->d;
    const float r = 1.0f / sqrtf(var + p->eps);

    for (int64_t j = 0; j < p->d; j++)
        y[j] = (x[j] - mean) * r;
    scale_and_shift(p, y, p->d);
}

static void rms_norm_row(const norm_args *p, const float *x, float *y)
{
    const mp_e4m3_overflow mode = p->c->e4m3;
    const float r = 1.0f / sqrtf(vec_sum_squares(x, 0.0f, p->d) / (float)p->d + p->eps);

    for (int64_t j = 0; j < p->d; j++)
        y[j] = x[j] * r;
    if (p->style == MP_RMS_TORCH) {
        scale_and_shift(p, y, p->d);
    } else if (p->style == MP_RMS_GEMMA) {
        for (int64_t j = 0; j < p->d; j++)
            y[j] = y[j] * (1.0f + p->wide_w[j]);
    } else if (p->wide_w) { /* Diffusers: round, * w, round, + b; the last rounding is the store's
                             */
        vec_round(p->w.dtype, mode, y, p->d);
        for (int64_t j = 0; j < p->d; j++)
            y[j] = y[j] * p->wide_w[j];
        vec_round(p->w.dtype, mode, y, p->d);
        if (p->wide_b)
            for (int64_t j = 0; j < p->d; j++)
                y[j] = y[j] + p->wide_b[j];
    }
}

/* max, then exp(x - max), then * 1 / sum. */
static void softmax_row(const norm_args *p, const float *x, float *y)
{
    const float top = vec_max(x, p->d);

    for (int64_t j = 0; j < p->d; j++)
        y[j] = vec_exp(x[j] - top);
    const float sum = vec_sum(y, p->d);
    for (int64_t j = 0; j < p->d; j++)
        y[j] = y[j] / sum;
}

static inline void each_norm_row(const norm_args *p, int64_t task, int worker,
                                 void (*row)(const norm_args *, const float *, float *))
{
    float *in = mp_scratch(p->c, worker), *out = in + p->d;
    const int64_t end = vec_min(p->rows, (task + 1) * p->rows_per_task);

    for (int64_t r = task * p->rows_per_task; r < end; r++) {
        float *y = vec_slot(p->y, r * p->d, out);
        row(p, vec_read(p->x, r * p->d, p->d, in), y);
        vec_commit(p->c->e4m3, p->y, r * p->d, y, p->d);
    }
}

static void layer_norm_task(void *arg, int64_t task, int worker)
{
    each_norm_row(arg, task, worker, layer_norm_row);
}

static void rms_norm_task(void *arg, int64_t task, int worker)
{
    each_norm_row(arg, task, worker, rms_norm_row);
}

static void softmax_task(void *arg, int64_t task, int worker)
{
    each_norm_row(arg, task, worker, softmax_row);
}

static void run_norm(norm_args *p, mp_task_fn *fn)
{
    const mp_mark mark = mp_open(p->c);

    p->rows = mp_rows(p->x);
    p->d = mp_dim(p->x, -1);
    p->rows_per_task = vec_task_rows(p->d);
    p->wide_w = norm_parameter(p->c, p->w);
    p->wide_b = norm_parameter(p->c, p->b);
    if (!mp_failed(p->c) && mp_scratch_reserve(p->c, norm_scratch(p->d)))
        mp_parallel(p->c, vec_tasks(p->rows, p->rows_per_task), fn, p);
    mp_drop(p->c, mark);
}

static void layer_norm(mp_ctx *c, mp_tensor x, mp_tensor w, mp_tensor b, float eps, mp_tensor y)
{
    norm_args p = {.c = c, .x = x, .w = w, .b = b, .y = y, .eps = eps};

    run_norm(&p, layer_norm_task);
}

static void rms_norm(mp_ctx *c, mp_tensor x, mp_tensor w, mp_tensor b, float eps,
                     mp_rms_style style, mp_tensor y)
{
    norm_args p = {.c = c, .x = x, .w = w, .b = b, .y = y, .eps = eps, .style = style};

    run_norm(&p, rms_norm_task);
}

static void softmax(mp_ctx *c, mp_tensor x, mp_tensor y)
{
    norm_args p = {.c = c, .x = x, .w = MP_NONE, .b = MP_NONE, .y = y};

    run_norm(&p, softmax_task);
}

/* As torch: alpha = w * (1 / sqrt(var + eps)), beta = b - mean * alpha, y = x * alpha + beta, the
 * last two fused: torch's kernel is compiled so, and these are its bits. */
static void batch_norm_row(const norm_args *p, const float *x, float *y)
{
    for (int64_t j = 0; j < p->d; j++)
        y[j] = fmaf(x[j], p->wide_w[j], p->wide_b[j]);
}

static void batch_norm_task(void *arg, int64_t task, int worker)
{
    each_norm_row(arg, task, worker, batch_norm_row);
}

static void batch_norm(mp_ctx *c, mp_tensor x, mp_tensor mean, mp_tensor var, mp_tensor w,
                       mp_tensor b, float eps, mp_tensor y)
{
    const mp_mark mark = mp_open(c);
    const int64_t d = mp_dim(x, -1);
    const mp_tensor alpha = mp_new(c, MP_F32, 1, MP_DIMS(d)),
                    beta = mp_new(c, MP_F32, 1, MP_DIMS(d));
    const float *m = norm_parameter(c, mean), *v = norm_parameter(c, var);
    const float *wide_w = norm_parameter(c, w), *wide_b = norm_parameter(c, b);
    norm_args p = {.c = c, .x = x, .w = alpha, .b = beta, .y = y, .eps = eps};

    if (!mp_failed(c)) {
        float *scale = alpha.data, *shift = beta.data;
        for (int64_t j = 0; j < d; j++) {
            scale[j] = 1.0f / sqrtf(v[j] + eps) * (wide_w ? wide_w[j] : 1.0f);
            shift[j] = fmaf(-m[j], scale[j], wide_b ? wide_b[j] : 0.0f);
        }
        run_norm(&p, batch_norm_task);
    }
    mp_drop(c, mark);
}

/* One task: the order of the sum is fixed by the size alone. */
static void sum(mp_ctx *c, mp_tensor x, mp_tensor y)
{
    float chunk[VEC_CHUNK], total = 0.0f;
    const int64_t n = mp_numel(x);

    for (int64_t i = 0; i < n; i += VEC_CHUNK) {
        const int64_t m = vec_min(VEC_CHUNK, n - i);
        total += vec_sum(vec_read(x, i, m, chunk), m);
    }
    vec_narrow(y.store, c->e4m3, &total, y.data, 1);
}
