/* vocab.json and merges.txt: ids equal those of transformers' CLIPTokenizer (tests/fixtures/
 * make_sd3_clip.py), also with other configs beside them; and what is said of wrong files. */
#include "tests/pipelines/scratch.h"

#include <jansson.h>

#include "pipelines/common/tokenizer.h"

#define CHECKPOINT MP_FIXTURES "/checkpoints/sd3-tiny/"
#define GOLDENS    MP_FIXTURES "/goldens/sd3/clip/"

enum { LENGTH = 77 };

static json_t *tokens;

static int setup(void **state)
{
    tokens = json_load_file(GOLDENS "tokens.json", 0, NULL);
    return tokens ? scratch_setup(state) : -1;
}

static int teardown(void **state)
{
    json_decref(tokens);
    return scratch_teardown(state);
}

static mp_tokenizer *open_ok(const char *dir)
{
    mp_tokenizer *t = NULL;
    mp_error err = {0};

    mp_tokenizer_open(dir, &t, &err);
    assert_ok(&err);
    return t;
}

static int32_t id_at(const json_t *list, size_t i)
{
    return (int32_t)json_integer_value(json_array_get(list, i));
}

/* The golden has the tokens, the script has checked that padding follows them. */
static void check_padded(const char *name, const mp_tokenizer *t, const json_t *c)
{
    const char *text = json_string_value(json_object_get(c, "text"));
    const json_t *golden = json_object_get(c, "ids");
    const size_t n = json_array_size(golden);
    int32_t ids[LENGTH];
    uint8_t mask[LENGTH];
    mp_error err = {0};
    int64_t cut;

    mp_tokenizer_encode_padded(t, text, LENGTH, ids, mask, &cut, &err);
    assert_ok(&err);
    for (size_t i = 0; i < LENGTH; i++) {
        const int32_t wanted = i < n ? id_at(golden, i) : mp_tokenizer_pad_id(t);
        if (ids[i] != wanted)
            fail_msg("%s, \"%s\": id %zu is %d, expected %d", name, text, i, ids[i], wanted);
        assert_int_equal(mask[i], i < n);
    }
    assert_int_equal(cut, json_integer_value(json_object_get(c, "cut")));
}

static void check_folder(const char *dir, const char *name, int pad)
{
    const json_t *cases = json_object_get(json_object_get(tokens, "folders"), name), *c;
    mp_tokenizer *const t = open_ok(dir);
    bool some_cut = false;
    size_t i;

    assert_true(json_array_size(cases) >= 80);
    assert_int_equal(mp_tokenizer_pad_id(t), pad);
    assert_int_equal(mp_tokenizer_max_length(t), LENGTH);
    assert_int_equal(mp_tokenizer_vocab_size(t), 604);
    json_array_foreach (cases, i, c) {
        check_padded(name, t, c);
        some_cut |= json_integer_value(json_object_get(c, "cut")) > 0;
    }
    assert_true(some_cut);
    mp_tokenizer_close(t);
}

/* CLIP-L pads with <|endoftext|>, CLIP-G with "!", which is a special token to it in any text. */
static void test_tokenizer_clip__gives_the_ids_of_transformers_in_both_conventions(void **state)
{
    (void)state;
    check_folder(CHECKPOINT "tokenizer", "tokenizer", 603);
    check_folder(CHECKPOINT "tokenizer_2", "tokenizer_2", 0);
}

static void test_tokenizer_clip__gives_the_same_ids_from_tokenizer_json(void **state)
{
    (void)state;
    check_folder(GOLDENS "tokenizer_json", "tokenizer_2", 0);
}

static void copy(const char *name)
{
    char path[512], text[16384];

    snprintf(path, sizeof path, CHECKPOINT "tokenizer/%s", name);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    const size_t n = fread(text, 1, sizeof text, f);
    assert_true(n < sizeof text);
    fclose(f);
    scratch_write(name, text, n);
}

