/* gnuplot: an external program that reads files in a folder and leaves a picture there.
 *
 * What is drawn goes there as data: numbers and texts in columns between tabs, blocks of rows apart
 * by two empty lines.  A script is a template (plots/templates) and knows no more than settings.gp
 * tells it.  So no text out of a database is ever read as a command, and a user can edit a script
 * and run it again.
 *
 *     mp_gnuplot g = {.folder = "/tmp/x", .png = true, .width = 900, .height = 560, .err = &err};
 *     mp_gnuplot_data(&g, "drift.tsv");
 *     mp_gnuplot_row(&g, "nt", 1e-3, "fp16");
 *     mp_gnuplot_set_text(&g, "scenario", "sana");
 *     mp_gnuplot_draw(&g, "drift");     // drift.gp -> /tmp/x/drift.png
 *     mp_gnuplot_end(&g);
 *
 * After a failure, which err tells, nothing more is done.
 */
#ifndef MP_PLOTS_GNUPLOT_H
#define MP_PLOTS_GNUPLOT_H

#include <stdio.h>

#include "kernels/core/status.h"

typedef struct mp_gnuplot {
    const char *folder;    /* is there, and empty or this plot's own */
    const char *templates; /* a folder whose files go before the program's own, or NULL */
    bool png;              /* else SVG */
    int width, height;     /* pixels */
    int timeout;           /* seconds; 0: a minute */
    bool (*stopped)(void); /* asked while gnuplot draws: true ends it; NULL: never */
    mp_error *err;
    FILE *settings, *data; /* those that are open */
} mp_gnuplot;

/* Another file of data, after the one before it. */
void mp_gnuplot_data(mp_gnuplot *g, const char *name);
/* One row, by type of its columns: n number (double; one that is not finite leaves a gap), t text.
 */
void mp_gnuplot_row(mp_gnuplot *g, const char *types, ...);
/* What ends a block of rows; gnuplot's `index` counts blocks. */
void mp_gnuplot_end_block(mp_gnuplot *g);
void mp_gnuplot_bytes(mp_gnuplot *g, const void *bytes, size_t n);

/* Variables of the script, by names that this program chose. */
void mp_gnuplot_set_text(mp_gnuplot *g, const char *name, const char *text);
void mp_gnuplot_set_number(mp_gnuplot *g, const char *name, double value);

/* Writes style.gp and KIND.gp and runs the latter: the picture is KIND.svg or KIND.png in the
 * folder.  MP_EENGINE: gnuplot is not there, refuses, or takes too long; the text is its own, and
 * what helps.  MP_EIO: it was stopped. */
mp_code mp_gnuplot_draw(mp_gnuplot *g, const char *kind);
void mp_gnuplot_end(mp_gnuplot *g);

#endif
