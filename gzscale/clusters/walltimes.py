"""Walltimes of jobs, read as sbatch reads them."""

from __future__ import annotations

import re

__all__ = ["walltime_seconds", "walltime_text"]

#: What sbatch takes: M, M:S, H:M:S, D-H, D-H:M and D-H:M:S. Two numbers alone are minutes and seconds.
_WALLTIMES = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?P<minutes>\d{1,6})(?::(?P<seconds>[0-5]?\d))?",
        r"(?P<hours>\d{1,5}):(?P<minutes>[0-5]?\d):(?P<seconds>[0-5]?\d)",
        r"(?P<days>\d{1,4})-(?P<hours>\d{1,2})(?::(?P<minutes>[0-5]?\d)(?::(?P<seconds>[0-5]?\d))?)?",
    )
)
_SECONDS = {"days": 86_400, "hours": 3600, "minutes": 60, "seconds": 1}


def walltime_seconds(text: str) -> int:
    """Read a walltime as sbatch does: ``M``, ``M:S``, ``H:M:S``, ``D-H``, ``D-H:M`` or ``D-H:M:S``.

    Raises
    ------
    ValueError
        If the text is not such a time.
    """
    match = next(filter(None, (pattern.fullmatch(text) for pattern in _WALLTIMES)), None)
    if match is None:
        raise ValueError(f"walltime {text!r}: expected HH:MM:SS or D-HH:MM:SS, in quotes")
    return sum(_SECONDS[unit] * int(number or 0) for unit, number in match.groupdict().items())


def walltime_text(seconds: int) -> str:
    """Write a walltime so that it can be read in one way alone: ``HH:MM:SS`` or ``D-HH:MM:SS``."""
    days, rest = divmod(seconds, _SECONDS["days"])
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days}-{clock}" if days else clock
