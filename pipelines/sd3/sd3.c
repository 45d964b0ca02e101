#include "pipelines/sd3/sd3.h"

#include <stdlib.h>

#include "kernels/core/memory.h"
#include "pipelines/common/file.h"

/* ---- opening -------------------------------------------------------------------------------- */

static double number(const mp_request *r, const char *name)
{
    return mp_request_input(r, name)->number;
}

/* The text, or another's where it is empty, as Python's `or` has it. */
static char *text_or(const mp_request *r, const char *name, const char *other)
{
    const char *const text = mp_request_input(r, name)->text;

    return mp_strdup(text && *text ? text : other);
}

static mp_code copy_texts(mp_sd3_call *o, const mp_request *r, mp_error *err)
{
    const char *const prompt = mp_request_input(r, "prompt")->text;
    const char *const negative = mp_request_input(r, "negative_prompt")->text;
    static const char *const names[] = {"prompt", "prompt_2", "prompt_3"};
    static const char *const negatives[] = {"negative_prompt", "negative_prompt_2",
                                            "negative_prompt_3"};

    for (int i = 0; i < 3; i++) {
        o->prompt[i] = text_or(r, names[i], prompt);
        o->negative_prompt[i] = text_or(r, negatives[i], negative);
        if (!o->prompt[i] || !o->negative_prompt[i])
            return mp_error_set(err, MP_ENOMEM, "no memory for the prompt");
    }
    return MP_OK;
}

static void copy_call(mp_sd3_call *o, const mp_request *r)
{
    const char *const *skipped = mp_request_input(r, "skip_guidance_layers")->list;

    o->steps = (int)number(r, "num_inference_steps");
    o->clip_skip = (int)number(r, "clip_skip");
    o->images = (int64_t)number(r, "num_images_per_prompt");
    o->max_sequence_length = (int64_t)number(r, "max_sequence_length");
    o->height = (int64_t)number(r, "height");
    o->width = (int64_t)number(r, "width");
    o->guidance = number(r, "guidance_scale");
    o->seed = (uint64_t)number(r, "seed");
    o->noise_ulps = r->noise_ulps;
    o->offload = r->offload;
    o->tiling = r->tiling;
    for (; skipped && skipped[o->skip_count] && o->skip_count < MP_SD3_MAX_SKIPPED; o->skip_count++)
        o->skip_layers[o->skip_count] = atoi(skipped[o->skip_count]);
    o->skip_scale = number(r, "skip_layer_guidance_scale");
    o->skip_start = number(r, "skip_layer_guidance_start");
    o->skip_stop = number(r, "skip_layer_guidance_stop");
}

/* Opens one component by its folder. */
typedef mp_code open_fn(mp_sd3 *s, const char *dir, const mp_request *r, mp_error *err);

static mp_code open_clip(mp_sd3 *s, int which, const char *name, const char *dir,
                         const mp_request *r, mp_error *err)
{
    const mp_weights_options o = mp_request_weights(r, name, "model");

    return mp_clip_text_open(dir, &o, &s->text_encoder[which], err);
}

static mp_code open_text_encoder(mp_sd3 *s, const char *dir, const mp_request *r, mp_error *err)
{
    return open_clip(s, 0, "text_encoder", dir, r, err);
}

static mp_code open_text_encoder_2(mp_sd3 *s, const char *dir, const mp_request *r, mp_error *err)
{
    return open_clip(s, 1, "text_encoder_2", dir, r, err);
}

static mp_code open_text_encoder_3(mp_sd3 *s, const char *dir, const mp_request *r, mp_error *err)
{
    const mp_weights_options o = mp_request_weights(r, "text_encoder_3", "model");

    return mp_t5_encoder_open(dir, &o, &s->text_encoder_3, err);
}

static mp_code open_tokenizer(mp_sd3 *s, const char *dir, const mp_request *r, mp_error *err)
{
    (void)r;
    return mp_tokenizer_open(dir, &s->tokenizer[0], err);
}

