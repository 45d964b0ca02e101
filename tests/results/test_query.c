/* `mpbench list` and `mpbench show`, over a small database made through the store. */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/core/memory.h"
#include "results/query.h"
#include "tests/results/scratch.h"

/* ---- the database --------------------------------------------------------------------------- */

static mp_store *store;

static const mp_pair environment[] = {{"cpu", "a | test"}, {"git_commit", "0123456789abcdef"}};
static const mp_run_info first_run = {.uuid = "11111111-2222-4333-8444-555555555555",
                                      .label = "before",
                                      .engine = "native",
                                      .device = "cpu",
                                      .command = "mpbench run 'a b.yaml'",
                                      .plan = "p",
                                      .fingerprint = "0123456789",
                                      .environment = environment,
                                      .environment_count = 2};

static const mp_pair settings[] = {{"inputs.prompt", "a fox,\n\"red\""},
                                   {"precision.default", "bf16"}};
static const mp_limit_row limits[] = {{"seconds", "relative", 0.05}};

static int64_t begin(int64_t run, const char *key)
{
    const mp_cell_info cell = {.key = key,
                               .scenario = "sana",
                               .scenario_hash = "s",
                               .pipeline = "sana",
                               .checkpoint = "tiny",
                               .checkpoint_hash = "c",
                               .repro = "mpbench run sana.yaml --only precision.default=bf16",
                               .settings = settings,
                               .setting_count = 2,
                               .limits = limits,
                               .limit_count = 1};
    mp_error err = {0};
    int64_t id = 0;

    if (mp_store_begin_cell(store, run, &cell, &id, &err))
        fail_msg("%s", err.text);
    return id;
}

static int64_t record(int64_t run, const char *key, const mp_cell_result *result)
{
    const int64_t id = begin(run, key);
    mp_error err = {0};

    if (mp_store_finish_cell(store, id, result, &err))
        fail_msg("%s", err.text);
    return id;
}

/* A good cell with everything (1), an interrupted one (2), a failed one over budget (3), the second
 * one again (4), and a second run with a cell still running (5). */
static int make_store(void **state)
{
    static int count;
    static const mp_metric_row metrics[] = {
        {"latent_rel_l2", "run", -1, "", 0.0012345678901234567, "1"},
        {"image_rel_l2", "run", -1, "", INFINITY, "1"},
        {"seconds", "run", -1, "", 1.25, "s"},
        {"latent_rel_l2", "latents", 0, "", 0.5, "1"}};
    static const mp_sample_row samples[] = {{-1, "total", 2}, {0, "total", 1.25}};
    static const mp_output_row outputs[] = {{"image", "bf16", "[1, 3, 8, 8]", "abc"}};
    static const mp_action_row actions[] = {
        {"text_encode", "te.text_projection", "", "cast_in", "bf16", "fp16", 2, 64, 0.000125}};
    const mp_cell_result good = {.status = "ok",
                                 .as_expected = true,
                                 .step = -1,
                                 .metrics = metrics,
                                 .metric_count = 4,
                                 .samples = samples,
                                 .sample_count = 2,
                                 .outputs = outputs,
                                 .output_count = 1,
                                 .actions = actions,
                                 .action_count = 1};
    const mp_cell_result failed = {.status = "error",
                                   .outcome = "dtype_mismatch",
                                   .error = "expected Half\nbut found Float",
                                   .module = "vae.decoder",
                                   .step = 0,
                                   .budget = "psnr_db"};
    mp_run_info second = first_run;
    mp_error err = {0};
    char name[32];
    int64_t run;

    (void)state;
    snprintf(name, sizeof name, "query%d.db", count++);
    if (mp_store_open(scratch_file(name), MP_STORE_WRITE, &store, &err) ||
        mp_store_begin_run(store, &first_run, &run, &err))
        return -1;
    record(run, "sana/a", &good);
    record(run, "sana/b", &(mp_cell_result){.status = "interrupted", .step = -1});
    record(run, "sana/c", &failed);
    record(run, "sana/b", &(mp_cell_result){.status = "ok", .as_expected = true, .step = -1});
    if (mp_store_end_run(store, run, 3, &err))
        return -1;
    second.uuid = "22222222-2222-4333-8444-555555555555";
    second.label = NULL;
    second.environment_count = 0;
    if (mp_store_begin_run(store, &second, &run, &err))
        return -1;
    begin(run, "sana/a");
    return 0;
}

