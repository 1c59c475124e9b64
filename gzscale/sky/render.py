"""The synthetic pixels: each object drawn with GalSim on a small stamp, stamps added up to frames.

An object is a few bodies (bulge, disc, bar, arms, companion) of one shape and one colour. Each
body's Fourier transform is evaluated once with GalSim; a band is their sum by flux, times the
transform of the band's seeing and pixel, shifted to where the band's pixels have the object.

GalSim: Rowe et al. 2015, Astronomy and Computing 10, 121.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gzscale.sky import scan
from gzscale.sky.camera import SEEING

try:
    import galsim
except ImportError as error:
    raise ImportError(
        "the synthetic sky is drawn with GalSim, which is not installed: pip install 'gzscale[sky]'"
    ) from error

__all__ = [
    "SIDES",
    "Stamp",
    "bodies",
    "draw_field",
    "draw_object",
    "light",
    "petrosian",
    "shift",
    "stamp_side",
    "transform",
]

#: Accuracies a little below GalSim's defaults: the error stays a tenth of the noise.
_ACCURACY = galsim.GSParams(folding_threshold=2e-2, maxk_threshold=5e-3, kvalue_accuracy=1e-4)
#: A star's wings: Moffat index in the range that Racine 1996 (PASP 108, 699) finds.
_MOFFAT_BETA = 3.5
#: Sersic profiles end at this many half-light radii, as SDSS's own de Vaucouleurs model does.
_TRUNCATION = 7.0
#: Sides of stamps in pixels: lengths that transform fast, few, so that the seeing's are computed once.
SIDES = (64, 96, 128, 160, 192, 256, 320, 384, 512)
#: Room for the seeing beyond the profile's end, pixels.
_PSF_ROOM = 20
#: Side of the image that holds a pattern of arms or clumps, in pixels and in disc scale lengths.
_PATTERN_PIXELS, _PATTERN_SCALES = 96, 10.0
#: Half-light radius of an exponential disc in scale lengths.
_DISK_HALF_LIGHT = 1.678

Stamp = tuple[int, int, NDArray[np.float32]]
"""Row of the run and column of the lower left pixel, and the pixels in nanomaggies."""


def _sersic(index: float, radius: float) -> galsim.GSObject:
    # The unit profile is the same object each time, so that GalSim's tables are computed once.
    unit = galsim.Sersic(
        index, half_light_radius=1.0, trunc=_TRUNCATION, flux_untruncated=False, gsparams=_ACCURACY
    )
    return unit.dilate(radius)


def _flatten(round_profile: galsim.GSObject, ratio: float, angle: float) -> galsim.GSObject:
    """Shorten a profile to ``ratio`` across the axis at ``angle`` degrees; the radius stays the long one."""
    # GalSim's shear keeps the area, not the major axis.
    return round_profile.dilate(np.sqrt(ratio)).shear(q=ratio, beta=angle * galsim.degrees)


def bodies(row: Mapping[str, Any]) -> dict[str, galsim.GSObject]:
    """Return the bodies of a galaxy that shine, each of unit flux, as they are above the atmosphere.

    Coordinates are arcsec in the pixel frame, x along the columns and y along the rows.

    Parameters
    ----------
    row
        A row of the truth table.
    """
    # Growing columns lie at the position angle column_angle; x to y turns north through east.
    angle = row["position_angle"] - row["column_angle"]
    ratio, bar_angle, radius = row["axis_ratio"], row["bar_angle"], row["disk_radius"]
    found = {}
    if row["fraction_bulge"] > 0:
        # A disc galaxy's bulge is rounder than its disc.
        bulge_ratio = ratio if row["kind"] == "elliptical" else max(ratio, 0.6)
        found["bulge"] = _flatten(_sersic(row["bulge_sersic"], row["bulge_radius"]), bulge_ratio, angle)
    if row["fraction_disk"] > 0:
        found["disk"] = _flatten(_sersic(1.0, radius), ratio, angle)
    if row["fraction_bar"] > 0:
        found["bar"] = _flatten(_flatten(_sersic(0.5, 0.8 * radius), 0.3, bar_angle), ratio, angle)
    if row["fraction_arms"] > 0:
        found["arms"] = _flatten(_pattern(row).dilate(radius / _DISK_HALF_LIGHT), ratio, angle)
    if row["fraction_companion"] > 0:
        away = np.radians(row["companion_angle"] - row["column_angle"])
        shift = row["companion_separation"] * np.array([np.cos(away), np.sin(away)])
        found["companion"] = _flatten(_sersic(2.0, 0.6 * row["half_light_radius"]), 0.6, bar_angle).shift(
            *shift
        )
    return found


def _pattern(row: Mapping[str, Any]) -> galsim.GSObject:
    """Return a disc's young stars, face on, of unit flux and unit scale length: arms, a tail, or clumps.

    Arms are logarithmic spirals, ``phi = ln(r) / tan(pitch)``, of that many arms, broken into
    knots by a random factor; without arms the knots are all there is.
    """
    rng = np.random.Generator(np.random.PCG64(row["pattern_seed"]))
    axis = (np.arange(_PATTERN_PIXELS) + 0.5) / _PATTERN_PIXELS * _PATTERN_SCALES - _PATTERN_SCALES / 2
    x, y = np.meshgrid(axis, axis)
    radius = np.hypot(x, y)
    if row["arm_count"] > 0:
        winding = np.log(radius + 0.1) / np.tan(np.radians(row["arm_pitch"]))
        phase = np.arctan2(y, x) * row["arm_sense"] - winding + np.radians(row["bar_angle"])
        crest = ((1 + np.cos(row["arm_count"] * phase)) / 2) ** (6 if row["kind"] == "merger" else 3)
        fall = 2.5 if row["kind"] == "merger" else 1.3
        image = crest * np.exp(-radius / fall) * (1 - np.exp(-((radius / 0.7) ** 2)))
        image *= 0.7 + 0.6 * rng.random(image.shape)
    else:
        image = np.zeros_like(radius)
        for _ in range(rng.integers(5, 14)):
            knot_x, knot_y = rng.normal(0, 1.1, 2)
            width = rng.uniform(0.2, 0.6)
            image += rng.exponential() * np.exp(-((x - knot_x) ** 2 + (y - knot_y) ** 2) / (2 * width**2))
    image *= radius < _PATTERN_SCALES / 2 - 0.1
    return galsim.InterpolatedImage(
        galsim.Image((image / image.sum()).astype(np.float32)),
        scale=_PATTERN_SCALES / _PATTERN_PIXELS,
        x_interpolant="cubic",
        calculate_stepk=False,
        calculate_maxk=False,
        gsparams=_ACCURACY,
    )


def stamp_side(row: Mapping[str, Any], scale: float = scan.PIXEL_SCALE) -> int:
    """Return the side of the stamp that holds an object (a row of the truth table), pixels of ``scale``."""
    if row["kind"] == "star":
        return 128 if row["mag_r"] < 17 else 64
    reach = max(
        4.5 * row["disk_radius"],
        _TRUNCATION * row["bulge_radius"],
        row["companion_separation"] + 3 * row["half_light_radius"],
    )
    needed = 2 * (reach / scale + _PSF_ROOM)
    return next((side for side in SIDES if side >= needed), SIDES[-1])


def transform(profile: galsim.GSObject, side: int, scale: float = scan.PIXEL_SCALE) -> NDArray[np.complex128]:
    """Return a profile's Fourier transform in the layout of `numpy.fft.rfft2`, shape (side, side/2 + 1).

    Parameters
    ----------
    profile
        In arcsec.
    side
        Of the stamp, pixels.
    scale
        Arcsec a pixel.
    """
    bounds = galsim.BoundsI(0, side // 2, -side // 2, side // 2 - 1)
    step = 2 * np.pi / (side * scale)
    image = profile.drawKImage(galsim.ImageCD(bounds, scale=step), recenter=False)
    return np.fft.ifftshift(image.array, axes=0)


@cache
def _response(band: str, side: int) -> NDArray[np.complex128]:
    """Return the transform of a band's seeing and of the pixel."""
    seeing = galsim.Moffat(_MOFFAT_BETA, fwhm=SEEING[band])
    return transform(galsim.Convolve([seeing, galsim.Pixel(scan.PIXEL_SCALE)]), side)


