/* Baselines, over databases made through the store. */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/core/memory.h"
#include "results/baseline.h"
#include "results/compare.h"
#include "tests/results/scratch.h"

/* ---- a database ----------------------------------------------------------------------------- */

static mp_store *store;

static int make_store(void **state)
{
    static int count;
    char name[32];
    mp_error err = {0};

    (void)state;
    snprintf(name, sizeof name, "baseline%d.db", count++);
    return mp_store_open(scratch_file(name), MP_STORE_WRITE, &store, &err) ? -1 : 0;
}

static int drop_store(void **state)
{
    (void)state;
    mp_store_close(store);
    store = NULL;
    return 0;
}

/* uuid: the first letter of one.  rounds NULL: of no rounds. */
static int64_t add_run_of(char uuid, const char *label, const char *rounds, bool ends)
{
    char text[] = "?1111111-2222-4333-8444-555555555555";
    const mp_pair environment[] = {{"git_commit", "0123456789abcdef"}, {"rounds", rounds}};
    const mp_run_info run = {.uuid = text,
                             .label = label,
                             .engine = "native",
                             .device = "cpu",
                             .command = "mpbench run",
                             .plan = "p",
                             .fingerprint = "f",
                             .environment = environment,
                             .environment_count = rounds ? 2 : 1};
    mp_error err = {0};
    int64_t id = 0;

    text[0] = uuid;
    if (mp_store_begin_run(store, &run, &id, &err) ||
        (ends && mp_store_end_run(store, id, 0, &err)))
        fail_msg("%s", err.text);
    return id;
}

static int64_t add_run(char uuid, const char *label)
{
    return add_run_of(uuid, label, NULL, true);
}

/* ---- asking --------------------------------------------------------------------------------- */

static mp_code try_to_set(const char *name, const char *run, mp_error *err)
{
    static int count;
    char uuid[40];
    const mp_baseline_info info = {.uuid = uuid, .name = name, .run = run, .why = "because"};
    int64_t id;

    snprintf(uuid, sizeof uuid, "b%d", count++);
    return mp_baseline_set(store, &info, &id, err);
}

static int64_t set(const char *name, const char *run)
{
    mp_error err = {0};
    mp_against a;

    if (try_to_set(name, run, &err) || mp_against_find(store, name, &a, &err))
        fail_msg("%s", err.text);
    return a.run;
}

static void refuses(const char *name, const char *run, mp_code code, const char *part)
{
    mp_error err = {0};

    assert_int_equal(try_to_set(name, run, &err), code);
    if (!strstr(err.text, part))
        fail_msg("\"%s\" does not contain \"%s\"", err.text, part);
    assert_sql(mp_store_path(store), "SELECT count(*) FROM baseline", "0");
}

static const char *selector(const char *name)
{
    static mp_against a;
    mp_error err = {0};

    if (mp_against_find(store, name, &a, &err))
        fail_msg("%s", err.text);
    return a.selector;
}

static char *list(mp_format format)
{
    char *text = NULL;
    size_t n;
    mp_error err = {0};
    FILE *f = open_memstream(&text, &n);

    assert_non_null(f);
    if (mp_baseline_list(store, format, f, &err))
        fail_msg("%s", err.text);
    assert_int_equal(fclose(f), 0);
    return text;
}

static void lists(mp_format format, const char *expected)
{
    char *text = list(format);

    if (!strstr(text, expected))
        fail_msg("expected\n%s\nin:\n%s", expected, text);
    free(text);
}

/* ---- set ------------------------------------------------------------------------------------ */

static void test_set__means_the_newest_finished_run(void **state)
{
    (void)state;
    add_run('a', "before");
    const int64_t newest = add_run('b', "after");
    add_run_of('c', "after", NULL, false);

    assert_int_equal(set("main", NULL), newest);
    assert_sql(mp_store_path(store), "SELECT name || run || why || (at > '2020') FROM baseline",
               "main2because1");
    add_run('d', "after"); /* an old one that came by merge */
    sql_run(mp_store_path(store), "UPDATE run SET started = '2020-01-01' WHERE id = 4");
    assert_int_equal(set("main", NULL), newest);
    assert_int_equal(set("main", "after"), newest);
}

