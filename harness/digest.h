/* Content hashes.  Of checkpoints: SHA-256 of each file, remembered by path, size, inode and time,
 * so that a checkpoint of 10 GB is read once and not for every run. */
#ifndef MP_HARNESS_DIGEST_H
#define MP_HARNESS_DIGEST_H

#include "harness/arena.h"
#include "kernels/core/status.h"

/* Over the names and contents of the folder's regular files, two levels deep; hidden files are
 * left out.  cache: a folder for the remembered hashes. */
mp_code mp_digest_folder(mp_arena *a, const char *cache, const char *folder, char out[65],
                         mp_error *err);
mp_code mp_digest_file(const char *path, char out[65], mp_error *err);
/* What tells this program from another build: the hash of its contents that the linker has put
 * into it (`readelf -n`, "Build ID"), there at once; without one, the SHA-256 of its file. */
void mp_digest_program(char out[65]);

#endif
