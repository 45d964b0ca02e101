#include "results/regressions.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "results/change_points.h"
#include "results/metric_kind.h"
#include "results/regressions_internal.h"
#include "results/statistics.h"

const char *const mp_finding_kind_names[] = {"step", "trend", "exact", "outcome", NULL};
const char *const mp_finding_state_names[] = {"detected", "confirmed", "acknowledged",
                                              "fixed",    "withdrawn", NULL};

static const double P = 0.001; /* of a change point, before false-discovery control */
/* Of a library that does not give the same bits twice: smaller changes of its drift are not ours to
 * judge. */
static const double NOISY_DRIFT_EFFECT = 0.05;

typedef struct finder {
    const mp_history *h;
    const mp_regression_options *o;
    mp_findings *out;
    mp_error *err;
} finder;

static void no_memory(finder *f)
{
    if (!f->err->code)
        mp_error_set(f->err, MP_ENOMEM, "no memory for the findings");
}

/* Copied into the list; NULL: no memory. */
static mp_finding *add(finder *f, const mp_finding *finding)
{
    mp_findings *all = f->out;

    if (all->count == all->room) {
        const int room = all->room ? 2 * all->room : 32;
        mp_finding *grown = mp_realloc(all->items, (size_t)room, sizeof *grown);
        if (!grown) {
            no_memory(f);
            return NULL;
        }
        all->items = grown;
        all->room = room;
    }
    all->items[all->count] = *finding;
    return &all->items[all->count++];
}

/* The same with its words, which are taken over; NULL: there was no memory for them. */
static void tell(finder *f, mp_finding finding, char *what)
{
    finding.what = what;
    if (!what)
        no_memory(f);
    else if (!add(f, &finding))
        mp_free(what);
}

/* What needs no statistics, between two observations. */
static mp_finding plain_finding(mp_finding_kind kind, const char *metric, int subject, int before,
                                int after)
{
    return (mp_finding){.kind = kind,
                        .state = MP_FINDING_CONFIRMED,
                        .subject = subject,
                        .series = -1,
                        .metric = metric,
                        .before = before,
                        .after = after,
                        .fixed = -1,
                        .value_before = NAN,
                        .value_after = NAN,
                        .low = NAN,
                        .high = NAN,
                        .p = NAN,
                        .q = NAN};
}

static double relative(double before, double after)
{
    if (before == after)
        return 0;
    const double r = fabs(after - before) / fabs(before);
    return isfinite(r) ? r : 1e6; /* from zero, or to infinity: for the order alone */
}

/* ---- exact: deterministic cells -------------------------------------------------------------- */

/* Series of one subject: h->series[first .. end). */
typedef struct series_range {
    int first, end;
} series_range;

static bool same_number(double a, double b)
{
    return a == b || (isnan(a) && isnan(b));
}

/* The value that a series has at an observation. */
static bool value_at(const mp_series *s, int32_t observation, double *value)
{
    int64_t low = 0, high = s->count;

    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (s->observation[middle] < observation)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == s->count || s->observation[low] != observation)
        return false;
    *value = s->value[low];
    return true;
}

static bool is_exact(const mp_series *s)
{
    return mp_metric_kind_of(s->metric, s->unit, "").class == MP_METRIC_EXACT;
}

enum { TOLD = 2 };

/* What became other between two observations, while it is gathered. */
typedef struct difference {
    struct changed {
        const mp_series *series;
        double before, after, change;
    } most[TOLD]; /* those that changed most, in that order */
    int metrics, worse, better;
    double severity;
    bool other_bits;
} difference;

static bool differs(const difference *d)
{
    return d->metrics || d->other_bits;
}

static void add_difference(difference *d, const mp_series *s, double before, double after)
{
    const bool higher = mp_metric_kind_of(s->metric, s->unit, "").higher_is_better;
    const double change = relative(before, after);
    const bool worse = isnan(after) || (!isnan(before) && (after < before) == higher);
    int at = d->metrics < TOLD ? d->metrics : TOLD;

    d->worse += worse;
    d->better += !worse;
    d->severity = worse && change > d->severity ? change : d->severity;
    d->metrics++;
    while (at > 0 && d->most[at - 1].change < change)
        at--;
    if (at == TOLD)
        return;
    memmove(&d->most[at + 1], &d->most[at], (size_t)(TOLD - 1 - at) * sizeof *d->most);
    d->most[at] = (struct changed){s, before, after, change};
}

