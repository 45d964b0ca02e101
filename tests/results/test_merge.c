/* `mpbench merge`: everything is carried, once, whatever the order, or nothing. */
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "kernels/core/memory.h"
#include "results/merge.h"
#include "tests/results/full.h"

/* ---- merging -------------------------------------------------------------------------------- */

static char *notes; /* of the last merge */

static mp_code try_merge(const char *out, const char *in, mp_merge_report *r, mp_error *err)
{
    mp_store *a = NULL, *b = NULL;
    size_t size;

    free(notes);
    FILE *f = open_memstream(&notes, &size);
    assert_non_null(f);
    if (!mp_store_open(in, MP_STORE_RENEW, &b, err) && !mp_store_open(out, MP_STORE_WRITE, &a, err))
        mp_merge(a, b, f, r, err);
    mp_store_close(a);
    mp_store_close(b);
    assert_int_equal(fclose(f), 0);
    return err->code;
}

static mp_merge_report merge(const char *out, const char *in)
{
    mp_merge_report r;
    mp_error err = {0};

    if (try_merge(out, in, &r, &err))
        fail_msg("%s", err.text);
    return r;
}

static void assert_count(mp_merge_count n, int64_t added, int64_t updated, int64_t there)
{
    assert_int_equal(n.added, added);
    assert_int_equal(n.updated, updated);
    assert_int_equal(n.there, there);
}

/* The merge fails with that text, and OUT says what it said. */
static void refuses(const char *out, const char *in, const char *part)
{
    mp_merge_report r;
    mp_error err = {0};
    char *before = full_content(out);

    assert_int_equal(try_merge(out, in, &r, &err), MP_EDB);
    if (!strstr(err.text, in) || !strstr(err.text, part))
        fail_msg("\"%s\" does not name %s or does not contain \"%s\"", err.text, in, part);
    char *after = full_content(out);
    assert_string_equal(after, before);
    free(before);
    free(after);
}

static char *bytes_of(const char *path, size_t *n)
{
    char *bytes = malloc((size_t)file_size(path));
    FILE *f = fopen(path, "rb");

    assert_non_null(bytes);
    assert_non_null(f);
    *n = fread(bytes, 1, (size_t)file_size(path), f);
    assert_int_equal(fclose(f), 0);
    return bytes;
}

/* ---- everything, once ----------------------------------------------------------------------- */

static void test_merge__carries_every_table(void **state)
{
    (void)state;
    const char *in = scratch_file("full.db"), *out = scratch_file("carried.db");
    char sql[80], *tables;

    full_database(in, "1");
    const mp_merge_report r = merge(out, in);
    assert_count(r.runs, 1, 0, 0);
    assert_count(r.cells, 2, 0, 0);
    assert_true(r.rest.added > 15 && !r.rest.updated && !r.rest.there && !r.kept);
    assert_string_equal(notes, "");
    assert_same_content(out, in);
    tables = sql_text(in, "SELECT group_concat(name) FROM sqlite_master WHERE type = 'table'");
    for (char *t = strtok(tables, ","); t; t = strtok(NULL, ",")) {
        snprintf(sql, sizeof sql, "SELECT count(*) FROM %s", t);
        char *n = sql_text(in, sql);
        if (!strcmp(n, "0"))
            fail_msg("tests/results/full.h has no row for the table %s", t);
        assert_sql(out, sql, n);
        free(n);
    }
    free(tables);
}

static void test_merge__twice_changes_nothing(void **state)
{
    (void)state;
    const char *in = scratch_file("once.db"), *out = scratch_file("twice.db");
    size_t size, again;

    full_database(in, "12");
    merge(out, in);
    char *before = bytes_of(out, &size);
    const mp_merge_report r = merge(out, in);
    assert_count(r.runs, 0, 0, 2);
    assert_count(r.cells, 0, 0, 4);
    assert_count(r.rest, 0, 0, r.rest.there);
    char *after = bytes_of(out, &again);
    assert_int_equal(again, size);
    /* but for the header's counters, at 24 and 92 */
    assert_memory_equal(after + 100, before + 100, size - 100);
    free(before);
    free(after);
}

