/* Engines outside: a worker process that speaks PROTOCOL.md, kept for one cell or for the run. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness/engines/engine.h"
#include "harness/engines/worker_files.h"
#include "harness/engines/worker_request.h"
#include "pipelines/common/file.h"

enum { PROTOCOL = 1, EVENTS_FD = 3, LOG_LINES = 12, LOG_BYTES = 3000, MAX_ENVIRONMENT = 64 };
static const double START_SECONDS = 300; /* to import a library, from a cold disk */
static const double SEND_SECONDS = 10;   /* for a worker to take a request */

extern char **environ;

typedef struct worker {
    mp_engine base;
    mp_arena *arena;
    mp_engine_options options;
    const char **argv, **envp;
    const char *log;  /* its standard output and error */
    mp_child child;   /* pid 0: none */
    int requests;     /* its standard input */
    bool met;         /* name, version and environment are known */
    bool interrupted; /* while it started */
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
    int requests, log;
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
    const worker *w = s->w;
    /* Out of the way first: one of the three may stand where another must go. */
    const int requests = fcntl(s->requests, F_DUPFD_CLOEXEC, 10);
    const int log = fcntl(s->log, F_DUPFD_CLOEXEC, 10), events = fcntl(fd, F_DUPFD_CLOEXEC, 10);

    dup2(requests, STDIN_FILENO);
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    dup2(events, EVENTS_FD);
    signal(SIGPIPE, SIG_DFL);
    execvpe(w->argv[0], (char *const *)w->argv, (char *const *)w->envp);
    say_not_started(events, w->argv[0], errno);
    return 127;
}

/* False, with the trouble in err: it is not running. */
static mp_code spawn_worker(worker *w, mp_error *err)
{
    const int log = open(w->log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666);
    int fds[2] = {-1, -1};

    if (log < 0 || pipe2(fds, O_CLOEXEC)) {
        mp_error_set(err, MP_EIO,
                     "%s: %s; make the cache's folder writable, or name another one "
                     "with MPBENCH_CACHE",
                     w->log, strerror(errno));
    } else {
        spawn s = {.w = w, .requests = fds[0], .log = log};
        const mp_process p = {.main = worker_main, .user = &s};
        mp_child_start(&p, &w->child, err);
        w->requests = fds[1];
        fcntl(w->requests, F_SETFL, O_NONBLOCK);
    }
    if (fds[0] >= 0)
        close(fds[0]);
    if (log >= 0)
        close(log);
    return err->code;
}

static void end_worker(worker *w, mp_process_end *end)
{
    if (w->requests >= 0)
        close(w->requests);
    w->requests = -1;
    if (w->child.pid)
        mp_child_reap(&w->child, end);
}

/* Has no more to say: it need not be waited for. */
static void stop_worker(worker *w)
{
    mp_process_end end = {0};

    if (w->child.pid)
        kill(-w->child.pid, SIGKILL);
    end_worker(w, &end);
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

    mp_text_printf(&t, "%s\n%s\n%s\n%s\n%d\n", w->base.name, w->base.version, w->options.device,
                   w->options.machine->fingerprint, w->options.machine->device.threads);
    for (int i = 0; i < w->base.environment_count; i++)
        mp_text_printf(&t, "%s=%s\n", w->base.environment[i].key, w->base.environment[i].value);
    return mp_text_take(&t, w->arena);
}

static void on_ready(meeting *m, const json_t *event)
{
    worker *w = m->w;
    const char *name = arena_text(w->arena, event, "engine");
    const char *version = arena_text(w->arena, event, "version");
    const json_t *protocol = json_object_get(event, "protocol");

    if (!json_is_integer(protocol) || json_integer_value(protocol) != PROTOCOL || !name ||
        !version) {
        mp_error_set(m->err, MP_EENGINE,
                     "%s: its first words are not those of protocol %d: it needs an engine, a "
                     "version and \"protocol\":%d",
                     w->options.name, PROTOCOL, PROTOCOL);
        return;
    }
    if (w->met)
        return; /* a later worker of the same run */
    w->met = true;
    w->base.name = name;
    w->base.version = version;
    read_environment(w, json_object_get(event, "environment"));
    w->base.identity = identify(w);
}

static void on_meeting_line(void *user, const char *line, size_t n)
{
    meeting *m = user;
    mp_record r;
    json_t *event = json_loadb(line, n, 0, NULL);
    const char *kind = json_string_value(json_object_get(event, "event"));

    m->over = true;
    if (kind && !strcmp(kind, "ready")) {
        on_ready(m, event);
    } else if (kind && !strcmp(kind, "error")) {
        mp_record_init(&r, m->w->arena);
        mp_record_line(&r, line, n);
        mp_error_set(m->err, r.error.code, "%s", r.error.text);
        mp_record_free(&r);
    } else {
        mp_error_set(m->err, MP_EENGINE,
                     "%s: its first line is no event of the protocol: '%.100s'; it must be "
                     "\"ready\" or \"error\"",
                     m->w->options.name, mp_plain(mp_arena_strndup(m->w->arena, line, n)).text);
    }
    json_decref(event);
}

