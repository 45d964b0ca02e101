#include "pipelines/sana/gemma2.h"

#include <math.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "pipelines/common/config.h"
#include "pipelines/common/layers.h"

enum { MAX_LAYERS = 256, MAX_DIM = 1 << 20 };

typedef struct layer {
    mp_affine q, k, v, o, gate, up, down;
    mp_tensor input_norm, post_attention_norm, pre_feedforward_norm, post_feedforward_norm;
    bool sliding;
} layer;

typedef struct config {
    int64_t vocab, hidden, intermediate, layers, heads, kv_heads, head_dim, query_scalar, window;
    double rms_eps, rope_theta, softcap;
    bool attention_bias;
    mp_act act;
} config;

struct mp_gemma2 {
    config config;
    mp_weights *weights;
    mp_tensor embed_tokens, norm;
    layer *layers;
    float *inv_freq; /* [head_dim/2] */
};

/* ---- configuration -------------------------------------------------------------------------- */

/* rope_theta stands at the top in older files and under rope_parameters in newer ones; only the
 * default kind of rotary embedding is Gemma-2's. */
static void parse_rope(mp_config *j, config *o, mp_error *err)
{
    static const char *const places[] = {"rope_parameters", "rope_scaling"};

    o->rope_theta = mp_config_number(j, "rope_theta", 10000.0, err);
    for (int i = 0; i < 2; i++) {
        mp_config *const rope = mp_config_object(j, places[i], err);
        if (!rope)
            continue;
        const char *const type = mp_config_string(rope, "rope_type", "default", err);
        o->rope_theta = mp_config_number(rope, "rope_theta", o->rope_theta, err);
        if (strcmp(type, "default"))
            mp_error_set(err, MP_EUNSUPPORTED,
                         "%s: \"%s\": the rope type \"%.40s\" is not supported; \"default\" is",
                         mp_config_path(j), places[i], type);
    }
}

static void parse_config(mp_config *j, config *o, mp_error *err)
{
    o->vocab = mp_config_int(j, "vocab_size", 256000, 1, 1 << 24, err);
    o->hidden = mp_config_int(j, "hidden_size", 2304, 1, MAX_DIM, err);
    o->intermediate = mp_config_int(j, "intermediate_size", 9216, 1, MAX_DIM, err);
    o->layers = mp_config_int(j, "num_hidden_layers", 26, 0, MAX_LAYERS, err);
    o->heads = mp_config_int(j, "num_attention_heads", 8, 1, 1024, err);
    o->kv_heads = mp_config_int(j, "num_key_value_heads", 4, 1, 1024, err);
    o->head_dim = mp_config_int(j, "head_dim", 256, 2, 4096, err);
    o->query_scalar = mp_config_int(j, "query_pre_attn_scalar", 256, 1, MAX_DIM, err);
    o->window = mp_config_int(j, "sliding_window", 4096, 1, INT32_MAX, err);
    o->rms_eps = mp_config_number(j, "rms_norm_eps", 1e-6, err);
    o->softcap = mp_config_number(j, "attn_logit_softcapping", 50.0, err);
    o->attention_bias = mp_config_bool(j, "attention_bias", false, err);
    parse_rope(j, o, err);
    const char *const act = mp_config_string(j, "hidden_activation", "gelu_pytorch_tanh", err);
    if (!mp_act_parse(act, &o->act))
        mp_error_set(err, MP_EUNSUPPORTED, "%s: \"hidden_activation\": unknown name \"%.40s\"",
                     mp_config_path(j), act);
    if (o->heads % o->kv_heads || o->head_dim % 2)
        mp_error_set(
            err, MP_EFORMAT, "%s: %lld heads cannot share %lld key-value heads of %lld channels",
            mp_config_path(j), (long long)o->heads, (long long)o->kv_heads, (long long)o->head_dim);
    if (mp_config_bool(j, "use_bidirectional_attention", false, err))
        mp_error_set(err, MP_EUNSUPPORTED,
                     "%s: \"use_bidirectional_attention\": only causal attention is supported",
                     mp_config_path(j));
    if (mp_config_has(j, "quantization_config"))
        mp_error_set(err, MP_EUNSUPPORTED,
                     "%s: quantized weights (\"quantization_config\") are not supported; use a "
                     "checkpoint in fp32, bf16 or fp16",
                     mp_config_path(j));
}