/* The vocabulary with these files beside it; NULL or null: none. */
static void make_folder(const json_t *config, const json_t *map)
{
    static const char *const names[] = {"tokenizer_config.json", "special_tokens_map.json"};
    const json_t *values[] = {config, map};

    copy("vocab.json");
    copy("merges.txt");
    for (int i = 0; i < 2; i++) {
        char *text = values[i] && !json_is_null(values[i]) ? json_dumps(values[i], 0) : NULL;
        unlink(scratch(names[i]));
        if (text)
            scratch_text(names[i], text);
        free(text);
    }
}

static void check_config(const json_t *c)
{
    const char *name = json_string_value(json_object_get(c, "name"));
    const json_t *length = json_object_get(c, "model_max_length"), *text;
    mp_error err = {0};
    size_t k;

    make_folder(json_object_get(c, "config"), json_object_get(c, "map"));
    mp_tokenizer *const t = open_ok(scratch_dir);
    json_array_foreach (json_object_get(tokens, "texts"), k, text) {
        const json_t *golden = json_array_get(json_object_get(c, "ids"), k);
        int32_t *ids;
        int64_t n;
        mp_tokenizer_encode(t, json_string_value(text), json_string_length(text), true, &ids, &n,
                            &err);
        assert_ok(&err);
        for (size_t i = 0; i < json_array_size(golden) && i < (size_t)n; i++)
            if (ids[i] != id_at(golden, i))
                fail_msg("%s, text %zu: id %zu is %d, expected %d", name, k, i, ids[i],
                         id_at(golden, i));
        assert_int_equal(n, json_array_size(golden));
        mp_free(ids);
    }
    assert_int_equal(mp_tokenizer_pad_id(t), json_integer_value(json_object_get(c, "pad")));
    assert_int_equal(mp_tokenizer_vocab_size(t), json_integer_value(json_object_get(c, "size")));
    assert_true(mp_tokenizer_max_length(t) ==
                (json_is_null(length) ? INT64_MAX : json_integer_value(length)));
    mp_tokenizer_close(t);
}

static void test_tokenizer_clip__takes_the_class_s_defaults_where_configs_are_silent(void **state)
{
    const json_t *cases = json_object_get(tokens, "configs"), *c;
    size_t i;

    (void)state;
    assert_true(json_array_size(cases) >= 11);
    json_array_foreach (cases, i, c)
        check_config(c);
}

static void refused(mp_code code, const char *const *parts)
{
    mp_tokenizer *t = NULL;
    mp_error err = {0};

    mp_tokenizer_open(scratch_dir, &t, &err);
    assert_failure(&err, code, parts);
    assert_null(t);
}
#define assert_refused(code, ...) refused(code, (const char *const[]){__VA_ARGS__, NULL})

