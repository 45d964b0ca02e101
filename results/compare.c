#include "results/compare.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "results/compare_report.h"
#include "results/db.h"
#include "results/statistics.h"

char mp_operand_letter(int operand)
{
    return (char)('A' + operand);
}

double mp_overall_ratio(const mp_overall *o)
{
    return o->ratios ? exp(o->log_sum / (double)o->ratios) : NAN;
}

/* ---- adding up ------------------------------------------------------------------------------ */

static mp_overall *overall_of(mp_comparison *c, const char *metric, mp_error *err)
{
    for (int i = 0; i < c->metric_count; i++)
        if (!strcmp(c->metrics[i].metric, metric))
            return &c->metrics[i];
    mp_overall *grown = mp_realloc(c->metrics, (size_t)c->metric_count + 1, sizeof *grown);
    if (!grown) {
        mp_compare_no_memory(err);
        return NULL;
    }
    c->metrics = grown;
    mp_overall *o = &grown[c->metric_count++];
    *o = (mp_overall){0};
    snprintf(o->metric, sizeof o->metric, "%s", metric);
    return o;
}

static mp_code tally(mp_compare_report *r, mp_comparison *c, const mp_judgements *j, mp_error *err)
{
    r->newly_failing += j->newly_failing;
    r->fixed += j->fixed;
    r->failing_both += j->failing_both;
    r->total[MP_WORSE] += j->newly_failing;
    r->total[MP_BETTER] += j->fixed;
    if (j->good && !j->count && !r->options->metric)
        r->total[MP_INCOMPARABLE]++; /* all is fine, and nothing was measured on both */
    for (int i = 0; i < j->count; i++) {
        const mp_judgement *m = &j->items[i];
        mp_overall *o = overall_of(c, m->metric, err);
        if (!o)
            return err->code;
        o->count[m->verdict]++;
        o->pairs += m->pairs ? m->pairs : j->good;
        o->log_sum += m->log_sum;
        o->ratios += m->ratios;
        r->total[m->verdict]++;
    }
    return MP_OK;
}

/* A name that no cell knows would make a gate that always passes.  Where cells fail, none of the
 * pairs need have a metric that there is. */
static mp_code check_metric(mp_compare_report *r, mp_error *err)
{
    sqlite3_stmt *q = NULL;
    bool known = false;

    if (!r->newly_failing && !r->fixed && !r->failing_both)
        goto unknown;
    if (!mp_db_prepare(r->store, "SELECT 1 FROM metric WHERE stage = 'run' AND name = ? LIMIT 1",
                       &q, err) &&
        !mp_db_bind(r->store, q, err, "t", r->options->metric))
        mp_db_step(r->store, q, &known, err);
    sqlite3_finalize(q);
    if (known || err->code)
        return err->code;
unknown:
    return mp_error_set(err, MP_EMISSING,
                        "%s: no pair of cells has the metric '%.60s'; `mpbench show ID` lists "
                        "those of stage run",
                        mp_store_path(r->store), r->options->metric);
}

static mp_code tally_all(mp_compare_report *r, mp_error *err)
{
    bool any = false;

    for (int i = 0; i < r->count; i++) {
        mp_comparison *c = &r->items[i];
        for (int k = 0; k < c->selection.pool_count; k++)
            if (tally(r, c, &c->judged[k], err))
                return err->code;
        any |= c->metric_count > 0;
    }
    return r->options->metric && !any ? check_metric(r, err) : MP_OK;
}

/* ---- judging all ---------------------------------------------------------------------------- */

static mp_code judge_pools(mp_measurer *m, mp_comparison *c, mp_error *err)
{
    const int n = c->selection.pool_count;

    c->judged = mp_alloc((size_t)n, sizeof *c->judged);
    if (!c->judged)
        return mp_compare_no_memory(err);
    for (int i = 0; i < n; i++)
        if (mp_judge_pool(m, &c->selection, &c->selection.pools[i], &c->judged[i], err))
            return err->code;
    return MP_OK;
}

/* Every judgement of the operands, in an order of its own: fn is called for each. */
static int64_t each_judgement(mp_compare_report *r,
                              void (*fn)(mp_judgement *j, int64_t i, void *to), void *to)
{
    int64_t n = 0;

    for (int i = 0; i < r->count; i++)
        for (int k = 0; k < r->items[i].selection.pool_count; k++) {
            mp_judgements *list = &r->items[i].judged[k];
            for (int m = 0; m < list->count; m++, n++)
                if (fn)
                    fn(&list->items[m], n, to);
        }
    return n;
}

typedef struct tests {
    double *p, *q;
    int64_t count; /* with a p */
} tests;

static void take_p(mp_judgement *j, int64_t i, void *to)
{
    tests *t = to;

    t->p[i] = j->p;
    t->count += !isnan(j->p);
}

static void give_q(mp_judgement *j, int64_t i, void *to)
{
    const tests *t = to;

    j->q = t->q[i];
    mp_judge_settle(j, t->count);
}

/* Among many tests some are significant by chance: what counts is q, over all of them. */
static mp_code settle(mp_compare_report *r, mp_error *err)
{
    const size_t n = (size_t)each_judgement(r, NULL, NULL);
    tests t = {.p = mp_alloc(n, sizeof *t.p), .q = mp_alloc(n, sizeof *t.q)};

    if (t.p && t.q) {
        each_judgement(r, take_p, &t);
        mp_benjamini_hochberg(t.p, (int64_t)n, t.q);
        for (size_t i = 0; i < n; i++)
            if (isnan(t.q[i]) != isnan(t.p[i]))
                mp_compare_no_memory(err);
        each_judgement(r, give_q, &t);
    } else {
        mp_compare_no_memory(err);
    }
    mp_free(t.p);
    mp_free(t.q);
    return err->code;
}

