#include "results/compare.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "results/compare_judge.h"

/* A metric over all pairs. */
typedef struct overall {
    char metric[64];
    double log_sum; /* of b / a, over the pairs where both are positive and finite */
    int ratios, count[MP_VERDICTS];
} overall;

typedef struct comparison {
    mp_store *store;
    const mp_compare_options *options;
    mp_selection selection;
    mp_judgements *judged; /* one for each pair */
    overall *metrics;
    int metric_count;
    int outcomes[MP_VERDICTS];
    int count[MP_VERDICTS]; /* over everything */
    int failing_both;
} comparison;

/* ---- judging all ---------------------------------------------------------------------------- */

static overall *overall_of(comparison *c, const char *metric, mp_error *err)
{
    for (int i = 0; i < c->metric_count; i++)
        if (!strcmp(c->metrics[i].metric, metric))
            return &c->metrics[i];
    overall *grown = mp_realloc(c->metrics, (size_t)c->metric_count + 1, sizeof *grown);
    if (!grown) {
        mp_error_set(err, MP_ENOMEM, "no memory for the comparison");
        return NULL;
    }
    c->metrics = grown;
    overall *o = &grown[c->metric_count++];
    *o = (overall){0};
    snprintf(o->metric, sizeof o->metric, "%s", metric);
    return o;
}

static mp_code tally(comparison *c, const mp_judgements *j, mp_error *err)
{
    c->outcomes[j->outcome]++;
    if (j->outcome != MP_SAME)
        c->count[j->outcome]++;
    else if (strcmp(j->status_a, "ok"))
        c->failing_both++;
    for (int i = 0; i < j->count; i++) {
        const mp_judgement *m = &j->items[i];
        overall *o = overall_of(c, m->metric, err);
        if (!o)
            return err->code;
        o->count[m->verdict]++;
        c->count[m->verdict]++;
        if (m->a > 0 && m->b > 0 && isfinite(m->a) && isfinite(m->b)) {
            o->log_sum += log(m->b / m->a);
            o->ratios++;
        }
    }
    return MP_OK;
}

static mp_code judge_all(comparison *c, mp_error *err)
{
    const int n = c->selection.pair_count;

    c->judged = mp_alloc((size_t)n, sizeof *c->judged);
    if (!c->judged)
        return mp_error_set(err, MP_ENOMEM, "no memory for the comparison");
    for (int i = 0; i < n; i++)
        if (mp_judge_pair(c->store, &c->selection.pairs[i], c->options->metric, &c->judged[i],
                          err) ||
            tally(c, &c->judged[i], err))
            return err->code;
    if (c->options->metric && !c->metric_count && !c->outcomes[MP_BETTER] &&
        !c->outcomes[MP_WORSE] && !c->failing_both)
        return mp_error_set(err, MP_EMISSING,
                            "%s: no pair of cells has the metric '%.60s'; `mpbench show ID` lists "
                            "those of stage run",
                            mp_store_path(c->store), c->options->metric);
    return MP_OK;
}

/* ---- names ---------------------------------------------------------------------------------- */

/* Whether the setting differs among the scenario's pairs, so that it must be told. */
static bool varies(const comparison *c, int first, int end, const char *key)
{
    const mp_cell_pair *pairs = c->selection.pairs;

    if (mp_selection_has_key(&c->selection, key))
        return false;
    for (int i = first + 1; i < end; i++)
        if (strcmp(mp_candidate_setting(pairs[i].a, key),
                   mp_candidate_setting(pairs[first].a, key)))
            return true;
    return false;
}

/* What sets the pair apart from its scenario's others: "inputs.seed=7". */
static void pair_name(const comparison *c, int first, int end, int i, char *out, size_t size)
{
    const mp_candidate *a = c->selection.pairs[i].a;
    size_t n = 0;

    out[0] = '\0';
    for (int k = 0; k < a->setting_count; k++)
        if (varies(c, first, end, a->settings[k].key) && n < size)
            n += (size_t)snprintf(out + n, size - n, "%s%s=%s", n ? "," : "", a->settings[k].key,
                                  a->settings[k].value);
    if (!n) /* also where the others have a setting that this one lacks */
        snprintf(out, size, "%s", end - first > 1 ? "the plain one" : "-");
}

