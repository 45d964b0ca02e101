/* Goldens: goldens/sana/blocks/vae_*, goldens/sana/vae.safetensors, goldens/sana/variants/vae_*,
 * goldens/sana/incident.json, made by tests/fixtures/make_sana.py (Diffusers 0.42, torch 2.15,
 * CPU). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/device.h"
#include "kernels/ops.h"
#include "pipelines/common/autoencoder_dc.h"
#include "tests/support/mp_blocks.h"

#define TINY   "checkpoints/sana-tiny/vae"
#define BLOCKS "goldens/sana/blocks/"

static const mp_tiling tiles = {true, 32, 32, 28, 28};
static const mp_tiling odd_stride = {true, 32, 32, 30, 30};

/* The longest sums have 800 terms (a 5x5 window of 32 channels): 2^-24 * sqrt(800) through some
 * twenty ops of growing error; 3e-6 leaves a factor of two. */
static const double fp32_limit = 3e-6;

static mp_autoencoder_dc *open_vae(const char *folder, mp_dtype dtype, bool quirk)
{
    const mp_weights_options o = {.component = "vae",
                                  .stem = "diffusion_pytorch_model",
                                  .dtype = dtype,
                                  .storage = MP_DTYPE_COUNT};
    char dir[512];
    mp_error err = {0};
    mp_autoencoder_dc *m = NULL;

    snprintf(dir, sizeof dir, "%s/%s", MP_FIXTURES, folder);
    if (mp_autoencoder_dc_open(dir, &o, quirk, &m, &err))
        fail_msg("%s", err.text);
    return m;
}

static void compare(const char *golden, mp_dtype dtype, bool encode, double limit, int modules)
{
    mp_ctx *const c = mp_blocks_ctx();
    mp_autoencoder_dc *const m = open_vae(TINY, dtype, false);
    mp_blocks b;

    mp_blocks_open(&b, c, golden, "vae");
    const mp_tensor x = mp_blocks_picture(&b, encode ? "input.x" : "input.z");
    if (encode)
        mp_autoencoder_dc_encode(c, m, x, NULL);
    else
        mp_autoencoder_dc_decode(c, m, x, NULL);
    mp_blocks_check(&b, limit, modules);
    mp_blocks_close(&b);
    mp_autoencoder_dc_close(m);
    mp_device_close(c);
}

static void test_autoencoder_dc__equals_diffusers_module_by_module_in_fp32(void **state)
{
    (void)state;
    compare(BLOCKS "vae_decoder.fp32.safetensors", MP_F32, false, fp32_limit, 50);
    compare(BLOCKS "vae_decoder_quadratic.fp32.safetensors", MP_F32, false, fp32_limit, 28);
    compare(BLOCKS "vae_encoder.fp32.safetensors", MP_F32, true, fp32_limit, 40);
}

/* Same rounding points, other order of sums: see test_gemma2.c.  The decoder is deep, and values
 * that rounded apart meet again and again. */
static void test_autoencoder_dc__rounds_where_diffusers_rounds_in_bf16(void **state)
{
    (void)state;
    compare(BLOCKS "vae_decoder.bf16.safetensors", MP_BF16, false, 3e-3, 50);
    compare(BLOCKS "vae_decoder_quadratic.bf16.safetensors", MP_BF16, false, 3e-3, 28);
    compare(BLOCKS "vae_encoder.bf16.safetensors", MP_BF16, true, 3e-3, 40);
}

/* One row of goldens/sana/vae.safetensors. */
static void check_whole(const char *folder, const char *golden, mp_dtype dtype, bool encode,
                        const mp_tiling *tiling, const char *input, const char *output,
                        double limit)
{
    mp_ctx *const c = mp_blocks_ctx();
    mp_autoencoder_dc *const m = open_vae(folder, dtype, false);
    mp_blocks b;

    mp_blocks_open(&b, c, golden, NULL);
    const mp_tensor x = mp_cast(c, mp_blocks_picture(&b, input), dtype);
    const mp_tensor y = encode ? mp_autoencoder_dc_encode(c, m, x, tiling)
                               : mp_autoencoder_dc_decode(c, m, x, tiling);
    const double d = mp_blocks_distance(&b, y, output);
    print_message("%s %s: relative L2 %.3g\n", folder, output, d);
    assert_true(d <= limit);
    mp_blocks_close(&b);
    mp_autoencoder_dc_close(m);
    mp_device_close(c);
}

