/* What generates.  An engine is opened once a run and asked for one cell after the other; whatever
 * happens to a cell is in its execution, and the caller survives it.
 *
 * Two kinds: `native`, this program's own pipelines, each cell in a forked process; and workers,
 * programs that speak PROTOCOL.md and drive a real library.  A worker that comes with mpbench is a
 * Python file here and a line in workers.def; one that does not is named by its path. */
#ifndef MP_HARNESS_ENGINES_ENGINE_H
#define MP_HARNESS_ENGINES_ENGINE_H

#include "harness/environment.h"
#include "harness/execution.h"

typedef struct mp_engine_options {
    const char *name;                /* "native", "diffusers", ..., or the path of a worker */
    const char *device;              /* "cpu" or "cuda" */
    const char *python, *pythonpath; /* of workers; NULL: MPBENCH_PYTHON or python3; none */
    const char *cache;               /* folder of what outlives the run */
    const char *scratch;             /* folder of this run alone */
    const mp_environment *machine;
    int threads; /* 0: one for each logical CPU */
    bool keep_worker;
} mp_engine_options;

typedef struct mp_engine mp_engine;

typedef struct mp_engine_def {
    /* What can be said against a cell before anything runs. */
    mp_code (*check)(const mp_scenario *s, mp_error *err);
    mp_code (*open)(mp_arena *a, const mp_engine_options *o, mp_engine **out, mp_error *err);
    /* Fails only when nothing can be started.  With `show` the steps go to a terminal. */
    mp_code (*run)(mp_engine *e, mp_arena *a, const mp_job *job, bool show, mp_execution *out,
                   mp_error *err);
    void (*close)(mp_engine *e);
} mp_engine_def;

/* Lives in the arena that it was opened with. */
struct mp_engine {
    const mp_engine_def *def;
    const char *name;
    const char *version;  /* of the library, "0.42.1"; native: of this program */
    const char *identity; /* all that its bits depend on but the job: references are kept by it */
    const mp_pair *environment;
    int environment_count;
    mp_error trouble; /* why no cell can run: each records it.  MP_OK: none */
};

extern const mp_engine_def mp_native_engine, mp_worker_engine;

/* NULL: neither an engine of this program nor the path of a file; err names them. */
const mp_engine_def *mp_engine_find(const char *name, mp_error *err);

/* The step counter of a cell that runs, on a terminal. */
void mp_engine_show(const mp_record *r);

#endif
