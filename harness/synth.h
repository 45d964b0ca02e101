/* Checkpoints with random weights, as large as real ones and in their layout.
 *
 * A folder of configurations says what the models are; the models say what parameters they have
 * (mp_weights_survey), and those are written as a stream, with values of synth_values.h. */
#ifndef MP_HARNESS_SYNTH_H
#define MP_HARNESS_SYNTH_H

#include "harness/arena.h"
#include "pipelines/common/pipeline.h"

/* The parameters of one component.  Tensors are named as in the file, and store is their dtype. */
typedef struct mp_synth_part {
    const char *component; /* "transformer" */
    const char *stem;      /* of its files: "diffusion_pytorch_model" */
    mp_tensor *params;
    int64_t count, room;
    int64_t parameters; /* values of all */
    uint64_t bytes;
} mp_synth_part;

enum { MP_SYNTH_PARTS = 8 };

typedef struct mp_synth_model {
    const mp_pipeline_def *pipeline;
    mp_synth_part parts[MP_SYNTH_PARTS];
    int count;
    int64_t parameters;
    uint64_t bytes;
} mp_synth_model;

/* Opens the configs, tokenizers and scheduler of the folder as the pipeline that its
 * model_index.json names.  The precision is that of a run which maps all weights as they are. */
mp_code mp_synth_survey(mp_arena *a, const char *folder, const mp_precision *precision,
                        mp_synth_model *out, mp_error *err);

typedef struct mp_synth_options {
    uint64_t seed;
    uint64_t shard_bytes; /* a file has more only for a single parameter that is larger */
    int threads;
} mp_synth_options;

/* Writes the files of a part below folder/component, which is there.  *files: how many.  The bytes
 * of a file depend neither on threads nor, but for the split, on shard_bytes.  Ends early with
 * MP_EIO after mp_synth_interrupt. */
mp_code mp_synth_write(mp_arena *a, const mp_synth_part *part, const char *folder,
                       const mp_synth_options *o, int *files, mp_error *err);
/* For a signal handler. */
void mp_synth_interrupt(int signal);

#endif
