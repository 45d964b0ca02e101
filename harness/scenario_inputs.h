/* The `inputs` of a scenario, checked against the table of its pipeline. */
#ifndef MP_HARNESS_SCENARIO_INPUTS_H
#define MP_HARNESS_SCENARIO_INPUTS_H

#include "harness/yaml_node.h"
#include "pipelines/common/pipeline.h"

/* map: the node under `inputs`, NULL when there is none; at: where to point when a required input
 * is missing.  *out: one input for each field of the pipeline, in its order. */
mp_code mp_scenario_inputs(mp_arena *a, const mp_yaml *map, const mp_yaml *at,
                           const mp_pipeline_def *pipeline, mp_input **out, mp_error *err);
/* The value as a setting: "7", "true", the text itself, "default" for the table's own list. */
const char *mp_input_text(mp_arena *a, const mp_input *input);
/* The short name where there is one. */
const char *mp_input_name(const mp_input_field *field);
/* path, relative to the folder of file. */
const char *mp_path_beside(mp_arena *a, const char *file, const char *path);

#endif
