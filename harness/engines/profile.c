#include "harness/engines/profile.h"

#include <string.h>

#include "kernels/core/memory.h"

/* Ops of a model in different places, far above any real one; more of them go into their stage's
 * sum. */
enum { MAX_ROWS = 4096, SLOTS = 2 * MAX_ROWS, MAX_STAGES = 8, SHORTCUTS = 4096 };

typedef struct place {
    const char *stage, *module, *op;
    mp_dtype dtype;
    uint64_t hash;
} place;

typedef struct row {
    place place; /* its texts are the row's */
    int64_t calls;
    uint64_t ns, bytes, flops;
} row;

/* The row of a place as an op names it, with the numbers of blocks: most ops need no more. */
typedef struct shortcut {
    uint64_t hash; /* long enough to stand for the place */
    row *row;
} shortcut;

struct mp_profile {
    const char *stage;
    shortcut shortcuts[SHORTCUTS]; /* by hash; the last one of its place in the list stays */
    row rows[MAX_ROWS];
    int count;
    uint16_t slots[SLOTS]; /* by hash: the row's number + 1, or 0 */
    row rest[MAX_STAGES];  /* of each stage: what has no row of its own */
    int rest_count;
};

/* module with '*' for the parts that are numbers, into text [MP_ERROR_MODULE]. */
static void collapse(const char *module, char *text)
{
    while (*module) {
        const size_t digits = strspn(module, "0123456789");
        const size_t part = strcspn(module, ".");
        if (digits && digits == part) {
            *text++ = '*';
        } else {
            memcpy(text, module, part);
            text += part;
        }
        module += part;
        if (*module)
            *text++ = *module++;
    }
    *text = '\0';
}

static bool same_place(const place *a, const place *b)
{
    return a->hash == b->hash && a->dtype == b->dtype && !strcmp(a->module, b->module) &&
           !strcmp(a->op, b->op) && !strcmp(a->stage, b->stage);
}

static void disown(row *r)
{
    mp_free((void *)r->place.stage);
    mp_free((void *)r->place.module);
}

/* A row of that place, which it keeps; false: no memory. */
static bool own(row *r, const place *p)
{
    r->place = *p;
    r->place.stage = mp_strdup(p->stage);
    r->place.module = mp_strdup(p->module); /* op is a constant */
    if (r->place.stage && r->place.module)
        return true;
    disown(r);
    return false;
}

/* What sums a stage's small rows; NULL: there are too many stages, or no memory. */
static row *rest_of(mp_profile *p, const char *stage)
{
    const place any = {.stage = stage, .module = "", .op = "", .dtype = MP_DTYPE_COUNT};

    for (int i = 0; i < p->rest_count; i++)
        if (!strcmp(p->rest[i].place.stage, stage))
            return &p->rest[i];
    if (p->rest_count == MAX_STAGES || !own(&p->rest[p->rest_count], &any))
        return NULL;
    return &p->rest[p->rest_count++];
}

static row *row_of(mp_profile *p, const place *at)
{
    uint64_t slot = at->hash % SLOTS;

    for (; p->slots[slot]; slot = (slot + 1) % SLOTS)
        if (same_place(&p->rows[p->slots[slot] - 1].place, at))
            return &p->rows[p->slots[slot] - 1];
    if (p->count == MAX_ROWS || !own(&p->rows[p->count], at))
        return rest_of(p, at->stage);
    p->slots[slot] = (uint16_t)++p->count;
    return &p->rows[p->count - 1];
}

static void add(row *to, int64_t calls, uint64_t ns, uint64_t bytes, uint64_t flops)
{
    to->calls += calls;
    to->ns += ns;
    to->bytes += bytes;
    to->flops += flops;
}

/* Eight characters at a time. */
static uint64_t mix(uint64_t hash, const char *text)
{
    uint64_t word;

    for (size_t n = strlen(text); n; n -= n < sizeof word ? n : sizeof word, text += sizeof word) {
        word = 0;
        memcpy(&word, text, n < sizeof word ? n : sizeof word);
        hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 29;
    }
    return hash;
}

static uint64_t hash_of(mp_dtype dtype, const char *op, const char *stage, const char *module)
{
    return mix(mix(mix(1 + (uint64_t)dtype, op), stage), module);
}

static row *find_row(mp_profile *p, const mp_op_event *event)
{
    char module[MP_ERROR_MODULE];
    place at = {.stage = p->stage, .module = module, .op = event->op, .dtype = event->y->dtype};

    collapse(event->module, module);
    at.hash = hash_of(at.dtype, at.op, at.stage, module);
    return row_of(p, &at);
}

static void on_output(void *user, const mp_op_event *event)
{
    mp_profile *p = user;
    const uint64_t hash = hash_of(event->y->dtype, event->op, p->stage, event->module);
    shortcut *s = &p->shortcuts[hash % SHORTCUTS];

    if (!s->row || s->hash != hash)
        *s = (shortcut){hash, find_row(p, event)};
    if (s->row)
        add(s->row, 1, event->ns, event->bytes, event->flops);
}

mp_profile *mp_profile_create(const char *stage)
{
    mp_profile *p = mp_alloc(1, sizeof *p);

    if (p)
        p->stage = stage;
    return p;
}

void mp_profile_free(mp_profile *p)
{
    if (!p)
        return;
    for (int i = 0; i < p->count; i++)
        disown(&p->rows[i]);
    for (int i = 0; i < p->rest_count; i++)
        disown(&p->rest[i]);
    mp_free(p);
}

mp_observer mp_profile_observer(mp_profile *p)
{
    return (mp_observer){.output = on_output, .user = p};
}

static mp_op_row told(const row *r)
{
    const place *at = &r->place;

    return (mp_op_row){.stage = at->stage,
                       .module = at->module,
                       .op = at->op,
                       .dtype = *at->op ? mp_dtype_name(at->dtype) : "",
                       .calls = r->calls,
                       .seconds = 1e-9 * (double)r->ns,
                       .bytes = (int64_t)r->bytes,
                       .flops = (int64_t)r->flops};
}

void mp_profile_each(mp_profile *p, double least, void (*each)(void *user, const mp_op_row *row),
                     void *user)
{
    for (int i = 0; i < p->count; i++) {
        const row *r = &p->rows[i];
        const mp_op_row text = told(r);
        row *rest = text.seconds < least ? rest_of(p, text.stage) : NULL;
        if (rest)
            add(rest, r->calls, r->ns, r->bytes, r->flops);
        else
            each(user, &text);
    }
    for (int i = 0; i < p->rest_count; i++) {
        const mp_op_row text = told(&p->rest[i]);
        each(user, &text);
    }
}
