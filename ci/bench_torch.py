#!/usr/bin/env python3
"""PyTorch on the ops of tests/bench/bench_ops.c, one run for each line that it is sent.

bench_torch.py THREADS [OP] -> for each op, shape and dtype a JSON line {"op", "dtype", "shape"}; then "run" on stdin has
it run and the seconds printed, and "next" goes on. Tensors lie as the models hold them in PyTorch: pictures are NCHW.
dtype "fp8" is a weight stored as float8_e4m3fn and cast to bfloat16 at each call, as Diffusers' layerwise casting does.
"""

import json
import sys
import time

import torch
import torch.nn.functional as F

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def conv(padding=0, groups=1):
    return lambda x, w, b=None: F.conv2d(x, w, b, padding=padding, groups=groups)


def conv3d(*padding):
    return lambda x, w, b: F.conv3d(x, w, b, padding=padding)


def attention(heads, causal=False):
    def run(q, k, v, mask=None):
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        if mask is not None:
            mask = mask[:, None, None].expand(-1, heads, q.shape[2], -1)
        return F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal).transpose(1, 2).flatten(2)

    return run


def linear_attention(heads):
    """SanaLinearAttnProcessor2_0."""

    def run(q, k, v):
        q, v = (t.transpose(1, 2).unflatten(1, (heads, -1)) for t in (q, v))
        k = k.transpose(1, 2).unflatten(1, (heads, -1)).transpose(2, 3)
        dtype, q, k = q.dtype, F.relu(q).float(), F.relu(k).float()
        v = F.pad(v.float(), (0, 0, 0, 1), value=1.0)
        y = torch.matmul(torch.matmul(v, k), q)
        y = y[:, :, :-1] / (y[:, :, -1:] + 1e-15)
        return y.flatten(1, 2).transpose(1, 2).to(dtype)

    return run


def gelu_tanh(x):
    return F.gelu(x, approximate="tanh")


def glu(x):
    a, gate = x.chunk(2, -1)
    return a * F.silu(gate)


def modulate(x, shift, scale):
    return x * (1 + scale) + shift


def add_gated(x, gate, y):
    return x + gate * y


def rope(x, cos, sin):
    """transformers' apply_rotary_pos_emb, heads of cos' width."""
    x = x.unflatten(-1, (-1, cos.shape[-1]))
    first, second = x.chunk(2, -1)
    return (x * cos[:, None] + torch.cat((-second, first), -1) * sin[:, None]).flatten(2)


def bilinear(x):
    return F.interpolate(x, scale_factor=2, mode="bilinear")


def cast(x):
    return x.to(torch.bfloat16 if x.dtype == torch.float32 else torch.float32)


def swap_axes(x):
    return x.transpose(1, 2).contiguous()


def layer_norm(x, w, b):
    return F.layer_norm(x, w.shape, w, b, 1e-6)


def rms_norm(x, w):
    return F.rms_norm(x, w.shape, w, 1e-6)


def group_norm(x, w, b):
    return F.group_norm(x, 32, w, b, 1e-6)


TOKENS = (1, 1024, 2240)

