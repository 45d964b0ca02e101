/* `mpbench plot` as its users run it. */
#include "tests/harness/cli.h"

/* Two nights of two cells. */
static void record(cli *c)
{
    cli_scenario(c, "fox", "matrix: {precision.default: [fp32, bf16]}\n");
    cli_run(c, "\"$mpbench\" run fox.yaml && \"$mpbench\" run fox.yaml");
    cli_assert_status(c, 0);
}

static void test_plot__draws_each_kind_that_there_is_data_for(void **state)
{
    cli *c = *state;

    record(c);
    cli_run(c, "TMPDIR=. \"$mpbench\" plot && ls plots && ls");
    cli_assert_status(c, 0);
    cli_assert_has(c->out, "plots/fox-series.svg: 2 cells, 2 runs\n");
    cli_assert_has(c->out, "fox-drift.svg\nfox-pareto.svg\nfox-pictures.svg\nfox-series.svg\n"
                           "fox-stages.svg\n");
    assert_null(strstr(c->out, "mpbench-plot-")); /* what was gnuplot's is gone */
    cli_run(c,
            "\"$mpbench\" plot drift && \"$mpbench\" plot pictures --out p.png --size 700x500 && "
            "head -c 4 p.png && grep -c '<text>bf16</text>' drift.svg");
    cli_assert_status(c, 0);
    cli_assert_has(c->out, "drift.svg: 2 cells\np.png: 2 cells\n\x89PNG");
    cli_assert_has(c->out, "1\n");
}

static void test_plot__what_is_kept_can_be_changed_and_drawn_again(void **state)
{
    cli *c = *state;

    record(c);
    cli_run(c, "\"$mpbench\" plot drift --keep kept && cd kept && sed -i 's/denoising step/pas/' "
               "drift.gp && gnuplot -d drift.gp && grep '<text>pas</text>' drift.svg");
    cli_assert_status(c, 0);
    cli_run(c,
            "mkdir own && \"$mpbench\" plot --print-template drift | sed 's/denoising step/krok/' "
            "> own/drift.gp && \"$mpbench\" plot drift --templates own && grep "
            "'<text>krok</text>' drift.svg");
    cli_assert_status(c, 0);
}

static void test_plot__bad_usage_says_what_was_expected(void **state)
{
    static const char *const lines[][2] = {
        {"pie",
         "'pie' is no kind of plot, expected one of series, drift, pareto, stages, pictures"},
        {"drift --out d.gif", "--out d.gif: expected a file that ends in .svg or .png"},
        {"--out d.png", "is one file, and there are several plots"},
        {"series --run 1", "--run: series go over all runs"},
        {"drift --size 900", "--size 900: expected WIDTHxHEIGHT"},
        {"drift --size 900x99999", "200 to 10000 each"},
        {"drift --cell x", "--cell x: is no cell id"},
        {"drift --cell 77", "no finished cell 77"},
        {"drift --run tuesday", "no run of id, UUID or label 'tuesday'"},
        {"drift --scenario cat", "no finished cell of a scenario 'cat'"},
        {"drift --metric beauty", "no cell has this metric"},
        {"drift --templates nowhere", "--templates nowhere: cannot be read"},
        {"drift --db none.db", "none.db: there is no such database"},
        {"--print-template pie", "--print-template pie: there is none"},
    };
    cli *c = *state;

    record(c);
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        cli_run(c, "\"$mpbench\" plot %s; code=$?; ls; exit $code", lines[i][0]);
        cli_assert_status(c, 2);
        cli_assert_has(c->err, lines[i][1]);
        assert_null(strstr(c->out, ".svg"));
    }
}

static void test_plot__trouble_of_the_environment_is_told_apart(void **state)
{
    cli *c = *state;

    record(c);
    cli_run(c, "PATH=nowhere \"$mpbench\" plot drift");
    cli_assert_status(c, 3);
    cli_assert_has(c->err, "install it with ci/setup or `apt install gnuplot-nox`");
    cli_run(c, "mkdir own && echo 'plot nonsense' > own/drift.gp && TMPDIR=. \"$mpbench\" plot "
               "drift --templates own; code=$?; ls; exit $code");
    cli_assert_status(c, 3);
    cli_assert_has(c->err, "gnuplot refuses drift.gp");
    assert_null(strstr(c->out, "mpbench-plot-"));
    cli_run(c, "\"$mpbench\" plot drift --out nowhere/d.svg");
    cli_assert_status(c, 3);
    cli_assert_has(c->err, "nowhere/d.svg: cannot be created");
}

/* A signal to this program alone ends gnuplot, too. */
static void test_plot__an_interrupt_leaves_nothing_behind(void **state)
{
    cli *c = *state;

    record(c);
    cli_write(c, "drift.gp",
              "system('kill -TERM '.system(\"sed -n s/PPid://p /proc/$PPID/status\"))\n"
              "pause 600\n");
    cli_run(c, "mkdir own && mv drift.gp own && TMPDIR=. \"$mpbench\" plot drift --templates own; "
               "code=$?; ls; exit $code");
    cli_assert_status(c, 3);
    cli_assert_has(c->err, "mpbench plot: interrupted\n");
    assert_null(strstr(c->out, "mpbench-plot-"));
    assert_null(strstr(c->out, ".svg"));
}

/* Names of files keep apart what is apart, and inside the folder. */
static void test_plot__hostile_scenarios_stay_inside_the_folder(void **state)
{
    cli *c = *state;

    record(c);
    cli_run(c, "sqlite3 mpbench.db \"UPDATE cell SET scenario = CASE run WHEN 1 THEN '../a b' ELSE "
               "'../a_b' END\" && \"$mpbench\" plot --out out && ls out && ls");
    cli_assert_status(c, 0);
    cli_assert_has(c->out, "_._a_b-");
    cli_run(c, "ls out | grep -c drift");
    cli_assert_has(c->out, "2\n");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, cli_setup, cli_teardown)
    const struct CMUnitTest tests[] = {
        T(test_plot__draws_each_kind_that_there_is_data_for),
        T(test_plot__what_is_kept_can_be_changed_and_drawn_again),
        T(test_plot__bad_usage_says_what_was_expected),
        T(test_plot__trouble_of_the_environment_is_told_apart),
        T(test_plot__an_interrupt_leaves_nothing_behind),
        T(test_plot__hostile_scenarios_stay_inside_the_folder),
    };

    return cmocka_run_group_tests(tests, cli_share_cache, cli_drop_cache);
}
