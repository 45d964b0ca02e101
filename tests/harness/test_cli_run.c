/* `mpbench run` end to end on the tiny checkpoint, then list, show and compare on what it wrote. */
#include "tests/harness/cli.h"

#include <jansson.h>

static json_t *parsed(const char *text)
{
    json_error_t why;
    json_t *j = json_loads(text, 0, &why);

    if (!j)
        fail_msg("no JSON: %s in:\n%s", why.text, text);
    return j;
}

static void test_run__records_a_matrix_and_says_so(void **state)
{
    cli *c = *state;

    cli_scenario(c, "pure", "matrix: {precision.default: [fp32, fp16, bf16]}\nrepeat: 2\n");
    cli_run(c, "\"$mpbench\" run pure.yaml --label first");
    cli_assert_status(c, 0);
    cli_assert_has(c->out, "verdict: OK exit=0 (3 cells: all as expected; run 1)");
    cli_assert_has(c->err, "[1/3] pure/precision.default=fp32");
    cli_assert_has(c->err, "mpbench run pure.yaml --only precision.default=fp32");
    cli_assert_query(c, "SELECT group_concat(status) FROM cell", "ok,ok,ok");
    /* load once, and each of the two repeats in three stages and in total */
    cli_assert_query(c, "SELECT count(*) FROM sample WHERE cell = 1", "9");
    cli_assert_query(c, "SELECT label || exit_status || (ended IS NOT NULL) FROM run", "first01");
    /* prompt_embeds, two steps and the picture */
    cli_assert_query(c, "SELECT count(*) FROM metric WHERE cell = 2 AND name = 'rel_l2'", "4");
    cli_assert_query(c, "SELECT count(*) FROM output WHERE cell = 2", "5");
}

static void test_run__says_which_program_ran_on_which_commit(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "reference: off\n");
    cli_run(
        c,
        "unset MPBENCH_COMMIT GITHUB_SHA CI_COMMIT_SHA; git init -q . 2>/dev/null && git add one.yaml "
        "&& git -c user.name=a -c user.email=a@b commit -qm x && git rev-parse HEAD >&2 && "
        "\"$mpbench\" run one.yaml && cp \"$mpbench\" copy && MPBENCH_COMMIT=given ./copy run "
        "one.yaml && echo >> one.yaml && \"${mpbench%%-faults}\" run one.yaml");
    cli_assert_status(c, 0);
    c->err[strcspn(c->err, "\n")] = '\0';
    char expected[200];
    snprintf(expected, sizeof expected, "%s given %s-dirty", c->err, c->err);
    cli_assert_query(c,
                     "SELECT group_concat(value, ' ') FROM (SELECT value FROM run_environment "
                     "WHERE key = 'git_commit' ORDER BY run)",
                     expected);
    cli_assert_query(c,
                     "SELECT group_concat(run, '') FROM (SELECT run FROM run_environment e WHERE "
                     "key = 'program' AND value = (SELECT value FROM run_environment WHERE run = 1 "
                     "AND key = e.key) ORDER BY run)",
                     "12");
}

static void test_run__fp32_is_its_own_reference_to_the_bit(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "");
    cli_run(c, "\"$mpbench\" run one.yaml");
    cli_assert_status(c, 0);
    cli_assert_query(c, "SELECT sum(value) FROM metric WHERE name IN ('rel_l2', 'max_abs')", "0.0");
    cli_assert_query(c, "SELECT nonfinite FROM metric WHERE name = 'psnr_db'", "inf");
    cli_assert_query(c, "SELECT finite || constant || (floor_latents > 0) FROM reference", "101");
}

static void test_run__keeps_the_reference_for_the_next_run(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "");
    cli_run(c, "\"$mpbench\" run one.yaml");
    cli_assert_has(c->err, "making the fp32 reference");
    cli_run(c, "\"$mpbench\" run one.yaml");
    assert_null(strstr(c->err, "making"));
    /* A damaged file is noticed and made again. */
    cli_run(
        c,
        "for f in mpbench.db.cache/reference-*; do printf x >> $f; done; \"$mpbench\" run one.yaml");
    cli_assert_status(c, 0);
    cli_assert_has(c->err, "making the fp32 reference");
    cli_assert_query(c, "SELECT count(*) FROM reference", "1");
}

