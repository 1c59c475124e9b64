"""On what kind of device and in which precision a process predicts: results depend on it."""

from __future__ import annotations

__all__ = ["compute_kind"]


def compute_kind() -> str:
    """Return device and precision of this process's predictions, ``cuda bfloat16`` for example.

    Two kinds give outputs that differ in their last digits, so that one release is of one kind.
    """
    from gzscale.models.engine import choose_device, has_native_bfloat16

    device = choose_device()
    return f"{device.type} {'bfloat16' if has_native_bfloat16(device) else 'float32'}"
