/* `mpbench regressions` and `mpbench ack` as their users call them. */
#include "tests/harness/cli.h"

/* A night of one real cell. */
#define NIGHT                                                                              \
    "$mpbench run $source/scenarios/smoke/sana.yaml --only precision.default=bf16 --only " \
    "tiling=off >/dev/null 2>&1"

static void test_regressions__is_quiet_over_equal_nights(void **state)
{
    cli *c = *state;

    cli_run(c, "for i in 1 2 3; do " NIGHT "; done; $mpbench regressions");
    cli_assert_status(c, 0);
    cli_assert_has(c->out, "3 runs from ");
    cli_assert_has(c->out, "too short for statistics, which need 6 runs of a machine: ");
    cli_assert_has(c->out, "verdict: OK exit=0 (0 open findings; ");
}

static void test_regressions__ends_with_1_until_the_finding_is_acknowledged(void **state)
{
    cli *c = *state;

    cli_run(c, "for i in 1 2 3; do " NIGHT
               "; done; sqlite3 mpbench.db \"UPDATE output SET sha256 = 'x' "
               "WHERE cell = 3 AND name = 'image'\"; $mpbench regressions");
    cli_assert_status(c, 1);
    cli_assert_has(c->out, "other bits, by the same program: not reproducible");
    cli_assert_has(c->out, "verdict: REGRESSION exit=1 (1 open finding; ");
    cli_run(c, "$mpbench ack 1 --why 'a test' && $mpbench regressions");
    cli_assert_status(c, 0);
    cli_assert_has(c->out, "1 finding acknowledged\n");
    cli_assert_has(c->out, "acknowledged  exact");
    cli_assert_query(c, "SELECT group_concat(state || coalesce(' ' || why, '')) FROM finding_event",
                     "confirmed,acknowledged a test");
}

static void test_regressions__records_nothing_of_another_method(void **state)
{
    cli *c = *state;

    cli_run(c, NIGHT "; $mpbench regressions --method otava --window 30 --p-value 0.01 --magnitude "
                     "0.05 && chmod 444 mpbench.db && $mpbench regressions --method otava");
    cli_assert_status(c, 0);
}

static void test_regressions__only_reads_when_asked_to(void **state)
{
    cli *c = *state;

    cli_run(
        c, NIGHT
        "; cp mpbench.db copy.db; $mpbench regressions --db copy.db --dry-run && cmp mpbench.db "
        "copy.db && chmod 444 copy.db && $mpbench regressions --db copy.db --dry-run "
        "&& $mpbench regressions --db copy.db --metric seconds");
    cli_assert_status(c, 0);
}

static void test_regressions__says_what_is_wrong_with_its_arguments(void **state)
{
    static const struct {
        const char *command, *part;
        int status;
    } cases[] = {
        {"regressions --db none.db", "there is no such database", 2},
        {"regressions --scenario x", "no finished cell of a scenario 'x'", 2},
        {"regressions --metric sism", "no finished cell has the metric 'sism' of its whole run", 2},
        {"regressions --metric rel_l2", "there are: floor_image_rel_l2, ", 2},
        {"regressions --min-segment 1", "--min-segment", 2},
        {"regressions --p-value x", "--p-value: found 'x', expected a number, 0 or more", 2},
        {"regressions --p-value -1", "--p-value: found '-1', expected a number, 0 or more", 2},
        {"regressions --magnitude inf", "--magnitude: found 'inf', expected a number", 2},
        {"regressions --window 30", "are Otava's: give --method otava, too, or none of them", 2},
        {"regressions --method pelt", "--method", 2},
        {"regressions x", "'x' is one operand too many", 2},
        {"regressions --db $source/README.md", "file is not a database", 3},
        {"ack --why x", "missing operand: expected ID...", 2},
        {"ack 1", "--why is missing: say in a few words why", 2},
        {"ack one --why x", "'one' is no finding's id, expected a number", 2},
        {"ack 4 --why x", "there is no finding 4; `mpbench regressions` shows", 2},
        {"ack 4 --why x --db none.db", "there is no such database", 2},
    };
    cli *c = *state;

    cli_run(c, NIGHT);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cli_run(c, "$mpbench %s", cases[i].command);
        cli_assert_status(c, cases[i].status);
        cli_assert_has(c->err, cases[i].part);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_regressions__is_quiet_over_equal_nights, cli_setup,
                                        cli_teardown),
        cmocka_unit_test_setup_teardown(
            test_regressions__ends_with_1_until_the_finding_is_acknowledged, cli_setup,
            cli_teardown),
        cmocka_unit_test_setup_teardown(test_regressions__only_reads_when_asked_to, cli_setup,
                                        cli_teardown),
        cmocka_unit_test_setup_teardown(test_regressions__records_nothing_of_another_method,
                                        cli_setup, cli_teardown),
        cmocka_unit_test_setup_teardown(test_regressions__says_what_is_wrong_with_its_arguments,
                                        cli_setup, cli_teardown),
    };

    return cmocka_run_group_tests(tests, cli_share_cache, cli_drop_cache);
}
