#include "results/compare_select.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/dtype.h"
#include "kernels/core/memory.h"
#include "results/table.h"

/* Keys of a run or cell that are no settings, and their column. */
static const struct {
    const char *key, *column;
} columns[] = {{"run", "run.id"},        {"uuid", "run.uuid"},     {"label", "run.label"},
               {"engine", "run.engine"}, {"device", "run.device"}, {"scenario", "cell.scenario"},
               {"status", "cell.status"}};

static const char *column_of(const char *key)
{
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
        if (!strcmp(columns[i].key, key))
            return columns[i].column;
    return NULL;
}

static mp_code no_memory(mp_error *err)
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

/* A dtype, a run's number or UUID, KEY=VAL[,KEY=VAL], or else a label. */
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
static bool names(const mp_selector *s, const char *key)
{
    const size_t n = strlen(key);

    for (int i = 0; i < s->count; i++) {
        const char *named = s->conditions[i].key;
        if (!strncmp(named, key, n) && (!named[n] || named[n] == '.'))
            return true;
    }
    return false;
}

bool mp_selection_has_key(const mp_selection *s, const char *key)
{
    return names(&s->a, key) || names(&s->b, key);
}

/* ---- candidates ----------------------------------------------------------------------------- */

/* The newest finished cell of each key and content that fulfils the conditions.  Only column names
 * of the table above become a part of the SQL; all values are bound. */
static mp_code prepare(mp_store *s, const mp_selector *sel, sqlite3_stmt **out, mp_error *err)
{
    char sql[4096];
    size_t n = (size_t)snprintf(sql, sizeof sql,
                                "SELECT max(cell.id), cell.key, cell.scenario, run.engine, "
                                "run.device, cell.checkpoint_hash, run.fingerprint, "
                                "(SELECT value FROM run_environment e WHERE e.run = run.id AND "
                                "e.key = 'isa') "
                                "FROM cell JOIN run ON run.id = cell.run "
                                "WHERE cell.status NOT IN ('running', 'interrupted')");

    for (int i = 0; i < sel->count; i++) {
        const char *column = column_of(sel->conditions[i].key);
        char *end = sql + n;
        if (column)
            n += (size_t)snprintf(end, sizeof sql - n, " AND cast(%s AS TEXT) = ?%d", column,
                                  2 * i + 2);
        else
            n += (size_t)snprintf(end, sizeof sql - n,
                                  " AND EXISTS (SELECT 1 FROM cell_setting t WHERE t.cell = "
                                  "cell.id AND t.key = ?%d AND t.value = ?%d)",
                                  2 * i + 1, 2 * i + 2);
    }
    snprintf(sql + n, sizeof sql - n,
             " GROUP BY cell.key, cell.scenario_hash, run.engine, run.device, "
             "cell.checkpoint_hash");
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
            return no_memory(err);
        c->settings = grown;
        c->setting_room = room;
    }
    mp_pair *p = &c->settings[c->setting_count++];
    *p = (mp_pair){mp_strdup(key), mp_strdup(value)};
    return p->key && p->value ? MP_OK : no_memory(err);
}

/* q: the settings of a cell. */
static mp_code load_settings(mp_store *s, sqlite3_stmt *q, mp_candidate *c, mp_error *err)
{
    bool row = true;

    sqlite3_reset(q);
    if (mp_db_bind(s, q, err, "i", c->id))
        return err->code;
    while (!mp_db_step(s, q, &row, err) && row)
        if (add_setting(c, mp_db_text(q, 0), mp_db_text(q, 1), err))
            break;
    return err->code;
}

static mp_code read_candidate(sqlite3_stmt *q, mp_candidate *c, mp_error *err)
{
    *c = (mp_candidate){.id = sqlite3_column_int64(q, 0),
                        .key = mp_strdup(mp_db_text(q, 1)),
                        .scenario = mp_strdup(mp_db_text(q, 2)),
                        .engine = mp_strdup(mp_db_text(q, 3)),
                        .device = mp_strdup(mp_db_text(q, 4)),
                        .checkpoint_hash = mp_strdup(mp_db_text(q, 5)),
                        .fingerprint = mp_strdup(mp_db_text(q, 6)),
                        .isa = mp_strdup(mp_db_text(q, 7))};
    return c->key && c->scenario && c->engine && c->device && c->checkpoint_hash &&
                   c->fingerprint && c->isa
               ? MP_OK
               : no_memory(err);
}

