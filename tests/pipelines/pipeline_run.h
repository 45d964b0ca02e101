/* One generation through a pipeline and everything that leaves through its sink.
 *
 *     cell k;
 *     cell_init(&k, MP_FIXTURES "/checkpoints/sana-tiny");
 *     cell_number(&k, "seed", 8);
 *     trace t;
 *     assert_ok(cell_run(&k, c, &t));
 *     ... trace_find(&t, "latents_005") ...
 *     trace_free(&t);
 */
#ifndef MP_TESTS_PIPELINES_PIPELINE_RUN_H
#define MP_TESTS_PIPELINES_PIPELINE_RUN_H

#include "tests/pipelines/scratch.h"

#include <dirent.h>
#include <sys/stat.h>

#include "kernels/device.h"
#include "pipelines/common/pipeline.h"
#include "tests/support/mp_test.h"

#define TINY MP_FIXTURES "/checkpoints/sana-tiny"

enum { CELL_INPUTS = 32, CELL_COMPONENTS = 8, TRACE_TENSORS = 16 };

/* ---- what is asked --------------------------------------------------------------------------- */

typedef struct cell {
    const mp_pipeline_def *pipeline;
    mp_request request;
    mp_input inputs[CELL_INPUTS];
    mp_component_dtype components[CELL_COMPONENTS];
} cell;

static inline const mp_pipeline_def *sana(void)
{
    const mp_pipeline_def *const p = mp_pipeline_find("sana");

    assert_non_null(p);
    return p;
}

static inline mp_input *cell_input(cell *k, const char *name)
{
    for (int i = 0; i < k->request.input_count; i++)
        if (!strcmp(k->inputs[i].field->name, name))
            return &k->inputs[i];
    fail_msg("%s has no input %s", k->pipeline->name, name);
    return NULL;
}

static inline void cell_number(cell *k, const char *name, double value)
{
    cell_input(k, name)->number = value;
}

static inline void cell_text(cell *k, const char *name, const char *value)
{
    cell_input(k, name)->text = value;
}

/* The whole cell in one dtype. */
static inline void cell_dtype(cell *k, mp_dtype d)
{
    k->request.precision.dtype = d;
    for (int i = 0; i < k->request.precision.component_count; i++)
        k->components[i].dtype = d;
}

static inline void cell_tiles(cell *k, bool on)
{
    k->request.tiling = on ? (mp_tiling){true, 32, 32, 28, 28} : (mp_tiling){0};
}

/* Every input at its default, every component in fp32.  k must stay where it is: the request points
 * into it. */
static inline void cell_defaults(cell *k, const mp_pipeline_def *p, const char *checkpoint)
{
    int components = 0;

    *k = (cell){.pipeline = p, .request = {.checkpoint = checkpoint}};
    assert_in_range(p->input_count, 1, CELL_INPUTS);
    for (; p->components[components]; components++) {
        assert_in_range(components, 0, CELL_COMPONENTS - 1);
        k->components[components] = (mp_component_dtype){p->components[components], MP_F32};
    }
    for (int i = 0; i < p->input_count; i++) {
        const mp_input_field *const f = &p->inputs[i];
        k->inputs[i] = (mp_input){
            .field = f, .number = f->fallback, .text = f->fallback_text, .list = f->fallback_list};
    }
    k->request.inputs = k->inputs;
    k->request.input_count = p->input_count;
    k->request.precision.components = k->components;
    k->request.precision.component_count = components;
}

/* The call of all goldens (sana_run.py, CALL) in fp32, seed 7, without tiles. */
static inline void cell_init(cell *k, const char *checkpoint)
{
    cell_defaults(k, sana(), checkpoint);
    cell_text(k, "prompt", "a photo of a red fox");
    cell_number(k, "height", 64);
    cell_number(k, "width", 64);
    cell_number(k, "num_inference_steps", 6);
    cell_number(k, "guidance_scale", 4.5);
    cell_number(k, "use_resolution_binning", 0);
    cell_number(k, "seed", 7);
}

/* ---- what comes out -------------------------------------------------------------------------- */

typedef struct traced {
    char name[24];
    mp_tensor tensor; /* fp32; data is owned */
    mp_dtype held;
} traced;

typedef struct trace {
    traced tensors[TRACE_TENSORS];
    int count;
    int steps_done, steps; /* of the last call of `step` */
    char stages[128];      /* "+load -load +text_encode ..." */
    char warnings[512];
    mp_weights_stats weights;
    mp_error err;
} trace;