/* By default every other layer, from the first on, has the sliding window. */
static void parse_layer_types(mp_config *j, mp_gemma2 *m, mp_error *err)
{
    const char *types[MAX_LAYERS];
    const int n = (int)m->config.layers;
    const bool given = mp_config_has(j, "layer_types");

    mp_config_strings(j, "layer_types", types, n, NULL, err);
    for (int i = 0; i < n && !err->code; i++) {
        m->layers[i].sliding = given ? !strcmp(types[i], "sliding_attention") : i % 2 == 0;
        if (given && !m->layers[i].sliding && strcmp(types[i], "full_attention"))
            mp_error_set(err, MP_EUNSUPPORTED, "%s: \"layer_types\": unknown type \"%.40s\"",
                         mp_config_path(j), types[i]);
    }
}

/* inv_freq[i] = 1 / theta ** (2i / head_dim), exponent, power and quotient in fp32.  It is a
 * buffer: from_pretrained leaves it in fp32, a cast of the whole model rounds it. */
static void make_frequencies(mp_gemma2 *m, const mp_weights_options *o, mp_error *err)
{
    const int64_t half = m->config.head_dim / 2;

    m->inv_freq = mp_alloc((size_t)half, sizeof *m->inv_freq);
    if (!m->inv_freq) {
        mp_error_set(err, MP_ENOMEM, "no memory for the text encoder");
        return;
    }
    for (int64_t i = 0; i < half; i++) {
        const float exponent = (float)(2 * i) / (float)m->config.head_dim;
        const float f = 1.0f / (float)pow(m->config.rope_theta, (double)exponent);
        m->inv_freq[i] = o->round_trip_fp32 ? mp_round_to(o->dtype, f) : f;
    }
}

static void read_config(const char *dir, const mp_weights_options *o, mp_gemma2 *m, mp_error *err)
{
    mp_config *j = NULL;

    if (mp_config_open(dir, "config.json", &j, err))
        return;
    parse_config(j, &m->config, err);
    m->layers = mp_alloc((size_t)m->config.layers, sizeof *m->layers);
    if (!m->layers)
        mp_error_set(err, MP_ENOMEM, "no memory for the text encoder's layers");
    if (!err->code)
        parse_layer_types(j, m, err);
    mp_config_close(j);
    if (!err->code)
        make_frequencies(m, o, err);
}

/* ---- parameters ----------------------------------------------------------------------------- */

static void bind_norm(mp_weights *w, mp_tensor *p, int64_t d, int i, const char *name)
{
    mp_weights_bind(w, p, 1, MP_DIMS(d), "layers.%d.%s.weight", i, name);
}

static void bind_layer(mp_weights *w, layer *p, const config *o, int i)
{
    const int64_t d = o->hidden, q = o->heads * o->head_dim, kv = o->kv_heads * o->head_dim;
    const bool bias = o->attention_bias;

    mp_weights_bind_linear(w, &p->q, q, d, bias, "layers.%d.self_attn.q_proj", i);
    mp_weights_bind_linear(w, &p->k, kv, d, bias, "layers.%d.self_attn.k_proj", i);
    mp_weights_bind_linear(w, &p->v, kv, d, bias, "layers.%d.self_attn.v_proj", i);
    mp_weights_bind_linear(w, &p->o, d, q, bias, "layers.%d.self_attn.o_proj", i);
    mp_weights_bind_linear(w, &p->gate, o->intermediate, d, false, "layers.%d.mlp.gate_proj", i);
    mp_weights_bind_linear(w, &p->up, o->intermediate, d, false, "layers.%d.mlp.up_proj", i);
    mp_weights_bind_linear(w, &p->down, d, o->intermediate, false, "layers.%d.mlp.down_proj", i);
    bind_norm(w, &p->input_norm, d, i, "input_layernorm");
    bind_norm(w, &p->post_attention_norm, d, i, "post_attention_layernorm");
    bind_norm(w, &p->pre_feedforward_norm, d, i, "pre_feedforward_layernorm");
    bind_norm(w, &p->post_feedforward_norm, d, i, "post_feedforward_layernorm");
}