static void test_run__incident_000_shows_the_exact_error_and_its_repair(void **state)
{
    cli *c = *state;

    cli_run(c,
            "\"$mpbench\" run \"$source\"/scenarios/incidents/sana-tiled-broken.yaml "
            "\"$source\"/scenarios/incidents/sana-tiled-fixed.yaml --set inputs.steps=2 --repeat 1 "
            "--warmup 0");
    cli_assert_status(c, 0);
    cli_assert_has(c->out, "expected scalar type BFloat16 but found Float");
    cli_assert_query(c,
                     "SELECT outcome || ' ' || module || ' ' || want || ' ' || got || ' ' || stage "
                     "FROM cell WHERE status = 'error' AND key LIKE '%bf16%'",
                     "dtype_mismatch vae.decoder.up_blocks.2.0.attn BFloat16 Float decode");
    cli_assert_query(c,
                     "SELECT count(*) FROM cell WHERE scenario = 'sana-tiled-fixed' AND status = "
                     "'ok'",
                     "6");
    cli_assert_query(c, "SELECT count(*) FROM metric WHERE name = 'seam'", "4");
}

static void test_run__an_expected_error_that_no_longer_comes_is_loud(void **state)
{
    cli *c = *state;

    cli_scenario(c, "cured", "expect: [{error: expected scalar type BFloat16 but found Float}]\n");
    cli_run(c, "\"$mpbench\" run cured.yaml");
    cli_assert_status(c, 3);
    cli_assert_has(c->out, "verdict: UNEXPECTED exit=3 (1 cell: 1 not as expected");
    cli_assert_has(c->out, "error \"expected scalar type BFloat16 but found Float\"");
    cli_assert_query(c, "SELECT status || as_expected FROM cell", "ok0");
}

static void test_run__a_broken_budget_is_a_regression(void **state)
{
    cli *c = *state;

    cli_scenario(c, "tight", "precision: {default: bf16}\nbudgets: {latent_rel_l2: 1e-9}\n");
    cli_run(c, "\"$mpbench\" run tight.yaml");
    cli_assert_status(c, 1);
    cli_assert_has(c->out, "latent_rel_l2");
    cli_assert_has(c->out, "is above 1e-09");
    cli_assert_has(c->out, "verdict: REGRESSION exit=1");
}

static void test_run__repro_line_runs_exactly_its_cell(void **state)
{
    cli *c = *state;

    cli_scenario(c, "grid",
                 "matrix: {precision.default: [fp32, bf16], tiling: [off, {tile: [32, 32]"
                 ", stride: [28, 28]}]}\nreference: off\n");
    cli_run(c, "\"$mpbench\" run grid.yaml");
    cli_assert_status(c, 0);
    cli_run(c, "mpbench() { \"$mpbench\" \"$@\"; }; program=$mpbench; "
               "sqlite3 mpbench.db 'SELECT repro FROM cell WHERE id = 4' | sed "
               "\"s|^mpbench|$program|\" > repro.sh; sh repro.sh");
    cli_assert_status(c, 0);
    cli_assert_query(c,
                     "SELECT count(*) || (SELECT max(key) FROM cell WHERE run = 2) FROM cell "
                     "WHERE run = 2",
                     "1grid/precision.default=bf16,tiling=32x32+28x28");
    cli_assert_query(c,
                     "SELECT count(DISTINCT sha256) FROM output WHERE name = 'image' AND cell IN "
                     "(4, 5)",
                     "1");
}

