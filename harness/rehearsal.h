/* What a cell of the native engine will do, found without its arithmetic: a process opens it on the
 * device "meta" and generates once.  So dtypes, shapes, errors, casts and memory are those of the
 * run; what only values show is not found: that some are not finite, and what fallback does then.
 */
#ifndef MP_HARNESS_REHEARSAL_H
#define MP_HARNESS_REHEARSAL_H

#include "harness/plan.h"
#include "harness/record.h"

typedef struct mp_rehearsal {
    mp_policy policy;
    mp_cell_result result; /* status, its reason and place, warnings and actions; crash and timeout
                              are the rehearsal's own, and foretell nothing */
    mp_record record;      /* of its process: stages and weights */
} mp_rehearsal;

/* Of one cell: as it is, with expected and as_expected; and where its policy is another than
 * strict, under strict, too. */
typedef struct mp_foresight {
    mp_rehearsal own;
    mp_rehearsal *strict; /* NULL: own is */
} mp_foresight;

/* One for each cell of the plan, in the arena.  Fails only when no process can be started. */
mp_code mp_rehearse(mp_arena *a, const mp_plan *plan, mp_foresight **out, mp_error *err);

#endif
