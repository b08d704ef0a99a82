"""Which arithmetic a device is fast in."""

import contextlib

import torch

from nnood.errors import UserError


def has_native_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AVX512-BF16 or AMX), not by emulation."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, lambda: False)()) for name in checks)


def autocast_for(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """bfloat16 autocast on CPUs that have it; nothing elsewhere, since nnU-Net's own code casts on GPUs."""
    if device.type == "cpu" and has_native_bfloat16():
        return torch.autocast("cpu", dtype=torch.bfloat16)
    return contextlib.nullcontext()


def fastest_device() -> torch.device:
    """The first there is of cuda, mps and cpu."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_device(name: str | torch.device) -> torch.device:
    """Turn `auto` (the fastest), `cpu`, `cuda`, `cuda:1` or `mps` into a device; a device stays what it is.

    Raises:
        UserError: If the name is unknown or the device is not there.
    """
    if isinstance(name, torch.device):
        return name
    if name == "auto":
        return fastest_device()
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"There is no device {name!r}; use auto, cpu, cuda or mps.") from None
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    absent = device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    if absent or not there.get(device.type, False):
        raise UserError(f"There is no device {name!r} on this machine; use auto or cpu.")
    return device
