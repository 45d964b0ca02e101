"""SD.Next as an engine of mpbench, over the HTTP API of a server that is running.

    MPBENCH_SDNEXT_URL   where it is; http://127.0.0.1:7860 without it.  http://user:password@host/
                         for a server with --auth

Written against the sources of SD.Next (vladmandic/sdnext, modules/api and modules/ui_definitions.py) of
2026.  The tests run against a stub server that speaks these endpoints; a real server was never tried.

The API gives finished 8-bit pictures: no latents, no stages and no steps.  A cell's dtypes are options
of the server.  Those that are changed are put back when the cell ends, however it ends, and the
checkpoint that was loaded before is loaded again.
"""

from __future__ import annotations

import array
import base64
import builtins
import contextlib
import http.client
import json
import os
import re
import signal
import struct
import sys
import urllib.parse
import zlib
from typing import Any, Iterator, Mapping, Sequence

import worker
from worker import EngineError, Sink

DEFAULT_URL = "http://127.0.0.1:7860"
CONNECT_SECONDS = 10  # of answers the harness's own timeout takes care
MAX_ANSWER = 1 << 28
MAX_SIDE = 16384
# Classes by which worker.code_of goes; out of memory it knows by its name.
SORTED_BY_CLASS = ("RuntimeError", "TypeError", "MemoryError", "NotImplementedError", "OSError")

DTYPES = {"fp32": "FP32", "fp16": "FP16", "bf16": "BF16"}
STORAGES = {"fp8_e4m3": "float8_e4m3fn", "fp8_e5m2": "float8_e5m2"}
TORCH_NAMES = {"fp32": "torch.float32", "fp16": "torch.float16", "bf16": "torch.bfloat16"}
DENOISERS = ("transformer", "unet")
PIPELINES = ("sana", "sd3")
# The VAE of Sana takes no tile sizes from SD.Next's options: tiling is on or off.
DC_AE_TILES = {"tile": [512, 512], "stride": [448, 448]}

# Inputs of Diffusers' pipelines under the names of txt2img.
ARGUMENTS = {
    "prompt": "prompt",
    "negative_prompt": "negative_prompt",
    "num_inference_steps": "steps",
    "guidance_scale": "cfg_scale",
    "height": "height",
    "width": "width",
    "seed": "seed",
}
INSTRUCTION = "complex_human_instruction"

# Options that every cell wants so: what the picture is, and that each repeat does the same work.
ALWAYS = {
    "no_half": False,
    "samples_format": "png",  # the format of the API's pictures, too; its default is JPEG
    "diffusers_generator_device": "CPU",
    "prompt_attention": "fixed",  # brackets and colons are text, as they are in Diffusers
    "sd_textencoder_cache_size": 0,
    "sd_checkpoint_autodownload": False,
}
# What else of a user's settings would be measured in place of the cell's; not every release has these.
OFF_WHERE_KNOWN = {
    "sdnq_quantize_weights": [],
    "bnb_quantization": [],
    "optimum_quanto_weights": [],
    "quanto_quantization": [],
    "torchao_quantization": [],
    "trt_quantization": [],
    "cache_dit_enabled": False,
    "faster_cache_enabled": False,
    "pab_enabled": False,
    "para_cache_enabled": False,
    "teacache_enabled": False,
    "freeu_enabled": False,
    "token_merging_method": "None",
}
PICTURES_ONLY = (
    "SD.Next's API gives finished 8-bit pictures: no latents, so drift by step is not available, and no"
    " stages but the total"
)


def unsupported(text: str) -> EngineError:
    """SD.Next cannot do what is asked."""
    return EngineError(text, "unsupported")


# ---- HTTP -----------------------------------------------------------------------------------


class NoEndpoint(EngineError):
    """This release of the server does not have it."""

    def __init__(self, path: str) -> None:
        super().__init__(f"this SD.Next has no /sdapi/v1/{path}", "unsupported")


