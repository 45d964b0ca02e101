#!/usr/bin/env python3
"""Interleaves the native benchmarks with PyTorch's and prints the ratios (called by ci/bench).

A ratio is PyTorch's time over ours: 2.00 means twice as fast as PyTorch. The minimum over rounds is
taken on each side, because noise on a shared machine only ever adds.
"""

import argparse
import json
import math
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench_startup import bench_startup
from bench_volume import bench_volume

ROOT = Path(__file__).resolve().parent.parent
DTYPES = ("fp32", "fp16", "bf16")
ENGINES = ("native", "diffusers")
# Of one case: at least and at most so many turns and seconds, times --rounds; between two, threads come to rest.
MIN_RUNS, MAX_RUNS, BUDGET, PAUSE = 2, 20, 0.4, 0.005
STAGES = ("text_encode", "denoise", "decode", "total")
HELD = {"MPBENCH_ISA": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}


class Server:
    """bench_ops or bench_torch.py: a case, then its time as often as it is asked."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self.process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def case(self) -> dict | None:
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def send(self, word: str) -> None:
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def seconds(self) -> float:
        self.send("run")
        took = float(self.process.stdout.readline())
        time.sleep(PAUSE)
        return took


def take_turns(servers: list[Server], rounds: int) -> list[float]:
    """The minimum of each, which has its turn after the others."""
    best, spent, runs = [math.inf] * len(servers), 0.0, 0
    while runs < MIN_RUNS * rounds or (runs < MAX_RUNS * rounds and spent < BUDGET * rounds):
        for i, server in enumerate(servers):
            took = server.seconds()
            best[i], spent = min(best[i], took), spent + took
        runs += 1
    return best


def bench_ops(args: argparse.Namespace, env: dict[str, str]) -> list[dict]:
    wanted = [str(args.threads), *([args.op] if args.op else [])]
    ours = Server([f"{args.build}/tests/bench/bench_ops", *wanted], env)
    theirs = Server([sys.executable, "ci/bench_torch.py", *wanted], env)
    table = []
    while case := ours.case():
        other = theirs.case()
        skip = other is not None and other.pop("skip", False)
        if other is None or any(other[key] != case[key] for key in other):
            sys.exit(f"bench_ops offers {case}, bench_torch.py {other}: the two lists differ")
        seconds, *torch = take_turns([ours] if skip else [ours, theirs], args.rounds)
        for server in (ours, theirs):
            server.send("next")
        table.append(
            case
            | {"seconds": seconds, "torch": None if skip else torch[0], "ratio": None if skip else torch[0] / seconds}
        )
    fp32 = {(row["op"], row["shape"]): row["seconds"] for row in table if row["dtype"] == "fp32"}
    for row in table:
        row["of_own_fp32"] = fp32[row["op"], row["shape"]] / row["seconds"]
        row["gb_per_s"] = row["bytes"] / row["seconds"] / 1e9
        row["gflop_per_s"] = row["flops"] / row["seconds"] / 1e9
    return table


@dataclass(frozen=True)
class Run:
    """One whole generation that both engines time."""

    pipeline: str
    checkpoint: Path
    dtype: str
    size: int
    steps: int
    inputs: dict = field(default_factory=dict, compare=False)
    repeats: int = 1  # generations a round; where there are several, one more before them
    held: bool = False  # both engines to AVX2
    once: bool = False  # in the first round alone: PyTorch is too slow there for more

    @property
    def isa(self) -> str:
        return "AVX2" if self.held else "all"

    def scenario(self) -> dict:
        inputs = {
            "prompt": "a photo of a red fox", "height": self.size, "width": self.size,
            "steps": self.steps, "guidance": 4.5, "seed": 7,
        }  # fmt: skip
        return {
            "name": f"bench-{self.pipeline}", "pipeline": self.pipeline,
            "checkpoint": str(self.checkpoint), "inputs": inputs | self.inputs,
            "precision": {"default": self.dtype}, "reference": "off", "timeout": "3600s",
        }  # fmt: skip


def synthetic(preset: str, args: argparse.Namespace) -> Path:
    """A checkpoint of about 150 M parameters with seeded weights."""
    folder = ROOT / "build/bench" / preset
    folder.parent.mkdir(parents=True, exist_ok=True)
    command = [f"{args.build}/mpbench", "synth", preset, str(folder), "--dtype", "fp32", "--force"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def multiplies_fp16() -> bool:
    """Without such instructions Diffusers would take half an hour for the mid-size picture."""
    return "avx512_fp16" in Path("/proc/cpuinfo").read_text()


def sana_runs(args: argparse.Namespace) -> list[Run]:
    tiny = ROOT / "tests/fixtures/checkpoints/sana-tiny"
    mid = synthetic("sana-mid", args)
    plain = {"use_resolution_binning": False}
    runs = [Run("sana", tiny, dtype, 64, 6, plain, repeats=3) for dtype in DTYPES]
    dtypes = [dtype for dtype in DTYPES if dtype != "fp16" or multiplies_fp16()]
    return runs + [Run("sana", mid, dtype, 512, 4, plain) for dtype in dtypes]


def sd3_runs(args: argparse.Namespace) -> list[Run]:
    """PyTorch's bf16 convolutions without AVX-512 are so slow that a picture of 512x512 takes hours."""
    folder = synthetic("sd35-mid", args)
    runs = [Run("sd3", folder, dtype, 512, 4) for dtype in ("fp32", "bf16")]
    runs.append(Run("sd3", folder, "fp32", 512, 4, held=True))
    runs.append(Run("sd3", folder, "bf16", 64, 1, held=True, once=True))
    return runs


