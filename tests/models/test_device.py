"""Which device is chosen, a GPU that works, though its memory be full; and whose turn it is there."""

import threading

import pytest
import torch

from gzscale.errors import WorkerError
from gzscale.models import device
from gzscale.models.device import choose_device, device_turn, is_out_of_memory

# As torch 2.11 to 2.13, the driver, cuDNN and cuBLAS word them.
FULL = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB"),
    torch.AcceleratorError("CUDA error: out of memory"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]
NOT_FULL = [
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:116] DefaultCPUAllocator: can't allocate memory"),
    WorkerError("GPU memory does not hold a batch (CUDA out of memory)"),
    ValueError("out of memory"),
]


@pytest.mark.parametrize("error", FULL + NOT_FULL, ids=lambda error: str(error)[:30])
def test_a_full_gpu_is_known_whoever_tells(error):
    assert is_out_of_memory(error) == (error in FULL)


@pytest.fixture
def gpu(monkeypatch):
    """Stand in for a GPU: what it raises, and how often it was tried."""
    errors, tried = [], []
    zeros = torch.zeros

    def on_gpu(*shape, device):
        tried.append(device)
        if errors:
            raise errors[0]
        return zeros(*shape)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "zeros", on_gpu)
    device._try_gpu.cache_clear()
    yield errors, tried
    device._try_gpu.cache_clear()


@pytest.mark.parametrize(
    ("error", "chosen"),
    [
        (RuntimeError("CUDA error: no kernel image is available"), "cpu"),
        (RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable"), "cpu"),
        (RuntimeError("CUDA error: out of memory"), "cuda"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB"), "cuda"),
    ],
)
def test_a_gpu_that_does_not_work_is_not_chosen_and_one_that_is_full_is(gpu, error, chosen):
    errors, tried = gpu
    errors.append(error)
    assert choose_device().type == chosen
    errors.clear()
    # It is asked again, until it works.
    for _ in range(3):
        assert choose_device().type == "cuda"
    assert tried == ["cuda", "cuda"]


def test_without_a_gpu_none_is_chosen(gpu, monkeypatch):
    choose_device()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device().type == "cpu"


@pytest.mark.parametrize(("kind", "together"), [("cuda", False), ("cpu", True)])
def test_a_gpu_is_one_threads_and_a_cpu_everybodys(kind, together):
    here, entered = torch.device(kind), threading.Event()

    def enter():
        with device_turn(here):
            entered.set()

    other = threading.Thread(target=enter)
    # Whoever has it may take it again.
    with device_turn(here), device_turn(here):
        other.start()
        assert entered.wait(60 if together else 0.1) == together
    other.join(60)
    assert entered.is_set()
