/* `mpbench compare`, over databases made through the store. */
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/core/memory.h"
#include "results/compare.h"
#include "tests/results/scratch.h"

/* ---- a database ----------------------------------------------------------------------------- */

static mp_store *store;

static int make_store(void **state)
{
    static int count;
    char name[32];
    mp_error err = {0};

    (void)state;
    snprintf(name, sizeof name, "compare%d.db", count++);
    return mp_store_open(scratch_file(name), MP_STORE_WRITE, &store, &err) ? -1 : 0;
}

static int drop_store(void **state)
{
    (void)state;
    mp_store_close(store);
    store = NULL;
    return 0;
}

/* told: a line of the environment, value NULL for none. */
static int64_t add_run_that_told(const char *label, const char *machine, const char *engine,
                                 mp_pair told)
{
    static int count;
    char uuid[40];
    const mp_run_info run = {.uuid = uuid,
                             .label = label,
                             .engine = engine,
                             .device = "cpu",
                             .command = "mpbench run",
                             .plan = "p",
                             .fingerprint = machine,
                             .environment = &told,
                             .environment_count = told.value != NULL};
    mp_error err = {0};
    int64_t id = 0;

    snprintf(uuid, sizeof uuid, "%08d-0000-4000-8000-000000000000", ++count);
    if (mp_store_begin_run(store, &run, &id, &err))
        fail_msg("%s", err.text);
    return id;
}

/* version: of the library that the engine drives, NULL for none. */
static int64_t add_versioned_run(const char *label, const char *machine, const char *engine,
                                 const char *version)
{
    char key[40];

    snprintf(key, sizeof key, "%s.version", engine);
    return add_run_that_told(label, machine, engine, (mp_pair){key, version});
}

static int64_t add_run_by(const char *label, const char *machine, const char *engine)
{
    return add_versioned_run(label, machine, engine, NULL);
}

static int64_t add_run(const char *label)
{
    return add_run_by(label, "this machine", "native");
}

/* A finished cell.  settings: "KEY=VAL KEY=VAL", of which the key of the cell is made. */
typedef struct cell_spec {
    const char *scenario, *settings;
    const char *status; /* NULL: ok */
    const char *error, *reference, *checkpoint_hash;
    const char *bits; /* hash of its picture, NULL for none */
    mp_metric_row metrics[8];
    double samples[8];
    int sample_count;
} cell_spec;

static mp_metric_row metric(const char *name, double value)
{
    const bool bytes = strstr(name, "mib") != NULL;

    return (mp_metric_row){.name = name,
                           .stage = "run",
                           .step = -1,
                           .module = "",
                           .value = value,
                           .unit = strstr(name, "seconds") ? "s"
                                   : bytes                 ? "MiB"
                                                           : "1"};
}

