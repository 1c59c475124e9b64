"""While one partition is predicted on a GPU, its worker reads the next ones and writes the last.

Whose turn it is on the GPU, `gzscale.models.device.device_turn` says.
"""

from __future__ import annotations

import threading

from gzscale.clusters.workers import CUT, PREDICT

__all__ = ["IN_HAND", "let_next_in"]

#: Partitions that a worker of a GPU has in hand: one is predicted and one written at most, and since
#: reading one takes longest, two are read. Each is in memory.
IN_HAND = 4

_thread = threading.local()


def let_next_in() -> None:
    """Let the worker of this Dask task begin the next one beside it, up to `IN_HAND`; for workers of a GPU.

    Without a GPU the cores are busy as it is, and a worker holds one partition at a time; so does one that
    cuts as well. Outside of a worker nothing is done.
    """
    from distributed import get_worker, secede

    try:
        worker = get_worker()
    except ValueError:
        return
    if CUT in worker.state.total_resources or getattr(_thread, "has_let", False):
        return
    if worker.state.total_resources.get(PREDICT, IN_HAND) < IN_HAND:
        # A task that left its thread to the next keeps its share of the worker's resources.
        worker.loop.add_callback(worker.set_resources, **{PREDICT: IN_HAND})
    secede()
    # The thread ends with its task.
    _thread.has_let = True
