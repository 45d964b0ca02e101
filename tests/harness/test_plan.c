/* From files to cells: the matrix, --set and --only, ids, folders and repro lines. */
#include "tests/pipelines/scratch.h"

#include <sys/stat.h>

#include "harness/plan.h"
#include "tests/harness/shell_words.h"

static mp_arena *arena;

static int setup(void **state)
{
    arena = mp_arena_create();
    setenv("MPBENCH_CHECKPOINTS", MP_FIXTURES "/checkpoints", 1);
    return scratch_setup(state);
}

static int teardown(void **state)
{
    mp_arena_free(arena);
    return scratch_teardown(state);
}

/* ---- making plans --------------------------------------------------------------------------- */

typedef const char *const *words;
#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define NO_WORDS   ((const char *const[]){NULL})

static mp_words list_of(words w)
{
    mp_words out = {0};

    while (w[out.count])
        out.count++;
    out.items = mp_arena_alloc(arena, (size_t)out.count + 1, sizeof *out.items);
    for (int i = 0; i < out.count; i++)
        out.items[i] = w[i];
    return out;
}

static mp_code pipeline_check(const mp_scenario *s, mp_error *err)
{
    return s->pipeline->check(&s->request, err);
}

static mp_code try_plan(words paths, words set, words only, mp_plan *out, mp_error *err)
{
    const mp_plan_options o = {.check = pipeline_check,
                               .engine_flags = "",
                               .paths = list_of(paths),
                               .set = list_of(set),
                               .only = list_of(only),
                               .repeat = -1,
                               .warmup = -1};

    *err = (mp_error){0};
    return mp_plan_make(arena, &o, out, err);
}

static mp_plan plan_of(words paths, words set, words only)
{
    mp_plan plan;
    mp_error err;

    try_plan(paths, set, only, &plan, &err);
    assert_ok(&err);
    return plan;
}

static void refused(words paths, words set, words only, words parts)
{
    mp_plan plan;
    mp_error err;

    try_plan(paths, set, only, &plan, &err);
    assert_failure(&err, MP_EUSAGE, parts);
}

/* Small pictures, or the fixture's pipeline refuses them. */
static const char *text_of(const char *name, const char *lines)
{
    return mp_arena_printf(arena,
                           "name: %s\npipeline: sana\n"
                           "checkpoint: ${MPBENCH_CHECKPOINTS}/sana-tiny\n"
                           "inputs: {prompt: a red fox, height: 64, width: 64, steps: 6, "
                           "use_resolution_binning: false}\n%s\n",
                           name, lines);
}

static const char *file(const char *lines)
{
    return mp_arena_strdup(arena, scratch_text("x.yaml", text_of("t", lines)));
}

/* The cells' ids, one a line. */
static void cells(const mp_plan *p, const char *ids)
{
    mp_text t = {0};

    for (int i = 0; i < p->count; i++)
        mp_text_printf(&t, "%s\n", p->cells[i].id);
    if (strcmp(t.data ? t.data : "", ids))
        fail_msg("the cells are\n%sexpected\n%s", t.data, ids);
    mp_text_free(&t);
}

static void gives(const char *lines, words set, words only, const char *ids)
{
    const mp_plan p = plan_of(WORDS(file(lines)), set, only);

    cells(&p, ids);
}

static const char *setting(const mp_plan *p, int i, const char *key)
{
    return mp_scenario_setting(&p->cells[i].scenario, key);
}

/* ---- the matrix ----------------------------------------------------------------------------- */

#define DTYPES "  precision.default: [fp16, bf16]\n"
#define TILES  "  tiling: [off, {tile: [32, 32], stride: [28, 28]}]\n"

static void test_matrix__without_one_there_is_one_cell(void **state)
{
    const mp_plan p = plan_of(WORDS(file("")), NO_WORDS, NO_WORDS);

    (void)state;
    cells(&p, "default\n");
    assert_string_equal(p.cells[0].key, "t/default");
    assert_string_equal(p.cells[0].folder, "default");
    gives("matrix:", NO_WORDS, NO_WORDS, "default\n");
    gives("matrix: {}", NO_WORDS, NO_WORDS, "default\n");
    gives("matrix: {include: [], exclude: }", NO_WORDS, NO_WORDS, "default\n");
}

static void test_matrix__the_last_axis_runs_fastest(void **state)
{
    (void)state;
    gives("matrix:\n" DTYPES TILES "  inputs.seed: [7, 8]\n", NO_WORDS, NO_WORDS,
          "precision.default=fp16,tiling=off,inputs.seed=7\n"
          "precision.default=fp16,tiling=off,inputs.seed=8\n"
          "precision.default=fp16,tiling=32x32+28x28,inputs.seed=7\n"
          "precision.default=fp16,tiling=32x32+28x28,inputs.seed=8\n"
          "precision.default=bf16,tiling=off,inputs.seed=7\n"
          "precision.default=bf16,tiling=off,inputs.seed=8\n"
          "precision.default=bf16,tiling=32x32+28x28,inputs.seed=7\n"
          "precision.default=bf16,tiling=32x32+28x28,inputs.seed=8\n");
}

static void test_matrix__has_policies_as_an_axis(void **state)
{
    static const char axis[] = "matrix:\n  precision.policy: [strict, negotiate, fallback]\n";
    const mp_plan p = plan_of(WORDS(file(axis)), NO_WORDS, NO_WORDS);

    (void)state;
    cells(&p, "precision.policy=strict\nprecision.policy=negotiate\nprecision.policy=fallback\n");
    assert_int_equal(p.cells[2].scenario.request.precision.policy, MP_FALLBACK);
    assert_non_null(strstr(p.cells[1].repro, " --only precision.policy=negotiate"));
    gives(axis, NO_WORDS, WORDS("precision.policy=fallback"), "precision.policy=fallback\n");
    gives(axis, WORDS("precision.policy=negotiate"), NO_WORDS, "default\n");
    gives("", NO_WORDS, WORDS("precision.policy=strict"), "default\n"); /* the default */
}

