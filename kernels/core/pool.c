#include "kernels/core/pool.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/core/memory.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size)   ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

/* The range holds more than the limit, because blocks never move and free space is in pieces. */
static const size_t usual_range = (size_t)1 << 36; /* addresses only: 64 GiB */
static const size_t smallest_range = (size_t)1 << 32;
static const size_t commit_step = (size_t)1 << 22;
static const size_t alignment = 64;
/* Free blocks keep their pages, so that the next one need not be cleared by the kernel; but beyond
 * the peak of what was in use, no more than a sixteenth of it, or this. */
static const size_t smallest_slack = (size_t)1 << 22;

typedef struct block {
    size_t offset, size;
    size_t touched;  /* of a free one: at most so many bytes have pages */
    uint64_t serial; /* 0: free */
    uint32_t owner;
} block;

struct mp_pool {
    char *base;
    size_t range, committed; /* [0, committed) is readable and writable */
    block *blocks;           /* by offset; they cover [0, end) without holes */
    size_t count, capacity;
    mp_pool_block *at_peak; /* of the same capacity */
    size_t peak_count;
    size_t end, touched; /* [touched, range) has no pages */
    uint64_t next_serial;
    uint64_t fail_at;
    mp_pool_stats stats;
};

static size_t round_up(size_t n, size_t step)
{
    return (n + step - 1) / step * step;
}

/* Addresses for twice the limit; as many as usual where the system lends them, which under a limit
 * of address space or under valgrind it does not. */
static void *reserve(size_t limit, size_t *range)
{
    const size_t least =
        limit > smallest_range / 2 ? round_up(2 * limit, commit_step) : smallest_range;
    void *base;

    *range = least > usual_range ? least : usual_range;
    do {
        base = mmap(NULL, *range, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        *range = base == MAP_FAILED ? *range / 2 : *range;
    } while (base == MAP_FAILED && *range >= least);
    return base;
}

mp_code mp_pool_create(size_t limit, mp_pool **out, mp_error *err)
{
    mp_pool *p = mp_alloc(1, sizeof *p);

    if (!p)
        return mp_error_set(err, MP_ENOMEM, "no memory for the pool of activations");
    p->base = reserve(limit, &p->range);
    if (p->base == MAP_FAILED) {
        const int why = errno;
        mp_free(p);
        return mp_error_set(err, MP_ENOMEM,
                            "cannot reserve %zu GiB of addresses for activations: %s; raise the "
                            "limit of address space (ulimit -v)",
                            (limit > smallest_range / 2 ? 2 * limit : smallest_range) >> 30,
                            strerror(why));
    }
    p->next_serial = 1;
    p->stats.limit = limit;
    *out = p;
    return MP_OK;
}

void mp_pool_free(mp_pool *p)
{
    if (!p)
        return;
    ASAN_UNPOISON_MEMORY_REGION(p->base, p->committed);
    munmap(p->base, p->range);
    mp_free(p->blocks);
    mp_free(p->at_peak);
    mp_free(p);
}

/* Room for two more entries: an allocation adds at most one block and one remainder. */
static bool reserve_entries(mp_pool *p)
{
    if (p->count + 2 <= p->capacity)
        return true;
    const size_t capacity = p->capacity ? 2 * p->capacity : 64;
    block *blocks = mp_realloc(p->blocks, capacity, sizeof *blocks);
    if (!blocks)
        return false;
    p->blocks = blocks;
    mp_pool_block *at_peak = mp_realloc(p->at_peak, capacity, sizeof *at_peak);
    if (!at_peak)
        return false;
    p->at_peak = at_peak;
    p->capacity = capacity;
    return true;
}

static bool commit(mp_pool *p, size_t end)
{
    if (end <= p->committed)
        return true;
    if (end > p->range)
        return false;
    size_t target = round_up(end, commit_step);
    if (target > p->range)
        target = p->range;
    if (mprotect(p->base + p->committed, target - p->committed, PROT_READ | PROT_WRITE))
        return false;
    /* Pages come back faster by large ones, of which a small pool would waste parts. */
    if (p->committed >= commit_step)
        madvise(p->base + p->committed, target - p->committed, MADV_HUGEPAGE);
    ASAN_POISON_MEMORY_REGION(p->base + p->committed, target - p->committed);
    p->committed = target;
    return true;
}

static size_t best_fit(const mp_pool *p, size_t size)
{
    size_t best = p->count;

    for (size_t i = 0; i < p->count; i++) {
        const block *b = &p->blocks[i];
        if (!b->serial && b->size >= size && (best == p->count || b->size < p->blocks[best].size))
            best = i;
    }
    return best;
}

static void insert(mp_pool *p, size_t at, block b)
{
    memmove(&p->blocks[at + 1], &p->blocks[at], (p->count - at) * sizeof b);
    p->blocks[at] = b;
    p->count++;
}

/* Entry `at` for a block of `size`, split off a free one or put at the end; false: no room. */
static bool place(mp_pool *p, size_t at, size_t size)
{
    if (at == p->count) {
        if (!commit(p, p->end + size))
            return false;
        insert(p, at, (block){.offset = p->end, .size = size});
        p->end += size;
        if (p->touched < p->end)
            p->touched = p->end;
        return true;
    }
    block *b = &p->blocks[at];
    if (b->size > size) {
        block rest = {.offset = b->offset + size, .size = b->size - size, .touched = b->touched};
        if (rest.touched > rest.size)
            rest.touched = rest.size;
        b->size = size;
        insert(p, at + 1, rest);
    }
    return true;
}

/* ---- pages ---------------------------------------------------------------------------------- */

static void give_back(mp_pool *p, size_t from, size_t to)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);

    from = round_up(from, page);
    to = to / page * page;
    if (from < to)
        madvise(p->base + from, to - from, MADV_DONTNEED);
}

