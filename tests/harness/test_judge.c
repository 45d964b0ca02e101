/* Budgets against what a cell measured. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "harness/judge.h"

static mp_arena *arena;

static int setup(void **state)
{
    (void)state;
    arena = mp_arena_create();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mp_arena_free(arena);
    return 0;
}

/* What is broken of one limit when the metric is `value`; NaN: it was not measured. */
static const char *broken(mp_budget b, double value)
{
    mp_scenario s = {.budgets = {b}, .budget_count = 1};
    mp_metric_row row = {b.name, "run", -1, "", value, "1"};
    const mp_metrics m = {.arena = arena, .rows = &row, .count = !isnan(value)};
    mp_cell_result r = {.status = "ok"};

    mp_judge_budgets(arena, &s, &m, &r);
    return r.budget ? r.budget : "nothing";
}

static void test_budgets__are_broken_by_more_or_by_less(void **state)
{
    const mp_budget most = {.name = "seconds", .absolute = 2, .relative = NAN};
    const mp_budget least = {.name = "psnr_db", .absolute = 40, .relative = NAN, .at_least = true};

    (void)state;
    assert_string_equal(broken(most, 2), "nothing");
    assert_string_equal(broken(most, 2.5), "seconds 2.5 is above 2");
    assert_string_equal(broken(most, NAN), "seconds was not measured, limit 2");
    assert_string_equal(broken(least, 40), "nothing");
    assert_string_equal(broken(least, 39), "psnr_db 39 is below 40");
}

static void test_budgets__that_are_relative_alone_are_not_judged_here(void **state)
{
    const mp_budget b = {.name = "seconds", .absolute = NAN, .relative = 0.05};

    (void)state;
    assert_string_equal(broken(b, 1e9), "nothing");
    assert_string_equal(broken(b, NAN), "nothing");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_budgets__are_broken_by_more_or_by_less),
        cmocka_unit_test(test_budgets__that_are_relative_alone_are_not_judged_here),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