static void test_matrix__values_replace_those_of_the_file(void **state)
{
    const mp_plan p = plan_of(
        WORDS(file("precision: {default: fp32, components: {vae: fp32}}\nmatrix:\n" DTYPES)),
        NO_WORDS, NO_WORDS);

    (void)state;
    assert_string_equal(setting(&p, 1, "precision.default"), "bf16");
    assert_string_equal(setting(&p, 1, "precision.components.vae"), "fp32");
}

/* GitHub's own example ("Expanding or adding matrix configurations"): fruit and animal are the
 * axes, color and shape what include adds. */
static void test_matrix__include_is_that_of_github(void **state)
{
    const mp_plan p =
        plan_of(WORDS(file("matrix:\n"
                           "  precision.default: [fp16, bf16]\n" /* fruit: [apple, pear] */
                           "  inputs.seed: [1, 2]\n"             /* animal: [cat, dog] */
                           "  include:\n"
                           "    - inputs.steps: 11\n" /* color: green */
                           "    - inputs.steps: 12\n" /* color: pink, animal: cat */
                           "      inputs.seed: 1\n"
                           "    - precision.default: fp16\n" /* fruit: apple, shape: circle */
                           "      inputs.guidance: 1\n"
                           "    - precision.default: fp8_e4m3\n" /* fruit: banana */
                           "    - precision.default: fp8_e4m3\n" /* fruit: banana, animal: cat */
                           "      inputs.seed: 1\n")),
                NO_WORDS, NO_WORDS);

    (void)state;
    cells(&p, "precision.default=fp16,inputs.seed=1,inputs.steps=12,inputs.guidance=1\n"
              "precision.default=fp16,inputs.seed=2,inputs.steps=11,inputs.guidance=1\n"
              "precision.default=bf16,inputs.seed=1,inputs.steps=12\n"
              "precision.default=bf16,inputs.seed=2,inputs.steps=11\n"
              "precision.default=fp8_e4m3\n"
              "precision.default=fp8_e4m3,inputs.seed=1\n");
}

static void test_matrix__include_alone_gives_each_entry_a_cell(void **state)
{
    (void)state;
    gives("matrix:\n  include:\n    - {inputs.seed: 1}\n    - {inputs.seed: 2, tiling: off}\n",
          NO_WORDS, NO_WORDS, "inputs.seed=1\ninputs.seed=2,tiling=off\n");
}

static void test_matrix__include_compares_values_not_their_spelling(void **state)
{
    (void)state;
    gives("matrix:\n" DTYPES "  inputs.steps: [3, 4]\n  include:\n"
          "    - {precision.default: \"bf16\", inputs.num_inference_steps: 4.0, inputs.seed: 9}\n",
          NO_WORDS, NO_WORDS,
          "precision.default=fp16,inputs.steps=3\nprecision.default=fp16,inputs.steps=4\n"
          "precision.default=bf16,inputs.steps=3\n"
          "precision.default=bf16,inputs.steps=4,inputs.seed=9\n");
}

static void test_matrix__exclude_drops_what_matches_all_of_an_entry(void **state)
{
    (void)state;
    gives("matrix:\n" DTYPES TILES "  exclude:\n    - {precision.default: bf16, tiling: off}\n",
          NO_WORDS, NO_WORDS,
          "precision.default=fp16,tiling=off\nprecision.default=fp16,tiling=32x32+28x28\n"
          "precision.default=bf16,tiling=32x32+28x28\n");
    gives("matrix:\n" DTYPES TILES "  exclude:\n    - tiling: 32x32+28x28\n"
          "    - precision.default: torch.float16\n",
          NO_WORDS, NO_WORDS, "precision.default=bf16,tiling=off\n");
}

static void test_matrix__include_comes_after_exclude(void **state)
{
    (void)state;
    gives("matrix:\n" DTYPES TILES "  exclude:\n    - precision.default: bf16\n  include:\n"
          "    - {precision.default: bf16, tiling: off, inputs.seed: 3}\n",
          NO_WORDS, NO_WORDS,
          "precision.default=fp16,tiling=off\nprecision.default=fp16,tiling=32x32+28x28\n"
          "precision.default=bf16,tiling=off,inputs.seed=3\n");
    gives("matrix:\n" DTYPES "  exclude: [{precision.default: fp16}, {precision.default: bf16}]\n"
          "  include: [{precision.default: bf16}]\n",
          NO_WORDS, NO_WORDS, "precision.default=bf16\n");
}

static void test_matrix__exclude_works_where_include_completes_the_scenario(void **state)
{
    const char *text = "name: t\npipeline: sana\ncheckpoint: ${MPBENCH_CHECKPOINTS}/sana-tiny\n"
                       "inputs: {height: 64, width: 64, use_resolution_binning: false}\n"
                       "matrix:\n  precision.default: [fp16, bf16]\n"
                       "  exclude: [{precision.default: fp16}]\n"
                       "  include: [{inputs.prompt: an owl}]\n";
    const mp_plan p = plan_of(WORDS(scratch_text("y.yaml", text)), NO_WORDS, NO_WORDS);

    (void)state;
    cells(&p, "precision.default=bf16,inputs.prompt=an owl\n");
}

