#include "pipelines/common/tokenizer_config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "pipelines/common/file.h"

/* In the order in which transformers adds them. */
static const char *const named[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                    "pad_token", "cls_token", "mask_token"};

/* A file of the folder, an empty object when there is none.  Numbers become reals: no integer of
 * these files is used, and model_max_length is often 10^30. */
static mp_code load(const char *path, json_t **out, mp_error *err)
{
    enum { LIMIT = 64 << 20 };
    char *text = NULL;
    size_t n = 0;
    json_error_t why;

    *out = NULL;
    if (!mp_file_exists(path)) {
        *out = json_object();
        return *out ? MP_OK : mp_error_set(err, MP_ENOMEM, "%s: no memory to read it", path);
    }
    if (mp_file_read(path, LIMIT, &text, &n, err))
        return err->code;
    *out = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &why);
    mp_free(text);
    if (!*out)
        return mp_error_set(err, MP_EFORMAT, "%s: line %d, column %d: %s; expected valid JSON",
                            path, why.line, why.column, mp_plain(why.text).text);
    if (json_is_object(*out))
        return MP_OK;
    json_decref(*out);
    *out = NULL;
    return mp_error_set(err, MP_EFORMAT, "%s: expected an object at the top", path);
}

/* special_tokens_map.json counts only where tokenizer_config.json has no added_tokens_decoder. */
static mp_code merge_map(const char *dir, json_t *config, mp_error *err)
{
    char *path = mp_file_join(dir, "special_tokens_map.json");
    json_t *map = NULL;

    if (!path)
        return mp_error_set(err, MP_ENOMEM, "%s: no memory to read it", dir);
    if (!load(path, &map, err) && json_object_update(config, map))
        mp_error_set(err, MP_ENOMEM, "%s: no memory to read it", path);
    json_decref(map);
    mp_free(path);
    return err->code;
}

static mp_code add(mp_tokenizer_parts *parts, const mp_place *at, const mp_added_token *token,
                   int64_t id, mp_error *err)
{
    return mp_added_add(&parts->added, at, token, id,
                        mp_tokenizer_parts_find(parts, token->content),
                        mp_tokenizer_parts_size(parts), err);
}

/* "added_tokens_decoder": {"0": {"content": ...}, ...}, to be added in the order of the ids. */
typedef struct decoder_item {
    int64_t id;
    const char *key;
    const json_t *value;
} decoder_item;

static int compare_items(const void *left, const void *right)
{
    const decoder_item *a = left, *b = right;
    return (a->id > b->id) - (a->id < b->id);
}

static mp_code add_decoder(mp_tokenizer_parts *parts, const mp_place *root, const json_t *config,
                           mp_error *err)
{
    const mp_place at = mp_place_in(root, "added_tokens_decoder", -1);
    const json_t *object = mp_field_object(root, config, "added_tokens_decoder", err);
    decoder_item *items = mp_alloc(json_object_size(object), sizeof *items);
    const char *key;
    json_t *value;
    size_t n = 0;

    if (!items)
        return mp_place_no_memory(&at, err);
    json_object_foreach ((json_t *)object, key, value) {
        char *end;
        errno = 0;
        const long long id = strtoll(key, &end, 10);
        if (errno || end == key || *end || id < 0 || id > INT32_MAX)
            mp_error_set(err, MP_EFORMAT,
                         "%s: \"%s\": found the id \"%s\", expected an integer in 0..2147483647",
                         at.path, at.text, mp_plain(key).text);
        items[n++] = (decoder_item){.id = id, .key = key, .value = value};
    }
    qsort(items, n, sizeof *items, compare_items);
    for (size_t i = 0; i < n && !err->code; i++) {
        const mp_place place = mp_place_in(&at, items[i].key, -1);
        const mp_added_token token = mp_added_token_read(&place, items[i].value, false, err);
        if (!err->code)
            add(parts, &place, &token, items[i].id, err);
    }
    mp_free(items);
    return err->code;
}

/* A special token is a string, or an object with flags. */
static const char *content_of(const json_t *value)
{
    const char *text = json_string_value(value);
    return text ? text : json_string_value(json_object_get(value, "content"));
}

static mp_code add_special(mp_tokenizer_parts *parts, const mp_place *at, const json_t *value,
                           mp_error *err)
{
    mp_added_token token = {.special = true, .content = (char *)json_string_value(value)};

    if (json_is_null(value) || err->code)
        return err->code;
    if (!content_of(value))
        return mp_place_wrong(at, "", "a string or an object with \"content\"", value, err);
    if (!token.content)
        token = mp_added_token_read(at, value, true, err);
    token.special = true;
    if (err->code || mp_added_find(&parts->added, token.content) >= 0)
        return err->code;
    return add(parts, at, &token, -1, err);
}

