"""Opening an input catalog: its columns checked and converted, streamed in batches."""

from __future__ import annotations

import difflib
import hashlib
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gzscale.catalog.canonical import (
    angle_factor,
    is_text,
    scaled_column,
    to_angles,
    to_identifiers,
    to_locators,
    to_reddenings,
    to_sizes,
)
from gzscale.catalog.cuts import parse_cuts, passing
from gzscale.catalog.locate import locate_table
from gzscale.catalog.source import files_identity
from gzscale.catalog.versions import to_removals, to_versions
from gzscale.config import CatalogConfig
from gzscale.errors import CatalogError

__all__ = ["BATCH_ROWS", "CatalogReader", "open_catalog"]

#: Rows of a batch.
BATCH_ROWS = 131_072
#: Rows that are converted when the catalog is opened, to see wrong types before any work.
_PEEK_ROWS = 1024

#: Our columns in the order of the batches, with their types.
_TYPES = {
    "object_id": pa.int64(),
    "ra": pa.float64(),
    "dec": pa.float64(),
    "size": pa.float32(),
    "ebv": pa.float32(),
    "run": pa.int32(),
    "camcol": pa.int32(),
    "field": pa.int32(),
    "version": pa.int64(),
    "removed": pa.bool_(),
}
#: What text must hold that is to be read as one of our columns; decimal numbers for the others.
_NEEDED = {
    **dict.fromkeys(("object_id", "run", "camcol", "field"), "integers"),
    "version": "integers or ISO 8601 times",
}


