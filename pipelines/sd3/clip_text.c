#include "pipelines/sd3/clip_text.h"

#include <math.h>

#include "kernels/core/memory.h"
#include "pipelines/common/config.h"
#include "pipelines/common/file.h"
#include "pipelines/common/layers.h"

enum { MAX_LAYERS = 256, MAX_DIM = 1 << 20, MAX_POSITIONS = 1 << 16 };

typedef struct layer {
    mp_affine norm1, norm2, q, k, v, out, fc1, fc2;
} layer;

typedef struct config {
    mp_clip_text_sizes sizes;
    int64_t intermediate, heads, eos;
    double eps;
    mp_act act;
} config;

struct mp_clip_text {
    config config;
    mp_weights *weights;
    char *component;
    int32_t *positions; /* 0, 1, ... */
    mp_tensor token_embedding, position_embedding, text_projection;
    mp_affine final_norm;
    layer *layers;
};

/* ---- configuration -------------------------------------------------------------------------- */

static void parse_config(mp_config *j, config *o, mp_error *err)
{
    o->sizes.vocab = mp_config_int(j, "vocab_size", 49408, 1, 1 << 24, err);
    o->sizes.hidden = mp_config_int(j, "hidden_size", 512, 1, MAX_DIM, err);
    o->sizes.projection = mp_config_int(j, "projection_dim", 512, 1, MAX_DIM, err);
    o->sizes.layers = mp_config_int(j, "num_hidden_layers", 12, 1, MAX_LAYERS, err);
    o->sizes.positions = mp_config_int(j, "max_position_embeddings", 77, 1, MAX_POSITIONS, err);
    o->intermediate = mp_config_int(j, "intermediate_size", 2048, 1, MAX_DIM, err);
    o->heads = mp_config_int(j, "num_attention_heads", 8, 1, 1024, err);
    o->eos = mp_config_int(j, "eos_token_id", 49407, 0, INT32_MAX, err);
    o->eps = mp_config_number(j, "layer_norm_eps", 1e-5, err);
    const char *const act = mp_config_string(j, "hidden_act", "quick_gelu", err);
    if (!mp_act_parse(act, &o->act))
        mp_error_set(err, MP_EUNSUPPORTED,
                     "%s: \"hidden_act\": unknown name \"%s\"; CLIP has \"quick_gelu\" or "
                     "\"gelu\"",
                     mp_config_path(j), mp_plain(act).text);
    if (o->sizes.hidden % o->heads)
        mp_error_set(err, MP_EFORMAT,
                     "%s: \"hidden_size\": found %lld, expected a multiple of the %lld of "
                     "\"num_attention_heads\"; the file is damaged",
                     mp_config_path(j), (long long)o->sizes.hidden, (long long)o->heads);
    if (!(o->eps >= 0 && o->eps < 1))
        mp_error_set(err, MP_EFORMAT,
                     "%s: \"layer_norm_eps\": found %g, expected a small number like 1e-05; the "
                     "file is damaged",
                     mp_config_path(j), o->eps);
    if (mp_config_has(j, "quantization_config"))
        mp_error_set(err, MP_EUNSUPPORTED,
                     "%s: quantized weights (\"quantization_config\") are not supported; use a "
                     "checkpoint in fp32, bf16 or fp16",
                     mp_config_path(j));
}

static void read_config(const char *dir, const char *component, mp_clip_text *m, mp_error *err)
{
    mp_config *j = NULL;

    if (mp_config_open(dir, "config.json", &j, err))
        return;
    parse_config(j, &m->config, err);
    mp_config_close(j);
    if (err->code)
        return;
    m->component = mp_strdup(component);
    m->layers = mp_alloc((size_t)m->config.sizes.layers, sizeof *m->layers);
    m->positions = mp_alloc((size_t)m->config.sizes.positions, sizeof *m->positions);
    if (!m->component || !m->layers || !m->positions) {
        mp_error_set(err, MP_ENOMEM, "no memory for the text encoder's layers");
        return;
    }
    for (int64_t i = 0; i < m->config.sizes.positions; i++)
        m->positions[i] = (int32_t)i;
}

/* ---- parameters ----------------------------------------------------------------------------- */

static void bind_norm(mp_weights *w, mp_affine *p, int64_t d, int i, const char *name)
{
    mp_weights_bind(w, &p->weight, 1, MP_DIMS(d), "text_model.encoder.layers.%d.%s.weight", i,
                    name);
    mp_weights_bind(w, &p->bias, 1, MP_DIMS(d), "text_model.encoder.layers.%d.%s.bias", i, name);
}

static void bind_linear(mp_weights *w, mp_affine *p, int64_t out, int64_t in, int i,
                        const char *name)
{
    mp_weights_bind_linear(w, p, out, in, true, "text_model.encoder.layers.%d.%s", i, name);
}

