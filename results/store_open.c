#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/core/memory.h"
#include "results/db.h"

enum { APPLICATION_ID = 0x6d706265, SCHEMA_VERSION = 5, BUSY_MS = 60000 };

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
    if (access(path, R_OK))
        return mp_error_set(err, MP_EDB,
                            "%s: may not be read; change its permissions, or name another file "
                            "with --db",
                            path);
    if ((mode == MP_STORE_WRITE || mode == MP_STORE_UPDATE) && access(path, W_OK))
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

    if (mp_db_begin_writing(s, err))
        return err->code;
    if (!identify(s, &version, err) && version == 0) {
        snprintf(text, sizeof text, "PRAGMA application_id = %d; PRAGMA user_version = %d",
                 (int)APPLICATION_ID, (int)SCHEMA_VERSION);
        if (!mp_db_exec(s, mp_schema_sql, err))
            mp_db_exec(s, text, err);
    }
    return mp_db_end_writing(s, err);
}

/* What makes version n + 1 out of version n, from n = 1. */
static const char *const migrations[SCHEMA_VERSION - 1] = {
    "ALTER TABLE cell ADD COLUMN exception TEXT; ALTER TABLE cell ADD COLUMN frame TEXT",
    "CREATE TABLE policy_action (cell INTEGER NOT NULL REFERENCES cell(id), stage TEXT NOT NULL, "
    "module TEXT NOT NULL, op TEXT NOT NULL, kind TEXT NOT NULL CHECK (kind IN ('cast_in', "
    "'cast_out', 'redo_refused', 'redo_nonfinite')), from_dtype TEXT NOT NULL, to_dtype TEXT NOT "
    "NULL, count INTEGER NOT NULL, elements INTEGER NOT NULL, seconds REAL NOT NULL, PRIMARY KEY "
    "(cell, stage, module, op, kind, from_dtype, to_dtype)) STRICT, WITHOUT ROWID; "
    "CREATE VIEW policy_action_view AS SELECT run.label, run.engine, cell.run, policy_action.cell, "
    "cell.key, cell.scenario, policy_action.stage, policy_action.module, policy_action.op, kind, "
    "from_dtype, to_dtype, count, elements, seconds FROM policy_action JOIN cell ON cell.id = "
    "policy_action.cell JOIN run ON run.id = cell.run",
    "CREATE TABLE op_profile (cell INTEGER NOT NULL REFERENCES cell(id), stage TEXT NOT NULL, "
    "module TEXT NOT NULL, op TEXT NOT NULL, dtype TEXT NOT NULL, calls INTEGER NOT NULL, seconds "
    "REAL NOT NULL, bytes INTEGER NOT NULL, flops INTEGER NOT NULL, PRIMARY KEY (cell, stage, "
    "module, op, dtype)) STRICT, WITHOUT ROWID; "
    "CREATE VIEW op_profile_view AS SELECT run.label, run.engine, cell.run, op_profile.cell, "
    "cell.key, cell.scenario, op_profile.stage, op_profile.module, op_profile.op, dtype, calls, "
    "seconds, bytes, flops FROM op_profile JOIN cell ON cell.id = op_profile.cell JOIN run ON "
    "run.id = cell.run",
    "CREATE TABLE picture ( sha256 TEXT PRIMARY KEY, width INTEGER NOT NULL, height INTEGER "
    "NOT NULL, png BLOB NOT NULL ) STRICT, WITHOUT ROWID; CREATE TABLE cell_picture ( cell "
    "INTEGER NOT NULL REFERENCES cell(id), role TEXT NOT NULL CHECK (role IN ('output', "
    "'reference')), picture TEXT NOT NULL REFERENCES picture(sha256), PRIMARY KEY (cell, "
    "role) ) STRICT, WITHOUT ROWID; CREATE TABLE cell_limit ( cell INTEGER NOT NULL "
    "REFERENCES cell(id), metric TEXT NOT NULL, kind TEXT NOT NULL CHECK (kind IN "
    "('absolute', 'relative')), value REAL NOT NULL, PRIMARY KEY (cell, metric, kind) ) "
    "STRICT, WITHOUT ROWID; CREATE TABLE baseline ( id INTEGER PRIMARY KEY, uuid TEXT NOT "
    "NULL UNIQUE, name TEXT NOT NULL, run INTEGER NOT NULL REFERENCES run(id), at TEXT NOT "
    "NULL, why TEXT ) STRICT; CREATE TABLE finding ( id INTEGER PRIMARY KEY, key TEXT NOT "
    "NULL UNIQUE, kind TEXT NOT NULL CHECK (kind IN ('step', 'trend', 'exact', 'outcome')), "
    "cell_key TEXT NOT NULL, scenario TEXT NOT NULL, engine TEXT NOT NULL, device TEXT NOT "
    "NULL, fingerprint TEXT NOT NULL, metric TEXT NOT NULL, stage TEXT NOT NULL, step INTEGER "
    "NOT NULL, module TEXT NOT NULL, before_cell INTEGER NOT NULL REFERENCES cell(id), "
    "after_cell INTEGER NOT NULL REFERENCES cell(id) ) STRICT; CREATE TABLE finding_event ( "
    "id INTEGER PRIMARY KEY, finding INTEGER NOT NULL REFERENCES finding(id), at TEXT NOT "
    "NULL, state TEXT NOT NULL CHECK (state IN ('detected', 'confirmed', 'acknowledged', "
    "'fixed', 'withdrawn')), why TEXT, before REAL, after REAL, p REAL ) STRICT; CREATE INDEX "
    "finding_event_by_finding ON finding_event(finding, id)",
};

