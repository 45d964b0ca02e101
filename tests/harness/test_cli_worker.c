/* Engines outside: a worker's results are recorded like the native engine's, and whatever a worker
 * does wrong is a result, too.  The worker is tests/fixtures/workers/fake_worker.py. */
#include "tests/harness/cli.h"

#define RUN "\"$mpbench\" run one.yaml --engine \"$fixtures/workers/fake_worker.py\" "

/* Runs the one-cell scenario with FAKE=what. */
static void run_fake(cli *c, const char *what, const char *more)
{
    cli_scenario(c, "one", "");
    cli_run(c, "FAKE='%s' " RUN "%s", what, more);
}

/* status|outcome|error has the text of the newest cell */
static void assert_cell(cli *c, const char *status, const char *outcome, const char *error)
{
    char expected[64];

    snprintf(expected, sizeof expected, "%s|%s", status, outcome);
    cli_assert_query(c,
                     "SELECT status || '|' || coalesce(outcome, '') FROM cell ORDER BY id DESC "
                     "LIMIT 1",
                     expected);
    cli_run(c, "sqlite3 mpbench.db 'SELECT error FROM cell ORDER BY id DESC LIMIT 1'");
    cli_assert_has(c->out, error);
}

/* ---- as it should be ------------------------------------------------------------------------ */

static void test_worker__its_results_are_recorded_like_native_ones(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "precision: {default: bf16}\nrepeat: 3\nwarmup: 1\n");
    cli_run(c, RUN "--dump out");
    cli_assert_status(c, 0);
    cli_assert_query(c, "SELECT engine || device FROM run", "fakecpu");
    cli_assert_query(c, "SELECT value FROM run_environment WHERE key = 'fake.color'", "green");
    cli_assert_query(c, "SELECT value FROM run_environment WHERE key = 'fake.version'", "1.2.3");
    cli_assert_query(c, "SELECT group_concat(repeat) FROM sample WHERE stage = 'total'",
                     "-1,0,1,2");
    cli_assert_query(c, "SELECT group_concat(stage, ' ') FROM sample WHERE repeat = 0",
                     "decode denoise load text_encode total");
    cli_assert_query(c, "SELECT count(*) FROM output", "3");
    cli_assert_query(c, "SELECT dtype || shape FROM output WHERE name = 'latents_001'",
                     "bf16[1, 2, 2, 2]");
    /* seed 7, 8 values from 8 on, 0.01 apart: moved by 0.01 each */
    cli_assert_query(c, "SELECT round(value, 5) FROM metric WHERE name = 'latent_rel_l2'",
                     "0.00124");
    cli_assert_query(c, "SELECT value > 0 FROM metric WHERE name = 'floor_latent_rel_l2'", "1");
    cli_assert_query(c,
                     "SELECT value > (SELECT value FROM metric WHERE name = 'idle_mib') - 1 "
                     "FROM metric WHERE name = 'peak_mib'",
                     "1");
    cli_run(c, "ls out/one/default");
    cli_assert_has(c->out, "image.png\noutputs.safetensors");
}

static void test_worker__the_native_run_can_be_the_reference(void **state)
{
    cli *c = *state;

    run_fake(c, "", "--reference native");
    cli_assert_status(c, 0);
    cli_assert_query(c, "SELECT count(*) FROM metric WHERE name = 'latent_rel_l2'", "0");
    cli_run(c, "\"$mpbench\" show 1");
    cli_assert_has(c->out, "does not have the reference's shape");
    cli_assert_has(c->out, "--reference native");
}

static void test_worker__repro_lines_name_the_engine(void **state)
{
    cli *c = *state;

    run_fake(c, "", "--python python3 --set reference=off");
    cli_assert_status(c, 0);
    cli_run(
        c,
        "sh -c \"$(sqlite3 mpbench.db 'SELECT repro FROM cell' | sed \"s|^mpbench|$mpbench|\")\"");
    cli_assert_status(c, 0);
    cli_assert_query(c, "SELECT group_concat(DISTINCT engine) || count(*) FROM run", "fake2");
}

