"""The worker's half of mpbench's protocol, for engines written in Python.

PROTOCOL.md, beside this file, is the specification. An engine is an Adapter and one line:

    worker.serve(MyAdapter())

This module needs Python 3.8 or newer and nothing else: no torch, no numpy.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import glob
import hashlib
import importlib.metadata
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import time
import traceback
from types import TracebackType
from typing import Any, Iterator, Mapping, Sequence

PROTOCOL = 1
EVENTS_FD = 3
MAX_TEXT = 1900  # bytes of an error's text that the harness keeps
MAX_WARNING = 4000

# What torch says when dtypes do not fit, in the wordings of its releases.
DTYPE_WORDS = (
    "expected scalar type",
    "to have the same dtype",
    "should be the same",
    "must have the same dtype",
    "not implemented for '",
    "Promotion for Float8",
)
SHAPE_WORDS = ("size mismatch", "shapes cannot be multiplied", "must match the size of tensor")
MEMORY_WORDS = ("can't allocate memory", "not enough memory", "out of memory")


class EngineError(Exception):
    """Something the engine itself refuses; `code` is one of PROTOCOL.md's."""

    def __init__(self, text: str, code: str = "engine") -> None:
        super().__init__(text)
        self.code = code


class Adapter:
    """What a library has to offer. Override everything that raises NotImplementedError."""

    name = "engine"
    packages: Sequence[str] = ()  # top-level packages in which an error's frame is looked for

    def start(self) -> tuple[str, dict[str, str]]:
        """Imports the library. Its version, and what belongs into a run's environment."""
        raise NotImplementedError

    def load(self, request: Mapping[str, Any], sink: Sink) -> Any:
        """Reads the checkpoint as the request says; the result goes to the other methods.

        When it fails, unload is not called.
        """
        raise NotImplementedError

    def generate(self, pipeline: Any, request: Mapping[str, Any], sink: Sink) -> None:
        """One generation. Everything of interest is told to the sink while it happens."""
        raise NotImplementedError

    def modules(self, pipeline: Any) -> dict[int, str]:
        """id(module) -> dotted path, as checkpoints name them: where an error happened."""
        return {}

    def first_nonfinite(self, pipeline: Any, request: Mapping[str, Any], sink: Sink) -> dict:
        """Generates again, looking at each module's output: module, op, nan, inf of the first."""
        return {}

    def memory(self) -> dict[str, int]:
        """Peaks of device memory since load began, in bytes: cuda_allocated, cuda_reserved."""
        return {}

    def synchronize(self) -> None:
        """Waits for the device, so that a stage's time is its own."""

    def unload(self, pipeline: Any) -> None:
        """Releases it; the next request follows."""


class Channel:
    """Events to the harness, one JSON object a line."""

    def __init__(self, fd: int) -> None:
        self._file = os.fdopen(fd, "wb", buffering=0)

    def send(self, event: str, **fields: Any) -> None:
        """Sends it whole: the pipe may take a long line in parts."""
        line = json.dumps({"event": event, **fields}, allow_nan=False).encode() + b"\n"
        view = memoryview(line)
        while view:
            view = view[self._file.write(view) :]


