#include "results/merge.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "results/db_tables.h"
#include "results/table.h"

/* How a row of a table with an id is known in another file, and which of two that differ is the
 * later one. */
static const struct {
    const char *table;
    const char *identity[3];
    const char *progress;
} known_by[] = {
    {"run", {"uuid"}, "coalesce(ended, '')"},
    {"cell",
     {"run", "key", "started"},
     "CASE status WHEN 'running' THEN 0 WHEN 'interrupted' THEN 1 ELSE 2 END"},
    {"baseline", {"uuid"}, "0"},
    {"finding", {"key"}, "0"},
    {"finding_event", {"finding", "at", "state"}, "0"},
};

/* From the ids of one table of `in`, in ascending order, to those of `out`. */
typedef struct id_map {
    struct id_pair {
        int64_t from, to;
        bool carried; /* added or updated: the rows that belong to it come along */
    } * items;
    int64_t count, room, last; /* last: found last, since rows of one owner stand together */
} id_map;

typedef struct merger {
    mp_store *out, *in;
    const mp_db_tables *all;
    id_map maps[MP_DB_TABLES];
    mp_merge_report *report;
    FILE *notes;
    mp_error *err;
} merger;

enum { MAX_NOTES = 5 };

/* ---- ids ------------------------------------------------------------------------------------ */

static mp_code add_id(merger *m, id_map *map, int64_t from, int64_t to, bool carried)
{
    if (map->count == map->room) {
        const int64_t room = map->room ? 2 * map->room : 256;
        struct id_pair *grown = mp_realloc(map->items, (size_t)room, sizeof *grown);
        if (!grown)
            return mp_error_set(m->err, MP_ENOMEM, "%s: no memory for the ids of its rows",
                                m->in->path);
        map->items = grown;
        map->room = room;
    }
    map->items[map->count++] = (struct id_pair){from, to, carried};
    return MP_OK;
}

static int by_from(const void *key, const void *item)
{
    const int64_t a = *(const int64_t *)key, b = ((const struct id_pair *)item)->from;

    return (a > b) - (a < b);
}

/* NULL: there is no such id. */
static const struct id_pair *find_id(id_map *map, int64_t from)
{
    if (!map->count)
        return NULL;
    if (map->items[map->last].from == from)
        return &map->items[map->last];
    const struct id_pair *p =
        bsearch(&from, map->items, (size_t)map->count, sizeof *map->items, by_from);
    if (p)
        map->last = p - map->items;
    return p;
}

/* A row of `in` names one of another table that is not there. */
static mp_code dangling(merger *m, const mp_db_table *t, int target, int64_t id)
{
    return mp_error_set(m->err, MP_EDB,
                        "%s: a row of '%s' belongs to %s %lld, which is not there; the file is "
                        "damaged: rescue it with sqlite3's .recover",
                        m->in->path, t->name, m->all->tables[target].name, (long long)id);
}

/* The columns of the row at which `from` stands, as parameters 1, 2 ...; ids are those of `out`. */
static mp_code bind_row(merger *m, const mp_db_table *t, sqlite3_stmt *from, sqlite3_stmt *to)
{
    int failed = 0;

    for (int i = 0; i < t->count; i++) {
        const int target = t->columns[i].target;
        if (target < 0) {
            failed |= sqlite3_bind_value(to, i + 1, sqlite3_column_value(from, i));
            continue;
        }
        const int64_t id = sqlite3_column_int64(from, i);
        const struct id_pair *p = find_id(&m->maps[target], id);
        if (!p)
            return dangling(m, t, target, id);
        failed |= sqlite3_bind_int64(to, i + 1, p->to);
    }
    return failed ? mp_db_fail(m->out, m->err) : MP_OK;
}

/* ---- statements ----------------------------------------------------------------------------- */

/* Takes the text over. */
static mp_code prepare(merger *m, mp_store *s, sqlite3_str *text, sqlite3_stmt **out)
{
    char *sql = sqlite3_str_finish(text);

    if (sql)
        mp_db_prepare(s, sql, out, m->err);
    else
        mp_error_set(m->err, MP_ENOMEM, "%s: no memory for a statement", s->path);
    sqlite3_free(sql);
    return m->err->code;
}

