#include "harness/yaml_node.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <yaml.h>

#include "pipelines/common/file.h"

/* Limits on what a scenario may be: far above any real one. */
enum { MAX_BYTES = 1 << 20, MAX_NODES = 100000, MAX_DEPTH = 64, MAX_KEYS = 1000 };

typedef struct reader {
    mp_arena *arena;
    const char *file;
    yaml_document_t *document;
    int nodes;
    mp_error *err;
} reader;

/* ---- characters ----------------------------------------------------------------------------- */

/* The character at s, U+FFFD for bytes that are no UTF-8; *n is their number. */
static unsigned decode(const char *s, int *n)
{
    const unsigned char *const b = (const unsigned char *)s;
    const int length = *b < 0x80 ? 1 : *b < 0xc2 ? 0 : *b < 0xe0 ? 2 : *b < 0xf0 ? 3 : 4;
    unsigned c = length == 1 ? *b : *b & (0x7fu >> length);

    *n = 1;
    for (int i = 1; i < length; i++) {
        if ((b[i] & 0xc0) != 0x80)
            return 0xfffd;
        c = c << 6 | (b[i] & 0x3f);
    }
    if (!length || (length == 3 && c < 0x800) || (c >= 0xd800 && c < 0xe000) ||
        (length == 4 && (c < 0x10000 || c > 0x10ffff)))
        return 0xfffd;
    *n = length;
    return c;
}

static bool valid_utf8(const char *text)
{
    int n;

    for (const char *s = text; *s; s += n)
        if (decode(s, &n) == 0xfffd && n == 1)
            return false;
    return true;
}

/* ---- messages ------------------------------------------------------------------------------- */

/* What is quoted from a file must not steer the terminal. */
static void hide_controls(char *text)
{
    int n;

    for (char *s = text; *s; s += n) {
        const unsigned c = decode(s, &n);
        if (c < 0x20 || (c >= 0x7f && c < 0xa0) || (c == 0xfffd && n == 1))
            memset(s, '?', (size_t)n);
    }
}

mp_code mp_yaml_fail(mp_error *err, const mp_yaml *at, const char *format, ...)
{
    char text[MP_ERROR_TEXT];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    hide_controls(text);
    if (!at || !at->line)
        return mp_error_set(err, MP_EUSAGE, "%s: %s", at ? at->file : "scenario", text);
    return mp_error_set(err, MP_EUSAGE, "%s:%d:%d: %s", at->file, at->line, at->column, text);
}

const char *mp_yaml_describe(mp_arena *a, const mp_yaml *node)
{
    if (!node)
        return "nothing";
    switch (node->kind) {
    case MP_YAML_NULL:
        return "nothing";
    case MP_YAML_LIST:
        return mp_arena_printf(a, "a list of %d", node->count);
    case MP_YAML_MAP:
        return "a map";
    case MP_YAML_SCALAR:
        break;
    }
    double number;
    const mp_yaml plain = {.kind = MP_YAML_SCALAR, .text = node->text};
    const bool looks_otherwise = node->quoted && mp_yaml_number(&plain, &number);
    return mp_arena_printf(a, "%s\"%s\"%s", looks_otherwise ? "the text " : "",
                           mp_plain(node->text).text, looks_otherwise ? " in quotes" : "");
}

/* Edits (insert, delete, replace, swap of neighbours) between two short words. */
static int edit_distance(const char *a, const char *b)
{
    enum { LONGEST = 63 };
    int row[3][LONGEST + 1];
    const int n = (int)strlen(a), m = (int)strlen(b);

    if (n > LONGEST || m > LONGEST)
        return INT_MAX;
    for (int j = 0; j <= m; j++)
        row[0][j] = j;
    for (int i = 1; i <= n; i++) {
        int *const now = row[i % 3], *const up = row[(i + 2) % 3], *const up2 = row[(i + 1) % 3];
        now[0] = i;
        for (int j = 1; j <= m; j++) {
            int best = up[j - 1] + (a[i - 1] != b[j - 1]);
            best = up[j] + 1 < best ? up[j] + 1 : best;
            best = now[j - 1] + 1 < best ? now[j - 1] + 1 : best;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                up2[j - 2] + 1 < best)
                best = up2[j - 2] + 1;
            now[j] = best;
        }
    }
    return row[n % 3][m];
}

