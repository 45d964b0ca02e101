/* StableDiffusion3Pipeline.__call__: text, noise, steps, picture. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "kernels/ops.h"
#include "pipelines/common/generator.h"
#include "pipelines/sd3/sd3.h"

static const int to_nhwc[] = {0, 2, 3, 1}, to_nchw[] = {0, 3, 1, 2};

typedef struct run {
    const mp_sd3 *s;
    mp_ctx *c;
    const mp_sink *sink;
    mp_error *err;
    mp_stages stages;
    bool guided;
    int64_t height, width, channels; /* of the latents */
    mp_sd3_prompt text;              /* the negative prompt's before the prompt's, when guided */
    mp_sd3_prompt positive;          /* the prompt's alone: for skip-layer guidance */
    mp_tensor latents;               /* [images, height, width, channels] */
} run;

static void emit(const run *r, const char *name, mp_tensor x)
{
    const mp_mark mark = mp_open(r->c);

    if (!r->sink || !r->sink->tensor)
        return;
    const mp_tensor fp32 = mp_cast(r->c, x, MP_F32);
    if (!mp_failed(r->c) && !r->err->code)
        r->sink->tensor(r->sink->user, name, fp32, x.dtype);
    mp_drop(r->c, mark);
}

static void emit_latents(const run *r, const char *name)
{
    const mp_mark mark = mp_open(r->c);

    emit(r, name, mp_permute(r->c, r->latents, to_nchw));
    mp_drop(r->c, mark);
}

static bool failed(const run *r)
{
    return r->err->code || mp_failed(r->c);
}

/* ---- text ----------------------------------------------------------------------------------- */

static mp_tensor stack(const run *r, mp_tensor negative, mp_tensor positive)
{
    return mp_cat(r->c, 2, (mp_tensor[]){negative, positive}, 0);
}

static void encode_text(run *r)
{
    const mp_sd3_call *const o = &r->s->call;

    if (mp_stage_begin(&r->stages, "text_encode", r->err))
        return;
    r->positive = r->text = mp_sd3_encode(r->c, r->s, o->prompt, o->clip_skip, r->sink, r->err);
    if (r->guided && !failed(r)) {
        /* The pipeline skips no layers of CLIP for the negative prompt. */
        const mp_sd3_prompt no = mp_sd3_encode(r->c, r->s, o->negative_prompt, 0, r->sink, r->err);
        if (!failed(r)) {
            r->text.embeds = stack(r, no.embeds, r->positive.embeds);
            r->text.pooled = stack(r, no.pooled, r->positive.pooled);
        }
    }
    if (!failed(r))
        emit(r, "prompt_embeds", r->text.embeds);
    mp_stage_end(&r->stages, "text_encode");
}

/* ---- noise ---------------------------------------------------------------------------------- */

/* The next value towards +infinity (up) or -infinity of a 16-bit float, whose codes are ordered by
 * magnitude. */
static uint16_t step_half(uint16_t x, bool up)
{
    const bool negative = x & 0x8000;

    if (!(x & 0x7fff))
        return up ? 1 : 0x8001;
    return negative == up ? x - 1 : x + 1;
}

static void move_noise(mp_tensor x, int ulps)
{
    const int64_t n = mp_numel(x);

    for (int k = 0; k < abs(ulps); k++)
        for (int64_t i = 0; i < n; i++)
            if (x.dtype == MP_F32)
                ((float *)x.data)[i] =
                    nextafterf(((float *)x.data)[i], ulps > 0 ? INFINITY : -INFINITY);
            else
                ((uint16_t *)x.data)[i] = step_half(((uint16_t *)x.data)[i], ulps > 0);
}

/* randn_tensor in the dtype of the prompt's embeddings.  torch draws a half from the same stream as
 * fp32 and rounds, when their number is a multiple of 16; otherwise its last values differ. */
