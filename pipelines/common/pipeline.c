#include "pipelines/common/pipeline.h"

#include <assert.h>
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

const mp_input *mp_request_input(const mp_request *r, const char *name)
{
    for (int i = 0; i < r->input_count; i++)
        if (!strcmp(r->inputs[i].field->name, name))
            return &r->inputs[i];
    assert(!"an input that the pipeline's table has");
    return NULL;
}

bool mp_request_quirk(const mp_request *r, const char *name)
{
    for (const char *const *quirk = r->quirks; quirk && *quirk; quirk++)
        if (!strcmp(*quirk, name))
            return true;
    return false;
}

static mp_dtype lookup(const mp_component_dtype *list, int n, const char *component,
                       mp_dtype fallback)
{
    for (int i = 0; i < n; i++)
        if (!strcmp(list[i].component, component))
            return list[i].dtype;
    return fallback;
}

mp_dtype mp_request_dtype(const mp_request *r, const char *component)
{
    return lookup(r->precision.components, r->precision.component_count, component,
                  r->precision.dtype);
}

/* True for a folder with a file name.VARIANT... in it. */
static bool has_variant(const char *folder, const char *variant)
{
    DIR *d = opendir(folder);
    bool found = false;

    for (const struct dirent *e; d && !found && (e = readdir(d));) {
        const char *dot = strchr(e->d_name, '.');
        found = dot && !strncmp(dot + 1, variant, strlen(variant));
    }
    if (d)
        closedir(d);
    return found;
}

static bool any_has_variant(const char *checkpoint, const char *variant)
{
    DIR *d = opendir(checkpoint);
    char folder[PATH_MAX];
    bool found = false;

    for (const struct dirent *e; d && !found && (e = readdir(d));) {
        snprintf(folder, sizeof folder, "%s/%s", checkpoint, e->d_name);
        found = e->d_name[0] != '.' && has_variant(folder, variant);
    }
    if (d)
        closedir(d);
    return found;
}

/* Diffusers loads the plain weights of a component that lacks the variant which others have.  Where
 * no component has it, the variant stays, and opening the weights says what is there. */
static const char *component_variant(const mp_request *r, const char *component)
{
    char folder[PATH_MAX];

    if (!r->variant)
        return NULL;
    snprintf(folder, sizeof folder, "%s/%s", r->checkpoint, component);
    if (has_variant(folder, r->variant) || !any_has_variant(r->checkpoint, r->variant))
        return r->variant;
    return NULL;
}

mp_weights_options mp_request_weights(const mp_request *r, const char *component, const char *stem)
{
    return (mp_weights_options){
        .component = component,
        .stem = stem,
        .variant = component_variant(r, component),
        .survey = r->survey,
        .dtype = mp_request_dtype(r, component),
        .storage =
            lookup(r->precision.storage, r->precision.storage_count, component, MP_DTYPE_COUNT),
        .e4m3 = MP_E4M3_SATURATE,
        .overrides = r->precision.overrides,
        .override_count = r->precision.override_count,
        .round_trip_fp32 = r->precision.load_to,
        .no_values = r->rehearse,
        .load_later = r->offload,
    };
}

mp_weights_stats mp_pipeline_weights(const mp_pipeline_def *d, const void *pipeline)
{
    mp_weights_stats total = {0};

    for (int i = 0; d->components[i]; i++) {
        const mp_weights *w = d->weights(pipeline, i);
        const mp_weights_stats s = w ? mp_weights_get_stats(w) : (mp_weights_stats){0};
        total.mapped += s.mapped;
        total.in_place += s.in_place;
        total.converted += s.converted;
        total.parameters += s.parameters;
    }
    return total;
}

/* ---- stages --------------------------------------------------------------------------------- */

/* The weights of component i if the stage uses it, else NULL. */
static mp_weights *used(const mp_stages *s, const char *stage, int i)
{
    return strcmp(s->pipeline->stages[i], stage) ? NULL : s->pipeline->weights(s->open, i);
}

static bool needs_load(const mp_stages *s, const char *stage)
{
    for (int i = 0; s->pipeline->components[i]; i++) {
        const mp_weights *w = used(s, stage, i);
        if (w && mp_weights_need_load(w))
            return true;
    }
    return false;
}

static void tell_begin(const mp_stages *s, const char *stage)
{
    if (s->sink && s->sink->stage_begin)
        s->sink->stage_begin(s->sink->user, stage);
}

static void tell_end(const mp_stages *s, const char *stage)
{
    if (s->sink && s->sink->stage_end)
        s->sink->stage_end(s->sink->user, stage);
}

static mp_code load(const mp_stages *s, const char *stage, mp_error *err)
{
    tell_begin(s, "load");
    for (int i = 0; !err->code && s->pipeline->components[i]; i++) {
        mp_weights *w = used(s, stage, i);
        if (w)
            mp_weights_load(w, err);
    }
    tell_end(s, "load");
    return err->code;
}

mp_code mp_stage_begin(const mp_stages *s, const char *stage, mp_error *err)
{
    if (needs_load(s, stage) && load(s, stage, err))
        return err->code;
    tell_begin(s, stage);
    return MP_OK;
}

void mp_stage_end(const mp_stages *s, const char *stage)
{
    mp_trim(s->c);
    tell_end(s, stage);
    for (int i = 0; s->offload && s->pipeline->components[i]; i++) {
        mp_weights *w = used(s, stage, i);
        if (w)
            mp_weights_unload(w);
    }
}
