#include "harness/commands.h"
#include "harness/options.h"
#include "results/query.h"

int mp_cmd_show(int argc, char **argv)
{
    mp_arena *a = mp_arena_create();
    const char *db = NULL, *format = "text";
    bool ops = false;
    const mp_option options[] = {
        MP_OPTION_DATABASE(&db),
        MP_OPTION_FORMAT(&format),
        MP_OPTION("ops", FLAG, &ops, NULL, "where the time went: its most expensive ops"),
    };
    const mp_usage usage = {.command = "show",
                            .operands = "ID",
                            .summary = "Shows one cell in full, with its repro line. The ids are "
                                       "those of `mpbench list`.",
                            .options = options,
                            .option_count = sizeof options / sizeof *options,
                            .min_operands = 1,
                            .max_operands = 1};
    mp_words operands;
    mp_store *s = NULL;
    mp_error err = {0};
    int64_t id = 0;
    int status;

    if (mp_options_parse(a, &usage, argc, argv, &operands, &status)) {
        if (!mp_parse_id(operands.items[0], &id))
            mp_error_set(&err, MP_EUSAGE,
                         "'%.60s' is no cell id, expected a number; `mpbench list` shows the ids",
                         operands.items[0]);
        if (err.code || mp_store_open(mp_database_path(db), MP_STORE_READ, &s, &err) ||
            (ops ? mp_query_ops : mp_query_show)(s, id, mp_format_of(format), stdout, &err))
            status = mp_complain("show", &err);
    }
    mp_store_close(s);
    mp_arena_free(a);
    return status;
}
