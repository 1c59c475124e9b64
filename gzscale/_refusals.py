"""Whether a store that denies one object denies all: an object's trouble, or the credentials'.

S3 answers 403 for an object that may not be read, and also for one that is not there where the credentials
may not list its bucket. Whoever could read other objects before asks for one of those again.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["MOST_DENIED", "Witnesses", "another_follows", "witnesses_of"]

#: Objects that are asked for again. More than one, since one may have been removed in the meantime.
ASKED_AGAIN = 3
#: Names that a process is denied, one after the other, without having read a single object, before it takes
#: its credentials for what is denied. A mirror that lacks many files denies as many names.
MOST_DENIED = 100

_another_follows = ContextVar("_another_follows", default=False)


@contextmanager
def another_follows(follows: bool) -> Iterator[None]:
    """Ask for one of the names that an object may have: a denial tells nothing while others follow it."""
    token = _another_follows.set(follows)
    try:
        yield
    finally:
        _another_follows.reset(token)


class Witnesses:
    """The objects below one root that this process has had last, and the names that it was denied before."""

    def __init__(self) -> None:
        self._read: deque[str] = deque(maxlen=ASKED_AGAIN)
        self._denied: set[str] = set()
        self._lock = threading.Lock()

    def note(self, key: str) -> None:
        """Note that an object was read, or its size: who may not read it is not told that either."""
        with self._lock:
            if key not in self._read:
                self._read.append(key)
            self._denied.clear()

    def contradict(self, key: str, denied: Callable[[str], bool]) -> str:
        """Say what shows that not only one name is denied; nothing where it may be that one alone.

        Parameters
        ----------
        key
            The name that is denied.
        denied
            Asks for an object, and says whether it is denied.
        """
        if _another_follows.get():
            return ""
        with self._lock:
            others = [other for other in reversed(self._read) if other != key]
            if not others:
                self._denied.add(key)
        if others:
            return f"so is {others[0]} by now, which was read before" if all(map(denied, others)) else ""
        if len(self._denied) < MOST_DENIED:
            return ""
        return (
            f"so are all of the first {len(self._denied)} names; if these files are not there, allow "
            "s3:ListBucket, so that S3 says so"
        )


_witnesses: dict[str, Witnesses] = {}


def witnesses_of(root: str) -> Witnesses:
    """Return this process's witnesses of a root."""
    return _witnesses.setdefault(root, Witnesses())
