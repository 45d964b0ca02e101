/* One scenario: every key with its good values, every way to get it wrong with the whole message,
 * and the JSON schema for editors beside the tables it speaks of. */
#include "tests/pipelines/scratch.h"

#include <dirent.h>
#include <jansson.h>
#include <math.h>

#include "harness/plan.h"
#include "harness/scenario_inputs.h"
#include "harness/scenario_schema.h"
#include "harness/scenario_values.h"

static mp_arena *arena;

static int setup(void **state)
{
    arena = mp_arena_create();
    return scratch_setup(state);
}

static int teardown(void **state)
{
    mp_arena_free(arena);
    return scratch_teardown(state);
}

/* ---- building ------------------------------------------------------------------------------- */

/* Four lines that make a scenario; what a test adds begins on line 5. */
#define HEAD "name: t\npipeline: sana\ncheckpoint: /models/x\ninputs: {prompt: fox, steps: 6}\n"

static mp_code build_text(const char *text, mp_scenario *s, mp_error *err)
{
    mp_yaml *root;

    if (mp_yaml_parse(arena, "dir/x.yaml", text, strlen(text), &root, err))
        return err->code;
    return mp_scenario_build(arena, root, s, err);
}

static mp_scenario whole(const char *text)
{
    mp_scenario s;
    mp_error err = {0};

    build_text(text, &s, &err);
    assert_ok(&err);
    return s;
}

static mp_scenario good(const char *lines)
{
    return whole(mp_arena_printf(arena, HEAD "%s\n", lines));
}

static void refused(const char *text, const char *message)
{
    mp_scenario s;
    mp_error err = {0};

    build_text(text, &s, &err);
    if (err.code != MP_EUSAGE)
        fail_msg("%s (%s) for:\n%s\nexpected: %s", mp_code_name(err.code), err.text, text, message);
    assert_string_equal(err.text, message);
}

static void bad(const char *lines, const char *message)
{
    refused(mp_arena_printf(arena, HEAD "%s\n", lines),
            mp_arena_printf(arena, "dir/x.yaml:%s", message));
}

static void setting(const mp_scenario *s, const char *key, const char *value)
{
    const char *is = mp_scenario_setting(s, key);

    if (!is || strcmp(is, value))
        fail_msg("%s is %s, expected %s", key, is ? is : "not set", value);
}

static void has(const char *lines, const char *key, const char *value)
{
    const mp_scenario s = good(lines);
    setting(&s, key, value);
}

/* ---- the top level -------------------------------------------------------------------------- */

static void test_scenario__the_least_one_has_all_the_defaults(void **state)
{
    const mp_scenario s = good("");

    (void)state;
    assert_string_equal(s.name, "t");
    assert_string_equal(s.description, "");
    assert_string_equal(s.pipeline->name, "sana");
    assert_string_equal(s.request.checkpoint, "/models/x");
    assert_null(s.request.variant);
    assert_null(s.request.quirks);
    assert_int_equal(s.request.precision.dtype, MP_F32);
    assert_int_equal(s.request.precision.policy, MP_STRICT);
    assert_false(s.request.precision.load_to);
    assert_false(s.request.tiling.on);
    assert_int_equal(s.e4m3, MP_E4M3_SATURATE);
    assert_int_equal(s.repeat, 1);
    assert_int_equal(s.warmup, 0);
    assert_true(s.timeout == 3600);
    assert_int_equal(s.memory, 0);
    assert_true(s.reference);
    assert_int_equal(s.reference_dtype, MP_F32);
    assert_int_equal(s.expect_count + s.budget_count, 0);
}

static void test_scenario__a_name_is_fit_for_a_folder(void **state)
{
    static const char *const names[] = {
        "a", "A-b_c.9", "_", "7",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        "aaaaaaaaaaaaaaaaaaaa"};
    static const char *const not [] = {
        "a/b",
        "..",
        ".x",
        "a b",
        "caf\xc3\xa9",
        "''",
        "\"a\\nb\"",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        "aaaaaaaaaaaaaaaaaaaaa"};
    const char *rest = "\npipeline: sana\ncheckpoint: /x\ninputs: {prompt: p}\n";

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_string_equal(whole(mp_arena_printf(arena, "name: %s%s", names[i], rest)).name,
                            names[i]);
    for (size_t i = 0; i < sizeof not / sizeof *not ; i++) {
        mp_scenario s;
        mp_error err = {0};
        build_text(mp_arena_printf(arena, "name: %s%s", not [i], rest), &s, &err);
        assert_error(&err, MP_EUSAGE, "dir/x.yaml:1:1: key 'name': found \"",
                     ", expected letters, digits, '-', '_' and '.', at most 80");
    }
}

static void test_scenario__what_must_be_there_is_asked_for(void **state)
{
    (void)state;
    refused("pipeline: sana\n", "dir/x.yaml:1:1: the key 'name' is missing; a scenario needs one");
    refused("name: t\n",
            "dir/x.yaml:1:1: the key 'pipeline' is missing; this build has: sana, sd3, wan-vace");
    refused("name: t\npipeline: sana\n",
            "dir/x.yaml:1:1: the key 'checkpoint' is missing; expected the folder of a checkpoint "
            "in Diffusers layout");
    refused("name: t\npipeline: sana\ncheckpoint: ''\n",
            "dir/x.yaml:3:1: the key 'checkpoint' is missing; expected the folder of a checkpoint "
            "in Diffusers layout");
    refused("name: t\npipeline: sana\ncheckpoint: /x\n",
            "dir/x.yaml:1:1: inputs: 'prompt' is missing, expected a text");
    refused("name: t\npipeline: sana\ncheckpoint: /x\ninputs: {steps: 6}\n",
            "dir/x.yaml:4:9: inputs: 'prompt' is missing, expected a text");
    refused("[a]\n", "dir/x.yaml:1:1: found a list of 1, expected a map with name, pipeline, "
                     "checkpoint and inputs");
    refused("name: [a]\n", "dir/x.yaml:1:1: key 'name': found a list of 1, expected letters, "
                           "digits, '-', '_' and '.', at most 80");
}

static void test_scenario__an_unknown_pipeline_offers_the_nearest(void **state)
{
    (void)state;
    refused("name: t\npipeline: sama\n", "dir/x.yaml:2:1: unknown pipeline \"sama\"; did you mean "
                                         "\"sana\"?; this build has: sana, sd3, wan-vace");
    refused("name: t\npipeline: flux-dev\n",
            "dir/x.yaml:2:1: unknown pipeline \"flux-dev\"; this build has: sana, sd3, wan-vace");
    refused("name: t\npipeline: {a: 1}\n",
            "dir/x.yaml:2:1: key 'pipeline': found a map, expected the name of a pipeline");
}

static void test_scenario__a_checkpoint_is_relative_to_its_file(void **state)
{
    const char *rest = "name: t\npipeline: sana\ninputs: {prompt: p}\ncheckpoint: ";
    const mp_scenario s = whole(mp_arena_printf(arena, "%s../m/sana-tiny/\n", rest));

    (void)state;
    assert_string_equal(s.request.checkpoint, "dir/../m/sana-tiny/");
    setting(&s, "checkpoint", "sana-tiny");
    assert_string_equal(whole(mp_arena_printf(arena, "%s/m/x\n", rest)).request.checkpoint, "/m/x");
    refused(mp_arena_printf(arena, "%s[a]\n", rest),
            "dir/x.yaml:4:1: key 'checkpoint': found a list of 1, expected the folder of a "
            "checkpoint in Diffusers layout");
}

