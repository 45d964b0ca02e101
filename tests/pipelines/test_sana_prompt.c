/* Goldens: goldens/sana/{tokens,bins}.json and resize.safetensors, made by
 * tests/fixtures/make_sana.py; lower case by CPython 3.11 (Unicode 14). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "kernels/core/memory.h"
#include "kernels/device.h"
#include "pipelines/common/python_text.h"
#include "pipelines/sana/prompt.h"
#include "pipelines/sana/resolution_bins.h"
#include "tests/support/mp_blocks.h"

static json_t *load(const char *name)
{
    char path[512];
    json_error_t error;

    snprintf(path, sizeof path, "%s/goldens/sana/%s", MP_FIXTURES, name);
    json_t *const j = json_load_file(path, JSON_ALLOW_NUL, &error);
    if (!j)
        fail_msg("%s: %s", path, error.text);
    return j;
}

static const char *text_of(const json_t *j, const char *key)
{
    return json_string_value(json_object_get(j, key));
}

/* A scenario's text is a C string: a prompt with a NUL never reaches a pipeline. */
static bool has_nul(const json_t *c)
{
    const json_t *const prompt = json_object_get(c, "prompt");

    return strlen(json_string_value(prompt)) != json_string_length(prompt);
}

static void check_tokens(const mp_tokenizer *t, const json_t *c, const char *instruction)
{
    const json_t *const ids = json_object_get(c, "ids"), *const mask = json_object_get(c, "mask");
    const bool instructed = json_is_true(json_object_get(c, "complex_human_instruction"));
    mp_sana_prompt p;
    mp_error err = {0};

    if (mp_sana_prompt_encode(t, text_of(c, "prompt"), instructed ? instruction : NULL,
                              json_integer_value(json_object_get(c, "max_sequence_length")), &p,
                              &err))
        fail_msg("%s", err.text);
    assert_int_equal(p.count, json_array_size(ids));
    for (int64_t i = 0; i < p.count; i++) {
        assert_int_equal(p.ids[i], json_integer_value(json_array_get(ids, (size_t)i)));
        assert_int_equal(p.mask[i], json_integer_value(json_array_get(mask, (size_t)i)));
    }
    mp_sana_prompt_free(&p);
}

static void test_prompt__gives_the_ids_and_masks_of_the_pipeline(void **state)
{
    json_t *const j = load("tokens.json"), *c;
    char *const instruction = mp_sana_join(mp_sana_instruction);
    mp_tokenizer *t = NULL;
    mp_error err = {0};
    size_t i;
    (void)state;

    if (mp_tokenizer_open(MP_FIXTURES "/checkpoints/sana-tiny/tokenizer", &t, &err))
        fail_msg("%s", err.text);
    json_array_foreach (json_object_get(j, "cases"), i, c)
        if (!has_nul(c))
            check_tokens(t, c, instruction);
    mp_tokenizer_close(t);
    mp_free(instruction);
    json_decref(j);
}

static void test_prompt__holds_the_pipelines_default_instruction(void **state)
{
    json_t *const j = load("tokens.json"), *const lines =
                                               json_object_get(j, "complex_human_instruction");
    size_t n = 0;
    (void)state;

    for (; mp_sana_instruction[n]; n++)
        assert_string_equal(mp_sana_instruction[n], json_string_value(json_array_get(lines, n)));
    assert_int_equal(n, json_array_size(lines));
    json_decref(j);
}

static void test_prompt__is_lowered_and_stripped_as_python_does(void **state)
{
    static const struct {
        const char *text, *lower;
    } cases[] = {
        {"", ""},
        {" \t\r\n", ""},
        {"\x1c\xc2\x85 A \xe3\x80\x80\xe2\x80\xa8", "a"}, /* FS, NEL; ideographic, line separator */
        {"\xe2\x80\x8b"
         "A",
         "\xe2\x80\x8b"
         "a"}, /* a zero-width space is no space */
        {"ÀÉÎÕÜ ŒŠŽ ẞ", "àéîõü œšž ß"},
        {"İI", "i̇i"},
        {"ΟΔΥΣΣΕΥΣ", "οδυσσευς"},
        {"Σ", "σ"}, /* no letter before it */
        {"ΑΣ. ΑΣ' ΑΣΒ", "ας. ας' ασβ"},
        {"ΑΣ\xcc\x81", "ας\xcc\x81"}, /* a combining mark is ignored */
        {"ΑΣ.Β", "ασ.β"},             /* so is a full stop inside a word */
        {"ǅ Ⅷ Ⓐ 𐐀", "ǆ ⅷ ⓐ 𐐨"},
        {"雪の中 🦊", "雪の中 🦊"},
        {"a\xff"
         "B",
         "a\xef\xbf\xbd"
         "b"}, /* not UTF-8 */
    };
    (void)state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *const lower = mp_python_lower_strip(cases[i].text);
        assert_string_equal(lower, cases[i].lower);
        mp_free(lower);
    }
}

