"""Puts the files of a release into storage, hashed while they are written."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from gzscale.storage import Storage, sha256_hex

__all__ = ["ROW_GROUP_ROWS", "Shelf"]

#: Rows of a row group: two of them are in memory while one is written, and its statistics on
#: ``_healpix_29`` spare a cone search most of a file; the footers of 10^8 rows come to some 90 MB.
ROW_GROUP_ROWS = 16_384

#: ZSTD's fast levels: on network outputs, whose mantissas are noise, level 15 (HATS's default) takes
#: ten times as long for less than 2 % of the size.
_COMPRESSION_LEVEL = 1


class _HashingFile(io.RawIOBase):
    """A file that hashes what is appended to it; Parquet is written front to back."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        self._file.write(data)
        self.size += len(data)
        return len(data)

    def tell(self) -> int:
        return self.size


class Shelf:
    """A prefix of a storage, and the inventory of what was put there.

    Parameters
    ----------
    destination
        Where the files go.
    folder
        Local folder for the one file that is being written.

    Attributes
    ----------
    inventory
        Storage key -> (SHA-256, size in bytes), in the order of writing.
    """

    def __init__(self, destination: Storage, folder: Path) -> None:
        self._destination = destination
        self._folder = folder
        self.inventory: dict[str, tuple[str, int]] = {}

    def size_below(self, prefix: str) -> int:
        """Return the bytes that were put below a prefix."""
        return sum(size for key, (_, size) in self.inventory.items() if key.startswith(f"{prefix}/"))

    def put(self, key: str, data: bytes) -> None:
        """Store some bytes."""
        self._destination.put(key, data)
        self.inventory[key] = (sha256_hex(data), len(data))

    def put_parquet(
        self,
        key: str,
        groups: Iterable[pa.Table],
        schema: pa.Schema,
        metadata: Mapping[str, str],
        sorted_by: Sequence[str],
    ) -> pq.FileMetaData:
        """Write a Parquet file row group by row group, and store it.

        Parameters
        ----------
        key
            Storage key.
        groups
            One table a row group, of the given schema.
        schema
            With the fields' metadata.
        metadata
            Key-value metadata of the file.
        sorted_by
            Columns that the rows are sorted by, ascending.

        Returns
        -------
        pyarrow.parquet.FileMetaData
            The footer that was written.
        """
        path = self._folder / "part.parquet"
        footers: list[pq.FileMetaData] = []
        try:
            with path.open("wb") as file:
                sink = _HashingFile(file)
                with pq.ParquetWriter(
                    sink, schema, metadata_collector=footers, **_settings(schema, sorted_by)
                ) as writer:
                    for group in groups:
                        writer.write_table(group, row_group_size=max(group.num_rows, 1))
                        del group
                    writer.add_key_value_metadata(dict(metadata))
            self._destination.put_file(key, path)
        finally:
            path.unlink(missing_ok=True)
        self.inventory[key] = (sink.sha256.hexdigest(), sink.size)
        return footers[0]


def _settings(schema: pa.Schema, sorted_by: Sequence[str]) -> dict[str, Any]:
    """Choose encodings: sorted integers as differences, floats with their bytes apart."""
    encoding = {}
    for field in schema:
        if pa.types.is_floating(field.type):
            encoding[field.name] = "BYTE_STREAM_SPLIT"
        elif field.name == sorted_by[0]:
            encoding[field.name] = "DELTA_BINARY_PACKED"
    return {
        "compression": "zstd",
        "compression_level": _COMPRESSION_LEVEL,
        "use_dictionary": [field.name for field in schema if field.name not in encoding],
        "column_encoding": encoding,
        "write_statistics": True,
        "sorting_columns": [pq.SortingColumn(schema.get_field_index(name)) for name in sorted_by],
    }
