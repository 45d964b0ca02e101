#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "results/ci.h"
#include "results/db.h"
#include "results/markdown.h"

/* Rows that are not folded away, and bytes of a text in one of them. */
enum { SHOWN = 10, TEXT = 600 };

/* ?1: id of a run, or 0; ?2: UUID, of the first of several rounds, too, or label.  rank: the worst
 * first.  CROSS JOIN: of a year's cells, those of the chosen runs are looked up, and the others are
 * not looked at. */
#define CHOSEN                                                                                     \
    "WITH chosen AS (SELECT *, (SELECT run FROM run_environment e WHERE e.run = run.id AND key = " \
    "'rounds') AS round FROM run WHERE id = ?1 OR uuid = ?2 OR label = ?2 OR id IN (SELECT run "   \
    "FROM run_environment WHERE key = 'rounds' AND value = ?2)), "                                 \
    "judged AS (SELECT cell.*, CASE WHEN status IN ('running', 'interrupted') THEN 3 "             \
    "WHEN as_expected = 0 AND status <> 'ok' THEN 0 WHEN budget IS NOT NULL THEN 1 "               \
    "WHEN as_expected = 0 THEN 2 ELSE 4 + (status = 'ok') END AS rank FROM cell WHERE id IN ("     \
    "SELECT " MP_DB_NEWEST " FROM chosen AS run CROSS JOIN cell ON cell.run = run.id "             \
    "GROUP BY key, engine, device, fingerprint, round)) "

typedef struct mp_choice {
    int64_t id; /* 0: by name */
    const char *name;
} mp_choice;

static mp_code prepare(mp_store *s, const char *sql, const mp_choice *c, sqlite3_stmt **out,
                       mp_error *err)
{
    if (mp_db_prepare(s, sql, out, err))
        return err->code;
    return mp_db_bind(s, *out, err, "it", c->id, c->name);
}

/* ---- which runs ----------------------------------------------------------------------------- */

static mp_code newest_run(mp_store *s, int64_t *id, mp_error *err)
{
    sqlite3_stmt *q = NULL;
    bool row = false;

    if (!mp_db_prepare(s, "SELECT id FROM run ORDER BY started DESC, id DESC LIMIT 1", &q, err) &&
        !mp_db_step(s, q, &row, err) && row)
        *id = sqlite3_column_int64(q, 0);
    sqlite3_finalize(q);
    if (!err->code && !*id)
        mp_error_set(err, MP_EMISSING, "%s: holds no run; `mpbench run` records one",
                     mp_store_path(s));
    return err->code;
}

/* As `compare` reads it: a number is a run's id. */
static mp_code choose(mp_store *s, const char *which, mp_choice *out, mp_error *err)
{
    sqlite3_stmt *q = NULL;
    bool row = false;
    char asked[80] = "";

    *out = (mp_choice){.name = which};
    if (!which)
        return newest_run(s, &out->id, err);
    if (*which && strspn(which, "0123456789") == strlen(which)) {
        out->id = strtoll(which, NULL, 10);
        out->name = NULL;
    }
    if (!prepare(s, CHOSEN "SELECT 1 FROM chosen", out, &q, err) && !mp_db_step(s, q, &row, err) &&
        !row) {
        mp_append_plain(asked, sizeof asked, "", which);
        mp_error_set(err, MP_EMISSING,
                     "%s: '%s' is no run's id, UUID or label; `mpbench list` shows what there is",
                     mp_store_path(s), asked);
    }
    sqlite3_finalize(q);
    return err->code;
}

/* ---- head ----------------------------------------------------------------------------------- */

typedef struct tally {
    int64_t runs, unended, machines, cells, unexpected, over_budget, unfinished;
} tally;

static mp_code count(mp_store *s, const mp_choice *c, tally *t, mp_error *err)
{
    sqlite3_stmt *q = NULL;
    bool row = false;

    if (!prepare(
            s,
            CHOSEN
            "SELECT (SELECT count(*) FROM chosen), (SELECT count(*) FROM chosen WHERE ended "
            "IS NULL), (SELECT count(DISTINCT fingerprint) FROM chosen), count(*), "
            "count(*) FILTER (WHERE rank IN (0, 2)), count(*) FILTER (WHERE rank = 1), count(*) FILTER (WHERE rank = 3) "
            "FROM judged",
            c, &q, err) &&
        !mp_db_step(s, q, &row, err)) {
        int64_t *const out[] = {&t->runs,       &t->unended,     &t->machines,  &t->cells,
                                &t->unexpected, &t->over_budget, &t->unfinished};
        for (size_t i = 0; i < sizeof out / sizeof *out; i++)
            *out[i] = sqlite3_column_int64(q, (int)i);
    }
    sqlite3_finalize(q);
    return err->code;
}