static void test_tokenizer_clip__says_which_file_and_line_is_wrong(void **state)
{
    static const struct {
        const char *file, *text, *parts[3];
    } cases[] = {
        {"merges.txt", "#version: 0.2\nt h\na b c\n", {"merges.txt: line 3: ", "two tokens"}},
        {"merges.txt", "t h\n\n", {"merges.txt: line 2: ", "damaged"}},
        {"merges.txt",
         "t h\r\nth q\r\n",
         {"line 2: found \"thq\"", "vocab.json", "one checkpoint"}},
        {"merges.txt", "zz e\n", {"line 1: found \"zz\""}},
        {"merges.txt", "t zz\n", {"line 1: found \"zz\""}},
        {"merges.txt", "t \xff\n", {"merges.txt: expected lines of UTF-8"}},
        {"vocab.json", "[]", {"vocab.json", "expected an object"}},
        {"vocab.json", "{\"a\": 1", {"vocab.json: line 1, column 7"}},
        {"vocab.json",
         "{\"t\":0,\"h\":1,\"th\":\"x\"}",
         {"vocab.json", "vocab.th", "an integer in"}},
        {"vocab.json", "{\"t\":0,\"h\":1,\"th\":-1}", {"vocab.json", "vocab.th", "found -1"}},
        {"tokenizer_config.json",
         "{\"tokenizer_class\": \"GPT2Tokenizer\"}",
         {"tokenizer_class", "found \"GPT2Tokenizer\"", "tokenizer.json"}},
        {"tokenizer_config.json",
         "{\"model_max_length\": 0}",
         {"tokenizer_config.json", "\"model_max_length\"", "at least 1"}},
        {"tokenizer_config.json", "{\"bos_token\": 3}", {"\"bos_token\"", "a string or an object"}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const bool merges = !strcmp(cases[i].file, "vocab.json");
        make_folder(NULL, NULL);
        if (merges)
            scratch_text("merges.txt", "t h\n");
        scratch_text(cases[i].file, cases[i].text);
        refused(
            strstr(cases[i].text, "GPT2") ? MP_EUNSUPPORTED : MP_EFORMAT,
            (const char *const[]){cases[i].parts[0], cases[i].parts[1], cases[i].parts[2], NULL});
    }
}

static void test_tokenizer_clip__needs_both_files(void **state)
{
    (void)state;
    make_folder(NULL, NULL);
    unlink(scratch("merges.txt"));
    assert_refused(MP_EMISSING, "has vocab.json without merges.txt", "whole folder");
    make_folder(NULL, NULL);
    unlink(scratch("vocab.json"));
    assert_refused(MP_EMISSING, "has merges.txt without vocab.json");
}

/* The lines end as in a file from another system, and the last line does not end at all. */
static void test_tokenizer_clip__reads_lines_that_end_in_cr_lf(void **state)
{
    int32_t *ids;
    int64_t n;
    mp_error err = {0};

    (void)state;
    make_folder(NULL, NULL);
    scratch_text("merges.txt", "#version: 0.2\r\nt h\r\nth e</w>");
    mp_tokenizer *const t = open_ok(scratch_dir);
    mp_tokenizer_encode(t, "The", 3, false, &ids, &n, &err);
    assert_ok(&err);
    assert_int_equal(n, 1);
    mp_free(ids);
    mp_tokenizer_close(t);
}

static int64_t left;

static void *count_down(size_t n)
{
    return left-- > 0 ? malloc(n) : NULL;
}

static void test_tokenizer_clip__reports_every_failed_allocation_of_json(void **state)
{
    mp_tokenizer *t = NULL;
    mp_error err = {.code = MP_ENOMEM};
    int64_t failures = 0;

    (void)state;
    json_set_alloc_funcs(count_down, free);
    /* in steps: a vocabulary of 604 is thousands of allocations */
    for (int64_t allowed = 0; err.code; allowed += allowed < 200 ? 1 : 37, failures++) {
        err = (mp_error){0};
        left = allowed;
        mp_tokenizer_open(CHECKPOINT "tokenizer_2", &t, &err);
        assert_true(!err.code == (t != NULL));
    }
    left = INT64_MAX;
    mp_tokenizer_close(t);
    json_set_alloc_funcs(malloc, free);
    assert_true(failures > 200);
}

static void test_tokenizer_clip__frees_all_when_any_allocation_fails(void **state)
{
    bool failed = true;
    uint64_t n = 1;

    (void)state;
    for (; failed; n++) {
        mp_tokenizer *t = NULL;
        mp_error err = {0};
        mp_memory_fail_at(n);
        failed = mp_tokenizer_open(CHECKPOINT "tokenizer_2", &t, &err);
        mp_memory_fail_at(0);
        if (failed && err.code != MP_ENOMEM)
            fail_msg("request %llu: %s: %s", (unsigned long long)n, mp_code_name(err.code),
                     err.text);
        mp_tokenizer_close(t);
    }
    assert_true(n > 40);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokenizer_clip__gives_the_ids_of_transformers_in_both_conventions),
        cmocka_unit_test(test_tokenizer_clip__gives_the_same_ids_from_tokenizer_json),
        cmocka_unit_test(test_tokenizer_clip__takes_the_class_s_defaults_where_configs_are_silent),
        cmocka_unit_test(test_tokenizer_clip__says_which_file_and_line_is_wrong),
        cmocka_unit_test(test_tokenizer_clip__needs_both_files),
        cmocka_unit_test(test_tokenizer_clip__reads_lines_that_end_in_cr_lf),
        cmocka_unit_test(test_tokenizer_clip__reports_every_failed_allocation_of_json),
        cmocka_unit_test(test_tokenizer_clip__frees_all_when_any_allocation_fails),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
