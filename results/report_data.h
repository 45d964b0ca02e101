/* What the report page shows of a database.  Rows are JSON: an array of objects under the names of
 * the query's columns, numbers that are not finite as "inf", "-inf" or "nan", as `mpbench list` has
 * them; json_decref them. */
#ifndef MP_RESULTS_REPORT_DATA_H
#define MP_RESULTS_REPORT_DATA_H

#include "results/store.h"

struct json_t;

typedef struct mp_report_filter {
    /* run: id, UUID or label; NULL: the newest of each scenario, engine, device and machine. */
    const char *run, *scenario; /* scenario NULL: all */
} mp_report_filter;

/* The cells of the newest run of every scenario, engine, device and machine, by those, with their
 * summary metrics as the object "metrics".  Runs of the same label and revision as the newest one
 * are one with it: shards, and single cells run again.  An empty database gives no rows;
 * MP_EMISSING when the filter names what is not there, and the text says what there is. */
mp_code mp_report_cells(mp_store *s, const mp_report_filter *f, struct json_t **out, mp_error *err);

/* Where these cells ran: a row a key of the environment of the newest run of each machine, engine
 * and device, by key and by age of the run. */
mp_code mp_report_environment(mp_store *s, const struct json_t *cells, struct json_t **out,
                              mp_error *err);

/* Repro lines under the ids of their cells, as text; ids: an array of integers. */
mp_code mp_report_repros(mp_store *s, const struct json_t *ids, struct json_t **out, mp_error *err);

#endif
