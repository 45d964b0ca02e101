/* Engines outside: a worker process that speaks PROTOCOL.md, kept for one cell or for the run. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness/engines/engine.h"
#include "harness/engines/worker_command.h"
#include "harness/engines/worker_request.h"
#include "harness/engines/worker_trace.h"
#include "pipelines/common/file.h"

enum { PROTOCOL = 1, EVENTS_FD = 3, LOG_LINES = 12, LOG_BYTES = 3000, MAX_ENVIRONMENT = 64 };
static const double START_SECONDS = 300; /* to import a library, from a cold disk */

typedef struct worker {
    mp_engine base;
    mp_arena *arena;
    mp_engine_options options;
    mp_worker_command command;
    const char *log;  /* its standard output and error */
    mp_child child;   /* pid 0: none */
    bool met;         /* name, version and environment are known */
    bool interrupted; /* while it started */
    int64_t requests; /* so far: their ids */
} worker;

/* ---- its log -------------------------------------------------------------------------------- */

/* The last lines, for people; "" when there are none. */
static const char *last_words(mp_arena *a, const char *path)
{
    FILE *f = fopen(path, "rb");
    char text[LOG_BYTES + 1];
    size_t n = 0;

    if (f) {
        if (fseek(f, -LOG_BYTES, SEEK_END))
            rewind(f);
        n = fread(text, 1, LOG_BYTES, f);
        fclose(f);
    }
    while (n && strchr(" \n\r\t", text[n - 1]))
        n--;
    text[n] = '\0';
    char *start = text + n;
    for (int lines = 0; start > text && (lines += start[-1] == '\n') < LOG_LINES;)
        start--;
    for (char *s = start; *s; s++)
        if ((unsigned char)*s >= 0x80 || ((unsigned char)*s < ' ' && *s != '\n'))
            *s = '?'; /* cut and mixed encodings */
    return mp_arena_strdup(a, start);
}

static const char *last_line(mp_arena *a, const char *path)
{
    const char *words = last_words(a, path), *line = strrchr(words, '\n');

    return line ? line + 1 : words;
}

/* ---- starting ------------------------------------------------------------------------------- */

typedef struct spawn {
    const worker *w;
    int log;
} spawn;

/* The child's own words for a program that is not there. */
static void say_not_started(int fd, const char *program, int number)
{
    const char *remedy = number == ENOENT
                             ? "; install Python 3.9 or newer with the library, and name it with "
                               "--python or MPBENCH_PYTHON"
                             : "";
    char text[PATH_MAX + 200];

    snprintf(text, sizeof text, "%s cannot be started: %s%s", program, strerror(number), remedy);
    json_t *event = json_pack("{ss ss ss}", "event", "error", "code", "engine", "text", text);
    json_dumpfd(event, fd, JSON_COMPACT);
    if (write(fd, "\n", 1) < 1)
        _exit(126);
}

static int worker_main(void *user, int fd)
{
    const spawn *s = user;
    const mp_worker_command *c = &s->w->command;
    /* Out of the way first: one of them may stand where the other must go. */
    const int log = fcntl(s->log, F_DUPFD_CLOEXEC, 10), events = fcntl(fd, F_DUPFD_CLOEXEC, 10);

    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    dup2(events, EVENTS_FD);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGXFSZ, SIG_DFL);
    execvpe(c->argv[0], (char *const *)c->argv, (char *const *)c->envp);
    say_not_started(events, c->argv[0], errno);
    return 127;
}

static mp_code spawn_worker(worker *w, mp_error *err)
{
    spawn s = {.w = w};
    const mp_process p = {.main = worker_main, .user = &s, .listens = true};

    s.log = open(w->log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666);
    if (s.log < 0)
        return mp_error_set(err, MP_EIO,
                            "%s: %s; make the cache's folder writable, or name another one with "
                            "MPBENCH_CACHE",
                            w->log, strerror(errno));
    mp_child_start(&p, &w->child, err);
    close(s.log);
    return err->code;
}

/* Has no more to say: it need not be waited for. */
static void stop_worker(worker *w)
{
    mp_process_end end = {0};

    if (!w->child.pid)
        return;
    kill(-w->child.pid, SIGKILL);
    mp_child_reap(&w->child, &end);
}

/* ---- meeting -------------------------------------------------------------------------------- */

