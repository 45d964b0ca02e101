#include "harness/engines/worker_trace.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

static const char *text_of(const json_t *event, const char *key)
{
    const char *text = json_string_value(json_object_get(event, key));

    return text ? text : "";
}

static void on_step(mp_worker_trace *t, const json_t *event, uint64_t now)
{
    char name[40];

    snprintf(name, sizeof name, "step %lld",
             (long long)json_integer_value(json_object_get(event, "step")));
    mp_trace_span(t->to, "step", name, t->step, now);
    t->step = now;
}

/* A stage that ends; what the generation took in all is the sum of its stages. */
static void on_stage(mp_worker_trace *t, const json_t *event, uint64_t now)
{
    if (strcmp(text_of(event, "name"), "total"))
        mp_trace_end(t->to, now);
}

void mp_worker_trace_line(mp_worker_trace *t, const char *line, size_t n)
{
    const uint64_t now = mp_now_ns();

    if (!t->to)
        return;
    json_t *event = json_loadb(line, n, 0, NULL);
    const char *kind = text_of(event, "event");
    if (!strcmp(kind, "begin")) {
        mp_trace_begin(t->to, "stage", text_of(event, "stage"), now);
        t->step = mp_now_ns();
    } else if (!strcmp(kind, "step")) {
        on_step(t, event, now);
    } else if (!strcmp(kind, "stage")) {
        on_stage(t, event, now);
    }
    json_decref(event);
}

void mp_worker_trace_close(mp_worker_trace *t)
{
    if (!t->to)
        return;
    mp_trace_end_all(t->to, mp_now_ns());
    mp_trace_flush(t->to);
}
