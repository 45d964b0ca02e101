/* `mpbench export`: every table, safe in a spreadsheet, exact in JSON. */
#include <errno.h>

#include <jansson.h>

#include "kernels/core/memory.h"
#include "tests/results/full.h"

static char *try_export(const char *path, mp_export_options o, mp_error *err)
{
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    mp_store *s = NULL;

    assert_non_null(f);
    if (!mp_store_open(path, MP_STORE_RENEW, &s, err) && !mp_export_check(s, &o, err))
        mp_export(s, &o, f, err);
    mp_store_close(s);
    assert_int_equal(fclose(f), 0);
    return text;
}

static char *export(const char *path, mp_export_options o)
{
    mp_error err = {0};
    char *text = try_export(path, o, &err);

    if (err.code)
        fail_msg("%s", err.text);
    return text;
}

static void assert_export(const char *path, mp_export_options o, const char *expected)
{
    char *text = export(path, o);

    assert_string_equal(text, expected);
    free(text);
}

static int lines(const char *text)
{
    int n = 0;

    for (; *text; text++)
        n += *text == '\n';
    return n;
}

static void assert_lines(const char *path, mp_export_options o, int expected)
{
    char *text = export(path, o);

    assert_int_equal(lines(text), expected);
    free(text);
}

/* The n-th line, from 0, as JSON. */
static json_t *line_json(const char *text, int n)
{
    json_error_t why;

    while (n--)
        text = strchr(text, '\n') + 1;
    json_t *j = json_loads(text, JSON_DISABLE_EOF_CHECK | JSON_ALLOW_NUL, &why);
    if (!j)
        fail_msg("no JSON: %s in:\n%s", why.text, text);
    return j;
}

/* ---- all tables ----------------------------------------------------------------------------- */

static void test_export__has_each_row_of_each_table(void **state)
{
    (void)state;
    const char *path = scratch_file("all.db");
    char sql[80], *tables;
    int rows = 0;

    full_database(path, "123");
    tables = sql_text(path, "SELECT group_concat(name) FROM sqlite_master WHERE type = 'table'");
    for (char *t = strtok(tables, ","); t; t = strtok(NULL, ",")) {
        snprintf(sql, sizeof sql, "SELECT count(*) FROM %s", t);
        char *n = sql_text(path, sql);
        rows += atoi(n);
        free(n);
    }
    free(tables);
    assert_lines(path, (mp_export_options){.table = "all"},
                 rows); /* a table without a name lacks */
    for (const char *const *name = mp_export_names; strcmp(*name, "all"); name++) {
        char *csv = export(path, (mp_export_options){.table = *name, .csv = true});
        char *json = export(path, (mp_export_options){.table = *name});
        assert_int_equal(lines(csv), lines(json) + 1);
        assert_true(lines(json) >= 3);
        free(csv);
        free(json);
    }
}

static void test_export__names_runs_and_cells_and_no_ids(void **state)
{
    (void)state;
    const char *path = scratch_file("names.db");

    full_database(path, "1");
    assert_export(path, (mp_export_options){.table = "samples", .csv = true},
                  "run,cell,cell_started,repeat,stage,seconds\r\n"
                  "uuid-1,sd3/bf16,2026-01-01T00:02:00.000Z,0,total,1.1000000000000001\r\n");
    assert_export(path, (mp_export_options){.table = "baselines", .csv = true},
                  "uuid,name,run,at,why\r\n"
                  "baseline-1,main,uuid-1,2026-01-01T01:00:00.000Z,why 1\r\n");
    assert_export(path, (mp_export_options){.table = "events"},
                  "{\"version\":1,\"table\":\"events\",\"finding\":\"finding-1\",\"at\":\"2026-01-"
                  "01T02:00:00.000Z\",\"state\":\"detected\",\"why\":null,\"before\":0.5,\"after\":"
                  "2.0,\"p\":0.001}\n"
                  "{\"version\":1,\"table\":\"events\",\"finding\":\"finding-1\",\"at\":\"2026-01-"
                  "01T03:00:00.000Z\",\"state\":\"confirmed\",\"why\":\"why 1\",\"before\":0.5,"
                  "\"after\":2.0,\"p\":null}\n");
    char *text = export(path, (mp_export_options){.table = "findings", .csv = true});
    assert_non_null(strstr(text, "before_run,before_cell,before_cell_started,after_run,after_cell,"
                                 "after_cell_started\r\n"));
    assert_non_null(strstr(text, "uuid-1,sana/fp16,2026-01-01T00:01:00.000Z,uuid-1,sd3/bf16,"
                                 "2026-01-01T00:02:00.000Z\r\n"));
    free(text);
    text = export(path, (mp_export_options){.table = "runs", .csv = true});
    assert_int_equal(strncmp(text, "run,label,engine,", 17), 0);
    free(text);
    text = export(path, (mp_export_options){.table = "cells", .csv = true});
    assert_int_equal(strncmp(text, "run,cell,scenario,", 18), 0);
    assert_non_null(strstr(text, ",cell_started,ended,"));
    free(text);
    assert_export(path, (mp_export_options){.table = "pictures", .csv = true},
                  "sha256,width,height,png\r\npicture 1,2,2,89504E4701\r\n"
                  "picture of all,2,2,89504E47\r\n");
}

