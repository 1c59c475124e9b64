"""A given catalog held against what is known already: new, changed, removed objects, and the union."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gzscale.catalog.pixels import INDEX_ORDER, Partition
from gzscale.catalog.schema import HEALPIX_COLUMN
from gzscale.errors import CatalogError

__all__ = ["CHANGES_SCHEMA", "Changes", "Comparison", "Known", "conform", "is_outside"]

#: What became of single objects: ``change`` is one of the counts of `Changes`.
CHANGES_SCHEMA = pa.schema([("object_id", pa.int64()), ("change", pa.string())])
#: Columns of the sort that say nothing about an object.
_ABOUT_ROWS = ("row", "removed")


@dataclass(frozen=True)
class Known:
    """The objects that an earlier night had.

    Attributes
    ----------
    pieces
        Each partition and its rows, as `gzscale.catalog.partition.PartitionedCatalog.rows`
        returned them; no identifier occurs twice.
    joined
        Whether objects that the given table does not name stay (a delta), or go (a full catalog).
    """

    pieces: Iterable[tuple[Partition, pa.Table]] = ()
    joined: bool = False


@dataclass
class Changes:
    """What a given table says beside what is known; two sums that close.

    Attributes
    ----------
    given
        Rows of the table: new + changed + unchanged + stale + removed + quarantined.
    new
        Objects that were not known.
    changed
        Known objects with a newer version, or with other values where the versions are equal.
    unchanged
        Rows that say what is known: equal in every column, or the removal of an unknown object.
    stale
        Rows of a delta that are older than what is known; that stays.
    removed
        Known objects that the table says are removed.
    quarantined
        Rows that cannot be used; what is known of their objects stays, in a delta.
    moved
        Those of the changed objects whose position has left the partition that they were in.
    known
        Objects before: kept + changed + removed + vanished.
    kept
        Known objects that stay as they were.
    vanished
        Known objects of which a full catalog has no usable row any more.
    """

    given: int = 0
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    stale: int = 0
    removed: int = 0
    quarantined: int = 0
    moved: int = 0
    known: int = 0
    kept: int = 0
    vanished: int = 0

    @property
    def closes(self) -> bool:
        """Whether no row and no object is lost."""
        rows = self.new + self.changed + self.unchanged + self.stale + self.removed + self.quarantined
        objects = self.kept + self.changed + self.removed + self.vanished
        return self.given == rows and self.known == objects and self.moved <= self.changed

    @property
    def objects(self) -> int:
        """Objects after it."""
        return self.new + self.changed + self.kept

    def to_dict(self) -> dict[str, int]:
        """Return the numbers by name."""
        return asdict(self)


class Comparison:
    """The known objects of some identifiers, and what the given rows make of them.

    Parameters
    ----------
    known
        Their rows, as `conform` returns them.
    joined
        See `Known`.
    changes
        Counted up by `take` and `rest`.
    note
        Called with rows of `CHANGES_SCHEMA`: the objects that are not as they were, and those that a
        delta names.
    """

    def __init__(
        self,
        known: pa.Table,
        joined: bool,
        changes: Changes,
        note: Callable[[pa.RecordBatch], None] = lambda rows: None,
    ) -> None:
        self._known = known.combine_chunks()
        self._joined = joined
        self._changes = changes
        self._note = note
        identifiers = known["object_id"].to_numpy()
        self._order = np.argsort(identifiers, kind="stable")
        self._identifiers = identifiers[self._order]
        #: Known rows that the given table has said anything of, and those that it has overruled.
        self._named = np.zeros(known.num_rows, bool)
        self._overruled = np.zeros(known.num_rows, bool)
        changes.known += known.num_rows

    def take(self, given: pa.RecordBatch) -> pa.RecordBatch:
        """Return those of the given rows that are part of the result.

        Parameters
        ----------
        given
            Usable rows; no identifier occurs twice, here or in another call.
        """
        place = self._places(_numbers(given, "object_id"))
        found = place >= 0
        removed = np.zeros(given.num_rows, bool)
        if "removed" in given.schema.names:
            removed = given.column("removed").to_numpy(zero_copy_only=False)
        stale, same = np.zeros_like(found), np.zeros_like(found)
        before = self._known.take(pa.array(place[found]))
        after = given.filter(pa.array(found))
        if self._joined and "version" in given.schema.names:
            stale[found] = _older(after.column("version"), before["version"])
        same[found] = _equal(after, before)
        stale &= found
        gone = found & removed & ~stale
        new = ~found & ~removed
        changed = found & ~removed & ~stale & ~same
        unchanged = ~(new | changed | stale | gone)
        self._named[place[found]] = True
        self._overruled[place[gone | changed]] = True
        index, homes = _numbers(given, HEALPIX_COLUMN)[changed], self._known["row"].to_numpy()
        counts = self._changes
        counts.new += int(new.sum())
        counts.changed += int(changed.sum())
        counts.unchanged += int(unchanged.sum())
        counts.stale += int(stale.sum())
        counts.removed += int(gone.sum())
        outside = is_outside(index, homes[place[changed]])
        counts.moved += int(outside.sum())
        moved = np.zeros_like(found)
        moved[changed] = outside
        told = {"new": new, "changed": changed & ~moved, "moved": moved, "stale": stale, "removed": gone}
        if self._joined:
            told["unchanged"] = unchanged
        for change, rows in told.items():
            self._tell(_numbers(given, "object_id")[rows], change)
        if self._joined:
            return given.filter(pa.array(new | changed))
        counts.kept += int((unchanged & found).sum())
        return given.filter(pa.array(~removed))

    def rest(self) -> pa.Table:
        """Return the known rows that are part of the result, when all given rows were taken."""
        if not self._joined:
            self._changes.vanished += int((~self._named).sum())
            self._tell(self._known["object_id"].to_numpy()[~self._named], "vanished")
            return self._known.slice(0, 0)
        kept = self._known.filter(pa.array(~self._overruled))
        self._changes.kept += kept.num_rows
        return kept

    def _tell(self, identifiers: NDArray[np.int64], change: str) -> None:
        if len(identifiers):
            columns = [pa.array(identifiers), pa.array([change] * len(identifiers))]
            self._note(pa.RecordBatch.from_arrays(columns, schema=CHANGES_SCHEMA))

    def _places(self, identifiers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the known row of each identifier, -1 where there is none."""
        if not len(self._identifiers):
            return np.full(len(identifiers), -1, np.int64)
        place = np.searchsorted(self._identifiers, identifiers).clip(max=len(self._identifiers) - 1)
        return np.where(self._identifiers[place] == identifiers, self._order[place], -1)


