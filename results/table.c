#include "results/table.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
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
    bool *right;  /* of each column: aligned to the right */
    char **cells; /* the first row is the heads */
    int count, room;
    bool failed; /* no memory: said at the end */
};

static const char no_memory[] = "(no memory for the table)\n";

/* ---- characters ----------------------------------------------------------------------------- */

typedef struct range {
    uint32_t first, last;
} range;

static bool within(uint32_t code, const range *ranges, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (code >= ranges[i].first && code <= ranges[i].last)
            return true;
    return false;
}

/* Bytes of the character at s and its code; 0 when it is no UTF-8. */
static int decode(const unsigned char *s, uint32_t *code)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000}; /* shorter ones are overlong */
    const int n = s[0] < 0x80                   ? 1
                  : s[0] >= 0xc2 && s[0] < 0xe0 ? 2
                  : s[0] >= 0xe0 && s[0] < 0xf0 ? 3
                  : s[0] >= 0xf0 && s[0] < 0xf5 ? 4
                                                : 0;

    *code = n == 1 ? s[0] : s[0] & (0xffu >> (n + 1));
    for (int i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        *code = *code << 6 | (s[i] & 0x3f);
    }
    return *code < least[n] || (*code >= 0xd800 && *code < 0xe000) || *code > 0x10ffff ? 0 : n;
}

/* Bytes of the character at s when it may stand as it is, 0 when its first byte must be escaped. */
static int plain_bytes(const unsigned char *s, uint32_t *code)
{
    static const range hidden[] = {{0x00, 0x1f},     {0x7f, 0x9f},     {0xad, 0xad},
                                   {0x61c, 0x61c},   {0x180e, 0x180e}, {0x200b, 0x200f},
                                   {0x2028, 0x202e}, {0x2060, 0x206f}, {0xfeff, 0xfeff},
                                   {0xfff9, 0xfffb}, {0xfffe, 0xffff}, {0xe0000, 0xe007f}};
    const int n = decode(s, code);

    return within(*code, hidden, sizeof hidden / sizeof *hidden) ? 0 : n;
}

int mp_plain_bytes(const char *text)
{
    uint32_t code;

    return plain_bytes((const unsigned char *)text, &code);
}

/* Columns of a character on a terminal: East Asian ones and pictures take two, accents none. */
static int columns_of(uint32_t code)
{
    static const range wide[] = {{0x1100, 0x115f},  {0x2e80, 0xa4cf},   {0xac00, 0xd7a3},
                                 {0xf900, 0xfaff},  {0xfe30, 0xfe6f},   {0xff00, 0xff60},
                                 {0xffe0, 0xffe6},  {0x1f300, 0x1f64f}, {0x1f900, 0x1f9ff},
                                 {0x20000, 0x3fffd}};
    static const range none[] = {{0x300, 0x36f}, {0x20d0, 0x20ff}, {0xfe00, 0xfe0f}};

    return within(code, none, sizeof none / sizeof *none)   ? 0
           : within(code, wide, sizeof wide / sizeof *wide) ? 2
                                                            : 1;
}

/* Columns that the text takes on a terminal. */
static int width(const char *text)
{
    uint32_t code;
    int n = 0;

    for (const unsigned char *s = (const unsigned char *)text; *s;) {
        const int bytes = plain_bytes(s, &code);
        n += bytes ? columns_of(code) : 4; /* \xNN */
        s += bytes ? bytes : 1;
    }
    return n;
}

/* ---- escaping ------------------------------------------------------------------------------- */

void mp_print_plain(FILE *to, const char *text, int indent)
{
    uint32_t code;

    for (const unsigned char *s = (const unsigned char *)text; *s;) {
        const int n = plain_bytes(s, &code);
        if (n)
            fwrite(s, 1, (size_t)n, to);
        else if (*s == '\n' && indent >= 0)
            fprintf(to, "\n%*s", indent, "");
        else
            fprintf(to, "\\x%02x", *s);
        s += n ? n : 1;
    }
}