class Sink:
    """What a generation tells: stages, steps, tensors, warnings.

    Time spent on telling is not counted as the library's.
    """

    def __init__(self, channel: Channel, adapter: Adapter, folder: str) -> None:
        self._channel, self._adapter, self._folder = channel, adapter, folder
        self.stage_name, self.step_index = "", -1
        self.repeat, self.capture, self.quiet, self.broken = 0, False, False, False
        self.paused = 0.0
        self._stage_began = self._stage_paused = 0.0
        self._warned: set[str] = set()

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """What happens inside costs the library no time."""
        self._adapter.synchronize()
        start = time.perf_counter()
        try:
            yield
        finally:
            self.paused += time.perf_counter() - start

    def enter(self, stage: str) -> None:
        """Ends the stage that runs and begins this one; the same stage again goes on."""
        if stage == self.stage_name:
            return
        self.leave()
        self.stage_name, self.step_index = stage, 0 if stage == "denoise" else -1
        if not self.quiet:
            self._channel.send("begin", stage=stage, repeat=self.repeat)
        self._stage_began, self._stage_paused = time.perf_counter(), self.paused

    def leave(self) -> None:
        """Ends the stage that runs, if any."""
        if self.stage_name:
            self._adapter.synchronize()
            spent = time.perf_counter() - self._stage_began - (self.paused - self._stage_paused)
            if not self.quiet:
                self._channel.send(
                    "stage", name=self.stage_name, repeat=self.repeat, seconds=max(spent, 0.0)
                )
        self.stage_name, self.step_index = "", -1

    def step(self, index: int, steps: int) -> None:
        """Denoising step `index` (from 0) of `steps` is done."""
        self.step_index = index + 1 if index + 1 < steps else -1
        if not self.quiet:
            self._channel.send("step", step=index, steps=steps, repeat=self.repeat)

    def tensor(
        self, name: str, shape: Sequence[int], data: bytes, dtype: str, finite: bool
    ) -> None:
        """A named result: little-endian fp32 values, row-major; dtype is how it was held."""
        if self.quiet:
            return
        self.broken = self.broken or not finite
        fields: dict[str, Any] = {
            "name": name,
            "dtype": dtype,
            "shape": list(shape),
            "sha256": hashlib.sha256(data).hexdigest(),
            "repeat": self.repeat,
        }
        if self.capture:
            fields["file"] = f"{name}.safetensors"
            write_safetensors(os.path.join(self._folder, fields["file"]), name, shape, data)
        self._channel.send("tensor", **fields)

    def warn(self, text: str) -> None:
        """On record with the cell, each text once: loading may warn, and every repeat again."""
        if not self.quiet and text not in self._warned:
            self._warned.add(text)
            self._channel.send("warning", text=shorten(text, MAX_WARNING))

    def weights(self, size: int) -> None:
        """Bytes that the weights occupy."""
        self._channel.send("weights", mapped=0, converted=size)


def write_safetensors(path: str, name: str, shape: Sequence[int], data: bytes) -> None:
    """One fp32 tensor in the safetensors format (8 bytes of length, JSON, values)."""
    entry = {"dtype": "F32", "shape": list(shape), "data_offsets": [0, len(data)]}
    header = json.dumps({name: entry}).encode()
    header += b" " * (-len(header) % 8)
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        file.write(data)


def shorten(text: str, limit: int) -> str:
    """At most `limit` bytes of UTF-8; what cannot be encoded is escaped."""
    data = text.encode("utf-8", "backslashreplace")
    return data[:limit].decode("utf-8", "ignore")


# ---- where a library comes from ---------------------------------------------------------------


def version_of(name: str) -> str:
    """Of the module that was imported, else of the package that is installed; else empty."""
    version = getattr(sys.modules.get(name), "__version__", "")
    if not version:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            version = importlib.metadata.version(name)
    return str(version)


def folder_of(name: str) -> str:
    """Of an imported package; one without an __init__.py has the first of its search path."""
    module = sys.modules[name]
    if getattr(module, "__file__", None):
        return os.path.dirname(os.path.realpath(str(module.__file__)))
    return os.path.realpath(next(iter(module.__path__)))


def check_origin(name: str) -> None:
    """What --pythonpath names is what must be measured: another copy would be a silent mistake."""
    wanted = os.environ.get("MPBENCH_PYTHONPATH")
    if not wanted:
        return
    folder, found = os.path.realpath(wanted), folder_of(name)
    if os.path.commonpath([folder, found]) != folder:
        raise EngineError(
            f"{name} {version_of(name)} was found at {found}, not under --pythonpath {wanted}; does"
            f" that hold {name}/__init__.py or src/{name}/__init__.py?"
        )


