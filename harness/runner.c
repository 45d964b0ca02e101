#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/digest.h"
#include "harness/run.h"
#include "harness/uuid.h"
#include "kernels/core/memory.h"
#include "pipelines/common/file.h"
#include "pipelines/common/preview.h"
#include "results/ci.h"
#include "results/metrics.h"

/* ---- a cell --------------------------------------------------------------------------------- */

mp_code mp_run_engine(mp_run *r, mp_engine *engine, const mp_scenario *s, int64_t cell,
                      mp_execution *e, mp_outputs **out, mp_error *err)
{
    const char *folder = mp_arena_printf(r->arena, "%s/outputs", r->scratch.folder);
    const mp_job job = {.pipeline = s->pipeline,
                        .request = s->request,
                        .e4m3 = s->e4m3,
                        .repeat = s->repeat,
                        .warmup = s->warmup,
                        .timeout = s->timeout,
                        .memory = s->memory,
                        .outputs = folder,
                        .cell = cell,
                        .trace = cell ? r->trace : NULL};

    *out = NULL;
    *e = (mp_execution){0};
    if (mp_outputs_begin(folder, err))
        return err->code;
    if (!engine->def->run(engine, r->arena, &job, true, e, err))
        mp_outputs_gather(folder, &e->record, out, err);
    mp_outputs_end(folder); /* what was opened stays readable */
    return err->code;
}

static void add_warning(mp_execution *e, const char *text)
{
    mp_text_printf(&e->record.warnings, "%s%s", e->record.warnings.length ? "\n" : "", text);
}

/* Its picture for people, where there is one and it is finite. */
static mp_code keep_picture(mp_cell_report *report, const char *role, const mp_outputs *x,
                            mp_error *err)
{
    mp_tensor face;
    mp_preview p;

    if (!mp_outputs_face(x, &face) || mp_preview_make(face, &p, err) || !p.png)
        return err->code;
    report->pictures[report->result.picture_count++] = (mp_picture_row){
        .role = role, .width = p.width, .height = p.height, .png = p.png, .size = p.size};
    report->result.pictures = report->pictures;
    return MP_OK;
}

static void free_pictures(mp_cell_report *report)
{
    for (size_t i = 0; i < sizeof report->pictures / sizeof *report->pictures; i++)
        mp_free((void *)report->pictures[i].png);
    report->result.picture_count = 0;
}

/* Distances from the reference; without one, a warning that says why. */
static mp_code measure_against(mp_run *r, const mp_cell *cell, mp_execution *e, const mp_outputs *x,
                               mp_cell_report *report, mp_error *err)
{
    mp_outputs *ref = NULL, *untiled = NULL;
    mp_reference_row row = {0}, other = {0};
    const char *trouble = NULL;
    const bool tiled = cell->scenario.request.tiling.on;

    if (!cell->scenario.reference || !mp_outputs_count(x))
        return MP_OK;
    if (!mp_run_reference(r, cell, false, &ref, &row, &trouble, err) && ref) {
        report->result.reference = mp_arena_strdup(r->arena, row.key);
        const char *misfit = mp_measure_drift(&report->metrics, e, x, ref);
        if (misfit)
            add_warning(e, misfit);
        mp_measure_floor(&report->metrics, row.floor_latents, row.floor_image);
        keep_picture(report, "reference", ref, err);
        if (!row.finite || row.constant)
            add_warning(e, row.finite ? "the reference's picture is constant: nothing can be "
                                        "judged by it"
                                      : "the reference is not finite: nothing can be judged by it");
    }
    if (!err->code && ref && tiled &&
        !mp_run_reference(r, cell, true, &untiled, &other, &trouble, err) && untiled)
        mp_measure_seam(&report->metrics, x, untiled, &cell->scenario.request.tiling);
    if (trouble)
        add_warning(
            e, mp_arena_printf(r->arena, "no %sreference: %s", ref ? "untiled " : "", trouble));
    mp_outputs_close(ref);
    mp_outputs_close(untiled);
    return err->code;
}

