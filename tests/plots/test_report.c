/* The report page, out of small databases made by the store and by SQL.  What a browser does with
 * it is in check_report.py. */
#include "tests/results/scratch.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>

#include "kernels/core/memory.h"
#include "plots/html.h"
#include "plots/report.h"
#include "plots/report_parts.h"
#include "results/metrics.h"
#include "results/store.h"

/* ---- databases and pages -------------------------------------------------------------------- */

static const char *database(void)
{
    return scratch_file("report.db");
}

static int new_database(void **state)
{
    mp_store *s;
    mp_error err = {0};

    (void)state;
    unlink(database());
    unlink(scratch_file("index.html"));
    if (mp_store_open(database(), MP_STORE_WRITE, &s, &err))
        fail_msg("%s", err.text);
    mp_store_close(s);
    return 0;
}

/* A run with its commit; id is also its place in time. */
static void add_run(int id, const char *machine, const char *commit, const char *started)
{
    char sql[1000];

    snprintf(sql, sizeof sql,
             "INSERT INTO run VALUES (%d, 'uuid-%d', NULL, 'native', 'cpu', 'mpbench run', 'p', "
             "'%s', '%s', '%s', 0); INSERT INTO run_environment VALUES (%d, 'git_commit', '%s'), "
             "(%d, 'cpu', 'cpu of %s')",
             id, id, machine, started, started, id, commit, id, machine);
    sql_run(database(), sql);
}

/* A cell "scenario/precision.default=DTYPE"; more: further columns as SQL, "status = 'error'". */
static void add_cell(int id, int run, const char *scenario, const char *dtype, double drift,
                     const char *more)
{
    char sql[2000], value[40] = "NULL, 'nan'";

    if (isfinite(drift))
        snprintf(value, sizeof value, "%.17g, NULL", drift);
    snprintf(sql, sizeof sql,
             "INSERT INTO cell (id, run, key, scenario, scenario_hash, pipeline, checkpoint, "
             "checkpoint_hash, repro, started, status, as_expected) VALUES (%d, %d, "
             "'%s/precision.default=%s', '%s', 's', 'sana', 'tiny', 'c', 'mpbench run %s.yaml', "
             "'2026-01-01T00:00:00Z', 'ok', 1); INSERT INTO cell_setting VALUES (%d, "
             "'precision.default', '%s'); INSERT INTO metric VALUES (%d, 'latent_rel_l2', 'run', "
             "-1, '', %s, '1'), (%d, 'seconds', 'run', -1, '', 1.5, NULL, 's')",
             id, run, scenario, dtype, scenario, scenario, id, dtype, id, value, id);
    sql_run(database(), sql);
    if (more) {
        snprintf(sql, sizeof sql, "UPDATE cell SET %s WHERE id = %d", more, id);
        sql_run(database(), sql);
    }
}

static mp_code try_page(const mp_report_filter *f, const char *folder, mp_page_result *r,
                        mp_error *err)
{
    mp_store *s = NULL;

    if (!mp_store_open(database(), MP_STORE_READ, &s, err))
        mp_report_page(s, f, folder, r, err);
    mp_store_close(s);
    return err->code;
}

static char *read_page(void)
{
    const char *path = scratch_file("index.html");
    const size_t n = (size_t)file_size(path);
    char *text = malloc(n + 1);
    FILE *f = fopen(path, "rb");

    assert_non_null(text);
    assert_non_null(f);
    assert_int_equal(fread(text, 1, n, f), n);
    fclose(f);
    text[n] = '\0';
    return text;
}

static mp_page_result result;

/* The page of the whole database, or of a run and a scenario; free it. */
static char *page_of(const char *run, const char *scenario)
{
    mp_error err = {0};

    if (try_page(&(mp_report_filter){run, scenario}, scratch_folder(), &result, &err))
        fail_msg("%s", err.text);
    return read_page();
}

static void assert_has(const char *page, const char *part)
{
    if (!strstr(page, part))
        fail_msg("\"%s\" is not on the page", part);
}

static void assert_has_not(const char *page, const char *part)
{
    const char *at = strstr(page, part);

    if (at)
        fail_msg("\"%s\" is on the page: %.200s", part, at);
}

/* What stands between two marks; free it. */
static char *between(const char *page, const char *open, const char *close)
{
    const char *from = strstr(page, open);
    const char *to = from ? strstr(from + strlen(open), close) : NULL;

    if (!to)
        fail_msg("no %s...%s on the page", open, close);
    return strndup(from + strlen(open), (size_t)(to - from) - strlen(open));
}