def git(folder: str, *command: str) -> str:
    """What git says; empty when it fails or is not there."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            ["git", "-C", folder, *command],
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=10,
            check=True,
        )
        return done.stdout.decode(errors="replace").strip()
    return ""


def git_commit(name: str) -> str:
    """The commit of the working tree that the package belongs to; empty when it belongs to none.

    A virtual environment inside some repository is not that repository's: git must track the file.
    """
    folder = folder_of(name)
    if not git(folder, "ls-files", "--error-unmatch", "__init__.py"):
        return ""
    commit = git(folder, "rev-parse", "HEAD")
    changed = git(folder, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}-dirty" if commit and changed else commit


def source_hash(name: str) -> str:
    """SHA-256 over the package's Python files: an edit that no version or commit tells of."""
    digest = hashlib.sha256()
    for path in sorted(glob.glob(os.path.join(folder_of(name), "**", "*.py"), recursive=True)):
        with open(path, "rb") as file:
            digest.update(path[len(folder_of(name)) :].encode() + b"\0" + file.read())
    return digest.hexdigest()


# ---- errors ---------------------------------------------------------------------------------


def code_of(error: BaseException) -> str:
    """PROTOCOL.md's code for an exception: by its class where that says enough, else by its text."""
    text, name = str(error), type(error).__name__
    if isinstance(error, EngineError):
        return error.code
    if isinstance(error, MemoryError) or name == "OutOfMemoryError":
        return "memory"
    if any(word in text for word in MEMORY_WORDS):
        return "memory"
    if isinstance(error, (RuntimeError, TypeError)):
        if any(word in text for word in DTYPE_WORDS):
            return "dtype"
        if any(word in text for word in SHAPE_WORDS):
            return "shape"
    if isinstance(error, NotImplementedError):
        return "unsupported"
    if isinstance(error, FileNotFoundError):
        return "missing"
    if isinstance(error, json.JSONDecodeError) or name == "SafetensorError":
        return "format"
    if isinstance(error, OSError):
        return "io"
    return "exception"


def frames_of(trace: TracebackType | None) -> list:
    """The traceback's frames with their lines, innermost first."""
    frames = []
    while trace:
        frames.append((trace.tb_frame, trace.tb_lineno))
        trace = trace.tb_next
    return frames[::-1]


def frame_text(trace: TracebackType | None, packages: Sequence[str]) -> str:
    """The innermost frame inside the library: "diffusers/models/attention.py:120 in forward"."""
    for frame, line in frames_of(trace):
        module = frame.f_globals.get("__name__") or ""
        if module.split(".")[0] in packages:
            parts = frame.f_code.co_filename.replace(os.sep, "/").split("/")
            root = module.split(".")[0]
            at = len(parts) - 1 - parts[::-1].index(root) if root in parts else len(parts) - 1
            return f"{'/'.join(parts[at:])}:{line} in {frame.f_code.co_name}"
    return ""


def module_path(trace: TracebackType | None, paths: Mapping[int, str]) -> str:
    """The innermost module of the pipeline that is at work in the traceback."""
    for frame, _ in frames_of(trace):
        for name in ("self", "attn"):  # a processor of an attention has it as an argument
            path = paths.get(id(frame.f_locals.get(name)))
            if path:
                return path
    return ""


def describe(error: BaseException, adapter: Adapter, pipeline: Any, sink: Sink) -> dict[str, Any]:
    """An exception as an error event's fields."""
    trace = error.__traceback__
    paths = adapter.modules(pipeline) if pipeline is not None else {}
    fields = {
        "code": code_of(error),
        "text": shorten(str(error) or type(error).__name__, MAX_TEXT),
        "module": module_path(trace, paths),
        "op": "",
        "stage": sink.stage_name,
        "step": sink.step_index,
    }
    if not isinstance(error, EngineError):
        kind = type(error)
        name = kind.__qualname__
        if kind.__module__ != "builtins":
            name = f"{kind.__module__}.{name}"
        fields.update(exception=name, frame=frame_text(trace, adapter.packages))
    return fields


# ---- memory ---------------------------------------------------------------------------------