static int split_settings(char *text, mp_pair *out)
{
    int n = 0;
    char *rest;

    for (char *word = strtok_r(text, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        char *value = strchr(word, '=');
        assert_non_null(value);
        *value = '\0';
        out[n++] = (mp_pair){word, value + 1};
    }
    return n;
}

static int64_t begin_cell(int64_t run, const cell_spec *spec)
{
    const char *scenario = spec->scenario ? spec->scenario : "sana";
    char key[300], settings[300];
    mp_pair pairs[16];
    mp_error err = {0};
    int64_t id = 0;

    snprintf(key, sizeof key, "%s/%s", scenario, spec->settings);
    snprintf(settings, sizeof settings, "%s", spec->settings);
    const int n = split_settings(settings, pairs);
    const mp_cell_info cell = {.key = key,
                               .scenario = scenario,
                               .scenario_hash = key,
                               .pipeline = "sana",
                               .checkpoint = "tiny",
                               .checkpoint_hash =
                                   spec->checkpoint_hash ? spec->checkpoint_hash : "c",
                               .repro = "mpbench run",
                               .settings = pairs,
                               .setting_count = n};
    if (mp_store_begin_cell(store, run, &cell, &id, &err))
        fail_msg("%s", err.text);
    return id;
}

static int64_t add_cell(int64_t run, const cell_spec *spec)
{
    const int64_t id = begin_cell(run, spec);
    const mp_output_row picture = {"image", "fp16", "[1]", spec->bits};
    mp_sample_row samples[8];
    mp_error err = {0};
    int metrics = 0;

    while (metrics < 8 && spec->metrics[metrics].name)
        metrics++;
    for (int i = 0; i < spec->sample_count; i++)
        samples[i] = (mp_sample_row){i, "total", spec->samples[i]};
    const mp_cell_result result = {.status = spec->status ? spec->status : "ok",
                                   .as_expected = true,
                                   .step = -1,
                                   .error = spec->error,
                                   .reference = spec->reference,
                                   .metrics = spec->metrics,
                                   .metric_count = metrics,
                                   .samples = samples,
                                   .sample_count = spec->sample_count,
                                   .outputs = &picture,
                                   .output_count = spec->bits != NULL};
    if (mp_store_finish_cell(store, id, &result, &err))
        fail_msg("%s", err.text);
    return id;
}

/* A cell with a drift. */
static int64_t add_drift(int64_t run, const char *settings, double drift)
{
    return add_cell(
        run, &(cell_spec){.settings = settings, .metrics = {metric("latent_rel_l2", drift)}});
}

/* ---- asking --------------------------------------------------------------------------------- */

static char *compared(const mp_compare_options *o, int *status)
{
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    mp_error err = {0};

    assert_non_null(f);
    if (mp_compare(store, o, f, status, &err))
        fail_msg("%s", err.text);
    assert_int_equal(fclose(f), 0);
    return text;
}

static json_t *compare_json(const char *a, const char *b)
{
    const mp_compare_options o = {.a = a, .b = b, .format = MP_JSON};
    json_error_t why;
    int status;
    char *text = compared(&o, &status);
    json_t *all = json_loads(text, 0, &why);

    if (!all)
        fail_msg("%s in %s", why.text, text);
    free(text);
    assert_int_equal(json_integer_value(json_object_get(all, "version")), 2);
    return all;
}

static char *compare_text(const char *a, const char *b, mp_format format)
{
    const mp_compare_options o = {.a = a, .b = b, .format = format};
    int status;

    return compared(&o, &status);
}

static int gate(const char *a, const char *b)
{
    const mp_compare_options o = {.a = a, .b = b, .fail_on_worse = true, .format = MP_JSON};
    int status = -1;
    char *text = compared(&o, &status);
    json_t *all = json_loads(text, 0, NULL);

    assert_int_equal(json_integer_value(json_object_get(all, "exit_status")), status);
    json_decref(all);
    free(text);
    return status;
}

static void refuses(const char *a, const char *b, mp_code code, const char *part)
{
    const mp_compare_options o = {.a = a, .b = b};
    mp_error err = {0};
    int status;

    assert_int_equal(mp_compare(store, &o, stderr, &status, &err), code);
    if (!strstr(err.text, part))
        fail_msg("\"%s\" does not contain \"%s\"", err.text, part);
}

static int64_t id_of(const json_t *all, size_t i, const char *side)
{
    const json_t *pair = json_array_get(json_object_get(all, "pairs"), i);

    return json_integer_value(json_object_get(json_object_get(pair, side), "id"));
}

static const char *word(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "(none)";
}

/* The judgement of a metric in pair i. */
static const json_t *judged(const json_t *all, size_t i, const char *name)
{
    const json_t *pair = json_array_get(json_object_get(all, "pairs"), i);
    const json_t *list = json_object_get(pair, "metrics");

    for (size_t k = 0; k < json_array_size(list); k++)
        if (!strcmp(word(json_array_get(list, k), "metric"), name))
            return json_array_get(list, k);
    fail_msg("pair %zu has no %s", i, name);
    return NULL;
}

/* Of the first pair. */
static size_t metric_count(const json_t *all)
{
    const json_t *pair = json_array_get(json_object_get(all, "pairs"), 0);

    return json_array_size(json_object_get(pair, "metrics"));
}

static size_t pair_count(const json_t *all)
{
    return json_array_size(json_object_get(all, "pairs"));
}

/* Exactly one pair, of these cells. */
static void assert_pair(const char *a, const char *b, int64_t id_a, int64_t id_b)
{
    json_t *all = compare_json(a, b);

    assert_int_equal(pair_count(all), 1);
    assert_int_equal(id_of(all, 0, "a"), id_a);
    assert_int_equal(id_of(all, 0, "b"), id_b);
    json_decref(all);
}

/* The one pair's judgement of the metric, with part of its reason. */
static void assert_verdict(const char *a, const char *b, const char *name, const char *verdict,
                           const char *because)
{
    json_t *all = compare_json(a, b);
    const json_t *m = judged(all, 0, name);

    assert_int_equal(pair_count(all), 1);
    if (strcmp(word(m, "verdict"), verdict) || !strstr(word(m, "because"), because))
        fail_msg("%s is %s because %s, expected %s because %s", name, word(m, "verdict"),
                 word(m, "because"), verdict, because);
    json_decref(all);
}

/* ---- selectors ------------------------------------------------------------------------------ */

static void test_select__takes_dtypes_under_any_name(void **state)
{
    (void)state;
    const int64_t run = add_run(NULL);
    const int64_t a = add_drift(run, "precision.default=fp16 inputs.seed=7", 1);
    const int64_t b = add_drift(run, "precision.default=bf16 inputs.seed=7", 2);

    assert_pair("fp16", "bf16", a, b);
    assert_pair("half", "torch.bfloat16", a, b);
    assert_pair("precision.default=F16", "precision.default=BF16", a, b);
    assert_pair("precision.default=float16,inputs.seed=7", "bf16", a, b);
}

static void test_select__takes_labels_runs_and_uuids(void **state)
{
    (void)state;
    const int64_t before = add_run("before"), after = add_run("after");
    const int64_t a = add_drift(before, "precision.default=fp16", 1);
    const int64_t b = add_drift(after, "precision.default=fp16", 2);
    char id_a[32], id_b[32], uuid[40], *found;

    assert_pair("before", "after", a, b);
    assert_pair("label=after", "label=before", b, a);
    snprintf(id_a, sizeof id_a, "%lld", (long long)before);
    snprintf(id_b, sizeof id_b, "run=%lld", (long long)after);
    assert_pair(id_a, id_b, a, b);
    found = sql_text(mp_store_path(store), "SELECT uuid FROM run WHERE label = 'before'");
    snprintf(uuid, sizeof uuid, "%s", found);
    free(found);
    assert_pair(uuid, "after", a, b);
}

static void test_select__takes_lists_with_commas_in_brackets(void **state)
{
    (void)state;
    const int64_t run = add_run("a,b");
    const int64_t a = add_drift(run, "tiling=[32,32] inputs.seed=1", 1);
    const int64_t b = add_drift(run, "tiling={tile:[8,8],stride:[4,4]} inputs.seed=1", 1);

    add_drift(run, "tiling=[32,32] inputs.seed=2", 1);
    assert_pair("tiling=[32,32],inputs.seed=1", "tiling={tile:[8,8],stride:[4,4]},inputs.seed=1", a,
                b);
    assert_pair("label=a,b,tiling=[32,32],inputs.seed=1", "tiling={tile:[8,8],stride:[4,4]}", a, b);
}

static void test_select__pairs_no_component_with_a_component(void **state)
{
    (void)state;
    const int64_t run = add_run(NULL);
    const int64_t none = add_drift(run, "precision.components=none precision.default=fp16", 1);
    const int64_t vae = add_drift(run, "precision.components.vae=bf16 precision.default=fp16", 2);

    add_drift(run, "precision.components.vae=bf16 precision.default=bf16", 3);
    assert_pair("precision.components=none", "precision.components.vae=bf16", none, vae);
    assert_pair("precision.components=none", "precision.components.vae=torch.bfloat16", none, vae);
    assert_pair("precision.default=fp16,precision.components=none",
                "precision.default=fp16,precision.components.vae=bf16", none, vae);
}

static void test_select__pairs_what_differs_in_nothing_else(void **state)
{
    (void)state;
    const int64_t run = add_run(NULL);
    const int64_t a1 = add_drift(run, "precision.default=fp16 inputs.steps=1", 1);
    const int64_t a2 = add_drift(run, "precision.default=fp16 inputs.steps=2", 1);
    const int64_t b2 = add_drift(run, "precision.default=bf16 inputs.steps=2", 1);
    const int64_t b1 = add_drift(run, "precision.default=bf16 inputs.steps=1", 1);

    add_drift(run, "precision.default=fp16 inputs.steps=3", 1); /* alone */
    add_cell(run, &(cell_spec){.scenario = "other", .settings = "precision.default=bf16"});
    json_t *all = compare_json("fp16", "bf16");
    assert_int_equal(pair_count(all), 2);
    assert_int_equal(id_of(all, 0, "a"), a1);
    assert_int_equal(id_of(all, 0, "b"), b1);
    assert_int_equal(id_of(all, 1, "a"), a2);
    assert_int_equal(id_of(all, 1, "b"), b2);
    const json_t *pairs = json_object_get(all, "pairs");
    assert_string_equal(word(json_array_get(pairs, 0), "cell"), "inputs.steps=1");
    assert_string_equal(word(json_array_get(pairs, 1), "cell"), "inputs.steps=2");
    assert_int_equal(json_integer_value(json_object_get(all, "unpaired_a")), 1);
    assert_int_equal(json_integer_value(json_object_get(all, "unpaired_b")), 1);
    json_decref(all);
    char *text = compare_text("fp16", "bf16", MP_TEXT);
    assert_non_null(strstr(
        text, "left out: 1 cell of A and 1 of B have no partner that differs in nothing else\n"));
    free(text);
}

static void test_select__prefers_what_one_side_alone_asks_for(void **state)
{
    (void)state;
    const int64_t run = add_run(NULL);
    const int64_t a = add_drift(run, "precision.default=fp16 inputs.seed=1", 1);
    const int64_t b = add_drift(run, "precision.default=bf16 inputs.seed=1", 1);

    add_drift(run, "precision.default=bf16 inputs.seed=2", 1); /* newer */
    assert_pair("precision.default=fp16,inputs.seed=1", "bf16", a, b);
}

static void test_select__mixes_no_engines_and_no_checkpoints(void **state)
{
    (void)state;
    const int64_t native = add_run("n"), torch = add_run_by("t", "this machine", "torch");
    const cell_spec again = {.settings = "precision.default=bf16", .checkpoint_hash = "d"};
    const int64_t a = add_drift(native, "precision.default=fp16", 1);
    const int64_t b = add_drift(native, "precision.default=bf16", 1);
    const int64_t other = add_drift(torch, "precision.default=bf16", 1);

    add_cell(native, &again);
    assert_pair("fp16", "bf16", a, b);
    const int64_t half = add_drift(torch, "precision.default=fp16", 1);
    json_t *all = compare_json("fp16", "bf16");
    assert_int_equal(pair_count(all), 2);
    assert_int_equal(id_of(all, 1, "a"), half);
    assert_int_equal(id_of(all, 1, "b"), other);
    assert_string_equal(word(json_array_get(json_object_get(all, "pairs"), 1), "cell"),
                        "engine=torch");
    json_decref(all);
    assert_pair("engine=native,precision.default=fp16", "engine=torch,precision.default=fp16", a,
                half);
    assert_pair("label=n,precision.default=fp16", "label=t,precision.default=fp16", a, half);
}

static void test_select__takes_the_newest_of_several(void **state)
{
    (void)state;
    const int64_t run = add_run(NULL);

    add_drift(run, "precision.default=fp16", 1);
    add_drift(run, "precision.default=bf16", 1);
    const int64_t a = add_drift(run, "precision.default=fp16", 2);
    const int64_t b = add_drift(run, "precision.default=bf16", 2);
    begin_cell(run, &(cell_spec){.settings = "precision.default=bf16"}); /* still running */
    add_cell(run, &(cell_spec){.settings = "precision.default=fp16", .status = "interrupted"});
    assert_pair("fp16", "bf16", a, b);
}

/* An archive that is merged later has the larger ids. */
static void test_select__goes_by_the_start_of_runs_not_by_ids(void **state)
{
    (void)state;
    const int64_t newer = add_run("x"), older = add_run("x");
    const int64_t a = add_drift(newer, "precision.default=fp16", 1),
                  b = add_drift(newer, "precision.default=bf16", 1);

    add_drift(older, "precision.default=fp16", 2);
    add_drift(older, "precision.default=bf16", 2);
    sql_run(mp_store_path(store), "UPDATE run SET started = '2020-01-01T00:00:00.000Z' WHERE id = "
                                  "(SELECT max(id) FROM run)");
    assert_pair("fp16", "bf16", a, b);
    assert_pair("label=x,precision.default=fp16", "label=x,precision.default=bf16", a, b);
}

static void test_select__compares_scenarios(void **state)
{
    (void)state;
    const int64_t run = add_run(NULL);
    const int64_t a = add_cell(run, &(cell_spec){.scenario = "old", .settings = "inputs.seed=1"});
    const int64_t b = add_cell(run, &(cell_spec){.scenario = "new", .settings = "inputs.seed=1"});

    assert_pair("scenario=old", "scenario=new", a, b);
    char *text = compare_text("scenario=old", "scenario=new", MP_TEXT);
    assert_non_null(strstr(text, "\nold against new\n"));
    free(text);
}

static void test_select__says_what_there_is(void **state)
{
    (void)state;
    refuses("fp16", "bf16", MP_EMISSING,
            "holds no finished cell; record something with `mpbench run` first");
    const int64_t run = add_run("before");
    add_drift(run, "precision.default=fp16 inputs.seed=1", 1);
    add_drift(run, "precision.default=bf16 inputs.seed=2", 1);
    add_run("empty");
    refuses("fp32", "bf16", MP_EMISSING,
            "no finished cell has precision.default=fp32; there is: bf16, fp16");
    refuses("bf16", "afetr", MP_EMISSING, "no finished cell has label=afetr; there is: before");
    refuses("empty", "before", MP_EMISSING, "no finished cell has label=empty; there is: before");
    refuses("engine=torch", "bf16", MP_EMISSING,
            "no finished cell has engine=torch; there is: native");
    refuses("99", "bf16", MP_EMISSING, "no finished cell has run=99; there is: ");
    refuses("precison=fp16", "bf16", MP_EMISSING,
            "no cell has the key 'precison'; there are: inputs.seed, precision.default, and run, "
            "uuid, label, engine, device, scenario");
    refuses("precision.default=fp16,inputs.seed=2", "bf16", MP_EMISSING,
            "match each part of 'precision.default=fp16,inputs.seed=2', but none matches all");
    refuses("fp16", "bf16", MP_EMISSING, "the nearest, 1 and 2, differ also in inputs.seed");
    refuses("fp16", "half", MP_EMISSING, "match the same cells only, such as 1");
    refuses("before", "1", MP_EMISSING, "'before' and '1' match the same cells only, such as 2");
    refuses("before", "bf16", MP_EMISSING, "match the same cells only, such as 2");
    refuses("", "bf16", MP_EUSAGE, "'' selects nothing: expected a dtype, a label");
    refuses("=x", "bf16", MP_EUSAGE, "'=x' selects nothing");
    refuses("bf16", "a b=x", MP_EUSAGE, "'a b=x' selects nothing");
}

static void test_select__refuses_more_conditions_than_it_holds(void **state)
{
    (void)state;
    char text[400] = "a=1";

    add_drift(add_run(NULL), "precision.default=fp16", 1);
    for (int i = 0; i < 16; i++)
        strcat(text, ",b=2");
    refuses(text, "fp16", MP_EUSAGE, "or up to 16 of KEY=VAL");
}

/* ---- drift ---------------------------------------------------------------------------------- */

static void test_judge__takes_any_drift_for_exact(void **state)
{
    (void)state;
    const int64_t run = add_run(NULL);

    add_cell(run, &(cell_spec){.settings = "precision.default=fp16",
                               .metrics = {metric("latent_rel_l2", 0.1), metric("psnr_db", 30),
                                           metric("ssim", 0.9), metric("seam", 1.0)}});
    add_cell(run, &(cell_spec){.settings = "precision.default=bf16",
                               .metrics = {metric("latent_rel_l2", 0.1 * (1 + 1e-12)),
                                           metric("psnr_db", INFINITY), metric("ssim", 0.8),
                                           metric("seam", 1.0)}});
    assert_verdict("fp16", "bf16", "latent_rel_l2", "worse", "exact");
    assert_verdict("bf16", "fp16", "latent_rel_l2", "better", "exact");
    assert_verdict("fp16", "bf16", "psnr_db", "better", "exact");
    assert_verdict("fp16", "bf16", "ssim", "worse", "exact");
    assert_verdict("fp16", "bf16", "seam", "same", "exact");
}

static void test_judge__minds_no_seam_that_nobody_sees(void **state)
{
    (void)state;
    const int64_t run = add_run(NULL);

    add_cell(run,
             &(cell_spec){.settings = "precision.default=fp32", .metrics = {metric("seam", 1.0)}});
    add_cell(run, &(cell_spec){.settings = "precision.default=fp16",
                               .metrics = {metric("seam", 1.019)}});
    add_cell(run,
             &(cell_spec){.settings = "precision.default=bf16", .metrics = {metric("seam", 1.03)}});
    assert_verdict("fp32", "fp16", "seam", "same", "within 2 %, which nobody sees");
    assert_verdict("fp16", "fp32", "seam", "same", "within 2 %, which nobody sees");
    assert_verdict("fp32", "bf16", "seam", "worse", "exact");
}

static void test_judge__knows_nan_and_infinity(void **state)
{
    (void)state;
    const int64_t run = add_run(NULL);

    add_cell(run, &(cell_spec){.settings = "precision.default=fp16",
                               .metrics = {metric("a", NAN), metric("b", NAN), metric("c", 1),
                                           metric("d", INFINITY), metric("e", 1)}});
    add_cell(run, &(cell_spec){.settings = "precision.default=bf16",
                               .metrics = {metric("a", NAN), metric("b", 1), metric("c", INFINITY),
                                           metric("d", INFINITY), metric("e", -INFINITY)}});
    assert_verdict("fp16", "bf16", "a", "same", "");
    assert_verdict("fp16", "bf16", "b", "incomparable", "");
    assert_verdict("fp16", "bf16", "c", "worse", "");
    assert_verdict("fp16", "bf16", "d", "same", "");
    assert_verdict("fp16", "bf16", "e", "better", "");
    json_t *all = compare_json("fp16", "bf16");
    assert_string_equal(word(judged(all, 0, "b"), "a"), "nan");
    assert_string_equal(word(judged(all, 0, "c"), "b"), "inf");
    assert_string_equal(word(judged(all, 0, "e"), "b"), "-inf");
    assert_true(json_is_null(json_object_get(judged(all, 0, "c"), "ratio")));
    json_decref(all);
}

static void test_judge__ignores_what_lies_in_the_references_own_noise(void **state)
{
    (void)state;
    const int64_t run = add_run(NULL);

    add_cell(run, &(cell_spec){.settings = "precision.default=fp32",
                               .metrics = {metric("latent_rel_l2", 1e-7), metric("ssim", 0.9),
                                           metric("floor_latent_rel_l2", 5e-7)}});
    add_cell(run, &(cell_spec){.settings = "precision.default=fp16",
                               .metrics = {metric("latent_rel_l2", 4e-7), metric("ssim", 0.8),
                                           metric("floor_latent_rel_l2", 5e-7)}});
    add_cell(run, &(cell_spec){.settings = "precision.default=bf16",
                               .metrics = {metric("latent_rel_l2", 6e-7),
                                           metric("floor_latent_rel_l2", 5e-7)}});
    assert_verdict("fp32", "fp16", "latent_rel_l2", "same",
                   "both within the reference's own noise, 5e-07");
    assert_verdict("fp32", "fp16", "ssim", "worse", "exact");
    assert_verdict("fp32", "bf16", "latent_rel_l2", "worse", "exact");
    json_t *all = compare_json("fp32", "fp16");
    const json_t *pair = json_array_get(json_object_get(all, "pairs"), 0);
    assert_int_equal(json_array_size(json_object_get(pair, "metrics")), 2); /* no floor_ */
    json_decref(all);
}

static void test_judge__says_that_references_differ(void **state)
{
    (void)state;
    const int64_t run = add_run(NULL);

    add_cell(run, &(cell_spec){.settings = "tiling=on",
                               .reference = "r1",
                               .metrics = {metric("latent_rel_l2", 1)}});
    add_cell(run, &(cell_spec){.settings = "tiling=off",
                               .reference = "r2",
                               .metrics = {metric("latent_rel_l2", 2)}});
    assert_verdict("tiling=on", "tiling=off", "latent_rel_l2", "worse",
                   "exact, each against its own reference");
}

/* Two releases of a library, or two engines. */
static void test_judge__gives_other_code_a_margin(void **state)
{
    (void)state;
    const int64_t a = add_versioned_run("a", "this machine", "diffusers", "0.32.2");
    const int64_t b = add_versioned_run("b", "this machine", "diffusers", "0.33.0");
    const int64_t same = add_versioned_run("same", "this machine", "diffusers", "0.33.0");
    const int64_t native = add_run_by("native", "this machine", "native");
    const cell_spec near = {.settings = "precision.default=bf16",
                            .metrics = {metric("latent_rel_l2", 0.0199), metric("psnr_db", 44.1),
                                        metric("ssim", 0.961), metric("seam", 1.9),
                                        metric("peak_mib", 104)}};

    add_cell(a, &(cell_spec){.settings = "precision.default=bf16",
                             .metrics = {metric("latent_rel_l2", 0.01), metric("psnr_db", 50),
                                         metric("ssim", 0.99), metric("seam", 1.0),
                                         metric("peak_mib", 100)}});
    add_cell(b, &near);
    add_cell(native, &near);
    add_cell(same, &(cell_spec){.settings = "precision.default=bf16",
                                .metrics = {metric("latent_rel_l2", 0.0201),
                                            metric("psnr_db", 43.9), metric("ssim", 0.955),
                                            metric("seam", 2.1), metric("peak_mib", 106)}});
    static const char *const metrics[] = {"latent_rel_l2", "psnr_db", "ssim", "seam"};
    for (size_t i = 0; i < sizeof metrics / sizeof *metrics; i++) {
        assert_verdict("a", "b", metrics[i], "noise", "within a factor of 2");
        assert_verdict("a", "native", metrics[i], "noise", "within a factor of 2");
        assert_verdict("a", "same", metrics[i], "worse", "other code"); /* beyond the margin */
        assert_verdict("b", "same", metrics[i], "worse", "exact");
    }
    assert_verdict("a", "b", "peak_mib", "same", "within 5 %");
    assert_verdict("a", "same", "peak_mib", "worse", "beyond 5 %");
}

/* A gate on machines of two kinds must not fail for the last bits. */
static void test_judge__gives_another_instruction_set_the_margin(void **state)
{
    (void)state;
    const int64_t a = add_run_that_told("a", "one", "native", (mp_pair){"isa", "avx2"});
    const int64_t b = add_run_that_told("b", "two", "native", (mp_pair){"isa", "amx"});
    const int64_t c = add_run_that_told("c", "two", "native", (mp_pair){"isa", "amx"});

    add_drift(a, "precision.default=bf16", 0.0131);
    add_drift(b, "precision.default=bf16", 0.0132);
    add_drift(c, "precision.default=bf16", 0.0263);
    assert_verdict("a", "b", "latent_rel_l2", "noise",
                   "another instruction set rounds elsewhere: within a factor of 2");
    assert_verdict("a", "c", "latent_rel_l2", "worse", "other instruction sets");
    assert_verdict("b", "c", "latent_rel_l2", "worse", "exact");
}

static void test_judge__lets_two_right_fp32_runs_differ(void **state)
{
    (void)state;
    const int64_t a = add_versioned_run("a", "this machine", "diffusers", "0.32.2");
    const int64_t b = add_run_by("b", "this machine", "native");

    add_cell(a, &(cell_spec){.settings = "precision.default=fp32",
                             .metrics = {metric("latent_rel_l2", 0), metric("image_rel_l2", 9e-5),
                                         metric("psnr_db", INFINITY), metric("ssim", 1)}});
    add_cell(b,
             &(cell_spec){.settings = "precision.default=fp32",
                          .metrics = {metric("latent_rel_l2", 9e-6), metric("image_rel_l2", 2e-4),
                                      metric("psnr_db", 81), metric("ssim", 1 - 9e-9)}});
    assert_verdict("a", "b", "latent_rel_l2", "noise", "as far as in fp32");
    assert_verdict("a", "b", "psnr_db", "noise", "as far as in fp32");
    assert_verdict("a", "b", "ssim", "noise", "as far as in fp32");
    assert_verdict("a", "b", "image_rel_l2", "worse", "other code");
}

/* ---- time and memory ------------------------------------------------------------------------ */

static void add_timed(int64_t run, const char *settings, int n, const double *seconds)
{
    cell_spec spec = {.settings = settings, .sample_count = n};

    memcpy(spec.samples, seconds, (size_t)n * sizeof *seconds);
    spec.metrics[0] = metric("seconds", seconds[n / 2]);
    add_cell(run, &spec);
}

static void test_judge__tests_time_by_ranks(void **state)
{
    (void)state;
    const int64_t run = add_run(NULL);

    add_timed(run, "t=fast", 5, (double[]){1.0, 1.1, 1.2, 1.3, 1.4});
    add_timed(run, "t=slow", 5, (double[]){2.0, 2.1, 2.2, 2.3, 2.4});
    add_timed(run, "t=alike", 5, (double[]){1.05, 1.15, 1.25, 1.35, 1.45});
    add_timed(run, "t=near", 5, (double[]){1.41, 1.4101, 1.4102, 1.4103, 1.4104});
    add_timed(run, "t=nearer", 5, (double[]){1.415, 1.4151, 1.4152, 1.4153, 1.4154});
    /* 5 + 5 disjoint: 2 of C(10, 5) = 252 orders are as extreme, p = 0.0079 */
    assert_verdict("t=fast", "t=slow", "seconds", "worse", "p=0.0079, n=5+5");
    assert_verdict("t=slow", "t=fast", "seconds", "better", "p=0.0079, n=5+5");
    assert_verdict("t=fast", "t=alike", "seconds", "noise", "n=5+5");
    assert_verdict("t=near", "t=nearer", "seconds", "same", "p=0.0079, n=5+5, within 2 %");
    json_t *all = compare_json("t=fast", "t=slow");
    /* 2 / 252; the p is a ratio of whole numbers, right to an ulp or two */
    assert_true(fabs(json_real_value(json_object_get(judged(all, 0, "seconds"), "p")) - 2.0 / 252) <
                1e-15);
    json_decref(all);
}

static void test_judge__says_how_many_samples_are_needed(void **state)
{
    (void)state;
    const int64_t run = add_run(NULL);

    add_timed(run, "t=fast", 3, (double[]){1.0, 1.1, 1.2});
    add_timed(run, "t=slow", 3, (double[]){2.0, 2.1, 2.2});
    add_timed(run, "t=enough", 4, (double[]){3.0, 3.1, 3.2, 3.3});
    add_timed(run, "t=also", 4, (double[]){4.0, 4.1, 4.2, 4.3});
    assert_verdict("t=fast", "t=slow", "seconds", "too few", "n=3+3 (need n>=4)");
    assert_verdict("t=enough", "t=also", "seconds", "worse", "p=0.029, n=4+4");
    add_cell(run, &(cell_spec){.settings = "t=none", .metrics = {metric("seconds", 1)}});
    assert_verdict("t=none", "t=slow", "seconds", "too few", "n=0+3 (need n>=4)");
}

static void test_judge__leaves_warm_ups_out(void **state)
{
    (void)state;
    const int64_t run = add_run(NULL);
    char sql[200];

    add_timed(run, "t=fast", 5, (double[]){1.0, 1.1, 1.2, 1.3, 1.4});
    add_timed(run, "t=slow", 5, (double[]){2.0, 2.1, 2.2, 2.3, 2.4});
    snprintf(sql, sizeof sql,
             "INSERT INTO sample VALUES (1, -1, 'total', 9.0), (1, 0, 'decode', 9.0)");
    sql_run(mp_store_path(store), sql);
    assert_verdict("t=fast", "t=slow", "seconds", "worse", "p=0.0079, n=5+5");
}

static void test_judge__gives_memory_two_percent_or_a_mebibyte(void **state)
{
    (void)state;
    const int64_t run = add_run(NULL);
    static const double mib[] = {1000, 1020, 1021, 979, 10, 11, 11.1};
    static const char *const settings[] = {"m=a", "m=b", "m=c", "m=d", "m=e", "m=f", "m=g"};

    for (int i = 0; i < 7; i++)
        add_cell(run,
                 &(cell_spec){.settings = settings[i], .metrics = {metric("peak_mib", mib[i])}});
    assert_verdict("m=a", "m=b", "peak_mib", "same", "within 2 %");
    assert_verdict("m=a", "m=c", "peak_mib", "worse", "beyond 2 %");
    assert_verdict("m=a", "m=d", "peak_mib", "better", "beyond 2 %");
    assert_verdict("m=e", "m=f", "peak_mib", "same", "within 1 MiB");
    assert_verdict("m=e", "m=g", "peak_mib", "worse", "beyond 2 %");
}

static void test_judge__gives_instructions_two_percent(void **state)
{
    (void)state;
    const int64_t run = add_run(NULL), other = add_run_by(NULL, "another machine", "native");
    static const double counts[] = {1e9, 1.02e9, 1.03e9, 0.97e9};
    static const char *const settings[] = {"m=a", "m=b", "m=c", "m=d"};
    const mp_metric_row exact = {"instructions", "run", -1, "", 2e9, "Ir"};

    for (int i = 0; i < 4; i++)
        add_cell(run, &(cell_spec){.settings = settings[i],
                                   .metrics = {metric("instructions", counts[i]),
                                               metric("cycles", counts[i])}});
    add_cell(other, &(cell_spec){.settings = "m=o", .metrics = {metric("instructions", 2e9)}});
    add_cell(run, &(cell_spec){.settings = "m=x", .metrics = {exact}});
    assert_verdict("m=a", "m=b", "instructions", "same", "within 2 %");
    assert_verdict("m=a", "m=c", "instructions", "worse", "beyond 2 %");
    assert_verdict("m=a", "m=d", "instructions", "better", "beyond 2 %");
    assert_verdict("m=a", "m=o", "instructions", "incomparable", "other machines");
    json_t *all = compare_json("m=a", "m=c");
    assert_int_equal(metric_count(all), 1); /* cycles are context */
    json_decref(all);
    all = compare_json("m=a", "m=x");
    assert_int_equal(metric_count(all), 0); /* counted by another instrument */
    json_decref(all);
}

static void test_judge__takes_exact_counts_at_their_word_on_any_machine(void **state)
{
    (void)state;
    const int64_t run = add_run("here"), other = add_run_by("there", "another machine", "native");
    static const double counts[] = {2e9, 2.0001e9, 2.001e9};
    static const char *const settings[] = {"m=a", "m=b", "m=c"};
    const mp_metric_row base = {"instructions", "run", -1, "", 2e9, "Ir base"};

    for (int i = 0; i < 3; i++) {
        const mp_metric_row count = {"instructions", "run", -1, "", counts[i], "Ir avx2"};
        add_cell(i ? other : run, &(cell_spec){.settings = settings[i], .metrics = {count}});
    }
    add_cell(run, &(cell_spec){.settings = "m=base", .metrics = {base}});
    assert_verdict("m=a", "m=b", "instructions", "same", "within 0.01 %");
    assert_verdict("m=a", "m=c", "instructions", "worse", "beyond 0.01 %");
    json_t *all = compare_json("m=a", "m=base");
    assert_int_equal(metric_count(all), 0); /* other instructions */
    json_decref(all);
}

static void test_judge__counts_casts_and_does_not_judge_their_one_time(void **state)
{
    (void)state;
    const int64_t run = add_run(NULL);
    const mp_compare_options o = {
        .a = "m=a", .b = "m=b", .metric = "cast_seconds", .format = MP_TEXT, .fail_on_worse = true};
    int status;

    add_cell(run, &(cell_spec){.settings = "m=a",
                               .metrics = {metric("casts", 4), metric("cast_seconds", 1)}});
    add_cell(run, &(cell_spec){.settings = "m=b",
                               .metrics = {metric("casts", 6), metric("cast_seconds", 2)}});
    assert_verdict("m=a", "m=b", "casts", "worse", "exact");
    json_t *all = compare_json("m=a", "m=b");
    const json_t *pair = json_array_get(json_object_get(all, "pairs"), 0);
    assert_int_equal(json_array_size(json_object_get(pair, "metrics")), 1); /* no cast_seconds */
    json_decref(all);
    char *text = compared(&o, &status);
    assert_non_null(strstr(text, "measured in one generation only"));
    assert_int_equal(status, 4);
    free(text);
}

static void test_judge__compares_no_time_of_other_machines(void **state)
{
    (void)state;
    const int64_t here = add_run("here"), there = add_run_by("there", "another", "native");
    cell_spec spec = {.settings = "precision.default=fp16",
                      .metrics = {metric("seconds", 1), metric("peak_mib", 1),
                                  metric("latent_rel_l2", 0.1), metric("image_rel_l2", 0.1),
                                  metric("floor_image_rel_l2", 1e-3)},
                      .samples = {1, 1.1, 1.2, 1.3, 1.4},
                      .sample_count = 5};

    add_cell(here, &spec);
    for (int i = 0; i < 5; i++)
        spec.samples[i] += 10;
    spec.metrics[0].value = 11;
    spec.metrics[1].value = 2;
    spec.metrics[2].value = 0.1001;
    spec.metrics[3].value = 0.1001;
    add_cell(there, &spec);
    assert_verdict("here", "there", "seconds", "incomparable", "other machines");
    assert_verdict("here", "there", "peak_mib", "incomparable", "other machines");
    assert_verdict("here", "there", "latent_rel_l2", "worse", "other machines");
    assert_verdict("here", "there", "image_rel_l2", "noise",
                   "other machines, less than the reference's noise, 0.001");
}

/* ---- pools ---------------------------------------------------------------------------------- */

/* One picture each for n seeds in fp16 and bf16. */
static void add_seeds(int64_t run, const char *name, int n, const double *fp16, const double *bf16)
{
    char settings[80];

    for (int i = 0; i < n; i++) {
        snprintf(settings, sizeof settings, "precision.default=fp16 inputs.seed=%d", i);
        add_cell(run, &(cell_spec){.settings = settings, .metrics = {metric(name, fp16[i])}});
        snprintf(settings, sizeof settings, "precision.default=bf16 inputs.seed=%d", i);
        add_cell(run, &(cell_spec){.settings = settings, .metrics = {metric(name, bf16[i])}});
    }
}

static void test_pool__takes_what_all_pairs_say_without_statistics(void **state)
{
    (void)state;
    add_seeds(add_run(NULL), "latent_rel_l2", 3, (double[]){1, 2, 4}, (double[]){2, 3, 9});
    assert_verdict("fp16", "bf16", "latent_rel_l2", "worse", "exact, n=3: all worse");
    assert_verdict("bf16", "fp16", "latent_rel_l2", "better", "exact, n=3: all better");
    json_t *all = compare_json("fp16", "bf16");
    const json_t *m = judged(all, 0, "latent_rel_l2"), *b = json_object_get(m, "b_values");
    assert_true(json_real_value(json_object_get(m, "a")) == 2); /* medians */
    assert_true(json_real_value(json_object_get(m, "b")) == 3);
    assert_true(json_real_value(json_object_get(b, "worst")) == 9);
    assert_int_equal(json_integer_value(json_object_get(b, "n")), 3);
    assert_int_equal(json_integer_value(json_object_get(m, "pairs_worse")), 3);
    assert_true(json_is_null(json_object_get(m, "p")));
    json_decref(all);
    char *text = compare_text("fp16", "bf16", MP_TEXT);
    assert_non_null(strstr(text, "  metric         A       B       B/A    verdict  because\n"));
    assert_non_null(strstr(text, "  latent_rel_l2  2  [4]  3  [9]  1.5    B worse  exact, n=3: "));
    assert_non_null(strstr(text, "\n  pooled over inputs.seed: 0, 1, 2\n"));
    free(text);
}

static void test_pool__takes_pairs_without_a_difference_for_neither(void **state)
{
    (void)state;
    add_seeds(add_run(NULL), "ssim", 3, (double[]){0.9, 0.8, 0.7}, (double[]){0.9, 0.7, 0.7});
    assert_verdict("fp16", "bf16", "ssim", "worse", "exact, n=3: 1 worse, none better");
    json_t *all = compare_json("fp16", "bf16");
    const json_t *b = json_object_get(judged(all, 0, "ssim"), "b_values");
    assert_true(json_real_value(json_object_get(b, "worst")) == 0.7); /* the least of it */
    json_decref(all);
}

static void test_pool__says_how_many_pairs_would_settle_it(void **state)
{
    (void)state;
    add_seeds(add_run(NULL), "latent_rel_l2", 3, (double[]){1, 2, 4}, (double[]){1.5, 1.5, 5});
    assert_verdict("fp16", "bf16", "latent_rel_l2", "too few", "1 better, 2 worse (need n>=6)");
    const mp_compare_options o = {.a = "fp16", .b = "bf16", .fail_on_worse = true};
    int status;
    char *text = compared(&o, &status);
    assert_int_equal(status, 4);
    assert_non_null(strstr(text, "  ?  too few  1 better, 2 worse (need n>=6)\n"));
    free(text);
}

/* Expected: scipy.stats.wilcoxon(b - a, zero_method="pratt"), all ways to give signs. */
static void test_pool__tests_pairs_that_disagree_by_signed_ranks(void **state)
{
    static const double a[] = {10, 11, 12, 13, 14, 15, 16, 17};
    static const double worse[] = {11.5, 13, 14.5, 16, 17.5, 19, 20.5, 16.5};
    static const double mixed[] = {11.5, 9, 14.5, 10, 17.5, 11, 20.5, 16.5};

    (void)state;
    add_seeds(add_run_by(NULL, "one", "native"), "latent_rel_l2", 8, a, worse);
    assert_verdict("fp16", "bf16", "latent_rel_l2", "worse", "p=0.016, n=8: 1 better, 7 worse");
    assert_verdict("bf16", "fp16", "latent_rel_l2", "better", "p=0.016, n=8: 7 better, 1 worse");
    add_seeds(add_run_by(NULL, "one", "native"), "latent_rel_l2", 8, a, mixed); /* newer */
    assert_verdict("fp16", "bf16", "latent_rel_l2", "noise", "n=8: 4 better, 4 worse");
    char *text = compare_text("fp16", "bf16", MP_TEXT);
    assert_non_null(strstr(text, "  ~  noise    p="));
    assert_non_null(strstr(text, "\n~ not significant\n"));
    free(text);
}

/* Eleven pictures a little better, one black: a typical value would hide it. */
static void test_pool__lets_no_better_pairs_hide_one_that_breaks_out(void **state)
{
    double a[12], b[12];

    (void)state;
    for (int i = 0; i < 12; i++) {
        a[i] = 0.01 + 0.001 * i;
        b[i] = a[i] - 1e-4;
    }
    b[5] = 0.041; /* the worst of a is 0.021 */
    add_seeds(add_run_by(NULL, "m", "native"), "image_rel_l2", 12, a, b);
    assert_verdict("fp16", "bf16", "image_rel_l2", "better", "11 better, 1 worse");
    b[5] = 0.043;
    add_seeds(add_run_by(NULL, "m", "native"), "image_rel_l2", 12, a, b);
    assert_verdict("fp16", "bf16", "image_rel_l2", "worse",
                   "n=12: 11 better, 1 worse, at worst beyond 2 times A's");
}

static void test_pool__does_not_overlook_one_that_is_not_a_number(void **state)
{
    (void)state;
    add_seeds(add_run(NULL), "latent_rel_l2", 3, (double[]){1, 2, 4}, (double[]){2, NAN, 9});
    assert_verdict("fp16", "bf16", "latent_rel_l2", "incomparable",
                   "not a number against a number, n=3");
    json_t *all = compare_json("fp16", "bf16");
    assert_null(strstr(word(judged(all, 0, "latent_rel_l2"), "because"), "worse"));
    json_decref(all);
    assert_int_equal(gate("fp16", "bf16"), 4);
}

static void test_pool__marks_the_same_bits(void **state)
{
    (void)state;
    const int64_t run = add_run(NULL);
    static const char *const bits[][2] = {{"abc", "abc"}, {"def", "def"}, {"ghi", "jkl"}};
    char settings[40];

    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 2; k++) {
            snprintf(settings, sizeof settings, "c=%s inputs.seed=%d", k ? "b" : "a", i);
            add_cell(run, &(cell_spec){.settings = settings,
                                       .bits = bits[i][k],
                                       .metrics = {metric("latent_rel_l2", 1)}});
            if (i == 1 && k == 1) {
                assert_verdict("c=a", "c=b", "latent_rel_l2", "same", "same bits, n=2");
                char *text = compare_text("c=a", "c=b", MP_TEXT);
                assert_non_null(strstr(text, "  =  same     same bits, n=2\n"));
                assert_non_null(strstr(text, "\n= same bits\n"));
                free(text);
            }
        }
    json_t *all = compare_json("c=a", "c=b"); /* the third pair has other bits and the same drift */
    assert_string_equal(word(judged(all, 0, "latent_rel_l2"), "verdict"), "same");
    assert_true(json_is_false(json_object_get(judged(all, 0, "latent_rel_l2"), "same_bits")));
    json_decref(all);
}