static json_t *data_of(const char *page)
{
    char *text = between(page, "<script type=\"application/json\" id=\"data\">", "</script>");
    json_error_t why;
    json_t *data = json_loads(text, JSON_REJECT_DUPLICATES, &why);

    if (!data)
        fail_msg("%s in %s", why.text, text);
    free(text);
    return data;
}

/* ---- text ----------------------------------------------------------------------------------- */

static char *html_of(const char *text)
{
    char *out = NULL;
    size_t n;
    FILE *f = open_memstream(&out, &n);

    assert_non_null(f);
    mp_html(f, "<td title=\"%s\" id=c%jd>%d %%</td>", text, (intmax_t)1 << 40, -7);
    fclose(f);
    return out;
}

static void assert_html(const char *text, const char *expected)
{
    char *out = html_of(text), whole[300];

    snprintf(whole, sizeof whole, "<td title=\"%s\" id=c1099511627776>-7 %%</td>", expected);
    assert_string_equal(out, whole);
    free(out);
}

static void test_html__escapes_what_is_markup_and_what_hides(void **state)
{
    (void)state;
    assert_html("<a href='x' b=\"y\">&amp;", "&lt;a href=&#39;x&#39; b=&quot;y&quot;&gt;&amp;amp;");
    assert_html("two\nlines, \x1b[31m\r", "two\nlines, \\x1b[31m\\x0d");
    assert_html("f\xc3\xbcr \xe2\x80\xae, \xff", "f\xc3\xbcr \\xe2\\x80\\xae, \\xff");
    assert_html("%s%n", "%s%n");
}

static void test_json__cannot_end_its_script(void **state)
{
    json_t *all = json_pack("{ss}", "<!--</script>&", "\xe2\x80\xa8</SCRIPT><script>\"\\");
    char *out = NULL;
    size_t n;
    FILE *f = open_memstream(&out, &n);

    (void)state;
    assert_true(mp_html_json(f, all));
    fclose(f);
    assert_null(strpbrk(out, "<>&"));
    assert_has(out, "\\u2028\\u003c/SCRIPT\\u003e");
    json_t *again = json_loads(out, 0, NULL);
    assert_true(json_equal(all, again));
    json_decref(again);
    json_decref(all);
    free(out);
}

static void test_base64__is_that_of_rfc_4648(void **state)
{
    static const char *const pairs[][2] = {
        {"", ""},        {"f", "Zg=="},        {"fo", "Zm8="},
        {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"\xfb\xff\xbf", "+/+/"}};

    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        char *out = mp_base64(pairs[i][0], strlen(pairs[i][0]));
        assert_string_equal(out, pairs[i][1]);
        mp_free(out);
    }
    char *hash = mp_html_hash("");
    assert_string_equal(hash, "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
    mp_free(hash);
}

/* ---- the page ------------------------------------------------------------------------------- */

static void assert_allowed(const char *page, const char *tag)
{
    char open[20], close[20], source[100];

    snprintf(open, sizeof open, "<%s>", tag);
    snprintf(close, sizeof close, "</%s>", tag);
    char *block = between(page, open, close), *hash = mp_html_hash(block);
    snprintf(source, sizeof source, "%s-src 'sha256-%s'", tag, hash);
    assert_has(page, source);
    assert_true(strlen(block) > 1000);
    mp_free(hash);
    free(block);
}

static void test_page__allows_its_own_style_and_script_alone(void **state)
{
    char *page = page_of(NULL, NULL);

    (void)state;
    assert_has(page, "\"default-src 'none'; img-src data:;");
    assert_allowed(page, "style");
    assert_allowed(page, "script");
    assert_has(page, "\"use strict\";");
    assert_has_not(page, "{{");
    assert_has_not(page, "=\"http");
    assert_has_not(page, "url(");
    assert_has_not(page, "@import");
    assert_has_not(page, " style=");
    free(page);
}

static void test_page__of_an_empty_database_says_so(void **state)
{
    char *page = page_of(NULL, NULL);

    (void)state;
    assert_int_equal(result.cells, 0);
    assert_int_equal(result.bytes, strlen(page));
    assert_has(page, ">No results yet</h1>");
    assert_has(page, "This database holds no cells.");
    free(page);
}

static void test_page__of_one_run_has_its_cells(void **state)
{
    (void)state;
    add_run(1, "m", "0123456789012345678901234567890123456789", "2026-01-01T02:00:00Z");
    add_cell(1, 1, "sana", "fp32", 0, NULL);
    add_cell(2, 1, "sana", "bf16", 0.0123456, NULL);
    char *page = page_of(NULL, NULL);
    assert_has(page, ">All as expected</h1>");
    assert_has(page, "title=\"0123456789012345678901234567890123456789\">0123456789</code>");
    assert_has(page, "<td class=\"n\" data-v=\"0.0123456\">0.0123</td>");
    assert_has(page, "<td class=\"heat q9\"><a href=\"#cell-2\">0.012</a></td>");
    assert_has(page, "data-choice>Status</th>");
    assert_has(page, "<th scope=\"col\" class=\"n\" data-sort=\"n\">Latents</th>");
    assert_has(page, "2 series are too short for statistics: they need 6 runs of a machine.");
    json_t *data = data_of(page);
    assert_int_equal(json_array_size(json_object_get(data, "series")), 2);
    json_decref(data);
    free(page);
}

