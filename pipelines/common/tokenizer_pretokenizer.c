#include "pipelines/common/tokenizer_pretokenizer.h"

#include <string.h>

#include <utf8proc.h>

#include "kernels/core/memory.h"
#include "pipelines/common/file.h"
#include "pipelines/common/tokenizer_pattern.h"

typedef enum kind { SEQUENCE, BYTE_LEVEL, SPLIT, METASPACE, WHITESPACE_SPLIT, DIGITS } kind;
typedef enum behavior {
    REMOVED,
    ISOLATED,
    MERGED_WITH_PREVIOUS,
    MERGED_WITH_NEXT,
    CONTIGUOUS
} behavior;
typedef enum scheme { ALWAYS, FIRST, NEVER } scheme;

static const char *const kinds[] = {"Sequence",  "ByteLevel",       "Split",
                                    "Metaspace", "WhitespaceSplit", "Digits"};
static const char *const behaviors[] = {"Removed", "Isolated", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
static const char *const schemes[] = {"always", "first", "never"};

/* How GPT-2 cuts English. */
static const char byte_level_regex[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

struct mp_pretokenizer {
    kind kind;
    char *path;
    mp_pattern *pattern; /* SPLIT; BYTE_LEVEL, or NULL; METASPACE's replacement */
    behavior behavior;
    scheme scheme;
    bool invert;             /* SPLIT */
    bool add_prefix_space;   /* BYTE_LEVEL */
    bool split;              /* METASPACE */
    bool individual;         /* DIGITS */
    char *replacement;       /* METASPACE */
    mp_pretokenizer **parts; /* SEQUENCE */
    size_t count;
};

void mp_pretokenizer_free(mp_pretokenizer *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < p->count; i++)
        mp_pretokenizer_free(p->parts[i]);
    mp_free(p->parts);
    mp_free(p->replacement);
    mp_pattern_free(p->pattern);
    mp_free(p->path);
    mp_free(p);
}

/* Index of a name, or of the unknown one's error: -1. */
static int look_up(const char *const *names, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(names[i], name))
            return (int)i;
    return -1;
}

static mp_code read_parts(const mp_place *at, const json_t *node, mp_pretokenizer *p, mp_error *err)
{
    const json_t *list = mp_field_list(at, node, "pretokenizers", err);
    const size_t count = json_array_size(list);

    if (err->code)
        return err->code;
    p->parts = mp_alloc(count, sizeof(mp_pretokenizer *));
    if (!p->parts)
        return mp_place_no_memory(at, err);
    for (size_t i = 0; i < count && !err->code; i++) {
        const mp_place place = mp_place_in(at, "pretokenizers", (int64_t)i);
        const json_t *part = json_array_get(list, i);
        if (!json_is_object(part))
            return mp_place_wrong(&place, "", "an object", part, err);
        mp_pretokenizer_read(&place, part, &p->parts[p->count++], err);
    }
    return err->code;
}

static mp_code read_byte_level(const mp_place *at, const json_t *node, mp_pretokenizer *p,
                               mp_error *err)
{
    p->behavior = ISOLATED;
    p->add_prefix_space = mp_field_bool(at, node, "add_prefix_space", true, err);
    if (!mp_field_bool(at, node, "use_regex", true, err) || err->code)
        return err->code;
    return mp_pattern_regex(at, byte_level_regex, &p->pattern, err);
}

static mp_code read_split(const mp_place *at, const json_t *node, mp_pretokenizer *p, mp_error *err)
{
    const char *name = mp_field_text(at, node, "behavior", NULL, err);
    const int found = look_up(behaviors, sizeof behaviors / sizeof *behaviors, name);

    p->invert = mp_field_bool(at, node, "invert", false, err);
    if (err->code)
        return err->code;
    if (found < 0)
        return mp_place_unknown(at, "behavior", name, err);
    p->behavior = (behavior)found;
    return mp_pattern_read(at, node, "pattern", &p->pattern, err);
}

