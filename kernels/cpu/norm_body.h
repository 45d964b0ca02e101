/* Norms over rows of d values.  Included by kernels/cpu/isa.c only. */

typedef struct norm_args {
    mp_ctx *c;
    mp_tensor x, w, b, mean, var, y;
    float eps;
    mp_rms_style style;
    int64_t rows, d, rows_per_task;
    const float *wide_w, *wide_b; /* parameters as floats, shared by all rows */
} norm_args;

/* Space that each worker needs: a row, and one of softmax's. */
static size_t norm_scratch(int64_t d)
{
    return (size_t)(2 * d) * sizeof(float);
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

/* What is left to do for a row once its statistics are known. */
typedef enum norm_op { NORM_PLAIN, NORM_GEMMA, NORM_DIFFUSERS, NORM_FUSED, NORM_QUOTIENT } norm_op;

typedef struct norm_row {
    mp_e4m3_overflow mode;
    const float *x, *w, *b;
    float mean, r;
    mp_dtype inner; /* what Diffusers' norm rounds to on the way */
    mp_tensor y;
} norm_row;

REG reg norm_value(const norm_row *p, norm_op op, reg x, int64_t at, int64_t n)
{
    reg y = op == NORM_PLAIN ? (x - reg_fill(p->mean)) * reg_fill(p->r) : x * reg_fill(p->r);

    if (op == NORM_QUOTIENT)
        return reg_divide(x, reg_fill(p->r));
    if (op == NORM_FUSED)
        return reg_fmadd(x, reg_load(MP_F32, p->w, at, n), reg_load(MP_F32, p->b, at, n));
    if (op == NORM_GEMMA)
        return y * (reg_fill(1.0f) + reg_load(MP_F32, p->w, at, n));
    if (op == NORM_DIFFUSERS) /* round, * w, round, + b; the last rounding is the store's */
        y = reg_round(p->inner, p->mode, y);
    if (p->w)
        y = y * reg_load(MP_F32, p->w, at, n);
    if (op == NORM_DIFFUSERS)
        y = reg_round(p->inner, p->mode, y);
    if (p->b)
        y = y + reg_load(MP_F32, p->b, at, n);
    return y;
}

REG void norm_step(const void *args, int op, mp_dtype d, int64_t at, int64_t n)
{
    const norm_row *p = args;

    reg_write(d, p->mode, norm_value(p, (norm_op)op, reg_load(MP_F32, p->x, at, n), at, n), p->y,
              at, n);
}

/* y = op of row `row`, which lies as floats in x; each rounds to y's dtype. */
REG void norm_finish(const norm_args *p, norm_op op, const float *x, float mean, float r,
                     int64_t row)
{
    const norm_row n = {.mode = p->c->e4m3,
                        .x = x,
                        .w = p->wide_w,
                        .b = p->wide_b,
                        .mean = mean,
                        .r = r,
                        .inner = p->w.dtype,
                        .y = reg_from(p->y, row * p->d)};

    reg_run(norm_step, &n, op, p->y.store, REG_LANES, 0, p->d);
}

/* (x - mean) / sqrt(var + eps) * w + b, variance of the whole population, two passes. */
static void layer_norm_row(const norm_args *p, const float *x, float *room, int64_t row)
{
    const float mean = vec_sum(x, p->d) / (float)p->d;
    const float var = vec_sum_squares(x, mean, p->d) / (float)p->d;

    (void)room;
    norm_finish(p, NORM_PLAIN, x, mean, 1.0f / sqrtf(var + p->eps), row);
}

static void rms_norm_row(const norm_args *p, const float *x, float *room, int64_t row)
{
    const float r = 1.0f / sqrtf(vec_sum_squares(x, 0.0f, p->d) / (float)p->d + p->eps);

    (void)room;
    if (p->style == MP_RMS_GEMMA)
        norm_finish(p, NORM_GEMMA, x, 0.0f, r, row);
    else if (p->style == MP_RMS_DIFFUSERS && p->wide_w)
        norm_finish(p, NORM_DIFFUSERS, x, 0.0f, r, row);
    else
        norm_finish(p, NORM_PLAIN, x, 0.0f, r, row);
}

/* max, then exp(x - max), then / sum. */
static void softmax_row(const norm_args *p, const float *x, float *room, int64_t row)
{
    vec_exps(x, vec_max(x, p->d), room, p->d);
    norm_finish(p, NORM_QUOTIENT, room, 0.0f, vec_sum(room, p->d), row);
}

/* As torch: alpha = w * (1 / sqrt(var + eps)), beta = b - mean * alpha, y = x * alpha + beta, the
 * last two fused: torch's kernel is compiled so, and these are its bits. */
static void batch_norm_row(const norm_args *p, const float *x, float *room, int64_t row)
{
    (void)room;
    norm_finish(p, NORM_FUSED, x, 0.0f, 0.0f, row);
}

static inline void each_norm_row(const norm_args *p, int64_t task, int worker,
                                 void (*norm)(const norm_args *, const float *, float *, int64_t))
{
    float *in = mp_scratch(p->c, worker);
    const int64_t end = vec_min(p->rows, (task + 1) * p->rows_per_task);

    for (int64_t r = task * p->rows_per_task; r < end; r++)
        norm(p, vec_read(p->x, r * p->d, p->d, in), in + p->d, r);
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

static void batch_norm_task(void *arg, int64_t task, int worker)
{
    each_norm_row(arg, task, worker, batch_norm_row);
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

/* Group norm on x [batch, pixels, d].  Sums of x and x^2 are in fp64, where squares of floats are
 * exact and the difference below loses nothing that an fp32 result could show; one pass, channel
 * by channel within a band of pixels, the bands then in their order: bands depend on the shape
 * alone, and so do the bits. */
enum {
    GROUP_BANDS = 256, /* at most, for each sample */
    GROUP_CHUNK = 512  /* values of a fourth of what is widened at a time */
};

typedef struct group_args {
    mp_ctx *c;
    mp_tensor x, y;
    int64_t batch, pixels, d, groups, band, bands, chunk; /* band and chunk in pixels */
    double *sums;         /* [batch][bands][groups][2]: of x, of x^2 */
    float *scale, *shift; /* [batch][d] */
    bool plain;           /* no parameters: (x - shift) * scale */
    mp_dtype common;
} group_args;

static size_t group_scratch(const group_args *p)
{
    return (size_t)(2 * p->d) * sizeof(double) + (size_t)(p->chunk * p->d) * sizeof(float);
}

/* The pixels of a task, and where its sample begins. */
static inline int64_t group_band(const group_args *p, int64_t task, int64_t *end, int64_t *sample)
{
    const int64_t first = task % p->bands * p->band;

    *end = vec_min(p->pixels, first + p->band);
    *sample = task / p->bands;
    return first;
}

/* A square of a float is exact in fp64: fused or not, the sum is the same. */
static inline double group_fma(double a, double b, double c)
{
#if defined(__FMA__)
    return fma(a, b, c);
#else
    return a * b + c;
#endif
}

/* n rows of d values join the sums of their channels, each in the order of rows. */
static inline void group_add(const float *x, int64_t n, int64_t d, double *restrict sum,
                             double *restrict square)
{
    enum { AT_A_TIME = 4 };
    int64_t r = 0;

    for (; r + AT_A_TIME <= n; r += AT_A_TIME, x += AT_A_TIME * d)
        for (int64_t j = 0; j < d; j++) {
            double s = sum[j], q = square[j];
#pragma GCC unroll 4
            for (int i = 0; i < AT_A_TIME; i++) {
                const double v = (double)x[i * d + j];
                s += v;
                q = group_fma(v, v, q);
            }
            sum[j] = s;
            square[j] = q;
        }
    for (; r < n; r++, x += d)
        for (int64_t j = 0; j < d; j++) {
            sum[j] += (double)x[j];
            square[j] += (double)x[j] * (double)x[j];
        }
}

static void group_sums_task(void *arg, int64_t task, int worker)
{
    const group_args *p = arg;
    double *sum = mp_scratch(p->c, worker), *square = sum + p->d;
    double *out = p->sums + task * p->groups * 2;
    const int64_t per = p->d / p->groups;
    int64_t end, sample;

    memset(sum, 0, (size_t)(2 * p->d) * sizeof *sum);
    for (int64_t at = group_band(p, task, &end, &sample); at < end; at += p->chunk) {
        const int64_t n = vec_min(p->chunk, end - at);
        const float *x =
            vec_read(p->x, (sample * p->pixels + at) * p->d, n * p->d, (float *)(square + p->d));
        group_add(x, n, p->d, sum, square);
    }
    for (int64_t g = 0; g < p->groups; g++) {
        out[2 * g] = out[2 * g + 1] = 0;
        for (int64_t j = g * per; j < (g + 1) * per; j++) {
            out[2 * g] += sum[j];
            out[2 * g + 1] += square[j];
        }
    }
}

/* As torch: scale = w / sqrt(var + eps), shift = b - scale * mean (fused: torch's kernel is
 * compiled so); all in fp32 from here on. */
static void group_factors(const group_args *p, const float *w, const float *b, float eps)
{
    const int64_t per = p->d / p->groups;
    const double count = (double)(p->pixels * per);

    for (int64_t i = 0; i < p->batch * p->groups; i++) {
        const int64_t n = i / p->groups, g = i % p->groups;
        double sum = 0, square = 0;
        for (int64_t k = 0; k < p->bands; k++) {
            const double *part = p->sums + ((n * p->bands + k) * p->groups + g) * 2;
            sum += part[0];
            square += part[1];
        }
        const double mean = sum / count, var = square / count - mean * mean;
        const float r = 1.0f / sqrtf((float)(var < 0 ? 0 : var) + eps);
        for (int64_t j = g * per; j < (g + 1) * per; j++) {
            const float scale = w ? r * w[j] : r;
            p->scale[n * p->d + j] = scale;
            p->shift[n * p->d + j] =
                p->plain ? (float)mean : fmaf(-scale, (float)mean, b ? b[j] : 0.0f);
        }
    }
}

typedef struct group_row {
    mp_e4m3_overflow mode;
    mp_tensor x, y;
    const float *scale, *shift;
} group_row;

/* y = x * scale + shift (fused, see above), rounded once. */
REG void group_step(const void *args, int plain, mp_dtype d, int64_t at, int64_t n)
{
    const group_row *p = args;
    const reg x = reg_read(d, p->x, at, n);
    const reg scale = reg_load(MP_F32, p->scale, at, n), shift = reg_load(MP_F32, p->shift, at, n);

    if (plain)
        reg_write(d, p->mode, (x - shift) * scale, p->y, at, n);
    else
        reg_write(d, p->mode, reg_fmadd(x, scale, shift), p->y, at, n);
}

static void group_apply_task(void *arg, int64_t task, int worker)
{
    const group_args *p = arg;
    int64_t end, sample, at = group_band(p, task, &end, &sample);
    group_row row = {.mode = p->c->e4m3};

    (void)worker;
    row.scale = p->scale + sample * p->d;
    row.shift = p->shift + sample * p->d;
    for (; at < end; at++) {
        row.x = reg_from(p->x, (sample * p->pixels + at) * p->d);
        row.y = reg_from(p->y, (sample * p->pixels + at) * p->d);
        if (p->plain)
            reg_run(group_step, &row, true, p->common, REG_LANES, 0, p->d);
        else
            reg_run(group_step, &row, false, p->common, REG_LANES, 0, p->d);
    }
}

static void group_norm(mp_ctx *c, mp_tensor x, int groups, mp_tensor w, mp_tensor b, float eps,
                       mp_tensor y)
{
    const mp_mark mark = mp_open(c);
    const int64_t d = mp_dim(x, -1), n = x.dim[0];
    group_args p = {.c = c, .x = x, .y = y, .batch = n, .d = d, .groups = groups};

    if (mp_numel(x) == 0)
        return;
    p.plain = !mp_given(w) && !mp_given(b);
    p.common = reg_common(reg_common(x.store, x), y);
    p.pixels = mp_rows(x) / n;
    p.band = vec_task_rows(d);
    if (p.band < vec_tasks(p.pixels, GROUP_BANDS))
        p.band = vec_tasks(p.pixels, GROUP_BANDS);
    p.bands = vec_tasks(p.pixels, p.band);
    p.chunk = d >= GROUP_CHUNK ? 4 : 4 * (GROUP_CHUNK / d);
    /* The pool has no fp64: two floats a value, aligned to 64 bytes like every block. */
    const mp_tensor sums = mp_new(c, MP_F32, 1, MP_DIMS(n * p.bands * groups * 4));
    const mp_tensor factors = mp_new(c, MP_F32, 1, MP_DIMS(2 * n * d));
    const float *wide_w = norm_parameter(c, w), *wide_b = norm_parameter(c, b);
    if (!mp_failed(c) && mp_scratch_reserve(c, group_scratch(&p))) {
        p.sums = sums.data;
        p.scale = factors.data;
        p.shift = p.scale + n * d;
        mp_parallel(c, n * p.bands, group_sums_task, &p);
        group_factors(&p, wide_w, wide_b, eps);
        mp_parallel(c, n * p.bands, group_apply_task, &p);
    }
    mp_drop(c, mark);
}