static void add_columns(sqlite3_str *s, const mp_db_table *t)
{
    for (int i = 0; i < t->count; i++)
        sqlite3_str_appendf(s, "%s\"%w\"", i ? ", " : "", t->columns[i].name);
}

static void add_parameters(sqlite3_str *s, int first, int last)
{
    for (int i = first; i <= last; i++)
        sqlite3_str_appendf(s, "%s?%d", i > first ? ", " : "", i);
}

typedef bool column_test(const mp_db_table *t, const mp_db_column *c);

/* "a" IS ?1 AND "b" IS ?3: the columns for which the test holds. */
static void add_equal(sqlite3_str *s, const mp_db_table *t, column_test *test)
{
    const char *join = "";

    for (int i = 0; i < t->count; i++)
        if (test(t, &t->columns[i])) {
            sqlite3_str_appendf(s, "%s\"%w\" IS ?%d", join, t->columns[i].name, i + 1);
            join = " AND ";
        }
}

static int identity_of(const char *table)
{
    const int n = sizeof known_by / sizeof *known_by;
    int i = 0;

    while (i < n && strcmp(known_by[i].table, table))
        i++;
    return i < n ? i : -1;
}

static bool in_identity(const mp_db_table *t, const mp_db_column *c)
{
    const char *const *names = known_by[identity_of(t->name)].identity;

    for (int i = 0; i < 3 && names[i]; i++)
        if (!strcmp(names[i], c->name))
            return true;
    return false;
}

/* Known from the start, so that no later state of the same thing says otherwise. */
static bool is_fixed(const mp_db_table *t, const mp_db_column *c)
{
    return (c->fixed && !c->key) || (!strcmp(t->name, "run") && !strcmp(c->name, "label"));
}

static bool in_key(const mp_db_table *t, const mp_db_column *c)
{
    (void)t;
    return c->key != 0;
}

static bool says_something(const mp_db_table *t, const mp_db_column *c)
{
    (void)t;
    return strcmp(c->name, "id") != 0;
}

static bool says_more(const mp_db_table *t, const mp_db_column *c)
{
    return !c->key && (strcmp(t->name, "reference") || strcmp(c->name, "made"));
}

/* ---- notes ---------------------------------------------------------------------------------- */

static void note_kept(merger *m, const mp_db_table *t, sqlite3_stmt *row)
{
    if (m->report->kept++ >= MAX_NOTES)
        return;
    fprintf(m->notes, "%s: %s", m->in->path, t->name);
    for (int i = 0; i < t->count; i++)
        if (mp_db_table_has_id(t) ? in_identity(t, &t->columns[i]) : t->columns[i].key) {
            fputc(' ', m->notes);
            mp_print_plain(m->notes, mp_db_text(row, i), -1);
        }
    fprintf(m->notes, " says something else in %s, where it stays as it is\n", m->out->path);
}

/* Nothing is lost in silence: what mpbench did not make is named. */
static mp_code note_strangers(merger *m)
{
    sqlite3_stmt *q = NULL;
    bool row = true;

    if (!mp_db_prepare(m->in,
                       "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE "
                       "'sqlite\\_%' ESCAPE '\\' ORDER BY name",
                       &q, m->err))
        while (!mp_db_step(m->in, q, &row, m->err) && row)
            if (mp_db_table_find(m->all, mp_db_text(q, 0)) < 0) {
                fprintf(m->notes, "%s: the table ", m->in->path);
                mp_print_plain(m->notes, mp_db_text(q, 0), -1);
                fputs(" is not one of mpbench's and is left out\n", m->notes);
            }
    sqlite3_finalize(q);
    return m->err->code;
}

/* ---- tables with an id ---------------------------------------------------------------------- */

typedef struct id_statements {
    sqlite3_stmt *read, *find, *insert, *update;
} id_statements;