static int drop_store(void **state)
{
    (void)state;
    mp_store_close(store);
    store = NULL;
    return 0;
}

/* ---- asking --------------------------------------------------------------------------------- */

static int64_t limit, more; /* of list */

/* id 0: list. */
static mp_code ask(int64_t id, mp_format format, char **out, mp_error *err)
{
    size_t n;
    FILE *f = open_memstream(out, &n);

    assert_non_null(f);
    const mp_code code = id ? mp_query_show(store, id, format, f, err)
                            : mp_query_list(store, limit, format, f, &more, err);
    assert_int_equal(fclose(f), 0);
    return code;
}

static char *printed(int64_t id, mp_format format)
{
    mp_error err = {0};
    char *text = NULL;

    if (ask(id, format, &text, &err))
        fail_msg("%s", err.text);
    return text;
}

static json_t *printed_json(int64_t id)
{
    char *text = printed(id, MP_JSON);
    json_error_t why;
    json_t *all = json_loads(text, 0, &why);

    if (!all)
        fail_msg("%s in %s", why.text, text);
    free(text);
    return all;
}

static void assert_holds(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("\"%s\" is not in:\n%s", part, text);
}

static void assert_begins(const char *text, const char *part)
{
    if (strncmp(text, part, strlen(part)))
        fail_msg("\"%s\" does not begin:\n%s", part, text);
}

static json_int_t whole(const json_t *object, const char *key)
{
    assert_true(json_is_integer(json_object_get(object, key)));
    return json_integer_value(json_object_get(object, key));
}

static const char *word(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "(none)";
}

/* ---- list ----------------------------------------------------------------------------------- */

static void test_list__shows_runs_newest_first_with_their_counts(void **state)
{
    (void)state;
    json_t *all = printed_json(0);
    const json_t *runs = json_object_get(all, "runs");
    const json_t *second = json_array_get(runs, 0), *first = json_array_get(runs, 1);

    assert_int_equal(whole(all, "version"), 1);
    assert_string_equal(word(all, "kind"), "mpbench list");
    assert_string_equal(word(all, "database"), mp_store_path(store));
    assert_int_equal(json_array_size(runs), 2);
    assert_int_equal(whole(first, "id"), 1);
    assert_string_equal(word(first, "label"), "before");
    assert_string_equal(word(first, "fingerprint"), "01234567");
    assert_string_equal(word(first, "git_commit"), "0123456789abcdef");
    assert_int_equal(whole(first, "cells"), 3); /* the interrupted one was made again */
    assert_int_equal(whole(first, "ok"), 2);
    assert_int_equal(whole(first, "unexpected"), 1);
    assert_int_equal(whole(first, "over_budget"), 1);
    assert_int_equal(whole(first, "unfinished"), 0);
    assert_int_equal(whole(first, "exit_status"), 3);
    assert_int_equal(whole(second, "id"), 2);
    assert_true(json_is_null(json_object_get(second, "label")));
    assert_true(json_is_null(json_object_get(second, "exit_status")));
    assert_int_equal(whole(second, "cells"), 1);
    assert_int_equal(whole(second, "ok"), 0);
    assert_int_equal(whole(second, "unfinished"), 1);
    json_decref(all);
}

static void test_list__shows_the_newest_of_each_cell_in_json(void **state)
{
    (void)state;
    static const json_int_t ids[] = {5, 1, 3, 4};
    json_t *all = printed_json(0);
    const json_t *cells = json_object_get(all, "cells"), *good = json_array_get(cells, 1);

    assert_int_equal(json_array_size(cells), 4);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(whole(json_array_get(cells, i), "id"), ids[i]);
    assert_string_equal(word(good, "status"), "ok");
    assert_true(json_real_value(json_object_get(good, "latent_rel_l2")) == 0.0012345678901234567);
    assert_string_equal(word(good, "image_rel_l2"), "inf");
    assert_true(json_real_value(json_object_get(good, "seconds")) == 1.25);
    assert_true(json_is_null(json_object_get(good, "peak_mib")));
    json_decref(all);
}