static void test_merge__in_any_order_gives_the_same(void **state)
{
    (void)state;
    const char *a = scratch_file("a.db"), *b = scratch_file("b.db"), *c = scratch_file("c.db");
    const char *ab = scratch_file("ab.db"), *ba = scratch_file("ba.db"),
               *whole = scratch_file("abc.db");

    full_database(a, "1");
    full_database(b, "23");
    full_database(c, "34"); /* run 3 is in both */
    full_database(whole, "1234");
    merge(ab, a), merge(ab, b), merge(ab, c);
    const mp_merge_report r = merge(ba, c);
    assert_count(r.runs, 2, 0, 0);
    merge(ba, b), merge(ba, a), merge(ba, b);
    assert_same_content(ab, whole);
    assert_same_content(ba, whole);
    assert_sql(ba, "PRAGMA integrity_check", "ok");
    assert_sql(ba, "SELECT count(*) FROM pragma_foreign_key_check", "0");
}

static void test_merge__gives_rows_to_their_own_run_and_cell(void **state)
{
    (void)state;
    const char *in = scratch_file("own.db"), *out = scratch_file("others.db");

    full_database(in, "7");
    full_database(out, "12"); /* so that no id stays as it is */
    merge(out, in);
    assert_sql(out, "SELECT id FROM run WHERE uuid = 'uuid-7'", "3");
    assert_sql(out, "SELECT group_concat(value, ', ') FROM run_environment WHERE run = 3",
               "cpu of 7, commit 7");
    assert_sql(out, "SELECT group_concat(id) FROM cell WHERE run = 3", "5,6");
    assert_sql(out, "SELECT group_concat(cell) FROM cell_setting WHERE value = '7'", "5,6");
    assert_sql(out, "SELECT cell FROM output WHERE sha256 = 'hash 7'", "6");
    assert_sql(out, "SELECT run FROM baseline WHERE uuid = 'baseline-7'", "3");
    assert_sql(out, "SELECT id || before_cell || after_cell FROM finding WHERE key = 'finding-7'",
               "356");
    assert_sql(out, "SELECT count(*) FROM finding_event WHERE finding = 3 AND after = 8.0", "2");
}

static void test_merge__carries_text_and_numbers_to_the_bit(void **state)
{
    (void)state;
    const char *in = scratch_file("hostile.db"), *out = scratch_file("unharmed.db");
    static const char all[] =
        "SELECT hex(label) || hex(scenario) || hex(error) || (SELECT group_concat(coalesce(printf("
        "'%!.17g', value), nonfinite)) FROM metric) || (SELECT hex(value) FROM cell_setting) FROM "
        "run JOIN cell ON cell.run = run.id";

    full_database(in, "1");
    sql_run(in,
            "UPDATE run SET label = ''');DROP TABLE run;--' || char(0) || 'behind';"
            "UPDATE cell SET scenario = '<script>alert(1)</script>', error = char(27) || "
            "'[2J`rm -rf /`' || CAST(x'ff' AS TEXT);"
            "INSERT INTO metric VALUES (1, 'a', '', -1, '', 9e999, NULL, '1'), (1, 'b', '', -1, "
            "'', 5e-324, NULL, '1'), (1, 'c', '', -1, '', NULL, 'nan', '1'), (1, 'd', '', -1, "
            "'', -0.0, NULL, '1')");
    merge(out, in);
    char *expected = sql_text(in, all);
    assert_non_null(strstr(expected, "Inf"));
    assert_sql(out, all, expected);
    free(expected);
}

static void test_merge__takes_an_empty_database_and_one_of_one_run(void **state)
{
    (void)state;
    const char *empty = scratch_file("empty.db"), *one = scratch_file("one.db"),
               *out = scratch_file("few.db");

    full_database(empty, "");
    full_database(one, "");
    sql_run(one, "INSERT INTO run VALUES (NULL, 'u', NULL, 'e', 'd', 'c', 'p', 'f', 's', NULL, "
                 "NULL)");
    assert_count(merge(out, empty).runs, 0, 0, 0);
    assert_count(merge(out, one).runs, 1, 0, 0);
    assert_count(merge(out, one).runs, 0, 0, 1);
    assert_count(merge(one, empty).runs, 0, 0, 0);
}

