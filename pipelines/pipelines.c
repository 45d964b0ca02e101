#include <string.h>

#include "pipelines/common/pipeline.h"

#define X(id) extern const mp_pipeline_def mp_pipeline_##id;
#include "pipelines/pipelines.def"
#undef X

const mp_pipeline_def *const *mp_pipelines(void)
{
    static const mp_pipeline_def *const all[] = {
#define X(id) &mp_pipeline_##id,
#include "pipelines/pipelines.def"
#undef X
        NULL,
    };

    return all;
}

const mp_pipeline_def *mp_pipeline_find(const char *name)
{
    for (const mp_pipeline_def *const *p = mp_pipelines(); *p; p++)
        if (!strcmp((*p)->name, name))
            return *p;
    return NULL;
}
