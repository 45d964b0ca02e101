#include "results/compare_side.h"

#include <stdio.h>
#include <string.h>

#include "kernels/core/dtype.h"
#include "kernels/core/memory.h"
#include "results/table.h"

/* Keys of a run or cell that are no settings, and their column. */
static const struct {
    const char *key, *column;
} columns[] = {{"run", "run.id"},
               {"uuid", "run.uuid"},
               {"label", "run.label"},
               {"engine", "run.engine"},
               {"device", "run.device"},
               {"scenario", "cell.scenario"},
               {"status", "cell.status"},
               {"rounds", MP_DB_TOLD "'rounds')"}}; /* of `run --rounds`: the first one's UUID */

static const char *column_of(const char *key)
{
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
        if (!strcmp(columns[i].key, key))
            return columns[i].column;
    return NULL;
}

mp_code mp_compare_no_memory(mp_error *err)
{
    return mp_error_set(err, MP_ENOMEM, "no memory for the comparison");
}

/* ---- selectors ------------------------------------------------------------------------------ */

/* Dtypes are recorded by their short names, and may be asked for by any. */
static bool holds_dtype(const char *key)
{
    return !strncmp(key, "precision.", 10) || !strcmp(key, "reference");
}

static bool add_condition(mp_selector *s, const char *key, size_t n, const char *value, size_t m)
{
    mp_condition *c = &s->conditions[s->count];
    mp_dtype dtype;

    if (s->count == MP_CONDITIONS || !n || n >= sizeof c->key || m >= sizeof c->value)
        return false;
    snprintf(c->key, sizeof c->key, "%.*s", (int)n, key);
    snprintf(c->value, sizeof c->value, "%.*s", (int)m, value);
    if (holds_dtype(c->key) && mp_dtype_parse(c->value, &dtype))
        snprintf(c->value, sizeof c->value, "%s", mp_dtype_name(dtype));
    s->count++;
    return true;
}

static bool add_word(mp_selector *s, const char *key, const char *value)
{
    return add_condition(s, key, strlen(key), value, strlen(value));
}

static size_t key_length(const char *s)
{
    return strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.");
}

/* Up to the comma that begins another KEY=, or the end; commas within brackets do not count. */
static size_t condition_length(const char *s)
{
    int depth = 0;
    size_t n = 0;

    for (; s[n]; n++) {
        depth += s[n] == '[' || s[n] == '{';
        depth -= s[n] == ']' || s[n] == '}';
        const size_t key = s[n] == ',' && depth <= 0 ? key_length(s + n + 1) : 0;
        if (key && s[n + 1 + key] == '=')
            break;
    }
    return n;
}

static bool parse_conditions(const char *s, mp_selector *out)
{
    while (*s) {
        const size_t n = condition_length(s), key = key_length(s);
        if (s[key] != '=' || !add_condition(out, s, key, s + key + 1, n - key - 1))
            return false;
        s += n + (s[n] == ',');
    }
    return true;
}

static bool looks_like_uuid(const char *text)
{
    return strlen(text) == 36 && strspn(text, "0123456789abcdef-") == 36;
}

static mp_code parse_selector(const char *text, mp_selector *out, mp_error *err)
{
    mp_dtype dtype;
    bool good;

    *out = (mp_selector){.text = text};
    if (mp_dtype_parse(text, &dtype))
        good = add_word(out, "precision.default", text);
    else if (strchr(text, '='))
        good = parse_conditions(text, out);
    else if (*text && strspn(text, "0123456789") == strlen(text))
        good = add_word(out, "run", text);
    else
        good = *text && add_word(out, looks_like_uuid(text) ? "uuid" : "label", text);
    if (good)
        return MP_OK;
    return mp_error_set(err, MP_EUSAGE,
                        "'%.80s' selects nothing: expected a dtype, a label, a run's id or UUID, "
                        "or up to %d of KEY=VAL[,KEY=VAL], each below %d bytes",
                        text, (int)MP_CONDITIONS, (int)sizeof out->conditions[0].value);
}

/* "precision.components" is also named by "precision.components.vae": the one is there only where
 * the other is not. */
bool mp_selector_names(const mp_selector *s, const char *key)
{
    const size_t n = strlen(key);

    for (int i = 0; i < s->count; i++) {
        const char *named = s->conditions[i].key;
        if (!strncmp(named, key, n) && (!named[n] || named[n] == '.'))
            return true;
    }
    return false;
}

