"""FITS binary tables, read row block by row block."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from astropy.io import fits
from numpy.typing import NDArray

from gzscale.catalog.canonical import from_numpy
from gzscale.catalog.source import SourceFile
from gzscale.errors import CatalogError

__all__ = ["FitsSource"]

#: Bytes of one read at most, whatever the width of a row.
READ_BYTES = 64 << 20


class FitsSource:
    """The first binary table of a FITS file (FITS Standard 4.0, section 7.3).

    Rows are read with plain reads, not through a memory map, so that the memory
    does not grow with the file.
    """

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        self._path = file.unpacked()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with fits.open(self._path, memmap=True, lazy_load_hdus=True) as hdus:
                    self._describe(hdus)
        except CatalogError:
            raise
        except (OSError, ValueError, TypeError, KeyError, fits.VerifyError) as error:
            raise CatalogError(
                f"{file.url}: not a FITS file, or a damaged one ({error}); fetch it again"
            ) from error

    def _describe(self, hdus: Any) -> None:
        table = next((hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU)), None)
        if table is None:
            raise CatalogError(
                f"{self._file.url}: no binary table in this FITS file; write one, or use Parquet"
            )
        self._dtype = table.columns.dtype.newbyteorder(">")
        self._columns = {column.name: column for column in table.columns}
        self._offset = int(table.fileinfo()["datLoc"])
        self.row_count: int | None = int(table.header["NAXIS2"])
        width = int(table.header["NAXIS1"])
        if width != self._dtype.itemsize:
            raise CatalogError(
                f"{self._file.url}: NAXIS1 is {width}, but the columns take {self._dtype.itemsize} bytes; "
                "write the file again"
            )
        needed, size = self._offset + width * self.row_count, self._path.stat().st_size
        if size < needed:
            raise CatalogError(
                f"{self._file.url}: {size} bytes, but its {self.row_count} rows of {width} bytes need "
                f"{needed}; the file is cut short: fetch it again"
            )
        self.names: Sequence[str] = list(self._columns)
        self.units = {name: str(column.unit) for name, column in self._columns.items() if column.unit}

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the named columns, scaled with TSCAL and TZERO, null where they hold TNULL."""
        assert self.row_count is not None
        step = max(1, min(rows, READ_BYTES // max(1, self._dtype.itemsize)))
        with open(self._path, "rb") as file:
            file.seek(self._offset)
            for start in range(0, self.row_count, step):
                block = np.fromfile(file, self._dtype, min(step, self.row_count - start))
                arrays = [self._column(block, name) for name in columns]
                yield pa.RecordBatch.from_arrays(arrays, names=list(columns))

    def _column(self, block: NDArray[np.void], name: str) -> pa.Array:
        column = self._columns[name]
        values = block[name]
        if values.ndim != 1:
            raise CatalogError(f"{self._file.url}: column {name!r} holds arrays of shape {values.shape[1:]}")
        missing = None
        if column.null is not None and values.dtype.kind in "iu":
            missing = values == column.null
        return from_numpy(_scaled(values, column.bscale, column.bzero), missing)


def _scaled(values: NDArray[Any], scale: Any, zero: Any) -> NDArray[Any]:
    scale = 1 if scale in (None, "") else scale
    zero = 0 if zero in (None, "") else zero
    if scale == 1 and zero == 0:
        return values
    if scale == 1 and values.dtype.kind == "i" and zero == 1 << (8 * values.dtype.itemsize - 1):
        # The standard's way to store unsigned integers: the sign bit is flipped.
        native = values.astype(values.dtype.newbyteorder("="))
        unsigned = native.view(native.dtype.str.replace("i", "u"))
        return np.bitwise_xor(unsigned, unsigned.dtype.type(zero))
    return values.astype(np.float64) * float(scale) + float(zero)
