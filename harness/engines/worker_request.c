#include "harness/engines/worker_request.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pipelines/common/file.h"

/* Relative paths are the harness's: a worker may stand elsewhere. */
static json_t *path_json(const char *path)
{
    char *whole = realpath(path, NULL);
    json_t *text = json_string(whole ? whole : path);

    free(whole);
    return text;
}

static json_t *list_json(const char *const *list)
{
    if (!list || !list[0])
        return json_null();
    json_t *all = json_array();
    for (const char *const *s = list; *s; s++)
        json_array_append_new(all, json_string(*s));
    return all;
}

static json_t *ints_json(const char *const *list)
{
    if (!list || !list[0])
        return json_null();
    json_t *all = json_array();
    for (const char *const *s = list; *s; s++)
        json_array_append_new(all, json_integer(strtoll(*s, NULL, 10)));
    return all;
}

static json_t *paths_json(const char *const *list)
{
    if (!list || !list[0])
        return json_null();
    json_t *all = json_array();
    for (const char *const *s = list; *s; s++)
        json_array_append_new(all, path_json(*s));
    return all;
}

static json_t *input_json(const mp_input *input)
{
    switch (input->field->type) {
    case MP_INPUT_INT:
        return json_integer((json_int_t)input->number);
    case MP_INPUT_NUMBER:
        return json_real(input->number);
    case MP_INPUT_BOOL:
        return json_boolean(input->number != 0);
    case MP_INPUT_STRING:
        return json_string(input->text);
    case MP_INPUT_STRINGS:
        return list_json(input->list);
    case MP_INPUT_INTS:
        return ints_json(input->list);
    case MP_INPUT_FILES:
        return paths_json(input->list);
    case MP_INPUT_FILE:
        return input->text && *input->text ? path_json(input->text) : json_null();
    }
    return json_null();
}

static json_t *inputs_json(const mp_request *r, json_t *defaults)
{
    json_t *all = json_object();

    for (int i = 0; i < r->input_count; i++) {
        const mp_input *x = &r->inputs[i];
        json_object_set_new(all, x->field->name, input_json(x));
        if (!x->given)
            json_array_append_new(defaults, json_string(x->field->name));
    }
    return all;
}

static json_t *components_json(const mp_component_dtype *list, int n)
{
    json_t *all = json_object();

    for (int i = 0; i < n; i++)
        json_object_set_new(all, list[i].component, json_string(mp_dtype_name(list[i].dtype)));
    return all;
}

static json_t *overrides_json(const mp_precision *p)
{
    json_t *all = json_array();

    for (int i = 0; i < p->override_count; i++)
        json_array_append_new(all, json_pack("{ss ss}", "match", p->overrides[i].match, "dtype",
                                             mp_dtype_name(p->overrides[i].dtype)));
    return all;
}

static json_t *precision_json(const mp_precision *p)
{
    return json_pack("{ss so so so ss ss}", "default", mp_dtype_name(p->dtype), "components",
                     components_json(p->components, p->component_count), "storage",
                     components_json(p->storage, p->storage_count), "overrides", overrides_json(p),
                     "policy", mp_policy_name(p->policy), "load",
                     p->load_to ? "to" : "from_pretrained");
}

static json_t *tiling_json(const mp_tiling *t)
{
    if (!t->on)
        return json_null();
    return json_pack("{s[II] s[II]}", "tile", (json_int_t)t->tile_height, (json_int_t)t->tile_width,
                     "stride", (json_int_t)t->stride_height, (json_int_t)t->stride_width);
}

static json_t *quirks_json(const char *const *quirks)
{
    json_t *all = json_array();

    for (; quirks && *quirks; quirks++)
        json_array_append_new(all, json_string(*quirks));
    return all;
}

/* Texts of a scenario are UTF-8, names of files need not be. */
static mp_code check_path(const char *path, mp_error *err)
{
    json_t *text = path_json(path);

    if (!text)
        mp_error_set(err, MP_EENGINE,
                     "the path %s is no UTF-8, so no worker can be told of it; rename it, or name "
                     "another cache with MPBENCH_CACHE",
                     mp_plain(path).text);
    json_decref(text);
    return err->code;
}

static mp_code check_paths(const mp_job *job, mp_error *err)
{
    check_path(job->request.checkpoint, err);
    check_path(job->outputs, err);
    for (int i = 0; i < job->request.input_count; i++) {
        const mp_input *x = &job->request.inputs[i];
        if (x->field->type == MP_INPUT_FILE && x->text)
            check_path(x->text, err);
        for (const char *const *s = x->list; s && *s && x->field->type == MP_INPUT_FILES; s++)
            check_path(*s, err);
    }
    return err->code;
}

static int thread_count(int threads)
{
    const long cpus = sysconf(_SC_NPROCESSORS_ONLN);

    return threads ? threads : cpus > 0 ? (int)cpus : 1;
}

const char *mp_worker_request(mp_arena *a, const mp_job *job, const char *device, int threads,
                              int64_t id, mp_error *err)
{
    const mp_request *r = &job->request;
    json_t *defaults, *all;
    mp_text line = {0};

    if (check_paths(job, err))
        return NULL;
    defaults = json_array();
    all = json_pack("{ss sI si ss so ss?}", "request", "run", "id", (json_int_t)id, "protocol", 1,
                    "pipeline", job->pipeline->name, "checkpoint", path_json(r->checkpoint),
                    "variant", r->variant);
    json_object_set_new(all, "inputs", inputs_json(r, defaults));
    json_object_set_new(all, "defaults", defaults);
    json_object_set_new(all, "precision", precision_json(&r->precision));
    json_object_set_new(all, "tiling", tiling_json(&r->tiling));
    json_object_set_new(all, "quirks", quirks_json(r->quirks));
    json_object_update_new(all, json_pack("{si si si si ss so}", "noise_ulps", r->noise_ulps,
                                          "repeat", job->repeat, "warmup", job->warmup, "threads",
                                          thread_count(threads), "device", device, "outputs",
                                          path_json(job->outputs)));
    json_object_set_new(all, "memory",
                        job->memory ? json_integer((json_int_t)job->memory) : json_null());
    char *text = json_dumps(all, JSON_COMPACT | JSON_ENSURE_ASCII);
    mp_text_printf(&line, "%s\n", text ? text : "{}");
    free(text);
    json_decref(all);
    return mp_text_take(&line, a);
}
