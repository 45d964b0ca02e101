#include <sys/stat.h>

#include "harness/commands.h"
#include "harness/options.h"
#include "results/merge.h"
#include "results/table.h"

typedef struct merging {
    const char *path; /* of OUT */
    mp_store *out;    /* NULL: not opened yet */
    mp_table *table;
    mp_merge_report sum;
    int files;
    int status;
} merging;

/* Before anything is written: OUT may not be one of the files that are only read. */
static bool names_out(const char *out, const char *in)
{
    struct stat a, b;

    if (stat(out, &a) || stat(in, &b) || a.st_dev != b.st_dev || a.st_ino != b.st_ino)
        return false;
    fprintf(stderr,
            "mpbench merge: %s: is OUT itself; leave it out of IN: what it holds stays in it\n",
            in);
    return true;
}

static void add(mp_merge_count *sum, const mp_merge_count *x)
{
    sum->added += x->added;
    sum->updated += x->updated;
    sum->there += x->there;
}

static void add_count(mp_table *t, const mp_merge_count *x)
{
    mp_table_add(t, "%lld", (long long)x->added);
    mp_table_add(t, "%lld", (long long)x->updated);
    mp_table_add(t, "%lld", (long long)x->there);
}

static void take_in(merging *m, const char *path, const mp_merge_report *r)
{
    add(&m->sum.runs, &r->runs);
    add(&m->sum.cells, &r->cells);
    m->files++;
    mp_table_add(m->table, "%s", path);
    add_count(m->table, &r->runs);
    add_count(m->table, &r->cells);
    mp_table_add(m->table, "%lld", (long long)r->rest.added);
}

/* OUT is made when there is something to put into it. */
static void merge_file(merging *m, const char *path)
{
    mp_merge_report report;
    mp_store *in = NULL;
    mp_error err = {0}, why = {0};

    if (!mp_store_open(path, MP_STORE_RENEW, &in, &err) &&
        (m->out || !mp_store_open(m->path, MP_STORE_WRITE, &m->out, &err)) &&
        !mp_merge(m->out, in, stderr, &report, &err))
        take_in(m, path, &report);
    mp_store_close(in);
    if (!err.code)
        return;
    mp_error_set(&why, err.code, "nothing of %s was merged: %s", path, err.text);
    m->status = mp_exit_worse(m->status, mp_complain("merge", &why));
}

static void print_sum(const char *what, const mp_merge_count *n, const char *end)
{
    printf("%s %lld added, %lld updated, %lld there before%s", what, (long long)n->added,
           (long long)n->updated, (long long)n->there, end);
}

static void print_result(const merging *m, int given)
{
    if (m->files)
        mp_table_print(m->table, MP_TEXT, 0, stdout);
    printf("%smerged %d of %d file%s into %s: ", m->files ? "\n" : "", m->files, given,
           given == 1 ? "" : "s", m->path);
    print_sum("runs", &m->sum.runs, "; ");
    print_sum("cells", &m->sum.cells, "\n");
}

/* A file that cannot be merged keeps none of the others out. */
static int merge_files(const char *out, const mp_words *in)
{
    static const char *const heads[] = {"file",   "runs added>",      "updated>",
                                        "there>", "cells added>",     "updated>",
                                        "there>", "other rows added>"};
    merging m = {.path = out};

    for (int i = 0; i < in->count; i++)
        if (names_out(out, in->items[i]))
            return MP_EXIT_USAGE;
    m.table = mp_table_create(sizeof heads / sizeof *heads, heads);
    for (int i = 0; i < in->count; i++)
        merge_file(&m, in->items[i]);
    print_result(&m, in->count);
    mp_table_free(m.table);
    mp_store_close(m.out);
    return m.status;
}

int mp_cmd_merge(int argc, char **argv)
{
    mp_arena *a = mp_arena_create();
    const mp_usage usage = {
        .command = "merge",
        .operands = "OUT IN...",
        .summary = "Adds what the databases IN hold to the database OUT, which is made when it is "
                   "not there.\nRuns are known by their UUIDs, so merging twice changes nothing; "
                   "IN is only read.",
        .min_operands = 2,
        .max_operands = -1};
    mp_words operands;
    int status;

    if (mp_options_parse(a, &usage, argc, argv, &operands, &status)) {
        const mp_words in = {operands.items + 1, operands.count - 1};
        status = merge_files(operands.items[0], &in);
    }
    mp_arena_free(a);
    return status;
}
