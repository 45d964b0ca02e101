/* The history of a database: order, identity, what counts, and what a bad database makes of it. */
#include "kernels/core/memory.h"
#include "results/history.h"
#include "tests/results/nights.h"

static mp_history *load(mp_store *s, mp_history_filter f)
{
    mp_history *h = NULL;
    mp_error err = {0};

    if (mp_history_load(s, &f, &h, &err))
        fail_msg("%s", err.text);
    return h;
}

static const mp_series *series_named(const mp_history *h, const char *metric, const char *stage)
{
    for (int i = 0; i < h->series_count; i++)
        if (!strcmp(h->series[i].metric, metric) && !strcmp(h->series[i].stage, stage))
            return &h->series[i];
    fail_msg("no series %s of %s", metric, stage);
    return NULL;
}

static void test_history__has_a_point_for_each_night_in_order(void **state)
{
    (void)state;
    mp_store *s = nights_open("order.db");

    for (int i = 1; i <= 4; i++)
        night_of(s, &(night_cell){.seconds = i, .drift = 0.5});
    mp_history *h = load(s, (mp_history_filter){0});
    assert_int_equal(h->run_count, 4);
    assert_int_equal(h->subject_count, 1);
    assert_int_equal(h->series_count, 2);
    assert_string_equal(h->series[0].metric, "latent_rel_l2"); /* by name */
    const mp_series *x = &h->series[1];
    assert_int_equal(x->count, 4);
    for (int i = 0; i < 4; i++) {
        assert_true(x->value[i] == i + 1);
        assert_int_equal(h->observations[x->observation[i]].run, i);
        assert_false(h->runs[i].clock_backwards);
    }
    assert_string_equal(h->runs[2].revision, "0000000000000000000000000000000000000003");
    assert_string_equal(h->runs[2].build, "program 3");
    mp_history_free(h);
    mp_store_close(s);
}

static void test_history__goes_by_the_start_and_says_where_a_clock_went_backwards(void **state)
{
    (void)state;
    mp_store *s = nights_open("clock.db");
    static const char *const starts[] = {"2026-01-02T", "2026-01-03T", "1970-01-01T"};

    for (int i = 0; i < 3; i++)
        night_add(s, night_begin(s, &(night){.started = starts[i]}),
                  &(night_cell){.seconds = i + 1});
    mp_history *h = load(s, (mp_history_filter){0});
    const mp_series *x = series_named(h, "seconds", "run");
    assert_true(x->value[0] == 3 && x->value[1] == 1 && x->value[2] == 2);
    assert_true(h->runs[0].clock_backwards);
    assert_false(h->runs[1].clock_backwards || h->runs[2].clock_backwards);
    mp_history_free(h);

    sql_run(mp_store_path(s), "UPDATE run SET ended = '2026-01-02' WHERE id = 2");
    h = load(s, (mp_history_filter){0}); /* over before it began */
    assert_true(h->runs[2].clock_backwards);
    mp_history_free(h);
    mp_store_close(s);
}

static void test_history__never_mixes_machines_engines_and_inputs(void **state)
{
    (void)state;
    mp_store *s = nights_open("mixed.db");
    static const night_cell cell = {.seconds = 1};

    night_of(s, &cell);
    night_add(s, night_begin(s, &(night){.fingerprint = "other"}), &cell);
    night_add(s, night_begin(s, &(night){.engine = "diffusers"}), &cell);
    night_of(s, &(night_cell){.seconds = 1, .inputs = "30 steps"});
    night_of(s, &cell);
    mp_history *h = load(s, (mp_history_filter){0});
    assert_int_equal(h->subject_count, 4);
    assert_int_equal(h->series_count, 4);
    assert_string_equal(h->subjects[0].engine, "diffusers");
    assert_int_equal(h->series[0].count, 1);
    assert_string_equal(h->subjects[1].inputs, "30 steps weights");
    assert_int_equal(h->series[2].count, 2);
    mp_history_free(h);
    mp_store_close(s);
}

static void test_history__tells_the_revision_and_the_build_of_a_library(void **state)
{
    (void)state;
    mp_store *s = nights_open("library.db");

    night_add(s, night_begin(s, &(night){.engine = "diffusers", .program = "0.42.1"}),
              &(night_cell){.seconds = 1});
    mp_history *h = load(s, (mp_history_filter){0});
    assert_string_equal(h->runs[0].revision, "0.42.1");
    assert_string_equal(h->runs[0].build, "diffusers.version=0.42.1");
    mp_history_free(h);
    static const char *const keys[] = {"git_commit", "git_commit_diffusers"}; /* the latter wins */
    for (int i = 0; i < 2; i++) {
        char sql[200];
        snprintf(sql, sizeof sql, "INSERT INTO run_environment VALUES (1, 'diffusers.%s', 'of %s')",
                 keys[i], keys[i]);
        sql_run(mp_store_path(s), sql);
        h = load(s, (mp_history_filter){0});
        assert_non_null(strstr(h->runs[0].revision, keys[i]));
        mp_history_free(h);
    }
    mp_store_close(s);
}

