#include "results/store.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "results/db.h"
#include "results/metrics.h"

/* ---- transactions --------------------------------------------------------------------------- */

/* Of what only begins: a kill leaves it, and a power cut may take it, but no result with
 * it.  So nobody waits for the disk; the next result takes it there. */
static mp_code announce(mp_store *s, mp_error *err)
{
    return mp_db_exec(s, "PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE", err);
}

static mp_code announced(mp_store *s, mp_error *err)
{
    mp_db_end_writing(s, err);
    sqlite3_exec(s->db, "PRAGMA synchronous = FULL", NULL, NULL, NULL);
    return err->code;
}

static mp_code put_pairs(mp_store *s, const char *sql, int64_t owner, const mp_pair *pairs, int n,
                         mp_error *err)
{
    sqlite3_stmt *q;

    mp_db_prepare(s, sql, &q, err);
    for (int i = 0; i < n && !err->code; i++)
        if (!mp_db_bind(s, q, err, "itt", owner, pairs[i].key, pairs[i].value))
            mp_db_put(s, q, err);
    sqlite3_finalize(q);
    return err->code;
}

/* ---- runs ----------------------------------------------------------------------------------- */

mp_code mp_store_begin_run(mp_store *s, const mp_run_info *run, int64_t *out, mp_error *err)
{
    sqlite3_stmt *q = NULL;

    *out = 0;
    if (announce(s, err))
        return announced(s, err);
    if (!mp_db_prepare(s,
                       "INSERT INTO run (uuid, label, engine, device, command, plan, fingerprint, "
                       "started) VALUES (?, ?, ?, ?, ?, ?, ?, " MP_DB_NOW ")",
                       &q, err) &&
        !mp_db_bind(s, q, err, "ttttttt", run->uuid, run->label, run->engine, run->device,
                    run->command, run->plan, run->fingerprint))
        mp_db_put(s, q, err);
    sqlite3_finalize(q);
    const int64_t id = sqlite3_last_insert_rowid(s->db);
    if (!err->code)
        put_pairs(s, "INSERT INTO run_environment VALUES (?, ?, ?)", id, run->environment,
                  run->environment_count, err);
    if (!announced(s, err))
        *out = id;
    return err->code;
}

mp_code mp_store_end_run(mp_store *s, int64_t run, int exit_status, mp_error *err)
{
    sqlite3_stmt *q = NULL;

    if (mp_db_begin_writing(s, err))
        return err->code;
    if (!mp_db_prepare(s,
                       "UPDATE run SET ended = " MP_DB_NOW
                       ", exit_status = ? WHERE id = ? AND ended "
                       "IS NULL",
                       &q, err) &&
        !mp_db_bind(s, q, err, "ii", (int64_t)exit_status, run))
        mp_db_put(s, q, err);
    sqlite3_finalize(q);
    return mp_db_end_writing(s, err);
}

static mp_code mark_interrupted(mp_store *s, int64_t run, mp_error *err)
{
    sqlite3_stmt *q = NULL;

    if (!mp_db_prepare(s,
                       "UPDATE cell SET status = 'interrupted', ended = " MP_DB_NOW
                       " WHERE run = ? AND status = 'running'",
                       &q, err) &&
        !mp_db_bind(s, q, err, "i", run))
        mp_db_put(s, q, err);
    sqlite3_finalize(q);
    return err->code;
}

mp_code mp_store_resume_run(mp_store *s, const mp_run_info *run, int64_t *out, char uuid[37],
                            mp_error *err)
{
    sqlite3_stmt *q = NULL;
    bool row = false;

    *out = 0;
    if (mp_db_begin_writing(s, err))
        return err->code;
    if (!mp_db_prepare(
            s,
            "SELECT id, uuid FROM run WHERE plan = ?1 AND (label IS ?2 OR (?2 IS NULL AND "
            "label = 'rounds-' || substr(uuid, 1, 8))) AND engine = ?3 AND device = ?4 "
            "AND fingerprint = ?5 ORDER BY id DESC LIMIT 1",
            &q, err) &&
        !mp_db_bind(s, q, err, "ttttt", run->plan, run->label, run->engine, run->device,
                    run->fingerprint))
        mp_db_step(s, q, &row, err);
    const int64_t id = row ? sqlite3_column_int64(q, 0) : 0;
    if (row)
        snprintf(uuid, 37, "%s", mp_db_text(q, 1));
    sqlite3_finalize(q);
    if (!err->code && id)
        mark_interrupted(s, id, err);
    if (!mp_db_end_writing(s, err))
        *out = id;
    return err->code;
}