typedef struct meeting {
    worker *w;
    mp_error *err;
    bool over;
} meeting;

static const char *arena_text(mp_arena *a, const json_t *event, const char *key)
{
    const char *text = json_string_value(json_object_get(event, key));

    return text && *text ? mp_arena_strdup(a, text) : NULL;
}

static void read_environment(worker *w, json_t *map)
{
    mp_pair *pairs = mp_arena_alloc(w->arena, MAX_ENVIRONMENT, sizeof *pairs);
    const char *key;
    json_t *value;
    int n = 0;

    pairs[n++] = (mp_pair){mp_arena_printf(w->arena, "%s.version", w->base.name), w->base.version};
    json_object_foreach (map, key, value)
        if (json_is_string(value) && strcmp(key, "version") && n < MAX_ENVIRONMENT)
            pairs[n++] = (mp_pair){mp_arena_printf(w->arena, "%s.%s", w->base.name, key),
                                   mp_arena_strdup(w->arena, json_string_value(value))};
    w->base.environment = pairs;
    w->base.environment_count = n;
}

/* All that its bits depend on but the job. */
static const char *identify(const worker *w)
{
    mp_text t = {0};

    mp_text_printf(&t, "%s\n%s\n%s\n%s\n%s\n%d\n", w->base.name, w->base.version, w->command.code,
                   w->options.device, w->options.machine->fingerprint,
                   w->options.machine->device.threads);
    for (int i = 0; i < w->base.environment_count; i++)
        mp_text_printf(&t, "%s=%s\n", w->base.environment[i].key, w->base.environment[i].value);
    return mp_text_take(&t, w->arena);
}

/* It becomes a column that people and expectations go by; native is this program. */
static bool is_name(const char *text)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    enum { LONGEST = 40 };

    return text && *text && strlen(text) <= LONGEST && !text[strspn(text, plain)] &&
           strcmp(text, "native") != 0;
}

static void on_ready(meeting *m, const json_t *event)
{
    worker *w = m->w;
    const mp_engine before = w->base;
    const char *name = arena_text(w->arena, event, "engine");
    const char *version = arena_text(w->arena, event, "version");
    const json_t *protocol = json_object_get(event, "protocol");

    if (!json_is_integer(protocol) || json_integer_value(protocol) != PROTOCOL || !is_name(name) ||
        !version) {
        mp_error_set(
            m->err, MP_EENGINE,
            "%s: its first words are not those of protocol %d: it needs \"protocol\":%d, a "
            "version and an engine (letters, digits, '.', '_' and '-'; not native)",
            w->options.name, PROTOCOL, PROTOCOL);
        return;
    }
    w->base.name = name;
    w->base.version = version;
    read_environment(w, json_object_get(event, "environment"));
    w->base.identity = identify(w);
    if (w->met && strcmp(w->base.identity, before.identity) != 0) {
        w->base = before; /* what is on record of the run */
        mp_error_set(m->err, MP_EENGINE,
                     "%s: its library changed while the run went on (it was %s %s, and now says %s "
                     "%s); start the run again",
                     w->options.name, before.name, before.version, name, version);
    }
    w->met = true;
}

static void refuse_line(meeting *m, const char *line, size_t n)
{
    mp_error_set(m->err, MP_EENGINE,
                 "%s: its first line is no event of the protocol: '%s'; it must be \"ready\" or "
                 "\"error\"",
                 m->w->options.name, mp_record_excerpt(m->w->arena, line, n));
}

static void on_meeting_line(void *user, const char *line, size_t n)
{
    meeting *m = user;
    mp_record r;
    json_t *event = json_loadb(line, n, JSON_ALLOW_NUL, NULL);
    const char *kind = json_string_value(json_object_get(event, "event"));

    m->over = true;
    if (kind && !strcmp(kind, "ready")) {
        on_ready(m, event);
    } else if (kind && !strcmp(kind, "error")) {
        mp_record_init(&r, m->w->arena);
        mp_record_line(&r, line, n);
        if (r.error.code)
            mp_error_set(m->err, r.error.code, "%s", r.error.text);
        else
            refuse_line(m, line, n);
        mp_record_free(&r);
    } else {
        refuse_line(m, line, n);
    }
    json_decref(event);
}

static bool is_over(const void *user)
{
    return ((const meeting *)user)->over;
}

