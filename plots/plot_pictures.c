/* Pictures side by side: a row for each cell with its reference, its output and their difference,
 * amplified.  The grid is one picture, so that a pixel of it is a pixel of the plot. */
#include <stdlib.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "plots/draw.h"
#include "plots/pixels.h"

enum {
    COLUMNS = 3,
    SLOT = MP_PIXELS_SIDE, /* the side of the place for a picture */
    GAP = 14,
    LETTER = 8,  /* of a label, which stands left of the pictures */
    NOTES = 110, /* the width right of them */
    HEAD = 26,   /* the height above them */
    LEAST = 48,  /* of a row: its texts */
    CHANNELS = 3,
};

typedef struct row {
    mp_pixels reference, output;
    bool damaged;
    int top, height;
} row;

typedef struct grid {
    mp_plot *p;
    row rows[MP_PLOT_CELLS];
    uint8_t *canvas;         /* [height, width, 3], white */
    int left, width, height; /* where the pictures begin; all of it */
} grid;

/* ---- reading -------------------------------------------------------------------------------- */

/* A damaged picture is that of its row, not the end of the plot. */
static void read_picture(grid *g, int cell, const char *role, mp_pixels *out)
{
    mp_error why = {0};
    mp_picture picture = {0};

    if (!mp_picture_of(g->p->data->store, g->p->cells[cell].id, role, &picture, &why) &&
        picture.png)
        mp_pixels_decode(&picture, out, &why);
    mp_picture_free(&picture);
    if (why.code == MP_EFORMAT)
        g->rows[cell].damaged = true;
    else if (why.code)
        mp_error_set(g->p->err, why.code, "%s", why.text);
}

static void mark_those_with_pictures(mp_plot *p)
{
    for (int i = 0; i < p->count && !p->err->code; i++) {
        mp_error why = {0};
        mp_picture picture = {0};
        mp_picture_of(p->data->store, p->cells[i].id, "output", &picture, &why);
        p->cells[i].shown = picture.png || why.code == MP_EFORMAT;
        mp_picture_free(&picture);
    }
}

/* ---- pixels --------------------------------------------------------------------------------- */

/* A small picture is shown larger, pixel by pixel. */
static int scale_of(const mp_pixels *x)
{
    const int longer = x->width > x->height ? x->width : x->height;

    return longer && longer < SLOT ? SLOT / longer : 1;
}

static void paste(grid *g, const mp_pixels *x, int top, int column)
{
    const int scale = scale_of(x), left = g->left + column * (SLOT + GAP);

    for (int i = 0; i < x->height * scale; i++)
        for (int k = 0; k < x->width * scale; k++)
            memcpy(
                g->canvas + ((size_t)(top + i) * (size_t)g->width + (size_t)(left + k)) * CHANNELS,
                x->rgb + ((size_t)(i / scale) * (size_t)x->width + (size_t)(k / scale)) * CHANNELS,
                CHANNELS);
}

/* What a percent of the values exceed, or else the largest of them. */
static int usual_most(const uint8_t *values, size_t n)
{
    size_t seen[256] = {0}, above = 0;
    int most = 255, usual;

    for (size_t i = 0; i < n; i++)
        seen[values[i]]++;
    while (most > 0 && !seen[most])
        most--;
    for (usual = most; usual > 0 && (above += seen[usual]) * 100 < n; usual--)
        ;
    return usual > 0 ? usual : most;
}

/* *factor: the power of two that makes the difference visible; 0: there is none to be seen. */
static bool subtract(const mp_pixels *a, const mp_pixels *b, mp_pixels *out, int *factor)
{
    const size_t n = (size_t)a->width * (size_t)a->height * CHANNELS;

    *out = (mp_pixels){a->width, a->height, mp_alloc(n, 1)};
    if (!out->rgb)
        return false;
    for (size_t i = 0; i < n; i++)
        out->rgb[i] = (uint8_t)abs(a->rgb[i] - b->rgb[i]);
    const int most = usual_most(out->rgb, n);
    for (*factor = most > 0; *factor && most * *factor * 2 < 256;)
        *factor *= 2;
    for (size_t i = 0; i < n; i++) {
        const int value = out->rgb[i] * *factor;
        out->rgb[i] = (uint8_t)(value > 255 ? 255 : value);
    }
    return true;
}

static bool are_comparable(const row *r)
{
    return r->reference.rgb && r->output.rgb && r->reference.width == r->output.width &&
           r->reference.height == r->output.height;
}

