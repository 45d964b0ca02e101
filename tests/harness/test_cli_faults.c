/* Whatever happens to the process of a cell becomes a recorded result; the parent survives. */
#include "tests/harness/cli.h"

#define MODULE "transformer.transformer_blocks.1.attn1.to_q"

static void run_with_fault(cli *c, const char *kind, const char *more)
{
    cli_scenario(c, "one", "");
    cli_run(c, "MPBENCH_FAULT=%s@" MODULE " \"$mpbench\" run one.yaml --set reference=off %s", kind,
            more);
}

/* status|outcome|module of the one cell */
static void assert_result(cli *c, const char *expected)
{
    cli_assert_query(c, "SELECT status || '|' || outcome || '|' || module FROM cell", expected);
}

static void test_fault__a_segmentation_fault_is_a_result(void **state)
{
    cli *c = *state;

    run_with_fault(c, "segv", "");
    cli_assert_status(c, 3);
    cli_assert_has(c->out, "killed by signal 11");
    assert_result(c, "crash|crash|" MODULE);
    cli_assert_query(c, "SELECT signal || stage || step FROM cell", "11denoise0");
}

static void test_fault__a_kill_from_outside_names_the_last_op(void **state)
{
    cli *c = *state;

    run_with_fault(c, "kill", "");
    cli_assert_status(c, 3);
    assert_result(c, "crash|crash|" MODULE);
    cli_assert_query(c, "SELECT signal || op FROM cell", "9linear");
}

static void test_fault__an_abort_is_a_result(void **state)
{
    cli *c = *state;

    run_with_fault(c, "abort", "");
    cli_assert_status(c, 3);
    assert_result(c, "crash|crash|" MODULE);
}

static void test_fault__a_stack_overflow_is_a_result(void **state)
{
    cli *c = *state;

    run_with_fault(c, "stack", "");
    cli_assert_status(c, 3);
    assert_result(c, "crash|crash|" MODULE);
}

static void test_fault__an_early_exit_is_a_result(void **state)
{
    cli *c = *state;

    run_with_fault(c, "exit", "");
    cli_assert_status(c, 3);
    cli_assert_has(c->out, "ended with status 7");
    assert_result(c, "crash|crash|" MODULE);
}

static void test_fault__a_hang_ends_at_the_timeout(void **state)
{
    cli *c = *state;

    run_with_fault(c, "hang", "--set timeout=2s");
    cli_assert_status(c, 3);
    cli_assert_has(c->out, "no result after 2 s");
    assert_result(c, "timeout|timeout|" MODULE);
}

static void test_fault__memory_beyond_the_limit_is_a_result(void **state)
{
    cli *c = *state;

    run_with_fault(c, "oom", "--set memory=256MiB");
    cli_assert_status(c, 3);
    cli_assert_query(c, "SELECT status || outcome FROM cell", "oomoom");
}

static void test_fault__nan_is_traced_to_its_first_module(void **state)
{
    cli *c = *state;

    run_with_fault(c, "nan", "");
    cli_assert_status(c, 3);
    assert_result(c, "nonfinite|nan_first|" MODULE);
    cli_assert_query(c, "SELECT stage || step || op FROM cell", "denoise0linear");
}

static void test_fault__an_activation_limit_names_the_module(void **state)
{
    cli *c = *state;

    cli_scenario(c, "small", "memory: 100KiB\nreference: off\n");
    cli_run(c, "\"$mpbench\" run small.yaml");
    cli_assert_status(c, 3);
    cli_assert_query(c, "SELECT status || (module != '') FROM cell", "oom1");
}

static void test_fault__the_other_cells_still_run(void **state)
{
    cli *c = *state;

    cli_scenario(c, "three", "matrix: {memory: [1GiB, 100KiB, 2GiB]}\nreference: off\n");
    cli_run(c, "\"$mpbench\" run three.yaml");
    cli_assert_status(c, 3);
    cli_assert_query(c, "SELECT group_concat(status) FROM cell", "ok,oom,ok");
}

