#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "results/ci.h"
#include "results/db.h"
#include "results/table.h"

/* Bytes: those who show it cut longer ones, or refuse the file. */
enum { MESSAGE = 500, BODY = 8000 };

/* ?1: a UUID.  After --resume, a run holds an interrupted cell and its repetition: only the last
 * one counts. */
#define CELLS                                                                                    \
    "WITH chosen AS (SELECT id AS run, row_number() OVER (ORDER BY id) AS round, count(*) OVER " \
    "() AS rounds FROM run WHERE uuid = ?1 OR id IN (SELECT run FROM run_environment WHERE key " \
    "= 'rounds' AND value = ?1)), "                                                              \
    "newest AS (SELECT max(cell.id) AS id, round, rounds FROM chosen CROSS JOIN cell USING "     \
    "(run) GROUP BY run, key), "                                                                 \
    "judged AS (SELECT cell.*, round, rounds, CASE "                                             \
    "WHEN status IN ('running', 'interrupted') THEN 'skipped' "                                  \
    "WHEN as_expected = 0 AND status = 'ok' THEN 'failure' "                                     \
    "WHEN as_expected = 0 AND outcome = 'unsupported' THEN 'skipped' "                           \
    "WHEN as_expected = 0 THEN 'error' WHEN budget IS NOT NULL THEN 'failure' END AS element, "  \
    "max(0.0, 86400 * (julianday(ended) - julianday(started))) AS seconds "                      \
    "FROM newest JOIN cell USING (id)) "
#define COUNTS                                                                       \
    "count(*), count(*) FILTER (WHERE element = 'failure'), count(*) FILTER (WHERE " \
    "element = 'error'), count(*) FILTER (WHERE element = 'skipped'), total(seconds)"

/* ---- XML ------------------------------------------------------------------------------------ */

/* The beginning of the text, as XML 1.0 can carry it: other characters become \xNN, as on a
 * terminal. */
static void put_xml(FILE *to, const char *text, size_t most)
{
    static const char special[] = "&<>\"";
    static const char *const entities[] = {"&amp;", "&lt;", "&gt;", "&quot;"};
    size_t n = 0;

    while (text[n] && n < most) {
        const char *s = text + n, *found = strchr(special, *s);
        const int bytes = mp_plain_bytes(s);
        if (found)
            fputs(entities[found - special], to);
        else if (*s == '\n')
            fputs("&#10;", to); /* in an attribute, a plain one would become a space */
        else if (bytes)
            fwrite(s, 1, (size_t)bytes, to);
        else
            fprintf(to, "\\x%02x", (unsigned char)*s);
        n += bytes ? (size_t)bytes : 1;
    }
    fputs(text[n] ? "..." : "", to);
}

static void put_attribute(FILE *to, const char *name, const char *value)
{
    fprintf(to, " %s=\"", name);
    put_xml(to, value, MESSAGE);
    fputc('"', to);
}

/* Five columns: tests, failures, errors, skipped, seconds.  junit-10.xsd has no skipped at the
 * root. */
static void put_counts(FILE *to, sqlite3_stmt *q, int column, bool root)
{
    static const char *const names[] = {"tests", "failures", "errors", "skipped"};

    for (int i = 0; i < (root ? 3 : 4); i++)
        fprintf(to, " %s=\"%" PRId64 "\"", names[i], (int64_t)sqlite3_column_int64(q, column + i));
    fprintf(to, " time=\"%.3f\"", sqlite3_column_double(q, column + 4));
}

/* ---- a cell --------------------------------------------------------------------------------- */

enum {
    ID,
    KEY,
    ELEMENT,
    SECONDS,
    STATUS,
    OUTCOME,
    EXPECTED,
    ERROR,
    MODULE,
    OP,
    BUDGET,
    REPRO,
    WARNINGS,
    ROUND,
    ROUNDS
};
#define FIELDS                                                                                 \
    "id, key, element, seconds, status, outcome, expected, error, module, op, budget, repro, " \
    "warnings, round, rounds"

