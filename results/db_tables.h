/* The tables of schema.sql as data, for what treats all of them alike: merge and export.  A table
 * that is added to schema.sql is found here by itself. */
#ifndef MP_RESULTS_DB_TABLES_H
#define MP_RESULTS_DB_TABLES_H

#include "results/db.h"

enum { MP_DB_TABLES = 32, MP_DB_COLUMNS = 40, MP_DB_NAME = 32 };

typedef struct mp_db_column {
    char name[MP_DB_NAME];
    char type[8];
    int target; /* the table whose id this is; -1: it is none */
    int key;    /* its place in the primary key, from 1; 0: no part of it */
    bool fixed; /* known from the start: NOT NULL, without a default */
} mp_db_column;

typedef struct mp_db_table {
    char name[MP_DB_NAME];
    mp_db_column columns[MP_DB_COLUMNS];
    int count;
} mp_db_table;

typedef struct mp_db_tables {
    mp_db_table tables[MP_DB_TABLES]; /* a table stands behind those that it refers to */
    int count;
} mp_db_tables;

/* Of this program, whatever a file says; mp_free. */
mp_code mp_db_tables_load(mp_db_tables **out, mp_error *err);
/* MP_EDB unless all tables of s are these: a file may have a view or other columns under the name
 * of a table. */
mp_code mp_db_tables_check(const mp_db_tables *x, mp_store *s, mp_error *err);
/* The number of a table; -1: there is none of that name. */
int mp_db_table_find(const mp_db_tables *x, const char *name);
/* Whether rows are known by a number that is this file's alone, their `id`. */
bool mp_db_table_has_id(const mp_db_table *t);

#endif