static void test_set__takes_an_id_a_uuid_or_a_label(void **state)
{
    (void)state;
    add_run('a', "before");
    add_run('b', "before");
    add_run_of('c', "before", NULL, false);
    add_run('d', "1");

    assert_int_equal(set("main", "1"), 1); /* not the label */
    assert_int_equal(set("main", "a1111111-2222-4333-8444-555555555555"), 1);
    add_run('e', "a1111111-2222-4333-8444-555555555555");
    assert_int_equal(set("main", "a1111111-2222-4333-8444-555555555555"), 1); /* nor is this one */
    assert_int_equal(set("main", "before"), 2);
    assert_int_equal(set("main", "4"), 4);
}

static void test_set__says_what_there_is(void **state)
{
    (void)state;
    refuses("main", NULL, MP_EMISSING, "holds no run; record one with `mpbench run` first");
    add_run_of('a', "half", NULL, false);
    refuses("main", NULL, MP_EMISSING, "run 1 has not finished; go on with it with --resume");
    add_run('b', "be\x1b[2Jfore");
    add_run('c', "after");
    refuses("main", "x\x1b[2J", MP_EMISSING,
            "'x\\x1b[2J' is no baseline and no run's id, UUID or label; baselines: none; labels: "
            "after, be\\x1b[2Jfore; `mpbench list` shows all runs");
    refuses("main", "1", MP_EMISSING, "run 1 has not finished");
    refuses("main", "half", MP_EMISSING, "run 1 has not finished");
    refuses("", NULL, MP_EUSAGE, "the name of the baseline is empty");
    refuses(" \t", NULL, MP_EUSAGE, "the name of the baseline is empty");
}

static void test_set__again_keeps_the_history_and_counts(void **state)
{
    (void)state;
    add_run('a', NULL);
    add_run('b', NULL);

    assert_int_equal(set("main", "1"), 1);
    assert_int_equal(set("other", "1"), 1);
    assert_int_equal(set("main", "2"), 2);
    assert_int_equal(set("main", "1"), 1);
    assert_sql(mp_store_path(store), "SELECT group_concat(run) FROM baseline WHERE name = 'main'",
               "1,2,1");
}

static void test_set__counts_where_the_clock_has_gone_back(void **state)
{
    (void)state;
    add_run('a', NULL);
    add_run('b', NULL);
    set("main", "1");
    sql_run(mp_store_path(store), "UPDATE baseline SET at = '2999-01-01T00:00:00.000Z'");
    assert_int_equal(set("main", "2"), 2);
    assert_sql(mp_store_path(store), "SELECT at FROM baseline WHERE run = 2",
               "2999-01-01T00:00:00.000Z");
}

static void test_find__goes_by_time_where_a_database_was_merged_in(void **state)
{
    (void)state;
    add_run('a', NULL);
    add_run('b', NULL);
    set("main", "2");
    sql_run(mp_store_path(store), "INSERT INTO baseline VALUES (9, 'u', 'main', 1, "
                                  "'2001-01-01T00:00:00.000Z', NULL)");
    assert_string_equal(selector("main"), "run=2");
    lists(MP_CSV, "main,yes,2,");
    lists(MP_CSV, "main,no,1,");
}

/* ---- list ----------------------------------------------------------------------------------- */

static void name_two(void)
{
    add_run('a', "first | one");
    add_run('b', NULL);
    set("main", "1");
    set("main", "2");
    set("a\x1b[2J|b", "1");
    sql_run(mp_store_path(store),
            "UPDATE baseline SET at = '2026-01-0' || id || 'T10:20:30.123Z', why = CASE id WHEN 2 "
            "THEN NULL WHEN 3 THEN '=1+1' ELSE why END");
}

static void test_list__tells_which_one_counts(void **state)
{
    (void)state;
    name_two();
    lists(MP_TEXT,
          "name        counts  run  label        commit        set                  why\n"
          "a\\x1b[2J|b  yes       1  first | one  0123456789ab  2026-01-03T10:20:30  =1+1\n"
          "main        yes       2               0123456789ab  2026-01-02T10:20:30  \n"
          "main        no        1  first | one  0123456789ab  2026-01-01T10:20:30  because\n");
    lists(MP_MARKDOWN, "| a\\\\x1b\\[2J\\|b | yes | 1 | first \\| one |");
    lists(MP_CSV, "main,no,1,first | one,0123456789ab,2026-01-01T10:20:30,because");
    lists(MP_CSV, "'=1+1");
}

