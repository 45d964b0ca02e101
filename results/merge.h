/* `mpbench merge`: what one database holds, added to another.
 *
 * A row is known by what it says of itself, never by its number in a file: a run by its UUID, a
 * cell by run, key and start, all else by the keys of schema.sql.  So merging twice adds nothing,
 * and the order of files does not matter.  What is there stays as it is, but for two that go on: a
 * run that ended later, and a cell that was running or interrupted and ended in the other file. */
#ifndef MP_RESULTS_MERGE_H
#define MP_RESULTS_MERGE_H

#include <stdio.h>

#include "results/store.h"

typedef struct mp_merge_count {
    int64_t added, updated, there; /* there: neither added nor updated */
} mp_merge_count;

typedef struct mp_merge_report {
    mp_merge_count runs, cells, rest; /* rest: rows of all other tables */
    int64_t kept; /* rows that are in both, say different things, and stay as they were */
} mp_merge_report;

/* All of `in` or, after a failure, nothing.  in: opened with MP_STORE_RENEW.  notes: a line for
 * each of the first rows that are kept, and for what is left out. */
mp_code mp_merge(mp_store *out, mp_store *in, FILE *notes, mp_merge_report *report, mp_error *err);

#endif
