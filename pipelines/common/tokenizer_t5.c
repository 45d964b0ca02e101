#include "pipelines/common/tokenizer_t5.h"

#include <stdio.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "pipelines/common/file.h"

enum { UNK = 2, FILE_LIMIT = 256 << 20, MAX_PIECES = 1 << 22 };

/* ---- protobuf: the fields of sentencepiece_model.proto that matter here -----------------------
 */

typedef struct message {
    const unsigned char *at, *end;
} message;

typedef struct field {
    uint64_t number, value; /* value: of a varint */
    message bytes;          /* of a string or a message; of a float its four bytes */
} field;

static bool read_varint(message *m, uint64_t *out)
{
    *out = 0;
    for (int shift = 0; shift < 64 && m->at < m->end; shift += 7) {
        const unsigned char byte = *m->at++;
        *out |= (uint64_t)(byte & 127) << shift;
        if (byte < 128)
            return true;
    }
    return false;
}

/* False at the end and, then with *damaged, where no field can be read. */
static bool next_field(message *m, field *f, bool *damaged)
{
    uint64_t key, size;

    if (m->at == m->end || *damaged)
        return false;
    *damaged = true;
    *f = (field){0};
    if (!read_varint(m, &key))
        return false;
    f->number = key >> 3;
    if ((key & 7) == 0) {
        *damaged = !read_varint(m, &f->value);
        return !*damaged;
    }
    size = (key & 7) == 1 ? 8 : (key & 7) == 5 ? 4 : UINT64_MAX;
    if ((key & 7) == 2 && !read_varint(m, &size))
        return false;
    if (size > (uint64_t)(m->end - m->at))
        return false;
    f->bytes = (message){m->at, m->at + size};
    m->at += size;
    *damaged = false;
    return true;
}

typedef enum piece_type { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4 } piece_type;

typedef struct piece {
    message text;
    float score;
    uint64_t type;
} piece;

/* SentencePiece: piece 1, score 2, type 3 */
static piece read_piece(message m, bool *damaged)
{
    piece p = {.type = NORMAL};
    field f;

    while (next_field(&m, &f, damaged))
        if (f.number == 1)
            p.text = f.bytes;
        else if (f.number == 2 && f.bytes.end - f.bytes.at == 4)
            memcpy(&p.score, f.bytes.at, 4); /* little-endian, as all that this code runs on */
        else if (f.number == 3)
            p.type = f.value;
    return p;
}

/* The first field of that number in a message: its varint, or its bytes. */
static field find_field(message m, uint64_t number, uint64_t fallback, bool *damaged)
{
    field f, found = {.value = fallback};

    while (next_field(&m, &f, damaged))
        if (f.number == number)
            found = f; /* the last one counts */
    return found;
}

/* ---- as tokenizer.json ------------------------------------------------------------------------
 */

static json_t *pretokenizer(void)
{
    return json_pack("{s:s, s:[{s:s}, {s:s, s:s, s:s, s:b}]}", "type", "Sequence", "pretokenizers",
                     "type", "WhitespaceSplit", "type", "Metaspace", "replacement", "\u2581",
                     "prepend_scheme", "always", "split", 1);
}

static json_t *base64(message m)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const size_t n = (size_t)(m.end - m.at);
    char *text = mp_alloc(n / 3 * 4 + 5, 1), *to = text;

    for (size_t i = 0; text && i < n; i += 3) {
        uint32_t group = 0;
        for (size_t k = 0; k < 3; k++)
            group = group << 8 | (i + k < n ? m.at[i + k] : 0);
        for (size_t k = 0; k < 4; k++)
            *to++ = i + k > n ? '=' : digits[group >> (18 - 6 * k) & 63];
    }
    json_t *const value = text ? json_stringn(text, (size_t)(to - text)) : NULL;
    mp_free(text);
    return value;
}

/* What is gathered from a spiece.model. */
typedef struct model {
    json_t *vocab, *added;
    int64_t eos;
    bool damaged, no_memory;
} model;

static void add_token(model *m, json_t *content, int64_t id, bool special)
{
    json_t *const token =
        json_pack("{s:I, s:o*, s:b, s:b, s:b, s:b, s:b}", "id", (json_int_t)id, "content", content,
                  "special", special, "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0);

    m->no_memory |= json_array_append_new(m->added, token) != 0;
}

static void add_piece(model *m, piece p)
{
    const int64_t id = (int64_t)json_array_size(m->vocab);
    const char *const at = (const char *)p.text.at;
    const size_t n = (size_t)(p.text.end - p.text.at);

    m->damaged |= !n || memchr(at, 0, n) || !mp_utf8_valid(at, n) || id >= MAX_PIECES;
    json_t *const text = m->damaged ? NULL : json_stringn(at, n);
    m->no_memory |= !m->damaged && !text;
    if (!text)
        return;
    if (!strcmp(json_string_value(text), "</s>"))
        m->eos = id;
    if (p.type == CONTROL || p.type == USER_DEFINED || p.type == UNKNOWN)
        add_token(m, json_incref(text), id, p.type != USER_DEFINED);
    m->no_memory |=
        json_array_append_new(m->vocab, json_pack("[o, f]", text, (double)p.score)) != 0;
}

/* Their ids go down as their numbers go up. */
static void add_extra_ids(model *m, int count)
{
    const int64_t first = (int64_t)json_array_size(m->vocab);
    char name[32];

    for (int i = count - 1; i >= 0; i--) {
        snprintf(name, sizeof name, "<extra_id_%d>", i);
        m->no_memory |= json_array_append_new(m->vocab, json_pack("[s, f]", name, 0.0)) != 0;
    }
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof name, "<extra_id_%d>", i);
        add_token(m, json_string(name), first + count - 1 - i, true);
    }
}

