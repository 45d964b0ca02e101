/* What the pipeline says of checkpoints, prompts and calls that cannot work, and of memory that
 * runs out.  Golden: goldens/sd3/prompts.json, made by tests/fixtures/make_sd3_prompts.py. */
#include "tests/pipelines/pipeline_run.h"

#include <math.h>

#include <jansson.h>

#include "pipelines/common/tokenizer.h"

#define TINY_SD3 MP_FIXTURES "/checkpoints/sd3-tiny"

static mp_ctx *ctx;

static int setup(void **state)
{
    ctx = mp_test_ctx(NULL, 1);
    return scratch_setup(state);
}

static int teardown(void **state)
{
    mp_device_close(ctx);
    return scratch_teardown(state);
}

/* The shortest call: one step, no guidance. */
static void init(cell *k, const char *checkpoint)
{
    const mp_pipeline_def *const p = mp_pipeline_find("sd3");

    assert_non_null(p);
    cell_defaults(k, p, checkpoint);
    cell_text(k, "prompt", "a red fox");
    cell_number(k, "height", 32);
    cell_number(k, "width", 32);
    cell_number(k, "num_inference_steps", 1);
    cell_number(k, "guidance_scale", 1);
    cell_number(k, "max_sequence_length", 8);
}

/* ---- checkpoints ----------------------------------------------------------------------------- */

typedef enum when { LATE, EARLY } when; /* seen by open only; by check as well, before a run */

static void refused(const cell *k, when seen, mp_code code, const char *const *parts)
{
    void *pipeline = NULL;
    mp_error err = {0}, early = {0};

    k->pipeline->check(&k->request, &early);
    if (seen == EARLY)
        assert_failure(&early, code, parts);
    else
        assert_ok(&early);
    k->pipeline->open(ctx, &k->request, NULL, &pipeline, &err);
    assert_failure(&err, code, parts);
    assert_null(pipeline);
    assert_int_equal(mp_pool_get(ctx).live, 0);
    assert_false(mp_failed(ctx));
}
#define assert_refused(k, seen, code, ...) \
    refused(k, seen, code, (const char *const[]){__VA_ARGS__, NULL})

/* A checkpoint in a folder of its own, a cell for it; its component (not "") is a folder of its
 * own, too, whose files are links. */
static const char *broken(cell *k, const char *component)
{
    static char dir[512]; /* scratch's own buffer is soon another path */
    static int serial;
    char name[16];

    snprintf(name, sizeof name, "checkpoint%d", serial++);
    snprintf(dir, sizeof dir, "%s", scratch(name));
    folder_mirror(dir, TINY_SD3);
    if (*component) {
        checkpoint_remove(dir, component);
        folder_mirror(path_join(dir, component).text, path_join(TINY_SD3, component).text);
    }
    init(k, dir);
    return dir;
}

/* The part of the path before the file is its component, "" for model_index.json. */
static const char *broken_file(cell *k, const char *file)
{
    char component[32] = "";
    const char *const slash = strchr(file, '/');

    if (slash)
        snprintf(component, sizeof component, "%.*s", (int)(slash - file), file);
    const char *const dir = broken(k, component);
    checkpoint_remove(dir, file);
    return dir;
}

static void put(const char *dir, const char *file, const char *bytes)
{
    file_write(path_join(dir, file).text, bytes, strlen(bytes));
}

/* One replacement in a text file, and what is said of it. */
typedef struct edit {
    const char *file, *old, *new;
    when seen;
    mp_code code;
    const char *parts[4];
} edit;

static void check_edits(const edit *e, size_t n)
{
    cell k;

    for (size_t i = 0; i < n; i++) {
        const char *const dir = broken_file(&k, e[i].file);
        checkpoint_edit(dir, e[i].file, path_join(TINY_SD3, e[i].file).text, e[i].old, e[i].new);
        assert_refused(&k, e[i].seen, e[i].code, e[i].parts[0], e[i].parts[1], e[i].parts[2],
                       e[i].parts[3]);
    }
}
#define CHECK_EDITS(edits) check_edits(edits, sizeof(edits) / sizeof *(edits))

static void test_sd3_failures__an_index_that_is_not_of_this_pipeline(void **state)
{
    static const char file[] = "model_index.json";
    static const edit edits[] = {
        {file,
         "\"StableDiffusion3Pipeline\"",
         "\"FluxPipeline\"",
         EARLY,
         MP_EUNSUPPORTED,
         {file, "\"FluxPipeline\"", "the pipeline sd3 runs StableDiffusion3Pipeline"}},
        {file, "\"StableDiffusion3Pipeline\"", "3", EARLY, MP_EUNSUPPORTED, {file}},
        {file,
         "\"AutoencoderKL\"",
         "\"AutoencoderDC\"",
         EARLY,
         MP_EUNSUPPORTED,
         {file, "\"vae\" is a AutoencoderDC", "AutoencoderKL"}},
        {file,
         "[\"diffusers\", \"AutoencoderKL\"]",
         "[null, null]",
         EARLY,
         MP_EMISSING,
         {file, "no \"vae\"", "a Stable Diffusion 3 checkpoint has one"}},
        {file,
         "[\"diffusers\", \"AutoencoderKL\"]",
         "{}",
         EARLY,
         MP_EFORMAT,
         {file, "\"vae\": expected [\"library\", \"class\"], found an object"}},
        {file,
         "[\"transformers\", \"T5EncoderModel\"]",
         "\"T5EncoderModel\"",
         EARLY,
         MP_EFORMAT,
         {file, "\"text_encoder_3\": expected [\"library\", \"class\"]", "\"T5EncoderModel\""}},
        {file,
         "[\"transformers\", \"T5EncoderModel\"]",
         "[\"transformers\", 3]",
         EARLY,
         MP_EFORMAT,
         {file, "\"text_encoder_3\": expected [\"library\", \"class\"]", "a list of 2"}},
        {file,
         "\"T5EncoderModel\"",
         "\"UMT5EncoderModel\"",
         EARLY,
         MP_EUNSUPPORTED,
         {file, "\"text_encoder_3\" is a UMT5EncoderModel"}},
        {file, "{", "[", EARLY, MP_EFORMAT, {file, "line"}},
    };

    (void)state;
    CHECK_EDITS(edits);
}

