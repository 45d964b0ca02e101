/* `mpbench show ID --ops`, over cells with profiles worked out by hand. */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "results/query.h"
#include "tests/results/scratch.h"

static mp_store *store;

/* Peaks of 100 GFLOP/s, in bf16 1000, and copies of 10 GB/s. */
static const mp_metric_row machine[] = {{"roofline_fp32", "machine", -1, "", 100, "GFLOP/s"},
                                        {"roofline_copy", "machine", -1, "", 10, "GB/s"},
                                        {"roofline_bf16", "machine", -1, "", 1000, "GFLOP/s"}};

/* The profile is of the last generation, of 2 s: 0.2 s of it are outside ops. */
static const mp_sample_row samples[] = {
    {-1, "total", 9}, {0, "total", 5}, {1, "total", 2}, {1, "denoise", 1.5}};

static const mp_op_row ops[] = {
    /* 300 GFLOP of bf16 need 0.3 s, 1 GB needs 0.1 s */
    {"denoise", "blocks.*.to_q", "linear", "bf16", 4, 0.6, 1000000000, 300000000000},
    /* 5 GFLOP need 0.05 s, 2 GB need 0.2 s */
    {"denoise", "blocks.*.ff", "conv2d", "fp32", 2, 0.8, 2000000000, 5000000000},
    /* no FLOPs: 1 GB */
    {"denoise", "blocks.*", "add", "fp32", 8, 0.125, 1000000000, 0},
    {"decode", "", "", "", 50, 0.275, 1100000000, 550000000}};

static int64_t record(int64_t run, const char *key, int peaks, int op_count)
{
    const mp_cell_info cell = {.key = key,
                               .scenario = "sana",
                               .scenario_hash = "s",
                               .pipeline = "sana",
                               .checkpoint = "tiny",
                               .checkpoint_hash = "c",
                               .repro = "mpbench run sana.yaml"};
    const mp_cell_result result = {.status = "ok",
                                   .as_expected = true,
                                   .step = -1,
                                   .metrics = machine,
                                   .metric_count = peaks,
                                   .samples = samples,
                                   .sample_count = 4,
                                   .ops = ops,
                                   .op_count = op_count};
    mp_error err = {0};
    int64_t id = 0;

    if (mp_store_begin_cell(store, run, &cell, &id, &err) ||
        mp_store_finish_cell(store, id, &result, &err))
        fail_msg("%s", err.text);
    return id;
}

/* Cells 1: everything; 2: no peak of bf16; 3: no roofline at all; 4: no profile. */
static int make_store(void **state)
{
    static const mp_pair threads = {"threads", "2"};
    const mp_run_info info = {.uuid = "u",
                              .engine = "native",
                              .device = "cpu",
                              .command = "mpbench run",
                              .plan = "p",
                              .fingerprint = "f",
                              .environment = &threads,
                              .environment_count = 1};
    mp_error err = {0};
    int64_t run;

    if (scratch_make(state) ||
        mp_store_open(scratch_file("ops.db"), MP_STORE_WRITE, &store, &err) ||
        mp_store_begin_run(store, &info, &run, &err))
        return -1;
    record(run, "sana/\033[2J", 3, 4);
    record(run, "sana/b", 2, 4);
    record(run, "sana/c", 0, 4);
    record(run, "sana/d", 3, 0);
    return 0;
}

static int drop_store(void **state)
{
    mp_store_close(store);
    return scratch_remove(state);
}

static mp_code ask(int64_t id, mp_format format, char **out, mp_error *err)
{
    size_t n;
    FILE *f = open_memstream(out, &n);

    assert_non_null(f);
    const mp_code code = mp_query_ops(store, id, format, f, err);
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
    json_t *all = json_loads(text, 0, NULL);

    assert_non_null(all);
    free(text);
    return all;
}

static void assert_text(int64_t id, mp_format format, const char *expected)
{
    char *text = printed(id, format);

    assert_string_equal(text, expected);
    free(text);
}

/* Of the op at place i: a number, or -1 for null. */
static double value(const json_t *all, size_t i, const char *key)
{
    const json_t *v = json_object_get(json_array_get(json_object_get(all, "ops"), i), key);

    assert_true(json_is_number(v) || json_is_null(v));
    return json_is_null(v) ? -1 : json_number_value(v);
}