class Server:
    """A running SD.Next."""

    def __init__(self, url: str) -> None:
        try:
            parts = urllib.parse.urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urllib.parse.urlsplit(""), None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise EngineError("MPBENCH_SDNEXT_URL must be http://host:port")
        secure = parts.scheme == "https"
        self._connection = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._host, self._port, self._root = parts.hostname, port, parts.path.rstrip("/")
        self._headers = {"Content-Type": "application/json"}
        if parts.username is not None:
            pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
            self._headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        self.place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{self._root}"

    def get(self, path: str, **query: Any) -> Any:
        """The JSON of a GET below /sdapi/v1."""
        return self._call("GET", path, query, None)

    def post(self, path: str, body: Any = None, **query: Any) -> Any:
        """The JSON of a POST below /sdapi/v1."""
        return self._call("POST", path, query, body)

    def get_or(self, fallback: Any, path: str, **query: Any) -> Any:
        """As get, of an endpoint that some releases lack."""
        try:
            return self.get(path, **query)
        except NoEndpoint:
            return fallback

    def _call(self, method: str, path: str, query: Mapping[str, Any], body: Any) -> Any:
        target = f"{self._root}/sdapi/v1/{path}"
        if query:
            target += "?" + urllib.parse.urlencode(query)
        data = None if body is None else json.dumps(body).encode()
        with self._connect() as connection:
            try:
                connection.request(method, target, data, self._headers)
                answer = connection.getresponse()
                content = read_all(answer, path)
            except (OSError, http.client.HTTPException) as error:
                raise EngineError(f"SD.Next at {self.place} broke off {path}: {error!r}") from error
        return understand(path, answer.status, content)

    @contextlib.contextmanager
    def _connect(self) -> Iterator[http.client.HTTPConnection]:
        connection = self._connection(self._host, self._port, timeout=CONNECT_SECONDS)
        try:
            connection.connect()
        except OSError as error:
            raise EngineError(
                f"no SD.Next at {self.place}: {error}; remedy: start it with --api, or name it with"
                " MPBENCH_SDNEXT_URL"
            ) from error
        connection.sock.settimeout(None)
        with contextlib.closing(connection):
            yield connection


def read_all(answer: http.client.HTTPResponse, path: str) -> bytes:
    """The body, in parts: older Pythons allocate all that is asked for at once."""
    content = bytearray()
    while True:
        part = answer.read(1 << 16)
        content += part
        if not part:
            return bytes(content)
        if len(content) > MAX_ANSWER:
            raise EngineError(f"SD.Next's answer to {path} has more than {MAX_ANSWER} bytes", "format")


def understand(path: str, status: int, content: bytes) -> Any:
    """The answer's JSON, or the error that it tells of."""
    try:
        value = json.loads(content) if content.strip() else None
    except ValueError:
        value = content.decode("utf-8", "replace")
        if status < 400:
            raise EngineError(f"SD.Next's answer to {path} is no JSON: {value[:200]}", "format")
    if status == 404 and isinstance(value, dict) and value.get("detail") == "Not Found":
        raise NoEndpoint(path)
    if status == 401:
        raise EngineError(
            "SD.Next wants a password; remedy: MPBENCH_SDNEXT_URL=http://user:password@host:port"
        )
    if status >= 400:
        raise remote_error(status, value)
    return value


def remote_error(status: int, value: Any) -> Exception:
    """The server's exception, with its class and its own text."""
    kind, text = "RuntimeError", value
    if isinstance(value, dict):
        kind = value.get("error") or "HTTPException"
        text = value.get("detail") or value.get("errors") or value.get("error")
    if not isinstance(text, str):
        text = json.dumps(text)
    return exception_of(str(kind), text or f"HTTP status {status}")


def exception_of(kind: str, text: str) -> Exception:
    """An exception that is named as the server's was, and is sorted as that would be here."""
    base = getattr(builtins, kind) if kind in SORTED_BY_CLASS else Exception
    return type(kind, (base,), {"__module__": "builtins"})(text)


# ---- its log --------------------------------------------------------------------------------

LOG_LINE = re.compile(r'"level":\s*"(?:ERROR|CRITICAL)".*"msg":\s*"(.*)"\s*}\s*$', re.DOTALL)
LOG_ARGUMENTS = re.compile(r"args=\{.*\} (.+)$", re.DOTALL)
LOG_KIND = re.compile(r"\b([A-Z]\w*(?:Error|Exception))\b")


