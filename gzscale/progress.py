"""How far long work is: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["LINE_EVERY", "Meter"]

#: Seconds between two lines of a log.
LINE_EVERY = 10.0


class Meter:
    """Shows how much of something is done, while it is entered.

    Parameters
    ----------
    what
        What is being done: ``simulate``.
    unit
        What is counted: ``images``.
    total
        How many there are; None if that is not known.
    stream
        Where to; standard error by default.

    Attributes
    ----------
    done
        How many are done.
    """

    def __init__(self, what: str, unit: str, total: int | None = None, stream: TextIO | None = None) -> None:
        self._what, self._unit, self._total = what, unit, total
        self._console = Console(file=stream or sys.stderr, highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(what, total=total)
        self._last = time.monotonic()
        self.done = 0

    def __enter__(self) -> Self:
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

    def plan(self, total: int) -> None:
        """Set how many there are to do."""
        self._total = total
        self._bar.update(self._task, total=total)

    def add(self, more: int) -> None:
        """Take note that so many more are done."""
        self.show(self.done + more)

    def show(self, done: int, total: int | None = None) -> None:
        """Take note of how many are done, and, where it is only known now, of how many there are."""
        if total is not None and total != self._total:
            self.plan(total)
        self.done = done
        self._bar.update(self._task, completed=done)
        now = time.monotonic()
        if self._bar.disable and (now - self._last > LINE_EVERY or done == self._total):
            self._last = now
            of = "" if self._total is None else f" of {self._total}"
            self.say(f"{self._what}: {done}{of} {self._unit}")
