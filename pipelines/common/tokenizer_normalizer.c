#include "pipelines/common/tokenizer_normalizer.h"

#include <string.h>

#include <utf8proc.h>

#include "kernels/core/memory.h"
#include "pipelines/common/tokenizer_pattern.h"
#include "pipelines/common/tokenizer_precompiled.h"

typedef enum kind { SEQUENCE, FORM, LOWERCASE, STRIP, REPLACE, PREPEND, PRECOMPILED } kind;

struct mp_normalizer {
    kind kind;
    char *path;
    utf8proc_option_t form;
    bool left, right; /* STRIP */
    char *content;    /* REPLACE: by what; PREPEND: what */
    mp_pattern *pattern;
    mp_charsmap charsmap;
    mp_normalizer **parts; /* SEQUENCE */
    size_t count;
};

static const struct {
    const char *name;
    kind kind;
    utf8proc_option_t form;
} kinds[] = {
    {"Sequence", SEQUENCE, 0},
    {"NFC", FORM, UTF8PROC_COMPOSE},
    {"NFD", FORM, UTF8PROC_DECOMPOSE},
    {"NFKC", FORM, UTF8PROC_COMPOSE | UTF8PROC_COMPAT},
    {"NFKD", FORM, UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT},
    {"Lowercase", LOWERCASE, 0},
    {"Strip", STRIP, 0},
    {"Replace", REPLACE, 0},
    {"Prepend", PREPEND, 0},
    {"Precompiled", PRECOMPILED, 0},
};

void mp_normalizer_free(mp_normalizer *n)
{
    if (!n)
        return;
    for (size_t i = 0; i < n->count; i++)
        mp_normalizer_free(n->parts[i]);
    mp_free(n->parts);
    mp_charsmap_free(&n->charsmap);
    mp_pattern_free(n->pattern);
    mp_free(n->content);
    mp_free(n->path);
    mp_free(n);
}

static mp_code read_parts(const mp_place *at, const json_t *node, mp_normalizer *n, mp_error *err)
{
    const json_t *list = mp_field_list(at, node, "normalizers", err);
    const size_t count = json_array_size(list);

    if (err->code)
        return err->code;
    n->parts = mp_alloc(count, sizeof(mp_normalizer *));
    if (!n->parts)
        return mp_place_no_memory(at, err);
    for (size_t i = 0; i < count && !err->code; i++) {
        const mp_place place = mp_place_in(at, "normalizers", (int64_t)i);
        const json_t *part = json_array_get(list, i);
        if (!json_is_object(part))
            return mp_place_wrong(&place, "", "an object", part, err);
        mp_normalizer_read(&place, part, &n->parts[n->count++], err);
    }
    return err->code;
}

static void read_content(const mp_place *at, const json_t *node, const char *key, mp_normalizer *n,
                         mp_error *err)
{
    n->content = mp_strdup(mp_field_text(at, node, key, NULL, err));
    if (!n->content)
        mp_place_no_memory(at, err);
}

static mp_code read_fields(const mp_place *at, const json_t *node, mp_normalizer *n, mp_error *err)
{
    switch (n->kind) {
    case SEQUENCE:
        return read_parts(at, node, n, err);
    case STRIP:
        n->left = mp_field_bool(at, node, "strip_left", true, err);
        n->right = mp_field_bool(at, node, "strip_right", true, err);
        return err->code;
    case REPLACE:
        read_content(at, node, "content", n, err);
        return err->code ? err->code : mp_pattern_read(at, node, "pattern", &n->pattern, err);
    case PREPEND:
        read_content(at, node, "prepend", n, err);
        return err->code;
    case PRECOMPILED: {
        const char *map = mp_field_text(at, node, "precompiled_charsmap", NULL, err);
        return err->code ? err->code : mp_charsmap_read(at, map, &n->charsmap, err);
    }
    default:
        return MP_OK;
    }
}

mp_code mp_normalizer_read(const mp_place *at, const json_t *node, mp_normalizer **out,
                           mp_error *err)
{
    const size_t count = sizeof kinds / sizeof *kinds;
    size_t i = 0;

    *out = NULL;
    if (!node || json_is_null(node))
        return MP_OK;
    if (!json_is_object(node))
        return mp_place_wrong(at, "", "an object or null", node, err);
    const char *type = mp_field_text(at, node, "type", NULL, err);
    if (err->code || mp_place_depth(at, err))
        return err->code;
    while (i < count && strcmp(kinds[i].name, type))
        i++;
    if (i == count)
        return mp_place_unknown(at, "normalizer", type, err);
    mp_normalizer *n = mp_alloc(1, sizeof *n);
    if (!n || !(n->path = mp_strdup(at->path))) {
        mp_normalizer_free(n);
        return mp_place_no_memory(at, err);
    }
    n->kind = kinds[i].kind;
    n->form = kinds[i].form;
    if (read_fields(at, node, n, err))
        mp_normalizer_free(n);
    else
        *out = n;
    return err->code;
}

static size_t first_length(const char *text, size_t n)
{
    return n ? (size_t)mp_utf8_length(*text) : 0;
}

