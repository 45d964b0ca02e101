/* A comparison for programs: results/FORMATS.md. */
#include <jansson.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "results/compare_report.h"

static void put(json_t *object, const char *key, json_t *value)
{
    json_object_set_new(object, key, value);
}

/* ---- operands ------------------------------------------------------------------------------- */

static json_t *run_json(const mp_compare_run *run)
{
    return json_pack("{sI so so so so so so}", "id", (json_int_t)run->id, "label",
                     mp_json_text(run->label), "engine", mp_json_text(run->engine), "device",
                     mp_json_text(run->device), "fingerprint", mp_json_text(run->fingerprint),
                     "isa", mp_json_text(run->isa), "program", mp_json_text(run->program));
}

static json_t *operands_json(const mp_compare_report *r)
{
    json_t *list = json_array();

    for (int i = 0; i < r->operand_count; i++) {
        const mp_side *side = &r->sides[i];
        json_t *runs = json_array();
        for (int k = 0; k < side->run_count; k++)
            json_array_append_new(runs, run_json(side->runs[k]));
        json_t *one =
            json_pack("{so so}", "operand", mp_json_text(side->selector.text), "runs", runs);
        if (i) {
            put(one, "unpaired_a", json_integer(r->items[i - 1].selection.lone_a));
            put(one, "unpaired_b", json_integer(r->items[i - 1].selection.lone_b));
        }
        json_array_append_new(list, one);
    }
    return list;
}

/* ---- judgements ----------------------------------------------------------------------------- */

static json_t *centre_json(const mp_centre *c)
{
    return json_pack("{sI so so so}", "n", (json_int_t)c->n, "low", mp_json_number_or_null(c->low),
                     "high", mp_json_number_or_null(c->high), "worst",
                     mp_json_number_or_null(c->worst));
}

static json_t *judgement_json(const mp_judgement *m)
{
    json_t *j = json_pack("{so so so so so so so ss ss}", "metric", mp_json_text(m->metric), "unit",
                          mp_json_text(m->unit), "a", mp_json_number(m->a.typical), "b",
                          mp_json_number(m->b.typical), "ratio",
                          mp_json_number_or_null(mp_ratio(m->a.typical, m->b.typical)), "p",
                          mp_json_number_or_null(m->p), "q", mp_json_number_or_null(m->q),
                          "verdict", mp_verdict_names[m->verdict], "because", m->why);

    put(j, "same_bits", json_boolean(m->same_bits));
    put(j, "pairs_better", json_integer(m->better));
    put(j, "pairs_worse", json_integer(m->worse));
    put(j, "a_values", centre_json(&m->a));
    put(j, "b_values", centre_json(&m->b));
    return j;
}

/* ---- pools ---------------------------------------------------------------------------------- */

static json_t *side_json(const mp_candidate *c, const mp_ending *e)
{
    return json_pack("{sI so ss so so si si}", "id", (json_int_t)c->ids[0], "key",
                     mp_json_text(c->key), "status", e->status, "error", mp_json_text(e->error),
                     "isa", mp_json_text(c->run->isa), "cells", e->cells, "failed", e->failed);
}

static json_t *ids_json(const mp_candidate *c)
{
    json_t *list = json_array();

    for (int i = 0; i < c->id_count; i++)
        json_array_append_new(list, json_integer(c->ids[i]));
    return list;
}

/* Every pair of the pool: the cells, and what tells it from the others. */
static json_t *members_json(const mp_selection *s, const mp_pool *pool)
{
    json_t *list = json_array();

    for (int i = pool->first; i < pool->end; i++) {
        const mp_cell_pair *p = &s->pairs[i];
        json_t *inputs = json_object();
        for (int k = 0; k < p->a->setting_count; k++)
            if (mp_pooled_key(p->a->settings[k].key)) {
                json_t *value = mp_json_text(p->a->settings[k].value);
                put(inputs, p->a->settings[k].key, value);
            }
        json_array_append_new(list, json_pack("{so so so}", "a", ids_json(p->a), "b",
                                              ids_json(p->b), "inputs", inputs));
    }
    return list;
}

static const char *outcome_of(const mp_judgements *j)
{
    return mp_verdict_names[j->newly_failing ? MP_WORSE : j->fixed ? MP_BETTER : MP_SAME];
}

