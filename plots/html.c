#include "plots/html.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "results/metrics.h"
#include "results/table.h"

/* One character that may be shown, of n bytes. */
static void put_character(FILE *to, const char *s, int n)
{
    static const struct {
        char character;
        const char *entity;
    } special[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&quot;"}, {'\'', "&#39;"}};

    for (size_t i = 0; i < sizeof special / sizeof *special; i++)
        if (*s == special[i].character) {
            fputs(special[i].entity, to);
            return;
        }
    fwrite(s, 1, (size_t)n, to);
}

static void put_text(FILE *to, const char *text)
{
    for (const char *s = text; *s;) {
        const int n = mp_plain_bytes(s);
        if (n)
            put_character(to, s, n);
        else if (*s == '\n')
            fputc('\n', to);
        else
            fprintf(to, "\\x%02x", (unsigned char)*s);
        s += n ? n : 1;
    }
}

void mp_html(FILE *to, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    for (const char *s = format; *s; s++) {
        if (*s != '%') {
            fputc(*s, to);
        } else if (*++s == 's') {
            put_text(to, va_arg(args, const char *));
        } else if (*s == 'd') {
            fprintf(to, "%d", va_arg(args, int));
        } else if (*s == 'j') { /* %jd */
            fprintf(to, "%jd", va_arg(args, intmax_t));
            s++;
        } else {
            fputc(*s, to);
        }
    }
    va_end(args);
}

bool mp_html_json(FILE *to, const json_t *value)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_ENCODE_ANY |
                                       JSON_REAL_PRECISION(6));

    for (const char *s = text; s && *s; s++)
        if (strchr("<>&", *s)) /* in strings only: there is no other place for them */
            fprintf(to, "\\u%04x", *s);
        else
            fputc(*s, to);
    free(text);
    return text != NULL;
}

char *mp_base64(const void *bytes, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *in = bytes;
    char *out = mp_alloc((n + 2) / 3 * 4 + 1, 1), *end = out;

    for (size_t i = 0; out && i < n; i += 3) {
        const size_t left = n - i;
        const uint32_t bits = (uint32_t)in[i] << 16 | (left > 1 ? (uint32_t)in[i + 1] << 8 : 0) |
                              (left > 2 ? in[i + 2] : 0);
        *end++ = digits[bits >> 18];
        *end++ = digits[bits >> 12 & 63];
        *end++ = left > 1 ? digits[bits >> 6 & 63] : '=';
        *end++ = left > 2 ? digits[bits & 63] : '=';
    }
    return out;
}

char *mp_html_hash(const char *text)
{
    char hex[65], pair[3] = "";
    unsigned char bytes[32];

    mp_sha256_hex(text, strlen(text), hex);
    for (int i = 0; i < 32; i++) {
        memcpy(pair, hex + 2 * i, 2);
        bytes[i] = (unsigned char)strtoul(pair, NULL, 16);
    }
    return mp_base64(bytes, sizeof bytes);
}