static mp_code load(mp_store *s, const mp_selector *which, mp_candidate **out, int *count,
                    mp_error *err)
{
    sqlite3_stmt *q = NULL, *settings = NULL;
    bool row = true;
    int room = 0;

    prepare(s, which, &q, err);
    mp_db_prepare(s, "SELECT key, value FROM cell_setting WHERE cell = ? ORDER BY key", &settings,
                  err);
    while (!err->code && !mp_db_step(s, q, &row, err) && row) {
        if (*count == room) {
            room = room ? 2 * room : 32;
            mp_candidate *grown = mp_realloc(*out, (size_t)room, sizeof *grown);
            if (!grown) {
                no_memory(err);
                break;
            }
            *out = grown;
        }
        mp_candidate *c = &(*out)[(*count)++];
        if (!read_candidate(q, c, err))
            load_settings(s, settings, c, err);
    }
    sqlite3_finalize(q);
    sqlite3_finalize(settings);
    return err->code;
}

static void free_candidates(mp_candidate *list, int n)
{
    for (int i = 0; i < n; i++) {
        mp_candidate *c = &list[i];
        for (int k = 0; k < c->setting_count; k++) {
            mp_free((char *)c->settings[k].key);
            mp_free((char *)c->settings[k].value);
        }
        mp_free(c->settings);
        mp_free(c->key);
        mp_free(c->scenario);
        mp_free(c->engine);
        mp_free(c->device);
        mp_free(c->checkpoint_hash);
        mp_free(c->fingerprint);
        mp_free(c->isa);
        mp_free(c->signature);
    }
    mp_free(list);
}

/* ---- what must be equal --------------------------------------------------------------------- */

static bool names_a_run(const mp_selection *s)
{
    return mp_selection_has_key(s, "label") || mp_selection_has_key(s, "run") ||
           mp_selection_has_key(s, "uuid");
}

/* strict: only what both selectors name may differ. */
static bool may_differ(const mp_selection *s, const char *key, bool strict)
{
    return strict ? names(&s->a, key) && names(&s->b, key) : mp_selection_has_key(s, key);
}

/* Of what is no setting: the key that names it, and its value. */
enum { FACTS = 4 };
static void facts_of(const mp_candidate *c, mp_pair out[FACTS])
{
    out[0] = (mp_pair){"scenario", c->scenario};
    out[1] = (mp_pair){"engine", c->engine};
    out[2] = (mp_pair){"device", c->device};
    out[3] = (mp_pair){"checkpoint", c->checkpoint_hash};
}

static bool fact_may_differ(const mp_selection *s, int fact, const char *key, bool strict)
{
    return (fact > 0 && names_a_run(s)) || may_differ(s, key, strict);
}

/* Everything that must be equal, as one text. */
static mp_code sign(const mp_selection *s, mp_candidate *c, bool strict, mp_error *err)
{
    mp_pair facts[FACTS];
    size_t n = 1;

    facts_of(c, facts);
    for (int i = 0; i < FACTS; i++)
        n += strlen(facts[i].value) + 1;
    for (int i = 0; i < c->setting_count; i++)
        n += strlen(c->settings[i].key) + strlen(c->settings[i].value) + 2;
    mp_free(c->signature);
    char *t = c->signature = mp_alloc(n, 1);
    if (!t)
        return no_memory(err);
    for (int i = 0; i < FACTS; i++)
        if (!fact_may_differ(s, i, facts[i].key, strict))
            t += sprintf(t, "%s\n", facts[i].value);
    for (int i = 0; i < c->setting_count; i++)
        if (!may_differ(s, c->settings[i].key, strict))
            t += sprintf(t, "%s=%s\n", c->settings[i].key, c->settings[i].value);
    return MP_OK;
}

static mp_code sign_all(mp_selection *s, bool strict, mp_error *err)
{
    for (int i = 0; i < s->count_a; i++)
        if (sign(s, &s->from_a[i], strict, err))
            return err->code;
    for (int i = 0; i < s->count_b; i++)
        if (sign(s, &s->from_b[i], strict, err))
            return err->code;
    return MP_OK;
}

/* ---- pairs ---------------------------------------------------------------------------------- */

/* By signature; of equal ones the newest first. */
static int by_signature(const void *x, const void *y)
{
    const mp_candidate *a = x, *b = y;
    const int order = strcmp(a->signature, b->signature);

    return order ? order : (a->id < b->id) - (a->id > b->id);
}

