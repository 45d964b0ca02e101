#include "results/compare_judge.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "results/metric_kind.h"
#include "results/statistics.h"

const char *const mp_verdict_names[MP_VERDICTS] = {"same",  "better",  "worse",
                                                   "noise", "too few", "incomparable"};

static const double ALPHA = 0.05; /* of the rank test */
/* Two right implementations round in different places, and so drift by different amounts: measured
 * ratios of one picture are 0.76 to 1.48.  PyTorch's own accuracy check allows a factor of 2. */
static const double DRIFT_MARGIN = 2;
/* And in fp32 they are this far apart by the order of their sums alone. */
static const double FP32_LATENTS = 1e-5, FP32_PICTURE = 1e-4;
static bool higher_is_better(const mp_judgement *j)
{
    return mp_metric_kind_of(j->metric, j->unit, "").higher_is_better;
}

/* ---- loading -------------------------------------------------------------------------------- */

static double number_of(sqlite3_stmt *q, int value, int nonfinite)
{
    if (sqlite3_column_type(q, value) != SQLITE_NULL)
        return sqlite3_column_double(q, value);
    const char *name = mp_db_text(q, nonfinite);
    return !strcmp(name, "inf") ? INFINITY : !strcmp(name, "-inf") ? -INFINITY : NAN;
}

static mp_judgement *add(mp_judgements *j, mp_error *err)
{
    if (j->count == j->room) {
        const int room = j->room ? 2 * j->room : 16;
        mp_judgement *grown = mp_realloc(j->items, (size_t)room, sizeof *grown);
        if (!grown) {
            mp_error_set(err, MP_ENOMEM, "no memory for the comparison");
            return NULL;
        }
        j->items = grown;
        j->room = room;
    }
    j->items[j->count] = (mp_judgement){.p = NAN};
    return &j->items[j->count++];
}

static mp_code load_metrics(mp_store *s, const mp_cell_pair *pair, const char *metric,
                            mp_judgements *out, mp_error *err)
{
    sqlite3_stmt *q = NULL;
    bool row = true;

    mp_db_prepare(
        s,
        "SELECT a.name, a.unit, a.value, a.nonfinite, b.value, b.nonfinite FROM metric a "
        "JOIN metric b ON b.name = a.name AND b.unit = a.unit AND b.stage = 'run' AND b.step = -1 AND "
        "b.module = '' AND b.cell = ?2 WHERE a.cell = ?1 AND a.stage = 'run' AND a.step = "
        "-1 AND a.module = '' AND (?3 IS NULL OR a.name = ?3) ORDER BY a.name",
        &q, err);
    if (!err->code)
        mp_db_bind(s, q, err, "iit", pair->a->id, pair->b->id, metric);
    while (!err->code && !mp_db_step(s, q, &row, err) && row) {
        if (!metric &&
            mp_metric_kind_of(mp_db_text(q, 0), mp_db_text(q, 1), "").class == MP_METRIC_CONTEXT)
            continue;
        mp_judgement *j = add(out, err);
        if (!j)
            break;
        snprintf(j->metric, sizeof j->metric, "%s", mp_db_text(q, 0));
        snprintf(j->unit, sizeof j->unit, "%s", mp_db_text(q, 1));
        j->a = number_of(q, 2, 3);
        j->b = number_of(q, 4, 5);
    }
    sqlite3_finalize(q);
    return err->code;
}

static mp_code load_samples(mp_store *s, int64_t cell, double **out, int64_t *n, mp_error *err)
{
    sqlite3_stmt *q = NULL;
    bool row = true;
    int64_t room = 0;

    mp_db_prepare(s,
                  "SELECT seconds FROM sample WHERE cell = ? AND stage = 'total' AND repeat >= 0 "
                  "ORDER BY repeat",
                  &q, err);
    if (!err->code)
        mp_db_bind(s, q, err, "i", cell);
    while (!err->code && !mp_db_step(s, q, &row, err) && row) {
        if (*n == room) {
            room = room ? 2 * room : 16;
            double *grown = mp_realloc(*out, (size_t)room, sizeof *grown);
            if (!grown) {
                mp_error_set(err, MP_ENOMEM, "no memory for the samples");
                break;
            }
            *out = grown;
        }
        (*out)[(*n)++] = sqlite3_column_double(q, 0);
    }
    sqlite3_finalize(q);
    return err->code;
}

/* ---- judging -------------------------------------------------------------------------------- */

static mp_verdict direction(const mp_judgement *j)
{
    if (isnan(j->a) || isnan(j->b))
        return isnan(j->a) && isnan(j->b) ? MP_SAME : MP_INCOMPARABLE;
    if (j->a == j->b)
        return MP_SAME;
    return (j->b > j->a) == higher_is_better(j) ? MP_BETTER : MP_WORSE;
}

/* The drift behind a metric, so that all have one margin: of ssim and cosine the square is linear
 * in 1 - x, of PSNR it is in decibels. */
static double drift_of(const mp_judgement *j, double value)
{
    if (!strcmp(j->metric, "psnr_db"))
        return pow(10, -value / 20);
    return higher_is_better(j) ? sqrt(fmax(1 - value, 0)) : value;
}