/* Its files may be there or not (test_sd3.c): they are not looked at. */
static void test_sd3_failures__a_t5_that_is_null_is_not_opened(void **state)
{
    static const char *const nothing[] = {"null", "[null, null]"};
    cell k;
    trace t;

    (void)state;
    for (int i = 0; i < 2; i++) {
        const char *const dir = broken(&k, "text_encoder_3");
        checkpoint_remove(dir, "model_index.json");
        checkpoint_edit(dir, "model_index.json", TINY_SD3 "/model_index.json",
                        "[\"transformers\", \"T5EncoderModel\"]", nothing[i]);
        checkpoint_remove(dir, "text_encoder_3/config.json");
        assert_ok(cell_run(&k, ctx, &t));
        trace_free(&t);
    }
}

static void test_sd3_failures__a_component_that_is_not_there(void **state)
{
    static const char *const components[] = {"scheduler",      "text_encoder", "text_encoder_2",
                                             "text_encoder_3", "tokenizer",    "tokenizer_2",
                                             "tokenizer_3",    "transformer",  "vae"};
    cell k;

    (void)state;
    for (size_t i = 0; i < sizeof components / sizeof *components; i++) {
        checkpoint_remove(broken(&k, ""), components[i]);
        assert_refused(&k, EARLY, MP_EMISSING, path_join(k.request.checkpoint, components[i]).text);
    }
}

static const char *const configs[] = {
    "scheduler/scheduler_config.json", "text_encoder/config.json", "text_encoder_2/config.json",
    "text_encoder_3/config.json",      "transformer/config.json",  "vae/config.json"};
enum { CONFIGS = sizeof configs / sizeof *configs };

static void test_sd3_failures__a_configuration_that_is_missing_or_no_json(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {{"", "line 1, column 0: "},
                 {"{\"a\": 1", "line 1, column 7: "},
                 {"[]", "found a list of 0, expected an object at the top"},
                 {"{\"a\": 1, \"a\": 2}", "duplicate object key"},
                 {"{\"a\": \"\xff\"}", "unable to decode byte 0xff"},
                 {"{\"a\": 123456789012345678901234567890}", "too big integer"}};
    cell k;

    (void)state;
    for (int i = 0; i < CONFIGS; i++) {
        broken_file(&k, configs[i]);
        assert_refused(&k, EARLY, MP_EMISSING, configs[i], "cannot be opened");
        for (size_t j = 0; j < sizeof cases / sizeof *cases; j++) {
            put(broken_file(&k, configs[i]), configs[i], cases[j].text);
            assert_refused(&k, EARLY, MP_EFORMAT, configs[i], cases[j].says);
        }
    }
}

static void test_sd3_failures__a_configuration_with_wrong_values(void **state)
{
    static const char transformer[] = "transformer/config.json", vae[] = "vae/config.json",
                      clip[] = "text_encoder/config.json", t5[] = "text_encoder_3/config.json",
                      scheduler[] = "scheduler/scheduler_config.json";
    static const edit edits[] = {
        {transformer,
         "\"num_layers\": 3",
         "\"num_layers\": \"2\"",
         EARLY,
         MP_EFORMAT,
         {transformer, "\"num_layers\": expected an integer in", "found \"2\""}},
        {transformer,
         "\"num_layers\": 3",
         "\"num_layers\": 0",
         EARLY,
         MP_EFORMAT,
         {transformer, "\"num_layers\": expected an integer in 1..", "found 0"}},
        {transformer,
         "\"num_layers\": 3",
         "\"num_layers\": 3, \"rope_theta\": 1",
         EARLY,
         MP_EUNSUPPORTED,
         {transformer, "unknown keys: rope_theta", "Diffusers 0.42"}},
        {vae,
         "\"scaling_factor\": 1.5305",
         "\"scaling_factor\": []",
         EARLY,
         MP_EFORMAT,
         {vae, "\"scaling_factor\": expected a number", "a list of 0"}},
        {clip,
         "\"hidden_size\": 16",
         "\"hidden_size\": 16.5",
         EARLY,
         MP_EFORMAT,
         {clip, "\"hidden_size\": expected an integer in", "found 16.5"}},
        {clip,
         "\"hidden_act\": \"quick_gelu\"",
         "\"hidden_act\": \"snake\"",
         LATE,
         MP_EUNSUPPORTED,
         {clip, "\"hidden_act\"", "\"snake\""}},
        {t5,
         "\"d_model\": 48",
         "\"d_model\": null",
         EARLY,
         MP_EFORMAT,
         {"joint_attention_dim", "512 (d_model)"}}, /* the class's default */
        {scheduler,
         "\"num_train_timesteps\": 1000",
         "\"num_train_timesteps\": -1",
         EARLY,
         MP_EFORMAT,
         {scheduler, "\"num_train_timesteps\"", "found -1"}},
    };

    (void)state;
    CHECK_EDITS(edits);
}

