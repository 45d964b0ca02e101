#include "results/db.h"

#include <math.h>
#include <string.h>

#include "results/table.h"

/* What to do about a failure, by SQLite's primary result code. */
static const char *remedy(int code)
{
    switch (code) {
    case SQLITE_FULL:
        return "make room on the disk; what was recorded is kept";
    case SQLITE_IOERR:
        return "check the disk and its free space; what was recorded is kept";
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return "make the file and its folder writable, or name another one with --db";
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return "another program holds it; wait for that one, or name another file with --db";
    case SQLITE_CANTOPEN:
        return "check that the folder exists and may be written, or name another file with --db";
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_ERROR:
        return "the file is damaged or not made by mpbench; rescue it with sqlite3's .recover, or "
               "name another file with --db";
    case SQLITE_CONSTRAINT:
        return "the row was refused and nothing has changed; please report this";
    default:
        return "name another file with --db if this one cannot be repaired";
    }
}

mp_code mp_db_fail(mp_store *s, mp_error *err)
{
    const int code = sqlite3_errcode(s->db) & 0xff;

    return mp_error_set(err, code == SQLITE_NOMEM ? MP_ENOMEM : MP_EDB, "%s: %s (SQLite %d): %s",
                        s->path, sqlite3_errmsg(s->db), sqlite3_extended_errcode(s->db),
                        remedy(code));
}

mp_code mp_db_prepare(mp_store *s, const char *sql, sqlite3_stmt **out, mp_error *err)
{
    *out = NULL;
    return sqlite3_prepare_v2(s->db, sql, -1, out, NULL) ? mp_db_fail(s, err) : MP_OK;
}

mp_code mp_db_bind(mp_store *s, sqlite3_stmt *q, mp_error *err, const char *types, ...)
{
    va_list args;
    int failed = 0;

    va_start(args, types);
    for (int i = 1; types[i - 1]; i++) {
        if (types[i - 1] == 't') {
            const char *text = va_arg(args, const char *);
            failed |= sqlite3_bind_text(q, i, text, -1, SQLITE_TRANSIENT);
        } else if (types[i - 1] == 'i') {
            failed |= sqlite3_bind_int64(q, i, va_arg(args, int64_t));
        } else if (types[i - 1] == 'b') {
            const void *bytes = va_arg(args, const void *);
            failed |= sqlite3_bind_blob64(q, i, bytes, va_arg(args, size_t), SQLITE_TRANSIENT);
        } else {
            const double value = va_arg(args, double);
            failed |= isnan(value) ? sqlite3_bind_null(q, i) : sqlite3_bind_double(q, i, value);
        }
    }
    va_end(args);
    return failed ? mp_db_fail(s, err) : MP_OK;
}

mp_code mp_db_step(mp_store *s, sqlite3_stmt *q, bool *row, mp_error *err)
{
    const int code = sqlite3_step(q);

    *row = code == SQLITE_ROW;
    return code == SQLITE_ROW || code == SQLITE_DONE ? MP_OK : mp_db_fail(s, err);
}

mp_code mp_db_put(mp_store *s, sqlite3_stmt *q, mp_error *err)
{
    bool row;

    mp_db_step(s, q, &row, err);
    sqlite3_reset(q);
    return err->code;
}

mp_code mp_db_exec(mp_store *s, const char *sql, mp_error *err)
{
    return sqlite3_exec(s->db, sql, NULL, NULL, NULL) ? mp_db_fail(s, err) : MP_OK;
}

mp_code mp_db_begin_reading(mp_store *s, mp_error *err)
{
    return mp_db_exec(s, "BEGIN", err);
}

void mp_db_end_reading(mp_store *s)
{
    sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
}

mp_code mp_db_begin_writing(mp_store *s, mp_error *err)
{
    return mp_db_exec(s, "BEGIN IMMEDIATE", err);
}

mp_code mp_db_end_writing(mp_store *s, mp_error *err)
{
    if (err->code || mp_db_exec(s, "COMMIT", err))
        sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    return err->code;
}

void mp_db_list(mp_store *s, const char *sql, const char *key, char *out, size_t size)
{
    sqlite3_stmt *q = NULL;
    mp_error quiet = {0};
    bool row = true;

    out[0] = '\0';
    if (!mp_db_prepare(s, sql, &q, &quiet) &&
        (!sqlite3_bind_parameter_count(q) || !mp_db_bind(s, q, &quiet, "t", key)))
        while (!mp_db_step(s, q, &row, &quiet) && row)
            mp_append_plain(out, size, *out ? ", " : "", mp_db_text(q, 0));
    sqlite3_finalize(q);
}

const char *mp_db_text(sqlite3_stmt *q, int column)
{
    const char *text = (const char *)sqlite3_column_text(q, column);

    return text ? text : "";
}

double mp_db_number(sqlite3_stmt *q, int value, int nonfinite)
{
    if (sqlite3_column_type(q, value) != SQLITE_NULL)
        return sqlite3_column_double(q, value);
    const char *name = mp_db_text(q, nonfinite);
    return !strcmp(name, "inf") ? INFINITY : !strcmp(name, "-inf") ? -INFINITY : NAN;
}
