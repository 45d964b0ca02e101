/* The memory of a cell, for `mpbench show`: stage by stage a bar of what it consists of, and the
 * modules whose activations made the peak. */
#ifndef MP_RESULTS_MEMORY_H
#define MP_RESULTS_MEMORY_H

#include <stdio.h>

#include "results/store.h"
#include "results/table.h"

/* Queries of one bound cell id, a row a stage and a row a module, in MiB; without rows where a cell
 * has no peak of its stages on record. */
extern const char mp_memory_stages[], mp_memory_modules[];

/* Both as text or Markdown, in 100 columns. */
mp_code mp_memory_show(mp_store *s, int64_t id, mp_format format, FILE *to, mp_error *err);

#endif
