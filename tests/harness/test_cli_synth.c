/* mpbench synth: checkpoints as large as real ones, complete, sane and the same every time. */
#include "harness/folders.h"
#include "pipelines/common/weights_files.h"
#include "tests/harness/cli.h"

#define SYNTH "\"$mpbench\" synth "
#define TINY  "\"$fixtures\"/checkpoints/sana-tiny "

/* The presets' sizes are those of the real models: 2.6 B of Gemma-2, Sana 1.6 B, DC-AE; CLIP-L and
 * -G, T5-XXL, Stable Diffusion 3.5 Medium's 2.24 B beside its 226 M positions, its autoencoder. */
static void test_synth__lists_the_presets_with_their_sizes(void **state)
{
    cli *c = *state;

    cli_run(c, SYNTH);
    cli_assert_status(c, 0);
    cli_assert_has(c->out, "GB in bf16");
    cli_assert_has(c->out, "sana-1600m           4531.1        9.06  text_encoder 2614.3, "
                           "transformer 1604.5, vae 312.3\n");
    cli_assert_has(c->out, "sana-1600m-4k        4531.1        9.06  ");
    cli_assert_has(c->out, "sd35-medium          8134.1       16.27  text_encoder 123.7, "
                           "text_encoder_2 694.7, text_encoder_3 4762.3, transformer 2469.7, "
                           "vae 83.8\n");
    cli_assert_has(c->out, "sana-mid ");
    cli_assert_has(c->out, "sd35-mid ");
}

/* What is in dir/part of two checkpoints: the same names, shapes and, if asked, dtypes. */
static void assert_same_parameters(const char *a, const char *b, const char *part, const char *stem)
{
    mp_weight_files x, y;
    char from[400], to[400];
    mp_error err = {0};
    mp_tensor there;
    int64_t count = 0;

    snprintf(from, sizeof from, "%s/%s", a, part);
    snprintf(to, sizeof to, "%s/%s", b, part);
    assert_int_equal(mp_weight_files_open(from, stem, NULL, &x, &err), MP_OK);
    assert_int_equal(mp_weight_files_open(to, stem, NULL, &y, &err), MP_OK);
    assert_int_equal(x.count, 1);
    for (int64_t f = 0; f < y.count; f++)
        for (int64_t i = 0; i < mp_safetensors_count(y.file[f]); i++, count++) {
            const mp_tensor t = mp_safetensors_at(y.file[f], i);
            if (!mp_safetensors_find(x.file[0], t.name, &there) || !mp_same_shape(t, there))
                fail_msg("%s/%s: no such parameter, or of another shape", from, t.name);
        }
    assert_int_equal(count, mp_safetensors_count(x.file[0]));
    mp_weight_files_close(&x);
    mp_weight_files_close(&y);
}

/* The tiny checkpoints were written by the real libraries. */
static void test_synth__has_the_parameters_that_diffusers_writes(void **state)
{
    static const char *const parts[][2] = {
        {"sana-tiny", "text_encoder"},  {"sana-tiny", "transformer"},
        {"sana-tiny", "vae"},           {"sd3-tiny", "text_encoder"},
        {"sd3-tiny", "text_encoder_2"}, {"sd3-tiny", "text_encoder_3"},
        {"sd3-tiny", "transformer"},    {"sd3-tiny", "vae"}};
    cli *c = *state;

    cli_run(c, SYNTH TINY "sana-tiny && " SYNTH
                          "\"$fixtures\"/checkpoints/sd3-tiny sd3-tiny --shard-size 50000");
    cli_assert_status(c, 0);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char real[300], made[300];
        snprintf(real, sizeof real, MP_FIXTURES "/checkpoints/%s", parts[i][0]);
        snprintf(made, sizeof made, "%s/%s", c->folder, parts[i][0]);
        assert_same_parameters(real, made, parts[i][1],
                               strncmp(parts[i][1], "text", 4) ? "diffusion_pytorch_model"
                                                               : "model");
    }
}

