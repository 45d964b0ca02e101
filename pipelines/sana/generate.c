#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "kernels/ops.h"
#include "pipelines/sana/prompt.h"
#include "pipelines/sana/resolution_bins.h"
#include "pipelines/sana/sana.h"

/* Axes of a picture from Diffusers' layout to ours, and back. */
static const int to_nhwc[] = {0, 2, 3, 1};
static const int to_nchw[] = {0, 3, 1, 2};

/* One generation: what lives from its first stage to its last. */
typedef struct run {
    mp_sana *s;
    mp_ctx *c;
    const mp_sink *sink;
    mp_error *err;
    mp_stages stages;
    bool guided;
    int64_t images;                  /* pictures; the batch is twice as large when guided */
    int64_t channels, height, width; /* of the latents */
    int64_t numel;                   /* of the latents */
    float *latents, *prediction;     /* fp32 [images, channels, height, width] */
    mp_tensor text;                  /* [batch, max_length, hidden] */
    uint8_t *mask;                   /* [batch, max_length] */
} run;

static void emit(const run *r, const char *name, mp_tensor fp32, mp_dtype dtype)
{
    if (!mp_failed(r->c) && !r->err->code && r->sink && r->sink->tensor)
        r->sink->tensor(r->sink->user, name, fp32, dtype);
}

static mp_tensor latents_view(const run *r, float *data)
{
    return mp_view(data, MP_F32, 4, MP_DIMS(r->images, r->channels, r->height, r->width));
}

static void emit_latents(const run *r, const char *name)
{
    emit(r, name, latents_view(r, r->latents), MP_F32);
}

/* ---- text ----------------------------------------------------------------------------------- */

static void warn_truncated(const run *r, const char *which, int64_t tokens)
{
    char text[200];

    if (!tokens || !r->sink || !r->sink->warn)
        return;
    snprintf(text, sizeof text,
             "the %s is longer than max_sequence_length %lld: its last %lld tokens were cut off",
             which, (long long)r->s->call.max_length, (long long)tokens);
    r->sink->warn(r->sink->user, text);
}

/* One prompt, repeated for each picture -> [images, max_length, hidden]; its mask likewise. */
static mp_tensor encode_prompt(run *r, const char *which, const char *prompt,
                               const char *instruction, uint8_t *mask)
{
    const mp_sana *const s = r->s;
    const mp_mark mark = mp_open(r->c);
    mp_sana_prompt p;

    if (mp_failed(r->c) ||
        mp_sana_prompt_encode(s->tokenizer, prompt, instruction, s->call.max_length, &p, r->err))
        return MP_NONE;
    warn_truncated(r, which, p.truncated);
    mp_tensor x = mp_sana_prompt_embed(r->c, s->text_encoder, &p, mask);
    for (int64_t i = 1; i < r->images; i++) {
        memcpy(mask + i * p.length, mask, (size_t)p.length);
        x = mp_keep(r->c, mark, mp_cat(r->c, 2, (mp_tensor[]){x, mp_batch(x, 0, 1)}, 0));
        if (mp_failed(r->c))
            break;
    }
    mp_sana_prompt_free(&p);
    return mp_keep(r->c, mark, x);
}

/* The negative prompt's states before the prompt's, when guided: -> [batch, max_length, hidden] */
static mp_tensor encode_prompts(run *r)
{
    const mp_sana_call *const o = &r->s->call;
    const mp_mark mark = mp_open(r->c);
    uint8_t *const own = r->mask + (r->guided ? r->images * o->max_length : 0);

    const mp_tensor text = encode_prompt(r, "prompt", o->prompt, o->instruction, own);
    if (!r->guided || r->err->code)
        return text;
    const mp_tensor negative =
        encode_prompt(r, "negative_prompt", o->negative_prompt, NULL, r->mask);
    if (r->err->code)
        return MP_NONE;
    return mp_keep(r->c, mark, mp_cat(r->c, 2, (mp_tensor[]){negative, text}, 0));
}

