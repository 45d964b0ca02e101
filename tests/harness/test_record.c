/* The events of a child process: what each one leaves, and that no line can do harm. */
#include "tests/pipelines/scratch.h"

#include <limits.h>
#include <math.h>

#include "harness/record.h"

static mp_record *open_record(void)
{
    mp_record *r = calloc(1, sizeof *r);

    assert_non_null(r);
    mp_record_init(r, mp_arena_create());
    return r;
}

static void close_record(mp_record *r)
{
    mp_record_free(r);
    mp_arena_free(r->arena);
    free(r);
}

/* The line lies in a block of exactly its size, without a zero at its end. */
static void line_n(mp_record *r, const char *text, size_t n)
{
    char *copy = malloc(n ? n : 1);

    assert_non_null(copy);
    memcpy(copy, text, n);
    mp_record_line(r, copy, n);
    free(copy);
}

static void line(mp_record *r, const char *text)
{
    line_n(r, text, strlen(text));
}

static void tensor(mp_record *r, const char *name, const char *shape, const char *sha256)
{
    char text[512];

    snprintf(text, sizeof text,
             "{\"event\":\"tensor\",\"name\":\"%s\",\"dtype\":\"bf16\",\"shape\":%s,"
             "\"file\":\"x.safetensors\",\"sha256\":\"%s\",\"repeat\":0}",
             name, shape, sha256);
    line(r, text);
}

#define ACTION(text)                                                                                \
    "{\"event\":\"action\",\"stage\":\"decode\",\"module\":\"vae.decoder\",\"op\":\"conv2d\"," text \
    "}"
#define COUNTS "\"count\":2,\"elements\":64,\"seconds\":0.5"

/* ---- each event ----------------------------------------------------------------------------- */

static void test_record__a_new_one_knows_nothing(void **state)
{
    mp_record *r = open_record();

    (void)state;
    assert_false(r->done || r->nonfinite);
    assert_int_equal(r->error.code, MP_OK);
    assert_int_equal(r->step, -1);
    assert_int_equal(r->tensor_count + r->sample_count + r->stage_count + r->malformed, 0);
    assert_null(mp_record_tensor(r, "image"));
    close_record(r);
}

static void test_record__stages_give_samples_and_the_most_memory(void **state)
{
    mp_record *r = open_record();

    (void)state;
    line(
        r,
        "{\"event\":\"stage\",\"name\":\"denoise\",\"repeat\":0,\"seconds\":0.25,\"activations\":100}");
    line(
        r,
        "{\"event\":\"stage\",\"name\":\"denoise\",\"repeat\":1,\"seconds\":2,\"activations\":300}");
    line(
        r,
        "{\"event\":\"stage\",\"name\":\"denoise\",\"repeat\":2,\"seconds\":0,\"activations\":200}");
    line(r, "{\"event\":\"stage\",\"name\":\"total\",\"repeat\":2,\"seconds\":3.5}");
    line(r, "{\"event\":\"stage\",\"name\":\"load\",\"activations\":7}");
    assert_int_equal(r->sample_count, 4);
    assert_string_equal(r->samples[1].stage, "denoise");
    assert_int_equal(r->samples[1].repeat, 1);
    assert_true(r->samples[0].seconds == 0.25 && r->samples[1].seconds == 2);
    assert_string_equal(r->samples[3].stage, "total");
    assert_int_equal(r->stage_count, 2);
    assert_string_equal(r->stages[0].stage, "denoise");
    assert_int_equal(r->stages[0].activations, 300);
    assert_int_equal(r->stages[1].activations, 7);
    assert_int_equal(r->malformed, 0);
    close_record(r);
}

static void test_record__more_stages_than_there_is_room_for_keep_their_times(void **state)
{
    mp_record *r = open_record();
    char text[160];

    (void)state;
    for (int i = 0; i < 100; i++) {
        snprintf(text, sizeof text,
                 "{\"event\":\"stage\",\"name\":\"s%d\",\"seconds\":1,\"activations\":1}", i);
        line(r, text);
    }
    assert_int_equal(r->stage_count, 8);
    assert_int_equal(r->sample_count, 100);
    assert_string_equal(r->samples[99].stage, "s99");
    close_record(r);
}

