"""The margin cache: for each pixel of a catalog, the rows just outside of it.

A row is in the margin of a pixel if it lies in one of the small cells that touch the
pixel from outside; the cells' order is the highest whose cells are wider than the margin.
So a margin holds every row within the threshold, and some that are a little farther, as
with lsdb's and hats-import's own margins (``hats.pixel_math.get_margin``). Pixels without
any row of the catalog have margins, too: another catalog may have rows there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cdshealpix
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gzscale.catalog.align import complement, first_index
from gzscale.catalog.pixels import Partition
from gzscale.catalog.schema import HEALPIX_ORDER

__all__ = ["MarginFinder", "MarginSpill", "margin_order"]

#: Side of an average HEALPix pixel over the smallest distance across one, as hats estimates it.
_ASPECT = 1.6
#: Margin rows in memory before they go to the temporary folder.
_BUFFER_ROWS = 131_072
_EVEN_BITS = 0x5555555555555555


def margin_order(threshold: float) -> int:
    """Return the highest HEALPix order whose cells are wider than a threshold.

    Parameters
    ----------
    threshold
        Width of the margin in arcsec, positive.
    """
    side = np.radians(threshold / 3600) * _ASPECT
    return int(np.clip(np.log2(np.sqrt(np.pi / 3) / side), 0, HEALPIX_ORDER))


class MarginFinder:
    """Says in which pixels' margins a row is.

    Parameters
    ----------
    pixels
        The disjoint pixels of the catalog in sky order.
    threshold
        Width of the margin in arcsec.
    """

    def __init__(self, pixels: Sequence[Partition], threshold: float) -> None:
        self.tiles = sorted([*pixels, *complement(pixels)], key=first_index)
        self._starts = np.array([first_index(tile) for tile in self.tiles], dtype=np.int64)
        self._order = margin_order(threshold)

    def find(self, healpix: NDArray[np.int64], own: Partition) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (row, tile) pairs: row ``i`` is in the margin of ``tiles[j]``.

        Parameters
        ----------
        healpix
            Order-29 index of each row, shape (n,).
        own
            The pixel of the catalog that the rows are in.

        Returns
        -------
        tuple[NDArray[np.int64], NDArray[np.int64]]
            Rows, ascending, and tiles, ascending for each row, shape (n_pairs,).
        """
        shift = 2 * (HEALPIX_ORDER - self._order)
        cells = healpix >> shift
        rows = np.flatnonzero(self._on_border(cells, own))
        if not len(rows):
            return rows, rows
        unique, inverse = np.unique(cells[rows], return_inverse=True)
        around = cdshealpix.neighbours(unique.astype(np.uint64), np.uint8(self._order)).astype(np.int64)
        cell, neighbour = np.nonzero(around >= 0)
        first = around[cell, neighbour] << shift
        # Where pixels are smaller than cells, a cell holds several.
        low = np.searchsorted(self._starts, first, "right") - 1
        high = np.searchsorted(self._starts, first + (1 << shift), "left")
        cell = np.repeat(cell, high - low)
        tile = np.concatenate([np.arange(a, b) for a, b in zip(low, high, strict=True)])
        foreign = self._starts[tile] != first_index(own)
        pairs = np.unique(np.stack([cell[foreign], tile[foreign]]), axis=1)
        begin = np.searchsorted(pairs[0], np.arange(len(unique) + 1))
        count = np.diff(begin)[inverse]
        which = np.repeat(begin[inverse], count) + _ramp(count)
        return np.repeat(rows, count), pairs[1][which]

    def _on_border(self, cells: NDArray[np.int64], own: Partition) -> NDArray[np.bool_]:
        """Say which cells touch the border of their pixel from inside.

        The bits of a nested index inside a pixel interleave the cell's column and row; on the
        border all bits of one of them are 0, or all are 1.
        """
        if own.order >= self._order:
            return np.ones(len(cells), dtype=np.bool_)
        inside = cells & ((1 << 2 * (self._order - own.order)) - 1)
        even = _EVEN_BITS & ((1 << 2 * (self._order - own.order)) - 1)
        column, row = inside & even, (inside >> 1) & even
        return (column == 0) | (column == even) | (row == 0) | (row == even)


def _ramp(count: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 0, 1 ... count[0]-1, 0, 1 ... count[1]-1, and so on."""
    ends = np.cumsum(count)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) - np.repeat(ends - count, count)


class MarginSpill:
    """Margin rows on their way to their files, in bounded memory.

    Rows that were buffered go to the temporary folder as runs, each sorted by tile. Within a
    tile rows stay in the order in which they came.
    """

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self._folder = folder
        self._schema = schema
        self._tables: list[pa.Table] = []
        self._buffered_tiles: list[NDArray[np.int64]] = []
        self._buffered = 0
        self._runs: list[tuple[Path, NDArray[np.int64]]] = []

    def add(self, rows: pa.Table, tiles: NDArray[np.int64]) -> None:
        """Take rows and the tile that each of them is in the margin of."""
        if not rows.num_rows:
            return
        self._tables.append(rows)
        self._buffered_tiles.append(tiles)
        self._buffered += rows.num_rows
        if self._buffered >= _BUFFER_ROWS:
            self._spill()

    def _spill(self) -> None:
        if not self._tables:
            return
        tiles = np.concatenate(self._buffered_tiles)
        order = np.argsort(tiles, kind="stable")
        table = pa.concat_tables(self._tables).take(pa.array(order)).combine_chunks()
        path = self._folder / f"margin-{len(self._runs):05d}.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        self._runs.append((path, tiles[order]))
        self._tables, self._buffered_tiles, self._buffered = [], [], 0

    def tiles(self) -> list[int]:
        """Return every tile that has a margin row, ascending."""
        self._spill()
        found = [np.unique(tiles) for _, tiles in self._runs]
        return np.unique(np.concatenate(found)).tolist() if found else []

    def read(self, tiles: Sequence[int]) -> Iterator[pa.Table]:
        """Yield the margin of each tile, sorted by HEALPix index."""
        sources = [pa.memory_map(str(path)) for path, _ in self._runs]
        try:
            runs = [pa.ipc.open_file(source).read_all() for source in sources]
            for tile in tiles:
                pieces = [self._schema.empty_table()]
                for run, (_, run_tiles) in zip(runs, self._runs, strict=True):
                    low, high = np.searchsorted(run_tiles, [tile, tile + 1])
                    pieces.append(run.slice(int(low), int(high - low)))
                yield pa.concat_tables(pieces).combine_chunks()
        finally:
            for source in sources:
                source.close()