const char *mp_nearest(const char *text, const char *const *names, int n)
{
    const char *best = NULL;
    int least = (int)strlen(text) / 3 + 2; /* one slip in three letters, and one more */

    for (int i = 0; i < n; i++) {
        const int d = edit_distance(text, names[i]);
        if (d < least) {
            least = d;
            best = names[i];
        }
    }
    return best;
}

/* ---- reading -------------------------------------------------------------------------------- */

static mp_yaml *new_node(reader *r, const yaml_node_t *from, mp_yaml_kind kind)
{
    mp_yaml *n = mp_arena_alloc(r->arena, 1, sizeof *n);

    n->kind = kind;
    n->file = r->file;
    n->line = (int)from->start_mark.line + 1;
    n->column = (int)from->start_mark.column + 1;
    return n;
}

static bool name_char(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
}

/* Replaces one ${...} that begins at p; returns what follows it, NULL after an error. */
static const char *expand_one(reader *r, const mp_yaml *node, const char *p, mp_text *out)
{
    const char *name = p + 2, *end = name;

    while (name_char(*end))
        end++;
    const bool has_default = end[0] == ':' && end[1] == '-';
    const char *close = strchr(end, '}'), *inner = strstr(end, "${");
    if (end == name || !close || (*end != '}' && !has_default) || (inner && inner < close)) {
        mp_yaml_fail(r->err, node,
                     "\"%s\" is no variable; write ${NAME} or ${NAME:-default}, and $${ for the "
                     "characters themselves",
                     mp_plain(p).text);
        return NULL;
    }
    const char *variable = mp_arena_strndup(r->arena, name, (size_t)(end - name));
    const char *value = getenv(variable);
    if (value && !valid_utf8(value)) {
        mp_yaml_fail(r->err, node, "the environment variable %s is not UTF-8", variable);
        return NULL;
    }
    if (value && (*value || !has_default))
        mp_text_add(out, value);
    else if (has_default)
        mp_text_add_n(out, end + 2, (size_t)(close - end - 2));
    else {
        mp_yaml_fail(r->err, node,
                     "the environment variable %s is not set; set it, or give a default as "
                     "${%s:-default}",
                     variable, variable);
        return NULL;
    }
    return close + 1;
}

static const char *expand(reader *r, const mp_yaml *node, const char *text)
{
    mp_text out = {0};

    if (!strstr(text, "${"))
        return text;
    for (const char *p = text; p && *p;) {
        if (!strncmp(p, "$${", 3)) {
            mp_text_add(&out, "${");
            p += 3;
        } else if (!strncmp(p, "${", 2)) {
            p = expand_one(r, node, p, &out);
        } else {
            mp_text_add_n(&out, p++, 1);
        }
    }
    return mp_text_take(&out, r->arena);
}

static mp_yaml *read_scalar(reader *r, const yaml_node_t *from)
{
    mp_yaml *n = new_node(r, from, MP_YAML_SCALAR);
    const size_t length = from->data.scalar.length;

    n->text = mp_arena_strndup(r->arena, (const char *)from->data.scalar.value, length);
    n->quoted = from->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    if (strlen(n->text) != length) {
        mp_yaml_fail(r->err, n, "a text with a zero byte in it; expected one without");
        return n;
    }
    n->text = expand(r, n, n->text);
    if (mp_yaml_is_null(n))
        n->kind = MP_YAML_NULL;
    return n;
}

static mp_yaml *read_node(reader *r, int id, int depth);

static void add_pair(reader *r, mp_yaml *map, const yaml_node_pair_t *pair, int depth)
{
    const yaml_node_t *from = yaml_document_get_node(r->document, pair->key);

    if (!from || from->type != YAML_SCALAR_NODE) {
        mp_yaml_fail(r->err, map, "a key of this map is no plain word");
        return;
    }
    mp_yaml *key = new_node(r, from, MP_YAML_SCALAR);
    key->text =
        mp_arena_strndup(r->arena, (const char *)from->data.scalar.value, from->data.scalar.length);
    if (strlen(key->text) != from->data.scalar.length) {
        mp_yaml_fail(r->err, key, "a key with a zero byte in it; expected a plain word");
        return;
    }
    if (!strcmp(key->text, "<<")) {
        mp_yaml_fail(r->err, key, "merge keys (<<) are not supported; write the keys out");
        return;
    }
    const mp_yaml *first = mp_yaml_key(map, key->text);
    if (first) {
        mp_yaml_fail(r->err, key, "the key '%s' is here a second time; the first is on line %d",
                     mp_plain(key->text).text, first->line);
        return;
    }
    map->keys[map->count] = key;
    mp_yaml *value = read_node(r, pair->value, depth + 1);
    map->items[map->count] = value;
    map->count += value != NULL;
}