def draw_object(row: Mapping[str, Any]) -> dict[str, Stamp]:
    """Draw one object in every band where it lies in the run, seeing and pixels included.

    Parameters
    ----------
    row
        A row of the truth table.

    Returns
    -------
    dict
        Band to stamp, without noise. The pixel nearest to the object is in the middle, (side/2, side/2).
    """
    side = stamp_side(row)
    stamps = {}
    for band, spectrum in zip(scan.BANDS, light(row, side, len(scan.BANDS)), strict=True):
        column, line = (
            float(value) for value in scan.sky_to_pixel(row["camcol"], band, row["mu"], row["nu"])
        )
        left, bottom = round(column) - side // 2, round(line) - side // 2
        moved = spectrum * _response(band, side) * shift(column - left, line - bottom, side)
        pixels = np.fft.irfft2(moved, s=(side, side), axes=(0, 1))
        stamps[band] = bottom, left, pixels.astype(np.float32)
    return stamps


def light(
    row: Mapping[str, Any], side: int, bands: int, scale: float = scan.PIXEL_SCALE
) -> Iterator[NDArray[np.complex128] | float]:
    """Yield an object's Fourier transform above the atmosphere, band after band.

    Parameters
    ----------
    row
        A row of the truth table.
    side
        Of the stamp, pixels.
    bands
        How many bands the row's fluxes have.
    scale
        Arcsec a pixel.

    Yields
    ------
    NDArray[np.complex128] | float
        Layout of `numpy.fft.rfft2`, shape (side, side/2 + 1), the object at pixel (0, 0); of a star its flux.
    """
    if row["kind"] == "star":
        yield from row["flux_bulge"]
        return
    parts = {name: transform(body, side, scale) for name, body in bodies(row).items()}
    for band in range(bands):
        yield sum(row[f"flux_{name}"][band] * part for name, part in parts.items())


