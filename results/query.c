#include "results/query.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "results/db.h"
#include "results/memory.h"

/* ---- JSON ----------------------------------------------------------------------------------- */

json_t *mp_json_text(const char *text)
{
    json_t *string = json_string(text);

    if (string)
        return string;
    char *plain = mp_plain_text(text);
    string = plain ? json_string(plain) : NULL;
    mp_free(plain);
    return string ? string : json_null();
}

mp_code mp_json_print(json_t *all, FILE *to, mp_error *err)
{
    if (!all)
        return mp_error_set(err, MP_ENOMEM, "no memory for the JSON text");
    json_dumpf(all, to, JSON_INDENT(1) | JSON_ENSURE_ASCII);
    fputc('\n', to);
    json_decref(all);
    return MP_OK;
}

json_t *mp_json_number(double value)
{
    return isfinite(value) ? json_real(value)
                           : json_string(isnan(value) ? "nan"
                                         : value < 0  ? "-inf"
                                                      : "inf");
}

json_t *mp_json_number_or_null(double value)
{
    return isnan(value) ? json_null() : mp_json_number(value);
}

json_t *mp_json_value(sqlite3_stmt *q, int column)
{
    json_t *text;

    switch (sqlite3_column_type(q, column)) {
    case SQLITE_INTEGER:
        return json_integer(sqlite3_column_int64(q, column));
    case SQLITE_FLOAT:
        return mp_json_number(sqlite3_column_double(q, column));
    case SQLITE_NULL:
        return json_null();
    default: /* with NULs, where somebody put them into a text */
        text = json_stringn(mp_db_text(q, column), (size_t)sqlite3_column_bytes(q, column));
        return text ? text : mp_json_text(mp_db_text(q, column));
    }
}

json_t *mp_json_row(sqlite3_stmt *q)
{
    json_t *row = json_object();

    for (int i = 0; i < sqlite3_column_count(q); i++)
        json_object_set_new(row, sqlite3_column_name(q, i), mp_json_value(q, i));
    return row;
}

/* All rows of a query with at most one bound id. */
static mp_code rows_json(mp_store *s, const char *sql, int64_t id, json_t **out, mp_error *err)
{
    sqlite3_stmt *q = NULL;
    bool row = true;

    *out = json_array();
    if (!mp_db_prepare(s, sql, &q, err) &&
        (!sqlite3_bind_parameter_count(q) || !mp_db_bind(s, q, err, "i", id)))
        while (!mp_db_step(s, q, &row, err) && row)
            json_array_append_new(*out, mp_json_row(q));
    sqlite3_finalize(q);
    return err->code;
}

/* ---- cells of a table ----------------------------------------------------------------------- */

/* A value of the query as a cell: numbers short for people and whole in CSV, missing for NULL. */
static void add_value(mp_table *t, sqlite3_stmt *q, int column, mp_format format,
                      const char *number, const char *missing)
{
    const int type = sqlite3_column_type(q, column);

    if (type == SQLITE_FLOAT)
        mp_table_add(t, format == MP_CSV ? "%.17g" : number, sqlite3_column_double(q, column));
    else
        mp_table_add(t, "%s", type == SQLITE_NULL ? missing : mp_db_text(q, column));
}

/* A column of 1, 0 and NULL. */
static const char *yes_no(sqlite3_stmt *q, int column, const char *missing)
{
    if (sqlite3_column_type(q, column) == SQLITE_NULL)
        return missing;
    return sqlite3_column_int(q, column) ? "yes" : "no";
}

/* ---- list ----------------------------------------------------------------------------------- */

/* After --resume, a run holds an interrupted cell and its repetition: only the last one counts. */
#define NEWEST \
    "cell.id = (SELECT max(c.id) FROM cell c WHERE c.key = cell.key AND c.run = cell.run) "