def log_lines(server: Server) -> list[str]:
    """What its log holds; it keeps the last hundred lines or so."""
    lines = server.get_or([], "log", lines=0)
    return [str(line) for line in lines] if isinstance(lines, list) else []


def error_since(server: Server, before: Sequence[str]) -> Exception:
    """What went wrong: SD.Next catches a pipeline's exception, logs it and gives no picture."""
    old = set(before)
    found = [LOG_LINE.search(line) for line in log_lines(server) if line not in old]
    texts = [match.group(1) for match in found if match]
    if not texts:
        return exception_of("RuntimeError", "SD.Next gave no picture, and its log has no error")
    told = [LOG_ARGUMENTS.search(text) for text in texts]
    text = next((match.group(1) for match in told if match), texts[0])
    kinds = [LOG_KIND.search(line) for line in texts]
    kind = next((match.group(1) for match in kinds if match), "RuntimeError")
    return exception_of(kind, text)


# ---- PNG ------------------------------------------------------------------------------------

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {2: 3, 6: 4}  # of the colour types RGB and RGBA
UNIT = [value / 255 for value in range(256)]


def bad_png(text: str) -> EngineError:
    """A picture that is none, or of a kind that SD.Next does not give."""
    return EngineError(f"SD.Next's picture: {text}", "format")


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and content of each chunk up to IEND, checked against its CRC."""
    if not data.startswith(SIGNATURE):
        raise bad_png("no PNG; its option samples_format must be png")
    at = len(SIGNATURE)
    while True:
        if len(data) - at < 12:
            raise bad_png("it ends before IEND")
        (size,) = struct.unpack_from(">I", data, at)
        if size > len(data) - at - 12:
            raise bad_png("a chunk reaches past its end")
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        if struct.unpack_from(">I", data, at + 8 + size)[0] != zlib.crc32(kind + body):
            raise bad_png(f"the CRC of {kind!r} is wrong")
        if kind == b"IEND":
            return
        yield kind, body
        at += size + 12


def png_header(body: bytes) -> tuple[int, int, int]:
    """Width, height and channels of a kind that is read here."""
    if len(body) != 13:
        raise bad_png("its IHDR does not have 13 bytes")
    width, height, depth, colour, packing, filtering, interlace = struct.unpack(">IIBBBBB", body)
    if not 0 < width <= MAX_SIDE or not 0 < height <= MAX_SIDE:
        raise bad_png(f"{width}x{height}, where sides of 1 to {MAX_SIDE} are read")
    if depth != 8 or colour not in CHANNELS or packing or filtering or interlace:
        raise bad_png("only 8-bit RGB and RGBA without interlacing are read")
    return width, height, CHANNELS[colour]


def inflate(parts: Sequence[bytes], size: int) -> bytes:
    """Exactly `size` bytes: a stream that holds more is not unpacked to its end."""
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(b"".join(parts), size + 1)
    except zlib.error as error:
        raise bad_png(str(error)) from error
    if len(data) != size:
        raise bad_png(f"{'more' if len(data) > size else 'fewer'} pixels than its header says")
    return data


def unfilter(kind: int, row: bytearray, above: bytes, step: int) -> None:
    """Undoes a row's filter in place; `step` is the bytes of a pixel."""
    if kind == 1:
        for i in range(step, len(row)):
            row[i] = (row[i] + row[i - step]) & 255
    elif kind == 2:
        for i, up in enumerate(above):
            row[i] = (row[i] + up) & 255
    elif kind == 3:
        for i, up in enumerate(above):
            left = row[i - step] if i >= step else 0
            row[i] = (row[i] + ((left + up) >> 1)) & 255
    elif kind == 4:
        unfilter_paeth(row, above, step)
    elif kind:
        raise bad_png(f"filter {kind}, where 0 to 4 are known")


