#include "results/compare_select.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/dtype.h"
#include "kernels/core/memory.h"

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

/* ---- selectors ------------------------------------------------------------------------------ */

static bool add_condition(mp_selector *s, const char *key, size_t n, const char *value, size_t m)
{
    mp_condition *c = &s->conditions[s->count];
    mp_dtype dtype;

    if (s->count == MP_CONDITIONS || !n || n >= sizeof c->key || m >= sizeof c->value)
        return false;
    snprintf(c->key, sizeof c->key, "%.*s", (int)n, key);
    snprintf(c->value, sizeof c->value, "%.*s", (int)m, value);
    if (!strncmp(c->key, "precision.", 10) && mp_dtype_parse(c->value, &dtype))
        snprintf(c->value, sizeof c->value, "%s", mp_dtype_name(dtype));
    s->count++;
    return true;
}

static bool add_word(mp_selector *s, const char *key, const char *value)
{
    return add_condition(s, key, strlen(key), value, strlen(value));
}

/* Up to the comma that begins another KEY=, or the end; commas within brackets do not count. */
static size_t condition_length(const char *s)
{
    int depth = 0;
    size_t n = 0;

    for (; s[n]; n++) {
        depth += s[n] == '[' || s[n] == '{';
        depth -= s[n] == ']' || s[n] == '}';
        if (s[n] == ',' && depth <= 0 && strchr(s + n, '='))
            break;
    }
    return n;
}

static bool looks_like_uuid(const char *text)
{
    return strlen(text) == 36 && strspn(text, "0123456789abcdef-") == 36;
}

/* A dtype, a run's number or UUID, KEY=VAL[,KEY=VAL], or else a label. */
static mp_code parse_selector(const char *text, mp_selector *out, mp_error *err)
{
    mp_dtype dtype;
    bool good = true;

    *out = (mp_selector){.text = text};
    if (mp_dtype_parse(text, &dtype)) {
        good = add_word(out, "precision.default", text);
    } else if (strchr(text, '=')) {
        for (const char *s = text; *s && good;) {
            const size_t n = condition_length(s), key = strcspn(s, "=");
            good = key > 0 && key < n && add_condition(out, s, key, s + key + 1, n - key - 1);
            s += n + (s[n] == ',');
        }
    } else if (*text && strspn(text, "0123456789") == strlen(text)) {
        good = add_word(out, "run", text);
    } else {
        good = *text && add_word(out, looks_like_uuid(text) ? "uuid" : "label", text);
    }
    if (good && out->count)
        return MP_OK;
    return mp_error_set(err, MP_EUSAGE,
                        "'%.80s' selects nothing: expected a dtype, a label, a run's id, or "
                        "KEY=VAL[,KEY=VAL]",
                        text);
}

bool mp_selection_has_key(const mp_selection *s, const char *key)
{
    for (int i = 0; i < s->a.count; i++)
        if (!strcmp(s->a.conditions[i].key, key))
            return true;
    for (int i = 0; i < s->b.count; i++)
        if (!strcmp(s->b.conditions[i].key, key))
            return true;
    return false;
}

/* ---- candidates ----------------------------------------------------------------------------- */

/* The newest finished cell of each key and content that fulfils the conditions.  Only column names
 * of the table above become a part of the SQL; all values are bound. */
static mp_code prepare(mp_store *s, const mp_selector *sel, sqlite3_stmt **out, mp_error *err)
{
    char sql[4096];
    size_t n = (size_t)snprintf(sql, sizeof sql,
                                "SELECT max(cell.id), cell.key, cell.scenario, run.fingerprint "
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
             " GROUP BY cell.key, cell.scenario_hash ORDER BY cell.scenario, max(cell.id)");
    if (mp_db_prepare(s, sql, out, err))
        return err->code;
    for (int i = 0; i < sel->count; i++) {
        sqlite3_bind_text(*out, 2 * i + 1, sel->conditions[i].key, -1, SQLITE_STATIC);
        sqlite3_bind_text(*out, 2 * i + 2, sel->conditions[i].value, -1, SQLITE_STATIC);
    }
    return MP_OK;
}

static mp_code no_memory(mp_error *err)
{
    return mp_error_set(err, MP_ENOMEM, "no memory for the comparison");
}