static void test_scenario__an_unknown_key_offers_the_nearest_at_every_level(void **state)
{
    (void)state;
    bad("tilling: off",
        "5:1: unknown key 'tilling'; did you mean 'tiling'?; expected one of: name, description, "
        "pipeline, checkpoint, variant, inputs, precision, tiling, quirks, matrix, expect, budgets, "
        "repeat, warmup, timeout, memory, offload, reference");
    bad("precision: {defualt: bf16}",
        "5:13: unknown key 'defualt' in precision; did you mean 'default'?; expected one of: "
        "default, components, storage, overrides, policy, load, e4m3");
    bad("precision: {overrides: [{mach: x, dtype: fp16}]}",
        "5:26: unknown key 'mach' in overrides[]; did you mean 'match'?; expected one of: match, "
        "dtype");
    bad("tiling: {tiles: [32, 32]}", "5:10: unknown key 'tiles' in tiling; did you mean 'tile'?; "
                                     "expected one of: tile, stride");
    bad("expect: [{whem: {}}]", "5:11: unknown key 'whem' in expect[]; did you mean 'when'?; "
                                "expected one of: when, engine, error, status, outcome");
    bad("budgets: {psnr: 40}",
        "5:11: unknown key 'psnr' in budgets; expected one of: latent_rel_l2, image_rel_l2, "
        "psnr_db, ssim, seam, peak_mib, seconds");
    bad("budgets: {psnr_bd: 40}",
        "5:11: unknown key 'psnr_bd' in budgets; did you mean 'psnr_db'?; expected one of: "
        "latent_rel_l2, image_rel_l2, psnr_db, ssim, seam, peak_mib, seconds");
    bad("expect: [{when: {precision.defalt: bf16}, status: ok}]",
        "5:18: unknown key 'defalt' in precision; did you mean 'default'?; expected one of: "
        "default, components, storage, overrides, policy, load, e4m3");
    bad("precision: {components: {vea: fp16}}",
        "5:26: unknown component 'vea' in precision.components; did you mean 'vae'?; the pipeline "
        "sana has: text_encoder, transformer, vae");
    bad("precision: {storage: {unet: fp16}}",
        "5:23: unknown component 'unet' in precision.storage; the pipeline sana has: text_encoder, "
        "transformer, vae");
    bad("quirks: [sana-quadratic-no-upcas]",
        "5:10: unknown quirk 'sana-quadratic-no-upcas'; did you mean 'sana-quadratic-no-upcast'?; "
        "the pipeline sana has: sana-quadratic-no-upcast");
    bad("precision.default: bf16",
        "5:1: unknown key 'precision.default'; expected one of: name, description, pipeline, "
        "checkpoint, variant, inputs, precision, tiling, quirks, matrix, expect, budgets, repeat, "
        "warmup, timeout, memory, offload, reference");
}

static void test_scenario__variants_are_parts_of_file_names(void **state)
{
    (void)state;
    has("variant: fp16", "variant", "fp16");
    has("variant: none", "variant", "none");
    has("variant:", "variant", "none");
    assert_string_equal(good("variant: fp16").request.variant, "fp16");
    bad("variant: ../x",
        "5:1: key 'variant': found \"../x\", expected a file variant such as fp16");
    bad("variant: [a]",
        "5:1: key 'variant': found a list of 1, expected a file variant such as fp16");
}

static void test_scenario__repeat_and_warmup_are_small_integers(void **state)
{
    (void)state;
    assert_int_equal(good("repeat: 10000").repeat, 10000);
    assert_int_equal(good("repeat: 2.0").repeat, 2);
    assert_int_equal(good("repeat:").repeat, 1);
    assert_int_equal(good("warmup: 0").warmup, 0);
    assert_int_equal(good("warmup: 1000").warmup, 1000);
    bad("repeat: 0", "5:1: key 'repeat': found \"0\", expected an integer from 1 to 10000");
    bad("repeat: 10001", "5:1: key 'repeat': found \"10001\", expected an integer from 1 to 10000");
    bad("repeat: 1.5", "5:1: key 'repeat': found \"1.5\", expected an integer from 1 to 10000");
    bad("repeat: 1e99", "5:1: key 'repeat': found \"1e99\", expected an integer from 1 to 10000");
    bad("repeat: '3'",
        "5:1: key 'repeat': found the text \"3\" in quotes, expected an integer from 1 to 10000");
    bad("repeat: often", "5:1: key 'repeat': found \"often\", expected an integer from 1 to 10000");
    bad("warmup: -1", "5:1: key 'warmup': found \"-1\", expected an integer from 0 to 1000");
    bad("warmup: {a: 1}", "5:1: key 'warmup': found a map, expected an integer from 0 to 1000");
}

static void test_scenario__a_reference_is_a_dtype_or_off(void **state)
{
    (void)state;
    has("", "reference", "fp32");
    has("reference: bf16", "reference", "bf16");
    has("reference: torch.float16", "reference", "fp16");
    has("reference: off", "reference", "off");
    assert_false(good("reference: none").reference);
    bad("reference: fp64",
        "5:1: key 'reference': found \"fp64\", expected fp32, off, or another dtype");
    bad("reference: [fp32]",
        "5:1: key 'reference': found a list of 1, expected fp32, off, or another dtype");
}

/* ---- durations and sizes -------------------------------------------------------------------- */

static void test_scenario__durations_have_units(void **state)
{
    static const struct {
        const char *text;
        double seconds;
    } cases[] = {{"600s", 600}, {"10m", 600},    {"10min", 600}, {"24h", 86400}, {"1.5h", 5400},
                 {"90", 90},    {"250ms", 0.25}, {"2d", 172800}, {".5", 0.5},    {"1e3s", 1000}};
    static const char *const not [] = {"",    "s",     "-5s",  "0",     "10 m", "10x", "1e400",
                                       "inf", "nan",   "0x10", "1e10s", "5s ",  " 5s", "+5s",
                                       "5 s", "1h30m", "1,5h", "fast",  "ms"};
    double seconds;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (!mp_parse_duration(cases[i].text, &seconds) || seconds != cases[i].seconds)
            fail_msg("%s is not %g s", cases[i].text, cases[i].seconds);
    }
    for (size_t i = 0; i < sizeof not / sizeof *not ; i++)
        if (mp_parse_duration(not [i], &seconds))
            fail_msg("\"%s\" is read as %g s", not [i], seconds);
    assert_true(good("timeout: 2m").timeout == 120);
    assert_true(good("timeout: 90").timeout == 90);
    bad("timeout: never",
        "5:1: key 'timeout': found \"never\", expected a time such as 600s, 10m or 24h");
    bad("timeout: [1]",
        "5:1: key 'timeout': found a list of 1, expected a time such as 600s, 10m or 24h");
}

static void test_scenario__sizes_have_units(void **state)
{
    static const struct {
        const char *text;
        size_t bytes;
    } cases[] = {{"512MiB", (size_t)512 << 20},
                 {"8GiB", (size_t)8 << 30},
                 {"1.5KiB", 1536},
                 {"1000", 1000},
                 {"2kB", 2000},
                 {"2KB", 2000},
                 {"3MB", 3000000},
                 {"1GB", 1000000000},
                 {"7B", 7},
                 {"1TiB", (size_t)1 << 40},
                 {"1TB", 1000000000000}};
    static const char *const not [] = {"",    "MiB", "-1",  "0",    "0.5", "1 GiB", "1gib",
                                       "1Gb", "1G",  "inf", "1e30", "0x1", "9e18B", "lots"};
    size_t bytes;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (!mp_parse_size(cases[i].text, &bytes) || bytes != cases[i].bytes)
            fail_msg("%s is not %zu bytes", cases[i].text, cases[i].bytes);
    for (size_t i = 0; i < sizeof not / sizeof *not ; i++)
        if (mp_parse_size(not [i], &bytes))
            fail_msg("\"%s\" is read as %zu bytes", not [i], bytes);
    assert_int_equal(good("memory: 2MiB").memory, 2 << 20);
    has("memory: 1KiB", "memory", "1024");
    has("memory: off", "memory", "none");
    bad("memory: big", "5:1: key 'memory': found \"big\", expected a size such as 512MiB or 8GiB");
}

