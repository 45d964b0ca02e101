"""What the program writes for other programs: JSON against results/schemas, JUnit against the structure that its
readers know.  MPBENCH names the program, MPBENCH_CHECKPOINTS the checkpoints."""
import json
import os
import pathlib
import sqlite3
import subprocess
import tempfile
import unittest
import xml.etree.ElementTree

import jsonschema

SCHEMAS = pathlib.Path(__file__).resolve().parents[2] / "results" / "schemas"
SCENARIO = """\
name: formats
pipeline: sana
checkpoint: ${MPBENCH_CHECKPOINTS}/sana-tiny
inputs: {prompt: "a <fox> & \\"friends\\"", height: 64, width: 64, steps: 1, use_resolution_binning: false}
matrix: {precision.default: [fp32, fp16, bf16], precision.policy: [strict, fallback]}
quirks: [sana-quadratic-no-upcast]
tiling: {tile: [32, 32], stride: [28, 28]}
expect: [{when: {precision.default: fp16, precision.policy: strict}, error: expected scalar type Half}]
budgets: {latent_rel_l2: 5e-3}
"""


def known(schema, root):
    while "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    return schema


def strange(value, schema, root, place="$"):
    """Places of what the schema does not name: it is open for readers, and complete for us."""
    schema = known(schema, root)
    if "anyOf" in schema:
        found = [strange(value, s, root, place) for s in schema["anyOf"]]
        yield from min((list(f) for f in found), key=len)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in schema.get("properties", {}):
                yield from strange(item, schema["properties"][key], root, f"{place}.{key}")
            elif "additionalProperties" not in schema:
                yield f"{place}.{key}"
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from strange(item, schema.get("items", {}), root, f"{place}[{i}]")


