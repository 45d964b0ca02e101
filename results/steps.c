#include "results/steps.h"

#include <limits.h>
#include <math.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "results/db.h"

static mp_code grow(mp_steps *s, mp_error *err)
{
    const int room = s->room ? 2 * s->room : 64;
    int *step = mp_realloc(s->step, (size_t)room, sizeof *step);
    double *value = mp_realloc(s->value, (size_t)room, sizeof *value);

    s->step = step ? step : s->step;
    s->value = value ? value : s->value;
    if (!step || !value)
        return mp_error_set(err, MP_ENOMEM, "no memory for the steps of a cell");
    s->room = room;
    return MP_OK;
}

mp_code mp_steps_of(mp_store *s, int64_t cell, const char *metric, const char *stage, mp_steps *out,
                    mp_error *err)
{
    sqlite3_stmt *q = NULL;
    bool row = true;

    out->count = 0;
    if (!mp_db_prepare(s,
                       "SELECT step, value, nonfinite FROM metric WHERE cell = ? AND name = ? AND "
                       "stage = ? AND step BETWEEN 0 AND ? AND module = '' ORDER BY step",
                       &q, err) &&
        !mp_db_bind(s, q, err, "itti", cell, metric, stage, (int64_t)INT_MAX))
        while (!mp_db_step(s, q, &row, err) && row && (out->count < out->room || !grow(out, err))) {
            out->step[out->count] = sqlite3_column_int(q, 0);
            out->value[out->count++] = mp_db_number(q, 1, 2);
        }
    sqlite3_finalize(q);
    return err->code;
}

void mp_steps_free(mp_steps *s)
{
    mp_free(s->step);
    mp_free(s->value);
    *s = (mp_steps){0};
}
