"""Clusters of this machine, processes alone or with its GPUs, and schedulers that run already."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from gzscale.clusters.presets import AddressPreset, CudaPreset, LocalPreset
from gzscale.clusters.workers import CUT, KINDS, PREDICT, Workers, missing_extra
from gzscale.errors import ClusterError

__all__ = ["make_cuda", "make_local", "reach_address"]

#: One task at a time, no web page, no chatter between the lines of the night's progress.
_QUIET: dict[str, Any] = {"threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}

_log = logging.getLogger(__name__)
#: The first GPU that a driver has taken.
_A_GPU = Path("/dev/nvidia0")
#: What a process that is to leave the GPUs alone is started with.
_NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
#: Bytes that a worker with a GPU has at least, unless all of these have half of what there is.
PREDICTING = 8 * 2**30


def count_cores() -> int:
    """Return how many cores this process may use; a container's share of them counts, too."""
    from dask.system import cpu_count

    return max(int(cpu_count()), 1)


def make_local(preset: LocalPreset) -> Workers:
    """Start one process a core, each for both kinds of work.

    Several see no GPU: each would have a context, graphs and buffers of its own on the first one.
    """
    import dask
    from distributed import LocalCluster

    number = preset.workers or count_cores()
    if number > 1 and _A_GPU.exists():
        _log.warning("cluster local: %d processes leave the GPU alone; --cluster cuda works on it", number)
    with dask.config.set({"distributed.worker.multiprocessing-method": "spawn"}):
        return Workers(
            LocalCluster(
                n_workers=number,
                env=_NO_GPU if number > 1 else {},
                resources=dict.fromkeys(KINDS, 1),
                memory_limit=preset.memory,
                local_directory=preset.scratch,
                **_QUIET,
            )
        )


def make_cuda(preset: CudaPreset) -> Workers:
    """Start one dask-cuda worker a GPU that predicts, and on the other cores workers that cut.

    Raises
    ------
    ClusterError
        If dask-cuda is not installed, or there is no GPU or no driver.
    """
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError as error:
        raise missing_extra("cuda", "gpu", error) from error
    from distributed import Nanny
    from distributed.system import MEMORY_LIMIT

    try:
        gpus = len(preset.gpus) if preset.gpus else _count_gpus()
        number = preset.cut_workers or max(count_cores() - gpus, 1)
        # By itself dask-cuda's workers share the whole memory, as if no others were there.
        predicting, cutting = share_memory(MEMORY_LIMIT, gpus, number)
        cluster = LocalCUDACluster(
            CUDA_VISIBLE_DEVICES=preset.gpus,
            resources={PREDICT: 1},
            memory_limit=predicting,
            local_directory=preset.scratch,
            **_QUIET,
        )
    except Exception as error:
        raise ClusterError(
            f"cluster cuda: {type(error).__name__}: {error}; is there a GPU, and its driver? "
            "`gzscale doctor` tells, and --cluster local needs none"
        ) from error
    options = {
        "nthreads": 1,
        "resources": {CUT: 1},
        "memory_limit": cutting,
        "local_directory": preset.scratch,
        "dashboard": False,
        "silence_logs": 50,
        # What cuts sees no GPU: a context of its own would take the device's memory.
        "env": _NO_GPU,
    }
    for place in range(number):
        cluster.worker_spec[f"cut-{place}"] = {"cls": Nanny, "options": options}
    cluster.scale(len(cluster.worker_spec))
    return Workers(cluster)


def share_memory(limit: int, gpus: int, cutters: int) -> tuple[int, int]:
    """Part some bytes among the workers that predict and those that cut; return what one of each has.

    All have the same, unless one that predicts has too little then for its networks and CUDA's libraries.
    """
    share = limit // (gpus + cutters)
    predicting = max(share, min(PREDICTING, limit // (2 * gpus)))
    return predicting, (limit - gpus * predicting) // cutters


def _count_gpus() -> int:
    """Return how many GPUs dask-cuda uses where none are named."""
    from dask_cuda.utils import get_n_gpus

    number: int = get_n_gpus()
    return number


def reach_address(preset: AddressPreset) -> Workers:
    """Use a scheduler that runs already, over TLS where its address says so."""
    if not preset.address.startswith("tls://"):
        return Workers(preset.address)
    from distributed import Security

    security = Security(
        require_encryption=True,
        tls_ca_file=preset.ca_file,
        tls_client_cert=preset.certificate,
        tls_client_key=preset.key,
    )
    return Workers(preset.address, security)
