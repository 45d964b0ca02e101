#include "pipelines/common/autoencoder_dc.h"

#include <stdio.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "pipelines/common/autoencoder_dc_blocks.h"
#include "pipelines/common/config.h"
#include "pipelines/common/layers.h"
#include "pipelines/common/tiling.h"

enum { MAX_STAGES = 8, MAX_LAYERS = 64, MAX_CHANNELS = 1 << 16 };

static const float norm_eps = 1e-5f; /* norm_out of the decoder */
static const mp_conv2d_opts conv3x3 = {.padding = 1};

/* One resolution: blocks, and the resampling between it and the next coarser stage. */
typedef struct stage {
    int64_t channels, layers;
    mp_dc_block_config config; /* of its blocks */
    int64_t kernel_sizes[MP_DC_SCALES];
    mp_dc_block *blocks; /* [layers] */
    mp_dc_resample resample;
    bool has_resample;
} stage;

typedef struct side {
    const char *name; /* "encoder", "decoder" */
    int stages;
    stage stage[MAX_STAGES];
    bool resample; /* pixel_unshuffle of the encoder, interpolate of the decoder */
    bool shortcut; /* out_shortcut of the encoder, in_shortcut of the decoder */
    mp_affine conv_in, conv_out;
    mp_dc_resample outer; /* conv_in of the encoder, conv_out of the decoder, if stage 0 is empty */
    mp_affine norm_out;
    mp_act conv_act;
} side;

struct mp_autoencoder_dc {
    mp_weights *weights;
    int64_t in_channels, latent_channels, head_dim;
    double scaling_factor;
    bool no_cast_back;
    side encoder, decoder;
};

static const int64_t default_channels[] = {128, 256, 512, 512, 1024, 1024};
enum { DEFAULT_STAGES = 6 };

/* ---- configuration -------------------------------------------------------------------------- */

static mp_act parse_act(const mp_config *j, const char *key, const char *name, mp_error *err)
{
    mp_act act = MP_ACT_NONE;

    if (name && !mp_act_parse(name, &act))
        mp_error_set(err, MP_EUNSUPPORTED, "%s: \"%s\": unknown activation \"%.40s\"",
                     mp_config_path(j), key, name);
    return act;
}

static void parse_channels(mp_config *j, side *s, mp_error *err)
{
    char key[48];
    int64_t channels[MAX_STAGES], layers[MAX_STAGES];

    snprintf(key, sizeof key, "%s_block_out_channels", s->name);
    s->stages = mp_config_ints(j, key, channels, MAX_STAGES, 1, MAX_CHANNELS, err);
    if (s->stages < 0) {
        s->stages = DEFAULT_STAGES;
        memcpy(channels, default_channels, sizeof default_channels);
    }
    snprintf(key, sizeof key, "%s_layers_per_block", s->name);
    const int n = mp_config_ints(j, key, layers, MAX_STAGES, 0, MAX_LAYERS, err);
    const bool decoder = !strcmp(s->name, "decoder");
    if (n >= 0 ? n != s->stages : s->stages != DEFAULT_STAGES)
        mp_error_set(err, MP_EFORMAT, "%s: \"%s\": expected one entry for each of the %d channels",
                     mp_config_path(j), key, s->stages);
    for (int i = 0; i < s->stages; i++) {
        s->stage[i].channels = channels[i];
        s->stage[i].layers = n >= 0 ? layers[i] : decoder || i > 2 ? 3 : 2;
        if (!s->stage[i].layers && i > 0 && i < s->stages - 1)
            mp_error_set(err, MP_EUNSUPPORTED,
                         "%s: \"%s\": only the first or last stage can be without layers",
                         mp_config_path(j), key);
    }
}

static void parse_scales(mp_config *j, side *s, mp_error *err)
{
    char key[48];
    int64_t sizes[MAX_STAGES * MP_DC_SCALES];
    int lens[MAX_STAGES];

    snprintf(key, sizeof key, "%s_qkv_multiscales", s->name);
    const int n = mp_config_int_lists(j, key, sizes, lens, MAX_STAGES, MP_DC_SCALES, err);
    if (n >= 0 ? n != s->stages : s->stages != DEFAULT_STAGES)
        mp_error_set(err, MP_EFORMAT, "%s: \"%s\": expected one list for each of the %d stages",
                     mp_config_path(j), key, s->stages);
    for (int i = 0; i < s->stages; i++) {
        stage *const g = &s->stage[i];
        g->config.scales = n >= 0 ? (i < n ? lens[i] : 0) : i >= 3;
        g->kernel_sizes[0] = 5;
        for (int k = 0; n >= 0 && k < g->config.scales; k++) {
            g->kernel_sizes[k] = sizes[i * MP_DC_SCALES + k];
            if (g->kernel_sizes[k] < 1 || g->kernel_sizes[k] > 31 || g->kernel_sizes[k] % 2 == 0)
                mp_error_set(err, MP_EFORMAT, "%s: \"%s\": expected odd kernel sizes up to 31",
                             mp_config_path(j), key);
        }
        g->config.kernel_sizes = g->kernel_sizes;
    }
}