/* ---- inputs --------------------------------------------------------------------------------- */

static const mp_input *input(const mp_scenario *s, const char *name)
{
    for (int i = 0; i < s->request.input_count; i++)
        if (!strcmp(s->request.inputs[i].field->name, name))
            return &s->request.inputs[i];
    fail_msg("no input %s", name);
    return NULL;
}

#define BASE "name: t\npipeline: sana\ncheckpoint: /x\n"

static mp_scenario inputs(const char *map)
{
    return whole(mp_arena_printf(arena, BASE "inputs: %s\n", map));
}

static void bad_inputs(const char *map, const char *message)
{
    refused(mp_arena_printf(arena, BASE "inputs: %s\n", map),
            mp_arena_printf(arena, "dir/x.yaml:%s", message));
}

static void test_inputs__have_the_defaults_of_the_pipeline(void **state)
{
    const mp_scenario s = inputs("{prompt: a fox}");

    (void)state;
    assert_int_equal(s.request.input_count, s.pipeline->input_count);
    assert_string_equal(input(&s, "prompt")->text, "a fox");
    assert_string_equal(input(&s, "negative_prompt")->text, "");
    assert_true(input(&s, "num_inference_steps")->number == 20);
    assert_true(input(&s, "guidance_scale")->number == 4.5);
    assert_true(input(&s, "height")->number == 1024);
    assert_true(input(&s, "use_resolution_binning")->number == 1);
    assert_ptr_equal(input(&s, "complex_human_instruction")->list,
                     input(&s, "complex_human_instruction")->field->fallback_list);
    setting(&s, "inputs.complex_human_instruction", "default");
}

static void test_inputs__long_and_short_names_are_the_same_setting(void **state)
{
    const mp_scenario brief = inputs("{prompt: p, steps: 6, guidance: 0.1}");
    const mp_scenario full = inputs("{prompt: p, num_inference_steps: 6, guidance_scale: 0.1}");

    (void)state;
    assert_true(input(&brief, "num_inference_steps")->number == 6);
    assert_true(mp_scenario_same(&brief, &full));
    setting(&full, "inputs.steps", "6");
    setting(&full, "inputs.num_inference_steps", "6");
    setting(&full, "inputs.guidance", "0.1");
    assert_null(mp_scenario_setting(&full, "inputs.colour"));
    bad_inputs("{prompt: p, steps: 6, num_inference_steps: 6}",
               "4:31: 'num_inference_steps' and 'steps' are the same input; keep one");
    bad_inputs("{prompt: p, guidance_scale: 1, guidance: 2}",
               "4:21: 'guidance_scale' and 'guidance' are the same input; keep one");
}

static void test_inputs__wrong_values_name_the_key_as_it_was_written(void **state)
{
    (void)state;
    bad_inputs("{prompt: p, steps: many}",
               "4:21: key 'inputs.steps': found \"many\", expected an integer from 1 to 1000");
    bad_inputs("{prompt: p, num_inference_steps: 0}",
               "4:21: key 'inputs.num_inference_steps': found \"0\", expected an integer from 1 to "
               "1000");
    bad_inputs("{prompt: p, steps: 1001}",
               "4:21: key 'inputs.steps': found \"1001\", expected an integer from 1 to 1000");
    bad_inputs("{prompt: p, steps: 2.5}",
               "4:21: key 'inputs.steps': found \"2.5\", expected an integer from 1 to 1000");
    bad_inputs("{prompt: p, steps: '6'}",
               "4:21: key 'inputs.steps': found the text \"6\" in quotes, "
               "expected an integer from 1 to 1000");
    bad_inputs("{prompt: p, guidance: .nan}",
               "4:21: key 'inputs.guidance': found \".nan\", expected a number from -1e+06 to "
               "1e+06");
    bad_inputs("{prompt: p, eta: 2}",
               "4:21: key 'inputs.eta': found \"2\", expected a number from 0 to 1");
    bad_inputs("{prompt: p, seed: -1}",
               "4:21: key 'inputs.seed': found \"-1\", expected an integer "
               "from 0 to 9007199254740992");
    bad_inputs("{prompt: p, clean_caption: yes}",
               "4:21: key 'inputs.clean_caption': found \"yes\", expected true or false");
    bad_inputs("{prompt: [a, b]}", "4:10: key 'inputs.prompt': found a list of 2, expected a text");
    bad_inputs("{prompt: p, complex_human_instruction: text}",
               "4:21: key 'inputs.complex_human_instruction': found \"text\", expected a list of "
               "texts, [] to switch it off, or default");
    bad_inputs(
        "{prompt: p, complex_human_instruction: [[a]]}",
        "4:21: key 'inputs.complex_human_instruction': found a list of 1, expected a list of "
        "texts, [] to switch it off, or default");
    bad_inputs("{prompt: }", "4:9: inputs: 'prompt' is missing, expected a text");
    bad_inputs("[a]", "4:1: key 'inputs': found a list of 1, expected a map of the pipeline's call "
                      "arguments");
    bad_inputs("{prompt: p, stpes: 6}",
               "4:21: unknown key 'stpes' in inputs; did you mean 'steps'?; the pipeline sana "
               "takes: prompt, negative_prompt, steps, guidance, num_images_per_prompt, height, "
               "width, eta, seed, clean_caption, use_resolution_binning, max_sequence_length, "
               "complex_human_instruction");
}

static void test_inputs__become_settings_that_read_back(void **state)
{
    const mp_scenario s =
        inputs("{prompt: '', seed: 9007199254740992, guidance: 0.30000000000000004, width: 64.0, "
               "clean_caption: FALSE, complex_human_instruction: ['a \"b\"', 'c, d']}");

    (void)state;
    setting(&s, "inputs.prompt", "");
    setting(&s, "inputs.seed", "9007199254740992");
    setting(&s, "inputs.guidance", "0.30000000000000004");
    setting(&s, "inputs.width", "64");
    setting(&s, "inputs.clean_caption", "false");
    setting(&s, "inputs.complex_human_instruction", "[\"a \\\"b\\\"\", \"c, d\"]");
    const mp_scenario off = inputs("{prompt: p, complex_human_instruction: }");
    const mp_scenario empty = inputs("{prompt: p, complex_human_instruction: []}");
    assert_null(input(&off, "complex_human_instruction")->list[0]);
    assert_true(mp_scenario_same(&off, &empty));
    setting(&off, "inputs.complex_human_instruction", "[]");
    const mp_scenario own = inputs("{prompt: p, complex_human_instruction: default}");
    setting(&own, "inputs.complex_human_instruction", "default");
    const mp_scenario number = inputs("{prompt: 7}");
    assert_string_equal(input(&number, "prompt")->text, "7");
}

static void test_inputs__a_size_of_no_multiple_of_32_is_refused_by_the_pipeline(void **state)
{
    mp_scenario s = whole(mp_arena_printf(
        arena, BASE "inputs: {prompt: p, height: 80, width: 64, use_resolution_binning: false}\n"));
    mp_error err = {0};

    (void)state;
    s.request.checkpoint = MP_FIXTURES "/checkpoints/sana-tiny";
    s.pipeline->check(&s.request, &err);
    assert_error(&err, MP_EUSAGE, "have to be divisible by 32 but are 80 and 64", "Use 96 and 64");
}

/* ---- precision ------------------------------------------------------------------------------ */

