/* The results database: round trips, refusals, kills, two writers, damage. */
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "kernels/core/memory.h"
#include "results/store.h"
#include "tests/results/scratch.h"

/* ---- a run to record ------------------------------------------------------------------------ */

static const mp_pair environment[] = {{"cpu", "a test"}, {"git_commit", "0123456789ab"}};
static const mp_run_info a_run = {.uuid = "11111111-2222-4333-8444-555555555555",
                                  .label = "before",
                                  .engine = "native",
                                  .device = "cpu",
                                  .command = "mpbench run 'a b.yaml'",
                                  .plan = "plan",
                                  .fingerprint = "machine",
                                  .environment = environment,
                                  .environment_count = 2};
static const mp_pair settings[] = {{"precision.default", "bf16"}, {"inputs.seed", "7"}};
static const mp_cell_info a_cell = {.key = "sana/precision.default=bf16",
                                    .scenario = "sana",
                                    .scenario_hash = "s",
                                    .pipeline = "sana",
                                    .checkpoint = "tiny",
                                    .checkpoint_hash = "c",
                                    .repro = "mpbench run sana.yaml",
                                    .settings = settings,
                                    .setting_count = 2};
static const mp_cell_result good = {.status = "ok", .as_expected = true, .step = -1};

static mp_store *open_store(const char *path, mp_store_mode mode)
{
    mp_store *s = NULL;
    mp_error err = {0};

    if (mp_store_open(path, mode, &s, &err))
        fail_msg("%s", err.text);
    return s;
}

static int64_t begin_run(mp_store *s, const mp_run_info *run)
{
    mp_error err = {0};
    int64_t id = 0;

    if (mp_store_begin_run(s, run, &id, &err))
        fail_msg("%s", err.text);
    return id;
}

static int64_t begin_cell(mp_store *s, int64_t run, const mp_cell_info *cell)
{
    mp_error err = {0};
    int64_t id = 0;

    if (mp_store_begin_cell(s, run, cell, &id, &err))
        fail_msg("%s", err.text);
    return id;
}

static void finish_cell(mp_store *s, int64_t cell, const mp_cell_result *result)
{
    mp_error err = {0};

    if (mp_store_finish_cell(s, cell, result, &err))
        fail_msg("%s", err.text);
}

static void refuses(const char *path, mp_store_mode mode, mp_code code, const char *part)
{
    mp_store *s = (mp_store *)"untouched";
    mp_error err = {0};

    assert_int_equal(mp_store_open(path, mode, &s, &err), code);
    assert_null(s);
    if (!strstr(err.text, path) || !strstr(err.text, part))
        fail_msg("\"%s\" does not name %s or does not contain \"%s\"", err.text, path, part);
}

/* ---- the disk ------------------------------------------------------------------------------- */

static int waits; /* for the disk */

/* In place of the C library's, which SQLite calls. */
int fdatasync(int fd)
{
    waits++;
    return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    waits++;
    return (int)syscall(SYS_fsync, fd);
}

/* A cell in 10 ms of recording: on a usual disk, one wait takes some of them. */
static void test_store__waits_for_the_disk_with_a_result_and_not_before(void **state)
{
    (void)state;
    mp_store *s = open_store(scratch_file("waits.db"), MP_STORE_WRITE);
    mp_error err = {0};

    assert_true(waits > 0); /* they are counted */
    waits = 0;
    const int64_t run = begin_run(s, &a_run);
    for (int i = 0; i < 3; i++) {
        const int64_t cell = begin_cell(s, run, &a_cell);
        assert_int_equal(waits, i);
        finish_cell(s, cell, &good);
        assert_int_equal(waits, i + 1);
    }
    assert_int_equal(mp_store_end_run(s, run, 0, &err), MP_OK);
    assert_int_equal(waits, 4);
    mp_store_close(s);
}

/* What could not begin leaves the next result as safe as before. */
static void test_store__waits_for_the_disk_after_a_beginning_that_failed(void **state)
{
    (void)state;
    mp_store *s = open_store(scratch_file("refused.db"), MP_STORE_WRITE);
    const int64_t run = begin_run(s, &a_run);
    const int64_t cell = begin_cell(s, run, &a_cell);
    mp_error err = {0};
    int64_t none;

    assert_int_equal(mp_store_begin_cell(s, run + 1, &a_cell, &none, &err), MP_EDB);
    assert_int_equal(none, 0);
    waits = 0;
    finish_cell(s, cell, &good);
    assert_int_equal(waits, 1);
    mp_store_close(s);
}

/* ---- round trip ----------------------------------------------------------------------------- */

static void test_store__creates_a_wal_database_of_its_own_kind(void **state)
{
    (void)state;
    const char *path = scratch_file("new.db");
    mp_store *s = open_store(path, MP_STORE_WRITE);

    mp_store_close(s);
    assert_sql(path, "PRAGMA application_id", "1836081765"); /* 0x6d706265, "mpbe" */
    assert_sql(path, "PRAGMA user_version", "5");
    assert_sql(path, "PRAGMA journal_mode", "wal");
    assert_sql(path,
               "SELECT group_concat(name) FROM (SELECT name FROM pragma_table_list WHERE "
               "schema = 'main' AND type = 'table' AND NOT strict AND name NOT LIKE 'sqlite_%')",
               "NULL");
    assert_sql(path, "SELECT count(*) FROM sqlite_master WHERE type = 'table'", "16");
}

static void test_store__opens_a_database_again_without_changing_it(void **state)
{
    (void)state;
    const char *path = scratch_file("again.db");
    mp_store *s = open_store(path, MP_STORE_WRITE);

    assert_string_equal(mp_store_path(s), path);
    begin_run(s, &a_run);
    mp_store_close(s);
    mp_store_close(open_store(path, MP_STORE_WRITE));
    mp_store_close(open_store(path, MP_STORE_READ));
    assert_sql(path, "SELECT group_concat(label) FROM run", "before");
}

