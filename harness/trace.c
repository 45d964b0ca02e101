#include "harness/trace.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness/arena.h"
#include "results/query.h"

enum { BUFFER = 1 << 14, EVENT = 1 << 13, NAME = 1 << 11, THREAD = 1 };

/* What the file ends with; the next event is written over it. */
static const char tail[] = "\n]}\n";
enum { TAIL = sizeof tail - 1 };

struct mp_trace {
    char *path;
    int fd;
    uint64_t zero; /* the time that is 0 in the file */
    int64_t cell;
    size_t memory; /* the counter's last value */
    bool counted;  /* it has one, of this cell */
    int open;      /* begun and not ended */
    int trouble;
    size_t length;
    char buffer[BUFFER + EVENT]; /* [0, length): whole events; a tail is put behind them */
};

/* ---- writing -------------------------------------------------------------------------------- */

static bool write_at(int fd, const char *text, size_t n, off_t at)
{
    while (n) {
        const ssize_t k = pwrite(fd, text, n, at);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return false;
        text += k;
        at += k;
        n -= (size_t)k;
    }
    return true;
}

/* Where that fails, the file is what it was: its old tail needs no new room. */
static void append(mp_trace *t, const char *text, size_t n)
{
    struct stat st;

    if (fstat(t->fd, &st)) {
        t->trouble = errno;
        return;
    }
    const off_t end = st.st_size - TAIL;
    if (write_at(t->fd, text, n, end))
        return;
    t->trouble = errno ? errno : EIO;
    if (!ftruncate(t->fd, st.st_size))
        write_at(t->fd, tail, TAIL, end);
}

void mp_trace_flush(mp_trace *t)
{
    const size_t n = t->length;

    t->length = 0;
    if (!n || t->trouble)
        return;
    memcpy(t->buffer + n, tail, TAIL);
    append(t, t->buffer, n + TAIL);
}