/* Whether they are the same cell, if with another content, in order. */
static int same_cell(const mp_candidate *a, const mp_candidate *b)
{
    int order = strcmp(a->scenario, b->scenario);

    if (!order)
        order = strcmp(a->key, b->key);
    if (!order)
        order = strcmp(a->engine, b->engine);
    return order ? order : strcmp(a->device, b->device);
}

static int same_cells(const mp_cell_pair *p, const mp_cell_pair *q)
{
    const int order = same_cell(p->a, q->a);

    return order ? order : same_cell(p->b, q->b);
}

/* By scenario and cell; of several pairs of one cell the newest first. */
static int by_cell(const void *x, const void *y)
{
    const mp_cell_pair *p = x, *q = y;
    const int order = same_cells(p, q);

    return order ? order : (p->a->id < q->a->id) - (p->a->id > q->a->id);
}

static void drop_older_pairs(mp_selection *s)
{
    int kept = 0;

    for (int i = 0; i < s->pair_count; i++)
        if (!kept || same_cells(&s->pairs[kept - 1], &s->pairs[i]))
            s->pairs[kept++] = s->pairs[i];
    s->pair_count = kept;
}

static int by_name(const void *x, const void *y)
{
    const mp_candidate *const *a = x, *const *b = y;

    return same_cell(*a, *b);
}

/* Cells of which no content is paired. */
static mp_code count_lone(const mp_candidate *list, int n, int *out, mp_error *err)
{
    const mp_candidate **sorted = mp_alloc((size_t)n, sizeof *sorted);

    if (!sorted)
        return no_memory(err);
    for (int i = 0; i < n; i++)
        sorted[i] = &list[i];
    qsort(sorted, (size_t)n, sizeof *sorted, by_name);
    for (int i = 0, end; i < n; i = end) {
        bool paired = false;
        for (end = i; end < n && !same_cell(sorted[i], sorted[end]); end++)
            paired |= sorted[end]->paired;
        *out += !paired;
    }
    mp_free(sorted);
    return MP_OK;
}

/* Both lists in order of their signatures, like merging: each cell has one partner at most. */
static void match(mp_selection *s)
{
    int i = 0, k = 0;

    qsort(s->from_a, (size_t)s->count_a, sizeof *s->from_a, by_signature);
    qsort(s->from_b, (size_t)s->count_b, sizeof *s->from_b, by_signature);
    while (i < s->count_a && k < s->count_b) {
        const int order = strcmp(s->from_a[i].signature, s->from_b[k].signature);
        if (!order && s->from_a[i].id != s->from_b[k].id) {
            s->pairs[s->pair_count++] = (mp_cell_pair){&s->from_a[i], &s->from_b[k]};
            s->from_a[i].paired = s->from_b[k].paired = true;
        }
        i += order <= 0;
        k += order >= 0;
    }
}

static mp_code join(mp_selection *s, mp_error *err)
{
    const int most = s->count_a < s->count_b ? s->count_a : s->count_b;

    s->pairs = mp_alloc((size_t)most, sizeof *s->pairs);
    if (!s->pairs)
        return no_memory(err);
    for (int strict = 1; strict >= 0 && !s->pair_count; strict--) {
        if (sign_all(s, strict, err))
            return err->code;
        match(s);
    }
    qsort(s->pairs, (size_t)s->pair_count, sizeof *s->pairs, by_cell);
    drop_older_pairs(s);
    if (count_lone(s->from_a, s->count_a, &s->lone_a, err))
        return err->code;
    return count_lone(s->from_b, s->count_b, &s->lone_b, err);
}

/* ---- what there is, for a message ----------------------------------------------------------- */

/* Adds a text of the database, short and fit for a terminal. */
static void append(char *out, size_t size, const char *before, const char *text)
{
    char cut[64];
    const size_t n = strlen(out);

    snprintf(cut, sizeof cut, "%s", text);
    char *plain = mp_plain_text(cut);
    snprintf(out + n, size - n, "%s%s", before, plain ? plain : "(no memory)");
    mp_free(plain);
}

/* The first column of all rows; key is bound where there is a parameter. */
static void list_values(mp_store *s, const char *sql, const char *key, char *out, size_t size)
{
    sqlite3_stmt *q = NULL;
    mp_error quiet = {0};
    bool row = true;

    out[0] = '\0';
    if (!mp_db_prepare(s, sql, &q, &quiet) &&
        (!sqlite3_bind_parameter_count(q) || !mp_db_bind(s, q, &quiet, "t", key)))
        while (!mp_db_step(s, q, &row, &quiet) && row)
            append(out, size, *out ? ", " : "", mp_db_text(q, 0));
    sqlite3_finalize(q);
}