static void test_store__keeps_a_run_with_its_environment(void **state)
{
    (void)state;
    const char *path = scratch_file("run.db");
    mp_store *s = open_store(path, MP_STORE_WRITE);
    mp_error err = {0};
    const int64_t run = begin_run(s, &a_run);

    assert_sql(path, "SELECT ended IS NULL AND exit_status IS NULL FROM run", "1");
    assert_int_equal(mp_store_end_run(s, run, 3, &err), MP_OK);
    assert_int_equal(mp_store_end_run(s, run, 0, &err), MP_OK); /* the first end stays */
    assert_sql(path, "SELECT exit_status FROM run", "3");
    mp_store_close(s);
    assert_sql(path, "SELECT uuid || '|' || label || '|' || engine || '|' || device FROM run",
               "11111111-2222-4333-8444-555555555555|before|native|cpu");
    assert_sql(path, "SELECT command || '|' || plan || '|' || fingerprint FROM run",
               "mpbench run 'a b.yaml'|plan|machine");
    assert_sql(path, "SELECT exit_status FROM run", "3");
    assert_sql(path, "SELECT started LIKE '2___-__-__T__:__:__.___Z' AND ended >= started FROM run",
               "1");
    assert_sql(path, "SELECT group_concat(key || '=' || value) FROM run_environment",
               "cpu=a test,git_commit=0123456789ab");
}

static void test_store__keeps_a_failed_cell_with_its_place(void **state)
{
    (void)state;
    const char *path = scratch_file("failed.db");
    mp_store *s = open_store(path, MP_STORE_WRITE);
    const mp_cell_result failed = {.status = "error",
                                   .outcome = "dtype_mismatch",
                                   .as_expected = true,
                                   .expected = "error: expected",
                                   .error = "expected scalar type Half but found Float",
                                   .module = "vae.decoder",
                                   .op = "linear",
                                   .want = "Half",
                                   .got = "Float",
                                   .stage = "decode",
                                   .step = 0,
                                   .budget = "psnr",
                                   .reference = "ref",
                                   .warnings = "w1\nw2",
                                   .signal = 11};

    finish_cell(s, begin_cell(s, begin_run(s, &a_run), &a_cell), &failed);
    mp_store_close(s);
    assert_sql(path,
               "SELECT status || '|' || outcome || '|' || as_expected || '|' || expected || '|' || "
               "error FROM cell",
               "error|dtype_mismatch|1|error: expected|expected scalar type Half but found Float");
    assert_sql(path,
               "SELECT module || '|' || op || '|' || want || '|' || got || '|' || stage || '|' || "
               "step || '|' || signal FROM cell",
               "vae.decoder|linear|Half|Float|decode|0|11");
    assert_sql(path, "SELECT budget || '|' || reference || '|' || warnings FROM cell",
               "psnr|ref|w1\nw2");
    assert_sql(path, "SELECT key || '|' || scenario || '|' || repro FROM cell",
               "sana/precision.default=bf16|sana|mpbench run sana.yaml");
    assert_sql(path,
               "SELECT scenario_hash || '|' || pipeline || '|' || checkpoint || '|' || "
               "checkpoint_hash FROM cell",
               "s|sana|tiny|c");
    assert_sql(path, "SELECT group_concat(key || '=' || value) FROM cell_setting",
               "inputs.seed=7,precision.default=bf16");
}

static void test_store__keeps_what_is_unknown_as_null(void **state)
{
    (void)state;
    const char *path = scratch_file("null.db");
    mp_store *s = open_store(path, MP_STORE_WRITE);
    mp_run_info unnamed = a_run;

    unnamed.label = NULL;
    finish_cell(s, begin_cell(s, begin_run(s, &unnamed), &a_cell), &good);
    mp_store_close(s);
    assert_sql(path, "SELECT label IS NULL FROM run", "1");
    assert_sql(path,
               "SELECT coalesce(outcome, expected, error, module, op, want, got, stage, step, "
               "signal, budget, reference, warnings) FROM cell",
               "NULL");
}

static void test_store__keeps_metrics_also_infinite_and_nan(void **state)
{
    (void)state;
    const char *path = scratch_file("metrics.db");
    mp_store *s = open_store(path, MP_STORE_WRITE);
    const mp_metric_row rows[] = {{"a", "run", -1, "", 0.1, "1"},
                                  {"b", "run", -1, "", INFINITY, "dB"},
                                  {"c", "latents", 3, "vae.up", -INFINITY, "1"},
                                  {"d", "run", -1, "", NAN, "1"},
                                  {"e", "run", -1, "", -NAN, "1"}};
    mp_cell_result r = good;

    r.metrics = rows;
    r.metric_count = 5;
    finish_cell(s, begin_cell(s, begin_run(s, &a_run), &a_cell), &r);
    mp_store_close(s);
    assert_sql(path, "SELECT value = 0.1 AND nonfinite IS NULL FROM metric WHERE name = 'a'", "1");
    assert_sql(path,
               "SELECT group_concat(name || ':' || coalesce(value, nonfinite), ' ') FROM metric",
               "a:0.1 b:inf c:-inf d:nan e:nan");
    assert_sql(path,
               "SELECT stage || '|' || step || '|' || module || '|' || unit FROM metric WHERE name "
               "= 'c'",
               "latents|3|vae.up|1");
    assert_sql(path, "SELECT group_concat(label || value, ' ') FROM metric_view",
               "before0.1 beforeinf before-inf beforenan beforenan");
}

static void test_store__lets_no_half_number_in(void **state)
{
    (void)state;
    const char *path = scratch_file("check.db");
    static const char *const bad[] = {"NULL, NULL", "NULL, 'big'", "1.0, 'inf'", "1.0, 'big'"};
    char sql[160];

    mp_store_close(open_store(path, MP_STORE_WRITE));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(sql, sizeof sql, "INSERT INTO metric VALUES (1, 'm', 'run', -1, '', %s, '1')",
                 bad[i]);
        assert_sql_fails(path, sql, "CHECK constraint failed");
    }
    assert_sql_fails(path, "INSERT INTO sample VALUES (1, 'first', 'total', 0.1)",
                     "cannot store TEXT value in INTEGER column sample.repeat");
}