static void test_history__counts_the_newest_finished_cell_of_a_run(void **state)
{
    (void)state;
    mp_store *s = nights_open("resumed.db");
    const int64_t run = night_begin(s, &(night){0});
    mp_error err = {0};
    int64_t id;

    night_add(s, run, &(night_cell){.status = "interrupted"});
    night_add(s, run, &(night_cell){.seconds = 1});
    night_add(s, run, &(night_cell){.seconds = 2});
    night_add(s, run, &(night_cell){.key = "sana/never", .status = "interrupted"});
    assert_int_equal(mp_store_begin_cell(s, run,
                                         &(mp_cell_info){.key = "sana/dtype=bf16",
                                                         .scenario = "sana",
                                                         .scenario_hash = "inputs",
                                                         .pipeline = "sana",
                                                         .checkpoint = "tiny",
                                                         .checkpoint_hash = "weights",
                                                         .repro = ""},
                                         &id, &err),
                     MP_OK);
    mp_history *h = load(s, (mp_history_filter){0});
    assert_int_equal(h->observation_count, 1);
    assert_int_equal(h->observations[0].cell, 3);
    assert_int_equal(h->series[0].count, 1);
    assert_true(h->series[0].value[0] == 2);
    mp_history_free(h);
    mp_store_close(s);
}

static void test_history__keeps_what_is_not_finite(void **state)
{
    (void)state;
    mp_store *s = nights_open("nan.db");

    night_of(s, &(night_cell){.drift = INFINITY});
    night_of(s, &(night_cell){.drift = NAN});
    night_of(s, &(night_cell){.drift = -INFINITY});
    mp_history *h = load(s, (mp_history_filter){0});
    assert_true(h->series[0].value[0] == INFINITY);
    assert_true(isnan(h->series[0].value[1]));
    assert_true(h->series[0].value[2] == -INFINITY);
    mp_history_free(h);
    mp_store_close(s);
}

static void test_history__has_the_median_seconds_of_each_stage(void **state)
{
    (void)state;
    mp_store *s = nights_open("stages.db");
    const int64_t a = night_of(s, &(night_cell){.seconds = 5}),
                  b = night_of(s, &(night_cell){.seconds = 6});
    char sql[400];

    snprintf(sql, sizeof sql,
             "INSERT INTO sample VALUES (%d, 0, 'decode', 1), (%d, 1, 'decode', 9), (%d, 2, "
             "'decode', 2), (%d, -1, 'decode', 100), (%d, 0, 'total', 5), (%d, 0, 'load', 4), (%d, "
             "0, 'decode', 7)",
             (int)a, (int)a, (int)a, (int)a, (int)a, (int)b, (int)b);
    sql_run(mp_store_path(s), sql);
    mp_history *h = load(s, (mp_history_filter){.metric = "seconds"});
    assert_int_equal(h->series_count, 3);
    const mp_series *decode = series_named(h, "seconds", "decode");
    assert_int_equal(decode->count, 2);
    assert_true(decode->value[0] == 2 && decode->value[1] == 7);
    assert_string_equal(decode->unit, "s");
    assert_int_equal(series_named(h, "seconds", "load")->count, 1);
    mp_history_free(h);
    mp_store_close(s);
}

static void test_history__has_rows_of_steps_and_modules_on_request(void **state)
{
    (void)state;
    mp_store *s = nights_open("rows.db");
    static const mp_metric_row rows[] = {{"rel_l2", "latents", 1, "", 2, "1"},
                                         {"rel_l2", "latents", 0, "", 1, "1"},
                                         {"rel_l2", "latents", 0, "vae", 3, "1"}};

    night_of(s, &(night_cell){.drift = 9, .more = rows, .more_count = 3});
    night_of(s, &(night_cell){.drift = 9, .more = rows + 1, .more_count = 2});
    mp_history *h = load(s, (mp_history_filter){0});
    assert_int_equal(h->series_count, 1);
    mp_history_free(h);
    h = load(s, (mp_history_filter){.every_row = true, .metric = "rel_l2"});
    assert_int_equal(h->series_count, 3);
    assert_int_equal(h->series[0].step, 0);
    assert_int_equal(h->series[0].count, 2);
    assert_string_equal(h->series[1].module, "vae");
    assert_int_equal(h->series[2].step, 1);
    assert_int_equal(h->series[2].count, 1);
    mp_history_free(h);
    mp_store_close(s);
}