/* The drift of y from the fp32 golden, as a multiple of the drift that Diffusers has in the same
 * dtype.  The sums of linear attention over many pixels round apart in a few values, and every
 * later module multiplies that: two right decoders in bf16 are nearly as far from each other as
 * from fp32, but equally far from fp32.  A rounding point too few or too many shows as a ratio;
 * where it is, the module tests above show. */
static double drift_ratio(mp_blocks *b, mp_tensor y, const char *golden, const char *fp32)
{
    const mp_tensor theirs = mp_cast(b->ctx, mp_blocks_picture(b, golden), MP_F32);

    return mp_blocks_distance(b, mp_cast(b->ctx, y, MP_F32), fp32) /
           mp_blocks_distance(b, theirs, fp32);
}

static void check_drift(mp_dtype dtype, bool encode, bool tiled)
{
    mp_ctx *const c = mp_blocks_ctx();
    mp_autoencoder_dc *const m = open_vae(TINY, dtype, false);
    mp_blocks b;
    char fp32[32], golden[48];

    snprintf(fp32, sizeof fp32, "%s.%s", encode ? "encode" : "decode", tiled ? "tiled" : "untiled");
    snprintf(golden, sizeof golden, "%s.%s", fp32, mp_dtype_name(dtype));
    mp_blocks_open(&b, c, "goldens/sana/vae.safetensors", NULL);
    const mp_tensor x =
        mp_cast(c, mp_blocks_picture(&b, encode ? "encode.input" : "decode.input"), dtype);
    const mp_tiling *const t = tiled ? &tiles : NULL;
    const mp_tensor y =
        encode ? mp_autoencoder_dc_encode(c, m, x, t) : mp_autoencoder_dc_decode(c, m, x, t);
    const double apart = mp_blocks_distance(&b, y, golden);
    const double ratio = drift_ratio(&b, y, golden, fp32);
    print_message("%s: relative L2 %.3g, drift ratio %.3f\n", golden, apart, ratio);
    assert_true(ratio > 0.75 && ratio < 1.33);
    mp_blocks_close(&b);
    mp_autoencoder_dc_close(m);
    mp_device_close(c);
}

/* 17x10 latents in tiles of 8 every 7: remainder tiles in both directions, and a corner whose
 * deepest blocks attend quadratically. */
static void test_autoencoder_dc__decodes_and_encodes_tiled_and_whole(void **state)
{
    (void)state;
    for (int encode = 0; encode < 2; encode++)
        for (int tiled = 0; tiled < 2; tiled++) {
            const char *const name = encode  ? tiled ? "encode.tiled" : "encode.untiled"
                                     : tiled ? "decode.tiled"
                                             : "decode.untiled";
            check_whole(TINY, "goldens/sana/vae.safetensors", MP_F32, encode, tiled ? &tiles : NULL,
                        encode ? "encode.input" : "decode.input", name, fp32_limit);
            check_drift(MP_BF16, encode, tiled);
            check_drift(MP_F16, encode, tiled);
        }
}

static void test_autoencoder_dc__tiles_sizes_that_do_not_divide(void **state)
{
    (void)state;
    check_whole(TINY, "goldens/sana/vae.safetensors", MP_F32, true, &tiles, "encode_ragged.input",
                "encode_ragged.tiled", fp32_limit);
    check_whole(TINY, "goldens/sana/vae.safetensors", MP_F32, false, &odd_stride, "decode.input",
                "decode_odd_stride.tiled", fp32_limit);
}

/* batch_norm, stages without layers, pixel (un)shuffle; and no shortcuts, two scales at once,
 * residual blocks everywhere. */
