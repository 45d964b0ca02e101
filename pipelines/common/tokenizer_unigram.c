#include "pipelines/common/tokenizer_unigram.h"

#include <float.h>
#include <stdio.h>
#include <string.h>

#include "kernels/core/memory.h"

struct mp_unigram {
    char *path;
    mp_pieces pieces;
    double *scores; /* [size], by id */
    size_t size;
    double unknown_score;
    int32_t unknown; /* -1: none */
    int32_t bytes[256];
    bool byte_fallback;
};

void mp_unigram_free(mp_unigram *u)
{
    if (!u)
        return;
    mp_pieces_free(&u->pieces);
    mp_free(u->scores);
    mp_free(u->path);
    mp_free(u);
}

int32_t mp_unigram_find(const mp_unigram *u, const char *token)
{
    return mp_pieces_find(&u->pieces, token, strlen(token));
}

int64_t mp_unigram_size(const mp_unigram *u)
{
    return (int64_t)u->size;
}

const mp_pieces *mp_unigram_pieces(const mp_unigram *u)
{
    return &u->pieces;
}

static mp_code read_items(const mp_place *at, const json_t *list, mp_unigram *u, mp_piece *items,
                          mp_error *err)
{
    for (size_t i = 0; i < u->size; i++) {
        const json_t *item = json_array_get(list, i);
        const json_t *token = json_array_get(item, 0), *score = json_array_get(item, 1);
        if (json_array_size(item) != 2 || !json_is_string(token) || !json_is_number(score)) {
            const mp_place place = mp_place_in(at, "vocab", (int64_t)i);
            return mp_place_wrong(&place, "", "[\"token\", score]", item, err);
        }
        items[i] = (mp_piece){
            .bytes = json_string_value(token), .n = json_string_length(token), .id = (int32_t)i};
        u->scores[i] = json_number_value(score);
    }
    return MP_OK;
}

static mp_code read_vocabulary(const mp_place *at, const json_t *model, mp_unigram *u,
                               mp_error *err)
{
    const json_t *list = mp_field_list(at, model, "vocab", err);
    mp_piece *items;

    if (err->code)
        return err->code;
    u->size = json_array_size(list);
    if (!u->size)
        return mp_place_wrong(at, "vocab", "a list that is not empty", list, err);
    items = mp_alloc(u->size, sizeof *items);
    u->scores = mp_alloc(u->size, sizeof *u->scores);
    if (!items || !u->scores)
        mp_place_no_memory(at, err);
    else if (!read_items(at, list, u, items, err) &&
             !mp_pieces_build(items, u->size, true, &u->pieces))
        mp_place_no_memory(at, err);
    mp_free(items);
    return err->code;
}

/* An unknown character costs 10 more than the worst piece. */
static void derive(mp_unigram *u)
{
    char token[8];

    u->unknown_score = DBL_MAX;
    for (size_t i = 0; i < u->size; i++)
        u->unknown_score = u->scores[i] < u->unknown_score ? u->scores[i] : u->unknown_score;
    u->unknown_score -= 10;
    for (int i = 0; i < 256; i++) {
        snprintf(token, sizeof token, "<0x%02X>", i);
        u->bytes[i] = mp_unigram_find(u, token);
    }
}

mp_code mp_unigram_read(const mp_place *at, const json_t *model, mp_unigram **out, mp_error *err)
{
    mp_unigram *u = mp_alloc(1, sizeof *u);

    *out = NULL;
    if (!u || !(u->path = mp_strdup(at->path))) {
        mp_unigram_free(u);
        return mp_place_no_memory(at, err);
    }
    u->unknown = -1;
    u->byte_fallback = mp_field_bool(at, model, "byte_fallback", false, err);
    if (!err->code && !read_vocabulary(at, model, u, err)) {
        const json_t *unknown = json_object_get(model, "unk_id");
        if (unknown && !json_is_null(unknown))
            u->unknown = (int32_t)mp_field_int(at, model, "unk_id", 0, (int64_t)u->size - 1, err);
        derive(u);
    }
    if (err->code)
        mp_unigram_free(u);
    else
        *out = u;
    return err->code;
}

