"""Memory that was freed, given back to the system: allocators keep it, and a process seems to grow."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

import pyarrow as pa

__all__ = ["return_freed_memory"]


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
