#include "pipelines/sana/transformer.h"

#include <stdio.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "pipelines/common/config.h"
#include "pipelines/common/embeddings.h"
#include "pipelines/common/glumbconv.h"
#include "pipelines/common/layers.h"

enum { TIME_CHANNELS = 256, MAX_LAYERS = 256, MAX_PATH = 96 };

/* Fixed in the model's code, not in its configuration. */
static const float qk_norm_eps = 1e-5f;
static const float caption_norm_eps = 1e-5f;
static const float norm_out_eps = 1e-6f;
static const float attention_eps = 1e-15f;
static const float masked = -10000.0f;

static const mp_affine no_norm; /* a norm without weight and bias */

typedef struct attention {
    mp_affine to_q, to_k, to_v, to_out;
    mp_affine norm_q, norm_k;
} attention;

typedef struct block {
    mp_tensor table; /* scale_shift_table [6, D] */
    attention self, cross;
    mp_affine norm2;
    mp_glumbconv ff;
} block;

typedef struct embedder {
    mp_affine linear_1, linear_2;
} embedder;

struct mp_sana_transformer {
    mp_sana_config config;
    mp_weights *weights;
    mp_affine patch; /* patch_embed.proj */
    bool round_positions;
    embedder time, guidance, caption;
    mp_affine time_linear; /* to six modulations */
    mp_tensor caption_norm;
    block *blocks;
    mp_tensor table; /* scale_shift_table [2, D] */
    mp_affine proj_out;
};

static int64_t inner_dim(const mp_sana_config *o)
{
    return o->heads * o->head_dim;
}

/* ---- configuration -------------------------------------------------------------------------- */

static mp_sana_qk_norm parse_qk_norm(mp_config *j, mp_error *err)
{
    const char *const name = mp_config_string(j, "qk_norm", NULL, err);

    if (!name)
        return MP_SANA_QK_NONE;
    if (!strcmp(name, "rms_norm_across_heads"))
        return MP_SANA_QK_RMS;
    if (!strcmp(name, "layer_norm_across_heads"))
        return MP_SANA_QK_LAYER;
    mp_error_set(err, MP_EUNSUPPORTED,
                 "%s: \"qk_norm\": \"%.40s\" is not supported; rms_norm_across_heads and "
                 "layer_norm_across_heads are",
                 mp_config_path(j), name);
    return MP_SANA_QK_NONE;
}

static void parse_config(mp_config *j, mp_sana_config *o, mp_error *err)
{
    o->in_channels = mp_config_int(j, "in_channels", 32, 1, 4096, err);
    o->out_channels = mp_config_int(j, "out_channels", 32, 0, 4096, err);
    o->heads = mp_config_int(j, "num_attention_heads", 70, 1, 4096, err);
    o->head_dim = mp_config_int(j, "attention_head_dim", 32, 1, 4096, err);
    o->layers = mp_config_int(j, "num_layers", 20, 0, MAX_LAYERS, err);
    o->cross_heads = mp_config_int(j, "num_cross_attention_heads", 20, 1, 4096, err);
    o->cross_head_dim = mp_config_int(j, "cross_attention_head_dim", 112, 1, 4096, err);
    o->cross_dim = mp_config_int(j, "cross_attention_dim", 2240, 1, 1 << 20, err);
    o->caption_channels = mp_config_int(j, "caption_channels", 2304, 1, 1 << 20, err);
    o->sample_size = mp_config_int(j, "sample_size", 32, 1, 1 << 16, err);
    o->patch_size = mp_config_int(j, "patch_size", 1, 1, 16, err);
    o->mlp_ratio = mp_config_number(j, "mlp_ratio", 2.5, err);
    o->norm_eps = mp_config_number(j, "norm_eps", 1e-6, err);
    o->timestep_scale = mp_config_number(j, "timestep_scale", 1.0, err);
    o->interpolation_scale = mp_config_number(j, "interpolation_scale", 0.0, err);
    o->guidance_embeds_scale = mp_config_number(j, "guidance_embeds_scale", 0.1, err);
    o->attention_bias = mp_config_bool(j, "attention_bias", false, err);
    o->norm_elementwise_affine = mp_config_bool(j, "norm_elementwise_affine", false, err);
    o->guidance_embeds = mp_config_bool(j, "guidance_embeds", false, err);
    o->qk_norm = parse_qk_norm(j, err);
    mp_config_number(j, "dropout", 0.0, err); /* nothing at inference */
    if (!mp_config_has(j, "out_channels") || !o->out_channels)
        o->out_channels = o->in_channels;
}

