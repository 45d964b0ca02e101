/* One cell of the native engine, or its rehearsal, in this process: a child of the harness. */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/engines/cell_trace.h"
#include "harness/engines/faults.h"
#include "harness/engines/native.h"
#include "harness/engines/native_memory.h"
#include "harness/engines/profile.h"
#include "kernels/device.h"
#include "kernels/ops.h"
#include "kernels/roofline.h"
#include "pipelines/common/safetensors.h"
#include "results/metrics.h"

typedef struct engine {
    const mp_job *job;
    mp_progress *progress;
    int fd; /* events */
    mp_ctx *c;
    mp_dtype_override *declared; /* the context's, for the policy negotiate */
    void *pipeline;
    int repeat;                         /* number of the generation, negative for warm-ups */
    bool capture;                       /* the first generation, which may be a warm-up: its outputs
                                           and actions are kept */
    bool broken;                        /* a non-finite output was seen */
    bool found;                         /* the observer has its first non-finite value */
    double began;                       /* of the stage */
    double paused, total, total_paused; /* time spent recording or loading, not generating */
    double loading;                     /* since the last sample of "load" */
    mp_rss_meter rss;
    mp_cell_trace trace;
    mp_counters counters;
    mp_error err;
} engine;

/* The signal handlers have no other way to it. */
static const engine *running;

static double now(void)
{
    return 1e-9 * (double)mp_now_ns();
}

/* ---- events --------------------------------------------------------------------------------- */

static void write_all(int fd, const char *s, size_t n)
{
    while (n) {
        const ssize_t k = write(fd, s, n);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return; /* the harness is gone, and this process follows it */
        s += k;
        n -= (size_t)k;
    }
}

/* Sends and releases the event. */
static void send_event(engine *e, json_t *event)
{
    char *line = event ? json_dumps(event, JSON_COMPACT | JSON_ENSURE_ASCII) : NULL;

    if (line) {
        const size_t n = strlen(line);
        line[n] = '\n'; /* one write wakes the reader once */
        write_all(e->fd, line, n + 1);
    }
    free(line);
    json_decref(event);
}

static void send_error(engine *e, const mp_error *err)
{
    json_t *event =
        json_pack("{ss ss ss* ss ss ss si}", "event", "error", "code", mp_code_name(err->code),
                  "text", err->text, "module", err->module, "op", err->op, "stage",
                  e->progress->stage, "step", e->progress->step);

    if (!event) /* text that is no UTF-8 */
        event = json_pack("{ss ss ss}", "event", "error", "code", mp_code_name(err->code), "text",
                          "the error's text is no UTF-8");
    send_event(e, event);
}

/* ---- the sink ------------------------------------------------------------------------------- */

static void send_stage(engine *e, const char *stage, double seconds)
{
    send_event(e,
               json_pack("{ss ss si sf sI}", "event", "stage", "name", stage, "repeat", e->repeat,
                         "seconds", seconds, "activations", (json_int_t)mp_pool_get(e->c).peak));
}

static void send_bytes(void *user, const char *of, const char *module, size_t bytes)
{
    engine *e = user;

    send_event(e, json_pack("{ss ss ss ss sI}", "event", "bytes", "of", of, "stage",
                            e->progress->stage, "module", module, "bytes", (json_int_t)bytes));
}

/* What the stage's memory consists of, told once; and the process's peak, told each time. */
static void send_memory(engine *e, const char *stage)
{
    const bool real = !e->job->request.rehearse;

    if (e->capture && strcmp(stage, "load"))
        mp_stage_memory_tell(e->c, e->job->pipeline, e->pipeline, stage, real, send_bytes, e);
    if (real)
        send_bytes(e, "rss_peak", "", mp_rss_peak(&e->rss));
}

/* Of the whole process, as the kernel's own mark was set back by each stage. */
static void send_peak(engine *e)
{
    if (!e->job->request.rehearse)
        send_event(e, json_pack("{ss sI}", "event", "memory", "peak_rss",
                                (json_int_t)mp_rss_highest(&e->rss)));
}

