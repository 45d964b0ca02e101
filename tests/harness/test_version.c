/* Versions as Python's packages have them, and conditions on an engine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "harness/version.h"

static void test_version__compares_number_by_number(void **state)
{
    static const char *const ascending[] = {"0.9",    "0.32.2", "0.33.0.dev0", "0.33.0rc1",
                                            "0.33.0", "0.33.1", "0.100.0",     "1"};
    enum { COUNT = sizeof ascending / sizeof *ascending };

    (void)state;
    for (int i = 0; i < COUNT; i++)
        for (int k = 0; k < COUNT; k++) {
            const int order = mp_version_compare(ascending[i], ascending[k]);
            const bool both_early = i != k && (i == 2 || i == 3) && (k == 2 || k == 3);
            if (!both_early && (order > 0) - (order < 0) != (i > k) - (i < k))
                fail_msg("%s and %s: %d", ascending[i], ascending[k], order);
        }
}

static void test_version__what_differs_only_in_build_is_equal(void **state)
{
    (void)state;
    assert_int_equal(mp_version_compare("2.15.0", "2.15.0+cu126"), 0);
    assert_int_equal(mp_version_compare("0.33", "0.33.0"), 0);
    assert_int_equal(mp_version_compare("0.33.0.post1", "0.33.0"), 0);
    assert_int_equal(mp_version_compare("unknown", "unknown"), 0);
}

static void test_condition__is_a_name_or_a_name_and_a_version(void **state)
{
    (void)state;
    assert_true(mp_engine_condition_valid("native"));
    assert_true(mp_engine_condition_valid("diffusers < 0.33.0"));
    assert_true(mp_engine_condition_valid("diffusers>=0.33"));
    assert_true(mp_engine_condition_valid("diffusers == 1"));
    assert_false(mp_engine_condition_valid(""));
    assert_false(mp_engine_condition_valid("< 0.33.0"));
    assert_false(mp_engine_condition_valid("diffusers 0.33.0"));
    assert_false(mp_engine_condition_valid("diffusers <"));
    assert_false(mp_engine_condition_valid("diffusers = 1"));
    assert_false(mp_engine_condition_valid("diffusers <> 1"));
    assert_false(mp_engine_condition_valid("diffusers < new"));
    assert_false(mp_engine_condition_valid("diffusers < 1 2"));
}

static void test_condition__holds_for_its_engine_and_versions(void **state)
{
    static const struct {
        const char *text, *version;
        bool holds;
    } cases[] = {{"d", "1.0", true},         {"d < 1.1", "1.0", true},  {"d < 1.0", "1.0", false},
                 {"d <= 1.0", "1.0", true},  {"d > 0.9", "1.0", true},  {"d > 1.0", "1.0", false},
                 {"d >= 1.0", "1.0", true},  {"d == 1.0", "1.0", true}, {"d == 1.1", "1.0", false},
                 {"d >= 1.1", "1.0", false}, {"d <= 0.9", "1.0", false}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (mp_engine_condition_holds(cases[i].text, "d", cases[i].version) != cases[i].holds)
            fail_msg("%s with %s", cases[i].text, cases[i].version);
        assert_false(mp_engine_condition_holds(cases[i].text, "dd", cases[i].version));
        assert_false(mp_engine_condition_holds(cases[i].text, "", cases[i].version));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_version__compares_number_by_number),
        cmocka_unit_test(test_version__what_differs_only_in_build_is_equal),
        cmocka_unit_test(test_condition__is_a_name_or_a_name_and_a_version),
        cmocka_unit_test(test_condition__holds_for_its_engine_and_versions),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