static void check_config(const mp_config *j, const mp_sana_config *o, mp_error *err)
{
    char unknown[400];

    if (!(o->mlp_ratio > 0 && o->mlp_ratio <= 64))
        mp_error_set(err, MP_EFORMAT, "%s: \"mlp_ratio\": expected a number in (0, 64], found %g",
                     mp_config_path(j), o->mlp_ratio);
    /* The block projects what caption_projection gives, which is as wide as the block. */
    if (o->cross_dim != inner_dim(o))
        mp_error_set(err, MP_EFORMAT,
                     "%s: \"cross_attention_dim\" is %lld, but the captions that it attends to are "
                     "%lld wide (num_attention_heads * attention_head_dim)",
                     mp_config_path(j), (long long)o->cross_dim, (long long)inner_dim(o));
    if (o->interpolation_scale > 0 && inner_dim(o) % 4)
        mp_error_set(err, MP_EFORMAT,
                     "%s: a positional embedding needs a width that 4 divides, found %lld",
                     mp_config_path(j), (long long)inner_dim(o));
    if (mp_config_unknown(j, unknown, sizeof unknown))
        mp_error_set(err, MP_EUNSUPPORTED,
                     "%s: unknown keys: %s; this build knows SanaTransformer2DModel of Diffusers "
                     "0.42",
                     mp_config_path(j), unknown);
}

mp_code mp_sana_config_read(const char *dir, mp_sana_config *out, mp_error *err)
{
    mp_config *j = NULL;

    *out = (mp_sana_config){0};
    if (mp_config_open(dir, "config.json", &j, err))
        return err->code;
    parse_config(j, out, err);
    if (!err->code)
        check_config(j, out, err);
    mp_config_close(j);
    return err->code;
}

/* ---- parameters ----------------------------------------------------------------------------- */

static void bind_embedder(mp_weights *w, embedder *p, int64_t in, int64_t dim, const char *path)
{
    mp_weights_bind_linear(w, &p->linear_1, dim, in, true, "%s.linear_1", path);
    mp_weights_bind_linear(w, &p->linear_2, dim, dim, true, "%s.linear_2", path);
}

static void bind_qk_norm(mp_weights *w, mp_affine *p, const mp_sana_config *o, int64_t dim,
                         const char *path, const char *name)
{
    if (o->qk_norm != MP_SANA_QK_NONE)
        mp_weights_bind(w, &p->weight, 1, MP_DIMS(dim), "%s.%s.weight", path, name);
    if (o->qk_norm == MP_SANA_QK_LAYER)
        mp_weights_bind(w, &p->bias, 1, MP_DIMS(dim), "%s.%s.bias", path, name);
}

static void bind_attention(mp_weights *w, attention *p, const mp_sana_config *o, int64_t inner,
                           int64_t context, bool bias, const char *path)
{
    mp_weights_bind_linear(w, &p->to_q, inner, inner_dim(o), bias, "%s.to_q", path);
    mp_weights_bind_linear(w, &p->to_k, inner, context, bias, "%s.to_k", path);
    mp_weights_bind_linear(w, &p->to_v, inner, context, bias, "%s.to_v", path);
    mp_weights_bind_linear(w, &p->to_out, inner_dim(o), inner, true, "%s.to_out.0", path);
    bind_qk_norm(w, &p->norm_q, o, inner, path, "norm_q");
    bind_qk_norm(w, &p->norm_k, o, inner, path, "norm_k");
}

