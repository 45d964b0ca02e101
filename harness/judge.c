#include "harness/judge.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "harness/version.h"

static const char *outcome_of(mp_code code)
{
    switch (code) {
    case MP_EDTYPE:
        return "dtype_mismatch";
    case MP_ESHAPE:
        return "shape";
    case MP_ENOMEM:
        return "oom";
    case MP_EIO:
        return "io";
    case MP_EFORMAT:
        return "format";
    case MP_EMISSING:
        return "missing";
    case MP_EUSAGE:
        return "usage";
    case MP_EDEVICE:
        return "device";
    case MP_ENUMERIC:
        return "nan_first";
    case MP_EENGINE:
        return "engine";
    case MP_EEXCEPTION:
        return "exception";
    default:
        return "unsupported";
    }
}

/* The word after the last occurrence of `before`, without torch's namespace. */
static const char *word_after(mp_arena *a, const char *text, const char *before)
{
    const char *at = strstr(text, before);

    if (!at)
        return NULL;
    at += strlen(before);
    if (!strncmp(at, "c10::", 5))
        at += 5;
    return mp_arena_strndup(a, at, strcspn(at, " ,.;:"));
}

/* torch says what it wanted and what it got in one of two ways. */
static void wanted(mp_arena *a, mp_cell_result *r)
{
    r->want = word_after(a, r->error, "expected scalar type ");
    r->got = word_after(a, r->error, " but found ");
    if (!r->want && (r->want = word_after(a, r->error, "but got: ")))
        r->got = word_after(a, r->error, " != ");
}

static const char *or_null(mp_arena *a, const char *text)
{
    return text && *text ? mp_arena_strdup(a, text) : NULL;
}

/* Where the process was by its own word, for an end that it could not report itself. */
static void place(mp_arena *a, const mp_progress *last, mp_cell_result *r)
{
    r->module = or_null(a, last->module);
    r->op = or_null(a, last->op);
    r->stage = or_null(a, last->stage);
    r->step = last->step;
}

static void judge_timeout(mp_arena *a, const mp_execution *e, const mp_scenario *s,
                          mp_cell_result *r)
{
    r->status = r->outcome = "timeout";
    r->error =
        mp_arena_printf(a, "no result after %g s; raise `timeout` if it needs longer", s->timeout);
    place(a, &e->last, r);
}

static void judge_lingering(mp_arena *a, const mp_execution *e, mp_cell_result *r)
{
    r->status = r->outcome = "crash";
    r->error = "the process closed its pipe, had no result and lived on, so it was ended";
    place(a, &e->last, r);
}

static void judge_signal(mp_arena *a, const mp_execution *e, mp_cell_result *r)
{
    r->signal = e->end.signal;
    r->status = r->outcome = e->end.out_of_memory ? "oom" : "crash";
    r->error = e->end.out_of_memory ? "killed by the kernel for want of memory"
                                    : mp_arena_printf(a, "the process was killed by signal %d (%s)",
                                                      r->signal, strsignal(r->signal));
    place(a, &e->last, r);
}

static void judge_exit(mp_arena *a, const mp_execution *e, mp_cell_result *r)
{
    r->status = r->outcome = "crash";
    r->error =
        mp_arena_printf(a, "the process ended with status %d and without a result", e->end.status);
    place(a, &e->last, r);
}

static void judge_error(mp_arena *a, const mp_record *rec, mp_cell_result *r)
{
    r->status = rec->error.code == MP_ENOMEM ? "oom" : "error";
    r->outcome = outcome_of(rec->error.code);
    r->error = mp_arena_strdup(a, rec->error.text);
    r->module = or_null(a, rec->error.module);
    r->op = or_null(a, rec->error.op);
    r->exception = or_null(a, rec->exception);
    r->frame = or_null(a, rec->frame);
    r->stage = or_null(a, rec->stage);
    r->step = rec->step;
    if (rec->error.code == MP_EDTYPE)
        wanted(a, r);
}

static void judge_nonfinite(mp_arena *a, const mp_record *rec, mp_cell_result *r)
{
    const char *module = *rec->error.module ? rec->error.module : "a module that is not known";

    r->status = "nonfinite";
    r->outcome = rec->nan || !rec->nonfinite ? "nan_first" : "overflow";
    r->module = or_null(a, rec->error.module);
    r->op = or_null(a, rec->error.op);
    r->stage = or_null(a, rec->stage);
    r->step = rec->step;
    r->error = rec->nonfinite ? mp_arena_printf(a,
                                                "the first non-finite values, %lld NaN and %lld "
                                                "infinite, come out of %s",
                                                (long long)rec->nan, (long long)rec->inf, module)
                              : "an output has values that are not finite, and the engine does not "
                                "say where they come from";
}

static void judge_nothing(mp_cell_result *r)
{
    r->status = "error";
    r->outcome = "engine";
    r->error = "the engine says that it is done, and gave neither an image nor frames; mend the "
               "worker";
}

