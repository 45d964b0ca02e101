/* The default mode.  Spikes are cut off first.  Candidates come from the partition into levels that
 * explains most, less a penalty for each level; the least sure of them is dropped until the rest
 * pass (change_points_judge.c); steps that make a ramp become one (change_points_trend.c). */
#include <math.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "results/change_points_parts.h"
#include "results/statistics.h"

mp_code mp_change_points__check(const double *x, int64_t n, mp_error *err)
{
    if (n < 0)
        return mp_error_set(err, MP_EUSAGE,
                            "change points: a series of %lld points; give 0 or more", (long long)n);
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return mp_error_set(err, MP_ENUMERIC,
                                "change points: point %lld of %lld is %g; leave out what is not "
                                "finite",
                                (long long)i + 1, (long long)n, x[i]);
    return MP_OK;
}

typedef struct work {
    const mp_change_options *o;
    const double *x;
    int64_t n, shortest; /* points of the series; of a regime */
    double origin;       /* x = origin + y 2^exponent */
    int exponent;
    double *y, *calm;   /* [n] calm: without spikes */
    double *sum, *gain; /* [n + 1] running sums of calm; see partition */
    double *inverse;    /* [n + 1] 1 / i */
    int64_t *from;      /* [n + 1] see partition */
    int64_t *cut;       /* regimes are [cut[i], cut[i + 1]), i from 0 to count */
    double *p;          /* [i] of the change at cut[i + 1] */
    int count;
} work;

/* ---- Candidates ----------------------------------------------------------------------------- */

