/* The configurations that `mpbench synth` knows by name: the folder harness/presets, inside the
 * program.  A preset is FAMILY-VARIANT (sana-1600m); its files are those of the folder FAMILY, and
 * over them those of the folder FAMILY-VARIANT.
 *
 * The configs are those of Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers and
 * Sana_1600M_4Kpx_BF16_diffusers and of stabilityai/stable-diffusion-3.5-medium on Hugging Face.
 * The -mid ones have about 150 M parameters and the real models' heads, blocks and autoencoder
 * channels, so that a picture of 512x512 asks of each op what it does there: fewer blocks, half as
 * wide, small text encoders.  sana-mid's autoencoder has one block a stage, and its encoder, which
 * makes no picture, is narrow. */
#ifndef MP_HARNESS_PRESETS_H
#define MP_HARNESS_PRESETS_H

#include <stdbool.h>

#include "harness/arena.h"
#include "kernels/core/status.h"

typedef struct mp_preset_file {
    const char *path; /* "sana-1600m/transformer/config.json" */
    const char *text;
} mp_preset_file;

/* Made from the folder; ends with {0}. */
extern const mp_preset_file mp_preset_files[];

/* NULL-terminated, in alphabetical order. */
const char *const *mp_preset_names(mp_arena *a);
/* Writes the preset's files below folder, which is there. */
mp_code mp_preset_write(mp_arena *a, const char *name, const char *folder, mp_error *err);

#endif
