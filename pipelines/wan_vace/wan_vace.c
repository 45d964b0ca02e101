/* WanVACEPipeline (diffusers/pipelines/wan/pipeline_wan_vace.py): what a scenario may ask for.
 * Workers run it; the native engine does not yet. */
#include "pipelines/common/pipeline.h"

static mp_code refuse(const mp_request *r, mp_error *err)
{
    (void)r;
    return mp_error_set(err, MP_EUNSUPPORTED,
                        "the native engine does not run the pipeline wan-vace; expected --engine "
                        "diffusers (a checkpoint in Diffusers' layout) or --engine diffsynth "
                        "(Wan's original files)");
}

static const mp_input_field inputs[] = {
    {.name = "prompt", .type = MP_INPUT_STRING},
    {.name = "negative_prompt", .type = MP_INPUT_STRING, .fallback_text = ""},
    {.name = "video", .type = MP_INPUT_FILES},
    {.name = "mask", .type = MP_INPUT_FILES},
    {.name = "reference_images", .type = MP_INPUT_FILES},
    {.name = "conditioning_scale", .type = MP_INPUT_NUMBER, .fallback = 1, .min = -1e6, .max = 1e6},
    {.name = "height", .type = MP_INPUT_INT, .fallback = 480, .min = 1, .max = 32768},
    {.name = "width", .type = MP_INPUT_INT, .fallback = 832, .min = 1, .max = 32768},
    {.name = "num_frames", .type = MP_INPUT_INT, .fallback = 81, .min = 1, .max = 4096},
    {.name = "num_inference_steps",
     .alias = "steps",
     .type = MP_INPUT_INT,
     .fallback = 50,
     .min = 1,
     .max = 1000},
    {.name = "guidance_scale",
     .alias = "guidance",
     .type = MP_INPUT_NUMBER,
     .fallback = 5,
     .min = -1e6,
     .max = 1e6},
    {.name = "seed", .type = MP_INPUT_INT, .min = 0, .max = 9007199254740992.0},
    {.name = "max_sequence_length", .type = MP_INPUT_INT, .fallback = 512, .min = 1, .max = 8192},
};

static const char *const components[] = {"text_encoder", "transformer", "vae", NULL};
static const char *const quirks[] = {NULL};

extern const mp_pipeline_def mp_pipeline_wan_vace; /* declared for pipelines.def in pipelines.c */
const mp_pipeline_def mp_pipeline_wan_vace = {
    .name = "wan-vace",
    .inputs = inputs,
    .input_count = sizeof inputs / sizeof *inputs,
    .components = components,
    .quirks = quirks,
    .check = refuse,
};
