#include "results/table.h"

#include <stdarg.h>
#include <stdbool.h>
#include <string.h>

#include "kernels/core/memory.h"

const char *const mp_format_names[] = {"text", "markdown", "json", "csv", NULL};

mp_format mp_format_of(const char *name)
{
    int i = 0;

    while (mp_format_names[i] && strcmp(mp_format_names[i], name))
        i++;
    return mp_format_names[i] ? (mp_format)i : MP_TEXT;
}

struct mp_table {
    int columns;
    char **cells; /* the first row is the heads */
    int count, room;
    bool failed; /* no memory: said at the end */
};

/* ---- escaping ------------------------------------------------------------------------------- */

/* Bytes of the character at s when it may stand as it is, 0 when it must be escaped: controls, bad
 * UTF-8, and the characters that reorder or hide text (U+200B-200F, 2028-202E, 2060-206F, FEFF). */
static int plain_bytes(const unsigned char *s)
{
    if (s[0] >= 0x20 && s[0] < 0x7f)
        return 1;
    const int n = s[0] >= 0xc2 && s[0] < 0xe0   ? 2
                  : s[0] >= 0xe0 && s[0] < 0xf0 ? 3
                  : s[0] >= 0xf0 && s[0] < 0xf5 ? 4
                                                : 0;
    unsigned long code = n ? s[0] & (0xff >> (n + 1)) : 0;

    for (int i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (s[i] & 0x3f);
    }
    if (code < 0xa0 || (code >= 0x200b && code <= 0x200f) || (code >= 0x2028 && code <= 0x202e) ||
        (code >= 0x2060 && code <= 0x206f) || code == 0xfeff)
        return 0;
    return n;
}

void mp_print_plain(FILE *to, const char *text, int indent)
{
    for (const unsigned char *s = (const unsigned char *)text; *s;) {
        const int n = plain_bytes(s);
        if (n) {
            fwrite(s, 1, (size_t)n, to);
        } else if (*s == '\n' && indent >= 0) {
            fprintf(to, "\n%*s", indent, "");
        } else {
            fprintf(to, "\\x%02x", *s);
        }
        s += n ? n : 1;
    }
}

/* Columns that the text takes on a terminal. */
static int width(const char *text)
{
    int n = 0;

    for (const unsigned char *s = (const unsigned char *)text; *s;) {
        const int bytes = plain_bytes(s);
        n += bytes ? 1 : 4;
        s += bytes ? bytes : 1;
    }
    return n;
}

/* A cell that a spreadsheet would run as a formula gets an apostrophe in front. */
static void print_csv(FILE *to, const char *text)
{
    const bool number = strspn(text, "+-0123456789.eE") == strlen(text);
    const bool formula = *text && strchr("=+-@\t\r", *text) && !number;

    if (!formula && !strpbrk(text, ",\"\r\n")) {
        fputs(text, to);
        return;
    }
    fputs(formula ? "\"'" : "\"", to);
    for (; *text; text++) {
        if (*text == '"')
            fputc('"', to);
        fputc(*text, to);
    }
    fputc('"', to);
}

static void print_markdown(FILE *to, const char *text)
{
    for (const unsigned char *s = (const unsigned char *)text; *s;) {
        const int n = plain_bytes(s);
        if (n == 1 && strchr("|\\`*_<>&[]", *s))
            fprintf(to, "\\%c", *s);
        else if (n)
            fwrite(s, 1, (size_t)n, to);
        else
            fputc(' ', to);
        s += n ? n : 1;
    }
}

/* ---- the table ------------------------------------------------------------------------------ */

static void add_text(mp_table *t, const char *text)
{
    if (t->count == t->room) {
        const int room = t->room ? 2 * t->room : 64;
        char **cells = mp_realloc(t->cells, (size_t)room, sizeof *cells);
        if (!cells) {
            t->failed = true;
            return;
        }
        t->cells = cells;
        t->room = room;
    }
    char *copy = mp_strdup(text);
    t->failed |= !copy;
    t->cells[t->count++] = copy;
}

mp_table *mp_table_create(int columns, const char *const *heads)
{
    mp_table *t = mp_alloc(1, sizeof *t);

    if (!t)
        return NULL;
    t->columns = columns;
    for (int i = 0; i < columns; i++)
        add_text(t, heads[i]);
    return t;
}

void mp_table_free(mp_table *t)
{
    if (!t)
        return;
    for (int i = 0; i < t->count; i++)
        mp_free(t->cells[i]);
    mp_free(t->cells);
    mp_free(t);
}

void mp_table_add(mp_table *t, const char *format, ...)
{
    char text[1024];
    va_list args;

    if (!t)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    add_text(t, text);
}

int mp_table_rows(const mp_table *t)
{
    return t ? t->count / t->columns - 1 : 0;
}

/* ---- printing ------------------------------------------------------------------------------- */

static bool right(const mp_table *t, int column)
{
    const char *head = t->cells[column];
    const size_t n = strlen(head);

    return n && head[n - 1] == '>';
}

/* The cell's text; a head without its mark. */
static const char *cell_text(const mp_table *t, int i, char *room, size_t size)
{
    if (i >= t->columns || !right(t, i))
        return t->cells[i];
    snprintf(room, size, "%.*s", (int)strlen(t->cells[i]) - 1, t->cells[i]);
    return room;
}

static void print_text(const mp_table *t, int indent, FILE *to)
{
    char head[128];

    for (int i = 0; i + t->columns <= t->count; i += t->columns) {
        fprintf(to, "%*s", indent, "");
        for (int k = 0; k < t->columns; k++) {
            const char *text = cell_text(t, i + k, head, sizeof head);
            char other[128];
            int wide = 0;
            for (int row = 0; row + t->columns <= t->count; row += t->columns) {
                const int n = width(cell_text(t, row + k, other, sizeof other));
                wide = n > wide ? n : wide;
            }
            const int pad = wide - width(text);
            if (right(t, k))
                fprintf(to, "%*s", pad, "");
            mp_print_plain(to, text, -1);
            if (!right(t, k) && k + 1 < t->columns)
                fprintf(to, "%*s", pad, "");
            fputs(k + 1 < t->columns ? "  " : "\n", to);
        }
    }
}

static void print_rows(const mp_table *t, mp_format format, FILE *to)
{
    char head[128];

    for (int i = 0; i + t->columns <= t->count; i += t->columns) {
        for (int k = 0; k < t->columns; k++) {
            const char *text = cell_text(t, i + k, head, sizeof head);
            if (format == MP_CSV) {
                fputs(k ? "," : "", to);
                print_csv(to, text);
            } else {
                fputs(k ? " | " : "| ", to);
                print_markdown(to, text);
            }
        }
        fputs(format == MP_CSV ? "\r\n" : " |\n", to); /* RFC 4180 */
        if (format == MP_MARKDOWN && i == 0) {
            for (int k = 0; k < t->columns; k++)
                fputs(right(t, k) ? "|---:" : "|---", to);
            fputs("|\n", to);
        }
    }
}

void mp_table_print(const mp_table *t, mp_format format, int indent, FILE *to)
{
    if (!t || t->failed)
        fputs("(no memory for the table)\n", to);
    else if (format == MP_TEXT)
        print_text(t, indent, to);
    else
        print_rows(t, format, to);
}
