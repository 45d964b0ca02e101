/* config.json: typed values, defaults, and what is said of wrong ones. */
#include "tests/pipelines/scratch.h"

#include <math.h>

#include "pipelines/common/config.h"

static mp_config *open_text(const char *text, mp_error *err)
{
    mp_config *c = NULL;

    scratch_text("config.json", text);
    mp_config_open(scratch_dir, "config.json", &c, err);
    return c;
}

static void test_config__reads_every_type(void **state)
{
    mp_error err = {0};
    mp_config *c = open_text("{\"i\": 20, \"x\": 0.5, \"whole\": 3, \"b\": true, \"s\": \"silu\","
                             " \"list\": [3, 4, 5], \"rows\": [[], [5], [1, 2]],"
                             " \"o\": {\"factor\": 8}}",
                             &err);
    int64_t list[4], rows[4 * 3];
    int lens[4];

    (void)state;
    assert_ok(&err);
    assert_int_equal(mp_config_int(c, "i", 1, 0, 100, &err), 20);
    assert_true(mp_config_number(c, "x", 1, &err) == 0.5);
    assert_true(mp_config_number(c, "whole", 1, &err) == 3);
    assert_true(mp_config_bool(c, "b", false, &err));
    assert_string_equal(mp_config_string(c, "s", "gelu", &err), "silu");
    assert_int_equal(mp_config_ints(c, "list", list, 4, 0, 9, &err), 3);
    assert_int_equal(list[2], 5);
    assert_int_equal(mp_config_int_lists(c, "rows", rows, lens, 4, 3, &err), 3);
    assert_int_equal(lens[0], 0);
    assert_int_equal(lens[2], 2);
    assert_int_equal(rows[1 * 3], 5);
    assert_int_equal(rows[2 * 3 + 1], 2);
    mp_config *o = mp_config_object(c, "o", &err);
    assert_non_null(o);
    assert_int_equal(mp_config_int(o, "factor", 1, 0, 100, &err), 8);
    assert_ok(&err);
    mp_config_close(c);
}

static void test_config__gives_defaults_for_null_and_absent(void **state)
{
    mp_error err = {0};
    mp_config *c = open_text("{\"i\": null, \"o\": null, \"list\": null}", &err);
    const char *names[2];
    int64_t list[2];

    (void)state;
    assert_ok(&err);
    assert_false(mp_config_has(c, "i"));
    assert_true(mp_config_is_null(c, "i"));
    assert_int_equal(mp_config_int(c, "i", -7, 0, 100, &err), -7);
    assert_int_equal(mp_config_int(c, "j", 5, 0, 100, &err), 5);
    assert_true(mp_config_number(c, "x", 1.25, &err) == 1.25);
    assert_true(mp_config_bool(c, "b", true, &err));
    assert_null(mp_config_string(c, "s", NULL, &err));
    assert_int_equal(mp_config_ints(c, "list", list, 2, 0, 9, &err), -1);
    assert_int_equal(mp_config_int_lists(c, "rows", list, NULL, 1, 2, &err), -1);
    assert_null(mp_config_object(c, "o", &err));
    assert_int_equal(mp_config_strings(c, "t", names, 2, "ResBlock", &err), MP_OK);
    assert_string_equal(names[1], "ResBlock");
    assert_ok(&err);
    mp_config_close(c);
}

static void test_config__spreads_one_string_over_a_list(void **state)
{
    mp_error err = {0};
    mp_config *c = open_text("{\"one\": \"A\", \"two\": [\"B\", \"C\"]}", &err);
    const char *names[2];

    (void)state;
    assert_int_equal(mp_config_strings(c, "one", names, 2, "x", &err), MP_OK);
    assert_string_equal(names[0], "A");
    assert_string_equal(names[1], "A");
    assert_int_equal(mp_config_strings(c, "two", names, 2, "x", &err), MP_OK);
    assert_string_equal(names[0], "B");
    assert_string_equal(names[1], "C");
    mp_config_close(c);
}