/* Of the point and two on each side, as far as there are any. */
static double running_median(const double *y, int64_t n, int64_t i)
{
    const int64_t first = i > 2 ? i - 2 : 0, end = i + 3 < n ? i + 3 : n;
    double sorted[5];
    int count = 0;

    for (int64_t k = first; k < end; k++) {
        int at = count++;
        for (; at > 0 && sorted[at - 1] > y[k]; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = y[k];
    }
    return (sorted[(count - 1) / 2] + sorted[count / 2]) / 2;
}

/* Deviation of the noise, from the differences of neighbours, which steps hardly touch.  Their
 * upper quartile, as between two modes the median may see only one; where even that is 0, all. */
static double deviation(const double *y, int64_t n, double *differences)
{
    static const double quartile = 1.6268; /* of |a - b| for Gaussian a and b of deviation 1 */
    double squares = 0;

    for (int64_t i = 1; i < n; i++) {
        differences[i - 1] = fabs(y[i] - y[i - 1]);
        squares += differences[i - 1] * differences[i - 1];
    }
    mp_sort(differences, n - 1);
    const double upper = differences[(n - 1) * 3 / 4];
    return upper > 0 ? upper / quartile : sqrt(squares / (double)(2 * (n - 1)));
}

/* calm: what is more than 3 deviations off the running median is cut off there.  A regime of 3
 * points is left whole. */
static void prepare(work *w, double sigma)
{
    w->sum[0] = 0;
    for (int64_t i = 0; i < w->n; i++) {
        const double middle = running_median(w->y, w->n, i);
        w->calm[i] = fmin(fmax(w->y[i], middle - 3 * sigma), middle + 3 * sigma);
        w->sum[i + 1] = w->sum[i] + w->calm[i];
        w->inverse[i + 1] = 1 / (double)(i + 1);
    }
}

/* Least squares by optimal partitioning.  gain[e]: what levels explain of the first e points, less
 * the penalties, for the best partition; from[e]: start of its last regime. */
static void partition(work *w)
{
    const double sigma = deviation(w->y, w->n, w->gain);
    const double penalty = 2 * sigma * sigma * log((double)w->n);

    prepare(w, sigma);
    w->gain[0] = penalty; /* the first level costs nothing */
    for (int64_t e = w->shortest; e <= w->n; e++) {
        double best = penalty + w->sum[e] * w->sum[e] * w->inverse[e];
        w->from[e] = 0;
        for (int64_t s = w->shortest; s <= e - w->shortest; s++) {
            const double d = w->sum[e] - w->sum[s];
            const double gain = w->gain[s] + d * d * w->inverse[e - s];
            if (gain > best) {
                best = gain;
                w->from[e] = s;
            }
        }
        w->gain[e] = best - penalty;
    }
}

/* Reads the partition from its end. */
static void read_cuts(work *w)
{
    int64_t first = w->n;

    w->cut[w->n] = w->n;
    for (int64_t e = w->n; (e = w->from[e]) > 0;)
        w->cut[--first] = e;
    w->count = (int)(w->n - first);
    memmove(w->cut + 1, w->cut + first, (size_t)(w->count + 1) * sizeof *w->cut);
    w->cut[0] = 0;
}

/* ---- Which of them pass --------------------------------------------------------------------- */

/* What y[n] leaves about its line of least squares: adds the squares, and the products of
 * neighbours. */
static void add_residuals(const double *y, int64_t n, double *squares, double *products)
{
    const double middle = (double)(n - 1) / 2, spread = (double)n * ((double)n * n - 1) / 12;
    double mean = 0, slope = 0, last = 0;

    for (int64_t i = 0; i < n; i++) {
        mean += y[i];
        slope += ((double)i - middle) * y[i];
    }
    mean /= (double)n;
    slope = n > 1 ? slope / spread : 0;
    for (int64_t i = 0; i < n; i++) {
        const double left = y[i] - mean - slope * ((double)i - middle);
        *squares += left * left;
        *products += last * left;
        last = left;
    }
}

/* Correlation of a point with the next about the regimes' lines: a ramp is not noise.  Shrunk where
 * there are few points to a regime, as these can hardly tell it from a step. */
static double correlation(const work *w)
{
    double products = 0, squares = 0;

    for (int i = 0; i <= w->count; i++)
        add_residuals(w->calm + w->cut[i], w->cut[i + 1] - w->cut[i], &squares, &products);
    const double shrink = 1 - 4.0 * (w->count + 1) / (double)w->n;
    return squares > 0 ? fmin(fmax(products / squares * shrink, 0), 0.9) : 0;
}

/* Of the series or of the calm one. */
static mp_regimes regimes_at(const work *w, const double *y, int i, double rho)
{
    const int64_t *c = w->cut + i;
    return (mp_regimes){y + c[0], y + c[1], c[1] - c[0], c[2] - c[1], rho};
}

/* p of the change at cut[i + 1]; 2 where it must go whatever p is. */
static mp_code judge(work *w, int i, double rho)
{
    const mp_regimes r = regimes_at(w, w->y, i, rho), calm = regimes_at(w, w->calm, i, rho);
    bool yes = true;
    mp_code code = MP_OK;

    w->p[i] = mp_change_points__surprise(&calm, w->o->min_segment);
    if (w->p[i] <= w->o->p) {
        const double before = mp_median(w->x + w->cut[i], r.n_a);
        const double least = fmax(w->o->floor, w->o->effect * fabs(before));
        code = isnan(before) ? MP_ENOMEM
                             : mp_change_points__confirm(&r, w->o->min_segment,
                                                         ldexp(least, -w->exponent), w->o->p, &yes);
    }
    w->p[i] = yes ? w->p[i] : 2;
    return code;
}

/* Those from first to last that there are. */
static mp_code judge_range(work *w, int first, int last, double rho)
{
    for (int i = first > 0 ? first : 0; i <= last && i < w->count; i++)
        if (judge(w, i, rho))
            return MP_ENOMEM;
    return MP_OK;
}

static void drop(work *w, int i)
{
    memmove(w->cut + i + 1, w->cut + i + 2, (size_t)(w->count - i) * sizeof *w->cut);
    memmove(w->p + i, w->p + i + 1, (size_t)(w->count - i - 1) * sizeof *w->p);
    w->count--;
}

static void insert(work *w, int i, int64_t at)
{
    memmove(w->cut + i + 2, w->cut + i + 1, (size_t)(w->count - i + 1) * sizeof *w->cut);
    memmove(w->p + i + 1, w->p + i, (size_t)(w->count - i) * sizeof *w->p);
    w->cut[i + 1] = at;
    w->count++;
}

static int least_sure(const work *w)
{
    int worst = 0;
    for (int i = 1; i < w->count; i++)
        worst = w->p[i] > w->p[worst] ? i : worst;
    return worst;
}

/* Drops the least sure change until all pass, and again as long as the correlation, which levels
 * too many hide, has others fail. */
static mp_code prune(work *w, double *rho)
{
    for (int before = -1; before != w->count;) {
        before = w->count;
        *rho = correlation(w);
        if (judge_range(w, 0, w->count - 1, *rho))
            return MP_ENOMEM;
        for (int i; w->count && w->p[i = least_sure(w)] > w->o->p;) {
            drop(w, i);
            if (judge_range(w, i - 1, i, *rho))
                return MP_ENOMEM;
        }
    }
    return MP_OK;
}

/* Splits each regime once more where that explains most, if the split passes.  A steep ramp needs
 * it: none of its many short levels passes beside the next, so that all were dropped. */
static mp_code split_again(work *w, double rho)
{
    for (int i = 0; i <= w->count; i++) {
        const int64_t start = w->cut[i], end = w->cut[i + 1];
        double best = 0;
        int64_t at = 0;
        for (int64_t s = start + w->shortest; s <= end - w->shortest; s++) {
            const double a = w->sum[s] - w->sum[start], b = w->sum[end] - w->sum[s];
            const double gain = a * a * w->inverse[s - start] + b * b * w->inverse[end - s];
            if (gain > best) {
                best = gain;
                at = s;
            }
        }
        if (!at)
            continue;
        insert(w, i, at);
        if (judge(w, i, rho))
            return MP_ENOMEM;
        if (w->p[i] > w->o->p)
            drop(w, i);
        else
            i++; /* not the halves again */
    }
    return MP_OK;
}

/* ---- What is reported ----------------------------------------------------------------------- */

static mp_code describe_step(const work *w, int i, double rho, mp_change_point *c)
{
    const mp_regimes r = regimes_at(w, w->y, i, rho);

    *c = (mp_change_point){
        .index = w->cut[i + 1],
        .before = w->cut[i],
        .centre_before = mp_median(w->x + w->cut[i], r.n_a),
        .centre_after = mp_median(w->x + w->cut[i + 1], r.n_b),
        .p = w->p[i],
    };
    if (isnan(c->centre_before) || isnan(c->centre_after) ||
        mp_change_points__interval(&r, &c->low, &c->high))
        return MP_ENOMEM;
    const double shift = c->centre_after - c->centre_before;
    c->low = fmin(ldexp(c->low, w->exponent), shift); /* it is about another centre: widened */
    c->high = fmax(ldexp(c->high, w->exponent), shift);
    return MP_OK;
}

static void describe_trend(const work *w, mp_change_point *c)
{
    c->centre_before = w->origin + ldexp(c->centre_before, w->exponent);
    c->centre_after = w->origin + ldexp(c->centre_after, w->exponent);
    c->low = ldexp(c->low, w->exponent);
    c->high = ldexp(c->high, w->exponent);
}

static mp_code describe(work *w, double rho, mp_change_point *c)
{
    for (int i = 0; i < w->count; i++)
        if (describe_step(w, i, rho, &c[i]))
            return MP_ENOMEM;
    w->count =
        mp_change_points__trends(w->calm, w->n, w->o->min_segment, rho, c, w->count, w->gain);
    for (int i = 0; i < w->count; i++)
        if (c[i].trend)
            describe_trend(w, &c[i]);
    return MP_OK;
}

/* ---- Both ----------------------------------------------------------------------------------- */

/* y, about the median: about any other value, a spike perhaps, all others could lose their digits.
 * False where all values are equal. */
static bool scale(work *w)
{
    double most = 0;
    int up, down;

    for (int64_t i = 0; i < w->n; i++)
        most = fmax(most, fabs(w->x[i]));
    frexp(most, &up); /* first, so that no difference overflows */
    most = 0;
    for (int64_t i = 0; i < w->n; i++) {
        w->y[i] = ldexp(w->x[i], -up) - ldexp(w->origin, -up);
        most = fmax(most, fabs(w->y[i]));
    }
    frexp(most, &down);
    for (int64_t i = 0; i < w->n; i++)
        w->y[i] = ldexp(w->y[i], -down);
    w->exponent = up + down;
    return most > 0;
}

static mp_code check_options(const mp_change_options *o, mp_error *err)
{
    if (o->min_segment < 1)
        return mp_error_set(err, MP_EUSAGE, "change points: a regime of %d points; give 1 or more",
                            o->min_segment);
    if (!(o->p > 0 && o->p < 1))
        return mp_error_set(err, MP_EUSAGE, "change points: p is %g; give one between 0 and 1",
                            o->p);
    if (!(o->effect >= 0 && o->floor >= 0))
        return mp_error_set(err, MP_EUSAGE,
                            "change points: effect is %g and floor %g; give 0 or more", o->effect,
                            o->floor);
    return MP_OK;
}

static mp_code find(work *w, mp_change_point **out, int *count)
{
    mp_code code = MP_OK;
    double rho = 0;

    if (w->n && isnan(w->origin = mp_median(w->x, w->n)))
        return MP_ENOMEM;
    if (w->n >= 2 * w->shortest && scale(w)) {
        partition(w);
        read_cuts(w);
        code = prune(w, &rho);
        code = code ? code : split_again(w, rho);
        code = code ? code : prune(w, &rho);
    }
    mp_change_point *c = code ? NULL : mp_alloc((size_t)w->count, sizeof *c);
    if (!c || describe(w, rho, c)) {
        mp_free(c);
        return MP_ENOMEM;
    }
    *out = c;
    *count = w->count;
    return MP_OK;
}

mp_code mp_change_points(const double *x, int64_t n, const mp_change_options *o,
                         mp_change_point **out, int *count, mp_error *err)
{
    if (mp_change_points__check(x, n, err) || check_options(o, err))
        return err->code;
    const size_t room = (size_t)n + 1;
    double *numbers = mp_alloc(room, 6 * sizeof *numbers);
    int64_t *places = mp_alloc(room, 2 * sizeof *places);
    work w = {.o = o, .x = x, .n = n, .shortest = o->min_segment};
    mp_code code = MP_ENOMEM;

    if (numbers && places) {
        w.y = numbers, w.calm = numbers + room, w.sum = numbers + 2 * room;
        w.gain = numbers + 3 * room, w.inverse = numbers + 4 * room, w.p = numbers + 5 * room;
        w.from = places, w.cut = places + room;
        code = find(&w, out, count);
    }
    mp_free(numbers);
    mp_free(places);
    return code ? mp_error_set(err, code, "change points: no memory for %lld points", (long long)n)
                : MP_OK;
}