static void test_list__is_whole_in_json(void **state)
{
    (void)state;
    name_two();
    char *text = list(MP_JSON);
    json_t *all = json_loads(text, 0, NULL);
    const json_t *rows = json_object_get(all, "baselines"), *row = json_array_get(rows, 1);

    assert_string_equal(json_string_value(json_object_get(all, "kind")), "mpbench baselines");
    assert_int_equal(json_integer_value(json_object_get(all, "version")), 1);
    assert_int_equal(json_array_size(rows), 3);
    assert_string_equal(json_string_value(json_object_get(row, "name")), "main");
    assert_string_equal(json_string_value(json_object_get(row, "run_uuid")),
                        "b1111111-2222-4333-8444-555555555555");
    assert_string_equal(json_string_value(json_object_get(row, "git_commit")), "0123456789abcdef");
    assert_true(json_is_null(json_object_get(row, "label")));
    assert_true(json_is_null(json_object_get(row, "why")));
    assert_true(json_is_true(json_object_get(row, "counts")));
    assert_true(json_is_false(json_object_get(json_array_get(rows, 2), "counts")));
    json_decref(all);
    free(text);
}

static void test_list__of_a_database_that_is_older_than_baselines_is_empty(void **state)
{
    (void)state;
    mp_error err = {0};
    mp_against a;

    add_run('a', "before");
    const char *path = scratch_file("old.db");
    char command[1200];
    snprintf(command, sizeof command, "cp '%s' '%s'", mp_store_path(store), path);
    sql_run(mp_store_path(store), "PRAGMA wal_checkpoint(TRUNCATE)");
    assert_int_equal(system(command), 0);
    sql_run(path, "DROP TABLE baseline; PRAGMA user_version = 4");
    drop_store(NULL);
    assert_int_equal(mp_store_open(path, MP_STORE_READ, &store, &err), MP_OK);
    lists(MP_CSV, "name,counts,run,label,commit,set,why\r\n");
    assert_string_equal(selector("before"), "run=1");
    assert_int_equal(mp_against_find(store, "main", &a, &err), MP_EMISSING);
    assert_non_null(strstr(err.text, "baselines: none; labels: before"));
}

/* ---- against -------------------------------------------------------------------------------- */

static void test_find__prefers_a_baseline_to_a_label(void **state)
{
    (void)state;
    mp_error err = {0};
    mp_against a;

    add_run('a', NULL);
    add_run('b', "main");
    assert_string_equal(selector("main"), "run=2");
    set("main", "1");
    assert_string_equal(selector("main"), "run=1");
    assert_string_equal(selector("2"), "run=2");
    set("2", "1");
    assert_string_equal(selector("2"), "run=1");
    assert_int_equal(mp_against_run(store, 2, &a, &err), MP_OK);
    assert_string_equal(a.selector, "run=2");
    assert_int_equal(mp_against_find(store, "mian", &a, &err), MP_EMISSING);
    assert_non_null(strstr(err.text, "'mian' is no baseline and no run's id, UUID or label; "
                                     "baselines: 2, main; labels: main"));
}

static void test_find__means_all_rounds_of_a_run(void **state)
{
    (void)state;
    const char *first = "a1111111-2222-4333-8444-555555555555";

    add_run_of('a', "x", first, true);
    add_run_of('b', "x", first, true);
    add_run_of('c', "a,b=c", first, true);
    add_run_of('d', "a[", first, true); /* would swallow the comma behind it */
    set("main", "2");
    assert_string_equal(selector("main"), "label=x,rounds=a1111111-2222-4333-8444-555555555555");
    assert_string_equal(selector("1"), "label=x,rounds=a1111111-2222-4333-8444-555555555555");
    assert_string_equal(selector("a,b=c"), "rounds=a1111111-2222-4333-8444-555555555555");
    assert_string_equal(selector("a["), "rounds=a1111111-2222-4333-8444-555555555555");
}

static int64_t add_cell(int64_t run, const char *scenario_hash, bool ends)
{
    const mp_cell_info cell = {.key = "sana/default",
                               .scenario = "sana",
                               .scenario_hash = scenario_hash,
                               .pipeline = "sana",
                               .checkpoint = "tiny",
                               .checkpoint_hash = "c",
                               .repro = "mpbench run"};
    static const mp_metric_row drift = {"latent_rel_l2", "run", -1, "", 0.5, "1"};
    const mp_cell_result ok = {
        .status = "ok", .as_expected = true, .step = -1, .metrics = &drift, .metric_count = 1};
    mp_error err = {0};
    int64_t id = 0;

    if (mp_store_begin_cell(store, run, &cell, &id, &err) ||
        (ends && mp_store_finish_cell(store, id, &ok, &err)))
        fail_msg("%s", err.text);
    return id;
}

