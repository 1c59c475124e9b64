"""Which SDSS exposures (run, camcol, field) the stamps of a table of objects overlap."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gzscale.errors import Reason
from gzscale.surveys.footprints import Footprints
from gzscale.surveys.sdss_ids import decode_objid
from gzscale.surveys.tan import TanFrame, edge_distance

__all__ = ["Exposure", "FrameSource", "Overlaps", "find_exposures"]

#: The bands of one field are shifted against each other by up to 13 pixels (measured); room for more.
BAND_MARGIN = 32.0
#: Rows that neighbouring fields share: 128 in SDSS, twice that for safety.
FIELD_OVERLAP = 256
#: Fields to either side that a stamp may reach.
MAX_REACH = 8

Exposure = tuple[int, int, int]
"""run, camcol, field."""


@dataclass(frozen=True, slots=True)
class FrameSource:
    """Where frames are looked up.

    Attributes
    ----------
    frames
        Returns, for some exposures, the frame of each: a `TanFrame`, None if no band of it exists,
        or a message if it exists and cannot be read.
    index
        Footprints to search by position, if there are any.
    """

    frames: Callable[[Iterable[Exposure]], dict[Exposure, TanFrame | str | None]]
    index: Footprints | None


@dataclass(slots=True)
class Overlaps:
    """Rows by the exposure that their stamp may overlap, and the rows that none covers."""

    rows: dict[Exposure, list[NDArray[np.int64]]] = field(default_factory=dict)
    lost: dict[int, tuple[Reason, str]] = field(default_factory=dict)

    def add(self, exposure: Exposure, rows: NDArray[np.int64]) -> None:
        """Note that the stamps of some rows may overlap an exposure."""
        if len(rows):
            self.rows.setdefault(exposure, []).append(rows)


def find_exposures(rows: pa.Table, radius: NDArray[np.float64], source: FrameSource) -> Overlaps:
    """Find the exposures that the stamps of some objects overlap.

    An object's own exposure is named by the columns ``run``, ``camcol``, ``field``, else by its
    SDSS identifier, else found by position in the index. The position is then checked against the
    frame's WCS; where it falls outside, the neighbouring fields are tried, then the index. Fields of other
    runs that cover the same sky are not mixed in: seeing and sky differ.

    Parameters
    ----------
    rows, radius
        As `gzscale.surveys.base.Survey.find`.
    source
        Where frames are looked up.

    Returns
    -------
    Overlaps
        BAD_COORDINATES, BAD_ID, OFF_FOOTPRINT or MISSING_IMAGE for the rows that no exposure covers.
    """
    ra = rows["ra"].to_numpy().astype(np.float64)
    dec = rows["dec"].to_numpy().astype(np.float64)
    overlaps = Overlaps()
    search = _Search(ra, dec, np.asarray(radius, dtype=np.float64), source, overlaps)
    usable = np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90)
    for row in np.flatnonzero(~usable):
        overlaps.lost[int(row)] = (Reason.BAD_COORDINATES, f"ra {ra[row]}, dec {dec[row]} degrees")
    located, named = _locate(rows)
    search.own(located, np.flatnonzero(named & usable))
    search.by_position(np.flatnonzero(~named & usable), rows["object_id"].to_numpy())
    return overlaps


def _locate(rows: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return run, camcol, field of each row, shape (n, 3), and whether they are known."""
    ids = decode_objid(rows["object_id"].to_numpy())
    located = np.stack([ids.run, ids.camcol, ids.field], axis=1)
    known = ids.locates
    if {"run", "camcol", "field"} <= set(rows.column_names):
        columns = [
            rows[name].fill_null(-1).to_numpy().astype(np.int64) for name in ("run", "camcol", "field")
        ]
        mapped = np.stack(columns, axis=1)
        good = (mapped[:, 0] > 0) & (mapped[:, 1] >= 1) & (mapped[:, 1] <= 6) & (mapped[:, 2] >= 0)
        located[good] = mapped[good]
        known = known | good
    return located, known


def _by_exposure(
    located: NDArray[np.int64], rows: NDArray[np.int64]
) -> list[tuple[Exposure, NDArray[np.int64]]]:
    """Group rows by their exposure, in the exposures' order."""
    if not len(rows):
        return []
    exposures, inverse = np.unique(located[rows], axis=0, return_inverse=True)
    inverse = inverse.ravel()
    order = np.argsort(inverse, kind="stable")
    cuts = np.flatnonzero(np.diff(inverse[order])) + 1
    parts = np.split(rows[order], cuts)
    return [((int(e[0]), int(e[1]), int(e[2])), part) for e, part in zip(exposures, parts, strict=True)]


