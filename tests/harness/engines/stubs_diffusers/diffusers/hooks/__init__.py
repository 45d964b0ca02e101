"""Layerwise casting, if this release has it."""

from stub_state import STUB, log

if "hooks" in STUB.get("lacks", ()):
    raise ModuleNotFoundError("No module named 'diffusers.hooks'")


def apply_layerwise_casting(model, storage_dtype, compute_dtype, skip_modules_pattern=None):
    log("apply_layerwise_casting", model=type(model).__name__, storage=str(storage_dtype),
        compute=str(compute_dtype), skip=skip_modules_pattern)  # fmt: skip
