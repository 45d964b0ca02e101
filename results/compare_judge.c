#include "results/compare_judge.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "results/statistics.h"

const char *const mp_verdict_names[MP_VERDICTS] = {"same",  "better",  "worse",
                                                   "noise", "too few", "incomparable"};

static const double ALPHA = 0.05; /* of the tests */
/* Two right implementations round in different places, and so drift by different amounts: measured
 * ratios of one picture are 0.76 to 1.48.  PyTorch's own accuracy check allows a factor of 2. */
static const double DRIFT_MARGIN = 2;
/* And in fp32 they are this far apart by the order of their sums alone. */
static const double FP32_LATENTS = 1e-5, FP32_PICTURE = 1e-4;

double mp_ratio(double a, double b)
{
    return a > 0 && b > 0 && isfinite(a) && isfinite(b) ? b / a : NAN;
}

/* What the cells of a pool have in common: a pool is of one environment on each side. */
typedef struct setting {
    bool same_machine, same_code, same_isa;
} setting;

static mp_verdict direction(const mp_judgement *j, double a, double b)
{
    if (isnan(a) || isnan(b))
        return isnan(a) && isnan(b) ? MP_SAME : MP_INCOMPARABLE;
    if (a == b)
        return MP_SAME;
    return (b > a) == j->kind.higher_is_better ? MP_BETTER : MP_WORSE;
}

/* ---- drift, pair by pair -------------------------------------------------------------------- */

/* One pair's values of a metric, and what is said of them. */
typedef struct drift {
    double a, b;
    double noise; /* of the reference */
    double limit; /* how much worse b may be, relatively; NaN: nothing is said */
    bool same_reference, same_bits;
    mp_verdict verdict;
    char why[100];
} drift;

/* The drift behind a metric, so that all have one margin: of ssim and cosine the square is linear
 * in 1 - x, of PSNR it is in decibels. */
static double drift_of(const mp_judgement *j, double value)
{
    if (!strcmp(j->metric, "psnr_db"))
        return pow(10, -value / 20);
    return j->kind.higher_is_better ? sqrt(fmax(1 - value, 0)) : value;
}

static bool within_margin(const mp_judgement *j, const drift *d)
{
    const double a = drift_of(j, d->a), b = drift_of(j, d->b);

    return a > 0 && b > 0 && a <= DRIFT_MARGIN * b && b <= DRIFT_MARGIN * a;
}

static bool within_fp32(const mp_judgement *j, const drift *d)
{
    const double limit = !strcmp(j->metric, "latent_rel_l2") ? FP32_LATENTS : FP32_PICTURE;

    return strcmp(j->metric, "seam") && drift_of(j, d->a) <= limit && drift_of(j, d->b) <= limit;
}

/* Drift is deterministic on one machine: any difference is one, but for what lies within the noise
 * that the reference itself has.  Another machine moves the bits, and with them the drift, by as
 * much as that noise; other code and other instruction sets, which may round elsewhere, by the
 * margin. */
static void judge_drift(const mp_judgement *j, const setting *in, drift *d)
{
    const bool rounds_alike = in->same_code && in->same_isa;
    const char *other = in->same_code ? "another instruction set" : "other code";

    d->verdict = direction(j, d->a, d->b);
    snprintf(d->why, sizeof d->why, "%s%s%s",
             d->same_bits       ? "same bits"
             : !in->same_code   ? "other code"
             : in->same_machine ? "exact"
                                : "other machines",
             in->same_isa ? "" : ", other instruction sets",
             d->same_reference ? "" : ", each against its own reference");
    if (d->verdict == MP_INCOMPARABLE)
        snprintf(d->why, sizeof d->why, "not a number against a number");
    if (d->verdict != MP_BETTER && d->verdict != MP_WORSE)
        return;
    if (d->a <= d->noise && d->b <= d->noise) {
        d->verdict = MP_SAME;
        snprintf(d->why, sizeof d->why, "both within the reference's own noise, %.2g", d->noise);
    } else if (!in->same_machine && fabs(d->a - d->b) <= d->noise) {
        d->verdict = MP_NOISE;
        snprintf(d->why, sizeof d->why, "other machines, less than the reference's noise, %.2g",
                 d->noise);
    } else if (!rounds_alike && within_margin(j, d)) {
        d->verdict = MP_NOISE;
        snprintf(d->why, sizeof d->why, "%s rounds elsewhere: within a factor of %g", other,
                 DRIFT_MARGIN);
    } else if (!rounds_alike && within_fp32(j, d)) {
        d->verdict = MP_NOISE;
        snprintf(d->why, sizeof d->why, "%s sums in another order, as far as in fp32", other);
    } else if (fabs(d->b - d->a) <= j->kind.effect * fabs(d->a)) {
        d->verdict = MP_SAME;
        snprintf(d->why, sizeof d->why, "within %g %%, which nobody sees", 100 * j->kind.effect);
    } else if (d->verdict == MP_WORSE && fabs(d->b - d->a) <= d->limit * fabs(d->a)) {
        d->verdict = MP_SAME;
        snprintf(d->why, sizeof d->why, "within the %g %% that the scenario allows",
                 100 * d->limit);
    }
}