static void bind_block(mp_weights *w, block *p, const mp_sana_config *o, int i)
{
    const int64_t d = inner_dim(o);
    char path[MAX_PATH];

    mp_weights_bind(w, &p->table, 2, MP_DIMS(6, d), "transformer_blocks.%d.scale_shift_table", i);
    snprintf(path, sizeof path, "transformer_blocks.%d.attn1", i);
    bind_attention(w, &p->self, o, d, d, o->attention_bias, path);
    snprintf(path, sizeof path, "transformer_blocks.%d.attn2", i);
    bind_attention(w, &p->cross, o, o->cross_heads * o->cross_head_dim, o->cross_dim, true, path);
    if (o->norm_elementwise_affine) {
        mp_weights_bind(w, &p->norm2.weight, 1, MP_DIMS(d), "transformer_blocks.%d.norm2.weight",
                        i);
        mp_weights_bind(w, &p->norm2.bias, 1, MP_DIMS(d), "transformer_blocks.%d.norm2.bias", i);
    }
    snprintf(path, sizeof path, "transformer_blocks.%d.ff", i);
    mp_glumbconv_bind(w, &p->ff, d, (int64_t)(o->mlp_ratio * (double)d), false, path);
}

static void bind(mp_sana_transformer *m)
{
    const mp_sana_config *const o = &m->config;
    const int64_t d = inner_dim(o), p = o->patch_size;
    mp_weights *const w = m->weights;

    mp_weights_bind_conv2d(w, &m->patch, d, o->in_channels, (int)p, true, "patch_embed.proj");
    bind_embedder(w, &m->time, TIME_CHANNELS, d,
                  o->guidance_embeds ? "time_embed.timestep_embedder"
                                     : "time_embed.emb.timestep_embedder");
    if (o->guidance_embeds)
        bind_embedder(w, &m->guidance, TIME_CHANNELS, d, "time_embed.guidance_embedder");
    mp_weights_bind_linear(w, &m->time_linear, 6 * d, d, true, "time_embed.linear");
    bind_embedder(w, &m->caption, o->caption_channels, d, "caption_projection");
    mp_weights_bind(w, &m->caption_norm, 1, MP_DIMS(d), "caption_norm.weight");
    for (int i = 0; i < (int)o->layers; i++)
        bind_block(w, &m->blocks[i], o, i);
    mp_weights_bind(w, &m->table, 2, MP_DIMS(2, d), "scale_shift_table");
    mp_weights_bind_linear(w, &m->proj_out, p * p * o->out_channels, d, true, "proj_out");
}

mp_code mp_sana_transformer_open(const char *dir, const mp_weights_options *o,
                                 mp_sana_transformer **out, mp_error *err)
{
    mp_sana_transformer *m = mp_alloc(1, sizeof *m);

    if (!m)
        return mp_error_set(err, MP_ENOMEM, "no memory for the transformer");
    /* The table of positions is a buffer: only a cast of the whole model rounds it. */
    m->round_positions = o->round_trip_fp32;
    if (!mp_sana_config_read(dir, &m->config, err)) {
        m->blocks = mp_alloc((size_t)m->config.layers, sizeof *m->blocks);
        if (!m->blocks)
            mp_error_set(err, MP_ENOMEM, "no memory for the transformer's blocks");
        else if (!mp_weights_open(dir, o, &m->weights, err)) {
            bind(m);
            mp_weights_finish(m->weights, err);
        }
    }
    if (err->code) {
        mp_sana_transformer_close(m);
        return err->code;
    }
    *out = m;
    return MP_OK;
}

void mp_sana_transformer_close(mp_sana_transformer *m)
{
    if (!m)
        return;
    mp_weights_close(m->weights);
    mp_free(m->blocks);
    mp_free(m);
}

