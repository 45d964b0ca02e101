"""Writes down the signatures of the real diffsynth, from which the stub takes its own.

    PYTHONPATH=... python3 record_signatures.py > stubs/diffsynth/signatures.json
"""

import importlib.metadata
import inspect
import json


def parameters(function) -> list:
    """Name, kind and default of each; a default that JSON does not have as its text."""
    rows = []
    for parameter in inspect.signature(function).parameters.values():
        default = parameter.default
        if default is inspect.Parameter.empty:
            rows.append([parameter.name, parameter.kind.name])
        else:
            plain = isinstance(default, (type(None), bool, int, float, str))
            rows.append([parameter.name, parameter.kind.name, default if plain else str(default)])
    return rows


def record() -> dict:
    """All that the adapter calls, and all that calls into the adapter."""
    from diffsynth.diffusion import FlowMatchScheduler
    from diffsynth.diffusion.base_pipeline import PipelineUnitRunner
    from diffsynth.pipelines.wan_video import ModelConfig, WanVideoPipeline

    return {
        "version": importlib.metadata.version("diffsynth"),
        "WanVideoPipeline.__call__": parameters(WanVideoPipeline.__call__),
        "WanVideoPipeline.from_pretrained": parameters(WanVideoPipeline.from_pretrained),
        "WanVideoPipeline.generate_noise": parameters(WanVideoPipeline.generate_noise),
        "ModelConfig.__init__": parameters(ModelConfig.__init__),
        "FlowMatchScheduler.step": parameters(FlowMatchScheduler.step),
        "PipelineUnitRunner.__call__": parameters(PipelineUnitRunner.__call__),
    }


if __name__ == "__main__":
    rows = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in record().items()]
    print("{\n" + ",\n".join(rows) + "\n}")
