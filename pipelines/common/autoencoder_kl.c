#include "pipelines/common/autoencoder_kl.h"

#include <stdio.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "pipelines/common/autoencoder_kl_blocks.h"
#include "pipelines/common/config.h"
#include "pipelines/common/layers.h"
#include "pipelines/common/tiling.h"

enum { MAX_STAGES = 8, MAX_LAYERS = 64, MAX_CHANNELS = 1 << 16, MAX_TILE = 1 << 24 };

static const mp_conv2d_opts conv3x3 = {.padding = 1};
static const mp_conv2d_opts conv1x1 = {0};

/* Encoder or decoder.  Blocks are in the order of the forward. */
typedef struct side {
    mp_affine conv_in;
    mp_kl_block blocks[MAX_STAGES];
    mp_kl_mid mid;
    mp_affine conv_norm_out, conv_out;
} side;

struct mp_autoencoder_kl {
    mp_weights *weights;
    mp_autoencoder_kl_facts facts;
    mp_kl_config config;
    int stages;
    int64_t channels[MAX_STAGES];
    bool use_quant_conv, use_post_quant_conv;
    side encoder, decoder;
    mp_affine quant_conv, post_quant_conv;
};

/* ---- configuration -------------------------------------------------------------------------- */

static void parse_types(mp_config *j, const char *key, const char *type, int n, mp_error *err)
{
    const char *names[MAX_STAGES];

    if (mp_config_strings(j, key, names, n, type, err))
        return;
    if (n > 1 && !mp_config_has(j, key))
        mp_error_set(err, MP_EFORMAT, "%s: \"%s\": expected one type for each of the %d channels",
                     mp_config_path(j), key, n);
    for (int i = 0; i < n; i++)
        if (strcmp(names[i], type))
            mp_error_set(err, MP_EUNSUPPORTED, "%s: \"%s\": \"%.40s\" is not %s, all that is known",
                         mp_config_path(j), key, names[i], type);
}

static void parse_stages(mp_autoencoder_kl *m, mp_config *j, mp_error *err)
{
    m->stages =
        mp_config_ints(j, "block_out_channels", m->channels, MAX_STAGES, 1, MAX_CHANNELS, err);
    if (m->stages < 0) {
        m->stages = 1;
        m->channels[0] = 64;
    }
    if (m->stages == 0)
        mp_error_set(err, MP_EFORMAT, "%s: \"block_out_channels\" is empty", mp_config_path(j));
    if (err->code)
        return;
    m->facts.compression = (int64_t)1 << (m->stages - 1);
    parse_types(j, "down_block_types", "DownEncoderBlock2D", m->stages, err);
    parse_types(j, "up_block_types", "UpDecoderBlock2D", m->stages, err);
    for (int i = 0; i < m->stages; i++)
        if (m->channels[i] % m->config.groups)
            mp_error_set(err, MP_EFORMAT,
                         "%s: %lld channels of \"block_out_channels\" are no multiple of "
                         "\"norm_num_groups\" %d",
                         mp_config_path(j), (long long)m->channels[i], m->config.groups);
}

static void parse_layers(mp_autoencoder_kl *m, mp_config *j, mp_error *err)
{
    const int64_t layers = mp_config_int(j, "layers_per_block", 1, 1, MAX_LAYERS, err);
    const bool attention = mp_config_bool(j, "mid_block_add_attention", true, err);

    m->encoder.mid.attention = m->decoder.mid.attention = attention;
    for (int i = 0; i < m->stages; i++) {
        m->encoder.blocks[i].layers = layers;
        m->decoder.blocks[i].layers = layers + 1;
        m->encoder.blocks[i].resample = m->decoder.blocks[i].resample = i < m->stages - 1;
    }
}

