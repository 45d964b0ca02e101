/* Where `mpbench synth` writes to, and what it copies there. */
#ifndef MP_HARNESS_SYNTH_FOLDER_H
#define MP_HARNESS_SYNTH_FOLDER_H

#include <stdbool.h>
#include <stdint.h>

#include "harness/arena.h"
#include "kernels/core/status.h"

/* Whether it has a model_index.json. */
bool mp_is_checkpoint(const char *path);
/* What stands at dir must not be replaced, or, with force, is no checkpoint. */
mp_code mp_check_target(const char *dir, bool force, mp_error *err);
/* All files of a checkpoint but its weights, of the folder itself and of those in it. */
mp_code mp_copy_configs(mp_arena *a, const char *from, const char *to, mp_error *err);
/* Whether the disk of `folder` has room for so many bytes; dir is named in the message. */
mp_code mp_check_space(const char *folder, const char *dir, uint64_t bytes, mp_error *err);
/* The folder gets the name dir; what had it before is removed then. */
mp_code mp_put_in_place(const char *folder, const char *dir, mp_error *err);

#endif
