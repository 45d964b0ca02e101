#include "harness/plan.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "harness/matrix.h"
#include "harness/scenario_inputs.h"
#include "harness/scenario_schema.h"
#include "pipelines/common/file.h"
#include "results/metrics.h"

/* MAX_VALUES: YAML nodes times cells, what one file may make of memory. */
enum { MAX_FOLDER = 120, MAX_DEPTH = 8, MAX_VALUES = 10000000 };

typedef struct scenario_file {
    const char *path;
    const char *name; /* of its scenario, once it is read */
} scenario_file;

typedef struct builder {
    mp_arena *arena;
    const mp_plan_options *options;
    mp_error *err;
    scenario_file *files;
    int file_count, file_room;
    struct stat *seen; /* files and folders, so that none is read twice by another path */
    int seen_count, seen_room;
    int names; /* of scenarios in folders, read before or not */
    mp_plan *plan;
    int room;
} builder;

/* The cells of one file, before --only. */
typedef struct cell_list {
    mp_cell *cells;
    mp_combination *from; /* for each cell */
    int count;
    const mp_yaml **keys; /* that tell the cells apart: all that stand in some combination */
    int key_count;
} cell_list;

/* An array in the arena with room for one more. */
static void *with_room(mp_arena *a, void *items, int count, int *room, size_t size)
{
    if (count < *room)
        return items;
    *room = *room ? 2 * *room : 16;
    void *grown = mp_arena_alloc(a, (size_t)*room, size);
    if (count)
        memcpy(grown, items, (size_t)count * size);
    return grown;
}

/* ---- files ---------------------------------------------------------------------------------- */

static bool seen_before(builder *b, const struct stat *st)
{
    for (int i = 0; i < b->seen_count; i++)
        if (b->seen[i].st_dev == st->st_dev && b->seen[i].st_ino == st->st_ino)
            return true;
    b->seen = with_room(b->arena, b->seen, b->seen_count, &b->seen_room, sizeof *b->seen);
    b->seen[b->seen_count++] = *st;
    return false;
}

static void add_file(builder *b, const char *path)
{
    b->files = with_room(b->arena, b->files, b->file_count, &b->file_room, sizeof *b->files);
    b->files[b->file_count++] = (scenario_file){.path = path};
}

static bool is_scenario_name(const char *path)
{
    const char *dot = strrchr(path, '.');

    return dot && (!strcmp(dot, ".yaml") || !strcmp(dot, ".yml"));
}

static int by_name(const struct dirent **x, const struct dirent **y)
{
    return strcmp((*x)->d_name, (*y)->d_name);
}

static void add_folder(builder *b, const char *path, int depth);

static void add_entry(builder *b, const char *path, int depth)
{
    struct stat st;

    if (stat(path, &st) || (!S_ISDIR(st.st_mode) && !is_scenario_name(path)))
        return;
    b->names += !S_ISDIR(st.st_mode);
    if (seen_before(b, &st))
        return;
    if (!S_ISDIR(st.st_mode))
        add_file(b, path);
    else if (depth < MAX_DEPTH)
        add_folder(b, path, depth + 1);
    else
        mp_error_set(b->err, MP_EUSAGE, "%s: more than %d folders deep; give it as a path", path,
                     (int)MAX_DEPTH);
}

static void add_folder(builder *b, const char *path, int depth)
{
    struct dirent **entries;
    const int n = scandir(path, &entries, NULL, by_name);

    if (n < 0) {
        mp_error_set(b->err, MP_EUSAGE, "%s: %s; expected a readable folder", path,
                     strerror(errno));
        return;
    }
    for (int i = 0; i < n; i++) {
        if (entries[i]->d_name[0] != '.' && !b->err->code)
            add_entry(b, mp_arena_printf(b->arena, "%s/%s", path, entries[i]->d_name), depth);
        free(entries[i]);
    }
    free(entries);
}

static const char *without_slash(mp_arena *a, const char *path)
{
    size_t n = strlen(path);

    while (n > 1 && path[n - 1] == '/')
        n--;
    return mp_arena_strndup(a, path, n);
}

