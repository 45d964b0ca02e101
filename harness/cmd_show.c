#include "harness/commands.h"
#include "harness/options.h"
#include "results/query.h"

static bool parse_id(const char *text, int64_t *id)
{
    if (mp_parse_id(text, id))
        return true;
    fprintf(stderr,
            "mpbench show: '%.60s' is no cell id, expected a number; `mpbench list` shows "
            "the ids\n",
            text);
    return false;
}

int mp_cmd_show(int argc, char **argv)
{
    mp_arena *a = mp_arena_create();
    const char *db = NULL, *format = "text";
    bool ops = false;
    const mp_option options[] = {
        MP_OPTION("db", TEXT, &db, "FILE", "database (default: MPBENCH_DB, or mpbench.db)"),
        MP_OPTION("format", TEXT, &format, "F", "text, markdown, json or csv",
                  .among = mp_format_names),
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
        if (!parse_id(operands.items[0], &id)) {
            status = MP_EXIT_USAGE;
        } else if (mp_store_open(mp_database_path(db), MP_STORE_READ, &s, &err) ||
                   (ops ? mp_query_ops : mp_query_show)(s, id, mp_format_of(format), stdout,
                                                        &err)) {
            fprintf(stderr, "mpbench show: %s\n", err.text);
            status = err.code == MP_EMISSING ? MP_EXIT_USAGE : MP_EXIT_FAILED;
        }
    }
    mp_store_close(s);
    mp_arena_free(a);
    return status;
}
