#include "harness/plan.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "harness/matrix.h"
#include "harness/scenario_schema.h"
#include "results/metrics.h"

enum { MAX_FOLDER = 120, MAX_DEPTH = 8 };

typedef struct builder {
    mp_arena *arena;
    const mp_plan_options *options;
    mp_error *err;
    const char **files;
    int file_count, file_room;
    mp_plan *plan;
    int room;
} builder;

/* ---- files ---------------------------------------------------------------------------------- */

static void add_file(builder *b, const char *path)
{
    if (b->file_count == b->file_room) {
        const int room = b->file_room ? 2 * b->file_room : 16;
        const char **files = mp_arena_alloc(b->arena, (size_t)room, sizeof *files);
        memcpy(files, b->files, (size_t)b->file_count * sizeof *files);
        b->files = files;
        b->file_room = room;
    }
    b->files[b->file_count++] = path;
}

static bool is_scenario_name(const char *name)
{
    const char *dot = strrchr(name, '.');

    return name[0] != '.' && dot && (!strcmp(dot, ".yaml") || !strcmp(dot, ".yml"));
}

static int by_name(const struct dirent **x, const struct dirent **y)
{
    return strcmp((*x)->d_name, (*y)->d_name);
}

static void add_folder(builder *b, const char *path, int depth)
{
    struct dirent **entries;
    const int n = depth < MAX_DEPTH ? scandir(path, &entries, NULL, by_name) : 0;

    if (n < 0)
        mp_error_set(b->err, MP_EUSAGE, "%s: %s; expected a readable folder", path,
                     strerror(errno));
    for (int i = 0; i < n; i++) {
        const char *inner = mp_arena_printf(b->arena, "%s/%s", path, entries[i]->d_name);
        struct stat st;
        if (entries[i]->d_name[0] != '.' && !stat(inner, &st)) {
            if (S_ISDIR(st.st_mode))
                add_folder(b, inner, depth + 1);
            else if (is_scenario_name(inner))
                add_file(b, inner);
        }
        free(entries[i]);
    }
    if (n >= 0 && depth < MAX_DEPTH)
        free(entries);
}

static mp_code find_files(builder *b)
{
    for (int i = 0; i < b->options->paths.count && !b->err->code; i++) {
        const char *path = b->options->paths.items[i];
        const int before = b->file_count;
        struct stat st;
        if (stat(path, &st))
            return mp_error_set(b->err, MP_EUSAGE,
                                "%s: %s; expected a scenario file or a folder of them", path,
                                strerror(errno));
        if (!S_ISDIR(st.st_mode)) {
            add_file(b, path);
            continue;
        }
        size_t n = strlen(path);
        while (n > 1 && path[n - 1] == '/')
            n--;
        add_folder(b, mp_arena_strndup(b->arena, path, n), 0);
        if (!b->err->code && b->file_count == before)
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
                            "%s %.80s: expected KEY=VAL, such as precision.default=bf16", option,
                            text);
    *key = mp_arena_alloc(b->arena, 1, sizeof **key);
    **key = (mp_yaml){.kind = MP_YAML_SCALAR,
                      .file = option,
                      .line = 1,
                      .column = 1,
                      .text = mp_arena_strndup(b->arena, text, (size_t)(equals - text))};
    return mp_yaml_parse(b->arena, option, equals + 1, strlen(equals + 1), value, b->err);
}

/* Values given in the matrix for this key, or for keys around or below it, give way. */
static void drop_axes(mp_yaml *root, const char *key)
{
    mp_yaml *matrix = mp_yaml_get(root, "matrix");
    const size_t n = strlen(key);

    for (int i = 0; matrix && matrix->kind == MP_YAML_MAP && i < matrix->count;) {
        const char *axis = matrix->keys[i]->text;
        const size_t m = strlen(axis), shorter = m < n ? m : n;
        const bool same =
            !strncmp(axis, key, shorter) && (m == n || (m < n ? key[m] : axis[n]) == '.');
        if (same)
            mp_yaml_remove(matrix, axis);
        else
            i++;
    }
    if (matrix && matrix->kind == MP_YAML_MAP && !matrix->count)
        mp_yaml_remove(root, "matrix");
}

