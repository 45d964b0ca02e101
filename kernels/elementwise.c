#include <string.h>

#include "kernels/backend.h"
#include "kernels/core/ctx_internal.h"
#include "kernels/ops.h"
#include "kernels/rules.h"

/* Shape of a op b by torch's broadcasting, aligned at the last dimension; false: they do not meet.
 */
static bool broadcast(mp_tensor a, mp_tensor b, int *rank, int64_t *dims)
{
    *rank = a.rank > b.rank ? a.rank : b.rank;
    for (int i = 1; i <= *rank; i++) {
        const int64_t da = i <= a.rank ? a.dim[a.rank - i] : 1;
        const int64_t db = i <= b.rank ? b.dim[b.rank - i] : 1;
        if (da != db && da != 1 && db != 1)
            return false;
        dims[*rank - i] = da == 1 ? db : da;
    }
    return true;
}

/* Strides of t over the broadcast shape: 0 where it repeats. */
static void broadcast_strides(mp_tensor t, int rank, const int64_t *dims, int64_t *strides)
{
    int64_t step = 1;

    for (int i = rank - 1; i >= 0; i--) {
        const int own = i - (rank - t.rank);
        const int64_t d = own >= 0 ? t.dim[own] : 1;
        strides[i] = d == 1 && dims[i] != 1 ? 0 : step;
        if (own >= 0)
            step *= d;
    }
}

/* Neighbouring dimensions that both operands walk through evenly become one, so that two tensors of
 * equal shape are one long row. */
static void join_dimensions(mp_strided *s)
{
    for (int i = s->rank - 2; i >= 0; i--) {
        const int64_t n = s->dim[i + 1];
        if (s->a[i] != s->a[i + 1] * n || s->b[i] != s->b[i + 1] * n)
            continue;
        s->dim[i] *= n;
        s->a[i] = s->a[i + 1];
        s->b[i] = s->b[i + 1];
        for (int j = i + 1; j + 1 < s->rank; j++) {
            s->dim[j] = s->dim[j + 1];
            s->a[j] = s->a[j + 1];
            s->b[j] = s->b[j + 1];
        }
        s->rank--;
    }
}

mp_tensor mp_converted(mp_ctx *c, mp_tensor x, mp_dtype d)
{
    const mp_tensor y = mp_like_as(c, x, d);

    if (!mp_failed(c))
        c->backend->vector.scalar(c, MP_SCALAR_CAST, x, 0.0f, 0.0f, y);
    return y;
}

/* Result dtype.  A tensor without dimensions beside one with some counts as a number: it promotes
 * nothing, and rounds to the other's dtype first, except on the right of a product, where it stays
 * as it is. */
static mp_dtype binary_dtype(mp_ctx *c, mp_rule rule, mp_tensor *a, mp_tensor *b)
{
    if (!a->rank == !b->rank)
        return mp_rule_check(c, rule, *a, *b);
    mp_tensor *const number = a->rank ? b : a;
    const mp_tensor x = a->rank ? *a : *b;
    const bool as_scalar = rule == MP_RULE_MUL && number == b;
    const mp_dtype dtype = mp_rule_check(c, as_scalar ? MP_RULE_MUL_SCALAR : rule, x, x);
    if (!mp_failed(c) && !as_scalar)
        *number = mp_converted(c, *number, dtype);
    return dtype;
}

static mp_tensor combined(mp_ctx *c, mp_rule rule, mp_binary_op kind, mp_tensor a, mp_tensor b)
{
    char as[96], bs[96];
    int64_t dims[MP_MAX_RANK + 1] = {1};
    int rank;

    const mp_mark mark = mp_open(c);
    const mp_dtype dtype = binary_dtype(c, rule, &a, &b);
    if (mp_failed(c))
        return MP_NONE;
    if (!broadcast(a, b, &rank, dims))
        return mp_fail(c, MP_ESHAPE, NULL, "%s: %s and %s do not broadcast", c->op,
                       mp_shape_text(a, as, sizeof as), mp_shape_text(b, bs, sizeof bs));
    const mp_tensor y = mp_new(c, dtype, rank, dims);
    if (!mp_failed(c)) {
        mp_strided s = {.rank = rank ? rank : 1};
        memcpy(s.dim, dims, sizeof dims);
        broadcast_strides(a, s.rank, s.dim, s.a);
        broadcast_strides(b, s.rank, s.dim, s.b);
        join_dimensions(&s);
        c->backend->vector.binary(c, kind, &s, a, b, y);
    }
    return mp_keep(c, mark, y);
}