static void test_store__keeps_samples_and_outputs(void **state)
{
    (void)state;
    const char *path = scratch_file("samples.db");
    mp_store *s = open_store(path, MP_STORE_WRITE);
    const mp_sample_row samples[] = {{-1, "total", 0.5}, {0, "total", 0.25}, {0, "decode", 0.125}};
    const mp_output_row outputs[] = {{"image", "bf16", "[1, 3, 8, 8]", "abc"}};
    mp_cell_result r = good;

    r.samples = samples;
    r.sample_count = 3;
    r.outputs = outputs;
    r.output_count = 1;
    finish_cell(s, begin_cell(s, begin_run(s, &a_run), &a_cell), &r);
    mp_store_close(s);
    assert_sql(path,
               "SELECT group_concat(stage || repeat || '=' || seconds, ' ') FROM (SELECT * FROM "
               "sample ORDER BY stage, repeat)",
               "decode0=0.125 total-1=0.5 total0=0.25");
    assert_sql(path, "SELECT name || dtype || shape || sha256 FROM output",
               "imagebf16[1, 3, 8, 8]abc");
    assert_sql(path, "SELECT count(*) FROM sample_view WHERE scenario = 'sana'", "3");
}

static void test_store__keeps_what_a_policy_did(void **state)
{
    (void)state;
    const char *path = scratch_file("actions.db");
    mp_store *s = open_store(path, MP_STORE_WRITE);
    const mp_action_row actions[] = {
        {"text_encode", "text_encoder.text_projection", "", "cast_in", "bf16", "fp16", 2, 64, 0.5},
        {"text_encode", "text_encoder.text_projection", "", "cast_out", "fp16", "bf16", 2, 64,
         0.25},
        {"decode", "vae.decoder", "conv2d", "redo_refused", "bf16", "fp32", 1, INT64_MAX, 0}};
    mp_cell_result r = good, twice = good;
    mp_error err = {0};

    r.actions = actions;
    r.action_count = 3;
    const int64_t run = begin_run(s, &a_run);
    finish_cell(s, begin_cell(s, run, &a_cell), &r);
    assert_sql(
        path,
        "SELECT group_concat(stage || ' ' || op || ' ' || kind || ' ' || from_dtype || ' ' "
        "|| to_dtype || ' ' || count || ' ' || elements || ' ' || seconds, '; ') FROM "
        "policy_action",
        "decode conv2d redo_refused bf16 fp32 1 9223372036854775807 0.0; "
        "text_encode  cast_in bf16 fp16 2 64 0.5; text_encode  cast_out fp16 bf16 2 64 0.25");
    assert_sql(path, "SELECT count(*) FROM policy_action_view WHERE label = 'before'", "3");
    twice.actions = (mp_action_row[]){actions[0], actions[0]};
    twice.action_count = 2;
    const int64_t cell = begin_cell(s, run, &a_cell);
    assert_int_equal(mp_store_finish_cell(s, cell, &twice, &err), MP_EDB);
    mp_store_close(s);
    assert_sql(path, "SELECT status FROM cell ORDER BY id DESC",
               "running"); /* whole or not at all */
    assert_sql(path, "SELECT count(*) FROM policy_action", "3");
}

static void test_store__keeps_where_the_time_went(void **state)
{
    (void)state;
    const char *path = scratch_file("ops.db");
    mp_store *s = open_store(path, MP_STORE_WRITE);
    const mp_op_row ops[] = {
        {"denoise", "transformer.blocks.*.attn1.to_q", "linear", "bf16", 48, 0.5, INT64_MAX, 1000},
        {"denoise", "transformer.blocks.*.attn1.to_q", "linear", "fp32", 2, 0.25, 64, 0},
        {"denoise", "", "", "", 100, 0.125, 0, 0}};
    mp_cell_result r = good, twice = good;
    mp_error err = {0};

    r.ops = ops;
    r.op_count = 3;
    const int64_t run = begin_run(s, &a_run);
    finish_cell(s, begin_cell(s, run, &a_cell), &r);
    assert_sql(path,
               "SELECT group_concat(stage || ' ' || module || ' ' || op || ' ' || dtype || ' ' || "
               "calls || ' ' || seconds || ' ' || bytes || ' ' || flops, '; ') FROM op_profile",
               "denoise    100 0.125 0 0; denoise transformer.blocks.*.attn1.to_q linear bf16 48 "
               "0.5 9223372036854775807 1000; denoise transformer.blocks.*.attn1.to_q linear fp32 "
               "2 0.25 64 0");
    assert_sql(path, "SELECT sum(calls) FROM op_profile_view WHERE label = 'before'", "150");
    twice.ops = (mp_op_row[]){ops[0], ops[0]};
    twice.op_count = 2;
    const int64_t cell = begin_cell(s, run, &a_cell);
    assert_int_equal(mp_store_finish_cell(s, cell, &twice, &err), MP_EDB);
    mp_store_close(s);
    assert_sql(path, "SELECT count(*) FROM op_profile", "3"); /* whole or not at all */
}

static void test_store__keeps_references_and_replaces_them(void **state)
{
    (void)state;
    mp_store *s = open_store(scratch_file("references.db"), MP_STORE_WRITE);
    mp_reference_row row = {"k1", "aaa", true, false, 1e-7, NAN}, got;
    mp_error err = {0};
    char sha[65];
    bool found = true;

    assert_int_equal(mp_store_get_reference(s, "k1", &got, sha, &found, &err), MP_OK);
    assert_false(found);
    assert_int_equal(mp_store_put_reference(s, &row, &err), MP_OK);
    assert_int_equal(mp_store_get_reference(s, "k1", &got, sha, &found, &err), MP_OK);
    assert_true(found && got.finite && !got.constant);
    assert_true(got.floor_latents == 1e-7 && isnan(got.floor_image));
    assert_string_equal(got.key, "k1");
    assert_ptr_equal(got.file_sha256, sha);
    assert_string_equal(sha, "aaa");
    row = (mp_reference_row){"k1", "bbb", false, true, NAN, 2};
    assert_int_equal(mp_store_put_reference(s, &row, &err), MP_OK);
    assert_int_equal(mp_store_get_reference(s, "k1", &got, sha, &found, &err), MP_OK);
    assert_true(found && !got.finite && got.constant && isnan(got.floor_latents));
    assert_string_equal(sha, "bbb");
    mp_store_close(s);
}

/* ---- once and in order ---------------------------------------------------------------------- */