/* What the policy did in the stage. */
static void send_actions(engine *e, const char *stage)
{
    for (int i = 0; e->capture && i < mp_action_count(e->c); i++) {
        const mp_action *a = mp_action_at(e->c, i);
        send_event(e, json_pack("{ss ss ss ss ss ss ss sI sI sf}", "event", "action", "stage",
                                stage, "kind", mp_action_name(a->kind), "module", a->module, "op",
                                a->op, "from", mp_dtype_name(a->from), "to", mp_dtype_name(a->to),
                                "count", (json_int_t)a->count, "elements", (json_int_t)a->elements,
                                "seconds", 1e-9 * (double)a->ns));
    }
    mp_action_clear(e->c);
}

static void stage_begin(void *user, const char *stage)
{
    engine *e = user;
    mp_progress *p = e->progress;

    strncpy(p->stage, stage, sizeof p->stage - 1);
    p->step = strcmp(stage, "denoise") ? -1 : 0;
    mp_pool_reset_peak(e->c);
    mp_rss_begin(&e->rss);
    e->paused = 0;
    e->began = now();
}

/* A generation loads before several of its stages: one sample says how long in all, the first one
 * with the opening.  It is no part of the generation's time, as in a library that loads first. */
static void add_loading(engine *e, double seconds)
{
    e->loading += seconds;
    e->total_paused += seconds;
}

static void send_loading(engine *e)
{
    if (e->loading > 0 && !e->found)
        send_event(e, json_pack("{ss ss si sf}", "event", "stage", "name", "load", "repeat",
                                e->repeat, "seconds", e->loading));
    e->loading = 0;
}

static void stage_end(void *user, const char *stage)
{
    engine *e = user;
    const double end = now();

    if (!strcmp(stage, "load"))
        add_loading(e, end - e->began);
    else if (!e->found)
        send_stage(e, stage, end - e->began - e->paused);
    send_memory(e, stage);
    send_actions(e, stage);
    e->total_paused += now() - end;
}

static void step(void *user, int index, int steps)
{
    engine *e = user;
    const double start = now();

    e->progress->step = index + 1 < steps ? index + 1 : -1;
    send_event(e, json_pack("{ss si si si}", "event", "step", "step", index, "steps", steps,
                            "repeat", e->repeat));
    e->paused += now() - start;
    e->total_paused += now() - start;
}

