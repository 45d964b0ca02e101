/* The policies at work: casts at the boundaries of modules, and the frame of every op that computes
 * (kernels/core/ctx_internal.h), which takes other operands or a second attempt. */
#include <assert.h>
#include <string.h>

#include "kernels/core/ctx_internal.h"
#include "kernels/ops.h"

/* ---- negotiate ------------------------------------------------------------------------------ */

/* x in dtype d; on record for the module that weight, or else the scope, names. */
static mp_tensor cast_at(mp_ctx *c, mp_action_kind kind, const mp_tensor *weight, mp_tensor x,
                         mp_dtype d)
{
    char module[MP_ERROR_MODULE];

    if (mp_failed(c) || !mp_given(x) || x.dtype == d)
        return x;
    const uint64_t start = mp_now_ns();
    const mp_op op = mp_op_begin(c, "cast", weight);
    c->work.read = mp_nbytes(x);
    const mp_tensor y = mp_converted(c, x, d);
    mp_module_of(c, weight, module);
    mp_act_on_record(c, &(mp_action){.kind = kind,
                                     .module = module,
                                     .op = "",
                                     .from = x.dtype,
                                     .to = d,
                                     .count = 1,
                                     .elements = (uint64_t)mp_numel(x),
                                     .ns = mp_now_ns() - start});
    return mp_op_end(c, &op, y);
}

/* Whether the current scope computes in another dtype than the one around it. */
static bool is_boundary(const mp_ctx *c)
{
    return c->policy == MP_NEGOTIATE && mp_scope_dtype(c, 0) != mp_scope_dtype(c, 1);
}

mp_tensor mp_take(mp_ctx *c, mp_tensor x)
{
    const mp_dtype inner = mp_scope_dtype(c, 0);

    return is_boundary(c) && inner != MP_DTYPE_COUNT ? cast_at(c, MP_CAST_IN, NULL, x, inner) : x;
}

mp_tensor mp_give(mp_ctx *c, mp_tensor y)
{
    const mp_dtype outer = mp_scope_dtype(c, 1);

    return is_boundary(c) && outer != MP_DTYPE_COUNT ? cast_at(c, MP_CAST_OUT, NULL, y, outer) : y;
}

mp_tensor mp_enter(mp_ctx *c, mp_tensor x, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    mp_pushv(c, format, args);
    va_end(args);
    return mp_take(c, x);
}

mp_tensor mp_leave(mp_ctx *c, mp_tensor y)
{
    y = mp_give(c, y);
    mp_pop(c);
    return y;
}

/* A module that is one op with a weight has no scope of its own: its boundary is the op. */
static void enter_leaf(mp_ctx *c, mp_op *op)
{
    const mp_dtype outer = mp_scope_dtype(c, 0);
    char module[MP_ERROR_MODULE];

    if (!op->weight || !op->weight->name)
        return;
    mp_module_of(c, op->weight, module);
    if (!strcmp(module, c->scope))
        return; /* the model's own mp_take and mp_give */
    const mp_dtype inner = mp_declared(c, module);
    if (inner == outer || inner == MP_DTYPE_COUNT)
        return;
    op->outer = outer;
    for (int i = 0; i < op->operands; i++)
        if (!op->operand[i]->name) /* parameters have their dtype */
            *op->operand[i] = cast_at(c, MP_CAST_IN, op->weight, *op->operand[i], inner);
}

/* ---- fallback ------------------------------------------------------------------------------- */

static bool is_finite(mp_ctx *c, mp_tensor x)
{
    const mp_range r = mp_measure(c, x);

    return !r.nan && !r.inf;
}

static bool is_narrow(mp_tensor x)
{
    return mp_given(x) && x.dtype != MP_F32;
}

static bool has_narrow_operand(const mp_op *op)
{
    for (int i = 0; i < op->operands; i++)
        if (is_narrow(*op->operand[i]))
            return true;
    return false;
}

static bool has_finite_operands(mp_ctx *c, const mp_op *op)
{
    for (int i = 0; i < op->operands; i++)
        if (!is_finite(c, *op->operand[i]))
            return false;
    return true;
}

