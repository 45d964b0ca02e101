#include "pipelines/common/t5_encoder.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "pipelines/common/config.h"
#include "pipelines/common/file.h"
#include "pipelines/common/layers.h"

enum { MAX_LAYERS = 256, MAX_DIM = 1 << 20, MAX_HEADS = 1024, MAX_BUCKETS = 1 << 16 };

typedef struct layer {
    mp_affine q, k, v, o;
    mp_affine wi, wi_linear, wo; /* wi: what the activation sees; wi_linear: when gated */
    mp_tensor attention_norm, ff_norm;
    mp_tensor relative_attention_bias; /* [buckets, heads]; of the first layer alone in T5 */
} layer;

typedef struct config {
    int64_t vocab, d_model, d_kv, d_ff, layers, heads, buckets, max_distance;
    double eps;
    mp_act act;
    bool gated, bias_per_layer;
} config;

struct mp_t5_encoder {
    char *component;
    config config;
    mp_weights *weights;
    mp_tensor embed_tokens, final_layer_norm;
    layer *layers;
};

/* ---- configuration -------------------------------------------------------------------------- */

/* "gated-gelu" is gelu_new, for old times' sake; dense_act_fn and is_gated_act, which newer configs
 * have beside feed_forward_proj, win over what it says. */
static void parse_feed_forward(mp_config *j, const char *fallback, config *o, mp_error *err)
{
    const char *const proj = mp_config_string(j, "feed_forward_proj", fallback, err);
    const bool gated = !strncmp(proj, "gated-", 6);
    const char *const name = !strcmp(proj, "gated-gelu") ? "gelu_new" : proj + (gated ? 6 : 0);
    const char *const act = mp_config_string(j, "dense_act_fn", name, err);

    o->gated = mp_config_bool(j, "is_gated_act", gated, err);
    if (!mp_act_parse(act, &o->act))
        mp_error_set(err, MP_EUNSUPPORTED,
                     "%s: \"feed_forward_proj\" is \"%.40s\": unknown activation \"%.40s\"; "
                     "\"gated-gelu\" and \"relu\" are T5's own",
                     mp_config_path(j), mp_plain(proj).text, mp_plain(act).text);
}

static void parse_family(mp_config *j, config *o, mp_error *err)
{
    const char *const type = mp_config_string(j, "model_type", "t5", err);

    o->bias_per_layer = !strcmp(type, "umt5");
    if (!o->bias_per_layer && strcmp(type, "t5"))
        mp_error_set(err, MP_EUNSUPPORTED,
                     "%s: \"model_type\": found \"%.40s\", expected \"t5\" or \"umt5\"",
                     mp_config_path(j), mp_plain(type).text);
    if (mp_config_bool(j, "is_decoder", false, err))
        mp_error_set(err, MP_EUNSUPPORTED, "%s: \"is_decoder\": only the encoder is supported",
                     mp_config_path(j));
    if (mp_config_has(j, "quantization_config"))
        mp_error_set(err, MP_EUNSUPPORTED,
                     "%s: quantized weights (\"quantization_config\") are not supported; use a "
                     "checkpoint in fp32, bf16 or fp16",
                     mp_config_path(j));
}

/* Half of the buckets look back; half of those are for one distance each. */
static int64_t exact_distances(const config *o)
{
    return o->buckets / 2 / 2;
}

static void parse_config(mp_config *j, config *o, mp_error *err)
{
    parse_family(j, o, err);
    const bool umt5 = o->bias_per_layer; /* the two classes' defaults differ */
    o->vocab = mp_config_int(j, "vocab_size", umt5 ? 250112 : 32128, 1, 1 << 24, err);
    o->d_model = mp_config_int(j, "d_model", 512, 1, MAX_DIM, err);
    o->d_kv = mp_config_int(j, "d_kv", 64, 1, 4096, err);
    o->d_ff = mp_config_int(j, "d_ff", umt5 ? 1024 : 2048, 1, MAX_DIM, err);
    o->layers = mp_config_int(j, "num_layers", umt5 ? 8 : 6, 1, MAX_LAYERS, err);
    o->heads = mp_config_int(j, "num_heads", umt5 ? 6 : 8, 1, MAX_HEADS, err);
    o->buckets = mp_config_int(j, "relative_attention_num_buckets", 32, 4, MAX_BUCKETS, err);
    o->max_distance = mp_config_int(j, "relative_attention_max_distance", 128, 1, MAX_DIM, err);
    o->eps = mp_config_number(j, "layer_norm_epsilon", 1e-6, err);
    parse_feed_forward(j, umt5 ? "gated-gelu" : "relu", o, err);
    if (o->heads * o->d_kv > MAX_DIM)
        mp_error_set(err, MP_EFORMAT, "%s: %lld heads of %lld channels, expected at most %d in all",
                     mp_config_path(j), (long long)o->heads, (long long)o->d_kv, MAX_DIM);
    if (o->max_distance <= exact_distances(o))
        mp_error_set(err, MP_EFORMAT,
                     "%s: \"relative_attention_max_distance\": found %lld, expected more than the "
                     "%lld distances that have a bucket of their own",
                     mp_config_path(j), (long long)o->max_distance, (long long)exact_distances(o));
}