static void test_run__dump_writes_tensors_and_a_picture(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "");
    cli_run(c, "\"$mpbench\" run one.yaml --dump d && head -c 8 d/one/default/image.png | od -c | "
               "head -1 && ls d/one/default");
    cli_assert_status(c, 0);
    cli_assert_has(c->out, "P   N   G");
    cli_assert_has(c->out, "outputs.safetensors");
    cli_run(c, "head -c 1200 d/one/default/outputs.safetensors");
    cli_assert_has(c->out + 8, "\"latents_001\"");
    cli_assert_has(c->out + 8, "\"initial_noise\"");
    cli_assert_has(c->out + 8, "\"prompt_embeds\"");
    cli_assert_has(c->out + 8, "\"cell\":\"one/default\"");
}

static void test_run__keeps_a_small_picture_of_each_cell_and_of_its_reference(void **state)
{
    cli *c = *state;

    cli_scenario(c, "pure", "matrix: {precision.default: [fp32, bf16]}\n");
    cli_run(c, "\"$mpbench\" run pure.yaml && \"$mpbench\" run pure.yaml");
    cli_assert_status(c, 0);
    cli_assert_query(c, "SELECT group_concat(role) FROM cell_picture WHERE cell = 2",
                     "output,reference");
    /* the nights of a cell share one; fp32 is its own reference */
    cli_assert_query(c, "SELECT count(*) FROM cell_picture", "8");
    cli_assert_query(c, "SELECT group_concat(width || 'x' || height) FROM picture", "32x32,32x32");
    cli_assert_query(c,
                     "SELECT count(DISTINCT picture) FROM cell_picture WHERE cell IN (1, 3) OR "
                     "role = 'reference'",
                     "1");
}

static void test_run__json_and_junit_say_the_same(void **state)
{
    cli *c = *state;

    cli_scenario(c, "two",
                 "matrix: {precision.default: [fp32, bf16]}\n"
                 "expect: [{when: {precision.default: bf16}, status: error}]\n");
    cli_run(c, "\"$mpbench\" run two.yaml --format json --junit j.xml --summary s.md");
    cli_assert_status(c, 3);
    json_t *j = parsed(c->out);
    assert_int_equal(json_integer_value(json_object_get(j, "exit_status")), 3);
    const json_t *cell = json_array_get(json_object_get(j, "cells"), 1);
    assert_string_equal(json_string_value(json_object_get(cell, "status")), "ok");
    assert_false(json_boolean_value(json_object_get(cell, "as_expected")));
    json_decref(j);
    char *xml = cli_read(c, "j.xml");
    cli_assert_has(xml, "<testsuite name=\"two\" tests=\"2\" failures=\"1\" errors=\"0\"");
    cli_assert_has(xml, "<failure type=\"expectation\"");
    free(xml);
    char *markdown = cli_read(c, "s.md");
    cli_assert_has(markdown, "### ❌ mpbench: UNEXPECTED\n\n- ❌ 1 cell not as expected\n");
    cli_assert_has(markdown, "**unexpected success** `two/precision.default=bf16`");
    cli_run(c, "\"$mpbench\" summary");
    cli_assert_status(c, 0);
    assert_string_equal(c->out, markdown);
    free(markdown);
    cli_run(c, "\"$mpbench\" summary nothing");
    cli_assert_status(c, 2);
    cli_assert_has(c->err, "'nothing' is no run's id, UUID or label");
}

/* Paths may have any bytes; JSON is UTF-8. */
static void test_run__json_has_paths_that_are_no_utf8(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "reference: off\n");
    cli_run(c, "d=$(printf 'd\\377') && mkdir \"$d\" && mv one.yaml \"$d\" && \"$mpbench\" run "
               "\"$d/one.yaml\" --db \"$d/x.db\" --format json");
    cli_assert_status(c, 0);
    json_t *j = parsed(c->out);
    const json_t *cell = json_array_get(json_object_get(j, "cells"), 0);
    assert_string_equal(json_string_value(json_object_get(j, "database")), "d\\xff/x.db");
    cli_assert_has(json_string_value(json_object_get(cell, "repro")), "d\\xff/one.yaml");
    json_decref(j);
}

