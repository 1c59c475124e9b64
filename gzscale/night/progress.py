"""Progress of a night: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gzscale.night.tally import Failure
from gzscale.night.work import Summary

__all__ = ["NightProgress"]

#: Seconds between two lines of a log.
LINE_EVERY = 10.0


class NightProgress:
    """Shows how far a night is.

    Parameters
    ----------
    stream
        Where to; standard error by default.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._console = Console(file=stream or sys.stderr, highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("objects"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("cut and predict", total=None)
        self._objects = self._total = 0
        self._last = 0.0

    def __enter__(self) -> NightProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """Print one line."""
        self._console.print(text, soft_wrap=True, markup=False)

    def plan(self, objects: int) -> None:
        """Set how many objects there are to do."""
        self._total = objects
        self._bar.update(self._task, total=objects)

    def __call__(self, outcome: Summary | Failure) -> None:
        """Take note of one partition."""
        if isinstance(outcome, Failure):
            self.say(f"failed: {outcome.partition}, {outcome.rows} objects: {outcome.error}")
            self._objects += outcome.rows
        else:
            self._objects += outcome.counts["objects"].planned
        self._bar.update(self._task, completed=self._objects)
        now = time.monotonic()
        if self._bar.disable and (now - self._last > LINE_EVERY or self._objects == self._total):
            self._last = now
            self.say(f"cut and predict: {self._objects} of {self._total} objects")
