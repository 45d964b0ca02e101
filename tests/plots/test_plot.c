/* The kinds of plots: what they take from the database, and that they draw it, whatever it is. */
#include "plots/draw.h"
#include "tests/results/scratch.h"

#include <inttypes.h>
#include <math.h>

#include "kernels/core/memory.h"
#include "pipelines/common/image.h"

/* ---- a database ----------------------------------------------------------------------------- */

static mp_error err;
static mp_store *store;
static int databases;

static void check(void)
{
    if (err.code)
        fail_msg("%s", err.text);
}

static int begin_database(void **state)
{
    char name[16];

    (void)state;
    snprintf(name, sizeof name, "%d.db", databases++);
    err = (mp_error){0};
    return mp_store_open(scratch_file(name), MP_STORE_WRITE, &store, &err) != MP_OK;
}

static int end_database(void **state)
{
    (void)state;
    mp_store_close(store);
    return 0;
}

/* A night: its number is its place in time, too. */
static int64_t add_run(const char *label)
{
    static int made;
    const mp_pair commit = {"git_commit", "3e64931fb5c9d2a7c0ffee001122334455667788"};
    char uuid[24], sql[120];
    int64_t id;

    snprintf(uuid, sizeof uuid, "uuid-%d", ++made);
    const mp_run_info run = {.uuid = uuid,
                             .label = label,
                             .engine = "native",
                             .device = "cpu",
                             .command = "mpbench run",
                             .plan = "p",
                             .fingerprint = "machine",
                             .environment = &commit,
                             .environment_count = 1};
    mp_store_begin_run(store, &run, &id, &err);
    check();
    snprintf(sql, sizeof sql,
             "UPDATE run SET started = '2026-11-%02dT04:30:00.000Z' WHERE id = %" PRId64,
             (int)id % 28 + 1, id);
    sql_run(mp_store_path(store), sql);
    return id;
}

typedef struct cell_spec {
    const char *scenario, *tail; /* of its key */
    double drift[4];             /* of its steps; the last one that is not 0.5 is the summary */
    int steps;
    double seconds, peak;
    const char *output; /* a hash */
    const char *status; /* NULL: ok */
    const mp_picture_row *pictures;
    int picture_count;
} cell_spec;

static int64_t add_cell(int64_t run, const cell_spec *c)
{
    char key[400];
    mp_metric_row rows[8];
    int n = 0;
    int64_t id;

    snprintf(key, sizeof key, "%s%s%s", c->scenario, *c->tail ? "/" : "", c->tail);
    for (int i = 0; i < c->steps; i++)
        rows[n++] = (mp_metric_row){"rel_l2", "latents", i, "", c->drift[i], "1"};
    if (c->steps)
        rows[n++] = (mp_metric_row){"latent_rel_l2", "run", -1, "", c->drift[c->steps - 1], "1"};
    if (c->seconds > 0)
        rows[n++] = (mp_metric_row){"seconds", "run", -1, "", c->seconds, "s"};
    if (c->peak > 0)
        rows[n++] = (mp_metric_row){"peak_mib", "run", -1, "", c->peak, "MiB"};
    const mp_sample_row samples[] = {{0, "decode", c->seconds / 4},
                                     {0, "denoise", c->seconds / 2},
                                     {0, "text_encode", c->seconds / 4},
                                     {0, "load", 1},
                                     {0, "total", c->seconds}};
    const mp_output_row output = {"image", "fp32", "[1]", c->output ? c->output : "same"};
    const mp_cell_info info = {.key = key,
                               .scenario = c->scenario,
                               .scenario_hash = "h",
                               .pipeline = "sana",
                               .checkpoint = "c",
                               .checkpoint_hash = "c",
                               .repro = "r"};
    const mp_cell_result result = {.status = c->status ? c->status : "ok",
                                   .as_expected = true,
                                   .step = -1,
                                   .metrics = rows,
                                   .metric_count = n,
                                   .samples = samples,
                                   .sample_count = c->seconds > 0 ? 5 : 0,
                                   .outputs = &output,
                                   .output_count = 1,
                                   .pictures = c->pictures,
                                   .picture_count = c->picture_count};
    mp_store_begin_cell(store, run, &info, &id, &err);
    mp_store_finish_cell(store, id, &result, &err);
    check();
    return id;
}

