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
                          .memory = job->memory};
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
