/* JUnit XML and the Markdown summary, over small databases with hostile text. */
#include "tests/results/scratch.h"

#include <math.h>

#include "kernels/core/memory.h"
#include "results/ci.h"
#include "results/markdown.h"

static const mp_pair environment[] = {
    {"cpu", "a <b> & \"c\""}, {"isa", "avx2"}, {"git_commit", "0123456789ab"}};

static mp_store *open_store(const char *name)
{
    mp_store *s = NULL;
    mp_error err = {0};

    if (mp_store_open(scratch_file(name), MP_STORE_WRITE, &s, &err))
        fail_msg("%s", err.text);
    return s;
}

static char uuid[37]; /* of the run that began last */

static int64_t begin_run(mp_store *s, const char *label, const char *fingerprint)
{
    static int count;
    mp_error err = {0};
    int64_t id = 0;

    snprintf(uuid, sizeof uuid, "11111111-2222-4333-8444-%012d", ++count);
    const mp_run_info run = {.uuid = uuid,
                             .label = label,
                             .engine = "native",
                             .device = "cpu",
                             .command = "mpbench run x.yaml",
                             .plan = "p",
                             .fingerprint = fingerprint,
                             .environment = environment,
                             .environment_count = 3};
    assert_int_equal(mp_store_begin_run(s, &run, &id, &err), MP_OK);
    return id;
}

static void end_run(mp_store *s, int64_t run)
{
    mp_error err = {0};

    assert_int_equal(mp_store_end_run(s, run, 0, &err), MP_OK);
}

static int64_t begin_cell(mp_store *s, int64_t run, const char *scenario, const char *key)
{
    const mp_cell_info cell = {.key = key,
                               .scenario = scenario,
                               .scenario_hash = "s",
                               .pipeline = "sana",
                               .checkpoint = "tiny",
                               .checkpoint_hash = "c",
                               .repro = "mpbench run 'x `y`.yaml'"};
    mp_error err = {0};
    int64_t id = 0;

    assert_int_equal(mp_store_begin_cell(s, run, &cell, &id, &err), MP_OK);
    return id;
}

static void record(mp_store *s, int64_t run, const char *scenario, const char *key,
                   const mp_cell_result *result)
{
    mp_error err = {0};

    assert_int_equal(mp_store_finish_cell(s, begin_cell(s, run, scenario, key), result, &err),
                     MP_OK);
}

static const mp_metric_row metrics[] = {{"latent_rel_l2", "run", -1, "", 0.0125, "1"},
                                        {"psnr_db", "run", -1, "", INFINITY, "dB"},
                                        {"rel_l2", "latents", 0, "", 0.5, "1"}};
static const mp_cell_result good = {
    .status = "ok", .as_expected = true, .step = -1, .metrics = metrics, .metric_count = 3};
static const mp_cell_result crashed = {.status = "error",
                                       .outcome = "dtype_mismatch",
                                       .step = -1,
                                       .error =
                                           "a <b> & \x1b[31m \xff `c` | d\nline \xef\xbf\xbf 2",
                                       .module = "vae.decoder",
                                       .op = "conv2d"};
static const mp_cell_result expected_error = {.status = "error",
                                              .outcome = "dtype_mismatch",
                                              .as_expected = true,
                                              .expected = "error: x",
                                              .error = "x",
                                              .step = -1};
static const mp_cell_result over = {
    .status = "ok", .as_expected = true, .step = -1, .budget = "psnr_db 12 is below 40"};
static const mp_cell_result cured = {.status = "ok", .expected = "error: x", .step = -1};
static const mp_cell_result unsupported = {
    .status = "error", .outcome = "unsupported", .error = "no fp8 here", .step = -1};
static const mp_cell_result interrupted = {.status = "interrupted", .step = -1};

/* Every way to end, in two scenarios; the interrupted one has been run again. */
static mp_store *every_end(void)
{
    mp_store *s = open_store("ends.db");
    const int64_t run = begin_run(s, "all", "f1");

    record(s, run, "one", "one/good", &good);
    record(s, run, "one", "one/again", &interrupted);
    record(s, run, "two", "two/crashed", &crashed);
    record(s, run, "two", "two/over", &over);
    record(s, run, "two", "two/cured", &cured);
    record(s, run, "two", "two/unsupported", &unsupported);
    record(s, run, "two", "two/expected", &expected_error);
    record(s, run, "two", "two/stopped", &interrupted);
    record(s, run, "one", "one/again", &good);
    begin_cell(s, run, "two", "two/died");
    return s;
}

static char *printed(mp_store *s, const char *which, mp_error *err)
{
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);

    assert_non_null(f);
    if (which)
        mp_summary_print(s, *which ? which : NULL, f, err);
    else
        mp_junit_print(s, uuid, f, err);
    fclose(f);
    return text;
}