static void test_run__a_resumed_run_reports_what_it_did_not_run_again(void **state)
{
    cli *c = *state;

    cli_scenario(c, "broken",
                 "quirks: [sana-quadratic-no-upcast]\nprecision: {default: bf16}\n"
                 "tiling: {tile: [16, 16], stride: [14, 14]}\n");
    cli_run(c, "\"$mpbench\" run broken.yaml");
    cli_assert_status(c, 3);
    cli_run(c, "\"$mpbench\" run broken.yaml --resume --junit j.xml --format json");
    cli_assert_status(c, 3);
    json_t *j = parsed(c->out);
    const char *uuid = json_string_value(json_object_get(j, "uuid"));
    cli_assert_query(c, "SELECT uuid FROM run", uuid ? uuid : "none");
    json_decref(j);
    char *xml = cli_read(c, "j.xml");
    cli_assert_has(xml, "<error type=\"dtype_mismatch\" message=\"expected scalar type BFloat16");
    cli_assert_has(xml, "&#10;repro: mpbench run broken.yaml");
    free(xml);
}

static void test_run__says_when_a_report_cannot_be_written(void **state)
{
    cli *c = *state;
    static const char *const files[] = {"--junit none/j.xml", "--summary none/s.md",
                                        "--junit /dev/full", "--summary /dev/full"};

    cli_scenario(c, "one", "reference: off\n");
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        cli_run(c, "\"$mpbench\" run one.yaml %s", files[i]);
        cli_assert_status(c, 3);
        cli_assert_has(c->err, strchr(files[i], ' ') + 1);
        cli_assert_has(c->err, "written");
        cli_assert_has(c->out, "verdict: INCOMPLETE exit=3");
    }
}

static void test_run__dry_run_touches_nothing(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "matrix: {inputs.seed: [1, 2]}\n");
    cli_run(c, "\"$mpbench\" run one.yaml --dry-run && ls");
    cli_assert_status(c, 0);
    cli_assert_has(c->out, "one/inputs.seed=2");
    cli_assert_has(c->out, "2 cells; nothing was run");
    assert_null(strstr(c->out, "mpbench.db"));
}

static void test_run__same_bits_for_any_number_of_threads(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "matrix: {precision.default: [fp32, bf16]}\nreference: off\n");
    cli_run(c, "for n in 1 2 3; do \"$mpbench\" run one.yaml --threads $n || exit 9; done");
    cli_assert_status(c, 0);
    cli_assert_query(c, "SELECT count(DISTINCT sha256) FROM output WHERE name = 'image'", "2");
}

static void test_run__two_at_once_share_a_database(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "matrix: {inputs.seed: [1, 2, 3]}\n");
    cli_run(c, "\"$mpbench\" run one.yaml --label x & \"$mpbench\" run one.yaml --label y; a=$?; "
               "wait $!; b=$?; [ $a = 0 ] && [ $b = 0 ]");
    cli_assert_status(c, 0);
    cli_assert_query(c, "SELECT count(*) FROM cell WHERE status = 'ok'", "6");
    cli_assert_query(c, "PRAGMA integrity_check", "ok");
}

static void test_compare__finds_bf16_worse_than_fp16(void **state)
{
    cli *c = *state;

    cli_scenario(c, "pure", "matrix: {precision.default: [fp16, bf16]}\nrepeat: 2\n");
    cli_run(c, "\"$mpbench\" run pure.yaml");
    cli_assert_status(c, 0);
    cli_run(c, "\"$mpbench\" compare fp16 bf16 --format json");
    cli_assert_status(c, 0);
    json_t *j = parsed(c->out);
    const json_t *metrics =
        json_object_get(json_array_get(json_object_get(j, "pairs"), 0), "metrics");
    size_t i;
    json_t *m;
    int seen = 0;
    json_array_foreach (metrics, i, m) {
        if (!strcmp(json_string_value(json_object_get(m, "metric")), "latent_rel_l2")) {
            seen++;
            assert_string_equal(json_string_value(json_object_get(m, "verdict")), "worse");
            assert_true(json_number_value(json_object_get(m, "ratio")) > 2);
        }
        if (!strcmp(json_string_value(json_object_get(m, "metric")), "seconds"))
            assert_string_equal(json_string_value(json_object_get(m, "verdict")), "too few");
    }
    assert_int_equal(seen, 1);
    json_decref(j);
    cli_run(c, "\"$mpbench\" compare fp16 bf16 --fail-on worse");
    cli_assert_status(c, 1);
    cli_assert_has(c->out, "verdict: REGRESSION exit=1");
}

