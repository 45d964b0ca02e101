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
/* NULL at the limit, or when the n-th request was told to fail. */
void *mp_pool_alloc(mp_pool *p, size_t bytes);
/* Serial number of the next block: what mp_open returns. */
uint64_t mp_pool_serial(const mp_pool *p);
/* Frees every block with serial >= from that contains none of the addresses keep[0..n). */
void mp_pool_release(mp_pool *p, uint64_t from, void *const *keep, int n);
void mp_pool_trim(mp_pool *p);
mp_pool_stats mp_pool_stats_of(const mp_pool *p);
void mp_pool_restart_peak(mp_pool *p);
void mp_pool_restart_recent(mp_pool *p);      /* the same for stats.recent */
void mp_pool_fail_at(mp_pool *p, uint64_t n); /* tests: the n-th block from now fails; 0 is off */

#endif
