/* What the files of the regressions share. */
#ifndef MP_RESULTS_REGRESSIONS_INTERNAL_H
#define MP_RESULTS_REGRESSIONS_INTERNAL_H

#include "results/regressions.h"

/* results/finding_store.c, o without defaults to be filled in: gives the findings their ids,
 * acknowledgements and states on record, and with o->record writes what is new.  A change point
 * moves by a run or two with more data: one on record less than o->min_segment observations away is
 * the same finding. */
mp_code mp_findings_recall(mp_store *s, const mp_history *h, const mp_regression_options *o,
                           mp_findings *f, mp_error *err);

#endif
