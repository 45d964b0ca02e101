"""mpbench's worker for Diffusers, any release or branch since 0.32.

The library is what is measured, so nothing here changes its numerics: no deterministic mode, no
cuDNN, TF32 or attention setting. What a request asks for is asked of the library's own functions,
and an exception of the library goes out as it came.

A further pipeline is one entry of PIPELINES. PROTOCOL.md, beside this file, is the specification.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import gc
import importlib
import inspect
import json
import logging
import os
import platform
import re
import sys
import warnings
from typing import Any, Callable, Iterator, Mapping, Optional, Sequence

import worker

# Imported by start(), so that a missing library is an answer and not a crash.
torch: Any = None
diffusers: Any = None

LIBRARIES = ("torch", "safetensors", "transformers", "diffusers")  # in the order of import
VERSIONS = ("torch", "transformers", "tokenizers", "safetensors", "accelerate", "numpy")
SPEAKING = ("diffusers", "transformers")  # whose warnings go on record
DEFAULTS = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DIFFUSERS_VERBOSITY": "warning",
}
PIP = "pip install torch diffusers transformers accelerate"
DTYPE_BY_COMPONENT = "0.33.0"  # since then from_pretrained takes a dict
DTYPE_IS_DTYPE = "0.40.0"  # since then its name is dtype; the old one, torch_dtype, warns
ONE_TOKENIZER = "5.0.0"  # of transformers, which no Diffusers before DTYPE_BY_COMPONENT can import

DTYPES = {
    "fp32": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
    "fp8_e4m3": "float8_e4m3fn",
    "fp8_e5m2": "float8_e5m2",
}
TILING = ("tile_sample_min_height", "tile_sample_min_width",
          "tile_sample_stride_height", "tile_sample_stride_width")  # fmt: skip


# ---- the library ----------------------------------------------------------------------------


def import_library(name: str) -> Any:
    """The module, or an error that says what is wrong with it and what helps."""
    python = f"Python {platform.python_version()} at {sys.executable}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            raise worker.EngineError(
                f"{python} has no {name} ({error}); name one that has it with --python or"
                f" MPBENCH_PYTHON, or a folder with it with --pythonpath; {PIP}"
            ) from error
        raise broken(name, python, error) from error
    except (Exception, SystemExit) as error:  # a package that does not fit may raise anything
        raise broken(name, python, error) from error


def broken(name: str, python: str, error: BaseException) -> worker.EngineError:
    """A library that is there and cannot be imported."""
    return worker.EngineError(f"{python} cannot import {name}: {type(error).__name__}: {error}")


def import_libraries() -> None:
    """Imports all that a request may need, so that its time and memory are not a cell's."""
    global torch, diffusers
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    modules = {name: import_library(name) for name in LIBRARIES}
    torch, diffusers = modules["torch"], modules["diffusers"]
    worker.check_origin("diffusers")
    for name in SPEAKING:
        import_library(f"{name}.utils.logging").disable_progress_bar()
    for kind in PIPELINES.values():
        with contextlib.suppress(Exception):  # told to the request that asks for it
            getattr(diffusers, kind.class_name)


def cuda_environment() -> dict[str, str]:
    """The card and its driver, if there is one."""
    if not torch.cuda.is_available():
        return {}
    pairs = {"torch_cuda": str(torch.version.cuda), "cuda_device": torch.cuda.get_device_name(0)}
    with contextlib.suppress(OSError):
        with open("/proc/driver/nvidia/version", encoding="utf-8", errors="replace") as file:
            found = re.search(r"\b\d+(\.\d+)+\b", file.readline())
        if found:
            pairs["cuda_driver"] = found.group()
    return pairs


def environment() -> dict[str, str]:
    """What a run's numbers depend on."""
    pairs = {name: worker.version_of(name) for name in VERSIONS}
    for name in SPEAKING:
        pairs[f"git_commit_{name}"] = worker.git_commit(name)
    pairs["source_sha256"] = worker.source_hash("diffusers")
    pairs["path"] = worker.folder_of("diffusers")
    pairs["torch_cpu_capability"] = torch.backends.cpu.get_cpu_capability()
    pairs["torch_mkldnn"] = "yes" if torch.backends.mkldnn.is_available() else "no"
    pairs.update(cuda_environment())
    return {name: value for name, value in pairs.items() if value}


