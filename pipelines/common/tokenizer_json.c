#include "pipelines/common/tokenizer_json.h"

#include <string.h>

#include "kernels/core/memory.h"

void mp_tokenizer_parts_free(mp_tokenizer_parts *p)
{
    mp_bpe_free(p->bpe);
    mp_unigram_free(p->unigram);
    mp_sentencepiece_close(p->sentencepiece);
    mp_normalizer_free(p->normalizer);
    mp_pretokenizer_free(p->pretokenizer);
    mp_post_free(&p->post);
    mp_added_free(&p->added);
    mp_free(p->pad);
    *p = (mp_tokenizer_parts){0};
}

int32_t mp_tokenizer_parts_find(const mp_tokenizer_parts *p, const char *token)
{
    return p->bpe       ? mp_bpe_find(p->bpe, token)
           : p->unigram ? mp_unigram_find(p->unigram, token)
                        : mp_sentencepiece_find(p->sentencepiece, token);
}

int64_t mp_tokenizer_parts_size(const mp_tokenizer_parts *p)
{
    return p->bpe       ? mp_bpe_size(p->bpe)
           : p->unigram ? mp_unigram_size(p->unigram)
                        : mp_sentencepiece_size(p->sentencepiece);
}

/* Files of before 2021 do not name the type of their model. */
static const char *model_type(const mp_place *at, const json_t *model, mp_error *err)
{
    const bool merges = json_object_get(model, "merges") != NULL;
    const bool list = json_is_array(json_object_get(model, "vocab"));

    return mp_field_text(at, model, "type", merges ? "BPE" : list ? "Unigram" : NULL, err);
}

static mp_code read_model(const mp_place *root, const json_t *file, mp_tokenizer_parts *out,
                          mp_error *err)
{
    const mp_place at = mp_place_in(root, "model", -1);
    const json_t *model = mp_field_object(root, file, "model", err);
    const char *type = model_type(&at, model, err);

    if (err->code)
        return err->code;
    if (!strcmp(type, "BPE"))
        return mp_bpe_read(&at, model, &out->bpe, err);
    if (!strcmp(type, "Unigram"))
        return mp_unigram_read(&at, model, &out->unigram, err);
    return mp_place_unknown(&at, "model", type, err);
}

static mp_code read_added(const mp_place *root, const json_t *file, mp_tokenizer_parts *out,
                          mp_error *err)
{
    const json_t *list = json_object_get(file, "added_tokens");
    const int64_t size = mp_tokenizer_parts_size(out);

    if (!list || json_is_null(list))
        return MP_OK;
    list = mp_field_list(root, file, "added_tokens", err);
    for (size_t i = 0; i < json_array_size(list) && !err->code; i++) {
        const mp_place at = mp_place_in(root, "added_tokens", (int64_t)i);
        const json_t *item = json_array_get(list, i);
        const mp_added_token token = mp_added_token_read(&at, item, false, err);
        const int64_t id = mp_field_int(&at, item, "id", 0, INT32_MAX, err);
        if (!err->code)
            mp_added_add(&out->added, &at, &token, id, mp_tokenizer_parts_find(out, token.content),
                         size, err);
    }
    return err->code;
}

static mp_code read_padding(const mp_place *root, const json_t *file, mp_tokenizer_parts *out,
                            mp_error *err)
{
    const json_t *padding = json_object_get(file, "padding");
    const mp_place at = mp_place_in(root, "padding", -1);

    if (!padding || json_is_null(padding))
        return MP_OK;
    padding = mp_field_object(root, file, "padding", err);
    const char *token = mp_field_text(&at, padding, "pad_token", "", err);
    if (err->code || !*token)
        return err->code;
    out->pad = mp_strdup(token);
    return out->pad ? MP_OK : mp_place_no_memory(&at, err);
}

static mp_code read_file(const mp_place *root, const json_t *file, mp_tokenizer_parts *out,
                         mp_error *err)
{
    mp_place at = mp_place_in(root, "normalizer", -1);

    if (mp_normalizer_read(&at, json_object_get(file, "normalizer"), &out->normalizer, err))
        return err->code;
    at = mp_place_in(root, "pre_tokenizer", -1);
    if (mp_pretokenizer_read(&at, json_object_get(file, "pre_tokenizer"), &out->pretokenizer, err))
        return err->code;
    at = mp_place_in(root, "post_processor", -1);
    if (mp_post_read(&at, json_object_get(file, "post_processor"), &out->post, err))
        return err->code;
    if (read_model(root, file, out, err) || read_added(root, file, out, err))
        return err->code;
    return read_padding(root, file, out, err);
}

mp_code mp_tokenizer_json_parse(const mp_place *root, const json_t *file, mp_tokenizer_parts *out,
                                mp_error *err)
{
    *out = (mp_tokenizer_parts){0};
    if (read_file(root, file, out, err))
        mp_tokenizer_parts_free(out);
    return err->code;
}

mp_code mp_tokenizer_json_read(const char *path, mp_tokenizer_parts *out, mp_error *err)
{
    const mp_place root = {.path = path};
    json_t *file;

    *out = (mp_tokenizer_parts){0};
    if (mp_json_load(path, &file, err))
        return err->code;
    mp_tokenizer_json_parse(&root, file, out, err);
    json_decref(file);
    return err->code;
}