/* A picture in every dtype, and half precision near fp32: no activation overflows or vanishes.  A
 * constant picture would be another status. */
static void assert_generates(cli *c, const char *pipeline, const char *more)
{
    cli_run(c, SYNTH "\"$fixtures\"/checkpoints/%s-tiny made", pipeline);
    cli_assert_status(c, 0);
    cli_run(c,
            "cat > one.yaml <<EOF\n"
            "name: one\npipeline: %s\ncheckpoint: made\n"
            "inputs: {prompt: a fox, height: 64, width: 64, steps: 2, seed: 7%s}\n"
            "matrix: {precision.default: [fp32, fp16, bf16]}\n"
            "budgets: {latent_rel_l2: 0.1, psnr_db: 25}\n"
            "EOF\n"
            "\"$mpbench\" run one.yaml && \"$mpbench\" doctor made",
            pipeline, more);
    cli_assert_status(c, 0);
    cli_assert_query(c, "select count(*) from cell where status = 'ok'", "3");
}

static void test_synth__generates_in_every_dtype_sana(void **state)
{
    assert_generates(*state, "sana", ", use_resolution_binning: false");
}

static void test_synth__generates_in_every_dtype_sd3(void **state)
{
    assert_generates(*state, "sd3", "");
}

static void test_synth__writes_the_same_bytes_with_any_number_of_threads(void **state)
{
    cli *c = *state;

    cli_run(c, SYNTH "sana-mid a --threads 1 && " SYNTH "sana-mid b --threads 3 && diff -r a b");
    cli_assert_status(c, 0);
    cli_run(c, SYNTH "sana-mid b --force --seed 1 && diff -rq a b");
    cli_assert_status(c, 1);
    cli_assert_has(c->out, "Files a/vae/diffusion_pytorch_model.safetensors and "
                           "b/vae/diffusion_pytorch_model.safetensors differ");
    cli_assert_has(c->out, "Files a/text_encoder/model.safetensors and ");
}

/* The values of a parameter in shards are those in one file. */
static void test_synth__shards_change_no_value(void **state)
{
    cli *c = *state;
    mp_weight_files whole, split;
    char path[300];
    mp_error err = {0};
    mp_tensor there = MP_NONE;

    cli_run(c,
            SYNTH TINY "a --dtype fp32 && " SYNTH TINY "b --dtype fp32 --shard-size 100000 && "
                       "grep -c total_size b/vae/diffusion_pytorch_model.safetensors.index.json");
    cli_assert_status(c, 0);
    snprintf(path, sizeof path, "%s/a/vae", c->folder);
    assert_int_equal(mp_weight_files_open(path, "diffusion_pytorch_model", NULL, &whole, &err),
                     MP_OK);
    snprintf(path, sizeof path, "%s/b/vae", c->folder);
    assert_int_equal(mp_weight_files_open(path, "diffusion_pytorch_model", NULL, &split, &err),
                     MP_OK);
    assert_true(split.count > 2);
    for (int64_t f = 0; f < split.count; f++)
        for (int64_t i = 0; i < mp_safetensors_count(split.file[f]); i++) {
            const mp_tensor t = mp_safetensors_at(split.file[f], i);
            assert_true(mp_safetensors_find(whole.file[0], t.name, &there));
            assert_memory_equal(t.data, there.data, mp_nbytes(t));
        }
    mp_weight_files_close(&whole);
    mp_weight_files_close(&split);
}