static mp_output_row *output_rows(mp_arena *a, const mp_record *rec)
{
    mp_output_row *rows = mp_arena_alloc(a, (size_t)rec->tensor_count + 1, sizeof *rows);

    for (int i = 0; i < rec->tensor_count; i++) {
        const mp_captured *t = &rec->tensors[i];
        mp_text shape = {0};
        mp_text_add(&shape, "[");
        for (int d = 0; d < t->rank; d++)
            mp_text_printf(&shape, "%s%lld", d ? ", " : "", (long long)t->dim[d]);
        mp_text_add(&shape, "]");
        rows[i] = (mp_output_row){.name = t->name,
                                  .dtype = mp_dtype_name(t->dtype),
                                  .shape = mp_text_take(&shape, a),
                                  .sha256 = t->sha256};
    }
    return rows;
}

/* Of a cell that is well. */
static void count_instructions(mp_run *r, const mp_cell *cell, mp_execution *e,
                               mp_cell_report *report)
{
    const char *trouble = NULL;

    if (!r->options->callgrind || strcmp(report->result.status, "ok"))
        return;
    const double count = mp_callgrind_count(r->arena, &r->callgrind, cell->repro, &trouble);
    if (trouble)
        add_warning(e, mp_arena_printf(r->arena, "no count of instructions: %s", trouble));
    else
        mp_measure_instructions(&report->metrics, count,
                                mp_arena_printf(r->arena, "Ir %s", r->callgrind.isa));
}

/* Everything there is to say about an execution, into the report. */
static mp_code evaluate(mp_run *r, const mp_cell *cell, mp_execution *e, const mp_outputs *x,
                        mp_cell_report *report, mp_error *err)
{
    mp_cell_result *res = &report->result;

    mp_judge_end(r->arena, e, &cell->scenario, x, res);
    mp_measure_process(&report->metrics, e);
    count_instructions(r, cell, e, report);
    if (strcmp(res->status, "interrupted") &&
        (keep_picture(report, "output", x, err) || measure_against(r, cell, e, x, report, err)))
        return err->code;
    if (e->record.differing)
        add_warning(e, mp_arena_printf(r->arena,
                                       "%d outputs of later repeats differ from the "
                                       "first one's: the run is not deterministic",
                                       e->record.differing));
    if (mp_judge_expectation(r->arena, &cell->scenario, r->engine->name, r->engine->version, res,
                             err))
        return err->code;
    mp_judge_budgets(r->arena, &cell->scenario, &report->metrics, res);
    res->warnings =
        e->record.warnings.length ? mp_arena_strdup(r->arena, e->record.warnings.data) : NULL;
    res->metrics = report->metrics.rows;
    res->metric_count = report->metrics.count;
    res->samples = e->record.samples;
    res->sample_count = e->record.sample_count;
    res->outputs = output_rows(r->arena, &e->record);
    res->output_count = e->record.tensor_count;
    res->actions = e->record.actions;
    res->action_count = e->record.action_count;
    res->ops = e->record.ops;
    res->op_count = e->record.op_count;
    report->seconds = e->end.seconds;
    return MP_OK;
}

static mp_code run_process(mp_run *r, const mp_cell *cell, mp_cell_report *report, mp_error *err)
{
    mp_execution e;
    mp_outputs *x;

    if (!mp_run_engine(r, r->engine, &cell->scenario, report->id, &e, &x, err) &&
        !evaluate(r, cell, &e, x, report, err) && r->options->dump && mp_outputs_count(x))
        mp_dump_cell(r->options->dump, cell, x, err);
    mp_outputs_close(x);
    mp_record_free(&e.record);
    return err->code;
}

static const mp_limit_row *limit_rows(mp_arena *a, const mp_scenario *s, int *count)
{
    mp_limit_row *rows = mp_arena_alloc(a, 2 * MP_BUDGETS, sizeof *rows);

    *count = 0;
    for (int i = 0; i < s->budget_count; i++) {
        const mp_budget *b = &s->budgets[i];
        if (!isnan(b->absolute))
            rows[(*count)++] = (mp_limit_row){b->name, "absolute", b->absolute};
        if (!isnan(b->relative))
            rows[(*count)++] = (mp_limit_row){b->name, "relative", b->relative};
    }
    return rows;
}