static void read_config(const char *dir, mp_t5_encoder *m, mp_error *err)
{
    mp_config *j = NULL;

    if (mp_config_open(dir, "config.json", &j, err))
        return;
    parse_config(j, &m->config, err);
    mp_config_close(j);
    m->layers = mp_alloc((size_t)m->config.layers, sizeof *m->layers);
    if (!m->layers)
        mp_error_set(err, MP_ENOMEM, "%s: no memory for the text encoder's layers", dir);
}

/* ---- parameters ----------------------------------------------------------------------------- */

#define ATTENTION    "encoder.block.%d.layer.0.SelfAttention"
#define FEED_FORWARD "encoder.block.%d.layer.1.DenseReluDense"

static void bind_layer(mp_weights *w, layer *p, const config *o, int i)
{
    const int64_t d = o->d_model, inner = o->heads * o->d_kv, ff = o->d_ff;

    mp_weights_bind_linear(w, &p->q, inner, d, false, ATTENTION ".q", i);
    mp_weights_bind_linear(w, &p->k, inner, d, false, ATTENTION ".k", i);
    mp_weights_bind_linear(w, &p->v, inner, d, false, ATTENTION ".v", i);
    mp_weights_bind_linear(w, &p->o, d, inner, false, ATTENTION ".o", i);
    if (!i || o->bias_per_layer)
        mp_weights_bind(w, &p->relative_attention_bias, 2, MP_DIMS(o->buckets, o->heads),
                        ATTENTION ".relative_attention_bias.weight", i);
    mp_weights_bind(w, &p->attention_norm, 1, MP_DIMS(d),
                    "encoder.block.%d.layer.0.layer_norm.weight", i);
    mp_weights_bind_linear(w, &p->wi, ff, d, false,
                           o->gated ? FEED_FORWARD ".wi_0" : FEED_FORWARD ".wi", i);
    if (o->gated)
        mp_weights_bind_linear(w, &p->wi_linear, ff, d, false, FEED_FORWARD ".wi_1", i);
    mp_weights_bind_linear(w, &p->wo, d, ff, false, FEED_FORWARD ".wo", i);
    mp_weights_bind(w, &p->ff_norm, 1, MP_DIMS(d), "encoder.block.%d.layer.1.layer_norm.weight", i);
}

static void bind(mp_t5_encoder *m)
{
    static const char tied[] = "encoder.embed_tokens.weight", shared[] = "shared.weight";
    const config *const o = &m->config;
    /* One tensor under two names, of which a file has one or both. */
    const bool own = mp_weights_has(m->weights, tied);

    mp_weights_bind(m->weights, &m->embed_tokens, 2, MP_DIMS(o->vocab, o->d_model), "%s",
                    own ? tied : shared);
    mp_weights_ignore(m->weights, shared);
    mp_weights_ignore(m->weights, "decoder.*"); /* of a whole T5 */
    mp_weights_ignore(m->weights, "lm_head.*");
    for (int i = 0; i < (int)o->layers; i++)
        bind_layer(m->weights, &m->layers[i], o, i);
    mp_weights_bind(m->weights, &m->final_layer_norm, 1, MP_DIMS(o->d_model),
                    "encoder.final_layer_norm.weight");
}

mp_code mp_t5_encoder_open(const char *dir, const mp_weights_options *o, mp_t5_encoder **out,
                           mp_error *err)
{
    static const char *const keep_fp32[] = {"wo", NULL}; /* _keep_in_fp32_modules */
    mp_t5_encoder *m = mp_alloc(1, sizeof *m);
    mp_weights_options own = *o;

    *out = NULL;
    own.keep_fp32_of_fp16 = keep_fp32;
    if (!m || !(m->component = mp_strdup(o->component))) {
        mp_free(m);
        return mp_error_set(err, MP_ENOMEM, "%s: no memory for the text encoder", dir);
    }
    read_config(dir, m, err);
    if (!err->code && !mp_weights_open(dir, &own, &m->weights, err)) {
        bind(m);
        mp_weights_finish(m->weights, err);
    }
    if (err->code) {
        mp_t5_encoder_close(m);
        return err->code;
    }
    *out = m;
    return MP_OK;
}