static void say_no_start(const worker *w, const mp_process_end *end, double limit, mp_error *err)
{
    const char *last = last_line(w->arena, w->log), *name = w->options.name;

    if (end->interrupted)
        mp_error_set(err, MP_EENGINE, "%s: interrupted before the worker was ready", name);
    else if (end->timed_out)
        mp_error_set(err, MP_EENGINE,
                     "%s: the worker was not ready after %g s; MPBENCH_WORKER_START gives it more "
                     "seconds",
                     name, limit);
    else if (end->lingered)
        mp_error_set(err, MP_EENGINE,
                     "%s: the worker closed its descriptor %d before it was ready; mend the worker",
                     name, EVENTS_FD);
    else if (end->signal)
        mp_error_set(err, MP_EENGINE,
                     "%s: the worker was killed by signal %d (%s) before it was ready; to see for "
                     "yourself: %s",
                     name, end->signal, strsignal(end->signal), w->command.by_hand);
    else
        mp_error_set(err, MP_EENGINE,
                     "%s: the worker ended with status %d before it was ready%s%s; to see for "
                     "yourself: %s",
                     name, end->status, *last ? ", with the words: " : "", last,
                     w->command.by_hand);
}

static double start_limit(void)
{
    const char *text = getenv("MPBENCH_WORKER_START");
    const double seconds = text ? strtod(text, NULL) : 0;

    return seconds > 0 ? seconds : START_SECONDS;
}

/* Starts one and hears its first words.  A failure is a result: in err. */
static mp_code start_worker(worker *w, mp_error *err)
{
    meeting m = {.w = w, .err = err};
    const mp_listener l = {
        .line = on_meeting_line, .finished = is_over, .user = &m, .timeout = start_limit()};
    mp_process_end end = {0};

    if (spawn_worker(w, err))
        return err->code;
    if (!mp_child_listen(&w->child, &l, &end)) {
        mp_child_reap(&w->child, &end);
        w->interrupted = end.interrupted;
        if (!err->code)
            say_no_start(w, &end, l.timeout, err);
    }
    if (err->code)
        stop_worker(w);
    return err->code;
}

/* ---- a cell --------------------------------------------------------------------------------- */

typedef struct hearer {
    mp_record *record;
    mp_worker_trace trace;
    bool show;
} hearer;

static void on_line(void *user, const char *line, size_t n)
{
    hearer *l = user;

    mp_worker_trace_line(&l->trace, line, n);
    mp_record_line(l->record, line, n);
    if (l->show)
        mp_engine_show(l->record);
}

static bool has_ended(const void *user)
{
    const mp_record *r = ((const hearer *)user)->record;

    return r->done || r->error.code || r->malformed;
}

/* Where it was by its own events, for an end that it could not report. */
static void note_place(mp_execution *e)
{
    const mp_record *r = &e->record;

    snprintf(e->last.stage, sizeof e->last.stage, "%s", r->begun);
    e->last.step = !strcmp(r->begun, "denoise") ? r->steps_done : -1;
}

static void keep_last_words(worker *w, mp_execution *e)
{
    const char *words = last_words(w->arena, w->log);

    if (*words)
        mp_text_printf(&e->record.warnings, "%sthe worker's log ends with:\n%s",
                       e->record.warnings.length ? "\n" : "", words);
}

/* A conversation that cannot be trusted is the cell's error, whatever its end says; what was told
 * before it stays. */
static void find_fault(const worker *w, mp_record *r, bool taken)
{
    const char *name = w->base.name;
    mp_error fault = {0};

    if (r->malformed)
        mp_error_set(&fault, MP_EENGINE,
                     "%s: the worker sent a line that is no event of the protocol: '%s'; mend the "
                     "worker, or see that nothing else writes to its descriptor %d",
                     name, r->bad_line, EVENTS_FD);
    else if (!taken)
        mp_error_set(&fault, MP_EENGINE,
                     "%s: the worker answered before it had read its request; "
                     "mend the worker",
                     name);
    else if (r->id != w->requests)
        mp_error_set(&fault, MP_EENGINE,
                     "%s: the worker's answer has the id %lld, expected %lld, that of its request; "
                     "mend the worker",
                     name, (long long)r->id, (long long)w->requests);
    if (fault.code)
        r->error = fault;
}