static void test_precision__dtypes_have_the_names_of_torch(void **state)
{
    static const struct {
        const char *text;
        mp_dtype dtype;
    } cases[] = {{"fp32", MP_F32},
                 {"float32", MP_F32},
                 {"float", MP_F32},
                 {"torch.float32", MP_F32},
                 {"fp16", MP_F16},
                 {"float16", MP_F16},
                 {"half", MP_F16},
                 {"torch.float16", MP_F16},
                 {"bf16", MP_BF16},
                 {"bfloat16", MP_BF16},
                 {"torch.bfloat16", MP_BF16},
                 {"fp8_e4m3", MP_F8_E4M3},
                 {"float8_e4m3fn", MP_F8_E4M3},
                 {"fp8_e5m2", MP_F8_E5M2},
                 {"float8_e5m2", MP_F8_E5M2}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const mp_scenario s =
            good(mp_arena_printf(arena, "precision: {default: %s}", cases[i].text));
        assert_int_equal(s.request.precision.dtype, cases[i].dtype);
        setting(&s, "precision.default", mp_dtype_name(cases[i].dtype));
    }
    bad("precision: {default: int8}",
        "5:13: key 'precision.default': found \"int8\", expected a dtype: fp32, fp16, bf16, "
        "fp8_e4m3, fp8_e5m2");
    bad("precision: {default: [bf16]}",
        "5:13: key 'precision.default': found a list of 1, expected a dtype: fp32, fp16, bf16, "
        "fp8_e4m3, fp8_e5m2");
    bad("precision: bf16", "5:1: key 'precision': found \"bf16\", expected a map");
}

static void test_precision__components_and_storage_are_in_the_pipelines_order(void **state)
{
    const mp_scenario s = good("precision:\n  components: {vae: float32, text_encoder: bf16}\n"
                               "  storage: {transformer: fp8_e4m3}");
    const mp_precision *p = &s.request.precision;

    (void)state;
    assert_int_equal(p->component_count, 2);
    assert_string_equal(p->components[0].component, "text_encoder");
    assert_int_equal(p->components[0].dtype, MP_BF16);
    assert_string_equal(p->components[1].component, "vae");
    assert_int_equal(p->storage_count, 1);
    setting(&s, "precision.components.vae", "fp32");
    setting(&s, "precision.storage.transformer", "fp8_e4m3");
    assert_null(mp_scenario_setting(&s, "precision.components"));
    assert_string_equal(mp_scenario_value(arena, &s, "precision.components"),
                        "text_encoder:bf16+vae:fp32");
    assert_null(mp_scenario_value(arena, &s, "precision.comp"));
    const mp_scenario same = good("precision: {components: text_encoder:bf16+vae:fp32, storage: "
                                  "transformer:fp8_e4m3}");
    assert_true(mp_scenario_same(&s, &same));
    has("precision: {components: {}}", "precision.components", "none");
    has("precision: {components: none, storage: off}", "precision.storage", "none");
    has("precision: {components: {vae: }}", "precision.components", "none");
}

static void test_precision__wrong_components_are_refused(void **state)
{
    (void)state;
    bad("precision: {components: {vae: fp15}}",
        "5:26: key 'precision.components.vae': found \"fp15\", expected a dtype: fp32, fp16, bf16, "
        "fp8_e4m3, fp8_e5m2");
    bad("precision: {storage: {vae: [fp16]}}",
        "5:23: key 'precision.storage.vae': found a list of 1, expected a dtype: fp32, fp16, bf16, "
        "fp8_e4m3, fp8_e5m2");
    bad("precision: {components: [vae]}", "5:13: key 'precision.components': found a list of 1, "
                                          "expected a map from component to dtype");
    bad("precision: {components: vae}",
        "5:13: key 'precision.components': found \"vae\", expected a map from component to dtype");
    bad("precision: {components: vae:fp16+vae:bf16}",
        "5:13: key 'precision.components': found \"vae:fp16+vae:bf16\", expected a map from "
        "component to dtype");
    bad("precision: {components: vea:fp16}",
        "5:25: unknown component 'vea' in precision.components; did you mean 'vae'?; the pipeline "
        "sana has: text_encoder, transformer, vae");
}

static void test_precision__overrides_are_a_list_of_globs(void **state)
{
    const mp_scenario s = good("precision:\n  overrides:\n    - {match: 'vae.*', dtype: half}\n"
                               "    - {dtype: fp32, match: \"a\\\"b\"}");

    (void)state;
    assert_int_equal(s.request.precision.override_count, 2);
    assert_string_equal(s.request.precision.overrides[0].match, "vae.*");
    assert_int_equal(s.request.precision.overrides[0].dtype, MP_F16);
    setting(&s, "precision.overrides",
            "[{match: \"vae.*\", dtype: fp16}, {match: \"a\\\"b\", dtype: fp32}]");
    has("precision: {overrides: []}", "precision.overrides", "none");
    has("precision: {overrides: none}", "precision.overrides", "none");
    bad("precision: {overrides: {match: x, dtype: fp16}}",
        "5:13: key 'precision.overrides': found a map, expected a list of {match: GLOB, dtype: "
        "DTYPE}");
    bad("precision: {overrides: [vae]}",
        "5:25: precision.overrides: found \"vae\", expected {match: GLOB, dtype: DTYPE}");
    bad("precision: {overrides: [{dtype: fp16}]}",
        "5:25: precision.overrides: 'match' is nothing, expected a glob on the module path, such as "
        "\"text_encoder.layers.0.*\"");
    bad("precision: {overrides: [{match: '', dtype: fp16}]}",
        "5:26: precision.overrides: 'match' is \"\", expected a glob on the module path, such as "
        "\"text_encoder.layers.0.*\"");
    bad("precision: {overrides: [{match: x}]}",
        "5:25: key 'precision.overrides.dtype': found nothing, expected a dtype: fp32, fp16, bf16, "
        "fp8_e4m3, fp8_e5m2");
    bad("precision: {overrides: [{match: x, dtype: 16}]}",
        "5:36: key 'precision.overrides.dtype': found \"16\", expected a dtype: fp32, fp16, bf16, "
        "fp8_e4m3, fp8_e5m2");
}

static void test_precision__policy_load_and_e4m3_are_words(void **state)
{
    (void)state;
    has("precision: {policy: strict}", "precision.policy", "strict");
    has("precision: {policy: negotiate}", "precision.policy", "negotiate");
    has("precision: {policy: fallback}", "precision.policy", "fallback");
    has("precision: {load: to}", "precision.load", "to");
    has("precision: {load: from_pretrained}", "precision.load", "from_pretrained");
    has("precision: {e4m3: nan}", "precision.e4m3", "nan");
    has("precision: {e4m3: saturate}", "precision.e4m3", "saturate");
    assert_int_equal(good("precision: {e4m3: nan}").e4m3, MP_E4M3_NAN);
    assert_true(good("precision: {load: to}").request.precision.load_to);
    assert_int_equal(good("precision: {policy: negotiate}").request.precision.policy, MP_NEGOTIATE);
    assert_int_equal(good("precision: {policy: fallback}").request.precision.policy, MP_FALLBACK);
    bad("precision: {policy: loose}",
        "5:13: key 'precision.policy': found \"loose\", expected strict, negotiate or fallback");
    bad("precision: {load: cast}",
        "5:13: key 'precision.load': found \"cast\", expected from_pretrained or to");
    bad("precision: {e4m3: inf}",
        "5:13: key 'precision.e4m3': found \"inf\", expected saturate or nan");
}

/* ---- tiling and quirks ---------------------------------------------------------------------- */

static void test_tiling__has_a_long_a_short_and_no_form(void **state)
{
    static const char *const offs[] = {"off", "none", "no", "false", "Off", "~", ""};
    const mp_scenario s = good("tiling: {tile: [64, 32], stride: [56, 28]}");
    const mp_scenario brief = good("tiling: 64x32+56x28");

    (void)state;
    assert_true(s.request.tiling.on);
    assert_int_equal(s.request.tiling.tile_height, 64);
    assert_int_equal(s.request.tiling.tile_width, 32);
    assert_int_equal(s.request.tiling.stride_height, 56);
    assert_int_equal(s.request.tiling.stride_width, 28);
    setting(&s, "tiling", "64x32+56x28");
    assert_true(mp_scenario_same(&s, &brief));
    for (size_t i = 0; i < sizeof offs / sizeof *offs; i++)
        has(mp_arena_printf(arena, "tiling: %s", offs[i]), "tiling", "off");
}

