"""Source pixels below target pixels, weighted and summed: the two loops in which cutting spends its time.

One looks the weights up in a table of overlaps and takes any footprint, the other takes footprints that
are source pixels, shifted. Both read a window of the image that lies contiguous in the cache.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from gzscale.cutouts.overlap import PHASES
from gzscale.cutouts.simd import blended_sum_3, blended_sum_4

__all__ = ["FAST", "bilinear_sums", "is_parallel", "load_window", "table_sums"]

#: A footprint turned, or stretched, by less than this against a source pixel is taken for one: weights are
#: off by at most an eighth of the turn, 0.1 % of a pixel, as those of the tables are. A coadd's stamps at its
#: own pixel scale are such; an SDSS pixel is 0.03 % larger than its nominal 0.396 arcsec, which is not.
TURN, STRETCH = 0.008, 0.00025
#: log2 of the phases of a table.
SHIFT = PHASES.bit_length() - 1

#: Without `nnan` and `ninf`: a NaN must stay one.
FAST = {"contract", "reassoc", "nsz", "arcp"}


@njit(cache=True, nogil=True, fastmath=FAST)
def load_window(pixels, x0, y0, width, height, buffer, good):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
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


@njit(cache=True, nogil=True, fastmath=FAST)
def table_sums(buffer, stride, weights, start, width, x, y, m, rows, columns, value):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Sum the source pixels under each target pixel of a block, weighted with their shares of it."""
    table = width * max(width, 4)
    one, shift, mask = np.float32(1), np.int32(SHIFT), np.int32(PHASES - 1)
    dx, dy = m[0, 0] * PHASES, m[1, 0] * PHASES
    # Of a row first what the compiler makes SIMD of: places in buffer and table, and shares of four tables.
    source, place = np.empty(columns, np.int32), np.empty(columns, np.int32)
    share = np.empty((4, columns), np.float32)
    for row in range(rows):
        x_row = (x + m[0, 1] * row) * PHASES
        y_row = (y + m[1, 1] * row) * PHASES
        for column in range(columns):
            px, py = x_row + dx * column, y_row + dy * column
            qx, qy = np.int32(px), np.int32(py)
            fx, fy = np.float32(px - qx), np.float32(py - qy)
            share[0, column] = (one - fx) * (one - fy)
            share[1, column] = fx * (one - fy)
            share[2, column] = (one - fx) * fy
            share[3, column] = fx * fy
            source[column] = (qy >> shift) * np.int32(stride) + (qx >> shift)
            place[column] = ((qy & mask) * np.int32(PHASES + 1) + (qx & mask)) * np.int32(table)
        for column in range(columns):
            c0, c1, c2, c3 = share[0, column], share[1, column], share[2, column], share[3, column]
            s = np.int64(source[column])
            t = start + np.int64(place[column])
            u = t + (PHASES + 1) * table
            if width == 3:
                total = blended_sum_3(buffer, s, stride, weights, t, u, c0, c1, c2, c3)
            elif width == 4:
                total = blended_sum_4(buffer, s, stride, weights, t, u, c0, c1, c2, c3)
            else:
                total = np.float32(0)
                for _ in range(width):
                    for i in range(width):
                        weight = c0 * weights[t + i] + c1 * weights[t + table + i]
                        weight += c2 * weights[u + i] + c3 * weights[u + table + i]
                        total += buffer[s + i] * weight
                    s += stride
                    t += width
                    u += width
            value[row * columns + column] = total


@njit(cache=True, nogil=True, inline="always")
def is_parallel(m):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Tell whether a footprint is a source pixel, shifted (`TURN`, `STRETCH`)."""
    stretch = max(abs(m[0, 0] - 1.0), abs(m[1, 1] - 1.0))
    return stretch < STRETCH and max(abs(m[0, 1]), abs(m[1, 0])) < TURN


@njit(cache=True, nogil=True, fastmath=FAST)
def bilinear_sums(buffer, stride, x, y, m, rows, columns, value):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Do what `table_sums` does where footprints are source pixels, shifted: each lies over two by two.

    A row falls into a few runs along which target and source pixels keep step; in each the
    fractions of a pixel grow linearly, and the compiler makes SIMD of it.
    """
    for row in range(rows):
        column = 0
        while column < columns:
            px = x + m[0, 1] * row + m[0, 0] * column
            py = y + m[1, 1] * row + m[1, 0] * column
            qx, qy = int(np.floor(px)), int(np.floor(py))
            run = min(_steps(px - qx, m[0, 0] - 1.0), _steps(py - qy, m[1, 0]), columns - column)
            fx, fy = np.float32(px - qx), np.float32(py - qy)
            dx, dy = np.float32(m[0, 0] - 1.0), np.float32(m[1, 0])
            at = qy * stride + qx
            lower, upper = buffer[at : at + run + 1], buffer[at + stride : at + stride + run + 1]
            out = value[row * columns + column : row * columns + column + run]
            for i in range(run):
                share_x, share_y = fx + dx * np.float32(i), fy + dy * np.float32(i)
                low = lower[i] + share_x * (lower[i + 1] - lower[i])
                high = upper[i] + share_x * (upper[i + 1] - upper[i])
                out[i] = low + share_y * (high - low)
            column += run


@njit(cache=True, nogil=True, inline="always")
def _steps(fraction, drift):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """How many steps of ``drift`` from a fraction in [0, 1) on stay in it, counting the first."""
    room = 1.0 - fraction if drift > 0 else fraction
    return 1 + int(min(room / max(abs(drift), 1e-9), 1e6))