static void test_store__refuses_to_finish_a_cell_twice_and_changes_nothing(void **state)
{
    (void)state;
    const char *path = scratch_file("twice.db");
    mp_store *s = open_store(path, MP_STORE_WRITE);
    const int64_t cell = begin_cell(s, begin_run(s, &a_run), &a_cell);
    const mp_metric_row late = {"late", "run", -1, "", 1, "1"};
    mp_cell_result again = {
        .status = "crash", .step = -1, .signal = 9, .metrics = &late, .metric_count = 1};
    mp_error err = {0};
    char *before, *after;

    finish_cell(s, cell, &good);
    before = sql_text(path, "SELECT status || ended FROM cell");
    assert_int_equal(mp_store_finish_cell(s, cell, &again, &err), MP_EDB);
    assert_non_null(strstr(err.text, "is not running, so its result cannot be recorded"));
    mp_store_close(s);
    after = sql_text(path, "SELECT status || ended FROM cell");
    assert_string_equal(after, before);
    assert_sql(path, "SELECT count(*) FROM metric", "0");
    free(before);
    free(after);
}

static void test_store__takes_a_result_whole_or_not_at_all(void **state)
{
    (void)state;
    const char *path = scratch_file("whole.db");
    mp_store *s = open_store(path, MP_STORE_WRITE);
    const int64_t cell = begin_cell(s, begin_run(s, &a_run), &a_cell);
    const mp_metric_row rows[] = {{"m", "run", -1, "", 1, "1"}, {"m", "run", -1, "", 2, "1"}};
    mp_cell_result r = good;
    mp_error err = {0};

    r.metrics = rows;
    r.metric_count = 2;
    assert_int_equal(mp_store_finish_cell(s, cell, &r, &err), MP_EDB);
    assert_non_null(strstr(err.text, "UNIQUE constraint failed: metric.cell"));
    assert_sql(path, "SELECT status || (SELECT count(*) FROM metric) FROM cell", "running0");
    r.metric_count = 1;
    finish_cell(s, cell, &r); /* the handle works on */
    mp_store_close(s);
    assert_sql(path, "SELECT status || (SELECT count(*) FROM metric) FROM cell", "ok1");
}

static void test_store__refuses_a_cell_of_no_run(void **state)
{
    (void)state;
    const char *path = scratch_file("norun.db");
    mp_store *s = open_store(path, MP_STORE_WRITE);
    mp_error err = {0};
    int64_t id = 5;

    assert_int_equal(mp_store_begin_cell(s, 99, &a_cell, &id, &err), MP_EDB);
    assert_int_equal(id, 0);
    assert_non_null(strstr(err.text, "FOREIGN KEY constraint failed"));
    mp_store_close(s);
    assert_sql(path, "SELECT count(*) FROM cell", "0");
}

static void test_store__finds_the_newest_finished_record_of_a_cell(void **state)
{
    (void)state;
    mp_store *s = open_store(scratch_file("record.db"), MP_STORE_WRITE);
    const int64_t run = begin_run(s, &a_run);
    mp_cell_result second = {.status = "nonfinite", .step = -1, .budget = "psnr"};
    mp_cell_record rec;
    mp_error err = {0};

    begin_cell(s, run, &a_cell);
    assert_int_equal(mp_store_cell_record(s, run, a_cell.key, &rec, &err), MP_OK);
    assert_int_equal(rec.id, 0); /* running is no record */
    finish_cell(s, begin_cell(s, run, &a_cell), &good);
    const int64_t last = begin_cell(s, run, &a_cell);
    finish_cell(s, last, &second);
    finish_cell(s, begin_cell(s, run, &a_cell),
                &(mp_cell_result){.status = "interrupted", .step = -1});
    assert_int_equal(mp_store_cell_record(s, run, a_cell.key, &rec, &err), MP_OK);
    assert_int_equal(rec.id, last);
    assert_string_equal(rec.status, "nonfinite");
    assert_true(rec.budget_broken && !rec.as_expected);
    assert_int_equal(mp_store_cell_record(s, run, "other", &rec, &err), MP_OK);
    assert_int_equal(rec.id, 0);
    mp_store_close(s);
}

/* ---- kills and resuming --------------------------------------------------------------------- */

static void die_in_the_middle(const char *path)
{
    mp_store *s = NULL;
    mp_error err = {0};
    int64_t run, cell;

    if (mp_store_open(path, MP_STORE_WRITE, &s, &err) ||
        mp_store_begin_run(s, &a_run, &run, &err) ||
        mp_store_begin_cell(s, run, &a_cell, &cell, &err) ||
        mp_store_finish_cell(s, cell, &good, &err) ||
        mp_store_begin_cell(s, run, &a_cell, &cell, &err))
        _exit(1);
    kill(getpid(), SIGKILL);
}

static void test_store__survives_a_kill_and_resumes_the_run(void **state)
{
    (void)state;
    const char *path = scratch_file("killed.db");
    const pid_t child = fork();
    mp_error err = {0};
    int64_t run = 0;
    char uuid[37];
    int status;

    if (!child)
        die_in_the_middle(path);
    waitpid(child, &status, 0);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_sql(path, "PRAGMA integrity_check", "ok");
    assert_sql(path, "SELECT group_concat(status) FROM cell", "ok,running");

    mp_store *s = open_store(path, MP_STORE_WRITE);
    assert_int_equal(mp_store_resume_run(s, &a_run, &run, uuid, &err), MP_OK);
    assert_int_equal(run, 1);
    mp_store_close(s);
    assert_sql(path, "SELECT group_concat(status) FROM cell", "ok,interrupted");
    assert_sql(path, "SELECT count(*) FROM cell WHERE ended IS NOT NULL", "2");
}

static void test_store__resumes_only_the_same_run_and_the_newest(void **state)
{
    (void)state;
    const char *path = scratch_file("resume.db");
    mp_store *s = open_store(path, MP_STORE_WRITE);
    mp_run_info second = a_run, unnamed = a_run, other[5] = {a_run, a_run, a_run, a_run, a_run};
    mp_error err = {0};
    int64_t run = 0;
    char uuid[37];

    begin_run(s, &a_run);
    second.uuid = "2";
    const int64_t newest = begin_run(s, &second);
    other[0].plan = "other";
    other[1].label = "other";
    other[2].engine = "other";
    other[3].device = "other";
    other[4].fingerprint = "other";
    begin_cell(s, newest, &a_cell);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(mp_store_resume_run(s, &other[i], &run, uuid, &err), MP_OK);
        assert_int_equal(run, 0);
    }
    unnamed.label = NULL;
    unnamed.uuid = "3";
    assert_int_equal(mp_store_resume_run(s, &unnamed, &run, uuid, &err), MP_OK);
    assert_int_equal(run, 0);
    assert_sql(path, "SELECT status FROM cell", "running");
    assert_int_equal(mp_store_resume_run(s, &a_run, &run, uuid, &err), MP_OK);
    assert_int_equal(run, newest);
    const int64_t plain = begin_run(s, &unnamed);
    assert_int_equal(mp_store_resume_run(s, &unnamed, &run, uuid, &err), MP_OK);
    assert_int_equal(run, plain);
    assert_string_equal(uuid, "3");
    mp_store_close(s);
}

