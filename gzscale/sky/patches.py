"""Draw a field of training galaxies: each on a patch of its own, patches laid side by side on one frame.

A patch is wide enough for the cutout in any orientation, and nothing reaches from one patch into the
next. The frame has the survey's noise and a world coordinate system, so that what a night does to
frames can be done to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from gzscale.sky import render
from gzscale.sky.camera import float_compress
from gzscale.sky.conditions import Conditions
from gzscale.surveys.base import Image, ImageRef

__all__ = ["PATCH", "PATCHES", "Place", "draw_field", "field_images", "field_wcs", "places"]

#: Side of a patch in pixels: a cutout of 64 pixels has a diagonal of 91.
PATCH = 96
#: Patches along the side of a frame, at most.
PATCHES = 8
#: Largest side of a stamp, arcsec. What a galaxy has beyond comes back at the other side: of SDSS's 160
#: pixels light from 44 arcsec away in the patch's corner, which is fainter than a tenth of the noise.
_LARGEST_STAMP = 64.0
#: Sky electrons from which on photons are drawn from a normal distribution: its skewness is below 0.1.
_MANY_ELECTRONS = 100.0

Place = tuple[float, float]
"""Column and row of an object in its patch."""


def places(
    count: int, conditions: Conditions, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Place galaxies at the middle of their patches, to within a pixel.

    Returns
    -------
    positions
        0-based column and row in the frame of the first band's grid, shape (count, 2).
    ra, dec
        Degrees, shape (count,).
    """
    number = np.arange(count)
    corner = np.stack([number % PATCHES, number // PATCHES], axis=1) * PATCH
    positions = corner + PATCH // 2 + rng.uniform(-0.5, 0.5, (count, 2))
    ra, dec = field_wcs(conditions, count, 0).all_pix2world(positions[:, 0], positions[:, 1], 0)
    return positions, ra, dec


def field_wcs(conditions: Conditions, count: int, band: int) -> WCS:
    """Return a band's TAN world coordinate system; growing columns lie at ``column_angle``."""
    width, height = _shape(count)[::-1]
    angle = np.radians(conditions.column_angle)
    scale = conditions.pixel_scale / 3600
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = conditions.centre
    shift = conditions.shifts[band] - conditions.shifts[0]
    wcs.wcs.crpix = np.array([(width + 1) / 2, (height + 1) / 2]) + shift
    wcs.wcs.cd = scale * np.array([[np.sin(angle), np.cos(angle)], [np.cos(angle), -np.sin(angle)]])
    wcs.wcs.set()
    return wcs


def _shape(count: int) -> tuple[int, int]:
    return -(-count // PATCHES) * PATCH, min(count, PATCHES) * PATCH


def draw_field(
    conditions: Conditions,
    bands: str,
    positions: NDArray[np.float64],
    members: Sequence[Sequence[tuple[Mapping[str, Any], Place]]],
) -> NDArray[np.float32]:
    """Draw every patch without noise.

    Parameters
    ----------
    conditions
        Of the field.
    bands
        One letter a band.
    positions
        Of the galaxies, as `places` gives them.
    members
        For each patch what is in it: rows of the truth table, and how far each lies from the galaxy in
        columns and rows.

    Returns
    -------
    NDArray[np.float32]
        Nanomaggies a pixel, shape (bands, rows, columns).
    """
    frame = np.zeros((len(bands), *_shape(len(members))), np.float32)
    responses: dict[tuple[int, int], NDArray[np.float64]] = {}
    shifts = conditions.shifts - conditions.shifts[0]
    scale = conditions.pixel_scale
    largest = max(side for side in render.SIDES if side * scale <= _LARGEST_STAMP)
    for number, patch in enumerate(members):
        bottom, left = number // PATCHES * PATCH, number % PATCHES * PATCH
        here = frame[:, bottom : bottom + PATCH, left : left + PATCH]
        origin = positions[number] - (left, bottom)
        for row, offset in patch:
            side = min(render.stamp_side(row, scale), largest)
            for band, transform in enumerate(render.light(row, side, len(bands), scale)):
                if (band, side) not in responses:
                    responses[band, side] = conditions.seeing_transform(band, side)
                column, line = origin + offset + shifts[band]
                x, y = round(column) - side // 2, round(line) - side // 2
                moved = transform * responses[band, side] * render.shift(column - x, line - y, side)
                _add(here[band], np.fft.irfft2(moved, s=(side, side), axes=(0, 1)), x, y)
    return frame


def _add(patch: NDArray[np.float32], stamp: NDArray[np.float64], left: int, bottom: int) -> None:
    """Add a stamp whose lower left pixel is at (left, bottom) of the patch, as far as they overlap."""
    rows = slice(max(bottom, 0), min(bottom + stamp.shape[0], PATCH))
    columns = slice(max(left, 0), min(left + stamp.shape[1], PATCH))
    if rows.start < rows.stop and columns.start < columns.stop:
        patch[rows, columns] += stamp[
            rows.start - bottom : rows.stop - bottom, columns.start - left : columns.stop - left
        ]


def field_images(
    source: NDArray[np.float32],
    conditions: Conditions,
    bands: str,
    count: int,
    name: str,
    rng: np.random.Generator,
) -> list[Image]:
    """Expose a field: photons of source and sky, read noise, whole counts, calibration, compression.

    Parameters
    ----------
    source
        What `draw_field` returned.
    conditions, bands
        Of the field.
    count
        How many galaxies it has.
    name
        Of the field; band ``b`` of it is ``<name>-b``.
    rng
        The generator.
    """
    images = []
    for band, letter in enumerate(bands):
        sky, gain, unit = (float(value[band]) for value in (conditions.sky, conditions.gain, conditions.unit))
        expected = np.minimum(
            np.maximum(source[band] / np.float32(unit), 0) + np.float32(sky),
            np.float32(conditions.saturation),
        )
        # Rounding to whole counts is a twelfth of the dark variance that the cameras' tables give.
        variance = max(conditions.dark[band] - 1 / 12, 0.0)
        counts = expected
        if sky * gain < _MANY_ELECTRONS:
            counts = rng.poisson(expected * gain).astype(np.float32) / np.float32(gain)
        else:
            variance = expected / np.float32(gain) + np.float32(variance)
        counts += np.sqrt(variance, dtype=np.float32) * rng.standard_normal(expected.shape, dtype=np.float32)
        counts = np.minimum(np.rint(counts), np.float32(conditions.saturation))
        pixels = (counts - np.float32(sky)) * np.float32(unit)
        if conditions.compressed:
            pixels = float_compress(pixels)
        reference = ImageRef(f"{name}-{letter}", letter, "", name)
        sigma = np.full((1, 1), conditions.background_sigma[band], np.float32)
        images.append(Image(reference, pixels, field_wcs(conditions, count, band), sigma, "", 0))
    return images