/* Keys that change what a pipeline does with latents, or nothing at all. */
static void parse_rest(mp_autoencoder_kl *m, mp_config *j, mp_error *err)
{
    static const char *const per_channel[] = {"latents_mean", "latents_std"};
    char unknown[400];

    m->facts.scaling_factor = mp_config_number(j, "scaling_factor", 0.18215, err);
    m->facts.has_shift_factor = mp_config_has(j, "shift_factor");
    m->facts.shift_factor = mp_config_number(j, "shift_factor", 0.0, err);
    m->facts.force_upcast = mp_config_bool(j, "force_upcast", true, err);
    mp_config_int(j, "sample_size", 32, 1, MAX_TILE, err); /* tiles come from the scenario */
    for (int i = 0; i < 2; i++) {
        if (mp_config_has(j, per_channel[i]))
            mp_error_set(err, MP_EUNSUPPORTED,
                         "%s: \"%s\": latents that are normalised channel by channel are not "
                         "known; expected null",
                         mp_config_path(j), per_channel[i]);
        mp_config_number(j, per_channel[i], 0, err); /* null: asked for, and so not unknown */
    }
    if (mp_config_unknown(j, unknown, sizeof unknown))
        mp_error_set(err, MP_EUNSUPPORTED,
                     "%s: unknown keys: %s; this build knows AutoencoderKL of Diffusers 0.42",
                     mp_config_path(j), unknown);
}

static void parse_config(mp_autoencoder_kl *m, mp_config *j, mp_error *err)
{
    const char *const act = mp_config_string(j, "act_fn", "silu", err);

    m->facts.in_channels = mp_config_int(j, "in_channels", 3, 1, MAX_CHANNELS, err);
    m->facts.out_channels = mp_config_int(j, "out_channels", 3, 1, MAX_CHANNELS, err);
    m->facts.latent_channels = mp_config_int(j, "latent_channels", 4, 1, MAX_CHANNELS, err);
    m->config.groups = (int)mp_config_int(j, "norm_num_groups", 32, 1, MAX_CHANNELS, err);
    m->use_quant_conv = mp_config_bool(j, "use_quant_conv", true, err);
    m->use_post_quant_conv = mp_config_bool(j, "use_post_quant_conv", true, err);
    if (act && !mp_act_parse(act, &m->config.act))
        mp_error_set(err, MP_EUNSUPPORTED, "%s: \"act_fn\": unknown activation \"%.40s\"",
                     mp_config_path(j), act);
    parse_stages(m, j, err);
    if (!err->code)
        parse_layers(m, j, err);
    parse_rest(m, j, err);
}

static mp_code read_config(mp_autoencoder_kl *m, const char *dir, mp_error *err)
{
    mp_config *j = NULL;

    if (!mp_config_open(dir, "config.json", &j, err))
        parse_config(m, j, err);
    mp_config_close(j);
    return err->code;
}

mp_code mp_autoencoder_kl_facts_of(const char *dir, mp_autoencoder_kl_facts *out, mp_error *err)
{
    mp_autoencoder_kl m = {0};

    if (!read_config(&m, dir, err))
        *out = m.facts;
    return err->code;
}

/* ---- parameters ----------------------------------------------------------------------------- */

static void bind_ends(mp_weights *w, side *s, const char *name, const int64_t ends[4])
{
    mp_weights_bind_conv2d(w, &s->conv_in, ends[1], ends[0], 3, true, "%s.conv_in", name);
    mp_kl_norm_bind(w, &s->conv_norm_out, ends[2], name, "conv_norm_out");
    mp_weights_bind_conv2d(w, &s->conv_out, ends[3], ends[2], 3, true, "%s.conv_out", name);
}

static void bind_encoder(mp_autoencoder_kl *m, mp_error *err)
{
    side *const s = &m->encoder;
    const int64_t first = m->channels[0], last = m->channels[m->stages - 1];
    char path[MP_KL_PATH];

    bind_ends(m->weights, s, "encoder",
              MP_DIMS(m->facts.in_channels, first, last, 2 * m->facts.latent_channels));
    for (int i = 0; i < m->stages; i++) {
        snprintf(path, sizeof path, "encoder.down_blocks.%d", i);
        mp_kl_down_bind(m->weights, &s->blocks[i], m->channels[i ? i - 1 : 0], m->channels[i], path,
                        err);
    }
    mp_kl_mid_bind(m->weights, &s->mid, last, "encoder.mid_block");
}

static void bind_decoder(mp_autoencoder_kl *m, mp_error *err)
{
    side *const s = &m->decoder;
    const int top = m->stages - 1;
    char path[MP_KL_PATH];

    bind_ends(
        m->weights, s, "decoder",
        MP_DIMS(m->facts.latent_channels, m->channels[top], m->channels[0], m->facts.out_channels));
    mp_kl_mid_bind(m->weights, &s->mid, m->channels[top], "decoder.mid_block");
    for (int i = 0; i < m->stages; i++) {
        snprintf(path, sizeof path, "decoder.up_blocks.%d", i);
        mp_kl_up_bind(m->weights, &s->blocks[i], m->channels[i ? top - i + 1 : top],
                      m->channels[top - i], path, err);
    }
}

