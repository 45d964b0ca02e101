#include "pipelines/sd3/transformer.h"

#include <stdio.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "pipelines/common/config.h"
#include "pipelines/common/embeddings.h"
#include "pipelines/common/file.h"
#include "pipelines/common/layers.h"

enum { TIME_CHANNELS = 256, FF_MULT = 4, MAX_PATH = 96 };

/* Fixed in the model's code, not in its configuration; of every norm. */
static const float norm_eps = 1e-6f;

const char *const mp_sd3_storage_skip[] = {"pos_embed", "norm", NULL};

typedef struct projections {
    mp_affine q, k, v, out; /* out: nothing where a block gives no context */
    mp_tensor norm_q, norm_k;
} projections;

/* The part of a block that belongs to the picture's tokens or to those of the context. */
typedef struct stream {
    mp_affine norm1; /* its linear layer, to the modulations */
    projections attn;
    mp_affine ff_in, ff_out;
} stream;

typedef struct block {
    stream sample, context;
    projections attn2; /* of the picture's tokens alone */
    bool dual;         /* has attn2 */
    bool last;         /* context_pre_only: the context is read and not written */
} block;

typedef struct embedder {
    mp_affine linear_1, linear_2;
} embedder;

struct mp_sd3_transformer {
    mp_sd3_config config;
    mp_weights *weights;
    mp_affine patch;     /* pos_embed.proj */
    mp_tensor positions; /* pos_embed.pos_embed [1, max * max, D] */
    embedder time, text;
    mp_affine context; /* context_embedder */
    block *blocks;
    mp_affine norm_out, proj_out;
};

/* How the checkpoint calls the parts of a stream. */
typedef struct stream_names {
    const char *norm1, *q, *k, *v, *out, *norm_q, *norm_k, *norm2, *ff;
} stream_names;

static const stream_names sample_names = {"norm1",  "to_q",   "to_k",  "to_v", "to_out.0",
                                          "norm_q", "norm_k", "norm2", "ff"};
static const stream_names context_names = {"norm1_context", "add_q_proj",    "add_k_proj",
                                           "add_v_proj",    "to_add_out",    "norm_added_q",
                                           "norm_added_k",  "norm2_context", "ff_context"};

static int64_t inner_dim(const mp_sd3_config *o)
{
    return o->heads * o->head_dim;
}

/* ---- configuration -------------------------------------------------------------------------- */

static bool parse_qk_norm(mp_config *j, mp_error *err)
{
    const char *const name = mp_config_string(j, "qk_norm", NULL, err);

    if (name && strcmp(name, "rms_norm"))
        mp_error_set(err, MP_EUNSUPPORTED,
                     "%s: \"qk_norm\": \"%.40s\" is not supported; rms_norm and null are",
                     mp_config_path(j), mp_plain(name).text);
    return name != NULL;
}

/* A layer that the model does not have is dual in vain, as in Diffusers. */
static void parse_dual(mp_config *j, mp_sd3_config *o, mp_error *err)
{
    int64_t layers[MP_SD3_MAX_LAYERS];
    const int n = mp_config_ints(j, "dual_attention_layers", layers, MP_SD3_MAX_LAYERS, 0,
                                 MP_SD3_MAX_LAYERS - 1, err);

    for (int i = 0; i < n && !err->code; i++)
        o->dual[layers[i]] = true;
}

