#include "results/texts.h"

#include <string.h>

#include "kernels/core/memory.h"

enum { CHUNK = 1 << 16 };

typedef struct chunk {
    struct chunk *next;
    char bytes[];
} chunk;

struct mp_texts {
    const char **slots; /* open addressing; at most half of them taken */
    size_t slot_count, taken;
    chunk *chunks;
    size_t used, room; /* of the newest chunk */
};

/* FNV-1a: texts come from files, but a slow table is all that a bad one can make of it. */
static size_t hash_of(const char *text)
{
    uint64_t h = 0xcbf29ce484222325;

    for (; *text; text++)
        h = (h ^ (unsigned char)*text) * 0x100000001b3;
    return (size_t)(h ^ h >> 29);
}

mp_texts *mp_texts_create(void)
{
    mp_texts *t = mp_alloc(1, sizeof *t);

    if (!t)
        return NULL;
    t->slot_count = 1024;
    t->slots = mp_alloc(t->slot_count, sizeof *t->slots);
    if (t->slots)
        return t;
    mp_free(t);
    return NULL;
}

void mp_texts_free(mp_texts *t)
{
    if (!t)
        return;
    for (chunk *c = t->chunks, *next; c; c = next) {
        next = c->next;
        mp_free(c);
    }
    mp_free(t->slots);
    mp_free(t);
}

/* Where the text is, or would be. */
static const char **slot_of(const char **slots, size_t count, const char *text)
{
    size_t i = hash_of(text) & (count - 1);

    while (slots[i] && strcmp(slots[i], text))
        i = (i + 1) & (count - 1);
    return &slots[i];
}

static bool grow(mp_texts *t)
{
    const char **slots = mp_alloc(2 * t->slot_count, sizeof *slots);

    if (!slots)
        return false;
    for (size_t i = 0; i < t->slot_count; i++)
        if (t->slots[i])
            *slot_of(slots, 2 * t->slot_count, t->slots[i]) = t->slots[i];
    mp_free(t->slots);
    t->slots = slots;
    t->slot_count *= 2;
    return true;
}

static char *store(mp_texts *t, const char *text)
{
    const size_t n = strlen(text) + 1;

    if (!t->chunks || t->room - t->used < n) {
        const size_t room = n > CHUNK ? n : CHUNK;
        chunk *c = mp_alloc(sizeof *c + room, 1);
        if (!c)
            return NULL;
        c->next = t->chunks;
        t->chunks = c;
        t->used = 0;
        t->room = room;
    }
    char *copy = t->chunks->bytes + t->used;
    memcpy(copy, text, n);
    t->used += n;
    return copy;
}

const char *mp_texts_keep(mp_texts *t, const char *text)
{
    const char **slot = slot_of(t->slots, t->slot_count, text);

    if (*slot)
        return *slot;
    if (2 * (t->taken + 1) > t->slot_count) {
        if (!grow(t))
            return NULL;
        slot = slot_of(t->slots, t->slot_count, text);
    }
    *slot = store(t, text);
    t->taken += *slot != NULL;
    return *slot;
}
