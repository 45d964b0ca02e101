#include "results/baseline.h"

#include <inttypes.h>
#include <jansson.h>
#include <string.h>

#include "results/db.h"
#include "results/query.h"

/* ---- runs ----------------------------------------------------------------------------------- */

static mp_code no_such_run(mp_store *s, const char *name, mp_error *err)
{
    char asked[80] = "", baselines[600], labels[600];

    mp_db_list(s,
               "SELECT label FROM run WHERE ended IS NOT NULL AND label IS NOT NULL GROUP BY 1 "
               "ORDER BY max(id) DESC LIMIT 10",
               NULL, labels, sizeof labels);
    mp_db_list(s,
               "SELECT name FROM baseline GROUP BY 1 ORDER BY max(at) DESC, max(id) DESC LIMIT 10",
               NULL, baselines, sizeof baselines);
    mp_append_plain(asked, sizeof asked, "", name);
    return mp_error_set(err, MP_EMISSING,
                        "%s: '%s' is no baseline and no run's id, UUID or label; baselines: %s; "
                        "labels: %s; `mpbench list` shows all runs",
                        s->path, asked, *baselines ? baselines : "none", *labels ? labels : "none");
}

/* The rounds of one call of `mpbench run --rounds` have a label, by which compare knows that they
 * are one measurement, and another call may have the same one. */
static void select_run(sqlite3_stmt *q, mp_against *out)
{
    enum { LONGEST = 100 };
    const char *rounds = mp_db_text(q, 2), *label = mp_db_text(q, 3);
    const bool plain = strlen(label) <= LONGEST && !strpbrk(label, ",[]{}");

    out->run = sqlite3_column_int64(q, 0);
    if (*rounds && plain)
        snprintf(out->selector, sizeof out->selector, "label=%s,rounds=%s", label, rounds);
    else if (*rounds)
        snprintf(out->selector, sizeof out->selector, "rounds=%s", rounds);
    else
        snprintf(out->selector, sizeof out->selector, "run=%" PRId64, out->run);
}

/* The run of that id or UUID, else the newest finished one of that label.  name NULL: of all. */
static mp_code find_run(mp_store *s, const char *name, mp_against *out, mp_error *err)
{
    static const char sql[] =
        "SELECT id, ended IS NOT NULL, " MP_DB_TOLD
        "'rounds'), label FROM run WHERE ?1 IS NULL OR cast(id AS TEXT) = ?1 OR uuid = ?1 OR "
        "label = ?1 ORDER BY cast(id AS TEXT) IS ?1 DESC, uuid IS ?1 DESC, ended IS NOT NULL DESC, "
        "started DESC, id DESC LIMIT 1";
    sqlite3_stmt *q = NULL;
    bool row = false;

    *out = (mp_against){0};
    if (!mp_db_prepare(s, sql, &q, err) && !mp_db_bind(s, q, err, "t", name) &&
        !mp_db_step(s, q, &row, err) && row) {
        select_run(q, out);
        if (!sqlite3_column_int(q, 1))
            mp_error_set(err, MP_EMISSING,
                         "%s: run %" PRId64 " has not finished; go on with it with --resume, or "
                         "name another one of `mpbench list`",
                         s->path, out->run);
    }
    sqlite3_finalize(q);
    if (err->code || row)
        return err->code;
    if (name)
        return no_such_run(s, name, err);
    return mp_error_set(err, MP_EMISSING, "%s: holds no run; record one with `mpbench run` first",
                        s->path);
}

/* ---- set and list --------------------------------------------------------------------------- */

mp_code mp_baseline_set(mp_store *s, const mp_baseline_info *b, int64_t *run, mp_error *err)
{
    /* Never before the one that it replaces, whatever the clock says. */
    static const char sql[] = "INSERT INTO baseline (uuid, name, run, at, why) VALUES (?1, ?2, ?3, "
                              "max(" MP_DB_NOW ", coalesce((SELECT max(at) FROM baseline WHERE "
                              "name = ?2), '')), ?4)";
    sqlite3_stmt *q = NULL;
    mp_against found;
    bool row;

    *run = 0;
    if (strspn(b->name, " \t\n") == strlen(b->name))
        return mp_error_set(err, MP_EUSAGE,
                            "the name of the baseline is empty; expected one such as main");
    if (find_run(s, b->run, &found, err))
        return err->code;
    if (!mp_db_prepare(s, sql, &q, err) &&
        !mp_db_bind(s, q, err, "ttit", b->uuid, b->name, found.run, b->why) &&
        !mp_db_step(s, q, &row, err))
        *run = found.run;
    sqlite3_finalize(q);
    return err->code;
}

