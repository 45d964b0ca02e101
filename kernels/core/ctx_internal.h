/* The inside of mp_ctx, for kernels/ only: front ends and devices. */
#ifndef MP_KERNELS_CORE_CTX_INTERNAL_H
#define MP_KERNELS_CORE_CTX_INTERNAL_H

#include "kernels/core/ctx.h"
#include "kernels/core/pool.h"

struct mp_backend;

enum { MP_SCOPE_DEPTH = 16, MP_OBSERVERS = 4 };

struct mp_ctx {
    mp_error err;
    mp_pool *pool;
    mp_policy policy;
    mp_e4m3_overflow e4m3;
    const struct mp_backend *backend; /* the kernels of the chosen device */
    void *device;                     /* the device's own state: threads, scratch */
    char scope[MP_ERROR_MODULE];      /* current module path */
    size_t scope_end[MP_SCOPE_DEPTH]; /* its length before each push */
    int depth;
    mp_observer observers[MP_OBSERVERS];
    int observer_count;
    const char *op;             /* name of the op that runs now, NULL between ops */
    const mp_tensor *op_weight; /* its weight, if one names the module */
};

/* A context with a pool and no device; mp_device_open adds the rest. */
mp_code mp_ctx_create(size_t memory_limit, mp_ctx **out, mp_error *err);
void mp_ctx_free(mp_ctx *c);

/* The frame of every op:
 *
 *     mp_op op = mp_op_begin(c, "linear", &w);       // w: the weight that names the module, or
 * NULL
 *     ... checks with mp_fail, y = mp_new(...) ...
 *     c->backend->product.linear(c, &args);
 *     return mp_op_end(c, &op, y);                   // tells the observers, unless the op failed
 */
typedef struct mp_op {
    const char *name;
    const mp_tensor *weight;
    uint64_t start;
} mp_op;
/* name and *weight live until mp_op_end.  An op that fails may return without mp_op_end. */
mp_op mp_op_begin(mp_ctx *c, const char *name, const mp_tensor *weight);
mp_tensor mp_op_end(mp_ctx *c, const mp_op *op, mp_tensor y);

#endif
