"""From many small partitions to few release pixels, as HATS aligns a catalog to its sky."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gzscale.catalog.pixels import Partition
from gzscale.catalog.schema import HEALPIX_ORDER
from gzscale.errors import CatalogError

__all__ = ["ReleasePixel", "align", "complement", "end_index", "first_index"]


@dataclass(frozen=True, slots=True)
class ReleasePixel:
    """One file of a release, and the partitions that are merged into it.

    Attributes
    ----------
    pixel
        The HEALPix pixel that holds them all.
    parts
        The partitions in sky order, none of them empty.
    rows
        Number of rows of all parts together.
    """

    pixel: Partition
    parts: tuple[Partition, ...]
    rows: int


def first_index(pixel: Partition) -> int:
    """Return the smallest order-29 nested HEALPix index inside a pixel."""
    return int(pixel.pixel) << 2 * (HEALPIX_ORDER - pixel.order)


def end_index(pixel: Partition) -> int:
    """Return the order-29 nested HEALPix index just after a pixel's last one."""
    return int(pixel.pixel + 1) << 2 * (HEALPIX_ORDER - pixel.order)


def align(partitions: Sequence[tuple[Partition, int]], max_rows: int) -> list[ReleasePixel]:
    """Merge disjoint partitions into the largest pixels of at most ``max_rows`` rows.

    The rule is that of ``hats.pixel_math.generate_alignment(drop_empty_siblings=True)``: a
    pixel is released if its rows are few enough and come from more than one of its four
    children, so that a lonely field keeps its small pixel. It is found here from the top
    down, without a histogram of the sky.

    Parameters
    ----------
    partitions
        Partitions and their numbers of rows, in any order; empty ones are left out.
    max_rows
        Rows of a released pixel at most. A partition is never split: one that has more
        rows is released as it is.

    Returns
    -------
    list[ReleasePixel]
        Disjoint, in sky order.

    Raises
    ------
    CatalogError
        If two partitions overlap.
    """
    filled = sorted(
        ((pixel, rows) for pixel, rows in partitions if rows), key=lambda item: first_index(item[0])
    )
    pixels = [pixel for pixel, _ in filled]
    starts = np.array([first_index(pixel) for pixel in pixels], dtype=np.int64)
    ends = np.array([end_index(pixel) for pixel in pixels], dtype=np.int64)
    for i in np.flatnonzero(ends[:-1] > starts[1:]):
        raise CatalogError(
            f"partitions {pixels[i].path} and {pixels[i + 1].path} overlap on the sky: "
            "they come from two different plans and cannot be released together"
        )
    total = np.concatenate(([0], np.cumsum([rows for _, rows in filled]))).astype(np.int64)
    return [
        ReleasePixel(pixel, tuple(pixels[low:high]), int(total[high] - total[low]))
        for pixel, low, high in _descend(pixels, starts, total, max_rows)
    ]


def _descend(
    pixels: Sequence[Partition], starts: NDArray[np.int64], total: NDArray[np.int64], max_rows: int
) -> Iterator[tuple[Partition, int, int]]:
    """Yield each release pixel with the range of its parts, in sky order."""
    waiting = [(Partition(0, base), *_range(starts, Partition(0, base))) for base in range(11, -1, -1)]
    while waiting:
        pixel, low, high = waiting.pop()
        if high == low:
            continue
        if high - low == 1:
            yield pixels[low], low, high
            continue
        children = [Partition(pixel.order + 1, 4 * pixel.pixel + i) for i in range(4)]
        ranges = [_range(starts, child) for child in children]
        spread = sum(stop > start for start, stop in ranges) > 1
        if spread and total[high] - total[low] <= max_rows:
            yield pixel, low, high
        else:
            waiting += [(child, *limits) for child, limits in zip(children, ranges, strict=True)][::-1]


def _range(starts: NDArray[np.int64], pixel: Partition) -> tuple[int, int]:
    """Return which of the sorted partitions begin inside a pixel, as a half-open range."""
    low, high = np.searchsorted(starts, [first_index(pixel), end_index(pixel)])
    return int(low), int(high)


def complement(pixels: Sequence[Partition]) -> list[Partition]:
    """Return the fewest pixels that tile the rest of the sky, in sky order.

    Parameters
    ----------
    pixels
        Disjoint pixels in sky order.
    """
    rest: list[Partition] = []
    position = 0
    for pixel in pixels:
        rest.extend(_tile(position, first_index(pixel)))
        position = end_index(pixel)
    rest.extend(_tile(position, 12 << 2 * HEALPIX_ORDER))
    return rest


def _tile(start: int, stop: int) -> Iterator[Partition]:
    """Cut a range of order-29 indices into the fewest whole pixels."""
    while start < stop:
        level = HEALPIX_ORDER
        while start % (1 << 2 * level) or start + (1 << 2 * level) > stop:
            level -= 1
        yield Partition(HEALPIX_ORDER - level, start >> 2 * level)
        start += 1 << 2 * level
