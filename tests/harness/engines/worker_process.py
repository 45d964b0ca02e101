"""Runs a worker as mpbench does: requests on stdin, events on descriptor 3."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import subprocess
import sys
import tempfile
import unittest
from typing import Any, Sequence

HERE = os.path.dirname(os.path.abspath(__file__))
ENGINES = os.path.join(HERE, "..", "..", "..", "harness", "engines")
SECONDS = 60


class Worker:
    """A worker process; its events are read as they come."""

    def __init__(self, script: str, environment: dict[str, str], flags: Sequence[str] = ()) -> None:
        read, write = os.pipe()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MPBENCH_")}
        kept.pop("PYTHONPATH", None)
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [sys.executable, *flags, os.path.join(ENGINES, script)],
            stdin=subprocess.PIPE,
            stdout=self.log,
            stderr=self.log,
            env={**kept, **environment},
            close_fds=False,  # it would close descriptor 3
            preexec_fn=lambda: (os.dup2(write, 3), os.set_inheritable(3, True)),
        )
        os.close(write)
        self._events = os.fdopen(read, "rb")

    def send(self, request: dict) -> None:
        """A request."""
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()

    def event(self) -> dict | None:
        """The next event; None when the worker has closed the pipe."""
        line = self._events.readline()
        return json.loads(line) if line else None

    def until(self, *kinds: str) -> list[dict]:
        """Events up to and including one of these kinds."""
        events = []
        while not events or events[-1]["event"] not in kinds:
            event = self.event()
            if event is None:
                raise AssertionError(f"the worker ended after {events}: {self.output()}")
            events.append(event)
        return events

    def output(self) -> str:
        """All that it wrote into its log."""
        self.log.seek(0)
        return self.log.read().decode()

    def close(self) -> int:
        """Ends it as the harness does; its exit status."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            return self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self._events.close()
            self.log.close()


class WorkerTest(unittest.TestCase):
    """Base of the tests of one worker."""

    script = ""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.outputs = os.path.join(self.folder, "outputs")
        os.mkdir(self.outputs)

    def environment(self) -> dict[str, str]:
        """Of the worker."""
        return {}

    def start(self, flags: Sequence[str] = (), **environment: str) -> Worker:
        """A worker that is ended after the test."""
        worker = Worker(self.script, {**self.environment(), **environment}, flags)
        self.addCleanup(worker.close)
        return worker

    def first(self, flags: Sequence[str] = (), **environment: str) -> dict:
        """What a worker says first."""
        return self.start(flags, **environment).until("ready", "error")[-1]

    def run_cell(self, request: dict, **environment: str) -> list[dict]:
        """The events of one request to a fresh worker, checked for what holds of every cell."""
        worker = self.start(**environment)
        self.assertEqual(worker.event()["event"], "ready")
        worker.send(request)
        events = worker.until("done", "error")
        self.check_order(events)
        return events

    def refused(self, request: dict, code: str, *words: str, **environment: str) -> dict:
        """The error of a cell that is refused before anything is generated."""
        error = self.run_cell(request, **environment)[-1]
        self.assertEqual((error["event"], error.get("code")), ("error", code), error)
        self.assertEqual(error["stage"], "load")
        for word in words:
            self.assertIn(word, error["text"])
        return error

    def check_order(self, events: list[dict]) -> None:
        """`begin` and `stage` enclose each other, and memory comes once, right before the end."""
        kinds = [event["event"] for event in events]
        self.assertEqual(kinds.count("memory"), 1)
        self.assertEqual(kinds[-2], "memory")
        stage = None
        for event in events:
            if event["event"] == "begin":
                self.assertIsNone(stage)
                stage = event["stage"]
            elif event["event"] == "stage" and event["name"] != "total":
                self.assertEqual(event["name"], stage)
                stage = None
            elif event["event"] == "step":
                self.assertEqual(stage, "denoise")

    def check_tensor(self, event: dict, shape: list[int], values: Sequence[float]) -> None:
        """The file holds what the event tells, and that are these values."""
        self.assertEqual(event["shape"], shape)
        data = struct.pack(f"<{len(values)}f", *values)
        self.assertEqual(event["sha256"], hashlib.sha256(data).hexdigest(), event["name"])
        with open(os.path.join(self.outputs, event["file"]), "rb") as file:
            content = file.read()
        (size,) = struct.unpack_from("<Q", content)
        header = json.loads(content[8 : 8 + size])[event["name"]]
        self.assertEqual((header["dtype"], header["shape"]), ("F32", shape))
        self.assertEqual(content[8 + size :], data)


def request_of(pipeline: str, checkpoint: str, outputs: str, inputs: dict, **other: Any) -> dict:
    """A request; `other` replaces its entries, or with two underscores those of `precision`."""
    request: dict[str, Any] = {
        "request": "run",
        "protocol": 1,
        "pipeline": pipeline,
        "checkpoint": checkpoint,
        "variant": None,
        "inputs": inputs,
        "defaults": [],
        "precision": {
            "default": "bf16",
            "components": {},
            "storage": {},
            "overrides": [],
            "policy": "strict",
            "load": "from_pretrained",
        },
        "tiling": None,
        "quirks": [],
        "noise_ulps": 0,
        "repeat": 1,
        "warmup": 0,
        "threads": 2,
        "device": "cpu",
        "memory": None,
        "outputs": outputs,
    }
    for name, value in other.items():
        part, _, key = name.partition("__")
        if key:
            request[part][key] = value
        else:
            request[part] = value
    return request


def only(events: list[dict], kind: str) -> list[dict]:
    """The events of one kind."""
    return [event for event in events if event["event"] == kind]