static void test_export__shows_rows_that_belong_to_nothing(void **state)
{
    (void)state;
    const char *path = scratch_file("orphan.db");

    full_database(path, "");
    sql_run(path, "INSERT INTO sample VALUES (77, 0, 'total', 1.0)");
    assert_export(path, (mp_export_options){.table = "samples", .csv = true},
                  "run,cell,cell_started,repeat,stage,seconds\r\n,,,0,total,1\r\n");
}

/* ---- what was asked for --------------------------------------------------------------------- */

static void test_export__takes_one_run_or_scenario(void **state)
{
    (void)state;
    const char *path = scratch_file("part.db");

    full_database(path, "12");
    assert_lines(path, (mp_export_options){.table = "cells", .run = "1"}, 2);
    assert_lines(path, (mp_export_options){.table = "cells", .run = "uuid-2"}, 2);
    assert_lines(path, (mp_export_options){.table = "cells", .run = "night 2"}, 2);
    assert_lines(path, (mp_export_options){.table = "cells", .scenario = "sd3"}, 2);
    assert_lines(path, (mp_export_options){.table = "cells", .run = "1", .scenario = "sd3"}, 1);
    /* each table in its own way */
    static const int of_one_run[] = {1, 2, 2, 2, 1, 2, 1, 1, 1, 1, 2, 2, 2, 1, 1, 2};
    for (int i = 0; strcmp(mp_export_names[i], "all"); i++)
        assert_lines(path, (mp_export_options){.table = mp_export_names[i], .run = "uuid-2"},
                     of_one_run[i]);
    static const int of_sana[] = {2, 4, 2, 2, 0, 0, 0, 0, 0, 0, 1, 0, 0, 2, 0, 0};
    for (int i = 0; strcmp(mp_export_names[i], "all"); i++)
        assert_lines(path, (mp_export_options){.table = mp_export_names[i], .scenario = "sana"},
                     of_sana[i]);
}

static void test_export__says_that_there_is_no_such_run_or_scenario(void **state)
{
    (void)state;
    const char *path = scratch_file("none.db");
    mp_error err = {0}, other = {0};

    full_database(path, "1");
    free(try_export(path, (mp_export_options){.table = "cells", .run = "uuid-9"}, &err));
    assert_int_equal(err.code, MP_EMISSING);
    assert_non_null(strstr(err.text, "has no run 'uuid-9', expected an id, a UUID or a label"));
    free(try_export(path, (mp_export_options){.table = "cells", .scenario = "s'"}, &other));
    assert_int_equal(other.code, MP_EMISSING);
    assert_non_null(strstr(other.text, "has no cell of a scenario 's''"));
}

static void test_export__refuses_what_only_looks_like_its_tables(void **state)
{
    (void)state;
    const char *path = scratch_file("mask.db");
    mp_error err = {0};

    full_database(path, "1");
    /* a view that never ends */
    sql_run(path,
            "ALTER TABLE run RENAME TO r; CREATE VIEW run AS WITH RECURSIVE n(id) AS (SELECT 1 "
            "UNION ALL SELECT 1 FROM n) SELECT id, '' AS uuid, '' AS label FROM n");
    free(try_export(path, (mp_export_options){.table = "cells", .run = "1"}, &err));
    assert_int_equal(err.code, MP_EDB);
    assert_non_null(strstr(err.text, "'run' is not the table of that name that mpbench makes"));
}

/* ---- what is in the cells ------------------------------------------------------------------- */

static const char hostile[] =
    "UPDATE run SET label = '=cmd|'' /C calc''!A0', command = 'a,\"b\"' || char(13, 10) || 'c', "
    "plan = char(27) || '[2J', fingerprint = CAST(x'41ff' AS TEXT), device = 'a' || char(0) || 'b', engine = 'f' || char(0xfc) || char(0x202e)";

