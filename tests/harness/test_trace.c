/* The trace's file: JSON whatever is in it, complete after every write, whole when the disk is
 * full. */
#include <errno.h>
#include <jansson.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "harness/trace.h"

static char path[] = "/tmp/mpbench-trace-XXXXXX";

static int make_file(void **state)
{
    const int fd = mkstemp(path);

    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

static mp_trace *create(const char *command)
{
    mp_error err = {0};
    mp_trace *t = NULL;

    if (mp_trace_create(path, command, &t, &err))
        fail_msg("%s", err.text);
    return t;
}

static json_t *read_trace(void)
{
    json_error_t why;
    json_t *all = json_load_file(path, JSON_REJECT_DUPLICATES, &why);

    if (!all)
        fail_msg("line %d: %s", why.line, why.text);
    return all;
}

static json_t *event(const json_t *all, size_t i)
{
    json_t *e = json_array_get(json_object_get(all, "traceEvents"), i);

    assert_non_null(e);
    return e;
}

static const char *word(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "(none)";
}

static double number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);

    assert_true(json_is_number(value));
    return json_number_value(value);
}

static void close_trace(mp_trace *t)
{
    mp_error err = {0};

    if (mp_trace_close(t, &err))
        fail_msg("%s", err.text);
}

static void test_trace__an_op_has_all_that_is_known_of_it(void **state)
{
    mp_trace *t = create("mpbench run 'a b.yaml'");
    const uint64_t start = mp_now_ns() + 5000;
    const mp_tensor y = mp_view(NULL, MP_BF16, 3, (const int64_t[]){1, 77, 64});

    (void)state;
    mp_trace_cell(t, 7, "sana/precision.default=bf16");
    mp_trace_op(t, &(mp_op_event){.op = "linear",
                                  .module = "transformer.proj_out",
                                  .y = &y,
                                  .start = start,
                                  .ns = 2000,
                                  .bytes = 123456,
                                  .flops = 5000,
                                  .live = 100,
                                  .peak = 300});
    close_trace(t);
    json_t *all = read_trace();
    const json_t *name = event(all, 1), *op = event(all, 4), *args = json_object_get(op, "args");
    assert_string_equal(word(json_object_get(all, "otherData"), "command"),
                        "mpbench run 'a b.yaml'");
    assert_string_equal(word(name, "name"), "process_name");
    assert_string_equal(word(json_object_get(name, "args"), "name"), "sana/precision.default=bf16");
    assert_int_equal(number(name, "pid"), 7);
    assert_string_equal(word(op, "ph"), "X");
    assert_string_equal(word(op, "cat"), "op");
    assert_string_equal(word(op, "name"), "linear");
    assert_int_equal(number(op, "pid"), 7);
    assert_true(number(op, "ts") >= 5 && number(op, "dur") == 2);
    assert_float_equal(number(json_object_get(all, "otherData"), "zero_ns") +
                           1000 * number(op, "ts"),
                       (double)start, 1);
    assert_string_equal(word(args, "module"), "transformer.proj_out");
    assert_string_equal(word(args, "dtype"), "bf16");
    assert_string_equal(word(args, "shape"), "[1, 77, 64]");
    assert_int_equal(number(args, "bytes"), 123456);
    assert_int_equal(number(args, "flops"), 5000);
    assert_true(number(args, "GFLOP/s") == 2.5);
    const json_t *peak = event(all, 5), *live = event(all, 6);
    assert_string_equal(word(peak, "ph"), "C");
    assert_int_equal(number(json_object_get(peak, "args"), "bytes"), 300);
    assert_true(number(peak, "ts") == number(op, "ts"));
    assert_int_equal(number(json_object_get(live, "args"), "bytes"), 100);
    assert_float_equal(number(live, "ts"), number(op, "ts") + 2, 1e-3);
    json_decref(all);
}

static void test_trace__names_out_of_files_are_only_text(void **state)
{
    static const char *const names[] = {"\"}],\"x\":[{\"",       "back\\slash",
                                        "new\nline\ttab\x1b[2J", "caf\xc3\xa9",
                                        "\xff\xfe no UTF-8",     ""};
    enum { NAMES = sizeof names / sizeof *names };
    mp_trace *t = create(names[0]);

    (void)state;
    for (int i = 0; i < NAMES; i++) {
        mp_trace_cell(t, i + 1, names[i]);
        mp_trace_begin(t, "module", names[i], mp_now_ns());
        mp_trace_end(t, mp_now_ns());
    }
    close_trace(t);
    json_t *all = read_trace();
    assert_int_equal(json_array_size(json_object_get(all, "traceEvents")), 1 + 5 * NAMES);
    for (size_t i = 0; i < NAMES; i++)
        assert_string_equal(word(event(all, 1 + 5 * i + 3), "name"),
                            i == 4 ? "\\xff\\xfe no UTF-8" : names[i]);
    json_decref(all);
}

