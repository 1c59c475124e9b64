"""Reads spectroscopic redshifts from any catalog that has an identifier and a redshift."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gzscale.catalog.canonical import to_floats, to_identifiers, to_reddenings
from gzscale.catalog.locate import locate_table
from gzscale.errors import CatalogError
from gzscale.training.labels import Refusal

__all__ = ["RedshiftLabels", "read_redshifts"]

#: Names that the columns are found by, in the order in which they are looked for, whatever their case.
ID_COLUMNS = ("object_id", "objid", "id", "specobjid")
REDSHIFT_COLUMNS = ("z", "redshift", "z_spec", "zspec", "specz", "z_noqso")
REDDENING_COLUMNS = ("ebv", "e_bv", "ebv_sfd")
#: No galaxy is farther; what is larger is another quantity or a code.
FARTHEST = 15.0
_ROWS = 65_536


@dataclass(frozen=True)
class RedshiftLabels:
    """Redshifts of some galaxies.

    Attributes
    ----------
    object_id
        int64, shape (n,), each once.
    redshift
        float64, shape (n,).
    extinction
        E(B-V) in magnitudes, float32, shape (n,); NaN where the table has none.
    refused
        Rows of the table, and images, that are not here, by reason (`Refusal`).
    """

    object_id: NDArray[np.int64]
    redshift: NDArray[np.float64]
    extinction: NDArray[np.float32]
    refused: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.object_id)

    @property
    def names(self) -> tuple[str, ...]:
        """The identifiers as text, by whose hash a galaxy is put on a side of a split."""
        return tuple(map(str, self.object_id.tolist()))

    def take(self, rows: NDArray[np.integer]) -> RedshiftLabels:
        """Return the galaxies at some positions, in that order."""
        return RedshiftLabels(
            self.object_id[rows], self.redshift[rows], self.extinction[rows], Counter(self.refused)
        )


def read_redshifts(path: str | Path, limit: float) -> RedshiftLabels:
    """Read a table of redshifts: Parquet, FITS, VOTable or CSV.

    Parameters
    ----------
    path
        File or URL. Its columns are found by name, whatever the case: the identifier by one of
        ``object_id``, ``objid``, ``id``, ``specobjid``; the redshift by ``z``, ``redshift``, ``z_spec``,
        ``zspec``, ``specz``, ``z_noqso``; E(B-V), if any, by ``ebv``, ``e_bv``, ``ebv_sfd``.
    limit
        End of the grid of redshifts.

    Returns
    -------
    RedshiftLabels
        In the table's order, without those that are refused.

    Raises
    ------
    CatalogError
        If the table cannot be read, a column is missing, or identifiers have lost digits.
    """
    with tempfile.TemporaryDirectory(prefix="gzscale-labels-") as scratch:
        source = locate_table(str(path), "auto", Path(scratch))[2]
        wanted = [
            _column(path, source.names, ID_COLUMNS, "identifier"),
            _column(path, source.names, REDSHIFT_COLUMNS, "redshift"),
        ]
        reddening = _find(source.names, REDDENING_COLUMNS)
        columns = (*wanted, *((reddening,) if reddening else ()))
        parts = [_convert(batch, columns) for batch in source.batches(columns, _ROWS) if batch.num_rows]
    if not parts:
        raise CatalogError(f"{path}: the table has 0 rows")
    known, ids, redshift, extinction = (np.concatenate(part) for part in zip(*parts, strict=True))
    reasons = _refusals(known, ids, redshift, limit)
    good = np.flatnonzero(reasons == "")
    refused = Counter(reasons[reasons != ""].tolist())
    return RedshiftLabels(ids[good], redshift[good], extinction[good], refused)


def _find(names: Sequence[str], candidates: Sequence[str]) -> str | None:
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in candidates if name in lower), None)


def _column(path: str | Path, names: Sequence[str], candidates: Sequence[str], what: str) -> str:
    found = _find(names, candidates)
    if found is None:
        raise CatalogError(
            f"{path}: no {what}: none of {', '.join(candidates)} is among its columns {', '.join(names[:40])}"
        )
    return found


def _convert(batch: pa.RecordBatch, columns: Sequence[str]) -> tuple[NDArray, ...]:
    """Return whether each row has an identifier, the identifier, the redshift and E(B-V)."""
    ids = to_identifiers(batch.column(columns[0]), columns[0])
    redshift = to_floats(batch.column(columns[1]), columns[1]).to_numpy(zero_copy_only=False)
    if len(columns) == 3:
        reddening = to_reddenings(batch.column(columns[2]), columns[2]).to_numpy(zero_copy_only=False)
    else:
        reddening = np.full(batch.num_rows, np.nan)
    known = ids.is_valid().to_numpy(zero_copy_only=False)
    numbers = ids.fill_null(0).to_numpy(zero_copy_only=False)
    return known, numbers, redshift.astype(np.float64), reddening.astype(np.float32)


def _refusals(
    known: NDArray[np.bool_], ids: NDArray[np.int64], redshift: NDArray[np.float64], limit: float
) -> NDArray[np.str_]:
    """Return the reason for which each row is refused, empty for a good one."""
    reasons = np.full(len(ids), "", dtype="U16")
    with np.errstate(invalid="ignore"):
        reasons[redshift >= limit] = Refusal.BEYOND_GRID
        reasons[(redshift <= 0) | (redshift > FARTHEST)] = Refusal.BAD_REDSHIFT
    reasons[~np.isfinite(redshift)] = Refusal.MISSING_REDSHIFT
    reasons[~known] = Refusal.MISSING_ID
    good = np.flatnonzero(reasons == "")
    _, first = np.unique(ids[good], return_index=True)
    later = np.ones(len(good), bool)
    later[first] = False
    reasons[good[later]] = Refusal.DUPLICATE_ID
    return reasons
