/* Exact conversions of single values: the oracle of every vectorised one.
 * Round to nearest even; denormals are kept; bit for bit what torch does, NaN payloads excepted. */
#ifndef MP_KERNELS_CORE_CONVERT_H
#define MP_KERNELS_CORE_CONVERT_H

#include "kernels/core/dtype.h"

/* How fp32 -> e4m3fn treats what is larger than 448: torch 2.15 saturates (also infinities), older
 * releases give NaN. */
typedef enum mp_e4m3_overflow { MP_E4M3_SATURATE, MP_E4M3_NAN } mp_e4m3_overflow;

float mp_f16_to_f32(uint16_t h);
float mp_bf16_to_f32(uint16_t h);
float mp_e4m3_to_f32(uint8_t q);
float mp_e5m2_to_f32(uint8_t q);
uint16_t mp_f32_to_f16(float x);
uint16_t mp_f32_to_bf16(float x);
uint8_t mp_f32_to_e4m3(float x, mp_e4m3_overflow mode);
uint8_t mp_f32_to_e5m2(float x);

/* n values, any dtype, scalar code.  dst and src must not overlap. */
void mp_widen(mp_dtype from, const void *src, float *dst, int64_t n);
void mp_narrow(mp_dtype to, mp_e4m3_overflow mode, const float *src, void *dst, int64_t n);

/* One value rounded to d and back: what a 0-dim tensor of dtype d would hold. */
float mp_round_to(mp_dtype d, float x);

#endif