static void test_page__counts_what_went_wrong(void **state)
{
    (void)state;
    add_run(1, "m", "c", "2026-01-01T02:00:00Z");
    add_cell(1, 1, "a", "fp32", 0, NULL);
    add_cell(2, 1, "a", "bf16", 0.5, "budget = 'latent_rel_l2 0.5 is over 0.02'");
    add_cell(3, 1, "b", "fp16", NAN,
             "status = 'error', outcome = 'dtype_mismatch', as_expected = 0, error = 'expected "
             "Half\nbut found Float', module = 'vae.decoder.conv_in', op = 'conv2d', want = "
             "'Half', got = 'Float', step = 3");
    add_cell(4, 1, "b", "bf16", 0.1, "status = 'error', expected = 'error: x', error = 'x'");
    add_cell(5, 1, "b", "fp32", 0, "status = 'interrupted', as_expected = NULL");
    char *page = page_of(NULL, NULL);
    assert_has(page, ">Regression</h1>");
    assert_int_equal(result.cells, 5);
    assert_int_equal(result.ok, 2);
    assert_int_equal(result.unexpected, 1);
    assert_int_equal(result.over_budget, 1);
    assert_int_equal(result.unfinished, 1);
    assert_has(page, "<pre>expected Half\nbut found Float</pre>");
    assert_has(page, "<code>vae.decoder.conv_in</code><dl><div><dt>op</dt><dd>conv2d</dd>");
    assert_has(page, "<dt>step</dt><dd>3</dd>");
    assert_has(page, "<code>mpbench run b.yaml</code>");
    assert_has(page, "<a href=\"#cell-3\">error</a><small>unexpected</small>");
    assert_has(page, "<a href=\"#cell-4\">error</a><small>expected</small>");
    assert_has(page, "1 cell did not end");
    assert_true(strstr(page, "<dt>expected</dt><dd>error: x</dd>") >
                strstr(page, "<code>vae.decoder.conv_in</code>")); /* unexpected ones first */
    free(page);
}

static void test_page__keeps_numbers_that_are_none(void **state)
{
    (void)state;
    add_run(1, "m", "c", "2026-01-01T02:00:00Z");
    add_cell(1, 1, "a", "bf16", NAN, NULL);
    add_cell(2, 1, "a", "fp16", 0.5, NULL);
    add_cell(3, 1, "b", "fp16", 0.5, NULL); /* the other way round */
    add_cell(4, 1, "b", "bf16", NAN, NULL);
    sql_run(database(), "INSERT INTO metric VALUES (1, 'psnr_db', 'run', -1, '', NULL, '-inf', "
                        "'dB'), (2, 'psnr_db', 'run', -1, '', 20, NULL, 'dB')");
    char *page = page_of(NULL, NULL);
    char *overview = between(page, "<section id=\"overview\"", "</section>");
    const char *nan = "<td class=\"n\" data-v=\"nan\">nan</td>"; /* worse than 0.5 */
    assert_has(overview, nan);
    assert_has(strstr(overview, nan) + 1, nan);
    assert_has(overview, "<td class=\"n\" data-v=\"-inf\">-inf</td>");
    assert_has(page, "<td class=\"heat failed\"><a href=\"#cell-1\">nan</a></td>");
    json_t *data = data_of(page), *series = json_object_get(data, "series");
    char *text = json_dumps(series, 0);
    assert_has(text, "\"nan\"");
    assert_has(text, "\"-inf\"");
    free(text);
    json_decref(data);
    free(overview);
    free(page);
}

static void test_overview__has_on_top_what_needs_a_look(void **state)
{
    (void)state;
    add_run(1, "m", "c", "2026-01-01T02:00:00Z");
    add_cell(1, 1, "alpha", "fp32", 0, NULL);
    add_cell(2, 1, "beta", "fp32", 0, "as_expected = 0");
    char *page = page_of(NULL, NULL), *overview = between(page, "id=\"overview\"", "</section>");
    assert_true(strstr(overview, ">beta</a>") < strstr(overview, ">alpha</a>"));
    free(overview);
    free(page);
}