def conform(partition: Partition, table: pa.Table, schema: pa.Schema, joined: bool) -> pa.RecordBatch:
    """Bring a partition's known rows into the columns of the given ones.

    Parameters
    ----------
    partition
        Where they were.
    table
        Their columns; without ``version`` they are older than any given row.
    schema
        Of the given rows. ``row`` becomes the negative of the partition's NUNIQ number
        (4 * 4**order + pixel: the IVOA's MOC 2.0, Section 4.1), which tells known from given rows.
    joined
        See `Known`.

    Raises
    ------
    CatalogError
        If the rows are to be joined and do not have the same columns.
    """
    ours, theirs = set(schema.names) - {*_ABOUT_ROWS}, set(table.column_names)
    if joined and theirs - {"version"} != ours - {"version"}:
        raise CatalogError(
            f"the delta maps the columns {sorted(ours - {HEALPIX_COLUMN})}, the rows of the last complete "
            f"night have {sorted(theirs - {HEALPIX_COLUMN})}; map the same ones in catalog.columns, or run a "
            "full night (catalog.mode: full)"
        )
    if joined and theirs - ours:
        raise CatalogError(
            "the rows of the last complete night have versions, and the delta maps none; "
            "add catalog.columns.version"
        )
    count = table.num_rows
    home = -((4 << 2 * partition.order) + partition.pixel)
    arrays = []
    for field in schema:
        if field.name == "row":
            arrays.append(pa.array(np.full(count, home, np.int64)))
        elif field.name == "removed":
            arrays.append(pa.array(np.zeros(count, bool)))
        elif field.name in theirs:
            arrays.append(table[field.name].combine_chunks().cast(field.type))
        else:
            arrays.append(pa.nulls(count, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def is_outside(index: NDArray[np.int64], homes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which positions lie outside the partitions that objects were in.

    Parameters
    ----------
    index
        HEALPix indices of order `INDEX_ORDER`, shape (n,).
    homes
        ``row`` of the known objects, as `conform` sets it, shape (n,).
    """
    number = -homes
    # NUNIQ numbers of order k run from 4**(k + 1) to 4**(k + 2); below 2**53 a double holds them exactly.
    order = (np.frexp(number.astype(np.float64))[1].astype(np.int64) - 1) // 2 - 1
    outside: NDArray[np.bool_] = index >> (2 * (INDEX_ORDER - order)) != number - (np.int64(4) << 2 * order)
    return outside


def _older(after: pa.Array, before: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Tell which versions are older; a missing one before is older than any."""
    older = pc.fill_null(pc.less(after, before.combine_chunks()), False)
    return np.asarray(older.to_numpy(zero_copy_only=False))


def _equal(after: pa.RecordBatch, before: pa.Table) -> NDArray[np.bool_]:
    """Tell which rows are equal in every column; missing values are equal to each other."""
    same = np.ones(after.num_rows, bool)
    for name in after.schema.names:
        if name not in _ABOUT_ROWS:
            one, other = after.column(name), before[name].combine_chunks()
            equal = pc.or_(
                pc.fill_null(pc.equal(one, other), False), pc.and_(pc.is_null(one), pc.is_null(other))
            )
            same &= equal.to_numpy(zero_copy_only=False)
    return same


def _numbers(batch: pa.RecordBatch, name: str) -> NDArray[np.int64]:
    return np.asarray(batch.column(name).to_numpy())