static mp_code find_files(builder *b)
{
    for (int i = 0; i < b->options->paths.count && !b->err->code; i++) {
        const char *path = b->options->paths.items[i];
        const int before = b->names;
        struct stat st;
        if (stat(path, &st))
            return mp_error_set(b->err, MP_EUSAGE,
                                "%s: %s; expected a scenario file or a folder of them", path,
                                strerror(errno));
        if (seen_before(b, &st))
            continue;
        if (!S_ISDIR(st.st_mode)) {
            add_file(b, path);
            continue;
        }
        add_folder(b, without_slash(b->arena, path), 0);
        if (!b->err->code && b->names == before)
            return mp_error_set(b->err, MP_EUSAGE,
                                "%s: has no scenario in it; expected files named *.yaml", path);
    }
    return b->err->code;
}

/* ---- KEY=VAL -------------------------------------------------------------------------------- */

/* The value as YAML in flow style; the message names the option. */
static mp_code parse_value(builder *b, const char *option, const char *text, mp_yaml **key,
                           mp_yaml **value)
{
    const char *equals = strchr(text, '=');

    if (!equals || equals == text)
        return mp_error_set(b->err, MP_EUSAGE,
                            "%s %s: expected KEY=VAL, such as precision.default=bf16", option,
                            mp_plain(text).text);
    *key = mp_arena_alloc(b->arena, 1, sizeof **key);
    **key = (mp_yaml){.kind = MP_YAML_SCALAR,
                      .file = option,
                      .line = 1,
                      .column = 1,
                      .text = mp_arena_strndup(b->arena, text, (size_t)(equals - text))};
    if (!equals[1]) { /* KEY=: nothing, as an empty value in a file */
        *value = mp_yaml_copy(b->arena, *key);
        (*value)->kind = MP_YAML_NULL;
        return MP_OK;
    }
    return mp_yaml_parse(b->arena, option, equals + 1, strlen(equals + 1), value, b->err);
}

/* Whether one of the two is the other or stands above it. */
static bool related(const char *x, const char *y)
{
    const size_t n = strlen(x), m = strlen(y), shorter = n < m ? n : m;

    return !strncmp(x, y, shorter) && (n == m || (n < m ? y[n] : x[m]) == '.');
}

static void drop_related(builder *b, const mp_yaml *root, mp_yaml *map, const char *key)
{
    for (int i = 0; i < map->count;) {
        const char *text = map->keys[i]->text;
        if (related(mp_scenario_key(b->arena, root, text), key))
            mp_yaml_remove(map, text);
        else
            i++;
    }
}

/* Values given in the matrix for this key, or for keys around or below it, give way. */
static void drop_axes(builder *b, mp_yaml *root, const char *key)
{
    mp_yaml *matrix = mp_yaml_get(root, "matrix"), *include = mp_yaml_get(matrix, "include");
    int kept = 0;

    if (!matrix || matrix->kind != MP_YAML_MAP)
        return;
    key = mp_scenario_key(b->arena, root, key);
    drop_related(b, root, matrix, key);
    for (int i = 0; include && include->kind == MP_YAML_LIST && i < include->count; i++) {
        mp_yaml *entry = include->items[i];
        const bool map = entry->kind == MP_YAML_MAP;
        if (map)
            drop_related(b, root, entry, key);
        if (!map || entry->count)
            include->items[kept++] = entry;
    }
    if (include && include->kind == MP_YAML_LIST)
        include->count = kept;
}

static mp_code apply_set(builder *b, mp_yaml *root)
{
    for (int i = 0; i < b->options->set.count; i++) {
        mp_yaml *key, *value;
        const mp_yaml *found = NULL;
        if (parse_value(b, "--set", b->options->set.items[i], &key, &value) ||
            mp_schema_check_dotted(key->text, false, key, b->err))
            return b->err->code;
        drop_axes(b, root, key->text);
        if (!mp_scenario_put(b->arena, root, key->text, value, &found))
            return mp_yaml_fail(b->err, found, "--set %s: %s stands in its way here",
                                mp_plain(key->text).text, mp_yaml_describe(b->arena, found));
    }
    return MP_OK;
}

/* "a.b=", as a condition begins. */
static bool begins_condition(const char *s)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                  "_.";
    s += strspn(s, " ");
    const size_t n = strspn(s, letters);

    return n && s[n] == '=';
}

