/* What `mpbench run --dry-run` says. */
#include <inttypes.h>
#include <jansson.h>
#include <string.h>

#include "harness/report.h"
#include "harness/run.h"
#include "results/table.h"

static const double MIB = 1048576.0;
static const char rehearsed[] = "found without running the math; non-finite values are not found "
                                "this way";
static const char not_rehearsed[] = "nothing was rehearsed: only cells of the native engine are";

static bool is_ok(const mp_rehearsal *r)
{
    return !strcmp(r->result.status, "ok");
}

/* ---- JSON ----------------------------------------------------------------------------------- */

/* What each stage's memory consists of. */
static json_t *bytes_json(const mp_record *r)
{
    json_t *list = json_array();

    for (int i = 0; i < r->bytes_count; i++) {
        const mp_bytes *b = &r->bytes[i];
        json_array_append_new(list, json_pack("{ss ss ss sI}", "stage", b->stage, "of", b->of,
                                              "module", b->module, "bytes", (json_int_t)b->bytes));
    }
    return list;
}

static json_t *memory_json(const mp_record *r)
{
    json_t *activations = json_object();

    for (int i = 0; i < r->stage_count; i++)
        json_object_set_new(activations, r->stages[i].stage,
                            json_integer((json_int_t)r->stages[i].activations));
    return json_pack("{sI sI so so}", "weights_mapped", (json_int_t)r->weights_mapped,
                     "weights_converted", (json_int_t)r->weights_converted, "activations",
                     activations, "bytes", bytes_json(r));
}

static json_t *rehearsal_json(const mp_rehearsal *r)
{
    const mp_cell_result *res = &r->result;

    return json_pack("{ss ss so so so so so so so so so so so}", "policy",
                     mp_policy_name(r->policy), "status", res->status, "outcome",
                     mp_report_text_json(res->outcome), "error", mp_report_text_json(res->error),
                     "module", mp_report_text_json(res->module), "op", mp_report_text_json(res->op),
                     "want", mp_report_text_json(res->want), "got", mp_report_text_json(res->got),
                     "stage", mp_report_text_json(res->stage), "step",
                     res->step < 0 ? json_null() : json_integer(res->step), "warnings",
                     mp_report_text_json(res->warnings), "actions",
                     mp_report_actions_json(res, false), "memory", memory_json(&r->record));
}

/* The run may still end as expected where its rehearsal went well. */
static json_t *own_json(const mp_rehearsal *r)
{
    const mp_cell_result *res = &r->result;
    json_t *all = rehearsal_json(r);

    json_object_set_new(all, "expected", mp_report_text_json(res->expected));
    json_object_set_new(all, "as_expected",
                        is_ok(r) && !res->as_expected ? json_null()
                                                      : json_boolean(res->as_expected));
    return all;
}

static json_t *cell_json(const mp_cell *c, const mp_foresight *f)
{
    return json_pack("{ss ss ss so so so so}", "key", c->key, "scenario", c->scenario.name, "cell",
                     c->id, "repro", mp_report_text_json(c->repro), "settings",
                     mp_report_settings_json(&c->scenario), "rehearsal",
                     f ? own_json(&f->own) : json_null(), "strict",
                     f && f->strict ? rehearsal_json(f->strict) : json_null());
}

static void print_json(const mp_plan *p, const mp_foresight *foresight)
{
    json_t *cells = json_array(), *all;

    for (int i = 0; i < p->count; i++)
        json_array_append_new(cells, cell_json(&p->cells[i], foresight ? &foresight[i] : NULL));
    all = json_pack("{si ss ss so}", "version", 1, "kind", "mpbench plan", "note",
                    foresight ? rehearsed : not_rehearsed, "cells", cells);
    json_dumpf(all, stdout, JSON_INDENT(1) | JSON_ENSURE_ASCII);
    putchar('\n');
    json_decref(all);
}

/* ---- text ----------------------------------------------------------------------------------- */

