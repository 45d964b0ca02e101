#!/usr/bin/env python3
"""A mid-size Stable Diffusion 3.5 checkpoint with seeded weights, for ci/bench.

bench_checkpoint.py FOLDER   makes it there, unless this script made the folder as it is: about 150 M parameters, fp32

The denoiser's tokens, heads and blocks and the autoencoder are those of the real model, so that a picture of 512x512
asks of each op what it does there; the denoiser has fewer blocks and is narrower, the text encoders are small.
Tokenizers and scheduler are those of the tests' tiny checkpoint.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

TINY = Path(__file__).resolve().parent.parent / "tests/fixtures/checkpoints/sd3-tiny"
STAMP = "made_by.sha256"  # of this script

CLIP_WIDTHS = {"text_encoder": 256, "text_encoder_2": 320}
T5 = {
    "vocab_size": 304, "d_model": 640, "d_kv": 64, "d_ff": 1280, "num_layers": 2, "num_heads": 10,
    "feed_forward_proj": "gated-gelu",
}  # fmt: skip
TRANSFORMER = {
    "sample_size": 64, "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 3,
    "attention_head_dim": 64, "num_attention_heads": 11, "caption_projection_dim": 704,
    "joint_attention_dim": T5["d_model"], "pooled_projection_dim": sum(CLIP_WIDTHS.values()),
    "pos_embed_max_size": 64, "dual_attention_layers": (0, 1), "qk_norm": "rms_norm",
}  # fmt: skip
VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 16,
    "norm_num_groups": 32, "sample_size": 1024, "scaling_factor": 1.5305, "shift_factor": 0.0609,
    "use_quant_conv": False, "use_post_quant_conv": False,
}  # fmt: skip


def fill(model: nn.Module, seed: int) -> nn.Module:
    """Variance 1/fan_in: activations stay near 1, far inside of fp16's range."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in sorted(model.named_parameters()):
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith("bias"):
            value.copy_(0.1 * noise)
        elif value.ndim == 1:
            value.copy_(1.0 + 0.1 * noise)
        elif "embed" in name or "shared" in name or "relative_attention_bias" in name:
            value.copy_(noise)
        else:
            gain = T5["d_kv"] ** -0.5 if ".q." in name else 1.0  # T5 has no scale on its scores
            value.copy_(noise * (gain / math.sqrt(value[0].numel())))
    return model.eval()


def clip(name: str, width: int) -> CLIPTextModelWithProjection:
    """The special tokens and the activation as in the tiny checkpoint's encoder of that name."""
    config = CLIPTextConfig.from_pretrained(TINY / name)
    config.update(
        {
            "hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": width // 64,
            "num_hidden_layers": 4, "projection_dim": width,
        }
    )  # fmt: skip
    return CLIPTextModelWithProjection(config)


def make(folder: Path) -> None:
    """All components; the parameters are counted on stdout."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(TINY, folder, ignore=shutil.ignore_patterns("text_encoder*", "transformer", "vae"))
    models = {name: clip(name, width) for name, width in CLIP_WIDTHS.items()} | {
        "text_encoder_3": T5EncoderModel(T5Config(**T5)),
        "transformer": SD3Transformer2DModel(**TRANSFORMER),
        "vae": AutoencoderKL(**VAE),
    }
    for seed, (name, model) in enumerate(models.items()):
        fill(model, seed).save_pretrained(folder / name)
        count = sum(p.numel() for p in model.parameters())
        print(f"{folder.name}/{name}: {count / 1e6:.1f} M parameters")


def main() -> None:
    folder = Path(sys.argv[1])
    stamp = folder / STAMP
    digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    with torch.inference_mode():
        make(folder)
    stamp.write_text(digest)


if __name__ == "__main__":
    main()