/* json.dump of Python writes these, although they are no JSON. */
static void test_config__reads_pythons_infinities(void **state)
{
    mp_error err = {0};
    mp_config *c = open_text("{\"a\": -Infinity, \"b\": Infinity, \"c\": NaN,"
                             " \"Infinity\": \"a \\\" NaN\"}",
                             &err);

    (void)state;
    assert_ok(&err);
    assert_true(mp_config_number(c, "a", 0, &err) == -INFINITY);
    assert_true(mp_config_number(c, "b", 0, &err) == INFINITY);
    assert_true(isnan(mp_config_number(c, "c", 0, &err)));
    assert_string_equal(mp_config_string(c, "Infinity", "", &err), "a \" NaN");
    assert_ok(&err);
    mp_config_close(c);
}

/* The value of "key", asked for as all types; one of them must say this. */
static const struct {
    const char *value;
    char type;
    const char *says;
} wrong[] = {
    {"\"abc\"", 'i', "config.json: \"key\": expected an integer in 1..1024, found \"abc\""},
    {"0", 'i', "expected an integer in 1..1024, found 0"},
    {"1025", 'i', "in 1..1024, found 1025"},
    {"2.5", 'i', "in 1..1024, found 2.5"},
    {"true", 'i', "in 1..1024, found true"},
    {"\"\\u001b[31m\"", 'i', "found \"\\x1b[31m\""},
    {"[1]", 'n', "expected a number, found a list of 1"},
    {"\"1e3\"", 'n', "expected a number, found \"1e3\""},
    {"1", 'b', "expected true or false, found 1"},
    {"{}", 's', "expected a string, found an object"},
    {"[1, 2, 3]", 'l', "expected a list of at most 2 integers, found a list of 3"},
    {"[1, \"x\"]", 'l', "in 1..1024, found \"x\""},
    {"7", 'l', "at most 2 integers, found 7"},
    {"[\"a\"]", 't', "expected a string or a list of 2 strings, found a list of 1"},
    {"[\"a\", 1]", 't', "a list of 2 strings, found 1"},
    {"[[1], 2]", 'r', "integers, found 2"},
    {"[[1], [2], [3]]", 'r', "expected a list of at most 2 lists, found a list of 3"},
    {"3", 'o', "expected an object, found 3"},
};

static void ask(mp_config *c, char type, mp_error *err)
{
    const char *names[2];
    int64_t ints[4];
    int lens[2];

    switch (type) {
    case 'i':
        assert_int_equal(mp_config_int(c, "key", 11, 1, 1024, err), 11);
        break;
    case 'n':
        mp_config_number(c, "key", 0, err);
        break;
    case 'b':
        assert_true(mp_config_bool(c, "key", true, err));
        break;
    case 's':
        assert_string_equal(mp_config_string(c, "key", "default", err), "default");
        break;
    case 'l':
        assert_int_equal(mp_config_ints(c, "key", ints, 2, 1, 1024, err), -1);
        break;
    case 't':
        mp_config_strings(c, "key", names, 2, "x", err);
        break;
    case 'r':
        assert_int_equal(mp_config_int_lists(c, "key", ints, lens, 2, 2, err), -1);
        break;
    default:
        assert_null(mp_config_object(c, "key", err));
    }
}

static void test_config__says_what_it_expected_and_found(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        mp_error err = {0};
        char text[128];
        snprintf(text, sizeof text, "{\"key\": %s}", wrong[i].value);
        mp_config *c = open_text(text, &err);
        assert_ok(&err);
        ask(c, wrong[i].type, &err);
        assert_error(&err, MP_EFORMAT, "\"key\"", wrong[i].says);
        mp_config_close(c);
    }
}

static void test_config__keeps_the_first_failure_and_then_gives_defaults(void **state)
{
    mp_error err = {0};
    mp_config *c = open_text("{\"a\": \"x\", \"b\": \"y\", \"good\": 3}", &err);

    (void)state;
    mp_config_int(c, "a", 1, 0, 9, &err);
    mp_config_int(c, "b", 1, 0, 9, &err);
    assert_int_equal(mp_config_int(c, "good", 8, 0, 9, &err), 8);
    assert_error(&err, MP_EFORMAT, "\"a\"");
    mp_config_close(c);
}

