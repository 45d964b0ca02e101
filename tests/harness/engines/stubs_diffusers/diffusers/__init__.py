"""Pipelines are imported when they are first asked for."""

import importlib

from stub_state import STUB, version

__version__ = version("diffusers", "0.42.1")


def __getattr__(name):
    if name not in ("SanaPipeline", "WanVACEPipeline") or name in STUB.get("lacks", ()):
        raise AttributeError(f"module diffusers has no attribute {name}")
    if name in STUB.get("broken", {}):
        raise RuntimeError(STUB["broken"][name])
    return getattr(importlib.import_module("diffusers.pipelines.both"), name)
