"""Corrects a table of predicted votes for what distance hides: a predicted or released table in, one out."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from gzscale.catalog.canonical import is_text, to_floats
from gzscale.catalog.locate import locate_table
from gzscale.catalog.schema import BASE_COLUMNS, DEBIASED_COLUMNS, MORPHOLOGY_COLUMNS, arrow_schema
from gzscale.catalog.source import Source
from gzscale.catalog.versions import to_flags
from gzscale.errors import CatalogError, ConfigError, StorageError
from gzscale.models.votes import ANSWERS, USUAL_VOTES, asked, to_joint
from gzscale.tasks.debias import debias
from gzscale.tasks.gz2_class import clean_flags, gz2_class

__all__ = ["debias_table"]

#: Rows that are read and written together.
_ROWS = 65_536
_FRACTIONS = tuple(f"{answer}_fraction" for answer in ANSWERS)
_WRITERS = {".csv": pyarrow.csv.CSVWriter, ".parquet": pyarrow.parquet.ParquetWriter}


def debias_table(table: str | Path, redshift: str, output: str | Path) -> tuple[int, int]:
    """Write a table again with debiased fractions, and what follows from them.

    The table is read twice, in batches. Only the 37 fractions and the redshift of all rows are held between,
    some 1.2 kB a galaxy while they are compared.

    Parameters
    ----------
    table
        What ``gzscale predict morphology`` wrote, or a released morphology catalog with a column of
        redshifts joined to it: CSV, FITS, VOTable, Parquet, or a HATS folder; it has ``<answer>_fraction``
        of all 37 answers.
    redshift
        Its column of redshifts.
    output
        Table to write, ``.csv`` or ``.parquet``: all columns of the table, ``<answer>_debiased`` of each
        answer, and ``gz2_class`` and ``<answer>_clean`` of the debiased fractions in place of those of the
        fractions as seen. Written whole, or not at all.

    Returns
    -------
    rows : int
        Of the table.
    corrected : int
        Of these, with a positive redshift. The others keep their fractions as debiased ones.

    Raises
    ------
    CatalogError
        If a column is missing, a fraction is, or fewer galaxies have a redshift than `debias` compares.
    ConfigError
        If the output has another suffix, or is the table itself.
    StorageError
        If the output cannot be written.
    """
    target = Path(output)
    if target.suffix.lower() not in _WRITERS:
        raise ConfigError(f"{output}: the table's name must end in one of {sorted(_WRITERS)}")
    if "://" not in str(table) and target.resolve() == Path(table).resolve():
        raise ConfigError(f"{output}: the table that is read; name another output")
    with tempfile.TemporaryDirectory(prefix="gzscale-debias-") as scratch:
        source = locate_table(str(table), "auto", Path(scratch))[2]
        _require(str(table), source, redshift)
        fractions, distances = _read(str(table), source, redshift)
        debiased = debias(fractions, distances).astype(np.float32)
        _write(source, redshift, fractions, debiased, target)
    return len(fractions), int((np.isfinite(distances) & (distances > 0)).sum())


def _require(table: str, source: Source, redshift: str) -> None:
    missing = [name for name in (*_FRACTIONS, redshift) if name not in source.names]
    if missing:
        raise CatalogError(
            f"{table}: {len(missing)} columns are missing, the first is {missing[0]!r}; a table of predicted "
            f"votes has {_FRACTIONS[0]!r} and so on, and a column of redshifts joined to it"
        )


def _read(table: str, source: Source, redshift: str) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return the conditional fractions, shape (n, 37), and the redshifts, NaN where there is none."""
    parts, distances = [], []
    for batch in source.batches((*_FRACTIONS, redshift), _ROWS):
        columns = [_numbers(batch, name) for name in _FRACTIONS]
        parts.append(np.stack(columns, axis=1).astype(np.float32))
        distances.append(_numbers(batch, redshift))
    if not parts:
        raise CatalogError(f"{table}: the table has 0 rows")
    fractions = np.concatenate(parts)
    usable = np.isfinite(fractions) & (fractions >= 0) & (fractions <= 1 + 1e-5)
    if not usable.all():
        row, column = np.argwhere(~usable)[0]
        raise CatalogError(
            f"{table}: {int((~usable.all(axis=1)).sum())} of {len(fractions)} rows have a fraction that is "
            f"not within 0 and 1, the first {_FRACTIONS[column]!r} in row {row}: leave these rows out"
        )
    return fractions, np.concatenate(distances)


def _numbers(batch: pa.RecordBatch, name: str) -> NDArray[np.float64]:
    values: NDArray[np.float64] = to_floats(batch.column(name), name).to_numpy(zero_copy_only=False)
    return values


def _write(
    source: Source,
    redshift: str,
    fractions: NDArray[np.float32],
    debiased: NDArray[np.float32],
    target: Path,
) -> None:
    part = target.with_name(f".{target.name}.part")
    own = {field.name for field in arrow_schema(DEBIASED_COLUMNS)}
    kept = [name for name in source.names if name not in own]
    try:
        batches = _tables(source, kept, redshift, fractions, debiased)
        first = next(batches)
        with _WRITERS[target.suffix.lower()](str(part), first.schema) as writer:
            writer.write_table(first)
            for batch in batches:
                writer.write_table(batch.cast(first.schema))
        part.replace(target)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"{target}: cannot be written: {error}") from error
    finally:
        part.unlink(missing_ok=True)


def _typed(values: pa.Array, name: str, wanted: pa.DataType | None) -> pa.Array:
    """Return a column, which a text file has as text, as what it is in a table of predicted votes."""
    if wanted is None or not is_text(values.type):
        return values
    if pa.types.is_floating(wanted):
        return to_floats(values, name).cast(wanted, safe=False)
    if pa.types.is_boolean(wanted):
        flags, known = to_flags(values, name)
        return pc.if_else(known, flags, None)
    return values


def _tables(
    source: Source,
    kept: list[str],
    redshift: str,
    fractions: NDArray[np.float32],
    debiased: NDArray[np.float32],
) -> Iterator[pa.Table]:
    """Yield the table's own columns and the new ones, a batch at a time."""
    schema = arrow_schema(DEBIASED_COLUMNS)
    known = {field.name: field.type for field in arrow_schema((*BASE_COLUMNS, *MORPHOLOGY_COLUMNS))}
    known[redshift] = pa.float64()
    start = 0
    for batch in source.batches(kept, _ROWS):
        rows = slice(start, start + batch.num_rows)
        start += batch.num_rows
        values = _columns(fractions[rows].astype(np.float64), debiased[rows].astype(np.float64))
        new = pa.table({field.name: pa.array(values[field.name]) for field in schema}).cast(schema)
        old = pa.table({name: _typed(batch.column(name), name, known.get(name)) for name in kept})
        yield pa.table([*old.columns, *new.columns], schema=pa.schema([*old.schema, *schema]))


def _columns(fractions: NDArray[np.float64], debiased: NDArray[np.float64]) -> dict[str, NDArray]:
    """Return the new columns: answers are held to their debiased fractions, questions to those as seen."""
    votes = USUAL_VOTES * asked(to_joint(fractions))
    clean = clean_flags(fractions, debiased, votes)
    columns: dict[str, NDArray] = {"gz2_class": gz2_class(debiased)}
    for index, answer in enumerate(ANSWERS):
        columns[f"{answer}_debiased"] = debiased[:, index].astype(np.float32)
        columns[f"{answer}_clean"] = clean[:, index]
    return columns