static void parse_types(mp_config *j, side *s, mp_error *err)
{
    const char *names[MAX_STAGES];
    char key[48];

    snprintf(key, sizeof key, "%s_block_types", s->name);
    mp_config_strings(j, key, names, s->stages, "ResBlock", err);
    for (int i = 0; i < s->stages && !err->code; i++) {
        s->stage[i].config.vit = !strcmp(names[i], "EfficientViTBlock");
        if (!s->stage[i].config.vit && strcmp(names[i], "ResBlock"))
            mp_error_set(err, MP_EUNSUPPORTED, "%s: \"%s\": unknown block type \"%.40s\"",
                         mp_config_path(j), key, names[i]);
    }
}

/* The encoder's norms and activations are fixed in the model's code. */
static void parse_decoder_norms(mp_config *j, side *s, mp_error *err)
{
    const char *norms[MAX_STAGES], *acts[MAX_STAGES];

    mp_config_strings(j, "decoder_norm_types", norms, s->stages, "rms_norm", err);
    mp_config_strings(j, "decoder_act_fns", acts, s->stages, "silu", err);
    for (int i = 0; i < s->stages && !err->code; i++) {
        const bool batch = !strcmp(norms[i], "batch_norm");
        s->stage[i].config.norm = batch ? MP_DC_BATCH_NORM : MP_DC_RMS_NORM;
        if (!batch && strcmp(norms[i], "rms_norm"))
            mp_error_set(err, MP_EUNSUPPORTED,
                         "%s: \"decoder_norm_types\": \"%.40s\" is not rms_norm or batch_norm",
                         mp_config_path(j), norms[i]);
        s->stage[i].config.act = parse_act(j, "decoder_act_fns", acts[i], err);
    }
}

/* Channel counts that shortcuts and heads divide. */
static void check_channels(const mp_autoencoder_dc *m, const mp_config *j, const side *s,
                           mp_error *err)
{
    for (int i = 0; i < s->stages; i++) {
        const int64_t here = s->stage[i].channels;
        const int64_t next = i + 1 < s->stages ? s->stage[i + 1].channels : 4 * here;
        if (here % 4 || (4 * here) % next)
            mp_error_set(err, MP_EFORMAT,
                         "%s: %s: %lld and %lld channels cannot be joined by a shortcut",
                         mp_config_path(j), s->name, (long long)here, (long long)next);
        if (s->stage[i].config.vit && here < m->head_dim)
            mp_error_set(err, MP_EFORMAT,
                         "%s: %s: %lld channels are fewer than the attention_head_dim %lld",
                         mp_config_path(j), s->name, (long long)here, (long long)m->head_dim);
    }
    if (s->stage[s->stages - 1].channels % m->latent_channels)
        mp_error_set(err, MP_EFORMAT, "%s: %s: %lld channels are no multiple of %lld latent ones",
                     mp_config_path(j), s->name, (long long)s->stage[s->stages - 1].channels,
                     (long long)m->latent_channels);
    if (!s->stage[0].layers && s->stages < 2)
        mp_error_set(err, MP_EFORMAT, "%s: %s: a single stage without layers does nothing",
                     mp_config_path(j), s->name);
}

static void parse_side(mp_autoencoder_dc *m, mp_config *j, side *s, mp_error *err)
{
    parse_channels(j, s, err);
    if (err->code)
        return;
    parse_scales(j, s, err);
    parse_types(j, s, err);
    for (int i = 0; i < s->stages; i++) {
        mp_dc_block_config *const o = &s->stage[i].config;
        o->channels = s->stage[i].channels;
        o->head_dim = m->head_dim;
        o->norm = MP_DC_RMS_NORM;
        o->act = MP_ACT_SILU;
        o->no_cast_back = m->no_cast_back;
    }
    check_channels(m, j, s, err);
}

static void refuse_unknown(const mp_config *j, mp_error *err)
{
    char unknown[400];

    if (mp_config_unknown(j, unknown, sizeof unknown))
        mp_error_set(err, MP_EUNSUPPORTED,
                     "%s: unknown keys: %s; this build knows AutoencoderDC of Diffusers 0.42",
                     mp_config_path(j), unknown);
}

