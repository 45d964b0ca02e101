/* The outputs of one generation, wherever they lie: the files that an engine wrote, one for each
 * tensor, or one stored safetensors file.  All are fp32. */
#ifndef MP_HARNESS_OUTPUTS_H
#define MP_HARNESS_OUTPUTS_H

#include "harness/record.h"

typedef struct mp_outputs mp_outputs;

/* An empty folder for an engine to write into, whatever was there, and its end. */
mp_code mp_outputs_begin(const char *folder, mp_error *err);
void mp_outputs_end(const char *folder);
/* Opens the files that the record tells of; they may be removed then.  A tensor that is not there,
 * or not as it was told, is left out, and the record has that as its error: MP_EENGINE. */
mp_code mp_outputs_gather(const char *folder, mp_record *record, mp_outputs **out, mp_error *err);
/* Opens what mp_outputs_save made. */
mp_code mp_outputs_open(const char *path, mp_outputs **out, mp_error *err);
void mp_outputs_close(mp_outputs *o); /* NULL is fine */

/* False: there is none of that name.  The view dies with o. */
bool mp_outputs_find(const mp_outputs *o, const char *name, mp_tensor *out);
/* "image", or the "frames" of a video: [N, 3, H, W] in 0..1. */
bool mp_outputs_picture(const mp_outputs *o, mp_tensor *out);
/* One of them for people: of several images the first, of a video the frame in the middle.  False:
 * there is none. */
bool mp_outputs_face(const mp_outputs *o, mp_tensor *out);
int mp_outputs_count(const mp_outputs *o);
mp_tensor mp_outputs_at(const mp_outputs *o, int i);
/* "latents_000", "latents_001" ... that are there. */
int mp_outputs_steps(const mp_outputs *o);

/* As a safetensors file, in one step.  cell: the id for its metadata; NULL: none, for a file whose
 * bytes are to depend on the tensors alone. */
mp_code mp_outputs_save(const mp_outputs *o, const char *path, const char *cell, mp_error *err);

#endif
