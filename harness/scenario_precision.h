/* The `precision` of a scenario: dtypes of components and modules, storage, policy. */
#ifndef MP_HARNESS_SCENARIO_PRECISION_H
#define MP_HARNESS_SCENARIO_PRECISION_H

#include "harness/yaml_node.h"
#include "pipelines/common/pipeline.h"

mp_code mp_scenario_precision(mp_arena *a, const mp_yaml *root, const mp_pipeline_def *pipeline,
                              mp_precision *out, mp_e4m3_overflow *e4m3, mp_error *err);

#endif
