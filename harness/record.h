/* What is known of one process of a cell: the events it sent, one JSON object a line.
 *
 *   {"event":"tensor","name":"latents_000","dtype":"bf16","shape":[1,4,8,8],"sha256":"..",
 *    "repeat":0,"file":"latents_000.safetensors"}
 *   {"event":"done"}
 *
 * engines/PROTOCOL.md has them all; the native engine's processes speak the same language. */
#ifndef MP_HARNESS_RECORD_H
#define MP_HARNESS_RECORD_H

#include "harness/arena.h"
#include "harness/engines/counters.h"
#include "kernels/core/policy.h"
#include "kernels/core/status.h"
#include "kernels/core/tensor.h"
#include "kernels/roofline.h"
#include "results/store.h"

typedef struct mp_captured {
    const char *name; /* "latents_000" */
    mp_dtype dtype;   /* in which the pipeline held it; the values here are fp32 */
    int rank;
    int64_t dim[MP_MAX_RANK];
    const char *file; /* in the folder of outputs; "": it was not kept */
    const char *sha256;
} mp_captured;

typedef struct mp_stage_memory {
    const char *stage;
    int64_t activations; /* most bytes in use at once, over the repeats */
} mp_stage_memory;

typedef struct mp_counts {
    double value[MP_COUNTERS]; /* by mp_counter_names; NaN: not counted */
} mp_counts;

/* A part of the memory in a stage; the most over the repeats. */
typedef struct mp_bytes {
    const char *of;             /* "scratch": a name of the table in record.c */
    const char *stage, *module; /* module "": of the whole */
    int64_t bytes;
} mp_bytes;

typedef struct mp_record {
    mp_arena *arena;
    mp_sample_row *samples;
    int sample_count, sample_room;
    mp_captured *tensors; /* of the first generation */
    int tensor_count, tensor_room;
    mp_action_row *actions; /* of the policy, in the first generation */
    int action_count, action_room;
    mp_counts *counts; /* of each timed generation; those of the CPU's counters */
    int counts_count, counts_room;
    mp_op_row *ops; /* of the last generation */
    int op_count, op_room;
    mp_roofline roofline; /* of the machine; flops 0: not told */
    mp_stage_memory stages[8];
    int stage_count;
    mp_bytes *bytes;
    int bytes_count, bytes_room;
    mp_text warnings;
    bool more_warnings; /* than are kept */
    int64_t weights_mapped, weights_converted;
    int64_t peak_rss,
        idle_rss; /* of a process that serves several cells: of this one; 0: not told */
    int64_t cuda_allocated, cuda_reserved;
    int differing; /* outputs of later repeats whose bits differ from the first one's */
    bool done;
    bool nonfinite;
    int64_t nan, inf;
    mp_error error;                /* code MP_OK: none; also where the first non-finite value was */
    const char *exception, *frame; /* of error: its class, and where inside a library; "" */
    const char *stage;             /* of error or nonfinite */
    int step;
    int malformed;                 /* lines that were no event */
    const char *bad_line;          /* the first of them, for a message; NULL */
    char begun[24];                /* the stage that runs; "" */
    int64_t id;                    /* of the request that done or error answers; -1: not told */
    int steps_done, steps, repeat; /* how far it is */
} mp_record;

void mp_record_init(mp_record *r, mp_arena *a);
/* One line without its newline.  What is no event is counted and otherwise left alone. */
void mp_record_line(mp_record *r, const char *line, size_t n);
/* The beginning of a line for a message: ASCII, whatever the line was. */
const char *mp_record_excerpt(mp_arena *a, const char *line, size_t n);
const mp_captured *mp_record_tensor(const mp_record *r, const char *name);
void mp_record_free(mp_record *r); /* not the arena */

#endif