@dataclass(slots=True)
class _Search:
    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    radius: NDArray[np.float64]
    source: FrameSource
    overlaps: Overlaps

    def own(self, located: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        """Place rows whose exposure is named."""
        groups = _by_exposure(located, rows)
        frames = self.source.frames([exposure for exposure, _ in groups])
        homes: list[tuple[Exposure, NDArray[np.int64]]] = []
        strays: list[tuple[Exposure, NDArray[np.int64]]] = []
        for exposure, members in groups:
            frame = frames[exposure]
            if isinstance(frame, str):
                # It exists: opening it says what is wrong with it.
                self.overlaps.add(exposure, members)
                continue
            inside = self._inside(frame, members)
            homes.append((exposure, members[inside]))
            strays.append((exposure, members[~inside]))
        self._strays([(exposure, members) for exposure, members in strays if len(members)], homes, frames)
        self._spread(homes)

    def by_position(self, rows: NDArray[np.int64], object_id: NDArray[np.int64]) -> None:
        """Place rows whose identifier names no image."""
        if not len(rows):
            return
        if self.source.index is None:
            for row in rows:
                self.overlaps.lost[int(row)] = (
                    Reason.BAD_ID,
                    f"object_id {object_id[row]} is no SDSS identifier; map the columns run, camcol and "
                    "field, or name a footprint index with survey.options.index",
                )
            return
        for row in self._indexed(rows):
            self.overlaps.lost[int(row)] = (
                Reason.OFF_FOOTPRINT,
                f"ra {self.ra[row]:.6f}, dec {self.dec[row]:.6f}: no frame of the footprint index covers it",
            )

    # ---- steps

    def _inside(self, frame: TanFrame | str | None, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        if not isinstance(frame, TanFrame):
            return np.zeros(len(rows), dtype=bool)
        x, y = frame.pixels(self.ra[rows], self.dec[rows])
        return edge_distance(x, y, frame.shape) >= 0

    def _strays(
        self,
        strays: list[tuple[Exposure, NDArray[np.int64]]],
        homes: list[tuple[Exposure, NDArray[np.int64]]],
        frames: dict[Exposure, TanFrame | str | None],
    ) -> None:
        """Place rows that are not on the frame that they name: neighbours, its margin, the index."""
        around = self.source.frames([_beside(exposure, k) for exposure, _ in strays for k in (-1, 1)])
        for exposure, members in strays:
            left = members
            for k in (-1, 1):
                inside = self._inside(around[_beside(exposure, k)], left)
                homes.append((_beside(exposure, k), left[inside]))
                left = left[~inside]
            frame = frames[exposure]
            if isinstance(frame, TanFrame):
                x, y = frame.pixels(self.ra[left], self.dec[left])
                distance = edge_distance(x, y, frame.shape)
                # Just off the reference band may be just on another.
                homes.append((exposure, left[distance >= -BAND_MARGIN]))
                left = left[distance < -BAND_MARGIN]
            if self.source.index is not None:
                left = self._indexed(left)
            for row in left:
                self.overlaps.lost[int(row)] = self._stray_reason(exposure, frame, int(row))

    def _stray_reason(self, exposure: Exposure, frame: TanFrame | str | None, row: int) -> tuple[Reason, str]:
        name = "run {}, camcol {}, field {}".format(*exposure)
        if frame is None:
            return Reason.MISSING_IMAGE, f"no band of {name} exists below survey.root; fetch its frames"
        return (
            Reason.OFF_FOOTPRINT,
            f"ra {self.ra[row]:.6f}, dec {self.dec[row]:.6f} is not on {name}, which the object names, nor "
            "on the fields beside it; check the catalog's columns, or name a footprint index with "
            "survey.options.index",
        )

    def _indexed(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Place rows by position; return those that no frame of the index covers."""
        index = self.source.index
        if index is None or not len(rows):
            return rows
        found = index.search(self.ra[rows], self.dec[rows])
        groups = _by_exposure(index.exposures[np.maximum(found, 0)], np.flatnonzero(found >= 0))
        frames = self.source.frames([exposure for exposure, _ in groups])
        homes = []
        for exposure, members in groups:
            if isinstance(frames[exposure], TanFrame):
                homes.append((exposure, rows[members]))
            else:
                self.overlaps.add(exposure, rows[members])
        self._spread(homes)
        return rows[found < 0]

    def _spread(self, homes: list[tuple[Exposure, NDArray[np.int64]]]) -> None:
        """Add each home exposure, and every neighbouring field that its rows' stamps overlap."""
        homes = [(exposure, members) for exposure, members in homes if len(members)]
        frames = self.source.frames([exposure for exposure, _ in homes])
        reached: list[tuple[Exposure, NDArray[np.int64]]] = []
        for exposure, members in homes:
            self.overlaps.add(exposure, members)
            frame = frames[exposure]
            if isinstance(frame, TanFrame):
                reached += self._reached(exposure, frame, members)
        beside = self.source.frames([exposure for exposure, _ in reached])
        for exposure, members in reached:
            other = beside[exposure]
            if isinstance(other, TanFrame):
                members = members[self._touches(other, members)]
            elif other is None:
                continue
            self.overlaps.add(exposure, members)

    def _reached(
        self, exposure: Exposure, frame: TanFrame, rows: NDArray[np.int64]
    ) -> list[tuple[Exposure, NDArray[np.int64]]]:
        """List the neighbouring fields that stamps may reach, by the home frame's own pixels."""
        _, y = frame.pixels(self.ra[rows], self.dec[rows])
        reach = self.radius[rows] / frame.scale + BAND_MARGIN
        ny = frame.shape[0]
        step = max(ny - FIELD_OVERLAP, ny // 2)
        found = []
        for k in range(1, MAX_REACH + 1):
            # Field numbers grow with the row.
            above = rows[y + reach >= k * step]
            below = rows[y - reach <= ny - k * step]
            found += [(_beside(exposure, k), above), (_beside(exposure, -k), below)]
        return [(other, members) for other, members in found if len(members) and other[2] >= 0]

    def _touches(self, frame: TanFrame, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        x, y = frame.pixels(self.ra[rows], self.dec[rows])
        return edge_distance(x, y, frame.shape) >= -(self.radius[rows] / frame.scale + BAND_MARGIN)


def _beside(exposure: Exposure, step: int) -> Exposure:
    return exposure[0], exposure[1], exposure[2] + step