/* The third column, and what stands right of it. */
static void paste_difference(grid *g, const row *r, char note[40])
{
    mp_pixels difference;
    int factor;

    if (!are_comparable(r)) {
        snprintf(note, 40, "%s",
                 r->damaged         ? "damaged"
                 : r->reference.rgb ? "other size"
                                    : "no reference");
        return;
    }
    if (!subtract(&r->output, &r->reference, &difference, &factor)) {
        mp_error_set(g->p->err, MP_ENOMEM, "no memory for a plot of pictures");
        return;
    }
    paste(g, &difference, r->top, 2);
    mp_pixels_free(&difference);
    if (factor)
        snprintf(note, 40, "x %d", factor);
    else
        snprintf(note, 40, "equal");
}

/* ---- the grid ------------------------------------------------------------------------------- */

static int shown_height(const mp_pixels *x)
{
    return x->height * scale_of(x);
}

static bool lay_out(grid *g)
{
    g->height = HEAD;
    g->left = 0;
    for (int i = 0; i < g->p->count; i++) {
        row *r = &g->rows[i];
        const int a = shown_height(&r->reference), b = shown_height(&r->output);
        r->top = g->height;
        r->height = a > b ? a : b;
        r->height = r->height > LEAST ? r->height : LEAST;
        const int label = 2 * GAP + LETTER * (int)strlen(g->p->cells[i].label);
        g->left = g->left > label ? g->left : label;
        g->height += r->height + GAP;
    }
    g->width = g->left + COLUMNS * (SLOT + GAP) + NOTES;
    g->canvas = mp_alloc((size_t)g->height, (size_t)g->width * CHANNELS);
    if (!g->canvas) {
        mp_error_set(g->p->err, MP_ENOMEM, "no memory for a plot of pictures");
        return false;
    }
    memset(g->canvas, 255, (size_t)g->height * (size_t)g->width * CHANNELS);
    return true;
}

/* texts.tsv: across, down, text; the first block is left-aligned, the second centred. */
static void write_texts(grid *g)
{
    static const char *const heads[COLUMNS] = {"reference", "output", "difference"};
    mp_plot *p = g->p;

    mp_gnuplot_data(&p->g, "texts.tsv");
    for (int i = 0; i < p->count; i++) {
        const row *r = &g->rows[i];
        const double middle = r->top + r->height / 2.0;
        char note[40] = "";
        paste_difference(g, r, note);
        if (r->reference.rgb)
            paste(g, &r->reference, r->top, 0);
        if (r->output.rgb)
            paste(g, &r->output, r->top, 1);
        mp_gnuplot_row(&p->g, "nnt", (double)GAP, middle, p->cells[i].label);
        mp_gnuplot_row(&p->g, "nnt", (double)(g->width - NOTES), middle, note);
    }
    mp_gnuplot_end_block(&p->g);
    for (int c = 0; c < COLUMNS; c++)
        mp_gnuplot_row(&p->g, "nnt", g->left + c * (SLOT + GAP) + SLOT / 2.0, HEAD / 2.0, heads[c]);
}

static void draw(grid *g)
{
    enum { TITLE = 62 };
    mp_plot *p = g->p;

    for (int i = 0; i < p->count && !p->err->code; i++) {
        read_picture(g, i, "reference", &g->rows[i].reference);
        read_picture(g, i, "output", &g->rows[i].output);
    }
    if (p->err->code || !lay_out(g))
        return;
    write_texts(g);
    mp_gnuplot_data(&p->g, "pictures.rgb");
    mp_gnuplot_bytes(&p->g, g->canvas, (size_t)g->height * (size_t)g->width * CHANNELS);
    mp_plot_set_heading(p);
    mp_plot_set_subheading(p);
    mp_gnuplot_set_number(&p->g, "grid_width", g->width);
    mp_gnuplot_set_number(&p->g, "grid_height", g->height);
    mp_plot_set_size(p, g->width, g->height + TITLE);
    mp_plot_take_note(p, "a picture");
}

void mp_draw_pictures(mp_plot *p)
{
    grid g = {.p = p};

    if (!mp_plot_choose_cells(p))
        return;
    mark_those_with_pictures(p);
    if (!p->err->code &&
        mp_plot_keep_cells(p, "no cell has a picture: those of runs before schema version 5 have "
                              "none, nor has what is not finite; name another --run or --cell"))
        draw(&g);
    for (int i = 0; i < MP_PLOT_CELLS; i++) {
        mp_pixels_free(&g.rows[i].reference);
        mp_pixels_free(&g.rows[i].output);
    }
    mp_free(g.canvas);
}