static void test_list_and_show__tell_what_is_there(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "");
    cli_run(c,
            "\"$mpbench\" run one.yaml --label evening && \"$mpbench\" list && \"$mpbench\" show "
            "1");
    cli_assert_status(c, 0);
    cli_assert_has(c->out, "evening");
    cli_assert_has(c->out, "mpbench run one.yaml");
    cli_assert_has(c->out, "latents");
    cli_run(c, "\"$mpbench\" show 1 --format json");
    json_t *j = parsed(c->out);
    assert_int_equal(json_array_size(json_object_get(j, "outputs")), 5);
    json_decref(j);
    cli_run(c, "\"$mpbench\" show 99");
    cli_assert_status(c, 2);
    cli_assert_has(c->err, "there is no cell 99; `mpbench list` shows the ids");
}

static void test_doctor__opens_a_checkpoint(void **state)
{
    cli *c = *state;

    cli_run(c, "\"$mpbench\" doctor \"$fixtures/checkpoints/sana-tiny\"");
    cli_assert_status(c, 0);
    cli_assert_has(c->out, "sana: ");
    cli_assert_has(c->out, "isa");
    cli_run(c, "\"$mpbench\" doctor /nowhere");
    cli_assert_status(c, 2);
    cli_assert_has(c->out, "/nowhere: no such folder");
}

static void test_run__every_instruction_set_agrees_within_rounding(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "");
    cli_run(c,
            "for isa in $(\"$mpbench\" doctor | sed -n 's/^ok   isas *//p'); do MPBENCH_ISA=$isa "
            "\"$mpbench\" run one.yaml || exit 9; done");
    cli_assert_status(c, 0);
    cli_run(c, "MPBENCH_ISA=abacus \"$mpbench\" run one.yaml");
    cli_assert_status(c, 2);
    cli_assert_has(c->err, "abacus");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, cli_setup, cli_teardown)
    const struct CMUnitTest tests[] = {
        T(test_run__records_a_matrix_and_says_so),
        T(test_run__says_which_program_ran_on_which_commit),
        T(test_run__fp32_is_its_own_reference_to_the_bit),
        T(test_run__keeps_the_reference_for_the_next_run),
        T(test_run__incident_000_shows_the_exact_error_and_its_repair),
        T(test_run__an_expected_error_that_no_longer_comes_is_loud),
        T(test_run__a_broken_budget_is_a_regression),
        T(test_run__repro_line_runs_exactly_its_cell),
        T(test_run__dump_writes_tensors_and_a_picture),
        T(test_run__keeps_a_small_picture_of_each_cell_and_of_its_reference),
        T(test_run__json_and_junit_say_the_same),
        T(test_run__json_has_paths_that_are_no_utf8),
        T(test_run__a_resumed_run_reports_what_it_did_not_run_again),
        T(test_run__says_when_a_report_cannot_be_written),
        T(test_run__dry_run_touches_nothing),
        T(test_run__same_bits_for_any_number_of_threads),
        T(test_run__two_at_once_share_a_database),
        T(test_compare__finds_bf16_worse_than_fp16),
        T(test_list_and_show__tell_what_is_there),
        T(test_doctor__opens_a_checkpoint),
        T(test_run__every_instruction_set_agrees_within_rounding),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
