/* The mode that equals Apache Otava 0.8, index for index.
 *
 * Which split is best, and whether one level differs from the next, hangs on the last bit wherever
 * values tie: in quantised and in constant series.  So sums are taken in the order in which Otava
 * takes them, that of numpy's cumsum (one by one) and sum (in pairs), and the deviation is that of
 * the population (ddof 0), although the t-test expects that of a sample. */
#include <math.h>
#include <string.h>

#include <gsl/gsl_cdf.h>

#include "kernels/core/memory.h"
#include "results/change_points_parts.h"

/* ---- The t-test ----------------------------------------------------------------------------- */

static double term(double x, const double *centre)
{
    return centre ? (x - *centre) * (x - *centre) : x;
}

/* Of x, or of the squared distances to *centre, in the order of numpy's sum. */
static double sum(const double *x, int64_t n, const double *centre)
{
    enum { LANES = 8, BLOCK = 128 };
    double lane[LANES], all = 0;
    int64_t i = 0;

    if (n > BLOCK) {
        const int64_t half = n / 2 - n / 2 % LANES;
        return sum(x, half, centre) + sum(x + half, n - half, centre);
    }
    if (n >= LANES) {
        for (; i < LANES; i++)
            lane[i] = term(x[i], centre);
        for (; i < n - n % LANES; i++)
            lane[i % LANES] += term(x[i], centre);
        all = ((lane[0] + lane[1]) + (lane[2] + lane[3])) +
              ((lane[4] + lane[5]) + (lane[6] + lane[7]));
    }
    for (; i < n; i++)
        all += term(x[i], centre);
    return all;
}

static double mean(const double *x, int64_t n)
{
    return sum(x, n, NULL) / (double)n;
}

/* Of the population.  Otava hands on its root, whose square this is. */
static double variance(const double *x, int64_t n, double centre)
{
    const double deviation = sqrt(sum(x, n, &centre) / (double)n);
    return deviation * deviation;
}

/* Two-sided, of Student's t with equal variances; NaN for equal levels without any noise.  By the
 * incomplete beta function: GSL's own t approximates from 30 degrees of freedom on (6e-7 off). */
static double t_test(double difference, double v_a, int64_t n_a, double v_b, int64_t n_b)
{
    const double a = (double)n_a, b = (double)n_b, freedom = a + b - 2;
    const double pooled = ((a - 1) * v_a + (b - 1) * v_b) / freedom;
    const double t = difference / sqrt(pooled * (1 / a + 1 / b));

    if (freedom <= 0)
        return 1;
    return isnan(t) ? t : gsl_cdf_beta_P(freedom / (freedom + t * t), freedom / 2, 0.5);
}

/* Level and p of the change at `index` between its neighbours. */
static mp_change_point measure(const double *x, int64_t start, int64_t index, int64_t end)
{
    const double *a = x + start, *b = x + index;
    const int64_t n_a = index - start, n_b = end - index;
    const double mean_a = mean(a, n_a), mean_b = mean(b, n_b);

    return (mp_change_point){
        .index = index,
        .before = start,
        .centre_before = mean_a,
        .centre_after = mean_b,
        .low = NAN,
        .high = NAN,
        .p = t_test(mean_a - mean_b, variance(a, n_a, mean_a), n_a, variance(b, n_b, mean_b), n_b),
    };
}

/* ---- Split ---------------------------------------------------------------------------------- */

/* The best split of the points start .. end - 1 of a window. */
typedef struct split {
    int64_t start, end, index;
    double q;
} split;

/* Room for a window of n points. */
typedef struct room {
    double *row;    /* [n] of each point: sum of the distances to those behind it, so far */
    double *suffix; /* [n] sum of rows from a point to the newest */
    double *within; /* [n] sum of all distances among the points before */
    split *splits;  /* [n] */
} room;