static void test_matrix__has_a_row_for_what_differs_in_dtype_alone(void **state)
{
    (void)state;
    add_run(1, "m", "c", "2026-01-01T02:00:00Z");
    add_cell(1, 1, "a", "bf16", 0.1, "key = 'a/precision.default=bf16,tiling=off'");
    add_cell(2, 1, "a", "fp32", 0, "key = 'a/precision.default=fp32,tiling=off'");
    add_cell(3, 1, "a", "bf16", 0.3, "key = 'a/tiling=on,precision.default=bf16'");
    add_cell(4, 1, "a", "bf16", 0.4, "key = 'a/tiling=on,xprecision.default=bf16'");
    char *page = page_of(NULL, NULL);
    char *matrix = between(page, "<section id=\"matrix\"", "</section>");
    assert_has(matrix, "<th scope=\"col\">fp32</th><th scope=\"col\">bf16</th></tr>");
    assert_has(matrix, "<small>tiling=off native/cpu </small></th><td class=\"heat q0\"><a "
                       "href=\"#cell-2\">0</a></td><td class=\"heat q10\"><a href=\"#cell-1\">0.1"
                       "</a></td></tr>");
    assert_has(matrix, "<small>tiling=on native/cpu </small></th><td class=\"heat none\">-</td>");
    assert_has(matrix, "<small>tiling=on,xprecision.default=bf16 native/cpu </small>");
    free(matrix);
    free(page);
}

/* ---- findings ------------------------------------------------------------------------------- */

/* Cell b drifts further since run 2; cell a has run once more. */
static void add_regression(void)
{
    add_run(1, "m", "0123456789012345678901234567890123456789", "2026-01-01T02:00:00Z");
    add_cell(1, 1, "a", "bf16", 0.1, NULL);
    add_cell(2, 1, "b", "bf16", 0.1, NULL);
    add_run(2, "m", "9876543210987654321098765432109876543210", "2026-01-02T02:00:00Z");
    add_cell(3, 2, "a", "bf16", 0.1, NULL);
    add_cell(4, 2, "b", "bf16", 0.2, "repro = 'mpbench run <b>.yaml'");
    add_run(3, "m", "c", "2026-01-03T02:00:00Z");
    add_cell(5, 3, "a", "bf16", 0.1, NULL);
}

static void test_findings__have_their_commits_and_their_command(void **state)
{
    (void)state;
    add_regression();
    char *page = page_of(NULL, NULL);
    char *findings = between(page, "<section id=\"findings\"", "</section>");
    assert_int_equal(result.open_findings, 1);
    assert_has(page, ">Regression</h1>");
    assert_has(page, "<span class=\"badge bad\">1 finding</span>");
    assert_has(findings, "<a href=\"#series-4\">b</a>");
    assert_has(findings, "<span class=\"badge bad\">open</span></td><td>exact</td><td>worse</td>");
    assert_has(findings, "latent_rel_l2 0.1 -&gt; 0.2");
    assert_has(findings, "<code>mpbench run &lt;b&gt;.yaml</code>");
    assert_has(findings, ">0123456789</code> to <code title=\"9876543210987654321098765432109876543"
                         "210\">9876543210</code>");
    json_t *data = data_of(page);
    const json_t *b = json_array_get(json_object_get(data, "series"), 1);
    const json_t *mark = json_array_get(json_object_get(b, "marks"), 0);
    assert_string_equal(mp_page_text(b, "scenario"), "b");
    assert_int_equal(mp_page_id(mark, "at"), 1);
    assert_string_equal(mp_page_text(mark, "is"), "worse");
    json_decref(data);
    free(findings);
    free(page);
}

static void test_findings__of_other_cells_are_not_on_the_page_of_a_run(void **state)
{
    (void)state;
    add_regression();
    char *page = page_of("3", NULL);
    assert_int_equal(result.open_findings, 0);
    assert_has(page, "Nothing has changed over the runs.");
    free(page);
    page = page_of("2", NULL);
    assert_int_equal(result.open_findings, 1);
    free(page);
}

/* ---- which cells ---------------------------------------------------------------------------- */

