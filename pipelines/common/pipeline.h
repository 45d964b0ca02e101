/* What the native engine knows of a pipeline: a name, its inputs, and four functions.
 *
 * A pipeline is opened once per cell (checkpoint read, weights bound) and generates as often as the
 * scenario repeats.  Everything of interest leaves through the sink while it happens: stages,
 * steps, tensors, warnings.  Dtype and device never appear in a pipeline's code; the precision goes
 * to mp_weights, the device is the context.
 *
 * A new pipeline is a folder with one mp_pipeline_def and a line in pipelines/pipelines.def. */
#ifndef MP_PIPELINES_COMMON_PIPELINE_H
#define MP_PIPELINES_COMMON_PIPELINE_H

#include "kernels/core/ctx.h"
#include "pipelines/common/weights.h"

/* ---- inputs: the Diffusers pipeline's own call arguments ------------------------------------ */

typedef enum mp_input_type {
    MP_INPUT_INT,
    MP_INPUT_NUMBER,
    MP_INPUT_BOOL,
    MP_INPUT_STRING,
    MP_INPUT_STRINGS, /* a list; null or [] switches it off */
    MP_INPUT_INTS,    /* a list of integers, as texts; null or [] is none */
    MP_INPUT_FILE,    /* a path, relative to the scenario file */
    MP_INPUT_FILES,   /* paths and globs, relative to it; in the order given, a glob's sorted */
} mp_input_type;

typedef struct mp_input_field {
    const char *name;  /* Diffusers' argument: "num_inference_steps" */
    const char *alias; /* the scenario's short name: "steps"; NULL: none */
    mp_input_type type;
    double fallback;                  /* int, number, bool */
    const char *fallback_text;        /* string; NULL: required */
    const char *const *fallback_list; /* strings, NULL-terminated */
    double min, max;                  /* int, each of ints, and number */
} mp_input_field;

typedef struct mp_input {
    const mp_input_field *field;
    double number;           /* int (exact up to 2^53), number, bool */
    const char *text;        /* string, file; of files, as they were given */
    const char *const *list; /* strings, files; NULL-terminated */
    bool given;              /* by the scenario; else it is the default */
} mp_input;

/* ---- the request: one cell --------------------------------------------------------------------
 */

typedef struct mp_component_dtype {
    const char *component; /* "text_encoder" */
    mp_dtype dtype;
} mp_component_dtype;

typedef struct mp_precision {
    mp_dtype dtype; /* precision.default */
    const mp_component_dtype *components;
    int component_count;
    const mp_component_dtype *storage;
    int storage_count;
    const mp_dtype_override *overrides;
    int override_count;
    mp_policy policy;
    bool load_to; /* load: to */
} mp_precision;

typedef struct mp_tiling {
    bool on;
    int64_t tile_height, tile_width; /* picture pixels */
    int64_t stride_height, stride_width;
} mp_tiling;

typedef struct mp_request {
    const char *checkpoint; /* folder */
    const char *variant;    /* "fp16" or NULL */
    /* Opening then needs configs, tokenizers and scheduler alone; not for generate.  NULL: none. */
    const mp_weights_survey *survey;
    const mp_input *inputs; /* one for each field of the pipeline, in its order */
    int input_count;
    mp_precision precision;
    mp_tiling tiling;
    const char *const *quirks; /* NULL-terminated */
    int noise_ulps; /* moves each value of the initial noise by so many ulps: the noise floor */
    /* On the device "meta": weights get no values, and no tensor that the sink gets means anything.
     */
    bool rehearse;
    bool offload; /* a component's weights are in memory during its stage alone */
} mp_request;

/* By Diffusers' name; asserted to exist. */
const mp_input *mp_request_input(const mp_request *r, const char *name);
bool mp_request_quirk(const mp_request *r, const char *name);
/* The dtype of a component: its own line under components, else the default. */
mp_dtype mp_request_dtype(const mp_request *r, const char *component);
/* Options for mp_weights_open of one component, filled from the request's precision.  A component
 * without files of the variant gets none, as long as another component has them. */
mp_weights_options mp_request_weights(const mp_request *r, const char *component, const char *stem);

/* ---- the sink
 * ------------------------------------------------------------------------------------ */

typedef struct mp_sink {
    void *user;
    /* "load" (when opened, and where weights are made anew), "text_encode", "denoise", "decode" */
    void (*stage_begin)(void *user, const char *stage);
    void (*stage_end)(void *user, const char *stage);
    void (*step)(void *user, int step, int steps); /* after denoising step `step` (from 0) */
    /* NULL: not asked for.  A named result in the layout of Diffusers: "initial_noise",
     * "prompt_embeds", "latents_000".. [N,C,H,W] fp32 values of whatever dtype it was; "image"
     * [N,3,H,W] in 0..1.  `dtype` is the dtype in which the pipeline held it.  Valid during the
     * call only. */
    void (*tensor)(void *user, const char *name, mp_tensor fp32, mp_dtype dtype);
    void (*warn)(void *user, const char *text); /* a truncated prompt and the like: on record */
} mp_sink;

/* ---- the pipeline
 * -------------------------------------------------------------------------------- */

typedef struct mp_pipeline_def {
    const char *name; /* "sana" */
    const mp_input_field *inputs;
    int input_count;
    const char *const *components; /* NULL-terminated; those that have weights */
    const char *const *stages;     /* the one that uses each component */
    const char *const *quirks;     /* NULL-terminated; names a scenario may use */
    /* What can be said against a request without running it; reads only the checkpoint's configs.
     * A pipeline that only workers run has this alone, and it refuses. */
    mp_code (*check)(const mp_request *r, mp_error *err);
    mp_code (*open)(mp_ctx *c, const mp_request *r, const mp_sink *sink, void **out, mp_error *err);
    mp_code (*generate)(mp_ctx *c, void *pipeline, const mp_sink *sink, mp_error *err);
    /* Of components[i]; NULL: this checkpoint has none. */
    mp_weights *(*weights)(const void *pipeline, int i);
    void (*close)(void *pipeline);
} mp_pipeline_def;

/* Sum over the components. */
mp_weights_stats mp_pipeline_weights(const mp_pipeline_def *d, const void *pipeline);

/* What a generation's stages share. */
typedef struct mp_stages {
    const mp_pipeline_def *pipeline;
    const void *open; /* the open pipeline */
    mp_ctx *c;
    const mp_sink *sink; /* NULL: nobody listens */
    bool offload;
} mp_stages;
/* Makes what weights the stage's components lack, as the stage "load" in front of it. */
mp_code mp_stage_begin(const mp_stages *s, const char *stage, mp_error *err);
/* Gives back the pool's unused pages and, under offload, the weights of the stage's components. */
void mp_stage_end(const mp_stages *s, const char *stage);

/* pipelines/pipelines.def as an array of pointers, NULL-terminated. */
const mp_pipeline_def *const *mp_pipelines(void);
const mp_pipeline_def *mp_pipeline_find(const char *name); /* NULL: none */

#endif