/* Parts that are sound each by itself, and do not belong together. */
static void test_sd3_failures__parts_of_different_models(void **state)
{
    static const char transformer[] = "transformer/config.json";
    static const edit edits[] = {
        {transformer,
         "\"caption_projection_dim\": 16",
         "\"caption_projection_dim\": 64",
         EARLY,
         MP_EFORMAT,
         {transformer, "\"caption_projection_dim\" is 64, but the blocks are 16 wide"}},
        {transformer,
         "\"pooled_projection_dim\": 40",
         "\"pooled_projection_dim\": 41",
         EARLY,
         MP_EFORMAT,
         {"pooled texts of 41 channels (pooled_projection_dim)", "give 40 (projection_dim)",
          "fetch all parts of one version"}},
        {transformer,
         "\"joint_attention_dim\": 48",
         "\"joint_attention_dim\": 56",
         EARLY,
         MP_EFORMAT,
         {"texts of 56 channels (joint_attention_dim)", "text_encoder_3 gives 48 (d_model)",
          "fetch all parts of one version"}},
        {transformer,
         "\"in_channels\": 16",
         "\"in_channels\": 8",
         EARLY,
         MP_EFORMAT,
         {"latents of 8 channels (in_channels)", "has 16 (latent_channels)",
          "fetch all parts of one version"}},
        {"text_encoder_2/config.json",
         "\"hidden_size\": 24",
         "\"hidden_size\": 36",
         EARLY,
         MP_EFORMAT,
         {"texts of 48 channels (joint_attention_dim)", "give 52 (hidden_size)",
          "fetch all parts of one version"}},
        {"vae/config.json",
         "\"shift_factor\": 0.0609",
         "\"shift_factor\": null",
         EARLY,
         MP_EFORMAT,
         {"vae/config.json", "no shift_factor", "another model's autoencoder"}},
    };

    (void)state;
    CHECK_EDITS(edits);
}

/* ---- weights --------------------------------------------------------------------------------- */

#define MODEL     "model.safetensors"
#define DIFFUSION "diffusion_pytorch_model.safetensors"

static const char *const weights[] = {"text_encoder/" MODEL, "text_encoder_2/" MODEL,
                                      "text_encoder_3/" MODEL, "transformer/" DIFFUSION,
                                      "vae/" DIFFUSION};
enum { WEIGHTS = sizeof weights / sizeof *weights };

/* Cut in the data, in the header, and to nothing. */
static void test_sd3_failures__weights_that_are_cut(void **state)
{
    static const long lengths[] = {50000, 500, 0};
    cell k;

    (void)state;
    for (int i = 0; i < WEIGHTS; i++)
        for (int j = 0; j < 3; j++) {
            const char *const dir = broken_file(&k, weights[i]);
            checkpoint_cut(dir, weights[i], path_join(TINY_SD3, weights[i]).text, lengths[j]);
            assert_refused(&k, EARLY, MP_EFORMAT, weights[i], "fetch it again");
        }
}

/* The name of one tensor in the header becomes another of the same length. */
static void rename_tensor(const char *dir, const char *file, const char *old, const char *new)
{
    size_t size;
    char *const bytes = file_start(path_join(TINY_SD3, file).text, -1, &size);
    char *const at = memmem(bytes, size, old, strlen(old));

    assert_non_null(at);
    assert_int_equal(strlen(old), strlen(new));
    memcpy(at, new, strlen(new));
    file_write(path_join(dir, file).text, bytes, size);
    free(bytes);
}

static void test_sd3_failures__weights_with_other_tensors(void **state)
{
    static const struct {
        const char *file, *old, *new;
    } cases[] = {
        {"text_encoder/" MODEL, "layers.1.mlp.fc1.bias", "layers.1.mlp.fc9.bias"},
        {"text_encoder_2/" MODEL, "text_projection.weight", "test_projection.weight"},
        {"text_encoder_3/" MODEL, "final_layer_norm.weight", "final_layer_form.weight"},
        {"transformer/" DIFFUSION, "context_embedder.weight", "context_embedded.weight"},
        {"vae/" DIFFUSION, "decoder.conv_in.weight", "decoder.conv_on.weight"},
    };
    cell k;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rename_tensor(broken_file(&k, cases[i].file), cases[i].file, cases[i].old, cases[i].new);
        assert_refused(&k, LATE, MP_EMISSING, "do not fit", "missing (1): ", cases[i].old,
                       "surplus (1): ", cases[i].new);
    }
}

/* Of a configuration that says other widths or fewer layers. */
static void test_sd3_failures__weights_of_other_shapes(void **state)
{
    static const edit edits[] = {
        {"text_encoder/config.json",
         "\"intermediate_size\": 32",
         "\"intermediate_size\": 64",
         LATE,
         MP_EFORMAT,
         {"text_encoder", "misshapen", "mlp.fc1", "check that both are of one"}},
        {"text_encoder_3/config.json",
         "\"d_ff\": 64",
         "\"d_ff\": 65",
         LATE,
         MP_EFORMAT,
         {"text_encoder_3", "misshapen", "DenseReluDense"}},
        {"text_encoder_3/config.json",
         "\"vocab_size\": 304",
         "\"vocab_size\": 300",
         LATE,
         MP_EFORMAT,
         {"text_encoder_3", "misshapen", "shared.weight"}},
        {"transformer/config.json",
         "\"pos_embed_max_size\": 24",
         "\"pos_embed_max_size\": 25",
         LATE,
         MP_EFORMAT,
         {"transformer", "misshapen", "pos_embed.pos_embed"}},
        {"transformer/config.json",
         "\"num_layers\": 3",
         "\"num_layers\": 4",
         LATE,
         MP_EMISSING,
         {"transformer", "missing", "transformer_blocks.3."}},
        {"transformer/config.json",
         "\"num_layers\": 3",
         "\"num_layers\": 2",
         LATE,
         MP_EFORMAT,
         {"transformer", "surplus", "transformer_blocks.2."}},
    };

    (void)state;
    CHECK_EDITS(edits);
}