static void test_config__names_nested_keys_in_full(void **state)
{
    mp_error err = {0};
    mp_config *c = open_text("{\"rope\": {\"inner\": {\"factor\": []}}}", &err);
    mp_config *o = mp_config_object(c, "rope", &err);

    (void)state;
    mp_config_int(mp_config_object(o, "inner", &err), "factor", 1, 0, 9, &err);
    assert_error(&err, MP_EFORMAT, "\"rope.inner.factor\": expected an integer in 0..9");
    mp_config_close(c);
}

static void test_config__lists_keys_nobody_asked_for(void **state)
{
    mp_error err = {0};
    mp_config *c = open_text("{\"_class_name\": \"X\", \"a\": 1, \"new\": 2, \"o\": {\"p\": 1}, "
                             "\"\\u0001\": 0}",
                             &err);
    char text[64], tiny[4];

    (void)state;
    mp_config_int(c, "a", 0, 0, 9, &err);
    mp_config_object(c, "o", &err);
    assert_int_equal(mp_config_unknown(c, text, sizeof text), 3);
    assert_string_equal(text, "new, \\x01, o.p");
    assert_int_equal(mp_config_unknown(c, tiny, sizeof tiny), 3);
    assert_string_equal(tiny, "new");
    mp_config_close(c);
}

static void test_config__refuses_what_is_no_object_of_distinct_keys(void **state)
{
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"", "line 1, column 0"},
        {"[1]", "found a list of 1, expected an object at the top"},
        {"{\"a\": 1,\n \"a\": 2}", "line 2, column 4: duplicate object key"},
        {"{\"a\": 1} trailing", "line 1, column"},
        {"{\"a\": 1,}", "line 1, column 9"},
        {"{\"a\": \"\\u0000\"}", "\\u0000 is not allowed"},
        {"{\"a\": 123456789012345678901234567890}", "too big integer"},
        {"{\"a\": \"\xff\"}", "unable to decode byte 0xff"},
        {"{\"a\": Infinit}", "line 1"},
        {"{\"a\": \"x", "line 1"},
        {"{\"a\": \"x\\", "line 1"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        mp_error err = {0};
        assert_null(open_text(rows[i].text, &err));
        assert_error(&err, MP_EFORMAT, scratch_dir, "/config.json: ", rows[i].says);
    }
}

static void test_config__names_a_missing_file(void **state)
{
    mp_error err = {0};
    mp_config *c;

    (void)state;
    mp_config_open(scratch_dir, "absent.json", &c, &err);
    assert_null(c);
    assert_error(&err, MP_EMISSING, "/absent.json: cannot be opened (No such file");
}

static void test_config__reports_short_memory_at_every_request(void **state)
{
    int failures = 0;

    (void)state;
    scratch_text("config.json", "{\"o\": {\"a\": 1}}");
    for (uint64_t n = 1;; n++) {
        mp_error err = {0};
        mp_config *c = NULL;
        mp_memory_fail_at(n);
        if (!mp_config_open(scratch_dir, "config.json", &c, &err))
            mp_config_object(c, "o", &err);
        mp_memory_fail_at(0);
        mp_config_close(c);
        if (!err.code)
            break;
        assert_error(&err, MP_ENOMEM, "memory");
        failures++;
    }
    assert_in_range(failures, 5, 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config__reads_every_type),
        cmocka_unit_test(test_config__gives_defaults_for_null_and_absent),
        cmocka_unit_test(test_config__spreads_one_string_over_a_list),
        cmocka_unit_test(test_config__reads_pythons_infinities),
        cmocka_unit_test(test_config__says_what_it_expected_and_found),
        cmocka_unit_test(test_config__keeps_the_first_failure_and_then_gives_defaults),
        cmocka_unit_test(test_config__names_nested_keys_in_full),
        cmocka_unit_test(test_config__lists_keys_nobody_asked_for),
        cmocka_unit_test(test_config__refuses_what_is_no_object_of_distinct_keys),
        cmocka_unit_test(test_config__names_a_missing_file),
        cmocka_unit_test(test_config__reports_short_memory_at_every_request),
    };

    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