static void make_noise(run *r)
{
    const mp_mark mark = mp_open(r->c);
    const int64_t images = r->s->call.images;
    mp_generator g;
    mp_tensor x = mp_new(r->c, MP_F32, 4, MP_DIMS(images, r->channels, r->height, r->width));

    if (mp_failed(r->c))
        return;
    if (r->text.embeds.dtype != MP_F32 && mp_numel(x) % 16) {
        mp_error_set(r->err, MP_EUNSUPPORTED,
                     "%lld values of initial noise in half precision: torch draws the last ones of "
                     "a number that is no multiple of 16 from another place; choose another size",
                     (long long)mp_numel(x));
        return;
    }
    mp_generator_seed(&g, r->s->call.seed);
    mp_generator_normal(&g, x.data, mp_numel(x));
    x = mp_cast(r->c, x, r->text.embeds.dtype);
    if (!mp_failed(r->c))
        move_noise(x, r->s->call.noise_ulps);
    emit(r, "initial_noise", x);
    r->latents = mp_keep(r->c, mark, mp_permute(r->c, x, to_nhwc));
}

/* ---- steps ---------------------------------------------------------------------------------- */

static mp_tensor forward(const run *r, mp_tensor x, mp_sd3_prompt text, float t, bool skip)
{
    const mp_sd3_call *const o = &r->s->call;
    const int64_t batch = mp_dim(text.embeds, 0);
    const mp_mark mark = mp_open(r->c);
    const mp_tensor steps = mp_new(r->c, MP_F32, 1, MP_DIMS(batch));

    for (int64_t i = 0; i < batch && !mp_failed(r->c); i++)
        ((float *)steps.data)[i] = t;
    const mp_sd3_inputs in = {.hidden_states = x,
                              .encoder_hidden_states = text.embeds,
                              .pooled_projections = text.pooled,
                              .timestep = steps.data,
                              .skip_layers = o->skip_layers,
                              .skip_count = skip ? o->skip_count : 0};
    return mp_keep(r->c, mark, mp_sd3_transformer_forward(r->c, r->s->transformer, &in));
}

/* a + scale * (b - d), each operation rounded to the dtype. */
static mp_tensor guide(const run *r, mp_tensor a, mp_tensor b, mp_tensor d, double scale)
{
    const mp_mark mark = mp_open(r->c);
    const mp_tensor difference = mp_add(r->c, b, mp_mul_scalar(r->c, d, -1.0f));

    return mp_keep(r->c, mark, mp_add(r->c, a, mp_mul_scalar(r->c, difference, (float)scale)));
}

static bool skips(const run *r, int i)
{
    const mp_sd3_call *const o = &r->s->call;

    return o->skip_count && i > o->steps * o->skip_start && i < o->steps * o->skip_stop;
}

/* The model's output for the latents of now, guided. */
static mp_tensor predict(const run *r, int i, float t)
{
    const mp_sd3_call *const o = &r->s->call;
    const mp_mark mark = mp_open(r->c);
    const mp_tensor x = r->latents;

    if (!r->guided)
        return forward(r, x, r->text, t, false);
    const mp_tensor both = forward(r, stack(r, x, x), r->text, t, false);
    if (mp_failed(r->c))
        return MP_NONE;
    const mp_tensor uncond = mp_batch(both, 0, o->images);
    const mp_tensor text = mp_batch(both, o->images, o->images);
    mp_tensor y = guide(r, uncond, text, uncond, o->guidance);
    if (skips(r, i))
        y = guide(r, y, text, forward(r, x, r->positive, t, true), o->skip_scale);
    return mp_keep(r->c, mark, y);
}