static int scenario_end(const comparison *c, int first)
{
    const mp_cell_pair *pairs = c->selection.pairs;
    int end = first;

    while (end < c->selection.pair_count &&
           !strcmp(pairs[end].a->scenario, pairs[first].a->scenario))
        end++;
    return end;
}

static void ratio_text(double a, double b, char *out, size_t size)
{
    if (a > 0 && b > 0 && isfinite(a) && isfinite(b))
        snprintf(out, size, "%.3g", b / a);
    else
        snprintf(out, size, a == b || (isnan(a) && isnan(b)) ? "1" : "-");
}

static double geometric_mean(const overall *o)
{
    return o->ratios ? exp(o->log_sum / o->ratios) : NAN;
}

/* ---- tables --------------------------------------------------------------------------------- */

static void add_outcome(mp_table *t, const mp_judgements *j, const char *scenario, const char *name)
{
    if (!strcmp(j->status_a, "ok") && !strcmp(j->status_b, "ok"))
        return;
    if (scenario)
        mp_table_add(t, "%s", scenario);
    mp_table_add(t, "%s", name);
    mp_table_add(t, "outcome");
    mp_table_add(t, "%s", j->status_a);
    mp_table_add(t, "%s", j->status_b);
    mp_table_add(t, "-");
    mp_table_add(t, "%s",
                 j->outcome == MP_WORSE    ? "B newly fails"
                 : j->outcome == MP_BETTER ? "B is fixed"
                                           : "both fail");
    mp_table_add(t, "%s", *j->error_b ? j->error_b : j->error_a);
}

static void add_rows(mp_table *t, const mp_judgements *j, const char *scenario, const char *name)
{
    char ratio[32];

    add_outcome(t, j, scenario, name);
    for (int i = 0; i < j->count; i++) {
        const mp_judgement *m = &j->items[i];
        ratio_text(m->a, m->b, ratio, sizeof ratio);
        if (scenario)
            mp_table_add(t, "%s", scenario);
        mp_table_add(t, "%s", name);
        mp_table_add(t, "%s", m->metric);
        mp_table_add(t, "%.4g", m->a);
        mp_table_add(t, "%.4g", m->b);
        mp_table_add(t, "%s", ratio);
        mp_table_add(t, "%s%s", m->verdict == MP_BETTER || m->verdict == MP_WORSE ? "B " : "",
                     mp_verdict_names[m->verdict]);
        mp_table_add(t, "%s", m->why);
    }
}

/* heads + 1 leaves the scenario's column out. */
static const char *const heads[] = {"scenario", "cell", "metric",  "A>",
                                    "B>",       "B/A>", "verdict", "because"};
enum { HEADS = sizeof heads / sizeof *heads };

static void print_scenarios(const comparison *c, FILE *to)
{
    const mp_format format = c->options->format;
    char name[400];

    for (int first = 0, end; first < c->selection.pair_count; first = end) {
        const char *scenario = c->selection.pairs[first].a->scenario;
        mp_table *t = mp_table_create(HEADS - 1, heads + 1);
        end = scenario_end(c, first);
        for (int i = first; i < end; i++) {
            pair_name(c, first, end, i, name, sizeof name);
            add_rows(t, &c->judged[i], NULL, name);
        }
        fputs(format == MP_MARKDOWN ? "\n### " : "\n", to);
        mp_print_plain(to, scenario, -1);
        fputs(format == MP_MARKDOWN ? "\n\n" : "\n", to);
        mp_table_print(t, format, 2, to);
        mp_table_free(t);
    }
}

