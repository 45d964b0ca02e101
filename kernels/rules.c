#include "kernels/rules.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

typedef struct query {
    mp_dtype a, b;
    const char *kernel; /* what torch says is not implemented for fp8; NULL: it is */
    mp_dtype *out;
    char *text;
} query;

static bool is_fp8(mp_dtype d)
{
    return d == MP_F8_E4M3 || d == MP_F8_E5M2;
}

static bool give(const query *q, mp_dtype d)
{
    *q->out = d;
    return true;
}

static bool not_implemented(const query *q)
{
    snprintf(q->text, MP_RULE_TEXT, "NotImplementedError: \"%s\" not implemented for '%s'",
             q->kernel, mp_dtype_scalar(q->a));
    return false;
}

static bool no_promotion(const query *q, mp_dtype a, mp_dtype b)
{
    snprintf(q->text, MP_RULE_TEXT,
             "RuntimeError: Promotion for Float8 Types is not supported, attempted to promote %s "
             "and %s",
             mp_dtype_scalar(a), mp_dtype_scalar(b));
    return false;
}

/* One dtype, whose kernel may be missing for fp8. */
static bool unary(const query *q)
{
    return is_fp8(q->a) && q->kernel ? not_implemented(q) : give(q, q->a);
}

static bool product(const query *q)
{
    if (q->a == q->b)
        return give(q, q->a);
    snprintf(q->text, MP_RULE_TEXT,
             "RuntimeError: expected m1 and m2 to have the same dtype, but got: %s != %s",
             mp_dtype_c10(q->a), mp_dtype_c10(q->b));
    return false;
}

static bool product_bias(const query *q)
{
    if (q->a == q->b)
        return give(q, q->a);
    snprintf(q->text, MP_RULE_TEXT,
             "RuntimeError: mat1 and mat2 must have the same dtype, but got %s and %s",
             mp_dtype_scalar(q->a), mp_dtype_scalar(q->b));
    return false;
}

/* torch dispatches on the first operand and then meets the second. */
static bool first_decides(const query *q)
{
    if (is_fp8(q->a))
        return not_implemented(q);
    if (q->a == q->b)
        return give(q, q->a);
    snprintf(q->text, MP_RULE_TEXT, "RuntimeError: expected scalar type %s but found %s",
             mp_dtype_scalar(q->a), mp_dtype_scalar(q->b));
    return false;
}

static bool conv_bias(const query *q)
{
    if (q->a == q->b)
        return unary(q);
    snprintf(q->text, MP_RULE_TEXT,
             "RuntimeError: Input type (%s) and bias type (%s) should be the same",
             mp_dtype_c10(q->a), mp_dtype_c10(q->b));
    return false;
}

/* Parameters in the input's dtype, or in fp32 beside a half. */
static bool norm_mixed(const query *q)
{
    if (q->a == q->b || q->b == MP_F32)
        return unary(q);
    snprintf(q->text, MP_RULE_TEXT,
             "RuntimeError: mixed dtype (CPU): expect parameter to have scalar type of Float");
    return false;
}

/* As the other norms, but fp8 inputs are refused before the parameters are looked at. */
static bool norm_batch(const query *q)
{
    return is_fp8(q->a) ? not_implemented(q) : norm_mixed(q);
}

/* The product with the weight happens in fp32, the result has the input's dtype. */
static bool norm_rms(const query *q)
{
    if (is_fp8(q->a))
        return not_implemented(q);
    return is_fp8(q->b) ? no_promotion(q, MP_F32, q->b) : give(q, q->a);
}

static bool attention(const query *q)
{
    if (q->a == q->b)
        return unary(q);
    snprintf(q->text, MP_RULE_TEXT,
             "RuntimeError: Expected query, key, and value to have the same dtype, but got "
             "query.dtype: %s key.dtype: %s and value.dtype: %s instead.",
             mp_dtype_c10(q->a), mp_dtype_c10(q->b), mp_dtype_c10(q->b));
    return false;
}

static bool promote(const query *q)
{
    if (q->a == q->b)
        return unary(q);
    const mp_dtype d = mp_dtype_promote(q->a, q->b);
    return d == MP_DTYPE_COUNT ? no_promotion(q, q->a, q->b) : give(q, d);
}

static const struct rule {
    const char *name;
    bool (*family)(const query *q);
    const char *kernel;
} rules[MP_RULE_COUNT] = {
#define X(id, name, family, kernel) [MP_RULE_##id] = {name, family, kernel},
#include "kernels/op_rules.def"
#undef X
};

const char *mp_rule_name(mp_rule rule)
{
    assert(rule >= 0 && rule < MP_RULE_COUNT);
    return rules[rule].name;
}

bool mp_rule_apply(mp_rule rule, mp_dtype a, mp_dtype b, mp_dtype *out, char text[MP_RULE_TEXT])
{
    assert(rule >= 0 && rule < MP_RULE_COUNT);
    const query q = {a, b, rules[rule].kernel, out, text};

    text[0] = '\0';
    return rules[rule].family(&q);
}

mp_dtype mp_rule_check(mp_ctx *c, mp_rule rule, mp_tensor a, mp_tensor b)
{
    char text[MP_RULE_TEXT];
    mp_dtype out = MP_DTYPE_COUNT;

    if (mp_failed(c))
        return MP_DTYPE_COUNT;
    if (mp_rule_apply(rule, a.dtype, b.dtype, &out, text))
        return out;
    const char *message = strstr(text, ": "); /* the exception's type comes first */
    mp_fail(c, MP_EDTYPE, b.name ? &b : NULL, "%s", message + 2);
    return MP_DTYPE_COUNT;
}
