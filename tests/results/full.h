/* A database with rows in every table, and what a database says whatever the ids in it. */
#ifndef MP_TESTS_RESULTS_FULL_H
#define MP_TESTS_RESULTS_FULL_H

#include "results/export.h"
#include "tests/results/scratch.h"

/* A row of a run says in its texts which run it is of: '#'. */
static const char full_sql[] =
    "INSERT INTO run VALUES (NULL, 'uuid-#', 'night #', 'native', 'cpu', 'mpbench run', 'plan', "
    "'machine', '2026-01-0#T00:00:00.000Z', '2026-01-0#T00:09:00.000Z', 0);"
    "INSERT INTO run_environment SELECT max(id), 'cpu', 'cpu of #' FROM run;"
    "INSERT INTO run_environment SELECT max(id), 'git_commit', 'commit #' FROM run;"
    "INSERT INTO cell (run, key, scenario, scenario_hash, pipeline, checkpoint, checkpoint_hash, "
    "repro, started, ended, status, as_expected, error, step, reference) SELECT max(id), "
    "'sana/fp16', 'sana', 's', 'sana', 'tiny', 'c', 'mpbench run #', '2026-01-0#T00:01:00.000Z', "
    "'2026-01-0#T00:02:00.000Z', 'error', 1, 'text of #', 3, 'ref' FROM run;"
    "INSERT INTO cell (run, key, scenario, scenario_hash, pipeline, checkpoint, checkpoint_hash, "
    "repro, started, ended, status, as_expected, reference) SELECT max(id), 'sd3/bf16', 'sd3', "
    "'s', 'sd3', 'tiny', 'c', 'mpbench run', '2026-01-0#T00:02:00.000Z', "
    "'2026-01-0#T00:03:00.000Z', 'ok', 1, 'ref #' FROM run;"
    "INSERT INTO cell_setting SELECT id, 'inputs.seed', '#' FROM cell WHERE run = (SELECT max(id) "
    "FROM run);"
    "INSERT INTO sample SELECT max(id), 0, 'total', 0.1 + # FROM cell;"
    "INSERT INTO metric SELECT max(id), 'psnr_db', 'run', -1, '', NULL, 'inf', 'dB' FROM cell;"
    "INSERT INTO metric SELECT max(id), 'rel_l2', 'latents', 2, 'm', 0.1 + #, NULL, '1' FROM cell;"
    "INSERT INTO output SELECT max(id), 'image', 'fp32', '[1, 3]', 'hash #' FROM cell;"
    "INSERT INTO policy_action SELECT max(id), 'decode', 'vae', 'conv2d', 'cast_in', 'bf16', "
    "'fp32', #, 64, 0.5 FROM cell;"
    "INSERT INTO op_profile SELECT max(id), 'decode', 'vae', 'conv2d', 'bf16', #, 0.5, 64, "
    "9223372036854775807 FROM cell;"
    "INSERT OR IGNORE INTO reference VALUES ('ref', '2026-01-0#T00:00:00Z', 'file', 1, 0, 1e-7, "
    "NULL);"
    "INSERT INTO reference VALUES ('ref #', '2026-01-0#T00:00:00Z', 'file #', 1, 0, 1e-7, 2.0);"
    "INSERT OR IGNORE INTO picture VALUES ('picture of all', 2, 2, x'89504e47');"
    "INSERT INTO picture VALUES ('picture #', 2, 2, x'89504e470#');"
    "INSERT INTO cell_picture SELECT max(id), 'output', 'picture #' FROM cell;"
    "INSERT INTO cell_picture SELECT max(id), 'reference', 'picture of all' FROM cell;"
    "INSERT INTO cell_limit SELECT max(id), 'peak_mib', 'absolute', 500.0 + # FROM cell;"
    "INSERT INTO baseline SELECT NULL, 'baseline-#', 'main', max(id), '2026-01-0#T01:00:00.000Z', "
    "'why #' FROM run;"
    "INSERT INTO finding SELECT NULL, 'finding-#', 'step', 'sd3/bf16', 'sd3', 'native', 'cpu', "
    "'machine', 'rel_l2', 'latents', 2, 'm', max(id) - 1, max(id) FROM cell;"
    "INSERT INTO finding_event SELECT NULL, max(id), '2026-01-0#T02:00:00.000Z', 'detected', NULL, "
    "0.5, 1.0 + #, 0.001 FROM finding;"
    "INSERT INTO finding_event SELECT NULL, max(id), '2026-01-0#T03:00:00.000Z', 'confirmed', "
    "'why #', 0.5, 1.0 + #, NULL FROM finding;";

/* For each digit of `runs` such a run, in that order. */
static SCRATCH_UNUSED void full_database(const char *path, const char *runs)
{
    char sql[sizeof full_sql];
    mp_store *s = NULL;
    mp_error err = {0};

    if (mp_store_open(path, MP_STORE_WRITE, &s, &err))
        fail_msg("%s", err.text);
    mp_store_close(s);
    for (; *runs; runs++) {
        memcpy(sql, full_sql, sizeof sql);
        for (char *c = sql; (c = strchr(c, '#'));)
            *c = *runs;
        sql_run(path, sql);
    }
}

static SCRATCH_UNUSED int full_by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* All rows of all tables as JSON lines without ids, in order of their texts; free it. */
static SCRATCH_UNUSED char *full_content(const char *path)
{
    const mp_export_options all = {.table = "all"};
    char *text = NULL, *lines[4096], *sorted;
    size_t size, n = 0;
    FILE *f = open_memstream(&text, &size);
    mp_store *s = NULL;
    mp_error err = {0};

    assert_non_null(f);
    if (mp_store_open(path, MP_STORE_RENEW, &s, &err) || mp_export(s, &all, f, &err))
        fail_msg("%s", err.text);
    mp_store_close(s);
    assert_int_equal(fclose(f), 0);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        assert_true(n < sizeof lines / sizeof *lines);
        lines[n++] = line;
    }
    qsort(lines, n, sizeof *lines, full_by_text);
    f = open_memstream(&sorted, &size);
    assert_non_null(f);
    for (size_t i = 0; i < n; i++)
        fprintf(f, "%s\n", lines[i]);
    assert_int_equal(fclose(f), 0);
    free(text);
    return sorted;
}

static SCRATCH_UNUSED void assert_same_content(const char *a, const char *b)
{
    char *of_a = full_content(a), *of_b = full_content(b);

    assert_string_equal(of_a, of_b);
    free(of_a);
    free(of_b);
}

#endif
