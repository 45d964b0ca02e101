/* The results database: SQLite, WAL, STRICT tables, one transaction a cell.  All SQL of the project
 * lives in this folder.  Nothing recorded is ever overwritten: rows are added, a cell goes once
 * from 'running' to its final status.
 *
 *     mp_store *s;
 *     mp_store_open("mpbench.db", MP_STORE_WRITE, &s, &err);
 *     mp_store_begin_run(s, &run, &run_id, &err);
 *     mp_store_begin_cell(s, run_id, &cell, &cell_id, &err);   // on record before the work begins
 *     mp_store_finish_cell(s, cell_id, &result, &err);         // everything else, at once
 *     mp_store_end_run(s, run_id, exit_status, &err);
 *
 * Everything returns MP_EDB when the database fails: full disk, lost file, damage.
 */
#ifndef MP_RESULTS_STORE_H
#define MP_RESULTS_STORE_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/core/status.h"

typedef struct mp_store mp_store;

typedef enum mp_store_mode {
    MP_STORE_READ,   /* must exist */
    MP_STORE_UPDATE, /* must exist and hold something; migrated when needed */
    MP_STORE_WRITE,  /* made or migrated when needed */
    MP_STORE_RENEW,  /* as READ; of an older version, a temporary copy is migrated and read */
} mp_store_mode;

/* Refuses, with path and remedy: a file that is no database or another program's (application_id),
 * a schema newer than this program, a read-only file or folder for writing.  Two writers wait for
 * each other (busy timeout) and never mix. */
mp_code mp_store_open(const char *path, mp_store_mode mode, mp_store **out, mp_error *err);
void mp_store_close(mp_store *s); /* NULL is fine */
const char *mp_store_path(const mp_store *s);

typedef struct mp_pair {
    const char *key, *value;
} mp_pair;

typedef struct mp_run_info {
    const char *uuid;
    const char *label; /* NULL: none */
    const char *engine;
    const char *device;
    const char *command;     /* the command line, quoted for a shell */
    const char *plan;        /* SHA-256 over the cells of the plan */
    const char *fingerprint; /* hash of the stable part of the environment */
    const mp_pair
        *environment; /* git commit, CPU, ISA, memory, library versions, build flags ... */
    int environment_count;
} mp_run_info;

/* A limit of the scenario's budgets. */
typedef struct mp_limit_row {
    const char *metric; /* "seconds" */
    const char *kind;   /* absolute | relative */
    double value;       /* relative: how much worse than the baseline's, 0.05 is 5 % */
} mp_limit_row;

typedef struct mp_cell_info {
    const char *key;           /* stable id: "sana-tiled/precision.default=bf16,tiling=32x32" */
    const char *scenario;      /* name */
    const char *scenario_hash; /* SHA-256 of the scenario as this cell resolves it */
    const char *pipeline, *checkpoint, *checkpoint_hash;
    const char *repro;       /* command line that runs this cell alone */
    const mp_pair *settings; /* every resolved setting, dotted: precision.default, tiling,
                                inputs.seed, matrix values too; what compare selects and pairs by */
    int setting_count;
    const mp_limit_row *limits;
    int limit_count;
} mp_cell_info;

typedef struct mp_metric_row {
    const char *name;   /* "rel_l2", "psnr_db", "peak_rss" ... */
    const char *stage;  /* "prompt_embeds", "latents", "image", "run"; never NULL */
    int step;           /* -1: not of a step */
    const char *module; /* "" : not of a module */
    double value; /* non-finite values are kept: stored as text 'inf', '-inf', 'nan' beside NULL */
    const char *unit;
} mp_metric_row;

typedef struct mp_sample_row {
    int repeat;        /* -1, -2, ...: warm-up */
    const char *stage; /* "load", "text_encode", "denoise", "decode", "total" */
    double seconds;
} mp_sample_row;

typedef struct mp_output_row {
    const char *name; /* "image" */
    const char *dtype;
    const char *shape;
    const char *sha256;
} mp_output_row;

/* What a policy did of one kind in one place, in one generation; kernels/core/policy.h. */
typedef struct mp_action_row {
    const char *stage; /* "text_encode" */
    const char *module, *op;
    const char *kind;      /* cast_in | cast_out | redo_refused | redo_nonfinite */
    const char *from, *to; /* dtypes */
    int64_t count, elements;
    double seconds;
} mp_action_row;