static void test_worker__one_can_serve_the_whole_run(void **state)
{
    cli *c = *state;
    static const char more[] = "matrix: {precision.default: [fp32, bf16]}\n";

    cli_scenario(c, "one", more);
    cli_run(c, "FAKE_STARTS=cold.txt " RUN "&& wc -l < cold.txt");
    cli_assert_status(c, 0);
    cli_assert_has(c->out, "\n4\n"); /* two cells, their reference, its noise floor */
    cli_run(c, "FAKE_STARTS=warm.txt MPBENCH_CACHE=c2 " RUN "--keep-worker && wc -l < warm.txt");
    cli_assert_status(c, 0);
    cli_assert_has(c->out, "\n1\n");
}

static void test_worker__a_kept_one_that_dies_is_followed_by_a_fresh_one(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "matrix: {inputs.seed: [1, 2, 3]}\nreference: off\n");
    cli_run(c, "FAKE=exit@decode FAKE_STARTS=starts.txt " RUN "--keep-worker; wc -l < starts.txt");
    cli_assert_has(c->out, "\n3\n");
    cli_assert_query(c, "SELECT group_concat(status) FROM cell", "crash,crash,crash");
}

static void test_worker__noise_cannot_disturb_the_protocol(void **state)
{
    cli *c = *state;

    run_fake(c, "noise@denoise", "--set reference=off");
    cli_assert_status(c, 0);
    cli_assert_query(c, "SELECT count(*) FROM output", "3");
}

static void test_worker__expectations_can_ask_for_an_engine_and_its_version(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one",
                 "expect:\n  - {engine: native, status: crash}\n"
                 "  - {engine: fake < 1.3, error: expected scalar type}\nreference: off\n");
    cli_run(c, "FAKE=dtype@denoise " RUN);
    cli_assert_status(c, 0);
    cli_run(c, "FAKE=dtype@denoise FAKE_VERSION=1.3 " RUN);
    cli_assert_status(c, 3);
    cli_run(c, "FAKE_VERSION=1.3 " RUN);
    cli_assert_status(c, 0);
}

static void test_worker__another_version_is_another_run_for_resume(void **state)
{
    cli *c = *state;

    run_fake(c, "", "--set reference=off");
    cli_run(c, RUN "--set reference=off --resume");
    cli_assert_has(c->err, "resuming run 1");
    cli_run(c, "FAKE_VERSION=2 " RUN "--set reference=off --resume");
    cli_assert_has(c->err, "nothing to resume");
}

/* ---- pipelines that only workers run -------------------------------------------------------- */

#define VACE                                                                                   \
    "name: one\npipeline: wan-vace\ncheckpoint: wan\n"                                         \
    "inputs: {prompt: a fox, video: 'f*.png', height: 8, width: 16, num_frames: 5, steps: 2, " \
    "seed: 7}\n"

static void test_worker__files_of_an_input_are_found_and_belong_to_the_reference(void **state)
{
    cli *c = *state;

    cli_write(c, "one.yaml", VACE);
    cli_run(c, "mkdir wan && echo 2 > f2.png && echo 1 > f1.png && " RUN);
    cli_assert_status(c, 0);
    cli_assert_has(c->out, "a frame from f1.png\n");
    cli_assert_query(c, "SELECT replace(warnings, char(10), ',') FROM cell",
                     "a frame from f1.png,a frame from f2.png");
    cli_run(c, RUN);
    cli_assert_query(c, "SELECT count(*) FROM reference", "1");
    cli_run(c, "echo 3 > f2.png && " RUN); /* another picture under the same name */
    cli_assert_query(c, "SELECT count(*) FROM reference", "2");
    cli_run(c, "\"$mpbench\" run one.yaml --engine \"$fixtures/workers/fake_worker.py\" "
               "--set 'inputs.mask=[f1.png, nothing.png]'");
    cli_assert_status(c, 2);
    cli_assert_has(c->err, "expected a file that is there, a glob that finds some");
    cli_run(c, "\"$mpbench\" run one.yaml");
    cli_assert_status(c, 2);
    cli_assert_has(c->err, "the native engine does not run the pipeline wan-vace");
    cli_run(c, RUN "--reference native");
    cli_assert_status(c, 2);
    cli_assert_has(c->err, "--reference native: the native engine does not run");
}

