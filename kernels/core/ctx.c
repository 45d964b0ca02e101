#include "kernels/core/ctx.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "kernels/core/ctx_internal.h"
#include "kernels/core/memory.h"

mp_code mp_ctx_create(size_t memory_limit, mp_ctx **out, mp_error *err)
{
    mp_ctx *c = mp_alloc(1, sizeof *c);

    if (!c)
        return mp_error_set(err, MP_ENOMEM, "no memory for a context");
    const mp_code code = mp_pool_create(memory_limit, &c->pool, err);
    if (code) {
        mp_free(c);
        return code;
    }
    *out = c;
    return MP_OK;
}

void mp_ctx_free(mp_ctx *c)
{
    if (!c)
        return;
    mp_action_clear(c);
    mp_free(c->actions);
    mp_account_free(c->account);
    mp_pool_free(c->pool);
    mp_free(c);
}

bool mp_failed(const mp_ctx *c)
{
    return c->err.code != MP_OK;
}

const mp_error *mp_ctx_error(const mp_ctx *c)
{
    return &c->err;
}

void mp_ctx_clear(mp_ctx *c)
{
    memset(&c->err, 0, sizeof c->err);
    c->op = NULL;
    c->op_weight = NULL;
    c->depth = 0;
    c->scope[0] = '\0';
}

void mp_module_of(const mp_ctx *c, const mp_tensor *t, char *text)
{
    const char *name = t && t->name ? t->name : NULL;
    const char *dot = name ? strrchr(name, '.') : NULL;
    const char *from = dot ? name : c->scope;
    size_t n = dot ? (size_t)(dot - name) : strlen(c->scope);

    if (n >= MP_ERROR_MODULE)
        n = MP_ERROR_MODULE - 1;
    memcpy(text, from, n);
    text[n] = '\0';
}

void mp_place(const mp_ctx *c, char *module, char *op)
{
    const char *name = c->op ? c->op : "";
    size_t n = strlen(name);

    if (n >= MP_ERROR_OP)
        n = MP_ERROR_OP - 1;
    memcpy(op, name, n);
    op[n] = '\0';
    mp_module_of(c, c->op_weight, module);
}

mp_tensor mp_fail(mp_ctx *c, mp_code code, const mp_tensor *t, const char *format, ...)
{
    va_list args;

    if (mp_failed(c))
        return MP_NONE;
    mp_module_of(c, t && t->name ? t : c->op_weight, c->err.module);
    snprintf(c->err.op, sizeof c->err.op, "%s", c->op ? c->op : "");
    va_start(args, format);
    mp_error_setv(&c->err, code, format, args);
    va_end(args);
    return MP_NONE;
}

/* Of the innermost scope. */
static void tell_scope(const mp_ctx *c, bool entered)
{
    const char *name = c->scope + c->scope_end[c->depth - 1];

    for (int i = 0; i < c->observer_count; i++)
        if (c->observers[i].scope)
            c->observers[i].scope(c->observers[i].user, name + (*name == '.'), entered);
}

void mp_pushv(mp_ctx *c, const char *format, va_list args)
{
    const size_t before = strlen(c->scope);
    size_t at = before;

    assert(c->depth < MP_SCOPE_DEPTH);
    c->scope_end[c->depth++] = before;
    if (at && at + 1 < sizeof c->scope)
        c->scope[at++] = '.';
    vsnprintf(c->scope + at, sizeof c->scope - at, format, args);
    c->scope_dtype[c->depth - 1] =
        c->policy == MP_NEGOTIATE ? mp_declared(c, c->scope) : MP_DTYPE_COUNT;
    tell_scope(c, true);
}

void mp_push(mp_ctx *c, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    mp_pushv(c, format, args);
    va_end(args);
}

void mp_pop(mp_ctx *c)
{
    assert(c->depth > 0);
    tell_scope(c, false);
    c->scope[c->scope_end[--c->depth]] = '\0';
}

mp_dtype mp_scope_dtype(const mp_ctx *c, int up)
{
    return c->depth > up ? c->scope_dtype[c->depth - 1 - up] : MP_DTYPE_COUNT;
}

const char *mp_module(const mp_ctx *c)
{
    return c->scope;
}

/* Elements of a shape, -1 when the product or its bytes overflow. */
static int64_t checked_numel(mp_dtype dtype, int rank, const int64_t *dims)
{
    size_t n = mp_dtype_size(dtype);

    for (int i = 0; i < rank; i++)
        if (dims[i] < 0 || !mp_mul_size(n, (size_t)dims[i], &n) || n > INT64_MAX)
            return -1;
    return (int64_t)(n / mp_dtype_size(dtype));
}