static void test_tiling__impossible_ones_are_refused(void **state)
{
    static const char *const shorts[] = {
        "32", "32x32",       "32x32+28",     "0x32+28x28",  "32x32+0x1",    "32x32+28x28x",
        "a",  "32x32+28x-8", "32x32++28x28", "65537x1+1x1", "100000x1+1x1", "on"};

    (void)state;
    for (size_t i = 0; i < sizeof shorts / sizeof *shorts; i++)
        bad(mp_arena_printf(arena, "tiling: %s", shorts[i]),
            mp_arena_printf(arena,
                            "5:1: key 'tiling': found \"%s\", expected off, or {tile: [HEIGHT, "
                            "WIDTH], stride: [HEIGHT, WIDTH]} in picture pixels",
                            shorts[i]));
    bad("tiling: {stride: [28, 28]}", "5:9: key 'tiling.tile': found nothing, expected [HEIGHT, "
                                      "WIDTH], integers from 1 to 65536");
    bad("tiling: {tile: [32, 32]}", "5:9: key 'tiling.stride': found nothing, expected [HEIGHT, "
                                    "WIDTH], integers from 1 to 65536");
    bad("tiling: {tile: 32, stride: [28, 28]}",
        "5:10: key 'tiling.tile': found \"32\", expected [HEIGHT, WIDTH], integers from 1 to 65536");
    bad("tiling: {tile: [32, 32], stride: [28]}",
        "5:26: key 'tiling.stride': found a list of 1, expected [HEIGHT, WIDTH], integers from 1 to "
        "65536");
    bad("tiling: {tile: [32, 32.5], stride: [28, 28]}",
        "5:10: key 'tiling.tile': found a list of 2, expected [HEIGHT, WIDTH], integers from 1 to "
        "65536");
    bad("tiling: {tile: [32, 65537], stride: [28, 28]}",
        "5:10: key 'tiling.tile': found a list of 2, expected [HEIGHT, WIDTH], integers from 1 to "
        "65536");
    bad("tiling: {tile: [32, 32], stride: [28, 33]}",
        "5:26: key 'tiling.stride': [28, 33] is larger than the tile [32, 32], so tiles would leave "
        "gaps; expected at most the tile");
    bad("tiling: 32x32+33x28",
        "5:1: key 'tiling.stride': [33, 28] is larger than the tile [32, 32], so tiles would leave "
        "gaps; expected at most the tile");
    bad("tiling: [32, 32]",
        "5:1: key 'tiling': found a list of 2, expected off, or {tile: [HEIGHT, "
        "WIDTH], stride: [HEIGHT, WIDTH]} in picture pixels");
}

static void test_quirks__are_names_of_the_pipeline(void **state)
{
    const mp_scenario s = good("quirks: [sana-quadratic-no-upcast, sana-quadratic-no-upcast]");

    (void)state;
    assert_string_equal(s.request.quirks[0], "sana-quadratic-no-upcast");
    assert_null(s.request.quirks[1]);
    setting(&s, "quirks", "[sana-quadratic-no-upcast]");
    has("quirks: []", "quirks", "none");
    has("quirks: off", "quirks", "none");
    bad("quirks: sana-quadratic-no-upcast",
        "5:1: key 'quirks': found \"sana-quadratic-no-upcast\", expected a list of names");
    bad("quirks: [[a]]", "5:10: quirks: found a list of 1, expected a name");
    bad("quirks: [~]", "5:10: quirks: found nothing, expected a name");
    bad("quirks: [else]", "5:10: unknown quirk 'else'; the pipeline sana has: "
                          "sana-quadratic-no-upcast");
}

/* ---- expectations and budgets --------------------------------------------------------------- */

static void test_expect__entries_keep_their_order(void **state)
{
    const mp_scenario s =
        good("expect:\n  - when: {precision.default: fp16}\n    error: but found\n"
             "  - {status: oom, outcome: oom}\n  - status: ok");

    (void)state;
    assert_int_equal(s.expect_count, 3);
    assert_non_null(s.expect[0].when);
    assert_string_equal(s.expect[0].error, "but found");
    assert_null(s.expect[0].status);
    assert_null(s.expect[1].when);
    assert_string_equal(s.expect[1].status, "oom");
    assert_string_equal(s.expect[1].outcome, "oom");
    assert_int_equal(s.expect[2].at->line, 9);
}

static void test_expect__what_can_never_be_is_refused(void **state)
{
    (void)state;
    bad("expect: {status: ok}",
        "5:1: key 'expect': found a map, expected a list of maps with when, "
        "and error, status or outcome");
    bad("expect: [ok]",
        "5:10: expect: found \"ok\", expected a map with when, and error, status or outcome");
    bad("expect: [{when: {tiling: off}}]",
        "5:10: expect: this entry expects nothing; add error, status or outcome (status: ok for "
        "success)");
    bad("expect: [{status: fine}]", "5:11: key 'expect[].status': found \"fine\", expected ok, "
                                    "error, crash, timeout, oom or nonfinite");
    bad("expect: [{outcome: boom}]",
        "5:11: key 'expect[].outcome': found \"boom\", expected dtype_mismatch, nan_first, "
        "overflow, constant, oom, unsupported, crash, timeout, io, format, shape, missing, usage, "
        "device, engine or exception");
    bad("expect: [{error: ''}]",
        "5:11: key 'expect[].error': found \"\", expected a part of the exact error text");
    bad("expect: [{error: [a]}]",
        "5:11: key 'expect[].error': found a list of 1, expected a part of the exact error text");
    bad("expect: [{when: bf16, status: ok}]",
        "5:11: key 'expect[].when': found \"bf16\", expected a map from dotted keys to values");
    bad("expect: [{when: {repeat: 3}, status: ok}]",
        "5:18: the key 'repeat' changes nothing in what is computed, so no cell can be chosen by "
        "it");
    bad("expect: [{when: {precision.default: b16}, status: ok}]",
        "5:37: key 'precision.default': found \"b16\", expected a dtype: fp32, fp16, bf16, "
        "fp8_e4m3, fp8_e5m2");
    bad("expect: [{when: {inputs.stpes: 3}, status: ok}]",
        "5:32: unknown key 'stpes' in inputs; did you mean 'steps'?; the pipeline sana takes: "
        "prompt, negative_prompt, steps, guidance, num_images_per_prompt, height, width, eta, seed, "
        "clean_caption, use_resolution_binning, max_sequence_length, complex_human_instruction");
    bad("expect: [{when: {memory.x: 3}, status: ok}]",
        "5:18: 'memory' has no keys below it, so 'memory.x' means nothing");
}

static void test_budgets__are_limits_and_know_which_way_is_better(void **state)
{
    const mp_scenario s = good("budgets: {latent_rel_l2: 2e-2, image_rel_l2: 0, psnr_db: 40, ssim: "
                               "0.9, seam: 1, peak_mib: 512, seconds: 2.5}");

    (void)state;
    assert_int_equal(s.budget_count, 7);
    assert_string_equal(s.budgets[0].name, "latent_rel_l2");
    assert_true(s.budgets[0].absolute == 0.02 && !s.budgets[0].at_least);
    for (int i = 0; i < 7; i++) {
        assert_int_equal(s.budgets[i].at_least, !strcmp(s.budgets[i].name, "psnr_db") ||
                                                    !strcmp(s.budgets[i].name, "ssim"));
        assert_true(isnan(s.budgets[i].relative));
    }
    assert_int_equal(good("budgets: {psnr_db: }").budget_count, 0);
    assert_int_equal(good("budgets:").budget_count, 0);
    bad("budgets: {seconds: -1}",
        "5:11: key 'budgets.seconds': found \"-1\", expected a number, 0 or larger, or a map such as "
        "{absolute: 2.5, relative: 5%}");
    bad("budgets: {seconds: 1h}",
        "5:11: key 'budgets.seconds': found \"1h\", expected a number, 0 or larger, or a map such as "
        "{absolute: 2.5, relative: 5%}");
    bad("budgets: [1]", "5:1: key 'budgets': found a list of 1, expected a map of limits");
}