/* An event without its braces; what is longer than EVENT is no event of this file. */
static void add(mp_trace *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(mp_trace *t, const char *format, ...)
{
    char *const to = t->buffer + t->length;
    const size_t room = EVENT - TAIL;
    va_list args;

    const int head = snprintf(to, room, ",\n{\"pid\":%" PRId64 ",\"tid\":%d,", t->cell, THREAD);
    va_start(args, format);
    const int body = vsnprintf(to + head, room - (size_t)head, format, args);
    va_end(args);
    if (body < 0 || (size_t)(head + body) + 1 >= room)
        return;
    to[head + body] = '}';
    t->length += (size_t)(head + body) + 1;
    if (t->length >= BUFFER)
        mp_trace_flush(t);
}

/* ---- values --------------------------------------------------------------------------------- */

typedef struct quoted {
    char text[NAME];
} quoted;

/* As a JSON string: text from files may hold anything. */
static quoted quote(const char *text)
{
    json_t *string = mp_json_text(text);
    quoted q;

    const size_t n = json_dumpb(string, q.text, NAME - 1, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
    if (n && n < NAME)
        q.text[n] = '\0';
    else
        strcpy(q.text, "\"(a name too long)\"");
    json_decref(string);
    return q;
}

/* Microseconds of the file. */
static double time_of(const mp_trace *t, uint64_t ns)
{
    return ns > t->zero ? 1e-3 * (double)(ns - t->zero) : 0;
}

static double duration(uint64_t start, uint64_t end)
{
    return end > start ? 1e-3 * (double)(end - start) : 0;
}

/* ---- events --------------------------------------------------------------------------------- */

void mp_trace_cell(mp_trace *t, int64_t cell, const char *key)
{
    t->cell = cell;
    t->counted = false;
    t->open = 0;
    add(t, "\"ph\":\"M\",\"name\":\"process_name\",\"args\":{\"name\":%s}", quote(key).text);
    add(t, "\"ph\":\"M\",\"name\":\"process_sort_index\",\"args\":{\"sort_index\":%" PRId64 "}",
        cell);
    add(t, "\"ph\":\"M\",\"name\":\"thread_name\",\"args\":{\"name\":\"generation\"}");
    mp_trace_flush(t);
}

void mp_trace_begin(mp_trace *t, const char *kind, const char *name, uint64_t start)
{
    add(t, "\"ph\":\"B\",\"cat\":\"%s\",\"name\":%s,\"ts\":%.3f", kind, quote(name).text,
        time_of(t, start));
    t->open++;
}

void mp_trace_end(mp_trace *t, uint64_t end)
{
    if (!t->open)
        return;
    t->open--;
    add(t, "\"ph\":\"E\",\"ts\":%.3f", time_of(t, end));
}

void mp_trace_end_all(mp_trace *t, uint64_t end)
{
    while (t->open)
        mp_trace_end(t, end);
}

void mp_trace_span(mp_trace *t, const char *kind, const char *name, uint64_t start, uint64_t end)
{
    add(t, "\"ph\":\"X\",\"cat\":\"%s\",\"name\":%s,\"ts\":%.3f,\"dur\":%.3f", kind,
        quote(name).text, time_of(t, start), duration(start, end));
}

void mp_trace_op(mp_trace *t, const mp_op_event *op)
{
    const double rate = op->ns ? (double)op->flops / (double)op->ns : 0; /* GFLOP/s */
    char shape[128];

    add(t,
        "\"ph\":\"X\",\"cat\":\"op\",\"name\":%s,\"ts\":%.3f,\"dur\":%.3f,\"args\":{\"module\":%s,"
        "\"dtype\":\"%s\",\"shape\":\"%s\",\"bytes\":%" PRIu64 ",\"flops\":%" PRIu64
        ",\"GFLOP/s\":%.3f}",
        quote(op->op).text, time_of(t, op->start), 1e-3 * (double)op->ns, quote(op->module).text,
        mp_dtype_name(op->y->dtype), mp_shape_text(*op->y, shape, sizeof shape), op->bytes,
        op->flops, rate);
    if (op->peak > op->live)
        mp_trace_memory(t, op->start, op->peak);
    mp_trace_memory(t, op->start + op->ns, op->live);
}

void mp_trace_memory(mp_trace *t, uint64_t at, size_t bytes)
{
    if (t->counted && bytes == t->memory)
        return;
    t->counted = true;
    t->memory = bytes;
    add(t, "\"ph\":\"C\",\"name\":\"activations\",\"ts\":%.3f,\"args\":{\"bytes\":%zu}",
        time_of(t, at), bytes);
}

/* ---- the file ------------------------------------------------------------------------------- */

/* zero_ns: the time of the clock of mp_now_ns that is 0 in the file, so that it can be laid beside
 * other records.  Its own process is number 0, which shows nothing: each event can then begin with
 * a comma. */
static mp_code write_head(mp_trace *t, const char *command, mp_error *err)
{
    char head[EVENT];
    const int n = snprintf(
        head, sizeof head,
        "{\"displayTimeUnit\":\"ms\",\"otherData\":{\"program\":\"mpbench " MPBENCH_VERSION
        "\",\"command\":%s,\"zero_ns\":%" PRIu64 "},\"traceEvents\":[\n{\"pid\":0,\"tid\":0,"
        "\"ph\":\"M\",\"name\":\"process_name\",\"args\":{\"name\":\"mpbench\"}}%s",
        quote(command).text, t->zero, tail);

    if (write_at(t->fd, head, (size_t)n, 0))
        return MP_OK;
    return mp_error_set(err, MP_EIO, "--trace %s: %s; make room there, or name another file",
                        t->path, strerror(errno));
}

static mp_code open_file(mp_trace *t, mp_error *err)
{
    struct stat st;

    t->fd = open(t->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (t->fd < 0 || fstat(t->fd, &st))
        return mp_error_set(err, MP_EIO,
                            "--trace %s: %s; name a file in a folder that can be written", t->path,
                            strerror(errno));
    if (!S_ISREG(st.st_mode))
        return mp_error_set(err, MP_EIO,
                            "--trace %s: is no regular file, expected one that can be written over",
                            t->path);
    return MP_OK;
}

mp_code mp_trace_create(const char *path, const char *command, mp_trace **out, mp_error *err)
{
    mp_trace *t = mp_zeroed(1, sizeof *t);

    *out = t;
    t->path = mp_zeroed(strlen(path) + 1, 1);
    strcpy(t->path, path);
    t->zero = mp_now_ns();
    return open_file(t, err) ? err->code : write_head(t, command, err);
}

int mp_trace_trouble(const mp_trace *t)
{
    return t->trouble;
}

mp_code mp_trace_close(mp_trace *t, mp_error *err)
{
    if (!t)
        return MP_OK;
    mp_trace_flush(t);
    if (t->trouble && !err->code)
        mp_error_set(err, MP_EIO,
                     "--trace %s: %s; the trace is without what came after, the results are whole",
                     t->path, strerror(t->trouble));
    if (t->fd >= 0)
        close(t->fd);
    free(t->path);
    free(t);
    return err->code;
}