static void test_store__resumes_rounds_whose_label_was_made(void **state)
{
    (void)state;
    const char *path = scratch_file("rounds.db");
    mp_store *s = open_store(path, MP_STORE_WRITE);
    mp_run_info run = a_run, asked = a_run;
    mp_error err = {0};
    int64_t id = 0;
    char uuid[37];

    run.label = "rounds-22222222"; /* another's */
    begin_run(s, &run);
    asked.label = NULL;
    assert_int_equal(mp_store_resume_run(s, &asked, &id, uuid, &err), MP_OK);
    assert_int_equal(id, 0);
    run.uuid = "22222222-2222-4333-8444-555555555555";
    const int64_t made = begin_run(s, &run);
    assert_int_equal(mp_store_resume_run(s, &asked, &id, uuid, &err), MP_OK);
    assert_int_equal(id, made);
    assert_string_equal(uuid, run.uuid);
    asked.label = "before";
    assert_int_equal(mp_store_resume_run(s, &asked, &id, uuid, &err), MP_OK);
    assert_int_equal(id, 0);
    mp_store_close(s);
}

static void test_store__keeps_the_limits_of_a_cell_from_its_beginning(void **state)
{
    (void)state;
    const char *path = scratch_file("limits.db");
    mp_store *s = open_store(path, MP_STORE_WRITE);
    const mp_limit_row limits[] = {{"seconds", "absolute", 2.5}, {"seconds", "relative", 0.05}};
    mp_cell_info cell = a_cell;

    cell.limits = limits;
    cell.limit_count = 2;
    begin_cell(s, begin_run(s, &a_run), &cell);
    mp_store_close(s);
    assert_sql(path,
               "SELECT group_concat(cell || metric || kind || value) FROM (SELECT * FROM "
               "cell_limit ORDER BY kind)",
               "1secondsabsolute2.5,1secondsrelative0.05");
}

/* ---- two at once ---------------------------------------------------------------------------- */

enum { CELLS_EACH = 50 };

static void write_cells(const char *path, int who, int go)
{
    char uuid[8], start;
    mp_run_info run = a_run;
    mp_store *s = NULL;
    mp_error err = {0};
    int64_t id, cell;

    snprintf(uuid, sizeof uuid, "w%d", who);
    run.uuid = uuid;
    if (read(go, &start, 1) < 0 || mp_store_open(path, MP_STORE_WRITE, &s, &err) ||
        mp_store_begin_run(s, &run, &id, &err))
        child_fails(&err);
    for (int i = 0; i < CELLS_EACH; i++)
        if (mp_store_begin_cell(s, id, &a_cell, &cell, &err) ||
            mp_store_finish_cell(s, cell, &good, &err))
            child_fails(&err);
    mp_store_close(s);
    _exit(0);
}

/* Children that wait for one another, then all work on the same file. */
static void together(void (*work)(const char *, int, int), const char *path, int n)
{
    int go[2];

    assert_int_equal(pipe(go), 0);
    for (int i = 0; i < n; i++)
        if (!fork()) {
            close(go[1]);
            work(path, i, go[0]);
        }
    close(go[0]);
    close(go[1]); /* end of file for all of them: off they go */
    for (int i = 0; i < n; i++) {
        int status = -1;
        wait(&status);
        assert_int_equal(status, 0);
    }
}

static void test_store__takes_the_cells_of_two_writers_at_once(void **state)
{
    (void)state;
    const char *path = scratch_file("writers.db");

    mp_store_close(open_store(path, MP_STORE_WRITE));
    together(write_cells, path, 2);
    assert_sql(path, "SELECT count(*) FROM cell WHERE status = 'ok'", "100");
    assert_sql(path, "SELECT group_concat(n) FROM (SELECT count(*) n FROM cell GROUP BY run)",
               "50,50");
    assert_sql(path, "PRAGMA integrity_check", "ok");
}

static void create_only(const char *path, int who, int go)
{
    char start, uuid[8];
    mp_run_info run = a_run;
    mp_store *s = NULL;
    mp_error err = {0};
    int64_t id;

    snprintf(uuid, sizeof uuid, "w%d", who);
    run.uuid = uuid;
    if (read(go, &start, 1) < 0 || mp_store_open(path, MP_STORE_WRITE, &s, &err) ||
        mp_store_begin_run(s, &run, &id, &err))
        child_fails(&err);
    mp_store_close(s);
    _exit(0);
}

static void test_store__is_created_once_by_two_at_once(void **state)
{
    (void)state;
    /* Often, and also with a crowd: each time the race goes another way. */
    for (int i = 0; i < 20; i++) {
        char name[32];
        snprintf(name, sizeof name, "race%d.db", i);
        const char *path = scratch_file(name);
        const int n = i < 15 ? 2 : 8;
        together(create_only, path, n);
        assert_sql(path, "SELECT count(*) FROM run", n == 2 ? "2" : "8");
        assert_sql(path, "PRAGMA journal_mode", "wal");
    }
}

/* ---- refusals ------------------------------------------------------------------------------- */

static void test_store__refuses_a_newer_schema(void **state)
{
    (void)state;
    const char *path = scratch_file("newer.db");

    mp_store_close(open_store(path, MP_STORE_WRITE));
    sql_run(path, "PRAGMA user_version = 6");
    refuses(path, MP_STORE_READ, MP_EDB,
            "has schema version 6, and this mpbench knows versions up to 5; use a newer mpbench");
    refuses(path, MP_STORE_WRITE, MP_EDB, "use a newer mpbench");
    sql_run(path, "PRAGMA user_version = -1");
    refuses(path, MP_STORE_WRITE, MP_EDB, "has schema version -1, which never existed");
}