/* The end of the quoted text that begins at s; s where it has none. */
static const char *after_quotes(const char *s)
{
    const char *end = s + 1;

    for (; *end && *end != *s; end++)
        if (*s == '"' && *end == '\\' && end[1])
            end++;
    return *end ? end : s;
}

/* "a=1,b=[2, 3]" cut at its outer commas that begin another KEY=. */
static const char *next_condition(mp_arena *a, const char **rest)
{
    const char *start = *rest + strspn(*rest, " "), *s = start;
    int depth = 0;

    for (; *s; s++) {
        if ((*s == '"' || *s == '\'') && s > start && strchr("=[{,: ", s[-1]))
            s = after_quotes(s);
        depth += *s == '[' || *s == '{';
        depth -= *s == ']' || *s == '}';
        if (*s == ',' && depth <= 0 && begins_condition(s + 1))
            break;
    }
    *rest = *s ? s + 1 : s;
    return mp_arena_strndup(a, start, (size_t)(s - start));
}

static mp_code selected(builder *b, const mp_scenario *s, bool *out)
{
    *out = true;
    for (int i = 0; i < b->options->only.count && *out; i++) {
        const char *rest = b->options->only.items[i];
        while (*rest && *out) {
            mp_yaml *key, *value;
            if (parse_value(b, "--only", next_condition(b->arena, &rest), &key, &value))
                return b->err->code;
            mp_yaml *keys[] = {key}, *items[] = {value};
            const mp_yaml when = {
                .kind = MP_YAML_MAP, .file = "--only", .keys = keys, .items = items, .count = 1};
            if (mp_scenario_matches(b->arena, s, &when, out, b->err))
                return b->err->code;
        }
    }
    return MP_OK;
}

/* ---- cells ---------------------------------------------------------------------------------- */

static const char *folder_name(mp_arena *a, const char *id)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "._-=,+:";
    char hash[65];
    char *name = mp_arena_strdup(a, id);
    const size_t n = strlen(name);
    bool changed = n > MAX_FOLDER || name[0] == '.';

    for (char *s = name; *s; s++)
        if (!strchr(plain, *s)) {
            *s = '_';
            changed = true;
        }
    if (!changed)
        return name;
    mp_sha256_hex(id, n, hash);
    return mp_arena_printf(a, "%s%.*s-%.8s", name[0] == '.' ? "_" : "", (int)MAX_FOLDER, name,
                           hash);
}

static void name_cell(builder *b, mp_cell *cell, const mp_combination *c)
{
    mp_text id = {0};

    for (int i = 0; i < c->count; i++) {
        const char *key = c->keys[i]->text;
        const char *value = mp_scenario_value(b->arena, &cell->scenario, key);
        if (!mp_schema_result(key))
            continue; /* repeat, budgets: the same cell with them or without */
        mp_text_printf(&id, "%s%s=", id.length ? "," : "", key);
        if (value)
            mp_text_add(&id, value);
        else
            mp_yaml_write(&id, c->values[i]); /* tiling.tile: a part of a setting */
    }
    cell->id = id.length ? mp_text_take(&id, b->arena) : "default";
    mp_text_free(&id);
    cell->key = mp_arena_printf(b->arena, "%s/%s", cell->scenario.name, cell->id);
    cell->folder = folder_name(b->arena, cell->id);
}

/* The text of a string or file as YAML, NULL for other inputs: those read back as they are. */
static const char *quoted_setting(mp_arena *a, const mp_scenario *s, const char *key)
{
    mp_yaml node = {.kind = MP_YAML_SCALAR, .quoted = true};
    mp_text t = {0};

    if (!strcmp(key, "checkpoint"))
        node.text = s->request.checkpoint;
    for (int i = 0; !strncmp(key, "inputs.", 7) && i < s->request.input_count; i++) {
        const mp_input *x = &s->request.inputs[i];
        if ((x->field->type == MP_INPUT_STRING || x->field->type == MP_INPUT_FILE) &&
            !strcmp(mp_input_name(x->field), key + 7))
            node.text = mp_input_text(a, x);
    }
    if (!node.text)
        return NULL;
    const mp_yaml plain = {.kind = MP_YAML_SCALAR, .text = node.text};
    double number;
    node.quoted = mp_yaml_is_null(&plain) || mp_yaml_number(&plain, &number);
    mp_yaml_write(&t, &node);
    return mp_text_take(&t, a);
}

