"""On what kind of device and in which precision a process predicts: results depend on it."""

from __future__ import annotations

__all__ = ["compute_kind"]


def compute_kind() -> str:
    """Return precision and kind of device of this process's predictions.

    Two kinds give outputs that differ in their last digits, so that one release is of one kind.

    Returns
    -------
    str
        ``cpu float32`` for example, and of a GPU all by which kernels are chosen as well: its name, compute
        capability and number of multiprocessors (a part of a GPU has fewer), and the versions of CUDA (its
        cuBLAS and its compilers come with it) and cuDNN, as in
        ``cuda bfloat16 NVIDIA H200 sm_90 132 multiprocessors CUDA 13.0 cuDNN 91002``.
    """
    import torch

    from gzscale.models.device import choose_device, has_native_bfloat16

    device = choose_device()
    kind = f"{device.type} {'bfloat16' if has_native_bfloat16(device) else 'float32'}"
    if device.type != "cuda":
        return kind
    about = torch.cuda.get_device_properties(device)
    return (
        f"{kind} {about.name} sm_{about.major}{about.minor} {about.multi_processor_count} multiprocessors "
        f"CUDA {torch.version.cuda} cuDNN {torch.backends.cudnn.version()}"
    )
