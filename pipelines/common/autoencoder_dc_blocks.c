#include "pipelines/common/autoencoder_dc_blocks.h"

#include <stdio.h>

#include "pipelines/common/layers.h"

/* Fixed in the model's code, not in its configuration. */
static const float norm_eps = 1e-5f;
static const float attention_eps = 1e-15f;
static const int64_t bottleneck_ratio = 4; /* expand_ratio of the GLUMBConv */

static const mp_conv2d_opts conv3x3 = {.padding = 1};
static const mp_conv2d_opts conv3x3_stride2 = {.padding = 1, .stride = 2};

static void bind_norm(mp_weights *w, mp_dc_norm *p, mp_dc_norm_type type, int64_t channels,
                      const char *path)
{
    p->type = type;
    mp_weights_bind(w, &p->weight, 1, MP_DIMS(channels), "%s.weight", path);
    mp_weights_bind(w, &p->bias, 1, MP_DIMS(channels), "%s.bias", path);
    if (type == MP_DC_BATCH_NORM) {
        mp_weights_bind(w, &p->mean, 1, MP_DIMS(channels), "%s.running_mean", path);
        mp_weights_bind(w, &p->var, 1, MP_DIMS(channels), "%s.running_var", path);
    }
}

static mp_tensor apply_norm(mp_ctx *c, const mp_dc_norm *p, mp_tensor x)
{
    if (p->type == MP_DC_BATCH_NORM)
        return mp_batch_norm(c, x, p->mean, p->var, p->weight, p->bias, norm_eps);
    return mp_rms_norm(c, x, p->weight, p->bias, norm_eps, MP_RMS_DIFFUSERS);
}

static void bind_attention(mp_weights *w, mp_dc_attention *p, const mp_dc_block_config *o,
                           const char *path)
{
    char name[MP_DC_PATH + 32];
    const int64_t heads = o->channels / o->head_dim, inner = heads * o->head_dim;

    *p = (mp_dc_attention){.scales = o->scales,
                           .heads = (int)heads,
                           .head_dim = (int)o->head_dim,
                           .no_cast_back = o->no_cast_back};
    mp_weights_bind_linear(w, &p->to_q, inner, o->channels, false, "%s.to_q", path);
    mp_weights_bind_linear(w, &p->to_k, inner, o->channels, false, "%s.to_k", path);
    mp_weights_bind_linear(w, &p->to_v, inner, o->channels, false, "%s.to_v", path);
    for (int i = 0; i < o->scales; i++) {
        mp_weights_bind_conv2d(w, &p->proj_in[i], 3 * inner, 1, (int)o->kernel_sizes[i], false,
                               "%s.to_qkv_multiscale.%d.proj_in", path, i);
        mp_weights_bind_conv2d(w, &p->proj_out[i], 3 * inner, o->head_dim, 1, false,
                               "%s.to_qkv_multiscale.%d.proj_out", path, i);
    }
    mp_weights_bind_linear(w, &p->to_out, o->channels, inner * (1 + o->scales), false, "%s.to_out",
                           path);
    snprintf(name, sizeof name, "%s.norm_out", path);
    bind_norm(w, &p->norm_out, o->norm, o->channels, name);
}

void mp_dc_block_bind(mp_weights *w, mp_dc_block *p, const mp_dc_block_config *o, const char *path)
{
    char name[MP_DC_PATH + 16];

    *p = (mp_dc_block){.vit = o->vit, .act = o->act};
    if (o->vit) {
        snprintf(name, sizeof name, "%s.attn", path);
        bind_attention(w, &p->attn, o, name);
        snprintf(name, sizeof name, "%s.conv_out", path);
        mp_glumbconv_bind(w, &p->conv_out, o->channels, bottleneck_ratio * o->channels, true, name);
        return;
    }
    mp_weights_bind_conv2d(w, &p->conv1, o->channels, o->channels, 3, true, "%s.conv1", path);
    mp_weights_bind_conv2d(w, &p->conv2, o->channels, o->channels, 3, false, "%s.conv2", path);
    snprintf(name, sizeof name, "%s.norm", path);
    bind_norm(w, &p->norm, o->norm, o->channels, name);
}

/* x + Norm(W2 act(W1 x)), 3x3 convolutions */
static mp_tensor res_block(mp_ctx *c, const mp_dc_block *p, mp_tensor x)
{
    const mp_mark mark = mp_open(c);
    mp_tensor u = mp_apply_conv2d(c, &p->conv1, x, conv3x3);

    if (p->act != MP_ACT_NONE)
        u = mp_activate_(c, u, p->act);
    u = mp_keep(c, mark, mp_apply_conv2d(c, &p->conv2, u, conv3x3));
    u = mp_keep(c, mark, mp_leave(c, apply_norm(c, &p->norm, mp_enter(c, u, "norm"))));
    return mp_keep(c, mark, mp_add(c, u, x));
}