/* ---- drift, over a pool --------------------------------------------------------------------- */

static int64_t least_pairs(int64_t tests)
{
    int64_t n = 1;

    while (mp_wilcoxon_floor(n) * (double)tests > ALPHA)
        n++;
    return n;
}

static void say_few_pairs(mp_judgement *j, int64_t tests)
{
    j->verdict = MP_TOO_FEW;
    snprintf(j->why, sizeof j->why, "%lld better, %lld worse (need n>=%lld)", (long long)j->better,
             (long long)j->worse, (long long)least_pairs(tests));
}

/* What the pairs say together, without statistics. */
static mp_verdict sum_up(const int count[MP_VERDICTS])
{
    static const mp_verdict strongest_first[] = {MP_INCOMPARABLE, MP_WORSE, MP_BETTER, MP_NOISE};

    for (int i = 0; i < 4; i++)
        if (count[strongest_first[i]])
            return strongest_first[i];
    return MP_SAME;
}

/* "exact, n=3: 2 worse, none better" */
static void say_pairs(mp_judgement *j, const char *why)
{
    const int n = snprintf(j->why, sizeof j->why, "%s, n=%lld", why, (long long)j->pairs);
    const int64_t count = j->better + j->worse;
    char *rest = j->why + n;
    const size_t left = sizeof j->why - (size_t)n;

    if (j->verdict == MP_INCOMPARABLE || !count)
        return;
    if (count == j->pairs)
        snprintf(rest, left, ": all %s", j->worse ? "worse" : "better");
    else
        snprintf(rest, left, ": %lld %s, none %s", (long long)count, j->worse ? "worse" : "better",
                 j->worse ? "better" : "worse");
}

/* Where no pair says the opposite, deterministic drift needs no statistics: what is worse is worse.
 * Else the signed ranks decide, once all tests are known (mp_judge_settle). */
static mp_code judge_pairs(mp_judgement *j, const drift *list, const double *differences,
                           mp_error *err)
{
    int count[MP_VERDICTS] = {0};
    int64_t said = 0;

    for (int64_t i = 0; i < j->pairs; i++)
        count[list[i].verdict]++;
    j->verdict = sum_up(count);
    while (list[said].verdict != j->verdict)
        said++;
    j->better = count[MP_BETTER];
    j->worse = count[MP_WORSE];
    if (j->pairs == 1) {
        snprintf(j->why, sizeof j->why, "%s", list[said].why);
        return MP_OK;
    }
    say_pairs(j, list[said].why);
    if (j->verdict == MP_INCOMPARABLE)
        return MP_OK;
    if (mp_wilcoxon_floor(j->better + j->worse) > ALPHA) {
        if (j->better && j->worse)
            say_few_pairs(j, 1);
        return MP_OK;
    }
    j->p = mp_wilcoxon(differences, j->pairs, &j->direction);
    return isnan(j->p) ? mp_compare_no_memory(err) : MP_OK; /* none of the differences is a NaN */
}

