"""Resample many stamps out of one image: area weighted, flux conserving, in one compiled call.

Every target pixel is the sum of the source pixels below it, weighted with their overlap
areas (see `gzscale.cutouts.overlap`). The result is the flux in nanomaggies that falls into the target
pixel, whatever its size: a target pixel of twice the side holds four times the sky's flux.

A source pixel that is not finite, or beyond the image's edge, has no weight. Where a target pixel
is covered in part, its flux is scaled up to the whole pixel (its mean surface
brightness times its area); covered less than `MIN_COVERED`, it is NaN.

The compiled functions release the GIL and run on one thread: cutting is parallel by processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gzscale.cutouts.affine import Tiles
from gzscale.cutouts.half import to_half
from gzscale.cutouts.overlap import Matrix, quantise, table_of
from gzscale.cutouts.sums import FAST, bilinear_sums, is_parallel, load_window, table_sums

__all__ = ["COVERED", "CLIPPED", "FINITE", "MIN_COVERED", "NAN_HALF", "Target", "finish_stamps", "resample"]

#: Covered fraction below which a target pixel is missing.
MIN_COVERED = 0.5
#: Columns of a tally: covered target pixels (sum of fractions), finite pixels, clipped pixels.
COVERED, FINITE, CLIPPED = 0, 1, 2
#: Stamps are cut in order of cells of this many source pixels: neighbours find each other's in the cache.
CELL = 128
#: Source pixels along the side of a block that is resampled at once: its buffer fits the L1/L2 cache.
BLOCK = 96

#: Largest finite float16.
LARGEST_HALF = 65504.0
#: Bits of a float16 NaN.
NAN_HALF = 0x7E00


@dataclass(frozen=True, slots=True)
class Target:
    """Where the stamps of one band go.

    Attributes
    ----------
    out
        Bits of float16 stamps, uint16, flat and contiguous. Every pixel of a tile is written, NaN where the
        image does not reach.
    start
        Where in ``out`` each stamp begins, int64, shape (n_stamps,).
    slot
        For each stamp, where in ``sums`` it is accumulated because further images may add
        to it, or -1 if one image is its only one; shape (n_stamps,).
    sums
        Flux and covered fraction of accumulated stamps, float32, shape (n_slots, 2, size, size).
    tally
        Counts a stamp, shape (n_stamps, 3): see `COVERED`, `FINITE`, `CLIPPED`.
    """

    out: NDArray[np.uint16]
    start: NDArray[np.int64]
    slot: NDArray[np.int64]
    sums: NDArray[np.float32]
    tally: NDArray[np.float64]


def resample(pixels: NDArray[np.float32], tiles: Tiles, target: Target) -> None:
    """Resample the tiles of some stamps out of one image.

    Parameters
    ----------
    pixels
        Flux a source pixel, float32, shape (ny, nx), C-contiguous.
    tiles
        The stamps' tiles with their affine maps.
    target
        Where the stamps go.
    """
    if not len(tiles.stamp):
        return
    keys, which = np.unique(quantise(tiles.matrix), axis=0, return_inverse=True)
    tables = [table_of(cast(Matrix, tuple(key))) for key in keys.tolist()]
    starts = np.cumsum([0, *(table.weights.size for table in tables)])
    layout = [
        (start, table.width, table.half_x, table.half_y)
        for start, table in zip(starts[:-1].tolist(), tables, strict=True)
    ]
    near = np.lexsort((tiles.origin[:, 0] // CELL, tiles.origin[:, 1] // CELL))
    _resample(
        pixels,
        tiles.stamp[near],
        tiles.box[near],
        tiles.origin[near],
        tiles.matrix[near],
        np.concatenate([table.weights.reshape(-1) for table in tables]),
        np.array(layout)[which.reshape(-1)[near]],
        tiles.size,
        target.slot,
        target.sums,
        target.out,
        target.start,
        target.tally,
    )


def finish_stamps(target: Target, stamps: NDArray[np.int64]) -> None:
    """Turn accumulated stamps into float16: the mean of all images, weighted with covered fraction."""
    for stamp in stamps.tolist():
        value, covered = target.sums[target.slot[stamp]]
        size = value.shape[1]
        finite, clipped = _finish(
            value.reshape(-1), covered.reshape(-1), size, size, target.out, target.start[stamp], size
        )
        target.tally[stamp, FINITE] += finite
        target.tally[stamp, CLIPPED] += clipped


@njit(cache=True, nogil=True, fastmath=FAST)
def _finish_whole(value, rows, columns, out, at, size):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Do what `_finish` does where every pixel is covered; return the number of clipped pixels."""
    clipped = 0
    for row in range(rows):
        line = value[row * columns : (row + 1) * columns]
        for k in range(columns):
            clipped += abs(line[k]) > LARGEST_HALF
        to_half(line, out[at + row * size : at + row * size + columns])
    return clipped


@njit(cache=True, nogil=True, fastmath=FAST)
def _finish(value, covered, rows, columns, out, at, size):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Scale flux up to whole pixels, write its float16 bits; count finite and clipped pixels."""
    finite = clipped = 0
    for k in range(rows * columns):
        if covered[k] >= MIN_COVERED:
            value[k] /= covered[k]
            finite += 1
            clipped += abs(value[k]) > LARGEST_HALF
        else:
            value[k] = np.nan
    for row in range(rows):
        begin = at + row * size
        to_half(value[row * columns : (row + 1) * columns], out[begin : begin + columns])
    return finite, clipped


@njit(cache=True, nogil=True, fastmath=FAST)
def _add(value, covered, rows, columns, sums, top, left):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Add a block to an accumulated stamp."""
    for row in range(rows):
        for column in range(columns):
            sums[0, top + row, left + column] += value[row * columns + column]
            sums[1, top + row, left + column] += covered[row * columns + column]


