"""One Rubin coadd: from the bytes of its file to nanomaggies, WCS, noise and mask flags."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numba import njit
from numpy.typing import NDArray

from gzscale.errors import ImageError, Reason
from gzscale.surveys.rubin_planes import Planes, Window, mask_bits

__all__ = ["NANOJANSKY", "SIGMA_CELL", "Coadd", "coadd_wcs", "decode_coadd", "nanomaggies_per_unit"]

#: Nanomaggies a nanojansky: AB magnitudes are 22.5 - 2.5 log10(nanomaggies) and 31.4 - 2.5 log10(nJy).
NANOJANSKY = 10 ** (-0.4 * (31.4 - 22.5))
#: Side of the cells of the background's standard deviation in pixels.
SIGMA_CELL = 128
#: Rows of a cell of which the variance is read: it varies slowly, and the median needs no more.
_STRIP = 8
#: Side of a pixel in arcsec that a coadd may have.
PIXEL_RANGE = (0.05, 1.0)
#: Relative difference of two calibrations in one header that is an error.
_CALIBRATION_TOLERANCE = 0.01
_NUMBERS = ("CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2")
_KINDS = (("RA---TAN", "DEC--TAN"), ("RA---TAN-SIP", "DEC--TAN-SIP"))

# wcslib's set-up keeps static state.
_wcs_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Coadd:
    """A decoded coadd.

    Attributes
    ----------
    pixels
        Nanomaggies a pixel, float32, shape (ny, nx); NaN where a blanked mask plane is set, where there is no
        measurement, and outside the windows that were decoded.
    background_sigma
        Nanomaggies a pixel, float32, shape (my, mx): the square root of the median variance in cells of about
        `SIGMA_CELL` pixels, as `gzscale.surveys.base.Image` wants it.
    flags
        Bit k is set where the k-th of the flagged mask planes is, uint8, shape (ny, nx); None if no plane is
        flagged.
    """

    pixels: NDArray[np.float32]
    background_sigma: NDArray[np.float32]
    flags: NDArray[np.uint8] | None


def decode_coadd(
    planes: Planes,
    windows: Sequence[Window] | None,
    blank: Sequence[str],
    flags: Sequence[str],
    zero_point: float | None,
    need_flags: bool = False,
) -> Coadd:
    """Decode and calibrate a coadd.

    Parameters
    ----------
    planes
        The opened file.
    windows
        What to decode; None for all of it.
    blank
        Mask planes whose pixels become NaN.
    flags
        Mask planes that become flags, eight at most.
    zero_point
        AB magnitude of one unit where the header has no calibration.
    need_flags
        Whether a mask that does not declare all of ``flags`` is refused; otherwise those are never set.

    Raises
    ------
    ImageError
        BAD_UNIT, BAD_IMAGE.
    """
    factor = np.float32(nanomaggies_per_unit(planes, zero_point))
    required = [*blank, *flags] if need_flags else blank
    bits: dict[str, int] = {}
    if blank or flags:
        bits = mask_bits(planes.headers["MASK"], required, flags, planes.name)
    meanings = np.array([1 << bits[plane] if plane in bits else 0 for plane in flags], dtype=np.int64)
    blanked = sum(1 << bits[plane] for plane in set(blank))
    pixels = np.empty(planes.shape, np.float32)
    flagged = np.zeros(planes.shape if flags else (0, 0), np.uint8)
    no_mask = np.zeros((0, 0), np.int64)
    for rows in planes.blocks():
        pixels[rows] = planes.read("IMAGE", windows, rows)
        mask = planes.read("MASK", windows, rows) if blank or flags else no_mask
        if mask.dtype != np.int32:
            mask = mask.astype(np.int64)
        _calibrate(pixels[rows], factor, mask, blanked, meanings, flagged[rows])
    return Coadd(pixels, _sigma(planes) * factor, flagged if flags else None)


@njit(cache=True, nogil=True)
def _calibrate(pixels, factor, mask, blank, meanings, flags):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Multiply, blank and flag in one pass; without a mask, and without flags, those arrays are empty.

    Loops over a row without branches, which the compiler turns into SIMD, and few rows need them all.
    """
    wanted = np.int64(blank)
    for meaning in meanings:
        wanted |= meaning
    for row in range(pixels.shape[0]):
        line = pixels[row]
        for column in range(len(line)):
            value = line[column] * factor
            line[column] = value if np.isfinite(value) else np.float32(np.nan)
        if mask.shape[0] == 0:
            continue
        bits = mask[row]
        there = bits[0]
        for column in range(len(bits)):
            there |= bits[column]
        if there & wanted == 0:
            continue
        if there & blank:
            for column in range(len(bits)):
                line[column] = np.float32(np.nan) if bits[column] & blank else line[column]
        if flags.shape[0] == 0:
            continue
        found = flags[row]
        for k in range(len(meanings)):
            if there & meanings[k]:
                bit, meaning = np.uint8(1 << k), bits.dtype.type(meanings[k])
                for column in range(len(bits)):
                    found[column] |= bit if bits[column] & meaning else np.uint8(0)