static mp_code apply_set(builder *b, mp_yaml *root)
{
    for (int i = 0; i < b->options->set.count; i++) {
        mp_yaml *key, *value;
        const mp_yaml *found = NULL;
        if (parse_value(b, "--set", b->options->set.items[i], &key, &value) ||
            mp_schema_check_dotted(key->text, false, key, b->err))
            return b->err->code;
        drop_axes(root, key->text);
        if (!mp_yaml_put(b->arena, root, key->text, value, &found))
            return mp_yaml_fail(b->err, found, "--set %s: %s stands in its way here", key->text,
                                mp_yaml_describe(b->arena, found));
    }
    return MP_OK;
}

/* "a=1,b=[2, 3]" cut at its outer commas that begin another KEY=. */
static const char *next_condition(mp_arena *a, const char **rest)
{
    const char *s = *rest;
    int depth = 0;
    size_t n = 0;

    for (; s[n]; n++) {
        depth += s[n] == '[' || s[n] == '{';
        depth -= s[n] == ']' || s[n] == '}';
        if (s[n] == ',' && depth == 0 && strchr(s + n, '='))
            break;
    }
    *rest = s[n] ? s + n + 1 : s + n;
    return mp_arena_strndup(a, s, n);
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
        mp_text_printf(&id, "%s%s=", i ? "," : "", key);
        if (value)
            mp_text_add(&id, value);
        else
            mp_yaml_write(&id, c->values[i]); /* a key that is no setting: repeat */
    }
    cell->id = id.length ? mp_text_take(&id, b->arena) : "default";
    mp_text_free(&id);
    cell->key = mp_arena_printf(b->arena, "%s/%s", cell->scenario.name, cell->id);
    cell->folder = folder_name(b->arena, cell->id);
}

