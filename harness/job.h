/* What one process of a cell is asked to do, and the page that it shares with its parent. */
#ifndef MP_HARNESS_JOB_H
#define MP_HARNESS_JOB_H

#include "harness/scenario.h"

/* Where the process is, readable after it is gone. */
typedef struct mp_progress {
    char module[MP_ERROR_MODULE];
    char op[MP_ERROR_OP];
    char stage[24];
    int step;
} mp_progress;

typedef struct mp_job {
    const mp_pipeline_def *pipeline;
    mp_request request;
    mp_e4m3_overflow e4m3;
    int repeat, warmup, threads;
    const char *isa;       /* NULL: the best one */
    size_t memory;         /* limit of activations in bytes; 0: none */
    const char *tensors;   /* file for the outputs, written by the process */
    mp_progress *progress; /* shared memory */
} mp_job;

/* harness/engines/native.c: runs in the child and writes events to fd; the child's exit status. */
int mp_native_run(const mp_job *job, int fd);

#endif