static mp_code begin_cell(mp_run *r, const mp_cell *cell, int64_t *id, mp_error *err)
{
    const mp_scenario *s = &cell->scenario;
    int limits;
    const mp_limit_row *rows = limit_rows(r->arena, s, &limits);
    const mp_cell_info info = {.key = cell->key,
                               .scenario = s->name,
                               .scenario_hash = cell->hash,
                               .pipeline = s->pipeline->name,
                               .checkpoint = s->request.checkpoint,
                               .checkpoint_hash = cell->checkpoint_hash,
                               .repro = cell->repro,
                               .settings = s->settings,
                               .setting_count = s->setting_count,
                               .limits = rows,
                               .limit_count = limits};

    return mp_store_begin_cell(r->store, r->id, &info, id, err);
}

static void count_status(mp_run *r, const mp_cell_report *c)
{
    if (!strcmp(c->result.status, "interrupted"))
        return;
    if (!c->result.as_expected)
        r->round_status = mp_exit_worse(
            r->round_status, mp_judge_bad_input(&c->result) ? MP_EXIT_USAGE : MP_EXIT_FAILED);
    if (c->result.budget)
        r->round_status = mp_exit_worse(r->round_status, MP_EXIT_REGRESSION);
    r->exit_status = mp_exit_worse(r->exit_status, r->round_status);
}

/* True when an earlier part of this run has the cell's result. */
static bool recorded(mp_run *r, const mp_cell *cell, mp_cell_report *report, mp_error *err)
{
    mp_cell_record rec;

    if (mp_store_cell_record(r->store, r->id, cell->key, &rec, err) || !rec.id)
        return false;
    report->id = rec.id;
    report->recorded = true;
    report->result.status = mp_arena_strdup(r->arena, rec.status);
    report->result.outcome = *rec.outcome ? mp_arena_strdup(r->arena, rec.outcome) : NULL;
    report->result.stage = *rec.stage ? mp_arena_strdup(r->arena, rec.stage) : NULL;
    report->result.as_expected = rec.as_expected;
    report->result.budget = rec.budget_broken ? "a budget was broken; see `mpbench show`" : NULL;
    return true;
}

static mp_code run_cell(mp_run *r, int round, int index, mp_error *err)
{
    const mp_cell *cell = &r->plan.cells[index];
    mp_cell_report *report = &r->reports[r->report_count++];

    *report = (mp_cell_report){
        .cell = cell, .run = r->id, .round = round + 1, .metrics = {.arena = r->arena}};
    report->result.step = -1;
    report->result.status = "interrupted";
    if (r->options->resume && (recorded(r, cell, report, err) || err->code)) {
        count_status(r, report);
        return err->code;
    }
    mp_report_begin(cell, r->report_count, r->plan.count * r->options->rounds);
    if (begin_cell(r, cell, &report->id, err))
        return err->code;
    if (r->trace)
        mp_trace_cell(r->trace, report->id, cell->key);
    if (!run_process(r, cell, report, err)) {
        if (mp_interrupted()) /* a half-made reference would make half a result */
            report->result = (mp_cell_result){.status = "interrupted", .step = -1};
        mp_store_finish_cell(r->store, report->id, &report->result, err);
    }
    free_pictures(report);
    if (err->code)
        return err->code;
    count_status(r, report);
    mp_report_progress(report);
    return MP_OK;
}

/* ---- the run -------------------------------------------------------------------------------- */

static mp_code open_cache(mp_run *r, const char *db, mp_error *err)
{
    const char *given = getenv("MPBENCH_CACHE");

    r->cache = given && *given ? given : mp_arena_printf(r->arena, "%s.cache", db);
    if (mp_make_folders(r->cache, err))
        return err->code;
    if (access(r->cache, W_OK))
        return mp_error_set(err, MP_EIO,
                            "%s: cannot be written: %s; name another folder with MPBENCH_CACHE",
                            r->cache, strerror(errno));
    return mp_scratch_open(r->arena, r->cache, &r->scratch, err);
}

static mp_code hash_checkpoints(mp_run *r, mp_error *err)
{
    for (int i = 0; i < r->plan.count; i++) {
        mp_cell *c = &r->plan.cells[i];
        int same = 0;
        while (same < i && strcmp(r->plan.cells[same].scenario.request.checkpoint,
                                  c->scenario.request.checkpoint))
            same++;
        if (same < i)
            memcpy(c->checkpoint_hash, r->plan.cells[same].checkpoint_hash, 65);
        else if (mp_digest_folder(r->arena, r->cache, c->scenario.request.checkpoint,
                                  c->checkpoint_hash, err))
            return err->code;
    }
    return MP_OK;
}

