#include "harness/commands.h"
#include "harness/folders.h"
#include "harness/options.h"
#include "plots/report.h"
#include "results/table.h"

static void print_result(const char *folder, const mp_page_result *r)
{
    mp_print_plain(stdout, folder, -1);
    printf("/index.html: %.2f MB, %d cell%s: %d unexpected, %d over budget, %d unfinished, %d open "
           "finding%s\n",
           (double)r->bytes / 1e6, r->cells, r->cells == 1 ? "" : "s", r->unexpected,
           r->over_budget, r->unfinished, r->open_findings, r->open_findings == 1 ? "" : "s");
}

static mp_code report(const char *db, const mp_report_filter *f, const char *folder, mp_error *err)
{
    mp_page_result r = {0};
    mp_store *s = NULL;

    if (!mp_store_open(db, MP_STORE_READ, &s, err) && !mp_make_folders(folder, err) &&
        !mp_report_page(s, f, folder, &r, err))
        print_result(folder, &r);
    mp_store_close(s);
    return err->code;
}

int mp_cmd_report(int argc, char **argv)
{
    mp_arena *a = mp_arena_create();
    const char *db = NULL, *folder = NULL;
    mp_report_filter f = {0};
    const mp_option options[] = {
        MP_OPTION_DATABASE(&db),
        MP_OPTION("out", TEXT, &folder, "DIR", "where index.html goes; made when it is missing"),
        MP_OPTION("run", TEXT, &f.run, "R", "the cells of this run only: an id, a UUID or a label"),
        MP_OPTION("scenario", TEXT, &f.scenario, "S", "this scenario only"),
    };
    const mp_usage usage = {
        .command = "report",
        .operands = "",
        .summary = "Writes DIR/index.html: one page with what the newest runs gave, what changed "
                   "over the runs,\nerrors, drift by dtype, series and pictures. It needs no "
                   "network and opens from a file.",
        .options = options,
        .option_count = sizeof options / sizeof *options};
    mp_words operands;
    mp_error err = {0};
    int status;

    if (mp_options_parse(a, &usage, argc, argv, &operands, &status)) {
        if (!folder)
            mp_error_set(&err, MP_EUSAGE,
                         "--out DIR is missing: name the folder that index.html goes into; see "
                         "`mpbench report --help`");
        if (err.code || report(mp_database_path(db), &f, folder, &err))
            status = mp_complain("report", &err);
    }
    mp_arena_free(a);
    return status;
}
