/* The configurations that `mpbench synth` knows by name: the folder harness/presets, inside the
 * program.  A preset is FAMILY-VARIANT (sana-1600m); its files are those of the folder FAMILY, and
 * over them those of the folder FAMILY-VARIANT. */
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
