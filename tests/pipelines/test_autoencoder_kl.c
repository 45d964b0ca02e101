/* Goldens: goldens/autoencoder_kl, made by tests/fixtures/make_autoencoder_kl.py (Diffusers 0.42,
 * torch 2.15, CPU), of the autoencoder in checkpoints/sd3-tiny/vae. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/device.h"
#include "kernels/ops.h"
#include "pipelines/common/autoencoder_kl.h"
#include "pipelines/common/autoencoder_kl_blocks.h"
#include "tests/pipelines/scratch.h"
#include "tests/support/mp_blocks.h"

#define TINY    "checkpoints/sd3-tiny/vae"
#define GOLDENS "goldens/autoencoder_kl/"

static const mp_tiling tiles = {true, 24, 24, 16, 16};

/* The longest sums have 144 terms (3x3 windows of 16 channels): 2^-24 * sqrt(144) = 7e-7 a
 * convolution, through 22 of them as a random walk 3.4e-6; norms keep the scale.  Half of that is
 * our part and half torch's. */
static const double fp32_limit = 4e-6;

static mp_autoencoder_kl *open_vae(const char *folder, mp_dtype dtype)
{
    const mp_weights_options o = {.component = "vae",
                                  .stem = "diffusion_pytorch_model",
                                  .dtype = dtype,
                                  .storage = MP_DTYPE_COUNT};
    char dir[512];
    mp_error err = {0};
    mp_autoencoder_kl *m = NULL;

    snprintf(dir, sizeof dir, "%s/%s", MP_FIXTURES, folder);
    if (mp_autoencoder_kl_open(dir, &o, &m, &err))
        fail_msg("%s", err.text);
    return m;
}

static mp_tensor forward(mp_ctx *c, const mp_autoencoder_kl *m, bool encode, mp_tensor x,
                         const mp_tiling *tiling, bool slicing)
{
    const mp_autoencoder_kl_run r = {tiling, slicing};

    return encode ? mp_autoencoder_kl_encode(c, m, x, r) : mp_autoencoder_kl_decode(c, m, x, r);
}

/* ---- block by block -------------------------------------------------------------------------- */

static void compare(mp_dtype dtype, bool encode, double limit)
{
    mp_ctx *const c = mp_blocks_ctx();
    mp_autoencoder_kl *const m = open_vae(TINY, dtype);
    mp_blocks b;
    char golden[96];

    snprintf(golden, sizeof golden, GOLDENS "blocks/%s.%s.safetensors",
             encode ? "encoder" : "decoder", mp_dtype_name(dtype));
    mp_blocks_open(&b, c, golden, "vae");
    forward(c, m, encode, mp_blocks_picture(&b, encode ? "input.x" : "input.z"), NULL, false);
    mp_blocks_check(&b, limit, encode ? 29 : 33);
    mp_blocks_close(&b);
    mp_autoencoder_kl_close(m);
    mp_device_close(c);
}

static void test_autoencoder_kl__equals_diffusers_block_by_block_in_fp32(void **state)
{
    (void)state;
    compare(MP_F32, false, fp32_limit);
    compare(MP_F32, true, fp32_limit);
}

/* In a half, a sum near a tie rounds apart in one of some hundred values (of a thousand in bf16);
 * every such value moves its neighbours in the next layer, of which more round apart, until after
 * twenty layers two right results are as far from each other as independent roundings are: sqrt(2)
 * times the golden's own distance from fp32, which is 1.2e-2 in bf16 and 1.5e-3 in fp16. */
static void test_autoencoder_kl__stays_near_diffusers_through_all_blocks_in_halves(void **state)
{
    (void)state;
    compare(MP_BF16, false, 1.4 * 1.2e-2);
    compare(MP_BF16, true, 1.4 * 1.2e-2);
    compare(MP_F16, false, 1.4 * 1.5e-3);
    compare(MP_F16, true, 1.4 * 1.5e-3);
}

#define RESNET(r) r ".norm1", r ".conv1", r ".norm2", r ".conv2", r
#define DOWN      "downsamplers.0"
#define BELOW(i)  "down_blocks." i "." DOWN
#define MIDDLE                                                                                    \
    {                                                                                             \
        RESNET("resnets.0"), "attentions.0.group_norm", "attentions.0.to_q", "attentions.0.to_k", \
            "attentions.0.to_v", "attentions.0.to_out.0", "attentions.0", RESNET("resnets.1")     \
    }

