/* A comparison for people: text and Markdown; and as CSV, one line a judgement. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "results/compare_report.h"

/* Text out of the database or of the command line within a line. */
static void print_words(const mp_compare_report *r, const char *text, FILE *to)
{
    if (r->options->format == MP_MARKDOWN)
        mp_print_markdown(to, text);
    else
        mp_print_plain(to, text, -1);
}

static void print_heading(const mp_compare_report *r, const char *text, FILE *to)
{
    const bool markdown = r->options->format == MP_MARKDOWN;

    fputs(markdown ? "\n### " : "\n", to);
    print_words(r, text, to);
    fputs(markdown ? "\n\n" : "\n", to);
}

/* ---- what is compared ----------------------------------------------------------------------- */

/* Distinct short texts, as "a, b, c and 4 more". */
enum { SHOWN = 3 };
typedef struct distinct {
    const char *texts[SHOWN];
    int count;
} distinct;

static void note(distinct *d, const char *text)
{
    for (int i = 0; i < d->count && i < SHOWN; i++)
        if (!strcmp(d->texts[i], text))
            return;
    if (d->count < SHOWN)
        d->texts[d->count] = text;
    d->count++;
}

static void add_distinct(mp_table *t, const distinct *d, int most)
{
    char text[200] = "";
    size_t n = 0;

    for (int i = 0; i < d->count && i < SHOWN && n < sizeof text; i++)
        n +=
            (size_t)snprintf(text + n, sizeof text - n, "%s%.*s", i ? ", " : "", most, d->texts[i]);
    mp_table_add(t, "%s%s", *text ? text : "-", d->count > SHOWN ? ", ..." : "");
}

/* The runs of one side's paired cells, and how many rounds a label has pooled at most. */
static void add_side(mp_table *t, const mp_compare_report *r, int operand)
{
    const mp_side *side = &r->sides[operand];
    distinct engine = {0}, device = {0}, machine = {0}, program = {0};
    char runs[100] = "";
    int shown = 0;

    for (int i = 0; i < side->run_count; i++) {
        const mp_compare_run *run = side->runs[i];
        note(&engine, run->engine);
        note(&device, run->device);
        note(&machine, run->fingerprint);
        note(&program, run->program);
        if (shown++ < SHOWN)
            snprintf(runs + strlen(runs), sizeof runs - strlen(runs), "%s%lld", i ? ", " : "",
                     (long long)run->id);
    }
    mp_table_add(t, "%c", mp_operand_letter(operand));
    mp_table_add(t, "%s", side->selector.text);
    add_distinct(t, &engine, 40);
    add_distinct(t, &device, 40);
    add_distinct(t, &machine, 8);
    add_distinct(t, &program, 40);
    mp_table_add(t, "%s%s", runs, shown > SHOWN ? ", ..." : "");
}

static void print_sides(const mp_compare_report *r, FILE *to)
{
    static const char *const heads[] = {"",        "compared", "engine", "device",
                                        "machine", "program",  "run"};
    mp_table *t = mp_table_create(sizeof heads / sizeof *heads, heads);

    for (int i = 0; i < r->operand_count; i++)
        add_side(t, r, i);
    mp_table_print(t, r->options->format, 0, to);
    mp_table_free(t);
}

/* ---- marks ---------------------------------------------------------------------------------- */

static const char *mark_of(const mp_judgement *m)
{
    switch (m->verdict) {
    case MP_NOISE:
        return "~";
    case MP_INCOMPARABLE:
        return "x";
    case MP_TOO_FEW:
        return "?";
    default:
        return m->same_bits ? "=" : "";
    }
}

static const char *outcome_mark(const mp_judgements *j)
{
    return j->newly_failing && j->fixed ? "!*" : j->newly_failing ? "!" : j->fixed ? "*" : "";
}