static mp_code bind_all(mp_autoencoder_kl *m, mp_error *err)
{
    const int64_t latent = m->facts.latent_channels;

    bind_encoder(m, err);
    bind_decoder(m, err);
    if (m->use_quant_conv)
        mp_weights_bind_conv2d(m->weights, &m->quant_conv, 2 * latent, 2 * latent, 1, true,
                               "quant_conv");
    if (m->use_post_quant_conv)
        mp_weights_bind_conv2d(m->weights, &m->post_quant_conv, latent, latent, 1, true,
                               "post_quant_conv");
    return err->code ? err->code : mp_weights_finish(m->weights, err);
}

mp_code mp_autoencoder_kl_open(const char *dir, const mp_weights_options *o,
                               mp_autoencoder_kl **out, mp_error *err)
{
    mp_autoencoder_kl *m = mp_alloc(1, sizeof *m);

    if (!m)
        return mp_error_set(err, MP_ENOMEM, "no memory for the autoencoder");
    if (!read_config(m, dir, err) && !mp_weights_open(dir, o, &m->weights, err))
        bind_all(m, err);
    if (err->code) {
        mp_autoencoder_kl_close(m);
        return err->code;
    }
    *out = m;
    return MP_OK;
}

void mp_autoencoder_kl_close(mp_autoencoder_kl *m)
{
    if (!m)
        return;
    for (int i = 0; i < MAX_STAGES; i++) {
        mp_free(m->encoder.blocks[i].resnets);
        mp_free(m->decoder.blocks[i].resnets);
    }
    mp_weights_close(m->weights);
    mp_free(m);
}

mp_weights *mp_autoencoder_kl_weights(const mp_autoencoder_kl *m)
{
    return m->weights;
}

mp_autoencoder_kl_facts mp_autoencoder_kl_get_facts(const mp_autoencoder_kl *m)
{
    return m->facts;
}

/* ---- forward -------------------------------------------------------------------------------- */

/* conv_out(silu(Norm(x))): the activation is SiLU whatever act_fn says. */
static mp_tensor finish(mp_ctx *c, const mp_autoencoder_kl *m, const side *s, mp_tensor x)
{
    const mp_mark mark = mp_open(c);

    x = mp_kl_norm_forward(c, &m->config, &s->conv_norm_out, x);
    x = mp_keep(c, mark, mp_leave(c, mp_activate_(c, mp_enter(c, x, "conv_act"), MP_ACT_SILU)));
    return mp_keep(c, mark, mp_apply_conv2d(c, &s->conv_out, x, conv3x3));
}

static mp_tensor middle(mp_ctx *c, const mp_autoencoder_kl *m, const side *s, mp_tensor x)
{
    return mp_leave(c, mp_kl_mid_forward(c, &m->config, &s->mid, mp_enter(c, x, "mid_block")));
}

/* x [B, H, W, in] -> [B, H/f, W/f, 2*latent] */
static mp_tensor encode(mp_ctx *c, const void *model, mp_tensor x)
{
    const mp_autoencoder_kl *const m = model;
    const side *const s = &m->encoder;
    const mp_mark mark = mp_open(c);

    x = mp_apply_conv2d(c, &s->conv_in, mp_enter(c, x, "encoder"), conv3x3);
    for (int i = 0; i < m->stages; i++) {
        x = mp_enter(c, x, "down_blocks.%d", i);
        x = mp_leave(c, mp_kl_down_forward(c, &m->config, &s->blocks[i], x));
        x = mp_keep(c, mark, x);
    }
    x = mp_keep(c, mark, middle(c, m, s, x));
    x = mp_keep(c, mark, mp_leave(c, finish(c, m, s, x)));
    if (m->use_quant_conv)
        x = mp_keep(c, mark, mp_apply_conv2d(c, &m->quant_conv, x, conv1x1));
    return x;
}

