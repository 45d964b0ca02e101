/* What observers are told of an op: its work, its time, the pool, and the modules around it; the
 * same on the CPU and, but for the time, on the device "meta". */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/device.h"
#include "kernels/ops.h"
#include "tests/support/mp_test.h"

typedef struct seen {
    mp_op_event last;
    char op[32], module[MP_ERROR_MODULE], scopes[256];
    mp_dtype dtype;
    int count;
} seen;

static void on_output(void *user, const mp_op_event *event)
{
    seen *s = user;

    s->last = *event;
    s->dtype = event->y->dtype;
    strcpy(s->op, event->op);
    strcpy(s->module, event->module);
    s->count++;
}

static void on_scope(void *user, const char *name, bool entered)
{
    seen *s = user;

    strcat(strcat(s->scopes, entered ? "+" : "-"), name);
}

static mp_ctx *open_on(const char *device, mp_policy policy, seen *s)
{
    const mp_device_options o = {.device = device, .threads = 2, .policy = policy};
    mp_error err = {0};
    mp_ctx *c = NULL;

    if (mp_device_open(&o, &c, &err))
        fail_msg("%s", err.text);
    assert_true(mp_observe(c, (mp_observer){.output = on_output, .user = s, .scope = on_scope}));
    return c;
}

static mp_tensor zeros(mp_ctx *c, mp_dtype d, int rank, const int64_t *dims)
{
    mp_tensor t = mp_new(c, d, rank, dims);

    memset(t.data, 0, mp_nbytes(t));
    return t;
}

/* ---- work ------------------------------------------------------------------------------------ */

enum { F32 = 4, BF16 = 2, F8 = 1 };

static mp_tensor run_linear(mp_ctx *c)
{
    mp_tensor w = zeros(c, MP_F8_E4M3, 2, MP_DIMS(7, 5)); /* fp8 storage under a bf16 module */

    w.dtype = MP_BF16;
    return mp_linear(c, zeros(c, MP_BF16, 3, MP_DIMS(2, 3, 5)), w,
                     zeros(c, MP_BF16, 1, MP_DIMS(7)));
}

static mp_tensor run_matmul(mp_ctx *c)
{
    return mp_matmul(c, zeros(c, MP_F32, 3, MP_DIMS(2, 3, 5)),
                     zeros(c, MP_F32, 3, MP_DIMS(2, 5, 7)));
}

static mp_tensor run_conv2d(mp_ctx *c)
{
    return mp_conv2d(c, zeros(c, MP_BF16, 4, MP_DIMS(1, 8, 6, 4)),
                     zeros(c, MP_BF16, 4, MP_DIMS(6, 2, 3, 3)), MP_NONE,
                     (mp_conv2d_opts){.stride = 2, .padding = 1, .groups = 2});
}

static mp_tensor run_conv3d(mp_ctx *c)
{
    return mp_conv3d(c, zeros(c, MP_BF16, 5, MP_DIMS(1, 5, 8, 6, 4)),
                     zeros(c, MP_BF16, 5, MP_DIMS(6, 2, 3, 3, 3)), MP_NONE,
                     (mp_conv3d_opts){.time_stride = 2, .stride = 2, .padding = 1, .groups = 2});
}

static mp_tensor run_attn_softmax(mp_ctx *c)
{
    const mp_tensor kv = zeros(c, MP_F32, 3, MP_DIMS(2, 5, 4));

    return mp_attn_softmax(c, zeros(c, MP_F32, 3, MP_DIMS(2, 3, 8)), kv, kv,
                           (mp_attn_opts){.heads = 4, .kv_heads = 2});
}

static mp_tensor run_attn_linear(mp_ctx *c)
{
    const mp_tensor x = zeros(c, MP_F32, 3, MP_DIMS(2, 3, 8));

    return mp_attn_linear(c, x, x, x, 2, 1e-15f);
}

static mp_tensor run_multiscale_linear(mp_ctx *c)
{
    return mp_attn_multiscale_linear(c, zeros(c, MP_F32, 4, MP_DIMS(1, 2, 3, 24)), 4, 1e-15f);
}

static mp_tensor run_multiscale_quadratic(mp_ctx *c)
{
    return mp_attn_multiscale_quadratic(c, zeros(c, MP_F32, 4, MP_DIMS(1, 2, 3, 24)), 4, 1e-15f,
                                        false);
}

static mp_tensor run_add(mp_ctx *c)
{
    return mp_add(c, zeros(c, MP_BF16, 2, MP_DIMS(3, 5)), zeros(c, MP_F32, 1, MP_DIMS(5)));
}

