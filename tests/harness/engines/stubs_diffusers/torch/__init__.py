"""As much of torch as diffusers_worker.py and the stubs of the libraries touch. A Tensor is a flat list with
a shape, and its values are rounded to fp32 only."""

import array
import math
import struct
import time
import types
import warnings

from stub_state import STUB, log
from stub_state import version as version_of_stub

from . import cuda  # noqa: F401

__version__ = version_of_stub("torch", "2.99.0")
version = types.SimpleNamespace(cuda="13.0" if STUB.get("cuda") else None)
backends = types.SimpleNamespace(
    cpu=types.SimpleNamespace(get_cpu_capability=lambda: "STUB2"),
    mkldnn=types.SimpleNamespace(is_available=lambda: True),
)


class dtype:
    __slots__ = ("name", "size")

    def __init__(self, name, size):
        self.name, self.size = name, size

    def __repr__(self):
        return f"torch.{self.name}"


float32, float16, bfloat16 = dtype("float32", 4), dtype("float16", 2), dtype("bfloat16", 2)
float8_e4m3fn, float8_e5m2, int64 = dtype("float8_e4m3fn", 1), dtype("float8_e5m2", 1), dtype("int64", 8)


class OutOfMemoryError(RuntimeError):
    pass


class Tensor:
    def __init__(self, values, shape, dtype=float32, device="cpu"):
        self.values, self.shape, self.dtype, self.device = list(values), tuple(shape), dtype, device
        assert len(self.values) == math.prod(self.shape)

    def like(self, values):
        return Tensor(values, self.shape, self.dtype, self.device)

    @property
    def data(self):
        return self

    @data.setter
    def data(self, other):
        self.values, self.dtype, self.device = other.values, other.dtype, other.device

    def to(self, *wanted, copy=False):
        kind = next((w for w in wanted if isinstance(w, dtype)), self.dtype)
        device = next((w for w in wanted if isinstance(w, str)), self.device)
        same = (kind, device) == (self.dtype, self.device)
        return self if same and not copy else Tensor(self.values, self.shape, kind, device)

    def detach(self):
        return self

    contiguous = detach

    def float(self):
        return self.to(float32)

    def numpy(self):
        assert self.dtype is float32 and self.device == "cpu", (self.dtype, self.device)
        time.sleep(STUB.get("slow", 0))
        return array.array("f", self.values)

    def numel(self):
        return len(self.values)

    def element_size(self):
        return self.dtype.size

    def is_floating_point(self):
        return self.dtype is not int64

    def isnan(self):
        return self.like(map(math.isnan, self.values))

    def isinf(self):
        return self.like(map(math.isinf, self.values))

    def all(self):
        return all(self.values)

    def sum(self):
        return sum(self.values)

    def __add__(self, other):
        assert self.device == other.device
        return self.like(a + b for a, b in zip(self.values, other.values))


class Generator:
    def __init__(self, device):
        self.device, self.seed = device, None

    def manual_seed(self, seed):
        self.seed = seed
        return self


def set_num_threads(count):
    log("set_num_threads", count=count)


def isfinite(tensor):
    return tensor.like(map(math.isfinite, tensor.values))


def cat(tensors):
    shape = (sum(t.shape[0] for t in tensors), *tensors[0].shape[1:])
    return Tensor([v for t in tensors for v in t.values], shape, tensors[0].dtype, tensors[0].device)


def full_like(tensor, value):
    return tensor.like([value] * tensor.numel())


def nextafter(tensor, other):
    assert (tensor.dtype, tensor.device) == (float32, "cpu") and all(v > 0 for v in tensor.values)
    (bits,) = {1 if towards > 0 else -1 for towards in other.values}

    def neighbour(value):
        (pattern,) = struct.unpack("<i", struct.pack("<f", value))
        return struct.unpack("<f", struct.pack("<i", pattern + bits))[0]

    return tensor.like(map(neighbour, tensor.values))


def kernel(module, tensor):
    """What a module calls: it fails, or spoils its values, where the checkpoint says so."""
    assert tensor.device == module.weight.device
    warnings.warn("torch warns of itself", UserWarning)
    fault = module.fault
    if fault.get("in") == module.path:
        module.calls += 1
        if "kind" in fault and module.calls > fault.get("at", 0):
            kind = globals().get(fault["kind"]) or getattr(__import__("builtins"), fault["kind"])
            raise kind(fault["text"])
        if "values" in fault:
            values = [float(value) for value in fault["values"]]
            return tensor.like(values + tensor.values[len(values) :])
    return tensor.to(module.weight.dtype)
