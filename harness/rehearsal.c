#include "harness/rehearsal.h"

#include <string.h>

#include "harness/engines/native.h"
#include "harness/judge.h"

static const double LIMIT = 60; /* seconds; a cell's own timeout may be shorter */

static void judge(mp_arena *a, const mp_execution *e, const mp_scenario *s, double timeout,
                  mp_rehearsal *out)
{
    mp_cell_result *r = &out->result;

    mp_judge_process(a, e, s, r);
    if (e->end.timed_out)
        r->error = mp_arena_printf(a,
                                   "the rehearsal had no result after %g s, so nothing is known of "
                                   "the cell; run it to see",
                                   timeout);
    r->warnings = e->record.warnings.length ? mp_arena_strdup(a, e->record.warnings.data) : NULL;
    r->actions = e->record.actions;
    r->action_count = e->record.action_count;
}

static mp_code rehearse(mp_arena *a, const mp_scenario *s, mp_policy policy, mp_rehearsal *out,
                        mp_error *err)
{
    mp_job job = {.pipeline = s->pipeline,
                  .request = s->request,
                  .e4m3 = s->e4m3,
                  .repeat = 1,
                  .timeout = s->timeout > 0 && s->timeout < LIMIT ? s->timeout : LIMIT,
                  .memory = s->memory};
    const mp_native_cell cell = {.job = &job, .threads = 1};
    mp_execution e;

    job.request.precision.policy = policy;
    job.request.rehearse = true;
    *out = (mp_rehearsal){.policy = policy};
    if (!mp_native_execute(a, &cell, false, &e, err))
        judge(a, &e, s, job.timeout, out);
    mp_record_free(&e.record);
    out->record = e.record;
    return err->code;
}

static mp_code foresee(mp_arena *a, const mp_scenario *s, mp_foresight *out, mp_error *err)
{
    const mp_policy policy = s->request.precision.policy;

    if (rehearse(a, s, policy, &out->own, err) ||
        mp_judge_expectation(a, s, "native", MPBENCH_VERSION, &out->own.result, err) ||
        policy == MP_STRICT)
        return err->code;
    out->strict = mp_arena_alloc(a, 1, sizeof *out->strict);
    return rehearse(a, s, MP_STRICT, out->strict, err);
}

mp_code mp_rehearse(mp_arena *a, const mp_plan *plan, mp_foresight **out, mp_error *err)
{
    *out = mp_arena_alloc(a, (size_t)plan->count, sizeof **out);
    for (int i = 0; i < plan->count; i++)
        if (foresee(a, &plan->cells[i].scenario, &(*out)[i], err))
            return err->code;
    return MP_OK;
}
