/* What happens where dtypes meet, and the record of what was done about it.
 *
 * strict     torch's rules and torch's errors; nothing is ever done.
 * negotiate  a module that was declared to compute in a dtype of its own (mp_declare) gets its
 *            inputs in that dtype and gives its outputs back in that of the module around it.
 *            Nothing else is cast: what no declaration explains is still torch's error.
 * fallback   as strict; an op that the rules refuse, or that makes non-finite values of finite
 *            ones, is done again in fp32.  Its result goes back to strict's dtype where every value
 *            fits, and stays fp32 where one does not.
 */
#ifndef MP_KERNELS_CORE_POLICY_H
#define MP_KERNELS_CORE_POLICY_H

#include "kernels/core/dtype.h"

typedef enum mp_policy { MP_STRICT, MP_NEGOTIATE, MP_FALLBACK, MP_POLICY_COUNT } mp_policy;

const char *mp_policy_name(mp_policy p); /* "negotiate" */
bool mp_policy_parse(const char *text, mp_policy *out);

/* A dtype for the modules and parameters whose path matches. */
typedef struct mp_dtype_override {
    const char *match; /* glob on "component.module.path": parameter, module or a parent of it */
    mp_dtype dtype;
} mp_dtype_override;

/* An override names a parameter, its module or, like .to(dtype) on a module, a parent. */
bool mp_path_matches(const char *glob, const char *path);

typedef enum mp_action_kind {
    MP_CAST_IN,        /* an input, at the entry of a module that has a dtype of its own */
    MP_CAST_OUT,       /* an output, at its end */
    MP_REDO_REFUSED,   /* an op in fp32 that torch's rules refuse */
    MP_REDO_NONFINITE, /* an op in fp32 whose result was not finite, of finite operands */
    MP_ACTION_COUNT
} mp_action_kind;

const char *mp_action_name(mp_action_kind k); /* "cast_in" */

/* All that a policy did of one kind in one place. */
typedef struct mp_action {
    mp_action_kind kind;
    const char *module; /* whose boundary, or where the op is */
    const char *op;     /* that was done again; "" for casts */
    /* Of a cast.  Of a redone op: its first operand's dtype, and that of the result which the next
     * op gets: the dtype that strict has there, or fp32. */
    mp_dtype from, to;
    uint64_t count;    /* casts, or calls of the op */
    uint64_t elements; /* that were cast, or are in the op's results */
    uint64_t ns;       /* time of the casts, or of the second attempts */
} mp_action;

#endif
