"""What every kind of cluster can do once it was made: the interface, and the plainest case of it."""

from __future__ import annotations

import itertools
import logging
import time
from dataclasses import dataclass
from typing import Any

from gzscale.errors import ClusterError

__all__ = ["CUT", "ENVIRONMENT", "KINDS", "PREDICT", "Limits", "Workers", "missing_extra"]

CUT = "CUT"
PREDICT = "PREDICT"
_log = logging.getLogger(__name__)

#: Seconds that a process has to come up before it counts as lost again.
GRACE = 60.0
#: The two kinds of work; Dask resources by these names say which worker does which.
KINDS = (CUT, PREDICT)
#: What a worker's process is started with. Images are decoded on threads; glibc would give each an arena
#: of its own, and what is left in them lets a worker grow by a third from partition to partition.
#: Dask has freed memory given back at once, so that each layer of a network faults its pages in anew:
#: inference takes twice the time. A worker keeps what it frees and gives it back after each partition.
#: What the environment sets itself goes first.
ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(512 * 2**20),
}


@dataclass(frozen=True)
class Limits:
    """How far the workers of one kind are scaled.

    Attributes
    ----------
    minimum, maximum
        Jobs or pods.
    workers
        Workers of each.
    """

    minimum: int
    maximum: int
    workers: int = 1


class Workers:
    """A cluster that was made, or one that runs already.

    Parameters
    ----------
    target
        What `distributed.Client` takes: a cluster or an address.
    security
        `distributed.Security` of an encrypted connection.

    Attributes
    ----------
    limits
        Kind of work -> how far its workers are scaled; empty where nothing is scaled here.
    """

    def __init__(self, target: Any, security: Any = None) -> None:
        self.target = target
        self.security = security
        self.limits: dict[str, Limits] = {}
        self._numbers = itertools.count(1)
        self._settled = 0.0

    def waits_for(self) -> str:
        """Say what workers that are not up yet wait for, as far as it can be told."""
        return "look at the workers' logs"

    def scale(self, kind: str, number: int) -> None:
        """Set the number of jobs or pods of one kind, within its limits."""

    def renew(self) -> int:
        """Start again what has ended though it is wanted; return how many.

        Dask gives a worker process up that does not come back within 15 seconds of its death.
        """
        if time.monotonic() < self._settled:  # Dask counts a process only once it is up.
            return 0
        wanted = getattr(self.target, "worker_spec", {})
        gone = [name for name in wanted if name not in getattr(self.target, "workers", wanted)]
        for name in gone:
            # Under another name: Dask closes what has the name of a worker that it lost, a while later.
            wanted[f"{str(name).partition('~')[0]}~{next(self._numbers)}"] = wanted.pop(name)
        if gone:
            self._settled = time.monotonic() + GRACE
            # To the same number: brings what runs in line with the specification.
            self.target.scale(len(wanted))
        return len(gone)

    def close(self) -> None:
        """End what was made; a cluster that ran already goes on."""
        if not hasattr(self.target, "close"):
            return
        try:
            self._end()
        except Exception as error:  # A worker that was about to start does not undo a night that is done.
            _log.warning("the cluster did not close in order: %s: %s", type(error).__name__, error)

    def _end(self) -> None:
        self.target.close()


def missing_extra(kind: str, extra: str, error: ImportError) -> ClusterError:
    """Return the error of a kind of cluster whose packages are not installed."""
    return ClusterError(f"cluster {kind}: {error}; install gzscale[{extra}]")