static difference difference_between(const finder *f, series_range r, int a, int b)
{
    const mp_observation *o = f->h->observations;
    difference d = {.other_bits = o[a].outputs != o[b].outputs && *o[a].outputs && *o[b].outputs};
    double before, after;

    for (int i = r.first; i < r.end; i++)
        if (is_exact(&f->h->series[i]) && value_at(&f->h->series[i], a, &before) &&
            value_at(&f->h->series[i], b, &after) && !same_number(before, after))
            add_difference(&d, &f->h->series[i], before, after);
    return d;
}

/* "latent_rel_l2 0.0131 -> 0.0198 (+51 %), other bits" */
static char *difference_text(const difference *d, bool same_program)
{
    char text[600];
    size_t n = 0;

    for (int i = 0; i < d->metrics && i < TOLD; i++) {
        const struct changed *c = &d->most[i];
        const double percent = 100 * (c->after / c->before - 1);
        n += (size_t)snprintf(text + n, sizeof text - n, "%s%.60s %.4g -> %.4g", i ? ", " : "",
                              c->series->metric, c->before, c->after);
        if (isfinite(percent))
            n += (size_t)snprintf(text + n, sizeof text - n, " (%+.2g %%)", percent);
    }
    if (d->metrics > TOLD)
        n += (size_t)snprintf(text + n, sizeof text - n, ", %d more", d->metrics - TOLD);
    snprintf(text + n, sizeof text - n, "%s%s%s", n ? ", " : "",
             d->other_bits ? "other bits" : "same bits: the reference moved",
             same_program ? ", by the same program: not reproducible" : "");
    return mp_strdup(text);
}

static const char *build_of(const finder *f, int observation)
{
    return f->h->runs[f->h->observations[observation].run].build;
}

/* The bits that an unchanged program gives again.  Of the native engine that is a promise, so a
 * broken one is a finding; of a library it must have been seen. */
static bool is_deterministic(const finder *f, const mp_subject *s, const int *good, int n)
{
    bool seen = false;

    if (!strcmp(s->engine, "native"))
        return true;
    for (int i = 1; i < n; i++)
        if (build_of(f, good[i - 1]) == build_of(f, good[i])) {
            if (f->h->observations[good[i - 1]].outputs != f->h->observations[good[i]].outputs)
                return false;
            seen |= *f->h->observations[good[i]].outputs != '\0';
        }
    return seen;
}

/* Everything since the finding `from` that is no improvement is over. */
static void mark_fixed(finder *f, int from, int observation)
{
    for (int i = from; i < f->out->count; i++) {
        mp_finding *x = &f->out->items[i];
        if (x->state != MP_FINDING_FIXED && x->direction <= 0) {
            x->state = MP_FINDING_FIXED;
            x->fixed = observation;
        }
    }
}

/* A change that undoes an earlier one makes no finding of its own; one that undoes an improvement
 * does. */
static bool undoes(finder *f, series_range r, int first, int observation)
{
    const mp_observation *o = f->h->observations;

    for (int i = f->out->count - 1; i >= first; i--) {
        const mp_finding *earlier = &f->out->items[i];
        if (earlier->state == MP_FINDING_FIXED || earlier->direction > 0)
            continue;
        if (o[earlier->before].outputs != o[observation].outputs)
            continue; /* the usual case, quickly */
        const difference left = difference_between(f, r, earlier->before, observation);
        if (!differs(&left)) {
            mark_fixed(f, i, observation);
            return true;
        }
    }
    return false;
}

static void compare_exactly(finder *f, int subject, series_range r, const int *good, int n)
{
    const int first = f->out->count;

    for (int i = 1; i < n && !f->err->code; i++) {
        const int a = good[i - 1], b = good[i];
        const difference d = difference_between(f, r, a, b);
        if (!differs(&d) || undoes(f, r, first, b))
            continue;
        mp_finding x = plain_finding(MP_FINDING_EXACT, "outputs", subject, a, b);
        if (d.metrics) {
            x.value_before = d.most[0].before;
            x.value_after = d.most[0].after;
        }
        x.direction = d.worse ? -1 : d.better ? 1 : 0;
        x.severity = d.severity;
        tell(f, x, difference_text(&d, build_of(f, a) == build_of(f, b) && *build_of(f, b)));
    }
}

/* ---- outcomes ------------------------------------------------------------------------------- */

static const double FAILS = 1e9; /* before everything that can be measured */

static char *outcome_text(const mp_observation *a, const mp_observation *b)
{
    char text[200];

    snprintf(text, sizeof text, "%s%s%s -> %s%s%s", a->status, *a->outcome ? " " : "", a->outcome,
             b->status, *b->outcome ? " " : "", b->outcome);
    return mp_strdup(text);
}