static double worst_of(const mp_judgement *j, const mp_numbers *list)
{
    double worst = list->x[0];

    for (int64_t i = 0; i < list->n; i++)
        if (isnan(list->x[i]) || (list->x[i] < worst) == j->kind.higher_is_better)
            worst = isnan(worst) ? worst : list->x[i];
    return worst;
}

static void add_ratio(mp_judgement *j, double a, double b)
{
    const double ratio = mp_ratio(a, b);

    if (!isnan(ratio)) {
        j->log_sum += log(ratio);
        j->ratios++;
    }
}

static void say_outlier(mp_judgement *j)
{
    j->verdict = MP_WORSE;
    snprintf(j->why, sizeof j->why, "n=%lld: %lld better, %lld worse, at worst beyond %g times A's",
             (long long)j->pairs, (long long)j->better, (long long)j->worse, DRIFT_MARGIN);
}

/* Typical values hide one black picture among many: what is worse than in A and far beyond A's own
 * worst stays worse, whatever the others say. */
static bool breaks_out(const mp_judgement *j, const drift *list)
{
    const double worst = drift_of(j, j->a.worst);

    for (int64_t i = 0; i < j->pairs; i++)
        if (list[i].verdict == MP_WORSE && drift_of(j, list[i].b) > DRIFT_MARGIN * worst)
            return true;
    return false;
}

static mp_code judge_exact(const mp_measures *from, const mp_measure *m, const setting *in,
                           mp_judgement *j, mp_error *err)
{
    const int64_t n = m->a.n;
    drift *list = mp_alloc((size_t)n, sizeof *list);
    double *differences = mp_alloc((size_t)n, sizeof *differences);

    if (!list || !differences) {
        mp_free(list);
        mp_free(differences);
        return mp_compare_no_memory(err);
    }
    j->pairs = n;
    j->same_bits = true;
    for (int64_t i = 0; i < n; i++) {
        const int pair = (int)m->pair.x[i];
        list[i] = (drift){.a = m->a.x[i],
                          .b = m->b.x[i],
                          .noise = m->noise.x[i],
                          .limit = m->limit,
                          .same_reference = from->same_reference[pair],
                          .same_bits = from->same_bits[pair]};
        judge_drift(j, in, &list[i]);
        j->same_bits &= list[i].same_bits && list[i].verdict == MP_SAME;
        if (list[i].verdict == MP_BETTER || list[i].verdict == MP_WORSE)
            differences[i] =
                j->kind.higher_is_better ? list[i].a - list[i].b : list[i].b - list[i].a;
    }
    j->a = (mp_centre){mp_median(m->a.x, n), worst_of(j, &m->a), NAN, NAN, n};
    j->b = (mp_centre){mp_median(m->b.x, n), worst_of(j, &m->b), NAN, NAN, n};
    judge_pairs(j, list, differences, err);
    for (int64_t i = 0; i < n; i++)
        add_ratio(j, list[i].a, list[i].b);
    if (j->better && breaks_out(j, list)) {
        j->outlier = true;
        say_outlier(j);
    }
    mp_free(list);
    mp_free(differences);
    return err->code;
}

/* ---- time and memory ------------------------------------------------------------------------ */

static mp_centre centre_of(const mp_numbers *list)
{
    const mp_interval i = mp_median_interval(list->x, list->n);

    return (mp_centre){mp_median(list->x, list->n), NAN, i.low, i.high, list->n};
}

/* Smallest equal sample size at which the rank test can prove anything among so many. */
static int64_t least_samples(int64_t tests)
{
    int64_t n = 1;

    while (mp_mann_whitney_floor(n, n) * (double)tests > ALPHA)
        n++;
    return n;
}

static void say_few_samples(mp_judgement *j, int64_t tests)
{
    const size_t n = strlen(j->why);

    j->verdict = MP_TOO_FEW;
    snprintf(j->why + n, sizeof j->why - n, " (need n>=%lld)", (long long)least_samples(tests));
}

