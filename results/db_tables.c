#include "results/db_tables.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "kernels/core/memory.h"

extern const char mp_schema_sql[]; /* results/schema.sql */

/* The columns of a real table: a view, a virtual table and computed columns give none. */
static const char COLUMNS[] =
    "SELECT x.name, x.type, f.\"table\", x.pk, x.\"notnull\" AND x.dflt_value IS NULL "
    "FROM pragma_table_list(?1) l JOIN pragma_table_xinfo(?1) x "
    "LEFT JOIN pragma_foreign_key_list(?1) f ON f.\"from\" = x.name AND f.\"to\" = 'id' "
    "WHERE l.schema = 'main' AND l.type = 'table' AND x.hidden = 0 ORDER BY x.cid";

int mp_db_table_find(const mp_db_tables *x, const char *name)
{
    int i = 0;

    while (i < x->count && strcmp(x->tables[i].name, name))
        i++;
    return i < x->count ? i : -1;
}

static void read_column(const mp_db_tables *x, sqlite3_stmt *q, mp_db_column *c)
{
    snprintf(c->name, sizeof c->name, "%s", mp_db_text(q, 0));
    snprintf(c->type, sizeof c->type, "%s", mp_db_text(q, 1));
    c->target = mp_db_table_find(x, mp_db_text(q, 2));
    c->key = sqlite3_column_int(q, 3);
    c->fixed = sqlite3_column_int(q, 4) != 0;
}

/* No more columns than there is room for: one that has more is none of ours. */
static mp_code read_table(const mp_db_tables *x, mp_store *s, const char *name, mp_db_table *out,
                          mp_error *err)
{
    sqlite3_stmt *q = NULL;
    bool row = true;

    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "%s", name);
    if (!mp_db_prepare(s, COLUMNS, &q, err) && !mp_db_bind(s, q, err, "t", name))
        while (out->count < MP_DB_COLUMNS && !mp_db_step(s, q, &row, err) && row)
            read_column(x, q, &out->columns[out->count++]);
    sqlite3_finalize(q);
    return err->code;
}

static mp_code read_tables(mp_store *s, mp_db_tables *x, mp_error *err)
{
    sqlite3_stmt *q = NULL;
    bool row = true;

    if (!mp_db_exec(s, mp_schema_sql, err) &&
        !mp_db_prepare(s, "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid", &q,
                       err))
        while (!mp_db_step(s, q, &row, err) && row) {
            assert(x->count < MP_DB_TABLES);
            mp_db_table *t = &x->tables[x->count++];
            read_table(x, s, mp_db_text(q, 0), t, err);
            assert(t->count < MP_DB_COLUMNS);
        }
    sqlite3_finalize(q);
    return err->code;
}

mp_code mp_db_tables_load(mp_db_tables **out, mp_error *err)
{
    mp_store s = {.path = ":memory:"};

    *out = mp_alloc(1, sizeof **out);
    if (!*out)
        return mp_error_set(err, MP_ENOMEM, "no memory for the tables' names");
    if (sqlite3_open(s.path, &s.db))
        mp_db_fail(&s, err);
    else
        read_tables(&s, *out, err);
    sqlite3_close(s.db);
    if (!err->code)
        return MP_OK;
    mp_free(*out);
    *out = NULL;
    return err->code;
}

mp_code mp_db_tables_check(const mp_db_tables *x, mp_store *s, mp_error *err)
{
    mp_db_table *found = mp_alloc(1, sizeof *found);

    if (!found)
        return mp_error_set(err, MP_ENOMEM, "no memory for the names of columns");
    for (int i = 0; i < x->count && !err->code; i++)
        if (!read_table(x, s, x->tables[i].name, found, err) &&
            memcmp(found, &x->tables[i], sizeof *found))
            mp_error_set(err, MP_EDB,
                         "%s: '%s' is not the table of that name that mpbench makes, so nothing of "
                         "the file is used; rescue it with sqlite3's .recover",
                         s->path, x->tables[i].name);
    mp_free(found);
    return err->code;
}

bool mp_db_table_has_id(const mp_db_table *t)
{
    return !strcmp(t->columns[0].name, "id");
}
