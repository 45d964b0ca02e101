#include "kernels/core/policy.h"

#include <assert.h>
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

#include "kernels/core/ctx_internal.h"
#include "kernels/core/memory.h"

static const char *const policy_names[MP_POLICY_COUNT] = {
    [MP_STRICT] = "strict", [MP_NEGOTIATE] = "negotiate", [MP_FALLBACK] = "fallback"};

static const char *const action_names[MP_ACTION_COUNT] = {[MP_CAST_IN] = "cast_in",
                                                          [MP_CAST_OUT] = "cast_out",
                                                          [MP_REDO_REFUSED] = "redo_refused",
                                                          [MP_REDO_NONFINITE] = "redo_nonfinite"};

const char *mp_policy_name(mp_policy p)
{
    assert(p >= 0 && p < MP_POLICY_COUNT);
    return policy_names[p];
}

bool mp_policy_parse(const char *text, mp_policy *out)
{
    for (int i = 0; i < MP_POLICY_COUNT; i++)
        if (!strcmp(text, policy_names[i])) {
            *out = (mp_policy)i;
            return true;
        }
    return false;
}

const char *mp_action_name(mp_action_kind k)
{
    assert(k >= 0 && k < MP_ACTION_COUNT);
    return action_names[k];
}

bool mp_path_matches(const char *glob, const char *path)
{
    char text[512];

    snprintf(text, sizeof text, "%s", path);
    for (;;) {
        if (!fnmatch(glob, text, 0))
            return true;
        char *dot = strrchr(text, '.');
        if (!dot)
            return false;
        *dot = '\0';
    }
}

/* ---- declared dtypes ------------------------------------------------------------------------ */

void mp_declare(mp_ctx *c, const mp_dtype_override *list, int count)
{
    c->declared = list;
    c->declared_count = list ? count : 0;
}

mp_dtype mp_declared(const mp_ctx *c, const char *module)
{
    for (int i = c->declared_count - 1; i >= 0; i--)
        if (mp_path_matches(c->declared[i].match, module))
            return c->declared[i].dtype;
    return MP_DTYPE_COUNT;
}

/* ---- the record of actions ------------------------------------------------------------------ */

static bool same_place(const mp_action *a, const mp_action *b)
{
    return a->kind == b->kind && a->from == b->from && a->to == b->to &&
           !strcmp(a->module, b->module) && !strcmp(a->op, b->op);
}

/* A new entry for the place of a, all zero; NULL: no memory. */
static mp_action *new_action(mp_ctx *c, const mp_action *a)
{
    if (c->action_count == c->action_room) {
        const int room = c->action_room ? 2 * c->action_room : 32;
        mp_action *const list = mp_realloc(c->actions, (size_t)room, sizeof *list);
        if (!list)
            return NULL;
        c->actions = list;
        c->action_room = room;
    }
    mp_action *const entry = &c->actions[c->action_count];
    *entry = (mp_action){.kind = a->kind, .from = a->from, .to = a->to, .op = a->op};
    entry->module = mp_strdup(a->module);
    c->action_count += entry->module != NULL;
    return entry->module ? entry : NULL;
}

void mp_act_on_record(mp_ctx *c, const mp_action *a)
{
    mp_action *entry = NULL;

    if (mp_failed(c))
        return;
    for (int i = 0; i < c->action_count && !entry; i++)
        if (same_place(&c->actions[i], a))
            entry = &c->actions[i];
    if (!entry && !(entry = new_action(c, a))) {
        mp_fail(c, MP_ENOMEM, NULL, "no memory for the record of casts");
        return;
    }
    entry->count += a->count;
    entry->elements += a->elements;
    entry->ns += a->ns;
}

int mp_action_count(const mp_ctx *c)
{
    return c->action_count;
}

const mp_action *mp_action_at(const mp_ctx *c, int i)
{
    assert(i >= 0 && i < c->action_count);
    return &c->actions[i];
}

void mp_action_clear(mp_ctx *c)
{
    for (int i = 0; i < c->action_count; i++)
        mp_free((void *)c->actions[i].module);
    c->action_count = 0;
}