/* ---- cells ---------------------------------------------------------------------------------- */

static mp_code put_limits(mp_store *s, int64_t cell, const mp_cell_info *info, mp_error *err)
{
    sqlite3_stmt *q = NULL;

    mp_db_prepare(s, "INSERT INTO cell_limit VALUES (?, ?, ?, ?)", &q, err);
    for (int i = 0; i < info->limit_count && !err->code; i++) {
        const mp_limit_row *l = &info->limits[i];
        if (!mp_db_bind(s, q, err, "ittd", cell, l->metric, l->kind, l->value))
            mp_db_put(s, q, err);
    }
    sqlite3_finalize(q);
    return err->code;
}

mp_code mp_store_begin_cell(mp_store *s, int64_t run, const mp_cell_info *cell, int64_t *out,
                            mp_error *err)
{
    sqlite3_stmt *q = NULL;

    *out = 0;
    if (announce(s, err))
        return announced(s, err);
    if (!mp_db_prepare(s,
                       "INSERT INTO cell (run, key, scenario, scenario_hash, pipeline, checkpoint, "
                       "checkpoint_hash, repro, started) VALUES (?, ?, ?, ?, ?, ?, ?, ?, " MP_DB_NOW
                       ")",
                       &q, err) &&
        !mp_db_bind(s, q, err, "ittttttt", run, cell->key, cell->scenario, cell->scenario_hash,
                    cell->pipeline, cell->checkpoint, cell->checkpoint_hash, cell->repro))
        mp_db_put(s, q, err);
    sqlite3_finalize(q);
    const int64_t id = sqlite3_last_insert_rowid(s->db);
    if (!err->code && !put_pairs(s, "INSERT INTO cell_setting VALUES (?, ?, ?)", id, cell->settings,
                                 cell->setting_count, err))
        put_limits(s, id, cell, err);
    if (!announced(s, err))
        *out = id;
    return err->code;
}

static mp_code finish_row(mp_store *s, int64_t cell, const mp_cell_result *r, mp_error *err)
{
    sqlite3_stmt *q = NULL;

    if (!mp_db_prepare(s,
                       "UPDATE cell SET ended = " MP_DB_NOW
                       ", status = ?, outcome = ?, as_expected = ?, "
                       "expected = ?, error = ?, module = ?, op = ?, want = ?, got = ?, stage = ?, "
                       "step = nullif(?, -1), signal = nullif(?, 0), budget = ?, reference = ?, "
                       "warnings = ?, exception = ?, frame = ? WHERE id = ? AND status = "
                       "'running'",
                       &q, err) &&
        !mp_db_bind(s, q, err,
                    "ttittttttt"
                    "ii"
                    "ttttti",
                    r->status, r->outcome, (int64_t)r->as_expected, r->expected, r->error,
                    r->module, r->op, r->want, r->got, r->stage, (int64_t)r->step,
                    (int64_t)r->signal, r->budget, r->reference, r->warnings, r->exception,
                    r->frame, cell))
        mp_db_put(s, q, err);
    sqlite3_finalize(q);
    if (!err->code && sqlite3_changes(s->db) != 1)
        mp_error_set(err, MP_EDB, "%s: cell %lld is not running, so its result cannot be recorded",
                     s->path, (long long)cell);
    return err->code;
}

static const char *nonfinite_name(double value)
{
    return isnan(value) ? "nan" : isinf(value) ? (value < 0 ? "-inf" : "inf") : NULL;
}