static void test_trace__a_name_of_any_length_leaves_the_rest_alone(void **state)
{
    enum { LONG = 100000 };
    char *name = test_malloc(LONG + 1);
    mp_trace *t;

    (void)state;
    memset(name, '"', LONG);
    name[LONG] = '\0';
    t = create(name);
    mp_trace_cell(t, 1, name);
    mp_trace_span(t, "step", "step 0", mp_now_ns(), mp_now_ns());
    close_trace(t);
    json_t *all = read_trace();
    assert_string_equal(word(json_object_get(event(all, 1), "args"), "name"), "(a name too long)");
    assert_string_equal(word(event(all, 4), "name"), "step 0");
    json_decref(all);
    test_free(name);
}

/* As after a crash: nobody closes it. */
static void test_trace__is_complete_after_every_write(void **state)
{
    mp_trace *t = create("c");

    (void)state;
    for (int i = 0; i < 500; i++) {
        mp_trace_span(t, "step", "a step with a name", mp_now_ns(), mp_now_ns());
        if (i % 100 == 0)
            mp_trace_flush(t);
        json_t *all = read_trace();
        const size_t n = json_array_size(json_object_get(all, "traceEvents"));
        assert_true(n <= (size_t)i + 2 && n + 250 > (size_t)i); /* some wait for company */
        json_decref(all);
    }
    close_trace(t);
    json_t *all = read_trace();
    assert_int_equal(json_array_size(json_object_get(all, "traceEvents")), 501);
    json_decref(all);
}

static void test_trace__what_is_open_can_be_ended_at_once_and_never_twice(void **state)
{
    mp_trace *t = create("c");
    const char kinds[] = "MMMMBBEBEE";

    (void)state;
    mp_trace_cell(t, 1, "cell");
    mp_trace_begin(t, "stage", "a", mp_now_ns());
    mp_trace_begin(t, "module", "b", mp_now_ns());
    mp_trace_end(t, mp_now_ns());
    mp_trace_begin(t, "module", "c", mp_now_ns());
    mp_trace_end_all(t, mp_now_ns());
    mp_trace_end(t, mp_now_ns());
    close_trace(t);
    json_t *all = read_trace();
    assert_int_equal(json_array_size(json_object_get(all, "traceEvents")), strlen(kinds));
    for (size_t i = 0; kinds[i]; i++)
        assert_int_equal(word(event(all, i), "ph")[0], kinds[i]);
    json_decref(all);
}

static void test_trace__a_full_disk_leaves_what_was_there(void **state)
{
    mp_trace *t = create("c");
    struct rlimit before, tight;
    mp_error err = {0};
    size_t n;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    tight = before;
    tight.rlim_cur = 40000; /* in the middle of a write */
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    for (int i = 0; i < 2000; i++)
        mp_trace_span(t, "step", "a step with a name", mp_now_ns(), mp_now_ns());
    const int trouble = mp_trace_trouble(t);
    const mp_code code = mp_trace_close(t, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(trouble, EFBIG);
    assert_int_equal(code, MP_EIO);
    assert_non_null(strstr(err.text, path));
    json_t *all = read_trace();
    n = json_array_size(json_object_get(all, "traceEvents"));
    assert_true(n > 100 && n < 1000);
    json_decref(all);
}

static void refuses(const char *file, const char *part)
{
    mp_error err = {0};
    mp_trace *t = NULL;

    assert_int_equal(mp_trace_create(file, "c", &t, &err), MP_EIO);
    if (!strstr(err.text, file) || !strstr(err.text, part))
        fail_msg("\"%s\" does not name %s and \"%s\"", err.text, file, part);
    err.code = MP_OK;
    mp_trace_close(t, &err);
}

static void test_trace__refuses_what_is_no_file(void **state)
{
    (void)state;
    refuses("/tmp", "Is a directory");
    refuses("/dev/null", "is no regular file");
    refuses("/nowhere/at/all.json", "No such file or directory");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_trace__an_op_has_all_that_is_known_of_it),
        cmocka_unit_test(test_trace__names_out_of_files_are_only_text),
        cmocka_unit_test(test_trace__a_name_of_any_length_leaves_the_rest_alone),
        cmocka_unit_test(test_trace__is_complete_after_every_write),
        cmocka_unit_test(test_trace__what_is_open_can_be_ended_at_once_and_never_twice),
        cmocka_unit_test(test_trace__a_full_disk_leaves_what_was_there),
        cmocka_unit_test(test_trace__refuses_what_is_no_file),
    };

    return cmocka_run_group_tests(tests, make_file, remove_file);
}
