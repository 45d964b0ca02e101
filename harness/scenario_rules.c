#include "harness/scenario_rules.h"

#include <math.h>
#include <string.h>

#include "harness/scenario_schema.h"
#include "harness/scenario_values.h"
#include "harness/version.h"

static const char *const statuses[] = {"ok", "error", "crash", "timeout", "oom", "nonfinite"};
static const char *const outcomes[] = {
    "dtype_mismatch", "nan_first", "overflow", "constant", "oom",   "unsupported",
    "crash",          "timeout",   "io",       "format",   "shape", "missing",
    "usage",          "device",    "engine",   "exception"};

static bool among(const char *text, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(text, words[i]))
            return true;
    return false;
}

static mp_code check_when(mp_arena *a, const mp_yaml *entry, mp_expectation *e, mp_error *err)
{
    const mp_yaml *when = mp_yaml_get(entry, "when");

    if (mp_yaml_is_null(when))
        return MP_OK;
    if (when->kind != MP_YAML_MAP)
        return mp_schema_wrong(a, entry, "expect[]", "when", err);
    for (int i = 0; i < when->count; i++)
        if (mp_schema_check_dotted(when->keys[i]->text, true, when->keys[i], err))
            return err->code;
    e->when = when;
    return MP_OK;
}

static mp_code read_expectation(mp_arena *a, const mp_yaml *entry, mp_expectation *e, mp_error *err)
{
    if (entry->kind != MP_YAML_MAP)
        return mp_yaml_fail(err, entry,
                            "expect: found %s, expected a map with when, and error, "
                            "status or outcome",
                            mp_yaml_describe(a, entry));
    if (mp_schema_check(entry, "expect[]", err) || check_when(a, entry, e, err))
        return err->code;
    const mp_section s = {.arena = a, .map = entry, .name = "expect[]", .err = err};
    e->at = entry;
    e->engine = mp_section_text(&s, "engine", NULL);
    e->error = mp_section_text(&s, "error", NULL);
    e->status = mp_section_text(&s, "status", NULL);
    e->outcome = mp_section_text(&s, "outcome", NULL);
    if (err->code)
        return err->code;
    if (e->engine && !mp_engine_condition_valid(e->engine))
        return mp_schema_wrong(a, entry, "expect[]", "engine", err);
    if (e->status && !among(e->status, statuses, sizeof statuses / sizeof *statuses))
        return mp_schema_wrong(a, entry, "expect[]", "status", err);
    if (e->outcome && !among(e->outcome, outcomes, sizeof outcomes / sizeof *outcomes))
        return mp_schema_wrong(a, entry, "expect[]", "outcome", err);
    if (e->error && !*e->error)
        return mp_schema_wrong(a, entry, "expect[]", "error", err);
    if (!e->error && !e->status && !e->outcome)
        return mp_yaml_fail(err, entry,
                            "expect: this entry expects nothing; add error, status or "
                            "outcome (status: ok for success)");
    return MP_OK;
}

mp_code mp_scenario_expect(mp_arena *a, const mp_yaml *root, mp_scenario *out, mp_error *err)
{
    const mp_yaml *list = mp_yaml_get(root, "expect");
    mp_expectation *all;

    if (err->code || mp_yaml_is_null(list))
        return err->code;
    if (list->kind != MP_YAML_LIST)
        return mp_schema_wrong(a, root, "", "expect", err);
    all = mp_arena_alloc(a, (size_t)list->count, sizeof *all);
    for (int i = 0; i < list->count; i++)
        if (read_expectation(a, list->items[i], &all[i], err))
            return err->code;
    out->expect = all;
    out->expect_count = list->count;
    return MP_OK;
}

/* "5%" is 0.05.  A bare 5 would be 500 %, and more likely a mistake that lets everything pass. */
static bool read_share(mp_arena *a, const mp_yaml *node, double *out)
{
    const size_t n = node->kind == MP_YAML_SCALAR ? strlen(node->text) : 0;

    if (!n || node->text[n - 1] != '%')
        return mp_yaml_number(node, out) && *out >= 0 && *out <= 1;
    const mp_yaml number = {.kind = MP_YAML_SCALAR, .text = mp_arena_strndup(a, node->text, n - 1)};
    if (!mp_yaml_number(&number, out) || *out < 0)
        return false;
    *out /= 100;
    return true;
}

static bool read_limit(const mp_yaml *node, double *out)
{
    return mp_yaml_number(node, out) && *out >= 0;
}

static mp_code read_limits(mp_arena *a, const mp_yaml *map, mp_budget *b, mp_error *err)
{
    const mp_yaml *absolute = mp_yaml_get(map, "absolute");
    const mp_yaml *relative = mp_yaml_get(map, "relative");

    if (mp_schema_check(map, "budgets[]", err))
        return err->code;
    if (!mp_yaml_is_null(absolute) && !read_limit(absolute, &b->absolute))
        return mp_schema_wrong(a, map, "budgets[]", "absolute", err);
    if (!mp_yaml_is_null(relative) && !read_share(a, relative, &b->relative))
        return mp_schema_wrong(a, map, "budgets[]", "relative", err);
    return MP_OK;
}

mp_code mp_scenario_budgets(mp_arena *a, const mp_yaml *root, mp_scenario *out, mp_error *err)
{
    const mp_section s = mp_section_open(a, root, "budgets", err);

    for (int i = 0; s.map && !err->code && i < s.map->count; i++) {
        const char *name = s.map->keys[i]->text;
        const mp_yaml *node = s.map->items[i];
        mp_budget b = {.name = name, .absolute = NAN, .relative = NAN};
        if (mp_yaml_is_null(node))
            continue;
        if (node->kind == MP_YAML_MAP)
            read_limits(a, node, &b, err);
        else if (!read_limit(node, &b.absolute))
            mp_schema_wrong(a, s.map, "budgets", name, err);
        if (!err->code && isnan(b.absolute) && isnan(b.relative))
            mp_yaml_fail(err, s.map->keys[i],
                         "key 'budgets.%s': limits nothing; expected absolute or relative", name);
        b.at_least = !strcmp(name, "psnr_db") || !strcmp(name, "ssim");
        out->budgets[out->budget_count++] = b;
    }
    return err->code;
}
