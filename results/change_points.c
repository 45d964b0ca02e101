/* The default mode.  Candidates come from the best partition into levels, a penalty for each; then
 * the least sure one is dropped until the rest pass (mp_change_points__judge). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "results/change_points_parts.h"

mp_code mp_change_points__check(const double *x, int64_t n, mp_error *err)
{
    if (n < 0)
        return mp_error_set(err, MP_EUSAGE, "change points: %lld points", (long long)n);
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return mp_error_set(err, MP_ENUMERIC,
                                "change points: point %lld of %lld is %g; leave out what is not "
                                "finite",
                                (long long)i, (long long)n, x[i]);
    return MP_OK;
}

typedef struct work {
    const mp_change_options *o;
    int64_t n, m;
    double *y;          /* [n] the series, scaled */
    double *clipped;    /* [n] without spikes */
    double *sum;        /* [n + 1] of the clipped */
    double *cost;       /* [n + 1] of the best partition of the points before */
    double *inverse;    /* [n + 1] */
    int64_t *from;      /* [n + 1] */
    int64_t *cuts;      /* [n + 1] ends of segments */
    mp_step *steps;
    int count;
} work;

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median5(const double *y, int64_t n, int64_t i)
{
    double near[5];
    int count = 0;
    const int64_t first = i > 2 ? i - 2 : 0, last = i + 2 < n ? i + 2 : n - 1;
    for (int64_t k = first; k <= last; k++) {
        int at = count++;
        for (; at > 0 && near[at - 1] > y[k]; at--)
            near[at] = near[at - 1];
        near[at] = y[k];
    }
    return (near[(count - 1) / 2] + near[count / 2]) / 2;
}

static double noise(const double *y, int64_t n, double *scratch)
{
    double all = 0;
    for (int64_t i = 1; i < n; i++) {
        scratch[i - 1] = fabs(y[i] - y[i - 1]);
        all += scratch[i - 1] * scratch[i - 1];
    }
    qsort(scratch, (size_t)(n - 1), sizeof *scratch, by_value);
    const double q = scratch[(n - 1) * 3 / 4] / 1.627;
    return q > 0 ? q : sqrt(all / (double)(2 * (n - 1)));
}

static void partition(work *w)
{
    const double sigma = noise(w->y, w->n, w->cost);
    const double penalty = 2 * sigma * sigma * log((double)w->n);
    for (int64_t i = 0; i < w->n; i++) {
        const double middle = median5(w->y, w->n, i);
        w->clipped[i] = fmin(fmax(w->y[i], middle - 3 * sigma), middle + 3 * sigma);
    }
    w->sum[0] = 0;
    for (int64_t i = 0; i < w->n; i++) {
        w->sum[i + 1] = w->sum[i] + w->clipped[i];
        w->inverse[i + 1] = 1.0 / (double)(i + 1);
    }
    w->cost[0] = 0; /* minus the gain */
    for (int64_t e = w->m; e <= w->n; e++) {
        double best = w->sum[e] * w->sum[e] * w->inverse[e];
        int64_t from = 0;
        for (int64_t s = w->m; s <= e - w->m; s++) {
            const double d = w->sum[e] - w->sum[s];
            const double gain = w->cost[s] + d * d * w->inverse[e - s];
            if (gain > best)
                best = gain, from = s;
        }
        w->cost[e] = best - penalty;
        w->from[e] = from;
    }
    int count = 0;
    for (int64_t e = w->n; e > 0; e = w->from[e])
        w->cuts[w->n - count++] = e;
    memmove(w->cuts + 1, w->cuts + w->n - count + 1, (size_t)count * sizeof *w->cuts);
    w->cuts[0] = 0;
    w->count = count - 1;
}

static double correlation(const work *w)
{
    double with_next = 0, all = 0;
    for (int s = 0; s <= w->count; s++) {
        double mean = 0;
        const int64_t a = w->cuts[s], b = w->cuts[s + 1];
        for (int64_t i = a; i < b; i++)
            mean += w->y[i];
        mean /= (double)(b - a);
        for (int64_t i = a; i < b; i++) {
            const double d = w->y[i] - mean;
            all += d * d;
            with_next += i + 1 < b ? d * (w->y[i + 1] - mean) : 0;
        }
    }
    if (!(all > 0))
        return 0;
    const double r = with_next / all;
    const double k = (double)(w->count + 1) / (double)w->n;
    const double c = r + (1 + 3 * r) * k;
    return fmin(fmax(c, 0), 0.9);
}

static bool small(const mp_step *s, const mp_change_options *o, double scale, double offset)
{
    const double d = fabs(s->centre_b - s->centre_a) * scale;
    return !(d > 0 && d > o->floor && d > o->effect * fabs(s->centre_a * scale + offset));
}

static void prune(work *w, double scale, double offset)
{
    while (w->count) {
        const double rho = correlation(w);
        int worst = -1;
        for (int i = 0; i < w->count; i++) {
            const int64_t a = w->cuts[i], b = w->cuts[i + 1], c = w->cuts[i + 2];
            w->steps[i] = mp_change_points__judge(w->y + a, b - a, w->y + b, c - b, rho, (int)w->m,
                                                 w->o->p);
            if (small(&w->steps[i], w->o, scale, offset))
                w->steps[i].p = 2;
            if (worst < 0 || w->steps[i].p > w->steps[worst].p)
                worst = i;
        }
        if (w->steps[worst].p <= w->o->p)
            break;
        memmove(w->cuts + worst + 1, w->cuts + worst + 2, (size_t)(w->count - worst) * sizeof *w->cuts);
        w->count--;
    }
}

mp_code mp_change_points(const double *x, int64_t n, const mp_change_options *o,
                         mp_change_point **out, int *count, mp_error *err)
{
    if (mp_change_points__check(x, n, err))
        return err->code;
    work w = {.o = o, .n = n, .m = o->min_segment};
    double *d = mp_alloc((size_t)(n + 2) * 5, sizeof *d);
    w.from = mp_alloc((size_t)(n + 2) * 2, sizeof *w.from);
    w.steps = mp_alloc((size_t)n, sizeof *w.steps);
    w.y = d, w.clipped = d + n + 2, w.sum = d + 2 * (n + 2), w.cost = d + 3 * (n + 2),
    w.inverse = d + 4 * (n + 2), w.cuts = w.from + n + 2;
    double low = 0, high = 0;
    for (int64_t i = 0; i < n; i++) {
        w.y[i] = x[i] - x[0];
        low = fmin(low, w.y[i]), high = fmax(high, w.y[i]);
    }
    if (n >= 2 * w.m && high > low) {
        partition(&w);
        prune(&w, 1, x[0]);
    }
    *out = mp_alloc((size_t)w.count, sizeof **out);
    *count = w.count;
    for (int i = 0; i < w.count; i++)
        (*out)[i] = (mp_change_point){.index = w.cuts[i + 1], .before = w.cuts[i], .p = w.steps[i].p};
    mp_free(d);
    mp_free(w.from);
    mp_free(w.steps);
    return MP_OK;
}