static void parse_config(mp_autoencoder_dc *m, mp_config *j, mp_error *err)
{
    m->encoder.name = "encoder";
    m->decoder.name = "decoder";
    m->in_channels = mp_config_int(j, "in_channels", 3, 1, MAX_CHANNELS, err);
    m->latent_channels = mp_config_int(j, "latent_channels", 32, 1, MAX_CHANNELS, err);
    m->head_dim = mp_config_int(j, "attention_head_dim", 32, 1, 4096, err);
    m->scaling_factor = mp_config_number(j, "scaling_factor", 1.0, err);
    m->encoder.shortcut = mp_config_bool(j, "encoder_out_shortcut", true, err);
    m->decoder.shortcut = mp_config_bool(j, "decoder_in_shortcut", true, err);
    /* Diffusers compares with one name and takes any other as the alternative. */
    m->encoder.resample = !strcmp(
        mp_config_string(j, "downsample_block_type", "pixel_unshuffle", err), "pixel_unshuffle");
    m->decoder.resample =
        !strcmp(mp_config_string(j, "upsample_block_type", "pixel_shuffle", err), "interpolate");
    m->decoder.conv_act = parse_act(j, "decoder_conv_act_fn",
                                    mp_config_string(j, "decoder_conv_act_fn", "relu", err), err);
    parse_side(m, j, &m->encoder, err);
    parse_side(m, j, &m->decoder, err);
    if (!err->code)
        parse_decoder_norms(j, &m->decoder, err);
    refuse_unknown(j, err);
}

mp_code mp_autoencoder_dc_compression_of(const char *dir, int64_t *out, mp_error *err)
{
    mp_config *j = NULL;
    int64_t channels[MAX_STAGES];

    if (mp_config_open(dir, "config.json", &j, err))
        return err->code;
    const int n =
        mp_config_ints(j, "encoder_block_out_channels", channels, MAX_STAGES, 1, MAX_CHANNELS, err);
    *out = (int64_t)1 << ((n < 1 ? DEFAULT_STAGES : n) - 1);
    if (n == 0)
        mp_error_set(err, MP_EFORMAT, "%s: \"encoder_block_out_channels\" is empty",
                     mp_config_path(j));
    mp_config_close(j);
    return err->code;
}

/* ---- parameters ----------------------------------------------------------------------------- */

static void bind_stage(mp_weights *w, side *s, int i, mp_error *err)
{
    stage *const g = &s->stage[i];
    const bool up = !strcmp(s->name, "decoder");
    const char *const blocks = up ? "up_blocks" : "down_blocks";
    char path[MP_DC_PATH];

    g->blocks = mp_alloc((size_t)g->layers, sizeof *g->blocks);
    if (!g->blocks) {
        mp_error_set(err, MP_ENOMEM, "no memory for the autoencoder's blocks");
        return;
    }
    g->has_resample = i < s->stages - 1 && g->layers > 0;
    for (int64_t k = 0; k < g->layers; k++) {
        snprintf(path, sizeof path, "%s.%s.%d.%lld", s->name, blocks, i,
                 (long long)k + (up && g->has_resample));
        mp_dc_block_bind(w, &g->blocks[k], &g->config, path);
    }
    if (!g->has_resample)
        return;
    const int64_t next = s->stage[i + 1].channels;
    g->resample = (mp_dc_resample){.resample = s->resample,
                                   .shortcut = true,
                                   .in = up ? next : g->channels,
                                   .out = up ? g->channels : next};
    snprintf(path, sizeof path, "%s.%s.%d.%lld", s->name, blocks, i,
             up ? 0LL : (long long)g->layers);
    if (up)
        mp_dc_up_bind(w, &g->resample, path);
    else
        mp_dc_down_bind(w, &g->resample, path);
}

static void bind_encoder(mp_autoencoder_dc *m, mp_error *err)
{
    side *const s = &m->encoder;
    const int64_t last = s->stage[s->stages - 1].channels;

    if (s->stage[0].layers) {
        mp_weights_bind_conv2d(m->weights, &s->conv_in, s->stage[0].channels, m->in_channels, 3,
                               true, "encoder.conv_in");
    } else {
        s->outer = (mp_dc_resample){
            .resample = s->resample, .in = m->in_channels, .out = s->stage[1].channels};
        mp_dc_down_bind(m->weights, &s->outer, "encoder.conv_in");
    }
    for (int i = 0; i < s->stages; i++)
        bind_stage(m->weights, s, i, err);
    mp_weights_bind_conv2d(m->weights, &s->conv_out, m->latent_channels, last, 3, true,
                           "encoder.conv_out");
}