static bool is_over(const void *user)
{
    return ((const meeting *)user)->over;
}

static void say_no_start(worker *w, const mp_process_end *end, double limit, mp_error *err)
{
    const char *last = last_line(w->arena, w->log);

    if (end->timed_out)
        mp_error_set(err, MP_EENGINE,
                     "%s: the worker was not ready after %g s; MPBENCH_WORKER_START gives it more "
                     "seconds",
                     w->options.name, limit);
    else if (end->signal)
        mp_error_set(err, MP_EENGINE,
                     "%s: the worker was killed by signal %d (%s) before it was "
                     "ready",
                     w->options.name, end->signal, strsignal(end->signal));
    else
        mp_error_set(err, MP_EENGINE,
                     "%s: the worker ended with status %d before it was ready%s%s; run `%s %s` to "
                     "see for yourself",
                     w->options.name, end->status, *last ? ", with the words: " : "", last,
                     w->argv[0], w->argv[1] ? w->argv[1] : "");
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
    if (!mp_child_listen(&w->child, &l, &end) && !err->code) {
        end_worker(w, &end);
        w->interrupted = end.interrupted;
        say_no_start(w, &end, l.timeout, err);
    }
    if (err->code)
        stop_worker(w);
    return err->code;
}

/* ---- a cell --------------------------------------------------------------------------------- */

typedef struct hearer {
    mp_record *record;
    bool show;
} hearer;

static void on_line(void *user, const char *line, size_t n)
{
    const hearer *l = user;

    mp_record_line(l->record, line, n);
    if (l->show)
        mp_engine_show(l->record);
}

static bool has_ended(const void *user)
{
    const mp_record *r = ((const hearer *)user)->record;

    return r->done || r->error.code || r->malformed;
}