static void test_sd3_failures__weights_that_are_elsewhere(void **state)
{
    static const char index[] = "transformer/" DIFFUSION ".index.json";
    cell k;

    (void)state;
    const char *dir = broken_file(&k, "transformer/" DIFFUSION);
    assert_refused(&k, EARLY, MP_EMISSING, "/transformer: no weights; expected " DIFFUSION);
    put(dir, "transformer/diffusion_pytorch_model.bin", "PK");
    assert_refused(&k, EARLY, MP_EUNSUPPORTED, "/transformer: only pickle files are there",
                   "diffusion_pytorch_model.bin", "save_pretrained(DIR, safe_serialization=True)");
    dir = broken_file(&k, "transformer/" DIFFUSION);
    put(dir, index, "{\"weight_map\": {\"a\": \"diffusion_pytorch_model-1-of-1.safetensors\"}}");
    assert_refused(&k, EARLY, MP_EMISSING, index, "1 of its 1 files are missing",
                   "diffusion_pytorch_model-1-of-1.safetensors", "fetch them");
    put(dir, index, "{\"weight_map\": {\"a\": \"../vae/" DIFFUSION "\"}}");
    assert_refused(&k, EARLY, MP_EFORMAT, index, "\"a\" is said to be in", "in the same folder");
    init(&k, TINY_SD3);
    k.request.variant = "fp16";
    assert_refused(&k, EARLY, MP_EMISSING, "/text_encoder: no weights of variant \"fp16\"",
                   "weights without a variant");
}

/* ---- tokenizers ------------------------------------------------------------------------------ */

static void test_sd3_failures__a_tokenizer_without_its_files(void **state)
{
    static const char *const clips[] = {"tokenizer", "tokenizer_2"};
    char path[64], found[80];
    cell k;

    (void)state;
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/merges.txt", clips[i]);
        const char *const dir = broken_file(&k, path);
        snprintf(found, sizeof found, "/%s: has vocab.json without merges.txt", clips[i]);
        assert_refused(&k, EARLY, MP_EMISSING, found, "copy the whole folder of the tokenizer");
        snprintf(path, sizeof path, "%s/vocab.json", clips[i]);
        checkpoint_remove(dir, path);
        snprintf(found, sizeof found, "/%s: has neither tokenizer.json nor", clips[i]);
        assert_refused(&k, EARLY, MP_EMISSING, found, "copy the whole folder of the tokenizer");
        broken_file(&k, path);
        snprintf(found, sizeof found, "/%s: has merges.txt without vocab.json", clips[i]);
        assert_refused(&k, EARLY, MP_EMISSING, found, "copy the whole folder of the tokenizer");
    }
    broken_file(&k, "tokenizer_3/tokenizer.json");
    assert_refused(&k, EARLY, MP_EMISSING, "/tokenizer_3: has neither tokenizer.json nor",
                   "vocab.json and merges.txt", "copy the whole folder of the tokenizer");
}

/* transformers has defaults for what these files say; the weights do not depend on them. */
static void test_sd3_failures__a_tokenizer_without_its_configuration_is_enough(void **state)
{
    static const char *const files[] = {
        "tokenizer/tokenizer_config.json", "tokenizer/special_tokens_map.json",
        "tokenizer_2/tokenizer_config.json", "tokenizer_2/special_tokens_map.json"};
    cell k;
    trace right, t;

    (void)state;
    init(&k, TINY_SD3);
    assert_ok(cell_run(&k, ctx, &right));
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        broken_file(&k, files[i]);
        assert_ok(cell_run(&k, ctx, &t));
        trace_same(&t, &right, files[i]);
        trace_free(&t);
    }
    const char *const dir = broken_file(&k, "tokenizer_3/tokenizer.json");
    assert_int_equal(symlink(MP_FIXTURES "/tokenizers/t5-spm/spiece.model",
                             path_join(dir, "tokenizer_3/spiece.model").text),
                     0);
    assert_ok(cell_run(&k, ctx, &t));
    trace_same(&t, &right, "spiece.model");
    trace_free(&t);
    trace_free(&right);
}

/* depth lists in one another as the value of a key */
static char *deep_json(size_t depth)
{
    static const char start[] = "{\"a\": ";
    char *const text = calloc(1, sizeof start + 2 * depth + 1);

    assert_non_null(text);
    strcpy(text, start);
    memset(text + strlen(text), '[', depth);
    memset(text + strlen(text), ']', depth);
    strcat(text, "}");
    return text;
}

