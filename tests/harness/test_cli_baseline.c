/* `mpbench baseline`, and `run` with --against and --rounds, as users run them. */
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

static void record(cli *c, const char *more)
{
    cli_scenario(c, "one", "matrix: {precision.default: [fp32, bf16]}\n");
    cli_run(c, "\"$mpbench\" run one.yaml %s", more);
    cli_assert_status(c, 0);
}

/* Lines that begin with "verdict: ". */
static int verdicts(const char *text)
{
    int n = 0;

    for (const char *s = text; (s = strstr(s, "verdict: ")); s++)
        n += s == text || s[-1] == '\n';
    return n;
}

static const char *last_line(const char *text)
{
    const char *line = text;

    for (const char *s = text; *s; s++)
        if (*s == '\n' && s[1])
            line = s + 1;
    return line;
}

/* Two runs of one build differ in time and memory alone.  One sample each proves nothing of time,
 * and of memory the first run shall need more than any other. */
static void record_first(cli *c, const char *more)
{
    record(c, more);
    cli_run(
        c, "sqlite3 mpbench.db \"UPDATE metric SET value = 10 * value WHERE unit = 'MiB' OR name = "
           "'instructions'\"");
    cli_assert_status(c, 0);
}

/* Makes drift of the first run half of what it is, so that the next one is worse. */
#define BETTER                                                                                  \
    "sqlite3 mpbench.db \"UPDATE metric SET value = value / 2 WHERE name IN ('latent_rel_l2', " \
    "'image_rel_l2') AND cell < 3\""

static const char *verdict_of(const json_t *run, size_t pair, const char *metric)
{
    const json_t *comparison = json_object_get(json_object_get(run, "against"), "comparison");
    const json_t *metrics =
        json_object_get(json_array_get(json_object_get(comparison, "pairs"), pair), "metrics");
    size_t i;
    json_t *m;

    json_array_foreach (metrics, i, m)
        if (!strcmp(json_string_value(json_object_get(m, "metric")), metric))
            return json_string_value(json_object_get(m, "verdict"));
    fail_msg("no metric %s", metric);
    return NULL;
}

/* ---- baseline ------------------------------------------------------------------------------- */

static void test_baseline__names_a_run_and_lists_it(void **state)
{
    cli *c = *state;

    record(c, "--label before");
    cli_run(c, "\"$mpbench\" baseline set main --why 'release 1' && \"$mpbench\" baseline set main "
               "before && \"$mpbench\" baseline list --format csv");
    cli_assert_status(c, 0);
    cli_assert_has(c->out, "main is run 1\nmain is run 1\nname,counts,run,label,commit,set,why");
    cli_assert_has(c->out, "main,yes,1,before,");
    cli_assert_has(c->out, "main,no,1,before,");
    cli_assert_has(c->out, "release 1");
    cli_assert_query(c, "SELECT count(DISTINCT uuid) || max(length(uuid)) FROM baseline", "236");
}

static void test_baseline__escapes_names(void **state)
{
    cli *c = *state;

    record(c, "");
    cli_run(c,
            "\"$mpbench\" baseline set \"$(printf 'a\\033[2Jb')\" && \"$mpbench\" baseline list");
    cli_assert_status(c, 0);
    cli_assert_has(c->out, "a\\x1b[2Jb is run 1");
    assert_null(strchr(c->out, '\033'));
    cli_run(c, "\"$mpbench\" run one.yaml --against \"$(printf 'a\\033[2Jb')\"");
    cli_assert_has(c->out, "against a\\x1b[2Jb, run 1");
    assert_null(strchr(c->out, '\033'));
}

