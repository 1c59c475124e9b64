"""A catalog parted into HEALPix pixels of at most N objects each, on disk, in a bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gzscale.catalog.pixels import Partition, find_partitions
from gzscale.catalog.read import CatalogReader
from gzscale.catalog.sorting import SkySort, read_quarantine, run_path
from gzscale.catalog.spool import read_run
from gzscale.errors import CatalogError, StorageError

__all__ = ["Partition", "PartitionedCatalog", "partition_catalog"]


@dataclass(frozen=True)
class PartitionedCatalog:
    """A catalog on the local disk, sorted on the sky and parted. See `partition_catalog`.

    It holds no open files, can be sent to other processes of the same machine, and is
    read one partition at a time.

    Attributes
    ----------
    work
        The folder that holds it.
    planned
        Rows of the input catalog, those in quarantine included.
    partitions
        Every partition with its number of objects, in the order of the sky (by HEALPix
        index); the numbers and `quarantined` add up to `planned`.
    quarantined
        Reason -> number of rows, sorted by reason.
    """

    work: Path
    planned: int
    partitions: list[tuple[Partition, int]]
    quarantined: dict[str, int]
    _spans: dict[Partition, tuple[int, int]]
    _run_starts: NDArray[np.int64]

    def rows(self, partition: Partition) -> pa.Table:
        """Return a partition's objects, sorted by (``_healpix_29``, ``object_id``).

        Returns
        -------
        pa.Table
            ``_healpix_29``, ``object_id`` (int64), ``ra``, ``dec`` (float64, degrees), and as far
            as they are mapped ``size`` (float32, arcsec), ``ebv`` (float32, magnitudes), ``run``,
            ``camcol``, ``field`` (int32); these five may be null.

        Raises
        ------
        CatalogError
            If there is no such partition.
        """
        if partition not in self._spans:
            raise CatalogError(f"{partition.path} is not a partition of this catalog")
        start, stop = self._spans[partition]
        run = int(np.searchsorted(self._run_starts, start, side="right")) - 1
        pieces = []
        while start < stop:
            begin, end = int(self._run_starts[run]), int(self._run_starts[run + 1])
            pieces.append(read_run(run_path(self.work, run), start - begin, min(stop, end) - begin))
            start, run = end, run + 1
        return pa.concat_tables(pieces).combine_chunks()

    def quarantine(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows that are not in any partition, in the columns of the quarantine table.

        See `gzscale.catalog.sorting.read_quarantine` for their order.
        """
        return read_quarantine(self.work)


def partition_catalog(reader: CatalogReader, work: Path, max_objects: int) -> PartitionedCatalog:
    """Part a catalog into HEALPix pixels of at most ``max_objects`` objects.

    A pixel with more objects is parted into its four children, from order 0 on, as HATS does;
    a pixel without objects is not made. A partition depends on nothing but the objects
    inside it and on its parent having more than ``max_objects``: objects that are added
    elsewhere change nothing here. More than ``max_objects`` objects within one pixel of
    `MAX_ORDER` stay together in it.

    The result does not depend on the order of the catalog's rows, except that of several
    usable rows with one identifier the first is kept. A row that is quarantined for
    another reason claims no identifier.

    Memory is bounded whatever the number of rows: a chunk of the catalog, the distinct
    identifiers of one bucket, or one stretch of the sky. Only objects at one and the
    same HEALPix index of order 29 (0.4 milliarcsec) are always held together. The disk
    takes about 120 bytes a row at its peak.

    Parameters
    ----------
    reader
        The catalog.
    work
        Local folder that will hold the result; what an earlier call left there is removed.
    max_objects
        At least 1.

    Raises
    ------
    CatalogError
        If a file of the catalog is damaged.
    StorageError
        If ``work`` cannot be written.
    """
    if max_objects < 1:
        raise ValueError(f"max_objects is {max_objects}; a partition has at least 1 object")
    try:
        sort = SkySort(reader, work)
        sort.deal()
        found = list(find_partitions(sort.indices(), max_objects))
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(
            f"{work}: {error}; partitioning needs about 120 bytes of local disk a row: free space, "
            "or choose another work folder, then run the same command again"
        ) from error
    spans: dict[Partition, tuple[int, int]] = {}
    start = 0
    for partition, count in found:
        spans[partition] = (start, start + count)
        start += count
    run_starts = np.concatenate([[0], np.cumsum(sort.run_sizes)]).astype(np.int64)
    return PartitionedCatalog(
        work, sort.planned, found, dict(sorted(sort.reasons.items())), spans, run_starts
    )