/* Whether the first attempt, whose result is y, is to be made again, and why. */
static bool needs_redo(mp_ctx *c, const mp_op *op, mp_tensor y, mp_action_kind *why)
{
    if (c->policy != MP_FALLBACK || op->attempts != 1 || !has_narrow_operand(op))
        return false;
    *why = MP_REDO_REFUSED;
    if (mp_failed(c))
        return c->err.code == MP_EDTYPE;
    *why = MP_REDO_NONFINITE;
    return is_narrow(y) && !is_finite(c, y) && has_finite_operands(c, op);
}

/* Operands become fp32 without a copy: dtype is what the rules and roundings go by, and kernels
 * read what is in store. */
static void begin_redo(mp_ctx *c, mp_op *op, mp_tensor y, mp_action_kind why)
{
    op->redo = (mp_action){.kind = why,
                           .op = op->name,
                           .from = op->operand[0]->dtype,
                           .to = mp_failed(c) ? op->operand[0]->dtype : y.dtype,
                           .count = 1,
                           .ns = mp_now_ns()};
    memset(&c->err, 0, sizeof c->err);
    mp_drop(c, op->mark);
    for (int i = 0; i < op->operands; i++)
        if (mp_given(*op->operand[i]))
            op->operand[i]->dtype = MP_F32;
}

/* Back to strict's dtype, where all of y fits. */
static mp_tensor end_redo(mp_ctx *c, mp_op *op, mp_tensor y)
{
    char module[MP_ERROR_MODULE];
    const mp_range r = mp_measure(c, y);

    if (r.nan || r.inf || (double)r.max_abs > mp_dtype_max(op->redo.to))
        op->redo.to = y.dtype;
    if (op->redo.to != y.dtype)
        y = mp_converted(c, y, op->redo.to);
    mp_module_of(c, op->weight, module);
    op->redo.module = module;
    op->redo.elements = (uint64_t)mp_numel(y);
    op->redo.ns = mp_now_ns() - op->redo.ns;
    mp_act_on_record(c, &op->redo);
    return y;
}

/* ---- the frame ------------------------------------------------------------------------------ */

mp_op mp_op_open(const char *name, const mp_tensor *weight, mp_tensor *const *operand)
{
    mp_op op = {.name = name, .weight = weight, .outer = MP_DTYPE_COUNT};

    for (; *operand; operand++) {
        assert(op.operands < MP_OPERANDS_MAX);
        op.operand[op.operands++] = *operand;
    }
    return op;
}

static bool begin(mp_ctx *c, mp_op *op)
{
    if (mp_failed(c))
        return false;
    op->mark = mp_open(c);
    if (c->policy == MP_NEGOTIATE)
        enter_leaf(c, op);
    op->start = mp_op_begin(c, op->name, op->weight).start;
    return !mp_failed(c);
}

/* Each operand whole, unless the front end said otherwise. */
static void count_operands(mp_ctx *c, const mp_op *op)
{
    for (int i = 0; i < op->operands; i++)
        if (mp_given(*op->operand[i]))
            c->work.read += mp_nbytes(*op->operand[i]);
}

static mp_tensor end(mp_ctx *c, mp_op *op, mp_tensor y)
{
    if (!c->work.read && c->observer_count)
        count_operands(c, op);
    if (!mp_failed(c) && op->attempts == 2)
        y = end_redo(c, op, y);
    y = mp_op_end(c, op, y);
    if (op->outer != MP_DTYPE_COUNT)
        y = cast_at(c, MP_CAST_OUT, op->weight, y, op->outer);
    return mp_failed(c) ? MP_NONE : y;
}

bool mp_op_run(mp_ctx *c, mp_op *op, mp_tensor *y)
{
    mp_action_kind why;

    if (!op->attempts && !begin(c, op))
        return false;
    if (op->attempts && needs_redo(c, op, *y, &why)) {
        begin_redo(c, op, *y, why);
    } else if (op->attempts) {
        *y = end(c, op, *y);
        if (c->policy != MP_STRICT)
            mp_keep(c, op->mark, *y);
        return false;
    }
    op->attempts++;
    return true;
}
