"""Encode a shard of cutouts chunk by chunk, the bytes that zarr-python writes for it.

zarr-python holds every chunk of a shard decoded, encoded and joined at once, and hands each to a thread of
its own; here the shard grows in one buffer.

References
----------
Zarr v3 specification: the codecs ``sharding_indexed``, ``blosc`` and ``crc32c``.
"""

from __future__ import annotations

from typing import Any

import google_crc32c
import numpy as np
from numcodecs.blosc import Blosc
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

__all__ = ["COMPRESSORS", "shard_bytes"]

#: Of a chunk. Real pixels shrink by an eighth; lz4 after a bit shuffle is the fastest to read that does it.
COMPRESSORS: tuple[Any, ...] = (
    BloscCodec(typesize=2, cname="lz4", clevel=5, shuffle="bitshuffle"),
    Crc32cCodec(),
)
_CRC_BYTES = 4
#: What blosc adds to a chunk that it cannot shrink (BLOSC_MAX_OVERHEAD).
_BLOSC_OVERHEAD = 16
_BLOSC = Blosc(cname="lz4", clevel=5, shuffle=Blosc.BITSHUFFLE, typesize=2)


def shard_bytes(stamps: NDArray[np.float16], chunk: int) -> NDArray[np.uint8]:
    """Return a shard that holds some stamps.

    Parameters
    ----------
    stamps
        float16, C-contiguous, the first axis counts objects.
    chunk
        Objects of a chunk; the last one is filled up with NaN.

    Returns
    -------
    NDArray[np.uint8]
        The chunks one after the other, each with its CRC32C, then offset and length of each (uint64) and the
        CRC32C of these; little-endian.
    """
    count = -(-len(stamps) // chunk)
    # Room for the worst case: what is not used is never touched, and costs no memory.
    most = chunk * stamps[:1].nbytes + _BLOSC_OVERHEAD + _CRC_BYTES
    shard = np.empty(count * (most + 16) + _CRC_BYTES, np.uint8)
    index = np.empty((count, 2), "<u8")
    length = 0
    for number in range(count):
        part = stamps[number * chunk : (number + 1) * chunk]
        if len(part) < chunk:
            padding = np.full((chunk - len(part), *part.shape[1:]), np.nan, dtype=part.dtype)
            part = np.concatenate([part, padding])
        start, length = length, _append(shard, length, _BLOSC.encode(part))
        index[number] = start, length - start
    return shard[: _append(shard, length, index.tobytes())]


def _append(shard: NDArray[np.uint8], at: int, data: bytes) -> int:
    """Write bytes and their CRC32C from ``at`` on; return where they end."""
    end = at + len(data)
    shard[at:end] = np.frombuffer(data, np.uint8)
    crc = int(google_crc32c.value(data)).to_bytes(_CRC_BYTES, "little")
    shard[end : end + _CRC_BYTES] = np.frombuffer(crc, np.uint8)
    return end + _CRC_BYTES