/* Files of before 2024 say "add_prefix_space" in place of "prepend_scheme". */
static mp_code read_metaspace(const mp_place *at, const json_t *node, mp_pretokenizer *p,
                              mp_error *err)
{
    const char *replacement = mp_field_text(at, node, "replacement", NULL, err);
    const bool prefix = mp_field_bool(at, node, "add_prefix_space", true, err);
    const char *name = mp_field_text(at, node, "prepend_scheme", prefix ? "always" : "never", err);
    const int found = look_up(schemes, sizeof schemes / sizeof *schemes, name);

    p->split = mp_field_bool(at, node, "split", true, err);
    p->behavior = MERGED_WITH_NEXT;
    if (err->code)
        return err->code;
    if (found < 0)
        return mp_place_unknown(at, "prepend_scheme", name, err);
    p->scheme = (scheme)found;
    if (!*replacement || (size_t)mp_utf8_length(*replacement) != strlen(replacement))
        return mp_place_wrong(at, "replacement", "one character",
                              json_object_get(node, "replacement"), err);
    p->replacement = mp_strdup(replacement);
    if (!p->replacement)
        return mp_place_no_memory(at, err);
    return mp_pattern_literal(at, replacement, &p->pattern, err);
}

static mp_code read_fields(const mp_place *at, const json_t *node, mp_pretokenizer *p,
                           mp_error *err)
{
    switch (p->kind) {
    case SEQUENCE:
        return read_parts(at, node, p, err);
    case BYTE_LEVEL:
        return read_byte_level(at, node, p, err);
    case SPLIT:
        return read_split(at, node, p, err);
    case METASPACE:
        return read_metaspace(at, node, p, err);
    case DIGITS:
        p->individual = mp_field_bool(at, node, "individual_digits", false, err);
        return err->code;
    default:
        return MP_OK;
    }
}

mp_code mp_pretokenizer_read(const mp_place *at, const json_t *node, mp_pretokenizer **out,
                             mp_error *err)
{
    *out = NULL;
    if (!node || json_is_null(node))
        return MP_OK;
    if (!json_is_object(node))
        return mp_place_wrong(at, "", "an object or null", node, err);
    const char *type = mp_field_text(at, node, "type", NULL, err);
    if (err->code || mp_place_depth(at, err))
        return err->code;
    const int found = look_up(kinds, sizeof kinds / sizeof *kinds, type);
    if (found < 0)
        return mp_place_unknown(at, "pre-tokenizer", type, err);
    mp_pretokenizer *p = mp_alloc(1, sizeof *p);
    if (!p || !(p->path = mp_strdup(at->path))) {
        mp_pretokenizer_free(p);
        return mp_place_no_memory(at, err);
    }
    p->kind = (kind)found;
    if (read_fields(at, node, p, err))
        mp_pretokenizer_free(p);
    else
        *out = p;
    return err->code;
}

/* One text being cut: its parts, matching or not, come from left to right and cover it. */
typedef struct cutter {
    behavior behavior;
    const char *text;
    size_t origin;
    mp_spans *out;
    size_t start, end; /* of the piece that may still grow */
    bool open, previous;
} cutter;

static void emit(cutter *c)
{
    if (c->open && c->end > c->start)
        mp_spans_add(c->out, c->text + c->start, c->end - c->start,
                     c->origin > c->start ? c->origin - c->start : 0);
    c->open = false;
}

/* Whether the part start .. end belongs to the open piece.  In MERGED_WITH_NEXT a match opens a
 * piece that the next part, if it is none, belongs to: decided from the other side by the
 * `tokenizers` package, so of several matches only the last is merged. */
static bool joins(const cutter *c, bool match)
{
    switch (c->behavior) {
    case MERGED_WITH_PREVIOUS:
        return match && !c->previous;
    case MERGED_WITH_NEXT:
        return !match && c->previous;
    case CONTIGUOUS:
        return match == c->previous;
    default:
        return false;
    }
}

