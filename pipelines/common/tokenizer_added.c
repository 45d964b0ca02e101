#include "pipelines/common/tokenizer_added.h"

#include <string.h>

#include "kernels/core/memory.h"
#include "pipelines/common/file.h"

void mp_added_free(mp_added *a)
{
    for (size_t i = 0; i < a->count; i++)
        mp_free(a->items[i].content);
    mp_free(a->items);
    json_decref(a->last);
    mp_pieces_free(&a->raw);
    mp_pieces_free(&a->normalized);
    *a = (mp_added){0};
}

mp_added_token mp_added_token_read(const mp_place *at, const json_t *node, bool fallback,
                                   mp_error *err)
{
    mp_added_token t = {0};

    if (!json_is_object(node)) {
        mp_place_wrong(at, "", "an object", node, err);
        return t;
    }
    t.content = (char *)mp_field_text(at, node, "content", NULL, err);
    t.special = mp_field_bool(at, node, "special", fallback, err);
    t.normalized = mp_field_bool(at, node, "normalized", !t.special, err);
    t.single_word = mp_field_bool(at, node, "single_word", false, err);
    t.lstrip = mp_field_bool(at, node, "lstrip", false, err);
    t.rstrip = mp_field_bool(at, node, "rstrip", false, err);
    return t;
}

static bool same_flags(const mp_added_token *a, const mp_added_token *b)
{
    return a->single_word == b->single_word && a->lstrip == b->lstrip && a->rstrip == b->rstrip &&
           a->normalized == b->normalized && a->special == b->special;
}

/* The last token of this content, or NULL. */
static const mp_added_token *last_of(const mp_added *a, const char *content)
{
    const json_t *index = json_object_get(a->last, content);
    return index ? &a->items[json_integer_value(index)] : NULL;
}

int32_t mp_added_find(const mp_added *a, const char *content)
{
    const mp_added_token *t = last_of(a, content);
    return t ? t->id : -1;
}

static mp_code append(mp_added *a, const mp_place *at, const mp_added_token *token, mp_error *err)
{
    if (a->count == a->room) {
        const size_t room = a->room ? 2 * a->room : 32;
        mp_added_token *items = mp_realloc(a->items, room, sizeof *items);
        if (!items)
            return mp_place_no_memory(at, err);
        a->items = items;
        a->room = room;
    }
    char *content = mp_strdup(token->content);
    if (!a->last)
        a->last = json_object();
    if (!content ||
        json_object_set_new(a->last, token->content, json_integer((json_int_t)a->count))) {
        mp_free(content);
        return mp_place_no_memory(at, err);
    }
    a->items[a->count] = *token;
    a->items[a->count++].content = content;
    return MP_OK;
}

mp_code mp_added_add(mp_added *a, const mp_place *at, const mp_added_token *token, int64_t id,
                     int32_t model_id, int64_t size, mp_error *err)
{
    const mp_added_token *known = last_of(a, token->content);
    mp_added_token added = *token;
    int64_t expected = known ? known->id : model_id;

    if (expected < 0)
        expected = a->max_id >= size && a->count ? (int64_t)a->max_id + 1 : size;
    if (!*token->content)
        return MP_OK; /* ignored there, too */
    if (expected > INT32_MAX || (id >= 0 && id != expected))
        return mp_error_set(err, MP_EFORMAT,
                            "%s: \"%s\": found id %lld for added token \"%s\", expected %lld: its "
                            "id in the vocabulary or the next free one; the file is damaged",
                            at->path, at->text, (long long)id, mp_plain(token->content).text,
                            (long long)expected);
    if (known && same_flags(known, token))
        return MP_OK;
    added.id = (int32_t)expected;
    added.searched = !known || !known->ever_special;
    added.ever_special = token->special || (known && known->ever_special);
    if (append(a, at, &added, err))
        return err->code;
    a->own += !known && model_id < 0;
    if (a->count == 1 || added.id > a->max_id)
        a->max_id = added.id;
    return MP_OK;
}

