#include "pipelines/common/tokenizer.h"

#include <string.h>

#include "kernels/core/memory.h"
#include "pipelines/common/file.h"
#include "pipelines/common/tokenizer_clip.h"
#include "pipelines/common/tokenizer_config.h"
#include "pipelines/common/tokenizer_decode.h"
#include "pipelines/common/tokenizer_json.h"
#include "pipelines/common/tokenizer_t5.h"

struct mp_tokenizer {
    char *dir;
    mp_tokenizer_parts parts;
    int32_t pad;
};

/* The parts write to an error of their own, so that they may trust it to be empty at first. */
static mp_code pass_on(const mp_error *own, mp_error *err)
{
    return own->code ? mp_error_set(err, own->code, "%s", own->text) : MP_OK;
}

/* The files that a folder may have; NULL after a failed allocation. */
typedef struct tokenizer_paths {
    char *json, *spiece, *model, *vocab, *merges, *config;
} tokenizer_paths;

static bool join_paths(const char *dir, tokenizer_paths *p)
{
    p->json = mp_file_join(dir, "tokenizer.json");
    p->spiece = mp_file_join(dir, "spiece.model");
    p->model = mp_file_join(dir, "tokenizer.model");
    p->vocab = mp_file_join(dir, "vocab.json");
    p->merges = mp_file_join(dir, "merges.txt");
    p->config = mp_file_join(dir, "tokenizer_config.json");
    return p->json && p->spiece && p->model && p->vocab && p->merges && p->config;
}

static void free_paths(tokenizer_paths *p)
{
    mp_free(p->json);
    mp_free(p->spiece);
    mp_free(p->model);
    mp_free(p->vocab);
    mp_free(p->merges);
    mp_free(p->config);
}

/* One of the kinds of files is there, of CLIP's both. */
static mp_code check_files(const char *dir, const tokenizer_paths *p, mp_error *err)
{
    const bool vocab = mp_file_exists(p->vocab), merges = mp_file_exists(p->merges);

    if (mp_file_exists(p->json) || mp_file_exists(p->spiece) || mp_file_exists(p->model) ||
        (vocab && merges))
        return MP_OK;
    if (vocab || merges)
        return mp_error_set(
            err, MP_EMISSING, "%s: has %s without %s; copy the whole folder of the tokenizer", dir,
            merges ? "merges.txt" : "vocab.json", merges ? "vocab.json" : "merges.txt");
    return mp_error_set(
        err, MP_EMISSING,
        "%s: has neither tokenizer.json nor spiece.model nor tokenizer.model nor "
        "vocab.json and merges.txt; check the path, or copy the whole folder of the "
        "tokenizer",
        dir);
}

/* spiece.model is the name of other classes' files, too: they make other tokenizers of it. */
static mp_code read_spiece(const char *path, const mp_tokenizer_class *class, mp_tokenizer *t,
                           mp_error *err)
{
    if (class->named && !class->t5)
        return mp_error_set(
            err, MP_EUNSUPPORTED,
            "%s: only T5Tokenizer's is supported, and tokenizer_config.json's "
            "\"tokenizer_class\" is another; a tokenizer.json is read for every class",
            path);
    return mp_tokenizer_t5_spiece(path, class->extra_ids, &t->parts, err);
}

static mp_code read_model(const tokenizer_paths *p, json_t *config, mp_tokenizer *t, mp_error *err)
{
    const mp_clip_files clip = {.vocab = p->vocab, .merges = p->merges, .config = p->config};
    mp_tokenizer_class class;

    if (mp_tokenizer_config_class(p->config, config, &class, err))
        return err->code;
    if (mp_file_exists(p->json))
        return class.t5 ? mp_tokenizer_t5_json(p->json, &t->parts, err)
                        : mp_tokenizer_json_read(p->json, &t->parts, err);
    if (mp_file_exists(p->spiece))
        return read_spiece(p->spiece, &class, t, err);
    if (mp_file_exists(p->model))
        return mp_sentencepiece_open(p->model, &t->parts.sentencepiece, err);
    return mp_tokenizer_clip_read(&clip, config, &t->parts, err);
}

