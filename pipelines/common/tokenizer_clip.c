#include "pipelines/common/tokenizer_clip.h"

#include <string.h>

#include "kernels/core/memory.h"
#include "pipelines/common/file.h"

/* CLIPTokenizer.__init__ (transformers/models/clip/tokenization_clip.py). */
static const char class_parts[] =
    "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":["
    "{\"type\":\"NFC\"},"
    "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"\\\\s+\"},\"content\":\" \"},"
    "{\"type\":\"Lowercase\"}]},"
    "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":["
    "{\"type\":\"Split\",\"behavior\":\"Removed\",\"invert\":true,\"pattern\":{\"Regex\":"
    "\"<\\\\|startoftext\\\\|>|<\\\\|endoftext\\\\|>|'s|'t|'re|'ve|'m|'ll|'d|[\\\\p{L}]+|[\\\\p{N}]"
    "|[^\\\\s\\\\p{L}\\\\p{N}]+\"}},"
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}]},"
    "\"model\":{\"type\":\"BPE\",\"end_of_word_suffix\":\"</w>\"}}";

static mp_code no_memory(const char *path, mp_error *err)
{
    return mp_error_set(err, MP_ENOMEM, "%s: no memory to read it", path);
}

static mp_code check_class(const mp_clip_files *files, const json_t *config, mp_error *err)
{
    const mp_place root = {.path = files->config};
    const char *name = mp_field_text(&root, config, "tokenizer_class", "CLIPTokenizer", err);

    if (err->code || !strcmp(name, "CLIPTokenizer") || !strcmp(name, "CLIPTokenizerFast"))
        return err->code;
    return mp_error_set(err, MP_EUNSUPPORTED,
                        "%s: \"tokenizer_class\": vocab.json and merges.txt are known here for "
                        "\"CLIPTokenizer\" alone, found \"%s\"; save the tokenizer with "
                        "transformers 5, which writes tokenizer.json",
                        files->config, mp_plain(name).text);
}

/* The defaults of the class's arguments. */
static mp_code set_defaults(const mp_clip_files *files, json_t *config, mp_error *err)
{
    static const char *const defaults[][2] = {{"bos_token", "<|startoftext|>"},
                                              {"eos_token", "<|endoftext|>"},
                                              {"unk_token", "<|endoftext|>"},
                                              {"pad_token", "<|endoftext|>"}};

    for (size_t i = 0; i < sizeof defaults / sizeof *defaults; i++) {
        const json_t *given = json_object_get(config, defaults[i][0]);
        if ((!given || json_is_null(given)) &&
            json_object_set_new(config, defaults[i][0], json_string(defaults[i][1])))
            return no_memory(files->config, err);
    }
    return MP_OK;
}

/* Lines of merges.txt. */
typedef struct merge_lines {
    const mp_clip_files *files;
    const json_t *vocabulary;
    json_t *list; /* of what they say */
    mp_text token;
    size_t line;
} merge_lines;

static mp_code require(merge_lines *m, const char *left, size_t left_n, const char *right,
                       size_t right_n, mp_error *err)
{
    m->token.n = 0;
    mp_text_append(&m->token, left, left_n);
    mp_text_append(&m->token, right, right_n);
    mp_text_append(&m->token, "", 1);
    if (m->token.failed)
        return no_memory(m->files->merges, err);
    if (json_object_get(m->vocabulary, m->token.bytes))
        return MP_OK;
    return mp_error_set(err, MP_EFORMAT,
                        "%s: line %zu: found \"%s\", expected tokens of vocab.json beside it; take "
                        "both files from one checkpoint",
                        m->files->merges, m->line, mp_plain(m->token.bytes).text);
}

/* "left right": both and left + right are tokens. */
static mp_code add_line(merge_lines *m, const char *text, size_t n, mp_error *err)
{
    const char *space = memchr(text, ' ', n);
    const size_t left = space ? (size_t)(space - text) : 0;
    const char *right = text + left + 1;

    if (!space || memchr(right, ' ', n - left - 1))
        return mp_error_set(err, MP_EFORMAT,
                            "%s: line %zu: expected two tokens with one space between them; the "
                            "file is damaged",
                            m->files->merges, m->line);
    if (require(m, text, left, "", 0, err) || require(m, right, n - left - 1, "", 0, err) ||
        require(m, text, left, right, n - left - 1, err))
        return err->code;
    if (json_array_append_new(m->list, json_stringn(text, n)))
        return no_memory(m->files->merges, err);
    return MP_OK;
}

static mp_code add_lines(merge_lines *m, const char *text, size_t size, mp_error *err)
{
    for (size_t i = 0; i < size && !err->code;) {
        const char *end = memchr(text + i, '\n', size - i);
        const size_t next = end ? (size_t)(end - text) + 1 : size;
        size_t n = next - i - (end != NULL);
        n -= end && n && text[i + n - 1] == '\r';
        m->line++;
        if (n < 8 || memcmp(text + i, "#version", 8)) /* which the package leaves out anywhere */
            add_line(m, text + i, n, err);
        i = next;
    }
    return err->code;
}

static mp_code read_merges(const mp_clip_files *files, const json_t *vocabulary, json_t **out,
                           mp_error *err)
{
    enum { LIMIT = 64 << 20 };
    merge_lines m = {.files = files, .vocabulary = vocabulary, .list = json_array()};
    char *text = NULL;
    size_t n = 0;

    if (!m.list)
        no_memory(files->merges, err);
    else if (!mp_file_read(files->merges, LIMIT, &text, &n, err)) {
        if (!mp_utf8_valid(text, n) || memchr(text, '\0', n))
            mp_error_set(err, MP_EFORMAT, "%s: expected lines of UTF-8; the file is damaged",
                         files->merges);
        else
            add_lines(&m, text, n, err);
    }
    mp_free(m.token.bytes);
    mp_free(text);
    if (err->code)
        json_decref(m.list);
    else
        *out = m.list;
    return err->code;
}

/* The name of the unknown token, a string or an object with flags. */
static json_t *unknown_of(const json_t *config)
{
    json_t *token = json_object_get(config, "unk_token");
    json_t *content = json_object_get(token, "content");

    return content ? content : token;
}

/* What a tokenizer.json of this tokenizer would hold. */
static mp_code make_document(const mp_clip_files *files, const json_t *config, json_t **out,
                             mp_error *err)
{
    json_t *document = json_loads(class_parts, 0, NULL);
    json_t *model = json_object_get(document, "model");
    json_t *vocabulary = NULL, *merges = NULL;

    if (!document)
        no_memory(files->vocab, err);
    if (err->code || mp_json_load(files->vocab, &vocabulary, err) ||
        read_merges(files, vocabulary, &merges, err))
        goto done;
    if (json_object_set(model, "vocab", vocabulary) || json_object_set(model, "merges", merges) ||
        json_object_set(model, "unk_token", unknown_of(config)))
        no_memory(files->vocab, err);
done:
    json_decref(vocabulary);
    json_decref(merges);
    if (err->code)
        json_decref(document);
    else
        *out = document;
    return err->code;
}

mp_code mp_tokenizer_clip_read(const mp_clip_files *files, json_t *config, mp_tokenizer_parts *out,
                               mp_error *err)
{
    json_t *document = NULL;

    *out = (mp_tokenizer_parts){0};
    if (check_class(files, config, err) || set_defaults(files, config, err) ||
        make_document(files, config, &document, err))
        return err->code;
    mp_tokenizer_json_parse(&(mp_place){.path = files->vocab}, document, out, err);
    out->ends_by_config = !err->code;
    json_decref(document);
    return err->code;
}
