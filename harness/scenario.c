#include "harness/scenario.h"

#include <stdio.h>
#include <string.h>

#include "harness/scenario_inputs.h"
#include "harness/scenario_precision.h"
#include "harness/scenario_rules.h"
#include "harness/scenario_schema.h"
#include "harness/scenario_values.h"
#include "pipelines/common/file.h"

enum { NAME_LENGTH = 80, DEFAULT_TIMEOUT = 3600, MAX_SETTINGS = 256 };

/* ---- the top level -------------------------------------------------------------------------- */

/* The name becomes a folder of --dump and a part of every cell's id. */
static bool plain_name(const char *name)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                  "-_.";
    const size_t n = strlen(name);

    return n && n <= NAME_LENGTH && name[0] != '.' && strspn(name, letters) == n;
}

static mp_code read_name(mp_arena *a, const mp_section *top, mp_scenario *out)
{
    out->name = mp_section_text(top, "name", NULL);
    out->description = mp_section_text(top, "description", "");
    if (top->err->code)
        return top->err->code;
    if (!out->name)
        return mp_yaml_fail(top->err, top->map, "the key 'name' is missing; a scenario needs one");
    if (!plain_name(out->name))
        return mp_schema_wrong(a, top->map, "", "name", top->err);
    return MP_OK;
}

static mp_code read_pipeline(const mp_section *top, mp_scenario *out)
{
    const char *names[32];
    mp_text list = {0};
    int n = 0;
    const char *name = mp_section_text(top, "pipeline", NULL);

    for (const mp_pipeline_def *const *p = mp_pipelines(); *p && n < 32; p++) {
        mp_text_printf(&list, "%s%s", n ? ", " : "", (*p)->name);
        names[n++] = (*p)->name;
    }
    if (top->err->code) {
    } else if (!name) {
        mp_yaml_fail(top->err, top->map, "the key 'pipeline' is missing; this build has: %s",
                     list.data);
    } else if (!(out->pipeline = mp_pipeline_find(name))) {
        const char *near = mp_nearest(name, names, n);
        mp_yaml_fail(top->err, mp_yaml_key(top->map, "pipeline"),
                     "unknown pipeline \"%s\"%s%s%s; this build has: %s", mp_plain(name).text,
                     near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "",
                     list.data);
    }
    mp_text_free(&list);
    return top->err->code;
}

static mp_code read_checkpoint(mp_arena *a, const mp_section *top, mp_scenario *out)
{
    const char *path = mp_section_text(top, "checkpoint", NULL);
    const char *variant = mp_section_text(top, "variant", NULL);

    if (top->err->code)
        return top->err->code;
    if (!path || !*path)
        return mp_yaml_fail(top->err, path ? mp_yaml_key(top->map, "checkpoint") : top->map,
                            "the key 'checkpoint' is missing; expected the folder of a checkpoint "
                            "in Diffusers layout");
    out->request.checkpoint = mp_path_beside(a, mp_yaml_get(top->map, "checkpoint")->file, path);
    if (variant && !mp_yaml_off(mp_yaml_get(top->map, "variant"))) {
        if (!plain_name(variant)) /* it becomes a part of file names */
            return mp_schema_wrong(a, top->map, "", "variant", top->err);
        out->request.variant = variant;
    }
    return MP_OK;
}

static mp_code check_quirk(const mp_yaml *item, const mp_pipeline_def *pipeline, mp_arena *a,
                           mp_error *err)
{
    mp_text list = {0};
    int n = 0;

    if (item->kind != MP_YAML_SCALAR)
        return mp_yaml_fail(err, item, "quirks: found %s, expected a name",
                            mp_yaml_describe(a, item));
    for (; pipeline->quirks[n]; n++) {
        if (!strcmp(pipeline->quirks[n], item->text)) {
            mp_text_free(&list);
            return MP_OK;
        }
        mp_text_printf(&list, "%s%s", n ? ", " : "", pipeline->quirks[n]);
    }
    const char *near = mp_nearest(item->text, pipeline->quirks, n);
    mp_yaml_fail(err, item, "unknown quirk '%s'%s%s%s; the pipeline %s has: %s",
                 mp_plain(item->text).text, near ? "; did you mean '" : "", near ? near : "",
                 near ? "'?" : "", pipeline->name, list.data ? list.data : "none");
    mp_text_free(&list);
    return err->code;
}

