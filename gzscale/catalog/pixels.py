"""HEALPix pixels of at most N objects each, found while sorted indices pass by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["INDEX_ORDER", "MAX_ORDER", "Partition", "find_partitions"]

#: Order of the HEALPix index that rows carry and are sorted by.
INDEX_ORDER = 29
#: Smallest pixels that are made: 0.8 arcsec across. What is closer together stays together.
MAX_ORDER = 18


@dataclass(frozen=True, order=True, slots=True)
class Partition:
    """One HEALPix pixel, nested scheme.

    Attributes
    ----------
    order
        0 to 29; the pixel is one of 12 * 4**order.
    pixel
        Its number.
    """

    order: int
    pixel: int

    @property
    def path(self) -> str:
        """The HATS path of the pixel without an ending: ``Norder=k/Dir=d/Npix=n``."""
        return f"Norder={self.order}/Dir={self.pixel // 10000 * 10000}/Npix={self.pixel}"


def find_partitions(
    pieces: Iterable[NDArray[np.int64]], max_objects: int, max_order: int = MAX_ORDER
) -> Iterator[tuple[Partition, int]]:
    """Find the partitions of objects whose HEALPix indices pass by in ascending order.

    Let i be the first object of a partition. Every pixel that contains i and no object
    before it starts with i, and holds more than N objects exactly if it holds object i + N too.
    So the partition is the largest pixel around i that contains neither the object before i
    nor object i + N: two comparisons of indices, and no histogram of the sky.

    Parameters
    ----------
    pieces
        Indices of order 29, nested, each piece sorted and none below the piece before.
    max_objects
        N.
    max_order
        Pixels of this order are not parted, however many objects they hold.

    Yields
    ------
    tuple[Partition, int]
        Each partition and its number of objects, in the order of the sky.
    """
    held = np.empty(0, np.int64)
    before: int | None = None
    for piece, is_last in _with_last(pieces):
        held = np.concatenate([held, piece])
        start = 0
        while start < len(held) and (is_last or start + max_objects < len(held)):
            first = int(held[start])
            order = 0 if before is None else _common_order(before, first) + 1
            if start + max_objects < len(held):
                order = max(order, _common_order(first, int(held[start + max_objects])) + 1)
            order = min(order, max_order)
            shift = 2 * (INDEX_ORDER - order)
            stop = start + int(np.searchsorted(held[start:], ((first >> shift) + 1) << shift))
            if stop == len(held) and not is_last:
                break
            yield Partition(order, first >> shift), stop - start
            before, start = int(held[stop - 1]), stop
        held = held[start:]


def _common_order(first: int, second: int) -> int:
    """Return the order of the smallest pixel that contains two indices, -1 if none does."""
    return max(-1, INDEX_ORDER - ((first ^ second).bit_length() + 1) // 2)


def _with_last(pieces: Iterable[NDArray[np.int64]]) -> Iterator[tuple[NDArray[np.int64], bool]]:
    """Yield each piece, and whether it is the last one."""
    upcoming: NDArray[np.int64] | None = None
    for piece in pieces:
        if upcoming is not None:
            yield upcoming, False
        upcoming = piece
    if upcoming is not None:
        yield upcoming, True
