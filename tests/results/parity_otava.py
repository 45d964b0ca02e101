"""Apache Otava's change points, to compare ours with.

    python3 -m venv venv && venv/bin/pip install apache-otava==0.8.0
    venv/bin/python tests/results/parity_otava.py            # writes tests/fixtures/results/change_points.json
    venv/bin/python tests/results/parity_otava.py --check    # is that what Otava says?
    venv/bin/python tests/results/parity_otava.py --fuzz 5000 --seed 7 \\
        --program build/release/tests/results_test_change_points

--fuzz makes other series and has the test program read them in place of the committed ones.
Values have few digits, so that the file is small and reads back exactly.  Otava takes lists: an
array would skip its windows.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import warnings

import numpy as np
from otava.analysis import compute_change_points

GOLDEN = pathlib.Path(__file__).parents[1] / "fixtures/results/change_points.json"
KINDS = ("gauss", "steps", "heavy", "bimodal", "walk", "ramp", "quantised", "binary", "constant",
         "spike at the end", "other level at the end", "tenths", "tiny", "huge", "around zero",
         "mirrored", "two levels", "coin", "coin", "coin")
# Two splits are equally good to the last bit, and the one at the smaller index ends later.
TIES = ([0, 0, 0, 1, 3, 1, 2, 0, 1, 1], [3, 3, 3, 3, 1, 3, 0, 1], [1, 1, 2, 2, 3, 3, 3, 2, 3, 0])
WINDOWS = (2, 3, 7, 15, 30, 50, 51, 100, 400)
PS = (0.2, 0.05, 0.01, 0.01, 0.001, 0.001, 1e-5)
MAGNITUDES = (0.0, 0.0, 0.05, 0.5)


def noise(rng, kind, n):
    if kind == "heavy":
        return rng.standard_t(2, n)
    if kind == "bimodal":
        return rng.choice([-1, 1], n) + 0.1 * rng.standard_normal(n)
    if kind == "walk":
        return np.cumsum(rng.standard_normal(n)) / 3
    if kind == "ramp":
        return np.arange(n) / 12 + rng.standard_normal(n)
    return rng.standard_normal(n)


def steps(rng, n, size):
    """Levels that change at a few random places."""
    at = np.sort(rng.integers(0, n, rng.integers(1, 5)))
    return size * rng.choice([-1, 1]) * np.searchsorted(at, np.arange(n), side="right")


def series(rng, kind, n):
    if kind == "coin":
        return rng.integers(0, 2, n).astype(float)
    x = 10 + noise(rng, kind, n)
    if kind in ("steps", "quantised", "binary", "two levels", "around zero") or rng.random() < 0.3:
        x = x + steps(rng, n, rng.choice([1, 2, 4, 10]))
    if kind == "quantised":
        return np.rint(x / 2)
    if kind == "binary":
        return (x > 10).astype(float)
    if kind == "tenths":
        return np.rint(x) / 10
    if kind == "around zero":
        return x - 10
    if kind == "mirrored":
        return np.where(np.arange(n) < n // 2, x, x[::-1])
    if kind == "two levels":
        return 0.1 + steps(rng, n, 0.3)
    if kind in ("constant", "spike at the end", "other level at the end"):
        x = np.full(n, rng.choice([0.0, 0.1, 0.7, 3.0]))
        tail = {"constant": 0, "spike at the end": 1, "other level at the end": rng.integers(2, 9)}[kind]
        return np.where(np.arange(n) < n - tail, x, x + 0.1)
    return x * {"tiny": 1e-160, "huge": 1e160}.get(kind, 1) ** rng.choice([0.5, 1, 1.8])


def short(x):
    return [float(f"{v:.3g}") for v in x]


def otava(x, window, p, magnitude):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        points, _ = compute_change_points(list(x), window_len=window, max_pvalue=p, min_magnitude=magnitude)
    return [[int(c.index)] + [float(f"{v:.13g}") for v in (c.stats.pvalue, c.stats.mean_1, c.stats.mean_2)]
            for c in points]


def case(kind, x, options):
    return {"kind": kind, "x": x, "sets": [
        {"window": w, "p": p, "magnitude": m, "points": otava(x, w, p, m)} for w, p, m in sorted(options)]}


def cases(count, seed, sets, longest=365):
    rng = np.random.default_rng(seed)
    out = []
    for i in range(count):
        kind = KINDS[i % len(KINDS)]
        coin = kind == "coin"  # short and full of ties; p 1 takes every split
        n = int(2 + (22 if coin else longest - 2) * rng.random() ** (1 if coin else 4))
        x = short(series(rng, kind, n))
        options = {(50, 0.001, 0.0)}
        while len(options) < sets:
            options.add((int(rng.choice(WINDOWS)), float(rng.choice((1, 0.2) if coin else PS)),
                         float(rng.choice(MAGNITUDES))))
        out.append(case(kind, x, options))
    return out + [case("tie", short(x), {(50, p, 0.0) for p in (0.1, 0.3, 1.0)}) for x in TIES]


def text(found):
    lines = [json.dumps(c, separators=(",", ":")) for c in found]
    return "[" + ",\n".join(lines) + "]\n"


def same(a, b):
    """Indices exactly; p and levels as closely as another numpy or scipy may have them."""
    close = lambda u, v: len(u) == len(v) and u[0] == v[0] and np.allclose(u[1:], v[1:], rtol=1e-9, atol=0)
    return a["x"] == b["x"] and len(a["sets"]) == len(b["sets"]) and all(
        len(s["points"]) == len(t["points"]) and all(map(close, s["points"], t["points"]))
        for s, t in zip(a["sets"], b["sets"]))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--check", action="store_true", help="compare the committed file with Otava, write nothing")
    p.add_argument("--fuzz", type=int, metavar="N", help="make N other series and run the test program on them")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--program", default="build/release/tests/results_test_change_points")
    a = p.parse_args()
    if a.fuzz:
        with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
            f.write(text(cases(a.fuzz, a.seed, 4)))
            f.flush()
            return subprocess.run([a.program, f.name]).returncode
    found = cases(320, 0, 3)
    if a.check:
        committed = json.loads(GOLDEN.read_text())
        bad = [i for i, (u, v) in enumerate(zip(committed, found)) if not same(u, v)]
        print(f"{len(found)} series, {sum(len(c['sets']) for c in found)} sets of parameters: "
              f"{len(bad)} differ from {GOLDEN.name}{': ' + str(bad) if bad else ''}")
        return 1 if bad or len(committed) != len(found) else 0
    GOLDEN.write_text(text(found))
    print(f"{GOLDEN}: {GOLDEN.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