mp_tensor mp_new(mp_ctx *c, mp_dtype dtype, int rank, const int64_t *dims)
{
    if (mp_failed(c))
        return MP_NONE;
    mp_tensor t = mp_view(NULL, dtype, rank, dims);
    char shape[128];
    if (checked_numel(dtype, rank, dims) < 0)
        return mp_fail(c, MP_ESHAPE, NULL, "no tensor can have the shape %s",
                       mp_shape_text(t, shape, sizeof shape));
    t.data = mp_pool_alloc(c->pool, mp_nbytes(t), mp_account_module(c));
    if (!t.data) {
        const mp_pool_stats s = mp_pool_stats_of(c->pool);
        return mp_fail(c, MP_ENOMEM, NULL,
                       "no memory for %s %s: %.1f MiB wanted, %.1f MiB in use, limit %.1f MiB",
                       mp_dtype_name(dtype), mp_shape_text(t, shape, sizeof shape),
                       (double)mp_nbytes(t) / 1048576, (double)s.live / 1048576,
                       (double)s.limit / 1048576);
    }
    return t;
}

mp_tensor mp_like_as(mp_ctx *c, mp_tensor x, mp_dtype d)
{
    return mp_new(c, d, x.rank, x.dim);
}

mp_tensor mp_like(mp_ctx *c, mp_tensor x)
{
    return mp_like_as(c, x, x.dtype);
}

mp_mark mp_open(mp_ctx *c)
{
    return (mp_mark){mp_pool_serial(c->pool)};
}

mp_tensor mp_keep(mp_ctx *c, mp_mark mark, mp_tensor x)
{
    mp_pool_release(c->pool, mark.serial, &x.data, 1);
    return x;
}

void mp_keep_all(mp_ctx *c, mp_mark mark, int n, const mp_tensor *xs)
{
    void *keep[8];

    assert(n <= 8);
    for (int i = 0; i < n; i++)
        keep[i] = xs[i].data;
    mp_pool_release(c->pool, mark.serial, keep, n);
}

void mp_drop(mp_ctx *c, mp_mark mark)
{
    mp_pool_release(c->pool, mark.serial, NULL, 0);
}

void mp_trim(mp_ctx *c)
{
    mp_pool_trim(c->pool);
}

mp_pool_stats mp_pool_get(const mp_ctx *c)
{
    return mp_pool_stats_of(c->pool);
}

void mp_pool_reset_peak(mp_ctx *c)
{
    mp_pool_restart_peak(c->pool);
}

bool mp_observe(mp_ctx *c, mp_observer o)
{
    if (c->observer_count == MP_OBSERVERS)
        return false;
    c->observers[c->observer_count++] = o;
    return true;
}

void mp_unobserve(mp_ctx *c, mp_observer o)
{
    for (int i = 0; i < c->observer_count; i++)
        if (c->observers[i].output == o.output && c->observers[i].user == o.user) {
            c->observers[i] = c->observers[--c->observer_count];
            return;
        }
}

uint64_t mp_now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

mp_op mp_op_begin(mp_ctx *c, const char *name, const mp_tensor *weight)
{
    if (!mp_failed(c)) {
        c->op = name;
        c->op_weight = weight;
        c->work = (mp_work){0};
    }
    return (mp_op){.name = name, .weight = weight, .start = c->observer_count ? mp_now_ns() : 0};
}

static void tell_output(mp_ctx *c, const mp_op *op, const mp_tensor *y)
{
    char module[MP_ERROR_MODULE];
    const uint64_t end = mp_now_ns();
    const mp_pool_stats pool = mp_pool_stats_of(c->pool);
    const mp_op_event event = {.op = op->name,
                               .module = module,
                               .y = y,
                               .start = op->start,
                               .ns = end - op->start,
                               .bytes = c->work.read + mp_nbytes(*y),
                               .flops = c->work.flops,
                               .live = pool.live,
                               .peak = pool.recent};

    mp_module_of(c, op->weight, module);
    mp_pool_restart_recent(c->pool);
    for (int i = 0; i < c->observer_count; i++)
        c->observers[i].output(c->observers[i].user, &event);
}

mp_tensor mp_op_end(mp_ctx *c, const mp_op *op, mp_tensor y)
{
    if (mp_failed(c))
        return MP_NONE;
    if (c->observer_count)
        tell_output(c, op, &y);
    c->op = NULL;
    c->op_weight = NULL;
    return mp_failed(c) ? MP_NONE : y;
}
