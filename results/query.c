#include "results/query.h"

#include <inttypes.h>
#include <jansson.h>
#include <string.h>

#include "results/db.h"

/* A row as a JSON object under its columns' names; the last column wins over an equal one. */
static json_t *row_json(sqlite3_stmt *q)
{
    json_t *row = json_object();

    for (int i = 0; i < sqlite3_column_count(q); i++) {
        json_t *value;
        switch (sqlite3_column_type(q, i)) {
        case SQLITE_INTEGER:
            value = json_integer(sqlite3_column_int64(q, i));
            break;
        case SQLITE_FLOAT:
            value = json_real(sqlite3_column_double(q, i));
            break;
        case SQLITE_NULL:
            value = json_null();
            break;
        default:
            value = json_string(mp_db_text(q, i));
        }
        json_object_set_new(row, sqlite3_column_name(q, i), value ? value : json_null());
    }
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
            json_array_append_new(*out, row_json(q));
    sqlite3_finalize(q);
    return err->code;
}

static void dump_json(json_t *all, FILE *to)
{
    json_dumpf(all, to, JSON_INDENT(1) | JSON_ENSURE_ASCII);
    fputc('\n', to);
    json_decref(all);
}

/* ---- list ----------------------------------------------------------------------------------- */

#define RUNS                                                                                  \
    "SELECT run.id, run.uuid, run.label, run.engine, run.device, run.started, run.ended, "    \
    "run.exit_status, substr(run.fingerprint, 1, 8) AS fingerprint, "                         \
    "(SELECT value FROM run_environment e WHERE e.run = run.id AND e.key = 'git_commit') AS " \
    "git_commit, count(cell.id) AS cells, "                                                   \
    "sum(cell.status = 'ok') AS ok, sum(cell.as_expected = 0) AS unexpected, "                \
    "sum(cell.budget IS NOT NULL) AS over_budget, "                                           \
    "sum(cell.status IN ('running', 'interrupted')) AS unfinished "                           \
    "FROM run LEFT JOIN cell ON cell.run = run.id GROUP BY run.id ORDER BY run.id DESC"

/* The newest row of each cell of each run. */
#define CELLS                                                                                    \
    "SELECT cell.id, cell.run, cell.key, cell.scenario, cell.status, cell.as_expected, "         \
    "cell.outcome, cell.budget, coalesce(cast(l.value AS TEXT), l.nonfinite) AS latent_rel_l2, " \
    "coalesce(cast(i.value AS TEXT), i.nonfinite) AS image_rel_l2, t.value AS seconds, "         \
    "p.value AS peak_mib FROM cell "                                                             \
    "LEFT JOIN metric l ON l.cell = cell.id AND l.name = 'latent_rel_l2' AND l.stage = 'run' "   \
    "LEFT JOIN metric i ON i.cell = cell.id AND i.name = 'image_rel_l2' AND i.stage = 'run' "    \
    "LEFT JOIN metric t ON t.cell = cell.id AND t.name = 'seconds' AND t.stage = 'run' "         \
    "LEFT JOIN metric p ON p.cell = cell.id AND p.name = 'peak_mib' AND p.stage = 'run' "        \
    "ORDER BY cell.run DESC, cell.id"

static mp_code list_json(mp_store *s, FILE *to, mp_error *err)
{
    json_t *runs, *cells = NULL;

    if (rows_json(s, RUNS, 0, &runs, err) || rows_json(s, CELLS, 0, &cells, err)) {
        json_decref(runs);
        json_decref(cells);
        return err->code;
    }
    dump_json(json_pack("{si ss ss so so}", "version", 1, "kind", "mpbench list", "database",
                        mp_store_path(s), "runs", runs, "cells", cells),
              to);
    return MP_OK;
}