static json_t *pool_json(const mp_compare_report *r, const mp_compare_group *g,
                         const mp_compare_row *row, int number)
{
    const mp_comparison *c = &r->items[number];
    const mp_pool *pool = &c->selection.pools[row->pool[number]];
    const mp_cell_pair *first = &c->selection.pairs[pool->first];
    const mp_judgements *j = &c->judged[row->pool[number]];
    json_t *metrics = json_array(), *keys = json_object();
    char name[MP_NAME], title[MP_NAME], room[MP_NAME];

    for (int k = 0; k < j->count; k++)
        json_array_append_new(metrics, judgement_json(&j->items[k]));
    for (int k = 0; k < g->key_count; k++) {
        const char *value = mp_row_value(row, g->keys[k], room);
        put(keys, g->keys[k], value ? mp_json_text(value) : json_null());
    }
    mp_row_name(g, row, name);
    mp_row_title(r, row, title);
    json_t *all =
        json_pack("{so so so si sb so so ss so}", "scenario", mp_json_text(title), "cell",
                  mp_json_text(name), "keys", keys, "operand", c->operand, "isas_differ",
                  !mp_same_isa(first->a->run, first->b->run), "a", side_json(first->a, &j->a), "b",
                  side_json(first->b, &j->b), "outcome", outcome_of(j), "metrics", metrics);
    put(all, "newly_failing", json_integer(j->newly_failing));
    put(all, "fixed", json_integer(j->fixed));
    put(all, "failing_both", json_integer(j->failing_both));
    put(all, "members", members_json(&c->selection, pool));
    return all;
}

static mp_code pools_json(const mp_compare_report *r, json_t *list, mp_error *err)
{
    mp_compare_row *rows;
    int count;

    if (mp_compare_rows(r, &rows, &count, err))
        return err->code;
    for (int first = 0; first < count;) {
        const mp_compare_group g = mp_compare_group_at(r, rows, count, first);
        for (int i = g.first; i < g.end; i++)
            for (int k = 0; k < r->count; k++)
                if (rows[i].pool[k] >= 0)
                    json_array_append_new(list, pool_json(r, &g, &rows[i], k));
        first = g.end;
    }
    mp_free(rows);
    return MP_OK;
}

/* ---- overall and --pareto ------------------------------------------------------------------- */

static json_t *overall_json(const mp_compare_report *r)
{
    json_t *list = json_array();

    for (int c = 0; c < r->count; c++)
        for (int i = 0; i < r->items[c].metric_count; i++) {
            const mp_overall *o = &r->items[c].metrics[i];
            json_t *row =
                json_pack("{si so sI so}", "operand", r->items[c].operand, "metric",
                          mp_json_text(o->metric), "pairs", (json_int_t)o->pairs,
                          "geometric_mean_ratio", mp_json_number_or_null(mp_overall_ratio(o)));
            for (int k = 0; k < MP_VERDICTS; k++)
                put(row, mp_verdict_names[k], json_integer(o->count[k]));
            json_array_append_new(list, row);
        }
    return list;
}

static json_t *pareto_json(const mp_compare_report *r)
{
    mp_pareto p;
    json_t *points = json_array();

    mp_pareto_of(r, &p);
    for (int i = 0; i < p.count; i++) {
        const mp_pareto_point *x = &p.points[i];
        json_t *by = json_array();
        for (int k = 0; k < p.count; k++)
            if (x->dominated_by & 1u << k)
                json_array_append_new(by, mp_json_text(p.points[k].name));
        json_array_append_new(points,
                              json_pack("{so so so so so si so}", "name", mp_json_text(x->name),
                                        "latent_rel_l2", mp_json_number_or_null(x->latents),
                                        "image_rel_l2", mp_json_number_or_null(x->picture),
                                        "seconds", mp_json_number_or_null(x->seconds), "peak_mib",
                                        mp_json_number_or_null(x->peak_mib), "failures",
                                        x->failures, "dominated_by", by));
    }
    return json_pack("{si so}", "cells", p.cells, "points", points);
}

mp_code mp_compare_json(const mp_compare_report *r, FILE *to, mp_error *err)
{
    json_t *pairs = json_array();
    char verdict[400];
    int lone_a = 0, lone_b = 0;

    if (pools_json(r, pairs, err)) {
        json_decref(pairs);
        return err->code;
    }
    for (int i = 0; i < r->count; i++) {
        lone_a += r->items[i].selection.lone_a;
        lone_b += r->items[i].selection.lone_b;
    }
    mp_compare_verdict(r, verdict, sizeof verdict);
    json_t *all = json_pack("{si ss so so so si si}", "version", 2, "kind", "mpbench compare",
                            "operands", operands_json(r), "pairs", pairs, "overall",
                            overall_json(r), "unpaired_a", lone_a, "unpaired_b", lone_b);
    if (r->options->pareto)
        put(all, "pareto", pareto_json(r));
    put(all, "verdict", json_string(verdict));
    put(all, "exit_status", json_integer(mp_compare_exit(r)));
    return mp_json_print(all, to, err);
}