static void test_baseline__refuses_what_it_does_not_understand(void **state)
{
    static const struct {
        const char *words, *message;
    } cases[] = {
        {"", "missing operand: expected set NAME [RUN] | list"},
        {"set", "expected set NAME [RUN] [--why TEXT], or list [--format F]"},
        {"sett main", "expected set NAME [RUN]"},
        {"list main", "expected set NAME [RUN]"},
        {"list --why x", "expected set NAME [RUN]"},
        {"set main --format json", "expected set NAME [RUN]"},
        {"set ''", "the name of the baseline is empty"},
        {"set main 7",
         "'7' is no baseline and no run's id, UUID or label; baselines: none; labels: "
         "before;"},
        {"set main --db nowhere.db", "nowhere.db: there is no such database"},
        {"list --db nowhere.db", "nowhere.db: there is no such database"},
    };
    cli *c = *state;

    record(c, "--label before");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cli_run(c, "\"$mpbench\" baseline %s; status=$?; ls; exit $status", cases[i].words);
        cli_assert_status(c, 2);
        cli_assert_has(c->err, cases[i].message);
        assert_null(strstr(c->out, "nowhere.db"));
    }
    cli_assert_query(c, "SELECT count(*) FROM baseline", "0");
}

/* ---- against -------------------------------------------------------------------------------- */

static void test_against__prints_the_comparison_before_one_verdict(void **state)
{
    cli *c = *state;

    record_first(c, "");
    cli_run(c, "\"$mpbench\" baseline set main && \"$mpbench\" run one.yaml --against main");
    cli_assert_status(c, 4); /* one sample each proves nothing about time */
    cli_assert_has(c->out, "\n\nagainst main, run 1\n");
    cli_assert_has(c->out, "run=1 ");
    cli_assert_has(c->out, "run=2");
    assert_int_equal(verdicts(c->out), 1);
    cli_assert_has(last_line(c->out), "verdict: INCONCLUSIVE exit=4 (2 cells: all as expected; run "
                                      "2; B against A: ");
    cli_assert_has(last_line(c->out), ", 0 worse, ");
    cli_assert_query(c, "SELECT exit_status FROM run WHERE id = 2", "0"); /* its own */
}

static void test_against__worse_than_the_baseline_is_a_regression(void **state)
{
    cli *c = *state;

    record_first(c, "");
    cli_run(c, "%s && \"$mpbench\" run one.yaml --against 1", BETTER);
    cli_assert_status(c, 1);
    cli_assert_has(last_line(c->out),
                   "verdict: REGRESSION exit=1 (2 cells: all as expected; run 2; "
                   "B against A: ");
    cli_assert_has(last_line(c->out), ", 2 worse, ");
}

static void test_against__the_stronger_status_wins(void **state)
{
    cli *c = *state;

    record_first(c, "");
    cli_scenario(c, "one",
                 "matrix: {precision.default: [fp32, bf16]}\nexpect: [{status: error}]\n");
    cli_run(c, "\"$mpbench\" run one.yaml --against 1");
    cli_assert_status(c, 3); /* not 4 */
    cli_assert_has(last_line(c->out), "verdict: UNEXPECTED exit=3 (2 cells: 2 not as expected");
    cli_run(c, "%s && \"$mpbench\" run one.yaml --against 1", BETTER);
    cli_assert_status(c, 1); /* not 3 */
    cli_assert_has(last_line(c->out), "verdict: REGRESSION exit=1 (2 cells: 2 not as expected");
}

static void test_against__holds_drift_against_another_machine_but_not_time(void **state)
{
    cli *c = *state;

    record_first(c, "");
    cli_run(c, "sqlite3 mpbench.db \"UPDATE run SET fingerprint = 'another'\" && \"$mpbench\" run "
               "one.yaml --against 1 --format json");
    cli_assert_status(c, 4);
    json_t *j = parsed(c->out);
    assert_string_equal(verdict_of(j, 0, "latent_rel_l2"), "same");
    assert_string_equal(verdict_of(j, 0, "seconds"), "incomparable");
    assert_string_equal(verdict_of(j, 0, "peak_mib"), "incomparable");
    json_decref(j);
    cli_run(c, "%s && \"$mpbench\" run one.yaml --against 1", BETTER);
    cli_assert_status(c, 1);
}