static void write_repro(builder *b, mp_cell *cell, const mp_combination *c)
{
    const mp_plan_options *o = b->options;
    mp_text t = {0};

    mp_text_add(&t, "mpbench run ");
    mp_text_shell(&t, cell->scenario.file);
    for (int i = 0; i < o->set.count; i++) {
        mp_text_add(&t, " --set ");
        mp_text_shell(&t, o->set.items[i]);
    }
    for (int i = 0; i < c->count; i++) {
        mp_text word = {0};
        const mp_schema_key *k = mp_schema_find("", c->keys[i]->text);
        if (k && !k->result)
            continue; /* nothing can be chosen by it */
        mp_text_printf(&word, "%s=", c->keys[i]->text);
        mp_yaml_write(&word, c->values[i]);
        mp_text_add(&t, " --only ");
        mp_text_shell(&t, word.data);
        mp_text_free(&word);
    }
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

static mp_code excluded(builder *b, const mp_yaml *list, const mp_scenario *s, bool *out)
{
    *out = false;
    for (int i = 0; list && i < list->count && !*out; i++)
        if (mp_scenario_matches(b->arena, s, list->items[i], out, b->err))
            return b->err->code;
    return MP_OK;
}

static bool known(const mp_plan *p, const mp_cell *cell)
{
    for (int i = 0; i < p->count; i++)
        if (!strcmp(p->cells[i].key, cell->key) ||
            (!strcmp(p->cells[i].scenario.name, cell->scenario.name) &&
             mp_scenario_same(&p->cells[i].scenario, &cell->scenario)))
            return true;
    return false;
}

static void add_cell(builder *b, const mp_cell *cell)
{
    mp_plan *p = b->plan;

    if (p->count == b->room) {
        b->room = b->room ? 2 * b->room : 16;
        mp_cell *cells = mp_arena_alloc(b->arena, (size_t)b->room, sizeof *cells);
        if (p->count)
            memcpy(cells, p->cells, (size_t)p->count * sizeof *cells);
        p->cells = cells;
    }
    p->cells[p->count++] = *cell;
}

static mp_code build_cell(builder *b, const mp_yaml *root, const mp_matrix *m,
                          const mp_combination *c)
{
    mp_yaml *tree = mp_yaml_copy(b->arena, root);
    mp_cell cell = {0};
    bool out, in;

    mp_yaml_remove(tree, "matrix");
    for (int i = 0; i < c->count; i++) {
        const mp_yaml *found = NULL;
        if (!mp_yaml_put(b->arena, tree, c->keys[i]->text, mp_yaml_copy(b->arena, c->values[i]),
                         &found))
            return mp_yaml_fail(b->err, c->keys[i], "matrix.%s: %s stands in its way at %s:%d",
                                c->keys[i]->text, mp_yaml_describe(b->arena, found), found->file,
                                found->line);
    }
    if (mp_scenario_build(b->arena, tree, &cell.scenario, b->err) ||
        excluded(b, m->exclude, &cell.scenario, &out))
        return b->err->code;
    if (out || selected(b, &cell.scenario, &in) || !in)
        return b->err->code;
    if (b->options->repeat >= 0)
        cell.scenario.repeat = b->options->repeat;
    if (b->options->warmup >= 0)
        cell.scenario.warmup = b->options->warmup;
    name_cell(b, &cell, c);
    if (known(b->plan, &cell))
        return MP_OK;
    write_repro(b, &cell, c);
    hash_cell(&cell);
    add_cell(b, &cell);
    return MP_OK;
}

static mp_code check_name(builder *b, const char *file, int first)
{
    const mp_plan *p = b->plan;

    for (int i = 0; i < first && first < p->count; i++)
        if (!strcmp(p->cells[i].scenario.name, p->cells[first].scenario.name))
            return mp_error_set(b->err, MP_EUSAGE,
                                "%s: the name '%s' is also %s's; give one of them another name",
                                file, p->cells[i].scenario.name, p->cells[i].scenario.file);
    return MP_OK;
}

static mp_code add_scenario(builder *b, const char *file)
{
    const int first = b->plan->count;
    mp_yaml *root;
    mp_matrix m;

    if (mp_yaml_read(b->arena, file, &root, b->err))
        return b->err->code;
    if (root->kind != MP_YAML_MAP)
        return mp_yaml_fail(b->err, root,
                            "found %s, expected a map with name, pipeline, "
                            "checkpoint and inputs",
                            mp_yaml_describe(b->arena, root));
    if (mp_schema_check(root, "", b->err) || apply_set(b, root) ||
        mp_matrix_expand(b->arena, root, &m, b->err))
        return b->err->code;
    for (int i = 0; i < m.count; i++)
        if (build_cell(b, root, &m, &m.items[i]))
            return b->err->code;
    return check_name(b, file, first);
}

/* What the pipeline can say from the checkpoint's configs, once for each cell. */
static mp_code check_cells(builder *b)
{
    for (int i = 0; i < b->plan->count; i++) {
        const mp_scenario *s = &b->plan->cells[i].scenario;
        mp_error why = {0};
        if (s->pipeline->check(&s->request, &why))
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
        if (add_scenario(&b, b.files[i]))
            return err->code;
    if (!out->count)
        return mp_error_set(err, MP_EUSAGE,
                            o->only.count ? "no cell matches --only; see the cells with --dry-run "
                                            "and without --only"
                                          : "the files have no cells: exclude drops them all");
    if (check_cells(&b))
        return err->code;
    mp_sha256_init(&h);
    for (int i = 0; i < out->count; i++) {
        mp_sha256_update(&h, out->cells[i].key, strlen(out->cells[i].key) + 1);
        mp_sha256_update(&h, out->cells[i].hash, 64);
    }
    mp_sha256_final(&h, out->hash);
    return MP_OK;
}
