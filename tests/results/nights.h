/* A database of a few nights for the tests: one run a night, written through the store. */
#ifndef MP_TESTS_RESULTS_NIGHTS_H
#define MP_TESTS_RESULTS_NIGHTS_H

#include <math.h>

#include "results/store.h"
#include "tests/results/scratch.h"

typedef struct night {
    const char *engine, *fingerprint; /* NULL: native, machine */
    const char *commit, *program;     /* NULL: made of the night's number */
    const char *started;              /* NULL: the night's number as days from 2026-01-01 */
} night;

typedef struct night_cell {
    const char *key;               /* NULL: "sana/dtype=bf16" */
    const char *scenario, *inputs; /* NULL: "sana", "inputs" */
    const char *status, *outcome;  /* NULL: ok */
    bool unexpected;
    const char *image;               /* hash; NULL: "same" */
    double seconds, drift, peak_mib; /* 0: no such metric; NaN and inf are kept */
    const mp_metric_row *more;
    int more_count;
} night_cell;

static int night_count;

static SCRATCH_UNUSED mp_store *nights_open(const char *name)
{
    mp_store *s = NULL;
    mp_error err = {0};

    night_count = 0;
    if (mp_store_open(scratch_file(name), MP_STORE_WRITE, &s, &err))
        fail_msg("%s", err.text);
    return s;
}

/* Begins the next night; the id of its run. */
static SCRATCH_UNUSED int64_t night_begin(mp_store *s, const night *n)
{
    char uuid[40], commit[48], program[48], started[200];
    const mp_pair environment[] = {{"git_commit", n->commit ? n->commit : commit},
                                   {"program", n->program ? n->program : program},
                                   {"diffusers.version", n->program ? n->program : program}};
    mp_error err = {0};
    int64_t run = 0;

    night_count++;
    snprintf(uuid, sizeof uuid, "00000000-0000-4000-8000-%012d", night_count);
    snprintf(commit, sizeof commit, "%040x", night_count);
    snprintf(program, sizeof program, "program %d", night_count);
    if (mp_store_begin_run(
            s,
            &(mp_run_info){.uuid = uuid,
                           .engine = n->engine ? n->engine : "native",
                           .device = "cpu",
                           .command = "mpbench run",
                           .plan = "plan",
                           .fingerprint = n->fingerprint ? n->fingerprint : "machine",
                           .environment = environment,
                           .environment_count = 3},
            &run, &err) ||
        mp_store_end_run(s, run, 0, &err))
        fail_msg("%s", err.text);
    if (n->started)
        snprintf(started, sizeof started,
                 "UPDATE run SET started = '%s', ended = NULL WHERE id = %d", n->started, (int)run);
    else
        snprintf(started, sizeof started,
                 "UPDATE run SET started = strftime('%%Y-%%m-%%dT%%H:%%M:%%fZ', '2026-01-01', '%d "
                 "days'), ended = NULL WHERE id = %d",
                 night_count - 1, (int)run);
    sql_run(mp_store_path(s), started);
    return run;
}

static SCRATCH_UNUSED int64_t night_add(mp_store *s, int64_t run, const night_cell *c)
{
    mp_metric_row metrics[40];
    const mp_output_row image = {"image", "bf16", "[1, 3, 8, 8]", c->image ? c->image : "same"};
    const char *key = c->key ? c->key : "sana/dtype=bf16";
    char repro[200];
    mp_error err = {0};
    int64_t id = 0;
    int n = 0;

    snprintf(repro, sizeof repro, "mpbench run %.100s", key);
    if (c->seconds)
        metrics[n++] = (mp_metric_row){"seconds", "run", -1, "", c->seconds, "s"};
    if (c->drift)
        metrics[n++] = (mp_metric_row){"latent_rel_l2", "run", -1, "", c->drift, "1"};
    if (c->peak_mib)
        metrics[n++] = (mp_metric_row){"peak_mib", "run", -1, "", c->peak_mib, "MiB"};
    for (int i = 0; i < c->more_count; i++)
        metrics[n++] = c->more[i];
    const mp_cell_result result = {.status = c->status ? c->status : "ok",
                                   .outcome = c->outcome,
                                   .as_expected = !c->unexpected,
                                   .step = -1,
                                   .metrics = metrics,
                                   .metric_count = n,
                                   .outputs = &image,
                                   .output_count = c->status ? 0 : 1};
    if (mp_store_begin_cell(s, run,
                            &(mp_cell_info){.key = key,
                                            .scenario = c->scenario ? c->scenario : "sana",
                                            .scenario_hash = c->inputs ? c->inputs : "inputs",
                                            .pipeline = "sana",
                                            .checkpoint = "tiny",
                                            .checkpoint_hash = "weights",
                                            .repro = repro},
                            &id, &err) ||
        mp_store_finish_cell(s, id, &result, &err))
        fail_msg("%s", err.text);
    return id;
}

/* A night of one cell. */
static SCRATCH_UNUSED int64_t night_of(mp_store *s, const night_cell *c)
{
    return night_add(s, night_begin(s, &(night){0}), c);
}

#endif
