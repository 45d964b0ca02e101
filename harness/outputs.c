#include "harness/outputs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pipelines/common/safetensors.h"

struct mp_outputs {
    mp_safetensors *file; /* or: */
    void *map;
    size_t bytes;
    mp_tensor *tensors;
    int count;
};

static mp_code map_file(const char *path, mp_outputs *o, mp_error *err)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;

    if (fd < 0 || fstat(fd, &st)) {
        mp_error_set(err, MP_EIO, "%s: cannot be read: %s", path, strerror(errno));
    } else if (st.st_size > 0) {
        o->bytes = (size_t)st.st_size;
        o->map = mmap(NULL, o->bytes, PROT_READ, MAP_SHARED, fd, 0);
        if (o->map == MAP_FAILED) {
            o->map = NULL;
            mp_error_set(err, MP_ENOMEM, "%s: cannot be mapped: %s", path, strerror(errno));
        }
    }
    if (fd >= 0)
        close(fd);
    return err->code;
}

/* Bytes of the tensor, 0 when its shape is nonsense or the file does not hold it. */
static size_t bytes_within(const mp_captured *t, size_t file)
{
    size_t n = sizeof(float);

    for (int i = 0; i < t->rank; i++)
        if (t->dim[i] < 1 || __builtin_mul_overflow(n, (size_t)t->dim[i], &n))
            return 0;
    if (t->offset < 0 || t->offset % (int64_t)sizeof(float) || (size_t)t->offset > file ||
        n > file - (size_t)t->offset)
        return 0;
    return n;
}

mp_code mp_outputs_map(const char *path, const mp_record *record, mp_outputs **out, mp_error *err)
{
    mp_outputs *o = mp_zeroed(1, sizeof *o);

    *out = NULL;
    if (map_file(path, o, err)) {
        mp_outputs_close(o);
        return err->code;
    }
    o->tensors = mp_zeroed((size_t)record->tensor_count + 1, sizeof *o->tensors);
    for (int i = 0; i < record->tensor_count; i++) {
        const mp_captured *t = &record->tensors[i];
        if (!bytes_within(t, o->bytes))
            continue;
        o->tensors[o->count] = mp_view((char *)o->map + t->offset, MP_F32, t->rank, t->dim);
        o->tensors[o->count++].name = t->name;
    }
    *out = o;
    return MP_OK;
}

mp_code mp_outputs_open(const char *path, mp_outputs **out, mp_error *err)
{
    mp_outputs *o = mp_zeroed(1, sizeof *o);

    *out = NULL;
    if (mp_safetensors_open(path, &o->file, err)) {
        mp_outputs_close(o);
        return err->code;
    }
    const int64_t n = mp_safetensors_count(o->file);
    o->tensors = mp_zeroed((size_t)n + 1, sizeof *o->tensors);
    for (int64_t i = 0; i < n; i++) {
        const mp_tensor t = mp_safetensors_at(o->file, i);
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
    mp_safetensors_close(o->file);
    if (o->map)
        munmap(o->map, o->bytes);
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

mp_code mp_outputs_save(const mp_outputs *o, const char *path, mp_error *err)
{
    static const char *const metadata[] = {"format", "pt", "made_by", "mpbench", NULL};

    return mp_safetensors_write(path, o->tensors, o->count, metadata, err);
}