static void assert_has(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("expected \"%s\" in:\n%s", part, text);
}

static int occurrences(const char *text, const char *part)
{
    int n = 0;

    for (const char *s = text; (s = strstr(s, part)); s += strlen(part))
        n++;
    return n;
}

static void test_junit__each_end_of_a_cell_has_its_element(void **state)
{
    static const char *const parts[] = {
        "<testsuites name=\"mpbench\" tests=\"9\" failures=\"2\" errors=\"1\" time=",
        "<testsuite name=\"one\" tests=\"2\" failures=\"0\" errors=\"0\" skipped=\"0\" time=",
        "<testsuite name=\"two\" tests=\"7\" failures=\"2\" errors=\"1\" skipped=\"3\" time=",
        "<property name=\"cpu\" value=\"a &lt;b&gt; &amp; &quot;c&quot;\"/>",
        "<property name=\"fingerprint\" value=\"f1\"/>",
        "<testcase classname=\"one\" name=\"good\" time=\"0.0",
        "<error type=\"dtype_mismatch\" message=\"a &lt;b&gt; &amp; \\x1b[31m \\xff `c` | "
        "d&#10;line \\xef\\xbf\\xbf 2\">status: error&#10;expected: success&#10;error: a &lt;b&gt;",
        "module: vae.decoder&#10;op: conv2d&#10;repro: mpbench run 'x `y`.yaml'&#10;</error>",
        "<failure type=\"budget\" message=\"psnr_db 12 is below 40\">",
        "<failure type=\"expectation\" message=\"succeeded, which was not expected\">status: "
        "ok&#10;expected: error: x&#10;",
        "<skipped message=\"no fp8 here\"/>",
        "<system-out>cell 7, error\nexpected: error: x&#10;</system-out>",
        "latent_rel_l2 0.0125 1\npsnr_db inf dB\n</system-out>",
    };
    mp_store *s = every_end();
    mp_error err = {0};
    char *xml = printed(s, NULL, &err);

    (void)state;
    assert_int_equal(err.code, MP_OK);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        assert_has(xml, parts[i]);
    assert_int_equal(occurrences(xml, "<skipped message=\"the run was interrupted\"/>"), 2);
    assert_null(strstr(xml, "rel_l2 0.5"));
    for (const char *c = xml; *c; c++)
        assert_true((unsigned char)*c >= 0x20 || *c == '\n');
    free(xml);
    mp_store_close(s);
    remove(scratch_file("ends.db"));
}

static void test_junit__a_text_of_any_length_is_capped(void **state)
{
    enum { LENGTH = 100000 };
    mp_store *s = open_store("long.db");
    char *text = malloc(LENGTH + 1);
    mp_cell_result long_error = crashed;
    mp_error err = {0};

    (void)state;
    assert_non_null(text);
    memset(text, '&', LENGTH);
    text[LENGTH] = '\0';
    long_error.error = text;
    record(s, begin_run(s, NULL, "f"), "one", "one/long", &long_error);
    char *xml = printed(s, NULL, &err);
    assert_true(strlen(xml) < 60000);
    assert_has(xml, "&amp;...\">");
    free(xml);
    free(text);
    mp_store_close(s);
    remove(scratch_file("long.db"));
}

static void test_summary__the_worst_comes_first(void **state)
{
    static const char *const order[] = {
        "### ❌ mpbench: REGRESSION\n\n",
        "- ❌ 3 cells not as expected\n",
        "- 📉 1 cell over budget\n",
        "- ⏸️ 2 cells not finished\n",
        "- ✅ 3 cells as expected\n",
        "- ⚠️ 1 of 1 runs did not end",
        "native on cpu, a \\<b\\> \\& \"c\", avx2, threads , mpbench , machine f1, commit "
        "`0123456789ab`\n",
        "- ❌ **error** `two/crashed` in `vae.decoder`, cell 3\n"
        "  - error `` a <b> & \\x1b[31m \\xff `c` | d line \\xef\\xbf\\xbf 2 ``\n"
        "  - expected `success`\n  ```\n  mpbench run 'x `y`.yaml'\n  ```\n",
        "**error** `two/unsupported`",
        "**over budget** `two/over`, cell 4\n  - budget `psnr_db 12 is below 40`\n",
        "**unexpected success** `two/cured`, cell 5\n  - expected `error: x`\n",
        "- ⏸️ **running** `two/died`, cell 10\n  ```",
        "**interrupted** `two/stopped`",
        "<details><summary>All cells</summary>",
        "| 3 | two/crashed | error (unexpected) |",
        "| 4 | two/over | ok (over budget) |",
        "| 9 | one/again | ok | 0.0125 | - | inf |",
        "| 7 | two/expected | error (expected) |",
        "</details>",
    };
    mp_store *s = every_end();
    mp_error err = {0};
    char *md = printed(s, "all", &err);
    const char *at = md;

    (void)state;
    assert_int_equal(err.code, MP_OK);
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        const char *found = strstr(at, order[i]);
        if (!found)
            fail_msg("expected \"%s\" behind the parts before it in:\n%s", order[i], md);
        at = found;
    }
    assert_null(strstr(md, "one/again`")); /* its interruption is over */
    assert_null(strstr(md, "two/expected`"));
    free(md);
    mp_store_close(s);
    remove(scratch_file("ends.db"));
}

