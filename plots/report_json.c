/* What the script of the report page draws: series and pictures, as one block of JSON.  Texts are
 * escaped for people here, so the script has only to keep them texts. */
#include "plots/html.h"
#include "plots/report_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "results/metric_kind.h"
#include "results/pictures.h"
#include "results/query.h"

enum {
    POINTS = 120,           /* of a series: the newest */
    LEAST_POINTS = 20,      /* when there are very many series */
    ALL_POINTS = 150000,    /* about 1.2 MB */
    PICTURE_BYTES = 3 << 20 /* of base64 */
};

static json_t *plain(const mp_page *p, const char *text)
{
    char *escaped = mp_plain_text(text);
    json_t *out = escaped ? json_string(escaped) : NULL;

    mp_free(escaped);
    if (!out)
        mp_error_set(p->err, MP_ENOMEM, "no memory for the report's page");
    return out ? out : json_null();
}

static json_t *cell_json(const mp_page *p, const json_t *cell)
{
    char machine[9] = "";

    if (p->machines)
        snprintf(machine, sizeof machine, "%s", mp_page_text(cell, "fingerprint"));
    return json_pack("{sI so so so so so}", "cell", (json_int_t)mp_page_id(cell, "id"), "scenario",
                     plain(p, mp_page_text(cell, "scenario")), "name",
                     plain(p, mp_page_cell_name(cell)), "engine",
                     plain(p, mp_page_text(cell, "engine")), "device",
                     plain(p, mp_page_text(cell, "device")), "machine", plain(p, machine));
}

/* ---- series --------------------------------------------------------------------------------- */

/* The summaries that are judged, not the roofline of the machine. */
static bool is_shown(const mp_page *p, const mp_series *x)
{
    const char *engine = p->history->subjects[x->subject].engine;

    return !strcmp(x->stage, "run") && x->step < 0 && !*x->module &&
           mp_metric_kind_of(x->metric, x->unit, engine).class != MP_METRIC_CONTEXT;
}

/* Of all observations of the subject from `first` on: null where the cell gave no such number. */
static json_t *values_json(const mp_series *x, int first, int end)
{
    json_t *values = json_array();
    int64_t k = 0;

    for (int at = first; at < end; at++) {
        while (k < x->count && x->observation[k] < at)
            k++;
        json_array_append_new(values, k < x->count && x->observation[k] == at
                                          ? mp_json_number(x->value[k])
                                          : json_null());
    }
    return values;
}

/* Findings of a series, or with -1 those of the whole subject. */
static json_t *marks_json(const mp_page *p, int subject, int series, int first)
{
    static const char *const directions[] = {"worse", "other", "better"};
    json_t *marks = json_array();

    for (int i = 0; i < p->findings.count; i++) {
        const mp_finding *f = &p->findings.items[i];
        if (f->subject == subject && f->series == series && f->after >= first)
            json_array_append_new(
                marks, json_pack("{si ss ss ss sb}", "at", f->after - first, "kind",
                                 mp_finding_kind_names[f->kind], "is", directions[f->direction + 1],
                                 "state", mp_finding_state_names[f->state], "open", f->open));
    }
    return marks;
}

static json_t *lines_json(const mp_page *p, int subject, int first, int end)
{
    const mp_history *h = p->history;
    json_t *lines = json_array();

    for (int i = 0; i < h->series_count; i++) {
        const mp_series *x = &h->series[i];
        if (x->subject == subject && is_shown(p, x))
            json_array_append_new(lines,
                                  json_pack("{so so so so}", "metric", plain(p, x->metric), "unit",
                                            plain(p, x->unit), "values", values_json(x, first, end),
                                            "marks", marks_json(p, subject, i, first)));
    }
    return lines;
}

