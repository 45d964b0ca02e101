#include "harness/folders.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

mp_code mp_make_folders(const char *path, mp_error *err)
{
    mp_text t = {0};
    int why = 0; /* of the first that cannot be made: those below it only say that it is missing */

    for (const char *s = path; *s;) {
        const size_t n = strcspn(s, "/") + (s[strcspn(s, "/")] == '/');
        mp_text_add_n(&t, s, n);
        s += n;
        if (!mkdir(t.data, 0777) || errno == EEXIST || errno == EISDIR)
            continue;
        why = why ? why : errno;
        if (*s == '\0')
            mp_error_set(err, MP_EIO,
                         "%s: the folder cannot be made: %s; name another one, or make the one "
                         "above it writable",
                         path, strerror(why));
    }
    mp_text_free(&t);
    return err->code;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *place)
{
    (void)st;
    (void)kind;
    (void)place;
    remove(path);
    return 0; /* where one cannot be removed, the rest may be */
}

void mp_remove_folder(const char *path)
{
    enum { OPEN_FOLDERS = 8 };

    nftw(path, remove_one, OPEN_FOLDERS, FTW_DEPTH | FTW_PHYS);
}

/* ---- scratch -------------------------------------------------------------------------------- */

#define SCRATCH "run-"

/* -1: another process holds it. */
static int lock_folder(const char *folder)
{
    const int fd = open(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB)) {
        close(fd);
        return -1;
    }
    return fd;
}

/* A lock ends with its process, so what can be locked is nobody's. */
static void remove_leftovers(mp_arena *a, const char *cache)
{
    DIR *d = opendir(cache);

    for (const struct dirent *e; d && (e = readdir(d));) {
        if (strncmp(e->d_name, SCRATCH, strlen(SCRATCH)) != 0)
            continue;
        const char *folder = mp_arena_printf(a, "%s/%s", cache, e->d_name);
        const int lock = lock_folder(folder);
        if (lock < 0)
            continue;
        mp_remove_folder(folder);
        close(lock);
    }
    if (d)
        closedir(d);
}

mp_code mp_scratch_open(mp_arena *a, const char *cache, mp_scratch *out, mp_error *err)
{
    enum { TRIES = 100 }; /* another run may take a folder for a leftover before it is locked */
    char *folder = mp_arena_printf(a, "%s/" SCRATCH "XXXXXX", cache);
    struct stat st;

    *out = (mp_scratch){.lock = -1};
    remove_leftovers(a, cache);
    for (int i = 0; i < TRIES; i++) {
        memcpy(folder + strlen(folder) - 6, "XXXXXX", 6);
        if (!mkdtemp(folder))
            break;
        out->lock = lock_folder(folder);
        if (out->lock >= 0 && !fstat(out->lock, &st) && st.st_nlink > 0) {
            out->folder = folder;
            return MP_OK;
        }
        if (out->lock >= 0)
            close(out->lock);
    }
    out->lock = -1;
    return mp_error_set(err, MP_EIO,
                        "%s: no folder can be made in it: %s; make it writable, or name another "
                        "one with MPBENCH_CACHE",
                        cache, strerror(errno));
}

void mp_scratch_close(mp_scratch *s)
{
    if (!s->folder)
        return;
    mp_remove_folder(s->folder);
    close(s->lock);
    *s = (mp_scratch){.lock = -1};
}

const char *mp_find_program(mp_arena *a, const char *name)
{
    const char *path = getenv("PATH");

    for (path = path ? path : ""; *path;) {
        const size_t n = strcspn(path, ":");
        const char *file = mp_arena_printf(a, "%.*s/%s", (int)n, path, name);
        if (n && !access(file, X_OK))
            return file;
        path += n + (path[n] == ':');
    }
    return NULL;
}