/* What of the cell a key tells: its own value where the key stands in its combination, else the
 * setting that it resolves to, or that the key is a part of. */
static const char *condition(mp_arena *a, const mp_cell *cell, const mp_combination *c,
                             const char *key)
{
    const char *value = quoted_setting(a, &cell->scenario, key);
    mp_text t = {0};

    for (int i = 0; !value && i < c->count; i++)
        if (!strcmp(c->keys[i]->text, key)) {
            mp_text_printf(&t, "%s=", key);
            mp_yaml_write(&t, c->values[i]);
            return mp_text_take(&t, a);
        }
    if (!strcmp(key, "inputs") ||
        !strcmp(key, "precision")) { /* whole maps: no setting of theirs */
        const mp_yaml *map = mp_yaml_get(cell->scenario.root, key);
        mp_text_printf(&t, "%s=", key);
        mp_yaml_write(&t, map ? map : &(mp_yaml){.kind = MP_YAML_NULL});
        return mp_text_take(&t, a);
    }
    while (!value && !(value = mp_scenario_value(a, &cell->scenario, key))) {
        const char *dot = strrchr(key, '.');
        if (!dot)
            return NULL;
        key = mp_arena_strndup(a, key, (size_t)(dot - key));
    }
    return mp_arena_printf(a, "%s=%s", key, value);
}

static void write_repro(builder *b, mp_cell *cell, const cell_list *list, const mp_combination *c)
{
    const mp_plan_options *o = b->options;
    mp_text t = {0};

    mp_text_add(&t, "mpbench run ");
    mp_text_add(&t, cell->scenario.file[0] == '-' ? "./" : "");
    mp_text_shell(&t, cell->scenario.file);
    for (int i = 0; i < o->set.count; i++) {
        mp_text_add(&t, " --set ");
        mp_text_shell(&t, o->set.items[i]);
    }
    for (int i = 0; i < list->key_count; i++) {
        const char *only = condition(b->arena, cell, c, list->keys[i]->text);
        if (only) {
            mp_text_add(&t, " --only ");
            mp_text_shell(&t, only);
        }
    }
    mp_text_add(&t, o->engine_flags);
    cell->repro = mp_text_take(&t, b->arena);
}

static void hash_cell(mp_cell *cell)
{
    const mp_scenario *s = &cell->scenario;
    mp_sha256 h;

    mp_sha256_init(&h);
    for (int i = 0; i < s->setting_count; i++) {
        mp_sha256_update(&h, s->settings[i].key, strlen(s->settings[i].key) + 1);
        mp_sha256_update(&h, s->settings[i].value, strlen(s->settings[i].value) + 1);
    }
    mp_sha256_final(&h, cell->hash);
}

static int count_nodes(const mp_yaml *node)
{
    int n = 1;

    if (node->kind == MP_YAML_LIST || node->kind == MP_YAML_MAP)
        for (int i = 0; i < node->count; i++)
            n += count_nodes(node->items[i]);
    return n;
}

/* The scenario's tree with the combination's values at their places. */
static mp_code put_values(builder *b, const mp_yaml *root, const mp_combination *c, mp_yaml **out)
{
    *out = mp_yaml_copy(b->arena, root);
    for (int i = 0; i < c->count; i++) {
        const mp_yaml *found = NULL;
        if (!mp_scenario_put(b->arena, *out, c->keys[i]->text, mp_yaml_copy(b->arena, c->values[i]),
                             &found))
            return mp_yaml_fail(b->err, c->keys[i], "matrix.%s: %s stands in its way at %s:%d",
                                c->keys[i]->text, mp_yaml_describe(b->arena, found), found->file,
                                found->line);
    }
    return MP_OK;
}

/* By the values as written; then, where the combination is a whole scenario already, by what they
 * mean.  It may lack what only include gives, and then its errors count for nothing. */