/* ?1: how many runs at most, negative for all.  By their starts: older ones come by merge. */
#define NEWEST_RUNS "(SELECT * FROM run ORDER BY started DESC, id DESC LIMIT ?1) AS run "

#define RUNS                                                                                 \
    "SELECT run.id, run.uuid, run.label, run.engine, run.device, run.started, run.ended, "   \
    "run.exit_status, substr(run.fingerprint, 1, 8) AS fingerprint, " MP_DB_TOLD             \
    "'git_commit') AS git_commit, count(cell.id) AS cells, "                                 \
    "count(*) FILTER (WHERE cell.status = 'ok') AS ok, "                                     \
    "count(*) FILTER (WHERE cell.as_expected = 0) AS unexpected, "                           \
    "count(*) FILTER (WHERE cell.budget IS NOT NULL) AS over_budget, "                       \
    "count(*) FILTER (WHERE cell.status IN ('running', 'interrupted')) AS unfinished "       \
    "FROM " NEWEST_RUNS "LEFT JOIN cell ON cell.run = run.id AND " NEWEST "GROUP BY run.id " \
    "ORDER BY run.started DESC, run.id DESC"

#define SUMMARY(t, metric)                                                                \
    "LEFT JOIN metric " t " ON " t ".cell = cell.id AND " t ".name = '" metric "' AND " t \
    ".stage = 'run' AND " t ".step = -1 AND " t ".module = '' "

#define CELLS                                                                                      \
    "SELECT cell.id, cell.run, cell.key, cell.scenario, cell.status, cell.as_expected, "           \
    "cell.outcome, cell.budget, coalesce(l.value, l.nonfinite) AS latent_rel_l2, "                 \
    "coalesce(i.value, i.nonfinite) AS image_rel_l2, "                                             \
    "coalesce(t.value, t.nonfinite) AS seconds, coalesce(p.value, p.nonfinite) AS peak_mib "       \
    "FROM " NEWEST_RUNS "JOIN cell ON cell.run = run.id AND " NEWEST SUMMARY("l", "latent_rel_l2") \
        SUMMARY("i", "image_rel_l2") SUMMARY("t", "seconds")                                       \
            SUMMARY("p", "peak_mib") "ORDER BY run.started DESC, run.id DESC, cell.id"

/* What is listed: at most so many runs, all for 0, and how many others there are. */
typedef struct listing {
    mp_store *store;
    int64_t limit, more;
} listing;

static mp_code count_more(listing *l, mp_error *err)
{
    sqlite3_stmt *q = NULL;
    bool row = false;

    if (!mp_db_prepare(l->store, "SELECT count(*) FROM run", &q, err) &&
        !mp_db_step(l->store, q, &row, err) && row && sqlite3_column_int64(q, 0) > l->limit)
        l->more = sqlite3_column_int64(q, 0) - l->limit;
    sqlite3_finalize(q);
    return err->code;
}

static int64_t at_most(const listing *l)
{
    return l->limit ? l->limit : -1;
}

static mp_code list_json(const listing *l, FILE *to, mp_error *err)
{
    json_t *runs, *cells = NULL;

    if (rows_json(l->store, RUNS, at_most(l), &runs, err) ||
        rows_json(l->store, CELLS, at_most(l), &cells, err)) {
        json_decref(runs);
        json_decref(cells);
        return err->code;
    }
    return mp_json_print(json_pack("{si ss so so so sI}", "version", 1, "kind", "mpbench list",
                                   "database", mp_json_text(mp_store_path(l->store)), "runs", runs,
                                   "cells", cells, "more_runs", (json_int_t)l->more),
                         to, err);
}

