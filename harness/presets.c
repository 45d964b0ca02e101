#include "harness/presets.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/folders.h"

/* Length of the first part of a path. */
static size_t top_length(const char *path)
{
    return strcspn(path, "/");
}

static bool is_variant(const mp_preset_file *f)
{
    return memchr(f->path, '-', top_length(f->path)) != NULL;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

const char *const *mp_preset_names(mp_arena *a)
{
    const char **names;
    int count = 0, listed = 0;

    while (mp_preset_files[count].path)
        count++;
    names = mp_arena_alloc(a, (size_t)count + 1, sizeof *names);
    for (const mp_preset_file *f = mp_preset_files; f->path; f++) {
        const char *const name = mp_arena_strndup(a, f->path, top_length(f->path));
        if (is_variant(f) && (!listed || strcmp(names[listed - 1], name)))
            names[listed++] = name;
    }
    qsort(names, (size_t)listed, sizeof *names, compare_names);
    return names;
}

static mp_code write_text(const char *path, const char *text, mp_error *err)
{
    FILE *const file = fopen(path, "w");
    const bool written = file && fputs(text, file) >= 0;

    if ((file && fclose(file)) || !written)
        mp_error_set(err, MP_EIO, "%s: cannot be written (%s)", path, strerror(errno));
    return err->code;
}

/* The files below the folder `top` of the presets. */
static mp_code write_folder(mp_arena *a, const char *top, size_t length, const char *folder,
                            mp_error *err)
{
    for (const mp_preset_file *f = mp_preset_files; f->path; f++) {
        if (top_length(f->path) != length || strncmp(f->path, top, length))
            continue;
        const char *const path = mp_arena_printf(a, "%s%s", folder, f->path + length);
        if (mp_make_folders(mp_arena_strndup(a, path, (size_t)(strrchr(path, '/') - path)), err) ||
            write_text(path, f->text, err))
            return err->code;
    }
    return MP_OK;
}

mp_code mp_preset_write(mp_arena *a, const char *name, const char *folder, mp_error *err)
{
    if (write_folder(a, name, strcspn(name, "-"), folder, err))
        return err->code;
    return write_folder(a, name, strlen(name), folder, err);
}