/* ---- runs ----------------------------------------------------------------------------------- */

/* All that a run told of itself, as one text. */
#define ENVIRONMENT(run)                                                                \
    "(SELECT group_concat(key || '=' || value, char(10)) FROM (SELECT key, value FROM " \
    "run_environment e WHERE e.run = " run ".id ORDER BY key))"

static const char run_sql[] =
    "SELECT label, engine, device, fingerprint, started, " MP_DB_TOLD
    "'isa'), CASE engine WHEN 'native' THEN substr(" MP_DB_TOLD
    "'git_commit'), 1, 12) ELSE " MP_DB_TOLD "engine || '.version') END, " MP_DB_LIBRARY
    ", " ENVIRONMENT("run") " FROM run WHERE id = ?";

static mp_code read_run(sqlite3_stmt *q, mp_compare_run *r, mp_error *err)
{
    char **const texts[] = {&r->label, &r->engine,  &r->device, &r->fingerprint, &r->started,
                            &r->isa,   &r->program, &r->code,   &r->environment};

    for (int i = 0; i < (int)(sizeof texts / sizeof *texts); i++)
        if (!(*texts[i] = mp_strdup(mp_db_text(q, i))))
            return mp_compare_no_memory(err);
    return MP_OK;
}

static void free_run(mp_compare_run *r)
{
    if (!r)
        return;
    mp_free(r->label);
    mp_free(r->engine);
    mp_free(r->device);
    mp_free(r->fingerprint);
    mp_free(r->started);
    mp_free(r->isa);
    mp_free(r->program);
    mp_free(r->code);
    mp_free(r->environment);
    mp_free(r);
}

static mp_compare_run *new_run(mp_side *side, int64_t id, mp_error *err)
{
    mp_compare_run **grown =
        mp_realloc(side->runs, (size_t)side->run_count + 1, sizeof *side->runs);
    mp_compare_run *r = grown ? mp_alloc(1, sizeof *r) : NULL;

    if (grown)
        side->runs = grown;
    if (!r) {
        mp_compare_no_memory(err);
        return NULL;
    }
    r->id = id;
    return side->runs[side->run_count++] = r;
}

/* What is alike in a run and what not is asked once. */
static const mp_compare_run *run_of(mp_store *s, mp_side *side, int64_t id, mp_error *err)
{
    sqlite3_stmt *q = NULL;
    bool row = false;

    for (int i = side->run_count - 1; i >= 0; i--)
        if (side->runs[i]->id == id)
            return side->runs[i];
    mp_compare_run *r = new_run(side, id, err);
    if (r && !mp_db_prepare(s, run_sql, &q, err) && !mp_db_bind(s, q, err, "i", id) &&
        !mp_db_step(s, q, &row, err))
        read_run(q, r, err);
    sqlite3_finalize(q);
    return err->code ? NULL : r;
}

/* ---- candidates ----------------------------------------------------------------------------- */

static const mp_condition *condition_of(const mp_selector *s, const char *key)
{
    for (int i = 0; i < s->count; i++)
        if (!strcmp(s->conditions[i].key, key))
            return &s->conditions[i];
    return NULL;
}

static bool names_runs(const mp_selector *s)
{
    bool any = false;

    for (int i = 0; i < s->count; i++) {
        const char *column = column_of(s->conditions[i].key);
        any |= column && !strncmp(column, "run.", 4);
    }
    return any;
}

/* The newest finished cell of each key and content that fulfils the conditions.  Equal content is
 * equal settings, so these are looked at last, and of few cells.  Only column names of the table
 * above become a part of the SQL; all values are bound. */
