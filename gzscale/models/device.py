"""What there is to compute on."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Iterator
from typing import TypeVar

import torch

from gzscale.errors import GzscaleError

__all__ = ["choose_device", "device_turn", "has_native_bfloat16", "held", "is_out_of_memory"]

#: What the driver, cuDNN and cuBLAS say where there is no memory; torch has a type for it.
_FULL = ("out of memory", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED")

_T = TypeVar("_T")

_turn = threading.RLock()


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that a GPU's memory is full, whoever says it; the GPU is not broken."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    told = str(error)
    return (
        isinstance(error, RuntimeError)
        and not isinstance(error, GzscaleError)
        and any(word in told for word in _FULL)
    )


def device_turn(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Have a GPU for oneself, of all threads of the process; a thread that has it may take it again.

    What is asked of it is asked in one's turn, so that it is done in one piece: the memory that graphs read
    and write is shared. It need not be waited for then. A CPU is everybody's.
    """
    return _turn if device.type == "cuda" else contextlib.nullcontext()


@contextlib.contextmanager
def held(lock: contextlib.AbstractContextManager[_T], seconds: dict[str, float]) -> Iterator[_T]:
    """Hold a lock, and add to ``wait`` of some seconds how long it was waited for."""
    start = time.perf_counter()
    with lock as had:
        seconds["wait"] = seconds.get("wait", 0.0) + time.perf_counter() - start
        yield had


def choose_device() -> torch.device:
    """Return the GPU if there is one that works, be its memory full or not, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    try:
        _try_gpu()
    except RuntimeError as error:  # a driver too old, or a GPU of another process
        # Not even the driver's own part of it may fit.
        if not is_out_of_memory(error):
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