/* within[i]: sum of all distances among the first i + 1 points behind start. */
static void sum_within(const double *x, int64_t start, int64_t end, double *within)
{
    double all = 0;

    within[0] = 0;
    for (int64_t k = start + 1; k < end; k++) {
        double column = 0, outside = 0; /* Otava subtracts what lies before start */
        for (int64_t r = 0; r < k; r++)
            column += fabs(x[r] - x[k]);
        for (int64_t r = 0; r < start; r++)
            outside += fabs(x[r] - x[k]);
        all += column - outside;
        within[k - start] = all;
    }
}

/* Q(X, Y) of arXiv 1306.4933: mn / (m + n) times the energy distance of X, the first n points, and
 * Y, the m behind them.  across, in_x, in_y: sums of the distances between and within the two. */
static double divergence(double across, double in_x, int64_t n, double in_y, int64_t m)
{
    const double a = 2 / (double)(n + m) * across;
    const double b = n > 1 ? (double)(2 * m) / (double)((n + m) * (n - 1)) * in_x : 0;
    const double c = m > 1 ? (double)(2 * n) / (double)((n + m) * (m - 1)) * in_y : 0;
    return a - b - c;
}

/* Over all X = [start, index) and Y = [index, stop) with stop <= end; of equals the one with the
 * smallest index, then the smallest stop.  Column by column, so that room for n is enough. */
static split best_split(const double *window, int64_t start, int64_t end, room *r)
{
    const double *x = window + start;
    split best = {.start = start, .end = end, .index = start + 1, .q = -INFINITY};

    sum_within(window, start, end, r->within);
    memset(r->row, 0, (size_t)(end - start) * sizeof *r->row);
    for (int64_t last = 1; last < end - start; last++) {
        double rows = 0, behind = 0;
        for (int64_t i = 0; i < last; i++)
            r->row[i] += fabs(x[i] - x[last]);
        r->suffix[last] = 0;
        for (int64_t i = last - 1; i >= 0; i--)
            r->suffix[i] = behind += r->row[i];
        for (int64_t n = 1; n <= last; n++) {
            rows += r->row[n - 1];
            const double in_x = r->within[n - 1];
            const double q = divergence(rows - in_x, in_x, n, r->suffix[n], last + 1 - n);
            if (q > best.q || (q == best.q && start + n < best.index)) {
                best.q = q;
                best.index = start + n;
            }
        }
    }
    return best;
}

/* Replaces splits[at] by the best splits of its two halves; points alone have none. */
static int cut(const double *window, room *r, int at, int count)
{
    const split old = r->splits[at];
    split halves[2];
    int n = 0;

    if (old.index - old.start > 1)
        halves[n++] = best_split(window, old.start, old.index, r);
    if (old.end - old.index > 1)
        halves[n++] = best_split(window, old.index, old.end, r);
    memmove(r->splits + at + n, r->splits + at + 1, (size_t)(count - at - 1) * sizeof(split));
    memcpy(r->splits + at, halves, (size_t)n * sizeof(split));
    return count - 1 + n;
}

/* Marks the changes of a window that pass p; the last of them, or -1. */
static int64_t split_window(const double *window, int64_t n, double p, room *r, char *marks)
{
    int count = 0;
    int64_t last = -1;

    if (n > 1)
        r->splits[count++] = best_split(window, 0, n, r);
    while (count) {
        int best = 0;
        for (int i = 1; i < count; i++)
            if (r->splits[i].q > r->splits[best].q)
                best = i;
        const split s = r->splits[best];
        if (!(measure(window, s.start, s.index, s.end).p <= p))
            break;
        marks[s.index] = 1;
        last = s.index > last ? s.index : last;
        count = cut(window, r, best, count);
    }
    return last;
}