const mp_sana_config *mp_sana_transformer_config(const mp_sana_transformer *m)
{
    return &m->config;
}

mp_weights *mp_sana_transformer_weights(const mp_sana_transformer *m)
{
    return m->weights;
}

/* ---- forward -------------------------------------------------------------------------------- */

/* Entry i of n modulations: [B, n, D] -> [B, 1, D] */
static mp_tensor entry(mp_ctx *c, mp_tensor m, int i)
{
    return mp_narrow_axis(c, m, 1, i, 1);
}

static mp_tensor qk_norm(mp_ctx *c, mp_sana_qk_norm type, const mp_affine *p, mp_tensor x,
                         const char *name)
{
    if (type == MP_SANA_QK_NONE)
        return x;
    x = mp_enter(c, x, "%s", name);
    x = type == MP_SANA_QK_RMS
            ? mp_rms_norm(c, x, p->weight, p->bias, qk_norm_eps, MP_RMS_DIFFUSERS)
            : mp_layer_norm(c, x, p->weight, p->bias, qk_norm_eps);
    return mp_leave(c, x);
}

/* (1 + scale) Norm(x) + shift, shift and scale being entries i and i + 1 of m: [B, N, D] */
static mp_tensor modulated(mp_ctx *c, mp_tensor x, const mp_affine *norm, const char *name,
                           float eps, mp_tensor m, int i)
{
    const mp_mark mark = mp_open(c);

    x = mp_enter(c, x, "%s", name);
    const mp_tensor u = mp_leave(c, mp_layer_norm(c, x, norm->weight, norm->bias, eps));
    return mp_keep(c, mark, mp_modulate(c, u, entry(c, m, i), entry(c, m, i + 1)));
}

/* A linear layer on what torch holds transposed in memory: its linear then computes the product and
 * adds the bias as two ops, and each rounds.  So it is wherever Diffusers made [B, N, D] of
 * [B, D, N] just before. */
static mp_tensor linear_of_transposed(mp_ctx *c, const mp_affine *p, mp_tensor x, const char *name)
{
    const mp_mark mark = mp_open(c);

    x = mp_enter(c, x, "%s", name); /* a cast keeps the strides */
    mp_tensor y = mp_linear(c, x, p->weight, MP_NONE);
    if (mp_given(p->bias))
        y = mp_add(c, y, p->bias);
    return mp_keep(c, mark, mp_leave(c, y));
}

/* Linear attention of x with itself: [B, N, D] -> [B, N, D] */
static mp_tensor self_attention(mp_ctx *c, const mp_sana_config *o, const attention *p, mp_tensor x)
{
    const mp_mark mark = mp_open(c);

    x = mp_enter(c, x, "attn1");
    mp_tensor q = mp_apply_linear(c, &p->to_q, x);
    mp_tensor k = mp_apply_linear(c, &p->to_k, x);
    mp_tensor v = mp_apply_linear(c, &p->to_v, x);
    q = qk_norm(c, o->qk_norm, &p->norm_q, q, "norm_q");
    k = qk_norm(c, o->qk_norm, &p->norm_k, k, "norm_k");
    const mp_dtype dtype = x.dtype;
    mp_tensor y = mp_attn_linear(c, q, k, v, (int)o->heads, attention_eps);
    y = mp_keep(c, mark, mp_cast(c, y, dtype)); /* a norm of q in fp32 has widened it */
    y = mp_keep(c, mark, linear_of_transposed(c, &p->to_out, y, "to_out.0"));
    /* The model's own guard: fp16 may overflow here and nowhere else. */
    if (dtype == MP_F16)
        y = mp_keep(c, mark, mp_clip(c, y, -65504.0f, 65504.0f));
    return mp_keep(c, mark, mp_leave(c, y));
}

/* x [B, N, D] attends to text [B, S, D]; bias [B, S] is added to the scores.  transposed: x still
 * lies in memory as the patch embedding made it. */