static mp_tensor binary(mp_ctx *c, const char *name, mp_rule rule, mp_binary_op kind, mp_tensor a,
                        mp_tensor b)
{
    mp_op op = mp_op_open(name, NULL, MP_OPERANDS(&a, &b));
    mp_tensor y = MP_NONE;

    while (mp_op_run(c, &op, &y))
        y = combined(c, rule, kind, a, b);
    return y;
}

mp_tensor mp_add(mp_ctx *c, mp_tensor a, mp_tensor b)
{
    return binary(c, "add", MP_RULE_ADD, MP_BINARY_ADD, a, b);
}

mp_tensor mp_mul(mp_ctx *c, mp_tensor a, mp_tensor b)
{
    return binary(c, "mul", MP_RULE_MUL, MP_BINARY_MUL, a, b);
}

static mp_tensor by_number(mp_ctx *c, mp_rule rule, mp_scalar_op kind, mp_tensor x, float a,
                           float b)
{
    const mp_dtype dtype = mp_rule_check(c, rule, x, x);
    const mp_tensor y = mp_failed(c) ? MP_NONE : mp_like_as(c, x, dtype);

    if (kind == MP_SCALAR_ADD && !mp_failed(c))
        a = mp_round_to(x.dtype, a);
    if (!mp_failed(c))
        c->backend->vector.scalar(c, kind, x, a, b, y);
    return y;
}

static mp_tensor with_scalar(mp_ctx *c, const char *name, mp_rule rule, mp_scalar_op kind,
                             mp_tensor x, float a, float b)
{
    mp_op op = mp_op_open(name, NULL, MP_OPERANDS(&x));
    mp_tensor y = MP_NONE;

    while (mp_op_run(c, &op, &y))
        y = by_number(c, rule, kind, x, a, b);
    return y;
}

mp_tensor mp_add_scalar(mp_ctx *c, mp_tensor x, float s)
{
    return with_scalar(c, "add", MP_RULE_ADD, MP_SCALAR_ADD, x, s, 0.0f);
}

mp_tensor mp_mul_scalar(mp_ctx *c, mp_tensor x, float s)
{
    return with_scalar(c, "mul", MP_RULE_MUL_SCALAR, MP_SCALAR_MUL, x, s, 0.0f);
}

mp_tensor mp_div_scalar(mp_ctx *c, mp_tensor x, float s)
{
    return with_scalar(c, "div", MP_RULE_DIV_SCALAR, MP_SCALAR_DIV, x, s, 0.0f);
}

mp_tensor mp_clip(mp_ctx *c, mp_tensor x, float lo, float hi)
{
    return with_scalar(c, "clip", MP_RULE_CLAMP, MP_SCALAR_CLIP, x, lo, hi);
}

mp_tensor mp_clip_infinite(mp_ctx *c, mp_tensor x)
{
    const float most = (float)mp_dtype_max(MP_F16) - 1000.0f;

    if (mp_failed(c) || x.dtype != MP_F16 || !mp_measure(c, x).inf)
        return mp_failed(c) ? MP_NONE : x;
    return mp_clip(c, x, -most, most);
}

mp_tensor mp_exp(mp_ctx *c, mp_tensor x)
{
    return with_scalar(c, "exp", MP_RULE_EXP, MP_SCALAR_EXP, x, 0.0f, 0.0f);
}

mp_tensor mp_cast(mp_ctx *c, mp_tensor x, mp_dtype d)
{
    if (mp_failed(c))
        return MP_NONE;
    if (x.dtype == d)
        return x;
    const mp_op op = mp_op_begin(c, "cast", NULL);
    c->work.read = mp_nbytes(x);
    return mp_op_end(c, &op, mp_converted(c, x, d));
}

static const struct activation {
    const char *name;
    mp_rule rule;
} activations[] = {
    [MP_ACT_NONE] = {"identity", MP_RULE_MUL},
    [MP_ACT_SILU] = {"silu", MP_RULE_SILU},
    [MP_ACT_RELU] = {"relu", MP_RULE_RELU},
    [MP_ACT_RELU6] = {"relu6", MP_RULE_CLAMP},
    [MP_ACT_GELU] = {"gelu", MP_RULE_GELU},
    [MP_ACT_GELU_TANH] = {"gelu_tanh", MP_RULE_GELU_TANH},
    [MP_ACT_QUICK_GELU] = {"quick_gelu", MP_RULE_MUL_SCALAR}, /* its first op's */
    [MP_ACT_TANH] = {"tanh", MP_RULE_TANH},
    [MP_ACT_SIGMOID] = {"sigmoid", MP_RULE_SIGMOID},
    [MP_ACT_MISH] = {"mish", MP_RULE_MISH},
    [MP_ACT_GELU_NEW] = {"gelu_new", MP_RULE_TANH},
};