static void test_list__shows_the_newest_runs_and_counts_the_others(void **state)
{
    (void)state;
    limit = 1;
    json_t *all = printed_json(0);
    const json_t *runs = json_object_get(all, "runs"), *cells = json_object_get(all, "cells");
    assert_int_equal(json_array_size(runs), 1);
    assert_int_equal(whole(json_array_get(runs, 0), "id"), 2);
    assert_int_equal(json_array_size(cells), 1);
    assert_int_equal(whole(json_array_get(cells, 0), "run"), 2);
    assert_int_equal(whole(all, "more_runs"), 1);
    assert_int_equal(more, 1);
    json_decref(all);
    for (limit = 2; limit <= 3; limit++) {
        all = printed_json(0);
        assert_int_equal(json_array_size(json_object_get(all, "runs")), 2);
        assert_int_equal(whole(all, "more_runs"), 0);
        assert_int_equal(more, 0);
        json_decref(all);
    }
    limit = 0;
    all = printed_json(0);
    assert_int_equal(json_array_size(json_object_get(all, "runs")), 2);
    assert_int_equal(more, 0);
    json_decref(all);
    sql_run(mp_store_path(store), "UPDATE run SET started = '2020-01-01' WHERE id = 2");
    limit = 1; /* by the start: an older one may have come by merge */
    all = printed_json(0);
    assert_int_equal(whole(json_array_get(json_object_get(all, "runs"), 0), "id"), 1);
    json_decref(all);
    limit = 0;
}

static void test_list__aligns_text(void **state)
{
    (void)state;
    char *text = printed(0, MP_TEXT);

    assert_holds(text, "\nid  run  cell    status              expected  latents  picture  time s  "
                       "peak MiB\n");
    assert_holds(text, "\n 5    2  sana/a  running             -               -        -       -  "
                       "       -\n");
    assert_holds(text, "\n 1    1  sana/a  ok                  yes       0.00123      inf   1.250  "
                       "       -\n");
    assert_holds(text, "\n 3    1  sana/c  error, over budget  no              -        -       -  "
                       "       -\n");
    assert_holds(text, "before  native/cpu      3   2           1            1           0     3  "
                       "01234567  0123456789ab\n");
    free(text);
}

static void test_list__writes_markdown(void **state)
{
    (void)state;
    char *text = printed(0, MP_MARKDOWN);

    assert_holds(text, "| run | started | label | engine | cells |");
    assert_holds(text, "\n\n| id | run | cell | status | expected | latents |");
    assert_holds(text, "| 1 | 1 | sana/a | ok | yes | 0.00123 | inf | 1.250 | - |\n");
    free(text);
}

static void test_list__writes_one_table_of_whole_numbers_as_csv(void **state)
{
    (void)state;
    char *text = printed(0, MP_CSV);

    assert_string_equal(text, "id,run,cell,status,expected,latents,picture,time s,peak MiB\r\n"
                              "5,2,sana/a,running,,,,,\r\n"
                              "1,1,sana/a,ok,yes,0.0012345678901234567,inf,1.25,\r\n"
                              "3,1,sana/c,\"error, over budget\",no,,,,\r\n"
                              "4,1,sana/b,ok,yes,,,,\r\n");
    free(text);
}

static void test_list__shows_an_empty_database(void **state)
{
    (void)state;
    mp_store *full = store;
    mp_error err = {0};

    assert_int_equal(mp_store_open(scratch_file("none.db"), MP_STORE_WRITE, &store, &err), MP_OK);
    char *text = printed(0, MP_TEXT);
    json_t *all = printed_json(0);
    mp_store_close(store);
    store = full;
    assert_begins(text, "run  started  label");
    assert_int_equal(json_array_size(json_object_get(all, "runs")), 0);
    assert_int_equal(json_array_size(json_object_get(all, "cells")), 0);
    free(text);
    json_decref(all);
}

/* ---- show ----------------------------------------------------------------------------------- */