static mp_code excluded(builder *b, const mp_yaml *root, const mp_yaml *list,
                        const mp_combination *c, bool *out)
{
    mp_scenario s;
    mp_error ignored = {0};
    mp_yaml *tree;

    *out = false;
    for (int i = 0; i < list->count && !*out; i++)
        *out = mp_matrix_equals(c, list->items[i]);
    if (*out || put_values(b, root, c, &tree))
        return b->err->code;
    if (mp_scenario_build(b->arena, tree, &s, &ignored))
        return MP_OK;
    for (int i = 0; i < list->count && !*out; i++)
        if (mp_scenario_matches(b->arena, &s, list->items[i], out, b->err))
            return b->err->code;
    return MP_OK;
}

/* The matrix's combinations: product, less exclude, with include. */
static mp_code combine(builder *b, mp_yaml *root, mp_matrix *m)
{
    int kept = 0;

    if (mp_matrix_product(b->arena, root, m, b->err))
        return b->err->code;
    mp_yaml_remove(root, "matrix");
    if ((int64_t)count_nodes(root) * m->count > MAX_VALUES)
        return mp_yaml_fail(b->err, root, "%d cells of %d values each; split the file", m->count,
                            count_nodes(root));
    for (int i = 0; m->exclude && i < m->count; i++) {
        bool out;
        if (excluded(b, root, m->exclude, &m->items[i], &out))
            return b->err->code;
        if (!out)
            m->items[kept++] = m->items[i];
    }
    m->count = m->exclude ? kept : m->count;
    mp_matrix_include(b->arena, m);
    return MP_OK;
}

/* A cell that computes what another does is dropped; two that differ need two ids. */
static mp_code is_new(builder *b, const cell_list *list, const mp_cell *cell, bool *out)
{
    *out = false;
    for (int i = 0; i < list->count; i++) {
        if (mp_scenario_same(&list->cells[i].scenario, &cell->scenario))
            return MP_OK;
        if (!strcmp(list->cells[i].id, cell->id))
            return mp_error_set(b->err, MP_EUSAGE,
                                "%s: two cells are called \"%s\": one of %s and one of %s; give "
                                "one of the two folders another name",
                                cell->scenario.file, mp_plain(cell->id).text,
                                list->cells[i].scenario.request.checkpoint,
                                cell->scenario.request.checkpoint);
    }
    *out = true;
    return MP_OK;
}

static mp_code build_cell(builder *b, const mp_yaml *root, const mp_combination *c, cell_list *list)
{
    mp_cell cell = {0};
    mp_yaml *tree;
    bool keep;

    if (put_values(b, root, c, &tree) || mp_scenario_build(b->arena, tree, &cell.scenario, b->err))
        return b->err->code;
    if (b->options->repeat >= 0)
        cell.scenario.repeat = b->options->repeat;
    if (b->options->warmup >= 0)
        cell.scenario.warmup = b->options->warmup;
    name_cell(b, &cell, c);
    hash_cell(&cell);
    if (is_new(b, list, &cell, &keep) || !keep)
        return b->err->code;
    list->from[list->count] = *c;
    list->cells[list->count++] = cell;
    return MP_OK;
}

/* Every key of the combinations by which a cell can be chosen, in order of appearance. */
static void collect_keys(mp_arena *a, const mp_matrix *m, cell_list *list)
{
    int room = 0;

    for (int i = 0; i < m->count; i++)
        for (int k = 0; k < m->items[i].count; k++) {
            const mp_yaml *key = m->items[i].keys[k];
            bool known = !mp_schema_result(key->text);
            for (int j = 0; j < list->key_count && !known; j++)
                known = !strcmp(list->keys[j]->text, key->text);
            if (known)
                continue;
            list->keys = with_room(a, list->keys, list->key_count, &room, sizeof *list->keys);
            list->keys[list->key_count++] = key;
        }
}

static void add_cell(builder *b, const mp_cell *cell)
{
    mp_plan *p = b->plan;

    p->cells = with_room(b->arena, p->cells, p->count, &b->room, sizeof *p->cells);
    p->cells[p->count++] = *cell;
}

