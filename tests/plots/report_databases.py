"""Databases for the report page: made from the schema, so that a hundred cells over months take a second.

    python3 tests/plots/report_databases.py nightly out.db
"""
import hashlib
import math
import pathlib
import random
import sqlite3
import struct
import sys
import zlib

SCHEMA = pathlib.Path(__file__).resolve().parents[2] / "results" / "schema.sql"
DRIFT = {"fp32": 0.0, "fp16": 1.4e-3, "bf16": 1.2e-2, "fp8_e4m3": 6e-2, "fp8_e5m2": 0.11}
# Each is a text that would do harm somewhere, if it were not taken as a text.
HOSTILE = [
    "'); DROP TABLE cell; --",
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "\" onmouseover=\"document.title='owned'\" x=\"",
    "`touch owned`\nset output 'owned'",
    "\x1b[31mred\x1b[0m\x07",
    "\u202eright to left\u2066",
    "{{data}} <!-- ]]> &amp; \u2028",
]


def open_new(path):
    pathlib.Path(path).unlink(missing_ok=True)
    db = sqlite3.connect(path)
    db.executescript(SCHEMA.read_text())
    db.execute("PRAGMA application_id = %d" % 0x6D706265)
    db.execute("PRAGMA user_version = 5")
    return db


def png(width, height, pixel):
    """A picture; pixel(x, y) gives red, green and blue."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + bytes(v for x in range(width) for v in pixel(x, y)) for y in range(height))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b""))


def scene(drift, seed):
    """A sky, a sun and a hill, with noise as strong as the drift."""
    noise = random.Random(seed)

    def pixel(x, y):
        sun = math.hypot(x - 128, y - 48) < 26
        hill = y > 110 + 18 * math.sin((x + 10 * (seed % 7)) / 22)
        base = (250, 214, 120) if sun else (58, 110 - y // 4, 62) if hill else (90 + y // 2, 150, 215 - y // 3)
        shift = noise.gauss(0, 255 * drift) if drift else 0
        return tuple(max(0, min(255, int(v + shift))) for v in base)
    return png(192, 192, pixel)


def add_run(db, night, engine="native", machine="a", label=None, commit=None, day=None):
    day = night if day is None else day
    started = "2026-%02d-%02dT02:00:%02dZ" % (1 + day // 28 % 12, 1 + day % 28, night % 60)
    run = db.execute("INSERT INTO run (uuid, label, engine, device, command, plan, fingerprint, started, ended, exit_status) "
                     "VALUES (?, ?, ?, 'cpu', 'mpbench run scenarios/nightly', 'p', ?, ?, ?, 0)",
                     ("%s-%s-%d" % (machine, engine, night), label, engine, hashlib.sha256(machine.encode()).hexdigest(),
                      started, started)).lastrowid
    commit = commit or hashlib.sha1(b"%d" % night).hexdigest()
    for key, value in (("cpu", "Example CPU %s, 16 cores" % machine), ("isa", "avx512" if machine == "a" else "avx2"),
                       ("git_commit", commit), ("program_sha256", hashlib.sha256(commit.encode()).hexdigest()),
                       ("blas", "OpenBLAS 0.3.21"), ("mpbench", "0.1.0"), ("cores", "16"), ("os", "Linux 6.1")):
        db.execute("INSERT INTO run_environment VALUES (?, ?, ?)", (run, key, value))
    return run


def add_cell(db, run, scenario, settings, dtype, metrics, **columns):
    name = ",".join(["precision.default=" + dtype] + ["%s=%s" % pair for pair in settings.items()])
    row = {"run": run, "key": scenario + "/" + name, "scenario": scenario, "scenario_hash": "s", "pipeline": "sana",
           "checkpoint": "sana-tiny", "checkpoint_hash": "c", "status": "ok", "as_expected": 1,
           "repro": "mpbench run scenarios/nightly/%s.yaml --only precision.default=%s" % (scenario, dtype),
           "started": "2026-01-01T02:00:00Z", "ended": "2026-01-01T02:00:01Z", **columns}
    cell = db.execute("INSERT INTO cell (%s) VALUES (%s)" % (", ".join(row), ", ".join("?" * len(row))),
                      list(row.values())).lastrowid
    db.executemany("INSERT INTO cell_setting VALUES (?, ?, ?)",
                   [(cell, key, value) for key, value in {"precision.default": dtype, **settings}.items()])
    units = {"seconds": "s", "peak_mib": "MiB", "psnr_db": "dB"}
    db.executemany("INSERT INTO metric VALUES (?, ?, 'run', -1, '', ?, ?, ?)",
                   [(cell, key, None if not math.isfinite(value) else value,
                     None if math.isfinite(value) else str(value), units.get(key, "1")) for key, value in metrics.items()])
    db.execute("INSERT INTO output VALUES (?, 'image', 'f32', '[1, 3, 64, 64]', ?)",
               (cell, hashlib.sha256(repr((scenario, name, metrics.get("latent_rel_l2"))).encode()).hexdigest()))
    return cell


def add_picture(db, cell, role, data):
    sha = hashlib.sha256(data).hexdigest()
    width, height = struct.unpack(">II", data[16:24])
    db.execute("INSERT OR IGNORE INTO picture VALUES (?, ?, ?, ?)", (sha, width, height, data))
    db.execute("INSERT INTO cell_picture VALUES (?, ?, ?)", (cell, role, sha))


def metrics_of(dtype, noise, seconds=1.0, factor=1.0):
    drift = DRIFT[dtype] * factor
    psnr = math.inf if not drift else -20 * math.log10(drift * 0.4)
    return {"latent_rel_l2": drift, "image_rel_l2": drift * 0.5, "psnr_db": psnr, "ssim": max(0.0, 1 - drift * drift * 4),
            "seconds": seconds * (1 + noise.gauss(0, 0.01)), "peak_mib": 905 + noise.gauss(0, 2)}


def nightly(path, nights=120, scenarios=10):
    """5 dtypes and 2 tilings of each scenario; on the way a slower one, more drift, errors, a broken budget."""
    db, noise = open_new(path), random.Random(7)
    pictures = {}
    for night in range(nights):
        run, newest = add_run(db, night, label="nightly"), night == nights - 1
        for n in range(scenarios):
            scenario = "%s-%s" % (("sana", "sd35", "wan-vace", "svd")[n % 4], ("pure", "tiled", "mixed", "vae-fp32")[n // 4 % 4])
            for k, dtype in enumerate(DRIFT):
                for tiling in ("off", "512x512+448x448"):
                    columns, factor, seconds = {}, 1 + n / 10, 1.0 + n / 5
                    if n == 1 and night > nights - 20:
                        seconds *= 1.12
                    if n == 2 and dtype == "bf16" and night > nights - 6:
                        factor *= 1.4
                        columns = {"budget": "latent_rel_l2 0.0202 is over 0.02"}
                    if n == 3 and dtype == "fp8_e5m2":
                        columns = {"status": "error", "outcome": "dtype_mismatch", "op": "conv2d",
                                   "module": "vae.decoder.up_blocks.2.resnets.0.conv1", "want": "Half", "got": "Float8_e5m2",
                                   "error": "Input type (c10::Float8_e5m2) and bias type (c10::Half) should be the same",
                                   "expected": "error: Input type", "stage": "decode"}
                    if n == 4 and dtype == "fp16" and newest:
                        columns = {"status": "nonfinite", "outcome": "nan_first", "as_expected": 0, "step": 3, "op": "linear",
                                   "module": "transformer.blocks.11.ff.net.2", "stage": "denoise",
                                   "error": "first non-finite value at step 3: 2048 of 65536 are nan"}
                    failed = columns.get("status", "ok") != "ok"
                    metrics = {} if failed else metrics_of(dtype, noise, seconds, factor)
                    cell = add_cell(db, run, scenario, {"tiling": tiling}, dtype, metrics, **columns)
                    if newest and not failed:
                        for role, drift in (("output", DRIFT[dtype]), ("reference", 0.0)):
                            key = (drift, n if drift else 0, tiling if drift else "")
                            pictures.setdefault(key, scene(drift, n + 1))
                            add_picture(db, cell, role, pictures[key])
    db.commit()


def small(path):
    """One run of three cells."""
    db, noise = open_new(path), random.Random(1)
    run = add_run(db, 0)
    for dtype in ("fp32", "fp16", "bf16"):
        cell = add_cell(db, run, "sana-small", {}, dtype, metrics_of(dtype, noise))
        add_picture(db, cell, "output", scene(DRIFT[dtype], 1))
        add_picture(db, cell, "reference", scene(0, 1))
    db.commit()


def empty(path):
    open_new(path).commit()


def hostile(path):
    """Names that want out, numbers that are none, a clock that ran backwards, two machines, a dead run."""
    db, noise = open_new(path), random.Random(3)
    for night, day in ((0, 40), (1, 41), (2, 12), (3, 43)):
        for machine in ("a", "b"):
            run = add_run(db, night, machine=machine, label=HOSTILE[night], commit=HOSTILE[night + 2], day=day)
            for i, text in enumerate(HOSTILE):
                dtype = list(DRIFT)[i % 5]
                metrics = metrics_of(dtype, noise)
                if i % 3 == 0:
                    metrics.update(latent_rel_l2=math.nan, psnr_db=-math.inf, seconds=math.inf)
                cell = add_cell(db, run, text, {"inputs.prompt": text}, dtype, metrics, error=text, module=text, op=text,
                                repro=text, budget=text, expected=text, warnings=text, outcome=text, frame=text,
                                exception=text, status=("ok", "error", "crash", "interrupted")[i % 4], as_expected=i % 2)
                add_picture(db, cell, "output", png(8, 8, lambda x, y: (32 * x, 32 * y, 16 * i)))
    db.execute("UPDATE picture SET png = x'3c7363726970743e' WHERE sha256 = (SELECT min(sha256) FROM picture)")
    db.commit()


if __name__ == "__main__":
    {"nightly": nightly, "small": small, "empty": empty, "hostile": hostile}[sys.argv[1]](sys.argv[2])
