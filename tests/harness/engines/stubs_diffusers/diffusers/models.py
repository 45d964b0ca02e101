"""Models without mathematics: each gives what it gets, in the dtype of its weight."""

import torch
from stub_state import STUB, log
from torch.nn import Module


class Conv2d(Module):
    def forward(self, value):
        return torch.kernel(self, value)


class Linear(Conv2d):
    pass


class AttnProcessor:
    def __call__(self, attn, value):
        return torch.kernel(attn, value)


class Attention(Module):
    processor = AttnProcessor()

    def forward(self, value):
        return self.processor(self, value)


class Model(Module):
    """One of the library's, which bring layerwise casting along."""

    def forward(self, value):
        for child in self.children.values():
            value = child(value)
        return (torch.kernel(self, value),)

    def enable_layerwise_casting(self, storage_dtype, compute_dtype, skip_modules_pattern=None):
        log("enable_layerwise_casting", model=type(self).__name__, storage=str(storage_dtype),
            compute=str(compute_dtype), skip=skip_modules_pattern)  # fmt: skip


class Transformer(Model):
    def __init__(self):
        super().__init__(patch_embed=Conv2d(), attn=Attention(), proj_out=Linear())


class Vae(Model):
    def __init__(self):
        super().__init__(decoder=Conv2d())

    def decode(self, latents):
        return self.children["decoder"](latents)

    if STUB.get("tiling") == "plain":

        def enable_tiling(self):
            log("enable_tiling")

    elif STUB.get("tiling") != "none":

        def enable_tiling(self, tile_sample_min_height=None, tile_sample_min_width=None,
                          tile_sample_stride_height=None, tile_sample_stride_width=None):  # fmt: skip
            log("enable_tiling", minimum=[tile_sample_min_height, tile_sample_min_width],
                stride=[tile_sample_stride_height, tile_sample_stride_width])  # fmt: skip
