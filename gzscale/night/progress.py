"""Progress of a night: objects of the partitions that are done, and what failed."""

from __future__ import annotations

from typing import TextIO

from gzscale.night.tally import Failure
from gzscale.night.work import Summary
from gzscale.progress import Meter

__all__ = ["NightProgress"]


class NightProgress(Meter):
    """Shows how far a night is.

    Parameters
    ----------
    stream
        Where to; standard error by default.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__("cut and predict", "objects", stream=stream)

    def __call__(self, outcome: Summary | Failure) -> None:
        """Take note of one partition."""
        if isinstance(outcome, Failure):
            self.say(f"failed: {outcome.partition}, {outcome.rows} objects: {outcome.error}")
            self.add(outcome.rows)
        else:
            self.add(outcome.counts["objects"].planned)
