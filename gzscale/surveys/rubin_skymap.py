"""A skymap's tracts and patches as convex polygons: in which one does a position lie, and how deep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

__all__ = ["Pairs", "Regions", "join_regions", "make_regions"]

Floats = NDArray[np.float64]

#: Positions that are searched at one time: bounds the memory of their candidates.
_BATCH = 65_536
#: Room about a polygon's circle, in radians: rounding must not lose a position on its edge.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Pairs:
    """Positions and the regions that lie within a distance of each.

    Attributes
    ----------
    position, region
        Rows of the positions and of the regions, int64, shape (m,).
    depth
        Signed distance in degrees to the nearest edge, positive inside, shape (m,).
    second
        The same to the second nearest edge.
    """

    position: NDArray[np.int64]
    region: NDArray[np.int64]
    depth: Floats
    second: Floats


@dataclass(frozen=True, slots=True)
class Regions:
    """Convex polygons on the sphere whose edges are great circles: tracts, or the patches of some tracts.

    An edge of a patch or tract is a straight line of pixels, which the gnomonic projection of the
    skymap's WCS makes a great circle. The regions are the outer ones, borders included.

    Attributes
    ----------
    tract, patch
        Identifiers, int64, shape (n,); ``patch`` is -1 for a tract.
    normals
        Unit normals of the edges' planes, pointing inwards, shape (n, edges, 3). A polygon with
        fewer edges than others repeats its last.
    centre
        Unit vectors, shape (n, 3).
    reach
        Largest angle between centre and vertex in radians, shape (n,).
    """

    tract: NDArray[np.int64]
    patch: NDArray[np.int64]
    normals: Floats
    centre: Floats
    reach: Floats

    def __len__(self) -> int:
        return len(self.tract)

    def search(self, points: Floats, margin: Floats) -> Pairs:
        """Find every region that lies within a distance of each position.

        Parameters
        ----------
        points
            Unit vectors of the positions, shape (m, 3).
        margin
            Degrees beyond the edge at which a region still counts, shape (m,). Beyond a corner the
            distance is to the nearer edge's great circle, which is never more than that to the region.

        Returns
        -------
        Pairs
            Sorted by position, then region.
        """
        parts = [
            self._search(points[start : start + _BATCH], margin[start : start + _BATCH], start)
            for start in range(0, len(points), _BATCH)
        ]
        empty = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0)
        return Pairs(*(np.concatenate(column) for column in zip(empty, *parts, strict=True)))

    def _search(
        self, points: Floats, margin: Floats, first: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats, Floats]:
        if not len(self):
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0)
        # Neighbours of neighbours are cheap to refuse, so one radius serves every position.
        angle = float(self.reach.max()) + np.radians(float(margin.max(initial=0.0))) + _ROUNDING
        chord = 2 * np.sin(min(angle, np.pi) / 2)
        near = KDTree(self.centre).query_ball_point(points, chord, return_sorted=True)
        counts = np.fromiter((len(found) for found in near), np.int64, len(near))
        region = np.fromiter((row for found in near for row in found), np.int64, int(counts.sum()))
        position = np.repeat(np.arange(len(points)), counts)
        depth, second = self.depth(region, points[position])
        close = depth >= -margin[position]
        return position[close] + first, region[close], depth[close], second[close]

    def depth(self, region: NDArray[np.int64], points: Floats) -> tuple[Floats, Floats]:
        """Return how deep positions lie in regions, one pair a row.

        Parameters
        ----------
        region
            Rows of this table, shape (m,).
        points
            Unit vectors, shape (m, 3).

        Returns
        -------
        tuple[NDArray, NDArray]
            Signed distances in degrees to the nearest and the second nearest edge, shape (m,).
        """
        sine = np.einsum("pek,pk->pe", self.normals[region], points)
        sine.partition(1, axis=1)
        distance = np.degrees(np.arcsin(np.clip(sine[:, :2], -1, 1)))
        return distance[:, 0], distance[:, 1]

    def of_tracts(self, tracts: Iterable[int]) -> NDArray[np.int64]:
        """Return the rows of some tracts, ascending."""
        return np.flatnonzero(np.isin(self.tract, list(tracts)))


def make_regions(
    tract: Sequence[int] | NDArray[np.int64],
    patch: Sequence[int] | NDArray[np.int64],
    vertices: Sequence[Floats],
) -> Regions:
    """Make regions of their vertices.

    Parameters
    ----------
    tract, patch
        Identifiers, n of each.
    vertices
        For each region the unit vectors of its vertices, shape (k, 3), in order round it, either way.

    Raises
    ------
    ValueError
        If a polygon has fewer than three vertices or is not convex.
    """
    edges = max((len(polygon) for polygon in vertices), default=3)
    normals = np.empty((len(vertices), edges, 3))
    centre = np.empty((len(vertices), 3))
    reach = np.empty(len(vertices))
    for row, polygon in enumerate(vertices):
        if len(polygon) < 3:
            raise ValueError(f"tract {tract[row]}, patch {patch[row]}: {len(polygon)} vertices")
        planes = np.cross(polygon, np.roll(polygon, -1, axis=0))
        planes /= np.linalg.norm(planes, axis=1, keepdims=True)
        middle = polygon.sum(axis=0)
        middle /= np.linalg.norm(middle)
        planes *= np.sign(planes @ middle).sum() / len(planes)
        # Every vertex is on the inner side of every edge, or on it.
        if not np.all(np.isfinite(planes)) or not np.all(polygon @ planes.T > -_ROUNDING):
            raise ValueError(f"tract {tract[row]}, patch {patch[row]}: not convex")
        normals[row] = planes[np.minimum(np.arange(edges), len(polygon) - 1)]
        centre[row] = middle
        reach[row] = np.arccos(np.clip(polygon @ middle, -1, 1)).max()
    return Regions(np.asarray(tract, np.int64), np.asarray(patch, np.int64), normals, centre, reach)


def join_regions(parts: Sequence[Regions]) -> Regions:
    """Return the regions of several tables as one, in their order."""
    if not parts:
        return make_regions([], [], [])
    edges = max(part.normals.shape[1] for part in parts)
    normals = [part.normals[:, np.minimum(np.arange(edges), part.normals.shape[1] - 1)] for part in parts]
    return Regions(
        np.concatenate([part.tract for part in parts]),
        np.concatenate([part.patch for part in parts]),
        np.concatenate(normals),
        np.concatenate([part.centre for part in parts]),
        np.concatenate([part.reach for part in parts]),
    )