/* ---- drawing -------------------------------------------------------------------------------- */

static char folder[400];
static mp_plot_note note;

static const char *new_folder(void)
{
    static int made;
    char name[24];

    snprintf(name, sizeof name, "plot%d", made++);
    snprintf(folder, sizeof folder, "%s", scratch_file(name));
    assert_int_equal(mkdir(folder, 0777), 0);
    return folder;
}

static mp_code try_to_draw(const char *kind, mp_plot_options o)
{
    mp_plot_data d;

    err = (mp_error){0};
    o.folder = new_folder();
    if (!mp_plot_data_load(store, o.scenario, &d, &err))
        mp_plot_draw(mp_plot_kind_of(kind), &d, &o, &note, &err);
    mp_plot_data_free(&d);
    return err.code;
}

static void draw(const char *kind, mp_plot_options o)
{
    try_to_draw(kind, o);
    check();
}

static void refuses(const char *kind, mp_plot_options o, mp_code code, const char *part)
{
    assert_int_equal(try_to_draw(kind, o), code);
    if (!strstr(err.text, part))
        fail_msg("'%s' is not in: %s", part, err.text);
}

static char *text_of(const char *name, size_t *size)
{
    enum { ROOM = 1 << 23 };
    char path[500], *text = calloc(1, ROOM);

    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "rb");
    assert_non_null(text);
    if (!f)
        fail_msg("there is no %s", path);
    const size_t n = fread(text, 1, ROOM - 1, f);
    fclose(f);
    if (size)
        *size = n;
    return text;
}

static void assert_file(const char *name, const char *expected)
{
    char *text = text_of(name, NULL);

    if (strcmp(text, expected))
        fail_msg("%s holds:\n%s\nexpected:\n%s", name, text, expected);
    free(text);
}

static void assert_file_has(const char *name, const char *part)
{
    char *text = text_of(name, NULL);

    if (!strstr(text, part))
        fail_msg("%s does not have '%s':\n%.2000s", name, part, text);
    free(text);
}

static const cell_spec fp32 = {.scenario = "sana",
                               .tail = "precision.default=fp32,tiling=off",
                               .drift = {0, 0},
                               .steps = 2,
                               .seconds = 4,
                               .peak = 400};
static const cell_spec fp16 = {.scenario = "sana",
                               .tail = "precision.default=fp16,tiling=off",
                               .drift = {0.0005, 0.0025},
                               .steps = 2,
                               .seconds = 2,
                               .peak = 300};
static const cell_spec bf16 = {.scenario = "sana",
                               .tail = "precision.default=bf16,tiling=off",
                               .drift = {0.0625, INFINITY},
                               .steps = 2,
                               .seconds = 2,
                               .peak = 350};

static void add_night(void)
{
    const int64_t run = add_run("nightly");

    add_cell(run, &fp32);
    add_cell(run, &fp16);
    add_cell(run, &bf16);
}

/* ---- drift ---------------------------------------------------------------------------------- */

static void test_plot__drift_places_zeros_below_and_what_is_not_finite_above(void **state)
{
    (void)state;
    add_night();
    sql_run(mp_store_path(store),
            "INSERT INTO metric VALUES (1, 'rel_l2', 'latents', 0, 'a.module', 9, NULL, '1'), "
            "(1, 'rel_l2', 'latents', -1, '', 9, NULL, '1'), "
            "(1, 'rel_l2', 'image', 0, '', 9, NULL, '1')");
    draw("drift", (mp_plot_options){0});
    assert_string_equal(note.text, "3 cells");
    /* from 0.0005 to 0.0625: whole decades from 1e-4 to 1e-1, and one more on each side */
    assert_file("drift.tsv", "step\tfp32\n1\t1.0000000000000001e-05\t0\n"
                             "2\t1.0000000000000001e-05\t0\n\n\n"
                             "step\tfp16\n1\t0.00050000000000000001\t0.00050000000000000001\n"
                             "2\t0.0025000000000000001\t0.0025000000000000001\n\n\n"
                             "step\tbf16\n1\t0.0625\t0.0625\n2\t1\tNaN\n\n\n");
    assert_file_has("settings.gp", "heading = \"sana\"\n");
    assert_file_has("settings.gp", "of 2026-11-");
    assert_file_has("settings.gp", "04:30, nightly, 3e64931fb5, native, cpu\"\n");
    assert_file_has("drift.svg", "<text>inf, NaN</text>");
    assert_file_has("drift.svg", "<text>denoising step</text>");
}