static mp_yaml *read_map(reader *r, const yaml_node_t *from, int depth)
{
    mp_yaml *n = new_node(r, from, MP_YAML_MAP);
    const yaml_node_pair_t *const start = from->data.mapping.pairs.start;
    const size_t count = (size_t)(from->data.mapping.pairs.top - start);

    if (count > MAX_KEYS) {
        mp_yaml_fail(r->err, n, "a map of %zu keys; expected at most %d", count, (int)MAX_KEYS);
        return n;
    }
    n->keys = mp_arena_alloc(r->arena, count, sizeof *n->keys);
    n->items = mp_arena_alloc(r->arena, count, sizeof *n->items);
    for (size_t i = 0; i < count && !r->err->code; i++)
        add_pair(r, n, &start[i], depth);
    return n;
}

static mp_yaml *read_list(reader *r, const yaml_node_t *from, int depth)
{
    mp_yaml *n = new_node(r, from, MP_YAML_LIST);
    const yaml_node_item_t *const start = from->data.sequence.items.start;
    const size_t count = (size_t)(from->data.sequence.items.top - start);

    n->items = mp_arena_alloc(r->arena, count, sizeof *n->items);
    for (size_t i = 0; i < count && !r->err->code; i++) {
        n->items[n->count] = read_node(r, start[i], depth + 1);
        n->count += n->items[n->count] != NULL;
    }
    return n;
}

/* Tags that change nothing: those that a node without a tag has. */
static bool plain_tag(const yaml_node_t *from)
{
    const char *const tag = (const char *)from->tag;

    return !tag || !strcmp(tag, YAML_STR_TAG) || !strcmp(tag, YAML_SEQ_TAG) ||
           !strcmp(tag, YAML_MAP_TAG);
}

static mp_yaml *read_node(reader *r, int id, int depth)
{
    const yaml_node_t *from = yaml_document_get_node(r->document, id);
    mp_yaml here = {.file = r->file, .line = 1, .column = 1};

    if (!from)
        return NULL;
    here.line = (int)from->start_mark.line + 1;
    here.column = (int)from->start_mark.column + 1;
    if (depth > MAX_DEPTH) {
        mp_yaml_fail(r->err, &here, "nested deeper than %d levels", MAX_DEPTH);
        return NULL;
    }
    if (!plain_tag(from)) {
        mp_yaml_fail(r->err, &here, "the tag \"%s\" is not supported; write the value without it",
                     mp_plain((const char *)from->tag).text);
        return NULL;
    }
    if (++r->nodes > MAX_NODES) {
        mp_yaml_fail(r->err, &here,
                     "more than %d values, aliases counted as often as they are used",
                     (int)MAX_NODES);
        return NULL;
    }
    if (from->type == YAML_SCALAR_NODE)
        return read_scalar(r, from);
    return from->type == YAML_MAPPING_NODE ? read_map(r, from, depth) : read_list(r, from, depth);
}

/* libyaml gives the place of a byte that it cannot read as an offset only. */
static void place_of(const char *text, size_t offset, size_t *line, size_t *column)
{
    *line = *column = 0;
    for (size_t i = 0; i < offset; i++) {
        *column = text[i] == '\n' ? 0 : *column + (((unsigned char)text[i] & 0xc0) != 0x80);
        *line += text[i] == '\n';
    }
}

static mp_code parser_error(const yaml_parser_t *p, const char *name, const char *text,
                            size_t length, mp_error *err)
{
    size_t line = p->problem_mark.line, column = p->problem_mark.column;

    if (p->error == YAML_MEMORY_ERROR)
        return mp_error_set(err, MP_ENOMEM, "%s: no memory for the YAML parser", name);
    if (p->error == YAML_READER_ERROR)
        place_of(text, p->problem_offset < length ? p->problem_offset : length, &line, &column);
    return mp_error_set(err, MP_EUSAGE, "%s:%zu:%zu: this is no YAML: %s%s%s", name, line + 1,
                        column + 1, p->problem ? p->problem : "unknown problem",
                        p->context ? ", " : "", p->context ? p->context : "");
}

