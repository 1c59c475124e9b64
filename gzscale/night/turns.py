"""While one partition is predicted on a GPU, its worker reads the next ones and writes the last.

Whose turn it is on the GPU, `gzscale.models.device.device_turn` says.
"""

from __future__ import annotations

import os
import threading

from gzscale.clusters.workers import CUT, PREDICT

__all__ = ["LEAST", "MOST", "in_hand", "let_next_in"]

#: Partitions that a worker of a GPU has in hand at least: one is predicted and one written, two are read. One
#: core reads some 5,000 cutouts a second and a GPU may want twenty times as many, so that there are as many
#: as cores, up to a number beyond which they would wait for each other.
LEAST, MOST = 4, 16
#: Bytes of memory that a worker's process takes beside them: CUDA's own, bundles, blocks that are filled.
_PROCESS = 4 << 30

_thread = threading.local()


def in_hand(memory: int | None, each: int) -> int:
    """Return how many partitions a worker of a GPU has in hand, by its cores and its memory.

    Parameters
    ----------
    memory
        Bytes that the worker may use; None where nothing limits it.
    each
        Bytes that a partition takes.
    """
    room = MOST if memory is None else (memory - _PROCESS) // each
    return max(LEAST, min(MOST, len(os.sched_getaffinity(0)), room))


def let_next_in(each: int) -> None:
    """Let the worker of this Dask task begin the next one beside it, up to `in_hand`; for workers of a GPU.

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
    most = in_hand(worker.memory_manager.memory_limit, each)
    if worker.state.total_resources.get(PREDICT, most) < most:
        # A task that left its thread to the next keeps its share of the worker's resources.
        worker.loop.add_callback(worker.set_resources, **{PREDICT: most})
    secede()
    # The thread ends with its task.
    _thread.has_let = True
