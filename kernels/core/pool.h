/* The pool behind an mp_ctx: blocks of activations out of one reserved range of addresses.
 *
 * The range is reserved once and committed in steps, so that the limit is exact, and a block never
 * moves.  Best fit over a free list kept by address, neighbours joined; 64-byte alignment.  Freed
 * blocks are poisoned under AddressSanitizer. */
#ifndef MP_KERNELS_CORE_POOL_H
#define MP_KERNELS_CORE_POOL_H

#include <stdint.h>

#include "kernels/core/ctx.h"

typedef struct mp_pool mp_pool;

mp_code mp_pool_create(size_t limit, mp_pool **out, mp_error *err);
void mp_pool_free(mp_pool *p);
/* NULL at the limit, or when the n-th request was told to fail.  owner: any number. */
void *mp_pool_alloc(mp_pool *p, size_t bytes, uint32_t owner);
/* Serial number of the next block: what mp_open returns. */
uint64_t mp_pool_serial(const mp_pool *p);
/* Frees every block with serial >= from that contains none of the addresses keep[0..n). */
void mp_pool_release(mp_pool *p, uint64_t from, void *const *keep, int n);
void mp_pool_trim(mp_pool *p);
mp_pool_stats mp_pool_stats_of(const mp_pool *p);
void mp_pool_restart_peak(mp_pool *p);
void mp_pool_restart_recent(mp_pool *p); /* the same for stats.recent */
/* The blocks that were in use at the peak, which a block of now need not be. */
typedef struct mp_pool_block {
    size_t bytes;
    uint32_t owner;
} mp_pool_block;
size_t mp_pool_peak_blocks(const mp_pool *p);
mp_pool_block mp_pool_peak_block(const mp_pool *p, size_t i);
void mp_pool_fail_at(mp_pool *p, uint64_t n); /* tests: the n-th block from now fails; 0 is off */

#endif
