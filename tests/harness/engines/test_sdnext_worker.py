"""sdnext_worker.py against a stub server that speaks SD.Next's endpoints.

Endpoints, fields and options are those of the sources of SD.Next (vladmandic/sdnext) of 2026; a real
server was never tried.
"""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import signal
import socket
import struct
import sys
import threading
import tracemalloc
import unittest
import unittest.mock
import urllib.parse
import zlib

from worker_process import ENGINES, WorkerTest, only, request_of

sys.path.insert(0, ENGINES)

import sdnext_worker  # noqa: E402
from worker import EngineError  # noqa: E402

# Every option that the adapter sets, with SD.Next's default; cuda_dtype and two more are the user's.
DEFAULTS = {
    "cuda_dtype": "Auto",
    "no_half": False,
    "no_half_vae": False,
    "diffusers_vae_upcast": "default",
    "diffusers_vae_tiling": False,
    "diffusers_vae_tile_size": 0,
    "diffusers_vae_tile_overlap": 0.25,
    "layerwise_quantization": [],
    "layerwise_quantization_storage": "float8_e4m3fn",
    "samples_format": "jpg",
    "diffusers_generator_device": "GPU",
    "prompt_attention": "native",
    "sd_textencoder_cache_size": 4,
    "sd_checkpoint_autodownload": True,
    "te_complex_human_instruction": True,
    "teacache_enabled": False,
    "sdnq_quantize_weights": [],
    "sd_model_checkpoint": "model.safetensors",
}
USERS = {"cuda_dtype": "FP16", "teacache_enabled": True, "sd_model_checkpoint": "before"}
CHOICES = {"cuda_dtype": ["Auto", "FP32", "FP16", "BF16"], "prompt_attention": ["native", "fixed"]}
CUDA = {
    "allocated": {"current": 1, "peak": 5000},
    "reserved": {"current": 2, "peak": 6000},
}


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def header(width: int, height: int, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    """An IHDR."""
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))