/* ---- what goes on --------------------------------------------------------------------------- */

#define HALF                                                                                    \
    "UPDATE run SET ended = NULL, exit_status = NULL; DELETE FROM finding_event; DELETE FROM "  \
    "finding; DELETE FROM metric; DELETE FROM sample; DELETE FROM output; DELETE FROM "         \
    "policy_action; DELETE FROM op_profile; DELETE FROM cell_picture; DELETE FROM cell_limit; " \
    "UPDATE cell SET status = 'running', ended = NULL, as_expected = NULL, reference = NULL, "  \
    "error = NULL, step = NULL WHERE id = 2"

static void test_merge__completes_what_was_still_running(void **state)
{
    (void)state;
    const char *half = scratch_file("half.db"), *done = scratch_file("done.db"),
               *out = scratch_file("later.db"), *other = scratch_file("earlier.db");

    full_database(half, "1");
    sql_run(half, HALF);
    full_database(done, "1");
    merge(out, half);
    assert_same_content(out, half); /* as it was recorded */
    const mp_merge_report r = merge(out, done);
    assert_count(r.runs, 0, 1, 0);
    assert_count(r.cells, 0, 1, 1);
    assert_int_equal(r.kept, 0);
    assert_same_content(out, done);
    assert_count(merge(out, half).cells, 0, 0, 2); /* and never goes back */
    assert_same_content(out, done);

    merge(other, done);
    assert_count(merge(other, half).runs, 0, 0, 1);
    assert_string_equal(notes, "");
    assert_same_content(other, done);
}

static void test_merge__an_end_counts_more_than_an_interruption(void **state)
{
    (void)state;
    const char *lost = scratch_file("lost.db"), *done = scratch_file("well.db"),
               *half = scratch_file("half1.db");
    const char *a = scratch_file("a1.db"), *b = scratch_file("b1.db");

    full_database(half, "1");
    sql_run(half, HALF);
    full_database(lost, "1"); /* a copy of the file, in which --resume found the cell dead */
    sql_run(lost, HALF "; UPDATE cell SET status = 'interrupted', ended = 'x' WHERE id = 2");
    full_database(done, "1");
    merge(a, half), merge(a, lost);
    assert_same_content(a, lost);
    merge(a, done);
    merge(b, done), merge(b, lost), merge(b, half);
    assert_same_content(a, done);
    assert_same_content(b, done);
}

static void test_merge__gathers_the_events_of_a_finding(void **state)
{
    (void)state;
    const char *in = scratch_file("event.db"), *out = scratch_file("events.db");

    full_database(in, "1");
    full_database(out, "1");
    sql_run(in, "UPDATE finding_event SET at = '2026-01-02' WHERE state = 'detected'");
    const mp_merge_report r = merge(out, in);
    assert_int_equal(r.rest.added, 1);
    assert_int_equal(r.kept, 0);
    assert_sql(out, "SELECT group_concat(at) FROM finding_event WHERE state = 'detected'",
               "2026-01-01T02:00:00.000Z,2026-01-02");
}

static void test_merge__tells_cells_of_one_moment_apart(void **state)
{
    (void)state;
    const char *in = scratch_file("moment.db"), *out = scratch_file("moments.db");
    static const char again[] =
        "INSERT INTO cell (run, key, scenario, scenario_hash, pipeline, checkpoint, "
        "checkpoint_hash, repro, started, status, error) SELECT run, key, scenario, scenario_hash, "
        "pipeline, checkpoint, checkpoint_hash, repro, started, 'interrupted', 'first' FROM cell "
        "WHERE id = 2;"
        "UPDATE cell SET started = 'then' WHERE key = 'sd3/bf16'";

    full_database(in, "1");
    sql_run(in, again);
    merge(out, in);
    assert_same_content(out, in);
    assert_count(merge(out, in).cells, 0, 0, 3);
    assert_sql(out, "SELECT group_concat(status) FROM cell WHERE started = 'then'",
               "ok,interrupted");
}