static mp_tensor cross_attention(mp_ctx *c, const mp_sana_config *o, const attention *p,
                                 mp_tensor x, mp_tensor text, mp_tensor bias, bool transposed)
{
    const mp_mark mark = mp_open(c);

    x = mp_enter(c, x, "attn2");
    text = mp_take(c, text);
    const mp_attn_opts opts = {
        .heads = (int)o->cross_heads, .mask = mp_take(c, bias), .rounding = MP_ATTN_SDPA};
    mp_tensor q =
        transposed ? linear_of_transposed(c, &p->to_q, x, "to_q") : mp_apply_linear(c, &p->to_q, x);
    mp_tensor k = mp_apply_linear(c, &p->to_k, text);
    mp_tensor v = mp_apply_linear(c, &p->to_v, text);
    q = qk_norm(c, o->qk_norm, &p->norm_q, q, "norm_q");
    k = qk_norm(c, o->qk_norm, &p->norm_k, k, "norm_k");
    mp_tensor y = mp_keep(c, mark, mp_attn_softmax(c, q, k, v, opts));
    return mp_keep(c, mark, mp_leave(c, mp_apply_linear(c, &p->to_out, y)));
}

/* One block.  x [B, h*w, D], text [B, S, D], bias [B, S], t [B, 6, D] -> [B, h*w, D].
 * x was made after `mark`: each equation's result replaces it.  In the first block x is transposed
 * in torch's memory until it meets the result of the cross attention. */
static mp_tensor block_forward(mp_ctx *c, mp_mark mark, const mp_sana_config *o, const block *p,
                               mp_tensor x, mp_tensor text, mp_tensor bias, mp_tensor t, int64_t h,
                               int64_t w, bool first)
{
    const float eps = (float)o->norm_eps;

    text = mp_take(c, text);
    bias = mp_take(c, bias);
    const mp_tensor m =
        mp_add(c, p->table, mp_take(c, t)); /* shift, scale, gate; shift, scale, gate */

    /* u = (1 + g1) LN(x) + b1;   x += a1 LinAttn(u) */
    mp_tensor u = mp_cast(c, modulated(c, x, &no_norm, "norm1", eps, m, 0), x.dtype);
    u = self_attention(c, o, &p->self, u);
    x = mp_add_gated(c, x, entry(c, m, 2), u);
    mp_keep_all(c, mark, 4, (mp_tensor[]){x, m, text, bias});

    /* x += Attn(x, text) */
    x = mp_add(c, cross_attention(c, o, &p->cross, x, text, bias, first), x);
    mp_keep_all(c, mark, 4, (mp_tensor[]){x, m, text, bias});

    /* u = (1 + g2) LN(x) + b2;   x += a2 MixFFN(u) */
    u = modulated(c, x, &p->norm2, "norm2", eps, m, 3);
    if (mp_failed(c))
        return MP_NONE;
    u = mp_enter(c, mp_reshape(u, 4, MP_DIMS(u.dim[0], h, w, u.dim[2])), "ff");
    u = mp_leave(c, mp_glumbconv_forward(c, &p->ff, u));
    if (mp_failed(c))
        return MP_NONE;
    u = mp_reshape(u, 3, x.dim);
    return mp_keep(c, mark, mp_add_gated(c, x, entry(c, m, 5), u));
}

/* Sinusoids of n numbers through a two-layer embedder: -> [n, D] */
static mp_tensor embed_numbers(mp_ctx *c, const embedder *p, const float *values, int64_t n,
                               mp_dtype dtype, const char *name)
{
    const mp_mark mark = mp_open(c);
    mp_tensor rows = mp_new(c, MP_F32, 2, MP_DIMS(n, TIME_CHANNELS));

    for (int64_t i = 0; i < n && !mp_failed(c); i++)
        mp_timestep_embedding(values[i], TIME_CHANNELS, (float *)rows.data + i * TIME_CHANNELS);
    mp_tensor u = mp_enter(c, mp_cast(c, rows, dtype), "%s", name);
    u = mp_apply_linear(c, &p->linear_1, u);
    u = mp_apply_linear(c, &p->linear_2, mp_activate_(c, u, MP_ACT_SILU));
    return mp_keep(c, mark, mp_leave(c, u));
}

