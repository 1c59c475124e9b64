"""Which kinds of devices are told apart: those that may choose other kernels."""

from types import SimpleNamespace

import pytest
import torch

from gzscale.models import device as models_device
from gzscale.night.compute import compute_kind

H200 = {"name": "NVIDIA H200", "major": 9, "minor": 0, "multi_processor_count": 132}


@pytest.fixture
def gpu(monkeypatch):
    """Stand in for a GPU, CUDA and cuDNN."""
    about = SimpleNamespace(**H200, cuda="13.0", cudnn=91002)
    monkeypatch.setattr(models_device, "choose_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(models_device, "has_native_bfloat16", lambda device: about.major >= 8)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: about)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: about.cudnn)
    monkeypatch.setattr(torch, "version", about)
    return about


def test_a_gpu_is_told_by_all_that_chooses_its_kernels(gpu):
    first = compute_kind()
    assert first == "cuda bfloat16 NVIDIA H200 sm_90 132 multiprocessors CUDA 13.0 cuDNN 91002"
    others = set()
    for name, value in [
        ("name", "NVIDIA H100"),
        ("minor", 1),
        ("multi_processor_count", 60),
        ("cuda", "12.8"),
        ("cudnn", 91300),
    ]:
        before = getattr(gpu, name)
        setattr(gpu, name, value)
        others.add(compute_kind())
        setattr(gpu, name, before)
    assert len(others) == 5
    assert first not in others
    # As the check of workers that are to have a GPU asks.
    assert all(kind.startswith("cuda") for kind in others)


def test_a_cpu_is_told_by_its_precision_alone(monkeypatch):
    monkeypatch.setattr(models_device, "choose_device", lambda: torch.device("cpu"))
    for native, kind in ((True, "cpu bfloat16"), (False, "cpu float32")):
        monkeypatch.setattr(models_device, "has_native_bfloat16", lambda device, native=native: native)
        assert compute_kind() == kind
