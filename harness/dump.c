#include "harness/folders.h"
#include "harness/run.h"
#include "pipelines/common/image.h"

static mp_code write_pictures(mp_arena *a, const char *folder, const mp_outputs *x, mp_error *err)
{
    mp_tensor image;

    if (!mp_outputs_picture(x, &image) || image.rank != 4)
        return MP_OK;
    for (int64_t i = 0; i < image.dim[0] && !err->code; i++) {
        const char *path = image.dim[0] == 1
                               ? mp_arena_printf(a, "%s/image.png", folder)
                               : mp_arena_printf(a, "%s/image_%lld.png", folder, (long long)i);
        mp_image_write_png(path, mp_batch(image, i, 1), err);
    }
    return err->code;
}

mp_code mp_dump_cell(const char *dir, const mp_cell *cell, const mp_outputs *x, mp_error *err)
{
    mp_arena *a = mp_arena_create();
    const char *folder = mp_arena_printf(a, "%s/%s/%s", dir, cell->scenario.name, cell->folder);

    if (!mp_make_folders(folder, err) &&
        !mp_outputs_save(x, mp_arena_printf(a, "%s/outputs.safetensors", folder), cell->key, err))
        write_pictures(a, folder, x, err);
    mp_arena_free(a);
    return err->code;
}