/* As runs do, rounds pair whatever engine ran them. */
static void test_find__gives_rounds_that_can_be_compared(void **state)
{
    (void)state;
    mp_error err = {0};
    char a[200], *text = NULL;
    size_t n;
    int status;
    FILE *to = open_memstream(&text, &n);

    add_cell(add_run_of('a', "x,y", "a1111111-2222-4333-8444-555555555555", true), "h", true);
    add_cell(add_run_of('b', "x,y", "b1111111-2222-4333-8444-555555555555", true), "h", true);
    sql_run(mp_store_path(store), "UPDATE run SET engine = 'diffusers' WHERE id = 2");
    snprintf(a, sizeof a, "%s", selector("1"));
    const mp_compare_options o = {.a = a, .b = selector("2"), .format = MP_CSV};
    if (mp_compare(store, &o, to, &status, &err))
        fail_msg("%s", err.text);
    assert_int_equal(fclose(to), 0);
    assert_non_null(strstr(text, "latent_rel_l2"));
    free(text);
}

static void test_has__looks_for_the_same_scenario_with_the_same_settings(void **state)
{
    (void)state;
    static const struct {
        const char *scenario, *hash;
        int64_t run;
        bool has;
    } cases[] = {{"sana", "h", 1, true},
                 {"sana", "x", 1, false},
                 {"other", "h", 1, false},
                 {"sana", "half", 1, false},
                 {"sana", "h", 2, false}};
    mp_error err = {0};
    bool has;

    add_run('a', NULL);
    add_run('b', NULL);
    add_cell(1, "h", true);
    add_cell(1, "half", false);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const mp_against a = {.run = cases[i].run};
        assert_int_equal(mp_against_has(store, &a, cases[i].scenario, cases[i].hash, &has, &err),
                         MP_OK);
        assert_int_equal(has, cases[i].has);
    }
}

/* ---- trouble -------------------------------------------------------------------------------- */

static void test_baseline__reports_a_damaged_database(void **state)
{
    (void)state;
    mp_error err = {0};
    mp_against a;
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);

    add_run('a', NULL);
    sql_run(mp_store_path(store), "DROP TABLE baseline");
    assert_int_equal(try_to_set("main", NULL, &err), MP_EDB);
    err = (mp_error){0};
    assert_int_equal(mp_against_find(store, "main", &a, &err), MP_EDB);
    err = (mp_error){0};
    assert_int_equal(mp_baseline_list(store, MP_JSON, f, &err), MP_EDB);
    assert_int_equal(fclose(f), 0);
    assert_string_equal(text, "");
    free(text);
}

static void test_list__survives_each_failed_allocation(void **state)
{
    (void)state;
    static const char *const told = "(no memory for the table)";

    name_two();
    for (int format = MP_TEXT; format <= MP_CSV; format++) {
        bool failed = true;
        for (uint64_t n = 1; failed; n++) {
            mp_memory_fail_at(n);
            char *text = list((mp_format)format);
            mp_memory_fail_at(0);
            failed = format != MP_JSON && strstr(text, told);
            free(text);
        }
    }
}

#define WITH_STORE(test) cmocka_unit_test_setup_teardown(test, make_store, drop_store)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_STORE(test_set__means_the_newest_finished_run),
        WITH_STORE(test_set__takes_an_id_a_uuid_or_a_label),
        WITH_STORE(test_set__says_what_there_is),
        WITH_STORE(test_set__again_keeps_the_history_and_counts),
        WITH_STORE(test_set__counts_where_the_clock_has_gone_back),
        WITH_STORE(test_find__goes_by_time_where_a_database_was_merged_in),
        WITH_STORE(test_list__tells_which_one_counts),
        WITH_STORE(test_list__is_whole_in_json),
        WITH_STORE(test_list__of_a_database_that_is_older_than_baselines_is_empty),
        WITH_STORE(test_find__prefers_a_baseline_to_a_label),
        WITH_STORE(test_find__means_all_rounds_of_a_run),
        WITH_STORE(test_find__gives_rounds_that_can_be_compared),
        WITH_STORE(test_has__looks_for_the_same_scenario_with_the_same_settings),
        WITH_STORE(test_baseline__reports_a_damaged_database),
        WITH_STORE(test_list__survives_each_failed_allocation),
    };

    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
