#include "pipelines/common/tokenizer_pieces.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/core/memory.h"

static int compare_bytes(const char *a, size_t an, const char *b, size_t bn)
{
    const size_t n = an < bn ? an : bn;
    const int order = n ? memcmp(a, b, n) : 0;

    return order ? order : (an > bn) - (an < bn);
}

/* Equal strings in the order they were given: they lie in that order in mp_pieces.bytes. */
static int compare_pieces(const void *left, const void *right)
{
    const mp_piece *a = left, *b = right;
    const int order = compare_bytes(a->bytes, a->n, b->bytes, b->n);

    return order ? order : (a->bytes > b->bytes) - (a->bytes < b->bytes);
}

static void drop_equals(mp_pieces *p, bool last_wins)
{
    size_t kept = 0;

    for (size_t i = 0; i < p->count; i++) {
        const mp_piece *item = &p->items[i];
        mp_piece *last = kept ? &p->items[kept - 1] : NULL;
        const bool same = last && !compare_bytes(last->bytes, last->n, item->bytes, item->n);
        if (!same)
            p->items[kept++] = *item;
        else if (last_wins)
            *last = *item;
    }
    p->count = kept;
}

static void index_first_bytes(mp_pieces *p)
{
    size_t i = 0;

    for (int b = 0; b < 256; b++) {
        p->first[b] = i;
        while (i < p->count && (unsigned char)p->items[i].bytes[0] == b)
            i++;
    }
    p->first[256] = i;
}

bool mp_pieces_build(const mp_piece *items, size_t count, bool last_wins, mp_pieces *out)
{
    size_t total = 0, at = 0;

    for (size_t i = 0; i < count; i++)
        total += items[i].n;
    *out = (mp_pieces){.items = mp_alloc(count, sizeof *items), .bytes = mp_alloc(total, 1)};
    if (!out->items || !out->bytes) {
        mp_pieces_free(out);
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        if (!items[i].n)
            continue;
        memcpy(out->bytes + at, items[i].bytes, items[i].n);
        out->items[out->count] = items[i];
        out->items[out->count++].bytes = out->bytes + at;
        at += items[i].n;
    }
    qsort(out->items, out->count, sizeof *out->items, compare_pieces);
    drop_equals(out, last_wins);
    index_first_bytes(out);
    return true;
}

void mp_pieces_free(mp_pieces *p)
{
    mp_free(p->items);
    mp_free(p->bytes);
    *p = (mp_pieces){0};
}

int32_t mp_pieces_find(const mp_pieces *p, const char *bytes, size_t n)
{
    if (!n)
        return -1;
    size_t low = p->first[(unsigned char)*bytes], high = p->first[(unsigned char)*bytes + 1];
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const mp_piece *item = &p->items[middle];
        const int order = compare_bytes(item->bytes, item->n, bytes, n);
        if (!order)
            return item->id;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return -1;
}

mp_prefix mp_prefix_start(const mp_pieces *p, const char *text, size_t n)
{
    return (mp_prefix){.pieces = p, .text = text, .n = n, .high = p->count};
}

/* The first item of low .. high - 1 whose byte at `length` is at least `byte`; all of them are
 * longer than `length`. */
static size_t lower_bound(const mp_prefix *w, size_t low, size_t high, int byte)
{
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if ((unsigned char)w->pieces->items[middle].bytes[w->length] < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const mp_piece *mp_prefix_next(mp_prefix *w)
{
    while (w->low < w->high && w->length < w->n) {
        const unsigned char byte = (unsigned char)w->text[w->length];
        if (!w->length) {
            w->low = w->pieces->first[byte];
            w->high = w->pieces->first[byte + 1];
        } else {
            w->low = lower_bound(w, w->low, w->high, byte);
            w->high = lower_bound(w, w->low, w->high, byte + 1);
        }
        w->length++;
        if (w->low < w->high && w->pieces->items[w->low].n == w->length)
            return &w->pieces->items[w->low++]; /* the shortest sorts first */
    }
    return NULL;
}