static mp_code open_tokenizer_2(mp_sd3 *s, const char *dir, const mp_request *r, mp_error *err)
{
    (void)r;
    return mp_tokenizer_open(dir, &s->tokenizer[1], err);
}

static mp_code open_tokenizer_3(mp_sd3 *s, const char *dir, const mp_request *r, mp_error *err)
{
    (void)r;
    return mp_tokenizer_open(dir, &s->tokenizer_3, err);
}

static mp_code open_transformer(mp_sd3 *s, const char *dir, const mp_request *r, mp_error *err)
{
    mp_weights_options o = mp_request_weights(r, "transformer", "diffusion_pytorch_model");

    o.storage_skip = mp_sd3_storage_skip;
    return mp_sd3_transformer_open(dir, &o, &s->transformer, err);
}

static mp_code open_vae(mp_sd3 *s, const char *dir, const mp_request *r, mp_error *err)
{
    const mp_weights_options o = mp_request_weights(r, "vae", "diffusion_pytorch_model");

    return mp_autoencoder_kl_open(dir, &o, &s->vae, err);
}

static mp_code open_scheduler(mp_sd3 *s, const char *dir, const mp_request *r, mp_error *err)
{
    (void)r;
    return mp_flow_match_euler_open(dir, &s->scheduler, err);
}

static mp_code open_components(mp_sd3 *s, const mp_request *r, mp_error *err)
{
    static const struct {
        const char *folder;
        open_fn *open;
        bool of_t5;
    } parts[] = {{"tokenizer", open_tokenizer, false},
                 {"tokenizer_2", open_tokenizer_2, false},
                 {"tokenizer_3", open_tokenizer_3, true},
                 {"text_encoder", open_text_encoder, false},
                 {"text_encoder_2", open_text_encoder_2, false},
                 {"text_encoder_3", open_text_encoder_3, true},
                 {"transformer", open_transformer, false},
                 {"vae", open_vae, false},
                 {"scheduler", open_scheduler, false}};
    bool has_t5;

    if (mp_sd3_has(r, "text_encoder_3", &has_t5, err))
        return err->code;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (parts[i].of_t5 && !has_t5)
            continue;
        char *const dir = mp_file_join(r->checkpoint, parts[i].folder);
        const mp_code code = dir ? parts[i].open(s, dir, r, err)
                                 : mp_error_set(err, MP_ENOMEM, "no memory for a file's name");
        mp_free(dir);
        if (code)
            return code;
    }
    return MP_OK;
}

static void sd3_close(void *pipeline)
{
    mp_sd3 *const s = pipeline;

    if (!s)
        return;
    for (int i = 0; i < MP_SD3_CLIPS; i++) {
        mp_tokenizer_close(s->tokenizer[i]);
        mp_clip_text_close(s->text_encoder[i]);
    }
    mp_tokenizer_close(s->tokenizer_3);
    mp_t5_encoder_close(s->text_encoder_3);
    mp_sd3_transformer_close(s->transformer);
    mp_autoencoder_kl_close(s->vae);
    mp_flow_match_euler_close(s->scheduler);
    for (int i = 0; i < 3; i++) {
        mp_free(s->call.prompt[i]);
        mp_free(s->call.negative_prompt[i]);
    }
    mp_free(s);
}

/* height or default_sample_size * vae_scale_factor */
static void choose_size(mp_sd3 *s)
{
    const int64_t own = mp_sd3_transformer_config(s->transformer)->sample_size *
                        mp_autoencoder_kl_get_facts(s->vae).compression;

    s->call.height = s->call.height ? s->call.height : own;
    s->call.width = s->call.width ? s->call.width : own;
}

static mp_code sd3_open(mp_ctx *c, const mp_request *r, const mp_sink *sink, void **out,
                        mp_error *err)
{
    mp_sd3 *const s = mp_alloc(1, sizeof *s);

    (void)c;
    if (!s)
        return mp_error_set(err, MP_ENOMEM, "no memory for the pipeline");
    if (sink && sink->stage_begin)
        sink->stage_begin(sink->user, "load");
    copy_call(&s->call, r);
    if (!mp_sd3_check(r, err) && !copy_texts(&s->call, r, err) && !open_components(s, r, err))
        choose_size(s);
    if (sink && sink->stage_end)
        sink->stage_end(sink->user, "load");
    if (err->code) {
        sd3_close(s);
        return err->code;
    }
    *out = s;
    return MP_OK;
}