static void test_plot__drift_names_cells_by_what_tells_them_apart(void **state)
{
    static const char *const tails[] = {"precision.default=bf16,tiling=off,inputs.seed=7",
                                        "precision.default=bf16,tiling=off,inputs.seed=8",
                                        "precision.default=bf16,tiling=32x32+28x28,inputs.seed=7"};
    const int64_t run = add_run(NULL);
    cell_spec c = fp16;

    (void)state;
    for (int i = 0; i < 3; i++) {
        c.tail = tails[i];
        add_cell(run, &c);
    }
    draw("drift", (mp_plot_options){0});
    assert_file_has("drift.tsv", "step\ttiling=off, seed=7\n");
    assert_file_has("drift.tsv", "step\ttiling=off, seed=8\n");
    assert_file_has("drift.tsv", "step\ttiling=32x32+28x28, seed=7\n");
    draw("drift", (mp_plot_options){.cells = (const int64_t[]){3}, .cell_count = 1});
    assert_file_has("drift.tsv", "step\tbf16, tiling=32x32+28x28, seed=7\n");
    /* one cell of two runs */
    add_cell(add_run(NULL), &c);
    draw("drift", (mp_plot_options){.cells = (const int64_t[]){3, 4}, .cell_count = 2});
    assert_file_has("drift.tsv", "step\tcell 3\n");
    assert_file_has("drift.tsv", "step\tcell 4\n");
    assert_file_has("settings.gp", "subheading = \"cells of several runs\"");
    draw("drift", (mp_plot_options){.cells = (const int64_t[]){2, 3, 4}, .cell_count = 3});
    assert_file_has("drift.tsv", "step\ttiling=off, seed=8\n");
    assert_file_has("drift.tsv", "step\ttiling=32x32+28x28, seed=7 (cell 3)\n");
    assert_file_has("drift.tsv", "step\ttiling=32x32+28x28, seed=7 (cell 4)\n");
}

static void test_plot__takes_the_newest_run_or_the_one_that_is_named(void **state)
{
    cell_spec c = fp16;

    (void)state;
    for (int i = 0; i < 3; i++) {
        static const char *const labels[] = {"run1", "run2", "run3"};
        c.drift[0] = i + 1;
        c.steps = 1;
        add_cell(add_run(labels[i]), &c);
    }
    draw("drift", (mp_plot_options){0});
    assert_file_has("drift.tsv", "\n1\t3\t3\n");
    draw("drift", (mp_plot_options){.run = "run2"});
    assert_file_has("drift.tsv", "\n1\t2\t2\n");
    draw("drift", (mp_plot_options){.run = "1"});
    assert_file_has("drift.tsv", "\n1\t1\t1\n");
    char *uuid = sql_text(mp_store_path(store), "SELECT uuid FROM run WHERE id = 2");
    draw("drift", (mp_plot_options){.run = uuid});
    free(uuid);
    assert_file_has("drift.tsv", "\n1\t2\t2\n");
    refuses("drift", (mp_plot_options){.run = "run\x1b[31m9"}, MP_EMISSING,
            "no run of id, UUID or label 'run\\x1b[31m9' holds a finished cell");
    refuses("drift", (mp_plot_options){.cells = (const int64_t[]){1, 99}, .cell_count = 2},
            MP_EMISSING, "no finished cell 99");
}

static void test_plot__more_cells_than_eyes_can_follow_are_told(void **state)
{
    const int64_t run = add_run(NULL);
    cell_spec c = fp16;
    char tail[40];

    (void)state;
    for (int i = 0; i < 27; i++) {
        snprintf(tail, sizeof tail, "inputs.seed=%d", i);
        c.tail = tail;
        c.steps = i < 2 ? 0 : 2;
        add_cell(run, &c);
    }
    draw("drift", (mp_plot_options){0});
    assert_string_equal(note.text, "24 cells, 2 without drift by step, 1 more: name those to see "
                                   "with --cell");
}

