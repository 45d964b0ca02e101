/* Reading the database for people: `mpbench list` and `mpbench show`.  Text from the database is
 * escaped for the terminal here; JSON by jansson. */
#ifndef MP_RESULTS_QUERY_H
#define MP_RESULTS_QUERY_H

#include <stdio.h>

#include "results/store.h"
#include "results/table.h"

struct sqlite3_stmt;

/* Runs, newest first, with their counts by status; and the cells of each.  Of a cell that a run
 * holds more than once, after --resume, the newest.  limit: that many runs, 0 for all; *more is how
 * many are left out. */
mp_code mp_query_list(mp_store *s, int64_t limit, mp_format format, FILE *to, int64_t *more,
                      mp_error *err);
/* One cell in full: settings, status, error, times, metrics, outputs, environment, repro line.
 * id is a cell id; MP_EMISSING when there is none.  CSV is one table of part, row, column and
 * value. */
mp_code mp_query_show(mp_store *s, int64_t id, mp_format format, FILE *to, mp_error *err);

/* The cell's most expensive ops, with their share of its last generation and of what the machine
 * can do (kernels/roofline.h).  MP_EMISSING when there is no such cell, or no profile of it. */
mp_code mp_query_ops(mp_store *s, int64_t id, mp_format format, FILE *to, mp_error *err);

/* A JSON string.  Bytes that are no UTF-8 become \xNN, since JSON cannot hold them. */
struct json_t *mp_json_text(const char *text);
/* A number; what is not finite, for which JSON has no word, as "inf", "-inf" or "nan". */
struct json_t *mp_json_number(double value);
/* The same, and null for NaN where that means that there is none. */
struct json_t *mp_json_number_or_null(double value);
/* A column of a statement. */
struct json_t *mp_json_value(struct sqlite3_stmt *q, int column);
/* The row of a statement as an object under its columns' names. */
struct json_t *mp_json_row(struct sqlite3_stmt *q);
/* Prints and releases; NULL is MP_ENOMEM. */
mp_code mp_json_print(struct json_t *all, FILE *to, mp_error *err);

#endif