static bool all_finite(const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

/* Into a file of its own, so that what a later failure leaves is whole. */
static void write_tensor(engine *e, const char *file, const char *name, mp_tensor x)
{
    char path[4096];
    mp_error err = {0};

    x.name = name;
    if (snprintf(path, sizeof path, "%s/%s", e->job->outputs, file) >= (int)sizeof path)
        mp_error_set(&e->err, MP_EIO, "%s: the folder's name is too long", e->job->outputs);
    else if (mp_safetensors_write_scratch(path, x, &err))
        mp_error_set(&e->err, err.code,
                     "writing the outputs: %s; make room on the disk and go on with --resume",
                     err.text);
}

static void keep_tensor(engine *e, const char *name, mp_tensor x, mp_dtype dtype)
{
    json_t *shape = json_array();
    char hash[65], file[64];

    mp_sha256_hex(x.data, mp_nbytes(x), hash);
    for (int i = 0; i < x.rank; i++)
        json_array_append_new(shape, json_integer(x.dim[i]));
    snprintf(file, sizeof file, "%.48s.safetensors", name);
    if (e->capture)
        write_tensor(e, file, name, x);
    send_event(e, json_pack("{ss ss ss so ss si ss*}", "event", "tensor", "name", name, "dtype",
                            mp_dtype_name(dtype), "shape", shape, "sha256", hash, "repeat",
                            e->repeat, "file", e->capture && !e->err.code ? file : NULL));
}

static void tensor(void *user, const char *name, mp_tensor fp32, mp_dtype dtype)
{
    engine *e = user;
    const double start = now();

    if (!e->broken && !all_finite(fp32.data, mp_numel(fp32)))
        e->broken = true;
    keep_tensor(e, name, fp32, dtype);
    e->paused += now() - start;
    e->total_paused += now() - start;
}

/* Of a rehearsal: there are no values, but the pipeline's memory is that of a run which takes them.
 */
static void leave_tensor(void *user, const char *name, mp_tensor fp32, mp_dtype dtype)
{
    (void)user;
    (void)name;
    (void)fp32;
    (void)dtype;
}

static void warn(void *user, const char *text)
{
    engine *e = user;

    if (e->capture)
        send_event(e, json_pack("{ss ss}", "event", "warning", "text", text));
}

/* ---- the same, told to the trace and left out of the counters --------------------------------
 * harness/callgrind.c leaves out the last three by their names. */

/* What the trace cost is no part of the generation. */
static void leave_out_trace(engine *e)
{
    const double spent = mp_cell_trace_take_spent(&e->trace);

    e->paused += spent;
    e->total_paused += spent;
}

static void seen_stage_begin(void *user, const char *stage)
{
    engine *e = user;

    stage_begin(e, stage);
    mp_cell_trace_stage(&e->trace, stage);
}

static void seen_stage_end(void *user, const char *stage)
{
    engine *e = user;

    mp_counters_pause(&e->counters);
    mp_cell_trace_stage_end(&e->trace);
    leave_out_trace(e);
    stage_end(e, stage);
    mp_counters_resume(&e->counters);
}

static void seen_step(void *user, int index, int steps)
{
    engine *e = user;

    mp_counters_pause(&e->counters);
    mp_cell_trace_step(&e->trace, index);
    step(e, index, steps);
    mp_counters_resume(&e->counters);
}

static void seen_tensor(void *user, const char *name, mp_tensor fp32, mp_dtype dtype)
{
    engine *e = user;

    mp_counters_pause(&e->counters);
    tensor(e, name, fp32, dtype);
    mp_counters_resume(&e->counters);
}

/* ---- where it is ---------------------------------------------------------------------------- */

static void note_place(mp_progress *p, const char *module, const char *op)
{
    strncpy(p->module, module, sizeof p->module - 1);
    strncpy(p->op, op, sizeof p->op - 1);
}

/* After each op: what a process that is killed from outside has done last. */
static void note_op(void *user, const mp_op_event *event)
{
    const engine *e = user;

    note_place(e->progress, event->module, event->op);
}

/* Of a failing process the module that it is in, which is exact. */
static void on_signal(int number)
{
    if (running && running->trace.to)
        mp_trace_flush(running->trace.to);
    if (running && running->c)
        mp_place(running->c, running->progress->module, running->progress->op);
    if (number == SIGTERM)
        _exit(124);
    signal(number, SIG_DFL);
    raise(number);
}

static void catch_signals(void)
{
    static const int caught[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTERM};
    static char stack[65536]; /* so that a stack overflow can be told, too */
    const stack_t s = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction act = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK | SA_RESETHAND};

    sigaltstack(&s, NULL);
    for (size_t i = 0; i < sizeof caught / sizeof *caught; i++)
        sigaction(caught[i], &act, NULL);
    signal(SIGINT, SIG_IGN); /* a Ctrl-C is the parent's to handle */
}

/* ---- non-finite values ---------------------------------------------------------------------- */

static void first_nonfinite(void *user, const mp_op_event *event)
{
    engine *e = user;
    const mp_progress *p = e->progress;

    if (e->found)
        return;
    const mp_range r = mp_measure(e->c, *event->y);
    if (!r.nan && !r.inf)
        return;
    e->found = true;
    send_event(e, json_pack("{ss ss ss ss si sI sI}", "event", "nonfinite", "module", event->module,
                            "op", event->op, "stage", p->stage, "step", p->step, "nan",
                            (json_int_t)r.nan, "inf", (json_int_t)r.inf));
}

