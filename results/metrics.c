#include "results/metrics.h"

#include <math.h>

#include "kernels/core/memory.h"

/* Sums over the pairs in which both values are finite. */
typedef struct sums {
    double dd, xx, rr, xr; /* |x - ref|^2, |x|^2, |ref|^2, x . ref */
    double max_abs;
    int64_t finite_x; /* finite values of x, whatever the reference is */
    int64_t left_out; /* pairs with at least one non-finite value */
} sums;

static void add_pair(sums *s, double x, double ref)
{
    const double d = x - ref;
    s->dd += d * d;
    s->xx += x * x;
    s->rr += ref * ref;
    s->xr += x * ref;
    s->max_abs = fmax(s->max_abs, fabs(d));
}

static double rel_l2(const sums *s)
{
    return s->dd == 0 ? 0 : sqrt(s->dd / s->rr); /* a reference of zeros: infinite */
}

static double cosine(const sums *s)
{
    if (s->xx == 0 && s->rr == 0)
        return 1; /* equal */
    if (s->xx == 0 || s->rr == 0)
        return 0;
    /* fp32 squares lie in 1e-90 .. 1e77: their sums' product neither over- nor underflows. */
    return fmin(1, fmax(-1, s->xr / sqrt(s->xx * s->rr)));
}

static double headroom(double max, double max_value, int64_t finite)
{
    if (max_value > 0)
        return log2(max / max_value);
    return finite > 0 ? INFINITY : NAN; /* all zeros; nothing to measure */
}

mp_drift mp_drift_between(const float *x, const float *ref, int64_t n, mp_dtype dtype)
{
    const double max = mp_dtype_max(dtype);
    mp_drift out = {.count = n};
    sums s = {0};
    for (int64_t i = 0; i < n; i++) {
        const bool fx = isfinite(x[i]), fr = isfinite(ref[i]);
        const double magnitude = fabs((double)x[i]);
        if (fx)
            out.max_value = fmax(out.max_value, magnitude);
        s.finite_x += fx;
        out.saturated += magnitude == max;
        out.nonfinite += fx != fr;
        if (fx && fr)
            add_pair(&s, x[i], ref[i]);
        else
            s.left_out++;
    }
    out.headroom_bits = headroom(max, out.max_value, s.finite_x);
    out.rel_l2 = s.left_out ? INFINITY : rel_l2(&s);
    out.max_abs = s.left_out ? INFINITY : s.max_abs;
    out.cosine = s.left_out ? NAN : cosine(&s);
    return out;
}

double mp_psnr(const float *x, const float *ref, int64_t n)
{
    double squares = 0;
    for (int64_t i = 0; i < n; i++) {
        const double d = (double)x[i] - ref[i];
        squares += d * d;
    }
    if (n <= 0 || !isfinite(squares))
        return NAN; /* not the -inf dB of an infinite error: a broken picture has no quality */
    return squares == 0 ? INFINITY : -10 * log10(squares / (double)n);
}

/* SSIM of one window from its weighted moments: means of x, y, x^2, y^2 and xy. */
enum { MX, MY, MXX, MYY, MXY, MOMENTS };
enum { RADIUS = 5, WINDOW = 2 * RADIUS + 1 };

static double ssim_of(const double m[MOMENTS])
{
    const double c1 = 0.01 * 0.01, c2 = 0.03 * 0.03; /* (K L)^2 with L = 1 */
    const double vx = m[MXX] - m[MX] * m[MX];
    const double vy = m[MYY] - m[MY] * m[MY];
    const double cov = m[MXY] - m[MX] * m[MY];
    return (2 * m[MX] * m[MY] + c1) * (2 * cov + c2) /
           ((m[MX] * m[MX] + m[MY] * m[MY] + c1) * (vx + vy + c2));
}

static void add_moments(double m[MOMENTS], double weight, double x, double y)
{
    m[MX] += weight * x;
    m[MY] += weight * y;
    m[MXX] += weight * x * x;
    m[MYY] += weight * y * y;
    m[MXY] += weight * x * y;
}

static double ssim_global(const float *x, const float *y, int64_t n)
{
    double m[MOMENTS] = {0};
    for (int64_t i = 0; i < n; i++)
        add_moments(m, 1, x[i], y[i]);
    for (int k = 0; k < MOMENTS; k++)
        m[k] /= (double)n;
    return ssim_of(m);
}

static void gaussian(double g[WINDOW])
{
    const double sigma = 1.5;
    double sum = 0;
    for (int i = 0; i < WINDOW; i++)
        sum += g[i] = exp(-0.5 * (i - RADIUS) * (i - RADIUS) / (sigma * sigma));
    for (int i = 0; i < WINDOW; i++)
        g[i] /= sum;
}