static bool ended_alike(const mp_observation *a, const mp_observation *b)
{
    return a->as_expected == b->as_expected && a->status == b->status && a->outcome == b->outcome;
}

/* An end as before an earlier finding: that one is over, and so are all since. */
static bool ends_as_before(finder *f, int first, int observation)
{
    const mp_observation *o = f->h->observations;

    for (int i = first; i < f->out->count; i++) {
        const mp_finding *earlier = &f->out->items[i];
        if (earlier->state != MP_FINDING_FIXED && earlier->direction <= 0 &&
            ended_alike(&o[earlier->before], &o[observation])) {
            mark_fixed(f, i, observation);
            return true;
        }
    }
    return false;
}

static void compare_outcomes(finder *f, int subject)
{
    const mp_subject *s = &f->h->subjects[subject];
    const mp_observation *o = f->h->observations;
    const int first = f->out->count;

    for (int b = s->first + 1; b < s->first + s->count && !f->err->code; b++) {
        const int a = b - 1;
        if (ended_alike(&o[a], &o[b]) || ends_as_before(f, first, b))
            continue;
        mp_finding x = plain_finding(MP_FINDING_OUTCOME, "outcome", subject, a, b);
        x.direction = (int)o[b].as_expected - (int)o[a].as_expected;
        x.severity = x.direction < 0 ? FAILS : 0;
        tell(f, x, outcome_text(&o[a], &o[b]));
    }
}

/* ---- steps and trends ------------------------------------------------------------------------ */

/* What is older than that many runs changes no verdict of today, and the search is quadratic. */
enum { NEWEST = 4096 };

/* The newest finite points of a series, and where each was seen. */
typedef struct points {
    double *value;
    int32_t *observation;
    int n;
} points;

static bool take_points(finder *f, const mp_series *s, points *p)
{
    const int64_t first = s->count > NEWEST ? s->count - NEWEST : 0;

    *p = (points){.value = mp_alloc((size_t)s->count, sizeof *p->value),
                  .observation = mp_alloc((size_t)s->count, sizeof *p->observation)};
    if (!p->value || !p->observation) {
        no_memory(f);
        return false;
    }
    for (int64_t i = first; i < s->count; i++)
        if (isfinite(s->value[i])) {
            p->value[p->n] = s->value[i];
            p->observation[p->n++] = s->observation[i];
        }
    return true;
}

static void free_points(points *p)
{
    mp_free(p->value);
    mp_free(p->observation);
}

static char *step_text(const mp_series *s, double before, double after)
{
    const double change = 100 * (after / before - 1);
    char text[200];
    const bool staged = strcmp(s->stage, "run") != 0, bare = !strcmp(s->unit, "1");
    int n = snprintf(text, sizeof text, "%s%s%s", s->metric, staged ? " of " : "",
                     staged ? s->stage : "");

    if (n > 0 && n < 150)
        snprintf(text + n, sizeof text - (size_t)n,
                 isfinite(change) ? " %.4g -> %.4g%s%s (%+.1f %%)" : " %.4g -> %.4g%s%s", before,
                 after, bare ? "" : " ", bare ? "" : s->unit, change);
    return mp_strdup(text);
}

static void add_step(finder *f, int series, const points *p, const mp_change_point *c,
                     mp_finding_state state)
{
    const mp_series *s = &f->h->series[series];
    const bool higher = mp_metric_kind_of(s->metric, s->unit, "").higher_is_better;
    const bool worse = (c->centre_after < c->centre_before) == higher;

    tell(f,
         (mp_finding){.kind = c->trend ? MP_FINDING_TREND : MP_FINDING_STEP,
                      .state = state,
                      .subject = s->subject,
                      .series = series,
                      .metric = s->metric,
                      .before = p->observation[c->index - 1],
                      .after = p->observation[c->index],
                      .fixed = -1,
                      .value_before = c->centre_before,
                      .value_after = c->centre_after,
                      .low = c->low,
                      .high = c->high,
                      .p = c->p,
                      .q = NAN,
                      .direction = worse ? -1 : 1,
                      .severity = worse ? relative(c->centre_before, c->centre_after) : 0},
         step_text(s, c->centre_before, c->centre_after));
}

static bool big_enough(const mp_change_options *o, double before, double after)
{
    const double change = fabs(after - before);

    return change > o->floor && change > o->effect * fabs(before);
}

/* A step that brings the level back to where it was before earlier ones, or beyond, fixes those.
 * True: back is all that it is, and so it makes no finding of its own. */