static mp_code put_metrics(mp_store *s, int64_t cell, const mp_cell_result *r, mp_error *err)
{
    sqlite3_stmt *q = NULL;

    mp_db_prepare(s, "INSERT INTO metric VALUES (?, ?, ?, ?, ?, ?, ?, ?)", &q, err);
    for (int64_t i = 0; i < r->metric_count && !err->code; i++) {
        const mp_metric_row *m = &r->metrics[i];
        const char *name = nonfinite_name(m->value);
        if (!mp_db_bind(s, q, err, "ittitdtt", cell, m->name, m->stage, (int64_t)m->step, m->module,
                        name ? NAN : m->value, name, m->unit))
            mp_db_put(s, q, err);
    }
    sqlite3_finalize(q);
    return err->code;
}

static mp_code put_samples(mp_store *s, int64_t cell, const mp_cell_result *r, mp_error *err)
{
    sqlite3_stmt *q = NULL;

    mp_db_prepare(s, "INSERT INTO sample VALUES (?, ?, ?, ?)", &q, err);
    for (int64_t i = 0; i < r->sample_count && !err->code; i++)
        if (!mp_db_bind(s, q, err, "iitd", cell, (int64_t)r->samples[i].repeat, r->samples[i].stage,
                        r->samples[i].seconds))
            mp_db_put(s, q, err);
    sqlite3_finalize(q);
    return err->code;
}

static mp_code put_outputs(mp_store *s, int64_t cell, const mp_cell_result *r, mp_error *err)
{
    sqlite3_stmt *q = NULL;

    mp_db_prepare(s, "INSERT INTO output VALUES (?, ?, ?, ?, ?)", &q, err);
    for (int64_t i = 0; i < r->output_count && !err->code; i++) {
        const mp_output_row *o = &r->outputs[i];
        if (!mp_db_bind(s, q, err, "itttt", cell, o->name, o->dtype, o->shape, o->sha256))
            mp_db_put(s, q, err);
    }
    sqlite3_finalize(q);
    return err->code;
}

static mp_code put_actions(mp_store *s, int64_t cell, const mp_cell_result *r, mp_error *err)
{
    sqlite3_stmt *q = NULL;

    mp_db_prepare(s, "INSERT INTO policy_action VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", &q, err);
    for (int64_t i = 0; i < r->action_count && !err->code; i++) {
        const mp_action_row *a = &r->actions[i];
        if (!mp_db_bind(s, q, err, "ittttttiid", cell, a->stage, a->module, a->op, a->kind, a->from,
                        a->to, a->count, a->elements, a->seconds))
            mp_db_put(s, q, err);
    }
    sqlite3_finalize(q);
    return err->code;
}

static mp_code put_ops(mp_store *s, int64_t cell, const mp_cell_result *r, mp_error *err)
{
    sqlite3_stmt *q = NULL;

    mp_db_prepare(s, "INSERT INTO op_profile VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", &q, err);
    for (int64_t i = 0; i < r->op_count && !err->code; i++) {
        const mp_op_row *o = &r->ops[i];
        if (!mp_db_bind(s, q, err, "ittttidii", cell, o->stage, o->module, o->op, o->dtype,
                        o->calls, o->seconds, o->bytes, o->flops))
            mp_db_put(s, q, err);
    }
    sqlite3_finalize(q);
    return err->code;
}

static mp_code put_pictures(mp_store *s, int64_t cell, const mp_cell_result *r, mp_error *err)
{
    sqlite3_stmt *picture = NULL, *owner = NULL;
    char hash[65];

    mp_db_prepare(s, "INSERT OR IGNORE INTO picture VALUES (?, ?, ?, ?)", &picture, err);
    if (!err->code)
        mp_db_prepare(s, "INSERT INTO cell_picture VALUES (?, ?, ?)", &owner, err);
    for (int64_t i = 0; i < r->picture_count && !err->code; i++) {
        const mp_picture_row *p = &r->pictures[i];
        mp_sha256_hex(p->png, p->size, hash);
        if (!mp_db_bind(s, picture, err, "tiib", hash, p->width, p->height, p->png, p->size) &&
            !mp_db_put(s, picture, err) && !mp_db_bind(s, owner, err, "itt", cell, p->role, hash))
            mp_db_put(s, owner, err);
    }
    sqlite3_finalize(picture);
    sqlite3_finalize(owner);
    return err->code;
}

