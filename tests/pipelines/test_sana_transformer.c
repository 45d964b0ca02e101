/* Goldens: goldens/sana/blocks/transformer.* and goldens/sana/variants/transformer_*, made by
 * tests/fixtures/make_sana.py (Diffusers 0.42, torch 2.15, CPU). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/core/memory.h"
#include "kernels/device.h"
#include "kernels/ops.h"
#include "pipelines/sana/transformer.h"
#include "tests/support/mp_blocks.h"

#define VARIANTS "goldens/sana/variants/"

static mp_sana_transformer *open_transformer(const char *folder, mp_dtype dtype)
{
    const mp_weights_options o = {.component = "transformer",
                                  .stem = "diffusion_pytorch_model",
                                  .dtype = dtype,
                                  .storage = MP_DTYPE_COUNT};
    char dir[512];
    mp_error err = {0};
    mp_sana_transformer *m = NULL;

    snprintf(dir, sizeof dir, "%s/%s", MP_FIXTURES, folder);
    if (mp_sana_transformer_open(dir, &o, &m, &err))
        fail_msg("%s", err.text);
    return m;
}

/* The forward of a golden's inputs; names begin with `prefix`. */
static mp_tensor forward(mp_blocks *b, const mp_sana_transformer *m, const char *prefix)
{
    char name[64];
    float timestep[2], guidance[2];
    const bool guided = mp_sana_transformer_config(m)->guidance_embeds;

    snprintf(name, sizeof name, "%sinput.hidden_states", prefix);
    const mp_tensor x = mp_blocks_picture(b, name);
    snprintf(name, sizeof name, "%sinput.encoder_hidden_states", prefix);
    const mp_tensor text = mp_blocks_tensor(b, name);
    snprintf(name, sizeof name, "%sinput.encoder_attention_mask", prefix);
    uint8_t *const mask = mp_blocks_mask(b, name);
    snprintf(name, sizeof name, "%sinput.timestep", prefix);
    for (int i = 0; i < 2; i++)
        timestep[i] = (float)mp_blocks_int(b, name, i);
    snprintf(name, sizeof name, "%sinput.guidance", prefix);
    if (guided)
        memcpy(guidance, mp_blocks_tensor(b, name).data, sizeof guidance);
    const mp_tensor y =
        mp_sana_transformer_forward(b->ctx, m, x, text, mask, timestep, guided ? guidance : NULL);
    mp_free(mask);
    return y;
}

static void compare(const char *golden, mp_dtype dtype, double limit, int modules,
                    const char *const *strict)
{
    mp_ctx *const c = mp_blocks_ctx();
    mp_sana_transformer *const m = open_transformer("checkpoints/sana-tiny/transformer", dtype);
    mp_blocks b;

    mp_blocks_open(&b, c, golden, "transformer");
    const mp_tensor y = forward(&b, m, "");
    mp_blocks_check(&b, limit, modules);
    for (; strict && *strict; strict++)
        mp_blocks_check_one(&b, *strict, 3e-4);
    assert_true(mp_blocks_distance(&b, y, "output") <= limit);
    mp_blocks_close(&b);
    mp_sana_transformer_close(m);
    mp_device_close(c);
}

/* As in test_gemma2.c, and one thing more: torch's exp of the time embedding's frequencies is one
 * ulp off in places, and 937 times that is 3e-5 in one of the 256 sinusoids, 2.6e-6 of their norm
 * before the first linear layer.  4e-6 covers both. */
static void test_sana_transformer__equals_diffusers_module_by_module_in_fp32(void **state)
{
    (void)state;
    compare("goldens/sana/blocks/transformer.fp32.safetensors", MP_F32, 4e-6, 48, NULL);
}

/* Up to the first softmax nothing but the order of sums differs, which moves a value in a thousand
 * by 2^-8: 3e-4.  torch's softmax has an exp of 20 ulp, and one output in a hundred of the cross
 * attention rounds apart; from there on each module multiplies the difference, up to the drift that
 * bf16 has from fp32 at the end (6e-3).  A rounding point too few or too many in the first part
 * gives 2e-3 at once. */
static void test_sana_transformer__rounds_where_diffusers_rounds_in_bf16(void **state)
{
    static const char *const first_part[] = {"patch_embed",
                                             "caption_norm",
                                             "time_embed",
                                             "transformer_blocks.0.norm1",
                                             "transformer_blocks.0.attn1",
                                             "transformer_blocks.0.attn2.to_q",
                                             "transformer_blocks.0.attn2.to_v",
                                             NULL};
    (void)state;
    compare("goldens/sana/blocks/transformer.bf16.safetensors", MP_BF16, 6e-3, 48, first_part);
}

