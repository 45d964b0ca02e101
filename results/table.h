/* Tables for people and for other programs: aligned text, Markdown, CSV.  Every cell is escaped for
 * where it goes, so text out of files cannot move a terminal's cursor, break a table or become a
 * formula. */
#ifndef MP_RESULTS_TABLE_H
#define MP_RESULTS_TABLE_H

#include <stdio.h>

typedef enum mp_format { MP_TEXT, MP_MARKDOWN, MP_JSON, MP_CSV } mp_format;

/* "text", "markdown", "json", "csv", NULL */
extern const char *const mp_format_names[];
mp_format mp_format_of(const char *name); /* one of the names */

typedef struct mp_table mp_table;

/* A head that ends in '>' belongs to a column aligned to the right; the '>' is not printed. */
mp_table *mp_table_create(int columns, const char *const *heads); /* NULL: no memory */
void mp_table_free(mp_table *t);                                  /* NULL is fine */
/* The next cell, row by row; text is copied.  "" for a cell with nothing to say. */
void mp_table_add(mp_table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
int mp_table_rows(const mp_table *t);
/* The parts of a Markdown table: its heads with the rule below, and a row, from 0. */
void mp_table_markdown_heads(const mp_table *t, FILE *to);
void mp_table_markdown_row(const mp_table *t, int row, FILE *to);
/* indent: spaces before each line of text. */
void mp_table_print(const mp_table *t, mp_format format, int indent, FILE *to);

/* Bytes of the character that text begins with when it may be shown as it is; 0: its first byte is
 * to be escaped, since it is a control character, bad UTF-8, or reorders or hides text. */
int mp_plain_bytes(const char *text);
/* text with control characters, bad UTF-8 and the characters that reorder or hide text as \xNN;
 * newlines become "\n" and `indent` spaces, or with indent -1 are escaped, too. */
void mp_print_plain(FILE *to, const char *text, int indent);
/* The same as a string (mp_free); NULL: no memory. */
char *mp_plain_text(const char *text);
/* Adds it to a message, cut to a few words. */
void mp_append_plain(char *out, size_t size, const char *before, const char *text);
/* A field of CSV, RFC 4180.  A formula gets an apostrophe in front; of controls only newlines stay.
 */
void mp_print_csv(FILE *to, const char *text);
/* For a line of Markdown: also what would be markup there is escaped. */
void mp_print_markdown(FILE *to, const char *text);

#endif
