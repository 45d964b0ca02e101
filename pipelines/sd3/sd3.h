/* The parts of mp_pipeline_sd3 (sd3.c): what a cell may ask for, and the run itself.
 * Source: StableDiffusion3Pipeline in
 * diffusers/pipelines/stable_diffusion_3/pipeline_stable_diffusion_3.py. */
#ifndef MP_PIPELINES_SD3_SD3_H
#define MP_PIPELINES_SD3_SD3_H

#include "pipelines/common/autoencoder_kl.h"
#include "pipelines/common/flow_match_euler.h"
#include "pipelines/common/pipeline.h"
#include "pipelines/common/t5_encoder.h"
#include "pipelines/common/tokenizer.h"
#include "pipelines/sd3/clip_text.h"
#include "pipelines/sd3/transformer.h"

enum { MP_SD3_CLIPS = 2, MP_SD3_MAX_SKIPPED = 64 };

/* The call's arguments, copied from the request. */
typedef struct mp_sd3_call {
    char *prompt[3], *negative_prompt[3]; /* for CLIP-L, CLIP-G and T5 */
    int steps, clip_skip;
    int64_t images, max_sequence_length;
    int64_t height, width; /* of the picture */
    double guidance;
    uint64_t seed;
    int noise_ulps;
    bool offload;
    int skip_layers[MP_SD3_MAX_SKIPPED], skip_count; /* skip-layer guidance; 0: none */
    double skip_scale, skip_start, skip_stop;
    mp_tiling tiling;
} mp_sd3_call;

typedef struct mp_sd3 {
    mp_sd3_call call;
    mp_tokenizer *tokenizer[MP_SD3_CLIPS], *tokenizer_3;
    mp_clip_text *text_encoder[MP_SD3_CLIPS];
    mp_t5_encoder *text_encoder_3; /* NULL: the checkpoint has none */
    mp_sd3_transformer *transformer;
    mp_autoencoder_kl *vae;
    mp_flow_match_euler *scheduler;
} mp_sd3;

extern const mp_pipeline_def mp_pipeline_sd3;

/* Everything that can be said against a request from its numbers and the checkpoint's configs. */
mp_code mp_sd3_check(const mp_request *r, mp_error *err);
/* Whether model_index.json has that component, and not null. */
mp_code mp_sd3_has(const mp_request *r, const char *component, bool *out, mp_error *err);

/* prompt.c: encode_prompt of one side.  texts: for the three encoders.  -> embeddings [images, S,
 * joint_attention_dim] and pooled [images, pooled_projection_dim] of one dtype each, in the scope
 * of the caller. */
typedef struct mp_sd3_prompt {
    mp_tensor embeds, pooled;
} mp_sd3_prompt;
mp_sd3_prompt mp_sd3_encode(mp_ctx *c, const mp_sd3 *s, char *const texts[3], int clip_skip,
                            const mp_sink *sink, mp_error *err);

/* Text to picture; results leave through the sink.  A failure of an op stays in the context and is
 * copied to err with its module. */
mp_code mp_sd3_generate(mp_ctx *c, void *pipeline, const mp_sink *sink, mp_error *err);

#endif