static void test_sana_transformer__knows_unusual_configurations(void **state)
{
    static const struct {
        const char *folder, *golden, *prefix;
    } cases[] = {
        /* patches of 2x2, guidance embedding, rms_norm_across_heads, affine norm2, biases */
        {VARIANTS "transformer_guidance", VARIANTS "transformer_guidance/golden.safetensors",
         "6x8."},
        /* positions at the model's own size, and made afresh for another */
        {VARIANTS "transformer_positions", VARIANTS "transformer_positions/golden.safetensors",
         "8x8."},
        {VARIANTS "transformer_positions", VARIANTS "transformer_positions/golden.safetensors",
         "6x10."},
    };
    char name[64];
    (void)state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mp_ctx *const c = mp_blocks_ctx();
        mp_sana_transformer *const m = open_transformer(cases[i].folder, MP_F32);
        mp_blocks b;
        mp_blocks_open(&b, c, cases[i].golden, NULL);
        snprintf(name, sizeof name, "%soutput", cases[i].prefix);
        const double d = mp_blocks_distance(&b, forward(&b, m, cases[i].prefix), name);
        print_message("%s %s: relative L2 %.3g\n", cases[i].folder, cases[i].prefix, d);
        assert_true(d <= 4e-6); /* the reason of the fp32 limit above */
        mp_blocks_close(&b);
        mp_sana_transformer_close(m);
        mp_device_close(c);
    }
}

static void test_sana_transformer__reads_shards_as_one_file(void **state)
{
    mp_ctx *const c = mp_blocks_ctx();
    mp_sana_transformer *const one = open_transformer("checkpoints/sana-tiny/transformer", MP_F32);
    mp_sana_transformer *const many =
        open_transformer("checkpoints/sana-sharded/transformer", MP_F32);
    mp_blocks b;
    (void)state;

    mp_blocks_open(&b, c, "goldens/sana/blocks/transformer.fp32.safetensors", NULL);
    const mp_tensor x = forward(&b, one, ""), y = forward(&b, many, "");
    assert_false(mp_failed(c));
    assert_memory_equal(x.data, y.data, mp_nbytes(x));
    mp_blocks_close(&b);
    mp_sana_transformer_close(one);
    mp_sana_transformer_close(many);
    mp_device_close(c);
}

/* A configuration in a folder of its own, beside nothing else. */
static mp_code read_config(const char *text, mp_error *err)
{
    mp_sana_config config;
    char dir[] = "/tmp/mp_sana_XXXXXX", path[64];

    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/config.json", dir);
    FILE *const f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    const mp_code code = mp_sana_config_read(dir, &config, err);
    remove(path);
    remove(dir);
    return code;
}

static void test_sana_transformer__names_what_a_configuration_has_wrong(void **state)
{
    static const struct {
        const char *config, *text;
        mp_code code;
    } cases[] = {
        {"{\"qk_norm\": \"rms_norm\"}", "\"rms_norm\" is not supported", MP_EUNSUPPORTED},
        {"{\"new_thing\": 1}", "unknown keys: new_thing", MP_EUNSUPPORTED},
        {"{\"cross_attention_dim\": 100}", "the captions that it attends to are 2240 wide",
         MP_EFORMAT},
        {"{\"mlp_ratio\": -1}", "\"mlp_ratio\"", MP_EFORMAT},
        {"{\"num_layers\": 100000}", "\"num_layers\"", MP_EFORMAT},
    };
    (void)state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mp_error err = {0};
        assert_int_equal(read_config(cases[i].config, &err), cases[i].code);
        if (!strstr(err.text, cases[i].text))
            fail_msg("\"%s\" does not say \"%s\"", err.text, cases[i].text);
        assert_non_null(strstr(err.text, "config.json"));
    }
}

/* sana-tiny's weights under a configuration of three layers. */
static void test_sana_transformer__lists_parameters_that_the_weights_lack(void **state)
{
    const mp_weights_options o = {.component = "transformer",
                                  .stem = "diffusion_pytorch_model",
                                  .dtype = MP_F32,
                                  .storage = MP_DTYPE_COUNT};
    char dir[] = "/tmp/mp_sana_XXXXXX", command[1024];
    mp_error err = {0};
    mp_sana_transformer *m = NULL;
    (void)state;

    assert_non_null(mkdtemp(dir));
    snprintf(command, sizeof command,
             "cp %s/checkpoints/sana-tiny/transformer/* %s && "
             "sed -i 's/\"num_layers\": 2/\"num_layers\": 3/' %s/config.json",
             MP_FIXTURES, dir, dir);
    assert_int_equal(system(command), 0);
    assert_int_not_equal(mp_sana_transformer_open(dir, &o, &m, &err), MP_OK);
    assert_null(m);
    assert_non_null(strstr(err.text, "transformer_blocks.2."));
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sana_transformer__equals_diffusers_module_by_module_in_fp32),
        cmocka_unit_test(test_sana_transformer__rounds_where_diffusers_rounds_in_bf16),
        cmocka_unit_test(test_sana_transformer__knows_unusual_configurations),
        cmocka_unit_test(test_sana_transformer__reads_shards_as_one_file),
        cmocka_unit_test(test_sana_transformer__names_what_a_configuration_has_wrong),
        cmocka_unit_test(test_sana_transformer__lists_parameters_that_the_weights_lack),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
