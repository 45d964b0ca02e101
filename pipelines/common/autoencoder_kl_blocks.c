#include "pipelines/common/autoencoder_kl_blocks.h"

#include <stdio.h>

#include "kernels/core/memory.h"
#include "pipelines/common/layers.h"

static const float norm_eps = 1e-6f; /* fixed in the model's code: resnet_eps */

static const mp_conv2d_opts conv3x3 = {.padding = 1};
static const mp_conv2d_opts conv3x3_stride2 = {.stride = 2};
static const mp_conv2d_opts conv1x1 = {0};

/* ---- norm ----------------------------------------------------------------------------------- */

void mp_kl_norm_bind(mp_weights *w, mp_affine *p, int64_t channels, const char *path,
                     const char *name)
{
    mp_weights_bind(w, &p->weight, 1, MP_DIMS(channels), "%s.%s.weight", path, name);
    mp_weights_bind(w, &p->bias, 1, MP_DIMS(channels), "%s.%s.bias", path, name);
}

mp_tensor mp_kl_norm_forward(mp_ctx *c, const mp_kl_config *o, const mp_affine *p, mp_tensor x)
{
    return mp_group_norm(c, x, o->groups, p->weight, p->bias, norm_eps);
}

/* ---- residual block ------------------------------------------------------------------------- */

static void bind_resnet(mp_weights *w, mp_kl_resnet *p, int64_t in, int64_t out, const char *path)
{
    mp_kl_norm_bind(w, &p->norm1, in, path, "norm1");
    mp_weights_bind_conv2d(w, &p->conv1, out, in, 3, true, "%s.conv1", path);
    mp_kl_norm_bind(w, &p->norm2, out, path, "norm2");
    mp_weights_bind_conv2d(w, &p->conv2, out, out, 3, true, "%s.conv2", path);
    if (in != out)
        mp_weights_bind_conv2d(w, &p->conv_shortcut, out, in, 1, true, "%s.conv_shortcut", path);
}

/* S(x) + W2 act(Norm(W1 act(Norm(x)))).  Norm, activation, convolution and sum round once each;
 * Diffusers' division by output_scale_factor 1 changes nothing. */
static mp_tensor resnet(mp_ctx *c, const mp_kl_config *o, const mp_kl_resnet *p, mp_tensor x)
{
    const mp_mark mark = mp_open(c);
    mp_tensor u = mp_kl_norm_forward(c, o, &p->norm1, x);

    u = mp_keep(c, mark, mp_activate_(c, u, o->act));
    u = mp_keep(c, mark, mp_apply_conv2d(c, &p->conv1, u, conv3x3));
    u = mp_kl_norm_forward(c, o, &p->norm2, u);
    u = mp_keep(c, mark, mp_activate_(c, u, o->act));
    u = mp_keep(c, mark, mp_apply_conv2d(c, &p->conv2, u, conv3x3));
    if (mp_given(p->conv_shortcut.weight))
        x = mp_apply_conv2d(c, &p->conv_shortcut, x, conv1x1);
    return mp_keep(c, mark, mp_add(c, x, u));
}

static mp_tensor resnets(mp_ctx *c, const mp_kl_config *o, const mp_kl_block *p, mp_tensor x)
{
    const mp_mark mark = mp_open(c);

    for (int64_t i = 0; i < p->layers; i++) {
        x = resnet(c, o, &p->resnets[i], mp_enter(c, x, "resnets.%lld", (long long)i));
        x = mp_keep(c, mark, mp_leave(c, x));
    }
    return x;
}

/* ---- attention ------------------------------------------------------------------------------ */

static void bind_attention(mp_weights *w, mp_kl_attention *p, int64_t n, const char *path)
{
    mp_kl_norm_bind(w, &p->group_norm, n, path, "group_norm");
    mp_weights_bind_linear(w, &p->to_q, n, n, true, "%s.to_q", path);
    mp_weights_bind_linear(w, &p->to_k, n, n, true, "%s.to_k", path);
    mp_weights_bind_linear(w, &p->to_v, n, n, true, "%s.to_v", path);
    mp_weights_bind_linear(w, &p->to_out, n, n, true, "%s.to_out.0", path);
}

/* The processor hands to_q, to_k and to_v a transposed view, and torch's linear fuses the bias of a
 * contiguous input only: otherwise the product rounds, and the sum with the bias, in place, rounds
 * again.  The view of a single pixel counts as contiguous. */
static mp_tensor project(mp_ctx *c, const mp_affine *p, const char *name, mp_tensor x)
{
    const mp_mark mark = mp_open(c);
    mp_tensor y;

    if (mp_failed(c))
        return MP_NONE;
    x = mp_enter(c, x, "%s", name); /* a cast keeps the strides */
    if (x.dim[1] == 1)
        y = mp_apply_linear(c, p, x);
    else
        y = mp_cast(c, mp_add(c, mp_linear(c, x, p->weight, MP_NONE), p->bias), x.dtype);
    return mp_keep(c, mark, mp_leave(c, y));
}