static void test_merge__keeps_what_differs_and_says_so(void **state)
{
    (void)state;
    const char *in = scratch_file("liar.db"), *out = scratch_file("truth.db");

    full_database(out, "1");
    full_database(in, "1");
    sql_run(in, "UPDATE reference SET file_sha256 = 'other', key = key WHERE key = 'ref';"
                "UPDATE reference SET made = 'later' WHERE key = 'ref 1';"
                "UPDATE cell SET status = 'crash' WHERE id = 2;"
                "UPDATE picture SET png = x'00' WHERE sha256 = 'picture 1';"
                "UPDATE run SET label = 'forged', ended = '2027'");
    char *before = full_content(out);
    const mp_merge_report r = merge(out, in);
    assert_int_equal(r.kept, 4);
    char *after = full_content(out);
    assert_string_equal(after, before);
    assert_non_null(strstr(notes, "liar.db: reference ref says something else in "));
    assert_non_null(strstr(notes, "liar.db: cell 1 sd3/bf16 2026-01-01T00:02:00.000Z says"));
    assert_non_null(strstr(notes, "liar.db: picture picture 1 says"));
    assert_non_null(strstr(notes, "liar.db: run uuid-1 says"));
    assert_null(strstr(notes, "ref 1"));
    free(before);
    free(after);
}

static void test_merge__notes_are_few_and_harmless(void **state)
{
    (void)state;
    const char *in = scratch_file("many.db"), *out = scratch_file("quiet.db");

    full_database(in, "");
    full_database(out, "");
    sql_run(in, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20) "
                "INSERT INTO reference SELECT char(27) || '[2J' || i, '', 'a', 1, 0, 0, 0 FROM n");
    merge(out, in);
    sql_run(in, "UPDATE reference SET file_sha256 = 'b'; CREATE TABLE \"\x1b[31mmine\" (x)");
    assert_int_equal(merge(out, in).kept, 20);
    assert_non_null(strstr(notes, "many.db: so do 15 more rows\n"));
    assert_non_null(strstr(notes, "the table \\x1b[31mmine is not one of mpbench's"));
    assert_null(strchr(notes, '\x1b'));
}

/* ---- files of all kinds --------------------------------------------------------------------- */

static void make_version(const char *path, int version)
{
    char name[400], *text = calloc(1 << 16, 1);

    assert_non_null(text);
    snprintf(name, sizeof name, MP_FIXTURES "/results/schema_%d.sql", version);
    FILE *f = fopen(name, "rb");
    assert_non_null(f);
    const size_t n = fread(text, 1, (1 << 16) - 100, f);
    assert_int_equal(fclose(f), 0);
    snprintf(text + n, 100, "PRAGMA application_id = 0x6d706265; PRAGMA user_version = %d",
             version);
    sql_run(path, "PRAGMA journal_mode = WAL");
    sql_run(path, text);
    sql_run(
        path,
        "INSERT INTO run VALUES (9, 'old', 'l', 'e', 'd', 'c', 'p', 'f', 's', NULL, NULL);"
        "INSERT INTO cell (id, run, key, scenario, scenario_hash, pipeline, checkpoint, "
        "checkpoint_hash, repro, started) VALUES (7, 9, 'k', 's', 's', 'p', 'c', 'c', 'r', 't');"
        "INSERT INTO sample VALUES (7, 0, 'total', 0.5)");
    free(text);
}