/* In the dtypes that it was written for, a run maps every parameter as it lies in the file. */
static void test_synth__its_precision_converts_nothing(void **state)
{
    cli *c = *state;

    cli_run(c, SYNTH "\"$fixtures\"/checkpoints/sd3-tiny made --dtype bf16 --storage "
                     "transformer=fp8_e4m3 --storage text_encoder_3=fp8_e5m2");
    cli_assert_status(c, 0);
    cli_run(c, "cat > one.yaml <<EOF\n"
               "name: one\npipeline: sd3\ncheckpoint: made\n"
               "inputs: {prompt: a fox, height: 64, width: 64, steps: 1, seed: 7}\n"
               "precision: {default: bf16, storage: {transformer: fp8_e4m3, text_encoder_3: "
               "fp8_e5m2}}\nreference: off\n"
               "EOF\n"
               "\"$mpbench\" run one.yaml && grep -ac F8_E4M3 "
               "made/transformer/diffusion_pytorch_model.safetensors && grep -ac F8_E5M2 "
               "made/text_encoder_3/model.safetensors");
    cli_assert_status(c, 0);
    cli_assert_query(c, "select value from metric where name = 'weights_converted_mib'", "0.0");
}

/* ---- what is refused ---- */

/* Status and message, and that the folder `into` has only what it had. */
static void refuse(cli *c, int status, const char *arguments, const char *what)
{
    cli_run(c, "mkdir -p into && cd into && " SYNTH "%s", arguments);
    cli_assert_status(c, status);
    cli_assert_has(c->err, what);
    cli_run(c, "ls -A into");
    assert_string_equal(c->out, "");
}

static void test_synth__refuses_bad_arguments(void **state)
{
    cli *c = *state;

    refuse(c, 2, "sana-1600 x",
           "'sana-1600' is no preset and no folder with a model_index.json; did you mean "
           "'sana-1600m'?; presets: sana-1600m, sana-1600m-4k, sana-mid, sd35-medium, sd35-mid");
    refuse(c, 2, "/ x", "'/' is no preset");
    refuse(c, 2, "../../../etc x", "is no preset");
    refuse(c, 2, "'a\x1b[2J' x", "'a\\x1b[2J' is no preset");
    refuse(c, 2, "sana-mid", "expected PRESET DIR");
    refuse(c, 2, "sana-mid x --dtype int8", "expected one of: fp32, fp16, bf16");
    refuse(c, 2, "sana-mid x --storage vae", "expected COMPONENT=DTYPE");
    refuse(c, 2, "sana-mid x --storage vae=int8", "expected COMPONENT=DTYPE");
    refuse(c, 2, "sana-mid x --storage unet=fp8_e4m3",
           "sana-mid has no component 'unet'; it has text_encoder, transformer, vae");
    refuse(c, 2, "sana-mid x --seed -1", "expected an integer from 0 to 2^64 - 1");
    refuse(c, 2, "sana-mid x --seed 18446744073709551616", "expected an integer");
    refuse(c, 2, "sana-mid x --shard-size 0", "expected a size");
    refuse(c, 2, "sana-mid x --shard-size much", "expected a size");
    refuse(c, 2, "sana-mid x --threads 0", "expected an integer from 1 to 256");
}

static void test_synth__refuses_configs_that_the_pipeline_refuses(void **state)
{
    cli *c = *state;

    cli_run(c, "cp -r \"$fixtures\"/checkpoints/sd3-tiny bad && chmod -R u+w bad && sed -i "
               "'s/\"num_layers\": 3/\"num_layers\": -3/' bad/transformer/config.json");
    cli_assert_status(c, 0);
    refuse(c, 2, "../bad x", "../bad/transformer/config.json: \"num_layers\"");
    cli_run(c, "sed -i s/StableDiffusion3Pipeline/FluxPipeline/ bad/model_index.json");
    refuse(c, 2, "../bad x", "model_index.json");
}

