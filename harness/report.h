/* What the reports of a run and of a plan share. */
#ifndef MP_HARNESS_REPORT_H
#define MP_HARNESS_REPORT_H

#include "harness/scenario.h"
#include "results/store.h"

/* ", 4 casts, 12 redone in fp32": what the policy did, "" for nothing. */
typedef struct mp_actions_text {
    char text[80];
} mp_actions_text;
mp_actions_text mp_report_actions(const mp_cell_result *r);

/* "      error    TEXT" on stdout, where there is one. */
void mp_report_line(const char *name, const char *text);

/* null for NULL and for what is no UTF-8. */
struct json_t *mp_report_text_json(const char *text);
struct json_t *mp_report_settings_json(const mp_scenario *s);
/* With `timed`, each with its seconds. */
struct json_t *mp_report_actions_json(const mp_cell_result *r, bool timed);

#endif
