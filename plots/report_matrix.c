/* The dtype matrix of the report page: drift of the latents as a heat map, a row for what is equal
 * but for the dtype. */
#include "plots/html.h"
#include "plots/report_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/memory.h"

enum { DTYPES = 12, LEVELS = 13 }; /* columns; colours, two for each power of ten up to 1 */

typedef struct matrix_row {
    const json_t *cell; /* the first one */
    char *name;         /* of the cell, without its dtype */
} matrix_row;

typedef struct matrix {
    const char *dtypes[DTYPES];
    int dtype_count;
    matrix_row *rows; /* of each cell; equal ones are one row */
    int *row_of;
    int row_count;
} matrix;

/* "tiling=off" of "precision.default=bf16,tiling=off"; NULL: no memory. */
static char *without_dtype(const json_t *cell)
{
    const char *name = mp_page_cell_name(cell), *dtype = mp_page_text(cell, "dtype");
    char *out = mp_strdup(name), part[96];
    const int n = snprintf(part, sizeof part, "precision.default=%s", dtype);
    char *at = out && n < (int)sizeof part ? strstr(out, part) : NULL;

    if (!at || (at > out && at[-1] != ',') || (at[n] && at[n] != ','))
        return out;
    if (at[n]) /* with the comma behind it, or before it */
        memmove(at, at + n + 1, strlen(at + n + 1) + 1);
    else
        at[at > out ? -1 : 0] = '\0';
    return out;
}

static bool same_row(const matrix_row *a, const matrix_row *b)
{
    static const char *const keys[] = {"scenario", "engine", "device", "fingerprint"};

    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(mp_page_text(a->cell, keys[i]), mp_page_text(b->cell, keys[i])))
            return false;
    return !strcmp(a->name, b->name);
}

static int column_of(const matrix *m, const char *dtype)
{
    int i = 0;

    while (i < m->dtype_count && strcmp(m->dtypes[i], dtype))
        i++;
    return i;
}

/* The usual ones from wide to narrow, then what else there is. */
static void find_dtypes(const mp_page *p, matrix *m)
{
    static const char *const usual[] = {"fp64", "fp32", "fp16", "bf16", "fp8_e4m3", "fp8_e5m2"};
    const json_t *cell;
    size_t i;

    for (size_t k = 0; k <= sizeof usual / sizeof *usual; k++)
        json_array_foreach (p->cells, i, cell) {
            const char *dtype = mp_page_text(cell, "dtype");
            const bool wanted = k == sizeof usual / sizeof *usual || !strcmp(dtype, usual[k]);
            if (wanted && column_of(m, dtype) == m->dtype_count && m->dtype_count < DTYPES)
                m->dtypes[m->dtype_count++] = dtype;
        }
}

static bool find_rows(const mp_page *p, matrix *m)
{
    const json_t *cell;
    size_t i;

    json_array_foreach (p->cells, i, cell) {
        matrix_row row = {cell, without_dtype(cell)};
        int k = 0;
        if (!row.name)
            return false;
        while (k < m->row_count && !same_row(&m->rows[k], &row))
            k++;
        if (k == m->row_count)
            m->rows[m->row_count++] = row;
        else
            mp_free(row.name);
        m->row_of[i] = k;
    }
    return true;
}

/* ---- one field ------------------------------------------------------------------------------ */

static int level_of(double drift)
{
    const double level = ceil(2 * log10(drift)) + LEVELS - 1; /* of 1: the last */

    return level < 0 ? 0 : level > LEVELS - 1 ? LEVELS - 1 : (int)level;
}