static void parse_config(mp_config *j, mp_sd3_config *o, mp_error *err)
{
    o->sample_size = mp_config_int(j, "sample_size", 128, 1, 1 << 16, err);
    o->patch_size = mp_config_int(j, "patch_size", 2, 1, 16, err);
    o->in_channels = mp_config_int(j, "in_channels", 16, 1, 4096, err);
    o->layers = mp_config_int(j, "num_layers", 18, 1, MP_SD3_MAX_LAYERS, err);
    o->head_dim = mp_config_int(j, "attention_head_dim", 64, 1, 4096, err);
    o->heads = mp_config_int(j, "num_attention_heads", 18, 1, 4096, err);
    o->joint_attention_dim = mp_config_int(j, "joint_attention_dim", 4096, 1, 1 << 20, err);
    o->pooled_projection_dim = mp_config_int(j, "pooled_projection_dim", 2048, 1, 1 << 20, err);
    o->out_channels = mp_config_int(j, "out_channels", 16, 1, 4096, err);
    if (mp_config_is_null(j, "out_channels"))
        o->out_channels = o->in_channels;
    o->pos_embed_max_size = mp_config_int(j, "pos_embed_max_size", 96, 1, 4096, err);
    /* PatchEmbed then makes its positions afresh for each size, as no Stable Diffusion 3 does. */
    if (mp_config_is_null(j, "pos_embed_max_size"))
        mp_error_set(err, MP_EUNSUPPORTED,
                     "%s: \"pos_embed_max_size\" is null; only stored positions are supported",
                     mp_config_path(j));
    o->qk_norm = parse_qk_norm(j, err);
    parse_dual(j, o, err);
}

static void check_config(mp_config *j, const mp_sd3_config *o, mp_error *err)
{
    const int64_t caption = mp_config_int(j, "caption_projection_dim", 1152, 1, 1 << 24, err);
    char unknown[400];

    /* The joint attention puts the context's tokens beside the picture's. */
    if (!err->code && caption != inner_dim(o))
        mp_error_set(err, MP_EFORMAT,
                     "%s: \"caption_projection_dim\" is %lld, but the blocks are %lld wide "
                     "(num_attention_heads * attention_head_dim)",
                     mp_config_path(j), (long long)caption, (long long)inner_dim(o));
    if (inner_dim(o) % 4)
        mp_error_set(err, MP_EFORMAT,
                     "%s: a positional embedding needs a width that 4 divides, found %lld "
                     "(num_attention_heads * attention_head_dim)",
                     mp_config_path(j), (long long)inner_dim(o));
    if (mp_config_unknown(j, unknown, sizeof unknown))
        mp_error_set(err, MP_EUNSUPPORTED,
                     "%s: unknown keys: %s; this build knows SD3Transformer2DModel of Diffusers "
                     "0.42",
                     mp_config_path(j), unknown);
}

