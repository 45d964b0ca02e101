#include "pipelines/sana/sana.h"

#include "kernels/core/memory.h"
#include "pipelines/common/file.h"
#include "pipelines/sana/prompt.h"
#include "pipelines/sana/resolution_bins.h"

const char mp_sana_quirk_quadratic[] = "sana-quadratic-no-upcast";

/* ---- opening -------------------------------------------------------------------------------- */

static double number(const mp_request *r, const char *name)
{
    return mp_request_input(r, name)->number;
}

static mp_code copy_call(mp_sana *s, const mp_request *r, mp_error *err)
{
    mp_sana_call *const o = &s->call;
    const char *const *lines = mp_request_input(r, "complex_human_instruction")->list;

    o->prompt = mp_strdup(mp_request_input(r, "prompt")->text);
    o->negative_prompt = mp_strdup(mp_request_input(r, "negative_prompt")->text);
    if (lines && lines[0])
        o->instruction = mp_sana_join(lines);
    o->steps = (int)number(r, "num_inference_steps");
    o->images = (int64_t)number(r, "num_images_per_prompt");
    o->max_length = (int64_t)number(r, "max_sequence_length");
    o->working_height = o->height = (int64_t)number(r, "height");
    o->working_width = o->width = (int64_t)number(r, "width");
    o->guidance = number(r, "guidance_scale");
    o->seed = (uint64_t)number(r, "seed");
    o->noise_ulps = r->noise_ulps;
    o->offload = r->offload;
    o->tiling = r->tiling;
    if (!o->prompt || !o->negative_prompt || (lines && lines[0] && !o->instruction))
        return mp_error_set(err, MP_ENOMEM, "no memory for the prompt");
    return MP_OK;
}

/* Opens one component by its folder. */
typedef mp_code open_fn(mp_sana *s, const char *dir, const mp_request *r, mp_error *err);

static mp_code open_tokenizer(mp_sana *s, const char *dir, const mp_request *r, mp_error *err)
{
    (void)r;
    return mp_tokenizer_open(dir, &s->tokenizer, err);
}

static mp_code open_text_encoder(mp_sana *s, const char *dir, const mp_request *r, mp_error *err)
{
    const mp_weights_options o = mp_request_weights(r, "text_encoder", "model");

    return mp_gemma2_open(dir, &o, &s->text_encoder, err);
}

static mp_code open_transformer(mp_sana *s, const char *dir, const mp_request *r, mp_error *err)
{
    static const char *const storage_skip[] = {"patch_embed", "norm", NULL};
    mp_weights_options o = mp_request_weights(r, "transformer", "diffusion_pytorch_model");

    o.storage_skip = storage_skip; /* _skip_layerwise_casting_patterns */
    return mp_sana_transformer_open(dir, &o, &s->transformer, err);
}

static mp_code open_vae(mp_sana *s, const char *dir, const mp_request *r, mp_error *err)
{
    const mp_weights_options o = mp_request_weights(r, "vae", "diffusion_pytorch_model");

    return mp_autoencoder_dc_open(dir, &o, mp_request_quirk(r, mp_sana_quirk_quadratic), &s->vae,
                                  err);
}

static mp_code open_scheduler(mp_sana *s, const char *dir, const mp_request *r, mp_error *err)
{
    (void)r;
    return mp_dpmsolver_open(dir, &s->scheduler, err);
}

static mp_code open_components(mp_sana *s, const mp_request *r, mp_error *err)
{
    static const struct {
        const char *folder;
        open_fn *open;
    } parts[] = {{"tokenizer", open_tokenizer},
                 {"text_encoder", open_text_encoder},
                 {"transformer", open_transformer},
                 {"vae", open_vae},
                 {"scheduler", open_scheduler}};

    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char *const dir = mp_file_join(r->checkpoint, parts[i].folder);
        const mp_code code = dir ? parts[i].open(s, dir, r, err)
                                 : mp_error_set(err, MP_ENOMEM, "no memory for a file's name");
        mp_free(dir);
        if (code)
            return code;
    }
    return MP_OK;
}