static void bind(mp_gemma2 *m)
{
    const config *const o = &m->config;

    /* A Gemma2ForCausalLM file holds the same model under a prefix, and a head that nobody asks. */
    mp_weights_strip(m->weights, "model.");
    mp_weights_ignore(m->weights, "lm_head.*");
    mp_weights_bind(m->weights, &m->embed_tokens, 2, MP_DIMS(o->vocab, o->hidden),
                    "embed_tokens.weight");
    for (int i = 0; i < (int)o->layers; i++)
        bind_layer(m->weights, &m->layers[i], o, i);
    mp_weights_bind(m->weights, &m->norm, 1, MP_DIMS(o->hidden), "norm.weight");
}

mp_code mp_gemma2_open(const char *dir, const mp_weights_options *o, mp_gemma2 **out, mp_error *err)
{
    mp_gemma2 *m = mp_alloc(1, sizeof *m);

    if (!m)
        return mp_error_set(err, MP_ENOMEM, "no memory for the text encoder");
    read_config(dir, o, m, err);
    if (!err->code && !mp_weights_open(dir, o, &m->weights, err)) {
        bind(m);
        mp_weights_finish(m->weights, err);
    }
    if (err->code) {
        mp_gemma2_close(m);
        return err->code;
    }
    *out = m;
    return MP_OK;
}

void mp_gemma2_close(mp_gemma2 *m)
{
    if (!m)
        return;
    mp_weights_close(m->weights);
    mp_free(m->layers);
    mp_free(m->inv_freq);
    mp_free(m);
}

mp_weights *mp_gemma2_weights(const mp_gemma2 *m)
{
    return m->weights;
}

/* ---- forward -------------------------------------------------------------------------------- */

/* What every layer shares: cos and sin [n, head_dim], and what padding adds to the scores. */
typedef struct inputs {
    mp_tensor cos, sin, padding;
} inputs;

static mp_tensor rms(mp_ctx *c, const mp_gemma2 *m, mp_tensor x, mp_tensor w)
{
    return mp_rms_norm(c, x, w, MP_NONE, (float)m->config.rms_eps, MP_RMS_GEMMA);
}

/* [1, n, hidden] -> [1, n, hidden] */
static mp_tensor self_attention(mp_ctx *c, const mp_gemma2 *m, const layer *p, const inputs *in,
                                mp_tensor x)
{
    const config *const o = &m->config;
    const mp_mark mark = mp_open(c);

    x = mp_enter(c, x, "self_attn");
    const mp_tensor cos = mp_take(c, in->cos), sin = mp_take(c, in->sin);
    const mp_attn_opts opts = {
        .heads = (int)o->heads,
        .kv_heads = (int)o->kv_heads,
        .scale = (float)pow((double)o->query_scalar, -0.5),
        .softcap = (float)o->softcap,
        .causal = true,
        .window = p->sliding ? (int)o->window : 0,
        .mask = mp_take(c, in->padding),
        .rounding = MP_ATTN_EAGER,
    };

    mp_tensor q = mp_apply_linear(c, &p->q, x);
    mp_tensor k = mp_apply_linear(c, &p->k, x);
    mp_tensor v = mp_apply_linear(c, &p->v, x);
    q = mp_rope_half(c, q, cos, sin, (int)o->heads);
    k = mp_rope_half(c, k, cos, sin, (int)o->kv_heads);
    mp_tensor y = mp_keep(c, mark, mp_attn_softmax(c, q, k, v, opts));
    return mp_keep(c, mark, mp_leave(c, mp_apply_linear(c, &p->o, y)));
}

/* down(act(gate(x)) * up(x)) */
static mp_tensor mlp(mp_ctx *c, const mp_gemma2 *m, const layer *p, mp_tensor x)
{
    const mp_mark mark = mp_open(c);

    x = mp_enter(c, x, "mlp");
    const mp_tensor g = mp_apply_linear(c, &p->gate, x);
    mp_tensor u = mp_apply_linear(c, &p->up, x);
    u = mp_keep(c, mark, mp_gate(c, g, u, m->config.act));
    return mp_keep(c, mark, mp_leave(c, mp_apply_linear(c, &p->down, u)));
}