/* Against the stub of its package that tests/harness/engines has. */
static void test_worker__diffsynth_runs_wan_vace_with_fp8_storage(void **state)
{
    cli *c = *state;

    cli_write(c, "one.yaml",
              VACE "precision: {default: bf16, storage: {transformer: fp8_e4m3}}\n"
                   "reference: off\n");
    cli_run(c, "mkdir -p wan/google/umt5-xxl && cd wan && touch Wan2.1_VAE.pth "
               "diffusion_pytorch_model.safetensors models_t5_umt5-xxl-enc-bf16.pth && cd .. && "
               "for i in 1 2 3 4 5; do printf 16x8 > f$i.png; done && STUB_LOG=calls "
               "\"$mpbench\" run one.yaml --engine diffsynth --pythonpath "
               "\"$source/tests/harness/engines/stubs\" && cat calls");
    cli_assert_status(c, 0);
    cli_assert_has(c->out, "float8_e4m3fn");
    cli_assert_query(c,
                     "SELECT engine || e.value FROM run JOIN run_environment e ON e.key = "
                     "'diffsynth.version'",
                     "diffsynth2.1.12");
    cli_assert_query(c, "SELECT group_concat(name, ' ') FROM output",
                     "frames initial_noise latents_000 latents_001 prompt_embeds");
    cli_assert_query(c, "SELECT shape FROM output WHERE name = 'frames'", "[5, 3, 8, 16]");
    cli_assert_query(c, "SELECT group_concat(width || 'x' || height) FROM picture", "16x8");
}

/* ---- what goes wrong ------------------------------------------------------------------------ */

static void test_worker__an_exception_is_recorded_with_its_place(void **state)
{
    cli *c = *state;

    run_fake(c, "dtype@denoise", "");
    cli_assert_status(c, 3);
    assert_cell(c, "error", "dtype_mismatch", "expected scalar type BFloat16 but found Float");
    cli_assert_query(c, "SELECT module || '|' || exception || '|' || stage || step FROM cell",
                     "transformer.attention|RuntimeError|denoise0");
    cli_assert_query(c, "SELECT frame GLOB '*fake_worker.py:[0-9]* in forward' FROM cell", "1");
    cli_assert_query(c, "SELECT want || ' ' || got FROM cell", "BFloat16 Float");
    run_fake(c, "exception@decode", "");
    assert_cell(c, "error", "exception", "the library's own trouble");
    cli_assert_query(c, "SELECT exception FROM cell ORDER BY id DESC LIMIT 1",
                     "__main__.LibraryError");
}

static void test_worker__what_it_told_before_a_failure_is_measured(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "precision: {default: bf16}\n");
    cli_run(c, "MPBENCH_CACHE=c1 " RUN); /* makes the reference */
    cli_run(c, "MPBENCH_CACHE=c1 FAKE=exit@decode " RUN);
    cli_assert_status(c, 3);
    cli_assert_query(c,
                     "SELECT round(value, 5) FROM metric WHERE name = 'latent_rel_l2' AND cell = "
                     "2",
                     "0.00124");
}

static void test_worker__garbage_is_quoted(void **state)
{
    cli *c = *state;

    run_fake(c, "garbage@denoise", "");
    cli_assert_status(c, 3);
    assert_cell(c, "error", "engine", "no event of the protocol: 'Loading pipeline components");
    run_fake(c, "garbage@start", "");
    cli_assert_status(c, 3);
    assert_cell(c, "error", "engine", "its first line is no event of the protocol: 'Loading");
}

static void test_worker__its_end_is_a_result_with_its_last_words(void **state)
{
    cli *c = *state;

    run_fake(c, "exit@decode", "");
    cli_assert_status(c, 3);
    assert_cell(c, "crash", "crash", "ended with status 7");
    cli_assert_query(c, "SELECT stage FROM cell", "decode");
    cli_run(c, "\"$mpbench\" show 1");
    cli_assert_has(c->out, "the last words of the library");
    run_fake(c, "segv@denoise", "");
    assert_cell(c, "crash", "crash", "killed by signal 11");
    cli_run(c, "\"$mpbench\" show 2");
    cli_assert_has(c->out, "Fatal Python error: Segmentation fault");
}

