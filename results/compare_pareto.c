/* compare --pareto: drift, time, memory and failures of each operand beside each other, over the
 * cells that all of them have. */
#include <math.h>
#include <string.h>

#include "results/compare_report.h"
#include "results/statistics.h"

/* ---- the other values of a key -------------------------------------------------------------- */

/* The condition in which alone the two selectors differ, -1: it is not one. */
static int differing_condition(const mp_selector *a, const mp_selector *b)
{
    int at = -1;

    if (a->count != b->count)
        return -1;
    for (int i = 0; i < a->count; i++) {
        if (strcmp(a->conditions[i].key, b->conditions[i].key))
            return -1;
        if (!strcmp(a->conditions[i].value, b->conditions[i].value))
            continue;
        if (at >= 0)
            return -1;
        at = i;
    }
    return at;
}

static bool known(const mp_compare_report *r, int condition, const char *value)
{
    for (int i = 0; i < r->side_count; i++)
        if (!strcmp(r->sides[i].selector.conditions[condition].value, value))
            return true;
    return false;
}

static mp_code load_other(mp_compare_report *r, int condition, const char *value, mp_error *err)
{
    mp_side *side = &r->sides[r->side_count];
    mp_selector selector = r->sides[1].selector;
    char *room = selector.conditions[condition].value;

    if (strlen(value) >= sizeof selector.conditions[condition].value)
        return MP_OK;
    snprintf(room, sizeof selector.conditions[condition].value, "%s", value);
    r->side_count++;
    if (mp_side_load_selected(r->store, &selector, side, err))
        return err->code;
    side->selector.text = side->selector.conditions[condition].value;
    return MP_OK;
}

mp_code mp_compare_load_others(mp_compare_report *r, mp_error *err)
{
    mp_selector all = r->sides[1].selector;
    const int at = differing_condition(&r->sides[0].selector, &all);
    mp_side any;

    if (r->operand_count != 2 || at < 0)
        return MP_OK;
    const mp_condition asked = all.conditions[at];
    memmove(&all.conditions[at], &all.conditions[at + 1],
            (size_t)(--all.count - at) * sizeof *all.conditions);
    if (!mp_side_load_selected(r->store, &all, &any, err))
        for (int i = 0; i < any.count && r->side_count < MP_PARETO_MOST && !err->code; i++) {
            const char *value = mp_candidate_setting(&any.cells[i], asked.key);
            if (value && !known(r, at, value))
                load_other(r, at, value, err);
        }
    mp_side_free(&any);
    return err->code;
}

/* ---- points --------------------------------------------------------------------------------- */

/* Logarithms of a metric's typical values, over the cells that all points have. */
typedef struct mean {
    double log_sum;
    int n;
    bool missing;
} mean;

typedef struct means {
    mean latents, picture, seconds, peak_mib;
} means;

static void add(mean *m, const mp_judgements *j, const char *metric, bool of_a)
{
    for (int i = 0; i < j->count; i++)
        if (!strcmp(j->items[i].metric, metric)) {
            m->log_sum += log(of_a ? j->items[i].a.typical : j->items[i].b.typical);
            m->n++;
            return;
        }
    m->missing = true;
}

static void add_all(means *m, const mp_judgements *j, bool of_a)
{
    add(&m->latents, j, "latent_rel_l2", of_a);
    add(&m->picture, j, "image_rel_l2", of_a);
    add(&m->seconds, j, "seconds", of_a);
    add(&m->peak_mib, j, "peak_mib", of_a);
}

static double value_of(const mean *m)
{
    return m->missing || !m->n ? NAN : exp(m->log_sum / m->n);
}

/* The pool of comparison `number` that begins with this cell of A; NULL: none, or nothing good. */
static const mp_judgements *pool_of(const mp_compare_report *r, int number, const mp_candidate *a)
{
    const mp_comparison *c = &r->items[number];

    for (int k = 0; k < c->selection.pool_count; k++)
        if (c->selection.pairs[c->selection.pools[k].first].a == a)
            return c->judged[k].good ? &c->judged[k] : NULL;
    return NULL;
}

static bool everybody_has(const mp_compare_report *r, const mp_candidate *a)
{
    for (int i = 0; i < r->pareto_count; i++)
        if (!pool_of(r, i, a))
            return false;
    return true;
}

static bool other_machines(const mp_compare_report *r)
{
    const char *machine = r->sides[0].runs[0]->fingerprint;

    for (int i = 0; i < r->side_count; i++)
        for (int k = 0; k < r->sides[i].run_count; k++)
            if (strcmp(r->sides[i].runs[k]->fingerprint, machine))
                return true;
    return false;
}