void mp_t5_encoder_close(mp_t5_encoder *m)
{
    if (!m)
        return;
    mp_weights_close(m->weights);
    mp_free(m->layers);
    mp_free(m->component);
    mp_free(m);
}

mp_weights *mp_t5_encoder_weights(const mp_t5_encoder *m)
{
    return m->weights;
}

int64_t mp_t5_encoder_width(const mp_t5_encoder *m)
{
    return m->config.d_model;
}

/* ---- forward -------------------------------------------------------------------------------- */

/* T5LayerNorm has the rounding points of diffusers' RMSNorm: x * rsqrt(mean(x^2) + eps) in fp32,
 * rounded to the weight's dtype if that is a half; times the weight, rounded. */
static mp_tensor layer_norm(mp_ctx *c, const mp_t5_encoder *m, mp_tensor x, mp_tensor w)
{
    return mp_rms_norm(c, x, w, MP_NONE, (float)m->config.eps, MP_RMS_DIFFUSERS);
}

/* _relative_position_bucket, bidirectional.  distance: key minus query.  Logarithm, quotient and
 * product in fp32, as torch has them. */
static int32_t bucket(const config *o, int64_t distance)
{
    const int64_t side = o->buckets / 2, exact = exact_distances(o);
    const int64_t n = distance < 0 ? -distance : distance, first = distance > 0 ? side : 0;

    if (n < exact)
        return (int32_t)(first + n);
    const float ratio = (float)n / (float)exact;
    const float whole = (float)log((double)o->max_distance / (double)exact);
    const float place = (float)log((double)ratio) / whole * (float)(side - exact);
    const int64_t far = exact + (int64_t)place; /* at most 32-bit distances: it fits */
    return (int32_t)(first + (far < side ? far : side - 1));
}

/* What each distance -(n-1) .. n-1 adds to the scores of each head: [heads, 2n-1] */
static mp_tensor position_bias(mp_ctx *c, const mp_t5_encoder *m, int i, int64_t n)
{
    const int64_t count = 2 * n - 1;
    const mp_mark mark = mp_open(c);
    mp_tensor ids = mp_new(c, MP_F32, 1, MP_DIMS(count)); /* memory for 32-bit numbers */

    for (int64_t k = 0; k < count && !mp_failed(c); k++)
        ((int32_t *)ids.data)[k] = bucket(&m->config, k - (n - 1));
    mp_tensor bias = mp_embedding(c, ids.data, count, m->layers[i].relative_attention_bias);
    return mp_keep(c, mark, mp_permute(c, bias, (const int[]){1, 0}));
}

/* What every layer reads beside the hidden states. */
typedef struct inputs {
    mp_tensor bias, padding;
    int64_t n;
} inputs;

/* x [1, n, d_model] -> [1, n, d_model].  T5 does not scale its scores. */
static mp_tensor self_attention(mp_ctx *c, const mp_t5_encoder *m, int i, const inputs *in,
                                mp_tensor x)
{
    const layer *const p = &m->layers[i];
    const mp_mark mark = mp_open(c);

    x = mp_enter(c, x, "SelfAttention");
    const mp_attn_opts opts = {
        .heads = (int)m->config.heads,
        .scale = 1.0f,
        .mask = mp_take(c, in->padding),
        .bias = mp_given(in->bias) ? mp_take(c, in->bias) : position_bias(c, m, i, in->n),
        .rounding = MP_ATTN_SDPA,
    };
    const mp_tensor q = mp_apply_linear(c, &p->q, x);
    const mp_tensor k = mp_apply_linear(c, &p->k, x);
    const mp_tensor v = mp_apply_linear(c, &p->v, x);
    const mp_tensor y = mp_keep(c, mark, mp_attn_softmax(c, q, k, v, opts));
    return mp_keep(c, mark, mp_leave(c, mp_apply_linear(c, &p->o, y)));
}