static inline void trace_note(char *text, size_t size, const char *mark, const char *word)
{
    const size_t at = strlen(text);

    snprintf(text + at, size - at, "%s%s%s", at ? " " : "", mark, word);
}

static inline void trace_begin(void *user, const char *stage)
{
    trace *const t = user;
    trace_note(t->stages, sizeof t->stages, "+", stage);
}

static inline void trace_end(void *user, const char *stage)
{
    trace *const t = user;
    trace_note(t->stages, sizeof t->stages, "-", stage);
}

static inline void trace_warn(void *user, const char *text)
{
    trace *const t = user;
    trace_note(t->warnings, sizeof t->warnings, "", text);
}

static inline void trace_step(void *user, int step, int steps)
{
    trace *const t = user;

    assert_int_equal(step, t->steps_done);
    t->steps_done = step + 1;
    t->steps = steps;
}

static inline void trace_tensor(void *user, const char *name, mp_tensor fp32, mp_dtype held)
{
    trace *const t = user;

    assert_in_range(t->count, 0, TRACE_TENSORS - 1);
    assert_int_equal(fp32.dtype, MP_F32);
    traced *const r = &t->tensors[t->count++];
    snprintf(r->name, sizeof r->name, "%s", name);
    r->tensor = fp32;
    r->held = held;
    r->tensor.data = malloc(mp_nbytes(fp32)); /* not of the memory that a test lets fail */
    assert_non_null(r->tensor.data);
    memcpy(r->tensor.data, fp32.data, mp_nbytes(fp32));
}

static inline mp_sink trace_sink(trace *t)
{
    return (mp_sink){t, trace_begin, trace_end, trace_step, trace_tensor, trace_warn};
}

static inline void trace_free(trace *t)
{
    for (int i = 0; i < t->count; i++)
        free(t->tensors[i].tensor.data);
    t->count = 0;
}

static inline const traced *trace_find(const trace *t, const char *name)
{
    for (int i = 0; i < t->count; i++)
        if (!strcmp(t->tensors[i].name, name))
            return &t->tensors[i];
    fail_msg("the pipeline gave no %s", name);
    return NULL;
}

/* Opens, generates, closes; the error is t->err. */
static inline const mp_error *cell_run(const cell *k, mp_ctx *c, trace *t)
{
    const mp_pipeline_def *const p = k->pipeline;
    void *pipeline = NULL;

    *t = (trace){0};
    const mp_sink sink = trace_sink(t);
    mp_ctx_clear(c);
    if (p->open(c, &k->request, &sink, &pipeline, &t->err))
        return &t->err;
    t->weights = mp_pipeline_weights(p, pipeline);
    p->generate(c, pipeline, &sink, &t->err);
    p->close(pipeline);
    return &t->err;
}

/* ---- distances ------------------------------------------------------------------------------- */

static inline double trace_distance(const trace *a, const trace *b, const char *name)
{
    const traced *const x = trace_find(a, name), *const y = trace_find(b, name);

    assert_true(mp_same_shape(x->tensor, y->tensor));
    return mp_rel_l2(x->tensor.data, y->tensor.data, mp_numel(x->tensor));
}

/* Against tensor `golden` of a file, fp32 as Diffusers made it. */
static inline double trace_error(const trace *t, const char *name, const mp_safetensors *g,
                                 const char *golden)
{
    const traced *const x = trace_find(t, name);
    const mp_tensor y = mp_test_golden(g, "%s", golden);

    assert_int_equal(y.store, MP_F32);
    if (!mp_same_shape(x->tensor, y)) {
        char is[96], expected[96];
        fail_msg("%s is %s, expected %s", name, mp_shape_text(x->tensor, is, sizeof is),
                 mp_shape_text(y, expected, sizeof expected));
    }
    return mp_rel_l2(x->tensor.data, y.data, mp_numel(y));
}

/* The same tensors under the same names, bit for bit. */
static inline void trace_same(const trace *a, const trace *b, const char *what)
{
    assert_int_equal(a->count, b->count);
    for (int i = 0; i < a->count; i++) {
        const traced *const x = &a->tensors[i], *const y = &b->tensors[i];
        assert_string_equal(x->name, y->name);
        assert_true(mp_same_shape(x->tensor, y->tensor));
        if (memcmp(x->tensor.data, y->tensor.data, mp_nbytes(x->tensor)))
            fail_msg("%s: %s differs by %.3g", what, x->name, trace_distance(a, b, x->name));
    }
}

