/* The native engine, as the harness sees it: a process for each cell. */
#include "harness/engines/native.h"

#include <errno.h>
#include <gnu/libc-version.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "harness/engines/engine.h"

typedef struct native {
    mp_engine base;
    const char *isa;
    int threads;
    bool measured; /* the roofline: once a run */
    mp_roofline roofline;
} native;

typedef struct hearer {
    mp_record *record;
    bool show;
} hearer;

/* OpenBLAS reserves 128 MiB of address space for each thread that calls it, touched only in part,
 * and waits for ever when it gets none.  The limit of the process, which is there to end a runaway,
 * leaves room for that; the limit of activations itself is exact. */
static size_t process_limit(const mp_native_cell *cell)
{
    static const size_t reserved = (size_t)160 << 20;
    const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    const size_t threads = cell->threads ? (size_t)cell->threads : cpus > 0 ? (size_t)cpus : 1;

    return cell->job->memory ? cell->job->memory + (threads + 1) * reserved : 0;
}

static int child_main(void *user, int fd)
{
    return mp_native_run(user, fd);
}

static void on_line(void *user, const char *line, size_t n)
{
    const hearer *l = user;

    mp_record_line(l->record, line, n);
    if (l->show)
        mp_engine_show(l->record);
}

mp_code mp_native_execute(mp_arena *a, const mp_native_cell *cell, bool show, mp_execution *out,
                          mp_error *err)
{
    hearer hear = {.record = &out->record, .show = show && isatty(STDERR_FILENO)};
    mp_native_cell child = *cell;
    mp_progress *page =
        mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    *out = (mp_execution){0};
    mp_record_init(&out->record, a);
    if (page == MAP_FAILED)
        return mp_error_set(err, MP_ENOMEM, "cannot share a page with a process: %s",
                            strerror(errno));
    child.progress = page;
    const mp_process p = {.main = child_main, .user = &child, .memory = process_limit(cell)};
    const mp_listener l = {.line = on_line, .user = &hear, .timeout = cell->job->timeout};
    mp_process_run(&p, &l, &out->end, err);
    out->last = *page;
    /* The page is the child's to write: close its texts before anyone reads them. */
    out->last.module[sizeof out->last.module - 1] = '\0';
    out->last.op[sizeof out->last.op - 1] = '\0';
    out->last.stage[sizeof out->last.stage - 1] = '\0';
    munmap(page, sizeof *page);
    return err->code;
}

static int roofline_main(void *user, int fd)
{
    return mp_native_roofline(user, fd);
}

/* In a process of its own, so that no cell's memory holds what it needs.  Where it fails, nothing
 * is known, and the cells are none the worse. */
static void measure_roofline(native *n, mp_arena *a)
{
    static const double patience = 10; /* seconds */
    mp_native_cell cell = {.isa = n->isa, .threads = n->threads};
    mp_record record;
    hearer hear = {.record = &record};
    const mp_process p = {.main = roofline_main, .user = &cell};
    const mp_listener l = {.line = on_line, .user = &hear, .timeout = patience};
    mp_process_end end;
    mp_error err = {0};

    n->measured = true;
    mp_record_init(&record, a);
    mp_process_run(&p, &l, &end, &err);
    n->roofline = record.roofline;
    mp_record_free(&record);
}

static mp_code native_run(mp_engine *e, mp_arena *a, const mp_job *job, bool show,
                          mp_execution *out, mp_error *err)
{
    native *n = (native *)e;
    const mp_native_cell cell = {.job = job, .isa = n->isa, .threads = n->threads};

    if (mp_native_execute(a, &cell, show, out, err))
        return err->code;
    if (out->record.op_count && !n->measured)
        measure_roofline(n, a);
    if (out->record.op_count)
        out->record.roofline = n->roofline;
    return MP_OK;
}

static mp_code native_check(const mp_scenario *s, mp_error *err)
{
    return s->pipeline->check(&s->request, err);
}

static mp_code native_open(mp_arena *a, const mp_engine_options *o, mp_engine **out, mp_error *err)
{
    native *n = mp_arena_alloc(a, 1, sizeof *n);

    *out = NULL;
    if (strcmp(o->device, "cpu"))
        return mp_error_set(err, MP_EDEVICE,
                            "--device %s: the native engine has no backend for it in this build; "
                            "expected cpu, or another --engine",
                            o->device);
    *n = (native){.base = {.def = &mp_native_engine, .name = "native", .version = MPBENCH_VERSION},
                  .isa = o->machine->isa,
                  .threads = o->threads};
    /* The C library's and OpenBLAS's functions are others on another CPU; threads change no bit. */
    n->base.identity =
        mp_arena_printf(a, "%s\n%s\n%s\n%s\n%s", o->machine->program, o->machine->device.isa,
                        o->machine->device.cpu, o->machine->device.blas, gnu_get_libc_version());
    *out = &n->base;
    return MP_OK;
}

static void native_close(mp_engine *e)
{
    (void)e;
}

const mp_engine_def mp_native_engine = {
    .check = native_check, .open = native_open, .run = native_run, .close = native_close};
