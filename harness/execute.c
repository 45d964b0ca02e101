#include "harness/execute.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct listener {
    mp_record *record;
    bool show;
} listener;

/* OpenBLAS reserves 128 MiB of address space for each thread that calls it, touched only in part,
 * and waits for ever when it gets none.  The limit of the process, which is there to end a runaway,
 * leaves room for that; the limit of activations itself is exact. */
static size_t process_limit(const mp_job *job)
{
    static const size_t reserved = (size_t)160 << 20;
    const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    const size_t threads = job->threads ? (size_t)job->threads : cpus > 0 ? (size_t)cpus : 1;

    return job->memory ? job->memory + (threads + 1) * reserved : 0;
}

static int child_main(void *user, int fd)
{
    return mp_native_run(user, fd);
}

static void on_line(void *user, const char *line, size_t n)
{
    const listener *l = user;

    mp_record_line(l->record, line, n);
    if (l->show && l->record->steps)
        fprintf(stderr, "\r      step %d of %d, repeat %d \r", l->record->steps_done,
                l->record->steps, l->record->repeat + 1);
}

mp_code mp_execute(mp_arena *a, const mp_job *job, double timeout, bool show, mp_execution *out,
                   mp_error *err)
{
    mp_job own = *job;
    listener l = {.record = &out->record, .show = show && isatty(STDERR_FILENO)};
    mp_progress *page =
        mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    *out = (mp_execution){0};
    mp_record_init(&out->record, a);
    if (page == MAP_FAILED)
        return mp_error_set(err, MP_ENOMEM, "cannot share a page with a process: %s",
                            strerror(errno));
    own.progress = page;
    const mp_process p = {.main = child_main,
                          .user = &own,
                          .line = on_line,
                          .listener = &l,
                          .timeout = timeout,
                          .memory = process_limit(job)};
    mp_process_run(&p, &out->end, err);
    out->last = *page;
    /* The page is the child's to write: close its texts before anyone reads them. */
    out->last.module[sizeof out->last.module - 1] = '\0';
    out->last.op[sizeof out->last.op - 1] = '\0';
    out->last.stage[sizeof out->last.stage - 1] = '\0';
    munmap(page, sizeof *page);
    return err->code;
}

void mp_execution_free(mp_execution *e)
{
    mp_record_free(&e->record);
}