def filtered(kind: int, row: bytes, above: bytes, step: int) -> bytes:
    """A row as PNG's specification filters it, written apart from the adapter's code."""
    out = bytearray([kind])
    for i, value in enumerate(row):
        a = row[i - step] if i >= step else 0
        b = above[i]
        c = above[i - step] if i >= step else 0
        near = min((a, b, c), key=lambda x: abs(a + b - c - x))  # the first of equals: a, b, c
        out.append((value - (0, a, b, (a + b) // 2, near)[kind]) % 256)
    return bytes(out)


def png(width: int, height: int, pixels: bytes, channels: int = 3, kinds: str = "01234") -> bytes:
    """A PNG whose rows go through the filters in turn."""
    stride, rows, above = width * channels, b"", bytes(width * channels)
    for y in range(height):
        row = pixels[y * stride :][:stride]
        rows += filtered(int(kinds[y % len(kinds)]), row, above, channels)
        above = row
    packed = zlib.compress(rows)
    parts = chunk(b"IDAT", packed[:7]) + chunk(b"IDAT", packed[7:])
    colour = {3: 2, 4: 6}[channels]
    begin = sdnext_worker.SIGNATURE + header(width, height, colour=colour)
    return begin + chunk(b"tEXt", b"parameters\0x") + parts + chunk(b"IEND", b"")


def pixels_of(width: int, height: int, channels: int = 3) -> bytes:
    """Pixels without a pattern that a filter could hide."""
    return bytes((i * i * 7 + i * 31 + 5) % 256 for i in range(width * height * channels))


def planes(pixels: bytes, channels: int = 3) -> list[float]:
    """What a picture's values are: fp32, [3,H,W]."""
    return [value / 255 for c in range(3) for value in pixels[c::channels]]


class StubServer(http.server.ThreadingHTTPServer):
    """SD.Next's state; `fail` maps an endpoint to a status and a body."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.options = {**DEFAULTS, **USERS}
        self.stored_only = False  # as newer releases: `options` holds what was ever set
        self.loaded = "before"
        self.models = {"before": "/models/before"}
        self.fail: dict[str, tuple[int, object]] = {}
        self.frozen = False
        self.cuda: dict = {"error": "unavailable"}
        self.log: list[str] = []
        self.calls: list[tuple[str, str, object]] = []
        self.at_txt2img: dict = {}
        self.picture = base64.b64encode(png(4, 6, pixels_of(4, 6))).decode()
        self.images = [self.picture]
        self.drops = False
        self.fail_after_txt2img: dict = {}
        self.waits: threading.Event | None = None
        self.reached = threading.Event()

    def names(self, *paths: str) -> list[str]:
        """The POSTs to these endpoints, in order."""
        return [path for method, path, _ in self.calls if method == "POST" and path in paths]

    def last(self, path: str) -> object:
        """The body of the last POST, or its query where it has none."""
        return [body for method, p, body in self.calls if (method, p) == ("POST", path)][-1]


class Handler(http.server.BaseHTTPRequestHandler):
    """The endpoints."""

    server: StubServer

    def log_message(self, *_arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self.answer_to("GET")

    def do_POST(self) -> None:
        self.answer_to("POST")

    def answer_to(self, method: str) -> None:
        url = urllib.parse.urlsplit(self.path)
        path = url.path.removeprefix("/sdapi/v1/")
        query = dict(urllib.parse.parse_qsl(url.query))
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "null")
        self.server.calls.append((method, path, query if body is None else body))
        if path == "txt2img" and self.server.drops:
            return self.connection.shutdown(socket.SHUT_RDWR)
        if path in self.server.fail:
            return self.answer(*self.server.fail[path])
        endpoint = getattr(self, f"{method.lower()}_{path.replace('-', '_')}", None)
        if endpoint is None:
            return self.answer(404, {"detail": "Not Found"})
        with contextlib.suppress(BrokenPipeError):
            self.answer(200, endpoint(query, body))

    def answer(self, status: int, value: object) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def get_version(self, *_: object) -> object:
        return {"app": "sd.next", "updated": "2026-11-20", "commit": "774357588"}

    def get_torch(self, *_: object) -> object:
        return "torch 2.12"

    def get_memory(self, *_: object) -> object:
        return {"ram": {"used": 3 << 30}, "cuda": self.server.cuda}

    def get_cmd_flags(self, *_: object) -> object:
        return {"use_cpu": []}

    def get_log(self, query: dict, _body: object) -> object:
        return self.server.log[: int(query["lines"])] if int(query["lines"]) else self.server.log

    def get_options(self, *_: object) -> object:
        options = self.server.options
        if not self.server.stored_only:
            return options
        return {name: value for name, value in options.items() if DEFAULTS[name] != value}

    def get_options_info(self, *_: object) -> object:
        return {"options": {
            name: {"default": default, "component_args": {"choices": CHOICES.get(name, [])}}
            for name, default in DEFAULTS.items()
        }}  # fmt: skip

    def post_options(self, _query: dict, body: dict) -> object:
        if not self.server.frozen:
            self.server.options.update(body)
        return {"updated": [{name: True} for name in body]}

    def get_sd_models(self, *_: object) -> object:
        return [
            {"title": f"{name} [abc]" if name != "before" else name, "model_name": name, "filename": file}
            for name, file in self.server.models.items()
        ]

    def post_refresh_checkpoints(self, *_: object) -> object:
        return None

    def get_checkpoint(self, *_: object) -> object:
        return {"type": "sana", "title": self.server.loaded} if self.server.loaded else {"type": None}

    def post_checkpoint(self, query: dict, _body: object) -> object:
        self.server.options["cuda_dtype"] = query["dtype"]
        self.server.options["sd_model_checkpoint"] = query["sd_model_checkpoint"]
        self.server.loaded = query["sd_model_checkpoint"]
        return {"ok": True}

    def get_modules(self, *_: object) -> object:
        return {"modules": [
            {"class": "SanaTransformer2DModel", "dtype": "torch.bfloat16"},
            {"class": "FlowMatchScheduler", "dtype": "None"},
            {"class": "AutoencoderDC", "dtype": "torch.float32"},
        ]}  # fmt: skip

    def post_interrupt(self, *_: object) -> object:
        return None

    def post_txt2img(self, _query: dict, body: dict) -> object:
        self.server.at_txt2img = dict(self.server.options)
        self.server.reached.set()
        self.server.fail.update(self.server.fail_after_txt2img)
        if self.server.waits:
            self.server.waits.wait(60)
        images = self.server.images
        if not images:
            self.server.log += LOG
        return {"images": images, "parameters": body, "info": ""}


def log_line(level: str, text: str) -> str:
    """A line of SD.Next's log: nearly JSON, with quotes in the text replaced by apostrophes."""
    return (
        f'{{ "asctime":"2026-11-20", "created":{1e9}, "facility":"sd", "pid":1, "tid":2,'
        f' "level":"{level}", "module":"m", "func":"f", "msg":"{text}" }}'
    )


DTYPE_ERROR = "Input type (float) and bias type (c10::BFloat16) should be the same"
LOG = [
    log_line("INFO", "Processing"),
    log_line("ERROR", "Processing: step=base args={'x': {'y': 1}} " + DTYPE_ERROR),
    log_line("ERROR", "Processing: RuntimeError"),
]


class SDNextTest(WorkerTest):
    script = "sdnext_worker.py"

    def setUp(self) -> None:
        super().setUp()
        self.server = StubServer()
        thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        self.checkpoint = os.path.join(self.folder, "sana-tiny")
        self.server.models["sana-tiny"] = self.checkpoint

    def environment(self) -> dict[str, str]:
        return {"MPBENCH_SDNEXT_URL": f"http://127.0.0.1:{self.server.server_port}"}

    def request(self, inputs: dict | None = None, **other) -> dict:
        every = {
            "prompt": "a (red:1.2) fox",
            "negative_prompt": "blurry",
            "height": 6,
            "width": 4,
            "num_inference_steps": 3,
            "guidance_scale": 4.5,
            "seed": 7,
            **(inputs or {}),
        }
        pipeline = other.pop("pipeline", "sana")
        return request_of(pipeline, self.checkpoint, self.outputs, every, **other)

    def options_for(self, **other) -> dict:
        """The server's options while a cell's picture was made."""
        self.server.reached.clear()
        end = self.run_cell(self.request(**other))[-1]
        self.assertEqual(end["event"], "done", end)
        return self.server.at_txt2img

    def check_put_back(self) -> None:
        """The server is as the user had it."""
        self.assertEqual(self.server.options, {**DEFAULTS, **USERS})
        self.assertEqual(self.server.loaded, "before")


class GenerationTest(SDNextTest):
    def test_a_cell(self) -> None:
        events = self.run_cell(self.request(repeat=2, warmup=1))
        self.assertEqual(events[-1], {"event": "done"})
        told = [e.get("stage") or e.get("name") for e in events if e["event"] in ("begin", "stage")]
        self.assertEqual(told, ["load", "load", "total", "total", "total"])
        tensors = only(events, "tensor")
        self.assertEqual([(e["name"], e["repeat"]) for e in tensors],
                         [("image", -1), ("image", 0), ("image", 1)])  # fmt: skip
        self.check_tensor(tensors[0], [1, 3, 6, 4], planes(pixels_of(4, 6)))
        self.assertNotIn("file", tensors[1])
        self.assertEqual(self.server.last("txt2img"), {
            "prompt": "a (red:1.2) fox",
            "negative_prompt": "blurry",
            "height": 6,
            "width": 4,
            "steps": 3,
            "cfg_scale": 4.5,
            "seed": 7,
            "batch_size": 1,
            "n_iter": 1,
            "sampler_name": "Default",
            "send_images": True,
            "save_images": False,
        })  # fmt: skip
        self.check_put_back()

    def test_warnings_come_once(self) -> None:
        inputs = {"clean_caption": False, "max_sequence_length": 300}
        request = self.request(inputs, defaults=list(inputs), repeat=2, quirks=["old"])
        texts = [event["text"] for event in only(self.run_cell(request), "warning")]
        words = ("no latents", "quirks", "clean_caption, max_sequence_length", "float32", "3072 MiB")
        self.assertEqual(len(texts), len(words))
        for word, text in zip(words, texts):
            self.assertIn(word, text)

    def test_what_is_always_set(self) -> None:
        options = self.options_for()
        wanted = {
            "cuda_dtype": "BF16",
            "samples_format": "png",
            "diffusers_generator_device": "CPU",
            "prompt_attention": "fixed",
            "sd_textencoder_cache_size": 0,
            "sd_checkpoint_autodownload": False,
            "teacache_enabled": False,
            "no_half_vae": False,
            "diffusers_vae_tiling": False,
            "sd_model_checkpoint": "sana-tiny [abc]",
        }
        self.assertEqual({name: options[name] for name in wanted}, wanted)
        loads = [body for _, path, body in self.server.calls if path == "checkpoint" and body]
        self.assertEqual(loads[0], {"sd_model_checkpoint": "sana-tiny [abc]", "dtype": "BF16",
                                    "force": "True"})  # fmt: skip

    def test_a_release_that_lists_only_what_was_set(self) -> None:
        self.server.stored_only = True
        self.assertEqual(self.options_for()["diffusers_generator_device"], "CPU")
        self.check_put_back()

    def test_a_release_without_option_info(self) -> None:
        self.server.fail["options-info"] = (404, {"detail": "Not Found"})
        self.assertEqual(self.options_for()["diffusers_generator_device"], "CPU")
        self.check_put_back()

    def test_memory_of_the_device(self) -> None:
        self.server.cuda = CUDA
        memory = only(self.run_cell(self.request(device="cuda")), "memory")[0]
        self.assertEqual((memory["cuda_allocated"], memory["cuda_reserved"]), (5000, 6000))


class PrecisionTest(SDNextTest):
    def test_dtypes(self) -> None:
        for dtype, name in (("fp32", "FP32"), ("fp16", "FP16")):
            self.assertEqual(self.options_for(precision__default=dtype)["cuda_dtype"], name)
        options = self.options_for(precision__components={"vae": "fp32", "transformer": "bf16"})
        self.assertEqual((options["cuda_dtype"], options["no_half_vae"], options["diffusers_vae_upcast"]),
                         ("BF16", True, "true"))  # fmt: skip
        self.check_put_back()

    def test_storage(self) -> None:
        options = self.options_for(precision__storage={"transformer": "fp8_e5m2"})
        self.assertEqual(options["layerwise_quantization"], ["Model"])
        self.assertEqual(options["layerwise_quantization_storage"], "float8_e5m2")

    def test_tiling(self) -> None:
        options = self.options_for(tiling={"tile": [512, 512], "stride": [448, 448]})
        self.assertTrue(options["diffusers_vae_tiling"])
        tiling = {"tile": [64, 64], "stride": [56, 56]}
        options = self.options_for(pipeline="sd3", tiling=tiling)
        self.assertEqual((options["diffusers_vae_tile_size"], options["diffusers_vae_tile_overlap"]),
                         (64, 0.125))  # fmt: skip

    def test_instruction(self) -> None:
        inputs = {"complex_human_instruction": None}
        self.assertFalse(self.options_for(inputs=inputs)["te_complex_human_instruction"])
        inputs = {"complex_human_instruction": ["as it is"]}
        self.refused(self.request(inputs), "unsupported", "complex_human_instruction")
        default = self.options_for(inputs=inputs, defaults=list(inputs))
        self.assertTrue(default["te_complex_human_instruction"])

    def test_what_it_cannot_do_is_refused_before_anything_is_set(self) -> None:
        for words, other in (
            (["single pictures"], {"pipeline": "wan-vace"}),
            (["variant"], {"variant": "fp16"}),
            (["fp8_e4m3", "storage"], {"precision__default": "fp8_e4m3"}),
            (["text_encoder", "{vae: fp32}"], {"precision__components": {"text_encoder": "fp32"}}),
            (["vae", "remedy"], {"precision__components": {"vae": "fp16"}}),
            (["storage.vae"], {"precision__storage": {"vae": "fp8_e4m3"}}),
            (["bf16", "fp8_e5m2"], {"precision__storage": {"transformer": "bf16"}}),
            (["overrides"], {"precision__overrides": [{"match": "*", "dtype": "fp32"}]}),
            (["policy"], {"precision__policy": "fallback"}),
            (["load"], {"precision__load": "to"}),
            (["noise"], {"noise_ulps": 1}),
            (["memory"], {"memory": 1 << 30}),
            (["[512, 512]"], {"tiling": {"tile": [32, 32], "stride": [28, 28]}}),
            (["square"], {"pipeline": "sd3", "tiling": {"tile": [64, 32], "stride": [32, 32]}}),
            (["stride"], {"pipeline": "sd3", "tiling": {"tile": [64, 64], "stride": [72, 72]}}),
            (["inputs.sigmas"], {"inputs": {"sigmas": [1.0]}}),
            (["inputs.height"], {"inputs": {"height": None}}),
        ):
            with self.subTest(words):
                self.refused(self.request(**other), "unsupported", *words)
        self.assertEqual(self.server.names("options", "checkpoint", "txt2img"), [])

    def test_a_release_without_an_option_or_a_choice(self) -> None:
        storage = self.request(precision__storage={"transformer": "fp8_e4m3"})
        with unittest.mock.patch.dict(DEFAULTS, clear=False):
            del DEFAULTS["layerwise_quantization"]
            del self.server.options["layerwise_quantization"]
            self.refused(storage, "unsupported", "layerwise_quantization")
        with unittest.mock.patch.dict(CHOICES, cuda_dtype=["Auto", "FP32"]):
            self.server.options["layerwise_quantization"] = []
            self.refused(self.request(), "unsupported", "cuda_dtype", "BF16")
        self.check_put_back()

    def test_devices(self) -> None:
        self.refused(self.request(device="cuda"), "device", "CPU")
        self.server.cuda = CUDA
        self.refused(self.request(), "device", "--use-cpu all")


class CheckpointTest(SDNextTest):
    def test_by_name_with_a_warning(self) -> None:
        self.server.models["sana-tiny"] = "/elsewhere/sana-tiny"
        texts = [event["text"] for event in only(self.run_cell(self.request()), "warning")]
        self.assertTrue(any("/elsewhere/sana-tiny" in text for text in texts), texts)

    def test_one_that_it_does_not_have(self) -> None:
        del self.server.models["sana-tiny"]
        self.refused(self.request(), "missing", self.checkpoint, "diffusers_dir")
        self.assertEqual(self.server.names("refresh-checkpoints", "options"), ["refresh-checkpoints"])

    def test_one_that_it_cannot_load(self) -> None:
        self.server.fail["checkpoint"] = (200, {"ok": False})
        error = self.refused(self.request(), "exception", "no error")
        self.assertEqual(error["exception"], "RuntimeError")
        self.assertEqual(self.server.options["samples_format"], "jpg")


class FailureTest(SDNextTest):
    def failed(self, status: int, body: object) -> dict:
        """The error of a cell whose picture was answered so; everything is put back."""
        self.server.fail["txt2img"] = (status, body)
        error = self.run_cell(self.request())[-1]
        self.assertEqual(error["event"], "error")
        self.check_put_back()
        return error

    def test_the_server_s_exception(self) -> None:
        body = {"error": "RuntimeError", "code": 500, "detail": "", "body": "", "errors": DTYPE_ERROR}
        error = self.failed(500, body)
        self.assertEqual((error["code"], error["text"], error["exception"]),
                         ("dtype", DTYPE_ERROR, "RuntimeError"))  # fmt: skip

    def test_other_errors(self) -> None:
        for status, body, wanted in (
            (404, {"error": "HTTPException", "detail": "Sampler not found"},
             ("exception", "Sampler not found", "HTTPException")),
            (500, {"error": "OutOfMemoryError", "errors": "CUDA"}, ("memory", "CUDA", "OutOfMemoryError")),
            (422, {"detail": [{"loc": ["steps"]}]},
             ("exception", '[{"loc": ["steps"]}]', "HTTPException")),
            (500, "must have the same dtype", ("dtype", "must have the same dtype", "RuntimeError")),
            (500, b"Internal Server Error", ("exception", "Internal Server Error", "RuntimeError")),
        ):  # fmt: skip
            with self.subTest(wanted):
                error = self.failed(status, body)
                self.assertEqual((error["code"], error["text"], error["exception"]), wanted)

    def test_an_exception_that_it_only_logs(self) -> None:
        self.server.images = []
        self.server.log = [log_line("ERROR", "Processing: args={} an old one")]
        error = self.run_cell(self.request())[-1]
        self.assertEqual((error["code"], error["text"], error["exception"]),
                         ("dtype", DTYPE_ERROR, "RuntimeError"))  # fmt: skip
        self.check_put_back()

    def test_answers_that_are_none(self) -> None:
        for images in (["x"], ["AAAA"], ["/9j/4AAQ"], [self.server.picture] * 2, ["\u00e9"]):
            with self.subTest(images[0][:8]):
                self.server.images = images
                self.assertEqual(self.run_cell(self.request())[-1]["code"], "format")
        self.assertEqual(self.failed(200, b"<html>")["code"], "format")

    def test_an_answer_without_end_is_not_read_to_its_end(self) -> None:
        with unittest.mock.patch.object(sdnext_worker, "MAX_ANSWER", 1000):
            self.server.log = ["x" * 2000]
            server = sdnext_worker.Server(self.environment()["MPBENCH_SDNEXT_URL"])
            with self.assertRaisesRegex(EngineError, "more than 1000 bytes"):
                server.get("log", lines=0)

    def test_frozen_options(self) -> None:
        self.server.frozen = True
        self.refused(self.request(), "unsupported", "samples_format", "--freeze")
        self.check_put_back()

    def test_a_server_that_breaks_off(self) -> None:
        self.server.drops = True
        error = self.run_cell(self.request())[-1]
        self.assertEqual(error["code"], "engine")
        self.assertIn("broke off txt2img", error["text"])
        self.check_put_back()

    def test_a_failure_to_put_back_costs_no_result(self) -> None:
        worker = self.start()
        worker.until("ready")
        self.server.fail_after_txt2img = {"options": (500, {"error": "OSError", "errors": "disk full"})}
        worker.send(self.request())
        self.assertEqual(worker.until("done", "error")[-1], {"event": "done"})
        self.assertIn("not all put back: disk full", worker.output())

    def test_the_harness_s_timeout_puts_everything_back(self) -> None:
        worker = self.start()
        worker.until("ready")
        self.server.waits = threading.Event()
        self.addCleanup(self.server.waits.set)
        worker.send(self.request())
        self.assertTrue(self.server.reached.wait(30))
        worker.process.send_signal(signal.SIGTERM)
        worker.process.wait(30)
        self.check_put_back()
        self.assertEqual(self.server.names("interrupt"), ["interrupt"])


class StartTest(SDNextTest):
    def test_ready(self) -> None:
        ready = self.first()
        self.assertEqual((ready["engine"], ready["version"]), ("sdnext", "2026-11-20"))
        environment = ready["environment"]
        self.assertEqual((environment["torch"], environment["git_commit_sdnext"]),
                         ("torch 2.12", "774357588"))  # fmt: skip

    def start_error(self, **environment: str) -> dict:
        error = self.first(**environment)
        self.assertEqual(error["event"], "error")
        return error

    def test_a_server_that_is_down(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{free.getsockname()[1]}"
        error = self.start_error(MPBENCH_SDNEXT_URL=url)
        self.assertEqual(error["code"], "engine")
        for word in (url, "--api", "MPBENCH_SDNEXT_URL"):
            self.assertIn(word, error["text"])

    def test_a_server_of_something_else(self) -> None:
        self.server.fail["version"] = (404, {"detail": "Not Found"})
        self.assertEqual(self.start_error()["code"], "unsupported")
        self.server.fail["version"] = (200, ["1.0"])
        self.assertEqual(self.start_error()["code"], "unsupported")

    def test_addresses_that_are_none(self) -> None:
        for url in ("localhost:7860", "http://", "http://host:port", "ftp://127.0.0.1"):
            with self.subTest(url):
                self.assertIn("http://host:port", self.start_error(MPBENCH_SDNEXT_URL=url)["text"])

    def test_a_password(self) -> None:
        self.server.fail["version"] = (401, {"error": "HTTPException", "detail": "Unauthorized"})
        self.assertIn("user:password", self.start_error()["text"])
        server = sdnext_worker.Server("http://me:p%40ss@host:1/root/")
        self.assertEqual(server._headers["Authorization"], "Basic bWU6cEBzcw==")
        self.assertEqual(server.place, "http://host:1/root")


class PNGTest(unittest.TestCase):
    def check(self, channels: int, kinds: str) -> None:
        pixels = pixels_of(5, 7, channels)
        width, height, data = sdnext_worker.decode_png(png(5, 7, pixels, channels, kinds))
        self.assertEqual((width, height), (5, 7))
        values = planes(pixels, channels)
        self.assertEqual(data, struct.pack(f"<{len(values)}f", *values))

    def test_each_filter(self) -> None:
        for channels in (3, 4):
            for kinds in ("0", "1", "2", "3", "4", "4312043210"):
                with self.subTest((channels, kinds)):
                    self.check(channels, kinds)

    def test_a_tie_of_paeth_goes_to_the_row_above(self) -> None:
        # corner 10, left 9, up 12: as far from 11 are up and corner
        rows = bytes([0, 10, 10, 10, 12, 12, 12, 4, 255, 255, 255, 88, 88, 88])
        _, _, data = sdnext_worker.decode_png(self.made(header(2, 2), rows))
        values = planes(bytes([10] * 3 + [12] * 3 + [9] * 3 + [100] * 3))
        self.assertEqual(data, struct.pack("<12f", *values))

    def test_a_bomb_is_not_unpacked(self) -> None:
        bomb = self.made(header(1, 1), bytes(1 << 26))
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        self.refused(bomb, "more")
        self.assertLess(tracemalloc.get_traced_memory()[1], 1 << 20)

    def refused(self, data: bytes, word: str) -> None:
        with self.assertRaises(EngineError) as caught:
            sdnext_worker.decode_png(data)
        self.assertIn(word, str(caught.exception))
        self.assertEqual(caught.exception.code, "format")

    def test_every_truncation_is_refused(self) -> None:
        good = png(3, 2, pixels_of(3, 2))
        for size in range(len(good)):
            with self.assertRaises(EngineError, msg=size):
                sdnext_worker.decode_png(good[:size])

    def test_every_flipped_byte_is_refused(self) -> None:
        good = png(3, 2, pixels_of(3, 2))
        for at in range(len(good)):
            bad = bytearray(good)
            bad[at] ^= 0x40
            with self.assertRaises(EngineError, msg=at):
                sdnext_worker.decode_png(bytes(bad))

    def made(self, head: bytes, rows: bytes) -> bytes:
        body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
        return sdnext_worker.SIGNATURE + head + body

    def test_hostile_pictures(self) -> None:
        row = bytes(1 + 3)
        for word, data in (
            ("no PNG", b"\xff\xd8\xff\xe0" + bytes(100)),
            ("sides", self.made(header(0, 1), row)),
            ("sides", self.made(header(1 << 31, 1 << 31), row)),
            ("8-bit", self.made(header(1, 1, depth=16), row)),
            ("8-bit", self.made(header(1, 1, colour=3), row)),
            ("8-bit", self.made(header(1, 1, interlace=1), row)),
            ("fewer", self.made(header(1, 2), row)),
            ("fewer", self.made(header(16384, 16384), row)),
            ("more", self.made(header(1, 1), row * 2)),
            ("more", self.made(header(1, 1), bytes(1 << 24))),
            ("filter 5", self.made(header(1, 1), b"\5" + bytes(3))),
            ("IHDR", self.made(chunk(b"tEXt", b"x") + header(1, 1), row)),
            ("13 bytes", self.made(chunk(b"IHDR", bytes(12)), row)),
            ("IHDR", sdnext_worker.SIGNATURE + chunk(b"IEND", b"")),
            ("past", sdnext_worker.SIGNATURE + b"\xff\xff\xff\xffIHDR" + bytes(20)),
        ):
            with self.subTest(word):
                self.refused(data, word)


if __name__ == "__main__":
    unittest.main()