static void test_matrix__budgets_may_come_from_include_and_are_no_part_of_an_id(void **state)
{
    const mp_plan p = plan_of(WORDS(file("matrix:\n" DTYPES "  include:\n"
                                         "    - {precision.default: bf16, budgets.seconds: 3, "
                                         "repeat: 4}\n")),
                              NO_WORDS, NO_WORDS);

    (void)state;
    cells(&p, "precision.default=fp16\nprecision.default=bf16\n");
    assert_int_equal(p.cells[0].scenario.budget_count, 0);
    assert_int_equal(p.cells[1].scenario.budget_count, 1);
    assert_int_equal(p.cells[1].scenario.repeat, 4);
    assert_null(strstr(p.cells[1].repro, "seconds"));
    assert_null(strstr(p.cells[1].repro, "repeat"));
}

static void test_matrix__two_spellings_of_one_cell_are_one(void **state)
{
    (void)state;
    gives("matrix:\n  precision.default: [fp16, half, torch.float16, bf16]\n", NO_WORDS, NO_WORDS,
          "precision.default=fp16\nprecision.default=bf16\n");
    gives("matrix:\n  tiling: [off, none, 32x32+28x28, {tile: [32, 32], stride: [28, 28]}]\n",
          NO_WORDS, NO_WORDS, "tiling=off\ntiling=32x32+28x28\n");
    gives("matrix:\n" DTYPES "  include: [{precision.default: float16, tiling: off}]\n", NO_WORDS,
          NO_WORDS, "precision.default=fp16\nprecision.default=bf16\n");
}

