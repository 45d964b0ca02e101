"""The templates of ci/ are YAML, and each of their shell steps is a script that bash reads (and shellcheck, where it is
installed)."""
import pathlib
import shutil
import subprocess
import unittest

import yaml

CI = pathlib.Path(__file__).resolve().parents[2] / "ci"
# 2086: SCENARIOS is a list of words.  2154, 2034: variables and their use may be in different steps.
SHELLCHECK = ["shellcheck", "--shell=bash", "--exclude=SC2086,SC2154,SC2034", "-"]


def github_steps():
    workflow = yaml.safe_load((CI / "github-nightly.yml").read_text())
    for name, job in workflow["jobs"].items():
        for step in job["steps"]:
            if "run" in step:
                yield name, step["run"]


def gitlab_steps():
    pipeline = yaml.safe_load((CI / "gitlab-nightly.yml").read_text())
    for name, job in pipeline.items():
        if isinstance(job, dict) and ("script" in job or "before_script" in job):
            yield name, "\n".join(job.get("before_script", []) + job.get("script", []))


class Templates(unittest.TestCase):
    def check(self, steps):
        steps = list(steps)
        self.assertGreater(len(steps), 4)
        for name, script in steps:
            self.assertNotIn("${{", script, f"{name}: values reach a script through its environment only")
            for command in [["bash", "-n"]] + ([SHELLCHECK] if shutil.which("shellcheck") else []):
                done = subprocess.run(command, input=script, text=True, capture_output=True)
                self.assertEqual(done.returncode, 0, f"{name}: {done.stdout}{done.stderr}\n{script}")

    def test_github(self):
        self.check(github_steps())

    def test_gitlab(self):
        self.check(gitlab_steps())

    def test_github_gives_no_job_more_rights_than_it_needs(self):
        workflow = yaml.safe_load((CI / "github-nightly.yml").read_text())
        self.assertEqual(workflow["permissions"], {"contents": "read"})
        writers = {name: job["permissions"] for name, job in workflow["jobs"].items() if "permissions" in job}
        self.assertEqual(writers, {"merge": {"contents": "read", "actions": "read"},
                                   "comment": {"contents": "read", "pull-requests": "write"},
                                   "page": {"pages": "write", "id-token": "write"}})
        for name, job in workflow["jobs"].items():
            self.assertIn("timeout-minutes", job, name)

    def test_results_are_kept_when_a_shard_fails(self):
        workflow = yaml.safe_load((CI / "github-nightly.yml").read_text())
        for name in ("cpu", "gpu", "merge"):
            uploads = [s for s in workflow["jobs"][name]["steps"] if "upload-artifact" in s.get("uses", "")]
            self.assertTrue(uploads and all(s["if"] == "always()" for s in uploads), name)
        pipeline = yaml.safe_load((CI / "gitlab-nightly.yml").read_text())
        for name in ("mpbench-cpu", "mpbench-gpu", "mpbench-merge"):
            self.assertEqual(pipeline[name]["artifacts"]["when"], "always", name)


if __name__ == "__main__":
    unittest.main()
