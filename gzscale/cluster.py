"""The only module that makes a Dask cluster: local, cuda, slurm, kubernetes, or an address.

Every worker that is made here runs one task at a time and offers both resources,
``CUT`` and ``PREDICT``. Workers that a site starts itself may offer one of them alone
(GPUs ``PREDICT``, the others ``CUT``), so that a GPU predicts one partition while
cores cut the next.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from gzscale.errors import ClusterError

__all__ = ["count_slots", "open_cluster"]

#: Seconds to wait for the first worker.
START_TIMEOUT = 180
_BOTH = {"CUT": 1, "PREDICT": 1}


@contextmanager
def open_cluster(name: str) -> Iterator[Any]:
    """Make or reach a cluster, and close what was made.

    Parameters
    ----------
    name
        ``local``, ``cuda``; the address of a scheduler (``tcp://...``, ``tls://...``);
        or the path of a preset: a YAML file with ``kind`` (one of local, cuda, slurm,
        kubernetes, address) and ``options`` for it.

    Yields
    ------
    distributed.Client

    Raises
    ------
    ClusterError
        If the name means nothing, an extra is not installed, or no worker came up in time.
    """
    from distributed import Client

    _quieten()
    kind, options = _preset(name)
    cluster = _MAKERS[kind](options)
    try:
        client = Client(cluster, set_as_default=False, timeout=f"{START_TIMEOUT}s")
    except OSError as error:
        raise ClusterError(
            f"cluster {name!r}: no scheduler answers at {cluster} within {START_TIMEOUT} s ({error}); "
            "check the address, and that the scheduler runs"
        ) from error
    try:
        _wait(client, name)
        yield client
    finally:
        client.close()
        if hasattr(cluster, "close"):
            cluster.close()


def count_slots(client: Any) -> int:
    """Return how many partitions the cluster's workers can cut at a time.

    Raises
    ------
    ClusterError
        If no worker offers both kinds of work.
    """
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    slots = {
        kind: sum(int(worker["resources"].get(kind, 0)) for worker in workers) for kind in ("CUT", "PREDICT")
    }
    if not all(slots.values()):
        raise ClusterError(
            f"workers offer {slots}, and a night needs both; "
            'start them with `dask worker ... --resources "CUT=1 PREDICT=1"`'
        )
    return slots["CUT"]


def _preset(name: str) -> tuple[str, dict[str, Any]]:
    if name in {"local", "cuda"}:
        return name, {}
    if name.startswith(("tcp://", "tls://", "ucx://", "ws://", "wss://")):
        return "address", {"address": name}
    path = Path(name)
    if path.suffix in {".yaml", ".yml"} and path.is_file():
        preset = yaml.safe_load(path.read_text())
        if isinstance(preset, dict) and preset.get("kind") in _MAKERS and set(preset) <= {"kind", "options"}:
            return preset["kind"], preset.get("options") or {}
        raise ClusterError(f"{name}: expected `kind` (one of {sorted(_MAKERS)}) and `options`, nothing else")
    raise ClusterError(f"cluster {name!r}: expected local, cuda, a scheduler's address, or a preset's path")


def _quieten() -> None:
    """Keep the scheduler's and the nannies' chatter out of the night's progress."""
    for logger in [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]:
        logging.getLogger(logger).setLevel(logging.CRITICAL)


def _wait(client: Any, name: str) -> None:
    from distributed import TimeoutError as DistributedTimeoutError

    try:
        client.wait_for_workers(1, timeout=START_TIMEOUT)
    except (DistributedTimeoutError, TimeoutError) as error:
        raise ClusterError(
            f"cluster {name!r}: no worker came up in {START_TIMEOUT} s; look at the queue of the batch "
            "system, or at the workers' logs"
        ) from error


def _local(options: dict[str, Any]) -> Any:
    import dask
    from distributed import LocalCluster

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    settings: dict[str, Any] = {
        "n_workers": cores,
        "threads_per_worker": 1,
        "resources": _BOTH,
        "dashboard_address": None,
        "silence_logs": 50,
    }
    with dask.config.set({"distributed.worker.multiprocessing-method": "spawn"}):
        return LocalCluster(**{**settings, **options})


def _cuda(options: dict[str, Any]) -> Any:
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError as error:
        raise ClusterError(f"cluster cuda: {error}; install gzscale[gpu]") from error
    try:
        return LocalCUDACluster(**{"resources": _BOTH, "dashboard_address": None, **options})
    except Exception as error:
        raise ClusterError(
            f"cluster cuda: {type(error).__name__}: {error}; is there a GPU, and its driver? "
            "`gzscale doctor` tells, and --cluster local needs none"
        ) from error


def _slurm(options: dict[str, Any]) -> Any:
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise ClusterError(f"cluster slurm: {error}; install gzscale[slurm]") from error
    jobs = int(options.pop("jobs", 1))
    extra = [*options.pop("worker_extra_args", []), "--resources", "CUT=1 PREDICT=1"]
    # One process a core: a worker cuts one partition at a time.
    cores = int(options.setdefault("cores", 1))
    cluster = SLURMCluster(**{"processes": cores, "worker_extra_args": extra, **options})
    cluster.scale(jobs=jobs)
    return cluster


def _kubernetes(options: dict[str, Any]) -> Any:
    try:
        from dask_kubernetes.operator import KubeCluster
    except ImportError as error:
        raise ClusterError(f"cluster kubernetes: {error}; install gzscale[kubernetes]") from error
    command = ["dask", "worker", "--resources", "CUT=1 PREDICT=1"]
    return KubeCluster(**{"worker_command": command, **options})


def _address(options: dict[str, Any]) -> Any:
    return options["address"]


_MAKERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "local": _local,
    "cuda": _cuda,
    "slurm": _slurm,
    "kubernetes": _kubernetes,
    "address": _address,
}
