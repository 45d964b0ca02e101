/* Bad input: a clear message with place and remedy, the documented exit status, nothing lost. */
#include "tests/harness/cli.h"

/* A copy of the tiny checkpoint under ckpt/sana-tiny, to be spoilt. */
static void copy_checkpoint(cli *c)
{
    cli_run(c,
            "mkdir ckpt && cp -rL \"$fixtures/checkpoints/sana-tiny\" ckpt/ && chmod -R u+w ckpt");
    cli_assert_status(c, 0);
}

#define RUN_COPY "MPBENCH_CHECKPOINTS=$PWD/ckpt \"$mpbench\" run one.yaml"
#define WEIGHTS  "ckpt/sana-tiny/transformer/diffusion_pytorch_model.safetensors"

/* Spoils the copy with a shell command, runs, and wants status 2 and all of these texts. */
static void refuse_checkpoint(cli *c, const char *spoil, const char *file, const char *what)
{
    cli_scenario(c, "one", "reference: off\n");
    copy_checkpoint(c);
    cli_run(c, "%s", spoil);
    cli_assert_status(c, 0);
    cli_run(c, RUN_COPY);
    cli_assert_status(c, 2);
    cli_assert_has(c->err, file);
    cli_assert_has(c->err, what);
}

static void test_checkpoint__missing_folder(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "");
    cli_run(c, "MPBENCH_CHECKPOINTS=/nowhere \"$mpbench\" run one.yaml");
    cli_assert_status(c, 2);
    cli_assert_has(c->err, "one.yaml: cell default: /nowhere/sana-tiny: no such folder; expected a "
                           "checkpoint in Diffusers' layout");
}

static void test_checkpoint__missing_component(void **state)
{
    refuse_checkpoint(*state, "rm -r ckpt/sana-tiny/vae", "vae", "");
}

static void test_checkpoint__truncated_weights(void **state)
{
    refuse_checkpoint(*state, "truncate -s 5000 " WEIGHTS, WEIGHTS, "");
}

static void test_checkpoint__header_larger_than_the_file(void **state)
{
    refuse_checkpoint(*state, "printf '\\377\\377\\377\\377\\0\\0\\0\\0{}' > " WEIGHTS, WEIGHTS,
                      "header");
}

static void test_checkpoint__config_that_does_not_fit_the_weights(void **state)
{
    cli *c = *state;

    refuse_checkpoint(c,
                      "sed -i 's/\"num_layers\": [0-9]*/\"num_layers\": 9/' "
                      "ckpt/sana-tiny/transformer/config.json",
                      "transformer_blocks.2.attn1.to_q.weight",
                      "check that both are of one checkpoint");
    cli_run(c, RUN_COPY " --resume"); /* on record, it is no other failure than it was */
    cli_assert_status(c, 2);
    cli_assert_has(c->out, "from before");
}

static void test_checkpoint__no_json(void **state)
{
    refuse_checkpoint(*state, "echo '{' > ckpt/sana-tiny/model_index.json", "model_index.json", "");
}

static void test_checkpoint__hostile_tokenizer(void **state)
{
    refuse_checkpoint(
        *state,
        "for f in ckpt/sana-tiny/tokenizer/tokenizer.*; do head -c 300 $f > x; mv x $f; "
        "done",
        "tokenizer", "");
}

static void test_checkpoint__another_pipelines(void **state)
{
    refuse_checkpoint(*state, "sed -i s/SanaPipeline/FluxPipeline/ ckpt/sana-tiny/model_index.json",
                      "model_index.json", "FluxPipeline");
}

/* As cli_scenario, of Stable Diffusion 3. */
static void sd3_scenario(const cli *c, const char *height, const char *prompt)
{
    char text[2000];

    snprintf(text, sizeof text,
             "name: one\npipeline: sd3\ncheckpoint: ${MPBENCH_CHECKPOINTS}/sd3-tiny\n"
             "reference: off\ninputs:\n  prompt: %s\n  height: %s\n  width: 64\n  steps: 1\n",
             prompt, height);
    cli_write(c, "one.yaml", text);
}

static void test_checkpoint__missing_tokenizer_file(void **state)
{
    cli *c = *state;

    sd3_scenario(c, "64", "a red fox");
    cli_run(c, "mkdir ckpt && cp -rL \"$fixtures/checkpoints/sd3-tiny\" ckpt/ && rm "
               "ckpt/sd3-tiny/tokenizer_2/merges.txt && " RUN_COPY);
    cli_assert_status(c, 2);
    cli_assert_has(c->err, "one.yaml: cell default: ");
    cli_assert_has(c->err, "ckpt/sd3-tiny/tokenizer_2: has vocab.json without merges.txt; copy the "
                           "whole folder of the tokenizer");
    cli_run(c, "ls");
    assert_null(strstr(c->out, "mpbench.db")); /* nothing ran */
}