static mp_code add_list(mp_tokenizer_parts *parts, const mp_place *root, const char *key,
                        const json_t *list, mp_error *err)
{
    const char *name;
    json_t *value;

    if (json_is_object(list)) { /* {"image_token": "<image>"} */
        const mp_place at = mp_place_in(root, key, -1);
        json_object_foreach ((json_t *)list, name, value)
            add_special(parts, &at, value, err);
    } else if (list && !json_is_null(list)) {
        if (!json_is_array(list))
            return mp_place_wrong(root, key, "a list or an object", list, err);
        for (size_t i = 0; i < json_array_size(list); i++) {
            const mp_place at = mp_place_in(root, key, (int64_t)i);
            add_special(parts, &at, json_array_get(list, i), err);
        }
    }
    return err->code;
}

static bool is_named(const char *key)
{
    for (size_t i = 0; i < sizeof named / sizeof *named; i++)
        if (!strcmp(named[i], key))
            return true;
    return false;
}

/* "image_token": "<image>": a model's own, known by the end of the key. */
static mp_code add_own(mp_tokenizer_parts *parts, const mp_place *root, const json_t *config,
                       mp_error *err)
{
    static const char end[] = "_token";
    const char *key;
    json_t *value;

    json_object_foreach ((json_t *)config, key, value) {
        const size_t n = strlen(key), m = sizeof end - 1;
        const bool token = json_is_string(value) || json_object_get(value, "__type");
        if (n <= m || strcmp(key + n - m, end) || is_named(key) || !token)
            continue;
        const mp_place at = mp_place_in(root, key, -1);
        add_special(parts, &at, value, err);
    }
    return err->code;
}

static mp_code add_specials(mp_tokenizer_parts *parts, const mp_place *root, const json_t *config,
                            mp_error *err)
{
    static const char extra[] = "extra_special_tokens", older[] = "additional_special_tokens";
    const json_t *list = json_object_get(config, extra);
    const bool none = !list || json_is_null(list) ||
                      (json_is_array(list) && !json_array_size(list)) ||
                      (json_is_object(list) && !json_object_size(list));

    for (size_t i = 0; i < sizeof named / sizeof *named; i++) {
        const mp_place at = mp_place_in(root, named[i], -1);
        const json_t *value = json_object_get(config, named[i]);
        if (value)
            add_special(parts, &at, value, err);
    }
    if (add_own(parts, root, config, err))
        return err->code;
    return add_list(parts, root, none ? older : extra, none ? json_object_get(config, older) : list,
                    err);
}

/* The id of a named special token: -1 when the files name none. */
static int32_t special_id(const mp_tokenizer_parts *parts, const json_t *config, const char *key)
{
    const char *content = content_of(json_object_get(config, key));
    const int32_t id = content ? mp_added_find(&parts->added, content) : -1;

    return !content || id >= 0 ? id : mp_tokenizer_parts_find(parts, content);
}

/* tokenizer.model knows no post-processor.  Where tokenizer_config.json does not say what stands
 * at the ends, transformers' class of the name does. */
static bool class_adds(const json_t *config, const char *key)
{
    static const struct {
        const char *class, *key;
    } adds[] = {{"GemmaTokenizer", "add_bos_token"},
                {"LlamaTokenizer", "add_bos_token"},
                {"T5Tokenizer", "add_eos_token"}};
    const char *class = json_string_value(json_object_get(config, "tokenizer_class"));

    for (size_t i = 0; class && i < sizeof adds / sizeof *adds; i++) {
        const size_t n = strlen(adds[i].class);
        if (!strncmp(class, adds[i].class, n) && (!class[n] || !strcmp(class + n, "Fast")) &&
            !strcmp(key, adds[i].key))
            return true;
    }
    return false;
}

static void add_end(const mp_place *root, const json_t *config, const char *flag, int32_t id,
                    mp_ids *to, mp_error *err)
{
    if (mp_field_bool(root, config, flag, class_adds(config, flag), err) && id >= 0)
        mp_ids_append(to, id);
    if (to->failed)
        mp_place_no_memory(root, err);
}