/* The schema as version `version` made it, with its numbers; free it. */
static char *old_schema(int version)
{
    char path[512], *text = calloc(1, 1 << 16);

    assert_non_null(text);
    snprintf(path, sizeof path, MP_FIXTURES "/results/schema_%d.sql", version);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    const size_t n = fread(text, 1, (1 << 16) - 100, f);
    assert_true(n > 1000);
    assert_int_equal(fclose(f), 0);
    snprintf(text + n, 100, "PRAGMA application_id = 0x6d706265; PRAGMA user_version = %d",
             version);
    return text;
}

static void test_store__migrates_a_database_of_every_older_version(void **state)
{
    (void)state;
    static const char sql[] =
        "SELECT group_concat(x, ' ') FROM (SELECT m.type || ' ' || m.name || coalesce('.' || t.name "
        "|| ',' || t.type || ',' || t.pk, '') AS x FROM sqlite_master m LEFT JOIN "
        "pragma_table_info(m.name) t WHERE m.name NOT LIKE 'sqlite_%' ORDER BY m.name, t.cid)";
    const char *fresh = scratch_file("fresh.db");
    char name[32], number[12];

    mp_store_close(open_store(fresh, MP_STORE_WRITE));
    char *expected = sql_text(fresh, sql);
    for (int version = 1; version <= 4; version++) {
        snprintf(name, sizeof name, "version%d.db", version);
        snprintf(number, sizeof number, "%d", version);
        const char *path = scratch_file(name);
        char *schema = old_schema(version);
        sql_run(path, schema);
        sql_run(path, "INSERT INTO run VALUES (1, 'u', 'old', 'native', 'cpu', 'c', 'p', 'f', "
                      "'now', NULL, NULL)");
        mp_store_close(open_store(path, MP_STORE_READ)); /* a reader leaves it as it is */
        assert_sql(path, "PRAGMA user_version", number);
        mp_store_close(open_store(path, MP_STORE_WRITE));
        assert_sql(path, "PRAGMA user_version", "5");
        assert_sql(path, "SELECT label FROM run", "old");
        assert_sql(path, "SELECT count(exception) + count(frame) FROM cell", "0");
        assert_sql(path, sql, expected);
        assert_sql_fails(path,
                         "INSERT INTO policy_action VALUES (1, 's', 'm', '', 'cast', 'bf16', "
                         "'fp16', 1, 1, 0.0)",
                         "CHECK constraint failed");
        mp_store_close(open_store(path, MP_STORE_WRITE));
        free(schema);
    }
    free(expected);
}

static void test_store__refuses_another_programs_database(void **state)
{
    (void)state;
    const char *path = scratch_file("other.db");

    sql_run(path, "CREATE TABLE bookmark (url TEXT)");
    refuses(path, MP_STORE_READ, MP_EDB,
            "is a database of another program (application_id 0x0, expected 0x6d706265); name "
            "another file with --db");
    refuses(path, MP_STORE_WRITE, MP_EDB, "is a database of another program");
    sql_run(path, "PRAGMA application_id = 252006674"); /* fossil */
    refuses(path, MP_STORE_WRITE, MP_EDB, "(application_id 0xf055112, expected 0x6d706265)");
    assert_sql(path, "SELECT group_concat(name) FROM sqlite_master", "bookmark");
    assert_sql(path, "PRAGMA journal_mode", "delete");
}

static void test_store__refuses_what_is_no_database(void **state)
{
    (void)state;
    const char *path = scratch_file("notes.txt");

    write_file(path, "name: sana-tiled\npipeline: sana, which is a scenario and no database\n");
    refuses(path, MP_STORE_READ, MP_EDB, "file is not a database (SQLite 26)");
    refuses(path, MP_STORE_WRITE, MP_EDB, "damaged or not made by mpbench");
    assert_int_equal(file_size(path), 69); /* still the text */
}

static void test_store__refuses_to_read_an_empty_file_and_fills_it(void **state)
{
    (void)state;
    const char *path = scratch_file("empty.db");

    write_file(path, "");
    refuses(path, MP_STORE_READ, MP_EMISSING,
            "is an empty database; record something with `mpbench run` first");
    assert_int_equal(file_size(path), 0);
    mp_store_close(open_store(path, MP_STORE_WRITE));
    assert_sql(path, "PRAGMA user_version", "5");
}

/* A copy of the file alone, of a writer that was killed before anything moved there. */
static void test_store__asks_for_the_other_file_of_a_killed_writer(void **state)
{
    (void)state;
    const char *path = scratch_file("begun.db");
    sqlite3 *db;

    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA journal_mode = WAL", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    refuses(path, MP_STORE_READ, MP_EMISSING,
            "is an empty database; record something with `mpbench run` first, or copy its -wal");
}

static void test_store__refuses_folders_and_what_is_not_there(void **state)
{
    (void)state;
    const char *nowhere = scratch_file("no/such/folder.db");

    refuses(scratch_folder(), MP_STORE_READ, MP_EDB,
            "is a folder, expected a database file; name one with --db");
    refuses(scratch_folder(), MP_STORE_WRITE, MP_EDB, "is a folder");
    refuses("/dev/null", MP_STORE_WRITE, MP_EDB, "is no regular file");
    refuses(nowhere, MP_STORE_READ, MP_EMISSING,
            "there is no such database; record something with `mpbench run` first, or name the "
            "file with --db or MPBENCH_DB");
    refuses(nowhere, MP_STORE_WRITE, MP_EDB, "check that the folder exists and may be written");
    assert_int_not_equal(access(nowhere, F_OK), 0);
}

/* ---- permissions: as nobody, since they do not bind root ------------------------------------ */

static int as_nobody(int (*work)(const char *), const char *path)
{
    int status = -1;
    const pid_t child = fork();

    if (!child) {
        if (geteuid() == 0 && (setgid(65534) || setuid(65534)))
            _exit(77);
        _exit(work(path));
    }
    waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        print_message("root, and cannot become another user: permissions cannot be tested\n");
        skip();
    }
    return status;
}

static int write_is_refused(const char *path)
{
    mp_store *s;
    mp_error err = {0};

    if (mp_store_open(path, MP_STORE_WRITE, &s, &err) == MP_EDB &&
        strstr(err.text, "is read-only; make it writable, or name another file with --db"))
        return 0;
    fprintf(stderr, "%s\n", err.text);
    return 1;
}

