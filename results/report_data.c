#include "results/report_data.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "results/db.h"
#include "results/query.h"

/* ---- cells ---------------------------------------------------------------------------------- */

/* ?1: a run, or all of a label, ?2: a scenario, NULL: all.  Of a cell that a run holds more than
 * once, after --resume, the last one counts.  The revision is what the history takes for it: the
 * commit of what ran, or its version.  cell.* since older schemas have fewer columns; shown.started
 * is that of the run and comes after that of the cell. */
static const char cells_sql[] =
    "WITH named AS (SELECT run.*, coalesce(" MP_DB_REVISION ", '') AS revision "
    "FROM run WHERE ?1 IS NULL OR CAST(id AS TEXT) = ?1 OR uuid = "
    "?1 OR label = ?1), "
    "candidate AS (SELECT max(cell.id) AS id, cell.key, cell.scenario, run, engine, device, "
    "fingerprint, named.started, coalesce(label, '') AS label, revision FROM cell JOIN named ON "
    "named.id = cell.run WHERE ?2 IS NULL OR scenario = ?2 GROUP BY run, key), "
    "newest AS (SELECT * FROM (SELECT scenario, engine, device, fingerprint, label, revision, "
    "row_number() OVER (PARTITION BY scenario, engine, device, fingerprint ORDER BY started DESC, "
    "run DESC) AS age FROM candidate) WHERE age = 1), "
    "shown AS (SELECT * FROM (SELECT candidate.*, row_number() OVER (PARTITION BY key, engine, "
    "device, fingerprint ORDER BY started DESC, run DESC) AS age FROM candidate JOIN newest USING "
    "(scenario, engine, device, fingerprint, label, revision)) WHERE age = 1) "
    "SELECT cell.*, cell.scenario_hash || ' ' || cell.checkpoint_hash AS inputs, shown.engine, "
    "shown.device, shown.fingerprint, shown.started, shown.label, shown.revision, (SELECT value "
    "FROM cell_setting c WHERE c.cell = cell.id AND c.key = 'precision.default') AS dtype "
    "FROM shown JOIN cell ON cell.id = shown.id ORDER BY cell.scenario, shown.engine, "
    "shown.device, shown.fingerprint, cell.id";

static const char metrics_sql[] =
    "SELECT name, coalesce(value, nonfinite) AS value FROM metric WHERE cell = ? AND stage = 'run' "
    "AND step = -1 AND module = ''";

/* Appends all rows of a prepared and bound statement, and finalizes it. */
static mp_code take_rows(mp_store *s, sqlite3_stmt *q, json_t *out, mp_error *err)
{
    bool row = true;

    while (!err->code && !mp_db_step(s, q, &row, err) && row)
        if (json_array_append_new(out, mp_json_row(q)))
            mp_error_set(err, MP_ENOMEM, "%s: no memory for the report's rows", mp_store_path(s));
    sqlite3_finalize(q);
    return err->code;
}

/* The filter names what is not there; names may be hostile, so they are escaped for a terminal. */
static mp_code nothing(mp_store *s, const mp_report_filter *f, mp_error *err)
{
    static const char sql[] =
        "SELECT 'there are no cells of' || coalesce(' run ' || substr(?1, 1, 80), '') || "
        "coalesce(' scenario ' || substr(?2, 1, 80), '') || '; the newest runs are: ' || "
        "coalesce((SELECT group_concat(id, ', ') FROM (SELECT id FROM run ORDER BY id DESC LIMIT "
        "10)), 'none') || '; scenarios: ' || coalesce((SELECT group_concat(scenario, ', ') FROM "
        "(SELECT DISTINCT scenario FROM cell ORDER BY scenario LIMIT 20)), 'none')";
    sqlite3_stmt *q = NULL;
    bool row = false;

    if (!f->run && !f->scenario)
        return MP_OK; /* an empty database */
    if (!mp_db_prepare(s, sql, &q, err) && !mp_db_bind(s, q, err, "tt", f->run, f->scenario) &&
        !mp_db_step(s, q, &row, err)) {
        char *plain = mp_plain_text(mp_db_text(q, 0));
        mp_error_set(err, MP_EMISSING, "%s: %s", mp_store_path(s), plain ? plain : "no such cells");
        mp_free(plain);
    }
    sqlite3_finalize(q);
    return err->code;
}