/* Contents of one kind; special ones come first, as they win where two are equal. */
static mp_code build(const mp_added *a, const mp_place *at, const mp_normalizer *n, bool normalized,
                     mp_pieces *out, mp_error *err)
{
    mp_text *texts = mp_alloc(a->count, sizeof *texts);
    mp_piece *pieces = mp_alloc(a->count, sizeof *pieces);
    size_t count = 0, origin = 0;

    if (!texts || !pieces)
        mp_place_no_memory(at, err);
    for (int pass = 0; pass < 2 && !err->code; pass++)
        for (size_t i = 0; i < a->count && !err->code; i++) {
            const mp_added_token *t = &a->items[i];
            mp_text *text = &texts[count];
            if (!t->searched || t->normalized != normalized || t->special == (pass == 1))
                continue;
            mp_text_append(text, t->content, strlen(t->content));
            if (text->failed)
                mp_place_no_memory(at, err);
            else if (normalized)
                mp_normalizer_run(n, text, &origin, err);
            const json_t *last = json_object_get(a->last, t->content);
            pieces[count++] = (mp_piece){
                .bytes = text->bytes, .n = text->n, .id = (int32_t)json_integer_value(last)};
        }
    if (!err->code && !mp_pieces_build(pieces, count, false, out))
        mp_place_no_memory(at, err);
    for (size_t i = 0; texts && i < a->count; i++)
        mp_free(texts[i].bytes);
    mp_free(texts);
    mp_free(pieces);
    return err->code;
}

mp_code mp_added_build(mp_added *a, const mp_place *at, const mp_normalizer *n, mp_error *err)
{
    if (!build(a, at, NULL, false, &a->raw, err))
        build(a, at, n, true, &a->normalized, err);
    return err->code;
}

/* The longest content that text starts with, or NULL. */
static const mp_piece *longest(const mp_pieces *p, const char *text, size_t n)
{
    mp_prefix walk = mp_prefix_start(p, text, n);
    const mp_piece *found = NULL;

    for (const mp_piece *piece; (piece = mp_prefix_next(&walk));)
        found = piece;
    return found;
}

static bool is_single_word(const char *text, size_t n, size_t start, size_t stop)
{
    if (start > 0 && mp_utf8_word(mp_utf8_decode(text + mp_utf8_before(text, start))))
        return false;
    return stop == n || !mp_utf8_word(mp_utf8_decode(text + stop));
}

static size_t spaces_before(const char *text, size_t end)
{
    while (end > 0) {
        const size_t before = mp_utf8_before(text, end);
        if (!mp_utf8_space(mp_utf8_decode(text + before)))
            break;
        end = before;
    }
    return end;
}

static size_t spaces_after(const char *text, size_t n, size_t at)
{
    while (at < n && mp_utf8_space(mp_utf8_decode(text + at)))
        at += (size_t)mp_utf8_length(text[at]);
    return at;
}

static void add_text(mp_spans *out, const char *text, size_t start, size_t end, size_t origin)
{
    mp_spans_add(out, text + start, end - start, origin > start ? origin - start : 0);
}

static void split_span(const mp_added *a, const mp_pieces *p, const char *text, size_t n,
                       size_t origin, mp_spans *out)
{
    size_t done = 0;

    for (size_t at = 0; at < n;) {
        const mp_piece *found = longest(p, text + at, n - at);
        if (!found) {
            at += (size_t)mp_utf8_length(text[at]);
            continue;
        }
        const mp_added_token *t = &a->items[found->id];
        size_t start = at, stop = at + found->n;
        at = stop;
        if (t->single_word && !is_single_word(text, n, start, stop))
            continue;
        if (t->lstrip) {
            start = spaces_before(text, start);
            start = start > done ? start : done;
        }
        if (t->rstrip)
            stop = spaces_after(text, n, stop);
        if (done < start)
            add_text(out, text, done, start, origin);
        mp_spans_add_token(out, t->id);
        done = stop;
    }
    if (done < n)
        add_text(out, text, done, n, origin);
}

mp_code mp_added_split(const mp_added *a, bool normalized, mp_spans *spans, mp_error *err)
{
    const mp_pieces *p = normalized ? &a->normalized : &a->raw;
    mp_spans out = {0};

    if (!p->count)
        return err->code;
    for (size_t i = 0; i < spans->count; i++) {
        const mp_span *span = &spans->items[i];
        if (span->token >= 0)
            mp_spans_add_token(&out, span->token);
        else
            split_span(a, p, spans->text.bytes + span->start, span->n, span->origin, &out);
    }
    if (mp_spans_failed(&out))
        mp_error_set(err, MP_ENOMEM, "no memory to find added tokens in a text");
    mp_spans_free(spans);
    *spans = out;
    return err->code;
}
