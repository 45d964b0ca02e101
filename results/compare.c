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

/* b / a, where that says something; else NaN. */
static double ratio(double a, double b)
{
    return a > 0 && b > 0 && isfinite(a) && isfinite(b) ? b / a : NAN;
}

static double geometric_mean(const overall *o)
{
    return o->ratios ? exp(o->log_sum / o->ratios) : NAN;
}

static mp_code tally(comparison *c, const mp_judgements *j, mp_error *err)
{
    c->outcomes[j->outcome]++;
    if (j->outcome != MP_SAME)
        c->count[j->outcome]++;
    else if (strcmp(j->status_a, "ok"))
        c->failing_both++;
    else if (!j->count && !c->options->metric)
        c->count[MP_INCOMPARABLE]++; /* both are fine, and nothing was measured on both */
    for (int i = 0; i < j->count; i++) {
        const mp_judgement *m = &j->items[i];
        overall *o = overall_of(c, m->metric, err);
        if (!o)
            return err->code;
        o->count[m->verdict]++;
        c->count[m->verdict]++;
        const double r = ratio(m->a, m->b);
        if (r > 0) {
            o->log_sum += log(r);
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

/* ---- instruction sets ----------------------------------------------------------------------- */

/* Whether both cells are the native engine's on the CPU, which recorded different instruction sets:
 * their bits then differ for that reason alone.  (What a worker's library chooses is its own.) */
static bool isas_differ(const mp_cell_pair *p)
{
    const bool native = !strcmp(p->a->engine, "native") && !strcmp(p->b->engine, "native");

    return native && *p->a->isa && *p->b->isa && strcmp(p->a->isa, p->b->isa);
}

/* Text out of the database or of the command line within a line. */
static void print_words(const comparison *c, const char *text, FILE *to)
{
    if (c->options->format == MP_MARKDOWN)
        mp_print_markdown(to, text);
    else
        mp_print_plain(to, text, -1);
}

static void print_isa_note(const comparison *c, FILE *to)
{
    for (int i = 0; i < c->selection.pair_count; i++)
        if (isas_differ(&c->selection.pairs[i])) {
            fputs("\n* A and B ran with different instruction sets (such as ", to);
            print_words(c, c->selection.pairs[i].a->isa, to);
            fputs(" and ", to);
            print_words(c, c->selection.pairs[i].b->isa, to);
            fputs("): their last bits differ for that reason alone, and so do all output hashes\n",
                  to);
            return;
        }
}

/* ---- names ---------------------------------------------------------------------------------- */

/* Consecutive pairs of one scenario, and the keys by which they are told apart. */
enum { MAX_KEYS = 32, NAME = 400 };
typedef struct group {
    int first, end;
    const char *keys[MAX_KEYS];
    int key_count;
} group;

static void add_key(const comparison *c, group *g, const char *key)
{
    if (mp_selection_has_key(&c->selection, key) || g->key_count == MAX_KEYS)
        return;
    for (int i = 0; i < g->key_count; i++)
        if (!strcmp(g->keys[i], key))
            return;
    g->keys[g->key_count++] = key;
}

/* Keys that only one of them has, or with another value. */
static void add_differing(const comparison *c, group *g, const mp_candidate *x,
                          const mp_candidate *y)
{
    int i = 0, k = 0;

    if (strcmp(x->engine, y->engine))
        add_key(c, g, "engine");
    if (strcmp(x->device, y->device))
        add_key(c, g, "device");
    while (i < x->setting_count || k < y->setting_count) {
        const int order = i == x->setting_count   ? 1
                          : k == y->setting_count ? -1
                                                  : strcmp(x->settings[i].key, y->settings[k].key);
        if (order || strcmp(x->settings[i].value, y->settings[k].value))
            add_key(c, g, order > 0 ? y->settings[k].key : x->settings[i].key);
        i += order <= 0;
        k += order >= 0;
    }
}

static bool same_scenarios(const mp_cell_pair *p, const mp_cell_pair *q)
{
    return !strcmp(p->a->scenario, q->a->scenario) && !strcmp(p->b->scenario, q->b->scenario);
}

static group group_at(const comparison *c, int first)
{
    const mp_cell_pair *pairs = c->selection.pairs;
    group g = {.first = first, .end = first};

    for (; g.end < c->selection.pair_count && same_scenarios(&pairs[first], &pairs[g.end]); g.end++)
        add_differing(c, &g, pairs[first].a, pairs[g.end].a);
    return g;
}

static const char *value_of(const mp_candidate *c, const char *key)
{
    if (!strcmp(key, "engine"))
        return c->engine;
    if (!strcmp(key, "device"))
        return c->device;
    for (int i = 0; i < c->setting_count; i++)
        if (!strcmp(c->settings[i].key, key))
            return c->settings[i].value;
    return NULL;
}

/* What sets the pair apart from its scenario's others: "inputs.seed=7". */
static void pair_name(const comparison *c, const group *g, int i, char out[NAME])
{
    const mp_candidate *a = c->selection.pairs[i].a;
    size_t n = 0;

    out[0] = '\0';
    for (int k = 0; k < g->key_count && n < NAME; k++) {
        const char *value = value_of(a, g->keys[k]);
        if (value)
            n += (size_t)snprintf(out + n, NAME - n, "%s%s=%s", n ? "," : "", g->keys[k], value);
    }
    if (!n)
        snprintf(out, NAME, "%s", g->end - g->first > 1 ? a->key : "-");
}

/* "sana-tiled", or "sana-tiled against sana-plain" where that is the question. */
static void group_title(const comparison *c, const group *g, char out[NAME])
{
    const mp_cell_pair *pair = &c->selection.pairs[g->first];
    const bool same = !strcmp(pair->a->scenario, pair->b->scenario);

    snprintf(out, NAME, "%s%s%s", pair->a->scenario, same ? "" : " against ",
             same ? "" : pair->b->scenario);
}

/* ---- tables --------------------------------------------------------------------------------- */

static void add_outcome(mp_table *t, const mp_judgements *j)
{
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

static void add_judgement(mp_table *t, const mp_judgement *m, mp_format format)
{
    const double r = m->a == m->b ? 1 : ratio(m->a, m->b);
    const char *number = format == MP_CSV ? "%.17g" : "%.4g";

    mp_table_add(t, "%s", m->metric);
    mp_table_add(t, number, m->a);
    mp_table_add(t, number, m->b);
    mp_table_add(t, isnan(r) ? "-" : format == MP_CSV ? "%.17g" : "%.3g", r);
    mp_table_add(t, "%s%s", m->verdict == MP_BETTER || m->verdict == MP_WORSE ? "B " : "",
                 mp_verdict_names[m->verdict]);
    mp_table_add(t, "%s", m->why);
}

static bool both_ok(const mp_judgements *j)
{
    return !strcmp(j->status_a, "ok") && !strcmp(j->status_b, "ok");
}

/* A row for each metric, or one for the outcome.  scenario NULL: without that column. */
static void add_rows(mp_table *t, const comparison *c, const group *g, const char *scenario)
{
    char name[NAME];

    for (int i = g->first; i < g->end; i++) {
        const mp_judgements *j = &c->judged[i];
        const int rows = both_ok(j) ? j->count : 1;
        const bool marked = c->options->format != MP_CSV && isas_differ(&c->selection.pairs[i]);
        const char *mark = marked ? " *" : ""; /* print_isa_note says what it means */
        pair_name(c, g, i, name);
        for (int k = 0; k < rows; k++) {
            if (scenario)
                mp_table_add(t, "%s", scenario);
            mp_table_add(t, "%s%s", name, mark);
            if (both_ok(j))
                add_judgement(t, &j->items[k], c->options->format);
            else
                add_outcome(t, j);
        }
    }
}

/* heads + 1 leaves the scenario's column out. */
static const char *const heads[] = {"scenario", "cell", "metric",  "A>",
                                    "B>",       "B/A>", "verdict", "because"};
enum { HEADS = sizeof heads / sizeof *heads };

static void print_scenarios(const comparison *c, FILE *to)
{
    const bool markdown = c->options->format == MP_MARKDOWN;
    char title[NAME];

    for (int first = 0; first < c->selection.pair_count;) {
        const group g = group_at(c, first);
        mp_table *t = mp_table_create(HEADS - 1, heads + 1);
        add_rows(t, c, &g, NULL);
        group_title(c, &g, title);
        fputs(markdown ? "\n### " : "\n", to);
        print_words(c, title, to);
        fputs(markdown ? "\n\n" : "\n", to);
        mp_table_print(t, c->options->format, 2, to);
        mp_table_free(t);
        first = g.end;
    }
}

static void print_csv(const comparison *c, FILE *to)
{
    mp_table *t = mp_table_create(HEADS, heads);
    char title[NAME];

    for (int first = 0; first < c->selection.pair_count;) {
        const group g = group_at(c, first);
        group_title(c, &g, title);
        add_rows(t, c, &g, title);
        first = g.end;
    }
    mp_table_print(t, MP_CSV, 0, to);
    mp_table_free(t);
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
    const int status = gate(c);
    const char *word = status == 1                           ? "REGRESSION"
                       : status == 4                         ? "INCONCLUSIVE"
                       : n[MP_WORSE] && n[MP_BETTER]         ? "MIXED"
                       : n[MP_WORSE]                         ? "WORSE"
                       : n[MP_BETTER]                        ? "BETTER"
                       : n[MP_TOO_FEW] || n[MP_INCOMPARABLE] ? "INCONCLUSIVE"
                                                             : "SAME";

    snprintf(
        out, size,
        "%s exit=%d (B against A: %d better, %d worse, %d the same, %d within noise, %d not to "
        "be told; %d newly failing, %d fixed)",
        word, status, n[MP_BETTER], n[MP_WORSE], n[MP_SAME], n[MP_NOISE],
        n[MP_TOO_FEW] + n[MP_INCOMPARABLE], c->outcomes[MP_WORSE], c->outcomes[MP_BETTER]);
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
    print_isa_note(c, to);
}

static void print_people(const comparison *c, FILE *to)
{
    const bool markdown = c->options->format == MP_MARKDOWN;
    char verdict[300];

    fputs("A: ", to);
    print_words(c, c->options->a, to);
    fputs(markdown ? "  \nB: " : "   B: ", to);
    print_words(c, c->options->b, to);
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

static json_t *number_or_null(double value)
{
    return isnan(value) ? json_null() : json_real(value);
}

static json_t *judgement_json(const mp_judgement *m)
{
    return json_pack("{so so so so so so ss ss}", "metric", mp_json_text(m->metric), "unit",
                     mp_json_text(m->unit), "a", number(m->a), "b", number(m->b), "ratio",
                     number_or_null(ratio(m->a, m->b)), "p", number_or_null(m->p), "verdict",
                     mp_verdict_names[m->verdict], "because", m->why);
}

static json_t *side_json(const mp_candidate *c, const char *status, const char *error)
{
    return json_pack("{sI so ss so so}", "id", (json_int_t)c->id, "key", mp_json_text(c->key),
                     "status", status, "error", mp_json_text(error), "isa", mp_json_text(c->isa));
}

static json_t *pair_json(const comparison *c, const group *g, int i)
{
    const mp_cell_pair *pair = &c->selection.pairs[i];
    const mp_judgements *j = &c->judged[i];
    json_t *metrics = json_array();
    char name[NAME], title[NAME];

    for (int k = 0; k < j->count; k++)
        json_array_append_new(metrics, judgement_json(&j->items[k]));
    pair_name(c, g, i, name);
    group_title(c, g, title);
    return json_pack("{so so sb so so ss so}", "scenario", mp_json_text(title), "cell",
                     mp_json_text(name), "isas_differ", isas_differ(pair), "a",
                     side_json(pair->a, j->status_a, j->error_a), "b",
                     side_json(pair->b, j->status_b, j->error_b), "outcome",
                     mp_verdict_names[j->outcome], "metrics", metrics);
}

static json_t *overall_json(const comparison *c)
{
    json_t *list = json_array();

    for (int i = 0; i < c->metric_count; i++) {
        const overall *o = &c->metrics[i];
        json_t *row = json_pack("{so so}", "metric", mp_json_text(o->metric),
                                "geometric_mean_ratio", number_or_null(geometric_mean(o)));
        for (int k = 0; k < MP_VERDICTS; k++)
            json_object_set_new(row, mp_verdict_names[k], json_integer(o->count[k]));
        json_array_append_new(list, row);
    }
    return list;
}

static mp_code print_json(const comparison *c, FILE *to, mp_error *err)
{
    json_t *pairs = json_array();
    char verdict[300];

    for (int first = 0; first < c->selection.pair_count;) {
        const group g = group_at(c, first);
        for (int i = g.first; i < g.end; i++)
            json_array_append_new(pairs, pair_json(c, &g, i));
        first = g.end;
    }
    verdict_text(c, verdict, sizeof verdict);
    return mp_json_print(json_pack("{si ss so so so so si si ss si}", "version", 1, "kind",
                                   "mpbench compare", "a", mp_json_text(c->options->a), "b",
                                   mp_json_text(c->options->b), "pairs", pairs, "overall",
                                   overall_json(c), "unpaired_a", c->selection.lone_a, "unpaired_b",
                                   c->selection.lone_b, "verdict", verdict, "exit_status", gate(c)),
                         to, err);
}

/* ---- the whole ------------------------------------------------------------------------------ */

mp_code mp_compare(mp_store *s, const mp_compare_options *o, FILE *to, int *exit_status,
                   mp_error *err)
{
    comparison c = {.store = s, .options = o};

    *exit_status = 0;
    if (mp_db_begin_reading(s, err))
        return err->code;
    if (!mp_select_pairs(s, o->a, o->b, &c.selection, err) && !judge_all(&c, err)) {
        *exit_status = gate(&c);
        if (o->format == MP_JSON)
            print_json(&c, to, err);
        else if (o->format == MP_CSV)
            print_csv(&c, to);
        else
            print_people(&c, to);
    }
    mp_db_end_reading(s);
    for (int i = 0; c.judged && i < c.selection.pair_count; i++)
        mp_judgements_free(&c.judged[i]);
    mp_free(c.judged);
    mp_free(c.metrics);
    mp_selection_free(&c.selection);
    return err->code;
}