static mp_code load_settings(mp_store *s, mp_candidate *c, mp_error *err)
{
    sqlite3_stmt *q = NULL;
    bool row = true;
    int room = 0;

    mp_db_prepare(s, "SELECT key, value FROM cell_setting WHERE cell = ? ORDER BY key", &q, err);
    if (!err->code)
        mp_db_bind(s, q, err, "i", c->id);
    while (!err->code && !mp_db_step(s, q, &row, err) && row) {
        if (c->setting_count == room) {
            mp_pair *grown =
                mp_realloc(c->settings, (size_t)(room = room ? 2 * room : 32), sizeof *grown);
            if (!grown) {
                no_memory(err);
                break;
            }
            c->settings = grown;
        }
        mp_pair *p = &c->settings[c->setting_count++];
        p->key = mp_strdup(mp_db_text(q, 0));
        p->value = mp_strdup(mp_db_text(q, 1));
        if (!p->key || !p->value)
            no_memory(err);
    }
    sqlite3_finalize(q);
    return err->code;
}

/* Scenario and settings but for what the selectors speak of. */
static mp_code sign(const mp_selection *s, mp_candidate *c, mp_error *err)
{
    size_t n = strlen(c->scenario) + 2;

    for (int i = 0; i < c->setting_count; i++)
        n += strlen(c->settings[i].key) + strlen(c->settings[i].value) + 2;
    char *t = c->signature = mp_alloc(n, 1);
    if (!t)
        return no_memory(err);
    if (!mp_selection_has_key(s, "scenario"))
        t += sprintf(t, "%s\n", c->scenario);
    for (int i = 0; i < c->setting_count; i++)
        if (!mp_selection_has_key(s, c->settings[i].key))
            t += sprintf(t, "%s=%s\n", c->settings[i].key, c->settings[i].value);
    return MP_OK;
}

static mp_code load(mp_store *s, const mp_selection *sel, const mp_selector *which,
                    mp_candidate **out, int *count, mp_error *err)
{
    sqlite3_stmt *q = NULL;
    bool row = true;
    int room = 0;

    prepare(s, which, &q, err);
    while (!err->code && !mp_db_step(s, q, &row, err) && row) {
        if (*count == room) {
            mp_candidate *grown =
                mp_realloc(*out, (size_t)(room = room ? 2 * room : 32), sizeof *grown);
            if (!grown) {
                no_memory(err);
                break;
            }
            *out = grown;
        }
        mp_candidate *c = &(*out)[(*count)++];
        *c = (mp_candidate){.id = sqlite3_column_int64(q, 0),
                            .key = mp_strdup(mp_db_text(q, 1)),
                            .scenario = mp_strdup(mp_db_text(q, 2)),
                            .fingerprint = mp_strdup(mp_db_text(q, 3))};
        if (!c->key || !c->scenario || !c->fingerprint)
            no_memory(err);
        else if (!load_settings(s, c, err))
            sign(sel, c, err);
    }
    sqlite3_finalize(q);
    return err->code;
}

const char *mp_candidate_setting(const mp_candidate *c, const char *key)
{
    for (int i = 0; i < c->setting_count; i++)
        if (!strcmp(c->settings[i].key, key))
            return c->settings[i].value;
    return "";
}

static void free_candidates(mp_candidate *list, int n)
{
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < list[i].setting_count; k++) {
            mp_free((char *)list[i].settings[k].key);
            mp_free((char *)list[i].settings[k].value);
        }
        mp_free(list[i].settings);
        mp_free(list[i].key);
        mp_free(list[i].scenario);
        mp_free(list[i].fingerprint);
        mp_free(list[i].signature);
    }
    mp_free(list);
}

/* ---- pairs ---------------------------------------------------------------------------------- */

/* By signature; of equal ones the newest first. */
static int by_signature(const void *x, const void *y)
{
    const mp_candidate *a = x, *b = y;
    const int order = strcmp(a->signature, b->signature);

    return order ? order : (a->id < b->id) - (a->id > b->id);
}

/* By scenario and cell; of several pairs of one cell the newest first. */
static int by_cell(const void *x, const void *y)
{
    const mp_cell_pair *p = x, *q = y;
    int order = strcmp(p->a->scenario, q->a->scenario);

    if (!order)
        order = strcmp(p->a->key, q->a->key);
    if (!order)
        order = strcmp(p->b->key, q->b->key);
    return order ? order : (p->a->id < q->a->id) - (p->a->id > q->a->id);
}