static void bind_decoder(mp_autoencoder_dc *m, mp_error *err)
{
    side *const s = &m->decoder;
    const int64_t last = s->stage[s->stages - 1].channels;
    const int64_t first = s->stage[s->stage[0].layers ? 0 : 1].channels;

    mp_weights_bind_conv2d(m->weights, &s->conv_in, last, m->latent_channels, 3, true,
                           "decoder.conv_in");
    for (int i = 0; i < s->stages; i++)
        bind_stage(m->weights, s, i, err);
    mp_weights_bind(m->weights, &s->norm_out.weight, 1, MP_DIMS(first), "decoder.norm_out.weight");
    mp_weights_bind(m->weights, &s->norm_out.bias, 1, MP_DIMS(first), "decoder.norm_out.bias");
    if (s->stage[0].layers) {
        mp_weights_bind_conv2d(m->weights, &s->conv_out, m->in_channels, first, 3, true,
                               "decoder.conv_out");
    } else {
        s->outer = (mp_dc_resample){.resample = s->resample, .in = first, .out = m->in_channels};
        mp_dc_up_bind(m->weights, &s->outer, "decoder.conv_out");
    }
}

mp_code mp_autoencoder_dc_open(const char *dir, const mp_weights_options *o,
                               bool quadratic_no_upcast, mp_autoencoder_dc **out, mp_error *err)
{
    mp_autoencoder_dc *m = mp_alloc(1, sizeof *m);
    mp_config *j = NULL;

    if (!m)
        return mp_error_set(err, MP_ENOMEM, "no memory for the autoencoder");
    m->no_cast_back = quadratic_no_upcast;
    if (!mp_config_open(dir, "config.json", &j, err))
        parse_config(m, j, err);
    mp_config_close(j);
    if (!err->code && !mp_weights_open(dir, o, &m->weights, err)) {
        bind_encoder(m, err);
        bind_decoder(m, err);
        mp_weights_ignore(m->weights, "*.num_batches_tracked");
        mp_weights_finish(m->weights, err);
    }
    if (err->code) {
        mp_autoencoder_dc_close(m);
        return err->code;
    }
    *out = m;
    return MP_OK;
}

void mp_autoencoder_dc_close(mp_autoencoder_dc *m)
{
    if (!m)
        return;
    for (int i = 0; i < MAX_STAGES; i++) {
        mp_free(m->encoder.stage[i].blocks);
        mp_free(m->decoder.stage[i].blocks);
    }
    mp_weights_close(m->weights);
    mp_free(m);
}

mp_weights *mp_autoencoder_dc_weights(const mp_autoencoder_dc *m)
{
    return m->weights;
}

double mp_autoencoder_dc_scaling_factor(const mp_autoencoder_dc *m)
{
    return m->scaling_factor;
}

int64_t mp_autoencoder_dc_compression(const mp_autoencoder_dc *m)
{
    return (int64_t)1 << (m->encoder.stages - 1);
}

/* ---- forward -------------------------------------------------------------------------------- */

static mp_tensor down_stage(mp_ctx *c, const stage *g, int i, mp_tensor x)
{
    const mp_mark mark = mp_open(c);

    for (int64_t k = 0; k < g->layers; k++) {
        x = mp_enter(c, x, "down_blocks.%d.%lld", i, (long long)k);
        x = mp_keep(c, mark, mp_leave(c, mp_dc_block_forward(c, &g->blocks[k], x)));
    }
    if (g->has_resample) {
        x = mp_enter(c, x, "down_blocks.%d.%lld", i, (long long)g->layers);
        x = mp_keep(c, mark, mp_leave(c, mp_dc_down_forward(c, &g->resample, x)));
    }
    return x;
}

static mp_tensor up_stage(mp_ctx *c, const stage *g, int i, mp_tensor x)
{
    const mp_mark mark = mp_open(c);

    if (g->has_resample) {
        x = mp_dc_up_forward(c, &g->resample, mp_enter(c, x, "up_blocks.%d.0", i));
        x = mp_keep(c, mark, mp_leave(c, x));
    }
    for (int64_t k = 0; k < g->layers; k++) {
        x = mp_enter(c, x, "up_blocks.%d.%lld", i, (long long)k + g->has_resample);
        x = mp_keep(c, mark, mp_leave(c, mp_dc_block_forward(c, &g->blocks[k], x)));
    }
    return x;
}

