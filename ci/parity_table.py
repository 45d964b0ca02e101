#!/usr/bin/env python3
"""The parity table of ci/parity: how near the native engine is to Diffusers.

parity_table.py DIR            the table; status 1 outside the limits
parity_table.py DIR --failed   ids of cells that did not end as ok: ci/parity fetches their records

DIR holds list.json (`mpbench list --format json`), cell-ID.json (`mpbench show`), and the tensors of
both engines as --dump wrote them. Distances are taken from the tensors, not from mpbench's metrics.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file

# The limits of truth. fp32: relative L2 of the two engines' results. Else: the ratio of their drifts from
# their own fp32 run; over the steps and the pictures of its samples (seeds or prompts) the geometric mean, and each single one.
# (Diffusers itself, on two CPUs: means 0.95 to 1.04, single ones 0.83 to 1.08 but 2.14 once.)
FP32_LATENTS, FP32_PICTURE = 1e-5, 1e-4
MEAN, SINGLE = (0.9, 1.11), (0.33, 3.0)
ENGINES = ("native", "diffusers")
SAMPLE = re.compile(r"inputs\.(seed=\d+|prompt=.*)")  # the last part of a cell's key
OWN_BASE = ("parity-sana-overflow", "parity-sana-small", "parity-sd35-options")  # with fp32 cells of their own


@dataclass
class Row:
    """All samples, seeds or prompts, of one way to mix dtypes."""

    distances: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    ratios: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    seconds: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)


def rel_l2(x: np.ndarray, y: np.ndarray) -> float:
    """||x - y|| / ||y|| in fp64."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    return float(np.linalg.norm(x - y) / np.linalg.norm(y))


def read_cells(folder: Path) -> dict[str, dict[str, dict]]:
    """engine -> key -> the cell as `mpbench list` has it."""
    data = json.loads((folder / "list.json").read_text())
    labels = {run["id"]: run["label"] for run in data["runs"]}
    cells: dict[str, dict[str, dict]] = {engine: {} for engine in ENGINES}
    for cell in data["cells"]:
        if labels[cell["run"]] in cells:
            cells[labels[cell["run"]]][cell["key"]] = cell
    return cells


def dumps(folder: Path) -> dict[str, dict[str, Path]]:
    """engine -> key -> what --dump wrote of the cell."""
    files: dict[str, dict[str, Path]] = {engine: {} for engine in ENGINES}
    for engine in ENGINES:
        for path in (folder / engine).rglob("outputs.safetensors"):
            with safe_open(path, "np") as file:
                files[engine][file.metadata()["cell"]] = path
    return files


def fp32_key(key: str) -> str:
    """The fp32 cell of the same sample and tiling."""
    scenario, parts = key.split("/", 1)
    sample = SAMPLE.search(parts).group()
    if scenario in OWN_BASE:
        return f"{scenario}/precision.default=fp32,{sample}"
    tiling = re.search(r"tiling=[^,]+", parts)
    family = scenario.split("-")[1]
    return f"parity-{family}-dtypes/precision.default=fp32,{tiling.group() if tiling else 'tiling=off'},{sample}"


def compared(names: dict[str, np.ndarray]) -> list[str]:
    """Prompt embeddings aside, everything that the limits speak of, in order."""
    return sorted(n for n in names if n.startswith("latents_")) + ["image"]


def add(row: Row, files: dict[str, dict[str, Path]], key: str, cells: dict[str, dict[str, dict]]) -> None:
    """One sample into its row."""
    native, diffusers = (load_file(files[engine][key]) for engine in ENGINES)
    if fp32_key(key) == key:
        for name in ["initial_noise", "prompt_embeds", *compared(native)]:
            row.distances[name].append(rel_l2(native[name], diffusers[name]))
    else:
        references = [load_file(files[engine][fp32_key(key)]) for engine in ENGINES]
        for name in compared(native):
            ours = rel_l2(native[name], references[0][name])
            theirs = rel_l2(diffusers[name], references[1][name])
            row.ratios[name].append(ours / theirs)
    ours, theirs = (cells[engine][key] for engine in ENGINES)
    row.seconds.append(theirs["seconds"] / ours["seconds"])
    row.memory.append(theirs["peak_mib"] / ours["peak_mib"])