#define FINISHED "cell.status NOT IN ('running', 'interrupted')"

static void list_known(mp_store *s, const char *key, char *out, size_t size)
{
    const char *column = column_of(key);
    char sql[400];

    if (column)
        snprintf(sql, sizeof sql,
                 "SELECT %s FROM cell JOIN run ON run.id = cell.run WHERE " FINISHED
                 " AND %s IS NOT NULL GROUP BY 1 ORDER BY max(cell.id) DESC LIMIT 20",
                 column, column);
    else
        snprintf(sql, sizeof sql,
                 "SELECT DISTINCT value FROM cell_setting t JOIN cell ON cell.id = t.cell WHERE "
                 "t.key = ? AND " FINISHED " ORDER BY value LIMIT 20");
    list_values(s, sql, key, out, size);
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

    list_values(s, "SELECT DISTINCT key FROM cell_setting ORDER BY key LIMIT 40", NULL, there,
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

/* In what two candidates differ that should not: how much, and the first few in words. */
static int differences(const mp_selection *s, const mp_candidate *a, const mp_candidate *b,
                       char *out, size_t size)
{
    mp_pair of_a[FACTS], of_b[FACTS];
    int n = 0, i = 0, k = 0;

    out[0] = '\0';
    facts_of(a, of_a);
    facts_of(b, of_b);
    for (int f = 0; f < FACTS; f++)
        if (!fact_may_differ(s, f, of_a[f].key, false) && strcmp(of_a[f].value, of_b[f].value))
            append(out, size, n++ ? ", " : "", of_a[f].key);
    while (i < a->setting_count || k < b->setting_count) {
        const int order = i == a->setting_count   ? 1
                          : k == b->setting_count ? -1
                                                  : strcmp(a->settings[i].key, b->settings[k].key);
        const char *key = order > 0 ? b->settings[k].key : a->settings[i].key;
        if (!mp_selection_has_key(s, key) &&
            (order || strcmp(a->settings[i].value, b->settings[k].value)))
            append(out, size, n++ ? ", " : "", key);
        i += order <= 0;
        k += order >= 0;
    }
    return n;
}

/* The cells nearest to each other among the first of A and all of B. */
static mp_code no_pair(mp_store *s, const mp_selection *sel, mp_error *err)
{
    const mp_candidate *a = &sel->from_a[0], *nearest = NULL;
    char text[600];
    int least = 0;

    for (int i = 0; i < sel->count_b; i++) {
        const int n = differences(sel, a, &sel->from_b[i], text, sizeof text);
        if (sel->from_b[i].id != a->id && (!nearest || n < least)) {
            nearest = &sel->from_b[i];
            least = n;
        }
    }
    if (!nearest)
        return mp_error_set(err, MP_EMISSING,
                            "%s: '%.80s' and '%.80s' match the same cell only, %lld",
                            mp_store_path(s), sel->a.text, sel->b.text, (long long)a->id);
    differences(sel, a, nearest, text, sizeof text);
    return mp_error_set(err, MP_EMISSING,
                        "%s: no two cells differ in nothing but '%.80s' and '%.80s': of %d and %d "
                        "the nearest, %lld and %lld, differ also in %s; see `mpbench list`",
                        mp_store_path(s), sel->a.text, sel->b.text, sel->count_a, sel->count_b,
                        (long long)a->id, (long long)nearest->id, text);
}

mp_code mp_select_pairs(mp_store *s, const char *a, const char *b, mp_selection *out, mp_error *err)
{
    *out = (mp_selection){0};
    if (parse_selector(a, &out->a, err) || parse_selector(b, &out->b, err) ||
        load(s, &out->a, &out->from_a, &out->count_a, err) ||
        load(s, &out->b, &out->from_b, &out->count_b, err))
        return err->code;
    if (!out->count_a)
        return nothing(s, &out->a, err);
    if (!out->count_b)
        return nothing(s, &out->b, err);
    if (join(out, err))
        return err->code;
    return out->pair_count ? MP_OK : no_pair(s, out, err);
}

void mp_selection_free(mp_selection *s)
{
    free_candidates(s->from_a, s->count_a);
    free_candidates(s->from_b, s->count_b);
    mp_free(s->pairs);
}