static mp_tensor run_cast(mp_ctx *c)
{
    return mp_cast(c, zeros(c, MP_F32, 2, MP_DIMS(3, 5)), MP_BF16);
}

static mp_tensor run_embedding(mp_ctx *c)
{
    return mp_embedding(c, (const int32_t[]){3, 1}, 2, zeros(c, MP_BF16, 2, MP_DIMS(100, 5)));
}

static mp_tensor run_cat(mp_ctx *c)
{
    const mp_tensor xs[] = {zeros(c, MP_F32, 2, MP_DIMS(3, 5)),
                            zeros(c, MP_BF16, 2, MP_DIMS(3, 2))};

    return mp_cat(c, 2, xs, 1);
}

static mp_tensor run_narrow(mp_ctx *c)
{
    return mp_narrow_axis(c, zeros(c, MP_F32, 2, MP_DIMS(3, 50)), 1, 7, 2);
}

static mp_tensor run_upsample(mp_ctx *c)
{
    return mp_upsample_nearest2(c, zeros(c, MP_F32, 4, MP_DIMS(1, 2, 3, 5)));
}

static mp_tensor run_pad(mp_ctx *c)
{
    return mp_pad_hw(c, zeros(c, MP_F32, 4, MP_DIMS(1, 2, 3, 5)), 1, 1);
}

static mp_tensor run_mean_channels(mp_ctx *c)
{
    return mp_mean_channels(c, zeros(c, MP_F32, 2, MP_DIMS(3, 8)), 4);
}

static mp_tensor run_resize(mp_ctx *c)
{
    return mp_resize_bilinear(c, zeros(c, MP_F32, 4, MP_DIMS(1, 2, 3, 5)), 4, 4);
}

/* flops by the definition beside mp_op_event; bytes by the sizes of operands and result. */
static const struct work {
    const char *op;
    mp_tensor (*run)(mp_ctx *c);
    mp_dtype dtype;
    uint64_t flops, bytes;
} works[] = {
    {"linear", run_linear, MP_BF16, 2 * 6 * 7 * 5, BF16 *(30 + 7 + 42) + F8 * 35},
    {"matmul", run_matmul, MP_F32, 2 * 2 * 3 * 7 * 5, F32 *(30 + 70 + 42)},
    {"conv2d", run_conv2d, MP_BF16, 2 * (4 * 3 * 6) * (2 * 9), BF16 *(192 + 108 + 72)},
    {"conv3d", run_conv3d, MP_BF16, 2 * (2 * 4 * 3 * 6) * (2 * 27), BF16 *(960 + 324 + 144)},
    {"attn_softmax", run_attn_softmax, MP_F32, 4 * (2 * 4) * 3 * 5 * 2, F32 *(48 + 2 * 40 + 48)},
    {"attn_linear", run_attn_linear, MP_F32, 4 * (2 * 2) * 3 * 4 * 5, F32 * 4 * 48},
    {"attn_multiscale_linear", run_multiscale_linear, MP_F32, 4 * 2 * 6 * 4 * 5, F32 *(144 + 48)},
    {"attn_multiscale_quadratic", run_multiscale_quadratic, MP_F32, 4 * 2 * 6 * 6 * 4,
     F32 *(144 + 48)},
    {"add", run_add, MP_F32, 0, BF16 * 15 + F32 *(5 + 15)},
    {"cast", run_cast, MP_BF16, 0, F32 * 15 + BF16 * 15},
    {"embedding", run_embedding, MP_BF16, 0, BF16 * 2 * 10},
    {"cat", run_cat, MP_F32, 0, F32 *(15 + 21) + BF16 * 6},
    {"narrow", run_narrow, MP_F32, 0, F32 * 2 * 6},
    {"upsample_nearest", run_upsample, MP_F32, 0, F32 * 5 * 30},
    {"pad", run_pad, MP_F32, 0, F32 *(30 + 60)},
    {"mean_channels", run_mean_channels, MP_F32, 0, F32 *(24 + 6)},
    {"resize_bilinear", run_resize, MP_F32, 0, F32 *(30 + 80)},
};

static void check_works(const char *device, mp_policy policy)
{
    for (size_t i = 0; i < sizeof works / sizeof *works; i++) {
        seen s = {0};
        mp_ctx *c = open_on(device, policy, &s);
        works[i].run(c);
        mp_test_ok(c);
        assert_int_equal(s.count, 1);
        assert_string_equal(s.op, works[i].op);
        assert_int_equal(s.dtype, works[i].dtype);
        if (s.last.flops != works[i].flops || s.last.bytes != works[i].bytes)
            fail_msg("%s on %s: %llu FLOPs and %llu bytes, expected %llu and %llu", s.op, device,
                     (unsigned long long)s.last.flops, (unsigned long long)s.last.bytes,
                     (unsigned long long)works[i].flops, (unsigned long long)works[i].bytes);
        mp_device_close(c);
    }
}