bool mp_act_parse(const char *name, mp_act *out)
{
    static const struct {
        const char *name;
        mp_act act;
    } aliases[] = {{"swish", MP_ACT_SILU}, {"gelu_pytorch_tanh", MP_ACT_GELU_TANH}};

    for (size_t i = 1; i < sizeof activations / sizeof *activations; i++)
        if (!strcmp(name, activations[i].name)) {
            *out = (mp_act)i;
            return true;
        }
    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++)
        if (!strcmp(name, aliases[i].name)) {
            *out = aliases[i].act;
            return true;
        }
    return false;
}

static mp_tensor activated(mp_ctx *c, mp_tensor x, mp_act act, bool in_place)
{
    mp_rule_check(c, activations[act].rule, x, x);
    const mp_tensor y = in_place ? x : mp_like(c, x);
    if (!mp_failed(c))
        c->backend->vector.activate(c, act, x, y);
    return y;
}

static mp_tensor activate_into(mp_ctx *c, mp_tensor x, mp_act act, bool in_place)
{
    mp_op op = mp_op_open(activations[act].name, NULL, MP_OPERANDS(&x));
    mp_tensor y = MP_NONE;

    /* A second attempt needs what the first one has read. */
    in_place = in_place && c->policy != MP_FALLBACK;
    while (mp_op_run(c, &op, &y))
        y = activated(c, x, act, in_place);
    return y;
}

mp_tensor mp_activate(mp_ctx *c, mp_tensor x, mp_act act)
{
    return activate_into(c, x, act, false);
}

mp_tensor mp_activate_(mp_ctx *c, mp_tensor x, mp_act act)
{
    return activate_into(c, x, act, true);
}

static mp_tensor where(mp_ctx *c, const uint8_t *mask, mp_tensor a, mp_tensor b)
{
    char as[96], bs[96];

    const mp_dtype dtype = mp_rule_check(c, MP_RULE_WHERE, a, b);
    if (!mp_failed(c) && !mp_same_shape(a, b))
        return mp_fail(c, MP_ESHAPE, NULL, "where: %s and %s", mp_shape_text(a, as, sizeof as),
                       mp_shape_text(b, bs, sizeof bs));
    const mp_tensor y = mp_failed(c) ? MP_NONE : mp_like_as(c, a, dtype);
    if (!mp_failed(c))
        c->backend->vector.where(c, mask, a, b, y);
    return y;
}

mp_tensor mp_where(mp_ctx *c, const uint8_t *mask, mp_tensor a, mp_tensor b)
{
    mp_op op = mp_op_open("where", NULL, MP_OPERANDS(&a, &b));
    mp_tensor y = MP_NONE;

    while (mp_op_run(c, &op, &y))
        y = where(c, mask, a, b);
    return y;
}

static mp_tensor sum(mp_ctx *c, mp_tensor x)
{
    const mp_dtype dtype = mp_rule_check(c, MP_RULE_SUM, x, x);
    const mp_tensor y = mp_failed(c) ? MP_NONE : mp_new(c, dtype, 0, NULL);
    if (!mp_failed(c))
        c->backend->vector.sum(c, x, y);
    return y;
}

mp_tensor mp_sum(mp_ctx *c, mp_tensor x)
{
    mp_op op = mp_op_open("sum", NULL, MP_OPERANDS(&x));
    mp_tensor y = MP_NONE;

    while (mp_op_run(c, &op, &y))
        y = sum(c, x);
    return y;
}

static mp_tensor glu(mp_ctx *c, mp_tensor x, mp_act act)
{
    char xs[96];
    int64_t dims[MP_MAX_RANK];

    mp_rule_check(c, activations[act].rule, x, x);
    mp_rule_check(c, MP_RULE_MUL, x, x);
    if (mp_failed(c))
        return MP_NONE;
    if (x.rank < 1 || mp_dim(x, -1) % 2)
        return mp_fail(c, MP_ESHAPE, NULL, "glu: the last dimension of %s has no two halves",
                       mp_shape_text(x, xs, sizeof xs));
    memcpy(dims, x.dim, sizeof dims);
    const int64_t n = dims[x.rank - 1] /= 2;
    const mp_tensor y = mp_new(c, x.dtype, x.rank, dims);
    if (!mp_failed(c))
        c->backend->vector.gate(c, act, x, n, x, 0, 2 * n, y);
    return y;
}