static void test_store__refuses_to_write_a_read_only_file(void **state)
{
    (void)state;
    const char *path = scratch_file("readonly.db");

    mp_store_close(open_store(path, MP_STORE_WRITE));
    assert_int_equal(chmod(path, 0444), 0);
    assert_int_equal(as_nobody(write_is_refused, path), 0);
}

static int is_read(const char *path, mp_store_mode mode)
{
    mp_store *s;
    mp_error err = {0};
    mp_cell_record rec;

    if (!mp_store_open(path, mode, &s, &err) &&
        !mp_store_cell_record(s, 1, a_cell.key, &rec, &err) && rec.id == 1) {
        mp_store_close(s);
        return 0;
    }
    fprintf(stderr, "%s\n", err.text);
    return 1;
}

/* In the mode of merge and export, too: they only read. */
static int one_run_is_read(const char *path)
{
    return is_read(path, MP_STORE_READ) || is_read(path, MP_STORE_RENEW);
}

static int read_is_refused(const char *path)
{
    mp_store *s;
    mp_error err = {0};

    if (mp_store_open(path, MP_STORE_READ, &s, &err) == MP_EDB &&
        strstr(err.text, "may not be read; change its permissions, or name another file"))
        return 0;
    fprintf(stderr, "%s\n", err.text);
    return 1;
}

static void test_store__says_that_a_file_may_not_be_read(void **state)
{
    (void)state;
    const char *path = scratch_file("unreadable.db");

    mp_store_close(open_store(path, MP_STORE_WRITE));
    assert_int_equal(chmod(path, 0200), 0);
    assert_int_equal(as_nobody(read_is_refused, path), 0);
}

static int create_is_refused(const char *path)
{
    mp_store *s;
    mp_error err = {0};

    if (mp_store_open(path, MP_STORE_WRITE, &s, &err) == MP_EDB && strstr(err.text, "--db"))
        return 0;
    fprintf(stderr, "%s\n", err.text);
    return 1;
}

static int stale_read_is_refused(const char *path)
{
    mp_store *s;
    mp_error err = {0};

    if (mp_store_open(path, MP_STORE_READ, &s, &err) == MP_EDB &&
        strstr(err.text, "cannot be read where it lies; make its folder writable"))
        return 0;
    fprintf(stderr, "%s\n", err.text);
    return 1;
}

static void test_store__reads_in_a_read_only_folder_but_never_stale(void **state)
{
    (void)state;
    const char *folder = scratch_file("locked"), *path = scratch_file("locked/r.db");

    assert_int_equal(mkdir(folder, 0755), 0);
    mp_store *s = open_store(path, MP_STORE_WRITE);
    finish_cell(s, begin_cell(s, begin_run(s, &a_run), &a_cell), &good);
    mp_store_close(s);
    assert_int_equal(chmod(path, 0444), 0);
    assert_int_equal(chmod(folder, 0555), 0);
    const int read = as_nobody(one_run_is_read, path);
    const int made = as_nobody(create_is_refused, scratch_file("locked/new.db"));
    assert_int_equal(chmod(folder, 0755), 0);
    write_file(scratch_file("locked/r.db-wal"), "left by a killed writer");
    assert_int_equal(chmod(scratch_file("locked/r.db-wal"), 0444), 0);
    assert_int_equal(chmod(folder, 0555), 0);
    const int stale = as_nobody(stale_read_is_refused, path);
    assert_int_equal(chmod(folder, 0755), 0);
    assert_int_equal(read, 0);
    assert_int_equal(made, 0);
    assert_int_equal(stale, 0);
}

/* ---- a full disk ---------------------------------------------------------------------------- */

/* Writes until the limit on a file's size stops it; then what was written can still be read. */
static void write_until_full(const char *path)
{
    const struct rlimit limit = {256 * 1024, 256 * 1024};
    mp_store *s = NULL;
    mp_error err = {0};
    mp_cell_record rec;
    int64_t run, cell = 0, done = 0;

    signal(SIGXFSZ, SIG_IGN);
    if (mp_store_open(path, MP_STORE_WRITE, &s, &err) ||
        mp_store_begin_run(s, &a_run, &run, &err) || setrlimit(RLIMIT_FSIZE, &limit))
        child_fails(&err);
    while (done < 10000 && !mp_store_begin_cell(s, run, &a_cell, &cell, &err) &&
           !mp_store_finish_cell(s, cell, &good, &err))
        done++;
    if (err.code != MP_EDB || !strstr(err.text, "free space; what was recorded is kept"))
        child_fails(&err);
    mp_error after = {0};
    if (mp_store_cell_record(s, run, a_cell.key, &rec, &after) || rec.id < done)
        child_fails(&after);
    mp_store_close(s);
    _exit(done > 5 ? 0 : 1);
}

static void test_store__keeps_earlier_cells_when_the_disk_is_full(void **state)
{
    (void)state;
    const char *path = scratch_file("full.db");
    int status = -1;
    const pid_t child = fork();

    if (!child)
        write_until_full(path);
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    assert_sql(path, "PRAGMA integrity_check", "ok");
    assert_sql(path, "SELECT count(*) > 5 FROM cell WHERE status = 'ok'", "1");
    mp_store *s = open_store(path, MP_STORE_WRITE); /* room again */
    finish_cell(s, begin_cell(s, 1, &a_cell), &good);
    mp_store_close(s);
}

/* No room for the files that SQLite wants beside the database. */
static void read_on_a_full_disk(const char *path)
{
    const struct rlimit limit = {0, 0};

    signal(SIGXFSZ, SIG_IGN);
    _exit(setrlimit(RLIMIT_FSIZE, &limit) ? 1 : one_run_is_read(path));
}

static void test_store__reads_on_a_full_disk(void **state)
{
    (void)state;
    const char *path = scratch_file("no_room.db");
    int status = -1;

    mp_store *s = open_store(path, MP_STORE_WRITE);
    finish_cell(s, begin_cell(s, begin_run(s, &a_run), &a_cell), &good);
    mp_store_close(s);
    const pid_t child = fork();
    if (!child)
        read_on_a_full_disk(path);
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
}

/* ---- damage --------------------------------------------------------------------------------- */

