#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/commands.h"
#include "harness/engines/counters.h"
#include "harness/engines/engine.h"
#include "harness/folders.h"
#include "harness/options.h"
#include "harness/scenario.h"
#include "kernels/roofline.h"
#include "results/table.h"

static void line(const char *mark, const char *what, const char *text)
{
    printf("%-4s %-14s ", mark, what);
    mp_print_plain(stdout, text, 20);
    putchar('\n');
}

static int check_machine(mp_arena *a)
{
    static const char *const shown[] = {"cpu", "isas", "cores", "memory_mib", "blas",
                                        "os",  "libc", "build", "git_commit"};
    mp_environment e;
    mp_error err = {0};

    if (mp_environment_read(a, 0, &e, &err)) {
        line("FAIL", "machine", err.text);
        return MP_EXIT_USAGE;
    }
    mp_environment_hear_git(a, mp_environment_ask_git(), &e);
    line("ok", "isa", mp_arena_printf(a, "%s%s", e.device.isa, e.isa ? " (MPBENCH_ISA)" : ""));
    line("ok", "bits",
         "the same for any number of threads; those of two instruction sets differ in the last "
         "places,\nso output hashes and references hold for one of them, on one CPU and build");
    line("ok", "threads", mp_arena_printf(a, "%d", e.device.threads));
    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++)
        for (int k = 0; k < e.count; k++)
            if (!strcmp(e.pairs[k].key, shown[i]))
                line("ok", shown[i], e.pairs[k].value);
    line("ok", "fingerprint", mp_arena_printf(a, "%.16s", e.fingerprint));
    line("--", "cuda", "this build has the CPU alone");
    return MP_EXIT_OK;
}

static void check_speed(mp_arena *a)
{
    const char *isa = getenv("MPBENCH_ISA");
    const mp_device_options o = {.isa = isa && *isa ? isa : NULL, .alone = true};
    mp_error err = {0};
    mp_roofline r;
    mp_ctx *c = NULL;

    if (mp_device_open(&o, &c, &err)) {
        line("FAIL", "roofline", err.text);
        return;
    }
    mp_roofline_measure(c, &r);
    mp_device_close(c);
    line("ok", "roofline",
         mp_arena_printf(a, "fp32 %.0f GFLOP/s, bf16 %.0f GFLOP/s, copies %.1f GB/s",
                         1e-9 * r.flops, 1e-9 * (r.pairs > 0 ? r.pairs : r.flops), 1e-9 * r.copy));
}

static void check_counters(mp_arena *a)
{
    mp_counters k;
    const int trouble = mp_counters_open(&k, mp_counters_hardware);

    mp_counters_close(&k);
    if (!trouble)
        line("ok", "counters", "cycles, instructions, cache misses: recorded with each cell");
    else
        line("--", "counters",
             mp_arena_printf(a, "no cycles, instructions or cache misses: %s; %s",
                             strerror(trouble),
                             trouble == EACCES || trouble == EPERM
                                 ? "sysctl kernel.perf_event_paranoid=2 lends them"
                                 : "this machine, often a virtual one, does not have them"));
}

static void check_program(mp_arena *a, const char *name, const char *needed_for)
{
    const char *path = mp_find_program(a, name);

    if (path)
        line("ok", name, path);
    else
        line("--", name, mp_arena_printf(a, "not found; %s", needed_for));
}

static int check_database(void)
{
    const char *path = mp_database_path(NULL);
    mp_store *s = NULL;
    mp_error err = {0};

    if (access(path, F_OK)) {
        line("--", "database", "none yet; `mpbench run` makes it (MPBENCH_DB, or mpbench.db here)");
        return MP_EXIT_OK;
    }
    const bool bad = mp_store_open(path, MP_STORE_READ, &s, &err) != MP_OK;
    line(bad ? "FAIL" : "ok", "database", bad ? err.text : path);
    mp_store_close(s);
    return bad ? MP_EXIT_FAILED : MP_EXIT_OK;
}