static void test_record__tensors_are_kept_once_and_compared_after_that(void **state)
{
    mp_record *r = open_record();

    (void)state;
    tensor(r, "latents_000", "[1,4,8,8]", "aa");
    tensor(r, "image", "[1,3,64,64]", "bb");
    tensor(r, "latents_000", "[1,4,8,8]", "aa");
    assert_int_equal(r->differing, 0);
    tensor(r, "image", "[1,3,64,64]", "cc");
    assert_int_equal(r->differing, 1);
    assert_int_equal(r->tensor_count, 2);
    const mp_captured *t = mp_record_tensor(r, "latents_000");
    assert_non_null(t);
    assert_int_equal(t->dtype, MP_BF16);
    assert_int_equal(t->rank, 4);
    assert_int_equal(t->dim[1], 4);
    assert_string_equal(t->file, "x.safetensors");
    assert_string_equal(t->sha256, "aa");
    assert_string_equal(mp_record_tensor(r, "image")->sha256, "bb");
    assert_null(mp_record_tensor(r, "frames"));
    assert_int_equal(r->malformed, 0);
    close_record(r);
}

static void test_record__many_tensors_all_stay(void **state)
{
    mp_record *r = open_record();
    char name[32];

    (void)state;
    for (int i = 0; i < 1000; i++) {
        snprintf(name, sizeof name, "latents_%03d", i);
        tensor(r, name, "[1]", name);
    }
    assert_int_equal(r->tensor_count, 1000);
    for (int i = 0; i < 1000; i += 37) {
        snprintf(name, sizeof name, "latents_%03d", i);
        assert_string_equal(mp_record_tensor(r, name)->sha256, name);
    }
    close_record(r);
}

static void test_record__what_a_policy_did(void **state)
{
    static const char *const kinds[] = {"cast_in", "cast_out", "redo_refused", "redo_nonfinite"};
    mp_record *r = open_record();
    char text[400];

    (void)state;
    for (int i = 0; i < 4; i++) {
        snprintf(text, sizeof text,
                 ACTION("\"kind\":\"%s\",\"from\":\"bf16\",\"to\":\"fp32\"," COUNTS), kinds[i]);
        line(r, text);
    }
    line(r, ACTION("\"kind\":\"cast_in\",\"from\":\"bf16\",\"to\":\"fp16\"," COUNTS));
    assert_int_equal(r->action_count, 5);
    for (int i = 0; i < 4; i++)
        assert_string_equal(r->actions[i].kind, kinds[i]);
    assert_string_equal(r->actions[4].stage, "decode");
    assert_string_equal(r->actions[4].module, "vae.decoder");
    assert_string_equal(r->actions[4].op, "conv2d");
    assert_string_equal(r->actions[4].from, "bf16");
    assert_string_equal(r->actions[4].to, "fp16");
    assert_int_equal(r->actions[4].count, 2);
    assert_int_equal(r->actions[4].elements, 64);
    assert_true(r->actions[4].seconds == 0.5);
    assert_int_equal(r->malformed, 0);
    close_record(r);
}

#define OP(text) \
    "{\"event\":\"op\",\"stage\":\"decode\",\"module\":\"vae.decoder\",\"op\":\"conv2d\"," text "}"
#define WORK "\"calls\":3,\"seconds\":0.5,\"bytes\":64,\"flops\":9223372036854775807"

static void test_record__where_the_time_went(void **state)
{
    mp_record *r = open_record();

    (void)state;
    line(r, OP("\"dtype\":\"bf16\"," WORK));
    line(r, OP("\"dtype\":\"float16\"," WORK));
    line(r,
         "{\"event\":\"op\",\"stage\":\"decode\",\"module\":\"\",\"op\":\"\",\"dtype\":\"\"," WORK
         "}"); /* the others of the stage */
    assert_int_equal(r->op_count, 3);
    assert_string_equal(r->ops[0].stage, "decode");
    assert_string_equal(r->ops[0].module, "vae.decoder");
    assert_string_equal(r->ops[0].op, "conv2d");
    assert_string_equal(r->ops[0].dtype, "bf16");
    assert_int_equal(r->ops[0].calls, 3);
    assert_true(r->ops[0].seconds == 0.5);
    assert_int_equal(r->ops[0].bytes, 64);
    assert_true(r->ops[0].flops == INT64_MAX);
    assert_string_equal(r->ops[1].dtype, "fp16");
    assert_string_equal(r->ops[2].op, "");
    assert_string_equal(r->ops[2].dtype, "");
    assert_int_equal(r->malformed, 0);
    close_record(r);
}