static void print_legend(const mp_compare_report *r, FILE *to)
{
    static const char *const words[] = {"! newly failing",   "* fixed",   "x incomparable",
                                        "~ not significant", "? too few", "= same bits"};
    bool used[6] = {r->newly_failing > 0,          r->fixed > 0,
                    r->total[MP_INCOMPARABLE] > 0, r->total[MP_NOISE] > 0,
                    r->total[MP_TOO_FEW] > 0,      false};
    int shown = 0;

    for (int i = 0; i < r->count; i++)
        for (int k = 0; k < r->items[i].selection.pool_count; k++)
            for (int m = 0; m < r->items[i].judged[k].count; m++)
                used[5] |= r->items[i].judged[k].items[m].same_bits;
    for (int i = 0; i < 6; i++)
        if (used[i]) {
            fputs(shown++ ? "   " : "\n", to);
            print_words(r, words[i], to);
        }
    if (shown)
        fputc('\n', to);
}

/* ---- the table of a scenario ---------------------------------------------------------------- */

/* Columns: keys, metric, A and, if anything spreads, how far; of each other operand its value,
 * spread, ratio, mark, verdict and reason. */
enum { OF_A = 3, OF_OTHER = 6, HEADS = MP_ROW_KEYS + OF_A + OF_OTHER * MP_COMPARE_MOST };

/* The table of one scenario. */
typedef struct sheet {
    const mp_compare_report *report;
    const mp_compare_group *group;
    mp_table *table;
    bool spread;
} sheet;

static const mp_judgements *judgements_of(const mp_compare_report *r, const mp_compare_row *row,
                                          int i)
{
    return row->pool[i] < 0 ? NULL : &r->items[i].judged[row->pool[i]];
}

static const mp_judgement *judgement_of(const mp_judgements *j, const mp_judgement *like)
{
    for (int i = 0; j && i < j->count; i++)
        if (!mp_judgement_order(&j->items[i], like))
            return &j->items[i];
    return NULL;
}

/* How far off the median may be, relatively: the longer side of its interval; NaN: unknown. */
static double uncertainty(const mp_centre *c)
{
    const double off = fmax(c->typical - c->low, c->high - c->typical);

    return c->typical > 0 ? off / c->typical : NAN;
}

static bool spreads(const mp_judgements *j)
{
    for (int i = 0; j && i < j->count; i++) {
        const mp_judgement *m = &j->items[i];
        if (m->pairs > 1 || !isnan(uncertainty(&m->a)) || !isnan(uncertainty(&m->b)))
            return true;
    }
    return false;
}

/* "[0.0141]" is the worst of several pairs, "± 3 %" is of the median. */
static void add_spread(const sheet *s, const mp_judgement *m, const mp_centre *c)
{
    const double off = m ? uncertainty(c) : NAN;

    if (!s->spread)
        return;
    if (m && m->pairs > 1)
        mp_table_add(s->table, "[%.4g]", c->worst);
    else
        mp_table_add(s->table, isnan(off) ? "" : "± %.2g %%", 100 * off);
}

static void add_value(const sheet *s, const mp_judgement *m, const mp_centre *c)
{
    mp_table_add(s->table, "%.4g", c->typical);
    add_spread(s, m, c);
}

/* Another operand that has no such cells, or not this metric. */
static void add_nothing(const sheet *s)
{
    mp_table_add(s->table, "-");
    add_spread(s, NULL, NULL);
    mp_table_add(s->table, "-");
    mp_table_add(s->table, "%s", "");
    mp_table_add(s->table, "absent");
    mp_table_add(s->table, "-");
}

static void add_judgement(const sheet *s, const mp_judgement *m, char letter)
{
    const double r = m->a.typical == m->b.typical ? 1 : mp_ratio(m->a.typical, m->b.typical);
    mp_table *t = s->table;

    add_value(s, m, &m->b);
    mp_table_add(t, isnan(r) ? "-" : "%.3g", r);
    mp_table_add(t, "%s", mark_of(m));
    if (m->verdict == MP_BETTER || m->verdict == MP_WORSE)
        mp_table_add(t, "%c %s", letter, mp_verdict_names[m->verdict]);
    else
        mp_table_add(t, "%s", mp_verdict_names[m->verdict]);
    mp_table_add(t, "%s", m->why);
}