void mp_judge_process(mp_arena *a, const mp_execution *e, const mp_scenario *s, mp_cell_result *out)
{
    const mp_record *rec = &e->record;

    out->step = -1;
    out->status = "ok";
    if (e->end.interrupted)
        out->status = "interrupted";
    else if (e->end.timed_out)
        judge_timeout(a, e, s, out);
    else if (e->end.lingered)
        judge_lingering(a, e, out);
    else if (e->end.signal)
        judge_signal(a, e, out);
    else if (rec->error.code)
        judge_error(a, rec, out);
    else if (!rec->done || e->end.status)
        judge_exit(a, e, out);
}

void mp_judge_end(mp_arena *a, const mp_execution *e, const mp_scenario *s, const mp_outputs *x,
                  mp_cell_result *out)
{
    const mp_record *rec = &e->record;
    mp_tensor picture;
    float value;

    mp_judge_process(a, e, s, out);
    if (strcmp(out->status, "ok"))
        return;
    if (rec->nonfinite || (x && !mp_measure_finite(x)))
        judge_nonfinite(a, rec, out);
    else if (!mp_outputs_picture(x, &picture))
        judge_nothing(out);
    else if (x && mp_measure_constant(x, &value)) {
        out->status = "error";
        out->outcome = "constant";
        out->stage = "decode";
        out->error =
            mp_arena_printf(a, "the picture is constant: every value is %g", (double)value);
    }
}

/* ---- expectations --------------------------------------------------------------------------- */

static const char *expectation_text(mp_arena *a, const mp_expectation *e)
{
    mp_text t = {0};

    if (e->engine)
        mp_text_printf(&t, "with %s: ", e->engine);
    if (e->status)
        mp_text_printf(&t, "status %s", e->status);
    if (e->outcome)
        mp_text_printf(&t, "%soutcome %s", e->status ? ", " : "", e->outcome);
    if (e->error)
        mp_text_printf(&t, "%serror \"%s\"", e->status || e->outcome ? ", " : "", e->error);
    return mp_text_take(&t, a);
}

static bool fulfilled(const mp_expectation *e, const mp_cell_result *r)
{
    /* A library that is missing is not the failure that a scenario is about, unless it says so. */
    if (r->outcome && !strcmp(r->outcome, "engine") && !e->outcome)
        return false;
    if (e->status && strcmp(e->status, r->status))
        return false;
    if (e->outcome && (!r->outcome || strcmp(e->outcome, r->outcome)))
        return false;
    if (e->error && (!r->error || !strstr(r->error, e->error)))
        return false;
    return true;
}

mp_code mp_judge_expectation(mp_arena *a, const mp_scenario *s, const char *engine,
                             const char *version, mp_cell_result *out, mp_error *err)
{
    for (int i = 0; i < s->expect_count; i++) {
        const mp_expectation *e = &s->expect[i];
        bool applies = !e->engine || mp_engine_condition_holds(e->engine, engine, version);
        if (applies && e->when && mp_scenario_matches(a, s, e->when, &applies, err))
            return err->code;
        if (!applies)
            continue;
        out->expected = expectation_text(a, e);
        out->as_expected = fulfilled(e, out);
        return MP_OK;
    }
    out->as_expected = !strcmp(out->status, "ok");
    return MP_OK;
}

/* ---- budgets -------------------------------------------------------------------------------- */

void mp_judge_budgets(mp_arena *a, const mp_scenario *s, const mp_metrics *m, mp_cell_result *out)
{
    mp_text t = {0};

    for (int i = 0; !strcmp(out->status, "ok") && i < s->budget_count; i++) {
        const mp_budget *b = &s->budgets[i];
        const double value = mp_metrics_summary(m, b->name);
        const char *sep = t.length ? "; " : "";
        if (isnan(b->absolute)) /* a relative limit is judged where there is a baseline */
            continue;
        if (isnan(value)) {
            if (strcmp(b->name, "seam") || s->request.tiling.on) /* untiled: there are no seams */
                mp_text_printf(&t, "%s%s was not measured, limit %g", sep, b->name, b->absolute);
        } else if (b->at_least ? value < b->absolute : value > b->absolute) {
            mp_text_printf(&t, "%s%s %.4g is %s %g", sep, b->name, value,
                           b->at_least ? "below" : "above", b->absolute);
        }
    }
    out->budget = t.length ? mp_text_take(&t, a) : NULL;
}

bool mp_judge_bad_input(const mp_cell_result *r)
{
    static const char *const input[] = {"format", "missing", "shape", "io", "unsupported", "usage"};

    if (!r->stage || strcmp(r->stage, "load") || !r->outcome)
        return false;
    for (size_t i = 0; i < sizeof input / sizeof *input; i++)
        if (!strcmp(r->outcome, input[i]))
            return true;
    return false;
}
