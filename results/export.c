#include "results/export.h"

#include <jansson.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "results/db_tables.h"
#include "results/query.h"
#include "results/table.h"

/* Parameter 1 is the run, 2 the scenario; either may be NULL. */
#define RUNS "SELECT id FROM run WHERE uuid = ?1 OR label = ?1 OR CAST(id AS TEXT) = ?1"
#define CELLS \
    "SELECT id FROM cell WHERE (?1 IS NULL OR run IN (" RUNS ")) AND (?2 IS NULL OR scenario = ?2)"
#define OF_RUN(column)                                                    \
    "(?1 IS NULL OR " column " IN (" RUNS ")) AND (?2 IS NULL OR " column \
    " IN (SELECT run FROM cell WHERE scenario = ?2))"
#define OF_CELL(column) column " IN (" CELLS ")"

/* Name, as in `mpbench show` where that has it, too; table; which of its rows, t, are those of a
 * run and a scenario. */
#define EXPORTS(X)                                                                                \
    X("runs", "run", OF_RUN("t.id"))                                                              \
    X("environment", "run_environment", OF_RUN("t.run"))                                          \
    X("cells", "cell", OF_CELL("t.id"))                                                           \
    X("settings", "cell_setting", OF_CELL("t.cell"))                                              \
    X("samples", "sample", OF_CELL("t.cell"))                                                     \
    X("metrics", "metric", OF_CELL("t.cell"))                                                     \
    X("outputs", "output", OF_CELL("t.cell"))                                                     \
    X("actions", "policy_action", OF_CELL("t.cell"))                                              \
    X("ops", "op_profile", OF_CELL("t.cell"))                                                     \
    X("limits", "cell_limit", OF_CELL("t.cell"))                                                  \
    X("references", "reference", "t.key IN (SELECT reference FROM cell WHERE " OF_CELL("id") ")") \
    X("pictures", "picture",                                                                      \
      "t.sha256 IN (SELECT picture FROM cell_picture WHERE " OF_CELL("cell") ")")                 \
    X("cell_pictures", "cell_picture", OF_CELL("t.cell"))                                         \
    X("baselines", "baseline", OF_RUN("t.run"))                                                   \
    X("findings", "finding", OF_CELL("t.after_cell"))                                             \
    X("events", "finding_event",                                                                  \
      "t.finding IN (SELECT id FROM finding WHERE " OF_CELL("after_cell") ")")

#define ROW(name, table, rows) {name, table, rows},
static const struct {
    const char *name, *table, *rows;
} exports[] = {EXPORTS(ROW)};
#undef ROW

#define NAME(name, table, rows) name,
const char *const mp_export_names[] = {EXPORTS(NAME) "all", NULL};
#undef NAME

/* ---- the query of a table ------------------------------------------------------------------- */

/* What column i of t is called outside, and what stands there.  An id means nothing outside: in its
 * place stands what its row is known by, under the name that the row's own table gives it.  Joined
 * tables have the column's number in their names, left ones: a row of a damaged file is shown, too.
 */
static void add_column(sqlite3_str *s, const mp_db_tables *all, const mp_db_table *t, int i)
{
    const mp_db_column *c = &t->columns[i];
    const char *target = c->target < 0 ? "" : all->tables[c->target].name;
    const int before = (int)strlen(c->name) - 4; /* "before_" of before_cell */

    if (!strcmp(target, "cell"))
        sqlite3_str_appendf(s,
                            ", r%d.uuid AS \"%.*srun\", c%d.key AS \"%.*scell\", c%d.started AS "
                            "\"%.*scell_started\"",
                            i, before, c->name, i, before, c->name, i, before, c->name);
    else if (!strcmp(target, "run"))
        sqlite3_str_appendf(s, ", r%d.uuid AS run", i);
    else if (!strcmp(target, "finding"))
        sqlite3_str_appendf(s, ", f%d.key AS finding", i);
    else if (!strcmp(t->name, "run") && !strcmp(c->name, "uuid"))
        sqlite3_str_appendall(s, ", t.uuid AS run");
    else if (!strcmp(t->name, "cell") && !strcmp(c->name, "key"))
        sqlite3_str_appendall(s, ", t.key AS cell");
    else if (!strcmp(t->name, "cell") && !strcmp(c->name, "started"))
        sqlite3_str_appendall(s, ", t.started AS cell_started");
    else if (!strcmp(t->name, "finding") && !strcmp(c->name, "key"))
        sqlite3_str_appendall(s, ", t.key AS finding");
    else if (!strcmp(t->name, "metric") && !strcmp(c->name, "value"))
        sqlite3_str_appendall(s, ", coalesce(t.value, t.nonfinite) AS value");
    else if (!strcmp(c->type, "BLOB"))
        sqlite3_str_appendf(s, ", hex(t.\"%w\") AS \"%w\"", c->name, c->name);
    else if (strcmp(c->name, "id") && strcmp(c->name, "nonfinite"))
        sqlite3_str_appendf(s, ", t.\"%w\"", c->name);
}

static void add_join(sqlite3_str *s, const mp_db_tables *all, const mp_db_table *t, int i)
{
    const mp_db_column *c = &t->columns[i];
    const char *target = c->target < 0 ? "" : all->tables[c->target].name;

    if (!strcmp(target, "cell"))
        sqlite3_str_appendf(s,
                            " LEFT JOIN cell c%d ON c%d.id = t.\"%w\" LEFT JOIN run r%d ON r%d.id "
                            "= c%d.run",
                            i, i, c->name, i, i, i);
    else if (*target)
        sqlite3_str_appendf(s, " LEFT JOIN \"%w\" %c%d ON %c%d.id = t.\"%w\"", target, target[0], i,
                            target[0], i, c->name);
}