/* "B newly fails"; of several pairs how many. */
static void say_outcome(const mp_judgements *j, char letter, char *out, size_t size)
{
    const int count = j->newly_failing ? j->newly_failing : j->fixed;
    char many[40] = "";

    if (j->a.cells > 1 || j->b.cells > 1)
        snprintf(many, sizeof many, " in %d", count);
    if (j->newly_failing && j->fixed)
        snprintf(out, size, "%c newly fails in %d, is fixed in %d", letter, j->newly_failing,
                 j->fixed);
    else if (count)
        snprintf(out, size, "%c %s%s", letter, j->newly_failing ? "newly fails" : "is fixed", many);
    else
        snprintf(out, size, j->failing_both ? "both fail" : "ok");
}

static void add_outcome(const sheet *s, const mp_judgements *j, char letter)
{
    mp_table *t = s->table;
    char words[80];

    say_outcome(j, letter, words, sizeof words);
    mp_table_add(t, "%s", j->b.status);
    add_spread(s, NULL, NULL);
    mp_table_add(t, "-");
    mp_table_add(t, "%s", outcome_mark(j));
    mp_table_add(t, "%s", words);
    mp_table_add(t, "%s", *j->b.error ? j->b.error : j->a.error);
}

static void add_row_keys(const sheet *s, const mp_compare_row *row)
{
    char room[MP_NAME];

    for (int k = 0; k < s->group->key_count; k++) {
        const char *value = mp_row_value(row, s->group->keys[k], room);
        mp_table_add(s->table, "%s", value ? value : "-");
    }
}

/* One line, if a cell of the row has failed. */
static void add_outcomes(const sheet *s, const mp_compare_row *row)
{
    const mp_compare_report *r = s->report;
    const mp_judgements *first = NULL;
    bool failed = false;

    for (int i = 0; i < r->count; i++) {
        const mp_judgements *j = judgements_of(r, row, i);
        failed |= j && (j->a.failed || j->b.failed);
        first = first ? first : j;
    }
    if (!failed)
        return;
    add_row_keys(s, row);
    mp_table_add(s->table, "outcome");
    mp_table_add(s->table, "%s", first->a.status);
    add_spread(s, NULL, NULL);
    for (int i = 0; i < r->count; i++) {
        const mp_judgements *j = judgements_of(r, row, i);
        if (j)
            add_outcome(s, j, mp_operand_letter(r->items[i].operand));
        else
            add_nothing(s);
    }
}

static void add_metric(const sheet *s, const mp_compare_row *row, const mp_judgement *m)
{
    const mp_compare_report *r = s->report;

    add_row_keys(s, row);
    mp_table_add(s->table, "%s", m->metric);
    add_value(s, m, &m->a);
    for (int i = 0; i < r->count; i++) {
        const mp_judgement *other = judgement_of(judgements_of(r, row, i), m);
        if (other)
            add_judgement(s, other, mp_operand_letter(r->items[i].operand));
        else
            add_nothing(s);
    }
}

/* A line for each metric that a comparison has, in order of their names. */
static void add_metrics(const sheet *s, const mp_compare_row *row)
{
    const mp_compare_report *r = s->report;
    int at[MP_COMPARE_MOST] = {0};

    for (;;) {
        const mp_judgement *next = NULL;
        for (int i = 0; i < r->count; i++) {
            const mp_judgements *j = judgements_of(r, row, i);
            const mp_judgement *m = j && at[i] < j->count ? &j->items[at[i]] : NULL;
            if (m && (!next || mp_judgement_order(m, next) < 0))
                next = m;
        }
        if (!next)
            return;
        add_metric(s, row, next);
        for (int i = 0; i < r->count; i++) {
            const mp_judgements *j = judgements_of(r, row, i);
            at[i] += j && at[i] < j->count && !mp_judgement_order(&j->items[at[i]], next);
        }
    }
}

static mp_table *table_for(const sheet *s)
{
    const mp_compare_report *r = s->report;
    char values[MP_COMPARE_MOST][4], ratios[MP_COMPARE_MOST][8];
    const char *heads[HEADS];
    int n = 0;

    for (int k = 0; k < s->group->key_count; k++)
        heads[n++] = s->group->keys[k];
    heads[n++] = "metric";
    heads[n++] = "A>";
    if (s->spread)
        heads[n++] = "";
    for (int i = 0; i < r->count; i++) {
        const char letter = mp_operand_letter(r->items[i].operand);
        snprintf(values[i], sizeof values[i], "%c>", letter);
        snprintf(ratios[i], sizeof ratios[i], "%c/A>", letter);
        const char *const rest[] = {ratios[i], "", "verdict", "because"};
        heads[n++] = values[i];
        if (s->spread)
            heads[n++] = "";
        for (int k = 0; k < 4; k++)
            heads[n++] = rest[k];
    }
    return mp_table_create(n, heads);
}