mp_tensor mp_glu(mp_ctx *c, mp_tensor x, mp_act act)
{
    mp_op op = mp_op_open("glu", NULL, MP_OPERANDS(&x));
    mp_tensor y = MP_NONE;

    while (mp_op_run(c, &op, &y))
        y = glu(c, x, act);
    return y;
}

static mp_tensor gated(mp_ctx *c, mp_tensor g, mp_tensor u, mp_act act)
{
    char gs[96], us[96];

    mp_rule_check(c, activations[act].rule, g, g);
    const mp_dtype dtype = mp_rule_check(c, MP_RULE_MUL, g, u);
    if (mp_failed(c))
        return MP_NONE;
    if (!mp_same_shape(g, u) || g.rank < 1)
        return mp_fail(c, MP_ESHAPE, NULL, "gate: %s and %s", mp_shape_text(g, gs, sizeof gs),
                       mp_shape_text(u, us, sizeof us));
    const mp_tensor y = mp_like_as(c, g, dtype);
    if (!mp_failed(c))
        c->backend->vector.gate(c, act, g, 0, u, 0, mp_dim(g, -1), y);
    return y;
}

mp_tensor mp_gate(mp_ctx *c, mp_tensor g, mp_tensor u, mp_act act)
{
    mp_op op = mp_op_open("gate", NULL, MP_OPERANDS(&g, &u));
    mp_tensor y = MP_NONE;

    while (mp_op_run(c, &op, &y))
        y = gated(c, g, u, act);
    return y;
}

/* A parameter of modulation: one row for each entry of the batch. */
static bool is_row_of(mp_tensor p, mp_tensor x)
{
    return p.rank == 3 && x.rank == 3 && p.dim[0] == x.dim[0] && p.dim[1] == 1 &&
           p.dim[2] == x.dim[2];
}

static mp_tensor modulate(mp_ctx *c, mp_tensor x, mp_tensor shift, mp_tensor scale)
{
    char xs[96], ss[96];

    mp_rule_check(c, MP_RULE_ADD, scale, scale);
    const mp_tensor product = {.dtype = mp_rule_check(c, MP_RULE_MUL, x, scale)};
    const mp_dtype dtype =
        mp_failed(c) ? MP_DTYPE_COUNT : mp_rule_check(c, MP_RULE_ADD, product, shift);
    if (mp_failed(c))
        return MP_NONE;
    if (!is_row_of(shift, x) || !is_row_of(scale, x))
        return mp_fail(c, MP_ESHAPE, NULL, "modulate: %s by %s", mp_shape_text(x, xs, sizeof xs),
                       mp_shape_text(scale, ss, sizeof ss));
    const mp_tensor y = mp_like_as(c, x, dtype);
    if (!mp_failed(c))
        c->backend->vector.modulate(c, x, shift, scale, y);
    return y;
}

mp_tensor mp_modulate(mp_ctx *c, mp_tensor x, mp_tensor shift, mp_tensor scale)
{
    mp_op op = mp_op_open("modulate", NULL, MP_OPERANDS(&x, &shift, &scale));
    mp_tensor y = MP_NONE;

    while (mp_op_run(c, &op, &y))
        y = modulate(c, x, shift, scale);
    return y;
}

static mp_tensor add_gated(mp_ctx *c, mp_tensor x, mp_tensor gate, mp_tensor y)
{
    char xs[96], gs[96];

    const mp_tensor product = {.dtype = mp_rule_check(c, MP_RULE_MUL, gate, y)};
    const mp_dtype dtype =
        mp_failed(c) ? MP_DTYPE_COUNT : mp_rule_check(c, MP_RULE_ADD, x, product);
    if (mp_failed(c))
        return MP_NONE;
    if (!mp_same_shape(x, y) || !is_row_of(gate, x))
        return mp_fail(c, MP_ESHAPE, NULL, "gated addition: %s with a gate of %s",
                       mp_shape_text(x, xs, sizeof xs), mp_shape_text(gate, gs, sizeof gs));
    const mp_tensor out = mp_like_as(c, x, dtype);
    if (!mp_failed(c))
        c->backend->vector.add_gated(c, x, gate, y, out);
    return out;
}

mp_tensor mp_add_gated(mp_ctx *c, mp_tensor x, mp_tensor gate, mp_tensor y)
{
    mp_op op = mp_op_open("add_gated", NULL, MP_OPERANDS(&x, &gate, &y));
    mp_tensor out = MP_NONE;

    while (mp_op_run(c, &op, &out))
        out = add_gated(c, x, gate, y);
    return out;
}