static void add_count(mp_markdown *m, const char *mark, int64_t n, const char *what)
{
    if (n)
        mp_markdown_text(m, "- %s %" PRId64 " cell%s %s\n", mark, n, n == 1 ? "" : "s", what);
}

static void add_head(mp_markdown *m, const tally *t)
{
    const bool fine = !t->unexpected && !t->over_budget && !t->unfinished && !t->unended;

    mp_markdown_text(m, "### %s\n\n",
                     t->over_budget  ? "❌ mpbench: REGRESSION"
                     : t->unexpected ? "❌ mpbench: UNEXPECTED"
                     : fine          ? "✅ mpbench: OK"
                                     : "⚠️ mpbench: INCOMPLETE");
    add_count(m, "❌", t->unexpected, "not as expected");
    add_count(m, "📉", t->over_budget, "over budget");
    add_count(m, "⏸️", t->unfinished, "not finished");
    add_count(m, "✅", t->cells - t->unexpected - t->over_budget - t->unfinished, "as expected");
    if (t->unended)
        mp_markdown_text(
            m, "- ⚠️ %" PRId64 " of %" PRId64 " runs did not end: cells are missing\n",
            t->unended, t->runs);
    if (t->machines > 1)
        mp_markdown_text(
            m, "- ⚠️ measured on %" PRId64 " different machines: times do not compare\n",
            t->machines);
    mp_markdown_text(m, "\n");
}

/* A line for each engine and machine. */
static mp_code add_environment(mp_store *s, const mp_choice *c, mp_markdown *m, mp_error *err)
{
    static const char sql[] = CHOSEN
        "SELECT DISTINCT engine || ' on ' || device || ', ' || coalesce(" MP_DB_TOLD
        "'cpu'), '') || ', ' || coalesce(" MP_DB_TOLD
        "'isa'), '') || ', threads ' || coalesce(" MP_DB_TOLD
        "'threads'), '') || ', mpbench ' || coalesce(" MP_DB_TOLD "'mpbench'), ''), " MP_DB_TOLD
        "'git_commit'), substr(fingerprint, 1, 8) FROM chosen AS run ORDER BY 1, 2, 3";
    sqlite3_stmt *q = NULL;
    bool row = true;

    if (!prepare(s, sql, c, &q, err))
        while (!mp_db_step(s, q, &row, err) && row) {
            FILE *to = mp_markdown_row(m);
            mp_print_markdown(to, mp_db_text(q, 0));
            fputs(", machine ", to);
            mp_print_markdown(to, mp_db_text(q, 2));
            if (*mp_db_text(q, 1)) {
                fputs(", commit ", to);
                mp_markdown_code(to, mp_db_text(q, 1), TEXT);
            }
            fputs("\n", to);
        }
    sqlite3_finalize(q);
    mp_markdown_text(m, "\n");
    return err->code;
}

/* ---- cells ---------------------------------------------------------------------------------- */

static void add_line(FILE *to, const char *name, const char *text)
{
    if (!*text)
        return;
    fprintf(to, "  - %s ", name);
    mp_markdown_code(to, text, TEXT);
    fputc('\n', to);
}

/* q: id, key, status, rank, error, module, expected, budget, repro, as_expected */
static void add_finding(mp_markdown *m, sqlite3_stmt *q)
{
    static const char *const marks[] = {"❌", "📉", "❌", "⏸️"};
    const int rank = sqlite3_column_int(q, 3);
    const char *module = mp_db_text(q, 5);
    FILE *to = mp_markdown_row(m);

    fprintf(to, "- %s **%s** ", marks[rank],
            rank == 1   ? "over budget"
            : rank == 2 ? "unexpected success"
                        : mp_db_text(q, 2));
    mp_markdown_code(to, mp_db_text(q, 1), TEXT);
    if (*module) {
        fputs(" in ", to);
        mp_markdown_code(to, module, TEXT);
    }
    fprintf(to, ", cell %" PRId64 "\n", (int64_t)sqlite3_column_int64(q, 0));
    add_line(to, "error", mp_db_text(q, 4));
    if (rank != 3 && !sqlite3_column_int(q, 9))
        add_line(to, "expected", *mp_db_text(q, 6) ? mp_db_text(q, 6) : "success");
    add_line(to, "budget", mp_db_text(q, 7));
    mp_markdown_code_block(to, mp_db_text(q, 8), 2);
}