static void print_actions(const mp_cell_result *r)
{
    enum { SHOWN = 16 };
    static const char *const heads[] = {"stage", "module", "op",     "kind",
                                        "from",  "to",     "count>", "elements>"};
    mp_table *t = mp_table_create(sizeof heads / sizeof *heads, heads);

    for (int64_t i = 0; i < r->action_count && i < SHOWN; i++) {
        const mp_action_row *a = &r->actions[i];
        const char *const texts[] = {a->stage, a->module, a->op, a->kind, a->from, a->to};
        for (size_t k = 0; k < sizeof texts / sizeof *texts; k++)
            mp_table_add(t, "%s", texts[k]);
        mp_table_add(t, "%" PRId64, a->count);
        mp_table_add(t, "%" PRId64, a->elements);
    }
    if (r->action_count)
        mp_table_print(t, MP_TEXT, 6, stdout);
    if (r->action_count > SHOWN)
        printf("      and %" PRId64 " more; --format json has all\n", r->action_count - SHOWN);
    mp_table_free(t);
}

/* Weights that a stage reads where they are mapped, and those made for it. */
static double stage_weights(const mp_record *r, const char *stage)
{
    double bytes = 0;

    for (int i = 0; i < r->bytes_count; i++)
        if (!strcmp(r->bytes[i].stage, stage) && !strncmp(r->bytes[i].of, "weights_", 8))
            bytes += (double)r->bytes[i].bytes;
    return bytes;
}

static void print_memory(const mp_record *r)
{
    mp_text t = {0};

    for (int i = 0; i < r->stage_count; i++)
        if (r->stages[i].activations)
            mp_text_printf(&t, "%s %.2f and weights %.2f, ", r->stages[i].stage,
                           (double)r->stages[i].activations / MIB,
                           stage_weights(r, r->stages[i].stage) / MIB);
    mp_text_printf(&t, "in all weights %.2f mapped and %.2f converted",
                   (double)r->weights_mapped / MIB, (double)r->weights_converted / MIB);
    mp_report_line("MiB", t.data);
    mp_text_free(&t);
}

static void print_rehearsal(const mp_rehearsal *r, const char *mark)
{
    const mp_cell_result *res = &r->result;

    printf("    %s: %s%s%s\n", mp_policy_name(r->policy), res->status, mark,
           mp_report_actions(res).text);
    mp_report_line("error", res->error);
    mp_report_line("module", res->module);
    mp_report_line("op", res->op);
    mp_report_line("stage", is_ok(r) ? NULL : res->stage);
}

static void print_own(const mp_rehearsal *r)
{
    const mp_cell_result *res = &r->result;
    const bool fine = is_ok(r);

    print_rehearsal(r, fine ? "" : res->as_expected ? " (expected)" : "!");
    if (!res->as_expected)
        mp_report_line("expected", res->expected ? res->expected : "success");
    mp_report_line("warning", res->warnings);
    print_actions(res);
    print_memory(&r->record);
}

static void print_cell(const mp_cell *c, const mp_foresight *f)
{
    const mp_scenario *s = &c->scenario;

    mp_print_plain(stdout, c->key, -1);
    printf("\n    repeat %d, warmup %d, reference %s\n    ", s->repeat, s->warmup,
           s->reference ? mp_dtype_name(s->reference_dtype) : "off");
    mp_print_plain(stdout, c->repro, -1);
    putchar('\n');
    if (f)
        print_own(&f->own);
    if (f && f->strict)
        print_rehearsal(f->strict, "");
}

void mp_report_plan(const mp_plan *p, const mp_foresight *foresight, bool json)
{
    if (json) {
        print_json(p, foresight);
        return;
    }
    for (int i = 0; i < p->count; i++)
        print_cell(&p->cells[i], foresight ? &foresight[i] : NULL);
    printf("%d cell%s; nothing was run\n%s\n", p->count, p->count == 1 ? "" : "s",
           foresight ? rehearsed : not_rehearsed);
}
