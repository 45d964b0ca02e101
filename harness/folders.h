/* Folders that come and go. */
#ifndef MP_HARNESS_FOLDERS_H
#define MP_HARNESS_FOLDERS_H

#include "harness/arena.h"
#include "kernels/core/status.h"

/* Makes a folder and those above it. */
mp_code mp_make_folders(const char *path, mp_error *err);
/* With all that is in it; links are removed and not followed. */
void mp_remove_folder(const char *path);

/* The path of a program in PATH, NULL when there is none. */
const char *mp_find_program(mp_arena *a, const char *name);

/* A folder in `cache` for this run alone, whatever other run, machine or container shares the
 * cache. Those of runs that were killed are removed on the way. */
typedef struct mp_scratch {
    const char *folder;
    int lock; /* held while the run lives */
} mp_scratch;
mp_code mp_scratch_open(mp_arena *a, const char *cache, mp_scratch *out, mp_error *err);
void mp_scratch_close(mp_scratch *s);

#endif