static void test_ops__are_held_against_the_roofline(void **state)
{
    (void)state;
    assert_text(1, MP_TEXT,
                "cell 1  sana/\\x1b[2J\n"
                "last generation: 2 s on threads: 2; roofline: 100 GFLOP/s in fp32, 1000 in bf16, "
                "copies 10.0 GB/s\n\n"
                "stage    module         op             dtype  calls  seconds  time %  GFLOP/s  "
                "GB/s  roofline %\n"
                "denoise  blocks.*.ff    conv2d         fp32       2      0.8    40.0     6.25   "
                "2.5        25.0\n"
                "denoise  blocks.*.to_q  linear         bf16       4      0.6    30.0      500  "
                "1.67        50.0\n"
                "decode                  (other ops)              50    0.275    13.8        2     "
                "4           -\n"
                "                        (between ops)                    0.2    10.0        -     "
                "-           -\n"
                "denoise  blocks.*       add            fp32       8    0.125     6.2        -     "
                "8        80.0\n");
}

static void test_ops__of_bf16_are_held_against_fp32_where_pairs_are_not_multiplied(void **state)
{
    (void)state;
    json_t *all = printed_json(2); /* 300 GFLOP need 3 s of the 0.6 that were measured */

    assert_true(json_is_null(json_object_get(all, "roofline_bf16")));
    assert_float_equal(value(all, 1, "roofline"), 5, 1e-12);
    json_decref(all);
}

static void test_ops__without_a_roofline_have_no_share_of_it(void **state)
{
    (void)state;
    json_t *all = printed_json(3);

    assert_true(json_is_null(json_object_get(all, "roofline_fp32")));
    assert_float_equal(value(all, 0, "gflops"), 6.25, 1e-12);
    for (size_t i = 0; i < 5; i++)
        assert_true(value(all, i, "roofline") == -1);
    json_decref(all);
}

static void test_ops__are_whole_numbers_for_programs(void **state)
{
    (void)state;
    json_t *all = printed_json(1);
    double share = 0;

    assert_string_equal(json_string_value(json_object_get(all, "kind")), "mpbench show --ops");
    assert_int_equal(json_integer_value(json_object_get(all, "version")), 1);
    assert_true(json_real_value(json_object_get(all, "seconds")) == 2);
    for (size_t i = 0; i < 5; i++)
        share += value(all, i, "share");
    assert_float_equal(share, 1, 1e-12);
    assert_float_equal(value(all, 1, "gbs"), 1 / 0.6, 1e-12);
    json_decref(all);
    char *csv = printed(1, MP_CSV);
    const char *head = "stage,module,op,dtype,calls,seconds,share,gflops,gbs,roofline\r\n"
                       "denoise,blocks.*.ff,conv2d,fp32,2,0.8";
    assert_memory_equal(csv, head, strlen(head));
    free(csv);
}

static void refuses(int64_t id, const char *part)
{
    mp_error err = {0};
    char *text = NULL;

    assert_int_equal(ask(id, MP_TEXT, &text, &err), MP_EMISSING);
    assert_string_equal(text, "");
    if (!strstr(err.text, part))
        fail_msg("\"%s\" does not contain \"%s\"", err.text, part);
    free(text);
}

static void test_ops__say_why_there_are_none(void **state)
{
    (void)state;
    refuses(4, "cell 4 has no profile of ops: only the native engine makes one");
    refuses(4, "to run it again: mpbench run sana.yaml");
    refuses(5, "there is no cell 5; `mpbench list` shows the ids");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ops__are_held_against_the_roofline),
        cmocka_unit_test(test_ops__of_bf16_are_held_against_fp32_where_pairs_are_not_multiplied),
        cmocka_unit_test(test_ops__without_a_roofline_have_no_share_of_it),
        cmocka_unit_test(test_ops__are_whole_numbers_for_programs),
        cmocka_unit_test(test_ops__say_why_there_are_none),
    };

    return cmocka_run_group_tests(tests, make_store, drop_store);
}
