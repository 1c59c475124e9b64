"""Places in which stamps are accumulated, used again as soon as a stamp is complete."""

from __future__ import annotations

import heapq
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

__all__ = ["assign_slots"]


def assign_slots(
    layers: NDArray[np.int64], first: NDArray[np.int64], last: NDArray[np.int64]
) -> tuple[NDArray[np.int64], int]:
    """Give each object as many neighbouring slots as it has layers, from its first image to its last.

    Images are added in the order of their numbers, and few objects wait for a further one at any time.

    Parameters
    ----------
    layers
        How many slots each object needs, 0 for none, shape (n,).
    first, last
        Numbers of the first and of the last image that may overlap it, shape (n,).

    Returns
    -------
    slot
        The first of each object's slots, -1 where it needs none, int64, shape (n,). Two objects share one
        only where the last image of one goes before the first image of the other.
    count
        How many slots there are.
    """
    slot = np.full(len(layers), -1, dtype=np.int64)
    needing = np.flatnonzero(layers)
    taken: list[tuple[int, int, int]] = []
    free: dict[int, list[int]] = defaultdict(list)
    count = 0
    for row in needing[np.argsort(first[needing], kind="stable")].tolist():
        while taken and taken[0][0] < first[row]:
            _, place, size = heapq.heappop(taken)
            free[size].append(place)
        size = int(layers[row])
        if free[size]:
            place = free[size].pop()
        else:
            place, count = count, count + size
        slot[row] = place
        heapq.heappush(taken, (int(last[row]), place, size))
    return slot, count
