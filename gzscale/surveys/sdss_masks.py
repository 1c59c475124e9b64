"""SDSS fpM files: which pixels of a frame were saturated, interpolated or hit by cosmic rays.

An fpM file has one binary table a mask plane. Each row is one object mask,
and its ``s`` the object's spans, packed as big-endian 16-bit triples: row,
first column and last column, both included.

References
----------
.. [1] https://classic.sdss.org/dr7/dm/flatFiles/fpM.html
.. [2] ``readAtlasImages``, phObjc.h: S_MASKTYPE.
"""

from __future__ import annotations

import bz2
import gzip
import io
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from gzscale.errors import ImageError, Reason

__all__ = ["SPAN_PLANES", "blank_masked", "mask_spans"]

#: An unpacked file at most: those of a dense field have 0.4 MB.
MAX_BYTES = 64_000_000

#: The planes, in the order of the file's extensions.
SPAN_PLANES = (
    "INTERP",
    "SATUR",
    "NOTCHECKED",
    "OBJECT",
    "BRIGHTOBJECT",
    "BINOBJECT",
    "CATOBJECT",
    "SUBTRACTED",
    "GHOST",
    "CR",
)


def mask_spans(stored: bytes, name: str, plane: str) -> NDArray[np.int64]:
    """Read the spans of one mask plane.

    Parameters
    ----------
    stored
        Bytes of the fpM file; plain, or packed with gzip, as SDSS keeps them, or bzip2.
    name
        Of the file, for messages.
    plane
        One of `SPAN_PLANES`.

    Returns
    -------
    NDArray[np.int64]
        Row, first and last column (0-based, both included), shape (n, 3).

    Raises
    ------
    ImageError
        BAD_IMAGE if the file is not an fpM file.
    """
    try:
        with fits.open(io.BytesIO(_unpacked(stored)), memmap=False) as hdus:
            table = hdus[1 + SPAN_PLANES.index(plane)]
            rows = table.data if table.header["NAXIS2"] else []
            pieces = [_spans(row["s"], int(row["row0"]), int(row["col0"])) for row in rows]
    except (
        OSError,
        EOFError,
        zlib.error,
        IndexError,
        KeyError,
        TypeError,
        ValueError,
        fits.VerifyError,
    ) as error:
        raise ImageError(
            Reason.BAD_IMAGE, f"{name}: not an fpM mask file ({error}); fetch it again"
        ) from error
    return np.concatenate([np.zeros((0, 3), np.int64), *pieces])


def blank_masked(pixels: NDArray[np.float32], stored: bytes, name: str, planes: Sequence[str]) -> None:
    """Set the pixels of some mask planes to NaN, in place."""
    ny, nx = pixels.shape
    for plane in planes:
        spans = mask_spans(stored, name, plane)
        inside = (spans[:, 0] >= 0) & (spans[:, 0] < ny)
        for row, first, last in spans[inside]:
            pixels[row, max(0, first) : min(nx, last + 1)] = np.nan


def _unpacked(stored: bytes) -> bytes:
    packed: Any = None
    if stored.startswith(b"\x1f\x8b"):
        packed = gzip.GzipFile(fileobj=io.BytesIO(stored))
    elif stored.startswith(b"BZh"):
        packed = bz2.BZ2File(io.BytesIO(stored))
    if packed is None:
        return stored
    unpacked: bytes = packed.read(MAX_BYTES + 1)
    if len(unpacked) > MAX_BYTES:
        raise ValueError(f"it unpacks to more than {MAX_BYTES} bytes")
    return unpacked


def _spans(packed: NDArray[np.uint8], row0: int, col0: int) -> NDArray[np.int64]:
    triples = np.frombuffer(np.asarray(packed, dtype=np.uint8).tobytes(), dtype=">i2").reshape(-1, 3)
    return triples.astype(np.int64) + np.array([row0, col0, col0])