static mp_code read_dir(const char *dir, mp_tokenizer *t, mp_error *err)
{
    tokenizer_paths paths = {0};
    json_t *config = NULL;

    t->dir = mp_strdup(dir);
    if (!join_paths(dir, &paths) || !t->dir)
        mp_error_set(err, MP_ENOMEM, "%s: no memory to open it", dir);
    else if (!check_files(dir, &paths, err) && !mp_tokenizer_config_load(dir, &config, err) &&
             !read_model(&paths, config, t, err) &&
             !mp_tokenizer_config_apply(dir, config, &t->parts, &t->pad, err)) {
        const mp_place at = {.path = paths.json, .text = "added_tokens"};
        mp_added_build(&t->parts.added, &at, t->parts.normalizer, err);
    }
    json_decref(config);
    free_paths(&paths);
    return err->code;
}

mp_code mp_tokenizer_check(const char *dir, mp_error *err)
{
    tokenizer_paths paths = {0};
    const mp_code code = join_paths(dir, &paths)
                             ? check_files(dir, &paths, err)
                             : mp_error_set(err, MP_ENOMEM, "%s: no memory to open it", dir);

    free_paths(&paths);
    return code;
}

mp_code mp_tokenizer_open(const char *dir, mp_tokenizer **out, mp_error *err)
{
    mp_tokenizer *t = mp_alloc(1, sizeof *t);
    mp_error own = {0};

    *out = NULL;
    if (!t)
        return mp_error_set(err, MP_ENOMEM, "%s: no memory to open it", dir);
    if (read_dir(dir, t, &own))
        mp_tokenizer_close(t);
    else
        *out = t;
    return pass_on(&own, err);
}

void mp_tokenizer_close(mp_tokenizer *t)
{
    if (!t)
        return;
    mp_tokenizer_parts_free(&t->parts);
    mp_free(t->dir);
    mp_free(t);
}

static mp_code no_memory(const mp_tokenizer *t, size_t n, mp_error *err)
{
    return mp_error_set(err, MP_ENOMEM, "%s: no memory to encode %zu bytes", t->dir, n);
}

/* Every span that is no added token, normalized. */
static mp_code normalize(const mp_tokenizer *t, mp_spans *spans, mp_error *err)
{
    mp_spans out = {0};

    if (!t->parts.normalizer)
        return MP_OK;
    for (size_t i = 0; i < spans->count && !err->code; i++) {
        const mp_span *span = &spans->items[i];
        mp_text text = {0};
        size_t origin = span->origin;
        if (span->token >= 0) {
            mp_spans_add_token(&out, span->token);
            continue;
        }
        mp_text_append(&text, spans->text.bytes + span->start, span->n);
        if (text.failed)
            no_memory(t, span->n, err);
        else if (!mp_normalizer_run(t->parts.normalizer, &text, &origin, err))
            mp_spans_add(&out, text.bytes, text.n, origin);
        mp_free(text.bytes);
    }
    if (mp_spans_failed(&out))
        no_memory(t, spans->text.n, err);
    mp_spans_free(spans);
    *spans = out;
    return err->code;
}

static mp_code encode_span(const mp_tokenizer *t, const char *text, size_t n, mp_ids *ids,
                           mp_error *err)
{
    if (t->parts.bpe)
        return mp_bpe_encode(t->parts.bpe, text, n, ids, err);
    if (t->parts.unigram)
        return mp_unigram_encode(t->parts.unigram, text, n, ids, err);
    return mp_sentencepiece_encode(t->parts.sentencepiece, text, n, ids, err);
}

static mp_code encode_spans(const mp_tokenizer *t, mp_spans *spans, mp_ids *ids, mp_error *err)
{
    if (mp_added_split(&t->parts.added, false, spans, err) || normalize(t, spans, err) ||
        mp_added_split(&t->parts.added, true, spans, err) ||
        mp_pretokenizer_run(t->parts.pretokenizer, spans, err))
        return err->code;
    for (size_t i = 0; i < spans->count && !err->code; i++) {
        const mp_span *span = &spans->items[i];
        if (span->token >= 0)
            mp_ids_append(ids, span->token);
        else
            encode_span(t, spans->text.bytes + span->start, span->n, ids, err);
    }
    if (ids->failed)
        no_memory(t, spans->text.n, err);
    return err->code;
}

