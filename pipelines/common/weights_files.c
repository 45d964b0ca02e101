#include "pipelines/common/weights_files.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "pipelines/common/file.h"
#include "pipelines/common/json.h"

enum {
    LISTED = 20,                                 /* names in one message */
    SHARD_NUMBER = sizeof "-00001-of-00002" - 1, /* behind the name of a shard */
};

static mp_code no_memory(const char *dir, mp_error *err)
{
    return mp_error_set(err, MP_ENOMEM, "%s: no memory for its weights", dir);
}

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

/* ", "-joined names, cut after LISTED or where the text is full. */
typedef struct name_list {
    char text[800];
    size_t at;
    int64_t count;
} name_list;

static void list_add(name_list *l, const char *name)
{
    if (l->count++ < LISTED && l->at < sizeof l->text)
        l->at += (size_t)snprintf(l->text + l->at, sizeof l->text - l->at, "%s%s",
                                  l->at ? ", " : "", mp_plain(name).text);
}

/* ---- what is there ---- */

typedef struct folder {
    name_list variants; /* "fp16" of stem.fp16.safetensors and of its index */
    name_list pickles;
    bool plain; /* weights without a variant */
} folder;

/* The variant in NAME = stem.VARIANT.safetensors, stem.VARIANT-00001-of-00002.safetensors or
 * stem.safetensors.index.VARIANT.json into out; false for any other name. */
static bool variant_of(const char *name, const char *stem, char *out, size_t size)
{
    const size_t n = strlen(stem);
    static const char index[] = ".safetensors.index.", plain[] = ".safetensors";
    const char *from, *to;

    if (strncmp(name, stem, n))
        return false;
    if (!strncmp(name + n, index, sizeof index - 1) && ends_with(name, ".json")) {
        from = name + n + sizeof index - 1;
        to = name + strlen(name) - strlen(".json");
    } else if (name[n] == '.' && ends_with(name, plain)) {
        from = name + n + 1;
        to = name + strlen(name) - (sizeof plain - 1);
    } else
        return false;
    if (to - from > SHARD_NUMBER && !strncmp(to - SHARD_NUMBER + 6, "-of-", 4))
        to -= SHARD_NUMBER;
    if (to <= from || (size_t)(to - from) >= size)
        return false;
    snprintf(out, size, "%.*s", (int)(to - from), from);
    return true;
}

static void note_file(folder *f, const char *name, const char *stem)
{
    static const char *const pickles[] = {".bin", ".pt", ".pth", ".ckpt"};
    const size_t n = strlen(stem);
    char variant[64];

    for (size_t i = 0; i < sizeof pickles / sizeof *pickles; i++)
        if (ends_with(name, pickles[i]))
            list_add(&f->pickles, name);
    if (!strncmp(name, stem, n) &&
        (!strcmp(name + n, ".safetensors") || !strcmp(name + n, ".safetensors.index.json")))
        f->plain = true;
    if (variant_of(name, stem, variant, sizeof variant) && !strstr(f->variants.text, variant))
        list_add(&f->variants, variant);
}

static bool look(const char *dir, const char *stem, folder *f)
{
    DIR *d = opendir(dir);

    if (!d)
        return false;
    for (const struct dirent *e; (e = readdir(d));)
        note_file(f, e->d_name, stem);
    closedir(d);
    return true;
}

/* None of the names that were tried exists: say why, as exactly as the folder allows. */
static mp_code nothing_found(const char *dir, const char *stem, const char *variant, mp_error *err)
{
    folder f = {0};

    if (!look(dir, stem, &f))
        return mp_error_set(err, MP_EMISSING,
                            "%s: no such folder; expected the weights of a component there", dir);
    if (variant && (f.plain || f.variants.count))
        return mp_error_set(err, MP_EMISSING, "%s: no weights of variant \"%s\"; there: %s%s%s",
                            dir, variant, f.plain ? "weights without a variant" : "",
                            f.plain && f.variants.count ? ", " : "", f.variants.text);
    if (f.variants.count)
        return mp_error_set(err, MP_EMISSING,
                            "%s: no %s.safetensors; give one of the variants that are there: %s",
                            dir, stem, f.variants.text);
    if (f.pickles.count)
        return mp_error_set(err, MP_EUNSUPPORTED,
                            "%s: only pickle files are there (%s), which are never read; convert "
                            "them in Python with save_pretrained(DIR, safe_serialization=True)",
                            dir, f.pickles.text);
    return mp_error_set(err, MP_EMISSING,
                        "%s: no weights; expected %s.safetensors or %s.safetensors.index.json", dir,
                        stem, stem);
}

/* ---- shards ---- */

/* A shard is a plain file name beside its index. */
static bool is_safe_name(const char *name)
{
    return ends_with(name, ".safetensors") && name[0] != '.' && !strchr(name, '/') &&
           !strchr(name, '\\');
}

/* The distinct shards of the map, name -> number. */
static mp_code list_shards(const char *path, json_t *map, json_t *shards, mp_error *err)
{
    const char *name;
    json_t *value;

    json_object_foreach (map, name, value) {
        const char *shard = json_string_value(value);
        char found[200];
        if (!shard || !is_safe_name(shard))
            return mp_error_set(err, MP_EFORMAT,
                                "%s: \"%s\" is said to be in %s; expected the name of a "
                                ".safetensors file in the same folder",
                                path, mp_plain(name).text,
                                mp_json_describe(value, found, sizeof found));
        if (!json_object_get(shards, shard) &&
            json_object_set_new(shards, shard, json_integer((json_int_t)json_object_size(shards))))
            return no_memory(path, err);
    }
    if (!json_object_size(shards))
        return mp_error_set(err, MP_EFORMAT, "%s: \"weight_map\" names no file", path);
    return MP_OK;
}

