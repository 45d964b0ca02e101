/* `mpbench show ID --ops`: where the time of one generation went. */
#include <inttypes.h>
#include <jansson.h>

#include "results/db.h"
#include "results/query.h"

/* What the machine could do at most, as it was measured beside the cell; NULL: it was not. */
#define ROOF                                                                                \
    "roof AS (SELECT max(value) FILTER (WHERE name = 'roofline_fp32') AS fp32, max(value) " \
    "FILTER (WHERE name = 'roofline_bf16') AS bf16, max(value) FILTER (WHERE name = "       \
    "'roofline_copy') AS copy FROM metric WHERE cell = ?1 AND stage = 'machine')"

/* The generation that the profile is of: the last. */
#define WHOLE                                                                                   \
    "whole AS (SELECT seconds FROM sample WHERE cell = ?1 AND stage = 'total' AND repeat >= 0 " \
    "ORDER BY repeat DESC LIMIT 1)"

/* roofline: the time that the slower of arithmetic and memory needs at least, over the time taken.
 * Products of bf16 are measured by the peak of pairs, where there is one. */
static const char rows_sql[] =
    "WITH " ROOF ", " WHOLE
    ", ops AS (SELECT stage, module, op, dtype, calls, seconds, bytes, flops, 1e-9 * flops / CASE "
    "WHEN dtype = 'bf16' AND bf16 > 0 THEN bf16 ELSE fp32 END AS arithmetic, 1e-9 * bytes / copy "
    "AS traffic FROM op_profile, roof WHERE cell = ?1) "
    "SELECT stage, module, iif(op = '', '(other ops)', op) AS op, dtype, calls, ops.seconds, "
    "ops.seconds / whole.seconds AS share, nullif(1e-9 * flops / ops.seconds, 0) AS gflops, 1e-9 * "
    "bytes / ops.seconds AS gbs, iif(op = '', NULL, max(arithmetic, traffic) / ops.seconds) AS "
    "roofline FROM ops, whole "
    "UNION ALL SELECT '', '', '(between ops)', '', NULL, whole.seconds - sum(ops.seconds) AS "
    "rest, 1 - sum(ops.seconds) / whole.seconds, NULL, NULL, NULL FROM ops, whole HAVING rest > 0 "
    "ORDER BY 6 DESC";

static const char head_sql[] =
    "WITH " ROOF ", " WHOLE
    " SELECT cell.id, cell.key, whole.seconds, (SELECT value FROM run_environment e WHERE e.run = "
    "cell.run AND e.key = 'threads') AS threads, fp32, nullif(bf16, 0) AS bf16, copy, cell.repro, "
    "(SELECT count(*) FROM op_profile WHERE cell = ?1) AS rows FROM cell JOIN roof LEFT JOIN whole "
    "WHERE cell.id = ?1";

enum { ID, KEY, WHOLE_SECONDS, THREADS, FP32, BF16, COPY, REPRO, ROWS };
enum { STAGE, MODULE, OP, DTYPE, CALLS, SECONDS, SHARE, GFLOPS, GBS, ROOFLINE };

static json_t *row_json(sqlite3_stmt *q)
{
    return json_pack("{so so so so si so so so so so}", "stage", mp_json_text(mp_db_text(q, STAGE)),
                     "module", mp_json_text(mp_db_text(q, MODULE)), "op",
                     mp_json_text(mp_db_text(q, OP)), "dtype", mp_json_text(mp_db_text(q, DTYPE)),
                     "calls", sqlite3_column_int(q, CALLS), "seconds", mp_json_value(q, SECONDS),
                     "share", mp_json_value(q, SHARE), "gflops", mp_json_value(q, GFLOPS), "gbs",
                     mp_json_value(q, GBS), "roofline", mp_json_value(q, ROOFLINE));
}

static mp_code ops_json(mp_store *s, sqlite3_stmt *head, sqlite3_stmt *rows, FILE *to,
                        mp_error *err)
{
    json_t *list = json_array();
    bool row = true;

    while (!mp_db_step(s, rows, &row, err) && row)
        json_array_append_new(list, row_json(rows));
    if (err->code) {
        json_decref(list);
        return err->code;
    }
    return mp_json_print(
        json_pack("{si ss sI so so so so so so so}", "version", 1, "kind", "mpbench show --ops",
                  "id", (json_int_t)sqlite3_column_int64(head, ID), "key",
                  mp_json_text(mp_db_text(head, KEY)), "seconds",
                  mp_json_value(head, WHOLE_SECONDS), "threads",
                  mp_json_text(mp_db_text(head, THREADS)), "roofline_fp32",
                  mp_json_value(head, FP32), "roofline_bf16", mp_json_value(head, BF16),
                  "roofline_copy", mp_json_value(head, COPY), "ops", list),
        to, err);
}

