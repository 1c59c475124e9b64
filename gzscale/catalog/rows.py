"""Which rows of an input catalog can be done; the others go to quarantine, with a reason."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gzscale.catalog.schema import QUARANTINE_SCHEMA
from gzscale.errors import Reason

__all__ = ["duplicate_rows", "split_rows"]


def split_rows(batch: pa.RecordBatch, table: str) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Part the rows that have an identifier, a position and a version from those that do not.

    A row without an identifier is BAD_ID, whatever its position; a row whose position is missing, not
    finite, or outside ra in [0, 360) and dec in [-90, 90] degrees is BAD_COORDINATES, unless it only
    says that an object is removed; a row without a version, where versions are mapped, is BAD_VERSION.
    Negative right ascensions are not wrapped. Sizes are not looked at.

    Parameters
    ----------
    batch
        As `gzscale.catalog.read.CatalogReader.batches` yields it.
    table
        Name of the table for the detail sentence.

    Returns
    -------
    tuple[pa.RecordBatch, pa.RecordBatch]
        The good rows, as they were; and the others, in the columns of `QUARANTINE_SCHEMA`.
    """
    ra = _floats(batch, "ra")
    dec = _floats(batch, "dec")
    no_id = batch.column("object_id").is_null().to_numpy(zero_copy_only=False)
    with np.errstate(invalid="ignore"):
        placed = (ra >= 0) & (ra < 360) & (dec >= -90) & (dec <= 90)
    placed |= _removed(batch)
    no_version = np.zeros(batch.num_rows, bool)
    if "version" in batch.schema.names:
        no_version = batch.column("version").is_null().to_numpy(zero_copy_only=False)
    good = placed & ~no_id & ~no_version
    if good.all():
        return batch, _quarantine(batch.slice(0, 0), [], [])
    bad = np.flatnonzero(~good)
    chosen = batch.take(pa.array(bad))
    reasons, details = [], []
    rows = chosen.column("row").to_numpy()
    for row, missing, known, x, y in zip(rows, no_id[bad], placed[bad], ra[bad], dec[bad], strict=True):
        if missing:
            reasons.append(Reason.BAD_ID)
            details.append(f"row {row} of {table} has no integer identifier")
        elif not known:
            reasons.append(Reason.BAD_COORDINATES)
            details.append(_misplaced(x, y, table))
        else:
            reasons.append(Reason.BAD_VERSION)
            details.append(f"row {row} of {table} has no version that is an integer or a time")
    return batch.filter(pa.array(good)), _quarantine(chosen, reasons, details)


def duplicate_rows(batch: pa.RecordBatch, first_rows: NDArray[np.int64], table: str) -> pa.RecordBatch:
    """Make quarantine rows of rows whose identifier another row has that is kept.

    Parameters
    ----------
    batch
        The rows that are not kept.
    first_rows
        Row numbers of the rows that were kept instead, shape (n,).
    table
        Name of the table for the detail sentence.
    """
    rows = batch.column("row").to_numpy()
    details = [
        f"row {row} of {table} has the identifier of row {first}, which is kept"
        for row, first in zip(rows, first_rows, strict=True)
    ]
    return _quarantine(batch, [Reason.DUPLICATE_ID] * len(details), details)


def _floats(batch: pa.RecordBatch, name: str) -> NDArray[np.float64]:
    return np.asarray(pc.fill_null(batch.column(name), float("nan")).to_numpy(zero_copy_only=False))


def _removed(batch: pa.RecordBatch) -> NDArray[np.bool_]:
    if "removed" not in batch.schema.names:
        return np.zeros(batch.num_rows, bool)
    return np.asarray(batch.column("removed").to_numpy(zero_copy_only=False))


def _misplaced(ra: float, dec: float, table: str) -> str:
    problems = []
    if not np.isfinite(ra):
        problems.append("ra is missing or not a finite number")
    elif -180 <= ra < 0:
        problems.append(f"ra = {ra:.10g} is negative: right ascensions run from 0 to 360 degrees, add 360")
    elif not 0 <= ra < 360:
        problems.append(f"ra = {ra:.10g} is outside [0, 360) degrees")
    if not np.isfinite(dec):
        problems.append("dec is missing or not a finite number")
    elif not -90 <= dec <= 90:
        problems.append(f"dec = {dec:.10g} is outside [-90, 90] degrees")
    return f"{table}: {'; '.join(problems)}"


def _quarantine(batch: pa.RecordBatch, reasons: Sequence[Reason], details: Sequence[str]) -> pa.RecordBatch:
    count = batch.num_rows
    return pa.RecordBatch.from_arrays(
        [
            batch.column("object_id"),
            batch.column("ra"),
            batch.column("dec"),
            pa.array(["catalog"] * count, pa.string()),
            pa.array([""] * count, pa.string()),
            pa.array([reason.value for reason in reasons], pa.string()),
            pa.array(details, pa.string()),
        ],
        schema=QUARANTINE_SCHEMA,
    )
