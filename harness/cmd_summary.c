#include "harness/commands.h"
#include "harness/options.h"
#include "results/ci.h"

int mp_cmd_summary(int argc, char **argv)
{
    mp_arena *a = mp_arena_create();
    const char *db = NULL;
    const mp_option options[] = {
        MP_OPTION_DATABASE(&db),
    };
    const mp_usage usage = {
        .command = "summary",
        .operands = "[RUN]",
        .summary = "Runs in Markdown, the worst first, short enough for a comment. RUN is an id, a "
                   "UUID or\na label, as of the shards of one run; without it, the newest run.",
        .options = options,
        .option_count = sizeof options / sizeof *options,
        .max_operands = 1};
    mp_words operands;
    mp_store *s = NULL;
    mp_error err = {0};
    int status;

    if (mp_options_parse(a, &usage, argc, argv, &operands, &status) &&
        (mp_store_open(mp_database_path(db), MP_STORE_READ, &s, &err) ||
         mp_summary_print(s, operands.count ? operands.items[0] : NULL, stdout, &err))) {
        status = mp_complain("summary", &err);
    }
    mp_store_close(s);
    mp_arena_free(a);
    return status;
}