/* Each version in the transaction that says so; another process may have been faster. */
static mp_code migrate(mp_store *s, mp_error *err)
{
    int64_t version;
    char text[64];

    if (mp_db_begin_writing(s, err))
        return err->code;
    if (!identify(s, &version, err)) {
        for (; !err->code && version < SCHEMA_VERSION; version++)
            mp_db_exec(s, migrations[version - 1], err);
        snprintf(text, sizeof text, "PRAGMA user_version = %d", (int)SCHEMA_VERSION);
        if (!err->code)
            mp_db_exec(s, text, err);
    }
    return mp_db_end_writing(s, err);
}

/* Where two turn the same new file to WAL, SQLite tells one of them at once that it is locked,
 * whatever the busy timeout: each could wait for the other for ever.  So the waiting is done here.
 */
static mp_code turn_to_wal(mp_store *s, mp_error *err)
{
    enum { PAUSE_MS = 10 };
    int code = SQLITE_BUSY;

    sqlite3_busy_timeout(s->db, 0);
    for (int waited = 0; code == SQLITE_BUSY && waited < BUSY_MS; waited += PAUSE_MS) {
        if (waited)
            sqlite3_sleep(PAUSE_MS);
        code = sqlite3_exec(s->db, "PRAGMA journal_mode = WAL", NULL, NULL, NULL) & 0xff;
    }
    if (code)
        return mp_db_fail(s, err);
    sqlite3_busy_timeout(s->db, BUSY_MS);
    return MP_OK;
}

static mp_code prepare_for_writing(mp_store *s, mp_error *err)
{
    if (sqlite3_db_readonly(s->db, "main") == 1)
        return mp_error_set(err, MP_EDB,
                            "%s: is read-only; make it writable, or name another file with --db",
                            s->path);
    /* An empty file has nothing to lose.  From then on FULL: a finished cell survives a power cut,
     * not only a kill. */
    if (s->version == 0)
        mp_db_exec(s, "PRAGMA synchronous = NORMAL", err);
    if (err->code || turn_to_wal(s, err) || (s->version == 0 && create(s, err)) ||
        mp_db_exec(s, "PRAGMA synchronous = FULL", err) || s->version == 0)
        return err->code;
    return s->version < SCHEMA_VERSION ? migrate(s, err) : MP_OK;
}

