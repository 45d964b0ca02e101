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

/* y = (x - mean) * r * w + b, w and b where there are any. */
static inline void scale_and_shift(const norm_args *p, const float *x, float mean, float r,
                                   float *y)
{
    const float *w = p->wide_w, *b = p->wide_b;

    if (w && b)
        for (int64_t j = 0; j < p->d; j++)
            y[j] = (x[j] - mean) * r * w[j] + b[j];
    else if (w)
        for (int64_t j = 0; j < p->d; j++)
            y[j] = (x[j] - mean) * r * w[j];
    else if (b)
        for (int64_t j = 0; j < p->d; j++)
            y[j] = (x[j] - mean) * r + b[j];
    else
        for (int64_t j = 0; j < p->d; j++)
            y[j] = (x[j] - mean) * r;
}

/* (x - mean) / sqrt(var + eps) * w + b, variance of the whole population, two passes. */
static void layer_norm_row(const norm_args *p, const float *x, float *y)
{
    const float mean = vec_sum(x, p->d) / (float)p->d;
    const float var = vec_sum_squares(x, mean, p->d) / (float)p->d;

    scale_and_shift(p, x, mean, 1.0f / sqrtf(var + p->eps), y);
}

static void rms_norm_row(const norm_args *p, const float *x, float *y)
{
    const mp_e4m3_overflow mode = p->c->e4m3;
    const float r = 1.0f / sqrtf(vec_sum_squares(x, 0.0f, p->d) / (float)p->d + p->eps);

    if (p->style == MP_RMS_TORCH) {
        scale_and_shift(p, x, 0.0f, r, y);
        return;
    }
    for (int64_t j = 0; j < p->d; j++)
        y[j] = x[j] * r;
    if (p->style == MP_RMS_GEMMA) {
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

/* Group norm on x [batch, pixels, d].  Sums of x and x^2 are in fp64, where squares of floats are
 * exact and the difference below loses nothing that an fp32 result could show; one pass, channel
 * by channel within a band of pixels, the bands then in their order: bands depend on the shape
 * alone, and so do the bits. */
enum { GROUP_BANDS = 256 }; /* at most, for each sample */

typedef struct group_args {
    mp_ctx *c;
    mp_tensor x, y;
    int64_t batch, pixels, d, groups, band, bands, chunk; /* band and chunk in pixels */
    double *sums;         /* [batch][bands][groups][2]: of x, of x^2 */
    float *scale, *shift; /* [batch][d] */
    bool plain;           /* no parameters: (x - shift) * scale */
} group_args;

static size_t group_scratch(const group_args *p)
{
    return (size_t)(2 * p->d) * sizeof(double) + (size_t)(2 * p->chunk * p->d) * sizeof(float);
}

/* The pixels of a task, and where its sample begins. */
static inline int64_t group_band(const group_args *p, int64_t task, int64_t *end, int64_t *sample)
{
    const int64_t first = task % p->bands * p->band;

    *end = vec_min(p->pixels, first + p->band);
    *sample = task / p->bands;
    return first;
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
        for (int64_t r = 0; r < n; r++, x += p->d)
            for (int64_t j = 0; j < p->d; j++) {
                sum[j] += (double)x[j];
                square[j] += (double)x[j] * (double)x[j];
            }
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

/* y = x * scale + shift (fused, see above), rounded once. */
static void group_apply_task(void *arg, int64_t task, int worker)
{
    const group_args *p = arg;
    float *in = mp_scratch(p->c, worker), *buffer = in + p->chunk * p->d;
    int64_t end, sample, at = group_band(p, task, &end, &sample);
    const float *scale = p->scale + sample * p->d, *shift = p->shift + sample * p->d;

    for (; at < end; at += p->chunk) {
        const int64_t n = vec_min(p->chunk, end - at), from = (sample * p->pixels + at) * p->d;
        const float *x = vec_read(p->x, from, n * p->d, in);
        float *out = vec_slot(p->y, from, buffer), *y = out;
        for (int64_t r = 0; r < n; r++, x += p->d, y += p->d) {
            if (p->plain)
                for (int64_t j = 0; j < p->d; j++)
                    y[j] = (x[j] - shift[j]) * scale[j];
            else
                for (int64_t j = 0; j < p->d; j++)
                    y[j] = fmaf(x[j], scale[j], shift[j]);
        }
        vec_commit(p->c->e4m3, p->y, from, out, n * p->d);
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
    p.pixels = mp_rows(x) / n;
    p.band = vec_task_rows(d);
    if (p.band < vec_tasks(p.pixels, GROUP_BANDS))
        p.band = vec_tasks(p.pixels, GROUP_BANDS);
    p.bands = vec_tasks(p.pixels, p.band);
    p.chunk = d >= VEC_CHUNK ? 1 : VEC_CHUNK / d;
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