static mp_code read_quirks(mp_arena *a, const mp_yaml *root, mp_scenario *out, mp_error *err)
{
    const mp_yaml *list = mp_yaml_get(root, "quirks");
    const char **quirks;
    int n = 0;

    if (err->code || mp_yaml_off(list))
        return err->code;
    if (list->kind != MP_YAML_LIST)
        return mp_schema_wrong(a, root, "", "quirks", err);
    for (int i = 0; i < list->count; i++)
        if (check_quirk(list->items[i], out->pipeline, a, err))
            return err->code;
    quirks = mp_arena_alloc(a, (size_t)list->count + 1, sizeof *quirks);
    /* In the pipeline's order, each once, so that two spellings are one setting. */
    for (const char *const *q = out->pipeline->quirks; *q; q++)
        for (int i = 0; i < list->count; i++)
            if (!strcmp(*q, list->items[i]->text)) {
                quirks[n++] = *q;
                break;
            }
    out->request.quirks = n ? quirks : NULL;
    return MP_OK;
}

static mp_code read_reference(mp_arena *a, const mp_section *top, mp_scenario *out)
{
    const mp_yaml *node = top->map ? mp_yaml_get(top->map, "reference") : NULL;

    out->reference = true;
    out->reference_dtype = MP_F32;
    if (top->err->code || mp_yaml_is_null(node))
        return top->err->code;
    out->reference = !mp_yaml_off(node);
    if (out->reference &&
        (node->kind != MP_YAML_SCALAR || !mp_dtype_parse(node->text, &out->reference_dtype)))
        return mp_schema_wrong(a, top->map, "", "reference", top->err);
    return MP_OK;
}

/* ---- settings ------------------------------------------------------------------------------- */

static void add_setting(mp_scenario *s, const char *key, const char *value)
{
    if (s->setting_count < MAX_SETTINGS)
        s->settings[s->setting_count++] = (mp_pair){key, value};
}

static const char *base_name(mp_arena *a, const char *path)
{
    size_t n = strlen(path);

    while (n > 1 && path[n - 1] == '/')
        n--;
    const char *start = path + n;
    while (start > path && start[-1] != '/')
        start--;
    return mp_arena_strndup(a, start, (size_t)(path + n - start));
}

static void add_components(mp_arena *a, mp_scenario *s, const char *key,
                           const mp_component_dtype *list, int n)
{
    if (!n)
        add_setting(s, key, "none");
    for (int i = 0; i < n; i++)
        add_setting(s, mp_arena_printf(a, "%s.%s", key, list[i].component),
                    mp_dtype_name(list[i].dtype));
}

static const char *overrides_text(mp_arena *a, const mp_precision *p)
{
    mp_text t = {0};

    if (!p->override_count)
        return "none";
    mp_text_add(&t, "[");
    for (int i = 0; i < p->override_count; i++) {
        const mp_yaml match = {
            .kind = MP_YAML_SCALAR, .text = p->overrides[i].match, .quoted = true};
        mp_text_add(&t, i ? ", {match: " : "{match: ");
        mp_yaml_write(&t, &match);
        mp_text_printf(&t, ", dtype: %s}", mp_dtype_name(p->overrides[i].dtype));
    }
    mp_text_add(&t, "]");
    return mp_text_take(&t, a);
}

static const char *quirks_text(mp_arena *a, const char *const *quirks)
{
    mp_text t = {0};

    if (!quirks)
        return "none";
    for (const char *const *q = quirks; *q; q++)
        mp_text_printf(&t, "%s%s", q == quirks ? "[" : ", ", *q);
    mp_text_add(&t, "]");
    return mp_text_take(&t, a);
}

static void add_settings(mp_arena *a, mp_scenario *s)
{
    const mp_request *r = &s->request;
    const mp_precision *p = &r->precision;

    s->settings = mp_arena_alloc(a, MAX_SETTINGS, sizeof *s->settings);
    add_setting(s, "pipeline", s->pipeline->name);
    add_setting(s, "checkpoint", base_name(a, r->checkpoint));
    add_setting(s, "variant", r->variant ? r->variant : "none");
    add_setting(s, "precision.default", mp_dtype_name(p->dtype));
    add_components(a, s, "precision.components", p->components, p->component_count);
    add_components(a, s, "precision.storage", p->storage, p->storage_count);
    add_setting(s, "precision.overrides", overrides_text(a, p));
    add_setting(s, "precision.policy", mp_policy_name(p->policy));
    add_setting(s, "precision.load", p->load_to ? "to" : "from_pretrained");
    add_setting(s, "precision.e4m3", s->e4m3 == MP_E4M3_NAN ? "nan" : "saturate");
    add_setting(s, "tiling", mp_tiling_text(a, &r->tiling));
    add_setting(s, "quirks", quirks_text(a, r->quirks));
    add_setting(s, "reference", s->reference ? mp_dtype_name(s->reference_dtype) : "off");
    add_setting(s, "memory", s->memory ? mp_arena_printf(a, "%zu", s->memory) : "none");
    add_setting(s, "offload", r->offload ? "stage" : "none");
    for (int i = 0; i < r->input_count; i++)
        add_setting(s, mp_arena_printf(a, "inputs.%s", mp_input_name(r->inputs[i].field)),
                    mp_input_text(a, &r->inputs[i]));
}