static void test_cells__are_those_of_the_newest_run_and_of_its_shards(void **state)
{
    (void)state;
    add_run(1, "m", "old", "2026-01-01T02:00:00Z");
    add_run(2, "m", "new", "2026-01-02T02:00:00Z");
    add_run(3, "m", "new", "2026-01-02T02:00:01Z");  /* the other shard */
    add_run(4, "m", "back", "2026-01-01T01:00:00Z"); /* its clock ran backwards */
    add_cell(1, 1, "a", "fp32", 0, NULL);
    add_cell(2, 1, "a", "gone", 0.1, NULL);
    add_cell(3, 2, "a", "fp32", 0, NULL);
    add_cell(4, 2, "a", "fp16", 0.2, NULL);
    add_cell(5, 3, "a", "bf16", 0.3, NULL);
    add_cell(6, 3, "a", "fp16", 0.4, NULL); /* once more */
    add_cell(7, 4, "a", "late", 0.5, NULL);
    char *page = page_of(NULL, NULL);
    assert_int_equal(result.cells, 3);
    assert_has(page, "<tr id=\"cell-3\">");
    assert_has(page, "<tr id=\"cell-5\">");
    assert_has(page, "<tr id=\"cell-6\">");
    assert_has(page, "a clock ran backwards");
    free(page);
    page = page_of("1", NULL);
    assert_int_equal(result.cells, 2);
    assert_has(page, "<tr id=\"cell-2\">");
    free(page);
    page = page_of("uuid-4", "a");
    assert_int_equal(result.cells, 1);
    free(page);
    sql_run(database(), "UPDATE run SET label = 'old' WHERE id = 1");
    page = page_of("old", NULL);
    assert_int_equal(result.cells, 2);
    assert_has(page, "<tr id=\"cell-2\">");
    free(page);
}

static void test_cells__of_a_resumed_run_and_of_the_same_second_are_the_last(void **state)
{
    (void)state;
    add_run(1, "m", "old", "2026-01-01T02:00:00Z");
    add_run(2, "m", "new", "2026-01-01T02:00:00Z");
    add_cell(1, 1, "a", "fp32", 0, NULL);
    add_cell(2, 2, "a", "fp32", 0, "status = 'interrupted'");
    add_cell(3, 2, "a", "fp32", 0, NULL);
    char *page = page_of(NULL, NULL);
    assert_int_equal(result.cells, 1);
    assert_has(page, "<tr id=\"cell-3\">");
    free(page);
}

static void test_environment__is_that_of_the_newest_run_of_a_machine(void **state)
{
    (void)state;
    add_run(1, "m", "old", "2026-01-01T02:00:00Z");
    add_run(2, "m", "new", "2026-01-02T02:00:00Z");
    add_cell(1, 1, "a", "fp32", 0, NULL);
    add_cell(2, 2, "b", "fp32", 0, NULL);
    char *page = page_of(NULL, NULL);
    assert_int_equal(result.cells, 2);
    assert_has(page, "<th scope=\"row\">git_commit</th><td></td><td>new</td></tr>");
    free(page);
}

static void test_cells__of_machines_are_kept_apart(void **state)
{
    (void)state;
    add_run(1, "machine-one", "c", "2026-01-01T02:00:00Z");
    add_run(2, "machine-two", "c", "2026-01-02T02:00:00Z");
    add_cell(1, 1, "a", "fp32", 0, NULL);
    char *page = page_of(NULL, NULL);
    assert_has_not(page, ">Machine</th>");
    assert_has_not(page, "of more than one machine");
    free(page);
    add_cell(2, 2, "a", "fp32", 0, NULL);
    page = page_of(NULL, NULL);
    assert_int_equal(result.cells, 2);
    assert_has(page, "data-choice>Machine</th>");
    assert_has(page, "of more than one machine");
    assert_has(page, "<th scope=\"row\">cpu</th><td><span class=\"badge warn\">differs</span></td>"
                     "<td>cpu of machine-two</td><td>cpu of machine-one</td>");
    assert_has(page, "<th scope=\"row\">git_commit</th><td></td><td>c</td><td>c</td>");
    free(page);
}

static void test_filter__that_leaves_nothing_says_what_there_is(void **state)
{
    mp_error err = {0};

    (void)state;
    add_run(1, "m", "c", "2026-01-01T02:00:00Z");
    add_cell(1, 1, "sana\x1b[31m", "fp32", 0, NULL);
    assert_int_equal(try_page(&(mp_report_filter){"7", "x\x1b"}, scratch_folder(), &result, &err),
                     MP_EMISSING);
    assert_has(err.text, "no cells of run 7 scenario x\\x1b; the newest runs are: 1; scenarios: "
                         "sana\\x1b[31m");
    assert_int_not_equal(access(scratch_file("index.html"), F_OK), 0);
}

static void test_page__of_an_old_database_needs_no_migration(void **state)
{
    char command[1200];

    (void)state;
    for (int version = 1; version < 5; version++) {
        unlink(database());
        snprintf(command, sizeof command, "sqlite3 '%s' <'%s/results/schema_%d.sql'", database(),
                 MP_FIXTURES, version);
        assert_int_equal(system(command), 0);
        snprintf(command, sizeof command,
                 "PRAGMA application_id = 0x6d706265; PRAGMA user_version = %d", version);
        sql_run(database(), command);
        add_run(1001, "m", "c", "2030-01-01T02:00:00Z");
        add_cell(1001, 1001, "a", "fp32", 0, NULL);
        char *page = page_of("1001", NULL);
        assert_int_equal(result.cells, 1);
        free(page);
    }
}

