/* All kernels of the CPU for one instruction set: compiled once per level (kernels/CMakeLists.txt),
 * exporting nothing but the table mp_cpu_<isa>. */
#include <float.h>
#include <math.h>
#include <string.h>

#include <cblas.h>

#include "kernels/backend.h"
#include "kernels/core/ctx_internal.h"
#include "kernels/cpu/cpu_select.h"
#include "kernels/cpu/threads.h"

/* vec comes first and the rest build on it, in this order. */
/* clang-format off */
#include "kernels/cpu/vec_body.h"
#include "kernels/cpu/elementwise_body.h"
#include "kernels/cpu/norm_body.h"
#include "kernels/cpu/shape_body.h"
#include "kernels/cpu/panel_body.h"
#include "kernels/cpu/gemm_body.h"
#include "kernels/cpu/conv_body.h"
#include "kernels/cpu/attention_body.h"
#include "kernels/cpu/roofline_body.h"
/* clang-format on */

#define PASTE(a, b)   a##b
#define TABLE_OF(isa) PASTE(mp_cpu_, isa)
#define TEXT(a)       #a
#define NAME_OF(isa)  TEXT(isa)

const mp_backend TABLE_OF(MP_ISA) = {
    .name = NAME_OF(MP_ISA),
    .vector = {activate, scalar, binary, where, gate, modulate, add_gated, layer_norm, rms_norm,
               batch_norm, group_norm, softmax, sum, mean_channels, embedding, move,
               resize_bilinear, measure, rope_half},
    .product = {linear, conv, matmul, attn_softmax, attn_linear, attn_quadratic},
    .peak = {peak_fma, peak_pairs},
};