# ---- warnings -------------------------------------------------------------------------------


class Records(logging.Handler):
    """Sends the library's log, from warnings up, to the sink."""

    def __init__(self, sink: worker.Sink) -> None:
        super().__init__(logging.WARNING)
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        """One record; one that the library wrote wrongly is logging's to report, as ever."""
        try:
            text = record.getMessage()
        except Exception:
            self.handleError(record)
        else:
            self._sink.warn(text)


@contextlib.contextmanager
def telling_warnings(sink: worker.Sink) -> Iterator[None]:
    """What the library logs or warns of inside goes on record, and into the log as ever."""
    folders = tuple(os.path.dirname(str(sys.modules[name].__file__)) + os.sep for name in SPEAKING)
    handler = Records(sink)
    loggers = [logging.getLogger(name) for name in SPEAKING]
    with warnings.catch_warnings():
        show = warnings.showwarning

        def tell(message: Any, category: Any, filename: str, *place: Any) -> None:
            if filename.startswith(folders):
                sink.warn(str(message))
            show(message, category, filename, *place)

        warnings.showwarning = tell  # type: ignore[assignment]
        for logger in loggers:
            logger.addHandler(handler)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeHandler(handler)


# ---- pipelines ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Kind:
    """What is particular to one of the library's pipelines.

    All draw their noise in prepare_latents and give their result by vae.decode.
    """

    class_name: str
    since: str
    components: tuple[str, ...]
    embeds: Callable[[Any], Sequence[Any]]  # of encode_prompt's result: the negative prompt's first
    result: str  # the tensor's name in the protocol
    picture: Callable[[Any], Any]  # of the call's result, with output_type "pt"
    pictures: Mapping[str, str] = dataclasses.field(default_factory=dict)  # inputs that are lists of
    # picture files, and the mode in which PIL gives them


def sana_embeds(encoded: Any) -> Sequence[Any]:
    """encode_prompt gives prompt, its mask, negative prompt (None without guidance), its mask."""
    prompt, _, negative, _ = encoded
    return [prompt] if negative is None else [negative, prompt]


def sd3_embeds(encoded: Any) -> Sequence[Any]:
    """encode_prompt gives prompt, negative prompt (None without guidance), and both pooled."""
    prompt, negative, _, _ = encoded
    return [prompt] if negative is None else [negative, prompt]


def wan_embeds(encoded: Any) -> Sequence[Any]:
    """encode_prompt gives prompt and negative prompt (None without guidance)."""
    prompt, negative = encoded
    return [prompt] if negative is None else [negative, prompt]


def read_pictures(paths: Optional[Sequence[str]], mode: str) -> Optional[list[Any]]:
    """Picture files as PIL has them; None stays None."""
    if paths is None:
        return None
    from PIL import Image  # diffusers needs it, too

    pictures = []
    for path in paths:
        with Image.open(path) as picture:
            pictures.append(picture.convert(mode))
    return pictures


PIPELINES = {
    "sana": Kind(
        class_name="SanaPipeline",
        since="0.32.0",
        components=("text_encoder", "transformer", "vae"),
        embeds=sana_embeds,
        result="image",
        picture=lambda output: output.images,
    ),
    "sd3": Kind(
        class_name="StableDiffusion3Pipeline",
        since="0.29.0",
        components=("text_encoder", "text_encoder_2", "text_encoder_3", "transformer", "vae"),
        embeds=sd3_embeds,
        result="image",
        picture=lambda output: output.images,
    ),
    "wan-vace": Kind(
        class_name="WanVACEPipeline",
        since="0.34.0",
        components=("text_encoder", "transformer", "vae"),
        embeds=wan_embeds,
        result="frames",
        picture=lambda output: output.frames[0],
        pictures={"video": "RGB", "mask": "L", "reference_images": "RGB"},
    ),
}


