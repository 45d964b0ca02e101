#!/usr/bin/env python3
"""What mpbench costs around a generation: rows for ci/bench_compare.py.

start     from the start of the process to the first denoising step of the tiny checkpoint, by the trace's clock;
          the target is 50 ms
once      of a run of one cell: all of it but loading and generating
overhead  of one more cell in a run: its process, loading left out, its recording; the target is 1 % of a cell of 1 s
"""

import json
import math
import os
import sqlite3
import subprocess
import tempfile
import time
from pathlib import Path

TINY = Path(__file__).resolve().parent.parent / "tests/fixtures/checkpoints/sana-tiny"
CELLS = 10


def scenario(dtype: str, cells: int) -> dict:
    """Sana as its users call it, 64x64 in one step, once for each seed."""
    inputs = {
        "prompt": "a photo of a red fox", "height": 64, "width": 64, "steps": 1, "seed": 7,
        "use_resolution_binning": False,
    }  # fmt: skip
    return {
        "name": "bench-startup", "pipeline": "sana", "checkpoint": str(TINY), "inputs": inputs,
        "precision": {"default": dtype}, "reference": "off", "matrix": {"inputs.seed": list(range(cells))},
    }  # fmt: skip


def run(build: str, dtype: str, cells: int, threads: int, env: dict[str, str]) -> float:
    """Seconds of the whole process but those that its cells load and generate."""
    with tempfile.TemporaryDirectory() as folder:
        path, db = Path(folder, "startup.yaml"), Path(folder, "startup.db")
        path.write_text(json.dumps(scenario(dtype, cells)))
        command = [f"{build}/mpbench", "run", str(path), "--db", str(db), "--threads", str(threads)]
        start = time.monotonic()
        subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wall = time.monotonic() - start
        with sqlite3.connect(db) as records:
            (inside,) = records.execute(
                "select sum(seconds) from sample where stage in ('total', 'load')"
            ).fetchone()
            return wall - float(inside)


def first_step(build: str, dtype: str, threads: int, env: dict[str, str]) -> float:
    """Seconds from the start of the process to the denoiser."""
    with tempfile.TemporaryDirectory() as folder:
        path, trace = Path(folder, "startup.yaml"), Path(folder, "startup.json")
        path.write_text(json.dumps(scenario(dtype, 1)))
        command = [
            f"{build}/mpbench", "run", str(path), "--db", f"{folder}/startup.db", "--threads", str(threads),
            "--trace", str(trace),
        ]  # fmt: skip
        start = time.monotonic()
        subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        told = json.loads(trace.read_text())
    stages = (e for e in told["traceEvents"] if e.get("cat") == "stage" and e.get("name") == "denoise")
    return 1e-9 * told["otherData"]["zero_ns"] + 1e-6 * next(stages)["ts"] - start


def bench_startup(build: str, rounds: int, threads: int, env: dict[str, str]) -> list[dict]:
    table = []
    for dtype in ("fp32", "bf16"):
        start = one = many = math.inf
        for _ in range(max(rounds, 5)):
            start = min(start, first_step(build, dtype, threads, env))
            one = min(one, run(build, dtype, 1, threads, env))
            many = min(many, run(build, dtype, CELLS, threads, env))
        more = (many - one) / (CELLS - 1)
        for op, shape, seconds in (
            ("start", "64x64, 1 step", start), ("once", "a run of one cell", one), ("overhead", "of one more cell", more),
        ):  # fmt: skip
            table.append(
                {
                    "op": f"sana {op}", "shape": shape, "dtype": dtype, "seconds": seconds,
                    "torch": None, "ratio": None, "of_own_fp32": None,
                }
            )  # fmt: skip
    return table


if __name__ == "__main__":
    for row in bench_startup("build/release", 5, os.cpu_count() or 1, dict(os.environ)):
        print(f"{row['op']:14} {row['shape']:18} {row['dtype']:5} {row['seconds'] * 1e3:8.1f} ms")
