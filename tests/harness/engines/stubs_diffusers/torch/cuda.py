"""A card that is there when STUB says so."""

from stub_state import STUB, log


def is_available():
    return bool(STUB.get("cuda"))


def get_device_name(_index):
    return "Stub 9000"


def reset_peak_memory_stats(device):
    log("reset_peak_memory_stats", device=device)


def max_memory_allocated(device):
    return {"cuda": 111}[device]


def max_memory_reserved(device):
    return {"cuda": 222}[device]


def synchronize(device):
    log("synchronize", device=device)


def empty_cache():
    log("empty_cache")