static void test_merge__reads_every_older_version_and_leaves_it_alone(void **state)
{
    (void)state;
    char name[32];
    size_t before, after;

    for (int version = 1; version <= 4; version++) {
        snprintf(name, sizeof name, "v%d.db", version);
        const char *in = scratch_file(name);
        snprintf(name, sizeof name, "from%d.db", version);
        const char *out = scratch_file(name);
        make_version(in, version);
        char *was = bytes_of(in, &before);
        assert_count(merge(out, in).cells, 1, 0, 0);
        assert_count(merge(out, in).cells, 0, 0, 1);
        char *is = bytes_of(in, &after);
        assert_int_equal(after, before);
        assert_memory_equal(is, was, before);
        assert_sql(out, "SELECT uuid || key || (SELECT seconds FROM sample) FROM run, cell",
                   "oldk0.5");
        free(was);
        free(is);
    }
}

static void die_while_writing(const char *path)
{
    sqlite3 *db = sql_open(path);

    if (sqlite3_exec(db,
                     "PRAGMA wal_autocheckpoint = 0; UPDATE run SET label = 'in the log';"
                     "BEGIN; UPDATE run SET label = 'never committed'",
                     NULL, NULL, NULL))
        _exit(1);
    kill(getpid(), SIGKILL);
}

static void test_merge__heeds_the_log_of_a_killed_writer(void **state)
{
    (void)state;
    const char *in = scratch_file("killed.db"), *out = scratch_file("heard.db");
    int status;

    full_database(in, "1");
    const pid_t child = fork();
    if (!child)
        die_while_writing(in);
    waitpid(child, &status, 0);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    merge(out, in);
    assert_sql(out, "SELECT label FROM run", "in the log");
}

static void test_merge__refuses_what_only_looks_like_its_tables(void **state)
{
    (void)state;
    const char *in = scratch_file("mask.db"), *out = scratch_file("safe.db");
    static const char *const masks[] = {
        "ALTER TABLE metric RENAME TO m; CREATE VIEW metric AS SELECT * FROM m",
        "ALTER TABLE output ADD COLUMN more TEXT",
        "ALTER TABLE sample RENAME COLUMN seconds TO minutes",
        "DROP TABLE cell_limit; CREATE TABLE cell_limit (cell INTEGER NOT NULL REFERENCES cell(id), "
        "metric TEXT NOT NULL, kind TEXT NOT NULL, value REAL NOT NULL AS (1.0), PRIMARY KEY (cell, metric, "
        "kind)) STRICT, WITHOUT ROWID",
        "DROP TABLE op_profile",
    };

    full_database(out, "2");
    for (size_t i = 0; i < sizeof masks / sizeof *masks; i++) {
        remove(in);
        full_database(in, "1");
        sql_run(in, masks[i]);
        refuses(out, in, "is not the table of that name that mpbench makes");
    }
}

static void test_merge__refuses_an_out_of_other_tables(void **state)
{
    (void)state;
    const char *in = scratch_file("usual.db"), *out = scratch_file("unusual.db");
    mp_merge_report r;
    mp_error err = {0};

    full_database(in, "1");
    full_database(out, "");
    sql_run(out, "DROP TABLE cell_limit; CREATE TABLE cell_limit (cell, metric, kind, value)");
    assert_int_equal(try_merge(out, in, &r, &err), MP_EDB);
    assert_non_null(strstr(err.text, "unusual.db: 'cell_limit' is not the table of that name"));
    assert_sql(out, "SELECT count(*) FROM run", "0");
}

static void test_merge__no_trigger_acts(void **state)
{
    (void)state;
    const char *in = scratch_file("plain.db"), *out = scratch_file("trap.db");

    full_database(in, "1");
    full_database(out, "");
    sql_run(out, "CREATE TRIGGER trap AFTER INSERT ON cell BEGIN UPDATE cell SET error = 'trap'; "
                 "DELETE FROM cell_setting; END");
    merge(out, in);
    assert_same_content(out, in);
}

static void test_merge__refuses_rows_that_belong_to_nothing(void **state)
{
    (void)state;
    const char *in = scratch_file("orphan.db"), *out = scratch_file("home.db");
    static const char *const orphans[] = {
        "UPDATE cell SET run = 99 WHERE id = 2", "INSERT INTO sample VALUES (77, 0, 'total', 1.0)",
        "INSERT INTO cell_setting VALUES (0, 'a', 'b')", "UPDATE finding SET before_cell = 99",
        "UPDATE finding_event SET finding = 99"};

    full_database(out, "2");
    for (size_t i = 0; i < sizeof orphans / sizeof *orphans; i++) {
        remove(in);
        full_database(in, "1");
        sql_run(in, orphans[i]);
        refuses(out, in, "which is not there; the file is damaged");
    }
}

