"""Zarr stores that read one large file by parts: those that are asked for, or one after the other."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.storage import MemoryStore

from gzscale.storage import Storage

__all__ = ["HashedStore", "RangedStore"]

#: Bytes that are read at one time.
PIECE = 16 * 2**20


class RangedStore(MemoryStore):
    """Small files in memory, and one of which parts are read as they are needed.

    Parameters
    ----------
    files
        Key -> bytes.
    storage
        Where the large file is.
    key
        Its key there.
    name
        Its key here.
    size
        Its bytes.
    """

    def __init__(self, files: Mapping[str, bytes], storage: Storage, key: str, name: str, size: int) -> None:
        prototype = default_buffer_prototype()
        kept = {name: prototype.buffer.from_bytes(data) for name, data in files.items()}
        super().__init__(kept, read_only=True)
        self._storage, self._key, self._name, self._size = storage, key, name, size

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return the bytes of a file, or of a range of it; None where there is no such file."""
        if key != self._name:
            return await super().get(key, prototype, byte_range)
        start, stop = self._span(byte_range)
        data = self._read(start, stop)
        return (prototype or default_buffer_prototype()).buffer.from_bytes(data)

    def _read(self, start: int, stop: int) -> bytes:
        return self._storage.get_range(self._key, start, stop)

    def _span(self, byte_range: ByteRequest | None) -> tuple[int, int]:
        if byte_range is None:
            return 0, self._size
        if isinstance(byte_range, RangeByteRequest):
            return byte_range.start, byte_range.end
        if isinstance(byte_range, OffsetByteRequest):
            return byte_range.offset, self._size
        return max(0, self._size - byte_range.suffix), self._size


class HashedStore(RangedStore):
    """A `RangedStore` whose large file is read once, from its start on, and hashed on the way.

    Two pieces of the file are in memory at most where ranges are asked for in their order; others are read
    by themselves. Parameters as of `RangedStore`.
    """

    def __init__(self, files: Mapping[str, bytes], storage: Storage, key: str, name: str, size: int) -> None:
        super().__init__(files, storage, key, name, size)
        self._digest = hashlib.sha256()
        self._held, self._begin, self._end = bytearray(), 0, 0
        # A shard's index is its last bytes, and every chunk begins with a look at it.
        self._tails: dict[int, bytes] = {}

    def sha256(self) -> str:
        """Read what was not asked for yet, and return the hash of the whole file.

        Raises
        ------
        StorageError
            If it cannot be read.
        """
        while self._end < self._size and self._read_on():
            self._held.clear()
            self._begin = self._end
        return self._digest.hexdigest()

    def _read(self, start: int, stop: int) -> bytes:
        if stop == self._size and start > 0:
            if start not in self._tails:
                self._tails[start] = super()._read(start, stop)
            return self._tails[start]
        if start < self._begin:
            return super()._read(start, stop)
        while self._end < stop and self._read_on():
            self._drop(min(start, self._end))
        return bytes(self._held[start - self._begin : stop - self._begin])

    def _read_on(self) -> bool:
        piece = super()._read(self._end, min(self._end + PIECE, self._size))
        self._digest.update(piece)
        self._held += piece
        self._end += len(piece)
        return bool(piece)

    def _drop(self, before: int) -> None:
        del self._held[: max(0, before - self._begin)]
        self._begin = max(self._begin, before)