/* More than one document is an error: the second would be lost. */
static mp_code check_end(yaml_parser_t *parser, const char *name, const char *text, size_t length,
                         mp_error *err)
{
    yaml_document_t more;

    if (!yaml_parser_load(parser, &more))
        return parser_error(parser, name, text, length, err);
    const yaml_node_t *root = yaml_document_get_root_node(&more);
    if (root)
        mp_error_set(err, MP_EUSAGE,
                     "%s:%zu:1: a second YAML document begins here; one file is one scenario", name,
                     root->start_mark.line + 1);
    yaml_document_delete(&more);
    return err->code;
}

/* What nests too deep or is too much, before libyaml makes a document of it: that takes time that
 * grows with the square of the depth. */
static mp_code check_events(const char *name, const char *text, size_t length, mp_error *err)
{
    yaml_parser_t parser;
    bool end = false;
    int depth = 0, nodes = 0;

    if (!yaml_parser_initialize(&parser))
        return mp_error_set(err, MP_ENOMEM, "%s: no memory for the YAML parser", name);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, length);
    while (!end && !err->code) {
        yaml_event_t event;
        if (!yaml_parser_parse(&parser, &event)) {
            parser_error(&parser, name, text, length, err);
            break;
        }
        const mp_yaml at = {.file = name,
                            .line = (int)event.start_mark.line + 1,
                            .column = (int)event.start_mark.column + 1};
        const bool opens =
            event.type == YAML_SEQUENCE_START_EVENT || event.type == YAML_MAPPING_START_EVENT;
        depth += opens;
        depth -= event.type == YAML_SEQUENCE_END_EVENT || event.type == YAML_MAPPING_END_EVENT;
        nodes += opens || event.type == YAML_SCALAR_EVENT || event.type == YAML_ALIAS_EVENT;
        end = event.type == YAML_STREAM_END_EVENT;
        yaml_event_delete(&event);
        if (depth > MAX_DEPTH)
            mp_yaml_fail(err, &at, "nested deeper than %d levels", (int)MAX_DEPTH);
        else if (nodes > 2 * MAX_NODES) /* keys count here */
            mp_yaml_fail(err, &at, "more than %d values", (int)MAX_NODES);
    }
    yaml_parser_delete(&parser);
    return err->code;
}

mp_code mp_yaml_parse(mp_arena *a, const char *name, const char *text, size_t length, mp_yaml **out,
                      mp_error *err)
{
    yaml_parser_t parser;
    yaml_document_t document;
    mp_error own = {0};
    reader r = {.arena = a, .document = &document, .err = err ? err : &own};

    *out = NULL;
    if (r.err->code || check_events(name, text, length, r.err))
        return r.err->code;
    r.file = mp_arena_strdup(a, name);
    if (!yaml_parser_initialize(&parser))
        return mp_error_set(r.err, MP_ENOMEM, "%s: no memory for the YAML parser", name);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, length);
    if (!yaml_parser_load(&parser, &document)) {
        parser_error(&parser, name, text, length, r.err);
        yaml_parser_delete(&parser);
        return r.err->code;
    }
    if (yaml_document_get_root_node(&document)) {
        *out = read_node(&r, 1, 0);
        if (!r.err->code)
            check_end(&parser, name, text, length, r.err);
    } else {
        mp_error_set(r.err, MP_EUSAGE, "%s:1:1: there is no value here", name);
    }
    if (r.err->code)
        *out = NULL;
    yaml_document_delete(&document);
    yaml_parser_delete(&parser);
    return r.err->code;
}

mp_code mp_yaml_read(mp_arena *a, const char *path, mp_yaml **out, mp_error *err)
{
    FILE *f = fopen(path, "rb");
    char *text;
    mp_code code = MP_OK;

    *out = NULL;
    if (!f)
        return mp_error_set(err, MP_EUSAGE, "%s: cannot open the scenario: %s", path,
                            strerror(errno));
    text = mp_zeroed(MAX_BYTES + 1, 1);
    const size_t n = fread(text, 1, MAX_BYTES + 1, f);
    if (ferror(f))
        code =
            mp_error_set(err, MP_EUSAGE, "%s: cannot read the scenario: %s", path, strerror(errno));
    else if (n > MAX_BYTES)
        code = mp_error_set(err, MP_EUSAGE, "%s: larger than %d bytes; this is no scenario", path,
                            (int)MAX_BYTES);
    else
        code = mp_yaml_parse(a, path, text, n, out, err);
    fclose(f);
    free(text);
    return code;
}