static bool brings_back(finder *f, int first, const points *p, const mp_change_options *o,
                        const mp_change_point *c)
{
    bool is_back = false;
    int from = f->out->count;

    for (int i = from - 1; i >= first; i--) {
        const mp_finding *earlier = &f->out->items[i];
        const bool up = earlier->value_after > earlier->value_before;
        const bool differs = big_enough(o, earlier->value_before, c->centre_after);
        if (earlier->state == MP_FINDING_FIXED || earlier->direction > 0 ||
            up == (c->centre_after > c->centre_before) ||
            (differs && up == (c->centre_after > earlier->value_before)))
            continue;
        is_back = !differs;
        from = i;
    }
    mark_fixed(f, from, p->observation[c->index]);
    return is_back;
}

/* The newest points that are too few for a regime of their own: told, but no alarm yet.  All lie on
 * one side of everything that the present regime has had. */
static void look_at_the_newest(finder *f, int series, const points *p, int regime,
                               const mp_change_options *o)
{
    double low, high;

    for (int k = o->min_segment - 1; k > 0; k--) {
        const int n = p->n - k;
        if (n - regime < 2 * o->min_segment)
            continue;
        low = high = p->value[regime];
        for (int i = regime; i < n; i++) {
            low = fmin(low, p->value[i]);
            high = fmax(high, p->value[i]);
        }
        bool above = true, below = true;
        for (int i = n; i < p->n; i++) {
            above &= p->value[i] > high;
            below &= p->value[i] < low;
        }
        const double before = mp_median(p->value + regime, n - regime);
        const double after = mp_median(p->value + n, k);
        const double beyond = above ? after - high : low - after;
        /* a spread beyond the old range, as well: the next extreme of noise is no change */
        if ((above || below) && beyond > high - low && big_enough(o, before, after)) {
            add_step(f, series, p,
                     &(mp_change_point){.index = n,
                                        .before = regime,
                                        .centre_before = before,
                                        .centre_after = after,
                                        .low = NAN,
                                        .high = NAN,
                                        .p = NAN},
                     MP_FINDING_DETECTED);
            return;
        }
    }
}

/* As Otava has it: a change in both directions, whatever its size and however new. */
static void judge_as_otava(finder *f, int series, const points *p)
{
    mp_change_point *found = NULL;
    int count = 0;

    mp_change_points_otava(p->value, p->n, f->o->otava, &found, &count, f->err);
    for (int i = 0; i < count && !f->err->code; i++)
        add_step(f, series, p, &found[i], MP_FINDING_CONFIRMED);
    mp_free(found);
}

static void judge_points(finder *f, int series, const points *p, const mp_change_options *o)
{
    const int first = f->out->count;
    mp_change_point *found = NULL;
    int count = 0, regime = 0;

    mp_change_points(p->value, p->n, o, &found, &count, f->err);
    for (int i = 0; i < count && !f->err->code; i++) {
        if (!brings_back(f, first, p, o, &found[i]))
            add_step(f, series, p, &found[i], MP_FINDING_CONFIRMED);
        regime = (int)found[i].index;
    }
    if (!f->err->code)
        look_at_the_newest(f, series, p, regime, o);
    mp_free(found);
}

static void judge_series(finder *f, int series)
{
    const mp_series *s = &f->h->series[series];
    const mp_metric_kind kind =
        mp_metric_kind_of(s->metric, s->unit, f->h->subjects[s->subject].engine);
    const mp_change_options o = {.min_segment = f->o->min_segment,
                                 .p = P,
                                 .effect = kind.class == MP_METRIC_EXACT ? NOISY_DRIFT_EFFECT
                                                                         : kind.effect,
                                 .floor = kind.floor};
    points p;

    if (take_points(f, s, &p)) {
        if (p.n < f->out->least) {
            f->out->too_short++;
            f->out->shortest = series;
        } else {
            f->out->judged++;
            if (f->o->otava)
                judge_as_otava(f, series, &p);
            else
                judge_points(f, series, &p, &o);
        }
    }
    free_points(&p);
}

/* ---- all of them ---------------------------------------------------------------------------- */

/* By Benjamini and Hochberg, over all series that were looked at: one without a change point is a
 * test, too, that found nothing. */