static void print_overall(const comparison *c, FILE *to)
{
    static const char *const columns[] = {"metric",    "pairs>",      "B/A, geometric mean>",
                                          "B better>", "B worse>",    "same>",
                                          "noise>",    "cannot tell>"};
    mp_table *t = mp_table_create(sizeof columns / sizeof *columns, columns);

    for (int i = 0; i < c->metric_count; i++) {
        const overall *o = &c->metrics[i];
        int pairs = 0;
        for (int k = 0; k < MP_VERDICTS; k++)
            pairs += o->count[k];
        mp_table_add(t, "%s", o->metric);
        mp_table_add(t, "%d", pairs);
        mp_table_add(t, isnan(geometric_mean(o)) ? "-" : "%.3g", geometric_mean(o));
        mp_table_add(t, "%d", o->count[MP_BETTER]);
        mp_table_add(t, "%d", o->count[MP_WORSE]);
        mp_table_add(t, "%d", o->count[MP_SAME]);
        mp_table_add(t, "%d", o->count[MP_NOISE]);
        mp_table_add(t, "%d", o->count[MP_TOO_FEW] + o->count[MP_INCOMPARABLE]);
    }
    fputs(c->options->format == MP_MARKDOWN ? "\n### overall\n\n" : "\noverall\n", to);
    mp_table_print(t, c->options->format, 2, to);
    mp_table_free(t);
}

static void print_csv(const comparison *c, FILE *to)
{
    mp_table *t = mp_table_create(HEADS, heads);
    char name[400];

    for (int first = 0, end; first < c->selection.pair_count; first = end) {
        end = scenario_end(c, first);
        for (int i = first; i < end; i++) {
            pair_name(c, first, end, i, name, sizeof name);
            add_rows(t, &c->judged[i], c->selection.pairs[i].a->scenario, name);
        }
    }
    mp_table_print(t, MP_CSV, 0, to);
    mp_table_free(t);
}

/* ---- the verdict ---------------------------------------------------------------------------- */

static int gate(const comparison *c)
{
    if (!c->options->fail_on_worse)
        return 0;
    if (c->count[MP_WORSE])
        return 1;
    return c->count[MP_TOO_FEW] || c->count[MP_INCOMPARABLE] ? 4 : 0;
}

static void verdict_text(const comparison *c, char *out, size_t size)
{
    const int *n = c->count;
    const char *word = n[MP_WORSE] && n[MP_BETTER]           ? "MIXED"
                       : n[MP_WORSE]                         ? "WORSE"
                       : n[MP_BETTER]                        ? "BETTER"
                       : n[MP_TOO_FEW] || n[MP_INCOMPARABLE] ? "INCONCLUSIVE"
                                                             : "SAME";

    snprintf(
        out, size,
        "%s exit=%d (B against A: %d better, %d worse, %d the same, %d within noise, %d not to "
        "be told; %d newly failing, %d fixed)",
        c->options->fail_on_worse && n[MP_WORSE] ? "REGRESSION" : word, gate(c), n[MP_BETTER],
        n[MP_WORSE], n[MP_SAME], n[MP_NOISE], n[MP_TOO_FEW] + n[MP_INCOMPARABLE],
        c->outcomes[MP_WORSE], c->outcomes[MP_BETTER]);
}

static void print_notes(const comparison *c, FILE *to)
{
    const mp_selection *s = &c->selection;

    if (s->lone_a || s->lone_b)
        fprintf(to,
                "\nleft out: %d cell%s of A and %d of B have no partner that differs in nothing "
                "else\n",
                s->lone_a, s->lone_a == 1 ? "" : "s", s->lone_b);
    if (c->failing_both)
        fprintf(to, "\n%d pair%s fail%s on both sides\n", c->failing_both,
                c->failing_both == 1 ? "" : "s", c->failing_both == 1 ? "s" : "");
}

static void print_people(const comparison *c, FILE *to)
{
    const bool markdown = c->options->format == MP_MARKDOWN;
    char verdict[300];

    fputs("A: ", to);
    mp_print_plain(to, c->options->a, -1);
    fputs(markdown ? "  \nB: " : "   B: ", to);
    mp_print_plain(to, c->options->b, -1);
    fputc('\n', to);
    print_scenarios(c, to);
    if (c->selection.pair_count > 1)
        print_overall(c, to);
    print_notes(c, to);
    verdict_text(c, verdict, sizeof verdict);
    fprintf(to, "\nverdict: %s\n", verdict);
}

