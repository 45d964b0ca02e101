#include "harness/outputs.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "harness/folders.h"
#include "pipelines/common/file.h"
#include "pipelines/common/safetensors.h"
#include "results/metrics.h"

struct mp_outputs {
    mp_safetensors **files;
    int file_count;
    mp_tensor *tensors;
    int count;
};

/* ---- the folder ----------------------------------------------------------------------------- */

mp_code mp_outputs_begin(const char *folder, mp_error *err)
{
    mp_remove_folder(folder); /* what a worker did after its cell was over */
    if (mkdir(folder, 0777))
        return mp_error_set(err, MP_EIO, "%s: cannot be made: %s", folder, strerror(errno));
    return MP_OK;
}

void mp_outputs_end(const char *folder)
{
    mp_remove_folder(folder);
}

/* ---- what an engine wrote ------------------------------------------------------------------- */

typedef struct shape_text {
    char text[8 + 24 * MP_MAX_RANK];
} shape_text;

static shape_text write_shape(int rank, const int64_t *dim)
{
    shape_text s;
    size_t n = (size_t)snprintf(s.text, sizeof s.text, "[");

    for (int i = 0; i < rank; i++)
        n += (size_t)snprintf(s.text + n, sizeof s.text - n, "%s%lld", i ? ", " : "",
                              (long long)dim[i]);
    snprintf(s.text + n, sizeof s.text - n, "]");
    return s;
}

static bool same_shape(const mp_captured *t, mp_tensor x)
{
    bool same = t->rank == x.rank;

    for (int i = 0; same && i < t->rank; i++)
        same = t->dim[i] == x.dim[i];
    return same;
}

/* Pictures are [N, 3, H, W], and the latents of all steps have one shape. */
static mp_code check_meaning(const mp_record *r, const mp_captured *t, mp_error *err)
{
    const bool picture = !strcmp(t->name, "image") || !strcmp(t->name, "frames");
    const mp_captured *first = mp_record_tensor(r, "latents_000");

    if (picture && (t->rank != 4 || t->dim[1] != 3))
        mp_error_set(err, MP_EENGINE, "found %s, expected [N, 3, H, W]",
                     write_shape(t->rank, t->dim).text);
    if (!strncmp(t->name, "latents_", 8) && first && first->rank == t->rank &&
        memcmp(first->dim, t->dim, sizeof t->dim) == 0)
        return err->code;
    if (!strncmp(t->name, "latents_", 8) && first)
        mp_error_set(err, MP_EENGINE, "found %s, expected %s as after the first step",
                     write_shape(t->rank, t->dim).text, write_shape(first->rank, first->dim).text);
    return err->code;
}

static mp_code open_one(const char *folder, const mp_captured *t, mp_outputs *o, mp_error *err)
{
    char path[4096], hash[65];
    mp_safetensors *file = NULL;

    if (strchr(t->file, '/') || t->file[0] == '.' ||
        snprintf(path, sizeof path, "%s/%s", folder, t->file) >= (int)sizeof path)
        return mp_error_set(err, MP_EENGINE, "the file '%s' is no plain name",
                            mp_plain(t->file).text);
    if (mp_safetensors_open(path, &file, err))
        return err->code;
    o->files[o->file_count++] = file; /* closed with o */
    const int64_t at = mp_safetensors_index(file, t->name);
    if (at < 0)
        return mp_error_set(err, MP_EENGINE, "%s has no tensor of that name",
                            mp_plain(t->file).text);
    const mp_tensor x = mp_safetensors_at(file, at);
    if (x.dtype != MP_F32)
        return mp_error_set(err, MP_EENGINE, "%s holds %s, expected F32", mp_plain(t->file).text,
                            mp_plain(mp_safetensors_entry_at(file, at).dtype).text);
    if (!same_shape(t, x))
        return mp_error_set(err, MP_EENGINE, "told as %s, written as %s",
                            write_shape(t->rank, t->dim).text, write_shape(x.rank, x.dim).text);
    if ((uintptr_t)x.data % sizeof(float))
        return mp_error_set(err, MP_EENGINE, "%s has a header that is not padded to 8 bytes",
                            mp_plain(t->file).text);
    mp_sha256_hex(x.data, mp_nbytes(x), hash);
    if (strcmp(hash, t->sha256))
        return mp_error_set(err, MP_EENGINE, "told with the sha256 %.64s, written with %s",
                            mp_plain(t->sha256).text, hash);
    o->tensors[o->count++] = x;
    return MP_OK;
}

