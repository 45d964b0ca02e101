/* What users see of a run's inside: --trace, show --ops, the CPU's counters. */
#include "tests/harness/cli.h"

#include <jansson.h>
#include <stdbool.h>

#define FAKE "--engine \"$fixtures/workers/fake_worker.py\" "

/* ---- a trace -------------------------------------------------------------------------------- */

static json_t *read_trace(const cli *c)
{
    char *text = cli_read(c, "trace.json");
    json_error_t why;
    json_t *all = json_loads(text, JSON_REJECT_DUPLICATES, &why);

    if (!all)
        fail_msg("line %d: %s in a trace of %zu bytes", why.line, why.text, strlen(text));
    free(text);
    return all;
}

static const char *word(const json_t *event, const char *key)
{
    const char *text = json_string_value(json_object_get(event, key));

    return text ? text : "";
}

static double number(const json_t *event, const char *key)
{
    return json_number_value(json_object_get(event, key));
}

static bool is(const json_t *event, const char *phase, const char *kind)
{
    return !strcmp(word(event, "ph"), phase) && !strcmp(word(event, "cat"), kind);
}

static double end_of(const json_t *event)
{
    return number(event, "ts") + number(event, "dur");
}

/* What is known of a cell's trace while it is read in its order. */
typedef struct reader {
    const json_t *open[32]; /* begun and not ended, the innermost last */
    int depth;
    double last_op, last_scope, last_count; /* when the one before was over */
    double in_ops, most;                    /* of the stage: time, and bytes of the counter */
    int ops, steps, modules, generations;
    char stages[200]; /* "text_encode=1024 .."; without loading, which may come several times */
} reader;

/* Microseconds have three decimals, so ends of intervals are this far from where they were. */
static const double ROUNDING = 0.0021;

static void read_op(reader *r, const json_t *op)
{
    assert_true(number(op, "ts") >= r->last_op - ROUNDING);
    assert_true(r->depth > 0 && number(op, "ts") >= number(r->open[r->depth - 1], "ts"));
    r->last_op = end_of(op);
    r->in_ops += number(op, "dur");
    r->ops++;
}

static void read_begin(reader *r, const json_t *event)
{
    assert_true(r->depth < 32 && number(event, "ts") >= r->last_scope);
    r->last_scope = number(event, "ts");
    r->open[r->depth++] = event;
    r->modules += is(event, "B", "module");
    r->generations += is(event, "B", "generation");
    if (is(event, "B", "stage"))
        r->in_ops = r->most = 0;
}

/* Ops are inside their module, modules inside their stage, and together they take no longer. */
static void read_end(reader *r, const json_t *event)
{
    assert_true(r->depth > 0);
    const json_t *begin = r->open[--r->depth];
    assert_true(number(event, "ts") >= number(begin, "ts"));
    assert_true(number(event, "ts") >= r->last_op - ROUNDING);
    r->last_scope = number(event, "ts");
    if (is(begin, "B", "stage")) {
        assert_true(r->in_ops <= number(event, "ts") - number(begin, "ts") + ROUNDING);
        if (strcmp(word(begin, "name"), "load"))
            snprintf(r->stages + strlen(r->stages), sizeof r->stages - strlen(r->stages),
                     "%s%s=%.0f", *r->stages ? " " : "", word(begin, "name"), r->most);
    }
}

static void read_count(reader *r, const json_t *event)
{
    const double bytes = number(json_object_get(event, "args"), "bytes");

    assert_true(number(event, "ts") >= r->last_count - ROUNDING);
    r->last_count = number(event, "ts");
    if (bytes > r->most)
        r->most = bytes;
}

static reader read_cell(const json_t *all, int cell)
{
    reader r = {0};
    size_t i;
    json_t *event;

    json_array_foreach (json_object_get(all, "traceEvents"), i, event) {
        if (number(event, "pid") != cell)
            continue;
        if (is(event, "X", "op"))
            read_op(&r, event);
        else if (is(event, "X", "step"))
            r.steps++;
        else if (!strcmp(word(event, "ph"), "B"))
            read_begin(&r, event);
        else if (!strcmp(word(event, "ph"), "E"))
            read_end(&r, event);
        else if (!strcmp(word(event, "ph"), "C"))
            read_count(&r, event);
    }
    return r;
}