/* The ids of the text alone, without what the post-processor adds. */
static mp_code encode_text(const mp_tokenizer *t, const char *text, size_t length, mp_ids *ids,
                           mp_error *err)
{
    mp_spans spans = {0};
    size_t n;

    if (length > MP_INPUT_LIMIT)
        return mp_error_set(err, MP_EUSAGE, "a text of %zu bytes, expected at most %d; shorten it",
                            length, MP_INPUT_LIMIT);
    char *valid = mp_utf8_repair(text, length, &n);
    if (valid && n)
        mp_spans_add(&spans, valid, n, (size_t)mp_utf8_length(*valid));
    if (!valid || mp_spans_failed(&spans))
        no_memory(t, length, err);
    else
        encode_spans(t, &spans, ids, err);
    mp_spans_free(&spans);
    mp_free(valid);
    return err->code;
}

static void append_all(mp_ids *to, const mp_ids *from)
{
    for (size_t i = 0; i < from->n; i++)
        mp_ids_append(to, from->values[i]);
}

mp_code mp_tokenizer_encode(const mp_tokenizer *t, const char *text, size_t length,
                            bool add_special_tokens, int32_t **ids, int64_t *count, mp_error *err)
{
    static const mp_post nothing;
    const mp_post *post = add_special_tokens ? &t->parts.post : &nothing;
    mp_ids found = {0};
    mp_error own = {0};

    *ids = NULL;
    *count = 0;
    append_all(&found, &post->before);
    encode_text(t, text, length, &found, &own);
    append_all(&found, &post->after);
    if (!found.values && !found.failed) /* no token at all: still memory to free */
        found.values = mp_alloc(1, sizeof *found.values);
    if (found.failed || !found.values)
        no_memory(t, length, &own);
    if (own.code) {
        mp_free(found.values);
        return pass_on(&own, err);
    }
    *ids = found.values;
    *count = (int64_t)found.n;
    return MP_OK;
}

/* Writes ids that fit; `truncated` tells how many do not. */
static void pad(const mp_tokenizer *t, const mp_ids *text, int64_t n, int32_t *ids, uint8_t *mask,
                int64_t *truncated)
{
    const mp_ids *before = &t->parts.post.before, *after = &t->parts.post.after;
    const int64_t room = n - (int64_t)(before->n + after->n);
    const size_t kept = (int64_t)text->n < room ? text->n : (size_t)room;
    int64_t at = 0;

    for (size_t i = 0; i < before->n; i++)
        ids[at++] = before->values[i];
    for (size_t i = 0; i < kept; i++)
        ids[at++] = text->values[i];
    for (size_t i = 0; i < after->n; i++)
        ids[at++] = after->values[i];
    for (int64_t i = 0; i < n; i++) {
        mask[i] = i < at;
        ids[i] = i < at ? ids[i] : t->pad;
    }
    *truncated = (int64_t)(text->n - kept);
}

mp_code mp_tokenizer_encode_padded(const mp_tokenizer *t, const char *text, int64_t n, int32_t *ids,
                                   uint8_t *mask, int64_t *truncated, mp_error *err)
{
    const size_t specials = t->parts.post.before.n + t->parts.post.after.n;
    mp_ids found = {0};
    mp_error own = {0};

    *truncated = 0;
    if (n < 0 || (uint64_t)n < specials)
        return mp_error_set(err, MP_EUSAGE,
                            "%s: a length of %lld tokens, expected at least the %zu special ones; "
                            "raise the maximum sequence length",
                            t->dir, (long long)n, specials);
    if (!encode_text(t, text, strlen(text), &found, &own)) {
        if (t->pad < 0 && (int64_t)(found.n + specials) < n)
            mp_error_set(&own, MP_EMISSING,
                         "%s: no padding token; name one as \"pad_token\" in tokenizer_config.json",
                         t->dir);
        else
            pad(t, &found, n, ids, mask, truncated);
    }
    mp_free(found.values);
    return pass_on(&own, err);
}

mp_code mp_tokenizer_decode(const mp_tokenizer *t, const int32_t *ids, int64_t n, char **text,
                            mp_error *err)
{
    *text = mp_tokenizer_parts_decode(&t->parts, ids, n);
    return *text ? MP_OK
                 : mp_error_set(err, MP_ENOMEM, "%s: no memory to decode %lld tokens", t->dir,
                                (long long)n);
}

int32_t mp_tokenizer_pad_id(const mp_tokenizer *t)
{
    return t->pad;
}

int64_t mp_tokenizer_max_length(const mp_tokenizer *t)
{
    return t->parts.max_length;
}

int64_t mp_tokenizer_vocab_size(const mp_tokenizer *t)
{
    return mp_tokenizer_parts_size(&t->parts) + t->parts.added.own;
}