/* What --resume goes by: another version of a library is another run, and so is another round; the
 * later ones are those of their first. */
static const char *plan_of(const mp_run *r, int round)
{
    const bool native = r->engine->def == &mp_native_engine;
    mp_text t = {0};
    char *hash;

    if (native && r->options->rounds == 1)
        return r->plan.hash;
    mp_text_add(&t, r->plan.hash);
    if (!native)
        mp_text_printf(&t, "\n%s\n%s", r->engine->identity, r->options->reference);
    if (r->options->rounds > 1)
        mp_text_printf(&t, "\nround %d of %d\n%s", round + 1, r->options->rounds,
                       round ? r->first : "");
    hash = mp_arena_alloc(r->arena, 65, 1);
    mp_sha256_hex(t.data, t.length, hash);
    mp_text_free(&t);
    return hash;
}

/* The machine's, what the engine adds, and what holds the rounds together. */
static const mp_pair *environment_of(const mp_run *r, int *count)
{
    const mp_environment *m = &r->environment;
    const mp_engine *e = r->engine;
    mp_pair *all =
        mp_arena_alloc(r->arena, (size_t)(m->count + e->environment_count) + 1, sizeof *all);

    memcpy(all, m->pairs, (size_t)m->count * sizeof *all);
    if (e->environment_count)
        memcpy(all + m->count, e->environment, (size_t)e->environment_count * sizeof *all);
    *count = m->count + e->environment_count;
    if (r->options->rounds > 1)
        all[(*count)++] = (mp_pair){"rounds", r->first};
    return all;
}

static mp_code resume_run(mp_run *r, const mp_run_info *info, int round, mp_error *err)
{
    if (!r->options->resume || mp_store_resume_run(r->store, info, &r->id, r->uuid, err))
        return err->code;
    if (r->id)
        fprintf(stderr, "resuming run %lld\n", (long long)r->id);
    else if (!round)
        fputs("nothing to resume: no run of these cells with this label on this machine is in the "
              "database; starting one\n",
              stderr);
    return MP_OK;
}

/* The run of one round, from 0. */
static mp_code begin_run(mp_run *r, int round, mp_error *err)
{
    int pairs;

    if (!round)
        mp_environment_hear_git(r->arena, r->git, &r->environment);
    r->git = NULL;
    mp_run_info info = {.uuid = r->uuid,
                        .label = round ? r->label : r->options->label,
                        .engine = r->engine->name,
                        .device = r->options->device,
                        .command = r->options->command,
                        .plan = plan_of(r, round),
                        .fingerprint = r->environment.fingerprint,
                        .environment = environment_of(r, &pairs),
                        .environment_count = pairs};

    r->id = 0;
    r->round_status = MP_EXIT_OK;
    if (mp_uuid_make(r->uuid, err) || resume_run(r, &info, round, err))
        return err->code;
    if (!round) {
        memcpy(r->first, r->uuid, sizeof r->first);
        r->label = r->options->label || r->options->rounds == 1
                       ? r->options->label
                       : mp_arena_printf(r->arena, "rounds-%.8s", r->first);
        info.label = r->label;
    }
    return r->id ? MP_OK : mp_store_begin_run(r->store, &info, &r->id, err);
}

/* Every other round goes backwards, so that a slow drift of the machine's speed cancels. */
static mp_code run_cells(mp_run *r, int round, mp_error *err)
{
    for (int i = 0; i < r->plan.count; i++) {
        if (run_cell(r, round, round % 2 ? r->plan.count - 1 - i : i, err))
            return err->code;
        if (mp_interrupted()) {
            r->trouble = "interrupted";
            return MP_OK;
        }
    }
    return mp_store_end_run(r->store, r->id, r->round_status, err);
}