static mp_code configure(mp_store *s, mp_error *err)
{
    sqlite3_extended_result_codes(s->db, 1);
    sqlite3_busy_timeout(s->db, BUSY_MS);
    /* The file is not trusted: no functions with side effects from its schema, and no triggers, of
     * which mpbench has none. */
    sqlite3_db_config(s->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(s->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
    return mp_db_exec(s,
                      "PRAGMA trusted_schema = OFF; PRAGMA foreign_keys = ON; "
                      "PRAGMA cell_size_check = ON",
                      err);
}

static mp_code open_file(mp_store *s, const char *name, int flags, mp_error *err)
{
    if (sqlite3_open_v2(name, &s->db, flags | SQLITE_OPEN_NOMUTEX, NULL))
        return mp_db_fail(s, err);
    /* In one transaction, so that another process which fills the file is seen wholly or not. */
    if (!configure(s, err) && !mp_db_exec(s, "BEGIN", err) && !identify(s, &s->version, err))
        mp_db_exec(s, "COMMIT", err);
    return err->code;
}

/* Whether a file of that ending lies beside the database and holds something. */
static bool has_companion(const mp_store *s, const char *ending)
{
    char *path = sqlite3_mprintf("%s%s", s->path, ending);
    struct stat st;
    const bool there = path && !stat(path, &st) && st.st_size > 0;

    sqlite3_free(path);
    return there;
}

/* In a folder that may not be written, or on a full disk, a WAL database can be read only as
 * immutable: SQLite then needs no files beside it, and would overlook what a killed writer has left
 * in one. */
static mp_code open_immutable(mp_store *s, mp_error *err)
{
    char *uri = sqlite3_mprintf("file:%s?immutable=1", s->path);

    sqlite3_close(s->db);
    s->db = NULL;
    if (!uri)
        mp_error_set(err, MP_ENOMEM, "no memory for a database handle");
    else if (strpbrk(s->path, "?#%") || has_companion(s, "-wal"))
        mp_error_set(
            err, MP_EDB,
            "%s: cannot be read where it lies; make its folder writable, with room on the disk",
            s->path);
    else
        open_file(s, uri, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, err);
    sqlite3_free(uri);
    return err->code;
}

/* What a killed writer has committed may all be in the other file. */
static mp_code check_filled(const mp_store *s, mp_error *err)
{
    struct stat st;

    if (s->version)
        return MP_OK;
    const bool begun = !stat(s->path, &st) && st.st_size > 0;
    return mp_error_set(
        err, MP_EMISSING, "%s: is an empty database; record something with `mpbench run` first%s",
        s->path, begun ? ", or copy its -wal file, too, if that stayed where it comes from" : "");
}

/* Whether the last call failed since SQLite could not make its files beside the database. */
static bool lacks_a_companion(const mp_store *s)
{
    const int code = sqlite3_extended_errcode(s->db);

    return (code & 0xff) == SQLITE_CANTOPEN || (code & 0xff) == SQLITE_READONLY ||
           code == SQLITE_IOERR_SHMOPEN || code == SQLITE_IOERR_SHMSIZE;
}

static mp_code open_to_read(mp_store *s, mp_error *err)
{
    mp_error why = {0};

    if (open_file(s, s->path, SQLITE_OPEN_READONLY, &why)) {
        if (!lacks_a_companion(s))
            return mp_error_set(err, why.code, "%s", why.text);
        if (open_immutable(s, err))
            return err->code;
    }
    return check_filled(s, err);
}

static mp_code open_to_write(mp_store *s, bool fill, mp_error *err)
{
    if (open_file(s, s->path, SQLITE_OPEN_READWRITE | (fill ? SQLITE_OPEN_CREATE : 0), err) ||
        (!fill && check_filled(s, err)) || prepare_for_writing(s, err))
        return err->code;
    s->version = SCHEMA_VERSION;
    return MP_OK;
}

/* The file stays as it is: a copy, which SQLite keeps in a file without a name, takes its place. */
static mp_code renew(mp_store *s, mp_error *err)
{
    mp_store copy = {.path = s->path};

    if (open_file(&copy, "", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, err))
        goto done;
    sqlite3_backup *b = sqlite3_backup_init(copy.db, "main", s->db, "main");
    if (b)
        sqlite3_backup_step(b, -1);
    if (!b || sqlite3_backup_finish(b)) {
        mp_db_fail(&copy, err);
        goto done;
    }
    if (migrate(&copy, err))
        goto done;
    sqlite3_close(s->db);
    s->db = copy.db;
    s->version = SCHEMA_VERSION;
    return MP_OK;
done:
    sqlite3_close(copy.db);
    return err->code;
}

mp_code mp_store_open(const char *path, mp_store_mode mode, mp_store **out, mp_error *err)
{
    mp_store *s;

    *out = NULL;
    if (check_path(path, mode, err))
        return err->code;
    s = mp_alloc(1, sizeof *s);
    if (!s || !(s->path = mp_strdup(path))) {
        mp_free(s);
        return mp_error_set(err, MP_ENOMEM, "no memory for a database handle");
    }
    if (mode == MP_STORE_WRITE || mode == MP_STORE_UPDATE)
        open_to_write(s, mode == MP_STORE_WRITE, err);
    else if (!open_to_read(s, err) && mode == MP_STORE_RENEW && s->version < SCHEMA_VERSION)
        renew(s, err);
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