def nanomaggies_per_unit(planes: Planes, zero_point: float | None) -> float:
    """Return nanomaggies a unit of the pixels.

    ``BUNIT`` nJy (DP1) is enough; an older coadd in instrumental units says what flux a source of
    magnitude 0 has, ``FLUXMAG0``.

    Parameters
    ----------
    planes
        The opened file.
    zero_point
        AB magnitude of one unit where the header says neither.

    Raises
    ------
    ImageError
        BAD_UNIT if nothing says it, or two cards disagree.
    """
    headers = (planes.headers["IMAGE"], planes.primary)
    unit = str(next((h["BUNIT"] for h in headers if h.get("BUNIT")), "")).strip()
    counts = next((h["FLUXMAG0"] for h in headers if h.get("FLUXMAG0")), None)
    from_counts = 1e9 / counts if _is_number(counts) and counts > 0 else None
    if unit.lower() == "njy":
        if from_counts and abs(from_counts / NANOJANSKY - 1) > _CALIBRATION_TOLERANCE:
            raise ImageError(
                Reason.BAD_UNIT,
                f"{planes.name}: BUNIT is nJy, but FLUXMAG0 {counts:g} is that of another unit "
                f"({from_counts:g} nanomaggies); it cannot be told which is right",
            )
        return NANOJANSKY
    if unit.lower() in {"nanomaggy", "nmgy"}:
        return 1.0
    if from_counts is not None:
        return from_counts
    if zero_point is not None:
        return 10 ** (0.4 * (22.5 - zero_point))
    raise ImageError(
        Reason.BAD_UNIT,
        f"{planes.name}: BUNIT is {unit!r} and there is no usable FLUXMAG0 ({counts!r}); set "
        "survey.options.zero_point to the AB magnitude of one unit",
    )


def coadd_wcs(header: fits.Header, name: str, shape: tuple[int, int]) -> WCS:
    """Return a coadd's celestial WCS, TAN or TAN-SIP; safe to call from several threads.

    Raises
    ------
    ImageError
        BAD_WCS.
    """
    kinds = tuple(str(header.get(f"CTYPE{i}", "")).strip() for i in (1, 2))
    if kinds not in _KINDS:
        raise _bad_wcs(name, f"CTYPE is {kinds[0]!r}, {kinds[1]!r}, expected RA---TAN or RA---TAN-SIP")
    wrong = [key for key in _NUMBERS if not _is_number(header.get(key))]
    if wrong:
        raise _bad_wcs(name, f"{', '.join(wrong)} missing or not a number")
    try:
        with _wcs_lock:
            wcs: Any = WCS(header, naxis=2)
            wcs.wcs.set()
            wcs.array_shape = shape
            matrix = 3600 * np.asarray(wcs.pixel_scale_matrix, dtype=np.float64)
            centre = np.asarray(wcs.all_pix2world([[(shape[1] - 1) / 2, (shape[0] - 1) / 2]], 0))
    except Exception as error:
        raise _bad_wcs(name, f"{type(error).__name__}: {error}") from error
    scale = math.sqrt(abs(np.linalg.det(matrix))) if np.all(np.isfinite(matrix)) else math.nan
    if not PIXEL_RANGE[0] <= scale <= PIXEL_RANGE[1] or not np.all(np.isfinite(centre)):
        raise _bad_wcs(
            name, f"its pixels are {scale:.3g} arcsec, not {PIXEL_RANGE[0]} to {PIXEL_RANGE[1]}, or undefined"
        )
    return wcs


def _sigma(planes: Planes) -> NDArray[np.float32]:
    """Return the background's standard deviation in the pixels' units, by cells."""
    ny, nx = planes.shape
    edges = [np.linspace(0, side, -(-side // SIGMA_CELL) + 1).astype(int) for side in (ny, nx)]
    middles = (edges[0][:-1] + edges[0][1:] - _STRIP) // 2
    starts = np.clip(middles, 0, max(0, ny - _STRIP)).tolist()
    sigma = np.full((len(edges[0]) - 1, len(edges[1]) - 1), np.nan, np.float32)
    for row, strip in enumerate(planes.strips("VARIANCE", starts, _STRIP)):
        _median_roots(strip.astype(np.float32, copy=False), edges[1], sigma[row])
    known = np.isfinite(sigma)
    if not known.any():
        raise ImageError(
            Reason.BAD_IMAGE, f"{planes.name}: no variance is positive and finite; fetch the file again"
        )
    # A cell without variance is one without pixels; stamps that reach into it take the image's.
    sigma[~known] = np.median(sigma[known])
    return sigma


@njit(cache=True, nogil=True)
def _median_roots(variance, edges, roots):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Root of the median of what is positive and finite between each two columns; NaN without any."""
    for cell in range(len(roots)):
        part = variance[:, edges[cell] : edges[cell + 1]]
        values = np.empty(part.size, np.float64)
        count = 0
        for value in part.flat:
            if np.isfinite(value) and value > 0:
                values[count] = value
                count += 1
        if count > 0:
            roots[cell] = np.float32(np.sqrt(np.median(values[:count])))


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _bad_wcs(name: str, what: str) -> ImageError:
    return ImageError(Reason.BAD_WCS, f"{name}: no usable WCS: {what}; fetch the file again")
