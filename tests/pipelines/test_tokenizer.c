/* Tokenizers: ids equal those of the `tokenizers` package, sentencepiece and transformers, made by
 * tests/fixtures/make_tokenizers.py; and what is said of files that are unknown or hostile. */
#include "tests/pipelines/scratch.h"

#include <pthread.h>
#include <time.h>

#include <jansson.h>

#include "pipelines/common/tokenizer.h"

#define ROOT MP_FIXTURES "/tokenizers/"

static const char *const folders[] = {"clip-bpe",   "gemma-bpe", "gemma-spm",
                                      "llama3-bpe", "t5-spm",    "t5-unigram"};
enum { FOLDERS = sizeof folders / sizeof *folders };

static const char *folder(const char *name)
{
    static char path[512];

    snprintf(path, sizeof path, ROOT "%s", name);
    return path;
}

static mp_tokenizer *open_ok(const char *dir)
{
    mp_tokenizer *t = NULL;
    mp_error err = {0};

    mp_tokenizer_open(dir, &t, &err);
    assert_ok(&err);
    assert_non_null(t);
    return t;
}

static json_t *load_json(const char *path)
{
    json_error_t why;
    json_t *file = json_load_file(path, JSON_ALLOW_NUL, &why);

    if (!file)
        fail_msg("%s: line %d: %s", path, why.line, why.text);
    return file;
}

static json_t *load_corpus(const char *name)
{
    char path[512];

    snprintf(path, sizeof path, ROOT "%s/corpus.json", name);
    return load_json(path);
}

static int64_t integer(const json_t *object, const char *key)
{
    assert_true(json_is_integer(json_object_get(object, key)));
    return json_integer_value(json_object_get(object, key));
}

/* ids[count] are those of the list from `skip` on, as many of them as there are less `cut`. */
static void assert_ids(const char *name, const char *text, const int32_t *ids, int64_t count,
                       const json_t *golden, int64_t skip, int64_t cut)
{
    const int64_t wanted = (int64_t)json_array_size(golden) - skip - cut;

    for (int64_t i = 0; i < count && i < wanted; i++) {
        const json_int_t id = json_integer_value(json_array_get(golden, (size_t)(i + skip)));
        if (ids[i] != id)
            fail_msg("%s, \"%s\": id %lld is %d, expected %lld", name, text, (long long)i, ids[i],
                     (long long)id);
    }
    if (count != wanted)
        fail_msg("%s, \"%s\": %lld ids, expected %lld", name, text, (long long)count,
                 (long long)wanted);
}

static void check_text(const char *name, const mp_tokenizer *t, const char *text, size_t n,
                       const json_t *golden)
{
    mp_error err = {0};
    int32_t *ids;
    int64_t count;

    mp_tokenizer_encode(t, text, n, true, &ids, &count, &err);
    assert_ok(&err);
    assert_ids(name, text, ids, count, golden, 0, 0);
    mp_free(ids);
}

static void check_without_specials(const char *name, const mp_tokenizer *t, const json_t *c)
{
    const json_t *text = json_object_get(c, "text");
    mp_error err = {0};
    int32_t *ids;
    int64_t count;

    mp_tokenizer_encode(t, json_string_value(text), json_string_length(text), false, &ids, &count,
                        &err);
    assert_ok(&err);
    assert_ids(name, json_string_value(text), ids, count, json_object_get(c, "ids"),
               integer(c, "before"), integer(c, "after"));
    mp_free(ids);
}

static void test_tokenizer__gives_the_ids_of_every_corpus(void **state)
{
    (void)state;
    for (int f = 0; f < FOLDERS; f++) {
        mp_tokenizer *t = open_ok(folder(folders[f]));
        json_t *corpus = load_corpus(folders[f]), *c;
        size_t i;
        assert_true(json_array_size(json_object_get(corpus, "cases")) >= 80);
        json_array_foreach (json_object_get(corpus, "cases"), i, c) {
            const json_t *text = json_object_get(c, "text");
            check_text(folders[f], t, json_string_value(text), json_string_length(text),
                       json_object_get(c, "ids"));
            check_without_specials(folders[f], t, c);
        }
        check_text(folders[f], t, "a\0b", 3, json_object_get(corpus, "nul"));
        assert_int_equal(mp_tokenizer_vocab_size(t), integer(corpus, "vocab_size"));
        json_decref(corpus);
        mp_tokenizer_close(t);
    }
}

/* long_text() of make_tokenizers.py. */
static char *long_text(size_t *n)
{
    static const char *const words[] = {"light", " ", "the",  "  ", "é",  "snow", "\n",
                                        "123",   "Ω", "🦊", "'s", ", ", "\t",   "xq"};
    char *text = malloc(9000 * 6), *at = text;
    uint32_t x = 1;

    assert_non_null(text);
    for (int i = 0; i < 9000; i++) {
        x = (x * 1103515245u + 12345u) & 0x7fffffffu;
        at = stpcpy(at, words[(x >> 16) % (sizeof words / sizeof *words)]);
    }
    *n = (size_t)(at - text);
    return text;
}

static void test_tokenizer__gives_the_ids_of_long_texts(void **state)
{
    size_t n;
    char *text = long_text(&n), hash[17];

    (void)state;
    assert_true(n > 20000);
    for (int f = 0; f < FOLDERS; f++) {
        mp_tokenizer *t = open_ok(folder(folders[f]));
        json_t *corpus = load_corpus(folders[f]);
        const json_t *golden = json_object_get(corpus, "long");
        uint64_t fnv1a = 0xcbf29ce484222325u;
        mp_error err = {0};
        int32_t *ids;
        int64_t count;
        mp_tokenizer_encode(t, text, n, true, &ids, &count, &err);
        assert_ok(&err);
        assert_int_equal(count, integer(golden, "count"));
        for (int64_t i = 0; i < 4 * count; i++)
            fnv1a = (fnv1a ^ ((uint32_t)ids[i / 4] >> i % 4 * 8 & 0xff)) * 0x100000001b3u;
        snprintf(hash, sizeof hash, "%016llx", (unsigned long long)fnv1a);
        assert_string_equal(hash, json_string_value(json_object_get(golden, "fnv1a")));
        mp_free(ids);
        json_decref(corpus);
        mp_tokenizer_close(t);
    }
    free(text);
}