static void bind_layer(mp_weights *w, layer *p, const config *o, int i)
{
    const int64_t d = o->sizes.hidden;

    bind_norm(w, &p->norm1, d, i, "layer_norm1");
    bind_norm(w, &p->norm2, d, i, "layer_norm2");
    bind_linear(w, &p->q, d, d, i, "self_attn.q_proj");
    bind_linear(w, &p->k, d, d, i, "self_attn.k_proj");
    bind_linear(w, &p->v, d, d, i, "self_attn.v_proj");
    bind_linear(w, &p->out, d, d, i, "self_attn.out_proj");
    bind_linear(w, &p->fc1, o->intermediate, d, i, "mlp.fc1");
    bind_linear(w, &p->fc2, d, o->intermediate, i, "mlp.fc2");
}

static void bind(mp_clip_text *m)
{
    const mp_clip_text_sizes *const s = &m->config.sizes;
    mp_weights *const w = m->weights;

    /* A buffer that older transformers saved. */
    mp_weights_ignore(w, "text_model.embeddings.position_ids");
    mp_weights_bind(w, &m->token_embedding, 2, MP_DIMS(s->vocab, s->hidden),
                    "text_model.embeddings.token_embedding.weight");
    mp_weights_bind(w, &m->position_embedding, 2, MP_DIMS(s->positions, s->hidden),
                    "text_model.embeddings.position_embedding.weight");
    for (int i = 0; i < (int)s->layers; i++)
        bind_layer(w, &m->layers[i], &m->config, i);
    mp_weights_bind(w, &m->final_norm.weight, 1, MP_DIMS(s->hidden),
                    "text_model.final_layer_norm.weight");
    mp_weights_bind(w, &m->final_norm.bias, 1, MP_DIMS(s->hidden),
                    "text_model.final_layer_norm.bias");
    mp_weights_bind(w, &m->text_projection, 2, MP_DIMS(s->projection, s->hidden),
                    "text_projection.weight");
}

mp_code mp_clip_text_open(const char *dir, const mp_weights_options *o, mp_clip_text **out,
                          mp_error *err)
{
    mp_clip_text *m = mp_alloc(1, sizeof *m);

    *out = NULL;
    if (!m)
        return mp_error_set(err, MP_ENOMEM, "no memory for the text encoder");
    read_config(dir, o->component, m, err);
    if (!err->code && !mp_weights_open(dir, o, &m->weights, err)) {
        bind(m);
        mp_weights_finish(m->weights, err);
    }
    if (err->code) {
        mp_clip_text_close(m);
        return err->code;
    }
    *out = m;
    return MP_OK;
}

void mp_clip_text_close(mp_clip_text *m)
{
    if (!m)
        return;
    mp_weights_close(m->weights);
    mp_free(m->layers);
    mp_free(m->positions);
    mp_free(m->component);
    mp_free(m);
}

mp_weights *mp_clip_text_weights(const mp_clip_text *m)
{
    return m->weights;
}

mp_clip_text_sizes mp_clip_text_get_sizes(const mp_clip_text *m)
{
    return m->config.sizes;
}

/* ---- forward -------------------------------------------------------------------------------- */

static mp_tensor norm(mp_ctx *c, const mp_clip_text *m, const mp_affine *p, mp_tensor x)
{
    return mp_layer_norm(c, x, p->weight, p->bias, (float)m->config.eps);
}

/* Rows of both tables, each rounded to its dtype; the sum rounds: [1, n, D] */
static mp_tensor embed(mp_ctx *c, const mp_clip_text *m, const int32_t *ids, int64_t n)
{
    const mp_mark mark = mp_open(c);

    mp_push(c, "embeddings");
    const mp_tensor tokens = mp_embedding(c, ids, n, m->token_embedding);
    const mp_tensor positions = mp_embedding(c, m->positions, n, m->position_embedding);
    const mp_tensor x = mp_leave(c, mp_add(c, tokens, positions));
    if (mp_failed(c))
        return MP_NONE;
    return mp_keep(c, mark, mp_reshape(x, 3, MP_DIMS(1, n, m->config.sizes.hidden)));
}

/* The scores of q k^T / sqrt(d) and their softmax stay fp32, as in torch's kernel for the CPU
 * (MP_ATTN_SDPA); each projection rounds.  [1, n, D] -> [1, n, D] */
static mp_tensor self_attention(mp_ctx *c, const mp_clip_text *m, const layer *p, mp_tensor x)
{
    const mp_attn_opts opts = {
        .heads = (int)m->config.heads,
        .scale = (float)pow((double)(m->config.sizes.hidden / m->config.heads), -0.5),
        .causal = true,
        .rounding = MP_ATTN_SDPA};

    const mp_mark mark = mp_open(c);
    x = mp_enter(c, x, "self_attn");
    const mp_tensor q = mp_apply_linear(c, &p->q, x);
    const mp_tensor k = mp_apply_linear(c, &p->k, x);
    const mp_tensor v = mp_apply_linear(c, &p->v, x);
    mp_tensor y = mp_keep(c, mark, mp_attn_softmax(c, q, k, v, opts));
    return mp_keep(c, mark, mp_leave(c, mp_apply_linear(c, &p->out, y)));
}