static void add_run(mp_table *t, sqlite3_stmt *q)
{
    mp_table_add(t, "%s", mp_db_text(q, 0));
    mp_table_add(t, "%.19s", mp_db_text(q, 5));
    mp_table_add(t, "%s", mp_db_text(q, 2));
    mp_table_add(t, "%s/%s", mp_db_text(q, 3), mp_db_text(q, 4));
    for (int i = 10; i < 15; i++)
        mp_table_add(t, "%s", mp_db_text(q, i));
    mp_table_add(t, "%s", mp_db_text(q, 7));
    mp_table_add(t, "%s", mp_db_text(q, 8));
    mp_table_add(t, "%.12s", mp_db_text(q, 9));
}

static void add_cell(mp_table *t, sqlite3_stmt *q, mp_format format)
{
    const char *missing = format == MP_CSV ? "" : "-";

    mp_table_add(t, "%s", mp_db_text(q, 0));
    mp_table_add(t, "%s", mp_db_text(q, 1));
    mp_table_add(t, "%s", mp_db_text(q, 2));
    mp_table_add(t, "%s%s", mp_db_text(q, 4), *mp_db_text(q, 7) ? ", over budget" : "");
    mp_table_add(t, "%s", yes_no(q, 5, missing));
    add_value(t, q, 8, format, "%.3g", missing);
    add_value(t, q, 9, format, "%.3g", missing);
    add_value(t, q, 10, format, "%.3f", missing);
    add_value(t, q, 11, format, "%.0f", missing);
}

static mp_code list_runs(const listing *l, mp_format format, FILE *to, mp_error *err)
{
    static const char *const heads[] = {"run>",        "started", "label",       "engine",
                                        "cells>",      "ok>",     "unexpected>", "over budget>",
                                        "unfinished>", "exit>",   "machine",     "commit"};
    mp_table *t = mp_table_create(sizeof heads / sizeof *heads, heads);
    sqlite3_stmt *q = NULL;
    bool row = true;

    if (!mp_db_prepare(l->store, RUNS, &q, err) && !mp_db_bind(l->store, q, err, "i", at_most(l)))
        while (!mp_db_step(l->store, q, &row, err) && row)
            add_run(t, q);
    sqlite3_finalize(q);
    if (!err->code)
        mp_table_print(t, format, 0, to);
    mp_table_free(t);
    return err->code;
}

static mp_code list_cells(const listing *l, mp_format format, FILE *to, mp_error *err)
{
    static const char *const heads[] = {"id>",      "run>",     "cell",    "status",   "expected",
                                        "latents>", "picture>", "time s>", "peak MiB>"};
    mp_table *t = mp_table_create(sizeof heads / sizeof *heads, heads);
    sqlite3_stmt *q = NULL;
    bool row = true;

    if (!mp_db_prepare(l->store, CELLS, &q, err) && !mp_db_bind(l->store, q, err, "i", at_most(l)))
        while (!mp_db_step(l->store, q, &row, err) && row)
            add_cell(t, q, format);
    sqlite3_finalize(q);
    if (!err->code)
        mp_table_print(t, format, 0, to);
    mp_table_free(t);
    return err->code;
}

static mp_code list(const listing *l, mp_format format, FILE *to, mp_error *err)
{
    if (format == MP_JSON)
        return list_json(l, to, err);
    if (format != MP_CSV) { /* a CSV file has one table: the cells */
        if (list_runs(l, format, to, err))
            return err->code;
        fputc('\n', to);
    }
    return list_cells(l, format, to, err);
}

mp_code mp_query_list(mp_store *s, int64_t limit, mp_format format, FILE *to, int64_t *more,
                      mp_error *err)
{
    listing l = {.store = s, .limit = limit};

    *more = 0;
    if (mp_db_begin_reading(s, err))
        return err->code;
    if (!limit || !count_more(&l, err))
        list(&l, format, to, err);
    *more = l.more;
    mp_db_end_reading(s);
    return err->code;
}

/* ---- show ----------------------------------------------------------------------------------- */

#define ONE_CELL                                                                                \
    "SELECT cell.*, run.uuid AS run_uuid, run.label AS run_label, run.command AS run_command, " \
    "run.fingerprint AS fingerprint FROM cell JOIN run ON run.id = cell.run WHERE cell.id = ?"