/* What needs a look: the first SHOWN in view. */
static mp_code add_findings(mp_store *s, const mp_choice *c, int64_t all, mp_markdown *m,
                            mp_error *err)
{
    sqlite3_stmt *q = NULL;
    bool row = true;

    if (!prepare(s,
                 CHOSEN "SELECT id, key, status, rank, error, module, expected, budget, repro, "
                        "as_expected FROM judged WHERE rank < 4 ORDER BY rank, key, id",
                 c, &q, err))
        for (int64_t i = 0; !mp_db_step(s, q, &row, err) && row; i++) {
            if (i == SHOWN)
                mp_markdown_details(m, "%" PRId64 " more", all - SHOWN);
            add_finding(m, q);
        }
    sqlite3_finalize(q);
    mp_markdown_details_end(m);
    mp_markdown_text(m, "\n");
    return err->code;
}

#define SUMMARY(name, format)                                                                   \
    "coalesce((SELECT coalesce(nonfinite, printf('" format "', value)) FROM metric WHERE cell " \
    "= judged.id AND name = '" name "' AND stage = 'run' AND step = -1 AND module = ''), '-')"

static mp_code add_table(mp_store *s, const mp_choice *c, mp_markdown *m, mp_error *err)
{
    static const char *const heads[] = {"id>",      "cell",  "status",  "latents>",
                                        "picture>", "PSNR>", "time s>", "peak MiB>"};
    enum { COLUMNS = sizeof heads / sizeof *heads };
    mp_table *t = mp_table_create(COLUMNS, heads);
    sqlite3_stmt *q = NULL;
    bool row = true;

    if (t &&
        !prepare(
            s,
            CHOSEN
            "SELECT id, key, status || CASE rank WHEN 0 THEN ' (unexpected)' WHEN 1 THEN "
            "' (over budget)' WHEN 2 THEN ' (unexpected)' WHEN 4 THEN ' (expected)' ELSE '' "
            "END, " SUMMARY("latent_rel_l2", "%.3g") ", " SUMMARY("image_rel_l2", "%.3g") ", " SUMMARY(
                "psnr_db",
                "%.1f") ", " SUMMARY("seconds",
                                     "%.3f") ", " SUMMARY("peak_mib",
                                                          "%.0f") " FROM judged ORDER BY rank < 4 DESC, key, id",
            c, &q, err))
        while (!mp_db_step(s, q, &row, err) && row)
            for (int i = 0; i < COLUMNS; i++)
                mp_table_add(t, "%s", mp_db_text(q, i));
    sqlite3_finalize(q);
    if (t && !err->code) {
        mp_markdown_details(m, "All cells");
        mp_markdown_rows(m, t, 0, mp_table_rows(t));
        mp_markdown_details_end(m);
    }
    mp_table_free(t);
    return t ? err->code : mp_error_set(err, MP_ENOMEM, "no memory for the table of cells");
}

static mp_code summarize(mp_store *s, const char *which, mp_markdown *m, mp_error *err)
{
    mp_choice c;
    tally t = {0};

    if (choose(s, which, &c, err) || count(s, &c, &t, err))
        return err->code;
    add_head(m, &t);
    if (add_environment(s, &c, m, err) ||
        add_findings(s, &c, t.unexpected + t.over_budget + t.unfinished, m, err))
        return err->code;
    return add_table(s, &c, m, err);
}

mp_code mp_summary_print(mp_store *s, const char *which, FILE *to, mp_error *err)
{
    mp_markdown *m = mp_markdown_create(to, MP_MARKDOWN_COMMENT);

    if (!m)
        return mp_error_set(err, MP_ENOMEM, "no memory for the summary");
    if (!mp_db_begin_reading(s, err)) {
        summarize(s, which, m, err);
        mp_db_end_reading(s);
    }
    return mp_markdown_close(m, "rows", err);
}
