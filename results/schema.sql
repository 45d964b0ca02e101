-- The results database of mpbench.
-- application_id 0x6d706265 ("mpbe"); user_version is the schema's version, set by results/store_open.c.
-- History.  1: the first.  2: cell.exception and cell.frame.  3: policy_action.  4: op_profile.
-- 5: picture, cell_picture, cell_limit, baseline, finding, finding_event.
-- Rows are added and never overwritten, but for: the end of a run, the outcome of a cell that is
-- 'running', such a cell that --resume finds dead ('interrupted'), and a reference made again.

CREATE TABLE run (
    id          INTEGER PRIMARY KEY,
    uuid        TEXT NOT NULL UNIQUE,
    label       TEXT,
    engine      TEXT NOT NULL,
    device      TEXT NOT NULL,
    command     TEXT NOT NULL,  -- quoted for a shell
    plan        TEXT NOT NULL,  -- SHA-256 over the cells: what --resume goes by
    fingerprint TEXT NOT NULL,  -- of the environment's stable part
    started     TEXT NOT NULL,  -- UTC, ISO 8601
    ended       TEXT,
    exit_status INTEGER
) STRICT;

CREATE TABLE run_environment (
    run   INTEGER NOT NULL REFERENCES run(id),
    key   TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (run, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE cell (
    id              INTEGER PRIMARY KEY,
    run             INTEGER NOT NULL REFERENCES run(id),
    key             TEXT NOT NULL,  -- stable: scenario and matrix values
    scenario        TEXT NOT NULL,
    scenario_hash   TEXT NOT NULL,
    pipeline        TEXT NOT NULL,
    checkpoint      TEXT NOT NULL,
    checkpoint_hash TEXT NOT NULL,
    repro           TEXT NOT NULL,
    started         TEXT NOT NULL,
    ended           TEXT,
    status          TEXT NOT NULL DEFAULT 'running' CHECK (status IN
        ('running', 'ok', 'error', 'crash', 'timeout', 'oom', 'nonfinite', 'interrupted')),
    outcome         TEXT,     -- dtype_mismatch, nan_first, ...; NULL when status is ok
    as_expected     INTEGER,  -- 1 or 0
    expected        TEXT,     -- NULL: success
    error           TEXT,
    module          TEXT,
    op              TEXT,
    want            TEXT,
    got             TEXT,
    stage           TEXT,
    step            INTEGER,
    signal          INTEGER,
    budget          TEXT,     -- the broken ones, as text
    reference       TEXT,
    warnings        TEXT,
    exception       TEXT,     -- of a library: its class, RuntimeError
    frame           TEXT      -- and the innermost frame inside it
) STRICT;
CREATE INDEX cell_by_run ON cell(run);
CREATE INDEX cell_by_key ON cell(key, run);

-- Every resolved setting, dotted.  compare selects and pairs by what it finds here.
CREATE TABLE cell_setting (
    cell  INTEGER NOT NULL REFERENCES cell(id),
    key   TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (cell, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE sample (
    cell    INTEGER NOT NULL REFERENCES cell(id),
    repeat  INTEGER NOT NULL,  -- from 0; -1, -2 .. are warm-ups
    stage   TEXT NOT NULL,
    seconds REAL NOT NULL,
    PRIMARY KEY (cell, stage, repeat)
) STRICT, WITHOUT ROWID;

-- value is NULL for a number that SQLite cannot hold; nonfinite then says which: inf, -inf, nan.
CREATE TABLE metric (
    cell      INTEGER NOT NULL REFERENCES cell(id),
    name      TEXT NOT NULL,
    stage     TEXT NOT NULL,
    step      INTEGER NOT NULL,  -- -1: not of a step
    module    TEXT NOT NULL,     -- '': not of a module
    value     REAL,
    nonfinite TEXT CHECK (CASE WHEN value IS NULL
        THEN coalesce(nonfinite, '') IN ('inf', '-inf', 'nan') ELSE nonfinite IS NULL END),
    unit      TEXT NOT NULL,
    PRIMARY KEY (cell, name, stage, step, module)
) STRICT, WITHOUT ROWID;

CREATE TABLE output (
    cell   INTEGER NOT NULL REFERENCES cell(id),
    name   TEXT NOT NULL,
    dtype  TEXT NOT NULL,
    shape  TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    PRIMARY KEY (cell, name)
) STRICT, WITHOUT ROWID;

-- What precision.policy did in one generation, the first, by place; kernels/core/policy.h.
CREATE TABLE policy_action (
    cell       INTEGER NOT NULL REFERENCES cell(id),
    stage      TEXT NOT NULL,
    module     TEXT NOT NULL,
    op         TEXT NOT NULL,  -- '' for casts
    kind       TEXT NOT NULL CHECK (kind IN
        ('cast_in', 'cast_out', 'redo_refused', 'redo_nonfinite')),
    from_dtype TEXT NOT NULL,
    to_dtype   TEXT NOT NULL,
    count      INTEGER NOT NULL,
    elements   INTEGER NOT NULL,
    seconds    REAL NOT NULL,
    PRIMARY KEY (cell, stage, module, op, kind, from_dtype, to_dtype)
) STRICT, WITHOUT ROWID;

-- Where the time of one generation went, the last: ops by place (module: '*' for the numbers of
-- blocks).  What takes less than 0.5 % of the generation is one row of its stage, with op ''.
CREATE TABLE op_profile (
    cell    INTEGER NOT NULL REFERENCES cell(id),
    stage   TEXT NOT NULL,
    module  TEXT NOT NULL,
    op      TEXT NOT NULL,
    dtype   TEXT NOT NULL,     -- of the result
    calls   INTEGER NOT NULL,
    seconds REAL NOT NULL,
    bytes   INTEGER NOT NULL,  -- operands and results
    flops   INTEGER NOT NULL,  -- of products; 0 for all other ops
    PRIMARY KEY (cell, stage, module, op, dtype)
) STRICT, WITHOUT ROWID;

-- What is known of a reference run; its tensors are a file in the cache.
CREATE TABLE reference (
    key           TEXT PRIMARY KEY,
    made          TEXT NOT NULL,
    file_sha256   TEXT NOT NULL,
    finite        INTEGER NOT NULL,
    constant      INTEGER NOT NULL,
    floor_latents REAL,  -- relative L2 under one ulp of initial noise; NULL: not measured
    floor_image   REAL
) STRICT, WITHOUT ROWID;

-- A small picture for people, in PNG.  Equal pictures are kept once, whichever cells show them: the
-- nights of a deterministic cell share one.
CREATE TABLE picture (
    sha256 TEXT PRIMARY KEY,  -- of png
    width  INTEGER NOT NULL,
    height INTEGER NOT NULL,
    png    BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE cell_picture (
    cell    INTEGER NOT NULL REFERENCES cell(id),
    role    TEXT NOT NULL CHECK (role IN ('output', 'reference')),
    picture TEXT NOT NULL REFERENCES picture(sha256),
    PRIMARY KEY (cell, role)
) STRICT, WITHOUT ROWID;

-- What the scenario's budgets said when the cell ran.  absolute: the metric itself; relative: how
-- much worse than the baseline's, 0.05 is 5 %.
CREATE TABLE cell_limit (
    cell   INTEGER NOT NULL REFERENCES cell(id),
    metric TEXT NOT NULL,
    kind   TEXT NOT NULL CHECK (kind IN ('absolute', 'relative')),
    value  REAL NOT NULL,
    PRIMARY KEY (cell, metric, kind)
) STRICT, WITHOUT ROWID;

-- Runs that others are held against.  Of a name, the newest row counts.
CREATE TABLE baseline (
    id   INTEGER PRIMARY KEY,
    uuid TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    run  INTEGER NOT NULL REFERENCES run(id),
    at   TEXT NOT NULL,  -- UTC, ISO 8601
    why  TEXT
) STRICT;

-- A change in a series (results/regressions.h), seen once or more often.  What it was is here, what
-- became of it is in its events: the newest one is its state.
CREATE TABLE finding (
    id          INTEGER PRIMARY KEY,
    key         TEXT NOT NULL UNIQUE,  -- SHA-256 over the series and the run of after_cell
    kind        TEXT NOT NULL CHECK (kind IN ('step', 'trend', 'exact', 'outcome')),
    cell_key    TEXT NOT NULL,
    scenario    TEXT NOT NULL,
    engine      TEXT NOT NULL,
    device      TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    metric      TEXT NOT NULL,  -- 'outputs' and 'outcome' for the kinds exact and outcome
    stage       TEXT NOT NULL,
    step        INTEGER NOT NULL,
    module      TEXT NOT NULL,
    before_cell INTEGER NOT NULL REFERENCES cell(id),  -- the last of the old regime
    after_cell  INTEGER NOT NULL REFERENCES cell(id)   -- the first of the new one
) STRICT;

CREATE TABLE finding_event (
    id      INTEGER PRIMARY KEY,
    finding INTEGER NOT NULL REFERENCES finding(id),
    at      TEXT NOT NULL,
    state   TEXT NOT NULL CHECK (state IN
        ('detected', 'confirmed', 'acknowledged', 'fixed', 'withdrawn')),
    why     TEXT,
    before  REAL,  -- the regimes' centres as they were known then; NULL: no numbers
    after   REAL,
    p       REAL
) STRICT;
CREATE INDEX finding_event_by_finding ON finding_event(finding, id);

CREATE VIEW sample_view AS
    SELECT run.label, run.engine, cell.run, sample.cell, cell.key, cell.scenario, sample.stage,
           repeat, seconds
    FROM sample JOIN cell ON cell.id = sample.cell JOIN run ON run.id = cell.run;

CREATE VIEW metric_view AS
    SELECT run.label, run.engine, cell.run, metric.cell, cell.key, cell.scenario, name, metric.stage,
           metric.step, metric.module, coalesce(CAST(value AS TEXT), nonfinite) AS value, unit
    FROM metric JOIN cell ON cell.id = metric.cell JOIN run ON run.id = cell.run;

CREATE VIEW policy_action_view AS
    SELECT run.label, run.engine, cell.run, policy_action.cell, cell.key, cell.scenario,
           policy_action.stage, policy_action.module, policy_action.op, kind, from_dtype, to_dtype,
           count, elements, seconds
    FROM policy_action JOIN cell ON cell.id = policy_action.cell JOIN run ON run.id = cell.run;

CREATE VIEW op_profile_view AS
    SELECT run.label, run.engine, cell.run, op_profile.cell, cell.key, cell.scenario,
           op_profile.stage, op_profile.module, op_profile.op, dtype, calls, seconds, bytes, flops
    FROM op_profile JOIN cell ON cell.id = op_profile.cell JOIN run ON run.id = cell.run;