/* [q k v] of every scale side by side: x [B, H, W, C] -> [B, H, W, (1 + scales) * 3 * inner] */
static mp_tensor multiscale_qkv(mp_ctx *c, const mp_dc_attention *p, mp_tensor x)
{
    const mp_mark mark = mp_open(c);
    mp_tensor qkv[1 + MP_DC_SCALES];
    const mp_tensor parts[] = {mp_apply_linear(c, &p->to_q, x), mp_apply_linear(c, &p->to_k, x),
                               mp_apply_linear(c, &p->to_v, x)};

    qkv[0] = mp_keep(c, mark, mp_cat(c, 3, parts, -1));
    if (!p->scales || mp_failed(c))
        return qkv[0];
    for (int i = 0; i < p->scales; i++) {
        const mp_mark inner = mp_open(c);
        const mp_conv2d_opts depthwise = {.padding = (int)p->proj_in[i].weight.dim[2] / 2,
                                          .groups = (int)p->proj_in[i].weight.dim[0]};
        const mp_conv2d_opts per_head = {.groups = 3 * p->heads};
        mp_tensor u = mp_apply_conv2d(c, &p->proj_in[i], qkv[0], depthwise);
        qkv[1 + i] = mp_keep(c, inner, mp_apply_conv2d(c, &p->proj_out[i], u, per_head));
    }
    return mp_keep(c, mark, mp_cat(c, 1 + p->scales, qkv, -1));
}

/* x + Norm(Wo Attn(multi-scale q, k, v)): linear attention where there are more pixels than
 * channels in a head, quadratic attention below. */
static mp_tensor attention(mp_ctx *c, const mp_dc_attention *p, mp_tensor x)
{
    const mp_mark mark = mp_open(c);
    mp_tensor u = multiscale_qkv(c, p, x);

    if (mp_failed(c))
        return MP_NONE;
    u = x.dim[1] * x.dim[2] > p->head_dim
            ? mp_attn_multiscale_linear(c, u, p->head_dim, attention_eps)
            : mp_attn_multiscale_quadratic(c, u, p->head_dim, attention_eps, p->no_cast_back);
    u = mp_keep(c, mark, u);
    u = mp_keep(c, mark, mp_apply_linear(c, &p->to_out, u));
    u = mp_keep(c, mark, mp_leave(c, apply_norm(c, &p->norm_out, mp_enter(c, u, "norm_out"))));
    return mp_keep(c, mark, mp_add(c, u, x));
}

/* x = Attn(x);  x + GLUMBConv(x) */
static mp_tensor vit_block(mp_ctx *c, const mp_dc_block *p, mp_tensor x)
{
    const mp_mark mark = mp_open(c);

    x = mp_leave(c, attention(c, &p->attn, mp_enter(c, x, "attn")));
    x = mp_enter(c, x, "conv_out");
    x = mp_leave(c, mp_add(c, mp_glumbconv_forward(c, &p->conv_out, x), x));
    return mp_keep(c, mark, x);
}

mp_tensor mp_dc_block_forward(mp_ctx *c, const mp_dc_block *p, mp_tensor x)
{
    return p->vit ? vit_block(c, p, x) : res_block(c, p, x);
}

void mp_dc_down_bind(mp_weights *w, mp_dc_resample *p, const char *path)
{
    mp_weights_bind_conv2d(w, &p->conv, p->resample ? p->out / 4 : p->out, p->in, 3, true,
                           "%s.conv", path);
}

void mp_dc_up_bind(mp_weights *w, mp_dc_resample *p, const char *path)
{
    mp_weights_bind_conv2d(w, &p->conv, p->resample ? p->out : 4 * p->out, p->in, 3, true,
                           "%s.conv", path);
}

mp_tensor mp_dc_down_forward(mp_ctx *c, const mp_dc_resample *p, mp_tensor x)
{
    const mp_mark mark = mp_open(c);
    mp_tensor u = mp_apply_conv2d(c, &p->conv, x, p->resample ? conv3x3 : conv3x3_stride2);

    if (p->resample)
        u = mp_keep(c, mark, mp_pixel_unshuffle(c, u, 2));
    if (!p->shortcut)
        return u;
    /* + the mean of neighbouring channels of the unshuffled input */
    const mp_mark inner = mp_open(c);
    mp_tensor y = mp_pixel_unshuffle(c, x, 2);
    y = mp_keep(c, inner, mp_mean_channels(c, y, (int)(4 * p->in / p->out)));
    return mp_keep(c, mark, mp_add(c, u, y));
}

mp_tensor mp_dc_up_forward(mp_ctx *c, const mp_dc_resample *p, mp_tensor x)
{
    const mp_mark mark = mp_open(c);
    mp_tensor u = p->resample ? mp_keep(c, mark, mp_upsample_nearest2(c, x)) : x;

    u = mp_keep(c, mark, mp_apply_conv2d(c, &p->conv, u, conv3x3));
    if (!p->resample)
        u = mp_keep(c, mark, mp_pixel_shuffle(c, u, 2));
    if (!p->shortcut)
        return u;
    /* + the input, its channels repeated and shuffled into pixels */
    const mp_mark inner = mp_open(c);
    mp_tensor y = mp_repeat_channels(c, x, (int)(4 * p->out / p->in));
    y = mp_keep(c, inner, mp_pixel_shuffle(c, y, 2));
    return mp_keep(c, mark, mp_add(c, u, y));
}
