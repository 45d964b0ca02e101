/* The parts of mp_pipeline_sana (sana.c): what a cell may ask for, and the run itself.
 * Source: SanaPipeline in diffusers/pipelines/sana/pipeline_sana.py. */
#ifndef MP_PIPELINES_SANA_SANA_H
#define MP_PIPELINES_SANA_SANA_H

#include "pipelines/common/autoencoder_dc.h"
#include "pipelines/common/dpmsolver_multistep.h"
#include "pipelines/common/pipeline.h"
#include "pipelines/common/tokenizer.h"
#include "pipelines/sana/gemma2.h"
#include "pipelines/sana/transformer.h"

extern const char mp_sana_quirk_quadratic[]; /* attention before the fix of diffusers #10590 */

/* The call's arguments, copied from the request. */
typedef struct mp_sana_call {
    char *prompt, *negative_prompt, *instruction; /* instruction: NULL for none */
    int steps;
    int64_t images, max_length;
    int64_t height, width;                 /* of the picture that comes out */
    int64_t working_height, working_width; /* of the picture that is made: the bin's */
    double guidance;
    uint64_t seed;
    int noise_ulps;
    bool offload;
    mp_tiling tiling;
} mp_sana_call;

typedef struct mp_sana {
    mp_sana_call call;
    mp_tokenizer *tokenizer;
    mp_gemma2 *text_encoder;
    mp_sana_transformer *transformer;
    mp_autoencoder_dc *vae;
    mp_dpmsolver *scheduler;
} mp_sana;

extern const mp_pipeline_def mp_pipeline_sana;

/* Everything that can be said against a request from its numbers and the checkpoint's configs. */
mp_code mp_sana_check(const mp_request *r, mp_error *err);

/* Text to picture; results leave through the sink.  A failure of an op stays in the context and is
 * copied to err with its module. */
mp_code mp_sana_generate(mp_ctx *c, void *pipeline, const mp_sink *sink, mp_error *err);

#endif