/* The bits are the same each time, so a second run under an observer that looks at every output
 * finds where it began; the timed runs need not look. */
static void diagnose(engine *e)
{
    static const mp_sink quiet;
    mp_sink place = quiet;
    mp_error err = {0};
    const mp_observer o = {.output = first_nonfinite, .user = e};

    place.user = e;
    place.stage_begin = stage_begin;
    place.step = step;
    e->capture = false;
    mp_observe(e->c, o);
    e->job->pipeline->generate(e->c, e->pipeline, &place, &err);
    mp_unobserve(e->c, o);
    if (!e->found)
        send_event(e,
                   json_pack("{ss ss ss ss si sI sI}", "event", "nonfinite", "module", "", "op", "",
                             "stage", "", "step", -1, "nan", (json_int_t)0, "inf", (json_int_t)0));
}

/* ---- the whole ------------------------------------------------------------------------------ */

/* What harness/callgrind.c counts, by this name. */
static __attribute__((noinline)) void generate_once(engine *e, const mp_sink *sink)
{
    const double start = now();

    e->total_paused = 0;
    e->job->pipeline->generate(e->c, e->pipeline, sink, &e->err);
    e->total = now() - start - e->total_paused;
    send_loading(e);
    send_actions(e, e->progress->stage); /* of a stage that has failed and was not ended */
    if (!e->err.code)
        send_event(e, json_pack("{ss ss si sf}", "event", "stage", "name", "total", "repeat",
                                e->repeat, "seconds", e->total));
    e->capture = false;
    mp_account(e->c, false);
}

static void send_op(void *user, const mp_op_row *row)
{
    send_event(user, json_pack("{ss ss ss ss ss sI sf sI sI}", "event", "op", "stage", row->stage,
                               "module", row->module, "op", row->op, "dtype", row->dtype, "calls",
                               (json_int_t)row->calls, "seconds", row->seconds, "bytes",
                               (json_int_t)row->bytes, "flops", (json_int_t)row->flops));
}

/* Of the last generation there is a profile. */
static void generate_last(engine *e, const mp_sink *sink)
{
    static const double least = 0.005; /* of the generation, or no row of its own */
    mp_profile *p = e->job->cell ? mp_profile_create(e->progress->stage) : NULL;

    if (p)
        mp_observe(e->c, mp_profile_observer(p));
    generate_once(e, sink);
    if (p) {
        mp_unobserve(e->c, mp_profile_observer(p));
        if (!e->err.code)
            mp_profile_each(p, least * e->total, send_op, e);
    }
    mp_profile_free(p);
}

/* Of a timed generation that was finished. */
static void send_counts(engine *e)
{
    json_t *event = json_pack("{ss si}", "event", "counters", "repeat", e->repeat);
    double counts[MP_COUNTERS];
    int told = 0;

    mp_counters_stop(&e->counters, counts);
    for (int i = 0; i < MP_COUNTERS; i++)
        if (!isnan(counts[i]) && e->repeat >= 0 && !e->err.code)
            told += !json_object_set_new(event, mp_counter_names[i], json_real(counts[i]));
    if (told)
        send_event(e, event);
    else
        json_decref(event);
}

/* What the disk did not take is no fault of the cell. */
static void close_trace(engine *e)
{
    const int trouble = mp_cell_trace_close(&e->trace);
    char text[200];

    if (!trouble)
        return;
    snprintf(text, sizeof text, "the trace lacks some of this cell: %s; make room for it",
             strerror(trouble));
    send_event(e, json_pack("{ss ss}", "event", "warning", "text", text));
}

static void send_weights(engine *e)
{
    const mp_weights_stats w = mp_pipeline_weights(e->job->pipeline, e->pipeline);

    send_event(e, json_pack("{ss sI sI}", "event", "weights", "mapped", (json_int_t)w.mapped,
                            "converted", (json_int_t)w.converted));
}

