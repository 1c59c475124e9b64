"""Workers that join in mid-night, more or in place of lost ones: asked what those at its start were asked."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Any

from distributed import SchedulerPlugin, WorkerPlugin
from distributed.core import Status
from distributed.protocol import pickle

from gzscale.clusters.asking import register
from gzscale.clusters.health import SILENT, Demands, report

__all__ = ["Newcomers", "watch_newcomers"]

#: Begins the name of a night's plugin, and of the topic of what it refuses; the client's name follows.
_PREFIX = "gzscale-newcomers-"
#: Share of the scratch space that is asked of newcomers: the images that a host's workers share may take all
#: that is to be free at the start, less what they write besides.
_SCRATCH_SHARE = 0.5
#: Refusals that are told where workers are waited for.
_TOLD = 3
#: How often the scheduler is asked for the time.
_TRIPS = 3

_log = logging.getLogger(__name__)


class Newcomers(WorkerPlugin):
    """Sends a worker away that would spoil the night, before it has done any of the night's work.

    Parameters
    ----------
    name
        Of the plugin, and of the topic under which the scheduler passes on what is refused.
    demands
        What is asked.
    compute
        Device and precision of the night's predictions.
    ahead
        Seconds that the scheduler's clock is ahead of the night's, at least and at most.
    """

    def __init__(self, name: str, demands: Demands, compute: str, ahead: tuple[float, float]) -> None:
        self.name = name
        self._demands, self._compute, self._ahead = demands, compute, ahead

    async def setup(self, worker: Any) -> None:
        """Ask a worker, and have it leave where the answer is not as it should be."""
        try:
            found = "; ".join([refusal async for refusal in self._refusals(worker)])
        except Exception as error:
            found = f"{SILENT.what} ({type(error).__name__}: {error}); {SILENT.remedy}"
        if not found:
            return
        message = f"worker {worker.name} at {worker.address} is not let in: it {found}"
        _log.error(message)
        worker.log_event(self.name, message)
        # From now on it begins no task. It can close only once it is up: its nanny does not listen before.
        worker.status = Status.closing_gracefully
        worker.loop.add_callback(_leave, worker, message)

    async def _refusals(self, worker: Any) -> AsyncIterator[str]:
        item = report(worker)
        least, most = shortest([await _time_scheduler(worker) for _ in range(_TRIPS)])
        # The worker is ahead of the night by as much as it is less behind the scheduler.
        seconds_off = max(self._ahead[0] - most, least - self._ahead[1], 0.0)
        for problem, detail in self._demands.unmet(item, seconds_off):
            yield f"{problem.what} ({detail}); {problem.remedy}"
        if item.compute and item.compute != self._compute:
            yield f"predicts on {item.compute}, and this night on {self._compute}; start those of one kind"


async def _leave(worker: Any, message: str) -> None:
    # Retired first: else the tasks that it was given would count its going as a death with them in hand.
    await worker.scheduler.retire_workers(workers=[worker.address], close_workers=False, remove=True)
    await worker.close(reason=message)


async def _time_scheduler(worker: Any) -> tuple[float, float]:
    """Ask a worker's scheduler for the time; return how far it is ahead, at least and at most."""
    before = time.time()
    answer = await worker.scheduler.run_function(function=pickle.dumps(_clock))
    return answer["result"] - time.time(), answer["result"] - before


def shortest(trips: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """Return of some bounds the narrowest: a busy scheduler, or a slow network, makes them wide."""
    return min(trips, key=lambda bounds: bounds[1] - bounds[0])


class _Forget(SchedulerPlugin):
    """Takes the check from the scheduler when its night is over, however: the next may run other code."""

    name = "gzscale-forget-newcomers"
    idempotent = True

    def remove_client(self, scheduler: Any, client: str) -> None:
        scheduler.worker_plugins.pop(f"{_PREFIX}{client}", None)


def watch_newcomers(client: Any, demands: Demands, compute: str) -> deque[str]:
    """Ask every worker that joins while a client is connected, and those that are there once more.

    Parameters
    ----------
    client
        `distributed.Client`.
    demands
        What is asked.
    compute
        Device and precision of the night's predictions.

    Returns
    -------
    deque of str
        What was said of the last workers that were refused; grows while the night runs.
    """
    refused: deque[str] = deque(maxlen=_TOLD)
    name = f"{_PREFIX}{client.id}"

    def hear(event: tuple[float, str]) -> None:
        refused.append(event[1])
        _log.warning(event[1])

    client.subscribe_topic(name, hear)
    client.register_plugin(_Forget())
    ahead = shortest([_time(client) for _ in range(_TRIPS)])
    asked = dataclasses.replace(demands, scratch_free=int(_SCRATCH_SHARE * demands.scratch_free))
    register(client, Newcomers(name, asked, compute, ahead), "what they run")
    return refused


def _time(client: Any) -> tuple[float, float]:
    before = time.time()
    clock = client.run_on_scheduler(_clock)
    return clock - time.time(), clock - before


def _clock() -> float:
    """Return the time; runs on the scheduler."""
    return time.time()