static inline bool trace_finite(const trace *t, const char *name)
{
    const traced *const x = trace_find(t, name);
    const float *const v = x->tensor.data;

    for (int64_t i = 0; i < mp_numel(x->tensor); i++)
        if (v[i] - v[i] != 0) /* NaN or infinite */
            return false;
    return true;
}

/* ---- checkpoints of one's own ---------------------------------------------------------------- */

typedef struct joined {
    char text[1024];
} joined;

static inline joined path_join(const char *dir, const char *name)
{
    joined p;

    assert_in_range(snprintf(p.text, sizeof p.text, "%s/%s", dir, name), 1, sizeof p.text - 1);
    return p;
}

/* A new folder with links to all that is in `from`. */
static inline void folder_mirror(const char *dir, const char *from)
{
    DIR *const d = opendir(from);

    assert_non_null(d);
    assert_int_equal(mkdir(dir, 0700), 0);
    for (const struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.')
            assert_int_equal(
                symlink(path_join(from, e->d_name).text, path_join(dir, e->d_name).text), 0);
    closedir(d);
}

/* A folder in the scratch folder with sana-tiny's parts as links; what a test replaces, it replaces
 * in files of its own (checkpoint_own).  Valid until eight calls of scratch later. */
static inline const char *checkpoint_make(const char *name)
{
    const char *const dir = scratch(name);

    folder_mirror(dir, TINY);
    return dir;
}

static inline void checkpoint_remove(const char *dir, const char *part)
{
    assert_int_equal(unlink(path_join(dir, part).text), 0);
}

/* part becomes a link to the folder (or file) `from`. */
static inline void checkpoint_link(const char *dir, const char *part, const char *from)
{
    checkpoint_remove(dir, part);
    assert_int_equal(symlink(from, path_join(dir, part).text), 0);
}

/* part becomes a folder of its own with links to the files of `from`, a NULL-terminated list. */
static inline void checkpoint_own(const char *dir, const char *part, const char *from,
                                  const char *const *files)
{
    const joined own = path_join(dir, part);

    checkpoint_remove(dir, part);
    assert_int_equal(mkdir(own.text, 0700), 0);
    for (; *files; files++)
        assert_int_equal(symlink(path_join(from, *files).text, path_join(own.text, *files).text),
                         0);
}

/* The first n bytes of a file (all of it: n < 0) as a NUL-terminated copy (free). */
static inline char *file_start(const char *path, long n, size_t *size)
{
    FILE *const f = fopen(path, "rb");

    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    const long all = ftell(f);
    *size = (size_t)(n < 0 || n > all ? all : n);
    char *const bytes = calloc(1, *size + 1);
    assert_non_null(bytes);
    rewind(f);
    assert_int_equal(fread(bytes, 1, *size, f), *size);
    fclose(f);
    return bytes;
}

static inline void file_write(const char *name, const char *bytes, size_t n)
{
    FILE *const f = fopen(name, "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

/* dir/file becomes the first n bytes of the file `from`. */
static inline void checkpoint_cut(const char *dir, const char *file, const char *from, long n)
{
    size_t size;
    char *const bytes = file_start(from, n, &size);

    file_write(path_join(dir, file).text, bytes, size);
    free(bytes);
}

/* dir/file becomes the text file `from` with the only occurrence of `old` replaced. */
static inline void checkpoint_edit(const char *dir, const char *file, const char *from,
                                   const char *old, const char *new)
{
    size_t size;
    char *const text = file_start(from, -1, &size);
    char *const at = strstr(text, old);

    if (!at)
        fail_msg("%s has no %s", from, old);
    assert_null(strstr(at + 1, old));
    const size_t before = (size_t)(at - text), after = size - before - strlen(old);
    char *const edited = calloc(1, size + strlen(new) + 1);
    assert_non_null(edited);
    memcpy(edited, text, before);
    memcpy(edited + before, new, strlen(new));
    memcpy(edited + before + strlen(new), at + strlen(old), after);
    file_write(path_join(dir, file).text, edited, before + strlen(new) + after);
    free(edited);
    free(text);
}

#endif
