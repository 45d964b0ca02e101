#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "harness/synth.h"
#include "harness/synth_values.h"
#include "kernels/core/memory.h"
#include "pipelines/common/safetensors.h"

enum {
    TASK = 1 << 22,  /* values of one parameter that a thread takes at a time: its table is dear */
    PIECE = 1 << 18, /* values that it makes between two writes: 1 MiB of fp32 */
    MAX_THREADS = 256,
};

static volatile sig_atomic_t interrupted;

void mp_synth_interrupt(int signal)
{
    interrupted = signal;
}

/* ---- one file ---- */

/* A run of values of one parameter, and where in the file they lie. */
typedef struct task {
    const mp_tensor *param;
    const char *name; /* with its component */
    int64_t first, count;
    uint64_t offset;
} task;

typedef struct file {
    const char *path;
    int fd;
    const float *quantile;
    uint64_t seed;
    task *tasks;
    int64_t count;
    _Atomic int64_t next;
    _Atomic int failed; /* the errno of the first failure */
} file;

static bool write_at(file *f, const char *from, size_t n, uint64_t offset)
{
    while (n) {
        const ssize_t done = pwrite(f->fd, from, n, (off_t)offset);
        if (done < 0 && errno == EINTR && !interrupted)
            continue;
        if (done <= 0) {
            int none = 0;
            atomic_compare_exchange_strong(&f->failed, &none, done < 0 ? errno : ENOSPC);
            return false;
        }
        from += done;
        offset += (uint64_t)done;
        n -= (size_t)done;
    }
    return true;
}

static bool run_task(file *f, const task *t, mp_synth_values *values, char *buffer)
{
    const size_t size = mp_dtype_size(t->param->store);

    mp_synth_values_open(values, f->quantile, t->name, *t->param, f->seed);
    for (int64_t i = 0; i < t->count; i += PIECE) {
        const int64_t n = t->count - i < PIECE ? t->count - i : PIECE;
        mp_synth_values_fill(values, t->first + i, n, buffer);
        if (interrupted || !write_at(f, buffer, (size_t)n * size, t->offset + (uint64_t)i * size))
            return false;
    }
    return true;
}

static void *work(void *user)
{
    file *const f = user;
    mp_synth_values *const values = mp_grow(NULL, 1, sizeof *values);
    char *const buffer = mp_grow(NULL, PIECE, sizeof(float));

    for (int64_t i; (i = atomic_fetch_add(&f->next, 1)) < f->count;)
        if (atomic_load(&f->failed) || !run_task(f, &f->tasks[i], values, buffer))
            break;
    free(values);
    free(buffer);
    return NULL;
}

/* This thread and others, as many as can be had. */
static void work_together(file *f, int threads)
{
    pthread_t others[MAX_THREADS];
    int started = 0;

    while (started + 1 < threads && started < MAX_THREADS && started + 1 < f->count &&
           !pthread_create(&others[started], NULL, work, f))
        started++;
    work(f);
    for (int i = 0; i < started; i++)
        pthread_join(others[i], NULL);
}

/* The tasks of the parameters, whose data lie one after the other from `offset` on; where they
 * end. */
static uint64_t list_tasks(mp_arena *a, file *f, const char *component, const mp_tensor *params,
                           int64_t n, uint64_t offset)
{
    int64_t count = 0;

    for (int64_t i = 0; i < n; i++)
        count += (mp_numel(params[i]) + TASK - 1) / TASK;
    f->tasks = mp_arena_alloc(a, (size_t)count, sizeof *f->tasks);
    for (int64_t i = 0; i < n; i++) {
        const int64_t numel = mp_numel(params[i]);
        const char *const name = mp_arena_printf(a, "%s.%s", component, params[i].name);
        for (int64_t at = 0; at < numel; at += TASK) {
            const int64_t left = numel - at < TASK ? numel - at : TASK;
            f->tasks[f->count++] = (task){&params[i], name, at, left, offset};
            offset += (uint64_t)left * mp_dtype_size(params[i].store);
        }
    }
    return offset;
}

static mp_code file_failed(const file *f, int number, mp_error *err)
{
    if (interrupted)
        return mp_error_set(err, MP_EIO, "%s: interrupted; nothing is left of it", f->path);
    return mp_error_set(err, MP_EIO, "%s: cannot be written (%s); %s", f->path, strerror(number),
                        number == ENOSPC || number == EDQUOT || number == EFBIG
                            ? "free some space or choose another folder"
                            : "check that its folder exists and is writable");
}

