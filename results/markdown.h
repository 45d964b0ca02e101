/* A Markdown document below a limit.  Where it ends up, in the comment of a merge request or the
 * summary of a CI job, one that is too long is refused whole.  What comes first is kept, so the
 * worst comes first; what no longer fits is left out row by row and counted, never cut inside.
 *
 *     mp_markdown *m = mp_markdown_create(to, MP_MARKDOWN_COMMENT);
 *     mp_markdown_text(m, "### 12 findings\n\n");
 *     mp_markdown_rows(m, table, 0, 10);
 *     mp_markdown_details(m, "2 more");
 *     mp_markdown_rows(m, table, 10, 12);
 *     mp_markdown_details_end(m);
 *     mp_markdown_close(m, "findings", &err);
 */
#ifndef MP_RESULTS_MARKDOWN_H
#define MP_RESULTS_MARKDOWN_H

#include <stddef.h>
#include <stdio.h>

#include "kernels/core/status.h"
#include "results/table.h"

/* Bytes.  GitHub takes 65,536 characters a comment: a summary and the findings of `mpbench
 * regressions` fit into one. */
enum { MP_MARKDOWN_COMMENT = 32000 };

typedef struct mp_markdown mp_markdown;

mp_markdown *mp_markdown_create(FILE *to, size_t limit); /* NULL: no memory */
/* Where to write the next row: all that is written before the next call of this header is taken
 * whole, or left out. */
FILE *mp_markdown_row(mp_markdown *m);
/* Headings and the like: as a row, but not counted when it is left out. */
void mp_markdown_text(mp_markdown *m, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Rows first to end - 1 of a table, from 0, under its heads. */
void mp_markdown_rows(mp_markdown *m, const mp_table *t, int first, int end);
/* What is folded away; they do not nest.  The title is plain text: not out of a file. */
void mp_markdown_details(mp_markdown *m, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void mp_markdown_details_end(mp_markdown *m);
/* Rows left out so far. */
int mp_markdown_rows_left(mp_markdown *m);
/* Says how many were left out, and releases m.  rows: what to call them, such as "rows".  MP_ENOMEM
 * or MP_EIO: the document is not whole. */
mp_code mp_markdown_close(mp_markdown *m, const char *rows, mp_error *err);

/* Text out of files as code, in which nothing is markup, a mention or a link; after `most` bytes it
 * ends in "..." at a whole character.  In a line: newlines become spaces. */
void mp_markdown_code(FILE *to, const char *text, size_t most);
/* On lines of its own, whole, each after `indent` spaces. */
void mp_markdown_code_block(FILE *to, const char *text, int indent);

#endif
