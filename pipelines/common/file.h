/* Whole files: read in one piece, replaced in one step; and file content made fit for a message. */
#ifndef MP_PIPELINES_COMMON_FILE_H
#define MP_PIPELINES_COMMON_FILE_H

#include <stddef.h>

#include "kernels/core/status.h"

typedef struct mp_plain_line {
    char text[160];
} mp_plain_line;

/* Text out of a file as one short printable line: control characters, also those that reorder
 * text, become \xNN, and what is long ends in "...".  For use inside a call:
 *
 *     mp_error_set(err, MP_EFORMAT, "%s: tensor \"%s\" ...", path, mp_plain(name).text);
 */
mp_plain_line mp_plain(const char *text);

/* True when path names a regular file (or a link to one). */
bool mp_file_exists(const char *path);
/* "dir/name" into a new string (mp_free), NULL when memory is short. */
char *mp_file_join(const char *dir, const char *name);
/* Opens a regular file for reading: *fd and *size.  A folder, pipe or device is refused. */
mp_code mp_file_open(const char *path, int *fd, size_t *size, mp_error *err);
/* A file of at most `limit` bytes into *text (mp_free), with a NUL after it. */
mp_code mp_file_read(const char *path, size_t limit, char **text, size_t *size, mp_error *err);

/* A file that appears under its name only when it is complete.  Either mp_replace_commit or
 * mp_replace_abort ends it; after an error of write or commit nothing is left behind. */
typedef struct mp_replace {
    char *path, *temporary;
    int fd;
    bool scratch; /* set by the caller: it need not outlive a power cut */
    mp_code failed;
} mp_replace;

mp_code mp_replace_begin(mp_replace *r, const char *path, mp_error *err);
mp_code mp_replace_write(mp_replace *r, const void *data, size_t n, mp_error *err);
mp_code mp_replace_commit(mp_replace *r, mp_error *err);
void mp_replace_abort(mp_replace *r);

#endif