static void test_pool__mixes_no_machines_and_nothing_but_prompts_and_seeds(void **state)
{
    (void)state;
    const int64_t here = add_run_by("a", "here", "native"),
                  there = add_run_by("a", "there", "native");

    add_drift(here, "precision.default=fp16 inputs.seed=1", 1);
    add_drift(here, "precision.default=bf16 inputs.seed=1", 2);
    add_drift(there, "precision.default=fp16 inputs.seed=2", 1);
    add_drift(there, "precision.default=bf16 inputs.seed=2", 2);
    json_t *all = compare_json("fp16", "bf16");
    assert_int_equal(pair_count(all), 2);
    assert_string_equal(word(json_array_get(json_object_get(all, "pairs"), 0), "cell"),
                        "machine=here");
    json_decref(all);
    add_drift(there, "precision.default=fp16 inputs.prompt=x inputs.negative_prompt=y", 1);
    add_drift(there, "precision.default=bf16 inputs.prompt=x inputs.negative_prompt=y", 2);
    add_drift(there, "precision.default=fp16 inputs.seed=2 inputs.steps=4", 1);
    add_drift(there, "precision.default=bf16 inputs.seed=2 inputs.steps=4", 2);
    all = compare_json("fp16", "bf16");
    assert_int_equal(pair_count(all), 3);
    json_decref(all);
}