/* "inputs.num_inference_steps" is the setting "inputs.steps". */
static const char *setting_name(const mp_scenario *s, const char *key, char *room, size_t size)
{
    if (!strncmp(key, "inputs.", 7))
        for (int i = 0; i < s->request.input_count; i++)
            if (!strcmp(s->request.inputs[i].field->name, key + 7)) {
                snprintf(room, size, "inputs.%s", mp_input_name(s->request.inputs[i].field));
                return room;
            }
    return key;
}

const char *mp_scenario_setting(const mp_scenario *s, const char *key)
{
    char room[256];

    key = setting_name(s, key, room, sizeof room);
    for (int i = 0; i < s->setting_count; i++)
        if (!strcmp(s->settings[i].key, key))
            return s->settings[i].value;
    return NULL;
}

const char *mp_scenario_value(mp_arena *a, const mp_scenario *s, const char *key)
{
    const char *whole = mp_scenario_setting(s, key);
    const size_t n = strlen(key);
    mp_text t = {0};

    if (whole)
        return whole;
    for (int i = 0; i < s->setting_count; i++)
        if (!strncmp(s->settings[i].key, key, n) && s->settings[i].key[n] == '.')
            mp_text_printf(&t, "%s%s:%s", t.length ? "+" : "", s->settings[i].key + n + 1,
                           s->settings[i].value);
    return t.data ? mp_text_take(&t, a) : NULL;
}

bool mp_scenario_same(const mp_scenario *a, const mp_scenario *b)
{
    if (a->pipeline != b->pipeline || a->setting_count != b->setting_count ||
        strcmp(a->request.checkpoint, b->request.checkpoint))
        return false;
    for (int i = 0; i < a->setting_count; i++)
        if (strcmp(a->settings[i].key, b->settings[i].key) ||
            strcmp(a->settings[i].value, b->settings[i].value))
            return false;
    return true;
}

/* ---- the whole ------------------------------------------------------------------------------ */

static const char *const offloads[] = {"stage", "none"};

/* Every value on its own: what mp_scenario_matches needs too. */
static mp_code read_values(mp_arena *a, const mp_yaml *root, mp_scenario *out, mp_error *err)
{
    *out = (mp_scenario){.file = root->file, .root = root};
    if (root->kind != MP_YAML_MAP)
        return mp_yaml_fail(err, root,
                            "found %s, expected a map with name, pipeline, checkpoint "
                            "and inputs",
                            mp_yaml_describe(a, root));
    const mp_section top = mp_section_open(a, root, "", err);
    if (err->code || read_name(a, &top, out) || read_pipeline(&top, out) ||
        read_checkpoint(a, &top, out))
        return err->code;

    mp_request *r = &out->request;
    mp_input *inputs = NULL;
    const mp_yaml *node = mp_yaml_get(root, "inputs");
    if (!mp_yaml_is_null(node) && node->kind != MP_YAML_MAP)
        return mp_schema_wrong(a, root, "", "inputs", err);
    if (mp_scenario_inputs(a, node, root, out->pipeline, &inputs, err))
        return err->code;
    r->inputs = inputs;
    r->input_count = out->pipeline->input_count;
    mp_scenario_precision(a, root, out->pipeline, &r->precision, &out->e4m3, err);
    mp_value_tiling(a, root, &r->tiling, err);
    read_quirks(a, root, out, err);
    read_reference(a, &top, out);
    out->repeat = mp_section_int(&top, "repeat", 1, 1, 10000);
    out->warmup = mp_section_int(&top, "warmup", 0, 0, 1000);
    out->timeout = mp_section_duration(&top, "timeout", DEFAULT_TIMEOUT);
    out->memory = mp_section_size(&top, "memory");
    r->offload = mp_section_word(&top, "offload", offloads, 2, 0) == 0;
    if (!err->code)
        add_settings(a, out);
    return err->code;
}

/* A `when` that means nothing here is said before anything runs. */
static mp_code check_expectations(mp_arena *a, const mp_scenario *s, mp_error *err)
{
    bool applies;

    for (int i = 0; i < s->expect_count && !err->code; i++)
        if (s->expect[i].when)
            mp_scenario_matches(a, s, s->expect[i].when, &applies, err);
    return err->code;
}

static mp_code check_tiling(const mp_scenario *s, mp_error *err)
{
    const mp_yaml *node = mp_yaml_get(s->root, "tiling");
    const mp_yaml *stride = mp_yaml_key(node, "stride");
    const mp_tiling *t = &s->request.tiling;

    if (t->on && (t->stride_height > t->tile_height || t->stride_width > t->tile_width))
        return mp_yaml_fail(err, stride ? stride : mp_yaml_key(s->root, "tiling"),
                            "key 'tiling.stride': [%lld, %lld] is larger than the tile [%lld, "
                            "%lld], so tiles would leave gaps; expected at most the tile",
                            (long long)t->stride_height, (long long)t->stride_width,
                            (long long)t->tile_height, (long long)t->tile_width);
    return MP_OK;
}