def unsupported(text: str) -> worker.EngineError:
    """What this engine, or the library that it found, cannot do."""
    return worker.EngineError(text, "unsupported")


def find_kind(request: Mapping[str, Any]) -> Kind:
    """PIPELINES' entry."""
    kind = PIPELINES.get(request["pipeline"])
    if not kind:
        known = ", ".join(PIPELINES)
        raise unsupported(f"the diffusers engine drives {known}, not {request['pipeline']}")
    return kind


def find_class(kind: Kind) -> Any:
    """The pipeline's class; the library imports it when it is first asked for."""
    try:
        return getattr(diffusers, kind.class_name)
    except AttributeError:
        raise unsupported(
            f"Diffusers {diffusers.__version__} has no {kind.class_name}; it came with"
            f" {kind.since}: name a newer one with --pythonpath or --python"
        ) from None
    except Exception as error:  # whatever the modules behind it raise
        raise worker.EngineError(
            f"Diffusers {diffusers.__version__} with transformers {worker.version_of('transformers')}"
            f" cannot import {kind.class_name}: {error}"
        ) from error


def check_checkpoint(folder: str) -> None:
    """The library would take the name of a folder that is not there for one on the hub."""
    index = os.path.join(folder, "model_index.json")
    if not os.path.isfile(index):
        raise worker.EngineError(f"{index} is missing", "missing")


def call_arguments(
    cls: Any, kind: Kind, request: Mapping[str, Any], sink: worker.Sink
) -> dict[str, Any]:
    """The inputs as the installed pipeline's call takes them; `seed` becomes a generator later."""
    known = inspect.signature(cls.__call__).parameters
    arguments = {}
    for name, value in request["inputs"].items():
        if name == "seed":
            continue
        if name in known:
            mode = kind.pictures.get(name)
            arguments[name] = read_pictures(value, mode) if mode else value
            continue
        text = f"{cls.__name__} of Diffusers {diffusers.__version__} has no argument {name!r}"
        if name not in request["defaults"]:
            raise unsupported(text)
        sink.warn(f"{text}: it runs without it")
    return arguments


# ---- precision ------------------------------------------------------------------------------


def dtype_of(name: str) -> Any:
    """torch's dtype by the protocol's name."""
    dtype = getattr(torch, DTYPES.get(name, ""), None)
    if dtype is None:
        raise unsupported(f"torch {torch.__version__} has no dtype {name}")
    return dtype


def name_of(dtype: Any) -> str:
    """The protocol's name of torch's dtype."""
    plain = str(dtype).rpartition(".")[2]
    return next((name for name, theirs in DTYPES.items() if theirs == plain), plain)


def component_dtypes(kind: Kind, precision: Mapping[str, Any]) -> dict[str, Any]:
    """The dtype of each component."""
    names = precision["components"]
    strange = sorted({*names, *precision["storage"]} - {*kind.components})
    if strange:
        raise unsupported(f"{kind.class_name} has no component {', '.join(strange)}")
    return {c: dtype_of(names.get(c, precision["default"])) for c in kind.components}


def is_older(library: Any, release: str) -> bool:
    """Whether the imported library came before that release; its development versions did."""
    from packaging.version import Version  # the libraries need it, too

    return bool(Version(library.__version__) < Version(release))


def newer_tokenizer(class_name: str, folder: str, sink: worker.Sink) -> Any:
    """A tokenizer that transformers 5 saved, as transformers 4 reads it; None if it is no such.

    5 has one class, which reads tokenizer.json; 4 has one of that name for other files, and adds
    Fast to the other's. 5 writes additional_special_tokens as a list of extra_special_tokens.
    """
    transformers = sys.modules["transformers"]
    path = os.path.join(folder, "tokenizer_config.json")
    cls = getattr(transformers, f"{class_name}Fast", None)
    if not cls or not os.path.isfile(path):
        return None
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    if "backend" not in config:  # 5 writes it
        return None
    version = worker.version_of("transformers")
    sink.warn(f"transformers 5 saved the tokenizer: {version} reads it as {cls.__name__}")
    extra, tokens = config.get("extra_special_tokens"), {}
    if isinstance(extra, list):
        tokens = {"extra_special_tokens": {}, "additional_special_tokens": extra}
    return cls.from_pretrained(folder, local_files_only=True, **tokens)