static json_t *template(int64_t eos)
{
    return json_pack("{s:s, s:[{s:{s:s}}, {s:{s:s}}], s:{s:{s:[I]}}}", "type", "TemplateProcessing",
                     "single", "Sequence", "id", "A", "SpecialToken", "id", "</s>",
                     "special_tokens", "</s>", "ids", (json_int_t)eos);
}

/* Steals what the model gathered. */
static json_t *as_tokenizer(model *m, message charsmap)
{
    json_t *const normalizer = charsmap.at == charsmap.end
                                   ? json_null()
                                   : json_pack("{s:s, s:o}", "type", "Precompiled",
                                               "precompiled_charsmap", base64(charsmap));

    return json_pack("{s:{s:s, s:i, s:b, s:o}, s:o, s:o, s:o, s:o}", /* NULL when one of them is */
                     "model", "type", "Unigram", "unk_id", UNK, "byte_fallback", 0, "vocab",
                     m->vocab, "added_tokens", m->added, "normalizer", normalizer, "pre_tokenizer",
                     pretokenizer(), "post_processor", template(m->eos));
}

static mp_code finish(const mp_place *root, json_t *file, mp_tokenizer_parts *out, mp_error *err)
{
    if (!file)
        return mp_place_no_memory(root, err);
    if (mp_tokenizer_json_parse(root, file, out, err))
        return err->code;
    if (!out->pad && !(out->pad = mp_strdup("<pad>"))) { /* the class's default */
        mp_tokenizer_parts_free(out);
        return mp_place_no_memory(root, err);
    }
    return MP_OK;
}

/* ModelProto: pieces 1, trainer_spec 2 (model_type 3), normalizer_spec 3 (precompiled_charsmap 2)
 */
static mp_code read_spiece(const mp_place *root, message whole, int extra_ids,
                           mp_tokenizer_parts *out, mp_error *err)
{
    model m = {.vocab = json_array(), .added = json_array(), .eos = -1};
    message rest = whole;
    field f;

    m.no_memory = !m.vocab || !m.added;
    while (!m.no_memory && next_field(&rest, &f, &m.damaged))
        if (f.number == 1)
            add_piece(&m, read_piece(f.bytes, &m.damaged));
    const uint64_t type =
        find_field(find_field(whole, 2, 0, &m.damaged).bytes, 3, 1, &m.damaged).value;
    const message charsmap =
        find_field(find_field(whole, 3, 0, &m.damaged).bytes, 2, 0, &m.damaged).bytes;
    add_extra_ids(&m, extra_ids);
    if (m.no_memory)
        mp_place_no_memory(root, err);
    else if (m.damaged)
        mp_error_set(err, MP_EFORMAT, "%s: is damaged; expected a sentencepiece model", root->path);
    else if (type != 1)
        mp_error_set(err, MP_EUNSUPPORTED,
                     "%s: a sentencepiece model of type %llu, expected a unigram model (1) for T5",
                     root->path, (unsigned long long)type);
    else if (m.eos < 0)
        mp_error_set(err, MP_EFORMAT, "%s: has no piece \"</s>\", expected one to end texts with",
                     root->path);
    if (err->code) {
        json_decref(m.vocab);
        json_decref(m.added);
        return err->code;
    }
    json_t *const file = as_tokenizer(&m, charsmap);
    finish(root, file, out, err);
    json_decref(file);
    return err->code;
}

mp_code mp_tokenizer_t5_spiece(const char *path, int extra_ids, mp_tokenizer_parts *out,
                               mp_error *err)
{
    const mp_place root = {.path = path};
    char *bytes = NULL;
    size_t n = 0;

    *out = (mp_tokenizer_parts){0};
    if (mp_file_read(path, FILE_LIMIT, &bytes, &n, err))
        return err->code;
    const unsigned char *const at = (const unsigned char *)bytes;
    read_spiece(&root, (message){at, at + n}, extra_ids, out, err);
    mp_free(bytes);
    return err->code;
}

/* The first table of characters among the normalizers, or null. */
static json_t *charsmap_of(json_t *normalizer)
{
    json_t *const list = json_object_get(normalizer, "normalizers");
    const size_t n = list ? json_array_size(list) : 1;

    for (size_t i = 0; i < n; i++) {
        json_t *const part = list ? json_array_get(list, i) : normalizer;
        const char *const type = json_string_value(json_object_get(part, "type"));
        if (type && !strcmp(type, "Precompiled"))
            return json_incref(part);
    }
    return json_null();
}

mp_code mp_tokenizer_t5_json(const char *path, mp_tokenizer_parts *out, mp_error *err)
{
    const mp_place root = {.path = path};
    json_t *file;

    *out = (mp_tokenizer_parts){0};
    if (mp_json_load(path, &file, err))
        return err->code;
    json_t *const unigram = json_object_get(file, "model");
    if (!json_is_array(json_object_get(unigram, "vocab"))) {
        mp_error_set(err, MP_EFORMAT,
                     "%s: \"model.vocab\": expected a list, as T5Tokenizer is a unigram model",
                     path);
    } else {
        json_t *const normalizer = charsmap_of(json_object_get(file, "normalizer"));
        const bool failed = json_object_set_new(file, "normalizer", normalizer) ||
                            json_object_set_new(file, "pre_tokenizer", pretokenizer()) ||
                            json_object_set_new(unigram, "unk_id", json_integer(UNK)) ||
                            json_object_set_new(unigram, "byte_fallback", json_false());
        finish(&root, failed ? NULL : file, out, err);
    }
    json_decref(file);
    return err->code;
}