static mp_weights *sd3_weights(const void *pipeline, int i)
{
    const mp_sd3 *const s = pipeline;

    if (i < MP_SD3_CLIPS)
        return mp_clip_text_weights(s->text_encoder[i]);
    if (i == MP_SD3_CLIPS)
        return s->text_encoder_3 ? mp_t5_encoder_weights(s->text_encoder_3) : NULL;
    return i == MP_SD3_CLIPS + 1 ? mp_sd3_transformer_weights(s->transformer)
                                 : mp_autoencoder_kl_weights(s->vae);
}

/* ---- the definition ------------------------------------------------------------------------- */

static const mp_input_field inputs[] = {
    {.name = "prompt", .type = MP_INPUT_STRING},
    {.name = "prompt_2", .type = MP_INPUT_STRING, .fallback_text = ""}, /* "": as prompt */
    {.name = "prompt_3", .type = MP_INPUT_STRING, .fallback_text = ""},
    {.name = "negative_prompt", .type = MP_INPUT_STRING, .fallback_text = ""},
    {.name = "negative_prompt_2", .type = MP_INPUT_STRING, .fallback_text = ""},
    {.name = "negative_prompt_3", .type = MP_INPUT_STRING, .fallback_text = ""},
    {.name = "height", .type = MP_INPUT_INT, .min = 0, .max = 32768}, /* 0: the model's own size */
    {.name = "width", .type = MP_INPUT_INT, .min = 0, .max = 32768},
    {.name = "num_inference_steps",
     .alias = "steps",
     .type = MP_INPUT_INT,
     .fallback = 28,
     .min = 1,
     .max = 1000},
    {.name = "guidance_scale",
     .alias = "guidance",
     .type = MP_INPUT_NUMBER,
     .fallback = 7,
     .min = -1e6,
     .max = 1e6},
    {.name = "num_images_per_prompt", .type = MP_INPUT_INT, .fallback = 1, .min = 1, .max = 64},
    {.name = "seed", .type = MP_INPUT_INT, .min = 0, .max = 9007199254740992.0},
    {.name = "clip_skip", .type = MP_INPUT_INT, .min = 0, .max = 64},
    {.name = "max_sequence_length", .type = MP_INPUT_INT, .fallback = 256, .min = 1, .max = 512},
    {.name = "skip_guidance_layers", .type = MP_INPUT_INTS, .min = 0, .max = 1024},
    {.name = "skip_layer_guidance_scale",
     .type = MP_INPUT_NUMBER,
     .fallback = 2.8,
     .min = -1e6,
     .max = 1e6},
    {.name = "skip_layer_guidance_stop",
     .type = MP_INPUT_NUMBER,
     .fallback = 0.2,
     .min = -1e6,
     .max = 1e6},
    {.name = "skip_layer_guidance_start",
     .type = MP_INPUT_NUMBER,
     .fallback = 0.01,
     .min = -1e6,
     .max = 1e6},
};

/* In the order of sd3_weights, with the stage of each. */
static const char *const components[] = {
    "text_encoder", "text_encoder_2", "text_encoder_3", "transformer", "vae", NULL};
static const char *const stages[] = {"text_encode", "text_encode", "text_encode", "denoise",
                                     "decode"};
static const char *const quirks[] = {NULL};

const mp_pipeline_def mp_pipeline_sd3 = {
    .name = "sd3",
    .inputs = inputs,
    .input_count = sizeof inputs / sizeof *inputs,
    .components = components,
    .stages = stages,
    .quirks = quirks,
    .check = mp_sd3_check,
    .open = sd3_open,
    .generate = mp_sd3_generate,
    .weights = sd3_weights,
    .close = sd3_close,
};