static void part(cutter *c, size_t start, size_t end, bool match)
{
    if (!c->open || !joins(c, match)) {
        emit(c);
        c->start = start;
        c->open = !(match && c->behavior == REMOVED);
    }
    c->end = end;
    c->previous = match;
}

static void cut(const mp_pretokenizer *p, mp_matches *m, const char *text, size_t n, size_t origin,
                mp_spans *out, mp_error *err)
{
    cutter c = {.behavior = p->behavior, .text = text, .origin = origin, .out = out};
    size_t last = 0, start, end;

    mp_matches_start(m, text, n);
    while (mp_matches_next(m, &start, &end, err)) {
        if (start != last)
            part(&c, last, start, p->invert);
        part(&c, start, end, !p->invert);
        last = end;
    }
    if (last != n)
        part(&c, last, n, p->invert);
    emit(&c);
}

/* GPT-2's printable stand-in for a byte: itself, or of those left out the i-th from U+0100 on. */
static int32_t byte_character(unsigned char byte)
{
    if (byte <= 0x20)
        return 0x100 + byte;
    if (byte < 0x7f || (byte >= 0xa1 && byte != 0xad))
        return byte;
    return byte == 0xad ? 0x143 : 0x100 + 33 + (byte - 0x7f);
}

int mp_byte_of_character(int32_t c)
{
    for (int byte = 0; byte < 256; byte++)
        if (byte_character((unsigned char)byte) == c)
            return byte;
    return -1;
}

/* The bytes of every span, in characters of the vocabulary. */
static void spell_bytes(const mp_spans *from, mp_spans *to)
{
    for (size_t i = 0; i < from->count; i++) {
        const mp_span *span = &from->items[i];
        const size_t start = to->text.n;
        size_t origin = 0;
        if (span->token >= 0) {
            mp_spans_add_token(to, span->token);
            continue;
        }
        for (size_t k = 0; k < span->n; k++) {
            mp_text_append_char(&to->text,
                                byte_character((unsigned char)from->text.bytes[span->start + k]));
            if (k < span->origin)
                origin = to->text.n - start;
        }
        mp_spans_close(to, start, origin);
    }
}

/* The text with ' ' replaced and the replacement in front, where the scheme wants it. */
static void write_metaspace(const mp_pretokenizer *p, const char *text, size_t n, size_t *origin,
                            mp_text *to)
{
    const size_t size = strlen(p->replacement), from = *origin;
    const bool there = n && (*text == ' ' || (n >= size && !memcmp(text, p->replacement, size)));
    const bool wanted = p->scheme == ALWAYS || (p->scheme == FIRST && from);

    to->n = 0;
    if (wanted && !there) {
        mp_text_append(to, p->replacement, size);
        *origin = from ? to->n : 0;
    }
    for (size_t i = 0; i < n; i++) {
        mp_text_append(to, text[i] == ' ' ? p->replacement : text + i, text[i] == ' ' ? size : 1);
        if (i < from)
            *origin = to->n;
    }
}

static void write_prefix_space(const char *text, size_t n, size_t *origin, mp_text *to)
{
    const bool wanted = n && *text != ' ';

    to->n = 0;
    if (wanted)
        mp_text_append(to, " ", 1);
    mp_text_append(to, text, n);
    *origin += wanted && *origin;
}

static void cut_spaces(const char *text, size_t n, size_t origin, mp_spans *out)
{
    for (size_t i = 0, start = 0; i <= n;) {
        const size_t length = i < n ? (size_t)mp_utf8_length(text[i]) : 1;
        if (i == n || mp_utf8_space(mp_utf8_decode(text + i))) {
            mp_spans_add(out, text + start, i - start, origin > start ? origin - start : 0);
            start = i + length;
        }
        i += length;
    }
}