static void test_worker__a_hang_ends_at_the_timeout_and_says_where(void **state)
{
    cli *c = *state;

    run_fake(c, "hang@denoise", "--set timeout=2s");
    cli_assert_status(c, 3);
    assert_cell(c, "timeout", "timeout", "no result after 2 s");
    cli_assert_query(c, "SELECT stage || step FROM cell", "denoise0");
    cli_run(c, "\"$mpbench\" show 1");
    cli_assert_has(c->out, "in trouble");
}

static void test_worker__memory_beyond_the_limit_is_a_result(void **state)
{
    cli *c = *state;

    run_fake(c, "oom@denoise", "--set memory=64MiB");
    cli_assert_status(c, 3);
    assert_cell(c, "oom", "oom", "MemoryError");
}

static void test_worker__nan_is_a_result_with_its_module(void **state)
{
    cli *c = *state;

    run_fake(c, "nan@latents_001", "--set reference=off");
    cli_assert_status(c, 3);
    assert_cell(c, "nonfinite", "nan_first", "come out of transformer.proj_out");
}

static void test_worker__a_tensor_that_is_not_as_told_is_refused(void **state)
{
    cli *c = *state;

    run_fake(c, "lie@latents_001", "");
    cli_assert_status(c, 3);
    assert_cell(c, "error", "engine", "found [1, 2, 2], expected [1, 2, 2, 2] as after the first");
    run_fake(c, "lie@latents_000", "");
    assert_cell(c, "error", "engine", "'latents_000' is not as its protocol demands");
    run_fake(c, "shape@latents_001", "");
    assert_cell(c, "error", "engine", "found [1, 2, 4, 1], expected [1, 2, 2, 2]");
    run_fake(c, "lie@image", "");
    assert_cell(c, "error", "engine", "found [1, 3, 4], expected [N, 3, H, W]");
    run_fake(c, "file@latents_000", "");
    assert_cell(c, "error", "engine", "latents_000.safetensors");
}

static void test_worker__a_file_that_is_no_fp32_tensor_is_refused(void **state)
{
    cli *c = *state;

    run_fake(c, "double@latents_000", "");
    cli_assert_status(c, 3);
    assert_cell(c, "error", "engine", "latents_000.safetensors holds F64, expected F32");
    run_fake(c, "unpadded@latents_000", "");
    assert_cell(c, "error", "engine", "a header that is not padded to 8 bytes");
    run_fake(c, "hash@image", "");
    assert_cell(c, "error", "engine", "told with the sha256 ");
}

static void test_worker__done_without_a_picture_is_no_success(void **state)
{
    cli *c = *state;

    run_fake(c, "silent", "");
    cli_assert_status(c, 3);
    assert_cell(c, "error", "engine", "gave neither an image nor frames");
    run_fake(c, "untold@image", "");
    assert_cell(c, "nonfinite", "nan_first", "does not say where they come from");
}

/* One event too many would be the answer to the next request, and so on to the end of the run. */
static void test_worker__a_stray_event_shifts_no_result(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "matrix: {inputs.seed: [1, 2, 3]}\nreference: off\n");
    cli_run(c, RUN "--keep-worker");
    cli_assert_status(c, 0);
    cli_run(c, "FAKE=stray " RUN "--keep-worker");
    cli_assert_query(c,
                     "SELECT count(*) FROM cell a JOIN cell b ON b.key = a.key AND b.run = 2 JOIN "
                     "output x ON x.cell = a.id JOIN output y ON y.cell = b.id AND y.name = "
                     "x.name WHERE a.run = 1 AND x.sha256 != y.sha256",
                     "0");
    cli_assert_query(c,
                     "SELECT count(*) FROM cell WHERE status = 'ok' AND id NOT IN (SELECT cell "
                     "FROM output)",
                     "0");
}