static void test_export__makes_csv_safe_for_spreadsheets(void **state)
{
    (void)state;
    const char *path = scratch_file("formula.db");

    full_database(path, "1");
    sql_run(path, hostile);
    char *text = export(path, (mp_export_options){.table = "runs", .csv = true});
    assert_non_null(strstr(text, ",\"'=cmd|' /C calc'!A0\","));
    assert_non_null(strstr(text, ",\"a,\"\"b\"\"\\x0d\nc\","));
    assert_non_null(strstr(text, ",\\x1b[2J,A\\xff,"));
    assert_null(strchr(text, '\x1b'));
    free(text);
}

static void test_export__loses_nothing_in_json(void **state)
{
    (void)state;
    const char *path = scratch_file("exact.db");

    full_database(path, "1");
    sql_run(path, hostile);
    char *text = export(path, (mp_export_options){.table = "runs"});
    json_t *j = line_json(text, 0);
    assert_string_equal(json_string_value(json_object_get(j, "label")), "=cmd|' /C calc'!A0");
    assert_string_equal(json_string_value(json_object_get(j, "command")), "a,\"b\"\r\nc");
    assert_string_equal(json_string_value(json_object_get(j, "plan")), "\x1b[2J");
    assert_string_equal(json_string_value(json_object_get(j, "fingerprint")), "A\\xff");
    assert_string_equal(json_string_value(json_object_get(j, "engine")), "f\u00fc\u202e");
    assert_int_equal(json_string_length(json_object_get(j, "device")), 3);
    assert_memory_equal(json_string_value(json_object_get(j, "device")), "a\0b", 3);
    for (const char *c = text; *c; c++)
        assert_true(*c == '\n' || (*c >= ' ' && *c <= '~'));
    json_decref(j);
    free(text);
}

static void test_export__writes_numbers_whole_and_infinite_ones_as_words(void **state)
{
    (void)state;
    const char *path = scratch_file("numbers.db");

    full_database(path, "");
    sql_run(path,
            "INSERT INTO run VALUES (1, 'u', NULL, 'e', 'd', 'c', 'p', 'f', 's', NULL, NULL);"
            "INSERT INTO cell (id, run, key, scenario, scenario_hash, pipeline, checkpoint, "
            "checkpoint_hash, repro, started) VALUES (1, 1, 'k', 's', 's', 'p', 'c', 'c', 'r', "
            "'t');"
            "INSERT INTO metric VALUES (1, 'a', '', -1, '', 0.1, NULL, '1'), (1, 'b', '', -1, '', "
            "NULL, '-inf', '1'), (1, 'c', '', -1, '', NULL, 'nan', '1'), (1, 'd', '', -1, '', "
            "9e999, NULL, '1'), (1, 'e', '', -1, '', 5e-324, NULL, '1')");
    assert_export(path, (mp_export_options){.table = "metrics", .csv = true},
                  "run,cell,cell_started,name,stage,step,module,value,unit\r\n"
                  "u,k,t,a,,-1,,0.10000000000000001,1\r\n"
                  "u,k,t,b,,-1,,-inf,1\r\n"
                  "u,k,t,c,,-1,,nan,1\r\n"
                  "u,k,t,d,,-1,,inf,1\r\n"
                  "u,k,t,e,,-1,,4.9406564584124654e-324,1\r\n");
    char *text = export(path, (mp_export_options){.table = "metrics"});
    static const char *const words[] = {NULL, "-inf", "nan", "inf", NULL};
    static const double numbers[] = {0.1, 0, 0, 0, 5e-324};
    for (int i = 0; i < 5; i++) {
        json_t *j = line_json(text, i), *value = json_object_get(j, "value");
        if (words[i])
            assert_string_equal(json_string_value(value), words[i]);
        else
            assert_true(json_real_value(value) == numbers[i]);
        json_decref(j);
    }
    free(text);
}

