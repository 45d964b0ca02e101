#include "pipelines/common/tokenizer_parts.h"

#include <stdio.h>
#include <string.h>

#include <utf8proc.h>

#include "kernels/core/memory.h"
#include "pipelines/common/file.h"

mp_place mp_place_in(const mp_place *at, const char *key, int64_t item)
{
    mp_place in = {.path = at->path, .depth = at->depth + 1};
    const char *dot = *at->text && *key ? "." : "";

    /* Cut off, not refused: a place so deep is refused by mp_place_depth with what fits. */
    if (item < 0)
        (void)!snprintf(in.text, sizeof in.text, "%.80s%s%.32s", at->text, dot, key);
    else
        (void)!snprintf(in.text, sizeof in.text, "%.80s%s%.24s[%lld]", at->text, dot, key,
                        (long long)item);
    return in;
}

mp_code mp_place_wrong(const mp_place *at, const char *key, const char *expected,
                       const json_t *found, mp_error *err)
{
    char text[200];

    return mp_error_set(err, MP_EFORMAT, "%s: \"%s%s%s\": expected %s, found %s", at->path,
                        at->text, *at->text && *key ? "." : "", mp_plain(key).text, expected,
                        found ? mp_json_describe(found, text, sizeof text) : "nothing");
}

mp_code mp_place_unknown(const mp_place *at, const char *kind, const char *name, mp_error *err)
{
    return mp_error_set(err, MP_EUNSUPPORTED,
                        "%s: \"%s\": %s \"%s\" is not known here; use a tokenizer without it",
                        at->path, at->text, kind, mp_plain(name).text);
}

mp_code mp_place_no_memory(const mp_place *at, mp_error *err)
{
    return mp_error_set(err, MP_ENOMEM, "%s: no memory for \"%s\"", at->path, at->text);
}

mp_code mp_place_depth(const mp_place *at, mp_error *err)
{
    if (at->depth <= MP_PLACE_DEPTH)
        return MP_OK;
    return mp_error_set(err, MP_EFORMAT, "%s: \"%s\": sequences nested deeper than %d", at->path,
                        at->text, MP_PLACE_DEPTH);
}