static void put_field(FILE *to, const json_t *cell)
{
    const mp_page_state state = mp_page_state_of(cell);
    const intmax_t id = mp_page_id(cell, "id");
    const char *status = mp_page_text(cell, "status");
    char text[24];
    double drift;

    if (strcmp(status, "ok") || state == MP_PAGE_UNEXPECTED) {
        mp_html(to, "<td class=\"heat failed\"><a href=\"#cell-%jd\">%s</a><small>%s</small></td>",
                id, status,
                state == MP_PAGE_OK           ? "expected"
                : state == MP_PAGE_UNFINISHED ? "unfinished"
                                              : "unexpected");
        return;
    }
    if (!mp_page_metric(cell, "latent_rel_l2", &drift)) {
        mp_html(to,
                "<td class=\"heat\"><a href=\"#cell-%jd\">ok</a><small>no reference</small></td>",
                id);
        return;
    }
    snprintf(text, sizeof text, "%.2g", drift);
    if (isfinite(drift))
        mp_html(to, "<td class=\"heat q%d\"><a href=\"#cell-%jd\">%s</a>", level_of(drift), id,
                text);
    else
        mp_html(to, "<td class=\"heat failed\"><a href=\"#cell-%jd\">%s</a>", id, text);
    if (state == MP_PAGE_OVER_BUDGET)
        fputs("<small>over budget</small>", to);
    fputs("</td>", to);
}

/* Two cells of a row have the same dtype only where their ids write it differently: the newer one
 * is shown, and both are in the table of cells. */
static void put_row(mp_page *p, const matrix *m, int row)
{
    const matrix_row *r = &m->rows[row];
    char machine[9] = "";

    if (p->machines)
        snprintf(machine, sizeof machine, "%s", mp_page_text(r->cell, "fingerprint"));
    mp_html(p->to, "<tr><th scope=\"row\">%s<small>%s %s/%s %s</small></th>",
            mp_page_text(r->cell, "scenario"), r->name, mp_page_text(r->cell, "engine"),
            mp_page_text(r->cell, "device"), machine);
    for (int c = 0; c < m->dtype_count; c++) {
        const json_t *cell, *shown = NULL;
        size_t i;
        json_array_foreach (p->cells, i, cell)
            if (m->row_of[i] == row && !strcmp(mp_page_text(cell, "dtype"), m->dtypes[c]))
                shown = cell;
        if (shown)
            put_field(p->to, shown);
        else
            fputs("<td class=\"heat none\">-</td>", p->to);
    }
    fputs("</tr>\n", p->to);
}

/* ---- the whole ------------------------------------------------------------------------------ */

static void put_legend(FILE *to)
{
    fputs("<p class=\"legend\" aria-hidden=\"true\"><span>drift</span>", to);
    for (int i = 0; i < LEVELS; i++) {
        char text[16] = "";
        if (i % 2 == 0)
            snprintf(text, sizeof text, "1e%d", (i - LEVELS + 1) / 2);
        mp_html(to, "<span class=\"heat q%d\">%s</span>", i, text);
    }
    fputs("<span class=\"heat failed\">no result</span></p>\n", to);
}

static void put_matrix(mp_page *p, const matrix *m)
{
    fputs("<div class=\"wide\" role=\"region\" tabindex=\"0\" "
          "aria-labelledby=\"matrix-caption\">\n<table id=\"matrix-table\" class=\"matrix\" "
          "data-tools><caption id=\"matrix-caption\"><span>Drift of the latents by dtype "
          "(precision.default), relative L2 distance from the reference. A stronger colour is "
          "further away, hatched has no result; each field links to its cell.</span></caption>\n"
          "<thead><tr><th scope=\"col\">Scenario and other settings</th>",
          p->to);
    for (int c = 0; c < m->dtype_count; c++)
        mp_html(p->to, "<th scope=\"col\">%s</th>", *m->dtypes[c] ? m->dtypes[c] : "(no dtype)");
    fputs("</tr></thead>\n<tbody>\n", p->to);
    for (int r = 0; r < m->row_count; r++)
        put_row(p, m, r);
    fputs("</tbody></table></div>\n", p->to);
    put_legend(p->to);
}

void mp_page_matrix(mp_page *p)
{
    const size_t n = json_array_size(p->cells);
    matrix m = {.rows = mp_alloc(n, sizeof *m.rows), .row_of = mp_alloc(n, sizeof *m.row_of)};

    if (!n) {
        fputs("<p class=\"empty\">There are no cells.</p>\n", p->to);
    } else if (m.rows && m.row_of && find_rows(p, &m)) {
        find_dtypes(p, &m);
        put_matrix(p, &m);
    } else {
        mp_error_set(p->err, MP_ENOMEM, "no memory for the report's dtypes");
    }
    for (int i = 0; i < m.row_count; i++)
        mp_free(m.rows[i].name);
    mp_free(m.rows);
    mp_free(m.row_of);
}
