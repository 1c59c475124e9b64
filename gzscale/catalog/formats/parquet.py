"""Parquet: one file, or the data files of a folder or of a HATS catalog."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from gzscale.catalog.source import SourceFile
from gzscale.errors import CatalogError, GzscaleError

__all__ = ["ParquetSource"]

#: Column chunks are read in pieces of this length, so that a large row group is not held whole.
BUFFER_BYTES = 1 << 20
#: Footers are read to count rows up to this number of files.
COUNTED_FILES = 256
#: A VOTable header in a footer describes columns; it has no data.
MAX_HEADER_BYTES = 16 << 20
_MASK = ".mask"


class ParquetSource:
    """A table of Parquet files, in the order of their names.

    Parameters
    ----------
    files
        At least one.
    declared_rows
        Number of rows that the catalog states, used where there are too many footers to read, or
        files that would have to be fetched for them.
    """

    def __init__(self, files: Sequence[SourceFile], declared_rows: int | None = None) -> None:
        self._files = files
        schema = _open(files[0]).schema_arrow
        self.names: Sequence[str] = schema.names
        self.units = _units(schema)
        self.row_count = declared_rows
        # Of many files that must be fetched whole, none is fetched before its rows are needed.
        if len(files) == 1 or (len(files) <= COUNTED_FILES and files[0].ranged):
            self.row_count = sum(_open(file).metadata.num_rows for file in files)

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the named columns of all files; only these columns are read.

        What a boolean column ``<name>.mask`` marks is null: so astropy stores masked columns.
        """
        for file in self._files:
            parquet = _open(file)
            masked = [name for name in columns if f"{name}{_MASK}" in parquet.schema_arrow.names]
            missing = sorted(set(columns) - set(parquet.schema_arrow.names))
            if missing:
                raise CatalogError(
                    f"{file.url}: lacks the columns {missing} that {self._files[0].name} has; "
                    "all files of a catalog need the same columns"
                )
            try:
                yield from _batches(parquet, columns, masked, rows)
            except GzscaleError:
                raise
            except (pa.ArrowException, OSError) as error:
                raise CatalogError(
                    f"{file.url}: damaged Parquet: {error}; write or fetch it again"
                ) from error


def _open(file: SourceFile) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(pa.PythonFile(file.open(), mode="r"), buffer_size=BUFFER_BYTES)
    except GzscaleError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise CatalogError(
            f"{file.url}: not a Parquet file, or cut short ({error}); write or fetch it again, "
            "or set catalog.format"
        ) from error


def _batches(
    parquet: pq.ParquetFile, columns: Sequence[str], masked: Sequence[str], rows: int
) -> Iterator[pa.RecordBatch]:
    needed = [*columns, *(f"{name}{_MASK}" for name in masked)]
    # One row group a call: a single call holds on to what it read of all groups until its end.
    for group in range(parquet.num_row_groups):
        for batch in parquet.iter_batches(batch_size=rows, row_groups=[group], columns=needed):
            yield _masked(batch, columns, masked)


def _masked(batch: pa.RecordBatch, columns: Sequence[str], masked: Sequence[str]) -> pa.RecordBatch:
    arrays = []
    for name in columns:
        values = batch.column(name)
        if name in masked:
            values = pc.if_else(batch.column(f"{name}{_MASK}"), None, values)
        arrays.append(values)
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))


def _units(schema: pa.Schema) -> dict[str, str]:
    """Collect units: of VOParquet (IVOA Note 2025-01-14), of astropy, and of the fields themselves."""
    metadata = schema.metadata or {}
    units = _astropy_units(metadata.get(b"table_meta_yaml", b""))
    units |= _votable_units(metadata.get(b"IVOA.VOTable-Parquet.content", b""))
    for field in schema:
        unit = (field.metadata or {}).get(b"unit")
        if unit:
            units[field.name] = unit.decode("utf-8", "replace")
    return units


def _votable_units(header: bytes) -> dict[str, str]:
    if not header or len(header) > MAX_HEADER_BYTES:
        return {}
    try:
        tree = ElementTree.fromstring(header)
    except ElementTree.ParseError:
        return {}
    fields = (node for node in tree.iter() if node.tag.rpartition("}")[2] == "FIELD")
    return {
        node.attrib["name"]: node.attrib["unit"] for node in fields if {"name", "unit"} <= set(node.attrib)
    }


class _HeaderLoader(yaml.SafeLoader):
    """Plain YAML alone: what astropy tags as its own types is passed over."""


_HeaderLoader.add_multi_constructor("!", lambda loader, tag, node: None)


def _astropy_units(header: bytes) -> dict[str, str]:
    if not header or len(header) > MAX_HEADER_BYTES:
        return {}
    try:
        columns = yaml.load(header, _HeaderLoader)["datatype"]
        return {column["name"]: str(column["unit"]) for column in columns if "unit" in column}
    except (yaml.YAMLError, KeyError, TypeError):
        return {}
