#include "harness/commands.h"
#include "harness/options.h"
#include "results/regressions.h"

static mp_code parse_ids(const mp_words *operands, int64_t *ids, mp_error *err)
{
    for (int i = 0; i < operands->count; i++)
        if (!mp_parse_id(operands->items[i], &ids[i]))
            return mp_error_set(err, MP_EUSAGE,
                                "'%.60s' is no finding's id, expected a number; `mpbench "
                                "regressions` shows the ids",
                                operands->items[i]);
    return MP_OK;
}

int mp_cmd_ack(int argc, char **argv)
{
    mp_arena *a = mp_arena_create();
    const char *db = NULL, *why = NULL;
    bool siblings = false;
    const mp_option options[] = {
        MP_OPTION_DATABASE(&db),
        MP_OPTION("why", TEXT, &why, "TEXT", "the reason, kept in the database"),
        MP_OPTION("siblings", FLAG, &siblings, NULL,
                  "also everything else that changed between the same two runs"),
    };
    const mp_usage usage = {
        .command = "ack",
        .operands = "ID...",
        .summary = "Says that findings of `mpbench regressions` are known and accepted; they are "
                   "no alarm any more.",
        .options = options,
        .option_count = sizeof options / sizeof *options,
        .min_operands = 1,
        .max_operands = -1};
    mp_words operands;
    mp_store *s = NULL;
    mp_error err = {0};
    int status, count;

    if (mp_options_parse(a, &usage, argc, argv, &operands, &status)) {
        int64_t *ids = mp_arena_alloc(a, (size_t)operands.count, sizeof *ids);
        if (!why)
            mp_error_set(&err, MP_EUSAGE, "--why is missing: say in a few words why this is fine");
        if (err.code || parse_ids(&operands, ids, &err) ||
            mp_store_open(mp_database_path(db), MP_STORE_UPDATE, &s, &err) ||
            mp_findings_acknowledge(s, ids, operands.count, siblings, why, &count, &err))
            status = mp_complain("ack", &err);
        else
            printf("%d finding%s acknowledged\n", count, count == 1 ? "" : "s");
    }
    mp_store_close(s);
    mp_arena_free(a);
    return status;
}