static void test_ci__no_field_of_a_row_is_markup(void **state)
{
    mp_store *s = open_store("markup.db");
    mp_error err = {0};

    (void)state;
    record(s, begin_run(s, "x", "<b>@a"), "one", "one/a", &good);
    sql_run(scratch_file("markup.db"), "UPDATE cell SET started = '\"><x>'");
    char *text = printed(s, NULL, &err);
    assert_has(text, "timestamp=\"&quot;&gt;&lt;x&gt;\"");
    free(text);
    text = printed(s, "x", &err);
    assert_has(text, "machine \\<b\\>@a");
    free(text);
    mp_store_close(s);
    remove(scratch_file("markup.db"));
}

/* The shards of one run have its label; those of another run do not count, nor does what a shard
 * ran again. */
static void test_summary__shards_of_a_label_are_one(void **state)
{
    mp_store *s = open_store("shards.db");
    const int64_t other = begin_run(s, "other", "f1"), first = begin_run(s, "night", "f1"),
                  second = begin_run(s, "night", "f2"), again = begin_run(s, "night", "f1");
    mp_error err = {0};

    (void)state;
    record(s, other, "one", "one/c", &crashed);
    record(s, first, "one", "one/a", &crashed);
    record(s, second, "one", "one/b", &good);
    record(s, again, "one", "one/a", &good);
    end_run(s, other);
    end_run(s, first);
    end_run(s, second);
    end_run(s, again);
    char *md = printed(s, "night", &err);
    assert_int_equal(err.code, MP_OK);
    assert_has(md,
               "### ✅ mpbench: OK\n\n- ✅ 2 cells as expected\n- ⚠️ measured on 2 different "
               "machines: times do not compare\n");
    assert_null(strstr(md, "one/c"));
    free(md);
    md = printed(s, "1", &err);
    assert_has(md, "### ❌ mpbench: UNEXPECTED\n\n- ❌ 1 cell not as expected\n\n");
    free(md);
    md = printed(s, "", &err); /* the newest run */
    assert_has(md, "### ✅ mpbench: OK\n\n- ✅ 1 cell as expected\n\n");
    free(md);
    sql_run(
        scratch_file("shards.db"), /* as if it had come by merge before those that began first */
        "UPDATE run SET started = '2999-01-01T00:00:00.000Z' WHERE id = 2");
    md = printed(s, "night", &err);
    assert_has(md, "### ❌ mpbench: UNEXPECTED\n\n- ❌ 1 cell not as expected\n");
    free(md);
    md = printed(s, "", &err);
    assert_has(md, "### ❌ mpbench: UNEXPECTED\n\n- ❌ 1 cell not as expected\n\nnative");
    free(md);
    mp_store_close(s);
    remove(scratch_file("shards.db"));
}

/* Rounds are repetitions, none of which replaces another. */
static void test_summary__of_rounds_each_one_counts(void **state)
{
    mp_store *s = open_store("rounds.db");
    const int64_t other = begin_run(s, NULL, "f1"), first = begin_run(s, "r", "f1");
    char of_first[37];
    mp_error err = {0};

    (void)state;
    memcpy(of_first, uuid, sizeof of_first);
    const int64_t second = begin_run(s, "r", "f1");
    record(s, other, "one", "one/a", &good);
    record(s, first, "one", "one/a", &crashed);
    record(s, second, "one", "one/a", &good);
    mp_store_close(s);
    char sql[200];
    snprintf(sql, sizeof sql,
             "INSERT INTO run_environment SELECT id, 'rounds', '%s' FROM run WHERE label = 'r'",
             of_first);
    sql_run(scratch_file("rounds.db"), sql);
    s = open_store("rounds.db");
    memcpy(uuid, of_first, sizeof uuid);
    for (int i = 0; i < 2; i++) {
        char *md = printed(s, i ? of_first : "r", &err);
        assert_has(md, "- ❌ 1 cell not as expected\n");
        assert_has(md, "- ✅ 1 cell as expected\n");
        free(md);
    }
    char *xml = printed(s, NULL, &err);
    assert_int_equal(err.code, MP_OK);
    assert_has(xml, "<testsuite name=\"one\" tests=\"2\" failures=\"0\" errors=\"1\"");
    assert_has(xml, "name=\"a, round 1\"");
    assert_has(xml, "name=\"a, round 2\"");
    free(xml);
    mp_store_close(s);
    remove(scratch_file("rounds.db"));
}

