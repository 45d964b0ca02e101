#include <math.h>
#include <stdio.h>

#include "plots/draw.h"

/* What no axis can hold counts as not finite, and as 0: sums of its ends must be numbers. */
static double tame(double value)
{
    return fabs(value) > 1e300 ? NAN : fabs(value) < 1e-300 ? 0 : value;
}

void mp_plot_extend(mp_plot_extent *e, double value)
{
    value = tame(value);
    if (isnan(value)) {
        e->nonfinite = true;
        return;
    }
    e->low = e->any ? fmin(e->low, value) : value;
    e->high = e->any ? fmax(e->high, value) : value;
    e->any = true;
    e->zero = e->zero || value == 0;
    if (value > 0)
        e->positive = e->positive > 0 ? fmin(e->positive, value) : value;
}

/* Whole decades, and one more for each of what has no place in them. */
static mp_plot_axis decades(const mp_plot_extent *e)
{
    mp_plot_axis a = {.log = true,
                      .low = pow(10, floor(log10(e->positive))),
                      .high = pow(10, ceil(log10(e->high))),
                      .zero = NAN,
                      .above = NAN};

    if (a.high <= a.low) /* one value, a power of ten */
        a.high = 10 * a.low;
    if (e->zero) {
        a.zero = a.low / 10;
        a.low = a.zero / 2;
    }
    if (e->nonfinite) {
        a.above = a.high * 10;
        a.high = a.above * 2;
    }
    return a;
}

/* 1, 2 or 5 times a power of ten, so that there are about five. */
static double tic_step(double span)
{
    const double power = pow(10, floor(log10(span / 5))), n = span / 5 / power;

    return power * (n > 5 ? 10 : n > 2 ? 5 : n > 1 ? 2 : 1);
}

static mp_plot_axis linear(const mp_plot_extent *e)
{
    const double different = e->high - e->low;
    const bool flat = different <= 1e-5 * fmax(fabs(e->high), fabs(e->low)); /* to six digits */
    const double span = !flat ? different : e->high != 0 ? fabs(e->high) / 5 : 1;
    const double margin = flat ? span / 2 : span / 8;
    mp_plot_axis a = {.low = e->low - margin, .high = e->high + margin, .zero = NAN, .above = NAN};

    if (e->low >= 0 && a.low < 0)
        a.low = 0;
    a.step = tic_step(span);
    a.first = ceil(a.low / a.step) * a.step;
    a.last = e->nonfinite ? fmax(e->high, a.first) : a.high;
    if (e->nonfinite) {
        a.above = e->high + span / 4;
        a.high = e->high + span / 3;
    }
    return a;
}

mp_plot_axis mp_plot_axis_of(const mp_plot_extent *e, bool spans_much)
{
    enum { WIDE = 20 }; /* times the smallest: on a linear axis that would lie on the ground */

    spans_much = spans_much || e->high > WIDE * e->positive;
    return e->low >= 0 && e->positive > 0 && spans_much ? decades(e) : linear(e);
}

double mp_plot_place(const mp_plot_axis *a, double value)
{
    value = tame(value);
    return isnan(value) ? a->above : a->log && value == 0 ? a->zero : value;
}

double mp_plot_share(const mp_plot_axis *a, double place)
{
    return a->log ? log(place / a->low) / log(a->high / a->low)
                  : (place - a->low) / (a->high - a->low);
}

static void set(mp_plot *p, const char *axis, const char *part, double value)
{
    char name[40];

    snprintf(name, sizeof name, "%s_%s", axis, part);
    mp_gnuplot_set_number(&p->g, name, value);
}

void mp_plot_set_axis(mp_plot *p, const char *name, const mp_plot_axis *a)
{
    set(p, name, "log", a->log);
    set(p, name, "low", a->low);
    set(p, name, "high", a->high);
    set(p, name, "zero", a->zero);
    set(p, name, "above", a->above);
    set(p, name, "first", a->first);
    set(p, name, "step", a->step);
    set(p, name, "last", a->last);
}
