/* A folder of one test program under TMPDIR or /tmp, and a second look at its databases: by plain
 * SQLite, not by the code that wrote them. */
#ifndef MP_TESTS_RESULTS_SCRATCH_H
#define MP_TESTS_RESULTS_SCRATCH_H

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "kernels/core/status.h"

#define SCRATCH_UNUSED __attribute__((unused))

static char scratch_path[256];

static SCRATCH_UNUSED int scratch_make(void **state)
{
    const char *base = getenv("TMPDIR");

    (void)state;
    snprintf(scratch_path, sizeof scratch_path, "%s/mpbench-results-XXXXXX",
             base && *base ? base : "/tmp");
    if (!mkdtemp(scratch_path) || chmod(scratch_path, 0755)) /* other users look in, too */
        return -1;
    return 0;
}

static int scratch_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static SCRATCH_UNUSED int scratch_remove(void **state)
{
    (void)state;
    return nftw(scratch_path, scratch_remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static SCRATCH_UNUSED const char *scratch_folder(void)
{
    return scratch_path;
}

/* The path stays valid for the next seven calls. */
static SCRATCH_UNUSED const char *scratch_file(const char *name)
{
    static char paths[8][512];
    static int next;
    char *path = paths[next++ % 8];

    snprintf(path, sizeof paths[0], "%s/%s", scratch_path, name);
    return path;
}

static SCRATCH_UNUSED void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static SCRATCH_UNUSED int64_t file_size(const char *path)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return st.st_size;
}

static SCRATCH_UNUSED void overwrite(const char *path, long offset, int64_t n)
{
    assert_true(n > 0 && offset + n <= file_size(path));
    FILE *f = fopen(path, "r+");
    assert_non_null(f);
    assert_int_equal(fseek(f, offset, SEEK_SET), 0);
    for (int64_t i = 0; i < n; i++)
        fputc(0xa5, f);
    assert_int_equal(fclose(f), 0);
}

/* ---- SQL ------------------------------------------------------------------------------------ */

static sqlite3 *sql_open(const char *path)
{
    sqlite3 *db = NULL;

    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    sqlite3_busy_timeout(db, 10000);
    return db;
}

static SCRATCH_UNUSED void sql_run(const char *path, const char *sql)
{
    sqlite3 *db = sql_open(path);

    if (sqlite3_exec(db, sql, NULL, NULL, NULL))
        fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    sqlite3_close(db);
}

/* First column of the first row, "NULL" for NULL and for no row; free it. */
static SCRATCH_UNUSED char *sql_text(const char *path, const char *sql)
{
    sqlite3 *db = sql_open(path);
    sqlite3_stmt *q = NULL;
    const unsigned char *text = NULL;
    char *copy;

    if (sqlite3_prepare_v2(db, sql, -1, &q, NULL))
        fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    const int code = sqlite3_step(q);
    if (code == SQLITE_ROW)
        text = sqlite3_column_text(q, 0);
    else if (code != SQLITE_DONE)
        fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    copy = strdup(text ? (const char *)text : "NULL");
    assert_non_null(copy);
    sqlite3_finalize(q);
    sqlite3_close(db);
    return copy;
}

static SCRATCH_UNUSED void assert_sql(const char *path, const char *sql, const char *expected)
{
    char *text = sql_text(path, sql);

    if (strcmp(text, expected))
        fail_msg("%s: got \"%s\", expected \"%s\"", sql, text, expected);
    free(text);
}

static SCRATCH_UNUSED void assert_sql_fails(const char *path, const char *sql, const char *part)
{
    sqlite3 *db = sql_open(path);

    assert_int_not_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    if (!strstr(sqlite3_errmsg(db), part))
        fail_msg("%s: \"%s\" does not contain \"%s\"", sql, sqlite3_errmsg(db), part);
    sqlite3_close(db);
}

/* In a forked child: says why and ends it. */
static SCRATCH_UNUSED void child_fails(const mp_error *err)
{
    fprintf(stderr, "child: %s\n", err->text);
    _exit(1);
}

#endif
