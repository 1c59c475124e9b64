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
from gzscale.catalog.sorting import SkySort, read_changes, read_quarantine, run_path
from gzscale.catalog.spool import read_run
from gzscale.catalog.union import Changes, Known
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
        Objects, and rows of the input catalog that are in quarantine.
    partitions
        Every partition with its number of objects, in the order of the sky (by HEALPix
        index); the numbers and `quarantined` add up to `planned`.
    quarantined
        Reason -> number of rows, sorted by reason.
    changes
        What the input catalog says beside what was known.
    """

    work: Path
    planned: int
    partitions: list[tuple[Partition, int]]
    quarantined: dict[str, int]
    changes: Changes
    _spans: dict[Partition, tuple[int, int]]
    _run_starts: NDArray[np.int64]

    def rows(self, partition: Partition) -> pa.Table:
        """Return a partition's objects, sorted by (``_healpix_29``, ``object_id``).

        Returns
        -------
        pa.Table
            ``_healpix_29``, ``object_id`` (int64), ``ra``, ``dec`` (float64, degrees), and as far
            as they are mapped ``size`` (float32, arcsec), ``ebv`` (float32, magnitudes), ``run``,
            ``camcol``, ``field`` (int32), ``version`` (int64); these six may be null.

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

    def changed_objects(self) -> Iterator[pa.RecordBatch]:
        """Yield ``object_id`` and ``change`` of each object that is not as it was, or that a delta names.

        None where nothing was known before: every object is new.
        """
        return read_changes(self.work)


def partition_catalog(
    reader: CatalogReader, work: Path, max_objects: int, known: Known | None = None
) -> PartitionedCatalog:
    """Part a catalog into HEALPix pixels of at most ``max_objects`` objects.

    A pixel with more objects is parted into its four children, from order 0 on, as HATS does;
    a pixel without objects is not made. A partition depends on nothing but the objects
    inside it and on its parent having more than ``max_objects``: objects that are added
    elsewhere change nothing here. More than ``max_objects`` objects within one pixel of
    `MAX_ORDER` stay together in it.

    Of several usable rows with one identifier the newest is kept, and of equal versions the first; but for
    that the result does not depend on the order of the catalog's rows. A row that is quarantined for
    another reason claims no identifier.

    Where known objects are joined, the result is their union with the catalog: the newest wins, of equal
    versions the catalog's row, and objects that it says are removed are left out. A removal is not
    remembered: an older row of the object that comes later makes it anew.

    Memory is bounded: a chunk of the catalog, one of 128 buckets of identifiers (with
    what is known of them), or one stretch of the sky. Only objects at one and the
    same HEALPix index of order 29 (0.4 milliarcsec) are always held together. The disk
    takes about 120 bytes a row at its peak, given or known.

    Parameters
    ----------
    reader
        The catalog.
    work
        Local folder that will hold the result; what an earlier call left there is removed.
    max_objects
        At least 1.
    known
        Objects that are known already; none by default.

    Raises
    ------
    CatalogError
        If a file of the catalog is damaged, or its columns are not those of the objects that it is joined to.
    StorageError
        If ``work`` cannot be written.
    """
    if max_objects < 1:
        raise ValueError(f"max_objects is {max_objects}; a partition has at least 1 object")
    try:
        sort = SkySort(reader, work, known or Known())
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
    changes = sort.changes
    if not changes.closes or changes.objects != start:
        raise AssertionError(f"{start} objects are parted, and the account of them does not close: {changes}")
    planned = changes.objects + changes.quarantined
    reasons = dict(sorted(sort.reasons.items()))
    return PartitionedCatalog(work, planned, found, reasons, changes, spans, run_starts)