/* x + Wo softmax(q k^T / sqrt(C)) v of the normed pixels, one head of all channels. */
static mp_tensor attention(mp_ctx *c, const mp_kl_config *o, const mp_kl_attention *p, mp_tensor x)
{
    const mp_mark mark = mp_open(c);
    mp_tensor u = mp_kl_norm_forward(c, o, &p->group_norm, x);

    if (mp_failed(c))
        return MP_NONE;
    u = mp_reshape(u, 3, MP_DIMS(x.dim[0], x.dim[1] * x.dim[2], x.dim[3]));
    const mp_tensor q = project(c, &p->to_q, "to_q", u), k = project(c, &p->to_k, "to_k", u),
                    v = project(c, &p->to_v, "to_v", u);
    u = mp_keep(c, mark,
                mp_attn_softmax(c, q, k, v, (mp_attn_opts){.heads = 1, .rounding = MP_ATTN_SDPA}));
    u = mp_keep(c, mark, mp_apply_linear(c, &p->to_out, u));
    if (mp_failed(c))
        return MP_NONE;
    u = mp_reshape(u, 4, x.dim);
    return mp_keep(c, mark, mp_add(c, u, x));
}

/* ---- blocks --------------------------------------------------------------------------------- */

static mp_code bind_block(mp_weights *w, mp_kl_block *p, int64_t in, int64_t out, const char *path,
                          const char *sampler, mp_error *err)
{
    char name[MP_KL_PATH + 32];

    p->resnets = mp_alloc((size_t)p->layers, sizeof *p->resnets);
    if (!p->resnets)
        return mp_error_set(err, MP_ENOMEM, "no memory for the autoencoder's blocks");
    for (int64_t i = 0; i < p->layers; i++) {
        snprintf(name, sizeof name, "%s.resnets.%lld", path, (long long)i);
        bind_resnet(w, &p->resnets[i], i ? out : in, out, name);
    }
    if (p->resample)
        mp_weights_bind_conv2d(w, &p->conv, out, out, 3, true, "%s.%s.0.conv", path, sampler);
    return MP_OK;
}

mp_code mp_kl_down_bind(mp_weights *w, mp_kl_block *p, int64_t in, int64_t out, const char *path,
                        mp_error *err)
{
    return bind_block(w, p, in, out, path, "downsamplers", err);
}

mp_code mp_kl_up_bind(mp_weights *w, mp_kl_block *p, int64_t in, int64_t out, const char *path,
                      mp_error *err)
{
    return bind_block(w, p, in, out, path, "upsamplers", err);
}

void mp_kl_mid_bind(mp_weights *w, mp_kl_mid *p, int64_t channels, const char *path)
{
    char name[MP_KL_PATH + 32];

    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "%s.resnets.%d", path, i);
        bind_resnet(w, &p->resnets[i], channels, channels, name);
    }
    snprintf(name, sizeof name, "%s.attentions.0", path);
    if (p->attention)
        bind_attention(w, &p->attn, channels, name);
}

/* Zeros at the bottom and right only, F.pad(x, (0, 1, 0, 1)), before a stride of 2. */
static mp_tensor downsample(mp_ctx *c, const mp_affine *conv, mp_tensor x)
{
    const mp_mark mark = mp_open(c);

    x = mp_pad_hw(c, x, 1, 1);
    return mp_keep(c, mark, mp_apply_conv2d(c, conv, x, conv3x3_stride2));
}

mp_tensor mp_kl_down_forward(mp_ctx *c, const mp_kl_config *o, const mp_kl_block *p, mp_tensor x)
{
    const mp_mark mark = mp_open(c);

    x = mp_keep(c, mark, resnets(c, o, p, x));
    if (!p->resample)
        return x;
    x = downsample(c, &p->conv, mp_enter(c, x, "downsamplers.0"));
    return mp_keep(c, mark, mp_leave(c, x));
}

mp_tensor mp_kl_up_forward(mp_ctx *c, const mp_kl_config *o, const mp_kl_block *p, mp_tensor x)
{
    const mp_mark mark = mp_open(c);

    x = mp_keep(c, mark, resnets(c, o, p, x));
    if (!p->resample)
        return x;
    x = mp_enter(c, x, "upsamplers.0");
    x = mp_keep(c, mark, mp_upsample_nearest2(c, x));
    return mp_keep(c, mark, mp_leave(c, mp_apply_conv2d(c, &p->conv, x, conv3x3)));
}

mp_tensor mp_kl_mid_forward(mp_ctx *c, const mp_kl_config *o, const mp_kl_mid *p, mp_tensor x)
{
    const mp_mark mark = mp_open(c);

    x = resnet(c, o, &p->resnets[0], mp_enter(c, x, "resnets.0"));
    x = mp_keep(c, mark, mp_leave(c, x));
    if (p->attention) {
        x = attention(c, o, &p->attn, mp_enter(c, x, "attentions.0"));
        x = mp_keep(c, mark, mp_leave(c, x));
    }
    x = resnet(c, o, &p->resnets[1], mp_enter(c, x, "resnets.1"));
    return mp_keep(c, mark, mp_leave(c, x));
}
