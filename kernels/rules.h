/* torch's dtype rules as data: what an op makes of its operands' dtypes, or the exact text with
 * which torch refuses.  Ops ask here and nowhere else; the source of truth is
 * tests/fixtures/op_dtype_table.csv, measured on torch 2.15 (CPU), and for the rules that it lacks
 * tests/fixtures/kernels/op_dtype_more.csv. */
#ifndef MP_KERNELS_RULES_H
#define MP_KERNELS_RULES_H

#include "kernels/core/ctx.h"

typedef enum mp_rule {
    MP_RULE_LINEAR,
    MP_RULE_LINEAR_BIAS,
    MP_RULE_LINEAR3D_BIAS,
    MP_RULE_MATMUL2D,
    MP_RULE_MATMUL4D,
    MP_RULE_BMM,
    MP_RULE_CONV2D,
    MP_RULE_CONV2D_BIAS,
    MP_RULE_CONV3D,
    MP_RULE_CONV3D_BIAS,
    MP_RULE_CONV3D_1X1X1,
    MP_RULE_CONV3D_1X1X1_BIAS,
    MP_RULE_LAYER_NORM,
    MP_RULE_RMS_NORM,
    MP_RULE_GROUP_NORM,
    MP_RULE_BATCH_NORM,
    MP_RULE_SDPA,
    MP_RULE_ADD,
    MP_RULE_MUL,
    MP_RULE_CAT,
    MP_RULE_WHERE,
    MP_RULE_SOFTMAX,
    MP_RULE_SILU,
    MP_RULE_GELU,
    MP_RULE_GELU_TANH,
    MP_RULE_RELU,
    MP_RULE_CLAMP,
    MP_RULE_TANH,
    MP_RULE_SIGMOID,
    MP_RULE_MISH,
    MP_RULE_EXP,
    MP_RULE_SUM,
    MP_RULE_INTERP_NEAREST,
    MP_RULE_INTERP_BILINEAR,
    MP_RULE_EMBEDDING,
    MP_RULE_MUL_SCALAR,
    MP_RULE_DIV_SCALAR,
    MP_RULE_COUNT
} mp_rule;

enum { MP_RULE_TEXT = 256 };

/* The name of the op in the table ("linear_bias") . */
const char *mp_rule_name(mp_rule rule);

/* Result dtype for operand dtypes a and b (b = MP_DTYPE_COUNT for unary ops).  False when torch
 * refuses: then text holds "RuntimeError: ..." exactly as str(type) + ": " + first line. */
bool mp_rule_apply(mp_rule rule, mp_dtype a, mp_dtype b, mp_dtype *out, char text[MP_RULE_TEXT]);

/* The same for an op: on refusal the context fails with the bare message, str(exception), and the
 * result is MP_DTYPE_COUNT. */
mp_dtype mp_rule_check(mp_ctx *c, mp_rule rule, mp_tensor a, mp_tensor b);

#endif
