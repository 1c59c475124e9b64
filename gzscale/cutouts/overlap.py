"""Overlap areas of a target pixel with the source pixels below it, tabulated by sub-pixel phase.

Over one stamp the map from target to source pixels is affine, so the footprint of every
target pixel is the same parallelogram, shifted. Its overlap with the source pixels then
depends only on the sub-pixel position ("phase") of the footprint, and one small table
replaces clipping a polygon for every pixel. This is the ``pixfrac = 1`` case of
Drizzle [1]_, and the weights of ``reproject.reproject_exact`` in the plane.

A table is made exactly: source pixels are divided into ``phases`` x ``phases`` cells, the area
of the parallelogram in each cell is found (by clipping where an edge crosses it), and the
weight of a pixel is a difference of cumulated cells.

References
----------
.. [1] A. S. Fruchter and R. N. Hook, PASP 114, 144 (2002).
.. [2] I. E. Sutherland and G. W. Hodgman, CACM 17, 32 (1974): clipping of polygons.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["PHASES", "Matrix", "OverlapTable", "make_table", "quantise", "table_of"]

#: Bytes of tables that are kept; one has 14 kB at a scale of 1.
CACHE_BYTES = 64_000_000
#: Phases of a table. Weights are piecewise quadratic in the phase; blended bilinearly
#: between 16 of them they are exact to 0.1 % of a source pixel, and a table stays in the L1 cache. Where
#: footprints lie along the source's pixels, weights have kinks, and an edge may be off by a quarter of a
#: phase: the flux of a star in pixels of many source pixels then by 0.5 % at most.
PHASES = 16
#: Relative steps to which matrices are rounded so that stamps share tables: edges move by
#: 1/400 of a target pixel at most. Where a target pixel holds many source pixels, gaps between
#: footprints would show in a point source's flux, so the step is finer.
STEP, FINE_STEP = 0.005, 0.001
#: Source pixels along a target pixel from which the fine step is used.
FINE_FROM = 2.0

Matrix = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class OverlapTable:
    """Overlap weights of one footprint.

    Attributes
    ----------
    weights
        float32, shape (phases + 1, phases + 1, width, columns): phase in y and x, of the lower bound
        of the footprint in its first source pixel, from 0 to 1; then source pixel in y and x. For
        each phase they add up to 1. There are 4 columns at least, so that a row is a SIMD vector.
    phases
        Steps of phase in a source pixel, a power of two.
    width
        Source pixels in one direction: all that the footprint can touch, at least 3.
    half_x, half_y
        Half the extent of the footprint in source pixels.
    """

    weights: NDArray[np.float32]
    phases: int
    width: int
    half_x: float
    half_y: float


class _Cache:
    """Tables used last, up to a number of bytes; safe to use from several threads."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.held = 0
        self.tables: OrderedDict[Matrix, OverlapTable] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, matrix: Matrix) -> OverlapTable:
        with self._lock:
            found = self.tables.get(matrix)
            if found is not None:
                self.tables.move_to_end(matrix)
                return found
        table = make_table(matrix, PHASES)
        with self._lock:
            if matrix not in self.tables:
                self.tables[matrix] = table
                self.held += table.weights.nbytes
            while self.held > self.capacity and len(self.tables) > 1:
                self.held -= self.tables.popitem(last=False)[1].weights.nbytes
        return table


_cache = _Cache(CACHE_BYTES)