/* Unicode's normalization forms. */
static void run_form(const mp_normalizer *n, mp_text *text, size_t *origin, mp_text *out)
{
    const utf8proc_option_t options = n->form | UTF8PROC_STABLE;
    const utf8proc_uint8_t *from = (const utf8proc_uint8_t *)text->bytes;
    const utf8proc_ssize_t size = (utf8proc_ssize_t)text->n;
    const utf8proc_ssize_t count = utf8proc_decompose(from, size, NULL, 0, options);
    int32_t *points = count < 0 ? NULL : mp_alloc((size_t)count + 1, sizeof *points);

    if (!points) {
        out->failed = true;
        return;
    }
    utf8proc_decompose(from, size, points, count, options);
    const utf8proc_ssize_t bytes = utf8proc_reencode(points, count, options);
    if (bytes < 0)
        out->failed = true;
    else
        mp_text_append(out, (const char *)points, (size_t)bytes);
    mp_free(points);
    if (*origin && !out->failed)
        *origin = first_length(out->bytes, out->n);
}

/* As `tokenizers` 0.23 has it (Unicode 17), also where utf8proc is older. */
static int32_t lower(int32_t c)
{
    static const struct {
        int32_t first, last, step, by; /* every step-th of them is an upper case */
    } newer[] = {{0x1c89, 0x1c89, 1, 1},      {0xa7cb, 0xa7cb, 1, 0x264 - 0xa7cb},
                 {0xa7cc, 0xa7ce, 2, 1},      {0xa7d2, 0xa7d4, 2, 1},
                 {0xa7da, 0xa7da, 1, 1},      {0xa7dc, 0xa7dc, 1, 0x19b - 0xa7dc},
                 {0x10d50, 0x10d65, 1, 0x20}, {0x16ea0, 0x16eb8, 1, 0x1b}};

    for (size_t i = 0; i < sizeof newer / sizeof *newer; i++)
        if (c >= newer[i].first && c <= newer[i].last && (c - newer[i].first) % newer[i].step == 0)
            return c + newer[i].by;
    return utf8proc_tolower(c);
}

static void run_lowercase(const mp_text *text, size_t *origin, mp_text *out)
{
    const size_t from = *origin;

    for (size_t i = 0; i < text->n; i += (size_t)mp_utf8_length(text->bytes[i])) {
        const int32_t c = mp_utf8_decode(text->bytes + i);
        if (c == 0x130) /* the one character whose lower case is two */
            mp_text_append(out, "i\xcc\x87", 3);
        else
            mp_text_append_char(out, lower(c));
        if (i < from)
            *origin = out->n;
    }
}

static void run_strip(const mp_normalizer *n, const mp_text *text, size_t *origin, mp_text *out)
{
    size_t start = 0, end = text->n;

    while (n->left && start < end && mp_utf8_space(mp_utf8_decode(text->bytes + start)))
        start += (size_t)mp_utf8_length(text->bytes[start]);
    for (size_t before; n->right && end > start; end = before) {
        before = mp_utf8_before(text->bytes, end);
        if (!mp_utf8_space(mp_utf8_decode(text->bytes + before)))
            break;
    }
    mp_text_append(out, text->bytes + start, end - start);
    *origin = *origin > start ? *origin - start : 0;
}

/* What replaces a match stems from where the match's last byte does. */
static void run_replace(const mp_normalizer *n, const mp_text *text, size_t *origin, mp_text *out,
                        mp_error *err)
{
    const size_t content = strlen(n->content), from = *origin;
    size_t start, end, last = 0;
    mp_matches m;

    if (mp_matches_open(n->pattern, &m, err))
        return;
    mp_matches_start(&m, text->bytes, text->n);
    while (mp_matches_next(&m, &start, &end, err)) {
        mp_text_append(out, text->bytes + last, start - last);
        mp_text_append(out, n->content, content);
        if (end <= from)
            *origin = out->n + from - end;
        else if (start < from)
            *origin = out->n - content;
        last = end;
    }
    mp_text_append(out, text->bytes + last, text->n - last);
    mp_matches_close(&m);
}

static void run_prepend(const mp_normalizer *n, const mp_text *text, size_t *origin, mp_text *out)
{
    if (text->n) {
        mp_text_append(out, n->content, strlen(n->content));
        *origin += *origin ? strlen(n->content) : 0;
    }
    mp_text_append(out, text->bytes, text->n);
}

static mp_code run_parts(const mp_normalizer *n, mp_text *text, size_t *origin, mp_error *err)
{
    for (size_t i = 0; i < n->count && !err->code; i++)
        mp_normalizer_run(n->parts[i], text, origin, err);
    return err->code;
}

static void run_one(const mp_normalizer *n, mp_text *text, size_t *origin, mp_text *out,
                    mp_error *err)
{
    switch (n->kind) {
    case FORM:
        run_form(n, text, origin, out);
        break;
    case LOWERCASE:
        run_lowercase(text, origin, out);
        break;
    case STRIP:
        run_strip(n, text, origin, out);
        break;
    case REPLACE:
        run_replace(n, text, origin, out, err);
        break;
    case PREPEND:
        run_prepend(n, text, origin, out);
        break;
    case PRECOMPILED:
        mp_charsmap_run(&n->charsmap, text->bytes, text->n, out);
        *origin = *origin ? first_length(out->bytes, out->n) : 0;
        break;
    default:
        break;
    }
}

mp_code mp_normalizer_run(const mp_normalizer *n, mp_text *text, size_t *origin, mp_error *err)
{
    mp_text out = {0};

    if (!n || !text->n)
        return err->code;
    if (n->kind == SEQUENCE)
        return run_parts(n, text, origin, err);
    mp_text_append(&out, "", 0);
    if (!out.failed)
        run_one(n, text, origin, &out, err);
    if (out.failed)
        mp_error_set(err, MP_ENOMEM, "%s: no memory to normalize %zu bytes", n->path, text->n);
    mp_free(text->bytes);
    *text = out;
    return err->code;
}
