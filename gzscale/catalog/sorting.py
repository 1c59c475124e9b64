"""A catalog sorted along the sky on the local disk, freed of bad rows and duplicates.

Three passes, each of which holds one chunk or bucket at a time:

1. the catalog is read once, its bad rows are put to quarantine and the others dealt into
   buckets by a hash of their identifier; so are the objects that are known already;
2. each of these buckets is freed of duplicates and held against what is known of its identifiers, and the
   rows that stay are dealt into buckets that are stretches of the sky (their bounds are quantiles of a
   sample, so they are about equally full);
3. each stretch is sorted by (HEALPix index, identifier) into a run.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gzscale.catalog.read import BATCH_ROWS, CatalogReader
from gzscale.catalog.rows import duplicate_rows, split_rows
from gzscale.catalog.schema import HEALPIX_COLUMN, QUARANTINE_SCHEMA
from gzscale.catalog.spool import Buckets, regroup, write_run
from gzscale.catalog.union import CHANGES_SCHEMA, Changes, Comparison, Known, conform

__all__ = ["SkySort", "read_changes", "read_quarantine", "run_path"]

#: Rows that are held while the catalog is read.
CHUNK_ROWS = 1 << 19
#: Buckets by identifier; only their number of distinct identifiers is held at a time.
ID_BUCKETS = 128
#: Buckets of quarantined rows by identifier, a power of two.
QUARANTINE_BUCKETS = 16
#: Rows of a stretch of the sky, and the largest number of stretches (open files).
STRETCH_ROWS = 1 << 20
MAX_STRETCHES = 256
#: Sampled positions at most, from which the stretches are bounded.
SAMPLE_ROWS = 1 << 18

_IDENTIFIERS, _KNOWN, _STRETCHES, _RUNS, _QUARANTINE, _CHANGES = (
    "identifiers",
    "known",
    "stretches",
    "runs",
    "quarantine",
    "changes",
)


class SkySort:
    """One sort of one catalog: `deal`, then `indices`.

    Attributes
    ----------
    changes
        What the catalog says beside what is known.
    reasons
        Number of quarantined rows by reason.
    run_sizes
        Rows of each run that was written.
    """

    def __init__(self, reader: CatalogReader, work: Path, known: Known) -> None:
        self._reader = reader
        self._work = work
        self._known = known
        self._sample = _Sample()
        self._stretches = 0
        self.changes = Changes()
        self.reasons: Counter[str] = Counter()
        self.run_sizes: list[int] = []
        for name in (_IDENTIFIERS, _KNOWN, _STRETCHES, _RUNS, _QUARANTINE, _CHANGES):
            shutil.rmtree(work / name, ignore_errors=True)
            (work / name).mkdir(parents=True)
        self._schema = pa.schema([pa.field(HEALPIX_COLUMN, pa.int64()), *reader.schema])

    def deal(self) -> None:
        """Read the catalog, drop bad rows and duplicates, deal the rest into stretches of the sky."""
        with Buckets(self._work / _QUARANTINE, QUARANTINE_SCHEMA) as quarantine:
            good = self._deal_by_identifier(quarantine) + self._deal_known()
            bounds = self._sample.bounds(min(MAX_STRETCHES, -(-good // STRETCH_ROWS)))
            self._deal_by_position(quarantine, bounds)
        self.changes.quarantined = self.reasons.total()
        self._stretches = len(bounds) + 1

    def indices(self) -> Iterator[NDArray[np.int64]]:
        """Sort each stretch into a run, and yield its HEALPix indices (order 29, ascending)."""
        stretches = Buckets(self._work / _STRETCHES, self._schema)
        for stretch in range(self._stretches):
            table = pa.Table.from_batches(stretches.read(stretch), self._schema)
            table = table.drop_columns([name for name in ("row", "removed") if name in table.column_names])
            index = table[HEALPIX_COLUMN].to_numpy()
            order = np.lexsort((table["object_id"].to_numpy(), index))
            write_run(run_path(self._work, stretch), table.take(pa.array(order)))
            self.run_sizes.append(table.num_rows)
            stretches.remove(stretch)
            yield index[order]

    def _deal_by_identifier(self, quarantine: Buckets) -> int:
        """Read the catalog; return the number of good rows, duplicates included."""
        with Buckets(self._work / _IDENTIFIERS, self._schema) as buckets:
            good_rows = 0
            for chunk in regroup(self._reader.batches(min(BATCH_ROWS, CHUNK_ROWS)), CHUNK_ROWS):
                self.changes.given += chunk.num_rows
                good, bad = split_rows(chunk, self._reader.name)
                self._put_aside(bad, quarantine)
                good_rows += good.num_rows
                index = pa.array(_spatial_index(good))
                self._deal(pa.RecordBatch.from_arrays([index, *good.columns], schema=self._schema), buckets)
        return good_rows

    def _deal_known(self) -> int:
        """Deal what is known by identifier; return the number of rows that may stay."""
        rows = 0
        with Buckets(self._work / _KNOWN, self._schema) as buckets:
            pieces = (
                conform(partition, table, self._schema, self._known.joined)
                for partition, table in self._known.pieces
            )
            for chunk in regroup(pieces, CHUNK_ROWS):
                self._deal(chunk, buckets)
                rows += chunk.num_rows
        return rows if self._known.joined else 0

    def _deal(self, rows: pa.RecordBatch, buckets: Buckets) -> None:
        hashed = _hash(_numbers(rows, "object_id"))
        self._sample.add(_numbers(rows, HEALPIX_COLUMN), hashed)
        buckets.append(rows, (hashed % np.uint64(ID_BUCKETS)).astype(np.uint8))

    def _deal_by_position(self, quarantine: Buckets, bounds: NDArray[np.int64]) -> None:
        """Keep the newest row of each identifier; deal what is kept into stretches of the sky."""
        identified = Buckets(self._work / _IDENTIFIERS, self._schema)
        known = Buckets(self._work / _KNOWN, self._schema)
        with (
            Buckets(self._work / _STRETCHES, self._schema) as stretches,
            Buckets(self._work / _CHANGES, CHANGES_SCHEMA) as changes,
        ):

            def place(rows: pa.RecordBatch) -> None:
                indices = _numbers(rows, HEALPIX_COLUMN)
                stretches.append(rows, np.searchsorted(bounds, indices, side="right"))

            def note(rows: pa.RecordBatch) -> None:
                # Where nothing was known, everything is new: that need not be said of each object.
                if self._known.pieces:
                    changes.append(rows, np.zeros(rows.num_rows, np.int64))

            for bucket in range(ID_BUCKETS):
                newest = _Newest()
                for chunk in regroup(identified.read(bucket), CHUNK_ROWS):
                    newest.add(chunk)
                before = pa.Table.from_batches(known.read(bucket), self._schema)
                comparison = Comparison(before, self._known.joined, self.changes, note)
                for chunk in regroup(identified.read(bucket), CHUNK_ROWS):
                    kept = newest.kept(_numbers(chunk, "object_id"))
                    wins = kept == _numbers(chunk, "row")
                    others = chunk.filter(pa.array(~wins))
                    self._put_aside(duplicate_rows(others, kept[~wins], self._reader.name), quarantine)
                    place(comparison.take(chunk.filter(pa.array(wins))))
                for rest in comparison.rest().to_batches():
                    place(rest)
                identified.remove(bucket)
                known.remove(bucket)

    def _put_aside(self, rows: pa.RecordBatch, quarantine: Buckets) -> None:
        if not rows.num_rows:
            return
        self.reasons.update(rows.column("reason").to_pylist())
        identifiers = rows.column("object_id")
        missing = identifiers.is_null().to_numpy(zero_copy_only=False)
        hashed = _hash(identifiers.fill_null(0).to_numpy())
        # The leading bits: buckets read one after the other are in the order of the hash.
        buckets = (hashed >> np.uint64(64 - (QUARANTINE_BUCKETS - 1).bit_length())).astype(np.int64)
        quarantine.append(rows, np.where(missing, QUARANTINE_BUCKETS, buckets))


class _Sample:
    """HEALPix indices of a few of the rows, chosen by the hash of their identifier."""

    def __init__(self) -> None:
        self._index = np.empty(0, np.int64)
        self._hash = np.empty(0, np.uint64)

    def add(self, index: NDArray[np.int64], hashed: NDArray[np.uint64]) -> None:
        self._index = np.concatenate([self._index, index])
        self._hash = np.concatenate([self._hash, hashed])
        if len(self._index) > SAMPLE_ROWS:
            # Always the smallest hashes of all so far: a fair sample, whatever the chunks.
            chosen = np.argpartition(self._hash, SAMPLE_ROWS)[:SAMPLE_ROWS]
            self._index, self._hash = self._index[chosen], self._hash[chosen]

    def bounds(self, stretches: int) -> NDArray[np.int64]:
        """Return the first index of each stretch but the first, ascending, each once."""
        if stretches < 2:
            return np.empty(0, np.int64)
        ranks = np.arange(1, stretches) * len(self._index) // stretches
        return np.unique(np.sort(self._index)[ranks])


class _Newest:
    """The identifiers that one bucket had so far, and the row of each that is kept: the newest, or first."""

    def __init__(self) -> None:
        self._identifiers = np.empty(0, np.int64)
        self._versions = np.empty(0, np.int64)
        self._rows = np.empty(0, np.int64)

    def add(self, chunk: pa.RecordBatch) -> None:
        """Look at more rows."""
        versioned = "version" in chunk.schema.names
        versions = _numbers(chunk, "version") if versioned else np.zeros(chunk.num_rows, np.int64)
        identifiers = np.concatenate([self._identifiers, _numbers(chunk, "object_id")])
        versions = np.concatenate([self._versions, versions])
        rows = np.concatenate([self._rows, _numbers(chunk, "row")])
        # ~version falls as the version rises, and does not overflow.
        order = np.lexsort((rows, ~versions, identifiers))
        ordered = identifiers[order]
        order = order[np.r_[True, ordered[1:] != ordered[:-1]]]
        self._identifiers, self._versions, self._rows = identifiers[order], versions[order], rows[order]

    def kept(self, identifiers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row that is kept for each identifier; all of them were looked at."""
        return self._rows[np.searchsorted(self._identifiers, identifiers)]


