/* Host memory for everything that is not an activation: tables, names, parsed files.
 * The only home of malloc below the harness, so that a test can make the n-th request fail.
 * Every size is checked for overflow; the memory is zeroed. */
#ifndef MP_KERNELS_CORE_MEMORY_H
#define MP_KERNELS_CORE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* NULL when count * size overflows or memory is short.  count 0 gives a valid pointer. */
void *mp_alloc(size_t count, size_t size);
/* Grows (or shrinks) an array; the new tail is NOT zeroed; NULL leaves the old block alone. */
void *mp_realloc(void *block, size_t count, size_t size);
char *mp_strdup(const char *text);
char *mp_strndup(const char *text, size_t n);
void mp_free(void *block); /* NULL is fine */

/* a * b into *out; false when it does not fit. */
bool mp_mul_size(size_t a, size_t b, size_t *out);

/* Tests only: the n-th mp_alloc or mp_realloc from now returns NULL (1 is the next); 0 is off. */
void mp_memory_fail_at(uint64_t n);
uint64_t mp_memory_requests(void); /* requests since the start, to know how far to go */

#endif
