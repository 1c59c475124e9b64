"""Small tables in storage: Parquet bytes that depend on the values alone."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq

from gzscale._parquet import decode
from gzscale.errors import DamageError
from gzscale.storage import Storage

__all__ = ["parquet_bytes", "read_parquet"]


def parquet_bytes(table: pa.Table) -> bytes:
    """Encode a table as one Parquet file (ZSTD, page checksums)."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


def read_parquet(storage: Storage, key: str, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file, checking its pages.

    Raises
    ------
    MissingError
        If there is none under that key.
    DamageError
        If it cannot be decoded.
    """
    data = storage.get(key)
    try:
        return decode(data, columns)
    except (pa.ArrowInvalid, OSError) as error:
        raise DamageError(f"{storage.url(key)}: damaged ({error}); run the night again") from error