def shift(columns: float, rows: float, side: int) -> NDArray[np.complex128]:
    """Return the factor that moves a transform by that many pixels, shape (side, side/2 + 1)."""
    frequency = -2j * np.pi * np.fft.fftfreq(side)
    return np.exp(frequency * rows)[:, None] * np.exp(frequency * columns)[None, : side // 2 + 1]


def draw_field(
    key: scan.FieldKey, rows: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, NDArray[np.float32]], dict[int, tuple[float, float, float]]]:
    """Draw a field in every band, without noise.

    Stamps are added in the order of ``rows``: two fields that share rows of the run get
    the same values there if both list the objects in the same order.

    Parameters
    ----------
    key
        Which field.
    rows
        Rows of the truth table that may touch it; others cost no drawing.

    Returns
    -------
    dict
        Band to nanomaggies a pixel, shape (1489, 2048), float32.
    dict
        object_id to (Petrosian r magnitude, r50, r90) in mag and arcsec, of the catalog
        objects that the field owns.
    """
    frames = {band: np.zeros((scan.ROWS, scan.COLUMNS), np.float32) for band in scan.BANDS}
    measured = {}
    for row in rows:
        if not _touches(key, row):
            continue
        stamps = draw_object(row)
        for band, stamp in stamps.items():
            _add(frames[band], key.first_row, stamp)
        if row["catalogued"] and row["field"] == key.field:
            measured[row["object_id"]] = petrosian(stamps["r"][2])
    return frames, measured


def _touches(key: scan.FieldKey, row: Mapping[str, Any]) -> bool:
    if row["camcol"] != key.camcol:
        return False
    line = float(scan.sky_to_pixel(key.camcol, "r", row["mu"], row["nu"])[1]) - key.first_row
    # Bands lie up to nine rows apart.
    reach = stamp_side(row) // 2 + 12
    return -reach <= line <= scan.ROWS + reach


def _add(frame: NDArray[np.float32], first_row: int, stamp: Stamp) -> None:
    bottom, left, pixels = stamp
    bottom -= first_row
    rows = slice(max(bottom, 0), min(bottom + pixels.shape[0], frame.shape[0]))
    columns = slice(max(left, 0), min(left + pixels.shape[1], frame.shape[1]))
    if rows.start < rows.stop and columns.start < columns.stop:
        frame[rows, columns] += pixels[
            rows.start - bottom : rows.stop - bottom, columns.start - left : columns.stop - left
        ]


def petrosian(stamp: NDArray[np.float32]) -> tuple[float, float, float]:
    """Measure a noiseless stamp as SDSS measures its galaxies.

    The Petrosian radius is where the mean surface brightness at r is 0.2 of that within r;
    the flux is that within twice this radius (Blanton et al. 2001, AJ 121, 2358; Strauss et al.
    2002, AJ 124, 1810). The seeing is in it, as in SDSS.

    Parameters
    ----------
    stamp
        Nanomaggies a pixel, the object at (side/2, side/2).

    Returns
    -------
    tuple[float, float, float]
        Magnitude, and the radii that hold 50 % and 90 % of the flux in arcsec.
    """
    half = stamp.shape[0] // 2
    axis = np.arange(stamp.shape[0]) - half
    distance = np.hypot(axis[:, None], axis[None, :]).ravel()
    order = np.argsort(distance, kind="stable")
    distance, pixels = distance[order], stamp.ravel()[order].astype(np.float64)
    light = np.concatenate([[0.0], np.cumsum(pixels)])
    moment = np.concatenate([[0.0], np.cumsum(pixels * distance)])
    edges = np.arange(0.5, half - 1, 0.5)
    # A pixel at distance d counts by clip(edge - d + 1/2, 0, 1), which two running sums give.
    inner, outer = np.searchsorted(distance, edges - 0.5), np.searchsorted(distance, edges + 0.5)
    partial = (edges + 0.5) * (light[outer] - light[inner]) - (moment[outer] - moment[inner])
    flux = np.maximum.accumulate(light[inner] + partial)
    area = np.pi * edges**2
    ring = np.interp(1.25 * edges, edges, flux) - np.interp(0.8 * edges, edges, flux)
    ratio = ring / (area * (1.25**2 - 0.8**2)) / (flux / area)
    below = np.flatnonzero((ratio < 0.2) & (edges > 1.5))
    radius = edges[below[0]] if below.size else edges[-1] / 2
    total = float(np.interp(2 * radius, edges, flux))
    r50, r90 = (float(np.interp(part * total, flux, edges)) * scan.PIXEL_SCALE for part in (0.5, 0.9))
    return 22.5 - 2.5 * float(np.log10(total)), r50, r90