def status_bytes(field: str) -> int:
    """A line of /proc/self/status such as VmHWM, in bytes; 0 where there is none."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith(field + ":"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def reset_peak() -> None:
    """Makes VmHWM begin anew, so that a warm worker tells of this cell alone."""
    with contextlib.suppress(OSError):
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")


def limit_memory(limit: int | None) -> None:
    """Writable private memory beyond what the worker has now; None: what the process was given."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = hard
    if limit:
        soft = status_bytes("VmData") + limit
        if hard != resource.RLIM_INFINITY:
            soft = min(soft, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


# ---- the whole ------------------------------------------------------------------------------


def generate_all(adapter: Adapter, pipeline: Any, request: Mapping[str, Any], sink: Sink) -> None:
    """Warm-ups and repeats; the first generation's tensors are kept."""
    channel = sink._channel
    sink.capture = True
    for repeat in range(-request["warmup"], request["repeat"]):
        sink.repeat, sink.paused = repeat, 0.0
        adapter.synchronize()
        start = time.perf_counter()
        adapter.generate(pipeline, request, sink)
        sink.leave()
        seconds = max(time.perf_counter() - start - sink.paused, 0.0)
        channel.send("stage", name="total", repeat=repeat, seconds=seconds)
        sink.capture = False
        if sink.broken:
            return


def diagnose(adapter: Adapter, pipeline: Any, request: Mapping[str, Any], sink: Sink) -> None:
    """A second run that looks at every module finds where the first non-finite value arose."""
    place: dict[str, Any] = {"module": "", "op": "", "stage": "", "step": -1, "nan": 0, "inf": 0}
    sink.quiet = True
    place.update(adapter.first_nonfinite(pipeline, request, sink))
    sink._channel.send("nonfinite", **place)


def tell_memory(adapter: Adapter, channel: Channel, idle: int) -> None:
    """Peaks of this cell; `idle` is what the worker held before it read the checkpoint."""
    try:
        device = adapter.memory()
    except Exception:  # a card in a bad state; the cell has its result
        traceback.print_exc()
        device = {}
    channel.send("memory", peak_rss=status_bytes("VmHWM"), idle_rss=idle, **device)


def run(adapter: Adapter, channel: Channel, request: Mapping[str, Any]) -> None:
    """One cell. Whatever happens, it ends with done or error."""
    sink = Sink(channel, adapter, request["outputs"])
    pipeline = None
    idle = 0
    try:
        limit_memory(request.get("memory"))
        reset_peak()
        idle = status_bytes("VmRSS")
        sink.enter("load")
        pipeline = adapter.load(request, sink)
        sink.leave()
        generate_all(adapter, pipeline, request, sink)
        if sink.broken:
            diagnose(adapter, pipeline, request, sink)
        last: dict[str, Any] = {"event": "done"}
    except BaseException as error:  # SystemExit of a library is a result, too
        limit_memory(None)
        last = {"event": "error", **describe(error, adapter, pipeline, sink)}
        del error
    limit_memory(None)
    tell_memory(adapter, channel, idle)
    unload(adapter, pipeline)
    del pipeline
    gc.collect()
    if "id" in request:
        last["id"] = request["id"]
    channel.send(**last)


def unload(adapter: Adapter, pipeline: Any) -> None:
    """The cell's result stands already: what goes wrong here goes to the log."""
    try:
        if pipeline is not None:
            adapter.unload(pipeline)
    except Exception:
        traceback.print_exc()


def take_stdin() -> Any:
    """Requests, by a descriptor of our own: a library that reads stdin finds it empty."""
    requests = os.fdopen(os.dup(0), "rb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return requests


def serve(adapter: Adapter) -> None:
    """Answers requests until the harness closes the pipe."""
    os.set_inheritable(EVENTS_FD, False)
    faulthandler.enable()  # where it was when a signal ends it, into the log
    faulthandler.register(signal.SIGTERM, chain=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the harness's to handle
    channel = Channel(EVENTS_FD)
    requests = take_stdin()
    try:
        version, environment = adapter.start()
    except BaseException as error:
        fields = describe(error, adapter, None, Sink(channel, adapter, ""))
        channel.send("error", **fields)
        return
    environment = {"python": platform.python_version(), **environment}
    channel.send(
        "ready", protocol=PROTOCOL, engine=adapter.name, version=version, environment=environment
    )
    for line in requests:
        request = json.loads(line)
        if request.get("request") == "run":
            run(adapter, channel, request)
        else:
            channel.send("error", code="engine", text=f"unknown request {request.get('request')!r}")