static const json_t *field(const json_t *object, const char *key, const mp_error *err)
{
    const json_t *value = err->code ? NULL : json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

const char *mp_field_text(const mp_place *at, const json_t *object, const char *key,
                          const char *fallback, mp_error *err)
{
    const json_t *value = field(object, key, err);

    if (json_is_string(value))
        return json_string_value(value);
    if (!err->code && (value || !fallback))
        mp_place_wrong(at, key, "a string", value, err);
    return fallback ? fallback : "";
}

bool mp_field_bool(const mp_place *at, const json_t *object, const char *key, bool fallback,
                   mp_error *err)
{
    const json_t *value = field(object, key, err);

    if (value && !json_is_boolean(value))
        mp_place_wrong(at, key, "true or false", value, err);
    return json_is_boolean(value) ? json_is_true(value) : fallback;
}

int64_t mp_field_int(const mp_place *at, const json_t *object, const char *key, int64_t min,
                     int64_t max, mp_error *err)
{
    const json_t *value = field(object, key, err);
    char expected[96];

    if (json_is_integer(value) && json_integer_value(value) >= min &&
        json_integer_value(value) <= max)
        return json_integer_value(value);
    snprintf(expected, sizeof expected, "an integer in %lld..%lld", (long long)min, (long long)max);
    if (!err->code)
        mp_place_wrong(at, key, expected, value, err);
    return min;
}

const json_t *mp_field_list(const mp_place *at, const json_t *object, const char *key,
                            mp_error *err)
{
    const json_t *value = field(object, key, err);

    if (json_is_array(value))
        return value;
    if (!err->code)
        mp_place_wrong(at, key, "a list", value, err);
    return NULL;
}

const json_t *mp_field_object(const mp_place *at, const json_t *object, const char *key,
                              mp_error *err)
{
    const json_t *value = field(object, key, err);

    if (json_is_object(value))
        return value;
    if (!err->code)
        mp_place_wrong(at, key, "an object", value, err);
    return NULL;
}

int mp_utf8_length(char lead)
{
    const unsigned char c = (unsigned char)lead;
    return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

int32_t mp_utf8_decode(const char *at)
{
    static const unsigned char lead_bits[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    const int n = mp_utf8_length(*at);
    int32_t c = (unsigned char)*at & lead_bits[n];

    for (int i = 1; i < n; i++)
        c = c << 6 | ((unsigned char)at[i] & 0x3f);
    return c;
}

int mp_utf8_encode(int32_t c, char *to)
{
    return (int)utf8proc_encode_char(c, (utf8proc_uint8_t *)to);
}

size_t mp_utf8_before(const char *text, size_t end)
{
    while (end > 0 && ((unsigned char)text[--end] & 0xc0) == 0x80)
        ;
    return end;
}

bool mp_utf8_space(int32_t c)
{
    return (c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

/* So that is Alphabetic without being a letter, mark or Nl: circled and squared Latin letters. */
static bool other_alphabetic(int32_t c)
{
    return (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) ||
           (c >= 0x1f150 && c <= 0x1f169) || (c >= 0x1f170 && c <= 0x1f189);
}

bool mp_utf8_word(int32_t c)
{
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        return c == 0x200c || c == 0x200d || other_alphabetic(c);
    }
}

/* Length of the valid character at s, or minus the length of the invalid part that Unicode
 * (chapter 3, "maximal subpart") says to replace at once. */
static int sequence(const unsigned char *s, size_t n)
{
    const unsigned char c = s[0];
    const int length = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
    /* The second byte's range keeps out overlong forms, surrogates and beyond U+10FFFF. */
    const unsigned char low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    const unsigned char high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;

    if (!length)
        return -1;
    for (int i = 1; i < length; i++)
        if ((size_t)i >= n || s[i] < (i == 1 ? low : 0x80) || s[i] > (i == 1 ? high : 0xbf))
            return -i;
    return length;
}

bool mp_utf8_valid(const char *text, size_t n)
{
    int length = 1;

    for (size_t i = 0; i < n && length > 0; i += (size_t)length)
        length = sequence((const unsigned char *)text + i, n - i);
    return length > 0;
}

char *mp_utf8_repair(const char *text, size_t n, size_t *out_n)
{
    static const char replacement[] = "\xef\xbf\xbd";
    mp_text out = {0};

    mp_text_append(&out, "", 0); /* never NULL for an empty text */
    for (size_t i = 0, good = 0; i <= n;) {
        const int length = i < n ? sequence((const unsigned char *)text + i, n - i) : -1;
        if (length > 0) {
            i += (size_t)length;
            continue;
        }
        mp_text_append(&out, text + good, i - good);
        if (i < n)
            mp_text_append(&out, replacement, sizeof replacement - 1);
        i += (size_t)-length;
        good = i;
    }
    *out_n = out.n;
    if (!out.failed)
        return out.bytes;
    mp_free(out.bytes);
    return NULL;
}

/* Room for `more` items after n; false when memory is short. */
static bool grow(void **items, size_t n, size_t *room, size_t more, size_t size)
{
    size_t wanted = *room ? *room : 64;

    if (*items && more <= *room - n)
        return true;
    while (wanted - n < more) {
        if (wanted > SIZE_MAX / 2)
            return false;
        wanted *= 2;
    }
    void *larger = mp_realloc(*items, wanted, size);
    if (!larger)
        return false;
    *items = larger;
    *room = wanted;
    return true;
}

void mp_text_append(mp_text *t, const char *bytes, size_t n)
{
    void *items = t->bytes;

    if (t->failed || n > MP_TEXT_LIMIT - t->n || !grow(&items, t->n, &t->room, n, 1)) {
        t->failed = true;
        return;
    }
    t->bytes = items;
    if (n)
        memcpy(t->bytes + t->n, bytes, n);
    t->n += n;
}

void mp_text_append_char(mp_text *t, int32_t c)
{
    char bytes[4];

    mp_text_append(t, bytes, (size_t)mp_utf8_encode(c, bytes));
}

void mp_ids_append(mp_ids *ids, int32_t id)
{
    void *items = ids->values;

    if (ids->failed || !grow(&items, ids->n, &ids->room, 1, sizeof *ids->values)) {
        ids->failed = true;
        return;
    }
    ids->values = items;
    ids->values[ids->n++] = id;
}

static void add(mp_spans *s, mp_span span)
{
    void *items = s->items;

    if (s->failed || !grow(&items, s->count, &s->room, 1, sizeof *s->items)) {
        s->failed = true;
        return;
    }
    s->items = items;
    s->items[s->count++] = span;
}

void mp_spans_free(mp_spans *s)
{
    mp_free(s->text.bytes);
    mp_free(s->items);
    *s = (mp_spans){0};
}

void mp_spans_close(mp_spans *s, size_t start, size_t origin)
{
    const size_t n = s->text.n - start;

    if (n)
        add(s, (mp_span){.start = start, .n = n, .origin = origin < n ? origin : n, .token = -1});
}

void mp_spans_add(mp_spans *s, const char *bytes, size_t n, size_t origin)
{
    const size_t start = s->text.n;

    mp_text_append(&s->text, bytes, n);
    mp_spans_close(s, start, origin);
}

void mp_spans_add_token(mp_spans *s, int32_t token)
{
    add(s, (mp_span){.start = s->text.n, .token = token});
}

bool mp_spans_failed(const mp_spans *s)
{
    return s->failed || s->text.failed;
}
