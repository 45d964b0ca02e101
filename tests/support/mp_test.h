/* What every test of kernels needs: contexts of each instruction set, goldens of real torch, and
 * comparisons that say where and by how much.
 *
 *     mp_safetensors *g = mp_test_goldens("kernels/norm.safetensors");
 *     for (const char *const *isa = mp_test_isas(); *isa; isa++) {
 *         mp_ctx *c = mp_test_ctx(*isa, 2);
 *         mp_tensor x = mp_test_tensor(c, g, "x.bf16");
 *         mp_test_close(mp_softmax(c, x), mp_test_golden(g, "softmax.bf16"),
 *                       (mp_tolerance){"exp within 2 ulp, one rounding", .ulps = 1});
 *         mp_device_close(c);
 *     }
 *     mp_safetensors_close(g);
 */
#ifndef MP_TESTS_SUPPORT_MP_TEST_H
#define MP_TESTS_SUPPORT_MP_TEST_H

#include "kernels/core/ctx.h"
#include "pipelines/common/safetensors.h"

/* A context on the CPU; isa NULL is the best one, threads 0 one per core. */
mp_ctx *mp_test_ctx(const char *isa, int threads);
/* All instruction sets that this machine runs, best first, NULL at the end; "base" is always one.
 */
const char *const *mp_test_isas(void);

/* path: under tests/fixtures.  A file or a tensor that is not there fails the test. */
mp_safetensors *mp_test_goldens(const char *path);
/* A view of the file. */
mp_tensor mp_test_golden(const mp_safetensors *g, const char *name_format, ...)
    __attribute__((format(printf, 2, 3)));
/* A copy in the pool: an operand, around which AddressSanitizer watches. */
mp_tensor mp_test_tensor(mp_ctx *c, const mp_safetensors *g, const char *name_format, ...)
    __attribute__((format(printf, 3, 4)));
/* A copy of n floats, rounded to d. */
mp_tensor mp_test_floats(mp_ctx *c, mp_dtype d, int rank, const int64_t *dims, const float *values);

/* A value passes when it lies within `ulps` steps of its dtype or within `abs` of the golden, or
 * both are NaN.  Of those that pass, only a part `share` may differ at all. */
typedef struct mp_tolerance {
    const char *name; /* what the numbers come from: part of the message */
    int64_t ulps;
    double abs;
    double share; /* 0: all of them */
} mp_tolerance;

/* Dtype and shape are equal and every value is within the tolerance. */
void mp_test_close(mp_tensor y, mp_tensor golden, mp_tolerance t);
/* Dtype, shape and bits are equal, NaN payloads excepted. */
void mp_test_same(mp_tensor y, mp_tensor golden);
/* A unary computation: several ops, or one with its parameters. */
typedef struct mp_test_case {
    const char *name;
    mp_tensor (*run)(mp_ctx *c, mp_tensor x);
} mp_test_case;
/* Each case gives the same bits on every instruction set with 1, 2, 3 and 5 threads. */
void mp_test_agree(const mp_test_case *cases, int n, mp_tensor x);
/* The same of one case whose products "base" cannot fuse: its bits are the same with every number
 * of threads, but only within the tolerance those of the other instruction sets. */
void mp_test_agree_fused(const mp_test_case *k, mp_tensor x, mp_tolerance base);

/* The context works on: else the test fails with its error. */
void mp_test_ok(const mp_ctx *c);
/* The context has failed with this code and a text that contains `part`; it is cleared. */
void mp_test_fails(mp_ctx *c, mp_code code, const char *part);

/* Steps of dtype d between two of its values: 0 for equal ones, for -0 and 0 and for two NaNs,
 * INT64_MAX between a NaN and a number. */
int64_t mp_test_ulps(mp_dtype d, float a, float b);
/* ||a - b|| / ||b|| */
double mp_rel_l2(const float *a, const float *b, int64_t n);

#endif
