/* What is asked of an engine for one cell, and what became of it. */
#ifndef MP_HARNESS_EXECUTION_H
#define MP_HARNESS_EXECUTION_H

#include "harness/process.h"
#include "harness/record.h"
#include "harness/scenario.h"
#include "harness/trace.h"

typedef struct mp_job {
    const mp_pipeline_def *pipeline;
    mp_request request;
    mp_e4m3_overflow e4m3;
    int repeat, warmup;
    double timeout;      /* seconds; 0: none */
    size_t memory;       /* bytes; 0: no limit */
    const char *outputs; /* an empty folder: the tensors, each a safetensors file */
    int64_t cell;    /* in the database: its ops are looked at, too; 0: a reference, a rehearsal */
    mp_trace *trace; /* NULL: none */
} mp_job;

/* Where a process is, also for one that ends without a word. */
typedef struct mp_progress {
    char module[MP_ERROR_MODULE];
    char op[MP_ERROR_OP];
    char stage[24];
    int step; /* -1: not in a step */
} mp_progress;

typedef struct mp_execution {
    mp_record record; /* mp_record_free */
    mp_process_end end;
    mp_progress last; /* where the process was when it ended */
} mp_execution;

#endif
