"""A thread that keeps a cluster at the size that its work asks for, and starts again what was lost."""

from __future__ import annotations

import logging
import math
import threading
from typing import Any

from gzscale.clusters.workers import KINDS, Limits, Workers

__all__ = ["Keeper", "wanted"]

#: Seconds between two looks.
INTERVAL = 10.0
#: Looks in a row that ask for fewer workers before some are let go.
PATIENCE = 6
#: Tasks that keep a worker busy which may have several.
_BUSY = 2

_log = logging.getLogger(__name__)


def wanted(tasks: int, limits: Limits) -> int:
    """Return how many jobs or pods a number of unfinished tasks asks for.

    Parameters
    ----------
    tasks
        See `count_tasks`.
    limits
        Of that kind.
    """
    return max(limits.minimum, min(limits.maximum, math.ceil(tasks / limits.workers)))


def count_tasks(dask_scheduler: Any) -> dict[str, int]:
    """Count what workers of each kind could have in hand, by their tasks that could run or are running.

    A worker of a GPU has several at a time: one is computed with and another filled, which asks for no second
    worker; what waits beside these does, for the air holds no more than a few for each worker that cuts. Runs
    on the scheduler.
    """
    counts = dict.fromkeys(KINDS, 0)
    for task in dask_scheduler.tasks.values():
        if task.state in {"processing", "queued", "no-worker"}:
            for kind in task.resource_restrictions or ():
                counts[kind] = counts.get(kind, 0) + 1
    for kind in counts:
        at_a_time = [int(worker.resources.get(kind, 0)) for worker in dask_scheduler.workers.values()]
        counts[kind] = math.ceil(counts[kind] / min(_BUSY, max([1, *at_a_time])))
    return counts


class Keeper:
    """Looks every `INTERVAL` seconds, on a thread of its own, until it is stopped.

    Parameters
    ----------
    client
        `distributed.Client` of the cluster.
    workers
        The cluster.
    """

    def __init__(self, client: Any, workers: Workers) -> None:
        self._client, self._workers = client, workers
        self._size = {kind: limits.minimum for kind, limits in workers.limits.items()}
        self._less = dict.fromkeys(workers.limits, 0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="keeper", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; returns when the last look is over."""
        self._stop.set()
        self._thread.join()

    def look(self) -> None:
        """Bring the cluster to the size that its tasks ask for, and renew what has ended."""
        self._workers.renew()
        counts = self._client.run_on_scheduler(count_tasks)
        for kind, limits in self._workers.limits.items():
            size = wanted(counts[kind], limits)
            # A stage may be dry for a moment: what is let go has to queue to come back.
            self._less[kind] = self._less[kind] + 1 if size < self._size[kind] else 0
            if size > self._size[kind] or self._less[kind] >= PATIENCE:
                self._workers.scale(kind, size)
                self._size[kind], self._less[kind] = size, 0

    def _watch(self) -> None:
        while not self._stop.wait(INTERVAL):
            try:
                self.look()
            except Exception as error:  # A look that fails is taken again; the night finds out by itself.
                _log.warning("the cluster's size was not looked after: %s: %s", type(error).__name__, error)