/* ---- pareto --------------------------------------------------------------------------------- */

static void test_plot__pareto_knows_which_cells_no_other_one_beats(void **state)
{
    cell_spec nan = bf16;

    (void)state;
    add_night();
    nan.tail = "precision.default=nan,tiling=off";
    nan.drift[1] = NAN;
    add_cell(1, &nan);
    draw("pareto", (mp_plot_options){0});
    /* fp16 is as fast as bf16 with less of everything; fp32 has no drift at all.  Two are at one
     * place: their numbers stand at two corners */
    assert_file_has("pareto.tsv", "number\t1  fp32\n1\t0.0001\t4\t0\t400\t0\t1\t1\n");
    assert_file_has("pareto.tsv",
                    "number\t2  fp16\n2\t0.0025000000000000001\t2\t0\t300\t0\t1\t1\n");
    assert_file_has("pareto.tsv", "number\t3  bf16\n3\t0.10000000000000001\t2\t1\t350\t1\t1\t1\n");
    assert_file_has("pareto.tsv", "number\t4  nan\n4\t0.10000000000000001\t2\t1\t350\t1\t2\t2\n");
    assert_file("front.tsv", "2\t0.0025000000000000001\n4\t0.0001\n\n\n"
                             "300\t0.0025000000000000001\n400\t0.0001\n\n\n");
    assert_file_has("settings.gp", "better = \"lower\"\n");
    assert_file_has("pareto.svg", "<text>peak memory, MiB</text>");
    refuses("pareto", (mp_plot_options){.metric = "psnr_db"}, MP_EMISSING,
            "no cell has this metric and seconds");
}

static void test_plot__pareto_turns_around_where_higher_is_better(void **state)
{
    const int64_t run = add_run(NULL);

    (void)state;
    add_cell(run, &fp16);
    add_cell(run, &bf16);
    sql_run(mp_store_path(store),
            "INSERT INTO metric VALUES (1, 'psnr_db', 'run', -1, '', 60, NULL, 'dB'), "
            "(2, 'psnr_db', 'run', -1, '', NULL, 'inf', 'dB')");
    draw("pareto", (mp_plot_options){.metric = "psnr_db"});
    assert_file_has("settings.gp", "better = \"higher\"\n");
    /* bf16 beats fp16 in seconds, which are the same; in memory both have their merits */
    assert_file_has("pareto.tsv", "number\t1  fp16\n1\t60\t2\t1\t300\t0\t1\t1\n");
    assert_file_has("pareto.tsv", "number\t2  bf16\n2\t63\t2\t0\t350\t0\t1\t1\n");
}

/* ---- stages --------------------------------------------------------------------------------- */

static void test_plot__stages_follow_one_another_in_the_order_of_the_run(void **state)
{
    const int64_t run = add_run(NULL);
    cell_spec broken = fp16;

    (void)state;
    add_cell(run, &fp32);
    broken.status = "error";
    add_cell(run, &broken);
    sql_run(mp_store_path(store), "INSERT INTO sample VALUES (2, 0, 'upscale', 0.5)");
    draw("stages", (mp_plot_options){0});
    assert_file("stages.tsv", "row\tload\n0\t0\t1\n1\t0\t1\n\n\n"
                              "row\ttext_encode\n0\t1\t2\n1\t1\t1.5\n\n\n"
                              "row\tdenoise\n0\t2\t4\n1\t1.5\t2.5\n\n\n"
                              "row\tdecode\n0\t4\t5\n1\t2.5\t3\n\n\n"
                              "row\tupscale\n0\t5\t5\n1\t3\t3.5\n\n\n");
    assert_file("cells.tsv", "0\t5\tfp32\n1\t3.5\tfp16, error\n");
    assert_file_has("stages.svg", "<text>3.5 s</text>");
}

/* ---- pictures ------------------------------------------------------------------------------- */

