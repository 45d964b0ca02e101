/* The workers that this program carries, as files that an interpreter can read. */
#ifndef MP_HARNESS_ENGINES_WORKER_FILES_H
#define MP_HARNESS_ENGINES_WORKER_FILES_H

#include "harness/arena.h"
#include "kernels/core/status.h"

/* Writes worker.py and all workers into a folder of the cache that is named by their content, once.
 * *out: the file of worker `name`, or the folder for NULL. */
mp_code mp_worker_files_write(mp_arena *a, const char *cache, const char **out, const char *name,
                              mp_error *err);

#endif