static void test_sd3_failures__a_tokenizer_file_that_is_no_json(void **state)
{
    static const char *const files[] = {
        "tokenizer/vocab.json",       "tokenizer/tokenizer_config.json",
        "tokenizer_2/vocab.json",     "tokenizer_2/tokenizer_config.json",
        "tokenizer_3/tokenizer.json", "tokenizer_3/tokenizer_config.json"};
    char *const deep = deep_json(100000);
    const struct {
        const char *text, *says;
    } cases[] = {{"", "line 1, column 0: "},
                 {"{\"a\": 1", "line 1, column 7: "},
                 {"[1]", "expected an object at the top"},
                 {"{\"a\": 1, \"a\": 2}", "duplicate object key"},
                 {"{\"a\": \"\xff\"}", "unable to decode byte 0xff"},
                 {"{\"a\": 1e999}", "real number overflow"},
                 {deep, "maximum parsing depth reached"}};
    cell k;

    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        for (size_t j = 0; j < sizeof cases / sizeof *cases; j++) {
            put(broken_file(&k, files[i]), files[i], cases[j].text);
            assert_refused(&k, LATE, MP_EFORMAT, files[i], cases[j].says);
        }
    free(deep);
}

/* Files cut at 302 bytes; of special_tokens_map.json, which is read where there is no
 * added_tokens_decoder. */
static void test_sd3_failures__a_tokenizer_file_that_is_cut(void **state)
{
    static const char *const files[] = {
        "tokenizer/vocab.json", "tokenizer/merges.txt", "tokenizer_2/tokenizer_config.json",
        "tokenizer_3/tokenizer.json", "tokenizer_3/tokenizer_config.json"};
    static const char map[] = "tokenizer_2/special_tokens_map.json";
    cell k;

    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        const char *const dir = broken_file(&k, files[i]);
        checkpoint_cut(dir, files[i], path_join(TINY_SD3, files[i]).text, 302);
        assert_refused(&k, LATE, MP_EFORMAT, files[i], ": line ");
    }
    const char *const dir = broken_file(&k, map);
    checkpoint_cut(dir, map, path_join(TINY_SD3, map).text, 100);
    checkpoint_remove(dir, "tokenizer_2/tokenizer_config.json");
    assert_refused(&k, LATE, MP_EFORMAT, map, ": line ");
}

static void test_sd3_failures__a_tokenizer_with_wrong_values(void **state)
{
    static const char vocab[] = "tokenizer/vocab.json", merges[] = "tokenizer_2/merges.txt",
                      config[] = "tokenizer_2/tokenizer_config.json",
                      json[] = "tokenizer_3/tokenizer.json",
                      t5[] = "tokenizer_3/tokenizer_config.json";
    static const edit edits[] = {
        {vocab,
         "\"<|endoftext|>\":603",
         "\"<|endoftext|>\":-1",
         LATE,
         MP_EFORMAT,
         {vocab, "vocab.<|endoftext|>", "an integer in 0..2147483647", "found -1"}},
        {vocab,
         "\"<|endoftext|>\":603",
         "\"<|endoftext|>\":2147483648",
         LATE,
         MP_EFORMAT,
         {vocab, "vocab.<|endoftext|>", "an integer in 0..2147483647"}},
        {vocab,
         "\"<|endoftext|>\":603",
         "\"<|endoftext|>\":\"603\"",
         LATE,
         MP_EFORMAT,
         {vocab, "vocab.<|endoftext|>", "found \"603\""}},
        {merges,
         "#version: 0.2\n",
         "#version: 0.2\nq qqq\n",
         LATE,
         MP_EFORMAT,
         {merges, "line 2: found \"qqq\", expected tokens of vocab.json",
          "take both files from one checkpoint"}},
        {merges,
         "#version: 0.2\n",
         "#version: 0.2\na\n",
         LATE,
         MP_EFORMAT,
         {merges, "line 2: expected two tokens with one space between them"}},
        {merges,
         "#version: 0.2\n",
         "#version: 0.2\na \xff\n",
         LATE,
         MP_EFORMAT,
         {merges, "expected lines of UTF-8"}},
        {config,
         "\"CLIPTokenizer\"",
         "\"GPT2Tokenizer\"",
         LATE,
         MP_EUNSUPPORTED,
         {config, "\"tokenizer_class\"", "found \"GPT2Tokenizer\""}},
        {config,
         "\"model_max_length\": 77",
         "\"model_max_length\": 1e400",
         LATE,
         MP_EFORMAT,
         {config, "real number overflow"}},
        {json, "\"Unigram\"", "\"WordPiece\"", LATE, MP_EUNSUPPORTED, {json, "WordPiece"}},
        {json,
         "[\"<unk>\",0.0]",
         "[\"<unk>\",\"0\"]",
         LATE,
         MP_EFORMAT,
         {json, "model.vocab[2]", "[\"token\", score]"}},
        {t5,
         "\"extra_ids\":100",
         "\"extra_ids\":1e9",
         LATE,
         MP_EFORMAT,
         {t5, "\"extra_ids\": expected an integer in 0..65536"}},
    };

    (void)state;
    CHECK_EDITS(edits);
}

static void test_sd3_failures__a_spiece_model_that_is_none(void **state)
{
    static const char file[] = "tokenizer_3/spiece.model";
    static const struct {
        long length; /* of the right file; < 0: text in its place */
        const char *text, *says;
    } cases[] = {{-1, "<html>404 not found</html>", "is damaged; expected a sentencepiece model"},
                 {-1, "{\"model\": 1}", "is damaged; expected a sentencepiece model"},
                 {1001, NULL, "is damaged; expected a sentencepiece model"},
                 {0, NULL, "has no piece \"</s>\", expected one"}};
    cell k;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *const dir = broken_file(&k, "tokenizer_3/tokenizer.json");
        if (cases[i].length < 0)
            put(dir, file, cases[i].text);
        else
            checkpoint_cut(dir, file, MP_FIXTURES "/tokenizers/t5-spm/spiece.model",
                           cases[i].length);
        assert_refused(&k, LATE, MP_EFORMAT, file, cases[i].says);
    }
}

