"""A partition that workers are at, and how long they have been at it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gzscale.night.planned import PlannedPartition

__all__ = ["LIMITS", "Airborne"]

#: How many limits all workers together may be at one thing: where each lives shorter than one limit, a
#: partition that never ends would go from one to the next for ever; a good one may be cut short twice.
LIMITS = 3


@dataclass
class Airborne:
    """A partition that was submitted.

    Attributes
    ----------
    item
        The partition.
    futures
        Of what is done to it, the last first.
    host
        Where it is cut; empty for anywhere.
    moved
        How often it was given to another worker, whose own had failed.
    spent
        What is done to it, and the worker -> seconds that this worker has been seen at it.
    """

    item: PlannedPartition
    futures: list[Any]
    host: str
    moved: int = 0
    spent: dict[tuple[str, str], float] = field(default_factory=dict)

    def overdue(self, at_work: Mapping[str, tuple[str, float]], limit: float) -> tuple[str, str] | None:
        """Note how long workers have been at it, and tell whether that is too long.

        Parameters
        ----------
        at_work
            Key of what runs -> its worker, and the seconds that it has been at it.
        limit
            Seconds that one worker may be at each of the things that are done to it; with those that have
            left since, `LIMITS` times as many.

        Returns
        -------
        tuple[str, str] or None
            The worker that is at it, and what is said; None while there is time.
        """
        for future in self.futures:
            worker, seconds = at_work.get(future.key, ("", 0.0))
            if not worker:
                continue
            stage = future.key.partition("-")[0]
            self.spent[stage, worker] = max(seconds, self.spent.get((stage, worker), 0.0))
            each = [spent for (of, _), spent in self.spent.items() if of == stage]
            if seconds > limit:
                return worker, f"{seconds:.0f} s at {stage}, {limit:.0f} s allowed"
            if sum(each) > LIMITS * limit:
                return worker, (
                    f"{sum(each):.0f} s at {stage} on {len(each)} workers, {LIMITS} x {limit:.0f} s allowed"
                )
        return None
