#include "kernels/core/memory.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* The countdown of the tests' fault injection; 0 is off.  Atomic, since workers may allocate. */
static _Atomic uint64_t fail_at;
static _Atomic uint64_t requests;

static bool refused(void)
{
    atomic_fetch_add(&requests, 1);
    uint64_t n = atomic_load(&fail_at);
    while (n && !atomic_compare_exchange_weak(&fail_at, &n, n - 1))
        ;
    return n == 1;
}

bool mp_mul_size(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

void *mp_alloc(size_t count, size_t size)
{
    size_t bytes;

    if (!mp_mul_size(count, size, &bytes) || refused())
        return NULL;
    return calloc(1, bytes ? bytes : 1);
}

void *mp_realloc(void *block, size_t count, size_t size)
{
    size_t bytes;

    if (!mp_mul_size(count, size, &bytes) || refused())
        return NULL;
    return realloc(block, bytes ? bytes : 1);
}

char *mp_strndup(const char *text, size_t n)
{
    n = strnlen(text, n);
    char *copy = mp_alloc(n + 1, 1);
    if (copy)
        memcpy(copy, text, n);
    return copy;
}

char *mp_strdup(const char *text)
{
    return mp_strndup(text, strlen(text));
}

void mp_free(void *block)
{
    free(block);
}

void mp_memory_fail_at(uint64_t n)
{
    atomic_store(&fail_at, n);
}

uint64_t mp_memory_requests(void)
{
    return atomic_load(&requests);
}
