"""ci/forge against a server that answers as GitHub's and GitLab's APIs do."""
import http.server
import io
import json
import pathlib
import subprocess
import sys
import tempfile
import threading
import unittest
import zipfile

FORGE = pathlib.Path(__file__).resolve().parents[2] / "ci" / "forge"
TOKEN = "a-secret-token"
CUT_OFF = object()  # an answer that ends too early


def archive(name, data):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        z.writestr(name, data)
    return out.getvalue()


class Server(http.server.ThreadingHTTPServer):
    """answers: (method, path without the query) to a value for JSON, bytes, ("redirect", path), CUT_OFF or
    a status."""

    def __init__(self, answers):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.seen = answers, []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        path, _, query = self.path.partition("?")
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size)) if size else None
        self.server.seen.append((self.command, path, query, dict(self.headers), body))
        value = self.server.answers.get((self.command, path), 404)
        if isinstance(value, int):
            self.send_response(value)
            self.end_headers()
        elif isinstance(value, tuple):
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}{value[1]}")
            self.end_headers()
        elif value is CUT_OFF:
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"[")
        else:
            if isinstance(value, list):  # of pages
                page = int(dict(p.split("=") for p in query.split("&"))["page"])
                value = value[page - 1]
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    do_GET = do_POST = do_PATCH = do_PUT = answer

    def log_message(self, *_):
        pass


def artifact(number, branch="main", repository=7, expired=False):
    return {"id": number, "expired": expired, "workflow_run": {"head_branch": branch, "head_repository_id": repository}}