/* Keys that are fine alone and mean nothing together. */
static mp_code check_combinations(const mp_scenario *s, mp_error *err)
{
    static const char *const judged[] = {"latent_rel_l2", "image_rel_l2", "psnr_db", "ssim",
                                         "seam"};
    const mp_yaml *budgets = mp_yaml_get(s->root, "budgets");

    for (size_t i = 0; !s->reference && i < sizeof judged / sizeof *judged; i++)
        if (!mp_yaml_is_null(mp_yaml_get(budgets, judged[i])))
            return mp_yaml_fail(err, mp_yaml_key(budgets, judged[i]),
                                "key 'budgets.%s' needs a reference, and 'reference' is off; give "
                                "a dtype there, or drop the budget",
                                judged[i]);
    return check_tiling(s, err);
}

mp_code mp_scenario_build(mp_arena *a, const mp_yaml *root, mp_scenario *out, mp_error *err)
{
    if (read_values(a, root, out, err) || mp_scenario_expect(a, root, out, err) ||
        mp_scenario_budgets(a, root, out, err))
        return err->code;
    if (check_combinations(out, err))
        return err->code;
    return check_expectations(a, out, err);
}

mp_code mp_scenario_probe(mp_arena *a, const mp_pipeline_def *p, const char *checkpoint,
                          mp_scenario *out, mp_error *err)
{
    const char *text = mp_arena_printf(a,
                                       "name: probe\npipeline: %s\ncheckpoint: placeholder\n"
                                       "inputs: {prompt: a photo of a red fox}\n",
                                       p->name);
    mp_yaml *root;

    if (!mp_yaml_parse(a, "probe", text, strlen(text), &root, err))
        mp_scenario_build(a, root, out, err);
    out->request.checkpoint = checkpoint;
    return err->code;
}

/* The input that a dotted key means, under either of its names. */
static const mp_input_field *input_of(const mp_yaml *root, const char *dotted)
{
    const mp_yaml *name = mp_yaml_get(root, "pipeline");
    const mp_pipeline_def *p =
        name && name->kind == MP_YAML_SCALAR ? mp_pipeline_find(name->text) : NULL;

    if (!p || strncmp(dotted, "inputs.", 7))
        return NULL;
    for (int i = 0; i < p->input_count; i++)
        if (!strcmp(p->inputs[i].name, dotted + 7) ||
            (p->inputs[i].alias && !strcmp(p->inputs[i].alias, dotted + 7)))
            return &p->inputs[i];
    return NULL;
}

const char *mp_scenario_key(mp_arena *a, const mp_yaml *root, const char *dotted)
{
    const mp_input_field *f = input_of(root, dotted);

    return f ? mp_arena_printf(a, "inputs.%s", mp_input_name(f)) : dotted;
}

bool mp_scenario_put(mp_arena *a, mp_yaml *root, const char *dotted, mp_yaml *value,
                     const mp_yaml **found)
{
    const mp_input_field *f = input_of(root, dotted);

    if (f) {
        const bool by_name = mp_yaml_get(mp_yaml_get(root, "inputs"), f->name) != NULL;
        dotted = mp_arena_printf(a, "inputs.%s", by_name ? f->name : mp_input_name(f));
    }
    return mp_yaml_put(a, root, dotted, value, found);
}

/* A checkpoint may be called by its folder's name alone, as cells do. */
static bool names_checkpoint(const mp_scenario *s, const char *key, const mp_yaml *value)
{
    return !strcmp(key, "checkpoint") && value->kind == MP_YAML_SCALAR &&
           !strcmp(value->text, mp_scenario_setting(s, "checkpoint"));
}

mp_code mp_scenario_matches(mp_arena *a, const mp_scenario *s, const mp_yaml *when, bool *out,
                            mp_error *err)
{
    mp_yaml *root = mp_yaml_copy(a, s->root);
    mp_scenario other;

    *out = false;
    for (int i = 0; i < when->count; i++)
        if (mp_schema_check_dotted(when->keys[i]->text, true, when->keys[i], err))
            return err->code;
    for (int i = 0; i < when->count; i++) {
        const mp_yaml *found = NULL;
        if (names_checkpoint(s, when->keys[i]->text, when->items[i]))
            continue;
        if (!mp_scenario_put(a, root, when->keys[i]->text, mp_yaml_copy(a, when->items[i]), &found))
            return MP_OK; /* tiling.tile where tiling is off: no match */
    }
    if (read_values(a, root, &other, err))
        return err->code;
    *out = mp_scenario_same(s, &other);
    return MP_OK;
}
