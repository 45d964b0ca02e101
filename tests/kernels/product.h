/* What the tests of products share: the operands and bounds of make_kernels_product.py, and
 * operands of small integers, whose products are exact in every order of summation. */
#ifndef MP_TESTS_KERNELS_PRODUCT_H
#define MP_TESTS_KERNELS_PRODUCT_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/device.h"
#include "kernels/ops.h"
#include "tests/support/mp_test.h"

/* How parameters lie in memory and the dtype of the computation: MODES of the script. */
typedef struct product_mode {
    const char *name;
    mp_dtype store, dtype;
} product_mode;

static const product_mode product_modes[] = {
    {"fp32", MP_F32, MP_F32},
    {"fp16", MP_F16, MP_F16},
    {"bf16", MP_BF16, MP_BF16},
    {"fp16_in_fp32", MP_F16, MP_F32},
    {"fp8_e4m3_in_bf16", MP_F8_E4M3, MP_BF16},
    {"fp8_e5m2_in_fp16", MP_F8_E5M2, MP_F16},
};

enum { PRODUCT_PLAIN = 3, PRODUCT_CONV = 5, PRODUCT_MODES = 6 };

/* A tensor of floats, kept in `store` and meant as `dtype`. */
static inline mp_tensor product_tensor(mp_ctx *c, mp_dtype store, mp_dtype dtype, int rank,
                                       const int64_t *dims, const float *values)
{
    mp_tensor t = mp_test_floats(c, store, rank, dims, values);

    t.dtype = dtype;
    return t;
}

/* The script's `take`: the pool from `start` on, again and again. */
static inline mp_tensor product_take(mp_ctx *c, const mp_safetensors *g, int64_t start,
                                     product_mode mode, int rank, const int64_t *dims)
{
    const mp_tensor pool = mp_test_golden(g, "pool");
    int64_t n = 1;

    for (int i = 0; i < rank; i++)
        n *= dims[i];
    float *values = test_malloc((size_t)(n ? n : 1) * sizeof *values);
    for (int64_t i = 0; i < n; i++)
        values[i] = ((const float *)pool.data)[(start + i) % mp_numel(pool)];
    const mp_tensor t = product_tensor(c, mode.store, mode.dtype, rank, dims, values);
    test_free(values);
    return t;
}

static inline product_mode product_as(mp_dtype d)
{
    return (product_mode){mp_dtype_name(d), d, d};
}

/* A computation from operands that it makes itself or is given. */
typedef mp_tensor (*product_run)(mp_ctx *c, const void *arg);

/* A sum of k products rounds about k times, each time by at most 2^-24 of a partial sum, whose size
 * is at most about the norm of the products (the golden `norm.<key>`: the largest of all outputs).
 * Rounding errors add as a random walk: sqrt(k) of them, and 4 deviations cover all outputs.  A
 * half lies within an ulp of the rounded float64 result, or within the same bound where the sum
 * cancels; it differs only where the bound straddles a tie: ample are 1 in 50, and one more in a
 * small tensor. */
static inline mp_tolerance product_bound(mp_tensor golden, float norm, int64_t k)
{
    const double bound = 4 * sqrt((double)k + 1) * ldexp(1, -24) * (double)norm;

    if (golden.dtype == MP_F32)
        return (mp_tolerance){"random walk of k roundings", .ulps = 1, .abs = bound};
    return (mp_tolerance){"a tie, or a cancelled sum", .ulps = 1, .abs = bound,
                          .share = 0.02 + 1 / (double)mp_numel(golden)};
}

/* Pages of address space of this process: the pool reserves its own once, so what an op adds is
 * scratch. */
static inline size_t product_address_space(void)
{
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");

    assert_non_null(f);
    assert_int_equal(fscanf(f, "%ld", &pages), 1);
    fclose(f);
    return (size_t)pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* Bytes that one computation takes beyond operands and result, in the pool and as scratch.  A first
 * run on `small` operands lets OpenBLAS take its own buffer. */
static inline size_t product_extra(mp_ctx *c, product_run run, const void *small, const void *arg)
{
    run(c, small);
    mp_test_ok(c);
    const size_t live = mp_pool_get(c).live, space = product_address_space();
    mp_pool_reset_peak(c);
    const mp_tensor y = run(c, arg);
    mp_test_ok(c);
    return mp_pool_get(c).peak - live - mp_nbytes(y) + product_address_space() - space;
}

/* Integers from -3 to 3, never in step with a row.  Sums of up to 2^24 / 9 products of them are
 * exact in fp32 whatever their order, and so is their rounding. */
static inline float product_integer(int64_t i, uint32_t seed)
{
    uint32_t h = (uint32_t)i * 2654435761u + seed * 40503u;

    h ^= h >> 15;
    h *= 2246822519u;
    h ^= h >> 13;
    return (float)((int)(h % 7) - 3);
}

static inline mp_tensor product_integers(mp_ctx *c, product_mode mode, uint32_t seed, int rank,
                                         const int64_t *dims)
{
    int64_t n = 1;

    for (int i = 0; i < rank; i++)
        n *= dims[i];
    float *values = test_malloc((size_t)n * sizeof *values);
    for (int64_t i = 0; i < n; i++)
        values[i] = product_integer(i, seed);
    const mp_tensor t = product_tensor(c, mode.store, mode.dtype, rank, dims, values);
    test_free(values);
    return t;
}

static inline float product_at(mp_tensor t, int64_t i)
{
    float x;

    mp_widen(t.store, (const char *)t.data + (size_t)i * mp_dtype_size(t.store), &x, 1);
    return x;
}

/* The same bits with 1, 2 and 3 threads, on each instruction set. */
static inline void product_threads_agree(product_run run, const void *arg)
{
    for (const char *const *isa = mp_test_isas(); *isa; isa++) {
        mp_ctx *one = mp_test_ctx(*isa, 1);
        const mp_tensor expected = run(one, arg);
        mp_test_ok(one);
        for (int threads = 2; threads <= 3; threads++) {
            mp_ctx *c = mp_test_ctx(*isa, threads);
            const mp_tensor y = run(c, arg);
            mp_test_ok(c);
            assert_int_equal(mp_nbytes(y), mp_nbytes(expected));
            assert_memory_equal(y.data, expected.data, mp_nbytes(y));
            mp_device_close(c);
        }
        mp_device_close(one);
    }
}

#endif