static mp_code open_shards(const char *dir, const char *path, json_t *shards, mp_weight_files *f,
                           mp_error *err)
{
    const char *name;
    json_t *value;
    name_list missing = {{0}, 0, 0};
    mp_code code = MP_OK;

    f->file = mp_alloc(json_object_size(shards), sizeof *f->file);
    if (!f->file)
        return no_memory(dir, err);
    json_object_foreach (shards, name, value) {
        char *shard = mp_file_join(dir, name);
        if (!shard)
            return no_memory(dir, err);
        if (!mp_file_exists(shard))
            list_add(&missing, name);
        else if (!code)
            code = mp_safetensors_open(shard, &f->file[f->count++], err);
        mp_free(shard);
    }
    if (!missing.count || code)
        return code;
    return mp_error_set(err, MP_EMISSING, "%s: %lld of its %zu files are missing: %s; fetch them",
                        path, (long long)missing.count, json_object_size(shards), missing.text);
}

/* Every name of the index is in the file that it names, and nothing else is. */
static mp_code check_index(const char *path, json_t *map, const json_t *shards,
                           const mp_weight_files *f, mp_error *err)
{
    const char *name;
    json_t *value;
    name_list absent = {{0}, 0, 0}, extra = {{0}, 0, 0};

    json_object_foreach (map, name, value) {
        const json_t *number = json_object_get(shards, json_string_value(value));
        if (mp_safetensors_index(f->file[json_integer_value(number)], name) < 0)
            list_add(&absent, name);
    }
    for (int64_t i = 0; i < f->count; i++)
        for (int64_t k = 0; k < mp_safetensors_count(f->file[i]); k++) {
            name = mp_safetensors_entry_at(f->file[i], k).name;
            const json_t *number =
                json_object_get(shards, json_string_value(json_object_get(map, name)));
            if (!number || json_integer_value(number) != i)
                list_add(&extra, name);
        }
    if (!absent.count && !extra.count)
        return MP_OK;
    return mp_error_set(err, MP_EFORMAT,
                        "%s: does not fit its files: %lld tensors are not in the file named for "
                        "them (%s), %lld tensors of the files are not in the index (%s); fetch "
                        "index and files again, of one version",
                        path, (long long)absent.count, absent.text, (long long)extra.count,
                        extra.text);
}

static mp_code open_index(const char *dir, const char *path, mp_weight_files *f, mp_error *err)
{
    json_t *root = NULL, *shards = json_object();
    mp_code code = shards ? mp_json_load(path, &root, err) : no_memory(dir, err);
    json_t *map = json_object_get(root, "weight_map");

    if (!code && !json_is_object(map)) {
        char found[200];
        code = mp_error_set(err, MP_EFORMAT, "%s: \"weight_map\": expected an object, found %s",
                            path, mp_json_describe(map, found, sizeof found));
    }
    if (!code)
        code = list_shards(path, map, shards, err);
    if (!code)
        code = open_shards(dir, path, shards, f, err);
    if (!code)
        code = check_index(path, map, shards, f, err);
    json_decref(shards);
    json_decref(root);
    return code;
}

/* ---- both ---- */

static mp_code open_single(const char *path, mp_weight_files *f, mp_error *err)
{
    f->file = mp_alloc(1, sizeof *f->file);
    if (!f->file)
        return no_memory(path, err);
    f->count = 1;
    return mp_safetensors_open(path, &f->file[0], err);
}

/* The names in the order in which they are tried; false after the last.  The third is the index of
 * older Diffusers. */
static bool candidate(int i, const char *stem, const char *variant, char *name, size_t size)
{
    const char *dot = variant ? "." : "";

    variant = variant ? variant : "";
    if (i == 0)
        snprintf(name, size, "%s%s%s.safetensors", stem, dot, variant);
    else if (i == 1)
        snprintf(name, size, "%s.safetensors.index%s%s.json", stem, dot, variant);
    else if (i == 2)
        snprintf(name, size, "%s%s%s.safetensors.index.json", stem, dot, variant);
    return i < 3;
}

mp_code mp_weight_files_open(const char *dir, const char *stem, const char *variant,
                             mp_weight_files *out, mp_error *err)
{
    char name[512];

    *out = (mp_weight_files){0};
    for (int i = 0; candidate(i, stem, variant, name, sizeof name); i++) {
        char *path = mp_file_join(dir, name);
        if (!path)
            return no_memory(dir, err);
        const bool there = mp_file_exists(path);
        mp_code code = MP_OK;
        if (there)
            code = i ? open_index(dir, path, out, err) : open_single(path, out, err);
        mp_free(path);
        if (code)
            mp_weight_files_close(out);
        if (there)
            return code;
    }
    return nothing_found(dir, stem, variant, err);
}

void mp_weight_files_close(mp_weight_files *f)
{
    for (int64_t i = 0; i < f->count; i++)
        mp_safetensors_close(f->file[i]);
    mp_free(f->file);
    *f = (mp_weight_files){0};
}