char *mp_plain_text(const char *text)
{
    char *out = mp_alloc(4 * strlen(text) + 1, 1), *end = out;
    uint32_t code;

    for (const unsigned char *s = (const unsigned char *)text; out && *s;) {
        const int n = plain_bytes(s, &code);
        end += n ? sprintf(end, "%.*s", n, (const char *)s) : sprintf(end, "\\x%02x", *s);
        s += n ? n : 1;
    }
    return out;
}

void mp_append_plain(char *out, size_t size, const char *before, const char *text)
{
    char cut[64];
    const size_t n = strlen(out);

    snprintf(cut, sizeof cut, "%s", text);
    char *plain = mp_plain_text(cut);
    snprintf(out + n, size - n, "%s%s", before, plain ? plain : "(no memory)");
    mp_free(plain);
}

void mp_print_markdown(FILE *to, const char *text)
{
    uint32_t code;

    for (const unsigned char *s = (const unsigned char *)text; *s;) {
        const int n = plain_bytes(s, &code);
        if (n == 1 && strchr("|\\`*_<>&[]~$#", *s))
            fprintf(to, "\\%c", *s);
        else if (n)
            fwrite(s, 1, (size_t)n, to);
        else if (*s == '\n')
            fputc(' ', to);
        else
            fprintf(to, "\\\\x%02x", *s);
        s += n ? n : 1;
    }
}

static bool is_number(const char *text)
{
    char *end;

    strtod(text, &end);
    return end != text && !*end;
}

/* What a spreadsheet would run; the last four are = + - @ in full width. */
static bool is_formula(const char *text)
{
    static const char *const starts[] = {"=",
                                         "+",
                                         "-",
                                         "@",
                                         "\t",
                                         "\r",
                                         "\n",
                                         "\xef\xbc\x9d",
                                         "\xef\xbc\x8b",
                                         "\xef\xbc\x8d",
                                         "\xef\xbc\xa0"};

    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        const size_t n = strlen(starts[i]);
        if (!strncmp(text, starts[i], n) && text[n]) /* alone it is only a mark */
            return !is_number(text);
    }
    return false;
}

void mp_print_csv(FILE *to, const char *text)
{
    const bool formula = is_formula(text);
    const bool quoted = formula || strpbrk(text, ",\"\n") || *text == ' ';
    uint32_t code;

    fputs(formula ? "\"'" : quoted ? "\"" : "", to);
    for (const unsigned char *s = (const unsigned char *)text; *s;) {
        const int n = plain_bytes(s, &code);
        if (*s == '"')
            fputs("\"\"", to);
        else if (n || *s == '\n')
            fwrite(s, 1, n ? (size_t)n : 1, to);
        else
            fprintf(to, "\\x%02x", *s);
        s += n ? n : 1;
    }
    fputs(quoted ? "\"" : "", to);
}

/* ---- the table ------------------------------------------------------------------------------ */

/* Takes the text over; NULL: there was no memory for it. */
static void take(mp_table *t, char *text)
{
    if (t->count == t->room) {
        const int room = t->room ? 2 * t->room : 64;
        char **cells = mp_realloc(t->cells, (size_t)room, sizeof *cells);
        if (!cells) {
            t->failed = true;
            mp_free(text);
            return;
        }
        t->cells = cells;
        t->room = room;
    }
    t->failed |= !text;
    t->cells[t->count++] = text;
}

mp_table *mp_table_create(int columns, const char *const *heads)
{
    mp_table *t = mp_alloc(1, sizeof *t);

    if (!t || !(t->right = mp_alloc((size_t)columns, sizeof *t->right))) {
        mp_free(t);
        return NULL;
    }
    t->columns = columns;
    for (int i = 0; i < columns; i++) {
        const size_t n = strlen(heads[i]);
        t->right[i] = n && heads[i][n - 1] == '>';
        take(t, mp_strndup(heads[i], n - t->right[i]));
    }
    return t;
}

