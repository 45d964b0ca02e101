/* `mpbench run --shard`, `merge` and `export` as their users run them. */
#include "tests/harness/cli.h"

static void five_cells(const cli *c)
{
    cli_scenario(c, "five",
                 "matrix: {precision.default: [fp32, bf16], inputs.seed: [1, 2], include: "
                 "[{precision.default: fp16, inputs.seed: 3}]}\nreference: off\n");
}

/* What a database holds of cells and bits, run by run or not. */
#define BITS                                                                                       \
    "\"SELECT key, status, checkpoint_hash, scenario_hash, o.name, o.sha256, (SELECT count(*) "    \
    "FROM cell_setting WHERE cell = cell.id), (SELECT count(*) FROM metric WHERE cell = cell.id) " \
    "FROM cell JOIN output o ON o.cell = cell.id ORDER BY key, o.name\""

/* ---- shards --------------------------------------------------------------------------------- */

static void test_shard__two_halves_merged_are_the_whole_run(void **state)
{
    cli *c = *state;

    five_cells(c);
    cli_run(c, "\"$mpbench\" run five.yaml --db whole.db && "
               "\"$mpbench\" run five.yaml --db 1.db --shard 1/2 --label x && "
               "\"$mpbench\" run five.yaml --db 2.db --shard=2/2 --label x");
    cli_assert_status(c, 0);
    cli_assert_has(c->out, "(3 cells: all as expected");
    cli_assert_has(c->out, "(2 cells: all as expected");
    cli_run(c, "\"$mpbench\" merge all.db 1.db 2.db && sqlite3 all.db " BITS
               " > all.txt && sqlite3 whole.db " BITS " > whole.txt && cmp all.txt whole.txt && "
               "wc -l < all.txt");
    cli_assert_status(c, 0);
    cli_assert_has(c->out, "merged 2 of 2 files into all.db: runs 2 added, 0 updated, 0 there "
                           "before; cells 5 added, 0 updated, 0 there before\n");
    cli_assert_has(c->out, "\n25\n"); /* five outputs each */
    cli_run(c, "\"$mpbench\" compare fp32 bf16 --db all.db --metric peak_mib");
    cli_assert_status(c, 0);
    cli_assert_has(c->out, "five");
}

static void test_shard__does_not_heed_the_order_of_files(void **state)
{
    cli *c = *state;

    cli_scenario(c, "a", "matrix: {inputs.seed: [1, 2, 3]}\n");
    cli_scenario(c, "b", "matrix: {inputs.seed: [1, 2, 3]}\n");
    cli_run(c,
            "for s in 1 2; do for f in 'a.yaml b.yaml' 'b.yaml a.yaml' .; do \"$mpbench\" run "
            "$f --dry-run --shard $s/2 | grep '^[ab]/' | sort > \"$s$f.txt\"; done; done; "
            "cmp '1a.yaml b.yaml.txt' '1b.yaml a.yaml.txt' && cmp '1a.yaml b.yaml.txt' 1..txt && "
            "cmp '2a.yaml b.yaml.txt' 2..txt && cat 1..txt 2..txt | sort -u | wc -l");
    cli_assert_status(c, 0);
    cli_assert_has(c->out, "6");
}

static void test_shard__may_be_empty(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "reference: off\n");
    cli_run(c,
            "for i in 1 2 3; do \"$mpbench\" run one.yaml --db $i.db --shard $i/3 --junit $i.xml "
            "|| exit 9; done; \"$mpbench\" merge mpbench.db [123].db");
    cli_assert_status(c, 0);
    cli_assert_has(c->out, "verdict: OK exit=0 (0 cells");
    cli_assert_has(c->out, "runs 3 added, 0 updated, 0 there before; cells 1 added");
    cli_assert_query(c, "SELECT count(*) FROM run WHERE exit_status = 0", "3");
}

static void test_shard__is_refused_where_it_is_none(void **state)
{
    cli *c = *state;

    cli_scenario(c, "one", "");
    cli_run(c, "\"$mpbench\" run one.yaml --shard 3/2; s=$?; ls; exit $s");
    cli_assert_status(c, 2);
    cli_assert_has(c->err, "mpbench run: --shard: found '3/2', expected I/N with I from 1 to N");
    assert_null(strstr(c->out, "mpbench.db"));
}