/* x was made after `mark`: each equation's result replaces it. */
static mp_tensor layer_forward(mp_ctx *c, mp_mark mark, const mp_gemma2 *m, const layer *p,
                               const inputs *in, mp_tensor x)
{
    /* x += Norm(Attn(Norm(x))) */
    mp_tensor u = rms(c, m, x, p->input_norm);
    u = self_attention(c, m, p, in, u);
    u = rms(c, m, u, p->post_attention_norm);
    x = mp_keep(c, mark, mp_add(c, x, u));

    /* x += Norm(MLP(Norm(x))) */
    u = rms(c, m, x, p->pre_feedforward_norm);
    u = mlp(c, m, p, u);
    u = rms(c, m, u, p->post_feedforward_norm);
    return mp_keep(c, mark, mp_add(c, x, u));
}

/* cos or sin of position * inv_freq, in fp32 and then rounded to the dtype: [n, head_dim], the
 * second half of a row repeats the first. */
static mp_tensor rotary_table(mp_ctx *c, const mp_gemma2 *m, int64_t n, mp_dtype dtype,
                              double (*f)(double))
{
    const int64_t d = m->config.head_dim;
    const mp_mark mark = mp_open(c);
    mp_tensor table = mp_new(c, MP_F32, 2, MP_DIMS(n, d));

    for (int64_t i = 0; i < n && !mp_failed(c); i++)
        for (int64_t j = 0; j < d; j++) {
            const float angle = (float)i * m->inv_freq[j % (d / 2)];
            ((float *)table.data)[i * d + j] = (float)f((double)angle);
        }
    return mp_keep(c, mark, mp_cast(c, table, dtype));
}

/* 0 for tokens, the dtype's most negative number for padding: [1, n] */
static mp_tensor padding_bias(mp_ctx *c, const uint8_t *mask, int64_t n, mp_dtype dtype)
{
    const mp_mark mark = mp_open(c);
    mp_tensor bias = mp_new(c, MP_F32, 2, MP_DIMS(1, n));

    for (int64_t i = 0; i < n && !mp_failed(c); i++)
        ((float *)bias.data)[i] = mask[i] ? 0.0f : (float)-mp_dtype_max(dtype);
    return mp_keep(c, mark, mp_cast(c, bias, dtype));
}

/* Rows of the table times sqrt(hidden), which is rounded to the table's dtype: [1, n, hidden] */
static mp_tensor embed(mp_ctx *c, const mp_gemma2 *m, const int32_t *ids, int64_t n)
{
    const mp_mark mark = mp_open(c);
    const float scale = (float)sqrt((double)m->config.hidden);

    mp_push(c, "embed_tokens");
    mp_tensor x = mp_embedding(c, ids, n, m->embed_tokens);
    x = mp_leave(c, mp_mul_scalar(c, x, mp_round_to(m->embed_tokens.dtype, scale)));
    if (mp_failed(c))
        return MP_NONE;
    return mp_keep(c, mark, mp_reshape(x, 3, MP_DIMS(1, n, m->config.hidden)));
}

mp_tensor mp_gemma2_forward(mp_ctx *c, const mp_gemma2 *m, const int32_t *ids, const uint8_t *mask,
                            int64_t n)
{
    const mp_dtype dtype = m->embed_tokens.dtype;
    const mp_mark outer = mp_open(c);

    mp_push(c, "text_encoder");
    const inputs in = {.cos = rotary_table(c, m, n, dtype, cos),
                       .sin = rotary_table(c, m, n, dtype, sin),
                       .padding = padding_bias(c, mask, n, dtype)};
    const mp_mark mark = mp_open(c);
    mp_tensor x = embed(c, m, ids, n);
    for (int i = 0; i < (int)m->config.layers && !mp_failed(c); i++) {
        x = mp_enter(c, x, "layers.%d", i);
        const inputs own = {mp_take(c, in.cos), mp_take(c, in.sin), mp_take(c, in.padding)};
        x = layer_forward(c, mark, m, &m->layers[i], &own, x);
        x = mp_keep(c, mark, mp_leave(c, x));
    }
    x = rms(c, m, x, m->norm);
    mp_pop(c);
    return mp_keep(c, outer, x);
}