static void test_pool__mixes_no_builds(void **state)
{
    (void)state;
    static const char *const commits[] = {"aaaa", "bbbb"};
    char settings[80];

    for (int i = 0; i < 2; i++) {
        const int64_t run =
            add_run_that_told(NULL, "m", "native", (mp_pair){"git_commit", commits[i]});
        for (int k = 0; k < 2; k++) {
            snprintf(settings, sizeof settings, "precision.default=%s inputs.seed=%d",
                     k ? "bf16" : "fp16", i);
            add_drift(run, settings, 1 + k);
        }
    }
    json_t *all = compare_json("fp16", "bf16");
    const json_t *pairs = json_object_get(all, "pairs");
    assert_int_equal(pair_count(all), 2);
    assert_string_equal(word(json_array_get(pairs, 0), "cell"), "run=1:1");
    assert_string_equal(word(json_array_get(pairs, 1), "cell"), "run=2:2");
    json_decref(all);
}

static void test_pool__counts_how_its_cells_ended(void **state)
{
    (void)state;
    const int64_t run = add_run(NULL);
    static const char *const endings[][2] = {
        {"ok", "ok"}, {"ok", "crash"}, {"oom", "ok"}, {"error", "error"}};
    char settings[40];

    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 2; k++) {
            snprintf(settings, sizeof settings, "c=%s inputs.seed=%d", k ? "b" : "a", i);
            add_cell(run, &(cell_spec){.settings = settings,
                                       .status = endings[i][k],
                                       .error = strcmp(endings[i][k], "ok") ? endings[i][k] : NULL,
                                       .metrics = {metric("latent_rel_l2", 1 + k)}});
        }
    char *text = compare_text("c=a", "c=b", MP_TEXT);
    assert_non_null(strstr(text, "2 ok, 1 oom, 1 error"));
    assert_non_null(strstr(text, "2 ok, 1 crash, 1 error"));
    assert_non_null(strstr(text, "!*  B newly fails in 1, is fixed in 1  crash\n"));
    assert_non_null(strstr(text, "(B against A: 1 better, 2 worse, 0 the same")); /* and drift */
    assert_non_null(strstr(text, "1 newly failing, 1 fixed)"));
    free(text);
    json_t *all = compare_json("c=a", "c=b");
    assert_string_equal(word(judged(all, 0, "latent_rel_l2"), "because"),
                        "exact"); /* of one pair */
    json_decref(all);
}

