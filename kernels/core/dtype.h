/* The dtypes of the project: fp32, fp16, bf16, fp8_e4m3 (e4m3fn) and fp8_e5m2. */
#ifndef MP_KERNELS_CORE_DTYPE_H
#define MP_KERNELS_CORE_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum mp_dtype {
#define X(id, type, name, bytes, st, torch, scalar) MP_##id,
#include "kernels/core/dtype.def"
#undef X
    MP_DTYPE_COUNT /* also: "no dtype given" */
} mp_dtype;

size_t mp_dtype_size(mp_dtype d);             /* bytes */
const char *mp_dtype_name(mp_dtype d);        /* "bf16" */
const char *mp_dtype_safetensors(mp_dtype d); /* "BF16" */
const char *mp_dtype_torch(mp_dtype d);       /* "bfloat16" */
const char *mp_dtype_scalar(mp_dtype d);      /* "BFloat16" */
const char *mp_dtype_c10(mp_dtype d);         /* "c10::BFloat16"; "float" for fp32 */
double mp_dtype_max(mp_dtype d);              /* largest finite value */
int mp_dtype_mantissa(mp_dtype d);            /* explicit mantissa bits: 23, 10, 7, 3, 2 */

/* Accepts the short name, torch's name with or without "torch.", torch's aliases ("half",
 * "float") and the safetensors name.  False leaves *out alone. */
bool mp_dtype_parse(const char *text, mp_dtype *out);

/* True when every value of `from` is a value of `to`, so that widening loses nothing. */
bool mp_dtype_widens(mp_dtype from, mp_dtype to);

/* The dtype that torch promotes two operands of an elementwise op to, MP_DTYPE_COUNT where torch
 * refuses (two different fp8 types; an fp8 with anything else). */
mp_dtype mp_dtype_promote(mp_dtype a, mp_dtype b);

#endif