static mp_code list_runs(mp_store *s, mp_format format, FILE *to, mp_error *err)
{
    static const char *const heads[] = {"run>",        "started", "label",       "engine",
                                        "cells>",      "ok>",     "unexpected>", "over budget>",
                                        "unfinished>", "exit>",   "machine",     "commit"};
    mp_table *t = mp_table_create(sizeof heads / sizeof *heads, heads);
    sqlite3_stmt *q = NULL;
    bool row = true;

    if (!mp_db_prepare(s, RUNS, &q, err))
        while (!mp_db_step(s, q, &row, err) && row) {
            mp_table_add(t, "%s", mp_db_text(q, 0));
            mp_table_add(t, "%.19s", mp_db_text(q, 5));
            mp_table_add(t, "%s", mp_db_text(q, 2));
            mp_table_add(t, "%s/%s", mp_db_text(q, 3), mp_db_text(q, 4));
            for (int i = 10; i < 15; i++)
                mp_table_add(t, "%" PRId64, (int64_t)sqlite3_column_int64(q, i));
            mp_table_add(t, "%s", mp_db_text(q, 7));
            mp_table_add(t, "%s", mp_db_text(q, 8));
            mp_table_add(t, "%.12s", mp_db_text(q, 9));
        }
    sqlite3_finalize(q);
    if (!err->code)
        mp_table_print(t, format, 0, to);
    mp_table_free(t);
    return err->code;
}

/* "-" for what was not measured. */
static void add_number(mp_table *t, sqlite3_stmt *q, int column, const char *format)
{
    const char *text = mp_db_text(q, column);

    if (strspn(text, "+-.0123456789eE") == strlen(text) && *text)
        mp_table_add(t, format, sqlite3_column_double(q, column));
    else
        mp_table_add(t, "%s", *text ? text : "-");
}

static mp_code list_cells(mp_store *s, mp_format format, FILE *to, mp_error *err)
{
    static const char *const heads[] = {"id>",      "run>",     "cell",    "status",   "expected",
                                        "latents>", "picture>", "time s>", "peak MiB>"};
    mp_table *t = mp_table_create(sizeof heads / sizeof *heads, heads);
    sqlite3_stmt *q = NULL;
    bool row = true;

    if (!mp_db_prepare(s, CELLS, &q, err))
        while (!mp_db_step(s, q, &row, err) && row) {
            mp_table_add(t, "%s", mp_db_text(q, 0));
            mp_table_add(t, "%s", mp_db_text(q, 1));
            mp_table_add(t, "%s", mp_db_text(q, 2));
            mp_table_add(t, "%s%s", mp_db_text(q, 4), *mp_db_text(q, 7) ? ", over budget" : "");
            mp_table_add(t, "%s",
                         sqlite3_column_type(q, 5) == SQLITE_NULL ? "-"
                         : sqlite3_column_int(q, 5)               ? "yes"
                                                                  : "no");
            add_number(t, q, 8, "%.3g");
            add_number(t, q, 9, "%.3g");
            add_number(t, q, 10, "%.3f");
            add_number(t, q, 11, "%.0f");
        }
    sqlite3_finalize(q);
    if (!err->code)
        mp_table_print(t, format, 0, to);
    mp_table_free(t);
    return err->code;
}

mp_code mp_query_list(mp_store *s, mp_format format, FILE *to, mp_error *err)
{
    if (format == MP_JSON)
        return list_json(s, to, err);
    if (format != MP_CSV) { /* a CSV file has one table: the cells */
        if (list_runs(s, format, to, err))
            return err->code;
        fputc('\n', to);
    }
    return list_cells(s, format, to, err);
}

/* ---- show ----------------------------------------------------------------------------------- */

#define ONE_CELL                                                                                \
    "SELECT cell.*, run.uuid AS run_uuid, run.label AS run_label, run.command AS run_command, " \
    "run.fingerprint AS fingerprint FROM cell JOIN run ON run.id = cell.run WHERE cell.id = ?"

static const struct {
    const char *name, *sql;
} parts[] = {
    {"settings", "SELECT key, value FROM cell_setting WHERE cell = ? ORDER BY key"},
    {"samples", "SELECT stage, repeat, seconds FROM sample WHERE cell = ? ORDER BY stage, repeat"},
    {"metrics", "SELECT stage, step, module, name, coalesce(value, nonfinite) AS value, unit FROM "
                "metric WHERE cell = ? ORDER BY stage = 'run' DESC, stage, step, module, name"},
    {"outputs", "SELECT name, dtype, shape, sha256 FROM output WHERE cell = ? ORDER BY name"},
    {"environment", "SELECT e.key, e.value FROM run_environment e JOIN cell ON cell.run = e.run "
                    "WHERE cell.id = ? ORDER BY e.key"},
};

