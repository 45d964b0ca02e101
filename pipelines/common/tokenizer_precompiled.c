#include "pipelines/common/tokenizer_precompiled.h"

#include <string.h>

#include <utf8proc.h>

#include "kernels/core/memory.h"

void mp_charsmap_free(mp_charsmap *m)
{
    mp_free(m->bytes);
    *m = (mp_charsmap){0};
}

static int base64_value(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

/* False unless text is whole groups of four with = only at the end. */
static bool decode_base64(const char *text, size_t n, unsigned char *out, size_t *out_n)
{
    const size_t padding = n >= 2 && text[n - 1] == '=' ? 1u + (text[n - 2] == '=') : 0;

    *out_n = 0;
    if (n % 4)
        return false;
    for (size_t i = 0; i < n; i += 4) {
        uint32_t group = 0;
        for (size_t k = i; k < i + 4; k++) {
            const int value = k >= n - padding ? 0 : base64_value(text[k]);
            if (value < 0)
                return false;
            group = group << 6 | (uint32_t)value;
        }
        for (int shift = 16; shift >= 0; shift -= 8)
            out[(*out_n)++] = (unsigned char)(group >> shift);
    }
    *out_n -= padding;
    return true;
}

static uint32_t little_endian(const unsigned char *b)
{
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

mp_code mp_charsmap_read(const mp_place *at, const char *base64, mp_charsmap *out, mp_error *err)
{
    const size_t n = strlen(base64);
    size_t size, array;

    *out = (mp_charsmap){.bytes = mp_alloc(n, 1)};
    if (!out->bytes)
        return mp_place_no_memory(at, err);
    if (!decode_base64(base64, n, out->bytes, &size)) {
        mp_charsmap_free(out);
        return mp_error_set(err, MP_EFORMAT, "%s: \"%s.precompiled_charsmap\": is not base64",
                            at->path, at->text);
    }
    array = size < 4 ? SIZE_MAX : little_endian(out->bytes);
    if (array % 4 || array > size - 4 || !array) {
        mp_charsmap_free(out);
        return mp_error_set(err, MP_EFORMAT,
                            "%s: \"%s.precompiled_charsmap\": its array does not fit into its %zu "
                            "bytes; the file is damaged",
                            at->path, at->text, size);
    }
    out->units = array / 4;
    out->texts = (const char *)out->bytes + 4 + array;
    out->texts_n = size - 4 - array;
    if (mp_utf8_valid(out->texts, out->texts_n))
        return MP_OK;
    mp_charsmap_free(out);
    return mp_error_set(err, MP_EFORMAT,
                        "%s: \"%s.precompiled_charsmap\": its replacements are not UTF-8; the "
                        "file is damaged",
                        at->path, at->text);
}

/* A unit of the darts double array; 0, which leads nowhere, outside of it. */
static uint32_t unit_at(const mp_charsmap *m, size_t i)
{
    return i < m->units ? little_endian(m->bytes + 4 + 4 * i) : 0;
}

static size_t offset_of(uint32_t unit)
{
    return (size_t)(unit >> 10) << ((unit & (1u << 9)) >> 6);
}

/* Replacement of the shortest known prefix of n bytes: the `tokenizers` package takes the first of
 * the prefixes, and with it drops the rest. */
static bool find(const mp_charsmap *m, const char *text, size_t n, const char **to, size_t *to_n)
{
    size_t at = offset_of(unit_at(m, 0));

    for (size_t i = 0; i < n && text[i]; i++) {
        const unsigned char byte = (unsigned char)text[i];
        at ^= byte;
        const uint32_t unit = unit_at(m, at);
        if ((unit & (1u << 31 | 0xff)) != byte || at >= m->units)
            return false;
        at ^= offset_of(unit);
        if (unit >> 8 & 1) {
            const size_t value = unit_at(m, at) & 0x7fffffff;
            if (value >= m->texts_n || (m->texts[value] & 0xc0) == 0x80)
                return false; /* outside, or inside a character */
            *to = m->texts + value;
            *to_n = strnlen(*to, m->texts_n - value);
            return true;
        }
    }
    return false;
}

static void run_grapheme(const mp_charsmap *m, const char *text, size_t n, mp_text *out)
{
    enum { SHORT = 6 }; /* bytes: longer graphemes are not looked up as a whole */
    const char *to;
    size_t to_n;

    if (n < SHORT && find(m, text, n, &to, &to_n)) {
        mp_text_append(out, to, to_n);
        return;
    }
    for (size_t i = 0; i < n;) {
        const size_t length = (size_t)mp_utf8_length(text[i]);
        if (find(m, text + i, length, &to, &to_n))
            mp_text_append(out, to, to_n);
        else
            mp_text_append(out, text + i, length);
        i += length;
    }
}

void mp_charsmap_run(const mp_charsmap *m, const char *text, size_t n, mp_text *out)
{
    utf8proc_int32_t state = 0;
    size_t start = 0;
    int32_t last = 0;

    for (size_t i = 0; i < n;) {
        const int32_t c = mp_utf8_decode(text + i);
        if (i > 0 && utf8proc_grapheme_break_stateful(last, c, &state)) {
            run_grapheme(m, text + start, i - start, out);
            start = i;
        }
        last = c;
        i += (size_t)mp_utf8_length(text[i]);
    }
    run_grapheme(m, text + start, n - start, out);
}