/* Parameters: those of the columns, then the row's progress, then how many rows of the same
 * identity stand before it: two cells may have begun within one tick of the clock. */
static mp_code prepare_ids(merger *m, const mp_db_table *t, id_statements *q)
{
    const int who = identity_of(t->name), n = t->count;
    const char *progress = known_by[who].progress;
    sqlite3_str *s = sqlite3_str_new(NULL);

    sqlite3_str_appendall(s, "SELECT ");
    add_columns(s, t);
    sqlite3_str_appendf(s, ", %s, row_number() OVER (PARTITION BY ", progress);
    for (int i = 0; i < 3 && known_by[who].identity[i]; i++)
        sqlite3_str_appendf(s, "%s%s", i ? ", " : "", known_by[who].identity[i]);
    sqlite3_str_appendf(s, " ORDER BY id) - 1 FROM \"%w\" ORDER BY id", t->name);
    if (prepare(m, m->in, s, &q->read))
        return m->err->code;

    s = sqlite3_str_new(NULL);
    sqlite3_str_appendall(s, "SELECT id, ");
    add_equal(s, t, says_something);
    sqlite3_str_appendall(s, ", ");
    add_equal(s, t, is_fixed);
    sqlite3_str_appendf(s, ", (%s) < ?%d, (%s) > ?%d FROM \"%w\" WHERE ", progress, n + 1, progress,
                        n + 1, t->name);
    add_equal(s, t, in_identity);
    sqlite3_str_appendf(s, " ORDER BY id LIMIT 1 OFFSET ?%d", n + 2);
    if (prepare(m, m->out, s, &q->find))
        return m->err->code;

    s = sqlite3_str_new(NULL);
    sqlite3_str_appendf(s, "INSERT INTO \"%w\" VALUES (NULL, ", t->name);
    add_parameters(s, 2, n);
    sqlite3_str_appendall(s, ")");
    if (prepare(m, m->out, s, &q->insert))
        return m->err->code;

    s = sqlite3_str_new(NULL);
    sqlite3_str_appendf(s, "UPDATE \"%w\" SET (", t->name);
    for (int i = 1; i < n; i++)
        sqlite3_str_appendf(s, "%s\"%w\"", i > 1 ? ", " : "", t->columns[i].name);
    sqlite3_str_appendall(s, ") = (");
    add_parameters(s, 2, n);
    sqlite3_str_appendall(s, ") WHERE id = ?1");
    return prepare(m, m->out, s, &q->update);
}

static mp_merge_count *count_of(merger *m, const mp_db_table *t)
{
    return !strcmp(t->name, "run")    ? &m->report->runs
           : !strcmp(t->name, "cell") ? &m->report->cells
                                      : &m->report->rest;
}

static mp_code insert_row(merger *m, const mp_db_table *t, const id_statements *q, int64_t id)
{
    if (bind_row(m, t, q->read, q->insert) || mp_db_put(m->out, q->insert, m->err))
        return m->err->code;
    count_of(m, t)->added++;
    return add_id(m, &m->maps[t - m->all->tables], id, sqlite3_last_insert_rowid(m->out->db), true);
}

/* q->find stands at the row of `out`.  It gives way to a later state of the same thing only. */
static mp_code meet_row(merger *m, const mp_db_table *t, const id_statements *q, int64_t id)
{
    const int64_t to = sqlite3_column_int64(q->find, 0);
    const bool same = sqlite3_column_int(q->find, 1), fixed = sqlite3_column_int(q->find, 2);
    const bool earlier = sqlite3_column_int(q->find, 3), later = sqlite3_column_int(q->find, 4);
    const bool update = !same && fixed && earlier;

    sqlite3_reset(q->find);
    if (update && (bind_row(m, t, q->read, q->update) || sqlite3_bind_int64(q->update, 1, to) ||
                   mp_db_put(m->out, q->update, m->err)))
        return mp_db_fail(m->out, m->err);
    if (!same && !update && !(fixed && later))
        note_kept(m, t, q->read);
    count_of(m, t)->updated += update;
    count_of(m, t)->there += !update;
    return add_id(m, &m->maps[t - m->all->tables], id, to, update);
}