static void test_matrix__what_is_no_matrix_is_refused(void **state)
{
    static const struct {
        const char *lines, *message;
    } cases[] = {
        {"matrix: [a]",
         ":5:1: matrix: found a list of 1, expected a map from dotted keys to lists"},
        {"matrix: {tiling: off}", ":5:10: matrix.tiling: found \"off\", expected a list of values"},
        {"matrix: {tiling: []}",
         ":5:10: matrix.tiling: found a list of 0, expected a list of values"},
        {"matrix: {precison.default: [fp16]}",
         ":5:10: unknown key 'precison'; did you mean 'precision'?"},
        {"matrix: {precision.defalt: [fp16]}",
         ":5:10: unknown key 'defalt' in precision; did you mean 'default'?"},
        {"matrix: {name: [a, b]}", ":5:10: the key 'name' cannot vary from cell to cell"},
        {"matrix: {expect: [[]]}", ":5:10: the key 'expect' cannot vary from cell to cell"},
        {"matrix: {matrix: [{}]}", ":5:10: the key 'matrix' cannot vary from cell to cell"},
        {"matrix: {repeat: [1, 2]}",
         ":5:10: matrix.repeat: this key changes nothing in what is computed"},
        {"matrix: {budgets.seconds: [1]}",
         ":5:10: matrix.budgets.seconds: this key changes nothing in what is computed"},
        {"matrix: {include: {tiling: off}}",
         ":5:10: matrix.include: found a map, expected a list of maps"},
        {"matrix: {include: [off]}",
         ":5:20: matrix.include: found \"off\", expected a map of dotted keys"},
        {"matrix: {exclude: [{}]}", ":5:20: matrix.exclude: found a map, expected a map of dotted "
                                    "keys"},
        {"matrix: {exclude: [{tilling: off}]}", ":5:21: unknown key 'tilling'"},
        {"matrix: {exclude: [{repeat: 1}]}", ":5:21: the key 'repeat' changes nothing"},
        {"matrix: {include: [{name: x}]}", ":5:21: the key 'name' cannot vary"},
        {"matrix: {precision.default: [fp15]}",
         ":5:30: key 'precision.default': found \"fp15\", expected a dtype"},
        {"matrix: {inputs.steps: [4], inputs.num_inference_steps: [4]}",
         ":5:29: matrix: 'inputs.steps' and 'inputs.steps' (line 5) set the same; keep one"},
        {"matrix:\n  tiling: [off]\n  tiling.tile: [[32, 32]]",
         ":7:3: matrix: 'tiling.tile' and 'tiling' (line 6) set the same; keep one"},
        {"matrix:\n  precision.default: [fp16]\n  include: [{precision: {load: to}}]",
         ":7:14: matrix: 'precision' and 'precision.default' (line 6) set the same; keep one"},
        {"tiling: off\nmatrix: {tiling.tile: [[32, 32]]}",
         ":6:10: matrix.tiling.tile: \"off\" stands in its way at "},
        {"matrix:\n  precision.default: [fp16]\n  exclude: [{precision.default: fp15}]",
         ": key 'precision.default': found \"fp15\", expected a dtype"},
        {"matrix: {precision.default: [fp16], exclude: [{precision.default: fp16}]}",
         "the files have no cells: exclude drops them all"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refused(WORDS(file(cases[i].lines)), NO_WORDS, NO_WORDS, WORDS(cases[i].message));
}

static void test_matrix__a_huge_one_is_refused(void **state)
{
    mp_text t = {0};

    (void)state;
    mp_text_add(&t, "matrix:\n");
    for (int axis = 0; axis < 3; axis++) {
        mp_text_printf(&t, "  inputs.%s: [1",
                       axis == 0   ? "seed"
                       : axis == 1 ? "steps"
                                   : "guidance");
        for (int i = 2; i <= 100; i++)
            mp_text_printf(&t, ", %d", i);
        mp_text_add(&t, "]\n");
    }
    refused(WORDS(file(t.data)), NO_WORDS, NO_WORDS,
            WORDS(":8:3: the matrix has more than 10000 cells; split the file"));
    t.length = 0;
    mp_text_add(&t, "expect: [");
    for (int i = 0; i < 20000; i++)
        mp_text_add(&t, "{status: ok}, ");
    mp_text_add(&t, "]\nmatrix: {inputs.seed: [1");
    for (int i = 2; i <= 1000; i++)
        mp_text_printf(&t, ", %d", i);
    mp_text_add(&t, "]}");
    refused(WORDS(file(t.data)), NO_WORDS, NO_WORDS, WORDS("1000 cells of ", "values each"));
    mp_text_free(&t);
}

/* ---- --only --------------------------------------------------------------------------------- */

#define FOUR "matrix:\n" DTYPES TILES

static void test_only__takes_every_spelling(void **state)
{
    static const char *const spellings[][3] = {
        {"precision.default=bf16", "tiling=off", NULL},
        {"precision.default=bf16,tiling=off", NULL, NULL},
        {"precision.default=bfloat16, tiling=none", NULL, NULL},
        {"tiling=off,precision.default=torch.bfloat16", NULL, NULL},
        {"precision={default: bf16},tiling=off", NULL, NULL},
        {"precision.default='bf16',tiling=\"off\"", NULL, NULL},
        {"tiling=,precision.default=bf16", NULL, NULL},
        {"precision.default=bf16,tiling=off,inputs.num_inference_steps=6,checkpoint=sana-tiny",
         NULL, NULL},
        {"inputs.prompt=a red fox,precision.default=bf16,tiling=off,quirks=[],inputs.seed=0", NULL,
         NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++)
        gives(FOUR, NO_WORDS, spellings[i], "precision.default=bf16,tiling=off\n");
    gives(FOUR, NO_WORDS, WORDS("tiling={tile: [32, 32], stride: [28, 28]}"),
          "precision.default=fp16,tiling=32x32+28x28\nprecision.default=bf16,tiling=32x32+28x28\n");
    gives(FOUR, NO_WORDS, WORDS("tiling=32x32+28x28,precision.default=half"),
          "precision.default=fp16,tiling=32x32+28x28\n");
    gives(FOUR, NO_WORDS, WORDS("tiling.tile=[32, 32]", "precision.default=half"),
          "precision.default=fp16,tiling=32x32+28x28\n");
}

static void test_only__commas_within_a_value_belong_to_it(void **state)
{
    const char *lines =
        "matrix:\n  inputs.prompt: ['a, b', 'a, tiling=off', 'it''s, so', 'x \"y, z=']\n";

    (void)state;
    gives(lines, NO_WORDS, WORDS("inputs.prompt=a, b"), "inputs.prompt=a, b\n");
    gives(lines, NO_WORDS, WORDS("inputs.prompt=a, b,tiling=off"), "inputs.prompt=a, b\n");
    gives(lines, NO_WORDS, WORDS("inputs.prompt=\"a, tiling=off\""),
          "inputs.prompt=a, tiling=off\n");
    gives(lines, NO_WORDS, WORDS("inputs.prompt='it''s, so',tiling=off"),
          "inputs.prompt=it's, so\n");
    gives(lines, NO_WORDS, WORDS("inputs.prompt=it's, so,tiling=off"), "inputs.prompt=it's, so\n");
    gives(lines, NO_WORDS, WORDS("inputs.prompt=\"x \\\"y, z=\",tiling=off"),
          "inputs.prompt=x \"y, z=\n");
}

static void test_only__what_cannot_choose_is_refused(void **state)
{
    static const struct {
        const char *only, *message;
    } cases[] = {
        {"precision.default", "--only precision.default: expected KEY=VAL, such as"},
        {"=bf16", "--only =bf16: expected KEY=VAL"},
        {"precison.default=bf16", "--only:1:1: unknown key 'precison'; did you mean 'precision'?"},
        {"precision.default=b16", "key 'precision.default': found \"b16\", expected a dtype"},
        {"repeat=3", "the key 'repeat' changes nothing"},
        {"inputs.stpes=3", "unknown key 'stpes' in inputs; did you mean 'steps'?"},
        {"precision.default=[bf16", "--only:2:1: this is no YAML"},
        {"precision.default=fp32", "no cell matches --only; see the cells with --dry-run"},
        {"tiling.tile=[16, 16]", "no cell matches --only"},
        {"checkpoint=sana", "no cell matches --only"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refused(WORDS(file(FOUR)), NO_WORDS, WORDS(cases[i].only), WORDS(cases[i].message));
}

/* ---- --set ---------------------------------------------------------------------------------- */

static void test_set__replaces_the_files_value_and_its_axis(void **state)
{
    mp_plan p = plan_of(WORDS(file(FOUR)), WORDS("precision.default=fp32"), NO_WORDS);

    (void)state;
    cells(&p, "tiling=off\ntiling=32x32+28x28\n");
    assert_string_equal(setting(&p, 0, "precision.default"), "fp32");
    p = plan_of(WORDS(file(FOUR)), WORDS("precision.default=fp32", "tiling=off", "inputs.steps=2"),
                NO_WORDS);
    cells(&p, "default\n");
    assert_string_equal(setting(&p, 0, "inputs.steps"), "2");
    p = plan_of(WORDS(file("")), WORDS("tiling={tile: [64, 64], stride: [56, 56]}", "repeat=9"),
                NO_WORDS);
    assert_string_equal(setting(&p, 0, "tiling"), "64x64+56x56");
    assert_int_equal(p.cells[0].scenario.repeat, 9);
}

static void test_set__knows_inputs_under_both_names(void **state)
{
    mp_plan p = plan_of(WORDS(file("matrix: {inputs.steps: [3, 4]}")),
                        WORDS("inputs.num_inference_steps=2"), NO_WORDS);

    (void)state;
    cells(&p, "default\n");
    assert_string_equal(setting(&p, 0, "inputs.steps"), "2");
    p = plan_of(WORDS(file("matrix: {inputs.num_inference_steps: [3, 4]}")), NO_WORDS, NO_WORDS);
    cells(&p, "inputs.steps=3\ninputs.steps=4\n");
}

static void test_set__takes_axes_around_and_below_and_includes_along(void **state)
{
    (void)state;
    gives("matrix:\n  precision: [{default: fp16}, {default: bf16}]\n" TILES,
          WORDS("precision.default=fp32"), NO_WORDS, "tiling=off\ntiling=32x32+28x28\n");
    gives("matrix:\n  precision.components.vae: [fp16, fp32]\n", WORDS("precision.components={}"),
          NO_WORDS, "default\n");
    gives("matrix:\n" DTYPES "  include: [{precision.default: fp8_e4m3}, {precision.default: bf16, "
          "inputs.seed: 3}]\n",
          WORDS("precision.default=fp32"), NO_WORDS, "inputs.seed=3\n");
}

static void test_set__an_empty_value_is_none(void **state)
{
    const mp_plan p = plan_of(WORDS(file("precision: {components: {vae: fp16}}\n")),
                              WORDS("precision.components=", "inputs.seed=5"), NO_WORDS);

    (void)state;
    assert_string_equal(setting(&p, 0, "precision.components"), "none");
}

static void test_set__what_cannot_be_set_is_refused(void **state)
{
    static const struct {
        const char *set, *message;
    } cases[] = {
        {"steps", "--set steps: expected KEY=VAL"},
        {"steps=2", "--set:1:1: unknown key 'steps'"},
        {"name=x", "--set:1:1: the key 'name' cannot vary from cell to cell"},
        {"expect=[]", "--set:1:1: the key 'expect' cannot vary"},
        {"matrix={}", "--set:1:1: the key 'matrix' cannot vary"},
        {"inputs.steps=many", "--set:1:1: key 'inputs.steps': found \"many\", expected an integer"},
        {"inputs.steps={a", "--set:2:1: this is no YAML"},
        {"inputs.prompt=# fox", "--set:1:1: there is no value here"},
        {"inputs.prompt=${MPBENCH_TEST_UNSET}", "MPBENCH_TEST_UNSET is not set"},
        {"tiling.tile=[32, 32]", "x.yaml:5:9: --set tiling.tile: \"off\" stands in its way here"},
        {"precision.policy=loose", "key 'precision.policy': found \"loose\""},
        {"inputs.height=80", "cell default: `height` and `width` have to be divisible by 32"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refused(WORDS(file("tiling: off")), WORDS(cases[i].set), NO_WORDS, WORDS(cases[i].message));
}

/* ---- files ---------------------------------------------------------------------------------- */

static const char *fresh_folder(const char *name)
{
    const char *path = mp_arena_strdup(arena, scratch(name));

    assert_int_equal(mkdir(path, 0700), 0);
    return path;
}

static const char *put(const char *folder, const char *name, const char *text)
{
    const char *path = mp_arena_printf(arena, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
    return path;
}

static void test_files__of_a_folder_are_read_in_order_of_name(void **state)
{
    const char *top = fresh_folder("order"), *sub = fresh_folder("order/b");

    (void)state;
    put(top, "c.yaml", text_of("c", ""));
    put(top, "a.yml", text_of("a", ""));
    put(sub, "z.yaml", text_of("b-z", ""));
    put(sub, "y.yaml", text_of("b-y", ""));
    put(top, "README.md", "# no scenario");
    put(top, "schema.json", "{}");
    put(top, ".hidden.yaml", "- broken");
    put(top, ".yaml", "- broken");
    const mp_plan p = plan_of(WORDS(mp_arena_printf(arena, "%s//", top)), NO_WORDS, NO_WORDS);
    assert_int_equal(p.count, 4);
    assert_string_equal(p.cells[0].scenario.name, "a");
    assert_string_equal(p.cells[1].scenario.name, "b-y");
    assert_string_equal(p.cells[2].scenario.name, "b-z");
    assert_string_equal(p.cells[3].scenario.name, "c");
    assert_string_equal(p.cells[1].scenario.file, mp_arena_printf(arena, "%s/b/y.yaml", top));
}

static void test_files__of_the_folder_where_one_stands_are_found(void **state)
{
    char *before = realpath(".", NULL);
    const char *top = fresh_folder("here");

    (void)state;
    put(top, "a.yaml", text_of("a", ""));
    assert_int_equal(chdir(top), 0);
    const mp_plan p = plan_of(WORDS("."), NO_WORDS, NO_WORDS);
    assert_int_equal(chdir(before), 0);
    free(before);
    assert_int_equal(p.count, 1);
    assert_string_equal(p.cells[0].scenario.file, "./a.yaml");
}

static void test_files__are_read_once_however_they_are_named(void **state)
{
    const char *top = fresh_folder("twice");
    const char *one = put(top, "one.yaml", text_of("one", ""));
    const char *link = mp_arena_printf(arena, "%s/two.yaml", top);
    const char *loop = mp_arena_printf(arena, "%s/loop", top);

    (void)state;
    assert_int_equal(symlink("one.yaml", link), 0);
    assert_int_equal(symlink(".", loop), 0);
    const mp_plan p = plan_of(WORDS(one, top, one, link, top), NO_WORDS, NO_WORDS);
    assert_int_equal(p.count, 1);
}

static void test_files__of_one_name_are_refused(void **state)
{
    const char *top = fresh_folder("names");
    const char *a = put(top, "a.yaml", text_of("same", ""));
    const char *b = put(top, "b.yaml", text_of("same", "matrix: {inputs.seed: [1, 2]}"));

    (void)state;
    refused(WORDS(top), NO_WORDS, NO_WORDS,
            WORDS(mp_arena_printf(arena,
                                  "%s: the name 'same' is also %s's; give one of them "
                                  "another name",
                                  b, a)));
    refused(WORDS(a, b), NO_WORDS, WORDS("inputs.seed=1"), WORDS("the name 'same' is also"));
    put(top, "b.yaml", text_of("same", "")); /* the same cells, too */
    refused(WORDS(b, a), NO_WORDS, NO_WORDS, WORDS("the name 'same' is also"));
}

static void test_files__that_are_not_there_are_named(void **state)
{
    const char *empty = fresh_folder("empty");

    (void)state;
    refused(WORDS(scratch("none.yaml")), NO_WORDS, NO_WORDS,
            WORDS("none.yaml: No such file or directory; expected a scenario file or a folder"));
    refused(WORDS(empty), NO_WORDS, NO_WORDS,
            WORDS("empty: has no scenario in it; expected files named *.yaml"));
    refused(WORDS(scratch_text("list.yaml", "[a]\n")), NO_WORDS, NO_WORDS,
            WORDS("list.yaml:1:1: found a list of 1, expected a map with name"));
    refused(WORDS(scratch_text("key.yaml", "nmae: x\n")), NO_WORDS, NO_WORDS,
            WORDS("key.yaml:1:1: unknown key 'nmae'; did you mean 'name'?"));
}

static void test_files__too_deep_are_named(void **state)
{
    const char *path = fresh_folder("deep");

    (void)state;
    for (int i = 0; i < 9; i++) {
        path = mp_arena_printf(arena, "%s/d", path);
        assert_int_equal(mkdir(path, 0700), 0);
    }
    put(path, "x.yaml", text_of("x", ""));
    refused(WORDS(scratch("deep")), NO_WORDS, NO_WORDS, WORDS("more than 8 folders deep"));
}

static void test_files__the_pipeline_checks_every_cell_beforehand(void **state)
{
    (void)state;
    refused(
        WORDS(file("matrix: {inputs.height: [64, 100]}")), NO_WORDS, NO_WORDS,
        WORDS(
            "x.yaml:5:30: cell inputs.height=100: `height` and `width` have to be divisible by 32",
            "Use 128 and 64"));
}

/* ---- ids, folders, hashes ------------------------------------------------------------------- */

static void test_cells__have_ids_and_folders_that_are_safe_and_unique(void **state)
{
    mp_text t = {0};

    (void)state;
    mp_text_add(&t,
                "matrix:\n  inputs.prompt: ['a b', 'a_b', 'a/b', '../../etc', 'a\\b', \"a\\nb\", "
                "\"caf\\xe9\", 'x', '', \"\\e[31m\", '.', '$(ls)', '");
    for (int i = 0; i < 300; i++)
        mp_text_add(&t, "long ");
    mp_text_add(&t, "', '");
    for (int i = 0; i < 300; i++)
        mp_text_add(&t, "long ");
    mp_text_add(&t, "er']\n");
    const mp_plan p = plan_of(WORDS(file(t.data)), NO_WORDS, NO_WORDS);
    assert_int_equal(p.count, 14);
    for (int i = 0; i < p.count; i++) {
        const char *folder = p.cells[i].folder;
        assert_true(strlen(folder) > 0 && strlen(folder) < 200);
        assert_int_equal(strspn(folder, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                        "0123456789._-=,+:"),
                         strlen(folder));
        assert_true(folder[0] != '.' && folder[0] != '-');
        for (int k = 0; k < i; k++) {
            assert_string_not_equal(p.cells[k].id, p.cells[i].id);
            assert_string_not_equal(p.cells[k].folder, folder);
            assert_string_not_equal(p.cells[k].hash, p.cells[i].hash);
        }
    }
    mp_text_free(&t);
}

static void test_cells__hashes_are_of_what_is_computed(void **state)
{
    const mp_plan a =
        plan_of(WORDS(file("precision: {default: half}\nrepeat: 3")), NO_WORDS, NO_WORDS);
    const mp_plan b =
        plan_of(WORDS(file("timeout: 9s\nprecision: {default: float16, components: {}}")), NO_WORDS,
                NO_WORDS);
    const mp_plan c = plan_of(WORDS(file("precision: {default: bf16}")), NO_WORDS, NO_WORDS);

    (void)state;
    assert_int_equal(strlen(a.cells[0].hash), 64);
    assert_string_equal(a.cells[0].hash, b.cells[0].hash);
    assert_string_not_equal(a.cells[0].hash, c.cells[0].hash);
    assert_string_equal(a.hash, b.hash);
    assert_string_not_equal(a.hash, c.hash);
}

static void test_cells__two_checkpoints_of_one_name_are_refused(void **state)
{
    const char *top = fresh_folder("models");

    (void)state;
    assert_int_equal(
        symlink(MP_FIXTURES "/checkpoints/sana-tiny", mp_arena_printf(arena, "%s/sana-tiny", top)),
        0);
    refused(WORDS(file(mp_arena_printf(arena,
                                       "matrix: {checkpoint: ['${MPBENCH_CHECKPOINTS}/sana-tiny', "
                                       "%s/sana-tiny]}",
                                       top))),
            NO_WORDS, NO_WORDS,
            WORDS("two cells are called \"checkpoint=sana-tiny\"", top, "another name"));
}

static void test_cells__repeat_and_warmup_of_the_command_line_win(void **state)
{
    const mp_plan_options o = {.check = pipeline_check,
                               .engine_flags = "",
                               .paths = list_of(WORDS(file("repeat: 5\nwarmup: 2"))),
                               .repeat = 7,
                               .warmup = 0};
    mp_plan p;
    mp_error err = {0};

    (void)state;
    mp_plan_make(arena, &o, &p, &err);
    assert_ok(&err);
    assert_int_equal(p.cells[0].scenario.repeat, 7);
    assert_int_equal(p.cells[0].scenario.warmup, 0);
}

/* ---- repro lines ---------------------------------------------------------------------------- */

/* Runs the repro line through a shell's rules for words, then through mp_plan_make. */
static void reproduces(const mp_cell *cell)
{
    mp_words all = shell_words(arena, cell->repro), set = {0}, only = {0};
    mp_plan_options o = {.repeat = -1, .warmup = -1, .check = pipeline_check, .engine_flags = ""};
    mp_plan p;
    mp_error err = {0};

    set.items = mp_arena_alloc(arena, (size_t)all.count, sizeof *set.items);
    only.items = mp_arena_alloc(arena, (size_t)all.count, sizeof *only.items);
    assert_true(all.count >= 3 && all.count % 2 == 1);
    assert_string_equal(all.items[0], "mpbench");
    assert_string_equal(all.items[1], "run");
    o.paths = (mp_words){.items = all.items + 2, .count = 1};
    for (int i = 3; i < all.count; i += 2)
        if (!strcmp(all.items[i], "--set"))
            set.items[set.count++] = all.items[i + 1];
        else if (!strcmp(all.items[i], "--only"))
            only.items[only.count++] = all.items[i + 1];
        else
            fail_msg("%s in: %s", all.items[i], cell->repro);
    o.set = set;
    o.only = only;
    if (mp_plan_make(arena, &o, &p, &err))
        fail_msg("%s\nfor: %s", err.text, cell->repro);
    if (p.count != 1)
        fail_msg("%d cells for: %s", p.count, cell->repro);
    assert_string_equal(p.cells[0].key, cell->key);
    assert_string_equal(p.cells[0].hash, cell->hash);
    assert_string_equal(p.cells[0].repro, cell->repro);
}

static int reproduce_all(words paths, words set)
{
    const mp_plan p = plan_of(paths, set, NO_WORDS);

    for (int i = 0; i < p.count; i++)
        reproduces(&p.cells[i]);
    return p.count;
}

static void test_repro__of_every_incident_gives_its_cell_alone(void **state)
{
    const int n = reproduce_all(WORDS(MP_SOURCE_DIR "/scenarios/incidents"), NO_WORDS);

    (void)state;
    assert_true(n >= 25);
    assert_int_equal(reproduce_all(WORDS(MP_SOURCE_DIR "/scenarios/incidents"),
                                   WORDS("inputs.steps=2", "precision.load=to")),
                     n);
}

static void test_repro__reads_as_a_person_would_write_it(void **state)
{
    const char *path = file("matrix:\n" DTYPES TILES "  precision.components: [{vae: bf16}]\n");
    const mp_plan p = plan_of(WORDS(path), WORDS("inputs.prompt=it's"), WORDS("tiling=off"));

    (void)state;
    assert_string_equal(p.cells[0].repro,
                        mp_arena_printf(arena,
                                        "mpbench run %s --set 'inputs.prompt=it'\\''s' --only "
                                        "precision.default=fp16 --only tiling=off --only "
                                        "'precision.components={vae: bf16}'",
                                        path));
}

static void test_repro__tells_apart_what_include_made(void **state)
{
    (void)state;
    assert_int_equal(
        reproduce_all(WORDS(file("matrix:\n" DTYPES "  inputs.seed: [1, 2]\n  include:\n"
                                 "    - inputs.steps: 11\n"
                                 "    - {inputs.steps: 12, inputs.seed: 1}\n"
                                 "    - {precision.default: fp8_e4m3}\n"
                                 "    - {precision.default: fp8_e4m3, inputs.seed: 1}\n"
                                 "    - {precision.default: fp8_e4m3, inputs.prompt: 'a, b'}\n"
                                 "    - {precision.default: fp8_e4m3, tiling: 32x32+28x28}\n"
                                 "    - {precision.default: fp8_e4m3, precision.components.vae: "
                                 "fp16}\n"
                                 "    - {precision.default: fp8_e4m3, precision.storage: {vae: "
                                 "fp16}}\n"
                                 "    - {precision.default: fp8_e4m3, reference: off, memory: "
                                 "2GiB}\n"
                                 "    - {precision.default: fp8_e4m3, quirks: "
                                 "[sana-quadratic-no-upcast]}\n"
                                 "    - {precision.default: fp8_e4m3, inputs.guidance: 0.1}\n"
                                 "    - {precision.default: fp8_e4m3, "
                                 "inputs.complex_human_instruction: [x]}\n"
                                 "    - {precision.default: fp8_e4m3, precision.overrides: "
                                 "[{match: 'vae.*', dtype: fp16}]}\n")),
                      NO_WORDS),
        15);
    assert_int_equal(reproduce_all(WORDS(file("matrix:\n  include:\n    - inputs.seed: 1\n"
                                              "    - precision: {default: bf16, load: to}\n"
                                              "    - tiling: {tile: [32, 32], stride: [28, 28]}\n"
                                              "    - inputs.eta: 1\n")),
                                   NO_WORDS),
                     4);
    assert_int_equal(
        reproduce_all(WORDS(file("tiling: {tile: [32, 32], stride: [28, 28]}\nmatrix:\n"
                                 "  tiling.tile: [[32, 32], [64, 64]]\n  include:\n"
                                 "    - {tiling.tile: [64, 32], tiling.stride: [32, 32]}\n")),
                      NO_WORDS),
        3);
}

static void test_repro__of_hostile_prompts_gives_its_cell_alone(void **state)
{
    (void)state;
    assert_int_equal(
        reproduce_all(
            WORDS(file("matrix:\n  inputs.prompt:\n"
                       "    - 'a, tiling=off'\n    - \"it's \\\"quoted\\\" \\\\ back\"\n"
                       "    - '$${HOME} $(ls) `ls` $HOME'\n    - \"line\\nbreak\\ttab\"\n"
                       "    - '{a: [b'\n    - '7'\n    - 'null'\n    - ''\n    - '- x'\n"
                       "    - \"\\xe9 \\u2028 \\x7f \\U0001f98a\"\n    - '---'\n    - '# c'\n"
                       "    - 'true'\n    - ' blank '\n    - \"a=1,inputs.seed=2\"\n")),
            NO_WORDS),
        15);
}

static void test_repro__names_checkpoints_from_where_it_runs(void **state)
{
    const char *top = fresh_folder("ckpt");
    char old[512];

    (void)state;
    assert_non_null(getcwd(old, sizeof old));
    fresh_folder("ckpt/s");
    put(top, "s/x.yaml", text_of("t", "matrix: {checkpoint: [../sana-tiny, ../sana-sharded]}"));
    assert_int_equal(
        symlink(MP_FIXTURES "/checkpoints/sana-tiny", mp_arena_printf(arena, "%s/sana-tiny", top)),
        0);
    assert_int_equal(symlink(MP_FIXTURES "/checkpoints/sana-tiny",
                             mp_arena_printf(arena, "%s/sana-sharded", top)),
                     0);
    assert_int_equal(chdir(top), 0);
    const mp_plan p = plan_of(WORDS("s/x.yaml"), NO_WORDS, NO_WORDS);
    cells(&p, "checkpoint=sana-tiny\ncheckpoint=sana-sharded\n");
    assert_string_equal(p.cells[0].repro, "mpbench run s/x.yaml --only checkpoint=s/../sana-tiny");
    assert_int_equal(reproduce_all(WORDS("s/x.yaml"), NO_WORDS), 2);
    put(top, "-dash.yaml", text_of("dash", ""));
    const mp_plan dash = plan_of(WORDS("-dash.yaml"), NO_WORDS, NO_WORDS);
    assert_string_equal(dash.cells[0].repro, "mpbench run ./-dash.yaml");
    assert_int_equal(chdir(old), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matrix__without_one_there_is_one_cell),
        cmocka_unit_test(test_matrix__the_last_axis_runs_fastest),
        cmocka_unit_test(test_matrix__has_policies_as_an_axis),
        cmocka_unit_test(test_matrix__values_replace_those_of_the_file),
        cmocka_unit_test(test_matrix__include_is_that_of_github),
        cmocka_unit_test(test_matrix__include_alone_gives_each_entry_a_cell),
        cmocka_unit_test(test_matrix__include_compares_values_not_their_spelling),
        cmocka_unit_test(test_matrix__exclude_drops_what_matches_all_of_an_entry),
        cmocka_unit_test(test_matrix__include_comes_after_exclude),
        cmocka_unit_test(test_matrix__exclude_works_where_include_completes_the_scenario),
        cmocka_unit_test(test_matrix__budgets_may_come_from_include_and_are_no_part_of_an_id),
        cmocka_unit_test(test_matrix__two_spellings_of_one_cell_are_one),
        cmocka_unit_test(test_matrix__what_is_no_matrix_is_refused),
        cmocka_unit_test(test_matrix__a_huge_one_is_refused),
        cmocka_unit_test(test_only__takes_every_spelling),
        cmocka_unit_test(test_only__commas_within_a_value_belong_to_it),
        cmocka_unit_test(test_only__what_cannot_choose_is_refused),
        cmocka_unit_test(test_set__replaces_the_files_value_and_its_axis),
        cmocka_unit_test(test_set__knows_inputs_under_both_names),
        cmocka_unit_test(test_set__takes_axes_around_and_below_and_includes_along),
        cmocka_unit_test(test_set__an_empty_value_is_none),
        cmocka_unit_test(test_set__what_cannot_be_set_is_refused),
        cmocka_unit_test(test_files__of_a_folder_are_read_in_order_of_name),
        cmocka_unit_test(test_files__of_the_folder_where_one_stands_are_found),
        cmocka_unit_test(test_files__are_read_once_however_they_are_named),
        cmocka_unit_test(test_files__of_one_name_are_refused),
        cmocka_unit_test(test_files__that_are_not_there_are_named),
        cmocka_unit_test(test_files__too_deep_are_named),
        cmocka_unit_test(test_files__the_pipeline_checks_every_cell_beforehand),
        cmocka_unit_test(test_cells__have_ids_and_folders_that_are_safe_and_unique),
        cmocka_unit_test(test_cells__hashes_are_of_what_is_computed),
        cmocka_unit_test(test_cells__two_checkpoints_of_one_name_are_refused),
        cmocka_unit_test(test_cells__repeat_and_warmup_of_the_command_line_win),
        cmocka_unit_test(test_repro__of_every_incident_gives_its_cell_alone),
        cmocka_unit_test(test_repro__reads_as_a_person_would_write_it),
        cmocka_unit_test(test_repro__tells_apart_what_include_made),
        cmocka_unit_test(test_repro__of_hostile_prompts_gives_its_cell_alone),
        cmocka_unit_test(test_repro__names_checkpoints_from_where_it_runs),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