static void test_against__is_an_object_in_json(void **state)
{
    cli *c = *state;

    record_first(c, "--label before");
    cli_run(c, "\"$mpbench\" run one.yaml --against before --format json");
    cli_assert_status(c, 4);
    json_t *j = parsed(c->out);
    const json_t *against = json_object_get(j, "against"),
                 *comparison = json_object_get(against, "comparison");
    assert_int_equal(json_integer_value(json_object_get(j, "exit_status")), 4);
    assert_string_equal(json_string_value(json_object_get(against, "name")), "before");
    assert_int_equal(json_integer_value(json_object_get(against, "run")), 1);
    assert_string_equal(json_string_value(json_object_get(comparison, "kind")), "mpbench compare");
    assert_int_equal(json_array_size(json_object_get(comparison, "pairs")), 2);
    json_decref(j);
    cli_run(c, "\"$mpbench\" run one.yaml --format json");
    cli_assert_status(c, 0);
    j = parsed(c->out);
    assert_true(json_is_null(json_object_get(j, "against")));
    json_decref(j);
}

/* The newest run of the label that there was before: not the one that takes the label now. */
static void test_against__may_name_the_label_of_the_run_itself(void **state)
{
    cli *c = *state;

    record_first(c, "--label nightly");
    cli_run(c, "\"$mpbench\" run one.yaml --label nightly --against nightly");
    cli_assert_status(c, 4);
    cli_assert_has(c->out, "against nightly, run 1\n");
    cli_assert_has(c->out, "run=1 ");
    cli_assert_has(c->out, "run=2");
}

static void test_against__is_checked_before_anything_runs(void **state)
{
    static const struct {
        const char *words, *message;
    } cases[] = {
        {"--against mian", "--against: mpbench.db: 'mian' is no baseline and no run's id, UUID or "
                           "label; baselines: main; labels: before"},
        {"--against ''", "--against: found an empty text, expected NAME"},
        {"--against main --db nowhere.db", "--against: nowhere.db: there is no such database"},
        {"--against mian --dry-run", "'mian' is no baseline"},
        {"--against main --set inputs.seed=8",
         "--against: mpbench.db: run 1 has none of these cells with the same settings"},
        {"--against", "--against needs a value: --against NAME"},
    };
    cli *c = *state;

    record(c, "--label before");
    cli_run(c, "\"$mpbench\" baseline set main");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cli_run(c, "\"$mpbench\" run one.yaml %s; status=$?; ls; exit $status", cases[i].words);
        cli_assert_status(c, 2);
        cli_assert_has(c->err, cases[i].message);
        assert_null(strstr(c->out, "nowhere.db"));
    }
    cli_assert_query(c, "SELECT count(*) FROM run", "1");
    cli_run(c, "\"$mpbench\" run one.yaml --against main --dry-run");
    cli_assert_status(c, 0);
}

static void test_against__a_shard_without_cells_has_nothing_to_compare(void **state)
{
    cli *c = *state;

    record(c, "");
    cli_run(c, "\"$mpbench\" run one.yaml --shard 3/3 --against 1");
    cli_assert_status(c, 0);
    cli_assert_has(last_line(c->out), "verdict: OK exit=0 (0 cells: all as expected; run 2)");
}

static void test_against__a_run_that_goes_on_is_not_held_against_itself(void **state)
{
    cli *c = *state;

    record(c, "--label night");
    cli_run(c, "\"$mpbench\" run one.yaml --label night --against night --resume");
    cli_assert_status(c, 2);
    cli_assert_has(c->err, "--against: night is this very run, which --resume has gone on with");
    cli_assert_has(last_line(c->out), "verdict: BAD INPUT exit=2 ");
}