/* AdaLN-single: -> embedding [B, D] in *t0, six modulations of every block [B, 6, D] in *t6 */
static void embed_time(mp_ctx *c, const mp_sana_transformer *m, const float *timestep,
                       const float *guidance, int64_t n, mp_dtype dtype, mp_tensor *t0,
                       mp_tensor *t6)
{
    const mp_mark mark = mp_open(c);

    mp_push(c, "time_embed");
    *t0 = embed_numbers(c, &m->time, timestep, n, dtype,
                        m->config.guidance_embeds ? "timestep_embedder" : "emb.timestep_embedder");
    if (guidance && m->config.guidance_embeds)
        *t0 =
            mp_add(c, *t0, embed_numbers(c, &m->guidance, guidance, n, dtype, "guidance_embedder"));
    *t6 = mp_apply_linear(c, &m->time_linear, mp_activate(c, *t0, MP_ACT_SILU));
    *t0 = mp_give(c, *t0);
    *t6 = mp_leave(c, *t6);
    mp_keep_all(c, mark, 2, (mp_tensor[]){*t0, *t6});
    if (!mp_failed(c))
        *t6 = mp_reshape(*t6, 3, MP_DIMS(n, 6, inner_dim(&m->config)));
}

/* text [B, S, caption_channels] -> [B, S, D] */
static mp_tensor project_caption(mp_ctx *c, const mp_sana_transformer *m, mp_tensor text)
{
    const mp_mark mark = mp_open(c);

    text = mp_enter(c, text, "caption_projection");
    mp_tensor u = mp_apply_linear(c, &m->caption.linear_1, text);
    u = mp_keep(c, mark, mp_activate_(c, u, MP_ACT_GELU_TANH));
    u = mp_keep(c, mark, mp_leave(c, mp_apply_linear(c, &m->caption.linear_2, u)));
    u = mp_rms_norm(c, u, m->caption_norm, MP_NONE, caption_norm_eps, MP_RMS_DIFFUSERS);
    return mp_keep(c, mark, u);
}

/* 0 where the mask has a token and -10000 elsewhere, rounded to the dtype: [B, S] */
static mp_tensor mask_bias(mp_ctx *c, const uint8_t *mask, int64_t b, int64_t s, mp_dtype dtype)
{
    const mp_mark mark = mp_open(c);
    mp_tensor bias = mp_new(c, MP_F32, 2, MP_DIMS(b, s));

    for (int64_t i = 0; i < b * s && !mp_failed(c); i++)
        ((float *)bias.data)[i] = mask[i] ? 0.0f : masked;
    return mp_keep(c, mark, mp_cast(c, bias, dtype));
}

/* The fp32 table of the grid's positions [1, h*w, D]. */
static mp_tensor positions(mp_ctx *c, const mp_sana_transformer *m, int64_t h, int64_t w)
{
    const mp_sana_config *const o = &m->config;
    const int64_t d = inner_dim(o), base = o->sample_size / o->patch_size;
    mp_tensor table = mp_new(c, MP_F32, 3, MP_DIMS(1, h * w, d));

    if (mp_failed(c))
        return MP_NONE;
    mp_sincos_2d(d, h, w, base, o->interpolation_scale, table.data);
    /* The grid of the model's own size is the stored buffer; another is made afresh in fp32. */
    if (m->round_positions && h == base && w == base)
        table = mp_cast(c, table, mp_weights_dtype(m->weights));
    return table;
}