/* All of this grey but for one value, the blue of the second pixel. */
static mp_picture_row sheet(const char *role, int width, int height, int level, int other)
{
    static uint8_t rgb[3 * 4000];
    char *png;
    size_t size;

    memset(rgb, level, sizeof rgb);
    rgb[5] = (uint8_t)other;
    mp_image_encode_png(rgb, height, width, &png, &size, &err);
    check();
    return (mp_picture_row){
        .role = role, .width = width, .height = height, .png = png, .size = size};
}

static mp_picture_row grey(const char *role, int level, int other)
{
    return sheet(role, 2, 2, level, other);
}

static void free_rows(mp_picture_row *rows, int n)
{
    for (int i = 0; i < n; i++)
        mp_free((void *)rows[i].png);
}

static void test_plot__pictures_stand_side_by_side_with_their_difference(void **state)
{
    enum { SLOT = 192, GAP = 14, HEAD = 26, LEFT = 2 * GAP + 8 * 17 /* "fp16, tiling=off" */ };
    mp_picture_row rows[] = {grey("output", 100, 103), grey("reference", 100, 100)};
    cell_spec c = fp16;
    size_t size;

    (void)state;
    c.pictures = rows;
    c.picture_count = 2;
    add_cell(add_run(NULL), &c);
    draw("pictures", (mp_plot_options){0});
    free_rows(rows, 2);
    uint8_t *canvas = (uint8_t *)text_of("pictures.rgb", &size);
    const size_t width = LEFT - 8 + 3 * (SLOT + GAP) + 110, left = LEFT - 8;
    assert_int_equal(size, width * (HEAD + SLOT + GAP) * 3);
    const uint8_t *row = canvas + (HEAD + 10) * width * 3;
    assert_int_equal(canvas[0], 255);
    assert_int_equal(row[(left + 10) * 3 + 2], 100);              /* reference */
    assert_int_equal(row[(left + 100) * 3 + 2], 100);             /* its second pixel */
    assert_int_equal(row[(left + SLOT + GAP + 10) * 3 + 2], 100); /* output */
    assert_int_equal(row[(left + SLOT + GAP + 100) * 3 + 2], 103);
    assert_int_equal(row[(left + 2 * (SLOT + GAP) + 10) * 3 + 2], 0); /* difference */
    assert_int_equal(row[(left + 2 * (SLOT + GAP) + 100) * 3 + 2], 3 * 64);
    free(canvas);
    assert_file_has("texts.tsv", "fp16, tiling=off\n");
    assert_file_has("texts.tsv", "\tx 64\n");
    assert_file_has("pictures.svg", "<text>x 64</text>");
    assert_file_has("pictures.svg", "data:image/png;base64,");
}

static void test_plot__pictures_say_what_cannot_be_compared(void **state)
{
    mp_picture_row rows[] = {grey("output", 100, 100), grey("reference", 100, 100)};
    const int64_t run = add_run(NULL);
    cell_spec c = fp16;

    (void)state;
    c.pictures = rows;
    c.picture_count = 1;
    add_cell(run, &c);
    c.tail = "precision.default=bf16,tiling=off";
    c.picture_count = 2;
    add_cell(run, &c);
    free_rows(rows, 2);
    add_cell(run, &fp32);
    draw("pictures", (mp_plot_options){0});
    assert_string_equal(note.text, "2 cells, 1 without a picture");
    assert_file_has("texts.tsv", "\tno reference\n");
    assert_file_has("texts.tsv", "\tequal\n");
    sql_run(mp_store_path(store), "UPDATE picture SET png = CAST('<script>' AS BLOB)");
    draw("pictures", (mp_plot_options){0});
    assert_file_has("texts.tsv", "\tdamaged\n");
    sql_run(mp_store_path(store), "DELETE FROM cell_picture");
    refuses("pictures", (mp_plot_options){0}, MP_EMISSING, "no cell has a picture");
}