mp_code mp_outputs_gather(const char *folder, mp_record *record, mp_outputs **out, mp_error *err)
{
    const size_t room = (size_t)record->tensor_count + 1;
    mp_outputs *o = mp_zeroed(1, sizeof *o);

    o->files = mp_zeroed(room, sizeof *o->files);
    o->tensors = mp_zeroed(room, sizeof *o->tensors);
    *out = o;
    for (int i = 0; i < record->tensor_count; i++) {
        const mp_captured *t = &record->tensors[i];
        mp_error why = {0};
        if (!*t->file || (!check_meaning(record, t, &why) && !open_one(folder, t, o, &why)))
            continue;
        if (why.code == MP_ENOMEM)
            return mp_error_set(err, why.code, "%s", why.text);
        mp_error_set(&record->error, MP_EENGINE,
                     "the engine's tensor '%s' is not as its protocol demands: %s; mend the worker",
                     mp_plain(t->name).text, why.text);
    }
    return MP_OK;
}

/* ---- what there is -------------------------------------------------------------------------- */

mp_code mp_outputs_open(const char *path, mp_outputs **out, mp_error *err)
{
    mp_outputs *o = mp_zeroed(1, sizeof *o);

    *out = NULL;
    o->files = mp_zeroed(1, sizeof *o->files);
    if (mp_safetensors_open(path, o->files, err)) {
        mp_outputs_close(o);
        return err->code;
    }
    o->file_count = 1;
    const int64_t n = mp_safetensors_count(*o->files);
    o->tensors = mp_zeroed((size_t)n + 1, sizeof *o->tensors);
    for (int64_t i = 0; i < n; i++) {
        const mp_tensor t = mp_safetensors_at(*o->files, i);
        if (t.dtype == MP_F32)
            o->tensors[o->count++] = t;
    }
    *out = o;
    return MP_OK;
}

void mp_outputs_close(mp_outputs *o)
{
    if (!o)
        return;
    for (int i = 0; i < o->file_count; i++)
        mp_safetensors_close(o->files[i]);
    free(o->files);
    free(o->tensors);
    free(o);
}

bool mp_outputs_find(const mp_outputs *o, const char *name, mp_tensor *out)
{
    for (int i = 0; o && i < o->count; i++)
        if (!strcmp(o->tensors[i].name, name)) {
            *out = o->tensors[i];
            return true;
        }
    return false;
}

bool mp_outputs_picture(const mp_outputs *o, mp_tensor *out)
{
    return mp_outputs_find(o, "image", out) || mp_outputs_find(o, "frames", out);
}

bool mp_outputs_face(const mp_outputs *o, mp_tensor *out)
{
    const bool image = mp_outputs_find(o, "image", out);

    if ((!image && !mp_outputs_find(o, "frames", out)) || out->rank != 4 || out->dim[1] != 3 ||
        !mp_numel(*out))
        return false;
    *out = mp_batch(*out, image ? 0 : out->dim[0] / 2, 1);
    return true;
}

int mp_outputs_count(const mp_outputs *o)
{
    return o ? o->count : 0;
}

mp_tensor mp_outputs_at(const mp_outputs *o, int i)
{
    return o->tensors[i];
}

int mp_outputs_steps(const mp_outputs *o)
{
    char name[32];
    mp_tensor t;
    int n = 0;

    do
        snprintf(name, sizeof name, "latents_%03d", n);
    while (mp_outputs_find(o, name, &t) && ++n);
    return n;
}

mp_code mp_outputs_save(const mp_outputs *o, const char *path, const char *cell, mp_error *err)
{
    const char *const metadata[] = {"format", "pt", "made_by", "mpbench", cell ? "cell" : NULL,
                                    cell,     NULL};

    return mp_safetensors_write(path, o->tensors, o->count, metadata, err);
}
