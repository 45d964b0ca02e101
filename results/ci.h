/* What CI shows of a database: JUnit XML for its list of tests, Markdown for a comment. */
#ifndef MP_RESULTS_CI_H
#define MP_RESULTS_CI_H

#include <stdio.h>

#include "results/store.h"

/* A run as JUnit XML, which Jenkins' junit-10.xsd, GitLab and GitHub's actions read: a suite a
 * scenario, with the environment as its properties, and a test case a cell.  A broken budget, and
 * success where failure was expected, is a failure; every other end than the expected one is an
 * error; a cell that its engine does not support, or that was interrupted, is skipped.
 * uuid: of the run; the first of several rounds means all of them. */
mp_code mp_junit_print(mp_store *s, const char *uuid, FILE *to, mp_error *err);

/* Runs as a Markdown summary below MP_MARKDOWN_COMMENT bytes: counts, environment, and the cells,
 * the worst first.  which: a run's id, a UUID (as above) or a label; NULL: the newest run.  Of a
 * label with several runs (the shards of one, or a run and its repetition), the newest cell of each
 * key and machine counts; of rounds, each.  MP_EMISSING when there is no such run. */
mp_code mp_summary_print(mp_store *s, const char *which, FILE *to, mp_error *err);

#endif
