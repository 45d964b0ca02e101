"""A text encoder and tokenizers."""

import os

import torch
from stub_state import log, version
from torch.nn import Module

SWITCHES = (
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "HF_HUB_DISABLE_TELEMETRY",
    "DIFFUSERS_VERBOSITY",
)
log("import", **{name: os.environ.get(name) for name in SWITCHES})  # libraries read them but once
__version__ = version("transformers", "5.3.0")


class Norm(Module):
    def forward(self, value):
        return torch.kernel(self, value)


class TextEncoder(Module):
    buffer_names = ("position_ids",)

    def __init__(self):
        super().__init__(norm=Norm())
        self.position_ids = torch.Tensor([0.0, 1.0], (2,), torch.int64)

    def forward(self, value):
        return {"pooled": None, "last_hidden_state": torch.kernel(self, self.children["norm"](value))}


class GemmaTokenizer:
    @classmethod
    def from_pretrained(cls, folder, **other):
        log("tokenizer", cls=cls.__name__, folder=folder, **other)
        return cls()


class GemmaTokenizerFast(GemmaTokenizer):
    pass
