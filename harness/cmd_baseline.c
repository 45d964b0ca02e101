#include <inttypes.h>
#include <string.h>

#include "harness/commands.h"
#include "harness/options.h"
#include "harness/uuid.h"
#include "results/baseline.h"

typedef struct order {
    const char *db, *why, *format;
    mp_words words; /* "set NAME [RUN]", "list" */
} order;

static mp_code set(const order *o, mp_error *err)
{
    char uuid[37];
    mp_baseline_info info = {.uuid = uuid,
                             .name = o->words.items[1],
                             .run = o->words.count > 2 ? o->words.items[2] : NULL,
                             .why = o->why};
    mp_store *s = NULL;
    int64_t run = 0;

    if (!mp_store_open(mp_database_path(o->db), MP_STORE_UPDATE, &s, err) &&
        !mp_uuid_make(uuid, err) && !mp_baseline_set(s, &info, &run, err)) {
        mp_print_plain(stdout, info.name, -1);
        printf(" is run %" PRId64 "\n", run);
    }
    mp_store_close(s);
    return err->code;
}

static mp_code list(const order *o, mp_error *err)
{
    mp_store *s = NULL;

    if (!mp_store_open(mp_database_path(o->db), MP_STORE_READ, &s, err))
        mp_baseline_list(s, mp_format_of(o->format ? o->format : "text"), stdout, err);
    mp_store_close(s);
    return err->code;
}

static mp_code obey(const order *o, mp_error *err)
{
    const char *word = o->words.items[0];
    const int n = o->words.count;

    if (!strcmp(word, "set") && (n == 2 || n == 3) && !o->format)
        return set(o, err);
    if (!strcmp(word, "list") && n == 1 && !o->why)
        return list(o, err);
    return mp_error_set(err, MP_EUSAGE,
                        "expected set NAME [RUN] [--why TEXT], or list [--format F]; see `mpbench "
                        "baseline --help`");
}

int mp_cmd_baseline(int argc, char **argv)
{
    mp_arena *a = mp_arena_create();
    order o = {0};
    const mp_option options[] = {
        MP_OPTION_DATABASE(&o.db),
        MP_OPTION("why", TEXT, &o.why, "TEXT", "of set: kept with the name"),
        MP_OPTION("format", TEXT, &o.format, "F", "of list: text, markdown, json or csv",
                  .among = mp_format_names),
    };
    const mp_usage usage = {
        .command = "baseline",
        .operands = "set NAME [RUN] | list",
        .summary = "Names a run for `mpbench run --against NAME`, or lists the names. RUN is a "
                   "run's id, UUID or\nlabel; without it, the newest finished run is meant. A name "
                   "that is set again means the new\nrun, and its history stays.",
        .options = options,
        .option_count = sizeof options / sizeof *options,
        .min_operands = 1,
        .max_operands = 3};
    mp_error err = {0};
    int status;

    if (mp_options_parse(a, &usage, argc, argv, &o.words, &status) && obey(&o, &err)) {
        status = mp_complain("baseline", &err);
    }
    mp_arena_free(a);
    return status;
}