static void test_budgets__may_be_relative_to_a_baseline(void **state)
{
    static const struct {
        const char *text;
        double relative;
    } shares[] = {{"5%", 0.05}, {"'5%'", 0.05}, {"0.02", 0.02}, {"0", 0},
                  {"1", 1},     {"300%", 3},    {"0.5%", 0.005}};
    mp_scenario s =
        good("budgets: {seconds: {absolute: 2.5, relative: 5%}, psnr_db: {relative: 1%}, "
             "ssim: {absolute: 0.9, relative: }}");

    (void)state;
    assert_int_equal(s.budget_count, 3);
    assert_true(s.budgets[0].absolute == 2.5 && s.budgets[0].relative == 0.05);
    assert_true(isnan(s.budgets[1].absolute) && s.budgets[1].relative == 0.01);
    assert_true(s.budgets[1].at_least);
    assert_true(s.budgets[2].absolute == 0.9 && isnan(s.budgets[2].relative));
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
        s = good(mp_arena_printf(arena, "budgets: {seconds: {relative: %s}}", shares[i].text));
        assert_true(s.budgets[0].relative == shares[i].relative);
    }
}

static void test_budgets__say_what_a_limit_may_be(void **state)
{
    static const char *const shares[] = {"5", "-1%", "-0.1", "1.01", "e%", "5 %", "x%", "1e999%"};

    (void)state;
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++)
        bad(mp_arena_printf(arena, "budgets: {seconds: {relative: %s}}", shares[i]),
            mp_arena_printf(
                arena,
                "5:21: key 'budgets[].relative': found \"%s\", expected a number from 0 "
                "to 1, or a percentage such as 5%%",
                shares[i]));
    bad("budgets: {seconds: {absolute: -1}}",
        "5:21: key 'budgets[].absolute': found \"-1\", expected a number, 0 or larger");
    bad("budgets: {seconds: {absolute: 5%}}",
        "5:21: key 'budgets[].absolute': found \"5%\", expected a number, 0 or larger");
    bad("budgets: {seconds: {relativ: 5%}}",
        "5:21: unknown key 'relativ' in budgets[]; did you mean 'relative'?; expected one of: "
        "absolute, relative");
    bad("budgets: {seconds: {}}",
        "5:11: key 'budgets.seconds': limits nothing; expected absolute or relative");
    bad("budgets: {seconds: {relative: }}",
        "5:11: key 'budgets.seconds': limits nothing; expected absolute or relative");
    bad("budgets: {seconds: [5%]}", "5:11: key 'budgets.seconds': found a list of 1, expected a "
                                    "number, 0 or larger, or a map such as {absolute: 2.5, "
                                    "relative: 5%}");
    bad("reference: off\nbudgets: {psnr_db: {relative: 5%}}",
        "6:11: key 'budgets.psnr_db' needs a reference, and 'reference' is off; give a dtype there, or "
        "drop the budget");
}

static void test_budgets__that_need_a_reference_are_refused_without_one(void **state)
{
    static const char *const names[] = {"latent_rel_l2", "image_rel_l2", "psnr_db", "ssim", "seam"};

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        bad(mp_arena_printf(arena, "reference: off\nbudgets: {%s: 1}", names[i]),
            mp_arena_printf(
                arena,
                "6:11: key 'budgets.%s' needs a reference, and 'reference' is off; give "
                "a dtype there, or drop the budget",
                names[i]));
    assert_int_equal(good("reference: off\nbudgets: {seconds: 1, peak_mib: 2}").budget_count, 2);
    assert_int_equal(good("reference: off\nbudgets: {psnr_db: }").budget_count, 0);
}

/* ---- settings and matching ------------------------------------------------------------------ */

static void test_scenario__weights_leave_after_their_stage_or_stay(void **state)
{
    (void)state;
    assert_true(good("").request.offload);
    assert_true(good("offload: stage").request.offload);
    assert_false(good("offload: none").request.offload);
    has("offload: none", "offload", "none");
    bad("offload: model", "5:1: key 'offload': found \"model\", expected stage or none");
}

static void test_settings__are_complete_and_in_a_fixed_order(void **state)
{
    static const char *const keys[] = {"pipeline",
                                       "checkpoint",
                                       "variant",
                                       "precision.default",
                                       "precision.components",
                                       "precision.storage",
                                       "precision.overrides",
                                       "precision.policy",
                                       "precision.load",
                                       "precision.e4m3",
                                       "tiling",
                                       "quirks",
                                       "reference",
                                       "memory",
                                       "offload",
                                       "inputs.prompt",
                                       "inputs.negative_prompt",
                                       "inputs.steps",
                                       "inputs.guidance",
                                       "inputs.num_images_per_prompt",
                                       "inputs.height",
                                       "inputs.width",
                                       "inputs.eta",
                                       "inputs.seed",
                                       "inputs.clean_caption",
                                       "inputs.use_resolution_binning",
                                       "inputs.max_sequence_length",
                                       "inputs.complex_human_instruction"};
    static const char *const values[] = {
        "sana",     "x",   "none", "fp32", "none", "none",  "none",  "strict", "from_pretrained",
        "saturate", "off", "none", "fp32", "none", "stage", "fox",   "",       "6",
        "4.5",      "1",   "1024", "1024", "0",    "0",     "false", "true",   "300",
        "default"};
    const mp_scenario s = good("");

    (void)state;
    assert_int_equal(s.setting_count, sizeof keys / sizeof *keys);
    for (int i = 0; i < s.setting_count; i++) {
        assert_string_equal(s.settings[i].key, keys[i]);
        assert_string_equal(s.settings[i].value, values[i]);
    }
}

static bool matches(const mp_scenario *s, const char *when)
{
    mp_error err = {0};
    mp_yaml *map;
    bool out;

    mp_yaml_parse(arena, "when", when, strlen(when), &map, &err);
    mp_scenario_matches(arena, s, map, &out, &err);
    if (err.code)
        fail_msg("%s: %s", when, err.text);
    return out;
}

static void test_matches__by_meaning_in_any_spelling(void **state)
{
    static const char *const yes[] = {
        "{}",
        "precision.default: bfloat16",
        "precision.default: torch.bfloat16",
        "precision: {default: bf16, components: {vae: half}}",
        "precision.components: {vae: fp16}",
        "precision.components: vae:fp16",
        "precision.components.vae: float16",
        "precision.components.text_encoder: ~",
        "tiling: 32x32+28x28",
        "tiling: {stride: [28, 28], tile: [32, 32]}",
        "tiling.tile: [32, 32]",
        "inputs.steps: 6",
        "inputs.num_inference_steps: 6.0",
        "inputs.seed: 0",
        "inputs.guidance_scale: 4.50",
        "inputs.prompt: \"fox\"",
        "inputs.complex_human_instruction: default",
        "checkpoint: /models/x",
        "checkpoint: x",
        "pipeline: sana",
        "variant: none",
        "quirks: []",
        "quirks: off",
        "reference: float32",
        "memory: 1024",
        "memory: 1KiB",
        "offload: stage",
        "offload: ~",
        "{precision.default: bf16, inputs.steps: 6}",
    };
    static const char *const no[] = {
        "precision.default: fp16",
        "precision: {default: bf16}",
        "precision.components: {}",
        "precision.components: none",
        "precision.components: {vae: fp16, text_encoder: bf16}",
        "precision.components.vae: fp32",
        "precision.components.vae: ~",
        "tiling: off",
        "tiling: 32x32+28x24",
        "tiling.tile: [16, 16]",
        "inputs.steps: 7",
        "inputs.num_inference_steps: 20",
        "inputs.prompt: ox",
        "inputs: {prompt: fox}",
        "inputs.complex_human_instruction: []",
        "checkpoint: /models/y",
        "checkpoint: models/x",
        "variant: fp16",
        "quirks: [sana-quadratic-no-upcast]",
        "reference: off",
        "memory: ~",
        "offload: none",
        "{precision.default: bf16, inputs.steps: 7}",
    };
    const mp_scenario s = good("precision: {default: bf16, components: {vae: fp16}}\n"
                               "tiling: {tile: [32, 32], stride: [28, 28]}\nmemory: 1KiB");

    (void)state;
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++)
        if (!matches(&s, yes[i]))
            fail_msg("%s does not match", yes[i]);
    for (size_t i = 0; i < sizeof no / sizeof *no; i++)
        if (matches(&s, no[i]))
            fail_msg("%s matches", no[i]);
}

