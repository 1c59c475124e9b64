"""What a worker runs of a partition."""

import subprocess
import sys

import pytest
import torch
from distributed import Client, LocalCluster

from gzscale.errors import WorkerError
from gzscale.memory import _malloc_trim
from gzscale.night.station import is_device_error, run_stage

# In a process of its own: that of other tests may have room enough for all pieces.
_STAGE = """
import numpy as np, psutil
from gzscale.night.station import run_stage

process = psutil.Process()
before, during, last = process.memory_info().rss, [], []

def stage():
    # Pieces small enough for the heap, and one after them that keeps the heap from shrinking.
    pieces = [np.ones(8_000) for _ in range(4_000)]
    last.append(np.ones(8_000))
    pieces.clear()
    during.append(process.memory_info().rss)
    return "done"

assert run_stage(stage) == "done"
print(during[0] - before, process.memory_info().rss - before)
"""


@pytest.mark.skipif(_malloc_trim() is None, reason="this C library has no malloc_trim")
def test_memory_that_a_stage_freed_is_given_back():
    done = subprocess.run([sys.executable, "-c", _STAGE], capture_output=True, text=True, check=True)
    during, after = map(int, done.stdout.split())
    assert during > 200e6, "malloc has given it back by itself"
    assert after < 60e6


# As torch 2.9 to 2.13, its compiled code and cuDNN word them.
DEVICE_ERRORS = [
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of"),
    RuntimeError("CUDA error: uncorrectable ECC error encountered\nCUDA kernel errors might be"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("CUDNN_BACKEND_OPERATION: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("CUDA driver error: unspecified launch failure"),
    RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
]
OTHER_ERRORS = [
    RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:116] DefaultCPUAllocator: can't allocate memory"),
    NotImplementedError("no kernel for it"),
]


@pytest.mark.parametrize("error", DEVICE_ERRORS, ids=lambda error: str(error)[:30])
def test_errors_of_the_device_are_told_from_others(error):
    assert is_device_error(error)


@pytest.mark.parametrize("error", OTHER_ERRORS, ids=lambda error: str(error)[:30])
def test_other_errors_are_not_the_device_s(error):
    assert not is_device_error(error)


def broken_device():
    raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


def full_device():
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def wrong_shape():
    raise OTHER_ERRORS[0]


def other_kind():
    raise WorkerError("this worker predicts on cores")


def test_a_worker_s_own_failure_bears_its_address_and_the_partition_s_does_not():
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        (address,) = client.scheduler_info(n_workers=-1)["workers"]
        device, full, shape, kind = (
            client.submit(run_stage, stage).exception(timeout=60)
            for stage in (broken_device, full_device, wrong_shape, other_kind)
        )
    assert isinstance(device, WorkerError)
    assert device.worker == kind.worker == address
    assert f"worker {address}: its GPU fails (AcceleratorError: CUDA error: an illegal" in str(device)
    assert isinstance(full, WorkerError)
    assert f"worker {address}: its GPU's memory is full (RuntimeError: CUDA error: CUBLAS" in str(full)
    assert str(kind) == "this worker predicts on cores"
    assert type(shape) is RuntimeError