def quantise(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round matrices so that nearly equal ones share a table.

    Parameters
    ----------
    matrices
        Source pixels per target pixel, d(x, y) / d(column, row), shape (n, 2, 2).

    Returns
    -------
    NDArray[np.float64]
        The rounded matrices, row by row, shape (n, 4).
    """
    flat = matrices.reshape(-1, 4)
    length = np.sqrt(np.abs(flat[:, 0] * flat[:, 3] - flat[:, 1] * flat[:, 2]))
    step = np.where(length < FINE_FROM, STEP, FINE_STEP)
    unit = (step * np.exp(np.round(np.log(length) / step) * step))[:, None]
    return np.asarray(np.round(flat / unit) * unit)


def table_of(matrix: Matrix) -> OverlapTable:
    """Return the table of a row of what `quantise` gives, from a bounded cache."""
    return _cache.get(matrix)


def make_table(matrix: Matrix, phases: int) -> OverlapTable:
    """Tabulate the overlap of a parallelogram with unit pixels.

    Parameters
    ----------
    matrix
        d(x, y) / d(column, row) row by row, in source pixels a target pixel.
    phases
        Phases a source pixel, a power of two.
    """
    half_x = (abs(matrix[0]) + abs(matrix[1])) / 2
    half_y = (abs(matrix[2]) + abs(matrix[3])) / 2
    width = width_of(matrix)
    cells_x, cells_y = math.ceil(2 * half_x * phases), math.ceil(2 * half_y * phases)
    cumulated = np.zeros((cells_y + 1, cells_x + 1))
    cumulated[1:, 1:] = _cell_areas(np.array(matrix).reshape(2, 2), half_x, half_y, phases, cells_y, cells_x)
    cumulated = cumulated.cumsum(axis=0).cumsum(axis=1)
    cumulated /= cumulated[-1, -1]
    return OverlapTable(
        _pixel_weights(cumulated, phases, width, max(4, width)), phases, width, half_x, half_y
    )


def width_of(matrix: Matrix) -> int:
    """Return how many source pixels in one direction a table holds: all that can be touched, at least 3."""
    extent = max(abs(matrix[0]) + abs(matrix[1]), abs(matrix[2]) + abs(matrix[3]))
    return max(3, math.ceil(extent) + 1)


@njit(cache=True, nogil=True)
def _pixel_weights(cumulated, phases, width, columns):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Sum the cells of each source pixel for each phase."""
    cells_y, cells_x = cumulated.shape[0] - 1, cumulated.shape[1] - 1
    weights = np.zeros((phases + 1, phases + 1, width, columns), dtype=np.float32)
    for phase_y in range(phases + 1):
        for phase_x in range(phases + 1):
            for y in range(width):
                y0 = min(max(y * phases - phase_y, 0), cells_y)
                y1 = min(max((y + 1) * phases - phase_y, 0), cells_y)
                for x in range(columns):
                    x0 = min(max(x * phases - phase_x, 0), cells_x)
                    x1 = min(max((x + 1) * phases - phase_x, 0), cells_x)
                    if x1 > x0 and y1 > y0:
                        weights[phase_y, phase_x, y, x] = (
                            cumulated[y1, x1] - cumulated[y0, x1] - cumulated[y1, x0] + cumulated[y0, x0]
                        )
    return weights


@njit(cache=True, nogil=True)
def _cell_areas(matrix, half_x, half_y, phases, cells_y, cells_x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Area of the parallelogram in each cell of side 1 / phases, from its lower left bound on."""
    determinant = matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]
    # Target coordinates (s, t) of a source position; the parallelogram is |s|, |t| <= 1/2.
    s_x, s_y = matrix[1, 1] / determinant, -matrix[0, 1] / determinant
    t_x, t_y = -matrix[1, 0] / determinant, matrix[0, 0] / determinant
    side = 1.0 / phases
    reach_s = (abs(s_x) + abs(s_y)) * side / 2
    reach_t = (abs(t_x) + abs(t_y)) * side / 2
    areas = np.zeros((cells_y, cells_x))
    polygon, clipped = np.empty((12, 2)), np.empty((12, 2))
    for row in range(cells_y):
        for column in range(cells_x):
            x = (column + 0.5) * side - half_x
            y = (row + 0.5) * side - half_y
            s, t = abs(s_x * x + s_y * y), abs(t_x * x + t_y * y)
            if s - reach_s >= 0.5 or t - reach_t >= 0.5:
                continue
            if s + reach_s <= 0.5 and t + reach_t <= 0.5:
                areas[row, column] = side * side
                continue
            for corner in range(4):
                dx = side / 2 if corner in (1, 2) else -side / 2
                dy = side / 2 if corner >= 2 else -side / 2
                polygon[corner, 0] = s_x * (x + dx) + s_y * (y + dy)
                polygon[corner, 1] = t_x * (x + dx) + t_y * (y + dy)
            areas[row, column] = _area_in_unit_square(polygon, clipped) * abs(determinant)
    return areas


@njit(cache=True, nogil=True)
def _area_in_unit_square(polygon, clipped):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Clip a quadrilateral against |s|, |t| <= 1/2 and return the area that is left; overwrites both."""
    count = 4
    for edge in range(4):
        axis, sign = edge // 2, 1.0 - 2.0 * (edge % 2)
        kept = 0
        for i in range(count):
            j = (i + 1) % count
            inside_i = 0.5 - sign * polygon[i, axis]
            inside_j = 0.5 - sign * polygon[j, axis]
            if inside_i >= 0:
                clipped[kept, 0], clipped[kept, 1] = polygon[i, 0], polygon[i, 1]
                kept += 1
            if inside_i * inside_j < 0:
                share = inside_i / (inside_i - inside_j)
                clipped[kept, 0] = polygon[i, 0] + share * (polygon[j, 0] - polygon[i, 0])
                clipped[kept, 1] = polygon[i, 1] + share * (polygon[j, 1] - polygon[i, 1])
                kept += 1
        count = kept
        for i in range(count):
            polygon[i, 0], polygon[i, 1] = clipped[i, 0], clipped[i, 1]
    area = 0.0
    for i in range(count):
        j = (i + 1) % count
        area += polygon[i, 0] * polygon[j, 1] - polygon[j, 0] * polygon[i, 1]
    return abs(area) / 2