static void test_trace__ops_lie_in_modules_in_stages_and_memory_has_the_pools_peak(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "reference: off\nmatrix: {precision.default: [fp32, bf16]}\n");
    cli_run(c, "\"$mpbench\" run one.yaml --repeat 1 --trace trace.json");
    cli_assert_status(c, 0);
    json_t *all = read_trace(c);
    for (int cell = 1; cell <= 2; cell++) {
        const reader r = read_cell(all, cell);
        char sql[400];
        assert_int_equal(r.depth, 0);
        assert_int_equal(r.generations, 1);
        assert_int_equal(r.steps, 2);
        assert_true(r.modules > 20);
        /* stage=bytes, of the trace and of the pool's own account */
        snprintf(
            sql, sizeof sql,
            "SELECT group_concat(stage || '=' || CAST(round(value * 1048576) AS INTEGER), ' ') "
            "FROM (SELECT stage, value FROM metric WHERE cell = %d AND name = "
            "'activations_mib' AND module = '' AND stage <> 'load' ORDER BY CASE stage WHEN "
            "'text_encode' THEN 1 WHEN 'denoise' THEN 2 ELSE 3 END)",
            cell);
        cli_assert_query(c, sql, r.stages);
        snprintf(sql, sizeof sql, "SELECT sum(calls) FROM op_profile WHERE cell = %d", cell);
        char ops[20];
        snprintf(ops, sizeof ops, "%d", r.ops);
        cli_assert_query(c, sql, ops);
    }
    json_decref(all);
}

static void test_trace__has_warm_ups_and_repeats_and_no_reference(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "precision: {default: bf16}\nrepeat: 2\nwarmup: 1\n");
    cli_run(c, "\"$mpbench\" run one.yaml --trace trace.json");
    cli_assert_status(c, 0);
    json_t *all = read_trace(c);
    const reader r = read_cell(all, 1);
    assert_int_equal(r.generations, 3);
    assert_int_equal(r.steps, 6);
    size_t i;
    json_t *event;
    json_array_foreach (json_object_get(all, "traceEvents"), i, event)
        assert_true(number(event, "pid") <= 1);
    json_decref(all);
}

/* The module that was open when the process died is the last thing in the file. */
static void test_trace__of_a_crash_is_complete_and_shows_where_it_was(void **state)
{
    static const char *const faults[] = {"segv", "abort"};
    cli *c = *state;

    cli_scenario(c, "one", "reference: off\n");
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        cli_run(c,
                "rm -f mpbench.db*; MPBENCH_FAULT=%s@transformer.transformer_blocks.1.attn1.to_q "
                "\"$mpbench\" run one.yaml --trace trace.json",
                faults[i]);
        cli_assert_status(c, 3);
        json_t *all = read_trace(c);
        const reader r = read_cell(all, 1);
        assert_true(r.depth > 3);
        assert_string_equal(word(r.open[r.depth - 1], "name"), "attn1");
        assert_string_equal(word(r.open[r.depth - 2], "name"), "transformer_blocks.1");
        json_decref(all);
    }
}

static void test_trace__of_a_cell_or_a_run_that_is_killed_is_complete(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "reference: off\nmatrix: {precision.default: [fp32, bf16]}\n");
    cli_run(c, "MPBENCH_FAULT=kill@transformer.transformer_blocks.1.attn1.to_q \"$mpbench\" run "
               "one.yaml --trace trace.json");
    cli_assert_status(c, 3);
    json_t *all = read_trace(c);
    assert_true(read_cell(all, 1).ops > 20);
    assert_true(read_cell(all, 2).ops > 20); /* goes on behind it */
    json_decref(all);
    cli_run(c, "\"$mpbench\" run one.yaml --repeat 1000 --trace trace.json & pid=$!; "
               "while [ $(stat -c %%s trace.json) -lt 300000 ]; do sleep 0.05; done; "
               "kill -KILL $pid; wait $pid; sleep 0.3");
    all = read_trace(c);
    assert_true(read_cell(all, 3).ops > 500); /* the third of the database */
    json_decref(all);
}

static void test_trace__of_a_library_has_stages_and_steps(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "reference: off\n");
    cli_run(c, "\"$mpbench\" run one.yaml " FAKE "--trace trace.json");
    cli_assert_status(c, 0);
    json_t *all = read_trace(c);
    const reader r = read_cell(all, 1);
    assert_string_equal(r.stages, "text_encode=0 denoise=0 decode=0");
    assert_int_equal(r.steps, 2);
    assert_int_equal(r.ops, 0);
    json_decref(all);
    cli_run(c, "FAKE=segv@denoise \"$mpbench\" run one.yaml " FAKE "--trace trace.json");
    cli_assert_status(c, 3);
    all = read_trace(c);
    assert_string_equal(read_cell(all, 2).stages, "text_encode=0 denoise=0");
    json_decref(all);
}

static void test_trace__that_cannot_be_written_stops_the_run_before_it_begins(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "");
    cli_run(c, "\"$mpbench\" run one.yaml --trace nowhere/trace.json");
    cli_assert_status(c, 3);
    cli_assert_has(c->err, "--trace nowhere/trace.json: No such file or directory");
    cli_assert_query(c, "SELECT count(*) FROM run", "0");
    cli_run(c, "\"$mpbench\" run one.yaml --trace /dev/full");
    cli_assert_status(c, 3);
    cli_assert_has(c->err, "/dev/full: is no regular file");
}

