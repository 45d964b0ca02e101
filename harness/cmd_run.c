#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/commands.h"
#include "harness/run.h"

static const char *quote_command(mp_arena *a, int argc, char **argv)
{
    mp_text t = {0};

    mp_text_add(&t, "mpbench");
    for (int i = 0; i < argc; i++) {
        mp_text_add(&t, " ");
        mp_text_shell(&t, argv[i]);
    }
    return mp_text_take(&t, a);
}

/* What a repro line needs to run a cell with the same engine. */
static const char *engine_flags(mp_arena *a, const mp_run_options *o)
{
    const char *given = strcmp(o->engine, "native") ? getenv("MPBENCH_PYTHON") : NULL;
    const struct {
        const char *flag, *value, *fallback;
    } flags[] = {{"engine", o->engine, "native"},
                 {"device", o->device, "cpu"},
                 {"python", o->python ? o->python : given, ""},
                 {"pythonpath", o->pythonpath, NULL},
                 {"reference", o->reference, "own"}};
    mp_text t = {0};

    mp_text_add(&t, "");
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        if (!flags[i].value || (flags[i].fallback && !strcmp(flags[i].value, flags[i].fallback)))
            continue;
        mp_text_printf(&t, " --%s ", flags[i].flag);
        mp_text_shell(&t, flags[i].value);
    }
    return mp_text_take(&t, a);
}

int mp_cmd_run(int argc, char **argv)
{
    static const char *const formats[] = {"text", "json", NULL};
    static const char *const devices[] = {"cpu", "cuda", NULL};
    static const char *const references[] = {"own", "native", NULL};
    mp_arena *a = mp_arena_create();
    const char *shard = NULL;
    mp_run_options o = {.plan = {.repeat = -1, .warmup = -1},
                        .format = "text",
                        .engine = "native",
                        .device = "cpu",
                        .reference = "own",
                        .rounds = 1};
    const mp_option options[] = {
        MP_OPTION_DATABASE(&o.db),
        MP_OPTION("label", TEXT, &o.label, "L", "name for this run, for compare and list"),
        MP_OPTION("only", LIST, &o.plan.only, "KEY=VAL", "run the cells for which this holds"),
        MP_OPTION("set", LIST, &o.plan.set, "KEY=VAL",
                  "change a key of the scenario, as inputs.steps=2"),
        MP_OPTION("repeat", INT, &o.plan.repeat, "N", "timed generations a cell", .min = 1,
                  .max = 10000),
        MP_OPTION("warmup", INT, &o.plan.warmup, "N", "generations before them", .min = 0,
                  .max = 1000),
        MP_OPTION("rounds", INT, &o.rounds, "N",
                  "run all cells N times in turn, each time as a run with the same label", .min = 1,
                  .max = 1000),
        MP_OPTION("against", TEXT, &o.against, "NAME",
                  "compare with that baseline or run at the end; a regression is exit status 1"),
        MP_OPTION("threads", INT, &o.threads, "N", "threads (default: every logical CPU)", .min = 1,
                  .max = 256),
        MP_OPTION("dump", TEXT, &o.dump, "DIR", "write outputs and pictures there"),
        MP_OPTION("junit", TEXT, &o.junit, "FILE", "write a JUnit XML file, too"),
        MP_OPTION("summary", TEXT, &o.summary, "FILE",
                  "write a Markdown summary, too, as for the comment of a merge request"),
        MP_OPTION("trace", TEXT, &o.trace, "FILE",
                  "write a trace, too: stages, modules and ops in time, for ui.perfetto.dev"),
        MP_OPTION("callgrind", FLAG, &o.callgrind, NULL,
                  "count each cell's instructions exactly, in a second run under valgrind"),
        MP_OPTION("shard", TEXT, &shard, "I/N",
                  "run the I-th of N parts of the cells, on N machines; see `mpbench merge`"),
        MP_OPTION("resume", FLAG, &o.resume, NULL, "go on with the newest run of these cells"),
        MP_OPTION("dry-run", FLAG, &o.dry_run, NULL,
                  "check everything, say what each cell will do, stop"),
        MP_OPTION("format", TEXT, &o.format, "text|json", "of the result on stdout",
                  .among = formats),
        MP_OPTION("engine", TEXT, &o.engine, "E",
                  "native (default), diffusers, diffsynth, sdnext, or a worker's file"),
        MP_OPTION("device", TEXT, &o.device, "cpu|cuda", "where (default: cpu)", .among = devices),
        MP_OPTION("python", TEXT, &o.python, "PATH",
                  "interpreter of a worker (default: MPBENCH_PYTHON, or python3)"),
        MP_OPTION("pythonpath", TEXT, &o.pythonpath, "DIR",
                  "where its library lies: a checkout, or the DIR of pip install --target DIR"),
        MP_OPTION("keep-worker", FLAG, &o.keep_worker, NULL,
                  "one worker for all cells: its library is imported once"),
        MP_OPTION("reference", TEXT, &o.reference, "own|native",
                  "whose runs the cells are measured against (default: the engine's own)",
                  .among = references),
    };
    const mp_usage usage = {
        .command = "run",
        .operands = "FILE|DIR...",
        .summary = "Runs the cells of scenario files, each in a process of its own, and records "
                   "errors,\ndrift against a reference, memory and speed in the database.",
        .options = options,
        .option_count = sizeof options / sizeof *options,
        .min_operands = 1,
        .max_operands = -1};
    mp_error err = {0};
    int status;

    const bool parsed = mp_options_parse(a, &usage, argc, argv, &o.plan.paths, &status);
    if (parsed && shard && mp_shard_parse(shard, &o.plan.shard, &err)) {
        status = mp_complain("run", &err);
    } else if (parsed) {
        o.command = quote_command(a, argc, argv);
        o.plan.engine_flags = engine_flags(a, &o);
        status = mp_run_all(a, &o);
    }
    mp_arena_free(a);
    return status;
}
