#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/options.h"
#include "harness/run.h"
#include "pipelines/common/file.h"
#include "results/baseline.h"
#include "results/compare.h"

/* Hours of running that end in "nothing to compare" would be a pity.  A shard may have no cell. */
static mp_code share_a_cell(const mp_run *r, mp_store *s, const mp_against *a, mp_error *err)
{
    bool has = !r->plan.count;

    for (int i = 0; !has && i < r->plan.count; i++)
        if (mp_against_has(s, a, r->plan.cells[i].scenario.name, r->plan.cells[i].hash, &has, err))
            return err->code;
    if (has)
        return MP_OK;
    return mp_error_set(err, MP_EMISSING,
                        "%s: run %" PRId64 " has none of these cells with the same settings; name "
                        "another one of `mpbench list`",
                        mp_store_path(s), a->run);
}

mp_code mp_run_against(mp_run *r, const char *db, mp_error *err)
{
    mp_error why = {0};
    mp_store *s = NULL;
    mp_against a;

    if (!r->options->against)
        return MP_OK;
    if (!mp_store_open(db, MP_STORE_READ, &s, &why) &&
        !mp_against_find(s, r->options->against, &a, &why) && !share_a_cell(r, s, &a, &why)) {
        r->against = a.run;
        r->versus = mp_arena_strdup(r->arena, a.selector);
    }
    mp_store_close(s);
    return why.code ? mp_error_set(err, why.code, "--against: %s", why.text) : MP_OK;
}

/* What compare prints, as text of the arena. */
static mp_code compare(mp_run *r, int *status, mp_error *err)
{
    mp_against self;
    const mp_compare_options o = {.a = r->versus,
                                  .b = self.selector,
                                  .fail_on_worse = true,
                                  .format = mp_format_of(r->options->format),
                                  .summary = mp_arena_alloc(r->arena, MP_COMPARE_SUMMARY, 1)};
    char *text = NULL;
    size_t size;
    FILE *to = open_memstream(&text, &size);

    if (!to)
        return mp_error_set(err, MP_ENOMEM, "no memory for the comparison");
    if (!mp_against_run(r->store, r->id, &self, err) && !strcmp(self.selector, r->versus))
        mp_error_set(err, MP_EUSAGE,
                     "%s is this very run, which --resume has gone on with; name another one",
                     mp_plain(r->options->against).text);
    if (!err->code)
        mp_compare(r->store, &o, to, status, err);
    if (fclose(to) && !err->code)
        mp_error_set(err, MP_ENOMEM, "no memory for the comparison");
    if (!err->code) {
        r->comparison = mp_arena_strdup(r->arena, text);
        r->compared = o.summary;
    }
    free(text);
    return err->code;
}

void mp_run_compare(mp_run *r)
{
    mp_error err = {0}, why = {0};
    int status = MP_EXIT_OK;

    /* Half a run is not held against a whole one, nor a shard without cells. */
    if (!r->options->against || r->trouble || !r->report_count)
        return;
    if (compare(r, &status, &err)) {
        mp_error_set(&why, err.code, "--against: %s", err.text);
        status = mp_complain("run", &why);
    }
    r->exit_status = mp_exit_worse(r->exit_status, status);
}
