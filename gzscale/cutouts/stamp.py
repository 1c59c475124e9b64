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

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gzscale.cutouts.affine import Tiles
from gzscale.cutouts.half import to_half
from gzscale.cutouts.overlap import quantise, table_of

__all__ = ["COVERED", "CLIPPED", "FINITE", "MIN_COVERED", "Target", "finish_stamps", "resample"]

#: Covered fraction below which a target pixel is missing.
MIN_COVERED = 0.5
#: Columns of a tally: covered target pixels (sum of fractions), finite pixels, clipped pixels.
COVERED, FINITE, CLIPPED = 0, 1, 2
#: Source pixels along the side of a block that is resampled at once: its buffer fits the L1/L2 cache.
BLOCK = 96

# Without `nnan` and `ninf`: a NaN must stay one.
_FAST = {"contract", "reassoc", "nsz", "arcp"}


@dataclass(frozen=True, slots=True)
class Target:
    """Where the stamps of one band go.

    Attributes
    ----------
    out
        Bits of float16 stamps, uint16, flat and contiguous.
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


def resample(
    pixels: NDArray[np.float32],
    tiles: Tiles,
    target: Target,
) -> None:
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
    groups: dict[tuple[float, float, float, float], list[int]] = {}
    for index in range(len(tiles.stamp)):
        groups.setdefault(quantise(tiles.matrix[index]), []).append(index)
    for key, members in groups.items():
        table = table_of(key)
        chosen = np.array(members, dtype=np.int64)
        _resample(
            pixels,
            tiles.stamp[chosen],
            tiles.box[chosen],
            tiles.origin[chosen],
            tiles.matrix[chosen],
            table.weights.reshape(-1),
            tiles.size,
            table.phases,
            table.width,
            np.array([table.half_x, table.half_y]),
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
        finite, clipped = _finish(value, covered, target.out, target.start[stamp], size)
        target.tally[stamp, FINITE] += finite
        target.tally[stamp, CLIPPED] += clipped


@njit(cache=True, nogil=True, fastmath=_FAST)
def _load(pixels, x0, y0, width, height, buffer, good):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Copy a window, zero where it is off the image or not finite; return how many pixels are bad."""
    ny, nx = pixels.shape
    bad = 0
    if x0 >= 0 and y0 >= 0 and x0 + width <= nx and y0 + height <= ny:
        total = np.float32(0)
        for y in range(height):
            for x in range(width):
                value = pixels[y0 + y, x0 + x]
                buffer[y * width + x] = value
                total += value * np.float32(0)
        if total == 0:
            return 0
    for y in range(height):
        for x in range(width):
            at = y * width + x
            inside = 0 <= y0 + y < ny and 0 <= x0 + x < nx
            value = pixels[y0 + y, x0 + x] if inside else np.float32(np.nan)
            if np.isfinite(value):
                buffer[at] = value
                good[at] = 1
            else:
                buffer[at] = 0
                good[at] = 0
                bad += 1
    return bad