/* The first round has begun. */
static mp_code run_rounds(mp_run *r, mp_error *err)
{
    const int rounds = r->options->rounds;

    r->reports =
        mp_arena_alloc(r->arena, (size_t)r->plan.count * (size_t)rounds, sizeof *r->reports);
    for (int i = 0; i < rounds && !r->trouble; i++)
        if ((i && begin_run(r, i, err)) || run_cells(r, i, err))
            return err->code;
    return MP_OK;
}

/* In the report, the rounds of a cell stand together. */
static int by_cell(const void *x, const void *y)
{
    const mp_cell_report *a = x, *b = y;

    return a->cell == b->cell ? a->round - b->round : a->cell < b->cell ? -1 : 1;
}

static void close_trace(mp_run *r, mp_error *err)
{
    mp_trace_close(r->trace, err);
    r->trace = NULL;
}

/* A file beside the result, of what is on record of all rounds. */
static void write_file(mp_run *r, const char *path,
                       mp_code (*print)(mp_store *, const char *, FILE *, mp_error *),
                       mp_error *err)
{
    mp_error why = {0};
    FILE *f;

    if (!path)
        return;
    f = fopen(path, "we");
    if (f)
        print(r->store, r->first, f, &why);
    const bool failed = !f || ferror(f);
    if ((f && fclose(f)) || failed)
        mp_error_set(&why, MP_EIO, "%s: cannot be written: %s", path, strerror(errno));
    if (why.code && !err->code)
        *err = why;
}

static void report(mp_run *r, mp_error *err)
{
    if (r->report_count)
        qsort(r->reports, (size_t)r->report_count, sizeof *r->reports, by_cell);
    write_file(r, r->options->junit, mp_junit_print, err);
    write_file(r, r->options->summary, mp_summary_print, err);
    if (err->code) {
        mp_complain("run", err);
        r->trouble = r->trouble ? r->trouble : "not everything could be recorded";
    }
    if (r->trouble) {
        r->exit_status = mp_exit_worse(r->exit_status, MP_EXIT_FAILED);
        fprintf(stderr, "mpbench run: %s; what is on record is kept. Go on with: %s%s\n",
                r->trouble, r->options->command, r->options->resume ? "" : " --resume");
    }
    mp_run_compare(r);
    if (!strcmp(r->options->format, "json"))
        mp_report_json(r);
    else
        mp_report_text(r);
}

static int refuse(const mp_error *err, int status)
{
    mp_complain("run", err);
    return status;
}

/* A checkpoint or scenario that cannot be read is bad input; the rest is the environment. */
static int status_of(mp_code code)
{
    return code == MP_EDB || code == MP_EIO || code == MP_ENOMEM || code == MP_EDEVICE
               ? MP_EXIT_FAILED
               : MP_EXIT_USAGE;
}

/* The engine, and the one that makes the references. */
static mp_code open_engines(mp_run *r, const mp_engine_def *def, mp_error *err)
{
    mp_engine_options o = {.name = r->options->engine,
                           .device = r->options->device,
                           .python = r->options->python,
                           .pythonpath = r->options->pythonpath,
                           .cache = r->cache,
                           .scratch = r->scratch.folder,
                           .machine = &r->environment,
                           .threads = r->options->threads,
                           .keep_worker = r->options->keep_worker};

    if (def->open(r->arena, &o, &r->engine, err))
        return err->code;
    if (r->engine->trouble.code && !mp_interrupted())
        fprintf(stderr, "mpbench run: %s\n", r->engine->trouble.text);
    r->referee = r->engine;
    if (strcmp(r->options->reference, "native") || def == &mp_native_engine)
        return MP_OK;
    o.device = "cpu";
    return mp_native_engine.open(r->arena, &o, &r->referee, err);
}

static void close_all(mp_run *r)
{
    if (r->referee && r->referee != r->engine)
        r->referee->def->close(r->referee);
    if (r->engine)
        r->engine->def->close(r->engine);
    if (r->git)
        pclose(r->git);
    mp_trace_close(r->trace, &(mp_error){0});
    mp_scratch_close(&r->scratch);
    mp_store_close(r->store);
}

/* What is asked for beside the results. */
static mp_code open_views(mp_run *r, mp_error *err)
{
    const mp_run_options *o = r->options;
    const mp_environment *m = &r->environment;

    if (o->callgrind &&
        mp_callgrind_open(r->arena, r->scratch.folder, m->device.isas, m->isa, &r->callgrind, err))
        return err->code;
    return o->trace ? mp_trace_create(o->trace, o->command, &r->trace, err) : MP_OK;
}