/* As in Diffusers, a vocabulary may be larger than the encoder's table, as long as no prompt needs
 * the rest. */
static void test_sd3_failures__a_token_that_the_encoder_has_not(void **state)
{
    static const char vocab[] = "tokenizer/vocab.json";
    cell k;
    trace t;

    (void)state;
    const char *const dir = broken_file(&k, vocab);
    checkpoint_edit(dir, vocab, path_join(TINY_SD3, vocab).text, "\"!\":0,", "\"!\":9999,");
    assert_ok(cell_run(&k, ctx, &t));
    trace_free(&t);
    cell_text(&k, "prompt", "a red fox !!");
    assert_error(cell_run(&k, ctx, &t), MP_ESHAPE,
                 "token id 9999 at position 6 is outside the table of 604",
                 "tokenizer and text encoder do not belong together");
    assert_string_equal(t.err.module, "text_encoder.text_model.embeddings.token_embedding");
    trace_free(&t);
}

/* ---- prompts --------------------------------------------------------------------------------- */

static json_t *load_prompts(void)
{
    json_t *const all = json_load_file(MP_FIXTURES "/goldens/sd3/prompts.json", 0, NULL);

    assert_non_null(all);
    return all;
}

static void check_ids(const mp_tokenizer *t, const char *name, const char *text,
                      const json_t *golden)
{
    int32_t *ids;
    int64_t n;
    mp_error err = {0};

    mp_tokenizer_encode(t, text, strlen(text), true, &ids, &n, &err);
    assert_ok(&err);
    for (int64_t i = 0; i < n && i < (int64_t)json_array_size(golden); i++) {
        const int32_t wanted = (int32_t)json_integer_value(json_array_get(golden, (size_t)i));
        if (ids[i] != wanted)
            fail_msg("%s, \"%s\": id %d is %d, expected %d", name, text, (int)i, ids[i], wanted);
    }
    assert_int_equal(n, json_array_size(golden));
    mp_free(ids);
}

static void test_sd3_failures__odd_prompts_have_transformers_ids(void **state)
{
    static const char *const names[] = {"tokenizer", "tokenizer_2", "tokenizer_3"};
    json_t *const all = load_prompts();
    const json_t *const texts = json_object_get(all, "texts"), *c;
    size_t k;

    (void)state;
    assert_true(json_array_size(texts) >= 60);
    for (size_t i = 0; i < 3; i++) {
        mp_tokenizer *t = NULL;
        mp_error err = {0};
        mp_tokenizer_open(path_join(TINY_SD3, names[i]).text, &t, &err);
        assert_ok(&err);
        json_array_foreach (texts, k, c)
            check_ids(t, names[i], json_string_value(json_object_get(c, "text")),
                      json_array_get(json_object_get(c, "ids"), i));
        mp_tokenizer_close(t);
    }
    json_decref(all);
}

typedef struct lines {
    char text[4][512];
    size_t count;
} lines;

static void keep_line(void *user, const char *text)
{
    lines *const to = user;

    assert_in_range(to->count, 0, 3);
    snprintf(to->text[to->count++], sizeof to->text[0], "%s", text);
}

/* Equal up to "..." where what was cut off is longer than a line, and up to T5's text where the
 * pipeline does not show what it cut off: it begins with the 77th token whatever the limit. */
static void check_line(const char *line, const char *golden, int limit)
{
    const char *end = strstr(line, "...']");

    if (strstr(line, "`max_sequence_length`") && limit != 77)
        end = strstr(line, "tokens: [");
    if (end ? strncmp(line, golden, (size_t)(end - line)) != 0 : strcmp(line, golden) != 0)
        fail_msg("\"%s\" is not \"%s\"", line, golden);
}

static void check_warnings(const json_t *c)
{
    const json_t *const golden = json_object_get(c, "lines"), *line;
    const int limit = (int)json_integer_value(json_object_get(c, "max_sequence_length"));
    lines found = {.count = 0};
    const mp_sink sink = {.user = &found, .warn = keep_line};
    void *pipeline = NULL;
    mp_error err = {0};
    cell k;
    size_t i;

    init(&k, TINY_SD3);
    cell_text(&k, "prompt", json_string_value(json_object_get(c, "text")));
    cell_number(&k, "max_sequence_length", limit);
    mp_ctx_clear(ctx);
    k.pipeline->open(ctx, &k.request, &sink, &pipeline, &err);
    assert_ok(&err);
    k.pipeline->generate(ctx, pipeline, &sink, &err);
    assert_ok(&err);
    k.pipeline->close(pipeline);
    assert_int_equal(found.count, json_array_size(golden));
    json_array_foreach (golden, i, line)
        check_line(found.text[i], json_string_value(line), limit);
}

static void test_sd3_failures__a_prompt_that_is_cut_is_told_as_diffusers_does(void **state)
{
    json_t *const all = load_prompts();
    const json_t *const cases = json_object_get(all, "warnings"), *c;
    size_t i;

    (void)state;
    assert_true(json_array_size(cases) >= 7);
    json_array_foreach (cases, i, c)
        check_warnings(c);
    json_decref(all);
}