static void test_history__knows_equal_outputs_by_their_hashes(void **state)
{
    (void)state;
    mp_store *s = nights_open("outputs.db");

    night_of(s, &(night_cell){.seconds = 1});
    night_of(s, &(night_cell){.seconds = 1});
    night_of(s, &(night_cell){.seconds = 1, .image = "other"});
    night_of(s, &(night_cell){.status = "error", .outcome = "dtype_mismatch"});
    mp_history *h = load(s, (mp_history_filter){0});
    const mp_observation *o = h->observations;
    assert_ptr_equal(o[0].outputs, o[1].outputs);
    assert_int_equal(strlen(o[0].outputs), 64);
    assert_string_not_equal(o[1].outputs, o[2].outputs);
    assert_string_equal(o[3].outputs, "");
    assert_string_equal(o[3].outcome, "dtype_mismatch");
    mp_history_free(h);
    mp_store_close(s);
}

static void test_history__says_what_there_is_when_nothing_is_left(void **state)
{
    (void)state;
    mp_store *s = nights_open("nothing.db");
    mp_history *h = NULL;
    mp_error err = {0};

    assert_int_equal(mp_history_load(s, &(mp_history_filter){0}, &h, &err), MP_EMISSING);
    assert_non_null(strstr(err.text, "no finished cell; record something with `mpbench run`"));
    assert_null(h);
    night_of(s, &(night_cell){.seconds = 1});
    err = (mp_error){0};
    assert_int_equal(
        mp_history_load(s, &(mp_history_filter){.scenario = "x\x1b[2J' OR 1"}, &h, &err),
        MP_EMISSING);
    assert_non_null(strstr(err.text, "scenario 'x\\x1b[2J' OR 1'"));
    err = (mp_error){0};
    assert_int_equal(mp_history_load(s, &(mp_history_filter){.metric = "secs\x1b"}, &h, &err),
                     MP_EMISSING);
    assert_non_null(
        strstr(err.text,
               "no finished cell has the metric 'secs\\x1b' of its whole run; there are: seconds"));
    mp_store_close(s);
}

static void test_history__survives_a_cell_of_no_run(void **state)
{
    (void)state;
    mp_store *s = nights_open("damaged.db");

    night_of(s, &(night_cell){.seconds = 1});
    sql_run(mp_store_path(s), "PRAGMA foreign_keys = OFF; UPDATE cell SET run = 77; INSERT INTO "
                              "metric VALUES (99, 'seconds', 'run', -1, '', 1.0, NULL, 's')");
    night_of(s, &(night_cell){.seconds = 2});
    mp_history *h = load(s, (mp_history_filter){0});
    assert_int_equal(h->observation_count, 1);
    assert_true(h->series[0].value[0] == 2);
    mp_history_free(h);
    mp_store_close(s);
}

static void test_history__gives_up_cleanly_without_memory(void **state)
{
    (void)state;
    mp_store *s = nights_open("memory.db");
    mp_history *h = NULL;

    for (int i = 1; i <= 40; i++)
        night_of(s, &(night_cell){.seconds = i, .drift = 1});
    const uint64_t before = mp_memory_requests();
    h = load(s, (mp_history_filter){0});
    const uint64_t n = mp_memory_requests() - before;
    mp_history_free(h);
    assert_true(n > 10);
    for (uint64_t i = 1; i <= n; i++) {
        mp_error err = {0};
        mp_memory_fail_at(i);
        const mp_code code = mp_history_load(s, &(mp_history_filter){0}, &h, &err);
        mp_memory_fail_at(0);
        assert_int_equal(code, MP_ENOMEM);
        assert_null(h);
    }
    mp_store_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_history__has_a_point_for_each_night_in_order),
        cmocka_unit_test(test_history__goes_by_the_start_and_says_where_a_clock_went_backwards),
        cmocka_unit_test(test_history__never_mixes_machines_engines_and_inputs),
        cmocka_unit_test(test_history__tells_the_revision_and_the_build_of_a_library),
        cmocka_unit_test(test_history__counts_the_newest_finished_cell_of_a_run),
        cmocka_unit_test(test_history__keeps_what_is_not_finite),
        cmocka_unit_test(test_history__has_the_median_seconds_of_each_stage),
        cmocka_unit_test(test_history__has_rows_of_steps_and_modules_on_request),
        cmocka_unit_test(test_history__knows_equal_outputs_by_their_hashes),
        cmocka_unit_test(test_history__says_what_there_is_when_nothing_is_left),
        cmocka_unit_test(test_history__survives_a_cell_of_no_run),
        cmocka_unit_test(test_history__gives_up_cleanly_without_memory),
    };

    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