static void test_record__what_the_counters_say(void **state)
{
    static const char *const bad[] = {
        "{\"event\":\"counters\",\"cycles\":-1}",
        "{\"event\":\"counters\",\"cycles\":1,\"instructions\":\"many\"}",
        "{\"event\":\"counters\",\"cache_misses\":null}",
    };
    const int n = (int)(sizeof bad / sizeof *bad);
    mp_record *r = open_record();

    (void)state;
    for (int i = 0; i < n; i++)
        line(r, bad[i]);
    assert_int_equal(r->malformed, n);
    assert_int_equal(r->counts_count, 0);
    line(r, "{\"event\":\"counters\",\"repeat\":0,\"cycles\":5e9,\"instructions\":9000000000}");
    line(r, "{\"event\":\"counters\",\"repeat\":1,\"cache_misses\":0}");
    assert_int_equal(r->counts_count, 2);
    assert_true(r->counts[0].value[0] == 5e9 && r->counts[0].value[1] == 9e9);
    assert_true(isnan(r->counts[0].value[2]) && isnan(r->counts[1].value[0]));
    assert_true(r->counts[1].value[2] == 0);
    close_record(r);
}

static void test_record__what_the_machine_can_do(void **state)
{
    static const char *const bad[] = {
        "{\"event\":\"roofline\"}",
        "{\"event\":\"roofline\",\"flops\":0,\"pairs\":0,\"copy\":1}",
        "{\"event\":\"roofline\",\"flops\":-1e9,\"pairs\":0,\"copy\":1}",
        "{\"event\":\"roofline\",\"flops\":1e9,\"pairs\":-1,\"copy\":1}",
        "{\"event\":\"roofline\",\"flops\":\"1e9\",\"pairs\":0,\"copy\":1}",
    };
    const int n = (int)(sizeof bad / sizeof *bad);
    mp_record *r = open_record();

    (void)state;
    for (int i = 0; i < n; i++)
        line(r, bad[i]);
    assert_int_equal(r->malformed, n);
    assert_true(r->roofline.flops == 0);
    line(r, "{\"event\":\"roofline\",\"flops\":1e9,\"pairs\":2e9,\"copy\":3e9}");
    assert_true(r->roofline.flops == 1e9 && r->roofline.pairs == 2e9 && r->roofline.copy == 3e9);
    /* Of several times the most; by what is counted, stage and module. */
    close_record(r);
}

