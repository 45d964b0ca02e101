#include "pipelines/common/tokenizer_pattern.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "kernels/core/memory.h"
#include "pipelines/common/file.h"

struct mp_pattern {
    char *path, *place;
    char *literal; /* or code */
    size_t literal_n;
    pcre2_code *code;
    pcre2_general_context *memory;
};

static void *regex_alloc(size_t n, void *unused)
{
    (void)unused;
    return mp_alloc(n, 1);
}

static void regex_free(void *block, void *unused)
{
    (void)unused;
    mp_free(block);
}

void mp_pattern_free(mp_pattern *p)
{
    if (!p)
        return;
    pcre2_code_free(p->code);
    pcre2_general_context_free(p->memory);
    mp_free(p->literal);
    mp_free(p->place);
    mp_free(p->path);
    mp_free(p);
}

/* As items of a class: White_Space, its complement, and Alphabetic + M + Nd + Pc.  Outside of a
 * class, Oniguruma's \w also takes the superscripts and fractions of Latin-1. */
#define SPACE                                                                               \
    "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}" \
    "\\x{205f}\\x{3000}"
#define NO_SPACE                                                                             \
    "\\x00-\\x08\\x0e-\\x1f\\x21-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}" \
    "\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}"           \
    "\\x{3001}-\\x{d7ff}\\x{e000}-\\x{10ffff}"
#define WORD_ITEM                                                               \
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}" \
    "\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}"
#define WORD WORD_ITEM "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"

/* Letters and numbers of Unicode 15 to 16, which `tokenizers` 0.23 knows and the PCRE2 of Debian 12
 * (10.42, Unicode 14) takes for unassigned; above all the CJK extensions H and I. */
#define NEW_LETTERS                                                                        \
    "\\x{1c89}-\\x{1c8a}\\x{a7cb}-\\x{a7cd}\\x{a7da}-\\x{a7dc}\\x{105c0}-\\x{105f3}"       \
    "\\x{10d4a}-\\x{10d65}\\x{10d6f}-\\x{10d85}\\x{10ec2}-\\x{10ec4}\\x{1123f}-\\x{11240}" \
    "\\x{11380}-\\x{11389}\\x{1138b}\\x{1138e}\\x{11390}-\\x{113b5}\\x{113b7}\\x{113d1}"   \
    "\\x{113d3}\\x{11bc0}-\\x{11be0}\\x{11f02}\\x{11f04}-\\x{11f10}\\x{11f12}-\\x{11f33}"  \
    "\\x{1342f}\\x{13441}-\\x{13446}\\x{13460}-\\x{143fa}\\x{16100}-\\x{1611d}"            \
    "\\x{16d40}-\\x{16d6c}\\x{18cff}\\x{1b132}\\x{1b155}\\x{1df25}-\\x{1df2a}"             \
    "\\x{1e030}-\\x{1e06d}\\x{1e4d0}-\\x{1e4eb}\\x{1e5d0}-\\x{1e5ed}\\x{1e5f0}\\x{2b739}"  \
    "\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}"
#define NEW_NUMBERS                                                                        \
    "\\x{10d40}-\\x{10d49}\\x{116d0}-\\x{116e3}\\x{11bf0}-\\x{11bf9}\\x{11f50}-\\x{11f59}" \
    "\\x{16130}-\\x{16139}\\x{16d70}-\\x{16d79}\\x{1ccf0}-\\x{1ccf9}\\x{1d2c0}-\\x{1d2d3}" \
    "\\x{1e4f0}-\\x{1e4f9}\\x{1e5f1}-\\x{1e5fa}"

/* A translation in progress. */
typedef struct translator {
    const char *from; /* NUL-terminated */
    size_t at;
    mp_text to;
    bool inside;         /* [...] */
    const char *refused; /* what has no counterpart */
} translator;

static void put(translator *t, const char *text)
{
    mp_text_append(&t->to, text, strlen(text));
}

/* Copies n characters. */
static void copy(translator *t, size_t n)
{
    mp_text_append(&t->to, t->from + t->at, n);
    t->at += n;
}

static void refuse(translator *t, const char *what)
{
    if (!t->refused)
        t->refused = what;
}

/* \p{L} and \p{N} with what the newer Unicode has in them; false for anything else. */
static bool translate_new_property(translator *t)
{
    const char *const from = t->from + t->at;
    const bool letters = !strncmp(from, "\\p{L}", 5);

    if (!letters && strncmp(from, "\\p{N}", 5) != 0)
        return false;
    put(t, t->inside ? "" : "[");
    copy(t, 5);
    put(t, letters ? NEW_LETTERS : NEW_NUMBERS);
    put(t, t->inside ? "" : "]");
    return true;
}