static void denoise_step(run *r, int i)
{
    mp_flow_match_euler *const scheduler = r->s->scheduler;
    const mp_mark mark = mp_open(r->c);
    const mp_tensor before = r->latents;
    char name[24];

    const mp_tensor y = predict(r, i, mp_flow_match_euler_timestep(scheduler, i));
    const mp_tensor x = mp_flow_match_euler_step(r->c, scheduler, i, y, before, NULL);
    if (mp_failed(r->c))
        return;
    r->latents = mp_keep(r->c, mark, x);
    snprintf(name, sizeof name, "latents_%03d", i);
    emit_latents(r, name);
    if (r->sink && r->sink->step)
        r->sink->step(r->sink->user, i, mp_flow_match_euler_count(scheduler));
}

/* mu of the pictures' patches, where the scheduler shifts by it. */
static void start_scheduler(run *r)
{
    const mp_sd3 *const s = r->s;
    const int64_t patch = mp_sd3_transformer_config(s->transformer)->patch_size;
    const double mu =
        mp_flow_match_euler_mu(s->scheduler, (r->height / patch) * (r->width / patch));

    mp_flow_match_euler_start(s->scheduler, s->call.steps,
                              mp_flow_match_euler_is_dynamic(s->scheduler) ? &mu : NULL, r->err);
}

static void denoise(run *r)
{
    if (mp_stage_begin(&r->stages, "denoise", r->err))
        return;
    make_noise(r);
    if (!failed(r))
        start_scheduler(r);
    for (int i = 0; !failed(r) && i < mp_flow_match_euler_count(r->s->scheduler); i++)
        denoise_step(r, i);
    mp_stage_end(&r->stages, "denoise");
}

/* ---- picture -------------------------------------------------------------------------------- */

/* The pipeline casts nothing here: latents of another dtype than the autoencoder's are its error.
 */
static void decode(run *r)
{
    const mp_sd3 *const s = r->s;
    const mp_autoencoder_kl_facts facts = mp_autoencoder_kl_get_facts(s->vae);
    const mp_autoencoder_kl_run how = {.tiling = s->call.tiling.on ? &s->call.tiling : NULL};
    const mp_mark mark = mp_open(r->c);

    if (mp_stage_begin(&r->stages, "decode", r->err))
        return;
    mp_tensor z = mp_div_scalar(r->c, r->latents, (float)facts.scaling_factor);
    z = mp_add_scalar(r->c, z, (float)facts.shift_factor);
    mp_tensor x = mp_keep(r->c, mark, mp_autoencoder_kl_decode(r->c, s->vae, z, how));
    /* (x * 0.5 + 0.5).clamp(0, 1) in the autoencoder's dtype */
    x = mp_keep(r->c, mark, mp_mul_scalar(r->c, x, 0.5f));
    x = mp_keep(r->c, mark, mp_add_scalar(r->c, x, 0.5f));
    x = mp_keep(r->c, mark, mp_clip(r->c, x, 0.0f, 1.0f));
    emit(r, "image", mp_keep(r->c, mark, mp_permute(r->c, x, to_nchw)));
    mp_drop(r->c, mark);
    mp_stage_end(&r->stages, "decode");
}

/* ---- the whole ------------------------------------------------------------------------------ */

mp_code mp_sd3_generate(mp_ctx *c, void *pipeline, const mp_sink *sink, mp_error *err)
{
    const mp_sd3 *const s = pipeline;
    const int64_t f = mp_autoencoder_kl_get_facts(s->vae).compression;
    const mp_mark mark = mp_open(c);
    run r = {.s = s,
             .c = c,
             .sink = sink,
             .err = err,
             .stages = {&mp_pipeline_sd3, s, c, sink, s->call.offload},
             .guided = s->call.guidance > 1.0,
             .height = s->call.height / f,
             .width = s->call.width / f,
             .channels = mp_sd3_transformer_config(s->transformer)->in_channels,
             .latents = MP_NONE};

    encode_text(&r);
    if (!failed(&r))
        denoise(&r);
    if (!failed(&r))
        decode(&r);
    mp_drop(c, mark);
    if (mp_failed(c) && !err->code)
        *err = *mp_ctx_error(c);
    return err->code;
}