static void test_event__tells_flops_and_bytes_of_each_kind_of_op(void **state)
{
    (void)state;
    check_works("cpu", MP_STRICT);
    check_works("cpu", MP_FALLBACK);
}

static void test_event__tells_the_same_of_a_rehearsal(void **state)
{
    (void)state;
    check_works("meta", MP_STRICT);
}

/* Called fp32, the operands stay what they are in memory; the result goes back to bf16. */
static void test_event__counts_an_op_that_was_done_again_once(void **state)
{
    seen s = {0};
    mp_ctx *c = open_on("cpu", MP_FALLBACK, &s);

    (void)state;
    mp_linear(c, zeros(c, MP_BF16, 2, MP_DIMS(2, 5)), zeros(c, MP_F16, 2, MP_DIMS(7, 5)), MP_NONE);
    mp_test_ok(c);
    assert_int_equal(mp_action_count(c), 1);
    assert_int_equal(s.last.flops, 2 * 2 * 7 * 5);
    assert_int_equal(s.last.bytes, 2 * (2 * 5 + 7 * 5) + 2 * 2 * 7);
    mp_device_close(c);
}

/* ---- time and memory ------------------------------------------------------------------------- */

static void test_event__ops_follow_each_other(void **state)
{
    seen s = {0};
    mp_ctx *c = open_on("cpu", MP_STRICT, &s);
    const uint64_t before = mp_now_ns();
    mp_tensor x = zeros(c, MP_F32, 1, MP_DIMS(1000));
    uint64_t last = before;

    (void)state;
    for (int i = 0; i < 10; i++) {
        x = mp_add_scalar(c, x, 1);
        assert_true(s.last.start >= last);
        last = s.last.start + s.last.ns;
    }
    assert_true(last <= mp_now_ns());
    mp_device_close(c);
}

static void test_event__the_highest_peak_is_the_pools(void **state)
{
    enum { BLOCK = 1024 * 4 };
    seen s = {0};
    mp_ctx *c = open_on("cpu", MP_STRICT, &s);
    const mp_tensor x = zeros(c, MP_F32, 1, MP_DIMS(1024));

    (void)state;
    const mp_mark mark = mp_open(c);
    zeros(c, MP_F32, 1, MP_DIMS(1024)); /* outside ops, and gone before the next one */
    zeros(c, MP_F32, 1, MP_DIMS(1024));
    mp_drop(c, mark);
    mp_tensor y = mp_add_scalar(c, x, 1);
    assert_int_equal(s.last.live, 2 * BLOCK);
    assert_int_equal(s.last.peak, 3 * BLOCK);
    assert_int_equal(s.last.peak, mp_pool_get(c).peak);
    y = mp_add_scalar(c, y, 1);
    assert_int_equal(s.last.live, 3 * BLOCK);
    assert_int_equal(s.last.peak, 3 * BLOCK);
    mp_drop(c, mark);
    mp_add_scalar(c, x, 1);
    assert_int_equal(s.last.peak, 3 * BLOCK); /* just before the drop */
    assert_int_equal(s.last.live, 2 * BLOCK);
    mp_device_close(c);
}

/* ---- modules --------------------------------------------------------------------------------- */

static void test_event__scopes_are_told_as_they_are_entered_and_left(void **state)
{
    seen s = {0};
    mp_ctx *c = open_on("meta", MP_STRICT, &s);

    (void)state;
    mp_push(c, "net");
    mp_tensor x = mp_enter(c, zeros(c, MP_F32, 1, MP_DIMS(4)), "blocks.%d", 3);
    mp_leave(c, x);
    mp_pop(c);
    assert_string_equal(s.scopes, "+net+blocks.3-blocks.3-net");
    mp_device_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_event__tells_flops_and_bytes_of_each_kind_of_op),
        cmocka_unit_test(test_event__tells_the_same_of_a_rehearsal),
        cmocka_unit_test(test_event__counts_an_op_that_was_done_again_once),
        cmocka_unit_test(test_event__ops_follow_each_other),
        cmocka_unit_test(test_event__the_highest_peak_is_the_pools),
        cmocka_unit_test(test_event__scopes_are_told_as_they_are_entered_and_left),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
