/* SQLite for the rest of this folder: statements with bound parameters, errors with a remedy.
 *
 *     sqlite3_stmt *q = NULL;
 *     if (mp_db_prepare(s, "SELECT id FROM run WHERE uuid = ?", &q, err) ||
 *         mp_db_bind(s, q, err, "t", uuid) || mp_db_step(s, q, &row, err)) ...
 *     sqlite3_finalize(q);
 */
#ifndef MP_RESULTS_DB_H
#define MP_RESULTS_DB_H

#include <sqlite3.h>

#include "results/store.h"

/* The time of day as it is recorded everywhere: UTC, ISO 8601, to the millisecond. */
#define MP_DB_NOW "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"

/* What a run told of its environment, in SQL where a row of `run` is at hand:
 * MP_DB_TOLD "'git_commit')". */
#define MP_DB_TOLD "(SELECT value FROM run_environment e WHERE e.run = run.id AND e.key = "
/* The commit of what ran, or its version.  A library under test tells its own in keys that begin
 * with its engine's name (harness/engines/PROTOCOL.md): the version always, a commit if it can. */
#define MP_DB_REVISION                                                                         \
    "CASE run.engine WHEN 'native' THEN " MP_DB_TOLD "'git_commit') ELSE coalesce(" MP_DB_TOLD \
    "run.engine || '.git_commit_' || run.engine), " MP_DB_TOLD                                 \
    "run.engine || '.git_commit'), " MP_DB_TOLD "run.engine || '.version')) END"
/* All that a library told, by which one build of it is known; NULL for the native engine. */
#define MP_DB_LIBRARY                                                                      \
    "(SELECT group_concat(key || '=' || value, char(10)) FROM (SELECT key, value FROM "    \
    "run_environment e WHERE e.run = run.id AND substr(key, 1, length(run.engine) + 1) = " \
    "run.engine || '.' ORDER BY key))"

/* Of a row of `cell`: it came to an end of its own. */
#define MP_DB_FINISHED "cell.status NOT IN ('running', 'interrupted')"

/* The newest of a group of cells, each with its run: by the start of the run and then by id, which
 * alone says nothing after a merge.  The id is the end of the largest text. */
#define MP_DB_NEWEST "CAST(substr(max(run.started || printf('%020d', cell.id)), -20) AS INTEGER)"

/* Versions of the schema, for databases that are only read: those from which on it has op_profile;
 * pictures, limits, baselines and findings. */
enum { MP_DB_SINCE_PROFILES = 4, MP_DB_SINCE_FINDINGS = 5 };

struct mp_store {
    sqlite3 *db;
    char *path;
    int64_t version; /* of the schema: one that is only read may be an older one */
};

mp_code mp_db_prepare(mp_store *s, const char *sql, sqlite3_stmt **out, mp_error *err);
/* All parameters in order, by type: t text (NULL binds NULL), i int64_t, d double (NaN binds
 * NULL), b bytes: const void * and size_t. */
mp_code mp_db_bind(mp_store *s, sqlite3_stmt *q, mp_error *err, const char *types, ...);
/* *row false: no more rows. */
mp_code mp_db_step(mp_store *s, sqlite3_stmt *q, bool *row, mp_error *err);
/* One row through a statement that writes and whose parameters are bound. */
mp_code mp_db_put(mp_store *s, sqlite3_stmt *q, mp_error *err);
/* Statements without parameters whose rows, if any, do not matter. */
mp_code mp_db_exec(mp_store *s, const char *sql, mp_error *err);
/* Everything read between the two is of one moment, whoever writes meanwhile. */
mp_code mp_db_begin_reading(mp_store *s, mp_error *err);
void mp_db_end_reading(mp_store *s);
/* Everything written between the two, from what is read there, or nothing of it: the end commits,
 * and rolls back after any failure, which it returns. */
mp_code mp_db_begin_writing(mp_store *s, mp_error *err);
mp_code mp_db_end_writing(mp_store *s, mp_error *err);
/* MP_EDB with SQLite's own words, the file and what helps. */
mp_code mp_db_fail(mp_store *s, mp_error *err);
/* The first column of all rows, for a message: each short and fit for a terminal, as many as there
 * is room for.  key is bound where there is a parameter. */
void mp_db_list(mp_store *s, const char *sql, const char *key, char *out, size_t size);
/* A metric's value: the one column, or what the other names for a number that SQLite cannot hold.
 */
double mp_db_number(sqlite3_stmt *q, int value, int nonfinite);
/* Text of a column, "" for NULL; valid until the next step. */
const char *mp_db_text(sqlite3_stmt *q, int column);

#endif