/* x [B, H, W, 3] -> [B, H/f, W/f, latent] */
static mp_tensor encode(mp_ctx *c, const void *model, mp_tensor x)
{
    const mp_autoencoder_dc *const m = model;
    const side *const s = &m->encoder;
    const mp_mark mark = mp_open(c);

    x = mp_enter(c, x, "encoder");
    if (s->stage[0].layers) {
        x = mp_apply_conv2d(c, &s->conv_in, x, conv3x3);
    } else {
        x = mp_leave(c, mp_dc_down_forward(c, &s->outer, mp_enter(c, x, "conv_in")));
    }
    for (int i = 0; i < s->stages; i++)
        x = mp_keep(c, mark, down_stage(c, &s->stage[i], i, x));

    mp_tensor z = mp_apply_conv2d(c, &s->conv_out, x, conv3x3);
    if (s->shortcut) {
        const int group = (int)(s->stage[s->stages - 1].channels / m->latent_channels);
        z = mp_add(c, z, mp_mean_channels(c, x, group));
    }
    return mp_keep(c, mark, mp_leave(c, z));
}

/* z [B, h, w, latent] -> [B, h*f, w*f, 3] */
static mp_tensor decode(mp_ctx *c, const void *model, mp_tensor z)
{
    const mp_autoencoder_dc *const m = model;
    const side *const s = &m->decoder;
    const mp_mark mark = mp_open(c);

    z = mp_enter(c, z, "decoder");
    mp_tensor x = mp_apply_conv2d(c, &s->conv_in, z, conv3x3);
    if (s->shortcut) {
        const int repeats = (int)(s->stage[s->stages - 1].channels / m->latent_channels);
        x = mp_add(c, x, mp_repeat_channels(c, z, repeats));
    }
    for (int i = s->stages - 1; i >= 0; i--)
        x = mp_keep(c, mark, up_stage(c, &s->stage[i], i, x));

    x = mp_rms_norm(c, x, s->norm_out.weight, s->norm_out.bias, norm_eps, MP_RMS_DIFFUSERS);
    x = mp_keep(c, mark, mp_activate_(c, x, s->conv_act));
    if (s->stage[0].layers) {
        x = mp_apply_conv2d(c, &s->conv_out, x, conv3x3);
    } else {
        x = mp_leave(c, mp_dc_up_forward(c, &s->outer, mp_enter(c, x, "conv_out")));
    }
    return mp_keep(c, mark, mp_leave(c, x));
}

/* Whether the autoencoder works in tiles, given the extents in the units of its input. */
static bool in_tiles(const mp_tiling *t, mp_tensor x, int64_t factor)
{
    return t && t->on && (x.dim[1] > t->tile_height / factor || x.dim[2] > t->tile_width / factor);
}

static mp_tensor run(mp_ctx *c, const mp_autoencoder_dc *m, mp_tensor x, mp_tile_fn *fn,
                     const mp_tiling *tiling, const mp_tile_plan *plan)
{
    mp_error err = {0};
    mp_tensor y;

    if (mp_failed(c))
        return MP_NONE;
    if (plan && mp_tiling_check(tiling, mp_autoencoder_dc_compression(m), &err))
        return mp_fail(c, err.code, NULL, "%s", err.text);
    const mp_mark mark = mp_open(c);
    x = mp_enter(c, x, "vae");
    y = plan ? mp_tiled_forward(c, plan, x, fn, m) : fn(c, m, x);
    return mp_keep(c, mark, mp_leave(c, y));
}

mp_tensor mp_autoencoder_dc_decode(mp_ctx *c, const mp_autoencoder_dc *m, mp_tensor z,
                                   const mp_tiling *tiling)
{
    const int64_t f = mp_autoencoder_dc_compression(m);
    const bool tiles = in_tiles(tiling, z, f);
    const mp_tile_plan plan = tiles ? mp_tile_plan_decode(tiling, f) : (mp_tile_plan){0};

    return run(c, m, z, decode, tiling, tiles ? &plan : NULL);
}

mp_tensor mp_autoencoder_dc_encode(mp_ctx *c, const mp_autoencoder_dc *m, mp_tensor x,
                                   const mp_tiling *tiling)
{
    const int64_t f = mp_autoencoder_dc_compression(m);
    const bool tiles = in_tiles(tiling, x, 1);
    const mp_tile_plan plan =
        tiles ? mp_tile_plan_encode(tiling, f, x.dim[1], x.dim[2]) : (mp_tile_plan){0};

    return run(c, m, x, encode, tiling, tiles ? &plan : NULL);
}