@contextlib.contextmanager
def loading_as_of_old(dtypes: Mapping[str, Any], sink: worker.Sink) -> Iterator[None]:
    """What from_pretrained of past releases cannot be told is told to its own inner loader.

    These are a dtype per component, and how a newer checkpoint's tokenizer is to be read.
    """
    from diffusers.pipelines import pipeline_utils

    inner = pipeline_utils.load_sub_model

    def load_sub_model(**arguments: Any) -> Any:
        name, tokenizer = arguments["name"], None
        if "tokenizer" in name:
            folder = os.path.join(arguments["cached_folder"], name)
            tokenizer = newer_tokenizer(arguments["class_name"], folder, sink)
        if is_older(diffusers, DTYPE_BY_COMPONENT):
            arguments["torch_dtype"] = dtypes.get(name, torch.float32)
        return inner(**arguments) if tokenizer is None else tokenizer

    pipeline_utils.load_sub_model = load_sub_model
    try:
        yield
    finally:
        pipeline_utils.load_sub_model = inner


def from_pretrained(
    cls: Any, request: Mapping[str, Any], dtypes: Mapping[str, Any], sink: worker.Sink
) -> Any:
    """The library's loading, with a dtype per component, and from the disk alone."""
    arguments = {
        "variant": request["variant"],
        "use_safetensors": True,
        "local_files_only": True,
    }
    if not is_older(diffusers, DTYPE_BY_COMPONENT):
        spelling = "torch_dtype" if is_older(diffusers, DTYPE_IS_DTYPE) else "dtype"
        arguments[spelling] = dict(dtypes)
    old = is_older(sys.modules["transformers"], ONE_TOKENIZER)
    with loading_as_of_old(dtypes, sink) if old else contextlib.nullcontext():
        return cls.from_pretrained(request["checkpoint"], **arguments)


def is_named(pattern: str, path: str) -> bool:
    """An override names a parameter, its module or, like .to(dtype) on a module, a parent."""
    while path:
        if fnmatch.fnmatchcase(path, pattern):
            return True
        path = path.rpartition(".")[0]
    return False


def override(
    pipe: Any, exact: Any, kind: Kind, overrides: Sequence[Mapping[str, str]], sink: worker.Sink
) -> set[str]:
    """Casts the checkpoint's tensors that the overrides name; the paths of their modules.

    They are cast from the fp32 pipeline `exact`, so that they round once: a module in fp32 within a
    half component has the checkpoint's values.  Buffers that no checkpoint holds, such as rotary
    frequencies, keep their dtype.
    """
    used: set[int] = set()
    modules, path = set(), ""
    wide = models_of(exact, kind)
    for component, model in models_of(pipe, kind).items():
        values = wide[component].state_dict()
        for name, tensor in model.state_dict(keep_vars=True).items():
            path = f"{component}.{name}"
            hits = [i for i, o in enumerate(overrides) if is_named(o["match"], path)]
            if hits and tensor.is_floating_point():
                tensor.data = values[name].to(dtype_of(overrides[hits[-1]]["dtype"]))
                modules.add(path.rpartition(".")[0])
                used.update(hits)
    for i in sorted({*range(len(overrides))} - used):
        match = overrides[i]["match"]
        sink.warn(f"precision.overrides: nothing is named {match!r}; a name is like {path}")
    return modules


