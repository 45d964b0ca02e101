/* StableDiffusion3Pipeline (diffusers/pipelines/stable_diffusion_3/pipeline_stable_diffusion_3.py):
 * what a scenario may ask for.  Workers run it; the native engine does not yet. */
#include "pipelines/common/pipeline.h"

static mp_code refuse(const mp_request *r, mp_error *err)
{
    (void)r;
    return mp_error_set(err, MP_EUNSUPPORTED,
                        "the native engine does not run the pipeline sd3; expected --engine "
                        "diffusers");
}

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

static const char *const components[] = {
    "text_encoder", "text_encoder_2", "text_encoder_3", "transformer", "vae", NULL};
static const char *const quirks[] = {NULL};

extern const mp_pipeline_def mp_pipeline_sd3; /* declared for pipelines.def in pipelines.c */
const mp_pipeline_def mp_pipeline_sd3 = {
    .name = "sd3",
    .inputs = inputs,
    .input_count = sizeof inputs / sizeof *inputs,
    .components = components,
    .quirks = quirks,
    .check = refuse,
};