static void test_scenario__a_prompt_that_is_cut_is_on_record(void **state)
{
    static const char warning[] = "The following part of your input was truncated because CLIP can "
                                  "only handle sequences up to 77 tokens: ['";
    char prompt[600] = "";
    cli *c = *state;

    for (int i = 0; i < 60; i++)
        strcat(prompt, "red fox ");
    sd3_scenario(c, "64", prompt);
    cli_run(c, "\"$mpbench\" run one.yaml");
    cli_assert_status(c, 0);
    cli_assert_has(c->out, warning); /* of both encoders, told once */
    assert_null(strstr(strstr(c->out, warning) + 1, warning));
    cli_run(c, "\"$mpbench\" show 1");
    cli_assert_status(c, 0);
    cli_assert_has(c->out, warning);
}

static void test_scenario__height_that_is_no_multiple_of_16(void **state)
{
    cli *c = *state;

    sd3_scenario(c, "72", "a red fox");
    cli_run(c, "\"$mpbench\" run one.yaml; s=$?; ls && exit $s");
    cli_assert_status(c, 2);
    cli_assert_has(c->err, "one.yaml:7:11: cell default: `height` and `width` have to be divisible "
                           "by 16 but are 72 and 64.You can use height 64 and width 64.");
    assert_null(strstr(c->out, "mpbench.db")); /* nothing ran */
}

/* Writes the scenario and wants status 2 with file:line and text. */
static void refuse_scenario(cli *c, const char *more, const char *place, const char *what)
{
    cli_scenario(c, "one", more);
    cli_run(c, "\"$mpbench\" run one.yaml");
    cli_assert_status(c, 2);
    cli_assert_has(c->err, place);
    cli_assert_has(c->err, what);
}

static void test_scenario__unknown_key(void **state)
{
    refuse_scenario(*state, "repeats: 3\n", "one.yaml:5:1", "did you mean 'repeat'?");
}

static void test_scenario__unknown_dtype(void **state)
{
    refuse_scenario(*state, "precision: {default: fp12}\n", "one.yaml:5",
                    "a dtype: fp32, fp16, bf16, fp8_e4m3, fp8_e5m2");
}

static void test_scenario__unknown_quirk(void **state)
{
    refuse_scenario(*state, "quirks: [sana-quadratic-noupcast]\n", "one.yaml:5",
                    "did you mean 'sana-quadratic-no-upcast'?");
}

static void test_scenario__height_that_is_no_multiple_of_32(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "");
    cli_run(c, "\"$mpbench\" run one.yaml --set inputs.height=70");
    cli_assert_status(c, 2);
    cli_assert_has(c->err, "70");
    cli_assert_has(c->err, "32");
}

static void test_scenario__no_yaml(void **state)
{
    cli *c = *state;

    cli_write(c, "one.yaml", "name: [\n");
    cli_run(c, "\"$mpbench\" run one.yaml");
    cli_assert_status(c, 2);
    cli_assert_has(c->err, "one.yaml:");
    cli_run(c, "\"$mpbench\" run nowhere.yaml");
    cli_assert_status(c, 2);
    cli_assert_has(c->err, "nowhere.yaml: No such file or directory");
}

static void test_usage__says_what_is_wrong(void **state)
{
    static const struct {
        const char *arguments, *what;
    } cases[] = {
        {"", "usage: mpbench COMMAND"},
        {"rum", "did you mean 'run'?"},
        {"run", "missing operand: expected FILE|DIR..."},
        {"run x.yaml --lable y", "did you mean '--label'?"},
        {"run x.yaml --threads none", "expected an integer from 1 to 256"},
        {"run x.yaml --threads 0", "expected an integer from 1 to 256"},
        {"run x.yaml --engine difusers", "unknown engine 'difusers'; did you mean 'diffusers'?"},
        {"run x.yaml --only", "--only needs a value"},
        {"compare fp16", "missing operand: expected A B"},
        {"compare a b c d e f g h nine", "'nine' is one operand too many; expected A B [C...]"},
        {"list --limit -1", "expected an integer from 0"},
        {"show one", "'one' is no cell id"},
        {"list --db nowhere.db", "nowhere.db: there is no such database"},
        {"list --format yaml", "expected one of: text, markdown, json, csv"},
    };
    cli *c = *state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cli_run(c, "\"$mpbench\" %s", cases[i].arguments);
        cli_assert_status(c, 2);
        cli_assert_has(c->err, cases[i].what);
        assert_string_equal(c->out, "");
    }
}

static void test_database__refused_ones_lose_nothing(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "reference: off\n");
    cli_run(c,
            "\"$mpbench\" run one.yaml && sqlite3 mpbench.db 'PRAGMA user_version = 99' && "
            "sha256sum mpbench.db > before; \"$mpbench\" run one.yaml; s=$?; sha256sum -c before "
            ">&2 && exit $s");
    cli_assert_status(c, 3);
    cli_assert_has(c->err, "has schema version 99, and this mpbench knows versions up to 5");
    cli_run(c,
            "echo 'no database, but a long enough text to be read as one' > other.db; cp other.db "
            "copy; \"$mpbench\" run one.yaml --db other.db; s=$?; cmp other.db copy && exit $s");
    cli_assert_status(c, 3);
    cli_assert_has(c->err, "other.db");
    cli_run(c, "\"$mpbench\" run one.yaml --db .");
    cli_assert_status(c, 3);
    cli_assert_has(c->err, "is a folder");
    cli_run(c, "\"$mpbench\" run one.yaml --db none/x.db");
    cli_assert_status(c, 3);
    cli_assert_has(c->err, "none/x.db");
}

