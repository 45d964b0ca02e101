#include <stdio.h>
#include <string.h>

#include "harness/commands.h"
#include "harness/options.h"
#include "results/regressions.h"

/* What is looked at in part only, or in another way, is not recorded: the rest would seem
 * withdrawn.
 */
static bool is_partial(const mp_regressions_view *v)
{
    return v->filter.metric || v->options.otava;
}

/* Otava's own options, and what it starts with. */
static bool set_otava(mp_otava_options *o, const char *method)
{
    const bool given = o->window || o->p >= 0 || o->magnitude >= 0;

    if (given && strcmp(method, "otava")) {
        fprintf(stderr,
                "mpbench regressions: --window, --p-value and --magnitude are Otava's: give "
                "--method otava, too, or none of them\n");
        return false;
    }
    o->window = o->window ? o->window : 50;
    o->p = o->p >= 0 ? o->p : 0.001;
    o->magnitude = o->magnitude >= 0 ? o->magnitude : 0;
    return true;
}

int mp_cmd_regressions(int argc, char **argv)
{
    mp_arena *a = mp_arena_create();
    const char *db = NULL, *format = "text";
    static const char *const methods[] = {"default", "otava", NULL};
    const char *method = "default";
    bool dry_run = false;
    mp_otava_options otava = {.p = -1, .magnitude = -1}; /* not given */
    mp_regressions_view v = {0};
    const mp_option options[] = {
        MP_OPTION_DATABASE(&db),
        MP_OPTION("scenario", TEXT, &v.filter.scenario, "S", "this scenario only"),
        MP_OPTION("metric", TEXT, &v.filter.metric, "M",
                  "this metric only, such as seconds; nothing is recorded"),
        MP_OPTION("all-rows", FLAG, &v.filter.every_row, NULL,
                  "also the metrics of each step and module, not only the summaries"),
        MP_OPTION("min-segment", INT, &v.options.min_segment, "N",
                  "runs on a new level before an alarm (default: 3)", .min = 2, .max = 1000),
        MP_OPTION("method", TEXT, &method, "default|otava",
                  "how steps are found; otava: as Apache Otava finds them, nothing is recorded",
                  .among = methods),
        MP_OPTION("window", INT, &otava.window, "N", "Otava's window (default: 50)", .min = 2,
                  .max = 100000),
        MP_OPTION("p-value", REAL, &otava.p, "P", "Otava's largest p (default: 0.001)"),
        MP_OPTION("magnitude", REAL, &otava.magnitude, "M",
                  "Otava's smallest relative change (default: 0)"),
        MP_OPTION("all", FLAG, &v.settled, NULL,
                  "show old findings that are no alarm, too: better, acknowledged, fixed"),
        MP_OPTION("dry-run", FLAG, &dry_run, NULL, "record nothing: no new ids and states"),
        MP_OPTION_FORMAT(&format),
    };
    const mp_usage usage = {
        .command = "regressions",
        .operands = "",
        .summary = "Shows what changed over the runs of a database, and between which of them: "
                   "steps and\ntrends of what has noise, any change of what has none. Exits with "
                   "1 for an open finding.",
        .options = options,
        .option_count = sizeof options / sizeof *options};
    mp_words operands;
    mp_store *s = NULL;
    mp_error err = {0};
    int status;

    if (mp_options_parse(a, &usage, argc, argv, &operands, &status)) {
        v.format = mp_format_of(format);
        v.options.otava = strcmp(method, "otava") ? NULL : &otava;
        v.options.record = !dry_run && !is_partial(&v);
        if (!set_otava(&otava, method))
            status = MP_EXIT_USAGE;
        else if (mp_store_open(mp_database_path(db),
                               v.options.record ? MP_STORE_UPDATE : MP_STORE_READ, &s, &err) ||
                 mp_regressions(s, &v, stdout, &status, &err))
            status = mp_complain("regressions", &err);
    }
    mp_store_close(s);
    mp_arena_free(a);
    return status;
}