class CatalogReader:
    """An input catalog, checked and ready to be streamed. See `open_catalog`.

    Attributes
    ----------
    path
        As it was configured.
    name
        Last part of the path, for messages that are stored.
    format
        ``parquet``, ``hats``, ``fits``, ``votable`` or ``csv``.
    columns
        Our names of the columns that are mapped, in the order of the batches.
    schema
        Of the batches: ``row`` (int64, the 0-based number of the row in the catalog),
        ``object_id`` (int64), ``ra``, ``dec`` (float64, degrees), ``size`` (float32,
        arcsec), ``ebv`` (float32, magnitudes), ``run``, ``camcol``, ``field`` (int32), ``version``
        (int64, the largest is the newest) and ``removed`` (bool) where they are mapped. All but
        ``row`` and ``removed`` may be null.
    identity
        64 hexadecimal digits that change when the stored files or the mapping do; no content is read.
    row_count
        Number of rows, or None where the format does not state it.
    """

    def __init__(self, config: CatalogConfig, scratch: Path) -> None:
        self._finalizer = weakref.finalize(self, shutil.rmtree, scratch, True)
        self.path = config.path
        self.name = config.path.rstrip("/").rpartition("/")[2].partition("?")[0]
        given = {name: config.columns[name] for name in _TYPES if name in config.columns}
        self._mapping = dict(given)
        scale: float | None = None
        if "size" in given:
            self._mapping["size"], scale = scaled_column(given["size"])
        self._cuts = parse_cuts(config.where) if config.where else ()
        self.columns = tuple(self._mapping)
        self.schema = pa.schema([("row", pa.int64()), *((name, _TYPES[name]) for name in self._mapping)])
        self.format, files, self._source = locate_table(config.path, config.format, scratch)
        self.row_count = None if self._cuts else self._source.row_count
        where = f"\t{config.where}" if self._cuts else ""
        self.identity = hashlib.sha256(
            f"{files_identity(files)}\t{self.format}\t{sorted(given.items())}{where}".encode()
        ).hexdigest()
        self._check_names()
        self._factors: dict[str, float] = {
            role: angle_factor(role, self._mapping[role], self._source.units.get(self._mapping[role]))
            for role in ("ra", "dec", "size")
            if role in self._mapping and not (role == "size" and scale is not None)
        }
        if scale is not None:
            self._factors["size"] = scale

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Yield the catalog in file order, in batches of at most about ``rows`` rows; none is empty.

        Rows that do not pass the configuration's cuts are left out.

        Raises
        ------
        CatalogError
            If a file is damaged, identifiers cannot be read exactly, or no row passes the cuts.
        """
        row, yielded = 0, False
        for raw in self._raw(rows):
            if raw.num_rows:
                kept = self._passing(raw)
                if len(kept):
                    yielded = True
                    part = raw if len(kept) == raw.num_rows else raw.take(pa.array(kept))
                    yield self._convert(part, row + kept)
                row += raw.num_rows
        if self._cuts and not yielded:
            raise CatalogError(f"{self.path}: none of its {row} rows passes the cuts of catalog.where")

    def close(self) -> None:
        """Remove what was fetched or unpacked."""
        self._finalizer()

    def __enter__(self) -> CatalogReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        rows = "?" if self.row_count is None else f"{self.row_count:,}"
        return f"CatalogReader({self.path!r}, {self.format}, {rows} rows, columns {', '.join(self.columns)})"

    def check(self) -> None:
        """Convert the first rows, so that an empty table or a wrong type is an error now.

        Raises
        ------
        CatalogError
            If the table has no rows, or a column's values cannot be what it is mapped to.
        """
        raw = next((batch for batch in self._raw(_PEEK_ROWS) if batch.num_rows), None)
        if raw is None:
            raise CatalogError(
                f"{self.path}: the table has 0 rows; write the objects to it, or name another as catalog.path"
            )
        self._passing(raw)
        converted = self._convert(raw, np.arange(raw.num_rows))
        for name, column in self._mapping.items():
            given, understood = raw.column(column), converted.column(name)
            if is_text(given.type) and given.null_count < len(given) and understood.null_count == len(given):
                example = next(value for value in given.to_pylist() if value is not None)
                raise CatalogError(
                    f"{self.path}: column {column!r} (as {name}) holds text such as {example!r}; "
                    f"{_NEEDED.get(name, 'decimal numbers')} are needed"
                )

    def _raw(self, rows: int) -> Iterator[pa.RecordBatch]:
        cut = (cut.column for cut in self._cuts)
        return self._source.batches(tuple(dict.fromkeys([*self._mapping.values(), *cut])), rows)

    def _passing(self, raw: pa.RecordBatch) -> NDArray[np.int64]:
        try:
            return passing(raw, self._cuts)
        except CatalogError as error:
            raise CatalogError(f"{self.path}: {error}") from error

    def _convert(self, raw: pa.RecordBatch, rows: NDArray[np.int64]) -> pa.RecordBatch:
        arrays = [pa.array(rows)]
        try:
            for name, column in self._mapping.items():
                arrays.append(self._convert_column(name, column, raw.column(column)))
        except CatalogError as error:
            raise CatalogError(f"{self.path}: {error}") from error
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _convert_column(self, name: str, column: str, values: pa.Array) -> pa.Array:
        if name == "object_id":
            return to_identifiers(values, column)
        if name == "size":
            return to_sizes(values, column, self._factors[name])
        if name == "ebv":
            return to_reddenings(values, column)
        if name == "version":
            return to_versions(values, column)
        if name == "removed":
            return to_removals(values, column)
        if name in self._factors:
            return to_angles(values, column, self._factors[name])
        return to_locators(values, column)

    def _check_names(self) -> None:
        names = list(self._source.names)
        problems = [
            f"catalog.columns.{name} is {column!r}, which the table lacks{_hint(column, names)}"
            for name, column in self._mapping.items()
            if column not in names
        ]
        problems += [
            f"catalog.where names {cut.column!r}, which the table lacks{_hint(cut.column, names)}"
            for cut in self._cuts
            if cut.column not in names
        ]
        if problems:
            shown = ", ".join(names[:40]) + (", ..." if len(names) > 40 else "")
            raise CatalogError(f"{self.path}: {'; '.join(problems)}. Its {len(names)} columns are: {shown}")


def open_catalog(config: CatalogConfig, needs_size: bool) -> CatalogReader:
    """Open an input catalog and check it before any work.

    Parquet (file or folder), HATS (catalog or collection), FITS binary table, VOTable and
    CSV are read, the last three also gzipped; from local paths, ``s3://`` and ``https://``.
    Parquet on S3 is read by ranges, only the columns that are mapped; files that came
    by HTTP, and FITS and VOTable from S3, are fetched to a temporary folder. A folder on a web
    server is read where it is a HATS catalog with ``partition_info.csv`` and one file a pixel;
    any other has no list of its files.

    Positions are taken as they are: no frame, equinox or proper motion is applied.

    Parameters
    ----------
    config
        Path, mapping of columns (case-sensitive) and format.
    needs_size
        Whether a geometry is tied to the object's size.

    Raises
    ------
    CatalogError
        If there is no such catalog, the format is not one of these, a mapped column is
        missing, a stated unit is not convertible, the table has no rows, or
        ``needs_size`` and no size is mapped.
    """
    if needs_size and "size" not in config.columns:
        raise CatalogError(
            f"{config.path}: a geometry is tied to the object's size, but catalog.columns maps no size; "
            "add size: <column in arcsec>, or give the geometry a fixed scale"
        )
    scratch = Path(tempfile.mkdtemp(prefix="gzscale-catalog-"))
    try:
        reader = CatalogReader(config, scratch)
        reader.check()
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return reader


def _hint(column: str, names: Sequence[str]) -> str:
    near = [name for name in names if name.lower() == column.lower()]
    near += [name for name in difflib.get_close_matches(column, names, n=3, cutoff=0.6) if name not in near]
    return f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