static void encode_text(run *r)
{
    if (mp_stage_begin(&r->stages, "text_encode", r->err))
        return;
    r->text = encode_prompts(r);
    const mp_mark mark = mp_open(r->c);
    if (!r->err->code)
        emit(r, "prompt_embeds", mp_cast(r->c, r->text, MP_F32), r->text.dtype);
    mp_drop(r->c, mark);
    mp_stage_end(&r->stages, "text_encode");
}

/* ---- denoising ------------------------------------------------------------------------------ */

static void make_noise(run *r, mp_generator *g)
{
    const int ulps = r->s->call.noise_ulps;

    mp_generator_seed(g, r->s->call.seed);
    mp_generator_normal(g, r->latents, r->numel);
    for (int64_t i = 0; i < r->numel; i++)
        for (int k = 0; k < abs(ulps); k++)
            r->latents[i] = nextafterf(r->latents[i], ulps > 0 ? INFINITY : -INFINITY);
    emit_latents(r, "initial_noise");
}

/* u + guidance * (p - u), each operation rounded to fp32; of a learned sigma, the first half of the
 * channels.  y [batch, out, h, w] */
static void guide(run *r, const float *y, int64_t out_channels)
{
    const int64_t plane = r->height * r->width;
    const int64_t sample = out_channels * plane, kept = r->channels * plane;
    const float scale = (float)r->s->call.guidance;

    for (int64_t i = 0; i < r->images; i++) {
        const float *const u = y + i * sample;
        float *const out = r->prediction + i * kept;
        if (!r->guided) {
            memcpy(out, u, (size_t)kept * sizeof *out);
            continue;
        }
        const float *const p = y + (r->images + i) * sample;
        for (int64_t k = 0; k < kept; k++)
            out[k] = u[k] + scale * (p[k] - u[k]);
    }
}

/* The transformer's output for the latents of now, guided, into r->prediction. */
static void predict(run *r, mp_tensor text, double t)
{
    const mp_sana_transformer *const m = r->s->transformer;
    const int64_t batch = r->guided ? 2 * r->images : r->images;
    const mp_mark mark = mp_open(r->c);
    /* The int64 timestep times a Python float is fp32. */
    const float scaled = (float)t * (float)mp_sana_transformer_config(m)->timestep_scale;
    mp_tensor steps = mp_new(r->c, MP_F32, 1, MP_DIMS(batch));

    for (int64_t i = 0; i < batch && !mp_failed(r->c); i++)
        ((float *)steps.data)[i] = scaled;
    mp_tensor x = mp_permute(r->c, latents_view(r, r->latents), to_nhwc);
    x = mp_cast(r->c, x, text.dtype);
    if (r->guided)
        x = mp_cat(r->c, 2, (mp_tensor[]){x, x}, 0);
    mp_tensor y = mp_sana_transformer_forward(r->c, m, x, text, r->mask, steps.data, NULL);
    y = mp_permute(r->c, mp_cast(r->c, y, MP_F32), to_nchw);
    if (!mp_failed(r->c))
        guide(r, y.data, y.dim[1]);
    mp_drop(r->c, mark);
}

static void denoise_step(run *r, mp_tensor text, mp_generator *g, int i)
{
    mp_dpmsolver *const scheduler = r->s->scheduler;
    char name[24];

    predict(r, text, mp_dpmsolver_timestep(scheduler, i));
    if (mp_failed(r->c) || mp_dpmsolver_step(scheduler, i, r->prediction, r->latents, g, r->err))
        return;
    snprintf(name, sizeof name, "latents_%03d", i);
    emit_latents(r, name);
    if (r->sink && r->sink->step)
        r->sink->step(r->sink->user, i, mp_dpmsolver_count(scheduler));
}

