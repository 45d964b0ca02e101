/* `mpbench export`: a table of the database as CSV or JSON lines, row by row in constant memory;
 * results/FORMATS.md.  Rows say of which run and cell they are by UUID, key and start. */
#ifndef MP_RESULTS_EXPORT_H
#define MP_RESULTS_EXPORT_H

#include <stdio.h>

#include "results/store.h"

/* "cells", "metrics" ..., "all", NULL */
extern const char *const mp_export_names[];

typedef struct mp_export_options {
    const char *table;    /* one of the names; "all" in JSON lines only */
    const char *run;      /* an id, a UUID or a label; NULL: all */
    const char *scenario; /* NULL: all */
    bool csv;             /* else JSON lines */
} mp_export_options;

/* To be asked first, also before a file is opened to write.  s: opened with MP_STORE_RENEW.
 * MP_EMISSING: there is no such run or scenario; MP_EDB: its tables are none of mpbench's. */
mp_code mp_export_check(mp_store *s, const mp_export_options *o, mp_error *err);
/* Stops early where `to` takes no more: whether it took everything, its owner asks it. */
mp_code mp_export(mp_store *s, const mp_export_options *o, FILE *to, mp_error *err);

#endif
