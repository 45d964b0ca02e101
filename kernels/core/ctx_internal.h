/* The inside of mp_ctx, for kernels/ only: front ends and devices. */
#ifndef MP_KERNELS_CORE_CTX_INTERNAL_H
#define MP_KERNELS_CORE_CTX_INTERNAL_H

#include "kernels/core/ctx.h"
#include "kernels/core/pool.h"

struct mp_backend;

enum { MP_SCOPE_DEPTH = 16, MP_OBSERVERS = 8 };

/* What an op has to do, for those who observe it; all zero when it begins. */
typedef struct mp_work {
    uint64_t read;  /* bytes of operands; 0 in the frame of mp_op_open: those it names */
    uint64_t flops; /* kernels/core/ctx.h, mp_op_event */
} mp_work;

struct mp_ctx {
    mp_error err;
    mp_pool *pool;
    struct mp_account *account; /* names of modules that own blocks; NULL: none yet */
    bool accounting;
    mp_policy policy;
    mp_e4m3_overflow e4m3;
    const struct mp_backend *backend;     /* the kernels of the chosen device */
    void *device;                         /* the device's own state: threads, scratch */
    char scope[MP_ERROR_MODULE];          /* current module path */
    size_t scope_end[MP_SCOPE_DEPTH];     /* its length before each push */
    mp_dtype scope_dtype[MP_SCOPE_DEPTH]; /* declared, under negotiate; else none */
    int depth;
    mp_observer observers[MP_OBSERVERS];
    int observer_count;
    const char *op;             /* name of the op that runs now, NULL between ops */
    const mp_tensor *op_weight; /* its weight, if one names the module */
    mp_work work;               /* of that op */
    const mp_dtype_override *declared;
    int declared_count;
    mp_action *actions; /* their modules are owned, their ops are constants */
    int action_count, action_room;
};

/* A context with a pool and no device; mp_device_open adds the rest. */
mp_code mp_ctx_create(size_t memory_limit, mp_ctx **out, mp_error *err);
void mp_ctx_free(mp_ctx *c);

/* The frame of an op that moves elements and computes nothing:
 *
 *     const mp_op op = mp_op_begin(c, "permute", NULL);
 *     ... checks with mp_fail, y = mp_new(...), c->backend->vector.move(...) ...
 *     return mp_op_end(c, &op, y);                   // tells the observers, unless the op failed
 *
 * and of one that computes, which the policy may give other operands, or run twice.  The body must
 * take its operands from the variables that were named:
 *
 *     mp_op op = mp_op_open("linear", &w, MP_OPERANDS(&x, &w, &b));
 *     mp_tensor y = MP_NONE;
 *     while (mp_op_run(c, &op, &y))
 *         y = linear(c, x, w, b);                    // checks, mp_new, the kernel
 *     return y;
 */
enum { MP_OPERANDS_MAX = 6 };

typedef struct mp_op {
    const char *name;
    const mp_tensor *weight; /* whose name is the module's, or NULL */
    uint64_t start;
    mp_tensor *operand[MP_OPERANDS_MAX];
    int operands;
    int attempts;   /* so far */
    mp_mark mark;   /* before all that the policy allocates */
    mp_dtype outer; /* negotiate: of the module around it, when this is a boundary; else none */
    mp_action redo; /* fallback: what the second attempt goes on record as */
} mp_op;

/* name and *weight live until mp_op_end.  An op that fails may return without mp_op_end. */
mp_op mp_op_begin(mp_ctx *c, const char *name, const mp_tensor *weight);
mp_tensor mp_op_end(mp_ctx *c, const mp_op *op, mp_tensor y);

/* kernels/elementwise.c: x in dtype d, without being an op of its own. */
mp_tensor mp_converted(mp_ctx *c, mp_tensor x, mp_dtype d);

/* kernels/policy.c.  operand: NULL at its end. */
mp_op mp_op_open(const char *name, const mp_tensor *weight, mp_tensor *const *operand);
#define MP_OPERANDS(...) ((mp_tensor *const[]){__VA_ARGS__, NULL})
/* True: the body is to run (again).  False: *y is the op's result, MP_NONE if it failed. */
bool mp_op_run(mp_ctx *c, mp_op *op, mp_tensor *y);

/* The module of a parameter is its name without the last part; without a named one, the scope.
 * text [MP_ERROR_MODULE].  Copies and nothing else: a signal handler may call it. */
void mp_module_of(const mp_ctx *c, const mp_tensor *t, char *text);
void mp_pushv(mp_ctx *c, const char *format, va_list args);
/* What was declared of a module; MP_DTYPE_COUNT: nothing. */
mp_dtype mp_declared(const mp_ctx *c, const char *module);
/* Of the scope `up` pushes above the current one; MP_DTYPE_COUNT: none, or outside all. */
mp_dtype mp_scope_dtype(const mp_ctx *c, int up);
/* kernels/core/account.c: the number of the module that runs now; 0: not accounted. */
uint32_t mp_account_module(mp_ctx *c);
void mp_account_free(struct mp_account *a);
/* Adds to the record; a->op must be a constant. */
void mp_act_on_record(mp_ctx *c, const mp_action *a);

#endif
