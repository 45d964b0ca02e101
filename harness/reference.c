/* References: the run that a cell is measured against, made once and kept by content. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/digest.h"
#include "harness/run.h"
#include "results/metrics.h"

struct mp_reference_memo {
    mp_reference_memo *next;
    const char *key, *trouble;
};

/* The scenario that the reference is: one dtype for all, no quirks, the same inputs. */
static mp_scenario reference_scenario(const mp_scenario *s, bool untiled)
{
    mp_scenario ref = *s;
    const mp_precision plain = {.dtype = s->reference_dtype, .policy = MP_STRICT};

    ref.request.precision = plain;
    ref.request.quirks = NULL;
    if (untiled)
        ref.request.tiling = (mp_tiling){0};
    ref.repeat = 1;
    ref.warmup = 0;
    return ref;
}

/* The content of the input's files: one that is painted over is another input. */
static void add_files(mp_text *t, const mp_input *input)
{
    const char *const single[] = {input->text, NULL};
    const bool many = input->field->type == MP_INPUT_FILES;
    char hash[65];

    if (!many && input->field->type != MP_INPUT_FILE)
        return;
    for (const char *const *s = many ? input->list : single; s && *s; s++) {
        mp_error ignored = {0}; /* one that cannot be read fails in the run, and says why */
        if (!mp_digest_file(*s, hash, &ignored))
            mp_text_printf(t, "%s\n", hash);
    }
}

/* Everything that its bits depend on. */
static const char *reference_key(mp_run *r, const mp_cell *cell, const mp_scenario *ref)
{
    mp_text t = {0};
    char hash[65];

    mp_text_printf(&t, "%s\n%s\n%s\n%s\n", r->referee->identity, cell->checkpoint_hash,
                   ref->pipeline->name, ref->request.variant ? ref->request.variant : "");
    mp_text_printf(
        &t, "%s\ntiling %d %lld %lld %lld %lld\n", mp_dtype_name(ref->request.precision.dtype),
        ref->request.tiling.on, (long long)ref->request.tiling.tile_height,
        (long long)ref->request.tiling.tile_width, (long long)ref->request.tiling.stride_height,
        (long long)ref->request.tiling.stride_width);
    for (int i = 0; i < ref->setting_count; i++)
        if (!strncmp(ref->settings[i].key, "inputs.", 7))
            mp_text_printf(&t, "%s=%s\n", ref->settings[i].key, ref->settings[i].value);
    for (int i = 0; i < ref->request.input_count; i++)
        add_files(&t, &ref->request.inputs[i]);
    mp_sha256_hex(t.data, t.length, hash);
    mp_text_free(&t);
    return mp_arena_strdup(r->arena, hash);
}

static const char *reference_file(mp_run *r, const char *key)
{
    return mp_arena_printf(r->arena, "%s/reference-%.40s.safetensors", r->cache, key);
}

/* Runs it.  *trouble: why it gave nothing to measure by. */
static mp_code execute(mp_run *r, const mp_scenario *ref, mp_execution *e, mp_outputs **out,
                       const char **trouble, mp_error *err)
{
    mp_cell_result result = {0};

    if (mp_run_engine(r, r->referee, ref, 0, e, out, err))
        return err->code;
    mp_judge_end(r->arena, e, ref, *out, &result);
    if (strcmp(result.status, "ok"))
        *trouble = mp_arena_printf(r->arena, "%s: %s", result.status,
                                   result.error ? result.error : "interrupted");
    return MP_OK;
}

/* The same with the initial noise moved by one ulp: what the reference itself is good for. */
static mp_code measure_floor(mp_run *r, const mp_scenario *ref, const mp_outputs *x,
                             mp_reference_row *row, mp_error *err)
{
    mp_scenario moved = *ref;
    mp_execution e;
    mp_outputs *y = NULL;
    const char *trouble = NULL;

    moved.request.noise_ulps = 1;
    row->floor_latents = row->floor_image = NAN;
    execute(r, &moved, &e, &y, &trouble, err);
    if (!err->code && !trouble) {
        const mp_distance d = mp_measure_distance(y, x);
        row->floor_latents = d.latents;
        row->floor_image = d.image;
    }
    mp_outputs_close(y);
    mp_record_free(&e.record);
    return err->code;
}

static mp_code make(mp_run *r, const mp_scenario *ref, const char *key, const char *file,
                    const char **trouble, mp_error *err)
{
    mp_reference_row row = {.key = key};
    mp_execution e;
    mp_outputs *x = NULL;
    char hash[65];
    float value;

    fprintf(stderr, "      making the %s reference\n", mp_dtype_name(ref->request.precision.dtype));
    execute(r, ref, &e, &x, trouble, err);
    if (!err->code && !*trouble) {
        row.finite = mp_measure_finite(x);
        row.constant = mp_measure_constant(x, &value);
        if (!measure_floor(r, ref, x, &row, err) && !mp_interrupted() &&
            !mp_outputs_save(x, file, NULL, err) && !mp_digest_file(file, hash, err)) {
            row.file_sha256 = hash;
            mp_store_put_reference(r->store, &row, err);
        }
    }
    mp_outputs_close(x);
    mp_record_free(&e.record);
    return err->code;
}

/* True when the file is the one that the database knows. */
static bool intact(const char *file, const char *sha256)
{
    mp_error why = {0};
    char hash[65];

    return !access(file, R_OK) && !mp_digest_file(file, hash, &why) && !strcmp(hash, sha256);
}

static mp_code recall(mp_run *r, const char *key, const char *file, mp_reference_row *row,
                      bool *found, mp_error *err)
{
    char *hash = mp_arena_alloc(r->arena, 65, 1);

    if (mp_store_get_reference(r->store, key, row, hash, found, err))
        return err->code;
    *found = *found && intact(file, hash);
    return MP_OK;
}

static mp_reference_memo *memo_of(mp_run *r, const char *key)
{
    mp_reference_memo *m = r->references;

    while (m && strcmp(m->key, key))
        m = m->next;
    if (!m) {
        m = mp_arena_alloc(r->arena, 1, sizeof *m);
        *m = (mp_reference_memo){.next = r->references, .key = key};
        r->references = m;
    }
    return m;
}

mp_code mp_run_reference(mp_run *r, const mp_cell *cell, bool untiled, mp_outputs **out,
                         mp_reference_row *row, const char **trouble, mp_error *err)
{
    const mp_scenario ref = reference_scenario(&cell->scenario, untiled);
    const char *key = reference_key(r, cell, &ref), *file = reference_file(r, key);
    mp_reference_memo *memo = memo_of(r, key);
    bool found = false;

    *out = NULL;
    *trouble = memo->trouble;
    if (memo->trouble || recall(r, key, file, row, &found, err))
        return err->code;
    if (!found &&
        (make(r, &ref, key, file, &memo->trouble, err) || recall(r, key, file, row, &found, err)))
        return err->code;
    if (!found && !memo->trouble)
        memo->trouble = "it was interrupted";
    *trouble = memo->trouble;
    return found ? mp_outputs_open(file, out, err) : MP_OK;
}
