"""Partitions to workers and back: a bounded number in flight, each result let go as it arrives."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from gzscale.cluster import count_slots
from gzscale.config import NightConfig
from gzscale.errors import ClusterError
from gzscale.night.ledger import Count, add_counts
from gzscale.night.origins import Origins, origins
from gzscale.night.planned import Plan, PlannedPartition
from gzscale.night.tally import Failure, Tally
from gzscale.night.work import Summary, cut, predict

__all__ = ["process"]

#: Partitions in flight for each one that can be cut at a time.
IN_FLIGHT = 3
#: How often a partition's work is tried again after an error.
RETRIES = 1


def process(
    client: Any, config: NightConfig, plan: Plan, progress: Callable[[Summary | Failure], None]
) -> Tally:
    """Cut and predict every partition of a plan.

    Parameters
    ----------
    client
        `distributed.Client` whose workers offer ``CUT`` and ``PREDICT``.
    config
        The night's configuration.
    plan
        What has to be done.
    progress
        Called with each partition's outcome as it arrives.

    Returns
    -------
    Tally
        An error in one partition makes its objects ``failed``; the others go on.
    """
    from distributed import as_completed

    start = time.perf_counter()
    slots = count_slots(client)
    origin = origins(config)
    tally = Tally()
    names = [*config.geometries, *config.tasks, "objects"]
    todo = iter(plan.partitions)
    running: dict[str, PlannedPartition] = {}

    def submit_next() -> list[Any]:
        item = next(todo, None)
        if item is None:
            return []
        future = _submit(client, config, origin, plan.night, item)
        running[future.key] = item
        return [future]

    first = [future for _ in range(IN_FLIGHT * slots) for future in submit_next()]
    finished = as_completed(first, loop=client.loop)
    del first
    for future in finished:
        item = running.pop(future.key)
        outcome = _outcome(future, item)
        # Letting go at once keeps the scheduler's memory independent of the night's length.
        future.release()
        del future
        # Workers come and go: batch systems start them one after the other.
        with contextlib.suppress(ClusterError):
            slots = max(slots, count_slots(client))
        while len(running) < IN_FLIGHT * slots and (more := submit_next()):
            finished.update(more)
        _count(tally, outcome, item, names)
        progress(outcome)
    tally.seconds["wall"] = time.perf_counter() - start
    tally.seconds["slots"] = float(slots)
    return tally


def _submit(client: Any, config: NightConfig, origin: Origins, night: str, item: PlannedPartition) -> Any:
    name = f"{night}-{item.partition.path}"
    made = client.submit(
        cut,
        config,
        origin,
        item.partition,
        item.digest,
        key=f"cut-{name}",
        resources={"CUT": 1},
        retries=RETRIES,
        pure=False,
    )
    # The scheduler keeps `made` alive as long as the prediction needs it.
    return client.submit(
        predict,
        config,
        origin,
        item.partition,
        item.digest,
        made,
        key=f"predict-{name}",
        resources={"PREDICT": 1},
        retries=RETRIES,
        priority=1,
        pure=False,
    )


def _outcome(future: Any, item: PlannedPartition) -> Summary | Failure:
    if future.status == "cancelled":
        return Failure(item.partition.path, item.rows, "cancelled by the scheduler")
    error = future.exception()
    if error is None:
        summary: Summary = future.result()
        return summary
    return Failure(item.partition.path, item.rows, f"{type(error).__name__}: {error}")


def _count(tally: Tally, outcome: Summary | Failure, item: PlannedPartition, names: list[str]) -> None:
    if isinstance(outcome, Failure):
        tally.failures.append(outcome)
        add_counts(tally.counts, {name: Count(item.rows, failed=item.rows) for name in names})
        return
    tally.done += 1
    tally.skipped += outcome.skipped == ("cut", "predict")
    tally.bytes_read += outcome.bytes_read
    add_counts(tally.counts, outcome.counts)
    for name, value in outcome.seconds.items():
        tally.seconds[name] = tally.seconds.get(name, 0.0) + value