/* False: it does not take it. */
static bool send_request(int fd, const char *text)
{
    size_t left = strlen(text);
    struct sigaction ignore = {.sa_handler = SIG_IGN}, before;
    struct pollfd poller = {.fd = fd, .events = POLLOUT};

    sigaction(SIGPIPE, &ignore, &before);
    while (left && poll(&poller, 1, (int)(SEND_SECONDS * 1000)) > 0) {
        const ssize_t n = write(fd, text, left);
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            break;
        text += n > 0 ? n : 0;
        left -= n > 0 ? (size_t)n : 0;
    }
    sigaction(SIGPIPE, &before, NULL);
    return !left;
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

static void say_garbage(const worker *w, mp_record *r)
{
    mp_error_set(&r->error, MP_EENGINE,
                 "%s: the worker sent a line that is no event of the protocol: '%.100s'; mend the "
                 "worker, or see that nothing else writes to its descriptor %d",
                 w->base.name, mp_plain(r->bad_line).text, EVENTS_FD);
}

static void converse(worker *w, mp_arena *a, const mp_job *job, bool show, mp_execution *e)
{
    hearer hear = {.record = &e->record, .show = show && isatty(STDERR_FILENO)};
    const mp_listener l = {
        .line = on_line, .finished = has_ended, .user = &hear, .timeout = job->timeout};
    const char *request = mp_worker_request(a, job, w->options.device, w->options.threads);
    const bool sent = send_request(w->requests, request);
    const bool lives = mp_child_listen(&w->child, &l, &e->end);

    note_place(e);
    if (e->record.malformed && !e->end.timed_out && !e->end.interrupted)
        say_garbage(w, &e->record);
    else if (!sent && !lives && !e->record.error.code)
        mp_error_set(&e->record.error, MP_EENGINE, "%s: the worker did not take its request",
                     w->base.name);
    if (!lives)
        end_worker(w, &e->end); /* how it ended is the result */
    else if (e->record.malformed)
        stop_worker(w);
    if (!lives || e->record.malformed)
        keep_last_words(w, e);
}

static mp_code worker_run(mp_engine *engine, mp_arena *a, const mp_job *job, bool show,
                          mp_execution *out, mp_error *err)
{
    worker *w = (worker *)engine;

    (void)err;
    *out = (mp_execution){.last.step = -1};
    mp_record_init(&out->record, a);
    if (!w->base.trouble.code && !w->child.pid)
        start_worker(w, &out->record.error); /* the first one is worker_open's */
    if (w->base.trouble.code)
        out->record.error = w->base.trouble;
    out->end.interrupted = w->interrupted;
    if (out->record.error.code)
        return MP_OK;
    converse(w, a, job, show, out);
    if (!w->options.keep_worker)
        stop_worker(w);
    return MP_OK;
}

/* ---- opening -------------------------------------------------------------------------------- */

static mp_code worker_check(const mp_scenario *s, mp_error *err)
{
    const char *folder = s->request.checkpoint;
    struct stat st;

    if (stat(folder, &st) || !S_ISDIR(st.st_mode))
        return mp_error_set(err, MP_EMISSING, "%s: no such folder; expected a checkpoint", folder);
    return MP_OK;
}

static const char *absolute(mp_arena *a, const char *path)
{
    char whole[PATH_MAX];

    return realpath(path, whole) ? mp_arena_strdup(a, whole) : path;
}

/* Its interpreter, where it is Python, and the file. */
static mp_code build_argv(worker *w, mp_error *err)
{
    const char *name = w->options.name, *given = getenv("MPBENCH_PYTHON");
    const char *python = w->options.python ? w->options.python
                         : given && *given ? given
                                           : "python3";
    const char *file = name;
    const size_t n = strlen(name);
    int i = 0;

    if (!strchr(name, '/') && mp_worker_files_write(w->arena, w->options.cache, &file, name, err))
        return err->code;
    file = absolute(w->arena, file);
    w->argv = mp_arena_alloc(w->arena, 3, sizeof *w->argv);
    if (!strchr(name, '/') || (n > 3 && !strcmp(name + n - 3, ".py")))
        w->argv[i++] = python;
    w->argv[i] = file;
    return MP_OK;
}

static void set_variable(worker *w, int *n, const char *key, const char *value)
{
    const size_t length = strlen(key);
    int i = 0;

    while (i < *n && (strncmp(w->envp[i], key, length) || w->envp[i][length] != '='))
        i++;
    w->envp[i] = mp_arena_printf(w->arena, "%s=%s", key, value);
    *n += i == *n;
}

/* DIR and DIR/src (a checkout), the folder of worker.py, and what there was. */
static const char *python_path(worker *w, const char *library)
{
    const char *before = getenv("PYTHONPATH"), *dir = w->options.pythonpath;
    mp_text t = {0};

    if (dir)
        mp_text_printf(&t, "%s:%s/src:", absolute(w->arena, dir), absolute(w->arena, dir));
    mp_text_add(&t, library);
    if (before && *before)
        mp_text_printf(&t, ":%s", before);
    return mp_text_take(&t, w->arena);
}

static mp_code build_environment(worker *w, mp_error *err)
{
    static const char *const threads[] = {"OMP_NUM_THREADS", "MKL_NUM_THREADS",
                                          "OPENBLAS_NUM_THREADS"};
    static const char *const offline[] = {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE",
                                          "HF_HUB_DISABLE_TELEMETRY", "PYTHONUNBUFFERED"};
    const char *library, *count;
    int n = 0;

    if (mp_worker_files_write(w->arena, w->options.cache, &library, NULL, err))
        return err->code;
    while (environ[n])
        n++;
    w->envp = mp_arena_alloc(w->arena, (size_t)n + 16, sizeof *w->envp);
    memcpy(w->envp, environ, (size_t)n * sizeof *w->envp);
    count = mp_arena_printf(w->arena, "%d", w->options.machine->device.threads);
    for (size_t i = 0; i < sizeof threads / sizeof *threads; i++)
        set_variable(w, &n, threads[i], count);
    for (size_t i = 0; i < sizeof offline / sizeof *offline; i++)
        set_variable(w, &n, offline[i], "1");
    set_variable(w, &n, "PYTHONPATH", python_path(w, absolute(w->arena, library)));
    if (w->options.pythonpath)
        set_variable(w, &n, "MPBENCH_PYTHONPATH", absolute(w->arena, w->options.pythonpath));
    return MP_OK;
}

static mp_code check_pythonpath(const mp_engine_options *o, mp_error *err)
{
    struct stat st;

    if (o->pythonpath && (stat(o->pythonpath, &st) || !S_ISDIR(st.st_mode)))
        return mp_error_set(err, MP_EUSAGE,
                            "--pythonpath %s: no such folder; expected a checkout, or the DIR of "
                            "`pip install --target DIR`",
                            o->pythonpath);
    return MP_OK;
}

static mp_code worker_open(mp_arena *a, const mp_engine_options *o, mp_engine **out, mp_error *err)
{
    worker *w = mp_arena_alloc(a, 1, sizeof *w);
    const char *base = strrchr(o->name, '/');

    *out = NULL;
    *w = (worker){.base = {.def = &mp_worker_engine,
                           .name = base ? base + 1 : o->name,
                           .version = "unknown",
                           .identity = o->name},
                  .arena = a,
                  .options = *o,
                  .requests = -1,
                  .log = mp_arena_printf(a, "%s/worker-%ld.log", o->cache, (long)getpid())};
    if (check_pythonpath(o, err) || build_argv(w, err) || build_environment(w, err))
        return err->code;
    /* Its versions belong to the run, which begins only then.  What goes wrong is recorded with
     * each cell: a nightly series shows it. */
    start_worker(w, &w->base.trouble);
    if (w->base.trouble.code)
        fprintf(stderr, "mpbench: %s\n", w->base.trouble.text);
    *out = &w->base;
    return MP_OK;
}

static void worker_close(mp_engine *e)
{
    worker *w = (worker *)e;

    stop_worker(w);
    unlink(w->log);
}

const mp_engine_def mp_worker_engine = {
    .check = worker_check, .open = worker_open, .run = worker_run, .close = worker_close};