/* z [B, h, w, latent] -> [B, h*f, w*f, out] */
static mp_tensor decode(mp_ctx *c, const void *model, mp_tensor z)
{
    const mp_autoencoder_kl *const m = model;
    const side *const s = &m->decoder;
    const mp_mark mark = mp_open(c);

    if (m->use_post_quant_conv)
        z = mp_apply_conv2d(c, &m->post_quant_conv, z, conv1x1);
    z = mp_enter(c, z, "decoder");
    mp_tensor x = mp_keep(c, mark, mp_apply_conv2d(c, &s->conv_in, z, conv3x3));
    x = mp_keep(c, mark, middle(c, m, s, x));
    for (int i = 0; i < m->stages; i++) {
        x = mp_enter(c, x, "up_blocks.%d", i);
        x = mp_leave(c, mp_kl_up_forward(c, &m->config, &s->blocks[i], x));
        x = mp_keep(c, mark, x);
    }
    return mp_keep(c, mark, mp_leave(c, finish(c, m, s, x)));
}

/* ---- tiles and slices ----------------------------------------------------------------------- */

/* Diffusers' int(size * factor). */
static int64_t truncated(int64_t size, double factor)
{
    return (int64_t)((double)size * factor);
}

mp_code mp_autoencoder_kl_tiling_check(const mp_tiling *t, int64_t compression, mp_error *err)
{
    const long long tile = t->tile_height, stride = t->stride_height, f = compression;

    if (!t->on || mp_tiling_check(t, compression, err))
        return err->code;
    if (t->tile_width != tile || t->stride_width != stride)
        return mp_error_set(err, MP_EUNSUPPORTED,
                            "tiling: AutoencoderKL has one tile size and one overlap for both "
                            "directions, found tiles of %lldx%lld pixels every %lldx%lld (height x "
                            "width); use square tiles and strides, [%lld, %lld] and [%lld, %lld]",
                            tile, (long long)t->tile_width, stride, (long long)t->stride_width,
                            tile, tile, stride, stride);
    if (tile % f || stride % f || tile > MAX_TILE)
        return mp_error_set(
            err, MP_EUNSUPPORTED,
            "tiling: with a tile of %lld and a stride of %lld pixels AutoencoderKL's "
            "pieces would not fit together; use multiples of %lld, at most %d",
            tile, stride, f, MAX_TILE);
    const int64_t latent = tile / f;
    const double overlap = (double)(tile - stride) / (double)tile;
    if (truncated(latent, 1 - overlap) == stride / f && truncated(tile, 1 - overlap) == stride &&
        truncated(latent, overlap) == latent - stride / f &&
        truncated(tile, overlap) == tile - stride)
        return MP_OK;
    return mp_error_set(err, MP_EUNSUPPORTED,
                        "tiling: AutoencoderKL takes the stride as an overlap factor, and for %lld "
                        "of %lld pixels int(size * factor) loses a pixel, so that pieces would not "
                        "fit together; use a stride of a half or three quarters of the tile",
                        stride, tile);
}

/* Whether the autoencoder works in tiles, given the extents in the units of its input. */
static bool in_tiles(const mp_tiling *t, mp_tensor x, int64_t factor)
{
    return t && t->on && (x.dim[1] > t->tile_height / factor || x.dim[2] > t->tile_width / factor);
}

/* The encoder halves, rounding down, and its convolutions need two pixels to halve: torch fails at
 * a picture, or a tile at the edge, that is smaller than the compression. */
static bool encodable(mp_ctx *c, mp_tensor x, int64_t compression, const mp_tiling *tiles)
{
    for (int axis = 1; axis <= 2; axis++) {
        const int64_t step = tiles ? tiles->stride_height : x.dim[axis];
        const int64_t least = x.dim[axis] ? (x.dim[axis] - 1) % step + 1 : 0;
        if (least >= compression)
            continue;
        mp_fail(c, MP_ESHAPE, NULL,
                "%s of %lld pixels in %s is smaller than one latent pixel (%lld); use a picture of "
                "a multiple of %lld pixels%s",
                tiles ? "the tile at the edge" : "a picture", (long long)least,
                axis == 1 ? "height" : "width", (long long)compression, (long long)compression,
                tiles ? ", or another stride" : "");
        return false;
    }
    return true;
}

static mp_tensor run_one(mp_ctx *c, const mp_autoencoder_kl *m, mp_tensor x, bool encoding,
                         const mp_tiling *tiles)
{
    const int64_t f = m->facts.compression;
    mp_tile_fn *const fn = encoding ? encode : decode;

    if (!tiles)
        return fn(c, m, x);
    mp_tile_plan plan = encoding ? mp_tile_plan_encode(tiles, f, x.dim[1], x.dim[2])
                                 : mp_tile_plan_decode(tiles, f);
    plan.multiple = 0; /* Diffusers pads no tile here */
    return mp_tiled_forward(c, &plan, x, fn, m);
}