/* latents [B, H, W, C] -> tokens [B, h*w, D] */
static mp_tensor embed_patches(mp_ctx *c, const mp_sana_transformer *m, mp_tensor latents)
{
    const mp_mark mark = mp_open(c);
    const mp_conv2d_opts opts = {.stride = (int)m->config.patch_size};

    mp_tensor x = mp_apply_conv2d(c, &m->patch, mp_enter(c, latents, "patch_embed"), opts);
    if (!mp_failed(c)) {
        const int64_t h = x.dim[1], w = x.dim[2];
        x = mp_reshape(x, 3, MP_DIMS(x.dim[0], h * w, x.dim[3]));
        if (m->config.interpolation_scale > 0)
            x = mp_cast(c, mp_add(c, x, positions(c, m, h, w)), x.dtype);
    }
    return mp_keep(c, mark, mp_leave(c, x));
}

/* x [B, h*w, D], t [B, D] -> [B, h*w, p*p*out] */
static mp_tensor project_out(mp_ctx *c, const mp_sana_transformer *m, mp_tensor x, mp_tensor t)
{
    const mp_mark mark = mp_open(c);

    if (mp_failed(c))
        return MP_NONE;
    x = mp_enter(c, x, "norm_out");
    t = mp_take(c, t);
    const mp_tensor shift_scale =
        mp_add(c, m->table, mp_reshape(t, 3, MP_DIMS(t.dim[0], 1, t.dim[1])));
    x = mp_leave(c, modulated(c, x, &no_norm, "norm", norm_out_eps, shift_scale, 0));
    return mp_keep(c, mark, mp_apply_linear(c, &m->proj_out, x));
}

/* [B, h*w, p*p*out] -> [B, h*p, w*p, out] */
static mp_tensor unpatchify(mp_ctx *c, mp_tensor x, int64_t h, int64_t w, int64_t p)
{
    if (mp_failed(c))
        return MP_NONE;
    const int64_t b = x.dim[0], out = x.dim[2] / (p * p);

    if (p > 1) {
        x = mp_reshape(x, 4, MP_DIMS(b * h, w, p, p * out));
        x = mp_permute(c, x, (const int[]){0, 2, 1, 3});
    }
    return mp_failed(c) ? MP_NONE : mp_reshape(x, 4, MP_DIMS(b, h * p, w * p, out));
}

static mp_tensor forward(mp_ctx *c, const mp_sana_transformer *m, mp_tensor latents, mp_tensor text,
                         const uint8_t *mask, const float *timestep, const float *guidance)
{
    const mp_sana_config *const o = &m->config;
    const int64_t b = latents.dim[0], p = o->patch_size;
    const int64_t h = latents.dim[1] / p, w = latents.dim[2] / p;
    mp_tensor t0 = MP_NONE, t6 = MP_NONE;

    const mp_tensor bias = mask_bias(c, mask, b, text.dim[1], latents.dtype);
    text = project_caption(c, m, text);
    embed_time(c, m, timestep, guidance, b, latents.dtype, &t0, &t6);

    const mp_mark mark = mp_open(c);
    mp_tensor x = embed_patches(c, m, latents);
    for (int i = 0; i < (int)o->layers && !mp_failed(c); i++) {
        x = mp_enter(c, x, "transformer_blocks.%d", i);
        x = block_forward(c, mark, o, &m->blocks[i], x, text, bias, t6, h, w, i == 0);
        x = mp_keep(c, mark, mp_leave(c, x));
    }
    x = mp_keep(c, mark, project_out(c, m, x, t0));
    return unpatchify(c, x, h, w, p);
}

mp_tensor mp_sana_transformer_forward(mp_ctx *c, const mp_sana_transformer *m, mp_tensor latents,
                                      mp_tensor text, const uint8_t *mask, const float *timestep,
                                      const float *guidance)
{
    const mp_mark mark = mp_open(c);

    if (mp_failed(c))
        return MP_NONE;
    latents = mp_enter(c, latents, "transformer");
    text = mp_take(c, text);
    mp_tensor y = forward(c, m, latents, text, mask, timestep, guidance);
    return mp_keep(c, mark, mp_leave(c, y));
}