@njit(cache=True, nogil=True, fastmath=_FAST)
def _sum3(buffer, stride, weights, phases, x, y, m, value):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Weighted sums where the footprint touches at most 3 x 3 source pixels."""
    rows, columns = value.shape
    shift = 0
    while (1 << shift) < phases:
        shift += 1
    low = phases - 1
    dx, dy = m[0, 0] * phases, m[1, 0] * phases
    for row in range(rows):
        x_row = (x + m[0, 1] * row) * phases + 0.5
        y_row = (y + m[1, 1] * row) * phases + 0.5
        for column in range(columns):
            qx = np.int32(x_row + dx * column)
            qy = np.int32(y_row + dy * column)
            s = (qy >> shift) * stride + (qx >> shift)
            t = (((qy & low) << shift) + (qx & low)) * 9
            u, v = s + stride, s + 2 * stride
            value[row, column] = (
                (buffer[s] * weights[t] + buffer[s + 1] * weights[t + 1] + buffer[s + 2] * weights[t + 2])
                + (
                    buffer[u] * weights[t + 3]
                    + buffer[u + 1] * weights[t + 4]
                    + buffer[u + 2] * weights[t + 5]
                )
                + (
                    buffer[v] * weights[t + 6]
                    + buffer[v + 1] * weights[t + 7]
                    + buffer[v + 2] * weights[t + 8]
                )
            )


@njit(cache=True, nogil=True, fastmath=_FAST)
def _sum(buffer, stride, weights, phases, width, x, y, m, value):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Weighted sums of any width of footprint."""
    rows, columns = value.shape
    dx, dy = m[0, 0] * phases, m[1, 0] * phases
    for row in range(rows):
        x_row = (x + m[0, 1] * row) * phases + 0.5
        y_row = (y + m[1, 1] * row) * phases + 0.5
        for column in range(columns):
            qx = np.int64(x_row + dx * column)
            qy = np.int64(y_row + dy * column)
            t = ((qy % phases) * phases + qx % phases) * width * width
            s = (qy // phases) * stride + qx // phases
            total = np.float32(0)
            for _ in range(width):
                for i in range(width):
                    total += buffer[s + i] * weights[t + i]
                s += stride
                t += width
            value[row, column] = total


@njit(cache=True, nogil=True, fastmath=_FAST)
def _finish(value, covered, out, at, stride):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Divide weighted flux by covered fraction into float16 bits; count finite and clipped pixels."""
    rows, columns = value.shape
    finite = clipped = 0
    for row in range(rows):
        for column in range(columns):
            cover = covered[row, column]
            if cover >= MIN_COVERED:
                flux = value[row, column] / cover
                value[row, column] = flux
                finite += 1
                clipped += abs(flux) > 65504
            else:
                value[row, column] = np.nan
        begin = at + row * stride
        to_half(value[row], out[begin : begin + columns])
    return finite, clipped


@njit(cache=True, nogil=True, fastmath=_FAST)
def _finish_whole(value, out, at, stride):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Write wholly covered flux as float16 bits; count clipped pixels."""
    rows, columns = value.shape
    clipped = 0
    for row in range(rows):
        for column in range(columns):
            clipped += abs(value[row, column]) > 65504
        begin = at + row * stride
        to_half(value[row], out[begin : begin + columns])
    return clipped


@njit(cache=True, nogil=True, fastmath=_FAST)
def _resample(  # type: ignore[no-untyped-def]  # noqa: ANN202
    pixels,  # noqa: ANN001
    stamps,  # noqa: ANN001
    boxes,  # noqa: ANN001
    origins,  # noqa: ANN001
    matrices,  # noqa: ANN001
    weights,  # noqa: ANN001
    size,  # noqa: ANN001
    phases,  # noqa: ANN001
    width,  # noqa: ANN001
    half,  # noqa: ANN001
    slot,  # noqa: ANN001
    sums,  # noqa: ANN001
    out,  # noqa: ANN001
    start,  # noqa: ANN001
    tally,  # noqa: ANN001
):
    """Resample tiles that share one table, block by block."""
    buffer = np.empty(0, dtype=np.float32)
    good = np.empty(0, dtype=np.float32)
    flux = np.empty(0, dtype=np.float32)
    share = np.empty(0, dtype=np.float32)
    ny, nx = pixels.shape
    for n in range(len(stamps)):
        stamp, m = stamps[n], matrices[n]
        area = np.float32(abs(m[0, 0] * m[1, 1] - m[0, 1] * m[1, 0]))
        reach = max(abs(m[0, 0]) + abs(m[0, 1]), abs(m[1, 0]) + abs(m[1, 1]))
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
                x = origins[n, 0] + m[0, 0] * first_column + m[0, 1] * first_row - half[0] + 0.5
                y = origins[n, 1] + m[1, 0] * first_column + m[1, 1] * first_row - half[1] + 0.5
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
                    continue
                w, h = x1 - x0, y1 - y0
                if len(buffer) < w * h:
                    buffer = np.empty(w * h, dtype=np.float32)
                    good = np.empty(w * h, dtype=np.float32)
                if len(flux) < rows * columns:
                    flux = np.empty(rows * columns, dtype=np.float32)
                    share = np.empty(rows * columns, dtype=np.float32)
                bad = _load(pixels, x0, y0, w, h, buffer, good)
                f = flux[: rows * columns].reshape((rows, columns))
                c = share[: rows * columns].reshape((rows, columns))
                if width == 3:
                    _sum3(buffer, w, weights, phases, x - x0, y - y0, m, f)
                else:
                    _sum(buffer, w, weights, phases, width, x - x0, y - y0, m, f)
                f *= area
                if bad == 0:
                    c[:] = 1
                elif width == 3:
                    _sum3(good, w, weights, phases, x - x0, y - y0, m, c)
                else:
                    _sum(good, w, weights, phases, width, x - x0, y - y0, m, c)
                tally[stamp, COVERED] += rows * columns if bad == 0 else c.sum()
                if slot[stamp] >= 0:
                    sums[slot[stamp], 0, top : top + rows, left : left + columns] += f
                    sums[slot[stamp], 1, top : top + rows, left : left + columns] += c
                elif bad == 0:
                    tally[stamp, FINITE] += rows * columns
                    tally[stamp, CLIPPED] += _finish_whole(f, out, at, size)
                else:
                    finite, clipped = _finish(f, c, out, at, size)
                    tally[stamp, FINITE] += finite
                    tally[stamp, CLIPPED] += clipped