static const struct {
    const char *name, *sql;
    int since; /* the version of the schema that has its table */
} parts[] = {
    {"settings", "SELECT key, value FROM cell_setting WHERE cell = ? ORDER BY key", 1},
    {"limits", "SELECT metric, kind, value FROM cell_limit WHERE cell = ? ORDER BY metric, kind",
     MP_DB_SINCE_FINDINGS},
    {"samples", "SELECT stage, repeat, seconds FROM sample WHERE cell = ? ORDER BY stage, repeat",
     1},
    {"metrics",
     "SELECT stage, step, module, name, coalesce(value, nonfinite) AS value, unit FROM "
     "metric WHERE cell = ? ORDER BY stage = 'run' DESC, stage, step, module, name",
     1},
    {"actions",
     "SELECT stage, module, op, kind, from_dtype AS \"from\", to_dtype AS \"to\", count, elements, "
     "seconds FROM policy_action WHERE cell = ? ORDER BY stage, module, op, kind, from_dtype, "
     "to_dtype",
     3},
    {"outputs", "SELECT name, dtype, shape, sha256 FROM output WHERE cell = ? ORDER BY name", 1},
    {"environment",
     "SELECT e.key, e.value FROM run_environment e JOIN cell ON cell.run = e.run "
     "WHERE cell.id = ? ORDER BY e.key",
     1},
    {"memory", mp_memory_stages, 1},
    {"memory_modules", mp_memory_modules, 1},
};

/* People see the last two as mp_memory_show has them. */
enum { PARTS = sizeof parts / sizeof *parts, TABLES = PARTS - 2, MAX_COLUMNS = 9 };

static bool has_part(const mp_store *s, int part)
{
    return s->version >= parts[part].since;
}

/* The text of a field of the cell, "" for nothing to say. */
static const char *field_text(sqlite3_stmt *q, int column)
{
    return strcmp(sqlite3_column_name(q, column), "as_expected") ? mp_db_text(q, column)
                                                                 : yes_no(q, column, "");
}

static void show_head_text(sqlite3_stmt *q, FILE *to)
{
    enum { NAME = 16 };

    for (int i = 0; i < sqlite3_column_count(q); i++) {
        const char *text = field_text(q, i);
        if (!*text)
            continue;
        fprintf(to, "%-*s", NAME, sqlite3_column_name(q, i));
        mp_print_plain(to, text, NAME);
        fputc('\n', to);
    }
}

static void show_head_markdown(sqlite3_stmt *q, FILE *to)
{
    static const char *const heads[] = {"cell", ""};
    mp_table *t = mp_table_create(2, heads);

    for (int i = 0; i < sqlite3_column_count(q); i++)
        if (*field_text(q, i)) {
            mp_table_add(t, "%s", sqlite3_column_name(q, i));
            mp_table_add(t, "%s", field_text(q, i));
        }
    mp_table_print(t, MP_MARKDOWN, 0, to);
    mp_table_free(t);
}

static void print_part(const mp_table *t, const char *name, mp_format format, FILE *to)
{
    if (t && !mp_table_rows(t))
        return;
    fprintf(to, format == MP_MARKDOWN ? "\n### %s\n\n" : "\n%s\n", name);
    mp_table_print(t, format, 2, to);
}

static mp_code show_part(mp_store *s, int part, int64_t id, mp_format format, FILE *to,
                         mp_error *err)
{
    sqlite3_stmt *q = NULL;
    const char *heads[MAX_COLUMNS];
    mp_table *t = NULL;
    bool row = true;

    if (!mp_db_prepare(s, parts[part].sql, &q, err) && !mp_db_bind(s, q, err, "i", id)) {
        const int n = sqlite3_column_count(q);
        for (int i = 0; i < n; i++)
            heads[i] = sqlite3_column_name(q, i);
        t = mp_table_create(n, heads);
        while (!mp_db_step(s, q, &row, err) && row)
            for (int i = 0; i < n; i++)
                add_value(t, q, i, format, "%.6g", "");
    }
    sqlite3_finalize(q);
    if (!err->code)
        print_part(t, parts[part].name, format, to);
    mp_table_free(t);
    return err->code;
}