static void test_summary__names_what_it_does_not_find(void **state)
{
    mp_store *s = open_store("empty.db");
    mp_error err = {0};

    (void)state;
    char *md = printed(s, "", &err);
    assert_int_equal(err.code, MP_EMISSING);
    assert_has(err.text, "holds no run");
    assert_string_equal(md, "");
    free(md);
    err = (mp_error){0};
    begin_run(s, "x", "f");
    md = printed(s, "99999999999999999999", &err);
    assert_int_equal(err.code, MP_EMISSING);
    assert_has(err.text, "'99999999999999999999' is no run's id, UUID or label");
    assert_string_equal(md, "");
    free(md);
    mp_store_close(s);
    remove(scratch_file("empty.db"));
}

/* A night in which everything broke. */
static void test_summary__stays_below_the_limit_of_a_comment(void **state)
{
    enum { CELLS = 400 };
    mp_store *s = open_store("many.db");
    const int64_t run = begin_run(s, "many", "f");
    char error[4000];
    mp_error err = {0};
    int cells = 0;

    (void)state;
    memset(error, '`', sizeof error - 1);
    error[sizeof error - 1] = '\0';
    for (int i = 0; i < CELLS; i++) {
        char key[32];
        mp_cell_result bad = crashed;
        bad.error = i % 2 ? "x" : error;
        snprintf(key, sizeof key, "s/cell=%03d", i);
        record(s, run, "s", key, &bad);
    }
    char *md = printed(s, "many", &err);
    assert_int_equal(err.code, MP_OK);
    assert_true(strlen(md) <= MP_MARKDOWN_COMMENT);
    for (const char *c = strstr(md, "s/cell="); c; c = strstr(c + 1, "s/cell="), cells++) {
        char key[32];
        snprintf(key, sizeof key, "s/cell=%03d`", cells);
        assert_int_equal(strncmp(c, key, strlen(key)), 0); /* from the first on, none left out */
    }
    assert_true(cells > 10 && cells < CELLS);
    char folded[96];
    snprintf(folded, sizeof folded,
             "<details><summary>%d more</summary>\n\n- ❌ **error** `s/cell=010`", CELLS - 10);
    assert_has(md, folded);
    assert_int_equal(occurrences(md, "<details>"), 1);
    assert_int_equal(occurrences(md, "</details>"), 1);
    char left[80]; /* as many findings, and the whole table */
    snprintf(left, sizeof left, "Left out, too long for a comment: %d more rows.",
             CELLS - cells + CELLS);
    assert_has(md, left);
    free(md);
    mp_store_close(s);
    remove(scratch_file("many.db"));
}

static void test_summary__memory_that_runs_out_is_an_error(void **state)
{
    mp_store *s = every_end();
    const uint64_t before = mp_memory_requests();
    mp_error err = {0};

    (void)state;
    free(printed(s, "all", &err));
    const uint64_t requests = mp_memory_requests() - before;
    assert_true(requests > 1);
    mp_memory_fail_at(1);
    free(printed(s, "all", &err));
    mp_memory_fail_at(0);
    assert_int_equal(err.code, MP_ENOMEM);
    for (uint64_t n = 2; n <= requests; n++) {
        err = (mp_error){0};
        mp_memory_fail_at(n);
        char *md = printed(s, "all", &err);
        mp_memory_fail_at(0);
        if (!err.code)
            assert_has(md, "(no memory for the table)");
        free(md);
    }
    mp_store_close(s);
    remove(scratch_file("ends.db"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_junit__each_end_of_a_cell_has_its_element),
        cmocka_unit_test(test_junit__a_text_of_any_length_is_capped),
        cmocka_unit_test(test_summary__the_worst_comes_first),
        cmocka_unit_test(test_ci__no_field_of_a_row_is_markup),
        cmocka_unit_test(test_summary__shards_of_a_label_are_one),
        cmocka_unit_test(test_summary__of_rounds_each_one_counts),
        cmocka_unit_test(test_summary__names_what_it_does_not_find),
        cmocka_unit_test(test_summary__stays_below_the_limit_of_a_comment),
        cmocka_unit_test(test_summary__memory_that_runs_out_is_an_error),
    };

    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
