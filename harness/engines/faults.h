/* Faults on purpose, in the tests' build only (MPBENCH_FAULTS): the environment variable
 * MPBENCH_FAULT=KIND@MODULE makes a fault when an op in a module that matches the glob has run.
 * Kinds: segv, kill, abort, hang, exit, oom, nan, inf, stack.  Elsewhere it is nothing. */
#ifndef MP_HARNESS_ENGINES_FAULTS_H
#define MP_HARNESS_ENGINES_FAULTS_H

#include "harness/engines/counters.h"
#include "kernels/core/ctx.h"

void mp_faults_install(mp_ctx *c);
/* What a cell counts: hardware; with MPBENCH_COUNTERS=software, where there are faults, software.
 */
const mp_counter_kind *mp_faults_counters(void);

#endif