/* ---- the tree ------------------------------------------------------------------------------- */

static int find(const mp_yaml *map, const char *key, size_t n)
{
    if (map && map->kind == MP_YAML_MAP)
        for (int i = 0; i < map->count; i++)
            if (!strncmp(map->keys[i]->text, key, n) && !map->keys[i]->text[n])
                return i;
    return -1;
}

mp_yaml *mp_yaml_get(const mp_yaml *map, const char *key)
{
    const int i = find(map, key, strlen(key));
    return i < 0 ? NULL : map->items[i];
}

const mp_yaml *mp_yaml_key(const mp_yaml *map, const char *key)
{
    const int i = find(map, key, strlen(key));
    return i < 0 ? NULL : map->keys[i];
}

mp_yaml *mp_yaml_copy(mp_arena *a, const mp_yaml *node)
{
    mp_yaml *n = mp_arena_alloc(a, 1, sizeof *n);
    const size_t count = (size_t)node->count;

    *n = *node;
    if (node->kind != MP_YAML_LIST && node->kind != MP_YAML_MAP)
        return n;
    n->items = mp_arena_alloc(a, count, sizeof *n->items);
    for (size_t i = 0; i < count; i++)
        n->items[i] = mp_yaml_copy(a, node->items[i]);
    if (node->kind == MP_YAML_MAP) {
        n->keys = mp_arena_alloc(a, count, sizeof *n->keys);
        for (size_t i = 0; i < count; i++)
            n->keys[i] = node->keys[i];
    }
    return n;
}

/* Appends key: value; the old arrays stay in the arena. */
/* A key for a value that was put there: it stands where the value was written. */
static mp_yaml *key_for(mp_arena *a, const char *key, size_t n, const mp_yaml *value)
{
    mp_yaml *name = mp_arena_alloc(a, 1, sizeof *name);

    *name = (mp_yaml){.kind = MP_YAML_SCALAR,
                      .file = value->file,
                      .line = value->line,
                      .column = value->column,
                      .text = mp_arena_strndup(a, key, n)};
    return name;
}

static void append(mp_arena *a, mp_yaml *map, const char *key, size_t n, mp_yaml *value)
{
    const size_t count = (size_t)map->count;
    mp_yaml **keys = mp_arena_alloc(a, count + 1, sizeof *keys);
    mp_yaml **items = mp_arena_alloc(a, count + 1, sizeof *items);

    if (count) {
        memcpy(keys, map->keys, count * sizeof *keys);
        memcpy(items, map->items, count * sizeof *items);
    }
    keys[count] = key_for(a, key, n, value);
    items[count] = value;
    map->keys = keys;
    map->items = items;
    map->count++;
}

bool mp_yaml_put(mp_arena *a, mp_yaml *map, const char *dotted, mp_yaml *value,
                 const mp_yaml **found)
{
    const size_t n = strcspn(dotted, ".");
    const int i = find(map, dotted, n);

    if (map->kind == MP_YAML_NULL)
        *map = (mp_yaml){
            .kind = MP_YAML_MAP, .file = map->file, .line = map->line, .column = map->column};
    if (map->kind != MP_YAML_MAP) {
        *found = map;
        return false;
    }
    if (!dotted[n]) {
        if (i >= 0) {
            map->keys[i] = key_for(a, dotted, n, value);
            map->items[i] = value;
        } else {
            append(a, map, dotted, n, value);
        }
        return true;
    }
    if (i >= 0)
        return mp_yaml_put(a, map->items[i], dotted + n + 1, value, found);
    mp_yaml *inner = mp_arena_alloc(a, 1, sizeof *inner);
    *inner = (mp_yaml){
        .kind = MP_YAML_MAP, .file = value->file, .line = value->line, .column = value->column};
    append(a, map, dotted, n, inner);
    return mp_yaml_put(a, inner, dotted + n + 1, value, found);
}

