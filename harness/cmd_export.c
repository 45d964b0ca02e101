#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "harness/commands.h"
#include "harness/options.h"
#include "results/export.h"

static const char *const formats[] = {"csv", "jsonl", NULL};

typedef struct exporting {
    const char *db, *format, *out;
    mp_export_options options;
} exporting;

static mp_code check(const exporting *x, mp_error *err)
{
    struct stat a, b;

    if (x->options.csv && !strcmp(x->options.table, "all"))
        return mp_error_set(err, MP_EUSAGE,
                            "--table all: a CSV file has one table; name one, or take --format "
                            "jsonl");
    if (x->out && !stat(x->db, &a) && !stat(x->out, &b) && a.st_dev == b.st_dev &&
        a.st_ino == b.st_ino)
        return mp_error_set(err, MP_EUSAGE, "--out %s: is the database itself; name another file",
                            x->out);
    return MP_OK;
}

/* Whether standard output took it all is asked when the program ends. */
static mp_code export_to(const exporting *x, mp_store *s, mp_error *err)
{
    if (!x->out)
        return mp_export(s, &x->options, stdout, err);
    FILE *to = fopen(x->out, "w");
    if (!to)
        return mp_error_set(err, MP_EIO, "%s: cannot be written: %s; name another file with --out",
                            x->out, strerror(errno));
    mp_export(s, &x->options, to, err);
    const bool lost = ferror(to) != 0;
    if (fclose(to) || lost)
        mp_error_set(err, MP_EIO,
                     "%s: not all of it could be written; make room, or name another file with "
                     "--out",
                     x->out);
    return err->code;
}

static int export_all(const exporting *x)
{
    mp_store *s = NULL;
    mp_error err = {0};

    if (!check(x, &err) && !mp_store_open(x->db, MP_STORE_RENEW, &s, &err) &&
        !mp_export_check(s, &x->options, &err))
        export_to(x, s, &err);
    mp_store_close(s);
    if (!err.code)
        return MP_EXIT_OK;
    return mp_complain("export", &err);
}

int mp_cmd_export(int argc, char **argv)
{
    mp_arena *a = mp_arena_create();
    exporting x = {.format = "csv", .options = {.table = "cells"}};
    const mp_option options[] = {
        MP_OPTION_DATABASE(&x.db),
        MP_OPTION("table", TEXT, &x.options.table, "T",
                  "cells (default), metrics, samples ..., or all in JSON lines",
                  .among = mp_export_names),
        MP_OPTION("format", TEXT, &x.format, "csv|jsonl",
                  "CSV for spreadsheets (default), or JSON lines for programs", .among = formats),
        MP_OPTION("run", TEXT, &x.options.run, "R", "only this run: an id, a UUID or a label"),
        MP_OPTION("scenario", TEXT, &x.options.scenario, "S", "only this scenario"),
        MP_OPTION("out", TEXT, &x.out, "FILE", "write there (default: standard output)"),
    };
    const mp_usage usage = {.command = "export",
                            .operands = "",
                            .summary =
                                "Writes a table of the database row by row.  Rows name "
                                "their run by its UUID and their\ncell by its key and start.",
                            .options = options,
                            .option_count = sizeof options / sizeof *options};
    mp_words operands;
    int status;

    if (mp_options_parse(a, &usage, argc, argv, &operands, &status)) {
        x.db = mp_database_path(x.db);
        x.options.csv = !strcmp(x.format, "csv");
        status = export_all(&x);
    }
    mp_arena_free(a);
    return status;
}
