"""Questions to all workers of a cluster: bounded in time, and without those that are lost meanwhile."""

from __future__ import annotations

import functools
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from gzscale.clusters.workers import KINDS
from gzscale.errors import ClusterError, StorageError

__all__ = ["ask_all", "register"]

#: Seconds that workers have to answer; storage in trouble is tried for minutes.
ANSWER_TIMEOUT = 300.0
#: Seconds within which the scheduler notices that a worker has gone which did not answer.
GONE = 5.0
#: How often a plugin is registered while workers are lost meanwhile.
_TRIES = 3


def ask_all(
    client: Any, workers: dict[str, Any], about: str, question: Callable[..., Any], *arguments: Any
) -> dict[str, Any]:
    """Ask some workers a question, at the same time, and wait no longer than `ANSWER_TIMEOUT`.

    Parameters
    ----------
    client
        `distributed.Client`.
    workers
        Address -> what the scheduler knows of them, ``resources`` among it.
    about
        What they are asked, for errors: "whether ...", "what ...".
    question, *arguments
        Runs on each of them.

    Returns
    -------
    dict
        Address -> answer, or the error in its place, without workers that were lost meanwhile.

    Raises
    ------
    ClusterError
        If they do not answer in time, or all of a kind were lost.
    """
    ask = functools.partial(client.run, question, *arguments, workers=list(workers), on_error="return")
    answers: dict[str, Any] = _in_time(ask, about)
    lost = _lost(client, answers)
    left = {address: answer for address, answer in answers.items() if address not in lost}
    for kind in KINDS:
        before, after = (
            sum(kind in workers[address]["resources"] for address in some) for some in (workers, left)
        )
        if before and not after:
            raise ClusterError(
                f"all {before} workers for {kind} were lost while they were asked {about}; look at their "
                "logs, and run the night again"
            )
    return left


def register(client: Any, plugin: Any, about: str) -> None:
    """Register a plugin with all workers, those that come later as well, in `ANSWER_TIMEOUT` at most.

    Parameters
    ----------
    client
        `distributed.Client`.
    plugin
        `distributed.WorkerPlugin` with a name; registered again, it takes its own place.
    about
        What it asks of workers: see `ask_all`.

    Raises
    ------
    ClusterError
        If workers do not answer in time, or cannot.
    """
    for left in reversed(range(_TRIES)):
        try:
            _in_time(functools.partial(client.register_plugin, plugin), about)
            return
        except ClusterError as error:
            # A worker that is lost in the middle of it; the next try is without it.
            if not left or not isinstance(error.__cause__, OSError):
                raise
            time.sleep(GONE / _TRIES)


def _lost(client: Any, answers: dict[str, Any]) -> set[str]:
    """Return the addresses of workers that did not answer and are gone; one that is there is in trouble."""
    unheard = {
        address
        for address, answer in answers.items()
        if isinstance(answer, OSError) and not isinstance(answer, StorageError)
    }
    deadline = time.monotonic() + GONE
    while unheard:
        there = client.scheduler_info(n_workers=-1)["workers"]
        if time.monotonic() > deadline or not unheard.intersection(there):
            return unheard.difference(there)
        time.sleep(0.1)
    return unheard


def _in_time(ask: Callable[[], Any], about: str) -> Any:
    """Ask, and wait no longer than `ANSWER_TIMEOUT`: a folder of a dead server answers nobody."""
    said: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()

    def listen() -> None:
        try:
            said.put((ask(), None))
        except Exception as error:
            said.put((None, error))

    threading.Thread(target=listen, name="asking", daemon=True).start()
    try:
        answer, error = said.get(timeout=ANSWER_TIMEOUT)
    except queue.Empty:
        raise ClusterError(
            f"the workers have not said for {ANSWER_TIMEOUT:.0f} s {about}; look whether a folder hangs "
            "where they run (ls), and whether they live"
        ) from None
    if error is not None:
        raise ClusterError(f"the workers do not answer: {type(error).__name__}: {error}") from error
    return answer