static void test_prompt__is_preprocessed_as_the_pipeline_does(void **state)
{
    json_t *const j = load("tokens.json"), *c;
    size_t i;
    (void)state;

    json_array_foreach (json_object_get(j, "cases"), i, c) {
        if (has_nul(c))
            continue;
        char *const lower = mp_python_lower_strip(text_of(c, "prompt"));
        assert_string_equal(lower, text_of(c, "preprocessed"));
        mp_free(lower);
    }
    json_decref(j);
}

static void test_bins__are_those_of_diffusers(void **state)
{
    json_t *const j = load("bins.json"), *rows, *row;
    const char *size;
    size_t i;
    (void)state;

    json_object_foreach (j, size, rows)
        json_array_foreach (rows, i, row) {
            int64_t h = json_integer_value(json_array_get(row, 0));
            int64_t w = json_integer_value(json_array_get(row, 1));
            assert_true(mp_sana_bin(atoi(size), &h, &w));
            assert_int_equal(h, json_integer_value(json_array_get(row, 2)));
            assert_int_equal(w, json_integer_value(json_array_get(row, 3)));
        }
    json_decref(j);
}

/* ASPECT_RATIO_4096_BIN, and the ratios that only the two large tables have. */
static void test_bins__of_4096_are_those_of_diffusers(void **state)
{
    static const int64_t rows[][5] = {/* sample size, asked, given */
                                      {128, 4096, 4096, 4096, 4096}, {128, 1000, 3846, 2048, 7936},
                                      {128, 2890, 1000, 6656, 2304}, {64, 2890, 1000, 3328, 1152},
                                      {32, 2890, 1000, 1728, 576},   {16, 1000, 3846, 256, 1024}};
    (void)state;

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int64_t h = rows[i][1], w = rows[i][2];
        assert_true(mp_sana_bin(rows[i][0], &h, &w));
        assert_int_equal(h, rows[i][3]);
        assert_int_equal(w, rows[i][4]);
    }
    int64_t h = 1024, w = 1024;
    assert_false(mp_sana_bin(48, &h, &w));
}

static void test_bins__resize_and_crop_as_the_image_processor_does(void **state)
{
    static const struct {
        const char *name;
        int64_t h, w;
    } cases[] = {{"w13_h11", 11, 13},
                 {"w20_h16", 16, 20},
                 {"w20_h8", 8, 20},
                 {"w25_h24", 24, 25},
                 {"w8_h12", 12, 8}};
    mp_ctx *const c = mp_blocks_ctx();
    mp_blocks b;
    (void)state;

    mp_blocks_open(&b, c, "goldens/sana/resize.safetensors", NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const mp_tensor x = mp_blocks_picture(&b, "input");
        const mp_tensor y = mp_sana_resize_and_crop(c, x, cases[i].h, cases[i].w);
        /* four products and three sums in fp32: a few 2^-24 */
        assert_true(mp_blocks_distance(&b, y, cases[i].name) < 4e-7);
        assert_int_equal(y.dim[1], cases[i].h);
        assert_int_equal(y.dim[2], cases[i].w);
    }
    mp_blocks_close(&b);
    mp_device_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prompt__gives_the_ids_and_masks_of_the_pipeline),
        cmocka_unit_test(test_prompt__holds_the_pipelines_default_instruction),
        cmocka_unit_test(test_prompt__is_lowered_and_stripped_as_python_does),
        cmocka_unit_test(test_prompt__is_preprocessed_as_the_pipeline_does),
        cmocka_unit_test(test_bins__are_those_of_diffusers),
        cmocka_unit_test(test_bins__of_4096_are_those_of_diffusers),
        cmocka_unit_test(test_bins__resize_and_crop_as_the_image_processor_does),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