/* One sample after the other; results are joined at the end, as in Diffusers. */
static mp_tensor run_slices(mp_ctx *c, const mp_autoencoder_kl *m, mp_tensor x, bool encoding,
                            const mp_tiling *tiles)
{
    const mp_mark start = mp_open(c);
    mp_tensor *const parts = mp_alloc((size_t)x.dim[0], sizeof *parts), y = MP_NONE;

    if (!parts)
        return mp_fail(c, MP_ENOMEM, NULL, "no memory for %lld slices", (long long)x.dim[0]);
    for (int64_t i = 0; i < x.dim[0] && !mp_failed(c); i++) {
        const mp_mark mark = mp_open(c);
        parts[i] = mp_keep(c, mark, run_one(c, m, mp_batch(x, i, 1), encoding, tiles));
    }
    if (!mp_failed(c))
        y = mp_cat(c, (int)x.dim[0], parts, 0);
    mp_free(parts);
    return mp_keep(c, start, y);
}

static mp_tensor run(mp_ctx *c, const mp_autoencoder_kl *m, mp_tensor x, bool encoding,
                     mp_autoencoder_kl_run r)
{
    const int64_t f = m->facts.compression;
    mp_error err = {0};
    mp_tensor y = MP_NONE;

    if (mp_failed(c))
        return MP_NONE;
    const mp_mark mark = mp_open(c);
    x = mp_enter(c, x, "vae");
    if (x.rank != 4 || x.dim[0] < 1 || x.dim[0] > INT32_MAX) {
        mp_fail(c, MP_ESHAPE, NULL, "expected a batch of pictures or latents [B, H, W, C]");
    } else {
        const mp_tiling *const tiles = in_tiles(r.tiling, x, encoding ? 1 : f) ? r.tiling : NULL;
        if (tiles && mp_autoencoder_kl_tiling_check(tiles, f, &err))
            mp_fail(c, err.code, NULL, "%s", err.text);
        else if (!encoding || encodable(c, x, f, tiles))
            y = r.slicing && x.dim[0] > 1 ? run_slices(c, m, x, encoding, tiles)
                                          : run_one(c, m, x, encoding, tiles);
    }
    return mp_keep(c, mark, mp_leave(c, y));
}

mp_tensor mp_autoencoder_kl_decode(mp_ctx *c, const mp_autoencoder_kl *m, mp_tensor z,
                                   mp_autoencoder_kl_run r)
{
    return run(c, m, z, false, r);
}

mp_tensor mp_autoencoder_kl_encode(mp_ctx *c, const mp_autoencoder_kl *m, mp_tensor x,
                                   mp_autoencoder_kl_run r)
{
    return run(c, m, x, true, r);
}

/* ---- the distribution ----------------------------------------------------------------------- */

/* torch.chunk(moments, 2) over the channels. */
static mp_tensor half_of(mp_ctx *c, mp_tensor moments, int which)
{
    const int64_t n = mp_failed(c) ? 0 : mp_dim(moments, -1) / 2;

    return mp_narrow_axis(c, moments, -1, which * n, n);
}

mp_tensor mp_gaussian_mean(mp_ctx *c, mp_tensor moments)
{
    return half_of(c, moments, 0);
}

mp_tensor mp_gaussian_logvar(mp_ctx *c, mp_tensor moments)
{
    const mp_mark mark = mp_open(c);

    return mp_keep(c, mark, mp_clip(c, half_of(c, moments, 1), -30.0f, 20.0f));
}

mp_tensor mp_gaussian_std(mp_ctx *c, mp_tensor moments)
{
    const mp_mark mark = mp_open(c);

    return mp_keep(c, mark, mp_exp(c, mp_mul_scalar(c, mp_gaussian_logvar(c, moments), 0.5f)));
}

mp_tensor mp_gaussian_sample(mp_ctx *c, mp_tensor moments, mp_tensor noise)
{
    const mp_mark mark = mp_open(c);
    const mp_tensor spread = mp_mul(c, mp_gaussian_std(c, moments), noise);

    return mp_keep(c, mark, mp_add(c, mp_gaussian_mean(c, moments), spread));
}