static void check_padded(const char *name, const mp_tokenizer *t, const json_t *c)
{
    const char *text = json_string_value(json_object_get(c, "text"));
    const int64_t n = integer(c, "n");
    mp_error err = {0};
    int32_t ids[128];
    uint8_t mask[128];
    int64_t truncated;

    assert_in_range(n, 1, 128);
    mp_tokenizer_encode_padded(t, text, n, ids, mask, &truncated, &err);
    assert_ok(&err);
    assert_ids(name, text, ids, n, json_object_get(c, "ids"), 0, 0);
    for (int64_t i = 0; i < n; i++)
        assert_int_equal(mask[i], i < integer(c, "ones"));
    assert_int_equal(truncated, integer(c, "cut"));
}

static void test_tokenizer__pads_and_truncates_as_transformers_does(void **state)
{
    int checked = 0;

    (void)state;
    for (int f = 0; f < FOLDERS; f++) {
        mp_tokenizer *t = open_ok(folder(folders[f]));
        json_t *corpus = load_corpus(folders[f]), *c;
        size_t i;
        json_array_foreach (json_object_get(corpus, "padded"), i, c) {
            check_padded(folders[f], t, c);
            checked++;
        }
        json_decref(corpus);
        mp_tokenizer_close(t);
    }
    assert_int_equal(checked, 5 * 6);
}

static size_t from_hex(const char *hex, char *to)
{
    const size_t n = strlen(hex) / 2;

    for (size_t i = 0; i < n; i++) {
        unsigned byte;
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
        to[i] = (char)byte;
    }
    return n;
}

static void test_tokenizer__replaces_what_is_not_utf8_as_python_does(void **state)
{
    (void)state;
    for (int f = 0; f < FOLDERS; f++) {
        mp_tokenizer *t = open_ok(folder(folders[f]));
        json_t *corpus = load_corpus(folders[f]), *c;
        size_t i;
        json_array_foreach (json_object_get(corpus, "bytes"), i, c) {
            const char *hex = json_string_value(json_object_get(c, "hex"));
            char bytes[64], *exact;
            const size_t n = from_hex(hex, bytes);
            exact = malloc(n); /* AddressSanitizer watches its end */
            assert_non_null(exact);
            memcpy(exact, bytes, n);
            check_text(folders[f], t, exact, n, json_object_get(c, "ids"));
            free(exact);
        }
        json_decref(corpus);
        mp_tokenizer_close(t);
    }
}

/* A folder with these files; NULL or null: none. */
static const char *scratch_tokenizer(const json_t *tokenizer, const json_t *config,
                                     const json_t *map)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json",
                                        "special_tokens_map.json", "tokenizer.model",
                                        "spiece.model"};
    const json_t *values[] = {tokenizer, config, map, NULL, NULL};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *text = values[i] && !json_is_null(values[i]) ? json_dumps(values[i], 0) : NULL;
        unlink(scratch(names[i]));
        if (text)
            scratch_text(names[i], text);
        free(text);
    }
    return scratch_dir;
}

static void test_tokenizer__knows_every_option_of_every_part(void **state)
{
    json_t *parts = load_json(ROOT "parts.json"), *c;
    const json_t *texts = json_object_get(parts, "texts"),
                 *models = json_object_get(parts, "models");
    size_t i;

    (void)state;
    assert_true(json_array_size(json_object_get(parts, "cases")) >= 70);
    json_array_foreach (json_object_get(parts, "cases"), i, c) {
        json_t *tokenizer = json_object_get(c, "tokenizer");
        const json_t *ids = json_object_get(c, "ids");
        json_object_set(tokenizer, "model",
                        json_array_get(models, (size_t)integer(tokenizer, "model")));
        mp_tokenizer *t = open_ok(scratch_tokenizer(tokenizer, NULL, NULL));
        for (size_t k = 0; k < json_array_size(texts); k++) {
            const json_t *text = json_array_get(texts, k);
            check_text(json_string_value(json_object_get(c, "name")), t, json_string_value(text),
                       json_string_length(text), json_array_get(ids, k));
        }
        mp_tokenizer_close(t);
    }
    json_decref(parts);
}

static void test_tokenizer__reads_the_configs_as_transformers_does(void **state)
{
    json_t *base = load_json(ROOT "gemma-bpe/tokenizer.json");
    json_t *file = load_json(ROOT "configs.json"), *c;
    const char *text = json_string_value(json_object_get(file, "text"));
    size_t i;

    (void)state;
    assert_true(json_array_size(json_object_get(file, "cases")) >= 18);
    json_array_foreach (json_object_get(file, "cases"), i, c) {
        const char *name = json_string_value(json_object_get(c, "name"));
        json_object_set(base, "padding", json_object_get(c, "padding"));
        mp_tokenizer *t = open_ok(
            scratch_tokenizer(base, json_object_get(c, "config"), json_object_get(c, "map")));
        check_text(name, t, text, strlen(text), json_object_get(c, "ids"));
        if (mp_tokenizer_pad_id(t) != integer(c, "pad"))
            fail_msg("%s: pads with %d", name, mp_tokenizer_pad_id(t));
        if (mp_tokenizer_vocab_size(t) != integer(c, "vocab_size"))
            fail_msg("%s: %lld tokens", name, (long long)mp_tokenizer_vocab_size(t));
        mp_tokenizer_close(t);
    }
    json_decref(file);
    json_decref(base);
}

