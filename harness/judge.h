/* What became of a cell: status, typed outcome, and whether that was expected. */
#ifndef MP_HARNESS_JUDGE_H
#define MP_HARNESS_JUDGE_H

#include "harness/engines/engine.h"
#include "harness/measure.h"
#include "harness/plan.h"

/* How the process ended.  Fills status, outcome, error, module, op, want, got, stage, step and
 * signal. */
void mp_judge_process(mp_arena *a, const mp_execution *e, const mp_scenario *s,
                      mp_cell_result *out);
/* The same, and where it ended well, whether its outputs are any.  x: those that are there, or
 * NULL. */
void mp_judge_end(mp_arena *a, const mp_execution *e, const mp_scenario *s, const mp_outputs *x,
                  mp_cell_result *out);
/* Of this engine in this version.  Fills expected and as_expected. */
mp_code mp_judge_expectation(mp_arena *a, const mp_scenario *s, const char *engine,
                             const char *version, mp_cell_result *out, mp_error *err);
/* Fills budget: the broken ones, or NULL.  Only of a cell that succeeded. */
void mp_judge_budgets(mp_arena *a, const mp_scenario *s, const mp_metrics *m, mp_cell_result *out);
/* True when the checkpoint's files are what failed: bad input, not a bad run. */
bool mp_judge_bad_input(const mp_cell_result *r);

#endif
