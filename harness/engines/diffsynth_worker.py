"""DiffSynth-Studio as an engine of mpbench: its WanVideoPipeline with VACE.

Written against diffsynth 2.1.12 (PyPI).  There is no callback for steps in its API: the progress bar
wraps the timesteps, and the scheduler's `step` and the pipeline's `unit_runner` and `generate_noise`
are wrapped on the one pipeline that is at work.  The tests run against a stub with the signatures of
2.1.12.  With the real package and torch 2.15 on a CPU, a tiny random Wan VACE, made known to its table of
checkpoints, was loaded and run in fp32, bf16, fp16 and with fp8 storage, tiled, with masks and a reference
image; real weights and CUDA were not tried.

What differs from Diffusers by design of the library, and is left as it is: it samples with Euler steps
of its own flow-match scheduler, keeps latents in the pipeline's dtype between the steps, and takes
Wan's original files.
"""

from __future__ import annotations

import contextlib
import glob
import inspect
import json
import os
from typing import Any, Callable, Iterable, Iterator, Mapping, Sequence

import worker
from worker import EngineError, Sink

WRITTEN_AGAINST = "2.1.12"

TORCH_NAMES = {
    "fp32": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
    "fp8_e4m3": "float8_e4m3fn",
    "fp8_e5m2": "float8_e5m2",
}
SHORT_NAMES = {f"torch.{long}": short for short, long in TORCH_NAMES.items()}

# A component's files, the preferred first.  DiffSynth finds both dit and vace in the first.
FILES = {
    "transformer": ("diffusion_pytorch_model*.safetensors",),
    "text_encoder": (
        "models_t5_umt5-xxl-enc-bf16.safetensors",
        "models_t5_umt5-xxl-enc-bf16.pth",
    ),
    "vae": ("Wan2.1_VAE.safetensors", "Wan2.1_VAE.pth"),
}
TOKENIZER = os.path.join("google", "umt5-xxl")
COMPONENT_OF = {"dit": "transformer", "vace": "transformer"}  # other attributes keep their name

# Inputs of Diffusers' WanVACEPipeline under the names of WanVideoPipeline.
ARGUMENTS = {
    "prompt": "prompt",
    "negative_prompt": "negative_prompt",
    "video": "vace_video",
    "mask": "vace_video_mask",
    "reference_images": "vace_reference_image",
    "conditioning_scale": "vace_scale",
    "height": "height",
    "width": "width",
    "num_frames": "num_frames",
    "num_inference_steps": "num_inference_steps",
    "guidance_scale": "cfg_scale",
    "seed": "seed",
}
PICTURES = ("video", "mask", "reference_images")
# Inputs that are no arguments there, because it always does this.
ALWAYS = {"max_sequence_length": 512, "num_videos_per_prompt": 1, "guidance_scale_2": None}

# What this adapter leans on.  A release without one of these is refused by name.
CALL_ARGUMENTS = (
    *ARGUMENTS.values(),
    "rand_device",
    "sigma_shift",
    "tiled",
    "tile_size",
    "tile_stride",
    "progress_bar_cmd",
    "output_type",
)
LOAD_ARGUMENTS = ("torch_dtype", "device", "model_configs", "tokenizer_config")
NOISE_ARGUMENTS = ("shape", "seed", "rand_device", "rand_torch_dtype", "device", "torch_dtype")
STATES = ("offload", "onload", "preparing", "computation")  # of a weight in its VRAM management
CONFIG_FIELDS = (
    "path",
    "skip_download",
    *(f"{state}_{what}" for state in STATES for what in ("device", "dtype")),
)


def unsupported(text: str) -> EngineError:
    """DiffSynth cannot do what is asked."""
    return EngineError(text, "unsupported")


# ---- the library ----------------------------------------------------------------------------