/* Pages of no use to anyone: of free blocks and behind the last one. */
static size_t spare_bytes(const mp_pool *p)
{
    size_t bytes = p->touched - p->end;

    for (size_t i = 0; i < p->count; i++)
        if (!p->blocks[i].serial)
            bytes += p->blocks[i].touched;
    return bytes;
}

/* Gives back the spare pages from the last on, until at most so many are left. */
static void leave_spare(mp_pool *p, size_t most)
{
    size_t spare = spare_bytes(p);

    if (spare > most) {
        give_back(p, p->end, p->touched);
        spare -= p->touched - p->end;
        p->touched = p->end;
    }
    for (size_t i = p->count; i-- > 0 && spare > most;) {
        block *b = &p->blocks[i];
        if (b->serial || !b->touched)
            continue;
        give_back(p, b->offset, b->offset + b->size);
        spare -= b->touched;
        b->touched = 0;
    }
}

static void limit_pages(mp_pool *p)
{
    const size_t sixteenth = p->stats.peak / 16;
    const size_t slack = sixteenth > smallest_slack ? sixteenth : smallest_slack;

    leave_spare(p, p->stats.peak + slack - p->stats.live);
}

void mp_pool_trim(mp_pool *p)
{
    leave_spare(p, 0);
}

/* ---- blocks --------------------------------------------------------------------------------- */

static void note_peak(mp_pool *p)
{
    p->stats.peak = p->stats.live;
    p->peak_count = 0;
    for (size_t i = 0; i < p->count; i++)
        if (p->blocks[i].serial)
            p->at_peak[p->peak_count++] = (mp_pool_block){p->blocks[i].size, p->blocks[i].owner};
}

void *mp_pool_alloc(mp_pool *p, size_t bytes, uint32_t owner)
{
    const size_t size = round_up(bytes ? bytes : 1, alignment);

    p->stats.requests++;
    if (p->fail_at && --p->fail_at == 0)
        return NULL;
    if (size < bytes || size > p->range)
        return NULL;
    if (p->stats.limit && size > p->stats.limit - p->stats.live)
        return NULL;
    if (!reserve_entries(p))
        return NULL;
    const size_t at = best_fit(p, size);
    if (!place(p, at, size))
        return NULL;
    p->blocks[at].serial = p->next_serial++;
    p->blocks[at].owner = owner;
    p->stats.live += size;
    if (p->stats.live > p->stats.peak)
        note_peak(p);
    if (p->stats.live > p->stats.recent)
        p->stats.recent = p->stats.live;
    limit_pages(p);
    ASAN_UNPOISON_MEMORY_REGION(p->base + p->blocks[at].offset, bytes);
    return p->base + p->blocks[at].offset;
}

uint64_t mp_pool_serial(const mp_pool *p)
{
    return p->next_serial;
}

static bool holds_one_of(const mp_pool *p, const block *b, void *const *keep, int n)
{
    for (int i = 0; i < n; i++) {
        const char *address = keep[i];
        if (address && address >= p->base + b->offset && address < p->base + b->offset + b->size)
            return true;
    }
    return false;
}

/* Joins neighbouring free blocks and cuts a free tail off. */
static void join(mp_pool *p)
{
    size_t n = 0;

    for (size_t i = 0; i < p->count; i++) {
        if (n && !p->blocks[n - 1].serial && !p->blocks[i].serial) {
            p->blocks[n - 1].size += p->blocks[i].size;
            p->blocks[n - 1].touched += p->blocks[i].touched;
        } else {
            p->blocks[n++] = p->blocks[i];
        }
    }
    if (n && !p->blocks[n - 1].serial)
        p->end = p->blocks[--n].offset;
    p->count = n;
}

void mp_pool_release(mp_pool *p, uint64_t from, void *const *keep, int n)
{
    bool freed = false;

    for (size_t i = 0; i < p->count; i++) {
        block *b = &p->blocks[i];
        if (!b->serial || b->serial < from || holds_one_of(p, b, keep, n))
            continue;
        ASAN_POISON_MEMORY_REGION(p->base + b->offset, b->size);
        p->stats.live -= b->size;
        b->serial = 0;
        b->touched = b->size;
        freed = true;
    }
    if (freed)
        join(p);
}

mp_pool_stats mp_pool_stats_of(const mp_pool *p)
{
    return p->stats;
}

void mp_pool_restart_peak(mp_pool *p)
{
    note_peak(p);
    p->stats.recent = p->stats.live;
}

void mp_pool_restart_recent(mp_pool *p)
{
    p->stats.recent = p->stats.live;
}

size_t mp_pool_peak_blocks(const mp_pool *p)
{
    return p->peak_count;
}

mp_pool_block mp_pool_peak_block(const mp_pool *p, size_t i)
{
    return p->at_peak[i];
}

void mp_pool_fail_at(mp_pool *p, uint64_t n)
{
    p->fail_at = n;
}