static void test_show__holds_everything_in_json(void **state)
{
    (void)state;
    json_t *all = printed_json(1);
    const json_t *metrics = json_object_get(all, "metrics");
    const json_t *samples = json_object_get(all, "samples");

    assert_int_equal(whole(all, "version"), 1);
    assert_string_equal(word(all, "kind"), "mpbench show");
    assert_int_equal(whole(all, "id"), 1);
    assert_string_equal(word(all, "key"), "sana/a");
    assert_string_equal(word(all, "run_label"), "before");
    assert_string_equal(word(all, "run_uuid"), first_run.uuid);
    assert_string_equal(word(all, "repro"), "mpbench run sana.yaml --only precision.default=bf16");
    assert_true(json_is_null(json_object_get(all, "error")));
    assert_int_equal(json_array_size(metrics), 4);
    assert_string_equal(word(json_array_get(metrics, 0), "name"), "image_rel_l2");
    assert_string_equal(word(json_array_get(metrics, 0), "value"), "inf");
    assert_string_equal(word(json_array_get(metrics, 3), "stage"), "latents"); /* stage run first */
    assert_int_equal(whole(json_array_get(metrics, 3), "step"), 0);
    assert_int_equal(whole(json_array_get(samples, 0), "repeat"), -1);
    assert_true(json_real_value(json_object_get(json_array_get(samples, 1), "seconds")) == 1.25);
    assert_string_equal(word(json_array_get(json_object_get(all, "outputs"), 0), "sha256"), "abc");
    const json_t *action = json_array_get(json_object_get(all, "actions"), 0);
    assert_string_equal(word(action, "kind"), "cast_in");
    assert_string_equal(word(action, "from"), "bf16");
    assert_string_equal(word(action, "to"), "fp16");
    assert_int_equal(whole(action, "count"), 2);
    assert_int_equal(whole(action, "elements"), 64);
    const json_t *budget = json_array_get(json_object_get(all, "limits"), 0);
    assert_string_equal(word(budget, "metric"), "seconds");
    assert_string_equal(word(budget, "kind"), "relative");
    assert_true(json_real_value(json_object_get(budget, "value")) == 0.05);
    const json_t *setting = json_array_get(json_object_get(all, "settings"), 0);
    assert_string_equal(word(setting, "value"), "a fox,\n\"red\"");
    const json_t *cpu = json_array_get(json_object_get(all, "environment"), 0);
    assert_string_equal(word(cpu, "value"), "a | test");
    json_decref(all);
}

static void test_show__indents_long_text_and_leaves_out_what_is_unknown(void **state)
{
    (void)state;
    char *text = printed(3, MP_TEXT);

    assert_begins(text, "id              3\n");
    assert_holds(text, "\nerror           expected Half\n                but found Float\n");
    assert_holds(text, "\nas_expected     no\n");
    assert_holds(text, "\nstep            0\n");
    assert_holds(text, "\nrepro           mpbench run sana.yaml --only precision.default=bf16\n");
    assert_holds(text, "\nsettings\n  key                value\n"
                       "  inputs.prompt      a fox,\\x0a\"red\"\n");
    assert_holds(text, "\nenvironment\n");
    assert_null(strstr(text, "\nop "));
    assert_null(strstr(text, "\nsignal"));
    assert_null(strstr(text, "\nmetrics"));
    free(text);
}

static void test_show__rounds_numbers_for_people(void **state)
{
    (void)state;
    char *text = printed(1, MP_TEXT);

    assert_holds(text, "\nsamples\n  stage  repeat  seconds\n  total  -1      2\n"
                       "  total  0       1.25\n");
    assert_holds(text, "latent_rel_l2  0.00123457  1\n");
    assert_holds(text, "image_rel_l2   inf         1\n");
    assert_holds(text,
                 "\nactions\n"
                 "  stage        module              op  kind     from  to    count  elements  "
                 "seconds\n"
                 "  text_encode  te.text_projection      cast_in  bf16  fp16  2      64        "
                 "0.000125\n");
    free(text);
}

static void test_show__writes_markdown(void **state)
{
    (void)state;
    char *text = printed(3, MP_MARKDOWN);

    assert_begins(text, "| cell |  |\n|---|---|\n| id | 3 |\n");
    assert_holds(text, "| error | expected Half but found Float |\n");
    assert_holds(text, "\n### settings\n\n| key | value |\n");
    assert_holds(text, "| cpu | a \\| test |\n");
    free(text);
}

static void test_show__writes_one_table_as_csv(void **state)
{
    (void)state;
    char *text = printed(1, MP_CSV);

    assert_begins(text, "part,row,column,value\r\ncell,0,id,1\r\n");
    assert_holds(text, "\r\ncell,0,as_expected,1\r\n");
    assert_holds(text, "\r\nsettings,0,value,\"a fox,\n\"\"red\"\"\"\r\n");
    assert_holds(text, "\r\nsamples,1,seconds,1.25\r\n");
    assert_holds(text, "\r\nmetrics,1,name,latent_rel_l2\r\nmetrics,1,value,"
                       "0.0012345678901234567\r\n");
    assert_null(strstr(text, "cell,0,error"));
    free(text);
}