def generate(run: Run, engine: str, args: argparse.Namespace, env: dict[str, str]) -> dict[str, float]:
    """Seconds of each stage of one `mpbench run`, and the peak of memory of its process in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        path, db = Path(folder, "bench.yaml"), Path(folder, "bench.db")
        path.write_text(json.dumps(run.scenario()))  # JSON is YAML
        command = [
            f"{args.build}/mpbench", "run", str(path), "--db", str(db), "--engine", engine,
            "--python", sys.executable, "--threads", str(args.threads),
            "--repeat", str(run.repeats), "--warmup", str(int(run.repeats > 1)),
        ]  # fmt: skip
        subprocess.run(command, env=env | (HELD if run.held else {}), check=True, stdout=subprocess.DEVNULL)
        with sqlite3.connect(db) as records:
            seconds = records.execute(
                "select stage, min(seconds) from sample_view where repeat >= 0 group by stage"
            )
            memory = records.execute("select 'peak_mib', value from metric where name = 'peak_mib'")
            return {name: float(value) for name, value in [*seconds, *memory]}


def bench_runs(runs: list[Run], args: argparse.Namespace, env: dict[str, str]) -> list[dict]:
    best: dict = {}
    for number in range(args.rounds):
        for run in runs:
            for engine in ENGINES if number == 0 or not run.once else ():
                kept = best.setdefault((run, engine), {})
                for name, value in generate(run, engine, args, env).items():
                    kept[name] = min(kept.get(name, math.inf), value)
    fp32 = {(r.isa, r.size): best[r, "native"] for r in runs if r.dtype == "fp32"}
    table = []
    for run in runs:
        ours, theirs = (best[run, engine] for engine in ENGINES)
        own = fp32.get((run.isa, run.size))
        for stage in STAGES:
            table.append(
                {
                    "op": f"{run.pipeline} {stage}", "dtype": run.dtype, "seconds": ours[stage],
                    "shape": f"{run.size}x{run.size}, {run.steps} steps, {run.isa}",
                    "torch": theirs[stage], "ratio": theirs[stage] / ours[stage],
                    "of_own_fp32": own[stage] / ours[stage] if own else None,
                    "peak_mib": [ours["peak_mib"], theirs["peak_mib"]] if stage == "total" else None,
                }
            )  # fmt: skip
    return table


def show(rows: list[dict]) -> None:
    print(
        f"{'what':18} {'shape':24} {'dtype':5} {'ms':>11} {'torch ms':>11} {'ratio':>7} {'of fp32':>7}"
        f" {'GB/s':>6} {'GFLOP/s':>7} {'peak MiB':>9} {'torch':>6}"
    )
    for r in rows:
        torch = f"{r['torch'] * 1e3:11.3f}" if r["torch"] else f"{'-':>11}"
        ratio = f"{r['ratio']:7.2f}" if r["ratio"] else f"{'-':>7}"
        own = f"{r['of_own_fp32']:7.2f}" if r["of_own_fp32"] else f"{'-':>7}"
        moved = f"{r['gb_per_s']:6.1f}" if r.get("gb_per_s") else f"{'':6}"
        rate = f"{r['gflop_per_s']:7.0f}" if r.get("gflop_per_s") else f"{'':7}"
        peak = "{:9.0f} {:6.0f}".format(*r["peak_mib"]) if r.get("peak_mib") else ""
        print(
            f"{r['op']:18} {r['shape']:24} {r['dtype']:5} {r['seconds'] * 1e3:11.3f} {torch} {ratio} {own}"
            f" {moved} {rate} {peak}".rstrip()
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", choices=("ops", "sana", "sd3", "startup", "volume"))
    parser.add_argument("--op", help="of the single ops this one alone, as `linear`")
    parser.add_argument("--json", type=Path, help="write the table here, too")
    args = parser.parse_args()
    env = dict(os.environ, OMP_NUM_THREADS=str(args.threads), HF_HUB_OFFLINE="1")

    rows = []
    if args.only in (None, "ops"):
        rows += bench_ops(args, env)
    if args.only in (None, "sana"):
        rows += bench_runs(sana_runs(args), args, env)
    if args.only in (None, "sd3"):
        rows += bench_runs(sd3_runs(args), args, env)
    if args.only in (None, "startup"):
        rows += bench_startup(args.build, args.rounds, args.threads, env)
    if args.only in (None, "volume"):
        rows += bench_volume(args.build, args.rounds, env)
    show(rows)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