static void test_merge__refuses_other_files(void **state)
{
    (void)state;
    const char *out = scratch_file("mine.db"), *in = scratch_file("foreign.db");

    full_database(out, "2");
    sql_run(in, "CREATE TABLE run (x)");
    refuses(out, in, "is a database of another program");
    remove(in);
    full_database(in, "1");
    sql_run(in, "PRAGMA user_version = 99");
    refuses(out, in, "use a newer mpbench");
    write_file(in, "This is text, and it is longer than the head of a database of SQLite would be, "
                   "which has one hundred bytes.");
    refuses(out, in, "file is not a database");
}

static void test_merge__leaves_out_alone_when_in_is_damaged(void **state)
{
    (void)state;
    const char *in = scratch_file("damaged.db"), *out = scratch_file("whole.db");
    static const char *const tables[] = {"cell", "metric", "finding_event", "picture"};

    full_database(out, "2");
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        char sql[120];
        remove(in);
        full_database(in, "134");
        snprintf(sql, sizeof sql,
                 "SELECT 4096 * (rootpage - 1) FROM sqlite_master WHERE name = '%s'", tables[i]);
        char *page = sql_text(in, sql);
        overwrite(in, atol(page), 4096);
        free(page);
        refuses(out, in, "malformed");
    }
}

/* ---- room ----------------------------------------------------------------------------------- */

static void merge_until_full(const char *out, const char *in)
{
    const struct rlimit limit = {300 * 1024, 300 * 1024};
    mp_store *a = NULL, *b = NULL;
    mp_merge_report r;
    mp_error err = {0};

    signal(SIGXFSZ, SIG_IGN);
    if (mp_store_open(out, MP_STORE_WRITE, &a, &err) ||
        mp_store_open(in, MP_STORE_RENEW, &b, &err) || setrlimit(RLIMIT_FSIZE, &limit))
        child_fails(&err);
    if (mp_merge(a, b, stderr, &r, &err) != MP_EDB || !strstr(err.text, out))
        child_fails(&err);
    mp_store_close(a);
    mp_store_close(b);
    _exit(0);
}

static void test_merge__leaves_out_as_it_was_when_the_disk_is_full(void **state)
{
    (void)state;
    const char *in = scratch_file("large.db"), *out = scratch_file("small.db");
    int status = -1;

    full_database(in, "1");
    sql_run(in, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) "
                "INSERT INTO sample SELECT 1, i, 'a stage with a long name', 0.5 FROM n");
    full_database(out, "2");
    char *before = full_content(out);
    const pid_t child = fork();
    if (!child)
        merge_until_full(out, in);
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    char *after = full_content(out);
    assert_string_equal(after, before);
    assert_sql(out, "PRAGMA integrity_check", "ok");
    assert_count(merge(out, in).runs, 1, 0, 0); /* room again */
    free(before);
    free(after);
}

static void test_merge__reports_each_failed_allocation(void **state)
{
    (void)state;
    const char *in = scratch_file("in.db"), *out = scratch_file("out.db");
    int failures = 0;

    full_database(in, "1");
    full_database(out, "2");
    char *before = full_content(out);
    for (uint64_t n = 1;; n++) {
        mp_merge_report r;
        mp_error err = {0};
        mp_memory_fail_at(n);
        const mp_code code = try_merge(out, in, &r, &err);
        mp_memory_fail_at(0);
        if (code == MP_OK)
            break;
        assert_int_equal(code, MP_ENOMEM);
        char *after = full_content(out);
        assert_string_equal(after, before);
        free(after);
        failures++;
    }
    assert_true(failures >= 8); /* handles, paths, tables, ids of each table */
    free(before);
}