/* One block of sd3-tiny, run on what Diffusers gave the block, and modules of it.  pixel is the
 * middle block at a single latent pixel, where torch fuses the biases of to_q, to_k and to_v. */
static const struct local {
    char kind;        /* (d)own, (m)iddle, (u)p */
    const char *file; /* under blocks/ */
    const char *side, *path, *input;
    int64_t in, out;
    bool resample;
    const char *modules[20]; /* below the block's path */
} locals[] = {
    {'d', "encoder", "encoder", "down_blocks.0", "conv_in", 8, 8, true, {"resnets.0", DOWN}},
    {'d', "encoder", "encoder", "down_blocks.1", BELOW("0"), 8, 16, true, {"resnets.0", DOWN}},
    {'d', "encoder", "encoder", "down_blocks.3", BELOW("2"), 16, 16, false, {RESNET("resnets.0")}},
    {'m', "decoder", "decoder", "mid_block", "conv_in", 16, 16, false, MIDDLE},
    {'m', "pixel", "decoder", "mid_block", "conv_in", 16, 16, false, MIDDLE},
    {'u',
     "decoder",
     "decoder",
     "up_blocks.0",
     "mid_block.resnets.1",
     16,
     16,
     true,
     {RESNET("resnets.0"), RESNET("resnets.1"), "upsamplers.0"}},
};

typedef struct one_block {
    mp_weights *weights;
    mp_kl_block block;
    mp_kl_mid mid;
} one_block;

static void bind_local(one_block *o, const struct local *l, mp_dtype dtype)
{
    const mp_weights_options options = {.component = "vae",
                                        .stem = "diffusion_pytorch_model",
                                        .dtype = dtype,
                                        .storage = MP_DTYPE_COUNT};
    char path[64];
    mp_error err = {0};

    *o = (one_block){.block = {.layers = l->kind == 'd' ? 1 : 2, .resample = l->resample},
                     .mid = {.attention = true}};
    snprintf(path, sizeof path, "%s.%s", l->side, l->path);
    assert_int_equal(mp_weights_open(MP_FIXTURES "/" TINY, &options, &o->weights, &err), MP_OK);
    if (l->kind == 'm')
        mp_kl_mid_bind(o->weights, &o->mid, l->out, path);
    else if (l->kind == 'd')
        mp_kl_down_bind(o->weights, &o->block, l->in, l->out, path, &err);
    else
        mp_kl_up_bind(o->weights, &o->block, l->in, l->out, path, &err);
    mp_weights_ignore(o->weights, "*");
    mp_weights_finish(o->weights, &err);
    assert_ok(&err);
}

static void check_local(const struct local *l, mp_dtype dtype, double limit)
{
    const mp_kl_config config = {.groups = 4, .act = MP_ACT_SILU};
    mp_ctx *const c = mp_blocks_ctx();
    one_block o;
    mp_blocks b;
    char name[96];

    snprintf(name, sizeof name, GOLDENS "blocks/%s.%s.safetensors", l->file, mp_dtype_name(dtype));
    bind_local(&o, l, dtype);
    mp_blocks_open(&b, c, name, "vae");
    snprintf(name, sizeof name, "%s.%s", l->side, l->input);
    const mp_tensor x = mp_blocks_picture(&b, name);
    mp_push(c, "vae.%s.%s", l->side, l->path);
    if (l->kind == 'm')
        mp_kl_mid_forward(c, &config, &o.mid, x);
    else if (l->kind == 'd')
        mp_kl_down_forward(c, &config, &o.block, x);
    else
        mp_kl_up_forward(c, &config, &o.block, x);
    mp_pop(c);
    mp_test_ok(c);
    for (int i = 0; l->modules[i]; i++) {
        snprintf(name, sizeof name, "%s.%s.%s", l->side, l->path, l->modules[i]);
        mp_blocks_check_one(&b, name, limit);
    }
    mp_blocks_close(&b);
    mp_free(o.block.resnets);
    mp_weights_close(o.weights);
    mp_device_close(c);
}

/* Same rounding points, other order of sums, over no more than a dozen layers: a few values are
 * apart by an ulp, 2^-8 of values near 1 in bf16 and 2^-11 in fp16, at most 0.35 ulp in the mean
 * square where it was measured (and 0 in nearly all modules).  A rounding point too few or too many
 * moves a third of a layer's values by an ulp: fusing the biases of to_q, to_k and to_v makes 0.6
 * to 1 ulp there and in all modules after them. */
