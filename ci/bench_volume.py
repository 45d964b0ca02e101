#!/usr/bin/env python3
"""How mpbench bears a database of a year: rows for ci/bench_compare.py.

365 nights of 200 cells with 140 metric rows each, 10 million of them and 15 million rows in all, are written as a run
writes them, each cell twice in a transaction of its own; then each command reads the whole, and merge copies it.
Targets: 200,000 rows a second written and merged, list and compare within 1 s, regressions over everything within 30 s. MiB of "write" is the file's size.
"""

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

COMMANDS = {
    "list": ["list"],
    "compare": ["compare", "fp16", "bf16"],
    "regressions": ["regressions", "--dry-run"],
    "all rows": ["regressions", "--dry-run", "--all-rows"],
}


def run(command: list[str], env: dict[str, str]) -> tuple[float, float]:
    """Seconds and peak MiB of a command; 1 is an open finding, which the database has."""
    start = time.monotonic()
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - start
    if os.waitstatus_to_exitcode(status) not in (0, 1):
        raise SystemExit(f"{' '.join(command)}: exit status {os.waitstatus_to_exitcode(status)}")
    return seconds, usage.ru_maxrss / 1024


def row(op: str, shape: str, seconds: float, mib: float) -> dict:
    return {
        "op": f"year {op}", "shape": shape, "dtype": "-", "seconds": seconds, "torch": None, "ratio": None,
        "of_own_fp32": None, "peak_mib": (mib, 0),
    }  # fmt: skip


def bench_volume(build: str, rounds: int, env: dict[str, str]) -> list[dict]:
    with tempfile.TemporaryDirectory() as folder:
        db = Path(folder, "year.db")
        text = subprocess.run([f"{build}/tests/bench/bench_volume", db], env=env, check=True, capture_output=True).stdout
        made = json.loads(text)
        table = [row("write", f"{made['rows_per_second']:,.0f} rows/s", made["seconds"], made["mib"])]
        for name, words in COMMANDS.items():
            took = [run([f"{build}/mpbench", *words, "--db", str(db)], env) for _ in range(min(rounds, 3))]
            table.append(row(name, f"{made['rows'] / 1e6:.1f} million rows", min(took)[0], max(t[1] for t in took)))
        seconds, mib = run([f"{build}/mpbench", "merge", f"{folder}/merged.db", str(db)], env)
        table.append(row("merge", f"{made['rows'] / seconds:,.0f} rows/s", seconds, mib))
        return table