static mp_code prepare(mp_store *s, const mp_selector *sel, sqlite3_stmt **out, mp_error *err)
{
    char sql[4096];
    /* CROSS JOIN: SQLite keeps the order, and takes few runs' cells by their index. */
    size_t n = (size_t)snprintf(sql, sizeof sql,
                                "WITH newest AS MATERIALIZED (SELECT %s AS id FROM %s "
                                "WHERE " MP_DB_FINISHED,
                                MP_DB_NEWEST,
                                names_runs(sel) ? "run CROSS JOIN cell ON cell.run = run.id"
                                                : "cell CROSS JOIN run ON run.id = cell.run");

    for (int i = 0; i < sel->count; i++) {
        const char *column = column_of(sel->conditions[i].key);
        if (column)
            n += (size_t)snprintf(sql + n, sizeof sql - n, " AND cast(%s AS TEXT) = ?%d", column,
                                  2 * i + 2);
    }
    n += (size_t)snprintf(sql + n, sizeof sql - n,
                          " GROUP BY cell.key, cell.scenario_hash, run.engine, run.device, "
                          "cell.checkpoint_hash) SELECT cell.id, cell.key, cell.scenario, "
                          "cell.scenario_hash, cell.checkpoint_hash, cell.run FROM newest JOIN "
                          "cell ON cell.id = newest.id WHERE true");
    for (int i = 0; i < sel->count; i++)
        if (!column_of(sel->conditions[i].key))
            n += (size_t)snprintf(sql + n, sizeof sql - n,
                                  " AND EXISTS (SELECT 1 FROM cell_setting t WHERE t.cell = "
                                  "cell.id AND t.key = ?%d AND t.value = ?%d)",
                                  2 * i + 1, 2 * i + 2);
    snprintf(sql + n, sizeof sql - n, " ORDER BY cell.key, cell.id");
    if (mp_db_prepare(s, sql, out, err))
        return err->code;
    for (int i = 0; i < sel->count; i++) { /* ?1 is unused where a column is asked for: no error */
        sqlite3_bind_text(*out, 2 * i + 1, sel->conditions[i].key, -1, SQLITE_STATIC);
        sqlite3_bind_text(*out, 2 * i + 2, sel->conditions[i].value, -1, SQLITE_STATIC);
    }
    return MP_OK;
}

static mp_code add_setting(mp_candidate *c, const char *key, const char *value, mp_error *err)
{
    if (c->setting_count == c->setting_room) {
        const int room = c->setting_room ? 2 * c->setting_room : 32;
        mp_pair *grown = mp_realloc(c->settings, (size_t)room, sizeof *grown);
        if (!grown)
            return mp_compare_no_memory(err);
        c->settings = grown;
        c->setting_room = room;
    }
    mp_pair *p = &c->settings[c->setting_count++];
    *p = (mp_pair){mp_strdup(key), mp_strdup(value)};
    return p->key && p->value ? MP_OK : mp_compare_no_memory(err);
}

/* q: the settings of a cell. */
static mp_code load_settings(mp_store *s, sqlite3_stmt *q, mp_candidate *c, mp_error *err)
{
    bool row = true;

    sqlite3_reset(q);
    if (mp_db_bind(s, q, err, "i", c->ids[0]))
        return err->code;
    while (!mp_db_step(s, q, &row, err) && row)
        if (add_setting(c, mp_db_text(q, 0), mp_db_text(q, 1), err))
            break;
    return err->code;
}

static mp_code add_id(mp_candidate *c, int64_t id, mp_error *err)
{
    int64_t *grown = mp_realloc(c->ids, (size_t)c->id_count + 1, sizeof *grown);

    if (!grown)
        return mp_compare_no_memory(err);
    c->ids = grown;
    c->ids[c->id_count++] = id;
    return MP_OK;
}

static mp_code read_candidate(mp_store *s, mp_side *side, sqlite3_stmt *q, mp_candidate *c,
                              mp_error *err)
{
    *c = (mp_candidate){.key = mp_strdup(mp_db_text(q, 1)),
                        .scenario = mp_strdup(mp_db_text(q, 2)),
                        .scenario_hash = mp_strdup(mp_db_text(q, 3)),
                        .checkpoint_hash = mp_strdup(mp_db_text(q, 4))};
    if (!c->key || !c->scenario || !c->scenario_hash || !c->checkpoint_hash)
        return mp_compare_no_memory(err);
    c->run = run_of(s, side, sqlite3_column_int64(q, 5), err);
    return err->code ? err->code : add_id(c, sqlite3_column_int64(q, 0), err);
}

static mp_candidate *new_candidate(mp_side *side, int *room, mp_error *err)
{
    if (side->count == *room) {
        *room = *room ? 2 * *room : 32;
        mp_candidate *grown = mp_realloc(side->cells, (size_t)*room, sizeof *grown);
        if (!grown) {
            mp_compare_no_memory(err);
            return NULL;
        }
        side->cells = grown;
    }
    mp_candidate *c = &side->cells[side->count++];
    *c = (mp_candidate){0};
    return c;
}

