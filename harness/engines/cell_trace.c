#include "harness/engines/cell_trace.h"

#include <stdio.h>

static void spend(mp_cell_trace *t, uint64_t start)
{
    t->spent += mp_now_ns() - start;
}

static void on_output(void *user, const mp_op_event *event)
{
    mp_cell_trace *t = user;
    const uint64_t now = mp_now_ns();

    mp_trace_op(t->to, event);
    spend(t, now);
}

static void on_scope(void *user, const char *name, bool entered)
{
    mp_cell_trace *t = user;
    const uint64_t now = mp_now_ns();

    if (entered)
        mp_trace_begin(t->to, "module", name, now);
    else
        mp_trace_end(t->to, now);
    spend(t, now);
}

static mp_observer observer_of(mp_cell_trace *t)
{
    return (mp_observer){.output = on_output, .user = t, .scope = on_scope};
}

void mp_cell_trace_open(mp_cell_trace *t, mp_trace *to, mp_ctx *c)
{
    *t = (mp_cell_trace){.to = to, .c = c};
    if (to)
        mp_observe(c, observer_of(t));
}

void mp_cell_trace_generation(mp_cell_trace *t, int repeat)
{
    char name[40];

    if (!t->to)
        return;
    snprintf(name, sizeof name, repeat < 0 ? "warm-up %d" : "repeat %d",
             repeat < 0 ? -repeat : repeat);
    mp_trace_begin(t->to, "generation", name, mp_now_ns());
}

void mp_cell_trace_stage(mp_cell_trace *t, const char *stage)
{
    const uint64_t now = mp_now_ns();

    if (!t->to)
        return;
    mp_trace_begin(t->to, "stage", stage, now);
    mp_trace_memory(t->to, now, mp_pool_get(t->c).live);
    mp_trace_flush(t->to);
    t->step = mp_now_ns();
    spend(t, now);
}

void mp_cell_trace_step(mp_cell_trace *t, int step)
{
    const uint64_t now = mp_now_ns();
    char name[24];

    if (!t->to)
        return;
    snprintf(name, sizeof name, "step %d", step);
    mp_trace_span(t->to, "step", name, t->step, now);
    mp_trace_flush(t->to);
    t->step = now;
    spend(t, now);
}

void mp_cell_trace_stage_end(mp_cell_trace *t)
{
    const uint64_t now = mp_now_ns();

    if (!t->to)
        return;
    mp_trace_memory(t->to, now, mp_pool_get(t->c).recent);
    mp_trace_end(t->to, now);
    mp_trace_flush(t->to);
    spend(t, now);
}

void mp_cell_trace_generation_end(mp_cell_trace *t)
{
    if (!t->to)
        return;
    mp_trace_end_all(t->to, mp_now_ns());
    mp_trace_flush(t->to);
}

double mp_cell_trace_take_spent(mp_cell_trace *t)
{
    const double seconds = 1e-9 * (double)t->spent;

    t->spent = 0;
    return seconds;
}

int mp_cell_trace_close(mp_cell_trace *t)
{
    mp_trace *const to = t->to;

    if (!to)
        return 0;
    mp_unobserve(t->c, observer_of(t));
    mp_trace_end_all(to, mp_now_ns());
    mp_trace_flush(to);
    t->to = NULL;
    return mp_trace_trouble(to);
}
