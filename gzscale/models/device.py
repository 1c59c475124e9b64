"""What there is to compute on."""

from __future__ import annotations

import contextlib
import functools
import threading

import torch

__all__ = ["choose_device", "device_turn", "has_native_bfloat16"]


_turn = threading.RLock()


def device_turn(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Have a GPU for oneself, of all threads of the process; a thread that has it may take it again.

    Rings of blocks, and the memory that graphs read and write, are shared. A CPU is everybody's.
    """
    return _turn if device.type == "cuda" else contextlib.nullcontext()


def choose_device() -> torch.device:
    """Return the GPU if there is one that works, be its memory full or not, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    try:
        _try_gpu()
    except torch.OutOfMemoryError:
        pass
    except RuntimeError as error:  # a driver too old, or a GPU of another process
        # That is also what is said when not even the driver's own part of it fits.
        if "out of memory" not in str(error):
            return torch.device("cpu")
    return torch.device("cuda")


@functools.cache
def _try_gpu() -> None:
    """Compute something: once in a process, if it works."""
    torch.zeros(1, device="cuda").add_(1).item()


def has_native_bfloat16(device: torch.device) -> bool:
    """Tell whether the device multiplies bfloat16 in hardware, so that it is faster than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            flags = next((line for line in file if line.startswith("flags")), "").split()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