/* ---- merge ---------------------------------------------------------------------------------- */

/* The second cell hangs in a module that the first one lacks; killed when it is on record. */
static void test_merge__of_a_killed_shard_has_what_it_committed(void **state)
{
    cli *c = *state;

    cli_scenario(c, "a", "reference: off\n");
    cli_write(c, "b.yaml",
              "name: b\npipeline: sd3\ncheckpoint: ${MPBENCH_CHECKPOINTS}/sd3-tiny\ninputs: "
              "{prompt: a fox, height: 64, width: 64, steps: 2, seed: 7, max_sequence_length: 77}\n"
              "reference: off\n");
    cli_run(
        c, "MPBENCH_FAULT=hang@text_encoder_2.text_projection \"$mpbench\" run a.yaml b.yaml --db "
           "1.db & pid=$!; until [ \"$(sqlite3 -readonly 1.db 'SELECT group_concat(status) FROM "
           "cell' 2>/dev/null)\" = ok,running ] || ! kill -0 $pid; do sleep 0.05; done; kill -KILL "
           "$pid; wait $pid");
    cli_assert_status(c, 128 + 9);
    cli_run(c, "\"$mpbench\" merge mpbench.db 1.db");
    cli_assert_status(c, 0);
    cli_assert_has(c->out, "runs 1 added, 0 updated, 0 there before; cells 2 added");
    cli_assert_query(c,
                     "SELECT group_concat(status) || count(run.ended) FROM cell JOIN run ON "
                     "run.id = run",
                     "ok,running0");
    cli_assert_query(c, "SELECT count(*) > 0 FROM output WHERE cell = 1", "1");

    cli_run(
        c,
        "\"$mpbench\" run a.yaml b.yaml --db 1.db --resume && \"$mpbench\" merge mpbench.db 1.db && "
        "\"$mpbench\" merge mpbench.db 1.db");
    cli_assert_status(c, 0);
    cli_assert_has(c->out, "runs 0 added, 1 updated, 0 there before; cells 1 added, 1 updated, 1 ");
    cli_assert_has(c->out, "runs 0 added, 0 updated, 1 there before; cells 0 added, 0 updated, 3 ");
    cli_assert_query(c,
                     "SELECT group_concat(status) || count(run.ended) FROM cell JOIN run ON "
                     "run.id = run",
                     "ok,interrupted,ok3");
    cli_assert_query(c, "PRAGMA integrity_check", "ok");
}

static void make_two(cli *c)
{
    cli_scenario(c, "one", "reference: off\n");
    cli_run(c, "\"$mpbench\" run one.yaml --db 1.db && \"$mpbench\" run one.yaml --db 2.db");
    cli_assert_status(c, 0);
}

static void test_merge__refuses_to_merge_a_file_into_itself(void **state)
{
    cli *c = *state;

    make_two(c);
    cli_run(c, "ln -s 1.db link.db; cp 1.db was.db; \"$mpbench\" merge 1.db 2.db ./link.db; s=$?; "
               "cmp 1.db was.db && exit $s");
    cli_assert_status(c, 2);
    cli_assert_has(c->err, "mpbench merge: ./link.db: is OUT itself; leave it out of IN");
    assert_string_equal(c->out, "");
}

static void test_merge__takes_the_good_files_and_names_the_bad_ones(void **state)
{
    cli *c = *state;

    make_two(c);
    cli_run(c, "echo no database, but a text of more than a hundred bytes, as long as the head of "
               "a file of SQLite is or somewhat longer > text; \"$mpbench\" merge mpbench.db 1.db "
               "text 2.db");
    cli_assert_status(c, 3);
    cli_assert_has(c->err,
                   "mpbench merge: nothing of text was merged: text: file is not a database");
    cli_assert_has(c->out, "merged 2 of 3 files into mpbench.db: runs 2 added");
    cli_run(c, "\"$mpbench\" merge mpbench.db 1.db missing.db");
    cli_assert_status(c, 2);
    cli_assert_has(c->err, "missing.db: there is no such database");
    cli_assert_query(c, "SELECT count(*) FROM run", "2");
    cli_run(c, "\"$mpbench\" merge new.db missing.db; s=$?; ls; exit $s");
    cli_assert_status(c, 2);
    assert_null(strstr(c->out, "new.db\n")); /* not made for nothing */
    cli_run(c, "\"$mpbench\" merge all.db");
    cli_assert_status(c, 2);
    cli_assert_has(c->err, "missing operand: expected OUT IN...");
}