static void converse(worker *w, const char *request, const mp_job *job, bool show, mp_execution *e)
{
    hearer hear = {
        .record = &e->record, .trace = {.to = job->trace}, .show = show && isatty(STDERR_FILENO)};
    const mp_listener l = {
        .line = on_line, .finished = has_ended, .user = &hear, .timeout = job->timeout};
    bool lives, good;

    if (truncate(w->log, 0)) /* of this cell alone; where it cannot be, it is longer */
        errno = 0;
    mp_child_tell(&w->child, request);
    lives = mp_child_listen(&w->child, &l, &e->end);
    mp_worker_trace_close(&hear.trace);
    const bool answered = e->record.done || e->record.error.code || e->record.malformed;
    note_place(e);
    if (answered && !e->end.timed_out && !e->end.interrupted)
        find_fault(w, &e->record, !w->child.outgoing.length);
    good = lives && e->record.error.code != MP_EENGINE && !e->end.timed_out && !e->end.interrupted;
    if (!lives)
        mp_child_reap(&w->child, &e->end); /* how it ended is the result */
    else if (!good || !w->options.keep_worker)
        stop_worker(w);
    if (!good)
        keep_last_words(w, e);
}

/* The one that serves the run, if it is as it was left; else a fresh one. */
static void have_worker(worker *w, mp_error *err)
{
    if (w->child.pid && !mp_child_is_idle(&w->child))
        stop_worker(w);
    if (!w->child.pid)
        start_worker(w, err);
}

static mp_code worker_run(mp_engine *engine, mp_arena *a, const mp_job *job, bool show,
                          mp_execution *out, mp_error *err)
{
    worker *w = (worker *)engine;
    const char *request;

    (void)err;
    *out = (mp_execution){.last.step = -1};
    mp_record_init(&out->record, a);
    out->record.error = w->base.trouble;
    if (out->record.error.code)
        return MP_OK;
    request = mp_worker_request(a, job, w->options.device, w->options.threads, ++w->requests,
                                &out->record.error);
    if (request)
        have_worker(w, &out->record.error);
    out->end.interrupted = w->interrupted;
    if (!out->record.error.code)
        converse(w, request, job, show, out);
    return MP_OK;
}

/* ---- opening -------------------------------------------------------------------------------- */

static mp_code worker_check(const mp_scenario *s, mp_error *err)
{
    const char *folder = s->request.checkpoint;
    const mp_policy policy = s->request.precision.policy;
    struct stat st;

    if (policy != MP_STRICT)
        return mp_error_set(err, MP_EUNSUPPORTED,
                            "key 'precision.policy': found %s, expected strict: only the native "
                            "engine negotiates and falls back; use --engine native or policy: "
                            "strict, or leave such cells out with --only precision.policy=strict",
                            mp_policy_name(policy));
    if (stat(folder, &st) || !S_ISDIR(st.st_mode))
        return mp_error_set(err, MP_EMISSING, "%s: no such folder; expected a checkpoint", folder);
    if (s->e4m3 != MP_E4M3_SATURATE)
        return mp_error_set(err, MP_EUNSUPPORTED,
                            "key 'precision.e4m3': only the native engine can bring back the "
                            "overflow of older torch; expected saturate");
    return MP_OK;
}

static mp_code worker_open(mp_arena *a, const mp_engine_options *o, mp_engine **out, mp_error *err)
{
    worker *w = mp_arena_alloc(a, 1, sizeof *w);
    const char *base = strrchr(o->name, '/');

    *out = NULL;
    *w = (worker){
        .base = {.def = &mp_worker_engine, .name = base ? base + 1 : o->name, .version = "unknown"},
        .arena = a,
        .options = *o,
        .log = mp_arena_printf(a, "%s/worker.log", o->scratch)};
    if (mp_worker_command_build(a, o, &w->command, err))
        return err->code;
    w->base.identity = w->command.code;
    /* Its versions belong to the run, which begins only then.  What goes wrong is recorded with
     * each cell: a nightly series shows it. */
    start_worker(w, &w->base.trouble);
    *out = &w->base;
    return MP_OK;
}

static void worker_close(mp_engine *e)
{
    stop_worker((worker *)e);
}

const mp_engine_def mp_worker_engine = {
    .check = worker_check, .open = worker_open, .run = worker_run, .close = worker_close};