static mp_code add_cells(builder *b, mp_yaml *root)
{
    cell_list list = {0};
    mp_matrix m;

    if (combine(b, root, &m))
        return b->err->code;
    list.cells = mp_arena_alloc(b->arena, (size_t)m.count, sizeof *list.cells);
    list.from = mp_arena_alloc(b->arena, (size_t)m.count, sizeof *list.from);
    collect_keys(b->arena, &m, &list);
    for (int i = 0; i < m.count; i++)
        if (build_cell(b, root, &m.items[i], &list))
            return b->err->code;
    for (int i = 0; i < list.count; i++) {
        bool in;
        if (selected(b, &list.cells[i].scenario, &in))
            return b->err->code;
        if (!in)
            continue;
        write_repro(b, &list.cells[i], &list, &list.from[i]);
        add_cell(b, &list.cells[i]);
    }
    return MP_OK;
}

/* Names are folders of --dump and what the database tells scenarios apart by. */
static mp_code check_name(builder *b, int file, const mp_yaml *root)
{
    const mp_yaml *name = mp_yaml_get(root, "name");

    if (!name || name->kind != MP_YAML_SCALAR)
        return MP_OK; /* the scenario's own message says more */
    b->files[file].name = name->text;
    for (int i = 0; i < file; i++)
        if (b->files[i].name && !strcmp(b->files[i].name, name->text))
            return mp_error_set(b->err, MP_EUSAGE,
                                "%s: the name '%s' is also %s's; give one of them another name",
                                b->files[file].path, mp_plain(name->text).text, b->files[i].path);
    return MP_OK;
}

static mp_code add_scenario(builder *b, int file)
{
    mp_yaml *root;

    if (mp_yaml_read(b->arena, b->files[file].path, &root, b->err))
        return b->err->code;
    if (root->kind != MP_YAML_MAP)
        return mp_yaml_fail(b->err, root,
                            "found %s, expected a map with name, pipeline, "
                            "checkpoint and inputs",
                            mp_yaml_describe(b->arena, root));
    if (mp_schema_check(root, "", b->err) || check_name(b, file, root) || apply_set(b, root))
        return b->err->code;
    return add_cells(b, root);
}

/* The value of the first input of the file that a message names, or NULL. */
static const mp_yaml *named_input(const mp_scenario *s, const char *text)
{
    const mp_yaml *const map = mp_yaml_get(s->root, "inputs");

    for (int i = 0; map && i < map->count; i++)
        if (strstr(text, map->keys[i]->text))
            return map->items[i];
    return NULL;
}

/* What the engine can say from the checkpoint's files, once for each cell. */
static mp_code check_cells(builder *b)
{
    for (int i = 0; i < b->plan->count; i++) {
        const mp_scenario *s = &b->plan->cells[i].scenario;
        mp_error why = {0};
        if (!b->options->check(s, &why))
            continue;
        const mp_yaml *const input = why.code == MP_EUSAGE ? named_input(s, why.text) : NULL;
        if (input)
            return mp_yaml_fail(b->err, input, "cell %s: %s", b->plan->cells[i].id, why.text);
        return mp_error_set(b->err, why.code, "%s: cell %s: %s", s->file, b->plan->cells[i].id,
                            why.text);
    }
    return MP_OK;
}

mp_code mp_plan_make(mp_arena *a, const mp_plan_options *o, mp_plan *out, mp_error *err)
{
    builder b = {.arena = a, .options = o, .err = err, .plan = out};
    mp_sha256 h;

    *out = (mp_plan){0};
    if (find_files(&b))
        return err->code;
    for (int i = 0; i < b.file_count; i++)
        if (add_scenario(&b, i))
            return err->code;
    if (!out->count)
        return mp_error_set(err, MP_EUSAGE,
                            o->only.count ? "no cell matches --only; see the cells with --dry-run "
                                            "and without --only"
                                          : "the files have no cells: exclude drops them all");
    if (check_cells(&b))
        return err->code;
    mp_shard_take(a, &o->shard, out);
    mp_sha256_init(&h);
    for (int i = 0; i < out->count; i++) {
        mp_sha256_update(&h, out->cells[i].key, strlen(out->cells[i].key) + 1);
        mp_sha256_update(&h, out->cells[i].hash, 64);
    }
    mp_sha256_final(&h, out->hash);
    return MP_OK;
}