/* Horizontal half of the window: moments of one row, [columns, MOMENTS]. */
static void filter_row(double *out, const float *x, const float *y, int64_t columns,
                       const double g[WINDOW])
{
    for (int64_t j = 0; j < columns; j++, out += MOMENTS) {
        double m[MOMENTS] = {0};
        for (int k = 0; k < WINDOW; k++)
            add_moments(m, g[k], x[j + k], y[j + k]);
        for (int k = 0; k < MOMENTS; k++)
            out[k] = m[k];
    }
}

/* Vertical half for the window whose first row is `row`; the ring holds row r at r % WINDOW. */
static double ssim_row(const double *ring, int64_t row, int64_t columns, const double g[WINDOW])
{
    double sum = 0;
    for (int64_t j = 0; j < columns; j++) {
        double m[MOMENTS] = {0};
        for (int k = 0; k < WINDOW; k++) {
            const double *h = ring + ((row + k) % WINDOW * columns + j) * MOMENTS;
            for (int i = 0; i < MOMENTS; i++)
                m[i] += g[k] * h[i];
        }
        sum += ssim_of(m);
    }
    return sum;
}

static double ssim_windows(const float *x, const float *y, int64_t h, int64_t w, double *ring,
                           const double g[WINDOW])
{
    const int64_t rows = h - 2 * RADIUS, columns = w - 2 * RADIUS;
    double sum = 0;
    for (int64_t r = 0; r < h; r++) {
        filter_row(ring + r % WINDOW * columns * MOMENTS, x + r * w, y + r * w, columns, g);
        if (r >= 2 * RADIUS)
            sum += ssim_row(ring, r - 2 * RADIUS, columns, g);
    }
    return sum / ((double)rows * (double)columns);
}

double mp_ssim(const float *x, const float *ref, int64_t channels, int64_t h, int64_t w)
{
    if (channels <= 0 || h <= 0 || w <= 0)
        return NAN;
    const bool small = h < WINDOW || w < WINDOW;
    double g[WINDOW], sum = 0, *ring = NULL;
    gaussian(g);
    /* Eleven rows of moments and not five pictures of them: 1.8 MB for a width of 4096. */
    if (!small && !(ring = mp_alloc((size_t)(w - 2 * RADIUS), WINDOW * MOMENTS * sizeof *ring)))
        return NAN;
    for (int64_t c = 0; c < channels; c++, x += h * w, ref += h * w)
        sum += small ? ssim_global(x, ref, h * w) : ssim_windows(x, ref, h, w, ring, g);
    mp_free(ring);
    return sum / (double)channels;
}

/* Rows (or columns, with the strides exchanged) of one channel of the difference x - untiled. */
typedef struct lines {
    const float *x, *untiled;
    int64_t count, length; /* lines, values in each */
    int64_t step, along;   /* from a line to the next, from a value to the next */
} lines;

/* Energy of the step from line i - 1 to line i. */
static double jump(const lines *l, int64_t i)
{
    const float *x = l->x + i * l->step, *u = l->untiled + i * l->step;
    double sum = 0;
    for (int64_t k = 0; k < l->length; k++) {
        const int64_t at = k * l->along;
        const double d = ((double)x[at] - u[at]) - ((double)x[at - l->step] - u[at - l->step]);
        sum += d * d;
    }
    return sum;
}

typedef struct energies {
    double border, inside;
    int64_t borders;
} energies;

/* Tile borders lie at the multiples of the stride.  Half a stride back, and not forward, every one
 * of them has its twin in the picture, also where the last tile is narrow. */
static void add_borders(energies *e, const lines *l, int64_t stride)
{
    if (stride < 2)
        return; /* no tiling, or no line between two borders */
    for (int64_t i = stride; i < l->count; i += stride) {
        e->border += jump(l, i);
        e->inside += jump(l, i - stride / 2);
        e->borders++;
    }
}

double mp_seam(const float *x, const float *untiled, int64_t channels, int64_t h, int64_t w,
               int64_t stride_h, int64_t stride_w)
{
    energies e = {0};
    for (int64_t c = 0; c < channels; c++, x += h * w, untiled += h * w) {
        add_borders(&e, &(lines){x, untiled, h, w, w, 1}, stride_h);
        add_borders(&e, &(lines){x, untiled, w, h, 1, w}, stride_w);
    }
    if (e.borders == 0 || !isfinite(e.border) || !isfinite(e.inside))
        return NAN;
    if (e.inside == 0)
        return e.border == 0 ? 1 : INFINITY;
    return e.border / e.inside;
}