/* Whether ranks can tell, p NaN when they cannot. */
static bool test_ranks(mp_judgement *j, const mp_numbers *a, const mp_numbers *b)
{
    if (mp_mann_whitney_floor(a->n, b->n) > ALPHA)
        return false;
    j->p = mp_mann_whitney(a->x, a->n, b->x, b->n);
    j->verdict = direction(j, j->a.typical, j->b.typical);
    j->direction = j->verdict == MP_WORSE ? 1 : j->verdict == MP_BETTER ? -1 : 0;
    if (isnan(j->p) || j->verdict == MP_INCOMPARABLE) {
        j->p = NAN;
        j->verdict = MP_INCOMPARABLE;
        snprintf(j->why, sizeof j->why, "the samples cannot be ranked");
    }
    return true;
}

/* The smallest relative change that counts: what the scenario allows, for the worse. */
static double least_change(const mp_judgement *j, double limit)
{
    const bool worse = direction(j, j->a.typical, j->b.typical) == MP_WORSE;

    return worse && !isnan(limit) ? limit : j->kind.effect;
}

/* Whether the medians are so near that nobody minds: relatively, or absolutely where both are
 * small. */
static bool within_effect(const mp_judgement *j)
{
    const double difference = fabs(j->b.typical - j->a.typical);

    return difference <= fmax(j->least * j->a.typical, j->kind.floor);
}

/* "within 2 %", "beyond 5 %", "within 1 MiB", after what is said already. */
static void say_effect(mp_judgement *j)
{
    const double difference = fabs(j->b.typical - j->a.typical);
    const size_t n = strlen(j->why);
    const char *comma = n ? ", " : "";
    char *rest = j->why + n;

    if (within_effect(j) && difference > j->least * j->a.typical)
        snprintf(rest, sizeof j->why - n, "%swithin %.0f %s", comma, j->kind.floor, j->unit);
    else
        snprintf(rest, sizeof j->why - n, "%s%s %g %%", comma,
                 within_effect(j) ? "within" : "beyond", 100 * j->least);
}

/* Too few values to be ranked: the medians as they are. */
static void judge_effect(mp_judgement *j)
{
    j->verdict = within_effect(j) ? MP_SAME : direction(j, j->a.typical, j->b.typical);
    j->why[0] = '\0';
    if (isnan(j->a.typical) || isnan(j->b.typical))
        snprintf(j->why, sizeof j->why, "not a number");
    else
        say_effect(j);
}

static void judge_machine(const mp_measures *from, const mp_measure *m, mp_judgement *j)
{
    const bool seconds = !strcmp(j->metric, "seconds");
    const mp_numbers *a = seconds ? &from->seconds_a : &m->all_a;
    const mp_numbers *b = seconds ? &from->seconds_b : &m->all_b;

    j->a = centre_of(a->n ? a : &m->all_a);
    j->b = centre_of(b->n ? b : &m->all_b);
    j->a.n = a->n; /* no repeat is on record: the run's own median is shown, and nothing tested */
    j->b.n = b->n;
    j->least = least_change(j, m->limit);
    add_ratio(j, j->a.typical, j->b.typical);
    snprintf(j->why, sizeof j->why, "n=%lld+%lld", (long long)a->n, (long long)b->n);
    if (test_ranks(j, a, b))
        return;
    if (j->kind.class != MP_METRIC_TIME)
        judge_effect(j);
    else if (seconds)
        say_few_samples(j, 1);
    else {
        j->verdict = MP_TOO_FEW;
        snprintf(j->why, sizeof j->why, "measured in one generation only");
    }
}

/* ---- after all tests ------------------------------------------------------------------------ */

static void say_p(mp_judgement *j)
{
    char q[24] = "";

    if (j->q > j->p)
        snprintf(q, sizeof q, ", q=%.2g", j->q);
    if (j->pairs)
        snprintf(j->why, sizeof j->why, "p=%.2g%s, n=%lld: %lld better, %lld worse", j->p, q,
                 (long long)j->pairs, (long long)j->better, (long long)j->worse);
    else
        snprintf(j->why, sizeof j->why, "p=%.2g%s, n=%lld+%lld", j->p, q, (long long)j->a.n,
                 (long long)j->b.n);
}

