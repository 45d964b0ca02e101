/* The context of one computation on one device: error, pool of activations, module scope, policy,
 * observers.  Made by mp_device_open (kernels/device.h); not shared between threads.
 *
 * Sticky: after the first failure every op returns at once, so a forward has no `if` between its
 * equations and its caller asks mp_failed once a block.
 *
 * Memory: mp_open marks the pool, mp_keep gives back everything allocated since, except what it is
 * told to keep.  One scope an equation:
 *
 *     mp_mark m = mp_open(c);
 *     mp_tensor u = mp_silu(c, mp_linear(c, x, p->w1, p->b1));
 *     x = mp_keep(c, m, mp_add(c, x, mp_linear(c, u, p->w2, p->b2)));
 */
#ifndef MP_KERNELS_CORE_CTX_H
#define MP_KERNELS_CORE_CTX_H

#include "kernels/core/convert.h"
#include "kernels/core/policy.h"
#include "kernels/core/status.h"
#include "kernels/core/tensor.h"

typedef struct mp_ctx mp_ctx;

/* --- failure ------------------------------------------------------------------------------- */

bool mp_failed(const mp_ctx *c);
const mp_error *mp_ctx_error(const mp_ctx *c);
/* Keeps the first failure, with the module path and op of this moment; returns an empty tensor.
 * t, when it is a named weight, makes the module path exact; NULL is fine. */
mp_tensor mp_fail(mp_ctx *c, mp_code code, const mp_tensor *t, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* Forgets the failure: for an engine that goes on with the next cell. */
void mp_ctx_clear(mp_ctx *c);

/* --- module scope -------------------------------------------------------------------------- */

/* Pushes one or more dotted components ("transformer", "transformer_blocks.3", "attn1").  Paths
 * equal the checkpoint's parameter names without their last component. */
void mp_push(mp_ctx *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
void mp_pop(mp_ctx *c);
const char *mp_module(const mp_ctx *c);
/* Module and op that run at this moment ("" between ops), into module [MP_ERROR_MODULE] and op
 * [MP_ERROR_OP].  A signal handler may call it. */
void mp_place(const mp_ctx *c, char *module, char *op);

/* --- policy -------------------------------------------------------------------------------- */

/* The dtypes that modules are to compute in, for the policy negotiate: the last entry counts that
 * matches a module's path.  The list must live as long as the context; NULL: none. */
void mp_declare(mp_ctx *c, const mp_dtype_override *list, int count);
/* A module with a forward of its own takes its inputs and gives its outputs: under negotiate, an
 * input comes in the dtype of the module that was pushed last, and an output goes, before its
 * mp_pop, in that of the module around it.  A component's outputs stay in the component's dtype.
 * Under the other policies both return the tensor as it is. */
mp_tensor mp_take(mp_ctx *c, mp_tensor x);
mp_tensor mp_give(mp_ctx *c, mp_tensor y);
/* Of a module with one input and one output: mp_push and mp_take, mp_give and mp_pop.
 *
 *     x = mp_enter(c, x, "mlp");
 *     x = mp_linear(c, ...);
 *     return mp_leave(c, x);
 *
 * A mark whose mp_keep is to spare the entered x is opened after mp_enter. */
mp_tensor mp_enter(mp_ctx *c, mp_tensor x, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
mp_tensor mp_leave(mp_ctx *c, mp_tensor y);

/* What the policy did since the last mp_action_clear, in the order of first occurrence. */
int mp_action_count(const mp_ctx *c);
const mp_action *mp_action_at(const mp_ctx *c, int i); /* valid until the next op */
void mp_action_clear(mp_ctx *c);

/* --- activations --------------------------------------------------------------------------- */

typedef struct mp_mark {
    uint64_t serial;
} mp_mark;

/* A new tensor in the pool, content undefined.  Fails with MP_ENOMEM at the context's limit. */
mp_tensor mp_new(mp_ctx *c, mp_dtype dtype, int rank, const int64_t *dims);
mp_tensor mp_like(mp_ctx *c, mp_tensor x);                /* shape and dtype of x */
mp_tensor mp_like_as(mp_ctx *c, mp_tensor x, mp_dtype d); /* shape of x */
mp_mark mp_open(mp_ctx *c);
/* Frees every block allocated since mark but the one that holds x; x stays where it is.  When x
 * lies outside (a weight, an older block), everything since mark is freed. */
mp_tensor mp_keep(mp_ctx *c, mp_mark mark, mp_tensor x);
/* The same for up to eight tensors. */
void mp_keep_all(mp_ctx *c, mp_mark mark, int n, const mp_tensor *xs);
void mp_drop(mp_ctx *c, mp_mark mark);
/* Gives all unused pages back to the system, when a stage is over.  Without it, those that go
 * beyond the peak go back, but for a sixteenth of it. */
void mp_trim(mp_ctx *c);

typedef struct mp_pool_stats {
    size_t live;       /* bytes in use now */
    size_t peak;       /* most bytes in use since the last mp_pool_reset_peak */
    size_t recent;     /* most bytes in use since the last op that was observed, with it */
    size_t limit;      /* 0: none */
    uint64_t requests; /* blocks handed out since the context was made */
} mp_pool_stats;
mp_pool_stats mp_pool_get(const mp_ctx *c);
void mp_pool_reset_peak(mp_ctx *c); /* peak = live: the start of a stage */

/* Whether each new block remembers the module that asks for it; false: no memory for that. */
bool mp_account(mp_ctx *c, bool on);
typedef struct mp_share {
    const char *module; /* the context's; "": outside of all modules, or not accounted */
    size_t bytes;
} mp_share;
/* What was in use when the pool was last at its peak, by module, the largest first; how many. */
int mp_peak_shares(const mp_ctx *c, mp_share *out, int room);

/* --- observers ----------------------------------------------------------------------------- */

typedef struct mp_op_event {
    const char *op;     /* "linear" */
    const char *module; /* "transformer.transformer_blocks.0.attn1.to_q" */
    const mp_tensor *y; /* the op's output, valid during the call only */
    uint64_t start, ns; /* when it began (mp_now_ns) and how long it took, with a second attempt */
    uint64_t bytes;     /* operands, each read once, and result, as they lie in memory */
    /* Of products, a multiplication and an addition being two: linear and matmul 2 M N K, conv2d
     * and conv3d 2 kt kh kw C/groups for each element of the result, attention 4 queries keys d for
     * each head, linear attention 4 tokens d (d + 1).  All other ops have 0: what bounds them is
     * their bytes. */
    uint64_t flops;
    size_t live, peak; /* bytes of the pool: in use now, and most in use since the op before */
} mp_op_event;

typedef struct mp_observer {
    void (*output)(void *user, const mp_op_event *event);
    void *user;
    /* A module is entered or left; name: what its path adds to that of the module around it.  NULL:
     * not asked for. */
    void (*scope)(void *user, const char *name, bool entered);
} mp_observer;

/* CLOCK_MONOTONIC, in nanoseconds. */
uint64_t mp_now_ns(void);

/* Up to eight; ops measure time and call them only while there is one. */
bool mp_observe(mp_ctx *c, mp_observer o);
void mp_unobserve(mp_ctx *c, mp_observer o);

#endif
