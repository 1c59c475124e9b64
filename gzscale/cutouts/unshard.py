"""Decode a shard of cutouts chunk by chunk, each straight into its place, and hash the file on the way.

zarr-python reads through one event loop, of which a process has one: however many partitions a worker has in
hand, they would be read at the speed of one thread. Here each is read by the thread that wants it.

References
----------
Zarr v3 specification: the codecs ``sharding_indexed``, ``blosc`` and ``crc32c``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
from numcodecs.blosc import Blosc
from numpy.typing import NDArray

__all__ = ["Read", "Shard", "open_shard"]

#: First and last byte (excluded) of a file -> these bytes; fewer where it ends before.
Read = Callable[[int, int], bytes]

#: Bytes that are read at one time, unless a chunk has more.
PIECE = 8 * 2**20
_CRC_BYTES = 4
#: CRC32C of any bytes with their own CRC32C behind them.
_RESIDUE = 0x48674BC7
#: Bytes of a Blosc header, and where in it the length of what is decoded stands (little-endian uint32).
_HEADER, _DECODED = 16, slice(4, 8)
_BLOSC = Blosc()
_LITTLE = {"endian": "little"}


@dataclass(frozen=True)
class Shard:
    """An array of which one file holds all chunks, one behind the other.

    Attributes
    ----------
    shape, dtype
        Of the array; the first axis counts objects.
    chunk
        Objects of a chunk. The last one is filled up.
    begin
        First byte of each chunk, and behind them that of the index, int64, shape (chunks + 1,).
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk: int
    begin: NDArray[np.int64]

    def read(self, read: Read, size: int) -> tuple[NDArray[Any], str]:
        """Return all objects, and the SHA-256 of the whole file.

        Parameters
        ----------
        read
            Reads a part of the file.
        size
            Its bytes.

        Raises
        ------
        ValueError
            If a chunk is damaged.
        """
        data, digest = np.empty(self.shape, self.dtype), hashlib.sha256()
        for first, last in self._pieces():
            piece = read(int(self.begin[first]), int(self.begin[last]))
            digest.update(piece)
            for number in range(first, last):
                start, stop = self.begin[number : number + 2] - self.begin[first]
                place = slice(number * self.chunk, (number + 1) * self.chunk)
                self._decode(piece[start:stop] if last > first + 1 else piece, data[place])
        digest.update(read(int(self.begin[-1]), size))
        return data, digest.hexdigest()

    def take(self, read: Read, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return some objects; of the file only the chunks that hold them are read.

        Parameters
        ----------
        read
            Reads a part of the file.
        rows
            Which, shape (n,).

        Raises
        ------
        ValueError
            If a chunk is damaged.
        """
        data = np.empty((len(rows), *self.shape[1:]), self.dtype)
        held = np.empty((self.chunk, *self.shape[1:]), self.dtype)
        of_chunk, place = np.divmod(rows, self.chunk)
        for number in np.unique(of_chunk):
            chosen = of_chunk == number
            self._decode(read(int(self.begin[number]), int(self.begin[number + 1])), held)
            data[chosen] = held[place[chosen]]
        return data

    def _pieces(self) -> Iterator[tuple[int, int]]:
        """Yield which chunks are read together: the first, and the one behind the last."""
        first = 0
        for last in range(1, len(self.begin)):
            if last + 1 == len(self.begin) or self.begin[last + 1] - self.begin[first] > PIECE:
                yield first, last
                first = last

    def _decode(self, chunk: bytes, out: NDArray[Any]) -> None:
        """Decode a chunk, of which ``out`` may take the beginning alone."""
        if google_crc32c.value(chunk) != _RESIDUE:
            raise ValueError("a chunk is damaged: its CRC32C is not that of its bytes")
        whole = math.prod((self.chunk, *self.shape[1:])) * self.dtype.itemsize
        length = int.from_bytes(chunk[_DECODED], "little")
        if len(chunk) < _HEADER + _CRC_BYTES or length != whole:
            raise ValueError(f"a chunk holds {length} bytes of pixels, {whole} were expected")
        packed = memoryview(chunk)[:-_CRC_BYTES]
        if out.nbytes == whole:
            _BLOSC.decode(packed, out=out)
        else:
            padded = np.empty((self.chunk, *self.shape[1:]), self.dtype)
            _BLOSC.decode(packed, out=padded)
            out[...] = padded[: len(out)]


def open_shard(metadata: Mapping[str, Any], read: Read, size: int) -> Shard | None:
    """Read the index of a file that holds an array.

    Parameters
    ----------
    metadata
        What the array's ``zarr.json`` says.
    read
        Reads a part of the file.
    size
        Its bytes.

    Returns
    -------
    Shard or None
        None where the array is laid out in another way than `gzscale.cutouts.shard` does it.

    Raises
    ------
    ValueError
        If the index is damaged.
    """
    shape, chunk = tuple(metadata["shape"]), _rows_of_chunk(metadata)
    if chunk is None or not shape[0]:
        return None
    count = -(-shape[0] // chunk)
    length = 16 * count + _CRC_BYTES
    tail = read(max(0, size - length), size)
    if len(tail) != length or google_crc32c.value(tail) != _RESIDUE:
        raise ValueError("the index of the shard is damaged")
    begin, long = np.frombuffer(tail[:-_CRC_BYTES], "<u8").reshape(count, 2).T.astype(np.int64)
    ends = np.append(begin, size - length)
    if begin[0] or not np.array_equal(ends[:-1] + long, ends[1:]):
        return None
    return Shard(shape, np.dtype(metadata["data_type"]), chunk, ends)


def _rows_of_chunk(metadata: Mapping[str, Any]) -> int | None:
    """Return the objects of a chunk of an array that is one shard of chunks with Blosc and CRC32C."""
    codecs = metadata["codecs"]
    if len(codecs) != 1 or codecs[0]["name"] != "sharding_indexed":
        return None
    said = codecs[0]["configuration"]
    inner, index = said["codecs"], said["index_codecs"]
    shape, chunk = metadata["shape"], said["chunk_shape"]
    shard = metadata["chunk_grid"]["configuration"]["chunk_shape"]
    plain = (
        isinstance(metadata["data_type"], str)
        and said.get("index_location", "end") == "end"
        and [codec["name"] for codec in inner] == ["bytes", "blosc", "crc32c"]
        and inner[0].get("configuration") == _LITTLE
        and [codec["name"] for codec in index] == ["bytes", "crc32c"]
        and index[0].get("configuration") == _LITTLE
    )
    covers = chunk[1:] == shape[1:] == shard[1:] and shard[0] == -(-shape[0] // chunk[0]) * chunk[0]
    return int(chunk[0]) if plain and covers else None