static void test_matches__where_the_way_is_blocked_is_no_match(void **state)
{
    const mp_scenario off = good("tiling: off");
    const mp_scenario full =
        whole(BASE "inputs: {prompt: p, num_inference_steps: 6}\ntiling: 32x32+28x28\n");

    (void)state;
    assert_false(matches(&off, "tiling.tile: [32, 32]"));
    assert_false(matches(&full, "tiling.tile: [32, 32]"));
    assert_true(matches(&full, "inputs.steps: 6"));
    assert_true(matches(&full, "inputs.num_inference_steps: 6"));
    assert_false(matches(&full, "inputs.steps: 7"));
}

static void test_matches__nonsense_is_an_error(void **state)
{
    static const struct {
        const char *when, *message;
    } cases[] = {
        {"precision.default: x",
         "when:1:20: key 'precision.default': found \"x\", expected a dtype"},
        {"repeat: 1", "when:1:1: the key 'repeat' changes nothing"},
        {"budgets.seconds: 1", "when:1:1: the key 'budgets' changes nothing"},
        {"name: t", "when:1:1: the key 'name' changes nothing"},
        {"colour: red", "when:1:1: unknown key 'colour'"},
        {"tiling.tyle: [1, 1]", "when:1:1: unknown key 'tyle' in tiling; did you mean 'tile'?"},
        {"inputs.colour: red", "when:1:16: unknown key 'colour' in inputs"},
        {"precision.components.unet: fp16", "unknown component 'unet' in precision.components"},
        {"quirks: [x]", "when:1:10: unknown quirk 'x'"},
    };
    const mp_scenario s = good("tiling: 32x32+28x28\nprecision: {components: {}}");

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const mp_scenario *of = &s;
        mp_error err = {0};
        mp_yaml *map;
        bool out = true;
        const mp_scenario map_form = good("tiling: {tile: [32, 32], stride: [28, 28]}");
        if (strstr(cases[i].when, "tiling."))
            of = &map_form;
        mp_yaml_parse(arena, "when", cases[i].when, strlen(cases[i].when), &map, &err);
        mp_scenario_matches(arena, of, map, &out, &err);
        assert_error(&err, MP_EUSAGE, cases[i].message);
        assert_false(out);
    }
}

/* ---- scenarios/schema.json ------------------------------------------------------------------ */

static json_t *open_schema(void)
{
    json_error_t why;
    json_t *schema =
        json_load_file(MP_SOURCE_DIR "/scenarios/schema.json", JSON_REJECT_DUPLICATES, &why);

    if (!schema)
        fail_msg("scenarios/schema.json:%d: %s", why.line, why.text);
    return schema;
}

/* The object at a path of keys, which the schema must have. */
static json_t *at(json_t *node, const char *path)
{
    char copy[256], *rest = NULL;

    snprintf(copy, sizeof copy, "%s", path);
    for (char *key = strtok_r(copy, "/", &rest); key; key = strtok_r(NULL, "/", &rest)) {
        node = json_object_get(node, key);
        if (!node)
            fail_msg("scenarios/schema.json has no %s (of %s)", key, path);
    }
    return node;
}

static json_t *properties_of(json_t *schema, const char *section)
{
    char path[128];
    static const char *const names[][2] = {
        {"overrides[]", "override"}, {"expect[]", "expectation"}, {"budgets[]", "limits"}};

    if (!*section)
        return at(schema, "properties");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(section, names[i][0]))
            section = names[i][1];
    snprintf(path, sizeof path, "$defs/%s/properties", section);
    return at(schema, path);
}

static void test_schema__names_every_key_and_no_other(void **state)
{
    static const char *const sections[] = {"",         "precision", "overrides[]", "tiling",
                                           "expect[]", "budgets",   "budgets[]"};
    json_t *schema = open_schema();
    int listed = 0;

    (void)state;
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) {
        const char *name;
        json_t *value, *properties = properties_of(schema, sections[i]);
        json_object_foreach (properties, name, value) {
            if (!mp_schema_find(sections[i], name))
                fail_msg("the reader has no key '%s' in '%s'", name, sections[i]);
            if (!json_is_string(json_object_get(value, "description")))
                fail_msg("'%s' in '%s' has no description", name, sections[i]);
            listed++;
        }
    }
    for (int i = 0; i < mp_schema_count(); i++)
        if (!json_object_get(properties_of(schema, mp_schema_at(i)->section),
                             mp_schema_at(i)->name))
            fail_msg("scenarios/schema.json has no '%s' in '%s'", mp_schema_at(i)->name,
                     mp_schema_at(i)->section);
    assert_int_equal(listed, mp_schema_count());
    json_decref(schema);
}

static void check_input(json_t *properties, const mp_input_field *f, const char *name)
{
    static const char *const types[] = {
        [MP_INPUT_INT] = "integer",   [MP_INPUT_NUMBER] = "number", [MP_INPUT_BOOL] = "boolean",
        [MP_INPUT_STRING] = "string", [MP_INPUT_STRINGS] = NULL,    [MP_INPUT_FILE] = "string",
        [MP_INPUT_FILES] = NULL,      [MP_INPUT_INTS] = NULL};
    json_t *value = json_object_get(properties, name);

    if (!value || !json_is_string(json_object_get(value, "description")))
        fail_msg("scenarios/schema.json has no input '%s' with a description", name);
    const char *type = json_string_value(json_object_get(value, "type"));
    if (types[f->type] && (!type || strcmp(type, types[f->type])))
        fail_msg("input '%s' is a %s, expected %s", name, type ? type : "nothing", types[f->type]);
    if (f->type == MP_INPUT_INTS)
        value = json_object_get(value, "items");
    if (f->min < f->max && (json_number_value(json_object_get(value, "minimum")) != f->min ||
                            json_number_value(json_object_get(value, "maximum")) != f->max))
        fail_msg("input '%s' has other limits than %g to %g", name, f->min, f->max);
}

/* The inputs of "wan-vace" stand in $defs/wan_vace_inputs. */
static void check_inputs(json_t *schema, const mp_pipeline_def *p)
{
    char path[128];
    size_t names = 0;

    snprintf(path, sizeof path, "$defs/%s_inputs/properties", p->name);
    for (char *s = path; *s; s++)
        *s = *s == '-' ? '_' : *s;
    json_t *properties = at(schema, path);
    for (int i = 0; i < p->input_count; i++) {
        check_input(properties, &p->inputs[i], p->inputs[i].name);
        names += 1 + (p->inputs[i].alias != NULL);
        if (p->inputs[i].alias)
            check_input(properties, &p->inputs[i], p->inputs[i].alias);
    }
    assert_int_equal(json_object_size(properties), names);
}

