"""ci/nightly as the templates call it: with the real program, and with one that plays its part."""
import os
import pathlib
import shutil
import sqlite3
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PLAYED = """#!/bin/sh
echo "$@" >>"$PLAYED"
case $1 in
merge) cp "$3" "$2" && exit "$MERGE" ;;
regressions) exit "$REGRESSIONS" ;;
summary) echo "$SUMMARY" && exit "$SUMMARIZED" ;;
report) mkdir -p "$3" ;;
esac
"""


class Nightly(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name, "a b")
        self.folder.mkdir()

    def nightly(self, *words, status=0, **environment):
        done = subprocess.run([ROOT / "ci" / "nightly", *map(str, words)], cwd=self.folder, text=True,
                              capture_output=True, env={**os.environ, **environment})
        self.assertEqual(done.returncode, status, f"{words}\n{done.stdout}{done.stderr}")
        return done

    def query(self, name, sql):
        database = sqlite3.connect(self.folder / name)
        try:
            return database.execute(sql).fetchall()
        finally:
            database.close()

    def test_two_shards_make_one_night(self):
        run = ["--label", "n1", "--set", "inputs.steps=1", ROOT / "scenarios" / "smoke"]
        for i in (1, 2):
            self.nightly("shard", f"{i}/2", "shards/cpu", *run)
            for kind in ("db", "xml", "md"):
                self.assertTrue((self.folder / f"shards/cpu-{i}-of-2.{kind}").exists())
        again = self.nightly("shard", "1/2", "shards/cpu", *run)
        self.assertIn("resuming run 1", again.stderr)
        self.nightly("merge", "night", "n1", "shards/cpu")
        self.assertEqual(self.query("night/mpbench.db", "SELECT count(*), count(DISTINCT key) FROM cell"), [(9, 9)])
        comment = (self.folder / "night/comment.md").read_text()
        self.assertIn("### ✅ mpbench: OK\n\n- ✅ 9 cells as expected\n", comment)
        self.assertLess(len(comment), 65000)
        self.assertTrue((self.folder / "night/report/index.html").exists())
        # The next night is added to it, and the same night twice is one.
        self.nightly("shard", "1/1", "next/cpu", "--label", "n2", *run[2:])
        self.nightly("merge", "night", "n2", "next/cpu")
        self.nightly("merge", "night", "n2", "next/cpu", "shards/cpu")
        self.assertEqual(self.query("night/mpbench.db", "SELECT count(*), count(DISTINCT key) FROM cell"), [(18, 9)])

    def play(self, *shards, merge=0, regressions=0, summary="", summarized=0, status=0):
        program = self.folder / "mpbench"
        program.write_text(PLAYED)
        program.chmod(0o755)
        for name in shards:
            (self.folder / name).write_text("x")
        played = self.folder / "played.txt"
        played.write_text("")
        done = self.nightly("merge", "out", "l", "cpu", status=status, MPBENCH=str(program), PLAYED=str(played),
                            MERGE=str(merge), REGRESSIONS=str(regressions), SUMMARY=summary,
                            SUMMARIZED=str(summarized))
        return done.stderr, played.read_text()

    def test_a_missing_shard_does_not_keep_the_others_out(self):
        says, played = self.play("cpu-1-of-3.db", "cpu-3-of-3.db", status=3)
        self.assertIn("cpu-2-of-3.db is missing", says)
        self.assertIn("merge out/mpbench.db cpu-1-of-3.db cpu-3-of-3.db\n", played)
        self.assertIn("report --out out/report", played)
        self.assertIn("Shards are missing", (self.folder / "out/comment.md").read_text())

    def test_a_damaged_shard_does_not_keep_the_others_out(self):
        _, played = self.play("cpu-1-of-1.db", merge=3, status=3)
        self.assertIn("report --out out/report", played)
        self.assertIn("Shards are missing", (self.folder / "out/comment.md").read_text())

    def test_shards_without_a_run_do_not_keep_the_report_from_being_written(self):
        _, played = self.play("cpu-1-of-1.db", summarized=2, status=3)
        self.assertIn("report --out out/report", played)
        self.assertIn("Shards are missing", (self.folder / "out/comment.md").read_text())

    def test_a_shard_that_did_not_end_is_a_failure(self):
        _, played = self.play("cpu-1-of-1.db", summary="- ⚠️ 1 of 3 runs did not end: cells are missing", status=3)
        self.assertIn("report --out out/report", played)
        self.play(summary="  - error `- ⚠️ 1 of 3 runs did not end`")

    def test_an_open_regression_is_the_status_and_comes_before_a_missing_shard(self):
        for shards in (["cpu-1-of-1.db"], ["cpu-1-of-2.db"]):
            _, played = self.play(*shards, regressions=1, status=1)
            self.assertIn("report --out out/report", played)
            (self.folder / shards[0]).unlink()

    def test_more_than_nine_shards(self):
        _, played = self.play(*[f"cpu-{i}-of-10.db" for i in range(1, 11)])
        self.assertIn("cpu-9-of-10.db cpu-10-of-10.db\n", played)

    def test_what_cannot_be_merged_is_refused(self):
        says, played = self.play(status=3)
        self.assertIn("cpu-I-of-N.db: no shard of it is here", says)
        self.assertEqual(played, "")
        says, played = self.play("cpu-1-of-2.db", "cpu-1-of-3.db", status=2)
        self.assertIn("of 2 shards, or of 3?", says)
        self.assertEqual(played, "")

    def test_a_program_that_is_not_there_is_named(self):
        done = subprocess.run([shutil.copy(ROOT / "ci" / "nightly", self.folder), "merge", "out", "l", "cpu"], text=True,
                              env={"PATH": "/usr/bin:/bin"}, capture_output=True)
        self.assertEqual(done.returncode, 3)
        self.assertIn("MPBENCH names one", done.stderr)

    def test_bad_usage(self):
        for words in ([], ["merge", "out"], ["shard", "1", "x", "y"], ["shard", "a/2", "x", "y"], ["shards"]):
            self.nightly(*words, status=2)


if __name__ == "__main__":
    unittest.main()
