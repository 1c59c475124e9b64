"""What there is to compute on."""

from __future__ import annotations

import torch

__all__ = ["choose_device", "has_native_bfloat16"]


def choose_device() -> torch.device:
    """Return the GPU if there is one that works, else the CPU."""
    if torch.cuda.is_available():
        try:
            torch.zeros(1, device="cuda").add_(1).item()
            return torch.device("cuda")
        except RuntimeError:  # a driver too old, or a GPU of another process
            return torch.device("cpu")
    return torch.device("cpu")


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
