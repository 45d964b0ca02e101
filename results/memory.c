#include "results/memory.h"

#include <stdbool.h>
#include <string.h>

#include "results/db.h"

#define STAGE_ORDER                                                                                \
    "CASE stage WHEN 'load' THEN 0 WHEN 'text_encode' THEN 1 WHEN 'denoise' THEN 2 WHEN 'decode' " \
    "THEN 3 ELSE 4 END, stage"

/* weights: pages of the files; rest: libraries, the program's own tables, free room of the pool. */
const char mp_memory_stages[] =
    "WITH part AS (SELECT stage, "
    "total(value) FILTER (WHERE name = 'weights_resident_mib') AS weights, "
    "total(value) FILTER (WHERE name = 'weights_converted_mib') AS converted, "
    "total(value) FILTER (WHERE name = 'activations_mib' AND module = '') AS activations, "
    "total(value) FILTER (WHERE name = 'scratch_mib') AS scratch, "
    "max(value) FILTER (WHERE name = 'rss_peak_mib') AS peak "
    "FROM metric WHERE cell = ? AND step = -1 GROUP BY stage) "
    "SELECT stage, weights, converted, activations, scratch, "
    "max(0.0, peak - weights - converted - activations - scratch) AS rest, peak "
    "FROM part WHERE peak IS NOT NULL ORDER BY " STAGE_ORDER;

const char mp_memory_modules[] =
    "SELECT stage, module, value AS mib FROM metric WHERE cell = ? AND step = -1 AND "
    "name = 'activations_mib' AND module <> '' ORDER BY " STAGE_ORDER ", value DESC, module";

enum { PARTS = 5, BAR = 32, SHOWN = 5 };
static const char marks[PARTS + 1] = "#=*%."; /* weights, converted, activations, scratch, rest */

/* bar: "####**.", whose whole width is `most` MiB. */
static void draw(const double parts[PARTS], double most, char bar[BAR + 1])
{
    double sum = 0;
    int at = 0;

    for (int i = 0; i < PARTS; i++) {
        sum += parts[i];
        const int end = most > 0 ? (int)(sum / most * BAR + 0.5) : 0;
        for (; at < end && at < BAR; at++)
            bar[at] = marks[i];
    }
    bar[at] = '\0';
}

static void add_stage(mp_table *t, sqlite3_stmt *q, double most)
{
    double parts[PARTS];
    char bar[BAR + 1];

    for (int i = 0; i < PARTS; i++)
        parts[i] = sqlite3_column_double(q, 1 + i);
    draw(parts, most, bar);
    mp_table_add(t, "%s", mp_db_text(q, 0));
    for (int i = 1; i <= PARTS + 1; i++)
        mp_table_add(t, "%.1f", sqlite3_column_double(q, i));
    mp_table_add(t, "%s", bar);
}

/* The largest peak, 0: there is none. */
static mp_code largest(mp_store *s, sqlite3_stmt *q, double *out, mp_error *err)
{
    bool row = true;

    *out = 0;
    while (!mp_db_step(s, q, &row, err) && row)
        if (*out < sqlite3_column_double(q, PARTS + 1))
            *out = sqlite3_column_double(q, PARTS + 1);
    sqlite3_reset(q);
    return err->code;
}

static mp_code show_stages(mp_store *s, sqlite3_stmt *q, mp_format format, FILE *to, mp_error *err)
{
    static const char *const heads[] = {"stage",    "weights>", "converted>", "activations>",
                                        "scratch>", "rest>",    "peak>",      "#=*%."};
    mp_table *t = mp_table_create(sizeof heads / sizeof *heads, heads);
    bool row = true;
    double most;

    if (!largest(s, q, &most, err))
        while (!mp_db_step(s, q, &row, err) && row)
            add_stage(t, q, most);
    if (!err->code && mp_table_rows(t)) {
        fputs(format == MP_MARKDOWN ? "\n### memory, MiB\n\n" : "\nmemory, MiB\n", to);
        mp_table_print(t, format, 2, to);
    }
    mp_table_free(t);
    return err->code;
}

static mp_code show_modules(mp_store *s, sqlite3_stmt *q, mp_format format, FILE *to, mp_error *err)
{
    static const char *const heads[] = {"stage", "MiB>", "activations at its peak"};
    mp_table *t = mp_table_create(sizeof heads / sizeof *heads, heads);
    char stage[64] = "";
    bool row = true;
    int shown = 0;

    while (!mp_db_step(s, q, &row, err) && row) {
        const bool same = !strcmp(stage, mp_db_text(q, 0));
        shown = same ? shown + 1 : 1;
        snprintf(stage, sizeof stage, "%s", mp_db_text(q, 0));
        if (shown > SHOWN)
            continue;
        mp_table_add(t, "%s", same ? "" : stage);
        mp_table_add(t, "%.1f", sqlite3_column_double(q, 2));
        mp_table_add(t, "%s", mp_db_text(q, 1));
    }
    if (!err->code && mp_table_rows(t)) {
        fputc('\n', to);
        mp_table_print(t, format, 2, to);
    }
    mp_table_free(t);
    return err->code;
}

mp_code mp_memory_show(mp_store *s, int64_t id, mp_format format, FILE *to, mp_error *err)
{
    sqlite3_stmt *stages = NULL, *modules = NULL;

    if (!mp_db_prepare(s, mp_memory_stages, &stages, err) && !mp_db_bind(s, stages, err, "i", id) &&
        !mp_db_prepare(s, mp_memory_modules, &modules, err) &&
        !mp_db_bind(s, modules, err, "i", id) && !show_stages(s, stages, format, to, err))
        show_modules(s, modules, format, to, err);
    sqlite3_finalize(stages);
    sqlite3_finalize(modules);
    return err->code;
}
