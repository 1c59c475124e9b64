"""A catalog sorted along the sky on the local disk, freed of bad rows and duplicates.

Three passes, each of which holds one chunk or bucket at a time:

1. the catalog is read once, its bad rows are put to quarantine and the others dealt into
   buckets by a hash of their identifier;
2. each of these buckets is freed of duplicates, and its rows dealt into buckets that are
   stretches of the sky (their bounds are quantiles of a sample, so they are about equally full);
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

__all__ = ["SkySort", "read_quarantine", "run_path"]

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

_IDENTIFIERS, _STRETCHES, _RUNS, _QUARANTINE = "identifiers", "stretches", "runs", "quarantine"


class SkySort:
    """One sort of one catalog: `deal`, then `indices`.

    Attributes
    ----------
    planned
        Rows that were read.
    reasons
        Number of quarantined rows by reason.
    run_sizes
        Rows of each run that was written.
    """

    def __init__(self, reader: CatalogReader, work: Path) -> None:
        self._reader = reader
        self._work = work
        self._sample = _Sample()
        self._stretches = 0
        self.planned = 0
        self.reasons: Counter[str] = Counter()
        self.run_sizes: list[int] = []
        for name in (_IDENTIFIERS, _STRETCHES, _RUNS, _QUARANTINE):
            shutil.rmtree(work / name, ignore_errors=True)
            (work / name).mkdir(parents=True)
        self._schema = pa.schema([pa.field(HEALPIX_COLUMN, pa.int64()), *reader.schema])

    def deal(self) -> None:
        """Read the catalog, drop bad rows and duplicates, deal the rest into stretches of the sky."""
        with Buckets(self._work / _QUARANTINE, QUARANTINE_SCHEMA) as quarantine:
            good = self._deal_by_identifier(quarantine)
            bounds = self._sample.bounds(min(MAX_STRETCHES, -(-good // STRETCH_ROWS)))
            self._deal_by_position(quarantine, bounds)
        self._stretches = len(bounds) + 1

    def indices(self) -> Iterator[NDArray[np.int64]]:
        """Sort each stretch into a run, and yield its HEALPix indices (order 29, ascending)."""
        stretches = Buckets(self._work / _STRETCHES, self._schema)
        for stretch in range(self._stretches):
            table = pa.Table.from_batches(stretches.read(stretch), self._schema).drop_columns("row")
            index = table[HEALPIX_COLUMN].to_numpy()
            order = np.lexsort((table["object_id"].to_numpy(), index))
            write_run(run_path(self._work, stretch), table.take(pa.array(order)))
            self.run_sizes.append(table.num_rows)
            stretches.remove(stretch)
            yield index[order]

    def _deal_by_identifier(self, quarantine: Buckets) -> int:
        """Read the catalog; return the number of good rows, duplicates included."""
        # hats takes two seconds to import, and commands that only read do without.
        from hats.pixel_math.spatial_index import compute_spatial_index

        good_rows = 0
        with Buckets(self._work / _IDENTIFIERS, self._schema) as buckets:
            for chunk in regroup(self._reader.batches(min(BATCH_ROWS, CHUNK_ROWS)), CHUNK_ROWS):
                self.planned += chunk.num_rows
                good, bad = split_rows(chunk, self._reader.name)
                self._put_aside(bad, quarantine)
                good_rows += good.num_rows
                index = compute_spatial_index(_numbers(good, "ra"), _numbers(good, "dec"))
                hashed = _hash(_numbers(good, "object_id"))
                self._sample.add(index, hashed)
                indexed = pa.RecordBatch.from_arrays([pa.array(index), *good.columns], schema=self._schema)
                buckets.append(indexed, (hashed % np.uint64(ID_BUCKETS)).astype(np.uint8))
        return good_rows

    def _deal_by_position(self, quarantine: Buckets, bounds: NDArray[np.int64]) -> None:
        """Keep the first row of each identifier; deal the kept rows into stretches of the sky."""
        identified = Buckets(self._work / _IDENTIFIERS, self._schema)
        with Buckets(self._work / _STRETCHES, self._schema) as stretches:
            for bucket in range(ID_BUCKETS):
                seen = _Seen()
                for chunk in regroup(identified.read(bucket), CHUNK_ROWS):
                    first, others, kept = seen.split(_numbers(chunk, "object_id"), _numbers(chunk, "row"))
                    self._put_aside(
                        duplicate_rows(chunk.take(pa.array(others)), kept, self._reader.name), quarantine
                    )
                    unique = chunk.take(pa.array(first))
                    stretches.append(
                        unique, np.searchsorted(bounds, _numbers(unique, HEALPIX_COLUMN), side="right")
                    )
                identified.remove(bucket)

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


class _Seen:
    """The identifiers that one bucket had so far, and the rows that have them."""

    def __init__(self) -> None:
        self._identifiers = np.empty(0, np.int64)
        self._rows = np.empty(0, np.int64)

    def split(
        self, identifiers: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return positions of first and of later occurrences, and the row kept for each of the later."""
        order = np.argsort(identifiers, kind="stable")
        ordered = identifiers[order]
        begins = np.r_[True, ordered[1:] != ordered[:-1]]
        known = self._known(ordered)
        is_first = begins & (known < 0)
        kept = np.where(
            known < 0, rows[order][np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))], known
        )
        first = order[is_first]
        self._remember(ordered[is_first], rows[first])
        return first, order[~is_first], kept[~is_first]

    def _known(self, ordered: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row kept for each identifier, -1 where there is none yet."""
        if not len(self._identifiers):
            return np.full(len(ordered), -1)
        place = np.searchsorted(self._identifiers, ordered).clip(max=len(self._identifiers) - 1)
        return np.where(self._identifiers[place] == ordered, self._rows[place], -1)

    def _remember(self, identifiers: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        merged = np.concatenate([self._identifiers, identifiers])
        order = np.argsort(merged, kind="stable")
        self._identifiers = merged[order]
        self._rows = np.concatenate([self._rows, rows])[order]


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
