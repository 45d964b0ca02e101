#include "harness/scenario_schema.h"

#include <string.h>

#include "pipelines/common/file.h"

#define DTYPE  "a dtype: fp32, fp16, bf16, fp8_e4m3, fp8_e5m2"
#define NUMBER "a number, 0 or larger"
#define LIMIT  NUMBER ", or a map such as {absolute: 2.5, relative: 5%}"

static const mp_schema_key keys[] = {
    {"", "name", "letters, digits, '-', '_' and '.', at most 80", false},
    {"", "description", "a text", false},
    {"", "pipeline", "the name of a pipeline", true},
    {"", "checkpoint", "the folder of a checkpoint in Diffusers layout", true},
    {"", "variant", "a file variant such as fp16", true},
    {"", "inputs", "a map of the pipeline's call arguments", true},
    {"", "precision", "a map", true},
    {"", "tiling", "off, or {tile: [HEIGHT, WIDTH], stride: [HEIGHT, WIDTH]} in picture pixels",
     true},
    {"", "quirks", "a list of names", true},
    {"", "matrix", "a map from dotted keys to lists of values, with include and exclude", false},
    {"", "expect", "a list of maps with when, and error, status or outcome", false},
    {"", "budgets", "a map of limits", false},
    {"", "repeat", "an integer from 1 to 10000", false},
    {"", "warmup", "an integer from 0 to 1000", false},
    {"", "timeout", "a time such as 600s, 10m or 24h", false},
    {"", "memory", "a size such as 512MiB or 8GiB", true},
    {"", "offload", "stage or none", true},
    {"", "reference", "fp32, off, or another dtype", true},
    {"precision", "default", DTYPE, true},
    {"precision", "components", "a map from component to dtype", true},
    {"precision", "storage", "a map from component to dtype", true},
    {"precision", "overrides", "a list of {match: GLOB, dtype: DTYPE}", true},
    {"precision", "policy", "strict, negotiate or fallback", true},
    {"precision", "load", "from_pretrained or to", true},
    {"precision", "e4m3", "saturate or nan", true},
    {"overrides[]", "match", "a glob on the module path", true},
    {"overrides[]", "dtype", DTYPE, true},
    {"tiling", "tile", "[HEIGHT, WIDTH], integers from 1 to 65536", true},
    {"tiling", "stride", "[HEIGHT, WIDTH], integers from 1 to 65536", true},
    {"expect[]", "when", "a map from dotted keys to values", false},
    {"expect[]", "engine", "an engine's name, or one and its version: diffusers < 0.33.0", false},
    {"expect[]", "error", "a part of the exact error text", false},
    {"expect[]", "status", "ok, error, crash, timeout, oom or nonfinite", false},
    {"expect[]", "outcome",
     "dtype_mismatch, nan_first, overflow, constant, oom, unsupported, crash, timeout, io, format, "
     "shape, missing, usage, device, engine or exception",
     false},
    {"budgets", "latent_rel_l2", LIMIT, false},
    {"budgets", "image_rel_l2", LIMIT, false},
    {"budgets", "psnr_db", LIMIT, false},
    {"budgets", "ssim", LIMIT, false},
    {"budgets", "seam", LIMIT, false},
    {"budgets", "peak_mib", LIMIT, false},
    {"budgets", "seconds", LIMIT, false},
    {"budgets[]", "absolute", NUMBER, false},
    {"budgets[]", "relative", "a number from 0 to 1, or a percentage such as 5%", false},
};

enum { KEYS = (int)(sizeof keys / sizeof *keys) };

int mp_schema_count(void)
{
    return KEYS;
}

const mp_schema_key *mp_schema_at(int i)
{
    return &keys[i];
}

const mp_schema_key *mp_schema_find(const char *section, const char *name)
{
    for (int i = 0; i < KEYS; i++)
        if (!strcmp(keys[i].section, section) && !strcmp(keys[i].name, name))
            return &keys[i];
    return NULL;
}

static int names_of(const char *section, const char *names[KEYS])
{
    int n = 0;
    for (int i = 0; i < KEYS; i++)
        if (!strcmp(keys[i].section, section))
            names[n++] = keys[i].name;
    return n;
}

static mp_code unknown(const mp_yaml *at, const char *section, const char *name, mp_error *err)
{
    const char *names[KEYS];
    const int n = names_of(section, names);
    const char *near = mp_nearest(name, names, n);
    mp_text list = {0};

    for (int i = 0; i < n; i++)
        mp_text_printf(&list, "%s%s", i ? ", " : "", names[i]);
    mp_yaml_fail(err, at, "unknown key '%s'%s%s%s%s%s; expected one of: %s", mp_plain(name).text,
                 *section ? " in " : "", section, near ? "; did you mean '" : "", near ? near : "",
                 near ? "'?" : "", list.data ? list.data : "none");
    mp_text_free(&list);
    return err->code;
}

mp_code mp_schema_check(const mp_yaml *map, const char *section, mp_error *err)
{
    for (int i = 0; map && map->kind == MP_YAML_MAP && i < map->count; i++)
        if (!mp_schema_find(section, map->keys[i]->text))
            return unknown(map->keys[i], section, map->keys[i]->text, err);
    return err->code;
}

bool mp_schema_result(const char *dotted)
{
    const size_t n = strcspn(dotted, ".");

    for (int i = 0; i < KEYS; i++)
        if (!*keys[i].section && !strncmp(keys[i].name, dotted, n) && !keys[i].name[n])
            return keys[i].result;
    return false;
}

mp_code mp_schema_check_dotted(const char *dotted, bool result, const mp_yaml *at, mp_error *err)
{
    char head[128], inner[128];
    const size_t n = strcspn(dotted, "."), m = dotted[n] ? strcspn(dotted + n + 1, ".") : 0;

    if (n >= sizeof head || m >= sizeof inner)
        return mp_yaml_fail(err, at, "unknown key '%s'", mp_plain(dotted).text);
    memcpy(head, dotted, n);
    head[n] = '\0';
    memcpy(inner, dotted + n + (m > 0), m);
    inner[m] = '\0';

    const mp_schema_key *k = mp_schema_find("", head);
    if (!k)
        return unknown(at, "", head, err);
    if (result && !k->result)
        return mp_yaml_fail(err, at,
                            "the key '%s' changes nothing in what is computed, so no cell "
                            "can be chosen by it",
                            head);
    if (!strcmp(head, "matrix") || !strcmp(head, "expect") || !strcmp(head, "name"))
        return mp_yaml_fail(err, at, "the key '%s' cannot vary from cell to cell", head);
    if (!dotted[n] || !strcmp(head, "inputs"))
        return MP_OK;
    const char *names[KEYS];
    if (names_of(head, names) == 0)
        return mp_yaml_fail(err, at, "'%s' has no keys below it, so '%s' means nothing", head,
                            mp_plain(dotted).text);
    return mp_schema_find(head, inner) ? MP_OK : unknown(at, head, inner, err);
}

mp_code mp_schema_wrong(mp_arena *a, const mp_yaml *map, const char *section, const char *name,
                        mp_error *err)
{
    const mp_schema_key *k = mp_schema_find(section, name);
    const mp_yaml *key = mp_yaml_key(map, name), *value = mp_yaml_get(map, name);

    return mp_yaml_fail(err, key ? key : map, "key '%s%s%s': found %s, expected %s", section,
                        *section ? "." : "", name, mp_yaml_describe(a, value),
                        k ? k->expected : "something else");
}
