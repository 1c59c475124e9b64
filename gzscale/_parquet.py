"""Parquet that is in memory as bytes, decoded by the thread that asks."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["decode"]


def decode(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """Decode a Parquet file, checking its pages where they have sums.

    No thread is started. `pyarrow.parquet.read_table` reads through a scan on Arrow's own threads,
    one of which may still hold it when a short command ends: the process is then aborted by
    ``std::terminate``, or never ends (Apache Arrow, issues 34314, 39862 and 50482).

    Parameters
    ----------
    data
        A whole file.
    columns
        The columns to read, in this order; all of them without it.

    Raises
    ------
    pyarrow.ArrowInvalid, OSError
        If the bytes are no Parquet file, are damaged, or lack a column.
    """
    file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    if columns is None:
        return file.read(use_threads=False)
    missing = sorted(set(columns) - set(file.schema_arrow.names))
    if missing:
        raise pa.ArrowInvalid(f"no column {', '.join(missing)} among {len(file.schema_arrow.names)}")
    return file.read(list(columns), use_threads=False).select(list(columns))