static void test_record__bytes_of_each_part_of_the_memory(void **state)
{
    static const struct {
        const char *of, *stage, *module;
        int64_t bytes;
    } expected[] = {{"rss_peak", "denoise", "", 900},
                    {"rss_peak", "decode", "", 800},
                    {"activations", "denoise", "transformer.proj_out", 30},
                    {"activations", "denoise", "transformer.pos_embed", 20}};
    static const char *const bad[] = {
        "{\"event\":\"bytes\",\"of\":\"secrets\",\"stage\":\"denoise\",\"module\":\"\",\"bytes\":1}",
        "{\"event\":\"bytes\",\"of\":\"scratch\",\"stage\":\"\",\"module\":\"\",\"bytes\":1}",
        "{\"event\":\"bytes\",\"of\":\"scratch\",\"stage\":\"denoise\",\"module\":\"\",\"bytes\":-1}",
        "{\"event\":\"bytes\",\"of\":\"scratch\",\"stage\":\"denoise\",\"module\":\"\"}",
    };
    static const int64_t told[] = {700, 900, 100};
    mp_record *r = open_record();
    char text[200];

    (void)state;
    for (int i = 0; i < 3; i++) {
        snprintf(text, sizeof text,
                 "{\"event\":\"bytes\",\"of\":\"rss_peak\",\"stage\":\"denoise\",\"module\":\"\","
                 "\"bytes\":%lld}",
                 (long long)told[i]);
        line(r, text);
    }
    for (int i = 1; i < 4; i++) {
        snprintf(text, sizeof text,
                 "{\"event\":\"bytes\",\"of\":\"%s\",\"stage\":\"%s\",\"module\":\"%s\","
                 "\"bytes\":%lld}",
                 expected[i].of, expected[i].stage, expected[i].module,
                 (long long)expected[i].bytes);
        line(r, text);
    }
    assert_int_equal(r->malformed, 0);
    assert_int_equal(r->bytes_count, 4);
    for (int i = 0; i < 4; i++) {
        assert_string_equal(r->bytes[i].of, expected[i].of);
        assert_string_equal(r->bytes[i].stage, expected[i].stage);
        assert_string_equal(r->bytes[i].module, expected[i].module);
        assert_int_equal(r->bytes[i].bytes, expected[i].bytes);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        line(r, bad[i]);
    assert_int_equal(r->malformed, sizeof bad / sizeof *bad);
    assert_int_equal(r->bytes_count, 4);
    close_record(r);
}

static void test_record__weights_warnings_steps_and_the_end(void **state)
{
    mp_record *r = open_record();

    (void)state;
    line(r, "{\"event\":\"weights\",\"mapped\":1600000,\"converted\":12}");
    line(r, "{\"event\":\"warning\",\"text\":\"first\"}");
    line(r, "{\"event\":\"warning\",\"text\":\"second\"}");
    line(r, "{\"event\":\"step\",\"step\":3,\"steps\":6,\"repeat\":2}");
    assert_int_equal(r->weights_mapped, 1600000);
    assert_int_equal(r->weights_converted, 12);
    assert_string_equal(r->warnings.data, "first\nsecond");
    assert_int_equal(r->steps_done, 4);
    assert_int_equal(r->steps, 6);
    assert_int_equal(r->repeat, 2);
    assert_false(r->done);
    line(r, "{\"event\":\"done\"}");
    assert_true(r->done);
    assert_int_equal(r->malformed, 0);
    close_record(r);
}

static void test_record__the_first_non_finite_place_stays(void **state)
{
    mp_record *r = open_record();

    (void)state;
    line(r,
         "{\"event\":\"nonfinite\",\"module\":\"vae.up.0\",\"op\":\"linear\",\"stage\":\"decode\","
         "\"step\":-1,\"nan\":0,\"inf\":12}");
    line(r, "{\"event\":\"nonfinite\",\"module\":\"later\",\"op\":\"add\",\"stage\":\"decode\","
            "\"step\":4,\"nan\":9,\"inf\":0}");
    assert_true(r->nonfinite);
    assert_string_equal(r->error.module, "vae.up.0");
    assert_string_equal(r->error.op, "linear");
    assert_string_equal(r->stage, "decode");
    assert_int_equal(r->step, -1);
    assert_int_equal(r->nan, 0);
    assert_int_equal(r->inf, 12);
    assert_int_equal(r->error.code, MP_OK);
    close_record(r);
}

static void test_record__the_first_error_stays(void **state)
{
    mp_record *r = open_record();

    (void)state;
    line(
        r,
        "{\"event\":\"error\",\"code\":\"dtype\",\"text\":\"expected BFloat16\",\"module\":\"a.b\","
        "\"op\":\"matmul\",\"stage\":\"denoise\",\"step\":2}");
    line(r, "{\"event\":\"error\",\"code\":\"io\",\"text\":\"second\",\"module\":\"x\"}");
    line(r, "{\"event\":\"nonfinite\",\"module\":\"late\",\"nan\":1,\"inf\":0}");
    assert_int_equal(r->error.code, MP_EDTYPE);
    assert_string_equal(r->error.text, "expected BFloat16");
    assert_string_equal(r->error.module, "a.b");
    assert_string_equal(r->error.op, "matmul");
    assert_string_equal(r->stage, "denoise");
    assert_int_equal(r->step, 2);
    close_record(r);
}

static void test_record__every_code_has_its_name_and_others_are_no_events(void **state)
{
    (void)state;
    for (int i = 1; i < MP_CODE_COUNT; i++) {
        mp_record *r = open_record();
        char text[128];
        snprintf(text, sizeof text, "{\"event\":\"error\",\"code\":\"%s\",\"text\":\"t\"}",
                 mp_code_name((mp_code)i));
        line(r, text);
        assert_int_equal(r->error.code, i);
        assert_string_equal(r->stage, "");
        assert_int_equal(r->step, -1);
        assert_int_equal(r->malformed, 0);
        close_record(r);
    }
    mp_record *r = open_record();
    line(r, "{\"event\":\"error\",\"code\":\"ok\",\"text\":\"t\"}");
    line(r, "{\"event\":\"error\",\"text\":\"t\"}");
    assert_int_equal(r->error.code, MP_OK);
    assert_int_equal(r->malformed, 2);
    line(r, "{\"event\":\"error\",\"code\":\"exception\"}");
    assert_string_equal(r->error.text, "an error without a text");
    close_record(r);
}

/* What a library says of itself, and how much memory it took. */
static void test_record__keeps_exceptions_and_memory(void **state)
{
    mp_record *r = open_record();

    (void)state;
    line(r, "{\"event\":\"begin\",\"stage\":\"denoise\",\"repeat\":0}");
    assert_string_equal(r->begun, "denoise");
    line(r, "{\"event\":\"stage\",\"name\":\"denoise\",\"repeat\":0,\"seconds\":1}");
    assert_string_equal(r->begun, "");
    line(r, "{\"event\":\"memory\",\"peak_rss\":7,\"idle_rss\":3,\"cuda_allocated\":-1}");
    assert_int_equal(r->peak_rss, 7);
    assert_int_equal(r->idle_rss, 3);
    assert_int_equal(r->cuda_allocated, 0);
    line(r, "{\"event\":\"error\",\"code\":\"dtype\",\"text\":\"t\",\"exception\":\"RuntimeError\","
            "\"frame\":\"diffusers/a.py:1 in f\",\"id\":5}");
    assert_string_equal(r->exception, "RuntimeError");
    assert_string_equal(r->frame, "diffusers/a.py:1 in f");
    assert_int_equal(r->id, 5);
    assert_int_equal(r->malformed, 0);
    close_record(r);
}

/* The first bad line is quoted, as ASCII however it was. */
static void test_record__quotes_what_was_no_event(void **state)
{
    mp_record *r = open_record();

    (void)state;
    line(r, "Loading\tpipeline \xff\xfe");
    line(r, "another");
    assert_int_equal(r->malformed, 2);
    assert_string_equal(r->bad_line, "Loading?pipeline ??");
    close_record(r);
}

/* ---- malformed and hostile ------------------------------------------------------------------
 */

static void test_record__what_is_no_event_is_counted_and_changes_nothing(void **state)
{
    static const char *const lines[] = {
        "",
        "hello",
        "[]",
        "null",
        "\"done\"",
        "7",
        "{}",
        "{\"event\":7}",
        "{\"event\":null}",
        "{\"event\":\"\"}",
        "{\"event\":\"Done\"}",
        "{\"event\":\"done\"",
        "{\"event\":\"done\"} x",
        "{\"event\":\"done\"}{\"event\":\"done\"}",
        "{'event':'done'}",
        "{\"Event\":\"done\"}",
        "{\"event\":[\"done\"]}",
        "Traceback (most recent call last):",
        "{\"event\":\"error\",\"text\":\"caf\xe9\"}",
        "{\"event\":\"error\",\"text\":\"\\ud800\"}",
        "\xff\xfe{\"event\":\"done\"}",
        "{\"event\":\"step\",\"step\":99999999999999999999999}",
        "{\"event\":\"stage\",\"name\":\"x\",\"seconds\":1e999}",
    };
    const int n = (int)(sizeof lines / sizeof *lines);
    mp_record *r = open_record();

    (void)state;
    for (int i = 0; i < n; i++) {
        line(r, lines[i]);
        if (r->malformed != i + 1)
            fail_msg("accepted: %s", lines[i]);
    }
    line_n(r, "{\"event\":\"done\"\0}", 17);
    line_n(r, "\0", 1);
    assert_int_equal(r->malformed, n + 2);
    assert_false(r->done);
    assert_int_equal(r->error.code, MP_OK);
    assert_int_equal(r->sample_count + r->tensor_count + r->stage_count, 0);
    close_record(r);
}

static void test_record__stages_without_sense_are_malformed(void **state)
{
    static const char *const lines[] = {
        "{\"event\":\"stage\"}",
        "{\"event\":\"stage\",\"name\":\"\",\"seconds\":1}",
        "{\"event\":\"stage\",\"name\":7,\"seconds\":1}",
        "{\"event\":\"stage\",\"name\":\"x\",\"seconds\":-1}",
        "{\"event\":\"stage\",\"name\":\"x\",\"seconds\":-1e-300}",
        "{\"event\":\"stage\",\"name\":\"x\",\"seconds\":\"1\"}",
    };
    const int n = (int)(sizeof lines / sizeof *lines);
    mp_record *r = open_record();

    (void)state;
    for (int i = 0; i < n; i++) {
        line(r, lines[i]);
        if (r->malformed != i + 1)
            fail_msg("accepted: %s", lines[i]);
    }
    assert_int_equal(r->sample_count, 0);
    line(r, "{\"event\":\"stage\",\"name\":\"x\",\"seconds\":1,\"activations\":-5,\"repeat\":-9}");
    assert_int_equal(r->sample_count, 1);
    assert_int_equal(r->samples[0].repeat, -9); /* a warm-up */
    assert_int_equal(r->stage_count, 0);
    line(r, "{\"event\":\"stage\",\"name\":\"x\",\"seconds\":2,\"repeat\":-9}");
    assert_int_equal(r->sample_count, 1); /* told twice: the first one stays */
    close_record(r);
}

static void test_record__tensors_without_a_shape_are_malformed(void **state)
{
    static const char *const shapes[] = {
        "[1,1,1,1,1,1]", "[-1]", "[0]",     "[4,-8]", "[1.5]", "[\"4\"]", "[null]",
        "null",          "7",    "\"[4]\"", "{}",     "[[4]]", "[true]"};
    const int n = (int)(sizeof shapes / sizeof *shapes);
    mp_record *r = open_record();

    (void)state;
    for (int i = 0; i < n; i++) {
        tensor(r, "t", shapes[i], "aa");
        if (r->malformed != i + 1)
            fail_msg("accepted: %s", shapes[i]);
    }
    tensor(r, "", "[4]", "aa");
    tensor(r, "t", "[4]", "");
    line(
        r,
        "{\"event\":\"tensor\",\"name\":\"t\",\"dtype\":\"int8\",\"shape\":[4],\"sha256\":\"aa\"}");
    line(r, "{\"event\":\"tensor\",\"name\":\"t\",\"shape\":[4],\"sha256\":\"aa\"}");
    line(r, "{\"event\":\"tensor\"}");
    assert_int_equal(r->malformed, n + 5);
    assert_int_equal(r->tensor_count, 0);
    close_record(r);
}

static void test_record__actions_without_sense_are_malformed(void **state)
{
#define WHAT "\"kind\":\"cast_in\",\"from\":\"bf16\",\"to\":\"fp16\""
    static const char *const bad[] = {
        ACTION("\"kind\":\"cast\",\"from\":\"bf16\",\"to\":\"fp16\"," COUNTS),
        ACTION("\"kind\":7,\"from\":\"bf16\",\"to\":\"fp16\"," COUNTS),
        ACTION("\"kind\":\"cast_in\",\"from\":\"int8\",\"to\":\"fp16\"," COUNTS),
        ACTION("\"kind\":\"cast_in\",\"from\":\"bf16\"," COUNTS),
        ACTION(WHAT ",\"count\":0,\"elements\":64,\"seconds\":0.5"),
        ACTION(WHAT ",\"count\":-1,\"elements\":64,\"seconds\":0.5"),
        ACTION(WHAT ",\"count\":1.5,\"elements\":64,\"seconds\":0.5"),
        ACTION(WHAT ",\"count\":1,\"elements\":-64,\"seconds\":0.5"),
        ACTION(WHAT ",\"count\":1,\"seconds\":0.5"),
        ACTION(WHAT ",\"count\":1,\"elements\":64,\"seconds\":-0.5"),
        ACTION(WHAT ",\"count\":1,\"elements\":64,\"seconds\":\"long\""),
        ACTION(WHAT ",\"count\":1,\"elements\":64"),
        "{\"event\":\"action\",\"module\":\"vae\"," WHAT "," COUNTS "}",
    };
    enum { BAD = sizeof bad / sizeof *bad };
    mp_record *r = open_record();

    (void)state;
    for (int i = 0; i < BAD; i++) {
        line(r, bad[i]);
        assert_int_equal(r->malformed, i + 1);
    }
    assert_int_equal(r->action_count, 0);
    line(r, ACTION(WHAT "," COUNTS));
    line(r, ACTION(WHAT "," COUNTS)); /* a second time */
    assert_int_equal(r->action_count, 1);
    assert_int_equal(r->malformed, BAD + 1);
    close_record(r);
#undef WHAT
}

static void test_record__ops_without_sense_are_malformed(void **state)
{
    static const char *const bad[] = {
        OP(WORK),
        OP("\"dtype\":\"int8\"," WORK),
        OP("\"dtype\":\"\"," WORK),
        OP("\"dtype\":\"bf16\",\"calls\":0,\"seconds\":0.5,\"bytes\":64,\"flops\":1"),
        OP("\"dtype\":\"bf16\",\"calls\":1.5,\"seconds\":0.5,\"bytes\":64,\"flops\":1"),
        OP("\"dtype\":\"bf16\",\"calls\":1,\"seconds\":-0.5,\"bytes\":64,\"flops\":1"),
        OP("\"dtype\":\"bf16\",\"calls\":1,\"bytes\":64,\"flops\":1"),
        OP("\"dtype\":\"bf16\",\"calls\":1,\"seconds\":0.5,\"bytes\":-64,\"flops\":1"),
        OP("\"dtype\":\"bf16\",\"calls\":1,\"seconds\":0.5,\"bytes\":64,\"flops\":1e9"),
        OP("\"dtype\":\"bf16\",\"calls\":1,\"seconds\":0.5,\"bytes\":64"),
        "{\"event\":\"op\",\"module\":\"vae\",\"op\":\"conv2d\",\"dtype\":\"bf16\"," WORK "}",
    };
    enum { BAD = sizeof bad / sizeof *bad };
    mp_record *r = open_record();

    (void)state;
    for (int i = 0; i < BAD; i++) {
        line(r, bad[i]);
        assert_int_equal(r->malformed, i + 1);
    }
    assert_int_equal(r->op_count, 0);
    line(r, OP("\"dtype\":\"bf16\"," WORK));
    line(r, OP("\"dtype\":\"bf16\"," WORK)); /* a second time */
    assert_int_equal(r->op_count, 1);
    assert_int_equal(r->malformed, BAD + 1);
    close_record(r);
}

static void test_record__actions_stop_at_a_limit(void **state)
{
    mp_record *r = open_record();
    char text[400];

    (void)state;
    for (int i = 0; i < (1 << 14) + 10; i++) {
        snprintf(
            text, sizeof text,
            "{\"event\":\"action\",\"stage\":\"decode\",\"module\":\"%d\",\"kind\":\"cast_in\","
            "\"from\":\"bf16\",\"to\":\"fp16\"," COUNTS "}",
            i);
        line(r, text);
    }
    assert_int_equal(r->action_count, 1 << 14);
    assert_int_equal(r->malformed, 10);
    close_record(r);
}

static void test_record__a_huge_rank_is_malformed(void **state)
{
    mp_record *r = open_record();
    const int n = 200000;
    char *text = malloc((size_t)n * 2 + 256);

    (void)state;
    assert_non_null(text);
    char *at = text + sprintf(text, "{\"event\":\"tensor\",\"name\":\"t\",\"dtype\":\"fp32\","
                                    "\"sha256\":\"aa\",\"shape\":[1");
    for (int i = 1; i < n; i++, at += 2)
        memcpy(at, ",1", 2);
    strcpy(at, "]}");
    line(r, text);
    assert_int_equal(r->malformed, 1);
    assert_int_equal(r->tensor_count, 0);
    free(text);
    close_record(r);
}

static void test_record__deep_nesting_is_malformed(void **state)
{
    mp_record *r = open_record();
    const size_t n = 1000000;
    char *text = malloc(n);

    (void)state;
    assert_non_null(text);
    memset(text, '[', n);
    line_n(r, text, n);
    assert_int_equal(r->malformed, 1);
    free(text);
    close_record(r);
}

static void test_record__huge_and_negative_numbers_stay_within_their_fields(void **state)
{
    mp_record *r = open_record();

    (void)state;
    line(r, "{\"event\":\"step\",\"step\":9223372036854775807,\"steps\":4294967297,"
            "\"repeat\":-9223372036854775808}");
    assert_int_equal(r->steps_done, 0);
    assert_int_equal(r->steps, 0);
    assert_int_equal(r->repeat, 0);
    line(r, "{\"event\":\"step\",\"step\":2147483647,\"steps\":2147483646}");
    assert_int_equal(r->steps_done, 0);
    assert_int_equal(r->steps, INT_MAX - 1);
    line(r, "{\"event\":\"step\",\"step\":2147483646}");
    assert_int_equal(r->steps_done, INT_MAX);
    line(r, "{\"event\":\"nonfinite\",\"step\":-77,\"nan\":9223372036854775807,\"inf\":1.5}");
    assert_int_equal(r->step, -1);
    assert_true(r->nan == INT64_MAX);
    assert_int_equal(r->inf, 0);
    tensor(r, "t", "[9223372036854775807,9223372036854775807]", "aa");
    assert_true(mp_record_tensor(r, "t")->dim[1] == INT64_MAX); /* the file decides */
    line(r, "{\"event\":\"stage\",\"name\":\"x\",\"activations\":9223372036854775807}");
    assert_true(r->stages[0].activations == INT64_MAX);
    assert_int_equal(r->malformed, 0);
    close_record(r);
}

static void test_record__long_texts_are_cut_to_their_fields(void **state)
{
    mp_record *r = open_record();
    char *far = malloc(10001), *text = malloc(40200);

    (void)state;
    assert_true(far && text);
    memset(far, 'x', 10000);
    far[10000] = '\0';
    sprintf(text,
            "{\"event\":\"error\",\"code\":\"io\",\"text\":\"%s\",\"module\":\"%s\","
            "\"op\":\"%s\",\"stage\":\"%s\"}",
            far, far, far, far);
    line(r, text);
    assert_int_equal(strlen(r->error.text), MP_ERROR_TEXT - 1);
    assert_int_equal(strlen(r->error.module), MP_ERROR_MODULE - 1);
    assert_int_equal(strlen(r->error.op), MP_ERROR_OP - 1);
    sprintf(text,
            "{\"event\":\"action\",\"stage\":\"decode\",\"module\":\"%s\",\"op\":\"%s\","
            "\"kind\":\"cast_in\",\"from\":\"bf16\",\"to\":\"fp16\"," COUNTS "}",
            far, far);
    line(r, text);
    assert_int_equal(strlen(r->actions[0].module), MP_ERROR_MODULE - 1);
    assert_int_equal(strlen(r->actions[0].op), MP_ERROR_OP - 1);
    free(far);
    free(text);
    close_record(r);
}

static void test_record__warnings_stop_at_a_limit(void **state)
{
    mp_record *r = open_record();

    (void)state;
    for (int i = 0; i < 10000; i++)
        line(r, "{\"event\":\"warning\",\"text\":\"the same thing over and over again\"}");
    assert_true(r->warnings.length <= 1 << 17);
    assert_true(r->warnings.length > 1 << 15);
    assert_int_equal(r->malformed, 0); /* a result is not lost over them */
    assert_non_null(strstr(r->warnings.data, "again\nand more warnings than are kept"));
    close_record(r);
}

static void test_record__a_text_with_a_zero_byte_ends_there(void **state)
{
    mp_record *r = open_record();

    (void)state;
    line(r, "{\"event\":\"warning\",\"text\":\"one\\u0000two\"}");
    assert_string_equal(r->warnings.data, "one");
    close_record(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_record__a_new_one_knows_nothing),
        cmocka_unit_test(test_record__stages_give_samples_and_the_most_memory),
        cmocka_unit_test(test_record__more_stages_than_there_is_room_for_keep_their_times),
        cmocka_unit_test(test_record__tensors_are_kept_once_and_compared_after_that),
        cmocka_unit_test(test_record__many_tensors_all_stay),
        cmocka_unit_test(test_record__what_a_policy_did),
        cmocka_unit_test(test_record__where_the_time_went),
        cmocka_unit_test(test_record__what_the_counters_say),
        cmocka_unit_test(test_record__what_the_machine_can_do),
        cmocka_unit_test(test_record__bytes_of_each_part_of_the_memory),
        cmocka_unit_test(test_record__weights_warnings_steps_and_the_end),
        cmocka_unit_test(test_record__the_first_non_finite_place_stays),
        cmocka_unit_test(test_record__the_first_error_stays),
        cmocka_unit_test(test_record__every_code_has_its_name_and_others_are_no_events),
        cmocka_unit_test(test_record__keeps_exceptions_and_memory),
        cmocka_unit_test(test_record__quotes_what_was_no_event),
        cmocka_unit_test(test_record__what_is_no_event_is_counted_and_changes_nothing),
        cmocka_unit_test(test_record__stages_without_sense_are_malformed),
        cmocka_unit_test(test_record__tensors_without_a_shape_are_malformed),
        cmocka_unit_test(test_record__actions_without_sense_are_malformed),
        cmocka_unit_test(test_record__ops_without_sense_are_malformed),
        cmocka_unit_test(test_record__actions_stop_at_a_limit),
        cmocka_unit_test(test_record__a_huge_rank_is_malformed),
        cmocka_unit_test(test_record__deep_nesting_is_malformed),
        cmocka_unit_test(test_record__huge_and_negative_numbers_stay_within_their_fields),
        cmocka_unit_test(test_record__long_texts_are_cut_to_their_fields),
        cmocka_unit_test(test_record__warnings_stop_at_a_limit),
        cmocka_unit_test(test_record__a_text_with_a_zero_byte_ends_there),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