static bool within_margin(const mp_judgement *j)
{
    const double a = drift_of(j, j->a), b = drift_of(j, j->b);

    return a > 0 && b > 0 && a <= DRIFT_MARGIN * b && b <= DRIFT_MARGIN * a;
}

static bool within_fp32(const mp_judgement *j)
{
    const double limit = !strcmp(j->metric, "latent_rel_l2") ? FP32_LATENTS : FP32_PICTURE;

    return strcmp(j->metric, "seam") && drift_of(j, j->a) <= limit && drift_of(j, j->b) <= limit;
}

/* Drift is deterministic on one machine: any difference is one, but for what lies within the noise
 * that the reference itself has.  Another machine moves the bits, and with them the drift, by as
 * much as that noise; other code, which may round elsewhere, by the margin. */
static void judge_exact(mp_judgement *j, double floor, bool same_machine, bool same_code,
                        bool same_reference)
{
    j->verdict = direction(j);
    snprintf(j->why, sizeof j->why, "%s%s",
             !same_code     ? "other code"
             : same_machine ? "exact"
                            : "other machines",
             same_reference ? "" : ", each against its own reference");
    if (j->verdict != MP_BETTER && j->verdict != MP_WORSE)
        return;
    if (j->a <= floor && j->b <= floor) {
        j->verdict = MP_SAME;
        snprintf(j->why, sizeof j->why, "both within the reference's own noise, %.2g", floor);
    } else if (!same_machine && fabs(j->a - j->b) <= floor) {
        j->verdict = MP_NOISE;
        snprintf(j->why, sizeof j->why, "other machines, less than the reference's noise, %.2g",
                 floor);
    } else if (!same_code && within_margin(j)) {
        j->verdict = MP_NOISE;
        snprintf(j->why, sizeof j->why, "other code rounds elsewhere: within a factor of %g",
                 DRIFT_MARGIN);
    } else if (!same_code && within_fp32(j)) {
        j->verdict = MP_NOISE;
        snprintf(j->why, sizeof j->why, "other code sums in another order, as far as in fp32");
    }
}

/* Smallest equal sample size at which the rank test can prove anything. */
static int64_t enough(void)
{
    int64_t n = 1;

    while (mp_mann_whitney_floor(n, n) > ALPHA)
        n++;
    return n;
}

static void judge_samples(mp_judgement *j, double effect, int64_t n, int64_t m)
{
    const long long least = (long long)enough();

    j->verdict = direction(j);
    snprintf(j->why, sizeof j->why, "p=%.2g, n=%lld+%lld", j->p, (long long)n, (long long)m);
    if (mp_mann_whitney_floor(n, m) > ALPHA) {
        j->verdict = MP_TOO_FEW;
        snprintf(j->why, sizeof j->why, "n=%lld+%lld, need %lld+%lld", (long long)n, (long long)m,
                 least, least);
    } else if (isnan(j->p)) {
        j->verdict = MP_INCOMPARABLE;
        snprintf(j->why, sizeof j->why, "the samples cannot be ranked");
    } else if (j->verdict == MP_BETTER || j->verdict == MP_WORSE) {
        if (j->p > ALPHA)
            j->verdict = MP_NOISE;
        else if (fabs(j->b / j->a - 1) < effect)
            j->verdict = MP_SAME;
    }
}

static mp_code judge_time(mp_store *s, const mp_cell_pair *pair, double effect, mp_judgement *j,
                          mp_error *err)
{
    double *a = NULL, *b = NULL;
    int64_t n = 0, m = 0;

    if (!load_samples(s, pair->a->id, &a, &n, err) && !load_samples(s, pair->b->id, &b, &m, err)) {
        j->p = mp_mann_whitney(a, n, b, m);
        judge_samples(j, effect, n, m);
    }
    mp_free(a);
    mp_free(b);
    return err->code;
}

/* By a relative effect, and an absolute one for what is small. */
static void judge_effect(mp_judgement *j, double effect, double floor)
{
    const double difference = fabs(j->b - j->a);
    const bool same = difference <= fmax(effect * j->a, floor);

    j->verdict = same ? MP_SAME : direction(j);
    if (same && difference > effect * j->a)
        snprintf(j->why, sizeof j->why, "within %.0f %s", floor, j->unit);
    else
        snprintf(j->why, sizeof j->why, "%s %g %%", same ? "within" : "beyond", 100 * effect);
}

/* Whether one engine made both, in one version: a worker tells its versions under its name. */
static bool made_by_same_code(mp_store *s, const mp_cell_pair *pair, mp_error *err)
{
    static const char sql[] =
        "WITH told AS (SELECT cell.id AS cell, e.key, e.value FROM cell JOIN run ON run.id = "
        "cell.run JOIN run_environment e ON e.run = run.id AND substr(e.key, 1, "
        "length(run.engine) + 1) = run.engine || '.' WHERE cell.id IN (?1, ?2)) SELECT count(*) "
        "FROM (SELECT key, value FROM told GROUP BY key, value HAVING count(*) = 1)";
    sqlite3_stmt *q = NULL;
    bool row = false, same = !strcmp(pair->a->engine, pair->b->engine);

    if (!same || pair->a->id == pair->b->id)
        return same;
    if (!mp_db_prepare(s, sql, &q, err) && !mp_db_bind(s, q, err, "ii", pair->a->id, pair->b->id) &&
        !mp_db_step(s, q, &row, err) && row)
        same = sqlite3_column_int64(q, 0) == 0;
    sqlite3_finalize(q);
    return same;
}