static void test_plot__pictures_are_amplified_by_what_differs_usually(void **state)
{
    static const struct {
        int width, level, other;
        const char *note;
    } cases[] = {
        {20, 103, 250, "\tx 64\n"}, /* one value of 1200 is no rule */
        {20, 100, 250, "\tx 1\n"},  /* but where it is all there is */
        {10, 103, 103, "\tother size\n"},
        {193, 103, 103, "\tdamaged\n"}, /* too large for a small picture */
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mp_picture_row rows[] = {sheet("output", cases[i].width, cases[i].width > 20 ? 1 : 20,
                                       cases[i].level, cases[i].other),
                                 sheet("reference", 20, 20, 100, 100)};
        cell_spec c = fp16;
        c.pictures = rows;
        c.picture_count = 2;
        add_cell(add_run(NULL), &c);
        free_rows(rows, 2);
        draw("pictures", (mp_plot_options){0});
        assert_file_has("texts.tsv", cases[i].note);
    }
}

/* ---- series --------------------------------------------------------------------------------- */

static void test_plot__series_mark_where_the_bits_and_the_drift_changed(void **state)
{
    cell_spec c = fp16;

    (void)state;
    c.steps = 1;
    for (int night = 0; night < 4; night++) {
        c.drift[0] = night < 2 ? 0.5 : 0.625;
        c.output = night < 2 ? "before" : "after";
        add_cell(add_run(NULL), &c);
    }
    sql_run(mp_store_path(store), "INSERT INTO metric SELECT id, 'ssim', 'run', -1, '', 0.5, NULL, "
                                  "'1' FROM cell");
    draw("series", (mp_plot_options){0});
    assert_string_equal(note.text, "1 cell, 4 runs");
    /* what changed comes first */
    assert_file_has("settings.gp", "panel1_title = \"latent_rel_l2\"\n");
    assert_file_has("settings.gp", "panel2_title = \"peak_mib, MiB\"\n");
    assert_file_has("settings.gp", "panel3_title = \"seconds, s\"\n");
    assert_file_has("panel1.tsv", "run\tfp16, tiling=off\n1\t0.5\t0.5\n2\t0.5\t0.5\n"
                                  "3\t0.625\t0.625\n4\t0.625\t0.625\n");
    assert_file_has("marks1.tsv", "run\tworse\ttext\n2.5\t0.94999999999999996\tworse: +25 \\045\n");
    assert_file_has("series.svg", "<text>worse: +25 %</text>");
    assert_file_has("settings.gp", "panel4_title = \"ssim\"\n");
    assert_file("marks4.tsv", "run\tworse\ttext\nNaN\tNaN\t\n\n\nrun\tneither\ttext\nNaN\tNaN\t\n"
                              "\n\nrun\tbetter\ttext\nNaN\tNaN\t\n\n\n");
    char *ticks = text_of("runs.tsv", NULL);
    assert_non_null(strstr(ticks, "\t3e64931\n"));
    assert_non_null(strstr(ticks, "1\t11-"));
    free(ticks);
    draw("series", (mp_plot_options){.metric = "seconds"});
    assert_file_has("settings.gp", "panel1_title = \"seconds of decode, s\"\n");
    assert_file_has("settings.gp", "panels = 5\n");
    refuses("series", (mp_plot_options){.metric = "nonsense"}, MP_EMISSING,
            "no cell has this metric");
}

/* All scenarios are read at once; a plot is of one. */
static void test_plot__series_do_not_mark_what_changed_elsewhere(void **state)
{
    mp_plot_options o = {.scenario = "sana"};
    mp_plot_data d;
    cell_spec c = fp16, other = fp16;

    (void)state;
    other.scenario = "other";
    for (int night = 0; night < 4; night++) {
        const int64_t run = add_run(NULL);
        other.drift[1] = night < 2 ? 0.5 : 0.625;
        other.output = night < 2 ? "before" : "after";
        add_cell(run, &c);
        add_cell(run, &other);
    }
    o.folder = new_folder();
    mp_plot_data_load(store, NULL, &d, &err);
    mp_plot_draw(mp_plot_kind_of("series"), &d, &o, &note, &err);
    check();
    assert_true(d.findings.count > 0);
    mp_plot_data_free(&d);
    for (int i = 1; i <= 3; i++) {
        char name[24];
        snprintf(name, sizeof name, "marks%d.tsv", i);
        char *text = text_of(name, NULL);
        assert_null(strstr(text, "2.5"));
        free(text);
    }
}