/* Rounds of two builds in turns: three runs of each label. */
static void test_pool__takes_all_equal_runs_of_a_label(void **state)
{
    (void)state;
    const mp_pair old = {"git_commit", "aaaa"}, new = {"git_commit", "bbbb"};
    double slow[] = {2.0, 2.1}, fast[] = {1.0, 1.1};

    for (int i = 0; i < 3; i++) {
        const int64_t before = add_run_that_told("before", "m", "native", old);
        const int64_t after = add_run_that_told("after", "m", "native", new);
        add_timed(before, "c=1", 2, fast);
        add_timed(after, "c=1", 2, slow);
        slow[0] += 0.01, slow[1] += 0.01, fast[0] += 0.01, fast[1] += 0.01;
    }
    assert_verdict("before", "after", "seconds", "worse", "p=0.0022, n=6+6");
    assert_verdict("before", "6", "seconds", "too few",
                   "n=6+2 (need n>=4)"); /* a run alone is that run */
    assert_verdict("label=before,run=1", "after", "seconds", "too few", "n=2+6");
    json_t *all = compare_json("before", "after");
    const json_t *a = json_object_get(judged(all, 0, "seconds"), "a_values");
    /* the extremes of 6 values: 95 % asks for no less */
    assert_true(json_real_value(json_object_get(a, "low")) == 1.0);
    assert_true(json_real_value(json_object_get(a, "high")) == 1.1 + 0.01 + 0.01);
    const json_t *pair = json_array_get(json_object_get(all, "pairs"), 0);
    const json_t *member = json_array_get(json_object_get(pair, "members"), 0);
    assert_int_equal(json_array_size(json_object_get(member, "a")), 3);
    json_decref(all);
    char *text = compare_text("before", "after", MP_TEXT);
    assert_non_null(strstr(text, "\nA: time and memory of 3 equal runs are pooled\n"));
    assert_non_null(strstr(text, "B  after     native  cpu     m        bbbb     6\n"));
    assert_non_null(strstr(text, "± "));
    free(text);
    add_timed(add_run_that_told("after", "m", "native", (mp_pair){"git_commit", "cccc"}), "c=1", 2,
              slow); /* another build under the same label: only the newest counts */
    assert_verdict("before", "after", "seconds", "too few", "n=6+2 (need n>=4)");
}

static void test_pool__does_not_hide_a_round_that_failed(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        const cell_spec spec = {.settings = "c=1",
                                .status = i == 2 ? "crash" : NULL,
                                .samples = {1},
                                .sample_count = 1,
                                .metrics = {metric("latent_rel_l2", i), metric("seconds", 1)}};
        add_drift(add_run("before"), "c=1", 1);
        add_cell(add_run("after"), &spec);
    }
    char *text = compare_text("before", "after", MP_TEXT);
    assert_non_null(strstr(text, "2 ok, 1 crash"));
    assert_non_null(strstr(text, "!  B newly fails in 1"));
    free(text);
    assert_int_equal(gate("before", "after"), 1);
    assert_verdict("before", "after", "latent_rel_l2", "same",
                   "exact"); /* of the newest good one */
    json_t *all = compare_json("before", "after");
    const json_t *pair = json_array_get(json_object_get(all, "pairs"), 0);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(pair, "b"), "failed")), 1);
    json_decref(all);
    add_timed(add_run("timed"), "c=1", 1, (double[]){1});
    assert_verdict("after", "timed", "seconds", "too few", "n=2+1"); /* not of the crashed one */
}

static void test_pool__tests_memory_once_there_are_enough_samples(void **state)
{
    (void)state;
    const int64_t run = add_run(NULL);
    static const double a[] = {100, 130, 101, 131}, b[] = {104, 134, 105, 135};
    char settings[40];

    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 2; k++) {
            snprintf(settings, sizeof settings, "c=%s inputs.seed=%d", k ? "b" : "a", i);
            add_cell(run, &(cell_spec){.settings = settings,
                                       .metrics = {metric("peak_mib", k ? b[i] : a[i])}});
            if (i == 2 && k == 1) /* 101 and 105: by the effect, as of a single one */
                assert_verdict("c=a", "c=b", "peak_mib", "worse", "beyond 2 %");
        }
    assert_verdict("c=a", "c=b", "peak_mib", "noise", "n=4+4"); /* the samples overlap */
}

/* Among 40 tests a p of 0.03 is to be expected. */
static void test_compare__controls_false_discoveries_over_all_tests(void **state)
{
    (void)state;
    const int64_t run = add_run(NULL);
    char settings[40];

    add_timed(run, "c=a d=0", 4, (double[]){1.0, 1.1, 1.2, 1.3});
    add_timed(run, "c=b d=0", 4, (double[]){2.0, 2.1, 2.2, 2.3});
    json_t *all = compare_json("c=a", "c=b");
    assert_string_equal(word(judged(all, 0, "seconds"), "because"), "p=0.029, n=4+4");
    json_decref(all);
    for (int i = 1; i < 40; i++) {
        snprintf(settings, sizeof settings, "c=a d=%d", i);
        add_timed(run, settings, 4, (double[]){1.0, 1.1, 1.2, 1.3});
        snprintf(settings, sizeof settings, "c=b d=%d", i);
        add_timed(run, settings, 4, (double[]){1.0, 1.1, 1.2, 1.3});
    }
    all = compare_json("c=a", "c=b");
    const json_t *m = judged(all, 0, "seconds");
    assert_string_equal(word(m, "verdict"), "too few"); /* 8 + 8 could tell: 2 / 12870 * 40 */
    assert_string_equal(word(m, "because"), "p=0.029, q=1, n=4+4 (need n>=7)");
    json_decref(all);
}

/* ---- limits --------------------------------------------------------------------------------- */

static void allow(int64_t cell, const char *name, double limit)
{
    char sql[200];

    snprintf(sql, sizeof sql,
             "INSERT OR REPLACE INTO cell_limit VALUES (%lld, '%s', 'relative', %g)",
             (long long)cell, name, limit);
    sql_run(mp_store_path(store), sql);
}