/* All calls of an op of one dtype in one place, in one generation, the last; kernels/core/ctx.h,
 * mp_op_event.  op, module and dtype "": what else there is in the stage, each less than 0.5 % of
 * the generation. */
typedef struct mp_op_row {
    const char *stage;
    const char *module; /* "transformer.blocks.*.attn1.to_q": numbers of blocks are left out */
    const char *op, *dtype;
    int64_t calls;
    double seconds;
    int64_t bytes, flops;
} mp_op_row;

/* A small picture for people.  Equal ones are stored once. */
typedef struct mp_picture_row {
    const char *role; /* "output", "reference" */
    int64_t width, height;
    const void *png;
    size_t size;
} mp_picture_row;

typedef struct mp_cell_result {
    const char *status;  /* ok | error | crash | timeout | oom | nonfinite | interrupted */
    const char *outcome; /* typed: dtype_mismatch, nan_first, overflow, constant, oom, unsupported,
                            crash, timeout, io, format, shape, engine, exception ...; NULL when
                            status is ok */
    bool as_expected;
    const char *expected;                 /* "error: expected scalar type ..." or NULL: success */
    const char *error;                    /* exact text, NULL: none */
    const char *module, *op, *want, *got; /* of the failure; NULL: unknown */
    const char *exception, *frame;        /* of a library: its class, and where inside; NULL */
    const char *stage;                    /* where it failed */
    int step;                             /* -1: not in a step */
    const char *budget;                   /* text of the broken budgets, NULL: none */
    const char *reference; /* key of the reference it was measured against, NULL: none */
    const char *warnings;  /* joined by newlines, NULL: none */
    int signal;            /* of a crash, else 0 */
    const mp_metric_row *metrics;
    int64_t metric_count;
    const mp_sample_row *samples;
    int64_t sample_count;
    const mp_output_row *outputs;
    int64_t output_count;
    const mp_action_row *actions;
    int64_t action_count;
    const mp_op_row *ops;
    int64_t op_count;
    const mp_picture_row *pictures;
    int64_t picture_count;
} mp_cell_result;

mp_code mp_store_begin_run(mp_store *s, const mp_run_info *run, int64_t *out, mp_error *err);
/* The first end of a run stays. */
mp_code mp_store_end_run(mp_store *s, int64_t run, int exit_status, mp_error *err);
mp_code mp_store_begin_cell(mp_store *s, int64_t run, const mp_cell_info *cell, int64_t *out,
                            mp_error *err);
mp_code mp_store_finish_cell(mp_store *s, int64_t cell, const mp_cell_result *result,
                             mp_error *err);

/* --resume: the newest run of the same plan, label, engine, device and fingerprint; *out 0: none.
 * Without a label, one that `run --rounds` made of its UUID is meant, too.  Its cells that were
 * running when it died are marked 'interrupted'. */
mp_code mp_store_resume_run(mp_store *s, const mp_run_info *run, int64_t *out, char uuid[37],
                            mp_error *err);

/* What is on record of a cell of a run: its newest row that is neither running nor interrupted. */
typedef struct mp_cell_record {
    int64_t id; /* 0: none */
    bool as_expected, budget_broken;
    char status[16], outcome[24], stage[64]; /* "": none */
} mp_cell_record;
mp_code mp_store_cell_record(mp_store *s, int64_t run, const char *key, mp_cell_record *out,
                             mp_error *err);

/* References: what is known of an fp32 run, by content key; its tensors are a file in the cache. */
typedef struct mp_reference_row {
    const char *key;
    const char *file_sha256;
    bool finite, constant;
    double floor_latents, floor_image; /* rel L2 under one ulp of initial noise; NaN: not known */
} mp_reference_row;
mp_code mp_store_put_reference(mp_store *s, const mp_reference_row *row, mp_error *err);
/* *found false: none.  out->key is key; out->file_sha256 points to the caller's file_sha256. */
mp_code mp_store_get_reference(mp_store *s, const char *key, mp_reference_row *out,
                               char file_sha256[65], bool *found, mp_error *err);

#endif