static mp_code merge_ids(merger *m, const mp_db_table *t)
{
    id_statements q = {0};
    bool row = true, found;
    const int n = t->count;

    if (identity_of(t->name) < 0)
        return mp_error_set(m->err, MP_EUNSUPPORTED,
                            "results/merge.c does not say by what a row of '%s' is known", t->name);
    if (!prepare_ids(m, t, &q))
        while (!mp_db_step(m->in, q.read, &row, m->err) && row) {
            const int64_t id = sqlite3_column_int64(q.read, 0);
            if (bind_row(m, t, q.read, q.find))
                break;
            if (sqlite3_bind_value(q.find, n + 1, sqlite3_column_value(q.read, n)) ||
                sqlite3_bind_value(q.find, n + 2, sqlite3_column_value(q.read, n + 1))) {
                mp_db_fail(m->out, m->err);
                break;
            }
            if (mp_db_step(m->out, q.find, &found, m->err) ||
                (found ? meet_row : insert_row)(m, t, &q, id))
                break;
            sqlite3_reset(q.find);
        }
    sqlite3_finalize(q.read);
    sqlite3_finalize(q.find);
    sqlite3_finalize(q.insert);
    sqlite3_finalize(q.update);
    return m->err->code;
}

/* ---- what belongs to a run or a cell -------------------------------------------------------- */

static mp_code prepare_insert(merger *m, const mp_db_table *t, sqlite3_stmt **out)
{
    sqlite3_str *s = sqlite3_str_new(NULL);

    sqlite3_str_appendf(s, "INSERT INTO \"%w\" VALUES (", t->name);
    add_parameters(s, 1, t->count);
    sqlite3_str_appendall(s, ") ON CONFLICT DO NOTHING");
    return prepare(m, m->out, s, out);
}

/* *added: not there before. */
static mp_code add_row(merger *m, const mp_db_table *t, sqlite3_stmt *read, sqlite3_stmt *insert,
                       bool *added)
{
    if (bind_row(m, t, read, insert) || mp_db_put(m->out, insert, m->err))
        return m->err->code;
    *added = sqlite3_changes(m->out->db) != 0;
    m->report->rest.added += *added;
    m->report->rest.there += !*added;
    return MP_OK;
}

/* Rows that belong to a run or a cell come when it comes.  The others are jumped over, by the key:
 * a merge that adds little reads little. */
static mp_code merge_belongings(merger *m, const mp_db_table *t)
{
    const int target = t->columns[0].target;
    sqlite3_stmt *read = NULL, *insert = NULL;
    sqlite3_str *s = sqlite3_str_new(NULL);
    bool row = true, added;

    sqlite3_str_appendall(s, "SELECT ");
    add_columns(s, t);
    sqlite3_str_appendf(s, " FROM \"%w\" WHERE \"%w\" >= ?1 ORDER BY \"%w\"", t->name,
                        t->columns[0].name, t->columns[0].name);
    if (!prepare(m, m->in, s, &read) && !mp_db_bind(m->in, read, m->err, "i", INT64_MIN))
        prepare_insert(m, t, &insert);
    while (!m->err->code && !mp_db_step(m->in, read, &row, m->err) && row) {
        const int64_t id = sqlite3_column_int64(read, 0);
        const struct id_pair *owner = find_id(&m->maps[target], id);
        if (!owner) {
            dangling(m, t, target, id);
        } else if (owner->carried) {
            add_row(m, t, read, insert, &added);
        } else if (id == INT64_MAX) {
            break;
        } else {
            sqlite3_reset(read);
            mp_db_bind(m->in, read, m->err, "i", id + 1);
        }
    }
    sqlite3_finalize(read);
    sqlite3_finalize(insert);
    return m->err->code;
}

/* ---- tables of contents --------------------------------------------------------------------- */

typedef struct content_statements {
    sqlite3_stmt *read, *insert, *same, *older;
} content_statements;