void mp_table_free(mp_table *t)
{
    if (!t)
        return;
    for (int i = 0; i < t->count; i++)
        mp_free(t->cells[i]);
    mp_free(t->cells);
    mp_free(t->right);
    mp_free(t);
}

void mp_table_add(mp_table *t, const char *format, ...)
{
    va_list args, again;

    if (!t)
        return;
    va_start(args, format);
    va_copy(again, args);
    const int n = vsnprintf(NULL, 0, format, args);
    char *text = n < 0 ? NULL : mp_alloc((size_t)n + 1, 1);
    if (text)
        vsnprintf(text, (size_t)n + 1, format, again);
    va_end(again);
    va_end(args);
    take(t, text);
}

int mp_table_rows(const mp_table *t)
{
    return t ? t->count / t->columns - 1 : 0;
}

/* ---- printing ------------------------------------------------------------------------------- */

static void print_cell(const mp_table *t, int column, const char *text, int wide, FILE *to)
{
    const int pad = wide - width(text);
    const bool last = column + 1 == t->columns;

    if (t->right[column])
        fprintf(to, "%*s", pad, "");
    mp_print_plain(to, text, -1);
    if (!t->right[column] && !last)
        fprintf(to, "%*s", pad, "");
    fputs(last ? "\n" : "  ", to);
}

static void print_text(const mp_table *t, int indent, FILE *to)
{
    int *wide = mp_alloc((size_t)t->columns, sizeof *wide);

    if (!wide) {
        fputs(no_memory, to);
        return;
    }
    for (int i = 0; i < t->count; i++) {
        const int n = width(t->cells[i]);
        if (n > wide[i % t->columns])
            wide[i % t->columns] = n;
    }
    for (int i = 0; i + t->columns <= t->count; i += t->columns) {
        fprintf(to, "%*s", indent, "");
        for (int k = 0; k < t->columns; k++)
            print_cell(t, k, t->cells[i + k], wide[k], to);
    }
    mp_free(wide);
}

/* The cells from `first` on as a row. */
static void print_markdown_cells(const mp_table *t, int first, FILE *to)
{
    for (int k = 0; k < t->columns; k++) {
        fputs(k ? " | " : "| ", to);
        mp_print_markdown(to, t->cells[first + k]);
    }
    fputs(" |\n", to);
}

void mp_table_markdown_heads(const mp_table *t, FILE *to)
{
    if (t->failed) {
        fputs(no_memory, to);
        return;
    }
    print_markdown_cells(t, 0, to);
    for (int k = 0; k < t->columns; k++)
        fprintf(to, "|---%s%s", t->right[k] ? ":" : "", k + 1 == t->columns ? "|\n" : "");
}

void mp_table_markdown_row(const mp_table *t, int row, FILE *to)
{
    if (!t->failed)
        print_markdown_cells(t, (row + 1) * t->columns, to);
}

static void print_markdown_table(const mp_table *t, FILE *to)
{
    mp_table_markdown_heads(t, to);
    for (int i = 0; i < mp_table_rows(t); i++)
        mp_table_markdown_row(t, i, to);
}

static void print_csv_table(const mp_table *t, FILE *to)
{
    for (int i = 0; i + t->columns <= t->count; i += t->columns)
        for (int k = 0; k < t->columns; k++) {
            mp_print_csv(to, t->cells[i + k]);
            fputs(k + 1 < t->columns ? "," : "\r\n", to);
        }
}

void mp_table_print(const mp_table *t, mp_format format, int indent, FILE *to)
{
    if (!t || t->failed)
        fputs(no_memory, to);
    else if (format == MP_TEXT)
        print_text(t, indent, to);
    else if (format == MP_CSV)
        print_csv_table(t, to);
    else
        print_markdown_table(t, to);
}