def _spatial_index(rows: pa.RecordBatch) -> NDArray[np.int64]:
    """Return HEALPix indices of order 29, nested; 0 for a removed object without a position."""
    # hats takes two seconds to import, and commands that only read do without.
    from hats.pixel_math.spatial_index import compute_spatial_index

    ra, dec = (rows.column(name).to_numpy(zero_copy_only=False) for name in ("ra", "dec"))
    with np.errstate(invalid="ignore"):
        placed = (ra >= 0) & (ra < 360) & (dec >= -90) & (dec <= 90)
    index: NDArray[np.int64] = compute_spatial_index(np.where(placed, ra, 0.0), np.where(placed, dec, 0.0))
    return np.where(placed, index, 0)


def read_quarantine(work: Path) -> Iterator[pa.RecordBatch]:
    """Yield the quarantined rows of a sort, in an order that does not depend on the catalog's own.

    By a hash of the identifier, then identifier, reason and detail; rows without an identifier
    come last, in file order. A hash bucket of more than half a million rows is sorted in parts.
    """
    buckets = Buckets(work / _QUARANTINE, QUARANTINE_SCHEMA)
    for bucket in range(QUARANTINE_BUCKETS):
        for batch in regroup(buckets.read(bucket), CHUNK_ROWS):
            identifiers = batch.column("object_id").to_numpy()
            details, reasons = (np.asarray(batch.column(name).to_pylist()) for name in ("detail", "reason"))
            yield batch.take(pa.array(np.lexsort((details, reasons, identifiers, _hash(identifiers)))))
    yield from buckets.read(QUARANTINE_BUCKETS)


def read_changes(work: Path) -> Iterator[pa.RecordBatch]:
    """Yield what a sort noted of single objects, in the columns of `CHANGES_SCHEMA`."""
    yield from regroup(Buckets(work / _CHANGES, CHANGES_SCHEMA).read(0), CHUNK_ROWS)


def run_path(work: Path, run: int) -> Path:
    """Return where a run is: rows sorted by (``_healpix_29``, ``object_id``)."""
    return work / _RUNS / f"{run:05d}.arrow"


def _numbers(batch: pa.RecordBatch, name: str) -> NDArray:
    return batch.column(name).to_numpy()


def _hash(identifiers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Mix the bits of identifiers: the finaliser of SplitMix64 (Steele, Lea & Flood 2014, OOPSLA)."""
    mixed = identifiers.astype(np.int64).view(np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