@njit(cache=True, nogil=True, fastmath=FAST)
def _resample(  # type: ignore[no-untyped-def]  # noqa: ANN202
    pixels,  # noqa: ANN001
    stamps,  # noqa: ANN001
    boxes,  # noqa: ANN001
    origins,  # noqa: ANN001
    matrices,  # noqa: ANN001
    weights,  # noqa: ANN001
    layout,  # noqa: ANN001
    size,  # noqa: ANN001
    slot,  # noqa: ANN001
    sums,  # noqa: ANN001
    out,  # noqa: ANN001
    start,  # noqa: ANN001
    tally,  # noqa: ANN001
):
    """Resample tiles block by block; a row of ``layout`` is start, width and half extent of a table."""
    buffer = np.empty(0, dtype=np.float32)
    good = np.empty(0, dtype=np.float32)
    flux = np.empty(0, dtype=np.float32)
    share = np.empty(0, dtype=np.float32)
    ny, nx = pixels.shape
    for n in range(len(stamps)):
        stamp, m = stamps[n], matrices[n]
        first, width = int(layout[n, 0]), int(layout[n, 1])
        area = np.float32(abs(m[0, 0] * m[1, 1] - m[0, 1] * m[1, 0]))
        reach = max(abs(m[0, 0]) + abs(m[0, 1]), abs(m[1, 0]) + abs(m[1, 1]))
        parallel = is_parallel(m)
        side = max(1, int(BLOCK / reach))
        parts_y = (boxes[n, 2] + side - 1) // side
        parts_x = (boxes[n, 3] + side - 1) // side
        for part_y in range(parts_y):
            first_row = boxes[n, 2] * part_y // parts_y
            rows = boxes[n, 2] * (part_y + 1) // parts_y - first_row
            for part_x in range(parts_x):
                first_column = boxes[n, 3] * part_x // parts_x
                columns = boxes[n, 3] * (part_x + 1) // parts_x - first_column
                # Lower left bound of the footprint of the block's first pixel; pixel k spans [k, k + 1).
                x = origins[n, 0] + m[0, 0] * first_column + m[0, 1] * first_row - layout[n, 2] + 0.5
                y = origins[n, 1] + m[1, 0] * first_column + m[1, 1] * first_row - layout[n, 3] + 0.5
                run_x = (m[0, 0] * (columns - 1), m[0, 1] * (rows - 1))
                run_y = (m[1, 0] * (columns - 1), m[1, 1] * (rows - 1))
                x0 = int(np.floor(x + min(run_x[0], 0.0) + min(run_x[1], 0.0) - 0.5))
                y0 = int(np.floor(y + min(run_y[0], 0.0) + min(run_y[1], 0.0) - 0.5))
                x1 = int(np.floor(x + max(run_x[0], 0.0) + max(run_x[1], 0.0) + 0.5)) + width
                y1 = int(np.floor(y + max(run_y[0], 0.0) + max(run_y[1], 0.0) + 0.5)) + width
                top = boxes[n, 0] + first_row
                left = boxes[n, 1] + first_column
                at = start[stamp] + top * size + left
                if x1 <= 0 or y1 <= 0 or x0 >= nx or y0 >= ny:
                    if slot[stamp] < 0:
                        for row in range(rows):
                            out[at + row * size : at + row * size + columns] = NAN_HALF
                    continue
                w, h = x1 - x0, y1 - y0
                if len(buffer) < w * h + 4:
                    # A vector of four pixels may reach three beyond the last one; those weigh nothing.
                    buffer = np.zeros(w * h + 4, dtype=np.float32)
                    good = np.zeros(w * h + 4, dtype=np.float32)
                if len(flux) < rows * columns:
                    flux = np.empty(rows * columns, dtype=np.float32)
                    share = np.empty(rows * columns, dtype=np.float32)
                bad = load_window(pixels, x0, y0, w, h, buffer, good)
                if parallel:
                    # From the bound of the table's footprint to that of a source pixel.
                    near_x, near_y = x - x0 + layout[n, 2] - 0.5, y - y0 + layout[n, 3] - 0.5
                    bilinear_sums(buffer, w, near_x, near_y, m, rows, columns, flux)
                    if bad > 0:
                        bilinear_sums(good, w, near_x, near_y, m, rows, columns, share)
                else:
                    table_sums(buffer, w, weights, first, width, x - x0, y - y0, m, rows, columns, flux)
                    if bad > 0:
                        table_sums(good, w, weights, first, width, x - x0, y - y0, m, rows, columns, share)
                for k in range(rows * columns):
                    flux[k] *= area
                if bad == 0 and slot[stamp] < 0:
                    tally[stamp, COVERED] += rows * columns
                    tally[stamp, FINITE] += rows * columns
                    tally[stamp, CLIPPED] += _finish_whole(flux, rows, columns, out, at, size)
                    continue
                total = 0.0
                for k in range(rows * columns):
                    if bad == 0:
                        share[k] = 1
                    total += share[k]
                tally[stamp, COVERED] += total
                if slot[stamp] >= 0:
                    _add(flux, share, rows, columns, sums[slot[stamp]], top, left)
                else:
                    finite, clipped = _finish(flux, share, rows, columns, out, at, size)
                    tally[stamp, FINITE] += finite
                    tally[stamp, CLIPPED] += clipped
