#include "pipelines/common/tokenizer_post.h"

#include <string.h>

#include "kernels/core/memory.h"

void mp_post_free(mp_post *p)
{
    mp_free(p->before.values);
    mp_free(p->after.values);
    *p = (mp_post){0};
}

/* Sequences wrap: what is new goes outside of what is there. */
static void wrap(mp_post *p, mp_post *outer)
{
    for (size_t i = 0; i < p->before.n; i++)
        mp_ids_append(&outer->before, p->before.values[i]);
    for (size_t i = 0; i < outer->after.n; i++)
        mp_ids_append(&p->after, outer->after.values[i]);
    mp_free(outer->after.values);
    outer->after = p->after;
    mp_free(p->before.values);
    *p = *outer;
    *outer = (mp_post){0};
}

/* {"id": "<bos>", "ids": [2], ...} of "special_tokens". */
static void add_special(const mp_place *at, const json_t *specials, const char *name, mp_ids *to,
                        mp_error *err)
{
    const mp_place place = mp_place_in(at, "special_tokens", -1);
    const json_t *special = mp_field_object(&place, specials, name, err);
    const json_t *list = mp_field_list(&place, special, "ids", err);

    for (size_t i = 0; i < json_array_size(list) && !err->code; i++) {
        const json_t *id = json_array_get(list, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) > INT32_MAX)
            mp_place_wrong(&place, name, "ids that are integers in 0..2147483647", id, err);
        else
            mp_ids_append(to, (int32_t)json_integer_value(id));
    }
}

/* "single" is a list of {"SpecialToken": {"id": ...}} and {"Sequence": {"id": "A"}}. */
static void read_template(const mp_place *at, const json_t *node, mp_post *out, mp_error *err)
{
    const json_t *list = mp_field_list(at, node, "single", err);
    bool text = false;

    for (size_t i = 0; i < json_array_size(list) && !err->code; i++) {
        const mp_place place = mp_place_in(at, "single", (int64_t)i);
        const json_t *item = json_array_get(list, i);
        const json_t *special = json_object_get(item, "SpecialToken");
        const json_t *sequence = json_object_get(item, "Sequence");
        const char *name = mp_field_text(&place, special ? special : sequence, "id", NULL, err);
        if (err->code)
            return;
        if (special) {
            const json_t *specials = mp_field_object(at, node, "special_tokens", err);
            add_special(at, specials, name, text ? &out->after : &out->before, err);
        } else if (text || strcmp(name, "A")) {
            mp_place_wrong(&place, "", "sequence A once", json_object_get(sequence, "id"), err);
        } else {
            text = true;
        }
    }
    if (!err->code && !text)
        mp_place_wrong(at, "single", "a template with sequence A", list, err);
}

/* ["</s>", 2] */
static void add_pair(const mp_place *at, const json_t *node, const char *key, mp_ids *to,
                     mp_error *err)
{
    const json_t *pair = mp_field_list(at, node, key, err);
    const json_t *id = json_array_get(pair, 1);

    if (err->code)
        return;
    if (json_array_size(pair) != 2 || !json_is_integer(id) || json_integer_value(id) < 0 ||
        json_integer_value(id) > INT32_MAX)
        mp_place_wrong(at, key, "[\"token\", id]", pair, err);
    else
        mp_ids_append(to, (int32_t)json_integer_value(id));
}

static void read_parts(const mp_place *at, const json_t *node, mp_post *out, mp_error *err)
{
    const json_t *list = mp_field_list(at, node, "processors", err);

    for (size_t i = 0; i < json_array_size(list) && !err->code; i++) {
        const mp_place place = mp_place_in(at, "processors", (int64_t)i);
        mp_post outer = {0};
        if (!mp_post_read(&place, json_array_get(list, i), &outer, err))
            wrap(out, &outer);
    }
}

mp_code mp_post_read(const mp_place *at, const json_t *node, mp_post *out, mp_error *err)
{
    *out = (mp_post){0};
    if (!node || json_is_null(node))
        return MP_OK;
    if (!json_is_object(node))
        return mp_place_wrong(at, "", "an object or null", node, err);
    const char *type = mp_field_text(at, node, "type", NULL, err);
    if (err->code || mp_place_depth(at, err))
        return err->code;
    if (!strcmp(type, "Sequence")) {
        read_parts(at, node, out, err);
    } else if (!strcmp(type, "TemplateProcessing")) {
        read_template(at, node, out, err);
    } else if (!strcmp(type, "RobertaProcessing") || !strcmp(type, "BertProcessing")) {
        add_pair(at, node, "cls", &out->before, err);
        add_pair(at, node, "sep", &out->after, err);
    } else if (strcmp(type, "ByteLevel")) {
        mp_place_unknown(at, "post-processor", type, err);
    }
    if (!err->code && (out->before.failed || out->after.failed))
        mp_place_no_memory(at, err);
    if (err->code)
        mp_post_free(out);
    return err->code;
}
