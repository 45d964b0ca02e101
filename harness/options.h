/* The command line of a subcommand: one table gives parsing, messages and the help page. */
#ifndef MP_HARNESS_OPTIONS_H
#define MP_HARNESS_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "harness/arena.h"
#include "kernels/core/status.h"
#include "results/table.h"

/* DESIGN's exit statuses; the strongest wins. */
enum {
    MP_EXIT_OK = 0,
    MP_EXIT_REGRESSION = 1,   /* a regression or a broken budget */
    MP_EXIT_USAGE = 2,        /* bad usage, scenario or checkpoint */
    MP_EXIT_FAILED = 3,       /* a cell ended otherwise than expected, or the environment failed */
    MP_EXIT_INCONCLUSIVE = 4, /* too few samples, fingerprints differ */
};
/* Of two statuses the stronger one: 2, 1, 3, 4, 0. */
int mp_exit_worse(int a, int b);
/* Says on stderr why a command failed.  Its exit status: MP_EXIT_USAGE where something is not there
 * or was asked for in a wrong way, else MP_EXIT_FAILED. */
int mp_complain(const char *command, const mp_error *err);

typedef enum mp_option_kind {
    MP_OPTION_FLAG, /* bool */
    MP_OPTION_TEXT, /* const char * */
    MP_OPTION_INT,  /* int */
    MP_OPTION_REAL, /* double, finite and not negative */
    MP_OPTION_LIST, /* mp_words: may be given several times */
} mp_option_kind;

typedef struct mp_words {
    const char **items;
    int count;
} mp_words;

typedef struct mp_option {
    const char *name; /* "threads" */
    mp_option_kind kind;
    void *out;
    const char *meta; /* "N" */
    const char *help;
    int min, max;             /* of an int */
    const char *const *among; /* NULL-terminated words that a text must be one of, or NULL */
} mp_option;
/* An entry of the table; .min and .max, or .among, may follow. */
#define MP_OPTION(n, k, o, m, h, ...)                                                         \
    {                                                                                         \
        .name = (n), .kind = MP_OPTION_##k, .out = (o), .meta = (m), .help = (h), __VA_ARGS__ \
    }
/* Those that many commands have. */
#define MP_OPTION_DATABASE(o) \
    MP_OPTION("db", TEXT, (o), "FILE", "database (default: MPBENCH_DB, or mpbench.db)")
#define MP_OPTION_FORMAT(o) \
    MP_OPTION("format", TEXT, (o), "F", "text, markdown, json or csv", .among = mp_format_names)

typedef struct mp_usage {
    const char *command;  /* "run" */
    const char *operands; /* "FILE|DIR..." */
    const char *summary;
    const mp_option *options;
    int option_count;
    int min_operands, max_operands; /* max -1: any number */
} mp_usage;

/* Options may stand anywhere; "--" ends them.  True: go on.  False: *status is the exit status,
 * help or message is printed. */
bool mp_options_parse(mp_arena *a, const mp_usage *u, int argc, char **argv, mp_words *operands,
                      int *status);

/* The id of a row: a number above 0. */
bool mp_parse_id(const char *text, int64_t *id);

/* --db, MPBENCH_DB, or mpbench.db. */
const char *mp_database_path(const char *option);

#endif
