/* A safetensors file, mapped read-only and checked before anything is believed.
 *
 * Refused, each with file, place and remedy: a header longer than the file, no JSON, a duplicate or
 * unknown key, an unknown dtype, a shape whose product overflows, offsets that are reversed, out of
 * bounds, overlapping, leave holes, or disagree with dtype and shape.
 *
 * Dtypes of the format that are none of ours (I64, BOOL ...) and ranks above MP_MAX_RANK are legal
 * in a file: mp_safetensors_entry_at tells all of any tensor, while as mp_tensor such a one has
 * dtype and store MP_DTYPE_COUNT, and rank at most MP_MAX_RANK.
 *
 * Data stays where the file has it, so a file whose header is not padded gives tensors that are not
 * aligned to their dtype; mp_weights copies those.  Nobody may shorten a file while it is mapped:
 * reading beyond its new end is SIGBUS, which no check here can prevent. */
#ifndef MP_PIPELINES_COMMON_SAFETENSORS_H
#define MP_PIPELINES_COMMON_SAFETENSORS_H

#include "kernels/core/status.h"
#include "kernels/core/tensor.h"

typedef struct mp_safetensors mp_safetensors;

typedef struct mp_safetensors_entry {
    const char *name;
    const char *dtype; /* as the file says: "BF16", "I64" */
    const int64_t *dims;
    int64_t rank;
    const void *data;
    size_t bytes;
} mp_safetensors_entry;

mp_code mp_safetensors_open(const char *path, mp_safetensors **out, mp_error *err);
void mp_safetensors_close(mp_safetensors *s); /* unmaps: every view of it dies; NULL is fine */
/* Gives its pages back to the system; they come again where they are read. */
void mp_safetensors_forget(mp_safetensors *s);
/* Bytes of its pages that are in this process's memory; 0 where the system does not tell. */
size_t mp_safetensors_resident(const mp_safetensors *s);
const char *mp_safetensors_path(const mp_safetensors *s);
int64_t mp_safetensors_count(const mp_safetensors *s);
size_t mp_safetensors_bytes(const mp_safetensors *s); /* of the file */
/* In the order of their offsets.  The tensor's name is the file's key. */
mp_tensor mp_safetensors_at(const mp_safetensors *s, int64_t i);
mp_safetensors_entry mp_safetensors_entry_at(const mp_safetensors *s, int64_t i);
/* False when there is none of that name. */
bool mp_safetensors_find(const mp_safetensors *s, const char *name, mp_tensor *out);
/* The index for mp_safetensors_at, -1 when there is none of that name. */
int64_t mp_safetensors_index(const mp_safetensors *s, const char *name);
/* Value of a "__metadata__" key, or NULL. */
const char *mp_safetensors_metadata(const mp_safetensors *s, const char *key);

/* Writes tensors (names from mp_tensor.name, dtypes from store) to path through a temporary file in
 * the same folder and a rename, so that a reader never sees half a file.  Larger dtypes come first,
 * so that every tensor is aligned.  metadata: NULL-terminated key, value, ... pairs, or NULL. */
mp_code mp_safetensors_write(const char *path, const mp_tensor *tensors, int64_t n,
                             const char *const *metadata, mp_error *err);
/* One tensor likewise, in a file that this run alone reads: nobody waits for the disk. */
mp_code mp_safetensors_write_scratch(const char *path, mp_tensor x, mp_error *err);

/* For a file that is written piece by piece: what it begins with, into *text (mp_free) of *size
 * bytes.  tensors, without data, come back in the order in which their data follows. */
mp_code mp_safetensors_head(const char *path, mp_tensor *tensors, int64_t n,
                            const char *const *metadata, char **text, size_t *size, mp_error *err);

#endif