/* Opens everything, as a run would. */
static mp_code open_checkpoint(mp_arena *a, const mp_pipeline_def *p, const char *path,
                               const char **size, mp_error *err)
{
    const mp_device_options o = {.threads = 1};
    const mp_sink sink = {0};
    mp_scenario s = {0};
    mp_ctx *c = NULL;
    void *pipeline = NULL;

    if (!mp_scenario_probe(a, p, path, &s, err) && !p->check(&s.request, err) &&
        !mp_device_open(&o, &c, err) && !p->open(c, &s.request, &sink, &pipeline, err)) {
        const mp_weights_stats stats = mp_pipeline_weights(p, pipeline);
        *size = mp_arena_printf(a, "%s: %lld parameters, %.1f MiB", p->name,
                                (long long)stats.parameters, (double)stats.mapped / 1048576.0);
    }
    p->close(pipeline);
    mp_device_close(c);
    return err->code;
}

static int check_checkpoint(mp_arena *a, const char *path)
{
    mp_error first = {0};

    for (const mp_pipeline_def *const *p = mp_pipelines(); *p; p++) {
        mp_error err = {0};
        const char *size = "";
        if (!(*p)->open)
            continue; /* for workers only */
        if (!open_checkpoint(a, *p, path, &size, &err)) {
            line("ok", "checkpoint", mp_arena_printf(a, "%s\n%s", path, size));
            return MP_EXIT_OK;
        }
        if (!first.code)
            first = err;
    }
    line("FAIL", "checkpoint", first.text);
    return MP_EXIT_USAGE;
}

/* Starts it, and shows what it says of itself. */
static int check_engine(mp_arena *a, mp_engine_options *o)
{
    char folder[] = "/tmp/mpbench-doctor-XXXXXX";
    mp_environment machine;
    mp_engine *e = NULL;
    mp_error err = {0};
    const mp_engine_def *def = mp_engine_find(o->name, &err);

    o->cache = o->scratch = mkdtemp(folder);
    o->machine = &machine;
    if (def && !o->cache)
        mp_error_set(&err, MP_EIO, "/tmp: no folder can be made there");
    if (def && !err.code && !mp_environment_read(a, 0, &machine, &err) &&
        !def->open(a, o, &e, &err) && e->trouble.code)
        err = e->trouble;
    if (err.code)
        line("FAIL", "engine", err.text);
    else
        line("ok", "engine", mp_arena_printf(a, "%s %s", e->name, e->version));
    for (int i = 0; e && i < e->environment_count; i++)
        line("ok", "", mp_arena_printf(a, "%s %s", e->environment[i].key, e->environment[i].value));
    if (e)
        def->close(e);
    if (o->cache)
        mp_remove_folder(o->cache);
    return !err.code ? MP_EXIT_OK : err.code == MP_EUSAGE ? MP_EXIT_USAGE : MP_EXIT_FAILED;
}

int mp_cmd_doctor(int argc, char **argv)
{
    static const char *const devices[] = {"cpu", "cuda", NULL};
    mp_arena *a = mp_arena_create();
    mp_engine_options engine = {.device = "cpu"};
    const mp_option options[] = {
        MP_OPTION("engine", TEXT, &engine.name, "E", "also start this engine"),
        MP_OPTION("device", TEXT, &engine.device, "cpu|cuda", "of it (default: cpu)",
                  .among = devices),
        MP_OPTION("python", TEXT, &engine.python, "PATH",
                  "interpreter of a worker (default: MPBENCH_PYTHON, or python3)"),
        MP_OPTION("pythonpath", TEXT, &engine.pythonpath, "DIR", "where its library lies"),
    };
    const mp_usage usage = {.command = "doctor",
                            .operands = "[CHECKPOINT...]",
                            .summary = "Shows what this machine and build can do, and opens each "
                                       "checkpoint named.",
                            .options = options,
                            .option_count = sizeof options / sizeof *options,
                            .max_operands = -1};
    mp_words operands;
    int status;

    if (mp_options_parse(a, &usage, argc, argv, &operands, &status)) {
        status = mp_exit_worse(status, check_machine(a));
        check_speed(a);
        check_counters(a);
        check_program(a, "gnuplot", "plots need it (apt install gnuplot-nox)");
        check_program(a, "valgrind", "run --callgrind needs it (apt install valgrind)");
        status = mp_exit_worse(status, check_database());
        if (engine.name)
            status = mp_exit_worse(status, check_engine(a, &engine));
        for (int i = 0; i < operands.count; i++)
            status = mp_exit_worse(status, check_checkpoint(a, operands.items[i]));
    }
    mp_arena_free(a);
    return status;
}