static void test_overflow__is_found_in_fp16_and_not_in_bf16(void **state)
{
    cli *c = *state;

    cli_write(
        c, "overflow.yaml",
        "name: overflow\npipeline: sana\ncheckpoint: ${MPBENCH_CHECKPOINTS}/sana-overflow\n"
        "inputs: {prompt: a photo of a red fox, height: 64, width: 64, steps: 2, seed: 7, "
        "use_resolution_binning: false}\n"
        "matrix: {precision.default: [fp16, bf16]}\n"
        "expect: [{when: {precision.default: fp16}, status: nonfinite, outcome: overflow}]\n");
    cli_run(c, "\"$mpbench\" run overflow.yaml");
    cli_assert_status(c, 0);
    cli_assert_has(c->out, "transformer.transformer_blocks.1.attn2.to_v");
    cli_assert_query(c, "SELECT group_concat(status) FROM cell", "nonfinite,ok");
    cli_assert_query(c, "SELECT module || step FROM cell WHERE id = 1",
                     "transformer.transformer_blocks.1.attn2.to_v0");
}

static void test_interrupt__leaves_a_valid_database_and_resumes(void **state)
{
    cli *c = *state;

    cli_scenario(c, "four", "matrix: {inputs.seed: [1, 2, 3, 4]}\nreference: off\ntimeout: 30s\n");
    /* The third cell hangs until the interrupt; the file makes the fault come and go. */
    cli_run(c,
            "\"$mpbench\" run four.yaml --only inputs.seed=1 >/dev/null; "
            "MPBENCH_FAULT=hang@vae.decoder.conv_out \"$mpbench\" run four.yaml & pid=$!; sleep 2; "
            "kill -INT $pid; wait $pid");
    cli_assert_status(c, 3);
    cli_assert_has(c->out, "verdict: INTERRUPTED exit=3");
    cli_assert_has(c->err, "mpbench run four.yaml --resume");
    cli_assert_query(c, "PRAGMA integrity_check", "ok");
    cli_assert_query(c, "SELECT group_concat(status) FROM cell WHERE run = 2", "interrupted");
    cli_run(c, "\"$mpbench\" run four.yaml --resume");
    cli_assert_status(c, 0);
    cli_assert_has(c->err, "resuming run 2");
    cli_assert_query(c, "SELECT count(*) FROM cell WHERE run = 2 AND status = 'ok'", "4");
    cli_run(c, "\"$mpbench\" run four.yaml --resume");
    cli_assert_status(c, 0);
    cli_assert_has(c->out, "from before");
    cli_assert_query(c, "SELECT count(*) FROM cell WHERE run = 2", "5");
}

static void test_kill__of_the_parent_loses_the_cell_in_flight_only(void **state)
{
    cli *c = *state;

    cli_scenario(c, "two", "matrix: {inputs.seed: [1, 2]}\nreference: off\n");
    cli_run(c,
            "MPBENCH_FAULT=hang@vae.decoder.conv_out \"$mpbench\" run two.yaml & pid=$!; sleep 2; "
            "kill -KILL $pid; wait $pid; sleep 0.5; pgrep -P $pid");
    assert_string_equal(c->out, ""); /* no child is left behind */
    cli_assert_query(c, "SELECT status || (repro LIKE 'mpbench run%') FROM cell", "running1");
    cli_run(c, "\"$mpbench\" run two.yaml --resume");
    cli_assert_status(c, 0);
    cli_assert_query(c, "SELECT group_concat(status) FROM cell", "interrupted,ok,ok");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, cli_setup, cli_teardown)
    const struct CMUnitTest tests[] = {
        T(test_fault__a_segmentation_fault_is_a_result),
        T(test_fault__a_kill_from_outside_names_the_last_op),
        T(test_fault__an_abort_is_a_result),
        T(test_fault__a_stack_overflow_is_a_result),
        T(test_fault__an_early_exit_is_a_result),
        T(test_fault__a_hang_ends_at_the_timeout),
        T(test_fault__memory_beyond_the_limit_is_a_result),
        T(test_fault__nan_is_traced_to_its_first_module),
        T(test_fault__an_activation_limit_names_the_module),
        T(test_fault__the_other_cells_still_run),
        T(test_overflow__is_found_in_fp16_and_not_in_bf16),
        T(test_interrupt__leaves_a_valid_database_and_resumes),
        T(test_kill__of_the_parent_loses_the_cell_in_flight_only),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
