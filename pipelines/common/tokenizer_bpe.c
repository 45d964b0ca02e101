#include "pipelines/common/tokenizer_bpe.h"

#include <stdio.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "pipelines/common/file.h"

/* A pair of neighbours and what becomes of it.  rank < 0: a free place of the hash table. */
typedef struct merge {
    int32_t left, right, rank, id;
} merge;

/* For mp_bpe.unknown, which otherwise is an id. */
enum { UNKNOWN_NONE = -1, UNKNOWN_LOST = -2 };

struct mp_bpe {
    char *path;
    mp_pieces pieces;
    merge *merges; /* open addressing, capacity a power of two */
    size_t capacity;
    char *prefix, *suffix; /* "": none */
    size_t prefix_n, suffix_n, size;
    int32_t unknown; /* UNKNOWN_NONE: characters that are not known vanish */
    int32_t bytes[256];
    bool byte_fallback, fuse_unknown, ignore_merges;
};

void mp_bpe_free(mp_bpe *b)
{
    if (!b)
        return;
    mp_pieces_free(&b->pieces);
    mp_free(b->merges);
    mp_free(b->prefix);
    mp_free(b->suffix);
    mp_free(b->path);
    mp_free(b);
}

int32_t mp_bpe_find(const mp_bpe *b, const char *token)
{
    return mp_pieces_find(&b->pieces, token, strlen(token));
}

int64_t mp_bpe_size(const mp_bpe *b)
{
    return (int64_t)b->size;
}

const mp_pieces *mp_bpe_pieces(const mp_bpe *b)
{
    return &b->pieces;
}

static merge *slot_of(const mp_bpe *b, int32_t left, int32_t right)
{
    const uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    size_t i = (size_t)((key * 0x9e3779b97f4a7c15u) >> 20);

    for (;; i++) {
        merge *m = &b->merges[i & (b->capacity - 1)];
        if (m->rank < 0 || (m->left == left && m->right == right))
            return m;
    }
}

static const merge *find_merge(const mp_bpe *b, int32_t left, int32_t right)
{
    const merge *m = slot_of(b, left, right);
    return m->rank < 0 ? NULL : m;
}

static mp_code read_vocabulary(const mp_place *at, const json_t *model, mp_bpe *b, mp_error *err)
{
    const json_t *vocabulary = mp_field_object(at, model, "vocab", err);
    const mp_place place = mp_place_in(at, "vocab", -1);
    mp_piece *items = NULL;
    const char *token;
    json_t *value;
    size_t n = 0;

    if (err->code)
        return err->code;
    b->size = json_object_size(vocabulary);
    items = mp_alloc(b->size, sizeof *items);
    if (!items)
        return mp_place_no_memory(&place, err);
    json_object_foreach ((json_t *)vocabulary, token, value) {
        const int64_t id = mp_field_int(&place, vocabulary, token, 0, INT32_MAX, err);
        items[n++] = (mp_piece){.bytes = token, .n = strlen(token), .id = (int32_t)id};
    }
    if (!err->code && !mp_pieces_build(items, n, true, &b->pieces))
        mp_place_no_memory(&place, err);
    mp_free(items);
    return err->code;
}

/* "a b", or ["a", "b"] for tokens with spaces inside. */
static bool merge_parts(const json_t *item, const char **left, size_t *left_n, const char **right)
{
    if (json_is_array(item) && json_array_size(item) == 2) {
        *left = json_string_value(json_array_get(item, 0));
        *right = json_string_value(json_array_get(item, 1));
        *left_n = *left ? strlen(*left) : 0;
        return *left && *right;
    }
    *left = json_string_value(item);
    const char *space = *left ? strchr(*left, ' ') : NULL;
    if (!space || strchr(space + 1, ' '))
        return false;
    *left_n = (size_t)(space - *left);
    *right = space + 1;
    return true;
}

/* Items of the list of merges; their place is written only for a message. */
typedef struct merge_reader {
    mp_bpe *bpe;
    const mp_place *at;
    size_t item;
    mp_text joined;
} merge_reader;