static void test_schema__inputs_are_those_of_the_pipelines(void **state)
{
    json_t *schema = open_schema(), *cases = at(schema, "allOf");
    size_t n = 0;

    (void)state;
    for (const mp_pipeline_def *const *p = mp_pipelines(); *p; p++, n++) {
        check_inputs(schema, *p);
        const json_t *name = json_object_get(
            json_object_get(
                json_object_get(json_object_get(json_array_get(cases, n), "if"), "properties"),
                "pipeline"),
            "const");
        assert_string_equal(json_string_value(name), (*p)->name);
    }
    assert_int_equal(json_array_size(cases), n);
    json_decref(schema);
}

/* The list at a path of the schema has these words and no others. */
static void same_words(json_t *schema, const char *path, const char *const *words)
{
    json_t *list = at(schema, path);
    size_t n = 0;

    for (; words[n]; n++) {
        bool found = false;
        for (size_t i = 0; i < json_array_size(list); i++)
            found |= !strcmp(json_string_value(json_array_get(list, i)), words[n]);
        if (!found)
            fail_msg("%s has no %s", path, words[n]);
    }
    assert_int_equal(json_array_size(list), n);
}

static void test_schema__enums_are_what_the_reader_takes(void **state)
{
    json_t *schema = open_schema();
    const mp_pipeline_def *p = mp_pipeline_find("sana");
    const char *pipelines[8] = {NULL};
    json_t *list = at(schema, "$defs/dtype/enum");
    bool seen[MP_DTYPE_COUNT] = {false};
    mp_dtype d;

    (void)state;
    for (int i = 0; mp_pipelines()[i] && i < 7; i++)
        pipelines[i] = mp_pipelines()[i]->name;
    same_words(schema, "properties/pipeline/enum", pipelines);
    same_words(schema, "$defs/quirk/enum", p->quirks);
    same_words(schema, "$defs/component/enum",
               mp_pipeline_find("sd3")->components); /* all of them */
    for (size_t i = 0; i < json_array_size(list); i++) {
        assert_true(mp_dtype_parse(json_string_value(json_array_get(list, i)), &d));
        seen[d] = true;
    }
    for (int i = 0; i < MP_DTYPE_COUNT; i++)
        assert_true(seen[i]);
    list = at(schema, "$defs/expectation/properties/status/enum");
    for (size_t i = 0; i < json_array_size(list); i++)
        good(mp_arena_printf(arena, "expect: [{status: %s}]",
                             json_string_value(json_array_get(list, i))));
    assert_int_equal(json_array_size(list), 6);
    list = at(schema, "$defs/expectation/properties/outcome/enum");
    for (size_t i = 0; i < json_array_size(list); i++)
        good(mp_arena_printf(arena, "expect: [{outcome: %s}]",
                             json_string_value(json_array_get(list, i))));
    assert_int_equal(json_array_size(list), 16);
    json_decref(schema);
}

/* ---- the files that are shipped ------------------------------------------------------------- */

static int shipped; /* files seen */

static void check_schema(const char *path)
{
    mp_error err = {0};
    mp_yaml *root;

    if (mp_yaml_read(arena, path, &root, &err) || mp_schema_check(root, "", &err))
        fail_msg("%s", err.text);
}

static mp_code pipeline_check(const mp_scenario *s, mp_error *err)
{
    return s->pipeline->check(&s->request, err);
}

static void check_file(const char *path)
{
    const mp_plan_options o = {.paths = {.items = &path, .count = 1},
                               .repeat = -1,
                               .warmup = -1,
                               .check = pipeline_check,
                               .engine_flags = ""};
    mp_error err = {0};
    mp_plan plan;

    shipped++;
    if (strstr(path, "/nightly/") || strstr(path, "/real/"))
        check_schema(path);
    else if (mp_plan_make(arena, &o, &plan, &err))
        fail_msg("%s", err.text);
}

static void check_folder(const char *path)
{
    DIR *d = opendir(path);

    assert_non_null(d);
    for (const struct dirent *e; (e = readdir(d));) {
        const char *inner = mp_arena_printf(arena, "%s/%s", path, e->d_name);
        const size_t n = strlen(e->d_name);
        if (e->d_name[0] == '.')
            continue;
        if (e->d_type == DT_DIR)
            check_folder(inner);
        else if (n > 5 && !strcmp(e->d_name + n - 5, ".yaml"))
            check_file(inner);
    }
    closedir(d);
}

static void test_scenarios__every_file_that_is_shipped_makes_a_plan(void **state)
{
    (void)state;
    setenv("MPBENCH_CHECKPOINTS", MP_FIXTURES "/checkpoints", 1);
    shipped = 0;
    check_folder(MP_SOURCE_DIR "/scenarios");
    unsetenv("MPBENCH_CHECKPOINTS");
    assert_true(shipped >= 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scenario__the_least_one_has_all_the_defaults),
        cmocka_unit_test(test_scenario__a_name_is_fit_for_a_folder),
        cmocka_unit_test(test_scenario__what_must_be_there_is_asked_for),
        cmocka_unit_test(test_scenario__an_unknown_pipeline_offers_the_nearest),
        cmocka_unit_test(test_scenario__a_checkpoint_is_relative_to_its_file),
        cmocka_unit_test(test_scenario__an_unknown_key_offers_the_nearest_at_every_level),
        cmocka_unit_test(test_scenario__variants_are_parts_of_file_names),
        cmocka_unit_test(test_scenario__repeat_and_warmup_are_small_integers),
        cmocka_unit_test(test_scenario__a_reference_is_a_dtype_or_off),
        cmocka_unit_test(test_scenario__durations_have_units),
        cmocka_unit_test(test_scenario__sizes_have_units),
        cmocka_unit_test(test_scenario__weights_leave_after_their_stage_or_stay),
        cmocka_unit_test(test_inputs__have_the_defaults_of_the_pipeline),
        cmocka_unit_test(test_inputs__long_and_short_names_are_the_same_setting),
        cmocka_unit_test(test_inputs__wrong_values_name_the_key_as_it_was_written),
        cmocka_unit_test(test_inputs__become_settings_that_read_back),
        cmocka_unit_test(test_inputs__a_size_of_no_multiple_of_32_is_refused_by_the_pipeline),
        cmocka_unit_test(test_precision__dtypes_have_the_names_of_torch),
        cmocka_unit_test(test_precision__components_and_storage_are_in_the_pipelines_order),
        cmocka_unit_test(test_precision__wrong_components_are_refused),
        cmocka_unit_test(test_precision__overrides_are_a_list_of_globs),
        cmocka_unit_test(test_precision__policy_load_and_e4m3_are_words),
        cmocka_unit_test(test_tiling__has_a_long_a_short_and_no_form),
        cmocka_unit_test(test_tiling__impossible_ones_are_refused),
        cmocka_unit_test(test_quirks__are_names_of_the_pipeline),
        cmocka_unit_test(test_expect__entries_keep_their_order),
        cmocka_unit_test(test_expect__what_can_never_be_is_refused),
        cmocka_unit_test(test_budgets__are_limits_and_know_which_way_is_better),
        cmocka_unit_test(test_budgets__may_be_relative_to_a_baseline),
        cmocka_unit_test(test_budgets__say_what_a_limit_may_be),
        cmocka_unit_test(test_budgets__that_need_a_reference_are_refused_without_one),
        cmocka_unit_test(test_settings__are_complete_and_in_a_fixed_order),
        cmocka_unit_test(test_matches__by_meaning_in_any_spelling),
        cmocka_unit_test(test_matches__where_the_way_is_blocked_is_no_match),
        cmocka_unit_test(test_matches__nonsense_is_an_error),
        cmocka_unit_test(test_schema__names_every_key_and_no_other),
        cmocka_unit_test(test_schema__inputs_are_those_of_the_pipelines),
        cmocka_unit_test(test_schema__enums_are_what_the_reader_takes),
        cmocka_unit_test(test_scenarios__every_file_that_is_shipped_makes_a_plan),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