/* While a worker started: nothing is on record yet. */
static mp_code stop_if_interrupted(mp_error *err)
{
    return mp_interrupted() ? mp_error_set(err, MP_EIO, "interrupted before anything ran") : MP_OK;
}

/* Where native runs are to be the references, the native engine must be able to make them. */
static mp_code check_references(const mp_run *r, mp_error *err)
{
    for (int i = 0; !strcmp(r->options->reference, "native") && i < r->plan.count; i++) {
        const mp_scenario *s = &r->plan.cells[i].scenario;
        mp_error why = {0};
        if (s->reference && mp_native_engine.check(s, &why))
            return mp_error_set(err, why.code, "%s: --reference native: %s", s->file, why.text);
    }
    return MP_OK;
}

/* A rehearsal that died foretells nothing: the plan is made without it. */
static int report_crashes(const mp_run *r, const mp_foresight *all)
{
    int status = MP_EXIT_OK;

    for (int i = 0; all && i < r->plan.count; i++) {
        const mp_rehearsal *both[] = {&all[i].own, all[i].strict};
        for (int k = 0; k < 2 && both[k]; k++) {
            const mp_cell_result *res = &both[k]->result;
            if (strcmp(res->status, "crash"))
                continue;
            status = MP_EXIT_FAILED;
            fprintf(stderr,
                    "mpbench run: the rehearsal of %s under %s crashed in %s: %s; run the cell "
                    "itself to see how it ends, and please report this\n",
                    mp_plain(r->plan.cells[i].key).text, mp_policy_name(both[k]->policy),
                    res->module ? mp_plain(res->module).text : "no module", res->error);
        }
    }
    return status;
}

static int dry_run(mp_run *r, const mp_engine_def *engine)
{
    mp_foresight *all = NULL;
    mp_error err = {0};

    if (engine == &mp_native_engine && mp_rehearse(r->arena, &r->plan, &all, &err))
        return refuse(&err, MP_EXIT_FAILED);
    mp_report_plan(&r->plan, all, !strcmp(r->options->format, "json"));
    return report_crashes(r, all);
}

int mp_run_all(mp_arena *a, const mp_run_options *o)
{
    mp_run r = {.arena = a, .options = o};
    const char *db = mp_database_path(o->db);
    mp_error err = {0};
    const mp_engine_def *engine = mp_engine_find(o->engine, &err);
    mp_plan_options plan = o->plan;

    if (!engine)
        return refuse(&err, MP_EXIT_USAGE);
    if (o->callgrind && engine != &mp_native_engine)
        mp_error_set(&err, MP_EUSAGE,
                     "--callgrind: counts the instructions of the native engine, not those of %s; "
                     "leave it out, or use --engine native",
                     mp_plain(o->engine).text);
    if (err.code)
        return refuse(&err, MP_EXIT_USAGE);
    plan.check = engine->check;
    if (mp_plan_make(a, &plan, &r.plan, &err) || check_references(&r, &err))
        return refuse(&err, err.code == MP_ENOMEM ? MP_EXIT_FAILED : MP_EXIT_USAGE);
    if (mp_run_against(&r, db, &err))
        return refuse(&err, status_of(err.code));
    if (o->dry_run)
        return dry_run(&r, engine);
    r.git = mp_environment_ask_git();
    if (mp_environment_read(a, o->threads, &r.environment, &err)) {
        close_all(&r);
        return refuse(&err, MP_EXIT_USAGE); /* MPBENCH_ISA names one that is not here */
    }
    mp_interrupt_catch();
    if (mp_store_open(db, MP_STORE_WRITE, &r.store, &err) || open_cache(&r, db, &err) ||
        hash_checkpoints(&r, &err) || open_views(&r, &err) || open_engines(&r, engine, &err) ||
        stop_if_interrupted(&err) || begin_run(&r, 0, &err)) {
        close_all(&r);
        return refuse(&err, status_of(err.code));
    }
    run_rounds(&r, &err);
    close_trace(&r, &err);
    report(&r, &err);
    close_all(&r);
    return r.exit_status;
}
