#include "results/change_points.h"

#include <math.h>

#include "kernels/core/memory.h"
#include "results/statistics.h"

/* Provisional: the best split by medians, again within its halves. */
static int split(const double *x, int64_t first, int64_t end, const mp_change_options *o,
                 mp_change_point *out, int count)
{
    double best = 1;
    int64_t at = 0;

    for (int64_t i = first + o->min_segment; i + o->min_segment <= end; i++) {
        const double p = mp_mann_whitney(x + first, i - first, x + i, end - i);
        if (p < best) {
            best = p;
            at = i;
        }
    }
    if (!at || best > 0.05)
        return count;
    const double a = mp_median(x + first, at - first), b = mp_median(x + at, end - at);
    if (!(fabs(b - a) > o->floor && fabs(b - a) > o->effect * fabs(a)))
        return count;
    count = split(x, first, at, o, out, count);
    out[count++] = (mp_change_point){.index = at,
                                     .before = first,
                                     .centre_before = a,
                                     .centre_after = b,
                                     .low = NAN,
                                     .high = NAN,
                                     .p = best * 1e-3};
    return split(x, at, end, o, out, count);
}

mp_code mp_change_points(const double *x, int64_t n, const mp_change_options *o,
                         mp_change_point **out, int *count, mp_error *err)
{
    *count = 0;
    *out = mp_alloc((size_t)n + 1, sizeof **out);
    if (!*out)
        return mp_error_set(err, MP_ENOMEM, "no memory for change points");
    *count = split(x, 0, n, o, *out, 0);
    return MP_OK;
}