def cast_layerwise(model: Any, storage: Any, compute: Any, kept: Sequence[str]) -> None:
    """The library's layerwise casting, with the model's own exceptions and these modules."""
    try:
        from diffusers.hooks import apply_layerwise_casting
        from diffusers.hooks.layerwise_casting import DEFAULT_SKIP_MODULES_PATTERN
    except ImportError:
        raise unsupported(
            f"Diffusers {diffusers.__version__} has no layerwise casting, which precision.storage"
            " needs; it came with 0.33.0: name a newer one with --pythonpath or --python"
        ) from None
    skip = DEFAULT_SKIP_MODULES_PATTERN + tuple(f"^{re.escape(path)}$" for path in kept)
    if hasattr(model, "enable_layerwise_casting"):
        model.enable_layerwise_casting(storage, compute, skip_modules_pattern=skip)
    else:  # transformers' models
        apply_layerwise_casting(model, storage, compute, skip_modules_pattern=skip)


def models_of(pipe: Any, kind: Kind) -> dict[str, Any]:
    """The components that this checkpoint has: one may be null, such as text_encoder_3."""
    found = {name: getattr(pipe, name) for name in kind.components}
    return {name: model for name, model in found.items() if model is not None}


def load_in_precision(cls: Any, kind: Kind, request: Mapping[str, Any], sink: worker.Sink) -> Any:
    """The pipeline with its components in the dtypes that the request names."""
    precision = request["precision"]
    dtypes = component_dtypes(kind, precision)
    if precision["load"] == "to":
        pipe = from_pretrained(cls, request, dict.fromkeys(dtypes, torch.float32), sink)
        for component, model in models_of(pipe, kind).items():
            model.to(dtypes[component])
    else:
        pipe = from_pretrained(cls, request, dtypes, sink)
    forced = set()
    if precision["overrides"]:
        exact = from_pretrained(cls, request, dict.fromkeys(dtypes, torch.float32), sink)
        forced = override(pipe, exact, kind, precision["overrides"], sink)
    models = models_of(pipe, kind)
    for component, name in precision["storage"].items():
        if component not in models:
            raise unsupported(f"precision.storage: the checkpoint has no {component}")
        # A module with an override in it keeps its dtypes: the hooks cast modules as a whole.
        kept = [p[len(component) + 1 :] for p in forced if p.startswith(component + ".")]
        cast_layerwise(models[component], dtype_of(name), dtypes[component], sorted(kept))
    return pipe


# ---- tiling ---------------------------------------------------------------------------------


def enable_tiling(vae: Any, tiling: Optional[Mapping[str, Sequence[int]]]) -> None:
    """The VAE's own tiling, of the tile and stride that the request names."""
    if not tiling:
        return
    enable = getattr(vae, "enable_tiling", None)
    if enable and {*TILING} <= {*inspect.signature(enable).parameters}:
        enable(**dict(zip(TILING, [*tiling["tile"], *tiling["stride"]])))
    elif enable and hasattr(vae, "tile_overlap_factor"):
        enable()
        set_overlap(vae, tiling["tile"], tiling["stride"])
    else:
        raise unsupported(
            f"{type(vae).__name__} of Diffusers {diffusers.__version__} takes no size and stride"
            " of tiles"
        )


def set_overlap(vae: Any, tile: Sequence[int], stride: Sequence[int]) -> None:
    """AutoencoderKL has square tiles, and their overlap as a fraction, in attributes."""
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    if len({*tile}) > 1 or len({*stride}) > 1 or tile[0] % factor or stride[0] % factor:
        raise unsupported(
            f"{type(vae).__name__} has square tiles of multiples of {factor} pixels, found tile"
            f" {[*tile]} and stride {[*stride]}"
        )
    vae.tile_sample_min_size = tile[0]
    vae.tile_latent_min_size = tile[0] // factor
    vae.tile_overlap_factor = (tile[0] - stride[0]) / tile[0]


# ---- generation -----------------------------------------------------------------------------


class NonFinite(Exception):
    """Ends the search for the first non-finite value; `place` says where that is."""

    def __init__(self, **place: Any) -> None:
        super().__init__("found")
        self.place = place