def unfilter_paeth(row: bytearray, above: bytes, step: int) -> None:
    """Of left, up and upper left the one nearest to left + up - upper left; ties in this order."""
    for i, up in enumerate(above):
        left, corner = (row[i - step], above[i - step]) if i >= step else (0, 0)
        by_left, by_up = abs(up - corner), abs(left - corner)
        by_corner = abs(left + up - 2 * corner)
        if by_left <= by_up and by_left <= by_corner:
            near = left
        else:
            near = up if by_up <= by_corner else corner
        row[i] = (row[i] + near) & 255


def decode_png(data: bytes) -> tuple[int, int, bytes]:
    """Width, height and fp32 values in 0..1, [3,H,W], little-endian.  Alpha is dropped."""
    chunks = png_chunks(data)
    kind, body = next(chunks, (b"", b""))
    if kind != b"IHDR":
        raise bad_png("it does not begin with IHDR")
    width, height, step = png_header(body)
    stride = width * step
    packed = inflate([body for kind, body in chunks if kind == b"IDAT"], height * (stride + 1))
    pixels, above = bytearray(), bytes(stride)
    for at in range(0, len(packed), stride + 1):
        row = bytearray(packed[at + 1 : at + 1 + stride])
        unfilter(packed[at], row, above, step)
        pixels += row
        above = bytes(row)
    values = array.array("f")
    for channel in range(3):
        values.extend(UNIT[byte] for byte in pixels[channel::step])
    if sys.byteorder == "big":
        values.byteswap()
    return width, height, values.tobytes()


def decode_answer(answer: Any) -> tuple[int, int, bytes]:
    """The one picture of a txt2img answer."""
    images = answer.get("images") if isinstance(answer, dict) else None
    if not isinstance(images, list) or len(images) != 1 or not isinstance(images[0], str):
        raise EngineError("SD.Next's answer to txt2img does not hold one picture", "format")
    try:
        return decode_png(base64.b64decode(images[0].rpartition(",")[2], validate=True))
    except ValueError as error:
        raise bad_png(f"base64: {error}") from error


# ---- the request ----------------------------------------------------------------------------


def check_request(request: Mapping[str, Any]) -> None:
    """Refuses what SD.Next has no way to do over its API."""
    precision = request["precision"]
    if request["pipeline"] not in PIPELINES:
        raise unsupported(
            f"{request['pipeline']}: SD.Next's API gives single pictures; it can run {', '.join(PIPELINES)}"
        )
    if request.get("variant"):
        raise unsupported("SD.Next chooses a checkpoint's variant itself; remedy: leave out `variant`")
    if precision["policy"] != "strict":
        raise unsupported(f"precision.policy {precision['policy']}: only strict, the library as it is")
    if precision["load"] != "from_pretrained":
        raise unsupported(f"precision.load {precision['load']}: SD.Next loads with from_pretrained")
    if precision["overrides"]:
        raise unsupported("precision.overrides: SD.Next has no dtype for single modules")
    if request["noise_ulps"]:
        raise unsupported("noise_ulps: SD.Next's API does not give access to the initial noise")
    if request["memory"]:
        raise unsupported("memory: a server's memory cannot be limited from here")


def precision_options(precision: Mapping[str, Any]) -> dict[str, Any]:
    """One dtype for all, and a VAE that may be fp32 beside a half."""
    default = precision["default"]
    if default not in DTYPES:
        raise unsupported(f"precision.default {default}; remedy: bf16 with precision.storage {default}")
    other = {name: d for name, d in precision["components"].items() if d != default}
    if other not in ({}, {"vae": "fp32"}):
        raise unsupported(
            f"precision.components {other}: SD.Next has one dtype for all components, and can only have"
            f" an fp32 vae beside it; remedy: components {{}} or {{vae: fp32}} with default {default}"
        )
    options = {
        "cuda_dtype": DTYPES[default],
        "no_half_vae": bool(other),
        "diffusers_vae_upcast": "true" if other else "default",
    }
    return {**options, **storage_options(precision["storage"])}