static void test_tokenizer__gives_the_ids_of_the_sana_checkpoint(void **state)
{
    mp_tokenizer *t = open_ok(MP_FIXTURES "/checkpoints/sana-tiny/tokenizer");
    json_t *file = load_json(MP_FIXTURES "/goldens/sana/tokens.json"), *c;
    int checked = 0;
    size_t i;

    (void)state;
    json_array_foreach (json_object_get(file, "cases"), i, c) {
        const json_t *preprocessed = json_object_get(c, "preprocessed");
        const char *text = json_string_value(preprocessed);
        if (json_is_true(json_object_get(c, "complex_human_instruction")) ||
            strlen(text) != json_string_length(preprocessed))
            continue; /* composed by the pipeline (test_sana_prompt.c), or with a NUL inside */
        const int64_t n = integer(c, "max_sequence_length");
        int32_t ids[512];
        uint8_t mask[512];
        int64_t truncated;
        mp_error err = {0};
        assert_in_range(n, 1, 512);
        mp_tokenizer_encode_padded(t, text, n, ids, mask, &truncated, &err);
        assert_ok(&err);
        assert_ids("sana-tiny", text, ids, n, json_object_get(c, "ids"), 0, 0);
        checked++;
    }
    assert_true(checked > 0);
    json_decref(file);
    mp_tokenizer_close(t);
}

static void *read_bytes(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    char *bytes;

    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    *n = (size_t)ftell(f);
    rewind(f);
    bytes = malloc(*n + 1);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *n, f), *n);
    bytes[*n] = '\0';
    fclose(f);
    return bytes;
}

/* gemma-spm with this tokenizer_config.json. */
static const char *scratch_sentencepiece(const char *config)
{
    size_t n;
    char *bytes = read_bytes(ROOT "gemma-spm/tokenizer.model", &n);

    scratch_tokenizer(NULL, NULL, NULL);
    scratch_write("tokenizer.model", bytes, n);
    scratch_text("tokenizer_config.json", config);
    free(bytes);
    return scratch_dir;
}