void mp_judge_settle(mp_judgement *j, int64_t tests)
{
    const double floor =
        j->pairs ? mp_wilcoxon_floor(j->better + j->worse) : mp_mann_whitney_floor(j->a.n, j->b.n);
    const bool near = !j->pairs && within_effect(j);

    if (isnan(j->p) || j->outlier || (j->pairs && !(j->better && j->worse)))
        return; /* no test, or one that changes nothing */
    say_p(j);
    if (j->verdict == MP_SAME)
        return;
    if (j->q <= ALPHA) {
        j->verdict = near ? MP_SAME : j->direction > 0 ? MP_WORSE : MP_BETTER;
        if (near)
            say_effect(j);
    } else if (j->p > ALPHA || near || floor * (double)tests <= ALPHA) {
        j->verdict = MP_NOISE;
    } else if (j->pairs) { /* beside so many other tests, even the clearest case could not tell */
        say_few_pairs(j, tests);
    } else {
        say_few_samples(j, tests);
    }
}

/* ---- the whole ------------------------------------------------------------------------------ */

static mp_code judge(const mp_measures *from, const mp_measure *m, const mp_cell_pair *pair,
                     const setting *in, mp_judgement *j, mp_error *err)
{
    const bool native_a = !strcmp(pair->a->run->engine, "native");
    const char *engine = native_a ? pair->b->run->engine : pair->a->run->engine;

    *j = (mp_judgement){.kind = mp_metric_kind_of(m->metric, m->unit, engine), .p = NAN, .q = NAN};
    memcpy(j->metric, m->metric, sizeof j->metric);
    memcpy(j->unit, m->unit, sizeof j->unit);
    /* time that is context is still time: compared only when it is asked for */
    if (!strcmp(m->unit, "s"))
        j->kind.class = MP_METRIC_TIME;
    const bool exact = j->kind.class == MP_METRIC_EXACT || j->kind.class == MP_METRIC_CONTEXT;
    if (exact)
        return judge_exact(from, m, in, j, err);
    judge_machine(from, m, j);
    if (!in->same_machine && strncmp(j->unit, "Ir", 2)) {
        j->verdict = MP_INCOMPARABLE;
        j->p = NAN;
        snprintf(j->why, sizeof j->why, "other machines");
    }
    return MP_OK;
}

bool mp_same_isa(const mp_compare_run *a, const mp_compare_run *b)
{
    const bool native = !strcmp(a->engine, "native") && !strcmp(b->engine, "native");

    return !native || !*a->isa || !*b->isa || !strcmp(a->isa, b->isa);
}

static setting setting_of(const mp_cell_pair *pair)
{
    const mp_compare_run *a = pair->a->run, *b = pair->b->run;

    return (setting){
        .same_machine = !strcmp(a->fingerprint, b->fingerprint),
        /* one engine made both, in one version: a worker tells its versions under its name */
        .same_code = !strcmp(a->engine, b->engine) && !strcmp(a->code, b->code),
        .same_isa = mp_same_isa(a, b)};
}

mp_code mp_judge_pool(mp_measurer *m, const mp_selection *s, const mp_pool *pool,
                      mp_judgements *out, mp_error *err)
{
    const mp_cell_pair *first = &s->pairs[pool->first];
    const setting in = setting_of(first);
    mp_measures from;

    *out = (mp_judgements){0};
    if (!mp_measure_pool(m, s, pool, &from, err)) {
        *out = (mp_judgements){.items = mp_alloc((size_t)from.count, sizeof *out->items),
                               .a = from.a,
                               .b = from.b,
                               .newly_failing = from.newly_failing,
                               .fixed = from.fixed,
                               .failing_both = from.failing_both,
                               .good = from.good};
        from.a.error = from.b.error = NULL;
        if (!out->items)
            mp_compare_no_memory(err);
        for (int i = 0; !err->code && i < from.count; i++)
            judge(&from, &from.items[i], first, &in, &out->items[out->count++], err);
    }
    mp_measures_free(&from);
    return err->code;
}

int mp_judgement_order(const mp_judgement *x, const mp_judgement *y)
{
    const int order = strcmp(x->metric, y->metric);

    return order ? order : strcmp(x->unit, y->unit);
}

void mp_judgements_free(mp_judgements *j)
{
    mp_free(j->items);
    mp_free(j->a.error);
    mp_free(j->b.error);
}
