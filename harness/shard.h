/* `run --shard I/N`: a plan's cells dealt to N machines. */
#ifndef MP_HARNESS_SHARD_H
#define MP_HARNESS_SHARD_H

#include "harness/arena.h"
#include "kernels/core/status.h"

struct mp_plan;

typedef struct mp_shard {
    int index; /* from 1 */
    int count; /* 0: the plan is not dealt out */
} mp_shard;

/* "2/4"; MP_EUSAGE: it is none. */
mp_code mp_shard_parse(const char *text, mp_shard *out, mp_error *err);

/* Keeps the cells of this shard, in their order.  Each cell is in one of the N shards, whose sizes
 * differ by one at most.  Which one depends on the cells' keys alone, not on the order of files,
 * and without a pattern: cells of one dtype or one scenario are spread. */
void mp_shard_take(mp_arena *a, const mp_shard *s, struct mp_plan *p);

#endif
