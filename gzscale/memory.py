"""Memory that was freed, given back to the system: allocators keep it, and a process seems to grow.

References
----------
.. [1] mallopt(3), malloc_trim(3), Linux manual pages.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

import pyarrow as pa

__all__ = ["keep_one_arena", "return_freed_memory"]

#: glibc's number of the parameter.
_M_ARENA_MAX = -8


def keep_one_arena() -> None:
    """Let threads that are started from now on share malloc's one heap, where malloc is glibc's [1]_.

    For a process whose threads wait for storage more than they allocate: what a thread with a heap of its
    own has freed stays with it.
    """
    mallopt: Callable[[int, int], int] | None = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def return_freed_memory() -> None:
    """Give the system back what Arrow and malloc keep of freed memory; malloc where it is glibc's.

    What is kept of blocks of all sizes would let a process grow from one piece of work to the next.
    """
    pa.default_memory_pool().release_unused()
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim
