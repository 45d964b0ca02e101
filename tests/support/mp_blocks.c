#include "tests/support/mp_blocks.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/core/memory.h"
#include "kernels/ops.h"

mp_ctx *mp_blocks_ctx(void)
{
    return mp_test_ctx(NULL, 0);
}

static bool below(const char *module, const char *component, const char *path)
{
    const size_t n = strlen(component), m = strlen(path);

    if (strncmp(module, component, n) || module[n] != '.' || strncmp(module + n + 1, path, m))
        return false;
    return module[n + 1 + m] == '\0' || module[n + 1 + m] == '.';
}

static void keep(mp_block_record *r, const mp_tensor *y)
{
    const int64_t n = mp_numel(*y);

    r->values = mp_realloc(r->values, (size_t)n, sizeof *r->values);
    assert_non_null(r->values);
    mp_widen(y->store, y->data, r->values, n);
    r->shape = *y;
    r->numel = n;
}

static void on_output(void *user, const mp_op_event *event)
{
    mp_blocks *const b = user;

    for (int64_t i = 0; i < b->count; i++)
        if (below(event->module, b->component, b->records[i].golden.name))
            keep(&b->records[i], event->y);
}

/* A module whose output an op can be compared with: floating point, and no input. */
static bool is_module(mp_tensor t)
{
    return t.store != MP_DTYPE_COUNT && strncmp(t.name, "input.", 6) && strcmp(t.name, "output") &&
           strcmp(t.name, "rotary_emb") && !strstr(t.name, "@");
}

void mp_blocks_open(mp_blocks *b, mp_ctx *c, const char *path, const char *component)
{
    *b = (mp_blocks){.ctx = c, .component = component, .file = mp_test_goldens(path)};
    if (!component)
        return;
    const int64_t n = mp_safetensors_count(b->file);
    b->records = mp_alloc((size_t)n, sizeof *b->records);
    assert_non_null(b->records);
    for (int64_t i = 0; i < n; i++) {
        const mp_tensor t = mp_safetensors_at(b->file, i);
        if (is_module(t))
            b->records[b->count++].golden = t;
    }
    assert_true(mp_observe(c, (mp_observer){.output = on_output, .user = b}));
}

void mp_blocks_close(mp_blocks *b)
{
    if (b->component)
        mp_unobserve(b->ctx, (mp_observer){.output = on_output, .user = b});
    for (int64_t i = 0; i < b->count; i++)
        mp_free(b->records[i].values);
    mp_free(b->records);
    mp_safetensors_close(b->file);
}

mp_tensor mp_blocks_tensor(mp_blocks *b, const char *name)
{
    return mp_test_tensor(b->ctx, b->file, "%s", name);
}

mp_tensor mp_blocks_picture(mp_blocks *b, const char *name)
{
    const mp_tensor t = mp_blocks_tensor(b, name);

    return mp_permute(b->ctx, t, (const int[]){0, 2, 3, 1});
}

int64_t mp_blocks_int(const mp_blocks *b, const char *name, int64_t i)
{
    const mp_tensor t = mp_test_golden(b->file, "%s", name);
    int64_t value;

    memcpy(&value, (const char *)t.data + i * 8, sizeof value);
    return value;
}

uint8_t *mp_blocks_mask(const mp_blocks *b, const char *name)
{
    const int64_t n = mp_numel(mp_test_golden(b->file, "%s", name));
    uint8_t *const mask = mp_alloc((size_t)n, 1);

    assert_non_null(mask);
    for (int64_t i = 0; i < n; i++)
        mask[i] = mp_blocks_int(b, name, i) != 0;
    return mask;
}

/* Element i of y in the order of the golden: the same, or channels last against channels first. */
static int64_t turned(mp_tensor y, mp_tensor golden, int64_t i)
{
    if (y.rank != 4 || golden.rank != 4 || mp_same_shape(y, golden))
        return i;
    const int64_t h = y.dim[1], w = y.dim[2], c = y.dim[3];
    const int64_t x = i % w, row = i / w % h, channel = i / (w * h) % c, n = i / (w * h * c);

    return ((n * h + row) * w + x) * c + channel;
}

static double distance(mp_tensor y, const float *values, mp_tensor golden)
{
    const int64_t n = mp_numel(golden);
    float *const a = mp_alloc((size_t)n, sizeof *a), *const g = mp_alloc((size_t)n, sizeof *g);

    assert_non_null(a);
    assert_non_null(g);
    mp_widen(golden.store, golden.data, g, n);
    for (int64_t i = 0; i < n; i++)
        a[i] = values[turned(y, golden, i)];
    const double d = mp_rel_l2(a, g, n);
    mp_free(a);
    mp_free(g);
    return d;
}

double mp_blocks_distance(mp_blocks *b, mp_tensor y, const char *name)
{
    const mp_tensor golden = mp_test_golden(b->file, "%s", name);
    const int64_t n = mp_numel(y);
    float *const values = mp_alloc((size_t)n, sizeof *values);

    if (mp_failed(b->ctx))
        fail_msg("%s: %s", mp_ctx_error(b->ctx)->module, mp_ctx_error(b->ctx)->text);
    assert_non_null(values);
    assert_int_equal(n, mp_numel(golden));
    assert_int_equal(y.dtype, golden.dtype);
    mp_widen(y.store, y.data, values, n);
    const double d = distance(y, values, golden);
    mp_free(values);
    return d;
}

void mp_blocks_check_one(mp_blocks *b, const char *path, double limit)
{
    for (int64_t i = 0; i < b->count; i++) {
        const mp_block_record *const r = &b->records[i];
        if (strcmp(r->golden.name, path))
            continue;
        assert_non_null(r->values);
        const double d = distance(r->shape, r->values, r->golden);
        if (!(d <= limit))
            fail_msg("%s: relative L2 %.3g is over %.3g", path, d, limit);
        return;
    }
    fail_msg("no golden of %s", path);
}

void mp_blocks_check(mp_blocks *b, double limit, int least)
{
    int compared = 0, bad = 0;
    double worst = 0;

    if (mp_failed(b->ctx))
        fail_msg("%s: %s", mp_ctx_error(b->ctx)->module, mp_ctx_error(b->ctx)->text);
    for (int64_t i = 0; i < b->count; i++) {
        const mp_block_record *const r = &b->records[i];
        if (!r->values) {
            print_message("%s: no op belongs to it\n", r->golden.name);
            continue;
        }
        assert_int_equal(r->numel, mp_numel(r->golden));
        const double d = distance(r->shape, r->values, r->golden);
        if (!(d <= limit)) {
            print_message("%s: relative L2 %.3g is over %.3g\n", r->golden.name, d, limit);
            bad++;
        }
        worst = d > worst ? d : worst;
        compared++;
    }
    print_message("%s: %d modules, worst relative L2 %.3g\n", mp_safetensors_path(b->file),
                  compared, worst);
    assert_int_equal(bad, 0);
    assert_true(compared >= least);
}
