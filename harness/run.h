/* `mpbench run` from the inside: the state that its parts share, and what they hand on. */
#ifndef MP_HARNESS_RUN_H
#define MP_HARNESS_RUN_H

#include "harness/callgrind.h"
#include "harness/environment.h"
#include "harness/folders.h"
#include "harness/judge.h"
#include "harness/plan.h"
#include "harness/rehearsal.h"

typedef struct mp_run_options {
    mp_plan_options plan;
    const char *db, *label, *dump, *junit, *summary, *trace, *format;
    const char *command; /* the command line, quoted for a shell */
    const char *engine, *device, *python, *pythonpath;
    const char *reference; /* "own" or "native" */
    const char *against;   /* a baseline or run to be compared with, NULL: none */
    int rounds;            /* times that the whole plan runs, each a run of its own */
    int threads;
    bool resume, dry_run, keep_worker, callgrind;
} mp_run_options;

/* One cell, when it is over. */
typedef struct mp_cell_report {
    const mp_cell *cell;
    int64_t run;
    int round;     /* from 1 */
    int64_t id;    /* in the database; 0: it never began */
    bool recorded; /* by an earlier run: resumed */
    mp_cell_result result;
    mp_metrics metrics;
    mp_picture_row pictures[2]; /* until they are stored */
    double seconds;             /* of the process */
} mp_cell_report;

typedef struct mp_reference_memo mp_reference_memo;

typedef struct mp_run {
    mp_arena *arena;
    const mp_run_options *options;
    mp_plan plan;
    mp_environment environment;
    FILE *git;                   /* asked, and heard when the run begins */
    mp_engine *engine, *referee; /* the second one makes the references; often the same */
    mp_store *store;
    mp_trace *trace; /* NULL: none */
    mp_callgrind callgrind;
    const char *cache; /* folder of references */
    mp_scratch scratch;
    int64_t id;               /* of the round that is on */
    char uuid[37], first[37]; /* its UUID, and that of the first round, which all have on record */
    const char *label;        /* NULL: none */
    int64_t against;          /* run that --against means; 0: none */
    const char *versus;       /* the same for mp_compare */
    const char *comparison;   /* text or JSON; NULL: none */
    const char *compared;     /* its counts, for the verdict */
    mp_reference_memo *references; /* those that this run has looked at */
    mp_cell_report *reports;
    int report_count;
    int exit_status, round_status; /* of all rounds, and of the one that is on */
    const char *trouble;           /* what stopped the run, or NULL */
} mp_run;

/* The whole run; the exit status.  Messages go to stderr, the result to stdout. */
int mp_run_all(mp_arena *a, const mp_run_options *o);

/* harness/reference.c: the outputs of the cell's reference, made when they are not in the cache.
 * `untiled`: of the same without tiling.  *out NULL with *trouble set: there is none, and why. */
mp_code mp_run_reference(mp_run *r, const mp_cell *cell, bool untiled, mp_outputs **out,
                         mp_reference_row *row, const char **trouble, mp_error *err);
/* Asks the engine for one cell and gathers its outputs; they may be fewer than told.  NULL where it
 * could not even begin.
 * cell: its id in the database, 0 for a reference. */
mp_code mp_run_engine(mp_run *r, mp_engine *engine, const mp_scenario *s, int64_t cell,
                      mp_execution *e, mp_outputs **out, mp_error *err);

/* harness/against.c.  Before anything runs: what --against means; MP_EMISSING where it means
 * nothing or shares no cell with the plan. */
mp_code mp_run_against(mp_run *r, const char *db, mp_error *err);
/* After it: the comparison, and its exit status among the run's. */
void mp_run_compare(mp_run *r);

/* harness/report.c */
void mp_report_text(const mp_run *r);
void mp_report_json(const mp_run *r);
void mp_report_verdict(const mp_run *r);
/* The cell that begins, with its repro line: even a crash of the machine names its case. */
void mp_report_begin(const mp_cell *cell, int number, int count);
/* One line about a cell that is over. */
void mp_report_progress(const mp_cell_report *c);

/* harness/report_plan.c.  foresight: one for each cell; NULL: nothing was rehearsed. */
void mp_report_plan(const mp_plan *p, const mp_foresight *foresight, bool json);

/* harness/dump.c: DIR/<scenario>/<cell>/outputs.safetensors and image*.png */
mp_code mp_dump_cell(const char *dir, const mp_cell *cell, const mp_outputs *x, mp_error *err);

#endif