/* ---- ops ------------------------------------------------------------------------------------ */

static void test_ops__of_a_native_cell_add_up_to_its_last_generation(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "precision: {default: bf16}\nrepeat: 2\nwarmup: 1\n");
    cli_run(c, "\"$mpbench\" run one.yaml");
    cli_assert_status(c, 0);
    cli_assert_query(c, "SELECT group_concat(DISTINCT stage) FROM op_profile",
                     "decode,denoise,text_encode");
    cli_assert_query(c, "SELECT count(*) > 0 FROM op_profile WHERE op <> ''", "1");
    /* what is smaller has no row of its own */
    cli_assert_query(c,
                     "SELECT min(seconds) >= 0.005 * (SELECT seconds FROM sample WHERE stage = "
                     "'total' AND repeat = 1) FROM op_profile WHERE op <> ''",
                     "1");
    cli_assert_query(c,
                     "SELECT sum(seconds) <= (SELECT seconds FROM sample WHERE stage = 'total' AND "
                     "repeat = 1) FROM op_profile",
                     "1");
    cli_assert_query(c,
                     "SELECT count(*) FROM metric WHERE stage = 'machine' AND value > 0 AND name "
                     "IN ('roofline_fp32', 'roofline_copy')",
                     "2");
    cli_run(c, "\"$mpbench\" show 1 --ops");
    cli_assert_status(c, 0);
    cli_assert_has(c->out, "cell 1  one/");
    cli_assert_has(c->out, "roofline %\n");
    cli_assert_has(c->out, "(between ops)");
    cli_run(c, "\"$mpbench\" show 1 --ops --format json");
    json_t *all = json_loads(c->out, 0, NULL);
    double share = 0;
    size_t i;
    json_t *row;
    json_array_foreach (json_object_get(all, "ops"), i, row)
        share += number(row, "share");
    assert_float_equal(share, 1, 1e-6);
    json_decref(all);
}

static void test_ops__of_a_library_are_not_known(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "reference: off\n");
    cli_run(c, "\"$mpbench\" run one.yaml " FAKE);
    cli_assert_status(c, 0);
    cli_run(c, "\"$mpbench\" show 1 --ops");
    cli_assert_status(c, 2);
    cli_assert_has(c->err, "cell 1 has no profile of ops: only the native engine makes one");
    cli_assert_query(c, "SELECT count(*) FROM metric WHERE stage = 'machine'", "0");
}

/* ---- counters ------------------------------------------------------------------------------- */

/* Counts that every kernel has, under the names of those that not every machine has. */
static void test_counters__are_recorded_beside_the_time(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "reference: off\nrepeat: 3\nwarmup: 1\n");
    cli_run(c, "MPBENCH_COUNTERS=software \"$mpbench\" run one.yaml --threads 2");
    cli_assert_status(c, 0);
    cli_run(c, "sqlite3 mpbench.db \"SELECT name FROM metric WHERE stage = 'run' AND unit = "
               "'count'\"");
    if (!strstr(c->out, "cycles"))
        skip(); /* a kernel that lends not even these: perf_event_paranoid of 3 */
    cli_assert_has(c->out, "cache_misses\ncycles\ninstructions\n");
    /* "cycles" are nanoseconds of CPU time here: of two threads, at most twice the time and not
     * less than the one that works when the machine is busy */
    cli_assert_query(c,
                     "SELECT value > 0 AND value < 2.2e9 * (SELECT max(seconds) FROM sample WHERE "
                     "stage = 'total') FROM metric WHERE name = 'cycles'",
                     "1");
}

/* ---- callgrind ------------------------------------------------------------------------------ */

/* Stands in for valgrind: two processes, of which each leaves its total; then exit status $END. */
static void write_valgrind(const cli *c)
{
    cli_write(c, "valgrind",
              "#!/bin/sh\n"
              "echo \"$MPBENCH_ISA $*\" >asked.txt\n"
              "for a; do case $a in --callgrind-out-file=*) f=${a#*=};; esac; done\n"
              "echo 'totals: 1000' >\"${f%%p}1\"; echo 'totals: 234' >\"${f%%p}2\"\n"
              "echo 'the last words'; exit ${END:-0}\n");
}