static void test_export__reads_older_databases(void **state)
{
    (void)state;
    const char *path = scratch_file("old.db");
    char *sql = calloc(1 << 16, 1);

    assert_non_null(sql);
    FILE *f = fopen(MP_FIXTURES "/results/schema_1.sql", "rb");
    assert_non_null(f);
    assert_true(fread(sql, 1, (1 << 16) - 1, f) > 1000);
    assert_int_equal(fclose(f), 0);
    sql_run(path, sql);
    free(sql);
    sql_run(path,
            "PRAGMA application_id = 0x6d706265; PRAGMA user_version = 1;"
            "INSERT INTO run VALUES (1, 'u', NULL, 'e', 'd', 'c', 'p', 'f', 's', NULL, NULL)");
    assert_export(path, (mp_export_options){.table = "all"},
                  "{\"version\":1,\"table\":\"runs\",\"run\":\"u\",\"label\":null,\"engine\":\"e\","
                  "\"device\":\"d\",\"command\":\"c\",\"plan\":\"p\",\"fingerprint\":\"f\","
                  "\"started\":\"s\",\"ended\":null,\"exit_status\":null}\n");
    assert_sql(path, "PRAGMA user_version", "1");
}

/* ---- memory and room ------------------------------------------------------------------------ */

static void test_export__takes_no_more_memory_for_more_rows(void **state)
{
    (void)state;
    const char *path = scratch_file("long.db");
    sqlite3_int64 most[2];

    full_database(path, "1");
    for (int i = 0; i < 2; i++) {
        mp_store *s = NULL;
        mp_error err = {0};
        FILE *f = fopen("/dev/null", "w");
        assert_non_null(f);
        assert_int_equal(mp_store_open(path, MP_STORE_RENEW, &s, &err), MP_OK);
        sqlite3_memory_highwater(1);
        const uint64_t before = mp_memory_requests();
        assert_int_equal(mp_export(s, &(mp_export_options){.table = "samples"}, f, &err), MP_OK);
        assert_true(mp_memory_requests() - before < 10);
        most[i] = sqlite3_memory_highwater(0);
        mp_store_close(s);
        fclose(f);
        if (!i)
            sql_run(path,
                    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < "
                    "200000) INSERT INTO sample SELECT 1, i, 'a stage with a long name', 0.5 FROM "
                    "n");
    }
    assert_true(file_size(path) > 8000000);
    assert_true(most[1] < most[0] + 3000000); /* SQLite's cache of pages, 2 MB */
}

static ssize_t take_nothing(void *calls, const char *bytes, size_t n)
{
    (void)bytes;
    (void)n;
    ++*(int *)calls;
    errno = ENOSPC;
    return 0;
}

static void test_export__stops_where_nothing_more_is_taken(void **state)
{
    (void)state;
    const char *path = scratch_file("stop.db");
    mp_store *s = NULL;
    mp_error err = {0};
    int calls = 0;
    FILE *f = fopencookie(&calls, "w", (cookie_io_functions_t){.write = take_nothing});

    assert_non_null(f);
    full_database(path, "1");
    setvbuf(f, NULL, _IONBF, 0);
    assert_int_equal(mp_store_open(path, MP_STORE_RENEW, &s, &err), MP_OK);
    assert_int_equal(mp_export(s, &(mp_export_options){.table = "settings"}, f, &err), MP_OK);
    assert_true(ferror(f));
    assert_int_equal(calls, 1);
    mp_store_close(s);
    fclose(f);
}

static void test_export__reports_each_failed_allocation(void **state)
{
    (void)state;
    const char *path = scratch_file("memory.db");
    int failures = 0;

    full_database(path, "1");
    for (uint64_t n = 1;; n++) {
        mp_error err = {0};
        mp_memory_fail_at(n);
        char *text = try_export(path, (mp_export_options){.table = "all"}, &err);
        mp_memory_fail_at(0);
        free(text);
        if (!err.code)
            break;
        assert_int_equal(err.code, MP_ENOMEM);
        failures++;
    }
    assert_true(failures >= 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_export__has_each_row_of_each_table),
        cmocka_unit_test(test_export__names_runs_and_cells_and_no_ids),
        cmocka_unit_test(test_export__shows_rows_that_belong_to_nothing),
        cmocka_unit_test(test_export__takes_one_run_or_scenario),
        cmocka_unit_test(test_export__says_that_there_is_no_such_run_or_scenario),
        cmocka_unit_test(test_export__refuses_what_only_looks_like_its_tables),
        cmocka_unit_test(test_export__makes_csv_safe_for_spreadsheets),
        cmocka_unit_test(test_export__loses_nothing_in_json),
        cmocka_unit_test(test_export__writes_numbers_whole_and_infinite_ones_as_words),
        cmocka_unit_test(test_export__reads_older_databases),
        cmocka_unit_test(test_export__takes_no_more_memory_for_more_rows),
        cmocka_unit_test(test_export__stops_where_nothing_more_is_taken),
        cmocka_unit_test(test_export__reports_each_failed_allocation),
    };

    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