class Forge(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.file = pathlib.Path(self.folder.name) / "nightly" / "mpbench.db"
        self.text = pathlib.Path(self.folder.name) / "comment.md"
        self.text.write_text("### ✅ fine\n", encoding="utf-8")

    def forge(self, answers, words, **environment):
        server = Server(answers)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        address = f"http://127.0.0.1:{server.server_port}"
        if environment.pop("github", False):
            environment |= {"GITHUB_ACTIONS": "true", "GITHUB_API_URL": address, "GITHUB_REPOSITORY": "o/r",
                            "GITHUB_REPOSITORY_ID": "7"}
        else:
            environment |= {"CI_API_V4_URL": address, "CI_PROJECT_ID": "9", "CI_DEFAULT_BRANCH": "a/main"}
        done = subprocess.run([sys.executable, FORGE, *map(str, words)], env=environment, text=True,
                              capture_output=True, timeout=60)
        self.assertNotIn(TOKEN, done.stdout + done.stderr)
        return done, server.seen

    # history

    def test_github_history_is_the_newest_of_the_branch_itself(self):
        names = "/repos/o/r/actions/artifacts"
        first = [artifact(1)] * 100  # a full page
        second = [artifact(5), artifact(9, expired=True), artifact(8, branch="fix"), artifact(7, repository=3),
                  {"id": 10, "expired": False, "workflow_run": None}]
        done, seen = self.forge({("GET", names): [{"artifacts": first}, {"artifacts": second}],
                                 ("GET", f"{names}/5/zip"): ("redirect", "/storage"),
                                 ("GET", "/storage"): archive("mpbench.db", b"the database")},
                                ["history", self.file], github=True, GITHUB_TOKEN=TOKEN)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.file.read_bytes(), b"the database")
        self.assertIn("name=mpbench-database", seen[0][2])
        self.assertEqual(seen[0][3]["Authorization"], f"Bearer {TOKEN}")
        self.assertNotIn("Authorization", seen[-1][3])  # storage is another server

    def test_github_history_may_be_empty(self):
        done, _ = self.forge({("GET", "/repos/o/r/actions/artifacts"): {"artifacts": []}}, ["history", self.file],
                             github=True, GITHUB_TOKEN=TOKEN)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("first of the series", done.stderr)
        self.assertFalse(self.file.exists())

    def test_github_history_of_another_form_is_an_error(self):
        for data in (archive("../mpbench.db", b"x"), b"no archive", CUT_OFF, 500):
            done, _ = self.forge({("GET", "/repos/o/r/actions/artifacts"): {"artifacts": [artifact(1)]},
                                  ("GET", "/repos/o/r/actions/artifacts/1/zip"): data}, ["history", self.file],
                                 github=True, GITHUB_TOKEN=TOKEN)
            self.assertEqual(done.returncode, 3)
            self.assertIn("ci/forge: history: ", done.stderr)
            self.assertFalse(self.file.exists())

    def test_gitlab_history_comes_with_the_token_of_the_job(self):
        path = "/projects/9/jobs/artifacts/a%2Fmain/raw/nightly/mpbench.db"
        done, seen = self.forge({("GET", path): b"the database"}, ["history", self.file], CI_JOB_TOKEN=TOKEN)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.file.read_bytes(), b"the database")
        self.assertEqual(seen[0][2], "job=mpbench-merge")
        self.assertEqual(seen[0][3]["Job-Token"], TOKEN)

    def test_gitlab_history_may_be_empty_and_may_not_be_forbidden(self):
        done, _ = self.forge({}, ["history", self.file], CI_JOB_TOKEN=TOKEN)
        self.assertEqual((done.returncode, self.file.exists()), (0, False))
        done, _ = self.forge({("GET", "/projects/9/jobs/artifacts/a%2Fmain/raw/nightly/mpbench.db"): 403},
                             ["history", self.file], CI_JOB_TOKEN=TOKEN)
        self.assertEqual(done.returncode, 3)

    def test_gitlab_history_that_is_cut_off_is_no_database(self):
        done, _ = self.forge({("GET", "/projects/9/jobs/artifacts/a%2Fmain/raw/nightly/mpbench.db"): CUT_OFF},
                             ["history", self.file], CI_JOB_TOKEN=TOKEN)
        self.assertEqual(done.returncode, 3)
        self.assertIn("99 bytes are missing", done.stderr)
        self.assertFalse(self.file.exists())

    # comment

    def test_github_comment_is_new_once_and_then_replaced(self):
        path = "/repos/o/r/issues/12/comments"
        given = {"github": True, "GITHUB_TOKEN": TOKEN, "MPBENCH_PULL_REQUEST": "12"}
        body = {"body": "<!-- mpbench:nightly -->\n### ✅ fine\n"}
        others = [{"id": 1, "body": "hello"}, {"id": 2, "body": None}, {"id": 3, "body": "<!-- mpbench:other -->\nx"}]
        done, seen = self.forge({("GET", path): others and [others], ("POST", path): {}},
                                ["comment", "nightly", self.text], **given)
        self.assertEqual((done.returncode, done.stderr), (0, "ci/forge: comment posted\n"))
        self.assertEqual((seen[-1][0], seen[-1][4]), ("POST", body))
        others.append({"id": 4, "body": "<!-- mpbench:nightly -->\nold"})
        done, seen = self.forge({("GET", path): [others], ("PATCH", "/repos/o/r/issues/comments/4"): {}},
                                ["comment", "nightly", self.text], **given)
        self.assertEqual((done.returncode, done.stderr), (0, "ci/forge: comment replaced\n"))
        self.assertEqual((seen[-1][0], seen[-1][4]), ("PATCH", body))

    def test_a_comment_of_a_stranger_does_not_keep_ours_away(self):
        path = "/projects/9/merge_requests/3/notes"
        notes = [{"id": number, "body": "<!-- mpbench:nightly -->\nold"} for number in (4, 5)]
        given = {"MPBENCH_GITLAB_TOKEN": TOKEN, "CI_MERGE_REQUEST_IID": "3"}
        for ours, says in ((("PUT", path + "/5"), "replaced"), (("POST", path), "posted")):
            done, seen = self.forge({("GET", path): [notes], ("PUT", path + "/4"): 403, ("PUT", path + "/5"): 403,
                                     ours: {}}, ["comment", "nightly", self.text], **given)
            self.assertEqual((done.returncode, done.stderr), (0, f"ci/forge: comment {says}\n"))
            self.assertEqual(seen[-1][:2], ours)

    def test_gitlab_comment_is_replaced(self):
        path = "/projects/9/merge_requests/3/notes"
        done, seen = self.forge({("GET", path): [[{"id": 4, "body": "<!-- mpbench:nightly -->\nold"}]],
                                 ("PUT", path + "/4"): {}}, ["comment", "nightly", self.text],
                                MPBENCH_GITLAB_TOKEN=TOKEN, CI_MERGE_REQUEST_IID="3")
        self.assertEqual((done.returncode, done.stderr), (0, "ci/forge: comment replaced\n"))
        self.assertEqual(seen[-1][3]["Private-Token"], TOKEN)

    def test_a_fork_without_a_token_is_no_failure(self):
        for given in ({"CI_MERGE_REQUEST_IID": "3"}, {"MPBENCH_GITLAB_TOKEN": TOKEN},
                      {"github": True, "MPBENCH_PULL_REQUEST": "12"}, {"github": True, "GITHUB_TOKEN": TOKEN}):
            done, seen = self.forge({}, ["comment", "nightly", self.text], **given)
            self.assertEqual((done.returncode, seen), (0, []), given)
            self.assertIn("no comment: this job has no ", done.stderr)

    def test_what_cannot_be_is_refused(self):
        done, _ = self.forge({}, ["comment", "a --> b", self.text])
        self.assertEqual(done.returncode, 3)
        done, _ = self.forge({}, ["comment", "nightly", "/none.md"])
        self.assertEqual(done.returncode, 3)
        self.assertIn("/none.md", done.stderr)
        done, _ = self.forge({}, ["post"])
        self.assertEqual(done.returncode, 2)


if __name__ == "__main__":
    unittest.main()
