#include "results/markdown.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/memory.h"

/* Kept free for what must follow: the end of the details, and the line about what was left out. */
enum { RESERVE = 200 };

static const char details_end[] = "\n</details>\n\n";

struct mp_markdown {
    FILE *to;
    FILE *piece; /* in memory, written anew for each piece */
    char *text;  /* of it */
    size_t size;
    size_t used, limit;
    int left;
    bool full;    /* once something was left out, all that follows is: the worst comes first */
    bool is_row;  /* the piece */
    bool folding; /* details are open */
};

mp_markdown *mp_markdown_create(FILE *to, size_t limit)
{
    mp_markdown *m = mp_alloc(1, sizeof *m);

    if (!m)
        return NULL;
    *m = (mp_markdown){.to = to, .limit = limit};
    m->piece = open_memstream(&m->text, &m->size);
    if (m->piece)
        return m;
    mp_free(m);
    return NULL;
}

static void write_out(mp_markdown *m, const char *text, size_t n)
{
    fwrite(text, 1, n, m->to);
    m->used += n;
}

/* True when the piece at hand, if any, is in the document. */
static bool commit(mp_markdown *m)
{
    bool taken;

    fflush(m->piece);
    taken = !m->full && m->used + m->size + RESERVE <= m->limit;
    if (taken)
        write_out(m, m->text, m->size);
    else if (m->size) {
        m->full = true;
        m->left += m->is_row;
    }
    fseek(m->piece, 0, SEEK_SET);
    fflush(m->piece); /* the size is 0 again */
    return taken;
}

static FILE *next(mp_markdown *m, bool is_row)
{
    commit(m);
    m->is_row = is_row;
    return m->piece;
}

FILE *mp_markdown_row(mp_markdown *m)
{
    return next(m, true);
}

void mp_markdown_text(mp_markdown *m, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vfprintf(next(m, false), format, args);
    va_end(args);
    commit(m);
}

void mp_markdown_rows(mp_markdown *m, const mp_table *t, int first, int end)
{
    for (int i = first; i < end; i++) {
        FILE *to = mp_markdown_row(m);
        if (i == first)
            mp_table_markdown_heads(t, to);
        mp_table_markdown_row(t, i, to);
    }
    mp_markdown_text(m, "\n");
}

void mp_markdown_details(mp_markdown *m, const char *format, ...)
{
    FILE *to = next(m, false);
    va_list args;

    fputs("<details><summary>", to);
    va_start(args, format);
    vfprintf(to, format, args);
    va_end(args);
    fputs("</summary>\n\n", to);
    m->folding = commit(m);
}

void mp_markdown_details_end(mp_markdown *m)
{
    commit(m);
    if (m->folding)
        write_out(m, details_end, sizeof details_end - 1);
    m->folding = false;
}

int mp_markdown_rows_left(mp_markdown *m)
{
    commit(m);
    return m->left;
}

mp_code mp_markdown_close(mp_markdown *m, const char *rows, mp_error *err)
{
    const int left = mp_markdown_rows_left(m);
    const bool short_of_memory = ferror(m->piece) != 0;

    if (left)
        fprintf(m->to, "\nLeft out, too long for a comment: %d more %s. The database has all.\n",
                left, rows);
    fclose(m->piece);
    free(m->text); /* of open_memstream */
    if (short_of_memory)
        mp_error_set(err, MP_ENOMEM, "no memory for the Markdown text");
    else if (ferror(m->to))
        mp_error_set(err, MP_EIO, "the Markdown text could not be written whole: %s",
                     strerror(errno));
    mp_free(m);
    return err->code;
}

/* ---- code ----------------------------------------------------------------------------------- */

/* The most backticks in a row among the first n bytes: a fence must be longer. */
static int longest_ticks(const char *text, size_t n)
{
    int most = 0, run = 0;

    for (size_t i = 0; i < n; i++) {
        run = text[i] == '`' ? run + 1 : 0;
        if (run > most)
            most = run;
    }
    return most;
}

static void put_ticks(FILE *to, int n)
{
    for (int i = 0; i < n; i++)
        fputc('`', to);
}

/* Bytes of the whole characters that begin within the first `most` bytes. */
static size_t beginning(const char *text, size_t most)
{
    size_t n = 0;

    while (text[n] && n < most) {
        const int bytes = mp_plain_bytes(text + n);
        n += bytes ? (size_t)bytes : 1;
    }
    return n;
}

void mp_markdown_code(FILE *to, const char *text, size_t most)
{
    const size_t n = beginning(text, most);
    const int ticks = longest_ticks(text, n);
    const char *pad = ticks ? " " : ""; /* a tick at an end would join the fence */

    put_ticks(to, ticks + 1);
    fputs(pad, to);
    for (size_t i = 0; i < n;) {
        const int bytes = mp_plain_bytes(text + i);
        if (bytes)
            fwrite(text + i, 1, (size_t)bytes, to);
        else if (text[i] == '\n')
            fputc(' ', to);
        else
            fprintf(to, "\\x%02x", (unsigned char)text[i]);
        i += bytes ? (size_t)bytes : 1;
    }
    fprintf(to, "%s%s", text[n] ? "..." : "", pad);
    put_ticks(to, ticks + 1);
}

void mp_markdown_code_block(FILE *to, const char *text, int indent)
{
    const int longest = longest_ticks(text, strlen(text)), ticks = longest < 3 ? 3 : longest + 1;

    fprintf(to, "%*s", indent, "");
    put_ticks(to, ticks);
    fprintf(to, "\n%*s", indent, "");
    mp_print_plain(to, text, indent);
    fprintf(to, "\n%*s", indent, "");
    put_ticks(to, ticks);
    fputc('\n', to);
}
