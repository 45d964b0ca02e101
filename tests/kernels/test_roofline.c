/* The roofline: each instruction set has a peak, those that multiply pairs of bf16 have another. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/device.h"
#include "kernels/ops.h"
#include "kernels/roofline.h"
#include "tests/support/mp_test.h"

/* From a slow emulator to any machine that runs this: whoever is outside has counted wrong. */
static void assert_plausible(double rate)
{
    assert_true(rate > 1e7 && rate < 1e16);
}

static void test_roofline__has_the_peaks_of_each_instruction_set(void **state)
{
    (void)state;
    for (const char *const *isa = mp_test_isas(); *isa; isa++) {
        mp_ctx *c = mp_test_ctx(*isa, 2);
        mp_roofline r;
        mp_roofline_measure(c, &r);
        assert_plausible(r.flops);
        assert_plausible(r.copy);
        if (!strcmp(*isa, "amx") || !strcmp(*isa, "avx512bf16"))
            assert_plausible(r.pairs);
        else
            assert_true(r.pairs == 0);
        /* a tile does 16 times a vector's work in about as many cycles: half of that is far above
         * what noise can do */
        assert_true(strcmp(*isa, "amx") || r.pairs > 4 * r.flops);
        mp_test_ok(c);
        mp_device_close(c);
    }
}

static void test_roofline__leaves_the_context_as_it_was(void **state)
{
    mp_ctx *c = mp_test_ctx(NULL, 2);
    const float x[] = {1, 2, 3, 4};
    const mp_tensor a = mp_test_floats(c, MP_BF16, 2, MP_DIMS(2, 2), x);
    mp_roofline r;

    (void)state;
    const mp_tensor y = mp_linear(c, a, a, MP_NONE);
    const uint64_t requests = mp_pool_get(c).requests;
    mp_roofline_measure(c, &r);
    assert_int_equal(mp_pool_get(c).requests, requests);
    mp_test_same(mp_linear(c, a, a, MP_NONE), y);
    mp_device_close(c);
}

static void test_roofline__knows_nothing_of_meta(void **state)
{
    const mp_device_options o = {.device = "meta"};
    mp_error err = {0};
    mp_ctx *c = NULL;
    mp_roofline r = {1, 1, 1};

    (void)state;
    assert_int_equal(mp_device_open(&o, &c, &err), MP_OK);
    mp_roofline_measure(c, &r);
    assert_true(r.flops == 0 && r.pairs == 0 && r.copy == 0);
    mp_device_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_roofline__has_the_peaks_of_each_instruction_set),
        cmocka_unit_test(test_roofline__leaves_the_context_as_it_was),
        cmocka_unit_test(test_roofline__knows_nothing_of_meta),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