static void test_plot__series_are_those_of_the_cells_that_are_named(void **state)
{
    (void)state;
    add_night();
    add_night();
    draw("series", (mp_plot_options){.cells = (const int64_t[]){2}, .cell_count = 1});
    assert_string_equal(note.text, "1 cell, 2 runs");
    assert_file_has("panel1.tsv", "run\tfp16, tiling=off\n1\t");
}

static void test_plot__a_series_of_one_run_is_none(void **state)
{
    (void)state;
    add_night();
    refuses("series", (mp_plot_options){0}, MP_EMISSING,
            "there is one run of this scenario, and a series needs two");
}

/* ---- anything ------------------------------------------------------------------------------- */

static const char *const kinds[] = {"series", "drift", "pareto", "stages", "pictures"};
enum { KINDS = sizeof kinds / sizeof *kinds };

static void test_plot__a_scenario_must_be_chosen_where_there_are_several(void **state)
{
    const int64_t run = add_run(NULL);
    cell_spec c = fp16;

    (void)state;
    add_cell(run, &c);
    c.scenario = "evil\x1b[2J";
    add_cell(run, &c);
    for (int i = 0; i < KINDS; i++)
        refuses(kinds[i], (mp_plot_options){0}, MP_EUSAGE,
                "holds 2 scenarios; choose one with --scenario: evil\\x1b[2J, sana");
    draw("drift", (mp_plot_options){.scenario = "evil\x1b[2J"});
    draw("drift", (mp_plot_options){.cells = (const int64_t[]){1, 2}, .cell_count = 2});
    assert_file_has("settings.gp", "heading = \"cells of several scenarios\"\n");
    draw("drift", (mp_plot_options){.cells = (const int64_t[]){1}, .cell_count = 1});
    assert_file_has("settings.gp", "heading = \"sana\"\n");
    refuses("drift", (mp_plot_options){.scenario = "other"}, MP_EMISSING,
            "no finished cell of a scenario 'other'");
}

static void test_plot__an_empty_database_is_told(void **state)
{
    (void)state;
    for (int i = 0; i < KINDS; i++)
        refuses(kinds[i], (mp_plot_options){0}, MP_EMISSING, "record something with `mpbench run`");
}

static void test_plot__draws_hostile_names_as_they_are_and_runs_none_of_them(void **state)
{
    static const char *const names[] = {
        "`touch pwned`",
        "'; system('touch pwned'); '",
        "\".system(\"touch pwned\").\"",
        "$(touch pwned) @x %s <b>&</b> ]]>",
        "'; DROP TABLE cell; --\n\t\x1b[31m",
        "\xff\xfe \xe2\x80\xae odd",
    };
    mp_picture_row picture = grey("output", 1, 2);

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        cell_spec c = fp16;
        char tail[120], pwned[500];
        snprintf(tail, sizeof tail, "precision.default=%s", names[i]);
        c.scenario = names[i];
        c.tail = tail;
        c.pictures = &picture;
        c.picture_count = 1;
        for (int night = 0; night < 2; night++) {
            const int64_t run = add_run(names[i]);
            add_cell(run, &c);
            cell_spec other = c;
            other.tail = "precision.default=fp16";
            add_cell(run, &other);
        }
        for (int k = 0; k < KINDS; k++) {
            char svg[20];
            draw(kinds[k], (mp_plot_options){.scenario = names[i]});
            snprintf(svg, sizeof svg, "%s.svg", kinds[k]);
            if (i == 0)
                assert_file_has(svg, "`touch pwned`");
            if (i == 3)
                assert_file_has(svg, "$(touch pwned) @x %s &lt;b>&amp;&lt;/b> ] ]>");
            snprintf(pwned, sizeof pwned, "%s/pwned", folder);
            assert_int_not_equal(access(pwned, F_OK), 0);
            assert_int_not_equal(access("pwned", F_OK), 0);
        }
    }
    free_rows(&picture, 1);
}