/* Whoever holds the pipe when the worker is gone, the run goes on. */
static void test_worker__neither_an_orphan_nor_a_closed_pipe_holds_the_run_up(void **state)
{
    cli *c = *state;

    run_fake(c, "orphan@decode", "--set reference=off");
    cli_assert_status(c, 3);
    assert_cell(c, "crash", "crash", "ended with status 3");
    cli_assert_query(c, "SELECT (julianday(ended) - julianday(started)) * 86400 < 15 FROM cell",
                     "1");
    run_fake(c, "close@decode", "--set reference=off");
    assert_cell(c, "crash", "crash", "closed its pipe, had no result and lived on");
}

static void test_worker__a_library_that_changes_meanwhile_is_noticed(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "matrix: {inputs.seed: [1, 2]}\nreference: off\n");
    cli_run(c, "FAKE=newer FAKE_STARTS=starts.txt " RUN);
    cli_assert_status(c, 3);
    cli_assert_query(c, "SELECT group_concat(status) FROM cell", "ok,error");
    assert_cell(c, "error", "engine", "its library changed while the run went on (it was fake 1.1");
}

static void test_worker__it_cannot_call_itself_native(void **state)
{
    cli *c = *state;

    run_fake(c, "native", "");
    cli_assert_status(c, 3);
    assert_cell(c, "error", "engine", "not native");
}

static void test_worker__many_warnings_cost_no_result(void **state)
{
    cli *c = *state;

    run_fake(c, "chatty", "--set reference=off");
    cli_assert_status(c, 0);
    cli_assert_query(c, "SELECT warnings LIKE '%and more warnings than are kept' FROM cell", "1");
}

/* A nightly whose library is gone must not be green because it expects errors. */
static void test_worker__its_own_failure_fulfils_no_expectation(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "expect: [{engine: fake_worker.py < 9, status: error}]\n");
    cli_run(c, "FAKE=early " RUN);
    cli_assert_status(c, 3);
    cli_scenario(c, "one", "expect: [{status: error}]\n");
    cli_run(c, "FAKE=early " RUN);
    cli_assert_status(c, 3);
    cli_scenario(c, "one", "expect: [{outcome: engine}]\n");
    cli_run(c, "FAKE=early " RUN);
    cli_assert_status(c, 0);
}

static void test_worker__scratch_is_removed_also_of_a_run_that_was_killed(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "reference: off\n");
    cli_run(c,
            "FAKE=hang@denoise " RUN "& pid=$!; until ls mpbench.db.cache/run-*/outputs; do sleep "
            "0.1; done >/dev/null 2>&1; kill -9 $pid; ls mpbench.db.cache");
    cli_assert_has(c->out, "run-");
    cli_run(c, RUN "&& ls mpbench.db.cache");
    cli_assert_status(c, 0);
    if (strstr(c->out, "run-"))
        fail_msg("left behind: %s", c->out);
}

static void test_worker__one_that_does_not_start_is_recorded_with_the_remedy(void **state)
{
    cli *c = *state;

    run_fake(c, "", "--python ./no-such-python");
    cli_assert_status(c, 3);
    cli_assert_has(c->err, "--python or MPBENCH_PYTHON");
    assert_cell(c, "error", "engine", "./no-such-python cannot be started: No such file");
    run_fake(c, "early", "");
    assert_cell(c, "error", "engine", "No module named 'nothing'");
    run_fake(c, "protocol", "");
    assert_cell(c, "error", "engine", "not those of protocol 1");
    run_fake(c, "segv@start", "");
    assert_cell(c, "error", "engine", "killed by signal 11");
    run_fake(c, "exception@start", "");
    assert_cell(c, "error", "exception", "the library's own trouble");
    cli_scenario(c, "one", "");
    cli_run(c, "MPBENCH_WORKER_START=1 FAKE=late " RUN);
    cli_assert_status(c, 3);
    assert_cell(c, "error", "engine", "was not ready after 1 s");
}

static void test_worker__a_python_without_the_library_is_named(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "");
    cli_run(c, "mkdir empty && \"$mpbench\" run one.yaml --engine diffusers --pythonpath empty "
               "--python \"$(command -v python3)\"; sqlite3 mpbench.db 'SELECT error FROM cell'");
    cli_assert_has(c->out, "--pythonpath");
    cli_assert_query(c, "SELECT status || outcome FROM cell", "errorengine");
}