static void test_against__half_a_run_is_not_compared(void **state)
{
    cli *c = *state;

    record(c, "");
    cli_run(c, "\"$mpbench\" run one.yaml --against 1 --junit nowhere/j.xml");
    cli_assert_status(c, 3);
    cli_assert_has(c->out, "verdict: INCOMPLETE exit=3");
    assert_null(strstr(c->out, "against"));
}

static void test_budgets__are_recorded_with_their_cells(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one",
                 "budgets: {seconds: {absolute: 600, relative: 5%}, latent_rel_l2: {relative: "
                 "0.02}, peak_mib: 512, psnr_db: }\n");
    cli_run(c, "\"$mpbench\" run one.yaml");
    cli_assert_status(c, 0);
    cli_assert_query(c,
                     "SELECT group_concat(metric || ' ' || kind || ' ' || value) FROM (SELECT * "
                     "FROM cell_limit ORDER BY metric, kind)",
                     "latent_rel_l2 relative 0.02,peak_mib absolute 512.0,seconds absolute 600.0,"
                     "seconds relative 0.05");
}

static void test_budgets__may_allow_what_would_be_worse(void **state)
{
    cli *c = *state;

    record_first(c, "");
    cli_run(c,
            "%s && \"$mpbench\" run one.yaml --against 1 --set 'budgets={latent_rel_l2: {relative: "
            "300%%}, image_rel_l2: {relative: 300%%}}'",
            BETTER);
    cli_assert_status(c, 4);
    cli_assert_has(last_line(c->out), ", 0 worse, ");
    cli_run(
        c,
        "\"$mpbench\" run one.yaml --against 1 --set 'budgets={latent_rel_l2: {relative: 300%%}, "
        "image_rel_l2: {relative: 30%%}}'");
    cli_assert_status(c, 1);
    cli_assert_has(last_line(c->out), ", 1 worse, ");
}

/* ---- rounds --------------------------------------------------------------------------------- */

static void test_rounds__run_all_cells_in_turn_and_back(void **state)
{
    cli *c = *state;

    cli_scenario(c, "three", "matrix: {inputs.seed: [1, 2, 3]}\nreference: off\n");
    cli_run(c, "\"$mpbench\" run three.yaml --rounds 3");
    cli_assert_status(c, 0);
    cli_assert_has(c->err, "[9/9] three/inputs.seed=3");
    cli_assert_has(last_line(c->out), "verdict: OK exit=0 (9 cells in 3 rounds: all as expected; "
                                      "label rounds-");
    assert_int_equal(verdicts(c->out), 1);
    cli_assert_query(
        c, "SELECT group_concat(run || substr(key, -1)) FROM (SELECT * FROM cell ORDER BY id)",
        "11,12,13,23,22,21,31,32,33");
    cli_assert_query(c,
                     "SELECT count(*) || count(DISTINCT uuid) || count(DISTINCT label) FROM run "
                     "WHERE ended IS NOT NULL",
                     "331");
    cli_assert_query(c, "SELECT label = 'rounds-' || substr(uuid, 1, 8) FROM run WHERE id = 1",
                     "1");
    cli_assert_query(
        c,
        "SELECT count(*) FROM run_environment WHERE key = 'rounds' AND value = (SELECT "
        "uuid FROM run WHERE id = 1)",
        "3");
}

static void test_rounds__stand_together_in_the_report(void **state)
{
    cli *c = *state;

    record(c, "--rounds 2 --label mine --junit j.xml");
    cli_assert_has(c->out, "; label mine)");
    cli_assert_has(c->out, "\n      1   1  precision.default=fp32");
    cli_assert_has(c->out, "\n      2   4  precision.default=fp32");
    assert_true(strstr(c->out, "\n      2   4  ") < strstr(c->out, "\n      1   2  "));
    char *xml = cli_read(c, "j.xml");
    cli_assert_has(xml, "name=\"precision.default=fp32, round 2\"");
    cli_assert_has(xml, "tests=\"4\"");
    free(xml);
}

