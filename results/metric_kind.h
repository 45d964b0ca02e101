/* What a metric is: which way is better, and how small a change matters to nobody. */
#ifndef MP_RESULTS_METRIC_KIND_H
#define MP_RESULTS_METRIC_KIND_H

#include <stdbool.h>

typedef enum mp_metric_class {
    MP_METRIC_EXACT,   /* drift, pictures, counts: of a deterministic engine the same bits each time
                        */
    MP_METRIC_TIME,    /* seconds */
    MP_METRIC_BYTES,   /* of memory, as the machine gave it */
    MP_METRIC_COUNT,   /* the CPU's counters */
    MP_METRIC_CONTEXT, /* shown, never judged: the machine's roofline, a reference's noise floor */
} mp_metric_class;

typedef struct mp_metric_kind {
    mp_metric_class class;
    bool higher_is_better;
    double effect; /* a smaller relative change matters to nobody */
    double floor;  /* nor does a smaller absolute one, in the metric's unit */
} mp_metric_kind;

/* By name and unit, as recorded.  engine: with an interpreter and its allocator, memory moves more
 * from run to run. */
mp_metric_kind mp_metric_kind_of(const char *name, const char *unit, const char *engine);

#endif