def tensors_in(value: Any) -> Iterator[Any]:
    """The floating tensors of a module's output."""
    if isinstance(value, torch.Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        yield from tensors_in(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)


class Pipeline:
    """A pipeline in memory. What it does is told to the sink of the moment."""

    def __init__(self, pipe: Any, kind: Kind, arguments: Mapping[str, Any], ulps: int) -> None:
        self.pipe, self.kind, self.arguments, self.ulps = pipe, kind, arguments, ulps
        self.sink: Any = None
        self.searching = False
        pipe.set_progress_bar_config(disable=True)
        self.wrap(pipe, "encode_prompt", after=self.encoded)
        self.wrap(pipe, "prepare_latents", stage="denoise", after=self.prepared)
        self.wrap(pipe.vae, "decode", stage="decode")

    def wrap(self, owner: Any, name: str, stage: str = "", after: Any = None) -> None:
        """Calls of owner.name begin the stage, and their result goes through `after`."""
        inner = getattr(owner, name)

        def outer(*args: Any, **kwargs: Any) -> Any:
            if stage:
                self.sink.enter(stage)
            result = inner(*args, **kwargs)
            return after(result) if after else result

        setattr(owner, name, outer)

    def encoded(self, result: Any) -> Any:
        """Tells the prompts' embeddings."""
        with self.sink.pause():
            self.tell("prompt_embeds", torch.cat([*self.kind.embeds(result)]))
        return result

    def prepared(self, noise: Any) -> Any:
        """Tells the initial noise, moved by noise_ulps in the dtype in which it was drawn."""
        with self.sink.pause():
            moved = noise.to("cpu", copy=True)
            towards = torch.full_like(moved, float("inf") if self.ulps > 0 else -float("inf"))
            for _ in range(abs(self.ulps)):
                moved = torch.nextafter(moved, towards)
            self.tell("initial_noise", moved)
        return moved.to(noise.device) if self.ulps else noise

    def stepped(self, pipe: Any, i: int, _: Any, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """The call's callback_on_step_end."""
        with self.sink.pause():
            self.tell(f"latents_{i:03d}", tensors["latents"])
        self.sink.step(i, pipe.num_timesteps)
        return {}

    def tell(self, name: str, tensor: Any) -> None:
        """A result, as fp32 on the CPU; to be called while the sink pauses."""
        if self.searching:
            self.check("", "", tensor)
        values = tensor.detach().to("cpu", torch.float32).contiguous()
        finite = bool(torch.isfinite(values).all())
        data = values.numpy().tobytes()
        self.sink.tensor(name, list(values.shape), data, name_of(tensor.dtype), finite)

    def check(self, module: str, op: str, output: Any) -> None:
        """Raises NonFinite when a tensor of the output holds NaN or infinities."""
        for tensor in tensors_in(output):
            values = tensor.float()
            nan, inf = int(values.isnan().sum()), int(values.isinf().sum())
            if nan or inf:
                stage, step = self.sink.stage_name, self.sink.step_index
                raise NonFinite(module=module, op=op, stage=stage, step=step, nan=nan, inf=inf)

    def generate(self, seed: int, sink: worker.Sink) -> None:
        """One call of the pipeline."""
        self.sink = sink
        sink.enter("text_encode")
        output = self.pipe(
            **self.arguments,
            generator=torch.Generator("cpu").manual_seed(seed),
            callback_on_step_end=self.stepped,
            output_type="pt",
        )
        with sink.pause():
            self.tell(self.kind.result, self.kind.picture(output))

    def models(self) -> dict[str, Any]:
        """The components that hold weights."""
        return models_of(self.pipe, self.kind)

    def modules(self) -> dict[str, Any]:
        """All modules by their path: transformer, transformer.patch_embed, ..."""
        return {
            f"{component}.{name}" if name else component: module
            for component, model in self.models().items()
            for name, module in model.named_modules()
        }

    def weights(self) -> int:
        """Bytes of parameters and buffers."""
        return sum(
            tensor.numel() * tensor.element_size()
            for model in self.models().values()
            for tensor in [*model.parameters(), *model.buffers()]
        )


# ---- the engine -----------------------------------------------------------------------------


class DiffusersAdapter(worker.Adapter):
    """Diffusers as the engine `diffusers`."""

    name = "diffusers"
    packages = SPEAKING

    def __init__(self) -> None:
        self._cuda = ""  # the device of the request, if it is one

    def start(self) -> tuple[str, dict[str, str]]:
        """Imports Diffusers and what it stands on."""
        import_libraries()
        return diffusers.__version__, environment()

    def load(self, request: Mapping[str, Any], sink: worker.Sink) -> Pipeline:
        """from_pretrained, precision and tiling."""
        if request["precision"]["policy"] != "strict":
            raise unsupported(f"Diffusers knows no policy {request['precision']['policy']}")
        self.take_device(request)
        kind = find_kind(request)
        cls = find_class(kind)
        check_checkpoint(request["checkpoint"])
        arguments = call_arguments(cls, kind, request, sink)
        if request["quirks"]:
            sink.warn(f"quirks mean nothing to Diffusers: {', '.join(request['quirks'])}")
        with telling_warnings(sink):
            pipe = load_in_precision(cls, kind, request, sink)
            if self._cuda:
                pipe.to(self._cuda)
            enable_tiling(pipe.vae, request["tiling"])
        pipeline = Pipeline(pipe, kind, arguments, request["noise_ulps"])
        sink.weights(pipeline.weights())
        return pipeline

    def take_device(self, request: Mapping[str, Any]) -> None:
        """Threads, and the card if one is asked for."""
        torch.set_num_threads(request["threads"])
        self._cuda = ""
        if not request["device"].startswith("cuda"):
            return
        if not torch.cuda.is_available():
            built = torch.version.cuda or "no CUDA"
            raise worker.EngineError(
                f"torch {torch.__version__} (built for {built}) finds no CUDA device: see"
                " nvidia-smi, name a Python with a CUDA build of torch with --python, or use"
                " --device cpu",
                "device",
            )
        self._cuda = request["device"]
        torch.cuda.reset_peak_memory_stats(self._cuda)

    def generate(self, pipeline: Pipeline, request: Mapping[str, Any], sink: worker.Sink) -> None:
        """One generation, with what the library warns of."""
        with telling_warnings(sink):
            pipeline.generate(request["inputs"]["seed"], sink)

    def modules(self, pipeline: Pipeline) -> dict[int, str]:
        """Paths of the modules of all components."""
        return {id(module): path for path, module in pipeline.modules().items()}

    def first_nonfinite(
        self, pipeline: Pipeline, request: Mapping[str, Any], sink: worker.Sink
    ) -> dict[str, Any]:
        """Generates again and looks at each output; a module's children are done before it."""

        def watch(path: str) -> Callable[[Any, Any, Any], None]:
            return lambda module, _, output: pipeline.check(path, type(module).__name__, output)

        hooks = [m.register_forward_hook(watch(path)) for path, m in pipeline.modules().items()]
        pipeline.searching = True
        try:
            pipeline.generate(request["inputs"]["seed"], sink)
        except NonFinite as found:
            return found.place
        finally:
            pipeline.searching = False
            for hook in hooks:
                hook.remove()
        return {}

    def memory(self) -> dict[str, int]:
        """Peaks of the card's memory."""
        if not self._cuda:
            return {}
        return {
            "cuda_allocated": torch.cuda.max_memory_allocated(self._cuda),
            "cuda_reserved": torch.cuda.max_memory_reserved(self._cuda),
        }

    def synchronize(self) -> None:
        """Waits for the card."""
        if self._cuda:
            torch.cuda.synchronize(self._cuda)

    def unload(self, pipeline: Pipeline) -> None:
        """The pipeline and its wrappers hold each other: the collector ends that."""
        pipeline.pipe = None
        gc.collect()
        if self._cuda:
            torch.cuda.empty_cache()


if __name__ == "__main__":
    worker.serve(DiffusersAdapter())