/* An error that comes in each round is told once. */
static void test_rounds__tell_an_error_once(void **state)
{
    cli *c = *state;

    cli_scenario(c, "small", "memory: 100KiB\nreference: off\n");
    cli_run(c, "\"$mpbench\" run small.yaml --rounds 3");
    cli_assert_status(c, 3);
    const char *error = strstr(c->out, "      error ");
    assert_non_null(error);
    assert_null(strstr(error + 1, "      error "));
    cli_assert_query(c, "SELECT group_concat(exit_status) FROM run", "3,3,3");
}

static void test_rounds__of_one_is_an_ordinary_run(void **state)
{
    cli *c = *state;

    record(c, "--rounds 1");
    cli_assert_has(c->out, "all as expected; run 1)");
    cli_assert_query(c, "SELECT count(*) || (label IS NULL) FROM run", "11");
    cli_run(c, "\"$mpbench\" run one.yaml --resume");
    cli_assert_has(c->err, "resuming run 1");
    cli_run(c, "\"$mpbench\" run one.yaml --rounds 0");
    cli_assert_status(c, 2);
}

/* Takes all cells after one and all runs after another out of the database, whatever it holds of
 * them. */
static void forget_after(cli *c, int cell, int run)
{
    cli_run(
        c,
        "sqlite3 mpbench.db \"SELECT 'DELETE FROM ' || m.name || ' WHERE ' || t.name || ' > ' || "
        "CASE WHEN t.name = 'run' OR m.name = 'run' THEN %d ELSE %d END || ';' FROM "
        "sqlite_master m JOIN pragma_table_info(m.name) t ON t.name IN ('run', 'cell') OR (t.name = "
        "'id' AND m.name IN ('run', 'cell')) WHERE m.type = 'table'\" | sqlite3 mpbench.db",
        run, cell);
    cli_assert_status(c, 0);
}

static void test_rounds__go_on_where_they_were_killed(void **state)
{
    cli *c = *state;

    record(c, "--rounds 3");
    forget_after(c, 3, 2); /* as a kill within the second round leaves it */
    cli_run(c, "sqlite3 mpbench.db \"UPDATE run SET ended = NULL, exit_status = NULL WHERE id = 2; "
               "UPDATE run SET ended = '2020' WHERE id = 1\"");
    cli_run(c, "\"$mpbench\" run one.yaml --rounds 3 --resume");
    cli_assert_status(c, 0);
    cli_assert_has(c->err, "resuming run 1\nresuming run 2\n");
    assert_null(strstr(c->err, "nothing to resume"));
    cli_assert_has(c->out, "6 cells in 3 rounds: all as expected; label rounds-");
    cli_assert_query(c, "SELECT group_concat(run || status) FROM (SELECT * FROM cell ORDER BY id)",
                     "1ok,1ok,2ok,2ok,3ok,3ok");
    cli_assert_query(c, "SELECT count(*) || count(DISTINCT label) FROM run WHERE ended > ''", "31");
    cli_assert_query(c, "SELECT count(DISTINCT value) FROM run_environment WHERE key = 'rounds'",
                     "1");
    cli_assert_query(c, "SELECT ended FROM run WHERE id = 1", "2020");
}

/* The second round of an older call is no part of this one. */
static void test_rounds__of_another_call_are_left_alone(void **state)
{
    cli *c = *state;

    record(c, "--rounds 2 --label x");
    record(c, "--rounds 2 --label x");
    forget_after(c, 6, 3);
    cli_run(c, "\"$mpbench\" run one.yaml --rounds 2 --label x --resume");
    cli_assert_status(c, 0);
    cli_assert_has(c->err, "resuming run 3\n");
    assert_null(strstr(c->err, "resuming run 2"));
    cli_assert_query(c, "SELECT count(*) FROM run", "4");
    cli_run(c, "\"$mpbench\" run one.yaml --rounds 3 --label x --resume");
    cli_assert_has(c->err, "nothing to resume");
}

