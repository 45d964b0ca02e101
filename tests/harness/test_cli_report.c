/* `mpbench report` as its users run it. */
#include "tests/harness/cli.h"

static void test_report__writes_the_page_of_a_run(void **state)
{
    cli *c = *state;

    cli_scenario(c, "half", "matrix: {precision.default: [fp32, bf16]}\n");
    cli_run(c, "\"$mpbench\" run half.yaml --repeat 1 --warmup 0 && \"$mpbench\" report --out a/b");
    cli_assert_status(c, 0);
    cli_assert_has(c->out, "\na/b/index.html: 0.");
    cli_assert_has(c->out, " MB, 2 cells: 0 unexpected, 0 over budget, 0 unfinished, 0 open "
                           "findings\n");
    char *page = cli_read(c, "a/b/index.html");
    cli_assert_has(page, ">All as expected</h1>");
    cli_assert_has(page, "half</a>");
    cli_assert_has(page, "\"reference\":\""); /* the run recorded pictures */
    free(page);
    cli_run(c, "ls -A a/b");
    assert_string_equal(c->out, "index.html\n");
}

static void test_report__of_a_broken_budget_has_it_and_still_succeeds(void **state)
{
    cli *c = *state;

    cli_scenario(c, "bad", "precision: {default: bf16}\nbudgets: {latent_rel_l2: 1e-9}\n");
    cli_run(c, "\"$mpbench\" run bad.yaml --repeat 1 --warmup 0; \"$mpbench\" report --out out");
    cli_assert_status(c, 0);
    cli_assert_has(c->out, " MB, 1 cell: 0 unexpected, 1 over budget,");
    char *page = cli_read(c, "out/index.html");
    cli_assert_has(page, ">Regression</h1>");
    cli_assert_has(page, "<dt>over budget</dt><dd>latent_rel_l2");
    cli_assert_has(page, "<code>mpbench run bad.yaml");
    free(page);
}

static void test_report__refuses_what_makes_no_page(void **state)
{
    cli *c = *state;

    cli_run(c, "\"$mpbench\" report");
    cli_assert_status(c, 2);
    cli_assert_has(c->err, "--out DIR is missing");
    cli_run(c, "\"$mpbench\" report --out out --db none.db");
    cli_assert_status(c, 2);
    cli_assert_has(c->err, "none.db: there is no such database");
    cli_scenario(c, "one", "");
    cli_run(c, "\"$mpbench\" run one.yaml --repeat 1 --warmup 0 && touch file && "
               "\"$mpbench\" report --out file");
    cli_assert_status(c, 3);
    cli_assert_has(c->err, "file/index.html: cannot write the page: Not a directory");
    cli_run(c, "\"$mpbench\" report --out out --run 12");
    cli_assert_status(c, 2);
    cli_assert_has(c->err, "no cells of run 12; the newest runs are: 1; scenarios: one");
    cli_run(c, "\"$mpbench\" report --out out more");
    cli_assert_status(c, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_report__writes_the_page_of_a_run, cli_setup,
                                        cli_teardown),
        cmocka_unit_test_setup_teardown(test_report__of_a_broken_budget_has_it_and_still_succeeds,
                                        cli_setup, cli_teardown),
        cmocka_unit_test_setup_teardown(test_report__refuses_what_makes_no_page, cli_setup,
                                        cli_teardown),
    };

    return cmocka_run_group_tests(tests, cli_share_cache, cli_drop_cache);
}