static void run_pipeline(engine *e, const mp_sink *sink)
{
    const mp_job *j = e->job;

    e->repeat = -j->warmup;
    if (j->pipeline->open(e->c, &j->request, sink, &e->pipeline, &e->err)) {
        send_loading(e);
        return;
    }
    send_weights(e);
    e->capture = true;
    mp_account(e->c, true);
    for (int i = -j->warmup; i < j->repeat && !e->err.code && !e->broken; i++) {
        e->repeat = i;
        mp_cell_trace_generation(&e->trace, i);
        mp_counters_start(&e->counters);
        (i + 1 < j->repeat ? generate_once : generate_last)(e, sink);
        send_counts(e);
        mp_cell_trace_generation_end(&e->trace);
    }
}

/* Each component's dtype, then the overrides, which win. */
static void declare(engine *e)
{
    const mp_request *r = &e->job->request;
    const mp_precision *p = &r->precision;
    const char *const *components = e->job->pipeline->components;
    int n = 0;

    while (components[n])
        n++;
    e->declared = mp_zeroed((size_t)(n + p->override_count), sizeof *e->declared);
    for (int i = 0; i < n; i++)
        e->declared[i] = (mp_dtype_override){components[i], mp_request_dtype(r, components[i])};
    for (int i = 0; i < p->override_count; i++)
        e->declared[n + i] = p->overrides[i];
    mp_declare(e->c, e->declared, n + p->override_count);
}

static void open_device(engine *e, const mp_native_cell *cell)
{
    const mp_job *j = e->job;
    const mp_device_options o = {.device = j->request.rehearse ? "meta" : "cpu",
                                 .isa = cell->isa,
                                 .threads = cell->threads,
                                 .memory_limit = j->memory,
                                 .policy = j->request.precision.policy,
                                 .e4m3 = j->e4m3};

    if (!mp_device_open(&o, &e->c, &e->err))
        declare(e);
}

int mp_native_roofline(const mp_native_cell *cell, int fd)
{
    const mp_device_options o = {.isa = cell->isa, .threads = cell->threads, .alone = true};
    engine e = {.fd = fd};
    mp_roofline r;

    if (mp_device_open(&o, &e.c, &e.err))
        return 1;
    mp_roofline_measure(e.c, &r);
    send_event(&e, json_pack("{ss sf sf sf}", "event", "roofline", "flops", r.flops, "pairs",
                             r.pairs, "copy", r.copy));
    mp_device_close(e.c);
    return 0;
}

int mp_native_run(const mp_native_cell *cell, int fd)
{
    const mp_job *job = cell->job;
    engine e = {.job = job, .progress = cell->progress, .fd = fd};
    const mp_sink sink = {.user = &e,
                          .stage_begin = seen_stage_begin,
                          .stage_end = seen_stage_end,
                          .step = seen_step,
                          .tensor = job->request.rehearse ? leave_tensor : seen_tensor,
                          .warn = warn};

    running = &e;
    e.progress->step = -1;
    catch_signals();
    if (job->cell)
        mp_counters_open(&e.counters, mp_faults_counters());
    mp_rss_open(&e.rss);
    open_device(&e, cell);
    if (!e.err.code) {
        mp_observe(e.c, (mp_observer){.output = note_op, .user = &e});
        mp_cell_trace_open(&e.trace, job->trace, e.c);
        mp_faults_install(e.c);
        run_pipeline(&e, &sink);
        close_trace(&e);
        send_peak(&e);
    }
    if (e.broken && !e.err.code)
        diagnose(&e);
    if (e.err.code)
        send_error(&e, &e.err);
    else
        send_event(&e, json_pack("{ss}", "event", "done"));
    job->pipeline->close(e.pipeline);
    mp_device_close(e.c);
    mp_counters_close(&e.counters);
    free(e.declared);
    mp_rss_close(&e.rss);
    running = NULL;
    return 0;
}
