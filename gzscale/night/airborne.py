"""A partition that workers are at, and how long they have been at it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gzscale.night.planned import PlannedPartition

__all__ = ["Airborne"]


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
    """

    item: PlannedPartition
    futures: list[Any]
    host: str
    moved: int = 0
    _spent: dict[tuple[str, str], float] = field(default_factory=dict)

    def overdue(self, at_work: Mapping[str, tuple[str, float]], limit: float) -> tuple[str, str] | None:
        """Note how long workers have been at it, and tell whether that is too long.

        What workers spent that have left since counts, too: where they live shorter than the limit, a
        partition that never ends would go from one to the next for ever.

        Parameters
        ----------
        at_work
            Key of what runs -> its worker, and the seconds that it has been at it.
        limit
            Seconds that are allowed for each of the things that are done to it.

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
            self._spent[stage, worker] = max(seconds, self._spent.get((stage, worker), 0.0))
            each = [spent for (of, _), spent in self._spent.items() if of == stage]
            if sum(each) > limit:
                workers = f" on {len(each)} workers" if len(each) > 1 else ""
                return worker, f"{sum(each):.0f} s at {stage}{workers}, {limit:.0f} s allowed"
        return None