/* For people a number times `scale`, whole for CSV; nothing for NULL. */
static void add_number(mp_table *t, sqlite3_stmt *q, int column, mp_format format,
                       const char *number, double scale)
{
    if (sqlite3_column_type(q, column) == SQLITE_NULL)
        mp_table_add(t, "%s", format == MP_CSV ? "" : "-");
    else if (format == MP_CSV)
        mp_table_add(t, "%.17g", sqlite3_column_double(q, column));
    else
        mp_table_add(t, number, scale * sqlite3_column_double(q, column));
}

static void add_row(mp_table *t, sqlite3_stmt *q, mp_format format)
{
    for (int i = STAGE; i <= CALLS; i++)
        mp_table_add(t, "%s", mp_db_text(q, i));
    add_number(t, q, SECONDS, format, "%.3g", 1);
    add_number(t, q, SHARE, format, "%.1f", 100);
    add_number(t, q, GFLOPS, format, "%.3g", 1);
    add_number(t, q, GBS, format, "%.3g", 1);
    add_number(t, q, ROOFLINE, format, "%.1f", 100);
}

static void print_head(sqlite3_stmt *q, FILE *to)
{
    const char *threads = mp_db_text(q, THREADS);

    fprintf(to, "cell %s  ", mp_db_text(q, ID));
    mp_print_plain(to, mp_db_text(q, KEY), -1);
    fprintf(to, "\nlast generation: %.3g s", sqlite3_column_double(q, WHOLE_SECONDS));
    if (*threads) {
        fputs(" on threads: ", to);
        mp_print_plain(to, threads, -1);
    }
    if (sqlite3_column_type(q, FP32) != SQLITE_NULL)
        fprintf(to, "; roofline: %.0f GFLOP/s in fp32", sqlite3_column_double(q, FP32));
    if (sqlite3_column_type(q, BF16) != SQLITE_NULL)
        fprintf(to, ", %.0f in bf16", sqlite3_column_double(q, BF16));
    if (sqlite3_column_type(q, COPY) != SQLITE_NULL)
        fprintf(to, ", copies %.1f GB/s", sqlite3_column_double(q, COPY));
    fputs("\n\n", to);
}

static mp_code ops_table(mp_store *s, sqlite3_stmt *head, sqlite3_stmt *rows, mp_format format,
                         FILE *to, mp_error *err)
{
    static const char *const heads[] = {"stage",    "module",  "op",       "dtype", "calls>",
                                        "seconds>", "time %>", "GFLOP/s>", "GB/s>", "roofline %>"};
    static const char *const names[] = {"stage",   "module", "op",     "dtype", "calls",
                                        "seconds", "share",  "gflops", "gbs",   "roofline"};
    mp_table *t = mp_table_create(sizeof heads / sizeof *heads, format == MP_CSV ? names : heads);
    bool row = true;

    while (!mp_db_step(s, rows, &row, err) && row)
        add_row(t, rows, format);
    if (!err->code) {
        if (format != MP_CSV)
            print_head(head, to);
        mp_table_print(t, format, 0, to);
    }
    mp_table_free(t);
    return err->code;
}

static mp_code no_profile(const mp_store *s, sqlite3_stmt *head, mp_error *err)
{
    return mp_error_set(err, MP_EMISSING,
                        "%s: cell %s has no profile of ops: only the native engine makes one, of "
                        "a cell whose last generation was finished, since schema version %d; to "
                        "run it again: %s",
                        mp_store_path(s), mp_db_text(head, ID), (int)MP_DB_SINCE_PROFILES,
                        mp_db_text(head, REPRO));
}

static mp_code show_ops(mp_store *s, int64_t id, mp_format format, FILE *to, mp_error *err)
{
    sqlite3_stmt *head = NULL, *rows = NULL;
    bool row = false;

    if (mp_db_prepare(s, head_sql, &head, err) || mp_db_bind(s, head, err, "i", id) ||
        mp_db_step(s, head, &row, err) || mp_db_prepare(s, rows_sql, &rows, err) ||
        mp_db_bind(s, rows, err, "i", id))
        ;
    else if (!row)
        mp_error_set(err, MP_EMISSING,
                     "%s: there is no cell %" PRId64 "; `mpbench list` shows the ids",
                     mp_store_path(s), id);
    else if (!sqlite3_column_int(head, ROWS))
        no_profile(s, head, err);
    else if (format == MP_JSON)
        ops_json(s, head, rows, to, err);
    else
        ops_table(s, head, rows, format, to, err);
    sqlite3_finalize(head);
    sqlite3_finalize(rows);
    return err->code;
}

mp_code mp_query_ops(mp_store *s, int64_t id, mp_format format, FILE *to, mp_error *err)
{
    if (s->version < MP_DB_SINCE_PROFILES)
        return mp_error_set(err, MP_EMISSING,
                            "%s: has schema version %" PRId64 ", and profiles of ops came with "
                            "version %d; run the cell again",
                            mp_store_path(s), s->version, (int)MP_DB_SINCE_PROFILES);
    if (mp_db_begin_reading(s, err))
        return err->code;
    show_ops(s, id, format, to, err);
    mp_db_end_reading(s);
    return err->code;
}