/* ---- export --------------------------------------------------------------------------------- */

static void test_export__writes_tables_that_join(void **state)
{
    cli *c = *state;

    five_cells(c);
    cli_run(c,
            "\"$mpbench\" run five.yaml && for t in cells outputs; do \"$mpbench\" export --table "
            "$t --out $t.csv || exit 9; done; sqlite3 :memory: -cmd '.mode csv' -cmd '.import "
            "cells.csv c' -cmd '.import outputs.csv o' \"SELECT count(*), count(DISTINCT sha256) "
            "FROM c JOIN o USING (run, cell, cell_started) WHERE status = 'ok' AND name = "
            "'image'\"");
    cli_assert_status(c, 0);
    cli_assert_has(c->out, "5,5\n");
    cli_run(c, "\"$mpbench\" export --format jsonl --table all --run 1 --scenario five | sed "
               "'s/.*\"table\":\"\\([a-z]*\\).*/\\1/' | uniq | head -7 | tr '\\n' ' '");
    cli_assert_status(c, 0);
    assert_string_equal(c->out, "runs environment cells settings samples metrics outputs ");
}

static void test_export__refuses_what_it_cannot_do(void **state)
{
    cli *c = *state;

    make_two(c);
    cli_run(c,
            "cp 1.db was.db; \"$mpbench\" export --db 1.db --out ./1.db; s=$?; cmp 1.db was.db && "
            "exit $s");
    cli_assert_status(c, 2);
    cli_assert_has(c->err, "--out ./1.db: is the database itself; name another file");
    cli_run(c, "\"$mpbench\" export --db 1.db --table all");
    cli_assert_status(c, 2);
    cli_assert_has(c->err, "a CSV file has one table; name one, or take --format jsonl");
    cli_run(c, "\"$mpbench\" export --db 1.db --table metric");
    cli_assert_status(c, 2);
    cli_assert_has(c->err, "--table: found 'metric', expected one of: runs, environment, cells");
    cli_run(c,
            "echo kept > x.csv; \"$mpbench\" export --db 1.db --run nobody --out x.csv; s=$?; cat "
            "x.csv; exit $s");
    cli_assert_status(c, 2);
    assert_string_equal(c->out, "kept\n");
    cli_assert_has(c->err, "1.db: has no run 'nobody'");
    cli_run(c, "\"$mpbench\" export");
    cli_assert_status(c, 2);
    cli_assert_has(c->err, "mpbench.db: there is no such database");
    cli_run(c, "\"$mpbench\" export --db 1.db --out nowhere/x.csv");
    cli_assert_status(c, 3);
    cli_assert_has(c->err, "nowhere/x.csv: cannot be written: No such file or directory");
    cli_run(c, "\"$mpbench\" export --db 1.db --out /dev/full");
    cli_assert_status(c, 3);
    cli_assert_has(c->err, "/dev/full: not all of it could be written; make room");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, cli_setup, cli_teardown)
    const struct CMUnitTest tests[] = {
        T(test_shard__two_halves_merged_are_the_whole_run),
        T(test_shard__does_not_heed_the_order_of_files),
        T(test_shard__may_be_empty),
        T(test_shard__is_refused_where_it_is_none),
        T(test_merge__of_a_killed_shard_has_what_it_committed),
        T(test_merge__refuses_to_merge_a_file_into_itself),
        T(test_merge__takes_the_good_files_and_names_the_bad_ones),
        T(test_export__writes_tables_that_join),
        T(test_export__refuses_what_it_cannot_do),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
