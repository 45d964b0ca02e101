"""The two pipelines. Their arguments are some of the real ones'."""

import types

from torch import Tensor

from diffusers.pipelines.pipeline_utils import DiffusionPipeline


class SanaPipeline(DiffusionPipeline):
    def __call__(self, prompt=None, negative_prompt="", num_inference_steps=20, guidance_scale=4.5,
                 height=1024, width=1024, generator=None, output_type="pil", callback_on_step_end=None,
                 complex_human_instruction=("say more",)):  # fmt: skip
        decoded = self.run(locals())
        image = Tensor(decoded.values * 3, (1, 3, 2, 2), decoded.dtype, decoded.device)
        return types.SimpleNamespace(images=image)

    def encode_prompt(self, prompt, negative, guided):
        found = self.embed(negative) if guided else None
        return self.embed(prompt), "mask", found, "mask" if guided else None


class WanVACEPipeline(DiffusionPipeline):
    def __call__(self, prompt=None, negative_prompt=None, video=None, mask=None, reference_images=None,
                 conditioning_scale=1.0, num_frames=81, num_inference_steps=50, guidance_scale=5.0,
                 generator=None, output_type="np", callback_on_step_end=None):  # fmt: skip
        decoded = self.run(locals())
        values = [v + frame for frame in range(num_frames) for v in decoded.values * 3]
        frames = Tensor(values, (num_frames, 3, 2, 2), decoded.dtype, decoded.device)
        return types.SimpleNamespace(frames=[frames])

    def encode_prompt(self, prompt, negative, guided):
        return self.embed(prompt), self.embed(negative or "") if guided else None
