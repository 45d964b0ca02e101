/* Ramps.  A slow rise is cut into several steps of one direction, or into one in its middle.  Where
 * a level, a line and a level fit the points better than those steps, by the Bayesian information
 * criterion, the steps become one change: the ramp. */
#include <math.h>
#include <string.h>

#include <gsl/gsl_cdf.h>

#include "results/change_points_parts.h"

/* By how much a ramp must beat one step: Kass and Raftery (1995) call 10 very strong.  Less would
 * turn one step in a hundred into a ramp and move its place.  Several steps of one direction are a
 * ramp as soon as it beats them. */
static const double BEATS_ONE = 10, BEATS_SEVERAL = 0;
enum { PARAMETERS = 4 }; /* of a ramp: two levels and two places */

/* Of the points [start, end) of y: running sums of y and of i y from the series' start on. */
typedef struct stretch {
    const double *y, *sum, *moment;
    int64_t start, end;
    double mean, squares; /* squares: about the mean */
} stretch;

/* y = level before first; from there in `length` equal parts to level + rise. */
typedef struct ramp {
    int64_t first, length;
    double level, rise, left; /* left: sum of the squares that it does not explain */
    double spread;            /* of the ramp's shape about its mean: sum of squares */
} ramp;

static stretch stretch_of(const double *y, const double *sum, const double *moment, int64_t start,
                          int64_t end)
{
    stretch s = {.y = y, .sum = sum, .moment = moment, .start = start, .end = end};

    s.mean = (sum[end] - sum[start]) / (double)(end - start);
    for (int64_t i = start; i < end; i++)
        s.squares += (y[i] - s.mean) * (y[i] - s.mean);
    return s;
}

/* Least squares with the shape (i - first + 1) / length, kept between 0 and 1. */
static ramp fit(const stretch *s, int64_t first, int64_t length)
{
    const int64_t top = first + length; /* from here on the shape is 1 */
    const double n = (double)(s->end - s->start), w = (double)length,
                 behind = (double)(s->end - top);
    const double shape = (w + 1) / 2 + behind, squares = (w + 1) * (2 * w + 1) / (6 * w) + behind;
    const double line =
        s->moment[top] - s->moment[first] - (double)(first - 1) * (s->sum[top] - s->sum[first]);
    const double with_y = line / w + s->sum[s->end] - s->sum[top];
    const double spread = squares - shape * shape / n;
    const double common = with_y - shape * s->mean;
    ramp r = {.first = first, .length = length, .rise = common / spread, .spread = spread};

    r.level = s->mean - r.rise * shape / n;
    r.left = fmax(0, s->squares - common * r.rise);
    return r;
}

/* The best of the ramps whose first point and length lie on a grid within [from, to]. */
static ramp search(const stretch *s, ramp best, const int64_t from[2], const int64_t to[2],
                   int64_t stride, int64_t shortest)
{
    for (int64_t first = from[0]; first <= to[0]; first += stride)
        for (int64_t length = from[1]; length <= to[1]; length += stride) {
            if (first < s->start || length < shortest || first + length > s->end)
                continue;
            const ramp r = fit(s, first, length);
            if (r.left < best.left)
                best = r;
        }
    return best;
}

/* Over the whole stretch first, then point by point around the best. */
static ramp best_ramp(const stretch *s, int64_t shortest)
{
    const int64_t n = s->end - s->start, stride = 1 + n / 32;
    ramp best = {.left = INFINITY};

    best =
        search(s, best, (int64_t[]){s->start, shortest}, (int64_t[]){s->end, n}, stride, shortest);
    return search(s, best, (int64_t[]){best.first - stride, best.length - stride},
                  (int64_t[]){best.first + stride, best.length + stride}, 1, shortest);
}

/* By how much the ramp's Bayesian information criterion is better than that of `count` steps, n
 * points being worth as few as correlation leaves of them. */
static double advantage(double left_by_steps, int count, double left_by_ramp, int64_t n, double rho)
{
    const double worth = (double)n * (1 - rho) / (1 + rho);
    const int of_steps = 2 * count + 1; /* a level more than steps, and a place for each */
    return worth * log(left_by_steps / left_by_ramp) + (of_steps - PARAMETERS) * log(worth);
}

/* c[0] .. c[count - 1] are steps of one direction, the last of them up to end. */
static bool is_ramp(const double *y, const double *sum, const double *moment, int min_segment,
                    double rho, const mp_change_point *c, int count, int64_t end, ramp *out)
{
    const stretch s = stretch_of(y, sum, moment, c[0].before, end);
    double left = 0;

    for (int i = 0; i <= count; i++) {
        const int64_t from = i ? c[i - 1].index : s.start, to = i < count ? c[i].index : end;
        left += stretch_of(y, sum, moment, from, to).squares;
    }
    *out = best_ramp(&s, 2 * min_segment);
    return left > 0 && isfinite(out->left) && end - s.start > PARAMETERS &&
           advantage(left, count, out->left, end - s.start, rho) >
               (count > 1 ? BEATS_SEVERAL : BEATS_ONE);
}

static mp_change_point change_of(const ramp *r, const mp_change_point *c, int count, int64_t end,
                                 double rho)
{
    const double freedom = (double)(end - c[0].before - PARAMETERS), wider = (1 + rho) / (1 - rho);
    const double half =
        gsl_cdf_tdist_Pinv(0.975, freedom) * sqrt(wider * r->left / freedom / r->spread);
    mp_change_point p = {
        .index = r->first > c[0].before ? r->first : c[0].before + 1,
        .before = c[0].before,
        .centre_before = r->level,
        .centre_after = r->level + r->rise,
        .low = r->rise - half,
        .high = r->rise + half,
        .p = c[0].p,
        .trend = true,
    };

    for (int i = 1; i < count; i++)
        p.p = fmin(p.p, c[i].p);
    return p;
}

/* Behind the last of the steps from i on that have the direction of the first. */
static int run_end(const mp_change_point *c, int i, int count)
{
    const bool up = c[i].centre_after > c[i].centre_before;
    int end = i + 1;

    while (end < count && (c[end].centre_after > c[end].centre_before) == up)
        end++;
    return end;
}

int mp_change_points__trends(const double *y, int64_t n, int min_segment, double rho,
                             mp_change_point *c, int count, double *scratch)
{
    double *sum = scratch, *moment = scratch + n + 1;
    int kept = 0;

    sum[0] = moment[0] = 0;
    for (int64_t i = 0; i < n; i++) {
        sum[i + 1] = sum[i] + y[i];
        moment[i + 1] = moment[i] + (double)i * y[i];
    }
    for (int i = 0, next; i < count; i = next) {
        ramp r;
        for (next = run_end(c, i, count); next > i; next--) { /* as many as make one ramp */
            const int64_t end = next < count ? c[next].index : n;
            if (is_ramp(y, sum, moment, min_segment, rho, c + i, next - i, end, &r)) {
                c[kept++] = change_of(&r, c + i, next - i, end, rho);
                break;
            }
        }
        if (next == i)
            c[kept++] = c[next++];
    }
    return kept;
}