static void test_autoencoder_kl__rounds_where_diffusers_rounds_in_every_block(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof locals / sizeof *locals; i++) {
        check_local(&locals[i], MP_F32, 1e-6);
        check_local(&locals[i], MP_BF16, 0.5 * 0x1p-8);
        check_local(&locals[i], MP_F16, 0.5 * 0x1p-11);
    }
}

/* ---- whole pictures -------------------------------------------------------------------------- */

/* The distance of y from its golden, and that of the golden from its fp32 golden. */
static void check_drift(mp_blocks *b, mp_tensor y, const char *kind, double share)
{
    char golden[48], fp32[48];

    snprintf(golden, sizeof golden, "%s.%s", kind, mp_dtype_name(y.dtype));
    snprintf(fp32, sizeof fp32, "%s.fp32", kind);
    const double apart = mp_blocks_distance(b, y, golden);
    if (y.dtype == MP_F32) {
        print_message("%s: relative L2 %.3g\n", golden, apart);
        assert_true(apart <= fp32_limit);
        return;
    }
    const mp_tensor theirs = mp_cast(b->ctx, mp_blocks_picture(b, golden), MP_F32);
    const double drift = mp_blocks_distance(b, theirs, fp32);
    print_message("%s: relative L2 %.3g, %.2f of the golden's drift %.3g\n", golden, apart,
                  apart / drift, drift);
    assert_true(apart <= share * drift);
    const double ratio = mp_blocks_distance(b, mp_cast(b->ctx, y, MP_F32), fp32) / drift;
    print_message("    drift ratio %.3f\n", ratio);
    assert_true(ratio > 0.75 && ratio < 1.33);
}

static void check_whole(mp_blocks *b, const mp_autoencoder_kl *m, mp_dtype dtype, bool encode,
                        bool tiled)
{
    const mp_mark mark = mp_open(b->ctx);
    const char *const kind = encode  ? tiled ? "encode.tiled" : "encode.untiled"
                             : tiled ? "decode.tiled"
                                     : "decode.untiled";
    const mp_tensor x =
        mp_cast(b->ctx, mp_blocks_picture(b, encode ? "encode.input" : "decode.input"), dtype);

    /* sqrt(2), as above. */
    check_drift(b, forward(b->ctx, m, encode, x, tiled ? &tiles : NULL, false), kind, 1.5);
    mp_drop(b->ctx, mark);
}

/* 5x3 latents in tiles of 3 every 2, an overlap factor of one third: tiles of 3x1, 1x3 and 1x1 at
 * the edges; and 43x29 pixels. */
static void test_autoencoder_kl__decodes_and_encodes_tiled_and_whole(void **state)
{
    (void)state;
    for (int d = MP_F32; d <= MP_BF16; d++) {
        mp_ctx *const c = mp_blocks_ctx();
        mp_autoencoder_kl *const m = open_vae(TINY, (mp_dtype)d);
        mp_blocks b;
        mp_blocks_open(&b, c, GOLDENS "whole.safetensors", NULL);
        for (int encode = 0; encode < 2; encode++)
            for (int tiled = 0; tiled < 2; tiled++)
                if (encode || tiled || d == MP_F32)
                    check_whole(&b, m, (mp_dtype)d, encode, tiled);
        mp_blocks_close(&b);
        mp_autoencoder_kl_close(m);
        mp_device_close(c);
    }
}

static void check_variant(const char *name, const mp_tiling *tiling)
{
    mp_ctx *const c = mp_blocks_ctx();
    char folder[96], golden[128];
    mp_blocks b;

    snprintf(folder, sizeof folder, GOLDENS "variants/%s", name);
    snprintf(golden, sizeof golden, "%s/golden.safetensors", folder);
    mp_autoencoder_kl *const m = open_vae(folder, MP_F32);
    mp_blocks_open(&b, c, golden, NULL);
    for (int i = 0; i < 8; i++) {
        const bool encode = i & 1, tiled = i & 2, slicing = i & 4;
        const mp_tensor x = mp_blocks_picture(&b, encode ? "encode.input.x" : "decode.input.z");
        const mp_tensor y = forward(c, m, encode, x, tiled ? tiling : NULL, slicing);
        const double d = mp_blocks_distance(&b, y,
                                            encode  ? tiled ? "encode.tiled" : "encode.output"
                                            : tiled ? "decode.tiled"
                                                    : "decode.output");
        print_message("%s %s%s%s: relative L2 %.3g\n", name, encode ? "encode" : "decode",
                      tiled ? " tiled" : "", slicing ? " sliced" : "", d);
        assert_true(d <= fp32_limit);
    }
    mp_blocks_close(&b);
    mp_autoencoder_kl_close(m);
    mp_device_close(c);
}

