"""Decode data units of FITS files: 32-bit images, and vectors of binary tables."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gzscale.errors import ImageError, Reason
from gzscale.surveys.fitsfile import Hdu, integer_card

__all__ = ["image_pixels", "table_vectors"]

_FORMAT = re.compile(r"\s*(\d*)([LXBIJKAEDCMPQ])")
_WIDTH = {"L": 1, "B": 1, "I": 2, "J": 4, "K": 8, "A": 1, "E": 4, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}


def image_pixels(hdu: Hdu, name: str) -> NDArray[np.float32]:
    """Decode a 32-bit floating point image.

    Returns
    -------
    NDArray[np.float32]
        Native byte order, in the FITS axes' reverse order; infinities become NaN.

    Raises
    ------
    ImageError
        BAD_IMAGE if the pixels are not 32-bit floating point without scaling.
    """
    header = hdu.header
    scaling = (header.get("BSCALE", 1), header.get("BZERO", 0))
    if header.get("BITPIX") != -32 or scaling != (1, 0):
        raise ImageError(
            Reason.BAD_IMAGE,
            f"{name}: BITPIX {header.get('BITPIX')}, BSCALE {scaling[0]}, BZERO {scaling[1]}; "
            "expected 32-bit floating point pixels without scaling",
        )
    axes = range(integer_card(header, "NAXIS", name), 0, -1)
    shape = tuple(integer_card(header, f"NAXIS{i}", name) for i in axes)
    pixels = np.frombuffer(hdu.data, dtype=">f4").astype(np.float32).reshape(shape)
    with np.errstate(all="ignore"):
        if not np.isfinite(np.sum(pixels)):
            pixels[np.isinf(pixels)] = np.nan
    return pixels


def table_vectors(hdu: Hdu, columns: tuple[str, ...], name: str) -> dict[str, NDArray[np.float32]]:
    """Decode vector columns of 32-bit floats from the first row of a binary table.

    Returns
    -------
    dict[str, NDArray[np.float32]]
        By column; in the shape of TDIM, slowest axis first, where there is one.

    Raises
    ------
    ImageError
        BAD_IMAGE if a column is missing or not of that kind.
    """
    header, offset = hdu.header, 0
    found: dict[str, NDArray[np.float32]] = {}
    for i in range(1, min(integer_card(header, "TFIELDS", name), 999) + 1):
        match = _FORMAT.match(str(header.get(f"TFORM{i}", "")))
        if match is None or match[2] not in _WIDTH:
            break
        count = int(match[1] or 1)
        column = str(header.get(f"TTYPE{i}", "")).strip().upper()
        stop = offset + count * _WIDTH[match[2]]
        if column in columns and match[2] == "E" and stop <= hdu.size:
            values = np.frombuffer(hdu.part(offset, stop), dtype=">f4").astype(np.float32)
            found[column] = values.reshape(_dimensions(header.get(f"TDIM{i}"), count))
        offset = stop
    missing = [column for column in columns if column not in found]
    if missing:
        raise ImageError(
            Reason.BAD_IMAGE,
            f"{name}: the table extension has no usable column {', '.join(missing)}; fetch it again",
        )
    return found


def _dimensions(text: Any, count: int) -> tuple[int, ...]:
    sizes = tuple(int(part) for part in re.findall(r"\d+", str(text or "")))[::-1]
    return sizes if sizes and math.prod(sizes) == count else (count,)