/* A database that is only read is not migrated: its cells are shown without what it lacks. */
/* A bar of 32 marks to the largest peak, 40 MiB: 10 of weights, 5 of activations and 5 of the rest
 * are 8, 4 and 4 of them. */
static void test_show__draws_the_memory_of_each_stage(void **state)
{
    static const mp_metric_row rows[] = {
        {"weights_resident_mib", "denoise", -1, "transformer", 6, "MiB"},
        {"weights_resident_mib", "denoise", -1, "vae", 4, "MiB"},
        {"activations_mib", "denoise", -1, "", 5, "MiB"},
        {"activations_mib", "denoise", -1, "transformer.a", 1, "MiB"},
        {"activations_mib", "denoise", -1, "transformer.b", 4, "MiB"},
        {"rss_peak_mib", "denoise", -1, "", 20, "MiB"},
        {"weights_converted_mib", "decode", -1, "vae", 20, "MiB"},
        {"activations_mib", "decode", -1, "", 10, "MiB"},
        {"scratch_mib", "decode", -1, "", 10, "MiB"},
        {"rss_peak_mib", "decode", -1, "", 40, "MiB"},
        {"rel_l2", "latents", 0, "", 0.5, "1"}};
    const mp_cell_result result = {
        .status = "ok", .step = -1, .metrics = rows, .metric_count = sizeof rows / sizeof *rows};
    (void)state;
    const int64_t id = record(1, "sana/memory", &result);
    char *text = printed(id, MP_TEXT);

    assert_holds(text, "  denoise     10.0        0.0          5.0      0.0   5.0  20.0  "
                       "########****....\n");
    assert_holds(text, "  decode       0.0       20.0         10.0     10.0   0.0  40.0  "
                       "================********%%%%%%%%\n");
    assert_holds(text, "denoise  4.0  transformer.b\n           1.0  transformer.a\n");
    for (const char *at = strstr(text, "memory, MiB"), *end = strstr(text, "\nmetrics");
         at < end;) {
        const char *next = strchr(at, '\n');
        assert_true(next - at <= 100);
        at = next + 1;
    }
    free(text);
    json_t *all = printed_json(id);
    const json_t *stages = json_object_get(all, "memory");
    assert_int_equal(json_array_size(stages), 2);
    assert_string_equal(word(json_array_get(stages, 0), "stage"), "denoise");
    assert_true(json_real_value(json_object_get(json_array_get(stages, 1), "peak")) == 40);
    assert_int_equal(json_array_size(json_object_get(all, "memory_modules")), 2);
    json_decref(all);

    text = printed(1, MP_TEXT); /* a cell without them has no bar */
    assert_null(strstr(text, "memory, MiB"));
    free(text);
}

static void test_show__reads_a_database_of_an_older_version(void **state)
{
    (void)state;
    const char *path = scratch_file("old.db");
    mp_store *newest = store;
    mp_error err = {0};
    char schema[1 << 14] = "";
    FILE *f = fopen(MP_FIXTURES "/results/schema_2.sql", "rb");

    assert_non_null(f);
    assert_true(fread(schema, 1, sizeof schema - 1, f) > 1000);
    assert_int_equal(fclose(f), 0);
    sql_run(path, schema);
    sql_run(path,
            "PRAGMA application_id = 0x6d706265; PRAGMA user_version = 2; INSERT INTO run VALUES "
            "(1, 'u', 'old', 'native', 'cpu', 'c', 'p', 'f', 'now', NULL, NULL); INSERT INTO cell "
            "(run, key, scenario, scenario_hash, pipeline, checkpoint, checkpoint_hash, repro, "
            "started) VALUES (1, 'sana/a', 'sana', 's', 'sana', 'tiny', 'c', 'r', 'now')");
    assert_int_equal(mp_store_open(path, MP_STORE_READ, &store, &err), MP_OK);
    json_t *all = printed_json(1);
    char *text = printed(1, MP_TEXT), *csv = printed(1, MP_CSV);
    mp_store_close(store);
    store = newest;
    assert_string_equal(word(all, "key"), "sana/a");
    assert_int_equal(json_array_size(json_object_get(all, "actions")), 0);
    assert_holds(text, "\nkey             sana/a\n");
    assert_holds(csv, "\r\ncell,0,key,sana/a\r\n");
    json_decref(all);
    free(text);
    free(csv);
}

