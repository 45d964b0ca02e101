/* Goldens: goldens/sana/blocks/text_encoder.*, made by tests/fixtures/make_sana.py (transformers
 * 5.23, torch 2.15, CPU).  24 tokens of which 4 are padding, a sliding window of 16 in the first
 * layer, grouped queries and a low softcap. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "kernels/core/memory.h"
#include "kernels/device.h"
#include "pipelines/sana/gemma2.h"
#include "tests/support/mp_blocks.h"

enum { TOKENS = 24, MODULES = 29 };

static mp_gemma2 *open_encoder(mp_dtype dtype)
{
    const mp_weights_options o = {
        .component = "text_encoder", .stem = "model", .dtype = dtype, .storage = MP_DTYPE_COUNT};
    mp_error err = {0};
    mp_gemma2 *m = NULL;

    if (mp_gemma2_open(MP_FIXTURES "/checkpoints/sana-tiny/text_encoder", &o, &m, &err))
        fail_msg("%s", err.text);
    return m;
}

static void compare(const char *golden, mp_dtype dtype, double limit)
{
    mp_ctx *const c = mp_blocks_ctx();
    mp_gemma2 *const m = open_encoder(dtype);
    mp_blocks b;
    int32_t ids[TOKENS];

    mp_blocks_open(&b, c, golden, "text_encoder");
    for (int i = 0; i < TOKENS; i++)
        ids[i] = (int32_t)mp_blocks_int(&b, "input.input_ids", i);
    uint8_t *const mask = mp_blocks_mask(&b, "input.attention_mask");
    mp_gemma2_forward(c, m, ids, mask, TOKENS);
    mp_blocks_check(&b, limit, MODULES);
    mp_free(mask);
    mp_blocks_close(&b);
    mp_gemma2_close(m);
    mp_device_close(c);
}

/* fp32 differs from torch in the order of sums only: about sqrt(80) roundings of 2^-24 in the
 * longest, through some ten ops on the way, is 5e-7; 2e-6 leaves a factor of four. */
static void test_gemma2__equals_transformers_module_by_module_in_fp32(void **state)
{
    (void)state;
    compare("goldens/sana/blocks/text_encoder.fp32.safetensors", MP_F32, 2e-6);
}

/* bf16 rounds at the same points, so that most values are the same bits; where a sum falls on the
 * other side of a tie, a value moves by 2^-8 and what follows with it.  A rounding point left out
 * or added moves nearly all values by up to 2^-9: 2e-3 in the mean.  The limit lies between. */
static void test_gemma2__rounds_where_transformers_rounds_in_bf16(void **state)
{
    (void)state;
    compare("goldens/sana/blocks/text_encoder.bf16.safetensors", MP_BF16, 1.5e-3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gemma2__equals_transformers_module_by_module_in_fp32),
        cmocka_unit_test(test_gemma2__rounds_where_transformers_rounds_in_bf16),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