static void test_synth__replaces_a_checkpoint_only_when_told(void **state)
{
    cli *c = *state;

    cli_run(c, SYNTH TINY "x && " SYNTH TINY "x");
    cli_assert_status(c, 2);
    cli_assert_has(c->err, "x: is there already; give --force to replace it");
    cli_run(c, "mkdir y && echo mine > y/diary.txt && " SYNTH TINY "y --force");
    cli_assert_status(c, 2);
    cli_assert_has(c->err, "y: --force replaces a checkpoint alone, and this has no "
                           "model_index.json");
    cli_run(c, "cat y/diary.txt && touch x/old && " SYNTH TINY "x/ --force --seed 3 && ls x");
    cli_assert_status(c, 0);
    cli_assert_has(c->out, "mine\n");
    cli_assert_has(c->out,
                   "model_index.json\nscheduler\ntext_encoder\ntokenizer\ntransformer\nvae");
    assert_null(strstr(c->out, "\nold"));
    cli_run(c, "ls -A | grep -v .txt");
    assert_string_equal(c->out, "x\ny\n");
}

static void test_synth__names_a_folder_that_cannot_be_made(void **state)
{
    cli *c = *state;

    refuse(c, 3, "sana-mid /proc/no/such",
           "/proc/no: the folder cannot be made: No such file or directory");
    cli_run(c, "touch file && " SYNTH "sana-mid file/x");
    cli_assert_status(c, 3);
    cli_assert_has(c->err, "file/x: cannot be made (Not a directory)");
}

/* Convolutions of 65536 channels, 155 GB each in fp32. */
static void test_synth__says_how_much_space_is_missing(void **state)
{
    cli *c = *state;

    cli_run(c, "cp -r \"$fixtures\"/checkpoints/sd3-tiny huge && chmod -R u+w huge && "
               "tr -d '\\n' < huge/vae/config.json | sed 's/\"block_out_channels\": \\[[^]]*\\]/"
               "\"block_out_channels\": [65536, 65536, 65536, 65536]/' > config.json && "
               "mv config.json huge/vae/");
    cli_assert_status(c, 0);
    refuse(c, 3, "../huge x --dtype fp32", "x: needs ");
    cli_run(c, "cd into && " SYNTH "../huge x --dtype fp32");
    cli_assert_has(c->err, " GB free; free some space, choose another folder, or give a narrower "
                           "--dtype or --storage");
}

static void test_synth__leaves_nothing_of_a_write_that_fails(void **state)
{
    cli *c = *state;

    cli_run(c, "mkdir into && cd into && ulimit -f 20000 && " SYNTH "sana-mid x --dtype fp32");
    cli_assert_status(c, 3);
    cli_assert_has(c->err, "model.safetensors: cannot be written (File too large); free some space "
                           "or choose another folder");
    cli_run(c, "ls -A into");
    assert_string_equal(c->out, "");
}

static void test_synth__leaves_nothing_when_it_is_stopped(void **state)
{
    cli *c = *state;

    cli_run(c, "mkdir into && cd into && timeout -s INT 0.3 \"$mpbench\" synth sana-1600m x");
    assert_int_not_equal(c->status, 0);
    cli_run(c, "ls -A into");
    assert_string_equal(c->out, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, cli_setup, cli_teardown)
        TEST(test_synth__lists_the_presets_with_their_sizes),
        TEST(test_synth__has_the_parameters_that_diffusers_writes),
        TEST(test_synth__generates_in_every_dtype_sana),
        TEST(test_synth__generates_in_every_dtype_sd3),
        TEST(test_synth__writes_the_same_bytes_with_any_number_of_threads),
        TEST(test_synth__shards_change_no_value),
        TEST(test_synth__its_precision_converts_nothing),
        TEST(test_synth__refuses_bad_arguments),
        TEST(test_synth__refuses_configs_that_the_pipeline_refuses),
        TEST(test_synth__replaces_a_checkpoint_only_when_told),
        TEST(test_synth__names_a_folder_that_cannot_be_made),
        TEST(test_synth__says_how_much_space_is_missing),
        TEST(test_synth__leaves_nothing_of_a_write_that_fails),
        TEST(test_synth__leaves_nothing_when_it_is_stopped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