static json_t *subject_json(const mp_page *p, int subject, const json_t *cell, int points)
{
    const mp_subject *x = &p->history->subjects[subject];
    const int end = x->first + x->count, first = x->count > points ? end - points : x->first;
    json_t *all = cell_json(p, cell), *runs = json_array(), *states = json_array();

    for (int i = first; i < end; i++) {
        const mp_observation *o = &p->history->observations[i];
        json_array_append_new(runs, json_integer(o->run));
        if (strcmp(o->status, "ok"))
            json_array_append_new(states, json_pack("[io]", i - first, plain(p, o->status)));
    }
    json_object_set_new(all, "runs", runs);
    json_object_set_new(all, "failed", states);
    json_object_set_new(all, "marks", marks_json(p, subject, -1, first));
    json_object_set_new(all, "lines", lines_json(p, subject, first, end));
    return all;
}

static json_t *runs_json(const mp_page *p)
{
    const mp_history *h = p->history;
    json_t *runs = json_array();

    for (int i = 0; i < h->run_count; i++)
        json_array_append_new(runs, json_pack("[Ioo]", (json_int_t)h->runs[i].id,
                                              plain(p, h->runs[i].started),
                                              plain(p, h->runs[i].revision)));
    return runs;
}

/* Points that each series may have so that all of them fit. */
static int points_of_each(mp_page *p)
{
    int shown = 0, longest = 0;

    for (int i = 0; i < p->history->series_count; i++)
        shown += is_shown(p, &p->history->series[i]);
    const int fit = shown ? ALL_POINTS / shown : POINTS;
    const int points = fit > POINTS ? POINTS : fit < LEAST_POINTS ? LEAST_POINTS : fit;
    for (int i = 0; i < p->history->subject_count; i++)
        if (p->history->subjects[i].count > longest)
            longest = p->history->subjects[i].count;
    if (longest > points)
        mp_page_note(p, "Series show their newest %d runs; the longest has %d.", points, longest);
    return points;
}

void mp_page_read_series(mp_page *p)
{
    p->series = json_array();
    if (!p->history)
        return;
    const int points = points_of_each(p);
    for (int i = 0; i < p->history->subject_count; i++) {
        const json_t *cell = mp_page_cell_of(p, &p->history->subjects[i]);
        if (cell)
            json_array_append_new(p->series, subject_json(p, i, cell, points));
    }
}

/* ---- pictures ------------------------------------------------------------------------------- */

/* Cells in the order in which their pictures matter: what went wrong, then what drifted most. */
typedef struct ranked {
    const json_t *cell;
    size_t place;
    double weight;
} ranked;

static double weight_of(const json_t *cell)
{
    double drift;

    if (mp_page_state_of(cell) != MP_PAGE_OK)
        return INFINITY;
    if (!mp_page_metric(cell, "latent_rel_l2", &drift))
        return 0;
    return isnan(drift) ? INFINITY : drift;
}

static int by_weight(const void *a, const void *b)
{
    const ranked *x = a, *y = b;

    if (x->weight != y->weight)
        return x->weight > y->weight ? -1 : 1;
    return x->place < y->place ? -1 : 1;
}

typedef struct album {
    json_t *images, *pairs; /* base64 by hash; cells */
    size_t bytes;
    int left_out, damaged;
} album;

/* A picture in base64, into the album if it is not there yet; "" for a cell without it. */
typedef struct leaf {
    char sha256[65];
    char *base64; /* NULL: there is none, or it is in the album */
    int64_t width, height;
} leaf;

static mp_code read_leaf(mp_page *p, album *a, const json_t *cell, const char *role, leaf *out)
{
    mp_picture picture;
    mp_error own = {0};

    *out = (leaf){0};
    if (mp_picture_of(p->store, mp_page_id(cell, "id"), role, &picture, &own)) {
        a->damaged += own.code == MP_EFORMAT; /* the page says so and goes on without it */
        return own.code == MP_EFORMAT ? MP_OK : mp_error_set(p->err, own.code, "%s", own.text);
    }
    if (picture.png) {
        memcpy(out->sha256, picture.sha256, sizeof out->sha256);
        out->width = picture.width;
        out->height = picture.height;
        if (!json_object_get(a->images, out->sha256) &&
            !(out->base64 = mp_base64(picture.png, picture.size)))
            mp_error_set(p->err, MP_ENOMEM, "no memory for the pictures of the report");
    }
    mp_picture_free(&picture);
    return p->err->code;
}