static const char *message(sqlite3_stmt *q, const char *element)
{
    if (*mp_db_text(q, ERROR))
        return mp_db_text(q, ERROR);
    if (!strcmp(element, "skipped"))
        return "the run was interrupted";
    if (*mp_db_text(q, BUDGET))
        return mp_db_text(q, BUDGET);
    return !strcmp(element, "failure") ? "succeeded, which was not expected"
                                       : mp_db_text(q, STATUS);
}

static const char *type(sqlite3_stmt *q, const char *element)
{
    if (*mp_db_text(q, OUTCOME))
        return mp_db_text(q, OUTCOME);
    if (strcmp(element, "failure"))
        return mp_db_text(q, STATUS);
    return *mp_db_text(q, BUDGET) ? "budget" : "expectation";
}

/* "module: vae.decoder", where there is one. */
static void put_line(FILE *to, const char *name, const char *text)
{
    if (!*text)
        return;
    fprintf(to, "%s: ", name);
    put_xml(to, text, BODY);
    fputs("&#10;", to);
}

static void put_problem(FILE *to, sqlite3_stmt *q)
{
    const char *element = mp_db_text(q, ELEMENT);

    if (!*element)
        return;
    fprintf(to, "      <%s", element);
    if (strcmp(element, "skipped"))
        put_attribute(to, "type", type(q, element));
    put_attribute(to, "message", message(q, element));
    if (!strcmp(element, "skipped")) {
        fputs("/>\n", to);
        return;
    }
    fputc('>', to);
    put_line(to, "status", mp_db_text(q, STATUS));
    put_line(to, "expected", *mp_db_text(q, EXPECTED) ? mp_db_text(q, EXPECTED) : "success");
    put_line(to, "error", mp_db_text(q, ERROR));
    put_line(to, "module", mp_db_text(q, MODULE));
    put_line(to, "op", mp_db_text(q, OP));
    put_line(to, "budget", mp_db_text(q, BUDGET));
    put_line(to, "repro", mp_db_text(q, REPRO));
    fprintf(to, "</%s>\n", element);
}

#define METRICS                                                                             \
    "SELECT name, coalesce(value, nonfinite), unit FROM metric WHERE cell = ? AND stage = " \
    "'run' AND step = -1 AND module = '' ORDER BY name"

static mp_code put_metrics(mp_store *s, int64_t cell, FILE *to, mp_error *err)
{
    sqlite3_stmt *q = NULL;
    bool row = true;

    if (!mp_db_prepare(s, METRICS, &q, err) && !mp_db_bind(s, q, err, "i", cell))
        while (!mp_db_step(s, q, &row, err) && row)
            for (int i = 0; i < 3; i++) {
                if (sqlite3_column_type(q, i) == SQLITE_FLOAT)
                    fprintf(to, "%.9g", sqlite3_column_double(q, i));
                else
                    put_xml(to, mp_db_text(q, i), MESSAGE);
                fputc(i < 2 ? ' ' : '\n', to);
            }
    sqlite3_finalize(q);
    return err->code;
}

static mp_code put_case(mp_store *s, const char *scenario, sqlite3_stmt *q, FILE *to, mp_error *err)
{
    const char *key = mp_db_text(q, KEY);
    const size_t n = strlen(scenario);
    const bool prefixed = !strncmp(key, scenario, n) && key[n] == '/';

    fputs("    <testcase", to);
    put_attribute(to, "classname", scenario);
    fputs(" name=\"", to);
    put_xml(to, prefixed ? key + n + 1 : key, MESSAGE);
    if (sqlite3_column_int(q, ROUNDS) > 1)
        fprintf(to, ", round %d", sqlite3_column_int(q, ROUND));
    fprintf(to, "\" time=\"%.3f\">\n", sqlite3_column_double(q, SECONDS));
    put_problem(to, q);
    fprintf(to, "      <system-out>cell %" PRId64 ", ", (int64_t)sqlite3_column_int64(q, ID));
    put_xml(to, mp_db_text(q, STATUS), MESSAGE);
    fputc('\n', to);
    if (!*mp_db_text(q, ELEMENT))
        put_line(to, "expected", mp_db_text(q, EXPECTED));
    put_metrics(s, sqlite3_column_int64(q, ID), to, err);
    put_line(to, "warnings", mp_db_text(q, WARNINGS));
    fputs("</system-out>\n    </testcase>\n", to);
    return err->code;
}

