/* The report page: one file for people, that needs no network and no program besides a browser.
 *
 *     mp_page_result r;
 *     mp_report_page(s, &(mp_report_filter){.scenario = "sana-tiled"}, "out", &r, &err);
 *
 * Tables are plain HTML and can be read without JavaScript; that adds sorting, filters, charts and
 * pictures, out of one block of JSON.  The page forbids itself every script, style and address but
 * its own (Content-Security-Policy with hashes). */
#ifndef MP_PLOTS_REPORT_H
#define MP_PLOTS_REPORT_H

#include "results/report_data.h"

typedef struct mp_page_result {
    long bytes;
    int cells, ok, unexpected, over_budget, unfinished; /* ok: as expected and within budget */
    int open_findings;
} mp_page_result;

/* Writes folder/index.html in one step; the folder exists.  The same database gives the same page.
 * MP_EMISSING: the filter names what is not there. */
mp_code mp_report_page(mp_store *s, const mp_report_filter *f, const char *folder,
                       mp_page_result *out, mp_error *err);

#endif
