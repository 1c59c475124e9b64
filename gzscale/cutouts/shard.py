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
_BLOSC = Blosc(cname="lz4", clevel=5, shuffle=Blosc.BITSHUFFLE, typesize=2)


def shard_bytes(stamps: NDArray[np.float16], chunk: int) -> bytearray:
    """Return a shard that holds some stamps.

    Parameters
    ----------
    stamps
        float16, C-contiguous, the first axis counts objects.
    chunk
        Objects of a chunk; the last one is filled up with NaN.

    Returns
    -------
    bytearray
        The chunks one after the other, each with its CRC32C, then offset and length of each (uint64) and the
        CRC32C of these; little-endian.
    """
    shard = bytearray()
    index: list[tuple[int, int]] = []
    for first in range(0, len(stamps), chunk):
        part = stamps[first : first + chunk]
        if len(part) < chunk:
            padding = np.full((chunk - len(part), *part.shape[1:]), np.nan, dtype=part.dtype)
            part = np.concatenate([part, padding])
        encoded = _BLOSC.encode(part)
        index.append((len(shard), len(encoded) + 4))
        shard += encoded
        shard += _crc(encoded)
    table = np.array(index, dtype="<u8").tobytes()
    shard += table
    shard += _crc(table)
    return shard


def _crc(data: bytes) -> bytes:
    return int(google_crc32c.value(data)).to_bytes(4, "little")