/* Both quant convolutions; no attention and another activation.  Two samples, tiled or not, sliced
 * or not. */
static void test_autoencoder_kl__knows_quant_convolutions_slices_and_unusual_parts(void **state)
{
    (void)state;
    check_variant("quant", &(mp_tiling){true, 8, 8, 6, 6});
    check_variant("plain", &(mp_tiling){true, 8, 8, 6, 6});
}

static void test_autoencoder_kl__gaussian_is_diffusers_distribution(void **state)
{
    static const char *const dtypes[] = {"fp32", "fp16", "bf16"};
    (void)state;

    for (int d = 0; d < 3; d++) {
        mp_ctx *const c = mp_blocks_ctx();
        mp_blocks b;
        char name[32];
        mp_blocks_open(&b, c, GOLDENS "distribution.safetensors", NULL);
        snprintf(name, sizeof name, "moments.%s", dtypes[d]);
        const mp_tensor moments = mp_blocks_picture(&b, name);
        snprintf(name, sizeof name, "noise.%s", dtypes[d]);
        const mp_tensor noise = mp_blocks_picture(&b, name);
        const struct {
            const char *name;
            mp_tensor y;
            double limit; /* exp within 2 ulp; in a half, a tie of one of few values */
        } cases[] = {{"mean", mp_gaussian_mean(c, moments), 0},
                     {"logvar", mp_gaussian_logvar(c, moments), 0},
                     {"std", mp_gaussian_std(c, moments), d ? 0 : 2.4e-7},
                     {"sample", mp_gaussian_sample(c, moments, noise), d ? 0 : 2.4e-7}};
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            snprintf(name, sizeof name, "%s.%s", cases[i].name, dtypes[d]);
            assert_true(mp_blocks_distance(&b, cases[i].y, name) <= cases[i].limit);
        }
        mp_blocks_close(&b);
        mp_device_close(c);
    }
}

/* ---- configuration --------------------------------------------------------------------------- */

static void test_autoencoder_kl__says_what_pipelines_ask(void **state)
{
    mp_error err = {0};
    mp_autoencoder_kl_facts f;
    mp_autoencoder_kl *const m = open_vae(TINY, MP_BF16);
    (void)state;

    f = mp_autoencoder_kl_get_facts(m);
    assert_true(f.scaling_factor == 1.5305 && f.shift_factor == 0.0609 && f.has_shift_factor);
    assert_true(f.force_upcast && f.compression == 8 && f.latent_channels == 16);
    assert_int_equal(mp_weights_dtype(mp_autoencoder_kl_weights(m)), MP_BF16);
    mp_autoencoder_kl_close(m);
    assert_int_equal(mp_autoencoder_kl_facts_of(MP_FIXTURES "/" GOLDENS "variants/plain", &f, &err),
                     MP_OK);
    assert_true(f.scaling_factor == 0.18215 && !f.has_shift_factor && !f.force_upcast);
    assert_true(f.compression == 2 && f.in_channels == 3 && f.out_channels == 2);
    mp_autoencoder_kl_close(NULL);
}

#define CONFIG(more) "{\"block_out_channels\": [32], " more "}"