def storage_options(storage: Mapping[str, str]) -> dict[str, Any]:
    """Layerwise casting.  Its "TE" does nothing to text encoders of transformers, so it is not used."""
    options: dict[str, Any] = {"layerwise_quantization": []}
    for component, dtype in storage.items():
        if component not in DENOISERS:
            raise unsupported(
                f"precision.storage.{component}: SD.Next casts only the transformer or unet layerwise"
            )
        if dtype not in STORAGES:
            raise unsupported(
                f"precision.storage.{component} {dtype}: SD.Next has {', '.join(STORAGES)} only"
            )
        options["layerwise_quantization"] = ["Model"]
        options["layerwise_quantization_storage"] = STORAGES[dtype]
    return options


def tiling_options(pipeline: str, tiling: Mapping[str, Sequence[int]] | None) -> dict[str, Any]:
    """Square tiles, and their overlap as a fraction of the side."""
    if tiling is None:
        return {"diffusers_vae_tiling": False}
    options: dict[str, Any] = {"diffusers_vae_tiling": True}
    tile, stride = list(tiling["tile"]), list(tiling["stride"])
    if pipeline == "sana":
        if {"tile": tile, "stride": stride} != DC_AE_TILES:
            raise unsupported(
                f"tiling {tile}, {stride}: SD.Next leaves Sana's VAE at its own tiles; remedy:"
                f" {json.dumps(DC_AE_TILES)}"
            )
        return options
    side, step = tile[0], stride[0]
    if tile != [side, side] or stride != [step, step] or side % 8 or side > 4096:
        raise unsupported(f"tiling {tile}, {stride}: SD.Next has square tiles of 8 to 4096, by eights")
    overlap = 1 - step / side
    if not 0 <= overlap <= 0.95:
        raise unsupported(f"tiling.stride {stride}: SD.Next has overlaps of 0 to 0.95 of a tile")
    return {**options, "diffusers_vae_tile_size": side, "diffusers_vae_tile_overlap": overlap}


def text_options(request: Mapping[str, Any]) -> dict[str, Any]:
    """Sana's instruction is an option that is on or off; its text is the pipeline's own."""
    if INSTRUCTION not in request["inputs"]:
        return {}
    text = request["inputs"][INSTRUCTION]
    if text is not None and INSTRUCTION not in request["defaults"]:
        raise unsupported(f"inputs.{INSTRUCTION}: SD.Next has the pipeline's own text, or null for none")
    return {"te_complex_human_instruction": text is not None}


def call_body(request: Mapping[str, Any], warnings: list[str]) -> dict[str, Any]:
    """What txt2img is asked."""
    body = {
        "batch_size": 1,
        "n_iter": 1,
        "sampler_name": "Default",  # the checkpoint's own scheduler
        "send_images": True,
        "save_images": False,
    }
    left_out = []
    for name, value in request["inputs"].items():
        if name in ARGUMENTS and value is not None:
            body[ARGUMENTS[name]] = value
        elif name == INSTRUCTION or (name == "negative_prompt" and value is None):
            continue
        elif name in request["defaults"]:
            left_out.append(name)
        else:
            raise unsupported(f"inputs.{name} {value!r}: SD.Next's txt2img has no counterpart")
    if left_out:
        warnings.append(f"SD.Next has no counterpart of these inputs' defaults: {', '.join(left_out)}")
    return body


# ---- the server's state ---------------------------------------------------------------------


class Options:
    """The server's options: sets some, and knows how to put them back."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._info = (server.get_or({}, "options-info") or {}).get("options", {})
        self.before: dict[str, Any] = {}  # of those that were changed
        self._values = self._read()

    def _read(self) -> dict[str, Any]:
        """All of them: `options` leaves out what was never set in some releases."""
        defaults = {name: info.get("default") for name, info in self._info.items()}
        return {**defaults, **self._server.get("options")}

    def value(self, name: str) -> Any:
        """As it was before anything was set here; None where there is no such option."""
        return self._values.get(name)

    def known(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Those of them that this release has."""
        return {name: value for name, value in wanted.items() if name in self._values}

    def set(self, wanted: Mapping[str, Any]) -> None:
        """Sets them, and looks whether the server took them."""
        missing = [name for name in wanted if name not in self._values]
        if missing:
            raise unsupported(f"this SD.Next has no option {', '.join(missing)}")
        for name, value in wanted.items():
            choices = (self._info.get(name, {}).get("component_args") or {}).get("choices")
            if choices and not set(value if isinstance(value, list) else [value]) <= set(choices):
                raise unsupported(f"this SD.Next's option {name} has {choices}, and not {value!r}")
        changes = {name: value for name, value in wanted.items() if self._values[name] != value}
        self.before.update({name: self._values[name] for name in changes})
        if changes:
            self._server.post("options", changes)
        now = self._read()
        refused = [name for name in changes if now.get(name) != changes[name]]
        if refused:
            raise unsupported(
                f"SD.Next did not take its option {', '.join(refused)}; remedy: start it without --freeze"
            )

    def restore(self) -> None:
        """Puts back what was changed."""
        if self.before:
            self._server.post("options", self.before)
            self.before = {}