static void test_autoencoder_dc__knows_unusual_configurations(void **state)
{
    static const char *const names[] = {"vae_batch_norm", "vae_plain"};
    char folder[80], golden[120];
    (void)state;

    for (size_t i = 0; i < 2; i++) {
        snprintf(folder, sizeof folder, "goldens/sana/variants/%s", names[i]);
        snprintf(golden, sizeof golden, "%s/golden.safetensors", folder);
        check_whole(folder, golden, MP_F32, true, NULL, "encode.input.x", "encode.output",
                    fp32_limit);
        check_whole(folder, golden, MP_F32, false, NULL, "decode.input.z", "decode.output",
                    fp32_limit);
        check_whole(folder, golden, MP_F32, false, NULL, "decode_quadratic.input.z",
                    "decode_quadratic.output", fp32_limit);
    }
}

/* The incident of diffusers #10590: 16x16 latents in tiles of 8 every 7 leave a corner of 2x2. */
static void test_autoencoder_dc__fails_as_before_the_fix_under_the_quirk(void **state)
{
    static const struct {
        mp_dtype dtype;
        const char *text;
    } cases[] = {{MP_BF16, "expected scalar type BFloat16 but found Float"},
                 {MP_F16, "expected scalar type Half but found Float"},
                 {MP_F32, NULL}};
    (void)state;

    for (size_t i = 0; i < 3; i++) {
        mp_ctx *const c = mp_blocks_ctx();
        mp_autoencoder_dc *const m = open_vae(TINY, cases[i].dtype, true);
        mp_tensor z = mp_new(c, cases[i].dtype, 4, MP_DIMS(1, 16, 16, 8));
        memset(z.data, 0x3c, mp_nbytes(z)); /* about 0.01 in bf16 and fp32, 1.06 in fp16 */
        mp_autoencoder_dc_decode(c, m, z, &tiles);
        if (cases[i].text) {
            assert_int_equal(mp_ctx_error(c)->code, MP_EDTYPE);
            assert_string_equal(mp_ctx_error(c)->text, cases[i].text);
            assert_string_equal(mp_ctx_error(c)->module, "vae.decoder.up_blocks.2.0.attn");
        } else {
            assert_false(mp_failed(c));
        }
        mp_autoencoder_dc_close(m);
        mp_device_close(c);
    }
}

/* A tile's activations are given back before the next one: the peak of nine tiles is that of one,
 * and the picture and the edges that are kept (two rows and a column of tiles at most). */
static void test_autoencoder_dc__needs_the_memory_of_one_tile(void **state)
{
    mp_ctx *const c = mp_blocks_ctx();
    mp_autoencoder_dc *const m = open_vae(TINY, MP_F32, false);
    mp_tensor small = mp_new(c, MP_F32, 4, MP_DIMS(1, 8, 8, 8));
    mp_tensor large = mp_new(c, MP_F32, 4, MP_DIMS(1, 22, 22, 8));
    (void)state;

    memset(small.data, 0, mp_nbytes(small));
    memset(large.data, 0, mp_nbytes(large));
    const mp_mark mark = mp_open(c);
    mp_pool_reset_peak(c);
    const size_t before = mp_pool_get(c).live;
    mp_autoencoder_dc_decode(c, m, small, NULL);
    mp_drop(c, mark);
    const size_t one = mp_pool_get(c).peak - before;
    mp_pool_reset_peak(c);
    const mp_tensor y = mp_autoencoder_dc_decode(c, m, large, &tiles);
    assert_false(mp_failed(c));
    const size_t nine = mp_pool_get(c).peak - before;
    assert_true(nine <= one + 3 * mp_nbytes(y));
    mp_autoencoder_dc_close(m);
    mp_device_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_autoencoder_dc__equals_diffusers_module_by_module_in_fp32),
        cmocka_unit_test(test_autoencoder_dc__rounds_where_diffusers_rounds_in_bf16),
        cmocka_unit_test(test_autoencoder_dc__decodes_and_encodes_tiled_and_whole),
        cmocka_unit_test(test_autoencoder_dc__tiles_sizes_that_do_not_divide),
        cmocka_unit_test(test_autoencoder_dc__knows_unusual_configurations),
        cmocka_unit_test(test_autoencoder_dc__fails_as_before_the_fix_under_the_quirk),
        cmocka_unit_test(test_autoencoder_dc__needs_the_memory_of_one_tile),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