/* ---- the verdict ---------------------------------------------------------------------------- */

int mp_compare_exit(const mp_compare_report *r)
{
    if (!r->options->fail_on_worse)
        return 0;
    if (r->total[MP_WORSE])
        return 1;
    return r->total[MP_TOO_FEW] || r->total[MP_INCOMPARABLE] ? 4 : 0;
}

static void tell_counts(const mp_compare_report *r, char out[MP_COMPARE_SUMMARY])
{
    const int *n = r->total;
    char others[4 * MP_COMPARE_MOST] = "";

    for (int i = 1; i < r->operand_count; i++)
        snprintf(others + strlen(others), sizeof others - strlen(others), "%s%c", i > 1 ? ", " : "",
                 mp_operand_letter(i));
    snprintf(
        out, MP_COMPARE_SUMMARY,
        "%s against A: %d better, %d worse, %d the same, %d within noise, %d not to be told; %d "
        "newly failing, %d fixed",
        others, n[MP_BETTER], n[MP_WORSE], n[MP_SAME], n[MP_NOISE],
        n[MP_TOO_FEW] + n[MP_INCOMPARABLE], r->newly_failing, r->fixed);
}

void mp_compare_verdict(const mp_compare_report *r, char *out, size_t size)
{
    const int *n = r->total, status = mp_compare_exit(r);
    const int unknown = n[MP_TOO_FEW] + n[MP_INCOMPARABLE];
    const char *word = status == 1                   ? "REGRESSION"
                       : status == 4                 ? "INCONCLUSIVE"
                       : n[MP_WORSE] && n[MP_BETTER] ? "MIXED"
                       : n[MP_WORSE]                 ? "WORSE"
                       : n[MP_BETTER]                ? "BETTER"
                       : unknown                     ? "INCONCLUSIVE"
                                                     : "SAME";
    char counts[MP_COMPARE_SUMMARY];

    tell_counts(r, counts);
    snprintf(out, size, "%s exit=%d (%s)", word, status, counts);
}

/* ---- the whole ------------------------------------------------------------------------------ */

static mp_code add_operand(mp_compare_report *r, const char *text, mp_error *err)
{
    if (r->operand_count == MP_COMPARE_MOST)
        return mp_error_set(err, MP_EUSAGE, "'%.80s' is one operand too many: at most %d", text,
                            (int)MP_COMPARE_MOST);
    r->operand_count++;
    return mp_side_load(r->store, text, &r->sides[r->side_count++], err);
}

/* In the order in which they are given, so that the first mistake is the one that is told. */
static mp_code load(mp_compare_report *r, mp_error *err)
{
    const mp_compare_options *o = r->options;

    if (add_operand(r, o->a, err) || add_operand(r, o->b, err))
        return err->code;
    for (int i = 0; i < o->more_count; i++)
        if (add_operand(r, o->more[i], err))
            return err->code;
    return o->pareto ? mp_compare_load_others(r, err) : MP_OK;
}

static mp_code compare(mp_compare_report *r, mp_error *err)
{
    mp_measurer *m = mp_measurer_create(r->store, r->options->metric, err);

    for (int i = 1; i < r->side_count && !err->code; i++) {
        mp_comparison *c = &r->items[r->pareto_count++];
        c->operand = i;
        if (!mp_select_pairs(r->store, &r->sides[0], &r->sides[i], &c->selection, err))
            judge_pools(m, c, err);
        r->count += i < r->operand_count;
    }
    mp_measurer_free(m);
    return err->code || settle(r, err) ? err->code : tally_all(r, err);
}

static mp_code print(const mp_compare_report *r, FILE *to, mp_error *err)
{
    switch (r->options->format) {
    case MP_JSON:
        return mp_compare_json(r, to, err);
    case MP_CSV:
        return mp_compare_csv(r, to, err);
    default:
        return mp_compare_people(r, to, err);
    }
}

static void free_report(mp_compare_report *r)
{
    for (int i = 0; i < r->pareto_count; i++) {
        mp_comparison *c = &r->items[i];
        for (int k = 0; c->judged && k < c->selection.pool_count; k++)
            mp_judgements_free(&c->judged[k]);
        mp_free(c->judged);
        mp_free(c->metrics);
        mp_selection_free(&c->selection);
    }
    for (int i = 0; i < r->side_count; i++)
        mp_side_free(&r->sides[i]);
    mp_free(r);
}

mp_code mp_compare(mp_store *s, const mp_compare_options *o, FILE *to, int *exit_status,
                   mp_error *err)
{
    mp_compare_report *r = mp_alloc(1, sizeof *r);

    *exit_status = 0;
    if (!r)
        return mp_compare_no_memory(err);
    *r = (mp_compare_report){.store = s, .options = o};
    if (!mp_db_begin_reading(s, err)) {
        if (!load(r, err) && !compare(r, err) && !print(r, to, err))
            *exit_status = mp_compare_exit(r);
        if (o->summary && !err->code)
            tell_counts(r, o->summary);
        mp_db_end_reading(s);
    }
    free_report(r);
    return err->code;
}