static void test_store__says_that_a_file_is_damaged(void **state)
{
    (void)state;
    const char *path = scratch_file("damaged.db");
    mp_store *s = open_store(path, MP_STORE_WRITE);
    const int64_t run = begin_run(s, &a_run);
    mp_cell_record rec;
    mp_error err = {0};

    for (int i = 0; i < 100; i++)
        finish_cell(s, begin_cell(s, run, &a_cell), &good);
    mp_store_close(s);
    char *page =
        sql_text(path, "SELECT 4096 * (rootpage - 1) FROM sqlite_master WHERE name = 'cell'");
    overwrite(path, atol(page), 4096);
    free(page);
    s = open_store(path, MP_STORE_READ);
    assert_int_equal(mp_store_cell_record(s, run, a_cell.key, &rec, &err), MP_EDB);
    assert_non_null(strstr(err.text, "database disk image is malformed"));
    assert_non_null(strstr(err.text, "rescue it with sqlite3's .recover, or name another file"));
    mp_store_close(s);
}

static void test_store__says_that_its_schema_is_damaged(void **state)
{
    (void)state;
    const char *path = scratch_file("header.db");

    mp_store_close(open_store(path, MP_STORE_WRITE));
    overwrite(path, 100, file_size(path) - 100);
    refuses(path, MP_STORE_READ, MP_EDB, "rescue it with sqlite3's .recover");
    refuses(path, MP_STORE_WRITE, MP_EDB, "rescue it with sqlite3's .recover");
}

static void test_store__bends_to_a_cut_file(void **state)
{
    (void)state;
    const char *path = scratch_file("cut.db");

    mp_store_close(open_store(path, MP_STORE_WRITE));
    assert_int_equal(truncate(path, 5000), 0);
    mp_store *s = NULL;
    mp_error err = {0};
    mp_cell_record rec;
    if (!mp_store_open(path, MP_STORE_READ, &s, &err))
        mp_store_cell_record(s, 1, "x", &rec, &err);
    assert_int_equal(err.code, MP_EDB);
    assert_non_null(strstr(err.text, "malformed"));
    mp_store_close(s);
}

/* ---- memory --------------------------------------------------------------------------------- */

static mp_code work_once(const char *path, mp_error *err)
{
    mp_store *s = NULL;
    int64_t run, cell;

    if (!mp_store_open(path, MP_STORE_WRITE, &s, err) &&
        !mp_store_begin_run(s, &a_run, &run, err) &&
        !mp_store_begin_cell(s, run, &a_cell, &cell, err))
        mp_store_finish_cell(s, cell, &good, err);
    mp_store_close(s);
    return err->code;
}

static void test_store__reports_each_failed_allocation(void **state)
{
    (void)state;
    int failures = 0;

    for (uint64_t n = 1;; n++) {
        char name[32];
        mp_error err = {0};
        snprintf(name, sizeof name, "memory%d.db", (int)n);
        const char *path = scratch_file(name);
        mp_memory_fail_at(n);
        const mp_code code = work_once(path, &err);
        mp_memory_fail_at(0);
        if (code == MP_OK)
            break;
        assert_int_equal(code, MP_ENOMEM);
        failures++;
    }
    assert_true(failures >= 2); /* the handle and its path */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_store__waits_for_the_disk_with_a_result_and_not_before),
        cmocka_unit_test(test_store__waits_for_the_disk_after_a_beginning_that_failed),
        cmocka_unit_test(test_store__creates_a_wal_database_of_its_own_kind),
        cmocka_unit_test(test_store__opens_a_database_again_without_changing_it),
        cmocka_unit_test(test_store__keeps_a_run_with_its_environment),
        cmocka_unit_test(test_store__keeps_a_failed_cell_with_its_place),
        cmocka_unit_test(test_store__keeps_what_is_unknown_as_null),
        cmocka_unit_test(test_store__keeps_metrics_also_infinite_and_nan),
        cmocka_unit_test(test_store__lets_no_half_number_in),
        cmocka_unit_test(test_store__keeps_samples_and_outputs),
        cmocka_unit_test(test_store__keeps_what_a_policy_did),
        cmocka_unit_test(test_store__keeps_where_the_time_went),
        cmocka_unit_test(test_store__keeps_references_and_replaces_them),
        cmocka_unit_test(test_store__refuses_to_finish_a_cell_twice_and_changes_nothing),
        cmocka_unit_test(test_store__takes_a_result_whole_or_not_at_all),
        cmocka_unit_test(test_store__refuses_a_cell_of_no_run),
        cmocka_unit_test(test_store__finds_the_newest_finished_record_of_a_cell),
        cmocka_unit_test(test_store__survives_a_kill_and_resumes_the_run),
        cmocka_unit_test(test_store__resumes_only_the_same_run_and_the_newest),
        cmocka_unit_test(test_store__resumes_rounds_whose_label_was_made),
        cmocka_unit_test(test_store__keeps_the_limits_of_a_cell_from_its_beginning),
        cmocka_unit_test(test_store__takes_the_cells_of_two_writers_at_once),
        cmocka_unit_test(test_store__is_created_once_by_two_at_once),
        cmocka_unit_test(test_store__refuses_a_newer_schema),
        cmocka_unit_test(test_store__migrates_a_database_of_every_older_version),
        cmocka_unit_test(test_store__refuses_another_programs_database),
        cmocka_unit_test(test_store__refuses_what_is_no_database),
        cmocka_unit_test(test_store__refuses_to_read_an_empty_file_and_fills_it),
        cmocka_unit_test(test_store__asks_for_the_other_file_of_a_killed_writer),
        cmocka_unit_test(test_store__refuses_folders_and_what_is_not_there),
        cmocka_unit_test(test_store__refuses_to_write_a_read_only_file),
        cmocka_unit_test(test_store__says_that_a_file_may_not_be_read),
        cmocka_unit_test(test_store__reads_in_a_read_only_folder_but_never_stale),
        cmocka_unit_test(test_store__keeps_earlier_cells_when_the_disk_is_full),
        cmocka_unit_test(test_store__reads_on_a_full_disk),
        cmocka_unit_test(test_store__says_that_a_file_is_damaged),
        cmocka_unit_test(test_store__says_that_its_schema_is_damaged),
        cmocka_unit_test(test_store__bends_to_a_cut_file),
        cmocka_unit_test(test_store__reports_each_failed_allocation),
    };

    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