static void test_doctor__starts_a_worker_and_shows_what_it_says(void **state)
{
    cli *c = *state;

    cli_run(c, "\"$mpbench\" doctor --engine \"$fixtures/workers/fake_worker.py\"");
    cli_assert_status(c, 0);
    cli_assert_has(c->out, "fake 1.2.3");
    cli_assert_has(c->out, "fake.color green");
    cli_run(c, "FAKE=early \"$mpbench\" doctor --engine \"$fixtures/workers/fake_worker.py\"");
    cli_assert_status(c, 3);
    cli_assert_has(c->out, "No module named 'nothing'");
    cli_run(c, "\"$mpbench\" doctor --engine difusers");
    cli_assert_status(c, 2);
    cli_run(c, "ls -d /tmp/mpbench-doctor-*");
    cli_assert_status(c, 2); /* nothing is left */
}

static void test_worker__what_is_wrong_in_the_command_is_refused(void **state)
{
    cli *c = *state;

    run_fake(c, "", "--pythonpath nowhere");
    cli_assert_status(c, 2);
    cli_assert_has(c->err, "--pythonpath nowhere: no such folder");
    cli_run(c, "\"$mpbench\" run one.yaml --engine difusers");
    cli_assert_status(c, 2);
    cli_assert_has(c->err, "did you mean 'diffusers'?");
    cli_run(c, "\"$mpbench\" run one.yaml --device cuda");
    cli_assert_status(c, 3);
    cli_assert_has(c->err, "the native engine has no backend for it");
    cli_run(c, RUN "--set checkpoint=nowhere");
    cli_assert_status(c, 2);
    cli_assert_has(c->err, "no such folder");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, cli_setup, cli_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_worker__its_results_are_recorded_like_native_ones),
        TEST(test_worker__the_native_run_can_be_the_reference),
        TEST(test_worker__repro_lines_name_the_engine),
        TEST(test_worker__one_can_serve_the_whole_run),
        TEST(test_worker__a_kept_one_that_dies_is_followed_by_a_fresh_one),
        TEST(test_worker__noise_cannot_disturb_the_protocol),
        TEST(test_worker__expectations_can_ask_for_an_engine_and_its_version),
        TEST(test_worker__another_version_is_another_run_for_resume),
        TEST(test_worker__files_of_an_input_are_found_and_belong_to_the_reference),
        TEST(test_worker__diffsynth_runs_wan_vace_with_fp8_storage),
        TEST(test_worker__an_exception_is_recorded_with_its_place),
        TEST(test_worker__what_it_told_before_a_failure_is_measured),
        TEST(test_worker__garbage_is_quoted),
        TEST(test_worker__its_end_is_a_result_with_its_last_words),
        TEST(test_worker__a_hang_ends_at_the_timeout_and_says_where),
        TEST(test_worker__memory_beyond_the_limit_is_a_result),
        TEST(test_worker__nan_is_a_result_with_its_module),
        TEST(test_worker__a_tensor_that_is_not_as_told_is_refused),
        TEST(test_worker__a_file_that_is_no_fp32_tensor_is_refused),
        TEST(test_worker__done_without_a_picture_is_no_success),
        TEST(test_worker__a_stray_event_shifts_no_result),
        TEST(test_worker__neither_an_orphan_nor_a_closed_pipe_holds_the_run_up),
        TEST(test_worker__a_library_that_changes_meanwhile_is_noticed),
        TEST(test_worker__it_cannot_call_itself_native),
        TEST(test_worker__many_warnings_cost_no_result),
        TEST(test_worker__its_own_failure_fulfils_no_expectation),
        TEST(test_worker__scratch_is_removed_also_of_a_run_that_was_killed),
        TEST(test_worker__one_that_does_not_start_is_recorded_with_the_remedy),
        TEST(test_worker__a_python_without_the_library_is_named),
        TEST(test_doctor__starts_a_worker_and_shows_what_it_says),
        TEST(test_worker__what_is_wrong_in_the_command_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