class Library:
    """The imported names that are used."""

    def __init__(self) -> None:
        os.environ["DIFFSYNTH_SKIP_DOWNLOAD"] = "True"  # whatever else is asked of it
        try:
            import diffsynth
            import torch
        except ImportError as error:
            raise EngineError(
                f"diffsynth cannot be imported: {error}; remedy: pip install diffsynth, or --pythonpath"
                " with the folder of a DiffSynth-Studio checkout"
            ) from error
        self.torch, self.package = torch, diffsynth
        self.version = worker.version_of("diffsynth") or "unknown"
        try:
            from diffsynth.pipelines.wan_video import ModelConfig, WanVideoPipeline
        except ImportError as error:
            raise self.differs(f"diffsynth.pipelines.wan_video ({error})") from error
        self.pipeline, self.config = WanVideoPipeline, ModelConfig

    def differs(self, what: str) -> EngineError:
        """Its API is not the one that this adapter knows."""
        return unsupported(
            f"diffsynth {self.version} lacks {what}; this adapter was written against"
            f" diffsynth {WRITTEN_AGAINST}"
        )

    def check(self) -> None:
        """Everything this adapter leans on is there."""
        self.check_signature("WanVideoPipeline.__call__", self.pipeline, "__call__", CALL_ARGUMENTS)
        self.check_signature(
            "WanVideoPipeline.from_pretrained", self.pipeline, "from_pretrained", LOAD_ARGUMENTS
        )
        self.check_signature(
            "WanVideoPipeline.generate_noise", self.pipeline, "generate_noise", NOISE_ARGUMENTS
        )
        self.check_signature("ModelConfig", self.config, "__init__", CONFIG_FIELDS)

    def check_signature(self, name: str, owner: type, method: str, wanted: Sequence[str]) -> None:
        """A callable takes these arguments."""
        function = getattr(owner, method, None)
        if function is None:
            raise self.differs(name)
        known = inspect.signature(function).parameters
        missing = [argument for argument in wanted if argument not in known]
        if missing:
            raise self.differs(f"{', '.join(missing)} of {name}")

    def dtype(self, name: str) -> Any:
        """torch's dtype for one of mpbench's names."""
        return getattr(self.torch, TORCH_NAMES[name])


def do_nothing() -> None:
    """Stands in for torch.cpu.empty_cache."""


# ---- the checkpoint -------------------------------------------------------------------------


def find_files(folder: str) -> dict[str, list[str]]:
    """The files of each component, and the tokenizer's folder; all that is missing in one error."""
    found = {component: first_match(folder, names) for component, names in FILES.items()}
    tokenizer = os.path.join(folder, TOKENIZER)
    found["tokenizer"] = [tokenizer] if os.path.isdir(tokenizer) else []
    missing = [" or ".join(FILES.get(name, (TOKENIZER,))) for name in found if not found[name]]
    if missing:
        hint = ""
        if os.path.isfile(os.path.join(folder, "model_index.json")):
            hint = ": it is in Diffusers' layout, and DiffSynth reads Wan's original files"
        raise EngineError(f"{folder} lacks {', '.join(missing)}{hint}", "missing")
    return found


def first_match(folder: str, patterns: Sequence[str]) -> list[str]:
    """The files of the first pattern that has any, in order."""
    for pattern in patterns:
        files = sorted(glob.glob(os.path.join(glob.escape(folder), pattern)))
        if files:
            return files
    return []


def flow_shift(folder: str) -> dict[str, float]:
    """Of a scheduler's config beside the weights; without one the library's default holds."""
    with contextlib.suppress(FileNotFoundError):
        with open(os.path.join(folder, "scheduler", "scheduler_config.json"), "rb") as file:
            shift = json.load(file).get("flow_shift")
            return {} if shift is None else {"sigma_shift": float(shift)}
    return {}


# ---- the request ----------------------------------------------------------------------------


def check_request(request: Mapping[str, Any]) -> None:
    """Refuses what DiffSynth has no way to do."""
    precision = request["precision"]
    if request["pipeline"] != "wan-vace":
        raise unsupported(f"this adapter runs wan-vace only, not {request['pipeline']}")
    if request.get("variant"):
        raise unsupported("Wan's original files have no variants; remedy: leave out `variant`")
    if precision["policy"] != "strict":
        raise unsupported(f"precision.policy {precision['policy']}: only strict, the library as it is")
    if precision["load"] != "from_pretrained":
        raise unsupported(
            f"precision.load {precision['load']}: DiffSynth loads in the dtype, as from_pretrained does"
        )
    if precision["overrides"]:
        raise unsupported("precision.overrides: DiffSynth has one dtype for a whole component")
    for part in ("components", "storage"):
        for component in precision[part]:
            if component not in FILES:
                raise unsupported(
                    f"precision.{part}.{component}: its Wan VACE has only {', '.join(FILES)}"
                )