/* ---- suites --------------------------------------------------------------------------------- */

static mp_code put_properties(mp_store *s, const char *uuid, FILE *to, mp_error *err)
{
    sqlite3_stmt *q = NULL;
    bool row = true;

    fputs("    <properties>\n", to);
    if (!mp_db_prepare(
            s,
            "SELECT 'engine', engine FROM run WHERE uuid = ?1 UNION ALL "
            "SELECT 'device', device FROM run WHERE uuid = ?1 UNION ALL "
            "SELECT 'fingerprint', fingerprint FROM run WHERE uuid = ?1 UNION ALL "
            "SELECT key, value FROM run_environment JOIN run ON run.id = run WHERE uuid = ?1",
            &q, err) &&
        !mp_db_bind(s, q, err, "t", uuid))
        while (!mp_db_step(s, q, &row, err) && row) {
            fputs("      <property", to);
            put_attribute(to, "name", mp_db_text(q, 0));
            put_attribute(to, "value", mp_db_text(q, 1));
            fputs("/>\n", to);
        }
    sqlite3_finalize(q);
    fputs("    </properties>\n", to);
    return err->code;
}

/* suite: a row of scenario, start and counts. */
static mp_code put_suite(mp_store *s, const char *uuid, sqlite3_stmt *suite, FILE *to,
                         mp_error *err)
{
    const char *scenario = mp_db_text(suite, 0);
    char started[20]; /* to the second, without a zone */
    sqlite3_stmt *q = NULL;
    bool row = true;

    fputs("  <testsuite", to);
    put_attribute(to, "name", scenario);
    put_counts(to, suite, 2, false);
    snprintf(started, sizeof started, "%s", mp_db_text(suite, 1));
    put_attribute(to, "timestamp", started);
    fputs(">\n", to);
    if (!put_properties(s, uuid, to, err) &&
        !mp_db_prepare(s, CELLS "SELECT " FIELDS " FROM judged WHERE scenario = ?2 ORDER BY id", &q,
                       err) &&
        !mp_db_bind(s, q, err, "tt", uuid, scenario))
        while (!mp_db_step(s, q, &row, err) && row && !put_case(s, scenario, q, to, err))
            ;
    sqlite3_finalize(q);
    fputs("  </testsuite>\n", to);
    return err->code;
}

static mp_code put_head(mp_store *s, const char *uuid, FILE *to, mp_error *err)
{
    sqlite3_stmt *q = NULL;
    bool row = false;

    fputs("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"mpbench\"", to);
    if (!mp_db_prepare(s, CELLS "SELECT " COUNTS " FROM judged", &q, err) &&
        !mp_db_bind(s, q, err, "t", uuid) && !mp_db_step(s, q, &row, err) && row)
        put_counts(to, q, 0, true);
    sqlite3_finalize(q);
    fputs(">\n", to);
    return err->code;
}

static mp_code put_suites(mp_store *s, const char *uuid, FILE *to, mp_error *err)
{
    sqlite3_stmt *q = NULL;
    bool row = true;

    if (!put_head(s, uuid, to, err) &&
        !mp_db_prepare(s,
                       CELLS "SELECT scenario, min(started), " COUNTS
                             " FROM judged GROUP BY scenario ORDER BY min(id)",
                       &q, err) &&
        !mp_db_bind(s, q, err, "t", uuid))
        while (!mp_db_step(s, q, &row, err) && row && !put_suite(s, uuid, q, to, err))
            ;
    sqlite3_finalize(q);
    fputs("</testsuites>\n", to);
    return err->code;
}

mp_code mp_junit_print(mp_store *s, const char *uuid, FILE *to, mp_error *err)
{
    if (mp_db_begin_reading(s, err))
        return err->code;
    put_suites(s, uuid, to, err);
    mp_db_end_reading(s);
    return err->code;
}