static mp_code merge_unknown(const merge_reader *r, const char *token, size_t n, mp_error *err)
{
    char text[64];

    snprintf(text, sizeof text, "%.*s", (int)(n < 60 ? n : 60), token);
    return mp_error_set(err, MP_EFORMAT,
                        "%s: \"%s.merges[%zu]\": found \"%s\", expected tokens of the vocabulary",
                        r->at->path, r->at->text, r->item, mp_plain(text).text);
}

/* left + right without its prefix. */
static void join(merge_reader *r, const char *left, size_t left_n, const char *right)
{
    const size_t n = strlen(right), skip = r->bpe->prefix_n < n ? r->bpe->prefix_n : n;

    r->joined.n = 0;
    mp_text_append(&r->joined, left, left_n);
    mp_text_append(&r->joined, right + skip, n - skip);
}

/* Later merges of the same pair replace earlier ones. */
static mp_code add_merge(merge_reader *r, const json_t *item, int32_t rank, mp_error *err)
{
    const mp_pieces *pieces = &r->bpe->pieces;
    const char *left, *right;
    size_t left_n;

    if (!merge_parts(item, &left, &left_n, &right)) {
        const mp_place place = mp_place_in(r->at, "merges", (int64_t)r->item);
        return mp_place_wrong(&place, "", "two tokens, \"a b\" or [\"a\", \"b\"]", item, err);
    }
    const int32_t left_id = mp_pieces_find(pieces, left, left_n);
    const int32_t right_id = mp_pieces_find(pieces, right, strlen(right));
    if (left_id < 0)
        return merge_unknown(r, left, left_n, err);
    if (right_id < 0)
        return merge_unknown(r, right, strlen(right), err);
    join(r, left, left_n, right);
    if (r->joined.failed)
        return mp_place_no_memory(r->at, err);
    const int32_t id = mp_pieces_find(pieces, r->joined.bytes, r->joined.n);
    if (id < 0)
        return merge_unknown(r, r->joined.bytes, r->joined.n, err);
    *slot_of(r->bpe, left_id, right_id) =
        (merge){.left = left_id, .right = right_id, .rank = rank, .id = id};
    return MP_OK;
}

static mp_code read_merges(const mp_place *at, const json_t *model, mp_bpe *b, mp_error *err)
{
    const json_t *list = mp_field_list(at, model, "merges", err);
    const size_t count = json_array_size(list);
    merge_reader r = {.bpe = b, .at = at};
    int32_t rank = 0;

    if (err->code)
        return err->code;
    for (b->capacity = 16; b->capacity < 2 * count; b->capacity *= 2)
        ;
    b->merges = mp_alloc(b->capacity, sizeof *b->merges);
    if (!b->merges)
        return mp_place_no_memory(at, err);
    for (size_t i = 0; i < b->capacity; i++)
        b->merges[i].rank = -1;
    for (; r.item < count && !err->code; r.item++) {
        const json_t *item = json_array_get(list, r.item);
        if (json_is_string(item) && !strncmp(json_string_value(item), "#version", 8))
            continue; /* the first line of a merges.txt */
        add_merge(&r, item, rank++, err);
    }
    mp_free(r.joined.bytes);
    return err->code;
}

/* Bytes are written <0x00> .. <0xFF> in the vocabulary. */
static void find_bytes(mp_bpe *b)
{
    char token[8];

    for (int i = 0; i < 256; i++) {
        snprintf(token, sizeof token, "<0x%02X>", i);
        b->bytes[i] = mp_bpe_find(b, token);
    }
}

/* A token that is named but not in the vocabulary matters only when it is needed: UNKNOWN_LOST. */
static void find_unknown(mp_bpe *b, const char *token)
{
    b->unknown = *token ? mp_bpe_find(b, token) : UNKNOWN_NONE;
    if (*token && b->unknown < 0)
        b->unknown = UNKNOWN_LOST;
}

static mp_code refuse_dropout(const mp_place *at, const json_t *model, mp_error *err)
{
    const json_t *dropout = json_object_get(model, "dropout");

    if (!dropout || json_is_null(dropout))
        return MP_OK;
    if (!json_is_number(dropout))
        return mp_place_wrong(at, "dropout", "a number or null", dropout, err);
    if (json_number_value(dropout) != 0) /* random ids cannot be repeated */
        return mp_place_unknown(at, "option", "dropout", err);
    return MP_OK;
}

