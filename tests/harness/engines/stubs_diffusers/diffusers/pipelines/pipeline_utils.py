"""Loading, as the releases since 0.32 do it.

A checkpoint's model_index.json may hold "fault": {"in": path of a module, "scheduler" or "from_pretrained",
and either "kind": class, "text": text, "at": number of the call that raises it, or "values": what its output
begins with}; and "says": {"log": text, "info": text, "warn": text}, which each call says.
"""

import json
import logging
import os
import warnings

import torch
import transformers
from packaging.version import Version
from stub_state import log

import diffusers
from diffusers import models

RELEASE = Version(diffusers.__version__)
BY_COMPONENT = RELEASE >= Version("0.33.0")
SPELLING = "dtype" if RELEASE >= Version("0.40.0") else "torch_dtype"
logger = logging.getLogger("diffusers.pipelines.pipeline_utils")


def load_sub_model(library_name, class_name, name, cached_folder, **dtype):
    log("load_sub_model", name=name, dtype={key: str(value) for key, value in dtype.items()})
    cls = getattr(models if library_name == "diffusers" else transformers, class_name)
    if "Tokenizer" in class_name:
        return cls.from_pretrained(os.path.join(cached_folder, name))
    return cls().to(*dtype.values())


ORIGINAL = load_sub_model


class DiffusionPipeline:
    parts = {
        "tokenizer": ("transformers", "GemmaTokenizer"),
        "text_encoder": ("transformers", "TextEncoder"),
        "transformer": ("diffusers", "Transformer"),
        "vae": ("diffusers", "Vae"),
    }
    device = "cpu"

    @classmethod
    def from_pretrained(cls, folder, *, variant, use_safetensors, local_files_only, **dtype):
        told = {key: {name: str(kind) for name, kind in value.items()} for key, value in dtype.items()}
        log("from_pretrained", folder=folder, variant=variant, use_safetensors=use_safetensors,
            local_files_only=local_files_only, told=told)  # fmt: skip
        assert set(dtype) <= ({SPELLING} if BY_COMPONENT else set()), told
        with open(os.path.join(folder, "model_index.json"), encoding="utf-8") as file:
            index = json.load(file)
        pipe = cls()
        pipe.fault, pipe.says = index.get("fault", {}), index.get("says", {})
        pipe.say("load")
        if pipe.fault.get("in") == "from_pretrained":
            raise OSError(pipe.fault["text"])
        for name, (library, class_name) in cls.parts.items():
            kind = dtype.get(SPELLING, {}).get(name, torch.float32)
            setattr(pipe, name, load_sub_model(library_name=library, class_name=class_name, name=name,
                                               cached_folder=folder, **{SPELLING: kind}))  # fmt: skip
        for path, module in pipe.modules():
            module.path, module.fault = path, pipe.fault
        return pipe

    def modules(self):
        for name in ("text_encoder", "transformer", "vae"):
            for path, module in getattr(self, name).named_modules():
                yield f"{name}.{path}" if path else name, module

    def say(self, when):
        """What the checkpoint's `says` holds."""
        if "log" in self.says:
            logger.warning("%s", self.says["log"])
            logger.warning("%s in %s", self.says["log"], when)
        if "info" in self.says:
            logger.info(self.says["info"])
        if "warn" in self.says:
            warnings.warn(self.says["warn"], FutureWarning)

    def set_progress_bar_config(self, disable):
        self.quiet = disable

    def to(self, device):
        self.device = device
        for name in ("text_encoder", "transformer", "vae"):
            getattr(self, name).to(device)

    def dtypes(self):
        """Of all that a state_dict holds."""
        return {
            f"{name}.{key}": str(tensor.dtype).replace("torch.", "")
            for name in ("text_encoder", "transformer", "vae")
            for key, tensor in getattr(self, name).state_dict().items()
        }

    def run(self, given):
        """A call; the latents double in each step."""
        given = {key: value for key, value in given.items() if key not in ("self", "__class__")}
        log("__call__", given=given, dtypes=self.dtypes(), device=self.device, quiet=self.quiet,
            restored=load_sub_model is ORIGINAL)  # fmt: skip
        self.say("call")
        self.encode_prompt(given["prompt"], given["negative_prompt"], given["guidance_scale"] > 1)
        latents = self.prepare_latents(given["generator"])
        self.num_timesteps = given["num_inference_steps"]
        for i in range(self.num_timesteps):
            latents = latents + self.transformer(latents)[0]
            if self.fault.get("in") == "scheduler":
                latents = latents.like([float("inf")] * latents.numel())
            told = given["callback_on_step_end"](self, i, 1000 - i, {"latents": latents})
            latents = told.pop("latents", latents)
        return self.vae.decode(latents)

    def embed(self, prompt):
        """Values that tell one prompt from the other."""
        prompt = torch.Tensor([float(len(prompt)), 1.0], (1, 1, 2), device=self.device)
        return self.text_encoder(prompt)["last_hidden_state"]

    def prepare_latents(self, generator):
        """Drawn in fp32 on the generator's device, whatever the models hold."""
        noise = [generator.seed + i / 8 for i in range(4)]
        return torch.Tensor(noise, (1, 1, 2, 2), device=generator.device).to(self.device)

    def __del__(self):
        if hasattr(self, "vae"):
            log("__del__", hooks=sum(len(module.hooks) for _, module in self.modules()))