#define BASELINES                                                                             \
    "SELECT b.name, b.run, run.uuid, run.label, " MP_DB_TOLD                                  \
    "'git_commit'), b.at, b.why, row_number() OVER (PARTITION BY b.name "                     \
    "ORDER BY b.at DESC, b.id DESC) = 1 FROM baseline b JOIN run ON run.id = b.run ORDER BY " \
    "b.name, b.at DESC, b.id DESC"

static json_t *row_json(sqlite3_stmt *q)
{
    return json_pack("{so sI so so so so so sb}", "name", mp_json_value(q, 0), "run",
                     (json_int_t)sqlite3_column_int64(q, 1), "run_uuid", mp_json_value(q, 2),
                     "label", mp_json_value(q, 3), "git_commit", mp_json_value(q, 4), "at",
                     mp_json_value(q, 5), "why", mp_json_value(q, 6), "counts",
                     sqlite3_column_int(q, 7));
}

static void add_row(mp_table *t, sqlite3_stmt *q)
{
    mp_table_add(t, "%s", mp_db_text(q, 0));
    mp_table_add(t, "%s", sqlite3_column_int(q, 7) ? "yes" : "no");
    mp_table_add(t, "%s", mp_db_text(q, 1));
    mp_table_add(t, "%s", mp_db_text(q, 3));
    mp_table_add(t, "%.12s", mp_db_text(q, 4));
    mp_table_add(t, "%.19s", mp_db_text(q, 5));
    mp_table_add(t, "%s", mp_db_text(q, 6));
}

mp_code mp_baseline_list(mp_store *s, mp_format format, FILE *to, mp_error *err)
{
    static const char *const heads[] = {"name", "counts", "run>", "label", "commit", "set", "why"};
    mp_table *t = mp_table_create(sizeof heads / sizeof *heads, heads);
    json_t *rows = json_array();
    sqlite3_stmt *q = NULL;
    bool row = s->version >= MP_DB_SINCE_FINDINGS;

    if (row)
        mp_db_prepare(s, BASELINES, &q, err);
    while (row && !err->code && !mp_db_step(s, q, &row, err) && row) {
        if (format == MP_JSON)
            json_array_append_new(rows, row_json(q));
        else
            add_row(t, q);
    }
    sqlite3_finalize(q);
    if (!err->code && format == MP_JSON)
        mp_json_print(
            json_pack("{si ss sO}", "version", 1, "kind", "mpbench baselines", "baselines", rows),
            to, err);
    else if (!err->code)
        mp_table_print(t, format, 0, to);
    json_decref(rows);
    mp_table_free(t);
    return err->code;
}

/* ---- against -------------------------------------------------------------------------------- */

mp_code mp_against_find(mp_store *s, const char *name, mp_against *out, mp_error *err)
{
    sqlite3_stmt *q = NULL;
    bool row = false;
    char id[24];

    if (s->version >= MP_DB_SINCE_FINDINGS &&
        !mp_db_prepare(s,
                       "SELECT run FROM baseline WHERE name = ? ORDER BY at DESC, id DESC LIMIT 1",
                       &q, err) &&
        !mp_db_bind(s, q, err, "t", name))
        mp_db_step(s, q, &row, err);
    if (row)
        snprintf(id, sizeof id, "%" PRId64, (int64_t)sqlite3_column_int64(q, 0));
    sqlite3_finalize(q);
    return err->code ? err->code : find_run(s, row ? id : name, out, err);
}

mp_code mp_against_run(mp_store *s, int64_t run, mp_against *out, mp_error *err)
{
    char id[24];

    snprintf(id, sizeof id, "%" PRId64, run);
    return find_run(s, id, out, err);
}

mp_code mp_against_has(mp_store *s, const mp_against *a, const char *scenario,
                       const char *scenario_hash, bool *out, mp_error *err)
{
    sqlite3_stmt *q = NULL;

    *out = false;
    if (!mp_db_prepare(s,
                       "SELECT 1 FROM cell WHERE run = ? AND scenario = ? AND scenario_hash = ? "
                       "AND " MP_DB_FINISHED,
                       &q, err) &&
        !mp_db_bind(s, q, err, "itt", a->run, scenario, scenario_hash))
        mp_db_step(s, q, out, err);
    sqlite3_finalize(q);
    return err->code;
}