/* The summary metrics of a cell, as an object of its own: their names are anybody's. */
static mp_code add_metrics(mp_store *s, sqlite3_stmt *q, json_t *cell, mp_error *err)
{
    json_t *metrics = json_object();
    bool row = true;

    json_object_set_new(cell, "metrics", metrics);
    mp_db_bind(s, q, err, "i", (int64_t)json_integer_value(json_object_get(cell, "id")));
    while (!err->code && !mp_db_step(s, q, &row, err) && row) {
        json_t *one = mp_json_row(q);
        json_object_set(metrics, mp_db_text(q, 0), json_object_get(one, "value"));
        json_decref(one);
    }
    sqlite3_reset(q);
    return err->code;
}

mp_code mp_report_cells(mp_store *s, const mp_report_filter *f, json_t **out, mp_error *err)
{
    sqlite3_stmt *q = NULL;
    json_t *cell;
    size_t i;

    *out = json_array();
    if (!mp_db_prepare(s, cells_sql, &q, err))
        mp_db_bind(s, q, err, "tt", f->run, f->scenario);
    if (take_rows(s, q, *out, err))
        return err->code;
    if (!json_array_size(*out))
        return nothing(s, f, err);
    mp_db_prepare(s, metrics_sql, &q, err);
    json_array_foreach (*out, i, cell)
        if (!err->code)
            add_metrics(s, q, cell, err);
    sqlite3_finalize(q);
    return err->code;
}

/* ---- environment, repro lines --------------------------------------------------------------- */

/* A statement whose one parameter is an array, read by json_each. */
static mp_code rows_of(mp_store *s, const char *sql, const json_t *array, json_t *out,
                       mp_error *err)
{
    char *text = json_dumps(array, JSON_COMPACT);
    sqlite3_stmt *q = NULL;

    if (!text)
        return mp_error_set(err, MP_ENOMEM, "%s: no memory for the report's rows",
                            mp_store_path(s));
    if (!mp_db_prepare(s, sql, &q, err))
        mp_db_bind(s, q, err, "t", text);
    free(text);
    return take_rows(s, q, out, err);
}

mp_code mp_report_environment(mp_store *s, const json_t *cells, json_t **out, mp_error *err)
{
    static const char sql[] =
        "SELECT run.id AS run, run.engine, run.device, run.fingerprint, run.label, run.started, "
        "e.key, e.value FROM (SELECT id, row_number() OVER (PARTITION BY fingerprint, engine, "
        "device ORDER BY started DESC, id DESC) AS age FROM run WHERE id IN (SELECT value FROM "
        "json_each(?))) AS newest JOIN run ON run.id = newest.id LEFT JOIN run_environment e ON "
        "e.run = run.id WHERE age = 1 ORDER BY e.key, run.started DESC, run.id DESC";
    json_t *runs = json_array(), *cell;
    size_t i;

    *out = json_array();
    json_array_foreach (cells, i, cell)
        json_array_append(runs, json_object_get(cell, "run"));
    rows_of(s, sql, runs, *out, err);
    json_decref(runs);
    return err->code;
}

mp_code mp_report_repros(mp_store *s, const json_t *ids, json_t **out, mp_error *err)
{
    json_t *rows = json_array(), *row;
    size_t i;

    *out = json_object();
    rows_of(s,
            "SELECT CAST(id AS TEXT) AS id, repro FROM cell WHERE id IN (SELECT value FROM "
            "json_each(?))",
            ids, rows, err);
    json_array_foreach (rows, i, row)
        json_object_set(*out, json_string_value(json_object_get(row, "id")),
                        json_object_get(row, "repro"));
    json_decref(rows);
    return err->code;
}
