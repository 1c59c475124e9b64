"""A plan through the workers: all partitions at first, then, alone, those that workers died of."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable

from gzscale.cluster import Cluster
from gzscale.config import NightConfig
from gzscale.errors import CredentialsError, GzscaleError
from gzscale.night.flight import Flight, Lost
from gzscale.night.images import LostSurvey
from gzscale.night.ledger import Count, add_counts
from gzscale.night.openings import Openings
from gzscale.night.origins import Origins, origins, survey_of
from gzscale.night.planned import Plan, PlannedPartition
from gzscale.night.reach import ask_workers
from gzscale.night.tally import Failure, Tally
from gzscale.night.work import Summary, commit_cutouts, commit_predictions

__all__ = ["process"]

#: Partitions in flight for each one that can be cut at a time.
IN_FLIGHT = 3
#: Workers that may die with a partition in hand: among others, where any of them may be to
#: blame, and then alone, where it is this one.
DEATHS_AMONG_OTHERS = 2
DEATHS_ALONE = 3


def process(
    cluster: Cluster,
    config: NightConfig,
    plan: Plan,
    progress: Callable[[Summary | Failure], None],
    check: Callable[[], None] = lambda: None,
) -> Tally:
    """Cut and predict every partition of a plan.

    Parameters
    ----------
    cluster
        Its workers offer ``CUT`` and ``PREDICT``.
    config
        The night's configuration.
    plan
        What has to be done.
    progress
        Called with each partition's outcome as it arrives.
    check
        Called every second or so; what it raises ends the night.

    Returns
    -------
    Tally
        An error in one partition makes its objects ``failed``; one that kills its workers, or
        takes too long, is tried again alone at the end, and then quarantined; the others go on.

    Raises
    ------
    ClusterError
        If no worker of either kind is left for longer than the cluster's patience, or one does not reach
        what the night reads or writes.
    CredentialsError
        If storage refuses those of a worker, now or later: every partition would end alike.
    """
    rooted = ask_workers(cluster.client, config)
    start = time.perf_counter()
    origin = dataclasses.replace(origins(config), compute=cluster.compute, rooted=rooted)
    tally = Tally()
    names = [*config.geometries, *config.tasks, "objects"]
    flight = Flight(cluster, config, origin, plan.night, check)
    suspects: list[PlannedPartition] = []
    openings = Openings()

    def count(outcome: Summary | Failure, item: PlannedPartition) -> None:
        _count(tally, outcome, item, names)
        if isinstance(outcome, Summary):
            openings.add(outcome.images, outcome.taken)
        progress(outcome)

    slots = flight.slots
    with contextlib.closing(flight):
        for item, outcome in flight.fly(plan.partitions, IN_FLIGHT, DEATHS_AMONG_OTHERS):
            slots = max(slots, flight.slots)
            if isinstance(outcome, Lost):
                suspects.append(item)
            else:
                count(outcome, item)
        for item, outcome in flight.fly(suspects, 0, DEATHS_ALONE):
            count(_give_up(config, origin, item, outcome) if isinstance(outcome, Lost) else outcome, item)
    tally.images = openings.to_dict()
    tally.seconds["wall"] = time.perf_counter() - start
    tally.seconds["slots"] = float(slots)
    return tally


def _give_up(config: NightConfig, origin: Origins, item: PlannedPartition, lost: Lost) -> Summary | Failure:
    """Commit a partition with every object quarantined; the next night tries it again."""
    survey = LostSurvey(survey_of(config), lost.reason, lost.detail)
    try:
        made = commit_cutouts(config, origin, survey, item.partition, item.digest)
        return commit_predictions(config, origin, item.partition, item.digest, made)
    except CredentialsError:
        raise
    except GzscaleError as error:
        return Failure(item.partition.path, item.rows, f"{lost.detail}; then {type(error).__name__}: {error}")


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
