#include <inttypes.h>
#include <limits.h>

#include "harness/commands.h"
#include "harness/options.h"
#include "results/query.h"

int mp_cmd_list(int argc, char **argv)
{
    mp_arena *a = mp_arena_create();
    const char *db = NULL, *format = "text";
    int limit = 20;
    const mp_option options[] = {
        MP_OPTION_DATABASE(&db),
        MP_OPTION("format", TEXT, &format, "F", "text, markdown, json or csv (the cells)",
                  .among = mp_format_names),
        MP_OPTION("limit", INT, &limit, "N", "the newest N runs, 0 for all (default: 20)", .min = 0,
                  .max = INT_MAX),
    };
    const mp_usage usage = {.command = "list",
                            .operands = "",
                            .summary = "Shows the newest runs of a database, newest first, and "
                                       "their cells.",
                            .options = options,
                            .option_count = sizeof options / sizeof *options};
    mp_words operands;
    mp_store *s = NULL;
    mp_error err = {0};
    int64_t more = 0;
    int status;

    if (mp_options_parse(a, &usage, argc, argv, &operands, &status) &&
        (mp_store_open(mp_database_path(db), MP_STORE_READ, &s, &err) ||
         mp_query_list(s, limit, mp_format_of(format), stdout, &more, &err))) {
        status = mp_complain("list", &err);
    }
    if (more)
        fprintf(stderr, "mpbench list: %" PRId64 " older run%s not listed; --limit 0 lists all\n",
                more, more == 1 ? " is" : "s are");
    mp_store_close(s);
    mp_arena_free(a);
    return status;
}