mp_code mp_bpe_read(const mp_place *at, const json_t *model, mp_bpe **out, mp_error *err)
{
    mp_bpe *b = mp_alloc(1, sizeof *b);
    const char *unknown;

    *out = NULL;
    if (!b)
        return mp_place_no_memory(at, err);
    b->path = mp_strdup(at->path);
    b->prefix = mp_strdup(mp_field_text(at, model, "continuing_subword_prefix", "", err));
    b->suffix = mp_strdup(mp_field_text(at, model, "end_of_word_suffix", "", err));
    b->byte_fallback = mp_field_bool(at, model, "byte_fallback", false, err);
    b->fuse_unknown = mp_field_bool(at, model, "fuse_unk", false, err);
    b->ignore_merges = mp_field_bool(at, model, "ignore_merges", false, err);
    unknown = mp_field_text(at, model, "unk_token", "", err);
    if (!b->path || !b->prefix || !b->suffix)
        mp_place_no_memory(at, err);
    if (!err->code) {
        b->prefix_n = strlen(b->prefix);
        b->suffix_n = strlen(b->suffix);
    }
    if (!err->code && !refuse_dropout(at, model, err) && !read_vocabulary(at, model, b, err) &&
        !read_merges(at, model, b, err)) {
        find_bytes(b);
        find_unknown(b, unknown);
        *out = b;
        return MP_OK;
    }
    mp_bpe_free(b);
    return err->code;
}

/* A word on its way: symbols in a list, and the merges that are possible, smallest first. */
typedef struct symbol {
    int32_t id;           /* -1: merged into the one before */
    ptrdiff_t prev, next; /* -1: none */
} symbol;

typedef struct candidate {
    int32_t rank, id;
    size_t at;
} candidate;

typedef struct word {
    symbol *symbols;
    candidate *heap;
    size_t count, heap_n;
} word;

