"""Rice-compressed tiles of a FITS image, decoded to integers or to dithered 32-bit floats.

References
----------
FITS Standard 4.0, sections 10.2 (quantisation, subtractive dithering) and 10.4.1 (Rice), appendix I (the
sequence of random numbers).
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

__all__ = ["dither_sequence", "rice_floats", "rice_integers"]

#: Numbers of the dithering sequence.
_RANDOM = 10_000
#: Pixels of value 0 keep it under SUBTRACTIVE_DITHER_2: they are stored as this.
_ZERO_VALUE = -2147483646
#: Bits that say how a block of 32-bit pixels is coded, and the code of pixels stored as they are.
_CODE_BITS, _RAW = 5, 25


@cache
def dither_sequence() -> NDArray[np.float64]:
    """Return the 10,000 random numbers of the FITS standard, float64 of 32-bit precision."""
    values, seed = np.empty(_RANDOM, np.float32), 1
    for i in range(_RANDOM):
        seed = 16807 * seed % 2147483647
        values[i] = seed / 2147483647
    return values.astype(np.float64)


@intrinsic
def _leading_zeros(typingctx, word):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Count the leading zeros of a uint64 that is not 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


@intrinsic
def _eight_bytes(typingctx, data, at):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Read 8 bytes of a uint8 array from ``at`` on as a uint64, most significant first, unchecked."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        address = builder.bitcast(builder.gep(array.data, [arguments[1]]), ir.IntType(64).as_pointer())
        word = builder.load(address, align=1)
        return builder.bswap(word) if sys.byteorder == "little" else word

    return types.uint64(types.Array(types.uint8, 1, "C", readonly=True), types.int64), generate


@njit(cache=True, nogil=True)
def _last_bytes(data, at, stop):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    word = np.uint64(0)
    for i in range(8):
        byte = data[at + i] if at + i < stop else np.uint8(0)
        word = (word << np.uint64(8)) | np.uint64(byte)
    return word


@njit(cache=True, nogil=True, inline="always")
def _word(data, at, stop):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the 8 bytes from ``at`` on, most significant first; those from ``stop`` on are 0."""
    return _eight_bytes(data, at) if at + 8 <= stop else _last_bytes(data, at, stop)  # type: ignore[call-arg]


@njit(cache=True, nogil=True)
def _decode(data, start, stop, block, values):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Decode one tile of 32-bit pixels into ``values``; False if its bytes end before it does."""
    if stop - start < 4:
        return False
    last = np.uint32(_word(data, start, stop) >> np.uint64(32))
    bit = np.int64(start + 4) * 8
    end = np.int64(stop) * 8
    one, count = np.uint32(1), len(values)
    first = 0
    while first < count:
        through = min(first + block, count)
        word = _word(data, bit >> 3, stop) << np.uint64(bit & 7)
        code = np.int64(word >> np.uint64(64 - _CODE_BITS)) - 1
        bit += _CODE_BITS
        if code < 0:
            for i in range(first, through):
                values[i] = np.int32(last)
        elif code < _RAW:
            low, mask = np.uint64(code), np.uint64((1 << code) - 1)
            for i in range(first, through):
                word = _word(data, bit >> 3, stop) << np.uint64(bit & 7)
                zeros = np.int64(0)
                while word >> np.uint64(32) == 0:
                    # Rare: a difference far beyond the block's others.
                    zeros += 32
                    bit += 32
                    if bit >= end:
                        return False
                    word = _word(data, bit >> 3, stop) << np.uint64(bit & 7)
                run = np.int64(_leading_zeros(word))  # type: ignore[call-arg]
                bit += run + 1
                # At least 57 bits are there: up to 32 of the run, and 24 or fewer low bits.
                word = word << np.uint64(run) << np.uint64(1)
                tail = (word >> (np.uint64(63) - low) >> np.uint64(1)) & mask
                bit += code
                if bit > end:
                    return False
                difference = np.uint32((np.uint64(zeros + run) << low) | tail)
                last += (difference >> one) ^ (np.uint32(0) - (difference & one))
                values[i] = np.int32(last)
        elif code == _RAW:
            for i in range(first, through):
                word = _word(data, bit >> 3, stop) << np.uint64(bit & 7)
                difference = np.uint32(word >> np.uint64(32))
                bit += 32
                last += (difference >> one) ^ (np.uint32(0) - (difference & one))
                values[i] = np.int32(last)
        else:
            return False
        if bit > end:
            return False
        first = through
    return True


@njit(cache=True, nogil=True)
def rice_integers(data, starts, stops, boxes, block, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Decode tiles of 32-bit integers.

    Parameters
    ----------
    data
        The bytes that hold the tiles, uint8.
    starts, stops
        Where each tile begins and ends in them, int64, shape (n,).
    boxes
        First row, last row + 1, first column, last column + 1 of each tile, int64, shape (n, 4).
    block
        Pixels that are coded together.
    out
        The image, int32, shape (ny, nx).

    Returns
    -------
    int
        The first tile that cannot be decoded, or -1.
    """
    for n in range(len(starts)):
        top, bottom, left, right = boxes[n]
        values = np.empty((bottom - top) * (right - left), np.int32)
        if not _decode(data, starts[n], stops[n], block, values):
            return n
        out[top:bottom, left:right] = values.reshape(bottom - top, right - left)
    return -1