static void keep_leaf(album *a, const leaf *l)
{
    if (!l->base64)
        return;
    json_object_set_new(a->images, l->sha256, json_string(l->base64));
    a->bytes += strlen(l->base64);
}

static void keep_pair(const mp_page *p, album *a, const json_t *cell, const leaf *output,
                      const leaf *reference)
{
    const size_t more = (output->base64 ? strlen(output->base64) : 0) +
                        (reference->base64 ? strlen(reference->base64) : 0);

    if (a->bytes + more > PICTURE_BYTES) {
        a->left_out++;
        return;
    }
    keep_leaf(a, output);
    keep_leaf(a, reference);
    json_t *pair = cell_json(p, cell);
    json_object_set_new(pair, "output", json_string(output->sha256));
    json_object_set_new(pair, "reference", json_string(reference->sha256));
    json_object_set_new(pair, "width", json_integer(output->width));
    json_object_set_new(pair, "height", json_integer(output->height));
    json_object_set(pair, "psnr", json_object_get(json_object_get(cell, "metrics"), "psnr_db"));
    json_object_set(pair, "drift",
                    json_object_get(json_object_get(cell, "metrics"), "image_rel_l2"));
    json_array_append_new(a->pairs, pair);
}

static mp_code add_cell(mp_page *p, album *a, const json_t *cell)
{
    leaf output, reference = {0};

    if (!read_leaf(p, a, cell, "output", &output) && *output.sha256 &&
        !read_leaf(p, a, cell, "reference", &reference))
        keep_pair(p, a, cell, &output, &reference);
    mp_free(output.base64);
    mp_free(reference.base64);
    return p->err->code;
}

static void note_pictures(mp_page *p, const album *a)
{
    if (a->left_out)
        mp_page_note(p,
                     "The pictures of %d cell%s are left out to keep this page small; those "
                     "that drifted most are shown.",
                     a->left_out, a->left_out == 1 ? "" : "s");
    if (a->damaged)
        mp_page_note(p, "%d picture%s damaged in the database and not shown.", a->damaged,
                     a->damaged == 1 ? " is" : "s are");
}

mp_code mp_page_read_pictures(mp_page *p)
{
    const size_t n = json_array_size(p->cells);
    album a = {.images = json_object(), .pairs = json_array()};
    ranked *order = mp_alloc(n, sizeof *order);

    p->pictures = json_pack("{so so}", "images", a.images, "pairs", a.pairs);
    if (!order)
        return mp_error_set(p->err, MP_ENOMEM, "no memory for the pictures of the report");
    for (size_t i = 0; i < n; i++)
        order[i] = (ranked){json_array_get(p->cells, i), i, weight_of(json_array_get(p->cells, i))};
    if (n)
        qsort(order, n, sizeof *order, by_weight);
    for (size_t i = 0; i < n && !p->err->code; i++)
        add_cell(p, &a, order[i].cell);
    note_pictures(p, &a);
    mp_free(order);
    return p->err->code;
}

/* ---- the block ------------------------------------------------------------------------------ */

void mp_page_json(mp_page *p)
{
    json_t *all = json_pack("{si ss so sO sO}", "version", 1, "kind", "mpbench report", "runs",
                            p->history ? runs_json(p) : json_array(), "series", p->series,
                            "pictures", p->pictures);

    if (!all || !mp_html_json(p->to, all))
        mp_error_set(p->err, MP_ENOMEM, "no memory for the report's page");
    json_decref(all);
}