static bool before(const candidate *a, const candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void heap_push(word *w, candidate c)
{
    size_t i = w->heap_n++;

    for (; i > 0 && before(&c, &w->heap[(i - 1) / 2]); i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = c;
}

static candidate heap_pop(word *w)
{
    const candidate top = w->heap[0], last = w->heap[--w->heap_n];
    size_t i = 0;

    for (size_t child; (child = 2 * i + 1) < w->heap_n; i = child) {
        if (child + 1 < w->heap_n && before(&w->heap[child + 1], &w->heap[child]))
            child++;
        if (!before(&w->heap[child], &last))
            break;
        w->heap[i] = w->heap[child];
    }
    w->heap[i] = last;
    return top;
}

static void offer(const mp_bpe *b, word *w, ptrdiff_t left, ptrdiff_t right)
{
    if (left < 0 || right < 0)
        return;
    const merge *m = find_merge(b, w->symbols[left].id, w->symbols[right].id);
    if (m)
        heap_push(w, (candidate){.rank = m->rank, .id = m->id, .at = (size_t)left});
}

static void merge_all(const mp_bpe *b, word *w)
{
    for (size_t i = 0; i + 1 < w->count; i++)
        offer(b, w, (ptrdiff_t)i, (ptrdiff_t)i + 1);
    while (w->heap_n) {
        const candidate top = heap_pop(w);
        symbol *left = &w->symbols[top.at];
        if (left->id < 0 || left->next < 0)
            continue;
        symbol *right = &w->symbols[left->next];
        /* The neighbours may have changed since; what counts is what the pair becomes. */
        const merge *m = find_merge(b, left->id, right->id);
        if (!m || m->id != top.id)
            continue;
        left->id = top.id;
        right->id = -1;
        left->next = right->next;
        if (left->next >= 0)
            w->symbols[left->next].prev = (ptrdiff_t)top.at;
        offer(b, w, left->prev, (ptrdiff_t)top.at);
        offer(b, w, (ptrdiff_t)top.at, left->next);
    }
}

static void add_symbol(word *w, int32_t id)
{
    const size_t i = w->count++;

    w->symbols[i] = (symbol){.id = id, .prev = (ptrdiff_t)i - 1, .next = -1};
    if (i)
        w->symbols[i - 1].next = (ptrdiff_t)i;
}

static bool add_bytes(const mp_bpe *b, word *w, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (b->bytes[(unsigned char)bytes[i]] < 0)
            return false;
    for (size_t i = 0; i < n; i++)
        add_symbol(w, b->bytes[(unsigned char)bytes[i]]);
    return true;
}

/* One character as it stands in the vocabulary: with prefix unless first, with suffix if last. */
static void spell(const mp_bpe *b, const char *c, size_t n, bool first, bool last, mp_text *out)
{
    out->n = 0;
    if (!first)
        mp_text_append(out, b->prefix, b->prefix_n);
    mp_text_append(out, c, n);
    if (last)
        mp_text_append(out, b->suffix, b->suffix_n);
}

/* Characters to symbols.  An unknown one waits in `unknown`, to be fused with the next; bytes of a
 * fallback pass it by, as in the `tokenizers` package. */
static void add_characters(const mp_bpe *b, word *w, const char *text, size_t n, mp_text *spelled)
{
    bool unknown = false;

    for (size_t i = 0; i < n && !spelled->failed;) {
        const size_t length = (size_t)mp_utf8_length(text[i]);
        spell(b, text + i, length, i == 0, i + length == n, spelled);
        i += length;
        const int32_t id =
            spelled->failed ? -1 : mp_pieces_find(&b->pieces, spelled->bytes, spelled->n);
        if (id >= 0) {
            if (unknown)
                add_symbol(w, b->unknown);
            unknown = false;
            add_symbol(w, id);
        } else if (!b->byte_fallback || !add_bytes(b, w, spelled->bytes, spelled->n)) {
            if (unknown && !b->fuse_unknown)
                add_symbol(w, b->unknown);
            unknown = b->unknown != UNKNOWN_NONE;
        }
    }
    if (unknown)
        add_symbol(w, b->unknown);
}

/* Symbols: at most one a byte of what is spelled, and one unknown. */
static bool word_open(const mp_bpe *b, size_t n, word *w)
{
    const size_t each = 1 + b->prefix_n;

    *w = (word){0};
    if (n > (SIZE_MAX / 2 - b->suffix_n - 1) / each)
        return false;
    const size_t room = n * each + b->suffix_n + 1;
    w->symbols = mp_alloc(room, sizeof *w->symbols);
    w->heap = mp_alloc(room, 3 * sizeof *w->heap); /* each merge ends one symbol, offers two */
    return w->symbols && w->heap;
}

static mp_code encode_word(const mp_bpe *b, const char *text, size_t n, word *w, mp_ids *ids,
                           mp_error *err)
{
    mp_text spelled = {0};

    if (word_open(b, n, w))
        add_characters(b, w, text, n, &spelled);
    const bool failed = !w->symbols || !w->heap || spelled.failed;
    mp_free(spelled.bytes);
    if (failed)
        return mp_error_set(err, MP_ENOMEM, "%s: no memory to encode %zu bytes", b->path, n);
    for (size_t i = 0; i < w->count; i++)
        if (w->symbols[i].id == UNKNOWN_LOST)
            return mp_error_set(err, MP_EFORMAT,
                                "%s: \"model.unk_token\" is needed for this text and is not in "
                                "the vocabulary",
                                b->path);
    merge_all(b, w);
    for (size_t i = 0; i < w->count; i++)
        if (w->symbols[i].id >= 0)
            mp_ids_append(ids, w->symbols[i].id);
    return MP_OK;
}

mp_code mp_bpe_encode(const mp_bpe *b, const char *text, size_t n, mp_ids *ids, mp_error *err)
{
    const int32_t whole = b->ignore_merges ? mp_pieces_find(&b->pieces, text, n) : -1;
    word w = {0};

    if (whole >= 0)
        mp_ids_append(ids, whole);
    else
        encode_word(b, text, n, &w, ids, err);
    mp_free(w.symbols);
    mp_free(w.heap);
    if (ids->failed)
        mp_error_set(err, MP_ENOMEM, "%s: no memory to encode %zu bytes", b->path, n);
    return err->code;
}