/* ---- what was pooled ------------------------------------------------------------------------ */

enum { POOLED_SHOWN = 10, POOLED_LENGTH = 24 };

/* The distinct values of one key over a pool, as far as they are few and short. */
static void print_pooled_key(const mp_compare_report *r, const mp_selection *s, const mp_pool *pool,
                             const char *key, FILE *to)
{
    const char *values[POOLED_SHOWN];
    int n = 0;
    bool brief = true;

    for (int i = pool->first; i < pool->end && brief; i++) {
        const char *value = mp_candidate_setting(s->pairs[i].a, key);
        int k = 0;
        while (k < n && strcmp(values[k], value ? value : "-"))
            k++;
        if (k == n && n < POOLED_SHOWN)
            values[n++] = value ? value : "-";
        else if (k == n)
            brief = false;
        brief &= strlen(values[k < n ? k : 0]) <= POOLED_LENGTH;
    }
    if (n < 2 && brief)
        return;
    fputs(r->options->format == MP_MARKDOWN ? "\npooled over " : "  pooled over ", to);
    print_words(r, key, to);
    for (int k = 0; brief && k < n; k++) {
        fputs(k ? ", " : ": ", to);
        print_words(r, values[k], to);
    }
    fprintf(to, brief ? "\n" : ": many values\n");
}

/* Keys that no column shows, since their values were put together: said once for the scenario, by
 * its largest pool. */
static void print_pooled(const mp_compare_report *r, const mp_compare_row *rows,
                         const mp_compare_group *g, FILE *to)
{
    const mp_selection *s = NULL;
    const mp_pool *largest = NULL;

    for (int i = g->first; i < g->end; i++)
        for (int k = 0; k < r->count; k++) {
            const mp_selection *at = &r->items[k].selection;
            const mp_pool *p = rows[i].pool[k] < 0 ? NULL : &at->pools[rows[i].pool[k]];
            if (p && (!largest || p->end - p->first > largest->end - largest->first)) {
                largest = p;
                s = at;
            }
        }
    if (!largest || largest->end - largest->first < 2)
        return;
    const mp_candidate *a = s->pairs[largest->first].a;
    for (int i = 0; i < a->setting_count; i++)
        if (mp_pooled_key(a->settings[i].key))
            print_pooled_key(r, s, largest, a->settings[i].key, to);
}

static void print_group(const mp_compare_report *r, const mp_compare_row *rows,
                        const mp_compare_group *g, FILE *to)
{
    sheet s = {.report = r, .group = g};
    char title[MP_NAME];

    for (int i = g->first; i < g->end; i++)
        for (int k = 0; k < r->count; k++)
            s.spread |= spreads(judgements_of(r, &rows[i], k));
    s.table = table_for(&s);
    for (int i = g->first; i < g->end; i++) {
        add_outcomes(&s, &rows[i]);
        add_metrics(&s, &rows[i]);
    }
    mp_row_title(r, &rows[g->first], title);
    print_heading(r, title, to);
    mp_table_print(s.table, r->options->format, 2, to);
    mp_table_free(s.table);
    print_pooled(r, rows, g, to);
}

static mp_code print_scenarios(const mp_compare_report *r, FILE *to, mp_error *err)
{
    mp_compare_row *rows;
    int count;

    if (mp_compare_rows(r, &rows, &count, err))
        return err->code;
    for (int first = 0; first < count;) {
        const mp_compare_group g = mp_compare_group_at(r, rows, count, first);
        print_group(r, rows, &g, to);
        first = g.end;
    }
    mp_free(rows);
    return MP_OK;
}

/* ---- overall -------------------------------------------------------------------------------- */

