"""Turns at a GPU: while one partition is predicted, its worker reads the next and writes the last."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from gzscale.clusters.workers import CUT, PREDICT

__all__ = ["IN_HAND", "device_turn"]

#: Partitions that a worker of a GPU has in hand: one is read, one predicted, one written. Each is in memory.
IN_HAND = 3

_turn = threading.Lock()
_thread = threading.local()


@contextlib.contextmanager
def device_turn(on_gpu: bool) -> Iterator[None]:
    """Have the process's device for oneself.

    Parameters
    ----------
    on_gpu
        Whether the device is a GPU. Then, from the first turn of a Dask task on, its worker may begin the
        next task, up to `IN_HAND`, unless it cuts as well. Without a GPU the cores are busy as it is, and a
        worker holds one partition at a time.
    """
    with _turn:
        if on_gpu:
            _let_next_in()
        yield


def _let_next_in() -> None:
    from distributed import get_worker, secede

    try:
        worker = get_worker()
    except ValueError:  # No task of a worker.
        return
    if CUT in worker.state.total_resources or getattr(_thread, "has_let", False):
        return
    if worker.state.total_resources.get(PREDICT, IN_HAND) < IN_HAND:
        # A task that left its thread to the next keeps its share of the worker's resources.
        worker.loop.add_callback(worker.set_resources, **{PREDICT: IN_HAND})
    secede()
    # The thread ends with its task.
    _thread.has_let = True