static void denoise(run *r)
{
    const mp_mark mark = mp_open(r->c);
    mp_generator g;

    if (mp_stage_begin(&r->stages, "denoise", r->err))
        return;
    make_noise(r, &g);
    const mp_dtype dtype = mp_weights_dtype(mp_sana_transformer_weights(r->s->transformer));
    const mp_tensor text = mp_cast(r->c, r->text, dtype);
    mp_dpmsolver_start(r->s->scheduler, r->s->call.steps, r->numel, r->err);
    for (int i = 0; !r->err->code && i < mp_dpmsolver_count(r->s->scheduler); i++) {
        if (mp_failed(r->c))
            break;
        denoise_step(r, text, &g, i);
    }
    mp_drop(r->c, mark);
    mp_stage_end(&r->stages, "denoise");
}

/* ---- picture -------------------------------------------------------------------------------- */

static void decode(run *r)
{
    const mp_sana *const s = r->s;
    const mp_mark mark = mp_open(r->c);

    if (mp_stage_begin(&r->stages, "decode", r->err))
        return;
    mp_tensor z = mp_permute(r->c, latents_view(r, r->latents), to_nhwc);
    z = mp_cast(r->c, z, mp_weights_dtype(mp_autoencoder_dc_weights(s->vae)));
    z = mp_div_scalar(r->c, z, (float)mp_autoencoder_dc_scaling_factor(s->vae));
    mp_tensor x = mp_keep(r->c, mark, mp_autoencoder_dc_decode(r->c, s->vae, z, &s->call.tiling));
    if (s->call.working_height != s->call.height || s->call.working_width != s->call.width)
        x = mp_keep(r->c, mark, mp_sana_resize_and_crop(r->c, x, s->call.height, s->call.width));
    /* (x * 0.5 + 0.5).clamp(0, 1) in the autoencoder's dtype */
    x = mp_keep(r->c, mark, mp_mul_scalar(r->c, x, 0.5f));
    x = mp_keep(r->c, mark, mp_add_scalar(r->c, x, 0.5f));
    x = mp_keep(r->c, mark, mp_clip(r->c, x, 0.0f, 1.0f));
    const mp_dtype dtype = x.dtype;
    x = mp_keep(r->c, mark, mp_permute(r->c, x, to_nchw));
    emit(r, "image", mp_cast(r->c, x, MP_F32), dtype);
    mp_drop(r->c, mark);
    mp_stage_end(&r->stages, "decode");
}

/* ---- the whole ------------------------------------------------------------------------------ */

static mp_code prepare(run *r)
{
    const mp_sana *const s = r->s;
    const int64_t f = mp_autoencoder_dc_compression(s->vae);

    r->guided = s->call.guidance > 1.0;
    r->images = s->call.images;
    r->channels = mp_sana_transformer_config(s->transformer)->in_channels;
    r->height = s->call.working_height / f;
    r->width = s->call.working_width / f;
    r->numel = r->images * r->channels * r->height * r->width;
    r->latents = mp_alloc((size_t)r->numel, sizeof *r->latents);
    r->prediction = mp_alloc((size_t)r->numel, sizeof *r->prediction);
    r->mask = mp_alloc((size_t)(2 * r->images), (size_t)s->call.max_length);
    if (!r->latents || !r->prediction || !r->mask)
        return mp_error_set(r->err, MP_ENOMEM, "no memory for the latents");
    return MP_OK;
}

mp_code mp_sana_generate(mp_ctx *c, void *pipeline, const mp_sink *sink, mp_error *err)
{
    const mp_sana *const s = pipeline;
    run r = {.s = pipeline,
             .c = c,
             .sink = sink,
             .err = err,
             .stages = {&mp_pipeline_sana, s, c, sink, s->call.offload},
             .text = MP_NONE};
    const mp_mark mark = mp_open(c);

    if (!prepare(&r))
        encode_text(&r);
    if (!mp_failed(c) && !err->code)
        denoise(&r);
    if (!mp_failed(c) && !err->code)
        decode(&r);
    mp_drop(c, mark);
    mp_free(r.latents);
    mp_free(r.prediction);
    mp_free(r.mask);
    if (mp_failed(c) && !err->code)
        *err = *mp_ctx_error(c);
    return err->code;
}