static mp_code load_newest(mp_store *s, mp_side *side, mp_error *err)
{
    sqlite3_stmt *q = NULL, *settings = NULL;
    bool row = true;
    int room = 0;

    prepare(s, &side->selector, &q, err);
    mp_db_prepare(s, "SELECT key, value FROM cell_setting WHERE cell = ? ORDER BY key", &settings,
                  err);
    while (!err->code && !mp_db_step(s, q, &row, err) && row) {
        mp_candidate *c = new_candidate(side, &room, err);
        if (c && !read_candidate(s, side, q, c, err))
            load_settings(s, settings, c, err);
    }
    sqlite3_finalize(q);
    sqlite3_finalize(settings);
    return err->code;
}

/* ---- rounds --------------------------------------------------------------------------------- */

/* Runs of the same label that differ in nothing, as a JSON array: rounds of one measurement. */
static char *twins_of(mp_store *s, int64_t run, mp_error *err)
{
    sqlite3_stmt *q = NULL;
    char *text = NULL;
    bool row = false;

    if (!mp_db_prepare(s,
                       "SELECT json_group_array(twin.id) FROM run JOIN run AS twin ON twin.label = "
                       "run.label AND twin.engine = run.engine AND twin.device = run.device AND "
                       "twin.fingerprint = run.fingerprint WHERE run.id = ? AND " ENVIRONMENT(
                           "twin") " IS " ENVIRONMENT("run"),
                       &q, err) &&
        !mp_db_bind(s, q, err, "i", run) && !mp_db_step(s, q, &row, err) &&
        !(text = mp_strdup(mp_db_text(q, 0))))
        mp_compare_no_memory(err);
    sqlite3_finalize(q);
    return text;
}

/* q: the newest cell in each of the runs ?1, of key, content, checkpoint and perhaps a status. */
static mp_code load_rounds(mp_store *s, sqlite3_stmt *q, const char *twins, const char *status,
                           mp_candidate *c, mp_error *err)
{
    bool row = true;

    sqlite3_reset(q);
    if (mp_db_bind(s, q, err, "ttttt", twins, c->key, c->scenario_hash, c->checkpoint_hash, status))
        return err->code;
    while (!mp_db_step(s, q, &row, err) && row)
        if (sqlite3_column_int64(q, 0) != c->ids[0] && add_id(c, sqlite3_column_int64(q, 0), err))
            break;
    return err->code;
}

/* A label selects all runs that carry it: their samples are of one measurement, as long as its
 * newest run differs from them in nothing. */
static mp_code load_all_rounds(mp_store *s, mp_side *side, mp_error *err)
{
    const mp_selector *sel = &side->selector;
    const mp_condition *status = condition_of(sel, "status");
    const mp_compare_run *last = NULL;
    sqlite3_stmt *q = NULL;
    char *twins = NULL;

    if (!condition_of(sel, "label") || condition_of(sel, "run") || condition_of(sel, "uuid"))
        return MP_OK;
    mp_db_prepare(
        s,
        "SELECT max(cell.id) FROM cell CROSS JOIN run ON run.id = cell.run WHERE cell.run "
        "IN (SELECT value FROM json_each(?1)) AND cell.key = ?2 AND cell.scenario_hash = ?3 AND "
        "cell.checkpoint_hash = ?4 AND (?5 IS NULL OR cell.status = ?5) AND " MP_DB_FINISHED
        " GROUP BY cell.run ORDER BY run.started DESC, 1 DESC",
        &q, err);
    for (int i = 0; !err->code && i < side->count; i++) {
        mp_candidate *c = &side->cells[i];
        if (c->run != last) {
            mp_free(twins);
            twins = twins_of(s, c->run->id, err);
            last = c->run;
        }
        if (twins)
            load_rounds(s, q, twins, status ? status->value : NULL, c, err);
    }
    mp_free(twins);
    sqlite3_finalize(q);
    return err->code;
}

static void free_candidate(mp_candidate *c)
{
    for (int k = 0; k < c->setting_count; k++) {
        mp_free((char *)c->settings[k].key);
        mp_free((char *)c->settings[k].value);
    }
    mp_free(c->settings);
    mp_free(c->ids);
    mp_free(c->key);
    mp_free(c->scenario);
    mp_free(c->scenario_hash);
    mp_free(c->checkpoint_hash);
}