/* \p{Name}, \P{Name}, \p{^Name}: general categories mean the same, but for those of
 * translate_new_property; PCRE2 takes the bare name of a script for Script_Extensions, Oniguruma
 * for Script. */
static void translate_property(translator *t)
{
    const char *name = t->from + t->at + 2;
    const size_t n = *name == '{' ? strcspn(++name, "}") : 0;
    const size_t caret = *name == '^';
    const char *first = name + caret;

    if (!n || !name[n] || n == caret || n > 40) {
        refuse(t, "\\p without {name}");
        return;
    }
    if (n - caret <= 2 && strchr("LMNPSZC", *first)) {
        copy(t, n + 4);
        return;
    }
    copy(t, 3 + caret);
    put(t, "sc:");
    copy(t, n - caret + 1);
}

/* \uHHHH */
static void translate_code_point(translator *t)
{
    for (int i = 2; i < 6; i++)
        if (!isxdigit((unsigned char)t->from[t->at + i])) {
            refuse(t, "\\u without four hexadecimal digits");
            return;
        }
    put(t, "\\x{");
    t->at += 2;
    copy(t, 4);
    put(t, "}");
}

/* \xHH below 80, \x{...}: above, \xHH is a byte of UTF-8 to Oniguruma. */
static void translate_hex(translator *t)
{
    const char *from = t->from + t->at;

    if (from[2] == '{' && strcspn(from, "}") < 12)
        copy(t, strcspn(from, "}") + 1);
    else if (from[2] >= '0' && from[2] <= '7' && isxdigit((unsigned char)from[3]))
        copy(t, 4);
    else
        refuse(t, "\\x of a byte");
}

/* The counterpart of \c: as an item of a class, and on its own. */
static const struct {
    char letter;
    const char *inside, *outside;
} escapes[] = {
    {'s', SPACE, "[" SPACE "]"},
    {'S', NO_SPACE, "[^" SPACE "]"},
    {'w', WORD_ITEM, "[" WORD "]"},
    {'W', NULL, "[^" WORD "]"},
    {'d', "\\p{Nd}", "\\p{Nd}"},
    {'D', "\\P{Nd}", "\\P{Nd}"},
    {'h', "0-9a-fA-F", "[0-9a-fA-F]"},
    {'H', NULL, "[^0-9a-fA-F]"},
    {'v', "\\x0b", "\\x0b"},
    {'b', "\\x08", "(?:(?<=[" WORD "])(?![" WORD "])|(?<![" WORD "])(?=[" WORD "]))"},
    {'B', NULL, "(?:(?<=[" WORD "])(?=[" WORD "])|(?<![" WORD "])(?![" WORD "]))"},
    {'n', "\\n", "\\n"},
    {'r', "\\r", "\\r"},
    {'t', "\\t", "\\t"},
    {'f', "\\f", "\\f"},
    {'a', "\\a", "\\a"},
    {'e', "\\e", "\\e"},
    {'A', NULL, "\\A"},
    {'z', NULL, "\\z"},
    {'Z', NULL, "\\Z"},
    {'R', NULL, "\\R"},
};

static void translate_escape(translator *t)
{
    const char c = t->from[t->at + 1];

    if (c == 'p' || c == 'P') {
        if (!translate_new_property(t))
            translate_property(t);
    } else if (c == 'u') {
        translate_code_point(t);
    } else if (c == 'x') {
        translate_hex(t);
    } else if (isalnum((unsigned char)c)) {
        const char *text = NULL;
        for (size_t i = 0; i < sizeof escapes / sizeof *escapes; i++)
            if (escapes[i].letter == c)
                text = t->inside ? escapes[i].inside : escapes[i].outside;
        if (!text)
            refuse(t, t->inside ? "this escape in a class" : "this escape");
        else
            put(t, text);
        t->at += 2;
    } else if (c) {
        copy(t, 2); /* punctuation; the other bytes of a longer character follow by themselves */
    } else {
        refuse(t, "a \\ at the end");
    }
}

static void translate_in_class(translator *t)
{
    const char *from = t->from + t->at;

    if (*from == '[')
        refuse(t, "a class in a class");
    else if (from[0] == '&' && from[1] == '&')
        refuse(t, "&& in a class");
    else if (*from == ']')
        t->inside = false;
    copy(t, 1);
}

