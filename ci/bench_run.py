#!/usr/bin/env python3
"""Times one whole generation with real Diffusers, as `mpbench run` times the native one.

bench_run.py CHECKPOINT DTYPE HEIGHT WIDTH STEPS REPEATS THREADS -> one JSON line with the seconds of each
repeat (pipeline call alone: loading and imports are outside, as they are on the native side).
"""

import json
import sys
import time

import torch
from diffusers import SanaPipeline


def main() -> None:
    checkpoint, dtype, height, width, steps, repeats, threads = sys.argv[1:8]
    torch.set_num_threads(int(threads))
    names = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    pipe = SanaPipeline.from_pretrained(checkpoint, torch_dtype=names[dtype])
    pipe.set_progress_bar_config(disable=True)
    seconds = []
    for _ in range(int(repeats) + 1):
        start = time.perf_counter()
        pipe(
            "a photo of a red fox",
            height=int(height),
            width=int(width),
            num_inference_steps=int(steps),
            guidance_scale=4.5,
            generator=torch.Generator("cpu").manual_seed(7),
            use_resolution_binning=False,
            output_type="pt",
        )
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"dtype": dtype, "seconds": seconds[1:]}))  # the first one warms up


if __name__ == "__main__":
    main()