def find_title(server: Server, checkpoint: str, warnings: list[str]) -> str:
    """The name under which SD.Next has the checkpoint: by its path, else by its last part."""
    for fresh in (False, True):
        if fresh:
            server.post("refresh-checkpoints")
        models = server.get("sd-models")
        wanted = os.path.realpath(checkpoint)
        for model in models:
            if os.path.realpath(model["filename"]) == wanted:
                return model["title"]
        name = os.path.basename(wanted)
        named = [m for m in models if os.path.basename(m["model_name"]) == name]
        if len(named) == 1:
            warnings.append(f"SD.Next loads {named[0]['filename']}, which has the checkpoint's name")
            return named[0]["title"]
    raise EngineError(
        f"SD.Next has no checkpoint {checkpoint}; remedy: put it, or a link to it, into its folder for"
        " Diffusers models (option diffusers_dir)",
        "missing",
    )


def check_device(server: Server, wanted: str) -> None:
    """SD.Next chose its device when it was started."""
    has_cuda = "error" not in (server.get("memory").get("cuda") or {"error": ""})
    use_cpu = server.get_or({}, "cmd-flags").get("use_cpu") or []
    on_cpu = not has_cuda or "all" in use_cpu
    if wanted == "cuda" and on_cpu:
        raise EngineError("SD.Next runs on the CPU; remedy: start it on the GPU", "device")
    if wanted == "cpu" and not on_cpu:
        raise EngineError("SD.Next runs on the GPU; remedy: start it with --use-cpu all", "device")


def check_modules(server: Server, precision: Mapping[str, Any], warnings: list[str]) -> None:
    """SD.Next's loaders have dtypes of their own for some pipelines: what came of it is on record."""
    kinds = {precision["default"], *precision["components"].values()}
    wanted = {TORCH_NAMES[kind] for kind in kinds}
    modules = server.get_or({}, "modules") or {}
    odd = [
        f"{module.get('class')} {module.get('dtype')}"
        for module in modules.get("modules", [])
        if str(module.get("dtype")).startswith("torch.") and module["dtype"] not in wanted
    ]
    if odd and not precision["storage"]:
        warnings.append(f"SD.Next did not load all in the cell's dtypes: {', '.join(odd)}")


class Session:
    """A cell's state on the server."""

    def __init__(self, server: Server, request: Mapping[str, Any]) -> None:
        self.server = server
        self.warnings = [PICTURES_ONLY]
        if request["quirks"]:
            self.warnings.append("quirks mean nothing to SD.Next: " + ", ".join(request["quirks"]))
        self.body = call_body(request, self.warnings)
        self._wanted = {
            **ALWAYS,
            **precision_options(request["precision"]),
            **tiling_options(request["pipeline"], request["tiling"]),
            **text_options(request),
        }
        self._dtype = self._wanted["cuda_dtype"]
        self._checkpoint = request["checkpoint"]
        self._options: Any = None
        self._previous: Any = None  # the title that was loaded before

    def open(self, precision: Mapping[str, Any]) -> None:
        """Sets the options and loads the checkpoint."""
        title = find_title(self.server, self._checkpoint, self.warnings)
        self._options = Options(self.server)
        loaded = self.server.get_or({}, "checkpoint") or {}
        self._options.set({**self._options.known(OFF_WHERE_KNOWN), **self._wanted})
        self._previous = loaded.get("title") or self._options.value("sd_model_checkpoint") or ""
        self._load(title, self._dtype)
        check_modules(self.server, precision, self.warnings)

    def close(self) -> None:
        """Puts everything back."""
        if self._options is None:
            return
        dtype = self._options.value("cuda_dtype")
        self._options.restore()
        previous, self._previous = self._previous, None
        if previous:
            self._load(previous, dtype)
            self.server.post("options", {})  # saves: what was saved before had the cell's checkpoint

    def _load(self, title: str, dtype: str) -> None:
        """`force`, because a loaded checkpoint keeps its dtype; options alone do not reload it."""
        before = log_lines(self.server)
        answer = self.server.post("checkpoint", sd_model_checkpoint=title, dtype=dtype, force=True)
        if not (isinstance(answer, dict) and answer.get("ok")):
            raise error_since(self.server, before)


