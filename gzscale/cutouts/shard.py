"""Encode a shard of cutouts chunk by chunk, the bytes that zarr-python writes for it.

zarr-python holds every chunk of a shard decoded, encoded and joined at once, and hands each to a thread of
its own; here one chunk is in memory at a time.

References
----------
Zarr v3 specification: the codecs ``sharding_indexed``, ``blosc`` and ``crc32c``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import google_crc32c
import numpy as np
from numcodecs.blosc import Blosc
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

__all__ = ["COMPRESSORS", "shard_pieces"]

#: Of a chunk. Real pixels shrink by an eighth; lz4 after a bit shuffle is the fastest to read that does it.
COMPRESSORS: tuple[Any, ...] = (
    BloscCodec(typesize=2, cname="lz4", clevel=5, shuffle="bitshuffle"),
    Crc32cCodec(),
)
_CRC_BYTES = 4
_BLOSC = Blosc(cname="lz4", clevel=5, shuffle=Blosc.BITSHUFFLE, typesize=2)


def shard_pieces(stamps: NDArray[np.float16], chunk: int) -> Iterator[bytes]:
    """Encode a shard that holds some stamps.

    Parameters
    ----------
    stamps
        float16, C-contiguous, the first axis counts objects.
    chunk
        Objects of a chunk; the last one is filled up with NaN.

    Yields
    ------
    bytes
        The chunks one after the other, each with its CRC32C, then offset and length of each (uint64) and the
        CRC32C of these; little-endian.
    """
    count = -(-len(stamps) // chunk)
    index = np.empty((count, 2), "<u8")
    length = 0
    for number in range(count):
        part = stamps[number * chunk : (number + 1) * chunk]
        if len(part) < chunk:
            padding = np.full((chunk - len(part), *part.shape[1:]), np.nan, dtype=part.dtype)
            part = np.concatenate([part, padding])
        data = _BLOSC.encode(part)
        index[number] = length, len(data) + _CRC_BYTES
        length += len(data) + _CRC_BYTES
        yield data
        yield _crc(data)
    yield index.tobytes()
    yield _crc(index.tobytes())


def _crc(data: bytes) -> bytes:
    return int(google_crc32c.value(data)).to_bytes(_CRC_BYTES, "little")