static void open_class(translator *t)
{
    copy(t, t->from[t->at + 1] == '^' ? 2 : 1);
    t->inside = true;
    if (t->from[t->at] == ']')
        refuse(t, "] at the start of a class");
}

/* (?i), (?im-x:...: Ruby's m is PCRE2's s. */
static void translate_options(translator *t)
{
    const size_t n = strspn(t->from + t->at + 2, "imx-");
    const char end = t->from[t->at + 2 + n];

    if (!n || (end != ':' && end != ')') || (end == ')' && t->at)) {
        refuse(t, "this kind of group");
        return;
    }
    copy(t, 2);
    for (size_t i = 0; i < n; i++, t->at++)
        put(t, (char[]){t->from[t->at] == 'm' ? 's' : t->from[t->at], '\0'});
    copy(t, 1);
}

static void translate_group(translator *t)
{
    static const char *const same[] = {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"};
    const char *from = t->from + t->at;

    if (from[1] == '*')
        refuse(t, "(*");
    if (from[1] != '?') {
        copy(t, 1);
        return;
    }
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        if (!strncmp(from, same[i], strlen(same[i]))) {
            copy(t, strlen(same[i]));
            return;
        }
    translate_options(t);
}

/* {n}, {n,}, {n,m}, {,m}; anything else is a literal brace to both. */
static void translate_brace(translator *t)
{
    const char *from = t->from + t->at;
    const size_t low = strspn(from + 1, "0123456789");
    const size_t comma = from[1 + low] == ',';
    const size_t high = comma ? strspn(from + 2 + low, "0123456789") : 0;
    const size_t n = 2 + low + comma + high;

    if (from[n - 1] != '}' || !(low || high)) {
        put(t, "\\");
        copy(t, 1);
        return;
    }
    if (from[n] == '+' || (from[n] == '?' && !comma)) {
        refuse(t, "a quantifier after {n}"); /* possessive to PCRE2, a repetition to Oniguruma */
        return;
    }
    if (!low) {
        put(t, "{0");
        t->at++;
    }
    copy(t, low ? n : n - 1);
}

/* NULL when it has no counterpart (*refused) or memory is short. */
static char *translate(const char *regex, size_t *n, const char **refused)
{
    translator t = {.from = regex};

    mp_text_append(&t.to, "", 0);
    while (t.from[t.at] && !t.refused && !t.to.failed) {
        const char c = t.from[t.at];
        if (c == '\\')
            translate_escape(&t);
        else if (t.inside)
            translate_in_class(&t);
        else if (c == '[')
            open_class(&t);
        else if (c == '(')
            translate_group(&t);
        else if (c == '{')
            translate_brace(&t);
        else
            copy(&t, 1);
    }
    *refused = t.refused;
    *n = t.to.n;
    if (!t.refused && !t.to.failed)
        return t.to.bytes;
    mp_free(t.to.bytes);
    return NULL;
}

static mp_code no_memory(const mp_pattern *p, mp_error *err)
{
    return mp_error_set(err, MP_ENOMEM, "%s: no memory for \"%s\"", p->path, p->place);
}

static mp_code compile_failed(const mp_pattern *p, const char *regex, int number, mp_error *err)
{
    PCRE2_UCHAR why[160] = "";

    if (number == PCRE2_ERROR_NOMEMORY || number == 121) /* 121: out of memory while compiling */
        return no_memory(p, err);
    pcre2_get_error_message(number, why, sizeof why);
    return mp_error_set(err, MP_EFORMAT, "%s: \"%s\": \"%s\" is no expression that can be used: %s",
                        p->path, p->place, mp_plain(regex).text, (const char *)why);
}

/* Ruby's ^ and $ are ends of lines, a line ends with \n, and \p, \d and case are Unicode's. */
static mp_code compile(mp_pattern *p, const char *regex, mp_error *err)
{
    const uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
    const char *refused;
    size_t n;
    char *text = translate(regex, &n, &refused);
    int number = PCRE2_ERROR_NOMEMORY;
    PCRE2_SIZE offset;

    if (refused)
        return mp_error_set(err, MP_EUNSUPPORTED,
                            "%s: \"%s\": %s is not known here, in \"%s\"; use a tokenizer without "
                            "it",
                            p->path, p->place, refused, mp_plain(regex).text);
    p->memory = pcre2_general_context_create(regex_alloc, regex_free, NULL);
    pcre2_compile_context *context = p->memory ? pcre2_compile_context_create(p->memory) : NULL;
    if (text && context) {
        pcre2_set_newline(context, PCRE2_NEWLINE_LF);
        pcre2_set_bsr(context, PCRE2_BSR_UNICODE);
        p->code = pcre2_compile((PCRE2_SPTR)text, n, options, &number, &offset, context);
    }
    pcre2_compile_context_free(context);
    mp_free(text);
    return p->code ? MP_OK : compile_failed(p, regex, number, err);
}

static mp_pattern *pattern_new(const mp_place *at)
{
    mp_pattern *p = mp_alloc(1, sizeof *p);

    if (!p)
        return NULL;
    p->path = mp_strdup(at->path);
    p->place = mp_strdup(at->text);
    if (p->path && p->place)
        return p;
    mp_pattern_free(p);
    return NULL;
}

mp_code mp_pattern_regex(const mp_place *at, const char *regex, mp_pattern **out, mp_error *err)
{
    mp_pattern *p = pattern_new(at);

    *out = NULL;
    if (!p)
        return mp_place_no_memory(at, err);
    if (compile(p, regex, err))
        mp_pattern_free(p);
    else
        *out = p;
    return err->code;
}

mp_code mp_pattern_literal(const mp_place *at, const char *literal, mp_pattern **out, mp_error *err)
{
    mp_pattern *p = pattern_new(at);

    *out = NULL;
    if (p)
        p->literal = mp_strdup(literal);
    if (!p || !p->literal) {
        mp_pattern_free(p);
        return mp_place_no_memory(at, err);
    }
    p->literal_n = strlen(p->literal);
    *out = p;
    return MP_OK;
}

mp_code mp_pattern_read(const mp_place *at, const json_t *object, const char *key, mp_pattern **out,
                        mp_error *err)
{
    const mp_place place = mp_place_in(at, key, -1);
    const json_t *pattern = mp_field_object(at, object, key, err);
    const json_t *literal = json_object_get(pattern, "String");
    const json_t *regex = json_object_get(pattern, "Regex");

    *out = NULL;
    if (err->code)
        return err->code;
    if (json_string_length(literal))
        return mp_pattern_literal(&place, json_string_value(literal), out, err);
    if (json_string_length(regex))
        return mp_pattern_regex(&place, json_string_value(regex), out, err);
    return mp_place_wrong(at, key, "{\"String\": ...} or {\"Regex\": ...} with a text", pattern,
                          err);
}

mp_code mp_matches_open(const mp_pattern *p, mp_matches *m, mp_error *err)
{
    *m = (mp_matches){.pattern = p};
    if (p->literal)
        return MP_OK;
    m->data = pcre2_match_data_create(1, p->memory);
    return m->data ? MP_OK : no_memory(p, err);
}

void mp_matches_close(mp_matches *m)
{
    pcre2_match_data_free(m->data);
    m->data = NULL;
}

void mp_matches_start(mp_matches *m, const char *text, size_t n)
{
    m->text = text;
    m->n = n;
    m->at = 0;
    m->last_end = -1;
}

/* One search from m->at. */
static bool search(mp_matches *m, size_t *start, size_t *end, mp_error *err)
{
    const mp_pattern *p = m->pattern;
    PCRE2_UCHAR why[160] = "";

    if (p->literal) {
        const char *hit =
            m->n > m->at ? memmem(m->text + m->at, m->n - m->at, p->literal, p->literal_n) : NULL;
        *start = hit ? (size_t)(hit - m->text) : 0;
        *end = *start + p->literal_n;
        return hit;
    }
    const int found =
        pcre2_match(p->code, (PCRE2_SPTR)m->text, m->n, m->at, PCRE2_NO_UTF_CHECK, m->data, NULL);
    if (found == PCRE2_ERROR_NOMATCH)
        return false;
    if (found < 0) {
        pcre2_get_error_message(found, why, sizeof why);
        mp_error_set(err, found == PCRE2_ERROR_NOMEMORY ? MP_ENOMEM : MP_EFORMAT,
                     "%s: \"%s\": searching %zu bytes failed: %s", p->path, p->place, m->n,
                     (const char *)why);
        return false;
    }
    *start = pcre2_get_ovector_pointer(m->data)[0];
    *end = pcre2_get_ovector_pointer(m->data)[1];
    return true;
}

bool mp_matches_next(mp_matches *m, size_t *start, size_t *end, mp_error *err)
{
    while (m->at <= m->n && search(m, start, end, err)) {
        if (*start != *end || (ptrdiff_t)*end != m->last_end) {
            m->at = *end;
            m->last_end = (ptrdiff_t)*end;
            return true;
        }
        m->at += m->at < m->n ? (size_t)mp_utf8_length(m->text[m->at]) : 1;
    }
    return false;
}