/* In the order of its primary key, in which it lies in the file: nothing has to be sorted. */
static void add_order(sqlite3_str *s, const mp_db_table *t)
{
    for (int key = 1; key <= t->count; key++)
        for (int i = 0; i < t->count; i++)
            if (t->columns[i].key == key)
                sqlite3_str_appendf(s, "%s t.\"%w\"", key == 1 ? " ORDER BY" : ",",
                                    t->columns[i].name);
}

static mp_code prepare(mp_store *s, const mp_db_tables *all, int which, const mp_export_options *o,
                       sqlite3_stmt **out, mp_error *err)
{
    const mp_db_table *t = &all->tables[mp_db_table_find(all, exports[which].table)];
    sqlite3_str *text = sqlite3_str_new(NULL);

    sqlite3_str_appendf(text, "SELECT '%s' AS \"table\"", exports[which].name);
    for (int i = 0; i < t->count; i++)
        add_column(text, all, t, i);
    sqlite3_str_appendf(text, " FROM \"%w\" t", t->name);
    for (int i = 0; i < t->count; i++)
        add_join(text, all, t, i);
    if (o->run || o->scenario)
        sqlite3_str_appendf(text, " WHERE %s", exports[which].rows);
    add_order(text, t);
    char *sql = sqlite3_str_finish(text);
    if (!sql)
        mp_error_set(err, MP_ENOMEM, "%s: no memory for a statement", s->path);
    else if (!mp_db_prepare(s, sql, out, err) && (o->run || o->scenario))
        mp_db_bind(s, *out, err, "tt", o->run, o->scenario);
    sqlite3_free(sql);
    return err->code;
}

/* ---- rows ----------------------------------------------------------------------------------- */

static void print_csv_heads(sqlite3_stmt *q, FILE *to)
{
    const int n = sqlite3_column_count(q);

    for (int i = 1; i < n; i++)
        fprintf(to, "%s%s", sqlite3_column_name(q, i), i + 1 < n ? "," : "\r\n");
}

static void print_csv_row(sqlite3_stmt *q, FILE *to)
{
    const int n = sqlite3_column_count(q);

    for (int i = 1; i < n; i++) {
        if (sqlite3_column_type(q, i) == SQLITE_FLOAT)
            fprintf(to, "%.17g", sqlite3_column_double(q, i));
        else
            mp_print_csv(to, mp_db_text(q, i));
        fputs(i + 1 < n ? "," : "\r\n", to);
    }
}

static mp_code print_json_row(sqlite3_stmt *q, FILE *to, mp_error *err)
{
    json_t *row = json_pack("{si}", "version", 1);
    int failed = !row;

    for (int i = 0; i < sqlite3_column_count(q) && !failed; i++)
        failed = json_object_set_new(row, sqlite3_column_name(q, i), mp_json_value(q, i));
    if (failed)
        mp_error_set(err, MP_ENOMEM, "no memory for a row as JSON");
    else if (!json_dumpf(row, to, JSON_COMPACT | JSON_ENSURE_ASCII))
        fputc('\n', to);
    json_decref(row);
    return err->code;
}

static mp_code export_table(mp_store *s, const mp_db_tables *all, int which,
                            const mp_export_options *o, FILE *to, mp_error *err)
{
    sqlite3_stmt *q = NULL;
    bool row = true;

    if (!prepare(s, all, which, o, &q, err) && o->csv)
        print_csv_heads(q, to);
    while (!err->code && !ferror(to) && !mp_db_step(s, q, &row, err) && row) {
        if (o->csv)
            print_csv_row(q, to);
        else
            print_json_row(q, to, err);
    }
    sqlite3_finalize(q);
    return err->code;
}

/* ---- the whole ------------------------------------------------------------------------------ */

/* Nothing to export is not the same as a name that is spelled wrong. */
static mp_code check_name(mp_store *s, const char *sql, const char *name, const char *complaint,
                          mp_error *err)
{
    sqlite3_stmt *q = NULL;
    bool row = false;
    char asked[80] = "";

    if (!name || mp_db_prepare(s, sql, &q, err) || mp_db_bind(s, q, err, "t", name) ||
        mp_db_step(s, q, &row, err) || row) {
        sqlite3_finalize(q);
        return err->code;
    }
    sqlite3_finalize(q);
    mp_append_plain(asked, sizeof asked, "", name);
    return mp_error_set(err, MP_EMISSING, complaint, s->path, asked);
}

mp_code mp_export_check(mp_store *s, const mp_export_options *o, mp_error *err)
{
    mp_db_tables *all = NULL;

    if (!mp_db_tables_load(&all, err) && !mp_db_tables_check(all, s, err) &&
        !check_name(s, RUNS, o->run,
                    "%s: has no run '%s', expected an id, a UUID or a label; `mpbench list` shows "
                    "them",
                    err))
        check_name(s, "SELECT 1 FROM cell WHERE scenario = ?1", o->scenario,
                   "%s: has no cell of a scenario '%s'; `mpbench list` shows the cells", err);
    mp_free(all);
    return err->code;
}

mp_code mp_export(mp_store *s, const mp_export_options *o, FILE *to, mp_error *err)
{
    mp_db_tables *all = NULL;

    if (mp_db_tables_load(&all, err))
        return err->code;
    if (!mp_db_begin_reading(s, err)) {
        for (int i = 0; mp_export_names[i + 1] && !err->code; i++)
            if (!strcmp(o->table, "all") || !strcmp(o->table, exports[i].name))
                export_table(s, all, i, o, to, err);
        mp_db_end_reading(s);
    }
    mp_free(all);
    return err->code;
}