static void test_sd3_failures__prompts_of_no_words_and_of_no_utf8_run(void **state)
{
    static const char *const prompts[] = {"", " \t\n", "\xff\xc0\xaf",
                                          "\xed\xa0\x80 \xf4\x90\x80\x80"};
    cell k;
    trace t;

    (void)state;
    for (size_t i = 0; i < sizeof prompts / sizeof *prompts; i++) {
        init(&k, TINY_SD3);
        cell_text(&k, "prompt", prompts[i]);
        assert_ok(cell_run(&k, ctx, &t));
        assert_true(trace_finite(&t, "image"));
        trace_free(&t);
    }
}

/* A megabyte is cut like any long prompt; beyond the limit of a text it is refused. */
static void test_sd3_failures__a_prompt_of_a_megabyte(void **state)
{
    const size_t most = (size_t)16 << 20;
    char *const text = malloc(most + 2);
    cell k;
    trace t;

    (void)state;
    assert_non_null(text);
    memset(text, 'a', most + 1);
    text[1 << 20] = '\0';
    init(&k, TINY_SD3);
    cell_text(&k, "prompt", text);
    assert_ok(cell_run(&k, ctx, &t));
    assert_non_null(strstr(t.warnings, "sequences up to 77 tokens: ['aaaa"));
    trace_free(&t);
    text[1 << 20] = 'a';
    text[most + 1] = '\0';
    assert_error(cell_run(&k, ctx, &t), MP_EUSAGE, "a text of 16777217 bytes",
                 "expected at most 16777216", "shorten it");
    trace_free(&t);
    free(text);
}

/* ---- calls ----------------------------------------------------------------------------------- */

static void test_sd3_failures__sizes_that_cannot_be(void **state)
{
    static const struct {
        int height, width;
        const char *says;
    } cases[] = {
        /* check_inputs' own words */
        {72, 64,
         "`height` and `width` have to be divisible by 16 but are 72 and 64.You can use height 64 "
         "and width 64."},
        {64, 65, "but are 64 and 65.You can use height 64 and width 64."},
        {8, 1, "but are 8 and 1.You can use height 16 and width 16."}, /* it would say 0 and 0 */
        {400, 64,
         "(400 and 64) are larger than the 384 that the table of positions allows "
         "(pos_embed_max_size 24)"},
        {64, 32768, "(64 and 32768) are larger than the 384"},
    };
    cell k;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        init(&k, TINY_SD3);
        cell_number(&k, "height", cases[i].height);
        cell_number(&k, "width", cases[i].width);
        assert_refused(&k, EARLY, MP_EUSAGE, cases[i].says);
    }
}

static void test_sd3_failures__arguments_out_of_range(void **state)
{
    const char *many[66] = {NULL};
    cell k;

    (void)state;
    init(&k, TINY_SD3);
    cell_number(&k, "clip_skip", 3);
    assert_refused(&k, EARLY, MP_EUSAGE,
                   "clip_skip: found 3, expected 0..2: text_encoder has 3 layers");
    for (int i = 0; i < 65; i++)
        many[i] = "0";
    init(&k, TINY_SD3);
    cell_input(&k, "skip_guidance_layers")->list = many;
    assert_refused(&k, EARLY, MP_EUSAGE, "skip_guidance_layers: 65 layers, expected at most 64");
}