/* "Weak" changes: found in a window with a lenient p. */
static void split_windows(const double *x, int64_t n, const mp_otava_options *o, room *r,
                          char *marks)
{
    const double p = o->p < 0.05 ? o->p * 10 : o->p < 0.5 ? o->p * 2 : o->p;

    for (int64_t start = 0; start < n;) {
        const int64_t length = n - start < o->window ? n - start : o->window;
        const int64_t last = split_window(x + start, length, p, r, marks + start);
        start += last > o->window / 2 ? last : o->window / 2;
    }
}

/* ---- Merge ---------------------------------------------------------------------------------- */

static double relative(double from, double to)
{
    return from == 0 ? 0 : fabs(to / from - 1);
}

static double magnitude(const mp_change_point *c)
{
    return fmax(relative(c->centre_before, c->centre_after),
                relative(c->centre_after, c->centre_before));
}

/* Measures the change at i between its neighbours; outside of the list there is none. */
static void measure_again(const double *x, int64_t n, mp_change_point *c, int i, int count)
{
    if (i < count)
        c[i] = measure(x, i ? c[i - 1].index : 0, c[i].index, i + 1 < count ? c[i + 1].index : n);
}

/* The change to drop: the least sure one, or, where all are sure, the smallest; -1: none. */
static int weakest(const mp_change_point *c, int count, const mp_otava_options *o)
{
    int at = 0;

    for (int i = 1; i < count; i++)
        if (c[i].p > c[at].p)
            at = i;
    if (!(c[at].p < o->p))
        return at;
    at = 0;
    for (int i = 1; i < count; i++)
        if (magnitude(&c[i]) < magnitude(&c[at]))
            at = i;
    return magnitude(&c[at]) > o->magnitude ? -1 : at;
}

static int merge(const double *x, int64_t n, const mp_otava_options *o, mp_change_point *c,
                 int count)
{
    for (int i = 0; i < count; i++)
        measure_again(x, n, c, i, count);
    for (int at; count && (at = weakest(c, count, o)) >= 0;) {
        memmove(c + at, c + at + 1, (size_t)(--count - at) * sizeof *c);
        /* The neighbours were at - 1 and at + 1, and are at - 1 and at now.  Otava measures at and
         * at + 1 again, so the left one keeps what it had. */
        measure_again(x, n, c, at, count);
        measure_again(x, n, c, at + 1, count);
    }
    return count;
}

/* ---- Both ----------------------------------------------------------------------------------- */

static mp_code check_options(const mp_otava_options *o, mp_error *err)
{
    if (o->window < 2)
        return mp_error_set(err, MP_EUSAGE,
                            "change points: a window of %d points cannot be split; give 2 or more",
                            o->window);
    return MP_OK;
}

static int marked(const char *marks, int64_t n, mp_change_point *out)
{
    int count = 0;

    for (int64_t i = 0; i < n; i++)
        if (marks[i]) {
            if (out)
                out[count].index = i;
            count++;
        }
    return count;
}

mp_code mp_change_points_otava(const double *x, int64_t n, const mp_otava_options *o,
                               mp_change_point **out, int *count, mp_error *err)
{
    if (mp_change_points__check(x, n, err) || check_options(o, err))
        return err->code;
    const size_t width = (size_t)(n < o->window ? n : o->window);
    double *numbers = mp_alloc(width, 3 * sizeof *numbers);
    room r = {.splits = mp_alloc(width, sizeof *r.splits)};
    char *marks = mp_alloc((size_t)n, sizeof *marks);
    mp_change_point *points = NULL;

    if (numbers && r.splits && marks) {
        r.row = numbers, r.suffix = numbers + width, r.within = numbers + 2 * width;
        split_windows(x, n, o, &r, marks);
        points = mp_alloc((size_t)marked(marks, n, NULL), sizeof *points);
    }
    if (points) {
        *count = merge(x, n, o, points, marked(marks, n, points));
        *out = points;
    } else
        mp_error_set(err, MP_ENOMEM, "change points: no memory for %lld points", (long long)n);
    mp_free(numbers);
    mp_free(r.splits);
    mp_free(marks);
    return points ? MP_OK : MP_ENOMEM;
}