void mp_side_free(mp_side *side)
{
    for (int i = 0; i < side->count; i++)
        free_candidate(&side->cells[i]);
    for (int i = 0; i < side->run_count; i++)
        free_run(side->runs[i]);
    mp_free(side->cells);
    mp_free(side->runs);
}

int mp_candidate_order(const mp_candidate *a, const mp_candidate *b)
{
    const int order = strcmp(b->run->started, a->run->started);

    return order ? order : (a->ids[0] < b->ids[0]) - (a->ids[0] > b->ids[0]);
}

const char *mp_candidate_setting(const mp_candidate *c, const char *key)
{
    for (int i = 0; i < c->setting_count; i++)
        if (!strcmp(c->settings[i].key, key))
            return c->settings[i].value;
    return NULL;
}

/* ---- what there is, for a message ----------------------------------------------------------- */

static void list_known(mp_store *s, const char *key, char *out, size_t size)
{
    const char *column = column_of(key);
    char sql[400];

    if (column)
        snprintf(sql, sizeof sql,
                 "SELECT %s FROM cell JOIN run ON run.id = cell.run WHERE " MP_DB_FINISHED
                 " AND %s IS NOT NULL GROUP BY 1 ORDER BY max(cell.id) DESC LIMIT 20",
                 column, column);
    else
        snprintf(sql, sizeof sql,
                 "SELECT DISTINCT value FROM cell_setting t JOIN cell ON cell.id = t.cell WHERE "
                 "t.key = ? AND " MP_DB_FINISHED " ORDER BY value LIMIT 20");
    mp_db_list(s, sql, key, out, size);
}

static bool matches(mp_store *s, const mp_condition *c)
{
    mp_selector alone = {.conditions = {*c}, .count = 1};
    sqlite3_stmt *q = NULL;
    mp_error quiet = {0};
    bool row = false;

    if (!prepare(s, &alone, &q, &quiet))
        mp_db_step(s, q, &row, &quiet);
    sqlite3_finalize(q);
    return row;
}

static mp_code unknown_key(mp_store *s, const char *key, mp_error *err)
{
    char there[800];

    mp_db_list(s, "SELECT DISTINCT key FROM cell_setting ORDER BY key LIMIT 40", NULL, there,
               sizeof there);
    if (!*there)
        return mp_error_set(err, MP_EMISSING,
                            "%s: holds no finished cell; record something with `mpbench run` first",
                            mp_store_path(s));
    return mp_error_set(err, MP_EMISSING,
                        "%s: no cell has the key '%s'; there are: %s, and run, uuid, label, "
                        "engine, device, scenario",
                        mp_store_path(s), key, there);
}

static mp_code nothing(mp_store *s, const mp_selector *sel, mp_error *err)
{
    char there[1024];
    int i = 0;

    while (i < sel->count && matches(s, &sel->conditions[i]))
        i++;
    if (i == sel->count)
        return mp_error_set(err, MP_EMISSING,
                            "%s: finished cells match each part of '%.200s', but none matches all "
                            "of it; see `mpbench list`",
                            mp_store_path(s), sel->text);
    const mp_condition *c = &sel->conditions[i];
    list_known(s, c->key, there, sizeof there);
    if (!*there && !column_of(c->key))
        return unknown_key(s, c->key, err);
    return mp_error_set(err, MP_EMISSING, "%s: no finished cell has %s=%.200s; there %s%s",
                        mp_store_path(s), c->key, c->value, *there ? "is: " : "is none with a ",
                        *there ? there : c->key);
}

mp_code mp_side_load_selected(mp_store *s, const mp_selector *which, mp_side *out, mp_error *err)
{
    *out = (mp_side){.selector = *which};
    if (load_newest(s, out, err))
        return err->code;
    return out->count ? load_all_rounds(s, out, err) : nothing(s, &out->selector, err);
}

mp_code mp_side_load(mp_store *s, const char *text, mp_side *out, mp_error *err)
{
    mp_selector selector;

    *out = (mp_side){0};
    return parse_selector(text, &selector, err) ? err->code
                                                : mp_side_load_selected(s, &selector, out, err);
}
