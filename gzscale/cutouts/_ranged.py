"""A zarr store that reads of one large file only the bytes that are asked for."""

from __future__ import annotations

from collections.abc import Mapping

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.storage import MemoryStore

from gzscale.storage import Storage

__all__ = ["RangedStore"]


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
        data = self._storage.get_range(self._key, start, stop)
        return (prototype or default_buffer_prototype()).buffer.from_bytes(data)

    def _span(self, byte_range: ByteRequest | None) -> tuple[int, int]:
        if byte_range is None:
            return 0, self._size
        if isinstance(byte_range, RangeByteRequest):
            return byte_range.start, byte_range.end
        if isinstance(byte_range, OffsetByteRequest):
            return byte_range.offset, self._size
        return max(0, self._size - byte_range.suffix), self._size