mp_code mp_sd3_config_read(const char *dir, mp_sd3_config *out, mp_error *err)
{
    mp_config *j = NULL;

    *out = (mp_sd3_config){0};
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

static void bind_projections(mp_weights *w, projections *p, const mp_sd3_config *o,
                             const stream_names *n, bool out, const char *path)
{
    const int64_t d = inner_dim(o);

    mp_weights_bind_linear(w, &p->q, d, d, true, "%s.%s", path, n->q);
    mp_weights_bind_linear(w, &p->k, d, d, true, "%s.%s", path, n->k);
    mp_weights_bind_linear(w, &p->v, d, d, true, "%s.%s", path, n->v);
    if (out)
        mp_weights_bind_linear(w, &p->out, d, d, true, "%s.%s", path, n->out);
    if (o->qk_norm) {
        mp_weights_bind(w, &p->norm_q, 1, MP_DIMS(o->head_dim), "%s.%s.weight", path, n->norm_q);
        mp_weights_bind(w, &p->norm_k, 1, MP_DIMS(o->head_dim), "%s.%s.weight", path, n->norm_k);
    }
}

/* written: the stream goes on after the attention. */
static void bind_stream(mp_weights *w, stream *p, const mp_sd3_config *o, const stream_names *n,
                        int64_t modulations, bool written, const char *path)
{
    const int64_t d = inner_dim(o);
    char attn[MAX_PATH];

    snprintf(attn, sizeof attn, "%s.attn", path);
    mp_weights_bind_linear(w, &p->norm1, modulations * d, d, true, "%s.%s.linear", path, n->norm1);
    bind_projections(w, &p->attn, o, n, written, attn);
    if (!written)
        return;
    mp_weights_bind_linear(w, &p->ff_in, FF_MULT * d, d, true, "%s.%s.net.0.proj", path, n->ff);
    mp_weights_bind_linear(w, &p->ff_out, d, FF_MULT * d, true, "%s.%s.net.2", path, n->ff);
}

static void bind_block(mp_weights *w, block *p, const mp_sd3_config *o, int i)
{
    char path[MAX_PATH - 16], attn2[MAX_PATH];

    p->dual = o->dual[i];
    p->last = i == o->layers - 1;
    snprintf(path, sizeof path, "transformer_blocks.%d", i);
    bind_stream(w, &p->sample, o, &sample_names, p->dual ? 9 : 6, true, path);
    bind_stream(w, &p->context, o, &context_names, p->last ? 2 : 6, !p->last, path);
    snprintf(attn2, sizeof attn2, "%s.attn2", path);
    if (p->dual)
        bind_projections(w, &p->attn2, o, &sample_names, true, attn2);
}

static void bind(mp_sd3_transformer *m)
{
    const mp_sd3_config *const o = &m->config;
    const int64_t d = inner_dim(o), p = o->patch_size, max = o->pos_embed_max_size;
    mp_weights *const w = m->weights;

    mp_weights_bind_conv2d(w, &m->patch, d, o->in_channels, (int)p, true, "pos_embed.proj");
    mp_weights_bind(w, &m->positions, 3, MP_DIMS(1, max * max, d), "pos_embed.pos_embed");
    bind_embedder(w, &m->time, TIME_CHANNELS, d, "time_text_embed.timestep_embedder");
    bind_embedder(w, &m->text, o->pooled_projection_dim, d, "time_text_embed.text_embedder");
    mp_weights_bind_linear(w, &m->context, d, o->joint_attention_dim, true, "context_embedder");
    for (int i = 0; i < (int)o->layers; i++)
        bind_block(w, &m->blocks[i], o, i);
    mp_weights_bind_linear(w, &m->norm_out, 2 * d, d, true, "norm_out.linear");
    mp_weights_bind_linear(w, &m->proj_out, p * p * o->out_channels, d, true, "proj_out");
}

mp_code mp_sd3_transformer_open(const char *dir, const mp_weights_options *o,
                                mp_sd3_transformer **out, mp_error *err)
{
    mp_sd3_transformer *m = mp_alloc(1, sizeof *m);

    *out = NULL;
    if (!m)
        return mp_error_set(err, MP_ENOMEM, "no memory for the transformer");
    if (!mp_sd3_config_read(dir, &m->config, err)) {
        m->blocks = mp_alloc((size_t)m->config.layers, sizeof *m->blocks);
        if (!m->blocks)
            mp_error_set(err, MP_ENOMEM, "no memory for the transformer's blocks");
        else if (!mp_weights_open(dir, o, &m->weights, err)) {
            bind(m);
            mp_weights_finish(m->weights, err);
        }
    }
    if (err->code) {
        mp_sd3_transformer_close(m);
        return err->code;
    }
    *out = m;
    return MP_OK;
}

void mp_sd3_transformer_close(mp_sd3_transformer *m)
{
    if (!m)
        return;
    mp_weights_close(m->weights);
    mp_free(m->blocks);
    mp_free(m);
}

const mp_sd3_config *mp_sd3_transformer_config(const mp_sd3_transformer *m)
{
    return &m->config;
}

mp_weights *mp_sd3_transformer_weights(const mp_sd3_transformer *m)
{
    return m->weights;
}

/* ---- embeddings ----------------------------------------------------------------------------- */

/* The middle of the table of positions, h x w of its max x max: [1, h*w, D] */
static mp_tensor crop_positions(mp_ctx *c, const mp_sd3_transformer *m, int64_t h, int64_t w)
{
    const int64_t d = inner_dim(&m->config), max = m->config.pos_embed_max_size;

    if (h > max || w > max)
        return mp_fail(c, MP_ESHAPE, &m->positions,
                       "a grid of %lld x %lld patches cannot be larger than \"pos_embed_max_size\" "
                       "%lld; ask for a smaller picture",
                       (long long)h, (long long)w, (long long)max);
    mp_tensor t = mp_reshape(m->positions, 4, MP_DIMS(1, max, max, d));
    t = mp_narrow_axis(c, t, 1, (max - h) / 2, h);
    t = mp_narrow_axis(c, t, 2, (max - w) / 2, w);
    return mp_failed(c) ? MP_NONE : mp_reshape(t, 3, MP_DIMS(1, h * w, d));
}

/* latents [B, H, W, C] -> tokens [B, h*w, D].  The sum rounds to the latents' dtype, and once more
 * only if an override keeps the table wider.  A stride of a patch leaves its remainder out. */
static mp_tensor embed_patches(mp_ctx *c, const mp_sd3_transformer *m, mp_tensor latents)
{
    const mp_mark mark = mp_open(c);
    const mp_conv2d_opts opts = {.stride = (int)m->config.patch_size};

    mp_tensor x = mp_apply_conv2d(c, &m->patch, mp_enter(c, latents, "pos_embed"), opts);
    if (!mp_failed(c)) {
        const int64_t h = x.dim[1], w = x.dim[2];
        x = mp_reshape(x, 3, MP_DIMS(x.dim[0], h * w, x.dim[3]));
        x = mp_cast(c, mp_add(c, x, crop_positions(c, m, h, w)), x.dtype);
    }
    return mp_keep(c, mark, mp_leave(c, x));
}

/* x [B, in] -> [B, D] through two layers */
static mp_tensor embed(mp_ctx *c, const embedder *p, mp_tensor x, const char *name)
{
    const mp_mark mark = mp_open(c);

    x = mp_apply_linear(c, &p->linear_1, mp_enter(c, x, "%s", name));
    x = mp_apply_linear(c, &p->linear_2, mp_activate_(c, x, MP_ACT_SILU));
    return mp_keep(c, mark, mp_leave(c, x));
}

/* The conditioning of every block, [B, D]: sinusoids of the timesteps, made in fp32 and rounded to
 * the pooled text's dtype, and the pooled text, each embedded; the sum rounds. */
static mp_tensor embed_time_and_text(mp_ctx *c, const mp_sd3_transformer *m, const float *timestep,
                                     mp_tensor pooled)
{
    const mp_mark mark = mp_open(c);
    const int64_t n = pooled.dim[0];
    const mp_tensor rows = mp_new(c, MP_F32, 2, MP_DIMS(n, TIME_CHANNELS));

    for (int64_t i = 0; i < n && !mp_failed(c); i++)
        mp_timestep_embedding(timestep[i], TIME_CHANNELS, (float *)rows.data + i * TIME_CHANNELS);
    pooled = mp_enter(c, pooled, "time_text_embed");
    const mp_tensor time = embed(c, &m->time, mp_cast(c, rows, pooled.dtype), "timestep_embedder");
    const mp_tensor t = mp_add(c, time, embed(c, &m->text, pooled, "text_embedder"));
    return mp_keep(c, mark, mp_leave(c, t));
}

/* ---- blocks --------------------------------------------------------------------------------- */

/* Entry i of n modulations: [B, n, D] -> [B, 1, D] */
static mp_tensor entry(mp_ctx *c, mp_tensor m, int i)
{
    return mp_narrow_axis(c, m, 1, i, 1);
}

static mp_tensor layer_norm(mp_ctx *c, mp_tensor x, const char *name)
{
    return mp_leave(c, mp_layer_norm(c, mp_enter(c, x, "%s", name), MP_NONE, MP_NONE, norm_eps));
}

/* What an adaptive norm makes of the conditioning, each [B, 1, D]: for its own result, for the rest
 * of the block, and for attn2. */
typedef struct modulations {
    mp_tensor shift, scale;
    mp_tensor gate, shift_mlp, scale_mlp, gate_mlp;
    mp_tensor shift2, scale2, gate2;
} modulations;

/* AdaLayerNormContinuous has scale and shift; AdaLayerNormZero shift, scale and gate of the
 * attention and of the feed-forward; SD35AdaLayerNormZeroX three more: which one it is, its linear
 * layer tells.  t [B, D]. */
static modulations modulate_by(mp_ctx *c, const mp_affine *p, mp_tensor t, const char *name)
{
    modulations y = {.shift = MP_NONE};

    t = mp_enter(c, t, "%s", name);
    const mp_tensor m = mp_apply_linear(c, p, mp_activate(c, t, MP_ACT_SILU));
    if (!mp_failed(c)) {
        const int64_t n = m.dim[1] / t.dim[1];
        const mp_tensor all = mp_reshape(m, 3, MP_DIMS(m.dim[0], n, t.dim[1]));
        y.shift = entry(c, all, n > 2 ? 0 : 1);
        y.scale = entry(c, all, n > 2 ? 1 : 0);
        if (n > 2) {
            y.gate = mp_give(c, entry(c, all, 2));
            y.shift_mlp = mp_give(c, entry(c, all, 3));
            y.scale_mlp = mp_give(c, entry(c, all, 4));
            y.gate_mlp = mp_give(c, entry(c, all, 5));
        }
        if (n > 6) {
            y.shift2 = entry(c, all, 6);
            y.scale2 = entry(c, all, 7);
            y.gate2 = mp_give(c, entry(c, all, 8));
        }
    }
    mp_pop(c);
    return y;
}

/* LN(x) (1 + scale) + shift: [B, N, D]; for attn2, which may be NULL, with scale2 and shift2. */
static mp_tensor modulated(mp_ctx *c, mp_tensor x, const modulations *m, const char *name,
                           mp_tensor *attn2)
{
    const mp_mark mark = mp_open(c);
    mp_tensor y2 = MP_NONE;

    const mp_tensor u = layer_norm(c, mp_enter(c, x, "%s", name), "norm");
    if (attn2)
        *attn2 = y2 = mp_give(c, mp_modulate(c, u, m->shift2, m->scale2));
    const mp_tensor y = mp_leave(c, mp_modulate(c, u, m->shift, m->scale));
    mp_keep_all(c, mark, 2, (mp_tensor[]){y, y2});
    return y;
}

/* RMSNorm over each head of x [B, N, heads*d] */
static mp_tensor norm_heads(mp_ctx *c, const mp_sd3_config *o, mp_tensor x, mp_tensor weight)
{
    if (mp_failed(c) || !mp_given(weight))
        return x;
    const mp_tensor y =
        mp_rms_norm(c, mp_reshape(x, 4, MP_DIMS(x.dim[0], x.dim[1], o->heads, o->head_dim)), weight,
                    MP_NONE, norm_eps, MP_RMS_DIFFUSERS);
    return mp_failed(c) ? MP_NONE : mp_reshape(y, 3, x.dim);
}

typedef struct qkv {
    mp_tensor q, k, v;
} qkv;

static qkv project(mp_ctx *c, const mp_sd3_config *o, const projections *p, mp_tensor x)
{
    qkv y = {mp_apply_linear(c, &p->q, x), mp_apply_linear(c, &p->k, x),
             mp_apply_linear(c, &p->v, x)};

    y.q = norm_heads(c, o, y.q, p->norm_q);
    y.k = norm_heads(c, o, y.k, p->norm_k);
    return y;
}

static mp_tensor attend(mp_ctx *c, const mp_sd3_config *o, qkv t)
{
    const mp_attn_opts opts = {.heads = (int)o->heads, .rounding = MP_ATTN_SDPA};

    return mp_attn_softmax(c, t.q, t.k, t.v, opts);
}

/* The picture's tokens attend to each other: [B, N, D] -> [B, N, D] */
static mp_tensor self_attention(mp_ctx *c, const mp_sd3_config *o, const projections *p,
                                mp_tensor x)
{
    const mp_mark mark = mp_open(c);

    x = mp_enter(c, x, "attn2");
    const mp_tensor y = mp_keep(c, mark, attend(c, o, project(c, o, p, x)));
    return mp_keep(c, mark, mp_leave(c, mp_apply_linear(c, &p->out, y)));
}

/* A linear layer on tokens [first, first + n) of x.  In torch they are a view, which is contiguous
 * for a batch of one only: else its linear computes the product and adds the bias as two ops, and
 * each rounds. */
static mp_tensor linear_of_slice(mp_ctx *c, const mp_affine *p, mp_tensor x, int64_t first,
                                 int64_t n, const char *name)
{
    const mp_mark mark = mp_open(c);

    const mp_tensor part = mp_narrow_axis(c, x, 1, first, n);
    if (mp_failed(c))
        return MP_NONE;
    const mp_tensor u = mp_enter(c, part, "%s", name); /* a cast makes it contiguous */
    const mp_tensor y = u.dim[0] == 1 || u.data != part.data
                            ? mp_apply_linear(c, p, u)
                            : mp_add(c, mp_linear(c, u, p->weight, MP_NONE), p->bias);
    return mp_keep(c, mark, mp_leave(c, y));
}

static mp_tensor cat_tokens(mp_ctx *c, mp_tensor x, mp_tensor context)
{
    return mp_cat(c, 2, (mp_tensor[]){x, context}, 1);
}

/* JointAttnProcessor2_0: the tokens of both streams attend to all.  x [B, N, D], context [B, S, D]
 * -> their outputs in *x_out and, unless the block is the last, *context_out. */
static void joint_attention(mp_ctx *c, const mp_sd3_config *o, const block *p, mp_tensor x,
                            mp_tensor context, mp_tensor *x_out, mp_tensor *context_out)
{
    const mp_mark mark = mp_open(c);

    mp_push(c, "attn");
    x = mp_take(c, x);
    context = mp_take(c, context);
    const qkv a = project(c, o, &p->sample.attn, x), b = project(c, o, &p->context.attn, context);
    const qkv all = {cat_tokens(c, a.q, b.q), cat_tokens(c, a.k, b.k), cat_tokens(c, a.v, b.v)};
    const mp_tensor y = mp_keep(c, mark, attend(c, o, all));
    if (!p->last)
        *context_out = mp_give(c, linear_of_slice(c, &p->context.attn.out, y, x.dim[1],
                                                  context.dim[1], context_names.out));
    *x_out = mp_leave(c, linear_of_slice(c, &p->sample.attn.out, y, 0, x.dim[1], sample_names.out));
    mp_keep_all(c, mark, 2, (mp_tensor[]){*x_out, *context_out});
}

static mp_tensor feed_forward(mp_ctx *c, const stream *p, mp_tensor x, const char *name)
{
    const mp_mark mark = mp_open(c);

    x = mp_enter(c, x, "%s", name);
    x = mp_apply_linear(c, &p->ff_in, mp_enter(c, x, "net.0"));
    x = mp_leave(c, mp_activate_(c, x, MP_ACT_GELU_TANH));
    return mp_keep(c, mark, mp_leave(c, mp_apply_linear(c, &p->ff_out, x)));
}

/* The rest of a stream after its attention: x += gate FF(LN(x) (1 + scale) + shift) */
static mp_tensor finish_stream(mp_ctx *c, const stream *p, const stream_names *n, mp_tensor x,
                               const modulations *m)
{
    const mp_mark mark = mp_open(c);
    const mp_tensor u =
        mp_keep(c, mark, mp_modulate(c, layer_norm(c, x, n->norm2), m->shift_mlp, m->scale_mlp));

    return mp_keep(c, mark, mp_add_gated(c, x, m->gate_mlp, feed_forward(c, p, u, n->ff)));
}

/* One block.  *x [B, N, D] and *context [B, S, D] were made after `mark` and are replaced; after
 * the last block there is no context. */
static void block_forward(mp_ctx *c, mp_mark mark, const mp_sd3_config *o, const block *p,
                          mp_tensor *x, mp_tensor *context, mp_tensor t)
{
    mp_tensor y = MP_NONE, y_context = MP_NONE, u2 = MP_NONE, y2 = MP_NONE;

    *x = mp_take(c, *x);
    *context = mp_take(c, *context);
    t = mp_take(c, t);
    const modulations m = modulate_by(c, &p->sample.norm1, t, sample_names.norm1);
    const modulations mc = modulate_by(c, &p->context.norm1, t, context_names.norm1);

    /* Both attentions read the same norm of x; attn2 comes first so that its input is gone. */
    const mp_mark inputs = mp_open(c);
    const mp_tensor u = modulated(c, *x, &m, sample_names.norm1, p->dual ? &u2 : NULL);
    if (p->dual) {
        y2 = self_attention(c, o, &p->attn2, u2);
        mp_keep_all(c, inputs, 2, (mp_tensor[]){u, y2});
    }
    const mp_tensor uc = modulated(c, *context, &mc, context_names.norm1, NULL);
    if (mp_failed(c))
        return;
    joint_attention(c, o, p, u, uc, &y, &y_context);
    mp_keep_all(c, inputs, 3, (mp_tensor[]){y, y_context, y2});

    if (!p->last) {
        *context = mp_add_gated(c, *context, mc.gate, y_context);
        *context = mp_give(c, finish_stream(c, &p->context, &context_names, *context, &mc));
    }
    *x = mp_add_gated(c, *x, m.gate, y);
    if (p->dual)
        *x = mp_add_gated(c, *x, m.gate2, y2);
    *x = mp_give(c, finish_stream(c, &p->sample, &sample_names, *x, &m));
    mp_keep_all(c, mark, 2, (mp_tensor[]){*x, *context});
}

/* ---- forward -------------------------------------------------------------------------------- */

/* x [B, h*w, D], t [B, D] -> [B, h*w, p*p*out] */
static mp_tensor project_out(mp_ctx *c, const mp_sd3_transformer *m, mp_tensor x, mp_tensor t)
{
    const mp_mark mark = mp_open(c);
    const modulations s = modulate_by(c, &m->norm_out, t, "norm_out");

    return mp_keep(c, mark,
                   mp_apply_linear(c, &m->proj_out, modulated(c, x, &s, "norm_out", NULL)));
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

static bool is_skipped(const mp_sd3_inputs *in, int layer)
{
    for (int i = 0; in->skip_layers && i < in->skip_count; i++)
        if (in->skip_layers[i] == layer)
            return true;
    return false;
}

static mp_tensor forward(mp_ctx *c, const mp_sd3_transformer *m, const mp_sd3_inputs *in)
{
    const mp_sd3_config *const o = &m->config;
    const int64_t p = o->patch_size;
    const int64_t h = in->hidden_states.dim[1] / p, w = in->hidden_states.dim[2] / p;
    /* In Diffusers' order: of several dtypes that do not fit, the first one is the error.  The
     * patches' embedding is therefore older than t, and lives as long. */
    mp_tensor x = embed_patches(c, m, mp_take(c, in->hidden_states));
    const mp_tensor t = embed_time_and_text(c, m, in->timestep, mp_take(c, in->pooled_projections));

    const mp_mark mark = mp_open(c);
    mp_tensor context = mp_apply_linear(c, &m->context, mp_take(c, in->encoder_hidden_states));
    for (int i = 0; i < (int)o->layers && !mp_failed(c); i++) {
        if (is_skipped(in, i))
            continue;
        mp_push(c, "transformer_blocks.%d", i);
        block_forward(c, mark, o, &m->blocks[i], &x, &context, t);
        mp_pop(c);
    }
    x = mp_keep(c, mark, project_out(c, m, x, t));
    return unpatchify(c, x, h, w, p);
}

/* What the ops of a forward would say of it only later, or in other words. */
static void check_inputs(mp_ctx *c, const mp_sd3_inputs *in)
{
    const mp_tensor x = in->hidden_states, text = in->encoder_hidden_states,
                    pooled = in->pooled_projections;

    if (x.rank != 4 || text.rank != 3 || pooled.rank != 2)
        mp_fail(c, MP_ESHAPE, NULL,
                "hidden_states, encoder_hidden_states and pooled_projections have %d, %d and %d "
                "dimensions, expected 4, 3 and 2",
                x.rank, text.rank, pooled.rank);
    else if (x.dim[0] != text.dim[0] || x.dim[0] != pooled.dim[0])
        mp_fail(c, MP_ESHAPE, NULL,
                "hidden_states, encoder_hidden_states and pooled_projections are batches of %lld, "
                "%lld and %lld, expected as many",
                (long long)x.dim[0], (long long)text.dim[0], (long long)pooled.dim[0]);
}

mp_tensor mp_sd3_transformer_forward(mp_ctx *c, const mp_sd3_transformer *m,
                                     const mp_sd3_inputs *in)
{
    const mp_mark mark = mp_open(c);

    if (mp_failed(c))
        return MP_NONE;
    mp_push(c, "transformer");
    check_inputs(c, in);
    const mp_tensor y = mp_failed(c) ? MP_NONE : forward(c, m, in);
    return mp_keep(c, mark, mp_leave(c, y));
}