static void test_autoencoder_kl__refuses_configurations_that_it_does_not_know(void **state)
{
    static const struct {
        const char *config;
        mp_code code;
        const char *part;
    } cases[] = {
        {CONFIG("\"down_block_types\": [\"AttnDownEncoderBlock2D\"]"), MP_EUNSUPPORTED,
         "\"AttnDownEncoderBlock2D\" is not DownEncoderBlock2D"},
        {CONFIG("\"up_block_types\": [\"UpDecoderBlock2D\", \"UpDecoderBlock2D\"]"), MP_EFORMAT,
         "up_block_types"},
        {CONFIG("\"latents_mean\": [0.5]"), MP_EUNSUPPORTED, "latents_mean"},
        {CONFIG("\"act_fn\": \"snake\""), MP_EUNSUPPORTED, "snake"},
        {CONFIG("\"norm_num_groups\": 5"), MP_EFORMAT, "\"norm_num_groups\" 5"},
        {CONFIG("\"norm_num_groups\": 0"), MP_EFORMAT, "norm_num_groups"},
        {CONFIG("\"layers_per_block\": 1000000000"), MP_EFORMAT, "layers_per_block"},
        {CONFIG("\"latent_channels\": -1"), MP_EFORMAT, "latent_channels"},
        {CONFIG("\"norm_type\": \"spatial\""), MP_EUNSUPPORTED, "norm_type"},
        {"{\"block_out_channels\": []}", MP_EFORMAT, "block_out_channels"},
        {"{\"block_out_channels\": [32, 64]}", MP_EFORMAT, "down_block_types"},
        {"{\"block_out_channels\": [32,32,32,32,32,32,32,32,32]}", MP_EFORMAT,
         "block_out_channels"},
        {"{\"block_out_channels\": [99999999]}", MP_EFORMAT, "block_out_channels"},
        {"[]", MP_EFORMAT, "config.json"},
    };
    (void)state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const mp_weights_options o = {.component = "vae", .stem = "diffusion_pytorch_model"};
        mp_error err = {0}, again = {0};
        mp_autoencoder_kl *m = NULL;
        mp_autoencoder_kl_facts f;
        scratch_text("config.json", cases[i].config);
        mp_autoencoder_kl_open(scratch_dir, &o, &m, &err);
        assert_error(&err, cases[i].code, cases[i].part);
        assert_null(m);
        mp_autoencoder_kl_facts_of(scratch_dir, &f, &again);
        assert_error(&again, cases[i].code, cases[i].part);
    }
}

/* The weights of sd3-tiny under configurations that they do not fit. */
static void test_autoencoder_kl__lists_parameters_that_are_missing_or_misshapen(void **state)
{
    static const struct {
        const char *config;
        const char *parts[3];
    } cases[] = {
        {"\"use_quant_conv\": true, \"use_post_quant_conv\": false, \"latent_channels\": 16",
         {"quant_conv.weight", "quant_conv.bias", NULL}},
        {"\"use_quant_conv\": false, \"use_post_quant_conv\": false, \"latent_channels\": 4",
         {"decoder.conv_in.weight", "encoder.conv_out.weight", NULL}},
        {"\"use_quant_conv\": false, \"use_post_quant_conv\": false, \"latent_channels\": 16, "
         "\"mid_block_add_attention\": false",
         {"decoder.mid_block.attentions.0", "to_q", NULL}},
    };
    const char *const down = "\"DownEncoderBlock2D\"", *const up = "\"UpDecoderBlock2D\"";
    char config[1024];
    (void)state;

    const char *const link = scratch("diffusion_pytorch_model.safetensors");
    assert_int_equal(symlink(MP_FIXTURES "/" TINY "/diffusion_pytorch_model.safetensors", link), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const mp_weights_options o = {
            .component = "vae", .stem = "diffusion_pytorch_model", .storage = MP_DTYPE_COUNT};
        mp_error err = {0};
        mp_autoencoder_kl *m = NULL;
        snprintf(config, sizeof config,
                 "{\"block_out_channels\": [8,16,16,16], \"norm_num_groups\": 4, "
                 "\"down_block_types\": [%s,%s,%s,%s], \"up_block_types\": [%s,%s,%s,%s], %s}",
                 down, down, down, down, up, up, up, up, cases[i].config);
        scratch_text("config.json", config);
        mp_autoencoder_kl_open(scratch_dir, &o, &m, &err);
        assert_null(m);
        if (!err.code)
            fail_msg("%s is accepted", cases[i].config);
        assert_failure(&err, err.code, cases[i].parts);
    }
    assert_int_equal(unlink(link), 0);
}

/* ---- failures -------------------------------------------------------------------------------- */

