/* One scenario with every key resolved: what a cell of the matrix is before it runs.
 *
 * Built from a YAML tree in which the matrix's values already stand at their places.  Everything is
 * checked here but what only the checkpoint's files can tell; that is the pipeline's check. */
#ifndef MP_HARNESS_SCENARIO_H
#define MP_HARNESS_SCENARIO_H

#include "harness/yaml_node.h"
#include "pipelines/common/pipeline.h"
#include "results/store.h"

typedef struct mp_expectation {
    const mp_yaml *at;
    const mp_yaml *when;                  /* map or NULL: matches every cell */
    const char *engine;                   /* condition on the engine (version.h), NULL: any */
    const char *error, *status, *outcome; /* NULL: not asked for */
} mp_expectation;

/* The limits of one metric under `budgets`; NaN: no such limit. */
typedef struct mp_budget {
    const char *name; /* "latent_rel_l2" */
    double absolute;
    double relative; /* how much worse than the baseline's: 0.05 is 5 % */
    bool at_least;   /* psnr_db and ssim: more is better */
} mp_budget;

enum { MP_BUDGETS = 8 };

typedef struct mp_scenario {
    const char *file, *name, *description;
    const mp_yaml *root;
    const mp_pipeline_def *pipeline;
    mp_request request; /* its text lives in the arena */
    mp_e4m3_overflow e4m3;
    mp_pair *settings; /* what compare pairs by, dotted, in a fixed order */
    int setting_count;
    const mp_expectation *expect;
    int expect_count;
    mp_budget budgets[MP_BUDGETS];
    int budget_count;
    int repeat, warmup;
    double timeout; /* seconds; 0: none */
    size_t memory;  /* bytes; 0: none */
    bool reference; /* false: off */
    mp_dtype reference_dtype;
} mp_scenario;

/* root: a map without "matrix".  The result points into the arena and into root. */
mp_code mp_scenario_build(mp_arena *a, const mp_yaml *root, mp_scenario *out, mp_error *err);
/* A scenario that asks for nothing but the checkpoint in that folder. */
mp_code mp_scenario_probe(mp_arena *a, const mp_pipeline_def *p, const char *checkpoint,
                          mp_scenario *out, mp_error *err);
/* The value of a setting, NULL when it is not set. */
const char *mp_scenario_setting(const mp_scenario *s, const char *key);
/* The same also for a key that stands above settings: precision.components gives
 * "text_encoder:bf16+vae:bf16", or "none".  NULL for a key that is no setting at all. */
const char *mp_scenario_value(mp_arena *a, const mp_scenario *s, const char *key);
/* The one name that a dotted key has in settings and ids: "inputs.num_inference_steps" is
 * "inputs.steps".  root: the scenario's map, which names the pipeline. */
const char *mp_scenario_key(mp_arena *a, const mp_yaml *root, const char *dotted);
/* mp_yaml_put, where an input takes the place that it has under either of its names. */
bool mp_scenario_put(mp_arena *a, mp_yaml *root, const char *dotted, mp_yaml *value,
                     const mp_yaml **found);
/* True when both compute the same: equal pipelines, checkpoints and settings. */
bool mp_scenario_same(const mp_scenario *a, const mp_scenario *b);
/* Whether putting these values (a map of dotted keys) into the scenario changes nothing: how
 * `when`, exclude and --only choose cells, whatever spelling they use. */
mp_code mp_scenario_matches(mp_arena *a, const mp_scenario *s, const mp_yaml *when, bool *out,
                            mp_error *err);
/* "600s", "10m", "24h", "1.5h" or a bare number of seconds; "8GiB", "512MiB", bytes. */
bool mp_parse_duration(const char *text, double *out);
bool mp_parse_size(const char *text, size_t *out);

#endif