static void test_tokenizer__adds_bos_and_eos_to_sentencepiece_as_its_config_says(void **state)
{
    static const struct {
        const char *config;
        bool bos, eos;
    } cases[] = {
        {"{}", false, false},
        {"{\"tokenizer_class\": \"GemmaTokenizer\"}", true, false},
        {"{\"tokenizer_class\": \"LlamaTokenizerFast\"}", true, false},
        {"{\"tokenizer_class\": \"T5Tokenizer\"}", false, true},
        {"{\"tokenizer_class\": \"T5TokenizerOfMine\"}", false, false},
        {"{\"tokenizer_class\": \"GemmaTokenizer\", \"add_bos_token\": false}", false, false},
        {"{\"add_eos_token\": true, \"add_bos_token\": true}", true, true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mp_tokenizer *t = open_ok(scratch_sentencepiece(cases[i].config));
        mp_error err = {0};
        int32_t *ids;
        int64_t count;
        mp_tokenizer_encode(t, "", 0, true, &ids, &count, &err);
        assert_ok(&err);
        assert_int_equal(count, cases[i].bos + cases[i].eos);
        if (cases[i].bos)
            assert_int_equal(ids[0], 2); /* the ids of sana_tokenizer.py */
        if (cases[i].eos)
            assert_int_equal(ids[count - 1], 1);
        assert_int_equal(mp_tokenizer_pad_id(t), 0);
        mp_free(ids);
        mp_tokenizer_close(t);
    }
}

static void test_tokenizer__finds_special_tokens_in_a_text_for_sentencepiece(void **state)
{
    mp_tokenizer *t = open_ok(scratch_sentencepiece("{\"bos_token\": \"<bos>\"}"));
    mp_error err = {0};
    int32_t *ids, *plain;
    int64_t count, plain_count;

    (void)state;
    mp_tokenizer_encode(t, "red<bos>red", 11, true, &ids, &count, &err);
    mp_tokenizer_encode(t, "red", 3, true, &plain, &plain_count, &err);
    assert_ok(&err);
    assert_int_equal(count, 2 * plain_count + 1);
    assert_int_equal(ids[plain_count], 2);
    assert_memory_equal(ids, plain, (size_t)plain_count * sizeof *ids);
    assert_memory_equal(ids + plain_count + 1, plain, (size_t)plain_count * sizeof *ids);
    mp_free(ids);
    mp_free(plain);
    mp_tokenizer_close(t);
}

/* What is around the part of a test. */
#define BPE \
    "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2}, \"merges\": []}"
#define SPLIT(pattern)                                                               \
    "{" BPE ", \"pre_tokenizer\": {\"type\": \"Split\", \"behavior\": \"Isolated\"," \
    " \"pattern\": " pattern "}}"
#define REGEX(regex) SPLIT("{\"Regex\": \"" regex "\"}")

static void assert_refused(const char *json, const char *config, mp_code code, const char *part)
{
    mp_tokenizer *t = NULL;
    mp_error err = {0};

    scratch_tokenizer(NULL, NULL, NULL);
    scratch_text("tokenizer.json", json);
    if (config)
        scratch_text("tokenizer_config.json", config);
    mp_tokenizer_open(scratch_dir, &t, &err);
    if (err.code != code)
        fail_msg("%s error, expected %s for %s %s: %s", mp_code_name(err.code), mp_code_name(code),
                 json, config ? config : "", err.text);
    assert_null(t);
    assert_error(&err, code, config ? "tokenizer_config.json: " : "/tokenizer.json: ", part);
}

static void test_tokenizer__names_the_part_that_it_does_not_know(void **state)
{
    static const struct {
        const char *json, *part;
    } cases[] = {
        {"{\"model\": {\"type\": \"WordPiece\"}}", "\"model\": model \"WordPiece\" is not known"},
        {"{" BPE ", \"normalizer\": {\"type\": \"Nmt\"}}", "normalizer \"Nmt\" is not known"},
        {"{" BPE ", \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFC\"},"
         " {\"type\": \"BertNormalizer\"}]}}",
         "\"normalizer.normalizers[1]\": normalizer \"BertNormalizer\""},
        {"{" BPE ", \"pre_tokenizer\": {\"type\": \"UnicodeScripts\"}}",
         "pre-tokenizer \"UnicodeScripts\""},
        {"{" BPE ", \"pre_tokenizer\": {\"type\": \"Split\", \"behavior\": \"Sideways\","
         " \"pattern\": {\"String\": \"a\"}}}",
         "behavior \"Sideways\""},
        {"{" BPE ", \"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"_\","
         " \"prepend_scheme\": \"last\"}}",
         "prepend_scheme \"last\""},
        {"{" BPE ", \"post_processor\": {\"type\": \"Sequence\", \"processors\":"
         " [{\"type\": \"Reverse\"}]}}",
         "\"post_processor.processors[0]\": post-processor \"Reverse\""},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {}, \"merges\": [], \"dropout\": 0.1}}",
         "option \"dropout\""},
        {REGEX("[a[b]]"), "a class in a class"},
        {REGEX("[a&&b]"), "&& in a class"},
        {REGEX("(?~ab)"), "this kind of group"},
        {REGEX("a(?i)b"), "this kind of group"},
        {REGEX("(?{a})"), "this kind of group"},
        {REGEX("(*ACCEPT)"), "(*"},
        {REGEX("(a)\\\\1"), "this escape"},
        {REGEX("\\\\K"), "this escape"},
        {REGEX("a{2}+"), "a quantifier after {n}"},
        {REGEX("\\\\pL"), "\\p without {name}"},
        {REGEX("\\\\xff"), "\\x of a byte"},
        {REGEX("[\\\\W]"), "this escape in a class"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused(cases[i].json, NULL, MP_EUNSUPPORTED, cases[i].part);
}

#define UNIGRAM(fields) "{\"model\": {\"type\": \"Unigram\", " fields "}}"
#define VOCAB(vocab, merges) \
    "{\"model\": {\"type\": \"BPE\", \"vocab\": " vocab ", \"merges\": " merges "}}"
#define ADDED(fields)      "{" BPE ", \"added_tokens\": [" fields "]}"
#define POST(fields)       "{" BPE ", \"post_processor\": " fields "}"
#define NORMALIZER(fields) "{" BPE ", \"normalizer\": " fields "}"
#define CHARSMAP(base64) \
    NORMALIZER("{\"type\": \"Precompiled\", \"precompiled_charsmap\": \"" base64 "\"}")

static void test_tokenizer__says_where_a_file_is_wrong(void **state)
{
    static const struct {
        const char *json, *part;
    } cases[] = {
        {"", "line 1, column 0"},
        {"[]", "expected an object at the top"},
        {"{}", "\"model\": expected an object, found nothing"},
        {"{\"model\": 5}", "\"model\": expected an object, found 5"},
        {"{\"model\": {}}", "\"model.type\": expected a string, found nothing"},
        {"{\"model\": {\"type\": [\"BPE\"]}}", "\"model.type\": expected a string, found a list"},
        {VOCAB("[]", "[]"), "\"model.vocab\": expected an object, found a list of 0"},
        {VOCAB("{\"a\": -1}", "[]"), "\"model.vocab.a\": expected an integer in 0..2147483647"},
        {VOCAB("{\"a\": 2147483648}", "[]"), "found 2147483648"},
        {VOCAB("{\"a\": 1.5}", "[]"), "found 1.5"},
        {VOCAB("{\"a\": 99999999999999999999}", "[]"), "too big integer"},
        {VOCAB("{\"a\": 1, \"a\": 2}", "[]"), "duplicate object key"},
        {VOCAB("{}", "{}"), "\"model.merges\": expected a list"},
        {VOCAB("{\"a\": 0}", "[\"a\"]"), "\"model.merges[0]\": expected two tokens"},
        {VOCAB("{\"a\": 0}", "[\"a a a\"]"), "\"model.merges[0]\": expected two tokens"},
        {VOCAB("{\"a\": 0}", "[[\"a\"]]"), "\"model.merges[0]\": expected two tokens"},
        {VOCAB("{\"a\": 0}", "[[\"a\", 5]]"), "\"model.merges[0]\": expected two tokens"},
        {VOCAB("{\"a\": 0}", "[\"a a\"]"), "\"model.merges[0]\": found \"aa\""},
        {VOCAB("{\"a\": 0}", "[[\"a\", \"b\"]]"), "\"model.merges[0]\": found \"b\""},
        {UNIGRAM("\"vocab\": []"), "\"model.vocab\": expected a list that is not empty"},
        {UNIGRAM("\"vocab\": [[\"a\"]]"), "\"model.vocab[0]\": expected [\"token\", score]"},
        {UNIGRAM("\"vocab\": [[\"a\", \"b\"]]"), "\"model.vocab[0]\""},
        {UNIGRAM("\"vocab\": [[\"a\", NaN]]"), "\"model.vocab[0]\""},
        {UNIGRAM("\"vocab\": [[\"a\", 0]], \"unk_id\": 1"), "expected an integer in 0..0, found 1"},
        {ADDED("5"), "\"added_tokens[0]\": expected an object, found 5"},
        {ADDED("{\"id\": 3}"), "\"added_tokens[0].content\""},
        {ADDED("{\"id\": 3, \"content\": \"x\", \"lstrip\": 1}"), "\"added_tokens[0].lstrip\""},
        {ADDED("{\"id\": -3, \"content\": \"x\"}"), "\"added_tokens[0].id\""},
        {ADDED("{\"id\": 7, \"content\": \"x\"}"), "found id 7 for added token \"x\", expected 3"},
        {ADDED("{\"id\": 7, \"content\": \"a\"}"), "found id 7 for added token \"a\", expected 0"},
        {NORMALIZER("5"), "\"normalizer\": expected an object or null, found 5"},
        {NORMALIZER("{}"), "\"normalizer.type\""},
        {NORMALIZER("{\"type\": \"Sequence\", \"normalizers\": [null]}"),
         "\"normalizer.normalizers[0]\": expected an object, found null"},
        {NORMALIZER("{\"type\": \"Replace\", \"content\": \"\"}"), "\"normalizer.pattern\""},
        {NORMALIZER("{\"type\": \"Prepend\"}"), "\"normalizer.prepend\""},
        {CHARSMAP("AAA"), "is not base64"},
        {CHARSMAP("A=AA"), "is not base64"},
        {CHARSMAP(""), "does not fit"},
        {CHARSMAP("/////w=="), "does not fit"},
        {CHARSMAP("BAAAAAAAAAD/"), "not UTF-8"},
        {SPLIT("5"), "\"pre_tokenizer.pattern\": expected an object"},
        {SPLIT("{\"String\": \"\"}"), "\"pre_tokenizer.pattern\""},
        {REGEX("a("), "is no expression that can be used"},
        {REGEX("\\\\p{Klingon}"), "is no expression that can be used"},
        {"{" BPE ", \"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"__\"}}",
         "\"pre_tokenizer.replacement\": expected one character"},
        {POST("{\"type\": \"TemplateProcessing\", \"single\": [], \"special_tokens\": {}}"),
         "a template with sequence A"},
        {POST("{\"type\": \"TemplateProcessing\", \"single\": [{\"Sequence\": {\"id\": \"B\"}}]}"),
         "sequence A once"},
        {POST(
             "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"x\"}}],"
             " \"special_tokens\": {\"x\": {\"ids\": [-1]}}}"),
         "\"post_processor.special_tokens.x\": expected ids"},
        {POST(
             "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"x\"}}],"
             " \"special_tokens\": {}}"),
         "\"post_processor.special_tokens.x\": expected an object"},
        {POST("{\"type\": \"RobertaProcessing\", \"cls\": [\"x\", \"y\"], \"sep\": [\"x\", 1]}"),
         "\"post_processor.cls\""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused(cases[i].json, NULL, MP_EFORMAT, cases[i].part);
}

static void test_tokenizer__says_where_its_config_is_wrong(void **state)
{
    static const struct {
        const char *config, *part;
    } cases[] = {
        {"{\"pad_token\": ", "expected valid JSON"},
        {"[]", "expected an object at the top"},
        {"{\"pad_token\": 5}", "\"pad_token\": expected a string or an object"},
        {"{\"extra_special_tokens\": 5}", "\"extra_special_tokens\": expected a list"},
        {"{\"extra_special_tokens\": [[]]}", "\"extra_special_tokens[0]\""},
        {"{\"added_tokens_decoder\": []}", "\"added_tokens_decoder\": expected an object"},
        {"{\"added_tokens_decoder\": {\"x\": {}}}", "found the id \"x\""},
        {"{\"added_tokens_decoder\": {\"99999999999999999999\": {}}}", "expected an integer"},
        {"{\"added_tokens_decoder\": {\"0\": 5}}", "\"added_tokens_decoder.0\""},
        {"{\"added_tokens_decoder\": {\"8\": {\"content\": \"x\"}}}", "found id 8"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused("{" BPE "}", cases[i].config, MP_EFORMAT, cases[i].part);
}

/* The ids of t5-spm's corpus, of which make_t5.py asserts that transformers gives them, too. */
static void check_t5(const char *name, const char *dir)
{
    mp_tokenizer *t = open_ok(dir);
    json_t *corpus = load_corpus("t5-spm"), *c;
    size_t i;

    json_array_foreach (json_object_get(corpus, "cases"), i, c) {
        const json_t *text = json_object_get(c, "text");
        check_text(name, t, json_string_value(text), json_string_length(text),
                   json_object_get(c, "ids"));
    }
    json_array_foreach (json_object_get(corpus, "padded"), i, c)
        check_padded(name, t, c);
    assert_int_equal(mp_tokenizer_pad_id(t), 0);
    assert_int_equal(mp_tokenizer_vocab_size(t), integer(corpus, "vocab_size"));
    json_decref(corpus);
    mp_tokenizer_close(t);
}

/* tokenizer.json and spiece.model, each as it is and beside the other's configuration. */
static void test_tokenizer__gives_the_ids_of_t5s_class_from_either_file(void **state)
{
    const char *const tiny = MP_FIXTURES "/checkpoints/sd3-tiny/tokenizer_3";
    json_t *tokenizer = load_json(MP_FIXTURES "/checkpoints/sd3-tiny/tokenizer_3/tokenizer.json");
    json_t *config =
        load_json(MP_FIXTURES "/checkpoints/sd3-tiny/tokenizer_3/tokenizer_config.json");
    json_t *normalizer = json_object_get(tokenizer, "normalizer");
    size_t n;
    char *bytes = read_bytes(ROOT "t5-spm/spiece.model", &n);

    (void)state;
    check_t5("sd3-tiny", tiny);
    scratch_tokenizer(NULL, config, NULL);
    scratch_write("spiece.model", bytes, n);
    check_t5("spiece.model with sd3-tiny's config", scratch_dir);
    /* foreign() of t5_tokenizer.py: the class's own parts win over the file's. */
    json_object_set_new(tokenizer, "normalizer",
                        json_pack("{s:s, s:[O, {s:s}]}", "type", "Sequence", "normalizers",
                                  normalizer, "type", "Lowercase"));
    json_object_set_new(tokenizer, "pre_tokenizer", json_null());
    json_object_set_new(json_object_get(tokenizer, "model"), "byte_fallback", json_true());
    check_t5("foreign parts", scratch_tokenizer(tokenizer, config, NULL));
    free(bytes);
    json_decref(tokenizer);
    json_decref(config);
}

static void assert_spiece_refused(const char *bytes, size_t n, const char *config, mp_code code,
                                  const char *part)
{
    mp_tokenizer *t;
    mp_error err = {0};

    scratch_tokenizer(NULL, NULL, NULL);
    scratch_write("spiece.model", bytes, n);
    if (config)
        scratch_text("tokenizer_config.json", config);
    mp_tokenizer_open(scratch_dir, &t, &err);
    assert_error(&err, code, part, scratch_dir);
    assert_null(t);
}

static void test_tokenizer__says_where_a_spiece_model_is_wrong(void **state)
{
    static const char t5[] = "{\"tokenizer_class\": \"T5Tokenizer\", \"extra_ids\": -1}";
    static const char no_end[] = "\x0a\x03\x0a\x01\x61"; /* one piece, "a" */
    static const char bpe[] = "\x0a\x06\x0a\x04</s>\x12\x02\x18\x02";
    static const char few[] = "\x0a\x06\x0a\x04</s>";
    static const char latin[] = "\x0a\x03\x0a\x01\xe9";
    mp_tokenizer *t;
    mp_error err = {0};
    size_t n;
    char *bytes = read_bytes(ROOT "t5-spm/spiece.model", &n);

    (void)state;
    assert_spiece_refused("", 0, NULL, MP_EFORMAT, "no piece");
    assert_spiece_refused(bytes, n - 1, NULL, MP_EFORMAT, "is damaged");
    assert_spiece_refused(no_end, 5, NULL, MP_EFORMAT, "no piece \"</s>\"");
    assert_spiece_refused(latin, 5, NULL, MP_EFORMAT, "is damaged");
    assert_spiece_refused(bpe, sizeof bpe - 1, NULL, MP_EUNSUPPORTED, "of type 2, expected");
    assert_spiece_refused(few, sizeof few - 1, "{\"extra_ids\": 0}", MP_EFORMAT, "unk_id");
    assert_spiece_refused(bytes, n, t5, MP_EFORMAT, "\"extra_ids\": expected an integer");
    assert_spiece_refused(bytes, n, "{\"tokenizer_class\": \"AlbertTokenizer\"}", MP_EUNSUPPORTED,
                          "only T5Tokenizer's is supported");
    scratch_tokenizer(NULL, NULL, NULL);
    scratch_text("tokenizer.json", "{" BPE "}");
    scratch_text("tokenizer_config.json", "{\"tokenizer_class\": \"T5TokenizerFast\"}");
    mp_tokenizer_open(scratch_dir, &t, &err);
    assert_error(&err, MP_EFORMAT, "tokenizer.json: \"model.vocab\": expected a list", "T5");
    assert_null(t);
    free(bytes);
}

static void test_tokenizer__refuses_sequences_without_end(void **state)
{
    static const char open[] = "{\"type\": \"Sequence\", \"normalizers\": [", close[] = "]}";
    enum { DEPTH = 500 };
    char *json = malloc(sizeof BPE + 64 + DEPTH * (sizeof open + sizeof close)), *at = json;

    (void)state;
    assert_non_null(json);
    at = stpcpy(at, "{" BPE ", \"normalizer\": ");
    for (int i = 0; i < DEPTH; i++)
        at = stpcpy(at, open);
    for (int i = 0; i < DEPTH; i++)
        at = stpcpy(at, close);
    stpcpy(at, "}");
    assert_refused(json, NULL, MP_EFORMAT, "sequences nested deeper than 8");
    free(json);
}

static void test_tokenizer__stops_a_text_that_grows_without_end(void **state)
{
    json_t *parts = json_array();
    json_t *root;
    mp_tokenizer *t;
    mp_error err = {0};
    int32_t *ids;
    int64_t count;

    (void)state;
    for (int i = 0; i < 64; i++) /* 8^64 letters of one */
        json_array_append_new(parts, json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern",
                                               "String", "a", "content", "aaaaaaaa"));
    root = json_pack("{s:{s:s, s:{s:i}, s:[]}, s:{s:s, s:o}}", "model", "type", "BPE", "vocab", "a",
                     0, "merges", "normalizer", "type", "Sequence", "normalizers", parts);
    t = open_ok(scratch_tokenizer(root, NULL, NULL));
    mp_tokenizer_encode(t, "a", 1, true, &ids, &count, &err);
    assert_error(&err, MP_ENOMEM, "no memory to normalize");
    assert_null(ids);
    mp_tokenizer_close(t);
    json_decref(root);
}

static void test_tokenizer__refuses_a_text_of_absurd_length(void **state)
{
    const size_t n = (16u << 20) + 1;
    mp_tokenizer *t = open_ok(folder("clip-bpe"));
    char *text = calloc(1, n);
    mp_error err = {0};
    int32_t *ids;
    int64_t count;

    (void)state;
    assert_non_null(text);
    mp_tokenizer_encode(t, text, n, true, &ids, &count, &err);
    assert_error(&err, MP_EUSAGE, "a text of 16777217 bytes, expected at most 16777216");
    assert_null(ids);
    free(text);
    mp_tokenizer_close(t);
}

/* Whatever it is, it opens and encodes, or is refused with a text. */
static void assert_survives(void)
{
    static const char text[] = "The red fox's <extra_id_0> é 🦊 12\n";
    mp_tokenizer *t = NULL;
    mp_error err = {0};
    int32_t *ids = NULL;
    int64_t count;

    if (!mp_tokenizer_open(scratch_dir, &t, &err))
        mp_tokenizer_encode(t, text, sizeof text - 1, true, &ids, &count, &err);
    if (err.code) {
        assert_true(err.code == MP_EFORMAT || err.code == MP_EUNSUPPORTED);
        assert_true(*err.text);
    }
    mp_free(ids);
    mp_tokenizer_close(t);
}

static void damage(const char *path, const char *name)
{
    size_t n;
    char *bytes = read_bytes(path, &n);
    uint32_t x = 7;

    scratch_tokenizer(NULL, NULL, NULL);
    for (size_t cut = 0; cut < n; cut += 1 + n / 60) {
        scratch_write(name, bytes, cut);
        assert_survives();
    }
    for (int i = 0; i < 250; i++) {
        char before[3];
        size_t at[3];
        for (int k = 0; k < 3; k++) {
            x = x * 1103515245u + 12345u;
            at[k] = (x >> 8) % n;
            before[k] = bytes[at[k]];
            bytes[at[k]] = i % 2 ? (char)(x >> 3) : "0123456789-[]{}\",:eE"[(x >> 3) % 20];
        }
        scratch_write(name, bytes, n);
        assert_survives();
        for (int k = 2; k >= 0; k--)
            bytes[at[k]] = before[k];
    }
    free(bytes);
}

static void test_tokenizer__survives_damaged_files(void **state)
{
    char path[512];

    (void)state;
    for (int f = 0; f < FOLDERS; f++) {
        const char *name = !strcmp(folders[f], "gemma-spm") ? "tokenizer.model"
                           : !strcmp(folders[f], "t5-spm")  ? "spiece.model"
                                                            : "tokenizer.json";
        snprintf(path, sizeof path, ROOT "%s/%s", folders[f], name);
        damage(path, name);
    }
}

static void test_tokenizer__survives_a_charsmap_of_noise(void **state)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t x = 3;

    (void)state;
    for (int i = 0; i < 200; i++) {
        char base64[1032 + 1] = "AAMAAA=="; /* 768 bytes of array, then NUL and text */
        char json[2048];
        for (int k = 8; k < 1032; k++) {
            x = x * 1103515245u + 12345u;
            base64[k] = digits[(x >> 16) % 64];
        }
        memcpy(base64, "AAMA", 4);
        base64[4] = 'A';
        base64[5] = base64[6] = base64[7] = 'A';
        /* The text behind the array is ASCII: groups of "aaaa". */
        for (int k = 1028; k < 1032; k++)
            base64[k] = "YWFh"[k - 1028];
        snprintf(json, sizeof json, CHARSMAP("%s"), base64);
        scratch_tokenizer(NULL, NULL, NULL);
        scratch_text("tokenizer.json", json);
        assert_survives();
    }
}

static void test_tokenizer__frees_all_when_any_allocation_fails(void **state)
{
    static const char text[] = "a <extra_id_0> b<|end|>";

    (void)state;
    for (int f = 0; f < FOLDERS; f++) {
        uint64_t n = 1;
        for (bool failed = true; failed; n++) {
            mp_tokenizer *t = NULL;
            mp_error err = {0};
            int32_t *ids = NULL, padded[24];
            uint8_t mask[24];
            int64_t count = 0;
            mp_memory_fail_at(n);
            mp_code code = mp_tokenizer_open(folder(folders[f]), &t, &err);
            if (!code)
                code = mp_tokenizer_encode(t, text, sizeof text - 1, true, &ids, &count, &err);
            if (!code)
                code = mp_tokenizer_encode_padded(t, text, 24, padded, mask, &count, &err);
            mp_memory_fail_at(0);
            failed = code;
            if (failed && err.code != MP_ENOMEM)
                fail_msg("%s, request %llu: %s: %s", folders[f], (unsigned long long)n,
                         mp_code_name(err.code), err.text);
            mp_free(ids);
            mp_tokenizer_close(t);
        }
        assert_true(n > 20);
    }
}

static void test_tokenizer__takes_a_long_word_in_no_quadratic_time(void **state)
{
    enum { N = 1000000 };
    char *text = malloc(N);

    (void)state;
    assert_non_null(text);
    for (int i = 0; i < N; i++)
        text[i] = "lighthe"[i % 7];
    for (int f = 0; f < FOLDERS; f++) {
        mp_tokenizer *t = open_ok(folder(folders[f]));
        mp_error err = {0};
        int32_t *ids;
        int64_t count;
        const clock_t start = clock();
        mp_tokenizer_encode(t, text, N, true, &ids, &count, &err);
        assert_ok(&err);
        /* 10^6 log 10^6 steps take a second or two, also under sanitizers; 10^12 take hours. */
        assert_true((clock() - start) / CLOCKS_PER_SEC < 60);
        assert_in_range(count, N / 20, N);
        mp_free(ids);
        mp_tokenizer_close(t);
    }
    free(text);
}

typedef struct job {
    const mp_tokenizer *tokenizer;
    const char *text;
    size_t n;
    int64_t count;
    int32_t *ids;
} job;

static void *encode_often(void *data)
{
    job *j = data;

    for (int i = 0; i < 8; i++) {
        mp_free(j->ids);
        if (mp_tokenizer_encode(j->tokenizer, j->text, j->n, true, &j->ids, &j->count, NULL))
            return NULL;
    }
    return j->ids;
}

static void test_tokenizer__serves_threads_at_the_same_time(void **state)
{
    enum { THREADS = 4 };
    size_t n;
    char *text = long_text(&n);

    (void)state;
    for (int f = 0; f < FOLDERS; f++) {
        mp_tokenizer *t = open_ok(folder(folders[f]));
        pthread_t threads[THREADS];
        job jobs[THREADS];
        for (int i = 0; i < THREADS; i++) {
            jobs[i] = (job){.tokenizer = t, .text = text, .n = n};
            assert_int_equal(pthread_create(&threads[i], NULL, encode_often, &jobs[i]), 0);
        }
        for (int i = 0; i < THREADS; i++)
            assert_int_equal(pthread_join(threads[i], NULL), 0);
        for (int i = 0; i < THREADS; i++) {
            assert_non_null(jobs[i].ids);
            assert_int_equal(jobs[i].count, jobs[0].count);
            assert_memory_equal(jobs[i].ids, jobs[0].ids, (size_t)jobs[0].count * sizeof(int32_t));
        }
        for (int i = 0; i < THREADS; i++)
            mp_free(jobs[i].ids);
        mp_tokenizer_close(t);
    }
    free(text);
}

static void test_tokenizer__says_that_a_folder_has_none(void **state)
{
    mp_tokenizer *t;
    mp_error err = {0};

    (void)state;
    mp_tokenizer_open(scratch_tokenizer(NULL, NULL, NULL), &t, &err);
    assert_error(&err, MP_EMISSING, "neither tokenizer.json nor spiece.model nor tokenizer.model");
    assert_null(t);
}

static void test_tokenizer__pads_only_with_room_and_a_padding_token(void **state)
{
    mp_tokenizer *t = open_ok(folder("clip-bpe"));
    int32_t ids[8];
    uint8_t mask[8];
    int64_t truncated;
    mp_error err = {0};

    (void)state;
    mp_tokenizer_encode_padded(t, "a", 1, ids, mask, &truncated, &err);
    assert_error(&err, MP_EUSAGE, "a length of 1 tokens", "the 2 special ones");
    mp_tokenizer_close(t);

    scratch_tokenizer(NULL, NULL, NULL);
    scratch_text("tokenizer.json", "{" BPE "}");
    t = open_ok(scratch_dir);
    err = (mp_error){0};
    mp_tokenizer_encode_padded(t, "ab", 2, ids, mask, &truncated, &err);
    assert_ok(&err); /* nothing is left to pad */
    mp_tokenizer_encode_padded(t, "ab", 3, ids, mask, &truncated, &err);
    assert_error(&err, MP_EMISSING, "no padding token", "\"pad_token\"");
    mp_tokenizer_close(t);
}

static void test_tokenizer__needs_its_unknown_token_only_for_what_is_unknown(void **state)
{
    static const char *const models[] = {
        "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [],"
        " \"unk_token\": \"<unk>\"}}",
        UNIGRAM("\"vocab\": [[\"a\", -1]], \"unk_id\": null"),
    };
    int32_t *ids;
    int64_t count;

    (void)state;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        mp_error err = {0};
        scratch_tokenizer(NULL, NULL, NULL);
        scratch_text("tokenizer.json", models[i]);
        mp_tokenizer *t = open_ok(scratch_dir);
        mp_tokenizer_encode(t, "aa", 2, true, &ids, &count, &err);
        assert_ok(&err);
        assert_int_equal(count, 2);
        mp_free(ids);
        mp_tokenizer_encode(t, "ax", 2, true, &ids, &count, &err);
        assert_error(&err, MP_EFORMAT, "tokenizer.json: \"model.unk_");
        assert_null(ids);
        mp_tokenizer_close(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokenizer__gives_the_ids_of_every_corpus),
        cmocka_unit_test(test_tokenizer__gives_the_ids_of_long_texts),
        cmocka_unit_test(test_tokenizer__pads_and_truncates_as_transformers_does),
        cmocka_unit_test(test_tokenizer__replaces_what_is_not_utf8_as_python_does),
        cmocka_unit_test(test_tokenizer__knows_every_option_of_every_part),
        cmocka_unit_test(test_tokenizer__reads_the_configs_as_transformers_does),
        cmocka_unit_test(test_tokenizer__gives_the_ids_of_t5s_class_from_either_file),
        cmocka_unit_test(test_tokenizer__says_where_a_spiece_model_is_wrong),
        cmocka_unit_test(test_tokenizer__gives_the_ids_of_the_sana_checkpoint),
        cmocka_unit_test(test_tokenizer__adds_bos_and_eos_to_sentencepiece_as_its_config_says),
        cmocka_unit_test(test_tokenizer__finds_special_tokens_in_a_text_for_sentencepiece),
        cmocka_unit_test(test_tokenizer__names_the_part_that_it_does_not_know),
        cmocka_unit_test(test_tokenizer__says_where_a_file_is_wrong),
        cmocka_unit_test(test_tokenizer__says_where_its_config_is_wrong),
        cmocka_unit_test(test_tokenizer__refuses_sequences_without_end),
        cmocka_unit_test(test_tokenizer__stops_a_text_that_grows_without_end),
        cmocka_unit_test(test_tokenizer__refuses_a_text_of_absurd_length),
        cmocka_unit_test(test_tokenizer__survives_damaged_files),
        cmocka_unit_test(test_tokenizer__survives_a_charsmap_of_noise),
        cmocka_unit_test(test_tokenizer__frees_all_when_any_allocation_fails),
        cmocka_unit_test(test_tokenizer__takes_a_long_word_in_no_quadratic_time),
        cmocka_unit_test(test_tokenizer__serves_threads_at_the_same_time),
        cmocka_unit_test(test_tokenizer__says_that_a_folder_has_none),
        cmocka_unit_test(test_tokenizer__pads_only_with_room_and_a_padding_token),
        cmocka_unit_test(test_tokenizer__needs_its_unknown_token_only_for_what_is_unknown),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
