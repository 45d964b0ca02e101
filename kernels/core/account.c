/* Whose activations make the pool's peak: the modules that asked for blocks, by number. */
#include <stdlib.h>
#include <string.h>

#include "kernels/core/ctx_internal.h"
#include "kernels/core/memory.h"

/* Names by number, found by hash; number 0 is nobody's: blocks of before, or without memory. */
struct mp_account {
    char **names;
    uint32_t *slots; /* numbers, at the hash of their names; 0: empty */
    uint32_t count, room, slot_count;
};

bool mp_account(mp_ctx *c, bool on)
{
    if (on && !c->account)
        c->account = mp_alloc(1, sizeof *c->account);
    c->accounting = on && c->account;
    return c->accounting == on;
}

void mp_account_free(struct mp_account *a)
{
    if (!a)
        return;
    for (uint32_t i = 0; i < a->count; i++)
        mp_free(a->names[i]);
    mp_free(a->names);
    mp_free(a->slots);
    mp_free(a);
}

/* FNV-1a */
static uint32_t hash(const char *name)
{
    uint32_t h = 2166136261u;

    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * 16777619u;
    return h;
}

/* Where the name's number is, or is to be put. */
static uint32_t *find(const struct mp_account *a, const char *name)
{
    uint32_t i = hash(name) % a->slot_count;

    while (a->slots[i] && strcmp(a->names[a->slots[i] - 1], name) != 0)
        i = (i + 1) % a->slot_count;
    return &a->slots[i];
}

/* Room for one more name in a table that is at most half full. */
static bool grow(struct mp_account *a)
{
    const uint32_t room = a->room ? 2 * a->room : 64;

    if (a->count < a->room)
        return true;
    uint32_t *slots = mp_alloc(2 * (size_t)room, sizeof *slots);
    char **names = slots ? mp_realloc(a->names, room, sizeof *names) : NULL;
    if (!names) {
        mp_free(slots);
        return false;
    }
    mp_free(a->slots);
    *a = (struct mp_account){names, slots, a->count, room, 2 * room};
    for (uint32_t i = 0; i < a->count; i++)
        *find(a, names[i]) = i + 1;
    return true;
}

uint32_t mp_account_module(mp_ctx *c)
{
    struct mp_account *a = c->account;
    char module[MP_ERROR_MODULE];

    if (!c->accounting || !grow(a))
        return 0;
    mp_module_of(c, c->op_weight, module);
    uint32_t *slot = find(a, module);
    if (!*slot && (a->names[a->count] = mp_strdup(module)))
        *slot = ++a->count;
    return *slot;
}

static int by_bytes(const void *x, const void *y)
{
    const mp_share *a = x, *b = y;

    return a->bytes != b->bytes ? (a->bytes < b->bytes) - (a->bytes > b->bytes)
                                : strcmp(a->module, b->module);
}

int mp_peak_shares(const mp_ctx *c, mp_share *out, int room)
{
    const struct mp_account *a = c->account;
    const size_t owners = a ? (size_t)a->count + 1 : 0;
    mp_share *all = a ? mp_alloc(owners, sizeof *all) : NULL;
    int n = 0;

    if (!all)
        return 0;
    for (size_t i = 0; i < owners; i++)
        all[i].module = i ? a->names[i - 1] : "";
    for (size_t i = 0; i < mp_pool_peak_blocks(c->pool); i++) {
        const mp_pool_block b = mp_pool_peak_block(c->pool, i);
        all[b.owner].bytes += b.bytes;
    }
    qsort(all, owners, sizeof *all, by_bytes);
    for (; n < room && (size_t)n < owners && all[n].bytes; n++)
        out[n] = all[n];
    mp_free(all);
    return n;
}