/* The best way to a place in the text: its score, where its last piece starts (-1: not reached) and
 * that piece's id. */
typedef struct node {
    double score;
    ptrdiff_t start;
    int32_t id;
} node;

static void reach(node *to, double score, size_t start, int32_t id)
{
    if (to->start < 0 || score > to->score)
        *to = (node){.score = score, .start = (ptrdiff_t)start, .id = id};
}

static void find_best(const mp_unigram *u, const char *text, size_t n, node *nodes)
{
    for (size_t i = 0; i <= n; i++)
        nodes[i].start = -1;
    nodes[0].score = 0;
    for (size_t at = 0; at < n;) {
        const size_t length = (size_t)mp_utf8_length(text[at]);
        mp_prefix walk = mp_prefix_start(&u->pieces, text + at, n - at);
        bool single = false;
        for (const mp_piece *piece; (piece = mp_prefix_next(&walk));) {
            reach(&nodes[at + piece->n], nodes[at].score + u->scores[piece->id], at, piece->id);
            single |= piece->n == length;
        }
        if (!single)
            reach(&nodes[at + length], nodes[at].score + u->unknown_score, at, u->unknown);
        at += length;
    }
}

/* Unknown neighbours are fused, then spelled in bytes where that is possible. */
static mp_code add_unknown(const mp_unigram *u, const char *text, size_t n, mp_ids *ids,
                           mp_error *err)
{
    const int32_t known = mp_pieces_find(&u->pieces, text, n);
    bool bytes = u->byte_fallback && known < 0;

    for (size_t i = 0; i < n; i++)
        bytes = bytes && u->bytes[(unsigned char)text[i]] >= 0;
    for (size_t i = 0; bytes && i < n; i++)
        mp_ids_append(ids, u->bytes[(unsigned char)text[i]]);
    if (bytes)
        return MP_OK;
    if (known < 0 && u->unknown < 0)
        return mp_error_set(err, MP_EFORMAT,
                            "%s: \"model.unk_id\" is needed for this text and is null", u->path);
    mp_ids_append(ids, known >= 0 ? known : u->unknown);
    return MP_OK;
}

/* Makes the way back from the end one forward: next[start] = end for every piece on it. */
static void turn(const node *nodes, size_t n, size_t *next)
{
    for (size_t end = n; end > 0; end = (size_t)nodes[end].start)
        next[nodes[end].start] = end;
}

static mp_code add_pieces(const mp_unigram *u, const char *text, size_t n, const node *nodes,
                          const size_t *next, mp_ids *ids, mp_error *err)
{
    for (size_t at = 0; at < n && !err->code;) {
        size_t end = next[at];
        const bool unknown = nodes[end].id == u->unknown;
        if (!unknown) {
            mp_ids_append(ids, nodes[end].id);
        } else {
            while (end < n && nodes[next[end]].id == u->unknown)
                end = next[end];
            add_unknown(u, text + at, end - at, ids, err);
        }
        at = end;
    }
    return err->code;
}

mp_code mp_unigram_encode(const mp_unigram *u, const char *text, size_t n, mp_ids *ids,
                          mp_error *err)
{
    node *nodes = mp_alloc(n + 1, sizeof *nodes);
    size_t *next = mp_alloc(n + 1, sizeof *next);

    if (nodes && next) {
        find_best(u, text, n, nodes);
        turn(nodes, n, next);
        add_pieces(u, text, n, nodes, next, ids, err);
    }
    if (!nodes || !next || ids->failed)
        mp_error_set(err, MP_ENOMEM, "%s: no memory to encode %zu bytes", u->path, n);
    mp_free(nodes);
    mp_free(next);
    return err->code;
}