/* Every pair of dtypes but the equal ones, with torch's text, at the first convolution. */
static void test_autoencoder_kl__refuses_latents_of_another_dtype(void **state)
{
    static const struct {
        const char *folder;
        mp_dtype model, input;
        bool encode;
        const char *text, *module;
    } cases[] = {
        {TINY, MP_F32, MP_BF16, false,
         "Input type (c10::BFloat16) and bias type (float) should be the same",
         "vae.decoder.conv_in"},
        {TINY, MP_BF16, MP_F32, true,
         "Input type (float) and bias type (c10::BFloat16) should be the same",
         "vae.encoder.conv_in"},
        {GOLDENS "variants/quant", MP_F16, MP_F32, false,
         "Input type (float) and bias type (c10::Half) should be the same", "vae.post_quant_conv"},
    };
    (void)state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mp_ctx *const c = mp_blocks_ctx();
        mp_autoencoder_kl *const m = open_vae(cases[i].folder, cases[i].model);
        const mp_autoencoder_kl_facts f = mp_autoencoder_kl_get_facts(m);
        const mp_tensor x =
            mp_new(c, cases[i].input, 4,
                   MP_DIMS(1, 16, 8, cases[i].encode ? f.in_channels : f.latent_channels));
        memset(x.data, 0, mp_nbytes(x));
        forward(c, m, cases[i].encode, x, NULL, false);
        assert_int_equal(mp_ctx_error(c)->code, MP_EDTYPE);
        assert_string_equal(mp_ctx_error(c)->text, cases[i].text);
        assert_string_equal(mp_ctx_error(c)->module, cases[i].module);
        mp_autoencoder_kl_close(m);
        mp_device_close(c);
    }
}

static void test_autoencoder_kl__refuses_tiles_that_diffusers_cannot_do(void **state)
{
    static const struct {
        mp_tiling t;
        mp_code code;
        const char *part;
    } cases[] = {
        {{true, 24, 24, 16, 16}, MP_OK, ""},
        {{true, 512, 512, 384, 384}, MP_OK, ""},
        {{true, 512, 512, 512, 512}, MP_OK, ""},
        {{false, 1, 2, 3, 4}, MP_OK, ""},
        {{true, 512, 256, 384, 192}, MP_EUNSUPPORTED, "tiles of 512x256 pixels every 384x192"},
        {{true, 512, 512, 384, 256}, MP_EUNSUPPORTED, "[512, 512] and [384, 384]"},
        {{true, 100, 100, 80, 80}, MP_EUNSUPPORTED, "multiples of 8"},
        {{true, 512, 512, 380, 380}, MP_EUNSUPPORTED, "multiples of 8"},
        {{true, 40, 40, 8, 8}, MP_EUNSUPPORTED, "a half or three quarters"},
        {{true, 4, 4, 4, 4}, MP_EUSAGE, "smaller than one latent pixel"},
        {{true, 16, 16, 24, 24}, MP_EUSAGE, "leaves gaps"},
    };
    (void)state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mp_error err = {0};
        mp_autoencoder_kl_tiling_check(&cases[i].t, 8, &err);
        assert_error(&err, cases[i].code, cases[i].part);
    }
}

/* One forward over zeros of this shape fails so; the module is the autoencoder or below it. */
static void check_shape_error(bool encode, const int64_t *dims, const mp_tiling *t, mp_code code,
                              const char *part)
{
    mp_ctx *const c = mp_blocks_ctx();
    mp_autoencoder_kl *const m = open_vae(TINY, MP_F32);
    const mp_tensor x = mp_new(c, MP_F32, 4, dims);

    memset(x.data, 0, mp_nbytes(x));
    forward(c, m, encode, x, t, false);
    assert_int_equal(strncmp(mp_ctx_error(c)->module, "vae", 3), 0);
    mp_test_fails(c, code, part);
    mp_autoencoder_kl_close(m);
    mp_device_close(c);
}

