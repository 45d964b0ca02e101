/* The top of the report page: what there is, and whether anything is wrong with it. */
#include "plots/html.h"
#include "plots/report_parts.h"

#include <string.h>

void mp_page_put_time(FILE *to, const char *time)
{
    char text[24];

    if (strlen(time) >= 16 && time[10] == 'T')
        snprintf(text, sizeof text, "%.10s %.5s", time, time + 11);
    else
        snprintf(text, sizeof text, "%.20s", time);
    mp_html(to, "<time title=\"%s\">%s</time>", time, text);
}

void mp_page_put_commit(FILE *to, const char *commit)
{
    char text[MP_REVISION_TEXT];

    mp_revision_text(commit, text);
    if (*commit)
        mp_html(to, "<code title=\"%s\">%s</code>", commit, text);
    else
        fputs("commit not recorded", to);
}

const char *mp_page_verdict(const mp_page *p)
{
    const mp_page_result *t = &p->tally;

    return !t->cells                            ? "No results yet"
           : t->open_findings || t->over_budget ? "Regression"
           : t->unexpected                      ? "Unexpected results"
           : t->unfinished                      ? "Incomplete"
                                                : "All as expected";
}

static const char *verdict_class(const mp_page *p)
{
    const mp_page_result *t = &p->tally;

    return t->open_findings || t->over_budget || t->unexpected ? "bad"
           : t->unfinished || !t->cells                        ? "open"
                                                               : "good";
}

void mp_page_title(mp_page *p)
{
    mp_html(p->to, "%s - mpbench", mp_page_verdict(p));
}

static void put_count(mp_page *p, const char *link, const char *class, int count, const char *what)
{
    mp_html(p->to, "<li class=\"%s\"><a href=\"#%s\"><b>%d</b> %s</a></li>\n",
            count ? class : "none", link, count, what);
}

/* The run that started last. */
static const json_t *newest(const mp_page *p)
{
    const json_t *best = NULL;

    for (size_t i = 0; i < json_array_size(p->cells); i++) {
        const json_t *cell = json_array_get(p->cells, i);
        const int order =
            best ? strcmp(mp_page_text(cell, "started"), mp_page_text(best, "started")) : 1;
        if (order > 0 || (!order && mp_page_id(cell, "run") > mp_page_id(best, "run")))
            best = cell;
    }
    return best;
}

static void put_facts(mp_page *p)
{
    const json_t *cell = newest(p);

    mp_html(p->to, "<dl class=\"facts\"><div><dt>Database</dt><dd>%s</dd></div>\n", p->database);
    if (cell) {
        mp_html(p->to, "<div><dt>Newest run</dt><dd>%jd, ", mp_page_id(cell, "run"));
        mp_page_put_time(p->to, mp_page_text(cell, "started"));
        fputs(" UTC</dd></div>\n<div><dt>Commit</dt><dd>", p->to);
        mp_page_put_commit(p->to, mp_page_text(cell, "revision"));
        fputs("</dd></div>\n", p->to);
        if (*mp_page_text(cell, "label"))
            mp_html(p->to, "<div><dt>Label</dt><dd>%s</dd></div>\n", mp_page_text(cell, "label"));
    }
    if (p->filter->run)
        mp_html(p->to, "<div><dt>Only run</dt><dd>%s</dd></div>\n", p->filter->run);
    if (p->filter->scenario)
        mp_html(p->to, "<div><dt>Only scenario</dt><dd>%s</dd></div>\n", p->filter->scenario);
    fputs("</dl>\n", p->to);
}

void mp_page_head(mp_page *p)
{
    const mp_page_result *t = &p->tally;
    const json_t *note;
    size_t i;

    mp_html(p->to, "<h1 class=\"verdict %s\">%s</h1>\n<ul class=\"counts\">\n", verdict_class(p),
            mp_page_verdict(p));
    put_count(p, "cells", "plain", t->cells, t->cells == 1 ? "cell" : "cells");
    put_count(p, "cells", "good", t->ok, "as expected");
    put_count(p, "incidents", "bad", t->unexpected, "unexpected");
    put_count(p, "incidents", "warn", t->over_budget, "over budget");
    put_count(p, "findings", "bad", t->open_findings,
              t->open_findings == 1 ? "open finding" : "open findings");
    if (t->unfinished)
        put_count(p, "incidents", "open", t->unfinished, "unfinished");
    fputs("</ul>\n", p->to);
    put_facts(p);
    if (!t->cells)
        fputs("<p class=\"note\">This database holds no cells. Fill it with <code>mpbench run FILE "
              "--db FILE</code>, then write this page again.</p>\n",
              p->to);
    if (json_array_size(p->notes))
        fputs("<ul class=\"notes\" aria-label=\"Notes\">\n", p->to);
    json_array_foreach (p->notes, i, note)
        mp_html(p->to, "<li>%s</li>\n", json_string_value(note));
    fputs(json_array_size(p->notes) ? "</ul>\n" : "", p->to);
}
