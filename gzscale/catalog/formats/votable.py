"""VOTable (IVOA Recommendation 1.5): parsed whole, therefore bounded in size."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from astropy.io import votable

from gzscale.catalog.canonical import from_numpy
from gzscale.catalog.source import SourceFile
from gzscale.errors import CatalogError

__all__ = ["MAX_VOTABLE_BYTES", "VotableSource"]

#: A VOTable is held in memory whole; larger tables belong into Parquet or FITS.
MAX_VOTABLE_BYTES = 512 << 20


class VotableSource:
    """The first table of a VOTable file, in any serialisation, plain or gzipped."""

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        path = file.unpacked(limit=MAX_VOTABLE_BYTES)
        size = path.stat().st_size
        if size > MAX_VOTABLE_BYTES:
            raise CatalogError(
                f"{file.url}: {size} bytes; a VOTable is read whole and may have {MAX_VOTABLE_BYTES}: "
                "convert it to Parquet or FITS"
            )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                table = votable.parse(str(path), verify="ignore").get_first_table()
        except Exception as error:  # the parser raises many unrelated types on damaged XML
            raise CatalogError(
                f"{file.url}: not a VOTable that can be read ({error}); fetch it again"
            ) from error
        self._array = table.array
        self.names: Sequence[str] = [field.name for field in table.fields]
        self._ids = {field.name: field.ID for field in table.fields}
        self.units = {field.name: str(field.unit) for field in table.fields if field.unit is not None}
        self.row_count: int | None = len(self._array)

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the named columns, null where the table marks them as missing."""
        for start in range(0, len(self._array), rows):
            block = self._array[start : start + rows]
            arrays = [self._column(block, name) for name in columns]
            yield pa.RecordBatch.from_arrays(arrays, names=list(columns))

    def _column(self, block: np.ma.MaskedArray, name: str) -> pa.Array:
        values = block[self._ids[name]]
        if values.ndim != 1:
            raise CatalogError(f"{self._file.url}: column {name!r} holds arrays of shape {values.shape[1:]}")
        missing = np.ma.getmaskarray(values)
        data = np.ma.getdata(values)
        if data.dtype.kind == "O":
            data = np.array(
                ["" if gone else str(cell) for cell, gone in zip(data, missing, strict=True)], dtype=str
            )
        return from_numpy(data, missing)