static void control_false_discovery(finder *f)
{
    mp_findings *all = f->out;
    int tests = 0, kept = 0;

    for (int i = 0; i < all->count; i++)
        tests += !isnan(all->items[i].p);
    const int64_t n = tests > all->judged ? tests : all->judged;
    double *p = mp_alloc((size_t)n, sizeof *p), *q = mp_alloc((size_t)n, sizeof *q);
    if (!p || !q) {
        no_memory(f);
    } else {
        for (int64_t i = 0; i < n; i++)
            p[i] = 1;
        tests = 0;
        for (int i = 0; i < all->count; i++)
            if (!isnan(all->items[i].p))
                p[tests++] = all->items[i].p;
        mp_benjamini_hochberg(p, n, q);
        tests = 0;
        for (int i = 0; i < all->count; i++) {
            mp_finding x = all->items[i];
            x.q = isnan(x.p) ? NAN : q[tests++];
            if (isnan(x.q) != isnan(x.p))
                no_memory(f);
            if (x.q > f->o->false_discovery)
                mp_free(x.what);
            else
                all->items[kept++] = x;
        }
        all->count = kept;
    }
    mp_free(p);
    mp_free(q);
}

/* A year of nights has few findings, but the first night of a new compiler has one for each cell.
 */
static int by_weight(const void *a, const void *b)
{
    static const int rank[] = {[MP_FINDING_CONFIRMED] = 1,
                               [MP_FINDING_DETECTED] = 2,
                               [MP_FINDING_ACKNOWLEDGED] = 3,
                               [MP_FINDING_FIXED] = 4,
                               [MP_FINDING_WITHDRAWN] = 5};
    const mp_finding *x = a, *y = b;
    const int rank_x = x->open ? 0 : rank[x->state], rank_y = y->open ? 0 : rank[y->state];

    if (rank_x != rank_y)
        return rank_x - rank_y;
    if (x->severity != y->severity)
        return x->severity > y->severity ? -1 : 1;
    if (x->subject != y->subject)
        return x->subject - y->subject;
    if (x->after != y->after)
        return x->after - y->after;
    if (x->kind != y->kind)
        return (int)x->kind - (int)y->kind;
    return x->series - y->series;
}

static void judge_subject(finder *f, int subject, series_range r)
{
    const mp_subject *s = &f->h->subjects[subject];
    int *good = mp_alloc((size_t)s->count, sizeof *good), n = 0;

    if (!good) {
        no_memory(f);
        return;
    }
    for (int i = s->first; i < s->first + s->count; i++)
        if (!strcmp(f->h->observations[i].status, "ok"))
            good[n++] = i;
    const bool exact = is_deterministic(f, s, good, n);
    compare_outcomes(f, subject);
    if (exact)
        compare_exactly(f, subject, r, good, n);
    for (int i = r.first; i < r.end && !f->err->code; i++) {
        const mp_metric_class class =
            mp_metric_kind_of(f->h->series[i].metric, f->h->series[i].unit, s->engine).class;
        if (class != MP_METRIC_CONTEXT && (class != MP_METRIC_EXACT || !exact))
            judge_series(f, i);
    }
    mp_free(good);
}

static mp_regression_options with_defaults(const mp_regression_options *o)
{
    mp_regression_options with = *o;

    with.min_segment = o->min_segment > 0 ? o->min_segment : 3;
    with.false_discovery = o->false_discovery > 0 ? o->false_discovery : 0.05;
    return with;
}

mp_code mp_findings_of(mp_store *s, const mp_history *h, const mp_regression_options *o,
                       mp_findings *out, mp_error *err)
{
    const mp_regression_options with = with_defaults(o);
    finder f = {.h = h, .o = &with, .out = out, .err = err};
    series_range r = {0};

    *out = (mp_findings){.shortest = -1, .least = o->otava ? 2 : 2 * with.min_segment};
    for (int i = 0; i < h->subject_count && !err->code; i++) {
        for (r.end = r.first; r.end < h->series_count && h->series[r.end].subject == i;)
            r.end++;
        judge_subject(&f, i, r);
        r.first = r.end;
    }
    if (!err->code && !o->otava)
        control_false_discovery(&f);
    if (!err->code && !o->otava) /* what is on record was found in the other way */
        mp_findings_recall(s, h, &with, out, err);
    for (int i = 0; i < out->count; i++) {
        mp_finding *x = &out->items[i];
        x->open = x->state == MP_FINDING_CONFIRMED && x->direction <= 0;
        out->open += x->open;
    }
    if (out->count)
        qsort(out->items, (size_t)out->count, sizeof *out->items, by_weight);
    return err->code;
}

void mp_findings_free(mp_findings *f)
{
    for (int i = 0; i < f->count; i++) {
        mp_free(f->items[i].what);
        mp_free(f->items[i].why);
    }
    mp_free(f->items);
    mp_free(f->withdrawn);
}