# op, shape as bench_ops names it, run, shapes of the inputs, shapes of the parameters
BENCHES = [
    ("linear", "1024x2240x2240", F.linear, [(1024, 2240)], [(2240, 2240), (2240,)]),
    ("linear", "2x2240x13440", F.linear, [(2, 2240)], [(13440, 2240), (13440,)]),
    ("linear", "300x2304x2240", F.linear, [(300, 2304)], [(2240, 2304), (2240,)]),
    ("conv3x3", "64x64x128 to 128", conv(1), [(1, 128, 64, 64)], [(128, 128, 3, 3), (128,)]),
    ("conv3x3", "256x256x128 to 128", conv(1), [(1, 128, 256, 256)], [(128, 128, 3, 3), (128,)]),
    ("conv3x3", "128x128x256 to 256", conv(1), [(1, 256, 128, 128)], [(256, 256, 3, 3), (256,)]),
    ("conv3x3", "64x64x512 to 512", conv(1), [(1, 512, 64, 64)], [(512, 512, 3, 3), (512,)]),
    ("conv3x3", "128x128x3 to 128", conv(1), [(1, 3, 128, 128)], [(128, 3, 3, 3), (128,)]),
    ("conv1x1", "64x64x256 to 512", conv(), [(1, 256, 64, 64)], [(512, 256, 1, 1), (512,)]),
    ("conv1x1 grouped", "32x32x1536, 48 groups", conv(groups=48), [(1, 1536, 32, 32)], [(1536, 32, 1, 1)]),
    ("depthwise3x3", "64x64x2240", conv(1, 2240), [(1, 2240, 64, 64)], [(2240, 1, 3, 3), (2240,)]),
    # In fp16 PyTorch takes 100 times as long: videos of real size would take minutes.
    ("conv3d 3x3x3", "3x32x64x96 to 96", conv3d(1, 1, 1), [(1, 96, 3, 32, 64)], [(96, 96, 3, 3, 3), (96,)]),
    ("conv3d 3x1x1", "5x32x64x192 to 192", conv3d(1, 0, 0), [(1, 192, 5, 32, 64)], [(192, 192, 3, 1, 1), (192,)]),
    ("attention", "24x64, 1024 x 1024", attention(24), [(1, 1024, 1536)] * 3, []),
    (
        "attention masked", "20x112, 1024 x 300", attention(20),
        [(1, 1024, 2240), (1, 300, 2240), (1, 300, 2240), (1, 300)], [],
    ),
    ("attention", "24x64, 4096 x 4096", attention(24), [(1, 4096, 1536)] * 3, []),
    ("attention causal", "24x64, 1024 x 1024", attention(24, True), [(1, 1024, 1536)] * 3, []),
    ("linear attention", "70x32, 1024", linear_attention(70), [TOKENS] * 3, []),
    ("copy", "1024x2240", torch.clone, [TOKENS], []),
    ("copy", "128x128x512", torch.clone, [(1, 512, 128, 128)], []),
    ("layer norm", "1024x2240", layer_norm, [TOKENS], [(2240,), (2240,)]),
    ("rms norm", "1024x2240", rms_norm, [TOKENS], [(2240,)]),
    ("group norm", "128x128x512, 32 groups", group_norm, [(1, 512, 128, 128)], [(512,), (512,)]),
    ("silu", "1024x2240", F.silu, [TOKENS], []),
    ("gelu", "1024x2240", F.gelu, [TOKENS], []),
    ("gelu tanh", "1024x2240", gelu_tanh, [TOKENS], []),
    ("relu6", "1024x2240", F.relu6, [TOKENS], []),
    ("glu", "1024x11200", glu, [(1, 1024, 11200)], []),
    ("add", "1024x2240", torch.add, [TOKENS] * 2, []),
    ("modulate", "1024x2240", modulate, [TOKENS, (1, 1, 2240), (1, 1, 2240)], []),
    ("add gated", "1024x2240", add_gated, [TOKENS, (1, 1, 2240), TOKENS], []),
    ("rope", "8x256, 300", rope, [(1, 300, 2048), (300, 256), (300, 256)], []),
    ("bilinear x2", "64x64x128", bilinear, [(1, 128, 64, 64)], []),
    ("cast", "1024x2240", cast, [TOKENS], []),
    ("permute", "1024x2240 turned", swap_axes, [TOKENS], []),
    ("permute", "1024x20x112 to heads", swap_axes, [(1, 1024, 20, 112)], []),
]


# Half precision of these goes through PyTorch's reference path where the CPU has no instructions for it, at 0.3 GFLOP/s:
# {"skip": true} says that it does not take part.
LARGE = ("256x256x128 to 128", "128x128x256 to 256", "64x64x512 to 512")

WIDTHS = (1152, 1536, 2240, 5600, 8960)
GRID = [
    ("linear grid", f"{m}x{k}x{n}", F.linear, [(m, k)], [(n, k), (n,)])
    for m in (1, 77, 1024, 4096) for k in WIDTHS for n in WIDTHS
]  # fmt: skip


def serve(run, **case) -> None:
    run()
    print(json.dumps(case), flush=True)
    while sys.stdin.readline() == "run\n":
        before = time.perf_counter()
        run()
        print(time.perf_counter() - before, flush=True)


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]))
    torch.manual_seed(0)
    wanted = sys.argv[2:]
    for op, shape, run, inputs, parameters in GRID if "linear grid" in wanted else BENCHES:
        if wanted and op not in wanted:
            continue
        for name in (*DTYPES, *(["fp8"] if run is F.linear else [])):
            dtype = DTYPES.get(name, torch.bfloat16)
            if shape in LARGE and name != "fp32":
                print(json.dumps({"op": op, "dtype": name, "shape": shape, "skip": True}), flush=True)
                sys.stdin.readline()
                continue
            x = [(torch.rand(s) * 2 - 1).to(dtype) for s in inputs]
            p = [(torch.rand(s) * 2 - 1).to(dtype) for s in parameters]
            if name == "fp8":
                p = [t.to(torch.float8_e4m3fn) for t in p]
                serve(lambda: run(*x, *(t.to(dtype) for t in p)), op=op, dtype=name, shape=shape)
            else:
                serve(lambda: run(*x, *p), op=op, dtype=name, shape=shape)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