/* Each run keeps its own, and the strongest of all is that of the call. */
static void test_rounds__have_an_exit_status_each(void **state)
{
    cli *c = *state;

    record(c, "--rounds 2");
    cli_run(c,
            "sqlite3 mpbench.db \"UPDATE cell SET as_expected = 0 WHERE id = 1; UPDATE run SET "
            "ended = NULL, exit_status = NULL\" && \"$mpbench\" run one.yaml --rounds 2 --resume");
    cli_assert_status(c, 3);
    cli_assert_query(c, "SELECT group_concat(exit_status) FROM run", "3,0");
}

static void test_rounds__show_their_label_without_its_control_characters(void **state)
{
    cli *c = *state;

    record(c, "--rounds 2 --label \"$(printf 'a\\033[2Jb')\"");
    cli_assert_has(c->out, "; label a\\x1b[2Jb)");
    assert_null(strchr(c->out, '\033'));
}

static void test_rounds__are_compared_as_one(void **state)
{
    static const char begin[] = "label=x,rounds=";
    cli *c = *state;

    record(c, "--rounds 2 --label x");
    cli_run(c, "\"$mpbench\" baseline set main x && \"$mpbench\" run one.yaml --rounds 2 --label x "
               "--against main");
    cli_assert_has(c->out, "against main, run 2\n");
    const char *a = strstr(c->out, begin), *b = a ? strstr(a + 1, begin) : NULL;
    assert_true(b && strncmp(a, b, strlen(begin) + 36)); /* each by the UUID of its first round */
    cli_assert_has(last_line(c->out), "; label x; B against A: ");
    cli_assert_has(c->out, "n=2+2"); /* one sample of each round */
}

static void test_resume__names_the_run_that_goes_on(void **state)
{
    cli *c = *state;

    record(c, "");
    cli_run(c, "\"$mpbench\" run one.yaml --resume --format json");
    cli_assert_status(c, 0);
    json_t *j = parsed(c->out);
    char *uuid = strdup(json_string_value(json_object_get(j, "uuid")));
    json_decref(j);
    cli_assert_query(c, "SELECT uuid FROM run", uuid);
    free(uuid);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, cli_setup, cli_teardown)
    const struct CMUnitTest tests[] = {
        T(test_baseline__names_a_run_and_lists_it),
        T(test_baseline__escapes_names),
        T(test_baseline__refuses_what_it_does_not_understand),
        T(test_against__prints_the_comparison_before_one_verdict),
        T(test_against__worse_than_the_baseline_is_a_regression),
        T(test_against__the_stronger_status_wins),
        T(test_against__holds_drift_against_another_machine_but_not_time),
        T(test_against__is_an_object_in_json),
        T(test_against__may_name_the_label_of_the_run_itself),
        T(test_against__is_checked_before_anything_runs),
        T(test_against__a_shard_without_cells_has_nothing_to_compare),
        T(test_against__a_run_that_goes_on_is_not_held_against_itself),
        T(test_against__half_a_run_is_not_compared),
        T(test_budgets__are_recorded_with_their_cells),
        T(test_budgets__may_allow_what_would_be_worse),
        T(test_rounds__run_all_cells_in_turn_and_back),
        T(test_rounds__stand_together_in_the_report),
        T(test_rounds__tell_an_error_once),
        T(test_rounds__of_one_is_an_ordinary_run),
        T(test_rounds__go_on_where_they_were_killed),
        T(test_rounds__of_another_call_are_left_alone),
        T(test_rounds__have_an_exit_status_each),
        T(test_rounds__show_their_label_without_its_control_characters),
        T(test_rounds__are_compared_as_one),
        T(test_resume__names_the_run_that_goes_on),
    };

    return cmocka_run_group_tests(tests, cli_share_cache, cli_drop_cache);
}