static bool is_number(int32_t c)
{
    const utf8proc_category_t category = utf8proc_category(c);
    return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
           category == UTF8PROC_CATEGORY_NO;
}

static void cut_digits(const mp_pretokenizer *p, const char *text, size_t n, size_t origin,
                       mp_spans *out)
{
    cutter c = {.behavior = p->individual ? ISOLATED : CONTIGUOUS,
                .text = text,
                .origin = origin,
                .out = out};
    size_t last = 0;

    for (size_t i = 0; i < n;) {
        const size_t length = (size_t)mp_utf8_length(text[i]);
        if (is_number(mp_utf8_decode(text + i))) {
            if (i > last)
                part(&c, last, i, false);
            part(&c, i, i + length, true);
            last = i + length;
        }
        i += length;
    }
    if (last < n)
        part(&c, last, n, false);
    emit(&c);
}

static void cut_or_copy(const mp_pretokenizer *p, mp_matches *m, const char *text, size_t n,
                        size_t origin, mp_spans *out, mp_error *err)
{
    const bool whole = !p->pattern || (p->kind == METASPACE && !p->split);

    if (whole)
        mp_spans_add(out, text, n, origin);
    else
        cut(p, m, text, n, origin, out, err);
}

/* One span; `scratch` holds its rewritten text. */
static void run_span(const mp_pretokenizer *p, mp_matches *m, const char *text, size_t n,
                     size_t origin, mp_text *scratch, mp_spans *out, mp_error *err)
{
    switch (p->kind) {
    case WHITESPACE_SPLIT:
        cut_spaces(text, n, origin, out);
        return;
    case DIGITS:
        cut_digits(p, text, n, origin, out);
        return;
    case METASPACE:
        write_metaspace(p, text, n, &origin, scratch);
        break;
    case BYTE_LEVEL:
        if (p->add_prefix_space) {
            write_prefix_space(text, n, &origin, scratch);
            break;
        }
        /* fall through */
    default:
        cut_or_copy(p, m, text, n, origin, out, err);
        return;
    }
    out->failed |= scratch->failed;
    if (!scratch->failed)
        cut_or_copy(p, m, scratch->bytes, scratch->n, origin, out, err);
}

static mp_code no_memory(const mp_pretokenizer *p, mp_error *err)
{
    return mp_error_set(err, MP_ENOMEM, "%s: no memory to cut a text into pieces", p->path);
}

static mp_code run_spans(const mp_pretokenizer *p, mp_spans *spans, mp_error *err)
{
    mp_spans out = {0};
    mp_text scratch = {0};
    mp_matches m = {0};

    mp_text_append(&scratch, "", 0);
    if (p->pattern && mp_matches_open(p->pattern, &m, err))
        goto done;
    for (size_t i = 0; i < spans->count && !err->code && !mp_spans_failed(&out); i++) {
        const mp_span *span = &spans->items[i];
        if (span->token >= 0)
            mp_spans_add_token(&out, span->token);
        else
            run_span(p, &m, spans->text.bytes + span->start, span->n, span->origin, &scratch, &out,
                     err);
    }
done:
    mp_matches_close(&m);
    mp_free(scratch.bytes);
    if (mp_spans_failed(&out))
        no_memory(p, err);
    mp_spans_free(spans);
    *spans = out;
    return err->code;
}

mp_code mp_pretokenizer_run(const mp_pretokenizer *p, mp_spans *spans, mp_error *err)
{
    mp_spans out = {0};

    if (!p)
        return err->code;
    for (size_t i = 0; i < p->count && !err->code; i++)
        mp_pretokenizer_run(p->parts[i], spans, err);
    if (p->kind == SEQUENCE || run_spans(p, spans, err) || p->kind != BYTE_LEVEL)
        return err->code;
    spell_bytes(spans, &out);
    if (mp_spans_failed(&out))
        no_memory(p, err);
    mp_spans_free(spans);
    *spans = out;
    return err->code;
}