static mp_code set_ends(mp_tokenizer_parts *parts, const mp_place *root, const json_t *config,
                        mp_error *err)
{
    int32_t bos = special_id(parts, config, "bos_token");
    int32_t eos = special_id(parts, config, "eos_token");

    if (parts->ends_by_config) {
        mp_ids_append(&parts->post.before, bos);
        mp_ids_append(&parts->post.after, eos);
        return parts->post.before.failed || parts->post.after.failed ? mp_place_no_memory(root, err)
                                                                     : err->code;
    }
    if (!parts->sentencepiece) /* tokenizer.json's post-processor alone decides */
        return err->code;
    bos = bos >= 0 ? bos : mp_sentencepiece_bos(parts->sentencepiece);
    eos = eos >= 0 ? eos : mp_sentencepiece_eos(parts->sentencepiece);
    add_end(root, config, "add_bos_token", bos, &parts->post.before, err);
    add_end(root, config, "add_eos_token", eos, &parts->post.after, err);
    return err->code;
}

static mp_code set_pad_default(const mp_tokenizer_parts *parts, json_t *config, mp_error *err)
{
    const json_t *pad = json_object_get(config, "pad_token");

    if (parts->pad && (!pad || json_is_null(pad)) &&
        json_object_set_new(config, "pad_token", json_string(parts->pad)))
        return mp_error_set(err, MP_ENOMEM, "no memory for \"pad_token\"");
    return MP_OK;
}

/* A number; what stands for none is 10^30. */
static mp_code set_max_length(const mp_place *root, const json_t *config, mp_tokenizer_parts *parts,
                              mp_error *err)
{
    static const char key[] = "model_max_length";
    const json_t *value = json_object_get(config, key);
    const double n = json_number_value(value);

    parts->max_length = INT64_MAX;
    if (!value || json_is_null(value))
        return MP_OK;
    if (!json_is_number(value) || n < 1)
        return mp_place_wrong(root, key, "a number of tokens, at least 1", value, err);
    if (n < 0x1p53)
        parts->max_length = (int64_t)n;
    return MP_OK;
}

static mp_code apply(const mp_place *root, json_t *config, mp_tokenizer_parts *parts, int32_t *pad,
                     mp_error *err)
{
    const json_t *decoder = json_object_get(config, "added_tokens_decoder");

    if (decoder && !json_is_null(decoder))
        add_decoder(parts, root, config, err);
    if (err->code || set_pad_default(parts, config, err) ||
        add_specials(parts, root, config, err) || set_ends(parts, root, config, err) ||
        set_max_length(root, config, parts, err))
        return err->code;
    *pad = special_id(parts, config, "pad_token");
    if (*pad < 0 && parts->sentencepiece)
        *pad = mp_sentencepiece_pad(parts->sentencepiece);
    return MP_OK;
}

mp_code mp_tokenizer_config_load(const char *dir, json_t **out, mp_error *err)
{
    char *path = mp_file_join(dir, "tokenizer_config.json");
    json_t *config = NULL;

    *out = NULL;
    if (!path)
        return mp_error_set(err, MP_ENOMEM, "%s: no memory to read it", dir);
    if (!load(path, &config, err)) {
        const json_t *decoder = json_object_get(config, "added_tokens_decoder");
        if (!decoder || json_is_null(decoder))
            merge_map(dir, config, err);
    }
    mp_free(path);
    if (err->code)
        json_decref(config);
    else
        *out = config;
    return err->code;
}

mp_code mp_tokenizer_config_class(const char *path, const json_t *config, mp_tokenizer_class *out,
                                  mp_error *err)
{
    enum { EXTRA_IDS = 100, MOST = 1 << 16 };
    const char *class = json_string_value(json_object_get(config, "tokenizer_class"));
    const json_t *extra = json_object_get(config, "extra_ids");
    const double count = json_is_null(extra) || !extra ? EXTRA_IDS : json_number_value(extra);

    *out = (mp_tokenizer_class){.extra_ids = EXTRA_IDS, .named = class != NULL};
    out->t5 = class && (!strcmp(class, "T5Tokenizer") || !strcmp(class, "T5TokenizerFast"));
    if (count >= 0 && count <= MOST && count == (int)count)
        out->extra_ids = (int)count;
    else if (out->t5)
        mp_error_set(err, MP_EFORMAT,
                     "%s: \"extra_ids\": expected an integer in 0..%d, found another", path, MOST);
    return err->code;
}

mp_code mp_tokenizer_config_apply(const char *dir, json_t *config, mp_tokenizer_parts *parts,
                                  int32_t *pad, mp_error *err)
{
    char *path = mp_file_join(dir, "tokenizer_config.json");
    const mp_place root = {.path = path};

    *pad = -1;
    if (!path)
        return mp_error_set(err, MP_ENOMEM, "%s: no memory to read it", dir);
    apply(&root, config, parts, pad, err);
    mp_free(path);
    return err->code;
}