/* Of A each cell is counted once: it has partners in several comparisons. */
static void count_failures(const mp_compare_report *r, mp_pareto *out)
{
    for (int i = 0; i < r->pareto_count; i++)
        for (int k = 0; k < r->items[i].selection.pool_count; k++) {
            out->points[i + 1].failures += r->items[i].judged[k].b.failed;
            if (!i)
                out->points[0].failures += r->items[i].judged[k].a.failed;
        }
}

/* ---- dominance ------------------------------------------------------------------------------ */

/* A difference that would matter to nobody is none. */
static const double EFFECT = 0.02;

/* 1: x is better, -1: worse, 0: alike or not to be told. */
static int better(double x, double y)
{
    if (isnan(x) || isnan(y) || fabs(x - y) <= EFFECT * fmax(x, y))
        return 0;
    return x < y ? 1 : -1;
}

static bool dominates(const mp_pareto_point *x, const mp_pareto_point *y)
{
    const int of[] = {better(x->latents, y->latents), better(x->picture, y->picture),
                      better(x->seconds, y->seconds), better(x->peak_mib, y->peak_mib),
                      (x->failures < y->failures) - (x->failures > y->failures)};
    int wins = 0;

    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        if (of[i] < 0)
            return false;
        wins += of[i];
    }
    return wins > 0;
}

void mp_pareto_of(const mp_compare_report *r, mp_pareto *out)
{
    const mp_selection *first = &r->items[0].selection;
    means sums[MP_PARETO_MOST] = {0};

    *out = (mp_pareto){.count = r->side_count, .other_machines = other_machines(r)};
    for (int k = 0; k < first->pool_count; k++) {
        const mp_candidate *a = first->pairs[first->pools[k].first].a;
        if (!everybody_has(r, a))
            continue;
        out->cells++;
        add_all(&sums[0], pool_of(r, 0, a), true);
        for (int i = 0; i < r->pareto_count; i++)
            add_all(&sums[i + 1], pool_of(r, i, a), false);
    }
    for (int i = 0; i < out->count; i++) {
        const bool machine = !out->other_machines;
        out->points[i] = (mp_pareto_point){.name = r->sides[i].selector.text,
                                           .latents = value_of(&sums[i].latents),
                                           .picture = value_of(&sums[i].picture),
                                           .seconds = machine ? value_of(&sums[i].seconds) : NAN,
                                           .peak_mib = machine ? value_of(&sums[i].peak_mib) : NAN};
    }
    count_failures(r, out);
    for (int i = 0; i < out->count; i++)
        for (int k = 0; k < out->count; k++)
            if (k != i && dominates(&out->points[k], &out->points[i]))
                out->points[i].dominated_by |= 1u << k;
}

/* ---- the table ------------------------------------------------------------------------------ */

static void add_number(mp_table *t, double value, const char *format)
{
    mp_table_add(t, isnan(value) ? "-" : format, value);
}

static void add_point(mp_table *t, const mp_pareto *p, const mp_pareto_point *x)
{
    char by[200] = "";

    for (int k = 0; k < p->count; k++)
        if (x->dominated_by & 1u << k)
            snprintf(by + strlen(by), sizeof by - strlen(by), "%s%.40s",
                     *by ? ", " : "dominated by ", p->points[k].name);
    mp_table_add(t, "%s", x->name);
    add_number(t, x->latents, "%.3g");
    add_number(t, x->picture, "%.3g");
    add_number(t, x->seconds, "%.4g");
    add_number(t, x->peak_mib, "%.4g");
    mp_table_add(t, "%d", x->failures);
    mp_table_add(t, "%s", *by ? by : "on the front");
}

void mp_pareto_print(const mp_compare_report *r, FILE *to)
{
    static const char *const heads[] = {"",          "latents>",  "picture>", "time s>",
                                        "peak MiB>", "failures>", "pareto"};
    mp_table *t = mp_table_create(sizeof heads / sizeof *heads, heads);
    mp_pareto p;

    mp_pareto_of(r, &p);
    for (int i = 0; i < p.count; i++)
        add_point(t, &p, &p.points[i]);
    fputs(r->options->format == MP_MARKDOWN ? "\n### pareto\n\n" : "\npareto\n", to);
    mp_table_print(t, r->options->format, 2, to);
    mp_table_free(t);
    fprintf(to, "\n%sgeometric means over the %d cell%s that all have%s\n",
            r->options->format == MP_MARKDOWN ? "" : "  ", p.cells, p.cells == 1 ? "" : "s",
            p.other_machines ? "; other machines, so time and memory say nothing" : "");
}
