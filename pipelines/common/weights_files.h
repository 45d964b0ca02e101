/* The weight files of one component: found by the names that Diffusers and Transformers give them,
 * and checked against their index.  Used by weights.c. */
#ifndef MP_PIPELINES_COMMON_WEIGHTS_FILES_H
#define MP_PIPELINES_COMMON_WEIGHTS_FILES_H

#include "pipelines/common/safetensors.h"

typedef struct mp_weight_files {
    mp_safetensors **file;
    int64_t count;
} mp_weight_files;

/* Opens dir/<stem>[.variant].safetensors or every shard of its index. */
mp_code mp_weight_files_open(const char *dir, const char *stem, const char *variant,
                             mp_weight_files *out, mp_error *err);
void mp_weight_files_close(mp_weight_files *f);

#endif