/* ---- JSON ----------------------------------------------------------------------------------- */

static json_t *number(double value)
{
    return isfinite(value) ? json_real(value)
                           : json_string(isnan(value) ? "nan"
                                         : value < 0  ? "-inf"
                                                      : "inf");
}

static json_t *judgement_json(const mp_judgement *m)
{
    json_t *j = json_pack("{ss ss so so so ss ss}", "metric", m->metric, "unit", m->unit, "a",
                          number(m->a), "b", number(m->b), "ratio", number(m->b / m->a), "verdict",
                          mp_verdict_names[m->verdict], "because", m->why);

    if (!isnan(m->p))
        json_object_set_new(j, "p", json_real(m->p));
    return j;
}

static json_t *pair_json(const comparison *c, int first, int end, int i)
{
    const mp_cell_pair *pair = &c->selection.pairs[i];
    const mp_judgements *j = &c->judged[i];
    json_t *metrics = json_array();
    char name[400];

    for (int k = 0; k < j->count; k++)
        json_array_append_new(metrics, judgement_json(&j->items[k]));
    pair_name(c, first, end, i, name, sizeof name);
    return json_pack("{ss ss s{sI ss ss ss} s{sI ss ss ss} ss so}", "scenario", pair->a->scenario,
                     "cell", name, "a", "id", (json_int_t)pair->a->id, "key", pair->a->key,
                     "status", j->status_a, "error", j->error_a, "b", "id", (json_int_t)pair->b->id,
                     "key", pair->b->key, "status", j->status_b, "error", j->error_b, "outcome",
                     mp_verdict_names[j->outcome], "metrics", metrics);
}

static json_t *overall_json(const comparison *c)
{
    json_t *list = json_array();

    for (int i = 0; i < c->metric_count; i++) {
        const overall *o = &c->metrics[i];
        json_t *row = json_pack("{ss so}", "metric", o->metric, "geometric_mean_ratio",
                                number(geometric_mean(o)));
        for (int k = 0; k < MP_VERDICTS; k++)
            json_object_set_new(row, mp_verdict_names[k], json_integer(o->count[k]));
        json_array_append_new(list, row);
    }
    return list;
}

static void print_json(const comparison *c, FILE *to)
{
    json_t *pairs = json_array(), *all;
    char verdict[300];

    for (int first = 0, end; first < c->selection.pair_count; first = end) {
        end = scenario_end(c, first);
        for (int i = first; i < end; i++)
            json_array_append_new(pairs, pair_json(c, first, end, i));
    }
    verdict_text(c, verdict, sizeof verdict);
    all = json_pack("{si ss ss ss so so si si ss si}", "version", 1, "kind", "mpbench compare", "a",
                    c->options->a, "b", c->options->b, "pairs", pairs, "overall", overall_json(c),
                    "unpaired_a", c->selection.lone_a, "unpaired_b", c->selection.lone_b, "verdict",
                    verdict, "exit_status", gate(c));
    json_dumpf(all, to, JSON_INDENT(1) | JSON_ENSURE_ASCII);
    fputc('\n', to);
    json_decref(all);
}

/* ---- the whole ------------------------------------------------------------------------------ */

mp_code mp_compare(mp_store *s, const mp_compare_options *o, FILE *to, int *exit_status,
                   mp_error *err)
{
    comparison c = {.store = s, .options = o};

    *exit_status = 0;
    if (!mp_select_pairs(s, o->a, o->b, &c.selection, err) && !judge_all(&c, err)) {
        *exit_status = gate(&c);
        if (o->format == MP_JSON)
            print_json(&c, to);
        else if (o->format == MP_CSV)
            print_csv(&c, to);
        else
            print_people(&c, to);
    }
    for (int i = 0; c.judged && i < c.selection.pair_count; i++)
        mp_judgements_free(&c.judged[i]);
    mp_free(c.judged);
    mp_free(c.metrics);
    mp_selection_free(&c.selection);
    return err->code;
}
