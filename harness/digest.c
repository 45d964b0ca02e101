#include "harness/digest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "results/metrics.h"

enum { BLOCK = 1 << 16, REMEMBERED = 1 << 22, MAX_DEPTH = 2 };

mp_code mp_digest_file(const char *path, char out[65], mp_error *err)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    char block[BLOCK];
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
    if (fd >= 0)
        close(fd);
    if (n != 0)
        return mp_error_set(err, MP_EIO, "%s: cannot be read: %s", path, strerror(why));
    mp_sha256_final(&h, out);
    return MP_OK;
}

/* ---- this program --------------------------------------------------------------------------- */

/* The build id among the notes of a segment, in hexadecimal; "" stays where there is none. */
static void read_notes(const char *at, size_t size, size_t align, char out[65])
{
    const char *const end = at + size;
    ElfW(Nhdr) n;

    while (!*out && end - at > (ptrdiff_t)sizeof n) {
        memcpy(&n, at, sizeof n);
        const char *const name = at + sizeof n;
        const size_t start = (sizeof n + n.n_namesz + align - 1) / align * align;
        if (n.n_type == NT_GNU_BUILD_ID && n.n_namesz == 4 && !memcmp(name, "GNU", 4))
            for (size_t i = 0; i < n.n_descsz && i < 32; i++)
                snprintf(out + 2 * i, 3, "%02x", (unsigned char)at[start + i]);
        at += (start + n.n_descsz + align - 1) / align * align;
    }
}

/* Of the first object, which is the program. */
static int read_build_id(struct dl_phdr_info *info, size_t size, void *out)
{
    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *const h = &info->dlpi_phdr[i];
        if (h->p_type == PT_NOTE)
            read_notes((const char *)(info->dlpi_addr + h->p_vaddr), h->p_memsz,
                       h->p_align == 8 ? 8 : 4, out);
    }
    return 1;
}

void mp_digest_program(char out[65])
{
    mp_error err = {0};

    out[0] = '\0';
    dl_iterate_phdr(read_build_id, out);
    if (!*out && mp_digest_file("/proc/self/exe", out, &err))
        snprintf(out, 65, "unknown");
}

/* ---- checkpoints ---------------------------------------------------------------------------- */

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