/* fc2(act(fc1(x))): fc1, act and fc2 round. */
static mp_tensor mlp(mp_ctx *c, const mp_clip_text *m, const layer *p, mp_tensor x)
{
    const mp_mark mark = mp_open(c);

    x = mp_apply_linear(c, &p->fc1, mp_enter(c, x, "mlp"));
    x = mp_leave(c, mp_activate_(c, mp_enter(c, x, "activation_fn"), m->config.act));
    return mp_keep(c, mark, mp_leave(c, mp_apply_linear(c, &p->fc2, x)));
}

/* Each sum rounds.  x goes when it was made after `mark`. */
static mp_tensor layer_forward(mp_ctx *c, mp_mark mark, const mp_clip_text *m, const layer *p,
                               mp_tensor x)
{
    /* x += Attn(Norm(x)) */
    mp_tensor u = self_attention(c, m, p, norm(c, m, &p->norm1, x));
    x = mp_keep(c, mark, mp_add(c, x, u));

    /* x += MLP(Norm(x)) */
    u = mlp(c, m, p, norm(c, m, &p->norm2, x));
    return mp_keep(c, mark, mp_add(c, x, u));
}

/* Where the text ends.  eos_token_id 2 is an old mistake of OpenAI's configs, which SD3's repeat:
 * then the place of the highest id counts, which is <|endoftext|>'s unless tokens were added.  Else
 * the first eos_token_id, or 0 without one.  Of equal ids the first. */
static int64_t end_of_text(const mp_clip_text *m, const int32_t *ids, int64_t n)
{
    int64_t end = 0;

    if (m->config.eos == 2) {
        for (int64_t i = 1; i < n; i++)
            if (ids[i] > ids[end])
                end = i;
        return end;
    }
    while (end < n && ids[end] != m->config.eos)
        end++;
    return end < n ? end : 0;
}

/* The normed last hidden state where the text ends: [1, n, D] -> [1, D] */
static mp_tensor pool(mp_ctx *c, const mp_clip_text *m, mp_tensor x, int64_t end)
{
    const mp_mark mark = mp_open(c);

    x = mp_narrow_axis(c, norm(c, m, &m->final_norm, x), 1, end, 1);
    if (mp_failed(c))
        return MP_NONE;
    return mp_keep(c, mark, mp_reshape(x, 2, MP_DIMS(1, m->config.sizes.hidden)));
}

/* All layers; *hidden_states becomes what layer `wanted` reads. */
static mp_tensor encode(mp_ctx *c, const mp_clip_text *m, mp_tensor x, int wanted,
                        mp_tensor *hidden_states)
{
    const int layers = (int)m->config.sizes.layers;
    mp_mark mark = mp_open(c);

    x = mp_enter(c, x, "encoder");
    for (int i = 0; i < layers && !mp_failed(c); i++) {
        if (i == wanted) {
            *hidden_states = x;
            mark = mp_open(c); /* what is older stays */
        }
        x = layer_forward(c, mark, m, &m->layers[i], mp_enter(c, x, "layers.%d", i));
        x = mp_keep(c, mark, mp_leave(c, x));
    }
    *hidden_states = mp_give(c, *hidden_states);
    return mp_leave(c, x);
}

static bool check_call(mp_ctx *c, const mp_clip_text *m, int64_t n, int64_t clip_skip)
{
    const mp_clip_text_sizes *const s = &m->config.sizes;

    if (n < 1 || n > s->positions)
        mp_fail(c, MP_ESHAPE, NULL,
                "Sequence length must be less than max_position_embeddings (got `sequence "
                "length`: %lld and max_position_embeddings: %lld",
                (long long)n, (long long)s->positions);
    else if (clip_skip < 0 || clip_skip >= s->layers)
        mp_fail(c, MP_ESHAPE, NULL,
                "clip_skip: found %lld, expected 0 to %lld for a text encoder of %lld layers",
                (long long)clip_skip, (long long)s->layers - 1, (long long)s->layers);
    return !mp_failed(c);
}

/* hidden_states[i] is what layer i reads, and the last one what layer i - 1 gives. */
mp_clip_text_output mp_clip_text_forward(mp_ctx *c, const mp_clip_text *m, const int32_t *ids,
                                         int64_t n, int64_t clip_skip)
{
    const int wanted = (int)(m->config.sizes.layers - 1 - clip_skip);
    const mp_mark mark = mp_open(c);
    mp_clip_text_output out = {MP_NONE, MP_NONE};

    mp_push(c, "%s", m->component);
    if (check_call(c, m, n, clip_skip)) {
        mp_push(c, "text_model");
        mp_tensor x = encode(c, m, embed(c, m, ids, n), wanted, &out.hidden_states);
        out.hidden_states = mp_give(c, out.hidden_states);
        x = mp_leave(c, pool(c, m, x, end_of_text(m, ids, n)));
        out.text_embeds = mp_linear(c, x, m->text_projection, MP_NONE);
    }
    mp_pop(c);
    if (mp_failed(c))
        out = (mp_clip_text_output){MP_NONE, MP_NONE};
    mp_keep_all(c, mark, 2, (mp_tensor[]){out.hidden_states, out.text_embeds});
    return out;
}