/* As in Diffusers: no block has that index, and a guidance that is not above 1 is none. */
static void test_sd3_failures__arguments_that_do_nothing(void **state)
{
    static const char *const beyond[] = {"2", "1000", NULL};
    cell k;
    trace right, t;

    (void)state;
    init(&k, TINY_SD3);
    assert_ok(cell_run(&k, ctx, &right));
    cell_number(&k, "guidance_scale", NAN);
    assert_ok(cell_run(&k, ctx, &t));
    trace_same(&t, &right, "a guidance of NaN");
    trace_free(&t);
    trace_free(&right);
    cell_number(&k, "guidance_scale", 4);
    assert_ok(cell_run(&k, ctx, &right));
    cell_number(&k, "skip_layer_guidance_start", 0);
    cell_number(&k, "skip_layer_guidance_stop", 1);
    cell_input(&k, "skip_guidance_layers")->list = beyond;
    assert_ok(cell_run(&k, ctx, &t));
    assert_true(trace_distance(&t, &right, "image") < 1e-6); /* adds scale * (x - x) */
    trace_free(&t);
    trace_free(&right);
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* Guidance, tiles, warnings. */
static void whole_call(cell *k)
{
    init(k, TINY_SD3);
    cell_dtype(k, MP_BF16);
    cell_number(k, "guidance_scale", 4);
    cell_number(k, "height", 48);
    cell_number(k, "max_sequence_length", 4);
    k->request.tiling = (mp_tiling){true, 32, 32, 24, 24};
}

static void test_sd3_failures__check_says_so_wherever_memory_runs_out(void **state)
{
    mp_error err = {.code = MP_ENOMEM};
    uint64_t n = 0;
    cell k;

    (void)state;
    whole_call(&k);
    while (err.code) {
        err = (mp_error){0};
        mp_memory_fail_at(++n);
        k.pipeline->check(&k.request, &err);
        mp_memory_fail_at(0);
        if (err.code && err.code != MP_ENOMEM)
            fail_msg("request %llu: %s", (unsigned long long)n, err.text);
    }
    assert_true(n > 500);
}

/* Opens and generates with the n-th request failed, counted from where generate begins if `opened`;
 * false: there were fewer.  Nothing leaks (AddressSanitizer) or stays in the pool. */
static bool run_failing(const cell *k, uint64_t n, bool opened, const trace *right, uint64_t *said)
{
    void *pipeline = NULL;
    trace t = {0};
    const mp_sink sink = trace_sink(&t);
    uint64_t before = mp_memory_requests();

    mp_memory_fail_at(opened ? 0 : n);
    if (!k->pipeline->open(ctx, &k->request, &sink, &pipeline, &t.err)) {
        if (opened) {
            before = mp_memory_requests();
            mp_memory_fail_at(n);
        }
        k->pipeline->generate(ctx, pipeline, &sink, &t.err);
    }
    mp_memory_fail_at(0);
    const bool done = mp_memory_requests() - before < n;
    k->pipeline->close(pipeline);
    *said += t.err.code != MP_OK;
    if (!t.err.code)
        trace_same(&t, right, "a request for memory failed and nothing was said");
    else if (t.err.code != MP_ENOMEM)
        fail_msg("request %llu: %s", (unsigned long long)n, t.err.text);
    mp_ctx_clear(ctx);
    assert_int_equal(mp_pool_get(ctx).live, 0);
    trace_free(&t);
    return !done;
}

/* Whatever request fails, it is said, or the result is right all the same (a buffer reserved for a
 * case that did not come: one for each pre-tokenizer).  Of open, which reads thousands of tokens
 * one like the other, every 7th; its parts' own tests take each. */
static void test_sd3_failures__says_so_wherever_memory_runs_out(void **state)
{
    uint64_t said = 0, runs = 0, n;
    cell k;
    trace right;

    (void)state;
    whole_call(&k);
    assert_ok(cell_run(&k, ctx, &right));
    for (n = 1; run_failing(&k, n, false, &right, &said); n += 7)
        runs++;
    assert_true(runs > 100 && said + runs / 20 >= runs);
    print_message("%llu of %llu failed requests are said\n", (unsigned long long)said,
                  (unsigned long long)runs);
    said = 0;
    for (n = 1; run_failing(&k, n, true, &right, &said); n++)
        continue;
    print_message("generate: %llu of %llu\n", (unsigned long long)said, (unsigned long long)n - 1);
    assert_true(n > 50 && said + n / 10 >= n - 1);
    trace_free(&right);
}

/* The limit of activations: refused with the module that asked for too much, until it suffices. */
static void test_sd3_failures__says_which_module_exceeds_the_memory_limit(void **state)
{
    int refusals = 0, modules = 0;
    cell k;
    trace t;

    (void)state;
    whole_call(&k);
    for (size_t limit = 1 << 12;; limit *= 2) {
        const mp_device_options o = {.threads = 1, .memory_limit = limit};
        mp_error err = {0};
        mp_ctx *c = NULL;
        assert_int_equal(mp_device_open(&o, &c, &err), MP_OK);
        cell_run(&k, c, &t);
        const size_t peak = mp_pool_get(c).peak;
        mp_device_close(c);
        trace_free(&t);
        assert_true(peak <= limit);
        if (!t.err.code)
            break;
        assert_int_equal(t.err.code, MP_ENOMEM);
        assert_non_null(strstr(t.err.text, "no memory for"));
        assert_true(t.err.op[0]);
        modules += t.err.module[0] != '\0'; /* the pipeline's own few ops belong to none */
        refusals++;
        assert_true(limit < 1 << 28);
    }
    assert_true(refusals > 3 && modules > 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sd3_failures__an_index_that_is_not_of_this_pipeline),
        cmocka_unit_test(test_sd3_failures__a_t5_that_is_null_is_not_opened),
        cmocka_unit_test(test_sd3_failures__a_component_that_is_not_there),
        cmocka_unit_test(test_sd3_failures__a_configuration_that_is_missing_or_no_json),
        cmocka_unit_test(test_sd3_failures__a_configuration_with_wrong_values),
        cmocka_unit_test(test_sd3_failures__parts_of_different_models),
        cmocka_unit_test(test_sd3_failures__weights_that_are_cut),
        cmocka_unit_test(test_sd3_failures__weights_with_other_tensors),
        cmocka_unit_test(test_sd3_failures__weights_of_other_shapes),
        cmocka_unit_test(test_sd3_failures__weights_that_are_elsewhere),
        cmocka_unit_test(test_sd3_failures__a_tokenizer_without_its_files),
        cmocka_unit_test(test_sd3_failures__a_tokenizer_without_its_configuration_is_enough),
        cmocka_unit_test(test_sd3_failures__a_tokenizer_file_that_is_no_json),
        cmocka_unit_test(test_sd3_failures__a_tokenizer_file_that_is_cut),
        cmocka_unit_test(test_sd3_failures__a_tokenizer_with_wrong_values),
        cmocka_unit_test(test_sd3_failures__a_spiece_model_that_is_none),
        cmocka_unit_test(test_sd3_failures__a_token_that_the_encoder_has_not),
        cmocka_unit_test(test_sd3_failures__odd_prompts_have_transformers_ids),
        cmocka_unit_test(test_sd3_failures__a_prompt_that_is_cut_is_told_as_diffusers_does),
        cmocka_unit_test(test_sd3_failures__prompts_of_no_words_and_of_no_utf8_run),
        cmocka_unit_test(test_sd3_failures__a_prompt_of_a_megabyte),
        cmocka_unit_test(test_sd3_failures__sizes_that_cannot_be),
        cmocka_unit_test(test_sd3_failures__arguments_out_of_range),
        cmocka_unit_test(test_sd3_failures__arguments_that_do_nothing),
        cmocka_unit_test(test_sd3_failures__check_says_so_wherever_memory_runs_out),
        cmocka_unit_test(test_sd3_failures__says_so_wherever_memory_runs_out),
        cmocka_unit_test(test_sd3_failures__says_which_module_exceeds_the_memory_limit),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