class Formats(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        pathlib.Path(cls.folder.name, "formats.yaml").write_text(SCENARIO)
        cls.run_json = cls.mpbench("run", "formats.yaml", "--format", "json", "--junit", "j.xml", status=1)

    @classmethod
    def mpbench(cls, *words, status=0):
        done = subprocess.run([os.environ["MPBENCH"], *words], cwd=cls.folder.name, text=True, capture_output=True)
        if status is not None and done.returncode != status:
            raise AssertionError(f"{words}: status {done.returncode}, expected {status}\n{done.stdout}{done.stderr}")
        return done.stdout

    def check(self, name, text):
        schema = json.loads((SCHEMAS / name).read_text())
        jsonschema.Draft202012Validator.check_schema(schema)
        value = json.loads(text)
        jsonschema.Draft202012Validator(schema).validate(value)
        self.assertEqual(list(strange(value, schema, schema)), [], f"{name} does not name all that is written")
        return value

    def test_run(self):
        run = self.check("run.json", self.run_json)
        self.assertEqual([c["status"] for c in run["cells"]], ["ok", "ok", "error", "ok", "error", "ok"])
        self.assertTrue(any(c["actions"] for c in run["cells"]))
        self.assertTrue(any(c["budget"] for c in run["cells"]))

    def test_plan(self):
        plan = self.check("plan.json", self.mpbench("run", "formats.yaml", "--dry-run", "--format", "json"))
        self.assertTrue(any(c["strict"] for c in plan["cells"]))

    def test_list(self):
        self.check("list.json", self.mpbench("list", "--format", "json"))

    def test_show(self):
        for cell in ("1", "3", "6"):
            self.check("show.json", self.mpbench("show", cell, "--format", "json"))

    def test_ops(self):
        self.check("show-ops.json", self.mpbench("show", "1", "--ops", "--format", "json"))

    def test_compare(self):
        words = ["compare", "fp32", "fp16", "bf16", "--format", "json"]
        self.check("compare.json", self.mpbench(*words))
        compared = self.check("compare.json", self.mpbench(*words, "--pareto"))
        self.assertTrue(any(p["newly_failing"] for p in compared["pairs"]))
        self.assertTrue(any(p["metrics"] for p in compared["pairs"]))

    def test_baselines(self):
        words = ["run", "formats.yaml", "--only", "precision.default=fp32", "--db", "base.db"]
        self.mpbench(*words)
        self.mpbench("baseline", "set", "main", "1", "--db", "base.db")
        self.check("baselines.json", self.mpbench("baseline", "list", "--db", "base.db", "--format", "json"))
        run = self.check("run.json", self.mpbench(*words, "--against", "main", "--rounds", "2", "--format", "json",
                                                  status=None))  # how memory and time compare is not the question
        self.check("compare.json", json.dumps(run["against"]["comparison"]))

    def test_regressions(self):
        """One night like the other, but for the bits of a picture."""
        words = ["run", "formats.yaml", "--only", "precision.default=fp32", "--db", "nights.db"]
        self.mpbench(*words)
        self.mpbench(*words)
        database = sqlite3.connect(pathlib.Path(self.folder.name, "nights.db"))
        database.execute("UPDATE output SET sha256 = ? WHERE name = 'image' AND cell = 3", ["0" * 64])
        database.commit()
        database.close()
        found = self.check("regressions.json",
                           self.mpbench("regressions", "--db", "nights.db", "--format", "json", status=1))
        self.assertEqual([f["kind"] for f in found["findings"]], ["exact"])

    def test_schemas_are_all_tried(self):
        tried = {"run.json", "plan.json", "list.json", "show.json", "show-ops.json", "regressions.json", "compare.json",
                 "baselines.json"}
        self.assertEqual({p.name for p in SCHEMAS.glob("*.json")}, tried)

    def test_junit(self):
        root = xml.etree.ElementTree.parse(pathlib.Path(self.folder.name, "j.xml")).getroot()
        self.assertEqual(root.tag, "testsuites")
        self.check_suites(root)
        cases = {c.get("name"): [e.tag for e in c if e.tag != "system-out"] for c in root.iter("testcase")}
        self.assertEqual(cases["precision.default=fp16,precision.policy=strict"], [])
        self.assertEqual(cases["precision.default=bf16,precision.policy=strict"], ["error"])
        self.assertEqual(cases["precision.default=bf16,precision.policy=fallback"], ["failure"])
        error = root.find(".//error")
        self.assertEqual(error.get("type"), "dtype_mismatch")
        self.assertEqual(error.get("message"), "expected scalar type BFloat16 but found Float")
        self.assertIn("\nmodule: vae.decoder.up_blocks.2.0.attn\n", error.text)
        self.assertIn("\nrepro: mpbench run formats.yaml --only precision.default=bf16", error.text)

    def check_suites(self, root):
        """The order, attributes and sums that junit-10.xsd of Jenkins' xUnit plugin asks for."""
        total = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
        for suite in root:
            self.assertEqual(set(suite.keys()), {"name", "time", "timestamp", *total})
            self.assertEqual([e.tag for e in suite], ["properties"] + ["testcase"] * (len(suite) - 1))
            for item in suite[0]:
                self.assertEqual((item.tag, set(item.keys())), ("property", {"name", "value"}))
            for case in suite[1:]:
                self.assertEqual(set(case.keys()), {"name", "classname", "time"})
                tags = [e.tag for e in case]
                self.assertIn(tags, [["system-out"], ["error", "system-out"], ["failure", "system-out"],
                                     ["skipped", "system-out"]])
            counted = {"tests": len(suite) - 1, "failures": len(suite.findall("testcase/failure")),
                       "errors": len(suite.findall("testcase/error")), "skipped": len(suite.findall("testcase/skipped"))}
            self.assertEqual({k: int(suite.get(k)) for k in total}, counted)
            for key in total:
                total[key] += counted[key]
        del total["skipped"]  # the root has no such attribute
        self.assertEqual(set(root.keys()), {"name", "time", *total})
        self.assertEqual({k: int(root.get(k)) for k in total}, total)


if __name__ == "__main__":
    unittest.main()