def mean(values: list[float]) -> float:
    """The geometric one, as ratios want it."""
    return math.exp(sum(math.log(v) for v in values) / len(values))


def judge(row: Row) -> list[str]:
    """What of the row is outside the limits."""
    broken = []
    for name, values in row.distances.items():
        limit = FP32_PICTURE if name == "image" else FP32_LATENTS
        if not max(values) <= limit:
            broken.append(f"{name} is {max(values):.2g} away, limit {limit:g}")
    every = [v for values in row.ratios.values() for v in values]
    if every and not MEAN[0] <= mean(every) <= MEAN[1]:
        broken.append(f"the mean drift ratio is {mean(every):.3f}, limits {MEAN}")
    if every and not all(SINGLE[0] <= v <= SINGLE[1] for v in every):
        broken.append(f"drift ratios are {min(every):.2f} to {max(every):.2f}, limits {SINGLE}")
    return broken


def row_text(row: Row) -> str:
    """Distance or ratios, then what Diffusers takes as multiples of the native engine."""
    cost = f"{mean(row.seconds):6.1f} {mean(row.memory):6.1f}"
    if row.distances:
        latents = max(max(v) for n, v in row.distances.items() if n != "image")
        return f"{latents:9.1e} {max(row.distances['image']):9.1e}  {'':6} {'':11} {cost}"
    every = [v for values in row.ratios.values() for v in values]
    steps = " ".join(f"{mean(values):.2f}" for values in row.ratios.values())
    return f"{'':9} {'':9}  {mean(every):6.3f} {min(every):5.2f}-{max(every):4.2f}  {cost}  {steps}"


def compare_failures(folder: Path, ids: dict[str, dict[str, int]]) -> list[str]:
    """Cells that fail must fail alike: status, outcome, text and module."""
    broken = []
    for key, pair in ids.items():
        ours, theirs = (json.loads((folder / f"cell-{pair[e]}.json").read_text()) for e in ENGINES)
        fields = ["status", "outcome", "module", "stage"]
        if ours["status"] == "error":  # of non-finite values the text has a count, which may differ
            fields.append("error")
        differ = [f for f in fields if ours.get(f) != theirs.get(f)]
        print(f"{key}\n    {ours['error']}\n    in {ours['module']}:", ", ".join(differ) or "alike")
        broken += [f"{key}: {f} is {theirs.get(f)!r} in Diffusers and {ours.get(f)!r} here" for f in differ]
    return broken


def group(key: str) -> str:
    """The row that a cell belongs to: its key without the sample."""
    return SAMPLE.sub("", key).rstrip(",").removeprefix("parity-")


def main() -> int:
    folder = Path(sys.argv[1])
    cells = read_cells(folder)
    if "--failed" in sys.argv:
        print(*(c["id"] for e in ENGINES for c in cells[e].values() if c["status"] != "ok"))
        return 0
    broken: list[str] = []
    files = dumps(folder)
    rows: dict[str, Row] = defaultdict(Row)
    failed: dict[str, dict[str, int]] = {}
    for key in cells["native"]:
        if any(cells[engine][key]["status"] != "ok" for engine in ENGINES):
            failed[key] = {engine: cells[engine][key]["id"] for engine in ENGINES}
        else:
            add(rows[group(key)], files, key, cells)
    width = max(len(name) for name in rows)
    pad = " " * width
    print(f"\n{pad}  fp32 distance        drift ratio         Diffusers/native  drift ratio by step,")
    print(f"{pad}    latents   picture    mean  single         time memory  and of the picture")
    for name, row in rows.items():
        print(f"{name:{width}}  {row_text(row)}")
        broken += [f"{name}: {text}" for text in judge(row)]
    print("\nwhat fails:")
    broken += compare_failures(folder, failed)
    for text in broken:
        print(f"OUTSIDE: {text}")
    print(
        f"\nverdict: {'OUTSIDE' if broken else 'OK'} exit={int(bool(broken))} ({len(rows)} mixes,"
        f" {len(cells['native'])} cells of each engine, {len(failed)} that fail)"
    )
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