/* Every value of a row as a row of its own. */
static void add_long(mp_table *t, sqlite3_stmt *q, const char *part, int64_t row)
{
    for (int i = 0; i < sqlite3_column_count(q); i++)
        if (sqlite3_column_type(q, i) != SQLITE_NULL) {
            mp_table_add(t, "%s", part);
            mp_table_add(t, "%" PRId64, row);
            mp_table_add(t, "%s", sqlite3_column_name(q, i));
            add_value(t, q, i, MP_CSV, "", "");
        }
}

static mp_code show_csv(mp_store *s, sqlite3_stmt *cell, int64_t id, FILE *to, mp_error *err)
{
    static const char *const heads[] = {"part", "row", "column", "value"};
    mp_table *t = mp_table_create(sizeof heads / sizeof *heads, heads);

    add_long(t, cell, "cell", 0);
    for (int i = 0; i < PARTS && !err->code; i++) {
        sqlite3_stmt *q = NULL;
        bool row = true;
        if (has_part(s, i) && !mp_db_prepare(s, parts[i].sql, &q, err) &&
            !mp_db_bind(s, q, err, "i", id))
            for (int64_t n = 0; !mp_db_step(s, q, &row, err) && row; n++)
                add_long(t, q, parts[i].name, n);
        sqlite3_finalize(q);
    }
    if (!err->code)
        mp_table_print(t, MP_CSV, 0, to);
    mp_table_free(t);
    return err->code;
}

static mp_code show_json(mp_store *s, sqlite3_stmt *cell, int64_t id, FILE *to, mp_error *err)
{
    json_t *all = mp_json_row(cell);

    json_object_set_new(all, "version", json_integer(1));
    json_object_set_new(all, "kind", json_string("mpbench show"));
    for (int i = 0; i < PARTS && !err->code; i++) {
        json_t *rows = NULL;
        if (has_part(s, i))
            rows_json(s, parts[i].sql, id, &rows, err);
        else
            rows = json_array();
        json_object_set_new(all, parts[i].name, rows);
    }
    if (!err->code)
        return mp_json_print(all, to, err);
    json_decref(all);
    return err->code;
}

static mp_code show(mp_store *s, sqlite3_stmt *cell, int64_t id, mp_format format, FILE *to,
                    mp_error *err)
{
    if (format == MP_JSON)
        return show_json(s, cell, id, to, err);
    if (format == MP_CSV)
        return show_csv(s, cell, id, to, err);
    (format == MP_MARKDOWN ? show_head_markdown : show_head_text)(cell, to);
    if (mp_memory_show(s, id, format, to, err))
        return err->code;
    for (int i = 0; i < TABLES; i++)
        if (has_part(s, i) && show_part(s, i, id, format, to, err))
            return err->code;
    return MP_OK;
}

mp_code mp_query_show(mp_store *s, int64_t id, mp_format format, FILE *to, mp_error *err)
{
    sqlite3_stmt *q = NULL;
    bool row = false;

    if (mp_db_begin_reading(s, err))
        return err->code;
    if (!mp_db_prepare(s, ONE_CELL, &q, err) && !mp_db_bind(s, q, err, "i", id) &&
        !mp_db_step(s, q, &row, err)) {
        if (row)
            show(s, q, id, format, to, err);
        else
            mp_error_set(err, MP_EMISSING,
                         "%s: there is no cell %" PRId64 "; `mpbench list` shows the ids",
                         mp_store_path(s), id);
    }
    sqlite3_finalize(q);
    mp_db_end_reading(s);
    return err->code;
}