# ---- the engine -----------------------------------------------------------------------------


class SDNext(worker.Adapter):
    """A running SD.Next."""

    name = "sdnext"

    def __init__(self) -> None:
        self._server: Any = None
        self._ended = False

    def start(self) -> tuple[str, dict[str, str]]:
        self._server = Server(os.environ.get("MPBENCH_SDNEXT_URL") or DEFAULT_URL)
        try:
            version = self._server.get("version")
        except NoEndpoint as error:
            raise unsupported(f"{self._server.place} has no /sdapi/v1/version: no SD.Next") from error
        if not isinstance(version, dict):
            raise unsupported(f"{self._server.place} does not answer as SD.Next does")
        signal.signal(signal.SIGTERM, self._end)
        environment = {}
        torch = self._server.get_or(None, "torch")
        if torch:
            environment["torch"] = torch if isinstance(torch, str) else json.dumps(torch, sort_keys=True)
        commit = version.get("commit") or version.get("hash")
        if commit:
            environment["git_commit_sdnext"] = str(commit)
        return str(version.get("updated") or commit or "unknown"), environment

    def load(self, request: Mapping[str, Any], sink: Sink) -> Session:
        check_request(request)
        session = Session(self._server, request)
        check_device(self._server, request["device"])
        try:
            session.open(request["precision"])
        except BaseException:
            self._close(session)  # the worker unloads only what was loaded
            raise
        return session

    def generate(self, pipeline: Session, request: Mapping[str, Any], sink: Sink) -> None:
        for text in pipeline.warnings:
            sink.warn(text)
        with sink.pause():
            before = log_lines(self._server)
        answer = self._server.post("txt2img", pipeline.body)
        with sink.pause():
            if not (isinstance(answer, dict) and answer.get("images")):
                raise error_since(self._server, before)
            width, height, data = decode_answer(answer)
            sink.tensor("image", [1, 3, height, width], data, "fp32", True)
            self._tell_memory(sink)

    def memory(self) -> dict[str, int]:
        """SD.Next's peaks, as torch counts them there; nothing of a server that is gone."""
        try:
            cuda = self._server.get("memory")["cuda"]
            return {f"cuda_{kind}": int(cuda[kind]["peak"]) for kind in ("allocated", "reserved")}
        except Exception:
            return {}

    def unload(self, pipeline: Session) -> None:
        self._close(pipeline)
        if self._ended:
            sys.exit("ended by SIGTERM")

    def _tell_memory(self, sink: Sink) -> None:
        used = (self._server.get("memory").get("ram") or {}).get("used")
        if used is not None:
            sink.warn(
                f"SD.Next held {int(used) >> 20} MiB of memory after the first picture; peak_rss is the"
                " worker's own"
            )

    def _close(self, session: Session) -> None:
        """A cell's own result must not be lost over this, so its failure goes to the log."""
        try:
            if self._ended:
                self._server.post("interrupt")
            session.close()
        except Exception as error:
            print(f"SD.Next's options were not all put back: {error}", file=sys.stderr)

    def _end(self, _signal: int, _frame: Any) -> None:
        """The harness ends a cell that takes too long: two seconds are left to put things back."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self._ended = True
        sys.exit("ended by SIGTERM")


if __name__ == "__main__":
    worker.serve(SDNext())