static void sana_close(void *pipeline)
{
    mp_sana *const s = pipeline;

    if (!s)
        return;
    mp_tokenizer_close(s->tokenizer);
    mp_gemma2_close(s->text_encoder);
    mp_sana_transformer_close(s->transformer);
    mp_autoencoder_dc_close(s->vae);
    mp_dpmsolver_close(s->scheduler);
    mp_free(s->call.prompt);
    mp_free(s->call.negative_prompt);
    mp_free(s->call.instruction);
    mp_free(s);
}

static mp_code sana_open(mp_ctx *c, const mp_request *r, const mp_sink *sink, void **out,
                         mp_error *err)
{
    mp_sana *const s = mp_alloc(1, sizeof *s);

    (void)c;
    if (!s)
        return mp_error_set(err, MP_ENOMEM, "no memory for the pipeline");
    if (sink && sink->stage_begin)
        sink->stage_begin(sink->user, "load");
    if (!mp_sana_check(r, err) && !copy_call(s, r, err) && !open_components(s, r, err) &&
        number(r, "use_resolution_binning") != 0)
        mp_sana_bin(mp_sana_transformer_config(s->transformer)->sample_size,
                    &s->call.working_height, &s->call.working_width);
    if (sink && sink->stage_end)
        sink->stage_end(sink->user, "load");
    if (err->code) {
        sana_close(s);
        return err->code;
    }
    *out = s;
    return MP_OK;
}

static mp_weights *sana_weights(const void *pipeline, int i)
{
    const mp_sana *const s = pipeline;

    return i == 0   ? mp_gemma2_weights(s->text_encoder)
           : i == 1 ? mp_sana_transformer_weights(s->transformer)
                    : mp_autoencoder_dc_weights(s->vae);
}

/* ---- definition ----------------------------------------------------------------------------- */

/* SanaPipeline.__call__'s arguments and defaults; seed stands for a CPU generator.  `eta` changes
 * nothing: the scheduler's step has no such argument. */
static const mp_input_field inputs[] = {
    {.name = "prompt", .type = MP_INPUT_STRING},
    {.name = "negative_prompt", .type = MP_INPUT_STRING, .fallback_text = ""},
    {.name = "num_inference_steps",
     .alias = "steps",
     .type = MP_INPUT_INT,
     .fallback = 20,
     .min = 1,
     .max = 1000},
    {.name = "guidance_scale",
     .alias = "guidance",
     .type = MP_INPUT_NUMBER,
     .fallback = 4.5,
     .min = -1e6,
     .max = 1e6},
    {.name = "num_images_per_prompt", .type = MP_INPUT_INT, .fallback = 1, .min = 1, .max = 64},
    {.name = "height", .type = MP_INPUT_INT, .fallback = 1024, .min = 1, .max = 32768},
    {.name = "width", .type = MP_INPUT_INT, .fallback = 1024, .min = 1, .max = 32768},
    {.name = "eta", .type = MP_INPUT_NUMBER, .min = 0, .max = 1},
    {.name = "seed", .type = MP_INPUT_INT, .min = 0, .max = 9007199254740992.0},
    {.name = "clean_caption", .type = MP_INPUT_BOOL},
    {.name = "use_resolution_binning", .type = MP_INPUT_BOOL, .fallback = 1},
    {.name = "max_sequence_length", .type = MP_INPUT_INT, .fallback = 300, .min = 1, .max = 8192},
    {.name = "complex_human_instruction",
     .type = MP_INPUT_STRINGS,
     .fallback_list = mp_sana_instruction},
};

/* In the order of sana_weights, with the stage of each. */
static const char *const components[] = {"text_encoder", "transformer", "vae", NULL};
static const char *const stages[] = {"text_encode", "denoise", "decode"};
static const char *const quirks[] = {mp_sana_quirk_quadratic, NULL};

const mp_pipeline_def mp_pipeline_sana = {
    .name = "sana",
    .inputs = inputs,
    .input_count = sizeof inputs / sizeof *inputs,
    .components = components,
    .stages = stages,
    .quirks = quirks,
    .check = mp_sana_check,
    .open = sana_open,
    .generate = mp_sana_generate,
    .weights = sana_weights,
    .close = sana_close,
};
