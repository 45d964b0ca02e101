#include "harness/digest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "results/metrics.h"

enum { BLOCK = 1 << 18, REMEMBERED = 1 << 22, MAX_DEPTH = 2 };

mp_code mp_digest_file(const char *path, char out[65], mp_error *err)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *block = mp_zeroed(BLOCK, 1);
    mp_sha256 h;
    ssize_t n = -1;

    mp_sha256_init(&h);
    while (fd >= 0 && (n = read(fd, block, BLOCK)) != 0) {
        if (n < 0 && errno != EINTR)
            break;
        if (n > 0)
            mp_sha256_update(&h, block, (size_t)n);
    }
    const int why = errno;
    free(block);
    if (fd >= 0)
        close(fd);
    if (n != 0)
        return mp_error_set(err, MP_EIO, "%s: cannot be read: %s", path, strerror(why));
    mp_sha256_final(&h, out);
    return MP_OK;
}

/* The remembered hash of a large file, or its own. */
static mp_code digest(mp_arena *a, const char *cache, const char *path, const struct stat *st,
                      char out[65], mp_error *err)
{
    char key[65];
    const char *identity = mp_arena_printf(a, "%s\n%lld\n%llu\n%lld.%09ld", path,
                                           (long long)st->st_size, (unsigned long long)st->st_ino,
                                           (long long)st->st_mtim.tv_sec, st->st_mtim.tv_nsec);
    FILE *f;

    if (st->st_size < REMEMBERED)
        return mp_digest_file(path, out, err);
    mp_sha256_hex(identity, strlen(identity), key);
    const char *memo = mp_arena_printf(a, "%s/digest-%.32s", cache, key);
    if ((f = fopen(memo, "re"))) {
        const size_t n = fread(out, 1, 64, f);
        fclose(f);
        out[64] = '\0';
        if (n == 64 && strspn(out, "0123456789abcdef") == 64)
            return MP_OK;
    }
    if (mp_digest_file(path, out, err))
        return err->code;
    if ((f = fopen(memo, "we"))) { /* only a help: a failure costs time, nothing else */
        fwrite(out, 1, 64, f);
        fclose(f);
    }
    return MP_OK;
}

static int by_name(const struct dirent **x, const struct dirent **y)
{
    return strcmp((*x)->d_name, (*y)->d_name);
}

static mp_code add_folder(mp_arena *a, const char *cache, const char *folder, const char *inside,
                          int depth, mp_sha256 *h, mp_error *err)
{
    struct dirent **entries;
    const int n = scandir(folder, &entries, NULL, by_name);

    if (n < 0)
        return mp_error_set(err, errno == ENOENT ? MP_EMISSING : MP_EIO,
                            "%s: %s; expected a checkpoint in Diffusers layout", folder,
                            strerror(errno));
    for (int i = 0; i < n; i++) {
        const char *name = entries[i]->d_name;
        const char *path = mp_arena_printf(a, "%s/%s", folder, name);
        const char *relative = mp_arena_printf(a, "%s%s", inside, name);
        struct stat st;
        char hash[65];
        if (name[0] != '.' && !err->code && !stat(path, &st)) {
            if (S_ISDIR(st.st_mode) && depth < MAX_DEPTH) {
                add_folder(a, cache, path, mp_arena_printf(a, "%s/", relative), depth + 1, h, err);
            } else if (S_ISREG(st.st_mode) && !digest(a, cache, path, &st, hash, err)) {
                mp_sha256_update(h, relative, strlen(relative) + 1);
                mp_sha256_update(h, hash, 64);
            }
        }
        free(entries[i]);
    }
    free(entries);
    return err->code;
}

mp_code mp_digest_folder(mp_arena *a, const char *cache, const char *folder, char out[65],
                         mp_error *err)
{
    mp_sha256 h;

    mp_sha256_init(&h);
    if (!add_folder(a, cache, folder, "", 1, &h, err))
        mp_sha256_final(&h, out);
    return err->code;
}