static void test_database__a_full_disk_keeps_what_is_there(void **state)
{
    cli *c = *state;

    cli_scenario(c, "many", "matrix: {inputs.seed: [1, 2, 3]}\nreference: off\n");
    cli_run(c, "\"$mpbench\" run many.yaml --only inputs.seed=1");
    cli_assert_status(c, 0);
    /* Files may grow to 160 KiB more or less: the tensors still fit, the database soon does not. */
    cli_run(c, "ulimit -f 128; \"$mpbench\" run many.yaml --set repeat=400");
    cli_assert_status(c, 3);
    cli_assert_has(c->err, "--resume");
    cli_assert_query(c, "PRAGMA integrity_check", "ok");
    cli_assert_query(c, "SELECT count(*) FROM cell WHERE run = 1 AND status = 'ok'", "1");
}

/* The reader has left before the program writes its first byte. */
#define UNREAD(command)                                                                          \
    "mkfifo left; { read x <left; " command "; echo $? >status; } | { exec <&-; echo >left; }; " \
    "cat status"

static void test_output__that_nobody_reads_ends_the_program_without_a_word(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "reference: off\n");
    cli_run(c, UNREAD("$mpbench --help"));
    assert_string_equal(c->out, "141\n"); /* by SIGPIPE, as cat and git */
    assert_string_equal(c->err, "");
    cli_run(c, "$mpbench run one.yaml && rm left; " UNREAD("$mpbench list"));
    cli_assert_has(c->out, "\n141\n");
    assert_null(strstr(c->err, "Broken pipe"));
}

static void test_output__that_nobody_reads_takes_no_run_and_no_verdict_away(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "reference: off\nbudgets: {seconds: 1e-9}\n");
    cli_run(c, UNREAD("$mpbench run one.yaml --rounds 2"));
    assert_string_equal(c->out, "1\n");
    assert_null(strstr(c->err, "Broken pipe"));
    cli_assert_query(c, "SELECT count(*) FROM run WHERE exit_status = 1", "2");
}

static void test_output__that_cannot_be_written_is_a_failure(void **state)
{
    cli *c = *state;

    cli_run(c, "$mpbench --help >/dev/full");
    cli_assert_status(c, 3);
    cli_assert_has(c->err, "mpbench: writing the result: No space left on device");
    cli_run(c, "$mpbench --version >&-");
    cli_assert_status(c, 3);
    cli_assert_has(c->err, "mpbench: writing the result: Bad file descriptor");
}

static void test_dump__into_what_is_no_folder(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "reference: off\n");
    cli_run(c, "touch file; \"$mpbench\" run one.yaml --dump file/x");
    cli_assert_status(c, 3);
    cli_assert_has(c->err, "file/x");
}

static void test_cell__hostile_names_stay_inside_the_dump_folder(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one",
                 "reference: off\nmatrix: {inputs.prompt: ['../../../escape', \"\\e[2J\"]}\n");
    cli_run(c, "\"$mpbench\" run one.yaml --dump d && find d -type d | wc -l && find . -name "
               "'escape*' | wc -l");
    cli_assert_status(c, 0);
    cli_assert_has(c->out, "\n4\n0\n"); /* d, d/one and one for each cell */
    assert_null(strchr(c->out, '\033'));
    assert_null(strchr(c->err, '\033'));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, cli_setup, cli_teardown)
    const struct CMUnitTest tests[] = {
        T(test_checkpoint__missing_folder),
        T(test_checkpoint__missing_component),
        T(test_checkpoint__truncated_weights),
        T(test_checkpoint__header_larger_than_the_file),
        T(test_checkpoint__config_that_does_not_fit_the_weights),
        T(test_checkpoint__no_json),
        T(test_checkpoint__hostile_tokenizer),
        T(test_checkpoint__another_pipelines),
        T(test_checkpoint__missing_tokenizer_file),
        T(test_scenario__unknown_key),
        T(test_scenario__unknown_dtype),
        T(test_scenario__unknown_quirk),
        T(test_scenario__height_that_is_no_multiple_of_32),
        T(test_scenario__height_that_is_no_multiple_of_16),
        T(test_scenario__a_prompt_that_is_cut_is_on_record),
        T(test_scenario__no_yaml),
        T(test_usage__says_what_is_wrong),
        T(test_database__refused_ones_lose_nothing),
        T(test_database__a_full_disk_keeps_what_is_there),
        T(test_output__that_nobody_reads_ends_the_program_without_a_word),
        T(test_output__that_nobody_reads_takes_no_run_and_no_verdict_away),
        T(test_output__that_cannot_be_written_is_a_failure),
        T(test_dump__into_what_is_no_folder),
        T(test_cell__hostile_names_stay_inside_the_dump_folder),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