static void print_overall(const mp_compare_report *r, const mp_comparison *c, FILE *to)
{
    const char letter = mp_operand_letter(c->operand);
    char ratio[40], better[12], worse[12], title[40];
    const char *const columns[] = {"metric", "pairs>", ratio,    better,
                                   worse,    "same>",  "noise>", "cannot tell>"};

    snprintf(ratio, sizeof ratio, "%c/A, geometric mean>", letter);
    snprintf(better, sizeof better, "%c better>", letter);
    snprintf(worse, sizeof worse, "%c worse>", letter);
    snprintf(title, sizeof title, r->count > 1 ? "overall, %c against A" : "overall", letter);
    mp_table *t = mp_table_create(sizeof columns / sizeof *columns, columns);
    for (int i = 0; i < c->metric_count; i++) {
        const mp_overall *o = &c->metrics[i];
        const double mean = mp_overall_ratio(o);
        mp_table_add(t, "%s", o->metric);
        mp_table_add(t, "%lld", (long long)o->pairs);
        mp_table_add(t, isnan(mean) ? "-" : "%.3g", mean);
        mp_table_add(t, "%d", o->count[MP_BETTER]);
        mp_table_add(t, "%d", o->count[MP_WORSE]);
        mp_table_add(t, "%d", o->count[MP_SAME]);
        mp_table_add(t, "%d", o->count[MP_NOISE]);
        mp_table_add(t, "%d", o->count[MP_TOO_FEW] + o->count[MP_INCOMPARABLE]);
    }
    print_heading(r, title, to);
    mp_table_print(t, r->options->format, 2, to);
    mp_table_free(t);
}

/* ---- notes ---------------------------------------------------------------------------------- */

static void print_isa_note(const mp_compare_report *r, FILE *to)
{
    for (int i = 0; i < r->count; i++)
        for (int k = 0; k < r->items[i].selection.pair_count; k++) {
            const mp_cell_pair *p = &r->items[i].selection.pairs[k];
            if (mp_same_isa(p->a->run, p->b->run))
                continue;
            fprintf(to, "\nA and %c ran with different instruction sets (such as ",
                    mp_operand_letter(r->items[i].operand));
            print_words(r, p->a->run->isa, to);
            fputs(" and ", to);
            print_words(r, p->b->run->isa, to);
            fputs("): their last bits differ for that reason alone, and so do all output hashes\n",
                  to);
            return;
        }
}

/* Runs that a label has put together. */
static void print_rounds_note(const mp_compare_report *r, FILE *to)
{
    for (int i = 0; i < r->operand_count; i++) {
        int most = 1;
        for (int k = 0; k < r->sides[i].count; k++)
            most = most < r->sides[i].cells[k].id_count ? r->sides[i].cells[k].id_count : most;
        if (most > 1)
            fprintf(to, "\n%c: time and memory of %d equal runs are pooled\n", mp_operand_letter(i),
                    most);
    }
}

static void print_notes(const mp_compare_report *r, FILE *to)
{
    for (int i = 0; i < r->count; i++) {
        const mp_selection *s = &r->items[i].selection;
        if (s->lone_a || s->lone_b)
            fprintf(to,
                    "\nleft out: %d cell%s of A and %d of %c have no partner that differs in "
                    "nothing else\n",
                    s->lone_a, s->lone_a == 1 ? "" : "s", s->lone_b,
                    mp_operand_letter(r->items[i].operand));
    }
    if (r->failing_both)
        fprintf(to, "\n%d pair%s fail%s on both sides\n", r->failing_both,
                r->failing_both == 1 ? "" : "s", r->failing_both == 1 ? "s" : "");
    print_rounds_note(r, to);
    print_isa_note(r, to);
    print_legend(r, to);
}

mp_code mp_compare_people(const mp_compare_report *r, FILE *to, mp_error *err)
{
    char verdict[400];

    print_sides(r, to);
    if (print_scenarios(r, to, err))
        return err->code;
    for (int i = 0; i < r->count; i++)
        if (r->items[i].selection.pool_count > 1)
            print_overall(r, &r->items[i], to);
    if (r->options->pareto)
        mp_pareto_print(r, to);
    print_notes(r, to);
    if (r->options->summary)
        return MP_OK;
    mp_compare_verdict(r, verdict, sizeof verdict);
    fprintf(to, "\nverdict: %s\n", verdict);
    return MP_OK;
}