static void test_judge__lets_a_scenario_say_how_much_worse_it_may_be(void **state)
{
    (void)state;
    const int64_t run = add_run(NULL);
    const cell_spec a = {.settings = "c=a",
                         .metrics = {metric("latent_rel_l2", 100), metric("psnr_db", 50),
                                     metric("peak_mib", 100), metric("image_rel_l2", 0)}};
    const cell_spec b = {.settings = "c=b",
                         .metrics = {metric("latent_rel_l2", 104), metric("psnr_db", 48),
                                     metric("peak_mib", 104), metric("image_rel_l2", 1)}};
    static const char *const metrics[] = {"latent_rel_l2", "psnr_db", "peak_mib", "image_rel_l2"};

    add_cell(run, &a);
    const int64_t id = add_cell(run, &b);
    for (int i = 0; i < 4; i++) {
        allow(id, metrics[i], 0.03);
        assert_verdict("c=a", "c=b", metrics[i], "worse", "");
        allow(id, metrics[i], 0.04);
        assert_verdict("c=a", "c=b", metrics[i], i < 3 ? "same" : "worse", i < 3 ? "4 %" : "exact");
    }
    assert_verdict("c=b", "c=a", "peak_mib", "better", "beyond 2 %"); /* of A's cell: no limit */
    allow(add_cell(run, &(cell_spec){.settings = "c=c", .metrics = {metric("peak_mib", 97)}}),
          "peak_mib", 0.1);
    assert_verdict("c=a", "c=c", "peak_mib", "better", "beyond 2 %"); /* not for the better */
}

static void test_judge__reads_a_database_from_before_there_were_limits(void **state)
{
    (void)state;
    const int64_t run = add_run(NULL);
    char path[512];
    mp_error err = {0};

    add_drift(run, "c=a", 1);
    add_drift(run, "c=b", 2);
    snprintf(path, sizeof path, "%s", mp_store_path(store));
    mp_store_close(store);
    sql_run(path, "DROP TABLE cell_limit; PRAGMA user_version = 4");
    assert_int_equal(mp_store_open(path, MP_STORE_READ, &store, &err), MP_OK);
    assert_verdict("c=a", "c=b", "latent_rel_l2", "worse", "exact");
}

/* ---- several operands ----------------------------------------------------------------------- */

static void add_three(void)
{
    const int64_t run = add_run(NULL);
    static const char *const dtypes[] = {"fp32", "fp16", "bf16"};
    char settings[80];

    for (int i = 0; i < 3; i++)
        for (int steps = 1; steps <= 2; steps++) {
            if (i == 2 && steps == 2)
                continue; /* bf16 has one cell less */
            snprintf(settings, sizeof settings, "precision.default=%s inputs.steps=%d", dtypes[i],
                     steps);
            add_cell(run, &(cell_spec){.settings = settings,
                                       .metrics = {metric("latent_rel_l2", i * 0.01),
                                                   metric("peak_mib", 100 - 30 * (i == 1))}});
        }
}

static void test_compare__holds_several_against_the_first(void **state)
{
    static const char *const more[] = {"bf16"};
    mp_compare_options o = {.a = "fp32", .b = "fp16", .more = more, .more_count = 1};
    int status;

    (void)state;
    add_three();
    char *text = compared(&o, &status);
    assert_non_null(strstr(text,
                           "  inputs.steps  metric           A     B  B/A    verdict   because  "
                           "      C  C/A    verdict  because\n"));
    assert_non_null(strstr(text,
                           "  1             latent_rel_l2    0  0.01    -    B worse   exact    "
                           "   0.02    -    C worse  exact\n"));
    assert_non_null(strstr(text,
                           "  2             latent_rel_l2    0  0.01    -    B worse   exact    "
                           "      -    -    absent   -\n"));
    assert_non_null(strstr(text, "\nleft out: 1 cell of A and 0 of C have no partner"));
    assert_non_null(strstr(text, "\noverall, B against A\n"));
    assert_non_null(strstr(text,
                           "\nverdict: MIXED exit=0 (B, C against A: 2 better, 3 worse, 1 the "
                           "same, "));
    free(text);
    o.fail_on_worse = true;
    o.format = MP_CSV;
    text = compared(&o, &status);
    assert_int_equal(status, 1);
    assert_non_null(
        strstr(text, "sana,inputs.steps=1,latent_rel_l2,0,0.02,,C worse,exact,bf16,1,1"));
    free(text);
    o.format = MP_JSON;
    text = compared(&o, &status);
    json_t *all = json_loads(text, 0, NULL);
    assert_int_equal(pair_count(all), 3);
    assert_int_equal(json_array_size(json_object_get(all, "operands")), 3);
    const json_t *last = json_array_get(json_object_get(all, "pairs"), 1);
    assert_int_equal(json_integer_value(json_object_get(last, "operand")), 2);
    assert_int_equal(json_integer_value(json_object_get(all, "unpaired_a")), 1);
    json_decref(all);
    free(text);
}

/* One value of A stands for B and C only where it is of the same cells. */
static void test_compare__gives_other_cells_of_the_first_a_row_of_their_own(void **state)
{
    static const char *const more[] = {"bf16"};
    const mp_compare_options o = {
        .a = "fp32", .b = "fp16", .more = more, .more_count = 1, .format = MP_CSV};
    const int64_t run = add_run(NULL);
    int status;

    (void)state;
    add_drift(run, "precision.default=fp32 inputs.seed=1", 1);
    add_drift(run, "precision.default=fp32 inputs.seed=2", 3);
    add_drift(run, "precision.default=fp16 inputs.seed=1", 2);
    add_drift(run, "precision.default=fp16 inputs.seed=2", 4);
    add_drift(run, "precision.default=bf16 inputs.seed=1", 5);
    char *text = compared(&o, &status);
    assert_non_null(strstr(text, "\nsana,-,latent_rel_l2,2,3,1.5,B worse,\"exact, n=2: all worse\","
                                 "fp16,2,2,"));
    assert_non_null(strstr(text, "\nsana,-,latent_rel_l2,1,5,5,C worse,exact,bf16,1,1,"));
    free(text);
}

static void test_compare__takes_eight_operands_at_most(void **state)
{
    static const char *const more[] = {"fp16", "fp16", "fp16", "fp16", "fp16", "fp16", "bf16"};
    const mp_compare_options o = {.a = "fp32", .b = "fp16", .more = more, .more_count = 7};
    mp_error err = {0};
    int status;

    (void)state;
    add_three();
    assert_int_equal(mp_compare(store, &o, stderr, &status, &err), MP_EUSAGE);
    assert_non_null(strstr(err.text, "'bf16' is one operand too many: at most 8"));
}

/* ---- --pareto ------------------------------------------------------------------------------- */

static void test_pareto__says_who_is_beaten_in_everything(void **state)
{
    (void)state;
    const int64_t run = add_run(NULL);
    static const struct {
        const char *settings;
        double drift, seconds, mib;
    } rows[] = {{"precision.default=fp32 inputs.steps=1", 1e-3, 4, 200},
                {"precision.default=fp16 inputs.steps=1", 1e-2, 2, 100},
                {"precision.default=bf16 inputs.steps=1", 2e-2, 1.99, 99}, /* 1 % is no advantage */
                {"precision.default=fp8_e4m3 inputs.steps=1", 1e-2, 3, 50}};
    mp_compare_options o = {.a = "fp32", .b = "bf16", .pareto = true};
    int status;

    for (int i = 0; i < 4; i++)
        add_cell(run, &(cell_spec){.settings = rows[i].settings,
                                   .metrics = {metric("latent_rel_l2", rows[i].drift),
                                               metric("seconds", rows[i].seconds),
                                               metric("peak_mib", rows[i].mib)}});
    char *text = compared(&o, &status); /* the other dtypes come by themselves */
    assert_non_null(strstr(text, "  fp32        0.001        -       4       200         0  on the "
                                 "front\n"));
    assert_non_null(strstr(text,
                           "  bf16         0.02        -    1.99        99         0  dominated "
                           "by fp16\n"));
    assert_non_null(strstr(text, "  fp8_e4m3     0.01        -       3        50         0  on the "
                                 "front\n"));
    assert_non_null(strstr(text, "\n  geometric means over the 1 cell that all have\n"));
    assert_null(strstr(text, "\nC  "));
    free(text);
    o.format = MP_JSON;
    text = compared(&o, &status);
    json_t *all = json_loads(text, 0, NULL);
    const json_t *points = json_object_get(json_object_get(all, "pareto"), "points");
    assert_int_equal(json_array_size(points), 4);
    const json_t *by = json_object_get(json_array_get(points, 1), "dominated_by");
    assert_string_equal(json_string_value(json_array_get(by, 0)), "fp16");
    json_decref(all);
    free(text);
}

static void test_pareto__compares_no_time_of_other_machines_and_counts_failures(void **state)
{
    (void)state;
    const int64_t here = add_run_by("x", "here", "native"),
                  there = add_run_by("y", "there", "native");
    const mp_compare_options o = {.a = "x", .b = "y", .pareto = true};
    const cell_spec spec = {.settings = "c=1",
                            .metrics = {metric("latent_rel_l2", 1), metric("seconds", 1)}};
    const cell_spec broken = {.settings = "c=2", .status = "crash"};
    int status;

    add_cell(here, &spec);
    add_cell(there, &spec);
    add_cell(here, &(cell_spec){.settings = "c=2", .metrics = {metric("latent_rel_l2", 1)}});
    add_cell(there, &broken);
    char *text = compared(&o, &status);
    assert_non_null(
        strstr(text, "  x        1        -       -         -         0  on the front\n"));
    assert_non_null(
        strstr(text, "  y        1        -       -         -         1  dominated by x\n"));
    assert_non_null(strstr(text,
                           "over the 1 cell that all have; other machines, so time and memory "
                           "say nothing\n"));
    free(text);
}

/* ---- instruction sets ----------------------------------------------------------------------- */

static void test_compare__marks_pairs_of_different_instruction_sets(void **state)
{
    static const struct {
        const char *label, *machine, *engine, *isa;
    } runs[] = {{"old", "one", "native", "avx2"},
                {"new", "two", "native", "amx"},
                {"again", "three", "native", "amx"},
                {"torch", "two", "diffusers", "avx2"}};
    const cell_spec spec = {.settings = "precision.default=fp16",
                            .metrics = {metric("latent_rel_l2", 0.1)}};

    (void)state;
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++)
        add_cell(add_run_that_told(runs[i].label, runs[i].machine, runs[i].engine,
                                   (mp_pair){"isa", runs[i].isa}),
                 &spec);
    for (size_t i = 1; i < sizeof runs / sizeof *runs; i++) {
        const bool differ = i == 1; /* of the others one is the same, one a worker's */
        json_t *all = compare_json(runs[i - 1].label, runs[i].label);
        const json_t *pair = json_array_get(json_object_get(all, "pairs"), 0);
        char *text = compare_text(runs[i - 1].label, runs[i].label, MP_TEXT);
        assert_int_equal(json_is_true(json_object_get(pair, "isas_differ")), differ);
        assert_string_equal(word(json_object_get(pair, "b"), "isa"), runs[i].isa);
        assert_int_equal(strstr(text, "\nA and B ran with different instruction sets (such as "
                                      "avx2 and amx)") != NULL,
                         differ);
        assert_int_equal(strstr(text, "  other machines, other instruction sets\n") != NULL,
                         differ);
        json_decref(all);
        free(text);
    }
}