static void test_plot__draws_any_numbers(void **state)
{
    static const double numbers[][2] = {{NAN, NAN},      {0, 0},         {1e308, 5e-324},
                                        {-1e308, 1e308}, {-1, 1},        {1, 1 + 1e-15},
                                        {INFINITY, 1},   {-INFINITY, 0}, {INFINITY, 49.7}};

    (void)state;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        char name[16];
        cell_spec c = {.steps = 2, .seconds = i % 2 ? 1e300 : 1e-300, .peak = 1};
        snprintf(name, sizeof name, "s%zu", i);
        c.scenario = name;
        c.tail = "";
        for (int night = 0; night < 2; night++) {
            c.drift[0] = numbers[i][night];
            c.drift[1] = numbers[i][!night];
            add_cell(add_run(NULL), &c);
        }
        for (int k = 0; k < 4; k++)
            draw(kinds[k], (mp_plot_options){.scenario = name});
    }
}

/* Its ends must differ in the digits that tics have. */
static void test_plot__an_axis_never_shrinks_to_a_point(void **state)
{
    static const double around[] = {0, 1, -3, 1e299};

    (void)state;
    for (size_t i = 0; i < sizeof around / sizeof *around; i++) {
        mp_plot_extent e = {0};
        mp_plot_extend(&e, around[i]);
        mp_plot_extend(&e, around[i] * (1 + 1e-15));
        const mp_plot_axis a = mp_plot_axis_of(&e, false);
        assert_false(a.log);
        assert_true(a.low <= around[i] && a.high - a.low > 0.1 * fabs(around[i]));
        assert_true(a.step > 0 && a.first >= a.low && a.last <= a.high && a.first <= a.last);
    }
}

static void test_plot__every_picture_fits_its_options(void **state)
{
    (void)state;
    add_night();
    add_night();
    for (int k = 0; k < 4; k++) {
        char png[24];
        draw(kinds[k], (mp_plot_options){.png = true, .width = 640, .height = 480});
        snprintf(png, sizeof png, "%s.png", kinds[k]);
        char *bytes = text_of(png, NULL);
        assert_memory_equal(bytes + 16, "\0\0\x02\x80\0\0\x01\xe0", 8);
        free(bytes);
    }
}

static void test_plot__short_memory_is_an_error_and_no_leak(void **state)
{
    mp_picture_row rows[] = {grey("output", 100, 101), grey("reference", 100, 100)};
    cell_spec c = fp16;

    (void)state;
    c.pictures = rows;
    c.picture_count = 2;
    add_cell(add_run(NULL), &c);
    add_cell(add_run(NULL), &c);
    free_rows(rows, 2);
    for (int k = 0; k < KINDS; k++) {
        uint64_t n = 1;
        mp_code code;
        do {
            mp_memory_fail_at(n++);
            code = try_to_draw(kinds[k], (mp_plot_options){0});
            mp_memory_fail_at(0);
            assert_true(code == MP_OK || code == MP_ENOMEM);
        } while (code);
        assert_true(n > 10);
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, begin_database, end_database)
    const struct CMUnitTest tests[] = {
        T(test_plot__drift_places_zeros_below_and_what_is_not_finite_above),
        T(test_plot__drift_names_cells_by_what_tells_them_apart),
        T(test_plot__takes_the_newest_run_or_the_one_that_is_named),
        T(test_plot__more_cells_than_eyes_can_follow_are_told),
        T(test_plot__pareto_knows_which_cells_no_other_one_beats),
        T(test_plot__pareto_turns_around_where_higher_is_better),
        T(test_plot__stages_follow_one_another_in_the_order_of_the_run),
        T(test_plot__pictures_stand_side_by_side_with_their_difference),
        T(test_plot__pictures_say_what_cannot_be_compared),
        T(test_plot__pictures_are_amplified_by_what_differs_usually),
        T(test_plot__series_mark_where_the_bits_and_the_drift_changed),
        T(test_plot__series_do_not_mark_what_changed_elsewhere),
        T(test_plot__series_are_those_of_the_cells_that_are_named),
        T(test_plot__a_series_of_one_run_is_none),
        T(test_plot__a_scenario_must_be_chosen_where_there_are_several),
        T(test_plot__an_empty_database_is_told),
        T(test_plot__draws_hostile_names_as_they_are_and_runs_none_of_them),
        T(test_plot__draws_any_numbers),
        T(test_plot__an_axis_never_shrinks_to_a_point),
        T(test_plot__every_picture_fits_its_options),
        T(test_plot__short_memory_is_an_error_and_no_leak),
    };

    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
