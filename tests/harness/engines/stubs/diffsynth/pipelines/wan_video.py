"""WanVideoPipeline as diffsynth 2.1.12 has it, without its mathematics.

The signatures are the real package's (signatures.json).  The environment variable STUB tells it, in
JSON, how to behave: {"drop": [name of an entry, parameter], "lacks": attribute, "error": {"in": module,
"kind": class, "text": text}, "nan": module, "no_vace": true, "unknown": true}.  What it is called with
goes to the file STUB_LOG, a line a call.
"""

import builtins
import inspect
import json
import os

import torch

STUB = json.loads(os.environ.get("STUB", "{}"))
with open(os.path.join(os.path.dirname(__file__), "..", "signatures.json"), encoding="utf-8") as file:
    RECORDED = json.load(file)


def log(name, arguments):
    with open(os.environ["STUB_LOG"], "a", encoding="utf-8") as file:
        file.write(json.dumps({"call": name, **arguments}, default=plain) + "\n")


def plain(value):
    return vars(value) if hasattr(value, "path") else str(value)


def recorded(name):
    """The real signature of a function; calls that do not fit it are TypeErrors."""
    parameters = []
    for row in RECORDED[name]:
        if [name, row[0]] != STUB.get("drop"):
            default = row[2] if len(row) > 2 else inspect.Parameter.empty
            parameters.append(
                inspect.Parameter(row[0], inspect._ParameterKind[row[1]], default=default)
            )
    signature = inspect.Signature(parameters)

    def decorate(function):
        def call(*args, **kwargs):
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return function(**bound.arguments)

        call.__signature__ = signature
        return call

    return decorate


class Module:
    def __init__(self, **children):
        self.children, self.hooks, self.path = children, [], ""
        self.weight = torch.Tensor([0.0] * 4, (4,))

    def __call__(self, value):
        value = self.forward(value)
        for hook in list(self.hooks):
            hook(self, (), value)
        return value

    def forward(self, value):
        error = STUB.get("error")
        if error and error["in"] == self.path:
            raise getattr(builtins, error["kind"])(error["text"])
        for child in self.children.values():
            value = child(value)
        return value * float("nan") if STUB.get("nan") == self.path else value

    def named_modules(self, prefix=""):
        yield prefix, self
        for name, child in self.children.items():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def parameters(self):
        return [module.weight for _, module in self.named_modules()]

    def register_forward_hook(self, hook):
        self.hooks.append(hook)
        return Handle(self.hooks, hook)


class Handle:
    def __init__(self, hooks, hook):
        self.hooks, self.hook = hooks, hook

    def remove(self):
        self.hooks.remove(self.hook)


class ModelConfig:
    @recorded("ModelConfig.__init__")
    def __init__(self, **fields):
        self.__dict__.update(fields)


class FlowMatchScheduler:
    def set_timesteps(self, count):
        self.timesteps = [1000 * (count - i) / count for i in range(count)]

    def step(self, model_output, timestep, sample, to_final=False, **kwargs):
        return sample + model_output.values[0]


class NoiseInitializer:
    def process(self, pipe, shared, _positive, _negative):
        frames = (shared["num_frames"] - 1) // 4 + 1
        shape = (1, 2, frames, shared["height"] // 8, shared["width"] // 8)
        shared["noise"] = pipe.generate_noise(
            shape, seed=shared["seed"], rand_device=shared["rand_device"]
        )


class InputVideoEmbedder:
    def process(self, _pipe, shared, _positive, _negative):
        shared["latents"] = shared["noise"]


class PromptEmbedder:
    def process(self, pipe, shared, positive, negative):
        for side, prompt in ((positive, shared["prompt"]), (negative, shared["negative_prompt"])):
            embedded = torch.Tensor([float(len(prompt)), 1.0], (1, 1, 2), pipe.torch_dtype)
            side["context"] = pipe.text_encoder(embedded)


def run_unit(unit, pipe, inputs_shared, inputs_posi, inputs_nega):
    unit.process(pipe, inputs_shared, inputs_posi, inputs_nega)
    return inputs_shared, inputs_posi, inputs_nega


class WanVideoPipeline:
    def __init__(self, torch_dtype):
        self.torch_dtype, self.device = torch_dtype, "cpu"
        self.scheduler, self.unit_runner = FlowMatchScheduler(), run_unit
        self.units = [NoiseInitializer(), InputVideoEmbedder(), PromptEmbedder()]
        self.text_encoder = Module()
        self.dit = Module(patch_embedding=Module(), blocks=Module(module=Module()))
        self.vace = None if STUB.get("no_vace") else Module()
        self.vae = Module(decoder=Module())
        for name, component in self.named_children():
            for path, module in component.named_modules():
                module.path = f"{name}.{path}" if path else name

    def named_children(self):
        names = ("text_encoder", "dit", "vae", "vace")
        return [(name, getattr(self, name)) for name in names if getattr(self, name)]

    @staticmethod
    @recorded("WanVideoPipeline.from_pretrained")
    def from_pretrained(torch_dtype, device, model_configs, tokenizer_config, **rest):
        log("from_pretrained", {"torch_dtype": torch_dtype, "device": device, "rest": rest,
            "model_configs": model_configs, "tokenizer_config": tokenizer_config,
            "skip": os.environ.get("DIFFSYNTH_SKIP_DOWNLOAD"), "threads": torch.threads,
            "empty_cache": hasattr(torch.cpu, "empty_cache")})  # fmt: skip
        if STUB.get("unknown"):
            raise ValueError(f"Cannot detect the model type. File: {model_configs[0].path}. Model hash: 0")
        return WanVideoPipeline(torch_dtype)

    @recorded("WanVideoPipeline.generate_noise")
    def generate_noise(self, shape, seed, rand_device, rand_torch_dtype, device, torch_dtype):
        size = 1
        for length in shape:
            size *= length
        drawn = torch.float32 if isinstance(rand_torch_dtype, str) else rand_torch_dtype
        noise = torch.Tensor([seed + i / 8 for i in range(size)], shape, drawn)
        return noise.to(dtype=torch_dtype or self.torch_dtype, device=device or self.device)

    @recorded("WanVideoPipeline.__call__")
    def __call__(self, **given):
        log("__call__", {name: value for name, value in given.items() if name != "self"})
        self.scheduler.set_timesteps(given["num_inference_steps"])
        shared, positive, negative = dict(given), {}, {}
        for unit in self.units:
            shared, positive, negative = self.unit_runner(unit, self, shared, positive, negative)
        for i, _ in enumerate(given["progress_bar_cmd"](self.scheduler.timesteps)):
            prediction = self.dit(shared["latents"])
            shared["latents"] = self.scheduler.step(
                prediction, self.scheduler.timesteps[i], shared["latents"]
            )
        assert given["output_type"] == "floatpoint"
        return self.vae(self.frames(given))

    def frames(self, given):
        shape = (1, 3, given["num_frames"], given["height"], given["width"])
        size = 3 * shape[2] * shape[3] * shape[4]
        return torch.Tensor([(i % 9 - 4) / 4 for i in range(size)], shape, self.torch_dtype)


for name in [STUB.get("lacks")]:
    if name:
        delattr(WanVideoPipeline, name)