@njit(cache=True, nogil=True)
def rice_floats(  # type: ignore[no-untyped-def]  # noqa: ANN201
    data,  # noqa: ANN001
    starts,  # noqa: ANN001
    stops,  # noqa: ANN001
    boxes,  # noqa: ANN001
    block,  # noqa: ANN001
    scales,  # noqa: ANN001
    zeros,  # noqa: ANN001
    blanks,  # noqa: ANN001
    seeds,  # noqa: ANN001
    method,  # noqa: ANN001
    random,  # noqa: ANN001
    out,  # noqa: ANN001
):
    """Decode tiles of quantised 32-bit floats; parameters as of `rice_integers`, and these.

    Parameters
    ----------
    scales, zeros
        Of each tile, float64, shape (n,).
    blanks
        The integer that stands for NaN in each tile, int64, shape (n,).
    seeds
        Number of each tile in the dithering sequence, from 0, int64, shape (n,).
    method
        0 without dithering, 1 or 2: SUBTRACTIVE_DITHER_1 and _2.
    random
        `dither_sequence`.
    out
        float32, shape (ny, nx).
    """
    for n in range(len(starts)):
        top, bottom, left, right = boxes[n]
        width = right - left
        values = np.empty((bottom - top) * width, np.int32)
        if not _decode(data, starts[n], stops[n], block, values):
            return n
        scale, zero, blank = scales[n], zeros[n], blanks[n]
        # Each tile begins elsewhere in the sequence, and again whenever that is used up.
        begin = seeds[n] % _RANDOM
        place = np.int64(random[begin] * 500)
        at = 0
        for row in range(top, bottom):
            column = left
            while column < right:
                many = right - column
                if method > 0:
                    many = min(many, _RANDOM - place)
                if method == 0:
                    for i in range(many):
                        out[row, column + i] = np.float32(values[at + i] * scale + zero)
                else:
                    for i in range(many):
                        value = (values[at + i] - random[place + i] + 0.5) * scale + zero
                        out[row, column + i] = np.float32(value)
                for i in range(many):
                    if values[at + i] == blank:
                        out[row, column + i] = np.nan
                    elif method == 2 and values[at + i] == _ZERO_VALUE:
                        out[row, column + i] = 0
                at += many
                column += many
                place += many
                if place == _RANDOM:
                    begin = (begin + 1) % _RANDOM
                    place = np.int64(random[begin] * 500)
    return -1
