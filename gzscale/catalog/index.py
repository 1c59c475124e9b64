"""The id index: every identifier of a release in order, and the file that has it.

An external sort: sorted runs in a temporary folder, then one part of the index after the
other, each gathered from the runs between two splitters. Memory is that of one part's entries; its
tables are made a row group at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gzscale.catalog.pixels import Partition
from gzscale.catalog.schema import INDEX_COLUMNS, arrow_schema

__all__ = ["IdIndex"]

#: Entries in memory before they go to the temporary folder as one sorted run (25 bytes each).
_RUN_ROWS = 1 << 18
#: One identifier in this many is remembered, to find the splitters with.
_SAMPLE = 1024
#: How much later the first one is in each further run, before it begins anew.
_STEP = 619

_ENTRY = np.dtype([("id", np.int64), ("healpix", np.int64), ("order", np.uint8), ("pixel", np.int64)])


class IdIndex:
    """Collects (identifier, position, pixel), and gives them back sorted by identifier."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._buffer: list[NDArray[np.void]] = []
        self._buffered = 0
        self._runs: list[Path] = []
        self._samples: list[NDArray[np.int64]] = []
        self.rows = 0

    def add(self, ids: NDArray[np.int64], healpix: NDArray[np.int64], pixel: Partition) -> None:
        """Take the identifiers and order-29 indices of some rows of one release pixel."""
        entries = np.empty(len(ids), dtype=_ENTRY)
        entries["id"] = ids
        entries["healpix"] = healpix
        entries["order"] = pixel.order
        entries["pixel"] = pixel.pixel
        self._buffer.append(entries)
        self._buffered += len(ids)
        self.rows += len(ids)
        if self._buffered >= _RUN_ROWS:
            self._spill()

    def _spill(self) -> None:
        if not self._buffered:
            return
        run = _sorted(np.concatenate(self._buffer))
        path = self._folder / f"ids-{len(self._runs):05d}"
        path.write_bytes(run.tobytes())
        self._runs.append(path)
        # Not the same ones of each run: those of runs that are alike would all say the same.
        first = len(self._samples) * _STEP % min(_SAMPLE, len(run))
        self._samples.append(run["id"][first::_SAMPLE].copy())
        self._buffer, self._buffered = [], 0

    def parts(self, max_rows: int, group_rows: int) -> Iterator[Iterator[pa.Table]]:
        """Yield the index in parts, and each part in row groups, sorted across all of them.

        Parameters
        ----------
        max_rows
            About how many rows a part has.
        group_rows
            How many a row group has, but for the last of a part.

        Yields
        ------
        Iterator[pyarrow.Table]
            Tables of `INDEX_COLUMNS`, to be taken before the next part is. Rows of one identifier are
            never in two parts. Nothing is yielded if nothing was added.
        """
        self._spill()
        if not self.rows:
            return
        samples = np.sort(np.concatenate(self._samples))
        count = -(-self.rows // max_rows)
        splitters = np.unique(samples[(np.arange(1, count) * len(samples)) // count])
        limits = np.array([_limits(path, splitters) for path in self._runs])
        for part in np.flatnonzero((np.diff(limits) > 0).any(axis=0)).tolist():
            yield _groups(self._gathered(limits[:, part : part + 2]), group_rows)

    def _gathered(self, bounds: NDArray[np.int64]) -> NDArray[np.void]:
        """Read a stretch of each run into one array; ``bounds`` are its first entry and the one behind it."""
        entries = np.empty(int(np.diff(bounds).sum()), dtype=_ENTRY)
        place = 0
        for path, (start, end) in zip(self._runs, bounds.tolist(), strict=True):
            piece = np.fromfile(path, _ENTRY, end - start, offset=start * _ENTRY.itemsize)
            entries[place : place + len(piece)] = piece
            place += len(piece)
        return entries


def _limits(path: Path, splitters: NDArray[np.int64]) -> list[int]:
    """Return where each part begins in a sorted run, and where the last one ends."""
    ids = np.fromfile(path, _ENTRY)["id"]
    return [0, *np.searchsorted(ids, splitters).tolist(), len(ids)]


def _groups(entries: NDArray[np.void], rows: int) -> Iterator[pa.Table]:
    order = np.lexsort((entries["healpix"], entries["id"]))
    for first in range(0, len(order), rows):
        yield _table(entries[order[first : first + rows]])


def _sorted(entries: NDArray[np.void]) -> NDArray[np.void]:
    return entries[np.lexsort((entries["healpix"], entries["id"]))]


def _table(entries: NDArray[np.void]) -> pa.Table:
    pixel = np.ascontiguousarray(entries["pixel"])
    columns = [
        np.ascontiguousarray(entries["id"]),
        np.ascontiguousarray(entries["healpix"]),
        np.ascontiguousarray(entries["order"]),
        pixel // 10_000 * 10_000,
        pixel,
    ]
    return pa.table([pa.array(column) for column in columns], schema=arrow_schema(INDEX_COLUMNS))
