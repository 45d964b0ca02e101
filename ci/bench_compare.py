#!/usr/bin/env python3
"""Interleaves the native benchmarks with PyTorch's and prints the ratios (called by ci/bench).

A ratio is PyTorch's time over ours: 2.00 means twice as fast as PyTorch. The minimum over rounds is
taken on each side, because noise on a shared machine only ever adds.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DTYPES = ("fp32", "fp16", "bf16")


def json_lines(command: list[str], env: dict[str, str]) -> list[dict]:
    """The JSON objects that a command prints, one a line; anything else is left aside."""
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def keep_minimum(best: dict, rows: list[dict]) -> None:
    for row in rows:
        key = (row["op"], row["shape"], row["dtype"])
        best[key] = min(best.get(key, float("inf")), row["seconds"])


def bench_ops(args: argparse.Namespace, env: dict[str, str]) -> list[dict]:
    ours: dict = {}
    theirs: dict = {}
    for _ in range(args.rounds):
        keep_minimum(ours, json_lines([f"{args.build}/tests/bench/bench_ops", str(args.threads)], env))
        keep_minimum(theirs, json_lines([sys.executable, "ci/bench_torch.py", str(args.threads)], env))
    table = []
    for (op, shape, dtype), seconds in sorted(ours.items()):
        fp32 = ours.get((op, shape, "fp32"))
        torch = theirs.get((op, shape, dtype))
        table.append(
            {
                "op": op, "shape": shape, "dtype": dtype, "seconds": seconds, "torch": torch,
                "ratio": torch / seconds if torch else None,
                "of_own_fp32": fp32 / seconds if fp32 else None,
            }
        )
    return table


def scenario(dtype: str, args: argparse.Namespace) -> str:
    """A scenario for one dtype, with the inputs of ci/bench_run.py."""
    return json.dumps(
        {
            "name": f"bench-{dtype}", "pipeline": "sana", "checkpoint": str(args.checkpoint),
            "inputs": {
                "prompt": "a photo of a red fox", "height": args.size, "width": args.size,
                "steps": args.steps, "guidance": 4.5, "seed": 7,
                "use_resolution_binning": False,
            },
            "precision": {"default": dtype}, "reference": "off", "repeat": args.repeats, "warmup": 1,
        }
    )


def native_seconds(dtype: str, args: argparse.Namespace, env: dict[str, str]) -> float:
    """Smallest total of one native run, read back from a database of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{dtype}.yaml")
        path.write_text(scenario(dtype, args))  # JSON is YAML
        db = str(Path(folder, "bench.db"))
        subprocess.run(
            [f"{args.build}/mpbench", "run", str(path), "--db", db, "--threads", str(args.threads)],
            env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        query = "select min(seconds) from sample_view where stage = 'total' and repeat >= 0"
        done = subprocess.run(["sqlite3", db, query], stdout=subprocess.PIPE, text=True, check=True)
        return float(done.stdout)


def diffusers_seconds(dtype: str, args: argparse.Namespace, env: dict[str, str]) -> float:
    command = [
        sys.executable, "ci/bench_run.py", str(args.checkpoint), dtype, str(args.size), str(args.size),
        str(args.steps), str(args.repeats), str(args.threads),
    ]
    return min(json_lines(command, env)[0]["seconds"])


def bench_run(args: argparse.Namespace, env: dict[str, str]) -> list[dict]:
    ours = dict.fromkeys(DTYPES, float("inf"))
    theirs = dict.fromkeys(DTYPES, float("inf"))
    for _ in range(args.rounds):
        for dtype in DTYPES:
            ours[dtype] = min(ours[dtype], native_seconds(dtype, args, env))
            theirs[dtype] = min(theirs[dtype], diffusers_seconds(dtype, args, env))
    shape = f"{args.size}x{args.size}, {args.steps} steps"
    return [
        {
            "op": "sana-tiny", "shape": shape, "dtype": dtype, "seconds": ours[dtype],
            "torch": theirs[dtype], "ratio": theirs[dtype] / ours[dtype],
            "of_own_fp32": ours["fp32"] / ours[dtype],
        }
        for dtype in DTYPES
    ]


def show(rows: list[dict]) -> None:
    print(f"{'what':28} {'shape':24} {'dtype':9} {'ms':>10} {'torch ms':>10} {'ratio':>7} {'of fp32':>8}")
    for r in rows:
        torch = f"{r['torch'] * 1e3:10.3f}" if r["torch"] else f"{'-':>10}"
        ratio = f"{r['ratio']:7.2f}" if r["ratio"] else f"{'-':>7}"
        own = f"{r['of_own_fp32']:8.2f}" if r["of_own_fp32"] else f"{'-':>8}"
        print(f"{r['op']:28} {r['shape']:24} {r['dtype']:9} {r['seconds'] * 1e3:10.3f} {torch} {ratio} {own}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3, help="generations per round")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", choices=("ops", "run"))
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "tests/fixtures/checkpoints/sana-tiny")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--json", type=Path, help="write the table here, too")
    args = parser.parse_args()
    env = dict(os.environ, OMP_NUM_THREADS=str(args.threads), HF_HUB_OFFLINE="1")

    rows = []
    if args.only != "run":
        rows += bench_ops(args, env)
    if args.only != "ops":
        rows += bench_run(args, env)
    show(rows)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