static void test_show__refuses_an_unknown_id(void **state)
{
    (void)state;
    for (int format = MP_TEXT; format <= MP_CSV; format++) {
        mp_error err = {0};
        char *text = NULL;
        assert_int_equal(ask(6, (mp_format)format, &text, &err), MP_EMISSING);
        assert_holds(err.text, mp_store_path(store));
        assert_holds(err.text, "there is no cell 6; `mpbench list` shows the ids");
        assert_string_equal(text, "");
        free(text);
    }
}

/* ---- hostile text, damage, memory ----------------------------------------------------------- */

static void test_query__lets_no_hostile_text_out(void **state)
{
    (void)state;
    static const char *const update =
        "UPDATE run SET label = CAST(x'1b5b324aff' AS TEXT) WHERE id = 1;"
        "UPDATE cell SET key = CAST(x'e280ae1b5d30' AS TEXT), error = CAST(x'ff1b' AS TEXT)";

    sql_run(mp_store_path(store), update);
    for (int64_t id = 0; id <= 1; id++)
        for (int format = MP_TEXT; format <= MP_CSV; format++) {
            char *text = printed(id, (mp_format)format);
            assert_null(strchr(text, '\x1b'));
            assert_null(strchr(text, '\xff'));
            assert_null(strstr(text, "\xe2\x80\xae"));
            free(text);
        }
    json_t *all = printed_json(0);
    const json_t *first = json_array_get(json_object_get(all, "runs"), 1);
    assert_string_equal(word(first, "label"), "\\x1b[2J\\xff"); /* no UTF-8: JSON cannot hold it */
    json_decref(all);
}

static void test_query__reports_a_database_without_its_tables(void **state)
{
    (void)state;
    mp_error err = {0};
    char *text = NULL;

    sql_run(mp_store_path(store), "DROP VIEW metric_view; DROP TABLE metric");
    assert_int_equal(ask(0, MP_JSON, &text, &err), MP_EDB);
    assert_holds(err.text, "no such table: metric");
    free(text);
    err = (mp_error){0};
    assert_int_equal(ask(1, MP_TEXT, &text, &err), MP_EDB);
    free(text);
    err = (mp_error){0};
    assert_int_equal(ask(1, MP_CSV, &text, &err), MP_EDB);
    free(text);
}

static void test_query__survives_each_failed_allocation(void **state)
{
    (void)state;
    static const char *const told = "(no memory for the table)";

    for (int64_t id = 0; id <= 1; id++)
        for (int format = MP_TEXT; format <= MP_CSV; format++) {
            bool failed = true;
            for (uint64_t n = 1; failed; n++) {
                mp_error err = {0};
                char *text = NULL;
                mp_memory_fail_at(n);
                ask(id, (mp_format)format, &text, &err);
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
        WITH_STORE(test_list__shows_runs_newest_first_with_their_counts),
        WITH_STORE(test_list__shows_the_newest_of_each_cell_in_json),
        WITH_STORE(test_list__shows_the_newest_runs_and_counts_the_others),
        WITH_STORE(test_list__aligns_text),
        WITH_STORE(test_list__writes_markdown),
        WITH_STORE(test_list__writes_one_table_of_whole_numbers_as_csv),
        WITH_STORE(test_list__shows_an_empty_database),
        WITH_STORE(test_show__holds_everything_in_json),
        WITH_STORE(test_show__indents_long_text_and_leaves_out_what_is_unknown),
        WITH_STORE(test_show__rounds_numbers_for_people),
        WITH_STORE(test_show__writes_markdown),
        WITH_STORE(test_show__writes_one_table_as_csv),
        WITH_STORE(test_show__draws_the_memory_of_each_stage),
        WITH_STORE(test_show__reads_a_database_of_an_older_version),
        WITH_STORE(test_show__refuses_an_unknown_id),
        WITH_STORE(test_query__lets_no_hostile_text_out),
        WITH_STORE(test_query__reports_a_database_without_its_tables),
        WITH_STORE(test_query__survives_each_failed_allocation),
    };

    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