enum { PARTS = sizeof parts / sizeof *parts };

static void field(FILE *to, const char *name, const char *text)
{
    if (!*text)
        return;
    fprintf(to, "%-12s ", name);
    mp_print_plain(to, text, 13);
    fputc('\n', to);
}

static void show_head(sqlite3_stmt *q, FILE *to)
{
    static const char *const skipped[] = {"id", "scenario_hash", "checkpoint_hash"};

    for (int i = 0; i < sqlite3_column_count(q); i++) {
        const char *name = sqlite3_column_name(q, i);
        bool skip = false;
        for (size_t k = 0; k < sizeof skipped / sizeof *skipped; k++)
            skip |= !strcmp(name, skipped[k]);
        if (!skip)
            field(to, name,
                  !strcmp(name, "as_expected") ? sqlite3_column_type(q, i) == SQLITE_NULL ? ""
                                                 : sqlite3_column_int(q, i)               ? "yes"
                                                                                          : "no"
                                               : mp_db_text(q, i));
    }
}

static mp_code show_part(mp_store *s, int part, int64_t id, mp_format format, FILE *to,
                         mp_error *err)
{
    sqlite3_stmt *q = NULL;
    const char *heads[8];
    mp_table *t = NULL;
    bool row = true;

    if (!mp_db_prepare(s, parts[part].sql, &q, err) && !mp_db_bind(s, q, err, "i", id)) {
        const int n = sqlite3_column_count(q);
        for (int i = 0; i < n; i++)
            heads[i] = sqlite3_column_name(q, i);
        t = mp_table_create(n, heads);
        while (!mp_db_step(s, q, &row, err) && row)
            for (int i = 0; i < n; i++) {
                if (sqlite3_column_type(q, i) == SQLITE_FLOAT)
                    mp_table_add(t, "%.6g", sqlite3_column_double(q, i));
                else
                    mp_table_add(t, "%s", mp_db_text(q, i));
            }
    }
    sqlite3_finalize(q);
    if (!err->code && mp_table_rows(t)) {
        fprintf(to, format == MP_MARKDOWN ? "\n### %s\n\n" : "\n%s\n", parts[part].name);
        mp_table_print(t, format, 2, to);
    }
    mp_table_free(t);
    return err->code;
}

static mp_code show_json(mp_store *s, sqlite3_stmt *cell, int64_t id, FILE *to, mp_error *err)
{
    json_t *all = row_json(cell);

    json_object_set_new(all, "version", json_integer(1));
    json_object_set_new(all, "kind", json_string("mpbench show"));
    for (int i = 0; i < PARTS && !err->code; i++) {
        json_t *rows;
        rows_json(s, parts[i].sql, id, &rows, err);
        json_object_set_new(all, parts[i].name, rows);
    }
    if (err->code)
        json_decref(all);
    else
        dump_json(all, to);
    return err->code;
}

mp_code mp_query_show(mp_store *s, int64_t id, mp_format format, FILE *to, mp_error *err)
{
    sqlite3_stmt *q = NULL;
    bool row = false;

    if (!mp_db_prepare(s, ONE_CELL, &q, err) && !mp_db_bind(s, q, err, "i", id) &&
        !mp_db_step(s, q, &row, err) && !row)
        mp_error_set(err, MP_EMISSING,
                     "%s: there is no cell %" PRId64 "; `mpbench list` shows the ids",
                     mp_store_path(s), id);
    if (!err->code && format == MP_JSON) {
        show_json(s, q, id, to, err);
    } else if (!err->code) {
        show_head(q, to);
        for (int i = 0; i < PARTS && !err->code; i++)
            show_part(s, i, id, format, to, err);
    }
    sqlite3_finalize(q);
    return err->code;
}