/* What all files of a part share. */
typedef struct writer {
    mp_arena *arena;
    const mp_synth_part *part;
    const mp_synth_options *options;
    const char *folder; /* of the checkpoint */
    float *quantile;
    int files;
    json_t *map; /* parameter -> file */
} writer;

/* The whole file's room at once, where the file system can: it lies together, and a full disk is
 * known before the work. */
static bool reserve(file *f, uint64_t bytes)
{
    if (!fallocate(f->fd, 0, 0, (off_t)bytes) || errno == EOPNOTSUPP || errno == ENOSYS)
        return true;
    f->failed = errno;
    return false;
}

/* params are sorted on the way. */
static mp_code write_file(const writer *w, const char *path, mp_tensor *params, int64_t n,
                          mp_error *err)
{
    static const char *const metadata[] = {"format", "pt", NULL};
    file f = {.path = path, .quantile = w->quantile, .seed = w->options->seed};
    char *head;
    size_t size;

    if (mp_safetensors_head(path, params, n, metadata, &head, &size, err))
        return err->code;
    const uint64_t end = list_tasks(w->arena, &f, w->part->component, params, n, size);
    f.fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (f.fd < 0) {
        file_failed(&f, errno, err);
    } else {
        if (reserve(&f, end) && write_at(&f, head, size, 0))
            work_together(&f, w->options->threads);
        const int closed = close(f.fd) ? errno : 0;
        if (f.failed || closed || interrupted)
            file_failed(&f, f.failed ? f.failed : closed, err);
    }
    mp_free(head);
    return err->code;
}

/* ---- the files of a part ---- */

/* The end of the file whose first parameter is `first`: as many as fit, at least one. */
static int64_t shard_end(const mp_synth_part *part, int64_t first, uint64_t limit)
{
    uint64_t bytes = 0;
    int64_t end = first;

    for (; end < part->count; end++) {
        bytes += mp_nbytes(part->params[end]);
        if (bytes > limit && end > first)
            break;
    }
    return end;
}

static int count_shards(const mp_synth_part *part, uint64_t limit)
{
    int n = 0;

    for (int64_t first = 0; first < part->count; first = shard_end(part, first, limit))
        n++;
    return n;
}

/* As save_pretrained names it. */
static const char *file_name(const writer *w, int number)
{
    if (w->files == 1)
        return mp_arena_printf(w->arena, "%s.safetensors", w->part->stem);
    return mp_arena_printf(w->arena, "%s-%05d-of-%05d.safetensors", w->part->stem, number,
                           w->files);
}

static mp_code write_files(const writer *w, mp_error *err)
{
    const mp_synth_part *const part = w->part;
    int number = 0;

    for (int64_t first = 0, end; !err->code && first < part->count; first = end) {
        const char *const name = file_name(w, ++number);
        const char *const path =
            mp_arena_printf(w->arena, "%s/%s/%s", w->folder, part->component, name);
        end = shard_end(part, first, w->options->shard_bytes);
        for (int64_t i = first; i < end; i++)
            json_object_set_new(w->map, part->params[i].name, json_string(name));
        write_file(w, path, part->params + first, end - first, err);
    }
    return err->code;
}

static mp_code write_index(const writer *w, mp_error *err)
{
    const char *const path = mp_arena_printf(w->arena, "%s/%s/%s.safetensors.index.json", w->folder,
                                             w->part->component, w->part->stem);
    json_t *const index = json_pack("{s:{s:I}, s:O}", "metadata", "total_size",
                                    (json_int_t)w->part->bytes, "weight_map", w->map);

    if (!index)
        mp_error_set(err, MP_ENOMEM, "%s: no memory for it", path);
    else if (json_dump_file(index, path, JSON_INDENT(2) | JSON_SORT_KEYS))
        mp_error_set(err, MP_EIO, "%s: cannot be written (%s)", path, strerror(errno));
    json_decref(index);
    return err->code;
}

mp_code mp_synth_write(mp_arena *a, const mp_synth_part *part, const char *folder,
                       const mp_synth_options *o, int *files, mp_error *err)
{
    const writer w = {.arena = a,
                      .part = part,
                      .options = o,
                      .folder = folder,
                      .quantile = mp_arena_alloc(a, MP_SYNTH_QUANTILES, sizeof(float)),
                      .files = count_shards(part, o->shard_bytes),
                      .map = json_object()};

    mp_synth_quantiles(w.quantile);
    if (!write_files(&w, err) && w.files > 1)
        write_index(&w, err);
    json_decref(w.map);
    *files = w.files;
    return err->code;
}
