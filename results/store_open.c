#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/core/memory.h"
#include "results/db.h"

enum { APPLICATION_ID = 0x6d706265, SCHEMA_VERSION = 1, BUSY_MS = 60000 };

extern const char mp_schema_sql[]; /* results/schema.sql */

/* What can be said of the path before SQLite sees it, in plainer words than its own. */
static mp_code check_path(const char *path, mp_store_mode mode, mp_error *err)
{
    struct stat st;

    if (stat(path, &st)) {
        if (errno == ENOENT && mode == MP_STORE_WRITE)
            return MP_OK;
        return mp_error_set(err, errno == ENOENT ? MP_EMISSING : MP_EDB, "%s: %s; %s", path,
                            errno == ENOENT ? "there is no such database" : strerror(errno),
                            mode == MP_STORE_WRITE
                                ? "name another file with --db"
                                : "record something with `mpbench run` first, or name the file "
                                  "with --db or MPBENCH_DB");
    }
    if (!S_ISREG(st.st_mode))
        return mp_error_set(err, MP_EDB, "%s: is %s, expected a database file; name one with --db",
                            path, S_ISDIR(st.st_mode) ? "a folder" : "no regular file");
    if (mode == MP_STORE_WRITE && access(path, W_OK))
        return mp_error_set(err, MP_EDB,
                            "%s: is read-only; make it writable, or name another file with --db",
                            path);
    return MP_OK;
}

static mp_code pragma_int(mp_store *s, const char *sql, int64_t *out, mp_error *err)
{
    sqlite3_stmt *q;
    bool row = false;

    *out = 0;
    if (!mp_db_prepare(s, sql, &q, err) && !mp_db_step(s, q, &row, err) && row)
        *out = sqlite3_column_int64(q, 0);
    sqlite3_finalize(q);
    return err->code;
}

/* *version 0: empty, to be filled. */
static mp_code identify(mp_store *s, int64_t *version, mp_error *err)
{
    int64_t id, objects;

    if (pragma_int(s, "PRAGMA application_id", &id, err) ||
        pragma_int(s, "PRAGMA user_version", version, err) ||
        pragma_int(s, "SELECT count(*) FROM sqlite_master", &objects, err))
        return err->code;
    if (id == 0 && *version == 0 && objects == 0)
        return MP_OK;
    if (id != APPLICATION_ID)
        return mp_error_set(err, MP_EDB,
                            "%s: is a database of another program (application_id 0x%llx, expected "
                            "0x%x); name another file with --db",
                            s->path, (long long)id, (unsigned)APPLICATION_ID);
    if (*version > SCHEMA_VERSION)
        return mp_error_set(err, MP_EDB,
                            "%s: has schema version %lld, and this mpbench knows versions up to "
                            "%d; use a newer mpbench for it, or name another file with --db",
                            s->path, (long long)*version, (int)SCHEMA_VERSION);
    if (*version < 1)
        return mp_error_set(err, MP_EDB,
                            "%s: has schema version %lld, which never existed; name "
                            "another file with --db",
                            s->path, (long long)*version);
    return MP_OK;
}

/* Fills an empty file.  Another process may have been faster: looked at again inside. */
static mp_code create(mp_store *s, mp_error *err)
{
    int64_t version;
    char text[80];

    if (mp_db_exec(s, "BEGIN IMMEDIATE", err))
        return err->code;
    if (!identify(s, &version, err) && version == 0) {
        snprintf(text, sizeof text, "PRAGMA application_id = %d; PRAGMA user_version = %d",
                 (int)APPLICATION_ID, (int)SCHEMA_VERSION);
        if (!mp_db_exec(s, mp_schema_sql, err))
            mp_db_exec(s, text, err);
    }
    if (!err->code && !mp_db_exec(s, "COMMIT", err))
        return MP_OK;
    sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    return err->code;
}

static mp_code prepare_for_writing(mp_store *s, int64_t version, mp_error *err)
{
    if (sqlite3_db_readonly(s->db, "main") == 1)
        return mp_error_set(err, MP_EDB,
                            "%s: is read-only; make it writable, or name another file with --db",
                            s->path);
    /* FULL: a finished cell survives a power cut, not only a kill. */
    if (mp_db_exec(s, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL", err))
        return err->code;
    return version == 0 ? create(s, err) : MP_OK;
}

static mp_code configure(mp_store *s, mp_error *err)
{
    sqlite3_extended_result_codes(s->db, 1);
    sqlite3_busy_timeout(s->db, BUSY_MS);
    /* The file is not trusted: no functions with side effects from its schema. */
    sqlite3_db_config(s->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    return mp_db_exec(s,
                      "PRAGMA trusted_schema = OFF; PRAGMA foreign_keys = ON; "
                      "PRAGMA cell_size_check = ON",
                      err);
}

static int open_file(mp_store *s, mp_store_mode mode)
{
    const int flags =
        mode == MP_STORE_WRITE ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : SQLITE_OPEN_READONLY;

    return sqlite3_open_v2(s->path, &s->db, flags | SQLITE_OPEN_NOMUTEX, NULL);
}

/* A WAL database in a folder that may not be written can be read only as immutable. */
static mp_code reopen_immutable(mp_store *s, mp_error *err)
{
    char *uri = sqlite3_mprintf("file:%s?immutable=1", s->path);
    const bool plain = uri && !strpbrk(s->path, "?#%");
    int64_t version;

    sqlite3_close(s->db);
    s->db = NULL;
    const int code =
        plain ? sqlite3_open_v2(uri, &s->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, NULL)
              : SQLITE_CANTOPEN;
    sqlite3_free(uri);
    if (code)
        return mp_error_set(err, MP_EDB, "%s: cannot be read; make its folder writable", s->path);
    *err = (mp_error){0};
    return configure(s, err) || identify(s, &version, err) ? err->code : MP_OK;
}

mp_code mp_store_open(const char *path, mp_store_mode mode, mp_store **out, mp_error *err)
{
    mp_store *s;
    int64_t version = 0;

    *out = NULL;
    if (check_path(path, mode, err))
        return err->code;
    s = mp_alloc(1, sizeof *s);
    if (!s || !(s->path = mp_strdup(path))) {
        mp_free(s);
        return mp_error_set(err, MP_ENOMEM, "no memory for a database handle");
    }
    if (open_file(s, mode))
        mp_db_fail(s, err);
    else if (!configure(s, err))
        identify(s, &version, err);
    if (err->code && mode == MP_STORE_READ && s->db && sqlite3_errcode(s->db) == SQLITE_CANTOPEN)
        reopen_immutable(s, err);
    if (!err->code && mode == MP_STORE_WRITE)
        prepare_for_writing(s, version, err);
    else if (!err->code && version == 0)
        mp_error_set(err, MP_EMISSING,
                     "%s: is an empty database; record something with `mpbench run` first", path);
    if (err->code) {
        mp_store_close(s);
        return err->code;
    }
    *out = s;
    return MP_OK;
}

void mp_store_close(mp_store *s)
{
    if (!s)
        return;
    sqlite3_close(s->db);
    mp_free(s->path);
    mp_free(s);
}

const char *mp_store_path(const mp_store *s)
{
    return s->path;
}