void mp_yaml_remove(mp_yaml *map, const char *key)
{
    const int at = find(map, key, strlen(key));

    if (at < 0)
        return;
    for (int i = at; i + 1 < map->count; i++) {
        map->keys[i] = map->keys[i + 1];
        map->items[i] = map->items[i + 1];
    }
    map->count--;
}

mp_yaml *mp_yaml_at(mp_yaml *map, const char *dotted)
{
    const size_t n = strcspn(dotted, ".");
    const int i = find(map, dotted, n);

    if (i < 0)
        return NULL;
    return dotted[n] ? mp_yaml_at(map->items[i], dotted + n + 1) : map->items[i];
}

/* ---- writing and scalars -------------------------------------------------------------------- */

/* One character inside double quotes.  libyaml takes no control characters as they are, and folds
 * line breaks, of which it knows five. */
static void write_char(mp_text *t, const char *s, int n, unsigned c)
{
    if (c == '"' || c == '\\')
        mp_text_printf(t, "\\%c", (char)c);
    else if (c < 0x20 || (c >= 0x7f && c < 0xa0))
        mp_text_printf(t, "\\x%02x", c);
    else if (c == 0x2028 || c == 0x2029 || c == 0xfeff || c == 0xfffe || c == 0xffff)
        mp_text_printf(t, "\\u%04x", c);
    else if (c == '$' && s[1] == '{')
        mp_text_add(t, "$$"); /* it was meant as it stands: no variable */
    else
        mp_text_add_n(t, s, (size_t)n);
}

/* Letters that mean nothing to YAML, wherever they stand. */
static bool is_plain(const char *s)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                  "_-+./()$;^~ ";
    const size_t n = strlen(s);

    return n && strspn(s, letters) == n && !strchr("-.~ ", s[0]) && s[n - 1] != ' ';
}

/* Plain when it reads back as the same text in flow style; else double quotes. */
static void write_scalar(mp_text *t, const mp_yaml *node)
{
    const char *s = node->text;
    double number;
    int n;

    if (!node->quoted && (is_plain(s) || mp_yaml_number(node, &number))) {
        mp_text_add(t, s);
        return;
    }
    mp_text_add(t, "\"");
    for (; *s; s += n) {
        const unsigned c = decode(s, &n);
        write_char(t, s, n, c);
    }
    mp_text_add(t, "\"");
}

void mp_yaml_write(mp_text *t, const mp_yaml *node)
{
    if (node->kind == MP_YAML_NULL) {
        mp_text_add(t, "null");
    } else if (node->kind == MP_YAML_SCALAR) {
        write_scalar(t, node);
    } else {
        const bool map = node->kind == MP_YAML_MAP;
        mp_text_add(t, map ? "{" : "[");
        for (int i = 0; i < node->count; i++) {
            mp_text_add(t, i ? ", " : "");
            if (map) {
                write_scalar(t, node->keys[i]);
                mp_text_add(t, ": ");
            }
            mp_yaml_write(t, node->items[i]);
        }
        mp_text_add(t, map ? "}" : "]");
    }
}

bool mp_yaml_number(const mp_yaml *node, double *out)
{
    if (!node || node->kind != MP_YAML_SCALAR || node->quoted)
        return false;
    const char *s = node->text;
    if (!*s || strspn(s, "+-.0123456789eE") != strlen(s) || !strpbrk(s, "0123456789"))
        return false;
    char *end;
    const double value = strtod(s, &end);
    if (end == s || *end || !isfinite(value))
        return false;
    *out = value;
    return true;
}

bool mp_yaml_bool(const mp_yaml *node, bool *out)
{
    static const char *const yes[] = {"true", "True", "TRUE"};
    static const char *const no[] = {"false", "False", "FALSE"};

    if (!node || node->kind != MP_YAML_SCALAR || node->quoted)
        return false;
    for (int i = 0; i < 3; i++)
        if (!strcmp(node->text, yes[i]) || !strcmp(node->text, no[i])) {
            *out = !strcmp(node->text, yes[i]);
            return true;
        }
    return false;
}

bool mp_yaml_is_null(const mp_yaml *node)
{
    if (!node || node->kind == MP_YAML_NULL)
        return true;
    if (node->kind != MP_YAML_SCALAR || node->quoted)
        return false;
    return !*node->text || !strcmp(node->text, "~") || !strcmp(node->text, "null") ||
           !strcmp(node->text, "Null") || !strcmp(node->text, "NULL");
}