/* ---- hostile texts -------------------------------------------------------------------------- */

static void test_page__takes_every_text_as_text(void **state)
{
    static const char *const texts[] = {"</script><script>owned()</script>",
                                        "<img src=x onerror=o>", "\" onclick=\"owned()",
                                        "'); DROP TABLE cell; --"};
    char cells[2000], found[300];

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char *quoted = sqlite3_mprintf("%Q", texts[i]);
        new_database(NULL);
        add_run(1, "m", "c", "2026-01-01T02:00:00Z");
        add_cell(1, 1, "a", "fp32", 0, NULL);
        snprintf(cells, sizeof cells,
                 "UPDATE run SET label = %s, engine = %s, device = %s, fingerprint = %s, started = "
                 "%s; UPDATE run_environment SET value = %s; UPDATE cell_setting SET value = %s; "
                 "UPDATE cell SET key = %s, scenario = %s, status = 'error', outcome = %s, error = "
                 "%s, module = %s, op = %s, want = %s, got = %s, stage = %s, budget = %s, warnings "
                 "= %s, exception = %s, frame = %s, expected = %s, repro = %s",
                 quoted, quoted, quoted, quoted, quoted, quoted, quoted, quoted, quoted, quoted,
                 quoted, quoted, quoted, quoted, quoted, quoted, quoted, quoted, quoted, quoted,
                 quoted, quoted);
        sql_run(database(), cells);
        sqlite3_free(quoted);
        char *page = page_of(NULL, NULL);
        assert_int_equal(result.cells, 1);
        assert_has_not(page, "<img");
        assert_has_not(page, "<script>owned");
        assert_has_not(page, "\" onclick=\"");
        json_t *data = data_of(page);
        snprintf(found, sizeof found, "%s",
                 json_string_value(json_object_get(
                     json_array_get(json_object_get(data, "series"), 0), "scenario")));
        assert_string_equal(found, texts[i]); /* nothing is lost */
        json_decref(data);
        free(page);
    }
}

/* ---- size, pictures ------------------------------------------------------------------------- */

/* As many bytes as asked for, that pass for a PNG. */
static void add_picture(int cell, const char *role, int seed, size_t n)
{
    unsigned char *png = malloc(n);
    sqlite3 *db = sql_open(database());
    sqlite3_stmt *q;
    char hash[65];

    assert_non_null(png);
    memcpy(png, "\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x40\0\0\0\x20", 24);
    for (size_t i = 24; i < n; i++)
        png[i] = (unsigned char)(i * 31 + (size_t)seed * 7 + i / 251);
    mp_sha256_hex(png, n, hash);
    assert_int_equal(
        sqlite3_prepare_v2(db, "INSERT OR IGNORE INTO picture VALUES (?, 64, 32, ?)", -1, &q, NULL),
        SQLITE_OK);
    sqlite3_bind_text(q, 1, hash, -1, SQLITE_STATIC);
    sqlite3_bind_blob(q, 2, png, (int)n, SQLITE_STATIC);
    assert_int_equal(sqlite3_step(q), SQLITE_DONE);
    sqlite3_finalize(q);
    assert_int_equal(
        sqlite3_prepare_v2(db, "INSERT INTO cell_picture VALUES (?, ?, ?)", -1, &q, NULL),
        SQLITE_OK);
    sqlite3_bind_int(q, 1, cell);
    sqlite3_bind_text(q, 2, role, -1, SQLITE_STATIC);
    sqlite3_bind_text(q, 3, hash, -1, SQLITE_STATIC);
    assert_int_equal(sqlite3_step(q), SQLITE_DONE);
    sqlite3_finalize(q);
    sqlite3_close(db);
    free(png);
}

static const json_t *pair_at(const json_t *data, size_t i)
{
    return json_array_get(json_object_get(json_object_get(data, "pictures"), "pairs"), i);
}

