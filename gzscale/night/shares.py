"""Which partition a host takes next: each follows a stretch of the sky, so that neighbours stay together."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Shares"]


class Shares:
    """Hands out the numbers 0 to n - 1, each once, in stretches: one after the other to the same host.

    A host that has come to the end of its stretch, or is new, takes the second half of the longest one. What
    is held is a stretch a host, whatever n is.

    Parameters
    ----------
    count
        n.
    hosts
        Those that are there at first; they get equal parts.
    """

    def __init__(self, count: int, hosts: Iterable[str]) -> None:
        names = list(hosts) or [""]
        edges = [count * place // len(names) for place in range(len(names) + 1)]
        self._left = {name: range(edges[i], edges[i + 1]) for i, name in enumerate(names)}

    def take(self, host: str) -> int | None:
        """Return the next number for a host; None if there is none left."""
        mine = self._left.get(host, range(0))
        if not mine:
            longest = max(self._left, key=lambda name: len(self._left[name]))
            theirs = self._left[longest]
            if not theirs:
                return None
            middle = theirs.start + len(theirs) // 2
            self._left[longest], mine = range(theirs.start, middle), range(middle, theirs.stop)
            if not self._left[longest] and longest != host:
                del self._left[longest]
        self._left[host] = range(mine.start + 1, mine.stop)
        return mine.start
