"""As much of torch as the DiffSynth adapter and the stub of DiffSynth touch.  Values are rounded to
fp32 only, and a Tensor is a flat list with a shape."""

import array
import math
import struct
import types

__version__ = "0.0.stub"


class dtype:
    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return f"torch.{self.name}"


float32, float16, bfloat16 = dtype("float32"), dtype("float16"), dtype("bfloat16")
float8_e4m3fn, float8_e5m2 = dtype("float8_e4m3fn"), dtype("float8_e5m2")

cpu = types.SimpleNamespace()
cuda = types.SimpleNamespace(is_available=lambda: False)
threads = []


def set_num_threads(count):
    threads.append(count)


class Tensor:
    def __init__(self, values, shape, dtype=float32):
        self.values, self.shape, self.dtype = list(values), tuple(shape), dtype
        assert len(self.values) == math.prod(self.shape)

    def _with(self, values):
        return Tensor(values, self.shape, self.dtype)

    def detach(self):
        return self

    def contiguous(self):
        return self

    def to(self, device=None, dtype=None):
        return Tensor(self.values, self.shape, dtype or self.dtype)

    def float(self):
        return self.to(dtype=float32)

    def numpy(self):
        assert self.dtype is float32, f"numpy has no {self.dtype}"
        return array.array("f", self.values)

    def numel(self):
        return len(self.values)

    def element_size(self):
        return 4

    def is_floating_point(self):
        return True

    def __getitem__(self, index):
        size = len(self.values) // self.shape[0]
        return Tensor(self.values[index * size :][:size], self.shape[1:], self.dtype)

    def transpose(self, first, second):
        assert (first, second) == (0, 1)
        a, b = self.shape[:2]
        rows = [self[i][j].values for j in range(b) for i in range(a)]
        return Tensor([v for row in rows for v in row], (b, a, *self.shape[2:]), self.dtype)

    def __add__(self, number):
        return self._with(v + number for v in self.values)

    def __truediv__(self, number):
        return self._with(v / number for v in self.values)

    def __mul__(self, number):
        return self._with(v * number for v in self.values)

    def clamp(self, low, high):
        return self._with(min(max(v, low), high) for v in self.values)

    def all(self):
        return all(self.values)

    def sum(self):
        return sum(self.values)


def isfinite(tensor):
    return tensor._with(math.isfinite(v) for v in tensor.values)


def isnan(tensor):
    return tensor._with(math.isnan(v) for v in tensor.values)


def isinf(tensor):
    return tensor._with(math.isinf(v) for v in tensor.values)


def cat(tensors):
    shape = (sum(t.shape[0] for t in tensors), *tensors[0].shape[1:])
    return Tensor([v for t in tensors for v in t.values], shape, tensors[0].dtype)


def full_like(tensor, value):
    return tensor._with([value] * tensor.numel())


def nextafter(tensor, other):
    assert tensor.dtype is float32 and all(v == math.inf for v in other.values)

    def up(value):
        (bits,) = struct.unpack("<i", struct.pack("<f", value))
        return struct.unpack("<f", struct.pack("<i", bits + 1 if bits >= 0 else bits - 1))[0]

    return tensor._with(up(v) for v in tensor.values)