static mp_code prepare_contents(merger *m, const mp_db_table *t, content_statements *q)
{
    sqlite3_str *s = sqlite3_str_new(NULL);

    sqlite3_str_appendall(s, "SELECT ");
    add_columns(s, t);
    sqlite3_str_appendf(s, " FROM \"%w\"", t->name);
    if (prepare(m, m->in, s, &q->read) || prepare_insert(m, t, &q->insert))
        return m->err->code;

    s = sqlite3_str_new(NULL);
    sqlite3_str_appendall(s, "SELECT ");
    add_equal(s, t, says_more);
    sqlite3_str_appendf(s, " FROM \"%w\" WHERE ", t->name);
    add_equal(s, t, in_key);
    if (prepare(m, m->out, s, &q->same))
        return m->err->code;
    /* A reference that two machines made alike counts as made when it was first, in any order. */
    return mp_db_prepare(m->out, "UPDATE reference SET made = ?2 WHERE key = ?1 AND made > ?2",
                         &q->older, m->err);
}

/* A row under a key that is in `out`, too. */
static mp_code meet_content(merger *m, const mp_db_table *t, const content_statements *q)
{
    bool found;

    if (bind_row(m, t, q->read, q->same) || mp_db_step(m->out, q->same, &found, m->err))
        return m->err->code;
    const bool same = found && sqlite3_column_int(q->same, 0);
    sqlite3_reset(q->same);
    if (!same)
        note_kept(m, t, q->read);
    else if (!strcmp(t->name, "reference") &&
             !sqlite3_bind_value(q->older, 1, sqlite3_column_value(q->read, 0)) &&
             !sqlite3_bind_value(q->older, 2, sqlite3_column_value(q->read, 1)))
        mp_db_put(m->out, q->older, m->err);
    return m->err->code;
}

/* Rows known by their content: references, pictures. */
static mp_code merge_contents(merger *m, const mp_db_table *t)
{
    content_statements q = {0};
    bool row = true, added = false;

    prepare_contents(m, t, &q);
    while (!m->err->code && !mp_db_step(m->in, q.read, &row, m->err) && row)
        if (!add_row(m, t, q.read, q.insert, &added) && !added)
            meet_content(m, t, &q);
    sqlite3_finalize(q.read);
    sqlite3_finalize(q.insert);
    sqlite3_finalize(q.same);
    sqlite3_finalize(q.older);
    return m->err->code;
}

static mp_code merge_tables(merger *m)
{
    for (int i = 0; i < m->all->count && !m->err->code; i++) {
        const mp_db_table *t = &m->all->tables[i];
        if (mp_db_table_has_id(t))
            merge_ids(m, t);
        else if (t->columns[0].target >= 0)
            merge_belongings(m, t);
        else
            merge_contents(m, t);
    }
    return m->err->code;
}

/* ---- the whole ------------------------------------------------------------------------------ */

static mp_code merge_all(merger *m)
{
    mp_error *err = m->err;

    if (mp_db_tables_check(m->all, m->in, err) || mp_db_tables_check(m->all, m->out, err) ||
        mp_db_begin_reading(m->in, err))
        return err->code;
    if (!note_strangers(m) && !mp_db_begin_writing(m->out, err)) {
        merge_tables(m);
        mp_db_end_writing(m->out, err);
    }
    mp_db_end_reading(m->in);
    if (m->report->kept > MAX_NOTES)
        fprintf(m->notes, "%s: so do %lld more rows\n", m->in->path,
                (long long)(m->report->kept - MAX_NOTES));
    return err->code;
}

mp_code mp_merge(mp_store *out, mp_store *in, FILE *notes, mp_merge_report *report, mp_error *err)
{
    merger m = {.out = out, .in = in, .report = report, .notes = notes, .err = err};
    mp_db_tables *all;

    *report = (mp_merge_report){0};
    if (mp_db_tables_load(&all, err))
        return err->code;
    m.all = all;
    merge_all(&m);
    for (int i = 0; i < MP_DB_TABLES; i++)
        mp_free(m.maps[i].items);
    mp_free(all);
    return err->code;
}
