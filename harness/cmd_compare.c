#include <unistd.h>

#include "harness/commands.h"
#include "harness/options.h"
#include "results/compare.h"

int mp_cmd_compare(int argc, char **argv)
{
    static const char *const gates[] = {"worse", NULL};
    mp_arena *a = mp_arena_create();
    const char *db = NULL, *format = "text", *gate = NULL;
    mp_compare_options o = {0};
    const mp_option options[] = {
        MP_OPTION_DATABASE(&db),
        MP_OPTION("metric", TEXT, &o.metric, "M", "this metric only, such as latent_rel_l2"),
        MP_OPTION("fail-on", TEXT, &gate, "worse",
                  "exit with 1 if something is worse than A, 4 if that cannot be told",
                  .among = gates),
        MP_OPTION("pareto", FLAG, &o.pareto, NULL,
                  "a table of drift, time, memory and failures: which are beaten in all of them"),
        MP_OPTION_FORMAT(&format),
    };
    const mp_usage usage = {
        .command = "compare",
        .operands = "A B [C...]",
        .summary = "Says which is better, scenario by scenario, and by how much; B and all further "
                   "ones are held\nagainst A. Each is a dtype (fp16), a label, a run's id or UUID, "
                   "or KEY=VAL[,KEY=VAL]\nsuch as precision.components.vae=bf16; KEY may also be "
                   "run, label, engine, device or scenario.\nPairs that differ in prompt and seed "
                   "are judged together, and so are the runs of a label.",
        .options = options,
        .option_count = sizeof options / sizeof *options,
        .min_operands = 2,
        .max_operands = MP_COMPARE_MOST};
    mp_words operands;
    mp_store *s = NULL;
    mp_error err = {0};
    int status;

    if (mp_options_parse(a, &usage, argc, argv, &operands, &status)) {
        o.a = operands.items[0];
        o.b = operands.items[1];
        o.more = operands.items + 2;
        o.more_count = operands.count - 2;
        o.fail_on_worse = gate != NULL;
        o.format = mp_format_of(format);
        if (mp_store_open(mp_database_path(db), MP_STORE_READ, &s, &err) ||
            mp_compare(s, &o, stdout, &status, &err)) {
            status = mp_complain("compare", &err);
        }
    }
    mp_store_close(s);
    mp_arena_free(a);
    return status;
}
