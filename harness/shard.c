#include "harness/shard.h"

#include <stdlib.h>
#include <string.h>

#include "harness/plan.h"
#include "results/metrics.h"

enum { MAX_SHARDS = 10000 };

/* The number at *text, which goes behind it; 0: there is none from 1 to MAX_SHARDS. */
static int number(const char **text)
{
    const size_t digits = strspn(*text, "0123456789");
    const long n = digits && digits < 9 ? strtol(*text, NULL, 10) : 0;

    *text += digits;
    return n <= MAX_SHARDS ? (int)n : 0;
}

mp_code mp_shard_parse(const char *text, mp_shard *out, mp_error *err)
{
    const char *s = text;

    out->index = number(&s);
    const bool divided = *s == '/';
    s += divided;
    out->count = number(&s);
    if (divided && !*s && out->index && out->index <= out->count)
        return MP_OK;
    return mp_error_set(err, MP_EUSAGE,
                        "--shard: found '%.60s', expected I/N with I from 1 to N and N at most %d, "
                        "such as 1/4",
                        text, (int)MAX_SHARDS);
}

typedef struct card {
    char hash[65]; /* of the cell's key */
    int cell;
} card;

static int by_hash(const void *a, const void *b)
{
    return strcmp(((const card *)a)->hash, ((const card *)b)->hash);
}

void mp_shard_take(mp_arena *a, const mp_shard *s, mp_plan *p)
{
    if (!s->count)
        return;
    card *cards = mp_arena_alloc(a, (size_t)p->count, sizeof *cards);
    bool *mine = mp_arena_alloc(a, (size_t)p->count, sizeof *mine);
    int kept = 0;

    for (int i = 0; i < p->count; i++) {
        mp_sha256_hex(p->cells[i].key, strlen(p->cells[i].key), cards[i].hash);
        cards[i].cell = i;
    }
    qsort(cards, (size_t)p->count, sizeof *cards, by_hash);
    for (int i = s->index - 1; i < p->count; i += s->count)
        mine[cards[i].cell] = true;
    for (int i = 0; i < p->count; i++)
        if (mine[i])
            p->cells[kept++] = p->cells[i];
    p->count = kept;
}