static void test_pictures__are_embedded_once_and_the_worst_first(void **state)
{
    (void)state;
    add_run(1, "m", "c", "2026-01-01T02:00:00Z");
    add_cell(1, 1, "a", "fp32", 0, NULL);
    add_cell(2, 1, "a", "fp16", 0.1, NULL);
    add_cell(3, 1, "a", "bf16", 0.2, NULL);
    add_cell(4, 1, "a", "fp8_e4m3", 0.05, "budget = 'x'");
    for (int cell = 1; cell <= 3; cell++) {
        add_picture(cell, "output", cell, 300);
        add_picture(cell, "reference", 1, 300); /* the first one's output */
    }
    add_picture(4, "output", 2, 300); /* that of the second one */
    char *page = page_of(NULL, NULL);
    json_t *data = data_of(page);
    const int order[] = {4, 3, 2, 1};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(json_integer_value(json_object_get(pair_at(data, i), "cell")), order[i]);
    assert_null(pair_at(data, 4));
    const json_t *images = json_object_get(json_object_get(data, "pictures"), "images");
    assert_int_equal(json_object_size(images), 3);
    assert_string_equal(mp_page_text(pair_at(data, 0), "reference"), "");
    assert_string_equal(mp_page_text(pair_at(data, 3), "reference"),
                        mp_page_text(pair_at(data, 3), "output"));
    assert_int_equal(strlen(mp_page_text(images, mp_page_text(pair_at(data, 1), "output"))), 400);
    json_decref(data);
    free(page);
}

static void test_pictures__that_are_damaged_are_told_and_left_out(void **state)
{
    (void)state;
    add_run(1, "m", "c", "2026-01-01T02:00:00Z");
    add_cell(1, 1, "a", "fp32", 0, NULL);
    add_picture(1, "output", 1, 300);
    sql_run(database(), "UPDATE picture SET png = x'3c7363726970743e'");
    char *page = page_of(NULL, NULL);
    assert_has(page, "1 picture is damaged in the database and not shown.");
    free(page);
}

static void test_pictures__that_are_equal_count_once(void **state)
{
    (void)state;
    add_run(1, "m", "c", "2026-01-01T02:00:00Z");
    for (int i = 1; i <= 40; i++) {
        char dtype[24];
        snprintf(dtype, sizeof dtype, "fp%d", i);
        add_cell(i, 1, "a", dtype, 0.1, NULL);
        add_picture(i, "output", 1, 100000);
    }
    char *page = page_of(NULL, NULL);
    assert_has_not(page, "are left out to keep this page small");
    assert_true(result.bytes < 400000);
    free(page);
}

/* 100 cells over 130 nights with 100 pictures of 100 kB: more than fits. */
static void test_page__of_a_hundred_cells_is_below_5_mb(void **state)
{
    (void)state;
    add_run(1000, "m", "c", "2025-01-01T02:00:00Z");
    for (int i = 1; i <= 100; i++) {
        char dtype[24];
        snprintf(dtype, sizeof dtype, "fp%d", i);
        add_cell(i, 1000, "a-long-name-of-a-scenario", dtype, 1e-4 * i, NULL);
    }
    sql_run(database(),
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 130) INSERT "
            "INTO run SELECT i, 'u' || i, NULL, 'native', 'cpu', 'x', 'p', 'm', date('2025-06-01', "
            "i || ' days') || 'T02:00:00Z', NULL, 0 FROM n;"
            "INSERT INTO cell (id, run, key, scenario, scenario_hash, pipeline, checkpoint, "
            "checkpoint_hash, repro, started, status, as_expected) SELECT run.id * 1000 + cell.id, "
            "run.id, key, scenario, 's', 'sana', 'tiny', 'c', repro, run.started, 'ok', 1 FROM run "
            "JOIN cell WHERE run.id < 1000;"
            "INSERT INTO cell_setting SELECT id, 'precision.default', substr(key, -4) FROM cell "
            "WHERE id > 1000;"
            "WITH name(n) AS (VALUES ('latent_rel_l2'), ('image_rel_l2'), ('psnr_db'), ('ssim'), "
            "('seam'), ('seconds'), ('peak_mib')) INSERT INTO metric SELECT id, n, 'run', -1, '', "
            "0.123456789 + (id * 7919 % 1000) / 1e4, NULL, '1' FROM cell JOIN name WHERE id > "
            "1000");
    for (int i = 1; i <= 100; i++)
        add_picture(130000 + i, "output", i, 100000);
    char *page = page_of(NULL, NULL);
    assert_int_equal(result.cells, 100);
    assert_true(result.bytes < 5000000);
    assert_true(result.bytes > 3000000);
    assert_has(page, "Series show their newest 120 runs; the longest has 131.");
    assert_has(page, "The pictures of 77 cells are left out to keep this page small");
    free(page);
}

/* ---- writing -------------------------------------------------------------------------------- */

static void test_page__is_the_same_for_the_same_database(void **state)
{
    (void)state;
    add_run(1, "m", "c", "2026-01-01T02:00:00Z");
    add_cell(1, 1, "a", "bf16", 0.1, NULL);
    char *first = page_of(NULL, NULL), *second = page_of(NULL, NULL);
    assert_string_equal(first, second);
    free(first);
    free(second);
}