/* wo(act(wi_0(x)) * wi_1(x)), or wo(act(wi(x))); what wo sees is cast to wo's dtype. */
static mp_tensor feed_forward(mp_ctx *c, const mp_t5_encoder *m, int i, mp_tensor x)
{
    const layer *const p = &m->layers[i];
    const mp_mark mark = mp_open(c);

    x = mp_enter(c, x, "DenseReluDense");
    mp_tensor u = mp_apply_linear(c, &p->wi, x);
    if (m->config.gated)
        u = mp_keep(c, mark, mp_gate(c, u, mp_apply_linear(c, &p->wi_linear, x), m->config.act));
    else
        u = mp_activate_(c, u, m->config.act);
    u = mp_keep(c, mark, mp_cast(c, u, p->wo.weight.dtype));
    return mp_keep(c, mark, mp_leave(c, mp_apply_linear(c, &p->wo, u)));
}

/* x was made after `mark`: each equation's result replaces it. */
static mp_tensor block(mp_ctx *c, mp_mark mark, const mp_t5_encoder *m, int i, inputs in,
                       mp_tensor x)
{
    const layer *const p = &m->layers[i];

    x = mp_enter(c, x, "block.%d", i);
    in.bias = mp_take(c, in.bias);
    in.padding = mp_take(c, in.padding);

    /* x += Attn(Norm(x)) */
    x = mp_enter(c, x, "layer.0");
    in.bias = mp_take(c, in.bias);
    in.padding = mp_take(c, in.padding);
    mp_tensor u = self_attention(c, m, i, &in, layer_norm(c, m, x, p->attention_norm));
    x = mp_keep(c, mark, mp_leave(c, mp_add(c, x, u)));
    x = mp_keep(c, mark, mp_clip_infinite(c, x));

    /* x += FF(Norm(x)) */
    x = mp_enter(c, x, "layer.1");
    u = feed_forward(c, m, i, layer_norm(c, m, x, p->ff_norm));
    x = mp_keep(c, mark, mp_leave(c, mp_add(c, x, u)));
    return mp_keep(c, mark, mp_leave(c, mp_clip_infinite(c, x)));
}

/* 0 for tokens, the dtype's most negative number for padding: [1, n].  transformers puts that
 * number in the bias's place; added to it in fp32, its exponential is zero as well. */
static mp_tensor padding_bias(mp_ctx *c, const uint8_t *mask, int64_t n, mp_dtype dtype)
{
    const mp_mark mark = mp_open(c);
    mp_tensor bias = mp_new(c, MP_F32, 2, MP_DIMS(1, n));

    for (int64_t i = 0; i < n && !mp_failed(c); i++)
        ((float *)bias.data)[i] = mask[i] ? 0.0f : (float)-mp_dtype_max(dtype);
    return mp_keep(c, mark, mp_cast(c, bias, dtype));
}

static mp_tensor embed(mp_ctx *c, const mp_t5_encoder *m, const int32_t *ids, int64_t n)
{
    const mp_tensor x = mp_embedding(c, ids, n, m->embed_tokens);

    return mp_failed(c) ? MP_NONE : mp_reshape(x, 3, MP_DIMS(1, n, m->config.d_model));
}

/* The bias of the first block's attention as the other blocks get it: out of three modules. */
static mp_tensor shared_bias(mp_ctx *c, const mp_t5_encoder *m, int64_t n)
{
    mp_push(c, "block.0");
    mp_push(c, "layer.0");
    mp_push(c, "SelfAttention");
    mp_tensor bias = mp_leave(c, position_bias(c, m, 0, n));
    return mp_leave(c, mp_leave(c, bias));
}

mp_tensor mp_t5_encoder_forward(mp_ctx *c, const mp_t5_encoder *m, const int32_t *ids,
                                const uint8_t *mask, int64_t n)
{
    const mp_mark outer = mp_open(c);
    inputs in = {.n = n};

    mp_push(c, "%s", m->component);
    mp_push(c, "encoder");
    if (n < 1 || n > INT32_MAX)
        mp_fail(c, MP_ESHAPE, NULL, "T5 encoder: %lld tokens, expected at least one", (long long)n);
    if (mask && !mp_failed(c))
        in.padding = padding_bias(c, mask, n, m->embed_tokens.dtype);
    const inputs first = in; /* it makes its own bias */
    if (!m->config.bias_per_layer && !mp_failed(c))
        in.bias = shared_bias(c, m, n);
    const mp_mark mark = mp_open(c);
    mp_tensor x = mp_failed(c) ? MP_NONE : embed(c, m, ids, n);
    for (int i = 0; i < (int)m->config.layers && !mp_failed(c); i++)
        x = block(c, mark, m, i, i ? in : first, x);
    x = mp_leave(c, layer_norm(c, m, x, m->final_layer_norm));
    mp_pop(c);
    return mp_keep(c, outer, x);
}