static void test_autoencoder_kl__refuses_pictures_that_do_not_fit(void **state)
{
    const mp_tiling oblong = {true, 32, 16, 16, 8};
    (void)state;

    check_shape_error(true, MP_DIMS(1, 7, 16, 3), NULL, MP_ESHAPE,
                      "a picture of 7 pixels in height");
    check_shape_error(true, MP_DIMS(1, 40, 35, 3), &tiles, MP_ESHAPE,
                      "the tile at the edge of 3 pixels in width");
    check_shape_error(true, MP_DIMS(1, 16, 16, 4), NULL, MP_ESHAPE, "does not fit weight");
    check_shape_error(false, MP_DIMS(1, 2, 2, 4), NULL, MP_ESHAPE, "does not fit weight");
    check_shape_error(false, MP_DIMS(0, 2, 2, 16), NULL, MP_ESHAPE, "[B, H, W, C]");
    check_shape_error(false, MP_DIMS(1, 8, 8, 16), &oblong, MP_EUNSUPPORTED, "32x16");
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* Peak of a decode of side x side latents above what was there before. */
static size_t decode_peak(mp_ctx *c, const mp_autoencoder_kl *m, int64_t batch, int64_t side,
                          const mp_tiling *t, bool slicing)
{
    const mp_mark mark = mp_open(c);
    const mp_tensor z = mp_new(c, MP_F32, 4, MP_DIMS(batch, side, side, 16));

    memset(z.data, 0, mp_nbytes(z));
    const size_t before = mp_pool_get(c).live;
    mp_pool_reset_peak(c);
    const mp_tensor y = forward(c, m, false, z, t, slicing);
    assert_false(mp_failed(c));
    assert_int_equal(mp_pool_get(c).live, before + mp_nbytes(y)); /* and nothing stays */
    const size_t peak = mp_pool_get(c).peak - before;
    mp_drop(c, mark);
    return peak;
}

/* A tile's activations are given back before the next one: the peak of nine tiles is that of one,
 * and the picture and the edges that are kept (two rows and a column of tiles at most).  Slices:
 * one sample, and the pictures before and after they are joined. */
static void test_autoencoder_kl__needs_the_memory_of_one_tile_and_one_sample(void **state)
{
    mp_ctx *const c = mp_blocks_ctx();
    mp_autoencoder_kl *const m = open_vae(TINY, MP_F32);
    const mp_tiling t = {true, 64, 64, 48, 48};
    const size_t pixel = 3 * sizeof(float);
    (void)state;

    const size_t one = decode_peak(c, m, 1, 8, NULL, false);
    const size_t nine = decode_peak(c, m, 1, 18, &t, false);
    assert_true(nine <= one + 3 * 144 * 144 * pixel);
    const size_t slices = decode_peak(c, m, 4, 8, NULL, true);
    assert_true(slices <= one + 2 * 4 * 64 * 64 * pixel);
    mp_autoencoder_kl_close(m);
    mp_device_close(c);
}

/* Every allocation of host memory fails once while opening: the error says so, nothing leaks. */
static void test_autoencoder_kl__survives_every_failed_allocation(void **state)
{
    mp_error err = {0};
    const mp_weights_options o = {
        .component = "vae", .stem = "diffusion_pytorch_model", .storage = MP_DTYPE_COUNT};
    int failed = 0;
    (void)state;

    for (uint64_t n = 1;; n++) {
        mp_autoencoder_kl *m = NULL;
        err = (mp_error){0};
        mp_memory_fail_at(n);
        mp_autoencoder_kl_open(MP_FIXTURES "/" TINY, &o, &m, &err);
        mp_memory_fail_at(0);
        mp_autoencoder_kl_close(m);
        if (!err.code)
            break;
        assert_null(m);
        assert_int_equal(err.code, MP_ENOMEM);
        failed++;
    }
    assert_true(failed > 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_autoencoder_kl__equals_diffusers_block_by_block_in_fp32),
        cmocka_unit_test(test_autoencoder_kl__stays_near_diffusers_through_all_blocks_in_halves),
        cmocka_unit_test(test_autoencoder_kl__rounds_where_diffusers_rounds_in_every_block),
        cmocka_unit_test(test_autoencoder_kl__decodes_and_encodes_tiled_and_whole),
        cmocka_unit_test(test_autoencoder_kl__knows_quant_convolutions_slices_and_unusual_parts),
        cmocka_unit_test(test_autoencoder_kl__gaussian_is_diffusers_distribution),
        cmocka_unit_test(test_autoencoder_kl__says_what_pipelines_ask),
        cmocka_unit_test(test_autoencoder_kl__refuses_configurations_that_it_does_not_know),
        cmocka_unit_test(test_autoencoder_kl__lists_parameters_that_are_missing_or_misshapen),
        cmocka_unit_test(test_autoencoder_kl__refuses_latents_of_another_dtype),
        cmocka_unit_test(test_autoencoder_kl__refuses_tiles_that_diffusers_cannot_do),
        cmocka_unit_test(test_autoencoder_kl__refuses_pictures_that_do_not_fit),
        cmocka_unit_test(test_autoencoder_kl__needs_the_memory_of_one_tile_and_one_sample),
        cmocka_unit_test(test_autoencoder_kl__survives_every_failed_allocation),
    };

    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
