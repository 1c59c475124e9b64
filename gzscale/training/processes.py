"""The processes of one training: those that torchrun starts, those of a pool, and who may write.

Started by ``torchrun --nproc-per-node=4 --no-python gzscale train ...``, every process takes its share of
each batch, on its own GPU where there are any; the first alone writes. Without torchrun there is one process,
the first.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

from gzscale.errors import ConfigError, LockedError

__all__ = [
    "count_processes",
    "end_with_parent",
    "in_a_pool",
    "is_first",
    "joined",
    "members_at_a_time",
    "own_device",
    "process_rank",
    "share_bytes",
    "share_tensors",
    "sole_writer",
]

#: What torchrun tells each process.
_TOLD = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@contextmanager
def joined() -> Iterator[None]:
    """Join the processes that torchrun started, if it started this one, and leave them at the end.

    Raises
    ------
    ConfigError
        If torchrun started more processes on this machine than it has GPUs.
    """
    if _several() or not distributed.is_available() or not all(name in os.environ for name in _TOLD):
        yield
        return
    if torch.cuda.is_available():
        local, cards = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= cards:
            raise ConfigError(
                f"torchrun started process {local + 1} on a machine with {cards} GPUs; "
                f"start it with --nproc-per-node={cards}"
            )
        torch.cuda.set_device(local)
        distributed.init_process_group("nccl", device_id=torch.device("cuda", local))
    else:
        distributed.init_process_group("gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def process_rank() -> int:
    """Return the number of this process, 0 for the first."""
    return distributed.get_rank() if _several() else 0


def count_processes() -> int:
    """Return how many processes share each batch."""
    return distributed.get_world_size() if _several() else 1


def is_first() -> bool:
    """Return whether this process is the one that writes."""
    return process_rank() == 0


def own_device() -> torch.device:
    """Return the device of this process: its GPU, or the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def share_bytes(data: bytes | None) -> bytes | None:
    """Return what the first process has; what the others give does not count."""
    if count_processes() == 1:
        return data
    device = own_device()
    length = torch.tensor([-1 if data is None else len(data)], device=device)
    distributed.broadcast(length, 0)
    if length.item() < 0:
        return None
    block = torch.empty(int(length.item()), dtype=torch.uint8, device=device)
    if data is not None and is_first():
        block.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    distributed.broadcast(block, 0)
    return block.cpu().numpy().tobytes()


def share_tensors(tensors: Iterable[Tensor]) -> None:
    """Give every process the values of the first, in place; the tensors are on the process's own device."""
    if count_processes() > 1:
        for tensor in tensors:
            distributed.broadcast(tensor, 0)


def end_with_parent() -> None:
    """End this process of a pool as soon as its parent has died; a killed parent cannot end it itself."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel

    def watch() -> None:
        multiprocessing.connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


def members_at_a_time(count: int) -> int:
    """Return how many members of a committee to train at a time, each in a process of its own.

    One on GPUs, and of what several processes train together; else one a core, where threads gain little.
    """
    if torch.cuda.is_available() or count_processes() > 1:
        return 1
    return min(count, len(os.sched_getaffinity(0)))


def in_a_pool(learn: Callable[..., Any], count: int, *common: Any) -> list[Any]:
    """Call ``learn(number, *common)`` for every member in processes, one a core; return what each returns."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(members_at_a_time(count), context, _begin_process) as pool:
        return list(pool.map(learn, range(count), *([item] * count for item in common)))


def _begin_process() -> None:
    end_with_parent()
    torch.set_num_threads(1)


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Keep a folder to this process; the system frees it when the process dies, however that happens.

    Raises
    ------
    LockedError
        If another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockedError(
                f"{folder}: another training is writing there; wait until it ends, or choose another output"
            ) from error
        yield


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized()
