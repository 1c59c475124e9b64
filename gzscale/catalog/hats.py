"""Writes one task's released catalog as a HATS collection: catalog, margin cache, id index.

The night's partitions are merged into release pixels and written one row group at a time,
so memory is a function of the row group, never of the survey. What the margin cache and
the id index need is set aside in a temporary folder on the way (about 25 bytes an object,
and the few rows next to a pixel's border). The bytes that are written depend on the rows,
the columns, the names and the configuration alone.
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
from hats.catalog.dataset.collection_properties import CollectionProperties

from gzscale.catalog.align import ReleasePixel, align
from gzscale.catalog.index import IdIndex
from gzscale.catalog.margin import MarginFinder, MarginSpill
from gzscale.catalog.member import SKYMAP_ORDER, Member, builder
from gzscale.catalog.pixels import Partition
from gzscale.catalog.schema import HEALPIX_COLUMN, HEALPIX_ORDER, ID_COLUMN, INDEX_COLUMNS, Column
from gzscale.catalog.shelf import ROW_GROUP_ROWS, Shelf
from gzscale.catalog.stream import checked_tables, row_groups
from gzscale.config import ReleaseConfig
from gzscale.errors import StorageError
from gzscale.memory import return_freed_memory
from gzscale.storage import Storage

__all__ = ["write_collection"]


def write_collection(
    source: Callable[[Partition], pa.Table] | Iterable[pa.Table],
    partitions: Sequence[tuple[Partition, int]],
    columns: tuple[Column, ...],
    destination: Storage,
    prefix: str,
    name: str,
    config: ReleaseConfig,
) -> dict[str, tuple[str, int]]:
    """Write a HATS collection, and return the inventory of what was written.

    Parameters
    ----------
    source
        Gives the rows of a partition, sorted by (``_healpix_29``, ``object_id``): called from
        several threads, once a partition that has rows, so that an object store's latency
        is hidden. Or the tables of those partitions themselves, in the order of the sky.
    partitions
        Disjoint partitions and their numbers of rows; empty ones may be among them.
    columns
        Columns of the released catalog, `release_columns` of a task. Others that the source
        gives are left out.
    destination, prefix
        The collection is written below this prefix. What else is stored there is removed.
    name
        Of the collection and of the catalog in it: the task's.
    config
        Rows of a released pixel at most, and the margin's width (0: no margin cache).

    Returns
    -------
    dict[str, tuple[str, int]]
        Key in ``destination`` -> (SHA-256, size in bytes) of every file.

    Raises
    ------
    CatalogError
        If partitions overlap or a column is missing or of another type.
    DamageError
        If the rows of a partition are not those that its number of rows and its pixel promise.
    StorageError
        If the storage refuses.
    """
    pixels = align(partitions, config.max_rows)
    with _temporary_folder() as folder:
        shelf = Shelf(destination, folder)
        found = [each.pixel for each in pixels]
        release = _Release(shelf, folder, f"{prefix}/{name}", columns, found, config)
        counts = dict(partitions)
        parts = [(part, counts[part]) for each in pixels for part in each.parts]
        tables = checked_tables(source, parts, release.catalog.schema)
        for each in pixels:
            release.write_pixel(each, tables)
        release.finish()
    for entry in list(destination.list(prefix)):
        if entry.key not in shelf.inventory:
            destination.delete(entry.key)
    return shelf.inventory


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """Make a folder for the time of a release; say what to do when its disk is full."""
    with tempfile.TemporaryDirectory(prefix="gzscale-release-") as folder:
        try:
            yield Path(folder)
        except OSError as error:
            if isinstance(error, StorageError) or error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            raise StorageError(
                f"{folder}: {error.strerror}; a release needs room for one of its files and 25 bytes an "
                "object: free space there, or set TMPDIR to another disk"
            ) from error


class _Release:
    """The members of a collection while they are written."""

    def __init__(
        self,
        shelf: Shelf,
        folder: Path,
        root: str,
        columns: tuple[Column, ...],
        pixels: list[Partition],
        config: ReleaseConfig,
    ) -> None:
        self._shelf = shelf
        self._prefix, _, name = root.rpartition("/")
        self._columns = columns
        self._config = config
        self._pixels = pixels
        self.catalog = Member(shelf, root, columns, f"Released catalog of gzscale: {name}")
        self._finder = MarginFinder(pixels, config.margin) if config.margin else None
        self._spill = MarginSpill(folder, self.catalog.schema)
        self._ids = IdIndex(folder)
        self._sky = np.zeros(12 << 2 * SKYMAP_ORDER, dtype=np.int64)
        self._first_rows: list[pa.Table] = []

    def write_pixel(self, each: ReleasePixel, tables: Iterator[pa.Table]) -> None:
        """Write one data file from the next partitions, and note what the other members need."""

        def groups() -> Iterator[pa.Table]:
            taken = (next(tables) for _ in each.parts)
            first = True
            # Not enumerated: that would keep each group until the next one is there.
            for group in row_groups(taken, ROW_GROUP_ROWS):
                if first:
                    self._first_rows.append(group.take([0]))
                    first = False
                self._note(group, each.pixel)
                yield group
                # The next one is gathered without it.
                del group

        self.catalog.write(f"{each.pixel.path}.parquet", groups())
        return_freed_memory()

    def _note(self, group: pa.Table, pixel: Partition) -> None:
        healpix = group[HEALPIX_COLUMN].to_numpy()
        cell, count = np.unique(healpix >> 2 * (HEALPIX_ORDER - SKYMAP_ORDER), return_counts=True)
        self._sky[cell] += count
        self._ids.add(group[ID_COLUMN].to_numpy(), healpix, pixel)
        if self._finder is not None:
            rows, tiles = self._finder.find(healpix, pixel)
            self._spill.add(group.take(pa.array(rows)), tiles)

    def finish(self) -> None:
        """Write all that is not the catalog's data files."""
        self.catalog.write_skymap(self._sky)
        self.catalog.write_thumbnail(self._first_rows)
        self.catalog.finish_sky("object", self._pixels, skymap_order=SKYMAP_ORDER)
        margins = [self._write_margin(self._finder)] if self._finder is not None else None
        index = self._write_index()
        values = {
            "name": self.catalog.name,
            "hats_primary_table_url": self.catalog.name,
            "all_margins": margins,
            "default_margin": margins[0] if margins else None,
            "all_indexes": {ID_COLUMN: index},
            "default_index": ID_COLUMN,
            "hats_builder": builder(),
        }
        with tempfile.TemporaryDirectory(prefix="gzscale-hats-") as folder:
            CollectionProperties.model_validate(values).to_properties_file(folder)
            data = Path(folder, "collection.properties").read_bytes()
        self._shelf.put(f"{self._prefix}/collection.properties", data)

    def _write_margin(self, finder: MarginFinder) -> str:
        threshold = self._config.margin
        member = Member(
            self._shelf,
            f"{self._prefix}/{self.catalog.name}_{threshold:g}arcs",
            self._columns,
            f"Rows within {threshold:g} arcsec outside each pixel of {self.catalog.name}",
        )
        numbers = self._spill.tiles()
        tiles = [finder.tiles[number] for number in numbers]
        for tile, table in zip(tiles, self._spill.read(numbers), strict=True):
            member.write_table(f"{tile.path}.parquet", table)
        member.finish_sky(
            "margin", tiles, primary_catalog=self.catalog.name, margin_threshold=float(threshold)
        )
        return member.name

    def _write_index(self) -> str:
        member = Member(
            self._shelf,
            f"{self._prefix}/{self.catalog.name}_{ID_COLUMN}_index",
            INDEX_COLUMNS,
            f"Where in {self.catalog.name} each {ID_COLUMN} is",
        )
        for number, groups in enumerate(self._ids.parts(self._config.max_rows, ROW_GROUP_ROWS)):
            member.write(f"index/part.{number}.parquet", groups, (ID_COLUMN,))
        member.finish("index", primary_catalog=self.catalog.name, indexing_column=ID_COLUMN)
        return member.name
