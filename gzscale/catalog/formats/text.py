"""CSV and its relatives (semicolon, tab, bar), plain or compressed with gzip, streamed."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.csv

from gzscale.catalog.source import SourceFile
from gzscale.errors import CatalogError

__all__ = ["CsvSource"]

#: A header line is looked for in this many bytes.
HEADER_BYTES = 1 << 20
#: Of one block; the reader holds about twenty of them ahead.
BLOCK_BYTES = 2 << 20
MISSING = ["", "NA", "N/A", "NaN", "nan", "NAN", "null", "NULL", "None", "--"]


class CsvSource:
    """A text table whose first line that is no ``#`` comment names the columns.

    Cells are handed on as text: the reader converts them, so that the type of a column
    does not depend on what its first rows happen to hold.
    """

    units: dict[str, str]
    row_count: int | None

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        self.units = {}
        self.row_count = None
        with self._stream() as stream:
            try:
                text = stream.read(HEADER_BYTES).decode("utf-8-sig", "replace")
            except (OSError, zlib.error) as error:
                raise CatalogError(f"{file.url}: cannot be unpacked ({error}); fetch it again") from error
        lines = text.splitlines()
        self._comments = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
        if self._comments == len(lines):
            raise CatalogError(f"{file.url}: no header line that names the columns; the first line must")
        header = lines[self._comments]
        self._delimiter = max(",;\t|", key=header.count)
        self.names: Sequence[str] = next(csv.reader([header], delimiter=self._delimiter))

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the named columns as text; a block is 2 MB of the file, whatever ``rows`` says."""
        convert = pa.csv.ConvertOptions(
            include_columns=list(dict.fromkeys(columns)),
            column_types=dict.fromkeys(columns, pa.string()),
            null_values=MISSING,
            strings_can_be_null=True,
        )
        read = pa.csv.ReadOptions(block_size=BLOCK_BYTES, skip_rows=self._comments)
        parse = pa.csv.ParseOptions(delimiter=self._delimiter)
        with self._stream() as stream:
            try:
                yield from pa.csv.open_csv(stream, read, parse, convert)
            except (pa.ArrowException, OSError) as error:
                raise CatalogError(f"{self._file.url}: not a table of text: {error}") from error

    def _stream(self) -> pa.NativeFile:
        file = pa.PythonFile(self._file.open(), mode="r")
        if self._file.gzipped:
            return pa.CompressedInputStream(pa.BufferedInputStream(file, BLOCK_BYTES), "gzip")
        return pa.BufferedInputStream(file, BLOCK_BYTES)