static void test_callgrind__counts_the_cells_repro_line_once_more(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one",
                 "reference: off\nrepeat: 3\nmatrix: {precision.default: [fp32, bf16]}\n");
    write_valgrind(c);
    cli_run(c, "chmod +x valgrind; PATH=\"$PWD:$PATH\" MPBENCH_COUNTERS=software \"$mpbench\" run "
               "one.yaml --only precision.default=bf16 --callgrind");
    cli_assert_status(c, 0);
    cli_assert_query(c,
                     "SELECT value || ' ' || unit LIKE '1234.0 Ir %' FROM metric WHERE name = "
                     "'instructions'",
                     "1");
    cli_assert_query(c, "SELECT group_concat(repeat) FROM sample WHERE stage = 'total'", "0,1,2");
    cli_run(c, "cat asked.txt; ls mpbench.db.cache");
    cli_assert_has(c->out, "exe run one.yaml --only precision.default=bf16 --repeat 1 --warmup 0 "
                           "--threads 1 --set reference=off");
    cli_assert_has(c->out, "--tool=callgrind --toggle-collect=generate_once");
    cli_run(c, "MPBENCH_ISA=base PATH=\"$PWD:$PATH\" \"$mpbench\" run one.yaml --callgrind");
    cli_run(c, "cat asked.txt");
    cli_assert_has(c->out, "base --quiet");
}

static void test_callgrind__a_count_that_fails_is_a_warning(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "reference: off\n");
    write_valgrind(c);
    cli_run(c,
            "chmod +x valgrind; END=9 PATH=\"$PWD:$PATH\" \"$mpbench\" run one.yaml --callgrind");
    cli_assert_status(c, 0);
    cli_assert_query(c, "SELECT warnings FROM cell",
                     "no count of instructions: mpbench under valgrind ended with status 9: the "
                     "last words");
    cli_assert_query(c, "SELECT count(*) FROM metric WHERE unit LIKE 'Ir%'", "0");
}

static void test_callgrind__says_what_it_needs(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "");
    cli_run(c, "PATH=/nowhere; \"$mpbench\" run one.yaml --callgrind");
    cli_assert_status(c, 3);
    cli_assert_has(c->err, "--callgrind: there is no valgrind in PATH; install it");
    cli_run(c, "\"$mpbench\" run one.yaml " FAKE "--callgrind");
    cli_assert_status(c, 2);
    cli_assert_has(c->err, "--callgrind: counts the instructions of the native engine");
}

/* The real one, on as little as there is to generate. */
static void test_callgrind__counts_the_generation_alone(void **state)
{
    cli *c = *state;

#ifdef __SANITIZE_ADDRESS__
    skip(); /* valgrind does not run what AddressSanitizer watches */
#endif
    cli_run(c, "command -v valgrind");
    if (c->status)
        skip();
    cli_scenario(c, "one", "reference: off\n");
    cli_run(c, "\"$mpbench\" run one.yaml --callgrind --set inputs.steps=1 --set "
               "inputs.complex_human_instruction=null --set inputs.max_sequence_length=16");
    cli_assert_status(c, 0);
    /* FLOPs are known, and a vector instruction does at most 16 (FMA of 8 floats), a scalar one at
     * least a fraction of one: a generation with the rest of the program would be above */
    cli_assert_query(c,
                     "SELECT value BETWEEN (SELECT sum(flops) FROM op_profile) / 16 AND (SELECT "
                     "sum(flops) + 4 * sum(bytes) FROM op_profile) FROM metric WHERE name = "
                     "'instructions'",
                     "1");
}

static void test_doctor__tells_the_roofline_and_whether_there_are_counters(void **state)
{
    cli *c = *state;

    cli_run(c, "\"$mpbench\" doctor");
    cli_assert_status(c, 0);
    cli_assert_has(c->out, "ok   roofline       fp32 ");
    cli_assert_has(c->out, " counters       ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, cli_setup, cli_teardown)
        TEST(test_trace__ops_lie_in_modules_in_stages_and_memory_has_the_pools_peak),
        TEST(test_trace__has_warm_ups_and_repeats_and_no_reference),
        TEST(test_trace__of_a_crash_is_complete_and_shows_where_it_was),
        TEST(test_trace__of_a_cell_or_a_run_that_is_killed_is_complete),
        TEST(test_trace__of_a_library_has_stages_and_steps),
        TEST(test_trace__that_cannot_be_written_stops_the_run_before_it_begins),
        TEST(test_ops__of_a_native_cell_add_up_to_its_last_generation),
        TEST(test_ops__of_a_library_are_not_known),
        TEST(test_counters__are_recorded_beside_the_time),
        TEST(test_callgrind__counts_the_cells_repro_line_once_more),
        TEST(test_callgrind__a_count_that_fails_is_a_warning),
        TEST(test_callgrind__says_what_it_needs),
        TEST(test_callgrind__counts_the_generation_alone),
        TEST(test_doctor__tells_the_roofline_and_whether_there_are_counters),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