/* ---- CSV ------------------------------------------------------------------------------------ */

static void add_number(mp_table *t, double value)
{
    if (isnan(value))
        mp_table_add(t, "%s", "");
    else
        mp_table_add(t, "%.17g", value);
}

static void add_csv_outcome(mp_table *t, const mp_judgements *j, char letter)
{
    char words[80];

    say_outcome(j, letter, words, sizeof words);
    mp_table_add(t, "outcome");
    mp_table_add(t, "%s", j->a.status);
    mp_table_add(t, "%s", j->b.status);
    mp_table_add(t, "%s", "");
    mp_table_add(t, "%s", words);
    mp_table_add(t, "%s", *j->b.error ? j->b.error : j->a.error);
}

static void add_csv_judgement(mp_table *t, const mp_judgement *m, char letter)
{
    const double r = m->a.typical == m->b.typical ? 1 : mp_ratio(m->a.typical, m->b.typical);

    mp_table_add(t, "%s", m->metric);
    mp_table_add(t, "%.17g", m->a.typical);
    mp_table_add(t, "%.17g", m->b.typical);
    add_number(t, r);
    if (m->verdict == MP_BETTER || m->verdict == MP_WORSE)
        mp_table_add(t, "%c %s", letter, mp_verdict_names[m->verdict]);
    else
        mp_table_add(t, "%s", mp_verdict_names[m->verdict]);
    mp_table_add(t, "%s", m->why);
}

static void add_csv_rest(mp_table *t, const char *operand, const mp_judgement *m)
{
    static const mp_judgement none = {
        .p = NAN, .q = NAN, .a = {NAN, NAN, NAN, NAN, 0}, .b = {NAN, NAN, NAN, NAN, 0}};
    const mp_judgement *x = m ? m : &none;
    const double numbers[] = {x->p,     x->q,      x->a.low,   x->a.high,
                              x->b.low, x->b.high, x->a.worst, x->b.worst};

    mp_table_add(t, "%s", operand);
    mp_table_add(t, "%lld", (long long)x->a.n);
    mp_table_add(t, "%lld", (long long)x->b.n);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        add_number(t, numbers[i]);
}

static void add_csv_row(mp_table *t, const mp_compare_report *r, const mp_compare_group *g,
                        const mp_compare_row *row)
{
    char name[MP_NAME], title[MP_NAME];

    mp_row_name(g, row, name);
    mp_row_title(r, row, title);
    for (int i = 0; i < r->count; i++) {
        const mp_judgements *j = judgements_of(r, row, i);
        const char letter = mp_operand_letter(r->items[i].operand);
        const char *operand = r->sides[r->items[i].operand].selector.text;
        const bool failed = j && (j->a.failed || j->b.failed);
        for (int k = failed ? -1 : 0; j && k < j->count; k++) {
            mp_table_add(t, "%s", title);
            mp_table_add(t, "%s", name);
            if (k < 0)
                add_csv_outcome(t, j, letter);
            else
                add_csv_judgement(t, &j->items[k], letter);
            add_csv_rest(t, operand, k < 0 ? NULL : &j->items[k]);
        }
    }
}

mp_code mp_compare_csv(const mp_compare_report *r, FILE *to, mp_error *err)
{
    static const char *const heads[] = {"scenario", "cell",    "metric",  "A",       "B",
                                        "B/A",      "verdict", "because", "operand", "A n",
                                        "B n",      "p",       "q",       "A low",   "A high",
                                        "B low",    "B high",  "A worst", "B worst"};
    mp_compare_row *rows;
    int count;

    if (mp_compare_rows(r, &rows, &count, err))
        return err->code;
    mp_table *t = mp_table_create(sizeof heads / sizeof *heads, heads);
    for (int first = 0; first < count;) {
        const mp_compare_group g = mp_compare_group_at(r, rows, count, first);
        for (int i = g.first; i < g.end; i++)
            add_csv_row(t, r, &g, &rows[i]);
        first = g.end;
    }
    mp_table_print(t, MP_CSV, 0, to);
    mp_table_free(t);
    mp_free(rows);
    return MP_OK;
}