static int count_files(void)
{
    char command[400];

    snprintf(command, sizeof command, "ls -A '%s' | grep -c index.html", scratch_folder());
    FILE *f = popen(command, "r");
    int n = -1;
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%d", &n), 1);
    pclose(f);
    return n;
}

static void test_page__that_cannot_be_written_leaves_the_old_one(void **state)
{
    mp_error err = {0};

    (void)state;
    write_file(scratch_file("file"), "");
    assert_int_equal(try_page(&(mp_report_filter){0}, scratch_file("file"), &result, &err), MP_EIO);
    assert_has(err.text,
               "file/index.html: cannot write the page: Not a directory; make the folder");
    err = (mp_error){0};
    assert_int_equal(mkdir(scratch_file("index.html"), 0755), 0); /* the last step fails */
    assert_int_equal(try_page(&(mp_report_filter){0}, scratch_folder(), &result, &err), MP_EIO);
    assert_int_equal(count_files(), 1); /* nothing of the new one is left */
    assert_int_equal(rmdir(scratch_file("index.html")), 0);
}

static void test_page__without_memory_is_an_error(void **state)
{
    mp_error err;
    uint64_t n = 1;

    (void)state;
    add_run(1, "m", "c", "2026-01-01T02:00:00Z");
    add_cell(1, 1, "a", "bf16", 0.1, NULL);
    add_picture(1, "output", 1, 300);
    add_run(2, "m", "d", "2026-01-02T02:00:00Z");
    add_cell(2, 2, "a", "bf16", 0.2, "status = 'error', as_expected = 0");
    add_picture(2, "output", 1, 300);
    write_file(scratch_file("index.html"), "old");
    for (;; n++) {
        err = (mp_error){0};
        mp_memory_fail_at(n);
        try_page(&(mp_report_filter){0}, scratch_folder(), &result, &err);
        mp_memory_fail_at(0);
        if (!err.code)
            break;
        assert_int_equal(err.code, MP_ENOMEM);
        assert_int_equal(file_size(scratch_file("index.html")), 3);
        assert_int_equal(count_files(), 1);
    }
    assert_true(n > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_html__escapes_what_is_markup_and_what_hides),
        cmocka_unit_test(test_json__cannot_end_its_script),
        cmocka_unit_test(test_base64__is_that_of_rfc_4648),
        cmocka_unit_test_setup(test_page__allows_its_own_style_and_script_alone, new_database),
        cmocka_unit_test_setup(test_page__of_an_empty_database_says_so, new_database),
        cmocka_unit_test_setup(test_page__of_one_run_has_its_cells, new_database),
        cmocka_unit_test_setup(test_page__counts_what_went_wrong, new_database),
        cmocka_unit_test_setup(test_page__keeps_numbers_that_are_none, new_database),
        cmocka_unit_test_setup(test_overview__has_on_top_what_needs_a_look, new_database),
        cmocka_unit_test_setup(test_matrix__has_a_row_for_what_differs_in_dtype_alone,
                               new_database),
        cmocka_unit_test_setup(test_findings__have_their_commits_and_their_command, new_database),
        cmocka_unit_test_setup(test_findings__of_other_cells_are_not_on_the_page_of_a_run,
                               new_database),
        cmocka_unit_test_setup(test_cells__of_a_resumed_run_and_of_the_same_second_are_the_last,
                               new_database),
        cmocka_unit_test_setup(test_environment__is_that_of_the_newest_run_of_a_machine,
                               new_database),
        cmocka_unit_test_setup(test_pictures__that_are_equal_count_once, new_database),
        cmocka_unit_test_setup(test_cells__are_those_of_the_newest_run_and_of_its_shards,
                               new_database),
        cmocka_unit_test_setup(test_cells__of_machines_are_kept_apart, new_database),
        cmocka_unit_test_setup(test_filter__that_leaves_nothing_says_what_there_is, new_database),
        cmocka_unit_test(test_page__of_an_old_database_needs_no_migration),
        cmocka_unit_test(test_page__takes_every_text_as_text),
        cmocka_unit_test_setup(test_pictures__are_embedded_once_and_the_worst_first, new_database),
        cmocka_unit_test_setup(test_pictures__that_are_damaged_are_told_and_left_out, new_database),
        cmocka_unit_test_setup(test_page__of_a_hundred_cells_is_below_5_mb, new_database),
        cmocka_unit_test_setup(test_page__is_the_same_for_the_same_database, new_database),
        cmocka_unit_test_setup(test_page__that_cannot_be_written_leaves_the_old_one, new_database),
        cmocka_unit_test_setup(test_page__without_memory_is_an_error, new_database),
    };

    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
