#include "harness/synth_folder.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "harness/folders.h"
#include "kernels/core/memory.h"
#include "pipelines/common/file.h"

static const double GB = 1e9;

static bool is_folder(const char *path)
{
    struct stat st;

    return !stat(path, &st) && S_ISDIR(st.st_mode);
}

bool mp_is_checkpoint(const char *path)
{
    char *const index = mp_file_join(path, "model_index.json");
    const bool found = index && mp_file_exists(index);

    mp_free(index);
    return found;
}

mp_code mp_check_target(const char *dir, bool force, mp_error *err)
{
    if (access(dir, F_OK))
        return MP_OK;
    if (!force)
        return mp_error_set(err, MP_EUSAGE,
                            "%s: is there already; give --force to replace it, or another name",
                            dir);
    if (!mp_is_checkpoint(dir))
        return mp_error_set(err, MP_EUSAGE,
                            "%s: --force replaces a checkpoint alone, and this has no "
                            "model_index.json; remove it yourself, or give another name",
                            dir);
    return MP_OK;
}

/* Weights of any kind; everything else of a checkpoint says what the models are. */
static bool is_weights(const char *name)
{
    static const char *const ends[] = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".msgpack"};

    if (strstr(name, ".safetensors.index.") || strstr(name, ".bin.index."))
        return true;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        const size_t n = strlen(name), m = strlen(ends[i]);
        if (n > m && !strcmp(name + n - m, ends[i]))
            return true;
    }
    return false;
}

static mp_code copy_file(const char *from, const char *to, mp_error *err)
{
    enum { LIMIT = 64 << 20 }; /* tokenizers reach 34 MB */
    char *text;
    size_t size;
    FILE *file;

    if (mp_file_read(from, LIMIT, &text, &size, err))
        return err->code;
    file = fopen(to, "w");
    const bool written = file && fwrite(text, 1, size, file) == size;
    if ((file && fclose(file)) || !written)
        mp_error_set(err, MP_EIO, "%s: cannot be written (%s)", to, strerror(errno));
    mp_free(text);
    return err->code;
}

static mp_code copy_folder(mp_arena *a, const char *from, const char *to, bool nested,
                           mp_error *err)
{
    DIR *const d = opendir(from);

    if (!d)
        return mp_error_set(err, MP_EIO, "%s: cannot be read (%s)", from, strerror(errno));
    for (const struct dirent *e; !err->code && (e = readdir(d));) {
        const char *const source = mp_arena_printf(a, "%s/%s", from, e->d_name);
        const char *const target = mp_arena_printf(a, "%s/%s", to, e->d_name);
        if (e->d_name[0] == '.' || is_weights(e->d_name))
            continue;
        if (!is_folder(source))
            copy_file(source, target, err);
        else if (!nested && !mp_make_folders(target, err))
            copy_folder(a, source, target, true, err);
    }
    closedir(d);
    return err->code;
}

mp_code mp_copy_configs(mp_arena *a, const char *from, const char *to, mp_error *err)
{
    return copy_folder(a, from, to, false, err);
}

mp_code mp_check_space(const char *folder, const char *dir, uint64_t bytes, mp_error *err)
{
    struct statvfs fs;

    if (statvfs(folder, &fs))
        return mp_error_set(err, MP_EIO, "%s: cannot be examined (%s)", folder, strerror(errno));
    const uint64_t there = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (there < bytes)
        return mp_error_set(err, MP_EIO,
                            "%s: needs %.2f GB, and the disk has %.2f GB free; free some space, "
                            "choose another folder, or give a narrower --dtype or --storage",
                            dir, (double)bytes / GB, (double)there / GB);
    return MP_OK;
}

mp_code mp_put_in_place(const char *folder, const char *dir, mp_error *err)
{
    mp_text old = {0};

    mp_text_printf(&old, "%s.old", folder);
    const bool replaced = !rename(dir, old.data);
    if (rename(folder, dir)) {
        mp_error_set(err, MP_EIO, "%s: cannot be put in place (%s)", dir, strerror(errno));
        if (replaced)
            rename(old.data, dir);
    } else if (replaced) {
        mp_remove_folder(old.data);
    }
    mp_text_free(&old);
    return err->code;
}
