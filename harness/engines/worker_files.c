#include "harness/engines/worker_files.h"

#include <stdio.h>
#include <string.h>

#include "harness/folders.h"
#include "pipelines/common/file.h"
#include "results/metrics.h"

extern const char mp_worker_py[]; /* made of worker.py and *_worker.py when this is built */
#define X(id) extern const char mp_##id##_worker_py[];
#include "harness/engines/workers.def"
#undef X

static const struct {
    const char *name, *text;
} files[] = {
    {"worker.py", mp_worker_py},
#define X(id) {#id "_worker.py", mp_##id##_worker_py},
#include "harness/engines/workers.def"
#undef X
};

enum { FILES = sizeof files / sizeof *files };

/* Never trusted for its name: what is run must be what this program carries. */
static bool is_there(const char *path, const char *text)
{
    char block[4096];
    FILE *f = fopen(path, "rb");
    bool same = f != NULL;
    size_t n;

    while (same && (n = fread(block, 1, sizeof block, f)) > 0) {
        same = !strncmp(block, text, n);
        text += same ? n : 0;
    }
    if (f)
        fclose(f);
    return same && !*text;
}

static mp_code write_file(const char *path, const char *text, mp_error *err)
{
    mp_replace r;

    if (is_there(path, text))
        return MP_OK;
    if (!mp_replace_begin(&r, path, err))
        mp_replace_write(&r, text, strlen(text), err);
    if (!err->code)
        mp_replace_commit(&r, err);
    return err->code;
}

mp_code mp_worker_files_write(mp_arena *a, const char *cache, const char **out, const char *name,
                              mp_error *err)
{
    mp_sha256 h;
    char hash[65];

    mp_sha256_init(&h);
    for (int i = 0; i < FILES; i++)
        mp_sha256_update(&h, files[i].text, strlen(files[i].text) + 1);
    mp_sha256_final(&h, hash);
    const char *folder = mp_arena_printf(a, "%s/workers-%.12s", cache, hash);
    *out = name ? mp_arena_printf(a, "%s/%s_worker.py", folder, name) : folder;
    if (mp_make_folders(folder, err))
        return err->code;
    for (int i = 0; i < FILES && !err->code; i++)
        write_file(mp_arena_printf(a, "%s/%s", folder, files[i].name), files[i].text, err);
    return err->code;
}
