"""What a worker runs of a partition, and what is told of a worker that fails at it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gzscale.clusters.workers import PREDICT
from gzscale.errors import CredentialsError, GzscaleError, WorkerError
from gzscale.memory import return_freed_memory
from gzscale.night import scratch

if TYPE_CHECKING:
    from gzscale.night.work import Summary

__all__ = [
    "clear_scratch",
    "executing",
    "is_device_error",
    "let_go",
    "run_cut",
    "run_stage",
    "set_allowed_deaths",
]

#: What errors of the device are called, by torch, its compiled code and cuDNN.
_DEVICE_ERRORS = (
    "AcceleratorError",
    "CUDA error",
    "CUDA driver error",
    "CUDA out of memory",
    "cuDNN error",
    "CUDNN_STATUS_ALLOC_FAILED",
    "Triton Error [CUDA]",
)


def run_cut(*arguments: Any, room: scratch.Room) -> Summary:
    """Cut a partition as `run_stage` does, with room for the images that it shares; runs on a worker.

    One that predicts as well loads its bundles first.

    Parameters
    ----------
    arguments
        Of `gzscale.night.work.cut`, but for the last.
    room
        What shared images may take on the host's scratch disk.
    """
    from distributed import get_worker

    from gzscale.night.answering import load_engines
    from gzscale.night.work import cut

    worker = get_worker()
    if PREDICT in worker.state.total_resources:
        # Whatever is wrong with a bundle, or the device, the stages find again, and tell.
        with contextlib.suppress(Exception):
            load_engines(arguments[0])
    return run_stage(cut, *arguments, scratch.join(_host_folder(worker), room))


def clear_scratch(name: str, dask_worker: Any) -> None:
    """Remove a night's shared images from the worker's host; runs on the worker, which Dask fills in."""
    scratch.clear(_host_folder(dask_worker), name)


def _host_folder(worker: Any) -> Path:
    """Return the folder in which each worker of the host has one of its own."""
    return Path(worker.local_directory).parent


def run_stage(stage: Callable[..., Summary], *arguments: Any) -> Summary:
    """Run one stage of a partition; runs on a worker.

    Parameters
    ----------
    stage
        `gzscale.night.work.cut` or `gzscale.night.work.predict`.
    arguments
        Of the stage.

    Raises
    ------
    WorkerError
        If it is the worker that fails and not the partition; with the worker's address.
    CredentialsError
        If storage refuses the worker's.
    """
    from distributed import get_worker

    try:
        return stage(*arguments)
    except WorkerError as error:
        raise WorkerError(str(error), get_worker().address) from error
    except CredentialsError as error:
        raise CredentialsError(f"worker {get_worker().address}: {error}") from error
    except RuntimeError as error:
        if not is_device_error(error):
            raise
        raise _told(error, get_worker().address) from error
    finally:
        return_freed_memory()


def is_device_error(error: RuntimeError) -> bool:
    """Tell whether torch complains of the device: after such an error a process has no use of its GPU."""
    told = f"{type(error).__name__} {error}"
    return not isinstance(error, GzscaleError) and any(word in told for word in _DEVICE_ERRORS)


def _told(error: RuntimeError, address: str) -> WorkerError:
    """Return an error of the device as its worker's: of a full GPU, which is whole, or of one that fails."""
    from gzscale.models.device import is_out_of_memory

    if is_out_of_memory(error):
        what, remedy = (
            "its GPU's memory is full",
            "end what else uses it (nvidia-smi says), or take a larger one",
        )
    else:
        what, remedy = "its GPU fails", "look at nvidia-smi there"
    return WorkerError(f"worker {address}: {what} ({type(error).__name__}: {error}); {remedy}", address)


def executing(dask_scheduler: Any) -> dict[str, tuple[str, float]]:
    """Return key -> worker's address and seconds, of every task that runs; runs on the scheduler."""
    return {
        task.key: (worker.address, seconds)
        for worker in dask_scheduler.workers.values()
        for task, seconds in worker.executing.items()
    }


async def let_go(dask_scheduler: Any, worker: str) -> None:
    """Let a worker go, with what it holds where no other can take it; runs on the scheduler."""
    await dask_scheduler.retire_workers(workers=[worker], close_workers=True)
    await dask_scheduler.remove_worker(worker, expected=True, stimulus_id=f"let-go-{worker}")


def set_allowed_deaths(dask_scheduler: Any, deaths: int) -> None:
    """Set how many workers may die with a task in hand before it counts as lost; runs on the scheduler."""
    dask_scheduler.allowed_failures = deaths