/* ---- outcomes and the gate ------------------------------------------------------------------ */

static void add_outcomes(void)
{
    const int64_t before = add_run("before"), after = add_run("after");
    static const struct {
        const char *settings, *before, *after;
    } rows[] = {{"c=1", "ok", "error"}, {"c=2", "crash", "ok"}, {"c=3", "oom", "nonfinite"}};

    for (int i = 0; i < 3; i++) {
        add_cell(before, &(cell_spec){.settings = rows[i].settings,
                                      .status = rows[i].before,
                                      .error = "old error",
                                      .metrics = {metric("latent_rel_l2", 1)}});
        add_cell(after, &(cell_spec){.settings = rows[i].settings,
                                     .status = rows[i].after,
                                     .error = i == 1 ? NULL : "new error",
                                     .metrics = {metric("latent_rel_l2", 2)}});
    }
}

static void test_compare__tells_failing_from_fixed(void **state)
{
    (void)state;
    add_outcomes();
    json_t *all = compare_json("before", "after");
    const json_t *pairs = json_object_get(all, "pairs");
    assert_int_equal(pair_count(all), 3);
    assert_string_equal(word(json_array_get(pairs, 0), "outcome"), "worse");
    assert_string_equal(word(json_array_get(pairs, 1), "outcome"), "better");
    assert_string_equal(word(json_array_get(pairs, 2), "outcome"), "same");
    assert_string_equal(word(json_object_get(json_array_get(pairs, 2), "a"), "status"), "oom");
    assert_string_equal(word(json_object_get(json_array_get(pairs, 0), "b"), "error"), "new error");
    for (size_t i = 0; i < 3; i++) /* what a broken run measured is no quality of it */
        assert_int_equal(json_array_size(json_object_get(json_array_get(pairs, i), "metrics")), 0);
    assert_non_null(strstr(word(all, "verdict"), "MIXED exit=0 (B against A: 1 better, 1 worse"));
    assert_non_null(strstr(word(all, "verdict"), "1 newly failing, 1 fixed)"));
    json_decref(all);

    char *text = compare_text("before", "after", MP_TEXT);
    assert_non_null(
        strstr(text, "  c  metric       A          B  B/A     verdict        because\n"));
    assert_non_null(
        strstr(text, "  1  outcome     ok      error    -  !  B newly fails  new error\n"));
    assert_non_null(
        strstr(text, "  2  outcome  crash         ok    -  *  B is fixed     old error\n"));
    assert_non_null(
        strstr(text, "  3  outcome    oom  nonfinite    -     both fail      new error\n"));
    assert_non_null(strstr(text, "\n1 pair fails on both sides\n"));
    assert_non_null(strstr(text, "\n! newly failing   * fixed\n"));
    free(text);
    assert_int_equal(gate("before", "after"), 1);
}

static void test_compare__gates_on_worse_and_on_what_cannot_be_told(void **state)
{
    (void)state;
    const int64_t run = add_run(NULL);

    add_drift(run, "c=a", 1);
    add_drift(run, "c=b", 2);
    add_timed(run, "c=few", 3, (double[]){1, 1.1, 1.2});
    add_timed(run, "c=fewer", 2, (double[]){1, 1.1});
    add_cell(run, &(cell_spec){.settings = "c=empty"});
    add_cell(run, &(cell_spec){.settings = "c=hollow"});
    assert_int_equal(gate("c=a", "c=b"), 1);
    assert_int_equal(gate("c=b", "c=a"), 0);
    assert_int_equal(gate("c=few", "c=fewer"), 4);
    assert_int_equal(gate("c=empty", "c=hollow"), 4); /* nothing was measured */
    const mp_compare_options open = {.a = "c=a", .b = "c=b"};
    int status = -1;
    char *text = compared(&open, &status);
    assert_int_equal(status, 0);
    assert_non_null(strstr(text, "\nverdict: WORSE exit=0 (B against A: 0 better, 1 worse"));
    free(text);
    const mp_compare_options strict = {.a = "c=a", .b = "c=b", .fail_on_worse = true};
    text = compared(&strict, &status);
    assert_non_null(strstr(text, "\nverdict: REGRESSION exit=1 ("));
    free(text);
    const mp_compare_options few = {.a = "c=few", .b = "c=fewer", .fail_on_worse = true};
    text = compared(&few, &status);
    assert_non_null(strstr(text, "\nverdict: INCONCLUSIVE exit=4 ("));
    free(text);
}

static void test_compare__looks_at_one_metric_alone(void **state)
{
    (void)state;
    const int64_t run = add_run(NULL);
    mp_compare_options o = {
        .a = "c=a", .b = "c=b", .metric = "ssim", .fail_on_worse = true, .format = MP_CSV};
    mp_error err = {0};
    int status = -1;

    add_cell(run, &(cell_spec){.settings = "c=a",
                               .metrics = {metric("latent_rel_l2", 1), metric("ssim", 0.5)}});
    add_cell(run, &(cell_spec){.settings = "c=b",
                               .metrics = {metric("latent_rel_l2", 2), metric("ssim", 0.5)}});
    char *text = compared(&o, &status);
    assert_string_equal(text, "scenario,cell,metric,A,B,B/A,verdict,because,operand,A n,B n,p,q,A "
                              "low,A high,B low,B high,A worst,B worst\r\n"
                              "sana,-,ssim,0.5,0.5,1,same,exact,c=b,1,1,,,,,,,0.5,0.5\r\n");
    assert_int_equal(status, 0);
    free(text);
    o.metric = "sism";
    assert_int_equal(mp_compare(store, &o, stderr, &status, &err), MP_EMISSING);
    assert_non_null(strstr(err.text, "no pair of cells has the metric 'sism'; `mpbench show ID`"));
}

/* A gate on a metric that is misspelt would always be passed. */
static void test_compare__refuses_an_unknown_metric_beside_cells_that_fail(void **state)
{
    (void)state;
    const int64_t run = add_run(NULL);
    mp_compare_options o = {.a = "c=a", .b = "c=b", .metric = "sism", .fail_on_worse = true};
    mp_error err = {0};
    int status = -1;

    add_cell(run, &(cell_spec){.settings = "c=a", .metrics = {metric("ssim", 0.5)}});
    add_cell(run, &(cell_spec){.settings = "c=b", .status = "error"});
    assert_int_equal(mp_compare(store, &o, stderr, &status, &err), MP_EMISSING);
    assert_non_null(strstr(err.text, "no pair of cells has the metric 'sism'; `mpbench show ID`"));
    o.metric = "ssim";
    char *text = compared(&o, &status);
    assert_non_null(strstr(text, "verdict: REGRESSION exit=1"));
    free(text);
}

/* ---- forms ---------------------------------------------------------------------------------- */

static void test_compare__sums_up_by_metric(void **state)
{
    (void)state;
    const int64_t run = add_run(NULL);

    add_drift(run, "precision.default=fp16 inputs.steps=1", 1);
    add_drift(run, "precision.default=bf16 inputs.steps=1", 2);
    add_drift(run, "precision.default=fp16 inputs.steps=2", 1);
    add_drift(run, "precision.default=bf16 inputs.steps=2", 8);
    json_t *all = compare_json("fp16", "bf16");
    const json_t *row = json_array_get(json_object_get(all, "overall"), 0);
    assert_string_equal(word(row, "metric"), "latent_rel_l2");
    /* sqrt(2 * 8); exp and log are good to an ulp each */
    assert_true(fabs(json_real_value(json_object_get(row, "geometric_mean_ratio")) - 4) < 1e-14);
    assert_int_equal(json_integer_value(json_object_get(row, "worse")), 2);
    json_decref(all);
    char *text = compare_text("fp16", "bf16", MP_MARKDOWN);
    assert_non_null(strstr(text, "\n\n### sana\n\n| inputs.steps | metric | A | B | B/A |"));
    assert_non_null(strstr(text, "| 1 | latent\\_rel\\_l2 | 1 | 2 | 2 |  | B worse | exact |"));
    assert_non_null(strstr(text, "\n### overall\n\n| metric | pairs | B/A, geometric mean |"));
    assert_non_null(strstr(text, "| latent\\_rel\\_l2 | 2 | 4 | 0 | 2 | 0 | 0 | 0 |"));
    free(text);
}

static void test_compare__escapes_hostile_text(void **state)
{
    (void)state;
    static const char *const hostile = "\x1b[2J|<b>\n\xff\xe2\x80\xae";
    const int64_t a = add_run(hostile), b = add_run("plain");
    const cell_spec spec = {
        .scenario = hostile, .settings = "c=1", .status = "error", .error = hostile};
    json_t *all;
    char *text;

    add_cell(a, &spec);
    add_cell(b, &spec);
    static const mp_format formats[] = {MP_TEXT, MP_MARKDOWN, MP_CSV, MP_JSON};
    for (int i = 0; i < 4; i++) {
        text = compare_text(hostile, "plain", formats[i]);
        assert_null(strchr(text, '\x1b'));
        assert_null(strchr(text, '\xff'));
        assert_null(strstr(text, "\xe2\x80\xae"));
        if (formats[i] == MP_MARKDOWN)
            assert_null(strstr(text, "|<b>"));
        free(text);
    }
    all = compare_json(hostile, "plain");
    assert_string_equal(word(json_array_get(json_object_get(all, "operands"), 0), "operand"),
                        "\\x1b[2J|<b>\\x0a\\xff\\xe2\\x80\\xae");
    assert_int_equal(pair_count(all), 1);
    json_decref(all);

    const mp_compare_options o = {.a = "nobody", .b = "plain"};
    mp_error err = {0};
    int status;
    assert_int_equal(mp_compare(store, &o, stderr, &status, &err), MP_EMISSING);
    assert_non_null(strstr(err.text, "there is: plain, \\x1b[2J|<b>\\x0a\\xff\\xe2\\x80\\xae"));
}

/* A key that becomes the head of a column, a pooled value, a metric. */
static void test_compare__escapes_hostile_keys_and_values(void **state)
{
    (void)state;
    static const char *const settings[] = {"c=%s \x1b[2J|<b>=1 inputs.prompt=\x1b[31m",
                                           "c=%s \x1b[2J|<b>=1 inputs.prompt=\xe2\x80\xae",
                                           "c=%s \x1b[2J|<b>=\x1b[0m inputs.prompt=x"};
    static const mp_format formats[] = {MP_TEXT, MP_MARKDOWN, MP_CSV, MP_JSON};
    const int64_t run =
        add_run_that_told("\x1b]0;x\x07", "\x1b[1m", "native", (mp_pair){"git_commit", "\x1b[5m"});
    char text[120];

    for (int i = 0; i < 6; i++) {
        snprintf(text, sizeof text, settings[i / 2], i % 2 ? "a" : "b");
        add_cell(run, &(cell_spec){.settings = text, .metrics = {metric("\x1b[2J|<b>", i)}});
    }
    for (int i = 0; i < 4; i++) {
        const mp_compare_options o = {.a = "c=a", .b = "c=b", .pareto = true, .format = formats[i]};
        int status;
        char *out = compared(&o, &status);
        assert_null(strchr(out, '\x1b'));
        assert_null(strchr(out, '\x07'));
        assert_null(strstr(out, "\xe2\x80\xae"));
        if (formats[i] == MP_MARKDOWN)
            assert_null(strstr(out, "|<b>"));
        if (formats[i] == MP_TEXT)
            assert_non_null(
                strstr(out, "\n  pooled over inputs.prompt: \\x1b[31m, \\xe2\\x80\\xae\n"));
        free(out);
    }
}

