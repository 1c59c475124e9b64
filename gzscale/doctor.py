"""What works on this machine: Python, GPU, S3, Prefect, extras."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import uuid
from collections.abc import Iterator

from gzscale.errors import GzscaleError
from gzscale.storage import open_storage

__all__ = ["examine"]

_CORE = ("numpy", "astropy", "pyarrow", "zarr", "dask", "distributed", "prefect", "torch", "hats", "s3fs")
_EXTRAS = {
    "gpu": "dask_cuda",
    "slurm": "dask_jobqueue",
    "kubernetes": "dask_kubernetes",
    "rubin": "lsst.daf.butler",
    "sky": "galsim",
}


def examine() -> Iterator[tuple[str, str]]:
    """Yield what was looked at, and what was found, one pair at a time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield "python", f"{platform.python_version()} on {platform.machine()}, {cores} cores"
    yield "packages", ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _CORE)
    yield "device", _device()
    yield "scratch", _scratch()
    yield "s3", _s3()
    yield "prefect", _prefect()
    for extra, module in _EXTRAS.items():
        found = _is_there(module)
        yield f"extra {extra}", "installed" if found else f"not installed: pip install 'gzscale[{extra}]'"


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _device() -> str:
    import torch

    from gzscale.models.engine import choose_device

    device = choose_device()
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{device}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    return f"{device}: no usable GPU (torch {torch.__version__}, built for CUDA {torch.version.cuda})"


def _scratch() -> str:
    usage = shutil.disk_usage(os.environ.get("TMPDIR", "/tmp"))
    return f"{usage.free / 1e9:.0f} GB free of {usage.total / 1e9:.0f} GB"


def _s3() -> str:
    """Put, read and remove one object, where the environment names a place for it."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"
    place = os.environ.get("GZSCALE_DOCTOR_S3")
    if place is None:
        keys = "set" if os.environ.get("AWS_ACCESS_KEY_ID") else "not set"
        return f"endpoint {endpoint}, AWS_ACCESS_KEY_ID {keys}; to try it, set GZSCALE_DOCTOR_S3=s3://bucket"
    storage = open_storage(place)
    key = f"gzscale-doctor-{uuid.uuid4().hex}"
    try:
        first, second = storage.put_new(key, b"1"), storage.put_new(key, b"2")
        storage.delete(key)
    except GzscaleError as error:
        return f"FAILS: {error}"
    if not first or second:
        return f"{place}: FAILS: conditional puts (If-None-Match) are not enforced; nights could not lock"
    return f"{place}: put, conditional put and delete work"


def _prefect() -> str:
    url = os.environ.get("PREFECT_API_URL")
    if url is None:
        return "embedded server (PREFECT_API_URL is not set)"
    try:
        open_storage(url.removesuffix("/")).get("health")
    except GzscaleError as error:
        return f"server {url}: FAILS: {error}"
    return f"server {url}: healthy"