def tiling_arguments(tiling: Mapping[str, Sequence[int]] | None) -> dict[str, Any]:
    """DiffSynth counts tiles in latent pixels, 8 of the picture's."""
    if tiling is None:
        return {"tiled": False}
    sizes = {}
    for name, key in (("tile", "tile_size"), ("stride", "tile_stride")):
        if any(size % 8 for size in tiling[name]):
            raise unsupported(f"tiling.{name} {tiling[name]}: DiffSynth takes multiples of 8 pixels")
        sizes[key] = tuple(size // 8 for size in tiling[name])
    return {"tiled": True, **sizes}


def call_arguments(request: Mapping[str, Any], warnings: list[str]) -> dict[str, Any]:
    """The inputs under DiffSynth's names."""
    call: dict[str, Any] = {"rand_device": "cpu", **flow_shift(request["checkpoint"])}
    left_out = []
    for name, value in request["inputs"].items():
        if name in ALWAYS and value == ALWAYS[name]:
            continue
        if name in ARGUMENTS and is_known_value(name, value):
            call[ARGUMENTS[name]] = value
        elif name in request["defaults"]:
            left_out.append(name)
        else:
            raise unsupported(f"inputs.{name} {value!r}: WanVideoPipeline has no counterpart")
    if left_out:
        warnings.append(f"DiffSynth has no counterpart of these inputs' defaults: {', '.join(left_out)}")
    if call.get("negative_prompt") is None:
        call["negative_prompt"] = ""  # what Diffusers takes for none
    for name in PICTURES:
        if call.get(ARGUMENTS[name]):
            call[ARGUMENTS[name]] = read_pictures(call[ARGUMENTS[name]], name, request["inputs"])
    return {**call, **tiling_arguments(request["tiling"])}


def is_known_value(name: str, value: Any) -> bool:
    """Diffusers also takes a list of scales, one for each layer."""
    return name != "conditioning_scale" or isinstance(value, (int, float))


def read_pictures(paths: Sequence[str], name: str, inputs: Mapping[str, Any]) -> list:
    """RGB pictures.  DiffSynth resizes none, where Diffusers resizes, pads and crops."""
    from PIL import Image

    size = (inputs["width"], inputs["height"])
    pictures = []
    for path in paths:
        with Image.open(path) as picture:
            if picture.size != size:
                raise unsupported(
                    f"inputs.{name}: {path} is {picture.size[0]}x{picture.size[1]}, and DiffSynth does"
                    f" not resize; remedy: pictures of {size[0]}x{size[1]}, as width and height say"
                )
            pictures.append(picture.convert("RGB"))
    return pictures


# ---- a generation ---------------------------------------------------------------------------


class Watch:
    """Tells the sink what a pipeline does while it does it."""

    def __init__(self, library: Library, sink: Sink, call: Mapping[str, Any], ulps: int) -> None:
        self._torch, self._sink, self._ulps = library.torch, sink, ulps
        self._guided = call.get("cfg_scale") != 1.0
        self._steps = self._step = 0
        self._told: set[str] = set()

    @contextlib.contextmanager
    def on(self, pipe: Any) -> Iterator[None]:
        """Wraps the pipeline's own attributes, and takes the wrappers away again."""
        runner, step, noise = pipe.unit_runner, pipe.scheduler.step, pipe.generate_noise
        pipe.unit_runner = self._wrap_runner(runner)
        pipe.scheduler.step = self._wrap_step(step)
        if self._ulps:
            pipe.generate_noise = self._wrap_noise(noise, pipe)
        try:
            yield
        finally:
            pipe.unit_runner = runner
            del pipe.scheduler.step
            if self._ulps:
                del pipe.generate_noise

    def timesteps(self, timesteps: Iterable) -> Iterator:
        """The progress bar: the library denoises once for each value that this yields."""
        values = list(timesteps)
        self._steps = len(values)
        self._sink.enter("denoise")
        yield from values
        self._sink.enter("decode")

    def tensor(self, name: str, value: Any, held: Any = None) -> None:
        """Tells a tensor, and the dtype in which the library held it, if not its own."""
        if self._sink.quiet:
            return
        with self._sink.pause():
            data = value.detach().to("cpu", self._torch.float32).contiguous()
            finite = bool(self._torch.isfinite(data).all())
            dtype = str(held or value.dtype)
            values = data.numpy().tobytes()
            self._sink.tensor(name, list(value.shape), values, SHORT_NAMES.get(dtype, dtype), finite)

    def _once(self, name: str, value: Any) -> None:
        if name not in self._told:
            self._told.add(name)
            self.tensor(name, value)

    def _wrap_runner(self, runner: Callable) -> Callable:
        def run(unit: Any, pipe: Any, shared: dict, positive: dict, negative: dict) -> tuple:
            shared, positive, negative = runner(unit, pipe, shared, positive, negative)
            if shared.get("noise") is not None:
                self._once("initial_noise", shared["noise"])
            if positive.get("context") is not None:
                both = [negative["context"], positive["context"]]
                self._once("prompt_embeds", self._torch.cat(both) if self._guided else both[1])
            return shared, positive, negative

        return run

    def _wrap_step(self, step: Callable) -> Callable:
        def run(*args: Any, **kwargs: Any) -> Any:
            latents = step(*args, **kwargs)
            index, self._step = self._step, self._step + 1
            self._sink.step(index, self._steps)
            self.tensor(f"latents_{index:03d}", latents)
            return latents

        return run

    def _wrap_noise(self, draw: Callable, pipe: Any) -> Callable:
        """It draws in fp32 and casts: the ulps belong between the two."""

        def run(shape: Any, seed: Any = None, rand_device: str = "cpu", rand_torch_dtype: Any = None,
                device: Any = None, torch_dtype: Any = None) -> Any:  # fmt: skip
            drawn = rand_torch_dtype or self._torch.float32
            noise = draw(shape, seed, rand_device, drawn, rand_device, drawn)
            infinity = self._torch.full_like(noise, float("inf"))
            for _ in range(self._ulps):
                noise = self._torch.nextafter(noise, infinity)
            return noise.to(dtype=torch_dtype or pipe.torch_dtype, device=device or pipe.device)

        return run


class Found(Exception):
    """Ends a generation as soon as a module's output is not finite."""


def find_nonfinite(torch: Any, paths: Iterable, sink: Sink, place: dict[str, Any]) -> list:
    """Puts a hook on each module that notes the first non-finite output in `place`."""

    def hook(path: str) -> Callable:
        # A closure and no object: its VRAM management copies modules, hooks and all.
        def look(module: Any, _inputs: Any, output: Any) -> None:
            for value in output if isinstance(output, (tuple, list)) else (output,):
                if not isinstance(value, torch.Tensor) or not value.is_floating_point():
                    continue
                value = value.detach().float()
                if not torch.isfinite(value).all():
                    place.update(module=path, op=type(module).__name__)
                    place.update(stage=sink.stage_name, step=sink.step_index)
                    place.update(nan=int(torch.isnan(value).sum()), inf=int(torch.isinf(value).sum()))
                    raise Found

        return look

    return [module.register_forward_hook(hook(path)) for module, path in paths]


class Loaded:
    """A pipeline and how it is called."""

    def __init__(self, pipe: Any, call: dict[str, Any], warnings: list[str]) -> None:
        self.pipe, self.call, self.warnings = pipe, call, warnings

    def modules(self) -> Iterator[tuple[Any, str]]:
        """Each module with its path; wrappers of its VRAM management are no part of a name."""
        for attribute, component in self.pipe.named_children():
            name = COMPONENT_OF.get(attribute, attribute)
            for path, module in component.named_modules():
                parts = [part for part in path.split(".") if part and part != "module"]
                yield module, ".".join([name, *parts])

    def weights(self) -> int:
        """Bytes of all parameters."""
        parameters = (p for _, c in self.pipe.named_children() for p in c.parameters())
        return sum(parameter.numel() * parameter.element_size() for parameter in parameters)


class DiffSynth(worker.Adapter):
    """Wan VACE in DiffSynth-Studio."""

    name = "diffsynth"
    packages = ("diffsynth",)

    def __init__(self) -> None:
        self._library: Any = None
        self._device = "cpu"

    def start(self) -> tuple[str, dict[str, str]]:
        self._library = Library()
        worker.check_origin("diffsynth")
        self._library.check()
        environment = {
            "torch": str(self._library.torch.__version__),
            "git_commit": worker.git_commit("diffsynth"),
            "source_sha256": worker.source_hash("diffsynth"),
        }
        return self._library.version, {key: value for key, value in environment.items() if value}

    def load(self, request: Mapping[str, Any], sink: Sink) -> Loaded:
        check_request(request)
        self._use_device(request["device"], request["threads"])
        warnings: list[str] = []
        if request["quirks"]:
            warnings.append("quirks mean nothing to DiffSynth: " + ", ".join(request["quirks"]))
        if request["precision"]["storage"] and self._device == "cpu":
            self._mend_torch_cpu(warnings)
        call = call_arguments(request, warnings)
        loaded = Loaded(self._from_pretrained(request), call, warnings)
        sink.weights(loaded.weights())
        return loaded

    def generate(self, pipeline: Loaded, request: Mapping[str, Any], sink: Sink) -> None:
        for text in pipeline.warnings:
            sink.warn(text)
        watch = Watch(self._library, sink, pipeline.call, request["noise_ulps"])
        sink.enter("text_encode")  # and the VAE's encoding of the inputs: all before the first step
        with watch.on(pipeline.pipe):
            video = pipeline.pipe(
                **pipeline.call, progress_bar_cmd=watch.timesteps, output_type="floatpoint"
            )
        if not sink.quiet:
            with sink.pause():
                frames = video[0].transpose(0, 1)  # [3,F,H,W] in -1..1
                watch.tensor("frames", ((frames.float() + 1) / 2).clamp(0, 1), video.dtype)

    def modules(self, pipeline: Loaded) -> dict[int, str]:
        return {id(module): path for module, path in pipeline.modules()}

    def first_nonfinite(self, pipeline: Loaded, request: Mapping[str, Any], sink: Sink) -> dict:
        place: dict[str, Any] = {}
        hooks = find_nonfinite(self._library.torch, pipeline.modules(), sink, place)
        try:
            self.generate(pipeline, request, sink)
        except Found:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        return place

    def memory(self) -> dict[str, int]:
        if self._device != "cuda":
            return {}
        cuda = self._library.torch.cuda
        return {
            "cuda_allocated": cuda.max_memory_allocated(),
            "cuda_reserved": cuda.max_memory_reserved(),
        }

    def synchronize(self) -> None:
        if self._device == "cuda":
            self._library.torch.cuda.synchronize()

    def unload(self, pipeline: Loaded) -> None:
        pipeline.pipe = None
        if self._device == "cuda":
            self._library.torch.cuda.empty_cache()

    def _use_device(self, device: str, threads: int) -> None:
        torch = self._library.torch
        if device == "cuda" and not torch.cuda.is_available():
            raise EngineError("torch sees no CUDA device", "device")
        self._device = device
        torch.set_num_threads(threads)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def _mend_torch_cpu(self, warnings: list[str]) -> None:
        """Its VRAM management calls torch.<device>.empty_cache, and torch.cpu has none."""
        cpu = self._library.torch.cpu
        if not hasattr(cpu, "empty_cache"):
            cpu.empty_cache = do_nothing
        if cpu.empty_cache is do_nothing:
            warnings.append(
                "DiffSynth's VRAM management calls torch.cpu.empty_cache, which this torch does not have;"
                " the worker gave it one that does nothing"
            )

    def _config(self, files: Sequence[str], dtype: str, storage: str | None) -> Any:
        """How DiffSynth is told the dtypes of one component: as its low-VRAM examples do."""
        states = {"computation_dtype": self._library.dtype(dtype)}
        if storage:
            states.update({f"{state}_dtype": self._library.dtype(storage) for state in STATES[:-1]})
            states.update({f"{state}_device": self._device for state in STATES})
        return self._library.config(path=list(files), skip_download=True, **states)

    def _from_pretrained(self, request: Mapping[str, Any]) -> Any:
        precision = request["precision"]
        files = find_files(request["checkpoint"])
        dtypes = {name: precision["components"].get(name, precision["default"]) for name in FILES}
        configs = [
            self._config(files[name], dtypes[name], precision["storage"].get(name)) for name in FILES
        ]
        try:
            pipe = self._library.pipeline.from_pretrained(
                torch_dtype=self._library.dtype(precision["default"]),
                device=self._device,
                model_configs=configs,
                tokenizer_config=self._library.config(path=files["tokenizer"][0], skip_download=True),
            )
        except ValueError as error:
            if "Cannot detect the model type" not in str(error):
                raise
            raise unsupported(
                f"{error} (DiffSynth knows checkpoints by a hash of their parameters' names and shapes,"
                " and this is none of those that it knows)"
            ) from error
        if pipe.vace is None:
            raise unsupported(f"{request['checkpoint']} is a Wan checkpoint without VACE")
        return pipe


if __name__ == "__main__":
    worker.serve(DiffSynth())
