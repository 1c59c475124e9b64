"""What a night's partitions came to, as their outcomes arrive."""

from __future__ import annotations

from dataclasses import dataclass, field

from gzscale.night.ledger import Count

__all__ = ["Failure", "Tally"]


@dataclass(frozen=True)
class Failure:
    """A partition that could not be worked on, and why."""

    partition: str
    rows: int
    error: str


@dataclass
class Tally:
    """What the night's partitions came to.

    Attributes
    ----------
    counts
        Accounts: ``objects``, each geometry and each task.
    seconds
        Worker time by step; ``wall`` is the main process's, ``slots`` the number of workers.
    bytes_read
        Of image files.
    images
        How often images were opened, and how many different ones: see `gzscale.night.openings.Openings`.
    done, skipped
        Partitions.
    failures
        Those that failed.
    """

    counts: dict[str, Count] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    bytes_read: int = 0
    images: dict[str, int] = field(default_factory=dict)
    done: int = 0
    skipped: int = 0
    failures: list[Failure] = field(default_factory=list)