/* What the reference itself is good for, where it is known: 0 is no noise. */
static double floor_of(mp_store *s, int64_t cell, const char *metric, mp_error *err)
{
    sqlite3_stmt *q = NULL;
    double value = 0;
    char name[80];
    bool row = false;

    if (strcmp(metric, "latent_rel_l2") && strcmp(metric, "image_rel_l2"))
        return 0;
    snprintf(name, sizeof name, "floor_%s", metric);
    if (!mp_db_prepare(s,
                       "SELECT value FROM metric WHERE cell = ? AND name = ? AND stage = 'run' AND "
                       "step = -1 AND module = ''",
                       &q, err) &&
        !mp_db_bind(s, q, err, "it", cell, name) && !mp_db_step(s, q, &row, err) && row)
        value = sqlite3_column_double(q, 0);
    sqlite3_finalize(q);
    return value;
}

static mp_code judge(mp_store *s, const mp_cell_pair *pair, bool same_code, bool same_reference,
                     mp_judgement *j, mp_error *err)
{
    const bool same_machine = !strcmp(pair->a->fingerprint, pair->b->fingerprint);
    const bool native_a = !strcmp(pair->a->engine, "native");
    const mp_metric_kind kind =
        mp_metric_kind_of(j->metric, j->unit, native_a ? pair->b->engine : pair->a->engine);
    const bool of_machine = kind.class != MP_METRIC_EXACT && kind.class != MP_METRIC_CONTEXT &&
                            strncmp(j->unit, "Ir", 2);

    if (of_machine && !same_machine) {
        j->verdict = MP_INCOMPARABLE;
        snprintf(j->why, sizeof j->why, "other machines");
    } else if (!strcmp(j->metric, "seconds")) {
        judge_time(s, pair, kind.effect, j, err);
    } else if (!strcmp(j->unit, "s")) {
        j->verdict = MP_TOO_FEW;
        snprintf(j->why, sizeof j->why, "measured in one generation only");
    } else if (kind.class == MP_METRIC_COUNT || kind.class == MP_METRIC_BYTES) {
        judge_effect(j, kind.effect, kind.floor);
    } else {
        const double floor = fmax(floor_of(s, pair->a->id, j->metric, err),
                                  floor_of(s, pair->b->id, j->metric, err));
        judge_exact(j, floor, same_machine, same_code, same_reference);
    }
    return err->code;
}

/* ---- statuses ------------------------------------------------------------------------------- */

enum { REFERENCE = 80 };

static mp_code load_status(mp_store *s, int64_t cell, char status[16], char **error,
                           char reference[REFERENCE], mp_error *err)
{
    sqlite3_stmt *q = NULL;
    bool row = false;

    if (!mp_db_prepare(s, "SELECT status, error, reference FROM cell WHERE id = ?", &q, err) &&
        !mp_db_bind(s, q, err, "i", cell) && !mp_db_step(s, q, &row, err) && row) {
        snprintf(status, 16, "%s", mp_db_text(q, 0));
        *error = mp_strdup(mp_db_text(q, 1));
        snprintf(reference, REFERENCE, "%s", mp_db_text(q, 2));
    }
    sqlite3_finalize(q);
    if (!err->code && !*error)
        mp_error_set(err, MP_ENOMEM, "no memory for the comparison");
    return err->code;
}

mp_code mp_judge_pair(mp_store *s, const mp_cell_pair *pair, const char *metric, mp_judgements *out,
                      mp_error *err)
{
    char reference_a[REFERENCE] = "", reference_b[REFERENCE] = "";

    *out = (mp_judgements){0};
    if (load_status(s, pair->a->id, out->status_a, &out->error_a, reference_a, err) ||
        load_status(s, pair->b->id, out->status_b, &out->error_b, reference_b, err))
        return err->code;
    const bool good_a = !strcmp(out->status_a, "ok"), good_b = !strcmp(out->status_b, "ok");
    out->outcome = good_a == good_b ? MP_SAME : good_b ? MP_BETTER : MP_WORSE;
    if (!good_a || !good_b) /* what a broken run measured is no quality of it */
        return MP_OK;
    if (load_metrics(s, pair, metric, out, err))
        return err->code;
    const bool same_code = made_by_same_code(s, pair, err);
    for (int i = 0; !err->code && i < out->count; i++)
        if (judge(s, pair, same_code, !strcmp(reference_a, reference_b), &out->items[i], err))
            return err->code;
    return MP_OK;
}

void mp_judgements_free(mp_judgements *j)
{
    mp_free(j->items);
    mp_free(j->error_a);
    mp_free(j->error_b);
}