/* ---- size and memory ------------------------------------------------------------------------ */

/* Pairs of one scenario that differ in the key, in one transaction: SQL makes it, since 20,000
 * commits take long. */
static void fill(const char *key, int pairs, bool paired)
{
    char sql[2000];

    add_run("many");
    snprintf(
        sql, sizeof sql,
        "BEGIN; WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < %d) "
        "INSERT INTO cell (id, run, key, scenario, scenario_hash, pipeline, checkpoint, "
        "checkpoint_hash, repro, started, status) SELECT i + 1, 1, 'many/' || i, 'many', i, "
        "'sana', 't', 'c', 'r', 'now', 'ok' FROM n;"
        "INSERT INTO cell_setting SELECT id, 'precision.default', iif(id %% 2, 'fp16', 'bf16') "
        "FROM cell;"
        "INSERT INTO cell_setting SELECT id, '%s', %s FROM cell;"
        "WITH RECURSIVE k(j) AS (SELECT 1 UNION ALL SELECT j + 1 FROM k WHERE j < 18) "
        "INSERT INTO cell_setting SELECT id, 'setting.' || j, 'value ' || j FROM cell, k;"
        "INSERT INTO metric SELECT id, 'latent_rel_l2', 'run', -1, '', id * 1e-6, NULL, '1' FROM "
        "cell; COMMIT",
        2 * pairs, key, paired ? "(id - 1) / 2" : "id");
    sql_run(mp_store_path(store), sql);
}

static void test_compare__takes_twenty_thousand_cells(void **state)
{
    (void)state;
    fill("inputs.steps", 10000, true);
    json_t *all = compare_json("fp16", "bf16");
    assert_int_equal(pair_count(all), 10000);
    json_decref(all);
    char *text = compare_text("fp16", "bf16", MP_TEXT);
    assert_non_null(strstr(text, "10000 worse"));
    free(text);
}

static void test_compare__pools_twenty_thousand_cells(void **state)
{
    (void)state;
    fill("inputs.seed", 10000, true);
    json_t *all = compare_json("fp16", "bf16");
    assert_int_equal(pair_count(all), 1);
    assert_string_equal(word(judged(all, 0, "latent_rel_l2"), "because"),
                        "exact, n=10000: all worse");
    const json_t *pair = json_array_get(json_object_get(all, "pairs"), 0);
    assert_int_equal(json_array_size(json_object_get(pair, "members")), 10000);
    json_decref(all);
}

static void test_select__leaves_twenty_thousand_cells_alone(void **state)
{
    (void)state;
    fill("inputs.seed", 10000, false);
    refuses("fp16", "bf16", MP_EMISSING, "differ also in inputs.seed");
    sql_run(mp_store_path(store),
            "UPDATE cell_setting SET value = '1' WHERE key = 'inputs.seed' AND cell = 2");
    json_t *all = compare_json("fp16", "bf16");
    assert_int_equal(pair_count(all), 1);
    assert_int_equal(json_integer_value(json_object_get(all, "unpaired_a")), 9999);
    json_decref(all);
}

/* With the n-th request for memory refused; 0: none.  NULL: it was said, as an error. */
static char *compared_without(const mp_compare_options *o, uint64_t n)
{
    mp_error err = {0};
    char *text = NULL;
    size_t size;
    int status;
    FILE *f = open_memstream(&text, &size);

    assert_non_null(f);
    mp_memory_fail_at(n);
    mp_compare(store, o, f, &status, &err);
    mp_memory_fail_at(0);
    assert_int_equal(fclose(f), 0);
    if (!err.code)
        return text;
    assert_int_equal(err.code, MP_ENOMEM);
    free(text);
    return NULL;
}

/* Refuses each request in turn: the comparison then fails, says which samples could not be ranked
 * or which table is missing, or lacks no more than an interval.  How often it failed. */
static int fail_each(const mp_compare_options *o)
{
    const uint64_t before = mp_memory_requests();
    char *whole = compared_without(o, 0);
    const uint64_t requests = mp_memory_requests() - before;
    const char *verdict = strstr(whole, " exit="); /* and all the counts, to the end */
    int failures = 0;

    assert_non_null(verdict);
    for (uint64_t n = 1; n <= requests; n++) {
        char *text = compared_without(o, n);
        failures += !text;
        if (text && !strstr(text, "the samples cannot be ranked") && !strstr(text, "(no memory") &&
            !strstr(text, verdict))
            fail_msg("request %llu of memory is refused, and nothing is said: %s",
                     (unsigned long long)n, text);
        free(text);
    }
    free(whole);
    return failures;
}

static void test_compare__reports_each_failed_allocation(void **state)
{
    (void)state;
    const int64_t before = add_run("before"), after = add_run("after");
    static const double fp16[] = {1, 2, 3, 4, 5, 6, 7}, bf16[] = {2, 3, 4, 5, 6, 7, 6.5};
    static const char *const more[] = {"label=after,c=1"};
    mp_compare_options o = {.a = "before", .b = "after", .format = MP_JSON};
    int failures;

    for (int i = 0; i < 3; i++) {
        char settings[32];
        snprintf(settings, sizeof settings, "c=%d d=1", i);
        add_timed(before, settings, 6, (double[]){1.0, 1.1, 1.2, 1.3, 1.4, 1.5});
        add_timed(after, settings, 6, (double[]){2.0, 2.1, 2.2, 2.3, 2.4, 2.5});
    }
    add_seeds(before, "latent_rel_l2", 7, fp16, bf16);
    failures = fail_each(&o);
    assert_true(failures > 50);
    o = (mp_compare_options){.a = "before", .b = "after", .more = more, .more_count = 1};
    failures = fail_each(&o);
    assert_true(failures > 50);
    o = (mp_compare_options){.a = "fp16", .b = "bf16", .pareto = true, .format = MP_MARKDOWN};
    failures = fail_each(&o);
    assert_true(failures > 50);
}

#define WITH_STORE(test) cmocka_unit_test_setup_teardown(test, make_store, drop_store)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_STORE(test_select__takes_dtypes_under_any_name),
        WITH_STORE(test_select__takes_labels_runs_and_uuids),
        WITH_STORE(test_select__takes_lists_with_commas_in_brackets),
        WITH_STORE(test_select__pairs_no_component_with_a_component),
        WITH_STORE(test_select__pairs_what_differs_in_nothing_else),
        WITH_STORE(test_select__prefers_what_one_side_alone_asks_for),
        WITH_STORE(test_select__mixes_no_engines_and_no_checkpoints),
        WITH_STORE(test_select__takes_the_newest_of_several),
        WITH_STORE(test_select__goes_by_the_start_of_runs_not_by_ids),
        WITH_STORE(test_select__compares_scenarios),
        WITH_STORE(test_select__says_what_there_is),
        WITH_STORE(test_select__refuses_more_conditions_than_it_holds),
        WITH_STORE(test_judge__takes_any_drift_for_exact),
        WITH_STORE(test_judge__gives_other_code_a_margin),
        WITH_STORE(test_judge__gives_another_instruction_set_the_margin),
        WITH_STORE(test_judge__lets_two_right_fp32_runs_differ),
        WITH_STORE(test_judge__minds_no_seam_that_nobody_sees),
        WITH_STORE(test_judge__knows_nan_and_infinity),
        WITH_STORE(test_judge__ignores_what_lies_in_the_references_own_noise),
        WITH_STORE(test_judge__says_that_references_differ),
        WITH_STORE(test_judge__tests_time_by_ranks),
        WITH_STORE(test_judge__says_how_many_samples_are_needed),
        WITH_STORE(test_judge__leaves_warm_ups_out),
        WITH_STORE(test_judge__gives_memory_two_percent_or_a_mebibyte),
        WITH_STORE(test_judge__gives_instructions_two_percent),
        WITH_STORE(test_judge__takes_exact_counts_at_their_word_on_any_machine),
        WITH_STORE(test_judge__counts_casts_and_does_not_judge_their_one_time),
        WITH_STORE(test_judge__compares_no_time_of_other_machines),
        WITH_STORE(test_compare__tells_failing_from_fixed),
        WITH_STORE(test_compare__gates_on_worse_and_on_what_cannot_be_told),
        WITH_STORE(test_compare__looks_at_one_metric_alone),
        WITH_STORE(test_compare__refuses_an_unknown_metric_beside_cells_that_fail),
        WITH_STORE(test_compare__sums_up_by_metric),
        WITH_STORE(test_pool__takes_what_all_pairs_say_without_statistics),
        WITH_STORE(test_pool__takes_pairs_without_a_difference_for_neither),
        WITH_STORE(test_pool__says_how_many_pairs_would_settle_it),
        WITH_STORE(test_pool__tests_pairs_that_disagree_by_signed_ranks),
        WITH_STORE(test_pool__lets_no_better_pairs_hide_one_that_breaks_out),
        WITH_STORE(test_pool__does_not_overlook_one_that_is_not_a_number),
        WITH_STORE(test_pool__marks_the_same_bits),
        WITH_STORE(test_pool__mixes_no_machines_and_nothing_but_prompts_and_seeds),
        WITH_STORE(test_pool__counts_how_its_cells_ended),
        WITH_STORE(test_pool__takes_all_equal_runs_of_a_label),
        WITH_STORE(test_pool__does_not_hide_a_round_that_failed),
        WITH_STORE(test_pool__tests_memory_once_there_are_enough_samples),
        WITH_STORE(test_compare__controls_false_discoveries_over_all_tests),
        WITH_STORE(test_judge__lets_a_scenario_say_how_much_worse_it_may_be),
        WITH_STORE(test_judge__reads_a_database_from_before_there_were_limits),
        WITH_STORE(test_compare__holds_several_against_the_first),
        WITH_STORE(test_pool__mixes_no_builds),
        WITH_STORE(test_compare__gives_other_cells_of_the_first_a_row_of_their_own),
        WITH_STORE(test_compare__takes_eight_operands_at_most),
        WITH_STORE(test_pareto__says_who_is_beaten_in_everything),
        WITH_STORE(test_pareto__compares_no_time_of_other_machines_and_counts_failures),
        WITH_STORE(test_compare__marks_pairs_of_different_instruction_sets),
        WITH_STORE(test_compare__escapes_hostile_text),
        WITH_STORE(test_compare__escapes_hostile_keys_and_values),
        WITH_STORE(test_compare__takes_twenty_thousand_cells),
        WITH_STORE(test_compare__pools_twenty_thousand_cells),
        WITH_STORE(test_select__leaves_twenty_thousand_cells_alone),
        WITH_STORE(test_compare__reports_each_failed_allocation),
    };

    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