mp_code mp_store_finish_cell(mp_store *s, int64_t cell, const mp_cell_result *result, mp_error *err)
{
    if (mp_db_begin_writing(s, err))
        return err->code;
    if (!finish_row(s, cell, result, err) && !put_metrics(s, cell, result, err) &&
        !put_samples(s, cell, result, err) && !put_outputs(s, cell, result, err) &&
        !put_actions(s, cell, result, err) && !put_ops(s, cell, result, err))
        put_pictures(s, cell, result, err);
    return mp_db_end_writing(s, err);
}

mp_code mp_store_cell_record(mp_store *s, int64_t run, const char *key, mp_cell_record *out,
                             mp_error *err)
{
    sqlite3_stmt *q = NULL;
    bool row = false;

    *out = (mp_cell_record){0};
    if (!mp_db_prepare(
            s,
            "SELECT id, as_expected, budget IS NOT NULL, status, outcome, stage FROM cell "
            "WHERE run = ? AND key = ? AND " MP_DB_FINISHED " ORDER BY id DESC LIMIT 1",
            &q, err) &&
        !mp_db_bind(s, q, err, "it", run, key) && !mp_db_step(s, q, &row, err) && row) {
        out->id = sqlite3_column_int64(q, 0);
        out->as_expected = sqlite3_column_int(q, 1) != 0;
        out->budget_broken = sqlite3_column_int(q, 2) != 0;
        snprintf(out->status, sizeof out->status, "%s", mp_db_text(q, 3));
        snprintf(out->outcome, sizeof out->outcome, "%s", mp_db_text(q, 4));
        snprintf(out->stage, sizeof out->stage, "%s", mp_db_text(q, 5));
    }
    sqlite3_finalize(q);
    return err->code;
}

/* ---- references ----------------------------------------------------------------------------- */

mp_code mp_store_put_reference(mp_store *s, const mp_reference_row *row, mp_error *err)
{
    sqlite3_stmt *q = NULL;

    if (mp_db_begin_writing(s, err))
        return err->code;
    if (!mp_db_prepare(s,
                       "INSERT OR REPLACE INTO reference VALUES (?, " MP_DB_NOW ", ?, ?, ?, ?, ?)",
                       &q, err) &&
        !mp_db_bind(s, q, err, "ttiidd", row->key, row->file_sha256, (int64_t)row->finite,
                    (int64_t)row->constant, row->floor_latents, row->floor_image))
        mp_db_put(s, q, err);
    sqlite3_finalize(q);
    return mp_db_end_writing(s, err);
}

static double number_or_nan(sqlite3_stmt *q, int column)
{
    return sqlite3_column_type(q, column) == SQLITE_NULL ? NAN : sqlite3_column_double(q, column);
}

mp_code mp_store_get_reference(mp_store *s, const char *key, mp_reference_row *out,
                               char file_sha256[65], bool *found, mp_error *err)
{
    sqlite3_stmt *q = NULL;
    bool row = false;

    *found = false;
    if (!mp_db_prepare(s,
                       "SELECT file_sha256, finite, constant, floor_latents, floor_image FROM "
                       "reference WHERE key = ?",
                       &q, err) &&
        !mp_db_bind(s, q, err, "t", key) && !mp_db_step(s, q, &row, err) && row) {
        snprintf(file_sha256, 65, "%s", mp_db_text(q, 0));
        *out = (mp_reference_row){.key = key,
                                  .file_sha256 = file_sha256,
                                  .finite = sqlite3_column_int(q, 1) != 0,
                                  .constant = sqlite3_column_int(q, 2) != 0,
                                  .floor_latents = number_or_nan(q, 3),
                                  .floor_image = number_or_nan(q, 4)};
        *found = true;
    }
    sqlite3_finalize(q);
    return err->code;
}
