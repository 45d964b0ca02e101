#include "harness/scenario_precision.h"

#include <string.h>

#include "harness/scenario_schema.h"
#include "harness/scenario_values.h"
#include "pipelines/common/file.h"

static mp_code unknown_component(const mp_yaml *key, const char *section,
                                 const mp_pipeline_def *pipeline, mp_error *err)
{
    mp_text list = {0};
    int n = 0;

    for (; pipeline->components[n]; n++)
        mp_text_printf(&list, "%s%s", n ? ", " : "", pipeline->components[n]);
    const char *near = mp_nearest(key->text, pipeline->components, n);
    mp_yaml_fail(err, key, "unknown component '%s' in precision.%s%s%s%s; the pipeline %s has: %s",
                 mp_plain(key->text).text, section, near ? "; did you mean '" : "",
                 near ? near : "", near ? "'?" : "", pipeline->name,
                 list.data ? list.data : "none");
    mp_text_free(&list);
    return err->code;
}

static bool has_component(const mp_pipeline_def *pipeline, const char *name)
{
    for (const char *const *c = pipeline->components; *c; c++)
        if (!strcmp(*c, name))
            return true;
    return false;
}

/* "text_encoder:bf16+vae:fp32", as cells spell it in their ids, as a map; NULL for other text. */
static mp_yaml *read_short_form(mp_arena *a, const mp_yaml *node)
{
    mp_yaml *map = mp_arena_alloc(a, 1, sizeof *map);
    const mp_yaml *found;

    *map = (mp_yaml){
        .kind = MP_YAML_MAP, .file = node->file, .line = node->line, .column = node->column};
    for (const char *s = node->text; *s;) {
        const size_t length = strcspn(s, "+"), name = strcspn(s, ":.+");
        if (s[name] != ':' || !name || name + 1 >= length)
            return NULL;
        const char *component = mp_arena_strndup(a, s, name);
        mp_yaml *dtype = mp_yaml_copy(a, node);
        dtype->text = mp_arena_strndup(a, s + name + 1, length - name - 1);
        if (mp_yaml_get(map, component) || !mp_yaml_put(a, map, component, dtype, &found))
            return NULL;
        s += length + (s[length] == '+');
    }
    return map->count ? map : NULL;
}

/* precision.components or precision.storage, in the pipeline's order so that two spellings are one.
 */
static mp_code read_components(mp_arena *a, const mp_section *s, const char *name,
                               const mp_pipeline_def *pipeline, const mp_component_dtype **out,
                               int *count)
{
    const mp_yaml *map = s->map ? mp_yaml_get(s->map, name) : NULL;
    mp_component_dtype *list;

    *count = 0;
    if (s->err->code || mp_yaml_off(map))
        return s->err->code;
    if (map->kind == MP_YAML_SCALAR)
        map = read_short_form(a, map);
    if (!map || map->kind != MP_YAML_MAP)
        return mp_schema_wrong(a, s->map, "precision", name, s->err);
    for (int i = 0; i < map->count; i++)
        if (!has_component(pipeline, map->keys[i]->text))
            return unknown_component(map->keys[i], name, pipeline, s->err);
    *out = list = mp_arena_alloc(a, (size_t)map->count, sizeof *list);
    for (const char *const *c = pipeline->components; *c; c++) {
        const mp_yaml *node = mp_yaml_get(map, *c);
        if (!node || node->kind == MP_YAML_NULL)
            continue;
        const char *key = mp_arena_printf(a, "precision.%s.%s", name, *c);
        list[*count].component = *c;
        if (mp_value_dtype(a, node, mp_yaml_key(map, *c), key, &list[*count].dtype, s->err))
            return s->err->code;
        ++*count;
    }
    return MP_OK;
}

static mp_code read_override(mp_arena *a, const mp_yaml *node, mp_dtype_override *out,
                             mp_error *err)
{
    if (node->kind != MP_YAML_MAP)
        return mp_yaml_fail(err, node,
                            "precision.overrides: found %s, expected {match: GLOB, dtype: DTYPE}",
                            mp_yaml_describe(a, node));
    if (mp_schema_check(node, "overrides[]", err))
        return err->code;
    const mp_yaml *match = mp_yaml_get(node, "match");
    if (!match || match->kind != MP_YAML_SCALAR || !*match->text)
        return mp_yaml_fail(err, match ? mp_yaml_key(node, "match") : node,
                            "precision.overrides: 'match' is %s, expected a glob on the module "
                            "path, such as \"text_encoder.layers.0.*\"",
                            mp_yaml_describe(a, match));
    out->match = match->text;
    const mp_yaml *dtype = mp_yaml_get(node, "dtype");
    return mp_value_dtype(a, dtype, dtype ? mp_yaml_key(node, "dtype") : node,
                          "precision.overrides.dtype", &out->dtype, err);
}

static mp_code read_overrides(mp_arena *a, const mp_section *s, mp_precision *out)
{
    const mp_yaml *list = s->map ? mp_yaml_get(s->map, "overrides") : NULL;
    mp_dtype_override *overrides;

    if (s->err->code || mp_yaml_off(list))
        return s->err->code;
    if (list->kind != MP_YAML_LIST)
        return mp_schema_wrong(a, s->map, "precision", "overrides", s->err);
    overrides = mp_arena_alloc(a, (size_t)list->count, sizeof *overrides);
    for (int i = 0; i < list->count; i++)
        if (read_override(a, list->items[i], &overrides[i], s->err))
            return s->err->code;
    out->overrides = overrides;
    out->override_count = list->count;
    return MP_OK;
}

mp_code mp_scenario_precision(mp_arena *a, const mp_yaml *root, const mp_pipeline_def *pipeline,
                              mp_precision *out, mp_e4m3_overflow *e4m3, mp_error *err)
{
    static const char *const loads[] = {"from_pretrained", "to"};
    static const char *const overflows[] = {"saturate", "nan"};
    const char *policies[MP_POLICY_COUNT];
    const mp_section s = mp_section_open(a, root, "precision", err);

    for (int i = 0; i < MP_POLICY_COUNT; i++)
        policies[i] = mp_policy_name((mp_policy)i);
    out->dtype = mp_section_dtype(&s, "default", MP_F32);
    read_components(a, &s, "components", pipeline, &out->components, &out->component_count);
    read_components(a, &s, "storage", pipeline, &out->storage, &out->storage_count);
    read_overrides(a, &s, out);
    out->policy = (mp_policy)mp_section_word(&s, "policy", policies, MP_POLICY_COUNT, MP_STRICT);
    out->load_to = mp_section_word(&s, "load", loads, 2, 0) == 1;
    *e4m3 = (mp_e4m3_overflow)mp_section_word(&s, "e4m3", overflows, 2, MP_E4M3_SATURATE);
    return err->code;
}