static void drop_older_pairs(mp_selection *s)
{
    int kept = 0;

    for (int i = 0; i < s->pair_count; i++)
        if (!kept || strcmp(s->pairs[kept - 1].a->key, s->pairs[i].a->key) ||
            strcmp(s->pairs[kept - 1].b->key, s->pairs[i].b->key))
            s->pairs[kept++] = s->pairs[i];
    s->pair_count = kept;
}

/* A cell of which another content is paired is no lone one: it is only older. */
static int lone(const mp_candidate *list, int n)
{
    int count = 0;

    for (int i = 0; i < n; i++) {
        bool known = list[i].paired;
        for (int k = 0; k < n && !known; k++)
            known =
                !strcmp(list[k].key, list[i].key) && (list[k].paired || list[k].id > list[i].id);
        count += !known;
    }
    return count;
}

static mp_code join(mp_selection *s, mp_error *err)
{
    const int most = s->count_a < s->count_b ? s->count_a : s->count_b;
    int i = 0, k = 0;

    s->pairs = mp_alloc((size_t)most + 1, sizeof *s->pairs);
    if (!s->pairs)
        return no_memory(err);
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
    qsort(s->pairs, (size_t)s->pair_count, sizeof *s->pairs, by_cell);
    drop_older_pairs(s);
    s->lone_a = lone(s->from_a, s->count_a);
    s->lone_b = lone(s->from_b, s->count_b);
    return MP_OK;
}

/* ---- what there is, for a message ----------------------------------------------------------- */

static void list_values(mp_store *s, const char *sql, const char *key, char *out, size_t size)
{
    sqlite3_stmt *q = NULL;
    mp_error quiet = {0};
    bool row = true;
    size_t n = 0;

    out[0] = '\0';
    if (!mp_db_prepare(s, sql, &q, &quiet) && (!key || !mp_db_bind(s, q, &quiet, "t", key)))
        while (!mp_db_step(s, q, &row, &quiet) && row && n + 1 < size)
            n += (size_t)snprintf(out + n, size - n, "%s%.60s", n ? ", " : "", mp_db_text(q, 0));
    sqlite3_finalize(q);
}

static mp_code nothing(mp_store *s, const mp_selector *sel, mp_error *err)
{
    const char *key = sel->conditions[0].key;
    char there[600];

    if (!strcmp(key, "label"))
        list_values(s,
                    "SELECT DISTINCT label FROM run WHERE label IS NOT NULL ORDER BY label LIMIT "
                    "20",
                    NULL, there, sizeof there);
    else if (column_of(key))
        list_values(s, "SELECT id FROM run ORDER BY id DESC LIMIT 20", NULL, there, sizeof there);
    else
        list_values(s,
                    "SELECT DISTINCT value FROM cell_setting WHERE key = ? ORDER BY value LIMIT "
                    "20",
                    key, there, sizeof there);
    if (!*there && !column_of(key)) {
        list_values(s, "SELECT DISTINCT key FROM cell_setting ORDER BY key LIMIT 40", NULL, there,
                    sizeof there);
        return mp_error_set(err, MP_EMISSING,
                            "%s: no cell has the key '%s' of '%.80s'; there are: %s, and run, "
                            "label, engine, device, scenario",
                            mp_store_path(s), key, sel->text, there);
    }
    return mp_error_set(err, MP_EMISSING,
                        "%s: no finished cell matches '%.80s'; of '%s' there %s%s",
                        mp_store_path(s), sel->text, key, *there ? "is: " : "is nothing", there);
}

mp_code mp_select_pairs(mp_store *s, const char *a, const char *b, mp_selection *out, mp_error *err)
{
    *out = (mp_selection){0};
    if (parse_selector(a, &out->a, err) || parse_selector(b, &out->b, err) ||
        load(s, out, &out->a, &out->from_a, &out->count_a, err) ||
        load(s, out, &out->b, &out->from_b, &out->count_b, err))
        return err->code;
    if (!out->count_a)
        return nothing(s, &out->a, err);
    if (!out->count_b)
        return nothing(s, &out->b, err);
    if (join(out, err))
        return err->code;
    if (!out->pair_count)
        return mp_error_set(err, MP_EMISSING,
                            "%s: %d cells match '%.80s' and %d match '%.80s', but no two of them "
                            "differ in nothing else; see `mpbench list`",
                            mp_store_path(s), out->count_a, a, out->count_b, b);
    return MP_OK;
}

void mp_selection_free(mp_selection *s)
{
    free_candidates(s->from_a, s->count_a);
    free_candidates(s->from_b, s->count_b);
    mp_free(s->pairs);
}
