#include "harness/commands.h"
#include "harness/options.h"
#include "results/regressions.h"

static bool parse_ids(const mp_words *operands, int64_t *ids)
{
    for (int i = 0; i < operands->count; i++) {
        const char *text = operands->items[i];
        if (!mp_parse_id(text, &ids[i])) {
            fprintf(stderr,
                    "mpbench ack: '%.60s' is no finding's id, expected a number; `mpbench "
                    "regressions` shows the ids\n",
                    text);
            return false;
        }
    }
    return true;
}

int mp_cmd_ack(int argc, char **argv)
{
    mp_arena *a = mp_arena_create();
    const char *db = NULL, *why = NULL;
    bool siblings = false;
    const mp_option options[] = {
        MP_OPTION("db", TEXT, &db, "FILE", "database (default: MPBENCH_DB, or mpbench.db)"),
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
        if (!why) {
            fprintf(stderr, "mpbench ack: --why is missing: say in a few words why this is fine\n");
            status = MP_EXIT_USAGE;
        } else if (!parse_ids(&operands, ids)) {
            status = MP_EXIT_USAGE;
        } else {
            if (mp_store_open(mp_database_path(db), MP_STORE_UPDATE, &s, &err) ||
                mp_findings_acknowledge(s, ids, operands.count, siblings, why, &count, &err)) {
                fprintf(stderr, "mpbench ack: %s\n", err.text);
                status = err.code == MP_EMISSING || err.code == MP_EUSAGE ? MP_EXIT_USAGE
                                                                          : MP_EXIT_FAILED;
            } else {
                printf("%d finding%s acknowledged\n", count, count == 1 ? "" : "s");
            }
        }
    }
    mp_store_close(s);
    mp_arena_free(a);
    return status;
}
