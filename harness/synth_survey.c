#include <string.h>

#include "harness/scenario.h"
#include "harness/synth.h"

typedef struct survey {
    mp_arena *arena;
    mp_synth_model *model;
} survey;

static mp_synth_part *part_of(survey *s, const mp_weights_options *o)
{
    mp_synth_model *const m = s->model;

    for (int i = 0; i < m->count; i++)
        if (!strcmp(m->parts[i].component, o->component))
            return &m->parts[i];
    if (m->count == MP_SYNTH_PARTS)
        return NULL;
    m->parts[m->count] = (mp_synth_part){.component = mp_arena_strdup(s->arena, o->component),
                                         .stem = mp_arena_strdup(s->arena, o->stem)};
    return &m->parts[m->count++];
}

static void grow(mp_arena *a, mp_synth_part *part)
{
    const int64_t room = part->room ? 2 * part->room : 256;
    mp_tensor *const params = mp_arena_alloc(a, (size_t)room, sizeof *params);

    if (part->count)
        memcpy(params, part->params, (size_t)part->count * sizeof *params);
    part->params = params;
    part->room = room;
}

static void note_parameter(void *user, const mp_weights_options *o, const mp_tensor *p)
{
    survey *const s = user;
    mp_synth_part *const part = part_of(s, o);

    if (!part)
        return;
    if (part->count == part->room)
        grow(s->arena, part);
    part->params[part->count] = *p;
    part->params[part->count++].name = mp_arena_strdup(s->arena, p->name);
    part->parameters += mp_numel(*p);
    part->bytes += mp_nbytes(*p);
}

static mp_code survey_as(mp_arena *a, const mp_pipeline_def *p, const char *folder,
                         const mp_precision *precision, mp_synth_model *out, mp_error *err)
{
    survey s = {.arena = a, .model = out};
    const mp_weights_survey ask = {.parameter = note_parameter, .user = &s};
    const mp_sink sink = {0};
    mp_scenario probe = {0};
    void *pipeline = NULL;

    *out = (mp_synth_model){.pipeline = p};
    if (mp_scenario_probe(a, p, folder, &probe, err))
        return err->code;
    probe.request.precision = *precision;
    probe.request.survey = &ask;
    if (!p->open(NULL, &probe.request, &sink, &pipeline, err))
        p->close(pipeline);
    for (int i = 0; i < out->count; i++) {
        out->parameters += out->parts[i].parameters;
        out->bytes += out->parts[i].bytes;
    }
    return err->code;
}

mp_code mp_synth_survey(mp_arena *a, const char *folder, const mp_precision *precision,
                        mp_synth_model *out, mp_error *err)
{
    mp_error first = {0};

    for (const mp_pipeline_def *const *p = mp_pipelines(); *p; p++) {
        mp_error here = {0};
        if (!(*p)->open)
            continue; /* for workers only */
        if (!survey_as(a, *p, folder, precision, out, &here))
            return MP_OK;
        /* The one whose class the index names has more to say than that it is not this one. */
        if (!first.code || first.code == MP_EUNSUPPORTED)
            first = here;
    }
    *err = first;
    return err->code;
}