/* ---- SQLite's own memory -------------------------------------------------------------------- */

static sqlite3_mem_methods memory;
static int64_t fail_in; /* requests of SQLite until one is refused, once; 0: never */

static void *refusing_malloc(int n)
{
    return fail_in > 0 && !--fail_in ? NULL : memory.xMalloc(n);
}

static void *refusing_realloc(void *block, int n)
{
    return fail_in > 0 && !--fail_in ? NULL : memory.xRealloc(block, n);
}

static void test_merge__is_whole_or_nothing_whenever_sqlite_lacks_memory(void **state)
{
    (void)state;
    const char *in = scratch_file("in2.db"), *out = scratch_file("out2.db");
    int failures = 0;

    full_database(in, "1");
    full_database(out, "12");
    char *all = full_content(out), *before = NULL;
    bool reached = true;
    /* Each request of the start, then fewer and fewer. */
    for (int64_t n = 1; reached; n += 1 + n / 50) {
        mp_merge_report r;
        mp_error err = {0};
        if (!before) {
            remove(out);
            full_database(out, "2");
            before = full_content(out);
        }
        fail_in = n;
        const mp_code code = try_merge(out, in, &r, &err);
        reached = fail_in == 0;
        fail_in = 0;
        char *after = full_content(out);
        if (code)
            assert_int_equal(code, MP_ENOMEM);
        assert_string_equal(after, code ? before : all);
        free(after);
        failures += code != MP_OK;
        if (!code) { /* SQLite can do without some of what it asks for */
            free(before);
            before = NULL;
        }
    }
    free(all);
    free(before);
    assert_true(failures > 100);
}

static int end(void **state)
{
    free(notes);
    return scratch_remove(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merge__carries_every_table),
        cmocka_unit_test(test_merge__twice_changes_nothing),
        cmocka_unit_test(test_merge__in_any_order_gives_the_same),
        cmocka_unit_test(test_merge__gives_rows_to_their_own_run_and_cell),
        cmocka_unit_test(test_merge__carries_text_and_numbers_to_the_bit),
        cmocka_unit_test(test_merge__takes_an_empty_database_and_one_of_one_run),
        cmocka_unit_test(test_merge__completes_what_was_still_running),
        cmocka_unit_test(test_merge__an_end_counts_more_than_an_interruption),
        cmocka_unit_test(test_merge__gathers_the_events_of_a_finding),
        cmocka_unit_test(test_merge__tells_cells_of_one_moment_apart),
        cmocka_unit_test(test_merge__keeps_what_differs_and_says_so),
        cmocka_unit_test(test_merge__notes_are_few_and_harmless),
        cmocka_unit_test(test_merge__reads_every_older_version_and_leaves_it_alone),
        cmocka_unit_test(test_merge__heeds_the_log_of_a_killed_writer),
        cmocka_unit_test(test_merge__refuses_what_only_looks_like_its_tables),
        cmocka_unit_test(test_merge__refuses_an_out_of_other_tables),
        cmocka_unit_test(test_merge__no_trigger_acts),
        cmocka_unit_test(test_merge__refuses_rows_that_belong_to_nothing),
        cmocka_unit_test(test_merge__refuses_other_files),
        cmocka_unit_test(test_merge__leaves_out_alone_when_in_is_damaged),
        cmocka_unit_test(test_merge__leaves_out_as_it_was_when_the_disk_is_full),
        cmocka_unit_test(test_merge__reports_each_failed_allocation),
        cmocka_unit_test(test_merge__is_whole_or_nothing_whenever_sqlite_lacks_memory),
    };
    sqlite3_mem_methods refusing;

    if (sqlite3_config(SQLITE_CONFIG_GETMALLOC, &memory))
        return 1;
    refusing = memory;
    refusing.xMalloc = refusing_malloc;
    refusing.xRealloc = refusing_realloc;
    if (sqlite3_config(SQLITE_CONFIG_MALLOC, &refusing))
        return 1;
    return cmocka_run_group_tests(tests, scratch_make, end);
}
